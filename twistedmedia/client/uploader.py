"""Uploads a file: in one request, or by a resumable upload."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from twistedmedia import errors
from twistedmedia.client.client_limits import check_kind
from twistedmedia.client.exceptions import (
    NOT_FOUND,
    IntegrityError,
    InvalidResponse,
    LocalFailure,
    Refused,
    Unreachable,
)
from twistedmedia.client.listings import get_page
from twistedmedia.client.local_files import check_path, file_changed, open_file
from twistedmedia.client.locations import Service, check_text, name_of
from twistedmedia.client.outcomes import Found, Stored, stored
from twistedmedia.client.requester import FileSource, Requester
from twistedmedia.client.responses import (
    ServiceResponse,
    check_is_file,
    count,
    declared_digest,
    modified,
    strong_etag,
)
from twistedmedia.client.resumable_uploads import FileUpload, Progress, ResumableUpload
from twistedmedia.client.streams import StreamSource, check_descriptor
from twistedmedia.client.threads import in_thread
from twistedmedia.client.upload_records import ResumeStore, upload_key
from twistedmedia.http.header_fields import repr_digest
from twistedmedia.names import MediaName

# Files up to this size are sent in one request. The service reads this much of a refused request
# before it closes the connection, so its response is sure to arrive. Sending them again costs
# little.
SMALL_BYTES = 4 << 20

# RFC 9110, 8.8.3. The service compares tags byte by byte, so a weak tag would never match.
_STRONG_ETAG = re.compile('"[\x21\x23-\x7e]*"')


class Uploader:
    """Stores local files at the service."""

    def __init__(self, requester: Requester, service: Service) -> None:
        self._requester = requester
        self._service = service
        self._confirmed: set[tuple[str, ...]] = set()  # directories, see _confirm_service
        # The default formats of a service, and those that this service has accepted.
        self._accepted_formats = {"mp3", "wav"}

    async def upload(
        self,
        path: str | Path,
        directory: str,
        filename: str | None,
        *,
        progress: Progress,
        resume_store: ResumeStore,
        ask_first: bool = False,
    ) -> Stored:
        """As `MediaClient.upload`."""
        check_kind(resume_store, ResumeStore, "resume_store")
        name = name_of(directory, Path(check_path(path)).name if filename is None else filename)
        async with self._open(path, name, progress) as upload:
            result = await self._upload(upload, resume_store, ask_first)
            if await upload.file.has_changed():  # the service has an older version now
                raise file_changed(upload.file.path)
            self._accepted_formats.add(format_of(name.filename))
            return result

    async def replace(
        self, path: str | Path, directory: str, filename: str, etag: str, progress: Progress
    ) -> Stored:
        """As `MediaClient.replace`."""
        name = name_of(directory, filename)
        check_etag(etag)
        async with self._open(path, name, progress) as upload:
            return await self._replace(upload, etag)

    async def upload_stream(
        self,
        descriptor: int,
        directory: str,
        filename: str,
        etag: str | None,
        progress: Callable[[int, int | None], None],
    ) -> Stored:
        """As `MediaClient.upload_stream`."""
        check_descriptor(descriptor)
        name = name_of(directory, filename)
        if etag is not None:
            check_etag(etag)
        # Check before anything is read: a stream that is refused half-way cannot be sent again.
        found = await self._requester.retry(lambda: self._head(name))
        if etag is not None:
            await self._check_matches(name, found, etag)
        elif found is not None:
            await self._confirm_service(name)
            exists = errors.AlreadyExists()
            raise Refused(exists.status, exists.code, exists.reason)
        source = StreamSource(
            self._requester.reactor, descriptor, lambda sent: progress(sent, None)
        )
        url = self._service.media(name)
        headers = {} if etag is None else {"If-Match": etag}
        try:
            response = await self._requester.request(
                "PUT", url, headers, source, expected=(200, 201)
            )
        finally:
            source.stop()
        result = stored(response.payload, url, source.sent)
        if result.sha256 != source.sha256:
            raise IntegrityError(
                "the service has stored other content than was sent: its digest differs"
            )
        return result

    async def find(self, name: MediaName, *, digest: bool = False) -> Found | None:
        """As `MediaClient.find`, without retries."""
        found = await self._head(name, digest=digest)
        if found is not None:
            return found
        try:  # a response to HEAD has no JSON, so the 404 may be from another server
            await self._requester.request(
                "GET", self._service.media(name), {"Range": "bytes=0-0"}, expected=(200, 206, 416)
            )
        except Refused as error:
            if error.code == NOT_FOUND:
                return None
            raise
        return await self._head(name, digest=digest)  # another client has just stored it

    async def matches(self, path: str | Path, directory: str, filename: str) -> bool | None:
        """As `MediaClient.matches`."""
        name = name_of(directory, filename)
        found = await self._requester.retry(lambda: self._head(name))
        if found is None:
            return None
        if await self._is_content_of(path, name, found):
            return True
        await self._confirm_service(name)
        return False

    @asynccontextmanager
    async def _open(
        self, path: str | Path, name: MediaName, progress: Progress
    ) -> AsyncIterator[FileUpload]:
        """Open and hash a file for an upload. If the service finds another digest because the file
        has changed since, that is a failure of the file.
        """
        file = await open_file(self._requester.reactor, path)
        try:
            yield FileUpload(file, name, await file.sha256(), progress)
        except Refused as error:
            if error.code == errors.DigestMismatch.code and await file.has_changed():
                raise file_changed(file.path) from None
            raise
        finally:
            await file.close()

    async def _head(self, name: MediaName, *, digest: bool = False) -> Found | None:
        """Like `find`, but returns None for a 404 of another server as well."""
        headers = {"Want-Repr-Digest": "sha-256=10"} if digest else {}
        try:
            response = await self._requester.request("HEAD", self._service.media(name), headers)
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return found_in(response)

    async def _is_content_of(self, path: str | Path, name: MediaName, found: Found) -> bool:
        file = await open_file(self._requester.reactor, path)
        try:
            if found.size != file.size:
                return False
            sha256 = found.sha256
            if sha256 is None:
                again = await self._requester.retry(lambda: self._head(name, digest=True))
                sha256 = None if again is None else again.sha256
            return sha256 is not None and sha256 == await file.sha256()
        finally:
            await file.close()

    async def _upload(
        self, upload: FileUpload, resume_store: ResumeStore, ask_first: bool
    ) -> Stored:
        size, file_format = upload.file.size, format_of(upload.name.filename)
        # A resumable upload in a refused format fails before any content is sent.
        must_ask = ask_first and size > 0 and file_format not in self._accepted_formats
        if size > SMALL_BYTES or must_ask:
            result = await self._upload_resumably(upload, resume_store)
            if result is not None:
                return result
        return await self._requester.retry(lambda: self._put(upload))

    async def _upload_resumably(
        self, upload: FileUpload, resume_store: ResumeStore
    ) -> Stored | None:
        """Returns None if the service does not support resumable uploads."""
        file, name, sha256 = upload.file, upload.name, upload.sha256
        key = upload_key(self._service, file, name, sha256)
        while True:
            url = await in_thread(self._requester.reactor, resume_store.load, key)
            resumable = ResumableUpload(self._requester, self._service, upload, resume_store, key)
            if not await resumable.run():
                return None
            etag = None
            try:  # the file is stored; only its entity tag is missing, so one attempt is enough
                found = await self.find(name)
            except (Refused, Unreachable, InvalidResponse):
                break
            if found is not None and found.sha256 in (None, sha256):
                etag = found.etag
            elif url is not None:  # an earlier run stored it, and it was removed or replaced since
                continue
            break
        return Stored(
            name.directory,
            name.filename,
            self._service.media(name),
            file.size,
            sha256,
            etag,
            identical=resumable.was_identical,
        )

    async def _put(self, upload: FileUpload, condition: dict[str, str] | None = None) -> Stored:
        url = self._service.media(upload.name)
        size = upload.file.size
        upload.progress(0, size)
        content = FileSource(upload.file, 0, size, lambda sent: upload.progress(sent, size))
        headers = {"Content-Digest": repr_digest(upload.sha256), **(condition or {})}
        response = await self._requester.request("PUT", url, headers, content, expected=(200, 201))
        return stored(response.payload, url, size)

    async def _replace(self, upload: FileUpload, etag: str) -> Stored:
        name, sha256 = upload.name, upload.sha256
        may_have_replaced = False

        async def attempt() -> Stored:
            nonlocal may_have_replaced
            # Check before the file is sent: the response to a refused large request can be lost.
            found = await self._head(name, digest=may_have_replaced)
            if may_have_replaced and found is not None and found.sha256 == sha256:
                url = self._service.media(name)
                return Stored(
                    name.directory,
                    name.filename,
                    url,
                    found.size,
                    sha256,
                    found.etag,
                    replaced=True,
                )
            await self._check_matches(name, found, etag)
            try:
                return await self._put(upload, {"If-Match": etag})
            except Unreachable as error:
                may_have_replaced = may_have_replaced or error.was_sent
                raise

        return await self._requester.retry(attempt)

    async def _check_matches(self, name: MediaName, found: Found | None, etag: str) -> None:
        """Check that there is a file to be replaced, and that it has the entity tag."""
        if found is None:
            reason = "there is no file of that name to replace"
        elif etag not in ("*", found.etag):
            reason = "the file at the service has another entity tag"
        else:
            return
        await self._confirm_service(name)
        raise Refused(errors.PreconditionFailed.status, errors.PreconditionFailed.code, reason)

    async def _confirm_service(self, name: MediaName) -> None:
        """Check that it is the service that responds for the directory of `name`.

        A response to HEAD has no JSON, so it may be from another server. A listing has JSON.

        :raises ClientError: when another server responds.
        """
        if name.folders in self._confirmed:
            return
        try:
            await get_page(self._requester, self._service, name.directory, None)
        except Refused as error:
            if error.code != NOT_FOUND:
                raise
        self._confirmed.add(name.folders)


def found_in(response: ServiceResponse) -> Found:
    """The properties of a file from the headers of a response.

    :raises InvalidResponse: when the response does not describe a file of the service.
    """
    check_is_file(response.headers)
    size = count(response.headers, "Content-Length")
    return Found(
        size=-1 if size is None else size,
        etag=strong_etag(response.headers),
        sha256=declared_digest(response.headers),
        modified=modified(response.headers),
    )


def format_of(filename: str) -> str:
    """The extension in lower case, by which the service distinguishes formats."""
    return filename.rpartition(".")[2].lower() if "." in filename else ""


def check_etag(etag: object) -> None:
    """:raises LocalFailure: when `etag` is neither a strong entity tag nor `*`."""
    tag = check_text(etag, "entity tag")
    if tag == "*" or _STRONG_ETAG.fullmatch(tag):
        return
    if tag.startswith("W/"):
        why = "it is a weak one, which never matches; the service has strong ones only"
    elif len(tag) < 2 or not tag[0] == tag[-1] == '"':
        why = "it must have double quotes at both ends"
    elif '"' in tag[1:-1]:
        why = "it has double quotes within; give one entity tag only"
    else:
        why = "it must consist of visible ASCII characters"
    raise LocalFailure(f"{tag!r} is not an entity tag that can be used: {why}")

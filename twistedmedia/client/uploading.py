"""A file on its way to the service: in one request, or by an upload that can be resumed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from twistedmedia.client.bounds import check_kind
from twistedmedia.client.browsing import page_of
from twistedmedia.client.exceptions import (
    NOT_FOUND,
    IntegrityError,
    InvalidResponse,
    LocalFailure,
    Refused,
    Unreachable,
)
from twistedmedia.client.local_files import LocalFile, changed, open_file, path_of
from twistedmedia.client.locations import Service, name_of, text_of
from twistedmedia.client.outcomes import Found, Stored, stored
from twistedmedia.client.requester import Requester, SentFile
from twistedmedia.client.responses import (
    ServiceResponse,
    check_is_file,
    count,
    declared_digest,
    modified,
    strong_etag,
)
from twistedmedia.client.resuming import Resumable
from twistedmedia.client.streams import SentStream, descriptor_of
from twistedmedia.client.threads import in_thread
from twistedmedia.client.upload_records import Record, upload_key
from twistedmedia.http.header_fields import repr_digest
from twistedmedia.names import MediaName

Progress = Callable[[int, int], None]

# Up to this size a file goes in one request: so much of a refused request the service reads before
# it closes the connection, so the answer is sure to arrive; and to send it again costs little.
SMALL_BYTES = 4 << 20

_NAME_TAKEN, _DIGEST_MISMATCH = 501, 508
# RFC 9110, 8.8.3. The service compares by the bytes, so a weak tag would never match.
_STRONG_ETAG = re.compile('"[\x21\x23-\x7e]*"')


class Uploader:
    """Stores local files at the service."""

    def __init__(self, asking: Requester, service: Service) -> None:
        self._asking = asking
        self._service = service
        self._confirmed: set[tuple[str, ...]] = set()  # directories, see _confirm
        # Formats that a service takes unless it is told otherwise, and those that this one took.
        self._taken = {"mp3", "wav"}

    async def upload(
        self,
        path: str | Path,
        directory: str,
        filename: str | None,
        progress: Progress,
        record: Record,
        *,
        ask_first: bool = False,
    ) -> Stored:
        """As `MediaClient.upload`."""
        check_kind(record, Record, "record")
        name = name_of(directory, Path(path_of(path)).name if filename is None else filename)
        file = await open_file(self._asking.reactor, path)
        try:
            sha256 = await file.sha256()
            try:
                kept = await self._upload(file, name, sha256, progress, record, ask_first)
                if await file.has_changed():  # what was stored is no longer what is here
                    raise changed(file.path)
                self._taken.add(format_of(name.filename))
                return kept
            except Refused as error:
                raise await _blamed(error, file) from None
        finally:
            await file.close()

    async def replace(
        self, path: str | Path, directory: str, filename: str, etag: str, progress: Progress
    ) -> Stored:
        """As `MediaClient.replace`."""
        name = name_of(directory, filename)
        check_etag(etag)
        file = await open_file(self._asking.reactor, path)
        try:
            sha256 = await file.sha256()
            return await self._replace(file, name, sha256, etag, progress)
        except Refused as error:
            raise await _blamed(error, file) from None
        finally:
            await file.close()

    async def upload_stream(
        self,
        descriptor: int,
        directory: str,
        filename: str,
        etag: str | None,
        progress: Callable[[int, int | None], None],
    ) -> Stored:
        """As `MediaClient.upload_stream`."""
        descriptor_of(descriptor)
        name = name_of(directory, filename)
        if etag is not None:
            check_etag(etag)
        # Before anything is read: a stream that was refused half-way cannot be sent again.
        found = await self._asking.persist(lambda: self._head(name))
        if etag is None and found is not None:
            await self._confirm(name)
            raise Refused(409, _NAME_TAKEN, "the file exists already")
        if etag is not None:
            await self._require(name, found, etag)
        stream = SentStream(self._asking.reactor, descriptor, lambda sent: progress(sent, None))
        url = self._service.media(name)
        headers = {} if etag is None else {"If-Match": etag}
        try:
            answer = await self._asking.ask("PUT", url, headers, stream, hoped_for=(200, 201))
        finally:
            stream.stop()
        kept = stored(answer.payload, url, stream.sent)
        if kept.sha256 != stream.sha256:
            raise IntegrityError(
                "what the service has stored is not what was sent: its digest differs"
            )
        return kept

    async def find(self, name: MediaName, *, digest: bool = False) -> Found | None:
        """As `MediaClient.find`, once."""
        found = await self._head(name, digest=digest)
        if found is not None:
            return found
        try:  # an answer to HEAD has no JSON, so the 404 may be another server's
            await self._asking.ask(
                "GET", self._service.media(name), {"Range": "bytes=0-0"}, hoped_for=(200, 206, 416)
            )
        except Refused as error:
            if error.code == NOT_FOUND:
                return None
            raise
        return await self._head(name, digest=digest)  # another client has just stored it

    async def _head(self, name: MediaName, *, digest: bool = False) -> Found | None:
        """As `find`, but a 404 of another server is not told from one of the service."""
        wanted = {"Want-Repr-Digest": "sha-256=10"} if digest else {}
        try:
            answer = await self._asking.ask("HEAD", self._service.media(name), wanted)
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return found_in(answer)

    async def holds(self, path: str | Path, directory: str, filename: str) -> bool | None:
        """As `MediaClient.holds`."""
        name = name_of(directory, filename)
        found = await self._asking.persist(lambda: self._head(name))
        if found is None:
            return None
        if await self._is_content_of(path, name, found):
            return True
        await self._confirm(name)
        return False

    async def _is_content_of(self, path: str | Path, name: MediaName, found: Found) -> bool:
        file = await open_file(self._asking.reactor, path)
        try:
            if found.size != file.size:
                return False
            sha256 = found.sha256
            if sha256 is None:
                again = await self._asking.persist(lambda: self._head(name, digest=True))
                sha256 = None if again is None else again.sha256
            return sha256 is not None and sha256 == await file.sha256()
        finally:
            await file.close()

    async def _upload(
        self,
        file: LocalFile,
        name: MediaName,
        sha256: str,
        progress: Progress,
        record: Record,
        ask_first: bool,
    ) -> Stored:
        # A resumable upload is refused before any content is sent.
        is_new = ask_first and file.size > 0 and format_of(name.filename) not in self._taken
        if file.size > SMALL_BYTES or is_new:
            found = await self._resumable(file, name, sha256, progress, record)
            if found is not None:
                return found
        return await self._asking.persist(lambda: self._put(file, name, sha256, progress))

    async def _resumable(
        self, file: LocalFile, name: MediaName, sha256: str, progress: Progress, record: Record
    ) -> Stored | None:
        """By a resumable upload; None when the service has none."""
        key = upload_key(self._service, file, name, sha256)
        while True:
            was_known = await in_thread(self._asking.reactor, record.recall, key) is not None
            upload = Resumable(
                self._asking, self._service, file, name, sha256, progress, record, key
            )
            if not await upload.run():
                return None
            etag = None
            try:  # it is stored; what else there is to know may be asked for once
                found = await self.find(name)
            except (Refused, Unreachable, InvalidResponse):
                break
            if found is not None and found.sha256 in (None, sha256):
                etag = found.etag
            elif was_known:  # it was stored in another run, and somebody has removed it since
                continue
            break
        return Stored(
            name.directory,
            name.filename,
            self._service.media(name),
            file.size,
            sha256,
            etag,
            identical=upload.was_identical,
        )

    async def _put(
        self,
        file: LocalFile,
        name: MediaName,
        sha256: str,
        progress: Progress,
        condition: dict[str, str] | None = None,
    ) -> Stored:
        url = self._service.media(name)
        size = file.size
        progress(0, size)
        content = SentFile(file, 0, size, lambda sent: progress(sent, size))
        headers = {"Content-Digest": repr_digest(sha256), **(condition or {})}
        answer = await self._asking.ask("PUT", url, headers, content, hoped_for=(200, 201))
        return stored(answer.payload, url, size)

    async def _replace(
        self, file: LocalFile, name: MediaName, sha256: str, etag: str, progress: Progress
    ) -> Stored:
        may_have_replaced = False

        async def attempt() -> Stored:
            nonlocal may_have_replaced
            # Before a large file is sent: the answer to a request that goes on for long is lost.
            found = await self._head(name, digest=may_have_replaced)
            if may_have_replaced and found is not None and found.sha256 == sha256:
                return _replaced(self._service.media(name), name, found, sha256)
            await self._require(name, found, etag)
            try:
                return await self._put(file, name, sha256, progress, {"If-Match": etag})
            except Unreachable as error:
                may_have_replaced = may_have_replaced or error.was_sent
                raise

        return await self._asking.persist(attempt)

    async def _require(self, name: MediaName, found: Found | None, etag: str) -> None:
        if found is None:
            await self._confirm(name)
            raise Refused(412, 412, "there is no file of that name to replace")
        if etag not in ("*", found.etag):
            await self._confirm(name)
            raise Refused(412, 412, "the file at the service has another entity tag")

    async def _confirm(self, name: MediaName) -> None:
        """Check that the service answers for the directory of `name`, before a conclusion is drawn
        from an answer to HEAD. That has no JSON, so it may be another server's; a listing has.

        :raises ClientError: when another server answers.
        """
        if name.folders in self._confirmed:
            return
        try:
            await page_of(self._asking, self._service, name.directory, None)
        except Refused as error:
            if error.code != NOT_FOUND:
                raise
        self._confirmed.add(name.folders)


def found_in(answer: ServiceResponse) -> Found:
    """What the headers of an answer say about the file that it is about.

    :raises Garbled: when it is not about a file of the service.
    """
    check_is_file(answer.headers)
    size = count(answer.headers, "Content-Length")
    return Found(
        size=-1 if size is None else size,
        etag=strong_etag(answer.headers),
        sha256=declared_digest(answer.headers),
        modified=modified(answer.headers),
    )


def format_of(filename: str) -> str:
    """What the service goes by to tell formats apart: the extension, in lower case."""
    return filename.rpartition(".")[2].lower() if "." in filename else ""


def check_etag(etag: object) -> None:
    """:raises LocalFailure: when `etag` is neither an entity tag nor `*`."""
    tag = text_of(etag, "entity tag")
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


def _replaced(url: str, name: MediaName, found: Found, sha256: str) -> Stored:
    return Stored(name.directory, name.filename, url, found.size, sha256, found.etag, replaced=True)


async def _blamed(error: Refused, file: LocalFile) -> Refused | LocalFailure:
    """`error`, unless it is about a file that has changed since its digest was made."""
    if error.code == _DIGEST_MISMATCH and await file.has_changed():
        return changed(file.path)
    return error

"""Resumable uploads by tus 1.0.0 (https://tus.io/protocols/resumable-upload).

An upload survives broken connections and the end of this program. After every failure the client
asks the service for the offset, and continues there.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from twistedmedia import errors
from twistedmedia.client.client_limits import MIN_PROGRESS_BYTES
from twistedmedia.client.exceptions import ClientError, InvalidResponse, Refused
from twistedmedia.client.local_files import LocalFile
from twistedmedia.client.locations import Service
from twistedmedia.client.requester import FileSource, Requester
from twistedmedia.client.responses import count
from twistedmedia.client.retries import Backoff
from twistedmedia.client.threads import in_thread
from twistedmedia.client.upload_records import ResumeStore
from twistedmedia.http.tus import CONTENT_TYPE, VERSION
from twistedmedia.names import MediaName

Progress = Callable[[int, int], None]

_VERSION = {"Tus-Resumable": VERSION}
# With these the upload does not exist any more, or can never be stored.
_GONE_STATUSES = (404, 410)
_FINAL_CODES = (errors.AlreadyExists.code, errors.DigestMismatch.code, errors.NotAudio.code)


@dataclass(frozen=True, slots=True)
class FileUpload:
    """A local file to be stored as `name`. `sha256` is its digest, in hex. `progress` is called
    with the number of bytes sent and the size.
    """

    file: LocalFile
    name: MediaName
    sha256: str
    progress: Progress


class ResumableUpload:
    """Sends a file. `resume_store` has the URL of the upload under `key`."""

    was_identical = False  # the service had the same file already

    def __init__(
        self,
        requester: Requester,
        service: Service,
        upload: FileUpload,
        resume_store: ResumeStore,
        key: str,
    ) -> None:
        self._requester = requester
        self._service = service
        self._upload = upload
        self._size = upload.file.size
        self._resume_store = resume_store
        self._key = key
        self._url: str | None = None
        self._offset = 0  # as reported by the service
        self._furthest = 0
        self._has_restarted = False
        self._backoff = Backoff(requester.retries)

    async def run(self) -> bool:
        """Upload the file. Returns False, without having sent any content, if the service does not
        support resumable uploads.

        :raises ClientError: when the upload is refused, or all retries failed.
        """
        await self._load_url()
        while True:
            try:
                if self._url is None:
                    if not await self._create():
                        return False
                else:
                    self._note_offset(await self._get_offset())
                while self._offset < self._size:
                    self._note_offset(await self._send())
            except ClientError as error:
                await self._wait_or_raise(error)
            else:
                await self._remove_url()
                return True

    async def _create(self) -> bool:
        upload = self._upload
        headers = creation_headers(upload.name, self._size, upload.sha256)
        try:
            response = await self._requester.request(
                "POST", self._service.uploads, headers, expected=(201,)
            )
        except Refused as error:
            if error.status in (404, 405):  # the service has no resumable uploads
                return False
            raise
        self._offset = upload_offset(response.headers, self._size, default=0)
        if self._offset == self._size:
            self.was_identical = True
            return True
        self._url = self._service.upload(response.headers.get("location"))
        await self._in_thread(self._resume_store.save, self._key, self._url)
        return True

    async def _get_offset(self) -> int:
        assert self._url is not None
        response = await self._requester.request("HEAD", self._url, _VERSION, expected=(200, 204))
        return upload_offset(response.headers, self._size)

    async def _send(self) -> int:
        """Send the rest of the file. Returns the new offset."""
        assert self._url is not None
        upload, size, offset = self._upload, self._size, self._offset
        upload.progress(offset, size)
        content = FileSource(
            upload.file, offset, size - offset, lambda sent: upload.progress(sent, size)
        )
        headers = {**_VERSION, "Upload-Offset": str(offset), "Content-Type": CONTENT_TYPE}
        response = await self._requester.request(
            "PATCH", self._url, headers, content, expected=(200, 204)
        )
        reached = upload_offset(response.headers, size)
        if reached - offset < min(MIN_PROGRESS_BYTES, size - offset):
            raise InvalidResponse(
                "the service accepted the content, but has no more than before, or a few bytes more"
            )
        return reached

    def _note_offset(self, offset: int) -> None:
        self._offset = offset
        if offset - self._furthest >= MIN_PROGRESS_BYTES:
            self._furthest = offset
            self._backoff.made_progress()

    async def _wait_or_raise(self, error: ClientError) -> None:
        """Prepare the next attempt after `error`, or raise it when there is none."""
        wait_s = self._backoff.wait_s(error)
        if isinstance(error, Refused) and self._url is not None:
            if error.code in _FINAL_CODES:
                await self._remove_url()
                raise error
            if error.status in _GONE_STATUSES and not self._has_restarted:
                # The service no longer has the upload, or the name is taken. Creating the upload
                # again tells which. This happens once.
                self._has_restarted = True
                self._offset = self._furthest = 0
                await self._remove_url()
                return
            if error.status in (400, 409, 423):
                # The request was truncated, the offset was wrong, or another client sends the same
                # upload. Asking for the offset resolves each of these.
                wait_s = self._backoff.next_s()
        await self._requester.wait_or_raise(error, wait_s)

    async def _load_url(self) -> None:
        url = await self._in_thread(self._resume_store.load, self._key)
        if url is not None:
            try:
                self._url = self._service.upload(url)
            except InvalidResponse:
                await self._remove_url()

    async def _remove_url(self) -> None:
        self._url = None
        await self._in_thread(self._resume_store.remove, self._key)

    async def _in_thread(self, work: Callable[..., str | None], *args: str) -> str | None:
        return await in_thread(self._requester.reactor, work, *args)


def creation_headers(name: MediaName, size: int, sha256: str) -> dict[str, str]:
    """The headers that create an upload of `size` bytes, to be stored as `name`."""
    metadata = {"directory": name.directory, "filename": name.filename, "sha256": sha256}
    encoded = [f"{key} {b64encode(value.encode()).decode()}" for key, value in metadata.items()]
    return {**_VERSION, "Upload-Length": str(size), "Upload-Metadata": ",".join(encoded)}


def upload_offset(headers: Mapping[str, str], size: int, default: int | None = None) -> int:
    """The number of bytes, of `size`, that the service has; `default` if the header is missing.

    :raises InvalidResponse: when it is missing and there is no default, or contradicts the size.
    """
    offset = count(headers, "Upload-Offset")
    length = count(headers, "Upload-Length")
    offset = default if offset is None else offset
    if offset is None or offset > size or length not in (None, size):
        raise InvalidResponse("the service's Upload-Offset or Upload-Length is missing or wrong")
    return offset

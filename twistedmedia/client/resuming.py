"""The headers of tus 1.0.0, the protocol of resumable uploads (https://tus.io/protocols/resumable-upload).

Pure.

One resumable upload, to its end: however often the connection breaks, or this program ends.

What the service says about its offset is the truth. After every failure it is asked, and the rest
is sent from there.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping

from twistedmedia.client import resuming as tus
from twistedmedia.client.bounds import LEAST_PROGRESS_BYTES
from twistedmedia.client.exceptions import ClientError, InvalidResponse, Refused
from twistedmedia.client.local_files import LocalFile
from twistedmedia.client.locations import Service
from twistedmedia.client.requester import Requester, SentFile
from twistedmedia.client.responses import count
from twistedmedia.client.retries import Backoff
from twistedmedia.client.threads import in_thread
from twistedmedia.client.upload_records import Record
from twistedmedia.http.tus import CONTENT_TYPE, VERSION
from twistedmedia.names import MediaName

_VERSION = {"Tus-Resumable": VERSION}


def creation(name: MediaName, size: int, sha256: str) -> dict[str, str]:
    """The headers that create an upload of `size` bytes, to be stored as `name`."""
    metadata = {"directory": name.directory, "filename": name.filename, "sha256": sha256}
    encoded = [f"{key} {b64encode(value.encode()).decode()}" for key, value in metadata.items()]
    return {**_VERSION, "Upload-Length": str(size), "Upload-Metadata": ",".join(encoded)}


def asking() -> dict[str, str]:
    """The headers that ask how far an upload is."""
    return dict(_VERSION)


def continuation(offset: int) -> dict[str, str]:
    """The headers of content that goes on from `offset`."""
    return {
        **_VERSION,
        "Upload-Offset": str(offset),
        "Content-Type": CONTENT_TYPE,
    }


def offset_in(headers: Mapping[str, str], size: int, missing: int | None = None) -> int:
    """How many bytes of `size` the service has; `missing` when the answer need not say it.

    :raises Garbled: when it does not say, or that makes no sense.
    """
    offset = count(headers, "Upload-Offset")
    length = count(headers, "Upload-Length")
    offset = missing if offset is None else offset
    if offset is None or offset > size or length not in (None, size):
        raise InvalidResponse(
            "what the service says about the upload is contradictory or incomplete"
        )
    return offset


# After these the upload is not there any more, or never will be a file.
_GONE = (404, 410)
_NAME_TAKEN, _DIGEST_MISMATCH, _NOT_AUDIO = 501, 508, 509
_FINAL = (_NAME_TAKEN, _DIGEST_MISMATCH, _NOT_AUDIO)


class Resumable:
    """The upload of `file` to `name`. `key` is what `record` knows it by."""

    was_identical = False  # the service had the very file before

    def __init__(
        self,
        asking: Requester,
        service: Service,
        file: LocalFile,
        name: MediaName,
        sha256: str,
        progress: Callable[[int, int], None],
        record: Record,
        key: str,
    ) -> None:
        self._asking = asking
        self._service = service
        self._file = file
        self._name = name
        self._sha256 = sha256
        self._progress = progress
        self._record = record
        self._key = key
        self._url: str | None = None
        self._offset = 0  # what the service has said
        self._furthest = 0
        self._began_anew = False
        self._backoff = Backoff(asking.retries)

    async def run(self) -> bool:
        """Upload it. Returns whether the service takes resumable uploads; if so, it is stored.

        :raises ClientError: when it is not to be.
        """
        await self._recall()
        while True:
            try:
                if self._url is None:
                    if not await self._create():
                        return False
                else:
                    self._reached(await self._ask())
                while self._offset < self._file.size:
                    self._reached(await self._send())
            except ClientError as error:
                await self._consider(error)
            else:
                await self._forget()
                return True

    async def _create(self) -> bool:
        headers = tus.creation(self._name, self._file.size, self._sha256)
        try:
            answer = await self._asking.ask(
                "POST", self._service.uploads, headers, hoped_for=(201,)
            )
        except Refused as error:
            if error.status in (404, 405):  # of the place where uploads begin: there are none
                return False
            raise
        self._offset = tus.offset_in(answer.headers, self._file.size, missing=0)
        if self._offset == self._file.size:
            self.was_identical = True
            return True
        self._url = self._service.upload(answer.headers.get("location"))
        await self._call(self._record.remember, self._key, self._url)
        return True

    async def _ask(self) -> int:
        """How far the service has it."""
        assert self._url is not None
        answer = await self._asking.ask("HEAD", self._url, tus.asking(), hoped_for=(200, 204))
        return tus.offset_in(answer.headers, self._file.size)

    async def _send(self) -> int:
        """Send all the rest. Returns how far the service has it then."""
        assert self._url is not None
        size, offset = self._file.size, self._offset
        self._progress(offset, size)
        content = SentFile(
            self._file, offset, size - offset, lambda sent: self._progress(sent, size)
        )
        answer = await self._asking.ask(
            "PATCH", self._url, tus.continuation(offset), content, hoped_for=(200, 204)
        )
        reached = tus.offset_in(answer.headers, size)
        if reached - offset < min(LEAST_PROGRESS_BYTES, size - offset):
            raise InvalidResponse(
                "the service took what was sent, and has no more than before, or a few bytes more"
            )
        return reached

    def _reached(self, offset: int) -> None:
        self._offset = offset
        if offset - self._furthest >= LEAST_PROGRESS_BYTES:
            self._furthest = offset
            self._backoff.made_progress()

    async def _consider(self, error: ClientError) -> None:
        """Wait for the next attempt after `error`; raise it when there is to be none."""
        wait_s = self._backoff.wait_s(error)
        if isinstance(error, Refused) and self._url is not None:
            if error.code in _FINAL:
                await self._forget()
                raise error
            if error.status in _GONE and not self._began_anew:
                # Once: the service has forgotten it, or the name is taken; creating it says which.
                self._began_anew = True
                self._offset = self._furthest = 0
                await self._forget()
                return
            if error.status in (400, 409, 423):
                # It was cut off on its way, or we were wrong about the offset, or somebody else
                # sends the same: which of them is seen by asking.
                wait_s = self._backoff.next_s()
        await self._asking.wait(error, wait_s)

    async def _recall(self) -> None:
        known = await self._call(self._record.recall, self._key)
        if known is not None:
            try:
                self._url = self._service.upload(known)
            except InvalidResponse:
                await self._forget()

    async def _forget(self) -> None:
        self._url = None
        await self._call(self._record.forget, self._key)

    async def _call(self, work: Callable[..., str | None], *args: str) -> str | None:
        return await in_thread(self._asking.reactor, work, *args)

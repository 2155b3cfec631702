"""Downloads a file: resumes it after a break, verifies it, and only then gives it its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twistedmedia.client.client_limits import (
    MAX_UNKNOWN_SIZE_BYTES,
    MIN_FREE_BYTES,
    MIN_PROGRESS_BYTES,
    check_number,
)
from twistedmedia.client.exceptions import (
    ClientError,
    IntegrityError,
    InvalidResponse,
    LocalFailure,
    Refused,
    local_failure,
)
from twistedmedia.client.locations import Service, name_of
from twistedmedia.client.outcomes import Downloaded
from twistedmedia.client.partial_downloads import PartialDownload, PartialDownloadInfo
from twistedmedia.client.requester import Requester
from twistedmedia.client.responses import (
    ServiceResponse,
    check_is_file,
    content_range,
    count,
    declared_digest,
    strong_etag,
)
from twistedmedia.client.retries import Backoff
from twistedmedia.client.streams import StreamSink, check_descriptor
from twistedmedia.client.threads import SerialJobs, open_in_thread

T = TypeVar("T")
Progress = Callable[[int, int | None], None]


async def download(
    requester: Requester,
    service: Service,
    directory: str,
    filename: str,
    path: str | Path,
    *,
    progress: Progress,
    max_size: int | None,
    within: str | Path | None,
) -> Downloaded:
    """As `MediaClient.download`."""
    url = _checked_url(service, directory, filename, max_size)
    part = await open_in_thread(
        requester.reactor, lambda: PartialDownload(path, within), PartialDownload.close
    )
    return await _Download(requester, url, part, progress, max_size).run()


async def download_stream(
    requester: Requester,
    service: Service,
    directory: str,
    filename: str,
    descriptor: int,
    *,
    progress: Progress,
    max_size: int | None,
) -> Downloaded:
    """As `MediaClient.download_stream`."""
    url = _checked_url(service, directory, filename, max_size)
    sink = StreamSink(check_descriptor(descriptor))
    return await _Download(requester, url, sink, progress, max_size).run()


def _checked_url(service: Service, directory: str, filename: str, max_size: int | None) -> str:
    name = name_of(directory, filename)
    if max_size is not None:
        check_number(max_size, "max_size")
    return service.media(name)


class _Download:
    def __init__(
        self,
        requester: Requester,
        url: str,
        part: PartialDownload | StreamSink,
        progress: Progress,
        max_size: int | None,
    ) -> None:
        self._requester = requester
        self._url = url
        self._part = part
        self._progress = progress
        self._max_size = max_size
        self._jobs = SerialJobs(requester.reactor)
        self._backoff = Backoff(requester.retries)
        self._digest: Any = None  # of the bytes in `part`; None if they have to be read first
        self._received = 0
        self._furthest = 0
        self._size: int | None = None  # of the whole file, if the service sends it
        self._etag: str | None = None
        self._declared_sha256: str | None = None

    async def run(self) -> Downloaded:
        """Download the file, and close the part."""
        try:
            return await self._run()
        finally:
            self._part.stop()
            await self._jobs.run(self._part.close)

    async def _run(self) -> Downloaded:
        was_damaged = False
        while True:
            is_resumed = self._part.size > 0
            try:
                await self._attempt()
                await self._verify()
                break
            except IntegrityError:
                if isinstance(self._part, StreamSink):  # its bytes cannot be taken back
                    raise
                await self._call(self._part.restart, None)
                # The bytes of an earlier attempt may have been damaged on the disk: retry once.
                if was_damaged or not is_resumed:
                    raise
                was_damaged = True
            except ClientError as error:
                if isinstance(error, Refused) and error.status == 416:
                    await self._call(self._part.restart, None)
                    await self._requester.wait_or_raise(error, self._backoff.next_s())
                    continue
                await self._requester.wait_or_raise(error, self._backoff.wait_s(error))
        await self._call(self._part.publish)
        return Downloaded(
            path=str(self._part.target),
            size=self._part.size,
            received=self._received,
            sha256=self._digest.hexdigest(),
            etag=self._etag,
            verified=self._declared_sha256 is not None,
        )

    async def _attempt(self) -> None:
        part, info = self._part, self._part.info
        headers = {}
        if info is not None and (info.url != self._url or part.size > info.size):
            await self._call(part.restart, None)
        elif info is not None and part.size > 0:
            if part.size == info.size:
                # All bytes are here. Request the last one, to learn whether the file has changed.
                await self._call(part.truncate, info.size - 1)
                self._digest = None
            if part.size > 0:
                headers = {"Range": f"bytes={part.size}-", "If-Range": info.etag}
        await self._requester.receive(self._url, headers, self._on_head, self._on_content)
        if self._size is not None and part.size != self._size:
            raise IntegrityError(f"received {part.size} bytes instead of {self._size}")

    async def _on_head(self, response: ServiceResponse) -> None:
        part, headers = self._part, response.headers
        etag = strong_etag(headers)
        if response.status == 206:
            start, self._size = content_range(headers)
            if part.info is None or part.info.size != self._size or start != part.size:
                raise InvalidResponse(
                    "the response does not contain the requested part of the file"
                )
            if etag not in (None, part.info.etag):  # RFC 9110, 15.3.7.3
                raise IntegrityError("the received content is of another version of the file")
            if self._digest is None:
                self._digest = await self._call(part.digest)
        else:
            check_is_file(headers)
            self._size = count(headers, "Content-Length")
            info = None
            if etag is not None and self._size is not None:
                info = PartialDownloadInfo(self._url, etag, self._size)
            await self._call(part.restart, info)
            self._digest = await self._call(part.digest)
        await self._check_fits()
        self._etag = etag
        self._declared_sha256 = declared_digest(headers)
        self._progress(part.size, self._size)

    async def _on_content(self, pieces: list[bytes]) -> None:
        size = sum(map(len, pieces))
        await self._check_room(size)
        await self._call(self._part.write, pieces, self._digest)
        self._received += size
        # Receiving the same bytes again after a restart is not progress.
        if self._part.size - self._furthest >= MIN_PROGRESS_BYTES:
            self._furthest = self._part.size
            self._backoff.made_progress()
        self._progress(self._part.size, self._size)

    async def _check_fits(self) -> None:
        """Check before any content arrives that the file is not too large, if its size is known."""
        if self._size is None:
            return
        target = self._part.target
        if self._max_size is not None and self._size > self._max_size:
            raise LocalFailure(
                f"{target}: the file has {self._size} bytes, and the limit (--max-size) is"
                f" {self._max_size}"
            )
        free = await self._call(self._part.free_bytes)
        missing = self._size - self._part.size
        if free is not None and missing > free:
            raise LocalFailure(
                f"{target}: the file needs {missing} more bytes, and {free} are free; free some"
                " space, or choose a folder on another disk"
            )

    async def _check_room(self, size: int) -> None:
        """Check that `size` more bytes are within the limits."""
        end = self._part.size + size
        if self._size is not None:
            if end > self._size:
                raise InvalidResponse(
                    f"there is more content than the {self._size} bytes of the file"
                )
            return
        target = self._part.target
        limit = MAX_UNKNOWN_SIZE_BYTES if self._max_size is None else self._max_size
        if end > limit:
            raise LocalFailure(
                f"{target}: the service does not say how large the file is, and sends more than the"
                f" limit of {limit} bytes; set a larger limit (--max-size) to allow more"
            )
        free = await self._call(self._part.free_bytes)
        if free is not None and free - size < MIN_FREE_BYTES:
            raise LocalFailure(
                f"{target}: the service does not say how large the file is, and only {free} bytes"
                " are free; free some space, or choose a folder on another disk"
            )

    async def _verify(self) -> None:
        if self._declared_sha256 not in (None, self._digest.hexdigest()):
            raise IntegrityError(
                "the received content is not the content that the service has: its digest differs"
            )

    async def _call(self, work: Callable[..., T], *args: Any) -> T:
        try:
            return await self._jobs.run(work, *args)
        except OSError as error:
            raise local_failure(error, self._part.target) from None

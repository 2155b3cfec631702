"""A file on its way from the service: resumed when it breaks off, and named when it is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twistedmedia.client.bounds import (
    KEPT_FREE_BYTES,
    LEAST_PROGRESS_BYTES,
    MOST_UNSAID_BYTES,
)
from twistedmedia.client.exceptions import (
    ClientError,
    IntegrityError,
    InvalidResponse,
    LocalFailure,
    Refused,
    local_failure,
)
from twistedmedia.client.locations import Service
from twistedmedia.client.outcomes import Downloaded
from twistedmedia.client.partial_downloads import PartialDownload, PartialNote
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
from twistedmedia.client.streams import Outlet, descriptor_of
from twistedmedia.client.threads import Jobs, opened_in_thread
from twistedmedia.names import MediaName

T = TypeVar("T")
Progress = Callable[[int, int | None], None]


async def download(
    asking: Requester,
    service: Service,
    name: MediaName,
    path: str | Path,
    progress: Progress,
    max_size: int | None,
    within: str | Path | None,
) -> Downloaded:
    """As `MediaClient.download`."""
    part = await opened_in_thread(
        asking.reactor, lambda: PartialDownload(path, within), PartialDownload.close
    )
    return await _Download(asking, service.media(name), part, progress, max_size).run()


async def download_stream(
    asking: Requester,
    service: Service,
    name: MediaName,
    descriptor: int,
    progress: Progress,
    max_size: int | None,
) -> Downloaded:
    """As `MediaClient.download_stream`."""
    outlet = Outlet(descriptor_of(descriptor))
    return await _Download(asking, service.media(name), outlet, progress, max_size).run()


class _Download:
    def __init__(
        self,
        asking: Requester,
        url: str,
        part: PartialDownload | Outlet,
        progress: Progress,
        max_size: int | None,
    ) -> None:
        self._asking = asking
        self._url = url
        self._part = part
        self._progress = progress
        self._max_size = max_size
        self._jobs = Jobs(asking.reactor)
        self._backoff = Backoff(asking.retries)
        self._digest: Any = None  # of what the part has; None when that has to be read first
        self._received = 0
        self._furthest = 0
        self._size: int | None = None  # what the whole has, as the service says
        self._etag: str | None = None
        self._declared: str | None = None

    async def run(self) -> Downloaded:
        """Download it, and close the part."""
        try:
            return await self._run()
        finally:
            self._part.stop()
            await self._jobs.take(self._part.close)

    async def _run(self) -> Downloaded:
        was_damaged = False
        while True:
            resumed = self._part.size > 0
            try:
                await self._attempt()
                await self._verify()
                break
            except IntegrityError:
                if isinstance(self._part, Outlet):  # what it was given is gone
                    raise
                await self._call(self._part.begin, None)
                # What lay here from another time may have suffered; what has just come, once.
                if was_damaged or not resumed:
                    raise
                was_damaged = True
            except ClientError as error:
                if isinstance(error, Refused) and error.status == 416:
                    await self._call(self._part.begin, None)
                    await self._asking.wait(error, self._backoff.next_s())
                    continue
                await self._asking.wait(error, self._backoff.wait_s(error))
        await self._call(self._part.publish)
        return Downloaded(
            path=str(self._part.target),
            size=self._part.size,
            received=self._received,
            sha256=self._digest.hexdigest(),
            etag=self._etag,
            verified=self._declared is not None,
        )

    async def _attempt(self) -> None:
        part, note = self._part, self._part.note
        headers = {}
        if note is not None and (note.url != self._url or part.size > note.size):
            await self._call(part.begin, None)
        elif note is not None and part.size > 0:
            if part.size == note.size:
                # Only the name is missing. One byte is asked for to learn whether it is still that.
                await self._call(part.cut, note.size - 1)
                self._digest = None
            if part.size > 0:
                headers = {"Range": f"bytes={part.size}-", "If-Range": note.etag}
        await self._asking.receive(self._url, headers, self._begin, self._take)
        if self._size is not None and part.size != self._size:
            raise IntegrityError(f"{part.size} bytes came instead of {self._size}")

    async def _begin(self, answer: ServiceResponse) -> None:
        part = self._part
        if answer.status == 206:
            start, self._size = content_range(answer.headers)
            same = part.note is not None and part.note.size == self._size
            if not same or start != part.size:
                raise InvalidResponse("the answer is not the part of the file that was asked for")
            assert part.note is not None
            if strong_etag(answer.headers) not in (None, part.note.etag):  # RFC 9110, 15.3.7.3
                raise IntegrityError("what came is of another version of the file")
            if self._digest is None:
                self._digest = await self._call(part.digest)
        else:
            check_is_file(answer.headers)
            self._size = count(answer.headers, "Content-Length")
            etag = strong_etag(answer.headers)
            can_resume = etag is not None and self._size is not None
            note = PartialNote(self._url, etag or "", self._size or 0) if can_resume else None
            await self._call(part.begin, note)
            self._digest = await self._call(part.digest)
        await self._check_fits()
        self._etag = strong_etag(answer.headers)
        self._declared = declared_digest(answer.headers)
        self._progress(part.size, self._size)

    async def _take(self, pieces: list[bytes]) -> None:
        size = sum(map(len, pieces))
        await self._check_room(size)
        await self._call(self._part.write, pieces, self._digest)
        self._received += size
        # What was here before, once more, is no progress.
        if self._part.size - self._furthest >= LEAST_PROGRESS_BYTES:
            self._furthest = self._part.size
            self._backoff.made_progress()
        self._progress(self._part.size, self._size)

    async def _check_fits(self) -> None:
        """Before any content: check that the whole file is not too large, if its size is known."""
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
                f"{target}: the file does not fit: it needs {missing} more bytes, and {free} are"
                " free; free some space, or choose a folder on another disk"
            )

    async def _check_room(self, size: int) -> None:
        """Check that `size` more bytes may come."""
        end = self._part.size + size
        if self._size is not None:
            if end > self._size:
                raise InvalidResponse(f"more content comes than the {self._size} bytes of the file")
            return
        target = self._part.target
        most = MOST_UNSAID_BYTES if self._max_size is None else self._max_size
        if end > most:
            raise LocalFailure(
                f"{target}: the service does not say how large the file is, and sends more than the"
                f" limit of {most} bytes; a larger limit (--max-size) allows more"
            )
        free = await self._call(self._part.free_bytes)
        if free is not None and free - size < KEPT_FREE_BYTES:
            raise LocalFailure(
                f"{target}: the service does not say how large the file is, and only {free} bytes"
                " are free; free some space, or choose a folder on another disk"
            )

    async def _verify(self) -> None:
        if self._declared is not None and self._digest.hexdigest() != self._declared:
            raise IntegrityError("what came is not what the service says it is: its digest differs")

    async def _call(self, work: Callable[..., T], *args: Any) -> T:
        try:
            return await self._jobs.take(work, *args)
        except OSError as error:
            raise local_failure(error, self._part.target) from None

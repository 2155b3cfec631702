"""Imports: the content of a URL on its way into an upload."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred

from twistedmedia.fetch.content import gave_way
from twistedmedia.fetch.download import Download
from twistedmedia.fetch.fetcher import Fetcher, FetchLimits
from twistedmedia.fetch.timings import Timings
from twistedmedia.library.upload import Upload


@dataclass(frozen=True, slots=True)
class Fetches:
    """What a library fetches with, and the limits of fetches and of imports."""

    fetcher: Fetcher
    asking: FetchLimits
    importing: FetchLimits


class Transfer:
    """A download on its way into an upload. It is a `shares.Holder`."""

    def __init__(self, download: Download) -> None:
        self._download = download
        self._running: Deferred[Timings] | None = None
        self._gave_way = False

    async def run(self, upload: Upload) -> Timings:
        """Transfer the content. What that cost in time.

        :raises UpstreamTooSlow: also when it had to give way.
        """
        self._running = ensureDeferred(self._run(upload))
        try:
            return await self._running
        except CancelledError as error:
            if self._gave_way:
                raise gave_way() from error
            raise

    def pace(self) -> float | None:
        """That of the upstream."""
        return self._download.pace()

    def give_way(self) -> None:
        self._gave_way = True
        if self._running is not None:
            self._running.cancel()

    async def _run(self, upload: Upload) -> Timings:
        async with self._download as download:
            if download.length is not None:
                await upload.declare(download.length)
                upload.raise_failure()
            if not upload.identical:
                async for chunks in download:
                    await upload.write(chunks)
                    upload.raise_failure()
                await upload.end()
            return download.timings

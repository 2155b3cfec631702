"""Large responses in memory: pages of listings, and the responses to forms with many files.

Their readers can be slow. So the memory of each response counts in the share of one caller that
reads it. When the memory is used up, the slowest response of the largest share gives way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.server import Request

from twistedmedia.errors import Busy
from twistedmedia.fairness.pace import RECENT_S, RecentRate
from twistedmedia.fairness.shares import Share, Shares
from twistedmedia.fairness.slots import grow
from twistedmedia.http.connection import MediaChannel
from twistedmedia.http.sending import send
from twistedmedia.http.timeouts import PeriodicScan
from twistedmedia.http.transport import progress_of
from twistedmedia.packed import pack
from twistedmedia.store.memory import MemoryMedia
from twistedmedia.web.arguments import caller_of

# A response of up to this size is written at once, as small files are. The connection buffers what
# its peer does not take.
SMALL_BYTES = 64 << 10


class LargeResponses:
    """The memory of all large responses, and those that are being sent."""

    def __init__(self, memory: Shares) -> None:
        self.memory = memory
        self._sending: dict[LargeResponse, None] = {}
        self._scan: PeriodicScan | None = None

    def create(self, content: bytes) -> LargeResponse:
        """Make a response for one request."""
        return LargeResponse(pack([content]), "a response", self)

    def add(self, response: LargeResponse, clock: Any) -> None:
        """Measure from now on how fast `response` is taken. Idempotent."""
        if self._scan is None:
            self._scan = PeriodicScan(clock, RECENT_S / 3, self._on_scan)
        self._sending[response] = None
        self._scan.begin()

    def remove(self, response: LargeResponse) -> None:
        """Note that `response` is not being sent any more."""
        del self._sending[response]
        if not self._sending and self._scan is not None:
            self._scan.end()

    def _on_scan(self, now_s: float) -> bool:
        for response in self._sending:
            response.measure(now_s)
        return False


class _Reader:
    """A request whose response is being sent."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.caller = caller_of(request).key
        self._channel = request.channel
        self._taken_before: int | None = None
        self._taken = 0

    def begin_counting(self) -> None:
        """Count bytes from now on. Idempotent. What was taken before only filled buffers of the
        peer, which says nothing about its pace.
        """
        if self._taken_before is None:
            self._taken_before = self._count()

    @property
    def taken(self) -> int:
        """How many bytes the peer took since counting began."""
        if self._taken_before is not None and not self.request._disconnected:
            self._taken = max(self._taken, self._count() - self._taken_before)
        return self._taken

    def _count(self) -> int:
        if isinstance(self._channel, MediaChannel) and not self._channel.is_lost:
            return progress_of(self._channel).taken
        return int(self.request.sentLength)


class LargeResponse:
    """A response in memory, and its readers.

    It is a `shares.Holder`, as fast as all its readers together. Its memory counts in the share of
    one caller that reads it.
    """

    _log = Logger()

    def __init__(self, content: memoryview, what: str, responses: LargeResponses) -> None:
        """`what` describes the response in log lines."""
        self.content = content
        self._media = MemoryMedia(content, 0)
        self._what = what
        self._responses = responses
        self._readers: dict[_Reader, None] = {}
        self._share: Share | None = None
        self._rate: RecentRate | None = None
        self._taken_before = 0  # bytes, by readers that are gone

    async def take_memory(self, request: Any) -> None:
        """Put the response into the share of the request's caller, unless it is in a share already.

        Waits for memory as `slots.grow` does. Call `sending_to` immediately afterwards.

        :raises Busy: if there is no memory for the response.
        """
        if self._share is not None or len(self.content) <= SMALL_BYTES:
            return
        share = self._responses.memory.take(caller_of(request).key, self, 0)
        try:
            await grow(share, len(self.content), request.site.reactor)
        except BaseException:  # the wait may be cancelled
            share.release()
            raise
        if self._share is None:
            self._share = share
        else:  # meanwhile the response is in the share of another reader
            share.release()

    @contextmanager
    def sending_to(self, request: Request) -> Iterator[None]:
        """Count `request` as a reader within the block. Call `take_memory` before."""
        if len(self.content) <= SMALL_BYTES:
            yield
            return
        reader = _Reader(request)
        self._readers[reader] = None
        self._responses.add(self, reader.request.site.reactor)
        has_all = False
        try:
            yield
            has_all = True
        finally:
            del self._readers[reader]
            self._taken_before += len(self.content) if has_all else reader.taken
            self._transfer_share()
            if not self._readers:
                self._responses.remove(self)
                self._rate = None

    def send(self, request: Request) -> Deferred[None]:
        """Send the response, as `http.sending.send` does."""
        return send(request, self._media, 0, len(self.content))

    def measure(self, now_s: float) -> None:
        """Measure how fast the response is taken. Call it a few times in `RECENT_S`."""
        for reader in self._readers:
            reader.begin_counting()
        if self._rate is None:
            self._rate = RecentRate(now_s, self._taken())
        else:
            self._rate.update(now_s, self._taken())

    def pace(self) -> float | None:
        return None if self._rate is None else self._rate.bytes_per_s(self._taken())

    def give_way(self) -> None:
        self._share = None
        self._abort_readers()

    def _taken(self) -> int:
        return self._taken_before + sum(reader.taken for reader in self._readers)

    def _transfer_share(self) -> None:
        """Move the response to the share of a caller that still reads it: the one that holds least.
        If none of them has memory for it, all readers are disconnected.
        """
        share = self._share
        if share is None or any(reader.caller == share.caller for reader in self._readers):
            return
        share.release()
        self._share = None
        memory = self._responses.memory
        callers = {reader.caller: None for reader in self._readers}
        for caller in sorted(callers, key=memory.held_by):
            try:
                self._share = memory.take(caller, self, len(self.content))
            except Busy:  # its memory came from the reserve for callers that hold little
                continue
            return
        if callers:
            self._abort_readers()

    def _abort_readers(self) -> None:
        self._log.warn(
            "gave way: {what} of {size} bytes, which {callers} read too slowly",
            what=self._what,
            size=len(self.content),
            callers=", ".join(sorted({reader.caller for reader in self._readers})),
        )
        for reader in self._readers:
            reader.request.transport.abortConnection()

"""Large responses in memory: listings, and the answers to forms with many files.

Their readers can be slow. So the memory of each response counts in the share of one caller who
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

# A response of this size is written at once, as small files are: the connection keeps what its peer
# does not take.
SMALL_BYTES = 64 << 10


class LargeResponses:
    """The memory of large responses, and all of them that are being sent."""

    def __init__(self, memory: Shares) -> None:
        self.memory = memory
        self._sent: dict[LargeResponse, None] = {}
        self._rounds: PeriodicScan | None = None

    def of(self, content: bytes) -> LargeResponse:
        """An answer that one request is sent."""
        return LargeResponse(pack([content]), "an answer", self)

    def add(self, response: LargeResponse, clock: Any) -> None:
        """It is being sent from now on: look how fast it is taken. Idempotent."""
        if self._rounds is None:
            self._rounds = PeriodicScan(clock, RECENT_S / 3, self._look_at_all)
        self._sent[response] = None
        self._rounds.begin()

    def remove(self, response: LargeResponse) -> None:
        """It is not sent any more."""
        del self._sent[response]
        if not self._sent and self._rounds is not None:
            self._rounds.end()

    def _look_at_all(self, now_s: float) -> bool:
        for response in self._sent:
            response.look(now_s)
        return False


class _Reader:
    """A request that is being sent a response."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.caller = caller_of(request).key
        self._channel = request.channel
        self._taken_before: int | None = None
        self._taken = 0

    def look(self) -> None:
        """Count from now on, unless it counts already: its peer has what it buffers by now, which
        says nothing about its pace.
        """
        if self._taken_before is None:
            self._taken_before = self._count()

    @property
    def taken(self) -> int:
        """How many bytes its peer took since the first look."""
        if self._taken_before is not None and not self.request._disconnected:
            self._taken = max(self._taken, self._count() - self._taken_before)
        return self._taken

    def _count(self) -> int:
        if isinstance(self._channel, MediaChannel) and not self._channel.is_lost:
            return progress_of(self._channel).taken
        return int(self.request.sentLength)


class LargeResponse:
    """A response in memory, and its readers. It is a `shares.Holder`, as fast as all readers
    together. Its memory counts in the share of one caller who reads it.
    """

    _log = Logger()

    def __init__(self, content: memoryview, what: str, responses: LargeResponses) -> None:
        """`what` it is, for a log line."""
        self.content = content
        self._media = MemoryMedia(content, 0)
        self._what = what
        self._responses = responses
        self._readers: dict[_Reader, None] = {}
        self._share: Share | None = None
        self._rate: RecentRate | None = None
        self._taken_before = 0  # by readers that do not read it any more

    async def hold(self, request: Any) -> None:
        """Have the response in the share of a caller, that of `request` if there is none yet. It
        waits for the memory as `places.grow` does. `read_by` follows at once.

        :raises Busy: when there is no memory for the response.
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
        else:  # another reader waited as well, and has the response in its share
            share.release()

    @contextmanager
    def read_by(self, request: Request) -> Iterator[None]:
        """The time in which the response is sent to `request`. `hold` it before."""
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
            self._pass_on()
            if not self._readers:
                self._responses.remove(self)
                self._rate = None

    def send(self, request: Request) -> Deferred[None]:
        """See `wire.sending.send`."""
        return send(request, self._media, 0, len(self.content))

    def look(self, now_s: float) -> None:
        """See how fast it is taken. To be called some times in `RECENT_S`."""
        for reader in self._readers:
            reader.look()
        if self._rate is None:
            self._rate = RecentRate(now_s, self._taken())
        else:
            self._rate.update(now_s, self._taken())

    def pace(self) -> float | None:
        return None if self._rate is None else self._rate.bytes_per_s(self._taken())

    def give_way(self) -> None:
        self._share = None
        self._cut()

    def _taken(self) -> int:
        return self._taken_before + sum(reader.taken for reader in self._readers)

    def _pass_on(self) -> None:
        """If the caller who has the response in its share does not read it any more, another
        reader's caller has it from now on: the one that holds least. If none of them may hold the
        response, all readers are cut off.
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
            except Busy:  # the share was part of what is reserved for callers with little
                continue
            return
        if callers:
            self._cut()

    def _cut(self) -> None:
        self._log.warn(
            "gave way: {what} of {size} bytes, which is read by {callers} too slowly",
            what=self._what,
            size=len(self.content),
            callers=", ".join(sorted({reader.caller for reader in self._readers})),
        )
        for reader in self._readers:
            reader.request.transport.abortConnection()

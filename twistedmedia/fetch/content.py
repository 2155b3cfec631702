"""The content of an upstream's response: counted, watched, and paused when nobody reads it."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from twistedmedia.errors import MediaError, UpstreamFailed, UpstreamTooSlow
from twistedmedia.fairness.pace import RECENT_S, LeastRate, PeerWait, RecentRate, TinyChunkLimit
from twistedmedia.fetch.hops import Hop
from twistedmedia.fetch.upstream_errors import of_content
from twistedmedia.http.body import Body, BodyMemory

# Less than the slowest codec of speech needs; who sends less keeps a place for nothing.
LEAST_BYTES_PER_S = 256
RATE_WINDOW_S = 20
_LOOK_S = RECENT_S / 3
# Chunked coding can be nearly all coding, of which a megabyte takes seconds to read. After a run of
# small pieces less is taken at a time, and after too many tiny ones no more.
_RUN_PIECES = 256
_SMALL_PIECE_BYTES = 256  # on the average
_TINY_PIECES = 16_384  # at once: nobody can tell an upstream to send larger ones


def too_large(limit: int) -> UpstreamFailed:
    """What to tell of content that is larger than `limit`, in bytes."""
    return UpstreamFailed(f"sends more than the limit of {limit} bytes")


def gave_way() -> UpstreamTooSlow:
    """What to tell of a download that was too slow to keep its place."""
    return UpstreamTooSlow(
        "the service is busy, and this was one of the slowest imports; "
        "try again with fewer at a time"
    )


class UpstreamContent(Protocol):
    """Receives the content of the response on `hop` into `body`."""

    def __init__(
        self,
        reactor: Any,
        hop: Hop,
        length: int | None,
        memory: BodyMemory,
        limit: int | None,
    ) -> None:
        """More than `limit` bytes are `too_large`."""
        self.body = Body(length, memory, self)
        self.ended: float | None = None
        self._reactor = reactor
        self._hop = hop
        self._limit = limit
        self._rate = LeastRate(LEAST_BYTES_PER_S, RATE_WINDOW_S)
        self._pieces = self._before_run = 0
        self._tiny = TinyChunkLimit(_TINY_PIECES)
        self._held = False
        self._waiting = PeerWait(reactor.seconds)
        self._watch: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Content may come from now on."""
        now_s = self._reactor.seconds()
        self._recent = RecentRate(now_s, 0)
        self._window_ends_s = now_s + RATE_WINDOW_S
        self._watch = self._reactor.callLater(_LOOK_S, self._look)

    def dataReceived(self, data: bytes) -> None:
        """Some of it."""
        self.body.feed(data)
        self._pieces += 1
        if self._pieces == _RUN_PIECES:
            self._judge_run()
        if self._limit is not None and self.body.received > self._limit:
            self.fail(too_large(self._limit))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """The last byte has come, or none will."""
        if self.ended is None:
            self.ended = self._hop.clock()
        whole = reason.check(ResponseDone) or (
            # Without a length the end of the connection is the end of the content, if it is one.
            reason.check(PotentialDataLoss) and self._hop.ended_cleanly
        )
        if whole:
            self._hop.connection = None  # it is kept for another request
            self.body.end()
        else:
            self.body.fail(of_content(reason, self.body.received))
        self._stop_watching()

    def fail(self, error: MediaError) -> None:
        """It is not wanted any more, because of `error`; unless all of it has come."""
        if self.ended is not None:
            return
        self.ended = self._hop.clock()
        self.body.fail(error)
        self.stop()

    def stop(self) -> None:
        """Nobody reads it any more. Idempotent."""
        self._stop_watching()
        self._hop.abort()
        self.body.discard()

    def hold(self) -> None:
        """Nothing more is to come: too much is unread."""
        if not self._held:
            self._held = True
            self._waiting.begin()
        if self.transport is not None:
            self.transport.pauseProducing()  # type: ignore[attr-defined]

    def release(self) -> None:
        """More may come."""
        if self._held:
            self._held = False
            self._waiting.end()
        if self.transport is not None and self.ended is None:
            self.transport.resumeProducing()  # type: ignore[attr-defined]

    def send_continue(self) -> None:
        """An upstream waits for nothing."""

    async def turn(self) -> None:
        """Content of upstreams is only passed on."""

    def pace(self) -> float | None:
        """How many bytes a second come lately."""
        return None if self.ended is not None else self._recent.bytes_per_s(self.body.received)

    def give_way(self) -> None:
        """Another caller has the place."""
        self.fail(gave_way())

    def _judge_run(self) -> None:
        pieces, size = self._pieces, self.body.received - self._before_run
        self._before_run, self._pieces = self.body.received, 0
        if self._tiny.are_too_many(pieces, size, self._reactor.seconds()):
            self.fail(UpstreamFailed("sends its content in pieces that are too small"))
        elif size < pieces * _SMALL_PIECE_BYTES and self._hop.connection is not None:
            self._hop.connection.receive_less()

    def _look(self) -> None:
        self._watch = None
        now_s = self._reactor.seconds()
        waited_s = self._waiting.take_s()
        self._window_ends_s += waited_s
        self._recent.update(now_s, self.body.received, waited_s)
        if now_s >= self._window_ends_s and not self._keeps_the_rate(now_s):
            least = f"fewer than {LEAST_BYTES_PER_S} bytes a second"
            self.fail(UpstreamTooSlow(f"it sends {least}"))
        else:
            self._watch = self._reactor.callLater(_LOOK_S, self._look)

    def _keeps_the_rate(self, now_s: float) -> bool:
        """Whether the window that ends now was fast enough."""
        self._window_ends_s = now_s + RATE_WINDOW_S
        return self._rate.is_met(self.body.received, excused=False)

    def _stop_watching(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()

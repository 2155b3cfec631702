"""Receives the content of an upstream's response, with limits on size, rate and chunking."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from twistedmedia.errors import MediaError, UpstreamFailed, UpstreamTooSlow
from twistedmedia.fairness.pace import RECENT_S, LeastRate, PeerWait, RecentRate, TinyChunkLimit
from twistedmedia.fetch.hops import ConnectionEnd, Hop
from twistedmedia.fetch.upstream_errors import content_error
from twistedmedia.http.body import Body, BodyMemory

# Less than the slowest speech codec needs. A slower upstream would hold a place for nothing.
LEAST_BYTES_PER_S = 256
RATE_WINDOW_S = 20
_CHECK_S = RECENT_S / 3
# Chunked coding can be nearly all framing, and a megabyte of that takes seconds to parse. After a
# run of small pieces less is read at a time. Too many tiny pieces end the fetch.
_RUN_PIECES = 256
_SMALL_PIECE_BYTES = 256  # on the average
_TINY_PIECES = 16_384  # in a burst; high, because an upstream cannot be asked for larger ones


def too_large(limit: int) -> UpstreamFailed:
    """The error for content of more than `limit` bytes."""
    return UpstreamFailed(f"sends more than the limit of {limit} bytes")


def gave_way() -> UpstreamTooSlow:
    """The error for an import that was too slow to keep its place."""
    return UpstreamTooSlow(
        "the service is busy, and this was one of the slowest imports; "
        "try again with fewer at a time"
    )


class UpstreamContent(Protocol):
    """Receives the content of the response of `hop` into `body`."""

    def __init__(
        self,
        reactor: Any,
        hop: Hop,
        length: int | None,
        memory: BodyMemory,
        limit: int | None,
    ) -> None:
        """`length` is the declared size in bytes. More than `limit` bytes are `too_large`."""
        self.body = Body(length, memory, self)
        self.ended: float | None = None
        self._reactor = reactor
        self._hop = hop
        self._limit = limit
        self._rate = LeastRate(LEAST_BYTES_PER_S, RATE_WINDOW_S)
        self._pieces = self._before_run = 0
        self._tiny = TinyChunkLimit(_TINY_PIECES)
        self._is_held = False
        self._reader_wait = PeerWait(reactor.seconds)
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Content arrives from now on."""
        now_s = self._reactor.seconds()
        self._recent = RecentRate(now_s, 0)
        self._window_ends_s = now_s + RATE_WINDOW_S
        self._timer = self._reactor.callLater(_CHECK_S, self._on_rate_check)

    def dataReceived(self, data: bytes) -> None:
        """Pass `data` to the body."""
        self.body.feed(data)
        self._pieces += 1
        if self._pieces == _RUN_PIECES:
            self._check_run()
        if self._limit is not None and self.body.received > self._limit:
            self.fail(too_large(self._limit))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """The content is complete, or is cut short for `reason`."""
        if self.ended is None:
            self.ended = self._hop.clock()
        is_clean = self._hop.connection_end is ConnectionEnd.CLOSED_BY_PEER
        # Content without a length is complete if the connection was closed cleanly.
        if reason.check(ResponseDone) or (reason.check(PotentialDataLoss) and is_clean):
            self._hop.connection = None  # another request may use it
            self.body.end()
        else:
            self.body.fail(content_error(reason, self.body.received))
        self._stop_timer()

    def fail(self, error: MediaError) -> None:
        """End the content with `error`, unless it has ended."""
        if self.ended is not None:
            return
        self.ended = self._hop.clock()
        self.body.fail(error)
        self.stop()

    def stop(self) -> None:
        """Stop receiving, and drop what is unread. Idempotent."""
        self._stop_timer()
        self._hop.abort()
        self.body.discard()

    def hold(self) -> None:
        """Pause the upstream: too much is unread."""
        if not self._is_held:
            self._is_held = True
            self._reader_wait.begin()
        if self.transport is not None:
            self.transport.pauseProducing()  # type: ignore[attr-defined]

    def release(self) -> None:
        """Resume the upstream."""
        if self._is_held:
            self._is_held = False
            self._reader_wait.end()
        if self.transport is not None and self.ended is None:
            self.transport.resumeProducing()  # type: ignore[attr-defined]

    def send_continue(self) -> None:
        """Upstreams do not wait for a 100 Continue."""

    async def turn(self) -> None:
        """Does not wait: content of upstreams is only passed on."""

    def pace(self) -> float | None:
        """The recent rate in bytes a second, None when the content has ended."""
        return None if self.ended is not None else self._recent.bytes_per_s(self.body.received)

    def give_way(self) -> None:
        """Another caller gets the place."""
        self.fail(gave_way())

    def _check_run(self) -> None:
        pieces, size = self._pieces, self.body.received - self._before_run
        self._before_run, self._pieces = self.body.received, 0
        if self._tiny.are_too_many(pieces, size, self._reactor.seconds()):
            self.fail(UpstreamFailed("sends its content in pieces that are too small"))
        elif size < pieces * _SMALL_PIECE_BYTES and self._hop.connection is not None:
            self._hop.connection.read_less()

    def _on_rate_check(self) -> None:
        self._timer = None
        now_s = self._reactor.seconds()
        waited_s = self._reader_wait.take_s()
        self._window_ends_s += waited_s
        self._recent.update(now_s, self.body.received, waited_s)
        if now_s >= self._window_ends_s and not self._is_fast_enough(now_s):
            least = f"fewer than {LEAST_BYTES_PER_S} bytes a second"
            self.fail(UpstreamTooSlow(f"it sends {least}"))
        else:
            self._timer = self._reactor.callLater(_CHECK_S, self._on_rate_check)

    def _is_fast_enough(self, now_s: float) -> bool:
        """Whether the window that ends now was fast enough. Begins the next one."""
        self._window_ends_s = now_s + RATE_WINDOW_S
        return self._rate.is_met(self.body.received, excused=False)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

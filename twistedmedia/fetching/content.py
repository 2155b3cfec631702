"""The content of an upstream's response: counted, watched, and paused when nobody reads it."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from twistedmedia.errors import MediaError, UpstreamFailed, UpstreamTooSlow
from twistedmedia.fetching.failures import of_content
from twistedmedia.fetching.hops import Hop
from twistedmedia.limits import LeastRate
from twistedmedia.streaming import Body, BodyMemory

# Less than the slowest codec of speech needs; who sends less keeps a place for nothing.
LEAST_BYTES_PER_S = 256
RATE_WINDOW_S = 20
# Chunked coding can be nearly all coding, of which a megabyte takes seconds to read. After a run of
# small pieces less is taken at a time; after so many runs of tiny ones, 16,384 pieces, no more.
_RUN_PIECES = 256
_SMALL_PIECE_BYTES, _TINY_PIECE_BYTES = 256, 64  # on the average
_TINY_RUNS = 64


def too_large(limit: int) -> UpstreamFailed:
    """What to tell of content that is larger than `limit`, in bytes."""
    return UpstreamFailed(f"sends more than the limit of {limit} bytes")


class Content(Protocol):
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
        self._pieces = self._tiny_runs = 0
        self._before_run = 0
        self._held = self._was_held = False
        self._watch: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Content may come from now on."""
        self._watch = self._reactor.callLater(RATE_WINDOW_S, self._judge)

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
        self.body.drop()

    def hold(self) -> None:
        """Nothing more is to come: too much is unread."""
        self._held = self._was_held = True
        if self.transport is not None:
            self.transport.pauseProducing()  # type: ignore[attr-defined]

    def release(self) -> None:
        """More may come."""
        self._held = False
        if self.transport is not None and self.ended is None:
            self.transport.resumeProducing()  # type: ignore[attr-defined]

    def send_continue(self) -> None:
        """An upstream waits for nothing."""

    def _judge_run(self) -> None:
        average_bytes = (self.body.received - self._before_run) / self._pieces
        self._before_run, self._pieces = self.body.received, 0
        self._tiny_runs += average_bytes < _TINY_PIECE_BYTES
        if self._tiny_runs == _TINY_RUNS:
            self.fail(UpstreamFailed("sends its content in pieces that are too small"))
        elif average_bytes < _SMALL_PIECE_BYTES and self._hop.connection is not None:
            self._hop.connection.receive_less()

    def _judge(self) -> None:
        self._watch = None
        excused, self._was_held = self._was_held, self._held
        if self._rate.kept(self.body.received, excused):
            self._watch = self._reactor.callLater(RATE_WINDOW_S, self._judge)
        else:
            least = f"fewer than {LEAST_BYTES_PER_S} bytes a second"
            self.fail(UpstreamTooSlow(f"it sends {least}"))

    def _stop_watching(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()

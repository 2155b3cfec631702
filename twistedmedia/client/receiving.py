"""The content of a response, piece by piece, and no faster than it is read."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from twistedmedia.client.bounds import SMALL_PIECE_BYTES, SMALL_PIECES
from twistedmedia.client.errors import Garbled

# What may wait unread. A thread writes about as much in one job.
MOST_UNREAD_BYTES = 512 << 10


class Content(Protocol):
    """Receives the content of a response; one reader reads it."""

    transport: Any

    def __init__(self) -> None:
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._received_bytes = self._pieces = 0
        self._is_paused = False
        self._end: Failure | None = None
        self._reader: Deferred[list[bytes]] | None = None

    def read(self) -> Deferred[list[bytes]]:
        """Fires with what has come since the last read, as soon as that is something; with an empty
        list at the end, of which the response must have said where it is. Fails as Twisted's client
        does when the connection breaks before. Cancelling it cuts the connection.
        """
        assert self._reader is None, "one reader reads it"
        if self._unread:
            return succeed(self._take())
        if self._end is not None:
            return succeed([]) if self._end.check(ResponseDone) else fail(self._end)
        self._reader = Deferred(lambda _: self.abandon())
        return self._reader

    def abandon(self) -> None:
        """Nobody reads it any more: cut the connection, unless all of it has come. Idempotent."""
        self._reader = None
        self._unread.clear()
        if self._end is None and self.transport is not None:
            self.transport.stopProducing()

    def dataReceived(self, data: bytes) -> None:
        """Some of it."""
        if self._end is not None:
            return
        self._pieces += 1
        self._received_bytes += len(data)
        if self._pieces > SMALL_PIECES + self._received_bytes // SMALL_PIECE_BYTES:
            self._finish(Failure(Garbled("the answer comes in pieces that are too small")))
            self.transport.stopProducing()
            return
        self._unread.append(data)
        self._unread_bytes += len(data)
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(self._take())
        elif self._unread_bytes >= MOST_UNREAD_BYTES and not self._is_paused:
            self._is_paused = True
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """The last byte has come, or none will."""
        if self._end is None:
            self._finish(reason)

    def _finish(self, reason: Failure) -> None:
        self._end = reason
        reader, self._reader = self._reader, None
        if reader is None:
            return
        if reason.check(ResponseDone):
            reader.callback([])
        else:
            reader.errback(reason)

    def _take(self) -> list[bytes]:
        pieces, self._unread, self._unread_bytes = self._unread, [], 0
        if self._is_paused:
            self._is_paused = False
            if self._end is None:
                self.transport.resumeProducing()
        return pieces

"""The content of a response, piece by piece, and no faster than it is read.

A file as the content of a request: read ahead by one piece, and no faster than it is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from twistedmedia.client.bounds import SMALL_PIECE_BYTES, SMALL_PIECES
from twistedmedia.client.exceptions import InvalidResponse
from twistedmedia.client.local_files import LocalFile, changed

# What may wait unread. A thread writes about as much in one job.
MOST_UNREAD_BYTES = 512 << 10


class ResponseContent(Protocol):
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
            self._finish(Failure(InvalidResponse("the answer comes in pieces that are too small")))
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


# Each piece costs two changes of threads. Two of them and what the transport holds are in memory.
PIECE_BYTES = 256 << 10


@implementer(IBodyProducer)
class FileContent:
    """`length` bytes of `file` from `start` on. It can be sent once."""

    def __init__(
        self, file: LocalFile, start: int, length: int, moved: Callable[[int], None]
    ) -> None:
        """`moved` is called with the size of each piece that was given away, in bytes."""
        self.length = length
        self._file = file
        self._moved = moved
        self._offset = start
        self._unread = self._unsent = length
        self._piece = b""  # read and not yet sent
        self._is_paused = self._is_stopped = False
        self._consumer: IConsumer
        self._done: Deferred[None] = Deferred(lambda _: self.stopProducing())

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Send it to `consumer`. Fires with None when the last piece was given away; fails with
        LocalFailure when the file cannot be read, or is shorter by now.
        """
        self._consumer = consumer
        if self._unsent:
            self._read_ahead()
        else:
            self._done.callback(None)
        return self._done

    def pauseProducing(self) -> None:
        """Send nothing for now."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._is_paused = False
        self._send()

    def stopProducing(self) -> None:
        """Send nothing any more. What `startProducing` returned does not fire then."""
        self._is_stopped = True
        self._piece = b""

    def _read_ahead(self) -> None:
        if not self._unread:
            return
        reading = self._file.read(self._offset, min(PIECE_BYTES, self._unread))
        reading.addCallback(self._received).addErrback(self._failed)

    def _received(self, piece: bytes) -> None:
        if self._is_stopped:
            return
        if not piece:
            raise changed(self._file.path)
        self._offset += len(piece)
        self._unread -= len(piece)
        self._piece = piece
        self._send()

    def _send(self) -> None:
        if self._is_paused or self._is_stopped or not self._piece:
            return
        piece, self._piece = self._piece, b""
        self._unsent -= len(piece)
        self._consumer.write(piece)
        self._moved(len(piece))
        if self._is_stopped:  # by the consumer, or by whoever was told
            return
        if self._unsent:
            self._read_ahead()
        else:
            self._done.callback(None)

    def _failed(self, failure: Failure) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self._done.errback(failure)

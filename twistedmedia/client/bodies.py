"""The content of responses and requests, streamed in pieces with backpressure."""

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

from twistedmedia.client.client_limits import MAX_SMALL_PIECES, SMALL_PIECE_BYTES
from twistedmedia.client.exceptions import InvalidResponse
from twistedmedia.client.local_files import LocalFile, file_changed

# The connection is paused when this much is unread. A thread writes about as much in one job.
MAX_UNREAD_BYTES = 512 << 10
# Each piece of a file costs two thread switches. Two of them, and the transport's buffer, are in
# memory.
PIECE_BYTES = 256 << 10


class ResponseContent(Protocol):
    """Receives the content of a response for one reader."""

    transport: Any

    def __init__(self) -> None:
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._received_bytes = self._pieces = 0
        self._is_paused = False
        self._end: Failure | None = None
        self._reader: Deferred[list[bytes]] | None = None

    def read(self) -> Deferred[list[bytes]]:
        """Fires with the pieces that arrived since the last read, as soon as there are some, and
        with an empty list at the end. Fails with Twisted's error when the connection breaks first,
        or when the response does not say where it ends. Cancelling it closes the connection.
        """
        assert self._reader is None, "there is one reader"
        if self._unread:
            return succeed(self._take())
        if self._end is not None:
            return succeed([]) if self._end.check(ResponseDone) else fail(self._end)
        self._reader = Deferred(lambda _: self.abandon())
        return self._reader

    def abandon(self) -> None:
        """Stop reading: close the connection unless all content has arrived. Idempotent."""
        self._reader = None
        self._unread.clear()
        if self._end is None and self.transport is not None:
            self.transport.stopProducing()

    def dataReceived(self, data: bytes) -> None:
        """Buffer a piece, or give it to the waiting reader."""
        if self._end is not None:
            return
        self._pieces += 1
        self._received_bytes += len(data)
        if self._pieces > MAX_SMALL_PIECES + self._received_bytes // SMALL_PIECE_BYTES:
            self._finish(
                Failure(InvalidResponse("the response arrives in pieces that are too small"))
            )
            self.transport.stopProducing()
            return
        self._unread.append(data)
        self._unread_bytes += len(data)
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(self._take())
        elif self._unread_bytes >= MAX_UNREAD_BYTES and not self._is_paused:
            self._is_paused = True
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Note the end: the content is complete, or the connection broke."""
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


@implementer(IBodyProducer)
class FileContent:
    """Produces `length` bytes of `file` from offset `start` on, once. It reads one piece ahead."""

    def __init__(
        self, file: LocalFile, start: int, length: int, on_sent: Callable[[int], None]
    ) -> None:
        """`on_sent` is called with the size of each piece, in bytes, after it was written."""
        self.length = length
        self._file = file
        self._on_sent = on_sent
        self._offset = start
        self._unread = self._unsent = length
        self._piece = b""  # read and not yet sent
        self._is_paused = self._is_stopped = False
        self._consumer: IConsumer
        self._done: Deferred[None] = Deferred(lambda _: self.stopProducing())

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write to `consumer`. Fires with None after the last piece; fails with LocalFailure when
        the file cannot be read or has become shorter.
        """
        self._consumer = consumer
        if self._unsent:
            self._read_ahead()
        else:
            self._done.callback(None)
        return self._done

    def pauseProducing(self) -> None:
        """Pause. One more piece may be read ahead."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Continue."""
        self._is_paused = False
        self._send()

    def stopProducing(self) -> None:
        """Stop for good. The Deferred of `startProducing` does not fire then."""
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
            raise file_changed(self._file.path)
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
        self._on_sent(len(piece))
        if self._is_stopped:  # by the consumer or by `on_sent`
            return
        if self._unsent:
            self._read_ahead()
        else:
            self._done.callback(None)

    def _failed(self, failure: Failure) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self._done.errback(failure)

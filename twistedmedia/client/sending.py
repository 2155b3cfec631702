"""A file as the content of a request: read ahead by one piece, and no faster than it is taken."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from twistedmedia.client.files import LocalFile, changed

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

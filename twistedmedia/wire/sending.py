"""A stored file to a connection: read piece by piece in threads, as fast as the peer takes it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedmedia.boundaries import Media
from twistedmedia.faults import on_one_line

# A read costs a hop through a thread, so it should bring more than the kernel takes at once; and
# this is what a reader that takes nothing costs.
BLOCK_BYTES = 128 << 10


@implementer(IPushProducer)
class PausedReads:
    """Sends `length` bytes of a media from `offset`; reads only while the peer takes them."""

    _log = Logger()

    def __init__(self, request: Any, media: Media, offset: int, length: int) -> None:
        """`request` is a Twisted one whose status and headers are set."""
        self._request = request
        self._media = media
        self._offset = offset
        self._left = length
        self._paused = False
        self._reading = False
        self._pumping = False
        self._ended = False
        self._sent: Deferred[None] = Deferred()

    def start(self) -> Deferred[None]:
        """Begin. Fires when the last byte is written to the connection.

        When the file cannot be read, or is shorter than was announced, the connection is cut: the
        peer must not take what it has for the whole. Then, and when the peer goes, this never
        fires; whoever waits is cancelled with the request.
        """
        if self._left == 0:
            self._sent.callback(None)
        else:
            self._request.registerProducer(self, True)
            self.resumeProducing()
        return self._sent

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._pump()

    def stopProducing(self) -> None:
        self._ended = True

    def _pump(self) -> None:
        if self._pumping:  # a store that reads at once calls back from within the loop below
            return
        self._pumping = True
        while not (self._paused or self._reading or self._ended):
            self._reading = True
            reading = self._media.read(self._offset, min(self._left, BLOCK_BYTES))
            reading.addCallbacks(self._write, self._cut)
        self._pumping = False

    def _write(self, data: bytes) -> None:
        self._reading = False
        if self._ended:
            return
        if not data:
            self._cut(Failure(EOFError("the file became shorter while it was sent")))
            return
        self._offset += len(data)
        self._left -= len(data)
        self._request.write(data)
        if self._left == 0:
            self._ended = True
            self._request.unregisterProducer()
            self._sent.callback(None)
        else:
            self._pump()

    def _cut(self, failure: Failure) -> None:
        self._reading = False
        if not self._ended:
            self._ended = True
            self._log.error("a download was cut off: {why}", why=on_one_line(failure))
            self._request.unregisterProducer()
            self._request.transport.abortConnection()

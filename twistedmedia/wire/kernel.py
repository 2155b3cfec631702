"""A stored file to a plain TCP connection without a copy: sendfile(2), driven by the event loop.

The headers go out as always. Then the connection's transport is lent to a pull producer, which
Twisted calls when the socket takes more and nothing else waits to be written; so what the kernel
sends cannot overtake what was written before.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedmedia.boundaries import KernelMedia
from twistedmedia.faults import on_one_line
from twistedmedia.wire.channel import MediaChannel

# What may be sent in one turn of the loop; on a fast network that is a fraction of a millisecond.
# Also what is read into memory at a time where a file is cold.
TURN_BYTES = 1 << 20


@implementer(IPullProducer)
class KernelSending:
    """Sends a span of a media whose bytes the kernel has at hand; has those that it has not at hand
    fetched by a thread first, so that the loop never waits for a disk.
    """

    _log = Logger()

    def __init__(
        self, request: Any, channel: MediaChannel, media: KernelMedia, offset: int, length: int
    ) -> None:
        """As `wire.sending.send`; `length` is not 0."""
        self._request = request
        self._channel = channel
        self._transport = channel.transport
        self._media = media
        self._offset = offset
        self._left = length
        self._started = False
        self._fetching = False
        self._ended = False
        self._sent: Deferred[None] = Deferred(self._left_alone)

    def start(self) -> Deferred[None]:
        """Begin; see `wire.sending.send`."""
        self._request.write(b"")  # the headers, to the kernel or into the transport's buffer
        self._channel.lend_transport(self)
        # Until the first call: answers to requests that came before may be waiting for the peer.
        self._channel.peer_is_slow()
        self._started = True
        self._transport.startWriting()
        return self._sent

    def resumeProducing(self) -> None:
        """The socket takes more, and all that was written before has gone to the kernel."""
        if not self._started or self._fetching or self._ended:
            return  # Twisted calls once when it is told of a producer, before the headers are gone
        size = min(self._left, TURN_BYTES)
        try:
            sent = self._media.send_at_hand(self._transport.fileno(), self._offset, size)
        except BlockingIOError:
            self._wait_for_peer()
        except ConnectionError:
            self._transport.abortConnection()  # the peer has gone; that ends the request
        except OSError:
            self._cut(Failure())
        else:
            self._went(sent, size)

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._ended = True

    def _left_alone(self, _: Deferred[None]) -> None:
        self._ended = True

    def _went(self, sent: int | None, size: int) -> None:
        if sent is None:
            self._fetching = True
            self._media.fetch(self._offset, size).addCallbacks(self._fetched, self._cut)
        elif sent == 0:
            self._cut(Failure(EOFError("the file became shorter while it was sent")))
        else:
            self._offset += sent
            self._left -= sent
            self._request.sentLength += sent
            if not self._left:
                self._ended = True
                self._channel.take_back_transport()
                self._sent.callback(None)
            elif sent < size:
                self._wait_for_peer()
            else:
                self._transport.startWriting()  # Twisted has stopped it before it called us

    def _wait_for_peer(self) -> None:
        self._channel.peer_is_slow()
        self._transport.startWriting()

    def _fetched(self, _: None) -> None:
        self._fetching = False
        if not self._ended:
            self._transport.startWriting()

    def _cut(self, failure: Failure) -> None:
        self._fetching = False
        if not self._ended:
            self._ended = True
            self._log.error("a download was cut off: {why}", why=on_one_line(failure))
            self._transport.abortConnection()

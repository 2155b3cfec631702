"""A stored file to a plain TCP connection without a copy: sendfile(2), driven by the event loop.

The headers go out as always. Then the connection's transport is lent to a pull producer, which
Twisted calls when the socket takes more and nothing else waits to be written; so what the kernel
sends cannot overtake what was written before.

A stored file to a connection, as fast as the peer takes it and no faster.

On plain TCP the kernel sends large spans by itself (`wire.kernel`); here is the choice, and the way
for everything else: pieces read in threads, paused by the peer.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedmedia.http.connection import MediaChannel
from twistedmedia.http.timeouts import BLOCK_BYTES
from twistedmedia.logs.incidents import on_one_line
from twistedmedia.store.interface import KernelMedia, Media

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


# Less than this is cheaper to read than to hand to the kernel, and goes out in one segment with the
# headers: apart, it could wait for the peer's acknowledgement of them.
WORTH_THE_KERNEL_BYTES = 64 << 10


def send(request: Any, media: Media, offset: int, length: int) -> Deferred[None]:
    """Send `length` bytes of `media` from `offset` to `request`, a Twisted one whose status and
    headers, Content-Length among them, are set.

    Fires when the last byte is written to the connection. When the file cannot be read, or is
    shorter than was announced, the connection is cut: the peer must not take what it has for the
    whole. Then, and when the peer goes, it never fires; whoever waits is cancelled with the
    request.
    """
    channel = getattr(request, "channel", None)
    if (
        length > WORTH_THE_KERNEL_BYTES
        and isinstance(channel, MediaChannel)
        and channel.plain_socket is not None
        and isinstance(media, KernelMedia)
    ):
        return KernelSending(request, channel, media, offset, length).start()
    return PausedReads(request, media, offset, length).start()


@implementer(IPushProducer)
class PausedReads:
    """Sends a span of a media; reads only while the peer takes what was read."""

    _log = Logger()

    def __init__(self, request: Any, media: Media, offset: int, length: int) -> None:
        self._request = request
        channel = getattr(request, "channel", None)
        self._channel = channel if isinstance(channel, MediaChannel) else None
        self._media = media
        self._offset = offset
        self._left = length
        self._registered = False
        self._paused = False
        self._reading = False
        self._pumping = False
        self._ended = False
        self._sent: Deferred[None] = Deferred(self._left_alone)

    def start(self) -> Deferred[None]:
        """Begin; see `send`."""
        if self._left == 0:
            self._sent.callback(None)
        else:
            if self._left > BLOCK_BYTES or (self._channel is not None and self._channel.is_full):
                self._register()
            self._pump()
        return self._sent

    def pauseProducing(self) -> None:
        self._paused = True
        if self._channel is not None:
            self._channel.peer_is_slow()

    def resumeProducing(self) -> None:
        self._paused = False
        self._pump()

    def stopProducing(self) -> None:
        self._ended = True

    def _register(self) -> None:
        # What is sent in one piece is not worth it.
        self._registered = True
        self._request.registerProducer(self, True)
        # Answers to requests that came before may still be waiting for the peer.
        if self._channel is not None and self._channel.is_full:
            self.pauseProducing()

    def _unregister(self) -> None:
        if self._registered:
            self._request.unregisterProducer()

    def _left_alone(self, _: Deferred[None]) -> None:
        self._ended = True

    def _block(self) -> int:
        return BLOCK_BYTES if self._channel is None else self._channel.site.slow_readers.block

    def _pump(self) -> None:
        if self._pumping:  # a store that reads at once calls back from within the loop below
            return
        self._pumping = True
        while not (self._paused or self._reading or self._ended):
            self._reading = True
            reading = self._media.read(self._offset, min(self._left, self._block()))
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
            self._unregister()
            self._sent.callback(None)
        else:
            self._pump()

    def _cut(self, failure: Failure) -> None:
        self._reading = False
        if not self._ended:
            self._ended = True
            self._log.error("a download was cut off: {why}", why=on_one_line(failure))
            self._unregister()
            self._request.transport.abortConnection()

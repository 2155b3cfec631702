"""Sends a stored file to a connection, as fast as the peer reads and no faster.

On plain TCP the kernel sends large spans by sendfile(2), driven by the event loop. The connection's
transport is lent to a pull producer after the head was written. Twisted calls this producer when
the socket takes more and nothing else waits to be written, so the kernel cannot overtake the head.

Everything else is read piece by piece in threads, and paused by the peer.
"""

from __future__ import annotations

from enum import Enum
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

# Sent in one turn of the event loop: on a fast network that takes a fraction of a millisecond. Also
# what a thread reads into the page cache at a time.
TURN_BYTES = 1 << 20
# A smaller span is cheaper to read than to send by the kernel, and goes out in one segment with the
# head. Sent separately, it could wait for the acknowledgement of the head.
SENDFILE_BYTES = 64 << 10


def send(request: Any, media: Media, offset: int, length: int) -> Deferred[None]:
    """Send `length` bytes of `media` from `offset` to `request`, whose status and headers are set,
    `Content-Length` included.

    Fires when the last byte is written to the connection. If the file cannot be read, or is too
    short, the connection is cut: the peer must not take a part for the whole. Then, and when the
    peer disconnects, the Deferred never fires; it is cancelled together with the request.
    """
    channel = getattr(request, "channel", None)
    if (
        length > SENDFILE_BYTES
        and isinstance(channel, MediaChannel)
        and channel.plain_socket is not None
        and isinstance(media, KernelMedia)
    ):
        return KernelSending(request, channel, media, offset, length).start()
    return PausedReads(request, media, offset, length).start()


# FETCHING: a thread reads pages into the page cache.
_State = Enum("_State", "NEW SENDING FETCHING ENDED")


@implementer(IPullProducer)
class KernelSending:
    """Sends a span by sendfile, from the page cache. A thread reads missing pages first, so that
    the event loop never waits for a disk.
    """

    _log = Logger()

    def __init__(
        self, request: Any, channel: MediaChannel, media: KernelMedia, offset: int, length: int
    ) -> None:
        """See `send`. `length` is not 0."""
        self._request = request
        self._channel = channel
        self._transport = channel.transport
        self._media = media
        self._offset = offset
        self._left = length
        self._state = _State.NEW
        self._sent: Deferred[None] = Deferred(self._on_cancel)

    def start(self) -> Deferred[None]:
        """Begin. See `send`."""
        self._request.write(b"")  # the head, to the kernel or into the transport's buffer
        self._channel.lend_transport(self)
        # Until the first call: responses to earlier requests may wait for the peer.
        self._channel.watch_for_stall()
        if self._state is _State.NEW:  # the connection may be lost already
            self._state = _State.SENDING
        self._transport.startWriting()
        return self._sent

    def resumeProducing(self) -> None:
        """The socket takes more, and the kernel has all that was written before."""
        if self._state is not _State.SENDING:
            return  # Twisted calls this once at the registration, when the head may not be sent
        size = min(self._left, TURN_BYTES)
        try:
            sent = self._media.send_at_hand(self._transport.fileno(), self._offset, size)
        except BlockingIOError:
            self._wait_for_peer()
        except ConnectionError:
            self._transport.abortConnection()  # the peer has disconnected; this ends the request
        except OSError:
            self._cut(Failure())
        else:
            self._on_sent(sent, size)

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._state = _State.ENDED

    def _on_cancel(self, _: Deferred[None]) -> None:
        self._state = _State.ENDED

    def _on_sent(self, sent: int | None, size: int) -> None:
        if sent is None:  # the page cache lacks them
            self._state = _State.FETCHING
            self._media.fetch(self._offset, size).addCallbacks(self._on_fetched, self._cut)
        elif sent == 0:
            self._cut(Failure(EOFError("the file became shorter while it was sent")))
        else:
            self._offset += sent
            self._left -= sent
            self._request.sentLength += sent
            if not self._left:
                self._state = _State.ENDED
                self._channel.take_back_transport()
                self._sent.callback(None)
            elif sent < size:
                self._wait_for_peer()
            else:
                self._transport.startWriting()  # Twisted stops it before each call

    def _wait_for_peer(self) -> None:
        self._channel.watch_for_stall()
        self._transport.startWriting()

    def _on_fetched(self, _: None) -> None:
        if self._state is not _State.ENDED:
            self._state = _State.SENDING
            self._transport.startWriting()

    def _cut(self, failure: Failure) -> None:
        if self._state is not _State.ENDED:
            self._state = _State.ENDED
            self._log.error("a download was cut off: {why}", why=on_one_line(failure))
            self._transport.abortConnection()


@implementer(IPushProducer)
class PausedReads:
    """Sends a span that is read in threads, and reads only while the peer takes what was read."""

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
        self._sent: Deferred[None] = Deferred(self._on_cancel)

    def start(self) -> Deferred[None]:
        """Begin. See `send`."""
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
            self._channel.watch_for_stall()

    def resumeProducing(self) -> None:
        self._paused = False
        self._pump()

    def stopProducing(self) -> None:
        self._ended = True

    def _register(self) -> None:
        self._registered = True
        self._request.registerProducer(self, True)
        # Responses to earlier requests may wait for the peer.
        if self._channel is not None and self._channel.is_full:
            self.pauseProducing()

    def _unregister(self) -> None:
        if self._registered:
            self._request.unregisterProducer()

    def _on_cancel(self, _: Deferred[None]) -> None:
        self._ended = True

    def _block(self) -> int:
        return BLOCK_BYTES if self._channel is None else self._channel.site.stall_detector.block

    def _pump(self) -> None:
        if self._pumping:  # a store that reads at once calls back within the loop below
            return
        self._pumping = True
        while not (self._paused or self._reading or self._ended):
            self._reading = True
            reading = self._media.read(self._offset, min(self._left, self._block()))
            reading.addCallbacks(self._on_read, self._cut)
        self._pumping = False

    def _on_read(self, data: bytes) -> None:
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

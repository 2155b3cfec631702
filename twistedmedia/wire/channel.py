"""Connections and their requests, with content that streams to the resources that ask for it.

Under stock Twisted a request is rendered when its last byte is in memory or in a temporary file.
Here a resource that provides `IStreamsBody` is rendered when the headers are in and reads
`request.body`; every other resource behaves as always. What HTTP asks of a server that answers
before it has read everything is done here as well: `100 Continue` only when somebody reads, an
early answer without a reset, a connection that is kept when the rest is small.

Twisted has no public way to see a request between its headers and its content, so this leans on
internals of `HTTPChannel`: `_command`, `_path`, `_version`, `_send100Continue`, `_handlingRequest`,
`_networkProducer`, `_waitingForTransport` and `_respondToBadRequestAndDisconnect`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IPullProducer, ISystemHandle, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.python.failure import Failure
from twisted.web import http, server

from twistedmedia.errors import Malformed
from twistedmedia.streaming import Body
from twistedmedia.wire.body import IStreamsBody
from twistedmedia.wire.patience import progress_of

if TYPE_CHECKING:
    from twistedmedia.wire.site import MediaSite

# How much unwanted content is read and dropped after an early answer, and for how long. Closing a
# socket with unread data resets it, and the reset can overtake the answer (RFC 9112, 9.6).
LINGER_BYTES = 4 << 20
LINGER_S = 5.0
# What the kernel buffers of an answer beyond what is on its way to the peer. It would take 4 MiB
# from each reader that is slow (tcp(7), TCP_NOTSENT_LOWAT).
UNSENT_BYTES = 256 << 10
# RFC 9112, 3.2.2: what a client sends who takes us for a proxy. The host and what follows it.
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?]+)(/?)", re.IGNORECASE)


class StreamingRequest(server.Request):
    """A request with `body`, unless its resource does not stream and it has content."""

    channel: MediaChannel
    content: Any
    body: Body | None = None

    def gotLength(self, length: int | None) -> None:
        """The headers are in (called by the channel). `length` is None for chunked content."""
        channel = self.channel
        if length == 0 or not self._resource_streams(channel):
            super().gotLength(length)
            return
        self.content = BytesIO()  # stays empty, so that the base class finds no form to parse
        self.body = channel.content_begins(length)
        # Not now: the channel has yet to change from lines to content.
        line = channel._command, channel._path, channel._version
        channel.callLater(0, self._begin, *line)

    def handleContentChunk(self, data: bytes) -> None:
        if self.body is None:
            super().handleContentChunk(data)
        else:
            self.body.feed(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The last byte is in (called by the channel)."""
        if self.body is None:
            if self.content.tell() == 0:
                self.body = self._empty_body()
            super().requestReceived(command, path, version)
        else:
            self.body.end()

    def write(self, data: bytes) -> None:
        if not self.startedWriting and not self._disconnected and self.body is not None:
            self.channel.answering(self.body)
            if not self.channel.persistent:
                self.setHeader(b"connection", b"close")
        super().write(data)

    def connectionLost(self, reason: Failure) -> None:
        # First those who wait for the request (Klein cancels its handler), then the reader.
        super().connectionLost(reason)
        if self.body is not None:
            self.body.fail(ConnectionLost("the client went away before its content had ended"))
            self.body.drop()

    def _begin(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self._disconnected:
            super().requestReceived(command, path, version)

    def _empty_body(self) -> Body:
        body = Body(0, self.channel.site.body_memory, self.channel)
        body.end()
        return body

    def _resource_streams(self, channel: MediaChannel) -> bool:
        """Whether the resource that will render this request wants its content streamed."""
        self.method, self.uri, self.args = channel._command, channel._path, {}
        self.path = self.uri.split(b"?", 1)[0]
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        try:
            resource = channel.site.getResourceFor(self)
        except Exception:  # noqa: BLE001  # somebody else's resource; it fails again when rendered
            return False
        return bool(IStreamsBody.providedBy(resource))


class MediaChannel(http.HTTPChannel):
    """One connection. Feeds the body of the request in progress, and is its `Flow`."""

    site: MediaSite
    transport: Any
    _networkProducer: Any  # the transport, where it can be paused
    callLater: Callable[..., IDelayedCall]  # the site's reactor's
    _held = False
    _idle_s: float | None = None  # the timeout that was in force when the peer was held
    _expects_continue = False
    _host: Any = None
    _is_secure: bool | None = None
    _broken = False  # the framing of the content is lost: nothing on this connection has meaning
    _lingering: IDelayedCall | None = None
    _dropped = 0
    _is_unsent = False  # an answer was written, to the transport's buffer

    @property
    def plain_socket(self) -> Any | None:
        """The TCP socket to which goes as it is what is written here; None under TLS, or elsewhere
        than on TCP.
        """
        if self._is_plain_tcp() and ISystemHandle.providedBy(self.transport):
            handle: Any = self.transport.getHandle()
            # Twisted says of a UNIX socket as well that it is TCP.
            if handle.family in (socket.AF_INET, socket.AF_INET6):
                return handle
        return None

    @property
    def is_full(self) -> bool:
        """Whether answers that were written wait for the peer to take more."""
        return bool(self._waitingForTransport)

    # Flow, for Body

    def hold(self) -> None:
        if not self._held:
            self._held = True
            self._idle_s = self.setTimeout(None)  # it is we who are slow, not the peer
        self._networkProducer.pauseProducing()

    def release(self) -> None:
        if self._held:
            self._held = False
            if not self._handlingRequest:  # else the base class has put the timeout aside
                self.setTimeout(self._idle_s)
            if not self._waitingForTransport:
                self._networkProducer.resumeProducing()

    def send_continue(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # For those who send answers

    def lend_transport(self, producer: IPullProducer) -> None:
        """Have the transport call `producer`, instead of this channel, when it takes more. Nobody
        else may write until it is taken back.
        """
        self._networkProducer.unregisterProducer()
        self._networkProducer.registerProducer(producer, False)

    def take_back_transport(self) -> None:
        """The one whom it was lent to has written everything."""
        self._networkProducer.unregisterProducer()
        self._networkProducer.registerProducer(self, True)
        self._is_unsent = False
        if self._waitingForTransport:  # since before it was lent
            self.resumeProducing()

    def peer_is_slow(self) -> None:
        """What was written waits for the peer. May be called again."""
        if self in self.site.channels:  # else there is no peer any more
            self.site.slow_readers.watch(self)

    # What the base class and the request call

    def getHost(self) -> Any:
        if self._host is None:  # it stays, and asking costs a system call
            self._host = super().getHost()
        return self._host

    def isSecure(self) -> bool:
        if self._is_secure is None:
            self._is_secure = bool(super().isSecure())
        return self._is_secure

    def connectionMade(self) -> None:
        super().connectionMade()
        self._request_piece = getattr(self.transport, "bufferSize", 1 << 16)
        plain_socket = self.plain_socket
        if plain_socket is not None:
            # The end of an answer must not wait for the peer to acknowledge its beginning.
            plain_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.forget(self)
        self._held = False
        self._stop_lingering()
        try:
            super().connectionLost(reason)  # its requests end
        finally:
            self.site.tell_emptied()

    def timeoutConnection(self) -> None:
        """No request has come for a while. Who is still taking the last answer is not idle."""
        if progress_of(self).lags:
            self.peer_is_slow()
            self.setTimeout(self.timeOut)
        else:
            super().timeoutConnection()

    def loseConnection(self) -> Any:
        self.peer_is_slow()  # it closes when the peer has taken what was written before
        return super().loseConnection()

    def allHeadersReceived(self) -> None:
        absolute = _ABSOLUTE_FORM.match(self._path)
        if absolute is not None:
            self.requests[-1].requestHeaders.setRawHeaders(b"host", [absolute[1]])
            self._path = (b"" if absolute[2] else b"/") + self._path[absolute.end(1) :]
        super().allHeadersReceived()
        codings = self.requests[-1].requestHeaders.getRawHeaders(b"transfer-encoding", [])
        if any(coding.lower() != b"chunked" for coding in codings):
            # The base class takes `identity`, which was abolished, for no content (RFC 9112, 6.1):
            # what follows has no meaning.
            self.persistent = False

    def _send100Continue(self) -> None:
        if self.requests[-1].body is None:
            super()._send100Continue()
        else:
            self._expects_continue = True

    def rawDataReceived(self, data: bytes) -> None:
        if self._lingering is not None:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self._give_up()
                return
        if not self._handlingRequest:
            self._choose_piece()
        if not self._broken:
            super().rawDataReceived(data)

    def _respondToBadRequestAndDisconnect(self) -> None:
        body = self.requests[-1].body if self.requests else None
        if body is None or body.complete:
            super()._respondToBadRequestAndDisconnect()
            return
        # Chunked content that is none. Its request is being handled: the handler answers.
        self._broken = True
        body.fail(Malformed(f"the chunked coding breaks after {body.received} bytes of content"))

    def allContentReceived(self) -> None:
        if self._held:
            self.setTimeout(self._idle_s)  # so that the base class finds one to put aside
        super().allContentReceived()
        if self._lingering is not None:
            self._stop_lingering()
            self._end_request(self.requests[0])

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if self._held:  # the base class resumes the peer when our own output has drained
            self._networkProducer.pauseProducing()

    def content_begins(self, length: int | None) -> Body:
        """The body of the request whose headers have just come in."""
        self._choose_piece()
        return Body(length, self.site.body_memory, self)

    def answering(self, body: Body) -> None:
        """An answer is about to be written: decide whether the connection survives it."""
        self._is_unsent = True
        unasked, self._expects_continue = self._expects_continue, False  # it would come too late
        if body.complete:
            return
        rest = None if body.length is None else body.length - body.received
        if self._broken or unasked or rest is None or rest > LINGER_BYTES:
            self.persistent = False

    def requestDone(self, request: StreamingRequest) -> None:
        body = request.body
        if body is not None:
            body.drop()
            if not body.complete:
                self._linger()
                return
        self._end_request(request)

    def _choose_piece(self) -> None:
        if self.length is not None:  # a piece of chunked coding can be thousands of chunks
            self.transport.bufferSize = self.site.body_memory.piece

    def _end_request(self, request: StreamingRequest) -> None:
        self.site.slow_readers.forget(self)
        self.release()
        self.transport.bufferSize = self._request_piece
        self._send_now()
        super().requestDone(request)

    def _send_now(self) -> None:
        """Give the kernel what it takes of the answer. The transport would do that in the next turn
        of the loop, after all else that this one has to do.
        """
        transport = self.transport
        if (
            self._is_unsent
            and self.persistent  # else it may be half closed, and would be lost under our feet
            and isinstance(transport, TCPConnection)
            and transport.connected
            and not (transport.TLS or transport.disconnecting or self._waitingForTransport)
        ):
            transport.doWrite()  # what fails here fails there again
        self._is_unsent = False

    # Reading on after an early answer

    def _linger(self) -> None:
        self._dropped = 0
        self._lingering = self.callLater(LINGER_S, self._give_up)
        if self._is_plain_tcp() and not self.persistent:
            self.transport.loseWriteConnection()  # the peer sees the end of the answer now

    def _is_plain_tcp(self) -> bool:
        return ITCPTransport.providedBy(self.transport) and not self.isSecure()

    def _give_up(self) -> None:
        self._stop_lingering()
        self._broken = True
        self.loseConnection()

    def _stop_lingering(self) -> None:
        if self._lingering is not None:
            if self._lingering.active():
                self._lingering.cancel()
            self._lingering = None

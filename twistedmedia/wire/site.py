"""The Site: requests whose content streams to the resources that ask for it.

Under stock Twisted a request is rendered when its last byte is in memory or in a temporary file.
Here a resource that provides `IStreamsBody` is rendered when the headers are in and reads
`request.body`; every other resource behaves as always. What HTTP asks of a server that answers
before it has read everything is done here as well: `100 Continue` only when somebody reads, an
early answer without a reset, a connection that is kept when the rest is small.

Twisted has no public way to see a request between its headers and its content, so this leans on
the internals of `HTTPChannel` where it says so. HTTP/1.1 only: see DESIGN, "Choices made".
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import IResource
from zope.interface import Interface

from twistedmedia.errors import Malformed
from twistedmedia.wire.body import Body, BodyMemory

# How much unwanted content is read and dropped after an early answer, and for how long. Closing a
# socket with unread data resets it, and the reset can overtake the answer (RFC 9112, 9.6).
LINGER_BYTES = 4 << 20
LINGER_S = 5.0


class IStreamsBody(Interface):
    """Marks a resource that is to be rendered before the content has arrived."""


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
        self.body = Body(length, channel.site.body_memory, channel)
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
    callLater: Callable[..., IDelayedCall]  # the site's reactor's
    _held = False
    _expects_continue = False
    _broken = False  # the framing of the content is lost: nothing on this connection has meaning
    _lingering: IDelayedCall | None = None
    _dropped = 0

    # Flow, for Body

    def hold(self) -> None:
        if not self._held:
            self._held = True
            self.setTimeout(None)  # it is we who are slow, not the peer
        self._networkProducer.pauseProducing()

    def release(self) -> None:
        if self._held:
            self._held = False
            if not self._handlingRequest:  # else the base class has put the timeout aside
                self.setTimeout(self.timeOut)
            if not self._waitingForTransport:
                self._networkProducer.resumeProducing()

    def send_continue(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # What the base class and the request call

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.channel_lost(self)
        self._stop_lingering()
        super().connectionLost(reason)

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
            self.setTimeout(self.timeOut)  # so that the base class finds one to put aside
        super().allContentReceived()
        if self._lingering is not None:
            self._stop_lingering()
            super().requestDone(self.requests[0])

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if self._held:  # the base class resumes the peer when our own output has drained
            self._networkProducer.pauseProducing()

    def answering(self, body: Body) -> None:
        """An answer is about to be written: decide whether the connection survives it."""
        if body.complete:
            return
        rest = None if body.length is None else body.length - body.received
        if self._broken or self._expects_continue or rest is None or rest > LINGER_BYTES:
            self.persistent = False

    def requestDone(self, request: StreamingRequest) -> None:
        body = request.body
        if body is not None:
            body.drop()
            if not body.complete:
                self._linger()
                return
        self.release()
        super().requestDone(request)

    # Reading on after an early answer

    def _linger(self) -> None:
        self._expects_continue = False
        self._dropped = 0
        self._lingering = self.callLater(LINGER_S, self._give_up)
        plain = ITCPTransport.providedBy(self.transport) and not self.isSecure()
        if plain and not self.persistent:
            self.transport.loseWriteConnection()  # the peer sees the end of the answer now

    def _give_up(self) -> None:
        self._stop_lingering()
        self._broken = True
        self.loseConnection()

    def _stop_lingering(self) -> None:
        if self._lingering is not None:
            if self._lingering.active():
                self._lingering.cancel()
            self._lingering = None


class MediaSite(server.Site):
    """A Site over any resource tree, in which those who provide `IStreamsBody` stream."""

    protocol = MediaChannel  # type: ignore[assignment]  # without the detour for HTTP/2

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime | None = None,
        memory: BodyMemory | None = None,
    ) -> None:
        """`reactor` is the global one unless given."""
        super().__init__(resource, requestFactory=StreamingRequest, reactor=reactor)
        self.body_memory = memory or BodyMemory()
        self.channels: set[MediaChannel] = set()
        self._emptied: list[Deferred[None]] = []

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS. Without HTTP/2: Twisted's ends a connection when an answer comes early."""
        return [b"http/1.1"]

    def log(self, request: Any) -> None:
        """No access log: through Twisted's logger it costs more than the request."""

    def disconnect(self) -> Deferred[None]:
        """Cut every connection. Fires when the last one is gone."""
        for channel in list(self.channels):
            channel.transport.abortConnection()
        emptied: Deferred[None] = Deferred()
        self._emptied.append(emptied)
        self._tell_emptied()
        return emptied

    def channel_lost(self, channel: MediaChannel) -> None:
        """`channel` has lost its connection."""
        self.channels.discard(channel)
        self._tell_emptied()

    def _tell_emptied(self) -> None:
        if not self.channels:
            emptied, self._emptied = self._emptied, []
            for each in emptied:
                each.callback(None)


def client_address(request: server.Request) -> str:
    """The address that a request comes from, for a log line."""
    address = cast(IAddress, request.getClientAddress())
    return address.host if isinstance(address, IPv4Address | IPv6Address) else "local"


def body_of(request: server.Request) -> Body:
    """The streaming content of a request.

    :raises RuntimeError: when the request came by another Site than `MediaSite`, which reads all of
        the content before anybody sees the request. There is no slow fallback.
    """
    body = getattr(request, "body", None)
    if not isinstance(body, Body):
        raise RuntimeError("uploads need twistedmedia's Site: serve this tree with MediaSite")
    return body

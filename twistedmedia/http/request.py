"""Requests with content that streams to the resources that ask for it.

Under stock Twisted a request is rendered when its last byte is in memory or in a temporary file.
Here a resource that provides `IStreamsBody` is rendered when the headers are in and reads
`request.body`; every other resource behaves as always.

It leans on `_disconnected` of Twisted's requests.

The last response on a connection, sent by the connection itself, without a handler.
"""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import IResource

from twistedmedia.errors import MediaError
from twistedmedia.http.addresses import LOCAL
from twistedmedia.http.body import Body, IStreamsBody
from twistedmedia.json_response import error_response

if TYPE_CHECKING:
    from twistedmedia.http.connection import MediaChannel


# RFC 9110, 9.2.1: they change nothing, so nothing is lost if their response cannot be sent.
SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
SERVER = b"twistedmedia"  # without a version: a stranger needs none
PHRASES = {  # Twisted knows not all
    **{status.value: status.phrase.encode() for status in HTTPStatus},
    460: b"Checksum Mismatch",  # of tus
}


class StreamingRequest(server.Request):
    """A request with `body`, unless its resource does not stream and it has content."""

    channel: MediaChannel
    content: Any
    body: Body | None = None
    _streams = False  # its resource reads `body`
    _is_begun = False  # its resource renders it, or will in the next turn

    def __init__(self, channel: MediaChannel) -> None:
        super().__init__(channel)
        self.begun_s = channel.site.reactor.seconds()

    def gotLength(self, length: int | None) -> None:
        """The headers are in (called by the channel). `length` is None for chunked content."""
        channel = self.channel
        self._streams = length != 0 and self._resource_streams(channel)
        if not self._streams:
            super().gotLength(length)
            return
        self.content = BytesIO()  # stays empty, so that the base class finds no form to parse
        self.body = channel.content_begins(length)
        # A chunked request may turn out to have no content, which its resource has to know. One
        # whose client expects something has content (RFC 9110, 10.1.1), and waits for an answer.
        if length is not None or self.requestHeaders.hasHeader(b"expect"):
            self._begin_soon()

    def handleContentChunk(self, data: bytes) -> None:
        if self.body is None:
            super().handleContentChunk(data)
        else:
            self.body.feed(data)
            self._begin_soon()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The last byte is in (called by the channel)."""
        if self.body is None:
            if self.content.tell() == 0:
                self.body = self._empty_body()
            super().requestReceived(command, path, version)
        else:
            self.body.end()
            self._begin_soon()

    def break_content(self, error: Exception) -> None:
        """The content, which streams, will not come to its end (called by the channel)."""
        assert self.body is not None
        self.body.fail(error)
        self._begin_soon()  # its handler answers

    def setResponseCode(self, code: int, message: bytes | None = None) -> None:
        super().setResponseCode(code, message or PHRASES.get(code))

    def write(self, data: bytes) -> None:
        begins = not self.startedWriting and not self._disconnected
        if begins:
            self.setHeader(b"server", SERVER)
            if self.body is not None:
                self.channel.answering(self.body)
            if not self.channel.persistent:
                self.setHeader(b"connection", b"close")
        super().write(data)
        if begins:
            self.channel.send_head()
            if self.channel.is_lost:
                self.channel.callLater(0, self._end_unread_response)

    def render(self, resrc: IResource) -> None:
        self._streams = IStreamsBody.providedBy(resrc)
        super().render(resrc)

    @property
    def outlives_connection(self) -> bool:
        """Whether the request is carried out though its connection is lost: it was received whole,
        it may change something, and its response has not begun.
        """
        is_whole = self._streams and self.body is not None and self.body.complete
        return is_whole and self.may_outlive_connection

    @property
    def may_outlive_connection(self) -> bool:
        """Whether `outlives_connection` will be true once the rest of the content was taken."""
        return self.method not in SAFE_METHODS and not self.startedWriting

    def getClientAddress(self) -> Any:
        """Whom the request comes from: the peer, or whom a trusted proxy asks for."""
        host = self.channel.site.client_host(self)
        if host == getattr(self.client, "host", LOCAL):
            return self.client
        return (IPv6Address if ":" in host else IPv4Address)("TCP", host, 0)

    def connectionLost(self, reason: Failure) -> None:
        if not self.finished:
            self.channel.site.log(self)
        # First those who wait for the request (Klein cancels its handler), then the reader.
        super().connectionLost(reason)
        self.producer = None  # it refers to the request, and to what was being sent
        if self.body is not None:
            self.body.fail(ConnectionLost("the client went away before its content had ended"))
            if not self.body.outlives:
                self.body.drop()

    def _end_unread_response(self) -> None:
        """End a response that cannot be sent, if its handler has not finished it in one turn."""
        if not (self.finished or self._disconnected):
            self.channel.cut()

    def _begin_soon(self) -> None:
        if not self._is_begun:
            self._is_begun = True
            # Not now: the channel has yet to change from lines to content.
            self.channel.begin_soon(self._begin)

    def _begin(self) -> None:
        if not self._disconnected:
            super().requestReceived(self.method, self.uri, self.clientproto)

    def _empty_body(self) -> Body:
        body = Body(0, self.channel.site.body_memory, self.channel)
        body.end()
        return body

    def _resource_streams(self, channel: MediaChannel) -> bool:
        """Whether the resource that will render this request wants its content streamed."""
        self.args = {}
        self.path = self.uri.split(b"?", 1)[0]
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        try:
            resource = channel.site.getResourceFor(self)
        except Exception:  # noqa: BLE001  # somebody else's resource; it fails again when rendered
            return False
        return bool(IStreamsBody.providedBy(resource))


class Refusal(NamedTuple):
    """A whole response as it is sent, its status, and the size of its content."""

    data: bytes
    status: int
    content_bytes: int


def last_response(error: MediaError) -> Refusal:
    """Say what is wrong, in JSON, and that the connection is closed."""
    response = error_response(error)
    lines = [
        f"HTTP/1.1 {response.status} {PHRASES[response.status].decode()}",
        *(f"{name}: {value}" for name, value in response.headers.items()),
        f"Date: {http.datetimeToString().decode()}",
    ]
    if "Connection" not in response.headers:
        lines.append("Connection: close")
    head = "\r\n".join(lines).encode() + b"\r\nServer: " + SERVER + b"\r\n\r\n"
    return Refusal(head + response.body, response.status, len(response.body))

"""Requests with content that streams to the resources that ask for it.

Under stock Twisted a request is rendered when its last byte is in memory or in a temporary file.
Here a resource that provides `IStreamsBody` is rendered when the headers are in, and reads
`request.body`; every other resource behaves as under stock Twisted. This module uses the private
attribute `_disconnected` of Twisted's requests.
"""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from typing import Any, NamedTuple
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

# RFC 9110, 9.2.1: they change nothing, so nothing is lost if the response cannot be sent.
SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
SERVER = b"twistedmedia"  # without a version, which would only help attackers
PHRASES = {  # Twisted lacks some of them
    **{status.value: status.phrase.encode() for status in HTTPStatus},
    460: b"Checksum Mismatch",  # tus 1.0
}


class StreamingRequest(server.Request):
    """A request. `body` is None if it has content that its resource does not stream."""

    channel: Any  # a `MediaChannel`, whose module imports this one
    content: Any
    body: Body | None = None
    _streams = False  # the resource reads `body`
    _is_render_scheduled = False  # or it has been rendered

    def __init__(self, channel: Any) -> None:
        super().__init__(channel)
        self.started_s = channel.site.reactor.seconds()

    def gotLength(self, length: int | None) -> None:
        """Called by the channel after the headers. `length` is None for chunked content."""
        channel = self.channel
        self._streams = length != 0 and self._resource_streams(channel)
        if not self._streams:
            super().gotLength(length)
            return
        self.content = BytesIO()  # stays empty, so that the base class parses no form
        self.body = channel.new_body(length)
        # Chunked content may turn out to be empty, which the resource has to know. With `Expect`
        # there is content (RFC 9110, 10.1.1), and the client waits for a response.
        if length is not None or self.requestHeaders.hasHeader(b"expect"):
            self._render_soon()

    def handleContentChunk(self, data: bytes) -> None:
        if self.body is None:
            super().handleContentChunk(data)
        else:
            self.body.feed(data)
            self._render_soon()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Called by the channel after the last byte."""
        if self.body is None:
            if self.content.tell() == 0:
                self.body = self._empty_body()
            super().requestReceived(command, path, version)
        else:
            self.body.end()
            self._render_soon()

    def break_content(self, error: Exception) -> None:
        """Fail the body. Called by the channel when the rest of the content will not arrive."""
        assert self.body is not None
        self.body.fail(error)
        self._render_soon()  # the handler responds

    def setResponseCode(self, code: int, message: bytes | None = None) -> None:
        super().setResponseCode(code, message or PHRASES.get(code))

    def write(self, data: bytes) -> None:
        begins = not self.startedWriting and not self._disconnected
        if begins:
            self.setHeader(b"server", SERVER)
            if self.body is not None:
                self.channel.closing.response_begins(self.body)
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
        """Whether the request is carried out although its connection is lost: it was received
        completely, it may change something, and its response has not begun.
        """
        is_whole = self._streams and self.body is not None and self.body.is_complete
        return is_whole and self.may_outlive_connection

    @property
    def may_outlive_connection(self) -> bool:
        """Whether `outlives_connection` will be true once the rest of the content is received."""
        return self.method not in SAFE_METHODS and not self.startedWriting

    def getClientAddress(self) -> Any:
        """Return the address of the client: the peer, or the one that a trusted proxy reports."""
        host = self.channel.site.client_host(self)
        if host == getattr(self.client, "host", LOCAL):
            return self.client
        return (IPv6Address if ":" in host else IPv4Address)("TCP", host, 0)

    def connectionLost(self, reason: Failure) -> None:
        if not self.finished:
            self.channel.site.log(self)
        # First `notifyFinish` fires (Klein cancels the handler), then the reader of the body fails.
        super().connectionLost(reason)
        self.producer = None  # breaks a reference cycle that includes the data being sent
        if self.body is not None:
            self.body.fail(ConnectionLost("the client disconnected before the end of its content"))
            if not self.body.outlives_connection:
                self.body.discard()

    def _end_unread_response(self) -> None:
        """End a response that cannot be sent, if its handler did not finish it within one turn."""
        if not (self.finished or self._disconnected):
            self.channel.closing.abort()

    def _render_soon(self) -> None:
        if not self._is_render_scheduled:
            self._is_render_scheduled = True
            # Not now: the channel has yet to change from lines to content.
            self.channel.render_soon(self._render_now)

    def _render_now(self) -> None:
        if not self._disconnected:
            super().requestReceived(self.method, self.uri, self.clientproto)

    def _empty_body(self) -> Body:
        body = Body(0, self.channel.site.body_memory, self.channel)
        body.end()
        return body

    def _resource_streams(self, channel: Any) -> bool:
        """Whether the resource that will render this request provides `IStreamsBody`."""
        self.args = {}
        self.path = self.uri.split(b"?", 1)[0]
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        try:
            resource = channel.site.getResourceFor(self)
        except Exception:  # noqa: BLE001  # a foreign resource, which fails again when rendered
            return False
        return bool(IStreamsBody.providedBy(resource))


class Refusal(NamedTuple):
    """A complete response: its bytes, its status, and the size of its content."""

    data: bytes
    status: int
    content_bytes: int


def last_response(error: MediaError) -> Refusal:
    """Return the JSON response for an error, after which the connection itself closes."""
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

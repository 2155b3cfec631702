"""Server connections: one request after the other, with content that streams.

A connection feeds the content of the request in progress to its body. When a response begins before
all content was read, it behaves as HTTP asks of a server: it sends `100 Continue` only if a handler
reads, it does not reset the connection, and it keeps it if the rest of the content is small.

Twisted has no public way to see a request between its head and its content, so this module uses
private members of `HTTPChannel` (see `twisted_privates`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPullProducer,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers
from zope.interface import implementer

from twistedmedia.errors import GaveWay, MediaError, TooSlow
from twistedmedia.fairness.pace import RECENT_S
from twistedmedia.http.addresses import LOCAL, peer_host, rate_limit_key
from twistedmedia.http.body import Body
from twistedmedia.http.closing import Closing
from twistedmedia.http.heads import Head
from twistedmedia.http.input import Input
from twistedmedia.http.interfaces import Expected, Site
from twistedmedia.http.reading import Reading
from twistedmedia.http.request import SAFE_METHODS, StreamingRequest
from twistedmedia.http.transport import (
    ResponseBuffer,
    progress_of,
    set_tcp_options,
    tcp_socket_of,
    unread_bytes,
)


@implementer(IHalfCloseableProtocol)
class MediaChannel(http.HTTPChannel):
    """One connection. It is the `Flow` of the body of the request in progress.

    A peer that closes its sending side gets the responses to all requests that it sent completely
    (RFC 9112, 9.6). When the connection is lost, one request is still carried out, if it was
    received completely and may change something. The channel drops the response. This is the
    request in progress, or the next one if that ends with the connection. Later requests are
    dropped: a client that pipelines repeats requests without a response (9.3.2).
    """

    site: Site
    transport: Any
    callLater: Callable[..., IDelayedCall]  # of the site's reactor
    peer_host = LOCAL  # the address of the peer, if it has one
    input: Input
    reading: Reading
    closing: Closing
    _client_host = LOCAL  # of the latest request
    _local_address: Any
    _networkProducer: Any  # the transport, if it can be paused
    _output: ResponseBuffer
    _is_secure: bool | None = None

    @property
    def plain_socket(self) -> Any | None:
        """The TCP socket, None under TLS, for other sockets, or if the connection is lost."""
        return tcp_socket_of(self.transport) if self.is_plain_tcp and not self.is_lost else None

    @property
    def is_plain_tcp(self) -> bool:
        """Whether the transport is one of TCP, without TLS."""
        return ITCPTransport.providedBy(self.transport) and not self.isSecure()

    @property
    def is_full(self) -> bool:
        """Whether the transport has more to send than the peer takes now."""
        return bool(self._waitingForTransport)

    @property
    def is_idle(self) -> bool:
        """Whether there is no request, nor a part of one."""
        return not (self.requests or self.input.buffer or self.input.is_closed)

    @property
    def is_lost(self) -> bool:
        """Whether the connection was lost. A request may still be carried out."""
        return self.closing.lost is not None

    @property
    def client_key(self) -> str:
        """The client of the latest request, for the queues of the site."""
        return rate_limit_key(self._client_host)

    @property
    def expected(self) -> Expected:
        """What the next received byte belongs to."""
        if self._handlingRequest:
            return Expected.NEXT_REQUEST
        return Expected.HEAD if self.line_mode else Expected.CONTENT

    # Flow, for Body; the last two methods for Admission as well

    def hold(self) -> None:
        if not self.is_lost:  # otherwise all of its input is in the buffer
            self.reading.hold()

    def release(self) -> None:
        self.reading.release()

    def send_continue(self) -> None:
        if self.reading.end_expect():
            self._output.send()
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def turn(self) -> None:
        await self.site.queue.turn(self.client_key)

    def pace(self) -> float | None:
        if self.closing.lingering.elapsed_s >= RECENT_S:  # it has its response
            return 0.0
        return self.site.request_timeouts.pace(self)

    def give_way(self) -> None:
        """End the request whose content is expected, otherwise the connection."""
        if self.site.request_timeouts.awaits_content(self):
            self.site.request_timeouts.settle(self)
            self.break_content(GaveWay())
        elif self.is_full or self.closing.lingering.is_on:
            self.transport.abortConnection()
        else:
            self.loseConnection()

    # Sender, for RequestTimeouts

    @property
    def content_received(self) -> int:
        return self.input.content_received

    def waited_s(self) -> float:
        return self.reading.peer_wait.take_s()

    def was_full(self) -> bool:
        return self.reading.was_full(self.is_full)

    def on_idle_timeout(self) -> None:
        if self._has_unseen_input():
            self.site.request_timeouts.await_request(self)
        elif progress_of(self).lags:  # the peer is still reading the last response
            self.watch_for_stall()
            self.site.request_timeouts.await_request(self)
        else:
            self.loseConnection()

    def on_head_timeout(self) -> None:
        if self._has_unseen_input():
            self.site.request_timeouts.await_head(self)
        elif self.is_full:  # then nothing is read
            self.watch_for_stall()
            self.site.request_timeouts.await_head(self)
        elif self.input.has_begun_head:
            self.closing.refuse(TooSlow("the head of the request"))
        else:
            self.loseConnection()

    def on_content_timeout(self) -> None:
        self.break_content(TooSlow("the content"))

    def _has_unseen_input(self) -> bool:
        """Whether input waits for its turn, or in the kernel because the event loop was busy."""
        return self.input.is_queued or (self.is_idle and unread_bytes(self.transport) > 0)

    # Reading and writing

    def lend_transport(self, producer: IPullProducer) -> None:
        """Make the transport call `producer`, instead of this channel, when it takes more. Nothing
        else may write until `take_back_transport`.
        """
        self._output.send()
        self._networkProducer.unregisterProducer()
        self._networkProducer.registerProducer(producer, False)

    def take_back_transport(self) -> None:
        """End `lend_transport`, after the producer has written everything."""
        self._networkProducer.unregisterProducer()
        self._networkProducer.registerProducer(self, True)
        if self._waitingForTransport:  # since before it was lent
            self.resumeProducing()

    def send_buffered(self) -> None:
        """Write the buffered responses now."""
        self._output.send()

    def watch_for_stall(self) -> None:
        """Cut the connection off if the peer reads nothing for too long. Idempotent."""
        if not self.closing.is_over:
            self.site.stall_detector.watch(self)

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.reading.note_full()
        self.reading.pause_again()
        if self.input.buffer and not (self._handlingRequest or self.input.is_busy):
            self.input.queue()

    def stopProducing(self) -> None:
        """Stop the producer of a response, once."""
        super().stopProducing()
        self.unregisterProducer()

    # Begin and end

    def connectionMade(self) -> None:
        super().connectionMade()
        site = self.site
        self.reading = Reading(self, self._networkProducer)
        self.closing = Closing(self, self._networkProducer, self.reading)
        self.input = Input(self, self.reading, self.closing)
        self._output = ResponseBuffer(self.transport, site.coalescer)
        # Now: a request may begin after the socket is closed, if its head waits for its turn.
        self._local_address = super().getHost()
        plain_socket = self.plain_socket
        if plain_socket is not None:
            set_tcp_options(plain_socket)
        self.peer_host = peer_host(getattr(self.getPeer(), "host", None))
        self._client_host = self.peer_host
        site.request_timeouts.await_head(self)
        site.add(self)

    def readConnectionLost(self) -> None:
        self.closing.half_close()

    def writeConnectionLost(self) -> None:
        """This side has closed its sending side, to linger."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._output.drop()
        self.closing.lose(reason)

    def forget_peer(self, reason: Failure) -> None:
        """After the connection was lost: wait for the peer no longer, and end the request in
        progress, unless it outlives the connection.
        """
        self.reading.end()
        self._waitingForTransport = False
        if self._handlingRequest and self.requests and not self.requests[0].outlives_connection:
            self.drop_requests(reason)
            if self.persistent:  # otherwise the buffer holds no request
                self._handlingRequest = False
                self.setLineMode()
        if self.requests:
            self.persistent = False  # later requests are dropped
            if self._handlingRequest:
                self.input.buffer = b""

    def drop_requests(self, reason: Failure) -> None:
        """End all requests."""
        self.stopProducing()
        try:
            super().connectionLost(reason)
        finally:
            self.requests.clear()  # their bodies refer to this channel

    def loseConnection(self) -> Any:
        if self.is_lost:  # then there is no socket that `progress_of` could use
            return None
        self._output.send()
        self.watch_for_stall()  # it closes when the peer has taken everything
        if not (self.is_plain_tcp or self.closing.is_over):
            self.closing.timeout.begin(self)
        return super().loseConnection()

    # Requests

    def dataReceived(self, data: bytes) -> None:
        refusal = self.closing.refusal
        if refusal is not None and not self.input.is_closed:
            self.closing.refuse(refusal)
        self.input.receive(data)

    def begin_request(self, head: Head) -> None:
        """Begin the request of `head`."""
        self.site.request_timeouts.settle(self)
        if self.is_lost and head.method in SAFE_METHODS:  # its response cannot be sent
            self.input.buffer = b""
            return
        request = self.requestFactory(self)
        self.requests.append(request)
        request.method, request.uri, request.clientproto = head.method, head.target, head.version
        for name, value in head.fields:
            request.requestHeaders.addRawHeader(name, value)
        self._command, self._path, self._version = head.method, head.target, head.version
        self._client_host = self.site.client_host(request)
        self.length = head.length
        if head.length != 0:
            self.input.begin_content(head.length)
        self.persistent = head.persistent and not self.is_lost and not self.site.is_closing
        self.allHeadersReceived()
        if head.length == 0:
            self.allContentReceived()
        else:
            self.site.request_timeouts.await_content(self)
            self.setRawMode()

    def checkPersistence(self, request: StreamingRequest, version: bytes) -> bool:
        return bool(self.persistent)  # it is known from the head

    def _send100Continue(self) -> None:
        self.reading.expect_continue()
        if self.requests[-1].body is None:  # all content is received before the handler runs
            self.send_continue()

    def render_soon(self, step: Callable[[], None]) -> None:
        """Call `step`, which renders the request in progress, in a later turn of the loop."""
        self.site.queue.add(self.client_key, step, is_first=True)

    def new_body(self, length: int | None) -> Body:
        """Return the body of the request whose head was just received."""
        self.input.choose_piece()
        return Body(length, self.site.body_memory, self)

    def break_content(self, error: MediaError) -> None:
        """Fail the content of the request in progress: the rest of it will not arrive."""
        request = self.requests[-1]
        if request.body is None:  # its handler has not run
            self.closing.refuse(error)
        else:  # its handler responds
            self.input.break_framing()
            request.break_content(error)

    def allContentReceived(self) -> None:
        self.site.request_timeouts.settle(self)
        super().allContentReceived()
        if self.closing.lingering.is_on:
            self.closing.lingering.end()
            self._end_request(self.requests[0])

    # Responses

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        lines = [
            b"%b: %b\r\n" % (name, value)
            for name, values in headers.getAllRawHeaders()
            for value in values
        ]
        self._output.begin(b"%b %b %b\r\n%b\r\n" % (version, code, reason, b"".join(lines)))

    def send_head(self) -> None:
        """Send the head of the response, even if no content follows yet."""
        self._output.end_head()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def write(self, data: bytes) -> None:
        # A connection that is not kept may be half-closed in this turn, and would lose the data.
        self._output.write(data, collect=bool(self.persistent and not self.is_full))

    def requestDone(self, request: StreamingRequest) -> None:
        body = request.body
        if body is not None:
            body.discard()
            if not body.is_complete:
                self.site.request_timeouts.settle(self)
                self.closing.linger()
                self.input.choose_piece()
                return
            self.closing.lingering.end()  # which `keep` has begun
        self._end_request(request)

    def _end_request(self, request: StreamingRequest) -> None:
        self.site.stall_detector.forget(self)
        self.release()
        self.input.expect_request()
        if self.persistent:
            self.site.request_timeouts.await_request(self)
        super().requestDone(request)
        self.reading.pause_again()
        if self.input.is_busy:
            return
        if self.input.buffer and self.persistent:
            self.input.queue()
        elif self.closing.is_half_closed:
            self.closing.end_when_done()

    # What requests ask of Twisted's channels

    def getHost(self) -> Any:
        return self._local_address

    def isSecure(self) -> bool:
        if self._is_secure is None:
            self._is_secure = bool(super().isSecure())
        return self._is_secure

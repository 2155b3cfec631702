"""Connections: their requests one after the other, strictly read, patiently waited for.

Feeds the content of the request in progress to its body, and does what HTTP asks of a server that
answers before it has read everything: `100 Continue` only when somebody reads, an early answer
without a reset, a connection that is kept when the rest is small.

Twisted has no public way to see a request between its headers and its content, so this leans on
internals of `HTTPChannel`: `_command`, `_path`, `_version`, `_send100Continue`,
`_handlingRequest`, `_networkProducer`, `_waitingForTransport`, and `_buffer` and `_busyReceiving`
of the `LineReceiver` that it is.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPullProducer,
    ISystemHandle,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers
from zope.interface import implementer

from twistedmedia.answers import error_answer
from twistedmedia.errors import Malformed, MediaError, TooSlow
from twistedmedia.streaming import Body
from twistedmedia.wire.framing import BrokenFraming, Chunked, Counted
from twistedmedia.wire.heads import Head, find_head, parse_head
from twistedmedia.wire.hosts import LOCAL, peer_host
from twistedmedia.wire.lingering import LAST_LINGER_S, LINGER_BYTES, LINGER_S, Lingering
from twistedmedia.wire.outbox import Outgoing
from twistedmedia.wire.readers import progress_of
from twistedmedia.wire.request import PHRASES, SAFE_METHODS, SERVER, StreamingRequest

if TYPE_CHECKING:
    from twistedmedia.wire.site import MediaSite

# What the kernel buffers of an answer beyond what is on its way to the peer. It would take 4 MiB
# from each reader that is slow (tcp(7), TCP_NOTSENT_LOWAT).
UNSENT_BYTES = 256 << 10
# What may wait of requests that come before the answer to the one before them is taken; more stays
# with the kernel, and so with the peer.
LATER_BYTES = 16 << 10
# Heads that one connection may have taken in a turn of the loop: others are to have theirs.
HEADS_A_TURN = 16


@implementer(IHalfCloseableProtocol)
class MediaChannel(http.HTTPChannel):
    """One connection. Feeds the body of the request in progress, and is its `Flow`.

    A peer that closes its sending side gets the responses to all requests that it sent whole (RFC
    9112, 9.6). When the connection is lost, those of them that may change something are still
    carried out: the channel stays, and drops the responses. Requests that only read are passed
    over. One that has content ends this: the requests behind it are dropped.
    """

    site: MediaSite
    transport: Any
    peer_host = LOCAL  # the address of the peer, if it has one
    _networkProducer: Any  # the transport, where it can be paused
    callLater: Callable[..., IDelayedCall]  # the site's reactor's
    content_received = 0  # bytes of all content so far, as they came
    _held = False
    _was_held = False  # since it was asked last
    _expects_continue = False
    _host: Any = None
    _is_secure: bool | None = None
    _has_begun = False  # something of a head has come
    _skipped_line = False  # the empty line that may stand before a request (RFC 9112, 2.2)
    _seen = 0  # bytes of a head that is not complete
    _framing: Counted | Chunked
    _going_on: IDelayedCall | None = None  # with heads that have come, in the next turn
    _is_stemmed = False  # the peer is paused: what it has sent waits for its turn
    _parting: IDelayedCall | None = None
    _broken = False  # the framing of the content is lost: nothing on this connection has meaning
    _refused = False  # what comes is not read any more
    _is_half_closed = False  # nothing more will be received
    _lost: Failure | None = None  # why the connection was lost
    _lingering: Lingering
    _outgoing: Outgoing

    @property
    def plain_socket(self) -> Any | None:
        """The TCP socket to which goes as it is what is written here; None under TLS, or elsewhere
        than on TCP.
        """
        if self._lost is None and self._is_plain_tcp() and ISystemHandle.providedBy(self.transport):
            handle: Any = self.transport.getHandle()
            # Twisted says of a UNIX socket as well that it is TCP.
            if handle.family in (socket.AF_INET, socket.AF_INET6):
                return handle
        return None

    @property
    def is_full(self) -> bool:
        """Whether answers that were written wait for the peer to take more."""
        return bool(self._waitingForTransport)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, and nothing of a request has come."""
        return not (self.requests or self._buffer or self._refused)

    # Flow, for Body

    def hold(self) -> None:
        self._held = self._was_held = True
        self._networkProducer.pauseProducing()

    def release(self) -> None:
        if self._held:
            self._held = False
            self._read_on()

    def send_continue(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            self._was_held = True  # until now it had no reason to send
            self._outgoing.send()
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # Sender, for SlowSenders

    def was_excused(self) -> bool:
        excused = self._was_held or self._expects_continue or self.is_full
        self._was_held = self._held
        return excused

    def is_idle_too_long(self) -> None:
        if progress_of(self).lags:  # it is still taking the last answer
            self.peer_is_slow()
            self.site.senders.await_request(self)
        else:
            self.loseConnection()

    def head_is_late(self) -> None:
        if self.is_full:  # until it takes its answers nothing more of it is read
            self.peer_is_slow()
            self.site.senders.await_head(self)
        elif self._has_begun:
            self.refuse(TooSlow("the head of the request"))
        else:
            self.loseConnection()

    def content_is_late(self) -> None:
        self._break_content(TooSlow("the content"))

    # For those who send answers

    def lend_transport(self, producer: IPullProducer) -> None:
        """Have the transport call `producer`, instead of this channel, when it takes more. Nobody
        else may write until it is taken back.
        """
        self._outgoing.send()
        self._networkProducer.unregisterProducer()
        self._networkProducer.registerProducer(producer, False)

    def take_back_transport(self) -> None:
        """The one whom it was lent to has written everything."""
        self._networkProducer.unregisterProducer()
        self._networkProducer.registerProducer(self, True)
        if self._waitingForTransport:  # since before it was lent
            self.resumeProducing()

    def peer_is_slow(self) -> None:
        """What was written waits for the peer. May be called again."""
        if self in self.site.channels:  # else there is no peer any more
            self.site.slow_readers.watch(self)

    # For the site

    def refuse(self, error: MediaError) -> None:
        """Answer that nothing here is understood, or wanted, and close."""
        self._refused = True
        self._buffer = b""
        self._outgoing.send()
        self.persistent = False
        self.site.senders.settle(self)
        answer = error_answer(error)
        body = answer.body
        lines = [
            f"HTTP/1.1 {answer.status} {PHRASES[answer.status].decode()}",
            *(f"{name}: {value}" for name, value in answer.headers.items()),
            f"Date: {http.datetimeToString().decode()}",
            f"Content-Length: {len(body)}",
        ]
        if "Connection" not in answer.headers:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode() + b"\r\nServer: " + SERVER + b"\r\n\r\n"
        self.transport.write(head + body)
        request = self.requests.pop() if self.requests else None
        if request is not None:  # its resource has not seen it, and will not
            request.content.close()
        self.site.log_refused(self, request, answer.status, len(body))
        self._linger()

    def last_call(self) -> None:
        """The site closes: the request in progress is the last one."""
        self.persistent = False
        self._lingering.shorten(LAST_LINGER_S)

    def cut(self) -> None:
        """End the connection now, and with it the request in progress, also one that is carried out
        after its connection was lost.
        """
        if self._lost is None:
            self.transport.abortConnection()
        else:
            self._vanish(self._lost)

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
        self._lingering = Lingering(self.callLater, self._give_up)
        self._outgoing = Outgoing(self.transport, self.site.outbox)
        self._request_piece = getattr(self.transport, "bufferSize", 1 << 16)
        plain_socket = self.plain_socket
        if plain_socket is not None:
            # The end of an answer must not wait for the peer to acknowledge its beginning.
            plain_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self.peer_host = peer_host(getattr(self.getPeer(), "host", None))
        self.site.senders.await_head(self)
        self.site.welcome(self)

    def readConnectionLost(self) -> None:
        """The peer has closed its sending side, or the connection: only a write would tell."""
        self._is_half_closed = True
        if self._lingering.is_on:
            self._give_up()
        else:
            self._end_when_done()

    def writeConnectionLost(self) -> None:
        """This side has closed its sending side, to linger."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = reason
        self._is_half_closed = True
        # TLS does not report ConnectionAborted when it was aborted.
        is_ended_here = getattr(self.transport, "disconnecting", False)
        if is_ended_here or reason.check(ConnectionAborted):
            self._vanish(reason)
            return
        self._held = self._is_stemmed = self._waitingForTransport = False
        self._lingering.end()
        self.site.slow_readers.forget(self)
        self.site.senders.forget(self)
        if self._handlingRequest and self.requests and not self.requests[0].outlives_connection:
            self._drop_requests(reason)
            if self.persistent:  # else nothing behind it is a request
                self._handlingRequest = False
                self.setLineMode()
        try:
            self._take_what_has_come()
        except BaseException:
            self._vanish(reason)  # else it would stay for ever
            raise

    def _end_when_done(self) -> None:
        """End the connection, of which nothing more will be received, unless a request that was
        received whole is still to be answered or carried out.
        """
        if self._has_whole_request():
            return
        if self._lost is not None:
            self._vanish(self._lost)
        else:
            self._refused = True
            self._buffer = b""
            self.site.senders.settle(self)
            self._drop_requests(connectionDone)
            self.loseConnection()

    def _has_whole_request(self) -> bool:
        if self._handlingRequest and self.requests:
            return True
        # Heads that wait for their turn, or for the peer to take earlier responses.
        return bool(self.line_mode and self._buffer and self._may_not_go_on())

    def _vanish(self, reason: Failure) -> None:
        """Nothing of the connection is left."""
        self.site.forget(self)
        self._lingering.end()
        for call in (self._going_on, self._parting):
            if call is not None and call.active():
                call.cancel()
        self._refused = True
        self._buffer = b""
        try:
            self._drop_requests(reason)
        finally:
            self.site.tell_emptied()

    def _drop_requests(self, reason: Failure) -> None:
        self.stopProducing()
        try:
            super().connectionLost(reason)
        finally:
            self.requests.clear()  # they know it by their bodies

    def loseConnection(self) -> Any:
        if self._lost is not None:  # nor is there a socket that could tell how its peer gets on
            return None
        self._outgoing.send()
        self.peer_is_slow()  # it closes when the peer has taken what was written before
        if not self._is_plain_tcp() and self._parting is None and self in self.site.channels:
            self._parting = self.callLater(LINGER_S, self._part)
        return super().loseConnection()

    def _part(self) -> None:
        """TLS waits for the peer to agree that it ends, which many do not (RFC 8446, 6.1)."""
        if progress_of(self).lags:
            self._parting = self.callLater(LINGER_S, self._part)
        else:
            self.transport.abortConnection()

    # What comes. In place of the base class's way, which reads a head line by line, and more
    # generously; which keeps what comes while a request is handled, as much as ever comes while an
    # answer waits for its reader; and which goes on to the end of what has come, others or no.

    def dataReceived(self, data: bytes) -> None:
        self._lingering.drop(len(data))
        if self._refused or (self._broken and self._lingering.is_on):
            return
        self._buffer += data
        if not self._busyReceiving:
            self._take_what_has_come()
        if len(self._buffer) > LATER_BYTES and self._may_not_go_on():
            self._is_stemmed = True
            self._networkProducer.pauseProducing()

    def _may_not_go_on(self) -> bool:
        """Whether what has come has to wait: for the request in progress, for the peer to take its
        answers, or for other connections.
        """
        return bool(self._handlingRequest or self._waitingForTransport or self._going_on)

    def _take_what_has_come(self) -> None:
        self._busyReceiving = True
        heads = 0
        try:
            while self._buffer and not (self._refused or self._handlingRequest):
                if not self.line_mode:
                    piece, self._buffer = self._buffer, b""
                    self.rawDataReceived(piece)
                elif self._may_not_go_on():
                    break
                elif heads == HEADS_A_TURN:
                    self._going_on = self.callLater(0, self._go_on)
                elif self._take_head():
                    heads += 1
                else:
                    break
        finally:
            self._busyReceiving = False
        if self._refused:
            self._buffer = b""
        if self._is_stemmed and not (len(self._buffer) > LATER_BYTES and self._may_not_go_on()):
            self._is_stemmed = False
            self._read_on()
        if self._is_half_closed:
            self._end_when_done()

    def _go_on(self) -> None:
        self._going_on = None
        self._take_what_has_come()

    def _read_on(self) -> None:
        """Read from the peer, unless there is a reason not to."""
        if not (self._held or self._is_stemmed or self._waitingForTransport):
            self._networkProducer.resumeProducing()

    def _take_head(self) -> bool:
        """Take a head, or an empty line before it, from what has come; whether there was one."""
        if self._buffer.startswith(b"\r") and not self._skipped_line:
            if self._buffer.startswith(b"\r\n"):
                self._skipped_line = True
                self._buffer = self._buffer[2:]
                return True
            if len(self._buffer) == 1:
                return False
        try:
            end = find_head(self._buffer, self._seen)
            if end is not None:
                head = parse_head(self._buffer[:end])
        except MediaError as error:
            self.refuse(error)
            return False
        if end is None:
            self._seen = len(self._buffer)
            if not self._has_begun:
                self._has_begun = True
                self.site.senders.await_head(self)
            return False
        self._buffer = self._buffer[end + 4 :]
        self._seen = 0
        self._has_begun = self._skipped_line = False
        self.site.senders.settle(self)
        self._begin(head)
        return True

    def _begin(self, head: Head) -> None:
        if self._lost is not None and head.method in SAFE_METHODS:  # its response cannot be sent
            if head.length != 0:
                self._buffer = b""
            return
        request = self.requestFactory(self)
        self.requests.append(request)
        request.method, request.uri, request.clientproto = head.method, head.target, head.version
        for name, value in head.fields:
            request.requestHeaders.addRawHeader(name, value)
        self._command, self._path, self._version = head.method, head.target, head.version
        self.length = head.length
        if head.length != 0:
            self._framing = Chunked() if head.length is None else Counted(head.length)
        self.persistent = head.persistent and not self.site.is_closing
        self.allHeadersReceived()
        if head.length == 0:
            self.allContentReceived()
        else:
            self.site.senders.await_content(self)
            self.setRawMode()

    def checkPersistence(self, request: StreamingRequest, version: bytes) -> bool:
        return bool(self.persistent)  # it is known from the head

    def _send100Continue(self) -> None:
        self._expects_continue = True
        if self.requests[-1].body is None:  # nobody will ask for the content: it is received first
            self.send_continue()

    def rawDataReceived(self, data: bytes) -> None:
        self.content_received += len(data)
        self._choose_piece()
        if self._broken:
            return
        request = self.requests[-1]
        try:
            content, rest = self._framing.feed(data)
        except BrokenFraming as error:
            if error.content:
                request.handleContentChunk(error.content)
            received = request.body.received if request.body else 0
            where = f"the chunked coding breaks after {received} bytes of content"
            self._break_content(Malformed(f"{where}: {error}"))
            return
        if content:
            request.handleContentChunk(content)
        if rest is not None:
            self._buffer = rest + self._buffer
            self.allContentReceived()

    def _break_content(self, error: MediaError) -> None:
        """The content of the request in progress will not come to its end."""
        request = self.requests[-1]
        if request.body is None:  # its handler does not know of it yet
            self.refuse(error)
        else:  # its handler answers
            self._broken = True
            request.break_content(error)

    def allContentReceived(self) -> None:
        self.site.senders.settle(self)
        super().allContentReceived()
        if self._lingering.is_on:
            self._lingering.end()
            self._end_request(self.requests[0])

    def stopProducing(self) -> None:
        """Stop the producer of a response, once."""
        super().stopProducing()
        self.unregisterProducer()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self._was_held = True  # nor was anything read while it did not take its answers
        if self._held or self._is_stemmed:  # the base class resumes the peer whatever else is
            self._networkProducer.pauseProducing()
        if self._buffer and not self._busyReceiving:
            self._take_what_has_come()

    def content_begins(self, length: int | None) -> Body:
        """The body of the request whose headers have just come in."""
        self._choose_piece()
        return Body(length, self.site.body_memory, self)

    @property
    def is_lost(self) -> bool:
        """Whether the connection was lost. A request may still be carried out."""
        return self._lost is not None

    def answering(self, body: Body) -> None:
        """An answer is about to be written: decide whether the connection survives it."""
        unasked, self._expects_continue = self._expects_continue, False  # it would come too late
        if body.complete:
            if self._is_half_closed and not self._buffer:
                self.persistent = False  # there will not be another request
            return
        rest = None if body.length is None else body.length - body.received
        if self._broken or unasked or rest is None or rest > LINGER_BYTES:
            self.persistent = False

    def requestDone(self, request: StreamingRequest) -> None:
        body = request.body
        if body is not None:
            body.drop()
            if not body.complete:
                self.site.senders.settle(self)
                self._linger()
                return
        self._end_request(request)

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        lines = [
            b"%b: %b\r\n" % (name, value)
            for name, values in headers.getAllRawHeaders()
            for value in values
        ]
        self._outgoing.begin(b"%b %b %b\r\n%b\r\n" % (version, code, reason, b"".join(lines)))

    def send_head(self) -> None:
        """Whatever comes after it, the head of an answer goes out now."""
        self._outgoing.end_head()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def write(self, data: bytes) -> None:
        # What is not kept may be half closed before the turn ends, and would be lost.
        self._outgoing.write(data, collect=bool(self.persistent and not self.is_full))

    def _choose_piece(self) -> None:
        if self.length is not None:  # a piece of chunked coding can be thousands of chunks
            self.transport.bufferSize = self.site.body_memory.piece

    def _end_request(self, request: StreamingRequest) -> None:
        self.site.slow_readers.forget(self)
        self.release()
        self.transport.bufferSize = self._request_piece
        if self.persistent:
            self.site.senders.await_request(self)
        super().requestDone(request)
        if self._is_stemmed:  # the base class resumes the peer
            self._networkProducer.pauseProducing()
        if (self._buffer or self._is_half_closed) and not self._busyReceiving:
            self._take_what_has_come()

    # Reading on after an early answer

    def _linger(self) -> None:
        if self._is_half_closed:  # there is nothing to drop, and perhaps no socket any more
            self.loseConnection()
            return
        self._lingering.begin(LAST_LINGER_S if self.site.is_closing else LINGER_S)
        self._outgoing.send()
        if self._is_plain_tcp() and not self.persistent:
            self.transport.loseWriteConnection()  # the peer sees the end of the answer now

    def _is_plain_tcp(self) -> bool:
        return ITCPTransport.providedBy(self.transport) and not self.isSecure()

    def _give_up(self) -> None:
        self._lingering.end()
        self._broken = True
        self.loseConnection()

"""Connections: their requests one after the other, strictly read, patiently waited for.

Feeds the content of the request in progress to its body, and does what HTTP asks of a server that
answers before it has read everything: `100 Continue` only when somebody reads, an early answer
without a reset, a connection that is kept when the rest is small.

Twisted has no public way to see a request between its headers and its content, so this leans on
internals of `HTTPChannel`: `_command`, `_path`, `_version`, `_finishRequestBody`,
`_send100Continue`, `_handlingRequest`, `_networkProducer`, `_waitingForTransport`, and `_buffer`
and `_busyReceiving` of the `LineReceiver` that it is; and on `_tempDataBuffer` of the transport.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IPullProducer, ISystemHandle, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers

from twistedmedia.answers import error_answer
from twistedmedia.errors import Malformed, MediaError, TooSlow
from twistedmedia.streaming import Body
from twistedmedia.wire.framing import BrokenFraming, Chunked, Counted
from twistedmedia.wire.heads import Head, find_head, parse_head
from twistedmedia.wire.proxies import LOCAL
from twistedmedia.wire.readers import progress_of
from twistedmedia.wire.request import PHRASES, SERVER, StreamingRequest

if TYPE_CHECKING:
    from twistedmedia.wire.site import MediaSite

# How much unwanted content is read and dropped after an early answer, and for how long. Closing a
# socket with unread data resets it, and the reset can overtake the answer (RFC 9112, 9.6).
LINGER_BYTES = 4 << 20
LINGER_S = 5.0
LAST_LINGER_S = 0.5  # when the site closes
# What the kernel buffers of an answer beyond what is on its way to the peer. It would take 4 MiB
# from each reader that is slow (tcp(7), TCP_NOTSENT_LOWAT).
UNSENT_BYTES = 256 << 10
COLLECTED_BYTES = 64 << 10  # of an answer, until its turn ends


class MediaChannel(http.HTTPChannel):
    """One connection. Feeds the body of the request in progress, and is its `Flow`."""

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
    _broken = False  # the framing of the content is lost: nothing on this connection has meaning
    _refused = False  # what comes is not read any more
    _lingering: IDelayedCall | None = None
    _dropped = 0
    _head = b""  # of an answer, until it goes out with the content that follows
    _outgoing = b""  # of answers, until it goes out with those of other connections

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
            if not self._waitingForTransport:
                self._networkProducer.resumeProducing()

    def send_continue(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            self._was_held = True  # until now it had no reason to send
            self.send_outgoing()
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
        self.send_outgoing()
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
        self.send_outgoing()
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
        if self._lingering is not None:
            self._lingering.reset(self._linger_s)

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
        self.peer_host = str(getattr(self.getPeer(), "host", LOCAL))
        self.site.senders.await_head(self)
        self.site.welcome(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.forget(self)
        self._held = False
        self._stop_lingering()
        try:
            super().connectionLost(reason)  # its requests end
        finally:
            self.requests.clear()  # they know it by their bodies
            self.site.tell_emptied()

    def loseConnection(self) -> Any:
        self.send_outgoing()
        self.peer_is_slow()  # it closes when the peer has taken what was written before
        return super().loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Bytes have come. In place of the base class's, which reads a head line by line, and more
        generously.
        """
        if self._lingering is not None and self._has_dropped_enough(len(data)):
            return
        self._buffer += data
        if self._busyReceiving:
            return
        self._busyReceiving = True
        try:
            while self._buffer and not self._refused:
                if not self.line_mode:
                    piece, self._buffer = self._buffer, b""
                    self.rawDataReceived(piece)
                elif not self._take_head():
                    break
        finally:
            self._busyReceiving = False
        if self._refused:
            self._buffer = b""

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
        if self._handlingRequest:
            super().rawDataReceived(data)  # it belongs to later requests
            return
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
            self._finishRequestBody(rest)

    def _break_content(self, error: MediaError) -> None:
        """The content of the request in progress will not come to its end."""
        body = self.requests[-1].body
        if body is None:  # nobody knows yet of the request
            self.refuse(error)
        else:  # its handler answers
            self._broken = True
            body.fail(error)

    def allContentReceived(self) -> None:
        self.site.senders.settle(self)
        super().allContentReceived()
        if self._lingering is not None:
            self._stop_lingering()
            self._end_request(self.requests[0])

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self._was_held = True  # nor was anything read while it did not take its answers
        if self._held:  # the base class resumes the peer when our own output has drained
            self._networkProducer.pauseProducing()

    def content_begins(self, length: int | None) -> Body:
        """The body of the request whose headers have just come in."""
        self._choose_piece()
        return Body(length, self.site.body_memory, self)

    def answering(self, body: Body) -> None:
        """An answer is about to be written: decide whether the connection survives it."""
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
        self._head = b"%b %b %b\r\n%b\r\n" % (version, code, reason, b"".join(lines))

    def send_head(self) -> None:
        """Whatever comes after it, the head of an answer goes out now."""
        if self._head:
            self.write(b"")

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def write(self, data: bytes) -> None:
        data, self._head = self._head + data, b""
        if not self._may_collect():
            self.send_outgoing()
            self.transport.write(data)
            return
        is_first = not self._outgoing
        self._outgoing += data
        if is_first:
            self.site.outbox.add(self)
        if len(self._outgoing) > COLLECTED_BYTES:
            self.send_outgoing()

    def _may_collect(self) -> bool:
        transport = self.transport
        return bool(
            self.persistent  # else it may be half closed, and would be lost under our feet
            and isinstance(transport, TCPConnection)
            and not (transport.TLS or transport.disconnecting or self._waitingForTransport)
        )

    def send_outgoing(self) -> None:
        """What was collected goes out before anything else does."""
        data, self._outgoing = self._outgoing, b""
        transport = self.transport
        if not (data and transport.connected):
            return
        if not (transport.dataBuffer or transport._tempDataBuffer):
            taken = transport.writeSomeData(data)
            if isinstance(taken, int):  # what fails here fails there again
                data = data[taken:]
        if data:
            transport.write(data)

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

    # Reading on after an early answer

    def _linger(self) -> None:
        self._dropped = 0
        self._lingering = self.callLater(self._linger_s, self._give_up)
        self.send_outgoing()
        if self._is_plain_tcp() and not self.persistent:
            self.transport.loseWriteConnection()  # the peer sees the end of the answer now

    @property
    def _linger_s(self) -> float:
        return LAST_LINGER_S if self.site.is_closing else LINGER_S

    def _has_dropped_enough(self, size: int) -> bool:
        self._dropped += size
        if self._dropped > LINGER_BYTES:
            self._give_up()
        return self._refused or self._broken

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

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

from twistedmedia.errors import GaveWay, Malformed, MediaError, TooSlow
from twistedmedia.fairness.loop_queue import PIECE_BYTES
from twistedmedia.fairness.pace import RECENT_S, PeerWait
from twistedmedia.http.addresses import LOCAL, peer_host, rate_limit_key
from twistedmedia.http.body import Body
from twistedmedia.http.framing import ChunkedDecoder, FramingError, LengthDecoder
from twistedmedia.http.heads import Head, HeadReader
from twistedmedia.http.lingering import (
    LAST_LINGER_S,
    LINGER_BYTES,
    Lingering,
    Parting,
    limit_buffer,
    unread_bytes,
)
from twistedmedia.http.request import SAFE_METHODS, StreamingRequest, last_response
from twistedmedia.http.timeouts import progress_of
from twistedmedia.http.transport import ResponseBuffer, below_tls

if TYPE_CHECKING:
    from twistedmedia.http.site import MediaSite

# What the kernel buffers of an answer beyond what is on its way to the peer. It would take 4 MiB
# from each reader that is slow (tcp(7), TCP_NOTSENT_LOWAT).
UNSENT_BYTES = 256 << 10
# What may wait of requests that come before the answer to the one before them is taken; more stays
# with the kernel, and so with the peer.
LATER_BYTES = 16 << 10
# Read at a time from a peer that sends tiny chunks: what is read waits in memory for its turn.
DENSE_BYTES = 4 << 10
# Turns of the loop without steps from the queue, after a piece was dropped: clients that send
# content that nobody needs get less done.
DROP_TURNS = 3
_SMALL_CHUNKS = "many small chunks come from you; send larger chunks, or fewer requests at a time"


@implementer(IHalfCloseableProtocol)
class MediaChannel(http.HTTPChannel):
    """One connection. Feeds the body of the request in progress, and is its `Flow`.

    A peer that closes its sending side gets the responses to all requests that it sent whole (RFC
    9112, 9.6). When the connection is lost, one request is still carried out, if it was received
    whole and may change something: the channel stays, and drops the response. It is the request in
    progress, or the next one if that ends with the connection. The requests behind it are dropped:
    a client that pipelines repeats what was not answered (9.3.2).
    """

    site: MediaSite
    transport: Any
    peer_host = LOCAL  # the address of the peer, if it has one
    _client_host = LOCAL  # where the latest request comes from
    _networkProducer: Any  # the transport, where it can be paused
    callLater: Callable[..., IDelayedCall]  # the site's reactor's
    content_received = 0  # bytes of all content so far, as they came
    _held = False
    _was_full = False  # since it was asked last
    _expects_continue = False
    _host: Any  # the address that the peer has connected to
    _is_secure: bool | None = None
    _heads: HeadReader
    _framing: LengthDecoder | ChunkedDecoder
    _is_queued = False  # the input goes on when it is this connection's turn
    _is_stemmed = False  # the peer is paused: what it has sent waits for its turn
    _parting: Parting
    _broken = False  # the framing of the content is lost: nothing on this connection has meaning
    _refused = False  # what comes is not read any more
    _turned_away_by: MediaError | None = None  # is to be refused
    _is_half_closed = False  # nothing more will be received
    _lost: Failure | None = None  # why the connection was lost
    _lingering: Lingering
    _outgoing: ResponseBuffer
    _waiting: PeerWait  # of the peer, for us

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

    # Flow, for Body; the last two for Admission as well

    def hold(self) -> None:
        if self._lost is None and not self._held:  # else its input is taken from the buffer
            self._held = True
            self._waiting.begin()
            self._networkProducer.pauseProducing()

    def release(self) -> None:
        if self._held:
            self._held = False
            self._waiting.end()
            self._read_on()

    def send_continue(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            self._waiting.end()  # until now it had no reason to send
            self._outgoing.send()
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def turn(self) -> None:
        await self.site.queue.turn(rate_limit_key(self._client_host))

    def begin_soon(self, step: Callable[[], None]) -> None:
        """Have `step` begin the request in progress, in a later turn of the loop."""
        self.site.queue.add(rate_limit_key(self._client_host), step, is_first=True)

    def pace(self) -> float | None:
        if self._lingering.lasts_s >= RECENT_S:  # it has its response
            return 0.0
        return self.site.senders.pace(self)

    def give_way(self) -> None:
        """Another caller has the place: end the request whose content is to come, or else the
        connection.
        """
        if self.site.senders.awaits_content(self):
            self.site.senders.settle(self)
            self._break_content(GaveWay())
        elif self.is_full or self._lingering.is_on:
            self.transport.abortConnection()
        else:
            self.loseConnection()

    # Sender, for SlowSenders

    def waited_s(self) -> float:
        return self._waiting.take_s()

    def was_full(self) -> bool:
        full = self._was_full or self.is_full
        self._was_full = False
        return full

    def on_idle_timeout(self) -> None:
        if self._has_unseen_input():
            self.site.senders.await_request(self)
        elif progress_of(self).lags:  # it is still taking the last answer
            self.peer_is_slow()
            self.site.senders.await_request(self)
        else:
            self.loseConnection()

    def on_head_timeout(self) -> None:
        if self._has_unseen_input():
            self.site.senders.await_head(self)
        elif self.is_full:  # until it takes its answers nothing more of it is read
            self.peer_is_slow()
            self.site.senders.await_head(self)
        elif self._heads.has_begun:
            self.refuse(TooSlow("the head of the request"))
        else:
            self.loseConnection()

    def content_is_late(self) -> None:
        self._break_content(TooSlow("the content"))

    def _has_unseen_input(self) -> bool:
        """Whether the peer has sent something that waits for its turn, or for a loop that was held
        up.
        """
        return self._is_queued or (self.is_idle and unread_bytes(self.transport) > 0)

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

    def turn_away(self, error: MediaError) -> None:
        """Refuse the connection: under TLS when its first request comes, because what is written
        before the handshake keeps Twisted from reading that.
        """
        if self.isSecure():
            self._turned_away_by = error
        else:
            self.refuse(error)

    def refuse(self, error: MediaError) -> None:
        """Answer that nothing here is understood, or wanted, and close."""
        self._refused = True
        self._buffer = b""
        self._outgoing.send()
        self.persistent = False
        self.site.senders.settle(self)
        response = last_response(error)
        self.transport.write(response.data)
        request = self.requests.pop() if self.requests else None
        if request is not None:  # its resource has not seen it, and will not
            request.content.close()
        self.site.log_refused(self, request, response.status, response.content_bytes)
        self._linger()

    def last_call(self) -> None:
        """The site closes: the request in progress is the last one."""
        self.persistent = False
        self._lingering.shorten(LAST_LINGER_S)
        self._parting.shorten(LAST_LINGER_S)

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
        return self._host

    def isSecure(self) -> bool:
        if self._is_secure is None:
            self._is_secure = bool(super().isSecure())
        return self._is_secure

    def connectionMade(self) -> None:
        super().connectionMade()
        self._heads = HeadReader()
        self._lingering = Lingering(self.site.reactor, self.site.lingerers)
        self._parting = Parting(self.callLater)
        self._outgoing = ResponseBuffer(self.transport, self.site.outbox)
        self._waiting = PeerWait(self.site.reactor.seconds)
        # Now: a head that waits for its turn may begin when there is no socket to ask any more.
        self._host = super().getHost()
        self._request_piece = getattr(self.transport, "bufferSize", 1 << 16)
        plain_socket = self.plain_socket
        if plain_socket is not None:
            # The end of an answer must not wait for the peer to acknowledge its beginning.
            plain_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self.peer_host = peer_host(getattr(self.getPeer(), "host", None))
        self._client_host = self.peer_host
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
        self._outgoing.drop()
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
        if self.requests:
            self.persistent = False  # what is behind it is dropped
            if self._handlingRequest:
                self._buffer = b""
        try:
            if not self._is_queued:
                self._take_what_has_come()
            elif self.requests and not self.requests[0].may_outlive_connection:
                self._vanish(reason)  # the rest of its content is of no use
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
        # The buffer may hold one: it waits for its turn, or for the peer to take earlier responses.
        waits_for_peer = self.line_mode and self._waitingForTransport
        return bool(self._buffer and (self._is_queued or waits_for_peer))

    def _vanish(self, reason: Failure) -> None:
        """Nothing of the connection is left."""
        self.site.forget(self)
        self._networkProducer.unregisterProducer()  # TLS would still refer to this channel
        self._lingering.end()
        self._parting.end()
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
        if not self._is_plain_tcp() and self in self.site.channels:
            self._parting.begin(self)
        return super().loseConnection()

    # What comes. In place of the base class's way, which reads a head line by line, and more
    # generously; which keeps what comes while a request is handled, as much as ever comes while an
    # answer waits for its reader; and which goes on to the end of what has come, others or no.

    def dataReceived(self, data: bytes) -> None:
        if self._turned_away_by is not None and not self._refused:
            self.refuse(self._turned_away_by)
        if self._refused or (self._broken and self._lingering.is_on):
            self._drop(len(data))
            return
        self._buffer += data
        if not (self._busyReceiving or self._is_queued):
            if not (self.line_mode or self._handlingRequest or self._framing.is_dense):
                self._take_what_has_come()  # which takes next to no time
            elif self.site.queue.has_time:
                self.site.queue.do(self._take_what_has_come)
            else:
                self._queue(is_first=bool(self.line_mode))
        if self._has_enough():
            self._is_stemmed = True
            self._networkProducer.pauseProducing()

    def _drop(self, size: int) -> None:
        """Drop what has come, and read on when it is this client's turn."""
        self._lingering.drop(size)
        if not self._lingering.is_on or self._lingering.waits:
            return
        # TLS hands over 16 KiB at a time.
        if size >= PIECE_BYTES or size + unread_bytes(self.transport) >= PIECE_BYTES:
            self._linger_long()
        if not self._lingering.waits:
            self._lingering.wait()
            self.site.dropping.add(rate_limit_key(self._client_host), self._drop_more)
        self._networkProducer.pauseProducing()

    def _drop_more(self) -> bool:
        is_connected = self in self.site.channels
        if is_connected:
            self.site.queue.make_room(DROP_TURNS)
            self._linger_on()
        return is_connected

    def _linger_long(self) -> None:
        """There is much to drop: wait if there is of too many connections of the client."""
        # Those that were turned away have a bound of their own.
        if not self.persistent and self.site.has_place(self):
            client = rate_limit_key(self._client_host)
            self._lingering.enter(client, self._linger_on, self._hang_up)

    def _hang_up(self) -> None:
        """Close as soon as the system has taken the response, though the peer may send more."""
        self.peer_is_slow()
        self._networkProducer.unregisterProducer()
        below_tls(self.transport).loseConnection()

    def _linger_on(self) -> None:
        self._lingering.go_on()
        self._read_on()

    def _has_enough(self) -> bool:
        """Whether the peer has to wait, since what it has sent waits."""
        if self._is_queued and not (self.line_mode or self._handlingRequest):
            return True
        waits = self._handlingRequest or self._waitingForTransport or self._is_queued
        return bool(waits and len(self._buffer) > LATER_BYTES)

    def _take_what_has_come(self) -> None:
        """Take one step of the input: one head, and content for about as long. The rest waits in
        the site's queue.
        """
        self._busyReceiving = True
        has_head = False
        try:
            while self._buffer and not (self._refused or self._handlingRequest or self._is_queued):
                if not self.line_mode:
                    if has_head and self._framing.is_dense and len(self._buffer) > DENSE_BYTES:
                        self._queue()
                    else:
                        self._take_content()
                elif self._waitingForTransport:
                    break
                elif has_head:
                    self._queue()
                elif self._take_head():
                    has_head = True
                else:
                    break
        finally:
            self._busyReceiving = False
        if self._refused:
            self._buffer = b""
        if self._is_stemmed and not self._has_enough():
            self._is_stemmed = False
            self._read_on()
        if self._is_half_closed:
            self._end_when_done()

    def _queue(self, *, is_first: bool = False) -> None:
        """Go on with the input when it is this client's turn."""
        if not self._is_queued:
            self._is_queued = True
            self._waiting.begin()
            client = self._client_host
            if self.line_mode:  # behind a proxy the next request may be another client's
                client = self.site.client_of_head(self.peer_host, self._buffer)
            self.site.queue.add(rate_limit_key(client), self._go_on, is_first=is_first)

    def _go_on(self) -> None:
        self._is_queued = False
        self._waiting.end()
        if self in self.site.channels:
            try:
                self._take_what_has_come()
            except BaseException:
                self.cut()  # else it would stay for ever
                raise

    def _read_on(self) -> None:
        """Read from the peer, unless there is a reason not to."""
        if not (self._pauses_peer or self._waitingForTransport):
            self._networkProducer.resumeProducing()

    @property
    def _pauses_peer(self) -> bool:
        """Whether nothing is to be read now. The base class resumes the peer whatever is."""
        return self._held or self._is_stemmed or self._lingering.waits

    def _take_head(self) -> bool:
        """Take a head, or an empty line before it, from what has come; whether there was one."""
        had_begun = self._heads.has_begun
        try:
            head, self._buffer = self._heads.take(self._buffer)
        except MediaError as error:
            self.refuse(error)
            return False
        if head is None:
            if self._heads.has_begun and not had_begun:
                self.site.senders.await_head(self)
            return False
        self.site.senders.settle(self)
        self._begin(head)
        return True

    def _begin(self, head: Head) -> None:
        if self._lost is not None and head.method in SAFE_METHODS:  # its response cannot be sent
            self._buffer = b""
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
            now_s = self.site.reactor.seconds
            length = head.length
            self._framing = (
                ChunkedDecoder(now_s) if length is None else LengthDecoder(length, now_s)
            )
        self.persistent = head.persistent and self._lost is None and not self.site.is_closing
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
        self._waiting.begin()
        if self.requests[-1].body is None:  # nobody will ask for the content: it is received first
            self.send_continue()

    def _take_content(self) -> None:
        """Take content of the request in progress, as much as one step does."""
        data, self._buffer = self._buffer, b""
        if self._broken:
            return
        request = self.requests[-1]
        try:
            content, size, is_end = self._framing.feed(data)
        except FramingError as error:
            self._lingering.drop(len(data))
            if error.content:
                request.handleContentChunk(error.content)
            received = request.body.received if request.body else 0
            where = f"{self._framing.description} was rejected after {received} bytes"
            self._break_content(Malformed(f"{where}: {error}"))
            return
        self.content_received += size
        self._buffer = data[size:]
        if self._lingering.is_on and self._framing.is_dense and not self.persistent:
            self._broken = True  # to find the end of the content is not worth its cost
        self._choose_piece()
        if content:
            request.handleContentChunk(content)
        if is_end:
            self.allContentReceived()
            return
        if (
            self._framing.is_flood
            and not self._broken
            and self.site.queue.is_crowded_by(rate_limit_key(self._client_host))
        ):
            self._break_content(GaveWay(_SMALL_CHUNKS))
        self._drop(size)
        if self._buffer:
            self._queue()

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
        self._was_full = True  # nothing was read while it did not take its answers
        if self._pauses_peer:
            self._networkProducer.pauseProducing()
        if self._buffer and not (self._handlingRequest or self._busyReceiving):
            self._queue()

    def content_begins(self, length: int | None) -> Body:
        """The body of the request whose headers have just come in."""
        self._choose_piece()
        return Body(length, self.site.body_memory, self)

    @property
    def is_lost(self) -> bool:
        """Whether the connection was lost. A request may still be carried out."""
        return self._lost is not None

    @property
    def is_half_closed(self) -> bool:
        """Whether nothing more will be received: the peer may still read, or be gone."""
        return self._is_half_closed

    def answering(self, body: Body) -> None:
        """An answer is about to be written: decide whether the connection survives it."""
        unasked, self._expects_continue = self._expects_continue, False  # it would come too late
        if unasked:
            self._waiting.end()
        if body.is_complete:
            if self._is_half_closed and not self._buffer:
                self.persistent = False  # there will not be another request
            return
        rest = LINGER_BYTES + 1 if body.length is None else body.length - body.received
        if self._broken or unasked or rest > LINGER_BYTES:
            self.persistent = False
        elif rest > PIECE_BYTES and self.persistent:
            self.persistent = self._lingering.keep(rate_limit_key(self._client_host))

    def requestDone(self, request: StreamingRequest) -> None:
        body = request.body
        if body is not None:
            body.discard()
            if not body.is_complete:
                self.site.senders.settle(self)
                self._linger()
                self._choose_piece()
                return
            self._lingering.end()  # which it was kept for
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
        if self.length is None and self._framing.is_dense and not self._broken:
            piece = DENSE_BYTES  # a piece of chunked coding can be thousands of chunks
        elif self._lingering.is_on:
            piece = PIECE_BYTES
        elif self.length is None:
            piece = self._request_piece
        else:
            piece = self.site.body_memory.piece
        self.transport.bufferSize = piece

    def _end_request(self, request: StreamingRequest) -> None:
        self.site.slow_readers.forget(self)
        self.release()
        self.transport.bufferSize = self._request_piece
        if self.persistent:
            self.site.senders.await_request(self)
        super().requestDone(request)
        if self._pauses_peer:
            self._networkProducer.pauseProducing()
        if self._busyReceiving:
            return
        if self._buffer and self.persistent:
            self._queue()
        elif self._is_half_closed:
            self._end_when_done()

    # Reading on after an early answer

    def _linger(self) -> None:
        if self._is_half_closed:  # there is nothing to drop, and perhaps no socket any more
            (self.loseConnection if self._lost is None else self.cut)()
            return
        self._lingering.begin(self._give_up)
        self._outgoing.send()
        if not self.persistent:
            limit_buffer(self.transport)
            if self._is_plain_tcp():
                self.transport.loseWriteConnection()  # the peer sees the end of the answer now
            if unread_bytes(self.transport) >= PIECE_BYTES:
                self._linger_long()
                if self._lingering.waits:
                    self._networkProducer.pauseProducing()
        if self.site.is_closing:
            self._lingering.shorten(LAST_LINGER_S)

    def _is_plain_tcp(self) -> bool:
        return ITCPTransport.providedBy(self.transport) and not self.isSecure()

    def _give_up(self) -> None:
        self._lingering.end()
        self._broken = True
        if self.persistent and not self._is_half_closed:
            # The response said that the connection stays, so this must be said as well.
            self.requests.clear()
            self.refuse(TooSlow("the content"))
            self._lingering.shorten(LAST_LINGER_S)  # it has had its time
        else:
            self.loseConnection()

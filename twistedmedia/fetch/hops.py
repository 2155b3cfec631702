"""One request to one upstream, as it goes: when its phases were over, and on which connection.

A fetch is a hop, and another for each redirect. `Connection` stands between the socket and
Twisted's HTTP client, which counts no headers, knows no times, and forgets how a connection ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHandshakeListener
from twisted.internet.tcp import Connection as TCPConnection
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedmedia.fairness.loop_queue import TURN_OF_FEW_S, LoopQueue
from twistedmedia.http.heads import ResponseHeads

_LITTLE_BYTES = 4 << 10
# What takes long to parse is passed on in steps, each of which takes up to a millisecond. A usual
# head is one step. Dense chunked coding has more lines than _DENSE_LINES in one piece, or one for
# each _LINE_BYTES. Each piece has a price, so one that is smaller than a step is a step as well.
_HEAD_STEP_BYTES = 2 << 10
_STEP_BYTES = 512
_DENSE_LINES = 256
_LINE_BYTES = 64
# First steps run at once for so long in one turn of the loop. To wait costs a turn of the loop:
# with 1,000 users who fetch, less time for them costs a tenth of their rate.
_AT_ONCE_S = 2 * TURN_OF_FEW_S


class Hop:
    """What is known of a request to an upstream. Times are the clock's, None where there was no
    such phase.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        caller: str = "",
        looks_up_for: str = "",
        *,
        anew: bool = False,
    ) -> None:
        """`caller` is the caller of the fetch, in whose turns the response is parsed. The host is
        looked up for `looks_up_for`. `anew` asks for a new connection, instead of one that was
        kept.
        """
        self.clock = clock
        self.caller = caller
        self.looks_up_for = looks_up_for
        self.anew = anew
        self.lookup: float | None = None
        self.connect: float | None = None
        self.tls: float | None = None
        self.first_byte: float | None = None
        self.connection: Connection | None = None
        self.reused = False  # the connection has carried other requests before
        self.head_is_endless = False
        self.given_up = False  # it is we who have closed the connection
        self.ended_cleanly = False  # the peer has closed it as one does
        self._heads = ResponseHeads()

    def abort(self) -> None:
        """Cut the connection, if it is still this request's. Idempotent."""
        connection, self.connection = self.connection, None
        if connection is not None and connection.hop is self:
            connection.abortConnection()

    def note_arrival(self) -> None:
        """Bytes were received."""
        if self.first_byte is None:
            self.first_byte = self.clock()

    @property
    def awaits_head(self) -> bool:
        """Whether the head of the response is not complete."""
        return not self._heads.is_complete

    def takes_long(self, data: bytes) -> bool:
        """Whether `data`, which was received, takes long to parse for its size."""
        return self.awaits_head or len(data) <= _STEP_BYTES or self._is_dense(data)

    def step_of(self, data: bytes) -> int:
        """How many bytes of `data`, which was received, the next step passes on. None are passed on
        if the head of the response is too large.
        """
        if self.awaits_head:
            size = self._heads.feed(data[:_HEAD_STEP_BYTES])
            self.head_is_endless = self._heads.are_too_large
            if self.head_is_endless:
                return 0
            if self.awaits_head:
                return size
            return size if self._is_dense(data, size) else len(data)
        return _STEP_BYTES if self._is_dense(data) else len(data)

    def _is_dense(self, data: bytes, start: int = 0) -> bool:
        """Whether `data` is mostly chunked coding, from `start` on."""
        size = len(data) - start
        return (
            size > _STEP_BYTES
            and self._heads.is_chunked
            and data.count(b"\r\n", start) > min(_DENSE_LINES, size // _LINE_BYTES)
        )


@implementer(IHandshakeListener)
class Connection(ProtocolWrapper):
    """A connection to an upstream, below HTTP and above TLS. `hop` is the request it carries.
    `factory` has the queue in which it takes the turns of the hop's caller.
    """

    factory: Connecting

    hop: Hop
    transport: Any
    is_aborted = False
    _is_lost = False
    _when_lost: Callable[[], None] | None = None
    _send: Callable[[bytes], int | Exception] | None = None
    _is_paused = False
    _is_queued = False  # the rest of what was received is passed on in its turn
    _is_stemmed = False  # the transport is paused: what was received waits
    _lost: Failure | None = None  # how it ended; what was received before is still passed on
    _receives_less = False
    _unread: list[bytes]

    def makeConnection(self, transport: Any) -> None:
        """TCP has connected; with TLS the handshake follows."""
        self.hop.connect = self.hop.clock()
        self._unread = []
        if isinstance(transport, TCPConnection) and not transport.TLS:
            self._send = transport.writeSomeData
        super().makeConnection(transport)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send a request now, where the socket takes it: everything else that this turn of the loop
        has to do is time in which the upstream can work. The one before has gone: it was answered.
        """
        request = b"".join(iovec)
        sent = 0 if self._send is None else self._send(request)
        if sent != len(request):
            self.transport.write(request[sent:] if isinstance(sent, int) else request)

    def loseConnection(self) -> None:
        """Close it. Nothing is left to be sent; TLS would wait for the peer to agree, for ever."""
        self.hop.given_up = True
        self._unread.clear()
        if self._send is None:
            self.abortConnection()
        elif not self._is_lost:
            super().loseConnection()

    def abortConnection(self) -> None:
        """Cut it. Idempotent."""
        self.is_aborted = True
        if not self._is_lost:
            self.transport.abortConnection()

    @property
    def is_behind(self) -> bool:
        """Whether more was received than was passed on."""
        return bool(self._unread)

    def rest(self, when_lost: Callable[[], None]) -> None:
        """No request is next for now. `when_lost` is called if it is lost before one is."""
        self._when_lost = when_lost

    def carry(self, hop: Hop) -> None:
        """The request of `hop` is next."""
        self.hop = hop
        self._when_lost = None
        if self._receives_less:
            self._receives_less = False
            self._socket.bufferSize = type(self._socket).bufferSize

    def receive_less(self) -> None:
        """Take less at a time, for this request: each turn of the loop is to be a short one."""
        self._receives_less = True
        self._socket.bufferSize = _LITTLE_BYTES

    @property
    def _socket(self) -> Any:
        return getattr(self.transport, "transport", self.transport)  # under TLS it is below

    def handshakeCompleted(self) -> None:
        """TLS is set up."""
        self.hop.tls = self.hop.clock()

    def dataReceived(self, data: bytes) -> None:
        """Pass it on: at once if it is plain content in a large piece, which takes next to no time,
        and else in steps.
        """
        self.hop.note_arrival()
        self._unread.append(data)
        if self._is_paused or self._is_queued:
            self._is_stemmed = True
            self.transport.pauseProducing()
        elif self._when_lost is not None or not self.hop.takes_long(data):
            self._pass_on()
        else:
            self._begin_step()

    def pauseProducing(self) -> None:
        """Pass nothing on. The socket is told when something comes: Twisted pauses for a moment at
        the end of each head, and most content is there by then.
        """
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Pass on what comes, and what has come."""
        self._is_paused = False
        if self._unread and not self._is_queued:
            self._begin_step()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Pass on what has come before, and remember how it ended: of a response without a length
        Twisted does not tell that.
        """
        self.hop.ended_cleanly = reason.check(ConnectionDone) is not None
        self._is_lost = True
        self._lost = reason
        if self.is_aborted or not self._is_queued:
            self._pass_on()

    def _begin_step(self) -> None:
        """Pass on the first step of what was received, now or when it is the caller's turn."""
        if self.factory.queue.has_time_within(_AT_ONCE_S):
            self.factory.queue.do(self._pass_on)
        else:
            self._queue()

    def _queue(self) -> None:
        self._is_queued = True
        self.factory.queue.add(self.hop.caller, self._go_on)

    def _go_on(self) -> None:
        if self._is_queued:
            self._is_queued = False
            if self._lost is not None or not self._is_paused:
                self._pass_on()

    def _pass_on(self) -> None:
        """Pass on one step of what was received. The rest is queued."""
        self._is_queued = False
        if self.is_aborted:
            self._unread.clear()
        data = b"".join(self._unread)
        self._unread.clear()
        size = self.hop.step_of(data)
        if self.hop.head_is_endless:
            self.abortConnection()
        elif size < len(data):
            self._unread.append(data[size:])
            self._queue()
        elif self._is_stemmed and self._lost is None:
            self._is_stemmed = False
            self.transport.resumeProducing()
        if size:
            self.wrappedProtocol.dataReceived(data[:size])
        if self._lost is not None and not self._is_queued:
            self._end(self._lost)

    def _end(self, reason: Failure) -> None:
        """Everything was passed on, and the connection is lost."""
        if self.hop.connection is self:
            self.hop.connection = None
        super().connectionLost(reason)
        if self._when_lost is not None:
            self._when_lost()


class Connecting(WrappingFactory[Connection]):
    """Makes the one connection that `hop` needs, with what `factory` makes inside."""

    noisy = False

    def __init__(self, factory: Any, hop: Hop, queue: LoopQueue) -> None:
        super().__init__(factory)
        self.queue = queue
        factory.noisy = False  # else two lines in the log for each connection
        self._hop = hop

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        """The connection has been made."""
        connection = Connection(self, self.wrappedFactory.buildProtocol(addr))
        connection.hop = self._hop
        return connection

"""One request to an upstream, and the connection that carries it.

A fetch makes one hop, and another for each redirect. `Connection` stands between the socket and
Twisted's HTTP client, which does not limit heads, measure times, or say how a connection ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHandshakeListener
from twisted.internet.tcp import Connection as TCPConnection
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedmedia.fairness.loop_queue import TURN_OF_FEW_S, LoopQueue
from twistedmedia.http.heads import ResponseHeads

_SMALL_READ_BYTES = 4 << 10
# Bytes that are slow to parse are passed on in steps of up to a millisecond. A usual head is one
# step. Content is slow to parse if it is dense chunked coding: one piece has more than _DENSE_LINES
# lines, or a line for every _LINE_BYTES. Each piece has a cost, so one below _STEP_BYTES is a step.
_HEAD_STEP_BYTES = 2 << 10
_STEP_BYTES = 512
_DENSE_LINES = 256
_LINE_BYTES = 64
# First steps run without waiting for this long in one turn of the loop. Waiting costs a turn: with
# 1,000 users that fetch, a smaller value costs a tenth of their rate.
_FIRST_STEPS_S = 2 * TURN_OF_FEW_S


class Phase(Enum):
    """The phases of a hop, in their order."""

    LOOKUP = auto()
    CONNECT = auto()
    TLS = auto()
    FIRST_BYTE = auto()


class ConnectionEnd(Enum):
    """How the connection of a hop ended."""

    OPEN = auto()  # it has not ended
    CLOSED_BY_US = auto()
    CLOSED_BY_PEER = auto()  # cleanly
    BROKEN = auto()  # by an error, or aborted by us


class Hop:
    """The state of one request to an upstream. `phase_ends` says when each phase ended, by `clock`;
    a phase that did not take place is missing.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        caller: str = "",
        lookup_caller: str = "",
        *,
        new_connection: bool = False,
    ) -> None:
        """The response is parsed in the turns of `caller`. The host is looked up for
        `lookup_caller`. `new_connection` rules out an idle connection.
        """
        self.clock = clock
        self.caller = caller
        self.lookup_caller = lookup_caller
        self.new_connection = new_connection
        self.phase_ends: dict[Phase, float] = {}
        self.connection: Connection | None = None
        self.is_reused = False  # the connection carried other requests before
        self.is_head_too_large = False
        self.connection_end = ConnectionEnd.OPEN
        self._heads = ResponseHeads()

    def end_phase(self, phase: Phase) -> None:
        """The phase ends now, unless it has ended before."""
        if phase not in self.phase_ends:
            self.phase_ends[phase] = self.clock()

    def abort(self) -> None:
        """Abort the connection, if it still carries this request. Idempotent."""
        connection, self.connection = self.connection, None
        if connection is not None and connection.hop is self:
            connection.abortConnection()

    @property
    def has_response(self) -> bool:
        """Whether any bytes of a response were received."""
        return Phase.FIRST_BYTE in self.phase_ends

    @property
    def awaits_head(self) -> bool:
        """Whether the head of the response is incomplete."""
        return not self._heads.is_complete

    def is_slow_to_parse(self, data: bytes) -> bool:
        """Whether parsing `data`, the received bytes, takes long for their size."""
        return self.awaits_head or len(data) <= _STEP_BYTES or self._is_dense(data)

    def step_bytes(self, data: bytes) -> int:
        """Returns how many bytes of `data`, the received bytes, the next step passes on; 0 if the
        head of the response is too large. Must be called once for each step.
        """
        if self.awaits_head:
            size = self._heads.feed(data[:_HEAD_STEP_BYTES])
            self.is_head_too_large = self._heads.are_too_large
            if self.is_head_too_large:
                return 0
            if self.awaits_head:
                return size
            return size if self._is_dense(data, size) else len(data)
        return _STEP_BYTES if self._is_dense(data) else len(data)

    def _is_dense(self, data: bytes, start: int = 0) -> bool:
        """Whether `data`, from `start` on, is mostly the framing of chunked coding."""
        size = len(data) - start
        return (
            size > _STEP_BYTES
            and self._heads.is_chunked
            and data.count(b"\r\n", start) > min(_DENSE_LINES, size // _LINE_BYTES)
        )


class _Hold(Enum):
    """Why received bytes are not passed on."""

    READER = auto()  # the HTTP client has paused
    TURN = auto()  # the next step waits for its turn in the queue


@implementer(IHandshakeListener)
class Connection(ProtocolWrapper):
    """A connection to an upstream, below HTTP and above TLS. `hop` is the request that it carries.
    The queue of `factory` gives it the turns of the hop's caller.
    """

    factory: ConnectionFactory

    hop: Hop
    transport: Any
    is_aborted = False
    _on_lost_idle: Callable[[], None] | None = None  # set while it is idle
    _lost: Failure | None = None  # bytes that were received before are still passed on
    _is_transport_paused = False
    _reads_are_small = False
    _holds: set[_Hold]
    _unread: list[bytes]

    def makeConnection(self, transport: Any) -> None:
        """TCP is connected. With TLS, the handshake follows."""
        self.hop.end_phase(Phase.CONNECT)
        self._holds = set()
        self._unread = []
        super().makeConnection(transport)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send a request without waiting for the next turn of the loop, as far as the socket takes
        it: the upstream can work in the meantime. Nothing older waits to be sent, because the
        request before was answered.
        """
        request = b"".join(iovec)
        sent = self.transport.writeSomeData(request) if self._is_plain_tcp else 0
        if sent != len(request):  # an exception stands for an error of the socket
            self.transport.write(request[sent:] if isinstance(sent, int) else request)

    def loseConnection(self) -> None:
        """Close it. Nothing is left to be sent. With TLS it is aborted, since closing would wait
        without limit for the peer to agree.
        """
        if self._lost is None:
            self.hop.connection_end = ConnectionEnd.CLOSED_BY_US
        self._unread.clear()
        if not self._is_plain_tcp:
            self.abortConnection()
        elif self._lost is None:
            super().loseConnection()

    def abortConnection(self) -> None:
        """Abort it. Idempotent."""
        self.is_aborted = True
        if self._lost is None:
            self.transport.abortConnection()

    @property
    def has_unread(self) -> bool:
        """Whether received bytes wait to be passed on."""
        return bool(self._unread)

    def set_idle(self, on_lost: Callable[[], None]) -> None:
        """It carries no request for now. `on_lost` is called if it is lost before the next one."""
        self._on_lost_idle = on_lost

    def carry(self, hop: Hop) -> None:
        """Carry the request of `hop` next."""
        self.hop = hop
        self._on_lost_idle = None
        if self._reads_are_small:
            self._reads_are_small = False
            self._socket.bufferSize = type(self._socket).bufferSize

    def read_less(self) -> None:
        """Receive less at a time, during this request, to keep each turn of the loop short."""
        self._reads_are_small = True
        self._socket.bufferSize = _SMALL_READ_BYTES

    @property
    def _socket(self) -> Any:
        return getattr(self.transport, "transport", self.transport)  # TLS wraps it

    @property
    def _is_plain_tcp(self) -> bool:
        return isinstance(self.transport, TCPConnection) and not self.transport.TLS

    def handshakeCompleted(self) -> None:
        """TLS is established."""
        self.hop.end_phase(Phase.TLS)

    def dataReceived(self, data: bytes) -> None:
        """Pass `data` on: in steps if it is slow to parse, else at once."""
        self.hop.end_phase(Phase.FIRST_BYTE)
        self._unread.append(data)
        if self._holds:
            self._is_transport_paused = True
            self.transport.pauseProducing()
        elif self._on_lost_idle is not None or not self.hop.is_slow_to_parse(data):
            self._pass_on()
        else:
            self._begin_step()

    def pauseProducing(self) -> None:
        """Pass nothing on. The transport is paused only when more is received: Twisted pauses for a
        moment at the end of each head, and most content has been received by then.
        """
        self._holds.add(_Hold.READER)

    def resumeProducing(self) -> None:
        """Pass on the bytes that wait, and later ones."""
        self._holds.discard(_Hold.READER)
        if self._unread and not self._holds:
            self._begin_step()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Pass on the bytes that wait, and keep `reason`: Twisted does not tell how a response
        without a length ended.
        """
        if self.hop.connection_end is ConnectionEnd.OPEN:
            is_clean = reason.check(ConnectionDone) is not None
            end = ConnectionEnd.CLOSED_BY_PEER if is_clean else ConnectionEnd.BROKEN
            self.hop.connection_end = end
        self._lost = reason
        if self.is_aborted or _Hold.TURN not in self._holds:
            self._pass_on()

    def _begin_step(self) -> None:
        """Run the first step, now or when it is the caller's turn."""
        if self.factory.queue.has_time_within(_FIRST_STEPS_S):
            self.factory.queue.do(self._pass_on)
        else:
            self._queue_step()

    def _queue_step(self) -> None:
        self._holds.add(_Hold.TURN)
        self.factory.queue.add(self.hop.caller, self._on_turn)

    def _on_turn(self) -> None:
        if _Hold.TURN in self._holds:
            self._holds.discard(_Hold.TURN)
            if self._lost is not None or not self._holds:
                self._pass_on()

    def _pass_on(self) -> None:
        """Run one step: pass on some of the bytes that wait, and queue the rest."""
        self._holds.discard(_Hold.TURN)
        if self.is_aborted:
            self._unread.clear()
        data = b"".join(self._unread)
        self._unread.clear()
        size = self.hop.step_bytes(data)
        if self.hop.is_head_too_large:
            self.abortConnection()
        elif size < len(data):
            self._unread.append(data[size:])
            self._queue_step()
        elif self._is_transport_paused and self._lost is None:
            self._is_transport_paused = False
            self.transport.resumeProducing()
        if size:
            self.wrappedProtocol.dataReceived(data[:size])
        if self._lost is not None and _Hold.TURN not in self._holds:
            self._end(self._lost)

    def _end(self, reason: Failure) -> None:
        """The connection is lost, and everything was passed on."""
        if self.hop.connection is self:
            self.hop.connection = None
        super().connectionLost(reason)
        if self._on_lost_idle is not None:
            self._on_lost_idle()


class ConnectionFactory(WrappingFactory[Connection]):
    """Makes the one connection that `hop` needs. `factory` makes the HTTP client inside."""

    noisy = False

    def __init__(self, factory: Any, hop: Hop, queue: LoopQueue) -> None:
        super().__init__(factory)
        self.queue = queue
        factory.noisy = False  # else two lines in the log for each connection
        self._hop = hop

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        """Called when TCP is connected."""
        connection = Connection(self, self.wrappedFactory.buildProtocol(addr))
        connection.hop = self._hop
        return connection

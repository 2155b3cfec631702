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

# Status line and headers, of all responses that precede the final one as well.
MAX_HEAD_BYTES = 64 << 10
_LITTLE_BYTES = 4 << 10
MAX_INTERIM = 16  # responses before the final one (RFC 9110, 15.2); Twisted logs each of them


class _Heads:
    """Measures the head of a response, and those of interim ones before it, as Twisted will read
    them, before it does.
    """

    def __init__(self) -> None:
        self.interim = 0
        self.is_complete = False  # the final one
        self._size = 0
        self._line: list[bytes] = []  # in pieces, until its end has come
        self._line_bytes = 0
        self._status = b""

    def feed(self, data: bytes) -> None:
        """More bytes have come."""
        self._line.append(data)
        self._line_bytes += len(data)
        if b"\n" not in data:
            return
        *lines, rest = b"".join(self._line).split(b"\n")
        self._line, self._line_bytes = [rest], len(rest)
        for line in lines:
            self._size += len(line) + 1
            line = line.removesuffix(b"\r")
            if not self._status:
                self._status = line or b"none"
            elif not line:
                if not 100 <= _code(self._status) < 200:
                    self.is_complete = True
                    self._line, self._line_bytes = [], 0  # and all that follows is content
                    return
                self.interim += 1
                self._status = b""

    @property
    def are_too_large(self) -> bool:
        """Whether there is more of them than may be."""
        return self._size + self._line_bytes > MAX_HEAD_BYTES or self.interim > MAX_INTERIM


def _code(status: bytes) -> int:
    try:
        return int(status.split(b" ", 2)[1])
    except (IndexError, ValueError):
        return 0


class Hop:
    """What is known of a request to an upstream. Times are the clock's, None where there was no
    such phase.
    """

    def __init__(self, clock: Callable[[], float], *, anew: bool = False) -> None:
        """`anew` asks for a new connection, instead of one that was kept."""
        self.clock = clock
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
        self._heads = _Heads()

    def abort(self) -> None:
        """Cut the connection, if it is still this request's. Idempotent."""
        connection, self.connection = self.connection, None
        if connection is not None and connection.hop is self:
            connection.abortConnection()

    def received(self, data: bytes) -> bool:
        """Bytes have come; whether they may be looked at."""
        if self.first_byte is None:
            self.first_byte = self.clock()
        if not self._heads.is_complete:
            self._heads.feed(data)
            self.head_is_endless = self._heads.are_too_large
        return not self.head_is_endless


@implementer(IHandshakeListener)
class Connection(ProtocolWrapper):
    """A connection to an upstream, below HTTP and above TLS. `hop` is the request it carries."""

    hop: Hop
    transport: Any
    is_aborted = False
    _is_lost = False
    _when_lost: Callable[[], None] | None = None
    _send: Callable[[bytes], int | Exception] | None = None
    _is_paused = False
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
        if self._send is None:
            self.abortConnection()
        elif not self._is_lost:
            super().loseConnection()

    def abortConnection(self) -> None:
        """Cut it. Idempotent."""
        self.is_aborted = True
        if not self._is_lost:
            self.transport.abortConnection()

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
        """Pass it on, unless the head of the response does not end."""
        if not self.hop.received(data):
            self.abortConnection()
        elif self._is_paused:
            self._unread.append(data)
            self.transport.pauseProducing()
        else:
            self.wrappedProtocol.dataReceived(data)

    def pauseProducing(self) -> None:
        """Pass nothing on. The socket is told when something comes: Twisted pauses for a moment at
        the end of each head, and most content is there by then.
        """
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Pass on what comes, and what has come."""
        self._is_paused = False
        if self._unread:
            data = b"".join(self._unread)
            self._unread.clear()
            self.transport.resumeProducing()
            self.wrappedProtocol.dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Pass on what has come before, and remember how it ended: of a response without a length
        Twisted does not tell that.
        """
        hop = self.hop
        if hop.connection is self:
            hop.connection = None
        hop.ended_cleanly = reason.check(ConnectionDone) is not None
        self._is_lost = True
        unread, self._unread = self._unread, []
        if unread and not self.is_aborted:
            self.wrappedProtocol.dataReceived(b"".join(unread))
        super().connectionLost(reason)
        if self._when_lost is not None:
            self._when_lost()


class Connecting(WrappingFactory[Connection]):
    """Makes the one connection that `hop` needs, with what `factory` makes inside."""

    noisy = False

    def __init__(self, factory: Any, hop: Hop) -> None:
        super().__init__(factory)
        factory.noisy = False  # else two lines in the log for each connection
        self._hop = hop

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        """The connection has been made."""
        connection = Connection(self, self.wrappedFactory.buildProtocol(addr))
        connection.hop = self._hop
        return connection

"""The input of encrypted connections is decrypted in turns (case 85)."""

from __future__ import annotations

import gc
import ssl
import weakref
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from tests.fetch.test_certificates import Authority
from tests.turning import TurningClock
from twistedmedia.fairness.loop_queue import LoopQueue
from twistedmedia.http.transport import RECORDS_AT_ONCE, Records, decrypt_in_turns

# Twisted passes such certificates itself.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

CROWD, NORMAL = "192.0.2.1", "192.0.2.2"
HANDSHAKES_TURNS = 5  # one with a handshake, and the next ones without


def record(size: int, kind: int = 23) -> bytes:
    return bytes([kind, 3, 3]) + size.to_bytes(2, "big") + bytes(size)


def steps(records: Records, pieces: list[bytes]) -> Iterator[int]:
    """The ends of the steps that take `pieces`, in bytes from the beginning."""
    end = 0
    for piece in pieces:
        while piece:
            size = records.take(piece)
            assert 0 < size <= len(piece)
            end, piece = end + size, piece[size:]
            yield end


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 40), max_size=80),
    st.lists(st.integers(1, 3000), max_size=20, unique=True),
)
def test_steps_end_with_records_wherever_the_input_is_cut(
    sizes: list[int], cuts: list[int]
) -> None:
    wire = b"".join(map(record, sizes))
    edges = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    pieces = [wire[begin:end] for begin, end in pairwise(edges)]
    ends_of_records, at = [0], 0
    for size in sizes:
        at += 5 + size
        ends_of_records.append(at)
    begin = 0
    for end in steps(Records(), pieces):
        assert end in ends_of_records or end in edges
        assert sum(begin < each < end for each in ends_of_records) <= RECORDS_AT_ONCE
        begin = end
    assert begin == len(wire)


def test_many_small_records_are_distinguished_from_few_and_from_large_ones() -> None:
    def are_small(wire: bytes) -> bool:
        records = Records()
        records.take(wire)
        return records.are_small

    assert are_small(record(1) * 40)
    assert not are_small(record(300))  # a request
    assert not are_small(record(16384) * 4)


class Server:
    """TLS connections that share a queue, whose turns the test runs."""

    def __init__(self, authority: Authority) -> None:
        self.clock = TurningClock()
        self.queue = LoopQueue(self.clock)
        self.protocols: list[Recording] = []
        options = PrivateCertificate.loadPEM(authority.pem).options()
        self.factory = TLSMemoryBIOFactory(
            options, False, Factory.forProtocol(lambda: Recording(self)), self.clock
        )
        decrypt_in_turns(self, self.queue)

    def connect(self, host: str = CROWD) -> Client:
        return Client(self, host)

    def turn_until(self, is_so: Callable[[], bool], most: int) -> int:
        """How many turns pass until `is_so`."""
        for turns in range(most):
            if is_so():
                return turns
            self.clock.turn()
        raise AssertionError(f"not within {most} turns")


class Recording(Protocol):
    """Records what it receives. Each piece takes a little time."""

    def __init__(self, server: Server) -> None:
        self.content = b""
        self.lost: Failure | None = None
        self.aborts = self.fails = False
        self._server = server
        server.protocols.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.content += data
        self._server.clock.spend(1e-5)
        if self.aborts:
            self.transport.abortConnection()
        if self.fails:
            raise ZeroDivisionError

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Wire(StringTransport):
    """The transport of the socket. It may be used after it is lost, like Twisted's."""

    connected = True

    def pauseProducing(self) -> None:
        self.producerState = "paused"

    def resumeProducing(self) -> None:
        if self.connected:
            self.producerState = "producing"

    def abortConnection(self) -> None:
        self.disconnecting = True


class Client:
    """The other end of a connection."""

    def __init__(self, server: Server, host: str) -> None:
        context = ssl._create_unverified_context()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self._server = server
        self.wire = Wire(peerAddress=IPv4Address("TCP", host, 1))
        self.tls: Any = server.factory.buildProtocol(self.wire.getPeer())
        self.protocol = server.protocols[-1]
        self.tls.makeConnection(self.wire)

    def hello(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self.flush()

    def hello_in_pieces(self, first: int) -> list[bytes]:
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        data = self._out.read()
        return [data[:first], data[first:]]

    @property
    def is_answered(self) -> bool:
        return bool(self.wire.value())

    def shake_hands(self) -> None:
        self.hello()
        self._server.turn_until(lambda: self.is_answered, 40)
        self._in.write(self.wire.value())
        self._tls.do_handshake()
        self.flush()
        for _ in range(2 * HANDSHAKES_TURNS):
            self._server.clock.turn()

    def records_of(self, content: bytes, size: int) -> bytes:
        for start in range(0, len(content), size):
            self._tls.write(content[start : start + size])
        return self._out.read()

    def flush(self) -> None:
        self.tls.dataReceived(self._out.read())

    def lose(self) -> None:
        self.wire.connected = False
        self.tls.connectionLost(Failure(ConnectionDone()))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("localhost")


@pytest.fixture
def server(authority: Authority) -> Server:
    return Server(authority)


def test_handshakes_wait_for_their_turns_and_leave_turns_to_others(server: Server) -> None:
    crowd = [server.connect() for _ in range(50)]
    for client in crowd:
        client.hello()
    normal = server.connect(NORMAL)
    normal.hello()
    assert not normal.is_answered
    server.turn_until(lambda: normal.is_answered, 2 * HANDSHAKES_TURNS)
    answered = sum(client.is_answered for client in crowd)
    for _ in range(10 * HANDSHAKES_TURNS):
        server.clock.turn()
    assert sum(client.is_answered for client in crowd) - answered == 10


def test_a_handshake_in_pieces_waits_as_well(server: Server) -> None:
    client = server.connect()
    for piece in client.hello_in_pieces(9):
        client.tls.dataReceived(piece)
        assert not client.is_answered
        for _ in range(2 * HANDSHAKES_TURNS):
            answered_before = client.is_answered
            server.clock.turn()
    assert answered_before


def test_content_in_large_records_is_decrypted_at_once(server: Server) -> None:
    client = server.connect()
    client.shake_hands()
    content = bytes(60_000)
    client.tls.dataReceived(client.records_of(content, 16_384))
    assert client.protocol.content == content
    assert not server.clock.calls


def test_tiny_records_of_a_crowd_leave_time_to_others(server: Server) -> None:
    crowd, normal = [server.connect() for _ in range(10)], server.connect(NORMAL)
    for client in [*crowd, normal]:
        client.shake_hands()
    for client in crowd:
        client.tls.dataReceived(client.records_of(bytes(2000), 1))
        assert client.wire.producerState == "paused"
    for _ in range(5):
        before = sum(len(client.protocol.content) for client in crowd)
        began_s = server.clock.seconds()
        server.clock.turn()
        assert server.clock.seconds() - began_s < 0.002
        assert sum(len(client.protocol.content) for client in crowd) > before
    normal.tls.dataReceived(normal.records_of(b"request", 1))
    server.turn_until(lambda: normal.protocol.content == b"request", 4)
    server.turn_until(lambda: all(client.protocol.content == bytes(2000) for client in crowd), 2000)
    assert all(client.wire.producerState == "producing" for client in crowd)


def test_later_input_is_behind_input_that_waits(server: Server) -> None:
    client = server.connect()
    client.shake_hands()
    content = bytes(range(256)) * 4
    wire = client.records_of(content, 2)
    client.tls.dataReceived(wire[:5000])
    client.tls.dataReceived(wire[5000:])
    server.turn_until(lambda: len(client.protocol.content) == len(content), 200)
    assert client.protocol.content == content


def test_input_before_the_end_is_delivered_before_it(server: Server) -> None:
    client = server.connect()
    client.shake_hands()
    client.tls.dataReceived(client.records_of(bytes(1000), 1))
    client.lose()
    assert client.protocol.lost is None
    server.turn_until(lambda: client.protocol.lost is not None, 200)
    assert client.protocol.content == bytes(1000)


@pytest.mark.parametrize("abort_first", [False, True])
def test_a_connection_that_is_aborted_drops_waiting_input(
    server: Server, abort_first: bool
) -> None:
    client = server.connect()
    client.shake_hands()
    client.tls.dataReceived(client.records_of(bytes(1000), 1))
    received = len(client.protocol.content)
    cut = [client.tls.abortConnection, client.lose]
    for step in cut if abort_first else reversed(cut):
        step()
    assert client.protocol.lost is not None
    for _ in range(10):
        server.clock.turn()
    assert len(client.protocol.content) == received


def test_a_protocol_may_abort_the_connection_while_it_receives_the_last_input(
    server: Server,
) -> None:
    client = server.connect()
    client.shake_hands()
    client.tls.dataReceived(client.records_of(bytes(1000), 1))
    client.lose()
    client.protocol.aborts = True
    server.turn_until(lambda: client.protocol.lost is not None, 10)
    assert len(client.protocol.content) < 1000


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_connection_whose_protocol_fails_in_its_turn_ends(server: Server, is_lost: bool) -> None:
    """As Twisted ends a connection whose protocol fails in `dataReceived`."""
    client = server.connect()
    client.shake_hands()
    client.tls.dataReceived(client.records_of(bytes(1000), 1))
    if is_lost:
        client.lose()
    client.protocol.fails = True
    with pytest.raises(ZeroDivisionError):
        server.clock.turn()
    assert (client.protocol.lost is not None) == is_lost
    assert client.wire.disconnecting


def test_a_protocol_that_pauses_is_not_resumed_by_its_turn(server: Server) -> None:
    client = server.connect()
    client.shake_hands()
    client.tls.dataReceived(client.records_of(bytes(1000), 1))
    client.tls.pauseProducing()
    server.turn_until(lambda: len(client.protocol.content) == 1000, 200)
    assert client.wire.producerState == "paused"
    client.tls.resumeProducing()
    assert client.wire.producerState == "producing"


def test_reading_resumes_after_the_turn_of_the_received_input(server: Server) -> None:
    client = server.connect()
    client.shake_hands()
    client.tls.dataReceived(client.records_of(bytes(1000), 1))
    client.tls.pauseProducing()
    client.tls.resumeProducing()
    assert client.wire.producerState == "paused"


@pytest.mark.parametrize("shakes_hands", [False, True])
def test_a_lost_connection_leaves_nothing_to_the_collector(
    server: Server, shakes_hands: bool
) -> None:
    """Case 87. Twisted would keep it in a reference cycle with an error."""
    client = server.connect()
    client.shake_hands() if shakes_hands else client.hello()
    server.turn_until(lambda: bool(client.wire.value()), HANDSHAKES_TURNS)
    gc.collect()
    gc.disable()
    try:
        client.lose()
        kept = weakref.ref(client.tls)
        server.protocols.clear()
        client.__dict__.clear()
        assert kept() is None
    finally:
        gc.enable()

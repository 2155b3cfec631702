"""Coalesced responses are sent once a turn, in their order, and none of them twice."""

from __future__ import annotations

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection as TCPConnection
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from twistedmedia.http.transport import ResponseBuffer, WriteCoalescer


class Transport(TCPConnection):
    """A socket's transport; the kernel takes `room` bytes at a time, or fails."""

    def __init__(self, room: int | Exception = 1 << 30) -> None:
        self.TLS = self.disconnecting = False
        self.connected = True
        self.sent = b""
        self.dataBuffer = b""
        self._tempDataBuffer: list[bytes] = []
        self._room = room

    def writeSomeData(self, data: bytes) -> int | Exception:
        assert not self.dataBuffer, "it would overtake what waits"
        if isinstance(self._room, Exception):
            return self._room
        self.sent += data[: self._room]
        return len(data[: self._room])

    def write(self, data: bytes) -> None:
        self.dataBuffer += data

    @property
    def all(self) -> bytes:
        return self.sent + self.dataBuffer


def test_collected_data_is_sent_at_the_end_of_the_turn_in_one_piece() -> None:
    clock = Clock()
    transport = Transport()
    outgoing = ResponseBuffer(transport, WriteCoalescer(clock))
    outgoing.begin(b"head ")
    outgoing.write(b"content ", collect=True)
    outgoing.write(b"more", collect=True)
    assert transport.all == b""
    clock.advance(0)
    assert transport.sent == b"head content more"
    assert clock.getDelayedCalls() == []


def test_data_that_may_not_be_collected_follows_collected_data() -> None:
    clock = Clock()
    transport = Transport()
    outgoing = ResponseBuffer(transport, WriteCoalescer(clock))
    outgoing.write(b"first ", collect=True)
    outgoing.write(b"second")
    assert (transport.sent, transport.dataBuffer) == (b"first ", b"second")
    outgoing.write(b" third", collect=True)
    clock.advance(0)
    assert transport.all == b"first second third"


@pytest.mark.parametrize("room", [0, 1, 5, ConnectionError()])
def test_data_that_the_kernel_does_not_take_waits_in_the_transport(room: int | Exception) -> None:
    clock = Clock()
    transport = Transport(room)
    outgoing = ResponseBuffer(transport, WriteCoalescer(clock))
    outgoing.write(b"0123456789", collect=True)
    clock.advance(0)
    outgoing.write(b"abc", collect=True)
    clock.advance(0)
    assert transport.all == b"0123456789abc"


def test_nothing_is_collected_behind_unsent_data() -> None:
    """Case 87. The transport has to know how much waits, to pause its producer."""
    clock = Clock()
    transport = Transport(5)
    outgoing = ResponseBuffer(transport, WriteCoalescer(clock))
    outgoing.write(b"0123456789", collect=True)
    clock.advance(0)
    outgoing.write(b"abc", collect=True)
    assert transport.dataBuffer == b"56789abc"
    assert clock.getDelayedCalls() == []


def test_a_head_alone_can_go_out() -> None:
    clock = Clock()
    transport = Transport()
    outgoing = ResponseBuffer(transport, WriteCoalescer(clock))
    outgoing.begin(b"head")
    outgoing.end_head()
    outgoing.end_head()
    assert transport.dataBuffer == b"head"


def test_much_is_not_collected() -> None:
    transport = Transport()
    outgoing = ResponseBuffer(transport, WriteCoalescer(Clock()))
    outgoing.write(bytes(100_000), collect=True)
    assert len(transport.sent) == 100_000


@pytest.mark.parametrize("many", [1, 63, 64, 65, 200])
def test_many_buffers_in_one_turn_are_sent_completely_and_the_first_do_not_wait(many: int) -> None:
    clock = Clock()
    outbox = WriteCoalescer(clock)
    transports = [Transport() for _ in range(many)]
    for transport in transports:
        ResponseBuffer(transport, outbox).write(b"answer", collect=True)
    assert (transports[0].sent == b"answer") is (many >= 64)
    clock.advance(0)
    assert {transport.sent for transport in transports} == {b"answer"}
    assert clock.getDelayedCalls() == []


def test_nothing_is_sent_after_the_connection_is_lost() -> None:
    clock = Clock()
    transport = Transport()
    ResponseBuffer(transport, WriteCoalescer(clock)).write(b"answer", collect=True)
    transport.connected = False
    clock.advance(0)
    assert transport.all == b""


def test_no_data_bypasses_a_wrapper_of_a_transport() -> None:
    """Like TLS, it has the methods of the transport below it."""
    wrapper = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
    below = Transport()
    wrapper.transport = below
    written: list[bytes] = []
    wrapper.write = written.append
    assert wrapper.writeSomeData == below.writeSomeData
    outgoing = ResponseBuffer(wrapper, WriteCoalescer(Clock()))
    outgoing.write(b"secret", collect=True)
    assert (below.all, written) == (b"", [b"secret"])

"""Slow readers are served, and readers that take nothing are cut off."""

from __future__ import annotations

import errno
import os
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import ISystemHandle
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import LogEvent
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from tests.http.connection import Connection, SocketConnection
from tests.http.test_kernel import SocketMedia
from tests.support import TIMEOUT_S
from twistedmedia.http.sending import send
from twistedmedia.http.site import MediaSite
from twistedmedia.http.timeouts import (
    BLOCK_BYTES,
    LEAST_BLOCK_BYTES,
    StallDetector,
    Timeouts,
    progress_of,
)

STALL_S = 300.0
LATEST_S = STALL_S * 1.2  # a peer that reads nothing is cut off by then


class Taking:
    """A request with the number of written bytes."""

    def __init__(self, sent: int) -> None:
        self.sentLength = sent


class Reader:
    """A connection without a socket: the peer takes everything that is written to it."""

    def __init__(self) -> None:
        self.requests = [Taking(0)]
        self.transport = self
        self.is_full = True
        self.cut = False

    def takes(self, size: int) -> None:
        self.requests[0].sentLength += size

    def getPeer(self) -> object:
        return object()  # a UNIX socket has no host

    def abortConnection(self) -> None:
        assert not self.cut, "it is cut off once"
        self.cut = True


def advance(clock: Clock, seconds: float) -> None:
    """Advance the clock in small steps."""
    for _ in range(int(seconds)):
        clock.advance(1)


def test_a_reader_that_takes_nothing_is_cut_off_in_time(warnings: list[LogEvent]) -> None:
    """Case 24."""
    clock = Clock()
    readers, reader = StallDetector(clock, STALL_S), Reader()
    readers.watch(reader)
    advance(clock, STALL_S - 1)
    assert not reader.cut
    advance(clock, LATEST_S - STALL_S)
    assert reader.cut
    assert clock.getDelayedCalls() == []
    assert [event["peer"] for event in warnings] == ["a local peer"]


@pytest.mark.parametrize("every_s", [1, 60, 299])
def test_a_reader_that_takes_a_byte_now_and_then_is_waited_for(every_s: int) -> None:
    """A player that is paused for a while, or has a slow line."""
    clock = Clock()
    readers, reader = StallDetector(clock, STALL_S), Reader()
    readers.watch(reader)
    for _ in range(2000 // every_s + 2):
        advance(clock, every_s)
        reader.takes(1)
    assert not reader.cut
    advance(clock, LATEST_S)
    assert reader.cut


def test_each_reader_has_a_time_of_its_own() -> None:
    clock = Clock()
    readers, first, second = StallDetector(clock, STALL_S), Reader(), Reader()
    readers.watch(first)
    advance(clock, 200)
    readers.watch(second)
    assert len(clock.getDelayedCalls()) == 1, "one clock for all"
    advance(clock, LATEST_S - 200)
    assert (first.cut, second.cut) == (True, False)
    advance(clock, 200)
    assert second.cut
    assert clock.getDelayedCalls() == []


def test_a_reader_that_is_seen_again_and_again_gets_no_more_time() -> None:
    clock = Clock()
    readers, reader = StallDetector(clock, STALL_S), Reader()
    for _ in range(int(LATEST_S)):
        readers.watch(reader)
        advance(clock, 1)
    assert reader.cut


def test_a_reader_that_has_all_is_forgotten() -> None:
    clock = Clock()
    readers, one, other = StallDetector(clock, STALL_S), Reader(), Reader()
    readers.forget(one)
    readers.watch(one)
    readers.watch(other)
    readers.forget(one)
    readers.forget(one)
    advance(clock, LATEST_S)
    assert (one.cut, other.cut) == (False, True)
    readers.watch(one)
    readers.forget(one)
    assert clock.getDelayedCalls() == []


def test_a_reader_may_come_back_after_it_was_forgotten() -> None:
    """The next response on its connection."""
    clock = Clock()
    readers, reader = StallDetector(clock, STALL_S), Reader()
    readers.watch(reader)
    advance(clock, STALL_S - 1)
    readers.forget(reader)
    readers.watch(reader)
    advance(clock, STALL_S - 1)
    assert not reader.cut
    advance(clock, LATEST_S - STALL_S + 1)
    assert reader.cut


# What counts as taken


@implementer(ISystemHandle)
class Handle:
    """A transport with a real socket."""

    def __init__(self, handle: socket.socket) -> None:
        self._handle = handle

    def getHandle(self) -> socket.socket:
        return self._handle


class Channel:
    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.requests = [Taking(30), Taking(12)]
        self.is_full = False


def test_over_tcp_counts_what_the_peer_acknowledged() -> None:
    """Not what the kernel has buffered (tcp_info, tcpi_bytes_acked)."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        there = socket.create_connection(listening.getsockname())
        here, _ = listening.accept()
    with here, there:
        channel = Channel(Handle(here))
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        here.setblocking(False)
        before = progress_of(channel).taken
        assert before <= 1  # the SYN counts with some kernels
        assert not progress_of(channel).lags
        buffered = here.send(bytes(4 << 20))
        there.recv(1)
        latest_s = time.monotonic() + TIMEOUT_S
        while progress_of(channel).taken == before and time.monotonic() < latest_s:
            time.sleep(0.01)  # the kernel acknowledges data without the reader
        assert before < progress_of(channel).taken < buffered
        assert progress_of(channel).lags


def test_under_another_protocol_counts_what_goes_over_its_socket() -> None:
    """TLS."""
    site = MediaSite(Resource(), reactor=Clock())
    connection = SocketConnection(site, Clock())
    wrapper = ProtocolWrapper(WrappingFactory(site), Protocol())
    wrapper.transport = connection
    outer = ProtocolWrapper(WrappingFactory(site), Protocol())
    outer.transport = wrapper
    connection.socket.acknowledged = 1 << 40
    assert progress_of(Channel(outer)).taken == 1 << 40
    connection.leave()


def test_elsewhere_counts_what_was_written() -> None:
    """A UNIX socket, which has no acknowledgements, or a transport without a socket."""
    here, there = socket.socketpair()
    with here, there:
        assert progress_of(Channel(Handle(here))).taken == 42
    channel = Channel(object())
    assert progress_of(channel) == (42, False)
    channel.is_full = True
    assert progress_of(channel) == (42, True)


def test_data_that_waits_in_the_transport_is_not_taken() -> None:
    """A peer on a UNIX socket that takes a part of each block is slow, but not stalled."""
    transport = FileDescriptor(Clock())
    transport.dataBuffer, transport.offset, transport._tempDataLen = b"x" * 100, 30, 5
    request = SimpleNamespace(sentLength=1000)
    channel = SimpleNamespace(transport=transport, requests=[request], is_full=True)
    assert progress_of(channel) == (925, True)


def test_an_old_kernel_that_does_not_count_is_helped_out() -> None:
    """Before Linux 4.6 the structure is shorter."""

    class Short:
        def getsockopt(self, *_: int) -> bytes:
            return bytes(104)

    class Unknown:
        def getsockopt(self, *_: int) -> bytes:
            raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))

    for handle in (Short(), Unknown()):
        assert progress_of(Channel(Handle(handle))).taken == 42  # type: ignore[arg-type]


def test_a_reader_that_could_take_nothing_is_not_to_blame() -> None:
    """The disk is slow then."""
    clock = Clock()
    readers, reader = StallDetector(clock, STALL_S), Reader()
    readers.watch(reader)
    reader.is_full = False
    advance(clock, 3 * STALL_S)
    assert not reader.cut
    reader.is_full = True
    advance(clock, STALL_S - STALL_S / 10)
    assert not reader.cut
    advance(clock, LATEST_S - STALL_S)
    assert reader.cut


# Through a Site


class Responding:
    """A Site whose responses have `size` bytes, and a client that has read some of them."""

    def __init__(
        self,
        kind: type[Connection],
        length: int = 1_000_000,
        requests: int = 1,
        taken: int = 1000,
        idle_s: float = Timeouts().idle_s,
    ) -> None:
        self.clock = Clock()
        media = SocketMedia()
        timeouts = Timeouts(idle_s=idle_s, stall_s=STALL_S)
        self.site = MediaSite(Large(media, length), reactor=self.clock, timeouts=timeouts)
        self.connection: Any = kind(self.site, self.clock, window=0)
        media.connection = self.connection
        self.connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * requests)
        self.connection.take(taken)


class Large(Resource):
    isLeaf = True

    def __init__(self, media: Any, length: int) -> None:
        super().__init__()
        self._media = media
        self._length = length

    def render(self, request: Any) -> int:
        request.setHeader(b"content-length", b"%d" % self._length)
        sending = send(request, self._media, 0, self._length)
        sending.addCallback(lambda _: request.finish())
        return NOT_DONE_YET


@pytest.mark.parametrize("kind", [Connection, SocketConnection])
def test_a_client_that_stops_in_the_middle_of_a_response_is_cut_off(
    kind: type[Connection], warnings: list[LogEvent]
) -> None:
    """Cases 24 and 25."""
    serving = Responding(kind)
    advance(serving.clock, LATEST_S)
    assert serving.connection.aborted
    assert not serving.connection.connected
    assert serving.clock.getDelayedCalls() == []
    assert [event["peer"] for event in warnings] == ["192.0.2.1"]


@pytest.mark.parametrize("kind", [Connection, SocketConnection])
@pytest.mark.parametrize("window", [0, 70_000, 150_000, 400_000])
@pytest.mark.parametrize("length", [60_000, 100_000, 1_000_000])
def test_a_client_that_asks_for_more_and_takes_nothing_is_cut_off(
    kind: type[Connection], length: int, window: int
) -> None:
    """Case 24. Its responses wait for earlier ones."""
    serving = Responding(kind, length, requests=10, taken=window, idle_s=60)
    advance(serving.clock, LATEST_S)
    assert not serving.connection.connected
    assert serving.clock.getDelayedCalls() == []


def test_a_client_whose_kernel_acknowledges_is_not_cut_off() -> None:
    """Although the buffer of this side's kernel is full."""
    serving = Responding(SocketConnection)
    for _ in range(10):
        advance(serving.clock, STALL_S - 1)
        serving.connection.socket.acknowledged += 1
    assert serving.connection.connected
    serving.connection.take()
    (answer,) = serving.connection.answers()
    assert len(answer.content) == 1_000_000


def test_a_connection_is_not_watched_after_the_response() -> None:
    """Idle connections have another, longer timeout."""
    serving = Responding(SocketConnection, idle_s=2 * LATEST_S)
    serving.connection.take()
    advance(serving.clock, LATEST_S)
    assert serving.connection.connected
    advance(serving.clock, 2 * LATEST_S)
    assert (serving.connection.connected, serving.connection.aborted) == (False, False)
    assert serving.clock.getDelayedCalls() == []


IDLE_S = Timeouts().idle_s * 1.1  # by when a connection without a request is closed


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_a_peer_that_is_still_reading_a_response_is_not_idle(connection: str) -> None:
    """All of it went to the kernel long ago; a player that is paused does not take it from there,
    and a socket that is closed too early would lose it.
    """
    clock = Clock()
    site = MediaSite(Large(SocketMedia(), 1000), reactor=clock, timeouts=Timeouts(stall_s=STALL_S))
    client: Any = SocketConnection(site, clock, window=0)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: %s\r\n\r\n" % connection.encode())
    for _ in range(5):  # now and then a byte, for longer than any timeout
        advance(clock, STALL_S - 1)
        assert client.connected
        client.socket.acknowledged += 1
    client.take(5000)
    assert len(client.answers()[0].content) == 1000
    advance(clock, 2 * IDLE_S)
    assert (client.connected, client.aborted) == (False, False)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_a_peer_that_reads_nothing_of_a_finished_response_is_cut_off(connection: str) -> None:
    """Case 24."""
    clock = Clock()
    site = MediaSite(Large(SocketMedia(), 1000), reactor=clock, timeouts=Timeouts(stall_s=STALL_S))
    client: Any = SocketConnection(site, clock, window=0)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: %s\r\n\r\n" % connection.encode())
    advance(clock, IDLE_S + 1)
    assert client.connected
    advance(clock, IDLE_S + LATEST_S)
    assert client.aborted
    assert not client.connected
    assert clock.getDelayedCalls() == []


def test_many_slow_readers_are_each_read_less_for() -> None:
    """Case 24. Unread data is kept in memory."""
    clock = Clock()
    readers = StallDetector(clock, STALL_S)
    assert readers.block == BLOCK_BYTES
    many = [Reader() for _ in range(2000)]
    for reader in many:
        readers.watch(reader)
    assert readers.block * len(many) <= 33 << 20
    for _ in range(3000):
        readers.watch(Reader())
    assert readers.block == LEAST_BLOCK_BYTES
    for reader in list(readers._readers):
        readers.forget(reader)
    assert readers.block == BLOCK_BYTES
    assert clock.getDelayedCalls() == []

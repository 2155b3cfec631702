"""The transports of connections: coalesced writes, TLS input in turns, and what a socket reports.

Twisted's transports write in the next turn of the event loop, after a call that asks for it and
before one that ends it. A response that is written at once arrives sooner, but each write wakes the
peer. The cheapest way is to write all responses together, at the end of the turn.

A TLS handshake takes the event loop about a millisecond, most of it for one signature. A small
record takes as long as a large one, and 64 KiB can hold thousands of them. So handshakes and small
records wait for the client's turn in the queue of the site. Other content does not wait.

This module uses private attributes of Twisted's transports (see `twisted_privates`).
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReactorTime, ISystemHandle
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from twistedmedia.fairness.loop_queue import LoopQueue
from twistedmedia.http.addresses import peer_host, rate_limit_key

# So many buffers are sent without waiting for the end of the turn, which may be long.
_MOST_BUFFERS = 64
_COLLECTED_BYTES = 64 << 10  # of one connection
# Bytes that are dropped by a lingering connection and that the kernel may buffer, instead of
# megabytes. Linux doubles this, up to net.core.rmem_max. With less than is in flight, the kernel
# drops packets, and the peer waits seconds to send them again.
LINGER_BUFFER_BYTES = 512 << 10
# Bytes of a response that the kernel buffers besides those in flight. By default it buffers 4 MiB
# for each slow reader (tcp(7), TCP_NOTSENT_LOWAT).
UNSENT_BYTES = 256 << 10
# struct tcp_info since Linux 4.6 (include/uapi/linux/tcp.h): tcpi_unacked, which counts segments,
# tcpi_bytes_acked and tcpi_notsent_bytes.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


class WriteCoalescer:
    """Sends the buffers of all connections at the end of a turn of the event loop."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._buffers: list[ResponseBuffer] = []

    def add(self, buffer: ResponseBuffer) -> None:
        """Send `buffer`, which was empty until now. It may be sent at once."""
        if not self._buffers:
            self._clock.callLater(0, self._send_all)
        self._buffers.append(buffer)
        if len(self._buffers) >= _MOST_BUFFERS:
            buffers, self._buffers[:] = self._buffers[:], []
            _send(buffers)

    def _send_all(self) -> None:
        buffers, self._buffers = self._buffers, []
        _send(buffers)


class ResponseBuffer:
    """The buffered responses of one connection. Call `send` before anything else writes to the
    transport.
    """

    def __init__(self, transport: Any, coalescer: WriteCoalescer) -> None:
        self._transport = transport
        self._coalescer = coalescer
        self._head = b""
        self._collected = b""

    def begin(self, head: bytes) -> None:
        """Buffer the head of a response. It is sent together with the next content."""
        self._head = head

    def end_head(self) -> None:
        """Send the buffered head, even if no content follows yet."""
        if self._head:
            self.write(b"")

    def write(self, data: bytes, collect: bool = False) -> None:
        """Send `data` after all earlier data: at the end of the turn, if it may `collect`."""
        data, self._head = self._head + data, b""
        if not (collect and self._may_collect()):
            self.send()
            self._transport.write(data)
            return
        is_first = not self._collected
        self._collected += data
        if is_first:
            self._coalescer.add(self)
        if len(self._collected) > _COLLECTED_BYTES:
            self.send()

    def send(self) -> None:
        """Write the buffer to the kernel, and what the kernel does not take to the transport."""
        data, self._collected = self._collected, b""
        transport = self._transport
        if not (data and transport.connected):
            return
        if not (transport.dataBuffer or transport._tempDataBuffer):
            taken = transport.writeSomeData(data)
            if isinstance(taken, int):  # an error happens again in `transport.write`
                data = data[taken:]
        if data:
            transport.write(data)

    def drop(self) -> None:
        """Drop unsent data after the connection was lost. Twisted's transports keep their data, and
        TLS keeps its transport in a reference cycle.
        """
        self._head = self._collected = b""
        transport = below_tls(self._transport)
        if isinstance(transport, FileDescriptor):
            transport.dataBuffer = b""
            transport._tempDataBuffer.clear()

    def _may_collect(self) -> bool:
        """Whether this is the transport of a socket, without unsent data. Transports that wrap
        another one have `writeSomeData` too, but it would bypass TLS, for example.
        """
        transport = self._transport
        if not isinstance(transport, Connection) or transport.TLS or transport.disconnecting:
            return False
        # Unsent data must be in the transport: it pauses its producer when there is too much.
        return not (transport.dataBuffer or transport._tempDataBuffer)


def _send(buffers: list[ResponseBuffer]) -> None:
    for buffer in buffers:
        buffer.send()


# Records in one step. Decrypting and handling them takes up to a sixth of a millisecond.
RECORDS_AT_ONCE = 16
# Records are small if their average size is less. A few of them are normal: a request is one.
_SMALL_BYTES = 512
_FEW_RECORDS = 4
_HEADER_BYTES = 5  # type, version and length (RFC 8446, 5.1)
_HANDSHAKE = 22
# Turns of the loop without steps from the queue, after each step of a handshake.
_REST_TURNS = 4


def decrypt_in_turns(port: Any, queue: LoopQueue) -> None:
    """Make `port`, if it uses TLS, decrypt the input of its connections in the turns of `queue`.
    Call this before the port accepts a connection.
    """
    factory = getattr(port, "factory", None)
    if isinstance(factory, TLSMemoryBIOFactory):
        protocol: Any = partial(_QueuedTLS, queue=queue)
        factory.protocol = protocol


class Records:
    """Finds the ends of TLS records in input that is split anywhere. Pure."""

    def __init__(self) -> None:
        self.is_handshake = False  # one of the records taken last belongs to a handshake
        self.are_small = False  # the records taken last are many and small
        self._left = 0  # missing bytes of an incomplete record
        self._header = b""  # the received part of an incomplete header
        self._incomplete_is_handshake = False

    def take(self, data: bytes) -> int:
        """Return the size in bytes of the next `RECORDS_AT_ONCE` records of `data`, or of all if
        there are fewer. The caller passes the rest again.
        """
        header_bytes = len(self._header)
        data = self._header + data
        at, records = self._left, 0
        self.is_handshake = self._left > 0 and self._incomplete_is_handshake
        while len(data) - at >= _HEADER_BYTES and records < RECORDS_AT_ONCE:
            records += 1
            self._incomplete_is_handshake = data[at] == _HANDSHAKE
            self.is_handshake = self.is_handshake or self._incomplete_is_handshake
            at += _HEADER_BYTES + int.from_bytes(data[at + 3 : at + _HEADER_BYTES])
        end = at if records == RECORDS_AT_ONCE and at < len(data) else len(data)
        self._header = data[at:end]
        self._left = max(0, at - end)
        self.are_small = records > _FEW_RECORDS and end < records * _SMALL_BYTES
        return end - header_bytes


class _QueuedTLS(BufferingTLSTransport):
    """The TLS of one connection, whose input is decrypted in turns."""

    transport: Any

    def __init__(self, factory: TLSMemoryBIOFactory, protocol: Any, queue: LoopQueue) -> None:
        super().__init__(factory, protocol)
        self._queue = queue
        self._records = Records()
        self._input = b""  # waits for the client's turn
        self._step_bytes = 0  # the part of the input for the next step
        self._is_paused = False  # by the protocol
        self._has_begun = False  # the first step has run
        self._is_in_step = False
        self._lost: Failure | None = None  # reported when the input is decrypted

    def dataReceived(self, data: bytes) -> None:
        """Decrypt `data` now, or when it is the client's turn."""
        if self._input:
            self._input += data
            return
        records = self._records
        step_bytes = records.take(data)
        if step_bytes == len(data) and not (records.is_handshake or records.are_small):
            super().dataReceived(data)  # type: ignore[no-untyped-call]
            return
        self._input, self._step_bytes = data, step_bytes
        if self._queue.has_time and not records.is_handshake:
            self._queue.do(self._step)
        else:
            self._wait()

    def _wait(self) -> None:
        self.transport.pauseProducing()
        peer: Any = self.transport.getPeer()
        client = rate_limit_key(peer_host(getattr(peer, "host", None)))
        self._queue.add(client, self._on_turn, is_first=not self._has_begun)

    def _on_turn(self) -> None:
        if self._input:
            self._step()
        if not self._input:
            if self._lost is not None:
                self._end()
            elif not self._is_paused:
                self.transport.resumeProducing()

    def _step(self) -> None:
        self._has_begun = True
        if self._records.is_handshake:
            self._queue.rest(_REST_TURNS)
        data, self._input = self._input[: self._step_bytes], self._input[self._step_bytes :]
        if self._input:
            self._step_bytes = self._records.take(self._input)
            self._wait()
        self._is_in_step = True
        try:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
        except BaseException:
            self._is_in_step = False
            self.abortConnection()  # as Twisted does after an exception in a protocol
            raise
        finally:
            self._is_in_step = False

    def pauseProducing(self) -> None:
        """Stop reading. The protocol may still receive input that waits."""
        self._is_paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Resume reading."""
        self._is_paused = False
        if not self._input:
            self.transport.resumeProducing()

    def abortConnection(self) -> None:
        """Abort the connection, and drop the input that waits."""
        self._input = b""
        super().abortConnection()  # type: ignore[no-untyped-call]
        if self._lost is not None and not self._is_in_step:
            self._end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Decrypt the input that waits, then report the loss to the protocol."""
        self._lost = reason
        if self.disconnecting or not self._input:
            self._end()

    def _end(self) -> None:
        if self._lost is not None:
            reason, self._lost = self._lost, None
            self._input = b""
            # Otherwise Twisted would try to read more, and keep this object in a reference cycle
            # with the resulting error.
            self._lostTLSConnection = True
            super().connectionLost(reason)


# Of struct tcp_info, since Linux 4.6 (include/uapi/linux/tcp.h): tcpi_unacked, which counts
# segments, tcpi_bytes_acked and tcpi_notsent_bytes.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


class TcpProgress(NamedTuple):
    """`taken` grows when the peer takes bytes; `lags` is whether there are more for it to take."""

    taken: int
    lags: bool


def progress_of(channel: Any) -> TcpProgress:
    """Return how far the peer of `channel` has read: on TCP the acknowledged bytes, elsewhere the
    bytes written to the socket, which blocks if the peer reads nothing.
    """
    handle = socket_of(channel.transport)
    if handle is not None:
        try:
            info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            unacknowledged, acknowledged, unsent = _TCP_INFO.unpack(info)
            return TcpProgress(acknowledged, bool(unacknowledged or unsent))
        except (OSError, struct.error):
            pass  # a UNIX socket, or a kernel before 4.6
    transport = below_tls(channel.transport)
    taken = sum(request.sentLength for request in channel.requests)
    if isinstance(transport, FileDescriptor):  # it buffers some of what was written
        taken -= len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    return TcpProgress(taken, channel.is_full)


def below_tls(transport: Any) -> Any:
    """Return the transport below TLS, or `transport` itself if it does not use TLS."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def socket_of(transport: Any) -> Any | None:
    """Return the socket of `transport`, also below TLS, or None if there is none."""
    bare = below_tls(transport)
    return bare.getHandle() if ISystemHandle.providedBy(bare) else None


def tcp_socket_of(transport: Any) -> Any | None:
    """Return the socket of `transport`, which is one of Twisted's for TCP, or None."""
    handle: Any = transport.getHandle() if ISystemHandle.providedBy(transport) else None
    # Twisted's transports of UNIX sockets provide `ITCPTransport` as well.
    is_tcp = handle is not None and handle.family in (socket.AF_INET, socket.AF_INET6)
    return handle if is_tcp else None


def descriptor_of(transport: Any) -> int | None:
    """Return the file descriptor of the socket of `transport`, or None if there is none."""
    handle = socket_of(transport)
    return None if handle is None else int(handle.fileno())


def set_tcp_options(tcp_socket: Any) -> None:
    """Send every response promptly, and buffer little of it in the kernel."""
    # The end of a response must not wait for the acknowledgement of its beginning.
    tcp_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tcp_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def limit_buffer(transport: Any) -> None:
    """Limit the kernel's receive buffer to `LINGER_BUFFER_BYTES`, if `transport` has a socket."""
    handle = socket_of(transport)
    if handle is not None:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LINGER_BUFFER_BYTES)


def unread_bytes(transport: Any) -> int:
    """Return how many bytes wait in the kernel to be read from `transport`, 0 if unknown."""
    descriptor = descriptor_of(transport)
    if descriptor is None:
        return 0
    try:
        size = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(size, sys.byteorder)

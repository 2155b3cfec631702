"""Answers on their way to the kernel, some at a time.

A transport of Twisted's sends in the next turn of the loop, and has the loop told before that it
wants to write, and after that it does no more. An answer that goes at once is sooner there, but it
wakes its reader each time. Sent together, at the end of the turn, they cost least.

This leans on what Twisted's transports have besides their interface: `writeSomeData`, `dataBuffer`
and `_tempDataBuffer`.

What comes on encrypted connections is decrypted in turns.

A handshake takes the event loop about a millisecond, most of it for one signature. A small record
takes as long as a large one, and 64 KiB can hold thousands of them. So handshakes and small records
wait for their turn in the fair queue. Usual content does not.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from twistedmedia.fairness.loop_queue import LoopQueue
from twistedmedia.http.addresses import peer_host, rate_limit_key

_AT_ONCE = 64  # the first one of a long turn must not wait for its end
_COLLECTED_BYTES = 64 << 10  # of one connection


class WriteCoalescer:
    """The connections that have something to send in this turn of the loop."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._due: list[ResponseBuffer] = []

    def add(self, outgoing: ResponseBuffer) -> None:
        """It has something to send now, and had nothing before. It may be told at once."""
        if not self._due:
            self._clock.callLater(0, self._send_all)
        self._due.append(outgoing)
        if len(self._due) >= _AT_ONCE:
            due, self._due[:] = self._due[:], []
            _send(due)

    def _send_all(self) -> None:
        due, self._due = self._due, []
        _send(due)


class ResponseBuffer:
    """What one connection has to send. Nothing else may write to its transport, unless `send` was
    called before.
    """

    def __init__(self, transport: Any, outbox: WriteCoalescer) -> None:
        self._transport = transport
        self._outbox = outbox
        self._head = b""
        self._collected = b""

    def begin(self, head: bytes) -> None:
        """The head of an answer, which goes out with the content that is written next."""
        self._head = head

    def end_head(self) -> None:
        """Whatever comes after it, the head goes out now."""
        if self._head:
            self.write(b"")

    def write(self, data: bytes, collect: bool = False) -> None:
        """Send `data`, at the end of the turn where it may `collect`; in any case after what was
        written before.
        """
        data, self._head = self._head + data, b""
        if not (collect and self._may_collect()):
            self.send()
            self._transport.write(data)
            return
        is_first = not self._collected
        self._collected += data
        if is_first:
            self._outbox.add(self)
        if len(self._collected) > _COLLECTED_BYTES:
            self.send()

    def send(self) -> None:
        """Give what was collected to the kernel, and to the transport what that does not take."""
        data, self._collected = self._collected, b""
        transport = self._transport
        if not (data and transport.connected):
            return
        if not (transport.dataBuffer or transport._tempDataBuffer):
            taken = transport.writeSomeData(data)
            if isinstance(taken, int):  # what fails here fails there again
                data = data[taken:]
        if data:
            transport.write(data)

    def drop(self) -> None:
        """The connection is lost, and so is what its peer has not taken. Twisted's transports keep
        that, and TLS keeps its transport in a reference cycle.
        """
        self._head = self._collected = b""
        transport = below_tls(self._transport)
        if isinstance(transport, FileDescriptor):
            transport.dataBuffer = b""
            transport._tempDataBuffer.clear()

    def _may_collect(self) -> bool:
        """Whether it is a socket's own transport, in which nothing waits. Those of TLS, and others
        that wrap one, have its methods, too: by them what is written would go past what they do to
        it.
        """
        transport = self._transport
        if not isinstance(transport, Connection) or transport.TLS or transport.disconnecting:
            return False
        # Behind what waits for the peer nothing is collected: the transport counts what waits, and
        # no next response begins when it is too much.
        return not (transport.dataBuffer or transport._tempDataBuffer)


def below_tls(transport: Any) -> Any:
    """The transport of the socket, if `transport` is one of TLS; else that itself."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def _send(due: list[ResponseBuffer]) -> None:
    for outgoing in due:
        outgoing.send()


# Records that one step decrypts: with what they cause, up to a sixth of a millisecond.
RECORDS_AT_ONCE = 16
# Records that are smaller on average are small ones. A few of them are usual: a request is one.
_SMALL_BYTES = 512
_FEW_RECORDS = 4
# RFC 8446, 5.1: a type, a version, and the length of what follows.
_HEADER_BYTES = 5
_HANDSHAKE = 22
# After each step of a handshake so many turns belong to everything else.
_REST_TURNS = 4


def decrypt_in_turns(port: Any, queue: LoopQueue) -> None:
    """Have `port` decrypt what comes on its connections in the turns of `queue`, if it uses TLS.
    It must have accepted none yet.
    """
    factory = getattr(port, "factory", None)
    if isinstance(factory, TLSMemoryBIOFactory):
        made: Any = partial(_Decrypting, queue=queue)
        factory.protocol = made


class Records:
    """Finds where TLS records end, in input that is cut anywhere. Pure."""

    def __init__(self) -> None:
        self.is_handshake = False  # those that were taken last: one of them belongs to one
        self.are_small = False  # they are many and small
        self._left = 0  # bytes of the record that has begun
        self._header = b""  # the beginning of a header whose end has not come
        self._begun_is_handshake = False  # the record that has begun

    def take(self, data: bytes) -> int:
        """Returns how many bytes of `data` the next records fill: `RECORDS_AT_ONCE`, or as many as
        there are. The rest is for the next call.
        """
        begun = len(self._header)
        data = self._header + data
        at, records = self._left, 0
        self.is_handshake = self._left > 0 and self._begun_is_handshake
        while len(data) - at >= _HEADER_BYTES and records < RECORDS_AT_ONCE:
            records += 1
            self._begun_is_handshake = data[at] == _HANDSHAKE
            self.is_handshake = self.is_handshake or self._begun_is_handshake
            at += _HEADER_BYTES + int.from_bytes(data[at + 3 : at + _HEADER_BYTES])
        end = at if records == RECORDS_AT_ONCE and at < len(data) else len(data)
        self._header = data[at:end]
        self._left = max(0, at - end)
        self.are_small = records > _FEW_RECORDS and end < records * _SMALL_BYTES
        return end - begun


class _Decrypting(BufferingTLSTransport):
    """The TLS of one connection."""

    transport: Any

    def __init__(self, factory: TLSMemoryBIOFactory, protocol: Any, queue: LoopQueue) -> None:
        super().__init__(factory, protocol)
        self._queue = queue
        self._records = Records()
        self._input = b""  # what waits for its turn
        self._step_bytes = 0  # of it, in the next step
        self._is_paused = False  # by the protocol
        self._is_open = False  # the first step has run
        self._is_in_step = False
        self._lost: Failure | None = None  # what was received before is decrypted first

    def dataReceived(self, data: bytes) -> None:
        """Decrypt it, or let it wait."""
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
        self._queue.add(client, self._go_on, is_first=not self._is_open)

    def _go_on(self) -> None:
        if self._input:
            self._step()
        if not self._input:
            if self._lost is not None:
                self._end()
            elif not self._is_paused:
                self.transport.resumeProducing()

    def _step(self) -> None:
        self._is_open = True
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
            self.abortConnection()  # as Twisted does with what a protocol raises
            raise
        finally:
            self._is_in_step = False

    def pauseProducing(self) -> None:
        """The protocol takes no more for now. What waits may still come."""
        self._is_paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The protocol takes more."""
        self._is_paused = False
        if not self._input:
            self.transport.resumeProducing()

    def abortConnection(self) -> None:
        """Cut it. What waits is dropped."""
        self._input = b""
        super().abortConnection()  # type: ignore[no-untyped-call]
        if self._lost is not None and not self._is_in_step:
            self._end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Decrypt what was received before, then tell the protocol."""
        self._lost = reason
        if self.disconnecting or not self._input:
            self._end()

    def _end(self) -> None:
        if self._lost is not None:
            reason, self._lost = self._lost, None
            self._input = b""
            # Else Twisted would look for more input, and keep this object in a reference cycle with
            # the error that there is none.
            self._lostTLSConnection = True
            super().connectionLost(reason)

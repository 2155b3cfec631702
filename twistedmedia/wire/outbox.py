"""Answers on their way to the kernel, some at a time.

A transport of Twisted's sends in the next turn of the loop, and has the loop told before that it
wants to write, and after that it does no more. An answer that goes at once is sooner there, but it
wakes its reader each time. Sent together, at the end of the turn, they cost least.

This leans on what Twisted's transports have besides their interface: `writeSomeData`, `dataBuffer`
and `_tempDataBuffer`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper

_AT_ONCE = 64  # the first one of a long turn must not wait for its end
_COLLECTED_BYTES = 64 << 10  # of one connection


class Outbox:
    """The connections that have something to send in this turn of the loop."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._due: list[Outgoing] = []

    def add(self, outgoing: Outgoing) -> None:
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


class Outgoing:
    """What one connection has to send. Nothing else may write to its transport, unless `send` was
    called before.
    """

    def __init__(self, transport: Any, outbox: Outbox) -> None:
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


def _send(due: list[Outgoing]) -> None:
    for outgoing in due:
        outgoing.send()

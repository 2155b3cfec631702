"""Those who let an answer wait.

A player drains a prompt at 8 kB/s for minutes and is welcome; a peer that takes nothing at all is
cut off in the end. What counts is what the peer took: the kernel buffers megabytes, so a writable
socket says little about it, and an event on it may be a minute away while the player plays.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReactorTime, ISystemHandle
from twisted.logger import Logger

from twistedmedia.wire.outbox import below_tls
from twistedmedia.wire.rounds import MOST_A_TURN, Rounds

_LOOKS_IN_STALL = (
    10  # in the time that a peer may take nothing: it is cut off at most a tenth too late
)

# A read costs a hop through a thread, so it should bring more than the kernel takes at once.
BLOCK_BYTES, LEAST_BLOCK_BYTES = 128 << 10, 16 << 10
_ALL_BYTES = 32 << 20  # what is read for all of them, unless they are more than 2,000

# Of struct tcp_info, since Linux 4.6 (include/uapi/linux/tcp.h): tcpi_unacked, which counts
# segments, tcpi_bytes_acked and tcpi_notsent_bytes.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


class Progress(NamedTuple):
    """A number that grows when a peer takes bytes, and whether there are any that it could take."""

    taken: int
    lags: bool


@dataclass(slots=True)
class _Reader:
    taken: int
    since_s: float


class SlowReaders:
    """The connections that let an answer wait, each cut off when it takes nothing for too long."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, stall_s: float) -> None:
        self._clock = clock
        self._stall_s = stall_s
        self._readers: dict[Any, _Reader] = {}
        self._rounds = Rounds(clock, stall_s / _LOOKS_IN_STALL, self._look_at_all)

    def watch(self, channel: Any) -> None:
        """`channel` has more to send than its peer takes now. May be called again."""
        if channel not in self._readers:
            self._readers[channel] = _Reader(progress_of(channel).taken, self._clock.seconds())
            self._rounds.begin()

    def forget(self, channel: Any) -> None:
        """The answer is sent, or the connection gone. Idempotent."""
        if self._readers.pop(channel, None) is not None and not self._readers:
            self._rounds.end()

    @property
    def block(self) -> int:
        """Bytes to read for one of them at a time: fewer when many wait, since each of them keeps
        in memory what its peer does not take.
        """
        return max(LEAST_BLOCK_BYTES, min(BLOCK_BYTES, _ALL_BYTES // max(1, len(self._readers))))

    def _look_at_all(self, now_s: float) -> bool:
        cut = 0
        for channel, reader in list(self._readers.items()):
            taken, lags = progress_of(channel)
            # Without anything to take it is we who are slow; but one that is told to go, and has
            # taken all, goes.
            is_waited_for = lags or getattr(channel.transport, "disconnecting", False)
            if taken != reader.taken or not is_waited_for:
                reader.taken, reader.since_s = taken, now_s
            elif now_s - reader.since_s >= self._stall_s:
                self._log.warn(
                    "cut off: {peer} took nothing for {stall_s:g} s",
                    peer=getattr(channel.getPeer(), "host", "a local peer"),
                    stall_s=self._stall_s,
                )
                self.forget(channel)
                channel.transport.abortConnection()
                cut += 1
                if cut == MOST_A_TURN:
                    return True
        return False


def progress_of(channel: Any) -> Progress:
    """How the peer of `channel` gets on: on TCP by what it has acknowledged, elsewhere by what was
    handed to the transport, which is paused by a peer that takes nothing.
    """
    handle = socket_of(channel.transport)
    if handle is not None:
        try:
            info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            unacknowledged, acknowledged, unsent = _TCP_INFO.unpack(info)
            return Progress(acknowledged, bool(unacknowledged or unsent))
        except (OSError, struct.error):
            pass  # a UNIX socket, or an old kernel
    transport = below_tls(channel.transport)
    taken = sum(request.sentLength for request in channel.requests)
    if isinstance(transport, FileDescriptor):  # what was written comes in blocks; some of it waits
        taken -= len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    return Progress(taken, channel.is_full)


def socket_of(transport: Any) -> Any | None:
    """The socket of a connection, below TLS if it is encrypted; None if it has none."""
    bare = below_tls(transport)
    return bare.getHandle() if ISystemHandle.providedBy(bare) else None


def descriptor_of(transport: Any) -> int | None:
    """The descriptor of a connection's socket, if it has one."""
    handle = socket_of(transport)
    return None if handle is None else int(handle.fileno())

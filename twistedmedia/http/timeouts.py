"""How long a slow peer is waited for.

Rounds in which somebody looks at all who are waited for.

One timer for thousands of connections costs less than one for each, and is late by a round at most.

Those who let us wait for a request: for its beginning, the rest of its head, its content.

A connection and some memory are all that it costs to hold a peer's place while it says nothing, so
nobody may say nothing for long; but a recording that comes in over a bad line is welcome.

Those who let an answer wait.

A player drains a prompt at 8 kB/s for minutes and is welcome; a peer that takes nothing at all is
cut off in the end. What counts is what the peer took: the kernel buffers megabytes, so a writable
socket says little about it, and an event on it may be a minute away while the player plays.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ISystemHandle
from twisted.logger import Logger

from twistedmedia.fairness.pace import RECENT_S, LeastRate, RecentRate
from twistedmedia.http.transport import below_tls

# Content is judged by what came in a window of this length, or of `stall_s` if that is shorter:
# long enough for a phone that changes its network.
_WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """What is asked of a peer.

    `header_s`: within that the whole head of a request has to come, counted from its first byte;
    that of the first has to begin within as much. `idle_s`: so long a kept connection may be
    without a request. `stall_s`: so long a reader may take nothing of its answer. `min_rate`: the
    bytes a second in which content has to come, while it is the peer that is slow.
    """

    header_s: float = 15.0
    idle_s: float = 75.0  # load balancers keep theirs for 60 s, and must be the first to close
    stall_s: float = 300.0
    min_rate: int = 64

    @property
    def window_s(self) -> float:
        """Over how long the rate is measured."""
        return min(_WINDOW_S, self.stall_s)


# Of those whose time is over in one round so many are sent away in a turn of the loop.
MOST_A_TURN = 50


class PeriodicScan:
    """Has somebody look, again and again, for as long as there is anything to see."""

    def __init__(self, clock: IReactorTime, every_s: float, look: Callable[[float], bool]) -> None:
        """`look` is called with the time every `every_s`, and says whether it is to be called again
        in the next turn of the loop, as it has not seen all.
        """
        self._clock = clock
        self._every_s = every_s
        self._look = look
        self._next: IDelayedCall | None = None

    def begin(self) -> None:
        """There is something to see. Idempotent."""
        if self._next is None:
            self._next = self._clock.callLater(self._every_s, self._go_round)

    def end(self) -> None:
        """There is nothing to see any more. Idempotent."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _go_round(self) -> None:
        self._next = None
        self.begin()  # before, so that what is seen can end it
        if self._look(self._clock.seconds()) and self._next is not None:
            self._next.reset(0)


_LOOKS = 10  # in the shortest of the times: nobody is told more than a tenth of it too late
_LONGEST_ROUND_S = RECENT_S / 3


class Sender(Protocol):
    """A connection that may owe us something; it is told once, and watched no more then."""

    content_received: int  # bytes of all content on this connection so far, as they came

    def waited_s(self) -> float:
        """How many seconds it had to wait for us since this was asked last."""

    def was_full(self) -> bool:
        """Whether it did not take its answers since this was asked last. Nothing was read then."""

    def on_idle_timeout(self) -> None:
        """No request has begun."""

    def on_head_timeout(self) -> None:
        """The head is not complete."""

    def content_is_late(self) -> None:
        """Content does not come, or not fast enough."""


@dataclass(slots=True)
class _Content:
    rate: LeastRate
    ends_s: float  # this window's end; time in which the sender waits for us moves it
    recent: RecentRate
    excused: bool = False  # in this window


class RequestTimeouts:
    """Whom we wait for, and since when."""

    def __init__(self, clock: IReactorTime, timeouts: Timeouts) -> None:
        self._clock = clock
        self._timeouts = timeouts
        self._idle: dict[Sender, float] = {}
        self._heads: dict[Sender, float] = {}
        self._contents: dict[Sender, _Content] = {}
        shortest_s = min(timeouts.header_s, timeouts.idle_s, timeouts.window_s)
        every_s = min(shortest_s / _LOOKS, _LONGEST_ROUND_S)
        self._rounds = PeriodicScan(clock, every_s, self._look_at_all)

    def await_request(self, sender: Sender) -> None:
        """`sender` may begin a request."""
        self._idle[sender] = self._clock.seconds()
        self._rounds.begin()

    def await_head(self, sender: Sender) -> None:
        """`sender` has begun a request, or has to begin its first."""
        self._idle.pop(sender, None)
        self._heads[sender] = self._clock.seconds()
        self._rounds.begin()

    def await_content(self, sender: Sender) -> None:
        """The content of `sender`'s request is to come."""
        window_s = self._timeouts.window_s
        rate = LeastRate(self._timeouts.min_rate, window_s)
        rate.is_met(sender.content_received, excused=True)
        now_s = self._clock.seconds()
        sender.waited_s()  # before this content
        recent = RecentRate(now_s, sender.content_received)
        self._contents[sender] = _Content(rate, now_s + window_s, recent)
        self._rounds.begin()

    def awaits_content(self, sender: Sender) -> bool:
        """Whether content of `sender` is to come."""
        return sender in self._contents

    def pace(self, sender: Sender) -> float | None:
        """How many bytes a second `sender` sent lately, None if that is not known, or if it owes
        nothing. One that has let us wait for a request for some seconds sends none.
        """
        now_s = self._clock.seconds()
        content = self._contents.get(sender)
        if content is not None:
            _note(sender, content, now_s)  # the last round may be a second ago
            return content.recent.bytes_per_s(sender.content_received)
        since_s = self._idle.get(sender, self._heads.get(sender))
        if since_s is None or now_s - since_s < RECENT_S:
            return None
        return 0.0

    def settle(self, sender: Sender) -> None:
        """`sender` owes nothing: its request is there, or it has gone. Idempotent."""
        self._idle.pop(sender, None)
        self._heads.pop(sender, None)
        self._contents.pop(sender, None)

    def forget(self, sender: Sender) -> None:
        """The connection is gone. Idempotent."""
        self.settle(sender)
        if not (self._idle or self._heads or self._contents):
            self._rounds.end()

    def _look_at_all(self, now_s: float) -> bool:
        idle = _overdue(self._idle, now_s - self._timeouts.idle_s)
        late = _overdue(self._heads, now_s - self._timeouts.header_s)
        for sender, content in self._contents.items():
            _note(sender, content, now_s)
        due = [sender for sender, content in self._contents.items() if now_s >= content.ends_s]
        # Some may have left meanwhile, because of what another was told.
        for sender in idle[:MOST_A_TURN]:
            if self._idle.pop(sender, None) is not None:
                sender.on_idle_timeout()
        for sender in late[:MOST_A_TURN]:
            if self._heads.pop(sender, None) is not None:
                sender.on_head_timeout()
        for sender in due[:MOST_A_TURN]:
            self._judge(sender, now_s)
        return max(len(idle), len(late), len(due)) > MOST_A_TURN

    def _judge(self, sender: Sender, now_s: float) -> None:
        content = self._contents.get(sender)
        if content is None:
            return
        content.ends_s = now_s + self._timeouts.window_s
        excused, content.excused = content.excused, False
        if not content.rate.is_met(sender.content_received, excused):
            del self._contents[sender]
            sender.content_is_late()


def _note(sender: Sender, content: _Content, now_s: float) -> None:
    """Note how much `sender` sent, and what was not its fault, since the last time."""
    waited_s = sender.waited_s()
    content.ends_s += waited_s
    content.recent.update(now_s, sender.content_received, waited_s)
    content.excused |= sender.was_full()


def _overdue(since: dict[Sender, float], latest_s: float) -> list[Sender]:
    return [sender for sender, since_s in since.items() if since_s <= latest_s]


_LOOKS_IN_STALL = (
    10  # in the time that a peer may take nothing: it is cut off at most a tenth too late
)

# A read costs a hop through a thread, so it should bring more than the kernel takes at once.
BLOCK_BYTES, LEAST_BLOCK_BYTES = 128 << 10, 16 << 10
_ALL_BYTES = 32 << 20  # what is read for all of them, unless they are more than 2,000

# Of struct tcp_info, since Linux 4.6 (include/uapi/linux/tcp.h): tcpi_unacked, which counts
# segments, tcpi_bytes_acked and tcpi_notsent_bytes.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


class TcpProgress(NamedTuple):
    """A number that grows when a peer takes bytes, and whether there are any that it could take."""

    taken: int
    lags: bool


@dataclass(slots=True)
class _Reader:
    taken: int
    since_s: float


class StallDetector:
    """The connections that let an answer wait, each cut off when it takes nothing for too long."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, stall_s: float) -> None:
        self._clock = clock
        self._stall_s = stall_s
        self._readers: dict[Any, _Reader] = {}
        self._rounds = PeriodicScan(clock, stall_s / _LOOKS_IN_STALL, self._look_at_all)

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


def progress_of(channel: Any) -> TcpProgress:
    """How the peer of `channel` gets on: on TCP by what it has acknowledged, elsewhere by what was
    handed to the transport, which is paused by a peer that takes nothing.
    """
    handle = socket_of(channel.transport)
    if handle is not None:
        try:
            info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            unacknowledged, acknowledged, unsent = _TCP_INFO.unpack(info)
            return TcpProgress(acknowledged, bool(unacknowledged or unsent))
        except (OSError, struct.error):
            pass  # a UNIX socket, or an old kernel
    transport = below_tls(channel.transport)
    taken = sum(request.sentLength for request in channel.requests)
    if isinstance(transport, FileDescriptor):  # what was written comes in blocks; some of it waits
        taken -= len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    return TcpProgress(taken, channel.is_full)


def socket_of(transport: Any) -> Any | None:
    """The socket of a connection, below TLS if it is encrypted; None if it has none."""
    bare = below_tls(transport)
    return bare.getHandle() if ISystemHandle.providedBy(bare) else None


def descriptor_of(transport: Any) -> int | None:
    """The descriptor of a connection's socket, if it has one."""
    handle = socket_of(transport)
    return None if handle is None else int(handle.fileno())

"""Timeouts for peers that are slow to send a request, or to read a response.

A peer that sends nothing costs a connection and some memory, so it may not do so for long. But slow
content over a bad line is welcome, and so is a player that reads a file at 8 kB/s for minutes. A
peer that reads nothing at all is cut off in the end. What counts is what the peer acknowledged: the
kernel buffers megabytes, so a writable socket says little, and its next event may be a minute away.

All peers are examined periodically. One timer for thousands of connections costs less than one for
each, and is late by one period at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from twistedmedia.fairness.pace import RECENT_S, LeastRate, RecentRate
from twistedmedia.http.transport import progress_of

# The rate of content is measured over this time, or over `stall_s` if that is shorter: long enough
# for a phone that changes its network.
_WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The limits for slow peers.

    `header_s`: the time for the head of a request, from its first byte. The first head of a
    connection also has to begin within this time. `idle_s`: how long a connection may be without a
    request. `stall_s`: how long the peer may read nothing of a response. `min_rate`: the least rate
    of content, in bytes a second, while the peer is the slow side.
    """

    header_s: float = 15.0
    idle_s: float = 75.0  # load balancers have 60 s, and must be the first to close
    stall_s: float = 300.0
    min_rate: int = 64

    @property
    def window_s(self) -> float:
        """The time over which the rate is measured."""
        return min(_WINDOW_S, self.stall_s)


# How many peers are timed out in one turn of the event loop.
MOST_A_TURN = 50


class PeriodicScan:
    """Calls a function periodically, while there is something to examine."""

    def __init__(self, clock: IReactorTime, every_s: float, scan: Callable[[float], bool]) -> None:
        """`scan` is called every `every_s` seconds with the time. It returns True to be called
        again in the next turn of the event loop, because it has not examined everything.
        """
        self._clock = clock
        self._every_s = every_s
        self._scan = scan
        self._next: IDelayedCall | None = None

    def begin(self) -> None:
        """Start the scans. Idempotent."""
        if self._next is None:
            self._next = self._clock.callLater(self._every_s, self._on_timer)

    def end(self) -> None:
        """Stop the scans. Idempotent."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _on_timer(self) -> None:
        self._next = None
        self.begin()  # before the scan, which may call `end`
        if self._scan(self._clock.seconds()) and self._next is not None:
            self._next.reset(0)


# In the shortest time limit: a peer is timed out at most a tenth of it too late.
_SCANS = 10
_LONGEST_PERIOD_S = RECENT_S / 3


class Sender(Protocol):
    """A connection whose peer has to send something. A timeout is reported once, and ends it."""

    @property
    def content_received(self) -> int:
        """The bytes of all content on this connection, as it is coded."""

    def waited_s(self) -> float:
        """Return how many seconds the peer had to wait for this side since the last call."""

    def was_full(self) -> bool:
        """Whether the peer did not take its responses since the last call: nothing was read."""

    def on_idle_timeout(self) -> None:
        """Called if no request has begun."""

    def on_head_timeout(self) -> None:
        """Called if the head is incomplete."""

    def on_content_timeout(self) -> None:
        """Called if content does not arrive, or too slowly."""


@dataclass(slots=True)
class _Content:
    rate: LeastRate
    ends_s: float  # the end of this window; it moves while the peer has to wait
    recent: RecentRate
    is_excused: bool = False  # in this window the peer was not the slow side


class RequestTimeouts:
    """The connections whose peers have to send something, and since when."""

    def __init__(self, clock: IReactorTime, timeouts: Timeouts) -> None:
        self._clock = clock
        self._timeouts = timeouts
        self._idle: dict[Sender, float] = {}
        self._heads: dict[Sender, float] = {}
        self._contents: dict[Sender, _Content] = {}
        shortest_s = min(timeouts.header_s, timeouts.idle_s, timeouts.window_s)
        every_s = min(shortest_s / _SCANS, _LONGEST_PERIOD_S)
        self._scans = PeriodicScan(clock, every_s, self._scan)

    def await_request(self, sender: Sender) -> None:
        """Wait for a request on a connection that has had one."""
        self._idle[sender] = self._clock.seconds()
        self._scans.begin()

    def await_head(self, sender: Sender) -> None:
        """Wait for the rest of a head, or for the first head."""
        self._idle.pop(sender, None)
        self._heads[sender] = self._clock.seconds()
        self._scans.begin()

    def await_content(self, sender: Sender) -> None:
        """Wait for the content of a request."""
        window_s = self._timeouts.window_s
        rate = LeastRate(self._timeouts.min_rate, window_s)
        rate.is_met(sender.content_received, excused=True)
        now_s = self._clock.seconds()
        sender.waited_s()  # drops the time before this content
        recent = RecentRate(now_s, sender.content_received)
        self._contents[sender] = _Content(rate, now_s + window_s, recent)
        self._scans.begin()

    def awaits_content(self, sender: Sender) -> bool:
        """Whether content is expected from `sender`."""
        return sender in self._contents

    def pace(self, sender: Sender) -> float | None:
        """Return how many bytes of content a second arrived lately: 0 if no request has begun for
        some seconds, None if the rate is unknown or nothing is expected.
        """
        now_s = self._clock.seconds()
        content = self._contents.get(sender)
        if content is not None:
            _measure(sender, content, now_s)  # the last scan may be a second ago
            return content.recent.bytes_per_s(sender.content_received)
        since_s = self._idle.get(sender, self._heads.get(sender))
        if since_s is None or now_s - since_s < RECENT_S:
            return None
        return 0.0

    def settle(self, sender: Sender) -> None:
        """Wait for nothing: the request is complete, or was ended. Idempotent."""
        self._idle.pop(sender, None)
        self._heads.pop(sender, None)
        self._contents.pop(sender, None)

    def forget(self, sender: Sender) -> None:
        """Forget a lost connection. Idempotent."""
        self.settle(sender)
        if not (self._idle or self._heads or self._contents):
            self._scans.end()

    def _scan(self, now_s: float) -> bool:
        idle = _overdue(self._idle, now_s - self._timeouts.idle_s)
        late = _overdue(self._heads, now_s - self._timeouts.header_s)
        for sender, content in self._contents.items():
            _measure(sender, content, now_s)
        due = [sender for sender, content in self._contents.items() if now_s >= content.ends_s]
        # A timeout of one connection may have ended another.
        for sender in idle[:MOST_A_TURN]:
            if self._idle.pop(sender, None) is not None:
                sender.on_idle_timeout()
        for sender in late[:MOST_A_TURN]:
            if self._heads.pop(sender, None) is not None:
                sender.on_head_timeout()
        for sender in due[:MOST_A_TURN]:
            self._end_window(sender, now_s)
        return max(len(idle), len(late), len(due)) > MOST_A_TURN

    def _end_window(self, sender: Sender, now_s: float) -> None:
        content = self._contents.get(sender)
        if content is None:
            return
        content.ends_s = now_s + self._timeouts.window_s
        is_excused, content.is_excused = content.is_excused, False
        if not content.rate.is_met(sender.content_received, is_excused):
            del self._contents[sender]
            sender.on_content_timeout()


def _measure(sender: Sender, content: _Content, now_s: float) -> None:
    """Add what `sender` sent since the last call, and whether it had to wait."""
    waited_s = sender.waited_s()
    content.ends_s += waited_s
    content.recent.update(now_s, sender.content_received, waited_s)
    content.is_excused |= sender.was_full()


def _overdue(since: dict[Sender, float], latest_s: float) -> list[Sender]:
    return [sender for sender, since_s in since.items() if since_s <= latest_s]


# Read from a file at a time. Each read is a job in a thread, so it should be more than the kernel
# takes at once.
BLOCK_BYTES, LEAST_BLOCK_BYTES = 128 << 10, 16 << 10
_ALL_BYTES = 32 << 20  # the blocks of all slow readers together, up to 2,000 of them


@dataclass(slots=True)
class _Reader:
    taken: int
    since_s: float


class StallDetector:
    """Watches connections whose peers are slow to read, and cuts them off if they read nothing."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, stall_s: float) -> None:
        self._clock = clock
        self._stall_s = stall_s
        self._readers: dict[Any, _Reader] = {}
        self._scans = PeriodicScan(clock, stall_s / _SCANS, self._scan)

    def watch(self, channel: Any) -> None:
        """Watch `channel`, which has more to send than its peer takes now. Idempotent."""
        if channel not in self._readers:
            self._readers[channel] = _Reader(progress_of(channel).taken, self._clock.seconds())
            self._scans.begin()

    def forget(self, channel: Any) -> None:
        """Stop watching: the response is sent, or the connection lost. Idempotent."""
        if self._readers.pop(channel, None) is not None and not self._readers:
            self._scans.end()

    @property
    def block(self) -> int:
        """The bytes to read from a file at a time: fewer for many slow readers, because each keeps
        a block in memory.
        """
        return max(LEAST_BLOCK_BYTES, min(BLOCK_BYTES, _ALL_BYTES // max(1, len(self._readers))))

    def _scan(self, now_s: float) -> bool:
        cut = 0
        for channel, reader in list(self._readers.items()):
            taken, lags = progress_of(channel)
            # If there is nothing to read, this side is the slow one. But a connection that is being
            # closed has to end.
            must_act = lags or getattr(channel.transport, "disconnecting", False)
            if taken != reader.taken or not must_act:
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

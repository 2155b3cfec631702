"""Those who let us wait for a request: for its beginning, the rest of its head, its content.

A connection and some memory are all that it costs to hold a peer's place while it says nothing, so
nobody may say nothing for long; but a recording that comes in over a bad line is welcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from twistedmedia.limits import RECENT_S, LeastRate, RecentRate
from twistedmedia.wire.patience import Patience
from twistedmedia.wire.rounds import MOST_A_TURN, Rounds

_LOOKS = 10  # in the shortest of the times: nobody is told more than a tenth of it too late
_LONGEST_ROUND_S = RECENT_S / 3


class Sender(Protocol):
    """A connection that may owe us something; it is told once, and watched no more then."""

    content_received: int  # bytes of all content on this connection so far, as they came

    def waited_s(self) -> float:
        """How many seconds it had to wait for us since this was asked last."""

    def was_full(self) -> bool:
        """Whether it did not take its answers since this was asked last. Nothing was read then."""

    def is_idle_too_long(self) -> None:
        """No request has begun."""

    def head_is_late(self) -> None:
        """The head is not complete."""

    def content_is_late(self) -> None:
        """Content does not come, or not fast enough."""


@dataclass(slots=True)
class _Content:
    rate: LeastRate
    ends_s: float  # this window's end; time in which the sender waits for us moves it
    recent: RecentRate
    excused: bool = False  # in this window


class SlowSenders:
    """Whom we wait for, and since when."""

    def __init__(self, clock: IReactorTime, patience: Patience) -> None:
        self._clock = clock
        self._patience = patience
        self._idle: dict[Sender, float] = {}
        self._heads: dict[Sender, float] = {}
        self._contents: dict[Sender, _Content] = {}
        shortest_s = min(patience.header_s, patience.idle_s, patience.window_s)
        every_s = min(shortest_s / _LOOKS, _LONGEST_ROUND_S)
        self._rounds = Rounds(clock, every_s, self._look_at_all)

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
        window_s = self._patience.window_s
        rate = LeastRate(self._patience.min_rate, window_s)
        rate.kept(sender.content_received, excused=True)
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
        idle = _overdue(self._idle, now_s - self._patience.idle_s)
        late = _overdue(self._heads, now_s - self._patience.header_s)
        for sender, content in self._contents.items():
            _note(sender, content, now_s)
        due = [sender for sender, content in self._contents.items() if now_s >= content.ends_s]
        # Some may have left meanwhile, because of what another was told.
        for sender in idle[:MOST_A_TURN]:
            if self._idle.pop(sender, None) is not None:
                sender.is_idle_too_long()
        for sender in late[:MOST_A_TURN]:
            if self._heads.pop(sender, None) is not None:
                sender.head_is_late()
        for sender in due[:MOST_A_TURN]:
            self._judge(sender, now_s)
        return max(len(idle), len(late), len(due)) > MOST_A_TURN

    def _judge(self, sender: Sender, now_s: float) -> None:
        content = self._contents.get(sender)
        if content is None:
            return
        content.ends_s = now_s + self._patience.window_s
        excused, content.excused = content.excused, False
        if not content.rate.kept(sender.content_received, excused):
            del self._contents[sender]
            sender.content_is_late()


def _note(sender: Sender, content: _Content, now_s: float) -> None:
    """Note how much `sender` sent, and what was not its fault, since the last time."""
    waited_s = sender.waited_s()
    content.ends_s += waited_s
    content.recent.look(now_s, sender.content_received, waited_s)
    content.excused |= sender.was_full()


def _overdue(since: dict[Sender, float], latest_s: float) -> list[Sender]:
    return [sender for sender, since_s in since.items() if since_s <= latest_s]

"""How long a slow peer is waited for, and the rounds in which those who are waited for are seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# Content is judged by what came in a window of this length, or of `stall_s` if that is shorter:
# long enough for a phone that changes its network.
_WINDOW_S = 30.0
# Of those whose patience ends at once so many are sent away in a turn of the loop.
MOST_A_TURN = 50


@dataclass(frozen=True, slots=True)
class Patience:
    """What is asked of a peer.

    `header_s`: within that the whole head of a request has to come, counted from its first byte;
    that of the first has to begin within as much. `idle_s`: so long a kept connection may be
    without a request. `stall_s`: so long a reader may take nothing of its answer. `min_rate`: the
    bytes a second in which content has to come, while it is the peer that is slow.
    """

    header_s: float = 15.0
    idle_s: float = 60.0
    stall_s: float = 300.0
    min_rate: int = 64

    @property
    def window_s(self) -> float:
        """Over how long the rate is measured."""
        return min(_WINDOW_S, self.stall_s)


class Rounds:
    """Has somebody look, again and again, for as long as there is anything to see. One timer for
    thousands of connections costs less than one for each, and is late by a round at most.
    """

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

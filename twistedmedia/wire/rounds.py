"""Rounds in which somebody looks at all who are waited for.

One timer for thousands of connections costs less than one for each, and is late by a round at most.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# Of those whose time is over in one round so many are sent away in a turn of the loop.
MOST_A_TURN = 50


class Rounds:
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

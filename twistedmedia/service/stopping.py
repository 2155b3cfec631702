"""The steps in which a service stops, each under a deadline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import TimeoutError, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.deferreds import shield

_log = Logger()
_MOST_NAMED = 10  # of what a step still waits for


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. `act` may return a Deferred or a coroutine, which is waited for until
    `limit_s`. `what` names the step in the log, and `left` names what it still waits for.
    """

    what: str
    act: Callable[[], Any]
    limit_s: float
    left: Callable[[], Sequence[str]] = tuple


async def take_steps(clock: IReactorTime, steps: Sequence[Step]) -> None:
    """Take the steps in their order. One that fails, or is late, is logged, and the next one is
    taken all the same. A late step goes on beside the others: a thread cannot be stopped.
    """
    for step in steps:
        try:
            done = shield(maybeDeferred(step.act), unclaimed=_ended_late)
            await done.addTimeout(step.limit_s, clock)
        except TimeoutError:
            _log.warn(
                "stopping: {what} took longer than {limit_s:g} s; still running: {left}",
                what=step.what,
                limit_s=step.limit_s,
                left=_told(step.left()),
            )
        except Exception:  # noqa: BLE001
            _log.failure("stopping: {what} failed", what=step.what)


def _told(left: Sequence[str]) -> str:
    more = len(left) - _MOST_NAMED
    told = [*left[:_MOST_NAMED], *([f"and {more} more"] if more > 0 else [])]
    return "; ".join(told) or "unknown"


def _ended_late(outcome: object) -> None:
    if isinstance(outcome, Failure):
        _log.failure("a step of stopping failed after its deadline", outcome)

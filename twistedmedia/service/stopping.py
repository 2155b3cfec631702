"""The steps in which a service stops, each with a time limit."""

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
_MAX_NAMED = 10  # pending items that the log names


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `run` may return a Deferred or a coroutine, which may take `limit_s`.

    `name` is what the log calls the step. `pending` returns names of what it still waits for.
    """

    name: str
    run: Callable[[], Any]
    limit_s: float
    pending: Callable[[], Sequence[str]] = tuple


async def run_steps(clock: IReactorTime, steps: Sequence[Step]) -> None:
    """Run the steps in order. If one fails or exceeds its limit, log that and go on with the next.
    A step that exceeds its limit continues beside the others: a thread cannot be stopped.
    """
    for step in steps:
        try:
            done = shield(maybeDeferred(step.run), unclaimed=_log_late_failure)
            await done.addTimeout(step.limit_s, clock)
        except TimeoutError:
            _log.warn(
                "stopping: {name} took longer than {limit_s:g} s; still running: {pending}",
                name=step.name,
                limit_s=step.limit_s,
                pending=_summary(step.pending()),
            )
        except Exception:  # noqa: BLE001
            _log.failure("stopping: {name} failed", name=step.name)


def _summary(pending: Sequence[str]) -> str:
    more = len(pending) - _MAX_NAMED
    named = [*pending[:_MAX_NAMED], *([f"and {more} more"] if more > 0 else [])]
    return "; ".join(named) or "unknown"


def _log_late_failure(outcome: object) -> None:
    if isinstance(outcome, Failure):
        _log.failure("a step of stopping failed after its time limit", outcome)

"""Waiting for work that must not end with the one who waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def shielded(
    work: Deferred[T], unclaimed: Callable[[T | Failure], object] | None = None
) -> Deferred[T]:
    """A Deferred that fires as `work` does and can be cancelled without cancelling `work`.

    Klein cancels a route's Deferred when its client goes, and a cancelled Deferred cancels what it
    waits for; a thread cannot be stopped, and a publish must not be. `unclaimed` is called with the
    outcome of `work` when the waiting was cancelled before it came.
    """
    cancelled = False

    def cancel(_: Deferred[T]) -> None:
        nonlocal cancelled
        cancelled = True

    waiting: Deferred[T] = Deferred(cancel)

    def tell(outcome: T | Failure) -> None:
        if not cancelled:
            waiting.callback(outcome)  # a Failure goes the errback's way
        elif unclaimed is not None:
            unclaimed(outcome)

    work.addBoth(tell)
    return waiting

"""Letting go of what an error was raised through. Pure.

An exception refers to the frames that it passed, and these refer to whatever they worked with: the
content of an upload, a page that was being sent. A frame that refers to the exception in turn is a
reference cycle. It would keep all of that in memory until the garbage collector finds it.

Waiting for work that must not end with the one who waits.

Klein cancels a route's Deferred when its client goes, and a cancelled Deferred cancels what it
waits for; a thread cannot be stopped, and a publish must not be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


def drop_traceback(error: BaseException | None) -> None:
    """Have `error`, and the errors that led to it, refer to no frames any more, nor to each other.
    To be called by the last one that handles an error, and by one that keeps it.
    """
    errors = [error]
    while errors:
        each = errors.pop()
        # An error that is raised anew can have led to the one that led to it: then it is met again.
        if each is not None:
            errors += (each.__cause__, each.__context__)
            each.__traceback__ = each.__cause__ = each.__context__ = None


T = TypeVar("T")


class Shield(Generic[T]):
    """What work will come to, and one who waits for it, whose leaving has no effect on the work."""

    def __init__(self, unclaimed: Callable[[T | Failure], object] | None = None) -> None:
        """`unclaimed` is called with the outcome when the waiting was cancelled before it came."""
        self.waiting: Deferred[T] = Deferred(self._cancel)
        self._unclaimed = unclaimed
        self._cancelled = False

    def tell(self, outcome: T | Failure) -> None:
        """The work has ended, in a value or a failure."""
        if not self._cancelled:
            self.waiting.callback(outcome)  # a Failure goes the errback's way
            return
        if self._unclaimed is not None:
            self._unclaimed(outcome)
        if isinstance(outcome, Failure):
            outcome.tb = None
            drop_traceback(outcome.value)

    def _cancel(self, _: Deferred[Any]) -> None:
        self._cancelled = True


def shield(
    work: Deferred[T], unclaimed: Callable[[T | Failure], object] | None = None
) -> Deferred[T]:
    """A Deferred that fires as `work` does and can be cancelled without cancelling `work`."""
    outcome: Shield[T] = Shield(unclaimed)
    work.addBoth(outcome.tell)
    return outcome.waiting

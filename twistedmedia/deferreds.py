"""Deferreds whose waiter may be cancelled, and errors that keep no frames in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


def drop_traceback(error: BaseException | None) -> None:
    """Remove the tracebacks and the links between `error` and the errors that led to it. Call this
    where an error is handled last, and where one is kept.

    An exception refers to the frames that it passed, and these to what they worked with, such as
    the content of an upload. If a frame refers to the exception as well, that is a reference cycle:
    all of it stays in memory until the garbage collector finds it.
    """
    errors = [error]
    while errors:
        each = errors.pop()
        # An error that is raised again can be a cause of its own causes: then it is met twice.
        if each is not None:
            errors += (each.__cause__, each.__context__)
            each.__traceback__ = each.__cause__ = each.__context__ = None


T = TypeVar("T")


class Shield(Generic[T]):
    """Work, and `waiting`, a Deferred that can be cancelled without an effect on the work."""

    def __init__(self, unclaimed: Callable[[T | Failure], object] | None = None) -> None:
        """`unclaimed` is called with the outcome if `waiting` was cancelled before."""
        self.waiting: Deferred[T] = Deferred(self._cancel)
        self._unclaimed = unclaimed
        self._cancelled = False

    def finish(self, outcome: T | Failure) -> None:
        """End the work with a value or a failure."""
        if not self._cancelled:
            self.waiting.callback(outcome)  # a Failure makes it call its errbacks
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
    """A Deferred that fires as `work` does and can be cancelled without cancelling `work`.

    Klein cancels a route's Deferred when its client disconnects, and a cancelled Deferred cancels
    what it waits for. But a thread cannot be stopped, and a publish must not be.
    """
    shield: Shield[T] = Shield(unclaimed)
    work.addBoth(shield.finish)
    return shield.waiting

"""A look at the storage that many may ask for: one look at a time, which counts for a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twistedmedia.store.threads import DiskThreads

T = TypeVar("T")

_FRESH_S = 1.0


class Watch(Generic[T]):
    """Calls a function that blocks in a thread, for all who want to know its result.

    While the storage hangs, only one thread hangs with it, however many ask.
    """

    def __init__(
        self,
        threads: DiskThreads,
        function: Callable[[], T],
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now_s` is a clock in seconds."""
        self._threads = threads
        self._function = function
        self._now_s = now_s
        self._waiting: list[Deferred[T]] = []
        self._last: T | None = None
        self._fresh_until_s = 0.0

    def look(self) -> Deferred[T]:
        """Fires with the function's result, which may be a second old. Can be cancelled: that ends
        the waiting, not the look.
        """
        if self._last is not None and self._now_s() < self._fresh_until_s:
            return succeed(self._last)
        waiting: Deferred[T] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if not self._threads.busy:
            self._threads.run(self._function).addBoth(self._seen)
        return waiting

    def _seen(self, result: T | Failure) -> None:
        if not isinstance(result, Failure):
            self._last, self._fresh_until_s = result, self._now_s() + _FRESH_S
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(result)  # a Failure goes the errback's way

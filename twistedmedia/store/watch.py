"""A look at the storage that many may ask for: one look at a time, which counts for a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twistedmedia.store.threads import OWN_WORK, DiskThreads

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
        self._waiting: dict[Deferred[T], None] = {}  # in the order in which they asked
        self._last: T | None = None
        self._fresh_until_s = 0.0

    def look(self, *, afresh: bool = False) -> Deferred[T]:
        """Fires with the function's result, which may be a second old unless it is wanted `afresh`.
        Can be cancelled: that ends the waiting, not the look.
        """
        if not afresh and self._last is not None and self._now_s() < self._fresh_until_s:
            return succeed(self._last)
        waiting: Deferred[T] = Deferred(self._leave)
        self._waiting[waiting] = None
        if not self._threads.busy:
            self._threads.run(self._function, caller=OWN_WORK).addBoth(self._seen)
        return waiting

    def _leave(self, waiting: Deferred[T]) -> None:
        self._waiting.pop(waiting, None)  # it is not there while those before it are told

    def _seen(self, result: T | Failure) -> None:
        if not isinstance(result, Failure):
            self._last, self._fresh_until_s = result, self._now_s() + _FRESH_S
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if not each.called:  # one of those before has had it cancelled
                each.callback(result)  # a Failure goes the errback's way

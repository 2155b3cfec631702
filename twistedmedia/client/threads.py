"""Work in threads on something that one thread at a time may touch, such as an open file.

A thread cannot be cancelled: whoever stops waiting for its job leaves it running. What comes next
on the same file, above all its closing, takes its turn behind that job.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(reactor: Any, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
    """Do `work` in a thread of the reactor's pool. Fires with what it returns."""
    done: Deferred[T] = deferToThreadPool(reactor, reactor.getThreadPool(), work, *args, **kwargs)
    return done


def opened_in_thread(
    reactor: Any, work: Callable[[], T], close: Callable[[T], object]
) -> Deferred[T]:
    """Do `work` in a thread, which opens something. Fires with it; it is closed by `close` when
    the Deferred was cancelled before.
    """
    opened: Deferred[T] = Deferred()

    def deliver(result: T) -> None:
        if opened.called:
            close(result)
        else:
            opened.callback(result)

    def fail(failure: Failure) -> None:
        if not opened.called:
            opened.errback(failure)

    in_thread(reactor, work).addCallbacks(deliver, fail)
    return opened


class Jobs:
    """The jobs of one owner, one at a time."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._lock = Lock()

    def take(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Do `work` in a thread when no other job of this owner runs. Fires with its result."""

        def alone() -> T:
            with self._lock:
                return work(*args, **kwargs)

        return in_thread(self._reactor, alone)

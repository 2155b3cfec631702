"""Jobs in threads on a resource that only one thread at a time may use, such as an open file.

A thread cannot be cancelled: cancelling the Deferred leaves the job running. The next job on the
same resource, above all its closing, waits for that job.
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
    """Call `work` in a thread of the reactor's pool. Fires with its result."""
    done: Deferred[T] = deferToThreadPool(reactor, reactor.getThreadPool(), work, *args, **kwargs)
    return done


def open_in_thread(
    reactor: Any, work: Callable[[], T], close: Callable[[T], object]
) -> Deferred[T]:
    """Call `work`, which opens something, in a thread. Fires with its result, or passes that to
    `close` if the Deferred was cancelled meanwhile.
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


class SerialJobs:
    """Runs the jobs of one owner one at a time."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._lock = Lock()

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call `work` in a thread while no other job of this owner runs. Fires with its result."""

        def alone() -> T:
            with self._lock:
                return work(*args, **kwargs)

        return in_thread(self._reactor, alone)

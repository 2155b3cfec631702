"""Threads for blocking work: pools of our own, and lanes that keep one owner's jobs in order.

The reactor's own pool is not used: DNS shares it, so ten slow writes would stop every look-up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from twistedmedia.shielding import shielded

P = ParamSpec("P")
T = TypeVar("T")


class DiskThreads:
    """A pool of threads for one kind of work.

    It is started in `startService`, never before: threads do not survive the fork of a daemon.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, threads: int) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name=name)
        # A sync can take seconds; one thread is always left for jobs that do not sync.
        self._syncing = DeferredSemaphore(max(1, threads - 1))
        self._outstanding = 0
        self._waiting_for_idle: list[Deferred[None]] = []

    def start(self) -> None:
        """Jobs may run from now on."""
        self._pool.start()

    def stop(self) -> None:
        """Wait, blocking, for the threads to end. Wait for `idle` before."""
        if self._pool.started:
            self._pool.stop()

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Fires with what `function` returns in a thread. Cancelling it leaves the job alone."""
        self._outstanding += 1
        job = deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs)
        return shielded(job.addBoth(self._ended))

    def run_syncing(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """As `run`, for a job that syncs: at most all but one of the threads do so at a time."""
        self._outstanding += 1  # counts while it waits for its turn as well
        job: Deferred[T] = self._syncing.run(lambda: self.run(function, *args, **kwargs))
        return shielded(job.addBoth(self._ended))

    def idle(self) -> Deferred[None]:
        """Fires when no job is queued or running."""
        waiting: Deferred[None] = Deferred()
        self._waiting_for_idle.append(waiting)
        self._tell_idle()
        return waiting

    def _ended(self, result: T) -> T:
        self._outstanding -= 1
        self._tell_idle()
        return result

    def _tell_idle(self) -> None:
        if self._outstanding == 0:
            waiting, self._waiting_for_idle = self._waiting_for_idle, []
            for each in waiting:
                each.callback(None)


class Lane:
    """The jobs of one owner, one after the other: a job starts when the one before it has ended,
    whether or not anybody still waits for that. So a descriptor that is closed in its lane is never
    closed beside a write.
    """

    def __init__(self) -> None:
        self._running = False
        self._queue: deque[Callable[[], None]] = deque()

    def run(
        self, run: Callable[..., Deferred[T]], function: Callable[..., T], *args: Any
    ) -> Deferred[T]:
        """Fires with what `run(function, *args)` fires with; `run` is a method of `DiskThreads`."""
        result: Deferred[T] = Deferred()

        def start() -> None:
            self._running = True
            run(function, *args).addBoth(end)

        def end(outcome: T | Failure) -> None:
            self._running = False
            if self._queue:
                self._queue.popleft()()
            result.callback(outcome)

        if self._running:
            self._queue.append(start)
        else:
            start()
        return shielded(result)

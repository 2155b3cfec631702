"""Threads for blocking work: pools of our own, and lanes that keep one owner's jobs in order.

The reactor's own pool is not used: DNS shares it, so ten slow writes would stop every look-up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from twistedmedia.shielding import Outcome

T = TypeVar("T")
Job = Callable[[], Any]


class DiskThreads:
    """A pool of threads for one kind of work.

    It is started in `startService`, never before: threads do not survive the fork of a daemon.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, threads: int) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name=name)
        # A process that ends by a failure must not be kept alive by threads that wait for work.
        self._pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]
        # A sync can take seconds; one thread is always left for jobs that do not sync.
        self._may_sync = max(1, threads - 1)
        self._waiting_to_sync: deque[tuple[Job, Callable[[Any], None]]] = deque()
        self._outstanding = 0
        self._waiting_for_idle: list[Deferred[None]] = []

    def start(self) -> None:
        """Jobs may run from now on."""
        self._pool.start()

    def stop(self) -> None:
        """Wait, blocking, for the threads to end. Wait for `idle` before."""
        if self._pool.started:
            self._pool.stop()

    def run(
        self,
        function: Callable[..., T],
        *args: Any,
        syncing: bool = False,
        unclaimed: Callable[[T | Failure], object] | None = None,
    ) -> Deferred[T]:
        """Fires with what `function(*args)` returns in a thread. Cancelling ends the waiting, not
        the job; `unclaimed` is told what came of it then.

        Of jobs that are `syncing` at most all but one of the threads run at a time.
        """
        outcome: Outcome[T] = Outcome(unclaimed)
        self.submit(lambda: function(*args), outcome.tell, syncing)
        return outcome.waiting

    def submit(self, job: Job, told: Callable[[Any], None], syncing: bool) -> None:
        """Run `job` in a thread and call `told`, on the reactor, with its result or Failure."""
        self._outstanding += 1
        if not syncing:
            self._start(job, told, self._ended)
        elif self._may_sync:
            self._may_sync -= 1
            self._start(job, told, self._synced)
        else:
            self._waiting_to_sync.append((job, told))

    @property
    def busy(self) -> bool:
        """Whether a job is queued or running."""
        return self._outstanding > 0

    def idle(self) -> Deferred[None]:
        """Fires when no job is queued or running."""
        waiting: Deferred[None] = Deferred()
        self._waiting_for_idle.append(waiting)
        self._tell_idle()
        return waiting

    def _start(self, job: Job, told: Callable[[Any], None], ended: Callable[[], None]) -> None:
        def back(_: bool, result: object) -> None:  # in the thread
            self._reactor.callFromThread(on_reactor, result)

        def on_reactor(result: object) -> None:
            ended()
            told(result)
            self._tell_idle()

        self._pool.callInThreadWithCallback(back, job)

    def _ended(self) -> None:
        self._outstanding -= 1

    def _synced(self) -> None:
        self._outstanding -= 1
        if self._waiting_to_sync:
            job, told = self._waiting_to_sync.popleft()
            self._start(job, told, self._synced)
        else:
            self._may_sync += 1

    def _tell_idle(self) -> None:
        if self._outstanding == 0 and self._waiting_for_idle:
            waiting, self._waiting_for_idle = self._waiting_for_idle, []
            for each in waiting:
                each.callback(None)


class Lane:
    """The jobs of one owner, one after the other: a job starts when the one before it has ended,
    whether or not anybody still waits for that. So a descriptor that is closed in its lane is never
    closed beside a write.
    """

    def __init__(self, threads: DiskThreads) -> None:
        self._threads = threads
        self._running = False
        self._queue: deque[Callable[[], None]] = deque()

    def run(self, function: Callable[..., T], *args: Any, syncing: bool = False) -> Deferred[T]:
        """As `DiskThreads.run`, after the jobs before it."""
        outcome: Outcome[T] = Outcome()

        def start() -> None:
            self._running = True
            self._threads.submit(lambda: function(*args), told, syncing)

        def told(result: T | Failure) -> None:
            self._running = False
            if self._queue:
                self._queue.popleft()()
            outcome.tell(result)

        if self._running:
            self._queue.append(start)
        else:
            start()
        return outcome.waiting

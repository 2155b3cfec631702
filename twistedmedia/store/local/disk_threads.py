"""Threads for blocking work: pools of our own, and lanes that keep one owner's jobs in order.

The reactor's own pool is not used: DNS shares it, so ten slow writes would stop every look-up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from twistedmedia.deferreds import Shield
from twistedmedia.fairness.loop_queue import RoundRobin

T = TypeVar("T")
Job = partial[Any]
OWN_WORK = ""  # the caller of what the service does for itself
# Jobs that the threads have at a time, each. One runs. The other follows without a wait for the
# event loop.
_AHEAD = 2


_MORE = object()  # what a job returns that is to be run again


class _Submitted(NamedTuple):
    job: Job
    told: Callable[[Any], None]
    syncing: bool
    caller: str


def in_steps(steps: Generator[None, None, T]) -> T:
    """A job in several turns of its caller: each ends where `steps` yields. The job's result is
    what `steps` returns.
    """
    try:
        next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    return cast(T, _MORE)


class DiskThreads:
    """A pool of threads for one kind of work. Callers take turns, however many jobs each has.

    It is started in `startService`, never before: threads do not survive the fork of a daemon.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, threads: int) -> None:
        self._reactor = reactor
        self._name = name
        # Twisted's ThreadPool leaves a reference cycle for each job.
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._count = threads
        self._threads: list[Thread] = []
        # A sync can take seconds; one thread is always left for jobs that do not sync.
        self._may_sync = max(1, threads - 1)
        self._room = _AHEAD * threads  # for so many jobs more in the threads' queue
        # Jobs that the threads do not have yet, by caller.
        self._waiting: RoundRobin[str, _Submitted] = RoundRobin()
        self._waiting_to_sync: RoundRobin[str, _Submitted] = RoundRobin()
        self._outstanding: set[Job] = set()
        self._waiting_for_idle: list[Deferred[None]] = []
        self.hurries = False  # work in many jobs, whose result nobody needs any more, ends early

    def start(self) -> None:
        """Jobs may run from now on."""
        for number in range(self._count):
            # A process that ends by a failure must not be kept alive by threads that wait for work.
            thread = Thread(target=self._do_work, name=f"{self._name}-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Wait, blocking, for the threads to end. Wait for `idle` before."""
        for _ in self._threads:
            self._work.put(None)
        while self._threads:
            self._threads.pop().join()

    def run(
        self,
        function: Callable[..., T],
        *args: Any,
        caller: str,
        syncing: bool = False,
        unclaimed: Callable[[T | Failure], object] | None = None,
    ) -> Deferred[T]:
        """Fires with what `function(*args)` returns in a thread. Cancelling ends the waiting, not
        the job; `unclaimed` is told what came of it then. The job is done in a turn of `caller`.

        Of jobs that are `syncing` at most all but one of the threads run at a time.
        """
        outcome: Shield[T] = Shield(unclaimed)
        self.submit(partial(function, *args), outcome.finish, syncing, caller)
        return outcome.waiting

    def submit(self, job: Job, told: Callable[[Any], None], syncing: bool, caller: str) -> None:
        """Run `job` in a thread and call `told`, on the reactor, with its result or Failure."""
        self._outstanding.add(job)
        self._wait(_Submitted(job, told, syncing, caller))
        self._start()

    @property
    def busy(self) -> bool:
        """Whether a job is queued or running."""
        return bool(self._outstanding)

    @property
    def jobs(self) -> list[str]:
        """The jobs that are queued or running: how many there are of each function."""
        functions = (job.args[0] if job.func is in_steps else job.func for job in self._outstanding)
        counts = Counter(function.__name__.strip("_") for function in functions)
        return [f"{self._name}: {count} x {what}" for what, count in sorted(counts.items())]

    def idle(self) -> Deferred[None]:
        """Fires when no job is queued or running. May be cancelled."""
        waiting: Deferred[None] = Deferred()
        self._waiting_for_idle.append(waiting)
        self._tell_idle()
        return waiting

    def _wait(self, submitted: _Submitted) -> None:
        waiting = self._waiting_to_sync if submitted.syncing else self._waiting
        waiting.add(submitted.caller, submitted)

    def _start(self) -> None:
        """Give the threads the jobs for which they have room."""
        while self._room:
            if self._may_sync and self._waiting_to_sync:  # they leave room for the others
                self._may_sync -= 1
                self._give(self._waiting_to_sync.next())
            elif self._waiting:
                self._give(self._waiting.next())
            else:
                break

    def _give(self, submitted: _Submitted) -> None:
        job, told, syncing, _ = submitted
        self._room -= 1

        def work() -> None:  # in the thread
            # No frame of a thread may hold a failure, which refers to it: that is a cycle.
            self._reactor.callFromThread(on_reactor, _attempted(job))

        def on_reactor(result: object) -> None:
            self._room += 1
            self._may_sync += syncing
            if result is _MORE:
                self._wait(submitted)
                self._start()
                return
            self._outstanding.discard(job)
            self._start()
            told(result)
            self._tell_idle()

        self._work.put(work)

    def _do_work(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # it refers to its job

    def _tell_idle(self) -> None:
        if self._waiting_for_idle and not self._outstanding:
            waiting, self._waiting_for_idle = self._waiting_for_idle, []
            for each in waiting:
                each.callback(None)


def _attempted(job: Job) -> object:
    """What `job` returns, or how it failed."""
    try:
        return job()
    except BaseException:  # noqa: BLE001  # told
        return Failure()


class SerialQueue:
    """The jobs of one owner, one after the other: a job starts when the one before it has ended,
    whether or not anybody still waits for that. So a descriptor that is closed in its lane is never
    closed beside a write.
    """

    def __init__(self, threads: DiskThreads, caller: str) -> None:
        """Its jobs are done in turns of `caller`."""
        self._threads = threads
        self._caller = caller
        self._running = False
        self._queue: deque[Callable[[], None]] = deque()

    def run(self, function: Callable[..., T], *args: Any, syncing: bool = False) -> Deferred[T]:
        """As `DiskThreads.run`, after the jobs before it."""
        outcome: Shield[T] = Shield()

        def start() -> None:
            self._running = True
            self._threads.submit(partial(function, *args), told, syncing, self._caller)

        def told(result: T | Failure) -> None:
            self._running = False
            if self._queue:
                self._queue.popleft()()
            outcome.finish(result)

        if self._running:
            self._queue.append(start)
        else:
            start()
        return outcome.waiting

"""Thread pools for blocking work, and queues that run the jobs of one file one after the other.

The reactor's own pool is not used: DNS shares it, so ten slow writes would stop every lookup.
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
# Jobs that are given to the threads at a time, per thread. One runs; the other follows without
# waiting for the event loop.
_AHEAD = 2
_MORE = object()  # returned by a job that is to be run again


class _Submitted(NamedTuple):
    job: Job
    on_done: Callable[[Any], None]
    syncing: bool
    caller: str


def in_steps(steps: Generator[None, None, T]) -> T:
    """A job in several turns of its caller. Each ends where `steps` yields. Its result is what
    `steps` returns.
    """
    try:
        next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    return cast(T, _MORE)


class DiskThreads:
    """A pool of threads for one kind of work. Callers take turns, however many jobs each has.

    It is started in `startService`, not before: threads do not survive the fork of a daemon.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, threads: int) -> None:
        self._reactor = reactor
        self._name = name
        # Twisted's ThreadPool leaves a reference cycle for each job.
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._count = threads
        self._threads: list[Thread] = []
        # A sync can take seconds. So one thread is always left for jobs that do not sync.
        self._may_sync = max(1, threads - 1)
        self._room = _AHEAD * threads  # how many more jobs may be given to the threads
        # Jobs that were not given to the threads yet, by caller.
        self._waiting: RoundRobin[str, _Submitted] = RoundRobin()
        self._waiting_to_sync: RoundRobin[str, _Submitted] = RoundRobin()
        self._outstanding: set[Job] = set()
        self._waiting_for_idle: list[Deferred[None]] = []
        self.hurries = False  # long work, whose result is not needed any more, ends early

    def start(self) -> None:
        """Start the threads."""
        for number in range(self._count):
            # A daemon thread does not keep alive a process that ends by a failure.
            thread = Thread(target=self._do_work, name=f"{self._name}-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop the threads and wait for them. Blocks. Call it after `idle` has fired."""
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
        """Call `function(*args)` in a thread, in a turn of `caller`. Fires with what it returns.

        Cancelling ends the waiting, not the job. `unclaimed` then gets its result or Failure. At
        most all but one of the threads run `syncing` jobs at a time.
        """
        outcome: Shield[T] = Shield(unclaimed)
        self.submit(partial(function, *args), outcome.finish, syncing, caller)
        return outcome.waiting

    def submit(self, job: Job, on_done: Callable[[Any], None], syncing: bool, caller: str) -> None:
        """Run `job` in a thread and call `on_done`, on the reactor, with its result or Failure."""
        self._outstanding.add(job)
        self._enqueue(_Submitted(job, on_done, syncing, caller))
        self._start()

    @property
    def busy(self) -> bool:
        """Whether a job is queued or running."""
        return bool(self._outstanding)

    @property
    def jobs(self) -> list[str]:
        """The jobs that are queued or running: how many of each function."""
        functions = (job.args[0] if job.func is in_steps else job.func for job in self._outstanding)
        counts = Counter(function.__name__.strip("_") for function in functions)
        return [f"{self._name}: {count} x {what}" for what, count in sorted(counts.items())]

    def idle(self) -> Deferred[None]:
        """Fires when no job is queued or running. May be cancelled."""
        waiting: Deferred[None] = Deferred()
        self._waiting_for_idle.append(waiting)
        self._notify_idle()
        return waiting

    def _enqueue(self, submitted: _Submitted) -> None:
        waiting = self._waiting_to_sync if submitted.syncing else self._waiting
        waiting.add(submitted.caller, submitted)

    def _start(self) -> None:
        """Give jobs to the threads, while they have room."""
        while self._room:
            if self._may_sync and self._waiting_to_sync:
                self._may_sync -= 1
                self._give(self._waiting_to_sync.next())
            elif self._waiting:
                self._give(self._waiting.next())
            else:
                break

    def _give(self, submitted: _Submitted) -> None:
        job, on_done, syncing, _ = submitted
        self._room -= 1

        def work() -> None:  # in the thread
            # A failure refers to the frames of its thread. One that holds it makes a cycle.
            self._reactor.callFromThread(on_reactor, _attempt(job))

        def on_reactor(result: object) -> None:
            self._room += 1
            self._may_sync += syncing
            if result is _MORE:
                self._enqueue(submitted)
                self._start()
                return
            self._outstanding.discard(job)
            self._start()
            on_done(result)
            self._notify_idle()

        self._work.put(work)

    def _do_work(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # it refers to its job, which would live until the next one

    def _notify_idle(self) -> None:
        if self._waiting_for_idle and not self._outstanding:
            waiting, self._waiting_for_idle = self._waiting_for_idle, []
            for each in waiting:
                each.callback(None)


def _attempt(job: Job) -> object:
    """What `job` returns, or its Failure."""
    try:
        return job()
    except BaseException:  # noqa: BLE001  # it is returned
        return Failure()


class SerialQueue:
    """Runs jobs one after the other, even if their Deferreds are cancelled. So a descriptor that is
    closed by a job of its queue is never closed during a write.
    """

    def __init__(self, threads: DiskThreads, caller: str) -> None:
        """The jobs run in turns of `caller`."""
        self._threads = threads
        self._caller = caller
        self._running = False
        self._queue: deque[Callable[[], None]] = deque()

    def run(self, function: Callable[..., T], *args: Any, syncing: bool = False) -> Deferred[T]:
        """As `DiskThreads.run`, after the earlier jobs."""
        outcome: Shield[T] = Shield()

        def start() -> None:
            self._running = True
            self._threads.submit(partial(function, *args), on_done, syncing, self._caller)

        def on_done(result: T | Failure) -> None:
            self._running = False
            if self._queue:
                self._queue.popleft()()
            outcome.finish(result)

        if self._running:
            self._queue.append(start)
        else:
            start()
        return outcome.waiting

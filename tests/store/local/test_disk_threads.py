"""Thread pools, and the queues that run the jobs of one file in order."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from tests.support import asynchronous
from twistedmedia.store.local.disk_threads import DiskThreads, SerialQueue, in_steps

THREADS = 3
# Before a job that has its turn, no more jobs of other callers are done. Such tests use one thread:
# of several, one may pause between taking a job and doing it, while others do hundreds.
SOON = 6


class Pool(DiskThreads):
    """Its jobs are those of one caller, unless a test names another."""

    def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        caller: str = "somebody",
        syncing: bool = False,
        unclaimed: Callable[[Any], object] | None = None,
    ) -> Deferred[Any]:
        return super().run(function, *args, caller=caller, syncing=syncing, unclaimed=unclaimed)


@pytest_twisted.async_yield_fixture
async def make() -> AsyncIterator[Callable[[int], DiskThreads]]:
    """Makes started pools, which are stopped after the test."""
    pools: list[DiskThreads] = []

    def start(threads: int) -> DiskThreads:
        pool = Pool(reactor, "test", threads)
        pool.start()
        pools.append(pool)
        return pool

    yield start
    for pool in pools:
        await pool.idle()
        pool.stop()


@pytest.fixture
def pool(make: Callable[[int], DiskThreads]) -> DiskThreads:
    return make(THREADS)


class Gate:
    """A job that waits in its thread until it is opened, and counts the waiting ones."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._awaited = 0
        self._entered: Deferred[None] = Deferred()
        self.inside = 0
        self.most = 0

    def entered(self, times: int) -> Deferred[None]:
        """Fires when `times` jobs are inside."""
        with self._lock:
            self._awaited, self._entered = times, Deferred()
            self._tell()
        return self._entered

    def open(self) -> None:
        self._open.set()

    def __call__(self, result: Any = None) -> Any:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self._tell()
        self._open.wait(10)  # so that a failing test ends
        with self._lock:
            self.inside -= 1
        return result

    def _tell(self) -> None:
        if self._awaited and self.inside >= self._awaited:
            self._awaited = 0
            reactor.callFromThread(self._entered.callback, None)


def fails() -> None:
    raise ValueError("no")


@asynchronous
async def test_a_job_runs_in_a_thread_and_its_result_comes_back_on_the_reactors(
    pool: DiskThreads,
) -> None:
    here = threading.get_ident()
    there = await pool.run(threading.get_ident)
    assert there != here
    assert threading.get_ident() == here
    assert await pool.run(divmod, 7, 4) == (1, 3)


@asynchronous
@pytest.mark.parametrize("syncing", [False, True])
async def test_an_error_of_a_job_is_its_failure(pool: DiskThreads, syncing: bool) -> None:
    with pytest.raises(ValueError, match="no"):
        await pool.run(fails, syncing=syncing)
    assert await pool.run(str, 1, syncing=syncing) == "1"


@asynchronous
async def test_a_job_leaves_nothing_to_the_garbage_collector(pool: DiskThreads) -> None:
    """Case 89."""
    jobs = 100
    gc.collect()
    gc.disable()
    try:
        await gatherResults([pool.run(str, n) for n in range(jobs)])
        found = gc.collect()
    finally:
        gc.enable()
    assert found < jobs


@asynchronous
async def test_no_more_jobs_run_at_once_than_there_are_threads(pool: DiskThreads) -> None:
    gate = Gate()
    jobs = [pool.run(gate, n) for n in range(10)]
    await gate.entered(THREADS)
    gate.open()
    assert await gatherResults(jobs) == list(range(10))
    assert gate.most == THREADS


@asynchronous
async def test_jobs_that_sync_leave_one_thread_to_those_that_do_not(pool: DiskThreads) -> None:
    """Case 29."""
    gate = Gate()
    syncing = [pool.run(gate, n, syncing=True) for n in range(10)]
    await gate.entered(THREADS - 1)
    for n in range(5):
        assert await pool.run(abs, -n) == n
    assert not any(job.called for job in syncing)
    gate.open()
    assert await gatherResults(syncing) == list(range(10))
    assert gate.most == THREADS - 1


@asynchronous
async def test_the_turn_of_a_failed_job_goes_to_the_next_that_syncs(pool: DiskThreads) -> None:
    jobs = [pool.run(fails, syncing=True) for _ in range(THREADS * 3)]
    for job in jobs:
        with pytest.raises(ValueError, match="no"):
            await job
    gate = Gate()
    syncing = [pool.run(gate, syncing=True) for _ in range(THREADS)]
    await gate.entered(THREADS - 1)
    gate.open()
    await gatherResults(syncing)


@asynchronous
async def test_the_turn_of_a_cancelled_job_goes_to_the_next_that_syncs(
    pool: DiskThreads,
) -> None:
    done: list[int] = []
    jobs = [pool.run(done.append, n, syncing=True) for n in range(THREADS * 3)]
    for job in jobs:
        job.cancel()
        with pytest.raises(CancelledError):
            await job
    await pool.idle()
    assert sorted(done) == list(range(THREADS * 3))


@asynchronous
async def test_a_pool_of_one_thread_syncs_too(make: Callable[[int], DiskThreads]) -> None:
    pool = make(1)
    assert await gatherResults([pool.run(abs, -n, syncing=n % 2 == 0) for n in range(6)]) == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]


@pytest.mark.parametrize("syncing", [False, True])
@asynchronous
async def test_callers_take_turns_however_many_jobs_each_has(
    make: Callable[[int], DiskThreads], syncing: bool
) -> None:
    pool = make(1)
    gate, order = Gate(), list[str]()
    jobs = [pool.run(gate, syncing=syncing, caller="first") for _ in range(2)]
    for n in range(100):
        jobs.append(pool.run(order.append, f"crowd {n}", syncing=syncing, caller="crowd"))
    for name in ("one", "other"):
        jobs.append(pool.run(order.append, name, syncing=syncing, caller=name))
    gate.open()
    await gatherResults(jobs)
    assert len(order) == 102
    assert max(order.index(name) for name in ("one", "other")) <= SOON


@asynchronous
async def test_a_job_that_syncs_does_not_wait_for_those_of_another_that_do_not(
    make: Callable[[int], DiskThreads],
) -> None:
    """A job that waits for its turn does not count as one that syncs."""
    pool = make(1)
    gate, order = Gate(), list[str]()
    jobs = [pool.run(gate, caller="first") for _ in range(2)]
    jobs += [pool.run(order.append, "crowd", caller="crowd") for _ in range(100)]
    jobs += [pool.run(order.append, "crowd", caller="crowd", syncing=True) for _ in range(10)]
    jobs.append(pool.run(order.append, "one", caller="one", syncing=True))
    gate.open()
    await gatherResults(jobs)
    assert order.index("one") <= SOON


@asynchronous
@pytest.mark.parametrize("syncing", [False, True])
async def test_each_step_of_a_job_has_its_own_turn(
    make: Callable[[int], DiskThreads], syncing: bool
) -> None:
    """Case 85. No caller waits for all of a long job."""
    pool = make(1)
    order = list[str]()

    def steps(name: str, count: int) -> Generator[None, None, str]:
        for _ in range(count):
            order.append(name)
            yield
        return name

    gate = Gate()
    jobs = [pool.run(lambda: gate(), syncing=syncing, caller="first") for _ in range(2)]
    for n in range(10):
        name = f"crowd {n}"
        jobs.append(pool.run(in_steps, steps(name, 100), syncing=syncing, caller="crowd"))
    jobs.append(pool.run(in_steps, steps("one", 3), syncing=syncing, caller="one"))
    assert "test: 11 x steps" in pool.jobs
    gate.open()
    assert await gatherResults(jobs[2:]) == [*(f"crowd {n}" for n in range(10)), "one"]
    assert [order.count(f"crowd {n}") for n in range(10)] == [100] * 10
    assert max(at for at, name in enumerate(order) if name == "one") <= 3 * SOON


@asynchronous
async def test_an_error_of_a_step_is_the_failure_of_its_job(pool: DiskThreads) -> None:
    def steps() -> Generator[None, None, None]:
        yield
        fails()

    with pytest.raises(ValueError, match="no"):
        await pool.run(in_steps, steps())
    await pool.idle()
    assert pool.jobs == []


@asynchronous
async def test_all_steps_of_a_job_run_before_the_next_job_of_its_queue(pool: DiskThreads) -> None:
    queue, order = SerialQueue(pool, "somebody"), list[int]()

    def steps() -> Generator[None, None, None]:
        for n in range(5):
            order.append(n)
            yield

    await gatherResults([queue.run(in_steps, steps()), queue.run(order.append, 5)])
    assert order == [0, 1, 2, 3, 4, 5]


@asynchronous
async def test_a_queue_takes_the_turns_of_its_caller(make: Callable[[int], DiskThreads]) -> None:
    pool = make(1)
    gate, order = Gate(), list[str]()
    jobs = [pool.run(gate, caller="first") for _ in range(2)]
    jobs += [pool.run(order.append, "crowd", caller="crowd") for _ in range(100)]
    jobs.append(SerialQueue(pool, "one").run(order.append, "one"))
    gate.open()
    await gatherResults(jobs)
    assert order.index("one") <= SOON


@asynchronous
async def test_cancelling_a_job_ends_the_waiting_and_not_the_job(pool: DiskThreads) -> None:
    gate, done = Gate(), []

    def job() -> None:
        gate()
        done.append(True)

    running = pool.run(job)
    await gate.entered(1)
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    assert not done
    gate.open()
    await pool.idle()
    assert done


@asynchronous
async def test_the_result_of_a_cancelled_job_is_given_to_unclaimed(pool: DiskThreads) -> None:
    gate = Gate()
    unclaimed: list[Any] = []
    running = pool.run(gate, "late", unclaimed=unclaimed.append)
    await gate.entered(1)
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    gate.open()
    await pool.idle()
    assert unclaimed == ["late"]


@asynchronous
async def test_idle_fires_at_once_when_nothing_runs(pool: DiskThreads) -> None:
    assert pool.idle().called
    await pool.run(abs, 1)
    assert pool.idle().called


@asynchronous
@pytest.mark.parametrize("syncing", [False, True])
async def test_idle_waits_for_running_and_queued_jobs(pool: DiskThreads, syncing: bool) -> None:
    gate = Gate()
    jobs = [pool.run(gate, syncing=syncing) for _ in range(THREADS * 2)]
    await gate.entered(THREADS - syncing)
    idle, as_well = pool.idle(), pool.idle()
    assert not idle.called
    gate.open()
    await idle
    await as_well
    assert all(job.called for job in jobs)


@asynchronous
async def test_idle_waits_for_jobs_that_wait_in_a_queue(pool: DiskThreads) -> None:
    gate, queue = Gate(), SerialQueue(pool, "somebody")
    done: list[int] = []
    queue.run(gate)
    for n in range(5):
        queue.run(done.append, n)
    await gate.entered(1)
    idle = pool.idle()
    gate.open()
    await idle
    assert done == [0, 1, 2, 3, 4]


@asynchronous
async def test_the_jobs_of_a_queue_run_one_after_the_other_in_their_order(
    pool: DiskThreads,
) -> None:
    queue = SerialQueue(pool, "somebody")
    seen: list[int] = []
    inside: list[int] = []

    def job(n: int) -> int:
        inside.append(n)
        assert inside == [n]
        seen.append(n)
        inside.remove(n)
        return n

    jobs = [queue.run(job, n, syncing=n % 3 == 0) for n in range(50)]
    assert await gatherResults(jobs) == list(range(50))
    assert seen == list(range(50))


@asynchronous
async def test_queues_do_not_wait_for_each_other(pool: DiskThreads) -> None:
    gate, first, second = Gate(), SerialQueue(pool, "somebody"), SerialQueue(pool, "somebody")
    held = first.run(gate)
    await gate.entered(1)
    assert await second.run(abs, -1) == 1
    assert not held.called
    gate.open()
    await held


@asynchronous
async def test_a_job_that_fails_does_not_stop_its_queue(pool: DiskThreads) -> None:
    queue = SerialQueue(pool, "somebody")
    failing, following = queue.run(fails), queue.run(abs, -1)
    with pytest.raises(ValueError, match="no"):
        await failing
    assert await following == 1


@asynchronous
async def test_a_job_starts_after_the_running_one_even_if_that_is_cancelled(
    pool: DiskThreads,
) -> None:
    gate, queue = Gate(), SerialQueue(pool, "somebody")
    running = queue.run(gate)
    await gate.entered(1)
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    following = queue.run(lambda: gate.inside)
    assert await pool.run(abs, -1) == 1
    assert not following.called
    gate.open()
    assert await following == 0


@asynchronous
async def test_a_cancelled_job_is_done_in_its_turn(pool: DiskThreads) -> None:
    gate, queue = Gate(), SerialQueue(pool, "somebody")
    seen: list[int] = []
    running = queue.run(gate)
    queued = [queue.run(seen.append, n) for n in range(3)]
    await gate.entered(1)
    queued[1].cancel()
    with pytest.raises(CancelledError):
        await queued[1]
    gate.open()
    await running
    await queued[2]
    assert seen == [0, 1, 2]


# Thousands


@asynchronous
@pytest.mark.parametrize("syncing", [False, True])
async def test_thousands_of_jobs_in_one_queue_run_in_their_order(
    pool: DiskThreads, syncing: bool
) -> None:
    queue, done = SerialQueue(pool, "somebody"), list[int]()
    jobs = [queue.run(done.append, number, syncing=syncing) for number in range(5000)]
    for job in jobs[1::2]:
        job.cancel()
        with pytest.raises(CancelledError):
            await job
    await gatherResults(jobs[::2])
    await pool.idle()
    assert done == list(range(5000))


@asynchronous
async def test_thousands_of_jobs_that_sync_all_run(pool: DiskThreads) -> None:
    jobs = [pool.run(abs, -number, syncing=True) for number in range(5000)]
    assert await gatherResults(jobs) == list(range(5000))


@asynchronous
async def test_idle_fires_for_thousands_of_callers(pool: DiskThreads) -> None:
    gate = Gate()
    running = pool.run(gate)
    await gate.entered(1)
    waiting = [pool.idle() for _ in range(5000)]
    waiting[0].cancel()
    with pytest.raises(CancelledError):
        await waiting[0]
    gate.open()
    await gatherResults(waiting[1:])
    await running


@asynchronous
async def test_jobs_that_run_or_are_queued_are_counted_by_their_functions(
    pool: DiskThreads,
) -> None:
    gate = Gate()

    def _write() -> None:
        gate()

    def sync() -> None:
        gate()

    queue = SerialQueue(pool, "somebody")
    jobs = [pool.run(_write), *(pool.run(sync, syncing=True) for _ in range(5)), queue.run(_write)]
    assert pool.jobs == ["test: 5 x sync", "test: 2 x write"]
    gate.open()
    await gatherResults(jobs)
    assert pool.jobs == []

"""The pools of threads, and the lanes that keep one owner's jobs in order."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from tests.support import asynchronous
from twistedmedia.store.threads import DiskThreads, Lane

THREADS = 3


@pytest_twisted.async_yield_fixture
async def make() -> AsyncIterator[Callable[[int], DiskThreads]]:
    """Makes started pools, which are stopped after the test."""
    pools: list[DiskThreads] = []

    def start(threads: int) -> DiskThreads:
        pool = DiskThreads(reactor, "test", threads)
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
    """A job that waits in its thread until it is opened, and counts who is inside."""

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
async def test_what_a_job_raises_is_its_failure(pool: DiskThreads, syncing: bool) -> None:
    with pytest.raises(ValueError, match="no"):
        await pool.run(fails, syncing=syncing)
    assert await pool.run(str, 1, syncing=syncing) == "1"


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
async def test_the_turn_of_one_that_failed_goes_to_the_next_that_syncs(pool: DiskThreads) -> None:
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
async def test_the_turn_of_one_whose_waiter_left_goes_to_the_next_that_syncs(
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


@asynchronous
async def test_to_cancel_a_job_ends_the_waiting_and_not_the_job(pool: DiskThreads) -> None:
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
async def test_what_a_cancelled_job_comes_to_is_told_to_unclaimed(pool: DiskThreads) -> None:
    gate = Gate()
    told: list[Any] = []
    running = pool.run(gate, "late", unclaimed=told.append)
    await gate.entered(1)
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    gate.open()
    await pool.idle()
    assert told == ["late"]


@asynchronous
async def test_idle_fires_at_once_when_nothing_runs(pool: DiskThreads) -> None:
    assert pool.idle().called
    await pool.run(abs, 1)
    assert pool.idle().called


@asynchronous
@pytest.mark.parametrize("syncing", [False, True])
async def test_idle_waits_for_what_runs_and_what_is_queued(
    pool: DiskThreads, syncing: bool
) -> None:
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
async def test_idle_waits_for_the_jobs_that_a_lane_has_yet_to_start(pool: DiskThreads) -> None:
    gate, lane = Gate(), Lane(pool)
    done: list[int] = []
    lane.run(gate)
    for n in range(5):
        lane.run(done.append, n)
    await gate.entered(1)
    idle = pool.idle()
    gate.open()
    await idle
    assert done == [0, 1, 2, 3, 4]


@asynchronous
async def test_the_jobs_of_a_lane_run_one_after_the_other_in_their_order(
    pool: DiskThreads,
) -> None:
    lane = Lane(pool)
    seen: list[int] = []
    inside: list[int] = []

    def job(n: int) -> int:
        inside.append(n)
        assert inside == [n]
        seen.append(n)
        inside.remove(n)
        return n

    jobs = [lane.run(job, n, syncing=n % 3 == 0) for n in range(50)]
    assert await gatherResults(jobs) == list(range(50))
    assert seen == list(range(50))


@asynchronous
async def test_lanes_do_not_wait_for_each_other(pool: DiskThreads) -> None:
    gate, first, second = Gate(), Lane(pool), Lane(pool)
    held = first.run(gate)
    await gate.entered(1)
    assert await second.run(abs, -1) == 1
    assert not held.called
    gate.open()
    await held


@asynchronous
async def test_a_job_that_fails_does_not_stop_its_lane(pool: DiskThreads) -> None:
    lane = Lane(pool)
    failing, following = lane.run(fails), lane.run(abs, -1)
    with pytest.raises(ValueError, match="no"):
        await failing
    assert await following == 1


@asynchronous
async def test_a_job_starts_behind_the_one_that_runs_although_nobody_waits_for_that(
    pool: DiskThreads,
) -> None:
    gate, lane = Gate(), Lane(pool)
    running = lane.run(gate)
    await gate.entered(1)
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    following = lane.run(lambda: gate.inside)
    assert await pool.run(abs, -1) == 1
    assert not following.called
    gate.open()
    assert await following == 0


@asynchronous
async def test_a_job_that_nobody_waits_for_any_more_is_done_in_its_turn(pool: DiskThreads) -> None:
    gate, lane = Gate(), Lane(pool)
    seen: list[int] = []
    running = lane.run(gate)
    queued = [lane.run(seen.append, n) for n in range(3)]
    await gate.entered(1)
    queued[1].cancel()
    with pytest.raises(CancelledError):
        await queued[1]
    gate.open()
    await running
    await queued[2]
    assert seen == [0, 1, 2]

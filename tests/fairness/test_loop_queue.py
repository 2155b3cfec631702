"""Steps of several clients in the turns of the event loop."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred

from tests.http.connection import outcome, result
from tests.turning import TurningClock
from twistedmedia.fairness.loop_queue import (
    BACKLOG_FIRST,
    BACKLOG_FURTHER,
    CROWD,
    FEW_STEPS,
    STEP_S,
    TURN_OF_FEW_S,
    TURN_S,
    LoopQueue,
)

MANY = 1000


class Worker:
    """A client whose steps take `step_s` each and add the next one."""

    def __init__(self, clock: TurningClock, queue: LoopQueue, name: str, step_s: float) -> None:
        self.steps = 0
        self._clock = clock
        self._queue = queue
        self._name = name
        self._step_s = step_s

    def begin(self, *, is_first: bool = False) -> None:
        self._queue.add(self._name, self._work, is_first=is_first)

    def _work(self) -> None:
        self.steps += 1
        self._clock.spend(self._step_s)
        self.begin()


class Coroutine:
    """Work that waits for its turn a hundred times and takes some time after each."""

    def __init__(self, clock: TurningClock, queue: LoopQueue) -> None:
        self.passed = 0
        self._clock = clock
        self._queue = queue

    async def work(self) -> None:
        for _ in range(100):
            await self._queue.turn("192.0.2.1")
            self.passed += 1
            self._clock.spend(STEP_S / 3.5)


@pytest.fixture
def clock() -> TurningClock:
    return TurningClock()


@pytest.fixture
def queue(clock: TurningClock) -> LoopQueue:
    return LoopQueue(clock)


def test_steps_take_a_bounded_time_of_a_turn_and_continue_in_the_next(
    clock: TurningClock, queue: LoopQueue
) -> None:
    """Case 85."""
    worker = Worker(clock, queue, "192.0.2.1", TURN_S / 3.5)
    worker.begin()
    assert worker.steps == 0
    for turns in range(1, 10):
        clock.turn()
        assert worker.steps == 4 * turns


def test_after_a_step_with_a_rest_no_step_runs_in_the_next_turns(
    clock: TurningClock, queue: LoopQueue
) -> None:
    """The rest ends after these turns even if nothing waits."""
    turns: list[int] = []
    for _ in range(3):
        queue.add("192.0.2.1", lambda: (turns.append(turn), queue.rest(4))[0])
    queue.add("192.0.2.2", lambda: turns.append(turn))
    for turn in range(20):  # noqa: B007
        clock.turn()
    assert turns == [0, 5, 5, 10]
    queue.add("192.0.2.2", lambda: turns.append(turn))
    clock.turn()
    assert turns[4:] == [19]


def test_other_work_gets_most_turns_but_not_all(clock: TurningClock, queue: LoopQueue) -> None:
    worker = Worker(clock, queue, "192.0.2.1", TURN_S)
    worker.begin()
    steps = []
    for _ in range(12):
        queue.make_room(3)
        clock.turn()
        steps.append(worker.steps)
    assert steps == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]


def test_a_queue_without_work_makes_no_room(clock: TurningClock, queue: LoopQueue) -> None:
    queue.make_room(3)
    worker = Worker(clock, queue, "192.0.2.1", TURN_S)
    worker.begin()
    clock.turn()
    assert worker.steps == 1


def test_a_step_that_is_longer_than_a_turn_is_the_only_one_in_it(
    clock: TurningClock, queue: LoopQueue
) -> None:
    worker = Worker(clock, queue, "192.0.2.1", 2 * TURN_S)
    worker.begin()
    clock.turn()
    assert worker.steps == 1


def test_clients_run_equally_many_steps_whatever_number_waits(
    clock: TurningClock, queue: LoopQueue
) -> None:
    crowd = Worker(clock, queue, "192.0.2.1", TURN_S / 10)
    for _ in range(MANY):
        crowd.begin()
    normal = Worker(clock, queue, "192.0.2.2", TURN_S / 10)
    normal.begin()
    for _ in range(20):
        clock.turn()
    assert abs(crowd.steps - normal.steps) <= 1


def test_a_first_step_does_not_wait_for_all_other_steps_of_its_client(
    clock: TurningClock, queue: LoopQueue
) -> None:
    """Clients behind one proxy have one address."""
    crowd = Worker(clock, queue, "192.0.2.1", TURN_S / 10)
    for _ in range(MANY):
        crowd.begin()
    normal = Worker(clock, queue, "192.0.2.1", TURN_S / 10)
    normal.begin(is_first=True)
    clock.turn()
    assert normal.steps == 1


@pytest.mark.parametrize(
    ("first", "further", "turn_s"),
    [
        (0, 0, TURN_OF_FEW_S),
        (FEW_STEPS, 0, TURN_OF_FEW_S),
        (FEW_STEPS + 1, 0, TURN_S),
        (0, 1, TURN_S),
    ],
)
def test_steps_have_a_bounded_time_in_a_turn_also_when_they_run_at_once(
    clock: TurningClock, queue: LoopQueue, first: int, further: int, turn_s: float
) -> None:
    """It is longer while few first steps wait: each turn has a cost of its own."""
    for is_first, count in ((True, first), (False, further)):
        for _ in range(count):
            queue.add("192.0.2.1", lambda: clock.spend(TURN_S), is_first=is_first)
    ran = 0
    while queue.has_time:
        queue.do(lambda: clock.spend(turn_s / 7.5))
        ran += 1
        assert ran <= 8
    assert ran == 8
    began_s = clock.seconds()
    clock.turn()
    assert clock.seconds() - began_s == pytest.approx(turn_s if first else further * TURN_S)
    assert queue.has_time


def test_a_step_that_fails_does_not_stop_the_others(clock: TurningClock, queue: LoopQueue) -> None:
    worker = Worker(clock, queue, "192.0.2.2", TURN_S)

    def fail() -> None:
        raise ZeroDivisionError

    queue.add("192.0.2.1", fail)
    worker.begin()
    with pytest.raises(ZeroDivisionError):
        clock.turn()
    clock.turn()
    assert worker.steps == 1
    with pytest.raises(ZeroDivisionError):
        queue.do(fail)


def test_nothing_is_scheduled_once_all_steps_have_run(
    clock: TurningClock, queue: LoopQueue
) -> None:
    ran: list[int] = []
    for number in range(3):
        queue.add("192.0.2.1", lambda number=number: ran.append(number))  # type: ignore[misc]
    clock.turn()
    assert ran == [0, 1, 2]
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(("is_first", "backlog"), [(True, BACKLOG_FIRST), (False, BACKLOG_FURTHER)])
def test_the_begin_and_the_end_of_a_backlog_are_reported(
    clock: TurningClock, is_first: bool, backlog: int
) -> None:
    """Case 85. Many small requests at once are not a backlog: they need the event loop more than
    the threads.
    """
    reports: list[bool] = []
    queue = LoopQueue(clock, reports.append)

    def step() -> None:
        clock.spend(TURN_S)

    for _ in range(backlog):
        queue.add("192.0.2.1", step, is_first=is_first)
    while clock.getDelayedCalls():
        clock.turn()
    assert reports == []
    for _ in range(backlog + 2):
        queue.add("192.0.2.1", step, is_first=is_first)
    for expected in ([True], [True], [True, False]):
        clock.turn()
        assert reports == expected


def test_a_coroutine_continues_while_its_step_has_time(
    clock: TurningClock, queue: LoopQueue
) -> None:
    coroutine = Coroutine(clock, queue)
    working: Deferred[None] = ensureDeferred(coroutine.work())
    assert coroutine.passed == 0
    clock.turn()
    assert coroutine.passed == 4 * TURN_S / STEP_S
    while coroutine.passed < 100:
        before = coroutine.passed
        clock.turn()
        assert 0 < coroutine.passed - before <= 4 * TURN_S / STEP_S
    assert result(working) is None


def test_a_coroutine_cannot_use_the_time_of_a_step_that_has_ended(
    clock: TurningClock, queue: LoopQueue
) -> None:
    """It may have continued outside the queue, when content arrived for it."""
    queue.add("192.0.2.1", lambda: None)
    clock.turn()
    working: Deferred[None] = ensureDeferred(queue.turn("192.0.2.1"))
    assert not working.called
    clock.turn()
    assert result(working) is None


def test_a_cancelled_coroutine_leaves_nothing_in_the_loop(
    clock: TurningClock, queue: LoopQueue
) -> None:
    working: Deferred[None] = ensureDeferred(queue.turn("192.0.2.1"))
    working.cancel()
    (failure,) = outcome(working)
    assert failure is not None
    assert failure.check(CancelledError)
    clock.turn()
    assert clock.getDelayedCalls() == []


def test_the_queue_is_crowded_by_clients_with_at_least_as_many_steps_as_others(
    queue: LoopQueue,
) -> None:
    crowd, normal = "192.0.2.1", "192.0.2.2"

    def nothing() -> None:
        """Take no time."""

    for _ in range(CROWD - 1):
        queue.add(crowd, nothing)
    assert not queue.is_crowded_by(crowd)
    queue.add(crowd, nothing)
    assert queue.is_crowded_by(crowd)
    assert not queue.is_crowded_by(normal)
    queue.add(normal, nothing)
    assert queue.is_crowded_by(crowd)
    assert not queue.is_crowded_by(normal)


def test_many_clients_with_one_step_each_are_a_crowd(queue: LoopQueue) -> None:
    for number in range(CROWD):
        queue.add(f"192.0.2.{number}", lambda: None)
    assert queue.is_crowded_by("192.0.2.99")


def test_a_step_that_runs_at_once_continues_while_it_has_time(
    clock: TurningClock, queue: LoopQueue
) -> None:
    coroutine = Coroutine(clock, queue)
    queue.do(lambda: ensureDeferred(coroutine.work()))
    assert coroutine.passed == 4
    for _ in range(100):
        clock.turn()
    assert coroutine.passed == 100


def test_a_step_within_a_step_takes_no_time_of_it(clock: TurningClock, queue: LoopQueue) -> None:
    passed = 0

    async def work() -> None:
        nonlocal passed
        queue.do(lambda: None)
        for _ in range(2):
            await queue.turn("192.0.2.1")
            passed += 1
            clock.spend(STEP_S)

    queue.do(lambda: ensureDeferred(work()))
    assert passed == 1
    clock.turn()
    assert passed == 2


@pytest.mark.parametrize("is_queued", [False, True])
def test_work_that_enters_is_part_of_the_running_step(
    clock: TurningClock, queue: LoopQueue, is_queued: bool
) -> None:
    """Case 85: even if the step has run for long."""
    entered: list[Deferred[None]] = []

    def step() -> None:
        clock.spend(2 * STEP_S)
        entered.append(ensureDeferred(queue.enter("192.0.2.1")))
        assert entered[0].called

    if is_queued:
        queue.add("192.0.2.1", step)
        clock.turn()
    else:
        queue.do(step)
    assert entered


def test_work_that_enters_without_a_step_waits_for_its_turn(
    clock: TurningClock, queue: LoopQueue
) -> None:
    """Case 85."""
    queue.do(lambda: None)
    entered = outcome(ensureDeferred(queue.enter("192.0.2.1")))
    assert entered == []
    clock.turn()
    assert entered == [None]

"""The steps of stopping: their order, and steps that fail or exceed their time limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from tests.http.connection import outcome
from twistedmedia.service.stopping import Step, run_steps


class Stopping:
    """Steps that run, with a clock that a test sets."""

    def __init__(self, *runs: Callable[[], Any], limit_s: float = 5.0) -> None:
        self.clock = Clock()
        self.begun: list[int] = []
        steps = [
            Step(
                f"step {number}", self._recorded(number, run), limit_s, lambda: ["a job", "another"]
            )
            for number, run in enumerate(runs)
        ]
        self.done = outcome(ensureDeferred(run_steps(self.clock, steps)))

    def _recorded(self, number: int, run: Callable[[], Any]) -> Callable[[], Any]:
        def record() -> Any:
            self.begun.append(number)
            return run()

        return record


def fails() -> None:
    raise ZeroDivisionError


async def fails_later() -> None:
    raise ZeroDivisionError


def test_each_step_is_waited_for_before_the_next_one() -> None:
    waiting: Deferred[None] = Deferred()

    async def waits() -> None:
        await waiting

    stopping = Stopping(lambda: None, waits, lambda: None)
    assert (stopping.begun, stopping.done) == ([0, 1], [])
    waiting.callback(None)
    assert (stopping.begun, stopping.done) == ([0, 1, 2], [None])
    assert stopping.clock.getDelayedCalls() == []


def test_failed_steps_are_logged_and_the_others_run(
    nothing_left_behind: list[LogEvent],
) -> None:
    stopping = Stopping(fails, fails_later, lambda: None)
    assert (stopping.begun, stopping.done) == ([0, 1, 2], [None])
    logged = [formatEvent(event) for event in nothing_left_behind]
    assert logged == ["stopping: step 0 failed", "stopping: step 1 failed"]
    nothing_left_behind.clear()


def test_a_late_step_is_logged_with_what_is_pending_and_the_others_run(
    warnings: list[LogEvent],
) -> None:
    late: list[Deferred[None]] = [Deferred(), Deferred()]
    stopping = Stopping(lambda: late[0], lambda: late[1], lambda: None)
    stopping.clock.advance(4.9)
    assert (stopping.begun, warnings) == ([0], [])
    stopping.clock.advance(0.2)
    assert (stopping.begun, stopping.done) == ([0, 1], [])
    late[0].callback(None)  # it continues beside the others
    stopping.clock.advance(5.1)
    assert (stopping.begun, stopping.done) == ([0, 1, 2], [None])
    assert [formatEvent(event) for event in warnings] == [
        f"stopping: step {number} took longer than 5 s; still running: a job; another"
        for number in range(2)
    ]


def test_the_log_names_some_of_many_that_still_run(warnings: list[LogEvent]) -> None:
    clock = Clock()
    step = Step("waiting", Deferred, 5.0, lambda: [f"job {number}" for number in range(1000)])
    done = outcome(ensureDeferred(run_steps(clock, [step])))
    clock.advance(5.1)
    assert done == [None]
    (logged,) = map(formatEvent, warnings)
    named = "; ".join(f"job {number}" for number in range(10))
    assert logged == f"stopping: waiting took longer than 5 s; still running: {named}; and 990 more"


def test_a_step_that_fails_after_its_time_limit_is_logged(
    nothing_left_behind: list[LogEvent], warnings: list[LogEvent]
) -> None:
    late: Deferred[None] = Deferred()
    stopping = Stopping(lambda: late)
    stopping.clock.advance(5.1)
    assert (stopping.done, len(warnings)) == ([None], 1)
    late.errback(ZeroDivisionError())
    (event,) = nothing_left_behind
    assert formatEvent(event) == "a step of stopping failed after its time limit"
    nothing_left_behind.clear()


def test_a_step_that_ignores_its_cancellation_does_not_delay_the_others(
    warnings: list[LogEvent],
) -> None:
    async def stubborn() -> None:
        while True:
            await Deferred[None](lambda each: each.callback(None))

    stopping = Stopping(stubborn)
    stopping.clock.advance(5.1)
    assert (stopping.done, len(warnings)) == ([None], 1)

"""Waiting that ends without ending the work."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail, succeed
from twisted.python.failure import Failure

from twistedmedia.deferreds import shield


def outcome_of(waiting: Deferred[Any]) -> list[Any]:
    """A list that gets the value or the exception that `waiting` fires with."""
    seen: list[Any] = []
    waiting.addCallbacks(seen.append, lambda failure: seen.append(failure.value))
    return seen


class Work:
    """Work whose end the test decides, and whether anybody tried to cancel it."""

    def __init__(self) -> None:
        self.cancelled = False
        self.deferred: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled = True


def test_it_fires_as_the_work_does() -> None:
    work = Work()
    seen = outcome_of(shield(work.deferred))
    assert seen == []
    work.deferred.callback("done")
    assert seen == ["done"]


def test_it_fails_as_the_work_does() -> None:
    work, error = Work(), ValueError("no")
    seen = outcome_of(shield(work.deferred))
    work.deferred.errback(error)
    assert seen == [error]


def test_work_that_has_ended_already_is_told_at_once() -> None:
    error = ValueError("no")
    assert outcome_of(shield(succeed(7))) == [7]
    assert outcome_of(shield(fail(error))) == [error]


def test_to_stop_waiting_does_not_stop_the_work() -> None:
    work = Work()
    waiting = shield(work.deferred)
    seen = outcome_of(waiting)
    waiting.cancel()
    assert isinstance(seen[0], CancelledError)
    assert not work.cancelled
    assert not work.deferred.called


def test_a_coroutine_that_is_cancelled_does_not_cancel_what_it_waits_for_behind_the_shield() -> (
    None
):
    work, ended = Work(), []

    async def waiter() -> None:
        try:
            await shield(work.deferred)
        finally:
            ended.append(True)

    waiting = ensureDeferred(waiter())
    seen = outcome_of(waiting)
    waiting.cancel()
    assert ended
    assert isinstance(seen[0], CancelledError)
    assert not work.cancelled


@pytest.mark.parametrize("late", ["value", ValueError("late")], ids=["value", "failure"])
def test_what_comes_of_the_work_after_that_goes_to_unclaimed(late: Any) -> None:
    work = Work()
    unclaimed: list[Any] = []
    waiting = shield(work.deferred, unclaimed=unclaimed.append)
    seen = outcome_of(waiting)
    waiting.cancel()
    assert unclaimed == []
    work.deferred.callback(Failure(late) if isinstance(late, Exception) else late)
    (told,) = unclaimed
    assert (told.value if isinstance(told, Failure) else told) is late
    assert len(seen) == 1


@pytest.mark.parametrize("late", ["value", ValueError("late")], ids=["value", "failure"])
def test_without_unclaimed_it_is_dropped_and_no_failure_is_left_unhandled(
    late: Any, nothing_left_behind: list[Any]
) -> None:
    work = Work()
    waiting = shield(work.deferred)
    seen = outcome_of(waiting)
    waiting.cancel()
    work.deferred.callback(Failure(late) if isinstance(late, Exception) else late)
    assert len(seen) == 1
    del work, waiting
    gc.collect()
    assert nothing_left_behind == []


def test_a_failure_that_somebody_waits_for_is_theirs_to_handle(
    nothing_left_behind: list[Any],
) -> None:
    shield(fail(ValueError("mine")))
    gc.collect()
    assert nothing_left_behind
    nothing_left_behind.clear()


def test_what_is_claimed_does_not_go_to_unclaimed() -> None:
    work = Work()
    unclaimed: list[Any] = []
    waiting = shield(work.deferred, unclaimed=unclaimed.append)
    seen = outcome_of(waiting)
    work.deferred.callback("done")
    waiting.cancel()
    assert (seen, unclaimed) == (["done"], [])

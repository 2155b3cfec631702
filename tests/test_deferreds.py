"""Waiters that can be cancelled without cancelling the work, and errors without frames."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail, succeed
from twisted.python.failure import Failure

from twistedmedia.deferreds import drop_traceback, shield


def outcome_of(waiting: Deferred[Any]) -> list[Any]:
    """A list that gets the value or the exception that `waiting` fires with."""
    seen: list[Any] = []
    waiting.addCallbacks(seen.append, lambda failure: seen.append(failure.value))
    return seen


class Work:
    """Work that the test ends, and whether it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = False
        self.deferred: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled = True


def test_a_shield_fires_as_the_work_does() -> None:
    work = Work()
    seen = outcome_of(shield(work.deferred))
    assert seen == []
    work.deferred.callback("done")
    assert seen == ["done"]


def test_a_shield_fails_as_the_work_does() -> None:
    work, error = Work(), ValueError("no")
    seen = outcome_of(shield(work.deferred))
    work.deferred.errback(error)
    assert seen == [error]


def test_the_outcome_of_finished_work_is_there_at_once() -> None:
    error = ValueError("no")
    assert outcome_of(shield(succeed(7))) == [7]
    assert outcome_of(shield(fail(error))) == [error]


def test_cancelling_the_wait_does_not_cancel_the_work() -> None:
    work = Work()
    waiting = shield(work.deferred)
    seen = outcome_of(waiting)
    waiting.cancel()
    assert isinstance(seen[0], CancelledError)
    assert not work.cancelled
    assert not work.deferred.called


def test_a_cancelled_coroutine_does_not_cancel_shielded_work() -> None:
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
def test_an_outcome_after_the_cancellation_goes_to_unclaimed(late: Any) -> None:
    work = Work()
    unclaimed: list[Any] = []
    waiting = shield(work.deferred, unclaimed=unclaimed.append)
    seen = outcome_of(waiting)
    waiting.cancel()
    assert unclaimed == []
    work.deferred.callback(Failure(late) if isinstance(late, Exception) else late)
    (outcome,) = unclaimed
    assert (outcome.value if isinstance(outcome, Failure) else outcome) is late
    assert len(seen) == 1


@pytest.mark.parametrize("late", ["value", ValueError("late")], ids=["value", "failure"])
def test_without_unclaimed_a_late_outcome_is_dropped_and_a_failure_counts_as_handled(
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


def test_a_failure_of_a_wait_that_was_not_cancelled_must_be_handled(
    nothing_left_behind: list[Any],
) -> None:
    shield(fail(ValueError("mine")))
    gc.collect()
    assert nothing_left_behind
    nothing_left_behind.clear()


def test_an_outcome_that_was_waited_for_does_not_go_to_unclaimed() -> None:
    work = Work()
    unclaimed: list[Any] = []
    waiting = shield(work.deferred, unclaimed=unclaimed.append)
    seen = outcome_of(waiting)
    work.deferred.callback("done")
    waiting.cancel()
    assert (seen, unclaimed) == (["done"], [])


# Errors without frames


class Content:
    """Something large."""


def failing(content: Content, error: Exception, cause: Exception | None = None) -> None:
    try:
        raise ValueError(len(vars(content)))
    except ValueError:
        raise error from cause


def caught(error: Exception, cause: Exception | None = None) -> weakref.ref[Content]:
    """A reference to an object in the frames of `error`."""
    content = Content()
    with contextlib.suppress(type(error)):
        failing(content, error, cause)
    return weakref.ref(content)


@pytest.fixture
def without_a_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_a_collector")
def test_objects_in_the_frames_of_an_error_are_freed() -> None:
    """Case 87. Also those of its cause and of its context."""
    cause = KeyError()
    held = [caught(cause)]
    error = LookupError()
    held.append(caught(error, cause))
    assert [each() is None for each in held] == [False, False]
    drop_traceback(error)
    assert [each() is None for each in held] == [True, True]


@pytest.mark.usefixtures("without_a_collector")
def test_errors_that_caused_each_other_do_not_make_an_endless_loop() -> None:
    one, other = ValueError(), KeyError()
    one.__context__, other.__context__ = other, one
    one.__cause__, other.__cause__ = other, one
    held = [caught(one, other), caught(other, one)]
    one.__context__ = other
    drop_traceback(one)
    assert [each() is None for each in held] == [True, True]

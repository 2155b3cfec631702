"""Errors that refer to no frames any more."""

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest

from twistedmedia.deferreds import drop_traceback


class Content:
    """Something large."""


def failing(content: Content, error: Exception, cause: Exception | None = None) -> None:
    try:
        raise ValueError(len(vars(content)))
    except ValueError:
        raise error from cause


def caught(error: Exception, cause: Exception | None = None) -> weakref.ref[Content]:
    """What the frames of `error` have worked with, if it still is there."""
    content = Content()
    with contextlib.suppress(type(error)):
        failing(content, error, cause)
    return weakref.ref(content)


@pytest.fixture(autouse=True)
def without_a_collector() -> object:
    gc.disable()
    yield
    gc.enable()


def test_what_an_error_was_raised_through_is_freed() -> None:
    """Case 87. With what it was raised from, and what was being handled."""
    cause = KeyError()
    held = [caught(cause)]
    error = LookupError()
    held.append(caught(error, cause))
    assert [each() is None for each in held] == [False, False]
    drop_traceback(error)
    assert [each() is None for each in held] == [True, True]


def test_errors_that_led_to_each_other_have_an_end() -> None:
    one, other = ValueError(), KeyError()
    one.__context__, other.__context__ = other, one
    one.__cause__, other.__cause__ = other, one
    held = [caught(one, other), caught(other, one)]
    one.__context__ = other
    drop_traceback(one)
    assert [each() is None for each in held] == [True, True]

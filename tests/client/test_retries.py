"""The number of retries, and the waits before them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.client.exceptions import (
    ClientError,
    InvalidResponse,
    LocalFailure,
    Refused,
    Unreachable,
)
from twistedmedia.client.responses import retry_after_s
from twistedmedia.client.retries import Backoff, Retries

quick = settings(max_examples=60)

BROKEN = Unreachable("broken")


def waits(retries: Retries, error: ClientError, count: int) -> list[float | None]:
    backoff = Backoff(retries)
    return [backoff.wait_s(error) for _ in range(count)]


def test_waits_grow_up_to_a_limit_and_end() -> None:
    retries = Retries(times=5, first_s=1, longest_s=6, random=lambda: 1.0)
    assert waits(retries, BROKEN, 7) == [1, 2, 4, 6, 6, None, None]


def test_waits_are_drawn_from_the_whole_span() -> None:
    assert waits(Retries(times=2, first_s=8, random=lambda: 0.25), BROKEN, 2) == [2, 4]


def test_progress_makes_all_retries_available_again() -> None:
    backoff = Backoff(Retries(times=1, first_s=1, random=lambda: 1.0))
    assert (backoff.wait_s(BROKEN), backoff.wait_s(BROKEN)) == (1, None)
    backoff.made_progress()
    assert (backoff.wait_s(BROKEN), backoff.wait_s(BROKEN)) == (1, None)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (Refused(408, 408, ""), True),
        (Refused(429, 429, ""), True),
        (Refused(503, 514, ""), True),
        (Refused(502, 502, "", is_from_service=False), True),
        (Refused(504, 504, "", is_from_service=False), True),
        (Refused(502, 512, ""), False),
        (Refused(504, 513, ""), False),
        (Refused(500, 500, ""), False),
        (Refused(507, 507, ""), False),
        (Refused(400, 503, ""), False),
        (Refused(409, 501, ""), False),
        (Unreachable(""), True),
        (Unreachable("", is_temporary=False), False),
        (InvalidResponse(""), False),
        (LocalFailure(""), False),
    ],
    ids=repr,
)
def test_only_temporary_failures_are_retried(error: ClientError, passes: bool) -> None:
    assert (waits(Retries(), error, 1) != [None]) == passes


def test_retry_after_is_added_to_the_wait() -> None:
    retries = Retries(first_s=1, max_retry_after_s=10, random=lambda: 1.0)
    assert waits(retries, Refused(503, 514, "", retry_after_s=10), 2) == [11, 12]
    assert waits(retries, Refused(503, 514, "", retry_after_s=10.5), 1) == [None]


@quick
@given(st.floats(0, 1), st.integers(0, 200), st.floats(0, 100), st.floats(0, 100))
def test_no_wait_is_longer_than_the_longest(
    drawn: float, times: int, first_s: float, longest_s: float
) -> None:
    retries = Retries(times, first_s, longest_s, random=lambda: drawn)
    found = waits(retries, BROKEN, times + 1)
    assert found[-1] is None
    assert all(wait is not None and 0 <= wait <= longest_s for wait in found[:-1])


NOW = 1_795_882_500.0  # 2026-11-28 16:15:00 UTC


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("120", 120),
        (" 5 ", 5),
        ("Sat, 28 Nov 2026 16:15:30 GMT", 30),
        ("Sat, 28 Nov 2026 16:14:30 GMT", 0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("9" * 400, None),
        ("Sat, 99 Nov 2026 16:15:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(field: str | None, seconds: float | None) -> None:
    assert retry_after_s(field, NOW) == seconds


@quick
@given(st.text())
def test_any_retry_after_is_not_negative_or_none(field: str) -> None:
    found = retry_after_s(field, NOW)
    assert found is None or found >= 0

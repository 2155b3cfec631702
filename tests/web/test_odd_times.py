"""Files with modification times outside of calendars are listed and served like others."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.support import named
from tests.web.test_tree import asked
from twistedmedia.store.memory import MemoryMedia, MemoryStore

URL = "/media/a/x.mp3"
EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"
SECOND = 10**9

# The time in seconds since the epoch, and what the listing says.
TIMES = [
    (-(2**80), None),
    (-1_008_906_000_000, None),  # in the year -30000
    (-62_167_219_200, None),  # the year 0
    (-62_135_596_800, "0001-01-01T00:00:00.000Z"),
    (-1, "1969-12-31T23:59:59.000Z"),
    (0, "1970-01-01T00:00:00.000Z"),
    (253_402_300_799, "9999-12-31T23:59:59.000Z"),
    (253_402_300_800, None),
    (910_670_515_199, None),  # in 30828, the last year of Windows
    (2**63 // SECOND, "2262-04-11T23:47:16.000Z"),
    (2**63, None),  # beyond the range of gmtime(3)
    (2**80, None),
]
odd_times = pytest.mark.parametrize(("seconds", "listed"), TIMES)


def holding(seconds: int) -> MemoryStore:
    """A store with one file, modified at `seconds`."""
    store = MemoryStore()
    store._files[named("a/x.mp3")] = MemoryMedia(b"hello", seconds * SECOND)
    return store


def listed_in(store: Any) -> dict[str, Any]:
    """The only entry of the listing."""
    answer = asked("GET /media/a/", store=store)
    assert answer.status == 200
    (entry,) = json.loads(answer.content)["entries"]
    assert isinstance(entry, dict)
    return entry


@odd_times
def test_a_file_of_any_year_is_listed(seconds: int, listed: str | None) -> None:
    """Case 49."""
    entry = listed_in(holding(seconds))
    assert (entry["name"], entry["size"], entry["modified"]) == ("x.mp3", 5, listed)


@odd_times
def test_a_file_of_any_year_is_served(seconds: int, listed: str | None) -> None:
    """Case 49. Last-Modified is a date that clients understand, and not later than Date."""
    store = holding(seconds)
    answer = asked(f"GET {URL}", store=store)
    assert answer.status == 200
    assert answer.headers["etag"] == listed_in(store)["etag"]
    told = parsedate_to_datetime(answer.headers["last-modified"])
    assert told <= parsedate_to_datetime(answer.headers["date"])
    assert told.timestamp() >= 0
    if seconds <= 0:
        assert answer.headers["last-modified"] == EPOCH


@odd_times
@pytest.mark.parametrize(
    ("headers", "of_the_past", "of_the_future"),
    [
        (["If-Modified-Since: {told}"], 304, 200),
        (["If-Unmodified-Since: {told}"], 200, 412),
        (["If-None-Match: {etag}"], 304, 304),
        (["If-Match: {etag}"], 200, 200),
        (["Range: bytes=1-2", "If-Range: {etag}"], 206, 206),
    ],
)
def test_conditions_on_a_file_of_any_year_hold(
    seconds: int, listed: str | None, headers: list[str], of_the_past: int, of_the_future: int
) -> None:
    """Case 49. A modification time in the future counts as the current time."""
    store = holding(seconds)
    seen = asked(f"GET {URL}", store=store).headers
    sent = [each.format(told=seen["last-modified"], etag=seen["etag"]) for each in headers]
    status = asked(f"GET {URL}", *sent, store=store).status
    assert status == (of_the_past if seconds <= 0 else of_the_future)


@odd_times
def test_a_date_keeps_the_range_of_a_file_that_has_this_date(
    seconds: int, listed: str | None
) -> None:
    """Case 49. `If-Range` fails if the date was clamped."""
    store = holding(seconds)
    told = asked(f"GET {URL}", store=store).headers["last-modified"]
    answer = asked(f"GET {URL}", "Range: bytes=1-2", f"If-Range: {told}", store=store)
    assert answer.status == (206 if seconds == 0 else 200)


@odd_times
def test_a_file_of_any_year_is_replaced_and_deleted(seconds: int, listed: str | None) -> None:
    """Case 49."""
    store = holding(seconds)
    etag = asked(f"GET {URL}", store=store).headers["etag"]
    for condition in (f"If-Match: {etag}", "If-Unmodified-Since: " + EPOCH):
        stored = holding(seconds)
        answer = asked(f"DELETE {URL}", condition, store=stored)
        allowed = condition.startswith("If-Match") or seconds <= 0
        assert answer.status == (200 if allowed else 412)
    answer = asked(f"PUT {URL}", f"If-Match: {etag}", content=b"new", store=store)
    assert answer.status == 200

"""What a fetch cost, phase by phase: as curl counts it, as JSON, and as Server-Timing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.fetch.timings import Timings

quick = settings(max_examples=300)

WHOLE = Timings(
    redirect=0.5, lookup=0.75, connect=1.0, tls=1.5, first_byte=3.0, total=3.25
)  # sums of powers of two: exact
KEPT = Timings(first_byte=0.25, total=1.0)  # on a connection that was there

ORDER = ["redirect", "lookup", "connect", "tls", "wait", "receive"]


@pytest.mark.parametrize(
    ("timings", "durations"),
    [
        (
            WHOLE,
            [
                ("redirect", 0.5),
                ("lookup", 0.25),
                ("connect", 0.25),
                ("tls", 0.5),
                ("wait", 1.5),
                ("receive", 0.25),
            ],
        ),
        (KEPT, [("wait", 0.25), ("receive", 0.75)]),
        (
            Timings(lookup=0.25, connect=0.5, first_byte=1.0, total=1.0),
            [("lookup", 0.25), ("connect", 0.25), ("wait", 0.5), ("receive", 0.0)],
        ),
        (
            Timings(redirect=1.0, first_byte=2.0, total=2.0),
            [
                ("redirect", 1.0),
                ("wait", 1.0),
                ("receive", 0.0),
            ],
        ),
        (Timings(total=2.0), [("receive", 2.0)]),
        (Timings(), [("receive", 0.0)]),
        # A clock that went back costs nothing, and is not paid twice.
        (
            Timings(lookup=1.0, connect=0.5, first_byte=1.5, total=1.25),
            [("lookup", 1.0), ("connect", 0.0), ("wait", 0.5), ("receive", 0.0)],
        ),
    ],
)
def test_each_phase_that_took_place_has_its_duration(
    timings: Timings, durations: list[tuple[str, float]]
) -> None:
    assert list(timings.durations()) == durations


@pytest.mark.parametrize(
    ("later", "seen"),
    [
        (0.0, WHOLE),
        (0.25, Timings(0.25, 0.5, 0.75, 1.25, 2.75, 3.0)),
        (0.5, Timings(None, 0.25, 0.5, 1.0, 2.5, 2.75)),
        (1.25, Timings(tls=0.25, first_byte=1.75, total=2.0)),
        (3.0, Timings(total=0.25)),
        (3.25, Timings()),
        (9.0, Timings()),
    ],
)
def test_who_joins_later_pays_for_what_was_not_over(later: float, seen: Timings) -> None:
    assert WHOLE.since(later) == seen


def test_the_json_has_every_phase_and_redirects_only_where_there_were_some() -> None:
    assert WHOLE.json == {
        "redirect": 0.5,
        "lookup": 0.75,
        "connect": 1.0,
        "tls": 1.5,
        "first_byte": 3.0,
        "total": 3.25,
    }
    assert KEPT.json == {
        "lookup": None,
        "connect": None,
        "tls": None,
        "first_byte": 0.25,
        "total": 1.0,
    }
    assert list(WHOLE.json) == ["redirect", "lookup", "connect", "tls", "first_byte", "total"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.00004, 0.0), (0.00006, 0.0001), (0.1, 0.1), (1 / 3, 0.3333), (0, 0)]
)
def test_the_json_is_rounded_to_a_tenth_of_a_millisecond(seconds: float, shown: float) -> None:
    assert Timings(redirect=seconds, total=seconds).json == {
        "redirect": shown,
        "lookup": None,
        "connect": None,
        "tls": None,
        "first_byte": None,
        "total": shown,
    }


@pytest.mark.parametrize(
    ("timings", "header"),
    [
        (
            WHOLE,
            "redirect;dur=500.0, lookup;dur=250.0, connect;dur=250.0, tls;dur=500.0, "
            "wait;dur=1500.0, receive;dur=250.0, total;dur=3250.0",
        ),
        (KEPT, "wait;dur=250.0, receive;dur=750.0, total;dur=1000.0"),
        (Timings(), "receive;dur=0.0, total;dur=0.0"),
        (Timings(total=0.00016), "receive;dur=0.2, total;dur=0.2"),
    ],
)
def test_the_header_has_the_durations_in_milliseconds(timings: Timings, header: str) -> None:
    assert timings.header == header


times = st.floats(0, 1e6, allow_nan=False)


@st.composite
def sequences(draw: st.DrawFn) -> Timings:
    """Timings as a clock that runs on takes them, any phase but the last one left out."""
    ends = sorted(draw(st.lists(times, min_size=6, max_size=6)))
    took_place = draw(st.lists(st.booleans(), min_size=5, max_size=5))
    phases = [end if took else None for end, took in zip(ends, took_place, strict=False)]
    return Timings(*phases, total=ends[-1])


@quick
@given(sequences(), times)
def test_the_durations_add_up_to_the_total_for_whoever_joins(
    timings: Timings, later: float
) -> None:
    for seen in (timings, timings.since(later)):
        durations = dict(seen.durations())
        assert sum(durations.values()) == pytest.approx(seen.total)
        assert list(durations) == [label for label in ORDER if label in durations]
        assert list(durations)[-1] == "receive"


any_timings = st.builds(Timings, *[st.none() | times] * 5, total=times)


@quick
@given(any_timings, times)
def test_any_times_are_durations_that_are_none_below_nothing(
    timings: Timings, later: float
) -> None:
    for seen in (timings, timings.since(later)):
        assert all(took >= 0 for _, took in seen.durations())
        assert all(end is None or end >= 0 for end in seen.json.values())
        assert re.fullmatch(r"(?:[a-z]+;dur=[0-9]+\.[0-9], )+total;dur=[0-9]+\.[0-9]", seen.header)

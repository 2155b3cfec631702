"""Sizes and times as people write them, a budget that is exact to the byte, and a least rate."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.errors import TooLarge
from twistedmedia.limits import (
    RECENT_S,
    ByteBudget,
    LeastRate,
    RecentRate,
    parse_duration,
    parse_size,
)

quick = settings(max_examples=200)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("12b", 12),
        ("64k", 64 << 10),
        ("64K", 64 << 10),
        ("3m", 3 << 20),
        ("2g", 2 << 30),
        ("1t", 1 << 40),
        ("1KiB", 1 << 10),
        ("1MiB", 1 << 20),
        ("2GiB", 2 << 30),
        ("2gib", 2 << 30),
        ("1TiB", 1 << 40),
        ("1kB", 10**3),
        ("500 MB", 500 * 10**6),
        ("4GB", 4 * 10**9),
        ("1TB", 10**12),
        ("1.5GiB", 3 << 29),
        ("0.5KiB", 512),
        ("0.001kB", 1),
        (" 2GiB\n", 2 << 30),
        ("2147483648", 1 << 31),
        ("4294967297", (1 << 32) + 1),
    ],
)
def test_a_size_is_read_as_it_is_meant(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "big",
        "GiB",
        "-1",
        "+1",
        "--1",
        "1e9",
        "0x10",
        "1_000",
        "1,000",
        "1 000",
        "1.",
        ".5",
        "1.0005k",
        "1.2.3",
        "2GiBs",
        "2 Gi B",
        "2PiB",
        "inf",
        "NaN",
        "1\n2",
        "\uff11",
        "\u0661",
        "1\u212a",
        "9" * 20,
        pytest.param("9" * 5000, id="5000 digits"),
    ],
)
def test_what_is_no_size_is_refused_with_an_example_of_one(text: str) -> None:
    """Case 37."""
    with pytest.raises(ValueError, match="2GiB") as caught:
        parse_size(text)
    assert "\n" not in str(caught.value)


@quick
@given(st.integers(0, 10**19 - 1))
def test_a_plain_number_is_that_many_bytes(size: int) -> None:
    assert parse_size(str(size)) == size


@quick
@given(st.text(st.sampled_from("0123456789.-+ kKmMgGtTiIbB\uff11\u0130\u017f")) | st.text())
def test_any_text_is_a_size_or_a_value_error_on_one_line(text: str) -> None:
    try:
        size = parse_size(text)
    except ValueError as error:
        lines = str(error).splitlines()
    else:
        assert size >= 0
        return
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("90", 90),
        ("30s", 30),
        ("30S", 30),
        ("5m", 300),
        ("5M", 300),
        ("5min", 300),
        ("5 min", 300),
        ("1h", 3600),
        ("24H", 86400),
        ("030s", 30),
        (" 30s\n", 30),
        ("999999h", 999999 * 3600),
    ],
)
def test_a_time_is_read_as_it_is_meant(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "s",
        "h",
        "-1",
        "+1",
        "1.5h",
        ".5s",
        "1,5s",
        "1e3",
        "0x10",
        "1_000",
        "1 0",
        "1h30m",
        "1:30",
        "30 seconds",
        "30sec",
        "500ms",
        "1d",
        "1 s s",
        "inf",
        "nan",
        "3\n0",
        "\uff13\uff10s",
        "\u0663",
        "30\u017f",
        "1000000",
        pytest.param("9" * 5000, id="5000 digits"),
    ],
)
def test_what_is_no_time_is_refused_with_an_example_of_one(text: str) -> None:
    """Case 37."""
    with pytest.raises(ValueError, match="30s, 5m or 1h") as caught:
        parse_duration(text)
    assert len(str(caught.value).splitlines()) == 1


@quick
@given(st.integers(0, 999_999))
def test_a_time_in_seconds_minutes_and_hours(number: int) -> None:
    assert parse_duration(str(number)) == parse_duration(f"{number}s") == number
    assert parse_duration(f"{number}m") == 60 * number
    assert parse_duration(f"{number}h") == 3600 * number


@quick
@given(st.text(st.sampled_from("0123456789.-+ sSmMiInNhH\uff11\u0130\u017f")) | st.text())
def test_any_text_is_a_time_or_a_value_error_on_one_line(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        lines = str(error).splitlines()
    else:
        assert seconds >= 0
        return
    assert len(lines) == 1


# Of a window of 5 s at no less than 10 B/s: what had come in all at its end, whether the sender was
# excused, and whether the rate was kept.
WINDOWS: dict[str, list[tuple[int, bool, bool]]] = {
    "exactly fast enough": [(50, False, True), (100, False, True), (150, False, True)],
    "a byte too slow": [(49, False, False)],
    "nothing": [(0, False, False)],
    "nothing, excused": [(0, True, True), (0, True, True)],
    "slow, excused": [(1, True, True), (2, True, True)],
    "slow later": [(1000, False, True), (1049, False, False)],
    "what was ahead does not last": [(10_000, False, True), (10_000, False, False)],
    "what is excused is not owed": [(0, True, True), (50, False, True), (99, False, False)],
    "what came while excused is gone": [(500, True, True), (549, False, False)],
    "fast again": [(10, False, False), (60, False, True)],
    "2 GiB and more": [(1 << 31, False, True), ((1 << 31) + 49, False, False)],
}


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_each_window_is_judged_by_what_came_in_it(windows: list[tuple[int, bool, bool]]) -> None:
    """Case 24."""
    rate = LeastRate(bytes_per_s=10, window_s=5)
    assert rate.window_s == 5
    assert [rate.kept(received, excused) for received, excused, _ in windows] == [
        kept for *_, kept in windows
    ]


def test_no_least_rate_is_always_kept() -> None:
    rate = LeastRate(bytes_per_s=0, window_s=60)
    assert rate.kept(0, excused=False)
    assert rate.kept(0, excused=False)


@quick
@given(
    st.integers(0, 20),
    st.integers(1, 10),
    st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=8),
)
def test_a_window_is_too_slow_only_if_it_brings_less_and_nobody_else_is_to_blame(
    bytes_per_s: int, window_s: int, windows: list[tuple[int, bool]]
) -> None:
    rate = LeastRate(bytes_per_s, window_s)
    received = 0
    for came, excused in windows:
        received += came
        assert rate.kept(received, excused) is (excused or came >= bytes_per_s * window_s)


@pytest.mark.parametrize("limit", [0, 1, 10, (1 << 31) - 1, 1 << 31, 1 << 32])
def test_a_limit_of_n_bytes_takes_n_and_refuses_one_more(limit: int) -> None:
    budget = ByteBudget(limit)
    budget.spend(limit)
    budget.spend(0)
    with pytest.raises(TooLarge) as caught:
        budget.spend(1)
    assert caught.value.limit == limit
    assert budget.spent == limit + 1


def test_the_refusal_names_the_thing_and_its_limit() -> None:
    with pytest.raises(TooLarge, match=r"^the form is larger than the limit of 8 bytes$"):
        ByteBudget(8, "the form").spend(9)


@quick
@given(st.integers(0, 50), st.lists(st.integers(0, 20)))
def test_a_budget_refuses_from_the_first_byte_over_it_on(limit: int, sizes: list[int]) -> None:
    budget = ByteBudget(limit)
    spent = 0
    for size in sizes:
        spent += size
        try:
            budget.spend(size)
        except TooLarge:
            assert spent > limit
        else:
            assert spent <= limit
        assert budget.spent == spent


# How fast bytes came lately


def test_a_rate_is_not_known_before_some_seconds() -> None:
    rate = RecentRate(100.0, 0)
    for step in range(3):
        rate.look(100.0 + step, 1000 * step)
        assert rate.bytes_per_s(1000 * step) is None
    rate.look(100.0 + RECENT_S, 300)
    assert rate.bytes_per_s(300) == 100.0


def test_what_was_fast_and_trickles_now_is_slow() -> None:
    """Case 86: it is measured over the last seconds, not since the beginning."""
    rate = RecentRate(0.0, 0)
    received, now_s = 0, 0.0
    for _ in range(100):
        now_s, received = now_s + 1, received + 10**6
        rate.look(now_s, received)
    for _ in range(6):
        now_s, received = now_s + 1, received + 64
        rate.look(now_s, received)
    assert rate.bytes_per_s(received) == 64.0


def test_what_was_slow_and_has_become_fast_is_fast_at_once() -> None:
    rate = RecentRate(0.0, 0)
    rate.look(RECENT_S, 30)
    assert rate.bytes_per_s(30) == 10.0
    assert rate.bytes_per_s(30 + 3 * 10**6) == 10**6


def test_time_in_which_the_peer_waited_for_us_does_not_count() -> None:
    rate = RecentRate(0.0, 0)
    rate.look(RECENT_S, 30)
    rate.look(RECENT_S + 100, 60, 99.0)
    assert rate.bytes_per_s(60) == 10.0
    rate.look(2 * RECENT_S + 99, 90)
    assert rate.bytes_per_s(90) == 60 / RECENT_S


def test_a_peer_that_waits_for_a_moment_now_and_then_is_measured_all_the_same() -> None:
    """Case 86."""
    rate = RecentRate(0.0, 0)
    for second in range(1, 10):
        rate.look(second, 64 * second, 0.01)
    assert rate.bytes_per_s(9 * 64) == pytest.approx(64, rel=0.02)


def test_what_came_before_does_not_count() -> None:
    rate = RecentRate(0.0, 1 << 40)
    rate.look(RECENT_S, (1 << 40) + 30)
    assert rate.bytes_per_s((1 << 40) + 30) == 10.0

"""Sizes and durations as people write them, and a limit that is exact to the byte."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.errors import TooLarge
from twistedmedia.limits import ByteBudget, parse_duration, parse_size

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
def test_a_size_is_parsed(text: str, size: int) -> None:
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
def test_an_invalid_size_is_refused_with_an_example(text: str) -> None:
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
def test_a_duration_is_parsed(text: str, seconds: int) -> None:
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
def test_an_invalid_duration_is_refused_with_an_example(text: str) -> None:
    """Case 37."""
    with pytest.raises(ValueError, match="30s, 5m or 1h") as caught:
        parse_duration(text)
    assert len(str(caught.value).splitlines()) == 1


@quick
@given(st.integers(0, 999_999))
def test_a_duration_in_seconds_minutes_and_hours(number: int) -> None:
    assert parse_duration(str(number)) == parse_duration(f"{number}s") == number
    assert parse_duration(f"{number}m") == 60 * number
    assert parse_duration(f"{number}h") == 3600 * number


@quick
@given(st.text(st.sampled_from("0123456789.-+ sSmMiInNhH\uff11\u0130\u017f")) | st.text())
def test_any_text_is_a_duration_or_a_value_error_on_one_line(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        lines = str(error).splitlines()
    else:
        assert seconds >= 0
        return
    assert len(lines) == 1


@pytest.mark.parametrize("limit", [0, 1, 10, (1 << 31) - 1, 1 << 31, 1 << 32])
def test_a_limit_of_n_bytes_accepts_n_and_refuses_one_more(limit: int) -> None:
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
def test_a_budget_refuses_every_byte_over_the_limit(limit: int, sizes: list[int]) -> None:
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

"""Text for people: safe for a terminal, with sizes and times that are easy to read."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from twistedmedia.client.command.bars import Bars
from twistedmedia.client.command.display import Display, Lines
from twistedmedia.client.command.results import Outcome, Result, Tally, failure
from twistedmedia.client.command.text import (
    milliseconds_text,
    printable,
    rate_text,
    size_text,
    time_text,
)
from twistedmedia.client.exceptions import Refused

quick = settings(max_examples=100)

NASTY = "\x1b[2J\x07\x7f\x9b\u202e\u2028\r\n\udc80[bold]ü"


@quick
@given(st.text(st.characters(exclude_categories=[])))
def test_no_text_can_control_the_terminal(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    harmful = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not [each for each in shown if unicodedata.category(each) in harmful]


def test_visible_characters_are_not_replaced() -> None:
    assert printable("prompts/ü 電話 🎵 [bold].wav") == "prompts/ü 電話 🎵 [bold].wav"


def lines() -> tuple[Display, StringIO, StringIO]:
    out, err = StringIO(), StringIO()
    return Lines(out, err, lambda: 0.0, quiet=False), out, err


def bars() -> tuple[Display, StringIO, StringIO]:
    out, err = StringIO(), StringIO()
    return Bars(Clock(), out, err, is_same_terminal=False), out, err


@pytest.mark.parametrize("make", [lines, bars])
def test_a_result_is_shown_as_one_safe_line(
    make: Callable[[], tuple[Display, StringIO, StringIO]],
) -> None:
    display, out, err = make()
    result = Result(Outcome.FAILED, NASTY, NASTY, reason=NASTY, problem=NASTY, code=501)
    display.line(result.line)
    display.note(result.line)
    display.close()
    for text in (out.getvalue(), err.getvalue()):
        [line] = [line for line in text.split("\n") if "failed" in line]
        assert line.isprintable()
        assert "[bold]ü" in line
        assert "[warning: \N{REPLACEMENT CHARACTER}[2J" in line
        assert "(code 501)" in line


def test_a_result_in_json_is_one_line_of_printable_ascii() -> None:
    result = Result(Outcome.FAILED, NASTY, NASTY, reason=NASTY, problem=NASTY, code=501)
    assert result.json.isascii()
    assert result.json.isprintable()
    assert json.loads(result.json)["name"] == NASTY


def test_a_failure_names_the_incident() -> None:
    error = Refused(500, 500, "internal error", incident="abc")
    assert failure(error, "a/b").status == 500
    assert failure(error, "a/b").line == "failed     a/b: internal error (incident abc) (code 500)"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (3 << 29, "1.5 GiB"),
        (1 << 62, "4096.0 PiB"),
    ],
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.256, "0.26 s"),
        (9.999, "10 s"),
        (59.7, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_times_are_readable(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_milliseconds_are_readable() -> None:
    assert milliseconds_text(0.00004) == "0.0 ms"
    assert milliseconds_text(0.1031) == "103.1 ms"
    assert milliseconds_text(75) == "75000.0 ms"


def test_rates_are_readable() -> None:
    assert rate_text(3 << 20, 2) == "1.5 MiB/s"
    assert rate_text(1, 0) == "-"


def test_a_tally_gives_a_summary_and_an_exit_code() -> None:
    tally = Tally()
    assert (tally.summary(1), tally.exit_code) == ("nothing to do", 0)
    tally.count(Result(Outcome.SKIPPED))
    tally.count(Result(Outcome.LEFT_OUT))
    assert tally.exit_code == 0
    tally.count(Result(Outcome.STORED), 2 << 20)
    tally.count(Result(Outcome.FAILED))
    assert tally.summary(2) == (
        "1 stored, 1 skipped, 1 left out, 1 failed; 2.0 MiB in 2.00 s (1.0 MiB/s)"
    )
    assert tally.exit_code == 1
    tally.set_unreachable()
    assert tally.exit_code == 3

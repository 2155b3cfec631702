"""How many tiny pieces of content may come at once (case 85)."""

from __future__ import annotations

import pytest

from twistedmedia.fairness.pace import MOST_A_SECOND, MOST_AT_ONCE, TINY_BYTES, TinyChunkLimit


def test_so_many_may_come_at_once_and_one_more_may_not() -> None:
    tiny = TinyChunkLimit()
    assert not tiny.are_too_many(MOST_AT_ONCE, MOST_AT_ONCE, 0.0)
    assert tiny.are_too_many(1, 1, 0.0)


def test_as_many_more_may_come_as_time_allows() -> None:
    tiny = TinyChunkLimit()
    assert not tiny.are_too_many(MOST_AT_ONCE, 0, 100.0)
    assert not tiny.are_too_many(MOST_A_SECOND, 0, 101.0)
    assert tiny.are_too_many(MOST_A_SECOND + 1, 0, 102.0)


def test_pieces_that_are_not_tiny_on_average_may_come_without_end() -> None:
    tiny = TinyChunkLimit()
    for _ in range(100):
        assert not tiny.are_too_many(MOST_AT_ONCE, MOST_AT_ONCE * TINY_BYTES, 0.0)
    assert not tiny.are_too_many(0, 0, 0.0)


@pytest.mark.parametrize("a_second", [50, 400])
def test_the_pace_of_speech_is_never_too_many(a_second: int) -> None:
    tiny = TinyChunkLimit()
    assert not any(tiny.are_too_many(a_second, 13 * a_second, float(s)) for s in range(20_000))


def test_what_is_tiny_and_how_many_may_come_can_be_chosen() -> None:
    small = TinyChunkLimit(10, tiny_bytes=512)
    assert not small.are_too_many(100, 100 * 512, 0.0)
    assert not small.are_too_many(10, 10 * 511, 0.0)
    assert small.are_too_many(1, 511, 0.0)

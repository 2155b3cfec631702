"""How fast a peer is: least and recent rates, time in which it waits for us, and tiny chunks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from twistedmedia.fairness.pace import (
    MAX_BURST,
    MAX_PER_S,
    RECENT_S,
    TINY_BYTES,
    LeastRate,
    PeerWait,
    RecentRate,
    TinyChunkLimit,
)

# Windows of 5 s at a least rate of 10 B/s: the total at the end of each, whether the sender was
# excused, and whether the rate was met.
WINDOWS: dict[str, list[tuple[int, bool, bool]]] = {
    "exactly fast enough": [(50, False, True), (100, False, True), (150, False, True)],
    "a byte too slow": [(49, False, False)],
    "nothing": [(0, False, False)],
    "nothing, excused": [(0, True, True), (0, True, True)],
    "slow, excused": [(1, True, True), (2, True, True)],
    "slow later": [(1000, False, True), (1049, False, False)],
    "bytes of an earlier window do not count": [(10_000, False, True), (10_000, False, False)],
    "an excused window need not be made up for": [
        (0, True, True),
        (50, False, True),
        (99, False, False),
    ],
    "bytes of an excused window do not count later": [(500, True, True), (549, False, False)],
    "fast again": [(10, False, False), (60, False, True)],
    "2 GiB and more": [(1 << 31, False, True), ((1 << 31) + 49, False, False)],
}


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
def test_each_window_counts_only_its_own_bytes(windows: list[tuple[int, bool, bool]]) -> None:
    """Case 24."""
    rate = LeastRate(bytes_per_s=10, window_s=5)
    assert rate.window_s == 5
    assert [rate.is_met(received, excused) for received, excused, _ in windows] == [
        is_met for *_, is_met in windows
    ]


def test_a_least_rate_of_0_is_always_met() -> None:
    rate = LeastRate(bytes_per_s=0, window_s=60)
    assert rate.is_met(0, excused=False)
    assert rate.is_met(0, excused=False)


@settings(max_examples=200)
@given(
    st.integers(0, 20),
    st.integers(1, 10),
    st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=8),
)
def test_a_window_is_too_slow_only_if_it_has_fewer_bytes_and_is_not_excused(
    bytes_per_s: int, window_s: int, windows: list[tuple[int, bool]]
) -> None:
    rate = LeastRate(bytes_per_s, window_s)
    received = 0
    for size, excused in windows:
        received += size
        assert rate.is_met(received, excused) is (excused or size >= bytes_per_s * window_s)


def test_a_rate_is_unknown_for_the_first_seconds() -> None:
    rate = RecentRate(100.0, 0)
    for step in range(3):
        rate.update(100.0 + step, 1000 * step)
        assert rate.bytes_per_s(1000 * step) is None
    rate.update(100.0 + RECENT_S, 300)
    assert rate.bytes_per_s(300) == 100.0


def test_a_peer_that_was_fast_and_trickles_now_is_slow() -> None:
    """Case 86: it is measured over the last seconds, not since the beginning."""
    rate = RecentRate(0.0, 0)
    received, now_s = 0, 0.0
    for _ in range(100):
        now_s, received = now_s + 1, received + 10**6
        rate.update(now_s, received)
    for _ in range(6):
        now_s, received = now_s + 1, received + 64
        rate.update(now_s, received)
    assert rate.bytes_per_s(received) == 64.0


def test_a_peer_that_was_slow_and_becomes_fast_is_fast_at_once() -> None:
    rate = RecentRate(0.0, 0)
    rate.update(RECENT_S, 30)
    assert rate.bytes_per_s(30) == 10.0
    assert rate.bytes_per_s(30 + 3 * 10**6) == 10**6


def test_time_in_which_the_peer_waited_for_us_does_not_count() -> None:
    rate = RecentRate(0.0, 0)
    rate.update(RECENT_S, 30)
    rate.update(RECENT_S + 100, 60, 99.0)
    assert rate.bytes_per_s(60) == 10.0
    rate.update(2 * RECENT_S + 99, 90)
    assert rate.bytes_per_s(90) == 60 / RECENT_S


def test_a_peer_that_waits_for_a_moment_now_and_then_is_measured_all_the_same() -> None:
    """Case 86."""
    rate = RecentRate(0.0, 0)
    for second in range(1, 10):
        rate.update(second, 64 * second, 0.01)
    assert rate.bytes_per_s(9 * 64) == pytest.approx(64, rel=0.02)


def test_bytes_from_before_the_measurement_do_not_count() -> None:
    rate = RecentRate(0.0, 1 << 40)
    rate.update(RECENT_S, (1 << 40) + 30)
    assert rate.bytes_per_s((1 << 40) + 30) == 10.0


def test_only_time_with_a_reason_to_wait_counts() -> None:
    clock = Clock()
    waiting = PeerWait(clock.seconds)
    clock.advance(5)
    assert waiting.take_s() == 0
    waiting.begin()
    clock.advance(1)
    waiting.end()
    clock.advance(7)
    assert (waiting.take_s(), waiting.take_s()) == (1, 0)


def test_time_with_several_reasons_counts_once() -> None:
    clock = Clock()
    waiting = PeerWait(clock.seconds)
    waiting.begin()
    clock.advance(1)
    waiting.begin()
    clock.advance(1)
    waiting.end()
    clock.advance(1)
    waiting.end()
    clock.advance(1)
    assert waiting.take_s() == 3


def test_a_wait_that_is_not_over_counts_up_to_each_call() -> None:
    clock = Clock()
    waiting = PeerWait(clock.seconds)
    waiting.begin()
    clock.advance(2)
    assert waiting.take_s() == 2
    clock.advance(3)
    waiting.end()
    assert waiting.take_s() == 3


def test_a_burst_may_have_max_burst_chunks_and_not_one_more() -> None:
    tiny = TinyChunkLimit()
    assert not tiny.are_too_many(MAX_BURST, MAX_BURST, 0.0)
    assert tiny.are_too_many(1, 1, 0.0)


def test_after_a_burst_as_many_may_follow_as_leak_out() -> None:
    tiny = TinyChunkLimit()
    assert not tiny.are_too_many(MAX_BURST, 0, 100.0)
    assert not tiny.are_too_many(MAX_PER_S, 0, 101.0)
    assert tiny.are_too_many(MAX_PER_S + 1, 0, 102.0)


def test_chunks_that_are_not_tiny_on_average_are_unlimited() -> None:
    tiny = TinyChunkLimit()
    for _ in range(100):
        assert not tiny.are_too_many(MAX_BURST, MAX_BURST * TINY_BYTES, 0.0)
    assert not tiny.are_too_many(0, 0, 0.0)


@pytest.mark.parametrize("a_second", [50, 400])
def test_the_pace_of_speech_is_never_too_many(a_second: int) -> None:
    tiny = TinyChunkLimit()
    assert not any(tiny.are_too_many(a_second, 13 * a_second, float(s)) for s in range(20_000))


def test_the_burst_and_the_size_of_a_tiny_chunk_can_be_set() -> None:
    small = TinyChunkLimit(10, tiny_bytes=512)
    assert not small.are_too_many(100, 100 * 512, 0.0)
    assert not small.are_too_many(10, 10 * 511, 0.0)
    assert small.are_too_many(1, 511, 0.0)

"""How much of a scarce resource a caller may hold, and which holding gives way (case 86)."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedmedia.errors import Busy
from twistedmedia.fairness.shares import Share, Shares

BUSY_RATE = 100.0
SLOW, FAST = 65.0, 1e6
ME, OTHER, THIRD = "me", "another", "a third"


class Holder:
    """Counts how often it has to give way, and how often its pace is read."""

    def __init__(self, pace: float | None = SLOW) -> None:
        self.ends = 0
        self.reads = 0
        self._pace = pace

    def pace(self) -> float | None:
        self.reads += 1
        return self._pace

    def give_way(self) -> None:
        self.ends += 1


class Seconds:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shares_of(total: int, now_s: Seconds | None = None) -> Shares:
    return Shares(total, BUSY_RATE, now_s or Seconds())


def filled(shares: Shares, caller: str, count: int, pace: float | None = SLOW) -> list[Holder]:
    """Holders of `caller`, each with one."""
    holders = [Holder(pace) for _ in range(count)]
    for holder in holders:
        shares.take(caller, holder)
    return holders


def refused(shares: Shares, caller: str, amount: int = 1) -> bool:
    try:
        shares.take(caller, Holder(), amount)
    except Busy:
        return True
    return False


def ended(holders: list[Holder]) -> int:
    return sum(holder.ends for holder in holders)


def test_a_sole_caller_can_hold_all_of_it_and_no_more() -> None:
    shares = shares_of(64)
    holders = filled(shares, ME, 64)
    assert refused(shares, ME)
    assert ended(holders) == 0


def test_an_eighth_more_is_reserved_for_callers_that_hold_little() -> None:
    shares = shares_of(64)
    holders = filled(shares, ME, 64, FAST)
    newcomers = filled(shares, OTHER, 8, FAST)
    assert shares.used == 72
    assert refused(shares, OTHER)
    assert refused(shares, THIRD)
    assert ended(holders) == ended(newcomers) == 0


def test_a_total_below_eight_has_no_reserve() -> None:
    shares = shares_of(7)
    filled(shares, ME, 7, FAST)
    assert refused(shares, OTHER)


def test_used_reserve_is_not_free_for_the_largest_share() -> None:
    shares = shares_of(64)
    mine = [shares.take(ME, Holder(FAST)) for _ in range(64)]
    filled(shares, OTHER, 8)
    mine[0].release()
    assert refused(shares, ME)
    for share in mine[1:9]:
        share.release()
    assert not refused(shares, ME)


def test_no_holding_ends_while_there_is_room() -> None:
    shares = shares_of(64)
    holders = filled(shares, ME, 63) + filled(shares, OTHER, 1)
    holders += filled(shares, THIRD, 8)
    assert ended(holders) == 0


def test_when_it_is_used_up_the_slowest_of_the_largest_share_gives_way() -> None:
    shares = shares_of(7)
    holders = [Holder(pace) for pace in (FAST, 50.0, 20.0, 99.0, None)]
    for holder in holders:
        shares.take(ME, holder)
    others = filled(shares, OTHER, 2, 0.0)
    for _ in range(2):
        shares.take(THIRD, Holder())
    assert [holder.ends for holder in holders] == [0, 1, 1, 0, 0]
    assert ended(others) == 0
    assert shares.used == 7
    assert (shares.held_by(ME), shares.held_by(OTHER), shares.held_by(THIRD)) == (3, 2, 2)


@pytest.mark.parametrize("pace", [BUSY_RATE, FAST, None])
def test_no_holding_ends_that_is_fast_or_of_unknown_pace(pace: float | None) -> None:
    shares = shares_of(7)
    holders = filled(shares, ME, 7, pace)
    assert refused(shares, OTHER)
    assert ended(holders) == 0


def test_the_next_largest_share_gives_way_if_nothing_in_the_largest_is_slow() -> None:
    shares = shares_of(7)
    fast, slow = filled(shares, ME, 4, FAST), filled(shares, OTHER, 3)
    shares.take(THIRD, Holder())
    assert (ended(fast), ended(slow)) == (0, 1)


def test_no_share_gives_way_to_one_that_would_be_as_large() -> None:
    shares = shares_of(6)
    mine, others = filled(shares, ME, 3), filled(shares, OTHER, 3)
    assert refused(shares, ME)
    assert refused(shares, OTHER)
    shares.take(THIRD, Holder())
    shares.take(THIRD, Holder())
    assert shares.held_by(THIRD) == 2
    assert refused(shares, THIRD)
    assert ended(mine) + ended(others) == 2


def test_as_many_holdings_give_way_as_a_larger_amount_needs() -> None:
    shares = shares_of(7)
    small = [Holder(), Holder(), Holder()]
    for holder in small:
        shares.take(ME, holder, 2)
    shares.take(OTHER, Holder(), 3)
    assert ended(small) == 1
    assert refused(shares, THIRD, 4)
    assert ended(small) == 1


def test_nothing_ends_if_too_little_would_become_free() -> None:
    shares = shares_of(7)
    holders = [Holder(FAST), Holder(SLOW)]
    shares.take(ME, holders[0], 6)
    shares.take(ME, holders[1], 1)
    assert refused(shares, OTHER, 2)
    assert ended(holders) == 0


def test_more_than_the_total_is_refused() -> None:
    shares = shares_of(7)
    assert refused(shares, ME, 8)
    assert shares.used == 0


def test_a_share_that_grows_is_one_holding() -> None:
    shares = shares_of(7)
    form, fast = Holder(), Holder(FAST)
    share = shares.take(ME, form, 0)
    assert shares.used == 0
    for _ in range(6):
        share.grow()
    shares.take(ME, fast)
    shares.take(OTHER, Holder()).grow(2)
    assert (form.ends, fast.ends, shares.used) == (1, 0, 4)
    with pytest.raises(Busy):
        share.grow()
    share.release()
    assert shares.used == 4


def test_the_accounts_are_right_when_a_holder_gives_way() -> None:
    shares = shares_of(1)
    seen: list[tuple[int, int, int]] = []

    class Asking(Holder):
        def give_way(self) -> None:
            share.release()  # as its `with` statement will do
            seen.append((shares.used, shares.held_by(ME), shares.held_by(OTHER)))

    two = shares_of(2)
    shares = two
    share = shares.take(ME, Asking(0.0))
    shares.take(ME, Holder(FAST))
    shares.take(OTHER, Holder())
    assert seen == [(2, 1, 1)]


def test_a_share_is_released_once() -> None:
    shares = shares_of(2)
    with shares.take(ME, Holder()) as share:
        shares.take(ME, Holder())
        share.release()
    assert shares.figures == {"used": 1, "total": 2, "reserve": 0, "callers": 1, "largest": 1}


def test_the_figures_name_no_caller() -> None:
    shares = shares_of(64)
    filled(shares, ME, 3)
    filled(shares, OTHER, 2)
    assert shares.figures == {"used": 5, "total": 64, "reserve": 8, "callers": 2, "largest": 3}


def test_callers_that_hold_nothing_are_forgotten() -> None:
    shares = shares_of(64)
    for n in range(100):
        shares.take(str(n), Holder()).release()
    assert shares._callers == {}
    assert shares.figures["largest"] == 0


def test_a_flood_of_refusals_searches_ten_times_a_second() -> None:
    now_s = Seconds()
    shares = shares_of(1000, now_s)
    holders = filled(shares, ME, 1000, FAST) + filled(shares, OTHER, 125, FAST)
    assert all(refused(shares, str(n)) for n in range(1000))
    assert sum(holder.reads for holder in holders) <= len(holders)
    now_s.now += 0.1
    assert refused(shares, THIRD)
    assert sum(holder.reads for holder in holders) > len(holders)


def test_a_refusal_does_not_hide_what_a_smaller_request_may_have() -> None:
    shares = shares_of(7)
    large, small = filled(shares, ME, 5, FAST), filled(shares, OTHER, 2)
    assert refused(shares, THIRD, 4)
    shares.take(THIRD, Holder())
    assert (ended(large), ended(small)) == (0, 1)


def test_a_refusal_does_not_hide_that_less_is_missing_now() -> None:
    shares = shares_of(7)
    filled(shares, ME, 2, FAST)
    slow = filled(shares, ME, 1)
    leaving = shares.take(OTHER, Holder(FAST))
    filled(shares, OTHER, 3, FAST)
    assert refused(shares, THIRD, 2)
    leaving.release()
    assert not refused(shares, THIRD, 2)
    assert ended(slow) == 1


def test_when_all_hold_one_a_flood_of_refusals_reads_each_pace_once() -> None:
    shares = shares_of(100)
    holders = [Holder(FAST) for _ in range(112)]
    for n, holder in enumerate(holders):
        shares.take(str(n), holder)
    assert all(refused(shares, f"newcomer {n}") for n in range(100))
    assert [holder.reads for holder in holders] == [1] * 112
    assert all(refused(shares, str(n)) for n in range(112)), "they have their share"
    assert sum(holder.reads for holder in holders) == 112


def searches_of(shares: Shares, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The searches through all callers from now on: how much each caller is spared."""
    searches: list[int] = []
    larger = shares._larger

    def search(spared: int) -> Any:
        searches.append(spared)
        return larger(spared)

    monkeypatch.setattr(shares, "_larger", search)
    return searches


def test_a_refusal_does_not_search_for_a_larger_share_if_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = Seconds()
    shares = shares_of(100, now_s)
    for n in range(112):
        shares.take(str(n), Holder(FAST))
    searches = searches_of(shares, monkeypatch)
    for n in range(20):
        now_s.now += 1
        assert refused(shares, f"newcomer {n}")
    assert searches == [0] * 20, "for an equal share only"
    for n in range(20):
        now_s.now += 1
        assert refused(shares, str(n))
    assert searches == [0] * 20, "for a caller above its share there is nothing to find"


def test_one_search_finds_that_the_largest_share_is_smaller_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = Seconds()
    shares = shares_of(7, now_s)
    mine = [shares.take(ME, Holder(FAST)) for _ in range(7)]
    for share in mine[1:]:
        share.release()
    for n in range(6):
        shares.take(str(n), Holder(FAST))
    searches = searches_of(shares, monkeypatch)
    for n in range(20):
        now_s.now += 1
        assert refused(shares, f"newcomer {n}")
    assert searches == [1] + [0] * 20, "then for equal shares only"


# Holdings slower than the least rate


LEAST = 500.0
LIVE_RATE = 1000.0  # 8 kbit/s, as the most frugal codecs need


@pytest.mark.parametrize(
    ("paces", "ends"),
    [
        ([LEAST, 400.0, 65.0, 300.0], 2),
        ([65.0, 0.0, 0.0, 64.0], 1),
        ([FAST, LIVE_RATE, LEAST - 1, None], 2),
        ([LEAST, LIVE_RATE, FAST, None], None),
        ([math.inf] * 4, None),
    ],
)
def test_the_slowest_of_equal_shares_ends_if_it_is_slower_than_the_least_rate(
    paces: list[float | None], ends: int | None
) -> None:
    """Case 86: as many callers as slots, each with one holding."""
    shares = Shares(4, 16_384.0, Seconds())
    holders = [Holder(pace) for pace in paces]
    for n, holder in enumerate(holders):
        shares.take(str(n), holder)
    assert refused(shares, "a newcomer") == (ends is None)
    assert [holder.ends for holder in holders] == [int(n == ends) for n in range(4)]


def test_the_least_rate_is_half_of_live_speech_and_not_above_the_busy_rate() -> None:
    assert (Shares(1, 16_384.0).least_rate, Shares(1, 100.0).least_rate) == (LIVE_RATE / 2, 100.0)


def test_an_equal_share_does_not_give_way_to_a_caller_above_its_share() -> None:
    shares = shares_of(4)
    equal = filled(shares, ME, 2, 0.0)
    filled(shares, OTHER, 2, FAST)
    filled(shares, THIRD, 0)
    assert refused(shares, OTHER)
    shares.take(THIRD, Holder(FAST))
    assert shares.held_by(ME) == 1
    assert refused(shares, THIRD), "two would be more than its share of one"
    assert ended(equal) == 1


def test_of_equal_amounts_the_slowest_gives_way() -> None:
    """Case 87: pages of one size."""
    shares = shares_of(30)
    pages = [Holder(pace) for pace in (80.0, 20.0, 90.0)]
    for n, page in enumerate(pages):
        shares.take(str(n), page, 10)
    assert refused(shares, "a newcomer", 11), "that is more than any of them holds"
    shares.take("a newcomer", Holder(FAST), 10)
    assert [page.ends for page in pages] == [0, 1, 0]


# Requests that have waited


def test_the_rate_that_a_holding_above_the_share_needs_doubles_each_quarter_of_a_second() -> None:
    shares = shares_of(7)
    rates = [shares.rate(n / 4) for n in range(9)]
    assert rates == [BUSY_RATE * 2**n for n in range(7)] + [math.inf, math.inf]


@pytest.mark.parametrize(("waited_s", "ends"), [(0.0, False), (0.5, False), (0.75, True)])
def test_a_faster_holding_of_a_caller_above_its_share_ends_for_a_request_that_has_waited(
    waited_s: float, ends: bool
) -> None:
    shares = shares_of(7)
    holders = [*filled(shares, ME, 6, FAST), *filled(shares, ME, 1, 5 * BUSY_RATE)]
    try:
        shares.take(OTHER, Holder(), waited_s=waited_s)
    except Busy:
        assert not ends
    assert ended(holders) == holders[-1].ends == int(ends)


def test_a_holding_of_unknown_pace_ends_last_and_one_that_ends_by_itself_never() -> None:
    shares = shares_of(7)
    young, ending = filled(shares, ME, 2, None), filled(shares, ME, 5, math.inf)
    for _ in range(2):
        shares.take(OTHER, Holder(), waited_s=1.75)
    with pytest.raises(Busy):
        shares.take(OTHER, Holder(), waited_s=1.75)
    assert (ended(young), ended(ending)) == (2, 0)


def test_a_holding_within_a_share_does_not_end_for_a_request_that_has_waited() -> None:
    shares = shares_of(7)
    large, within = filled(shares, ME, 5, math.inf), filled(shares, OTHER, 2, FAST)
    with pytest.raises(Busy):
        shares.take(THIRD, Holder(), waited_s=2.0)
    assert ended(large) == ended(within) == 0


def test_a_wait_does_not_help_a_caller_above_its_share() -> None:
    shares = shares_of(7)
    large = filled(shares, ME, 4, FAST)
    filled(shares, OTHER, 3, FAST)
    assert not shares.may_wait(OTHER, 1)
    with pytest.raises(Busy):
        shares.take(OTHER, Holder(), waited_s=2.0)
    assert ended(large) == 0


def test_requests_that_wait_count_in_the_share_of_their_caller() -> None:
    shares = shares_of(8)
    filled(shares, ME, 8, FAST)
    assert shares.may_wait(OTHER, 1, asked=3)
    assert not shares.may_wait(OTHER, 1, asked=4)


def test_a_single_holding_larger_than_the_share_waits_for_a_caller_with_much_more() -> None:
    shares = shares_of(10)
    shares.take(ME, Holder(FAST), 9)
    assert not shares.may_wait(OTHER, 6), "ME could not have its own one back"
    several = shares_of(10)
    for _ in range(5):
        several.take(ME, Holder(FAST), 2)
    several.take(OTHER, Holder(FAST), 0)
    several.take(THIRD, Holder(FAST), 1)
    assert several.may_wait("a fourth", 3)
    several.take("a fourth", Holder(), 3, waited_s=2.0)
    assert several.held_by(ME) == 6


STEPS = st.lists(
    st.tuples(
        st.sampled_from([ME, OTHER, THIRD]),
        st.sampled_from([SLOW, FAST, None]),
        st.integers(0, 3),
        st.integers(-1, 20),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 20))
def test_the_accounts_add_up_and_only_slow_holdings_of_larger_shares_give_way(
    steps: list[tuple[str, float | None, int, int]], total: int
) -> None:
    shares = shares_of(total)
    taken: list[tuple[Share, Any]] = []
    for caller, pace, amount, release in steps:
        holder = Holder(pace)
        before = {each: shares.held_by(each) for each in (ME, OTHER, THIRD)}
        live = [(share, each) for share, each in taken if not each.ends and share.amount]
        try:
            taken.append((shares.take(caller, holder, amount), holder))
        except Busy:
            assert shares.used + amount > total
            continue
        for share, each in live:
            if each.ends:
                assert each._pace == SLOW
                mine = before[caller] + amount
                held = sum(map(bool, {**before, caller: 1}.values()))
                is_within = mine <= max(total // held, amount)
                assert before[share.caller] >= mine + (not is_within)
        if 0 <= release < len(taken):
            taken[release][0].release()
        held: Counter[str] = Counter()
        for share, each in taken:
            assert each.ends <= 1
            held[share.caller] += share.amount
        assert shares.used == sum(held.values()) <= total + total // 8
        assert all(shares.held_by(each) == held[each] for each in (ME, OTHER, THIRD))

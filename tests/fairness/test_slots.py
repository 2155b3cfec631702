"""Slots (case 86): which requests wait, which gets the next slot, which holdings give way."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.http.connection import outcome, result
from twistedmedia.errors import Busy
from twistedmedia.fairness.shares import TICK_S, Share, Shares
from twistedmedia.fairness.slots import Slots, grow

BUSY_RATE = 16_384.0
LEAST_RATE = 500.0
SLOW, ABOVE, FAST = 65.0, 17_000.0, 5e6
LIVE, MOBILE = 1000.0, 20_000.0  # speech of 8 kbit/s; a phone
LONGEST_S = 2.05


class Upload:
    """A request that holds a slot, waits for one, or was refused."""

    def __init__(self, slots: Slots, caller: str, pace: float | None = FAST) -> None:
        self.ends = 0
        self.speed = pace
        self.caller = caller
        self.taking: Deferred[Share] = ensureDeferred(slots.take(caller, self))
        self._outcome = outcome(self.taking)

    def pace(self) -> float | None:
        return self.speed

    def give_way(self) -> None:
        self.ends += 1

    @property
    def state(self) -> str:
        if not self._outcome:
            return "waits"
        (taken,) = self._outcome
        if isinstance(taken, Failure):
            taken.trap(Busy)
            return "refused"
        return "gave way" if self.ends else "holds"

    def end(self) -> None:
        self._outcome[0].release()


class World:
    """Slots on a clock that a test moves."""

    def __init__(self, total: int = 64) -> None:
        self.clock = Clock()
        self.slots = Slots(total, BUSY_RATE, self.clock)

    def take(self, caller: str, pace: float | None = FAST) -> Upload:
        return Upload(self.slots, caller, pace)

    def fill(self, count: int, callers: int = 1, pace: float | None = FAST) -> list[Upload]:
        uploads = [self.take(f"attacker {n % callers}", pace) for n in range(count)]
        assert {upload.state for upload in uploads} == {"holds"}
        return uploads

    def wait(self, seconds: float) -> None:
        self.clock.pump([0.05] * round(seconds / 0.05))

    def assert_quiet(self) -> None:
        assert self.slots.waiting == 0
        assert self.clock.getDelayedCalls() == []


@pytest.fixture
def world() -> World:
    return World()


def states(uploads: list[Upload]) -> dict[str, int]:
    seen = [upload.state for upload in uploads]
    return {state: seen.count(state) for state in sorted(set(seen))}


def test_a_sole_caller_has_all_slots_and_never_waits(world: World) -> None:
    world.fill(64)
    assert world.take("attacker 0").state == "refused"
    world.assert_quiet()


def test_slow_uploads_give_way_to_a_new_caller_at_once(world: World) -> None:
    uploads = world.fill(72, 9, SLOW)
    newcomers = [world.take("me") for _ in range(6)]
    assert states(newcomers) == {"holds": 6}
    assert states(uploads) == {"gave way": 6, "holds": 66}
    world.assert_quiet()


@pytest.mark.parametrize("pace", [ABOVE, 1e5, FAST, None])
def test_no_caller_is_refused_below_its_share_even_if_the_others_are_fast(
    world: World, pace: float | None
) -> None:
    """Nine callers with eight uploads each, which are above the busy rate or too young for their
    pace to be known.
    """
    uploads = world.fill(72, 9, pace)
    newcomers = [world.take("me") for _ in range(6)]
    assert states(newcomers) == {"waits": 6}
    assert world.take("me").state == "refused", "that is more than its share"
    world.wait(LONGEST_S)
    assert states(newcomers) == {"holds": 6}
    assert states(uploads) == {"gave way": 6, "holds": 66}
    world.assert_quiet()


def test_the_rate_that_keeps_a_slot_rises_with_the_wait(world: World) -> None:
    world.fill(71, 9, FAST)
    slowest = world.take("attacker 8", 3 * BUSY_RATE)
    mine = world.take("me")
    world.wait(0.45)
    assert (mine.state, slowest.state) == ("waits", "holds")
    world.wait(0.1)
    assert (mine.state, slowest.state) == ("holds", "gave way")


def test_a_released_slot_goes_to_the_caller_that_holds_least(world: World) -> None:
    uploads = world.fill(72, 9)
    early = [world.take("first") for _ in range(3)]
    late = world.take("second")
    for upload in uploads[:3]:
        upload.end()
    assert [each.state for each in early] == ["holds", "holds", "waits"]
    assert late.state == "holds"
    uploads[3].end()
    assert early[2].state == "holds"
    assert states(uploads) == {"holds": 72}, "no upload gave way"
    world.assert_quiet()


def test_uploads_that_are_renewed_again_and_again_do_not_keep_others_out(world: World) -> None:
    """They end and begin again before their pace is known."""
    uploads = world.fill(72, 9, None)
    newcomers = [world.take("me") for _ in range(6)]
    for upload in uploads[:9]:
        upload.end()
        world.take(upload.caller, None)
    assert states(newcomers) == {"holds": 6}
    assert states(uploads) == {"holds": 72}


def test_callers_within_their_share_lose_nothing_while_another_is_above(world: World) -> None:
    world.fill(57, 1, FAST)
    within = [world.take(f"within {n}", SLOW) for n in range(7)]
    newcomers = [world.take("me") for _ in range(6)]
    more = [world.take(f"late {n}") for n in range(4)]
    world.wait(LONGEST_S)
    assert states(within) == {"holds": 7}
    assert states(newcomers + more) == {"holds": 10}


def test_uploads_that_end_by_themselves_do_not_give_way(world: World) -> None:
    uploads = world.fill(64, 1, math.inf)
    newcomers = [world.take("me") for _ in range(12)]
    world.wait(LONGEST_S)
    assert states(uploads) == {"holds": 64}
    assert states(newcomers) == {"holds": 8, "refused": 4}
    world.assert_quiet()


def test_uploads_of_unknown_pace_give_way_last_the_youngest_first(world: World) -> None:
    uploads = world.fill(40, 1, None) + world.fill(20, 1, FAST) + world.fill(4, 1, None)
    newcomers = [world.take("me") for _ in range(8 + 22)]
    world.wait(LONGEST_S)
    assert states(newcomers) == {"holds": 30}
    assert states(uploads[40:60]) == {"gave way": 20}
    assert states(uploads[60:]) == {"gave way": 2, "holds": 2}
    assert [upload.state for upload in uploads[62:]] == ["gave way"] * 2


@pytest.mark.parametrize("pace", [LEAST_RATE, LIVE, MOBILE, ABOVE, None, math.inf])
def test_more_callers_than_slots_leave_no_share_for_the_last_one(
    world: World, pace: float | None
) -> None:
    uploads = world.fill(72, 72, pace)
    mine = world.take("me")
    assert mine.state == "waits"
    world.wait(LONGEST_S)
    assert mine.state == "refused"
    assert states(uploads) == {"holds": 72}
    world.assert_quiet()


@pytest.mark.parametrize("pace", [0.0, SLOW, LEAST_RATE - 1])
def test_of_as_many_callers_as_slots_the_slowest_gives_way_at_once(
    world: World, pace: float
) -> None:
    """Case 86: 72 callers with one upload each, far below the rate of any honest client."""
    uploads = world.fill(70, 70, LIVE)
    slow = [world.take("slow", LEAST_RATE - 0.5), world.take("slower", pace)]
    mine = world.take("me")
    assert (mine.state, slow[0].state, slow[1].state) == ("holds", "holds", "gave way")
    assert world.take("another").state == "holds"
    last = world.take("the last one")
    world.wait(LONGEST_S)
    assert last.state == "refused"
    assert states(uploads) == {"holds": 70}
    world.assert_quiet()


def test_of_callers_within_their_share_the_largest_gives_way_first(world: World) -> None:
    """Case 86: but only after a caller above its share, which has nothing that may end here."""
    world.fill(60, 1, math.inf)
    five = [world.take("five", SLOW) for _ in range(5)]
    two = [world.take("two", 0.0) for _ in range(2)]
    few = [world.take(f"few {n}", 0.0) for n in range(5)]
    mine = [world.take("me") for _ in range(3)]
    world.wait(1.5)
    assert states(mine) == {"waits": 3}
    world.wait(LONGEST_S)
    assert states(mine) == {"holds": 3}
    assert (states(five), states(two), states(few)) == (
        {"gave way": 3, "holds": 2},
        {"holds": 2},
        {"holds": 5},
    )


def test_a_caller_gets_no_more_than_an_equal_share_of_stalled_slots(world: World) -> None:
    """Case 86."""
    uploads = world.fill(72, 36, SLOW)
    mine = [world.take("me") for _ in range(2)]
    assert [each.state for each in mine] == ["holds", "refused"]
    assert states(uploads) == {"gave way": 1, "holds": 71}


def test_a_caller_with_two_fast_uploads_does_not_protect_stalled_ones(world: World) -> None:
    """Case 86: it is above its share, and its uploads always end by themselves."""
    world.fill(2, 1, math.inf)
    slow = [world.take(f"slow {n}", SLOW) for n in range(70)]
    mine = world.take("me")
    assert mine.state == "waits"
    world.wait(LONGEST_S)
    assert mine.state == "holds"
    assert states(slow) == {"gave way": 1, "holds": 69}


def test_renewed_uploads_of_as_many_callers_as_slots_do_not_keep_others_out(world: World) -> None:
    """Case 86: they end and begin again before their pace is known."""
    uploads = world.fill(72, 72, None)
    mine = world.take("me")
    uploads[0].end()
    again = world.take(uploads[0].caller, None)
    assert (mine.state, again.state) == ("holds", "waits")
    mine.end()
    assert again.state == "holds"
    world.assert_quiet()


def test_an_endless_crowd_of_new_callers_ends_no_honest_upload(world: World) -> None:
    """Case 86: live speech, a phone and fast uploads, of callers within their share."""
    honest = [world.take(f"honest {n}", (LIVE, MOBILE, FAST)[n % 3]) for n in range(24)]
    slow = [world.take(f"slow {n}", SLOW) for n in range(48)]
    for n in range(1000):
        world.take(f"newcomer {n}", SLOW)
        world.wait(0.1)
    assert states(honest) == {"holds": 24}
    assert states(slow) == {"gave way": 48}


def test_many_callers_with_few_uploads_each_leave_a_share(world: World) -> None:
    """The slowest upload of a caller above its share gives way, though the caller has only two."""
    uploads = world.fill(72, 36, ABOVE)
    mine = world.take("me")
    world.wait(LONGEST_S)
    assert mine.state == "holds"
    assert states(uploads) == {"gave way": 1, "holds": 71}
    assert world.take("me").state == "refused"


def test_a_cancelled_request_waits_no_longer(world: World) -> None:
    uploads = world.fill(72, 9)
    left, other = world.take("me"), world.take("other")
    left.taking.addErrback(lambda _: None)
    left.taking.cancel()
    uploads[0].end()
    assert other.state == "holds"
    world.assert_quiet()
    assert world.slots.used == 72


def test_without_a_clock_no_request_waits() -> None:
    slots = Slots(8, BUSY_RATE)
    uploads = [Upload(slots, "attacker", FAST) for _ in range(7)]
    uploads.append(Upload(slots, "attacker", SLOW))
    mine = [Upload(slots, "me") for _ in range(3)]
    assert [each.state for each in mine] == ["holds", "holds", "refused"]
    assert uploads[-1].state == "gave way"
    assert slots.waiting == 0


class Form:
    """A request whose share grows."""

    def __init__(self, shares: Shares, caller: str, held: int, pace: float | None = ABOVE) -> None:
        self.ends = 0
        self.speed = pace
        self.share = shares.take(caller, self, held)

    def pace(self) -> float | None:
        return self.speed

    def give_way(self) -> None:
        self.ends += 1


def test_a_share_waits_to_grow_while_its_caller_is_below_its_share() -> None:
    """Case 90."""
    clock, shares = Clock(), Shares(64, BUSY_RATE)
    large = [Form(shares, "attacker", 32) for _ in range(2)]
    mine = Form(shares, "me", 8)
    growing = outcome(ensureDeferred(grow(mine.share, 1, clock)))
    assert growing == []
    clock.pump([0.25] * 2)
    assert growing == [None]
    assert (mine.share.amount, [each.ends for each in large]) == (9, [1, 0])
    assert clock.getDelayedCalls() == []


def test_a_share_that_cannot_grow_is_refused_after_two_seconds() -> None:
    clock, shares = Clock(), Shares(64, BUSY_RATE)
    Form(shares, "attacker", 64, math.inf)
    mine = Form(shares, "me", 8)
    growing = outcome(ensureDeferred(grow(mine.share, 1, clock)))
    clock.pump([0.25] * 7)
    assert growing == []
    clock.advance(0.25)
    assert isinstance(growing[0], Failure)
    assert growing[0].check(Busy)
    assert clock.getDelayedCalls() == []


def test_a_share_does_not_wait_after_it_gave_way_or_for_a_caller_above_its_share() -> None:
    clock, shares = Clock(), Shares(64, BUSY_RATE)
    large, mine = Form(shares, "attacker", 64), Form(shares, "me", 8)
    with pytest.raises(Busy):
        result(ensureDeferred(grow(large.share, 1, clock)))
    growing = outcome(ensureDeferred(grow(mine.share, 1, clock)))
    mine.share.release()
    clock.advance(0.25)
    assert isinstance(growing[0], Failure)


@given(st.data())
def test_no_caller_below_its_share_is_refused_after_two_seconds(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 20))
    world = World(total)
    callers = [f"caller {n}" for n in range(data.draw(st.integers(1, min(total, 6))))]
    paces = st.sampled_from([0.0, SLOW, ABOVE, FAST, None])
    for _ in range(30):
        world.take(data.draw(st.sampled_from(callers)), data.draw(paces))
        world.wait(data.draw(st.sampled_from([0, 0.1, 0.5])))
    world.wait(LONGEST_S)
    mine = world.take("me") if len(callers) < total else world.take(callers[0])
    held = [world.slots._shares.held_by(caller) for caller in callers]
    share = total // (sum(map(bool, held)) + (mine.caller == "me"))
    world.wait(LONGEST_S)
    if mine.caller == "me" and share >= 1:
        assert mine.state == "holds"
    assert world.slots.used <= total + total // 8
    world.assert_quiet()


@given(st.data())
def test_a_new_caller_gets_a_stalled_slot_and_no_honest_upload_within_a_share_ends(
    data: st.DataObject,
) -> None:
    """Case 86. The crowd holds any number. Each newcomer is another caller."""
    total = data.draw(st.integers(1, 20))
    world = World(total)
    callers = [f"caller {n}" for n in range(data.draw(st.integers(1, 24)))]
    paces = st.sampled_from([0.0, SLOW, LEAST_RATE - 1, LEAST_RATE, LIVE, ABOVE, None, math.inf])
    holding: list[Upload] = []
    for n in range(data.draw(st.integers(1, 40))):
        comes = data.draw(st.sampled_from(callers + ["newcomer"] * len(callers)))
        is_new = comes == "newcomer"
        caller = f"newcomer {n}" if is_new else comes
        stalls = any(each.speed is not None and each.speed < LEAST_RATE for each in holding)
        most = world.slots._shares.share({caller})
        held = Counter(each.caller for each in holding)
        taken = world.take(caller, data.draw(paces))
        world.clock.pump([TICK_S] * 9)
        assert taken.state != "waits"
        if is_new and stalls:
            assert taken.state == "holds"
        for each in holding:
            if each.state == "gave way" and held[each.caller] <= most:
                assert each.speed is not None
                assert each.speed < LEAST_RATE
        holding = [each for each in [*holding, taken] if each.state == "holds"]
    world.assert_quiet()

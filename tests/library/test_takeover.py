"""Who is let in, in which order, and what those are told who are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred

from tests.http.connection import outcome, result
from twistedmedia.errors import StillEnding, Superseded
from twistedmedia.library.takeover import TakeoverLock


class Guest:
    """Somebody who takes a turn, and stays until `leave`, whatever he is told."""

    def __init__(
        self, turns: TakeoverLock, key: str = "key", *, polite: bool = False, waits: bool = True
    ) -> None:
        """A `polite` one leaves when he is told to."""
        self.is_in = False
        self.told: list[Exception] = []
        self._polite = polite
        self._waits = waits
        self._staying: Deferred[None] = Deferred()
        self.came_to = outcome(ensureDeferred(self._visit(turns, key)))

    async def _visit(self, turns: TakeoverLock, key: str) -> str:
        async with turns.take(key, self._tell, waits=self._waits):
            self.is_in = True
            try:
                await self._staying
            finally:
                self.is_in = False
        return "left"

    def _tell(self, why: Exception) -> None:
        self.told.append(why)
        if self._polite:
            self.leave(why)

    def leave(self, why: Exception | None = None) -> None:
        if why is None:
            self._staying.callback(None)
        else:
            self._staying.errback(why)

    @property
    def was_superseded(self) -> bool:
        """While he waited, or because he was polite."""
        return bool(self.came_to) and bool(self.came_to[0].check(Superseded))


def left_in(turns: TakeoverLock) -> dict[str, Any]:
    return turns._lines


def test_one_who_comes_alone_is_let_in_at_once_and_told_nothing() -> None:
    turns = TakeoverLock()
    guest = Guest(turns)
    assert guest.is_in
    guest.leave()
    assert (guest.came_to, guest.told, left_in(turns)) == (["left"], [], {})


def test_one_after_the_other_is_nobodys_trouble() -> None:
    turns = TakeoverLock()
    for _ in range(3):
        guest = Guest(turns)
        assert guest.is_in
        guest.leave()
        assert (guest.came_to, guest.told) == (["left"], [])


def test_who_is_in_is_told_once_and_waited_for() -> None:
    """Case 28."""
    turns = TakeoverLock()
    first, second = Guest(turns), Guest(turns)
    assert (first.is_in, second.is_in) == (True, False)
    assert [type(each) for each in first.told] == [Superseded]
    first.leave()
    assert (first.came_to, second.is_in, second.told) == (["left"], True, [])
    second.leave()
    assert (second.came_to, left_in(turns)) == (["left"], {})


def test_one_who_leaves_when_he_is_told_keeps_nobody_waiting() -> None:
    """Case 28."""
    turns = TakeoverLock()
    first, second = Guest(turns, polite=True), Guest(turns)
    assert (first.was_superseded, second.is_in) == (True, True)
    second.leave()
    assert left_in(turns) == {}


@pytest.mark.parametrize("waiting", [2, 3, 10])
def test_of_many_who_come_only_the_last_one_is_let_in(waiting: int) -> None:
    turns = TakeoverLock()
    first = Guest(turns)
    guests = [Guest(turns) for _ in range(waiting)]
    assert not any(guest.is_in for guest in guests)
    first.leave()
    assert [guest.is_in for guest in guests] == [False] * (waiting - 1) + [True]
    assert all(guest.was_superseded for guest in guests[:-1])
    assert len(first.told) == 1
    assert [guest.told for guest in guests] == [[]] * waiting, "who waits holds nothing up"
    guests[-1].leave()
    assert (guests[-1].came_to, left_in(turns)) == (["left"], {})


@pytest.mark.parametrize("waiting", [100, 150, 5000])
def test_a_newer_one_ends_the_wait_of_the_one_before_it_at_once(waiting: int) -> None:
    """Case 84."""
    turns = TakeoverLock()
    first = Guest(turns)
    guests = [Guest(turns) for _ in range(waiting)]
    assert all(guest.was_superseded for guest in guests[:-1])
    assert (first.is_in, guests[-1].came_to) == (True, [])
    first.leave()
    assert guests[-1].is_in
    guests[-1].leave()
    assert (guests[-1].came_to, left_in(turns)) == (["left"], {})


def test_the_depth_of_a_wake_up_does_not_grow_with_those_who_come() -> None:
    """Case 84: each comes again as soon as it is told to leave, as pipelined requests do."""
    turns = TakeoverLock()
    came: list[Guest] = []

    class Persistent(Guest):
        def _tell(self, why: Exception) -> None:
            super()._tell(why)
            if len(came) < 5000:
                came.append(Persistent(turns))
            self.leave(why)

    came.append(Persistent(turns))
    while len(came) < 5000:
        came.append(Persistent(turns))
    assert sum(guest.is_in for guest in came) == 1
    assert sum(not guest.came_to for guest in came) <= 2
    for _ in range(2):
        for guest in [guest for guest in came if guest.is_in]:
            guest.leave()
    assert all(guest.came_to for guest in came)
    assert left_in(turns) == {}


@pytest.mark.parametrize("length", [3, 5000])
def test_a_chain_of_those_who_come_back_elsewhere_is_woken_in_a_loop(length: int) -> None:
    """Case 84: as pipelined requests do, each at another upload as soon as it has its answer."""
    turns = TakeoverLock()
    at_work = [Guest(turns, str(number)) for number in range(length)]
    ended: list[int] = []
    followers: list[Guest] = []

    async def wait(number: int) -> None:
        try:
            async with turns.take(str(number), lambda _: None):
                pass
        except Superseded:
            ended.append(number)
            followers.append(Guest(turns, str(number + 1)))

    for number in range(length - 1):
        ensureDeferred(wait(number))
    newest = Guest(turns, "0")
    assert ended == list(range(length - 1))
    for guest in at_work:
        guest.leave()
    for guest in [newest, *followers]:
        assert guest.is_in
        guest.leave()
    assert left_in(turns) == {}


def test_one_who_comes_while_the_next_is_being_let_in_gets_the_turn() -> None:
    """The one who leaves comes back in the same call: the one he made room for is superseded."""
    turns = TakeoverLock()
    back: list[Guest] = []

    class Returning(Guest):
        def _tell(self, why: Exception) -> None:
            super()._tell(why)
            back.append(Guest(turns))

    first, second = Returning(turns, polite=True), Guest(turns)
    assert first.was_superseded
    assert second.was_superseded
    assert back[0].is_in
    back[0].leave()
    assert left_in(turns) == {}


def test_one_who_never_waits_is_refused_at_once_and_has_the_holder_told() -> None:
    """Case 84: as one does that has content."""
    turns = TakeoverLock()
    first = Guest(turns)
    refused = [Guest(turns, waits=False) for _ in range(2)]
    assert all(guest.came_to[0].check(StillEnding) for guest in refused)
    assert [type(each) for each in first.told] == [Superseded]
    waiting, again = Guest(turns), Guest(turns, waits=False)
    assert again.came_to[0].check(StillEnding)
    assert waiting.came_to == [], "one that is refused ends nobody's wait"
    first.leave()
    assert waiting.is_in
    waiting.leave()
    assert left_in(turns) == {}


def test_one_who_never_waits_is_let_in_when_the_holder_leaves_at_once() -> None:
    turns = TakeoverLock()
    first, second = Guest(turns, polite=True), Guest(turns, waits=False)
    assert (first.was_superseded, second.is_in) == (True, True)
    second.leave()
    assert left_in(turns) == {}


def test_of_those_who_come_one_by_one_each_ends_the_one_before() -> None:
    turns = TakeoverLock()
    guests = [Guest(turns, polite=True) for _ in range(10)]
    assert [guest.is_in for guest in guests] == [False] * 9 + [True]
    assert all(guest.was_superseded for guest in guests[:-1])
    guests[-1].leave()
    assert left_in(turns) == {}


def test_one_who_comes_while_another_is_on_his_way_out_waits_for_that() -> None:
    turns = TakeoverLock()
    first, second = Guest(turns), Guest(turns)
    first.leave()
    third = Guest(turns)
    assert (second.is_in, third.is_in, len(second.told)) == (True, False, 1)
    second.leave()
    assert third.is_in
    third.leave()
    assert left_in(turns) == {}


@pytest.mark.parametrize("waits", [True, False])
def test_who_leaves_in_a_failure_has_left(waits: bool) -> None:
    turns = TakeoverLock()
    first = Guest(turns)
    second = Guest(turns) if waits else None
    first.leave(ZeroDivisionError())
    assert first.came_to[0].check(ZeroDivisionError)
    second = second or Guest(turns)
    assert second.is_in
    second.leave()
    assert left_in(turns) == {}


def test_one_who_is_let_in_by_a_failure_of_one_who_waited_is_no_second_one() -> None:
    """The superseded one that waited ends only when the one before has."""
    turns = TakeoverLock()
    first, _, third = Guest(turns), Guest(turns), Guest(turns)
    assert (first.is_in, third.is_in) == (True, False)
    first.leave(ZeroDivisionError())
    assert third.is_in
    assert first.came_to[0].check(ZeroDivisionError)
    third.leave()


def test_keys_have_nothing_to_do_with_each_other() -> None:
    turns = TakeoverLock()
    guests = {key: Guest(turns, key) for key in ("a", "b", "")}
    assert all(guest.is_in and not guest.told for guest in guests.values())
    other = Guest(turns, "a")
    guests["b"].leave()
    assert (other.is_in, guests[""].told) == (False, [])
    guests["a"].leave()
    assert other.is_in
    other.leave()
    guests[""].leave()
    assert left_in(turns) == {}


def test_one_who_takes_two_turns_needs_two_keys() -> None:
    async def visit(turns: TakeoverLock, goes_on: Callable[[Exception], None]) -> bool:
        async with turns.take("a", goes_on), turns.take("b", goes_on):
            return set(left_in(turns)) == {"a", "b"}

    turns = TakeoverLock()
    assert result(ensureDeferred(visit(turns, lambda _: None)))
    assert left_in(turns) == {}

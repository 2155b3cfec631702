"""Turns in which unneeded content is dropped (case 85)."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, ensureDeferred

from tests.turning import TurningClock
from twistedmedia.fairness.loop_queue import CLIENTS, FEW_WAITING, PAUSE_S, DiscardQueue

CROWD, NORMAL = "192.0.2.1", "192.0.2.2"


class Dropped:
    """A queue, and the clients whose pieces were dropped."""

    def __init__(self) -> None:
        self.clock = TurningClock()
        self.queue = DiscardQueue(self.clock)
        self.of: list[str] = []

    def wait(self, client: str, count: int, *, is_left: bool = True) -> None:
        def drop() -> bool:
            self.of.append(client)
            return is_left

        for _ in range(count):
            self.queue.add(client, drop)

    def turn(self, took_s: float = 0.0) -> int:
        """How many pieces are dropped in a turn of the loop that takes `took_s`."""
        before = len(self.of)
        self.clock.spend(took_s)
        self.clock.turn()
        return len(self.of) - before


def test_a_turn_of_the_loop_drops_one_piece() -> None:
    dropped = Dropped()
    dropped.wait(NORMAL, FEW_WAITING)
    assert [dropped.turn() for _ in range(FEW_WAITING + 1)] == [1] * FEW_WAITING + [0]
    assert dropped.clock.getDelayedCalls() == []


def test_of_many_pieces_of_a_client_one_is_dropped_after_each_pause() -> None:
    dropped = Dropped()
    dropped.wait(CROWD, 100)
    assert dropped.turn() == 1  # it was scheduled for the first one
    assert [dropped.turn(PAUSE_S / 2) for _ in range(6)] == [0, 1] * 3


def test_a_client_does_not_wait_for_the_pieces_of_another() -> None:
    dropped = Dropped()
    dropped.wait(CROWD, 100)
    dropped.wait(NORMAL, 2)
    assert [dropped.turn(PAUSE_S) for _ in range(4)] == [2, 2, 1, 1]
    assert dropped.of == [CROWD, NORMAL] * 2 + [CROWD] * 2


def test_of_many_clients_some_are_served_after_a_pause_and_then_the_next() -> None:
    dropped = Dropped()
    crowd = [f"192.0.2.{number}" for number in range(2 * CLIENTS)]
    for client in crowd:
        dropped.wait(client, FEW_WAITING)
    assert [dropped.turn(PAUSE_S) for _ in range(3)] == [CLIENTS] * 3
    assert dropped.of == crowd + crowd[:CLIENTS]


def test_pieces_that_are_gone_take_no_time() -> None:
    """Clients that have disconnected must not delay the others."""
    dropped = Dropped()
    dropped.wait(CROWD, 1000, is_left=False)
    dropped.wait(NORMAL, 1)
    dropped.turn()
    assert dropped.of[:2] == [CROWD, NORMAL]
    assert len(dropped.of) == 1001


def test_a_turn_can_be_awaited() -> None:
    dropped = Dropped()
    passed: list[int] = []

    async def drop() -> None:
        for number in range(3):
            await dropped.queue.turn(NORMAL)
            passed.append(number)

    ensureDeferred(drop())
    given_up = ensureDeferred(drop())
    given_up.addErrback(lambda failure: failure.trap(CancelledError))
    given_up.cancel()
    assert passed == []
    for turn in range(1, 4):
        dropped.turn()
        assert len(passed) == turn


def test_a_piece_that_fails_does_not_hold_up_the_others() -> None:
    dropped = Dropped()

    def fail() -> bool:
        raise ZeroDivisionError

    dropped.queue.add(CROWD, fail)
    dropped.wait(NORMAL, 1)
    with pytest.raises(ZeroDivisionError):
        dropped.turn()
    dropped.turn()
    assert dropped.of == [NORMAL]

"""Answers that are collected: sent once a turn, before anything else, and none of them twice."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from twistedmedia.wire.outbox import Outbox


class Answering:
    """Sends what it has, and may have more at once."""

    def __init__(self, outbox: Outbox, more: int = 0) -> None:
        self.sent = 0
        self._outbox = outbox
        self._more = more

    def send_outgoing(self) -> None:
        self.sent += 1
        if self._more:
            self._more -= 1
            self._outbox.add(self)


def test_what_is_due_is_sent_at_the_end_of_the_turn() -> None:
    clock = Clock()
    outbox = Outbox(clock)
    due = [Answering(outbox) for _ in range(3)]
    for each in due:
        outbox.add(each)
    assert [each.sent for each in due] == [0, 0, 0]
    clock.advance(0)
    assert [each.sent for each in due] == [1, 1, 1]
    assert clock.getDelayedCalls() == []


def test_a_long_turn_does_not_keep_the_first_ones_waiting() -> None:
    clock = Clock()
    outbox = Outbox(clock)
    due = [Answering(outbox) for _ in range(100)]
    for each in due:
        outbox.add(each)
    assert due[0].sent == 1
    assert due[-1].sent == 0
    clock.advance(0)
    assert {each.sent for each in due} == {1}


@pytest.mark.parametrize("many", [1, 63, 64, 65, 200])
def test_who_has_more_while_it_sends_is_sent_for_again(many: int) -> None:
    clock = Clock()
    outbox = Outbox(clock)
    due = [Answering(outbox, more=2) for _ in range(many)]
    for each in due:
        outbox.add(each)
    for _ in range(4):
        clock.advance(0)
    assert {each.sent for each in due} == {3}
    assert clock.getDelayedCalls() == []

"""How long a peer waits for us, for one reason or for several at once."""

from __future__ import annotations

from twisted.internet.task import Clock

from twistedmedia.fairness.pace import PeerWait


def test_time_in_which_nobody_waits_does_not_count() -> None:
    clock = Clock()
    waiting = PeerWait(clock.seconds)
    clock.advance(5)
    assert waiting.taken_s() == 0
    waiting.begin()
    clock.advance(1)
    waiting.end()
    clock.advance(7)
    assert (waiting.taken_s(), waiting.taken_s()) == (1, 0)


def test_time_counts_once_whatever_the_reasons() -> None:
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
    assert waiting.taken_s() == 3


def test_a_wait_that_goes_on_counts_up_to_each_question() -> None:
    clock = Clock()
    waiting = PeerWait(clock.seconds)
    waiting.begin()
    clock.advance(2)
    assert waiting.taken_s() == 2
    clock.advance(3)
    waiting.end()
    assert waiting.taken_s() == 3

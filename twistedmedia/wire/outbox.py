"""Answers on their way to the kernel, some at a time.

A transport of Twisted's sends in the next turn of the loop, and has the loop told before that it
wants to write, and after that it does no more. An answer that goes at once is sooner there, but it
wakes its reader each time. Sent together, at the end of the turn, they cost least.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

_AT_ONCE = 64  # the first one of a long turn must not wait for its end


class Outgoing(Protocol):
    """Who has something to send."""

    def send_outgoing(self) -> None:
        """Give the kernel what it takes now."""


class Outbox:
    """Those who have something to send in this turn of the loop."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._due: list[Outgoing] = []

    def add(self, sender: Outgoing) -> None:
        """`sender` has something to send now, and had nothing before. It may be told at once."""
        if not self._due:
            self._clock.callLater(0, self._send_all)
        self._due.append(sender)
        if len(self._due) >= _AT_ONCE:
            due, self._due[:] = self._due[:], []
            _send(due)

    def _send_all(self) -> None:
        due, self._due = self._due, []
        _send(due)


def _send(due: list[Outgoing]) -> None:
    for sender in due:
        sender.send_outgoing()

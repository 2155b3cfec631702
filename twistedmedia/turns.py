"""One at a time, and the one who came last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred

from twistedmedia.errors import Superseded


class Turns:
    """Turns at things that have a key. Whoever comes is let in as soon as those before have left,
    and they are told to: a peer that has come again is not to wait for what is left of it.

    It is held in memory, so a process that dies leaves no turn behind.
    """

    def __init__(self) -> None:
        self._last: dict[str, _Turn] = {}

    @asynccontextmanager
    async def take(self, key: str, leave: Callable[[Exception], None]) -> AsyncIterator[None]:
        """The time in which `key` is ours. `leave` is called, at most once, with `Superseded` when
        somebody else wants it. Not to be cancelled.

        :raises Superseded: when somebody else came while this was waiting.
        """
        turn = _Turn(leave)
        before = self._last.get(key)
        self._last[key] = turn
        try:
            if before is not None:
                before.end_soon()
                await before.ended
            turn.begin()
            yield
        finally:
            if self._last[key] is turn:
                del self._last[key]
            turn.ended.callback(None)


class _Turn:
    def __init__(self, leave: Callable[[Exception], None]) -> None:
        self.ended: Deferred[None] = Deferred()
        self._leave = leave
        self._begun = False
        self._superseded = False

    def begin(self) -> None:
        if self._superseded:
            raise Superseded
        self._begun = True

    def end_soon(self) -> None:
        if not self._superseded:
            self._superseded = True
            if self._begun:
                self._leave(Superseded())

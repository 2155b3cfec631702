"""One request at a time for each key, and the newest of those that wait."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twistedmedia.errors import StillEnding, Superseded


class TakeoverLock:
    """Turns at keys. A newcomer asks the holder of its key to leave, and waits until it has left: a
    client that comes back does not wait for what is left of its last request.

    At most one waits for a key. A newer one ends that wait at once. Those that wait are woken in a
    loop: one that is woken may end, and its client's next request then ends the wait of another.

    Turns live in memory: a process that dies leaves none behind.
    """

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._to_wake: deque[tuple[Deferred[None], Failure | None]] = deque()
        self._is_waking = False

    @asynccontextmanager
    async def take(
        self, key: str, leave: Callable[[Exception], None], *, waits: bool = True
    ) -> AsyncIterator[None]:
        """Hold `key` while the context lasts. `leave` is called with `Superseded`, at most once,
        when another wants the key. Do not cancel the wait.

        :raises Superseded: when a newer one came during the wait.
        :raises StillEnding: when the key is not free and this one never `waits`.
        """
        line = self._lines.get(key)
        if line is not None and not waits:
            line.ask_to_leave()  # may free the key at once
            line = self._lines.get(key)
            if line is not None:
                raise StillEnding
        if line is None:
            line = self._lines[key] = _Line(leave)
        else:
            await self._wait(line)
        try:
            if line.waiting is not None:  # a newer one came between the wake-up and here
                raise Superseded
            line.leave = leave
            yield
        finally:
            following, line.waiting = line.waiting, None
            if following is None:
                del self._lines[key]
            else:
                line.leave = None
                self._wake(following)

    async def _wait(self, line: _Line) -> None:
        before, line.waiting = line.waiting, Deferred()
        turn = line.waiting
        if before is not None:
            self._wake(before, Failure(Superseded()))
        line.ask_to_leave()
        await turn

    def _wake(self, waiting: Deferred[None], failure: Failure | None = None) -> None:
        self._to_wake.append((waiting, failure))
        if self._is_waking:  # further up the stack
            return
        self._is_waking = True
        try:
            while self._to_wake:
                woken, outcome = self._to_wake.popleft()
                woken.callback(outcome)  # a Failure goes the errback's way
        finally:
            self._is_waking = False


class _Line:
    """The holder of a key, and the one that waits for it. `leave` is None once it was called."""

    def __init__(self, leave: Callable[[Exception], None]) -> None:
        self.leave: Callable[[Exception], None] | None = leave
        self.waiting: Deferred[None] | None = None

    def ask_to_leave(self) -> None:
        """Tell the holder, if it has not been told."""
        leave, self.leave = self.leave, None
        if leave is not None:
            leave(Superseded())

"""Turns for content that nobody needs, such as the rest of an upload that was refused early.

To drop it serves nobody, and more comes at once: clients that send such content as fast as it goes
would keep the event loop busy with nothing else. So when many pieces wait, each client has one
dropped in a millisecond, and all clients together have a few.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twistedmedia.round_robin import RoundRobin

# What is read and dropped at a time, in bytes.
PIECE_BYTES = 32 << 10
# While no more pieces wait, each turn of the event loop drops one. When more do, one of each client
# is dropped after a pause, and of so many clients.
FEW_WAITING = 8
PAUSE_S = 0.001
CLIENTS = 4


class Dropping:
    """Pieces that wait to be dropped, by client, which is told by its address."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._pieces: RoundRobin[str, Callable[[], bool]] = RoundRobin()
        self._waiting = 0
        self._is_scheduled = False

    def add(self, client: str, drop: Callable[[], bool]) -> None:
        """Call `drop` when it is the client's turn. It returns whether it dropped anything."""
        self._pieces.add(client, drop)
        self._waiting += 1
        self._schedule()

    async def turn(self, client: str) -> None:
        """Wait for the client's turn to drop a piece."""
        due: Deferred[None] = Deferred()

        def drop() -> bool:
            is_awaited = not due.called  # else it was cancelled
            due.callback(None)
            return is_awaited

        self.add(client, drop)
        await due

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._clock.callLater(PAUSE_S if self._waiting > FEW_WAITING else 0, self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        try:
            left = min(self._pieces.keys, CLIENTS) if self._waiting > FEW_WAITING else 1
            while self._pieces and left:
                self._waiting -= 1
                left -= self._pieces.next()()
        finally:
            if self._pieces:
                self._schedule()

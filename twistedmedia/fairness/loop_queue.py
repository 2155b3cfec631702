"""Queues that spread work over turns of the event loop, so that no client holds up the others.

`LoopQueue` is for work on input, which is done in steps. `DiscardQueue` is for content that is read
and dropped. Both serve clients in turn (`RoundRobin`). A client is identified by its address.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class RoundRobin(Generic[K, T]):
    """A queue in which keys take turns. The costs of adding and taking an item do not depend on the
    number of items and keys.
    """

    def __init__(self) -> None:
        self._items: dict[K, deque[T]] = {}
        self._round: deque[K] = deque()  # the keys of `_items`, the next one first

    def __bool__(self) -> bool:
        """Whether there is an item."""
        return bool(self._round)

    @property
    def keys(self) -> int:
        """How many keys have items."""
        return len(self._round)

    @property
    def items(self) -> int:
        """How many items there are. The cost grows with the number of keys."""
        return sum(map(len, self._items.values()))

    def items_of(self, key: K) -> int:
        """How many items `key` has."""
        return len(self._items.get(key, ()))

    def add(self, key: K, item: T) -> None:
        """Add `item` behind the other items of `key`."""
        items = self._items.get(key)
        if items is None:
            self._items[key] = deque((item,))
            self._round.append(key)
        else:
            items.append(item)

    def next(self) -> T:
        """Remove and return the next item. There must be one."""
        key = self._round.popleft()
        items = self._items[key]
        item = items.popleft()
        if items:
            self._round.append(key)
        else:
            del self._items[key]
        return item


Step = Callable[[], None]

# How long steps from the queue may take in one turn of the loop; steps that run at once may take as
# long again. A new request waits for so long, an upload some ten times.
TURN_S = 0.00025
STEP_S = TURN_S / 2  # for a step that checks how long it takes
# Turns are longer while at most this many first steps of requests wait, and no others: each turn of
# the loop has a cost of its own.
FEW_STEPS, TURN_OF_FEW_S = 16, 4 * TURN_S
CROWD = 8  # waiting steps that take several turns of the loop
# There is a backlog if this many first steps of requests wait, or this many further ones. A client
# with usual requests has no further ones.
BACKLOG_FIRST, BACKLOG_FURTHER = 32, 2


class LoopQueue:
    """Steps of work on input.

    A step runs at once while this turn of the loop has time for it. Otherwise it waits in the
    queue, as do the later steps of the same connection. In each turn of the loop the queue runs one
    step of each client in turn, for a quarter of a millisecond, or for four times as long while
    only few requests wait. Then the loop handles all other events.
    """

    def __init__(
        self, clock: IReactorTime, on_backlog: Callable[[bool], object] | None = None
    ) -> None:
        """`on_backlog` is called after the first turn that ends with a backlog, with True, and
        after the first one without it, with False.
        """
        self._clock = clock
        self._on_backlog = on_backlog
        self._is_backlog = False
        # First steps have turns of their own: so a client that shares its address with one that
        # sends a lot is served soon.
        self._steps: RoundRobin[tuple[str, bool], tuple[Step, bool]] = RoundRobin()
        self._first = self._further = 0  # waiting steps: the first ones of requests, and others
        self._is_scheduled = False
        self._spent_s = 0.0  # by steps that ran at once in this turn
        self._step_ends_s = 0.0  # when the running step should end; 0 if there is none
        self._turn_ends_s = 0.0
        self._rest_turns = 0  # turns to come in which no step from the queue runs
        self._has_worked = False  # since the last rest

    @property
    def has_time(self) -> bool:
        """Whether a step may run at once."""
        return self.has_time_within(self._turn_s)

    def has_time_within(self, turn_s: float) -> bool:
        """Whether a step may run at once if such steps may take `turn_s` in a turn of the loop."""
        return self._spent_s < turn_s

    @property
    def _turn_s(self) -> float:
        return TURN_S if self._further or self._first > FEW_STEPS else TURN_OF_FEW_S

    def do(self, step: Step) -> None:
        """Run `step` at once."""
        began_s = self._clock.seconds()
        outer_ends_s, self._step_ends_s = self._step_ends_s, began_s + STEP_S
        try:
            step()
        finally:
            self._step_ends_s = outer_ends_s
            self._spent_s += self._clock.seconds() - began_s
            # Not after each step: a delayed call costs as much as parsing a header line.
            if self._spent_s > TURN_S / 4:
                self._schedule()

    def add(self, client: str, step: Step, *, is_first: bool = False) -> None:
        """Run `step` in the client's turn. `is_first` says that the step begins a request."""
        self._steps.add((client, is_first), (step, is_first))
        self._first += is_first
        self._further += not is_first
        self._schedule()

    async def turn(self, client: str) -> None:
        """Wait for the client's turn. Return at once while the running step has time left."""
        if self._clock.seconds() >= self._step_ends_s:
            due: Deferred[None] = Deferred()
            self.add(client, lambda: due.callback(None))
            await due

    async def enter(self, client: str) -> None:
        """Wait for the client's turn, unless a step is running: the caller is part of it then."""
        if not self._step_ends_s:
            await self.turn(client)

    def is_crowded_by(self, client: str) -> bool:
        """Whether many steps wait, and this client has no fewer of them than the average. One of
        its steps is running.
        """
        waiting = self._steps.items
        own = 1 + self._steps.items_of((client, False))
        return waiting >= CROWD and own * self._steps.keys >= waiting

    def rest(self, turns: int) -> None:
        """Run no further step in this turn and in the next `turns`. Called by a step from the queue
        that takes as long as many.
        """
        self._turn_ends_s = -math.inf
        self._rest_turns = turns

    def make_room(self, turns: int) -> None:
        """Run no steps from the queue in the next `turns`, for other work of the same clients. At
        least one turn with steps lies between two such rests.
        """
        if self._has_worked:
            self._has_worked = False
            self._rest_turns = turns
            self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._clock.callLater(0, self._on_turn)

    def _on_turn(self) -> None:
        self._spent_s = 0.0
        now_s = self._clock.seconds()
        if self._rest_turns:
            self._rest_turns -= 1
            self._turn_ends_s = -math.inf
        else:
            self._has_worked = True
            self._turn_ends_s = now_s + self._turn_s
        try:
            while self._steps and now_s < self._turn_ends_s:
                self._step_ends_s = now_s + STEP_S
                step, is_first = self._steps.next()
                self._first -= is_first
                self._further -= not is_first
                step()
                now_s = self._clock.seconds()
        finally:
            self._step_ends_s = 0.0
            self._is_scheduled = False
            if self._steps or self._rest_turns:
                self._schedule()
            self._report_backlog()

    def _report_backlog(self) -> None:
        is_backlog = self._further >= BACKLOG_FURTHER or self._first >= BACKLOG_FIRST
        if is_backlog != self._is_backlog:
            self._is_backlog = is_backlog
            if self._on_backlog is not None:
                self._on_backlog(is_backlog)


PIECE_BYTES = 32 << 10  # what is read and dropped at a time
# While at most this many pieces wait, each turn of the loop drops one. Otherwise one piece of each
# of so many clients is dropped after a pause.
FEW_WAITING = 8
PAUSE_S = 0.001
CLIENTS = 4


class DiscardQueue:
    """Pieces of unneeded content to drop, such as the rest of an upload that was refused early.

    Clients that send such content as fast as they can would keep the event loop busy with it. So if
    many pieces wait, one of each client is dropped in a millisecond, and a few of all clients.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._pieces: RoundRobin[str, Callable[[], bool]] = RoundRobin()
        self._waiting = 0
        self._is_scheduled = False

    def add(self, client: str, drop: Callable[[], bool]) -> None:
        """Call `drop` in the client's turn. It returns whether it dropped anything."""
        self._pieces.add(client, drop)
        self._waiting += 1
        self._schedule()

    async def turn(self, client: str) -> None:
        """Wait for the client's turn to drop a piece."""
        due: Deferred[None] = Deferred()

        def drop() -> bool:
            is_awaited = not due.called  # otherwise it was cancelled
            due.callback(None)
            return is_awaited

        self.add(client, drop)
        await due

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._clock.callLater(PAUSE_S if self._waiting > FEW_WAITING else 0, self._on_turn)

    def _on_turn(self) -> None:
        self._is_scheduled = False
        try:
            left = min(self._pieces.keys, CLIENTS) if self._waiting > FEW_WAITING else 1
            while self._pieces and left:
                self._waiting -= 1
                left -= self._pieces.next()()
        finally:
            if self._pieces:
                self._schedule()

"""Items that wait, by key. The keys take turns, however many items each of them has.

Work that is spread over turns of the event loop, so that no client holds up the others.

All work on input is done in steps. A step runs at once while this turn of the loop has time for it.
Otherwise it waits in the queue, as does each further step of the same connection. The queue serves
clients in turn, one step of each, for a quarter of a millisecond in one turn of the loop, or four
times as long while only few requests wait. Then the loop handles all other events.

Turns for content that nobody needs, such as the rest of an upload that was refused early.

To drop it serves nobody, and more comes at once: clients that send such content as fast as it goes
would keep the event loop busy with nothing else. So when many pieces wait, each client has one
dropped in a millisecond, and all clients together have a few.
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
    """A queue with turns. Adding and taking cost the same however many items and keys there are."""

    def __init__(self) -> None:
        self._items: dict[K, deque[T]] = {}
        self._round: deque[K] = deque()  # the keys of `_items`; the first one has the next turn

    def __bool__(self) -> bool:
        """Whether an item waits."""
        return bool(self._round)

    @property
    def keys(self) -> int:
        """How many keys have items that wait."""
        return len(self._round)

    @property
    def items(self) -> int:
        """How many items wait. Costs as much as there are keys."""
        return sum(map(len, self._items.values()))

    def items_of(self, key: K) -> int:
        """How many items of `key` wait."""
        return len(self._items.get(key, ()))

    def add(self, key: K, item: T) -> None:
        """Let `item` wait behind the other items of `key`."""
        items = self._items.get(key)
        if items is None:
            self._items[key] = deque((item,))
            self._round.append(key)
        else:
            items.append(item)

    def next(self) -> T:
        """Take the item whose turn it is. There must be one."""
        key = self._round.popleft()
        items = self._items[key]
        item = items.popleft()
        if items:
            self._round.append(key)
        else:
            del self._items[key]
        return item


Step = Callable[[], None]

# What steps may take in one turn of the loop, those in the queue as much as those that run at once:
# a client whose request arrives meanwhile waits for so long, and an upload some ten times.
TURN_S = 0.00025
STEP_S = TURN_S / 2  # of a step that can tell how long it takes
# While no more than so many first steps of requests wait, and no others, turns are longer: each
# turn of the loop has a price.
FEW, TURN_OF_FEW_S = 16, 4 * TURN_S
CROWD = 8  # so many steps that wait take some turns of the loop
# A backlog: so many first steps of requests wait, or so many further ones, of which a client with
# usual requests has none.
FIRST, FURTHER = 32, 2


class LoopQueue:
    """Steps of work by client, which is told by its address."""

    def __init__(
        self, clock: IReactorTime, tell_backlog: Callable[[bool], object] | None = None
    ) -> None:
        """`tell_backlog` is told when a turn ends with a backlog, and when one ends without it."""
        self._clock = clock
        self._tell_backlog = tell_backlog
        self._is_backlog = False
        # First steps have a queue of their own: a client that shares its address with one that
        # sends a lot is still served soon.
        self._steps: RoundRobin[tuple[str, bool], tuple[Step, bool]] = RoundRobin()
        self._first = self._further = 0  # steps that wait: first ones of requests, and others
        self._is_scheduled = False
        self._spent_s = 0.0  # by steps that ran at once
        self._step_ends_s = 0.0  # of the step that is running, if one is
        self._turn_ends_s = 0.0
        self._rest_turns = 0  # so many are to be without steps from the queue
        self._has_worked = False  # since it was to rest

    @property
    def has_time(self) -> bool:
        """Whether a step may run at once."""
        return self.has_time_within(self._turn_s)

    def has_time_within(self, turn_s: float) -> bool:
        """Whether a step may run at once if such steps take `turn_s` of a turn of the loop."""
        return self._spent_s < turn_s

    @property
    def _turn_s(self) -> float:
        return TURN_S if self._further or self._first > FEW else TURN_OF_FEW_S

    def do(self, step: Step) -> None:
        """Run `step` at once."""
        began_s = self._clock.seconds()
        outer_ends_s, self._step_ends_s = self._step_ends_s, began_s + STEP_S
        try:
            step()
        finally:
            self._step_ends_s = outer_ends_s
            self._spent_s += self._clock.seconds() - began_s
            # Not for each step: a call in the next turn costs as much as a header line.
            if self._spent_s > TURN_S / 4:
                self._schedule()

    def add(self, client: str, step: Step, *, is_first: bool = False) -> None:
        """Run `step` when it is the client's turn. `is_first` says that it begins a request."""
        self._steps.add((client, is_first), (step, is_first))
        self._first += is_first
        self._further += not is_first
        self._schedule()

    async def turn(self, client: str) -> None:
        """Wait for the client's turn. Returns at once while the current step has time left."""
        if self._clock.seconds() >= self._step_ends_s:
            due: Deferred[None] = Deferred()
            self.add(client, lambda: due.callback(None))
            await due

    async def enter(self, client: str) -> None:
        """Wait for the client's turn, unless a step is running: what follows is part of it."""
        if not self._step_ends_s:
            await self.turn(client)

    def is_crowded_by(self, client: str) -> bool:
        """Whether many steps wait, and this client, one of whose steps is running, has no fewer of
        them than others have on average.
        """
        waiting = self._steps.items
        own = 1 + self._steps.items_of((client, False))
        return waiting >= CROWD and own * self._steps.keys >= waiting

    def rest(self, turns: int) -> None:
        """The step that is running, which must be one from the queue, takes as long as many: it is
        the last one of its turn, and there is none in the next `turns`.
        """
        self._turn_ends_s = -math.inf
        self._rest_turns = turns

    def make_room(self, turns: int) -> None:
        """Have no steps from the queue in the next `turns`: other work in the loop is of the same
        clients. At least one turn with steps lies between two such times.
        """
        if self._has_worked:
            self._has_worked = False
            self._rest_turns = turns
            self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._clock.callLater(0, self._run)

    def _run(self) -> None:
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
            self._note_backlog()

    def _note_backlog(self) -> None:
        is_backlog = self._further >= FURTHER or self._first >= FIRST
        if is_backlog != self._is_backlog:
            self._is_backlog = is_backlog
            if self._tell_backlog is not None:
                self._tell_backlog(is_backlog)


# What is read and dropped at a time, in bytes.
PIECE_BYTES = 32 << 10
# While no more pieces wait, each turn of the event loop drops one. When more do, one of each client
# is dropped after a pause, and of so many clients.
FEW_WAITING = 8
PAUSE_S = 0.001
CLIENTS = 4


class DiscardQueue:
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

"""Waiting for a part of a scarce resource instead of being refused.

`shares` decides which holdings end for a request that waits. There are two ways to wait, both for
two seconds at most: `Slots` for uploads, imports and fetches, and `grow` for everything else.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from twistedmedia.errors import Busy
from twistedmedia.fairness.shares import (
    ANY_RATE_S,
    LONGEST_WAIT_S,
    TICK_S,
    Holder,
    Share,
    Shares,
    Wanted,
)


async def grow(share: Share, amount: int, clock: IReactorTime | None) -> None:
    """Have `share` hold `amount` more. The wait may be cancelled. Without a `clock` there is none.

    :raises Busy: if the amount cannot be freed, and the caller would be above its share or the wait
        is over.
    """
    waited_s = 0.0
    while True:
        try:
            share.grow(amount, waited_s)
        except Busy:
            if clock is None or waited_s >= LONGEST_WAIT_S or not share.may_wait(amount):
                raise
        else:
            return
        await deferLater(clock, TICK_S)
        waited_s += TICK_S


class Slots:
    """`total` slots, and the requests that wait for one.

    The share of a caller is `total` divided by the number of callers that hold slots or wait for
    one, and 1 at least. A caller above its share is refused at once when all slots are taken. A
    caller within its share waits for two seconds at most:

    - Each slot that is released goes to the request whose caller holds least. Among equals it goes
      to the request that has waited longest.
    - The slowest holding of a caller above its share gives way at once if its pace is below the
      busy rate. The rate doubles with each quarter of a second that a request has waited. In the
      end every holding of such a caller may give way, one for each request that waits.
    - A holding of a caller within its share gives way only to a caller that holds less, and only
      if its pace is below the least rate. If another caller is above its share, all holdings of
      that caller give way before.

    If there are too many callers for each to have its share, the last ones are refused after two
    seconds, unless a slot is released or a holding is slower than the least rate.
    """

    def __init__(self, total: int, busy_rate: float, clock: IReactorTime | None = None) -> None:
        """`busy_rate` is in bytes a second. Without a `clock` a request does not wait: it is
        refused if nothing gives way at once.
        """
        self._shares = Shares(total, busy_rate)
        self._shares.on_release = self._on_release
        self._clock = clock
        self._waiting: dict[_Waiter, None] = {}  # in the order in which they began to wait
        self._callers: dict[str, int] = {}  # how many requests of each caller wait
        self._free = 0  # released slots that are about to be handed to waiting requests
        self._is_serving = False
        self._is_blocked = False  # nothing gives way before the next tick
        self._next_tick: IDelayedCall | None = None

    @property
    def total(self) -> int:
        """How many slots one caller can have."""
        return self._shares.total

    @property
    def used(self) -> int:
        """How many slots are taken."""
        return self._shares.used

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def figures(self) -> dict[str, int]:
        """As `Shares.figures`."""
        return self._shares.figures

    async def take(self, caller: str, holder: Holder) -> Share:
        """Take a slot for `holder`. The wait may be cancelled.

        :raises Busy: if no slot is free, and the caller is above its share or the wait is over.
        """
        if not self._free and self._shares.is_free(caller):
            return self._shares.hold(caller, holder)
        if not self._may_wait(caller):
            raise Busy
        waiter = _Waiter(caller, holder, self._held_and_wanted(caller))
        waiter.taken = Deferred(lambda _: self._remove(waiter))
        self._waiting[waiter] = None
        self._callers[caller] = self._callers.get(caller, 0) + 1
        if not self._is_blocked:
            self._free_for([waiter])
        if waiter in self._waiting:
            self._schedule()
        return await waiter.taken

    def _held_and_wanted(self, caller: str) -> int:
        return self._shares.held_by(caller) + self._callers.get(caller, 0)

    def _may_wait(self, caller: str) -> bool:
        mine = self._held_and_wanted(caller) + 1
        share = self._shares.share({caller, *self._callers})
        return mine <= share and len(self._waiting) < self.total

    def _free_for(self, waiters: list[_Waiter]) -> None:
        """End one holding for each of `waiters`, as far as there are holdings that may end."""
        shares, share = self._shares, self._shares.share(self._callers)
        waiters = [each for each in waiters if shares.held_by(each.caller) < share]
        was_serving, self._is_serving = self._is_serving, True
        try:
            wanted = [Wanted(share, shares.rate(each.waited_s)) for each in waiters]
            ended = self._end(shares.slowest(wanted))
            left = waiters[ended:]
            if shares.largest > share:  # callers within their share give way last
                left = [each for each in left if each.waited_s >= ANY_RATE_S]
            wanted = [
                Wanted(held, shares.least_rate) for held in sorted(each.held for each in left)
            ]
            ended += self._end(shares.slowest_of_equals(wanted))
        finally:
            self._is_serving = was_serving
        self._is_blocked = not ended
        self._serve()

    def _end(self, giving_way: list[Share]) -> int:
        """Have the holdings give way. Returns how many there are."""
        for each in giving_way:
            if each.amount:  # else another one ended it when it gave way
                each.release()
                each.holder.give_way()
        return len(giving_way)

    def _on_release(self) -> None:
        if self._waiting:
            self._free += 1
            self._serve()

    def _serve(self) -> None:
        """Hand the released slots to waiting requests. A request may release its slot again at
        once: hence a loop.
        """
        if self._is_serving:
            return
        self._is_serving = True
        try:
            while self._free and self._waiting:
                self._free -= 1
                waiter = min(self._waiting, key=self._held_by_caller)
                self._remove(waiter)
                waiter.taken.callback(self._shares.hold(waiter.caller, waiter.holder))
        finally:
            self._free = 0
            self._is_serving = False

    def _held_by_caller(self, waiter: _Waiter) -> int:
        return self._shares.held_by(waiter.caller)

    def _schedule(self) -> None:
        if self._clock is None:
            self._refuse(list(self._waiting))
        elif self._next_tick is None:
            self._next_tick = self._clock.callLater(TICK_S, self._on_tick)

    def _on_tick(self) -> None:
        self._next_tick = None
        for waiter in self._waiting:
            waiter.waited_s += TICK_S
        self._free_for(list(self._waiting))
        # A slot that was freed for one request may have gone to one whose caller holds less.
        while (late := self._late(ANY_RATE_S)) and not self._is_blocked:
            self._free_for(late)
        self._refuse(self._late(LONGEST_WAIT_S))
        if self._waiting:
            self._schedule()

    def _refuse(self, waiters: list[_Waiter]) -> None:
        for waiter in waiters:
            if waiter in self._waiting:
                self._remove(waiter)
                waiter.taken.errback(Failure(Busy()))

    def _late(self, waited_s: float) -> list[_Waiter]:
        return [waiter for waiter in self._waiting if waiter.waited_s >= waited_s]

    def _remove(self, waiter: _Waiter) -> None:
        del self._waiting[waiter]
        self._callers[waiter.caller] -= 1
        if not self._callers[waiter.caller]:
            del self._callers[waiter.caller]
        if not self._waiting:
            self._is_blocked = False
            if self._next_tick is not None:
                self._next_tick.cancel()
                self._next_tick = None


class _Waiter:
    """A request that waits. `taken` fires with its share."""

    __slots__ = ("caller", "held", "holder", "taken", "waited_s")

    taken: Deferred[Share]

    def __init__(self, caller: str, holder: Holder, held: int) -> None:
        """`held` is how many slots the caller has or waits for already."""
        self.caller = caller
        self.holder = holder
        self.held = held
        self.waited_s = 0.0

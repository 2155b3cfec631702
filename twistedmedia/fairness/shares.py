"""How much of one scarce resource each caller holds, and which holding ends when it is used up.

Pure. A caller may use all that is free. When the resource is used up, the largest share gives way:
its slowest holding ends for a caller that holds less. For a request that has waited (see `slots`),
faster holdings end as well, but only those of callers above their share. A holding that is slower
than any honest peer ends even for a caller that holds as much.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from operator import attrgetter, itemgetter
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from twistedmedia.errors import Busy

# The reserve on top of the total is this part of it.
_RESERVED_PART = 8
# A refusal must be cheap: after a search that found nothing to end, the next one waits for so long.
_BETWEEN_SEARCHES_S = 0.1
# While a request waits, the rate that a holding needs doubles in each tick.
TICK_S = 0.25
LONGEST_WAIT_S = 8 * TICK_S
# After this wait every holding of a caller above its share may end.
ANY_RATE_S = 7 * TICK_S
# The rate that a holding of a caller within its share needs, in bytes a second. Live speech takes
# 8 kbit/s with the most frugal codecs, as much as a poor GPRS connection carries. This is half.
LEAST_RATE = 500.0


class Holder(Protocol):
    """What holds a part of the resource: an upload, an import, a response, a connection."""

    def pace(self) -> float | None:
        """How many bytes a second the peer sent or took lately.

        None if the pace is unknown yet, or if the peer had to wait for us. Such a holding gives way
        only if every holding of its caller may, and then last. `math.inf` if the holding ends by
        itself soon. Such a holding never gives way.
        """

    def give_way(self) -> None:
        """End for another caller. The share is released already. Must not raise."""


class Share:
    """The holding of one holder. A context manager that releases it."""

    __slots__ = ("_shares", "amount", "caller", "holder")

    def __init__(self, shares: Shares, caller: str, holder: Holder) -> None:
        self.caller = caller
        self.holder = holder
        self.amount = 0
        self._shares: Shares | None = shares

    def grow(self, amount: int = 1, waited_s: float = 0.0) -> None:
        """Hold `amount` more. The request has waited for `waited_s`.

        :raises Busy: if the amount cannot be freed, or if this share is released.
        """
        if self._shares is None:
            raise Busy
        self._shares.grow(self, amount, waited_s=waited_s)

    def may_wait(self, amount: int) -> bool:
        """As `Shares.may_wait`."""
        return self._shares is not None and self._shares.may_wait(self.caller, amount)

    def release(self) -> None:
        """Release everything. Idempotent."""
        if self._shares is not None:
            shares, self._shares = self._shares, None
            shares.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Wanted(NamedTuple):
    """What a request needs: `amount`, freed by holdings slower than `rate`. A caller that holds no
    more than `spared` loses nothing. If the rate is infinite, holdings of unknown pace give way
    after all others, the youngest first.
    """

    spared: int
    rate: float
    amount: int = 1


class _Caller:
    __slots__ = ("held", "shares")

    def __init__(self) -> None:
        self.held = 0
        self.shares: dict[Share, None] = {}


class Shares:
    """One scarce resource: `total` of it, and what each caller holds.

    An eighth of the total is reserved on top of it, for callers that hold no more than that eighth.
    So a new caller is served even if another one holds the whole total.
    """

    def __init__(
        self,
        total: int,
        busy_rate: float,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """When the resource is used up, a holding of the largest share ends for a new caller if its
        pace is below `busy_rate`, in bytes a second. `now_s` is any clock that never goes back.
        """
        self.total = total
        self.used = 0
        self.least_rate = min(busy_rate, LEAST_RATE)
        self._busy_rate = busy_rate
        self._now_s = now_s
        self._callers: dict[str, _Caller] = {}
        self._largest = 0
        # The last search that found nothing: how much its caller would have held, how much every
        # other caller would have kept, how much was missing, and how long the request had waited,
        # negated. A search for more than that in each respect would find nothing either.
        self._last_search = (0, 0, 0, 0.0)
        self._last_search_s = -_BETWEEN_SEARCHES_S
        self.on_release: Callable[[], None] = lambda: None

    @property
    def callers(self) -> int:
        """How many callers hold something."""
        return len(self._callers)

    @property
    def largest(self) -> int:
        """An upper bound for what one caller holds. Each search makes it exact."""
        return self._largest

    @property
    def reserve(self) -> int:
        """How much there is on top of the total."""
        return self.total // _RESERVED_PART

    @property
    def figures(self) -> dict[str, int]:
        """The current state, for monitoring."""
        return {
            "used": self.used,
            "total": self.total,
            "reserve": self.reserve,
            "callers": len(self._callers),
            "largest": max((caller.held for caller in self._callers.values()), default=0),
        }

    def held_by(self, caller: str) -> int:
        """How much `caller` holds."""
        holding = self._callers.get(caller)
        return 0 if holding is None else holding.held

    def take(
        self,
        caller: str,
        holder: Holder,
        amount: int = 1,
        *,
        is_used_up: bool = False,
        waited_s: float = 0.0,
    ) -> Share:
        """Have `holder` hold `amount`, which may be 0 if it will `grow`. If the resource
        `is_used_up`, nothing is free whatever the total is. The request has waited for `waited_s`.

        :raises Busy: if the amount is not free and cannot be freed.
        """
        share = Share(self, caller, holder)
        self.grow(share, amount, is_used_up=is_used_up, waited_s=waited_s)
        return share

    def grow(
        self, share: Share, amount: int, *, is_used_up: bool = False, waited_s: float = 0.0
    ) -> None:
        """Called by `Share.grow`."""
        mine = self.held_by(share.caller) + amount
        missing = amount - (0 if is_used_up else max(0, self._limit(mine) - self.used))
        giving_way: list[Share] = []
        if missing > 0:
            if waited_s and not self.may_wait(share.caller, amount):
                waited_s = 0.0
            giving_way = self._find(share.caller, amount, missing, waited_s)
        for each in giving_way:  # the accounts first: a holder that ends may call this again
            each.release()
        self._add(share, amount)
        for each in giving_way:
            each.holder.give_way()

    def is_free(self, caller: str) -> bool:
        """Whether `caller` can hold 1 more and nothing has to give way."""
        return self.used < self._limit(self.held_by(caller) + 1)

    def hold(self, caller: str, holder: Holder) -> Share:
        """Have `holder` hold 1, even if nothing is free. Nothing gives way."""
        share = Share(self, caller, holder)
        self._add(share, 1)
        return share

    def share(self, waiting: Collection[str]) -> int:
        """The share of each caller, counting also those that are `waiting`. It is 1 at least."""
        callers = len(self._callers) + sum(each not in self._callers for each in waiting)
        return max(1, self.total // max(1, callers))

    def rate(self, waited_s: float) -> float:
        """The pace that a holding of a caller above its share needs in order not to end for a
        request that has waited for `waited_s`. `math.inf` if no pace is enough.
        """
        if waited_s >= ANY_RATE_S:
            return math.inf
        return self._busy_rate * math.exp2(waited_s / TICK_S)

    def may_wait(self, caller: str, amount: int, asked: int = 0) -> bool:
        """Whether a request of `caller` may wait to hold `amount` more, while its other requests
        wait for `asked`. It may if the caller stays within its share or holds nothing yet, and if
        another caller holds enough for its holdings to end.
        """
        mine = self.held_by(caller) + asked + amount
        share = self.share((caller,))
        return mine <= max(share, amount) and self._largest > _kept(mine, share)

    def slowest(self, wanted: Sequence[Wanted]) -> list[Share]:
        """Find the shares that give way to some requests. The holdings of the largest callers end
        first, the slowest of each caller before its others.

        Nothing ends for a request for which too little can be freed. In `wanted` the rates must not
        rise, and `spared` must not fall.
        """
        return _enough(self._slower(wanted[0]), wanted) if wanted else []

    def slowest_of_equals(self, wanted: Sequence[Wanted], largest: float = math.inf) -> list[Share]:
        """Find shares as `slowest` does, but the size of a caller is what it has left after the
        holdings that end, and among equals the slowest holding ends first. Callers that hold more
        than `largest` lose nothing.
        """
        if not wanted:
            return []
        return _enough(_evenly(self._slower(wanted[0], largest)), wanted)

    def forget(self, share: Share) -> None:
        """Called by `Share.release`."""
        self.used -= share.amount
        holding = self._callers[share.caller]
        holding.held -= share.amount
        del holding.shares[share]
        if not holding.shares:
            del self._callers[share.caller]
        share.amount = 0
        self.on_release()

    def _limit(self, mine: int) -> int:
        """How much all callers together may hold if this one holds `mine`."""
        return self.total + self.reserve if mine <= self.reserve else self.total

    def _add(self, share: Share, amount: int) -> None:
        holding = self._callers.get(share.caller)
        if holding is None:
            holding = self._callers[share.caller] = _Caller()
        holding.shares[share] = None
        holding.held += amount
        share.amount += amount
        self.used += amount
        self._largest = max(self._largest, holding.held)

    def _find(self, caller: str, amount: int, missing: int, waited_s: float) -> list[Share]:
        """Shares that together free `missing` for a request of `caller` for `amount`.

        :raises Busy: if there are not enough.
        """
        mine, share = self.held_by(caller) + amount, self.share((caller,))
        is_within = mine <= max(share, amount)
        kept = mine - 1 if is_within else mine  # by every other caller, even if it is slow
        now_s = self._now_s()
        sought = (mine, kept, missing, -waited_s)
        is_known = now_s - self._last_search_s < _BETWEEN_SEARCHES_S and all(
            each >= last for each, last in zip(sought, self._last_search, strict=True)
        )
        if kept >= self._largest or is_known:
            raise Busy
        found: list[Share] = []
        if mine < self._largest:
            found = self.slowest([Wanted(mine, self._busy_rate, missing)])
        if not found and is_within:
            found = self.slowest_of_equals([Wanted(kept, self.least_rate, missing)], mine)
        if not found and waited_s:
            found = self.slowest([Wanted(_kept(mine, share), self.rate(waited_s), missing)])
        if not found:
            self._last_search_s, self._last_search = now_s, sought
            raise Busy
        return found

    def _slower(
        self, wanted: Wanted, largest: float = math.inf
    ) -> Iterator[tuple[int, float, Share]]:
        """The holdings that may give way for `wanted`, those of the largest caller first. Each is
        what the caller has left before the holding ends, its pace, and its share. Callers that
        hold more than `largest` are left out.
        """
        for holding in self._larger(wanted.spared):
            left = holding.held
            if left > largest:
                continue
            for pace, share in self._slow(holding, wanted.rate):
                yield left, pace, share
                left -= share.amount
                if left <= wanted.spared:
                    break

    def _larger(self, spared: int) -> list[_Caller]:
        """The callers that hold more than `spared`, the largest first."""
        larger = [holding for holding in self._callers.values() if holding.held > spared]
        larger.sort(key=attrgetter("held"), reverse=True)
        self._largest = larger[0].held if larger else min(self._largest, spared)
        return larger

    def _slow(self, holding: _Caller, rate: float) -> Iterator[tuple[float, Share]]:
        """The shares that hold something and are slower than `rate`, each with its pace. The
        slowest come first, and the oldest of those that stand still. If the rate is infinite,
        shares of unknown pace follow, the youngest first, with an infinite pace.
        """
        moving: list[tuple[float, Share]] = []
        unknowns: list[Share] = []
        for share in holding.shares:
            pace = share.holder.pace() if share.amount else math.inf
            if pace == 0:
                yield pace, share
            elif pace is None:
                unknowns.append(share)
            elif pace < rate:
                moving.append((pace, share))
        moving.sort(key=itemgetter(0))
        yield from moving
        if rate == math.inf:
            for share in reversed(unknowns):
                yield math.inf, share


def _kept(mine: int, share: int) -> int:
    """How much every other caller keeps while a request waits whose caller would hold `mine`: its
    `share`, or one and a half times `mine` if a single holding is larger than the share. Otherwise
    two callers with one such holding each would end each other's.
    """
    return share if mine <= share else mine + mine // 2


def _enough(holdings: Iterable[tuple[int, float, Share]], wanted: Sequence[Wanted]) -> list[Share]:
    """The first of `holdings` (see `Shares._slower`) that are enough for all of `wanted`, or else
    for as many of its first items as possible.
    """
    found: list[Share] = []
    served = 0  # how many of `wanted` have enough
    needed = 0  # how many of `found` these need
    freed = 0
    for left, pace, share in holdings:
        spared, rate, amount = wanted[served]
        if left <= spared or (pace >= rate and rate < math.inf):
            continue
        found.append(share)
        freed += share.amount
        if freed >= amount:
            served, needed, freed = served + 1, len(found), 0
            if served == len(wanted):
                break
    return found[:needed]


def _evenly(
    holdings: Iterable[tuple[int, float, Share]],
) -> Iterator[tuple[int, float, Share]]:
    """Order `holdings` by how much is left, the most first, then by pace."""
    largest = 0
    others: list[tuple[int, float, Share]] = []
    for each in holdings:
        left, pace, _ = each
        largest = max(largest, left)
        if pace == 0 and left == largest:
            yield each  # nothing precedes it
        else:
            others.append(each)
    others.sort(key=lambda each: (-each[0], each[1]))
    yield from others

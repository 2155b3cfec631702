"""One fetch for all who ask for the same URL at once, and its outcome again while it is fresh.

Of an outcome the figures are kept, never the content. A fetch counts as one of the first caller
that asked for it. If that one is refused, the fetch goes on for the other callers.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from twistedmedia.errors import Busy
from twistedmedia.fetch.fetcher import Fetcher, FetchLimits
from twistedmedia.fetch.timings import Timings
from twistedmedia.fetch.urls import Url

MAX_OUTCOMES = 1_000
_ANSWERS_S = 0.001  # of a step: one answer takes a tenth of it, a turn of the loop half as much


class Origin(Enum):
    """Where an outcome comes from."""

    MISS = "miss"  # fetched for the one who asked
    HIT = "hit"  # fetched before, and still fresh
    SHARED = "shared"  # somebody else was fetching it


@dataclass(frozen=True, slots=True)
class FetchOutcome:
    """What a fetch came to. `url` is where redirects have led, `size` that of the content in bytes,
    and `timings` begin when it was asked for, or later: a wait for a place does not count.
    """

    url: str
    status: int
    size: int
    timings: Timings
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Asking:
    """A request that waits for a fetch, since `since_s`."""

    since_s: float
    origin: Origin
    asked: Deferred[FetchOutcome]
    caller: str

    def tell(self, result: FetchOutcome | Failure, begun_s: float) -> None:
        """Pass on the result of the fetch that began at `begun_s`, if it is still waited for."""
        if self.asked.called:
            return
        if isinstance(result, Failure):
            self.asked.errback(result)
        else:
            self.asked.callback(_seen(result, max(0.0, self.since_s - begun_s), self.origin))


class _Flight:
    """A fetch under way, and those who wait for it."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.landed = False
        self.waiting: dict[Deferred[FetchOutcome], _Asking] = {}  # in the order in which they asked
        self.work: Deferred[None]


class FetchCache:
    """Fetches for many."""

    def __init__(
        self, fetcher: Fetcher, terms: FetchLimits, max_outcomes: int = MAX_OUTCOMES
    ) -> None:
        """At most `max_outcomes` are kept, those that were asked for last."""
        self.fetcher = fetcher
        self._terms = terms
        self._clock: Callable[[], float] = fetcher.reactor.seconds
        self._max = max_outcomes
        self._flights: dict[Url | None, _Flight] = {}
        # With when it was begun, and until when it is fresh.
        self._kept: OrderedDict[Url | None, tuple[FetchOutcome, float, float]] = OrderedDict()

    def ask(
        self, url: Url | None, caller: str = "", *, fresh: bool = False, keep: bool = True
    ) -> Deferred[FetchOutcome]:
        """The outcome of fetching `url`, or the upstream's own if it is None, for `caller`. With
        `fresh` it is fetched for this one, whatever is kept or under way; without `keep` it is not
        kept then.

        Fails as `Fetcher.open` does, and as its content. Cancelling leaves a fetch to those others
        who wait for it, and ends it when nobody does.
        """
        now = self._clock()
        asked: Deferred[FetchOutcome]
        kept = None if fresh else self._fresh(url, now)
        if kept is not None:
            asked = Deferred()
            asked.callback(kept)
            return asked
        flight = None if fresh else self._flights.get(url)
        origin = Origin.MISS if flight is None else Origin.SHARED
        joined = flight or _Flight(now)
        asked = Deferred(lambda asked: self._leave(url, joined, asked))
        joined.waiting[asked] = _Asking(now, origin, asked, caller)
        if flight is None:
            if not fresh:
                self._flights[url] = joined
            joined.work = ensureDeferred(self._fly(url, joined, keep or not fresh))
        return asked

    def _fresh(self, url: Url | None, now: float) -> FetchOutcome | None:
        kept = self._kept.get(url)
        if kept is None:
            return None
        outcome, begun, until = kept
        if now >= until:
            del self._kept[url]
            return None
        self._kept.move_to_end(url)
        return _seen(outcome, now - begun, Origin.HIT)

    async def _fly(self, url: Url | None, flight: _Flight, keep: bool) -> None:
        """Fetch, and tell all who wait what it comes to."""
        result: FetchOutcome | Failure
        while True:
            caller = next(iter(flight.waiting.values())).caller
            try:
                result, lifetime_s = await self._fetch(url, caller, flight)
                if keep:
                    self._keep(url, flight.begun, result, lifetime_s)
            except Busy:  # for that caller
                result = Failure()
                if self._refuse(flight, caller, result):
                    continue
            except Exception:  # noqa: BLE001  # told to those who wait
                result = Failure()
            break
        if self._flights.get(url) is flight:
            del self._flights[url]
        flight.landed = True
        await self.fetcher.queue.enter(caller)
        waiting, flight.waiting = flight.waiting, {}  # the Deferreds refer to the flight
        self._tell(list(waiting.values()), result, flight.begun)
        del result  # a failure refers to this frame

    def _tell(self, waiting: list[_Asking], result: FetchOutcome | Failure, begun_s: float) -> None:
        """Answer those that wait, in turns of their callers; the first one has its turn now."""
        if len(waiting) == 1:
            waiting[0].tell(result, begun_s)
            return
        callers: dict[str, deque[_Asking]] = {}
        for each in waiting:
            callers.setdefault(each.caller, deque()).append(each)
        first, *others = callers.values() or [deque()]
        for asking in others:
            self._tell_later(asking, result, begun_s)
        self._tell_some(first, result, begun_s)

    def _tell_some(
        self, waiting: deque[_Asking], result: FetchOutcome | Failure, begun_s: float
    ) -> None:
        """Answer requests of one caller while the step has time."""
        ends_s = self._clock() + _ANSWERS_S
        while waiting and self._clock() < ends_s:
            waiting.popleft().tell(result, begun_s)
        if waiting:
            self._tell_later(waiting, result, begun_s)

    def _tell_later(
        self, waiting: deque[_Asking], result: FetchOutcome | Failure, begun_s: float
    ) -> None:
        step = partial(self._tell_some, waiting, result, begun_s)
        self.fetcher.queue.add(waiting[0].caller, step)

    def _refuse(self, flight: _Flight, caller: str, failure: Failure) -> bool:
        """End the waiting of `caller` with the failure, if other callers wait as well. Returns
        whether requests are left that wait.
        """
        refused = [each for each in flight.waiting.values() if each.caller == caller]
        if len(refused) == len(flight.waiting):
            return False
        for each in refused:
            del flight.waiting[each.asked]
        self._tell(refused, failure, flight.begun)
        return bool(flight.waiting)

    async def _fetch(
        self, url: Url | None, caller: str, flight: _Flight
    ) -> tuple[FetchOutcome, int]:
        size = 0
        async with self.fetcher.open(url, self._terms, caller=caller) as response:
            flight.begun = response.begun_s
            async for chunks in response.body:
                size += sum(map(len, chunks))
            outcome = FetchOutcome(
                str(response.url), response.status, size, response.timings, Origin.MISS
            )
            return outcome, response.lifetime_s

    def _keep(self, url: Url | None, begun: float, outcome: FetchOutcome, lifetime_s: int) -> None:
        if url in self._kept and self._kept[url][1] > begun:
            return  # one that was begun later has ended before
        self._kept.pop(url, None)
        if lifetime_s > 0:
            said = begun + (outcome.timings.first_byte or 0.0)
            self._kept[url] = (outcome, begun, said + lifetime_s)
            if len(self._kept) > self._max:
                self._kept.popitem(last=False)

    def _leave(self, url: Url | None, flight: _Flight, asked: Deferred[FetchOutcome]) -> None:
        flight.waiting.pop(asked, None)
        if not flight.waiting and not flight.landed:
            if self._flights.get(url) is flight:
                del self._flights[url]
            flight.work.cancel()


def _seen(outcome: FetchOutcome, later: float, origin: Origin) -> FetchOutcome:
    """The outcome as it was for one who asked `later` seconds after the fetch began."""
    if later == 0 and origin is outcome.origin:
        return outcome
    timings = outcome.timings.since(later)
    return FetchOutcome(outcome.url, outcome.status, outcome.size, timings, origin)

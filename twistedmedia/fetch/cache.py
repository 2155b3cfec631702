"""Shares one fetch among concurrent requests for a URL, and keeps its outcome while it is fresh.

An outcome has figures, not the content. A fetch counts as one of its first caller. If that caller
is refused, the fetch is tried again for the next one.
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
_STEP_S = 0.001  # one result takes a tenth of it to pass on, and a turn of the loop half of it


class Origin(Enum):
    """How a request got its outcome."""

    MISS = "miss"  # fetched for this request
    HIT = "hit"  # stored, and still fresh
    SHARED = "shared"  # joined a running fetch


@dataclass(frozen=True, slots=True)
class FetchOutcome:
    """The result of a fetch. `url` is the one after redirects, and `size` is that of the content in
    bytes. `timings` begin with the request; a wait for a place does not count.
    """

    url: str
    status: int
    size: int
    timings: Timings
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Waiter:
    """A request that waits for a fetch since `since_s`."""

    since_s: float
    origin: Origin
    waiting: Deferred[FetchOutcome]
    caller: str

    def settle(self, result: FetchOutcome | Failure, begun_s: float) -> None:
        """Fire with the result of the fetch that began at `begun_s`, unless cancelled."""
        if self.waiting.called:
            return
        if isinstance(result, Failure):
            self.waiting.errback(result)
        else:
            self.waiting.callback(_seen(result, max(0.0, self.since_s - begun_s), self.origin))


class _SharedFetch:
    """A running fetch, and the requests that wait for it."""

    def __init__(self, begun_s: float) -> None:
        self.begun_s = begun_s
        self.has_ended = False
        self.waiters: dict[Deferred[FetchOutcome], _Waiter] = {}  # oldest first
        self.work: Deferred[None]


@dataclass(frozen=True, slots=True)
class _Stored:
    """An outcome, when its fetch began, and until when it is fresh."""

    outcome: FetchOutcome
    begun_s: float
    fresh_until_s: float


class FetchCache:
    """Fetches for many callers."""

    def __init__(
        self, fetcher: Fetcher, limits: FetchLimits, max_outcomes: int = MAX_OUTCOMES
    ) -> None:
        """At most `max_outcomes` are stored; the least recently used one is dropped first."""
        self.fetcher = fetcher
        self._limits = limits
        self._clock: Callable[[], float] = fetcher.reactor.seconds
        self._max_outcomes = max_outcomes
        self._running: dict[Url | None, _SharedFetch] = {}
        self._stored: OrderedDict[Url | None, _Stored] = OrderedDict()

    def fetch(
        self, url: Url | None, caller: str = "", *, fresh: bool = False, store: bool = True
    ) -> Deferred[FetchOutcome]:
        """Fires with the outcome of fetching `url`, or the upstream's own if it is None, for
        `caller`. `fresh` asks for a fetch of its own. Its outcome is stored only with `store`.

        Fails as `Fetcher.open` and the content of its response do. Cancelling ends the fetch if no
        other request waits for it.
        """
        now_s = self._clock()
        waiting: Deferred[FetchOutcome]
        outcome = None if fresh else self._find(url, now_s)
        if outcome is not None:
            waiting = Deferred()
            waiting.callback(outcome)
            return waiting
        running = None if fresh else self._running.get(url)
        origin = Origin.MISS if running is None else Origin.SHARED
        shared = running or _SharedFetch(now_s)
        waiting = Deferred(lambda waiting: self._leave(url, shared, waiting))
        shared.waiters[waiting] = _Waiter(now_s, origin, waiting, caller)
        if running is None:
            if not fresh:
                self._running[url] = shared
            shared.work = ensureDeferred(self._run(url, shared, store or not fresh))
        return waiting

    def _find(self, url: Url | None, now_s: float) -> FetchOutcome | None:
        """The stored outcome, if it is fresh."""
        stored = self._stored.get(url)
        if stored is None:
            return None
        if now_s >= stored.fresh_until_s:
            del self._stored[url]
            return None
        self._stored.move_to_end(url)
        return _seen(stored.outcome, now_s - stored.begun_s, Origin.HIT)

    async def _run(self, url: Url | None, shared: _SharedFetch, store: bool) -> None:
        """Fetch, and pass the result on to all waiters."""
        result: FetchOutcome | Failure
        while True:
            caller = next(iter(shared.waiters.values())).caller
            try:
                result, lifetime_s = await self._fetch(url, caller, shared)
                if store:
                    self._store(url, shared.begun_s, result, lifetime_s)
            except Busy:  # for that caller
                result = Failure()
                if self._refuse(shared, caller, result):
                    continue
            except Exception:  # noqa: BLE001  # passed on to the waiters
                result = Failure()
            break
        if self._running.get(url) is shared:
            del self._running[url]
        shared.has_ended = True
        await self.fetcher.queue.enter(caller)
        waiters, shared.waiters = shared.waiters, {}  # the Deferreds refer to the fetch
        self._settle(list(waiters.values()), result, shared.begun_s)
        del result  # a failure refers to this frame

    def _settle(
        self, waiters: list[_Waiter], result: FetchOutcome | Failure, begun_s: float
    ) -> None:
        """Pass the result on, in turns of the callers. The first one has its turn now."""
        if len(waiters) == 1:
            waiters[0].settle(result, begun_s)
            return
        callers: dict[str, deque[_Waiter]] = {}
        for each in waiters:
            callers.setdefault(each.caller, deque()).append(each)
        first, *others = callers.values() or [deque()]
        for of_caller in others:
            self._settle_later(of_caller, result, begun_s)
        self._settle_some(first, result, begun_s)

    def _settle_some(
        self, waiters: deque[_Waiter], result: FetchOutcome | Failure, begun_s: float
    ) -> None:
        """Pass the result on to waiters of one caller while the step has time."""
        ends_s = self._clock() + _STEP_S
        while waiters and self._clock() < ends_s:
            waiters.popleft().settle(result, begun_s)
        if waiters:
            self._settle_later(waiters, result, begun_s)

    def _settle_later(
        self, waiters: deque[_Waiter], result: FetchOutcome | Failure, begun_s: float
    ) -> None:
        step = partial(self._settle_some, waiters, result, begun_s)
        self.fetcher.queue.add(waiters[0].caller, step)

    def _refuse(self, shared: _SharedFetch, caller: str, failure: Failure) -> bool:
        """Fail the waiters of `caller`, unless no other caller waits. Returns whether waiters are
        left to fetch for.
        """
        refused = [each for each in shared.waiters.values() if each.caller == caller]
        if len(refused) == len(shared.waiters):
            return False
        for each in refused:
            del shared.waiters[each.waiting]
        self._settle(refused, failure, shared.begun_s)
        return bool(shared.waiters)

    async def _fetch(
        self, url: Url | None, caller: str, shared: _SharedFetch
    ) -> tuple[FetchOutcome, int]:
        size = 0
        async with self.fetcher.open(url, self._limits, caller=caller) as response:
            shared.begun_s = response.begun_s
            async for chunks in response.body:
                size += sum(map(len, chunks))
            outcome = FetchOutcome(
                str(response.url), response.status, size, response.timings, Origin.MISS
            )
            return outcome, response.lifetime_s

    def _store(
        self, url: Url | None, begun_s: float, outcome: FetchOutcome, lifetime_s: int
    ) -> None:
        if url in self._stored and self._stored[url].begun_s > begun_s:
            return  # a later fetch ended before
        self._stored.pop(url, None)
        if lifetime_s > 0:
            responded_s = begun_s + (outcome.timings.first_byte or 0.0)
            self._stored[url] = _Stored(outcome, begun_s, responded_s + lifetime_s)
            if len(self._stored) > self._max_outcomes:
                self._stored.popitem(last=False)

    def _leave(
        self, url: Url | None, shared: _SharedFetch, waiting: Deferred[FetchOutcome]
    ) -> None:
        shared.waiters.pop(waiting, None)
        if not shared.waiters and not shared.has_ended:
            if self._running.get(url) is shared:
                del self._running[url]
            shared.work.cancel()


def _seen(outcome: FetchOutcome, later_s: float, origin: Origin) -> FetchOutcome:
    """The outcome for a request that came `later_s` after the fetch began."""
    if later_s == 0 and origin is outcome.origin:
        return outcome
    timings = outcome.timings.since(later_s)
    return FetchOutcome(outcome.url, outcome.status, outcome.size, timings, origin)

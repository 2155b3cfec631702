"""One fetch for concurrent requests, and its outcome again while it is fresh."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.fetch.reactor import World, failed, head
from tests.http.connection import outcome, result
from twistedmedia.errors import Busy, UpstreamBrokeOff, UpstreamFailed
from twistedmedia.fairness.loop_queue import LoopQueue
from twistedmedia.fetch.cache import MAX_OUTCOMES, FetchCache, FetchOutcome, Origin
from twistedmedia.fetch.fetcher import FetchLimits
from twistedmedia.fetch.timings import Timings
from twistedmedia.fetch.urls import Url, parse_url

URL = parse_url("http://example.org/a.mp3")
OTHER = parse_url("http://example.org/b.mp3")
LIMITS = FetchLimits(total_s=30, head_s=10, max_bytes=1 << 20)
MISS, HIT, SHARED = Origin.MISS, Origin.HIT, Origin.SHARED


@dataclass
class Response:
    """The response of a fake fetch."""

    url: Url
    timings: Timings
    begun_s: float
    lifetime_s: int = 0
    status: int = 200
    chunks: list[list[bytes]] = field(default_factory=lambda: [[b"hel", b"lo"], [b"!"]])
    error: Exception | None = None

    @property
    async def body(self) -> AsyncIterator[list[bytes]]:
        for chunks in self.chunks:
            yield chunks
        if self.error is not None:
            raise self.error


class Fetching:
    """A fetch of the fake fetcher, which a test ends."""

    def __init__(self, url: Url | None, begun: float) -> None:
        self.url = url
        self.over = False
        self.cancelled = False
        self.begun = begun
        self.waiting: Deferred[Response] = Deferred(self._cancel)

    def _cancel(self, _: Deferred[Response]) -> None:
        self.cancelled = True


class FakeFetcher:
    """A fetcher whose fetches respond when a test says so."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.reactor.advance(1000)
        self.queue = LoopQueue(self.reactor)
        self.fetches: list[Fetching] = []
        self.busy = False
        self.callers: list[str] = []

    @asynccontextmanager
    async def open(
        self, url: Url | None, limits: FetchLimits, caller: str
    ) -> AsyncIterator[Response]:
        assert limits is LIMITS
        self.callers.append(caller)
        if self.busy:
            raise Busy(5)
        fetch = Fetching(url, self.reactor.seconds())
        self.fetches.append(fetch)
        try:
            yield await fetch.waiting
        finally:
            fetch.over = True

    @property
    def going_on(self) -> list[Fetching]:
        return [fetch for fetch in self.fetches if not fetch.over]

    def respond(self, lifetime_s: int = 0, index: int = 0, **settings: Any) -> None:
        """End a running fetch, by default the oldest, with a response and its content."""
        fetch = self.going_on[index]
        total = self.reactor.seconds() - fetch.begun
        timings = Timings(None, 0.25, 0.5, None, total, total)
        response = Response(fetch.url or URL, timings, fetch.begun, lifetime_s, **settings)
        self._end(lambda: fetch.waiting.callback(response))
        assert fetch.over

    def fail(self, error: Exception) -> None:
        waiting = self.going_on[0].waiting
        self._end(lambda: waiting.errback(Failure(error)))

    def _end(self, step: Callable[[], None]) -> None:
        """In a step, as bytes of an upstream are read, and results are passed on."""
        self.queue.do(step)
        self.reactor.advance(0)


@pytest.fixture
def fetcher() -> FakeFetcher:
    return FakeFetcher()


@pytest.fixture
def cache(fetcher: FakeFetcher) -> FetchCache:
    return FetchCache(fetcher, LIMITS)  # type: ignore[arg-type]


def error(deferred: Deferred[FetchOutcome]) -> BaseException:
    return failed(outcome(deferred))


def test_an_outcome_has_the_figures_of_its_fetch(fetcher: FakeFetcher, cache: FetchCache) -> None:
    waiting = cache.fetch(URL)
    fetcher.reactor.advance(2)
    fetcher.respond(status=404)
    timings = Timings(None, 0.25, 0.5, None, 2.0, 2.0)
    assert result(waiting) == FetchOutcome("http://example.org/a.mp3", 404, 6, timings, MISS)


def test_without_a_url_the_upstream_is_fetched(fetcher: FakeFetcher, cache: FetchCache) -> None:
    own, named = cache.fetch(None), cache.fetch(URL)
    assert [fetch.url for fetch in fetcher.fetches] == [None, URL]
    fetcher.respond(60)
    fetcher.respond(60)
    assert (result(own).origin, result(named).origin) == (MISS, MISS)
    assert result(cache.fetch(None)).origin is HIT


def test_a_hundred_concurrent_requests_share_one_fetch(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    """Case 31."""
    waiting = [cache.fetch(URL) for _ in range(100)]
    assert len(fetcher.fetches) == 1
    fetcher.respond()
    outcomes = [result(each) for each in waiting]
    assert [each.origin for each in outcomes] == [MISS] + [SHARED] * 99
    assert {each.size for each in outcomes} == {6}


def test_another_url_is_another_fetch(fetcher: FakeFetcher, cache: FetchCache) -> None:
    waiting = [cache.fetch(URL), cache.fetch(OTHER), cache.fetch(None)]
    assert [fetch.url for fetch in fetcher.fetches] == [URL, OTHER, None]
    for _ in range(3):
        fetcher.respond()
    assert [result(each).origin for each in waiting] == [MISS] * 3


def test_a_request_that_joins_has_the_rest_of_the_timings(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    first = cache.fetch(URL)
    fetcher.reactor.advance(0.375)
    second = cache.fetch(URL)
    fetcher.reactor.advance(0.625)
    third = cache.fetch(URL)
    fetcher.reactor.advance(1)
    fetcher.respond()
    assert result(first).timings == Timings(None, 0.25, 0.5, None, 2.0, 2.0)
    assert result(second).timings == Timings(None, None, 0.125, None, 1.625, 1.625)
    assert result(third).timings == Timings(None, None, None, None, 1.0, 1.0)


def test_timings_do_not_include_the_wait_for_a_place(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    first = cache.fetch(URL)
    fetcher.reactor.advance(0.5)
    early = cache.fetch(URL)
    fetcher.reactor.advance(0.5)
    fetcher.going_on[0].begun = fetcher.reactor.seconds()  # it gets its place
    fetcher.reactor.advance(0.75)
    late = cache.fetch(URL)
    fetcher.reactor.advance(1.25)
    fetcher.respond()
    for each in (first, early):
        assert result(each).timings == Timings(None, 0.25, 0.5, None, 2.0, 2.0)
    assert result(late).timings == Timings(None, None, None, None, 1.25, 1.25)


@pytest.mark.parametrize("leaving", [[0], [1], [0, 1], [2, 0]])
def test_a_cancelled_request_does_not_end_the_fetch_of_others(
    fetcher: FakeFetcher, cache: FetchCache, leaving: list[int]
) -> None:
    """Case 31: the first as well."""
    waiting = [cache.fetch(URL) for _ in range(3)]
    for n in leaving:
        waiting[n].cancel()
        assert isinstance(error(waiting[n]), CancelledError)
    late = cache.fetch(URL)
    assert len(fetcher.going_on) == 1
    fetcher.respond()
    for n in {0, 1, 2} - set(leaving):
        assert result(waiting[n]).origin is (MISS if n == 0 else SHARED)
    assert result(late).origin is SHARED
    assert len(fetcher.fetches) == 1


def test_cancelling_the_last_request_ends_the_fetch(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    waiting = [cache.fetch(URL) for _ in range(3)]
    for each in waiting:
        assert fetcher.going_on
        each.cancel()
        assert isinstance(error(each), CancelledError)
    assert fetcher.going_on == []
    assert fetcher.fetches[0].cancelled
    again = cache.fetch(URL)
    assert len(fetcher.fetches) == 2
    fetcher.respond()
    assert result(again).origin is MISS


@pytest.mark.parametrize("failure", [UpstreamFailed("refuses the connection"), ValueError("bug")])
def test_a_failure_is_passed_on_to_all_waiters_and_not_stored(
    fetcher: FakeFetcher, cache: FetchCache, failure: Exception
) -> None:
    """Case 31."""
    waiting = [cache.fetch(URL) for _ in range(3)]
    fetcher.fail(failure)
    assert [error(each) for each in waiting] == [failure] * 3
    again = cache.fetch(URL)
    fetcher.respond()
    assert result(again).origin is MISS


def test_interrupted_content_is_a_failure_and_not_stored(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    waiting = [cache.fetch(URL) for _ in range(3)]
    broke_off = UpstreamBrokeOff(6)
    fetcher.respond(60, error=broke_off)
    assert [error(each) for each in waiting] == [broke_off] * 3
    again = cache.fetch(URL)
    fetcher.respond()
    assert result(again).origin is MISS


def test_a_fetch_that_is_refused_for_one_caller_is_tried_for_the_others(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    """Case 86: a fetch counts as one of its first caller."""
    refused = [cache.fetch(URL, "first"), cache.fetch(URL, "first")]
    others = [cache.fetch(URL, "second"), cache.fetch(URL, "third")]
    fetcher.fail(Busy(5))
    assert [type(error(each)) for each in refused] == [Busy, Busy]
    assert fetcher.callers == ["first", "second"]
    fetcher.respond()
    assert [outcome(each)[0].size for each in others] == [6, 6]
    assert len(fetcher.fetches) == 2


def test_a_fetch_that_cannot_begin_fails_at_once_and_stops_nothing(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    fetcher.busy = True
    refused = cache.fetch(URL)
    fetcher.reactor.advance(0)
    assert isinstance(error(refused), Busy)
    fetcher.busy = False
    again = cache.fetch(URL)
    fetcher.respond()
    assert result(again).origin is MISS


def test_an_outcome_is_stored_for_its_lifetime(fetcher: FakeFetcher, cache: FetchCache) -> None:
    waiting = cache.fetch(URL)
    fetcher.reactor.advance(2)
    fetcher.respond(60, status=404)
    assert result(waiting).origin is MISS
    fetcher.reactor.advance(59)
    hit = result(cache.fetch(URL))
    assert (hit.origin, hit.status, hit.size, hit.url) == (HIT, 404, 6, str(URL))
    assert hit.timings == Timings()
    assert len(fetcher.fetches) == 1
    fetcher.reactor.advance(1)
    again = cache.fetch(URL)
    assert len(fetcher.fetches) == 2
    fetcher.respond()
    assert result(again).origin is MISS


def test_an_outcome_without_a_lifetime_is_not_stored(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    """`no-store`, or no lifetime."""
    for _ in range(3):
        waiting = cache.fetch(URL)
        fetcher.respond(0)
        assert result(waiting).origin is MISS
    assert len(fetcher.fetches) == 3


def test_an_outcome_that_must_not_be_stored_removes_the_stored_one(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    for fresh, lifetime_s in ((False, 60), (True, 0), (False, 0)):
        waiting = cache.fetch(URL, fresh=fresh)
        fetcher.respond(lifetime_s)
        assert result(waiting).origin is MISS
    assert len(fetcher.fetches) == 3


def test_cancelling_a_hit_has_no_effect(fetcher: FakeFetcher, cache: FetchCache) -> None:
    waiting = cache.fetch(URL)
    fetcher.respond(60)
    assert result(waiting).origin is MISS
    hit = cache.fetch(URL)
    hit.cancel()
    assert result(hit).origin is HIT


def test_a_fresh_request_is_fetched_and_replaces_the_stored_outcome(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    waiting = cache.fetch(URL)
    fetcher.respond(60)
    assert result(waiting).size == 6
    fetcher.reactor.advance(50)
    fresh = cache.fetch(URL, fresh=True)
    assert len(fetcher.going_on) == 1
    fetcher.respond(60, chunks=[[b"new"]])
    renewed = result(fresh)
    assert (renewed.origin, renewed.size) == (MISS, 3)
    fetcher.reactor.advance(50)
    hit = result(cache.fetch(URL))
    assert (hit.origin, hit.size) == (HIT, 3)


def test_a_fresh_request_does_not_share_its_fetch(fetcher: FakeFetcher, cache: FetchCache) -> None:
    first = cache.fetch(URL)
    fresh = [cache.fetch(URL, fresh=True) for _ in range(2)]
    joining = cache.fetch(URL)
    assert len(fetcher.fetches) == 3
    fresh[0].cancel()
    assert isinstance(error(fresh[0]), CancelledError)
    assert [fetch.cancelled for fetch in fetcher.fetches] == [False, True, False]
    fetcher.respond(index=1, chunks=[[b"new"]])
    own = result(fresh[1])
    assert (own.origin, own.size) == (MISS, 3)
    assert (first.called, joining.called) == (False, False)
    fetcher.respond()
    assert (result(first).origin, result(joining).origin) == (MISS, SHARED)


def test_a_request_during_a_fresh_one_gets_the_stored_outcome(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    waiting = cache.fetch(URL)
    fetcher.respond(60)
    assert result(waiting).origin is MISS
    fresh = cache.fetch(URL, fresh=True)
    assert result(cache.fetch(URL)).origin is HIT
    fetcher.respond(60)
    assert result(fresh).origin is MISS


def urls(count: int) -> list[Url]:
    return [parse_url(f"http://example.org/{n}") for n in range(count)]


def test_the_most_recently_used_outcomes_are_stored(fetcher: FakeFetcher) -> None:
    cache = FetchCache(fetcher, LIMITS, max_outcomes=3)  # type: ignore[arg-type]
    several = urls(4)
    for url in several[:3]:
        waiting = cache.fetch(url)
        fetcher.respond(60)
        assert result(waiting).origin is MISS
    assert result(cache.fetch(several[0])).origin is HIT  # so that the second is the oldest
    waiting = cache.fetch(several[3])
    fetcher.respond(60)
    assert result(waiting).origin is MISS
    for n in (0, 2, 3):
        assert result(cache.fetch(several[n])).origin is HIT
    again = cache.fetch(several[1])
    assert len(fetcher.going_on) == 1
    fetcher.respond(0)  # which is not stored again
    assert result(again).origin is MISS
    for n in (0, 2, 3):
        assert result(cache.fetch(several[n])).origin is HIT


def test_a_replaced_outcome_is_counted_once(fetcher: FakeFetcher) -> None:
    cache = FetchCache(fetcher, LIMITS, max_outcomes=2)  # type: ignore[arg-type]
    first, second = urls(2)
    for url in (first, second, second, second):
        waiting = cache.fetch(url, fresh=True)
        fetcher.respond(60)
        assert result(waiting).origin is MISS
    assert result(cache.fetch(first)).origin is HIT


def test_at_most_a_thousand_outcomes_are_stored(fetcher: FakeFetcher, cache: FetchCache) -> None:
    many = urls(MAX_OUTCOMES + 1)
    for url in many:
        waiting = cache.fetch(url)
        fetcher.respond(60)
        assert result(waiting).origin is MISS
    assert result(cache.fetch(many[1])).origin is HIT
    waiting = cache.fetch(many[0])
    assert not waiting.called
    fetcher.respond(0)
    assert result(waiting).origin is MISS


def test_a_callback_may_begin_the_same_request_again(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    again: list[Deferred[FetchOutcome]] = []
    cache.fetch(URL).addCallback(lambda _: again.append(cache.fetch(URL)))
    fetcher.respond()
    assert len(fetcher.fetches) == 2
    fetcher.respond()
    assert result(again[0]).origin is MISS


@pytest.mark.parametrize("leaving", [1, 100])
def test_with_a_real_fetcher_one_request_is_made_for_all(
    make: Callable[..., World], leaving: int
) -> None:
    """Case 31."""
    world = make(connections=1)
    cache = FetchCache(world.fetcher, LIMITS)
    waiting = [cache.fetch(URL) for _ in range(100)]
    outcomes = [outcome(each) for each in waiting]
    world.advance(1)
    peer = world.accept()
    world.advance(2)
    peer.send(head(Content_Length="5", Cache_Control="max-age=60") + b"hel")
    for each in waiting[:leaving]:
        each.cancel()
    world.network.turn()
    assert peer.aborted is (leaving == 100)
    if leaving < 100:
        peer.send(b"lo")
        world.network.turn()
        came: Any = outcomes[99][0]
        timings = Timings(None, None, 1.0, None, 3.0, 3.0)
        assert came == FetchOutcome(str(URL), 200, 5, timings, SHARED)
        assert result(cache.fetch(URL)).origin is HIT
    assert len(peer.requests) == 1
    assert world.fetcher.fetches == 0


def test_a_callback_may_cancel_other_waiters(fetcher: FakeFetcher, cache: FetchCache) -> None:
    first, second, third = (cache.fetch(URL) for _ in range(3))
    outcomes = [outcome(second), outcome(third)]
    first.addCallback(lambda _: second.cancel())
    fetcher.respond()
    assert all(outcomes)  # the third waits for ever


def test_an_older_fetch_does_not_replace_the_outcome_of_a_newer_one(
    fetcher: FakeFetcher, cache: FetchCache
) -> None:
    older = cache.fetch(URL)
    fetcher.reactor.advance(5)
    newer = cache.fetch(URL, fresh=True)
    fetcher.respond(60, index=1, chunks=[[b"new"]])
    fetcher.respond(60, chunks=[[b"older"]])
    assert result(older).size == 5
    assert result(newer).size == 3
    assert result(cache.fetch(URL)).size == 3


@pytest.mark.parametrize("asking", [1000, 5000])
def test_thousands_of_waiters_get_the_result_and_cancelled_ones_do_not_interfere(
    fetcher: FakeFetcher, cache: FetchCache, asking: int
) -> None:
    """Case 31: each callback begins the next request, as pipelined requests do."""
    again: list[Deferred[FetchOutcome]] = []

    def ask_again(told: FetchOutcome) -> FetchOutcome:
        again.append(cache.fetch(URL))
        return told

    waiting = [cache.fetch(URL).addCallback(ask_again) for _ in range(asking)]
    for each in waiting[1::2]:
        each.cancel()
        assert isinstance(error(each), CancelledError)
    fetcher.respond()
    assert all(result(each).status == 200 for each in waiting[::2])
    assert (len(again), len(fetcher.going_on)) == (asking // 2, 1)
    fetcher.fail(UpstreamFailed("no"))
    assert all(isinstance(error(each), UpstreamFailed) for each in again)


def test_leaving_costs_the_same_however_many_wait(fetcher: FakeFetcher, cache: FetchCache) -> None:
    """Case 31: a client closes its connections, and all its requests are cancelled at once."""
    waiting = [cache.fetch(URL) for _ in range(20_000)]
    begun_s = time.process_time()
    for each in reversed(waiting):
        each.cancel()
    taken_s = time.process_time() - begun_s
    assert all(isinstance(error(each), CancelledError) for each in waiting)
    assert fetcher.fetches[0].cancelled
    assert taken_s < 1

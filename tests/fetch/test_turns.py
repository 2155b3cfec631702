"""What upstreams send, and each further request to one, takes turns when the loop is busy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.python.failure import Failure

from tests.fetch.reactor import LONG, PUBLIC, RECEIVE_BYTES, Asked, Network, Peer, World, head
from tests.http.connection import outcome
from tests.turning import TurningClock
from twistedmedia.errors import Busy, UpstreamFailed, UpstreamTooSlow
from twistedmedia.fairness.loop_queue import TURN_OF_FEW_S, LoopQueue, Step
from twistedmedia.fetch.cache import FetchCache
from twistedmedia.fetch.download import Download
from twistedmedia.fetch.fetcher import FetchLimits, Upstream
from twistedmedia.fetch.urls import parse_url
from twistedmedia.http.heads import MAX_FIELDS, MAX_INTERIM

URL = "http://example.org/a.mp3"
CROWD, NORMAL = "192.0.2.66", "192.0.2.1"
MANY = 50
WHOLE = head(Content_Length="5") + b"hello"
REDIRECT = head(302, Location="/b", Content_Length="0")
REDIRECT_WITH_CONTENT = head(302, Location="/b") + b"x" * RECEIVE_BYTES
ENDLESS = b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * (4 * MAX_FIELDS)
INTERIM = head(103) * (MAX_INTERIM + 1)


class BusyNetwork(TurningClock, Network):
    """A network whose loop takes one turn at a time."""

    def one_turn(self) -> None:
        """Make the calls that are due now, and none that they lead to."""
        TurningClock.turn(self)

    def turn(self) -> None:
        """Whatever is due now is done."""
        while any(call.getTime() <= self.rightNow for call in self.getDelayedCalls()):
            self.one_turn()


class NotedQueue(LoopQueue):
    """Notes whose steps ran, in their order. Each takes a whole turn, and none runs at once."""

    def __init__(self, network: BusyNetwork) -> None:
        super().__init__(network)
        self.ran: list[str] = []
        self._network = network

    def has_time_within(self, turn_s: float) -> bool:
        return False

    def add(self, client: str, step: Step, *, is_first: bool = False) -> None:
        def noted() -> None:
            self.ran.append(client)
            self._network.spend(TURN_OF_FEW_S)
            step()

        super().add(client, noted, is_first=is_first)


class Loop:
    """Fetches of a crowd, and one of a normal client, on a loop that is busy."""

    def __init__(self, make: Callable[..., World], connections: int = 100, **options: Any) -> None:
        self.network = BusyNetwork()
        self.queue = NotedQueue(self.network)
        self.world = make(
            network=self.network, queue=self.queue, connections=connections, **options
        )

    def connect(
        self, count: int = MANY, host: str = "example.org"
    ) -> tuple[list[Asked], list[Peer]]:
        """Begin fetches of the crowd, and one more of the normal client."""
        self.world.names.table[host] = [PUBLIC]
        callers = [CROWD] * count + [NORMAL]
        asked = [self.world.ask(f"http://{host}/", LONG, caller=each) for each in callers]
        peers = [attempt.accept() for attempt in self.network.pending]
        self.queue.ran.clear()
        return asked, peers

    def turn(self) -> None:
        """Take one turn."""
        self.network.one_turn()

    def finish(self) -> None:
        """Take turns until nothing is left to do."""
        self.network.turn()


@pytest.fixture
def loop(make: Callable[..., World]) -> Loop:
    return Loop(make)


@pytest.mark.parametrize(
    "sent", [WHOLE, ENDLESS, INTERIM, b"x" * RECEIVE_BYTES, REDIRECT, REDIRECT_WITH_CONTENT]
)
def test_heads_that_come_at_once_take_one_turn_each(loop: Loop, sent: bytes) -> None:
    """Case 85: as does what follows from them, the next request or the end of the fetch."""
    asked, peers = loop.connect()
    for peer in peers:
        peer.send(sent)
    for turn in range(1, 2 * MANY):
        loop.turn()
        over = sum(bool(each.outcome) for each in asked)
        requests = sum(len(peer.requests) for peer in peers) + len(loop.network.pending)
        assert over + requests - len(peers) <= turn
        assert len(loop.queue.ran) <= turn
    assert loop.queue.ran.index(NORMAL) <= 1  # in the turn of its own client
    for each in asked:
        if not each.outcome:
            each.work.cancel()
    loop.finish()


def test_responses_of_the_own_upstream_take_turns_of_those_who_ask(
    make: Callable[..., World],
) -> None:
    loop = Loop(make, upstream=Upstream(parse_url(URL)))
    loop.world.names.table["example.org"] = [PUBLIC]
    asked = [loop.world.ask(None, LONG, caller=each) for each in [CROWD] * MANY + [NORMAL]]
    for attempt in loop.network.pending:
        attempt.accept().send(WHOLE)
    loop.queue.ran.clear()
    for _ in range(2):
        loop.turn()
    assert asked[-1].outcome
    loop.finish()


def test_what_was_received_before_the_end_is_passed_on_though_its_reader_had_paused(
    make: Callable[..., World],
) -> None:
    """Else nobody would ever hear of the end."""
    loop = Loop(make)
    [asked], [peer] = loop.connect(count=0)
    peer.send(head(Transfer_Encoding="chunked"))
    loop.finish()
    peer.send(b"5\r\nhello\r\n")
    peer.protocol._wrappedProtocol.pauseProducing()  # as its reader does
    peer.close()
    loop.finish()
    assert asked.outcome


def test_a_long_head_takes_several_turns_of_its_caller(loop: Loop) -> None:
    """Case 85."""
    asked, peers = loop.connect()
    long = head(Content_Length="5", **{f"X_{n}": "x" * 200 for n in range(100)}) + b"hello"
    for peer in peers:
        peer.send(long)
    loop.finish()
    assert [each.whole for each in asked] == [b"hello"] * len(asked)
    steps = loop.queue.ran.count(NORMAL)
    assert steps > 5
    # First steps of the crowd's other responses have turns apart from its further ones.
    assert loop.queue.ran[: 3 * steps].count(NORMAL) >= steps - 1


def test_each_interim_response_is_a_step(loop: Loop) -> None:
    """Case 85: Twisted logs each of them, which takes longer than to read it."""
    asked, [peer] = loop.connect(0)
    peer.send(head(103) * MAX_INTERIM + WHOLE)
    loop.finish()
    assert asked[0].whole == b"hello"
    assert len(loop.queue.ran) == MAX_INTERIM + 1


@pytest.mark.parametrize("piece", [b"x", b"x" * 100, b"x" * 512, b"\r\n" * 256])
def test_content_in_small_pieces_takes_turns(loop: Loop, piece: bytes) -> None:
    """Case 85: a read of one byte costs as much as one of 64 KiB."""
    asked, [peer] = loop.connect(0)
    peer.send(head(Content_Length=str(20 * len(piece))))
    loop.finish()
    assert asked[0].response is not None
    for _ in range(20):
        peer.send(piece)
    assert asked[0].response.body.received == 0
    assert (peer.paused, peer.unread) == (True, 18 * len(piece))
    loop.finish()
    assert asked[0].whole == 20 * piece


def test_plain_content_in_large_pieces_passes_at_once(loop: Loop) -> None:
    asked, [peer] = loop.connect(0)
    peer.send(head(Content_Length=str(2 * RECEIVE_BYTES)))
    loop.finish()
    assert asked[0].response is not None
    steps = len(loop.queue.ran)
    peer.send(b"\r\n" * RECEIVE_BYTES)
    assert asked[0].response.body.received == 2 * RECEIVE_BYTES
    assert asked[0].outcome
    assert len(loop.queue.ran) == steps


@pytest.mark.parametrize("chunks", [1, 20, 100, 128, 1000])
def test_small_chunks_take_turns_however_few_come_at_a_time(loop: Loop, chunks: int) -> None:
    """Case 85."""
    asked, [peer] = loop.connect(0)
    peer.send(head(Transfer_Encoding="chunked"))
    loop.finish()
    assert asked[0].response is not None
    for _ in range(10):
        peer.send(b"1\r\nx\r\n" * chunks)
    assert asked[0].response.body.received == 0
    peer.send(b"0\r\n\r\n")
    loop.finish()
    assert asked[0].whole == b"x" * 10 * chunks


def test_fetches_that_get_their_places_at_once_begin_in_turn(make: Callable[..., World]) -> None:
    """Case 85."""
    loop = Loop(make, connections=8)
    held = [loop.world.ask(URL, LONG, caller=CROWD) for _ in range(8)]
    others = [loop.world.ask(URL, LONG, caller=f"192.0.2.{n}") for n in range(1, 6)]
    attempts, waiting = len(loop.network.attempts), loop.world.fetcher.slots.waiting
    assert waiting > 3
    for each in held:
        each.work.cancel()
    assert len(loop.network.attempts) == attempts
    for turn in range(1, waiting + 1):
        loop.turn()
        assert len(loop.network.attempts) == attempts + turn
    for each in others:
        each.work.cancel()
    loop.finish()


def test_an_import_begins_in_the_turn_of_its_caller(loop: Loop) -> None:
    """Case 85."""
    downloads = [Download(loop.world.fetcher, parse_url(URL), LONG, CROWD) for _ in range(5)]
    entering = [ensureDeferred(each.__aenter__()) for each in downloads]
    for turn in range(1, 6):
        loop.turn()
        assert len(loop.network.attempts) == turn
    for each in entering:
        each.addErrback(lambda reason: reason.trap(CancelledError))
        each.cancel()
    loop.finish()


def test_a_redirected_fetch_that_is_cancelled_before_its_turn_makes_no_request(loop: Loop) -> None:
    asked, peers = loop.connect(0)
    peers[0].send(REDIRECT)
    loop.turn()
    assert (asked[0].outcome, len(peers[0].requests)) == ([], 1)
    asked[0].work.cancel()
    assert isinstance(asked[0].error, CancelledError)
    loop.finish()
    assert len(peers[0].requests) == 1


def test_a_redirected_fetch_may_be_late_before_its_turn(loop: Loop) -> None:
    asked = loop.world.ask(URL, FetchLimits(total_s=1000, head_s=TURN_OF_FEW_S / 2))
    peer = loop.world.accept()
    peer.send(REDIRECT)
    loop.finish()
    assert isinstance(asked.error, UpstreamTooSlow)
    assert len(peer.requests) == 1


@pytest.mark.parametrize("sent", [WHOLE, ENDLESS])
def test_a_fetch_that_ends_before_its_head_has_its_turn_leaves_nothing(
    loop: Loop, sent: bytes
) -> None:
    asked, peers = loop.connect(0)
    peers[0].send(sent)
    asked[0].work.cancel()
    loop.finish()
    assert isinstance(asked[0].error, CancelledError)
    assert not peers[0].connected
    assert loop.world.fetcher.fetches == 0


def asked_together(loop: Loop, callers: list[str]) -> list[list[object]]:
    """Requests that share a fetch, each of whose answers takes a turn of the loop."""
    sharing = FetchCache(loop.world.fetcher, LONG)

    def answered(result: object) -> object:
        loop.network.spend(TURN_OF_FEW_S)
        return result

    asked = [sharing.ask(parse_url(URL), caller) for caller in callers]
    return [outcome(each.addBoth(answered)) for each in asked]


def test_all_that_wait_for_one_fetch_are_answered_in_turns_of_their_callers(loop: Loop) -> None:
    """Case 85."""
    outcomes = asked_together(loop, [CROWD] * MANY + [NORMAL])
    [attempt] = loop.network.pending
    attempt.accept().send(WHOLE)
    for turn in range(1, 5):
        loop.turn()
        assert sum(map(bool, outcomes)) <= turn
    assert outcomes[-1]  # whatever the crowd
    loop.finish()
    assert all(outcomes)


def test_all_that_wait_for_one_fetch_are_refused_in_turns_of_their_callers(
    make: Callable[..., World],
) -> None:
    """Case 85."""
    loop = Loop(make, connections=1)
    busy = loop.world.ask("http://other.org/", LONG, caller=CROWD)
    outcomes = asked_together(loop, [CROWD] * MANY)
    for turn in range(1, 5):
        loop.turn()
        assert sum(map(bool, outcomes)) <= turn
    loop.finish()
    for [failure] in outcomes:
        assert isinstance(failure, Failure)
        assert isinstance(failure.value, Busy)
    busy.work.cancel()
    loop.finish()


@pytest.mark.parametrize("beyond", [0, 1])
@pytest.mark.parametrize("interim", [0, 3])
def test_the_head_of_a_response_has_a_limit_of_lines(
    world: World, beyond: int, interim: int
) -> None:
    """Case 22, in those of interim responses as well."""
    asked = world.ask(URL)
    peer = world.accept()
    fields = b"a:\r\n" * (MAX_FIELDS - 1 - interim + beyond)
    peer.send(head(103, Link="</a>") * interim)
    peer.send(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 5\r\n\r\nhello")
    world.network.turn()
    if beyond:
        assert type(asked.error) is UpstreamFailed
        assert f"{MAX_FIELDS} header lines" in str(asked.error)
        assert not peer.connected
    else:
        assert asked.whole == b"hello"

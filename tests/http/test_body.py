"""The content that streams to a handler: what it holds, when it wakes, how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred

from tests.http.connection import outcome, result
from twistedmedia.errors import Malformed
from twistedmedia.http.body import EACH_BYTES, TOTAL_BYTES, Body, BodyMemory, body_of

WORTH_BYTES = 256 << 10
OVERHEAD_BYTES = 64

SHARING = bytes(17 << 10)  # enough to take a share of the memory of all


class Flow:
    """Records what a body asks of its connection."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def hold(self) -> None:
        self.asked.append("hold")

    def release(self) -> None:
        self.asked.append("release")

    def send_continue(self) -> None:
        self.asked.append("continue")

    def pace(self) -> float | None:
        return 7.0

    def give_way(self) -> None:
        self.asked.append("give way")

    @property
    def steps(self) -> list[str]:
        """What was asked about the flow."""
        return [what for what in self.asked if what != "continue"]


@pytest.fixture
def flow() -> Flow:
    return Flow()


@pytest.fixture
def memory() -> BodyMemory:
    return BodyMemory()


@pytest.fixture
def body(memory: BodyMemory, flow: Flow) -> Body:
    return Body(None, memory, flow)


def reading(body: Body) -> Deferred[list[bytes]]:
    return ensureDeferred(body.read())


def read(body: Body) -> list[bytes]:
    return result(reading(body))


def test_what_is_fed_is_read_in_order_to_its_end(body: Body) -> None:
    async def whole() -> list[bytes]:
        return [chunk async for chunks in body for chunk in chunks]

    pieces = [bytes([n]) * 100_000 for n in range(20)]
    all_read = outcome(ensureDeferred(whole()))
    for piece in pieces:
        assert not all_read
        body.feed(piece)
    body.end()
    assert [b"".join(chunks) for chunks in all_read] == [b"".join(pieces)]
    assert (body.received, body.is_complete) == (2_000_000, True)
    assert read(body) == []
    assert read(body) == []


def test_the_peer_is_held_from_one_mebibyte_unread_on(body: Body, flow: Flow) -> None:
    body.feed(bytes(EACH_BYTES - OVERHEAD_BYTES - 1))
    assert flow.asked == []
    body.feed(b"x")
    assert flow.asked == ["hold"]


def test_each_further_piece_says_again_that_the_peer_is_held(body: Body, flow: Flow) -> None:
    for _ in range(3):
        body.feed(bytes(EACH_BYTES))
    assert flow.asked == ["hold"] * 3


def test_a_read_lets_a_held_peer_go_on_once(body: Body, flow: Flow) -> None:
    body.feed(bytes(EACH_BYTES))
    body.feed(b"more")
    assert list(map(len, read(body))) == [EACH_BYTES, 4]
    assert flow.steps == ["hold", "hold", "release"]
    waiting = reading(body)
    assert flow.steps == ["hold", "hold", "release"]
    body.feed(bytes(EACH_BYTES))
    assert result(waiting)
    assert flow.steps == ["hold", "hold", "release", "hold", "release"]


def test_a_peer_that_was_never_held_is_not_released(body: Body, flow: Flow) -> None:
    body.feed(bytes(WORTH_BYTES))
    read(body)
    body.end()
    read(body)
    body.discard()
    assert flow.steps == []


@pytest.mark.parametrize("fed", [1, 1000, WORTH_BYTES - OVERHEAD_BYTES - 1])
def test_a_reader_is_not_woken_for_little(body: Body, fed: int) -> None:
    woken = outcome(reading(body))
    body.feed(bytes(fed))
    assert woken == []
    body.feed(bytes(WORTH_BYTES - OVERHEAD_BYTES - fed))
    assert len(woken) == 1


def test_the_end_wakes_a_reader_for_whatever_there_is(body: Body) -> None:
    woken = outcome(reading(body))
    body.feed(b"little")
    body.end()
    assert woken == [[b"little"]]
    assert read(body) == []


def test_a_content_of_nothing_ends_at_once(body: Body, memory: BodyMemory) -> None:
    """Case 7."""
    body.end()
    assert read(body) == []
    assert (body.received, memory.allowance) == (0, EACH_BYTES)


def test_no_empty_chunk_is_ever_read(body: Body) -> None:
    for piece in (b"", b"a" * 5000, b"", b"b" * 5000, b""):
        body.feed(piece)
    body.end()
    assert read(body) == [b"a" * 5000, b"b" * 5000]


def test_many_tiny_chunks_are_joined(body: Body) -> None:
    for n in range(1000):
        body.feed(b"%03d" % n)
    body.end()
    assert read(body) == [b"".join(b"%03d" % n for n in range(1000))]


@pytest.mark.parametrize(("size", "joined"), [(4095, True), (4096, False)])
def test_chunks_of_a_page_stay_as_they_are(body: Body, size: int, joined: bool) -> None:
    for _ in range(10):
        body.feed(bytes(size))
    body.end()
    assert len(read(body)) == (1 if joined else 10)


def test_tiny_chunks_count_with_what_they_take_in_memory(body: Body, flow: Flow) -> None:
    """Case 15: a chunked content of single bytes."""
    for _ in range(EACH_BYTES // (OVERHEAD_BYTES + 1)):
        body.feed(b"x")
    assert flow.asked == []
    body.feed(b"x")
    assert flow.asked == ["hold"]


@pytest.mark.parametrize(
    ("bodies", "allowance"),
    [(1, EACH_BYTES), (8, EACH_BYTES), (16, EACH_BYTES // 2), (64, EACH_BYTES // 8)],
)
def test_bodies_share_what_all_may_hold(
    memory: BodyMemory, flow: Flow, bodies: int, allowance: int
) -> None:
    """Case 15."""
    flows = [Flow() for _ in range(bodies)]
    many = [Body(None, memory, each) for each in flows]
    for body in many:
        body.feed(SHARING)
    assert memory.allowance == allowance
    assert bodies * allowance * 2 <= TOTAL_BYTES
    many[0].feed(bytes(allowance - len(SHARING) - 2 * OVERHEAD_BYTES - 1))
    assert flows[0].asked == []
    many[0].feed(b"x")
    assert flows[0].asked == ["hold"]
    assert not any(each.asked for each in flows[1:])


def test_a_small_allowance_makes_a_little_worth_reading(memory: BodyMemory) -> None:
    bodies = [Body(None, memory, Flow()) for _ in range(64)]
    for body in bodies:
        body.feed(SHARING)
    half = memory.allowance // 2
    woken = outcome(reading(bodies[0]))
    bodies[0].feed(bytes(half - len(SHARING) - 2 * OVERHEAD_BYTES - 1))
    assert woken == []
    bodies[0].feed(b"x")
    assert len(woken) == 1


def test_a_body_held_at_a_small_allowance_flows_on_when_the_others_have_gone(
    memory: BodyMemory,
) -> None:
    flow = Flow()
    body = Body(None, memory, flow)
    others = [Body(None, memory, Flow()) for _ in range(63)]
    for other in others:
        other.feed(SHARING)
    body.feed(bytes(EACH_BYTES // 8))
    assert flow.asked == ["hold"]
    for other in others:
        other.discard()
    woken = outcome(reading(body))  # what is there is now less than is worth reading
    assert woken == []
    assert flow.steps == ["hold", "release"]
    body.feed(bytes(WORTH_BYTES))
    assert len(woken) == 1


def test_a_body_takes_its_share_when_it_holds_something_until_it_is_dropped(
    memory: BodyMemory,
) -> None:
    full = TOTAL_BYTES // (2 * 16)
    bodies = [Body(None, memory, Flow()) for _ in range(16)]
    assert memory.allowance == EACH_BYTES
    for body in bodies:
        body.feed(b"next to nothing")
    assert memory.allowance == EACH_BYTES
    for body in bodies:
        body.feed(SHARING)
        body.feed(b"b")
        body.end()
        read(body)
    assert memory.allowance == full
    for body in bodies:
        body.discard()
        body.discard()
        body.feed(b"late")
    assert memory.allowance == EACH_BYTES


def test_a_drop_throws_away_what_is_there_and_what_comes(
    body: Body, flow: Flow, memory: BodyMemory
) -> None:
    body.feed(bytes(EACH_BYTES))
    body.discard()
    assert flow.asked == ["hold", "release"]
    body.feed(bytes(2 * EACH_BYTES))
    body.end()
    assert flow.asked == ["hold", "release"]
    assert body.received == 3 * EACH_BYTES
    assert read(body) == []


def test_every_read_asks_for_the_content_and_nothing_before_it_does(body: Body, flow: Flow) -> None:
    body.feed(b"unasked")
    assert flow.asked == []
    waiting = outcome(reading(body))
    assert flow.asked == ["continue"]
    body.end()
    assert waiting == [[b"unasked"]]


def test_a_failure_comes_after_the_last_chunk_before_it_and_stays(body: Body) -> None:
    body.feed(b"the last")
    body.fail(Malformed("broken"))
    assert read(body) == [b"the last"]
    for _ in range(2):
        with pytest.raises(Malformed, match="broken"):
            read(body)


def test_a_failure_wakes_who_waits(body: Body) -> None:
    woken: list[Any] = outcome(reading(body))
    body.fail(Malformed("broken"))
    assert woken[0].check(Malformed)


def test_the_first_of_two_failures_counts(body: Body) -> None:
    body.fail(Malformed("first"))
    body.fail(Malformed("second"))
    with pytest.raises(Malformed, match="first"):
        read(body)


def test_a_body_that_has_ended_does_not_fail_any_more(body: Body) -> None:
    body.feed(b"whole")
    body.end()
    body.fail(ConnectionError("gone"))
    assert read(body) == [b"whole"]
    assert read(body) == []


def test_a_failed_and_dropped_body_says_why(body: Body) -> None:
    body.feed(b"some")
    body.fail(Malformed("broken"))
    body.discard()
    with pytest.raises(Malformed, match="broken"):
        read(body)


def test_a_reader_may_be_cancelled_and_another_read_on(body: Body) -> None:
    waiting = reading(body)
    body.feed(b"before")
    stopped: list[Any] = outcome(waiting)
    waiting.cancel()
    assert stopped[0].check(CancelledError)
    body.feed(b" after")
    body.end()
    assert b"".join(read(body)) == b"before after"


def test_a_request_of_another_site_is_told_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="MediaSite"):
        body_of(object())  # type: ignore[arg-type]


def test_a_body_hands_on_its_pace_and_that_it_is_to_give_way(body: Body, flow: Flow) -> None:
    """Case 86. Not when all of it has come: then it ends soon, and has cost what it costs."""
    assert body.pace() == 7.0
    body.give_way()
    assert flow.asked == ["give way"]
    body.end()
    body.give_way()
    assert flow.asked == ["give way"]

"""`Body`: how much it holds, when it wakes its reader, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred

from tests.http.connection import outcome, result
from twistedmedia.errors import Malformed
from twistedmedia.http.body import EACH_BYTES, TOTAL_BYTES, Body, BodyMemory, body_of

WAKE_BYTES = 256 << 10
OVERHEAD_BYTES = 64

COUNTED = bytes(17 << 10)  # enough to get a share of the memory


class Flow:
    """Records the calls of a body."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def hold(self) -> None:
        self.calls.append("hold")

    def release(self) -> None:
        self.calls.append("release")

    def send_continue(self) -> None:
        self.calls.append("continue")

    def pace(self) -> float | None:
        return 7.0

    def give_way(self) -> None:
        self.calls.append("give way")

    @property
    def steps(self) -> list[str]:
        """The calls that pause and resume the peer."""
        return [call for call in self.calls if call != "continue"]


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


def test_fed_bytes_are_read_in_order_up_to_the_end(body: Body) -> None:
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


def test_the_peer_is_paused_at_one_mebibyte_unread(body: Body, flow: Flow) -> None:
    body.feed(bytes(EACH_BYTES - OVERHEAD_BYTES - 1))
    assert flow.calls == []
    body.feed(b"x")
    assert flow.calls == ["hold"]


def test_each_further_piece_pauses_the_peer_again(body: Body, flow: Flow) -> None:
    for _ in range(3):
        body.feed(bytes(EACH_BYTES))
    assert flow.calls == ["hold"] * 3


def test_a_read_resumes_a_paused_peer_once(body: Body, flow: Flow) -> None:
    body.feed(bytes(EACH_BYTES))
    body.feed(b"more")
    assert list(map(len, read(body))) == [EACH_BYTES, 4]
    assert flow.steps == ["hold", "hold", "release"]
    waiting = reading(body)
    assert flow.steps == ["hold", "hold", "release"]
    body.feed(bytes(EACH_BYTES))
    assert result(waiting)
    assert flow.steps == ["hold", "hold", "release", "hold", "release"]


def test_a_peer_that_was_not_paused_is_not_resumed(body: Body, flow: Flow) -> None:
    body.feed(bytes(WAKE_BYTES))
    read(body)
    body.end()
    read(body)
    body.discard()
    assert flow.steps == []


@pytest.mark.parametrize("fed", [1, 1000, WAKE_BYTES - OVERHEAD_BYTES - 1])
def test_a_reader_is_not_woken_for_a_few_bytes(body: Body, fed: int) -> None:
    woken = outcome(reading(body))
    body.feed(bytes(fed))
    assert woken == []
    body.feed(bytes(WAKE_BYTES - OVERHEAD_BYTES - fed))
    assert len(woken) == 1


def test_the_end_wakes_a_reader_for_any_number_of_bytes(body: Body) -> None:
    woken = outcome(reading(body))
    body.feed(b"little")
    body.end()
    assert woken == [[b"little"]]
    assert read(body) == []


def test_empty_content_ends_at_once(body: Body, memory: BodyMemory) -> None:
    """Case 7."""
    body.end()
    assert read(body) == []
    assert (body.received, memory.allowance) == (0, EACH_BYTES)


def test_empty_chunks_are_not_read(body: Body) -> None:
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
def test_chunks_of_a_page_are_not_joined(body: Body, size: int, joined: bool) -> None:
    for _ in range(10):
        body.feed(bytes(size))
    body.end()
    assert len(read(body)) == (1 if joined else 10)


def test_tiny_chunks_count_with_their_overhead_in_memory(body: Body, flow: Flow) -> None:
    """Case 15: chunked content of single bytes."""
    for _ in range(EACH_BYTES // (OVERHEAD_BYTES + 1)):
        body.feed(b"x")
    assert flow.calls == []
    body.feed(b"x")
    assert flow.calls == ["hold"]


@pytest.mark.parametrize(
    ("bodies", "allowance"),
    [(1, EACH_BYTES), (8, EACH_BYTES), (16, EACH_BYTES // 2), (64, EACH_BYTES // 8)],
)
def test_bodies_share_the_memory(
    memory: BodyMemory, flow: Flow, bodies: int, allowance: int
) -> None:
    """Case 15."""
    flows = [Flow() for _ in range(bodies)]
    many = [Body(None, memory, each) for each in flows]
    for body in many:
        body.feed(COUNTED)
    assert memory.allowance == allowance
    assert bodies * allowance * 2 <= TOTAL_BYTES
    many[0].feed(bytes(allowance - len(COUNTED) - 2 * OVERHEAD_BYTES - 1))
    assert flows[0].calls == []
    many[0].feed(b"x")
    assert flows[0].calls == ["hold"]
    assert not any(each.calls for each in flows[1:])


def test_a_reader_is_woken_for_less_when_the_allowance_is_small(memory: BodyMemory) -> None:
    bodies = [Body(None, memory, Flow()) for _ in range(64)]
    for body in bodies:
        body.feed(COUNTED)
    half = memory.allowance // 2
    woken = outcome(reading(bodies[0]))
    bodies[0].feed(bytes(half - len(COUNTED) - 2 * OVERHEAD_BYTES - 1))
    assert woken == []
    bodies[0].feed(b"x")
    assert len(woken) == 1


def test_a_body_paused_at_a_small_allowance_resumes_when_the_others_have_gone(
    memory: BodyMemory,
) -> None:
    flow = Flow()
    body = Body(None, memory, flow)
    others = [Body(None, memory, Flow()) for _ in range(63)]
    for other in others:
        other.feed(COUNTED)
    body.feed(bytes(EACH_BYTES // 8))
    assert flow.calls == ["hold"]
    for other in others:
        other.discard()
    woken = outcome(reading(body))  # the unread bytes are too few for the larger allowance
    assert woken == []
    assert flow.steps == ["hold", "release"]
    body.feed(bytes(WAKE_BYTES))
    assert len(woken) == 1


def test_a_body_has_a_share_of_the_memory_from_17_kib_until_it_is_discarded(
    memory: BodyMemory,
) -> None:
    full = TOTAL_BYTES // (2 * 16)
    bodies = [Body(None, memory, Flow()) for _ in range(16)]
    assert memory.allowance == EACH_BYTES
    for body in bodies:
        body.feed(b"next to nothing")
    assert memory.allowance == EACH_BYTES
    for body in bodies:
        body.feed(COUNTED)
        body.feed(b"b")
        body.end()
        read(body)
    assert memory.allowance == full
    for body in bodies:
        body.discard()
        body.discard()
        body.feed(b"late")
    assert memory.allowance == EACH_BYTES


def test_discard_drops_unread_and_later_bytes(body: Body, flow: Flow, memory: BodyMemory) -> None:
    body.feed(bytes(EACH_BYTES))
    body.discard()
    assert flow.calls == ["hold", "release"]
    body.feed(bytes(2 * EACH_BYTES))
    body.end()
    assert flow.calls == ["hold", "release"]
    assert body.received == 3 * EACH_BYTES
    assert read(body) == []


def test_a_read_sends_100_continue_and_nothing_does_before(body: Body, flow: Flow) -> None:
    body.feed(b"unasked")
    assert flow.calls == []
    waiting = outcome(reading(body))
    assert flow.calls == ["continue"]
    body.end()
    assert waiting == [[b"unasked"]]


def test_a_failure_is_raised_after_the_last_chunk_and_by_each_later_read(body: Body) -> None:
    body.feed(b"the last")
    body.fail(Malformed("broken"))
    assert read(body) == [b"the last"]
    for _ in range(2):
        with pytest.raises(Malformed, match="broken"):
            read(body)


def test_a_failure_wakes_the_reader(body: Body) -> None:
    woken: list[Any] = outcome(reading(body))
    body.fail(Malformed("broken"))
    assert woken[0].check(Malformed)


def test_the_first_of_two_failures_counts(body: Body) -> None:
    body.fail(Malformed("first"))
    body.fail(Malformed("second"))
    with pytest.raises(Malformed, match="first"):
        read(body)


def test_a_complete_body_cannot_fail(body: Body) -> None:
    body.feed(b"whole")
    body.end()
    body.fail(ConnectionError("gone"))
    assert read(body) == [b"whole"]
    assert read(body) == []


def test_a_failed_and_discarded_body_raises_its_failure(body: Body) -> None:
    body.feed(b"some")
    body.fail(Malformed("broken"))
    body.discard()
    with pytest.raises(Malformed, match="broken"):
        read(body)


def test_a_read_may_be_cancelled_and_followed_by_another(body: Body) -> None:
    waiting = reading(body)
    body.feed(b"before")
    stopped: list[Any] = outcome(waiting)
    waiting.cancel()
    assert stopped[0].check(CancelledError)
    body.feed(b" after")
    body.end()
    assert b"".join(read(body)) == b"before after"


def test_a_request_of_a_foreign_site_is_refused_with_the_reason() -> None:
    with pytest.raises(RuntimeError, match="MediaSite"):
        body_of(object())  # type: ignore[arg-type]


def test_pace_and_give_way_are_passed_to_the_connection(body: Body, flow: Flow) -> None:
    """Case 86. A complete body does not give way: it ends soon anyway."""
    assert body.pace() == 7.0
    body.give_way()
    assert flow.calls == ["give way"]
    body.end()
    body.give_way()
    assert flow.calls == ["give way"]

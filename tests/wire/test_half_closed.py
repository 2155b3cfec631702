"""Case 51: peers that close their sending side, or the connection, after whole requests."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.wire.connection import Connection, chunked, content_of, outcome
from tests.wire.test_site import CHUNKED, GET, GOT, MIB, Gate, Serving, head, put, refuse
from twistedmedia.wire.admission import Bounds
from twistedmedia.wire.channel import HEADS_A_TURN

WHOLE = {
    "length": (put(5) + b"hello", b"hello"),
    "chunked": (CHUNKED + chunked(b"hello", 2), b"hello"),
    "nothing": (put(0), b""),
    "no content": (head(method="DELETE"), b""),
}
whole = pytest.mark.parametrize(("request_bytes", "content"), WHOLE.values(), ids=WHOLE)


class Noting:
    """A handler that notes what it has read."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    async def __call__(self, request: Any) -> bytes:
        self.contents.append(await content_of(request))
        return self.contents[-1]


# Half-closed connections


@whole
def test_a_half_closed_client_gets_its_response(request_bytes: bytes, content: bytes) -> None:
    gate = Gate()
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(request_bytes)
    connection.half_close()
    assert connection.connected
    gate.opened.callback(None)
    serving.clock.advance(0)
    (answer,) = connection.answers()
    assert answer.status == 200
    assert answer.content == content
    assert answer.headers["connection"] == "close"
    assert not connection.connected
    assert not connection.aborted
    serving.assert_nothing_stays()


def test_all_requests_before_the_close_are_answered() -> None:
    serving = Serving()
    connection = serving.connect()
    connection.send(GET + put(3) + b"abc" + GET)
    connection.half_close()
    assert [answer.content for answer in connection.answers()] == [GOT, b"abc", GOT]
    serving.assert_nothing_stays()


def test_more_heads_than_a_turn_of_the_loop_takes_are_answered() -> None:
    serving = Serving()
    connection = serving.connect()
    count = 3 * HEADS_A_TURN
    connection.send(GET * count)
    connection.half_close()
    serving.clock.pump([0] * count)
    assert connection.statuses() == [200] * count
    serving.assert_nothing_stays()


def test_requests_wait_for_a_half_closed_peer_that_does_not_take_its_responses() -> None:
    async def large(request: Any) -> bytes:
        return bytes(MIB)

    serving = Serving(large)
    connection = serving.connect(window=0)
    connection.send(head(method="GET") + GET + GET)
    connection.half_close()
    assert connection.answers() == []
    connection.take(2 * MIB)
    assert connection.statuses() == [200, 200, 200]
    serving.assert_nothing_stays()


def test_a_large_response_to_a_half_closed_client_arrives_whole() -> None:
    async def write_slowly(request: Any) -> bytes:
        for _ in range(8):
            request.write(bytes(MIB))
            turn: Deferred[None] = Deferred()
            serving.clock.callLater(1, turn.callback, None)
            await turn
        return b""

    serving = Serving(write_slowly)
    connection = serving.connect()
    connection.send(head(method="GET"))
    connection.half_close()
    serving.clock.pump([1] * 9)
    assert connection.received.count(b"\0") == 8 * MIB
    assert not connection.connected


@pytest.mark.parametrize(
    "begin",
    [put(6) + b"hello", put(6), CHUNKED + chunked(b"hello", 2)[:-1]],
    ids=["length", "no content", "chunked"],
)
def test_a_request_that_is_cut_before_its_last_byte_fails_at_once(begin: bytes) -> None:
    serving = Serving()
    connection = serving.connect()
    connection.send(begin)
    connection.half_close()
    assert connection.received == b""
    assert not connection.connected
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_a_chunked_request_that_is_cut_before_its_first_chunk_reaches_no_handler() -> None:
    serving = Serving()
    connection = serving.connect()
    connection.send(CHUNKED)
    connection.half_close()
    assert connection.received == b""
    assert not connection.connected
    assert serving.stream.requests == []
    serving.assert_nothing_stays()


@pytest.mark.parametrize("begin", [put(6)[:-1], b"G", b"\r\n", b""])
def test_a_head_that_is_cut_and_a_connection_without_one_end_at_once(begin: bytes) -> None:
    serving = Serving()
    connection = serving.connect()
    connection.send(begin)
    connection.half_close()
    assert connection.received == b""
    assert not connection.connected
    serving.assert_nothing_stays()


def test_what_is_cut_off_behind_a_whole_request_does_not_harm_it() -> None:
    gate = Gate()
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(put(3) + b"abc" + put(9) + b"cut")
    connection.half_close()
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert [answer.content for answer in connection.answers()] == [b"abc"]
    assert not connection.connected
    serving.assert_nothing_stays()


def test_what_is_malformed_before_the_close_is_refused() -> None:
    serving = Serving()
    connection = serving.connect()
    connection.send(put(3) + b"abc" + b"nonsense\r\n\r\n")
    connection.half_close()
    assert connection.statuses() == [200, 400]
    assert not connection.connected
    serving.assert_nothing_stays()


def test_an_early_response_is_not_waited_for_when_nothing_more_will_be_received() -> None:
    serving = Serving(refuse)
    connection = serving.connect()
    connection.send(put(9) + b"abc")
    assert connection.statuses() == [413]
    assert connection.connected
    connection.half_close()
    assert not connection.connected
    serving.assert_nothing_stays()


def test_an_idle_connection_ends_when_its_peer_closes() -> None:
    serving = Serving()
    connection = serving.connect()
    connection.send(GET)
    connection.half_close()
    assert connection.statuses() == [200]
    assert not connection.connected
    serving.assert_nothing_stays()


def test_a_plain_resource_answers_a_half_closed_client_too() -> None:
    serving = Serving()
    connection = serving.connect()
    connection.send(put(3, path="/plain") + b"abc")
    connection.half_close()
    assert connection.statuses() == [200]
    serving.assert_nothing_stays()


# Lost connections


@whole
def test_a_request_is_carried_out_though_its_connection_is_lost(
    request_bytes: bytes, content: bytes
) -> None:
    noting = Noting()
    gate = Gate(noting)
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(request_bytes)
    connection.leave()
    assert serving.stream.cancelled == 0
    assert len(serving.site.channels) == 1
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert noting.contents == [content]
    assert connection.received == b""
    serving.assert_nothing_stays()


def test_one_that_half_closed_first_is_carried_out_as_well() -> None:
    noting = Noting()
    gate = Gate(noting)
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(put(3) + b"abc")
    connection.half_close()
    connection.leave()
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert noting.contents == [b"abc"]
    serving.assert_nothing_stays()


def test_requests_behind_it_are_carried_out_and_those_that_only_read_are_passed_over() -> None:
    noting = Noting()
    gate = Gate(noting)
    serving = Serving(gate)
    connection = serving.connect()
    read = head(method="GET")
    connection.send(put(3) + b"abc" + read + put(3) + b"def" + put(9) + b"cut")
    connection.leave()
    gate.opened.callback(None)
    serving.clock.pump([0] * 4)
    assert noting.contents == [b"abc", b"def"]
    serving.assert_nothing_stays()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_request_that_changes_nothing_ends_with_its_connection(method: str) -> None:
    serving = Serving(Gate())
    connection = serving.connect()
    connection.send(head(method=method))
    connection.leave()
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_a_response_that_has_begun_ends_with_its_connection() -> None:
    async def begin(request: Any) -> bytes:
        request.write(b"begun")
        await Deferred()
        raise AssertionError

    serving = Serving(begin)
    connection = serving.connect()
    connection.send(head(method="POST"))
    connection.leave()
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_a_response_without_end_that_begins_after_the_connection_is_lost_is_ended() -> None:
    async def never_ends(request: Any) -> bytes:
        request.write(b"begun")
        await Deferred()
        raise AssertionError

    gate = Gate(never_ends)
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(head(method="POST"))
    connection.leave()
    gate.opened.callback(None)
    assert serving.stream.cancelled == 0
    serving.clock.advance(0)
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_a_plain_resource_is_told_of_a_lost_connection_as_always() -> None:
    serving = Serving()
    connection = serving.connect()
    connection.send(put(3, path="/plain") + b"ab")
    connection.leave()
    serving.assert_nothing_stays()


def test_what_is_cut_by_the_site_is_not_carried_out() -> None:
    serving = Serving(Gate())
    connection = serving.connect()
    connection.send(put(3) + b"abc")
    serving.site.disconnect()
    serving.clock.advance(0)
    assert connection.aborted
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_a_closing_site_waits_for_what_is_carried_out() -> None:
    gate = Gate()
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(put(3) + b"abc")
    connection.leave()
    closed = outcome(serving.site.close())
    serving.clock.advance(1)
    assert closed == []
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert closed == [None]
    serving.assert_nothing_stays()


def test_a_site_that_disconnects_ends_what_is_carried_out() -> None:
    serving = Serving(Gate())
    connection = serving.connect()
    connection.send(put(3) + b"abc")
    connection.leave()
    closed = outcome(serving.site.close())
    assert outcome(serving.site.disconnect()) == [None]
    assert closed == [None]
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_what_is_carried_out_counts_as_a_connection_of_its_client() -> None:
    """So that nobody can leave behind any number of requests."""
    gate = Gate()
    serving = Serving(gate, bounds=Bounds(per_address=1))
    connection = serving.connect()
    connection.send(put(3) + b"abc")
    connection.leave()
    second = serving.connect()
    serving.clock.advance(0)
    assert second.statuses() == [429]
    gate.opened.callback(None)
    serving.clock.pump([0, 10])
    third = serving.connect()
    third.send(GET)
    assert third.statuses() == [200]


@pytest.mark.parametrize("begin", [put(6) + b"hello", CHUNKED + chunked(b"hello", 2)[:-1]])
def test_a_request_that_is_not_whole_ends_with_its_connection(begin: bytes) -> None:
    serving = Serving()
    connection = serving.connect()
    connection.send(begin)
    connection.leave()
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_connections_share_nothing_of_this() -> None:
    """Of two clients one leaves and one stays."""
    gate = Gate()
    serving = Serving(gate)
    leaving, staying = serving.connect(), serving.connect()
    for each in (leaving, staying):
        each.send(put(3) + b"abc")
    leaving.leave()
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert _contents(staying) == [b"abc"]
    assert len(serving.site.channels) == 1


def _contents(connection: Connection) -> list[bytes]:
    return [answer.content for answer in connection.answers()]

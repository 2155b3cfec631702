"""Expensive input is spread over turns of the event loop, so that no client holds up others
(case 85).
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.connection import PEER, RECEIVE_BYTES, Connection, chunked
from tests.http.test_half_closed import Recording
from tests.http.test_site import CHUNKED, GET, GOT, Gate, Serving, head, length_of, put, refuse
from tests.turning import TurningClock
from twistedmedia.fairness.loop_queue import PAUSE_S, PIECE_BYTES, TURN_S
from twistedmedia.fairness.pace import MAX_BURST
from twistedmedia.http.addresses import parse_proxies
from twistedmedia.http.input import DENSE_BYTES
from twistedmedia.http.lingering import MOST_LINGERING
from twistedmedia.http.timeouts import Timeouts

LOOK_S = TURN_S / 10
TINY_CHUNKS = MAX_BURST - 100
TINY = chunked(bytes(TINY_CHUNKS), 1)[: -len(b"0\r\n\r\n")]
SOON_TURNS = 4
# What a client's request may wait for: the steps of one turn of the loop, and one of each client.
TURN_CHUNKS = 3_000
TURN_REQUESTS = 100


class Crowd:
    """Connections of one client, all of which send the same at once."""

    def __init__(self, serving: Serving, count: int, sent: bytes) -> None:
        self.connections = [serving.connect() for _ in range(count)]
        for connection in self.connections:
            connection.send(sent)

    @property
    def unread(self) -> int:
        return sum(connection.unread for connection in self.connections)

    @property
    def responses(self) -> int:
        return sum(connection.received.count(b"HTTP/1.1 ") for connection in self.connections)


@pytest.fixture
def clock() -> TurningClock:
    return TurningClock(LOOK_S)


def turns_until_response(clock: TurningClock, connection: Connection) -> int:
    """How many turns of the loop it takes until there is a response."""
    for turns in range(1, 1000):
        clock.turn()
        if connection.received:
            return turns
    raise AssertionError("no response in 1,000 turns")


def received(serving: Serving) -> int:
    return sum(request.body.received for request in serving.stream.requests if request.body)


@pytest.mark.parametrize("count", [1, 8, 40, 400])
def test_tiny_chunks_take_a_bounded_part_of_each_turn(clock: TurningClock, count: int) -> None:
    """Case 85."""
    serving = Serving(length_of, clock=clock)
    Crowd(serving, count, CHUNKED + TINY)
    most = before = 0
    for _ in range(400):
        clock.turn()
        most, before = max(most, received(serving) - before), received(serving)
    assert 0 < most < TURN_CHUNKS
    normal = serving.connect()
    normal.send(GET)
    assert turns_until_response(clock, normal) <= SOON_TURNS


def connected(serving: Serving, clock: TurningClock, asks_again: bool) -> tuple[Connection, float]:
    """A connection that has had a response if it `asks_again`, and for how long the site waits for
    its next request.
    """
    connection, timeouts = serving.connect(), Timeouts()
    if not asks_again:
        return connection, timeouts.header_s
    connection.send(GET)
    turns_until_response(clock, connection)
    connection.received = b""
    return connection, timeouts.idle_s


@pytest.mark.parametrize("asks_again", [False, True])
def test_a_request_that_waits_for_its_turn_is_not_late(
    clock: TurningClock, asks_again: bool
) -> None:
    """It was received completely and in time."""
    serving = Serving(clock=clock)
    connection, wait_s = connected(serving, clock, asks_again)
    queue = serving.site.queue
    queue.add(PEER.host, lambda: queue.do(lambda: clock.spend(1.0)), is_first=True)
    for _ in range(3):
        queue.add(PEER.host, lambda: clock.spend(1.1 * wait_s), is_first=True)
    connection.send(GET)
    assert turns_until_response(clock, connection) > 3
    assert connection.statuses() == [200]
    assert connection.connected


@pytest.mark.parametrize("asks_again", [False, True])
def test_a_request_that_waits_in_the_kernel_for_a_busy_loop_is_not_late(
    clock: TurningClock, monkeypatch: pytest.MonkeyPatch, asks_again: bool
) -> None:
    serving = Serving(clock=clock)
    monkeypatch.setattr(
        "twistedmedia.http.connection.unread_bytes", lambda transport: transport.unread
    )
    connection, wait_s = connected(serving, clock, asks_again)
    clock.spend(1.1 * wait_s)
    connection.send(GET)  # the loop looks at the time before it reads
    turns_until_response(clock, connection)
    assert connection.statuses() == [200]
    assert connection.connected


def test_tiny_chunks_behind_an_early_response_are_dropped_without_a_look_at_them(
    clock: TurningClock,
) -> None:
    """Case 85. The connection ends anyway, so the end of the content does not matter."""
    serving = Serving(refuse, clock=clock)
    crowd = Crowd(serving, MOST_LINGERING, CHUNKED + 10 * TINY)
    for _ in range(1000):
        clock.spend(PAUSE_S)
        clock.turn()
    assert crowd.responses == MOST_LINGERING
    assert crowd.unread == 0
    assert received(serving) < MOST_LINGERING * TINY_CHUNKS
    assert all(connection.bufferSize == PIECE_BYTES for connection in crowd.connections)
    normal = serving.connect()
    normal.send(GET)
    assert turns_until_response(clock, normal) <= SOON_TURNS


def test_content_behind_an_early_response_is_dropped_in_turns(clock: TurningClock) -> None:
    """Case 85. To read from all at once would take the event loop too long."""
    serving = Serving(refuse, clock=clock)
    crowd = Crowd(serving, MOST_LINGERING, put(3 << 20) + bytes(10 * RECEIVE_BYTES))
    while crowd.responses < MOST_LINGERING:
        clock.turn()
    for _ in range(SOON_TURNS):  # what was read before the last responses
        clock.turn()
    most, before = 0, crowd.unread
    while crowd.unread:
        clock.spend(PAUSE_S)
        clock.turn()
        most, before = max(most, before - crowd.unread), crowd.unread
    assert 0 < most <= 2 * PIECE_BYTES
    normal = serving.connect()
    normal.send(GET)
    assert turns_until_response(clock, normal) <= SOON_TURNS


@pytest.mark.parametrize(
    "request_bytes", [GET, put(0), put(3) + b"abc"], ids=["GET", "none", "PUT"]
)
@pytest.mark.parametrize("count", [30, 200])
def test_pipelined_requests_take_a_bounded_part_of_each_turn(
    clock: TurningClock, request_bytes: bytes, count: int
) -> None:
    """Case 85."""
    serving = Serving(clock=clock)
    crowd = Crowd(serving, count, request_bytes * 16)
    most = before = 0
    for _ in range(10):
        clock.turn()
        most, before = max(most, crowd.responses - before), crowd.responses
    assert 0 < most < TURN_REQUESTS
    normal = serving.connect()
    normal.send(GET)
    assert turns_until_response(clock, normal) <= SOON_TURNS
    assert crowd.responses < 16 * count
    while crowd.responses < 16 * count:
        before = crowd.responses
        for _ in range(100):
            clock.turn()
        assert crowd.responses > before


def test_all_clients_have_their_share_of_the_turns(clock: TurningClock) -> None:
    """Case 85. A client with few chunks does not wait for those of a crowd."""
    serving = Serving(length_of, clock=clock)
    crowd = Crowd(serving, 400, CHUNKED + TINY)
    other = type(PEER)("TCP", "192.0.2.9", 1)
    for _ in range(50):
        clock.turn()
    normal = serving.connect(peer=other)
    normal.send(CHUNKED + chunked(bytes(2_000), 1))
    assert turns_until_response(clock, normal) < 40
    assert normal.received.endswith(b"2000")
    assert crowd.responses == 0


def test_tiny_chunks_are_read_in_small_pieces_until_they_are_large_again() -> None:
    """Case 85. Input waits in memory."""
    serving = Serving(length_of)
    connection = serving.connect()
    assert connection.bufferSize == RECEIVE_BYTES
    connection.send(CHUNKED + TINY)
    assert connection.bufferSize == DENSE_BYTES
    connection.send(chunked(bytes(1 << 20), 1 << 18)[: -len(b"0\r\n\r\n")])
    assert connection.bufferSize == RECEIVE_BYTES
    connection.send(chunked(bytes(50), 1)[: -len(b"0\r\n\r\n")])
    assert connection.bufferSize == DENSE_BYTES
    connection.send(b"0\r\n\r\n")
    assert connection.bufferSize == RECEIVE_BYTES
    (answer,) = connection.answers()
    assert int(answer.content) == TINY_CHUNKS + 50 + (1 << 20)


@pytest.mark.parametrize("size", [1, 20, 300, 5000])
def test_content_in_chunks_of_any_size_arrives_whole(size: int) -> None:
    serving = Serving()
    connection = serving.connect()
    content = bytes(range(256)) * 20
    connection.send((CHUNKED + chunked(content, size) + GET) * 2)
    assert [answer.content for answer in connection.answers()] == [content, GOT] * 2


def test_a_client_that_the_service_lets_wait_is_not_too_slow(clock: TurningClock) -> None:
    """Cases 24 and 85."""
    serving = Serving(length_of, clock=clock)
    connection = serving.connect()
    connection.send(CHUNKED)
    clock.turn()
    (channel,) = serving.site.channels
    assert channel.waited_s() == 0
    connection.send(TINY)
    clock.turn()
    clock.spend(5)
    assert channel.waited_s() >= 5
    clock.turn()
    assert 0 < channel.waited_s() < 1


# Connections that end while their input waits


def whole(content: bytes) -> bytes:
    return CHUNKED + chunked(content, 1)


def waiting(clock: TurningClock, serving: Serving, sent: bytes) -> Connection:
    """A connection that has sent `sent`, of which a part still waits for its turn."""
    connection = serving.connect()
    connection.send(sent)
    while connection.unread:
        clock.turn()
    return connection


CONTENT = bytes(range(256)) * 20


def test_a_request_that_was_received_completely_is_carried_out_when_its_connection_is_lost(
    clock: TurningClock,
) -> None:
    """Cases 51 and 85."""
    noting = Recording()
    serving = Serving(noting, clock=clock)
    connection = waiting(clock, serving, whole(CONTENT) + whole(b"second"))
    assert received(serving) < len(CONTENT)
    connection.leave()
    for _ in range(100):
        clock.turn()
    assert noting.contents == [CONTENT]  # the pipelined request is dropped
    assert serving.stream.cancelled == 0
    assert connection.received == b""
    assert serving.site.channels == set()


def test_a_request_that_was_received_completely_is_answered_when_its_connection_is_half_closed(
    clock: TurningClock,
) -> None:
    """Cases 51 and 85."""
    serving = Serving(clock=clock)
    connection = waiting(clock, serving, whole(CONTENT) + GET)
    assert received(serving) < len(CONTENT)
    connection.half_close()
    for _ in range(100):
        clock.turn()
    assert [answer.content for answer in connection.answers()] == [CONTENT, GOT]
    assert not connection.connected
    assert serving.site.channels == set()


@pytest.mark.parametrize("sent", [put(5) + b"hello", put(5) + b"hell", put(5)])
def test_a_connection_may_be_lost_before_the_first_head_has_its_turn(
    clock: TurningClock, sent: bytes
) -> None:
    """Cases 51 and 85."""
    noting = Recording()
    serving = Serving(noting, clock=clock)
    Crowd(serving, 100, GET)
    connections = [serving.connect() for _ in range(10)]
    for connection in connections:
        connection.send(sent)
    clock.turn()
    assert serving.stream.requests == []
    for connection in connections:
        connection.leave()
    for _ in range(100):
        clock.turn()
    is_whole = sent.endswith(b"hello")
    assert noting.contents == [b"hello"] * len(connections) * is_whole
    assert len(serving.site.channels) == 100


@pytest.mark.parametrize("is_reset", [True, False])
def test_a_request_that_was_not_received_completely_is_not_carried_out(
    clock: TurningClock, is_reset: bool
) -> None:
    """Cases 1 and 85."""
    noting = Recording()
    serving = Serving(noting, clock=clock)
    connection = waiting(clock, serving, whole(CONTENT)[:-2])
    assert received(serving) < len(CONTENT)
    if is_reset:
        connection.leave()
    else:
        connection.half_close()
    for _ in range(100):
        clock.turn()
    assert noting.contents == []
    assert serving.stream.cancelled == 1
    assert connection.received == b""
    assert serving.site.channels == set()


@pytest.mark.parametrize("handler", [refuse, Gate()], ids=["answered", "safe"])
def test_unneeded_content_is_not_waited_for(clock: TurningClock, handler: Any) -> None:
    """Case 85. The request has its response already, or it only reads."""
    serving = Serving(handler, clock=clock)
    method = "PUT" if handler is refuse else "GET"
    request_head = head("Transfer-Encoding: chunked", method=method)
    connection = waiting(clock, serving, request_head + chunked(2 * CONTENT, 1))
    while handler is refuse and not connection.received:
        clock.turn()
    assert received(serving) < 2 * len(CONTENT)
    connection.leave()
    assert serving.site.channels == set()


def test_aborted_connections_leave_no_work(clock: TurningClock) -> None:
    serving = Serving(Recording(), clock=clock)
    waiting(clock, serving, whole(CONTENT))
    gone = serving.site.disconnect()
    for _ in range(100):
        clock.turn()
    assert gone.called
    assert serving.stream.cancelled == 1
    assert serving.site.channels == set()


def test_an_early_response_to_a_connection_that_is_lost_leaves_nothing() -> None:
    """Case 85. The rest of its content waited for its turn."""
    clock = TurningClock(0.004)
    gate = Gate(refuse)
    serving = Serving(gate, clock=clock)
    connection = waiting(clock, serving, CHUNKED + chunked(bytes(2000), 1))
    while not serving.stream.requests:
        clock.turn()
    connection.leave()
    assert len(serving.site.channels) == 1
    gate.opened.callback(None)
    clock.turn()
    assert serving.site.channels == set()
    assert serving.site.admission.shares.used == 0


@pytest.mark.parametrize("sent", [put(3) + b"a", put(3) + b"abc", GET], ids=["part", "PUT", "GET"])
def test_a_head_that_waits_for_its_turn_when_its_connection_is_lost_leaves_nothing(
    sent: bytes,
) -> None:
    """Case 85. The request cannot get its address from a closed socket."""
    clock = TurningClock(2 * TURN_S)
    serving = Serving(clock=clock)
    first, connection = serving.connect(), serving.connect()
    first.send(GET)
    connection.send(sent)
    clock.turn()
    assert connection.unread == 0
    connection.leave()
    for _ in range(20):
        clock.turn()
    assert first.statuses() == [200]
    assert len(serving.site.channels) == 1


def test_an_exception_in_a_step_of_the_queue_ends_its_connection(
    clock: TurningClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = Serving(length_of, clock=clock)
    waiting(clock, serving, whole(CONTENT))
    (channel,) = serving.site.channels

    def broken(data: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(
        channel.input, "_decoder", type("Broken", (), {"feed": broken, "is_dense": True})
    )
    with pytest.raises(ZeroDivisionError):
        clock.turn()
    for _ in range(10):
        clock.turn()
    assert serving.site.channels == set()


def test_behind_a_proxy_a_head_waits_for_the_turn_of_its_own_client() -> None:
    """Case 85. It does not wait for the turns of another client of the same connection."""
    clock = TurningClock(2 * TURN_S)
    serving = Serving(clock=clock, proxies=parse_proxies([PEER.host]))
    of_many = GET[:-2] + b"X-Forwarded-For: 192.0.2.7\r\n\r\n"
    crowd = Crowd(serving, 40, of_many)
    while crowd.responses < 40:
        clock.turn()
    for connection in crowd.connections[:-1]:
        connection.send(of_many)
    connection = crowd.connections[-1]
    connection.received = b""
    connection.send(GET[:-2] + b"x-forwarded-for:192.0.2.8\r\n\r\n")
    assert turns_until_response(clock, connection) <= 2 * SOON_TURNS


# Chunks that are too small for their number


def test_tiny_chunks_that_arrive_faster_than_speech_are_refused() -> None:
    """Case 85."""
    serving = Serving(length_of)
    connection = serving.connect()
    connection.send(CHUNKED + TINY + TINY)
    (answer,) = connection.answers()
    assert answer.status == 400
    assert b"send larger chunks" in answer.content
    assert answer.headers["connection"] == "close"
    connection.leave()
    serving.assert_nothing_stays()


@pytest.mark.parametrize("size", [13, 33, 160])
def test_live_speech_may_arrive_for_hours_with_one_frame_in_each_chunk(size: int) -> None:
    serving = Serving(length_of)
    connection = serving.connect()
    a_second = chunked(bytes(50 * size), size)[: -len(b"0\r\n\r\n")]
    connection.send(CHUNKED)
    for _ in range(3 * 3600):
        connection.send(a_second)
        serving.clock.advance(1)
    connection.send(100 * a_second + b"0\r\n\r\n")  # after an interruption
    (answer,) = connection.answers()
    assert int(answer.content) == (3 * 3600 + 100) * 50 * size


SMALL = chunked(bytes(100 * 3_000), 100)


def test_small_chunks_of_a_client_that_crowds_the_queue_give_way(clock: TurningClock) -> None:
    """Case 85. Chunks of the same size from a client with one connection do not."""
    serving = Serving(length_of, clock=clock)
    crowd = Crowd(serving, 40, CHUNKED + SMALL)
    normal = serving.connect(peer=type(PEER)("TCP", "192.0.2.9", 1))
    normal.send(CHUNKED + SMALL)
    for _ in range(3000):
        clock.turn()
    (answer,) = normal.answers()
    assert (answer.status, answer.content) == (200, b"300000")
    statuses = [connection.statuses() for connection in crowd.connections]
    assert statuses.count([408]) > 20
    assert statuses.count([408]) + statuses.count([200]) == 40
    refused = crowd.connections[statuses.index([408])].answers()[0]
    assert b"send larger chunks" in refused.content
    assert refused.headers["connection"] == "close"


def test_a_crowd_that_sends_small_chunks_at_the_pace_of_speech_is_served(
    clock: TurningClock,
) -> None:
    """Cases 24 and 85."""
    serving = Serving(length_of, clock=clock)
    crowd = Crowd(serving, 40, CHUNKED)
    a_second = chunked(bytes(50 * 160), 160)[: -len(b"0\r\n\r\n")]
    for _ in range(60):
        for connection in crowd.connections:
            connection.send(a_second)
        for _ in range(40):
            clock.turn()
        clock.spend(1)
    for connection in crowd.connections:
        connection.send(b"0\r\n\r\n")
    for _ in range(100):
        clock.turn()
    assert [connection.statuses() for connection in crowd.connections] == [[200]] * 40

"""Timeouts of slow senders: slow content is accepted, next to nothing is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.http.connection import Connection, chunked
from tests.http.test_site import (
    CHUNKED,
    CONTINUE,
    GET,
    GOT,
    MIB,
    Gate,
    Serving,
    assert_refused,
    head,
    length_of,
    put,
    refuse,
)
from twistedmedia.fairness.pace import RECENT_S
from twistedmedia.http.lingering import LINGER_S
from twistedmedia.http.timeouts import RequestTimeouts, Timeouts

HEADER_S, IDLE_S, WINDOW_S, RATE = 15, 75, 30, 64
LATE_S = 3  # every timeout is noticed within this time


def advance(clock: Clock, seconds: float) -> None:
    """Advance the clock in small steps."""
    for _ in range(int(seconds * 2)):
        clock.advance(0.5)


def drip(serving: Serving, connection: Connection, data: bytes, seconds: int) -> None:
    """The client sends `data` each second, for `seconds`."""
    for _ in range(seconds):
        connection.send(data)
        advance(serving.clock, 1)


async def a_mebibyte(request: Any) -> bytes:
    return b"a" * MIB


@pytest.fixture
def serving() -> Serving:
    """One whose handler echoes the content."""
    return Serving()


def test_the_default_timeouts_are_those_of_these_tests() -> None:
    """Case 67: an idle connection is kept for longer than a load balancer keeps it."""
    assert Timeouts() == Timeouts(header_s=HEADER_S, idle_s=IDLE_S, stall_s=300, min_rate=RATE)
    assert Timeouts().window_s == WINDOW_S
    assert Timeouts(stall_s=4).window_s == 4


# Silence


def test_a_fresh_connection_that_sends_nothing_is_closed_without_a_word(serving: Serving) -> None:
    """Case 24."""
    connection = serving.connect()
    advance(serving.clock, HEADER_S - 1)
    assert connection.connected
    advance(serving.clock, 1 + LATE_S)
    assert (connection.connected, connection.aborted) == (False, False)
    assert connection.received == b""
    serving.assert_nothing_stays()


def test_an_empty_line_does_not_begin_a_head(serving: Serving) -> None:
    """Case 24."""
    connection = serving.connect()
    advance(serving.clock, HEADER_S - 1)
    connection.send(b"\r\n")
    advance(serving.clock, 1 + LATE_S)
    assert not connection.connected
    assert connection.received == b""
    serving.assert_nothing_stays()


def test_a_kept_connection_is_closed_when_it_is_idle_for_long(serving: Serving) -> None:
    connection = serving.connect()
    for _ in range(3):
        connection.send(GET)
        advance(serving.clock, IDLE_S - 1)
        assert connection.connected
    advance(serving.clock, 1 + LATE_S)
    assert (connection.connected, connection.aborted) == (False, False)
    assert connection.statuses() == [200] * 3
    serving.assert_nothing_stays()


@pytest.mark.parametrize("size", [10, 2 * MIB, MIB + 100], ids=["never held", "held", "to its end"])
def test_a_kept_connection_is_idle_after_a_content(size: int) -> None:
    gate = Gate(length_of)
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(put(size) + bytes(size))
    advance(serving.clock, 3 * IDLE_S)
    gate.opened.callback(None)
    advance(serving.clock, IDLE_S - 1)
    assert connection.statuses() == [200]
    assert connection.connected
    advance(serving.clock, 1 + LATE_S)
    assert not connection.connected
    serving.assert_nothing_stays()


def test_a_client_that_takes_nothing_when_it_is_told_to_go_is_cut(serving: Serving) -> None:
    """Case 24. For example on a UNIX socket: on TCP the kernel reports what is acknowledged."""
    connection = serving.connect(window=0)
    connection.send(GET)
    advance(serving.clock, IDLE_S + LATE_S)
    assert connection.connected
    advance(serving.clock, 1.2 * Timeouts().stall_s)
    assert connection.aborted
    serving.assert_nothing_stays()


# Heads


@pytest.mark.parametrize("beginning", [b"G", b"GET / HTTP/1.1\r\nHost: x\r\n\r", b"\r\nGET"])
def test_a_head_that_does_not_end_gets_one_response_and_the_connection_is_closed(
    serving: Serving, beginning: bytes
) -> None:
    """Case 24."""
    connection = serving.connect()
    connection.send(beginning)
    advance(serving.clock, HEADER_S - 1)
    assert connection.received == b""
    advance(serving.clock, 1 + LATE_S)
    (answer,) = connection.answers()
    assert_refused(answer, 408)
    assert connection.half_closed
    connection.send(b"ET / HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
    advance(serving.clock, LINGER_S)
    assert (connection.connected, connection.aborted) == (False, False)
    assert len(connection.answers()) == 1
    serving.assert_nothing_stays()


@pytest.mark.parametrize("before_s", [0, HEADER_S - 1])
def test_a_first_head_has_its_time_from_its_first_byte_however_it_drips(
    serving: Serving, before_s: int
) -> None:
    """Case 24."""
    connection = serving.connect()
    advance(serving.clock, before_s)
    connection.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
    drip(serving, connection, b"a", HEADER_S - 1)
    assert connection.received == b""
    drip(serving, connection, b"a", 1 + LATE_S)
    assert connection.statuses() == [408]


def test_the_head_of_a_later_request_has_as_much_time_and_ends_no_sooner(serving: Serving) -> None:
    """Case 24. Although the connection was idle for nearly `idle_s`."""
    connection = serving.connect()
    connection.send(GET)
    advance(serving.clock, IDLE_S - 1)
    connection.send(GET[:5])
    advance(serving.clock, HEADER_S - 1)
    assert connection.statuses() == [200]
    connection.send(GET[5:])
    assert connection.statuses() == [200, 200]
    connection.send(GET[:5])
    drip(serving, connection, b"a", HEADER_S + LATE_S)
    assert connection.statuses() == [200, 200, 408]
    advance(serving.clock, LINGER_S)
    serving.assert_nothing_stays()


def test_a_slow_head_within_the_time_limit_is_served(serving: Serving) -> None:
    connection = serving.connect()
    for at in range(len(GET)):
        connection.send(GET[at : at + 1])
        serving.clock.advance((HEADER_S - 1) / len(GET))
    assert connection.answers()[0].content == GOT
    advance(serving.clock, HEADER_S + LATE_S)
    assert connection.connected


def test_a_head_that_this_side_does_not_read_is_not_late() -> None:
    """Its client reads an earlier response slowly, and until then its input is not read."""
    gate = Gate(a_mebibyte)
    serving = Serving(gate)
    connection = serving.connect(window=0)
    connection.send(head(method="GET") + GET * 500 + GET[:5])
    connection.send(GET[5:])
    gate.opened.callback(None)
    for _ in range(4):
        advance(serving.clock, HEADER_S)
        assert connection.unread == len(GET[5:])
        connection.take(MIB // 8)
    connection.take()
    assert connection.statuses() == [200] * 502


# Contents


@pytest.mark.parametrize("begin", [put(1 << 20), CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("every_s", [0, 1], ids=["nothing", "a byte a second"])
def test_content_that_hardly_arrives_fails_its_handler_which_responds(
    serving: Serving, begin: bytes, every_s: int
) -> None:
    """Case 24."""
    connection = serving.connect()
    connection.send(begin)
    dripped = (b"a" if begin != CHUNKED else b"1\r\na\r\n") * every_s
    drip(serving, connection, dripped, WINDOW_S - 1)
    assert connection.received == b""
    drip(serving, connection, dripped, 1 + LATE_S)
    (answer,) = connection.answers()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert answer.content == b"the content took too long to arrive"
    advance(serving.clock, LINGER_S)
    assert (connection.connected, connection.aborted) == (False, False)
    assert serving.stream.cancelled == 0
    serving.assert_nothing_stays()


@pytest.mark.parametrize("begin", [put(1 << 20, path="/plain"), head("Transfer-Encoding: chunked")])
def test_content_that_hardly_arrives_is_refused_for_a_plain_resource(begin: bytes) -> None:
    """Case 24."""
    serving = Serving()
    connection = serving.connect()
    connection.send(begin.replace(b"/stream", b"/plain"))
    advance(serving.clock, WINDOW_S - 1)
    assert connection.received == b""
    advance(serving.clock, 1 + LATE_S)
    (answer,) = connection.answers()
    assert_refused(answer, 408)
    advance(serving.clock, LINGER_S)
    assert not connection.connected
    assert len(connection.answers()) == 1
    serving.assert_nothing_stays()


def test_content_at_the_least_rate_is_accepted() -> None:
    serving = Serving(length_of)
    connection = serving.connect()
    size = 20 * WINDOW_S * RATE
    connection.send(put(size))
    drip(serving, connection, b"a" * RATE, 20 * WINDOW_S)
    assert connection.answers()[0].content == b"%d" % size
    assert connection.connected


def test_content_at_a_slightly_lower_rate_is_not() -> None:
    serving = Serving(length_of)
    connection = serving.connect()
    connection.send(put(1 << 20))
    drip(serving, connection, b"a" * (RATE - 1), WINDOW_S + LATE_S)
    assert connection.statuses() == [408]


def test_content_may_come_in_bursts() -> None:
    """The rate is measured over a window, not over a second."""
    serving = Serving(length_of)
    connection = serving.connect()
    burst = bytes(WINDOW_S * RATE)
    connection.send(put(11 * len(burst)))
    for _ in range(10):
        connection.send(burst)
        advance(serving.clock, WINDOW_S)
    connection.send(burst)
    assert connection.statuses() == [200]


def test_content_that_stops_in_the_middle_is_late_although_much_has_arrived() -> None:
    serving = Serving(length_of)
    connection = serving.connect()
    connection.send(put(2 * MIB) + bytes(MIB))
    advance(serving.clock, WINDOW_S + LATE_S)
    assert connection.connected
    assert connection.received == b""
    advance(serving.clock, WINDOW_S)
    assert connection.statuses() == [408]
    advance(serving.clock, LINGER_S)
    serving.assert_nothing_stays()


def test_small_content_has_a_window_too(serving: Serving) -> None:
    connection = serving.connect()
    connection.send(put(2) + b"a")
    advance(serving.clock, WINDOW_S - 1)
    connection.send(b"b")
    assert connection.answers()[0].content == b"ab"


def test_each_content_of_a_connection_is_measured_by_itself() -> None:
    serving = Serving(length_of)
    connection = serving.connect()
    connection.send(put(4 * MIB) + bytes(4 * MIB))
    assert connection.statuses() == [200]
    connection.send(put(10_000))
    drip(serving, connection, b"a", WINDOW_S + LATE_S)
    assert connection.statuses() == [200, 408]


# Content that has no reason to come


def hold(serving: Serving, connection: Connection, size: int = 2 * MIB) -> None:
    """Send content of `size` bytes until its client is paused."""
    connection.send(put(size) + bytes(size))
    assert not connection.reading


def test_a_client_that_is_paused_is_not_slow() -> None:
    gate = Gate(length_of)
    serving = Serving(gate)
    connection = serving.connect()
    hold(serving, connection)
    advance(serving.clock, 20 * WINDOW_S)
    assert connection.connected
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert connection.statuses() == [200]


@pytest.mark.parametrize("held_s", [1, WINDOW_S - 1, 10 * WINDOW_S + 1])
def test_a_client_that_was_held_has_a_whole_window_and_no_more_than_two(held_s: int) -> None:
    """Case 24."""
    gate = Gate(length_of)
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(put(4 * MIB) + bytes(2 * MIB))
    assert not connection.reading
    advance(serving.clock, held_s)
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert connection.reading
    advance(serving.clock, WINDOW_S - 1)
    assert connection.received == b""
    advance(serving.clock, WINDOW_S + 1 + LATE_S)
    assert connection.statuses() == [408]
    advance(serving.clock, LINGER_S)
    assert not connection.connected
    serving.assert_nothing_stays()


@pytest.mark.parametrize("waits_s", [0, 1, WINDOW_S - 2, WINDOW_S + LATE_S, 10 * WINDOW_S])
def test_a_client_that_has_not_been_told_to_continue_is_not_slow_and_has_its_time_then(
    waits_s: int,
) -> None:
    gate = Gate()
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(put(3, "Expect: 100-continue"))
    advance(serving.clock, waits_s)
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert connection.received == CONTINUE
    advance(serving.clock, 5)  # as a round trip may take
    assert connection.received == CONTINUE
    connection.send(b"abc")
    assert connection.statuses() == [100, 200]


def test_a_client_that_was_told_to_continue_and_does_not_is_late(serving: Serving) -> None:
    """Case 24."""
    connection = serving.connect()
    connection.send(put(3, "Expect: 100-continue"))
    assert connection.received == CONTINUE
    advance(serving.clock, 2 * WINDOW_S + LATE_S)
    assert connection.statuses() == [100, 408]


def test_content_that_this_side_does_not_read_is_not_late() -> None:
    """Its client reads the earlier response slowly, and until then its input is not read."""
    gate = Gate(a_mebibyte)
    serving = Serving(lambda request: (gate if request.method == b"GET" else length_of)(request))
    connection = serving.connect(window=0)
    connection.send(head(method="GET") + put(MIB) + bytes(MIB))
    gate.opened.callback(None)
    for _ in range(4):
        advance(serving.clock, WINDOW_S)
        assert connection.unread > 0
        connection.take(MIB // 8)
    connection.take()
    assert connection.statuses() == [200, 200]


def test_a_slow_handler_has_its_time_once_the_content_is_there() -> None:
    gate = Gate()
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(put(3) + b"abc")
    advance(serving.clock, 20 * WINDOW_S)
    assert connection.connected
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert connection.statuses() == [200]


@pytest.mark.parametrize("sent", [b"", b"12345"])
def test_the_rest_of_content_does_not_time_out_after_the_response(sent: bytes) -> None:
    """Lingering has its own time, here a longer one."""
    serving = Serving(refuse, timeouts=Timeouts(stall_s=1))
    connection = serving.connect()
    connection.send(put(10) + sent)
    advance(serving.clock, LINGER_S - 1)
    assert connection.connected
    connection.send(bytes(10 - len(sent)) + GET)
    assert connection.statuses() == [413, 200]


def test_content_after_its_timeout_is_dropped(serving: Serving) -> None:
    connection = serving.connect()
    connection.send(put(100))
    advance(serving.clock, WINDOW_S + LATE_S)
    connection.send(bytes(100) + GET)
    advance(serving.clock, LINGER_S)
    assert connection.statuses() == [408]
    assert not connection.connected
    serving.assert_nothing_stays()


@pytest.mark.parametrize(
    "sent", [b"", b"GE", GET, GET + b"GE", put(10) + b"a", CHUNKED + chunked(b"abc", 1), b"\0"]
)
def test_nothing_is_left_of_clients_that_disconnect(serving: Serving, sent: bytes) -> None:
    connection = serving.connect()
    connection.send(sent)
    connection.leave()
    serving.assert_nothing_stays()


# By themselves


class Sender:
    """Records the timeouts."""

    def __init__(self) -> None:
        self.content_received = 0
        self.full = False
        self.waits_s = 0.0  # between two looks
        self.told: list[str] = []

    def waited_s(self) -> float:
        return self.waits_s

    def was_full(self) -> bool:
        return self.full

    def on_idle_timeout(self) -> None:
        self.told.append("idle")

    def on_head_timeout(self) -> None:
        self.told.append("head")

    def on_content_timeout(self) -> None:
        self.told.append("content")


KINDS = [
    (RequestTimeouts.await_request, "idle", IDLE_S),
    (RequestTimeouts.await_head, "head", HEADER_S),
    (RequestTimeouts.await_content, "content", WINDOW_S),
]
kinds = pytest.mark.parametrize(
    ("await_it", "word", "time_s"), KINDS, ids=["idle", "head", "content"]
)


@kinds
def test_a_timeout_is_reported_once_and_in_time(
    await_it: Callable[[RequestTimeouts, Sender], None], word: str, time_s: int
) -> None:
    clock = Clock()
    senders, sender = RequestTimeouts(clock, Timeouts()), Sender()
    clock.advance(0.7)
    await_it(senders, sender)
    advance(clock, time_s - 0.5)
    assert sender.told == []
    advance(clock, 0.5 + HEADER_S / 10)
    assert sender.told == [word]
    advance(clock, 10 * time_s)
    assert sender.told == [word]
    senders.forget(sender)
    assert clock.getDelayedCalls() == []


@kinds
def test_a_sender_that_has_settled_has_no_timeout(
    await_it: Callable[[RequestTimeouts, Sender], None], word: str, time_s: int
) -> None:
    clock = Clock()
    senders, one, other = RequestTimeouts(clock, Timeouts()), Sender(), Sender()
    await_it(senders, one)
    await_it(senders, other)
    senders.settle(one)
    senders.settle(one)
    advance(clock, time_s + LATE_S)
    assert (one.told, other.told) == ([], [word])


@kinds
def test_a_thousand_senders_have_one_timer(
    await_it: Callable[[RequestTimeouts, Sender], None], word: str, time_s: int
) -> None:
    clock = Clock()
    senders = RequestTimeouts(clock, Timeouts())
    all_of_them = [Sender() for _ in range(1000)]
    for sender in all_of_them:
        await_it(senders, sender)
    assert len(clock.getDelayedCalls()) == 1
    for sender in all_of_them:
        senders.forget(sender)
        senders.forget(sender)
    assert clock.getDelayedCalls() == []


def test_a_sender_that_begins_is_no_longer_idle() -> None:
    clock = Clock()
    senders, sender = RequestTimeouts(clock, Timeouts(header_s=100, idle_s=10)), Sender()
    senders.await_request(sender)
    advance(clock, 9)
    senders.await_head(sender)
    advance(clock, 99)
    assert sender.told == []
    advance(clock, 1 + LATE_S)
    assert sender.told == ["head"]


def test_a_window_is_measured_from_where_the_last_one_ended() -> None:
    clock = Clock()
    senders, sender = RequestTimeouts(clock, Timeouts()), Sender()
    sender.content_received = 1 << 40
    senders.await_content(sender)
    for excused, came, told in (
        (False, WINDOW_S * RATE, []),
        (True, 0, []),
        (False, WINDOW_S * RATE, []),
        (False, WINDOW_S * RATE - 1, ["content"]),
    ):
        sender.full = excused
        sender.content_received += came
        advance(clock, WINDOW_S)
        assert sender.told == told


def test_the_pace_of_a_sender_is_that_of_the_last_seconds() -> None:
    """Case 86."""
    clock = Clock()
    senders, sender = RequestTimeouts(clock, Timeouts()), Sender()
    assert senders.pace(sender) is None
    senders.await_content(sender)
    for came, pace in ((1000, 2000.0), (100, 200.0)):
        for _ in range(int(4 * RECENT_S) + 4):
            sender.content_received += came
            advance(clock, 0.5)
        known = senders.pace(sender)
        assert known is not None
        assert pace * 0.8 <= known <= pace
    known = senders.pace(sender)
    sender.waits_s = 1.0
    advance(clock, 10)
    sender.waits_s = 0.0
    assert senders.pace(sender) == known, "it waits for us"
    sender.full = True
    advance(clock, RECENT_S + 2)
    assert senders.pace(sender) == 0.0, "that it takes no answer is its own doing"
    senders.forget(sender)
    assert senders.pace(sender) is None


def test_the_pace_of_a_sender_is_known_as_soon_as_it_may_be() -> None:
    """Case 86: independent of the time of the last scan."""
    clock = Clock()
    senders, early, late = RequestTimeouts(clock, Timeouts()), Sender(), Sender()
    senders.await_content(early)
    clock.advance(0.1)
    senders.await_content(late)
    for _ in range(3):
        clock.advance(RECENT_S / 3 - 0.001)
    assert senders.pace(late) is None
    late.content_received += 65
    clock.advance(0.003)
    assert senders.pace(late) == pytest.approx(65 / RECENT_S, rel=0.01)


def test_a_sender_that_has_to_wait_now_and_then_is_slow_all_the_same() -> None:
    """Cases 24 and 86. A short wait in each window does not excuse the rest of it."""
    clock = Clock()
    senders, sender = RequestTimeouts(clock, Timeouts()), Sender()
    senders.await_content(sender)
    sender.waits_s = 0.01
    for _ in range(WINDOW_S + LATE_S):
        sender.content_received += RATE // 2
        clock.advance(1)
    assert sender.told == ["content"]
    senders, sender = RequestTimeouts(clock, Timeouts()), Sender()
    senders.await_content(sender)
    sender.waits_s = 0.01
    for _ in range(10):
        sender.content_received += RATE
        clock.advance(1)
    assert senders.pace(sender) == pytest.approx(RATE, rel=0.05)


def test_the_time_in_which_a_sender_has_to_wait_is_no_part_of_its_window() -> None:
    """Case 24."""
    clock = Clock()
    senders, sender = RequestTimeouts(clock, Timeouts()), Sender()
    senders.await_content(sender)
    sender.waits_s = 1.0
    advance(clock, 3 * WINDOW_S)
    assert sender.told == []


@pytest.mark.parametrize("await_it", [RequestTimeouts.await_request, RequestTimeouts.await_head])
def test_a_sender_without_a_request_sends_nothing(
    await_it: Callable[[RequestTimeouts, Sender], None],
) -> None:
    """Case 86."""
    clock = Clock()
    senders, sender = RequestTimeouts(clock, Timeouts()), Sender()
    await_it(senders, sender)
    advance(clock, RECENT_S - 0.5)
    assert senders.pace(sender) is None
    advance(clock, 0.5)
    assert senders.pace(sender) == 0.0
    senders.settle(sender)
    assert senders.pace(sender) is None
    senders.forget(sender)


def test_senders_may_end_or_begin_anew_in_a_timeout() -> None:
    clock = Clock()
    senders = RequestTimeouts(clock, Timeouts(header_s=10, idle_s=10, stall_s=10))

    class Leaving(Sender):
        def on_idle_timeout(self) -> None:
            super().on_idle_timeout()
            for each in everybody:
                senders.forget(each)

        on_head_timeout = on_content_timeout = on_idle_timeout

    class Staying(Sender):
        def on_idle_timeout(self) -> None:
            super().on_idle_timeout()
            senders.await_request(self)

    everybody = [Leaving(), Leaving()]
    staying = Staying()
    senders.await_request(staying)
    senders.await_request(everybody[0])
    senders.await_content(everybody[1])
    advance(clock, 11)
    assert (everybody[0].told, everybody[1].told, staying.told) == (["idle"], [], ["idle"])
    advance(clock, 11)
    assert staying.told == ["idle", "idle"]
    senders.forget(staying)
    assert clock.getDelayedCalls() == []

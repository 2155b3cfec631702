"""The end of a Site: requests in progress get responses, and idle connections are closed."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.python.failure import Failure

from tests.http.connection import Connection, chunked, content_of, outcome
from tests.http.test_site import (
    CHUNKED,
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
from twistedmedia.http.lingering import LINGER_S
from twistedmedia.http.site import IDLE_GRACE_S
from twistedmedia.http.timeouts import Timeouts

HEADER_S = Timeouts().header_s


class Closing(Serving):
    """A Site that the test closes."""

    closed: list[Failure | None]

    def close(self) -> None:
        self.closed = outcome(self.site.close())

    def assert_closed(self) -> None:
        """The last connection has ended, and nothing is left of any."""
        assert self.closed == [None]
        self.assert_nothing_stays()


def assert_last(connection: Connection, content: bytes) -> None:
    """The connection has ended with a complete response that says so."""
    answer = connection.answers()[-1]
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert answer.content == content
    assert (connection.connected, connection.aborted) == (False, False)


def test_a_site_without_connections_is_closed_at_once() -> None:
    serving = Closing()
    serving.close()
    serving.assert_closed()


@pytest.mark.parametrize("begin", [put(3), CHUNKED, put(3) + b"a", head(method="GET")])
def test_a_request_in_progress_is_completed_and_is_the_last_of_its_connection(begin: bytes) -> None:
    """Case 47."""
    gate = Gate(content_of)
    serving = Closing(gate)
    connection = serving.connect()
    connection.send(GET + begin)
    serving.close()
    serving.clock.advance(10)
    assert connection.connected
    rest = {CHUNKED: chunked(b"abc", 2), put(3): b"abc", put(3) + b"a": b"bc"}.get(begin, b"")
    connection.send(rest)
    assert serving.closed == []
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert_last(connection, b"abc" if rest else b"")
    assert "connection" not in connection.answers()[0].headers
    serving.assert_closed()


def test_a_response_that_has_begun_is_completed() -> None:
    """Case 47. Its head did not say that it would be the last."""
    gate = Gate(content_of)

    async def begin(request: Any) -> bytes:
        request.setHeader(b"content-length", b"5")
        request.write(b"he")
        await gate(request)
        return b"llo"

    serving = Closing(begin)
    connection = serving.connect()
    connection.send(head(method="GET"))
    serving.close()
    serving.clock.advance(10)
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert [answer.content for answer in connection.answers()] == [b"hello"]
    assert (connection.connected, connection.aborted) == (False, False)
    serving.assert_closed()


def test_a_response_that_is_read_slowly_is_completed() -> None:
    async def answer(request: Any) -> bytes:
        return b"a" * MIB

    serving = Closing(answer)
    connection = serving.connect(window=0)
    connection.send(head(method="GET"))
    serving.close()
    for _ in range(8):
        serving.clock.advance(10)
        assert serving.closed == []
        connection.take(MIB // 8)
    connection.take()
    assert len(connection.answers()[0].content) == MIB
    assert not connection.aborted
    serving.assert_closed()


def test_a_large_upload_that_is_paused_continues() -> None:
    """Case 47."""
    gate = Gate(length_of)
    serving = Closing(gate)
    connection = serving.connect()
    connection.send(put(4 * MIB) + bytes(3 * MIB))
    assert not connection.reading
    serving.close()
    serving.clock.advance(10)
    gate.opened.callback(None)
    connection.send(bytes(MIB))
    assert_last(connection, b"%d" % (4 * MIB))
    serving.assert_closed()


# Requests in flight


@pytest.mark.parametrize("before", [b"", GET], ids=["fresh", "kept"])
def test_a_request_within_the_grace_period_gets_its_response(before: bytes) -> None:
    serving = Closing()
    connection = serving.connect()
    connection.send(before)
    serving.close()
    serving.clock.advance(IDLE_GRACE_S * 0.9)
    assert connection.connected
    connection.send(GET)
    assert_last(connection, GOT)
    serving.assert_closed()


def test_a_request_that_begins_within_the_grace_period_may_take_longer() -> None:
    gate = Gate(content_of)
    serving = Closing(gate)
    connection = serving.connect()
    serving.close()
    connection.send(put(3))
    serving.clock.advance(IDLE_GRACE_S * 10)
    connection.send(b"abc")
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert_last(connection, b"abc")
    serving.assert_closed()


@pytest.mark.parametrize("before", [b"", GET, GET + b"\r\n"], ids=["fresh", "kept", "a line"])
def test_a_connection_without_a_request_is_closed_after_the_grace_period(before: bytes) -> None:
    serving = Closing()
    connection = serving.connect()
    connection.send(before)
    received = connection.received
    serving.close()
    serving.clock.advance(IDLE_GRACE_S * 0.9)
    assert connection.connected
    assert serving.closed == []
    serving.clock.advance(IDLE_GRACE_S * 0.1)
    assert (connection.connected, connection.aborted) == (False, False)
    assert connection.received == received
    serving.assert_closed()


@pytest.mark.parametrize("before", [b"", GET], ids=["fresh", "kept"])
def test_a_head_that_has_begun_has_its_time_and_gets_a_response(before: bytes) -> None:
    serving = Closing()
    connection = serving.connect()
    connection.send(before + GET[:7])
    serving.close()
    serving.clock.pump([1] * int(HEADER_S - 1))
    assert connection.connected
    connection.send(GET[7:])
    assert_last(connection, GOT)
    serving.assert_closed()


def test_a_head_that_has_begun_and_does_not_end_times_out() -> None:
    """Case 24."""
    serving = Closing()
    connection = serving.connect()
    connection.send(GET[:7])
    serving.close()
    serving.clock.pump([1] * int(HEADER_S * 1.2))
    (answer,) = connection.answers()
    assert_refused(answer, 408)
    serving.clock.advance(LINGER_S)
    serving.assert_closed()


# Requests that arrive too late


def test_requests_behind_the_one_in_progress_are_not_begun() -> None:
    """The client sees that it was the last, and uses another server."""
    gate = Gate(content_of)
    serving = Closing(gate)
    connection = serving.connect()
    connection.send(put(3) + b"abc" + put(3) + b"def" + GET)
    serving.close()
    connection.send(GET)
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert_last(connection, b"abc")
    assert len(connection.answers()) == 1
    assert len(serving.stream.requests) == 1
    serving.assert_closed()


def test_the_first_of_pipelined_requests_in_the_grace_period_gets_its_response() -> None:
    serving = Closing()
    connection = serving.connect()
    serving.close()
    connection.send(GET * 3)
    assert_last(connection, GOT)
    assert len(connection.answers()) == 1
    serving.assert_closed()


def test_refused_connections_linger_no_longer_than_usual() -> None:
    serving = Closing(refuse)
    malformed, early = serving.connect(), serving.connect()
    malformed.send(b"\0")
    early.send(put(10))
    serving.close()
    serving.clock.advance(IDLE_GRACE_S)
    assert malformed.connected
    assert early.connected
    early.send(bytes(10) + GET)
    assert not early.connected
    assert early.statuses() == [413]
    assert serving.closed == []
    serving.clock.advance(LINGER_S)
    assert malformed.statuses() == [400]
    serving.assert_closed()


# Waiting for the last connection


def test_closing_waits_for_the_last_connection() -> None:
    gate = Gate(content_of)
    serving = Closing(gate)
    idle, busy, leaving = (serving.connect() for _ in range(3))
    busy.send(put(3) + b"abc")
    leaving.send(GET[:5])
    serving.close()
    serving.clock.advance(IDLE_GRACE_S)
    assert not idle.connected
    leaving.leave()
    assert serving.closed == []
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert_last(busy, b"abc")
    serving.assert_closed()


def test_connections_that_take_too_long_are_aborted() -> None:
    """Case 47."""
    serving = Closing(Gate())
    uploading, idle = serving.connect(), serving.connect()
    uploading.send(put(10) + b"12345")
    serving.close()
    cut = outcome(serving.site.disconnect())
    assert (serving.closed, cut) == ([], [])
    serving.clock.advance(0)
    assert cut == [None]
    assert uploading.aborted
    assert idle.aborted
    assert serving.stream.cancelled == 1
    serving.assert_closed()


def test_disconnect_fires_at_once_without_connections() -> None:
    serving = Closing()
    connection = serving.connect()
    serving.close()
    connection.leave()
    assert outcome(serving.site.disconnect()) == [None]
    serving.assert_closed()

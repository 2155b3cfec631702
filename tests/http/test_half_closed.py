"""Case 51: peers that close their sending side, or the connection, after complete requests."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from tests.http.connection import (
    Connection,
    SocketConnection,
    chunked,
    content_of,
    outcome,
)
from tests.http.test_site import CHUNKED, GET, GOT, MIB, Gate, Serving, head, put, refuse
from twistedmedia.http.admission import ConnectionLimits
from twistedmedia.http.sending import send

WHOLE = {
    "length": (put(5) + b"hello", b"hello"),
    "chunked": (CHUNKED + chunked(b"hello", 2), b"hello"),
    "nothing": (put(0), b""),
    "no content": (head(method="DELETE"), b""),
}
whole = pytest.mark.parametrize(("request_bytes", "content"), WHOLE.values(), ids=WHOLE)


class Recording:
    """A handler that records the content that it reads."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    async def __call__(self, request: Any) -> bytes:
        self.contents.append(await content_of(request))
        return self.contents[-1]


def half_closed(serving: Serving, sent: bytes, window: int | None = None) -> Connection:
    """A connection whose peer has sent `sent`, and has closed its sending side."""
    connection = serving.connect(window)
    connection.send(sent)
    connection.half_close()
    return connection


def left(serving: Serving, sent: bytes, window: int | None = None) -> Connection:
    """A connection that was lost after its peer had sent `sent`."""
    connection = serving.connect(window)
    connection.send(sent)
    connection.leave()
    return connection


# Half-closed connections


@whole
def test_a_half_closed_client_gets_its_response(request_bytes: bytes, content: bytes) -> None:
    gate = Gate()
    serving = Serving(gate)
    connection = half_closed(serving, request_bytes)
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
    connection = half_closed(serving, GET + put(3) + b"abc" + GET)
    assert [answer.content for answer in connection.answers()] == [GOT, b"abc", GOT]
    serving.assert_nothing_stays()


def test_more_heads_than_a_turn_of_the_loop_takes_are_answered() -> None:
    serving = Serving()
    connection = serving.connect()
    count = 48
    connection.send(GET * count)
    connection.half_close()
    serving.clock.pump([0] * count)
    assert connection.statuses() == [200] * count
    serving.assert_nothing_stays()


def test_requests_wait_for_a_half_closed_peer_that_does_not_take_its_responses() -> None:
    async def large(request: Any) -> bytes:
        return bytes(MIB)

    serving = Serving(large)
    connection = half_closed(serving, head(method="GET") + GET + GET, window=0)
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
    connection = half_closed(serving, head(method="GET"))
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
    connection = half_closed(serving, begin)
    assert connection.received == b""
    assert not connection.connected
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_a_chunked_request_that_is_cut_before_its_first_chunk_reaches_no_handler() -> None:
    serving = Serving()
    connection = half_closed(serving, CHUNKED)
    assert connection.received == b""
    assert not connection.connected
    assert serving.stream.requests == []
    serving.assert_nothing_stays()


@pytest.mark.parametrize("begin", [put(6)[:-1], b"G", b"\r\n", b""])
def test_a_head_that_is_cut_and_a_connection_without_one_end_at_once(begin: bytes) -> None:
    serving = Serving()
    connection = half_closed(serving, begin)
    assert connection.received == b""
    assert not connection.connected
    serving.assert_nothing_stays()


def test_an_incomplete_request_behind_a_complete_one_does_not_harm_it() -> None:
    gate = Gate()
    serving = Serving(gate)
    connection = half_closed(serving, put(3) + b"abc" + put(9) + b"cut")
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert [answer.content for answer in connection.answers()] == [b"abc"]
    assert not connection.connected
    serving.assert_nothing_stays()


def test_malformed_input_before_the_close_is_refused() -> None:
    serving = Serving()
    connection = half_closed(serving, put(3) + b"abc" + b"nonsense\r\n\r\n")
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
    connection = half_closed(serving, GET)
    assert connection.statuses() == [200]
    assert not connection.connected
    serving.assert_nothing_stays()


def test_a_plain_resource_responds_to_a_half_closed_client_too() -> None:
    serving = Serving()
    connection = half_closed(serving, put(3, path="/plain") + b"abc")
    assert connection.statuses() == [200]
    serving.assert_nothing_stays()


# Lost connections


@whole
@pytest.mark.parametrize("kind", [Connection, SocketConnection])
def test_a_request_is_carried_out_though_its_connection_is_lost(
    request_bytes: bytes, content: bytes, kind: type[Connection]
) -> None:
    noting = Recording()
    gate = Gate(noting)
    serving = Serving(gate)
    connection = kind(serving.site, serving.clock)
    connection.send(request_bytes)
    connection.leave()
    assert serving.stream.cancelled == 0
    assert len(serving.site.channels) == 1
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert noting.contents == [content]
    assert connection.received == b""
    serving.assert_nothing_stays()


def test_a_request_is_carried_out_also_if_its_client_half_closed_first() -> None:
    noting = Recording()
    gate = Gate(noting)
    serving = Serving(gate)
    connection = half_closed(serving, put(3) + b"abc")
    connection.leave()
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert noting.contents == [b"abc"]
    serving.assert_nothing_stays()


@pytest.mark.parametrize("rest", [head(method="GET"), put(3) + b"def", CHUNKED + chunked(b"g", 1)])
def test_requests_behind_a_request_that_is_carried_out_are_dropped(rest: bytes) -> None:
    """Their client repeats them (RFC 9112, 9.3.2)."""
    noting = Recording()
    gate = Gate(noting)
    serving = Serving(gate)
    left(serving, put(3) + b"abc" + rest + put(3) + b"def")
    assert len(serving.stream.requests) == 1
    gate.opened.callback(None)
    serving.clock.pump([0] * 4)
    assert noting.contents == [b"abc"]
    assert len(serving.stream.requests) == 1
    serving.assert_nothing_stays()


@pytest.mark.parametrize("first", [head(method="DELETE"), put(3) + b"abc", head(method="GET")])
def test_of_the_requests_that_wait_for_a_lost_peer_only_the_first_is_carried_out(
    first: bytes,
) -> None:
    """They waited until the peer had read an earlier response."""
    methods: list[bytes] = []

    async def large_or_note(request: Any) -> bytes:
        methods.append(request.method)
        return bytes(MIB) if len(methods) == 1 else await content_of(request)

    serving = Serving(large_or_note)
    left(serving, head(method="GET") + first + put(3) + b"def" + head(method="DELETE"), window=10)
    serving.clock.pump([0] * 8)
    may_change_something = not first.startswith(b"GET")
    assert methods == [b"GET", first.split()[0]][: 1 + may_change_something]
    serving.assert_nothing_stays()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_request_that_changes_nothing_ends_with_its_connection(method: str) -> None:
    serving = Serving(Gate())
    left(serving, head(method=method))
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_a_response_that_has_begun_ends_with_its_connection() -> None:
    async def begin(request: Any) -> bytes:
        request.write(b"begun")
        await Deferred()
        raise AssertionError

    serving = Serving(begin)
    left(serving, head(method="POST"))
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_a_response_without_end_that_begins_after_the_connection_is_lost_is_ended() -> None:
    async def never_ends(request: Any) -> bytes:
        request.write(b"begun")
        await Deferred()
        raise AssertionError

    gate = Gate(never_ends)
    serving = Serving(gate)
    left(serving, head(method="POST"))
    gate.opened.callback(None)
    assert serving.stream.cancelled == 0
    serving.clock.advance(0)
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


@pytest.mark.parametrize(
    "sent", [put(3, path="/slow") + b"abc", head(path="/slow", method="DELETE")]
)
def test_a_plain_resource_is_notified_of_a_lost_connection(sent: bytes) -> None:
    lost: list[Failure] = []

    class Slow(Resource):
        isLeaf = True

        def render(self, request: Any) -> Any:
            request.notifyFinish().addErrback(lost.append)
            return NOT_DONE_YET

    serving = Serving()
    serving.site.resource.putChild(b"slow", Slow())
    left(serving, sent)
    assert len(lost) == 1
    serving.assert_nothing_stays()


def test_a_whole_request_behind_one_that_only_reads_is_carried_out() -> None:
    noting = Recording()

    async def wait_or_note(request: Any) -> bytes:
        if request.method == b"GET":
            await Deferred()
        return await noting(request)

    serving = Serving(wait_or_note)
    left(serving, head(method="GET") + put(3) + b"abc")
    serving.clock.pump([0] * 4)
    assert noting.contents == [b"abc"]
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_input_behind_the_last_request_of_a_connection_is_not_a_request() -> None:
    noting = Recording()

    async def wait_or_note(request: Any) -> bytes:
        if request.method == b"GET":
            await Deferred()
        return await noting(request)

    serving = Serving(wait_or_note)
    left(serving, head("Connection: close", method="GET") + put(3) + b"abc")
    serving.clock.pump([0] * 4)
    assert noting.contents == []
    serving.assert_nothing_stays()


def test_a_whole_request_behind_an_unread_response_is_carried_out() -> None:
    noting = Recording()

    async def large_or_note(request: Any) -> bytes:
        return bytes(MIB) if request.method == b"GET" else await noting(request)

    serving = Serving(large_or_note)
    left(serving, head(method="GET") + put(3) + b"abc", window=10)
    serving.clock.pump([0] * 4)
    assert noting.contents == [b"abc"]
    serving.assert_nothing_stays()


def test_the_content_of_a_dropped_request_is_not_a_request() -> None:
    noting = Recording()
    gate = Gate(noting)
    serving = Serving(gate)
    connection = serving.connect()
    content = put(4) + b"evil"
    connection.send(put(3) + b"abc" + put(len(content), method="GET") + content)
    connection.leave()
    gate.opened.callback(None)
    serving.clock.pump([0] * 4)
    assert noting.contents == [b"abc"]
    serving.assert_nothing_stays()


def test_malformed_input_behind_a_request_that_is_carried_out_ends_the_connection() -> None:
    gate = Gate()
    serving = Serving(gate)
    left(serving, put(3) + b"abc" + b"nonsense\r\n\r\n")
    gate.opened.callback(None)
    serving.clock.advance(0)
    serving.assert_nothing_stays()


def test_malformed_input_behind_an_unread_response_ends_with_the_connection() -> None:
    async def large(request: Any) -> bytes:
        return bytes(MIB)

    serving = Serving(large)
    left(serving, head(method="GET") + b"nonsense\r\n\r\n", window=10)
    serving.clock.advance(0)
    serving.assert_nothing_stays()


def test_an_exception_in_the_input_of_a_lost_connection_does_not_keep_it() -> None:
    class Faulty:
        def add(self, host: str, line: bytes, *rest: Any) -> None:
            assert line, "a fault"

    async def large(request: Any) -> bytes:
        return bytes(MIB)

    serving = Serving(large, access_log=Faulty())
    connection = serving.connect(window=10)
    connection.send(head(method="GET") + b"nonsense\r\n\r\n")
    with pytest.raises(AssertionError, match="a fault"):
        connection.leave()
    serving.assert_nothing_stays()


def test_no_timeout_runs_for_a_peer_whose_connection_is_lost() -> None:
    """It did not read a response, and its request is still carried out."""
    gate = Gate()

    async def large_or_wait(request: Any) -> bytes:
        return bytes(MIB) if request.method == b"GET" else await gate(request)

    serving = Serving(large_or_wait)
    connection = SocketConnection(serving.site, serving.clock, window=MIB)
    connection.send(head(method="GET") + put(3) + b"abc")
    connection.take(MIB)
    connection.leave()
    assert len(serving.site.channels) == 1
    serving.clock.advance(0)
    assert serving.clock.getDelayedCalls() == []
    gate.opened.callback(None)
    serving.clock.advance(0)
    serving.assert_nothing_stays()


def test_a_file_is_not_sent_by_the_kernel_after_the_connection_is_lost() -> None:
    class File:
        size, modified_ns, etag, sha256 = MIB, 0, '"x"', None

        def read(self, offset: int, size: int) -> Deferred[bytes]:
            return succeed(bytes(size))

        def send_at_hand(self, descriptor: int, offset: int, size: int) -> int:
            raise AssertionError("the descriptor may be another's by now")

        def fetch(self, offset: int, size: int) -> Deferred[None]:
            raise AssertionError

        def digest(self) -> Deferred[str]:
            raise AssertionError

        def close(self) -> None:
            """There is nothing to close."""

    async def answer_with_file(request: Any) -> bytes:
        await send(request, File(), 0, MIB)
        return b""

    gate = Gate(answer_with_file)
    serving = Serving(gate)
    connection = SocketConnection(serving.site, serving.clock)
    connection.send(head(method="POST"))
    connection.leave()
    gate.opened.callback(None)
    serving.clock.pump([0] * 4)
    serving.assert_nothing_stays()


@pytest.mark.parametrize("streaming", [True, False], ids=["push", "pull"])
@pytest.mark.parametrize("leave", ["leave", "half_close", "leave before"])
def test_the_producer_of_a_response_that_ends_early_is_stopped_once(
    leave: str, streaming: bool
) -> None:
    """A pull producer would be asked for more without end."""
    calls: list[str] = []

    class Producer:
        def resumeProducing(self) -> None:
            calls.append("resume")

        def pauseProducing(self) -> None:
            calls.append("pause")

        def stopProducing(self) -> None:
            calls.append("stop")

    async def produce(request: Any) -> bytes:
        request.registerProducer(Producer(), streaming)
        request.write(b"begun")
        await Deferred()
        raise AssertionError

    gate = Gate(produce)
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(put(9) + b"abc" if leave == "half_close" else head(method="POST"))
    if leave == "leave before":
        connection.leave()
        gate.opened.callback(None)
    else:
        gate.opened.callback(None)
        getattr(connection, leave)()
    serving.clock.pump([0] * 4)
    assert serving.stream.cancelled == 1
    assert calls.count("stop") == 1
    serving.assert_nothing_stays()


@implementer(ISSLTransport)
class Encrypted(Connection):
    """A connection that looks encrypted."""

    def getPeerCertificate(self) -> None:
        """It has none."""


def test_nothing_waits_for_a_lost_connection_that_was_ending_over_tls() -> None:
    serving = Serving()
    connection = Encrypted(serving.site, serving.clock, window=0)
    connection.send(head("Connection: close", method="GET", path="/plain"))
    assert connection.disconnecting
    connection.leave()
    serving.assert_nothing_stays()


@pytest.mark.parametrize("sent", [b"GET /cut", b""])
def test_an_ending_connection_has_no_other_response(sent: bytes) -> None:
    """Although its peer reads the earlier one slowly."""
    serving = Serving(Gate())
    connection = half_closed(serving, GET + sent, window=100)
    serving.clock.pump([1] * 60)
    connection.take(MIB)
    serving.clock.advance(0)
    assert connection.statuses() == [200]
    serving.assert_nothing_stays()


def test_a_transport_that_was_aborted_ends_its_requests_whatever_reason_it_gives() -> None:
    """TLS reports `ConnectionLost` for a connection that this side has aborted."""
    serving = Serving(Gate())
    connection = serving.connect()
    connection.send(put(3) + b"abc")
    connection.disconnecting = True
    connection.leave()
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_requests_of_connections_that_the_site_aborts_are_not_carried_out() -> None:
    serving = Serving(Gate())
    connection = serving.connect()
    connection.send(put(3) + b"abc")
    serving.site.disconnect()
    serving.clock.advance(0)
    assert connection.aborted
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_a_closing_site_waits_for_requests_that_outlive_their_connections() -> None:
    gate = Gate()
    serving = Serving(gate)
    left(serving, put(3) + b"abc")
    closed = outcome(serving.site.close())
    serving.clock.advance(1)
    assert closed == []
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert closed == [None]
    serving.assert_nothing_stays()


def test_disconnect_ends_requests_that_outlive_their_connections() -> None:
    serving = Serving(Gate())
    left(serving, put(3) + b"abc")
    closed = outcome(serving.site.close())
    assert outcome(serving.site.disconnect()) == [None]
    assert closed == [None]
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_what_is_carried_out_counts_as_a_connection_of_its_client() -> None:
    """Otherwise a client could leave any number of requests behind."""
    gate = Gate()
    serving = Serving(gate, connection_limits=ConnectionLimits(per_address=1))
    left(serving, put(3) + b"abc")
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
    left(serving, begin)
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_connections_do_not_affect_each_other() -> None:
    """One client disconnects, another one stays."""
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

"""A whole Site, fed in memory: when handlers run, how content flows, when connections end."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.web.resource import Resource

from tests.http.connection import (
    PEER,
    Answer,
    Connection,
    Plain,
    Streaming,
    chunked,
    content_of,
    outcome,
    result,
)
from twistedmedia.errors import Malformed, TooLarge
from twistedmedia.http.body import EACH_BYTES, LARGEST_PIECE_BYTES, Body, BodyMemory
from twistedmedia.http.lingering import LAST_LINGER_S, LINGER_BYTES, LINGER_S
from twistedmedia.http.site import MediaSite
from twistedmedia.http.timeouts import Timeouts

IDLE_S = Timeouts().idle_s
MIB = 1 << 20

GET = b"GET /plain?q=1 HTTP/1.1\r\nHost: x\r\n\r\n"
GOT = b"(b'GET', b'/plain?q=1', {b'q': [b'1']}, b'')"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def put(length: int, *headers: str, path: str = "/stream", method: str = "PUT") -> bytes:
    """The head of a request whose content has a length."""
    return head(f"Content-Length: {length}", *headers, path=path, method=method)


def head(*headers: str, path: str = "/stream", method: str = "PUT") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode()


CHUNKED = head("Transfer-Encoding: chunked")
FIRST_CHUNK = b"1\r\nx\r\n"


class Serving:
    """A Site with `/plain` and `/stream`, the latter answered by `handler`."""

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[bytes]] = content_of,
        *,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        """`options` are the Site's."""
        self.clock = clock or Clock()
        self.memory = BodyMemory()
        self.stream = Streaming(handler)
        tree = Resource()
        tree.putChild(b"stream", self.stream)
        tree.putChild(b"plain", Plain())
        self.site = MediaSite(tree, reactor=self.clock, memory=self.memory, **options)

    def connect(self, window: int | None = None, peer: Any = PEER) -> Connection:
        return Connection(self.site, self.clock, window, peer)

    @property
    def body(self) -> Body:
        """Of the latest request that streams."""
        body: Body = self.stream.requests[-1].body
        return body

    def assert_nothing_stays(self) -> None:
        """Nothing is left of connections that are gone."""
        assert self.site.channels == set()
        assert not any(vars(self.site.lingering).values())
        assert self.memory.allowance == EACH_BYTES
        assert self.clock.getDelayedCalls() == []


class Gate:
    """A handler that waits at its gate and then does what it is told."""

    def __init__(self, then: Callable[[Any], Awaitable[bytes]] = content_of) -> None:
        self.opened: Deferred[None] = Deferred()
        self._then = then

    async def __call__(self, request: Any) -> bytes:
        await self.opened
        return await self._then(request)


async def refuse(request: Any) -> bytes:
    """Answers without a look at the content."""
    raise TooLarge(10)


async def length_of(request: Any) -> bytes:
    """Reads the content and keeps none of it."""
    return b"%d" % len(await content_of(request))


@pytest.fixture
def serving() -> Serving:
    """One whose handler echoes the content."""
    return Serving()


def assert_refused(answer: Answer, status: int, code: int | None = None) -> None:
    """It is the whole answer of a connection that ends: JSON with the status, unless another
    `code` is given, and a reason.
    """
    assert answer.status == status
    assert (answer.headers["connection"], answer.headers["server"]) == ("close", "twistedmedia")
    said = json.loads(answer.content)
    assert (said["code"], bool(said["reason"])) == (code or status, True)
    assert "date" in answer.headers


# When a handler runs


@pytest.mark.parametrize(
    ("request_head", "length"),
    [(put(10), 10), (head("Transfer-Encoding: chunked", "Expect: 100-continue"), None)],
    ids=["length", "chunked"],
)
def test_a_handler_runs_before_the_content_has_come(
    request_head: bytes, length: int | None
) -> None:
    serving = Serving(Gate())
    connection = serving.connect()
    connection.send(request_head[:-1])
    assert serving.stream.requests == []
    connection.send(request_head[-1:])
    assert len(serving.stream.requests) == 1
    assert serving.body.length == length
    assert connection.received == b""


def test_the_handler_of_a_chunked_request_runs_with_the_first_byte_of_content() -> None:
    """Case 50: until then there may be no content."""
    serving = Serving(Gate())
    connection = serving.connect()
    connection.send(CHUNKED + FIRST_CHUNK[:3])
    assert serving.stream.requests == []
    connection.send(FIRST_CHUNK[3:4])
    assert len(serving.stream.requests) == 1
    assert (serving.body.length, serving.body.received) == (None, 1)
    connection.send(FIRST_CHUNK[4:] + chunked(b"yz", 1))
    assert serving.body.length is None


@pytest.mark.parametrize("sent", [b"0\r\n\r\n", b"000;a=b\r\nX: y\r\n\r\n"])
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "OPTIONS"])
def test_a_chunked_request_without_content_is_one_without_content(method: str, sent: bytes) -> None:
    """Case 50: proxies that speak HTTP/2 to clients forward those so."""
    serving = Serving()
    for pieces in ([sent], [sent[:1], sent[1:-1], sent[-1:]]):
        connection = serving.connect()
        connection.send(head("Transfer-Encoding: chunked", method=method))
        for piece in pieces:
            assert connection.received == b""
            connection.send(piece)
        connection.send(GET)
        assert [(a.status, a.content) for a in connection.answers()] == [(200, b""), (200, GOT)]
        assert (serving.body.length, serving.body.received) == (0, 0)
        connection.leave()


@pytest.mark.parametrize(
    "broken", [b"zz\r\n", b"0\r\nno trailer\r\n\r\n"], ids=["no size", "no trailer"]
)
def test_a_chunked_request_that_breaks_before_its_first_byte_is_answered_by_its_handler(
    broken: bytes,
) -> None:
    serving = Serving()
    connection = serving.connect()
    connection.send(CHUNKED + broken)
    assert connection.statuses() == [400]
    assert connection.half_closed
    connection.leave()
    serving.assert_nothing_stays()


def test_a_client_that_leaves_before_the_first_chunk_leaves_nothing() -> None:
    serving = Serving()
    connection = serving.connect()
    connection.send(CHUNKED)
    connection.leave()
    assert serving.stream.requests == []
    serving.assert_nothing_stays()


def test_a_handler_has_its_request_as_any_other(serving: Serving) -> None:
    connection = serving.connect()
    connection.send(put(2, "X-Some: thing", path="/stream/a%2Fb/c?q=1&q=2", method="POST"))
    request = serving.stream.requests[0]
    assert (request.method, request.uri) == (b"POST", b"/stream/a%2Fb/c?q=1&q=2")
    assert (request.prepath, request.postpath) == ([b"stream"], [b"a/b", b"c"])
    assert request.args == {b"q": [b"1", b"2"]}
    assert request.getHeader(b"x-some") == b"thing"
    connection.send(b"ok")
    assert connection.answers()[0].content == b"ok"


def test_the_content_of_a_form_stays_with_its_reader(serving: Serving) -> None:
    form = b"a=1&b=2"
    connection = serving.connect()
    urlencoded = "Content-Type: application/x-www-form-urlencoded"
    connection.send(put(len(form), urlencoded, path="/stream?q=1", method="POST") + form)
    assert connection.answers()[0].content == form
    assert serving.stream.requests[0].args == {b"q": [b"1"]}


@pytest.mark.parametrize(
    "request_bytes",
    [put(0), CHUNKED + b"0\r\n\r\n", head(), head(method="GET")],
    ids=["length 0", "no chunk", "PUT with nothing declared", "GET"],
)
def test_no_content_at_all_is_an_empty_body(serving: Serving, request_bytes: bytes) -> None:
    """Case 7."""
    connection = serving.connect()
    connection.send(request_bytes + GET)
    assert [(a.status, a.content) for a in connection.answers()] == [(200, b""), (200, GOT)]
    assert serving.body.received == 0


REQUESTS = [
    ("length", put(300) + bytes(range(250)) + b"x" * 50, [bytes(range(250)) + b"x" * 50]),
    ("chunked", CHUNKED + chunked(b"0123456789" * 9, 7), [b"0123456789" * 9]),
    ("pipelined", GET + put(3) + b"abc" + GET, [GOT, b"abc", GOT]),
    (
        "chunked, then others",
        CHUNKED + chunked(b"abc" * 20, 11) + put(3) + b"def" + GET + CHUNKED + chunked(b"", 1),
        [b"abc" * 20, b"def", GOT, b""],
    ),
    (
        "trailers",
        CHUNKED + b"3;ext=1\r\nabc\r\n0\r\nTrailer: x\r\n\r\n" + GET,
        [b"abc", GOT],
    ),
    ("content that looks like a request", put(len(GET)) + GET + GET, [GET, GOT]),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize(
    ("request_bytes", "contents"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS]
)
def test_it_does_not_matter_where_the_bytes_are_cut(
    serving: Serving, request_bytes: bytes, contents: list[bytes], size: int
) -> None:
    """Case 46."""
    connection = serving.connect()
    for at in range(0, len(request_bytes), size):
        connection.send(request_bytes[at : at + size])
    assert [answer.content for answer in connection.answers()] == contents
    assert set(connection.statuses()) == {200}
    assert connection.connected


def test_pipelined_requests_wait_for_the_one_before() -> None:
    """Case 46."""
    gate = Gate()
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(GET + put(3) + b"abc" + put(3) + b"def" + GET)
    assert [answer.content for answer in connection.answers()] == [GOT]
    assert len(serving.stream.requests) == 1
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert [answer.content for answer in connection.answers()] == [GOT, b"abc", b"def", GOT]


def test_pipelined_requests_behind_one_that_waits_are_not_taken_in_without_end() -> None:
    """Case 46 (CVE-2024-41671)."""
    gate = Gate()
    serving = Serving(gate)
    connection = serving.connect()
    padded = head("X-Padding: " + "x" * 8000, path="/plain", method="GET")
    connection.send(put(3) + b"abc" + padded * 100)
    assert connection.unread > 100 * len(padded) - 2 * LARGEST_PIECE_BYTES
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert connection.statuses() == [200] * 101


# Plain resources on the same Site


@pytest.mark.parametrize(
    ("content_type", "args"),
    [
        ("application/x-www-form-urlencoded", "{b'q': [b'1'], b'a': [b'2']}"),
        ("text/plain", "{b'q': [b'1']}"),
    ],
)
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_a_plain_resource_gets_its_content_as_ever(
    serving: Serving, content_type: str, args: str, coding: str
) -> None:
    framing = "Content-Length: 3" if coding == "length" else "Transfer-Encoding: chunked"
    content = b"a=2" if coding == "length" else chunked(b"a=2", 1)
    connection = serving.connect()
    begin = head(framing, f"Content-Type: {content_type}", path="/plain?q=1", method="POST")
    connection.send(begin)
    connection.send(content + put(3) + b"abc")
    form, streamed = connection.answers()
    assert form.content.decode() == f"(b'POST', b'/plain?q=1', {args}, b'a=2')"
    assert streamed.content == b"abc"


def test_a_plain_resource_has_its_continue_at_once(serving: Serving) -> None:
    connection = serving.connect()
    connection.send(put(3, "Expect: 100-continue", path="/plain"))
    assert connection.received == CONTINUE
    connection.send(b"abc")
    assert connection.statuses() == [100, 200]


def test_a_malformed_content_for_a_plain_resource_is_a_bad_request(serving: Serving) -> None:
    connection = serving.connect()
    connection.send(head("Transfer-Encoding: chunked", path="/plain") + b"zz\r\n" + GET)
    (answer,) = connection.answers()
    assert_refused(answer, 400, 510)
    assert connection.half_closed
    connection.send(GET)
    serving.clock.advance(LINGER_S)
    assert not connection.connected
    assert len(connection.answers()) == 1
    serving.assert_nothing_stays()


class Failing(Resource):
    """Somebody else's, with a fault."""

    def getChild(self, path: bytes, request: Any) -> Resource:
        raise RuntimeError("a fault of somebody else")


def test_a_fault_of_another_resource_is_seen_when_it_is_rendered_and_ends_nothing_else(
    serving: Serving, nothing_left_behind: list[Any]
) -> None:
    serving.site.resource.putChild(b"failing", Failing())
    connection = serving.connect()
    connection.send(put(3, path="/failing/x") + b"abc" + put(3) + b"abc")
    assert connection.statuses() == [500, 200]
    assert len(nothing_left_behind) == 1
    nothing_left_behind.clear()


# 100 Continue


def test_a_client_that_expects_it_is_told_to_continue_when_its_content_is_read() -> None:
    gate = Gate()
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(put(3, "Expect: 100-continue"))
    assert connection.received == b""
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert connection.received == CONTINUE
    connection.send(b"abc")
    assert [(a.status, a.content) for a in connection.answers()] == [(100, b""), (200, b"abc")]
    assert connection.connected


def test_a_client_that_is_refused_is_not_told_to_continue() -> None:
    serving = Serving(refuse)
    connection = serving.connect()
    connection.send(put(3, "Expect: 100-continue"))
    (answer,) = connection.answers()
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert connection.half_closed


def test_a_client_that_expects_nothing_is_told_nothing(serving: Serving) -> None:
    connection = serving.connect()
    connection.send(put(3))
    assert connection.received == b""
    connection.send(b"abc")
    assert connection.statuses() == [200]


def test_an_expectation_ends_with_its_request() -> None:
    handlers = iter([refuse, content_of])

    async def each(request: Any) -> bytes:
        return await next(handlers)(request)

    serving = Serving(each)
    connection = serving.connect()
    connection.send(put(3, "Expect: 100-continue") + b"abc" + put(3) + b"def")
    assert connection.statuses() == [413, 200]


def test_a_continue_never_comes_in_the_middle_of_an_answer() -> None:
    async def hasty(request: Any) -> bytes:
        request.setHeader(b"content-length", b"5")
        request.write(b"he")
        return b"llo" + (await content_of(request))[:0]

    serving = Serving(hasty)
    connection = serving.connect()
    connection.send(put(3, "Expect: 100-continue"))
    connection.send(b"abc")
    assert CONTINUE not in connection.received


# Backpressure


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_the_client_is_paused_when_a_mebibyte_is_unread(coding: str) -> None:
    """Case 15."""
    gate = Gate(length_of)
    serving = Serving(gate)
    connection = serving.connect()
    content = bytes(8 * MIB)
    if coding == "length":
        connection.send(put(len(content)) + content)
    else:
        connection.send(CHUNKED + chunked(content, 100_000))
    assert not connection.reading
    assert MIB <= serving.body.received + 4096 <= MIB + LARGEST_PIECE_BYTES + 4096
    assert connection.unread >= 6 * MIB
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert connection.answers()[0].content == b"%d" % len(content)
    assert connection.reading


def test_content_is_received_in_larger_pieces_than_requests() -> None:
    gate = Gate()
    serving = Serving(gate)
    connection = serving.connect()
    sizes = [connection.bufferSize]
    connection.send(put(10))
    sizes.append(connection.bufferSize)
    connection.send(bytes(10))
    gate.opened.callback(None)
    serving.clock.advance(0)
    sizes.append(connection.bufferSize)
    assert sizes == [1 << 16, LARGEST_PIECE_BYTES, 1 << 16]


def test_a_drained_transport_does_not_end_a_pause() -> None:
    gate = Gate(length_of)
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(put(4 * MIB) + bytes(4 * MIB))
    received = serving.body.received
    connection.channel.pauseProducing()  # as a transport does whose output is not taken
    connection.channel.resumeProducing()  # and then is
    serving.clock.advance(0)
    assert not connection.reading
    assert serving.body.received == received
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert connection.answers()[0].content == b"%d" % (4 * MIB)


def test_a_client_that_does_not_take_its_answers_is_not_read_from() -> None:
    gate = Gate(length_of)
    serving = Serving(gate)
    connection = serving.connect(window=0)
    connection.send(GET * 2000 + put(4 * MIB) + bytes(4 * MIB))
    assert not connection.reading
    connection.take()
    gate.opened.callback(None)
    serving.clock.advance(0)
    *got, last = connection.answers()
    assert [answer.content for answer in got] == [GOT] * 2000
    assert last.content == b"%d" % (4 * MIB)


# Early answers


@pytest.mark.parametrize("rest", [1, 100_000, LINGER_BYTES - 1, LINGER_BYTES])
@pytest.mark.parametrize("together", [True, False])
def test_a_small_rest_is_dropped_and_the_connection_kept(rest: int, together: bool) -> None:
    """Case 46."""
    serving = Serving(refuse)
    connection = serving.connect()
    connection.send(put(rest))
    (answer,) = connection.answers()
    assert (answer.status, answer.headers.get("connection")) == (413, None)
    if together:
        connection.send(bytes(rest) + GET + put(3))
    else:
        connection.send(bytes(rest))
        connection.send(GET + put(3))
    assert connection.statuses() == [413, 200, 413]
    assert connection.answers()[1].content == GOT
    connection.send(b"abc" + GET)
    assert connection.statuses() == [413, 200, 413, 200]
    serving.clock.advance(LINGER_S * 2)
    assert connection.connected
    serving.clock.advance(IDLE_S)
    serving.assert_nothing_stays()


@pytest.mark.parametrize("before", [1, 1000, 100_000])
@pytest.mark.parametrize("rest", [100_000, LINGER_BYTES])
def test_the_next_requests_do_not_count_as_rest(rest: int, before: int) -> None:
    """Case 97. They are received in one piece with the last content."""
    serving = Serving(refuse)
    connection = serving.connect()
    connection.send(put(rest))
    connection.send(bytes(before))
    connection.send(bytes(rest - before) + GET * 2000 + put(3) + b"abc" + GET)
    assert connection.statuses() == [413, *[200] * 2000, 413, 200]
    assert all("connection" not in answer.headers for answer in connection.answers())
    assert connection.connected


def test_content_that_is_there_already_does_not_count_as_rest() -> None:
    serving = Serving(refuse)
    connection = serving.connect()
    connection.send(put(LINGER_BYTES + 10) + bytes(10))
    assert "connection" not in connection.answers()[0].headers


BIG = LINGER_BYTES + 1
UNWANTED = [
    ("large", put(BIG), bytes(BIG + LARGEST_PIECE_BYTES)),
    ("huge", put(1 << 40), bytes(BIG + LARGEST_PIECE_BYTES)),
    ("unknown", CHUNKED + FIRST_CHUNK, chunked(bytes(BIG + LARGEST_PIECE_BYTES), 100_000)),
]
unwanted = pytest.mark.parametrize(
    ("request_head", "rest"), [row[1:] for row in UNWANTED], ids=[row[0] for row in UNWANTED]
)


@unwanted
def test_a_large_rest_is_dropped_for_a_while_and_then_the_connection_closed(
    request_head: bytes, rest: bytes
) -> None:
    serving = Serving(refuse)
    connection = serving.connect()
    connection.send(request_head)
    (answer,) = connection.answers()
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert connection.half_closed  # the client sees the end of the answer now
    connection.send(rest[: LINGER_BYTES - 1000])
    assert connection.connected
    assert connection.unread == 0
    connection.send(rest[LINGER_BYTES - 1000 :])
    assert not connection.connected
    assert not connection.aborted
    assert len(connection.answers()) == 1
    serving.assert_nothing_stays()


@unwanted
def test_after_a_while_a_connection_with_a_large_rest_is_closed(
    request_head: bytes, rest: bytes
) -> None:
    """Case 24."""
    serving = Serving(refuse)
    connection = serving.connect()
    connection.send(request_head)
    serving.clock.advance(LINGER_S / 2)
    connection.send(rest[:1000])
    serving.clock.advance(LINGER_S / 2 - 0.1)
    assert connection.connected
    serving.clock.advance(0.1)
    assert not connection.connected
    serving.assert_nothing_stays()


def test_a_small_rest_has_its_time_too() -> None:
    """Cases 24 and 97."""
    serving = Serving(refuse)
    connection = serving.connect()
    connection.send(put(10) + b"12345")
    (answer,) = connection.answers()
    assert "connection" not in answer.headers
    serving.clock.advance(LINGER_S)
    refused, late = connection.answers()
    assert refused == answer
    assert_refused(late, 408)
    assert connection.half_closed
    serving.clock.advance(LAST_LINGER_S)
    assert not connection.connected
    assert not connection.aborted
    assert len(connection.answers()) == 2
    serving.assert_nothing_stays()


def test_an_unknown_rest_that_ends_soon_ends_the_connection() -> None:
    serving = Serving(refuse)
    connection = serving.connect()
    connection.send(CHUNKED + FIRST_CHUNK)
    connection.send(chunked(b"abc", 1) + GET)
    assert not connection.connected
    assert connection.statuses() == [413]
    serving.assert_nothing_stays()


def test_an_early_answer_lets_a_held_client_go_on() -> None:
    gate = Gate(refuse)
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(put(2 * MIB) + bytes(2 * MIB) + GET)
    assert not connection.reading
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert connection.statuses() == [413, 200]
    assert serving.memory.allowance == EACH_BYTES


def test_a_client_that_takes_a_large_early_answer_slowly_gets_all_of_it() -> None:
    async def answer(request: Any) -> bytes:
        return b"a" * MIB

    serving = Serving(answer)
    connection = serving.connect(window=0)
    connection.send(put(10) + b"0123456789" + GET)
    for _ in range(10):
        connection.take(MIB // 10)
    connection.take()
    assert [len(a.content) for a in connection.answers()] == [MIB, len(GOT)]


@pytest.mark.parametrize("ended", [False, True])
def test_a_client_may_leave_after_an_early_answer(ended: bool) -> None:
    serving = Serving(refuse)
    connection = serving.connect()
    connection.send(put(10) + (b"0123456789" if ended else b"01234"))
    connection.leave()
    serving.assert_nothing_stays()
    assert serving.stream.cancelled == 0


# Clients that go


@pytest.mark.parametrize(
    "sent",
    [put(10), put(10) + b"12345", CHUNKED + b"3\r\nabc\r\n", CHUNKED + b"3\r\nab"],
)
def test_a_client_that_leaves_ends_its_handler(serving: Serving, sent: bytes) -> None:
    """Case 1."""
    connection = serving.connect()
    connection.send(sent)
    connection.leave()
    assert serving.stream.cancelled == 1
    assert connection.received == b""
    serving.assert_nothing_stays()


@pytest.mark.parametrize("sent", [2 * MIB, 100], ids=["held", "waiting"])
def test_a_reader_that_nobody_cancels_is_told_that_the_client_has_gone(sent: int) -> None:
    """Case 1."""
    serving = Serving(Gate())
    connection = serving.connect()
    connection.send(put(4 * MIB) + bytes(sent))
    body = serving.body
    connection.leave()
    with pytest.raises(ConnectionLost):
        result(Deferred.fromCoroutine(body.read()))
    serving.assert_nothing_stays()


def test_a_client_that_leaves_in_the_turn_of_its_request_is_not_served(serving: Serving) -> None:
    connection = serving.connect()
    connection.channel.dataReceived(put(10))
    connection.leave()
    assert serving.stream.requests == []
    serving.assert_nothing_stays()


def test_whole_content_is_read_though_its_client_left_while_it_waited() -> None:
    """Case 51."""
    lengths: list[int] = []

    async def note(request: Any) -> bytes:
        lengths.append(len(await content_of(request)))
        return b""

    gate = Gate(note)
    serving = Serving(gate)
    connection = serving.connect()
    connection.send(put(MIB + 10) + bytes(MIB + 10) + GET)
    connection.leave()
    assert serving.stream.cancelled == 0
    gate.opened.callback(None)
    assert lengths == [MIB + 10]
    serving.clock.advance(0)
    serving.assert_nothing_stays()


# Chunked content that is none


@pytest.mark.parametrize(
    "broken",
    [b"zz\r\n", b"-1\r\n", b"+3\r\nabc\r\n", b"3\r\nabcd\r\n", b"3\r\nab\r\n\r\n"],
)
@pytest.mark.parametrize("good", [b"", b"5\r\nhello\r\n"])
def test_broken_chunks_fail_the_content_and_nothing_after_is_a_request(
    good: bytes, broken: bytes
) -> None:
    """Case 46."""
    serving = Serving()
    connection = serving.connect()
    connection.send(CHUNKED + good)
    connection.send(broken + GET)
    connection.send(GET)
    (answer,) = connection.answers()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert b"chunked" in answer.content
    assert connection.half_closed
    serving.clock.advance(LINGER_S)
    assert not connection.connected
    assert len(serving.stream.requests) == 1
    serving.assert_nothing_stays()


@pytest.mark.parametrize("together", [False, True])
def test_chunks_before_a_break_are_read_before_the_failure(together: bool) -> None:
    seen: list[bytes] = []

    async def collect(request: Any) -> bytes:
        async for chunks in request.body:
            seen.extend(chunks)
        return b"whole"

    serving = Serving(collect)
    connection = serving.connect()
    sent = CHUNKED + b"5\r\nhello\r\n", b"zz\r\n"
    for piece in [b"".join(sent)] if together else sent:
        connection.send(piece)
    (answer,) = connection.answers()
    assert answer.status == 400
    assert b"after 5 bytes" in answer.content
    assert seen == [b"hello"]


def test_a_break_after_the_answer_began_closes_all_the_same() -> None:
    async def refuse_at_once(request: Any) -> bytes:
        raise Malformed("no")

    serving = Serving(refuse_at_once)
    connection = serving.connect()
    connection.send(CHUNKED)
    connection.send(b"zz\r\n" + GET)
    serving.clock.advance(LINGER_S)
    assert connection.statuses() == [400]
    assert not connection.connected
    serving.assert_nothing_stays()


def test_a_content_that_is_announced_and_broken_is_no_request_at_all(serving: Serving) -> None:
    """Case 37."""
    for framing in (
        ["Content-Length: -1"],
        ["Content-Length: +1"],
        ["Content-Length: 1, 1"],
        ["Content-Length: 3", "Content-Length: 3"],
        ["Content-Length: 3", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip, chunked"],
    ):
        connection = serving.connect()
        connection.send(head(*framing) + b"abc" + GET)
        (answer,) = connection.answers()
        assert_refused(answer, 400)
        assert connection.half_closed, framing
        serving.clock.advance(LINGER_S)
        assert not connection.connected
    assert serving.stream.requests == []
    serving.assert_nothing_stays()


# Connections


@pytest.mark.parametrize(
    ("line", "headers"),
    [("HTTP/1.0", []), ("HTTP/1.1", ["Connection: close"])],
    ids=["1.0", "close"],
)
def test_the_last_request_of_a_connection_ends_it(
    serving: Serving, line: str, headers: list[str]
) -> None:
    connection = serving.connect()
    connection.send(put(3, *headers).replace(b"HTTP/1.1", line.encode()))
    connection.send(b"abc" + GET)
    head_end = connection.received.index(b"\r\n\r\n") + 4
    assert b" 200 OK" in connection.received[:head_end]
    assert connection.received[head_end:] == b"abc"
    assert not connection.connected
    serving.assert_nothing_stays()


def test_an_old_client_is_never_told_to_continue(serving: Serving) -> None:
    connection = serving.connect()
    connection.send(put(3, "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0") + b"abc")
    assert b"100 Continue" not in connection.received
    assert connection.received.endswith(b"abc")


def test_a_site_without_connections_is_disconnected_at_once(serving: Serving) -> None:
    assert outcome(serving.site.disconnect()) == [None]


def test_a_site_is_disconnected_when_its_last_connection_is_gone() -> None:
    """Case 47."""
    serving = Serving(Gate())
    connections = [serving.connect() for _ in range(3)]
    connections[0].send(put(10) + b"12345")
    connections[1].send(GET)
    connections[2].leave()
    first, second = outcome(serving.site.disconnect()), outcome(serving.site.disconnect())
    assert (first, second) == ([], [])
    serving.clock.advance(0)
    assert (first, second) == ([None], [None])
    assert connections[0].aborted
    assert connections[1].aborted
    assert serving.stream.cancelled == 1
    serving.assert_nothing_stays()


def test_a_site_does_not_offer_http_2(serving: Serving) -> None:
    assert serving.site.acceptableProtocols() == [b"http/1.1"]

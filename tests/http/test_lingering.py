"""Lingering connections: how many of them are read at the same time (case 85)."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISystemHandle
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from tests.http.connection import PEER, Connection, SocketConnection
from tests.http.test_half_closed import Encrypted
from tests.http.test_site import Serving, head, put, refuse
from tests.turning import TurningClock
from twistedmedia.fairness.loop_queue import PIECE_BYTES
from twistedmedia.fairness.pace import RECENT_S
from twistedmedia.http.admission import ConnectionLimits
from twistedmedia.http.body import IStreamsBody
from twistedmedia.http.closing import DROP_TURNS
from twistedmedia.http.lingering import (
    LAST_LINGER_S,
    LINGER_S,
    MOST_LINGERING,
    MOST_WAITING,
    CloseTimeout,
    Lingering,
    LingeringConnections,
)
from twistedmedia.http.site import IDLE_GRACE_S
from twistedmedia.http.transport import LINGER_BUFFER_BYTES, unread_bytes

LARGE = 16 << 20


MALFORMED = b"GET / HTP/1.1\r\n\r\n"
PIECE = bytes(PIECE_BYTES)


@implementer(ISystemHandle)
class Held:
    """A transport with a socket."""

    def __init__(self, held: socket.socket) -> None:
        self._held = held

    def getHandle(self) -> socket.socket:
        return self._held


def drop(serving: Serving) -> None:
    """Run the turns that drop the sent data."""
    for _ in range(1000):
        serving.clock.advance(0.001)


@pytest.mark.parametrize("sent", [put(LARGE), MALFORMED])
def test_some_connections_of_one_client_are_read_and_further_ones_wait(sent: bytes) -> None:
    serving = Serving(refuse)
    other = serving.connect(peer=type(PEER)("TCP", "192.0.2.99", 1))
    crowd = [serving.connect() for _ in range(MOST_LINGERING + 3)]
    for connection in [*crowd, other]:
        connection.send(sent)
        connection.send(PIECE)
        assert len(connection.statuses()) == 1
        assert connection.half_closed
    drop(serving)
    assert other.reading
    assert [connection.reading for connection in crowd] == [True] * MOST_LINGERING + [False] * 3
    crowd[0].leave()
    assert [connection.reading for connection in crowd[-3:]] == [True, False, False]
    serving.clock.advance(LINGER_S / 2)
    crowd[1].leave()
    serving.clock.advance(LINGER_S / 2)
    # The last but one has been read for half of the time, and the last one since now.
    assert [connection.connected for connection in crowd[-2:]] == [True, True]
    assert not any(connection.connected for connection in crowd[:-2])
    serving.clock.advance(2 * LINGER_S)
    assert not any(connection.connected for connection in [other, *crowd])
    serving.assert_nothing_stays()


def test_a_connection_that_has_sent_much_waits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data in the kernel is not read."""
    monkeypatch.setattr("twistedmedia.http.closing.unread_bytes", lambda _: PIECE_BYTES)
    serving = Serving(refuse)
    crowd = [serving.connect() for _ in range(MOST_LINGERING + 1)]
    for connection in crowd:
        connection.send(put(LARGE))
    assert [connection.reading for connection in crowd] == [True] * MOST_LINGERING + [False]
    for connection in crowd:
        connection.leave()
    serving.assert_nothing_stays()


def test_a_connection_that_sends_small_pieces_waits_if_the_kernel_has_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TLS delivers pieces of at most 16 KiB."""
    monkeypatch.setattr("twistedmedia.http.closing.unread_bytes", lambda _: PIECE_BYTES // 2)
    serving = Serving(refuse)
    crowd = [serving.connect() for _ in range(MOST_LINGERING + 1)]
    for connection in crowd:
        connection.send(put(LARGE))
        connection.send(PIECE[: PIECE_BYTES // 2])
    drop(serving)
    assert [connection.reading for connection in crowd] == [True] * MOST_LINGERING + [False]
    for connection in crowd:
        connection.leave()
    serving.assert_nothing_stays()


def test_the_kernel_reports_unread_bytes() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert unread_bytes(Held(ours)) == 0
        theirs.sendall(bytes(70_000))
        assert unread_bytes(Held(ours)) == 70_000
        assert len(ours.recv(1_000)) == 1_000
        assert unread_bytes(Held(ours)) == 69_000
    assert unread_bytes(StringTransport()) == 0


def test_connections_that_send_little_after_the_response_do_not_count() -> None:
    """They cost nothing, and would connect again if they were closed."""
    serving = Serving(refuse)
    crowd = [serving.connect() for _ in range(2 * MOST_LINGERING + MOST_WAITING)]
    for connection in crowd:
        connection.send(put(LARGE))
        connection.send(PIECE[1:])
    drop(serving)
    assert all(connection.reading for connection in crowd)
    for connection in crowd:
        connection.leave()
    serving.assert_nothing_stays()


def test_refused_connections_do_not_count() -> None:
    """They have a limit of their own."""
    serving = Serving(refuse, connection_limits=ConnectionLimits(per_address=1))
    crowd = [serving.connect() for _ in range(2 * MOST_LINGERING)]
    for connection in crowd[1:]:
        connection.send(PIECE)
    drop(serving)
    assert [connection.statuses() for connection in crowd] == [[]] + [[429]] * (len(crowd) - 1)
    assert all(connection.reading for connection in crowd)
    for connection in crowd:
        connection.leave()
    serving.assert_nothing_stays()


@pytest.mark.parametrize("sent", [put(LARGE), b"GET", MALFORMED])
def test_a_refused_connection_gets_its_response_over_tls_after_it_has_sent_something(
    sent: bytes,
) -> None:
    """Nothing can be sent before the handshake."""
    serving = Serving(refuse, connection_limits=ConnectionLimits(per_address=1))
    first = serving.connect()
    connection = Encrypted(serving.site, serving.clock)
    assert connection.received == b""
    connection.send(sent)
    connection.send(PIECE)
    assert connection.statuses() == [429]
    serving.clock.advance(LINGER_S)
    serving.clock.advance(LINGER_S)
    assert not connection.connected
    silent = Encrypted(serving.site, serving.clock)
    serving.clock.pump([1] * 30)
    assert not silent.connected
    assert silent.received == b""
    first.leave()
    serving.assert_nothing_stays()


def test_a_connection_that_ends_while_it_waits_takes_no_turn() -> None:
    serving = Serving(refuse)
    crowd = [serving.connect() for _ in range(MOST_LINGERING + 2)]
    for connection in crowd:
        connection.send(put(LARGE))
        connection.send(PIECE)
    drop(serving)
    crowd[-2].leave()
    crowd[0].leave()
    assert crowd[-1].reading
    for connection in crowd[1:]:
        connection.leave()
    serving.assert_nothing_stays()


def test_a_connection_that_has_lingered_for_long_gives_way_to_new_ones() -> None:
    """It has its response."""
    serving = Serving(refuse)
    connection = serving.connect()
    connection.send(put(LARGE))
    assert connection.channel.pace() is None
    serving.clock.advance(RECENT_S)
    assert connection.channel.pace() == 0
    connection.channel.give_way()
    serving.clock.advance(0)
    assert not connection.connected
    serving.assert_nothing_stays()


def test_the_connection_that_has_waited_longest_is_closed_for_the_next() -> None:
    serving = Serving(refuse)
    read = [serving.connect() for _ in range(MOST_LINGERING)]
    waiting = [serving.connect() for _ in range(MOST_WAITING + 3)]
    for connection in read + waiting:
        connection.send(put(LARGE))
        connection.send(PIECE)
    serving.clock.advance(0)
    assert [connection.connected for connection in waiting] == [False] * 3 + [True] * MOST_WAITING
    assert all(connection.connected for connection in read)
    for connection in read + waiting:
        connection.leave()
    serving.assert_nothing_stays()


@pytest.mark.parametrize("takes_later", [False, True])
def test_a_connection_that_is_closed_for_the_next_has_its_response(
    monkeypatch: pytest.MonkeyPatch, takes_later: bool
) -> None:
    """All responses are written in one turn of the loop, and the transport sends in the next."""
    monkeypatch.setattr("twistedmedia.http.closing.unread_bytes", lambda _: PIECE_BYTES)
    decided: Deferred[bytes] = Deferred()

    async def decide_later(request: Any) -> bytes:
        await decided
        return await refuse(request)

    serving = Serving(decide_later)
    window = 0 if takes_later else None
    crowd = [serving.connect(window) for _ in range(MOST_LINGERING + MOST_WAITING + 3)]
    for connection in crowd:
        connection.send(put(LARGE))
    decided.callback(b"")
    serving.clock.advance(0)
    if takes_later:
        assert all(connection.connected for connection in crowd)
        for connection in crowd:
            connection.take()
    assert [connection.statuses() for connection in crowd] == [[413]] * len(crowd)
    assert [connection.connected for connection in crowd] == [
        *[True] * MOST_LINGERING,
        *[False] * 3,
        *[True] * MOST_WAITING,
    ]
    for connection in crowd:
        connection.leave()
    serving.assert_nothing_stays()


def test_when_the_site_closes_waiting_connections_end_like_the_others() -> None:
    serving = Serving(refuse)
    crowd = [serving.connect() for _ in range(2 * MOST_LINGERING)]
    for connection in crowd:
        connection.send(put(LARGE))
        connection.send(PIECE)
    serving.site.close()
    serving.clock.advance(LAST_LINGER_S)
    assert not any(connection.connected for connection in crowd)
    serving.clock.advance(IDLE_GRACE_S)
    serving.assert_nothing_stays()


@pytest.mark.parametrize("size", [3, LARGE])
def test_connections_that_have_lingered_do_not_count(size: int) -> None:
    serving = Serving(refuse)
    for _ in range(2 * MOST_LINGERING):
        connection = serving.connect()
        connection.send(put(size))
        if size != LARGE:
            connection.send(bytes(size))  # now it is kept
        assert not connection.aborted
        connection.leave()
    serving.assert_nothing_stays()


def test_some_kept_connections_drop_much_and_further_ones_are_closed() -> None:
    """A connection that was promised to be kept is not closed."""
    serving = Serving(refuse)

    def is_kept(connection: Connection) -> bool:
        return "connection" not in connection.answers()[0].headers

    def ask(size: int) -> Connection:
        connection = serving.connect()
        connection.send(put(size))
        return connection

    first = [ask(len(PIECE) + 1) for _ in range(MOST_LINGERING)]
    assert all(map(is_kept, first))
    assert not is_kept(ask(len(PIECE) + 1))
    assert is_kept(ask(len(PIECE)))
    first[0].send(PIECE + b"x")
    drop(serving)  # it does not linger any more
    assert is_kept(ask(len(PIECE) + 1))
    assert not is_kept(ask(len(PIECE) + 1))
    for connection in [ask(LARGE) for _ in range(MOST_LINGERING + MOST_WAITING + 1)]:
        connection.send(PIECE)
    drop(serving)
    assert not any(connection.aborted for connection in first)
    first[0].leave()
    for _ in range(20):
        serving.clock.advance(LINGER_S)
    serving.assert_nothing_stays()


class Begins(Resource):
    """Begins its responses; the test ends them."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []

    def render(self, request: Any) -> int:
        self.requests.append(request)
        request.write(b"no")
        return NOT_DONE_YET


@pytest.mark.parametrize("arrives", [True, False])
def test_connections_whose_responses_have_begun_count_as_kept(arrives: bool) -> None:
    """Until the content has arrived, or the connection is lost."""
    serving = Serving()
    serving.stream = implementer(IStreamsBody)(Begins)()
    serving.site.resource.putChild(b"begins", serving.stream)
    ask = put(len(PIECE) + 1, path="/begins")

    def is_kept() -> list[bool]:
        return [b"\r\nConnection: close" not in connection.received for connection in crowd]

    crowd = [serving.connect() for _ in range(MOST_LINGERING + 1)]
    for connection in crowd:
        connection.send(ask)
    assert is_kept() == [True] * MOST_LINGERING + [False]
    first = crowd.pop(0)
    if arrives:
        first.send(PIECE + b"x")
        serving.stream.requests[0].finish()
    else:
        first.leave()
    crowd.append(serving.connect())
    crowd[-1].send(ask)
    assert is_kept()[-1]
    for connection in [first, *crowd] if arrives else crowd:
        connection.leave()
    serving.assert_nothing_stays()


def test_the_time_to_linger_does_not_pass_while_a_connection_waits_for_its_turn() -> None:
    """A peer that sends all content before it reads gets the response, also in a crowd."""
    clock = TurningClock()
    serving = Serving(refuse, clock=clock)
    content = bytes(16 * PIECE_BYTES)
    crowd = [serving.connect() for _ in range(MOST_LINGERING)]
    for connection in crowd:
        connection.send(put(len(content)) + content)
    while any(connection.unread for connection in crowd):
        clock.spend(0.1)  # much is left after LINGER_S
        clock.turn()
    assert clock.seconds() > 5 * LINGER_S
    assert [connection.statuses() for connection in crowd] == [[413]] * MOST_LINGERING
    assert all(connection.connected for connection in crowd)
    crowd[0].send(put(3))  # of it nothing waits
    for _ in range(20):
        clock.spend(LINGER_S / 10)
        clock.turn()
    assert crowd[0].statuses() == [413, 413, 408]
    for connection in crowd:
        connection.leave()
    serving.assert_nothing_stays()


def test_a_connection_with_slow_content_is_kept() -> None:
    """Clients that send all they have before they read the response are seldom fast."""
    serving = Serving(refuse)
    connection = serving.connect()
    connection.send(put(2 << 20))
    for _ in range(16):
        serving.clock.advance(1)
        connection.send(bytes(128 << 10))
        serving.clock.advance(0)
    connection.send(put(0))
    assert connection.statuses() == [413, 413]
    connection.leave()
    serving.assert_nothing_stays()


def test_the_kernel_buffers_little_dropped_content_unless_the_connection_is_kept() -> None:
    serving = Serving(refuse)
    for size, buffer_bytes in ((LARGE, LINGER_BUFFER_BYTES), (3, None)):
        connection = SocketConnection(serving.site, serving.clock)
        connection.send(put(size))
        options = connection.socket.options
        assert options.get((socket.SOL_SOCKET, socket.SO_RCVBUF)) == buffer_bytes
        connection.leave()
    serving.assert_nothing_stays()


@pytest.mark.parametrize("closes_first", [True, False])
def test_when_the_site_closes_a_peer_has_less_time_to_agree_to_the_end(closes_first: bool) -> None:
    """RFC 8446, 6.1: under TLS both sides have to close, and many clients do not."""
    serving = Serving()
    connection = serving.connect()
    parting = CloseTimeout(serving.clock.callLater)
    if not closes_first:
        parting.begin(connection.channel)
    parting.shorten(LAST_LINGER_S)
    parting.begin(connection.channel)
    serving.clock.advance(LAST_LINGER_S)
    assert connection.aborted
    serving.clock.advance(0)
    serving.assert_nothing_stays()


class Unwilling(Encrypted):
    """Its peer does not agree to the end."""

    def loseConnection(self) -> None:
        """Wait for the peer to close as well."""


def test_when_the_site_closes_a_tls_peer_has_less_time_to_close() -> None:
    serving = Serving()
    connection = Unwilling(serving.site, serving.clock)
    connection.send(head("Connection: close", method="GET", path="/plain"))
    assert connection.statuses() == [200]
    serving.clock.advance(LAST_LINGER_S)
    assert connection.connected
    serving.site.close()
    serving.clock.advance(LAST_LINGER_S)
    serving.clock.advance(0)
    assert not connection.connected
    serving.assert_nothing_stays()


def test_a_waiting_connection_ends_as_soon_as_the_others_when_the_site_closes() -> None:
    clock, ended = Clock(), []
    lingering = Lingering(clock, LingeringConnections())
    lingering.begin(lambda: ended.append(clock.seconds()))
    clock.advance(LINGER_S / 2)
    lingering.wait()
    clock.advance(LINGER_S / 4)
    lingering.shorten(LAST_LINGER_S)
    clock.advance(LAST_LINGER_S)
    assert ended == [LINGER_S * 3 / 4 + LAST_LINGER_S]
    lingering.end()


def test_dropping_makes_room_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise clients whose content is dropped would have turns of the queue as well."""
    serving = Serving(refuse)
    turns: list[int] = []
    monkeypatch.setattr(serving.site.queue, "make_room", turns.append)
    connection = serving.connect()
    connection.send(put(LARGE))
    connection.send(PIECE)
    drop(serving)
    assert turns == [DROP_TURNS]
    connection.leave()
    serving.assert_nothing_stays()

"""One fetch, and what an upstream can send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.internet.task import Clock

from tests.fetch.reactor import (
    LIMITS,
    LONG,
    PUBLIC,
    RECEIVE_BYTES,
    Network,
    Peer,
    RunningFetch,
    World,
    head,
)
from tests.http.connection import outcome
from twistedmedia.errors import (
    AddressRefused,
    Busy,
    MediaError,
    UpstreamBrokeOff,
    UpstreamFailed,
    UpstreamTooSlow,
)
from twistedmedia.fairness.loop_queue import LoopQueue
from twistedmedia.fetch.agent import CONNECT_S, KEEP_S
from twistedmedia.fetch.content import LEAST_BYTES_PER_S, RATE_WINDOW_S
from twistedmedia.fetch.fetcher import MAX_REDIRECTS, FetchLimits, Upstream
from twistedmedia.fetch.policy import Policy, parse_allow_rule
from twistedmedia.fetch.timings import Timings
from twistedmedia.fetch.urls import parse_url
from twistedmedia.http.body import EACH_BYTES
from twistedmedia.http.heads import MAX_INTERIM, MAX_RESPONSE_HEAD_BYTES

URL = "http://example.org/a.mp3"
MIB = 1 << 20


def connected_fetch(
    world: World, url: str | None = URL, **headers: str
) -> tuple[RunningFetch, Peer]:
    """Begin a fetch and connect it; with its peer."""
    fetch = world.fetch(url)
    return fetch, world.accept()


def fetch_whole(world: World, content: bytes = b"kept") -> Peer:
    """Make a successful fetch, whose connection is kept idle."""
    fetch, peer = connected_fetch(world)
    peer.respond(content)
    assert fetch.whole == content
    return peer


# Requests and responses.


def test_a_request_has_the_expected_headers_only(world: World) -> None:
    fetch = world.fetch(
        "http://example.org:80/a%20b.mp3?c=d%2Fe&f#fragment", headers={"X-Own": "1"}
    )
    peer = world.accept()
    assert peer.request() == {
        "": "GET /a%20b.mp3?c=d%2Fe&f HTTP/1.1",
        "host": "example.org",
        "user-agent": "twistedmedia",
        "accept": "*/*",
        "accept-encoding": "identity",
        "x-own": "1",
    }
    peer.respond(b"hello")
    assert fetch.whole == b"hello"


@pytest.mark.parametrize(
    ("rule", "url", "host"),
    [
        ("[::1]:8080", "http://[::1]:8080/", "[::1]:8080"),
        ("example.org:8080", "http://example.org:8080/", "example.org:8080"),
        ("127.0.0.1", "http://127.0.0.1/", "127.0.0.1"),
    ],
)
def test_the_host_is_sent_as_it_stands_in_the_url(
    make: Callable[..., World], rule: str, url: str, host: str
) -> None:
    world = make(policy=Policy((parse_allow_rule(rule),)))
    fetch, peer = connected_fetch(world, url)
    assert peer.request()["host"] == host
    peer.respond()
    assert fetch.whole == b""


@pytest.mark.parametrize(
    "pieces",
    [
        [head(Content_Length="5") + b"hello"],
        [head(Content_Length="5"), b"hel", b"lo"],
        [bytes([each]) for each in head(Content_Length="5") + b"hello"],
        [head(Transfer_Encoding="chunked") + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200\nContent-Length: 5\n\nhello"],  # what some servers send
        [head(100), head(103, Link="</a>"), head(Content_Length="5") + b"hello"],
        [head(Content_Length="5") + b"hello, and more than was declared"],
    ],
)
def test_a_response_is_complete_however_it_is_split(world: World, pieces: list[bytes]) -> None:
    fetch, peer = connected_fetch(world)
    for piece in pieces:
        assert fetch.outcome == []
        peer.send(piece)
    assert fetch.whole == b"hello"
    assert peer.connected


@pytest.mark.parametrize("status", [200, 203, 204, 300, 304, 404, 451, 500, 503, 599])
def test_a_status_is_an_outcome_like_any_other(world: World, status: int) -> None:
    """Case 44."""
    fetch, peer = connected_fetch(world)
    peer.respond(b"", status)
    assert fetch.whole == b""
    assert fetch.response is not None
    assert (fetch.response.status, str(fetch.response.url)) == (status, URL)


def test_headers_are_found_whatever_their_case_and_joined_when_there_are_several(
    world: World,
) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(b'HTTP/1.1 200 OK\r\neTaG: "a"\r\nX-B: 1\r\nx-b: \xe9\r\nContent-Length: 0\r\n\r\n')
    assert fetch.whole == b""
    assert fetch.response is not None
    assert fetch.response.header("ETag") == '"a"'
    assert fetch.response.header("x-b") == "1, \xe9"
    assert fetch.response.header("x-c") is None


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ({"Content_Length": "3"}, 3),
        ({"Content_Length": "3, 3"}, 3),
        ({"Transfer_Encoding": "chunked"}, None),
        ({"Transfer_Encoding": "chunked", "Content_Length": "3"}, None),
        ({}, None),
    ],
)
def test_the_declared_length_is_available(
    world: World, fields: dict[str, str], length: int | None
) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(head(**fields))
    assert fetch.response is not None
    assert fetch.response.length == length
    fetch.cancel()


def test_a_response_without_a_length_is_complete_after_a_clean_close(
    world: World,
) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(head() + b"hello")
    assert fetch.outcome == []
    peer.close()
    assert fetch.whole == b"hello"


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (head() + b"hello", b"hello"),
        (head(Content_Length="6") + b"hello", b"hello"),
        (head(Transfer_Encoding="chunked") + b"5\r\nhello\r\n", b"hello"),
        (head(Transfer_Encoding="chunked") + b"9\r\nhello", b"hello"),
        (head(Content_Length="6"), b""),
    ],
)
def test_an_interrupted_response_is_incomplete(world: World, sent: bytes, content: bytes) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(sent)
    peer.reset()
    assert type(fetch.error) is UpstreamBrokeOff
    assert fetch.content == content
    assert str(fetch.error) == f"the upstream broke off after {len(content)} bytes"


@pytest.mark.parametrize(
    "sent",
    [
        head(Content_Length="6") + b"hello",
        head(Content_Length="9223372036854775807") + b"hello",
        head(Transfer_Encoding="chunked") + b"5\r\nhello\r\n",
    ],
)
def test_a_clean_close_before_the_declared_length_is_an_error(world: World, sent: bytes) -> None:
    """Case 9, of an upstream."""
    fetch = world.fetch(URL, LONG)
    peer = world.accept()
    peer.send(sent)
    peer.close()
    assert type(fetch.error) is UpstreamBrokeOff
    assert fetch.content == b"hello"


def test_malformed_chunks_are_not_http(world: World) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(head(Transfer_Encoding="chunked") + b"5\r\nhello\r\nnonsense\r\n")
    assert type(fetch.error) is UpstreamFailed
    assert fetch.content == b"hello"


# Redirects.


def redirect(to: str, status: int = 302, /, **headers: str) -> bytes:
    return head(status, Location=to, Content_Length="0", **headers)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(world: World, status: int) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(redirect("http://other.org/b?c", status))
    other = world.accept()
    assert other.request()[""] == "GET /b?c HTTP/1.1"
    assert other.request()["host"] == "other.org"
    other.respond(b"there")
    assert fetch.whole == b"there"
    assert fetch.response is not None
    assert str(fetch.response.url) == "http://other.org/b?c"


@pytest.mark.parametrize("status", [300, 304, 305, 306, 200, 201, 404])
def test_a_location_with_another_status_is_not_a_redirect(world: World, status: int) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(redirect("http://other.org/", status))
    assert fetch.whole == b""
    assert len(world.network.attempts) == 1


def test_a_redirect_without_a_location_is_a_response(world: World) -> None:
    fetch, peer = connected_fetch(world)
    peer.respond(b"moved", 301)
    assert fetch.whole == b"moved"
    assert fetch.response is not None
    assert fetch.response.status == 301


def test_each_location_is_resolved_against_its_own_hop(world: World) -> None:
    """treq resolves a relative one on the second hop wrongly (twisted #8265)."""
    fetch, peer = connected_fetch(world, "http://example.org/one/a")
    peer.send(redirect("http://other.org/two/b"))
    other = world.accept()
    other.send(redirect("c"))
    assert other.request()[""] == "GET /two/c HTTP/1.1"
    other.send(redirect("../d?e"))
    assert other.request()[""] == "GET /d?e HTTP/1.1"
    other.send(redirect("?f"))
    assert other.request()[""] == "GET /d?f HTTP/1.1"
    other.send(redirect("//third.org/g"))
    third = world.accept()
    assert third.request()[""] == "GET /g HTTP/1.1"
    third.respond(b"there")
    assert fetch.whole == b"there"
    assert world.network.connected_to == [("93.184.215.14", 80)] * 3


def test_ten_redirects_are_followed_and_an_eleventh_is_not(world: World) -> None:
    """Case 65."""
    fetch, peer = connected_fetch(world)
    for n in range(MAX_REDIRECTS):
        peer.send(redirect(f"/{n}"))
    peer.respond(b"there")
    assert fetch.whole == b"there"
    assert (len(peer.requests), MAX_REDIRECTS) == (11, 10)

    again = world.fetch(URL)
    for n in range(MAX_REDIRECTS + 1):
        assert again.outcome == []
        peer.send(redirect(f"/{n}"))
    assert type(again.error) is UpstreamFailed
    assert str(again.error) == "the upstream redirects more than 10 times"
    assert len(peer.requests) == 22


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("ftp://example.org/", "only http and https"),
        ("file:///etc/passwd", "only http and https"),
        ("http://user:secret@other.org/", "user name or password"),
        ("http://other.org:0/", "port"),
        ("http://other.org:99999/", "port"),
        ("http:///nowhere", "no host"),
        ("https:///nowhere", "no host"),
        ("http:nowhere", "no host"),
        ("http://o[ther.org/", ""),
        ("http://other .org/", "host"),
        ("http://other.org/a\x01b", "control character"),
        ("/" + "x" * 9000, "longer than"),
    ],
)
def test_a_location_that_cannot_be_fetched_is_a_failure_of_the_upstream(
    world: World, location: str, why: str
) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(redirect(location))
    world.network.turn()
    assert type(fetch.error) is UpstreamFailed
    assert str(fetch.error).startswith("the upstream redirects to a URL that cannot be fetched: ")
    assert why in str(fetch.error)
    assert len(world.network.attempts) == 1


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (redirect("http://other.org/"), True),
        (head(302, Location="http://other.org/", Content_Length="5"), False),
        (head(302, Location="http://other.org/", Content_Length="5") + b"hello", False),
        (head(302, Location="http://other.org/", Transfer_Encoding="chunked"), False),
        (head(302, Location="http://other.org/"), False),
    ],
)
def test_the_content_of_a_redirect_is_not_waited_for(world: World, sent: bytes, kept: bool) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(sent)
    other = world.accept()
    world.network.turn()
    assert peer.connected is kept
    assert peer.aborted is not kept
    other.respond(b"there")
    assert fetch.whole == b"there"


def test_headers_and_content_of_a_redirect_are_not_part_of_the_response(world: World) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(redirect("/b", Set_Cookie="id=1", Etag='"a"'))
    assert "cookie" not in peer.request()
    peer.respond(b"there", Set_Cookie="id=2")
    assert fetch.response is not None
    assert fetch.response.header("etag") is None
    world.fetch(URL).cancel()
    assert "cookie" not in peer.request()


@pytest.mark.parametrize(
    ("first", "second", "lifetime_s"),
    [
        ("max-age=60", "max-age=10", 10),
        ("max-age=10", "max-age=60", 10),
        ("no-store", "max-age=60", 0),
        ("", "max-age=60", 0),
        ("max-age=60", "", 0),
    ],
)
def test_the_lifetime_of_a_response_is_the_shortest_of_its_hops(
    world: World, first: str, second: str, lifetime_s: int
) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(redirect("/b", **({"Cache_Control": first} if first else {})))
    peer.respond(b"there", **({"Cache_Control": second} if second else {}))
    assert fetch.response is not None
    assert fetch.response.lifetime_s == lifetime_s


# The upstream's credentials.

OWN = Upstream(parse_url("http://example.org/page"), "Basic c2VjcmV0")


def test_the_upstream_gets_its_credentials_on_every_hop_within_its_origin(
    make: Callable[..., World],
) -> None:
    """Case 42."""
    world = make(upstream=OWN)
    fetch, peer = connected_fetch(world, None)
    assert peer.request()["authorization"] == "Basic c2VjcmV0"
    assert peer.request()[""] == "GET /page HTTP/1.1"
    peer.send(redirect("/other"))
    second = world.accept()
    assert second.request()["authorization"] == "Basic c2VjcmV0"
    second.respond(b"page")
    assert fetch.whole == b"page"


@pytest.mark.parametrize(
    ("location", "rule"),
    [
        ("http://other.org/page", ""),
        ("http://example.org:8080/page", "example.org:8080"),
        ("http://www.example.org/page", ""),
        ("http://example.org.other.org/page", ""),
    ],
)
def test_another_origin_does_not_get_them(
    make: Callable[..., World], location: str, rule: str
) -> None:
    """Case 42."""
    world = make(upstream=OWN, policy=Policy(tuple(map(parse_allow_rule, [rule] if rule else []))))
    for host in ("www.example.org", "example.org.other.org"):
        world.names.table[host] = world.names.table["other.org"]
    fetch, peer = connected_fetch(world, None)
    peer.send(redirect(location))
    other = world.accept()
    assert "authorization" not in other.request()
    other.respond(b"page")
    assert fetch.whole == b"page"


def test_credentials_are_not_restored_after_a_redirect_to_another_origin(
    make: Callable[..., World],
) -> None:
    """Case 42: else another origin could choose the request that they are sent with."""
    world = make(upstream=OWN)
    fetch, peer = connected_fetch(world, None)
    peer.send(redirect("http://other.org/"))
    world.accept().send(redirect("http://example.org/delete-it-all"))
    back = world.accept()
    assert back.request()[""] == "GET /delete-it-all HTTP/1.1"
    assert "authorization" not in back.request()
    back.respond(b"page")
    assert fetch.whole == b"page"


def test_a_url_of_the_upstream_that_a_request_names_gets_no_credentials(
    make: Callable[..., World],
) -> None:
    """Case 42."""
    world = make(upstream=OWN)
    fetch, peer = connected_fetch(world, "http://example.org/page")
    assert "authorization" not in peer.request()
    peer.respond(b"page")
    assert fetch.whole == b"page"


# Time limits.


def test_a_look_up_that_hangs_ends_with_the_time_to_the_headers(world: World) -> None:
    world.names.hang("example.org")
    fetch = world.fetch(URL)
    world.advance(LIMITS.head_s - 0.5)
    assert fetch.outcome == []
    world.advance(0.5)
    assert type(fetch.error) is UpstreamTooSlow
    assert str(fetch.error) == "the upstream took too long: no response came in time"
    assert world.network.attempts == []


def test_a_connection_that_is_not_accepted_ends_with_the_time_for_one(world: World) -> None:
    fetch = world.fetch(URL, FetchLimits(30, 20))
    world.advance(CONNECT_S - 0.5)
    assert fetch.outcome == []
    world.advance(0.5)
    assert str(fetch.error) == "the upstream took too long: it does not accept a connection"
    assert type(fetch.error) is UpstreamTooSlow


def test_connecting_ends_with_the_time_to_the_headers(world: World) -> None:
    fetch = world.fetch(URL, FetchLimits(30, 5))
    world.advance(4.5)
    assert (fetch.outcome, len(world.network.pending)) == ([], 1)
    world.advance(0.5)
    assert type(fetch.error) is UpstreamTooSlow
    assert world.network.pending == []


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", head(100)])
def test_headers_that_do_not_come_end_with_their_time(world: World, sent: bytes) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(sent)
    world.advance(LIMITS.head_s - 0.5)
    assert fetch.outcome == []
    world.advance(0.5)
    assert type(fetch.error) is UpstreamTooSlow
    assert peer.aborted


def test_headers_byte_by_byte_do_not_prolong_their_time(world: World) -> None:
    """Case 24, of an upstream."""
    fetch, peer = connected_fetch(world)
    for byte in head(Content_Length="5")[:19]:
        peer.send(bytes([byte]))
        world.advance(0.5)
    assert fetch.outcome == []
    world.advance(0.5)
    assert type(fetch.error) is UpstreamTooSlow


def test_redirects_do_not_prolong_the_time_to_the_headers(world: World) -> None:
    fetch, peer = connected_fetch(world)
    for n in range(4):
        world.advance(2)
        peer.send(redirect(f"/{n}"))
    world.advance(1.5)
    assert fetch.outcome == []
    world.advance(0.5)
    assert type(fetch.error) is UpstreamTooSlow
    assert peer.aborted


def test_the_content_has_the_time_in_all(world: World) -> None:
    fetch, peer = connected_fetch(world)
    world.advance(8)
    peer.send(head())
    for _ in range(21):
        peer.send(bytes(LEAST_BYTES_PER_S))
        world.advance(1)
    peer.send(bytes(100))
    world.advance(0.5)
    assert fetch.outcome == []
    world.advance(0.5)
    assert type(fetch.error) is UpstreamTooSlow
    assert str(fetch.error) == "the upstream took too long: not all of its content came in time"
    assert peer.aborted


def test_complete_content_can_be_read_at_any_later_time(world: World) -> None:
    """Else it would look complete although bytes are missing."""
    fetch = world.fetch(URL, read=False)
    world.accept().respond(b"hello")
    world.advance(LIMITS.total_s + 1)
    fetch.read()
    assert fetch.whole == b"hello"


def test_a_radio_that_never_ends_is_cut_off(world: World) -> None:
    """Case 23."""
    fetch, peer = connected_fetch(world)
    peer.send(head(icy_metaint="8192"))
    for second in range(int(LIMITS.total_s)):
        assert fetch.outcome == [], second
        peer.send(bytes(16_000))
        world.advance(1)
    assert type(fetch.error) is UpstreamTooSlow
    assert peer.aborted


@pytest.mark.parametrize(("bytes_per_s", "fast"), [(0, False), (255, False), (256, True)])
def test_an_upstream_that_drips_content_is_cut_off_after_a_window(
    world: World, bytes_per_s: int, fast: bool
) -> None:
    """Case 24, of an upstream."""
    fetch = world.fetch(URL, LONG)
    peer = world.accept()
    peer.send(head(Content_Length="1000000"))
    for _ in range(RATE_WINDOW_S):
        assert fetch.outcome == []
        peer.send(bytes(bytes_per_s))
        world.advance(1)
    if fast:
        assert fetch.outcome == []
        world.advance(RATE_WINDOW_S)
    assert type(fetch.error) is UpstreamTooSlow
    assert "fewer than 256 bytes a second" in str(fetch.error)
    assert peer.aborted


def test_a_burst_does_not_count_for_a_later_window(world: World) -> None:
    fetch = world.fetch(URL, LONG)
    peer = world.accept()
    peer.send(head() + bytes(100_000))
    world.advance(RATE_WINDOW_S)
    assert fetch.outcome == []
    world.advance(RATE_WINDOW_S)
    assert type(fetch.error) is UpstreamTooSlow


def test_an_upstream_is_not_slow_while_we_hold_it(world: World) -> None:
    fetch = world.fetch(URL, LONG, read=False)
    peer = world.accept()
    peer.send(head(Content_Length=str(3 * MIB)) + bytes(2 * MIB))
    assert peer.paused
    world.advance(10 * RATE_WINDOW_S)
    assert (fetch.outcome, peer.connected) == ([], True)
    fetch.read()
    assert not peer.paused
    world.advance(RATE_WINDOW_S)  # an incomplete window
    assert fetch.outcome == []
    world.advance(RATE_WINDOW_S)
    assert type(fetch.error) is UpstreamTooSlow
    assert peer.aborted


def test_time_while_the_upstream_is_paused_does_not_count(world: World) -> None:
    fetch = world.fetch(URL, LONG, read=False)
    peer = world.accept()
    peer.send(head())
    while not peer.paused:
        peer.send(bytes(1 << 12))  # the last is less than a window needs
    assert peer.unread == 0
    world.advance(1.5 * RATE_WINDOW_S)
    fetch.read()
    assert not peer.paused
    world.advance(RATE_WINDOW_S)
    assert fetch.outcome == []
    world.advance(RATE_WINDOW_S)
    assert type(fetch.error) is UpstreamTooSlow


# Size limits.

LIMITED = FetchLimits(total_s=1000, head_s=10, max_bytes=1000)


@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False), (1 << 62, False)])
def test_content_with_a_declared_length_above_the_limit_is_refused_at_once(
    world: World, size: int, fits: bool
) -> None:
    fetch = world.fetch(URL, LIMITED)
    peer = world.accept()
    peer.send(head(Content_Length=str(size)))
    if fits:
        assert fetch.outcome == []
        peer.send(bytes(size))
        assert fetch.whole == bytes(size)
    else:
        assert type(fetch.error) is UpstreamFailed
        assert str(fetch.error) == "the upstream sends more than the limit of 1000 bytes"
        assert (peer.aborted, fetch.response) == (True, None)


@pytest.mark.parametrize(
    ("fields", "frame"),
    [
        ({}, lambda data: data),
        ({"Transfer_Encoding": "chunked"}, lambda data: b"%x\r\n%s\r\n" % (len(data), data)),
    ],
)
def test_content_is_counted_while_it_is_received(
    world: World, fields: dict[str, str], frame: Callable[[bytes], bytes]
) -> None:
    """Case 22."""
    fetch = world.fetch(URL, LIMITED)
    peer = world.accept()
    peer.send(head(**fields) + frame(bytes(999)))
    peer.send(frame(b"x"))
    assert (fetch.outcome, peer.aborted) == ([], False)
    peer.send(frame(b"x"))
    assert type(fetch.error) is UpstreamFailed
    assert "limit of 1000 bytes" in str(fetch.error)
    assert peer.aborted


def test_without_a_limit_content_is_not_counted(world: World) -> None:
    fetch = world.fetch(URL, LONG)
    peer = world.accept()
    peer.send(head())
    for _ in range(20):
        peer.send(bytes(MIB))
        world.network.turn()
    peer.close()
    assert fetch.whole == bytes(20 * MIB)


@pytest.mark.parametrize("line", [b"X-Pad: " + b"x" * 1000 + b"\r\n", b"\tfolded" * 100 + b"\r\n"])
def test_endless_headers_are_cut_off(world: World, line: bytes) -> None:
    """Case 22."""
    fetch, peer = connected_fetch(world)
    peer.send(b"HTTP/1.1 200 OK\r\nX: y\r\n")
    sent = 0
    while not fetch.outcome:
        peer.send(line)
        sent += len(line)
        assert sent < MAX_RESPONSE_HEAD_BYTES + 4 * len(line)
        world.network.turn()
    assert sent >= MAX_RESPONSE_HEAD_BYTES
    assert type(fetch.error) is UpstreamFailed
    assert f"more than {MAX_RESPONSE_HEAD_BYTES} bytes of headers" in str(fetch.error)
    assert not peer.connected


def test_a_line_without_an_end_is_cut_off(world: World) -> None:
    fetch, peer = connected_fetch(world)
    for _ in range(200):
        if peer.connected:
            peer.send(b"x" * 1000)
            world.network.turn()
    assert type(fetch.error) is UpstreamFailed
    assert not peer.connected


def test_a_flood_of_interim_responses_is_cut_off(world: World) -> None:
    fetch, peer = connected_fetch(world)
    sent = 0
    while not fetch.outcome:
        peer.send(head(103, Link="</a.css>; rel=preload"))
        sent += len(head(103, Link="</a.css>; rel=preload"))
        assert sent < MAX_RESPONSE_HEAD_BYTES + 1000
        world.network.turn()
    assert "of headers" in str(fetch.error)
    assert not peer.connected


def test_headers_up_to_the_limit_are_accepted(world: World) -> None:
    fetch, peer = connected_fetch(world)
    fields = b"X-Pad: " + b"x" * 8000 + b"\r\n"
    for piece in (b"HTTP/1.1 200 OK\r\n", *[fields] * 8, b"Content-Length: 1\r\n\r\n", b"x"):
        peer.send(piece)
    world.network.turn()
    assert fetch.whole == b"x"


def test_bytes_that_follow_the_head_at_once_are_content(world: World) -> None:
    fetch, peer = connected_fetch(world)
    content = bytes(MIB)
    peer.send(head(Content_Length=str(len(content))) + content)
    world.network.turn()
    assert fetch.whole == content


REAL_CODINGS = [
    *("gzip", "deflate", "br", "x-gzip", "GZIP", "identity, gzip", "zstd", "compress", "dcb"),
    *("aws-chunked,gzip", "gzip, aws-chunked", "UTF-8, br", ",gzip", "utf-8x", "none none", "utf-"),
]


@pytest.mark.parametrize("coding", REAL_CODINGS)
def test_content_in_a_coding_is_refused_and_not_decoded(world: World, coding: str) -> None:
    """Case 22: a bomb."""
    fetch, peer = connected_fetch(world)
    assert peer.request()["accept-encoding"] == "identity"
    peer.send(head(Content_Encoding=coding, Content_Length="1000") + b"\x1f\x8b")
    assert type(fetch.error) is UpstreamFailed
    assert "coding" in str(fetch.error)
    assert (peer.aborted, fetch.response) == (True, None)


def test_the_content_coding_identity_is_accepted(world: World) -> None:
    fetch, peer = connected_fetch(world)
    peer.respond(b"hello", Content_Encoding="Identity")
    assert fetch.whole == b"hello"


@pytest.mark.parametrize(
    "coding",
    [
        *("aws-chunked", "AWS-Chunked", "binary", "none", "None", "UTF-8", "utf8", "us-ascii"),
        *("iso-8859-1", "ISO-8859-15", "windows-1252", "utf-16le", "identity, aws-chunked"),
        *(",", " , aws-chunked ,,", "aws-chunked,", "identity,,none"),
    ],
)
def test_values_that_are_not_codings_are_ignored(world: World, coding: str) -> None:
    """Case 66."""
    fetch, peer = connected_fetch(world)
    peer.respond(b"hello", Content_Encoding=coding)
    assert fetch.whole == b"hello"


def test_values_that_are_not_codings_may_be_in_several_headers(world: World) -> None:
    """Case 66."""
    for second, refused in (("utf-8", False), ("gzip", True)):
        fetch = world.fetch(URL)
        peer = world.accept()
        sent = head(Content_Encoding="aws-chunked", Content_Length="5", Connection="close")
        peer.send(sent[:-2] + f"Content-Encoding: {second}\r\n\r\n".encode() + b"hello")
        world.network.turn()
        if refused:
            assert "coding" in str(fetch.error)
        else:
            assert fetch.whole == b"hello"


# Obsolete framing.


def test_the_transfer_coding_identity_ends_with_the_connection(world: World) -> None:
    """Case 69."""
    fetch, peer = connected_fetch(world)
    peer.send(head(Transfer_Encoding="Identity") + b"hel")
    peer.send(b"lo")
    world.network.turn()
    peer.close()
    assert fetch.whole == b"hello"


@pytest.mark.parametrize("before", [b"", head(103, Link="</a>"), 3 * head(100)])
def test_the_transfer_coding_identity_ends_where_the_length_says(
    world: World, before: bytes
) -> None:
    """Case 69: the connection is kept. Interim responses may precede it."""
    fetch, peer = connected_fetch(world)
    sent = before + head(Transfer_Encoding="identity", Content_Length="5") + b"hello"
    peer.send(sent)
    world.network.turn()
    assert fetch.whole == b"hello"
    again = world.fetch(URL)
    peer.send(sent)
    world.network.turn()
    assert again.whole == b"hello"
    assert len(peer.requests) == 2


def test_the_transfer_coding_identity_without_content_ends_at_once(world: World) -> None:
    """Case 69."""
    fetch, peer = connected_fetch(world)
    peer.send(head(Transfer_Encoding="identity", Content_Length="0"))
    world.network.turn()
    assert fetch.whole == b""


def test_identity_content_that_is_shorter_than_its_length_is_incomplete(world: World) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(head(Transfer_Encoding="identity", Content_Length="5") + b"hell")
    world.network.turn()
    peer.close()
    assert "broke off after 4 bytes" in str(fetch.error)


@pytest.mark.parametrize("padding", [" ", "\t", "   ", " \t \t"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_blanks_behind_the_size_of_a_chunk_are_passed_over(
    world: World, padding: str, size: int
) -> None:
    """Case 70: however the response is split."""
    fetch, peer = connected_fetch(world)
    chunks = "".join(f"{n}\r\n" for n in (f"3{padding}", "hel", f"2{padding};a=b", "lo"))
    sent = head(Transfer_Encoding="chunked") + f"{chunks}0{padding}\r\n\r\n".encode()
    for at in range(0, len(sent), size):
        peer.send(sent[at : at + size])
        world.network.turn()
    assert fetch.whole == b"hello"


@pytest.mark.parametrize("line", ["3 3", " 3", "3 x", "3\x0b", "3 \n", " ", "3\xa0"])
def test_anything_else_around_the_size_of_a_chunk_is_an_error(world: World, line: str) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(head(Transfer_Encoding="chunked") + f"{line}\r\nabc\r\n0\r\n\r\n".encode("latin-1"))
    world.network.turn()
    assert str(fetch.error) == "the upstream does not send its content in HTTP"


def test_unread_content_pauses_the_upstream_at_one_mebibyte(world: World) -> None:
    """Case 15, of an upstream."""
    fetch = world.fetch(URL, LONG, read=False)
    peer = world.accept()
    peer.send(head() + bytes(8 * MIB))
    for _ in range(10):
        world.network.turn()
    assert peer.paused
    assert 7 * MIB - (1 << 16) <= peer.unread <= 8 * MIB - EACH_BYTES + (1 << 16)
    fetch.read()
    assert peer.unread == 0
    peer.close()
    assert fetch.whole == bytes(8 * MIB)


@pytest.mark.parametrize("ended", [False, True])
def test_an_upstream_that_is_held_is_left_at_once(world: World, ended: bool) -> None:
    fetch = world.fetch(URL, LONG, read=False)
    peer = world.accept()
    peer.send(head() + bytes(2 * MIB))
    assert peer.paused
    if ended:
        peer.close()
    fetch.cancel()
    assert peer.aborted
    assert isinstance(fetch.error, CancelledError)


# Every failure is one of our errors.


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (ConnectionRefusedError(), UpstreamFailed, "refuses the connection"),
        (TimeoutError(), UpstreamTooSlow, "does not accept a connection"),
        (TCPTimedOutError(), UpstreamTooSlow, "does not accept a connection"),
        (NoRouteError(), UpstreamFailed, "cannot be reached"),
        (ConnectBindError(), UpstreamFailed, "cannot be reached"),
        (ConnectError(), UpstreamFailed, "cannot be reached"),
        (DNSLookupError(), AddressRefused, "may not be fetched"),
    ],
)
def test_a_connection_that_fails_is_one_of_our_errors(
    world: World, error: Exception, expected: type[MediaError], text: str
) -> None:
    """Cases 43 and 44."""
    fetch = world.fetch(URL)
    [attempt] = world.network.pending
    attempt.refuse(error)
    world.advance(0.3)
    assert type(fetch.error) is expected
    assert text in str(fetch.error)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"", "closed the connection without a response"),
        (b"HTTP/1.1 200 OK\r\nContent-", "closed the connection in the middle of its headers"),
        (head(100), "closed the connection in the middle of its headers"),
    ],
)
@pytest.mark.parametrize("cleanly", [False, True])
def test_a_connection_that_ends_before_the_headers_do_is_one_of_our_errors(
    world: World, sent: bytes, text: str, cleanly: bool
) -> None:
    """Case 44."""
    fetch, peer = connected_fetch(world)
    peer.send(sent)
    if cleanly:
        peer.close()
    else:
        peer.reset()
    assert type(fetch.error) is UpstreamFailed
    assert str(fetch.error) == f"the upstream {text}"
    assert len(world.network.attempts) == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"220 mail.example.org ESMTP ready for you\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/x.y 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"\x16\x03\x01\x00\x05\n",
        b"\n\n\n",
        head(Content_Length="-1"),
        head(Content_Length="-0x5"),
        head(Content_Length="five"),
        head(Content_Length="9" * 5000),
        head(Content_Length="5, 6"),
        head(Transfer_Encoding="gzip"),
        head(Transfer_Encoding="gzip, chunked"),
        head(Transfer_Encoding="identity, chunked"),
        head(Transfer_Encoding="identity")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n",
        head(Transfer_Encoding="identity", Content_Length="five"),
        head(Content_Length="5")[:-4] + b"\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 99 Too Small\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 1000 Too Large\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 -200 Negative\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_one_of_our_errors(world: World, sent: bytes) -> None:
    """Cases 37 and 44."""
    fetch, peer = connected_fetch(world)
    peer.send(sent)
    world.network.turn()
    assert type(fetch.error) is UpstreamFailed
    assert str(fetch.error) == "the upstream does not respond in HTTP"
    assert not peer.connected


def test_the_next_address_is_tried_when_the_first_does_not_respond(world: World) -> None:
    world.names.table["example.org"] = ["2606:2800:21f:cb07::1", "93.184.215.14"]
    fetch = world.fetch(URL)
    assert world.network.connected_to == [("2606:2800:21f:cb07::1", 80)]
    world.advance(0.3, 0.1)
    assert world.network.connected_to[1:] == [("93.184.215.14", 80)]
    peer = world.network.pending[1].accept()
    assert world.network.pending == []
    peer.respond(b"hello")
    assert fetch.whole == b"hello"


# Idle connections.


def test_a_connection_is_reused_for_the_next_request_to_its_origin(world: World) -> None:
    peer = fetch_whole(world)
    world.advance(5)
    fetch = world.fetch("http://example.org/another")
    world.advance(1)
    peer.respond(b"another")
    assert fetch.whole == b"another"
    assert len(world.network.attempts) == 1
    assert world.names.requested == ["example.org"]
    assert fetch.response is not None
    assert fetch.response.timings == Timings(None, None, None, None, 1.0, 1.0)


@pytest.mark.parametrize(
    "url", ["http://other.org/", "http://example.org:8080/", "http://www.example.org/"]
)
def test_another_origin_has_its_own(make: Callable[..., World], url: str) -> None:
    world = make(policy=Policy((parse_allow_rule("example.org:8080"),)))
    world.names.table["www.example.org"] = ["93.184.215.14"]
    kept = fetch_whole(world)
    fetch, peer = connected_fetch(world, url)
    peer.respond(b"another")
    assert fetch.whole == b"another"
    assert len(kept.requests) == 1


def test_a_connection_that_is_idle_is_closed(world: World) -> None:
    peer = fetch_whole(world)
    world.advance(KEEP_S - 1)
    assert peer.connected
    world.advance(1)
    assert not peer.connected


@pytest.mark.parametrize(
    "sent",
    [
        head(Content_Length="5", Connection="close") + b"hello",
        head() + b"hello",
        head(Content_Length="9") + b"hello",
    ],
)
def test_a_closed_connection_is_not_reused(world: World, sent: bytes) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(sent)
    peer.close()
    world.network.turn()
    assert fetch.content == b"hello"
    assert not peer.connected
    again = world.fetch(URL)
    world.accept().respond(b"again")
    assert again.whole == b"again"


def test_bytes_on_an_idle_connection_end_it(
    world: World,
) -> None:
    """The next request would take them for its response."""
    peer = fetch_whole(world)
    peer.send(head(Content_Length="4") + b"evil")
    world.network.turn()
    assert not peer.connected
    fetch = world.fetch(URL)
    world.accept().respond(b"good")
    assert fetch.whole == b"good"


@pytest.mark.parametrize("cleanly", [False, True])
def test_a_request_is_retried_when_an_idle_connection_turns_out_to_be_closed(
    world: World, cleanly: bool
) -> None:
    peer = fetch_whole(world)
    fetch = world.fetch(URL)
    assert len(peer.requests) == 2
    if cleanly:
        peer.close()
    else:
        peer.reset()
    assert fetch.outcome == []
    fresh = world.accept()
    fresh.respond(b"fresh")
    assert fetch.whole == b"fresh"


def test_a_request_is_not_retried_after_the_first_byte_of_a_response(world: World) -> None:
    peer = fetch_whole(world)
    fetch = world.fetch(URL)
    peer.send(b"HTTP/1.1 200 OK\r\n")
    peer.reset()
    assert type(fetch.error) is UpstreamFailed
    assert len(world.network.attempts) == 1


def test_a_new_connection_that_is_closed_is_not_tried_again(world: World) -> None:
    fetch, peer = connected_fetch(world)
    peer.close()
    assert type(fetch.error) is UpstreamFailed
    assert len(world.network.attempts) == 1


def test_a_request_is_retried_once_and_on_a_new_connection(
    make: Callable[..., World],
) -> None:
    """A request that an upstream answers by closing is not sent on every idle connection."""
    world = make(connections=5)
    several = [world.fetch(URL) for _ in range(5)]
    peers = [attempt.accept() for attempt in world.network.pending]
    for peer in peers:
        peer.respond(b"kept")
    assert [fetch.whole for fetch in several] == [b"kept"] * 5
    fetch = world.fetch(URL)
    assert world.network.pending == []
    peers[0].reset()
    world.accept().respond(b"fresh")
    assert fetch.whole == b"fresh"
    again = world.fetch(URL)
    peers[1].reset()
    world.accept().reset()
    assert type(again.error) is UpstreamFailed
    assert len(world.network.attempts) == 7


def test_idle_connections_are_limited_to_the_number_of_fetches(make: Callable[..., World]) -> None:
    world = make(connections=2)
    for _ in range(5):
        both = [world.fetch(URL) for _ in range(2)]
        for attempt in world.network.pending:
            attempt.accept()
        for peer in world.network.peers:
            peer.respond(b"kept")
        assert [fetch.whole for fetch in both] == [b"kept"] * 2
    assert len(world.network.attempts) == 2


def test_closing_the_fetcher_closes_the_idle_connections(world: World) -> None:
    peer = fetch_whole(world)
    closed = outcome(ensureDeferred(world.fetcher.close()))
    world.network.turn()
    assert (peer.connected, closed) == (False, [None])


# The number of fetches.


def test_a_fetch_above_the_limit_is_refused_as_busy(make: Callable[..., World]) -> None:
    world = make(connections=2)
    first, second = world.fetch(URL), world.fetch("http://other.org/")
    assert world.fetcher.fetches == 2
    third = world.fetch(URL)
    assert type(third.error) is Busy
    assert dict(third.error.headers) == {"Retry-After": "5"}
    assert len(world.network.attempts) == 2
    first.cancel()
    assert world.fetcher.fetches == 1
    fourth = world.fetch(URL)
    assert (fourth.outcome, world.fetcher.fetches) == ([], 2)
    for fetch in (second, fourth):
        fetch.cancel()


def test_the_wait_for_a_place_does_not_count(make: Callable[..., World]) -> None:
    """It is not the upstream's fault, which gets time to respond."""
    world = make(connections=8)
    crowd = [world.fetch(URL, LONG, caller="192.0.2.66") for _ in range(9)]
    crowd.append(world.fetch("http://other.org/", LONG, caller="192.0.2.2"))
    fetch = world.fetch("http://third.org/", LONG, caller="192.0.2.1")
    assert "third.org" not in world.names.requested
    world.advance(1.5, 0.1)
    for each in crowd:
        each.cancel()
    assert "third.org" in world.names.requested
    world.advance(1.0)
    peer = world.accept()
    world.advance(1.0)
    peer.respond(b"hello")
    assert fetch.whole == b"hello"
    assert fetch.response is not None
    assert fetch.response.timings == Timings(None, 0.0, 1.0, None, 2.0, 2.0)
    assert fetch.response.begun_s == world.network.seconds() - 2.0


@pytest.mark.parametrize("how", ["works", "fails", "refused", "broken off", "cancelled"])
def test_a_place_is_free_again_however_a_fetch_ends(make: Callable[..., World], how: str) -> None:
    world = make(connections=1)
    for _ in range(3):
        fetch = world.fetch("http://127.0.0.1/" if how == "refused" else "http://example.org/")
        for attempt in world.network.pending:
            if how == "fails":
                attempt.refuse()
                world.advance(0.3)
            else:
                peer = attempt.accept()
                peer.send(head(Content_Length="1", Connection="close"))
                if how == "works":
                    peer.send(b"x")
                elif how == "broken off":
                    peer.reset()
        if how == "cancelled":
            fetch.cancel()
        assert len(fetch.outcome) == 1
        assert world.fetcher.fetches == 0
        world.network.turn()


# Cancelling.


def look_up(world: World) -> RunningFetch:
    world.names.hang("example.org")
    return world.fetch(URL)


def connecting(world: World) -> RunningFetch:
    return world.fetch(URL)


def second_address(world: World) -> RunningFetch:
    world.names.table["example.org"] = ["2606:2800:21f:cb07::1", "93.184.215.14"]
    fetch = world.fetch(URL)
    world.advance(0.3, 0.1)
    assert len(world.network.pending) == 2
    return fetch


def waiting(world: World) -> RunningFetch:
    return connected_fetch(world)[0]


def waiting_on_a_kept_one(world: World) -> RunningFetch:
    fetch_whole(world)
    return world.fetch(URL)


def in_the_head(world: World) -> RunningFetch:
    fetch, peer = connected_fetch(world)
    peer.send(b"HTTP/1.1 200 OK\r\nContent-")
    return fetch


def second_hop_look_up(world: World) -> RunningFetch:
    world.names.hang("other.org")
    fetch, peer = connected_fetch(world)
    peer.send(redirect("http://other.org/"))
    return fetch


def second_hop_connecting(world: World) -> RunningFetch:
    fetch, peer = connected_fetch(world)
    peer.send(redirect("http://other.org/"))
    return fetch


def second_hop_waiting(world: World) -> RunningFetch:
    fetch, peer = connected_fetch(world)
    peer.send(redirect("/again"))
    return fetch


def in_the_content(world: World) -> RunningFetch:
    fetch, peer = connected_fetch(world)
    peer.send(head(Content_Length="10") + b"hello")
    return fetch


def before_the_content(world: World) -> RunningFetch:
    fetch, peer = connected_fetch(world)
    peer.send(head())
    return fetch


def while_held(world: World) -> RunningFetch:
    fetch = world.fetch(URL, read=False)
    world.accept().send(head() + bytes(2 * MIB))
    return fetch


def all_there_and_unread(world: World) -> RunningFetch:
    fetch = world.fetch(URL, read=False)
    world.accept().respond(b"hello")
    return fetch


@pytest.mark.parametrize(
    "stage",
    [
        look_up,
        connecting,
        second_address,
        waiting,
        waiting_on_a_kept_one,
        in_the_head,
        second_hop_look_up,
        second_hop_connecting,
        second_hop_waiting,
        in_the_content,
        before_the_content,
        while_held,
    ],
)
def test_a_cancelled_fetch_leaves_nothing_behind(
    world: World, stage: Callable[[World], RunningFetch]
) -> None:
    fetch = stage(world)
    assert fetch.outcome == []
    fetch.cancel()
    assert isinstance(fetch.error, CancelledError)
    assert world.fetcher.fetches == 0
    assert world.network.pending == []
    kept = [peer for peer in world.network.peers if not peer.aborted]
    calls = world.network.getDelayedCalls()
    assert len(kept) == len(calls), "only what is kept has a time to end"
    if stage is not second_hop_look_up and stage is not second_hop_connecting:
        assert kept == []


def test_a_fetch_that_is_cancelled_when_all_has_come_keeps_its_connection(world: World) -> None:
    fetch = all_there_and_unread(world)
    fetch.cancel()
    assert isinstance(fetch.error, CancelledError)
    [peer] = world.network.peers
    assert not peer.aborted


# Timings.


def test_each_phase_is_timed(world: World) -> None:
    fetch = world.fetch(URL)
    world.advance(2)
    peer = world.accept()
    world.advance(3)
    peer.send(b"H")
    world.advance(1)
    peer.send(head(Content_Length="5")[1:])
    assert fetch.response is not None
    assert fetch.response.timings == Timings(None, 0.0, 2.0, None, 5.0, 6.0)
    world.advance(4)
    peer.send(b"hello")
    world.advance(10)
    assert fetch.whole == b"hello"
    assert fetch.response.timings == Timings(None, 0.0, 2.0, None, 5.0, 10.0)


def test_a_look_up_is_timed(world: World) -> None:
    world.names.hang("example.org")
    fetch = world.fetch(URL)
    world.advance(2)
    world.names.hanging["example.org"].callback([])
    assert isinstance(fetch.error, AddressRefused)
    world.names.hang("other.org")
    again = world.fetch("http://other.org/")
    world.advance(2)
    addresses: list[Any] = outcome(world.names.addresses("93.184.215.14"))[0]  # type: ignore[assignment]
    world.names.hanging["other.org"].callback(addresses)
    world.advance(1)
    world.accept().respond(b"")
    assert again.response is not None
    assert again.response.timings == Timings(None, 2.0, 3.0, None, 3.0, 3.0)


def test_the_phases_after_redirects_are_those_of_the_last_hop(world: World) -> None:
    fetch, peer = connected_fetch(world)
    world.advance(1)
    peer.send(redirect("/b"))
    world.advance(1)
    peer.send(redirect("http://other.org/"))
    world.advance(2)
    other = world.accept()
    world.advance(3)
    other.respond(b"there")
    assert fetch.response is not None
    assert fetch.response.timings == Timings(2.0, 2.0, 4.0, None, 7.0, 7.0)


# What reviews have found.


@pytest.mark.parametrize("surplus", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"])
def test_a_connection_that_received_more_than_the_response_is_not_reused(
    world: World, surplus: bytes
) -> None:
    """Else the next request would take it for its own response."""
    fetch, peer = connected_fetch(world)
    peer.send(head(Content_Length="5") + b"hello" + surplus)
    assert fetch.whole == b"hello"
    world.network.turn()
    assert not peer.connected
    other, peer = connected_fetch(world)
    peer.respond(b"right")
    assert other.whole == b"right"


@pytest.mark.parametrize(
    "host", ["foo_bar.org", "r3---sn-a.org", "xn--a.org", "a--b.org", "1.2.org"]
)
def test_names_that_only_some_call_names_are_fetched(world: World, host: str) -> None:
    world.names.table[host] = world.names.table["example.org"]
    fetch, peer = connected_fetch(world, f"http://{host}/")
    peer.respond(b"hello")
    assert fetch.whole == b"hello"
    assert peer.request()["host"] == host


@pytest.mark.parametrize("piece", [1 << 20, 1000, 7])
@pytest.mark.parametrize("beyond", [0, 1])
def test_the_head_of_a_response_has_a_limit_to_the_byte(
    world: World, beyond: int, piece: int
) -> None:
    bare = head(Content_Length="5", X="")
    sent = (
        head(Content_Length="5", X="x" * (MAX_RESPONSE_HEAD_BYTES - len(bare) + beyond)) + b"hello"
    )
    fetch, peer = connected_fetch(world)
    for start in range(0, len(sent), piece):
        if peer.connected and not peer.aborted:
            peer.send(sent[start : start + piece])
            if start % 1000 == 0:
                world.network.turn()
    world.network.turn()
    if beyond:
        assert f"more than {MAX_RESPONSE_HEAD_BYTES} bytes of headers" in str(fetch.error)
    else:
        assert fetch.whole == b"hello"


@pytest.mark.parametrize(
    "interim", ["HTTP/1.1 103 E\r\n\r\n", "HTTP/1.0 0100 C\n\n", "x 1_99\r\na: b\r\n\r\n"]
)
@pytest.mark.parametrize("piece", [1000, 3])
def test_interim_responses_are_counted_however_they_are_written(
    world: World, interim: str, piece: int
) -> None:
    for count in (MAX_INTERIM, MAX_INTERIM + 1):
        fetch, peer = connected_fetch(world)
        sent = interim.encode() * count + head(Content_Length="5") + b"hello"
        for start in range(0, len(sent), piece):
            if peer.connected and not peer.aborted:
                peer.send(sent[start : start + piece])
        world.network.turn()
        if count == MAX_INTERIM and not interim.startswith("x"):
            assert fetch.whole == b"hello"
            peer.close()
        else:
            assert type(fetch.error) is UpstreamFailed


def test_content_that_looks_like_interim_responses_is_content(world: World) -> None:
    content = b"HTTP/1.1 100 Continue\r\n\r\n" * 100
    fetch, peer = connected_fetch(world)
    peer.respond(content)
    assert fetch.whole == content


def chunks_of(size: int, count: int) -> bytes:
    return (b"%x\r\n%b\r\n" % (size, b"x" * size)) * count


def test_content_in_tiny_chunks_is_taken_little_by_little_and_not_for_long(world: World) -> None:
    """A megabyte of them takes the event loop seconds."""
    fetch, peer = connected_fetch(world)
    usual = peer.bufferSize
    peer.send(head(Transfer_Encoding="chunked") + chunks_of(1, 1000))
    world.network.turn()
    assert peer.bufferSize < usual
    while not fetch.outcome:
        peer.send(chunks_of(1, 1000))
        world.network.turn()
        assert len(fetch.content) < 20_000
    assert "too small" in str(fetch.error)


TINY = head(Transfer_Encoding="chunked") + chunks_of(1, 10_000)


def test_tiny_chunks_are_taken_in_several_turns_of_the_loop(world: World) -> None:
    """Case 85."""
    fetch, peer = connected_fetch(world)
    peer.send(TINY + b"0\r\n\r\n")
    assert len(fetch.content) < 200
    world.network.turn()
    assert fetch.whole == b"x" * 10_000
    assert peer.bufferSize < RECEIVE_BYTES
    again, _ = world.fetch(URL), world.network.turn()
    peer.respond(b"hello")  # the connection is kept
    assert again.whole == b"hello"


def test_tiny_chunks_before_the_connection_is_lost_are_content(world: World) -> None:
    """Case 85."""
    fetch, peer = connected_fetch(world)
    peer.send(TINY + b"0\r\n\r\n")
    peer.reset()
    assert len(fetch.content) < 200
    world.network.turn()
    assert fetch.whole == b"x" * 10_000
    fetch, peer = connected_fetch(world)
    peer.send(TINY)
    peer.reset()
    world.network.turn()
    assert fetch.content == b"x" * 10_000
    assert type(fetch.error) is UpstreamBrokeOff


def test_tiny_pieces_after_a_response_are_not_another_response(world: World) -> None:
    """Case 85. The next request would take it for its own."""
    fetch, peer = connected_fetch(world)
    extra = head(Content_Length="5") + b"wrong" + b"\r\n" * 1000
    peer.send(TINY + b"0\r\n\r\n" + extra)
    world.network.turn()
    assert fetch.whole == b"x" * 10_000
    world.network.turn()
    assert not peer.connected


def test_an_ended_fetch_passes_no_more_tiny_chunks_on(world: World) -> None:
    """Case 85."""
    fetch, peer = connected_fetch(world)
    peer.send(TINY)
    before = fetch.content
    fetch.cancel()
    world.network.turn()
    assert fetch.content == before
    assert not peer.connected


def test_many_small_chunks_are_not_an_error(world: World) -> None:
    fetch, peer = connected_fetch(world)
    usual = peer.bufferSize
    peer.send(head(Transfer_Encoding="chunked"))
    for _ in range(40):
        peer.send(chunks_of(100, 1000))
        world.network.turn()
    assert peer.bufferSize < usual
    peer.send(b"0\r\n\r\n")
    assert len(fetch.whole) == 4_000_000
    again, _ = world.fetch(URL), world.network.turn()
    assert peer.bufferSize == usual  # the connection is kept, and the next one takes what it can
    peer.respond(b"hello")
    assert again.whole == b"hello"


class NotedQueue(LoopQueue):
    """Records whose steps ran, in order."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.done: list[str] = []

    def add(self, client: str, step: Callable[[], None], *, is_first: bool = False) -> None:
        def noted() -> None:
            self.done.append(client)
            step()

        super().add(client, noted, is_first=is_first)


@pytest.mark.parametrize("hosts", [1, 50])
def test_content_that_takes_long_is_parsed_in_turns_of_the_callers(
    make: Callable[..., World], hosts: int
) -> None:
    """Case 85: with many hosts a caller has no more turns."""
    network = Network()
    queue = NotedQueue(network)
    world = make(connections=100, queue=queue, network=network)
    crowd, normal = "192.0.2.66", "192.0.2.1"
    fetches = [world.fetch(URL, caller=normal)]
    for number in range(50):
        host = f"{number % hosts}.org"
        world.names.table[host] = [PUBLIC]
        fetches.append(world.fetch(f"http://{host}/", caller=crowd))
    peers = [attempt.accept() for attempt in world.network.pending]
    world.network.turn()
    for peer in peers:
        peer.send(head(Transfer_Encoding="chunked") + chunks_of(1, 1000) + b"0\r\n\r\n")
    world.network.turn()
    assert [fetch.whole for fetch in fetches] == [b"x" * 1000] * 51
    steps = queue.done.count(normal)
    assert steps > 5
    assert queue.done[: 2 * steps].count(normal) in (steps - 1, steps)


def test_origins_are_not_remembered_longer_than_their_connections(
    make: Callable[..., World],
) -> None:
    world = make(connections=3)
    pool = world.fetcher._agent._pool
    for number in range(20):
        host = f"{number}.org"
        world.names.table[host] = world.names.table["example.org"]
        fetch, peer = connected_fetch(world, f"http://{host}/")
        peer.respond(b"hello")
        assert fetch.whole == b"hello"
        world.network.turn()
        assert len(world.network.peers) <= 3
        assert len(pool._connections) <= 3
    world.advance(KEEP_S + 1)
    assert (pool._connections, pool._timeouts) == ({}, {})


@pytest.mark.parametrize(
    ("raw", "target"),
    [(b"/caf\xe9", "/caf%E9"), (b"/caf\xc3\xa9", "/caf%C3%A9"), (b"/\xff?\xfe", "/%FF?%FE")],
)
def test_a_location_of_any_bytes_is_resolved_as_by_browsers(
    world: World, raw: bytes, target: str
) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + raw + b"\r\n\r\n")
    peer.respond(b"there")
    assert fetch.whole == b"there"
    assert peer.request()[""] == f"GET {target} HTTP/1.1"


def test_two_locations_lead_nowhere(world: World) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(b"HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n")
    assert "more than one URL" in str(fetch.error)


def test_an_empty_content_coding_is_accepted(world: World) -> None:
    fetch, peer = connected_fetch(world)
    peer.respond(b"hello", Content_Encoding="")
    assert fetch.whole == b"hello"


def test_the_credentials_of_the_upstream_are_not_shown() -> None:
    assert "c2VjcmV0" not in repr(OWN)


def test_a_response_that_is_not_a_redirect_may_have_several_locations(world: World) -> None:
    fetch, peer = connected_fetch(world)
    peer.send(b"HTTP/1.1 201 C\r\nLocation: /a\r\nLocation: /b\r\nContent-Length: 5\r\n\r\nhello")
    assert fetch.whole == b"hello"


def test_tiny_chunks_are_found_behind_a_large_one(world: World) -> None:
    fetch, peer = connected_fetch(world)
    usual = peer.bufferSize
    peer.send(head(Transfer_Encoding="chunked") + chunks_of(1_000_000, 1) + chunks_of(1, 1000))
    world.network.turn()
    assert peer.bufferSize < usual
    sent = 1000
    while not fetch.outcome:
        peer.send(chunks_of(1, 1000))
        world.network.turn()
        sent += 1000
        assert sent < 20_000
    assert "too small" in str(fetch.error)


def test_connections_that_are_lost_while_idle_are_forgotten(
    make: Callable[..., World],
) -> None:
    world = make(connections=2)
    pool = world.fetcher._agent._pool
    for _ in range(3):
        both = [world.fetch(URL) for _ in range(2)]
        peers = [attempt.accept() for attempt in world.network.pending]
        for peer in peers:
            peer.respond(b"kept")
        assert [fetch.whole for fetch in both] == [b"kept"] * 2
        peers[0].close()
        peers[1].reset()
        assert (pool._connections, pool._timeouts) == ({}, {})


def test_content_above_the_limit_in_its_last_piece_ends_the_connection(
    make: Callable[..., World],
) -> None:
    world = make()
    fetch = world.fetch(URL, FetchLimits(total_s=10, head_s=10, max_bytes=4))
    peer = world.accept()
    peer.send(head(Transfer_Encoding="chunked") + b"5\r\nhello\r\n0\r\n\r\n")
    assert "limit of 4 bytes" in str(fetch.error)
    other = world.fetch(URL)
    assert len(world.network.pending) == 1  # in the same turn
    other.cancel()
    assert len(peer.requests) == 1

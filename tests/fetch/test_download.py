"""The whole content behind a URL, although the transfer breaks off."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred

from tests.fetch.reactor import Peer, World, failed, head
from tests.http.connection import outcome
from twistedmedia.errors import AddressRefused, UpstreamBrokeOff, UpstreamFailed, UpstreamTooSlow
from twistedmedia.fairness.pace import RECENT_S
from twistedmedia.fetch.download import RESUME_AFTER_S, Download
from twistedmedia.fetch.fetcher import FetchLimits
from twistedmedia.fetch.timings import Timings
from twistedmedia.fetch.urls import parse_url

CONTENT = bytes(range(256)) * 4
ETAG = '"v1"'
TERMS = FetchLimits(total_s=100, head_s=10)


class Downloading:
    """A download of `CONTENT`, whose upstream a test plays."""

    def __init__(self, world: World, terms: FetchLimits = TERMS) -> None:
        self.world = world
        self.content = b""
        self.length: int | None = None
        self.timings: Timings
        self.work = ensureDeferred(self._run(terms))
        self.outcome = outcome(self.work)

    async def _run(self, terms: FetchLimits) -> None:
        url = parse_url("http://example.org/a.mp3")
        self.download = Download(self.world.fetcher, url, terms)
        async with self.download as download:
            self.length = download.length
            async for chunks in download:
                assert b"" not in (chunks or [b""]), "nothing empty comes"
                self.content += b"".join(chunks)
                assert download.received == len(self.content)
            self.timings = download.timings

    def begin(self, size: int, etag: str | None = ETAG, **headers: str) -> None:
        """The first response, of which `size` bytes come before it breaks off."""
        fields = {"Content_Length": str(len(CONTENT)), **headers}
        self.answer(head(200, **fields, **({"ETag": etag} if etag else {})), CONTENT[:size])

    def answer(self, response: bytes, content: bytes) -> None:
        peer = self.world.accept()
        peer.send(response + content)
        peer.reset()

    def resume(self, pause_s: float) -> Peer:
        """The next attempt, which comes after `pause_s` and no earlier."""
        attempts = len(self.world.network.attempts)
        self.world.network.advance(pause_s - 0.01)
        assert len(self.world.network.attempts) == attempts
        self.world.network.advance(0.011)
        assert len(self.world.network.attempts) == attempts + 1
        [attempt] = self.world.network.pending
        return attempt.accept()

    @property
    def error(self) -> BaseException:
        return failed(self.outcome)


def partial(start: int, total: str = str(len(CONTENT)), **headers: str) -> bytes:
    """The head of a response with all from `start` on."""
    fields = {
        "Content_Length": str(len(CONTENT) - start),
        "Content_Range": f"bytes {start}-{len(CONTENT) - 1}/{total}",
        "ETag": ETAG,
        **headers,
    }
    return head(206, **fields)


def test_a_whole_transfer_is_the_content(world: World) -> None:
    download = Downloading(world)
    world.network.turn()
    world.advance(2)
    world.accept().respond(CONTENT)
    assert download.outcome == [None]
    assert (download.content, download.length) == (CONTENT, len(CONTENT))
    assert download.timings == Timings(None, 0.0, 2.0, None, 2.0, 2.0)


@pytest.mark.parametrize("content", [b"", b"x", CONTENT])
def test_a_transfer_without_a_length_is_the_content_as_well(world: World, content: bytes) -> None:
    """Case 8, of an upstream."""
    download = Downloading(world)
    peer = world.accept()
    peer.send(head() + content)
    peer.close()
    assert download.outcome == [None]
    assert (download.content, download.length) == (content, None)


@pytest.mark.parametrize("status", [201, 203, 204, 206, 304, 400, 404, 500, 503])
def test_another_status_than_200_is_a_failure(world: World, status: int) -> None:
    """Case 48."""
    download = Downloading(world)
    world.accept().respond(b"", status)
    assert type(download.error) is UpstreamFailed
    assert str(download.error) == f"the upstream responds with status {status}"


def test_what_is_broken_off_twice_is_resumed_twice(world: World) -> None:
    download = Downloading(world)
    download.begin(300)
    peer = download.resume(RESUME_AFTER_S[0])
    assert peer.request()["range"] == "bytes=300-"
    assert peer.request()["if-range"] == ETAG
    peer.send(partial(300) + CONTENT[300:700])
    peer.reset()
    peer = download.resume(RESUME_AFTER_S[1])
    assert peer.request()["range"] == "bytes=700-"
    assert world.fetcher.fetches == 1
    assert peer.request()["if-range"] == ETAG
    peer.send(partial(700) + CONTENT[700:])
    assert download.outcome == [None]
    assert download.content == CONTENT
    assert download.timings.total == pytest.approx(sum(RESUME_AFTER_S[:2]), abs=0.01)


@pytest.mark.parametrize("first", [0, 1, 512, len(CONTENT) - 1])
def test_a_transfer_is_resumed_wherever_it_breaks_off(world: World, first: int) -> None:
    download = Downloading(world)
    download.begin(first)
    peer = download.resume(RESUME_AFTER_S[0])
    assert peer.request()["range"] == f"bytes={first}-"
    peer.send(partial(first) + CONTENT[first:])
    assert download.outcome == [None]
    assert download.content == CONTENT


@pytest.mark.parametrize(
    "etag",
    [None, 'W/"v1"', "v1", '"v1', '"v"1"', '"v1", "v2"', '"v 1"', ""],
)
def test_without_a_strong_etag_nothing_is_resumed(world: World, etag: str | None) -> None:
    """Two halves of two contents are no content."""
    download = Downloading(world)
    download.begin(300, etag)
    assert type(download.error) is UpstreamBrokeOff
    assert str(download.error) == "the upstream broke off after 300 bytes"
    assert download.content == CONTENT[:300]
    assert world.network.getDelayedCalls() == []
    assert len(world.network.attempts) == 1


def test_a_whole_response_of_the_same_content_is_skipped_forward(world: World) -> None:
    download = Downloading(world)
    download.begin(300)
    peer = download.resume(RESUME_AFTER_S[0])
    peer.send(head(200, ETag=ETAG, Content_Length=str(len(CONTENT))))
    for at in range(0, len(CONTENT), 100):
        peer.send(CONTENT[at : at + 100])
    assert download.outcome == [None]
    assert download.content == CONTENT


def test_what_breaks_off_while_it_is_skipped_is_resumed_from_where_it_was(world: World) -> None:
    download = Downloading(world)
    download.begin(300)
    peer = download.resume(RESUME_AFTER_S[0])
    peer.send(head(200, ETag=ETAG, Content_Length=str(len(CONTENT))) + CONTENT[:200])
    peer.reset()
    peer = download.resume(RESUME_AFTER_S[1])
    assert peer.request()["range"] == "bytes=300-"
    peer.send(partial(300) + CONTENT[300:])
    assert download.outcome == [None]
    assert download.content == CONTENT


@pytest.mark.parametrize(
    "response",
    [
        head(200, ETag='"v2"', Content_Length=str(len(CONTENT))),
        head(200, Content_Length=str(len(CONTENT))),
        head(200, ETag='W/"v1"', Content_Length=str(len(CONTENT))),
        head(404, ETag=ETAG, Content_Length="0"),
        head(200, ETag='"v2"', Content_Range="bytes 300-1023/1024", Content_Length="724"),
        head(416, Content_Range=f"bytes */{len(CONTENT)}", Content_Length="0"),
        head(206, Content_Length="724"),
        partial(300, Content_Range="bytes 300-1023"),
        partial(300, Content_Range="bytes 0-1023/1024, bytes 300-1023/1024"),
        partial(300, Content_Range="items 300-1023/1024"),
        partial(299),
        partial(301),
        partial(0),
        partial(300, total="1025"),
        partial(300, total="1023"),
    ],
)
def test_another_part_or_another_content_is_not_put_together(world: World, response: bytes) -> None:
    download = Downloading(world)
    download.begin(300)
    peer = download.resume(RESUME_AFTER_S[0])
    peer.send(response)
    assert type(download.error) is UpstreamFailed
    assert download.content == CONTENT[:300]


def test_a_part_of_a_total_that_is_not_told_is_taken_when_it_is_all_that_is_left(
    world: World,
) -> None:
    download = Downloading(world)
    download.begin(300)
    download.resume(RESUME_AFTER_S[0]).send(partial(300, total="*") + CONTENT[300:])
    assert download.outcome == [None]
    assert download.content == CONTENT


ONE_CHUNK = b"1\r\nx\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("response", "content"),
    [
        (
            partial(300, Content_Range="bytes 300-399/1024", Content_Length="100"),
            CONTENT[300:400],
        ),
        (partial(300, Content_Length="100"), CONTENT[300:400]),
        (partial(300, Content_Length="1000"), CONTENT[300:] + bytes(276)),
        (
            head(206, Content_Range="bytes 300-1023/1024", Transfer_Encoding="chunked"),
            ONE_CHUNK,
        ),
        (head(200, ETag=ETAG, Content_Length="200"), CONTENT[:200]),
        (head(200, ETag=ETAG, Content_Length="300"), CONTENT[:300]),
        (head(200, ETag=ETAG, Content_Length="1000"), CONTENT[:1000]),
        (head(200, ETag=ETAG, Content_Length="1025"), CONTENT + b"x"),
        (head(200, ETag=ETAG, Transfer_Encoding="chunked"), ONE_CHUNK),
    ],
)
def test_a_response_that_is_whole_and_not_the_rest_makes_no_whole(
    world: World, response: bytes, content: bytes
) -> None:
    """A server may send less than it was asked for (RFC 9110, 15.3.7)."""
    download = Downloading(world)
    download.begin(300)
    download.resume(RESUME_AFTER_S[0]).send(response + content)
    world.advance(1)
    assert type(download.error) is UpstreamFailed


def test_a_whole_response_that_is_shorter_than_what_came_makes_no_whole(world: World) -> None:
    download = Downloading(world)
    first = b"12c\r\n" + CONTENT[:300] + b"\r\n"
    download.answer(head(200, ETag=ETAG, Transfer_Encoding="chunked"), first)
    again = head(200, ETag=ETAG, Transfer_Encoding="chunked") + ONE_CHUNK
    download.resume(RESUME_AFTER_S[0]).send(again)
    world.advance(1)
    assert type(download.error) is UpstreamFailed
    assert download.length is None


def test_no_more_than_three_times_is_it_tried_in_all(world: World) -> None:
    download = Downloading(world)
    download.begin(100)
    for n, pause_s in enumerate(RESUME_AFTER_S, start=1):
        peer = download.resume(pause_s)
        peer.send(partial(100 * n) + CONTENT[100 * n : 100 * n + 100])
        peer.reset()
    assert type(download.error) is UpstreamBrokeOff
    assert download.content == CONTENT[:400]
    assert len(world.network.attempts) == 4


def refuse(world: World) -> None:
    [attempt] = world.network.pending
    attempt.refuse()
    world.network.advance(0.3)


def close(world: World) -> None:
    world.accept().close()


def nonsense(world: World) -> None:
    world.accept().send(b"what?\n")


@pytest.mark.parametrize("failing", [refuse, close, nonsense])
def test_an_attempt_that_fails_is_followed_by_the_next(
    world: World, failing: Callable[[World], None]
) -> None:
    download = Downloading(world)
    download.begin(300)
    world.network.advance(RESUME_AFTER_S[0])
    failing(world)
    assert download.outcome == []
    world.network.advance(RESUME_AFTER_S[1])
    failing(world)
    assert download.outcome == []
    world.network.advance(RESUME_AFTER_S[2])
    world.accept().send(partial(300) + CONTENT[300:])
    assert download.outcome == [None]
    assert download.content == CONTENT


def test_the_last_attempt_says_why_there_are_no_more(world: World) -> None:
    download = Downloading(world)
    download.begin(300)
    for pause_s in RESUME_AFTER_S:
        assert download.outcome == []
        world.network.advance(pause_s)
        refuse(world)
    assert type(download.error) is UpstreamFailed
    assert str(download.error) == "the upstream refuses the connection"


def test_an_attempt_whose_headers_do_not_come_is_followed_by_the_next(world: World) -> None:
    download = Downloading(world)
    download.begin(300)
    peer = download.resume(RESUME_AFTER_S[0])
    world.advance(TERMS.head_s)
    assert peer.aborted
    download.resume(RESUME_AFTER_S[1]).send(partial(300) + CONTENT[300:])
    assert download.outcome == [None]
    assert download.content == CONTENT


def test_a_name_that_has_become_private_is_not_resumed_from(world: World) -> None:
    """Case 40."""
    download = Downloading(world)
    download.begin(300)
    world.names.table["example.org"] = ["127.0.0.1"]
    world.network.advance(RESUME_AFTER_S[0])
    assert type(download.error) is AddressRefused
    assert len(world.network.attempts) == 1


def test_a_reader_that_is_slower_than_the_time_in_all_gets_what_has_come(world: World) -> None:
    written: list[bytes] = []
    disk: Deferred[None] = Deferred()

    async def run() -> None:
        url = parse_url("http://example.org/a.mp3")
        async with Download(world.fetcher, url, TERMS) as download:
            async for chunks in download:
                written.extend(chunks)
                await disk

    came = outcome(ensureDeferred(run()))
    world.accept().respond(bytes(700_000))
    world.network.turn()
    world.advance(TERMS.total_s + 1)
    assert 0 < sum(map(len, written)) < 700_000
    disk.callback(None)
    world.network.turn()
    assert came == [None]
    assert sum(map(len, written)) == 700_000


def test_all_attempts_together_have_the_time_in_all(world: World) -> None:
    download = Downloading(world, FetchLimits(total_s=20, head_s=10))
    peer = world.accept()
    peer.send(head(200, ETag=ETAG, Content_Length=str(len(CONTENT))) + CONTENT[:100])
    world.advance(15)
    peer.reset()
    peer = download.resume(RESUME_AFTER_S[0])
    peer.send(partial(100) + CONTENT[100:200])
    world.network.advance(4.75)
    assert (download.outcome, peer.aborted) == ([], False)
    world.network.advance(0.1)
    assert type(download.error) is UpstreamTooSlow
    assert peer.aborted


@pytest.mark.parametrize("resumed", [False, True])
def test_a_download_that_is_too_slow_is_not_resumed(world: World, resumed: bool) -> None:
    download = Downloading(world)
    if resumed:
        download.begin(300)
        peer = download.resume(RESUME_AFTER_S[0])
        peer.send(partial(300))
    else:
        peer = world.accept()
        peer.send(head(200, ETag=ETAG, Content_Length="1000000"))
    world.advance(20)
    assert type(download.error) is UpstreamTooSlow
    assert peer.aborted


@pytest.mark.parametrize("when", ["connecting", "content", "pause", "resuming"])
def test_a_download_that_is_cancelled_leaves_nothing(world: World, when: str) -> None:
    download = Downloading(world)
    if when == "content":
        world.accept().send(head(200, ETag=ETAG, Content_Length="1024") + CONTENT[:9])
    elif when in ("pause", "resuming"):
        download.begin(300)
    if when == "resuming":
        world.network.advance(RESUME_AFTER_S[0])
        assert len(world.network.pending) == 1
    assert download.outcome == []
    download.work.cancel()
    world.network.turn()
    assert type(download.error) is CancelledError
    assert world.network.getDelayedCalls() == []
    assert world.network.pending == []


def test_content_that_is_no_http_is_not_resumed(world: World) -> None:
    download = Downloading(world)
    peer = world.accept()
    peer.send(head(200, ETag=ETAG, Transfer_Encoding="chunked") + b"3\r\nabc\r\nnonsense\r\n")
    world.advance(10)
    assert not peer.connected
    assert type(download.error) is UpstreamFailed
    assert str(download.error) == "the upstream does not send its content in HTTP"


def begin_chunked(download: Downloading) -> None:
    """300 bytes of a content whose length is not told, then a break."""
    first = b"12c\r\n" + CONTENT[:300] + b"\r\n"
    download.answer(head(ETag=ETAG, Transfer_Encoding="chunked"), first)


@pytest.mark.parametrize(
    "response",
    [
        partial(300, Content_Range="bytes 300-399/*", Content_Length="100") + CONTENT[300:400],
        partial(300, Content_Length="100") + CONTENT[300:400],
    ],
)
def test_a_content_of_unknown_length_is_not_whole_with_a_part_of_the_rest(
    world: World, response: bytes
) -> None:
    download = Downloading(world)
    begin_chunked(download)
    download.resume(RESUME_AFTER_S[0]).send(response)
    world.advance(10)
    assert download.outcome != [None]


def test_a_part_of_another_version_is_not_put_together(world: World) -> None:
    download = Downloading(world)
    download.begin(300)
    download.resume(RESUME_AFTER_S[0]).send(partial(300, ETag='"v2"') + bytes(724))
    world.advance(10)
    assert download.outcome != [None]


@pytest.mark.parametrize(("broken_off_s", "pending"), [(19.9, False), (15, True)])
def test_the_time_in_all_bounds_the_attempts_to_resume(
    world: World, broken_off_s: float, pending: bool
) -> None:
    download = Downloading(world, FetchLimits(total_s=20, head_s=10))
    peer = world.accept()
    peer.send(head(ETag=ETAG, Content_Length="1024") + CONTENT[:100])
    world.network.advance(broken_off_s)
    peer.reset()
    world.network.advance(0.2)
    assert len(world.network.pending) == pending  # the second is not accepted
    world.network.advance(20.1 - broken_off_s - 0.2)
    outcomes = list(download.outcome)
    world.advance(20)
    assert outcomes
    assert type(download.error) is UpstreamTooSlow


def test_a_download_keeps_its_place_while_it_waits_to_resume(make) -> None:
    world = make(connections=1)
    download = Downloading(world)
    download.begin(300)
    other = world.ask("http://other.org/")  # Busy, if it keeps its place
    world.network.advance(RESUME_AFTER_S[0])
    if not other.outcome:
        other.cancel()
    assert download.outcome == []  # it has failed with Busy
    download.work.cancel()


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_attempt_that_meets_a_gateway_without_its_service_is_followed_by_the_next(
    world: World, status: int
) -> None:
    download = Downloading(world)
    download.begin(300)
    download.resume(RESUME_AFTER_S[0]).respond(b"", status)
    assert download.outcome == []
    download.work.cancel()


def test_tags_in_any_bytes_are_told_apart_and_sent_back_as_they_came(world: World) -> None:
    """RFC 9110, 8.8.3: a tag may hold bytes that are no ASCII, and are no UTF-8."""
    download = Downloading(world)
    first = world.accept()
    first.send(head(ETag='"v\xe9"', Content_Length="10") + b"AAAAA")
    first.reset()
    second = download.resume(RESUME_AFTER_S[0])
    assert b'If-Range: "v\xe9"\r\n' in second.received
    second.send(head(ETag='"v\xe8"', Content_Length="10") + b"BBBBBBBBBB")
    world.advance(10)
    assert type(download.error) is UpstreamFailed


# How fast the upstream is


def test_an_upstream_that_lets_a_download_wait_for_its_response_sends_nothing(
    world: World,
) -> None:
    """Case 86."""
    download = Downloading(world)
    peer = world.accept()
    world.network.advance(RECENT_S - 0.1)
    assert download.download.pace() is None
    world.network.advance(0.2)
    assert download.download.pace() == 0.0
    peer.respond(CONTENT)
    assert download.outcome == [None]


def test_the_pace_of_a_download_is_that_of_the_last_seconds(world: World) -> None:
    """Case 86."""
    download = Downloading(world)
    peer = world.accept()
    peer.send(head(200, Content_Length=str(len(CONTENT))))
    assert download.download.pace() is None
    for _ in range(10):
        peer.send(b"x" * 50)
        world.network.advance(1)
    pace = download.download.pace()
    assert pace is not None
    assert 25 <= pace <= 50
    peer.send(b"x" * (len(CONTENT) - 500))
    assert download.outcome == [None]
    assert download.download.pace() == math.inf, "all of it was received"


def test_one_that_waits_to_resume_sends_nothing(world: World) -> None:
    """Case 86."""
    download = Downloading(world)
    download.begin(10)
    peer = download.resume(RESUME_AFTER_S[0])
    world.network.advance(RECENT_S)
    assert download.download.pace() == 0.0
    peer.send(partial(10) + CONTENT[10:])
    assert download.outcome == [None]
    assert download.content == CONTENT

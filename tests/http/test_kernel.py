"""Files that the kernel sends: complete, in order, and without waiting for the disk."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from tests.http.connection import SocketConnection, Streaming
from twistedmedia.http.sending import SENDFILE_BYTES, TURN_BYTES, send
from twistedmedia.http.site import MediaSite
from twistedmedia.store.interface import KernelMedia

SIZE = 2 * TURN_BYTES + 17
CONTENT = (bytes(range(251)) * (SIZE // 251 + 1))[:SIZE]
HEAD = b"\r\n\r\n"
GONE = [BrokenPipeError(errno.EPIPE, "gone"), ConnectionResetError(errno.ECONNRESET, "gone")]


class SocketMedia:
    """A media that is sent to a `SocketConnection`, as by sendfile. A cold part has to be
    fetched, which takes until the test fires it.
    """

    modified_ns = 0
    etag = '"1"'
    sha256 = None

    def __init__(self, content: bytes = CONTENT, *, cold: bool = False) -> None:
        self.content = content
        self.size = len(content)
        self.connection: Any = None
        self.asked: list[tuple[int, int]] = []
        self.errors: list[OSError] = []  # each fails one call
        self.most = len(content)  # that one call sends
        self.fetching: list[tuple[range, Deferred[None]]] = []
        self._cold = cold
        self._fetched = range(0)

    def send_at_hand(self, socket: int, offset: int, size: int) -> int | None:
        assert socket == self.connection.fileno()
        self.asked.append((offset, size))
        if self.errors:
            raise self.errors.pop()
        if self._cold and offset not in self._fetched:
            return None
        piece = self.content[offset : offset + min(size, self.most)]
        return self.connection.sendfile(piece) if piece else 0  # type: ignore[no-any-return]

    def fetch(self, offset: int, size: int) -> Deferred[None]:
        fetching: Deferred[None] = Deferred()
        self.fetching.append((range(offset, offset + size), fetching))
        return fetching

    def fetched(self) -> None:
        """Complete the current fetch."""
        self._fetched, fetching = self.fetching.pop()
        fetching.callback(None)

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        return succeed(self.content[offset : offset + size])

    def digest(self) -> Deferred[str]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Sending:
    """Requests for `length` bytes of a media from `offset`, one response after the other."""

    def __init__(
        self,
        media: SocketMedia,
        offset: int = 0,
        length: int = SIZE,
        window: int | None = None,
        requests: int = 1,
        header: bytes = b"",
    ) -> None:
        assert isinstance(media, KernelMedia)
        self.media = media
        self.sent = 0
        self.clock = Clock()
        self.stream = Streaming(self._send)
        self.site = MediaSite(self.stream, reactor=self.clock)
        self.connection = media.connection = SocketConnection(self.site, self.clock, window)
        self._span = offset, length
        self.connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n" % header * requests)

    async def _send(self, request: Any) -> bytes:
        offset, length = self._span
        request.setHeader(b"content-length", b"%d" % length)
        await send(request, self.media, offset, length)
        assert request.sentLength == length
        self.sent += 1
        return b""

    @property
    def content(self) -> bytes:
        """The content that the client has received."""
        return self.connection.received.partition(HEAD)[2]

    def assert_cut_off(self) -> None:
        """Check that the client can tell that the content is incomplete."""
        assert not self.connection.connected
        assert len(self.content) < SIZE
        assert (self.sent, self.stream.cancelled) == (0, 1)
        assert self.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, SIZE),
        (0, SENDFILE_BYTES + 1),
        (17, TURN_BYTES),
        (17, TURN_BYTES + 1),
        (SIZE - 100_000, 100_000),
    ],
)
@pytest.mark.parametrize("window", [None, 0, 100, 400_000])
@pytest.mark.parametrize("cold", [False, True])
def test_a_span_is_sent_whole_and_nothing_beyond_it(
    offset: int, length: int, window: int | None, cold: bool
) -> None:
    """Cases 20 and 45."""
    media = SocketMedia(cold=cold)
    sending = Sending(media, offset, length, window)
    sending.connection.take(500_000)
    sending.connection.take()
    while media.fetching:
        media.fetched()
        sending.clock.advance(0)
    (answer,) = sending.connection.answers()
    assert answer.content == CONTENT[offset : offset + length]
    assert sending.sent == 1
    assert max(at + size for at, size in media.asked) == offset + length
    assert sending.connection.connected


@pytest.mark.parametrize("length", [0, 1, SENDFILE_BYTES])
def test_a_small_span_is_read_and_sent_with_its_head(length: int) -> None:
    """Case 7."""
    sending = Sending(SocketMedia(), 5, length)
    assert sending.content == CONTENT[5 : 5 + length]
    assert (sending.sent, sending.media.asked) == (1, [])


def test_one_turn_of_the_loop_is_short() -> None:
    """Case 29. Twisted calls again in the next turn."""
    sending = Sending(SocketMedia())
    assert sending.media.asked == [
        (0, TURN_BYTES),
        (TURN_BYTES, TURN_BYTES),
        (2 * TURN_BYTES, 17),
    ]


@pytest.mark.parametrize("most", [1000, TURN_BYTES - 1])
def test_a_span_that_the_kernel_takes_in_parts_is_continued(most: int) -> None:
    media = SocketMedia()
    media.most = most
    sending = Sending(media)
    assert sending.content == CONTENT
    assert sending.sent == 1


def test_a_socket_that_takes_nothing_is_waited_for() -> None:
    """Case 24. Nothing is sent until it reads, and the connection is watched."""
    sending = Sending(SocketMedia(), window=0)
    assert sending.media.asked == []
    sending.connection.take(500)  # the headers, and a little
    asked = len(sending.media.asked)
    sending.clock.advance(1)
    assert len(sending.media.asked) == asked
    assert len(sending.clock.getDelayedCalls()) == 2, "rounds for slow readers, and for senders"
    sending.connection.take()
    assert sending.content == CONTENT
    assert len(sending.clock.getDelayedCalls()) == 1, "for senders: no reader is waited for"


def test_a_socket_that_is_ready_and_takes_nothing_is_tried_again() -> None:
    media = SocketMedia()
    media.errors = [BlockingIOError(errno.EAGAIN, "not now") for _ in range(3)]
    sending = Sending(media)
    assert sending.content == CONTENT
    assert [offset for offset, _ in media.asked][:4] == [0, 0, 0, 0]


def test_what_is_cold_is_fetched_and_the_loop_waits_for_nothing() -> None:
    """Cases 26 and 29."""
    media = SocketMedia(cold=True)
    sending = Sending(media)
    for start in (0, TURN_BYTES, 2 * TURN_BYTES):
        assert [span for span, _ in media.fetching] == [range(start, min(start + TURN_BYTES, SIZE))]
        asked = len(media.asked)
        sending.connection.take()
        sending.connection.channel.transport.startWriting()
        sending.clock.advance(1)
        assert len(media.asked) == asked, "nobody asks while it is fetched"
        assert sending.content == CONTENT[:start]
        media.fetched()
        sending.clock.advance(0)
    assert sending.content == CONTENT
    assert sending.sent == 1


@pytest.mark.parametrize("kept", [0, 1, TURN_BYTES, SIZE - 1])
@pytest.mark.parametrize("cold", [False, True])
def test_a_file_that_became_shorter_cuts_the_connection(
    kept: int, cold: bool, nothing_left_behind: list[LogEvent]
) -> None:
    """A short file never looks complete."""
    media = SocketMedia(CONTENT[:kept], cold=cold)
    sending = Sending(media)
    while media.fetching:
        media.fetched()
        sending.clock.advance(0)
    sending.assert_cut_off()
    assert sending.content == CONTENT[:kept]
    assert ["cut off" in event["log_format"] for event in nothing_left_behind] == [True]
    nothing_left_behind.clear()


def test_a_file_that_becomes_shorter_while_it_is_sent_cuts_the_connection(
    nothing_left_behind: list[LogEvent],
) -> None:
    sending = Sending(SocketMedia(), window=500_000)
    sending.media.content = CONTENT[:200_000]
    sending.connection.take()
    sending.assert_cut_off()
    assert len(nothing_left_behind) == 1
    nothing_left_behind.clear()


@pytest.mark.parametrize("window", [None, 500_000])
def test_a_file_that_cannot_be_sent_cuts_the_connection(
    window: int | None, nothing_left_behind: list[LogEvent]
) -> None:
    media = SocketMedia()
    if window is None:
        media.errors = [OSError(errno.EIO, "the disk is gone")]
    sending = Sending(media, window=window)
    if window is not None:
        media.errors = [OSError(errno.EIO, "the disk is gone")]
        sending.connection.take()
    sending.assert_cut_off()
    assert ["the disk is gone" in event["why"] for event in nothing_left_behind] == [True]
    nothing_left_behind.clear()


@pytest.mark.parametrize("fetches", [0, 1, 2])
def test_a_fetch_that_fails_cuts_the_connection(
    fetches: int, nothing_left_behind: list[LogEvent]
) -> None:
    media = SocketMedia(cold=True)
    sending = Sending(media)
    for _ in range(fetches):
        media.fetched()
        sending.clock.advance(0)
    media.fetching.pop()[1].errback(OSError(errno.EIO, "the disk is gone"))
    sending.clock.advance(0)
    sending.assert_cut_off()
    assert sending.content == CONTENT[: fetches * TURN_BYTES]
    assert ["the disk is gone" in event["why"] for event in nothing_left_behind] == [True]
    nothing_left_behind.clear()


@pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__name__)
def test_a_client_that_disconnects_when_the_kernel_sends_is_not_an_error(error: OSError) -> None:
    """Case 25. Nothing is logged."""
    media = SocketMedia()
    sending = Sending(media, window=500_000)
    media.errors = [error]
    sending.connection.take()
    sending.assert_cut_off()


@pytest.mark.parametrize("window", [0, 50, 1000, TURN_BYTES, SIZE])
@pytest.mark.parametrize("leave", ["the client leaves", "the service stops"])
def test_a_connection_that_ends_at_any_moment_ends_the_sending(window: int, leave: str) -> None:
    """Cases 25 and 47."""
    sending = Sending(SocketMedia(), window=window)
    if leave == "the client leaves":
        sending.connection.leave()
    else:
        sending.site.disconnect()
        sending.clock.advance(0)
    asked = len(sending.media.asked)
    sending.connection.take()
    sending.assert_cut_off()
    assert len(sending.media.asked) == asked
    assert sending.site.channels == set()


@pytest.mark.parametrize("end", ["bytes", "failure"])
@pytest.mark.parametrize("aborted", [False, True])
def test_the_result_of_a_fetch_after_the_connection_has_ended_is_dropped(
    end: str, aborted: bool
) -> None:
    """Case 25."""
    media = SocketMedia(cold=True)
    sending = Sending(media)
    asked = len(media.asked)
    if aborted:
        sending.site.disconnect()  # whose connections are lost in the next turn
    else:
        sending.connection.leave()
    if end == "bytes":
        media.fetched()
    else:
        sending.clock.advance(0)
        media.fetching.pop()[1].errback(OSError(errno.EIO, "the disk is gone"))
    sending.clock.advance(0)
    sending.assert_cut_off()
    assert len(media.asked) == asked


@pytest.mark.parametrize("window", [None, 0])
@pytest.mark.parametrize("cold", [False, True])
def test_pipelined_requests_get_their_responses_in_order(window: int | None, cold: bool) -> None:
    """Case 46."""
    media = SocketMedia(cold=cold)
    sending = Sending(media, 3, 300_000, window, requests=3)
    for _ in range(20):
        sending.connection.take(100_000)
        if media.fetching:
            media.fetched()
            sending.clock.advance(0)
    assert [each.content for each in sending.connection.answers()] == [CONTENT[3:300_003]] * 3
    assert sending.sent == 3
    assert sending.connection.connected


def test_responses_that_are_read_and_responses_of_the_kernel_keep_their_order() -> None:
    """Case 46. The kernel sends after earlier data was written, and writing continues when
    the kernel has sent.
    """
    media = SocketMedia()
    lengths = [60_000, 60_000, 200_000, 60_000, 60_000, 200_000]
    clock = Clock()

    async def answer(request: Any) -> bytes:
        length = int(request.uri[1:])
        request.setHeader(b"content-length", b"%d" % length)
        await send(request, media, length, length)
        return b""

    site = MediaSite(Streaming(answer), reactor=clock)
    connection = media.connection = SocketConnection(site, clock, window=0)
    connection.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in lengths))
    for _ in range(30):
        connection.take(25_000)
    contents = [each.content for each in connection.answers()]
    assert contents == [CONTENT[n : 2 * n] for n in lengths]


def test_a_connection_that_is_to_be_closed_is_closed_behind_the_last_byte() -> None:
    sending = Sending(SocketMedia(), window=500_000, header=b"Connection: close\r\n")
    assert sending.connection.connected
    sending.connection.take()
    assert sending.content == CONTENT
    assert not sending.connection.connected
    assert not sending.connection.aborted


def test_the_content_of_a_request_does_not_disturb_its_response() -> None:
    """It is not read; the peer is paused while the kernel sends, and resumed afterwards."""
    sending = Sending(SocketMedia(), window=0, header=b"Content-Length: 3000000\r\n")
    sending.connection.send(bytes(2_000_000))
    sending.connection.take(1_000_000)
    sending.connection.send(bytes(1_000_000) + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    sending.connection.take()
    assert [each.content for each in sending.connection.answers()] == [CONTENT, CONTENT]


def test_a_client_that_half_closes_before_its_content_ends_the_response() -> None:
    """Nothing is sent, or fetched, for a connection that is closed."""
    media = SocketMedia(cold=True)
    sending = Sending(media, header=b"Content-Length: 5\r\n")
    sending.connection.half_close()
    assert len(media.fetching) == 1
    media.fetched()
    sending.clock.advance(0)
    sending.assert_cut_off()

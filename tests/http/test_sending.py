"""Sending files by paused reads: at the client's pace, and never short without a sign of it."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from tests.http.connection import Connection, Streaming, outcome
from twistedmedia.http.sending import PausedReads
from twistedmedia.http.site import MediaSite
from twistedmedia.http.timeouts import BLOCK_BYTES

SIZE = 5 * BLOCK_BYTES + 17
CONTENT = bytes(n % 251 for n in range(SIZE))
HEAD = b"\r\n\r\n"


class HeldMedia:
    """A media whose reads wait until the test fires them, and which can be too short or fail."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.spans: list[tuple[int, int]] = []
        self.held = False
        self.waiting: list[Deferred[bytes]] = []
        self.error: Exception | None = None

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        self.spans.append((offset, size))
        if self.held:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        return fail(self.error) if self.error else succeed(self.content[offset : offset + size])

    def fire(self) -> None:
        """Complete the current read."""
        waiting, (offset, size) = self.waiting.pop(), self.spans[-1]
        waiting.callback(self.content[offset : offset + size])


class Sending:
    """One request whose response is `length` bytes from `offset` of a media."""

    def __init__(
        self,
        media: HeldMedia,
        offset: int = 0,
        length: int = SIZE,
        window: int | None = None,
        requests: int = 1,
    ) -> None:
        self.sent: list[list[Any]] = []
        self.clock = Clock()
        self.stream = Streaming(self._send)
        self.site = MediaSite(self.stream, reactor=self.clock)
        self.connection = Connection(self.site, self.clock, window)
        self._what = media, offset, length
        self.connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * requests)

    async def _send(self, request: Any) -> bytes:
        media, offset, length = self._what
        request.setHeader(b"content-length", b"%d" % length)
        sending = PausedReads(request, media, offset, length).start()  # type: ignore[arg-type]
        done = sending.addCallback(lambda _: self.sent.append([None]))
        await done
        return b""

    @property
    def content(self) -> bytes:
        """The content that the client has received."""
        return self.connection.received.partition(HEAD)[2]


@pytest.fixture
def media() -> HeldMedia:
    return HeldMedia()


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, SIZE),
        (0, 1),
        (SIZE - 1, 1),
        (100, BLOCK_BYTES),
        (100, BLOCK_BYTES + 1),
        (BLOCK_BYTES, 2 * BLOCK_BYTES),
    ],
)
@pytest.mark.parametrize("window", [None, 0])
def test_a_span_is_sent_whole_and_nothing_beyond_it_read(
    media: HeldMedia, offset: int, length: int, window: int | None
) -> None:
    """Case 20."""
    sending = Sending(media, offset, length, window)
    sending.connection.take()
    assert sending.content == CONTENT[offset : offset + length]
    assert sending.sent == [[None]]
    assert max(at + size for at, size in media.spans) == offset + length
    assert sending.connection.connected


def test_a_span_of_nothing_is_sent_without_a_read(media: HeldMedia) -> None:
    """Case 7."""
    sending = Sending(media, 0, 0)
    assert (sending.content, sending.sent, media.spans) == (b"", [[None]], [])
    assert sending.connection.connected


def test_one_connection_is_sent_several_media_in_turn(media: HeldMedia) -> None:
    sending = Sending(media, requests=3, window=0)
    for _ in range(20):
        sending.connection.take(SIZE // 5)
    sending.connection.take()
    assert [answer.content for answer in sending.connection.answers()] == [CONTENT] * 3


def test_nothing_is_read_ahead_for_a_client_that_takes_nothing(media: HeldMedia) -> None:
    """Case 24."""
    sending = Sending(media, window=0)
    assert media.spans == [(0, BLOCK_BYTES)]
    sending.connection.take(BLOCK_BYTES // 2)
    assert len(media.spans) == 1
    sending.connection.take(BLOCK_BYTES)
    assert len(media.spans) == 2
    sending.connection.take()
    assert sending.content == CONTENT


def test_a_pause_during_a_read_is_kept(media: HeldMedia) -> None:
    media.held = True
    request = Recorder()
    sending = PausedReads(request, media, 0, SIZE)  # type: ignore[arg-type]
    sending.start()
    sending.pauseProducing()
    media.fire()
    assert (len(request.written), len(media.spans), media.waiting) == (1, 1, [])
    sending.resumeProducing()
    assert (len(request.written), len(media.spans)) == (1, 2)


def test_there_is_one_read_at_a_time(media: HeldMedia) -> None:
    media.held = True
    sending = Sending(media)
    for _ in range(3):
        sending.connection.channel.pauseProducing()
        sending.connection.channel.resumeProducing()
    assert len(media.waiting) == 1
    while media.waiting:
        media.fire()
        sending.clock.advance(0)
    assert sending.content == CONTENT


@pytest.mark.parametrize("kept", [0, 1, BLOCK_BYTES, SIZE - 1])
def test_a_file_that_became_shorter_cuts_the_connection(
    kept: int, nothing_left_behind: list[LogEvent]
) -> None:
    """A short file never looks complete."""
    sending = Sending(HeldMedia(CONTENT[:kept]))
    assert sending.connection.aborted
    assert not sending.connection.connected
    assert len(sending.content) < SIZE
    assert sending.sent == []
    assert sending.stream.cancelled == 1
    (event,) = nothing_left_behind
    assert "cut off" in event["log_format"]
    nothing_left_behind.clear()


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_a_read_that_fails_cuts_the_connection(
    media: HeldMedia, blocks: int, nothing_left_behind: list[LogEvent]
) -> None:
    media.held = True
    sending = Sending(media)
    for _ in range(blocks):
        media.fire()
        sending.clock.advance(0)
    media.waiting.pop().errback(OSError("the disk is gone"))
    sending.clock.advance(0)
    assert sending.connection.aborted
    assert len(sending.content) <= blocks * BLOCK_BYTES
    assert (sending.sent, sending.stream.cancelled) == ([], 1)
    assert len(nothing_left_behind) == 1
    nothing_left_behind.clear()


def test_a_client_that_leaves_ends_the_reading(media: HeldMedia) -> None:
    """Case 25."""
    sending = Sending(media, window=0)
    sending.connection.leave()
    assert len(media.spans) == 1
    assert (sending.sent, sending.stream.cancelled) == ([], 1)


@pytest.mark.parametrize("end", ["data", "nothing", "failure"])
def test_the_result_of_a_read_after_the_client_has_left_is_dropped(
    media: HeldMedia, end: str
) -> None:
    """Case 25."""
    media.held = True
    sending = Sending(media)
    sending.connection.leave()
    (waiting,) = media.waiting
    if end == "failure":
        waiting.errback(OSError("the disk is gone"))
    else:
        waiting.callback(b"data" if end == "data" else b"")
    sending.clock.advance(0)
    assert len(media.spans) == 1
    assert sending.content == b""
    assert sending.sent == []


def test_waiting_for_the_end_can_be_cancelled(media: HeldMedia) -> None:
    media.held = True
    request = Recorder()
    sending = PausedReads(request, media, 0, SIZE)  # type: ignore[arg-type]
    stopped = outcome(sending.start())
    sending.stopProducing()
    media.fire()
    assert (stopped, request.written) == ([], [])


def test_thousands_of_reads_that_end_at_once_do_not_recurse(
    media: HeldMedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sending.BLOCK_BYTES", "timeouts.BLOCK_BYTES", "timeouts.LEAST_BLOCK_BYTES"):
        monkeypatch.setattr(f"twistedmedia.http.{name}", 16)
    sending = Sending(media, length=100_000)
    assert sending.content == CONTENT[:100_000]
    assert len(media.spans) == 6250


def test_nothing_is_read_for_a_client_that_has_not_read_the_response_before() -> None:
    """Case 24. This holds for a hundred pipelined requests as for one."""
    media = HeldMedia()
    sending = Sending(media, length=100_000, window=0, requests=100)
    read = len(media.spans)
    assert read <= 2
    sending.connection.take(50_000)
    assert len(media.spans) == read
    sending.connection.take()
    assert [each.content for each in sending.connection.answers()] == [CONTENT[:100_000]] * 100


class Recorder:
    """A request that records what is written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming

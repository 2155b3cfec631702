"""Uploads from a pipe and downloads to a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread

from tests.client.fake import Answer, told
from tests.support import asynchronous
from twistedmedia.client import (
    ClientTimeouts,
    IntegrityError,
    LocalFailure,
    Refused,
    Retries,
    Unreachable,
)
from twistedmedia.client.idle_timeouts import IdleTimer
from twistedmedia.client.streams import StreamSink, StreamSource, descriptor_name

CONTENT = bytes(range(256)) * 8192  # more than pipes and sockets buffer


class Pipe:
    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def give(self, content: bytes) -> Deferred[None]:
        """Write `content` in a thread, and close the pipe."""

        def write() -> None:
            with os.fdopen(self.writing, "wb", closefd=False) as file:
                file.write(content)
            self.end()

        return deferToThread(write)

    def end(self) -> None:
        os.close(self.writing)
        self.writing = -1

    def taken(self) -> Deferred[bytes]:
        """Read the pipe to its end in a thread."""

        def read() -> bytes:
            with os.fdopen(self.reading, "rb", closefd=False) as file:
                return file.read()

        return deferToThread(read)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    for descriptor in (pipe.reading, pipe.writing):
        if descriptor >= 0:
            os.close(descriptor)


@asynchronous
async def test_a_pipe_is_stored(talk: Any, pipe: Pipe) -> None:
    seen: list[int] = []
    async with talk() as it:
        giving = pipe.give(CONTENT)
        stored = await it.client.upload_stream(
            pipe.reading, "a", "b.wav", progress=lambda sent, size: seen.append(sent)
        )
        await giving
        assert it.fake.media == {"a/b.wav": CONTENT}
        assert (stored.size, stored.replaced) == (len(CONTENT), False)
        assert it.fake.asked("PUT")[0].headers["transfer-encoding"] == "chunked"
    assert seen == sorted(seen)
    assert seen[-1] == len(CONTENT)


@asynchronous
async def test_a_pipe_without_content_is_an_empty_file(talk: Any, pipe: Pipe) -> None:
    async with talk() as it:
        pipe.end()
        assert (await it.client.upload_stream(pipe.reading, "a", "b.wav")).size == 0
        assert it.fake.media == {"a/b.wav": b""}


@asynchronous
async def test_nothing_is_read_if_the_name_is_taken(talk: Any, pipe: Pipe) -> None:
    os.write(pipe.writing, b"sound")
    async with talk() as it:
        etag = it.fake.put("a/b.wav", b"other")
        with pytest.raises(Refused, match="exists already") as caught:
            await it.client.upload_stream(pipe.reading, "a", "b.wav")
        assert caught.value.code == 501
        for wrong, name in [('"other"', "b.wav"), ("*", "none.wav")]:
            with pytest.raises(Refused) as caught:
                await it.client.upload_stream(pipe.reading, "a", name, etag=wrong)
            assert caught.value.code == 412
        pipe.end()
        stored = await it.client.upload_stream(pipe.reading, "a", "b.wav", etag=etag)
        assert stored.replaced
        assert it.fake.media == {"a/b.wav": b"sound"}


@asynchronous
async def test_a_broken_stream_is_not_retried(talk: Any, pipe: Pipe) -> None:
    async with talk() as it:
        it.fake.next("PUT", is_lost=True, answer=told(500, 500))
        giving = pipe.give(b"sound")
        with pytest.raises(Unreachable):
            await it.client.upload_stream(pipe.reading, "a", "b.wav")
        await giving
        assert len(it.fake.asked("PUT")) == 1
        assert it.fake.media == {}
    assert it.waits == []


@asynchronous
async def test_a_refusal_is_reported_while_the_writer_continues(talk: Any, pipe: Pipe) -> None:
    async with talk() as it:
        it.fake.next("PUT", answer=told(415, 504), early=True)
        os.write(pipe.writing, b"sound")
        with pytest.raises(Refused) as caught:
            await it.client.upload_stream(pipe.reading, "a", "b.txt")
        assert caught.value.code == 504


@asynchronous
async def test_other_stored_content_than_was_sent_is_an_error(talk: Any, pipe: Pipe) -> None:
    async with talk() as it:
        it.fake.put("a/other.wav", b"tower")
        it.fake.next("PUT", answer=it.fake._stored("a/other.wav"))
        giving = pipe.give(b"sound")
        with pytest.raises(IntegrityError, match="its digest differs"):
            await it.client.upload_stream(pipe.reading, "a", "b.wav")
        await giving


@asynchronous
async def test_a_slow_writer_has_no_timeout(talk: Any, pipe: Pipe) -> None:
    """The timeouts of the client are for the service only."""
    async with talk(
        timeouts=ClientTimeouts(stall_s=0.2, response_s=5), retries=Retries(times=0)
    ) as it:
        upload = it.client.upload_stream(pipe.reading, "a", "b.wav")
        await deferLater(reactor, 0.5)
        os.write(pipe.writing, b"so")
        await deferLater(reactor, 0.5)
        os.write(pipe.writing, b"und")
        pipe.end()
        await upload
        assert it.fake.media == {"a/b.wav": b"sound"}


@asynchronous
async def test_a_service_that_accepts_nothing_is_given_up(talk: Any) -> None:
    endless = os.open("/dev/zero", os.O_RDONLY)
    try:
        async with talk(
            timeouts=ClientTimeouts(stall_s=1, response_s=60), retries=Retries(times=0)
        ) as it:
            it.fake.next("PUT", is_deaf=True, hangs=True)
            upload = it.client.upload_stream(endless, "a", "b.wav")
            with pytest.raises(Unreachable, match="takes too long"):
                await upload.addTimeout(15, reactor)
    finally:
        os.close(endless)


class Taker:
    """A consumer that pauses the producer after `room` bytes."""

    def __init__(self, producer: Any, room: int) -> None:
        self.room = room
        self.taken = 0
        self._producer = producer

    def write(self, piece: bytes) -> None:
        self.taken += len(piece)
        if self.taken >= self.room:
            self._producer.pauseProducing()


class Sending:
    """A stream from `pipe` to a `taker`, and the `wait` for the response by its own `clock`.
    The limits are 10 s for the content and 50 s for the answer.
    """

    def __init__(self, pipe: Pipe, room: int) -> None:
        self.clock = Clock()
        self.read: list[int] = []
        watch = IdleTimer(self.clock)
        self.stream = StreamSource(reactor, pipe.reading, self.read.append)
        producer: Any = self.stream.producer(watch, 10, 50)
        self.taker = Taker(producer, room)
        self.producer = producer
        self.wait = ensureDeferred(watch.watch(Deferred(), 50))
        self.sent = producer.startProducing(self.taker)

    async def until_taken(self, size: int) -> None:
        while self.taker.taken < size:
            await deferLater(reactor, 0.01)

    def limit_s(self) -> float | None:
        """The seconds until the timer expires, or None if it does not run."""
        calls = self.clock.getDelayedCalls()
        return calls[0].getTime() - self.clock.seconds() if calls else None

    async def end(self) -> None:
        self.producer.stopProducing()
        self.wait.cancel()
        with pytest.raises(CancelledError):
            await self.wait
        while reactor.getThreadPool().working:
            await deferLater(reactor, 0.02)


@asynchronous
async def test_the_timer_runs_only_for_the_service(pipe: Pipe) -> None:
    it = Sending(pipe, room=5)
    assert it.limit_s() is None  # nothing has been read yet
    os.write(pipe.writing, b"one")
    await it.until_taken(3)
    assert it.limit_s() is None
    os.write(pipe.writing, b"two")
    await it.until_taken(6)
    assert it.limit_s() == 10  # the service accepts nothing, and no more is read
    it.clock.advance(9)
    it.taker.room = 1000
    it.producer.resumeProducing()
    assert it.limit_s() is None
    it.producer.pauseProducing()
    os.write(pipe.writing, b"three")
    await deferLater(reactor, 0.1)
    assert it.limit_s() == 10  # one piece is read ahead
    it.producer.resumeProducing()
    await it.until_taken(11)
    assert it.limit_s() is None
    pipe.end()
    await it.sent
    assert it.limit_s() == 50
    it.producer.pauseProducing()  # the end of the content may fill the connection
    it.producer.resumeProducing()
    assert it.limit_s() == 50
    await it.end()


@asynchronous
async def test_a_cancelled_stream_leaves_no_waiting_thread(talk: Any, pipe: Pipe) -> None:
    async with talk() as it:
        begun: Deferred[None] = Deferred()
        upload = it.client.upload_stream(
            pipe.reading, "a", "b.wav", progress=lambda sent, size: begun.callback(None)
        )
        os.write(pipe.writing, b"so")
        await begun
        await deferLater(reactor, 0)
        upload.cancel()
        with pytest.raises(CancelledError):
            await upload
        while reactor.getThreadPool().working:
            await deferLater(reactor, 0.02)
        assert it.fake.media == {}


@asynchronous
async def test_a_file_is_downloaded_to_a_pipe(talk: Any, pipe: Pipe) -> None:
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        taking = pipe.taken()
        got = await it.client.download_stream("a", "b.wav", pipe.writing)
        pipe.end()
        assert await taking == CONTENT
        assert (got.size, got.verified) == (len(CONTENT), True)


@asynchronous
async def test_a_broken_download_to_a_pipe_is_resumed(talk: Any, pipe: Pipe) -> None:
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        it.fake.next("GET", short_at=100_000)
        taking = pipe.taken()
        assert (await it.client.download_stream("a", "b.wav", pipe.writing)).verified
        pipe.end()
        assert await taking == CONTENT
        assert it.fake.asked("GET")[1].headers["range"] == "bytes=100000-"
    assert it.failures == ["Unreachable"]


@asynchronous
async def test_two_versions_of_a_file_are_not_joined(talk: Any, pipe: Pipe) -> None:
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        it.fake.next("GET", short_at=100_000)
        it.fake.next("GET", answer=Answer(200, {"ETag": '"another"'}, b"another" * 100_000))
        taking = pipe.taken()
        with pytest.raises(IntegrityError, match="broke off after 100000 bytes"):
            await it.client.download_stream("a", "b.wav", pipe.writing)
        pipe.end()
        assert await taking == CONTENT[:100_000]


@asynchronous
async def test_content_with_another_digest_is_an_integrity_error(talk: Any, pipe: Pipe) -> None:
    async with talk() as it:
        it.fake.put("a/b.wav", b"sound")
        it.fake.next("GET", more={"Repr-Digest": f"sha-256=:{'A' * 43}=:"})
        with pytest.raises(IntegrityError, match="its digest differs"):
            await it.client.download_stream("a", "b.wav", pipe.writing)


@asynchronous
async def test_a_closed_pipe_ends_the_download(talk: Any, pipe: Pipe) -> None:
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        os.close(pipe.reading)
        pipe.reading = -1
        with pytest.raises(LocalFailure, match="Broken pipe"):
            await it.client.download_stream("a", "b.wav", pipe.writing)


def test_a_stream_cannot_be_truncated() -> None:
    outlet = StreamSink(1)
    assert outlet.target == "standard output"
    with pytest.raises(IntegrityError, match="after all 0 bytes were written"):
        outlet.truncate(0)


def test_descriptors_have_names_for_people() -> None:
    assert [descriptor_name(each) for each in (0, 1, 2, 3)] == [
        "standard input",
        "standard output",
        "standard error",
        "descriptor 3",
    ]


@asynchronous
async def test_a_cancelled_download_does_not_wait_for_its_reader(talk: Any, pipe: Pipe) -> None:
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        begun: Deferred[None] = Deferred()

        def moved(done: int, size: int | None) -> None:  # several times
            if not begun.called:
                begun.callback(None)

        download = it.client.download_stream("a", "b.wav", pipe.writing, progress=moved)
        await begun  # the pipe is not read
        await deferLater(reactor, 0.1)
        download.cancel()
        with pytest.raises(CancelledError):
            await download

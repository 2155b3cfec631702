"""Case 96: a malicious server that sends endless pages, folders, content and headers."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from tests.client.hostile import chunk, facing, head, page, whole, without_end
from tests.client.test_subcommands import Running
from tests.support import asynchronous
from twistedmedia.client import (
    ClientTimeouts,
    InvalidResponse,
    LocalFailure,
    Refused,
    Retries,
    Unreachable,
    listings,
)
from twistedmedia.client.client_limits import MIN_PROGRESS_BYTES
from twistedmedia.client.command.get import GetOptions, get, get_stream
from twistedmedia.client.command.remote import ls
from twistedmedia.client.command.rm import rm
from twistedmedia.client.idle_timeouts import IdleTimer, MinRate
from twistedmedia.names import MAX_NAME_BYTES

MIB = 1 << 20


def running(client: Any) -> Running:
    talk: Any = SimpleNamespace(client=client)
    return Running(talk)


# Heads.

HEADS = {
    "header lines": without_end(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 500),
    "one header over many lines": without_end(b"HTTP/1.1 200 OK\r\nX: y\r\n", b" z\r\n" * 500),
    "interim responses": without_end(*[head(status=b"103 Early Hints")] * 2),
    "interim headers": without_end(b"HTTP/1.1 103 Early Hints\r\n", b"X: y\r\n" * 500),
}


@pytest.mark.parametrize("kind", HEADS)
@asynchronous
async def test_an_endless_head_is_given_up(kind: str) -> None:
    """Case 96."""
    async with facing(lambda method, target, n: HEADS[kind], retries=Retries(times=3)) as (
        server,
        client,
    ):
        with pytest.raises(InvalidResponse, match="64 KiB of headers"):
            await client.health()
        assert len(server.asked) == 1, "it is not asked again"
        assert server.sent_bytes < 32 * MIB  # what the sockets buffer


@asynchronous
async def test_each_response_on_a_connection_may_have_a_large_head() -> None:
    """Case 96: the limit is for one response, not for all responses on a connection."""
    large = head(b"X: " + b"y" * 16_000, b"X: " + b"y" * 16_000, b"Content-Length: 2")
    async with facing(lambda method, target, n: [large, b"{}"]) as (server, client):
        for _ in range(6):
            with pytest.raises(InvalidResponse, match="'version'"):
                await client.health()
        assert len(server.connections) == 1


# Content.


@asynchronous
async def test_content_in_tiny_chunks_is_given_up() -> None:
    """Case 96: chunks of one byte, each with an extension of a kilobyte."""
    begin = head(b"Transfer-Encoding: chunked")
    answer = without_end(begin, chunk(b" ", b";" + b"x" * 1_000) * 8)
    async with facing(lambda method, target, n: answer) as (server, client):
        with pytest.raises(InvalidResponse, match="pieces that are too small"):
            await client.health()
        assert server.sent_bytes < 64 * MIB


@asynchronous
async def test_many_small_chunks_are_read() -> None:
    """Case 96: small pieces are limited, not refused."""
    content = b'{"version": "1", "uptime": 1, "uploads": 0}'
    chunks = b"".join(chunk(b" ") for _ in range(10_000)) + chunk(content) + chunk(b"")
    async with facing(lambda method, target, n: [head(b"Transfer-Encoding: chunked"), chunks]) as (
        _,
        client,
    ):
        assert (await client.health()).version == "1"


@asynchronous
async def test_very_slow_content_is_given_up() -> None:
    """Case 96: each byte arrives in time, but the whole content does not."""
    async with facing(
        lambda method, target, n: [head(b"Content-Length: 1000")],
        timeouts=ClientTimeouts(stall_s=3, response_s=5),
    ) as (server, client):
        asked = client.health()

        def drip() -> None:
            for connection in server.connections:
                connection.transport.write(b" ")
            if not asked.called:
                reactor.callLater(0.05, drip)  # type: ignore[attr-defined]

        await deferLater(reactor, 0.05)
        drip()
        with pytest.raises(Unreachable, match="fewer than 64 bytes a second"):
            await asked
        await deferLater(reactor, 0.1)


@asynchronous
async def test_the_rate_counts_only_the_time_spent_waiting_for_the_service() -> None:
    """Case 96: a slow local disk or pipe is not a failure of the service."""
    clock = Clock()
    pace, watch = MinRate(clock, 64, 60), IdleTimer(clock)

    async def read(after_s: float, size: int) -> None:
        reading: Deferred[list[bytes]] = Deferred()
        clock.callLater(after_s, reading.callback, [bytes(size)])
        running = Deferred.fromCoroutine(pace.watch(watch, reading))
        clock.advance(after_s)
        await running

    for _ in range(5):  # just enough
        for _ in range(2):
            await read(30, 64 * 30)
            clock.advance(1_000)  # the reader is busy
    await read(30, 64 * 30)
    with pytest.raises(Unreachable, match="fewer than"):
        await read(30, 64 * 30 - 1)


@asynchronous
async def test_a_response_other_than_a_page_has_at_most_a_mebibyte() -> None:
    """Case 96: endless JSON, and JSON that is too long."""
    health = b'{"version": "1", "uptime": 1, "uploads": 0}'
    endless = without_end(head(b"Transfer-Encoding: chunked"), chunk(b"[" * 10_000))
    for answer in (endless, whole(health + b" " * MIB)):
        async with facing(lambda method, target, n, answer=answer: answer) as (server, client):
            with pytest.raises(InvalidResponse, match="larger than any"):
                await client.health()
            assert server.sent_bytes < 16 * MIB


@asynchronous
async def test_a_long_reason_is_truncated() -> None:
    """Case 96: the reason is shown for each file."""
    content = b'{"code": 404, "reason": "%s"}' % (b"no" * 100_000)
    answer = [head(b"Content-Length: %d" % len(content), status=b"404 Not Found"), content]
    async with facing(lambda method, target, n: answer) as (_, client):
        with pytest.raises(Refused) as caught:
            await client.fetch("http://e/")
    assert len(caught.value.reason) == 2_000


# Listings.


def numbered(n: int) -> str:
    return f"{n:09}"


def endless_pages(method: str, target: str, n: int) -> list[bytes]:
    """A page of 1,000 files, which always has a next page."""
    after = int(target.partition("?after=")[2] or -1)
    names = [numbered(after + 1 + i) for i in range(1_000)]
    return page(names, names[-1])


@asynchronous
async def test_endless_pages_are_given_up() -> None:
    """Case 96."""
    async with facing(endless_pages) as (server, client):
        with pytest.raises(LocalFailure, match="more than 5,000 entries; allow more"):
            async for _ in client.walk("a", max_entries=5_000):
                pass
        assert len(server.asked) == 6


@asynchronous
async def test_the_command_gives_up_endless_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 96: `ls`, `rm -r` and `get` process the entries before the limit."""
    monkeypatch.chdir(tmp_path)

    def answer(method: str, target: str, n: int) -> list[bytes]:
        if method == "DELETE":
            return whole(b'{"deleted": true}')
        if not target.partition("?")[0].endswith("/"):
            one = head(b'ETag: "x"', b"Content-Length: 1")
            return [one] if method == "HEAD" else [one, b"x"]
        after = int(target.partition("?after=")[2] or -1)
        names = [numbered(after + 1 + i) for i in range(10)]
        return page(names, names[-1])

    async with facing(answer) as (_, client):
        listing = running(client)
        await ls(listing.run, "a", long=False, recursive=True, max_entries=25)
        assert len(listing.out) == 20
        deleting = running(client)
        await rm(deleting.run, ["a"], recursive=True, max_entries=25)
        assert len(deleting.out) == 30  # a page is deleted before the next one is requested
        getting = running(client)
        await get(getting.run, ["a"], "out", GetOptions(max_entries=25))
        assert len(getting.out) == len(os.listdir("out/a")) == 20
        for each in (listing, deleting, getting):
            assert each.code == 1
            assert each.err[0].startswith("failed     a: the service lists more than 25 entries")
            assert "allow more of them (--max-entries)" in each.err[0]
        with pytest.raises(
            LocalFailure, match=r"than 25 entries; allow more of them \(max_entries=\.\.\.\)"
        ):
            async for _ in client.walk("a", max_entries=25):
                pass
        monkeypatch.setattr(listings, "MAX_LIST_ENTRIES", 25)
        with pytest.raises(LocalFailure, match=r"than 25 entries; .* \(MediaClient\.walk\)"):
            await client.list("a")


@asynchronous
async def test_a_repeated_page_is_given_up() -> None:
    """Case 96: `next` advances, but the entries do not."""
    names = [numbered(n) for n in range(10)]
    async with facing(lambda method, target, n: page(names, numbered(1_000 + n))) as (
        server,
        client,
    ):
        with pytest.raises(InvalidResponse, match="does not end"):
            await client.list("a")
        assert len(server.asked) == 2


@asynchronous
async def test_a_page_with_too_many_entries_is_refused() -> None:
    """Case 96."""
    names = [numbered(n) for n in range(1_001)]
    async with facing(lambda method, target, n: page(names, None)) as (_, client):
        with pytest.raises(InvalidResponse, match="more than 1000 entries"):
            await client.page("a")
        assert len((await facing_page(names[:1_000])).entries) == 1_000


@pytest.mark.parametrize("name", ["x" * 256, "x" * 256 + "/", "ü" * 128, "x" * 1_000_000])
@asynchronous
async def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    """Case 96: `ls` would write it to the terminal."""
    with pytest.raises(InvalidResponse, match="an invalid name"):
        await facing_page([name])
    assert (await facing_page(["ü" * 127 + "x"])).entries[0].name == "ü" * 127 + "x"


async def facing_page(names: Iterable[str]) -> Any:
    async with facing(lambda method, target, n: page(names, None)) as (_, client):
        return await client.page("a")


@asynchronous
async def test_endless_nested_folders_end_at_the_longest_name() -> None:
    """Case 96: a name has at most 1,024 bytes; deeper entries are left out."""
    left_out: list[tuple[str, int]] = []
    async with facing(lambda method, target, n: page(["ddddddd/", "x.wav"], None)) as (
        server,
        client,
    ):
        found = await client.list("d", recursive=True, on_left_out=lambda *a: left_out.append(a))
        assert len(found) == len(server.asked) == MAX_NAME_BYTES // 8
        [(deepest, count)] = left_out
        assert (len(deepest) + len("/ddddddd") > MAX_NAME_BYTES, count) == (True, 1)


@asynchronous
async def test_endlessly_many_folders_are_given_up() -> None:
    """Case 96: a thousand folders in each folder."""
    folders = page([f"{numbered(n)}/" for n in range(1_000)], None)
    async with facing(lambda method, target, n: folders) as (server, client):
        with pytest.raises(LocalFailure, match="more than 20,000 entries"):
            async for _ in client.walk("a", recursive=True, max_entries=20_000):
                pass
        assert len(server.asked) == 21


@asynchronous
async def test_a_directory_of_any_size_is_walked_in_bounded_memory() -> None:
    """Case 96: each page is requested after the one before was consumed."""
    pages = 20

    def answer(method: str, target: str, n: int) -> list[bytes]:
        names = [f"{numbered(1_000 * n + i)}.wav" for i in range(1_000)]
        return page(names, names[-1] if n < pages - 1 else None)

    async with facing(answer) as (server, client):
        count, peak_early = 0, 0
        tracemalloc.start()
        try:
            async for _ in client.walk("a", recursive=True):
                count += 1
                assert len(server.asked) == (count - 1) // 1_000 + 1
                if count == 5_000:
                    peak_early = tracemalloc.get_traced_memory()[1]
            assert tracemalloc.get_traced_memory()[1] < peak_early + MIB
        finally:
            tracemalloc.stop()
        assert count == 1_000 * pages


@asynchronous
async def test_get_starts_files_before_it_requests_the_next_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 96: `get` of a directory does not keep a list of all entries."""
    monkeypatch.chdir(tmp_path)
    begun: list[int] = []  # how many files were started when each page was requested

    def answer(method: str, target: str, n: int) -> list[bytes]:
        if not target.partition("?")[0].endswith("/"):
            one = head(b'ETag: "x"', b"Content-Length: 1")
            return [one] if method == "HEAD" else [one, b"x"]
        begun.append(n - len(begun))
        names = [f"{numbered(100 * len(begun) + i)}.wav" for i in range(10)]
        return page(names, names[-1] if len(begun) < 4 else None)

    async with facing(answer) as (_, client):
        getting = running(client)
        await get(getting.run, ["a/."], "out")
        assert getting.code == 0
    assert len(os.listdir("out")) == 40
    assert begun[0] == 0
    assert all(late - early >= 10 for early, late in pairwise(begun))


# Sizes.

CHUNKED = head(b'ETag: "x"', b"Transfer-Encoding: chunked")
PIECE = chunk(bytes(65_536))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "b.wav"


def limited(free_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a disk with `free_bytes` of free space."""
    answer = SimpleNamespace(f_bavail=free_bytes, f_frsize=1, f_blocks=1 << 40)
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: answer)


@asynchronous
async def test_a_file_of_unknown_size_is_limited(target: Path) -> None:
    """Case 96."""
    answers = without_end(CHUNKED, PIECE, 256 * MIB)
    async with facing(lambda method, target, n: answers) as (server, client):
        with pytest.raises(LocalFailure, match=r"does not say how large .*--max-size"):
            await client.download("a", "b.wav", target, max_size=2 * MIB)
        assert server.sent_bytes < 32 * MIB
    assert os.listdir(target.parent) == []


@asynchronous
async def test_a_file_of_unknown_size_leaves_space_on_the_disk(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 96: even without a limit."""
    limited(64 * MIB + 100_000, monkeypatch)
    answers = without_end(CHUNKED, PIECE, 256 * MIB)
    async with facing(lambda method, target, n: answers, retries=Retries(times=3)) as (
        server,
        client,
    ):
        with pytest.raises(LocalFailure, match="only 67208864 bytes are free; free some space"):
            await client.download("a", "b.wav", target)
        assert len(server.asked) == 1
    assert os.listdir(target.parent) == []


@asynchronous
async def test_a_file_of_unknown_size_within_the_limit_is_downloaded(target: Path) -> None:
    """Case 96: a proxy may remove the length."""
    answer = [CHUNKED, PIECE * 4, chunk(b"")]
    async with facing(lambda method, target, n: answer) as (_, client):
        got = await client.download("a", "b.wav", target, max_size=4 * 65_536)
        assert got.size == 4 * 65_536


@asynchronous
async def test_a_file_that_does_not_fit_is_refused_before_its_content(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 96: according to its Content-Length, whether that is true or not."""
    limited(999_999, monkeypatch)
    begin = head(b'ETag: "x"', b"Content-Length: 1000000")
    async with facing(lambda method, target, n: [begin]) as (_, client):
        with pytest.raises(LocalFailure, match=r"needs 1000000 more bytes, and 999999 are free"):
            await client.download("a", "b.wav", target)
    assert os.listdir(target.parent) == []


@asynchronous
async def test_a_disk_with_unknown_free_space_is_written_to(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 12: some FUSE file systems report zeros."""
    nothing = SimpleNamespace(f_bavail=0, f_frsize=4096, f_blocks=0)
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: nothing)
    begin = head(b'ETag: "x"', b"Content-Length: 5")
    async with facing(lambda method, target, n: [begin, b"12345"]) as (_, client):
        assert (await client.download("a", "b.wav", target)).size == 5


@asynchronous
async def test_a_file_over_the_limit_is_refused_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 96: `--max-size`, to a file and to standard output."""
    monkeypatch.chdir(tmp_path)
    begin = head(b'ETag: "x"', b"Content-Length: 1001")
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        async with facing(lambda method, target, n: [begin]) as (_, client):
            for work in (
                lambda run: get(run, ["a/b.wav"], None, GetOptions(max_size=1_000)),
                lambda run: get_stream(run, "a/b.wav", writing, GetOptions(max_size=1_000)),
            ):
                each = running(client)
                await work(each.run)
                assert "1001 bytes, and the limit (--max-size) is 1000" in each.err[0]
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)
    finally:
        os.close(reading)
        os.close(writing)
    assert os.listdir(tmp_path) == []


@asynchronous
async def test_a_range_with_too_much_content_is_given_up(target: Path) -> None:
    """Case 96: a 206 in chunked coding, which has no other limit."""
    partial = head(
        b'ETag: "x"',
        b"Transfer-Encoding: chunked",
        b"Content-Range: bytes 65536-99999/100000",
        status=b"206 Partial Content",
    )

    def answer(method: str, target: str, n: int) -> Iterator[bytes]:
        if n == 0:
            return iter([head(b'ETag: "x"', b"Content-Length: 100000"), bytes(65_536)])
        return without_end(partial, PIECE, 256 * MIB)

    async with facing(answer, closes=True, retries=Retries(times=1, random=lambda: 0.0)) as (
        server,
        client,
    ):
        with pytest.raises(InvalidResponse, match="there is more content than the 100000 bytes"):
            await client.download("a", "b.wav", target)
        assert server.sent_bytes < 64 * MIB
    assert target.name not in os.listdir(target.parent)


@asynchronous
async def test_content_without_a_known_end_is_not_retried(
    target: Path,
) -> None:
    """Case 96: content that ends with its connection, each time."""
    answer = [head(b'ETag: "x"'), bytes(10_000)]
    async with facing(
        lambda method, target, n: answer, closes=True, retries=Retries(times=3, random=lambda: 0.0)
    ) as (server, client):
        with pytest.raises(Unreachable, match="where it ends"):
            await client.download("a", "b.wav", target)
        assert len(server.asked) == 1


@asynchronous
async def test_a_content_length_with_too_many_digits_is_invalid() -> None:
    """Case 96."""
    digits = b"Content-Length: " + b"9" * 5_000
    async with facing(lambda method, target, n: [head(b'ETag: "x"', digits)]) as (_, client):
        with pytest.raises(InvalidResponse, match="Content-Length is not a number"):
            await client.find("a", "b.wav")


@asynchronous
async def test_a_few_bytes_in_each_attempt_are_not_progress(target: Path) -> None:
    """Case 96: otherwise a file of a megabyte could cause a million requests."""
    size = 100_000

    def answer(method: str, target: str, n: int) -> list[bytes]:
        if n == 0:
            return [head(b'ETag: "x"', b"Content-Length: %d" % size), bytes(10)]
        about = b"Content-Range: bytes %d-%d/%d" % (10 * n, size - 1, size)
        length = b"Content-Length: %d" % (size - 10 * n)
        return [head(b'ETag: "x"', about, length, status=b"206 Partial Content"), bytes(10)]

    retries = Retries(times=3, random=lambda: 0.0)
    async with facing(answer, closes=True, retries=retries) as (server, client):
        with pytest.raises(Unreachable):
            await client.download("a", "b.wav", target)
        assert len(server.asked) == 4
    assert MIN_PROGRESS_BYTES > 40

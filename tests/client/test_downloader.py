"""Downloads: a file gets its name only when it is complete and verified."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from tests.client.fake import Answer, told
from tests.support import asynchronous
from twistedmedia.client import (
    IntegrityError,
    InvalidResponse,
    LocalFailure,
    Refused,
    Retries,
    Unreachable,
)

CONTENT = bytes(range(256)) * 8_000
CUT = 700_000


def hidden(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.startswith("."))


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "ü b.wav"


@pytest.mark.parametrize("content", [CONTENT, b"", b"x"], ids=len)
@asynchronous
async def test_a_file_is_downloaded_to_its_path(talk: Any, target: Path, content: bytes) -> None:
    seen: list[tuple[int, int | None]] = []
    async with talk() as it:
        etag = it.fake.put("a/b.wav", content)
        got = await it.client.download("a", "b.wav", target, progress=lambda *m: seen.append(m))
        [request] = it.fake.heard
    assert read(target) == content
    assert os.listdir(target.parent) == [target.name]
    assert (got.path, got.size, got.received) == (str(target), len(content), len(content))
    assert (got.etag, got.verified) == (etag, True)
    assert request.headers["accept-encoding"] == "identity"
    assert seen[0] == (0, len(content))
    assert seen[-1] == (len(content), len(content))


@asynchronous
async def test_an_existing_file_is_replaced(talk: Any, target: Path) -> None:
    write(target, b"old")
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        it.fake.next("GET", short_at=CUT)
        await it.client.download("a", "b.wav", target)
    assert read(target) == CONTENT


@asynchronous
async def test_a_broken_download_is_resumed(talk: Any, target: Path) -> None:
    async with talk(retries=Retries(times=1, random=lambda: 0.0)) as it:
        etag = it.fake.put("a/b.wav", CONTENT)
        for _ in range(2):  # each makes progress, so neither counts
            it.fake.next("GET", short_at=CUT)
        got = await it.client.download("a", "b.wav", target)
        _, second, third = it.fake.asked("GET")
    assert read(target) == CONTENT
    assert got.received == len(CONTENT)
    assert (second.headers["range"], second.headers["if-range"]) == (f"bytes={CUT}-", etag)
    assert third.headers["range"] == f"bytes={2 * CUT}-"
    assert hidden(target.parent) == []


@asynchronous
async def test_a_later_run_resumes(talk: Any, target: Path) -> None:
    async with talk(retries=Retries(times=0)) as it:
        it.fake.put("a/b.wav", CONTENT)
        it.fake.next("GET", short_at=CUT)
        with pytest.raises(Unreachable):
            await it.client.download("a", "b.wav", target)
        assert target.name not in os.listdir(target.parent)
        assert hidden(target.parent) == [f".{target.name}.part", f".{target.name}.part.json"]
        got = await it.client.download("a", "b.wav", target)
    assert got.received == len(CONTENT) - CUT
    assert read(target) == CONTENT
    assert hidden(target.parent) == []


async def broken_off(it: Any, target: Path, size: int = CUT) -> None:
    """Make an attempt that leaves the first `size` bytes."""
    it.fake.put("a/b.wav", CONTENT)
    it.fake.next("GET", short_at=size)
    with pytest.raises(Unreachable):
        await it.client.download("a", "b.wav", target)


@asynchronous
async def test_a_file_that_has_changed_is_downloaded_again(talk: Any, target: Path) -> None:
    async with talk(retries=Retries(times=0)) as it:
        await broken_off(it, target)
        it.fake.put("a/b.wav", CONTENT[::-1])
        got = await it.client.download("a", "b.wav", target)
    assert got.received == len(CONTENT)
    assert read(target) == CONTENT[::-1]


@asynchronous
async def test_parts_of_two_versions_are_never_joined(talk: Any, target: Path) -> None:
    """A cache that ignores `If-Range` sends a range of another version (RFC 9110, 15.3.7.3)."""
    async with talk(retries=Retries(times=0)) as it:
        await broken_off(it, target)
        rest = len(CONTENT) - CUT
        it.fake.next(
            "GET",
            answer=Answer(
                206,
                {
                    "ETag": '"another"',
                    "Content-Range": f"bytes {CUT}-{len(CONTENT) - 1}/{len(CONTENT)}",
                },
                bytes(rest),
            ),
        )
        got = await it.client.download("a", "b.wav", target)
    assert got.received == len(CONTENT), "all of it was brought anew"
    assert read(target) == CONTENT


@asynchronous
async def test_an_exception_of_the_progress_function_is_not_retried(
    talk: Any, target: Path
) -> None:
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        with pytest.raises(ZeroDivisionError):
            await it.client.download("a", "b.wav", target, progress=lambda done, size: done // 0)
        assert it.waits == []


@asynchronous
async def test_a_damaged_part_is_downloaded_again(talk: Any, target: Path) -> None:
    async with talk(retries=Retries(times=0)) as it:
        await broken_off(it, target)
        part = target.with_name(f".{target.name}.part")
        part.write_bytes(bytes(CUT))
        await it.client.download("a", "b.wav", target)
    assert read(target) == CONTENT


@pytest.mark.parametrize("size", [0, 1, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 1])
@asynchronous
async def test_a_part_of_any_size_is_completed(talk: Any, target: Path, size: int) -> None:
    """Including a process killed before the rename, and a part that is too long."""
    async with talk(retries=Retries(times=0)) as it:
        await broken_off(it, target)
        part = target.with_name(f".{target.name}.part")
        part.write_bytes((CONTENT + b"x")[:size])
        got = await it.client.download("a", "b.wav", target)
    assert read(target) == CONTENT
    assert got.received <= max(1, len(CONTENT) - size) or size > len(CONTENT)


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"url": 1, "etag": 2, "size": 3}', "null"])
@asynchronous
async def test_a_part_without_a_valid_note_is_downloaded_again(
    talk: Any, target: Path, note: str
) -> None:
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        target.with_name(f".{target.name}.part").write_bytes(b"what is this")
        target.with_name(f".{target.name}.part.json").write_text(note)
        await it.client.download("a", "b.wav", target)
        assert "range" not in it.fake.heard[0].headers
    assert read(target) == CONTENT
    assert hidden(target.parent) == []


@asynchronous
async def test_a_part_of_another_file_is_not_resumed(talk: Any, target: Path) -> None:
    async with talk(retries=Retries(times=0)) as it:
        await broken_off(it, target)
        it.fake.put("a/c.wav", b"another")
        await it.client.download("a", "c.wav", target)
    assert read(target) == b"another"


@asynchronous
async def test_content_with_another_digest_is_refused(talk: Any, target: Path) -> None:
    wrong = {"Repr-Digest": f"sha-256=:{'A' * 43}=:"}
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        it.fake.next("GET", more=wrong)
        with pytest.raises(IntegrityError, match="digest"):
            await it.client.download("a", "b.wav", target)
    assert os.listdir(target.parent) == []


@asynchronous
async def test_without_a_digest_it_is_not_verified(talk: Any, target: Path) -> None:
    async with talk() as it:
        it.fake.knows_digests = False
        it.fake.put("a/b.wav", CONTENT)
        assert not (await it.client.download("a", "b.wav", target)).verified
    assert read(target) == CONTENT


@asynchronous
async def test_content_without_a_known_end_is_refused(talk: Any, target: Path) -> None:
    """Content without a length ends with its connection, complete or not."""
    async with talk(retries=Retries(times=0)) as it:
        answer = Answer(200, {"Connection": "close", "ETag": '"v1"'}, CONTENT)
        it.fake.next("GET", answer=answer, without_length=True)
        with pytest.raises(Unreachable, match="where it ends"):
            await it.client.download("a", "b.wav", target)
    assert os.listdir(target.parent) == []


@pytest.mark.parametrize(
    "content_range",
    ["", "bytes 0-9/10", f"bytes {CUT}-{CUT}/{len(CONTENT)}", "bytes 5-2/3", "lines 1-2/3"],
)
@asynchronous
async def test_another_range_than_requested_is_refused(
    talk: Any, target: Path, content_range: str
) -> None:
    async with talk(retries=Retries(times=0)) as it:
        await broken_off(it, target)
        it.fake.next("GET", more={"Content-Range": content_range})
        with pytest.raises(InvalidResponse):
            await it.client.download("a", "b.wav", target)
    assert target.name not in os.listdir(target.parent)


@asynchronous
async def test_a_download_starts_again_after_416(talk: Any, target: Path) -> None:
    async with talk(retries=Retries(times=2, random=lambda: 0.0)) as it:
        it.fake.put("a/b.wav", CONTENT)
        it.fake.next("GET", short_at=CUT)
        it.fake.next("GET", answer=told(416, 416))
        await it.client.download("a", "b.wav", target)
    assert read(target) == CONTENT


@asynchronous
async def test_a_missing_file_leaves_nothing_behind(talk: Any, target: Path) -> None:
    async with talk() as it:
        with pytest.raises(Refused, match="no such media"):
            await it.client.download("a", "b.wav", target)
    assert os.listdir(target.parent) == []


@asynchronous
async def test_a_busy_service_is_retried(talk: Any, target: Path) -> None:
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        it.fake.next("GET", answer=told(503, 514, Retry_After="0"))
        await it.client.download("a", "b.wav", target)
    assert it.failures == ["Refused"]


@asynchronous
async def test_a_content_coding_is_refused(talk: Any, target: Path) -> None:
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        it.fake.next("GET", more={"Content-Encoding": "gzip"})
        with pytest.raises(InvalidResponse, match="coding"):
            await it.client.download("a", "b.wav", target)
    assert os.listdir(target.parent) == []


@asynchronous
async def test_a_path_that_cannot_be_written_is_reported(talk: Any, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        for path, reason in [
            ("none/b.wav", "No such file"),
            ("folder", "is a directory"),
            ("file/b.wav", "Not a directory"),
        ]:
            with pytest.raises(LocalFailure, match=reason):
                await it.client.download("a", "b.wav", tmp_path / path)
        assert it.fake.heard == []


@asynchronous
async def test_a_full_disk_is_reported(
    talk: Any, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(LocalFailure, match="No space left"):
            await it.client.download("a", "b.wav", target)
    assert os.listdir(target.parent) == []


@asynchronous
async def test_two_downloads_do_not_write_the_same_file(talk: Any, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        async with talk() as it:
            it.fake.put("a/b.wav", CONTENT)
            with pytest.raises(LocalFailure, match="another download"):
                await it.client.download("a", "b.wav", target)
    finally:
        os.close(descriptor)
    assert part.exists()


@asynchronous
async def test_a_file_with_the_longest_name_is_downloaded(talk: Any, tmp_path: Path) -> None:
    target = tmp_path / ("x" * 251 + ".wav")
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        it.fake.next("GET", short_at=CUT)
        await it.client.download("a", "b.wav", target)
        assert len(it.fake.asked("GET")) == 2
    assert read(target) == CONTENT
    assert os.listdir(tmp_path) == [target.name]


@asynchronous
async def test_a_cancelled_download_keeps_its_part(talk: Any, target: Path) -> None:
    begun: Deferred[None] = Deferred()

    def moved(done: int, size: int | None) -> None:
        if done and not begun.called:
            begun.callback(None)

    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT * 8)  # more than the sockets take
        download = it.client.download("a", "b.wav", target, progress=moved)
        await begun
        await deferLater(reactor, 0)  # so that it is not cancelled from its own callback
        [connection] = it.fake.connections
        download.cancel()
        with pytest.raises(CancelledError):
            await download
        await connection.lost
        assert target.name not in os.listdir(target.parent)
        note = json.loads(target.with_name(f".{target.name}.part.json").read_text())
        assert note["size"] == len(CONTENT) * 8
        got = await it.client.download("a", "b.wav", target)
    assert 0 < got.received < got.size
    assert read(target) == CONTENT * 8


@asynchronous
async def test_only_a_regular_file_is_replaced(talk: Any, tmp_path: Path) -> None:
    """Otherwise a device or a pipe would be lost for all users."""
    os.mkfifo(tmp_path / "pipe")
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        with pytest.raises(LocalFailure, match="not a regular file"):
            await it.client.download("a", "b.wav", tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


@asynchronous
async def test_a_link_is_followed(talk: Any, tmp_path: Path) -> None:
    (tmp_path / "there.wav").write_bytes(b"before")
    (tmp_path / "link.wav").symlink_to("there.wav")
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        await it.client.download("a", "b.wav", tmp_path / "link.wav")
    assert (tmp_path / "link.wav").is_symlink()
    assert read(tmp_path / "there.wav") == CONTENT


@asynchronous
async def test_receiving_the_same_bytes_again_is_not_progress(talk: Any, target: Path) -> None:
    """From a service without ranges that breaks off at the same offset each time."""
    async with talk(retries=Retries(times=2, random=lambda: 0.0)) as it:
        it.fake.put("a/b.wav", CONTENT)
        whole = Answer(200, {"ETag": '"v1"'}, CONTENT)
        for _ in range(3):
            it.fake.next("GET", answer=whole, short_at=CUT)
        with pytest.raises(Unreachable):
            await it.client.download("a", "b.wav", target)
        assert len(it.waits) == 2


@asynchronous
async def test_a_response_without_an_etag_is_not_a_file(talk: Any, tmp_path: Path) -> None:
    """A captive portal responds to everything with 200."""
    page = Answer(200, {"Content-Type": "text/html"}, b"<html>Log in</html>")
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        async with talk() as it:
            for _ in range(2):
                it.fake.next("GET", answer=page)
            with pytest.raises(InvalidResponse, match="has no ETag"):
                await it.client.download_stream("a", "b.wav", writing)
            with pytest.raises(BlockingIOError):  # nothing was written
                os.read(reading, 1)
            with pytest.raises(InvalidResponse, match="has no ETag"):
                await it.client.download("a", "b.wav", tmp_path / "b.wav")
            assert not (tmp_path / "b.wav").exists()
    finally:
        os.close(reading)
        os.close(writing)

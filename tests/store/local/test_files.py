"""Open files that the kernel sends, as far as they are cached."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from tests.listed import page_of
from tests.store.local.faults import CallsLayer, RecordingCalls, SlowCalls, descriptors
from tests.store.test_contract import closed, stored
from tests.support import asynchronous, named
from twistedmedia.store.interface import KernelMedia
from twistedmedia.store.local.syscalls import SystemCalls
from twistedmedia.store.preconditions import Precondition

NAME = named("a/b/x.mp3")
PAGE = os.sysconf("SC_PAGE_SIZE")
CONTENT = os.urandom(1 << 20)


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection that takes some 200 kB unread."""
    one, other = socket.socketpair()
    one.setblocking(False)
    with one, other:
        yield one, other


def make_cold(path: Path) -> None:
    """Evict a file from the page cache, and check that it is gone."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert not SystemCalls().is_cached(fd, 0, 1)
    finally:
        os.close(fd)


def test_cached_and_uncached_spans_are_distinguished(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    calls = SystemCalls()
    fd = os.open(path, os.O_RDONLY)
    try:
        assert calls.is_cached(fd, 0, len(CONTENT))
        make_cold(path)
        for offset, size in ((0, 1), (0, len(CONTENT)), (500_000, 10), (len(CONTENT) - 1, 1)):
            assert not calls.is_cached(fd, offset, size)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
        os.pread(fd, 1, 40 * PAGE)
        for offset, size, at_hand in (
            (40 * PAGE, PAGE, True),
            (40 * PAGE + 5, 10, True),
            (39 * PAGE, 2 * PAGE, False),
            (40 * PAGE + 1, PAGE, False),
        ):
            assert calls.is_cached(fd, offset, size) is at_hand
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("brings", "at_hand"),
    [
        (100_000, True),
        (131_072, True),
        (99_999, False),
        (BlockingIOError(errno.EAGAIN, "cold"), False),
        (OSError(errno.EOPNOTSUPP, "a file system that cannot tell"), False),
    ],
)
def test_without_cachestat_a_read_that_does_not_wait_is_tried(
    monkeypatch: pytest.MonkeyPatch, brings: int | OSError, at_hand: bool
) -> None:
    """cachestat(2) exists since Linux 6.5."""
    asked = []

    def preadv(fd: int, buffers: list[bytearray], offset: int, flags: int) -> int:
        asked.append((sum(map(len, buffers)) >= 100_000, offset, flags))
        if isinstance(brings, OSError):
            raise brings
        return brings

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr("twistedmedia.store.local.syscalls._CACHESTAT", 10_000)
    with open(__file__, "rb") as file:
        assert SystemCalls().is_cached(file.fileno(), 5000, 100_000) is at_hand
    assert asked == [(True, 5000, os.RWF_NOWAIT)]


class EveryPageThere:
    """A kernel that says of every page that it is in memory (cachestat(2))."""

    @staticmethod
    def syscall(number: int, fd: int, span: Any, found: Any, flags: int) -> int:
        found._obj.cached = 1 << 40
        return 0


@pytest.mark.parametrize(
    ("first", "last", "at_hand"),
    [
        (1, 1, True),
        (BlockingIOError(errno.EAGAIN, "on its way"), 1, False),
        (1, BlockingIOError(errno.EAGAIN, "on its way"), False),
        (1, 0, False),  # the file ends before
        (OSError(errno.EOPNOTSUPP, "a file system that cannot tell"),) * 2 + (True,),
    ],
)
def test_a_page_that_is_being_read_from_the_disk_is_not_cached(
    monkeypatch: pytest.MonkeyPatch, first: int | OSError, last: int | OSError, at_hand: bool
) -> None:
    """It has a page in memory already, but sending it would wait for the disk."""
    outcomes = {5000: first, 104_999: last}

    def preadv(fd: int, buffers: list[bytearray], offset: int, flags: int) -> int:
        assert (sum(map(len, buffers)), flags) == (1, os.RWF_NOWAIT)
        outcome = outcomes[offset]
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr("twistedmedia.store.local.syscalls._libc_with_lock", EveryPageThere)
    assert SystemCalls().is_cached(0, 5000, 100_000) is at_hand


@asynchronous
async def test_cached_bytes_are_sent_as_far_as_the_socket_takes_them(
    start: Any, sockets: tuple[socket.socket, socket.socket]
) -> None:
    store = start()
    await stored(store, NAME, CONTENT)
    media = await store.open(NAME)
    assert isinstance(media, KernelMedia)
    here, there = sockets
    assert media.send_at_hand(here.fileno(), 1000, 50) == 50
    sent = media.send_at_hand(here.fileno(), 1050, 1 << 20)
    assert sent is not None
    assert 0 < sent < 1 << 20
    with pytest.raises(BlockingIOError):
        media.send_at_hand(here.fileno(), 1050 + sent, 1 << 20)
    assert there.recv(50 + sent, socket.MSG_WAITALL) == CONTENT[1000 : 1050 + sent]
    await closed(media)


@asynchronous
async def test_uncached_bytes_are_fetched_by_a_thread_first(
    start: Any, root: Path, sockets: tuple[socket.socket, socket.socket]
) -> None:
    calls = RecordingCalls(str(root))
    store = start(calls)
    await stored(store, NAME, CONTENT)
    make_cold(root / "a" / "b" / "x.mp3")
    media = await store.open(NAME)
    here, there = sockets
    calls.events.clear()
    assert media.send_at_hand(here.fileno(), 300_000, 100_000) is None
    assert calls.of("sendfile", "pread") == []
    await media.fetch(300_000, 100_000)
    assert calls.of("sendfile", "pread") == ["pread a/b/x.mp3"]
    assert media.send_at_hand(here.fileno(), 300_000, 100_000) == 100_000
    assert there.recv(100_000, socket.MSG_WAITALL) == CONTENT[300_000:400_000]
    await closed(media)


class CannotTell(CallsLayer):
    """A file system that never says that a page is in memory."""

    def around(self, operation: str, call: Any, args: tuple[Any, ...]) -> Any:
        return False if operation == "is_cached" else call()


@asynchronous
async def test_only_fetched_bytes_count_as_cached(
    start: Any, sockets: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise such a file system, or a lack of memory, would cause endless fetching."""
    monkeypatch.setattr("twistedmedia.store.local.files._FETCHED_S", 60.0)
    store = start(CannotTell())
    await stored(store, NAME, CONTENT)
    media = await store.open(NAME)
    here, there = sockets
    assert media.send_at_hand(here.fileno(), 0, 1000) is None
    await media.fetch(0, 1000)
    assert media.send_at_hand(here.fileno(), 0, 400) == 400
    assert media.send_at_hand(here.fileno(), 400, 1000) == 600
    assert media.send_at_hand(here.fileno(), 1000, 1000) is None
    assert there.recv(2000) == CONTENT[:1000]
    await closed(media)


@asynchronous
async def test_fetched_bytes_are_checked_again_after_a_while(
    start: Any, sockets: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a slow reader continues, the kernel may have evicted the rest."""
    store = start(CannotTell())
    await stored(store, NAME, CONTENT)
    media = await store.open(NAME)
    here, _ = sockets
    monkeypatch.setattr("twistedmedia.store.local.files._FETCHED_S", 0.0)
    await media.fetch(0, 1000)
    assert media.send_at_hand(here.fileno(), 400, 600) is None
    await closed(media)


@asynchronous
async def test_a_file_that_became_shorter_sends_nothing_where_it_ends(
    start: Any,
    root: Path,
    sockets: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("twistedmedia.store.local.files._FETCHED_S", 60.0)
    store = start()
    await stored(store, NAME, CONTENT)
    media = await store.open(NAME)
    os.truncate(root / "a" / "b" / "x.mp3", 1000)
    here, _ = sockets
    await media.fetch(1000, 1000)
    assert media.send_at_hand(here.fileno(), 1000, 1000) == 0
    await closed(media)


@asynchronous
async def test_a_fetch_may_be_cancelled(start: Any) -> None:
    """Case 25."""
    calls = SlowCalls()
    before = descriptors()
    store = start(calls)
    await stored(store, NAME, CONTENT)
    media = await store.open(NAME)
    held = calls.hold("pread")
    fetching = media.fetch(0, 1000)
    await held
    fetching.cancel()
    with pytest.raises(CancelledError):
        await fetching
    media.close()
    calls.release()
    await store.stop()
    assert descriptors() == before


class NothingAtHand(CallsLayer):
    """A kernel without openat2(2)."""

    def around(self, operation: str, call: Any, args: tuple[Any, ...]) -> Any:
        if operation == "open_cached":
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return call()


@asynchronous
@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1, 1 << 20])
async def test_a_thread_opens_the_same_as_the_loop(start: Any, size: int) -> None:
    content = CONTENT[:size]
    quick = start()
    await stored(quick, NAME, content)
    media = await quick.open(NAME)
    seen = media.size, media.etag, media.modified_ns, media.sha256, type(media)
    assert await media.read(0, size + 1) == content
    await closed(media)
    await quick.stop()
    media = await start(NothingAtHand()).open(NAME)
    assert (media.size, media.etag, media.modified_ns, media.sha256, type(media)) == seen
    assert await media.read(0, size + 1) == content
    await closed(media)


class HalfAtHand(CallsLayer):
    """Of what is in memory a read that does not wait brings a half."""

    def around(self, operation: str, call: Any, args: tuple[Any, ...]) -> Any:
        found = call()
        return found[: len(found) // 2] if operation == "read_cached" else found


@asynchronous
async def test_a_partly_cached_file_is_read_by_a_thread(start: Any) -> None:
    store = start(HalfAtHand())
    await stored(store, NAME, CONTENT[:20_000])
    media = await store.open(NAME)
    assert (media.size, await media.read(0, 1 << 20)) == (20_000, CONTENT[:20_000])
    await closed(media)


class OfTheYear(CallsLayer):
    """Files have a modification time that this file system could not store."""

    def __init__(self, modified_ns: int) -> None:
        self._modified_ns = modified_ns

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        result = call()
        if operation in ("lstat", "fstat") and stat.S_ISREG(result.st_mode):
            # The fields besides those of the sequence, which may not be given twice.
            names = [name for name in dir(result) if "time" in name or name.startswith("st_b")]
            fields = {name: getattr(result, name) for name in names}
            return os.stat_result(result, {**fields, "st_mtime_ns": self._modified_ns})
        return result


@asynchronous
@pytest.mark.parametrize("modified_ns", [-(10**30), -(2**63) - 1, -1, 2**63, 10**30])
async def test_a_file_of_any_year_is_opened_listed_and_hashed(
    start: Any, root: Path, modified_ns: int
) -> None:
    """Case 49."""
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "x.mp3").write_bytes(b"hello")
    (root / "a" / "b" / "large.mp3").write_bytes(bytes(100_000))
    store = start(OfTheYear(modified_ns))
    page = await page_of(store, ("a", "b"), "", 10)
    assert [entry.modified_ns for entry in page.entries] == [modified_ns] * 2
    for entry in page.entries:
        media = await store.open(named(f"a/b/{entry.filename}"))
        assert (media.modified_ns, media.etag) == (modified_ns, entry.etag)
        digest = await media.digest()
        assert digest == hashlib.sha256(await media.read(0, media.size)).hexdigest()
        media.close()
        stored = await store.recognise(named(f"a/b/{entry.filename}"), digest)
        assert stored.etag == entry.etag
        assert await store.delete(stored.name, Precondition(if_match=frozenset({entry.etag})))

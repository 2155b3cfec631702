"""The digests of stored files: recorded, computed if they are not recorded, and compared."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from tests.store.local.faults import (
    CallsLayer,
    FailingCalls,
    RecordingCalls,
    SlowCalls,
    descriptors,
    each_failure,
    errno_of,
)
from tests.store.local.test_directory import both_kinds, only_told
from tests.store.test_contract import closed, stored
from tests.support import asynchronous, named
from twistedmedia.errors import StorageFailed

NAME = named("a/b/x.mp3")
LARGE = bytes(range(256)) * 40_000  # 10 MB: more than is hashed at a time
ATTRIBUTE = "user.twistedmedia.sha256"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def known(store: Any, name: Any = NAME) -> str | None:
    """The digest that an opened media has at once."""
    media = await store.open(name)
    digest: str | None = media.sha256
    await closed(media)
    return digest


async def computed(store: Any, name: Any = NAME) -> str:
    media = await store.open(name)
    digest: str = await media.digest()
    await closed(media)
    return digest


@asynchronous
@pytest.mark.parametrize("content", [b"", b"hello", LARGE], ids=["empty", "small", "large"])
async def test_a_media_has_the_digest_of_its_content(store: Any, content: bytes) -> None:
    await stored(store, NAME, content)
    assert await computed(store) == sha256(content)


@asynchronous
async def test_a_file_is_recognised_by_its_digest(store: Any) -> None:
    published = await stored(store, NAME, b"hello")
    assert await store.recognise(NAME, sha256(b"hello")) == published
    assert await store.recognise(NAME, sha256(b"other")) is None
    assert await store.recognise(named("a/b/absent.mp3"), sha256(b"hello")) is None
    assert await store.recognise(named("a/b"), sha256(b"hello")) is None


# On a disk


@asynchronous
@both_kinds
@pytest.mark.parametrize("content", [b"hello", LARGE], ids=["small", "large"])
async def test_a_stored_file_has_its_digest_recorded(
    start: Any, root: Path, kind: str, content: bytes
) -> None:
    store = start(None, kind)
    await stored(store, NAME, content)
    assert await known(store) == sha256(content)
    record = os.getxattr(root / "a" / "b" / "x.mp3", ATTRIBUTE)
    assert record.startswith(hashlib.sha256(content).digest())


@asynchronous
async def test_a_recorded_digest_is_not_computed_again(start: Any, root: Path) -> None:
    calls = RecordingCalls(str(root))
    store = start(calls)
    await stored(store, NAME, LARGE)
    calls.events.clear()
    media = await store.open(NAME)
    assert await media.digest() == sha256(LARGE)
    assert await store.recognise(NAME, sha256(LARGE)) is not None
    assert calls.of("pread") == []
    await closed(media)


@asynchronous
async def test_the_record_is_synced_with_the_content(start: Any, root: Path) -> None:
    calls = RecordingCalls(str(root))
    store = start(calls)
    calls.events.clear()
    await stored(store, NAME)
    events = calls.of("writev", "set_modified", "set_attribute", "fsync", "link_descriptor")
    assert events[:5] == [
        "writev draft",
        "set_modified draft",
        "set_attribute draft",
        "fsync draft",
        "link_descriptor a/b/x.mp3",
    ]


@asynchronous
@pytest.mark.parametrize("content", [b"hello", LARGE], ids=["small", "large"])
async def test_a_record_of_other_content_is_not_used(
    start: Any, root: Path, content: bytes
) -> None:
    store = start()
    await stored(store, NAME, content)
    path = root / "a" / "b" / "x.mp3"
    with path.open("r+b") as file:
        file.write(b"J")
    assert await known(store) is None
    assert await computed(store) == sha256(b"J" + content[1:])


@asynchronous
@pytest.mark.parametrize("record", [b"", b"short", b"x" * 48, b"x" * 64])
async def test_an_invalid_record_is_not_used(start: Any, root: Path, record: bytes) -> None:
    store = start()
    await stored(store, NAME)
    os.setxattr(root / "a" / "b" / "x.mp3", ATTRIBUTE, record)
    assert await known(store) is None
    assert await store.recognise(NAME, sha256(b"content")) is not None


@asynchronous
async def test_a_digest_that_was_computed_is_recorded(start: Any, root: Path) -> None:
    store = start()
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "x.mp3").write_bytes(LARGE)
    assert await known(store) is None
    assert await computed(store) == sha256(LARGE)
    assert await known(store) == sha256(LARGE)


@asynchronous
@pytest.mark.parametrize(
    ("modified_s", "recorded"), [(-(2**31), True), (2**33, True), (2**34, False)]
)
async def test_a_file_of_any_time_has_its_digest(
    start: Any, root: Path, modified_s: int, recorded: bool
) -> None:
    """1901, 2242 and 2514; in nanoseconds, times after 2262 are more than 64 bits."""
    store = start()
    (root / "a" / "b").mkdir(parents=True)
    path = root / "a" / "b" / "x.mp3"
    path.write_bytes(LARGE)
    os.utime(path, ns=(0, modified_s * 10**9))
    if path.stat().st_mtime_ns != modified_s * 10**9:  # this file system cuts it at its own end
        recorded = path.stat().st_mtime_ns < 2**63
    assert await computed(store) == sha256(LARGE)
    assert await known(store) == (sha256(LARGE) if recorded else None)


class NoAttributes(CallsLayer):
    """Extended attributes cannot be had, for reading or for writing."""

    def __init__(self, error: int, *operations: str) -> None:
        self._error = error
        self._operations = operations

    def around(self, operation: str, call: Any, args: tuple[Any, ...]) -> Any:
        if operation in self._operations:
            raise OSError(self._error, os.strerror(self._error))
        return call()


@asynchronous
@pytest.mark.parametrize("content", [b"hello", LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("error", "operations"),
    [
        (errno.EOPNOTSUPP, ("get_attribute", "set_attribute")),
        (errno.EPERM, ("set_attribute",)),
        (errno.EACCES, ("set_attribute",)),
        (errno.ENOSPC, ("set_attribute",)),
        (errno.EDQUOT, ("set_attribute",)),
        (errno.EIO, ("get_attribute",)),
        (errno.ERANGE, ("get_attribute",)),
    ],
)
async def test_without_extended_attributes_digests_are_computed(
    start: Any, content: bytes, error: int, operations: tuple[str, ...]
) -> None:
    """Case 10: nor is an upload refused for want of the room for one."""
    store = start(NoAttributes(error, *operations))
    published = await stored(store, NAME, content)
    assert published.sha256 == sha256(content)
    assert await known(store) is None
    assert await computed(store) == sha256(content)
    assert await store.recognise(NAME, sha256(content)) == published


@asynchronous
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
async def test_a_recognition_whose_nth_operation_fails_recognises_nothing(
    start: Any, root: Path, error: int, nothing_left_behind: list[Any]
) -> None:
    """Cases 5, 14 and 25. What is told as stored is on stable storage: nothing of that may have
    failed.
    """
    calls = FailingCalls()
    store = start(calls)
    failed = []
    published = None
    path = root / "a" / "b" / "x.mp3"

    async def recognise() -> Any:
        if ATTRIBUTE in os.listxattr(path):
            os.removexattr(path, ATTRIBUTE)
        return await store.recognise(NAME, sha256(b"hello"))

    path.parent.mkdir(parents=True)  # by hand, so that nothing is known to be synced
    path.write_bytes(b"hello")
    async for operation, came in each_failure(calls, error, recognise):
        failed.append(operation)
        if isinstance(came, Exception):
            assert errno_of(came) == error
        else:
            assert operation == "close"
            published = published or came
            assert came == published
    assert await recognise() == published
    assert {"open", "fstat", "pread", "fsync", "lstat", "stat_root", "close"} == set(failed)
    only_told(nothing_left_behind)


@asynchronous
async def test_a_failure_to_hash_is_reported_and_the_file_stays_readable(
    start: Any, root: Path
) -> None:
    store = start(calls := FailingCalls())
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "x.mp3").write_bytes(LARGE)
    media = await store.open(NAME)
    failed = []
    async for operation, came in each_failure(calls, errno.EIO, media.digest):
        failed.append(operation)
        assert isinstance(came, StorageFailed)
        assert (media.sha256, await media.read(5, 5)) == (None, LARGE[5:10])
    assert failed == ["pread"] * 4 + ["fstat"]
    assert media.sha256 == sha256(LARGE)
    await closed(media)


@asynchronous
async def test_a_file_that_changes_while_it_is_hashed_gets_no_record(
    start: Any, root: Path
) -> None:
    calls = SlowCalls()
    store = start(calls)
    (root / "a" / "b").mkdir(parents=True)
    path = root / "a" / "b" / "x.mp3"
    path.write_bytes(LARGE)
    media = await store.open(NAME)
    held = calls.hold("pread")
    digest = media.digest()
    await held
    path.write_bytes(LARGE + b"more")
    calls.release()
    await digest
    await closed(media)
    assert await known(store) is None


@asynchronous
async def test_a_digest_may_be_cancelled(start: Any, root: Path) -> None:
    """Case 25."""
    calls = SlowCalls()
    before = descriptors()
    store = start(calls)
    (root / "a").mkdir()
    (root / "a" / "x.mp3").write_bytes(LARGE)
    media = await store.open(named("a/x.mp3"))
    held = calls.hold("pread")
    digest = media.digest()
    await held
    digest.cancel()
    media.close()
    calls.release()
    with pytest.raises(CancelledError):
        await digest
    await store.stop()
    assert descriptors() == before


@asynchronous
async def test_a_recognised_file_is_synced_with_the_folders_that_lead_to_it(
    start: Any, root: Path
) -> None:
    """The link of another upload may not be synced yet, or its process may have died before."""
    calls = RecordingCalls(str(root))
    store = start(calls)
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "x.mp3").write_bytes(b"hello")
    calls.events.clear()
    assert await store.recognise(NAME, sha256(b"hello")) is not None
    assert set(calls.of("fsync")) == {"fsync a/b/x.mp3", "fsync a/b", "fsync a", "fsync ."}


@asynchronous
async def test_a_file_removed_before_it_is_synced_is_not_recognised(start: Any, root: Path) -> None:
    calls = SlowCalls()
    store = start(calls)
    await stored(store, NAME, b"hello")
    held = calls.hold("fsync")
    recognising = store.recognise(NAME, sha256(b"hello"))
    await held
    (root / "a" / "b" / "x.mp3").unlink()
    calls.release()
    assert await recognising is None


@asynchronous
async def test_a_recognition_may_be_cancelled(start: Any) -> None:
    """Case 25. The file is closed after the thread has synced it."""
    calls = SlowCalls()
    before = descriptors()
    store = start(calls)
    await stored(store, NAME, b"hello")
    held = calls.hold("fsync")
    recognising = store.recognise(NAME, sha256(b"hello"))
    await held
    recognising.cancel()
    with pytest.raises(CancelledError):
        await recognising
    for _ in range(3):  # what the threads for reading have to do, they do
        assert await store.recognise(named("a/b/absent.mp3"), sha256(b"")) is None
    assert "x.mp3" in {os.path.basename(path) for path in open_paths()}
    calls.release()
    await store.stop()
    assert descriptors() == before


def open_paths() -> list[str]:
    """What this process has open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found


@asynchronous
async def test_a_file_replaced_before_it_is_synced_is_not_recognised(
    start: Any, root: Path
) -> None:
    calls = SlowCalls()
    store = start(calls)
    await stored(store, NAME, b"hello")
    (root / "new").write_bytes(b"other")
    held = calls.hold("fsync")
    recognising = store.recognise(NAME, sha256(b"hello"))
    await held
    (root / "new").rename(root / "a" / "b" / "x.mp3")
    calls.release()
    assert await recognising is None

"""A storage that cannot be read or written: its failures are reported, and remembered."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import stat
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.logger import LogEvent, formatEvent

from tests.fetch.reactor import failed
from tests.http.connection import outcome
from tests.listed import page_of
from tests.store.local.faults import CallsLayer, FailingCalls, SlowCalls, tree
from tests.store.local.test_directory import both_kinds
from tests.store.local.test_resumable_drafts import SPEC, UPLOAD, reviewed
from tests.store.test_contract import content_of, let_go, stored
from tests.support import asynchronous, named
from twistedmedia.errors import (
    AlreadyExists,
    Busy,
    MediaError,
    NameConflict,
    NameNotAllowed,
    NoSpace,
    NotFound,
    StorageFailed,
    TooLarge,
)
from twistedmedia.store.interface import StorageState
from twistedmedia.store.local.disk_threads import DiskThreads
from twistedmedia.store.local.folders import HIDDEN
from twistedmedia.store.local.root import Root
from twistedmedia.store.local.space import CachedProbe
from twistedmedia.store.local.syscalls import (
    BROKEN,
    OF_ONE_FILE,
    SystemCalls,
    failure_of,
    reason_of,
)
from twistedmedia.store.preconditions import Precondition

NAME = named("a/b/x.mp3")
OTHER = named("a/b/other.mp3")
LARGE = bytes(200_000)
READ_ONLY = "the storage cannot be written: read-only file system"
SHA256 = "00" * 32
SHA256_OF_HELLO = hashlib.sha256(b"hello").hexdigest()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EMFILE, Busy),
        (errno.ENFILE, Busy),
        (errno.EFBIG, TooLarge),
        (errno.EEXIST, AlreadyExists),
        (errno.ENAMETOOLONG, NameNotAllowed),
        (errno.ENOTDIR, NameConflict),
        (errno.ELOOP, NameConflict),
        (errno.EROFS, StorageFailed),
        (errno.EIO, StorageFailed),
        (errno.ENODEV, StorageFailed),
        (errno.ENXIO, StorageFailed),
        (errno.ESTALE, StorageFailed),
        (errno.ENOTCONN, StorageFailed),
        (errno.EHOSTDOWN, StorageFailed),
        (errno.ETIMEDOUT, StorageFailed),
        (errno.EUCLEAN, StorageFailed),
        (errno.EACCES, StorageFailed),
        (errno.EPERM, StorageFailed),
        (errno.EINVAL, type(None)),  # ours
        (errno.EBADF, type(None)),
        (errno.ENOENT, type(None)),  # whether something is missing is for others to judge
    ],
    ids=lambda each: errno.errorcode.get(each) if isinstance(each, int) else each.__name__,
)
@pytest.mark.parametrize("doing", ["read", "written"])
def test_each_errno_is_translated_or_is_a_defect(
    error: int, expected: type[Any], doing: str
) -> None:
    """Cases 14, 79 and 92."""
    failure = failure_of(OSError(error, os.strerror(error), "/srv/secret"), doing)
    assert type(failure) is expected
    if isinstance(failure, StorageFailed):
        assert (failure.code, failure.status) == (515, 503)
        what = "written" if error == errno.EROFS else doing
        words = os.strerror(error)
        assert failure.reason == f"the storage cannot be {what}: {words[0].lower()}{words[1:]}"
    if failure is not None:
        assert "secret" not in failure.reason


# What can be asked of a store, by whether it changes something.


async def upload(store: Any) -> None:
    draft = store.begin()
    try:
        await draft.append([b"hello"])
        await draft.publish(named("new/folder/y.mp3"))
    finally:
        await let_go(draft)


async def prepare(store: Any) -> None:
    draft = store.begin(5)
    try:
        await draft.prepare(NAME, Precondition())
    finally:
        await let_go(draft)


async def replace(store: Any) -> None:
    draft = store.begin()
    try:
        await draft.append([b"new"])
        await draft.publish(NAME, Precondition())
    finally:
        await let_go(draft)


async def resume(store: Any) -> None:
    draft = store.resumable.resume(UPLOAD, 6, provisional=False)
    try:
        await draft.resume()
        await draft.append([b" world"])
        await draft.keep(None, synced=True)
    finally:
        await draft.release(undo=False)


async def read(store: Any, name: Any = NAME) -> bytes:
    media = await store.open(name)
    try:
        return bytes(await media.read(0, media.size))
    finally:
        media.close()


async def read_both(store: Any) -> None:
    """Read two files, the second whether or not the first fails."""
    try:
        await read(store)
    finally:
        await read(store, OTHER)


async def listed(store: Any, *folders: str) -> list[Any]:
    page: Any = await page_of(store, folders, "", 10)
    return [*page.entries]


CHANGES: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "upload": upload,
    "replace": replace,
    "delete": lambda store: store.delete(NAME),
    "delete with a precondition": lambda store: store.delete(NAME, Precondition()),
    "create": lambda store: store.resumable.create("e" * 32, SPEC),
    "resume": resume,
    "declare": lambda store: store.resumable.declare(UPLOAD, 11),
    "forget": lambda store: store.resumable.forget(UPLOAD),
}
LOOKS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "prepare": prepare,
    "delete what is not there": lambda store: store.delete(OTHER),
    "find": lambda store: store.resumable.find(UPLOAD),
    "forget what is not there": lambda store: store.resumable.forget("d" * 32),
    "open": lambda store: read(store, OTHER),
    "recognise": lambda store: store.recognise(OTHER, SHA256),
    "list": lambda store: listed(store, "a", "b"),
    "list the root": listed,
}


async def filled(start: Any, calls: Any = None, kind: str = "directory") -> Any:
    """A store with a file and an unfinished upload."""
    store = start(calls, kind)
    await stored(store, NAME, b"hello")
    await store.resumable.create(UPLOAD, SPEC)
    draft = store.resumable.resume(UPLOAD, 5, provisional=False)
    await draft.resume()
    await draft.append([b"hello"])
    await draft.keep(None, synced=True)
    return store


def removed(root: Path) -> None:
    shutil.rmtree(root)


def moved(root: Path) -> None:
    """As seen from the path, so is a file system that is unmounted lazily."""
    root.rename(root.with_name("elsewhere"))


def another_in_its_place(root: Path) -> None:
    """As seen from the path, so is a file system that is mounted over it."""
    moved(root)
    root.mkdir()


GONE = "the storage cannot be (read|written): its root folder is gone"
ANOTHER = (
    "another folder is in the place of its root; mount the right one, or start the service again"
    " to use this one"
)


@asynchronous
@both_kinds
@pytest.mark.parametrize("act", [*CHANGES, *LOOKS])
async def test_after_the_root_was_removed_nothing_is_reported_as_missing_or_done(
    start: Any, root: Path, act: str, kind: str
) -> None:
    """Cases 79 and 92."""
    store = await filled(start, kind=kind)
    removed(root)
    with pytest.raises(StorageFailed, match=GONE):
        await (CHANGES | LOOKS)[act](store)
    assert os.listdir(root.parent) == []  # and nobody has made another one


@asynchronous
@pytest.mark.parametrize("act", ["upload", "replace", "create", "open", "recognise"])
@pytest.mark.parametrize(
    ("happens", "why"), [(moved, GONE), (another_in_its_place, ANOTHER)], ids=["gone", "another"]
)
async def test_nothing_is_stored_in_a_root_that_is_not_at_its_path(
    start: Any, root: Path, act: str, happens: Callable[[Path], None], why: str
) -> None:
    """Cases 79 and 92: and nothing is reported as missing. Files that are found are read."""
    store = await filled(start)
    happens(root)
    before = tree(root.with_name("elsewhere"))
    with pytest.raises(StorageFailed, match=why):
        await (CHANGES | LOOKS)[act](store)
    assert tree(root.with_name("elsewhere")) == before
    assert await read(store) == b"hello"
    if happens is moved:
        root.with_name("elsewhere").rename(root)
        assert await stored(store, OTHER)


async def begun_upload(store: Any) -> Any:
    draft = store.begin()
    await draft.append([b"new"])
    return draft


async def publish_anew(store: Any, draft: Any) -> None:
    await draft.publish(OTHER)


async def publish_sealed(store: Any, draft: Any) -> None:
    await draft.seal()
    await draft.publish(OTHER)


async def publish_instead(store: Any, draft: Any) -> None:
    await draft.publish(NAME, Precondition())


async def begun_part(store: Any) -> Any:
    draft = store.resumable.resume(UPLOAD, 6, provisional=False)
    await draft.resume()
    await draft.append([b" world"])
    return draft


async def keep_synced(store: Any, draft: Any) -> None:
    await draft.keep(None, synced=True)


async def keep(store: Any, draft: Any) -> None:
    await draft.keep(None, synced=False)


async def sync(store: Any, draft: Any) -> None:
    await draft.sync()


async def nothing(store: Any) -> None:
    """The end alone."""


# What was begun before the root goes, and how it ends after that.
ENDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "publish": (begun_upload, publish_anew),
    "seal and publish": (begun_upload, publish_sealed),
    "replace": (begun_upload, publish_instead),
    "publish an upload": (begun_part, publish_anew),
    "keep": (begun_part, keep),
    "keep synced": (begun_part, keep_synced),
    "sync": (begun_part, sync),
    "recognise": (nothing, lambda store, _: store.recognise(NAME, SHA256_OF_HELLO)),
    "delete": (nothing, lambda store, _: store.delete(NAME)),
    "delete with a precondition": (nothing, lambda store, _: store.delete(NAME, Precondition())),
    "declare": (nothing, lambda store, _: store.resumable.declare(UPLOAD, 11)),
    "forget": (nothing, lambda store, _: store.resumable.forget(UPLOAD)),
}


async def ended(store: Any, end: str, between: Callable[[], None]) -> None:
    begin, finish = ENDS[end]
    draft = await begin(store)
    try:
        if end == "publish an upload":
            await reviewed(draft)
        between()
        await finish(store, draft)
    finally:
        if draft is not None:
            await let_go(draft)


SYNC_A_FILE = ("keep synced", "sync", "declare")  # and no folder, or later


def is_folder(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def media_in(root: Path) -> dict[str, bytes | None]:
    return {path: what for path, what in tree(root).items() if not path.startswith(HIDDEN)}


@asynchronous
@both_kinds
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("happens", "why"), [(moved, GONE), (another_in_its_place, ANOTHER)], ids=["gone", "another"]
)
async def test_no_success_is_reported_if_the_root_goes_between_two_steps(
    start: Any, root: Path, end: str, happens: Callable[[Path], None], why: str, kind: str
) -> None:
    """Cases 79 and 92: the root goes after the draft was opened. The media are as before."""
    store = await filled(start, kind=kind)
    before = media_in(root)
    with pytest.raises(StorageFailed, match=why):
        await ended(store, end, lambda: happens(root))
    assert media_in(root.with_name("elsewhere")) == before


@asynchronous
@both_kinds
@pytest.mark.parametrize("end", [each for each in ENDS if each != "keep"])
async def test_no_success_is_reported_if_the_root_goes_during_a_step(
    start: Any, root: Path, end: str, kind: str
) -> None:
    """Cases 79 and 92: the root goes while the last folder or file is being synced. A file that was
    published then is taken back; a deleted file is gone.
    """
    gone = False

    class Going(CallsLayer):
        armed = False

        def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
            nonlocal gone
            if self.armed and operation in ("fsync", "unlink") and not gone:
                # A publish syncs its file first, and its folder after the link.
                gone = operation == "unlink" or end in SYNC_A_FILE or is_folder(args[0])
                if gone:
                    moved(root)
            return call()

    calls = Going()
    store = await filled(start, calls, kind)
    before = media_in(root)
    with pytest.raises(StorageFailed, match=GONE):
        await ended(store, end, lambda: setattr(calls, "armed", True))
    assert gone
    left = media_in(root.with_name("elsewhere"))
    assert left == ({} if "delete" in end else before)


@asynchronous
@both_kinds
async def test_a_folder_that_an_administrator_removes_is_made_again(
    start: Any, root: Path, kind: str
) -> None:
    """Case 79: that is not a failure of the storage."""
    store = await filled(start, kind=kind)
    shutil.rmtree(root / "a")
    with pytest.raises(NotFound):
        await read(store)
    assert await store.delete(NAME) is False
    await stored(store, NAME, b"again")
    assert await content_of(store, NAME) == b"again"
    assert (await store.look()).cannot_write is None


@asynchronous
async def test_removed_folders_of_the_service_are_reported(start: Any, root: Path) -> None:
    """Case 79."""
    store = await filled(start)
    shutil.rmtree(root / ".twistedmedia")
    for act in ("create", "replace"):
        with pytest.raises(StorageFailed, match=r"in \.twistedmedia was removed; start the"):
            await CHANGES[act](store)
    await upload(store)


class Broken(CallsLayer):
    """While it is armed these operations fail with an errno."""

    def __init__(self, error: int, *operations: str) -> None:
        self.armed = False
        self._error = error
        self._operations = operations

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if self.armed and (operation in self._operations or self._writes(operation, args)):
            raise OSError(self._error, os.strerror(self._error), "/srv/secret")
        if self.armed and operation == "statvfs" and self._error == errno.EROFS:
            flags = call()
            return os.statvfs_result((*flags[:8], flags.f_flag | os.ST_RDONLY, flags.f_namemax))
        return call()

    def _writes(self, operation: str, args: tuple[Any, ...]) -> bool:
        changing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        if operation == "open" and self._error == errno.EROFS:
            return bool(args[1] & changing)
        return False


CHANGING = (
    *("mkdir", "rmdir", "link", "link_descriptor", "rename", "symlink", "unlink"),
    *("writev", "truncate", "fsync", "touch", "set_modified"),
)


@asynchronous
@both_kinds
@pytest.mark.parametrize("act", CHANGES)
async def test_a_read_only_storage_is_reported_by_every_change(
    start: Any, root: Path, act: str, kind: str
) -> None:
    """Cases 14, 79 and 92."""
    calls = Broken(errno.EROFS, *CHANGING)
    store = await filled(start, calls, kind)
    before = tree(root)
    calls.armed = True
    with pytest.raises(StorageFailed) as caught:
        await CHANGES[act](store)
    assert caught.value.reason == READ_ONLY
    assert await read(store) == b"hello"
    assert len(await listed(store, "a", "b")) == 1
    assert (await store.resumable.find(UPLOAD)).size == 5
    calls.armed = False
    assert tree(root) == before
    await CHANGES[act](store)


@asynchronous
@pytest.mark.parametrize("error", sorted(BROKEN - {errno.EROFS}), ids=errno.errorcode.get)
async def test_a_broken_storage_is_reported_by_reading_and_writing(
    start: Any, root: Path, error: int, warnings: list[LogEvent]
) -> None:
    """Case 79: with a line in the log for each kind, and no path in the reason."""
    calls = Broken(error, "writev", "pread", "preadv", "scandir", "read_cached")
    store = await filled(start, calls)
    await stored(store, OTHER, LARGE)
    calls.armed = True
    for act in (upload, read, lambda store: read(store, OTHER), lambda store: listed(store, "a")):
        with pytest.raises(StorageFailed, match="the storage cannot be") as caught:
            await act(store)
        assert "secret" not in caught.value.reason
    words = failure_of(OSError(error, ""), "read")
    assert words is not None
    logged = [formatEvent(event) for event in warnings]
    assert logged == [
        f"{words.reason.replace('be read', 'be written')}, at '/srv/secret'",
        f"{words.reason}, at '/srv/secret'",
    ]


@asynchronous
async def test_a_forbidden_file_is_reported_and_others_are_not_affected(
    start: Any,
) -> None:
    """Case 79."""
    calls = FailingCalls()
    store = await filled(start, calls)
    store._files._open_cached = lambda name, caller: None  # a thread has to open it
    with (
        calls.armed(3, errno.EACCES, lambda operation, _: operation == "open"),
        pytest.raises(StorageFailed, match="the storage cannot be read: permission denied"),
    ):
        await read(store)
    assert calls.failed == "open"
    state = await store.look()
    assert (state.cannot_read, state.cannot_write) == (None, None)


# How the storage is


@asynchronous
async def test_a_working_storage_is_reported_as_working(start: Any) -> None:
    """Case 79."""
    state = await start().look()
    assert state == StorageState(state.free)
    assert state.free is not None


@asynchronous
async def test_a_storage_that_was_remounted_is_known_without_any_write(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 79: read-only, and well again at once."""
    monkeypatch.setattr("twistedmedia.store.local.space._FRESH_S", 0.0)
    calls = Broken(errno.EROFS, *CHANGING)
    store = await filled(start, calls)
    for _ in range(2):
        calls.armed = True
        state = await store.look()
        assert state.cannot_read is None
        assert state.cannot_write.reason == READ_ONLY
        with pytest.raises(StorageFailed):
            await upload(store)
        calls.armed = False
        assert (await store.look()).cannot_write is None


@asynchronous
async def test_failures_of_requests_replace_a_fresh_probe(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 79: /health contradicts no response that came before it."""
    monkeypatch.setattr("twistedmedia.store.local.space._FRESH_S", 3600.0)
    calls = Broken(errno.EROFS, *CHANGING)
    store = await filled(start, calls)
    for _ in range(2):
        assert (await store.look()).cannot_write is None
        calls.armed = True
        with pytest.raises(StorageFailed):
            await upload(store)
        assert (await store.look()).cannot_write.reason == READ_ONLY
        calls.armed = False
        await upload(store)
        assert (await store.look()).cannot_write is None
        await store.delete(named("new/folder/y.mp3"))


@asynchronous
@pytest.mark.parametrize("happens", [removed, moved, another_in_its_place])
async def test_a_missing_root_that_requests_find_is_reported_in_the_same_second(
    start: Any, root: Path, monkeypatch: pytest.MonkeyPatch, happens: Callable[[Path], None]
) -> None:
    """Case 79: whether they are to write or to read."""
    monkeypatch.setattr("twistedmedia.store.local.space._FRESH_S", 3600.0)
    store = start()
    assert (await store.look()).cannot_read is None
    happens(root)
    with pytest.raises(StorageFailed):
        await read(store)
    assert (await store.look()).cannot_read is not None


@asynchronous
async def test_a_probe_stays_fresh_while_requests_confirm_it(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 79: a probe costs nothing, however often it is asked for."""
    monkeypatch.setattr("twistedmedia.store.local.space._FRESH_S", 3600.0)
    calls = Broken(errno.EROFS, *CHANGING)
    store = await filled(start, calls)
    probes: list[int | None] = []
    probe = store._root.probe

    def counted(free: int | None) -> StorageState:
        probes.append(free)
        return probe(free)

    monkeypatch.setattr(store._root, "probe", counted)
    for is_broken in (False, True):
        calls.armed = is_broken
        for _ in range(3):
            for change in (lambda: stored(store, OTHER), lambda: store.delete(OTHER)):
                with contextlib.suppress(StorageFailed):
                    await change()
            assert await read(store) == b"hello"
            await store.look()
        assert len(probes) == 1 + is_broken


@asynchronous
@pytest.mark.parametrize(
    ("happens", "why"),
    [(removed, GONE), (moved, GONE), (another_in_its_place, ANOTHER)],
    ids=["removed", "moved", "another"],
)
async def test_a_root_that_is_not_there_is_known_without_any_request(
    start: Any, root: Path, happens: Callable[[Path], None], why: str
) -> None:
    """Case 79."""
    store = start()
    happens(root)
    state = await store.look()
    with pytest.raises(StorageFailed, match=why):
        raise state.cannot_read
    assert state.cannot_write is state.cannot_read


def a_loop(root: Path) -> None:
    moved(root)
    root.symlink_to(root.name)


def a_file(root: Path) -> None:
    moved(root)
    root.write_bytes(b"")


def below_a_file(root: Path) -> None:
    """The folder above the root is a file by now."""
    root.parent.rename(root.parent.with_name("elsewhere"))
    root.parent.write_bytes(b"")


@asynchronous
@pytest.mark.parametrize(
    ("happens", "why"),
    [(a_loop, GONE), (a_file, ANOTHER), (below_a_file, GONE)],
    ids=["loop", "file", "below a file"],
)
async def test_whatever_takes_the_place_of_the_root_the_storage_fails(
    start: Any, tmp_path: Path, happens: Callable[[Path], None], why: str
) -> None:
    """Case 79: nor does anything say that a name conflicts."""
    root = tmp_path / "above" / "media"
    store = await filled(lambda calls, kind: start(calls, kind, root))
    happens(root)
    state = await store.look()
    for failure in (state.cannot_read, state.cannot_write):
        with pytest.raises(StorageFailed, match=why):
            raise failure
    for act in (upload, lambda store: read(store, named("x/none.mp3"))):
        with pytest.raises(StorageFailed, match=why):
            await act(store)


# The calls of a probe, and whether nothing can be read if they fail.
PROBES = {"stat_root": True, "may": True, "fstat": False, "statvfs": False}
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@asynchronous
@pytest.mark.parametrize(
    "error",
    sorted(
        {*BROKEN, *NOT_THERE, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENOSPC}
        | {errno.ENAMETOOLONG, errno.EINVAL, errno.EBADF, errno.EEXIST, errno.EFBIG}
    ),
    ids=errno.errorcode.get,
)
@pytest.mark.parametrize("operation", PROBES)
async def test_a_probe_that_fails_reports_a_storage_failure(
    start: Any, operation: str, error: int
) -> None:
    """Case 79: with each of its calls, and any errno."""
    calls = Broken(error, operation)
    store = await filled(start, calls)
    calls.armed = True
    state = await store.look()
    assert (state.cannot_read is not None) == PROBES[operation]
    assert isinstance(state.cannot_write, StorageFailed)
    assert "secret" not in state.cannot_write.reason


@asynchronous
@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOENT], ids=errno.errorcode.get)
async def test_a_job_whose_check_of_the_root_fails_reports_a_storage_failure(
    start: Any, root: Path, error: int
) -> None:
    """Case 79: a missing file is then not looked into further."""
    calls = Broken(error, "fstat")
    store = await filled(start, calls)
    shutil.rmtree(root / HIDDEN)
    calls.armed = True
    with pytest.raises(StorageFailed):
        await store.resumable.create("e" * 32, SPEC)


@asynchronous
async def test_folders_of_the_service_that_are_removed_are_known_without_any_request(
    start: Any, root: Path
) -> None:
    """Case 79: replacements and resumable uploads fail. Reading goes on."""
    store = await filled(start)
    shutil.rmtree(root / HIDDEN)
    state = await store.look()
    assert state.cannot_read is None
    with pytest.raises(StorageFailed, match=r"in \.twistedmedia was removed; start the"):
        raise state.cannot_write


@asynchronous
@pytest.mark.parametrize(
    ("mode", "reads", "writes"), [(os.R_OK, False, False), (os.W_OK, True, False)]
)
async def test_a_root_without_permissions_is_reported(
    start: Any, mode: int, reads: bool, writes: bool
) -> None:
    """Case 79."""

    class Forbidding(CallsLayer):
        def may(self, fd: int, asked: int) -> bool:
            return not asked & mode

    state = await start(Forbidding()).look()
    assert (state.cannot_read is None, state.cannot_write is None) == (reads, writes)
    assert state.cannot_write.reason.endswith(": permission denied")


@asynchronous
@pytest.mark.parametrize(
    ("operation", "act", "seen"),
    [("writev", upload, "cannot_write"), ("pread", read_both, "cannot_read")],
)
async def test_a_failure_is_reported_until_the_storage_works_again(
    start: Any, operation: str, act: Callable[[Any], Awaitable[Any]], seen: str
) -> None:
    """Case 79."""
    calls = Broken(errno.EIO, operation, "read_cached")
    store = await filled(start, calls)
    await stored(store, OTHER)
    calls.armed = True
    with pytest.raises(StorageFailed):
        await act(store)
    failure = getattr(await store.look(), seen)
    assert failure.reason.endswith(": input/output error")
    calls.armed = False
    store._files._open_cached = lambda name, caller: None  # that says nothing of the disk
    await act(store)
    assert getattr(await store.look(), seen) is None


class OneBadFile(CallsLayer):
    """Reads of the files with these sizes fail. Nothing is at hand unless it is `cached`."""

    cached = False

    def __init__(self, error: int, *sizes: int) -> None:
        self._error = error
        self._sizes = sizes

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if operation == "open_cached" and not self.cached:
            raise BlockingIOError
        if operation in ("pread", "read_cached") and os.fstat(args[0]).st_size in self._sizes:
            raise OSError(self._error, os.strerror(self._error))
        return call()


async def fails_to_read(store: Any, name: Any = NAME) -> None:
    with pytest.raises(StorageFailed):
        await read(store, name)


ONE_FILES = sorted(OF_ONE_FILE)


@asynchronous
@pytest.mark.parametrize("cached", [False, True], ids=["from the disk", "at hand"])
@pytest.mark.parametrize("error", ONE_FILES, ids=errno.errorcode.get)
async def test_an_unreadable_file_is_logged_once_and_others_are_not_affected(
    start: Any, warnings: list[LogEvent], infos: list[LogEvent], error: int, cached: bool
) -> None:
    """Case 79: with reads of another file in between, and without."""
    calls = OneBadFile(error, 5)
    store = await filled(start, calls)
    await stored(store, OTHER, b"good one")
    calls.cached = cached
    infos.clear()
    for _ in range(20):
        await fails_to_read(store)
        await fails_to_read(store)
        assert (await store.look()).cannot_read is None
        assert await read(store, OTHER) == b"good one"
    assert len(warnings) == 1
    assert [formatEvent(event) for event in infos if "again" in formatEvent(event)] == []


@asynchronous
@pytest.mark.parametrize("cached", [False, True], ids=["from the disk", "at hand"])
async def test_failures_with_a_success_in_between_do_not_flood_the_log(
    start: Any, warnings: list[LogEvent], infos: list[LogEvent], cached: bool
) -> None:
    """Case 79: two files that cannot be read, one after the other, count until a third can."""
    calls = OneBadFile(errno.EIO, 5, 6)
    store = await filled(start, calls)
    await stored(store, OTHER, b"second")
    third = named("a/third.mp3")
    await stored(store, third, b"the third")
    calls.cached = cached
    for _ in range(20):
        await fails_to_read(store)
        await fails_to_read(store, OTHER)
        assert (await store.look()).cannot_read is not None
        assert await read(store, third) == b"the third"
        assert (await store.look()).cannot_read is None
    assert [formatEvent(event) for event in warnings] == [
        "the storage cannot be read: input/output error"
    ]
    logged = [formatEvent(event) for event in infos]
    assert logged.count("the storage can be read again") == 1


@asynchronous
async def test_a_large_file_that_the_kernel_sends_is_a_success(start: Any) -> None:
    """Case 79."""
    calls = OneBadFile(errno.EIO, 5, 6)
    store = await filled(start, calls)
    await stored(store, OTHER, b"second")
    large = named("a/large.mp3")
    await stored(store, large, LARGE)
    media = await store.open(large)
    ours, theirs = socket.socketpair()
    try:
        await fails_to_read(store)
        await fails_to_read(store, OTHER)
        assert (await store.look()).cannot_read is not None
        assert media.send_at_hand(ours.fileno(), 0, 1000) == 1000
        assert (await store.look()).cannot_read is None
    finally:
        ours.close()
        theirs.close()
        media.close()


@asynchronous
@pytest.mark.parametrize(
    "error", sorted(BROKEN - OF_ONE_FILE - {errno.EROFS}), ids=errno.errorcode.get
)
async def test_a_device_or_server_that_is_gone_is_known_after_one_failure(
    start: Any, error: int
) -> None:
    """Case 79."""
    store = await filled(start, OneBadFile(error, 5))
    await fails_to_read(store)
    assert (await store.look()).cannot_read.reason.endswith(reason_of(error))


def test_a_failure_is_forgotten_after_a_while(root: Path) -> None:
    """Case 79: perhaps no request will try it again."""
    root.mkdir()
    now_s = 1000.0
    fd = os.open(root, os.O_RDONLY)
    try:
        at = Root(SystemCalls(), str(root), fd, now_s=lambda: now_s)
        with pytest.raises(StorageFailed), at.writing():
            raise OSError(errno.EIO, "broken")
        now_s += 29
        state = at.with_recent_failures(StorageState(None))
        assert isinstance(state.cannot_write, StorageFailed)
        now_s += 2
        assert at.with_recent_failures(StorageState(None)) == StorageState(None)
    finally:
        os.close(fd)


def test_a_failure_is_logged_once_in_a_while(root: Path, warnings: list[LogEvent]) -> None:
    """Case 79: a broken disk does not fill the log."""
    root.mkdir()
    now_s = 1000.0
    fd = os.open(root, os.O_RDONLY)
    try:
        at = Root(SystemCalls(), str(root), fd, now_s=lambda: now_s)
        for _ in range(50):
            now_s += 1
            for error in (errno.EIO, errno.ESTALE):
                with pytest.raises(StorageFailed), at.reading():
                    raise OSError(error, "broken", "x.mp3")
    finally:
        os.close(fd)
    logged = [formatEvent(event) for event in warnings]
    assert sorted(logged) == sorted(
        2
        * [
            "the storage cannot be read: input/output error, at 'x.mp3'",
            "the storage cannot be read: stale file handle, at 'x.mp3'",
        ]
    )


@asynchronous
async def test_a_hanging_storage_holds_one_thread_however_many_probes_wait(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cases 29 and 79. Reading and writing continue with cached data."""
    monkeypatch.setattr("twistedmedia.store.local.space._FRESH_S", 0.0)
    calls = SlowCalls()
    store = await filled(start, calls)
    held = calls.hold("statvfs")
    looks = [store.look() for _ in range(100)]
    await held
    looks += [store.look() for _ in range(100)]
    assert await read(store) == b"hello"
    for look in looks[:-1]:
        look.cancel()
        with pytest.raises(CancelledError):
            await look
    assert not looks[-1].called
    calls.release()
    assert (await looks[-1]).cannot_read is None


@asynchronous
async def test_writes_that_hang_are_reported(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases 29 and 79: the probe does not see them."""
    calls = SlowCalls()
    store = await filled(start, calls)
    held = calls.hold("fsync")
    uploading = ensureDeferred(stored(store, OTHER))
    await held
    assert (await store.look()).cannot_write is None
    monkeypatch.setattr("twistedmedia.store.local.root._HANGS_S", 0.0)
    state = await store.look()
    assert state.cannot_read is None
    with pytest.raises(StorageFailed, match="it has not finished a write for 0 s"):
        raise state.cannot_write
    calls.release()
    await uploading
    assert (await store.look()).cannot_write is None


@asynchronous
@pytest.mark.parametrize("operation", ["lstat", "pread"])
async def test_a_long_sweep_is_not_a_write(
    start: Any, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """Case 79: nor is other work that only reads."""
    calls = SlowCalls()
    store = await filled(start, calls)
    monkeypatch.setattr("twistedmedia.store.local.root._HANGS_S", 0.0)
    held = calls.hold(operation)
    ask = store.resumable.expire(0) if operation == "lstat" else store.resumable.find(UPLOAD)
    await held
    assert (await store.look()).cannot_write is None
    calls.release()
    await ask


@asynchronous
async def test_a_probe_is_fresh_for_a_second() -> None:
    """Case 79: a probe costs nothing, however often it is asked for."""
    now_s = 1000.0
    looked = 0

    def look() -> int:
        nonlocal looked
        looked += 1
        return looked

    threads = DiskThreads(reactor, "watcher", 1)
    threads.start()
    try:
        watch = CachedProbe(threads, look, now_s=lambda: now_s)
        assert [await watch.look() for _ in range(5)] == [1] * 5
        now_s += 0.9
        assert await watch.look() == 1
        now_s += 0.2
        assert await watch.look() == 2
    finally:
        await threads.idle()
        threads.stop()


@asynchronous
async def test_a_failed_probe_is_reported_and_repeated() -> None:
    """Case 79."""
    outcomes: list[MediaError | int] = [NotFound(), 5]

    def look() -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, MediaError):
            raise outcome
        return outcome

    threads = DiskThreads(reactor, "watcher", 1)
    threads.start()
    try:
        watch = CachedProbe(threads, look)
        with pytest.raises(NotFound):
            await watch.look()
        assert await watch.look() == 5
    finally:
        await threads.idle()
        threads.stop()


@asynchronous
async def test_a_cancel_from_a_callback_takes_the_result_from_no_other_caller() -> None:
    """Case 79."""
    may_look = threading.Event()
    watchers = DiskThreads(reactor, "watcher", 1)
    watchers.start()
    try:
        watch = CachedProbe(watchers, lambda: may_look.wait(5))
        first, second, third = (watch.look() for _ in range(3))

        def leave(result: bool) -> bool:
            second.cancel()
            return result

        first.addCallback(leave)
        may_look.set()
        assert await third
        assert await first
        with pytest.raises(CancelledError):
            await second
    finally:
        await watchers.idle()
        watchers.stop()


@asynchronous
async def test_cancelling_a_probe_costs_the_same_however_many_wait() -> None:
    """Case 79: a health check gives up after half a second, and the storage hangs for long."""
    may_look = threading.Event()
    watchers = DiskThreads(reactor, "watcher", 1)
    watchers.start()
    try:
        watch = CachedProbe(watchers, may_look.wait)
        looks = [watch.look() for _ in range(20_000)]
        result = [outcome(look) for look in looks]
        begun_s = time.process_time()
        for look in reversed(looks):
            look.cancel()
        taken_s = time.process_time() - begun_s
        assert all(isinstance(failed(each), CancelledError) for each in result)
        assert taken_s < 1
    finally:
        may_look.set()
        await watchers.idle()
        watchers.stop()

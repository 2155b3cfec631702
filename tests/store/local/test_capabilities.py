"""What a file system lacks is named when the store starts, or done without."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.logger import LogEvent, LogLevel, formatEvent

from tests.store.local.faults import CallsLayer, LackingCalls, descriptors, tree
from tests.store.local.test_resumable_drafts import (
    ETAG,
    PLAN,
    UPLOAD,
    begun,
    going_on,
    kept_bytes,
    let_go,
    reviewed,
)
from tests.store.test_contract import content_of, stored
from tests.support import asynchronous, named
from twistedmedia.errors import ConfigurationError
from twistedmedia.store.local.directory import DirectoryStore
from twistedmedia.store.local.record_files import SymlinkTexts
from twistedmedia.store.local.syscalls import SystemCalls

FOLDER = ".twistedmedia/uploads"


def is_folder(fd: int, *_: object) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


LINKS = "link", "link_descriptor"
NEEDED: list[tuple[CallsLayer, str]] = [
    (
        LackingCalls(*LINKS),
        "has no hard links (operation not permitted), which give each stored file its name in one "
        "step. Choose a folder on another file system",
    ),
    (
        LackingCalls(*LINKS, error=errno.EOPNOTSUPP),
        "has no hard links (operation not supported), which give each stored file its name in one "
        "step. Choose a folder on another file system",
    ),
    (
        LackingCalls("lock", error=errno.ENOLCK),
        "has no file locks (no locks available), which keep a second service out of the root. "
        "Choose a folder on another file system",
    ),
    (
        LackingCalls("lock", error=errno.ENOSYS),
        "has no file locks (function not implemented), which keep a second service out of the "
        "root. Choose a folder on another file system",
    ),
    (
        LackingCalls("fsync", error=errno.EINVAL, where=is_folder),
        "cannot sync folders (invalid argument), so a power failure can take stored files. Choose "
        "a folder on another file system, or say --no-durable",
    ),
]


def store_on(root: Path, calls: SystemCalls, **options: Any) -> DirectoryStore:
    return DirectoryStore(reactor, str(root), calls=calls, **options)


@pytest.mark.parametrize(("calls", "told"), NEEDED)
@pytest.mark.parametrize("exists", [True, False], ids=["a root", "a new root"])
def test_what_is_needed_and_lacks_ends_the_start_and_is_named(
    root: Path, calls: CallsLayer, told: str, exists: bool
) -> None:
    """Case 93."""
    if exists:
        root.mkdir()
    before = descriptors()
    with pytest.raises(ConfigurationError) as failure:
        store_on(root, calls).start()
    assert str(failure.value) == f"the file system of {root} {told}"
    assert descriptors() == before
    assert tree(root) == {}
    assert not (root / ".twistedmedia").exists()


@pytest.mark.parametrize("calls", [calls for calls, _ in NEEDED])
def test_a_start_that_is_refused_removes_nothing_that_was_there(
    root: Path, calls: CallsLayer
) -> None:
    """Case 93."""
    hidden = root / ".twistedmedia"
    (hidden / "uploads").mkdir(parents=True)
    (hidden / "lock").touch()
    (hidden / "note").touch()
    with pytest.raises(ConfigurationError):
        store_on(root, calls).start()
    assert sorted(path.name for path in hidden.iterdir()) == ["lock", "note", "uploads"]


@asynchronous
async def test_a_store_that_is_not_durable_needs_no_folder_synced(start: Any) -> None:
    store = start(LackingCalls("fsync", error=errno.EINVAL, where=is_folder), durable=False)
    await stored(store, named("a/b.mp3"), b"hello")


@pytest.mark.parametrize("operation", ["lock", "link", "symlink"])
def test_a_storage_that_fails_is_not_one_that_lacks_something(root: Path, operation: str) -> None:
    calls = LackingCalls(operation, error=errno.EIO)
    store = store_on(root, calls, unnamed_drafts=False)
    with pytest.raises(ConfigurationError, match="cannot be used: Input/output error"):
        store.start()


@pytest.fixture
def infos(nothing_left_behind: list[LogEvent]) -> Any:
    from twisted.logger import globalLogPublisher

    events: list[str] = []

    def note(event: LogEvent) -> None:
        if event["log_level"] is LogLevel.info and "no {what}" in (event["log_format"] or ""):
            events.append(formatEvent(event))

    globalLogPublisher.addObserver(note)
    yield events
    globalLogPublisher.removeObserver(note)


def has_attributes(root: Path) -> bool:
    root.mkdir(exist_ok=True)
    try:
        os.setxattr(root, "user.a", b"")
    except OSError:
        return False
    return True


@asynchronous
@pytest.mark.parametrize(
    ("calls", "told"),
    [
        (LackingCalls("symlink"), "no symbolic links (operation not permitted): small files"),
        (
            LackingCalls("set_attribute", error=errno.EOPNOTSUPP),
            "no extended attributes (operation not supported): digests are computed",
        ),
        (
            LackingCalls("open", error=errno.EOPNOTSUPP, where=lambda path, *_: path == "."),
            "no unnamed files (O_TMPFILE) (operation not supported): drafts have hidden names",
        ),
    ],
)
async def test_what_is_only_useful_and_lacks_is_told(
    start: Any, root: Path, infos: list[str], calls: CallsLayer, told: str
) -> None:
    """Case 93."""
    store = start(calls)
    assert sum(f"the file system of {root} has {told}" in event for event in infos) == 1
    name = named("a/b.mp3")
    await stored(store, name, b"hello")
    assert await content_of(store, name) == b"hello"


@asynchronous
async def test_nothing_is_told_of_a_file_system_that_has_all(
    start: Any, root: Path, infos: list[str]
) -> None:
    assert has_attributes(root)
    start(SystemCalls())
    assert infos == []


@asynchronous
async def test_without_symbolic_links_resumable_uploads_survive_a_kill(
    start: Any, root: Path
) -> None:
    """Case 93: what is provisional does not count, and a finished one is known."""
    store = start(LackingCalls("symlink"))
    await begun(store, b"hello")
    draft = await going_on(store, provisional=True)
    await draft.append([b"noise"])
    mark = root / FOLDER / f"{UPLOAD}.mark"
    assert mark.is_file()
    assert not mark.is_symlink()
    await let_go(draft)
    await store.stop()
    store = start(LackingCalls("symlink"))
    assert await kept_bytes(store) == b"hello"
    draft = await going_on(store)
    await reviewed(draft)
    await draft.append([b" world"])
    published = await draft.publish(PLAN.name)
    await store.stop()
    store = start(LackingCalls("symlink"))
    assert (await store.resumable.find(UPLOAD)).etag == published.etag
    await store.resumable.learn()
    assert await store.resumable.expire(1 << 62) == [UPLOAD]
    assert os.listdir(root / FOLDER) == []


@asynchronous
@pytest.mark.parametrize("before", [True, False])
async def test_a_root_that_moves_to_another_file_system_keeps_its_uploads(
    start: Any, root: Path, before: bool
) -> None:
    """A copy can have symbolic links where the other has files, and the other way round."""
    kinds = [SystemCalls, lambda: LackingCalls("symlink")]
    store = start(kinds[before]())
    await begun(store, b"hello")
    other = "f" * 32
    await begun(store, upload=other)
    await store.resumable.settle(other, ETAG)
    await store.stop()
    store = start(kinds[not before]())
    assert await kept_bytes(store) == b"hello"
    assert (await store.resumable.find(other)).etag == ETAG
    await begun(store, upload="e" * 32)


@pytest.mark.parametrize("operation", ["open", "writev", "fsync", "rename"])
def test_a_file_for_a_text_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, operation: str
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    SymlinkTexts(SystemCalls(), fd, links=False).replace("a", "old")
    calls = LackingCalls(operation, error=errno.ENOSPC, where=lambda name, *_: name != "a")
    if operation == "rename":
        calls = LackingCalls(operation, error=errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        SymlinkTexts(calls, fd, links=False).replace("a", "new")
    assert SymlinkTexts(SystemCalls(), fd).read("a") == "old"
    assert os.listdir(tmp_path) == ["a"]
    os.close(fd)


class FullAtFirst(LackingCalls):
    """No file can be made among the drafts as long as `is_full`, and no link if that `hides` what
    the file system lacks.
    """

    def __init__(self, *lacks: str, full: int, hides: bool = False) -> None:
        super().__init__(*lacks)
        self.is_full = True
        self._full = full
        self._hides = hides

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        makes = operation == "open" and args[1] & (os.O_EXCL | os.O_TMPFILE & ~os.O_DIRECTORY)
        if self.is_full and (makes or (self._hides and operation == "symlink")):
            raise OSError(self._full, os.strerror(self._full))
        return super().around(operation, call, args)


@asynchronous
@pytest.mark.parametrize("full", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("hides", [False, True])
async def test_a_start_on_a_full_disk_assumes_nothing_that_the_file_system_may_lack(
    start: Any, root: Path, warnings: list[LogEvent], full: int, hides: bool
) -> None:
    """Case 93: once there is space again, uploads work without a restart."""
    calls = FullAtFirst("symlink", full=full, hides=hides)
    store = start(calls)
    assert [formatEvent(event) for event in warnings] == [
        f"nothing can be stored now: {os.strerror(full)}"
    ]
    calls.is_full = False
    await begun(store, b"hello")
    assert await kept_bytes(store) == b"hello"
    await stored(store, named("a/b.mp3"), b"hello")
    assert await content_of(store, named("a/b.mp3")) == b"hello"


@pytest.mark.parametrize("operation", ["open", "set_attribute"])
def test_a_full_disk_does_not_hide_that_there_are_no_hard_links(root: Path, operation: str) -> None:
    """Case 93: files without names cannot be made now; other files, and links to them, are tried
    all the same.
    """

    class Full(LackingCalls):
        def around(self, made: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
            if made == operation and (made != "open" or args[0] == "."):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().around(made, call, args)

    with pytest.raises(ConfigurationError, match="has no hard links"):
        store_on(root, Full(*LINKS)).start()

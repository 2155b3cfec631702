"""What the directory store promises beyond the contract: nothing outside of its root, one service a
root, and an order of operations that no crash can make a lie.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import hashlib
import os
import shutil
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    ensureDeferred,
    gatherResults,
)

from tests.listed import page_of
from tests.store.local.faults import (
    CallsLayer,
    FailingCalls,
    RecordingCalls,
    ShortWrites,
    SlowCalls,
    SmallDisk,
    SwappingCalls,
    descriptors,
    each_failure,
    errno_of,
    tree,
)
from tests.store.test_contract import closed, content_of, let_go, stored
from tests.support import asynchronous, named
from twistedmedia.errors import (
    AlreadyExists,
    Busy,
    ConfigurationError,
    MediaError,
    NameConflict,
    NameNotAllowed,
    NoSpace,
    NotFound,
    StorageFailed,
    TooLarge,
)
from twistedmedia.store.preconditions import ANY, Precondition

KINDS = ("directory", "directory with hidden drafts")
NAME = named("a/b/x.mp3")


both_kinds = pytest.mark.parametrize("kind", KINDS)


# What is on the disk


@asynchronous
@both_kinds
async def test_media_are_plain_files_below_the_root(start: Any, root: Path, kind: str) -> None:
    store = start(kind=kind)
    await stored(store, NAME, b"hello")
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"hello"}
    assert (root / "a/b/x.mp3").stat().st_nlink == 1


@asynchronous
@both_kinds
async def test_a_stored_file_can_be_read_by_others_as_the_umask_says(
    start: Any, root: Path, kind: str
) -> None:
    before = os.umask(0o027)
    try:
        await stored(start(kind=kind), NAME)
    finally:
        os.umask(before)
    assert (root / "a/b/x.mp3").stat().st_mode & 0o777 == 0o640
    assert (root / "a/b").stat().st_mode & 0o777 == 0o750
    assert (root / ".twistedmedia").stat().st_mode & 0o077 == 0


@asynchronous
@both_kinds
@pytest.mark.parametrize("steps", range(4))
async def test_a_discarded_draft_leaves_nothing_on_the_disk(
    start: Any, root: Path, kind: str, steps: int
) -> None:
    store = start(kind=kind)
    before = descriptors()
    draft = store.begin(5)
    todo = [lambda: draft.prepare(NAME), lambda: draft.append([b"hello"]), draft.seal]
    for step in todo[:steps]:
        await step()
    await let_go(draft)
    assert (tree(root), descriptors()) == ({}, before)


@asynchronous
@both_kinds
async def test_an_upload_that_loses_its_name_leaves_no_folder_and_no_draft(
    start: Any, root: Path, kind: str
) -> None:
    store = start(kind=kind)
    (root / "a").write_bytes(b"a file where a folder is meant")
    with pytest.raises(NameConflict):
        await stored(store, NAME)
    (root / "c/d").mkdir(parents=True)
    (root / "c/d/x.mp3").write_bytes(b"first")
    draft = store.begin()
    await draft.append([b"second"])
    with pytest.raises(AlreadyExists):
        await draft.publish(named("c/d/x.mp3"))
    await let_go(draft)
    assert tree(root) == {
        "a": b"a file where a folder is meant",
        "c": None,
        "c/d": None,
        "c/d/x.mp3": b"first",
    }


@asynchronous
async def test_the_etag_of_the_answer_is_that_of_the_next_reading(start: Any) -> None:
    store = start()
    published = await stored(store, NAME)
    media = await store.open(NAME)
    media.close()
    assert media.etag == published.etag


@asynchronous
async def test_a_file_that_an_administrator_put_there_is_served(start: Any, root: Path) -> None:
    store = start()
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/x.mp3").write_bytes(b"by hand")
    assert await content_of(store, NAME) == b"by hand"
    with pytest.raises(AlreadyExists):
        await stored(store, NAME)
    assert await store.delete(NAME)
    assert tree(root) == {}


@asynchronous
async def test_the_root_and_its_hidden_folder_stay_when_all_media_go(
    start: Any, root: Path
) -> None:
    store = start()
    await stored(store, NAME)
    await store.delete(NAME)
    assert sorted(os.listdir(root)) == [".twistedmedia"]


@pytest.mark.parametrize(
    "text", [".twistedmedia/lock", "a/.twistedmedia/x", ".twistedmedia/drafts/x"]
)
def test_the_hidden_folder_has_no_media_name(text: str) -> None:
    """Case 32."""
    with pytest.raises(NameNotAllowed):
        named(text)


# Cancelled waiting


@asynchronous
@both_kinds
async def test_a_cancelled_publish_is_still_done(start: Any, root: Path, kind: str) -> None:
    store = start(kind=kind)
    draft = store.begin()
    await draft.append([b"hello"])
    await draft.seal()
    publishing = draft.publish(NAME)
    publishing.cancel()
    with pytest.raises(CancelledError):
        await publishing
    draft.discard()
    await store.stop()
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"hello"}


@asynchronous
async def test_a_cancelled_delete_is_still_done(start: Any, root: Path) -> None:
    store = start()
    await stored(store, NAME)
    deleting = store.delete(NAME)
    deleting.cancel()
    with pytest.raises(CancelledError):
        await deleting
    await store.stop()
    assert tree(root) == {}


@asynchronous
async def test_a_media_whose_open_was_cancelled_is_closed(start: Any) -> None:
    """Case 25."""
    calls = SlowCalls()
    store = start(calls)
    await stored(store, NAME, bytes(100_000))  # large enough for a thread
    before = descriptors()
    held = calls.hold("open")
    opening = store.open(NAME)
    await held
    opening.cancel()
    calls.release()
    with pytest.raises(CancelledError):
        await opening
    await store.stop()
    assert descriptors() < before


@asynchronous
@both_kinds
async def test_stopping_waits_for_running_work_and_for_the_work_that_follows(
    start: Any, root: Path, kind: str
) -> None:
    """A draft is discarded after a write: the threads must not end between the two."""
    calls = SlowCalls()
    before = descriptors()
    store = start(calls, kind)
    held = calls.hold("writev")
    draft = store.begin()
    writing = draft.append([b"hello"])
    await held
    writing.cancel()
    with pytest.raises(CancelledError):
        await writing
    draft.discard()
    stopping = Deferred.fromCoroutine(store.stop())
    assert not stopping.called
    calls.release()
    await stopping
    assert (tree(root), descriptors()) == ({}, before)


# Links, and other things that are not files


LINKS: dict[str, Callable[[Path, Path], None]] = {
    # what the link is called, in each case, and what it points to
    "the file, to a file outside": lambda root, other: link(root / "a/b/x.mp3", other / "x.mp3"),
    "the file, to a file inside": lambda root, _: link(root / "a/b/x.mp3", root / "real/x.mp3"),
    "the file, to nothing": lambda root, other: link(root / "a/b/x.mp3", other / "nothing.mp3"),
    "the file, to itself": lambda root, _: link(root / "a/b/x.mp3", root / "a/b/x.mp3"),
    "its folder, to one outside": lambda root, other: link(root / "a/b", other),
    "its folder, to one inside": lambda root, _: link(root / "a/b", root / "real"),
    "its folder, to nothing": lambda root, other: link(root / "a/b", other / "nothing"),
    "the upper folder, to one outside": lambda root, other: link(root / "a", other / "a"),
    "the upper folder, to a parent": lambda root, _: link(root / "a", root.parent),
    "its folder, relative": lambda root, _: link(root / "a/b", Path("../../media2")),
}


def link(at: Path, target: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(target)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder beside the root whose path begins with the root's path."""
    folder = tmp_path / "media2"
    (folder / "a/b").mkdir(parents=True)
    (folder / "x.mp3").write_bytes(b"secret")
    (folder / "a/b/x.mp3").write_bytes(b"secret")
    return folder


@asynchronous
@pytest.mark.parametrize("case", LINKS)
async def test_no_link_is_ever_followed(start: Any, root: Path, other: Path, case: str) -> None:
    """Cases 33 and 34."""
    store = start()
    (root / "real").mkdir()
    (root / "real/x.mp3").write_bytes(b"real")
    LINKS[case](root, other)
    inside, outside = tree(root), tree(other)
    with pytest.raises(NotFound):
        await store.open(NAME)
    assert await store.delete(NAME) is False
    expected = AlreadyExists if case.startswith("the file") else NameConflict
    for draft, size in ((store.begin(), None), (store.begin(2 << 20), 2 << 20)):
        with pytest.raises(expected):
            await draft.prepare(NAME)
        await let_go(draft)
        with pytest.raises(expected):
            await stored(store, NAME, bytes(size or 10))
    assert (tree(root), tree(other)) == (inside, outside)


@asynchronous
async def test_a_link_to_a_folder_is_not_a_directory_that_could_be_deleted(
    start: Any, root: Path, other: Path
) -> None:
    """Case 33."""
    store = start()
    link(root / "a/b", other)
    assert await store.delete(named("a/b")) is False
    assert (root / "a/b").is_symlink()


async def read(store: Any, _: Any) -> None:
    media = await store.open(NAME)
    try:
        assert await media.read(0, 100) == b"mine"
    finally:
        await closed(media)


async def listed(store: Any, _: Any) -> None:
    page = await page_of(store, ("a", "b"), "", 10)
    assert {each.size for each in page.entries} <= {4}


async def recognised(store: Any, _: Any) -> None:
    found = await store.recognise(NAME, hashlib.sha256(b"mine").hexdigest())
    assert found is None or found.size == 4


ANY_FILE = Precondition(if_match=frozenset({ANY}))


# What may be done to NAME, with a draft.
DOING: dict[str, Callable[[Any, Any], Any]] = {
    "open": read,
    "list": listed,
    "recognise": recognised,
    "publish": lambda store, draft: draft.publish(NAME),
    "prepare": lambda store, draft: draft.prepare(NAME),
    "replace": lambda store, draft: draft.publish(NAME, ANY_FILE),
    "prepare to replace": lambda store, draft: draft.prepare(NAME, ANY_FILE),
    "delete": lambda store, draft: store.delete(NAME),
    "delete with a precondition": lambda store, draft: store.delete(NAME, ANY_FILE),
}


@asynchronous
@pytest.mark.parametrize("doing", DOING)
@pytest.mark.parametrize("swapped", ["a", "a/b", "a/b/x.mp3"])
async def test_a_link_that_is_swapped_in_at_any_moment_leads_nowhere(
    start: Any, root: Path, other: Path, doing: str, swapped: str
) -> None:
    """Case 33: `swapped` becomes a link before the Nth call, for every N."""
    calls = SwappingCalls()
    store = start(calls)
    outside = tree(other)
    target = {"a": other / "a", "a/b": other / "a/b", "a/b/x.mp3": other / "x.mp3"}[swapped]
    moments = 0
    for nth in range(1, 100):
        (root / "a/b").mkdir(parents=True)
        if doing not in ("publish", "prepare"):
            (root / "a/b/x.mp3").write_bytes(b"mine")

        def swap() -> None:
            place = root / swapped
            with contextlib.suppress(FileNotFoundError):  # it has gone with its folder
                if place.exists():
                    place.rename(root / "aside")
                place.symlink_to(target)

        draft = store.begin()
        await draft.append([b"mine"])
        calls.before(nth, swap)
        with contextlib.suppress(MediaError):
            await DOING[doing](store, draft)
        calls.disarm()
        await let_go(draft)
        assert tree(other) == outside
        if not calls.swapped:
            break
        moments += 1
        for place in sorted(tree(root), key=len, reverse=True):
            path = root / place
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    else:
        pytest.fail("it never came to an end")
    assert moments >= 3


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as each:
            each.bind(f"/proc/self/fd/{folder}/{path.name}")  # a path of any length
    finally:
        os.close(folder)


def a_folder(path: Path) -> None:
    path.mkdir()


@asynchronous
@pytest.mark.parametrize("make", [a_fifo, a_socket, a_folder])
async def test_only_regular_files_are_served_and_nothing_hangs_on_others(
    start: Any, root: Path, make: Callable[[Path], None]
) -> None:
    store = start()
    (root / "a/b").mkdir(parents=True)
    make(root / "a/b/x.mp3")
    for _ in range(5):  # more than there are threads
        with pytest.raises(NotFound):
            await store.open(NAME)
    with pytest.raises((AlreadyExists, NameConflict)):
        await stored(store, NAME)
    if make is not a_folder:
        assert await store.delete(NAME) is False
    assert (root / "a/b/x.mp3").exists()


class DeviceCalls(CallsLayer):
    """x.mp3 is /dev/zero, which only root could make."""

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if operation == "open_cached":
            raise BlockingIOError
        if operation == "open" and args[0] == "x.mp3":
            return os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)
        return call()


@asynchronous
async def test_a_device_is_not_served(start: Any) -> None:
    store = start(DeviceCalls())
    await stored(store, NAME)
    before = descriptors()
    with pytest.raises(NotFound):
        await store.open(NAME)
    assert descriptors() == before


# The root, its lock, and the sweep


@asynchronous
async def test_a_second_service_is_kept_out_of_a_root(start: Any, root: Path) -> None:
    first = start()
    before = descriptors()
    with pytest.raises(ConfigurationError, match=str(root)):
        start()
    assert descriptors() == before
    await stored(first, NAME, b"hello")
    await first.stop()
    assert await content_of(start(), NAME) == b"hello"


@asynchronous
async def test_a_root_beside_another_is_another(start: Any, root: Path, tmp_path: Path) -> None:
    """Case 34."""
    first, second = start(), start(at=tmp_path / "media2")
    await stored(first, NAME, b"first")
    await stored(second, NAME, b"second")
    assert await content_of(first, NAME) == b"first"
    await first.delete(NAME)
    assert await content_of(second, NAME) == b"second"


@asynchronous
async def test_a_root_and_its_parents_are_made(start: Any, tmp_path: Path) -> None:
    at = tmp_path / "srv/audio/media"
    await stored(start(at=at), NAME, b"hello")
    assert (at / "a/b/x.mp3").read_bytes() == b"hello"


@asynchronous
async def test_a_root_may_be_a_link_that_the_operator_made(start: Any, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "srv").symlink_to(tmp_path / "disk")
    await stored(start(at=tmp_path / "srv"), NAME, b"hello")
    assert (tmp_path / "disk/a/b/x.mp3").read_bytes() == b"hello"


@asynchronous
@pytest.mark.parametrize("at", ["file", "file/media", "file/deeper/media", "dangling", "x" * 256])
async def test_a_root_that_cannot_be_is_one_clear_line(start: Any, tmp_path: Path, at: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere/at/all")
    before = descriptors()
    with pytest.raises(ConfigurationError) as failure:
        start(at=tmp_path / at)
    assert str(tmp_path / at) in str(failure.value)
    assert "\n" not in str(failure.value)
    assert descriptors() == before


@asynchronous
async def test_a_hidden_folder_that_is_a_link_is_refused(
    start: Any, root: Path, tmp_path: Path
) -> None:
    """Case 33: a sweep must not remove files elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"x")
    (root / ".twistedmedia").mkdir(parents=True)
    (root / ".twistedmedia/drafts").symlink_to(elsewhere)
    with pytest.raises(ConfigurationError):
        start()
    assert tree(elsewhere) == {"precious": b"x"}


@asynchronous
@both_kinds
@pytest.mark.parametrize("error", [errno.EACCES, errno.ENOSPC], ids=errno.errorcode.get)
async def test_a_start_that_fails_anywhere_says_so_and_holds_nothing(
    start: Any, root: Path, kind: str, error: int
) -> None:
    """Case 14. The failed call may be for something optional."""
    calls = FailingCalls()
    for nth in range(1, 100):
        before = descriptors()
        store, why = None, ""
        with calls.armed(nth, error):
            try:
                store = start(calls, kind)
            except ConfigurationError as failure:
                why = str(failure)
        if store is None:
            assert "\n" not in why
            assert descriptors() == before
        else:
            await stored(store, NAME)
            await store.delete(NAME)
            await store.stop()
        assert tree(root) == {} or calls.failed == "unlink", calls.failed
        if calls.failed is None:
            break
    else:
        pytest.fail("it never came to an end")
    assert nth > 10


@asynchronous
async def test_the_drafts_of_a_killed_service_are_swept_and_those_in_use_are_spared(
    start: Any, root: Path
) -> None:
    """Cases 3 and 13."""
    await start().stop()
    drafts = root / ".twistedmedia/drafts"
    for name in ("0" * 32, "1" * 32, "2" * 32):
        (drafts / name).write_bytes(b"half a file")
    in_use = os.open(drafts / ("1" * 32), os.O_RDONLY)
    fcntl.flock(in_use, fcntl.LOCK_EX)
    start(kind="directory with hidden drafts")
    os.close(in_use)
    assert os.listdir(drafts) == ["1" * 32]


@asynchronous
async def test_a_sweep_leaves_other_files_alone(start: Any, root: Path, tmp_path: Path) -> None:
    """Case 33: links are not followed, and a FIFO does not hold up the start."""
    await start().stop()
    precious = tmp_path / "precious"
    precious.write_bytes(b"x")
    drafts = root / ".twistedmedia/drafts"
    (drafts / "link").symlink_to(precious)
    (drafts / "folder").mkdir()
    os.mkfifo(drafts / "fifo")
    await start().stop()
    assert precious.read_bytes() == b"x"
    assert sorted(os.listdir(drafts)) == ["fifo", "folder", "link"]


class NoUnnamedFiles(CallsLayer):
    """A file system without O_TMPFILE, or one where such a file cannot be linked."""

    def __init__(self, operation: str, error: int) -> None:
        self._operation = operation
        self._error = error

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        unnamed = operation == "link_descriptor" or (
            operation == "open" and args[1] & os.O_TMPFILE == os.O_TMPFILE
        )
        if unnamed and operation == self._operation:
            raise OSError(self._error, os.strerror(self._error))
        return call()


@asynchronous
@pytest.mark.parametrize(
    ("operation", "error"),
    [
        ("open", errno.EOPNOTSUPP),
        ("open", errno.EISDIR),
        ("open", errno.EINVAL),
        ("link_descriptor", errno.EPERM),
        ("link_descriptor", errno.ENOENT),  # /proc is not mounted
    ],
)
async def test_without_unnamed_files_the_drafts_are_hidden_ones(
    start: Any, root: Path, operation: str, error: int
) -> None:
    store = start(NoUnnamedFiles(operation, error))
    draft = store.begin()
    await draft.append([b"hello"])
    assert len(tree(root)) == 1
    await draft.seal()
    await draft.publish(NAME)
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"hello"}


@asynchronous
async def test_a_file_system_without_hard_links_is_refused_at_the_start(start: Any) -> None:
    calls = FailingCalls()
    with (
        calls.armed(1, errno.EPERM, lambda operation, _: operation == "link"),
        pytest.raises(ConfigurationError),
    ):
        start(calls, kind="directory with hidden drafts")


# The order of operations


def in_order(events: list[str], *expected: str) -> bool:
    """Whether `expected` occur in this order, others between them or not."""
    left = iter(events)
    return all(any(event == each for event in left) for each in expected)


async def recorded_upload(store: Any, calls: RecordingCalls, name: Any) -> list[str]:
    """The events of one upload, and `published` where its Deferred fired."""
    calls.events.clear()
    draft = store.begin()
    await draft.append([b"hel"])
    await draft.append([b"lo"])
    await draft.seal()
    await draft.publish(name).addCallback(lambda _: calls.note("published "))
    await let_go(draft)
    return calls.of("writev", "fsync", "link", "link_descriptor", "mkdir", "published")


@asynchronous
@both_kinds
async def test_a_publish_fires_when_all_is_synced_in_an_order_that_a_crash_cannot_break(
    start: Any, root: Path, kind: str
) -> None:
    """Case 3. The file before its name, its name before its folder's, and only then the answer."""
    calls = RecordingCalls(str(root))
    store = start(calls, kind)
    events = await recorded_upload(store, calls, NAME)
    linked = "link_descriptor a/b/x.mp3" if kind == "directory" else "link a/b/x.mp3"
    assert in_order(events, "writev draft", "fsync draft", linked, "fsync a/b", "published ")
    assert in_order(events, "mkdir a", "fsync .", "published ")
    assert in_order(events, "mkdir a", "mkdir a/b", "fsync a", "published ")
    assert events[-1] == "published "
    assert events.count("writev draft") == 2
    assert max(n for n, event in enumerate(events) if event == "writev draft") < events.index(
        "fsync draft"
    )


@asynchronous
async def test_a_root_that_is_made_is_synced_into_the_folder_above_it(
    start: Any, tmp_path: Path
) -> None:
    """Otherwise a crash can lose the root, and with it every file that was acknowledged."""
    at = tmp_path / "srv/audio/media"
    calls = RecordingCalls(str(at))
    start(calls, at=at)
    synced = {event.removeprefix("fsync ") for event in calls.of("fsync")}
    assert {str(tmp_path), str(tmp_path / "srv"), str(tmp_path / "srv/audio")} <= synced


@asynchronous
async def test_a_delete_fires_when_the_folder_is_synced(start: Any, root: Path) -> None:
    calls = RecordingCalls(str(root))
    store = start(calls)
    await stored(store, NAME)
    await stored(store, named("a/b/y.mp3"))
    calls.events.clear()
    await store.delete(NAME).addCallback(lambda _: calls.note("deleted "))
    assert in_order(calls.events, "unlink a/b/x.mp3", "fsync a/b", "deleted ")
    calls.events.clear()
    await store.delete(named("a/b/y.mp3")).addCallback(lambda _: calls.note("deleted "))
    assert in_order(calls.events, "unlink a/b/y.mp3", "rmdir a/b", "rmdir a", "deleted ")
    assert "fsync ." in calls.events[: calls.events.index("deleted ")]


DEEP = named("/".join("abcdefghijklmnopqrst") + "/x.mp3")
STEPS = 9  # calls of a kind in one step


def longest_step(calls: RecordingCalls, steps: Generator[None, None, Any]) -> int:
    """How many folders are made, removed or synced in the longest of `steps`."""
    most, is_over = 0, False
    while not is_over:
        calls.events.clear()
        is_over = next(steps, STEPS) is not None
        done = [calls.of(kind) for kind in ("mkdir", "rmdir", "fsync")]
        most = max(most, *map(len, done))
    return most


@asynchronous
async def test_folders_of_deep_names_are_made_and_removed_in_steps(start: Any, root: Path) -> None:
    """Case 85. A name can have 511 folders, each with a sync: other callers have their turns."""
    calls = RecordingCalls(str(root))
    store = start(calls)
    content = root / "content"
    content.write_bytes(b"hello")
    identity = content.stat().st_dev, content.stat().st_ino

    def link(filename: str, folder: int) -> None:
        os.link(content, filename, dst_dir_fd=folder)

    assert 1 < longest_step(calls, store._published.place(DEEP, link, identity)) <= STEPS
    assert (root / str(DEEP)).read_bytes() == b"hello"
    calls.events.clear()
    await store.delete(named("a/none.mp3"))  # which changes nothing
    assert 1 < longest_step(calls, store._published.remove(DEEP)) <= STEPS
    assert tree(root) == {"content": b"hello"}


@asynchronous
async def test_all_folders_of_a_deep_name_are_synced_before_the_answer(
    start: Any, root: Path
) -> None:
    """Case 3."""
    calls = RecordingCalls(str(root))
    store = start(calls)
    events = await recorded_upload(store, calls, DEEP)
    path = "."
    for folder in DEEP.folders:
        below = folder if path == "." else f"{path}/{folder}"
        assert in_order(events, f"mkdir {below}", f"fsync {path}", "published ")
        path = below
    assert in_order(events, "fsync draft", f"fsync {path}", "published ")
    await stored(store, named(f"{DEEP.directory}/y.mp3"))
    assert calls.of("mkdir") == [event for event in events if event.startswith("mkdir ")]


@asynchronous
async def test_a_deep_upload_whose_nth_operation_fails_leaves_nothing(
    start: Any, root: Path, nothing_left_behind: list[Any]
) -> None:
    """Case 14."""
    calls = FailingCalls()
    store = start(calls)

    async def upload() -> None:
        draft = store.begin(5)
        try:
            await draft.append([b"hello"])
            await draft.publish(DEEP)
        finally:
            await let_go(draft)

    failed: list[str] = []
    async for operation, came in each_failure(calls, errno.ENOSPC, upload):
        failed.append(operation)
        if isinstance(came, Exception):
            assert isinstance(came, (NoSpace, StorageFailed)), (operation, came)
            assert tree(root) == {}, operation
        only_told(nothing_left_behind)
        await store.delete(DEEP)
    assert failed.count("mkdir") == len(DEEP.folders)
    assert failed.count("fsync") >= len(DEEP.folders)


@asynchronous
async def test_a_deep_delete_of_which_a_removal_fails_is_completed_by_the_next_one(
    start: Any, root: Path
) -> None:
    """Case 14."""
    calls = FailingCalls()
    store = start(calls)

    async def delete() -> None:
        await stored(store, DEEP)
        await store.delete(DEEP)

    failing = calls.armed(1, errno.EIO, lambda operation, _: operation == "rmdir")
    with failing, pytest.raises(StorageFailed):
        await delete()
    assert not (root / str(DEEP)).exists()
    await delete()
    assert tree(root) == {}


@asynchronous
async def test_a_delete_that_removes_folders_does_not_disturb_a_deep_publish(
    start: Any, root: Path
) -> None:
    """Case 14. Folders made by the publish are removed and made again."""
    store = start()
    content = root / "content"
    content.write_bytes(b"hello")

    def link(filename: str, folder: int) -> None:
        os.link(content, filename, dst_dir_fd=folder)

    placing = store._published.place(DEEP, link, (0, 0))
    for _ in range(2):
        next(placing)
    shutil.rmtree(root / "a")
    for _ in placing:
        pass
    assert (root / str(DEEP)).read_bytes() == b"hello"


@asynchronous
async def test_a_deep_upload_that_fails_beside_a_delete_leaves_no_folder(
    start: Any, root: Path
) -> None:
    """The delete ends where the upload has made folders anew. What is above them was the delete's
    to remove.
    """
    store = start()
    await stored(store, DEEP)
    other = named("/".join(DEEP.folders[:14]) + "/y.mp3")

    def link(filename: str, folder: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    removing, placing = store._published.remove(DEEP), store._published.place(other, link, (0, 0))
    next(removing)
    for _ in range(2):
        next(placing)
    for _ in removing:
        pass
    assert (root / other.directory).is_dir()
    with pytest.raises(OSError, match="full"):
        for _ in placing:
            pass
    assert tree(root) == {}


@asynchronous
@both_kinds
async def test_a_store_that_is_not_durable_syncs_nothing(start: Any, root: Path, kind: str) -> None:
    calls = RecordingCalls(str(root))
    store = start(calls, kind, durable=False)
    await recorded_upload(store, calls, NAME)
    assert await content_of(store, NAME) == b"hello"
    await store.delete(NAME)
    assert calls.of("fsync", "start_writeback") == []


class _SlowRecordingCalls(RecordingCalls, SlowCalls):
    """Records those calls that have come back from being held."""

    def __init__(self, root: str) -> None:
        RecordingCalls.__init__(self, root)
        SlowCalls.__init__(self)

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        def held() -> Any:
            return SlowCalls.around(self, operation, call, args)

        return RecordingCalls.around(self, operation, held, args)


@asynchronous
@pytest.mark.parametrize("before", ["never there", "deleted", "removed by hand"])
async def test_a_folder_that_another_upload_made_and_has_not_synced_yet_is_synced(
    start: Any, root: Path, before: str
) -> None:
    calls = _SlowRecordingCalls(str(root))
    store = start(calls)
    await stored(store, named("other/x.mp3"))
    if before != "never there":
        await stored(store, named("new/0.mp3"))
    if before == "deleted":
        await store.delete(named("new/0.mp3"))
    if before == "removed by hand":
        shutil.rmtree(root / "new")
    first = store.begin()
    await first.append([b"first"])
    await first.seal()

    def is_root(fd: int, _: Any) -> bool:
        return os.path.samestat(os.fstat(fd), os.stat(root))

    held = calls.hold("fsync", where=is_root)
    publishing = first.publish(named("new/1.mp3"))
    await held  # `new` exists, and is not synced
    calls.events.clear()
    await stored(store, named("new/2.mp3"))
    synced = "fsync ." in calls.events
    calls.release()
    await publishing
    assert synced


@asynchronous
async def test_a_folder_that_was_removed_by_hand_is_synced_when_it_is_made_again(
    start: Any, root: Path
) -> None:
    calls = RecordingCalls(str(root))
    store = start(calls)
    await stored(store, NAME)
    shutil.rmtree(root / "a")
    events = await recorded_upload(store, calls, NAME)
    assert in_order(events, "mkdir a", "fsync .", "published ")
    assert in_order(events, "mkdir a/b", "fsync a", "published ")


@asynchronous
async def test_a_folder_that_went_and_came_again_is_synced_again(start: Any, root: Path) -> None:
    calls = RecordingCalls(str(root))
    store = start(calls)
    for _ in range(3):
        events = await recorded_upload(store, calls, NAME)
        assert in_order(events, "mkdir a", "fsync .", "published ")
        assert in_order(events, "mkdir a/b", "fsync a", "published ")
        await store.delete(NAME)


@asynchronous
async def test_a_slow_sync_holds_up_no_other_upload_that_writes(start: Any) -> None:
    """Case 29."""
    calls = SlowCalls()
    store = start(calls)  # of three threads
    drafts = [store.begin() for _ in range(5)]
    await gatherResults([draft.append([b"x"]) for draft in drafts])
    held = calls.hold("fsync", times=2)
    sealing = [draft.seal() for draft in drafts]
    await held
    writer = store.begin()
    await writer.append([b"y"])
    writer.discard()
    calls.release()
    await gatherResults(sealing)
    for draft in drafts:
        draft.discard()


@asynchronous
async def test_slow_writes_hold_up_no_reader(start: Any) -> None:
    """Cases 26 and 29."""
    calls = SlowCalls()
    store = start(calls)
    await stored(store, NAME, b"hello")
    held = calls.hold("writev", times=3)
    drafts = [store.begin() for _ in range(10)]
    writing = [draft.append([b"x"]) for draft in drafts]
    await held
    assert await content_of(store, NAME) == b"hello"
    calls.release()
    await gatherResults(writing)
    for draft in drafts:
        draft.discard()


# Errors of the file system


@asynchronous
@both_kinds
@pytest.mark.parametrize("most", [1, 7, 1000])
async def test_a_write_that_takes_only_a_part_is_continued(
    start: Any, kind: str, most: int
) -> None:
    """Case 10."""
    content = bytes(range(256)) * 8
    store = start(ShortWrites(most), kind)
    published = await stored(store, NAME, (content[n : n + 100] for n in range(0, 2048, 100)))
    assert published.size == 2048
    assert published.sha256 == hashlib.sha256(content).hexdigest()
    assert await content_of(store, NAME) == content


@asynchronous
@pytest.mark.parametrize(
    ("operation", "error", "ours"),
    [
        ("writev", errno.ENOSPC, NoSpace),
        ("writev", errno.EDQUOT, NoSpace),
        ("writev", errno.EFBIG, TooLarge),
        ("fsync", errno.ENOSPC, NoSpace),
        ("fsync", errno.EDQUOT, NoSpace),
        ("mkdir", errno.ENOSPC, NoSpace),
        ("mkdir", errno.EDQUOT, NoSpace),
        ("link_descriptor", errno.ENOSPC, NoSpace),
        ("link_descriptor", errno.EDQUOT, NoSpace),
        ("open", errno.ENOSPC, NoSpace),  # no inodes
        ("mkdir", errno.ENAMETOOLONG, NameNotAllowed),
        ("writev", errno.EIO, StorageFailed),
        ("fsync", errno.EIO, StorageFailed),
        ("mkdir", errno.EROFS, StorageFailed),
        ("link_descriptor", errno.ESTALE, StorageFailed),
        ("mkdir", errno.EACCES, StorageFailed),
        ("writev", errno.EINVAL, OSError),  # a fault stays a fault
        ("open", errno.EMFILE, Busy),
        ("open", errno.ENFILE, Busy),
    ],
)
async def test_an_error_of_the_file_system_is_translated_or_is_a_defect(
    start: Any, root: Path, operation: str, error: int, ours: type[Exception]
) -> None:
    """Cases 10 and 14."""
    calls = FailingCalls()
    store = start(calls)
    with calls.armed(1, error, lambda each, _: each == operation), pytest.raises(ours):
        await stored(store, NAME)
    assert calls.failed == operation
    assert await stored(store, NAME)


@asynchronous
@pytest.mark.parametrize("blocks", [0, 1])
async def test_a_probe_of_space_that_returns_nonsense_refuses_nothing(
    start: Any, blocks: int
) -> None:
    """Case 12: some file systems say that they have no blocks at all."""

    class Nonsense(CallsLayer):
        def statvfs(self, fd: int) -> os.statvfs_result:
            return os.statvfs_result((4096, 4096, blocks, 0, 0, 0, 0, 0, 0, 255))

    draft = start(Nonsense()).begin(100)
    if blocks:  # a file system that knows its size, and is full
        with pytest.raises(NoSpace):
            await draft.prepare(NAME)
    else:
        await draft.prepare(NAME)
    draft.discard()


@asynchronous
async def test_many_uploads_that_only_together_exceed_the_disk_are_refused_in_time(
    start: Any, root: Path
) -> None:
    """Case 11."""
    store = start(SmallDisk(str(root), 1000))
    outcomes = []
    drafts = [store.begin(300) for _ in range(5)]
    for n, draft in enumerate(drafts):
        preparing = draft.prepare(named(f"a/{n}.mp3"))
        outcomes.append(await DeferredList([preparing], consumeErrors=True))
    for draft in drafts:
        await let_go(draft)
    refused = [outcome for ((fits, outcome),) in outcomes if not fits]
    assert refused
    assert all(outcome.check(NoSpace) for outcome in refused)


ERRORS = [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS]
CLEANING = {"close", "unlink", "rmdir"}


async def one_upload(store: Any) -> None:
    """A whole upload, every step of it, into two folders that are new."""
    draft = store.begin(5)
    try:
        await draft.prepare(NAME)
        await draft.append([b"hel", b"lo"])
        await draft.seal()
        await draft.publish(NAME)
    except BaseException:
        await let_go(draft)
        raise
    await let_go(draft)


def only_told(logged: list[Any]) -> None:
    """What was logged as critical is what the store says itself, and no Deferred's failure that
    nobody handled.
    """
    gc.collect()
    namespaces = {event["log_namespace"] for event in logged}
    assert all(namespace.startswith("twistedmedia.") for namespace in namespaces), logged
    logged.clear()


@asynchronous
@both_kinds
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
async def test_an_upload_whose_nth_operation_fails_leaves_nothing_and_the_next_one_works(
    start: Any, root: Path, kind: str, error: int, nothing_left_behind: list[Any]
) -> None:
    """Cases 5, 10, 14 and 25. The failure is raised, unless it happened in cleaning up: then the
    file is there whole.
    """
    calls = FailingCalls()
    store = start(calls, kind)
    failed: list[str] = []
    wrong: list[str] = []
    for nth in range(1, 200):
        before = descriptors()
        raised = None
        with calls.armed(nth, error):
            try:
                await one_upload(store)
            except Exception as failure:  # noqa: BLE001  # which one, is asked below
                raised = failure
        if calls.failed is None:
            assert raised is None
            break
        failed.append(calls.failed)
        left = tree(root)
        drafts = {path for path in left if path.startswith(".twistedmedia/drafts/")}
        stands = left.get("a/b/x.mp3")
        expected = {
            "raised as what it is": raised is None or isinstance(raised, (OSError, MediaError)),
            "raised": raised is not None or (calls.failed in CLEANING and stands == b"hello"),
            "no name": raised is None or stands is None,
            "no folder": stands is not None or not left.keys() - drafts,
            "no draft": not drafts or calls.failed == "unlink",
            "no descriptor": descriptors() == before,
        }
        wrong += [
            f"operation {nth}, {calls.failed}: {raised!r}: not so: {what}"
            for what, so in expected.items()
            if not so
        ]
        for draft in drafts:
            (root / draft).unlink()
        await store.delete(NAME)
        if not wrong:
            only_told(nothing_left_behind)
        await one_upload(store)
        assert await content_of(store, NAME) == b"hello"
        await store.delete(NAME)
        assert tree(root) == {}
    else:
        pytest.fail("it never came to an end")
    assert not wrong
    assert {"open", "writev", "fsync", "mkdir", "fstat", "statvfs"} <= set(failed)
    assert {"link", "link_descriptor"} & set(failed)


@asynchronous
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
async def test_a_delete_whose_nth_operation_fails_leaves_the_file_whole_or_gone(
    start: Any, root: Path, error: int, nothing_left_behind: list[Any]
) -> None:
    """Case 14."""
    calls = FailingCalls()
    store = start(calls)
    failed: list[str] = []
    wrong: list[str] = []
    for nth in range(1, 100):
        await stored(store, NAME, b"hello")
        before = descriptors()
        deleted, raised = None, None
        with calls.armed(nth, error):
            try:
                deleted = await store.delete(NAME)
            except MediaError as failure:
                raised = errno_of(failure)
        if calls.failed is None:
            break
        failed.append(calls.failed)
        stands = tree(root).get("a/b/x.mp3")
        expected = {
            "raised as what it is": raised in (None, error),
            "whole or gone": stands in (None, b"hello"),
            "gone when that was said": stands is None or not deleted,
            "there when that was said": stands is not None or deleted is not False,
            "no descriptor": descriptors() == before,
        }
        wrong += [
            f"operation {nth}, {calls.failed}: not so: {what}"
            for what, so in expected.items()
            if not so
        ]
        # Folders that a failed clean-up has left go with the next file that does.
        await store.delete(NAME)
        await stored(store, named("a/b/y.mp3"))
        assert await store.delete(named("a/b/y.mp3"))
        assert tree(root) == {}
    else:
        pytest.fail("it never came to an end")
    assert not wrong
    only_told(nothing_left_behind)
    assert {"open", "lstat", "unlink", "fsync", "rmdir"} <= set(failed)


@asynchronous
@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE], ids=errno.errorcode.get)
async def test_a_read_whose_nth_operation_fails_fails_and_leaves_no_descriptor(
    start: Any, error: int, nothing_left_behind: list[Any]
) -> None:
    """Case 25."""
    calls = FailingCalls()
    store = start(calls)
    await stored(store, NAME, b"hello")
    failed: list[str] = []
    wrong: list[str] = []
    for nth in range(1, 100):
        before = descriptors()
        raised, read = None, False
        with calls.armed(nth, error):
            try:
                media = await store.open(NAME)
                try:
                    read = await media.read(0, 100) == b"hello"
                finally:
                    await closed(media)
            except OSError as failure:
                raised = failure
        if calls.failed is None:
            break
        failed.append(calls.failed)
        if raised is None and not read:
            wrong.append(f"operation {nth}, {calls.failed}: not raised")
        if descriptors() != before:
            wrong.append(f"operation {nth}, {calls.failed}: a descriptor is left")
    else:
        pytest.fail("it never came to an end")
    assert not wrong
    only_told(nothing_left_behind)
    assert {"open_cached", "fstat", "read_cached"} <= set(failed)
    assert await content_of(store, NAME) == b"hello"


class NoClosing(CallsLayer):
    """To close a file that was written to fails, and its bytes may not be kept: so do network file
    systems with a quota (close(2)).
    """

    def __init__(self) -> None:
        self._written: set[int] = set()  # inodes

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if operation == "writev":
            self._written.add(os.fstat(args[0]).st_ino)
        if operation == "close" and os.fstat(args[0]).st_ino in self._written:
            call()
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return call()


@asynchronous
@both_kinds
async def test_without_syncs_a_failed_close_fails_the_upload(
    start: Any, root: Path, kind: str, nothing_left_behind: list[Any]
) -> None:
    """Case 5."""
    store = start(NoClosing(), kind, durable=False)
    with pytest.raises((NoSpace, OSError)):
        await stored(store, NAME)
    await store.stop()
    assert tree(root) == {}
    only_told(nothing_left_behind)


@asynchronous
@both_kinds
async def test_a_synced_file_is_stored_even_if_it_cannot_be_closed(
    start: Any, root: Path, kind: str, nothing_left_behind: list[Any]
) -> None:
    """Case 5."""
    store = start(NoClosing(), kind)
    await stored(store, NAME, b"hello")
    await store.stop()
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"hello"}
    only_told(nothing_left_behind)


# Deletes and uploads in one folder


@asynchronous
@both_kinds
async def test_deletes_that_empty_a_folder_never_cost_an_upload_to_it(
    start: Any, root: Path, kind: str
) -> None:
    """Case 30: no upload fails, and what was acknowledged is there."""
    store = start(kind=kind, threads=6, durable=False)
    for n in range(60):
        going = [named(f"a/b/c/going-{each}.mp3") for each in range(4)]
        coming = [named(f"a/b/c/coming-{each}.mp3") for each in range(4)]
        for name in going:
            await stored(store, name)
        drafts = [store.begin() for _ in coming]
        for each in drafts:
            await each.append([b"%d" % n])
            await each.seal()
        work: list[Deferred[Any]] = []
        for draft, old, new in zip(drafts, going, coming, strict=True):
            work += [store.delete(old), draft.publish(new)]
        await gatherResults(work, consumeErrors=True)
        for name in coming:
            assert await content_of(store, name) == b"%d" % n
            assert await store.delete(name)
        assert tree(root) == {}


class _DeletingCalls(CallsLayer):
    """Removes the folder of an upload right before the file is linked into it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.times = 0

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if operation in ("link", "link_descriptor") and args[-2] == "x.mp3" and self.times < 5:
            self.times += 1
            (self._root / "a/b").rmdir()
            (self._root / "a").rmdir()
        return call()


@asynchronous
@both_kinds
async def test_a_folder_that_goes_before_the_link_is_made_again(
    start: Any, root: Path, kind: str
) -> None:
    """Case 30."""
    calls = _DeletingCalls(root)
    await stored(start(calls, kind), NAME, b"hello")
    assert calls.times == 5
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"hello"}


class SyncFailsOnce(SlowCalls):
    """The next sync of one folder fails."""

    folder: int | None = None  # its inode

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if operation == "fsync" and os.fstat(args[0]).st_ino == self.folder:
            self.folder = None
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().around(operation, call, args)


@asynchronous
async def test_an_upload_that_fails_late_removes_its_own_name_and_no_other(
    start: Any, root: Path
) -> None:
    """Its file could be seen, so somebody may delete it before it is taken back, and the name be
    another's, whose success was raised.
    """
    calls = SyncFailsOnce()
    store = start(calls, threads=5)
    await stored(store, named("a/b/other.mp3"))
    calls.folder = (root / "a" / "b").stat().st_ino
    held = calls.hold("unlink")
    failing = ensureDeferred(stored(store, NAME, b"fails"))
    await held
    following = ensureDeferred(deleted_and_stored(store, NAME, b"another"))
    for n in range(3):  # meanwhile it comes as far as it can
        await stored(store, named(f"a/b/{n}.mp3"))
    calls.release()
    with pytest.raises(StorageFailed, match="cannot be written: input/output error"):
        await failing
    await following
    assert await content_of(store, NAME) == b"another"


async def deleted_and_stored(store: Any, name: Any, content: bytes) -> None:
    await store.delete(name)
    await stored(store, name, content)


class GoneForEver(CallsLayer):
    """Whatever folder is made, it is gone when something is put into it."""

    links = 0

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if operation in ("link", "link_descriptor") and args[-2] == "x.mp3":
            self.links += 1
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return call()


@asynchronous
@both_kinds
async def test_a_folder_that_is_removed_again_and_again_fails_in_the_end(
    start: Any, root: Path, kind: str
) -> None:
    calls = GoneForEver()
    store = start(calls, kind)
    draft = store.begin()
    with pytest.raises(FileNotFoundError):
        await draft.publish(NAME)
    await let_go(draft)
    assert 10 < calls.links < 1000
    assert tree(root) == {}


@asynchronous
async def test_a_limited_number_of_synced_folders_is_remembered(
    start: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forgotten folder is only synced once more."""
    monkeypatch.setattr("twistedmedia.store.local.folders._SYNCED_AT_MOST", 5)
    calls = RecordingCalls(str(root))
    store = start(calls)
    for n in range(10):
        await stored(store, named(f"{n}/x.mp3"))
    calls.events.clear()
    await stored(store, named("9/y.mp3"))
    assert calls.of("fsync") == ["fsync draft", "fsync 9"]
    calls.events.clear()
    await stored(store, named("0/y.mp3"))
    assert calls.of("fsync") == ["fsync draft", "fsync 0", "fsync ."]


@asynchronous
@pytest.mark.parametrize("durable", [True, False])
async def test_a_large_file_is_written_out_while_it_arrives(
    start: Any, root: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    """So that the last sync is short. This is not needed if nothing is synced."""
    monkeypatch.setattr("twistedmedia.store.local.drafts._WRITEBACK_BYTES", 100_000)
    calls = RecordingCalls(str(root))
    store = start(calls, durable=durable)
    draft = store.begin()
    for _ in range(5):
        await draft.append([bytes(60_000)])
    await draft.publish(NAME)
    assert calls.of("start_writeback") == ["start_writeback draft"] * 2 * durable
    assert await content_of(store, NAME) == bytes(300_000)


class DuringSync(RecordingCalls):
    """Does something while the root is synced for the first time from when it is set."""

    meanwhile: Callable[[], None] | None = None

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        doing = self.meanwhile
        if doing is not None and operation == "fsync" and self._what(operation, args) == ".":
            self.meanwhile = None
            doing()
        return super().around(operation, call, args)


@asynchronous
async def test_a_folder_removed_and_made_again_during_a_sync_does_not_count_as_synced(
    start: Any, root: Path
) -> None:
    """The sync was of the old folder. An upload into the new one has to sync that."""
    calls = DuringSync(str(root))
    store = start(calls)

    def go_and_come() -> None:
        with pytest.raises(StopIteration, match="True"):  # it is one step
            next(store._published.remove(named("a/x.mp3")))
        (root / "a").mkdir()

    calls.meanwhile = go_and_come
    await stored(store, named("a/x.mp3"))
    assert calls.meanwhile is None
    calls.events.clear()
    await stored(store, named("a/y.mp3"))
    assert calls.of("fsync") == ["fsync draft", "fsync a", "fsync ."]

"""Replacements: a file replaces another in one step, if the precondition holds."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, DeferredList, ensureDeferred
from twisted.internet.threads import deferToThread

from tests.store.local.faults import (
    CallsLayer,
    FailingCalls,
    RecordingCalls,
    SlowCalls,
    SwappingCalls,
    descriptors,
    each_failure,
    errno_of,
    tree,
)
from tests.store.local.test_directory import CLEANING, ERRORS, both_kinds, only_told
from tests.store.test_contract import closed, content_of, holds, let_go, stored
from tests.support import asynchronous, named
from twistedmedia.errors import (
    MediaError,
    NameConflict,
    NoSpace,
    PreconditionFailed,
    StorageFailed,
)
from twistedmedia.store.interface import StoredFile
from twistedmedia.store.preconditions import ANY, Precondition
from twistedmedia.store.validators import etag_of

NAME = named("a/b/x.mp3")


ALWAYS = Precondition()


def only(etag: str) -> Precondition:
    """The precondition that a file has this tag."""
    return Precondition(if_match=frozenset({etag}))


async def replaced(store: Any, name: Any, content: bytes, precondition: Precondition) -> StoredFile:
    """Replace the file `name` by `content`."""
    draft = store.begin()
    try:
        await draft.append([content])
        published: StoredFile = await draft.publish(name, precondition)
        return published
    finally:
        await let_go(draft)


@asynchronous
async def test_a_file_for_which_the_precondition_holds_is_replaced(store: Any) -> None:
    first = await stored(store, NAME, b"first")
    second = await replaced(store, NAME, b"second", only(first.etag))
    assert second.etag != first.etag
    media = await store.open(NAME)
    assert (media.etag, await media.read(0, 10)) == (second.etag, b"second")
    await closed(media)


@asynchronous
async def test_a_file_for_which_it_does_not_hold_stays(store: Any) -> None:
    await stored(store, NAME, b"first")
    with pytest.raises(PreconditionFailed):
        await replaced(store, NAME, b"second", only('"another"'))
    assert await content_of(store, NAME) == b"first"


@asynchronous
@pytest.mark.parametrize("name", ["a/b/absent.mp3", "a/absent/x.mp3", "a/b/x.mp3/y.mp3"])
async def test_a_missing_file_is_not_replaced(store: Any, name: str) -> None:
    await stored(store, NAME)
    with pytest.raises(PreconditionFailed):
        await replaced(store, named(name), b"second", ALWAYS)
    assert not await holds(store, named(name))


@asynchronous
async def test_a_directory_is_not_replaced(store: Any) -> None:
    await stored(store, NAME)
    with pytest.raises(NameConflict):
        await replaced(store, named("a/b"), b"second", ALWAYS)


@asynchronous
async def test_preparing_a_replacement_finds_out_what_publishing_would(store: Any) -> None:
    first = await stored(store, NAME)
    draft = store.begin()
    await draft.prepare(NAME, only(first.etag))
    with pytest.raises(PreconditionFailed):
        await draft.prepare(NAME, only('"another"'))
    with pytest.raises(PreconditionFailed):
        await draft.prepare(named("a/absent/x.mp3"), ALWAYS)
    with pytest.raises(NameConflict):
        await draft.prepare(named("a/b"), ALWAYS)
    await let_go(draft)


@asynchronous
async def test_one_of_many_replacements_of_the_same_version_wins(store: Any) -> None:
    for _ in range(5):
        first = await stored(store, NAME, b"first")
        contents = [b"content %d" % n for n in range(8)]
        outcomes = await DeferredList(
            [
                ensureDeferred(replaced(store, NAME, content, only(first.etag)))
                for content in contents
            ],
            consumeErrors=True,
        )
        won = [contents[n] for n, (success, _) in enumerate(outcomes) if success]
        lost = [failure.type for success, failure in outcomes if not success]
        assert len(won) == 1
        assert lost == [PreconditionFailed] * 7
        assert await content_of(store, NAME) == won[0]
        assert await store.delete(NAME)


@asynchronous
async def test_versions_of_one_size_that_follow_at_once_have_tags_of_their_own(store: Any) -> None:
    """The clock of a file system can stand still for milliseconds."""
    first = await stored(store, NAME, b"0000")
    tags = {first.etag}
    for n in range(50):
        tags.add((await replaced(store, NAME, b"%04d" % n, ALWAYS)).etag)
    assert len(tags) == 51


@asynchronous
async def test_a_reader_keeps_the_version_that_it_opened(store: Any) -> None:
    """Case 30."""
    await stored(store, NAME, b"first" * 50_000)
    media = await store.open(NAME)
    await replaced(store, NAME, b"second", ALWAYS)
    assert await media.read(249_990, 100) == b"firstfirst"
    await closed(media)
    assert await content_of(store, NAME) == b"second"


@asynchronous
@pytest.mark.parametrize(("tag", "deleted"), [("its own", True), ("another", False)])
async def test_a_delete_with_a_precondition(store: Any, tag: str, deleted: bool) -> None:
    published = await stored(store, NAME)
    precondition = only(published.etag if tag == "its own" else '"another"')
    if deleted:
        assert await store.delete(NAME, precondition) is True
    else:
        with pytest.raises(PreconditionFailed):
            await store.delete(NAME, precondition)
    assert await holds(store, NAME) is not deleted


@asynchronous
@pytest.mark.parametrize(
    ("precondition", "allowed"),
    [
        (ALWAYS, True),
        (Precondition(if_match=frozenset({ANY})), True),
        (Precondition(if_match=frozenset()), False),
        (Precondition(if_none_match=frozenset({ANY})), False),
        (Precondition(if_none_match=frozenset({'"another"'})), True),
        (Precondition(unmodified_since_s=10**11), True),
        (Precondition(unmodified_since_s=0), False),
    ],
    ids=str,
)
async def test_every_part_of_a_precondition_decides(
    store: Any, precondition: Precondition, allowed: bool
) -> None:
    await stored(store, NAME)
    for change in (
        lambda: ensureDeferred(replaced(store, NAME, b"second", precondition)),
        lambda: store.delete(NAME, precondition),
    ):
        if allowed:
            assert await change()
        else:
            with pytest.raises(PreconditionFailed):
                await change()
    assert await holds(store, NAME) is not allowed


@asynchronous
@pytest.mark.parametrize("name", ["a/b/absent.mp3", "a/absent/x.mp3", "a/b/x.mp3/y.mp3"])
async def test_only_if_match_forbids_to_delete_a_file_that_does_not_exist(
    store: Any, name: str
) -> None:
    await stored(store, NAME)
    for holds_without in (
        ALWAYS,
        Precondition(if_none_match=frozenset({ANY})),
        Precondition(unmodified_since_s=-1),
    ):
        assert await store.delete(named(name), holds_without) is False
    for if_match in (frozenset[str](), frozenset({ANY}), frozenset({'"tag"'})):
        with pytest.raises(PreconditionFailed):
            await store.delete(named(name), Precondition(if_match=if_match))


# On a disk


@asynchronous
@both_kinds
async def test_a_replacement_leaves_nothing_but_the_new_file(
    start: Any, root: Path, kind: str
) -> None:
    store = start(None, kind)
    await stored(store, NAME, b"first")
    await replaced(store, NAME, b"second", ALWAYS)
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"second"}
    with pytest.raises(PreconditionFailed):
        await replaced(store, NAME, b"third", only('"another"'))
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"second"}


@asynchronous
async def test_a_replacement_fires_when_its_name_is_synced(start: Any, root: Path) -> None:
    calls = RecordingCalls(str(root))
    store = start(calls)
    await stored(store, NAME, b"first")
    calls.events.clear()
    await replaced(store, NAME, b"second", ALWAYS)
    calls.note("done")
    assert calls.of("writev", "fsync", "link_descriptor", "link", "rename", "unlink", "done") == [
        "writev draft",
        "fsync draft",
        "link_descriptor draft",
        "link draft",  # the old one, for as long as it may be needed
        "rename a/b/x.mp3",
        "fsync a/b",
        "unlink draft",
        "done",
    ]


@asynchronous
async def test_only_a_regular_file_is_replaced(start: Any, root: Path) -> None:
    """Case 33."""
    store = start()
    await stored(store, NAME)
    (root / "a" / "b" / "link.mp3").symlink_to("x.mp3")
    with pytest.raises(PreconditionFailed):
        await replaced(store, named("a/b/link.mp3"), b"second", ALWAYS)
    assert await content_of(store, NAME) == b"content"


@asynchronous
async def test_a_delete_waits_for_a_replacement_of_its_name(start: Any, root: Path) -> None:
    """Between the check and the rename the file must not be removed: the precondition would not
    hold.
    """
    calls = SlowCalls()
    store = start(calls)
    first = await stored(store, NAME, b"first")
    held = calls.hold("rename")
    replacing = ensureDeferred(replaced(store, NAME, b"second", only(first.etag)))
    await held
    deleting = store.delete(NAME, only(first.etag))
    calls.release()
    assert (await replacing).size == 6
    with pytest.raises(PreconditionFailed):
        await deleting
    assert await content_of(store, NAME) == b"second"


@asynchronous
@both_kinds
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
async def test_a_replacement_whose_nth_operation_fails_leaves_one_version_whole(
    start: Any, root: Path, kind: str, error: int, nothing_left_behind: list[Any]
) -> None:
    """Cases 5, 10, 14 and 25."""
    calls = FailingCalls()
    store = start(calls, kind)
    failed: list[str] = []
    wrong: list[str] = []
    for nth in range(1, 200):
        first = await stored(store, NAME, b"first")
        before = descriptors()
        raised = None
        with calls.armed(nth, error):
            try:
                await replaced(store, NAME, b"second", only(first.etag))
            except Exception as failure:  # noqa: BLE001  # which one, is asked below
                raised = failure
        if calls.failed is None:
            assert raised is None
            break
        failed.append(calls.failed)
        left = tree(root)
        drafts = {path for path in left if path.startswith(".twistedmedia/drafts/")}
        expected = {
            "raised as what it is": raised is None or isinstance(raised, (OSError, MediaError)),
            "raised": raised is not None or calls.failed in CLEANING,
            "as it was when raised": raised is None or left["a/b/x.mp3"] == b"first",
            "replaced when not": raised is not None or left["a/b/x.mp3"] == b"second",
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
        assert tree(root) == {}
    else:
        pytest.fail("it never came to an end")
    assert not wrong
    only_told(nothing_left_behind)
    assert {"rename", "link", "fsync", "lstat"} <= set(failed)


@asynchronous
@both_kinds
@pytest.mark.parametrize(
    ("error", "raised"),
    [(errno.EIO, StorageFailed), (errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace)],
)
async def test_a_folder_that_cannot_be_synced_has_the_old_version_again(
    start: Any, root: Path, kind: str, error: int, raised: type[Exception]
) -> None:
    """Cases 10 and 14. The tag is the old one as well, so the client can try again."""
    calls = FailingCalls()
    store = start(calls, kind)
    first = await stored(store, NAME, b"first")
    folder = (root / "a" / "b").stat().st_ino

    def is_its_sync(operation: str, args: tuple[Any, ...]) -> bool:
        return operation == "fsync" and os.fstat(args[0]).st_ino == folder

    with calls.armed(1, error, is_its_sync), pytest.raises(raised):
        await replaced(store, NAME, b"second", only(first.etag))
    assert calls.failed == "fsync"
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"first"}
    await replaced(store, NAME, b"third", only(first.etag))
    assert await content_of(store, NAME) == b"third"


@asynchronous
@both_kinds
async def test_an_undo_that_fails_too_leaves_one_version_whole(
    start: Any, root: Path, kind: str, nothing_left_behind: list[Any]
) -> None:
    """Case 14. All calls fail, beginning with the sync of the folder."""
    calls = FromThenOn("fsync", 2)
    store = start(calls, kind)
    await stored(store, NAME, b"first")
    calls.arm()
    with pytest.raises(StorageFailed, match="input/output error"):
        await replaced(store, NAME, b"second", ALWAYS)
    calls.disarm()
    left = tree(root)
    assert left["a/b/x.mp3"] == b"second"
    await store.stop()
    assert await content_of(start(kind=kind), NAME) == b"second"
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"second"}, "the rest is swept"
    only_told(nothing_left_behind)


class FromThenOn(CallsLayer):
    """Once armed, fails with EIO in the nth call of an operation, and in every call after it."""

    def __init__(self, operation: str, nth: int) -> None:
        self._operation = operation
        self._nth = nth
        self._left: int | None = None

    def arm(self) -> None:
        self._left = self._nth

    def disarm(self) -> None:
        self._left = None

    def around(self, operation: str, call: Any, args: tuple[Any, ...]) -> Any:
        if self._left is not None:
            self._left -= operation == self._operation and self._left > 0
            if self._left == 0:
                if operation == "close":
                    call()
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return call()


class NotOurs(CallsLayer):
    """The stored files are another user's, who may not be linked to (proc(5), protected_hardlinks);
    with `sync_fails`, their folders cannot be synced either.
    """

    sync_fails = False

    def around(self, operation: str, call: Any, args: tuple[Any, ...]) -> Any:
        if operation == "link" and args[0] == "x.mp3":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        if operation == "fsync" and self.sync_fails and stat.S_ISDIR(os.fstat(args[0]).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return call()


@asynchronous
@both_kinds
async def test_a_file_of_another_user_is_replaced_as_it_would_be_deleted(
    start: Any, root: Path, kind: str
) -> None:
    """An administrator has put it there. Write permission for the folder suffices."""
    calls = NotOurs()
    store = start(calls, kind)
    first = await stored(store, NAME, b"first")
    await replaced(store, NAME, b"second", only(first.etag))
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"second"}
    calls.sync_fails = True
    with pytest.raises(StorageFailed, match="input/output error"):
        await replaced(store, NAME, b"third", ALWAYS)
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"third"}


@asynchronous
async def test_the_folders_above_a_replaced_file_are_synced_before_it_is(
    start: Any, root: Path
) -> None:
    """Another upload, or an administrator, has made them and not synced them yet: without them a
    crash would take what is acknowledged here.
    """
    calls = RecordingCalls(str(root))
    store = start(calls)
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "x.mp3").write_bytes(b"first")
    calls.events.clear()
    await replaced(store, NAME, b"second", ALWAYS)
    events = calls.of("fsync", "rename")
    assert set(events[:-2]) == {"fsync draft", "fsync .", "fsync a"}
    assert events[-2:] == ["rename a/b/x.mp3", "fsync a/b"]


@asynchronous
@both_kinds
async def test_a_new_version_has_the_permissions_of_a_new_file(
    start: Any, root: Path, kind: str
) -> None:
    """Whatever the old one had, or the umask was."""
    store = start(kind=kind)
    before = os.umask(0o027)
    try:
        await stored(store, NAME, b"first")
        (root / "a/b/x.mp3").chmod(0o600)
        await replaced(store, NAME, b"second", ALWAYS)
    finally:
        os.umask(before)
    status = (root / "a/b/x.mp3").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o640, 1)


@asynchronous
@both_kinds
async def test_a_reader_always_finds_a_version_while_they_change(
    start: Any, root: Path, kind: str
) -> None:
    """Case 30. Renaming is one step: a name is never without its file."""
    store = start(kind=kind)
    await stored(store, NAME, b"0" * 100)
    path, ended, seen = root / "a" / "b" / "x.mp3", threading.Event(), set()

    def read() -> None:
        while not ended.is_set():
            seen.add(path.read_bytes())

    reading = deferToThread(read)
    n = 0
    try:
        while n < 40 or len(seen) < 2:  # the thread may not run for a while
            n += 1
            await replaced(store, NAME, b"%d" % (n % 10) * 100, ALWAYS)
    finally:
        ended.set()
    await reading
    assert seen <= {b"%d" % n * 100 for n in range(10)}


@asynchronous
async def test_a_missing_drafts_folder_is_reported_and_not_as_a_failed_precondition(
    start: Any, root: Path
) -> None:
    """Case 79: an administrator has removed it."""
    store = start()
    first = await stored(store, NAME, b"first")
    (root / ".twistedmedia" / "drafts").rmdir()
    with pytest.raises(StorageFailed, match=r"a folder in \.twistedmedia was removed"):
        await replaced(store, NAME, b"second", only(first.etag))
    assert await content_of(store, NAME) == b"first"


@asynchronous
@both_kinds
async def test_a_file_removed_by_hand_during_a_replacement_fails_the_precondition(
    start: Any, root: Path, kind: str
) -> None:
    calls = SwappingCalls()
    store = start(calls, kind)
    outcomes = set()
    for nth in range(1, 100):
        first = await stored(store, NAME, b"first")
        draft = store.begin()
        await draft.append([b"second"])
        await draft.seal()
        calls.before(nth, lambda: (root / "a" / "b" / "x.mp3").unlink())
        try:
            await draft.publish(NAME, only(first.etag))
            outcomes.add("replaced")
        except PreconditionFailed:
            outcomes.add("another")
        swapped = calls.swapped
        calls.disarm()
        await let_go(draft)
        left = set(tree(root))
        assert left <= {"a", "a/b", "a/b/x.mp3"}
        (root / "a" / "b" / "x.mp3").unlink(missing_ok=True)
        (root / "a" / "b").rmdir()
        if not swapped:
            break
    else:
        pytest.fail("it never came to an end")
    assert outcomes == {"replaced", "another"}


@asynchronous
async def test_the_remains_of_a_crashed_replacement_are_swept(start: Any, root: Path) -> None:
    """Case 3. Between the rename and the end both links of the old version may still be there."""
    store = start()
    await stored(store, NAME, b"second")
    await store.stop()
    (root / ".twistedmedia" / "drafts" / ("0" * 32)).write_bytes(b"first")
    store = start()
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"second"}


LEFT = "0" * 32


class ReadOnly(CallsLayer):
    """The remains cannot be opened for writing. As root, which may run this test, any file can."""

    def around(self, operation: str, call: Any, args: tuple[Any, ...]) -> Any:
        if operation == "open" and args[0] == LEFT and args[1] & os.O_ACCMODE == os.O_WRONLY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return call()


@asynchronous
async def test_the_remains_of_a_read_only_file_are_swept(start: Any, root: Path) -> None:
    """The old version was read-only. A link to it is kept for an undo."""
    await start().stop()
    left = root / ".twistedmedia" / "drafts" / LEFT
    left.write_bytes(b"first")
    left.chmod(0o444)
    start(ReadOnly())
    assert not left.exists()


@asynchronous
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
async def test_a_conditional_delete_whose_nth_operation_fails_leaves_the_file_whole_or_gone(
    start: Any, root: Path, error: int
) -> None:
    """Cases 14 and 25. An error of the disk is not reported as a failed precondition."""
    calls = FailingCalls()
    store = start(calls)
    path = root / "a" / "b" / "x.mp3"
    failed = []

    def put_there() -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"first")
        return etag_of(5, path.stat().st_mtime_ns)

    async for operation, came in each_failure(
        calls, error, lambda: store.delete(NAME, only(put_there()))
    ):
        failed.append(operation)
        stands = tree(root).get("a/b/x.mp3")
        if isinstance(came, Exception):
            assert (errno_of(came), stands in (None, b"first")) == (error, True)
        else:
            assert (operation, came, stands) == ("close", True, None)
    assert {"open", "lstat", "stat_root", "unlink", "fsync", "rmdir", "close"} == set(failed)


@asynchronous
@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES], ids=errno.errorcode.get)
async def test_checking_a_precondition_may_fail(start: Any, error: int) -> None:
    """This is not reported as a failed precondition."""
    calls = FailingCalls()
    store = start(calls)
    first = await stored(store, NAME, b"first")
    failed = []
    draft = store.begin()
    await draft.append([b"second"])
    async for operation, came in each_failure(
        calls, error, lambda: draft.prepare(NAME, only(first.etag))
    ):
        failed.append(operation)
        if operation == "close":
            assert came is None
        else:
            assert errno_of(came) == error
    assert failed == ["open", "open", "lstat", "close", "close"]
    await let_go(draft)


@asynchronous
@both_kinds
@pytest.mark.parametrize("step", ["lstat", "link", "rename", "fsync"])
async def test_a_cancelled_replacement_is_still_done(
    start: Any, root: Path, kind: str, step: str
) -> None:
    """Cases 1 and 25."""
    calls = SlowCalls()
    before = descriptors()
    store = start(calls, kind, threads=2)
    first = await stored(store, NAME, b"first")
    draft = store.begin()
    await draft.append([b"second"])
    held = calls.hold(step)
    publishing = draft.publish(NAME, only(first.etag))
    await held
    publishing.cancel()
    draft.discard()
    with pytest.raises(CancelledError):
        await publishing
    calls.release()
    await let_go(draft)
    assert tree(root) == {"a": None, "a/b": None, "a/b/x.mp3": b"second"}
    await store.stop()
    assert descriptors() == before


@asynchronous
async def test_a_cancelled_conditional_delete_is_still_done(start: Any, root: Path) -> None:
    """Case 25."""
    calls = SlowCalls()
    before = descriptors()
    store = start(calls)
    first = await stored(store, NAME)
    held = calls.hold("lstat")
    deleting = store.delete(NAME, only(first.etag))
    await held
    deleting.cancel()
    with pytest.raises(CancelledError):
        await deleting
    calls.release()
    await store.stop()
    assert (tree(root), descriptors()) == ({}, before)

"""What the directory store promises of uploads beyond the contract: whatever fails, and whenever
the service is killed, what it finds on the disk is true.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import LogEvent

from tests.listed import page_of
from tests.store.local.faults import (
    CallsLayer,
    FailingCalls,
    RecordingCalls,
    ShortWrites,
    SlowCalls,
    each_failure,
    tree,
)
from tests.store.local.test_directory import both_kinds
from tests.store.local.test_resumable_drafts import (
    ETAG,
    PLAN,
    UPLOAD,
    a_moment,
    begun,
    going_on,
    kept_bytes,
    let_go,
    reviewed,
)
from tests.store.local.test_resumable_drafts import size_of as size_in
from tests.store.local.test_specs import BROKEN, record
from tests.store.test_contract import content_of, holds
from tests.store.test_contract import let_go as discarded
from tests.support import asynchronous, named
from twistedmedia.errors import MediaError, NoSpace, NotFound, StorageFailed
from twistedmedia.store.interface import UploadStatus
from twistedmedia.store.local.maintenance import AT_ONCE
from twistedmedia.store.local.syscalls import SystemCalls

HELLO = PLAN.name
WHOLE = b"hello world"
FOLDER = ".twistedmedia/uploads"
OTHERS = ("0" * 32, "f" * 32)
IS_STORED = [".etag", ".stored"]  # all that there is of an upload that is
BOOT = SystemCalls().boot_id()


def uploads_in(root: Path) -> dict[str, bytes]:
    """The files of uploads: `{"<id>.json": ...}`."""
    return {
        path.name: os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in (root / FOLDER).iterdir()
        if not path.is_dir()
    }


def extensions_in(root: Path) -> list[str]:
    """Of the files of the one upload."""
    return sorted(name.removeprefix(UPLOAD) for name in uploads_in(root))


async def resumed_and_let_go(store: Any, upload: str = UPLOAD) -> None:
    draft = store.resumable.resume(upload, None, provisional=True)
    try:
        await draft.resume()
    finally:
        await draft.release(undo=False)


# What is on the disk


@asynchronous
async def test_the_bytes_are_a_file_and_their_number_is_its_size(start: Any, root: Path) -> None:
    store = start(FailingCalls())
    await begun(store, b"hello", b" world")
    files = uploads_in(root)
    assert files[f"{UPLOAD}.bytes"] == WHOLE
    record = json.loads(files[f"{UPLOAD}.json"])
    assert (record["directory"], record["filename"]) == ("prompts/en", "hello.mp3")
    assert extensions_in(root) == [".bytes", ".json", ".mark"]
    assert files[f"{UPLOAD}.mark"].decode() == f"{BOOT} 11 -"
    with (root / FOLDER / f"{UPLOAD}.bytes").open("ab") as file:
        file.write(b"!")
    assert await size_in(store) == 12


@asynchronous
async def test_a_published_upload_leaves_one_name_and_its_record(start: Any, root: Path) -> None:
    store = start(FailingCalls())
    await begun(store, b"hello", memory="something")
    draft = await going_on(store)
    await draft.append([b" world"])
    before = os.umask(0o027)
    os.umask(before)
    published = await draft.publish(HELLO)
    media = root / "prompts/en/hello.mp3"
    assert uploads_in(root)[f"{UPLOAD}.etag"].decode() == published.etag
    assert (media.read_bytes(), media.stat().st_nlink) == (WHOLE, 1)
    assert media.stat().st_mode & 0o777 == 0o666 & ~before
    assert extensions_in(root) == IS_STORED


@asynchronous
@pytest.mark.parametrize(
    "upload", ["../../victim", "../victim", "./victim", "victim", "a/../../victim", "vic\0tim"]
)
async def test_an_id_leads_to_no_other_file(start: Any, root: Path, upload: str) -> None:
    """Case 32: a slash in an id comes as `%2F` in a URL."""
    store = start(FailingCalls())
    for folder in (root.parent, root, root / ".twistedmedia", root / FOLDER):
        for extension in (".json", ".stored", ".taken", ".bytes", ".mark", ".etag"):
            (folder / f"victim{extension}").write_bytes(b"{}")
    before = tree(root.parent)
    for ask in (
        lambda: store.resumable.find(upload),
        lambda: resumed_and_let_go(store, upload),
        lambda: store.resumable.declare(upload, 5),
        lambda: store.resumable.forget(upload),
        lambda: store.resumable.settle(upload, None),
        lambda: store.resumable.settle(upload, ETAG),
    ):
        with contextlib.suppress(NotFound):
            await ask()
    assert tree(root.parent) == before


@asynchronous
async def test_what_else_lies_there_is_nobodys_upload(start: Any, root: Path) -> None:
    store = start(FailingCalls())
    await begun(store, b"hello")
    await store.stop()
    odd = root / FOLDER
    for name in ("README.json", "x.bytes", f"{UPLOAD}.other", f"{UPLOAD.upper()}.bytes"):
        (odd / name).write_bytes(b"{}")
    (odd / f"{OTHERS[0]}").mkdir()
    before = uploads_in(root)
    store = start(FailingCalls())
    assert await store.resumable.callers() == {UPLOAD: PLAN.caller}
    assert await store.resumable.expire(0) == []
    assert uploads_in(root) == before


@asynchronous
async def test_a_link_is_not_followed(start: Any, root: Path) -> None:
    """Case 33."""
    store = start(FailingCalls())
    await begun(store)
    target = root.parent / "target"
    target.write_bytes(b"theirs")
    for extension in (".bytes", ".json"):
        shutil.copy(root / FOLDER / f"{UPLOAD}{extension}", root.parent / "saved")
        (root / FOLDER / f"{UPLOAD}{extension}").unlink()
        (root / FOLDER / f"{UPLOAD}{extension}").symlink_to(target)
        with pytest.raises((NotFound, MediaError, OSError)):
            await store.resumable.find(UPLOAD, synced=True)
        (root / FOLDER / f"{UPLOAD}{extension}").unlink()
        shutil.copy(root.parent / "saved", root / FOLDER / f"{UPLOAD}{extension}")
    assert target.read_bytes() == b"theirs"


# Nothing may ever be appended to a file that has a media name


@asynchronous
async def test_a_file_with_one_name_more_is_not_appended_to(start: Any, root: Path) -> None:
    store = start(FailingCalls())
    await begun(store, b"hello")
    os.link(root / FOLDER / f"{UPLOAD}.bytes", root / "theirs.mp3")
    for provisional in (False, True):
        with pytest.raises(NotFound):
            await going_on(store, provisional=provisional)
    assert (root / "theirs.mp3").read_bytes() == b"hello"


@asynchronous
async def test_what_is_published_and_could_not_be_settled_is_not_appended_to(
    start: Any, root: Path, nothing_left_behind: list[LogEvent]
) -> None:
    """It is known to be stored, or not known any more."""
    calls = FailingCalls()
    store = start(calls)
    await published_unsettled(store, calls)
    nothing_left_behind.clear()  # that it could not be was logged
    for provisional in (False, True):
        with pytest.raises(NotFound):
            await going_on(store, provisional=provisional)
    with contextlib.suppress(NotFound):
        assert (await store.resumable.find(UPLOAD)).status is UploadStatus.STORED
        assert extensions_in(root) == IS_STORED
    assert await content_of(store, HELLO) == WHOLE
    assert (root / "prompts/en/hello.mp3").stat().st_nlink == 1
    await store.stop()
    start(FailingCalls())
    assert extensions_in(root) in ([], IS_STORED)


@asynchronous
async def test_what_is_published_could_not_be_settled_and_was_deleted_does_not_come_back(
    start: Any, root: Path, nothing_left_behind: list[LogEvent]
) -> None:
    """Case 30: nobody may find all of its bytes waiting to be published."""
    calls = FailingCalls()
    store = start(calls)
    await published_unsettled(store, calls)
    nothing_left_behind.clear()
    await store.delete(HELLO)
    with contextlib.suppress(NotFound):
        assert (await store.resumable.find(UPLOAD)).status is not UploadStatus.UNFINISHED
    with pytest.raises(NotFound):
        await going_on(store)


async def published_unsettled(store: Any, calls: FailingCalls) -> None:
    """Publish an upload, of which its record does not hear."""
    await begun(store, WHOLE)
    draft = await going_on(store)
    await reviewed(draft)
    with calls.armed(1, errno.EIO, lambda operation, args: operation == "rename"):
        await draft.publish(HELLO)
    assert calls.failed == "rename"


@asynchronous
async def test_who_looks_while_a_publish_ends_finds_it_stored(start: Any, root: Path) -> None:
    calls = SlowCalls()
    store = start(calls, durable=False)
    await begun(store, WHOLE)
    draft = await going_on(store)
    await reviewed(draft)
    held = calls.hold("rename", where=lambda source, *_: source == f"{UPLOAD}.json")
    publishing = draft.publish(HELLO)
    await held
    assert (await store.resumable.find(UPLOAD)).status is UploadStatus.STORED
    calls.release()
    await publishing
    assert extensions_in(root) == IS_STORED
    assert await content_of(store, HELLO) == WHOLE


@asynchronous
@pytest.mark.parametrize("provisional", [False, True])
async def test_one_that_is_being_dropped_cannot_be_written_to(
    start: Any, root: Path, provisional: bool
) -> None:
    """Case 13."""
    calls = SlowCalls()
    store = start(calls, durable=False)
    await begun(store, b"hello")
    held = calls.hold("unlink")
    expiring = store.resumable.expire(1 << 62)
    await held
    with pytest.raises(NotFound):
        await going_on(store, provisional=provisional)
    calls.release()
    assert await expiring == [UPLOAD]
    assert uploads_in(root) == {}


class Meanwhile(FailingCalls):
    """Does something once, right before a call for which `when` holds."""

    def __init__(self) -> None:
        super().__init__()
        self.when: Callable[[str, tuple[Any, ...]], bool] = lambda operation, args: False
        self.do: Callable[[], Any] | None = None

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if self.do is not None and self.when(operation, args):
            do, self.do = self.do, None
            do()
        return super().around(operation, call, args)


@asynchronous
@pytest.mark.parametrize("where", ["open", "lock", "fstat"])
@pytest.mark.parametrize(
    "part", [b" world", b""], ids=["a part", "one that has only been looked at"]
)
async def test_what_somebody_adds_to_after_its_age_was_looked_at_does_not_expire(
    start: Any, root: Path, where: str, part: bytes
) -> None:
    """Case 13."""
    calls = Meanwhile()
    store = start(calls)
    await begun(store, b"hello")
    await begun(store, b"hello", upload=OTHERS[0])
    later = await a_moment(store, OTHERS[0]) + 1
    looked: list[str] = []

    def is_after_the_look(operation: str, args: tuple[Any, ...]) -> bool:
        if operation == "lstat" and args[0] == f"{UPLOAD}.bytes":
            looked.append(operation)
        return bool(looked) and operation == where

    def add() -> None:
        with (root / FOLDER / f"{UPLOAD}.bytes").open("ab") as file:
            file.write(part)

    calls.when, calls.do = is_after_the_look, add
    assert set(await store.resumable.expire(later)) == {OTHERS[0], *([] if part else [UPLOAD])}
    assert calls.do is None
    if part:
        assert await kept_bytes(store) == WHOLE
        assert await store.resumable.callers() == {UPLOAD: PLAN.caller}
    else:
        assert uploads_in(root) == {}


def a_directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_bytes(b"theirs")


# What may lie there in the place of one file of an upload.
ODD: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a link for a record": (".json", lambda path: path.symlink_to("theirs")),
    "a link that leads nowhere for a record": (".json", lambda path: path.symlink_to("nowhere")),
    "a directory for a record": (".json", a_directory),
    "a directory for the record of a stored one": (".stored", a_directory),
    "a directory for the bytes": (".bytes", a_directory),
    "a link for the bytes": (".bytes", lambda path: path.symlink_to("theirs")),
    "nonsense for a mark": (".mark", lambda path: path.symlink_to("nonsense")),
    "a file for a mark": (".mark", lambda path: path.write_bytes(b"5")),
    "a directory for a mark": (".mark", a_directory),
    "a file for an etag": (".etag", lambda path: path.write_bytes(b"5")),
    "a directory for a new mark": (".mark.new", a_directory),
    "a directory for a new record": (".new", a_directory),
}
odd_things = pytest.mark.parametrize(("extension", "make"), ODD.values(), ids=ODD)
beside_others = pytest.mark.parametrize("beside", [False, True], ids=["alone", "with the rest"])


async def with_odd_ones(
    store: Any, root: Path, extension: str, make: Callable[[Path], Any], beside: bool
) -> set[str]:
    """Uploads as they should be, and some with something odd, whose ids these are: enough of them
    for one to be listed before the others. `beside` what else is there of an upload.
    """
    for n in range(8):
        await begun(store, b"hello", upload=f"{n:032x}")
    odd = {f"{n + 8:032x}" for n in range(8)}
    for upload in odd:
        if beside:
            await begun(store, b"hello", upload=upload)
            with contextlib.suppress(FileNotFoundError):
                (root / FOLDER / f"{upload}{extension}").unlink()
        make(root / FOLDER / f"{upload}{extension}")
    (root / FOLDER / "theirs").write_bytes(record())
    return odd


@asynchronous
@odd_things
@beside_others
async def test_what_is_odd_about_one_upload_is_no_matter_to_the_others(
    start: Any, root: Path, extension: str, make: Callable[[Path], Any], beside: bool
) -> None:
    store = start(FailingCalls())
    odd = await with_odd_ones(store, root, extension, make, beside)
    await store.stop()
    store = start(FailingCalls())
    usual = {f"{n:032x}" for n in range(8)}
    assert (await store.resumable.callers()).keys() - odd == usual
    for upload in usual:
        assert await size_in(store, upload) == 5
        assert await kept_bytes(store, upload) == b"hello"
    assert set(await store.resumable.expire(1 << 62)) - odd == usual
    assert (await store.resumable.callers()).keys() <= odd
    assert {name.partition(".")[0] for name in uploads_in(root)} <= {"theirs", *odd}
    assert (root / FOLDER / "theirs").read_bytes() == record()
    assert all(path.read_bytes() == b"theirs" for path in (root / FOLDER).glob("*/inside"))
    await store.stop()
    start(FailingCalls())


@asynchronous
@odd_things
async def test_what_is_odd_expires_as_a_whole_or_not_at_all(
    start: Any, root: Path, extension: str, make: Callable[[Path], Any]
) -> None:
    """Who is not told that an upload has expired counts it as its caller's for ever."""
    store = start(FailingCalls())
    odd = await with_odd_ones(store, root, extension, make, True)
    before = (await store.resumable.callers()).keys() & odd
    expired = set(await store.resumable.expire(1 << 62)) & odd
    after = (await store.resumable.callers()).keys() & odd
    assert before - after <= expired


@asynchronous
async def test_what_is_odd_is_told_in_a_warning(
    start: Any, root: Path, warnings: list[LogEvent]
) -> None:
    store = start(FailingCalls())
    await with_odd_ones(store, root, *ODD["a directory for a record"], False)
    await store.stop()
    store = start(FailingCalls())
    assert len(warnings) >= 8
    assert all("cannot be looked after" in event["log_format"] for event in warnings)


# An order of calls that no power failure can make a lie


async def recorded(start: Any, root: Path, **options: Any) -> tuple[Any, RecordingCalls]:
    calls = RecordingCalls(str(root))
    store = start(calls, **options)
    calls.events.clear()
    return store, calls


CHANGING = "writev", "truncate", "fsync", "rename", "link", "symlink", "unlink", "mkdir"
BYTES, JSON, MARK = (f"{FOLDER}/{UPLOAD}{extension}" for extension in (".bytes", ".json", ".mark"))
NEW, STORED, ENTITY = (
    f"{FOLDER}/{UPLOAD}{extension}" for extension in (".new", ".stored", ".etag")
)
MARKED = [f"symlink {MARK}.new", f"rename {MARK}"]
SAVED = [f"writev {NEW}", f"fsync {NEW}", f"rename {JSON}", f"fsync {FOLDER}"]


@asynchronous
async def test_a_new_upload_is_on_stable_storage_before_anybody_hears_of_it(
    start: Any, root: Path
) -> None:
    store, calls = await recorded(start, root)
    await store.resumable.create(UPLOAD, PLAN)
    assert calls.of("open", *CHANGING) == [f"open {BYTES}", f"open {NEW}", *SAVED]


@asynchronous
async def test_what_is_declared_is_on_stable_storage(start: Any, root: Path) -> None:
    store, calls = await recorded(start, root)
    await begun(store)
    calls.events.clear()
    await store.resumable.declare(UPLOAD, 12)
    assert calls.of(*CHANGING) == SAVED


@asynchronous
@pytest.mark.parametrize("synced", [True, False])
async def test_what_is_kept_is_on_stable_storage_if_that_is_wanted(
    start: Any, root: Path, synced: bool
) -> None:
    store, calls = await recorded(start, root)
    await begun(store)
    draft = await going_on(store)
    calls.events.clear()
    await draft.append([b"hello"])
    await draft.keep(None, synced=synced)
    on_stable_storage = [f"fsync {BYTES}", *MARKED, f"fsync {FOLDER}"]
    on_its_way = on_stable_storage if synced else [f"start_writeback {BYTES}"]
    assert calls.of("start_writeback", *CHANGING) == [f"writev {BYTES}", *on_its_way]
    calls.events.clear()
    for brings in ([] if synced else on_stable_storage, []):
        await store.resumable.find(UPLOAD, synced=True)
        assert calls.of(*CHANGING) == brings
        calls.events.clear()


@asynchronous
async def test_what_is_synced_is_so_before_its_mark_says_so(start: Any, root: Path) -> None:
    store, calls = await recorded(start, root)
    await begun(store)
    draft = await going_on(store)
    calls.events.clear()
    for _ in range(2):
        await draft.append([b"hello"])
        await draft.sync()
    assert calls.of(*CHANGING) == [f"writev {BYTES}", f"fsync {BYTES}", *MARKED] * 2
    await let_go(draft)


@asynchronous
async def test_the_first_byte_comes_after_the_mark(start: Any, root: Path) -> None:
    """Else a power failure between them would leave a size that nobody doubts."""
    store, calls = await recorded(start, root)
    await begun(store)
    calls.events.clear()
    draft = await going_on(store)
    await draft.append([b"hello"])
    assert calls.of(*CHANGING) == [*MARKED, f"writev {BYTES}"]
    await let_go(draft)


@asynchronous
async def test_what_is_provisional_is_marked_before_it_is_written_and_counts_when_it_is_synced(
    start: Any, root: Path
) -> None:
    """With its mark on stable storage, too: else a power failure would bring the old one back."""
    store, calls = await recorded(start, root)
    await begun(store, b"hello")
    calls.events.clear()
    draft = await going_on(store, provisional=True)
    await draft.append([b" world"])
    await draft.keep(None, synced=True)
    assert calls.of(*CHANGING) == [
        *MARKED,
        f"writev {BYTES}",
        f"fsync {BYTES}",
        *MARKED,
        f"fsync {FOLDER}",
    ]


@asynchronous
async def test_what_is_told_of_what_was_provisional_is_on_stable_storage(
    start: Any, root: Path
) -> None:
    """Else a power failure would bring the mark back, and take what was told."""
    store, calls = await recorded(start, root)
    await begun(store, b"hello")
    draft = await going_on(store, provisional=True)
    await draft.append([b" world"])
    await draft.keep(None, synced=False)
    calls.events.clear()
    assert (await store.resumable.find(UPLOAD, synced=True)).size == 11
    assert calls.of(*CHANGING) == [f"fsync {BYTES}", *MARKED, f"fsync {FOLDER}"]


@asynchronous
@pytest.mark.parametrize("provisional", [True, False])
async def test_what_did_not_count_is_gone_before_others_follow(
    start: Any, root: Path, provisional: bool
) -> None:
    """Else they would count with it."""
    store, calls = await recorded(start, root)
    await begun(store, b"hello")
    await left_provisional(store)
    calls.events.clear()
    draft = await going_on(store, provisional=provisional)
    assert calls.of(*CHANGING) == [f"truncate {BYTES}", *([] if provisional else MARKED)]
    await let_go(draft)
    assert await size_in(store) == 5


@asynchronous
@pytest.mark.parametrize("mark", [f"{BOOT} 9 9", f"{BOOT} 0 9", "another-boot 9 -"])
async def test_a_mark_of_more_than_is_there_lets_nothing_count_that_comes_after(
    start: Any, root: Path, mark: str
) -> None:
    """A power failure can take bytes that were not synced, and leave the mark."""
    store = start(FailingCalls())
    await begun(store, b"hello")
    (root / FOLDER / f"{UPLOAD}.mark").unlink()
    (root / FOLDER / f"{UPLOAD}.mark").symlink_to(mark)
    assert await size_in(store) == 5
    await left_provisional(store)
    assert await size_in(store) == 5
    assert await kept_bytes(store) == b"hello"


@asynchronous
async def test_a_publish_syncs_the_bytes_before_the_name_and_that_before_the_upload_ends(
    start: Any, root: Path
) -> None:
    store, calls = await recorded(start, root)
    await begun(store, WHOLE)
    draft = await going_on(store)
    await reviewed(draft)
    calls.events.clear()
    await draft.publish(HELLO)
    calls.note("fired")
    assert calls.of(*CHANGING, "fired") == [
        f"fsync {BYTES}",
        "mkdir prompts",
        "mkdir prompts/en",
        "link prompts/en/hello.mp3",
        "fsync prompts/en",
        "fsync .",
        "fsync prompts",
        f"symlink {ENTITY}",
        f"rename {STORED}",
        f"unlink {MARK}",
        f"unlink {BYTES}",
        "fired",
    ]


@asynchronous
async def test_a_store_that_is_not_durable_syncs_nothing(start: Any, root: Path) -> None:
    store, calls = await recorded(start, root, durable=False)
    await begun(store, b"hello")
    draft = await going_on(store, provisional=True)
    await draft.append([b" world"])
    await draft.keep(None, synced=True)
    await store.resumable.find(UPLOAD, synced=True)
    draft = await going_on(store)
    await reviewed(draft)
    await draft.publish(HELLO)
    assert calls.of("fsync", "start_writeback") == []


# Each call fails in turn


Act = Callable[[Any], Awaitable[Any]]


async def append(store: Any) -> None:
    draft = store.resumable.resume(UPLOAD, 6, provisional=False)
    try:
        await draft.resume()
        await draft.append([b" wo", b"rld"])
    finally:
        await draft.release(undo=False)


async def keep(store: Any, *, provisional: bool = False) -> None:
    draft = store.resumable.resume(UPLOAD, 6, provisional=provisional)
    try:
        await draft.resume()
        await draft.append([b" wo", b"rld"])
        await draft.keep("something", synced=True)
    finally:
        await draft.release(undo=False)


async def sync(store: Any) -> None:
    draft = store.resumable.resume(UPLOAD, 6, provisional=False)
    try:
        await draft.resume()
        await draft.append([b" wo"])
        await draft.sync()
        await draft.append([b"rld"])
        await draft.keep("something", synced=False)
    finally:
        await draft.release(undo=False)


async def undo(store: Any, *, provisional: bool = False) -> None:
    draft = store.resumable.resume(UPLOAD, 6, provisional=provisional)
    try:
        await draft.resume()
        await draft.append([b" wo", b"rld"])
    finally:
        await draft.release(undo=True)


async def review(store: Any) -> None:
    draft = store.resumable.resume(UPLOAD, None, provisional=False)
    try:
        await draft.resume()
        await reviewed(draft)
    finally:
        await draft.release(undo=False)


async def publish(store: Any, *, provisional: bool = False) -> None:
    draft = store.resumable.resume(UPLOAD, 6, provisional=provisional)
    try:
        await draft.resume()
        await reviewed(draft)
        await draft.append([b" world"])
        await draft.publish(HELLO)
    finally:
        await draft.release(undo=False)


async def left_provisional(store: Any) -> None:
    """Something that does not count lies behind what does."""
    draft = await going_on(store, provisional=True)
    await draft.append([b"noise"])
    await let_go(draft)


# What is done, and the sizes that the upload may have if that has failed.
ACTS: dict[str, tuple[Act, set[int]]] = {
    "append": (append, {5, 8, 11}),
    "keep": (keep, {5, 8, 11}),
    "keep what was provisional": (lambda store: keep(store, provisional=True), {5, 11}),
    "sync": (sync, {5, 8, 11}),
    "undo": (undo, {5, 8, 11}),
    "undo what was provisional": (lambda store: undo(store, provisional=True), {5}),
    "review": (review, {5}),
    "declare": (lambda store: store.resumable.declare(UPLOAD, 12), {5}),
    "find": (lambda store: store.resumable.find(UPLOAD), {5}),
    "find and sync": (lambda store: store.resumable.find(UPLOAD, synced=True), {5}),
    "callers": (lambda store: store.resumable.callers(), {5}),
}
failing = pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])


@asynchronous
@pytest.mark.parametrize(
    ("error", "noise"), [(errno.ENOSPC, False), (errno.EIO, True)], ids=["ENOSPC", "EIO"]
)
@pytest.mark.parametrize("act", ACTS)
async def test_whatever_fails_nothing_counts_that_was_not_appended(
    start: Any, root: Path, act: str, noise: bool, error: int
) -> None:
    """Cases 10 and 14."""
    do, sizes = ACTS[act]
    calls = FailingCalls()
    store = start(calls)

    async def ready() -> None:
        await store.resumable.forget(UPLOAD)
        await begun(store, b"hello")
        if noise:
            await left_provisional(store)

    await ready()
    async for failed, came in each_failure(calls, error, lambda: do(store)):
        where = f"{failed} of {act}"
        kept = await store.resumable.find(UPLOAD)
        assert kept.status is UploadStatus.UNFINISHED, where
        if act == "declare":
            assert kept.spec in (PLAN, replace(PLAN, length=12)), where
        else:
            assert kept.spec == PLAN, where
        assert kept.size in sizes, where
        assert await kept_bytes(store) == WHOLE[: kept.size], where
        left = set(extensions_in(root)) - {".mark", ".mark.new"}
        assert left == {".bytes", ".json"}, where
        if error == errno.ENOSPC and failed in ("writev", "fsync"):
            assert isinstance(came, NoSpace), where
        await ready()


async def publish_the_rest(store: Any, rest: bytes = b" world") -> None:
    """As the last request of an upload does."""
    draft = await going_on(store)
    try:
        await reviewed(draft)
        await draft.append([rest])
        await draft.publish(HELLO)
    finally:
        await draft.release(undo=False)


async def find_synced(store: Any) -> None:
    await append(store)
    await store.resumable.find(UPLOAD, synced=True)


SYNCS: dict[str, Act] = {
    "keep": keep,
    "sync": sync,
    "publish": publish_the_rest,
    "find and sync": find_synced,
}


class LosingCalls(FailingCalls):
    """If it is `read_only`, no mark can be written after a call has failed."""

    read_only = False

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if self.read_only and self.failed and operation == "symlink":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return super().around(operation, call, args)


def syncs_bytes(operation: str, args: tuple[Any, ...]) -> bool:
    """Whether a call is the sync of the file of an upload."""
    return operation == "fsync" and os.readlink(f"/proc/self/fd/{args[0]}").endswith(".bytes")


@asynchronous
@pytest.mark.parametrize("read_only", [False, True], ids=["marked", "not marked"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("act", SYNCS)
async def test_bytes_whose_sync_failed_are_sent_again(
    start: Any, act: str, error: int, read_only: bool
) -> None:
    """Cases 14 and 79: the kernel reports a failed sync once. The next one would succeed, though
    the bytes are lost.
    """
    calls = LosingCalls()
    store = start(calls)
    await begun(store, b"hello")
    calls.read_only = read_only
    with calls.armed(1, error, syncs_bytes), pytest.raises((StorageFailed, NoSpace)):
        await SYNCS[act](store)
    assert calls.failed == "fsync"
    calls.read_only = False
    for synced in (False, True):
        assert (await store.resumable.find(UPLOAD, synced=synced)).size == 5
    await publish_the_rest(store, b" again")
    assert await content_of(store, HELLO) == b"hello again"


@asynchronous
async def test_bytes_whose_sync_failed_do_not_count_for_the_next_process(start: Any) -> None:
    """Cases 14 and 79: the machine still has them in its memory then."""
    calls = FailingCalls()
    store = start(calls)
    await begun(store, b"hello")
    with calls.armed(1, errno.EIO, syncs_bytes), pytest.raises(StorageFailed):
        await keep(store)
    await store.stop()
    store = start(calls)
    assert (await store.resumable.find(UPLOAD, synced=True)).size == 5
    await publish_the_rest(store, b" again")
    assert await content_of(store, HELLO) == b"hello again"


@asynchronous
@pytest.mark.parametrize("synced", [False, True])
async def test_undoing_a_part_whose_sync_failed_brings_back_nothing(
    start: Any, synced: bool
) -> None:
    """Cases 14 and 79: what earlier requests wrote without a sync may be lost as well."""
    calls = FailingCalls()
    store = start(calls)
    await store.resumable.create(UPLOAD, PLAN)
    draft = await going_on(store)
    await draft.append([b"hello"])
    await draft.keep(None, synced=synced)
    draft = await going_on(store)
    await draft.append([b" world"])
    with calls.armed(1, errno.EIO, syncs_bytes), pytest.raises(StorageFailed):
        await draft.sync()
    with pytest.raises(StorageFailed):
        await draft.append([b"more"])
    await draft.release(undo=True)
    assert await kept_bytes(store) == (b"hello" if synced else b"")
    assert await size_in(store) == (5 if synced else 0)


@asynchronous
@both_kinds
async def test_a_draft_whose_sync_failed_is_not_published(start: Any, kind: str) -> None:
    """Cases 14 and 79."""
    calls = FailingCalls()
    store = start(calls, kind)
    draft = store.begin()
    try:
        await draft.append([b"hello"])
        with calls.armed(1, errno.EIO, lambda operation, _: operation == "fsync"):
            for _ in range(2):
                with pytest.raises(StorageFailed):
                    await draft.publish(HELLO)
    finally:
        await discarded(draft)
    assert not await holds(store, HELLO)


class Failing(CallsLayer):
    """While it is armed these operations fail, with names of which `fails` is true."""

    def __init__(self, error: int, *operations: str) -> None:
        self.fails: Callable[[str], bool] | None = None
        self._error = error
        self._operations = operations

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if self.fails and operation in self._operations and self.fails(str(args[0])):
            raise OSError(self._error, os.strerror(self._error), str(args[0]))
        return call()


SIX = [f"{n:032x}" for n in range(6)]
FAR_FUTURE_NS = 1 << 62


@asynchronous
@pytest.mark.parametrize(
    ("operation", "error"),
    [
        ("unlink", errno.EROFS),
        ("unlink", errno.EIO),
        ("lstat", errno.EIO),
        ("lstat", errno.ESTALE),
        ("open", errno.EIO),
    ],
    ids=lambda each: errno.errorcode.get(each) if isinstance(each, int) else each,
)
async def test_a_sweep_of_a_storage_that_fails_says_so_once(
    start: Any, operation: str, error: int, warnings: list[LogEvent]
) -> None:
    """Cases 79 and 92: and not once for each upload."""
    calls = Failing(error, operation)
    store = start(calls)
    for upload in SIX:
        await begun(store, b"hello", upload=upload)
    calls.fails = lambda name: True
    with pytest.raises(StorageFailed):
        await store.resumable.expire(FAR_FUTURE_NS)
    assert len(warnings) == 1
    calls.fails = None
    assert sorted(await store.resumable.expire(FAR_FUTURE_NS)) == SIX


@asynchronous
async def test_whose_uploads_are_there_is_not_known_while_no_record_can_be_read(
    start: Any, warnings: list[LogEvent]
) -> None:
    """Case 79: rather than that nobody has any."""
    calls = Failing(errno.EIO, "open")
    store = start(calls)
    for upload in SIX:
        await begun(store, upload=upload)
    calls.fails = lambda name: True
    with pytest.raises(StorageFailed, match="cannot be read"):
        await store.resumable.callers()
    assert len(warnings) == 1
    calls.fails = None
    assert sorted(await store.resumable.callers()) == SIX


@asynchronous
async def test_one_record_on_a_bad_block_does_not_stop_a_sweep(
    start: Any, warnings: list[LogEvent]
) -> None:
    """Case 79."""
    calls = Failing(errno.EIO, "lstat", "open", "unlink")
    store = start(calls)
    for upload in SIX:
        await begun(store, b"hello", upload=upload)
    calls.fails = lambda name: name.startswith(SIX[2])
    others = [upload for upload in SIX if upload != SIX[2]]
    assert sorted(await store.resumable.callers()) == others
    assert sorted(await store.resumable.expire(FAR_FUTURE_NS)) == others
    assert len(warnings) == 1  # it cannot be read


@asynchronous
async def test_a_store_starts_on_a_storage_that_takes_no_sweep(
    start: Any, warnings: list[LogEvent]
) -> None:
    """Case 79: what is stored can be read."""
    calls = Failing(errno.EROFS, "unlink", "rename", "open")
    store = start(calls)
    await begun(store, b"hello")
    (Path(store.root) / FOLDER / f"{SIX[0]}.bytes").write_bytes(b"without a record")
    await store.stop()
    calls.fails = lambda name: name.startswith(SIX[0])
    store = start(calls)
    assert await size_in(store) == 5


@asynchronous
@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.resumable.find(UPLOAD),
        lambda store: store.resumable.find(UPLOAD, synced=True),
        lambda store: store.resumable.declare(UPLOAD, 11),
    ],
    ids=["find", "find synced", "declare"],
)
@pytest.mark.parametrize("operation", ["open", "pread"])
async def test_a_record_that_cannot_be_read_is_told_as_that(
    start: Any, ask: Act, operation: str
) -> None:
    """Case 79: and not as one that cannot be written."""
    calls = Failing(errno.EIO, operation)
    store = start(calls)
    await begun(store, b"hello")
    calls.fails = lambda name: True
    with pytest.raises(StorageFailed, match="the storage cannot be read: input/output error"):
        await ask(store)


@asynchronous
async def test_a_file_that_becomes_shorter_under_a_review_is_a_storage_that_fails(
    start: Any, root: Path
) -> None:
    """Case 79: and the upload continues with what is left."""
    store = start()
    await begun(store, b"hello")
    await resumed_and_let_go(store)
    draft = await going_on(store)
    try:
        os.truncate(root / FOLDER / f"{UPLOAD}.bytes", 3)
        with pytest.raises(StorageFailed, match="the file of an upload has become shorter"):
            await reviewed(draft)
    finally:
        await draft.release(undo=False)
    assert await kept_bytes(store) == b"hel"
    assert await size_in(store) == 3


@asynchronous
@failing
async def test_an_upload_whose_beginning_fails_is_not_there(
    start: Any, root: Path, error: int
) -> None:
    """Cases 10 and 14."""
    calls = FailingCalls()
    store = start(calls)
    async for failed, came in each_failure(
        calls, error, lambda: store.resumable.create(UPLOAD, PLAN)
    ):
        full = error == errno.ENOSPC and failed != "stat_root"  # to look at the root takes no space
        assert isinstance(came, NoSpace if full else StorageFailed), failed
        assert uploads_in(root) == {}, failed
    assert await size_in(store) == 0


@asynchronous
@pytest.mark.parametrize(
    ("error", "provisional"), [(errno.ENOSPC, False), (errno.EIO, True)], ids=["ENOSPC", "EIO"]
)
async def test_a_publish_that_fails_can_be_tried_again_and_one_that_did_not_is_known(
    start: Any,
    root: Path,
    provisional: bool,
    error: int,
    nothing_left_behind: list[LogEvent],
) -> None:
    """Cases 10 and 14."""
    calls = FailingCalls()
    store = start(calls)
    await begun(store, b"hello")
    seen = set()
    async for failed, _ in each_failure(
        calls, error, lambda: publish(store, provisional=provisional)
    ):
        try:
            kept = await store.resumable.find(UPLOAD)
        except NotFound:  # only that it is stored could not be noted
            assert (failed, await content_of(store, HELLO)) == ("rename", WHOLE)
        else:
            seen.add(kept.status)
            if kept.status is UploadStatus.UNFINISHED:
                assert not await holds(store, HELLO), failed
                assert kept.size == 5 if provisional else kept.size in (5, 11), failed
                assert await kept_bytes(store) == WHOLE[: kept.size], failed
            else:  # only what comes after was left to fail
                assert await content_of(store, HELLO) == WHOLE, failed
                # One name more, of nothing more, goes at the next start.
                left = set(extensions_in(root)) - {".bytes", ".mark"}
                assert left in ({".stored"}, set(IS_STORED)), failed
                etag = (await store.open(HELLO)).etag
                assert kept.etag in (None, etag), failed
                assert (kept.etag is None) == (".etag" not in left), failed
        await store.delete(HELLO)
        await store.resumable.forget(UPLOAD)
        assert uploads_in(root) == {}, failed
        await begun(store, b"hello")
    assert seen == {UploadStatus.UNFINISHED, UploadStatus.STORED}
    nothing_left_behind.clear()  # what could not be closed or settled was logged


@asynchronous
@failing
@pytest.mark.parametrize("how", ["settle", "settle as stored", "forget", "expire"])
async def test_what_could_not_be_dropped_is_dropped_the_next_time(
    start: Any, root: Path, how: str, error: int
) -> None:
    calls = FailingCalls()
    store = start(calls)

    async def drop() -> None:
        if how == "settle":
            await store.resumable.settle(UPLOAD, None)
        elif how == "settle as stored":
            await store.resumable.settle(UPLOAD, ETAG)
        elif how == "forget":
            await store.resumable.forget(UPLOAD)
        else:
            await store.resumable.expire(1 << 62)

    await begun(store, b"hello")
    async for failed, _ in each_failure(calls, error, drop):
        with contextlib.suppress(NotFound):
            kept = await store.resumable.find(UPLOAD)
            settled = UploadStatus.STORED if how == "settle as stored" else UploadStatus.TAKEN
            assert kept.status is settled or kept.size == 5, failed
        await drop()
        if how == "settle":
            assert extensions_in(root) == [".taken"], failed
        elif how == "settle as stored":
            assert extensions_in(root) in (IS_STORED, [".stored"]), failed
        else:  # bytes without a record go at the next start
            assert set(extensions_in(root)) <= {".bytes", ".mark"}, failed
        await store.resumable.forget(UPLOAD)
        assert uploads_in(root) == {}
        await begun(store, b"hello")


@asynchronous
async def test_a_record_that_does_not_fit_is_none(start: Any, root: Path) -> None:
    """Case 10: a disk that is full takes a part first."""
    store = start(ShortWrites(20))
    with pytest.raises(NoSpace):
        await store.resumable.create(UPLOAD, PLAN)
    assert uploads_in(root) == {}


# The service is killed


class Snapshots(CallsLayer):
    """Copies the root after each call that changes something, as a kill would leave it."""

    def __init__(self, root: Path, to: Path) -> None:
        self._root = root
        self._to = to
        self.taken: list[tuple[str, Path]] = []
        self.wanted = False

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if operation == "fsync":  # this has another test; here it would only take time
            return os.fstat(args[0])
        result = call()
        changes = operation in CHANGING or (operation == "open" and args[1] & os.O_CREAT)
        if self.wanted and changes:
            copy = self._to / str(len(self.taken))
            copied(self._root, copy)
            self.taken.append((f"{len(self.taken)}: after {operation}", copy))
        return result


def copied(root: Path, to: Path) -> None:
    """A copy of `root` in which names of one file are names of one file."""
    inodes: dict[int, Path] = {}
    for folder, _, files in os.walk(root):
        (to / os.path.relpath(folder, root)).mkdir(parents=True)
        for name in files:
            path = Path(folder) / name
            target = to / os.path.relpath(path, root)
            inode = path.lstat().st_ino
            if inode in inodes:
                os.link(inodes[inode], target)
            else:
                shutil.copy2(path, target, follow_symlinks=False)
                inodes[inode] = target


@asynchronous
@pytest.mark.parametrize("provisional", [False, True])
async def test_a_service_that_is_killed_between_any_two_calls_goes_on_where_it_was(
    start: Any, root: Path, tmp_path: Path, provisional: bool
) -> None:
    """Cases 3 and 27. The last part is the one that may be provisional."""
    calls = Snapshots(root, tmp_path / "copies")
    store = start(calls)
    calls.wanted = True
    await store.resumable.create(UPLOAD, PLAN)
    await append_and_keep(store, b"he", b"llo")
    await left_provisional(store)
    await append_and_keep(store, b" wo", b"r", provisional=True)
    draft = await going_on(store, provisional=provisional)
    await draft.append([b"ld"])
    await reviewed(draft)
    await draft.publish(HELLO)
    calls.wanted = False

    progress: list[int] = []
    for when, copy in calls.taken:
        following = start(FailingCalls(), at=copy)
        extensions = [each for each in extensions_in(copy) if each != ".mark"]
        assert extensions in ([], [".bytes", ".json"], IS_STORED), when
        try:
            kept = await following.resumable.find(UPLOAD)
        except NotFound:
            assert extensions == [], when
            progress.append(-1)
        else:
            stored = kept.status is UploadStatus.STORED
            assert stored == (extensions == IS_STORED), when
            progress.append(12 if stored else kept.size)
            if not stored:
                await completed(following, kept.size)
            assert await content_of(following, HELLO) == WHOLE, when
            media = await following.open(HELLO)
            media.close()
            await following.delete(HELLO)
            kept = await following.resumable.find(UPLOAD)
            assert (kept.status, kept.etag) == (UploadStatus.STORED, media.etag), when
            assert ".stored" in extensions_in(copy), when
        await following.stop()
    assert progress == sorted(progress)
    assert set(progress) == {-1, 0, 2, 5, 9, 12} | ({11} if not provisional else set())


@asynchronous
@pytest.mark.parametrize("how", ["forget", "settle", "settle as stored"])
async def test_a_service_that_is_killed_while_it_drops_an_upload_leaves_nothing(
    start: Any, root: Path, tmp_path: Path, how: str
) -> None:
    calls = Snapshots(root, tmp_path / "copies")
    store = start(calls)
    await begun(store, b"hello")
    await left_provisional(store)
    calls.wanted = True
    if how == "forget":
        await store.resumable.forget(UPLOAD)
    else:
        await store.resumable.settle(UPLOAD, None if how == "settle" else ETAG)
    calls.wanted = False
    left = {"forget": [], "settle": [".taken"], "settle as stored": IS_STORED}[how]
    if how == "settle as stored":  # until its record says so it is not
        when, copy = calls.taken.pop(0)
        following = start(FailingCalls(), at=copy)
        assert (await following.resumable.find(UPLOAD)).status is UploadStatus.UNFINISHED, when
        assert await kept_bytes(following) == b"hello"
        await following.stop()
    assert len(calls.taken) == 3
    for when, copy in calls.taken:
        following = start(FailingCalls(), at=copy)
        await following.stop()
        assert extensions_in(copy) == left, when


@asynchronous
async def test_what_a_killed_service_thought_it_had_become_is_not_what_it_becomes(
    start: Any, root: Path
) -> None:
    """It was about to be settled as another file, of the same content, which was deleted since."""
    store = start(FailingCalls())
    await begun(store, WHOLE)
    (root / FOLDER / f"{UPLOAD}.etag").symlink_to(ETAG)  # and then the kill came
    await store.stop()
    store = start(FailingCalls())
    assert await store.resumable.callers() == {UPLOAD: PLAN.caller}
    draft = await going_on(store)
    assert await reviewed(draft) == WHOLE
    published = await draft.publish(HELLO)
    kept = await store.resumable.find(UPLOAD)
    assert (kept.status, kept.etag) == (UploadStatus.STORED, published.etag)


@asynchronous
async def test_a_stored_upload_of_which_no_etag_is_known_is_stored(start: Any, root: Path) -> None:
    """An earlier version has noted none."""
    store = start(FailingCalls())
    await begun(store, WHOLE)
    draft = await going_on(store)
    await reviewed(draft)
    await draft.publish(HELLO)
    (root / FOLDER / f"{UPLOAD}.etag").unlink()
    for _ in range(2):
        kept = await store.resumable.find(UPLOAD)
        assert (kept.status, kept.size, kept.etag) == (UploadStatus.STORED, 11, None)
        await store.stop()
        store = start(FailingCalls())


@asynchronous
@pytest.mark.parametrize("at", ["lstat", "symlink"])
async def test_who_looks_before_a_published_upload_is_settled_settles_it(
    start: Any, root: Path, at: str
) -> None:
    calls = SlowCalls()
    store = start(calls, durable=False)
    await begun(store, WHOLE)
    draft = await going_on(store)
    await reviewed(draft)
    held = calls.hold(at, where=lambda *names: f"{UPLOAD}.bytes" in names or ETAG[:1] in names[0])
    publishing = draft.publish(HELLO)
    await held
    kept = await store.resumable.find(UPLOAD)
    calls.release()
    published = await publishing
    assert (kept.status, kept.etag) == (UploadStatus.STORED, published.etag)
    assert extensions_in(root) == IS_STORED


async def append_and_keep(store: Any, *pieces: bytes, provisional: bool = False) -> None:
    draft = await going_on(store, provisional=provisional)
    for piece in pieces:
        await draft.append([piece])
    await draft.keep("something", synced=True)


async def completed(store: Any, size: int) -> None:
    draft = await going_on(store)
    assert await reviewed(draft) == WHOLE[:size]
    await draft.append([WHOLE[size:]])
    await draft.publish(HELLO)


@asynchronous
@pytest.mark.parametrize("deleted", [False, True])
async def test_what_was_published_before_the_kill_is_known_to_be_stored(
    start: Any, root: Path, deleted: bool
) -> None:
    """Case 3. It was linked, and no more: once that is seen it stays so, whatever becomes of the
    file.
    """
    store = start(FailingCalls())
    await begun(store, WHOLE)
    await store.stop()
    (root / "prompts/en").mkdir(parents=True)
    os.link(root / FOLDER / f"{UPLOAD}.bytes", root / "prompts/en/hello.mp3")
    store = start(FailingCalls())
    assert extensions_in(root) == IS_STORED
    assert await store.resumable.callers() == {}
    media = await store.open(HELLO)
    media.close()
    if deleted:
        await store.delete(HELLO)
        await store.stop()
        store = start(FailingCalls())
    kept = await store.resumable.find(UPLOAD)
    assert (kept.status, kept.etag) == (UploadStatus.STORED, media.etag)
    assert await holds(store, HELLO) is not deleted


@asynchronous
async def test_a_link_that_is_not_the_media_is_no_publish(start: Any, root: Path) -> None:
    store = start(FailingCalls())
    await begun(store, b"hello")
    await store.stop()
    os.link(root / FOLDER / f"{UPLOAD}.bytes", root.parent / "backup")
    store = start(FailingCalls())
    kept = await store.resumable.find(UPLOAD)
    assert (kept.status, kept.size) == (UploadStatus.UNFINISHED, 5)


@asynchronous
async def test_what_a_killed_service_has_left_half_done_is_swept(start: Any, root: Path) -> None:
    store = start(FailingCalls())
    await begun(store, b"hello")
    await store.resumable.create(OTHERS[1], PLAN, ETAG)
    await store.stop()
    whole = uploads_in(root)
    names = (f"{OTHERS[0]}.bytes", f"{OTHERS[0]}.new", f"{UPLOAD}.new", f"{OTHERS[1]}.bytes")
    for name in names:
        (root / FOLDER / name).write_bytes(b"half")
    links = ("0" * 31 + "1.mark", "0" * 31 + "2.etag", f"{UPLOAD}.mark.new", f"{OTHERS[1]}.mark")
    for name in links:
        (root / FOLDER / name).symlink_to("half")
    store = start(FailingCalls())
    assert uploads_in(root) == whole
    assert (await size_in(store), (await store.resumable.find(OTHERS[1])).status) == (
        5,
        UploadStatus.STORED,
    )


@asynchronous
async def test_a_record_whose_bytes_are_gone_is_swept(start: Any, root: Path) -> None:
    """Else it would count as its caller's for ever."""
    store = start(FailingCalls())
    await begun(store, b"hello")
    (root / FOLDER / f"{UPLOAD}.bytes").unlink()
    with pytest.raises(NotFound):
        await store.resumable.find(UPLOAD)
    await store.stop()
    store = start(FailingCalls())
    assert await store.resumable.callers() == {}
    assert uploads_in(root) == {}


@asynchronous
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
async def test_a_broken_record_is_no_upload_and_is_swept_with_a_warning(
    start: Any, root: Path, content: bytes, warnings: list[LogEvent]
) -> None:
    store = start(FailingCalls())
    await begun(store, b"hello")
    (root / FOLDER / f"{UPLOAD}.json").write_bytes(content)
    for ask in (
        lambda: store.resumable.find(UPLOAD),
        lambda: store.resumable.find(UPLOAD, synced=True),
        lambda: store.resumable.declare(UPLOAD, 5),
    ):
        with pytest.raises(NotFound):
            await ask()
    assert await store.resumable.callers() == {}
    assert warnings
    await store.stop()
    start(FailingCalls())
    assert uploads_in(root) == {}


@asynchronous
async def test_a_store_starts_where_uploads_cannot_be_swept(
    start: Any, root: Path, warnings: list[LogEvent]
) -> None:
    """What is stored can be read all the same."""
    store = start(FailingCalls())
    await begun(store, b"hello")
    await store.stop()
    (root / FOLDER / f"{OTHERS[0]}.new").write_bytes(b"half")
    for nth in count(1):
        calls = FailingCalls()
        in_uploads = is_in(str(root / FOLDER))
        with calls.armed(nth, errno.EIO, in_uploads):
            store = start(calls)
        if calls.failed is None:
            break
        assert await size_in(store) == 5
        assert warnings or calls.failed == "open"
        await store.stop()
    assert nth > 1


def is_in(folder: str) -> Callable[[str, tuple[Any, ...]], bool]:
    """Whether a call works in that folder."""

    def holds_for(operation: str, args: tuple[Any, ...]) -> bool:
        *plain, keywords = args
        fd = keywords.get("dir_fd", plain[0] if plain else None)
        with contextlib.suppress(OSError, TypeError):
            return operation != "close" and os.readlink(f"/proc/self/fd/{fd}") == folder
        return False

    return holds_for


@asynchronous
async def test_memories_are_few_and_what_is_forgotten_is_reviewed(start: Any, root: Path) -> None:
    """Each is some 40 KiB."""
    store = start(FailingCalls(), durable=False)
    uploads = [f"{n:032x}" for n in range(40)]
    for upload in uploads:
        await store.resumable.create(upload, PLAN)
        draft = await going_on(store, upload)
        await draft.append([b"hello"])
        await draft.keep(upload, synced=False)
    remembered = []
    for upload in uploads:
        draft = store.resumable.resume(upload, None, provisional=False)
        resumed = await draft.resume()
        assert (resumed.size, resumed.inspection) in ((5, None), (5, upload))
        remembered.append(resumed.inspection is not None)
        if resumed.inspection is None:
            assert await reviewed(draft) == b"hello"
        await draft.append([b" world"])
        assert (await draft.seal()).size == 11
        await draft.release(undo=False)
    assert remembered == [False] * 8 + [True] * 32


@asynchronous
async def test_a_memory_of_bytes_that_are_no_longer_there_is_none(start: Any, root: Path) -> None:
    store = start(FailingCalls())
    await begun(store, b"hello", memory="something")
    os.truncate(root / FOLDER / f"{UPLOAD}.bytes", 3)
    draft = store.resumable.resume(UPLOAD, None, provisional=False)
    resumed = await draft.resume()
    assert (resumed.size, resumed.inspection) == (3, None)
    assert await reviewed(draft) == b"hel"
    await let_go(draft)


@asynchronous
async def test_stopping_waits_for_a_part_that_is_being_kept(start: Any, root: Path) -> None:
    """Case 47."""
    calls = SlowCalls()
    store = start(calls)
    await begun(store)
    draft = await going_on(store)
    held = calls.hold("writev")
    writing = draft.append([b"hello"])
    await held
    keeping = draft.keep(None, synced=True)
    stopping = ensureDeferred(store.stop())
    assert not stopping.called
    calls.release()
    await writing
    await keeping
    await stopping
    assert uploads_in(root)[f"{UPLOAD}.bytes"] == b"hello"


@asynchronous
async def test_files_of_another_name_are_not_an_uploads(start: Any, root: Path) -> None:
    """The hidden folder has no media name, so nobody can store, read or delete there."""
    store = start(FailingCalls())
    await begun(store, b"hello")
    page = await page_of(store, (), "", 10)
    assert page.entries == ()
    with pytest.raises(MediaError):
        named(f".twistedmedia/uploads/{UPLOAD}.bytes")


LATER = 4 * 10**18  # than the times of all files


class CountingCalls(FailingCalls):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        self.made += 1
        return super().around(operation, call, args)


@asynchronous
@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    "look_after",
    [
        lambda kept: kept.expire(1 << 62),
        lambda kept: kept.adjust(LATER, 10**12),
        lambda kept: kept.adjust(LATER + 10**12, 10**12),
        lambda kept: kept.callers(),
    ],
    ids=["expire", "adjust", "adjust to a step", "callers"],
)
async def test_requests_do_not_wait_until_all_uploads_were_looked_after(
    start: Any, look_after: Callable[[Any], Deferred[Any]], finished: bool
) -> None:
    """Case 95: thousands of them, with one thread."""
    calls = CountingCalls()
    store = start(calls, threads=1)
    await store.resumable.adjust(LATER, 10**12)
    uploads = [f"{number:032x}" for number in range(3 * AT_ONCE + 1)]
    for upload in uploads:
        await store.resumable.create(upload, PLAN, ETAG if finished else None)
    await begun(store)
    calls.made = 0
    looking = look_after(store.resumable)
    await store.resumable.find("f" * 32, caller="192.0.2.1").addErrback(lambda failure: None)
    before = calls.made
    await looking
    # Each job looks at a third of them.
    assert before <= calls.made / 2 + 10

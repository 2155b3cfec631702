"""Folders that a crash has left empty are removed at the next start."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.listed import page_of
from tests.store.local.faults import CallsLayer, FailingCalls
from tests.store.test_contract import stored
from tests.support import asynchronous, named
from twistedmedia.errors import NotFound
from twistedmedia.store.local.dirty_folders import DirtyFolders
from twistedmedia.store.local.syscalls import SystemCalls

NAME = named("a/b/x.mp3")
NOTES = ".twistedmedia/folders"


class Killed(BaseException):
    """The process is dead: nothing that it would do is done."""


class KillingCalls(CallsLayer):
    """From the `nth` call on that changes folders, no call does anything."""

    CHANGING = "mkdir", "link", "link_descriptor", "unlink", "rmdir", "rename"

    def __init__(self) -> None:
        self.left = 0
        self.is_dead = False
        self.was_killed = False  # then it does not remove its notes, as a stop does

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if self.left and operation in self.CHANGING:
            self.left -= 1
            self.is_dead = self.was_killed = self.left == 0
        if operation == "unlink" and args[0] == "folders" and self.was_killed:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.is_dead and operation != "close":
            raise Killed
        return os.fstat(args[0]) if operation == "fsync" else call()


def empty_folders(root: Path) -> list[str]:
    return [
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_dir() and path.relative_to(root).parts[0] != ".twistedmedia"
        if not any(path.iterdir())
    ]


async def make(store: Any) -> None:
    await stored(store, NAME, b"hello")


async def delete(store: Any) -> None:
    await store.delete(NAME)


@asynchronous
@pytest.mark.parametrize("kind", ["directory", "directory with hidden drafts"])
@pytest.mark.parametrize("work", [make, delete])
async def test_wherever_a_kill_comes_no_empty_folder_is_left_after_the_next_start(
    start: Any, root: Path, work: Callable[[Any], Any], kind: str
) -> None:
    """Case 94."""
    was_empty = False
    for nth in range(1, 20):
        calls = KillingCalls()
        store = start(calls, kind, threads=1)
        if work is delete:
            await make(store)
        calls.left = nth
        with contextlib.suppress(Killed):
            await work(store)
        is_dead, calls.is_dead, calls.left = calls.is_dead, False, 0
        was_empty = was_empty or bool(empty_folders(root))
        assert set(os.listdir(root)) <= {".twistedmedia", "a"}
        await store.stop()
        store = start(FailingCalls(), kind)
        assert empty_folders(root) == []
        await store.delete(NAME)
        await store.stop()
        if not is_dead:
            break
    assert not is_dead
    assert was_empty


@asynchronous
async def test_folders_of_an_administrator_stay(start: Any, root: Path) -> None:
    """The service has not changed them."""
    (root / "theirs/empty").mkdir(parents=True)
    store = start(FailingCalls())
    await stored(store, NAME, b"hello")
    await store.stop()
    store = start(FailingCalls())
    assert empty_folders(root) == ["theirs/empty"]
    with pytest.raises(NotFound):
        await page_of(store, ("theirs", "empty"), "", 10)


@asynchronous
async def test_a_folder_of_an_administrator_stays_even_if_the_service_had_one_of_that_name(
    start: Any, root: Path
) -> None:
    """Case 94: a service that was stopped has left no folder empty."""
    store = start(FailingCalls())
    await stored(store, NAME, b"hello")
    await store.delete(NAME)
    await store.stop()
    (root / "a/b").mkdir(parents=True)
    start(FailingCalls())
    assert empty_folders(root) == ["a/b"]


# The notes


def noting(folder: Path, calls: SystemCalls | None = None) -> DirtyFolders:
    return DirtyFolders(calls or SystemCalls(), os.open(folder, os.O_RDONLY))


@pytest.fixture
def notes(tmp_path: Path) -> Any:
    made: list[DirtyFolders] = []

    def make(calls: SystemCalls | None = None) -> DirtyFolders:
        made.append(noting(tmp_path, calls))
        return made[-1]

    yield make
    for each in made:
        os.close(each._fd)


def test_notes_of_work_under_way_are_read_by_the_next_process(notes: Any, tmp_path: Path) -> None:
    first = notes()
    assert first.left() == []
    for folders in (("a", "b"), ("ü", "x y"), ("a", "b")):
        first.begin(folders)
    assert notes().left() == [("a", "b"), ("ü", "x y")]
    first.end(("a", "b"))
    first.end(("ü", "x y"))
    assert ("a", "b") in notes().left()
    first.end(("a", "b"))
    assert notes().left() == []
    assert (tmp_path / "folders").read_bytes() == b""


def test_the_notes_do_not_grow_and_never_lack_what_is_under_way(notes: Any, tmp_path: Path) -> None:
    touched = notes()
    touched.begin(("long", "ago"))
    for n in range(10_000):
        touched.begin((f"folder {n}",))
        if n % 500 == 0:
            assert {(f"folder {n}",), ("long", "ago")} <= set(notes().left())
        touched.end((f"folder {n}",))
    assert (tmp_path / "folders").stat().st_size < 20_000
    touched.end(("long", "ago"))
    assert (tmp_path / "folders").read_bytes() == b""


class FullFolder(CallsLayer):
    """While it `fails`, no file in the folder can be changed, but for what is appended."""

    fails = False

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if self.fails and operation in ("unlink", "writev", "rename"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return call()


def fill(touched: DirtyFolders, folder: Path) -> None:
    """Note so much, beside work under way, that the next note makes the file short again."""
    n = 0
    while n == 0 or (folder / "folders").stat().st_size <= 16 << 10:
        touched.begin((f"{n:0200}",))
        touched.end((f"{n:0200}",))
        n += 1


def test_notes_that_cannot_be_rewritten_stop_no_work(notes: Any, tmp_path: Path) -> None:
    calls = FullFolder()
    touched = notes(calls)
    touched.begin(("long", "ago"))
    fill(touched, tmp_path)
    calls.fails = True
    touched.begin(("a", "b"))
    assert {("a", "b"), ("long", "ago")} <= set(notes().left())
    calls.fails = False
    touched.end(("a", "b"))
    touched.end(("long", "ago"))
    assert notes().left() == []


def test_a_kill_while_the_notes_are_made_fewer_loses_none_of_work_under_way(
    notes: Any, tmp_path: Path
) -> None:
    """Case 94."""

    class Dying(CallsLayer):
        left = 0

        def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
            if self.left and operation != "close":
                self.left -= 1
                if self.left == 0:
                    raise Killed
            return call()

    for nth in range(1, 20):
        calls = Dying()
        touched = notes(calls)
        touched.clear()
        touched.begin(("long", "ago"))
        fill(touched, tmp_path)
        calls.left = nth
        with contextlib.suppress(Killed):
            touched.begin(("a", "b"))
        assert ("long", "ago") in notes().left()
        if calls.left:
            break
    assert calls.left
    assert set(notes().left()) == {("long", "ago"), ("a", "b")}


def test_however_long_the_paths_are_all_notes_are_read(notes: Any) -> None:
    touched = notes()
    many = [tuple(f"{n:0250}" for _ in range(4)) for n in range(64)]
    for folders in many:
        touched.begin(folders)
    assert set(notes().left()) == set(many)


@pytest.mark.parametrize(
    "content", [b"..", b"../a\n", b"a/../b\n", b"/etc\n", b"\xff\n", b"a//b\n"]
)
def test_an_invalid_path_in_the_notes_is_ignored(
    notes: Any, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "folders").write_bytes(content + b"\nreal")
    assert ("real",) in notes().left()
    assert len(notes().left()) == 1

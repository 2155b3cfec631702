"""Pages of a directory's names, in the order of their bytes."""

from __future__ import annotations

import errno
import os
import stat
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from tests.listed import Page, page_of
from tests.store.local.faults import (
    CallsLayer,
    FailingCalls,
    SlowCalls,
    SwappingCalls,
    descriptors,
    each_failure,
    errno_of,
)
from tests.store.test_contract import stored
from tests.support import asynchronous, named
from twistedmedia.errors import NotFound, StorageFailed
from twistedmedia.store.batches import BATCH
from twistedmedia.store.interface import Batch, ListedFile

DIRECTORY = ("a", "b")


def names(page: Page) -> list[str]:
    return [each.filename if isinstance(each, ListedFile) else each for each in page.entries]


@asynchronous
async def test_a_listing_has_files_and_directories_in_the_order_of_their_bytes(store: Any) -> None:
    """With the slash, as they are shown: a hyphen comes before it, a digit after."""
    for name in ("ab.wav", "é.wav", "Z.wav", "a-b.wav", "a/x.wav", "a0.wav", "😀.wav", "z.wav"):
        await stored(store, named(f"a/b/{name}"))
    await stored(store, named("a/b/a/deep/er.wav"))
    await stored(store, named("a/c/elsewhere.wav"))
    found = names(await page_of(store))
    assert found == sorted(found, key=str.encode)
    assert found == ["Z.wav", "a-b.wav", "a/", "a0.wav", "ab.wav", "z.wav", "é.wav", "😀.wav"]


@asynchronous
async def test_a_file_is_listed_with_the_values_of_its_media(store: Any) -> None:
    await stored(store, named("a/b/x.wav"), b"hello")
    media = await store.open(named("a/b/x.wav"))
    page = await page_of(store)
    assert page == Page((ListedFile("x.wav", 5, media.modified_ns, media.etag),), False, 0)
    media.close()


@asynchronous
@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
async def test_pages_together_are_the_whole(store: Any, limit: int) -> None:
    for n in (3, 1, 4, 0, 5, 2):
        await stored(store, named(f"a/b/{n}.wav"))
    await stored(store, named("a/b/3/x.wav"))
    found: list[str] = []
    more = True
    while more:
        page = await page_of(store, after=found[-1] if found else "", limit=limit)
        assert len(page.entries) <= limit
        found += names(page)
        more = page.more
    assert found == ["0.wav", "1.wav", "2.wav", "3.wav", "3/", "4.wav", "5.wav"]


@asynchronous
async def test_the_name_that_a_page_comes_after_need_not_exist(store: Any) -> None:
    for name in ("a.wav", "c.wav"):
        await stored(store, named(f"a/b/{name}"))
    assert names(await page_of(store, after="b")) == ["c.wav"]
    assert names(await page_of(store, after="a.wav")) == ["c.wav"]
    assert names(await page_of(store, after="c.wav")) == []
    assert names(await page_of(store, after="😀")) == []


@asynchronous
async def test_the_root_always_exists_and_other_directories_while_they_are_not_empty(
    store: Any,
) -> None:
    assert await page_of(store, ()) == Page((), False, 0)
    for folders in (("a",), ("a", "b"), ("absent",)):
        with pytest.raises(NotFound):
            await page_of(store, folders)
    await stored(store, named("a/b/x.wav"))
    assert names(await page_of(store, ())) == ["a/"]
    assert names(await page_of(store, ("a",))) == ["b/"]
    for folders in (("a", "b", "x.wav"), ("a", "b", "absent"), ("a", "x.wav", "y")):
        for after in ("", "w"):
            with pytest.raises(NotFound):
                await page_of(store, folders, after)
    await store.delete(named("a/b/x.wav"))
    assert await page_of(store, ()) == Page((), False, 0)


@asynchronous
async def test_a_read_fires_with_the_result_of_its_function(store: Any) -> None:
    await stored(store, named("a/b/x.wav"))
    assert await store.list(DIRECTORY, "", 10).read(lambda batch: len(batch.entries)) == 1
    with pytest.raises(ZeroDivisionError):
        await store.list(DIRECTORY, "", 10).read(lambda batch: 1 // 0)


@asynchronous
async def test_a_page_is_read_in_batches(store: Any) -> None:
    """Other pages have their turns between them."""
    for n in range(BATCH * 2 + 10):
        await stored(store, named(f"a/b/{n:04}.wav"))
    for limit, sizes in (
        (BATCH * 2, [(BATCH, BATCH), (BATCH, 0), (0, 0)]),
        (BATCH * 4, [(BATCH, BATCH + 10), (BATCH, 10), (10, 0)]),
    ):
        listed = store.list(DIRECTORY, "", limit)
        found: list[Batch] = []
        while not (found and found[-1].end):
            found.append(await listed.read(lambda batch: batch))
        got = [(len(batch.entries), batch.left) for batch in found]
        assert sum(size for size, _ in got) == sum(size for size, _ in sizes)
        assert all(size <= BATCH for size, _ in got)
        assert got[:2] == sizes[:2]


# On a disk


@asynchronous
async def test_files_of_an_administrator_are_listed_or_counted(start: Any, root: Path) -> None:
    """Case 35."""
    store = start()
    await stored(store, named("a/b/x.wav"))
    inside = root / "a" / "b"
    (inside / "by hand.ogg").write_bytes(b"12345")
    for name in (".hidden", "back\\slash.wav", "tab\there.wav", "bidi\u202e.wav", "e\u0301.wav"):
        (inside / name).touch()
    for raw in (b"latin-\xe9.wav", b"\xff"):
        os.close(os.open(os.fsencode(inside) + b"/" + raw, os.O_CREAT))
    (inside / ".folder").mkdir()
    (inside / ".twistedmedia").mkdir()  # not the one in the root
    (inside / "link.wav").symlink_to("x.wav")
    (inside / "linked").symlink_to("/tmp")
    os.mkfifo(inside / "pipe.wav")
    os.mknod(inside / "socket.wav", stat.S_IFSOCK | 0o600)
    page = await page_of(store)
    assert names(page) == ["by hand.ogg", "x.wav"]
    assert page.left_out == 13
    first, second = await page_of(store, limit=1), await page_of(store, after="by hand.ogg")
    assert first.left_out + second.left_out == 13, "each is counted on one page"


@asynchronous
async def test_the_root_shows_directories_only(start: Any, root: Path) -> None:
    """A media name has a directory, so no file in the root itself has one."""
    store = start()
    await stored(store, named("a/b/x.wav"))
    (root / "stray.wav").touch()
    assert await page_of(store, ()) == Page(("a/",), False, 1)


@asynchronous
async def test_an_empty_directory_is_not_there(start: Any, root: Path) -> None:
    store = start()
    await stored(store, named("a/x.wav"))
    (root / "a" / "empty").mkdir()
    (root / "a" / "full").mkdir()
    (root / "a" / "full" / "y.wav").touch()
    assert names(await page_of(store, ("a",))) == ["full/", "x.wav"]
    for after in ("", "x"):
        with pytest.raises(NotFound):
            await page_of(store, ("a", "empty"), after)


@asynchronous
async def test_a_name_that_is_too_long_as_a_whole_is_left_out(start: Any, root: Path) -> None:
    """Of 1,024 bytes the directory takes 1,016."""
    store = start()
    folders = ("x" * 255, "x" * 255, "x" * 255, "x" * 248)
    inside = root.joinpath(*folders)
    inside.mkdir(parents=True)
    for name in ("123.wav", "1234.wav"):
        (inside / name).touch()
    page = await page_of(store, folders)
    assert (names(page), page.left_out) == (["123.wav"], 1)


@asynchronous
async def test_no_link_leads_a_listing_out_of_the_root(
    start: Any, root: Path, tmp_path: Path
) -> None:
    """Case 33."""
    (tmp_path / "secret" / "inner").mkdir(parents=True)
    (tmp_path / "secret" / "x.wav").touch()
    store = start()
    await stored(store, named("a/x.wav"))
    (root / "a" / "out").symlink_to(tmp_path / "secret")
    (root / "out").symlink_to(tmp_path / "secret")
    for folders in (("a", "out"), ("out",), ("out", "inner")):
        with pytest.raises(NotFound):
            await page_of(store, folders)


@asynchronous
async def test_a_file_removed_while_it_is_listed_is_not_in_the_page(start: Any, root: Path) -> None:
    calls = SwappingCalls()
    store = start(calls)
    for name in ("x.wav", "y.wav"):
        await stored(store, named(f"a/b/{name}"))
    nth = 0
    while True:
        nth += 1
        calls.before(nth, lambda: (root / "a" / "b" / "x.wav").unlink(missing_ok=True))
        try:
            page = await page_of(store)
        finally:
            calls.disarm()
        assert names(page) in (["x.wav", "y.wav"], ["y.wav"])
        assert page.left_out == 0
        if not calls.swapped:
            break
        (root / "a" / "b" / "x.wav").touch()
    assert nth > 4


@asynchronous
async def test_many_names_are_sorted_across_all_of_them(
    start: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twistedmedia.store.local.pages._SORTED_AT_ONCE", 100)
    store = start()
    await stored(store, named("a/b/x.wav"))
    for n in range(900):
        (root / "a" / "b" / f"{n * 7919 % 907:03}.wav").touch()
    page = await page_of(store)
    assert len(page.entries) == 901
    assert all(one < other for one, other in pairwise(names(page)))
    assert names(await page_of(store, after="450.wav", limit=3)) == [
        "451.wav",
        "452.wav",
        "453.wav",
    ]


@asynchronous
@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE], ids=errno.errorcode.get)
async def test_a_listing_whose_nth_operation_fails_fails_and_is_never_incomplete(
    start: Any, error: int
) -> None:
    """Case 25."""
    calls = FailingCalls()
    store = start(calls)
    for name in ("a/b/x.wav", "a/b/deeper/y.wav", "a/b/z.wav"):
        await stored(store, named(name))
    whole = await page_of(store)
    assert names(whole) == ["deeper/", "x.wav", "z.wav"]
    failed = []
    async for operation, came in each_failure(calls, error, lambda: page_of(store)):
        failed.append(operation)
        if isinstance(came, Exception):
            assert errno_of(came) == error
        else:
            assert (operation, came) == ("close", whole)
    assert set(failed) == {"open", "scandir", "lstat", "close"}


class NotOurs(CallsLayer):
    """The folder `lost+found` must not be read; `goes` is removed when it is."""

    def around(self, operation: str, call: Any, args: tuple[Any, ...]) -> Any:
        if operation == "open" and args[0] == "lost+found":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if operation == "open" and args[0] == "goes":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return call()


@asynchronous
async def test_a_folder_that_is_forbidden_or_removed_does_not_end_the_listing(
    start: Any, root: Path
) -> None:
    store = start(NotOurs())
    for name in ("lost+found", "goes", "prompts"):
        (root / name).mkdir()
        (root / name / "x.wav").touch()
    assert await page_of(store, ()) == Page(("prompts/",), False, 0)


@asynchronous
async def test_an_error_of_the_disk_is_not_reported_as_a_missing_directory(start: Any) -> None:
    calls = FailingCalls()
    store = start(calls)
    await stored(store, named("a/b/x.wav"))
    for error, raised in (
        (errno.ENOENT, NotFound),
        (errno.ELOOP, NotFound),
        (errno.EIO, StorageFailed),
    ):
        with calls.armed(1, error, lambda operation, _: operation == "open"), pytest.raises(raised):
            await page_of(store)


@asynchronous
async def test_a_listing_may_be_cancelled(start: Any) -> None:
    """Case 25. The only reading thread ends its work, and is free for the next listing."""
    calls = SlowCalls()
    before = descriptors()
    store = start(calls, threads=1)
    await stored(store, named("a/b/x.wav"))
    held = calls.hold("scandir")
    used: list[Batch] = []
    listing = store.list(DIRECTORY, "", 10).read(used.append)
    await held
    listing.cancel()
    with pytest.raises(CancelledError):
        await listing
    calls.release()
    assert names(await page_of(store)) == ["x.wav"]
    assert len(used) == 1
    await store.stop()
    assert descriptors() == before

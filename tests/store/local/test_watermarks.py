"""What of an unfinished upload survives a power failure: no more than was synced, and all of that.

A power cut is another boot of the machine, and a file that has come back with its length, but with
zeros in the place of what was not synced, or longer, or shorter.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.store.local.faults import CallsLayer, FailingCalls
from tests.store.local.test_resumable_drafts import (
    PLAN,
    UPLOAD,
    begun,
    going_on,
    kept_bytes,
    let_go,
    reviewed,
)
from tests.store.local.test_resumable_drafts import size_of as size_in
from tests.store.test_contract import content_of
from tests.support import asynchronous
from twistedmedia.store.interface import Resumed, UploadStatus
from twistedmedia.store.local.record_files import SymlinkTexts, Watermark, Watermarks
from twistedmedia.store.local.syscalls import SystemCalls

HELLO = PLAN.name
WHOLE = b"hello world"
FOLDER = ".twistedmedia/uploads"


class Boot(FailingCalls):
    """A machine that was booted with that id; without one, it has none."""

    def __init__(self, boot: str | None) -> None:
        super().__init__()
        self._boot = boot

    def boot_id(self) -> str:
        if self._boot is None:
            raise FileNotFoundError
        return self._boot


FIRST, SECOND, THIRD = (f"{n}aaaaaaa-0000-4000-8000-000000000000" for n in (1, 2, 3))

# What a power cut makes of the bytes of which `synced` are on stable storage.
CUTS: dict[str, Callable[[bytes, int], bytes]] = {
    "nothing was lost": lambda content, synced: content,
    "zeros": lambda content, synced: content[:synced] + bytes(len(content) - synced),
    "longer": lambda content, synced: content[:synced] + bytes(len(content) - synced + 5000),
    "some zeros": lambda content, synced: content[: synced + 1] + bytes(len(content) - synced),
    "shorter": lambda content, synced: content[:synced],
}
any_cut = pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
provisional_or_not = pytest.mark.parametrize("provisional", [False, True])


def lose_power(root: Path, cut: Callable[[bytes, int], bytes], synced: int) -> None:
    path = root / FOLDER / f"{UPLOAD}.bytes"
    path.write_bytes(cut(path.read_bytes(), synced))


async def added(
    store: Any, *pieces: bytes, provisional: bool = False, kept: bool | None = False
) -> None:
    """Pieces behind what is there, `kept` synced or not, or not at all."""
    draft = await going_on(store, provisional=provisional)
    await reviewed(draft)
    for piece in pieces:
        await draft.append([piece])
    if kept is not None:
        await draft.keep(None, synced=kept)
    await let_go(draft)


async def checked(store: Any, root: Path, size: int) -> None:
    """It is `size` bytes of the whole, and goes on to the whole."""
    draft = store.resumable.resume(UPLOAD, None, provisional=False)
    assert await draft.resume() == Resumed(size, size, None)
    assert (root / FOLDER / f"{UPLOAD}.bytes").stat().st_size == size
    assert await reviewed(draft) == WHOLE[:size]
    await draft.append([WHOLE[size:]])
    await draft.publish(HELLO)
    assert await content_of(store, HELLO) == WHOLE
    assert (await store.resumable.find(UPLOAD)).status is UploadStatus.STORED


# After a power cut


@asynchronous
@any_cut
@provisional_or_not
@pytest.mark.parametrize("kept", [False, None], ids=["kept", "cut off"])
@pytest.mark.parametrize("looks", [0, 1, 2])
async def test_only_what_was_synced_counts_and_what_follows_is_right(
    start: Any,
    root: Path,
    cut: Callable[[bytes, int], bytes],
    provisional: bool,
    kept: bool | None,
    looks: int,
) -> None:
    store = start(Boot(FIRST))
    await begun(store, b"hello")
    await added(store, b" w", b"or", provisional=provisional, kept=kept)
    assert await size_in(store) == (5 if provisional and kept is None else 9)
    await store.stop()
    lose_power(root, cut, 5)
    store = start(Boot(SECOND))
    for n in range(looks):
        assert (await store.resumable.find(UPLOAD, synced=n == 1)).size == 5
    await checked(store, root, 5)


async def synced_by_draft(store: Any) -> None:
    draft = await going_on(store)
    await draft.append([b" wor"])
    await draft.sync()
    await draft.append([b"ld"])
    await let_go(draft)


async def synced_in_the_middle(store: Any) -> None:
    draft = await going_on(store)
    for piece in (b" w", b"or"):
        await draft.append([piece])
        await draft.sync()
    await draft.append([b"ld"])
    await draft.keep(None, synced=False)


async def synced_when_found(store: Any, *, provisional: bool) -> None:
    await added(store, b" wor", provisional=provisional)
    assert (await store.resumable.find(UPLOAD, synced=True)).size == 9
    await added(store, b"ld", provisional=provisional)


async def synced_behind_noise(store: Any) -> None:
    await added(store, b" wor")
    await added(store, b"NO", provisional=True, kept=None)
    assert (await store.resumable.find(UPLOAD, synced=True)).size == 9


async def noise_behind_synced(store: Any) -> None:
    await added(store, b" wor", kept=True)
    await added(store, b"NO", provisional=True, kept=None)


WAYS: dict[str, Callable[[Any], Any]] = {
    "sync": synced_by_draft,
    "sync within a part": synced_in_the_middle,
    "kept": lambda store: added(store, b" wor", kept=True),
    "kept, what was provisional": lambda s: added(s, b" wor", provisional=True, kept=True),
    "found": lambda store: synced_when_found(store, provisional=False),
    "found, what was provisional": lambda store: synced_when_found(store, provisional=True),
    "found, before what does not count": synced_behind_noise,
    "kept, before what does not count": noise_behind_synced,
}


@asynchronous
@any_cut
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("asked", [False, True])
async def test_what_was_synced_counts(
    start: Any, root: Path, cut: Callable[[bytes, int], bytes], way: Any, asked: bool
) -> None:
    store = start(Boot(FIRST))
    await begun(store, b"hello")
    await way(store)
    await store.stop()
    lose_power(root, cut, 9)
    store = start(Boot(SECOND))
    assert not asked or await size_in(store) == 9
    await checked(store, root, 9)


@asynchronous
@any_cut
@provisional_or_not
async def test_of_a_first_part_that_was_not_synced_nothing_counts(
    start: Any, root: Path, cut: Callable[[bytes, int], bytes], provisional: bool
) -> None:
    store = start(Boot(FIRST))
    await begun(store)
    await added(store, b"hello", provisional=provisional)
    assert await size_in(store) == 5
    await store.stop()
    lose_power(root, cut, 0)
    store = start(Boot(SECOND))
    assert await size_in(store) == 0
    await checked(store, root, 0)


@asynchronous
async def test_an_upload_that_nobody_has_added_to_begins_at_its_beginning(
    start: Any, root: Path
) -> None:
    store = start(Boot(FIRST))
    await begun(store)
    await store.stop()
    store = start(Boot(SECOND))
    assert await size_in(store) == 0
    await checked(store, root, 0)


@asynchronous
@any_cut
@pytest.mark.parametrize(
    ("between", "size"),
    [("nothing", 5), ("found", 5), ("resumed", 5), ("added", 5), ("synced", 7), ("provisional", 5)],
)
async def test_a_second_power_cut_takes_nothing_that_was_synced_before_the_first(
    start: Any, root: Path, cut: Callable[[bytes, int], bytes], between: str, size: int
) -> None:
    store = start(Boot(FIRST))
    await begun(store, b"hello")
    await added(store, b" wor")
    await store.stop()
    lose_power(root, cut, 5)
    store = start(Boot(SECOND))
    match between:
        case "found":
            assert (await store.resumable.find(UPLOAD, synced=True)).size == 5
        case "resumed":
            await let_go(await going_on(store))
        case "added" | "synced":
            await added(store, b" w", kept=between == "synced")
        case "provisional":
            await added(store, b" w", provisional=True)
    await store.stop()
    lose_power(root, cut, size)
    store = start(Boot(THIRD))
    assert await size_in(store) == size
    await checked(store, root, size)


@asynchronous
async def test_what_was_synced_and_undone_does_not_come_back(start: Any, root: Path) -> None:
    """That the file is shorter again is not synced: it can come back as it was before."""
    store = start(Boot(FIRST))
    await begun(store, b"hello")
    draft = await going_on(store)
    await draft.append([b"NOISE"])
    await draft.sync()
    await draft.release(undo=True)
    assert (await store.resumable.find(UPLOAD, synced=True)).size == 5
    await store.stop()
    lose_power(root, lambda content, synced: b"helloNOISE", 5)
    store = start(Boot(SECOND))
    assert await size_in(store) == 5
    await checked(store, root, 5)


@asynchronous
@provisional_or_not
async def test_a_kill_after_a_power_cut_takes_nothing(
    start: Any, root: Path, provisional: bool
) -> None:
    store = start(Boot(FIRST))
    await begun(store, b"hello")
    await added(store, b" wor")
    await store.stop()
    lose_power(root, CUTS["longer"], 5)
    store = start(Boot(SECOND))
    await added(store, b" w", provisional=provisional)
    await store.stop()
    store = start(Boot(SECOND))
    assert await size_in(store) == 7
    assert await kept_bytes(store) == WHOLE[:7]


@asynchronous
@any_cut
async def test_a_store_that_is_not_durable_keeps_all_through_a_kill_and_nothing_through_a_power_cut(
    start: Any, root: Path, cut: Callable[[bytes, int], bytes]
) -> None:
    """Nothing is ever synced, so nothing can be relied on."""
    store = start(Boot(FIRST), durable=False)
    await begun(store, b"hello")
    await added(store, b" w", kept=True)
    draft = await going_on(store)
    await draft.append([b"or"])
    await draft.sync()
    await let_go(draft)
    assert (await store.resumable.find(UPLOAD, synced=True)).size == 9
    await store.stop()
    store = start(Boot(FIRST), durable=False)
    assert await size_in(store) == 9
    assert await kept_bytes(store) == WHOLE[:9]
    await store.stop()
    lose_power(root, cut, 0)
    store = start(Boot(SECOND), durable=False)
    assert (await store.resumable.find(UPLOAD, synced=True)).size == 0
    await checked(store, root, 0)


@asynchronous
async def test_where_boots_have_no_id_each_start_is_one(start: Any, root: Path) -> None:
    store = start(Boot(None))
    await begun(store, b"hello")
    await added(store, b" wor")
    assert await size_in(store) == 9
    await store.stop()
    store = start(Boot(None))
    assert await size_in(store) == 5
    await added(store, b" wor", kept=True)
    await store.stop()
    store = start(Boot(None))
    await checked(store, root, 9)


@asynchronous
@pytest.mark.parametrize("seed", range(30))
async def test_whatever_is_done_and_whatever_happens_what_counts_is_what_was_written(
    start: Any, root: Path, seed: int
) -> None:
    """Kills and power cuts between any steps, against a model of what has to count."""
    random = Random(seed)
    content = Random(seed).randbytes(10_000).replace(b"\0", b"\1")
    boot = 0
    store = start(Boot(f"boot-{boot}"))
    await begun(store)
    await let_go(await going_on(store))  # before that there is nothing that a cut could change
    size = synced = 0
    for _ in range(40):
        step = random.choice(["add", "add", "add", "look", "noise", "undo", "kill", "cut"])
        if step in ("add", "noise", "undo"):
            provisional = step == "noise" or random.random() < 0.3
            draft = await going_on(store, provisional=provisional)
            await reviewed(draft)
            began_at = size
            for _ in range(random.randint(0, 3)):
                more = random.randint(0, 100)
                piece = content[size : size + more] if step == "add" else b"\xff" * more
                await draft.append([piece])
                size += len(piece)
                if step == "add" and not provisional and random.random() < 0.3:
                    await draft.sync()
                    synced = size
            if step == "add" and (provisional or random.random() < 0.5):
                syncs = random.random() < 0.3
                await draft.keep(None, synced=syncs)
                synced = size if syncs else synced
            elif step == "undo" or provisional:
                await draft.release(undo=step == "undo")
                size = began_at
            await let_go(draft)
        elif step == "look":
            assert (await store.resumable.find(UPLOAD, synced=True)).size == size
            synced = size
        else:
            await store.stop()
            if step == "cut":
                lose_power(root, random.choice(list(CUTS.values())), synced)
                boot, size = boot + 1, synced
            store = start(Boot(f"boot-{boot}"))
        assert await size_in(store) == size, step
        if random.random() < 0.3:
            assert await kept_bytes(store) == content[:size], step
    assert await kept_bytes(store) == content[:size]


# One mark


@pytest.mark.parametrize(
    ("mark", "size", "boot", "counted"),
    [
        (Watermark("a", 5), 9, "a", 9),
        (Watermark("a", 5), 9, "b", 5),
        (Watermark("a", 5), 3, "a", 3),
        (Watermark("a", 5), 3, "b", 3),
        (Watermark("a", 0), 9, "b", 0),
        (Watermark("a", 5, 7), 9, "a", 7),
        (Watermark("a", 5, 7), 9, "b", 5),
        (Watermark("a", 5, 0), 9, "a", 0),
        (Watermark("a", 5, 7), 6, "a", 6),
        (Watermark("a", 5, 7), 0, "a", 0),
    ],
)
def test_in_its_boot_the_size_counts_but_what_is_provisional_and_in_another_what_was_synced(
    mark: Watermark, size: int, boot: str, counted: int
) -> None:
    assert mark.counted(size, boot) == counted


@contextlib.contextmanager
def marks_in(folder: str | Path, calls: SystemCalls | None = None) -> Iterator[Watermarks]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Watermarks(SymlinkTexts(calls or SystemCalls(), fd))
    finally:
        os.close(fd)


sizes = st.integers(0, 1 << 62)
boots = st.text("0123456789abcdef-", min_size=1, max_size=40)


@given(st.builds(Watermark, boots, sizes, st.none() | sizes), st.builds(Watermark, boots, sizes))
def test_a_mark_is_read_as_it_was_written(first: Watermark, second: Watermark) -> None:
    with TemporaryDirectory() as folder, marks_in(folder) as marks:
        assert marks.read("a.mark") is None
        for mark in (first, second):
            marks.write("a.mark", mark)
            assert marks.read("a.mark") == mark
            assert os.listdir(folder) == ["a.mark"]
        assert marks.read("b.mark") is None


texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=200
)
numbers = st.one_of(
    sizes.map(str),
    st.integers().map(str),
    st.sampled_from(["-", "", "1_0", "\u0663", "1e3", "\n7"]),
)
like_marks = st.lists(st.one_of(numbers, texts), min_size=1, max_size=5).map(" ".join)


@given(texts | like_marks.filter(bool), sizes, boots)
@example("a -5 -", 9, "b")
@example("a 5 -7", 9, "a")
@example("a 5", 9, "a")
@example("a 5 - -", 9, "a")
@example("a " + "9" * 4000 + " -", 9, "b")
@example(" 5 -", 9, "a")
@example("-", 9, "a")
def test_whatever_a_mark_says_no_more_counts_than_is_there_and_no_less_than_nothing(
    text: str, size: int, boot: str
) -> None:
    with TemporaryDirectory() as folder, marks_in(folder) as marks:
        try:
            os.symlink(text, f"{folder}/a.mark")
        except OSError:  # it is too long for a link
            return
        mark = marks.read("a.mark")
        assert mark is not None
        for in_boot in (boot, mark.boot):
            assert 0 <= mark.counted(size, in_boot) <= size
        if mark.boot and mark.synced >= 0:
            assert marks.read("a.mark") == mark


@pytest.mark.parametrize("text", ["nonsense", "7", "a 5", "a 5 - -", "a x -", "a 5 x", "-", " "])
def test_of_what_a_mark_says_that_is_none_nothing_counts(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.mark").symlink_to(text)
    with marks_in(tmp_path) as marks:
        mark = marks.read("a.mark")
        assert mark is not None
        assert (mark.counted(9, ""), mark.counted(9, "a"), mark.counted(0, "a")) == (0, 0, 0)
        marks.write("a.mark", Watermark("a", 5))
        assert marks.read("a.mark") == Watermark("a", 5)


def test_a_text_that_is_no_utf_8_is_no_mark(tmp_path: Path) -> None:
    os.symlink(b"\xff\xfe 5", bytes(tmp_path / "a.mark"))
    with marks_in(tmp_path) as marks:
        mark = marks.read("a.mark")
        assert mark is not None
        assert mark.counted(9, "a") == 0


def test_what_a_crash_has_left_of_a_mark_is_in_nobodys_way(tmp_path: Path) -> None:
    with marks_in(tmp_path) as marks:
        marks.write("a.mark", Watermark("a", 5))
        (tmp_path / "a.mark.new").symlink_to("a 7 -")
        assert marks.read("a.mark") == Watermark("a", 5)
        marks.write("a.mark", Watermark("a", 9))
        assert marks.read("a.mark") == Watermark("a", 9)
    assert os.listdir(tmp_path) == ["a.mark"]


class Watching(CallsLayer):
    """Looks at a mark around each call."""

    def __init__(self, look: Callable[[], Any]) -> None:
        self._look = look
        self.seen: list[Any] = []

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        self.seen.append(self._look())
        try:
            return call()
        finally:
            self.seen.append(self._look())


def test_at_any_time_a_mark_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    old, new = Watermark("a", 5), Watermark("a", 9, 9)
    with marks_in(tmp_path) as marks:
        marks.write("a.mark", old)
        calls = Watching(lambda: marks.read("a.mark"))
        with marks_in(tmp_path, calls) as writing:
            writing.write("a.mark", new)
    assert calls.seen == [old] * (len(calls.seen) - 1) + [new]


def test_a_mark_that_cannot_be_written_is_the_old_one(tmp_path: Path) -> None:
    old, new = Watermark("a", 5), Watermark("a", 9, 9)
    for nth in (2, 3):  # the first has nothing to do
        calls = FailingCalls()
        with marks_in(tmp_path, calls) as marks:
            marks.write("a.mark", old)
            with calls.armed(nth, 28), pytest.raises(OSError, match="No space"):
                marks.write("a.mark", new)
            assert marks.read("a.mark") == old
            marks.write("a.mark", new)
            assert marks.read("a.mark") == new


def test_a_boot_has_an_id_that_stays() -> None:
    boot = SystemCalls().boot_id()
    assert boot == SystemCalls().boot_id()
    assert " " not in boot
    assert len(boot) == 36

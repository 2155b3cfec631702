"""A wall clock that is set makes no upload older or younger."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent

from tests.store.local.faults import FailingCalls
from tests.store.local.test_resumable_drafts import HELLO, UPLOAD, begun, going_on, let_go
from tests.support import asynchronous
from twistedmedia.errors import NotFound
from twistedmedia.store.clock_steps import ClockReading, adjusted_time
from twistedmedia.store.interface import UploadStatus
from twistedmedia.store.local.record_files import ClockFile
from twistedmedia.store.local.syscalls import SystemCalls

S = 10**9
DAY, YEAR, EXPIRY = 24 * 3600, 365 * 24 * 3600, 24 * 3600
STEPS = [DAY, YEAR, 56 * YEAR, 1, 7200]
FOLDER = ".twistedmedia/uploads"
OTHER = "f" * 32
steps = pytest.mark.parametrize("step_s", [*STEPS, *(-step for step in STEPS)])


class Time:
    """The two clocks of a machine, and a sweep by them."""

    def __init__(self, wall_s: float) -> None:
        self.wall_s = wall_s
        self.monotonic_s = 1000.0

    def pass_(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds

    async def sweep(self, store: Any) -> list[str]:
        wall_ns = int(self.wall_s * S)
        await store.resumable.learn()
        await store.resumable.adjust(wall_ns, int(self.monotonic_s * S))
        expired: list[str] = await store.resumable.expire(wall_ns - EXPIRY * S)
        return expired


async def time_of(store: Any, upload: str = UPLOAD) -> Time:
    """The time at which an upload was written to last, which it is now."""
    return Time((await store.resumable.find(upload)).modified_ns / S)


@asynchronous
@steps
@pytest.mark.parametrize("finished", [False, True])
async def test_after_a_step_an_upload_expires_when_it_would_have(
    store: Any, step_s: int, finished: bool
) -> None:
    """Case 88."""
    await begun(store, b"hello")
    if finished:
        await store.resumable.settle(UPLOAD, None)
    time = await time_of(store)
    assert await time.sweep(store) == []
    time.pass_(EXPIRY / 2)
    assert await time.sweep(store) == []
    time.wall_s += step_s
    assert await time.sweep(store) == []
    time.pass_(EXPIRY / 2 - 60)
    assert await time.sweep(store) == []
    time.pass_(EXPIRY if step_s < 0 else 120)  # at the latest after two periods
    assert await time.sweep(store) == [UPLOAD]


@asynchronous
@steps
async def test_after_many_steps_too(store: Any, step_s: int) -> None:
    """Case 88."""
    await begun(store, b"hello")
    time = await time_of(store)
    await time.sweep(store)
    for n in range(10):
        time.pass_(EXPIRY / 20)
        time.wall_s += step_s if n % 2 else -step_s
        assert await time.sweep(store) == []
    time.pass_(2 * EXPIRY)
    assert await time.sweep(store) == [UPLOAD]


@asynchronous
@steps
@pytest.mark.parametrize("boot", ["the same boot", "after a reboot"])
async def test_a_step_while_no_service_ran_makes_nothing_expire(
    start: Any, root: Path, step_s: int, boot: str
) -> None:
    """Case 88: a board without a clock has the time of its first boot until the network tells it
    another.
    """
    store = start(Boot("first"))
    await begun(store, b"hello")
    time = await time_of(store)
    time.pass_(EXPIRY / 2)
    assert await time.sweep(store) == []
    await store.stop()
    time.wall_s += step_s
    time.pass_(3)
    if boot == "after a reboot":
        time.monotonic_s = 5.0
    store = start(Boot("first" if boot == "the same boot" else "second"))
    assert await time.sweep(store) == []
    time.pass_(EXPIRY / 2 - 60)
    assert await time.sweep(store) == []
    time.pass_(EXPIRY + 120)
    assert await time.sweep(store) == [UPLOAD]


@asynchronous
async def test_time_passes_while_no_service_runs(start: Any) -> None:
    store = start(Boot("first"))
    await begun(store, b"hello")
    time = await time_of(store)
    await time.sweep(store)
    await store.stop()
    time.pass_(EXPIRY + 10)
    assert await time.sweep(start(Boot("first"))) == [UPLOAD]


@asynchronous
async def test_a_store_of_which_nothing_is_noted_goes_by_the_wall_clock(
    start: Any, root: Path
) -> None:
    """As a service of an earlier version has left it, and with times in the future."""
    store = start(FailingCalls())
    await begun(store, b"hello")
    await begun(store, b"hello", upload=OTHER)
    time = await time_of(store)
    os.utime(root / FOLDER / f"{OTHER}.bytes", (time.wall_s + YEAR,) * 2)
    time.pass_(EXPIRY + 10)
    assert await time.sweep(store) == [UPLOAD]
    os.utime(root / FOLDER / f"{OTHER}.bytes", (time.wall_s + YEAR,) * 2)
    assert await time.sweep(store) == []
    time.pass_(EXPIRY + 10)
    assert await time.sweep(store) == [OTHER]


class Boot(FailingCalls):
    """Calls in a boot of the machine, in which nothing is really synced."""

    def __init__(self, boot: str) -> None:
        super().__init__()
        self._boot = boot

    def boot_id(self) -> str:
        return self._boot


@asynchronous
async def test_who_writes_while_the_clock_is_set_is_spared_afterwards(start: Any) -> None:
    """Case 88. Its upload is locked, so its time is moved by the next sweep."""
    store = start(FailingCalls())
    await begun(store, b"hello")
    time = await time_of(store)
    await time.sweep(store)
    draft = await going_on(store)
    time.wall_s += YEAR
    assert await time.sweep(store) == []
    await let_go(draft)  # it has sent nothing
    time.pass_(600)
    assert await time.sweep(store) == []
    assert (await store.resumable.find(UPLOAD)).modified_ns / S == pytest.approx(time.wall_s - 600)
    time.pass_(EXPIRY)
    assert await time.sweep(store) == [UPLOAD]


@asynchronous
async def test_who_writes_until_its_time_was_to_be_moved_is_spared(start: Any) -> None:
    """Case 88. The draft is let go of between the two steps of a sweep."""
    store = start(FailingCalls())
    await begun(store, b"hello")
    time = await time_of(store)
    await time.sweep(store)
    draft = await going_on(store)
    time.wall_s += YEAR
    wall_ns = int(time.wall_s * S)
    await store.resumable.adjust(wall_ns, int(time.monotonic_s * S))
    await let_go(draft)
    assert await store.resumable.expire(wall_ns - EXPIRY * S) == []
    time.pass_(600)
    assert await time.sweep(store) == []
    time.pass_(EXPIRY)
    assert await time.sweep(store) == [UPLOAD]


@asynchronous
async def test_who_writes_while_the_clock_is_set_is_spared_after_a_kill_too(
    start: Any, root: Path, tmp_path: Path
) -> None:
    """Case 88: only the process knows that the time of this upload is to be moved."""
    store = start(Boot("first"))
    await begun(store, b"hello")
    time = await time_of(store)
    await time.sweep(store)
    draft = await going_on(store)
    time.wall_s += YEAR
    assert await time.sweep(store) == []
    shutil.copytree(root, tmp_path / "killed", symlinks=True)
    await let_go(draft)
    time.pass_(600)
    after = start(Boot("first"), at=tmp_path / "killed")
    assert await time.sweep(after) == []
    time.pass_(EXPIRY + 10)
    assert await time.sweep(after) == [UPLOAD]


@asynchronous
@pytest.mark.parametrize("noted", [True, False], ids=["with a note", "without one"])
async def test_a_finished_upload_of_the_future_holds_no_other_back(
    start: Any, root: Path, noted: bool
) -> None:
    """Case 88: its time becomes that of the first sweep that sees it."""
    store = start(Boot("first"))
    for upload in (UPLOAD, OTHER):
        await begun(store, b"hello", upload=upload)
        await store.resumable.settle(upload, None)
    time = await time_of(store)
    await time.sweep(store)
    await store.stop()
    os.utime(root / FOLDER / f"{UPLOAD}.taken", (time.wall_s + YEAR,) * 2)
    if not noted:
        (root / ".twistedmedia/clock").unlink()
    store = start(Boot("first"))
    late = "e" * 32
    await begun(store, b"hello", upload=late)
    await store.resumable.settle(late, None)
    assert await time.sweep(store) == []
    time.pass_(EXPIRY + 10)
    assert set(await time.sweep(store)) == {UPLOAD, OTHER, late}


@asynchronous
async def test_a_step_leaves_the_time_of_a_published_file(start: Any, root: Path) -> None:
    """Case 88. It belongs to its entity tag. A storage that failed after the link has left the file
    with two names, and nobody writes to it.
    """
    store = start(FailingCalls())
    await begun(store, b"hello")
    time = await time_of(store)
    await time.sweep(store)
    (root / str(HELLO)).parent.mkdir(parents=True)
    os.link(root / FOLDER / f"{UPLOAD}.bytes", root / str(HELLO))
    before = await store.open(HELLO)
    time.wall_s += YEAR
    await store.resumable.adjust(int(time.wall_s * S), int(time.monotonic_s * S))
    after = await store.open(HELLO)
    assert (after.etag, after.modified_ns) == (before.etag, before.modified_ns)
    kept = await store.resumable.find(UPLOAD)
    assert (kept.status, kept.etag) == (UploadStatus.STORED, before.etag)


@asynchronous
async def test_what_is_shown_is_wall_time(store: Any) -> None:
    await begun(store, b"hello")
    time = await time_of(store)
    await time.sweep(store)
    time.wall_s += YEAR
    time.pass_(60)
    await time.sweep(store)
    at_ns = (await store.resumable.find(UPLOAD)).modified_ns
    assert at_ns / S == pytest.approx(time.wall_s - 60, abs=1)


@asynchronous
async def test_where_the_time_cannot_be_noted_uploads_expire_all_the_same(
    start: Any, root: Path, warnings: list[LogEvent]
) -> None:
    calls = FailingCalls()
    store = start(calls)
    await begun(store, b"hello")
    time = await time_of(store)
    (root / ".twistedmedia/clock").unlink()
    (root / ".twistedmedia/clock").mkdir()
    (root / ".twistedmedia/clock/inside").write_bytes(b"")
    for _ in range(3):
        assert await time.sweep(store) == []
    assert [event["log_format"].partition(":")[0] for event in warnings] == [
        "the time could not be noted"
    ]
    time.wall_s += YEAR
    assert await time.sweep(store) == []
    time.pass_(EXPIRY + 10)
    assert await time.sweep(store) == [UPLOAD]
    with pytest.raises(NotFound):
        await store.resumable.find(UPLOAD)


times = st.integers(0, 1 << 62)


@given(times, st.integers(-(1 << 62), 1 << 62), times)
def test_no_time_is_moved_into_the_future_or_to_before_it_was(
    time_ns: int, step_ns: int, now_ns: int
) -> None:
    after = adjusted_time(time_ns, step_ns, now_ns)
    assert 0 <= after <= now_ns
    # Its age is not more than it was, whether the event came before the step or after it.
    age = (now_ns - step_ns) - time_ns if time_ns <= now_ns - step_ns else 0
    assert now_ns - after <= max(0, age, now_ns - time_ns if step_ns <= 0 else 0)


readings = st.builds(ClockReading, st.sampled_from(["a", "b"]), times, times)


@given(readings, readings)
def test_a_reading_is_kept_as_it_is(first: ClockReading, second: ClockReading) -> None:
    assert ClockReading.parse(str(first)) == first
    assert first.step_to(first) == 0
    with TemporaryDirectory() as folder:
        fd = os.open(folder, os.O_RDONLY)
        clocks = ClockFile(SystemCalls(), fd)
        assert clocks.step_to(first) is None
        clocks.note(first)
        assert clocks.step_to(second) == first.step_to(second)
        assert ClockFile(SystemCalls(), fd).step_to(second) == first.step_to(second)
        os.close(fd)


@pytest.mark.parametrize("text", ["", "a", "a 1", "a b c", "a 1 2 3", "a 1 \udc80"])
def test_a_text_that_is_not_a_reading_is_none(tmp_path: Path, text: str) -> None:
    assert ClockReading.parse(text) is None
    (tmp_path / "clock").write_bytes(os.fsencode(text))
    fd = os.open(tmp_path, os.O_RDONLY)
    assert ClockFile(SystemCalls(), fd).step_to(ClockReading("a", 1, 1)) is None
    os.close(fd)

"""How the free space is shared out among uploads that declare how long they are."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor

from tests.store.conftest import CAPACITY
from tests.store.local.faults import SmallDisk
from tests.store.local.test_resumable_drafts import UPLOAD, begun
from tests.support import asynchronous, named
from twistedmedia.errors import NoSpace
from twistedmedia.store.interface import Reserved
from twistedmedia.store.local.directory import DirectoryStore
from twistedmedia.store.local.space import Reservation, Space
from twistedmedia.store.local.syscalls import SystemCalls

MIB = 1 << 20
ATTACKER, NORMAL = "192.0.2.66", "192.0.2.1"


class Disk(SystemCalls):
    """A file system of `free` bytes; with `blocks` of 0, one that does not know how many."""

    def __init__(self, free: int, blocks: int = 1) -> None:
        self.free = free
        self.blocks = blocks

    def statvfs(self, fd: int) -> os.statvfs_result:
        return os.statvfs_result((1, 1, self.blocks, self.free, self.free, 0, 0, 0, 0, 255))


class Area:
    """The space of a disk, at a time that a test sets."""

    def __init__(self, free: int, blocks: int = 1) -> None:
        self.disk = Disk(free, blocks)
        self.now_s = 1000.0
        self.space = Space(self.disk, 0, now_s=lambda: self.now_s)

    def write(self, reservation: Reservation, size: int) -> None:
        """An upload writes."""
        self.disk.free -= size
        reservation.wrote(size)


@pytest.mark.parametrize("size", [300 * MIB, 700 * MIB])
def test_who_declares_the_whole_disk_and_sends_little_gives_way(size: int) -> None:
    """Case 89. The attacker keeps what it can write in ten minutes at its rate."""
    area = Area(size)
    greedy = area.space.reserve(size - 4096, ATTACKER)
    assert area.space.free() == 4096
    for _ in range(10):
        area.now_s += 1
        area.write(greedy, 65)
    others = [area.space.reserve(20 * MIB, f"203.0.113.{n}") for n in range(5)]
    assert area.space.reserved.callers == 6
    assert greedy.left == 65 * 600
    largest = area.space.reserve(size - 101 * MIB, NORMAL)
    for other in (*others, largest):
        other.release()
    assert area.space.free() == size - 10 * 65 - 65 * 600


def test_one_caller_cannot_take_more_by_more_connections() -> None:
    """Case 89: ten connections of one caller declare all that is free."""
    area = Area(300 * MIB)
    for _ in range(10):
        try:
            area.space.reserve((area.space.free() or 0) - 4096, ATTACKER)
        except NoSpace:
            area.space.reserve(0, ATTACKER)
    for _ in range(14):  # until both hold as much
        assert area.space.reserve(10 * MIB, NORMAL).left == 10 * MIB


def test_of_connections_from_many_addresses_those_that_hold_more_give_way() -> None:
    """Case 89."""
    area = Area(700 * MIB)
    greedy = [area.space.reserve(70 * MIB - 1, f"198.51.100.{n}") for n in range(10)]
    for _ in range(30):
        area.space.reserve(20 * MIB, NORMAL).release()
    assert sum(each.left == 70 * MIB - 1 for each in greedy) == 9  # no more than are needed
    with pytest.raises(NoSpace):
        area.space.reserve(200 * MIB, NORMAL)  # more than any of them holds


def test_an_upload_that_is_fast_keeps_what_it_can_write_soon() -> None:
    area = Area(1000 * MIB)
    fast = area.space.reserve(900 * MIB, ATTACKER)
    area.now_s += 10
    area.write(fast, 5 * MIB)
    with pytest.raises(NoSpace):
        area.space.reserve(800 * MIB, NORMAL)  # it writes 300 MiB in ten minutes
    assert fast.left == 895 * MIB
    area.space.reserve(400 * MIB, NORMAL)
    assert fast.left == 300 * MIB
    area.now_s += 10
    area.write(fast, 5 * MIB)
    assert fast.left == 295 * MIB


def test_one_that_has_just_begun_gives_way_whole() -> None:
    area = Area(100 * MIB)
    begun = area.space.reserve(100 * MIB, ATTACKER)
    area.space.reserve(99 * MIB, NORMAL)
    assert begun.left == 0
    area.write(begun, MIB // 2)  # it goes on
    assert begun.left == 0
    assert area.space.reserved == Reserved(99 * MIB, 1, 99 * MIB)


def test_a_smaller_or_equal_share_gives_way_to_nobody() -> None:
    area = Area(100)
    area.space.reserve(40, "a")
    area.space.reserve(60, "b")
    with pytest.raises(NoSpace):
        area.space.reserve(60, "c")
    with pytest.raises(NoSpace):
        area.space.reserve(1, "b")  # who has most has no right to more
    area.space.reserve(50, "c")
    assert area.space.reserved == Reserved(40 + 50, 2, 50)


def test_the_largest_share_gives_way_first_whatever_its_reservations_are() -> None:
    """Case 89: a caller does not keep its share by many small reservations."""
    area = Area(140)
    small = [area.space.reserve(20, ATTACKER) for _ in range(4)]
    large = area.space.reserve(60, "203.0.113.1")
    area.space.reserve(30, NORMAL)
    assert large.left == 60
    assert sorted(each.left for each in small) == [0, 0, 20, 20]


def test_what_a_newcomer_cannot_have_it_takes_from_nobody() -> None:
    area = Area(100)
    first = area.space.reserve(90, "a")
    with pytest.raises(NoSpace):
        area.space.reserve(101, "b")
    assert (first.left, area.space.reserved) == (90, Reserved(90, 1, 90))


def test_where_more_is_reserved_than_is_free_an_upload_of_unknown_length_begins() -> None:
    """Another program has filled the disk meanwhile."""
    area = Area(100)
    area.space.reserve(90, "a")
    area.disk.free = 50
    assert area.space.free() == 0
    area.space.reserve(0, "b")
    assert area.space.reserved == Reserved(0, 0, 0)


def test_where_the_free_space_is_unknown_nothing_gives_way() -> None:
    area = Area(0, blocks=0)
    greedy = area.space.reserve(1 << 60, ATTACKER)
    area.space.reserve(1 << 60, NORMAL)
    assert (greedy.left, area.space.free()) == (1 << 60, None)


def test_a_release_counts_once() -> None:
    area = Area(100)
    first, second = area.space.reserve(10, "a"), area.space.reserve(20, "a")
    assert area.space.reserved == Reserved(30, 1, 30)
    for _ in range(2):
        first.release()
        assert area.space.reserved == Reserved(20, 1, 20)
    second.wrote(50)  # more than it declared
    assert (area.space.reserved, area.space.free()) == (Reserved(0, 0, 0), 100)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reserve", "write", "release"]),
            st.integers(0, 9),
            st.integers(0, 300),
        ),
        max_size=60,
    )
)
def test_whatever_happens_the_total_is_what_is_left_of_all(
    steps: list[tuple[str, int, int]],
) -> None:
    area = Area(1000)
    held: dict[int, Reservation] = {}
    for step, who, size in steps:
        area.now_s += 0.5
        if step == "reserve":
            before = area.space.free()
            try:
                made = area.space.reserve(size, f"{who % 3}")
            except NoSpace:
                assert before is not None
                assert size > before
            else:
                assert sum(each.left for each in held.values()) + size <= area.disk.free
                if who in held:
                    held[who].release()
                held[who] = made
        elif step == "write" and who in held:
            area.write(held[who], min(size, area.disk.free))
        elif who in held:
            held.pop(who).release()
        lefts = [each.left for each in held.values()]
        assert min(lefts, default=0) >= 0
        assert area.space.reserved.size == sum(lefts)


@pytest_twisted.async_yield_fixture
async def small_directory(tmp_path: Path) -> AsyncIterator[Any]:
    """A directory store with room for CAPACITY bytes."""
    root = str(tmp_path / "media")
    store = DirectoryStore(reactor, root, calls=SmallDisk(root, CAPACITY))
    store.start()
    yield store
    await store.stop()


@asynchronous
async def test_a_draft_that_gave_way_goes_on_while_there_is_space(small_directory: Any) -> None:
    """Case 89."""
    greedy = small_directory.begin(CAPACITY, ATTACKER)
    await greedy.prepare(named("a/greedy.mp3"))
    assert small_directory.reserved == Reserved(CAPACITY, 1, CAPACITY)
    other = small_directory.begin(100, NORMAL)
    await other.prepare(named("a/other.mp3"))
    await other.append([bytes(100)])
    await other.publish(named("a/other.mp3"))
    await greedy.append([bytes(CAPACITY - 100)])
    with pytest.raises(NoSpace):
        await greedy.append([b"x"])
    greedy.discard()
    assert (await small_directory.look()).free is not None


@asynchronous
async def test_a_part_of_an_upload_is_in_the_share_of_its_caller(small_directory: Any) -> None:
    await begun(small_directory)
    draft = small_directory.resumable.resume(UPLOAD, 700, provisional=False, caller=ATTACKER)
    await draft.resume()
    await (other := small_directory.begin(400, NORMAL)).prepare(named("a/other.mp3"))
    with pytest.raises(NoSpace):
        await (second := small_directory.begin(600, ATTACKER)).prepare(named("a/second.mp3"))
    for each in (other, second):
        each.discard()
    await draft.release(undo=True)

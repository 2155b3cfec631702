"""The limit of descriptors, and freed memory that is returned to the system (case 89)."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from twistedmedia.service.process import (
    CHECK_S,
    MIN_GAIN_BYTES,
    TRIMS,
    Heap,
    HeapTrimmer,
    find_heap,
    raise_descriptor_limit,
)

BLOCKS = 4000
BLOCK_BYTES = 20_000


class Loop(Clock):
    """A reactor that runs functions for threads at once."""

    def callInThread(self, function: Callable[[], object]) -> None:
        function()


class Counted(Heap):
    """A heap whose free bytes a test sets. It counts checks and trims."""

    def __init__(self) -> None:
        self.free = 0
        self.looks = 0
        self.trims = 0
        self.look_takes: Callable[[], None] = _no_time
        self.trim_takes: Callable[[], None] = _no_time

    def free_bytes(self) -> int:
        self.looks += 1
        self.look_takes()
        return self.free

    def trim(self) -> None:
        self.trims += 1
        self.trim_takes()


def _no_time() -> None:
    """Do nothing."""


class Trimming:
    """A started `HeapTrimmer` with its loop and heap."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.heap = Counted()
        self.trimming = HeapTrimmer(self.loop, self.heap)
        self.trimming.start()

    def trims_with(self, free: int, looks: int = 2 + TRIMS) -> int:
        """How often `looks` checks with `free` bytes begin a series of trims."""
        self.heap.free = free
        before = self.heap.trims
        self.loop.pump([CHECK_S] * looks)
        times, rest = divmod(self.heap.trims - before, TRIMS)
        assert rest == 0
        return times


def test_freed_memory_is_returned_once() -> None:
    """Returned memory still counts as free."""
    service = Trimming()
    assert [service.trims_with(MIN_GAIN_BYTES * n) for n in (0, 1, 1, 2, 9, 9)] == [
        0,
        1,
        0,
        1,
        1,
        0,
    ]


def test_a_small_gain_is_ignored() -> None:
    service = Trimming()
    assert service.trims_with(MIN_GAIN_BYTES - 1) == 0
    assert service.trims_with(MIN_GAIN_BYTES) == 1


def test_small_gains_add_up() -> None:
    service = Trimming()
    assert sum(service.trims_with(n * MIN_GAIN_BYTES // 4) for n in range(9)) == 2


def test_memory_that_is_used_and_freed_again_is_returned_again() -> None:
    service = Trimming()
    sizes = (9, 1, 9, 0, 1)
    assert [service.trims_with(MIN_GAIN_BYTES * n) for n in sizes] == [1, 0, 1, 0, 1]


def test_memory_that_is_used_within_a_second_is_kept() -> None:
    """A busy service frees and uses memory all the time."""
    service = Trimming()
    for _ in range(5):
        assert service.trims_with(MIN_GAIN_BYTES * 9, looks=1) == 0
        assert service.trims_with(0, looks=1) == 0
    assert service.trims_with(MIN_GAIN_BYTES * 9, looks=2 + TRIMS) == 1


def test_memory_that_is_free_at_the_start_does_not_count() -> None:
    heap, loop = Counted(), Loop()
    heap.free = 9 * MIN_GAIN_BYTES
    HeapTrimmer(loop, heap).start()
    loop.pump([CHECK_S] * 5)
    assert heap.trims == 0


@pytest.mark.parametrize("slow", ["look_takes", "trim_takes"])
def test_a_slow_check_or_trim_is_followed_by_a_long_rest(slow: str) -> None:
    """The event loop waits for it (case 89)."""
    service = Trimming()
    setattr(service.heap, slow, lambda: service.loop.advance(0.05))
    service.heap.free = 9 * MIN_GAIN_BYTES
    service.loop.pump([CHECK_S] * 3)
    looks = service.heap.looks
    service.loop.pump([CHECK_S] * 50)
    assert 8 <= service.heap.looks - looks <= 10


def test_it_stops() -> None:
    service = Trimming()
    assert service.trims_with(MIN_GAIN_BYTES, looks=1) == 0
    service.trimming.stop()
    service.trimming.stop()
    assert service.trims_with(MIN_GAIN_BYTES) == 0
    assert service.loop.getDelayedCalls() == []


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_between_used_blocks_is_returned() -> None:
    heap = find_heap()
    assert heap is not None, "the tests run with glibc 2.33 or later"
    blocks = [bytearray(BLOCK_BYTES) for _ in range(BLOCKS)]
    kept = blocks[::10]
    full, free = resident(), heap.free_bytes()
    del blocks
    assert heap.free_bytes() > free + BLOCKS * BLOCK_BYTES // 2
    heap.trim()
    assert resident() < full - BLOCKS * BLOCK_BYTES // 2
    assert len(kept) == BLOCKS // 10


def test_a_c_library_without_these_functions_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twistedmedia.service.process.ctypes.CDLL", lambda name: object())
    assert find_heap() is None
    loop = Loop()
    trimming = HeapTrimmer(loop, find_heap())
    trimming.start()
    assert loop.getDelayedCalls() == []
    trimming.stop()


INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "raised"),
    [
        (1024, 500_000, 15_171, 65_536),
        (1024, 500_000, 100_000, 100_000),
        (1024, 4096, 15_171, 4096),
        (1024, INFINITY, 100_000, 100_000),
        (100_000, 500_000, 15_171, None),
        (4096, 4096, 15_171, None),
        (INFINITY, INFINITY, 15_171, None),
    ],
)
def test_the_soft_limit_of_descriptors_is_raised_up_to_the_hard_one(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, raised: int | None
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limit: limits.append(limit))
    raise_descriptor_limit(wanted)
    assert limits == ([] if raised is None else [(raised, hard)])

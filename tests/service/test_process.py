"""Memory that is given back to the system when it was freed (case 89)."""

from __future__ import annotations

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
)

BLOCKS = 4000
BLOCK_BYTES = 20_000


class Loop(Clock):
    """A reactor whose threads do their work at once."""

    def callInThread(self, function: Callable[[], object]) -> None:
        function()


class Counted(Heap):
    """A heap that a test fills, and whose trims are counted."""

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
    """It takes none."""


class Service:
    """A loop, its heap and its trimming."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.heap = Counted()
        self.trimming = HeapTrimmer(self.loop, self.heap)
        self.trimming.start()

    def trims_with(self, free: int, looks: int = 2 + TRIMS) -> int:
        """How often the heap is found worth it in so many looks with this much free."""
        self.heap.free = free
        before = self.heap.trims
        self.loop.pump([CHECK_S] * looks)
        times, rest = divmod(self.heap.trims - before, TRIMS)
        assert rest == 0
        return times


def test_what_was_freed_is_given_back_once() -> None:
    """What was given back still counts as free."""
    service = Service()
    assert [service.trims_with(MIN_GAIN_BYTES * n) for n in (0, 1, 1, 2, 9, 9)] == [
        0,
        1,
        0,
        1,
        1,
        0,
    ]


def test_little_is_not_worth_it() -> None:
    service = Service()
    assert service.trims_with(MIN_GAIN_BYTES - 1) == 0
    assert service.trims_with(MIN_GAIN_BYTES) == 1


def test_little_by_little_it_is_much() -> None:
    service = Service()
    assert sum(service.trims_with(n * MIN_GAIN_BYTES // 4) for n in range(9)) == 2


def test_what_is_used_again_and_freed_again_is_given_back_again() -> None:
    service = Service()
    sizes = (9, 1, 9, 0, 1)
    assert [service.trims_with(MIN_GAIN_BYTES * n) for n in sizes] == [1, 0, 1, 0, 1]


def test_what_is_used_within_a_second_is_kept() -> None:
    """A busy service frees and uses memory all the time."""
    service = Service()
    for _ in range(5):
        assert service.trims_with(MIN_GAIN_BYTES * 9, looks=1) == 0
        assert service.trims_with(0, looks=1) == 0
    assert service.trims_with(MIN_GAIN_BYTES * 9, looks=2 + TRIMS) == 1


def test_what_is_free_at_the_start_is_no_reason() -> None:
    heap, loop = Counted(), Loop()
    heap.free = 9 * MIN_GAIN_BYTES
    HeapTrimmer(loop, heap).start()
    loop.pump([CHECK_S] * 5)
    assert heap.trims == 0


@pytest.mark.parametrize("slow", ["look_takes", "trim_takes"])
def test_what_takes_long_is_followed_by_a_long_rest(slow: str) -> None:
    """The event loop waits meanwhile: case 89."""
    service = Service()
    setattr(service.heap, slow, lambda: service.loop.advance(0.05))
    service.heap.free = 9 * MIN_GAIN_BYTES
    service.loop.pump([CHECK_S] * 3)
    looks = service.heap.looks
    service.loop.pump([CHECK_S] * 50)
    assert 8 <= service.heap.looks - looks <= 10


def test_it_stops() -> None:
    service = Service()
    assert service.trims_with(MIN_GAIN_BYTES, looks=1) == 0
    service.trimming.stop()
    service.trimming.stop()
    assert service.trims_with(MIN_GAIN_BYTES) == 0
    assert service.loop.getDelayedCalls() == []


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_what_was_freed_between_blocks_in_use_goes_back() -> None:
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


def test_a_system_without_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twistedmedia.service.process.ctypes.CDLL", lambda name: object())
    assert find_heap() is None
    loop = Loop()
    trimming = HeapTrimmer(loop, find_heap())
    trimming.start()
    assert loop.getDelayedCalls() == []
    trimming.stop()

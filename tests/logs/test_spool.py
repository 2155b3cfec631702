"""Spools: the queue is bounded and in order, and nothing waits for the thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest
from twisted.logger import LogEvent

from tests.support import TIMEOUT_S
from twistedmedia.logs import spool as module
from twistedmedia.logs.spool import LineFile, Spool


class Log:
    """A spool, and a record of what its thread did."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.batches: list[int] = []
        self.reports: list[int] = []
        self.may_write = threading.Event()
        self.may_write.set()
        self.unwritten = 0  # of each batch
        self.spool: Spool[int] = Spool("a log", self._write, self.reports.append)
        self.spool.start()

    def _write(self, items: list[int]) -> int:
        self.may_write.wait()
        self.batches.append(len(items))
        self.written += items[: len(items) - self.unwritten]
        return self.unwritten

    def hang(self) -> None:
        """The thread waits in `_write` until `go_on`."""
        self.may_write.clear()

    def go_on(self) -> None:
        self.may_write.set()
        assert self.spool.wait(TIMEOUT_S)


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    log.may_write.set()
    log.spool.finish()
    log.spool._thread.join(TIMEOUT_S)
    assert not log.spool._thread.is_alive()


def test_items_are_written_in_order_and_together(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COLLECT_S", 60.0)
    for number in range(1000):
        assert log.spool.add(number, 1)
    log.spool.hurry()
    assert log.spool.wait(TIMEOUT_S)
    assert log.written == list(range(1000))
    assert len(log.batches) == 1


def test_a_wait_ends_the_collecting(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each start of a service would take 0.1 s more. It collects again afterwards."""
    monkeypatch.setattr(module, "_COLLECT_S", 10 * TIMEOUT_S)
    log.spool.add(1, 1)
    assert log.spool.wait(TIMEOUT_S)
    log.spool.add(2, 1)
    log.spool.add(3, 1)
    assert log.spool.wait(TIMEOUT_S)
    assert (log.written, log.batches) == ([1, 2, 3], [1, 2])


def test_items_beyond_the_bound_are_dropped_counted_and_reported_once(log: Log) -> None:
    """Case 91."""
    log.hang()
    size = module._WAITING_BYTES // 10
    kept = [number for number in range(100) if log.spool.add(number, size)]
    assert kept == list(range(11)), "a mebibyte, and the one that goes beyond it"
    assert log.spool.dropped == 89
    log.go_on()
    assert log.written == kept
    assert log.reports == [89]
    log.spool.add(100, size)
    assert log.spool.wait(TIMEOUT_S)
    assert log.reports == [89]
    assert log.spool.dropped == 89


def test_expendable_items_have_half_of_the_room(log: Log) -> None:
    """Case 91. A flood of refused requests leaves room for what an operator needs."""
    log.hang()
    size = module._WAITING_BYTES // 10
    flood = [number for number in range(100) if log.spool.add(number, size, is_expendable=True)]
    assert flood == list(range(6)), "half a mebibyte, and the one that goes beyond it"
    needed = [number for number in range(100, 200) if log.spool.add(number, size)]
    assert needed == list(range(100, 105))
    assert not log.spool.add(200, size, is_expendable=True)
    assert log.spool.dropped == 94 + 95 + 1
    log.go_on()
    assert log.written == flood + needed
    assert log.reports == [190]
    assert log.spool.add(201, size, is_expendable=True)


def test_items_that_cannot_be_written_are_counted_and_reported_after_the_next_write(
    log: Log,
) -> None:
    """Case 91."""
    log.unwritten = 1
    for number in range(3):
        log.spool.add(number, 1)
        assert log.spool.wait(TIMEOUT_S)
    assert (log.spool.dropped, log.reports) == (3, [])
    log.unwritten = 0
    log.spool.add(3, 1)
    assert log.spool.wait(TIMEOUT_S)
    assert (log.written, log.reports) == ([3], [3])


def test_there_is_room_again_after_the_queue_was_written(log: Log) -> None:
    for _ in range(5):
        log.hang()
        while log.spool.add(0, 100_000):
            pass
        log.go_on()
        assert log.spool.add(0, 100_000)
        assert log.spool.wait(TIMEOUT_S)
    assert log.spool.dropped == 5


def test_a_job_is_done_between_the_items(log: Log) -> None:
    seen: list[list[int]] = []
    for number in range(3):
        log.spool.add(number, 1)
        log.spool.call(lambda: seen.append(list(log.written)))
    assert log.spool.wait(TIMEOUT_S)
    assert seen == [[0], [0, 1], [0, 1, 2]]


def test_a_job_that_fails_is_logged_and_the_thread_continues(
    log: Log, nothing_left_behind: list[LogEvent]
) -> None:
    log.spool.call(lambda: os.close(-1))
    log.spool.add(1, 1)
    assert log.spool.wait(TIMEOUT_S)
    assert log.written == [1]
    (event,) = nothing_left_behind
    assert event["name"] == "a log"
    nothing_left_behind.clear()


def test_a_write_that_fails_is_logged_and_the_thread_continues(
    nothing_left_behind: list[LogEvent],
) -> None:
    written: list[list[int]] = []

    def write(items: list[int]) -> int:
        if 1 in items:
            raise ValueError("I do not like it")
        written.append(items)
        return 0

    spool: Spool[int] = Spool("a log", write, lambda _: None)
    spool.start()
    for number in range(3):
        spool.add(number, 1)
        assert spool.wait(TIMEOUT_S)
    spool.finish()
    spool._thread.join(TIMEOUT_S)
    assert (written, spool.dropped) == ([[0], [2]], 1)
    (event,) = nothing_left_behind
    assert event["name"] == "a log"
    nothing_left_behind.clear()


def test_a_wait_for_a_log_that_hangs_ends(log: Log) -> None:
    """Case 91."""
    log.hang()
    log.spool.add(1, 1)
    assert not log.spool.wait(0.01)


def test_a_spool_that_hurries_does_not_collect(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COLLECT_S", 60.0)
    log.spool.hurry()
    log.spool.add(1, 1)
    assert log.spool.wait(TIMEOUT_S)


def test_threads_and_signal_handlers_may_add_and_the_counts_stay_exact(log: Log) -> None:
    """A wrong count would move the bound over the months."""

    def add(number: int = 0, frame: FrameType | None = None) -> None:
        log.spool.add(0, 7)

    def add_many() -> None:
        for _ in range(20_000):
            add()

    before = signal.signal(signal.SIGALRM, add)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        threads = [threading.Thread(target=add_many) for _ in range(4)]
        for thread in threads:
            thread.start()
        add_many()
        for thread in threads:
            thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert log.spool.wait(TIMEOUT_S)
    assert len(log.written) + log.spool.dropped > 100_000
    assert log.spool._added_bytes == log.spool._done_bytes == 7 * len(log.written)


# Files


class Disk:
    """A file that accepts `room` bytes in all, at most five at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.content = b""

    def write(self, data: memoryview) -> int:
        if self.room <= 0:
            raise OSError(28, "No space left on device")
        taken = bytes(data[: min(5, self.room)])
        self.room -= len(taken)
        self.content += taken
        return len(taken)


@pytest.mark.parametrize("room", range(25))
def test_a_line_that_was_written_in_part_is_ended_before_the_next(room: int) -> None:
    disk = Disk(room)
    file = LineFile(disk.write, lambda: 1)
    lines = [b"abcdef\n", b"ghi\n", b"jklmnopq\n"]
    ends = [7, 11, 20]
    lost, error = file.write(lines)
    assert lost == sum(end > room for end in ends)
    assert (error is None) == (lost == 0)
    disk.room = 100
    assert file.write([b"next\n"]) == (0, None)
    whole = b"".join(lines[: 3 - lost])
    assert disk.content.startswith(whole)
    assert disk.content.endswith(b"next\n")
    torn = disk.content[len(whole) : -5]
    assert torn == b"" or torn.endswith(b"\n")


def test_two_files_on_one_pipe_keep_their_lines_apart() -> None:
    """Both logs can go to the standard output. A pipe splits writes larger than PIPE_BUF."""
    reading, writing = os.pipe()
    files = [LineFile(lambda data: os.write(writing, data[:100]), lambda: writing) for _ in "ab"]
    lines = [letter * 500 + b"\n" for letter in (b"a", b"b")]
    threads = [
        threading.Thread(
            target=lambda each: [each[0].write([each[1]]) for _ in range(100)], args=(pair,)
        )
        for pair in zip(files, lines, strict=True)
    ]
    for thread in threads:
        thread.start()
    read = b""
    while len(read) < 200 * 501:
        read += os.read(reading, 1 << 16)
    for thread in threads:
        thread.join(TIMEOUT_S)
    os.close(reading)
    os.close(writing)
    assert sorted(read.splitlines(keepends=True)) == sorted(lines * 100)


def test_a_full_non_blocking_pipe_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    file = LineFile(lambda data: os.write(writing, data), lambda: writing)
    line = b"x" * 9_999 + b"\n"
    outcome: list[object] = []
    thread = threading.Thread(target=lambda: outcome.append(file.write([line] * 50)))
    thread.start()
    read = b""
    while len(read) < 500_000:
        read += os.read(reading, 1 << 16)
    thread.join(TIMEOUT_S)
    os.close(reading)
    os.close(writing)
    assert outcome == [(0, None)]
    assert read == line * 50

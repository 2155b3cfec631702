"""Logs that nothing waits for: what is added to a spool waits in memory, and a thread writes it.

A disk that is full or hangs, and a pipe that nobody reads, hold up this thread alone. What waits is
bounded; what is beyond that is dropped and counted. Lines about refused requests are dropped first.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from twisted.logger import Logger

# What may wait: some ten thousand lines, or several seconds of a slow disk.
_WAITING_BYTES = 1 << 20
# One client can cause hundreds of lines a second by requests that are refused. They must not take
# the room of lines that an operator needs.
_EXPENDABLE_BYTES = _WAITING_BYTES // 2
# A thread that wakes up for each line would take time from the event loop.
_COLLECT_S = 0.1
LAST_WAIT_S = 0.75  # how long the end of a process waits for a log that hangs

T = TypeVar("T")

_log = Logger()
# Of each file that is written to, by device and inode. Two logs may go to one pipe, and a pipe
# splits what is larger than PIPE_BUF.
_locks: WeakValueDictionary[tuple[int, int], threading.Lock] = WeakValueDictionary()


class Spool(Generic[T]):
    """A bounded queue, and a daemon thread that empties it. Any thread may add items; so may
    signal handlers and finalizers.
    """

    def __init__(
        self, name: str, write: Callable[[list[T]], int], tell: Callable[[int], None]
    ) -> None:
        """`write` and `tell` are called in the thread, whose name is `name`. `write` gets items in
        the order in which they were added, and returns how many of them could not be written.
        `tell` gets the number of items that were dropped since it was called last; it is called
        when something was written again.
        """
        self._write = write
        self._tell = tell
        self._queue: SimpleQueue[tuple[T, int] | Callable[[], None] | None] = SimpleQueue()
        # CPython does not interrupt `+=` on these, neither for a thread nor for a signal.
        self._added_bytes = 0
        self._done_bytes = 0  # the thread's
        self._refused = 0
        self._unwritten = 0  # the thread's
        self._told = 0
        self._hurries = False
        self._calls: SimpleQueue[None] = SimpleQueue()  # unlike an Event, also for signal handlers
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def dropped(self) -> int:
        """How many items were dropped so far."""
        return self._refused + self._unwritten

    def start(self) -> None:
        """Start the thread. A fork afterwards would lose it."""
        self._thread.start()

    def add(self, item: T, size_bytes: int, *, is_expendable: bool = False) -> bool:
        """Add `item`, which takes `size_bytes`. Returns whether there was room for it. For what
        `is_expendable` there is only half as much room.
        """
        waiting_bytes = self._added_bytes - self._done_bytes
        if waiting_bytes > (_EXPENDABLE_BYTES if is_expendable else _WAITING_BYTES):
            self._refused += 1
            return False
        self._added_bytes += size_bytes
        self._queue.put((item, size_bytes))
        return True

    def call(self, job: Callable[[], None]) -> None:
        """Call `job` in the thread, after what was added so far has been written."""
        self._queue.put(job)
        self._calls.put(None)

    def hurry(self) -> None:
        """From now on, write without waiting for more items to write at once."""
        self._hurries = True
        self._calls.put(None)

    def wait(self, timeout_s: float) -> bool:
        """Block until what was added so far has been written. Returns whether it was, in time."""
        written = threading.Event()
        self.call(written.set)
        return written.wait(timeout_s)

    def finish(self) -> None:
        """End the thread, once it has written what was added so far."""
        self.hurry()
        self._queue.put(None)

    def is_its_thread(self) -> bool:
        """Whether the caller runs in the thread."""
        return threading.current_thread() is self._thread

    # In the thread

    def _work(self) -> None:
        items: list[T] = []
        size_bytes = 0
        while True:
            if self._queue.empty():
                self._write_all(items, size_bytes)
                items, size_bytes = [], 0
                entry = self._queue.get()
                self._collect()
            else:
                entry = self._queue.get()
            if isinstance(entry, tuple):
                items.append(entry[0])
                size_bytes += entry[1]
                continue
            self._write_all(items, size_bytes)
            items, size_bytes = [], 0
            if entry is None:
                return
            try:
                entry()
            except Exception:  # noqa: BLE001 - later items are written whatever a job does
                _log.failure("a job of the {name} thread failed", name=self._thread.name)

    def _collect(self) -> None:
        """Wait for more items, until somebody waits for what is written."""
        if self._hurries:
            return
        with contextlib.suppress(Empty):
            self._calls.get(timeout=_COLLECT_S)
            while True:
                self._calls.get_nowait()

    def _write_all(self, items: list[T], size_bytes: int) -> None:
        if not items:
            return
        try:
            unwritten = self._write(items)
        except Exception:  # noqa: BLE001 - later items are written whatever one does
            _log.failure("the {name} thread could not write", name=self._thread.name)
            unwritten = len(items)
        self._unwritten += unwritten
        self._done_bytes += size_bytes
        if unwritten < len(items) and self.dropped > self._told:
            told, self._told = self._told, self.dropped
            self._tell(self._told - told)


class LineFile:
    """Writes whole lines to a file that may be full. A line of which a part was written is ended
    before the next one.
    """

    def __init__(self, write: Callable[[memoryview], int], descriptor: Callable[[], int]) -> None:
        """`write` writes a part of its argument and returns its size, as os.write(2) does.
        `descriptor` tells the file's descriptor.
        """
        self._write = write
        self._descriptor = descriptor
        stat = os.fstat(descriptor())
        self._lock = _locks.setdefault((stat.st_dev, stat.st_ino), threading.Lock())
        self._is_torn = False  # the file ends in the middle of a line

    def write(self, lines: list[bytes]) -> tuple[int, OSError | None]:
        """Write lines, each with its line break. Returns how many could not be written, and why.
        No other `LineFile` on the same file writes between them.
        """
        with self._lock:
            return self._write_all(lines)

    def _write_all(self, lines: list[bytes]) -> tuple[int, OSError | None]:
        data = b"".join(lines)
        if self._is_torn:
            data = b"\n" + data
        written = 0
        while written < len(data):
            try:
                written += self._write(memoryview(data)[written:])
            except BlockingIOError:  # another process has made the pipe non-blocking
                self._wait()
            except OSError as error:
                return self._lost(lines, len(data) - written), error
            else:
                self._is_torn = data[written - 1 : written] != b"\n"
        return 0, None

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor(), select.POLLOUT)
        poll.poll()

    def _lost(self, lines: list[bytes], unwritten_bytes: int) -> int:
        """How many of the last `lines` are in the last `unwritten_bytes`, whole or in part."""
        lost = 0
        for line in reversed(lines):
            if unwritten_bytes <= 0:
                break
            unwritten_bytes -= len(line)
            lost += 1
        return lost

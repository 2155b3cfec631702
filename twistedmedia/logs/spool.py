"""A queue of log entries that a thread writes, so that nothing else waits for the log.

A disk that is full or hangs, and a pipe without a reader, block only this thread. The queue is
bounded. Items beyond the bound are dropped and counted, those about refused requests first.
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

# The bound of the queue: some ten thousand lines, or several seconds of a slow disk.
_WAITING_BYTES = 1 << 20
# One client can cause hundreds of lines a second with refused requests. They must not displace the
# lines that an operator needs.
_EXPENDABLE_BYTES = _WAITING_BYTES // 2
# The thread collects items for so long: to wake up for each one would slow the event loop down.
_COLLECT_S = 0.1
LAST_WAIT_S = 0.75  # how long the end of a process waits for a log that hangs

T = TypeVar("T")

_log = Logger()
# A lock for each file that is written to, by device and inode. Two logs may go to one pipe, and a
# pipe splits writes larger than PIPE_BUF.
_locks: WeakValueDictionary[tuple[int, int], threading.Lock] = WeakValueDictionary()


class Spool(Generic[T]):
    """A bounded queue, and a daemon thread that empties it. Threads, signal handlers and finalizers
    may add items.
    """

    def __init__(
        self, name: str, write: Callable[[list[T]], int], on_dropped: Callable[[int], None]
    ) -> None:
        """`write` and `on_dropped` are called in the thread, whose name is `name`. `write` gets
        items in the order in which they were added, and returns how many could not be written.
        `on_dropped` gets the number of items dropped since its last call. It is called after a
        successful write.
        """
        self._write = write
        self._on_dropped = on_dropped
        self._queue: SimpleQueue[tuple[T, int] | Callable[[], None] | None] = SimpleQueue()
        # CPython does not interrupt `+=` on these, neither for a thread nor for a signal.
        self._added_bytes = 0
        self._done_bytes = 0  # changed by the thread only
        self._refused = 0
        self._unwritten = 0  # changed by the thread only
        self._reported = 0
        self._hurries = False
        self._calls: SimpleQueue[None] = SimpleQueue()  # unlike an Event, safe in signal handlers
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def dropped(self) -> int:
        """How many items were dropped so far."""
        return self._refused + self._unwritten

    def start(self) -> None:
        """Start the thread. A fork afterwards would lose it."""
        self._thread.start()

    def add(self, item: T, size_bytes: int, *, is_expendable: bool = False) -> bool:
        """Add `item`, which takes `size_bytes`. Returns whether there was room for it. Expendable
        items have only half of the room.
        """
        waiting_bytes = self._added_bytes - self._done_bytes
        if waiting_bytes > (_EXPENDABLE_BYTES if is_expendable else _WAITING_BYTES):
            self._refused += 1
            return False
        self._added_bytes += size_bytes
        self._queue.put((item, size_bytes))
        return True

    def call(self, job: Callable[[], None]) -> None:
        """Call `job` in the thread after all earlier items were written."""
        self._queue.put(job)
        self._calls.put(None)

    def hurry(self) -> None:
        """From now on write without collecting items first."""
        self._hurries = True
        self._calls.put(None)

    def wait(self, timeout_s: float) -> bool:
        """Block until all earlier items were written. Returns False after `timeout_s`."""
        written = threading.Event()
        self.call(written.set)
        return written.wait(timeout_s)

    def finish(self) -> None:
        """End the thread after all earlier items were written."""
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
            except Exception:  # noqa: BLE001 - a failing job must not end the thread
                _log.failure("a job of the {name} thread failed", name=self._thread.name)

    def _collect(self) -> None:
        """Wait for more items until a job arrives."""
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
        except Exception:  # noqa: BLE001 - a failing write must not end the thread
            _log.failure("the {name} thread could not write", name=self._thread.name)
            unwritten = len(items)
        self._unwritten += unwritten
        self._done_bytes += size_bytes
        if unwritten < len(items) and self.dropped > self._reported:
            before, self._reported = self._reported, self.dropped
            self._on_dropped(self._reported - before)


class LineFile:
    """Writes complete lines to a file on a disk that may be full. A line that was written in part
    is ended before the next one.
    """

    def __init__(self, write: Callable[[memoryview], int], descriptor: Callable[[], int]) -> None:
        """`write` writes a part of its argument and returns its size, as os.write(2) does.
        `descriptor` returns the file's descriptor.
        """
        self._write = write
        self._descriptor = descriptor
        stat = os.fstat(descriptor())
        self._lock = _locks.setdefault((stat.st_dev, stat.st_ino), threading.Lock())
        self._is_torn = False  # the file ends in the middle of a line

    def write(self, lines: list[bytes]) -> tuple[int, OSError | None]:
        """Write `lines`, which end with line breaks. Returns how many could not be written, and
        why. No other `LineFile` of the same file writes between them.
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
            except BlockingIOError:  # another process made the pipe non-blocking
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
        """How many of `lines` are at least partly in the last `unwritten_bytes`."""
        lost = 0
        for line in reversed(lines):
            if unwritten_bytes <= 0:
                break
            unwritten_bytes -= len(line)
            lost += 1
        return lost

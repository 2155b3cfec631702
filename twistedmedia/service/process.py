"""Settings of the whole process: garbage collector, thread switches, open files, freed memory.

`twistd media` makes them. A program that embeds the media tree makes them itself.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

# With a thousand requests in progress most new objects are in use. To look for garbage after every
# 700 objects, Python's default, takes a quarter of the requests' time.
_OBJECTS_BETWEEN_COLLECTIONS = 20_000


def tune_garbage_collector() -> None:
    """Exclude the existing objects from collections, and collect less often.

    Modules, classes and routes live as long as the process. To look at them in each full collection
    would hold up the event loop for some 20 ms. Call this when all of them exist.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 10, 10)


# Python's default of 5 ms is long beside a response while threads compute (one decodes a large
# urlencoded form), and for writers, which wait for their next batch.
_SWITCH_S = 0.001
# The store's threads wait for Python's lock (the GIL) after each system call, some 14 times in a
# small upload. While the event loop never rests, each wait takes a whole interval. A short interval
# costs many simultaneous small uploads a tenth of their rate, so it is only used with a backlog.
_BACKLOG_SWITCH_S = 0.0001


def set_switch_interval(is_backlog: bool) -> None:
    """Set how soon a thread that waits for Python's lock gets it. `is_backlog`: whether the
    `LoopQueue` of the event loop has a backlog.
    """
    sys.setswitchinterval(_BACKLOG_SWITCH_S if is_backlog else _SWITCH_S)


_MIN_DESCRIPTORS = 65_536  # many connections cost little


def raise_descriptor_limit(wanted: int) -> None:
    """Raise the soft limit of descriptors (RLIMIT_NOFILE) to `wanted`, at least to 65,536, but not
    beyond the hard limit. The usual soft limit of 1,024 exists for programs that use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(wanted, _MIN_DESCRIPTORS)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


CHECK_S = 1.0
# To measure a heap of many small pieces takes 20 ms and more, in which the event loop waits. While
# it is trimmed, everything that needs memory waits. So the next check comes after at least this
# many times the duration of the longer one of both.
_REST_FACTOR = 100
MIN_GAIN_BYTES = 2 << 20
TRIMS = 10  # one after each check, because a crowd's memory is freed gradually, with its timers


class HeapTrimmer:
    """Returns freed memory to the system. glibc keeps what was freed between blocks that are in
    use, which after many connections is most of it (malloc_trim(3)).

    Checks the heap about once a second. When it has many more free bytes than before, and they stay
    free from one check to the next, trims it in a thread.
    """

    def __init__(self, reactor: Any, heap: Heap | None) -> None:
        """Does nothing if `heap` is None."""
        self._reactor = reactor
        self._heap = heap
        self._known_bytes = self._last_bytes = 0 if heap is None else heap.free_bytes()
        self._trims_left = 0
        self._trim_took_s = 0.0
        self._next_check: IDelayedCall | None = None

    def start(self) -> None:
        if self._heap is not None:
            self._next_check = self._reactor.callLater(CHECK_S, self._on_check)

    def stop(self) -> None:
        """Idempotent."""
        next_check, self._next_check = self._next_check, None
        if next_check is not None:
            next_check.cancel()

    def _on_check(self) -> None:
        assert self._heap is not None
        began_s = self._reactor.seconds()
        free_bytes = self._heap.free_bytes()
        took_s = max(self._reactor.seconds() - began_s, self._trim_took_s)
        delay_s = max(CHECK_S, _REST_FACTOR * took_s)
        self._next_check = self._reactor.callLater(delay_s, self._on_check)
        unused_bytes, self._last_bytes = min(self._last_bytes, free_bytes), free_bytes
        if unused_bytes >= self._known_bytes + MIN_GAIN_BYTES:
            self._known_bytes = free_bytes  # trimmed bytes still count as free
            self._trims_left = TRIMS
        else:
            self._known_bytes = min(self._known_bytes, unused_bytes)
        if self._trims_left:
            self._trims_left -= 1
            self._reactor.callInThread(self._trim)

    def _trim(self) -> None:
        assert self._heap is not None
        began_s = self._reactor.seconds()
        self._heap.trim()
        self._trim_took_s = self._reactor.seconds() - began_s


class Heap:
    """The heap of the C library."""

    def __init__(self, mallinfo2: Callable[[], Any], malloc_trim: Callable[[int], object]) -> None:
        self._mallinfo2 = mallinfo2
        self._malloc_trim = malloc_trim

    def free_bytes(self) -> int:
        """Return the size of all free blocks. Trimmed ones count as well."""
        free: int = self._mallinfo2().fordblks
        return free

    def trim(self) -> None:
        """Return whole free pages to the system. Blocks for some milliseconds."""
        self._malloc_trim(0)


def find_heap() -> Heap | None:
    """Return the heap of this process, or None if the C library is not glibc 2.33 or later."""
    library = ctypes.CDLL(None)
    try:
        mallinfo2, malloc_trim = library.mallinfo2, library.malloc_trim
    except AttributeError:
        return None
    mallinfo2.restype = _Mallinfo2
    return Heap(mallinfo2, malloc_trim)


class _Mallinfo2(ctypes.Structure):
    # mallinfo(3)
    _fields_ = (
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )

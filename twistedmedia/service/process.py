"""Memory that was freed, given back to the system.

glibc keeps what was freed between blocks that are in use, which after a crowd is most of it
(malloc_trim(3)). Where the C library does not tell how much that is, nothing is done.

How soon a thread may go on that waits for Python's lock (the GIL).

The store's threads wait for the lock after each system call, and a small upload makes some 14. So
it takes up to 14 intervals while the event loop never rests. A shorter interval costs many small
uploads at once a tenth of their rate. So it is set only beside floods: see `FairQueue`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

LOOK_S = 1.0
# A look at a heap of many small pieces takes 20 ms and more, in which the event loop waits, and so
# does whatever needs memory while it is trimmed. So there is a rest, so many times as long.
REST = 100
WORTH_BYTES = 2 << 20
TRIMS = 10  # one after each look: what a crowd has left goes little by little, with its timers


class HeapTrimmer:
    """Looks about once a second whether the heap has more free bytes than before, and trims it, in
    a thread, when they are many and stay free from one look to the next.
    """

    def __init__(self, reactor: Any, heap: Heap | None) -> None:
        """Without a `heap` it does nothing."""
        self._reactor = reactor
        self._heap = heap
        self._known_bytes = self._last_bytes = 0 if heap is None else heap.free_bytes()
        self._due = 0  # trims
        self._trim_took_s = 0.0
        self._next_look: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to look."""
        if self._heap is not None:
            self._next_look = self._reactor.callLater(LOOK_S, self._look)

    def stop(self) -> None:
        """Look no more. Idempotent."""
        next_look, self._next_look = self._next_look, None
        if next_look is not None:
            next_look.cancel()

    def _look(self) -> None:
        assert self._heap is not None
        began_s = self._reactor.seconds()
        free_bytes = self._heap.free_bytes()
        took_s = max(self._reactor.seconds() - began_s, self._trim_took_s)
        self._next_look = self._reactor.callLater(max(LOOK_S, REST * took_s), self._look)
        unused_bytes, self._last_bytes = min(self._last_bytes, free_bytes), free_bytes
        if unused_bytes >= self._known_bytes + WORTH_BYTES:
            # What is trimmed still counts as free.
            self._known_bytes = free_bytes
            self._due = TRIMS
        else:
            self._known_bytes = min(self._known_bytes, unused_bytes)
        if self._due:
            self._due -= 1
            self._reactor.callInThread(self._trim)

    def _trim(self) -> None:
        assert self._heap is not None
        began_s = self._reactor.seconds()
        self._heap.trim()
        self._trim_took_s = self._reactor.seconds() - began_s


class Heap:
    """The heap of the C library. `trim` blocks for some milliseconds."""

    def __init__(self, mallinfo2: Callable[[], Any], malloc_trim: Callable[[int], object]) -> None:
        self._mallinfo2 = mallinfo2
        self._malloc_trim = malloc_trim

    def free_bytes(self) -> int:
        """How much is free between the blocks that are in use, in memory or not."""
        free: int = self._mallinfo2().fordblks
        return free

    def trim(self) -> None:
        """Give whole free pages back to the system."""
        self._malloc_trim(0)


def find_heap() -> Heap | None:
    """The heap of this process; None where the C library is not glibc 2.33 or later."""
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


# Python's own 5 ms is long beside an answer: of a service whose threads compute (a large urlencoded
# form is decoded in one), and of its writers, which wait for their next batch.
_USUAL_S = 0.001
_BACKLOG_S = 0.0001


def set_switch_interval(is_backlog: bool) -> None:
    """Set the interval of the process. Is there a backlog in the queue of the event loop?"""
    sys.setswitchinterval(_BACKLOG_S if is_backlog else _USUAL_S)

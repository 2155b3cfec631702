"""A look at the storage that many may ask for: one look at a time, which counts for a second.

How much fits into the file system: what is free, less what running uploads have reserved.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twistedmedia.errors import NoSpace
from twistedmedia.store.interface import Reserved
from twistedmedia.store.local.disk_threads import OWN_WORK, DiskThreads
from twistedmedia.store.local.syscalls import SystemCalls

T = TypeVar("T")

_FRESH_S = 1.0


class CachedProbe(Generic[T]):
    """Calls a function that blocks in a thread, for all who want to know its result.

    While the storage hangs, only one thread hangs with it, however many ask.
    """

    def __init__(
        self,
        threads: DiskThreads,
        function: Callable[[], T],
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now_s` is a clock in seconds."""
        self._threads = threads
        self._function = function
        self._now_s = now_s
        self._waiting: dict[Deferred[T], None] = {}  # in the order in which they asked
        self._last: T | None = None
        self._fresh_until_s = 0.0

    def look(self, *, afresh: bool = False) -> Deferred[T]:
        """Fires with the function's result, which may be a second old unless it is wanted `afresh`.
        Can be cancelled: that ends the waiting, not the look.
        """
        if not afresh and self._last is not None and self._now_s() < self._fresh_until_s:
            return succeed(self._last)
        waiting: Deferred[T] = Deferred(self._leave)
        self._waiting[waiting] = None
        if not self._threads.busy:
            self._threads.run(self._function, caller=OWN_WORK).addBoth(self._seen)
        return waiting

    def _leave(self, waiting: Deferred[T]) -> None:
        self._waiting.pop(waiting, None)  # it is not there while those before it are told

    def _seen(self, result: T | Failure) -> None:
        if not isinstance(result, Failure):
            self._last, self._fresh_until_s = result, self._now_s() + _FRESH_S
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if not each.called:  # one of those before has had it cancelled
                each.callback(result)  # a Failure goes the errback's way


# A reservation that gives way keeps what its upload can write in this time. After it, the upload
# shares what is free with all others that have none.
_KEEPS_S = 600.0
# A rate that was measured for less time than this says nothing.
_MEASURED_S = 1.0


class Reservation:
    """The bytes that one upload has declared and not yet written. They are taken from others for as
    long as the upload runs, unless others need them more: see `Space.reserve`.
    """

    __slots__ = ("_begun_s", "_space", "caller", "left", "written")

    def __init__(self, space: Space, caller: str, size: int, now_s: float) -> None:
        self.caller = caller
        self.left = size
        self.written = 0
        self._space = space
        self._begun_s = now_s

    def wrote(self, size: int) -> None:
        """`size` bytes more of the upload are written."""
        self._space.wrote(self, size)

    def release(self) -> None:
        """The upload has ended. Idempotent."""
        self._space.release(self)

    def surplus(self, now_s: float) -> int:
        """How many of its bytes the upload cannot write soon, at the rate that it had so far."""
        rate = self.written / max(_MEASURED_S, now_s - self._begun_s)
        return max(0, self.left - int(rate * _KEEPS_S))


class Space:
    """The free bytes of a file system, and who has reserved how many of them. Thread-safe."""

    def __init__(
        self, calls: SystemCalls, fd: int, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """`fd` is in the file system. `now_s` is a clock in seconds that is never set."""
        self._calls = calls
        self._fd = fd
        self._now_s = now_s
        self._lock = threading.Lock()
        self._reservations: set[Reservation] = set()
        self._total = 0

    def reserve(self, size: int, caller: str) -> Reservation:
        """Reserve `size` bytes for an upload of `caller`; 0 if nobody knows how many will come.

        If they do not fit beside what others have reserved, reservations of callers that hold more
        than this one would hold give way, those of the largest share first. Each keeps what its
        upload can write soon. An upload whose reservation gave way goes on as one that has declared
        nothing: it fails only if the storage is really full.

        :raises NoSpace: when they do not fit even so. Then nothing has changed.
        """
        available = self._available()
        now_s = self._now_s()
        with self._lock:
            if available is not None and self._total + size > available:
                self._make_room(self._total + size - available, size, caller, now_s)
            reservation = Reservation(self, caller, size, now_s)
            self._reservations.add(reservation)
            self._total += size
        return reservation

    def wrote(self, reservation: Reservation, size: int) -> None:
        """Called by `Reservation.wrote`."""
        with self._lock:
            reservation.written += size
            self._shrink(reservation, size)

    def release(self, reservation: Reservation) -> None:
        """Called by `Reservation.release`."""
        with self._lock:
            self._shrink(reservation, reservation.left)
            self._reservations.discard(reservation)

    def free(self) -> int | None:
        """Bytes that nobody has reserved, None where the file system does not know."""
        available = self._available()
        return None if available is None else max(0, available - self._total)

    @property
    def reserved(self) -> Reserved:
        """How much is reserved, and how the callers share it."""
        with self._lock:
            held = self._held()
            return Reserved(self._total, len(held), max(held.values(), default=0))

    def _available(self) -> int | None:
        status = self._calls.statvfs(self._fd)
        if status.f_blocks == 0:  # some network and FUSE file systems do not know
            return None
        return status.f_bavail * status.f_frsize

    def _make_room(self, lacking: int, size: int, caller: str, now_s: float) -> None:
        """Let reservations give way until `lacking` bytes more are free.

        :raises NoSpace: when that is not possible.
        """
        held = self._held()
        enough = held[caller] + size  # a caller that holds no more than this keeps all of it
        surpluses = {
            each: surplus
            for each in self._reservations
            if held[each.caller] > enough and (surplus := each.surplus(now_s))
        }
        giving: list[Reservation] = []
        # Of the largest share first; of one share, first the reservation with the largest surplus.
        for each in sorted(
            surpluses, key=lambda each: (held[each.caller], surpluses[each]), reverse=True
        ):
            if lacking <= 0:
                break
            lacking -= surpluses[each]
            giving.append(each)
        if lacking > 0:
            raise NoSpace
        for each in giving:
            self._shrink(each, surpluses[each])

    def _held(self) -> Counter[str]:
        held: Counter[str] = Counter()
        for each in self._reservations:
            if each.left:
                held[each.caller] += each.left
        return held

    def _shrink(self, reservation: Reservation, size: int) -> None:
        size = min(size, reservation.left)
        reservation.left -= size
        self._total -= size

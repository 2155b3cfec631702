"""The free space of a file system, shared by running uploads; and probes of the storage.

Free space is what the file system reports, less what running uploads have reserved.
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
    """Calls a blocking function in a thread and shares its result between all callers.

    Only one call runs at a time: while the storage hangs, no more than one thread does.
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
        self._waiting: dict[Deferred[T], None] = {}  # in the order of the calls
        self._last: T | None = None
        self._fresh_until_s = 0.0

    def look(self, *, afresh: bool = False) -> Deferred[T]:
        """Fires with the function's result, which may be a second old if `afresh` is False.
        Cancelling ends the waiting, not the call.
        """
        if not afresh and self._last is not None and self._now_s() < self._fresh_until_s:
            return succeed(self._last)
        waiting: Deferred[T] = Deferred(self._leave)
        self._waiting[waiting] = None
        if not self._threads.busy:
            self._threads.run(self._function, caller=OWN_WORK).addBoth(self._seen)
        return waiting

    def _leave(self, waiting: Deferred[T]) -> None:
        self._waiting.pop(waiting, None)  # it is not there while earlier ones are called back

    def _seen(self, result: T | Failure) -> None:
        if not isinstance(result, Failure):
            self._last, self._fresh_until_s = result, self._now_s() + _FRESH_S
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if not each.called:  # the callback of an earlier one may have cancelled it
                each.callback(result)  # for a Failure, this is an errback


# A reservation that gives way keeps what its upload can write in this time. After that, the upload
# uses unreserved space.
_KEEPS_S = 600.0
# The shortest time over which a rate is measured.
_MEASURED_S = 1.0


class Reservation:
    """The bytes that one upload has declared and not yet written. No other upload can use them
    while this one runs, except as `Space.reserve` says.
    """

    __slots__ = ("_begun_s", "_space", "caller", "left", "written")

    def __init__(self, space: Space, caller: str, size: int, now_s: float) -> None:
        self.caller = caller
        self.left = size
        self.written = 0
        self._space = space
        self._begun_s = now_s

    def wrote(self, size: int) -> None:
        """The upload has written another `size` bytes."""
        self._space.wrote(self, size)

    def release(self) -> None:
        """The upload has ended. Idempotent."""
        self._space.release(self)

    def surplus(self, now_s: float) -> int:
        """How many of its bytes the upload cannot write soon, at its average rate so far."""
        rate = self.written / max(_MEASURED_S, now_s - self._begun_s)
        return max(0, self.left - int(rate * _KEEPS_S))


class Space:
    """The free bytes of a file system, and the reservations of callers. Thread-safe."""

    def __init__(
        self, calls: SystemCalls, fd: int, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """`fd` is in the file system. `now_s` is a monotonic clock in seconds."""
        self._calls = calls
        self._fd = fd
        self._now_s = now_s
        self._lock = threading.Lock()
        self._reservations: set[Reservation] = set()
        self._total = 0

    def reserve(self, size: int, caller: str) -> Reservation:
        """Reserve `size` bytes for an upload of `caller`; 0 if its size is unknown.

        If they do not fit, reservations of callers that hold more than this one would hold give
        way, those of the largest share first. Each keeps what its upload can write soon. An upload
        whose reservation gave way continues as if it had declared no size: it fails only if the
        storage is really full.

        :raises NoSpace: if they still do not fit. Then nothing has changed.
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
        """The free bytes that are not reserved, None if the file system does not report them."""
        available = self._available()
        return None if available is None else max(0, available - self._total)

    @property
    def reserved(self) -> Reserved:
        """The reserved bytes, and how callers share them."""
        with self._lock:
            held = self._held()
            return Reserved(self._total, len(held), max(held.values(), default=0))

    def _available(self) -> int | None:
        status = self._calls.statvfs(self._fd)
        if status.f_blocks == 0:  # some network and FUSE file systems do not report it
            return None
        return status.f_bavail * status.f_frsize

    def _make_room(self, lacking: int, size: int, caller: str, now_s: float) -> None:
        """Let reservations give way until `lacking` more bytes are free.

        :raises NoSpace: if that is not possible.
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

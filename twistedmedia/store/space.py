"""How much fits in: what is free, less what uploads under way have been promised."""

from __future__ import annotations

import threading

from twistedmedia.errors import NoSpace
from twistedmedia.store.calls import SystemCalls


class Space:
    """A file system's free bytes, less what running uploads have declared and not yet written."""

    def __init__(self, calls: SystemCalls, fd: int) -> None:
        self._calls = calls
        self._fd = fd
        self._lock = threading.Lock()
        self._reserved = 0

    def reserve(self, size: int) -> None:
        """Set `size` bytes aside, 0 when it is not known how many will come.

        :raises NoSpace: when they do not fit beside what others have reserved; then nothing is.
        """
        available = self._available()
        with self._lock:
            if available is not None and self._reserved + size > available:
                raise NoSpace
            self._reserved += size

    def free(self) -> int | None:
        """Bytes that nobody has reserved, None where the file system does not know."""
        available = self._available()
        return None if available is None else max(0, available - self._reserved)

    def _available(self) -> int | None:
        status = self._calls.statvfs(self._fd)
        if status.f_blocks == 0:  # some network and FUSE file systems do not know
            return None
        return status.f_bavail * status.f_frsize

    def give_back(self, size: int) -> None:
        """`size` bytes of what was reserved are written, or will not come."""
        with self._lock:
            self._reserved -= size

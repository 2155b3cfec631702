"""Entity tags, and the modification times that they are made of."""

from __future__ import annotations

import threading
import time


class UniqueTimestamps:
    """Moments for modification times, no two of them the same: a file system's own clock can stand
    still for milliseconds, in which a file of the same size would get the tag of the one before it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ns = 0

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        with self._lock:
            self._last_ns = max(time.time_ns(), self._last_ns + 1)
            return self._last_ns


def etag_of(size: int, modified_ns: int) -> str:
    """A file's entity tag: size and mtime, which a link or rename leaves as they are."""
    return f'"{size:x}-{modified_ns:x}"'

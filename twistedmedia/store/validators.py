"""Entity tags, and the modification times that they are made of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class UniqueTimestamps:
    """Modification times, each later than the one before. Thread-safe.

    A file system's own clock can stand still for milliseconds. Two files of the same size would
    then get the same entity tag.
    """

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        """`now_ns` is a clock in nanoseconds since the epoch."""
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._last_ns = 0

    def now_ns(self) -> int:
        """The next one, in nanoseconds since the epoch."""
        with self._lock:
            self._last_ns = max(self._now_ns(), self._last_ns + 1)
            return self._last_ns


def etag_of(size: int, modified_ns: int) -> str:
    """The entity tag of a file: its size and mtime, which linking and renaming do not change."""
    return f'"{size:x}-{modified_ns:x}"'

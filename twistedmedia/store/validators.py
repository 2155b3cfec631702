"""What tells one content of a file from another: the entity tag and the recorded digest."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time

from twistedmedia.store.calls import SystemCalls

_ATTRIBUTE = "user.twistedmedia.sha256"
# Digest, size in bytes, mtime in nanoseconds. Binary: with this name it fits into the inode that
# ext4 makes (256 bytes), where it costs no block of its own.
_RECORD = struct.Struct(">32sQq")


class Instants:
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


def record_digest(calls: SystemCalls, fd: int, status: os.stat_result, sha256: str) -> None:
    """Note the file's SHA-256, in hex, for the content that it has with this `status`.

    Where that is not possible it is left: what is not recorded is computed when it is asked for.
    """
    # No such attributes here, or not ours to write; or a time after 2262.
    with contextlib.suppress(OSError, struct.error):
        record = _RECORD.pack(bytes.fromhex(sha256), status.st_size, status.st_mtime_ns)
        calls.set_attribute(fd, _ATTRIBUTE, record)


def recorded_digest(calls: SystemCalls, fd: int, status: os.stat_result) -> str | None:
    """The SHA-256, in hex, that was noted for the content that the file still has."""
    try:
        record = calls.get_attribute(fd, _ATTRIBUTE)
    except OSError:
        return None
    if len(record) != _RECORD.size:
        return None
    digest, size, modified_ns = _RECORD.unpack(record)
    if (size, modified_ns) != (status.st_size, status.st_mtime_ns):
        return None  # somebody has written to the file
    return bytes(digest).hex()

"""
The kernel's page cache: has a file leave it, and looks whether it did. Linux only.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

# A socket may hold pages of a download for a moment after its reader has them.
_PATIENCE_S = 5.0
_RETRY_S = 0.005
_PAGE_BYTES = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


class StillCachedError(Exception):
    """A file has pages in memory that did not go."""


def drop(path: Path) -> None:
    """
    Have the next read of a file, which is to be synced, come from the disk.

    :raises StillCachedError: when some of it stays in memory.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        end = time.monotonic() + _PATIENCE_S
        while True:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            cached = _cached_pages(descriptor)
            if not cached:
                return
            if time.monotonic() > end:
                raise StillCachedError(f"{path.name} has {cached} pages in memory")
            time.sleep(_RETRY_S)
    finally:
        os.close(descriptor)


def _cached_pages(descriptor: int) -> int:
    """How many pages of a file are in memory, by mincore, which does not bring in any."""
    size_bytes = os.fstat(descriptor).st_size
    # A private copy that may be written to, because only of that ctypes tells the address.
    with mmap.mmap(descriptor, size_bytes, access=mmap.ACCESS_COPY) as mapped:
        start = ctypes.c_char.from_buffer(mapped)
        seen = ctypes.create_string_buffer(-(-size_bytes // _PAGE_BYTES))
        address, length = ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size_bytes)
        failed = _libc.mincore(address, length, seen)
        del start  # or the mapping cannot be closed
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in seen.raw)

"""Keeps large content in its own memory mapping, which is freed with the last reference to it.

Pure. The memory of an ordinary large object usually stays with the process: the allocator keeps it
for the next object, or it cannot shrink the heap because something above is still in use.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator

_BATCH_BYTES = 64 << 10  # smaller contents are not worth a mapping


class Packing:
    """Content that grows."""

    def __init__(self) -> None:
        self._whole: mmap.mmap | None = None
        self._written = 0
        self._batch = bytearray()

    @property
    def size(self) -> int:
        """In bytes, so far."""
        return self._written + len(self._batch)

    def add(self, pieces: Iterable[bytes]) -> None:
        """Append `pieces`. They are taken one by one, so that a generator needs little memory."""
        for piece in pieces:
            self._batch += piece
            if len(self._batch) >= _BATCH_BYTES:
                self._write()

    def end(self) -> memoryview:
        """Return the content. Nothing can be added any more."""
        if self._whole is None:
            return memoryview(bytes(self._batch))
        if self._batch:
            self._write()
        self._whole.resize(self._written)
        return memoryview(self._whole)

    def _write(self) -> None:
        size = self.size
        if self._whole is None:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            self._whole = mmap.mmap(-1, 2 * size, flags=flags)
        elif len(self._whole) < size:
            self._whole.resize(2 * size)  # keeps the content
        self._whole.write(self._batch)
        self._written = size
        self._batch.clear()


def pack(pieces: Iterable[bytes]) -> memoryview:
    """Join `pieces`."""
    packing = Packing()
    packing.add(pieces)
    return packing.end()


def pieces_of(content: memoryview) -> Iterator[bytes]:
    """Split `content`. To copy or compare megabytes at once would block other threads."""
    for at in range(0, len(content), _BATCH_BYTES):
        yield bytes(content[at : at + _BATCH_BYTES])

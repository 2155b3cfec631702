"""Large content in memory of its own, which the system has back as soon as nobody refers to it.

Pure. What Python allocates for a large object stays with the process when the object goes, as a
rule: the allocator keeps it for the next one, or it lies below something that is still in use.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator

_AT_ONCE_BYTES = 64 << 10  # as much is written at a time; less than this is not worth it


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
        """Append `pieces`. They are taken one by one, so that no more than some of them are there
        at the same time.
        """
        for piece in pieces:
            self._batch += piece
            if len(self._batch) >= _AT_ONCE_BYTES:
                self._write()

    def end(self) -> memoryview:
        """The content. Nothing can be added any more."""
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
            self._whole.resize(2 * size)  # what was written before stays
        self._whole.write(self._batch)
        self._written = size
        self._batch.clear()


def pack(pieces: Iterable[bytes]) -> memoryview:
    """All of `pieces`, one behind the other."""
    packing = Packing()
    packing.add(pieces)
    return packing.end()


def pieces_of(content: memoryview) -> Iterator[bytes]:
    """`content` in pieces. To copy or compare megabytes at once would hold the interpreter's lock
    all the time.
    """
    for at in range(0, len(content), _AT_ONCE_BYTES):
        yield bytes(content[at : at + _AT_ONCE_BYTES])

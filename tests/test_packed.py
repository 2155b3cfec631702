"""Large content in its own memory mapping."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from twistedmedia.packed import pack

STEP = 64 << 10


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


@pytest.mark.parametrize("size", [1000, STEP - 1, STEP, STEP + 1, 1 << 20])
@pytest.mark.parametrize("length", [0, 1, STEP - 1, STEP, STEP + 1, 3 * STEP, (5 << 20) + 7])
def test_the_packed_content_is_the_joined_pieces(length: int, size: int) -> None:
    content = Random(length).randbytes(length)
    packed = pack(pieces(content, size))
    assert len(packed) == length
    assert bytes(packed) == content


def test_an_error_of_the_generator_is_raised() -> None:
    def broken() -> Iterator[bytes]:
        yield bytes(3 * STEP)
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        pack(broken())


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_freed_with_the_last_reference() -> None:
    """Case 87."""
    piece = bytes([1]) * 1000
    before = resident()
    kept = [pack(piece for _ in range(10_000)) for _ in range(5)]
    held = resident() - before
    assert held > 45 << 20
    del kept[1:]
    assert resident() - before < 15 << 20

"""Decoders that find where the content of a request ends: after its declared length, or with the
last chunk (RFC 9112, 6.3).

Pure, and strict for the same reason as `heads`. The input may be cut anywhere. A call of `feed`
takes a bounded time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from twistedmedia.fairness.pace import TINY_BYTES, TinyChunkLimit
from twistedmedia.http.heads import MAX_LENGTH_BYTES, is_header_line

MAX_SIZE_LINE_BYTES = 1024  # a chunk size with its extensions
MAX_TRAILER_BYTES = 16 << 10
# RFC 9112, 7.1.1: blanks may stand before an extension, but not after a size without one.
_SIZE = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")
# Lines of chunked coding that one call of `feed` reads: about 0.17 ms.
LINES_AT_ONCE = 128
# Input is dense if its lines are shorter on average: then 64 KiB have more than LINES_AT_ONCE.
_DENSE_LINE_BYTES = 256
# Chunks of dense input: 30 s of live speech, which may arrive at once after an interruption.
_FLOOD_CHUNKS = 1500


class Decoded(NamedTuple):
    """The result of one call of `feed`: `content`, decoded from the first `size` bytes of the
    input. `is_end` is whether the content ends there.
    """

    content: bytes
    size: int
    is_end: bool


class FramingError(ValueError):
    """The end of the content cannot be found, or finding it would cost too much. `content` is the
    content that the failed call of `feed` had decoded.
    """

    content = b""


class LengthDecoder:
    """Content whose length is declared."""

    is_dense = is_flood = False
    description = "the content"

    def __init__(self, length: int, now_s: Callable[[], float] = time.monotonic) -> None:
        """`length` in bytes, not 0. `now_s` is a monotonic clock."""
        self._left = length
        self._now_s = now_s
        self._tiny = TinyChunkLimit()

    def feed(self, data: bytes) -> Decoded:
        """Return the content that `data` begins with.

        :raises FramingError: if it arrives in too many tiny pieces, as in TLS records of one byte.
        """
        if len(data) < self._left:
            self._left -= len(data)
            if self._tiny.are_too_many(1, len(data), self._now_s()):
                raise FramingError(
                    f"too many pieces of fewer than {TINY_BYTES} bytes arrived at once; "
                    "send larger ones"
                )
            return Decoded(data, len(data), is_end=False)
        left, self._left = self._left, 0
        return Decoded(data[:left], left, is_end=True)


class _Next(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()


class ChunkedDecoder:
    """Content in the chunked coding (RFC 9112, 7.1). Trailers are dropped (6.5.1).

    `is_dense` is whether the last input was mostly coding: many lines and little content. It is
    true before the first input. `is_flood` is whether dense input arrives much faster than live
    speech.
    """

    is_dense = True
    is_flood = False
    description = "the chunked content"

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """`now_s` is a monotonic clock."""
        self._now_s = now_s
        self._tiny = TinyChunkLimit()
        # A chunk has two lines.
        self._small = TinyChunkLimit(_FLOOD_CHUNKS, tiny_bytes=2 * _DENSE_LINE_BYTES)
        self._next = _Next.SIZE
        self._left = 0  # bytes of the current chunk
        self._partial_line = b""
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> Decoded:
        """Decode at most `LINES_AT_ONCE` lines of `data`. The caller feeds the rest later.

        :raises FramingError: if `data` is not valid chunked coding, or there are too many tiny
            chunks.
        """
        pieces: list[bytes] = []
        partial_bytes = len(self._partial_line)
        try:
            end, is_end = self._decode(self._partial_line + data, pieces)
        except FramingError as error:
            error.content = b"".join(pieces)
            raise
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return Decoded(content, end - partial_bytes, is_end)

    def _decode(self, data: bytes, pieces: list[bytes]) -> tuple[int, bool]:
        """Append the content to `pieces`. Returns how many bytes were used, and whether the content
        has ended.
        """
        self._partial_line, at, lines, chunks = b"", 0, 0, 0
        is_end = False
        while at < len(data):
            if self._next is _Next.DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._next = _Next.DATA_END
                continue
            if lines >= LINES_AT_ONCE:
                break
            lines += 1
            end = data.find(b"\r\n", at)
            if end < 0:
                self._keep_partial_line(data[at:])
                at = len(data)
                break
            line, at = data[at:end], end + 2
            if self._next is _Next.SIZE:
                self._begin_chunk(line)
                chunks += 1
                chunk_end = at + self._left
                if self._left and data.startswith(b"\r\n", chunk_end):  # the chunk is complete
                    pieces.append(data[at:chunk_end])
                    at = chunk_end + 2
                    lines += 1
                    self._left, self._next = 0, _Next.SIZE
            elif self._next is _Next.DATA_END:
                if line:
                    raise FramingError("a chunk is longer than its size")
                self._next = _Next.SIZE
            elif line:
                self._check_trailer(line)
            else:
                is_end = True
                break
        self.is_dense = lines * _DENSE_LINE_BYTES > at
        self.is_flood = False
        if self.is_dense and not is_end:
            size = sum(len(piece) for piece in pieces) + self._left
            now_s = self._now_s()
            self.is_flood = self._small.are_too_many(chunks, size, now_s)
            if self._tiny.are_too_many(chunks, size, now_s):
                raise FramingError(
                    f"too many chunks of fewer than {TINY_BYTES} bytes arrived at once; "
                    "send larger chunks"
                )
        return at, is_end

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line) if len(line) <= MAX_SIZE_LINE_BYTES else None
        if match is None or (size := int(match[1], 16)) > MAX_LENGTH_BYTES:
            raise FramingError("a chunk size is missing, invalid or too large")
        self._left = size
        self._next = _Next.DATA if size else _Next.TRAILER

    def _check_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_TRAILER_BYTES or not is_header_line(line):
            raise FramingError("a trailer line is invalid")

    def _keep_partial_line(self, beginning: bytes) -> None:
        """Keep the beginning of a line, unless it cannot become a valid one."""
        begun = beginning.removesuffix(b"\r")
        max_bytes = {
            _Next.SIZE: MAX_SIZE_LINE_BYTES,
            _Next.DATA_END: 0,
            _Next.TRAILER: MAX_TRAILER_BYTES - self._trailer_bytes,
        }
        if len(begun) > max_bytes[self._next] or b"\n" in begun or b"\r" in begun:
            raise FramingError("a line is too long or does not end with CRLF")
        self._partial_line = beginning

"""Where the content of a request ends: after so many bytes, or with the last chunk (RFC 9112, 6.3).

Pure, and strict for the reason that `heads` has. Both kinds are fed with what comes, cut anywhere.
One call of `feed` takes a bounded time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from twistedmedia.fairness.pace import TINY_BYTES, TinyChunkLimit
from twistedmedia.http.heads import MAX_LENGTH_BYTES, is_field

MAX_SIZE_LINE_BYTES = 1024  # of a size, with the extensions that nobody uses
MAX_TRAILER_BYTES = 16 << 10
# RFC 9112, 7.1.1: an extension may have blanks before it, a size may not have any behind it.
_SIZE = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")


# Lines of the chunked coding that one call of `feed` reads: about a sixth of a millisecond.
LINES_AT_ONCE = 128
# With fewer bytes a line on average, 64 KiB of input have more lines than that.
_DENSE_BYTES = 256
# Of dense input: half a minute of live speech, which may come at once after an interruption.
_FLOOD_CHUNKS = 1500


class Taken(NamedTuple):
    """What one call of `feed` has taken: `content`, from the first `size` bytes of the input. They
    are the last ones of the content if `is_end`.
    """

    content: bytes
    size: int
    is_end: bool


class BrokenFraming(ValueError):
    """Nobody can say where the content ends, or it is not read to there. `content` is what came
    before that showed.
    """

    content = b""


class Counted:
    """Content whose length is declared."""

    is_dense = is_flood = False
    break_is = "the content breaks off"

    def __init__(self, length: int, now_s: Callable[[], float] = time.monotonic) -> None:
        """`length` in bytes, not 0. `now_s` is any clock that never goes back."""
        self._left = length
        self._now_s = now_s
        self._tiny = TinyChunkLimit()

    def feed(self, data: bytes) -> Taken:
        """Take the content that `data` begins with.

        :raises BrokenFraming: if too many tiny pieces have come, as in TLS records of one byte.
        """
        if len(data) < self._left:
            self._left -= len(data)
            if self._tiny.are_too_many(1, len(data), self._now_s()):
                raise BrokenFraming(
                    f"too many pieces of fewer than {TINY_BYTES} bytes came at once; "
                    "send larger ones"
                )
            return Taken(data, len(data), is_end=False)
        left, self._left = self._left, 0
        return Taken(data[:left], left, is_end=True)


class _Next(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()


class Chunked:
    """Content in the chunked coding (RFC 9112, 7.1). Trailers are dropped (6.5.1).

    `is_dense` tells whether the last input was mostly coding: many lines, and little content. It is
    true until the first input has shown what it is. `is_flood` tells whether dense input comes much
    faster than live speech.
    """

    is_dense = True
    is_flood = False
    break_is = "the chunked coding breaks"

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """`now_s` is any clock that never goes back."""
        self._now_s = now_s
        self._tiny = TinyChunkLimit()
        self._small = TinyChunkLimit(
            _FLOOD_CHUNKS, tiny_bytes=2 * _DENSE_BYTES
        )  # two lines a chunk
        self._next = _Next.SIZE
        self._left = 0  # of the chunk
        self._kept = b""  # a line that has not ended
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> Taken:
        """As `Counted.feed`, without the coding. Takes at most `LINES_AT_ONCE` lines of `data`: the
        caller feeds the rest later.

        :raises BrokenFraming: if `data` is not in the chunked coding, or has had too many tiny
            chunks.
        """
        pieces: list[bytes] = []
        kept_bytes = len(self._kept)
        try:
            end, is_end = self._take(self._kept + data, pieces)
        except BrokenFraming as error:
            error.content = b"".join(pieces)
            raise
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return Taken(content, end - kept_bytes, is_end)

    def _take(self, data: bytes, pieces: list[bytes]) -> tuple[int, bool]:
        """Put the content into `pieces`. Return how far that went, and whether it has ended."""
        self._kept, at, lines, chunks = b"", 0, 0, 0
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
                self._keep(data[at:])
                at = len(data)
                break
            line, at = data[at:end], end + 2
            if self._next is _Next.SIZE:
                self._begin_chunk(line)
                chunks += 1
                chunk_end = at + self._left
                if self._left and data.startswith(b"\r\n", chunk_end):  # all of it is here
                    pieces.append(data[at:chunk_end])
                    at = chunk_end + 2
                    lines += 1
                    self._left, self._next = 0, _Next.SIZE
            elif self._next is _Next.DATA_END:
                if line:
                    raise BrokenFraming("a chunk is longer than its size")
                self._next = _Next.SIZE
            elif line:
                self._check_trailer(line)
            else:
                is_end = True
                break
        self.is_dense = lines * _DENSE_BYTES > at
        self.is_flood = False
        if self.is_dense and not is_end:
            size = sum(len(piece) for piece in pieces) + self._left
            now_s = self._now_s()
            self.is_flood = self._small.are_too_many(chunks, size, now_s)
            if self._tiny.are_too_many(chunks, size, now_s):
                raise BrokenFraming(
                    f"too many chunks of fewer than {TINY_BYTES} bytes came at once; "
                    "send larger chunks"
                )
        return at, is_end

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line) if len(line) <= MAX_SIZE_LINE_BYTES else None
        if match is None or (size := int(match[1], 16)) > MAX_LENGTH_BYTES:
            raise BrokenFraming("a chunk has no size")
        self._left = size
        self._next = _Next.DATA if size else _Next.TRAILER

    def _check_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_TRAILER_BYTES or not is_field(line):
            raise BrokenFraming("a trailer is none")

    def _keep(self, beginning: bytes) -> None:
        """A line has begun. One that cannot become what has to come is not waited for."""
        begun = beginning.removesuffix(b"\r")
        most = {
            _Next.SIZE: MAX_SIZE_LINE_BYTES,
            _Next.DATA_END: 0,
            _Next.TRAILER: MAX_TRAILER_BYTES - self._trailer_bytes,
        }
        if len(begun) > most[self._next] or b"\n" in begun or b"\r" in begun:
            raise BrokenFraming("a line does not end")
        self._kept = beginning

"""Where the content of a request ends: after so many bytes, or with the last chunk (RFC 9112, 6.3).

Pure, and strict for the reason that `heads` has. Both kinds are fed with what comes, cut anywhere.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from twistedmedia.wire.heads import MAX_LENGTH_BYTES, is_field

MAX_SIZE_LINE_BYTES = 1024  # of a size, with the extensions that nobody uses
MAX_TRAILER_BYTES = 16 << 10
# RFC 9112, 7.1.1: an extension may have blanks before it, a size may not have any behind it.
_SIZE = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class BrokenFraming(ValueError):
    """Nobody can say where the content ends. `content` is what came before that showed."""

    content = b""


class Counted:
    """Content whose length is declared."""

    def __init__(self, length: int) -> None:
        """`length` in bytes, not 0."""
        self._left = length

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """What of `data` is content, and what follows its end; None when that has not come."""
        if len(data) < self._left:
            self._left -= len(data)
            return data, None
        left, self._left = self._left, 0
        return data[:left], data[left:]


class _Next(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()


class Chunked:
    """Content in the chunked coding (RFC 9112, 7.1). Trailers are dropped (6.5.1)."""

    def __init__(self) -> None:
        self._next = _Next.SIZE
        self._left = 0  # of the chunk
        self._kept = b""  # a line that has not ended
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """As `Counted.feed`, without the coding.

        :raises BrokenFraming: when it is none.
        """
        pieces: list[bytes] = []
        try:
            rest = self._take(self._kept + data, pieces)
        except BrokenFraming as error:
            error.content = b"".join(pieces)
            raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), rest

    def _take(self, data: bytes, pieces: list[bytes]) -> bytes | None:
        """Put what is content into `pieces`; what follows its end, or None."""
        self._kept, at = b"", 0
        while at < len(data):
            if self._next is _Next.DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._next = _Next.DATA_END
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._keep(data[at:])
                break
            line, at = data[at:end], end + 2
            if self._next is _Next.SIZE:
                self._begin_chunk(line)
            elif self._next is _Next.DATA_END:
                if line:
                    raise BrokenFraming("a chunk is longer than its size")
                self._next = _Next.SIZE
            elif line:
                self._check_trailer(line)
            else:
                return data[at:]
        return None

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

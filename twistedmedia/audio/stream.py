"""Lets a parser read a stream like a file while the bytes are pushed in.

Pure. A parser is a generator. It yields which bytes it wants, and is sent them: fewer only at the
end of the stream. So the result does not depend on how the stream was cut into pieces, and only
requested bytes are held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeVar


def cut_off(declared_s: float, actual_s: float) -> str:
    """Describe a file shorter than declared: "header says 10:00, data ends at 4:12"."""
    declared = actual = ""
    for digits in (0, 3, 6, 9):
        declared, actual = _clock(declared_s, digits), _clock(actual_s, digits)
        if declared != actual:
            break
    return f"header says {declared}, data ends at {actual}"


def _clock(seconds: float, digits: int) -> str:
    # Rounded down: 4:12.9 is not yet 4:13.
    units = int(seconds * 10**digits)
    whole, rest = divmod(units, 10**digits)
    minutes, seconds_left = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{seconds_left:02}" if hours else f"{minutes}:{seconds_left:02}"
    return f"{clock}.{rest:0{digits}}" if digits else clock


T = TypeVar("T")

TAIL_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Take:
    """A request for the next `size` bytes, fewer at the end of the stream."""

    size: int


@dataclass(frozen=True, slots=True)
class Skip:
    """A request to skip the next `size` bytes, fewer at the end of the stream."""

    size: int


Parser = Generator[Take | Skip, bytes, T]


class Stream(Generic[T]):
    """Drives one parser.

    `position` is how many bytes the parser took or skipped, `size` how many were fed. `tail` is the
    last `TAIL_BYTES` of them, once the parser has set `keeps_tail` and as many were fed since.
    """

    def __init__(self, parse: Callable[[Stream[T]], Parser[T]]) -> None:
        self.position = 0
        self.size = 0
        self.keeps_tail = False
        self.tail = b""
        self._kept = bytearray()  # fed, but fewer bytes than the parser wants
        self._take = 0
        self._skip = 0
        self._result: list[T] = []
        self._parser = parse(self)
        self._resume(None)

    def unread(self, data: bytes) -> None:
        """Give back bytes that the parser took last. Called by the parser."""
        self._kept[:0] = data
        self.position -= len(data)

    def feed(self, data: bytes) -> None:
        """Add the next bytes of the stream."""
        if self._result:
            return
        self.size += len(data)
        self._advance(data)
        if self.keeps_tail:
            enough = len(data) >= TAIL_BYTES
            self.tail = (data if enough else self.tail + data)[-TAIL_BYTES:]

    def end(self) -> T:
        """End the stream and return the parser's result. Idempotent."""
        while not self._result:
            self._skip = 0
            self._resume(self._from_kept(len(self._kept)))
        return self._result[0]

    def _advance(self, data: bytes) -> None:
        at = 0
        while not self._result:
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                self.position += step
                at += step
                if self._skip:
                    return
                self._resume(b"")
            else:
                missing = self._take - len(self._kept)
                piece = data[at : at + missing]
                at += missing
                if len(piece) < missing:
                    self._kept += piece
                    return
                self.position += missing
                self._resume(self._from_kept(len(self._kept)) + piece)

    def _from_kept(self, size: int) -> bytes:
        piece = bytes(self._kept[:size])
        del self._kept[:size]
        self.position += len(piece)
        return piece

    def _resume(self, piece: bytes | None) -> None:
        """Send `piece` to the parser, and serve its next requests from the kept bytes."""
        try:
            while True:
                request = self._parser.send(piece) if piece is not None else next(self._parser)
                if isinstance(request, Skip):
                    self._skip = request.size - len(self._from_kept(request.size))
                    if self._skip:
                        return
                    piece = b""
                else:
                    self._take = request.size
                    if self._take > len(self._kept):
                        return
                    piece = self._from_kept(self._take)
        except StopIteration as stop:
            self._result.append(stop.value)
            self._kept.clear()

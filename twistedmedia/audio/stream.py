"""How long a recording is, and how much of it is missing, in words.

Pure.

A stream that is pushed in, read by a parser as if it were a file.

Pure. A parser is a generator: it yields what it wants and is sent the bytes, fewer only where the
stream ends. So it never knows how the stream was cut when it came, and only what a parser asks for
is held.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeVar


def cut_off(declared_s: float, came_s: float) -> str:
    """That less came than was declared, for people: "header says 10:00, data ends at 4:12"."""
    declared = came = ""
    for digits in (0, 3, 6, 9):
        declared, came = _clock(declared_s, digits), _clock(came_s, digits)
        if declared != came:
            break
    return f"header says {declared}, data ends at {came}"


def _clock(seconds: float, digits: int) -> str:
    # Rounded down: what lasts 4:12.9 has not come to 4:13.
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
    """The next `size` bytes, fewer where the stream ends."""

    size: int


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing of the next `size` bytes, or of those until the stream ends."""

    size: int


Parser = Generator[Take | Skip, bytes, T]


class Stream(Generic[T]):
    """Drives one parser. `position` is how many bytes the parser has taken or skipped, `size` how
    many have come. `tail` is the last `TAIL_BYTES` of them, once the parser has set `keeps_tail`
    and as many have come since.
    """

    def __init__(self, parse: Callable[[Stream[T]], Parser[T]]) -> None:
        self.position = 0
        self.size = 0
        self.keeps_tail = False
        self.tail = b""
        self._kept = bytearray()  # came, and is less than the parser wants
        self._take = 0
        self._skip = 0
        self._result: list[T] = []
        self._parser = parse(self)
        self._resume(None)

    def unread(self, data: bytes) -> None:
        """For the parser: the bytes that it took last come again."""
        self._kept[:0] = data
        self.position -= len(data)

    def feed(self, data: bytes) -> None:
        """More of the stream."""
        if self._result:
            return
        self.size += len(data)
        self._advance(data)
        if self.keeps_tail:
            enough = len(data) >= TAIL_BYTES
            self.tail = (data if enough else self.tail + data)[-TAIL_BYTES:]

    def end(self) -> T:
        """The stream has ended; what the parser makes of it. May be called again."""
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
        """Send `piece`, and what of the parser's next wishes can be granted from what is kept."""
        try:
            while True:
                wish = self._parser.send(piece) if piece is not None else next(self._parser)
                if isinstance(wish, Skip):
                    self._skip = wish.size - len(self._from_kept(wish.size))
                    if self._skip:
                        return
                    piece = b""
                else:
                    self._take = wish.size
                    if self._take > len(self._kept):
                        return
                    piece = self._from_kept(self._take)
        except StopIteration as stop:
            self._result.append(stop.value)
            self._kept.clear()

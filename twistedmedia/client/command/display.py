"""What a person sees while the command runs, where there is no terminal: plain lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TextIO

from twistedmedia.client.command.figures import rate_text, size_text, time_text
from twistedmedia.client.command.printable import printable

# How often a file that takes long is heard of in a log.
EVERY_S = 10.0


class Transfer(Protocol):
    """One file that is under way."""

    def moved(self, done: int, size: int | None) -> None:
        """`done` of its `size` bytes, None when that is not known, are where they should be."""

    def ended(self, size: int) -> None:
        """It is over; it counts as `size` bytes of all that was expected."""


class Display(Protocol):
    """Where the command writes. All text is harmless by now."""

    def expect(self, size: int) -> None:
        """So many more bytes are to be seen to."""

    def transfer(self, name: str) -> Transfer:
        """A file begins."""

    def line(self, text: str) -> None:
        """A result, on stdout."""

    def note(self, text: str) -> None:
        """Something for the person only, on stderr."""

    def close(self) -> None:
        """Nothing more comes. Idempotent."""


class Lines:
    """Lines, as they come."""

    def __init__(
        self, out: TextIO, notes: TextIO, clock: Callable[[], float], *, quiet: bool
    ) -> None:
        """`clock` gives seconds. Who wants it `quiet` hears of no file that is under way."""
        self._out = out
        self._notes = notes
        self._clock = clock
        self._quiet = quiet

    def expect(self, size: int) -> None:
        pass

    def transfer(self, name: str) -> Transfer:
        return _Heard(name, self._clock, (lambda text: None) if self._quiet else self.note)

    def line(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def note(self, text: str) -> None:
        print(text, file=self._notes, flush=True)

    def close(self) -> None:
        pass


class _Heard:
    def __init__(self, name: str, clock: Callable[[], float], say: Callable[[str], None]) -> None:
        self._name = printable(name)
        self._clock = clock
        self._say = say
        self._first: tuple[float, int] | None = None
        self._said_at = 0.0

    def moved(self, done: int, size: int | None) -> None:
        now = self._clock()
        if self._first is None or done < self._first[1]:
            self._first, self._said_at = (now, done), now
            return
        if now - self._said_at < EVERY_S:
            return
        self._said_at = now
        moved, seconds = done - self._first[1], now - self._first[0]
        text = f"{self._name}: {size_text(done)}"
        if size:
            text += f" of {size_text(size)} ({done * 100 // size}%)"
        text += f", {rate_text(moved, seconds)}"
        if size and moved:
            text += f", {time_text((size - done) * seconds / moved)} left"
        self._say(text)

    def ended(self, size: int) -> None:
        pass

"""Output of the command: results on stdout; messages and progress on stderr.

`Lines` writes plain lines. `bars.Bars` draws progress bars on a terminal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TextIO

from twistedmedia.client.command.text import printable, rate_text, size_text, time_text

# Often enough to show that a long transfer is alive, seldom enough for a log.
PROGRESS_INTERVAL_S = 10.0


class Transfer(Protocol):
    """The progress of one file."""

    def update(self, done: int, size: int | None) -> None:
        """Show that `done` of `size` bytes are transferred. `size` is None if it is unknown."""

    def end(self, size: int) -> None:
        """Stop showing the file, and count `size` bytes of the expected total as done."""


class Display(Protocol):
    """Where the command writes. It makes all text safe for a terminal."""

    def expect(self, size: int) -> None:
        """Add `size` bytes to the expected total."""

    def transfer(self, name: str) -> Transfer:
        """Begin to show the progress of a file."""

    def line(self, text: str) -> None:
        """Write a result to stdout."""

    def note(self, text: str) -> None:
        """Write a message for people to stderr."""

    def close(self) -> None:
        """Stop showing progress. Idempotent."""


class Lines:
    """Writes plain lines at once. A transfer that takes long gets a line from time to time."""

    def __init__(
        self, out: TextIO, err: TextIO, clock: Callable[[], float], *, quiet: bool
    ) -> None:
        """`clock` returns seconds. `quiet` turns off the lines about progress."""
        self._out = out
        self._err = err
        self._clock = clock
        self._quiet = quiet

    def expect(self, size: int) -> None:
        pass

    def transfer(self, name: str) -> Transfer:
        return _LoggedTransfer(name, self._clock, (lambda _: None) if self._quiet else self.note)

    def line(self, text: str) -> None:
        print(printable(text), file=self._out, flush=True)

    def note(self, text: str) -> None:
        print(printable(text), file=self._err, flush=True)

    def close(self) -> None:
        pass


class _LoggedTransfer:
    """Calls `log` with the progress of a file every `PROGRESS_INTERVAL_S`."""

    def __init__(self, name: str, clock: Callable[[], float], log: Callable[[str], None]) -> None:
        self._name = name
        self._clock = clock
        self._log = log
        self._start: tuple[float, int] | None = None  # when, and the bytes done by then
        self._logged_at = 0.0

    def update(self, done: int, size: int | None) -> None:
        now = self._clock()
        if self._start is None or done < self._start[1]:
            self._start, self._logged_at = (now, done), now
            return
        if now - self._logged_at < PROGRESS_INTERVAL_S:
            return
        self._logged_at = now
        moved, seconds = done - self._start[1], now - self._start[0]
        text = f"{self._name}: {size_text(done)}"
        if size:
            text += f" of {size_text(size)} ({done * 100 // size}%)"
        text += f", {rate_text(moved, seconds)}"
        if size and moved:
            text += f", {time_text((size - done) * seconds / moved)} left"
        self._log(text)

    def end(self, size: int) -> None:
        pass

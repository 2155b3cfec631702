"""What a person sees while the command runs, where there is no terminal: plain lines.

Progress on a terminal: a bar for each file under way, and one for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text
from twisted.internet.task import LoopingCall

from twistedmedia.client.command.text import printable, rate_text, size_text, time_text

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


_REFRESH_S = 0.1


class Bars:
    """Bars on `notes`, a terminal. `shares` is whether `out` is a terminal as well, taken to be the
    same: results are written above the bars then.
    """

    def __init__(self, reactor: Any, out: TextIO, notes: TextIO, *, shares: bool) -> None:
        self._out = out
        self._shares = shares
        self._console = Console(file=notes, markup=False, highlight=False, emoji=False)
        self._progress = Progress(
            TextColumn(
                "{task.description}",
                markup=False,  # a file may be called "[bold]"
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            BarColumn(bar_width=20),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,  # by a thread of its own; the reactor does it
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        self._expected = self._settled = 0
        self._running: dict[TaskID, int] = {}
        self._all: TaskID | None = None
        self._progress.start()
        self._refreshing = LoopingCall(self._refresh)
        self._refreshing.clock = reactor
        self._refreshing.start(_REFRESH_S, now=False)

    def expect(self, size: int) -> None:
        self._expected += size

    def transfer(self, name: str) -> Transfer:
        return _Bar(self, printable(name))

    def line(self, text: str) -> None:
        if self._shares:
            self._console.print(Text(text), soft_wrap=True)
        else:
            print(text, file=self._out, flush=True)

    def note(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        if self._refreshing.running:
            self._refreshing.stop()
            self._progress.stop()

    def begin(self, name: str, done: int, size: int | None) -> TaskID:
        """A bar appears, with what is done already: that is not part of the rate."""
        task = self._progress.add_task(name, total=size, completed=done)
        self._running[task] = done
        if self._all is None:
            self._all = self._progress.add_task(
                "all", total=self._expected, completed=self._settled + done
            )
        return task

    def move(self, task: TaskID, done: int, size: int | None) -> None:
        """A bar moves."""
        self._running[task] = done
        self._progress.update(task, completed=done, total=size)

    def end(self, task: TaskID | None, size: int) -> None:
        """A bar disappears; its file counts as `size` bytes."""
        self._settled += size
        if task is not None:
            del self._running[task]
            self._progress.remove_task(task)

    def _refresh(self) -> None:
        if self._all is not None:
            done = self._settled + sum(self._running.values())
            self._progress.update(self._all, completed=done, total=max(done, self._expected))
        self._progress.refresh()


class _Bar:
    def __init__(self, bars: Bars, name: str) -> None:
        self._bars = bars
        self._name = name
        self._task: TaskID | None = None

    def moved(self, done: int, size: int | None) -> None:
        if self._task is None:
            self._task = self._bars.begin(self._name, done, size)
        else:
            self._bars.move(self._task, done, size)

    def ended(self, size: int) -> None:
        self._bars.end(self._task, size)

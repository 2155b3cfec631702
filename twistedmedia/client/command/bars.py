"""Progress bars on a terminal: one for each file in progress, and one for all files.

It imports rich, which takes a while, so it is imported only for a terminal.
"""

from __future__ import annotations

from typing import Any, TextIO

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

from twistedmedia.client.command.display import Transfer
from twistedmedia.client.command.text import printable

_REFRESH_S = 0.1


class Bars:
    """A `Display` with bars on `err`, a terminal. `is_same_terminal` means that `out` is that
    terminal too; results are then written above the bars.
    """

    def __init__(self, reactor: Any, out: TextIO, err: TextIO, *, is_same_terminal: bool) -> None:
        self._out = out
        self._is_same_terminal = is_same_terminal
        self._console = Console(file=err, markup=False, highlight=False, emoji=False)
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
            auto_refresh=False,  # rich would start a thread for it; the reactor refreshes instead
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        self._expected = self._ended = 0
        self._all: TaskID | None = None
        self._progress.start()
        self._refreshing = LoopingCall(self._on_refresh)
        self._refreshing.clock = reactor
        self._refreshing.start(_REFRESH_S, now=False)

    def expect(self, size: int) -> None:
        self._expected += size

    def transfer(self, name: str) -> Transfer:
        return _Bar(self, self._progress, printable(name))

    def line(self, text: str) -> None:
        if self._is_same_terminal:
            self.note(text)
        else:
            print(printable(text), file=self._out, flush=True)

    def note(self, text: str) -> None:
        self._console.print(Text(printable(text)), soft_wrap=True)

    def close(self) -> None:
        if self._refreshing.running:
            self._refreshing.stop()
            self._progress.stop()

    def end(self, bar: TaskID | None, size: int) -> None:
        """Remove a bar, if there is one, and count `size` bytes of the expected total as done."""
        self._ended += size
        if bar is not None:
            self._progress.remove_task(bar)

    def _on_refresh(self) -> None:
        files = [task for task in self._progress.tasks if task.id != self._all]
        done = self._ended + sum(int(task.completed) for task in files)
        if self._all is not None:
            self._progress.update(self._all, completed=done, total=max(done, self._expected))
        elif files:
            self._all = self._progress.add_task("all", total=self._expected, completed=done)
        self._progress.refresh()


class _Bar:
    """The bar of one file. It appears with the first bytes, which do not count in the rate."""

    def __init__(self, bars: Bars, progress: Progress, name: str) -> None:
        self._bars = bars
        self._progress = progress
        self._name = name
        self._bar: TaskID | None = None

    def update(self, done: int, size: int | None) -> None:
        if self._bar is None:
            self._bar = self._progress.add_task(self._name, total=size, completed=done)
        else:
            self._progress.update(self._bar, completed=done, total=size)

    def end(self, size: int) -> None:
        self._bars.end(self._bar, size)

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
    """A `Display` with bars on `err`, which is a terminal.

    `is_same_terminal` means that `out` is that terminal too; results are then written above the
    bars.
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
        self._done: dict[TaskID, int] = {}  # bytes, of each file in progress
        self._total: TaskID | None = None
        self._progress.start()
        self._refreshing = LoopingCall(self._on_refresh)
        self._refreshing.clock = reactor
        self._refreshing.start(_REFRESH_S, now=False)

    def expect(self, size: int) -> None:
        self._expected += size

    def transfer(self, name: str) -> Transfer:
        return _Bar(self, printable(name))

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

    def add_bar(self, name: str, done: int, size: int | None) -> TaskID:
        """Show a bar. The `done` bytes do not count in its rate."""
        bar = self._progress.add_task(name, total=size, completed=done)
        self._done[bar] = done
        if self._total is None:
            self._total = self._progress.add_task(
                "all", total=self._expected, completed=self._ended + done
            )
        return bar

    def update_bar(self, bar: TaskID, done: int, size: int | None) -> None:
        self._done[bar] = done
        self._progress.update(bar, completed=done, total=size)

    def end_bar(self, bar: TaskID | None, size: int) -> None:
        """Remove a bar, if the file has one, and count `size` bytes of the total as done."""
        self._ended += size
        if bar is not None:
            del self._done[bar]
            self._progress.remove_task(bar)

    def _on_refresh(self) -> None:
        if self._total is not None:
            done = self._ended + sum(self._done.values())
            self._progress.update(self._total, completed=done, total=max(done, self._expected))
        self._progress.refresh()


class _Bar:
    """The bar of one file. It appears with the first bytes."""

    def __init__(self, bars: Bars, name: str) -> None:
        self._bars = bars
        self._name = name
        self._bar: TaskID | None = None

    def update(self, done: int, size: int | None) -> None:
        if self._bar is None:
            self._bar = self._bars.add_bar(self._name, done, size)
        else:
            self._bars.update_bar(self._bar, done, size)

    def end(self, size: int) -> None:
        self._bars.end_bar(self._bar, size)

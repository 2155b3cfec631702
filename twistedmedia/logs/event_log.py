"""Lets threads write the event log, so that the event loop does not wait for it.

The observers that `twistd` or `twist` installed still format events. Their text goes to a spool,
whose thread writes it.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    eventAsText,
    globalLogPublisher,
)
from twisted.python.logfile import LogFile
from zope.interface import directlyProvides

from twistedmedia.logs.spool import LAST_WAIT_S, LineFile, Spool

# The key of events about refused requests, which are dropped first.
_IS_REFUSAL = "is_refusal"
_SLOW = "the log is read or written too slowly"
_PLAIN = (str, int, float, type(LogLevel.info), type(None))


class EventLog:
    """Makes the observers of a publisher write by threads.

    Call `open` when all observers are installed and the process does not fork any more. After
    `close` each logging call waits until its event is written, but all together no longer than
    `LAST_WAIT_S`: so nothing is lost when the process ends.
    """

    def __init__(self, publisher: LogPublisher = globalLogPublisher) -> None:
        self._publisher = publisher
        self._log = Logger(observer=publisher)
        self._spools: list[Spool[Any]] = []
        self._end_s: float | None = None  # when waiting ends, on the monotonic clock
        self._why = _SLOW  # why events were dropped last

    @property
    def dropped(self) -> int:
        """How many events were dropped so far because the log could not be written."""
        return sum(spool.dropped for spool in self._spools)

    def open(self) -> None:
        """Start a thread for each observer."""
        for observer in tuple(self._publisher._observers):
            inner = observer
            while isinstance(inner, FilteringLogObserver):
                inner = inner._observer
            if isinstance(inner, FileLogObserver) and _has_descriptor(inner._outFile):
                self._spool_file(inner)
            else:
                self._publisher.removeObserver(observer)
                self._publisher.addObserver(self._spooled(observer))
        atexit.register(self.close)

    def settle(self) -> None:
        """Wait until all earlier events are written, but no longer than `LAST_WAIT_S`."""
        end_s = time.monotonic() + LAST_WAIT_S
        for spool in self._spools:
            spool.wait(max(0.0, end_s - time.monotonic()))

    def close(self) -> None:
        """Wait for all earlier and later events, for `LAST_WAIT_S` in all. Idempotent."""
        if self._end_s is not None:
            return
        self._end_s = time.monotonic() + LAST_WAIT_S
        for spool in self._spools:
            spool.hurry()
            self._await(spool)

    def _start(self, write: Callable[[list[Any]], int]) -> Spool[Any]:
        spool: Spool[Any] = Spool("event log", write, self._report_dropped)
        self._spools.append(spool)
        spool.start()
        return spool

    def _await(self, spool: Spool[Any]) -> None:
        """If the log is closed, wait until `spool` is written. Only the main thread waits: another
        one may be the writer.
        """
        if self._end_s is None or threading.current_thread() is not threading.main_thread():
            return
        left_s = self._end_s - time.monotonic()
        if left_s > 0:
            spool.wait(left_s)

    def _report_dropped(self, dropped: int) -> None:
        self._log.warn(
            "{dropped} events before this one were dropped from this log: {why}",
            dropped=dropped,
            why=self._why,
        )
        self._why = _SLOW

    # Observers that write to a file

    def _spool_file(self, observer: FileLogObserver) -> None:
        file: Any = observer._outFile
        if isinstance(file, LogFile):
            _append_in(file)
            lines = LineFile(lambda data: _add_to(file, data), lambda: file._file.fileno())
        else:
            # A descriptor of our own: a text file buffers what could not be written and flushes it
            # at the end of the process, which would wait for it.
            descriptor = os.dup(file.fileno())
            lines = LineFile(lambda data: os.write(descriptor, data), lambda: descriptor)
        encoding = getattr(file, "encoding", None) or "utf-8"

        def write(texts: list[str]) -> int:
            lost, error = lines.write([text.encode(encoding, "backslashreplace") for text in texts])
            if error is not None:
                self._why = error.strerror or str(error)
            return lost

        spool = self._start(write)
        format_event = observer.formatEvent

        def format_marked(event: LogEvent) -> str | None:
            text = format_event(event)
            return _Expendable(text) if text and event.get(_IS_REFUSAL) else text

        observer.formatEvent = format_marked
        observer._outFile = _Spooled(spool, self._await)  # type: ignore[assignment]
        if isinstance(file, LogFile):
            _rotate_in(spool, file, self._log)

    # Other observers

    def _spooled(self, observer: ILogObserver) -> ILogObserver:
        def write(events: list[LogEvent]) -> int:
            lost = 0
            for event in events:
                try:
                    observer(event)
                except Exception as error:  # noqa: BLE001 - observers are foreign code
                    self._why = str(error) or type(error).__name__
                    lost += 1
            return lost

        spool = self._start(write)

        def observe(event: LogEvent) -> None:
            frozen = _freeze(event)
            spool.add(frozen, len(frozen["text"]), is_expendable=bool(event.get(_IS_REFUSAL)))
            self._await(spool)

        directlyProvides(observe, ILogObserver)
        return observe  # type: ignore[return-value]


class _Expendable(str):
    """The text of an event about a refused request."""

    __slots__ = ()


class _Spooled:
    """A file for `FileLogObserver` that writes to a spool."""

    def __init__(self, spool: Spool[str], flush: Callable[[Spool[str]], None]) -> None:
        self._spool = spool
        self._flush = flush

    def write(self, text: str) -> None:
        self._spool.add(text, len(text), is_expendable=isinstance(text, _Expendable))

    def flush(self) -> None:
        self._flush(self._spool)


def _has_descriptor(file: Any) -> bool:
    if isinstance(file, LogFile):
        return True
    try:
        file.fileno()
    except (AttributeError, OSError):  # not a file of the system
        return False
    return True


def _add_to(file: Any, data: memoryview) -> int:
    """As `LogFile.write`, but returns how many bytes were written, for a disk that is full."""
    if file._file.closed:  # the last rotation failed between the old file and the new one
        file._openFile()
    if file.shouldRotate():
        file.rotate()
    written: int = file._file.write(data)
    file.size = file._file.tell()  # smaller than before if another process has truncated the file
    return written


def _append_in(file: Any) -> None:
    """Make `file` append to each file that it opens. After another process truncated the file, as
    logrotate does with `copytruncate`, Twisted would leave a hole.
    """
    open_file = file._openFile

    def open_to_append() -> None:
        open_file()
        _append(file)

    file._openFile = open_to_append
    _append(file)


def _append(file: Any) -> None:
    flags = fcntl.fcntl(file._file, fcntl.F_GETFL)
    fcntl.fcntl(file._file, fcntl.F_SETFL, flags | os.O_APPEND)


def _rotate_in(spool: Spool[str], file: Any, log: Logger) -> None:
    """Make the thread of `spool` rotate `file`: on SIGUSR1 twistd calls `file.rotate` in the event
    loop. If another process has renamed or removed the file, it is reopened instead.
    """
    rotate = file.rotate

    def rotate_or_reopen() -> None:
        if _is_in_place(file):
            rotate()
            return
        try:
            _reopen(file)
        except OSError as error:
            log.warn(
                "the log cannot be reopened: {path}: {why}; the old file is kept",
                path=file.path,
                why=error.strerror,
            )

    def rotate_in_thread() -> None:
        if spool.is_its_thread():
            rotate_or_reopen()
        else:
            spool.call(rotate_or_reopen)

    file.rotate = rotate_in_thread


def _is_in_place(file: Any) -> bool:
    """Whether the open file is still at the path of `file`."""
    if file._file.closed:  # as in `_add_to`
        return False
    try:
        found = os.stat(file.path)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(file._file.fileno()))


def _reopen(file: Any) -> None:
    """Open the path of `file` again. If that fails, the old file stays open."""
    old = file._file
    if os.path.exists(file.path):  # keep the permissions of an existing file
        file.defaultMode = stat.S_IMODE(os.stat(file.path).st_mode)
    file._openFile()
    old.close()


def _freeze(event: LogEvent) -> LogEvent:
    """A copy of `event` with its final text and without references to objects of the program. A
    failure, for example, refers to everything in its frames.
    """
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    plain = {key: value for key, value in event.items() if isinstance(value, _PLAIN)}
    plain.pop("format", None)  # of a legacy event, whose arguments are removed
    return {**plain, "log_format": "{text}", "text": text}

"""The access log: one line a request, in the combined format, with the seconds that it took.

    192.0.2.7 - - [25/Nov/2026:13:00:01 +0000] "GET /media/a/b HTTP/1.1" 200 8192 "-" "mpv" 0.002

Lines are collected and written together, by a thread: a disk that hangs makes nobody wait.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twistedmedia.errors import ConfigurationError, is_refusal
from twistedmedia.logs.spool import LAST_WAIT_S, LineFile, Spool

STDOUT = "-"
_UNSAFE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')  # what could end a line, or a field (case 35)
# A URL that is to be fetched can hold the key to what it names.
_SECRET = re.compile(rb"([?&;](?:u|%75)(?:r|%72)(?:l|%6[cC])=)[^& ]+")  # as Twisted finds it
_REMEMBERED_BYTES = 512  # a field that is longer is hardly sent again


class AccessLog:
    """A file that lines are added to. `open` comes before the first line, `close` after the last.

    Between the two belongs a thread to it, which alone touches the file.
    """

    _log = Logger()

    def __init__(self, reactor: Any, path: str, now: Callable[[], float] = time.time) -> None:
        """`path` is a file's, or `-` for the standard output; `now` the time of day in seconds."""
        self._reactor = reactor
        self._path = path
        self._now = now
        self._second = -1
        self._stamp = ""
        self._spool: Spool[str] = Spool("access log", self._write, self._tell)
        self._descriptor = -1
        self._lines: LineFile
        self._failing = False
        self._losing = False

    def open(self) -> None:
        """Lines may come.

        :raises ConfigurationError: when the file cannot be opened.
        """
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise ConfigurationError(f"{self._path}: {error.strerror}") from error
        self._lines = self._line_file()
        self._spool.start()

    def add(
        self,
        client: str,
        request_line: bytes,
        status: int,
        sent_bytes: int,
        referer: bytes = b"",
        agent: bytes = b"",
        taken_s: float = 0.0,
    ) -> None:
        """Add the line of one request. `request_line` and what follows `sent_bytes` are as they
        came, empty where they did not.
        """
        now = int(self._now())
        if now != self._second:
            self._second = now
            self._stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now))
        line = (
            f'{client} - - [{self._stamp}] "{_told(request_line)}" {status} {sent_bytes or "-"} '
            f'"{_told(referer)}" "{_told(agent)}" {taken_s:.3f}\n'
        )
        was_added = self._spool.add(line, len(line), is_expendable=is_refusal(status))
        if not was_added and not self._losing:
            self._losing = True
            self._log.warn("the access log's disk is slow: lines are lost")

    def reopen(self) -> None:
        """The file was renamed: go on in a new one of the old name. While that fails, the old one
        is kept.
        """
        self._spool.call(self._reopen)

    def close(self) -> Deferred[None]:
        """Fires when the last line is written, or a disk that hangs was waited for."""
        closed: Deferred[None] = Deferred()
        if self._descriptor < 0:
            closed.callback(None)
            return closed
        self._spool.call(self._close)
        self._spool.call(lambda: self._reactor.callFromThread(_fire, closed))
        self._spool.finish()
        return closed.addTimeout(LAST_WAIT_S, self._reactor, onTimeoutCancel=lambda *_: None)

    def _tell_lost(self, lost: int) -> None:
        self._losing = False
        self._log.warn("the access log has lost {lost} lines", lost=lost)

    # In the thread

    def _write(self, lines: list[str]) -> int:
        lost, error = self._lines.write(
            [line.encode("ascii", "backslashreplace") for line in lines]
        )
        if error is None:
            self._failing = False
        else:
            self._say(error, "lines are lost")
        return lost

    def _tell(self, lost: int) -> None:
        self._reactor.callFromThread(self._tell_lost, lost)

    def _reopen(self) -> None:
        try:
            descriptor = self._open()
        except OSError as error:
            self._say(error, "the old file is kept")
        else:
            os.close(self._descriptor)
            self._descriptor = descriptor
            self._lines = self._line_file()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def _line_file(self) -> LineFile:
        return LineFile(lambda data: os.write(self._descriptor, data), lambda: self._descriptor)

    def _open(self) -> int:
        if self._path == STDOUT:
            return os.dup(1)
        # Without a wait, should it be a FIFO that nobody reads.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o666)
        os.set_blocking(descriptor, True)
        return descriptor

    def _say(self, error: OSError, consequence: str) -> None:
        if not self._failing:  # once, until it works again
            self._failing = True
            self._reactor.callFromThread(
                self._log.error,
                "the access log: {why}; {consequence}",
                why=error.strerror,
                consequence=consequence,
            )


def _told(field: bytes) -> str:
    """`field` without secrets, and without what could end it or its line."""
    return _remembered(field) if len(field) <= _REMEMBERED_BYTES else _escaped(field)


def _escaped(field: bytes) -> str:
    field = _SECRET.sub(rb"\1...", field)
    return _UNSAFE.sub(lambda match: b"\\x%02x" % match[0][0], field).decode("ascii") or "-"


# The same clients come again and again, and ask for the same.
_remembered = lru_cache(1024)(_escaped)


def _fire(closed: Deferred[None]) -> None:
    if not closed.called:
        closed.callback(None)

"""The access log: one line for each request, in the combined format, and the seconds it took.

    192.0.2.7 - - [25/Nov/2026:13:00:01 +0000] "GET /media/a/b HTTP/1.1" 200 8192 "-" "mpv" 0.002

A thread writes lines in batches, so that the event loop does not wait for a disk that hangs.
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
_UNSAFE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')  # could end a line or a field (case 35)
# A URL to fetch can contain a password or key. The pattern finds the argument as Twisted does.
_SECRET = re.compile(rb"([?&;](?:u|%75)(?:r|%72)(?:l|%6[cC])=)[^& ]+")
_CACHED_BYTES = 512  # longer fields are seldom repeated


class AccessLog:
    """A file of lines. Call `open` before the first line and `close` after the last.

    Between the two only its thread uses the file.
    """

    _log = Logger()

    def __init__(self, reactor: Any, path: str, now: Callable[[], float] = time.time) -> None:
        """`path` may be `-` for the standard output. `now` returns the time of day in seconds."""
        self._reactor = reactor
        self._path = path
        self._now = now
        self._second = -1
        self._stamp = ""
        self._spool: Spool[str] = Spool("access log", self._write, self._report_lost)
        self._descriptor = -1
        self._lines: LineFile
        self._is_failing = False
        self._is_losing = False

    def open(self) -> None:
        """Open the file and start the thread.

        :raises ConfigurationError: if the file cannot be opened.
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
        """Add the line of one request. `request_line`, `referer` and `agent` are as received, or
        empty. `taken_s` is how long the request took.
        """
        now = int(self._now())
        if now != self._second:
            self._second = now
            self._stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now))
        line = (
            f'{client} - - [{self._stamp}] "{_shown(request_line)}" {status} {sent_bytes or "-"} '
            f'"{_shown(referer)}" "{_shown(agent)}" {taken_s:.3f}\n'
        )
        was_added = self._spool.add(line, len(line), is_expendable=is_refusal(status))
        if not was_added and not self._is_losing:
            self._is_losing = True
            self._log.warn("the access log's disk is slow: lines are lost")

    def reopen(self) -> None:
        """Continue in a new file after the old one was renamed. If it cannot be opened, keep the
        old one.
        """
        self._spool.call(self._reopen)

    def close(self) -> Deferred[None]:
        """Write all lines and close the file. The Deferred fires afterwards, or after `LAST_WAIT_S`
        if the disk hangs.
        """
        closed: Deferred[None] = Deferred()
        if self._descriptor < 0:
            closed.callback(None)
            return closed
        self._spool.call(self._close)
        self._spool.call(lambda: self._reactor.callFromThread(_fire, closed))
        self._spool.finish()
        return closed.addTimeout(LAST_WAIT_S, self._reactor, onTimeoutCancel=lambda *_: None)

    def _on_lost(self, lost: int) -> None:
        self._is_losing = False
        self._log.warn("the access log has lost {lost} lines", lost=lost)

    # In the thread

    def _write(self, lines: list[str]) -> int:
        lost, error = self._lines.write(
            [line.encode("ascii", "backslashreplace") for line in lines]
        )
        if error is None:
            self._is_failing = False
        else:
            self._report(error, "lines are lost")
        return lost

    def _report_lost(self, lost: int) -> None:
        self._reactor.callFromThread(self._on_lost, lost)

    def _reopen(self) -> None:
        try:
            descriptor = self._open()
        except OSError as error:
            self._report(error, "the old file is kept")
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
        # O_NONBLOCK: the path may be a FIFO without a reader.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o666)
        os.set_blocking(descriptor, True)
        return descriptor

    def _report(self, error: OSError, consequence: str) -> None:
        if not self._is_failing:  # report once until it works again
            self._is_failing = True
            self._reactor.callFromThread(
                self._log.error,
                "the access log: {why}; {consequence}",
                why=error.strerror,
                consequence=consequence,
            )


def _shown(field: bytes) -> str:
    """`field` without secrets, and without characters that could end it or its line."""
    return _cached(field) if len(field) <= _CACHED_BYTES else _escaped(field)


def _escaped(field: bytes) -> str:
    field = _SECRET.sub(rb"\1...", field)
    return _UNSAFE.sub(lambda match: b"\\x%02x" % match[0][0], field).decode("ascii") or "-"


# Most requests repeat fields of earlier ones.
_cached = lru_cache(1024)(_escaped)


def _fire(closed: Deferred[None]) -> None:
    if not closed.called:
        closed.callback(None)

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
from queue import SimpleQueue
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from twistedmedia.errors import ConfigurationError

STDOUT = "-"
_COLLECT_S = 0.25
_CLOSE_S = 2.0  # how long the end of a service waits for a disk that hangs
# What may wait for it: some ten thousand lines. What comes then is lost, and counted.
_WAITING_BYTES = 1 << 20
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
        self._lines: list[str] = []
        self._flushing: IDelayedCall | None = None
        self._second = -1
        self._stamp = ""
        self._jobs: SimpleQueue[bytes | Callable[[], None] | None] = SimpleQueue()
        self._given = 0  # bytes for the thread, and how many of them it has done with
        self._done = 0
        self._lost = 0
        self._descriptor = -1
        self._failing = False
        self._is_torn = False  # the file ends in the middle of a line

    def open(self) -> None:
        """Lines may come.

        :raises ConfigurationError: when the file cannot be opened.
        """
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise ConfigurationError(f"{self._path}: {error.strerror}") from error
        Thread(target=self._work, name="access log", daemon=True).start()

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
        self._lines.append(
            f'{client} - - [{self._stamp}] "{_told(request_line)}" {status} {sent_bytes or "-"} '
            f'"{_told(referer)}" "{_told(agent)}" {taken_s:.3f}\n'
        )
        if self._flushing is None:
            self._flushing = self._reactor.callLater(_COLLECT_S, self._flush)

    def reopen(self) -> None:
        """The file was renamed: go on in a new one of the old name. While that fails, the old one
        is kept.
        """
        self._flush()
        self._jobs.put(self._reopen)

    def close(self) -> Deferred[None]:
        """Fires when the last line is written, or a disk that hangs was waited for."""
        closed: Deferred[None] = Deferred()
        if self._descriptor < 0:
            closed.callback(None)
            return closed
        self._flush()
        self._tell_lost()
        self._jobs.put(lambda: self._reactor.callFromThread(_tell, closed))
        self._jobs.put(None)
        return closed.addTimeout(_CLOSE_S, self._reactor, onTimeoutCancel=lambda *_: None)

    def _flush(self) -> None:
        if self._flushing is not None and self._flushing.active():
            self._flushing.cancel()
        self._flushing = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        if self._given - self._done > _WAITING_BYTES:
            if not self._lost:
                self._log.warn("the access log's disk is slow: lines are lost")
            self._lost += len(lines)
            return
        self._tell_lost()
        data = "".join(lines).encode("ascii", "backslashreplace")
        self._given += len(data)
        self._jobs.put(data)

    def _tell_lost(self) -> None:
        if self._lost:
            self._log.warn(
                "the access log has lost {lost} lines: its disk is slow", lost=self._lost
            )
            self._lost = 0

    # In the thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if isinstance(job, bytes):
                self._write(job)
                self._done += len(job)
            else:
                job()
        os.close(self._descriptor)
        self._descriptor = -1

    def _write(self, data: bytes) -> None:
        if self._is_torn:
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, memoryview(data)[written:])
                self._is_torn = data[written - 1 : written] != b"\n"
        except OSError as error:
            self._say(error, "lines are lost")
        else:
            self._failing = False

    def _reopen(self) -> None:
        try:
            descriptor = self._open()
        except OSError as error:
            self._say(error, "the old file is kept")
        else:
            os.close(self._descriptor)
            self._descriptor = descriptor

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


def _tell(closed: Deferred[None]) -> None:
    if not closed.called:
        closed.callback(None)

"""The event log: threads write the text of observers, and the text stays the same."""

from __future__ import annotations

import atexit
import gc
import os
import threading
import weakref
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    LogPublisher,
    textFileLogObserver,
)
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from tests.support import TIMEOUT_S
from twistedmedia.logs import event_log as module
from twistedmedia.logs.event_log import EventLog
from twistedmedia.logs.spool import LAST_WAIT_S, Spool


class Logging:
    """A publisher with observers, and its event log."""

    def __init__(self) -> None:
        self.publisher = LogPublisher()
        self.event_log = EventLog(self.publisher)
        self.log = Logger("test", observer=self.publisher)

    def open(self, *observers: Any) -> None:
        for observer in observers:
            self.publisher.addObserver(observer)
        self.event_log.open()

    def written(self) -> None:
        """Wait for the events, and then for those that the threads logged meanwhile."""
        for _ in range(2):
            for spool in self.event_log._spools:
                assert spool.wait(TIMEOUT_S)


@pytest.fixture
def logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Logging]:
    """Restores what an event log changes for the whole process."""
    descriptors: list[int] = []
    dup = os.dup

    def record(descriptor: int) -> int:
        descriptors.append(dup(descriptor))
        return descriptors[-1]

    monkeypatch.setattr(os, "dup", record)
    monkeypatch.setattr(atexit, "register", lambda _: None)
    logging = Logging()
    yield logging
    for spool in logging.event_log._spools:
        spool.finish()
        spool._thread.join(TIMEOUT_S)
        assert not spool._thread.is_alive()
    for descriptor in descriptors:
        os.close(descriptor)


class Thing:
    """An object in a frame of a failure."""


def a_failure(thing: Thing) -> Failure:
    try:
        raise ValueError(f"broken: {type(thing).__name__}")
    except ValueError:
        return Failure()


def say_much(log: Logger) -> None:
    """Events of every form."""
    log.info("plain")
    log.warn("{a} {b!r} {c.__class__.__name__} {d()}", a=1, b="ü\n", c=Thing(), d=lambda: 2)
    log.failure("failed {what}", a_failure(Thing()), what="a thing")
    log.error("two\nlines")
    log.debug("quiet")


def without_time(text: str) -> list[str]:
    return [line.partition(" [")[2] or line for line in text.splitlines()]


def test_a_file_gets_the_text_of_its_observer(logging: Logging, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        predicates = [LogLevelFilterPredicate(LogLevel.info)]
        direct = StringIO()
        expected = LogPublisher(FilteringLogObserver(textFileLogObserver(direct), predicates))
        logging.open(FilteringLogObserver(textFileLogObserver(file), predicates))
        say_much(logging.log)
        say_much(Logger("test", observer=expected))
        logging.written()
    written = (tmp_path / "log").read_text(encoding="utf-8")
    assert without_time(written) == without_time(direct.getvalue())
    assert "plain" in written
    assert "quiet" not in written


def test_a_legacy_observer_gets_the_same_text(logging: Logging) -> None:
    """The one of `--syslog` is a legacy observer."""
    direct, threaded = [], []

    def recording(texts: list[tuple[Any, ...]]) -> LegacyLogObserverWrapper:
        def emit(event: dict[str, Any]) -> None:
            text = legacy.textFromEventDict(event)
            texts.append((text, bool(event["isError"]), threading.current_thread().name))

        return LegacyLogObserverWrapper(emit)

    expected = LogPublisher(recording(direct))
    logging.open(recording(threaded))
    for publisher in (logging.publisher, expected):
        log = Logger("test", observer=publisher)
        log.info("plain {a}", a=1)
        log.error("an error")
        old = legacy.LogPublisher(observerPublisher=publisher, publishPublisher=publisher)
        old.msg("of", "the old form", isError=0)
        old.msg(format="%(a)s of the old form", a=Thing.__name__)
    logging.written()
    assert [each[:2] for each in threaded] == [each[:2] for each in direct]
    assert {each[2] for each in threaded} == {"event log"}


def test_a_queued_failure_keeps_no_object_alive(logging: Logging) -> None:
    """The objects may hold descriptors and memory."""
    may_go_on = threading.Event()
    seen: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        may_go_on.wait()
        seen.append(event)

    logging.open(observe)
    thing = Thing()
    gone = weakref.ref(thing)
    logging.log.failure("failed {thing}", a_failure(thing), thing=thing)
    logging.log.info("{thing}", thing=thing)
    del thing
    gc.collect()
    assert gone() is None
    may_go_on.set()
    logging.written()
    assert "ValueError: broken: Thing" in seen[0]["text"]
    assert seen[0]["log_level"] is LogLevel.critical
    assert "Thing object at" in seen[1]["text"]


def test_the_failures_of_an_observer_are_counted_and_reported(logging: Logging) -> None:
    seen: list[str] = []

    def observe(event: LogEvent) -> None:
        if "bad" in event["text"]:
            raise ValueError("I do not like it")
        seen.append(event["text"])

    logging.open(observe)
    logging.log.info("bad")
    logging.written()
    assert logging.event_log.dropped == 1
    logging.log.info("good")
    logging.written()
    logging.written()  # the report of the thread
    assert seen == [
        "good",
        "1 events before this one were dropped from this log: I do not like it",
    ]


def test_a_file_without_a_descriptor_is_written_to(logging: Logging) -> None:
    file = StringIO()
    logging.open(textFileLogObserver(file))
    logging.log.info("hello")
    logging.written()
    assert file.getvalue().endswith("hello\n")


def test_after_the_close_each_event_is_waited_for(
    logging: Logging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_WAIT_S", TIMEOUT_S)
    with (tmp_path / "log").open("w") as file:
        logging.open(textFileLogObserver(file))
        logging.log.info("before")
        logging.event_log.close()
        assert (tmp_path / "log").read_text().endswith("before\n")
        for number in range(3):
            logging.log.info("after {number}", number=number)
            assert (tmp_path / "log").read_text().endswith(f"after {number}\n")


@pytest.fixture
def waits_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The timeouts of all waits. Time advances only in waits."""
    waits_s: list[float] = []

    def wait(spool: Spool[Any], timeout_s: float) -> bool:
        waits_s.append(timeout_s)
        return False

    monkeypatch.setattr(Spool, "wait", wait)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 1000.0 + sum(waits_s)))
    return waits_s


def test_the_close_waits_for_a_log_that_hangs_for_a_limited_time(
    logging: Logging, waits_s: list[float]
) -> None:
    """Case 91."""
    may_go_on = threading.Event()
    logging.open(lambda event: may_go_on.wait() and None)
    logging.log.info("before")
    assert waits_s == []
    logging.event_log.close()
    for _ in range(10):
        logging.log.info("after")
    assert sum(waits_s) == LAST_WAIT_S
    may_go_on.set()


def test_all_earlier_events_can_be_waited_for(
    logging: Logging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_WAIT_S", TIMEOUT_S)
    with (tmp_path / "log").open("w") as file:
        logging.open(textFileLogObserver(file))
        logging.log.info("begun")
        logging.event_log.settle()
        assert (tmp_path / "log").read_text().endswith("begun\n")


def test_a_log_that_hangs_is_not_waited_for_long(logging: Logging, waits_s: list[float]) -> None:
    """Case 91. Several such logs take as long as one."""
    may_go_on = threading.Event()
    logging.open(lambda event: may_go_on.wait() and None, lambda event: may_go_on.wait() and None)
    logging.log.info("begun")
    logging.event_log.settle()
    assert sum(waits_s) == LAST_WAIT_S
    may_go_on.set()


def test_a_thread_that_logs_after_the_close_does_not_wait(
    logging: Logging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the writer."""
    may_go_on = threading.Event()
    monkeypatch.setattr(module, "LAST_WAIT_S", 2 * TIMEOUT_S)
    logging.open(lambda event: may_go_on.wait() and None)
    logging.event_log.close()
    thread = threading.Thread(target=logging.log.info, args=("from a thread",))
    thread.start()
    thread.join(TIMEOUT_S)
    is_waiting = thread.is_alive()
    may_go_on.set()
    assert not is_waiting


@pytest.mark.parametrize("writes_to", ["file", "observer"])
def test_events_about_refused_requests_are_dropped_first(logging: Logging, writes_to: str) -> None:
    """Case 91."""
    may_go_on = threading.Event()
    seen: list[str] = []

    class Hanging(StringIO):
        def write(self, text: str) -> int:
            may_go_on.wait()
            seen.append(text)
            return len(text)

    def observe(event: LogEvent) -> None:
        may_go_on.wait()
        seen.append(event["text"])

    logging.open(textFileLogObserver(Hanging()) if writes_to == "file" else observe)
    for _ in range(100):
        logging.log.warn("refused {text}", text="x" * 20_000, is_refusal=True)
    for number in range(10):
        logging.log.warn("the storage cannot be written: {number}", number=number)
    logging.log.warn("refused once more", is_refusal=True)
    may_go_on.set()
    logging.written()
    text = "\n".join(seen)
    assert text.count("the storage cannot be written") == 10
    assert text.count("refused x") == 27, "half a mebibyte"
    assert "once more" not in text
    assert logging.event_log.dropped == 74


# Files that twistd rotates


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[LogFile]:
    file = LogFile("log", str(tmp_path), rotateLength=1000)
    yield file
    file.close()


def test_a_large_file_is_rotated(logging: Logging, log_file: LogFile, tmp_path: Path) -> None:
    logging.open(textFileLogObserver(log_file))
    for number in range(4):
        logging.log.info("{number} {much}", number=number, much="x" * 600)
        logging.written()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert [len(path.read_text().splitlines()) for path in sorted(tmp_path.iterdir())] == [2, 2]


def test_a_log_that_hangs_is_rotated_by_its_thread(
    logging: Logging, log_file: LogFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 91. On SIGUSR1 twistd calls `rotate` in the event loop."""
    may_go_on = threading.Event()
    monkeypatch.setattr(log_file, "_file", _Hanging(log_file._file, may_go_on))
    logging.open(textFileLogObserver(log_file))
    logging.log.info("before")
    log_file.rotate()  # does not wait
    logging.log.info("after")
    assert not (tmp_path / "log.1").exists()
    may_go_on.set()
    logging.written()
    assert (tmp_path / "log.1").read_text().endswith("before\n")
    assert (tmp_path / "log").read_text().endswith("after\n")


@pytest.mark.parametrize("rotated", [False, True])
def test_a_file_that_another_process_truncated_begins_with_the_next_line(
    logging: Logging, log_file: LogFile, tmp_path: Path, rotated: bool
) -> None:
    """As logrotate does with `copytruncate`."""
    log = tmp_path / "log"
    logging.open(textFileLogObserver(log_file))
    logging.log.info("{much}", much="x" * 900)
    if rotated:
        log_file.rotate()
        logging.log.info("{much}", much="x" * 900)
    logging.written()
    os.truncate(log, 0)
    for number in range(2):
        logging.log.info("after {number} {much}", number=number, much="x" * 200)
        logging.written()
    assert b"\0" not in log.read_bytes()
    assert [line.split()[3] for line in log.read_text().splitlines()] == ["0", "1"]
    assert (tmp_path / "log.1").exists() == rotated, "what was truncated does not count"


@pytest.mark.parametrize("created", [False, True])
def test_a_renamed_file_is_reopened_instead_of_rotated(
    logging: Logging, log_file: LogFile, tmp_path: Path, created: bool
) -> None:
    """As logrotate does with `create`, or with `nocreate`."""
    log, old = tmp_path / "log", tmp_path / "old"
    logging.open(textFileLogObserver(log_file))
    logging.log.info("before")
    logging.written()
    log.rename(old)
    if created:
        log.touch(0o640)
        log.chmod(0o640)
    logging.log.info("meanwhile")
    log_file.rotate()
    logging.log.info("after")
    logging.written()
    assert [line.split()[-1] for line in old.read_text().splitlines()] == ["before", "meanwhile"]
    assert log.read_text().endswith("after\n")
    assert log.read_text().count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "old"]
    if created:
        assert log.stat().st_mode & 0o777 == 0o640
    log_file.rotate()
    logging.written()
    assert (tmp_path / "log.1").read_text().endswith("after\n"), "the next one is of its own"


def test_a_renamed_file_that_cannot_be_reopened_stays_open(
    logging: Logging, log_file: LogFile, tmp_path: Path
) -> None:
    log, old = tmp_path / "log", tmp_path / "old"
    logging.open(textFileLogObserver(log_file))
    logging.log.info("before")
    logging.written()
    log.rename(old)
    log.mkdir()
    log_file.rotate()
    logging.log.info("after")
    logging.written()
    text = old.read_text()
    assert "after\n" in text
    assert f"the log cannot be reopened: {log}: Is a directory; the old file is kept\n" in text
    log.rmdir()
    log_file.rotate()
    logging.log.info("again")
    logging.written()
    assert log.read_text().endswith("again\n")


class _Hanging:
    """A file whose writes wait for the test."""

    def __init__(self, file: Any, may_go_on: threading.Event) -> None:
        self._inner = file
        self._may_go_on = may_go_on

    def write(self, data: bytes) -> int:
        self._may_go_on.wait()
        written: int = self._inner.write(data)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_rotation_that_fails_does_not_end_the_log(
    logging: Logging, log_file: LogFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.open(textFileLogObserver(log_file))
    open_file = log_file._openFile
    monkeypatch.setattr(log_file, "_openFile", _no_room)
    logging.log.info("{much}", much="x" * 1000)
    logging.written()
    logging.log.info("lost")
    logging.written()
    assert logging.event_log.dropped == 1
    monkeypatch.setattr(log_file, "_openFile", open_file)
    logging.log.info("found")
    logging.written()
    logging.written()
    text = (tmp_path / "log").read_text()
    assert "found\n" in text
    assert "1 events before this one were dropped from this log: No space left on device" in text


def _no_room() -> None:
    raise OSError(28, "No space left on device")


def test_observers_that_write_to_files_stay_installed(logging: Logging, tmp_path: Path) -> None:
    """twistd removes its own at the end."""
    with (tmp_path / "log").open("w") as file:
        observer = textFileLogObserver(file)
        assert isinstance(observer, FileLogObserver)
        logging.open(observer)
        logging.publisher.removeObserver(observer)
        logging.log.info("nobody hears it")
        logging.written()
    assert (tmp_path / "log").read_text() == ""

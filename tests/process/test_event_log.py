"""Case 91: the service continues if its logs cannot be written, and reports dropped events."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.exchange import Connection
from tests.process.running import (
    NOWHERE,
    STOP_S,
    TWISTD,
    connects,
    environment,
    eventually,
    free_port,
    running,
)

TIMEOUT_S = 20.0  # for a response; without the thread there is none once the pipe is full
END_S = 10.0  # SIGTERM ends a service without requests in progress within this time
PIPE_BYTES = 4096
# An event with such a name has a kibibyte. Hundreds of them fill the queue.
LONG = "/".join("d" * 200 for _ in range(4))
FILLING = 1200  # uploads, of two events each
# Each event begins with its time; other lines of it begin with a tab.
EVENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[[^\]]+\] .*(\n\t.*)*\n")
DROPPED = re.compile(r"(\d+) events before this one were dropped from this log: (.*)\n")


class Service:
    """A service that writes its log to a descriptor of the test."""

    def __init__(
        self, folder: Path, output: int, *options: str, program: tuple[str, ...] = ("-n",)
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        own = ["media", "--port", str(self.port), "--root", str(folder / "media"), *options]
        self._process = subprocess.Popen(
            [TWISTD, "--pidfile=", *program, *own],
            cwd=folder,
            env=environment({"PYTHONPATH": str(folder)}),
            stdout=output,
            stderr=subprocess.DEVNULL,
        )
        eventually("the service listens", lambda: connects(self.port), 20.0)

    @property
    def pid(self) -> int:
        return self._process.pid

    def connect(self) -> Connection:
        return Connection(self.port, TIMEOUT_S)

    def store(self, names: Iterator[str]) -> list[float]:
        """Store files with these names. Returns how long each response took, in seconds."""
        took_s = []
        with self.connect() as connection:
            for name in names:
                begun_s = time.monotonic()
                assert connection.ask("PUT", f"/media/{name}.mp3", b"x").status == 201
                took_s.append(time.monotonic() - begun_s)
        return took_s

    def dropped(self) -> int:
        """The number of dropped events in `/health`."""
        with self.connect() as connection:
            dropped = connection.ask("GET", "/health").json["log"]["dropped"]
        assert isinstance(dropped, int)
        return dropped

    def stop(self) -> None:
        """Send SIGTERM, and check that the process ends in time."""
        begun_s = time.monotonic()
        self._process.terminate()
        assert self._process.wait(STOP_S) == -signal.SIGTERM
        assert time.monotonic() - begun_s < END_S

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Pipe:
    """A small pipe that is read when the test begins to."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._read = b""
        self._thread: threading.Thread | None = None

    def read(self, pause_s: float = 0.0) -> None:
        """Begin to read in a thread, with pauses."""
        self._thread = threading.Thread(target=self._read_all, args=(pause_s,))
        self._thread.start()

    def so_far(self) -> str:
        return self._read.decode()

    def text(self) -> str:
        """Everything that was written. The writer has ended."""
        assert self._thread is not None
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        return self.so_far()

    def close_writing(self) -> None:
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def close_reading(self) -> None:
        if self.reading >= 0:
            os.close(self.reading)
            self.reading = -1

    def _read_all(self, pause_s: float) -> None:
        while data := os.read(self.reading, PIPE_BYTES):
            self._read += data
            time.sleep(pause_s)


@contextlib.contextmanager
def serving(
    folder: Path, pipe: Pipe, *options: str, program: tuple[str, ...] = ("-n",)
) -> Iterator[Service]:
    """A service whose standard output is `pipe`."""
    service = None
    try:
        service = Service(folder, pipe.writing, *options, program=program)
        pipe.close_writing()
        yield service
    finally:
        if service is not None:
            service.kill()
        pipe.close_writing()
        if pipe._thread is not None:
            pipe._thread.join()
        pipe.close_reading()


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


def numbered(prefix: str, count: int) -> Iterator[str]:
    return (f"{prefix}/{number}" for number in range(count))


def assert_whole(log: str) -> None:
    """Check that the log has one event per line, and only whole lines."""
    assert EVENT.sub("", log) == ""


def events_of(log: str, prefix: str) -> int:
    """How many events about files below `prefix` are in `log`."""
    return len(re.findall(rf"\] (?:arriving|stored): '{prefix}/", log))


def dropped_in(log: str) -> int:
    """How many dropped events `log` reports."""
    return sum(int(count) for count, _ in DROPPED.findall(log))


def p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def test_the_service_continues_while_its_log_is_not_read(tmp_path: Path, pipe: Pipe) -> None:
    """Case 91. When the log is read again, it says how much is missing."""
    with serving(tmp_path / "area", pipe) as service:
        quiet_s = service.store(numbered("quiet", 10))
        full_s = service.store(numbered(LONG, FILLING))
        dropped = service.dropped()
        assert 0 < dropped < 2 * FILLING
        assert p99(full_s) < 3 * max(quiet_s) + 0.02
        pipe.read()
        eventually("the log continues", lambda: dropped_in(pipe.so_far()) > 0)
        service.store(numbered("again", 10))
        service.stop()
        log = pipe.text()
    assert_whole(log)
    assert events_of(log, "quiet") == events_of(log, "again") == 20
    assert events_of(log, LONG) + dropped == 2 * FILLING
    assert dropped_in(log) == dropped
    assert log.endswith("Server Shut Down.\n")


def test_a_start_with_a_long_log_does_not_wait_for_a_reader(tmp_path: Path, pipe: Pipe) -> None:
    """Case 91. The first lines, those of twistd itself, fit into the pipe."""
    os.write(pipe.writing, b"\n" * (PIPE_BYTES // 2))
    root = tmp_path / LONG / LONG / LONG
    root.mkdir(parents=True)
    with serving(tmp_path / "area", pipe, "--root", str(root)) as service:
        service.store(numbered("begun", 10))
        pipe.read()
        service.stop()
        log = pipe.text()
    assert f"serving '{root}'\n" in log
    assert events_of(log, "begun") == 20


def test_a_flood_of_refused_uploads_does_not_push_out_other_events(
    tmp_path: Path, pipe: Pipe
) -> None:
    """Case 91."""
    with serving(tmp_path / "area", pipe) as service:
        with service.connect() as connection:
            for name in numbered(LONG, FILLING):
                assert connection.ask("PUT", f"/media/{name}.exe", b"x").status == 415
        dropped = service.dropped()
        assert dropped > 0
        service.store(numbered("stored", 100))
        assert service.dropped() == dropped
        pipe.read()
        service.stop()
        log = pipe.text()
    assert_whole(log)
    assert events_of(log, "stored") == 200
    assert log.count("] not stored: ") == FILLING - dropped


def test_memory_does_not_grow_while_the_log_is_not_read(tmp_path: Path, pipe: Pipe) -> None:
    """Case 91."""

    def resident() -> int:
        with service.connect() as connection:
            return int(connection.ask("GET", "/health").json["memory"]["resident"])

    with serving(tmp_path / "area", pipe) as service:
        # Enough to fill also what the service remembers of the last uploads.
        service.store(numbered(LONG, 2 * FILLING))
        before = resident()
        service.store(numbered("more/" + LONG, FILLING))
        assert service.dropped() > FILLING
        assert resident() - before < 1 << 20


@pytest.mark.parametrize("access_log", [(), ("--access-log", "-")])
def test_sigterm_ends_a_service_whose_log_is_not_read(
    tmp_path: Path, pipe: Pipe, access_log: tuple[str, ...]
) -> None:
    """Case 91. The access log can go to the same pipe."""
    with serving(tmp_path / "area", pipe, *access_log) as service:
        service.store(numbered(LONG, 40))
        service.stop()


def test_the_access_log_on_a_standard_output_that_is_not_read(tmp_path: Path, pipe: Pipe) -> None:
    """Case 91."""
    with serving(tmp_path / "area", pipe, "--access-log", "-") as service:
        with service.connect() as connection:
            for _ in range(100):
                answer = connection.ask("GET", NOWHERE, headers={"User-Agent": "a" * 20_000})
                assert answer.status == 404
        pipe.read()
        eventually("both logs continue", lambda: "the access log has lost " in pipe.so_far())
        service.stop()
        log = pipe.text()
    lines = re.findall(r'^127\.0\.0\.1 - - \[.*\] "GET .*" 404 .* "a+" .*\n', log, re.MULTILINE)
    (lost,) = re.findall(r"the access log has lost (\d+) lines", log)
    assert len(lines) + int(lost) == 100
    assert "Server Shut Down." in log


def test_the_reader_of_the_log_closes_the_pipe(tmp_path: Path, pipe: Pipe) -> None:
    """Case 91."""
    with serving(tmp_path / "area", pipe) as service:
        assert service.dropped() == 0
        pipe.close_reading()
        service.store(numbered("gone", 200))
        eventually("all events are dropped", lambda: service.dropped() == 400)
        service.stop()


def test_the_log_goes_to_a_full_disk(tmp_path: Path) -> None:
    """Case 91."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        service = Service(tmp_path / "area", full)
    finally:
        os.close(full)
    try:
        begun = service.dropped()
        assert begun > 0, "the events of the start are counted"
        service.store(numbered("full", 200))
        eventually("all events are dropped", lambda: service.dropped() == begun + 400)
        service.stop()
    finally:
        service.kill()


def test_the_log_is_read_slowly(tmp_path: Path, pipe: Pipe) -> None:
    """Case 91. No event is lost while the queue has room."""
    with serving(tmp_path / "area", pipe) as service:
        quiet_s = service.store(numbered("quiet", 10))
        pipe.read(pause_s=0.02)
        slow_s = service.store(numbered(LONG, 200))
        assert p99(slow_s) < 3 * max(quiet_s) + 0.02
        eventually("all events are read", lambda: events_of(pipe.so_far(), LONG) == 400)
        assert service.dropped() == 0
        service.stop()
        assert_whole(pipe.text())


def test_a_pipe_that_does_not_block_loses_nothing(tmp_path: Path, pipe: Pipe) -> None:
    """Case 91. Another process that has the same pipe can make it non-blocking."""
    os.set_blocking(pipe.writing, False)
    with serving(tmp_path / "area", pipe) as service:
        service.store(numbered(LONG, 100))
        pipe.read()
        eventually("all events are read", lambda: events_of(pipe.so_far(), LONG) == 200)
        assert service.dropped() == 0
        service.stop()
        assert_whole(pipe.text())


def test_the_last_events_are_written_although_they_come_together(
    tmp_path: Path, pipe: Pipe
) -> None:
    """A process that ends loses no event if the log can be written."""
    pipe.read()
    with serving(tmp_path / "area", pipe) as service:
        service.store(numbered("last", 100))
        service.stop()
        log = pipe.text()
    assert events_of(log, "last") == 200
    assert log.endswith("Server Shut Down.\n")
    assert_whole(log)


def test_twist_also_has_the_thread(tmp_path: Path, pipe: Pipe) -> None:
    """Case 91. It installs its observers later than twistd does."""
    folder = tmp_path / "area"
    folder.mkdir()
    port = free_port()
    twist = Path(TWISTD).with_name("twist")
    process = subprocess.Popen(
        [twist, "--log-format=text", "media", "--port", str(port), "--root", str(folder / "media")],
        cwd=folder,
        env=environment(),
        stdout=pipe.writing,
        stderr=pipe.writing,
    )
    try:
        pipe.close_writing()
        eventually("the service listens", lambda: connects(port), 20.0)
        with Connection(port, TIMEOUT_S) as connection:
            for name in numbered(LONG, FILLING):
                assert connection.ask("PUT", f"/media/{name}.mp3", b"x").status == 201
            dropped = connection.ask("GET", "/health").json["log"]["dropped"]
        assert dropped > 0
        pipe.read()
        eventually("the log continues", lambda: dropped_in(pipe.so_far()) > 0)
        process.terminate()
        process.wait(STOP_S)
        log = pipe.text()
    finally:
        process.kill()
        process.wait()
        if pipe._thread is not None:
            pipe._thread.join()
        pipe.close_reading()
    assert events_of(log, LONG) + dropped == 2 * FILLING
    assert dropped_in(log) == dropped


HANGING_OBSERVER = """
from threading import Event
from zope.interface import provider
from twisted.logger import ILogObserver, formatEvent

def make():
    @provider(ILogObserver)
    def observe(event):
        if "arriving" in formatEvent(event):
            Event().wait()
    return observe
"""


def test_an_observer_of_the_operator_that_hangs(tmp_path: Path) -> None:
    """Case 91. `--logger` names any observer."""
    folder = tmp_path / "area"
    folder.mkdir()
    (folder / "hanging.py").write_text(HANGING_OBSERVER)
    program = ("-n", "--logger", "hanging.make")
    service = Service(folder, subprocess.DEVNULL, program=program)
    try:
        service.store(numbered("hanging", 100))
        service.stop()
    finally:
        service.kill()


@contextlib.contextmanager
def daemon(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """A daemon's port, its process id, and its log."""
    folder.mkdir()
    port = free_port()
    log, pidfile = folder / "service.log", folder / "service.pid"
    command = [TWISTD, "--pidfile", pidfile, "--logfile", log, "media"]
    options = ["--port", str(port), "--root", folder / "media"]
    subprocess.run([*command, *options], cwd=folder, env=environment(), check=True, timeout=20)
    eventually("the daemon listens", lambda: connects(port), 20.0)
    pid = int(pidfile.read_text())
    try:
        yield port, pid, log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def put(port: int, names: Iterator[str]) -> None:
    with Connection(port, TIMEOUT_S) as connection:
        for name in names:
            assert connection.ask("PUT", f"/media/{name}.mp3", b"x").status == 201


def test_a_daemon_logs_by_a_thread_and_rotates_on_sigusr1(tmp_path: Path) -> None:
    """Case 91. The thread begins after the fork, and rotates the file itself."""
    with daemon(tmp_path / "area") as (port, pid, log):
        put(port, numbered("before", 10))
        eventually("the log is written", lambda: events_of(log.read_text(), "before") == 20)
        os.kill(pid, signal.SIGUSR1)
        rotated = log.with_name("service.log.1")
        eventually("the log is rotated", rotated.exists)
        put(port, numbered("after", 10))
        os.kill(pid, signal.SIGTERM)
        pidfile = log.with_suffix(".pid")
        eventually("the daemon ends", lambda: not pidfile.exists())
        eventually("the log ends", lambda: log.read_text().endswith("Server Shut Down.\n"))
    assert events_of(rotated.read_text(), "before") == 20
    assert events_of(log.read_text(), "after") == 20
    assert_whole(rotated.read_text() + log.read_text())


def test_a_log_file_that_is_full_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """Case 91. A line of which the disk took a part is ended before the next one."""
    log = tmp_path / "service.log"
    with running(tmp_path / "area" / "media") as other:  # finds the limits of the machine to be ok
        assert other.ask("GET", "/health").json["log"] == {"dropped": 0}
    service = Service(tmp_path / "full", subprocess.DEVNULL, program=("-n", "--logfile", str(log)))
    try:
        service.store(numbered("fits", 1))
        eventually("the log is written", lambda: events_of(log.read_text(), "fits") == 2)
        size = log.stat().st_size + 50
        subprocess.run(["prlimit", f"--fsize={size}:unlimited", f"--pid={service.pid}"], check=True)
        service.store(numbered("full", 50))
        eventually("events are dropped", lambda: service.dropped() == 100)
        subprocess.run(["prlimit", "--fsize=unlimited", f"--pid={service.pid}"], check=True)
        service.store(numbered("again", 1))
        eventually("the log continues", lambda: dropped_in(log.read_text()) > 0)
        service.stop()
    finally:
        service.kill()
    text = log.read_text()
    assert dropped_in(text) == 100
    assert DROPPED.findall(text)[0][1] == "File too large"
    assert events_of(text, "again") == 2
    torn = [line for line in text.splitlines(keepends=True) if not EVENT.fullmatch(line)]
    assert len(torn) <= 1, "the line that the disk did not take whole"

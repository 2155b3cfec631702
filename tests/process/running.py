"""A service in a process of its own, started as an operator starts it, and what a test can observe
from outside.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from tests.process.exchange import Answer, Connection

NOWHERE = "/nowhere"  # a path that is 404: `/` may be the page of an upstream
START_S = 60.0  # a busy machine needs more than 10 s
STOP_S = 20.0
LOG_IS_LATE_S = 0.5  # more than the time for which a service collects log lines
_LISTENS = re.compile(r"starting on (\d+)")
TWISTD = os.path.join(sysconfig.get_path("scripts"), "twistd")


def eventually(what: str, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until `condition` holds.

    :raises AssertionError: saying `what`, when it does not within `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)


def free_port() -> int:
    """A TCP port that is not in use."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])


def connects(port: int) -> bool:
    """Whether a process listens on `port`."""
    try:
        Connection(port).close()
    except ConnectionRefusedError:
        return False
    return True


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: ours without options of the service, and with `more`."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("TWISTEDMEDIA_")}
    return {**ours, "PYTHONUNBUFFERED": "1", **(more or {})}


def run_to_its_end(
    *arguments: str, cwd: Path, more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `twistd` with these arguments, which are expected to end it."""
    return subprocess.run(
        [TWISTD, *arguments],
        cwd=cwd,
        env=environment(more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_S,
        check=False,
    )


# What is in `.twistedmedia` while there are no uploads.
OF_THE_SERVICE = ["clock", "drafts", "folders", "lock", "uploads"]


def drafts_in(root: Path) -> list[str]:
    """The drafts of uploads in progress."""
    return sorted(os.listdir(root / ".twistedmedia" / "drafts"))


def tree_of(folder: Path) -> list[str]:
    """All names under `folder`, except the service's own."""
    found = []
    for where, folders, files in os.walk(folder):
        if ".twistedmedia" in folders:
            folders.remove(".twistedmedia")
        found += [os.path.relpath(os.path.join(where, name), folder) for name in folders + files]
    return sorted(found)


class Process:
    """A service in a process, and its log."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        log: Path,
        root: Path,
        more: Mapping[str, str] | None = None,
        *,
        descriptors: Collection[int] = (),
        log_is_late_s: float = LOG_IS_LATE_S,
    ) -> None:
        """Start `command` in `folder`, with `more` in its environment and our `descriptors`, and
        wait until it responds. Its output goes to `log`; events are at most `log_is_late_s` late.
        """
        self.root = root
        self._log_is_late_s = log_is_late_s
        self._log = log
        with log.open("ab") as output:
            started_at = output.tell()
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment(more),
                stdout=output,
                stderr=output,
                pass_fds=descriptors,
            )
        self._started_at = started_at
        self.expects_faults = False  # set by a test that makes the service log a fault
        try:
            eventually("the service logs its port", self._listens, START_S)
            eventually("the service responds", self._responds, START_S)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """The log since the start. A thread of the service writes it a little later, so this waits
        until nothing more is written.
        """
        size = -1
        while self._process.poll() is None and size != (size := self._log.stat().st_size):
            time.sleep(self._log_is_late_s)
        return self._written()

    def _written(self) -> str:
        return self._log.read_bytes()[self._started_at :].decode("utf-8", "backslashreplace")

    def connect(self, timeout_s: float = 20.0, from_address: str = "127.0.0.1") -> Connection:
        """A new connection, which is a context manager."""
        here = ("127.0.0.1", self.port)
        return Connection(socket.create_connection(here, timeout_s, (from_address, 0)))

    def ask(
        self,
        method: str,
        target: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request on a new connection."""
        with self.connect() as connection:
            return connection.ask(method, target, content, headers)

    def descriptors(self) -> dict[str, str]:
        """The open descriptors, and what each refers to."""
        found = {}
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found[fd] = os.readlink(f"/proc/{self.pid}/fd/{fd}")
        return found

    def peak_memory(self) -> int:
        """The largest resident size since the start, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) << 10

    def processor_time(self) -> float:
        """CPU seconds since the start."""
        fields = (
            Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def tree(self) -> list[str]:
        """All names in the root, except the service's own."""
        return tree_of(self.root)

    @contextlib.contextmanager
    def unchanged(self, besides: Callable[[], Collection[str]] = tuple) -> Iterator[None]:
        """Check that this context leaves no name in the root or beside it, no draft, and no open
        descriptor except `besides`.
        """
        before = tree_of(self.root.parent)
        with self.unchanged_descriptors(besides):
            yield
        assert tree_of(self.root.parent) == before
        assert drafts_in(self.root) == []

    @contextlib.contextmanager
    def unchanged_descriptors(
        self, besides: Callable[[], Collection[str]] = tuple
    ) -> Iterator[None]:
        """Check that this context leaves no open descriptor except `besides`."""

        def count() -> int:
            opened = self.descriptors().values()
            may_stay = besides()
            return sum(each not in may_stay for each in opened)

        before = count()
        yield
        self.ask("GET", NOWHERE)  # after its response all earlier connections are accepted
        eventually("as few descriptors are open as before", lambda: count() <= before)

    def limit_file_size(self, size: int) -> None:
        """Limit the files that the service writes to `size` bytes from now on."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, size))

    def limit_descriptors(self, count: int) -> None:
        """Limit the descriptors of the service to `count` from now on."""
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (count, count))

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> int:
        """Send SIGTERM. Returns the exit status."""
        self._process.terminate()
        return self.wait()

    def kill(self) -> None:
        """Send SIGKILL and wait."""
        self._process.kill()
        self.wait()

    def wait(self) -> int:
        """Wait until the service has ended. Returns its exit status."""
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def _listens(self) -> bool:
        assert self._process.poll() is None, f"the service has ended: {self.log}"
        match = _LISTENS.search(self._written())
        if match is not None:
            self.port = int(match[1])
        return match is not None

    def _responds(self) -> bool:
        assert self._process.poll() is None, f"the service has ended: {self.log}"
        try:
            return self.ask("GET", NOWHERE).status == 404
        except (TimeoutError, ConnectionError):
            return False


def start(root: Path, *options: str, more: Mapping[str, str] | None = None) -> Process:
    """Start `twistd -n media` with `options` on a free port, with its log beside the media."""
    root.parent.mkdir(parents=True, exist_ok=True)
    media = ["media", "--port", "0", "--root", str(root), *options]
    return Process(
        [TWISTD, "-n", "--pidfile=", *media],
        root.parent,
        root.parent.with_name(root.parent.name + ".log"),
        root,
        more,
    )


@contextlib.contextmanager
def running(root: Path, *options: str, more: Mapping[str, str] | None = None) -> Iterator[Process]:
    """As `start`. The service is stopped with the context; the test fails if that does not work, or
    if the service has logged a traceback.
    """
    process = start(root, *options, more=more)
    try:
        yield process
        # twistd ends by the signal that it received.
        assert process.stop() == -signal.SIGTERM, process.log
        assert process.log.rstrip().endswith("Server Shut Down."), process.log
        if not process.expects_faults:
            assert "Traceback" not in process.log, process.log
            assert "incident" not in process.log, process.log
    finally:
        process.kill()

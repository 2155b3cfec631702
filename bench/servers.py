"""
The servers under measurement: how each is started, what it has used so far, and how it is stopped.

Each runs as a process of its own on a free port of 127.0.0.1, with its files in a folder that is
new for every run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

from lateness import peak_rss_kib, rss_kib

_BENCH = Path(__file__).resolve().parent
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 60.0
# A scenario may stop a server itself.
_TOLD_TO_END = (-signal.SIGTERM, -signal.SIGKILL)
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ServerFailedError(Exception):
    """A server did not start, or ended before it was told to."""


@dataclass(frozen=True)
class Launch:
    """
    What a server is told.

    :ivar root: where the files go that it stores.
    :ivar work: where its own files may go.
    :ivar lateness: where a probe's figures go, None for a run without one.
    """

    port: int
    root: Path
    work: Path
    lateness: Path | None


@dataclass(frozen=True)
class Server:
    """
    A server in one manner of running.

    :ivar command: the command line for a launch.
    :ivar missing: why it cannot run here, or None.
    :ivar has_probe: whether it can measure the lateness of its event loop.
    """

    name: str
    command: Callable[[Launch], list[str]]
    missing: Callable[[], str | None] = lambda: None
    has_probe: bool = True


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    port: int
    root: Path
    process: subprocess.Popen[bytes]

    def cpu_s(self) -> float:
        """The CPU seconds that it has used, with its children."""
        return sum(cpu_s(pid) for pid in self._pids())

    def peak_rss_kib(self) -> int:
        """The most memory that it held at any time; with children, the sum of what each held."""
        return sum(peak_rss_kib(pid) for pid in self._pids())

    def rss_kib(self) -> int:
        """The memory that it holds now, with its children."""
        return sum(rss_kib(pid) for pid in self._pids())

    def descriptors(self) -> int:
        """How many descriptors it has open, without its children."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self, within_s: float) -> float | None:
        """
        Tell it to end, with SIGTERM.

        :returns: the seconds that it took; None when it did not end in time, and was killed.
        """
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
        return time.monotonic() - start

    def _pids(self) -> list[int]:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]


def twistedmedia(*options: str) -> Server:
    """The service of this project under twistd; to look at its event loop, in serve.py."""

    def command(launch: Launch) -> list[str]:
        if launch.lateness is None:
            twistd = Path(sys.executable).with_name("twistd")
            start = [str(twistd), "--nodaemon", "--pidfile=", "media"]
        else:
            start = [sys.executable, str(_BENCH / "serve.py"), f"--lateness={launch.lateness}"]
        limits = ["--max-upload=8GiB", "--max-form=16GiB", "--formats=mp3,wav"]
        return [*start, f"--port={launch.port}", f"--root={launch.root}", *limits, *options]

    name = " ".join(["twistedmedia", *options])
    return Server(name, command, lambda: missing_module("twistedmedia"))


def peer(name: str, script: str, *options: str) -> Server:
    """One of the Python peers, a script in peers/ that needs the module *name*."""

    def command(launch: Launch) -> list[str]:
        path = _BENCH / "peers" / script
        probe = [] if launch.lateness is None else [f"--lateness={launch.lateness}"]
        given = [f"--port={launch.port}", f"--dir={launch.root}", *probe, *options]
        return [sys.executable, str(path), *given]

    return Server(" ".join([name, *options]), command, lambda: missing_module(name))


def nginx() -> Server:
    """nginx with its WebDAV module; it has no probe."""

    def command(launch: Launch) -> list[str]:
        template = Template((_BENCH / "peers" / "nginx.conf").read_text())
        # Started by root, its worker would become another user, who may not write here.
        user_line = "user root;" if os.geteuid() == 0 else ""
        settings = {"port": launch.port, "root": launch.root, "work": launch.work}
        config = launch.work / "nginx.conf"
        config.write_text(template.substitute(settings, user_line=user_line))
        errors = launch.work / "nginx-error.log"
        return [
            _nginx_program() or "nginx",
            "-p",
            str(launch.work),
            "-c",
            str(config),
            "-e",
            str(errors),
        ]

    def missing() -> str | None:
        return None if _nginx_program() else "nginx is not installed"

    return Server("nginx", command, missing, has_probe=False)


def tcp_memory_kib() -> int:
    """What the kernel holds for all TCP sockets of this machine, in KiB."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        protocol, *fields = line.split()
        if protocol == "TCP:":
            return int(fields[fields.index("mem") + 1]) * _PAGE_KIB
    raise ValueError("/proc/net/sockstat does not speak of TCP")


def nginx_version() -> str | None:
    """What nginx says of itself, or None where there is none."""
    program = _nginx_program()
    if program is None:
        return None
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    return said.rpartition("/")[2].strip()


@contextmanager
def running(
    server: Server, folder: Path, lateness: Path | None = None, output: int | None = None
) -> Iterator[Running]:
    """
    Start a server with its files in *folder*, and stop it in the end.

    The folder is empty, or a server has run in it before.

    :param lateness: where to put the figures of a lateness probe; None for a run without one.
    :param output: a descriptor for what it prints; None for a file in *folder*.
    :raises ServerFailedError: when it does not begin to listen, or has ended by itself.
    """
    launch = Launch(free_port(), folder / "root", folder / "work", lateness)
    launch.root.mkdir(exist_ok=True)
    launch.work.mkdir(exist_ok=True)
    log_path = folder / "server.log"
    # The environment may hold options of the service, which would make another measurement of it.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("TWISTEDMEDIA_")
    }
    with open(log_path, "wb") as log:
        to = log if output is None else output
        process = subprocess.Popen(
            server.command(launch), stdout=to, stderr=to, cwd=launch.work, env=environment
        )
    try:
        _wait_for_listener(process, launch.port)
        yield Running(launch.port, launch.root, process)
        if process.poll() not in (None, *_TOLD_TO_END):
            raise ServerFailedError(f"ended by itself ({process.returncode})")
    except Exception as failure:
        failure.add_note(f"The end of the server's log:\n{_tail(log_path)}")
        raise
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for_listener(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise ServerFailedError(f"did not start ({process.returncode})")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise ServerFailedError(f"did not listen within {_START_TIMEOUT_S:.0f} s")


def _tail(log_path: Path) -> str:
    return log_path.read_text(errors="replace")[-4000:]


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_s(pid: int) -> float:
    # The name of the program, the second field, is in parentheses and may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user_ticks, system_ticks = int(fields[11]), int(fields[12])
    return (user_ticks + system_ticks) / _TICKS_PER_S


def missing_module(name: str) -> str | None:
    """Why what needs a module cannot run here, or None."""
    return None if importlib.util.find_spec(name) else f"{name} is not installed"


def _nginx_program() -> str | None:
    # Debian keeps it where an ordinary user's PATH does not look.
    return shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin")

"""A service that systemd starts: it inherits its socket, which outlives it, and notifies when it is
ready, alive and stopping. Also other endpoints of `--listen`.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.process.exchange import Answer, Connection, head, request
from tests.process.running import (
    START_S,
    TWISTD,
    Process,
    environment,
    eventually,
    run_to_its_end,
)
from tests.process.test_starting import assert_one_line
from twistedmedia.http.site import IDLE_GRACE_S

# What systemd does between fork and exec: the first descriptor is 3, and meant for this process.
PASS_SOCKET = """
import os, sys
given = int(sys.argv[1])
os.dup2(given, 3)
if given != 3:
    os.close(given)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "media.socket"}
os.execv(sys.argv[2], sys.argv[2:])
"""
WATCHDOG_S = 1.0
NOTIFIED_S = 20.0  # longest wait for a notification, on a busy machine
CLIENTS = 8
RESTARTS = 3
CONTENT = Random(77).randbytes(200_000)


class Systemd:
    """Does what systemd does for a socket unit and a service unit of `Type=notify`: owns the socket
    that listens, and receives notifications on another one.
    """

    def __init__(self, root: Path, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        """`root` is that of the media. The notification socket is beside the folder of `root`."""
        self._root = root
        root.parent.mkdir(parents=True)
        self._folder = root.parent.parent
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listening = socket.create_server(address, family=family, backlog=1024)
        self.domain = family.name.removeprefix("AF_")  # which the endpoint names
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(str(self._folder / "notify"))
        self._services: list[Process] = []

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    @property
    def environment(self) -> dict[str, str]:
        return {
            "NOTIFY_SOCKET": str(self._folder / "notify"),
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
        }

    def command(self, *options: str) -> list[str]:
        """The command of the service unit."""
        listen = f"systemd:domain={self.domain}:index=0"
        media = ["media", "--listen", listen, "--root", str(self._root), *options]
        twistd = [TWISTD, "-n", "--pidfile=", *media]
        return [sys.executable, "-c", PASS_SOCKET, str(self._listening.fileno()), *twistd]

    def start(self, *options: str) -> Process:
        """Start the service, and wait until it responds."""
        service = Activated(
            self,
            self.command(*options),
            self._root.parent,
            self._folder / "service.log",
            self._root,
            self.environment,
            descriptors=[self._listening.fileno()],
        )
        self._services.append(service)
        return service

    def refused(self, *options: str) -> str:
        """The output of a service whose start fails."""
        ended = subprocess.run(
            self.command(*options),
            cwd=self._root.parent,
            env=environment(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=START_S,
            pass_fds=[self._listening.fileno()],
            check=False,
        )
        assert ended.returncode not in (0, None), ended.stdout
        return ended.stdout

    def connect(self) -> Connection:
        """A new connection, whether a service runs or not."""
        address = "::1" if self._listening.family == socket.AF_INET6 else "127.0.0.1"
        return Connection(socket.create_connection((address, self.port), 20))

    def notification(self, timeout_s: float = 0.0) -> str | None:
        """The next notification of the service, or None."""
        readable, _, _ = select.select([self._notifications], [], [], timeout_s)
        return self._notifications.recv(4096).decode() if readable else None

    def end(self) -> None:
        for service in self._services:
            service.kill()
        self._listening.close()
        self._notifications.close()


class Activated(Process):
    """A service on a socket of systemd."""

    def __init__(self, systemd: Systemd, *arguments: Any, **options: Any) -> None:
        self._systemd = systemd
        super().__init__(*arguments, **options)

    def connect(self, timeout_s: float = 20.0) -> Connection:
        return self._systemd.connect()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    it = Systemd(tmp_path / "area" / "media")
    yield it
    it.end()


def test_it_notifies_that_it_is_ready_alive_and_stopping(systemd: Systemd) -> None:
    begun_s = time.monotonic()
    service = systemd.start()
    assert systemd.notification(NOTIFIED_S) == "READY=1"
    pings = [time.monotonic()]
    for _ in range(8):
        assert systemd.notification(NOTIFIED_S) == "WATCHDOG=1"
        pings.append(time.monotonic())
    # Pings are frequent enough, but not continuous. On a busy machine some of them are late, and
    # others wait here. So this checks the median pause, and the time since before the start.
    pauses = sorted(after - before for before, after in pairwise(pings))
    assert pauses[len(pauses) // 2] < WATCHDOG_S
    assert pings[-1] - begun_s > 3 * WATCHDOG_S

    with systemd.connect() as upload:
        upload.send(head("PUT", "/media/a/b.wav", [("Content-Length", "4")]) + b"RI")
        eventually("it has begun", lambda: service.ask("GET", "/health").json["uploads"] == 1)
        service.signal(signal.SIGTERM)
        said = [systemd.notification(NOTIFIED_S)]
        while said[-1] == "WATCHDOG=1":
            said.append(systemd.notification(NOTIFIED_S))
        # The default grace, the time limits after it, and the end of the process.
        assert said[-1] == "STOPPING=1\nEXTEND_TIMEOUT_USEC=40500000"
        # While it waits for requests in progress it is alive.
        assert [systemd.notification(NOTIFIED_S) for _ in range(3)] == ["WATCHDOG=1"] * 3
        upload.send(b"FF")
        assert upload.answer().status == 201
    assert service.wait() == -signal.SIGTERM
    assert "Traceback" not in service.log


def test_a_loop_that_hangs_sends_no_pings(systemd: Systemd) -> None:
    service = systemd.start()
    service.signal(signal.SIGSTOP)
    while systemd.notification() is not None:
        pass
    assert systemd.notification(WATCHDOG_S * 1.5) is None
    service.signal(signal.SIGCONT)
    assert systemd.notification(NOTIFIED_S) == "WATCHDOG=1"


def test_a_service_that_cannot_start_does_not_notify_that_it_is_ready(systemd: Systemd) -> None:
    systemd.start()
    assert systemd.notification(NOTIFIED_S) == "READY=1"
    assert_one_line(systemd.refused(), "cannot start: --root: another service uses")
    received = []
    while (state := systemd.notification()) is not None:
        received.append(state)
    assert "READY=1" not in received


def test_the_socket_stays_open_when_the_service_ends(systemd: Systemd) -> None:
    first = systemd.start()
    assert first.ask("PUT", "/media/a/b.wav", b"RIFF").status == 201
    assert first.stop() == -signal.SIGTERM
    with systemd.connect() as waiting:
        waiting.send(request("GET", "/media/a/b.wav"))
        second = systemd.start()
        assert waiting.answer().content == b"RIFF"
    assert second.stop() == -signal.SIGTERM


def test_a_killed_service_loses_no_connection_that_it_had_not_accepted(systemd: Systemd) -> None:
    """Neither does one that hangs, and is killed for that."""
    first = systemd.start()
    first.signal(signal.SIGSTOP)
    with ExitStack() as connections:
        waiting = [connections.enter_context(systemd.connect()) for _ in range(20)]
        for connection in waiting:
            connection.send(request("GET", "/health"))
        first.kill()
        systemd.start()
        for connection in waiting:
            assert connection.answer().status == 200


class Clients:
    """Threads that read a file repeatedly: some open a connection for each request, others keep one
    as long as the service does.
    """

    def __init__(self, systemd: Systemd) -> None:
        self.fresh = 0
        self.kept = 0
        self.faults: list[str] = []
        self._systemd = systemd
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(self._keep if n % 2 else self._renew,))
            for n in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def have_asked(self, fresh: int, kept: int) -> bool:
        """Whether there were as many requests on new connections and on kept ones."""
        return self.fresh >= fresh and self.kept >= kept

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self, ask: Callable[[], None]) -> None:
        while not self._ended.is_set():
            try:
                ask()
            except (OSError, AssertionError, ValueError) as error:
                self.faults.append(f"{ask.__name__}: {error!r}")

    def _renew(self) -> None:
        began_s = time.monotonic()
        with self._systemd.connect() as connection:
            connection.send(request("GET", "/media/a/b.wav"))
            # On a busy machine a client may send its request so late that the service takes the
            # connection for an idle one.
            in_time = time.monotonic() - began_s < IDLE_GRACE_S / 2
            try:
                self._check(connection.answer())
            except ConnectionError:
                if in_time:
                    raise
        self.fresh += 1

    def _keep(self) -> None:
        with self._systemd.connect() as connection:
            while not self._ended.is_set():
                try:
                    connection.send(request("GET", "/media/a/b.wav"))
                    status, headers = connection.answer_head()
                except ConnectionError:
                    return  # between two requests, after which a client tries again
                content = connection.read(int(headers["Content-Length"]))
                self._check(Answer(status, headers, content))
                self.kept += 1
                if headers["Connection"] == "close":
                    return

    def _check(self, answer: Answer) -> None:
        assert answer.status == 200, answer
        assert len(answer.content) == len(CONTENT), f"cut off after {len(answer.content)} bytes"
        assert answer.content == CONTENT


def test_a_restart_under_load_refuses_and_resets_no_new_connection(systemd: Systemd) -> None:
    service = systemd.start()
    assert service.ask("PUT", "/media/a/b.wav", CONTENT).status == 201
    clients = Clients(systemd)
    try:
        for _ in range(RESTARTS):
            enough = (clients.fresh + 100, clients.kept + 100)
            eventually("there is load", partial(clients.have_asked, *enough), 30)
            assert service.stop() == -signal.SIGTERM, service.log
            assert "Traceback" not in service.log, service.log
            service = systemd.start()
    finally:
        clients.end()
    assert clients.faults == []


# Other endpoints


def test_an_inherited_socket_that_is_not_loopback_needs_open(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "area" / "media", ("0.0.0.0", 0))
    try:
        assert_one_line(systemd.refused(), r"cannot start: --listen: 0\.0\.0\.0 .*--open")
        assert systemd.start("--open").ask("GET", "/health").status == 200
    finally:
        systemd.end()


def test_an_inherited_socket_needs_the_domain_that_the_endpoint_names(tmp_path: Path) -> None:
    """Read as IPv4, the addresses of an IPv6 socket's peers would be wrong."""
    systemd = Systemd(tmp_path / "area" / "media", ("::1", 0))
    try:
        systemd.domain = "INET"
        assert_one_line(systemd.refused(), "--listen: the inherited socket is of another domain")
    finally:
        systemd.end()


def test_an_inherited_socket_may_be_one_of_ipv6(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "area" / "media", ("::1", 0))
    try:
        service = systemd.start()
        assert service.ask("PUT", "/media/a/b.wav", b"RIFF").status == 201
        assert service.stop() == -signal.SIGTERM
    finally:
        systemd.end()


class OnPath(Process):
    """A service that listens on a UNIX socket."""

    def __init__(self, path: Path, *options: str) -> None:
        """Listen on `path`, with the root beside it."""
        self._path = path
        root = path.with_name("media")
        listen = ["--listen", f"unix:{path}", "--root", str(root)]
        command = [TWISTD, "-n", "--pidfile=", "media", *listen, *options]
        super().__init__(command, path.parent, path.with_suffix(".log"), root)

    def connect(self, timeout_s: float = 20.0) -> Connection:
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(timeout_s)
        try:
            connected.connect(str(self._path))
        except OSError:
            connected.close()
            raise
        return Connection(connected)

    def _listens(self) -> bool:
        assert self._process.poll() is None, f"the service has ended: {self.log}"
        return self._path.exists()


def test_a_unix_socket_is_served_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "service.sock"
    service = OnPath(path, "--access-log", "-")
    try:
        assert service.ask("PUT", "/media/a/b.wav", CONTENT).status == 201
        # The file system decides who may connect, so any host name will do.
        found = service.ask("GET", "/media/a/b.wav", headers={"Host": "media.example"})
        assert found.content == CONTENT
        spoofed = {"X-Forwarded-For": "192.0.2.7"}
        assert service.ask("GET", "/health", headers=spoofed).status == 200
        assert service.stop() == -signal.SIGTERM
    finally:
        service.kill()
    assert not path.exists()
    clients = re.findall(r'^(\S+) - - .*"[A-Z]+ /(?:media|health)', service.log, re.MULTILINE)
    assert clients == ["local"] * 3


def test_the_service_listens_on_all_endpoints(tmp_path: Path) -> None:
    path = tmp_path / "service.sock"
    service = OnPath(path, "--listen", "tcp:0:interface=127.0.0.1")
    try:
        said = re.compile(r"starting on (\d+)")
        eventually("it logs its port", lambda: said.search(service.log) is not None)
        port = said.search(service.log)
        assert port is not None
        assert service.ask("PUT", "/media/a/b.wav", b"RIFF").status == 201
        with Connection(int(port[1])) as connection:
            assert connection.ask("GET", "/media/a/b.wav").content == b"RIFF"
        assert service.stop() == -signal.SIGTERM
    finally:
        service.kill()


def test_the_environment_lists_endpoints_with_commas(tmp_path: Path) -> None:
    listen = "tcp:0:interface=127.0.0.1,tcp:0:interface=0.0.0.0"
    ended = run_to_its_end(
        "-n", "--pidfile=", "media", cwd=tmp_path, more={"TWISTEDMEDIA_LISTEN": listen}
    )
    assert ended.returncode not in (0, None), ended.stdout
    assert len(re.findall(r"starting on \d+", ended.stdout)) == 2
    assert_one_line(ended.stdout, r"cannot start: --listen: 0\.0\.0\.0 .*--open")


@pytest.mark.parametrize(
    ("endpoint", "pattern"),
    [
        ("tcp:0:interface=0.0.0.0", r"cannot start: --listen: 0\.0\.0\.0 .*--open"),
        ("tcp:0", r"cannot start: --listen: 0\.0\.0\.0 .*--open"),
        (r"tcp6:0:interface=\:\:", r"cannot start: --listen: :: .*--open"),
        ("nonsense", "--listen: 'nonsense' is not an endpoint"),
        ("nonsense:8000", "--listen: 'nonsense:8000' is not an endpoint"),
        ("tcp:http", "--listen: 'tcp:http' is not an endpoint"),
        ("unix:no-folder/media.sock", "--listen: .*no-folder"),
        (
            "systemd:domain=INET:index=0",
            "--listen: 'systemd:domain=INET:index=0' is not an endpoint",
        ),
        ("ssl:0:privateKey=no-file.pem", "--listen: .*no-file"),
    ],
)
def test_an_endpoint_that_cannot_be_listened_on_ends_the_start(
    tmp_path: Path, endpoint: str, pattern: str
) -> None:
    ended = run_to_its_end("-n", "--pidfile=", "media", "--listen", endpoint, cwd=tmp_path)
    assert ended.returncode not in (0, None), ended.stdout
    assert_one_line(ended.stdout, pattern)
    assert os.listdir(tmp_path) == []

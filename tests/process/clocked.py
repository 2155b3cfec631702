"""What a service is to do while its wall clock is stepped, whoever steps it."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import time
from calendar import timegm
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

from tests.process.exchange import URLENCODED, Connection, head, request, urlencoded
from tests.process.nasty import Nasty, content_of
from tests.process.running import NOWHERE, Process, eventually
from tests.process.test_readers import narrow
from tests.process.uploading import PART, TUS, metadata

CONTENT = Random(88).randbytes(400_000)
HALF = len(CONTENT) // 2
LARGE = Random(89).randbytes(8 << 20)  # more than the kernel takes for a reader that is narrow
LIMIT_S = 2.0  # of everything below
OPTIONS = (
    *("--header-timeout", "2s", "--stall", "2s", "--min-rate", "64", "--grace", "2s"),
    *("--fetch-timeout", "2s", "--fetch-allow", "127.0.0.1", "--access-log", "access.log"),
)
LATE_S = 6.0  # more, on a machine that does other things too
WATCHED_S = 1.0
WATCHING_S = 4.0
STAMP = re.compile(r"\[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d) \+0000\]")


class Systemd:
    """Counts how often the watchdog is fed."""

    def __init__(self, path: Path) -> None:
        self.environment = {
            "NOTIFY_SOCKET": str(path),
            "WATCHDOG_USEC": str(int(WATCHED_S * 1_000_000)),
        }
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    def beats(self) -> int:
        """How often since this was asked last."""
        beats = 0
        while True:
            try:
                beats += self._socket.recv(1000) == b"WATCHDOG=1"
            except BlockingIOError:
                return beats

    def close(self) -> None:
        self._socket.close()


@contextmanager
def notified(folder: Path) -> Iterator[Systemd]:
    """A systemd that listens in `folder`."""
    systemd = Systemd(folder / "notify")
    try:
        yield systemd
    finally:
        systemd.close()


class Transfers:
    """Requests of every kind, each half done, with peers that are slow but not too slow."""

    def __init__(self, service: Process, nasty: Nasty, name: str, open_: ExitStack) -> None:
        self._service = service
        self._nasty = nasty
        self._name = name
        self._sent = HALF

        def connect() -> Connection:
            return open_.enter_context(service.connect())

        size = ("Content-Length", str(len(CONTENT)))
        self._put = connect()
        self._put.send(head("PUT", f"/media/{name}/put.wav", [size]) + CONTENT[:HALF])
        headers = {"Upload-Length": str(len(CONTENT)), **dict(metadata("tus.wav", name))}
        created = service.ask("POST", "/uploads", b"", {**dict([TUS]), **headers})
        assert created.status == 201, created
        self._upload = created.headers["Location"]
        self._patch = connect()
        fields = [TUS, PART, ("Upload-Offset", "0"), size]
        self._patch.send(head("PATCH", self._upload, fields) + CONTENT[:HALF])
        self._source = nasty.fresh("/half", size=100_000)
        arguments = (("url", nasty.url(self._source)), ("directory", name), ("filename", "i.wav"))
        self._import = connect()
        self._import.send(
            request("POST", "/media", urlencoded(*arguments), {"Content-Type": URLENCODED})
        )
        eventually("the upstream is asked", lambda: nasty.requests(self._source) == 1)
        self._reader = open_.enter_context(narrow(service.port))
        self._reader.send(request("GET", "/media/large/l.wav"))
        assert self._reader.answer_head()[0] == 200
        self._read = b""

    def go_on(self) -> None:
        """A little more of each."""
        more = CONTENT[self._sent : self._sent + 1000]
        self._sent += len(more)
        self._put.send(more)
        self._patch.send(more)
        self._read += self._reader.read(20_000)

    def end(self) -> None:
        """The rest of each, and check that all of it has arrived."""
        self._put.send(CONTENT[self._sent :])
        self._patch.send(CONTENT[self._sent :])
        self._nasty.release(self._source)
        assert self._put.answer().status == 201
        assert self._patch.answer().status == 204
        assert self._import.answer().status == 201
        self._read += self._reader.read(len(LARGE) - len(self._read))
        assert self._read == LARGE
        folder = self._service.root / self._name
        assert (folder / "put.wav").read_bytes() == CONTENT
        assert (folder / "tus.wav").read_bytes() == CONTENT
        assert (folder / "i.wav").read_bytes() == content_of(100_000)


class Late:
    """Peers that a service does not wait for longer than `LIMIT_S`."""

    def __init__(self, service: Process, nasty: Nasty, open_: ExitStack) -> None:
        def connect(data: bytes) -> Connection:
            connection = open_.enter_context(service.connect())
            connection.send(data)
            return connection

        self._begun_s = time.monotonic()
        self._waiting = {
            "half a head": connect(b"GET /media/ HTTP/1.1\r\nHost: 12"),
            "a stalled upload": connect(
                head("PUT", "/media/late/s.wav", [("Content-Length", "9")])
            ),
            "an upstream that hangs": connect(
                request("GET", f"/fetch?url={nasty.url(nasty.fresh('/hangs'))}")
            ),
        }
        self.ended_s: dict[str, float] = {}

    @property
    def is_over(self) -> bool:
        """Whether all of them were answered, or cut."""
        return not self._waiting

    def look(self) -> None:
        """Note which of them were answered, or cut."""
        sockets = {each.socket: what for what, each in self._waiting.items()}
        for readable in select.select(list(sockets), [], [], 0)[0]:
            what = sockets[readable]
            del self._waiting[what]
            self.ended_s[what] = time.monotonic() - self._begun_s

    def assert_ended_in_time(self) -> None:
        assert self._waiting == {}
        for what, ended_s in self.ended_s.items():
            # A window of `--stall` begins with the head, and is looked at now and then.
            most_s = (2 if what == "a stalled upload" else 1) * LIMIT_S + LATE_S
            assert LIMIT_S - 0.3 < ended_s < most_s, (what, ended_s)


def assert_unmoved(
    service: Process, nasty: Nasty, systemd: Systemd, step: Callable[[], float], name: str
) -> None:
    """`step` steps the wall clock of `service`, and returns the offset that it has then."""
    with ExitStack() as open_:
        transfers = Transfers(service, nasty, name, open_)
        before = Late(service, nasty, open_)
        offset_s = step()
        after = Late(service, nasty, open_)
        begun_s = time.monotonic()
        systemd.beats()
        while time.monotonic() < begun_s + WATCHING_S:
            before.look()
            after.look()
            transfers.go_on()
            time.sleep(0.05)
        lasted_s = time.monotonic() - begun_s
        beats = systemd.beats()
        expected = 2 * lasted_s / WATCHED_S
        # A timer that the step had moved would stand still for a day, or make up for one.
        assert expected / 2 <= beats <= expected + 2
        end_s = begun_s + 2 * LIMIT_S + LATE_S
        while not (before.is_over and after.is_over) and time.monotonic() < end_s:
            before.look()
            after.look()
            transfers.go_on()
            time.sleep(0.05)
        before.assert_ended_in_time()
        after.assert_ended_in_time()
        transfers.end()
    assert_logged(service, f"{NOWHERE}/{name}", time.time() + offset_s)


def assert_logged(service: Process, target: str, now_s: float) -> None:
    """The access log goes on, and says the time of the wall clock."""
    log = service.root.parent / "access.log"
    assert service.ask("GET", target).status == 404
    eventually("the request is logged", lambda: f"GET {target} " in log.read_text())
    (line,) = [line for line in log.read_text().splitlines() if f"GET {target} " in line]
    stamp = STAMP.findall(line)[0]
    logged_s = timegm(time.strptime(stamp, "%d/%b/%Y:%H:%M:%S"))
    assert abs(logged_s - now_s) < 5, line


def assert_grace_holds(service: Process, step: Callable[[], float]) -> None:
    """SIGTERM, with a reader that takes nothing more, and then a step."""
    with narrow(service.port) as reader:
        reader.send(request("GET", "/media/large/l.wav"))
        assert reader.answer_head()[0] == 200
        begun_s = time.monotonic()
        service.signal(signal.SIGTERM)
        eventually("it stops", lambda: "stopping: " in service.log)
        step()
        assert service.wait() == -signal.SIGTERM
        assert LIMIT_S - 0.3 < time.monotonic() - begun_s < LIMIT_S + LATE_S


def store_large(service: Process) -> None:
    """What the readers read."""
    answer = service.ask("PUT", "/media/large/l.wav", LARGE)
    assert answer.status == 201, answer


def replace(path: Path, text: str) -> None:
    """Write a small file at once."""
    draft = path.with_suffix(".new")
    draft.write_text(text, encoding="ascii")
    os.replace(draft, path)

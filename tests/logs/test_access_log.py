"""The access log: its lines, renamed files, and disks that are full or hang."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent

from tests.http.connection import NO_ADDRESS, Connection, content_of
from tests.http.test_site import CHUNKED, GET, GOT, MIB, Gate, Serving, head, put, refuse
from tests.support import asynchronous
from twistedmedia.errors import ConfigurationError
from twistedmedia.http.addresses import parse_proxies
from twistedmedia.http.admission import ConnectionLimits
from twistedmedia.http.timeouts import Timeouts
from twistedmedia.logs import access_log
from twistedmedia.logs.access_log import STDOUT, AccessLog
from twistedmedia.logs.spool import LAST_WAIT_S

NOW = 1_795_611_601.9  # 25 November 2026, 13:00:01
STAMP = "[25/Nov/2026:13:00:01 +0000]"


class Threads(Clock):
    """A Clock on which `callFromThread` runs when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._called: list[Any] = []

    def callFromThread(self, f: Any, *args: Any, **kwargs: Any) -> None:
        self._called.append((f, args, kwargs))
        reactor.callFromThread(self._run)

    def _run(self) -> None:
        called, self._called = self._called, []
        for f, args, kwargs in called:
            f(*args, **kwargs)


class Writing:
    """An open access log."""

    def __init__(self, path: str | Path, now: float = NOW) -> None:
        self.clock = Threads()
        self.now = now
        self.log = AccessLog(self.clock, str(path), lambda: self.now)
        self.log.open()

    def add(
        self,
        line: bytes = b"GET / HTTP/1.1",
        client: str = "192.0.2.7",
        referer: bytes = b"",
        agent: bytes = b"",
        *,
        status: int = 200,
        sent_bytes: int = 8192,
        taken_s: float = 0.0019,
    ) -> None:
        self.log.add(client, line, status, sent_bytes, referer, agent, taken_s)

    def add_number(self, number: int, size: int = 0) -> None:
        self.add(b"GET /%d%b HTTP/1.1" % (number, b"x" * size))

    async def written(self) -> None:
        """Wait until all earlier lines are in the file, or lost."""
        done: Deferred[None] = Deferred()
        self.log._spool.call(lambda: reactor.callFromThread(done.callback, None))
        await done

    async def close(self) -> None:
        """Close the log. Its thread closes the file and ends."""
        await self.log.close()
        assert self.clock.getDelayedCalls() == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def lines_of(path: Path) -> list[str]:
    text = path.read_bytes().decode("ascii")
    assert text == "" or text.endswith("\n")
    return text.split("\n")[:-1]


def numbers_in(path: Path) -> list[int]:
    return [int(re.findall(r'"GET /(\d+)', line)[0]) for line in lines_of(path)]


# Lines


@asynchronous
async def test_a_line_is_in_the_combined_format_followed_by_the_seconds(path: Path) -> None:
    writing = Writing(path)
    writing.add(b"GET /media/a/b HTTP/1.1", agent=b"mpv 0.35")
    writing.add(client="2001:db8::1", referer=b"http://x/", sent_bytes=0, status=304, taken_s=61)
    await writing.close()
    assert lines_of(path) == [
        f'192.0.2.7 - - {STAMP} "GET /media/a/b HTTP/1.1" 200 8192 "-" "mpv 0.35" 0.002',
        f'2001:db8::1 - - {STAMP} "GET / HTTP/1.1" 304 - "http://x/" "-" 61.000',
    ]


FIELDS = [
    (b"", "-"),
    (b"a b", "a b"),
    (b'"', "\\x22"),
    (b"\\", "\\x5c"),
    (b"\\x22", "\\x5cx22"),
    (b"a\nb\r\n", "a\\x0ab\\x0d\\x0a"),
    (b"\t\0\x7f\x1b[31m", "\\x09\\x00\\x7f\\x1b[31m"),
    ("ü🎵\u2028".encode(), "\\xc3\\xbc\\xf0\\x9f\\x8e\\xb5\\xe2\\x80\\xa8"),
]


@asynchronous
async def test_text_of_a_client_cannot_end_a_line_or_a_field(path: Path) -> None:
    """Case 35."""
    writing = Writing(path)
    for field, _ in FIELDS:
        writing.add(field, referer=field, agent=field)
    await writing.close()
    assert [line.split(STAMP)[1] for line in lines_of(path)] == [
        f' "{text}" 200 8192 "{text}" "{text}" 0.002' for _, text in FIELDS
    ]


@pytest.mark.parametrize(
    ("target", "logged"),
    [
        (b"/fetch?url=http://me:secret@x/", "/fetch?url=..."),
        (b"/fetch?a=b&url=secret&c=d", "/fetch?a=b&url=...&c=d"),
        (b"/fetch?url=secret&url=secret", "/fetch?url=...&url=..."),
        (b"/fetch?url=", "/fetch?url="),
        (b"/fetch?url", "/fetch?url"),
        (b"/fetch?curl=http://x/", "/fetch?curl=http://x/"),
        (b"/url=x", "/url=x"),
        # Twisted treats ; as &, and decodes keys.
        (b"/fetch?a=b;url=secret", "/fetch?a=b;url=..."),
        (b"/fetch?url=secret;more&a", "/fetch?url=...&a"),
        (
            b"/fetch?%75rl=secret&u%72%6c=secret&ur%6C=secret",
            "/fetch?%75rl=...&u%72%6c=...&ur%6C=...",
        ),
    ],
)
@asynchronous
async def test_the_url_to_fetch_is_masked(path: Path, target: bytes, logged: str) -> None:
    """Case 42. It can contain a password or a key."""
    writing = Writing(path)
    writing.add(b"GET %b HTTP/1.1" % target)
    await writing.close()
    assert re.findall(r'"(\S+ \S+ \S+)" 200', lines_of(path)[0]) == [f"GET {logged} HTTP/1.1"]


@asynchronous
async def test_the_stamp_is_the_current_time(path: Path) -> None:
    writing = Writing(path, now=0.0)
    for now in (0.0, 0.999, 1.0, 86399.5, NOW, 0.0):
        writing.now = now
        writing.add()
    await writing.close()
    assert [line[line.index("[") : line.index("]")] for line in lines_of(path)] == [
        "[01/Jan/1970:00:00:00 +0000",
        "[01/Jan/1970:00:00:00 +0000",
        "[01/Jan/1970:00:00:01 +0000",
        "[01/Jan/1970:23:59:59 +0000",
        "[25/Nov/2026:13:00:01 +0000",
        "[01/Jan/1970:00:00:00 +0000",
    ]


@settings(max_examples=200)
@given(st.binary(max_size=50))
def test_any_field_becomes_printable_and_stays_distinct_from_others(field: bytes) -> None:
    """Case 35."""
    escaped = access_log._escaped(field).encode("ascii")
    assert not re.search(rb'[^ -~]|"', escaped)
    back = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), escaped)
    assert back == (field or b"-")


# When they are written


@asynchronous
async def test_lines_are_written_together_and_soon(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    write = os.write

    def count(descriptor: int, data: Any) -> int:
        if bytes(data).startswith(b"192.0.2.7"):
            written.append(bytes(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", count)
    writing = Writing(path)
    for batch in range(3):
        for number in range(100):
            writing.add_number(100 * batch + number)
        assert writing.clock.getDelayedCalls() == []
        await writing.written()
        # One write, or a few more if this thread was delayed for as long as lines are collected.
        assert batch < len(written) <= 3 * (batch + 1)
    await writing.close()
    assert numbers_in(path) == list(range(300))


@asynchronous
async def test_queued_lines_are_written_at_the_close(path: Path) -> None:
    writing = Writing(path)
    for number in range(1000):
        writing.add_number(number)
    await writing.close()
    assert numbers_in(path) == list(range(1000))


@asynchronous
async def test_lines_are_appended_to_an_existing_file(path: Path) -> None:
    for number in range(3):
        writing = Writing(path)
        writing.add_number(number)
        await writing.close()
    assert numbers_in(path) == [0, 1, 2]


@asynchronous
async def test_a_log_that_was_never_opened_is_closed_at_once(path: Path) -> None:
    await AccessLog(Clock(), str(path)).close()
    assert os.listdir(path.parent) == []


def test_a_file_that_cannot_be_opened_is_an_error_on_one_line(tmp_path: Path) -> None:
    for name in ("", "missing/access.log"):
        with pytest.raises(ConfigurationError) as caught:
            AccessLog(Clock(), str(tmp_path / name)).open()
        assert str(caught.value).startswith(str(tmp_path))


@asynchronous
async def test_a_dash_is_the_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """The standard output stays open."""
    for number in (1, 2):
        writing = Writing(STDOUT)
        writing.add_number(number)
        writing.log.reopen()
        await writing.close()
    lines = capfd.readouterr().out.split("\n")
    assert [line.split('"')[1] for line in lines[:-1]] == ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1"]


# Files that are renamed


@asynchronous
async def test_after_a_rename_lines_go_to_a_new_file_and_none_is_lost(
    path: Path,
) -> None:
    old = path.with_suffix(".old")
    writing = Writing(path)
    writing.add_number(0)
    await writing.written()
    writing.add_number(1)
    os.rename(path, old)
    writing.add_number(2)
    writing.log.reopen()
    writing.add_number(3)
    await writing.close()
    assert (numbers_in(old), numbers_in(path)) == ([0, 1, 2], [3])


@asynchronous
async def test_a_file_that_cannot_be_reopened_is_kept_and_reported_once(
    path: Path, nothing_left_behind: list[LogEvent]
) -> None:
    old = path.with_suffix(".old")
    writing = Writing(path)
    os.rename(path, old)
    os.mkdir(path)
    writing.log.reopen()
    writing.log.reopen()
    writing.add_number(1)
    await writing.written()
    assert numbers_in(old) == [1]
    (event,) = nothing_left_behind
    assert event["consequence"] == "the old file is kept"
    assert "directory" in event["why"]
    nothing_left_behind.clear()
    os.rmdir(path)
    writing.log.reopen()
    writing.add_number(2)
    await writing.close()
    assert (numbers_in(old), numbers_in(path)) == ([1], [2])


# Disks that are full


@asynchronous
async def test_a_full_disk_loses_lines_and_is_reported_once(
    path: Path, nothing_left_behind: list[LogEvent]
) -> None:
    """Case 10."""
    os.symlink("/dev/full", path)
    writing = Writing(path)
    for number in range(3):
        writing.add_number(number)
        await writing.written()
    (event,) = nothing_left_behind
    assert (event["why"], event["consequence"]) == ("No space left on device", "lines are lost")
    os.unlink(path)
    writing.log.reopen()
    writing.add_number(4)
    await writing.written()
    assert numbers_in(path) == [4]
    os.unlink(path)
    os.symlink("/dev/full", path)
    writing.log.reopen()
    writing.add_number(5)
    await writing.close()
    await deferToThread(lambda: None)  # after the calls of its thread
    assert len(nothing_left_behind) == 2, "it is said again when it had worked in between"
    nothing_left_behind.clear()


@asynchronous
async def test_the_rest_of_a_partial_write_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    writing = Writing(path)
    for number in range(10):
        writing.add_number(number)
    await writing.close()
    assert numbers_in(path) == list(range(10))


# Disks that hang


class Hanging:
    """A pipe that the test reads later."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._read = b""

    def read(self) -> bytes:
        """Read everything until the other end is closed."""
        os.set_blocking(self._reading, True)
        while data := os.read(self._reading, 1 << 20):
            self._read += data
        os.close(self._reading)
        return self._read


@asynchronous
async def test_a_disk_that_hangs_blocks_nothing_and_lost_lines_are_counted(
    path: Path, warnings: list[LogEvent]
) -> None:
    """Case 29."""
    hanging = Hanging(path)
    writing = Writing(path)
    for number in range(40):
        writing.add_number(number, 100_000)
    assert [event.get("lost") for event in warnings] == [None], "that there are some"
    reading = deferToThread(hanging.read)
    await writing.written()
    writing.add_number(40)
    writing.add_number(41)
    await writing.close()
    read = await reading
    numbers = [int(number) for number in re.findall(rb'"GET /(\d+)x? ?', read)]
    kept = len(numbers) - 2
    assert 10 <= kept < 20, "a mebibyte, and what was given when it was not yet there"
    assert numbers == [*range(kept), 40, 41]
    assert [event.get("lost") for event in warnings] == [None, 40 - kept]


@pytest.mark.parametrize(
    ("status", "kept"), [(400, 6), (429, 6), (499, 6), (503, 6), (200, 11), (500, 11), (507, 11)]
)
@asynchronous
async def test_lines_of_refused_requests_have_half_of_the_room(
    path: Path, status: int, kept: int
) -> None:
    """Case 91."""
    hanging = Hanging(path)
    writing = Writing(path)
    for _ in range(40):
        writing.add(b"GET /%b HTTP/1.1" % (b"x" * 100_000), status=status)
    assert writing.log._spool.dropped == 40 - kept
    reading = deferToThread(hanging.read)
    await writing.close()
    assert (await reading).count(b'"GET /x') == kept


@asynchronous
async def test_the_close_waits_for_a_disk_that_hangs_for_a_limited_time(path: Path) -> None:
    hanging = Hanging(path)
    writing = Writing(path)
    writing.add_number(0, 200_000)
    closing = writing.log.close()
    assert not closing.called
    writing.clock.advance(LAST_WAIT_S)
    assert closing.called
    assert await closing is None
    read = await deferToThread(hanging.read)
    assert len(read) > 200_000
    await deferToThread(lambda: None)
    assert writing.clock.getDelayedCalls() == []


@asynchronous
async def test_lines_that_are_added_while_a_disk_hangs_for_a_moment_are_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[LogEvent]
) -> None:
    going_on = threading.Event()
    write = os.write

    def wait(descriptor: int, data: Any) -> int:
        if threading.current_thread().name == "access log":
            going_on.wait()
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", wait)
    writing = Writing(path)
    for number in range(100):
        writing.add_number(number)
    assert lines_of(path) == []
    going_on.set()
    await writing.close()
    assert numbers_in(path) == list(range(100))
    assert warnings == []


# Over a Site


class Log:
    """Records the calls to an access log."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []

    def add(self, *entry: Any) -> None:
        self.entries.append(entry)

    @property
    def briefly(self) -> list[tuple[str, int]]:
        """The request line and the status of each."""
        return [(entry[1].decode(), entry[2]) for entry in self.entries]


def logging(*handler: Any, **options: Any) -> tuple[Serving, Log]:
    log = Log()
    return Serving(*handler, access_log=log, **options), log


GOT_LINE = "GET /plain?q=1 HTTP/1.1"
PUT_LINE = "PUT /stream HTTP/1.1"


def test_a_request_is_logged_after_its_response() -> None:
    gate = Gate(content_of)
    serving, log = logging(gate)
    connection = serving.connect()
    connection.send(put(3, "User-Agent: a", "User-Agent: b", "Referer: http://x/") + b"abc" + GET)
    serving.clock.advance(2.5)
    assert log.entries == []
    gate.opened.callback(None)
    serving.clock.advance(0)
    assert log.entries == [
        ("192.0.2.1", PUT_LINE.encode(), 200, 3, b"http://x/", b"a", 2.5),
        ("192.0.2.1", GOT_LINE.encode(), 200, len(GOT), b"", b"", 0.0),
    ]
    connection.leave()
    assert len(log.entries) == 2


@pytest.mark.parametrize("sent", [b"", b"ab", b"abc"])
def test_a_refused_request_is_logged_once_and_with_its_status(sent: bytes) -> None:
    """Also if the client disconnects before it sent all of the unneeded content."""
    serving, log = logging(refuse)
    connection = serving.connect()
    connection.send(put(3) + sent)
    assert log.briefly == [(PUT_LINE, 413)]
    connection.leave()
    assert len(log.entries) == 1


@pytest.mark.parametrize("begin", [put(10), CHUNKED])
def test_a_request_whose_client_disconnects_before_its_last_byte_is_499(begin: bytes) -> None:
    serving, log = logging(Gate())
    connection = serving.connect()
    connection.send(begin + b"12")
    serving.clock.advance(1)
    connection.leave()
    assert log.entries == [("192.0.2.1", PUT_LINE.encode(), 499, 0, b"", b"", 1.0)]


def test_a_request_that_is_carried_out_after_a_disconnect_has_its_status() -> None:
    """Case 51. It is logged once, when it ends."""
    gate = Gate()
    serving, log = logging(gate)
    connection = serving.connect()
    connection.send(put(3) + b"abc")
    connection.leave()
    assert log.entries == []
    serving.clock.advance(1)
    gate.opened.callback(None)
    assert log.entries == [("192.0.2.1", PUT_LINE.encode(), 200, 3, b"", b"", 1.0)]


def test_a_request_whose_client_disconnects_during_the_response_has_its_status() -> None:
    """The size is what was written."""

    async def half(request: Any) -> bytes:
        request.setHeader(b"content-length", b"%d" % (2 * MIB))
        request.write(bytes(MIB))
        await Deferred()
        raise AssertionError

    serving, log = logging(half)
    connection = serving.connect()
    connection.send(head(method="GET"))
    connection.leave()
    assert log.entries == [("192.0.2.1", b"GET /stream HTTP/1.1", 200, MIB, b"", b"", 0.0)]


def test_a_request_whose_handler_has_not_begun_is_499_too() -> None:
    """A plain resource begins after the content."""
    serving, log = logging()
    connection = serving.connect()
    connection.send(put(10, path="/plain"))
    connection.leave()
    assert log.briefly == [("PUT /plain HTTP/1.1", 499)]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000, 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 300 + b"\r\n", 431),
    ],
)
def test_a_refused_head_is_logged_without_a_request(sent: bytes, status: int) -> None:
    serving, log = logging()
    connection = serving.connect()
    connection.send(sent)
    (answer,) = connection.answers()
    assert log.entries == [("192.0.2.1", b"", status, len(answer.content))]
    connection.leave()
    assert len(log.entries) == 1


def test_a_late_head_and_a_refused_connection_are_logged() -> None:
    serving, log = logging(
        connection_limits=ConnectionLimits(connections=1), timeouts=Timeouts(header_s=1)
    )
    late, too_many = serving.connect(), serving.connect()
    late.send(b"GET")
    serving.clock.pump([0.5] * 4)
    assert log.briefly == [("", 503), ("", 408)]
    for connection in (late, too_many):
        connection.leave()
    assert len(log.entries) == 2


@pytest.mark.parametrize("content", [b"zz\r\n", b""], ids=["malformed", "late"])
def test_a_plain_resource_whose_content_is_refused_is_logged_once(content: bytes) -> None:
    serving, log = logging(timeouts=Timeouts(stall_s=1))
    connection = serving.connect()
    connection.send(head("Transfer-Encoding: chunked", path="/plain") + content)
    serving.clock.pump([0.5] * 4)
    assert len(connection.answers()) == 1
    connection.leave()
    assert len(log.entries) == 1


def test_a_connection_without_a_request_is_not_logged() -> None:
    serving, log = logging()
    serving.connect().leave()
    connection = serving.connect()
    connection.send(b"GET")
    connection.leave()
    assert log.entries == []


@pytest.mark.parametrize(
    ("trusted", "peer", "client"),
    [
        ([], None, "192.0.2.1"),
        (["192.0.2.1"], None, "198.51.100.7"),
        ([], NO_ADDRESS, "local"),
        (["unix"], NO_ADDRESS, "198.51.100.7"),
    ],
)
def test_the_client_is_the_one_that_a_trusted_proxy_reports(
    trusted: list[str], peer: Any, client: str
) -> None:
    serving, log = logging(Gate(), proxies=parse_proxies(trusted))
    for path in ("/plain", "/stream"):
        connection: Connection = serving.connect(**({} if peer is None else {"peer": peer}))
        connection.send(head("X-Forwarded-For: 127.0.0.1, 198.51.100.7", path=path, method="GET"))
        connection.leave()
    assert [(entry[0], entry[2]) for entry in log.entries] == [(client, 200), (client, 499)]


@asynchronous
async def test_a_site_writes_lines_to_a_log(path: Path) -> None:
    writing = Writing(path)
    serving = Serving(access_log=writing.log)
    connection = serving.connect()
    connection.send(head('User-Agent: "x\t\xff', path="/plain?url=secret", method="GET"))
    connection.send(b"\0")
    connection.leave()
    await writing.close()
    first, second = lines_of(path)
    assert first.startswith(f'192.0.2.1 - - {STAMP} "GET /plain?url=... HTTP/1.1" 200 ')
    assert first.endswith(' "-" "\\x22x\\x09\\xc3\\xbf" 0.000')
    assert re.fullmatch(rf'192.0.2.1 - - {re.escape(STAMP)} "-" 400 \d+ "-" "-" 0.000', second)

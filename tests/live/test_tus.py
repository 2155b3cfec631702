"""Resumable uploads (tus 1.0.0) by the clients that people use, and over connections that fail."""

from __future__ import annotations

import filecmp
import functools
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from urllib.parse import quote

import pytest

from tests.live.browser import browsing
from tests.live.cutting import Cut, Line, bad_line
from tests.live.support import clean_environment
from tests.process import blocked
from tests.process.exchange import Connection, head, request
from tests.process.running import Process, eventually, start

PROGRAMS = Path(__file__).with_name("tus")
INSTALLED = Path(sys.prefix) / "tus" / "node_modules"  # by tests/live/run
FILE_BYTES = 200 << 20
UPLOAD_S = 240.0  # at most, of the whole file
FEWEST_CUTS = 20


TUS = {"Tus-Resumable": "1.0.0"}
PART = "application/offset+octet-stream"


def begin(name: str, length: int | None, content: bytes = b"", **metadata: str) -> bytes:
    """A request that begins the upload of `name`, with the first part of its content."""
    directory, _, filename = name.rpartition("/")
    pairs = {"directory": directory, "filename": filename, **metadata}
    fields = {
        **TUS,
        "Upload-Metadata": ",".join(
            f"{key} {b64encode(value.encode()).decode()}" for key, value in pairs.items()
        ),
    }
    if length is None:
        fields["Upload-Defer-Length"] = "1"
    else:
        fields["Upload-Length"] = str(length)
    if content:
        fields["Content-Type"] = PART
    return request("POST", "/uploads/", content, fields)


def part_head(target: str, offset: int, size: int, more: Mapping[str, str] | None = None) -> bytes:
    """The head of a request that adds `size` bytes to the upload at `target`."""
    fields = {**TUS, "Content-Type": PART, "Upload-Offset": str(offset), **(more or {})}
    return head("PATCH", target, [*fields.items(), ("Content-Length", str(size))])


def begun(connection: Connection, name: str, length: int) -> str:
    """The target of a new upload."""
    connection.send(begin(name, length))
    answer = connection.answer()
    assert answer.status == 201, answer
    return str(answer.headers["Location"])


def offset_of(connection: Connection, target: str) -> int:
    """How far it says that an upload is."""
    answer = connection.ask("HEAD", target, None, TUS)
    assert answer.status == 200, answer
    return int(answer.headers["Upload-Offset"])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file that calls itself MP3."""
    path = tmp_path_factory.mktemp("large") / "large.mp3"
    random = Random(1)
    with path.open("wb") as file:
        for _ in range(FILE_BYTES >> 20):
            file.write(random.randbytes(1 << 20))
    yield path
    path.unlink()


def run(*command: str | Path) -> dict[str, object]:
    """What a program that succeeds says of itself."""
    done = subprocess.run(
        command,
        env=clean_environment() | {"NODE_PATH": str(INSTALLED)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=UPLOAD_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout or "{}")
    assert isinstance(said, dict)
    return said


def assert_arrived(service: Process, line: Line, url: object, large: Path, name: str) -> None:
    """In spite of all cuts, and as the only thing that is there."""
    print(f"{line.cuts.total()} cuts, {line.passed - FILE_BYTES} bytes more than the file")
    assert line.cuts.total() >= FEWEST_CUTS
    assert set(line.cuts) == set(Cut)
    assert line.lost == 1, "no answer said where the file is stored"
    assert filecmp.cmp(service.root / name, large, shallow=False)
    assert [path for path in service.tree() if (service.root / path).is_file()] == [name]
    target = str(url).removeprefix(f"http://127.0.0.1:{line.port}")
    told = service.ask("HEAD", target, None, {"Tus-Resumable": "1.0.0"})
    assert (told.status, told.headers["Upload-Offset"]) == (200, str(FILE_BYTES))
    assert told.headers["Content-Location"] == f"/media/{quote(name)}"
    upload = target.rpartition("/")[2]
    left = sorted(os.listdir(service.root / ".twistedmedia" / "uploads"))
    assert left == [f"{upload}.etag", f"{upload}.stored"]
    (service.root / name).unlink()  # it is large


@pytest.mark.long
@pytest.mark.parametrize("chunk", ["0", str(8 << 20)], ids=["at once", "in chunks"])
def test_tus_js_client_uploads_over_a_line_that_is_cut_every_few_mib(
    serve: Callable[..., Process], large: Path, chunk: str
) -> None:
    service = serve()
    metadata = json.dumps({"directory": "prompts/en", "filename": "large.mp3"})
    with bad_line(service.port) as line:
        endpoint = f"http://127.0.0.1:{line.port}/uploads/"
        said = run("node", PROGRAMS / "upload.cjs", endpoint, large, metadata, chunk)
        assert_arrived(service, line, said["url"], large, "prompts/en/large.mp3")
        assert int(str(said["retries"])) >= FEWEST_CUTS


@pytest.mark.long
def test_tus_js_clients_that_wait_for_one_upload_begin_no_other(tmp_path: Path) -> None:
    """Case 84: while the disk hangs, each of three ends the wait of the one before it."""
    root = tmp_path / "area" / "media"
    service = blocked.start("writev", root, "--no-durable")
    file = tmp_path / "file"
    content = Random(84).randbytes(1 << 20)
    file.write_bytes(content)
    try:
        with service.connect() as part, service.connect() as asking:
            target = begun(asking, "a/b.mp3", len(content))
            blocked.hang(service)
            part.send(part_head(target, 0, len(content)) + content[: 1 << 19])
            blocked.wait_for_calls(service, 1)
            at = f"http://127.0.0.1:{service.port}"
            with subprocess.Popen(
                ["node", PROGRAMS / "contend.cjs", f"{at}/uploads", f"{at}{target}", file],
                env=clean_environment() | {"NODE_PATH": str(INSTALLED)},
                stdout=subprocess.PIPE,
                text=True,
            ) as clients:
                assert clients.stdout is not None
                lines = iter(clients.stdout)
                assert [next(lines) for _ in range(2)] == ["locked\n"] * 2
                blocked.answer(service)
                said = json.loads([line for line in lines if line != "locked\n"][-1])
                assert clients.wait(20) == 0
        assert said == {"begun": 0, "urls": [f"{at}{target}"] * 3}
        assert service.tree() == ["a", "a/b.mp3"]
        assert (root / "a" / "b.mp3").read_bytes() == content
    finally:
        service.kill()


@pytest.mark.long
@pytest.mark.parametrize("chunk", ["0", str(1 << 20)], ids=["at once", "in chunks with checksums"])
def test_tuspy_uploads_over_a_line_that_is_cut_every_few_mib(
    serve: Callable[..., Process], large: Path, chunk: str
) -> None:
    service = serve()
    metadata = json.dumps({"directory": "prompts/en", "filename": "large.mp3"})
    with bad_line(service.port) as line:
        endpoint = f"http://127.0.0.1:{line.port}/uploads/"
        program = PROGRAMS / "with_tuspy.py"
        said = run(sys.executable, program, endpoint, large, metadata, chunk)
        assert_arrived(service, line, said["url"], large, "prompts/en/large.mp3")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@contextmanager
def pages(folder: Path) -> Iterator[int]:
    """The port of a server of what is in `folder`."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.long
def test_uppy_in_a_browser_uploads_over_a_line_that_is_cut_every_few_mib(
    serve: Callable[..., Process], large: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its page is of another site, which the service was told of."""
    folder = tmp_path_factory.mktemp("page")
    home = tmp_path_factory.mktemp("browser")  # a short path: Chromium has a socket below it
    esbuild = INSTALLED / ".bin" / "esbuild"
    bundle = f"--outfile={folder / 'bundle.js'}"
    run(esbuild, PROGRAMS / "page.js", "--bundle", "--log-level=error", bundle)
    (folder / "index.html").symlink_to(PROGRAMS / "page.html")
    (folder / "large.mp3").symlink_to(large)
    with pages(folder) as port:
        origin = f"http://localhost:{port}"
        service = serve("--cors-origin", origin)
        with bad_line(service.port) as line, browsing(home) as browser:
            browser.open(f"{origin}/index.html")
            endpoint = f"http://127.0.0.1:{line.port}/uploads/prompts/en"
            start = "upload(...arguments).catch((fault) => { seen = {failed: [String(fault)]}; });"
            browser.run(start, endpoint, "large.mp3", "from uppy.mp3")
            eventually("Uppy is done", lambda: browser.run("return 'seen' in window"), UPLOAD_S)
            seen = browser.run("return seen")
            assert seen["failed"] == []
            (url,) = seen["urls"]
            assert_arrived(service, line, url, large, "prompts/en/from uppy.mp3")
            assert seen["retries"] >= 1


AT_ONCE_S = 10.0  # what hangs is waited for much longer, and the disk may be busy
HALF_BYTES = 1 << 20
GRACE_S = 2


def bytes_of(service: Process, target: str) -> Path:
    """Where the content of an upload is until it is published."""
    return service.root / ".twistedmedia" / "uploads" / f"{target.rpartition('/')[2]}.bytes"


def test_what_came_before_a_connection_was_lost_is_kept(serve: Callable[..., Process]) -> None:
    """To the last byte: of a request in its middle, and of one that was sent to its end at full
    speed, whose answer nobody could read.
    """
    service = serve()
    for ends, size, missing in product(("reset", "close"), (1000, 100_000, 8 << 20), (1, 0)):
        name = f"calls/{ends}-{size}-{missing}.mp3"
        content = Random(1).randbytes(size + 1)
        with service.connect() as new:
            target = begun(new, name, size + 1)
            with service.connect() as old:
                assert connections(old) == 2
                old.send(part_head(target, 0, size + missing) + content[:size])
                if ends == "reset":  # which drops what is on its way
                    eventually("it is received", lambda old=old: not on_its_way(old))
                getattr(old, ends)()
            eventually("the service has seen that", lambda new=new: connections(new) == 1)
            assert offset_of(new, target) == size
            new.send(part_head(target, size, 1) + content[size:])
            assert new.answer().status == 204
        assert (service.root / name).read_bytes() == content
        eventually("it is over", lambda: service.ask("GET", "/health").json["connections"] == 1)


def connections(connection: Connection) -> int:
    """How many the service has."""
    return int(connection.ask("GET", "/health").json["connections"])


def send_half(connection: Connection, target: str, content: bytes) -> None:
    """Half of an upload's content: the service has read that, and waits for the rest."""
    connection.send(part_head(target, 0, len(content)) + content[:HALF_BYTES])
    eventually("the half is received", lambda: not on_its_way(connection))


def on_its_way(connection: Connection) -> int:
    """How many bytes were sent on a connection that the other side has not read (proc(5))."""
    ours = f":{connection.socket.getsockname()[1]:04X}"
    found = 0
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        unsent, unread = (int(size, 16) for size in queues.split(":"))
        found += unsent if local.endswith(ours) else unread if remote.endswith(ours) else 0
    return found


def test_who_comes_back_while_his_old_connection_hangs_goes_on_at_once(
    service: Process, folder: str
) -> None:
    """Case 28. What the old connection sends later counts no more."""
    for number in range(10):
        name = f"{folder}/{number}.mp3"
        with service.connect() as old, service.connect() as new:
            target = begun(new, name, 2 * HALF_BYTES)
            send_half(old, target, b"A" * 2 * HALF_BYTES)
            started = time.monotonic()
            assert offset_of(new, target) == HALF_BYTES
            with suppress(ConnectionError):  # it may have been ended
                old.send(b"A" * 1000)
            rest = b"B" * HALF_BYTES
            new.send(part_head(target, HALF_BYTES, len(rest)) + rest)
            answer = new.answer()
            assert (answer.status, answer.headers["Upload-Offset"]) == (204, str(2 * HALF_BYTES))
            assert time.monotonic() - started < AT_ONCE_S
            assert (service.root / name).read_bytes() == b"A" * HALF_BYTES + rest
            assert_superseded(old)


def test_who_comes_back_and_does_not_ask_is_told_at_once_that_his_offset_is_wrong(
    service: Process, folder: str
) -> None:
    """Case 28."""
    name = f"{folder}/a.mp3"
    with service.connect() as old, service.connect() as new:
        target = begun(new, name, 2 * HALF_BYTES)
        send_half(old, target, b"A" * 2 * HALF_BYTES)
        started = time.monotonic()
        new.send(part_head(target, 0, 2 * HALF_BYTES) + b"B" * 2 * HALF_BYTES)
        assert new.answer().status == 409
        assert time.monotonic() - started < AT_ONCE_S
        assert_superseded(old)
    with service.connect() as new:
        assert offset_of(new, target) == HALF_BYTES
        new.send(part_head(target, HALF_BYTES, HALF_BYTES) + b"C" * HALF_BYTES)
        assert new.answer().status == 204
    assert (service.root / name).read_bytes() == b"A" * HALF_BYTES + b"C" * HALF_BYTES


def assert_superseded(connection: Connection) -> None:
    """It was told so, or was just ended."""
    with suppress(ConnectionError):
        answer = connection.answer("PATCH")
        assert answer.status == 409, answer
        assert "newer request" in answer.json["reason"], answer


@dataclass
class Writer:
    """A client that sends all that is missing, in bytes of its own, as fast as it can."""

    service: Process
    target: str
    size: int
    own: bytes
    began_at: int | None = None
    status: int | None = None  # None: the connection ended without an answer
    fault: BaseException | None = None

    def begin(self) -> threading.Thread:
        """Ask, and write from there on in a thread, which has sent something when this returns."""
        begun = threading.Event()
        thread = threading.Thread(target=self._run, args=(begun,))
        thread.start()
        begun.wait(20)
        return thread

    def _run(self, begun: threading.Event) -> None:
        try:
            with self.service.connect() as connection:
                self.began_at = offset_of(connection, self.target)
                left = self.size - self.began_at
                if left:
                    connection.send(part_head(self.target, self.began_at, left))
                    begun.set()
                    for at in range(0, left, 64 << 10):
                        connection.send(self.own * min(64 << 10, left - at))
                    self.status = connection.answer("PATCH").status
        except ConnectionError:
            pass
        except BaseException as fault:  # noqa: BLE001  # the test is told at its end
            self.fault = fault
        finally:
            begun.set()


@pytest.mark.parametrize("rounds", [10, pytest.param(200, marks=pytest.mark.long)])
def test_of_those_who_write_one_upload_at_full_speed_each_has_what_it_wrote_before_the_next_asked(
    service: Process, folder: str, rounds: int
) -> None:
    """Case 28. No byte of an earlier one comes after the first of a later one."""
    size = 8 << 20
    random = Random(rounds)
    wrote_some = 0
    for number in range(rounds):
        name = f"{folder}/{number}.mp3"
        with service.connect() as connection:
            target = begun(connection, name, size)
        writers = [Writer(service, target, size, own) for own in (b"A", b"B", b"C", b"D")]
        threads = []
        for writer in writers:
            threads.append(writer.begin())
            threading.Event().wait(random.choice([0, random.uniform(0, 0.01)]))
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert [writer.fault for writer in writers if writer.fault is not None] == []
        starts = [writer.began_at for writer in writers if writer.began_at is not None]
        assert len(starts) == len(writers)
        assert starts == sorted(starts)
        ends = [*starts[1:], size]
        expected = b"".join(
            writer.own * (end - start)
            for writer, start, end in zip(writers, starts, ends, strict=True)
        )
        assert (service.root / name).read_bytes() == expected
        # Only who has written the last byte was told that it is stored.
        told = [writer.own for writer in writers if writer.status == 204]
        assert told == [expected[-1:]]
        assert {writer.status for writer in writers} <= {204, 409, None}
        wrote_some += sum(0 < start < size for start in set(starts))
        (service.root / name).unlink()
    print(f"{wrote_some} times somebody went on within the file")
    assert wrote_some >= rounds / 2


@pytest.mark.parametrize("goes_on", [False, True], ids=["hanging", "sending"])
def test_what_came_before_a_sigterm_is_there_afterwards(tmp_path: Path, goes_on: bool) -> None:
    """Case 47."""
    root = tmp_path / "area" / "media"
    content = Random(1).randbytes(2 * HALF_BYTES)
    service = start(root, "--grace", f"{GRACE_S}s")
    try:
        with service.connect() as connection:
            target = begun(connection, "prompts/en/a.mp3", len(content))
            send_half(connection, target, content)
            started = time.monotonic()
            service.signal(signal.SIGTERM)
            sent = came = HALF_BYTES
            with suppress(ConnectionError):
                while goes_on and sent + 1000 < len(content):
                    connection.send(content[sent : sent + 1000])
                    sent += 1000
                    threading.Event().wait(0.01)  # it is slow
                    # While it is sure that the service has not ended.
                    if not on_its_way(connection) and time.monotonic() < started + GRACE_S:
                        came = sent
            assert service.wait() == -signal.SIGTERM
            took_s = time.monotonic() - started
        print(f"ended after {took_s:.2f} s")
        assert took_s < GRACE_S + 5
        assert service.log.rstrip().endswith("Server Shut Down."), service.log
        assert "Traceback" not in service.log, service.log
        service = start(root)
        with service.connect() as connection:
            offset = offset_of(connection, target)
            assert came <= offset <= sent
            assert not goes_on or came > HALF_BYTES
            connection.send(part_head(target, offset, len(content) - offset) + content[offset:])
            assert connection.answer().status == 204
        assert (root / "prompts" / "en" / "a.mp3").read_bytes() == content
    finally:
        service.kill()


EXPIRES_S = 90.0  # after 3 s, a minute more, and until the next sweep


def aged(path: Path) -> None:
    """By its time, nobody has written to it for two minutes."""
    then = time.time() - 120
    os.utime(path, (then, then))


def test_abandoned_uploads_expire_and_the_one_that_is_written_to_does_not(
    serve: Callable[..., Process],
) -> None:
    """Case 13. A client is told the expiry; a minute later the sweep comes."""
    service = serve("--upload-expiry", "3s", "--max-unfinished", "4", "--keep-alive", "300s")
    uploads = service.root / ".twistedmedia" / "uploads"
    lefts: dict[str, Path] = {}
    sent = HALF_BYTES

    def has_expired(left: Path) -> bool:
        nonlocal sent
        live.send(b"A")  # else it would be too slow
        sent += 1
        return not left.exists()

    with service.connect() as connection, service.connect() as live:
        written = begun(connection, "calls/live.mp3", 2 * HALF_BYTES)
        send_half(live, written, b"A" * 2 * HALF_BYTES)
        aged(bytes_of(service, written))

        done = begun(connection, "calls/done.mp3", 1)
        connection.send(part_head(done, 0, 1) + b"x")
        assert connection.answer().status == 204
        aged(uploads / f"{done.rpartition('/')[2]}.stored")

        for name in ("calls/abandoned-1.mp3", "calls/abandoned-2.mp3"):
            abandoned = begun(connection, name, 10)
            connection.send(part_head(abandoned, 0, 5) + b"12345")
            assert connection.answer().status == 204
            # What was written since the start expires by the time that passed.
            aged(bytes_of(service, abandoned))
            lefts[abandoned] = bytes_of(service, abandoned)
        eventually("the finished one has expired", lambda: not list(uploads.glob("*.stored")))
        assert all(left.exists() for left in lefts.values())
        fresh = ""
        for abandoned, left in lefts.items():
            eventually("it has expired", lambda left=left: has_expired(left), EXPIRES_S)
            fresh = fresh or begun(connection, "calls/fresh.mp3", 10)
            for method in ("HEAD", "DELETE"):
                assert connection.ask(method, abandoned, None, TUS).status == 404
        assert connection.ask("HEAD", done, None, TUS).status == 404
        assert (service.root / "calls" / "done.mp3").read_bytes() == b"x"
        assert offset_of(connection, fresh) == 0

        live.send(b"A" * (2 * HALF_BYTES - sent))
        assert live.answer("PATCH").status == 204
        assert (service.root / "calls" / "live.mp3").read_bytes() == b"A" * 2 * HALF_BYTES

        # Whose uploads have expired may begin as many again.
        for n in range(3):
            begun(connection, f"calls/again-{n}.mp3", 10)
        connection.send(begin("calls/too-many.mp3", 10))
        assert connection.answer().status == 429
    lies = Counter(name.partition(".")[2] for name in os.listdir(uploads))
    # Of what is stored the record, and which file it is.
    assert lies == {"bytes": 4, "json": 4, "stored": 1, "etag": 1}


SPARE_BYTES, EACH_BYTES = 2 << 20, 2048  # of memory


@pytest.mark.parametrize("many", [300, pytest.param(2000, marks=pytest.mark.long)])
def test_unfinished_uploads_cost_no_descriptor_and_hardly_any_memory(
    serve: Callable[..., Process], many: int
) -> None:
    service = serve("--max-unfinished", "5000", "--no-durable")
    with service.connect() as connection:
        for n in range(100):  # so that what is made once is made
            begun(connection, f"first/{n}.mp3", 10)
        before = connection.ask("GET", "/health").json
        for n in range(many):
            sent = b"12345" if n % 2 else b""
            connection.send(begin(f"many/{n}.mp3", 10, sent))
            answer = connection.answer()
            assert (answer.status, answer.headers["Upload-Offset"]) == (201, str(len(sent)))
        after = connection.ask("GET", "/health").json
    grown = after["memory"]["resident"] - before["memory"]["resident"]
    print(f"{many} unfinished uploads: {grown >> 10} KiB, {grown // many} bytes each")
    assert after["descriptors"] == before["descriptors"]
    assert grown < SPARE_BYTES + many * EACH_BYTES

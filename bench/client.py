"""
The load of uploads and of small requests: raw sockets, cheap enough not to be what is measured.

Every answer is checked; what reads large files is in reader.py. The functions are meant to run in a
process of their own and report the CPU seconds that they used there.
"""

from __future__ import annotations

import itertools
import json
import resource
import selectors
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes

from content import Content, mp3, wav
from figures import percentile

DIRECTORY = "bench"
# The slowest peer takes a minute over a large form before it says a word.
TIMEOUT_S = 300.0
_SUCCESSES = (200, 201, 204)
_BOUNDARY = "benchmark-7d1f0c5be2a94d63"
_RECEIVE_BYTES = 1 << 16


class UnexpectedAnswerError(Exception):
    """The server answered with something else than a success, or not as this client expects."""


@dataclass(frozen=True)
class Transfer:
    """What moving files took: from the first connect to the end of the last answer."""

    size_bytes: int
    seconds: float
    client_cpu_s: float


@dataclass(frozen=True)
class Latencies:
    """How many requests were answered in a time, and how long they took."""

    count: int
    seconds: float
    client_cpu_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


@dataclass(frozen=True)
class Upload:
    """
    One request in pieces: what comes before the blocks of the file, these as sent, the rest.

    :ivar is_audio: whether the service is to find no fault with the file as audio.
    """

    head: bytes
    block: bytes
    repeats: int
    tail: bytes
    is_audio: bool

    def pieces(self) -> Iterator[bytes]:
        """The request from its first byte to its last."""
        yield self.head
        for _ in range(self.repeats):
            yield self.block
        yield self.tail


@dataclass(frozen=True)
class Head:
    """
    The head of an answer.

    :ivar headers: names and values in lower case.
    :ivar size_bytes: its length, with the empty line that ends it.
    """

    status: int
    headers: dict[bytes, bytes]
    size_bytes: int


def parse_head(received: bytes | bytearray) -> Head | None:
    """The head that an answer begins with, None while it is incomplete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    start_line, *lines = bytes(received[:end]).split(b"\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip().lower()
    return Head(int(start_line.split()[1]), headers, end + 4)


class Answer:
    """One HTTP answer, fed as it arrives; with a length, or in chunks without trailers."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._total_bytes: int | None = None
        self._chunked = False
        self._status = 0

    @property
    def received(self) -> bytes:
        """All that was fed."""
        return bytes(self._received)

    def feed(self, data: bytes) -> bool:
        """
        Take what arrived.

        :returns: whether the answer is complete.
        :raises UnexpectedAnswerError: when the connection ended early, or the complete answer is
            no success.
        """
        if not data:
            raise UnexpectedAnswerError(f"the answer ended early: {bytes(self._received[:300])!r}")
        self._received += data
        if not self._status:
            self._read_head()
        if not self._status or not self._is_complete():
            return False
        if self._status not in _SUCCESSES:
            raise UnexpectedAnswerError(bytes(self._received[:600]).decode("latin-1"))
        return True

    def _read_head(self) -> None:
        head = parse_head(self._received)
        if head is None:
            return
        self._status = head.status
        if head.headers.get(b"transfer-encoding") == b"chunked":
            self._chunked = True
        elif b"content-length" in head.headers:
            self._total_bytes = head.size_bytes + int(head.headers[b"content-length"])
        elif self._status == 204:
            self._total_bytes = head.size_bytes
        else:
            raise UnexpectedAnswerError(f"an answer without a length: {bytes(self._received)!r}")

    def _is_complete(self) -> bool:
        if self._chunked:
            return self._received.endswith(b"0\r\n\r\n")
        return self._total_bytes is not None and len(self._received) >= self._total_bytes


def content_of(kind: str, size_bytes: int) -> Content:
    """The file that an upload of a kind stores."""
    match kind:
        case "put-wav":
            return wav(size_bytes)
        case "put-mp3":
            return mp3(size_bytes)
        case _:
            return Content(size_bytes)


def extension_of(kind: str) -> str:
    """How the name ends of a file that an upload of a kind stores."""
    return "mp3" if kind == "put-mp3" else "wav"


def build_upload(kind: str, port: int, filename: str, size_bytes: int) -> Upload:
    """
    An upload of a file of *size_bytes*: as a ``multipart`` or ``urlencoded`` form, by ``put``, or
    by ``put-wav`` or ``put-mp3``, a PUT of true audio; the others send noise without a header.
    """
    content = content_of(kind, size_bytes)
    block, rest = content.block, content.rest
    target, content_type, before, after = "/media", "", content.header, b""
    match kind:
        case "multipart":
            content_type = f"multipart/form-data; boundary={_BOUNDARY}"
            before = (
                f"--{_BOUNDARY}\r\n"
                f'Content-Disposition: form-data; name="{DIRECTORY}"; filename="{filename}"\r\n'
                "Content-Type: audio/wav\r\n\r\n"
            ).encode()
            after = f"\r\n--{_BOUNDARY}--\r\n".encode()
        case "urlencoded":
            content_type = "application/x-www-form-urlencoded"
            before = f"directory={DIRECTORY}&filename={filename}&body=".encode()
            block, rest = (quote_from_bytes(data, safe="").encode() for data in (block, rest))
        case "put" | "put-wav" | "put-mp3":
            target, content_type = f"/media/{DIRECTORY}/{filename}", "application/octet-stream"
        case _:
            raise ValueError(f"no such kind of upload: {kind}")
    method = "POST" if target == "/media" else "PUT"
    tail = rest + after
    length = len(before) + content.repeats * len(block) + len(tail)
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()
    return Upload(head + before, block, content.repeats, tail, kind in ("put-wav", "put-mp3"))


def upload(kind: str, port: int, filename: str, size_bytes: int) -> Transfer:
    """Store one file on a new connection."""
    return uploads_at_once(kind, port, [filename], size_bytes)


def uploads_at_once(kind: str, port: int, filenames: Sequence[str], size_bytes: int) -> Transfer:
    """Store several files of the same size at the same time, each on a new connection."""
    uploads = [build_upload(kind, port, filename, size_bytes) for filename in filenames]

    def send(number: int) -> int:
        _send(port, uploads[number])
        return size_bytes

    return measured(len(uploads), send)


def uploads_until(
    kind: str, port: int, root: Path, size_bytes: int, clients: int, end_s: float
) -> Transfer:
    """
    Have some clients store one file after the other until a moment; the last ones are completed.

    A stored file is deleted at once, so that the disk holds few of them at a time.

    :param root: the folder of the server's files.
    :param end_s: the moment, on the monotonic clock.
    """

    def send(number: int) -> int:
        count = 0
        while time.monotonic() < end_s:
            filename = f"large-{number}-{count}.wav"
            _send(port, build_upload(kind, port, filename, size_bytes))
            (root / DIRECTORY / filename).unlink()
            count += 1
        return count * size_bytes

    return measured(clients, send)


def measured(threads: int, work: Callable[[int], int]) -> Transfer:
    """Run *work*, which gives the bytes that it moved, in some threads at once."""
    cpu, start = cpu_s(resource.RUSAGE_SELF), time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        moved_bytes = sum(pool.map(work, range(threads)))
    return Transfer(moved_bytes, time.monotonic() - start, cpu_s(resource.RUSAGE_SELF) - cpu)


def _send(port: int, request: Upload) -> None:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        try:
            for piece in request.pieces():
                connection.sendall(piece)
        except ConnectionError:
            # Refused before the end: what the server said is of more use than the broken pipe.
            _receive(connection)
            raise
        answer = _receive(connection)
    if request.is_audio and b'"audio"' in answer:
        raise UnexpectedAnswerError(f"a fault was found with true audio: {answer!r}")


def _receive(connection: socket.socket) -> bytes:
    answer = Answer()
    while not answer.feed(connection.recv(_RECEIVE_BYTES)):
        pass
    return answer.received


def get_request(port: int, filename: str) -> bytes:
    """A request for one file of the folder."""
    return (
        f"GET /media/{DIRECTORY}/{filename} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    ).encode()


def small_gets(port: int, filename: str, seconds: float, interval_s: float) -> Latencies:
    """
    Read one small file again and again on one connection, at most once each *interval_s*.

    A request waits for the answer before it; what was not asked meanwhile is not made up for.
    """
    request = get_request(port, filename)
    latencies: list[float] = []
    cpu, start = cpu_s(resource.RUSAGE_SELF), time.monotonic()
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        while (asked := time.monotonic()) < start + seconds:
            connection.sendall(request)
            _receive(connection)
            answered = time.monotonic()
            latencies.append(answered - asked)
            time.sleep(max(0.0, asked + interval_s - answered))
    return _latencies(latencies, time.monotonic() - start, cpu_s(resource.RUSAGE_SELF) - cpu)


def small_uploads(kind: str, port: int, size_bytes: int, clients: int, seconds: float) -> Latencies:
    """Store small files under new names from keep-alive clients that wait for each answer."""
    extension = extension_of(kind)
    uploads = (
        b"".join(build_upload(kind, port, f"small-{number}.{extension}", size_bytes).pieces())
        for number in itertools.count(1)
    )
    return _keep_asking(port, uploads, clients, seconds)


def small_gets_at_once(port: int, filename: str, clients: int, seconds: float) -> Latencies:
    """Read one small file from keep-alive clients that wait for each answer."""
    return _keep_asking(port, itertools.repeat(get_request(port, filename)), clients, seconds)


def _keep_asking(port: int, requests: Iterator[bytes], clients: int, seconds: float) -> Latencies:
    selector = selectors.DefaultSelector()
    latencies: list[float] = []
    sent_at: dict[socket.socket, float] = {}
    answers: dict[socket.socket, Answer] = {}

    def send_next(connection: socket.socket) -> None:
        answers[connection] = Answer()
        sent_at[connection] = time.monotonic()
        connection.sendall(next(requests))

    cpu, start = cpu_s(resource.RUSAGE_SELF), time.monotonic()
    try:
        for _ in range(clients):
            connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            selector.register(connection, selectors.EVENT_READ, connection)
            send_next(connection)
        open_connections = clients
        while open_connections:
            ready = selector.select(TIMEOUT_S)
            if not ready:
                raise UnexpectedAnswerError(f"no answer in {TIMEOUT_S:.0f} s")
            for key, _ in ready:
                connection = key.data
                if not answers[connection].feed(connection.recv(_RECEIVE_BYTES)):
                    continue
                now = time.monotonic()
                latencies.append(now - sent_at[connection])
                if now < start + seconds:
                    send_next(connection)
                else:
                    selector.unregister(connection)
                    open_connections -= 1
    finally:
        for connection in sent_at:
            connection.close()
        selector.close()
    return _latencies(latencies, time.monotonic() - start, cpu_s(resource.RUSAGE_SELF) - cpu)


def small_uploads_by_wrk(
    wrk: str, kind: str, port: int, size_bytes: int, clients: int, seconds: int
) -> Latencies:
    """Store small files as :func:`small_uploads` does with a kind of PUT, by the program *wrk*."""
    with tempfile.NamedTemporaryFile() as content:
        content.writelines(content_of(kind, size_bytes).pieces())
        content.flush()
        given = [f"/media/{DIRECTORY}/small-", f".{extension_of(kind)}", content.name]
        return _by_wrk(wrk, port, clients, seconds, given)


def small_gets_by_wrk(wrk: str, port: int, filename: str, clients: int, seconds: int) -> Latencies:
    """Read one small file as :func:`small_gets_at_once` does, by the program *wrk*."""
    return _by_wrk(wrk, port, clients, seconds, [f"/media/{DIRECTORY}/{filename}"])


def _by_wrk(wrk: str, port: int, clients: int, seconds: int, given: list[str]) -> Latencies:
    script = Path(__file__).with_name("small.lua")
    cpu = cpu_s(resource.RUSAGE_CHILDREN)
    load = ["--threads=1", f"--connections={clients}", f"--duration={seconds}s"]
    limit = f"--timeout={TIMEOUT_S:.0f}s"
    command = [wrk, *load, limit, f"--script={script}", f"http://127.0.0.1:{port}", "--", *given]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    if seen.pop("failures"):
        raise UnexpectedAnswerError(
            f"not every request was answered with a success:\n{done.stdout}"
        )
    return Latencies(client_cpu_s=cpu_s(resource.RUSAGE_CHILDREN) - cpu, **seen)


def _latencies(latencies_s: list[float], seconds: float, client_cpu_s: float) -> Latencies:
    ordered = sorted(latency * 1000 for latency in latencies_s)
    return Latencies(
        count=len(ordered),
        seconds=seconds,
        client_cpu_s=client_cpu_s,
        p50_ms=percentile(ordered, 50),
        p99_ms=percentile(ordered, 99),
        p999_ms=percentile(ordered, 99.9),
        max_ms=ordered[-1],
    )


def cpu_s(who: int) -> float:
    """The CPU seconds that this process (``RUSAGE_SELF``) or its ended children have used."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime

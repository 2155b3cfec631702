"""
The load: uploads and downloads over raw sockets, cheap enough not to be what is measured.

Bodies are one random block sent again and again, so a large one costs neither memory nor time to
make. Every answer is checked. The functions are meant to run in a process of their own and report
the CPU seconds that they used there.
"""

from __future__ import annotations

import itertools
import json
import random
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

from figures import percentile

DIRECTORY = "bench"
BLOCK = random.Random(1).randbytes(1 << 20)
# The slowest peer takes a minute over a large form before it says a word.
TIMEOUT_S = 300.0
_SUCCESSES = (200, 201, 204)
_BOUNDARY = "benchmark-7d1f0c5be2a94d63"
_RECEIVE_BYTES = 1 << 16


class UnexpectedAnswerError(Exception):
    """The server answered with something else than a success, or not as this client expects."""


@dataclass(frozen=True)
class Sent:
    """What an upload or several took: from the first connect to the last answer."""

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
    """One request in pieces: what comes before the file, the file as it is sent, the rest."""

    head: bytes
    block: bytes
    repeats: int
    tail: bytes

    def pieces(self) -> Iterator[bytes]:
        """The request from its first byte to its last."""
        yield self.head
        for _ in range(self.repeats):
            yield self.block
        yield self.tail


class Answer:
    """One HTTP answer, fed as it arrives; with a length, or in chunks without trailers."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._total_bytes: int | None = None
        self._chunked = False
        self._status = 0

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
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        start_line, *lines = bytes(self._received[:end]).split(b"\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip().lower()
        self._status = int(start_line.split()[1])
        if headers.get(b"transfer-encoding") == b"chunked":
            self._chunked = True
        elif b"content-length" in headers:
            self._total_bytes = end + 4 + int(headers[b"content-length"])
        elif self._status == 204:
            self._total_bytes = end + 4
        else:
            raise UnexpectedAnswerError(f"an answer without a length: {bytes(self._received)!r}")

    def _is_complete(self) -> bool:
        if self._chunked:
            return self._received.endswith(b"0\r\n\r\n")
        return self._total_bytes is not None and len(self._received) >= self._total_bytes


def build_upload(kind: str, port: int, filename: str, size_bytes: int) -> Upload:
    """
    An upload of a file of *size_bytes*: as a ``multipart`` or ``urlencoded`` form, or by ``put``.

    :param size_bytes: a multiple of the block, or less than one block.
    """
    file_block = BLOCK if size_bytes >= len(BLOCK) else BLOCK[:size_bytes]
    repeats, rest = divmod(size_bytes, len(file_block))
    if rest:
        raise ValueError(f"{size_bytes} is not a multiple of {len(BLOCK)}")
    target, content_type, before, block, after = "/media", "", b"", file_block, b""
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
            block = quote_from_bytes(file_block, safe="").encode()
        case "put":
            target, content_type = f"/media/{DIRECTORY}/{filename}", "audio/wav"
        case _:
            raise ValueError(f"no such kind of upload: {kind}")
    method = "PUT" if kind == "put" else "POST"
    length = len(before) + repeats * len(block) + len(after)
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()
    return Upload(head + before, block, repeats, after)


def upload(kind: str, port: int, filename: str, size_bytes: int) -> Sent:
    """Store one file on a new connection."""
    return uploads_at_once(kind, port, [filename], size_bytes)


def uploads_at_once(kind: str, port: int, filenames: Sequence[str], size_bytes: int) -> Sent:
    """Store several files of the same size at the same time, each on a new connection."""
    uploads = [build_upload(kind, port, filename, size_bytes) for filename in filenames]

    def send(number: int) -> int:
        _send(port, uploads[number])
        return size_bytes

    return _measured(len(uploads), send)


def uploads_until(
    kind: str, port: int, root: Path, size_bytes: int, clients: int, end_s: float
) -> Sent:
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

    return _measured(clients, send)


def _measured(threads: int, work: Callable[[int], int]) -> Sent:
    """Run *work*, which gives the bytes that it stored, in some threads at once."""
    cpu, start = _cpu_s(resource.RUSAGE_SELF), time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        stored_bytes = sum(pool.map(work, range(threads)))
    return Sent(stored_bytes, time.monotonic() - start, _cpu_s(resource.RUSAGE_SELF) - cpu)


def _send(port: int, request: Upload) -> None:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        try:
            for piece in request.pieces():
                connection.sendall(piece)
        except ConnectionError:
            # Refused before the end: what the server said is of more use than the broken pipe.
            _receive(connection)
            raise
        _receive(connection)


def _receive(connection: socket.socket) -> None:
    answer = Answer()
    while not answer.feed(connection.recv(_RECEIVE_BYTES)):
        pass


def small_gets(port: int, filename: str, seconds: float, interval_s: float) -> Latencies:
    """
    Read one small file again and again on one connection, at most once each *interval_s*.

    A request waits for the answer before it; what was not asked meanwhile is not made up for.
    """
    request = (
        f"GET /media/{DIRECTORY}/{filename} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    ).encode()
    latencies: list[float] = []
    cpu, start = _cpu_s(resource.RUSAGE_SELF), time.monotonic()
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        while (asked := time.monotonic()) < start + seconds:
            connection.sendall(request)
            _receive(connection)
            answered = time.monotonic()
            latencies.append(answered - asked)
            time.sleep(max(0.0, asked + interval_s - answered))
    return _latencies(latencies, time.monotonic() - start, _cpu_s(resource.RUSAGE_SELF) - cpu)


def small_uploads(kind: str, port: int, size_bytes: int, clients: int, seconds: float) -> Latencies:
    """Store small files under new names from keep-alive clients that wait for each answer."""
    selector = selectors.DefaultSelector()
    numbers = itertools.count(1)
    latencies: list[float] = []
    sent_at: dict[socket.socket, float] = {}
    answers: dict[socket.socket, Answer] = {}

    def send_next(connection: socket.socket) -> None:
        filename = f"small-{next(numbers)}.wav"
        request = b"".join(build_upload(kind, port, filename, size_bytes).pieces())
        answers[connection] = Answer()
        sent_at[connection] = time.monotonic()
        connection.sendall(request)

    cpu, start = _cpu_s(resource.RUSAGE_SELF), time.monotonic()
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
    return _latencies(latencies, time.monotonic() - start, _cpu_s(resource.RUSAGE_SELF) - cpu)


def small_puts_by_wrk(
    wrk: str, port: int, size_bytes: int, clients: int, seconds: int
) -> Latencies:
    """Store small files as :func:`small_uploads` does with ``put``, by the program *wrk*."""
    script = Path(__file__).with_name("small_put.lua")
    with tempfile.NamedTemporaryFile() as content:
        content.write(BLOCK[:size_bytes])
        content.flush()
        cpu = _cpu_s(resource.RUSAGE_CHILDREN)
        load = ["--threads=1", f"--connections={clients}", f"--duration={seconds}s"]
        limit = f"--timeout={TIMEOUT_S:.0f}s"
        command = [wrk, *load, limit, f"--script={script}", f"http://127.0.0.1:{port}"]
        script_arguments = ["--", f"/media/{DIRECTORY}/", content.name]
        done = subprocess.run(
            [*command, *script_arguments], check=True, capture_output=True, text=True
        )
    seen = json.loads(done.stdout.splitlines()[-1])
    if seen.pop("failures"):
        raise UnexpectedAnswerError(
            f"not every request was answered with a success:\n{done.stdout}"
        )
    return Latencies(client_cpu_s=_cpu_s(resource.RUSAGE_CHILDREN) - cpu, **seen)


def verify(path: Path, size_bytes: int) -> None:
    """
    Check that the file at *path* is what an upload of *size_bytes* sent.

    :raises ValueError: when its length, its first block or its last block is not.
    """
    found = path.stat().st_size
    if found != size_bytes:
        raise ValueError(f"the stored file has {found} bytes, {size_bytes} were sent")
    block = BLOCK[:size_bytes]
    with open(path, "rb") as file:
        first = file.read(len(block))
        file.seek(-len(block), 2)
        if first != block or file.read() != block:
            raise ValueError("the stored file has not the bytes that were sent")


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


def _cpu_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime

"""Imports of large files: memory stays flat, whoever is slower, and what breaks off is mended."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from random import Random
from shutil import rmtree

import pytest

from tests.process.running import Process, running

MIB, GIB = 1 << 20, 1 << 30
MOST_MEMORY = 96 * MIB
PATIENCE_S = 300.0
BLOCK = Random(11).randbytes(MIB)

pytestmark = pytest.mark.long


def digest_of(size: int) -> str:
    """The SHA-256 of what an upstream sends."""
    digest = hashlib.sha256()
    for _ in range(size // MIB):
        digest.update(BLOCK)
    return digest.hexdigest()


class Upstream:
    """Sends a file of `size` bytes, a multiple of a MiB, no faster than `mib_per_s`. It breaks off
    where `breaks` says, once at each, and resumes.
    """

    def __init__(self, size: int, mib_per_s: float | None = None, breaks: tuple[int, ...] = ()):
        self.size = size
        self.asked: list[str] = []
        self._pause_s = 0.0 if mib_per_s is None else 1 / mib_per_s
        self._breaks = list(breaks)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/large.wav"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                with closing(connection), suppress(ConnectionError):
                    self._respond(connection)

    def _respond(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
        lines = head.decode().lower().split("\r\n")
        wanted = [line.split(": ")[1] for line in lines if line.startswith("range:")]
        self.asked += wanted or ["all"]
        start = int(wanted[0].removeprefix("bytes=").rstrip("-")) if wanted else 0
        status = "206 Partial Content" if wanted else "200 OK"
        where = f"Content-Range: bytes {start}-{self.size - 1}/{self.size}\r\n" if wanted else ""
        connection.sendall(
            f'HTTP/1.1 {status}\r\nETag: "v1"\r\n{where}'
            f"Content-Length: {self.size - start}\r\n\r\n".encode()
        )
        end = self._breaks.pop(0) if self._breaks else self.size
        while start < end:
            piece = BLOCK[start % MIB :][: end - start]
            connection.sendall(piece)
            start += len(piece)
            time.sleep(self._pause_s)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Call it for a service of the test's own; what it stores is removed."""
    with ExitStack() as services:
        services.callback(rmtree, tmp_path / "area")
        root = tmp_path / "area" / "media"
        yield lambda: services.enter_context(running(root, "--fetch-allow", "127.0.0.1"))


@pytest.mark.parametrize(
    ("size", "mib_per_s", "breaks"),
    [
        (GIB, None, ()),
        (256 * MIB, 25.0, ()),
        (GIB, None, (300 * MIB + 1, 700 * MIB - 1)),
    ],
    ids=["faster than the disk", "slower than the disk", "cut off twice"],
)
def test_a_large_import_is_whole_and_memory_stays_flat(
    start: Callable[[], Process], size: int, mib_per_s: float | None, breaks: tuple[int, ...]
) -> None:
    """Case 22, and the way of the bytes: an upstream cannot fill the memory."""
    service = start()
    with closing(Upstream(size, mib_per_s, breaks)) as upstream, service.connect(PATIENCE_S) as it:
        content = f"url={upstream.url}&directory=large".encode()
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = it.ask("POST", "/media", content, form)
        assert answer.brief == (201, 200), answer
        entry = answer.files[0]
        assert (entry["size"], entry["sha256"]) == (size, digest_of(size))
        assert upstream.asked == ["all", *(f"bytes={at}-" for at in breaks)]
    with (service.root / "large" / "large.wav").open("rb") as stored:
        assert hashlib.file_digest(stored, "sha256").hexdigest() == entry["sha256"]
    assert service.peak_memory() < MOST_MEMORY
    print(f"peak RSS {service.peak_memory() / MIB:.0f} MiB")

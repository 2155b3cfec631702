"""Large files and forms: where 32 bits end nothing changes, and memory stays flat."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from shutil import rmtree

import pytest

from tests.process.exchange import CLOSING, MULTIPART, Answer, Connection, head, part
from tests.process.running import Process, running

MIB, GIB = 1 << 20, 1 << 30
MOST_MEMORY = 96 * MIB
PATIENCE_S = 600.0

pytestmark = pytest.mark.long


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Call it for a service of the test's own that takes large files; what it stores is removed."""
    with ExitStack() as services:
        services.callback(rmtree, tmp_path / "area")

        def start() -> Process:
            root = tmp_path / "area" / "media"
            limits = ["--max-upload", "8GiB", "--max-form", "8GiB"]
            return services.enter_context(running(root, *limits))

        yield start


class Sparse:
    """A large file that takes no room: zeros, and some bytes here and there that are none."""

    def __init__(self, path: Path, size: int, marked: list[int]) -> None:
        self.path = path
        self.size = size
        random = Random(size)
        with path.open("wb") as file:
            file.truncate(size)
            for at in marked:
                file.seek(at)
                file.write(random.randbytes(32)[: size - at])

    def read(self, start: int, end: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def send(self, connection: Connection) -> None:
        with self.path.open("rb") as file:
            assert connection.socket.sendfile(file) == self.size

    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("boundary", [2 * GIB, 4 * GIB], ids=["2GiB", "4GiB"])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_sizes_round_where_32_bits_end_are_sizes_like_others(
    large: Callable[[], Process], tmp_path: Path, boundary: int, beyond: int
) -> None:
    """Case 6."""
    size = boundary + beyond
    middle = size // 2
    file = Sparse(tmp_path / "sparse", size, [0, 2 * GIB - 16, middle, boundary - 16, size - 5])
    service = large()
    with ThreadPoolExecutor(1) as other, service.connect(PATIENCE_S) as connection:
        expected = other.submit(file.sha256)
        connection.send(head("PUT", "/media/sizes/a.wav", [("Content-Length", str(size))]))
        file.send(connection)
        answer = connection.answer()
        assert answer.brief == (201, 200), answer
        (entry,) = answer.files
        assert entry["size"] == size
        assert entry["sha256"] == expected.result()
        assert (service.root / "sizes" / "a.wav").stat().st_size == size
        told = connection.ask("HEAD", "/media/sizes/a.wav")
        assert (told.status, told.headers["Content-Length"]) == (200, str(size))
        ranges = [(boundary - 40, size), (middle - 8, middle + 40), (size - 1, size), (0, 40)]
        for start, end in [*ranges, (2 * GIB - 40, min(2 * GIB + 40, size))]:
            asked = {"Range": f"bytes={start}-{end - 1}"}
            got = connection.ask("GET", "/media/sizes/a.wav", headers=asked)
            assert got.status == 206
            assert got.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
            assert got.content == file.read(start, end)
        got = connection.ask("GET", "/media/sizes/a.wav", headers={"Range": f"bytes={size}-"})
        assert got.status == 416
        assert got.headers["Content-Range"] == f"bytes */{size}"
        with service.connect(PATIENCE_S) as reader:
            reader.send(head("GET", "/media/sizes/a.wav"))
            assert reader.answer_head()[0] == 200
            assert digest_of(reader, size) == entry["sha256"]
        assert connection.ask("DELETE", "/media/sizes/a.wav").json["deleted"] is True
    assert service.tree() == []
    assert service.peak_memory() < MOST_MEMORY


def digest_of(connection: Connection, size: int) -> str:
    """The hash of the next `size` bytes."""
    digest = hashlib.sha256()
    while size:
        piece = connection.read(min(size, MIB))
        assert piece, f"{size} bytes are missing"
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


def send_form(service: Process, file: Sparse, name: str) -> Answer:
    """`file` as the one part of a multipart form."""
    directory, _, filename = name.rpartition("/")
    opening = part(directory, filename, b"").removesuffix(b"\r\n")
    ending = b"\r\n" + CLOSING
    length = str(len(opening) + file.size + len(ending))
    fields = [("Content-Type", MULTIPART), ("Content-Length", length)]
    with service.connect(PATIENCE_S) as connection:
        connection.send(head("POST", "/media", fields) + opening)
        file.send(connection)
        connection.send(ending)
        return connection.answer()


def send_put(service: Process, file: Sparse, name: str) -> Answer:
    with service.connect(PATIENCE_S) as connection:
        connection.send(head("PUT", f"/media/{name}", [("Content-Length", str(file.size))]))
        file.send(connection)
        return connection.answer()


def send_chunked(service: Process, file: Sparse, name: str) -> Answer:
    with service.connect(PATIENCE_S) as connection, file.path.open("rb") as content:
        connection.send(head("PUT", f"/media/{name}", [("Transfer-Encoding", "chunked")]))
        while piece := content.read(MIB // 4):
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.send(b"0\r\n\r\n")
        return connection.answer()


def send_fields(service: Process, file: Sparse, name: str) -> Answer:
    """As an urlencoded form, in which every byte of the file but a few takes three."""
    directory, _, filename = name.rpartition("/")
    opening = f"directory={directory}&filename={filename}&body=".encode()
    zeros = b"%00" * (MIB // 4)
    with service.connect(PATIENCE_S) as connection, file.path.open("rb") as content:
        fields = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Length", str(len(opening) + 3 * file.size)),
        ]
        connection.send(head("POST", "/media", fields) + opening)
        while piece := content.read(MIB // 4):
            empty = not piece.strip(b"\0")
            connection.send(
                zeros[: 3 * len(piece)] if empty else b"".join(b"%%%02x" % byte for byte in piece)
            )
        return connection.answer()


def test_a_form_of_4_gib_does_not_show_in_memory(
    large: Callable[[], Process], tmp_path: Path
) -> None:
    """Case 15."""
    file = Sparse(tmp_path / "sparse", 4 * GIB, [0, 2 * GIB - 16, 4 * GIB - 20])
    service = large()
    with ThreadPoolExecutor(1) as other:
        expected = other.submit(file.sha256)
        answer = send_form(service, file, "forms/a.wav")
        assert answer.brief == (201, 200), answer
        assert answer.files[0]["sha256"] == expected.result()
    assert service.peak_memory() < MOST_MEMORY


@pytest.mark.parametrize("send", [send_chunked, send_fields])
def test_a_gib_by_the_other_ways_does_not_show_in_memory_either(
    large: Callable[[], Process],
    tmp_path: Path,
    send: Callable[[Process, Sparse, str], Answer],
) -> None:
    """Case 15."""
    file = Sparse(tmp_path / "sparse", GIB, [0, GIB // 2 - 16, GIB - 20])
    service = large()
    answer = send(service, file, "others/a.wav")
    assert answer.brief == (201, 200), answer
    assert answer.files[0]["sha256"] == file.sha256()
    assert service.peak_memory() < MOST_MEMORY


@pytest.mark.parametrize(("send", "count"), [(send_form, 50), (send_put, 20)])
def test_many_large_uploads_at_once_do_not_show_in_memory(
    large: Callable[[], Process],
    tmp_path: Path,
    send: Callable[[Process, Sparse, str], Answer],
    count: int,
) -> None:
    """Case 15."""
    file = Sparse(tmp_path / "sparse", 100 * MIB, [0, 50 * MIB, 100 * MIB - 20])
    service = large()
    line = threading.Barrier(count, timeout=60)

    def upload(n: int) -> Answer:
        line.wait()
        return send(service, file, f"many/{n}/a.wav")

    with ThreadPoolExecutor(count) as clients:
        answers = list(clients.map(upload, range(count)))
    assert [answer.brief for answer in answers] == [(201, 200)] * count, json.dumps(
        [answer.json for answer in answers]
    )
    assert {answer.files[0]["sha256"] for answer in answers} == {file.sha256()}
    assert len({answer.files[0]["url"] for answer in answers}) == count
    assert service.peak_memory() < MOST_MEMORY

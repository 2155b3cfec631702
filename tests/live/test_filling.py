"""A disk with little space, and uploads of all kinds at once: each is stored whole or refused."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from urllib.parse import urlencode

from tests.live.conftest import Disk
from tests.live.test_tus import TUS, begin, part_head
from tests.live.upstream import content_of, upstream
from tests.process.exchange import (
    MULTIPART,
    URLENCODED,
    Connection,
    chunked,
    form,
    head,
    part,
    request,
    urlencoded,
)
from tests.process.running import Process, drafts_in, eventually, running

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 4 * KIB
DISK = 24 * MIB
LEVELS = [0, 4, 8, 12, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 12288, 16384]  # KiB
KINDS = ("put", "chunked", "form", "urlencoded", "tus", "import")
EACH = 3
LEAST, MOST = 1_000, 2 * MIB
# A record of each resumable upload, with what belongs to it, stays for a while.
RECORDS = 4 * BLOCK


class Upload:
    """One of a kind, and what became of it."""

    def __init__(self, kind: str, number: int, random: Random, port: int) -> None:
        self.kind = kind
        self.name = f"{kind}/{number}/a.wav"
        self.size = round(LEAST * (MOST / LEAST) ** random.random())
        self.seed = random.randrange(1 << 32)
        self.told: tuple[int, int] | None = None
        self.target: str | None = None
        self._port = port

    @property
    def content(self) -> bytes:
        return content_of(self.seed, self.size)

    def run(self, service: Process) -> None:
        with service.connect(60.0) as connection:
            if self.kind == "tus":
                self.told = self._by_tus(connection)
                return
            with suppress(BrokenPipeError, ConnectionResetError):  # refused, and told why
                connection.send(self._request())
            self.told = connection.answer().brief

    def _by_tus(self, connection: Connection) -> tuple[int, int]:
        connection.send(begin(self.name, self.size))
        answer = connection.answer()
        if answer.status != 201:
            return answer.brief
        self.target = str(answer.headers["Location"])
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.send(part_head(self.target, 0, self.size) + self.content)
        answer = connection.answer()
        return (201, 200) if answer.status == 204 else answer.brief

    def _request(self) -> bytes:
        directory, _, filename = self.name.rpartition("/")
        content = self.content
        match self.kind:
            case "put":
                return request("PUT", f"/media/{self.name}", content)
            case "chunked":
                fields = [("Transfer-Encoding", "chunked")]
                pieces = [content[at : at + 50_000] for at in range(0, self.size, 50_000)]
                return head("PUT", f"/media/{self.name}", fields) + chunked(pieces)
            case "form":
                sent = form(part(directory, filename, content))
                return request("POST", "/media", sent, {"Content-Type": MULTIPART})
            case "urlencoded":
                names = (("directory", directory), ("filename", filename))
                sent = urlencoded(*names, ("body", content))
            case _:
                url = f"http://127.0.0.1:{self._port}/{self.seed}/{self.size}"
                sent = urlencode(
                    {"url": url, "directory": directory, "filename": filename}
                ).encode()
        return request("POST", "/media", sent, {"Content-Type": URLENCODED})


def has_free(disk: Disk, size: int) -> bool:
    return disk.free[0] * BLOCK >= size


def together(service: Process, uploads: list[Upload]) -> None:
    """All of them at once."""
    faults: list[BaseException] = []

    def run(upload: Upload) -> None:
        try:
            upload.run(service)
        except BaseException as fault:  # noqa: BLE001  # the test is told
            fault.add_note(upload.name)
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(upload,)) for upload in uploads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
        assert not thread.is_alive()
    assert faults == []


def test_at_every_level_of_free_space_uploads_are_stored_whole_or_refused(
    small_disk: Callable[..., Disk],
) -> None:
    """Cases 10 and 11."""
    disk = small_disk(f"size={DISK},nr_inodes=100k")
    random = Random(10)
    told: Counter[tuple[int, int] | None] = Counter()
    with upstream() as port, running(disk.path, "--fetch-allow", "127.0.0.1") as service:
        for level in LEVELS:
            with (disk.path / "filler").open("wb", buffering=0) as filler:
                filler.truncate(0)
                while disk.free[0] * BLOCK > level * KIB:
                    filler.write(bytes(BLOCK))
            free = disk.free[0] * BLOCK
            kinds = [kind for kind in KINDS for _ in range(EACH)]
            uploads = [Upload(kind, n, random, port) for n, kind in enumerate(kinds)]
            together(service, uploads)
            told.update(upload.told for upload in uploads)
            for upload in uploads:
                path = disk.path / upload.name
                if upload.told == (201, 200):
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                    assert digest == hashlib.sha256(upload.content).hexdigest(), upload.name
                else:
                    assert upload.told == (507, 507), (upload.name, level)
                    assert not path.exists(), (upload.name, level)
            assert drafts_in(disk.path) == []
            for upload in uploads:
                if upload.told == (201, 200):
                    answer = service.ask("DELETE", f"/media/{upload.name}")
                    assert answer.json["deleted"] is True, upload.name
                elif upload.target is not None:
                    assert service.ask("DELETE", upload.target, None, TUS).status == 204
            least = free - EACH * RECORDS
            eventually("what they took is free", partial(has_free, disk, least))
            (disk.path / "filler").unlink()
            assert service.tree() == []
        assert service.ask("PUT", "/media/next/a.wav", b"RIFF").status == 201
    print(told)
    assert min(told.values()) > 20, told

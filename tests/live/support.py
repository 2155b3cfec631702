"""What the live tests share: curl, contents that their names tell, and a service that is killed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.process.exchange import MULTIPART, URLENCODED, form, part, request, urlencoded
from tests.process.running import Process, drafts_in, tree_of

UPLOADERS = 6
LIVES_S = 1.5  # at most, before a service is killed


def clean_environment() -> dict[str, str]:
    """Ours, without proxies."""
    return {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}


@dataclass(frozen=True)
class Curled:
    """What came of a call of curl: its exit status, what it wrote, and what it counted."""

    exit: int
    content: bytes
    errors: str
    counted: dict[str, Any]

    @property
    def status(self) -> int:
        return int(self.counted["http_code"])

    @property
    def json(self) -> dict[str, Any]:
        value = json.loads(self.content)
        assert isinstance(value, dict), self
        return value

    @property
    def brief(self) -> tuple[int, int]:
        """Status and code."""
        return self.status, self.json["code"]

    @property
    def sent(self) -> int:
        """Bytes of content."""
        return int(self.counted["size_upload"])


def curl(*arguments: str, cwd: Path, stdin: Path | None = None, timeout_s: float = 60.0) -> Curled:
    """The program, with these arguments, in the folder `cwd`."""
    with (
        tempfile.TemporaryFile() as counted,
        (stdin or Path(os.devnull)).open("rb") as source,
    ):
        done = subprocess.run(
            ["curl", "-q", "-sS", "-w", "%{stderr}\n%{json}", *arguments],
            cwd=cwd,
            env=clean_environment(),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=counted,
            timeout=timeout_s,
            check=False,
        )
        counted.seek(0)
        errors, _, numbers = counted.read().decode("utf-8", "replace").rpartition("\n")
    return Curled(done.returncode, done.stdout, errors, json.loads(numbers))


def content_of(name: str, seed: int, least: int = 10_000, most: int = 8 << 20) -> bytes:
    """The content that belongs to `name`: whoever knows the seed can tell whether a file is
    whole. Sizes of every magnitude from `least` to `most` are as likely.
    """
    random = Random(f"{seed} {name}")
    size = round(least * (most / least) ** random.random())
    return random.randbytes(size)


class _Uploads:
    """Threads that upload until their service is gone."""

    def __init__(self, service: Process, directory: str, seed: int) -> None:
        self.acknowledged: dict[str, str] = {}  # names, and the hash that the answer told
        self.faults: list[BaseException] = []
        self._waiting = 0  # for the answer to a request that has been sent
        self._lock = threading.Lock()
        self._service = service
        self._directory = directory
        self._seed = seed
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(UPLOADERS)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many requests are sent and not answered."""
        return self._waiting

    def join(self) -> None:
        """Wait until all have found out that their service is gone."""
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self, thread: int) -> None:
        random = Random(f"{self._seed} {self._directory} {thread}")
        try:
            with self._service.connect() as connection:
                for n in range(10_000):
                    directory = f"{self._directory}/{thread}/{n % 3}"
                    names = [f"{n}-{i}.wav" for i in range(random.choice([1, 1, 1, 2, 3]))]
                    connection.send(self._request(random, directory, names))
                    self._wait(1)
                    try:
                        answer = connection.answer()
                    finally:
                        self._wait(-1)
                    assert answer.brief == (201, 200), answer
                    for entry in answer.files:
                        name = f"{entry['directory']}/{entry['filename']}"
                        self.acknowledged[name] = entry["sha256"]
        except (ConnectionError, AssertionError) as error:
            # An answer that the kill cut off is no answer; any other has to be a success.
            if isinstance(error, AssertionError) and "cut off" not in str(error):
                self.faults.append(error)

    def _wait(self, change: int) -> None:
        with self._lock:
            self._waiting += change

    def _request(self, random: Random, directory: str, names: list[str]) -> bytes:
        contents = [content_of(f"{directory}/{name}", self._seed) for name in names]
        way = random.choice(["put", "urlencoded", "multipart"])
        if len(names) > 1 or way == "multipart":
            parts = (part(directory, *each) for each in zip(names, contents, strict=True))
            return request("POST", "/media", form(*parts), {"Content-Type": MULTIPART})
        if way == "urlencoded":
            fields = (("directory", directory), ("filename", names[0]), ("body", contents[0]))
            return request("POST", "/media", urlencoded(*fields), {"Content-Type": URLENCODED})
        return request("PUT", f"/media/{directory}/{names[0]}", contents[0])


def killing_rounds(start: Callable[[], Process], rounds: int, seed: int) -> None:
    """Start a service on the same root again and again, upload to it in every way from several
    threads, and kill it at a random moment, mostly one in which answers are awaited. After each:

    - every file that was acknowledged is there and is what was sent;
    - every other one that is there is whole as well;
    - no draft is left once the next service has started, and that one serves them all.
    """
    random = Random(seed)
    acknowledged: dict[str, str] = {}
    unanswered = 0
    for number in range(rounds):
        service = start()
        uploads = _Uploads(service, f"round-{number}", seed)
        try:
            _await_the_moment(uploads, random)
        finally:
            service.kill()
            uploads.join()
        assert uploads.faults == []
        acknowledged |= uploads.acknowledged

        service = start()
        try:
            assert drafts_in(service.root) == []
            names = _files_of(service.root / f"round-{number}")
            stored = {f"round-{number}/{name}" for name in names}
            assert uploads.acknowledged.keys() <= stored
            unanswered += len(stored - uploads.acknowledged.keys())
            for name in stored:
                content = (service.root / name).read_bytes()
                assert content == content_of(name, seed), f"{name} is not whole"
                told = uploads.acknowledged.get(name)
                assert told in (None, hashlib.sha256(content).hexdigest())
            for name in random.sample(sorted(stored), min(3, len(stored))):
                assert service.ask("GET", f"/media/{name}").content == content_of(name, seed)
            assert service.ask("PUT", f"/media/round-{number}/again.wav", b"RIFF").status == 201
            acknowledged[f"round-{number}/again.wav"] = hashlib.sha256(b"RIFF").hexdigest()
        finally:
            service.kill()
    # What later kills might have done to earlier files.
    for name, told in acknowledged.items():
        with (service.root / name).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == told
    assert len(acknowledged) > 3 * rounds, "hardly anything was stored before the kills"
    print(f"{len(acknowledged)} files acknowledged, {unanswered} others whole")


def _await_the_moment(uploads: _Uploads, random: Random) -> None:
    never = threading.Event()
    never.wait(random.uniform(0.05, LIVES_S))
    if random.random() < 0.8:
        end = time.monotonic() + 5
        while not uploads.waiting and time.monotonic() < end:
            pass
        never.wait(random.choice([0, random.uniform(0, 0.002), random.uniform(0, 0.02)]))


def _files_of(folder: Path) -> list[str]:
    return [name for name in tree_of(folder) if (folder / name).is_file()]

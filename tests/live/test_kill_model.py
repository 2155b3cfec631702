"""kill -9 under changes of every kind, beside a model of what each name may hold afterwards."""

from __future__ import annotations

import hashlib
import os
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random, SystemRandom
from urllib.parse import urlencode

import pytest

from tests.live.test_tus import TUS, begin, part_head
from tests.live.upstream import content_of, upstream
from tests.process.exchange import MULTIPART, URLENCODED, Answer, Connection, form, part
from tests.process.running import Process, drafts_in, eventually, start, tree_of

CLIENTS = 5
NAMES = 4  # of each client, again and again
LONGEST_ROUND_S = 0.8
MOST_BYTES = 300_000
FEWEST = 3  # of each kind of change, acknowledged in all rounds


class Client:
    """
    Changes its names in every way.

    :ivar may_be: for each name what it may hold. Before the answer to a change that is what was
        there before and what is meant to be there; after it, one of them. None is no file.
    """

    def __init__(self, number: int, seed: int, upstream: int) -> None:
        self._random = Random(f"{seed} {number}")
        self._upstream = upstream
        # Folders of their own, so that they come and go with their file.
        self.may_be: dict[str, set[bytes | None]] = {
            f"{number}/{n}/deep/{n}.wav": {None} for n in range(NAMES)
        }
        self.acknowledged: Counter[str] = Counter()
        self.faults: list[BaseException] = []

    def run(self, service: Process) -> None:
        """Until the service is gone."""
        try:
            with service.connect() as connection:
                while True:
                    self._change(connection)
        except ConnectionError:
            pass
        except AssertionError as fault:
            if "cut off" not in str(fault):  # by the kill
                self.faults.append(fault)
        except Exception as fault:  # noqa: BLE001  # the test is told
            self.faults.append(fault)

    def _change(self, connection: Connection) -> None:
        random = self._random
        name = random.choice(list(self.may_be))
        (there,) = self.may_be[name]
        size = round(MOST_BYTES ** random.random())
        seed = random.randrange(1 << 32)
        content = content_of(seed, size)
        if there is not None:
            if random.random() < 0.5:
                self._replace(connection, name, content)
            else:
                self._begin({name: None})
                answer = connection.ask("DELETE", f"/media/{name}")
                assert answer.json["deleted"] is True, answer
                self._end("delete", {name: None})
            return
        match random.choice(["put", "digest", "form", "tus", "import"]):
            case "put":
                self._store("put", name, content, connection, {})
            case "digest":
                digest = b64encode(hashlib.sha256(content).digest()).decode()
                fields = {"Content-Digest": f"sha-256=:{digest}:"}
                self._store("digest", name, content, connection, fields)
            case "form":
                self._form(connection, content)
            case "tus":
                self._tus(connection, name, content)
            case "import":
                self._import(connection, name, content, f"{seed}/{size}")

    def _store(
        self, kind: str, name: str, content: bytes, connection: Connection, fields: dict[str, str]
    ) -> None:
        self._begin({name: content})
        stored(connection.ask("PUT", f"/media/{name}", content, fields))
        self._end(kind, {name: content})

    def _replace(self, connection: Connection, name: str, content: bytes) -> None:
        etag = connection.ask("HEAD", f"/media/{name}").headers["ETag"]
        self._begin({name: content})
        answer = connection.ask("PUT", f"/media/{name}", content, {"If-Match": etag})
        assert answer.status in (200, 201), answer
        self._end("replace", {name: content})

    def _form(self, connection: Connection, content: bytes) -> None:
        """Several files, each with the content but for its first byte."""
        names = [name for name, may_be in self.may_be.items() if may_be == {None}]
        contents = {name: name[:1].encode() + content for name in names}
        parts = [part(*os.path.split(name), each) for name, each in contents.items()]
        self._begin(contents)
        stored(connection.ask("POST", "/media", form(*parts), {"Content-Type": MULTIPART}))
        self._end("form", contents)

    def _tus(self, connection: Connection, name: str, content: bytes) -> None:
        first = self._random.randint(0, len(content) - 1)
        connection.send(begin(name, len(content), content[:first]))
        answer = connection.answer()
        assert answer.status == 201, answer
        target = str(answer.headers["Location"])
        # Only the last part can store it.
        self._begin({name: content})
        connection.send(part_head(target, first, len(content) - first) + content[first:])
        answer = connection.answer()
        assert answer.status == 204, answer
        self._end("tus", {name: content})
        assert connection.ask("HEAD", target, None, TUS).status == 200

    def _import(self, connection: Connection, name: str, content: bytes, target: str) -> None:
        directory, _, filename = name.rpartition("/")
        url = f"http://127.0.0.1:{self._upstream}/{target}"
        fields = {"url": url, "directory": directory, "filename": filename}
        self._begin({name: content})
        sent = urlencode(fields).encode()
        stored(connection.ask("POST", "/media", sent, {"Content-Type": URLENCODED}))
        self._end("import", {name: content})

    def _begin(self, contents: Mapping[str, bytes | None]) -> None:
        for name, content in contents.items():
            self.may_be[name] |= {content}

    def _end(self, kind: str, contents: Mapping[str, bytes | None]) -> None:
        for name, content in contents.items():
            self.may_be[name] = {content}
        self.acknowledged[kind] += 1


def stored(answer: Answer) -> None:
    """Each of its files was stored."""
    assert answer.brief == (201, 200), answer


def check(root: Path, clients: list[Client], when: str) -> int:
    """Every name holds what it may, and there is nothing else. The model goes on with what is
    there. The number of changes that were carried out or not, and nobody was told.
    """
    assert drafts_in(root) == [], when
    files = {name for name in tree_of(root) if (root / name).is_file()}
    unanswered = 0
    for client in clients:
        for name, may_be in client.may_be.items():
            holds = (root / name).read_bytes() if name in files else None
            assert holds in may_be, f"{when}: {name} is neither what was there nor what was sent"
            unanswered += len(may_be) - 1
            client.may_be[name] = {holds}
    assert files <= {name for client in clients for name in client.may_be}, when
    with_files = {str(folder) for name in files for folder in Path(name).parents}
    eventually(f"{when}: no empty folder is left", lambda: set(tree_of(root)) - files <= with_files)
    return unanswered


@contextmanager
def killed_afterwards(begin: Callable[[], Process]) -> Iterator[Process]:
    """A service that is killed at the end of the context."""
    service = begin()
    try:
        yield service
    finally:
        service.kill()


def killing_rounds(root: Path, clients: list[Client], rounds: int, random: Random) -> int:
    """Have them change things until their service is killed, again and again. The number of
    changes that nobody was told of.
    """
    unanswered = 0

    def begin() -> Process:
        return start(root, "--fetch-allow", "127.0.0.1")

    for number in range(rounds):
        with killed_afterwards(begin) as service:
            threads = [threading.Thread(target=each.run, args=(service,)) for each in clients]
            for thread in threads:
                thread.start()
            threading.Event().wait(random.uniform(0.02, LONGEST_ROUND_S))
            service.kill()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
        faults = [fault for each in clients for fault in each.faults]
        assert faults == [], f"round {number}"
        with killed_afterwards(begin):
            unanswered += check(root, clients, f"round {number}")
    return unanswered


@pytest.mark.parametrize("rounds", [20, pytest.param(100, marks=pytest.mark.long)])
def test_after_a_kill_each_name_holds_what_was_there_or_what_was_sent(
    root: Path, rounds: int
) -> None:
    """Cases 3, 27 and 94. MEDIA_KILL_SEED repeats the changes of a failure."""
    seed = int(os.environ.get("MEDIA_KILL_SEED") or SystemRandom().randrange(1 << 32))
    print(f"MEDIA_KILL_SEED={seed}")  # pytest shows it when the test fails
    random = Random(seed)
    with upstream() as port:
        clients = [Client(number, seed, port) for number in range(CLIENTS)]
        unanswered = killing_rounds(root, clients, rounds, random)
    counted = sum((each.acknowledged for each in clients), Counter[str]())
    print(f"{dict(counted)} acknowledged, {unanswered} not answered")
    assert unanswered > 0, "no change was interrupted"
    kinds = ("put", "digest", "form", "replace", "delete", "tus", "import")
    assert {kind for kind in kinds if counted[kind] < FEWEST} == set(), counted

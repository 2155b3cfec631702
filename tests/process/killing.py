"""A service that is killed again and again while files are sent to it; what it owes afterwards.

Each file's content follows from its name, so that every file tells by itself whether it is whole.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.process.exchange import (
    MULTIPART,
    URLENCODED,
    chunked,
    form,
    head,
    part,
    request,
    urlencoded,
)
from tests.process.running import OF_THE_SERVICE, Process, drafts_in, start, tree_of

CLIENTS = 6
LONGEST_ROUND_S = 0.8
LARGEST = 1 << 20


def content_of(name: str) -> bytes:
    """The bytes of the file `name`: any size, small ones as likely as large ones."""
    rng = Random(name)
    return rng.randbytes(int(LARGEST ** rng.random()) - 1)


@dataclass
class Record:
    """What one round did, as its clients saw it."""

    acknowledged: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)


def kill_rounds(area: Path, rounds: int, seed: int) -> None:
    """Kill a service that takes uploads of all kinds, `rounds` times at a random moment each, and
    restart it on the same root: each acknowledged file is whole, every other that exists is whole
    too, and no draft is left (case 3).

    :raises AssertionError: naming the round, `seed`, and what is wrong.
    """
    rng = Random(seed)
    root = area / "media"
    acknowledged = interrupted = 0
    service = start(root)
    try:
        for number in range(rounds):
            when = f"round {number}, seed {seed}"
            record = Record()
            with clients(service, number, rng.randrange(1 << 30), record) as stop:
                # The moment of the kill: nothing to wait for, only time.
                stop.wait(rng.uniform(0.02, LONGEST_ROUND_S))
                service.kill()
            service = start(root)
            check(root, record, when)
            acknowledged += len(record.acknowledged)
            interrupted += len(record.begun - record.acknowledged)
            for old in root.glob(f"{number - 2}-*"):  # so that the disk need not hold all of them
                shutil.rmtree(old)
    finally:
        service.kill()
    assert acknowledged > 0, f"nothing was stored at all, seed {seed}"
    assert interrupted > 0, f"nothing was interrupted, seed {seed}"


def check(root: Path, record: Record, when: str) -> None:
    """What has to be true of `root` once the service runs again."""
    assert drafts_in(root) == [], when
    assert sorted(os.listdir(root / ".twistedmedia")) == OF_THE_SERVICE, when
    stored = {name for name in tree_of(root) if (root / name).is_file()}
    lost = record.acknowledged - stored
    assert lost == set(), f"{when}: acknowledged and not there: {lost}"
    for name in stored:
        whole = (root / name).read_bytes() == content_of(name)
        assert whole, f"{when}: {name} is not what was sent"


@contextmanager
def clients(service: Process, number: int, seed: int, record: Record) -> Iterator[threading.Event]:
    """Clients that upload until the service is gone."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=client, args=(service, f"{number}-{n}", seed + n, record, stop))
        for n in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield stop
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def client(service: Process, own: str, seed: int, record: Record, stop: threading.Event) -> None:
    """Uploads one thing after the other, each in a folder of its own or one that is there."""
    rng = Random(seed)
    count = 0
    try:
        with service.connect() as connection:
            while not stop.is_set():
                names = []
                for _ in range(rng.choice((1, 1, 1, 5))):
                    folder = rng.choice(("same", f"new/{count}"))
                    names.append(f"{own}/{folder}/{count}.wav")
                    count += 1
                record.begun.update(names)
                connection.send(upload_of(rng, names))
                answer = connection.answer()
                assert answer.brief == (201, 200), answer
                record.acknowledged.update(names)
    except ConnectionError:
        pass  # the kill


def upload_of(rng: Random, names: list[str]) -> bytes:
    """A request that stores `names`."""
    directory, _, filename = names[0].rpartition("/")
    content = content_of(names[0])
    if len(names) > 1:
        parts = [part(*os.path.split(name), content_of(name)) for name in names]
        return request("POST", "/media", form(*parts), {"Content-Type": MULTIPART})
    match rng.randrange(4):
        case 0:
            pieces = [content[at : at + 50_000] for at in range(0, len(content), 50_000)]
            fields = [("Transfer-Encoding", "chunked")]
            return head("PUT", f"/media/{names[0]}", fields) + chunked(pieces)
        case 1 if content:
            fields = [("body", content), ("filename", filename), ("directory", directory)]
            return request("POST", "/media", urlencoded(*fields), {"Content-Type": URLENCODED})
        case 2:
            sent = form(part(directory, filename, content))
            return request("POST", "/media", sent, {"Content-Type": MULTIPART})
    return request("PUT", f"/media/{names[0]}", content)

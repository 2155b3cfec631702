"""Thousands of pipelines of requests of all kinds, in pieces cut anywhere, some broken off.

No answer is lost, doubled or mixed up with another; nothing in a content is taken for a request.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random, SystemRandom

import pytest

from tests.process.exchange import (
    MULTIPART,
    URLENCODED,
    Answer,
    Connection,
    chunked,
    form,
    head,
    part,
    request,
    urlencoded,
)
from tests.process.running import Process, drafts_in, eventually

CLIENTS = 6
KEPT = 50
MOST_BYTES = 256 << 10  # of a file: what is longer is refused early
# What is read of a refused content so that its connection can be kept.
DRAINED_BYTES = 4 << 20
SMUGGLED = "smuggled"


@dataclass(frozen=True)
class Asked:
    """
    A request of a pipeline, and what has to be answered.

    :ivar told: status and code; a code of None is a content that is no JSON.
    :ivar holds: what the content of the answer holds, so that no other answer can be taken for it.
    :ivar stores: the name of the file that is there once it was answered, and its content.
    """

    method: str
    sent: bytes
    told: tuple[int, int | None]
    holds: bytes = b""
    stores: tuple[str, bytes] | None = None


def kept(n: int) -> bytes:
    """The content of a file that was there before."""
    return f"this is {n} ".encode() * (n + 1)


def like_requests(random: Random, size: int) -> bytes:
    """A content of this size that is full of requests."""
    inner = request("PUT", f"/media/{SMUGGLED}/{random.randrange(1000)}.wav", b"x")
    inner += b"0\r\n\r\n" + request("GET", f"/media/{SMUGGLED}/a.wav")
    return (inner * (size // len(inner) + 1))[:size]


def in_chunks(target: str, random: Random, content: bytes) -> bytes:
    """A PUT in chunks of any size."""
    cuts = sorted(random.randint(0, len(content)) for _ in range(random.randint(0, 8)))
    pieces = [content[a:b] for a, b in pairwise([0, *cuts, len(content)]) if a < b]
    return head("PUT", target, [("Transfer-Encoding", "chunked")]) + chunked(pieces)


def any_request(random: Random, name: str) -> Asked:
    """One of a kind of its own, which stores `name` if it stores anything."""
    n = random.randrange(KEPT)
    content = like_requests(random, random.choice([0, 1, 300, 5_000, 60_000]))
    directory, _, filename = name.rpartition("/")
    by_length = random.random() < 0.5

    def put(target: str, content: bytes) -> bytes:
        if by_length:
            return request("PUT", target, content)
        return in_chunks(target, random, content)

    stored = filename.encode()
    match random.randrange(12):
        case 0 | 1:
            sent = put(f"/media/{name}", content)
            return Asked("PUT", sent, (201, 200), stored, (name, content))
        case 2:
            sent = form(part(directory, filename, content))
            sent = request("POST", "/media", sent, {"Content-Type": MULTIPART})
            return Asked("POST", sent, (201, 200), stored, (name, content))
        case 3:
            content = content or b"x"  # an empty body is a missing one
            fields = (("directory", directory), ("filename", filename), ("body", content))
            sent = request("POST", "/media", urlencoded(*fields), {"Content-Type": URLENCODED})
            return Asked("POST", sent, (201, 200), stored, (name, content))
        case 4 | 5:
            return Asked("GET", request("GET", f"/media/kept/{n}.wav"), (200, None), kept(n))
        case 6:
            span = {"Range": f"bytes={n}-{n + 4}"}
            sent = request("GET", f"/media/kept/{n}.wav", None, span)
            return Asked("GET", sent, (206, None), kept(n)[n : n + 5])
        case 7:
            return Asked("HEAD", request("HEAD", f"/media/kept/{n}.wav"), (200, None))
        case 8:
            return Asked("PUT", put(f"/media/kept/{n}.wav", content or b"x"), (409, 501))
        case 9:
            return Asked("PUT", put(f"/media/a/{filename}.exe", content), (415, 504))
        case 10:
            size = random.choice([MOST_BYTES + 1, MOST_BYTES + 70_000])
            if random.random() < 0.15:
                size = DRAINED_BYTES + random.choice([-1, 0, 1])
            large = like_requests(random, size)
            return Asked("PUT", put(f"/media/a/{filename}", large), (413, 506))
        case _:
            return Asked("PUT", put(f"/nowhere/{filename}", content), (404, 404))


def pieces_of(random: Random, sent: bytes) -> list[bytes]:
    """`sent`, cut anywhere."""
    cuts = sorted(random.randrange(len(sent) + 1) for _ in range(random.choice([0, 0, 3, 20])))
    return [sent[a:b] for a, b in pairwise([0, *cuts, len(sent)]) if a < b]


def assert_answers(asked: Asked, answer: Answer) -> None:
    """It is the answer to this request, and no other."""
    assert answer.status == asked.told[0], (asked.sent[:200], answer)
    if asked.method == "HEAD":
        return
    if asked.told[1] is None:
        assert answer.content == asked.holds, asked.sent[:200]
    else:
        assert answer.brief == asked.told, (asked.sent[:200], answer)
        assert asked.holds in answer.content, (asked.sent[:200], answer)


class Pipelines:
    """Clients that send one pipeline after the other, each on a connection of its own."""

    def __init__(self, service: Process, seed: int) -> None:
        self._service = service
        self._seed = seed
        self._lock = threading.Lock()
        self.counted: Counter[str] = Counter()
        self.stored: dict[str, bytes] = {}  # acknowledged
        self.may_be: dict[str, bytes] = {}  # sent whole, and not answered
        self.faults: list[BaseException] = []

    def run(self, count: int) -> None:
        """`count` of them in all; the first fault of each client ends it."""
        threads = [
            threading.Thread(target=self._client, args=(n, count // CLIENTS))
            for n in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self, client: int, count: int) -> None:
        try:
            for number in range(count):
                self._pipeline(Random(f"{self._seed} {client} {number}"), f"{client}/{number}")
        except BaseException as fault:  # noqa: BLE001  # the test is told
            fault.add_note(f"seed {self._seed}, client {client}, pipeline {number}")
            self.faults.append(fault)

    def _pipeline(self, random: Random, name: str) -> None:
        asked = [any_request(random, f"{name}/{n}.wav") for n in range(random.randint(1, 8))]
        sent = b"".join(each.sent for each in asked)
        how = random.choice(["whole", "whole", "whole", "half-closed", "ended", "reset"])
        if how in ("half-closed", "ended", "reset"):
            sent = sent[: random.randint(0, len(sent))]
        answered = 0
        closes = False
        with self._service.connect(60.0) as connection:
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            with suppress(BrokenPipeError, ConnectionResetError):  # closed after an answer
                for piece in pieces_of(random, sent):
                    connection.send(piece)
                    if random.random() < 0.1:
                        time.sleep(random.random() * 0.005)
            if how == "half-closed":
                with suppress(OSError):
                    connection.socket.shutdown(socket.SHUT_WR)
            whole = self._whole(asked, len(sent))
            if how in ("ended", "reset"):
                self._note(asked[:whole], answered=False)
                if how == "reset":
                    connection.reset()
                self.counted[how] += 1
                return
            for each in asked[:whole]:
                answer = connection.answer(each.method)
                assert_answers(each, answer)
                answered += 1
                if closes := answer.headers["Connection"] == "close":
                    break
            self._note(asked[:answered], answered=True)
            self.counted[how] += 1
            self.counted["answers"] += answered
            self.counted["closed"] += closes
            if closes:
                assert connection.is_ended(), "an answer came after the last one"
            elif how == "half-closed":
                self._no_more(connection, asked[whole:])
            else:
                assert connection.ask("GET", "/media/kept/0.wav").content == kept(0)

    def _no_more(self, connection: Connection, rest: list[Asked]) -> None:
        """After the last whole request of a client that has closed its side there is no success."""
        if not rest:
            assert connection.is_ended()
            return
        # A request that was cut off may be refused, for its head or for its end.
        with suppress(ConnectionError):
            answer = connection.answer(rest[0].method)
            assert answer.status >= 400, (rest[0].sent[:200], answer)
        assert connection.is_ended()

    def _whole(self, asked: list[Asked], size: int) -> int:
        """How many requests are whole in the first `size` bytes."""
        end = count = 0
        for each in asked:
            end += len(each.sent)
            if end > size:
                break
            count += 1
        return count

    def _note(self, asked: list[Asked], *, answered: bool) -> None:
        with self._lock:
            for each in asked:
                if each.stores is not None:
                    (self.stored if answered else self.may_be).update([each.stores])


@pytest.mark.parametrize("count", [600, pytest.param(5000, marks=pytest.mark.long)])
def test_no_answer_of_a_pipeline_is_lost_doubled_mixed_or_smuggled(
    serve: Callable[..., Process], tmp_path: Path, count: int
) -> None:
    """Cases 46 and 97. MEDIA_PIPELINES_SEED repeats a failure."""
    seed = int(os.environ.get("MEDIA_PIPELINES_SEED") or SystemRandom().randrange(1 << 32))
    print(f"MEDIA_PIPELINES_SEED={seed}")  # pytest shows it when the test fails
    log = tmp_path / "access.log"
    options = ("--no-durable", "--access-log", str(log), "--max-upload", str(MOST_BYTES))
    service = serve(*options)
    for n in range(KEPT):
        assert service.ask("PUT", f"/media/kept/{n}.wav", kept(n)).status == 201
    pipelines = Pipelines(service, seed)
    pipelines.run(count)
    print(dict(pipelines.counted))
    faults = [f"{fault!r} {fault.__notes__}" for fault in pipelines.faults]
    assert faults == []
    assert pipelines.counted["answers"] > 2 * count
    # What was acknowledged is there, and nothing is there that was not sent.
    there = {name for name in service.tree() if (service.root / name).is_file()}
    there -= {f"kept/{n}.wav" for n in range(KEPT)}
    assert pipelines.stored.keys() <= there
    sent = pipelines.stored | pipelines.may_be
    assert there <= sent.keys(), "a request was carried out after an answer that closes"
    for name in there:
        assert (service.root / name).read_bytes() == sent[name], name
    assert not any(SMUGGLED in name for name in there)
    for n in range(KEPT):
        assert (service.root / "kept" / f"{n}.wav").read_bytes() == kept(n)
    eventually(
        "no connection is left",
        lambda: service.ask("GET", "/health").json["connections"] == 1,
        60,  # those that linger wait for one another
    )
    assert service.ask("GET", "/health").json["uploads"] == 0
    assert drafts_in(service.root) == []
    assert SMUGGLED not in log.read_text(encoding="ascii")

"""SIGTERM at any moment: what can end in time ends whole, and the rest leaves nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from random import Random, SystemRandom

import pytest

from tests.live.support import content_of
from tests.process.exchange import MULTIPART, Connection, chunked, form, head, part, request
from tests.process.running import Process, drafts_in, start, tree_of
from tests.process.test_readers import narrow

UPLOADS, DOWNLOADS = 9, 4
LARGE_BYTES = 8 << 20  # more than the kernel takes for a reader that is narrow
PIECES = 20  # in which a client sends, or reads
LONGEST_S = (1.5, 3.0)  # that a client takes at most, from the beginning of a round
NEVER_S = 60.0
FIRST_S, LAST_S = 0.1, 1.2  # between which the signal comes
GRACES_S = (1, 2, 7)  # in the last one all end who ever end
NEAR_S = 1.5  # so near the end of the grace nobody can say who was faster
END_S = 3.0  # that the end itself may take


class Outcome(Enum):
    WHOLE = "whole"
    CUT = "cut"


@dataclass
class Client:
    """One request that takes `lasts_s` from the round's beginning; `names` are what it stores."""

    lasts_s: float
    names: tuple[str, ...] = ()
    outcome: Outcome | None = None
    fault: BaseException | None = None


class Round:
    """A service, and its clients, each in a thread and with its request in progress."""

    def __init__(self, service: Process, number: int, seed: int) -> None:
        self._service = service
        self._seed = seed
        random = Random(f"{seed} {number}")
        self.clients: list[Client] = []
        self._threads = []
        self._begun = time.monotonic()
        self._in_progress = threading.Barrier(UPLOADS + DOWNLOADS + 1)
        self._over = threading.Event()
        longest_s = random.choice(LONGEST_S)
        endless = random.choice((0.0, 0.3))  # the share of those who would never end
        for n in range(UPLOADS + DOWNLOADS):
            lasts_s = NEVER_S if random.random() < endless else random.uniform(0.1, longest_s)
            if n < UPLOADS:
                way = ("put", "chunked", "multipart")[n % 3]
                names = [f"round-{number}/{n}-{way}.wav"]
                if way == "multipart":
                    names.append(f"round-{number}/{n}-{way}.mp3")
                client = Client(lasts_s, tuple(names))
                arguments = (client, self._upload_of(way, client.names, random))
                thread = threading.Thread(target=self._run, args=(self._upload, *arguments))
            else:
                client = Client(lasts_s)
                thread = threading.Thread(target=self._run, args=(self._download, client))
            self.clients.append(client)
            self._threads.append(thread)
            thread.start()
        self._in_progress.wait(20)

    def join(self) -> None:
        """The service is gone: wait until all have found out."""
        self._over.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def since(self, moment: float) -> float:
        """Seconds from the beginning of the round to `moment`."""
        return moment - self._begun

    def _upload_of(self, way: str, names: tuple[str, ...], random: Random) -> bytes:
        contents = [content_of(name, self._seed, most=1 << 20) for name in names]
        if way == "multipart":
            files = zip(names, contents, strict=True)
            parts = [part(*os.path.split(name), content) for name, content in files]
            return request("POST", "/media", form(*parts), {"Content-Type": MULTIPART})
        if way == "chunked":
            size = random.randrange(1000, 100_000)
            pieces = [contents[0][at : at + size] for at in range(0, len(contents[0]), size)]
            fields = [("Transfer-Encoding", "chunked")]
            return head("PUT", f"/media/{names[0]}", fields) + chunked(pieces)
        return request("PUT", f"/media/{names[0]}", contents[0])

    def _run(self, act: Callable[..., None], client: Client, *arguments: bytes) -> None:
        try:
            act(client, *arguments)
            client.outcome = Outcome.WHOLE
        except ConnectionError:
            client.outcome = Outcome.CUT
        except Exception as fault:  # noqa: BLE001  # the test is told at its end
            client.fault = fault

    def _upload(self, client: Client, sent: bytes) -> None:
        with self._service.connect() as connection:
            # Anything may be missing when the signal comes, a part of the head as well.
            step = max(1, len(sent) // PIECES)
            connection.send(sent[: min(step, 20)])
            self._in_progress.wait(20)
            at = min(step, 20)
            for _ in self._pace(client):
                connection.send(sent[at : at + step])
                at += step
            connection.send(sent[at:])
            answer = connection.answer()
            assert answer.brief == (201, 200)
            connection_header = answer.headers["Connection"]
            assert connection_header in (None, "close")

    def _download(self, client: Client) -> None:
        with narrow(self._service.port) as connection:
            connection.send(request("GET", "/media/kept/large.wav"))
            status, headers = connection.answer_head()
            assert (status, headers["Content-Length"]) == (200, str(LARGE_BYTES))
            self._in_progress.wait(20)
            expected = memoryview(content_of("large", self._seed, LARGE_BYTES, LARGE_BYTES))
            at = 0
            for _ in self._pace(client):
                at += self._read(connection, expected[at : at + LARGE_BYTES // (2 * PIECES)])
            self._read(connection, expected[at:])

    def _read(self, connection: Connection, expected: memoryview) -> int:
        received = connection.read(len(expected))
        assert received == expected[: len(received)], "these are other bytes"
        if len(received) < len(expected):
            raise ConnectionResetError("it was cut off")
        return len(received)

    def _pace(self, client: Client) -> Iterator[None]:
        """Such moments that the last one is when the client wants to end."""
        for step in range(PIECES):
            at = self._begun + client.lasts_s * (step + 1) / PIECES
            self._over.wait(max(0.0, at - time.monotonic()))
            yield


@contextmanager
def serving(root: Path, *options: str) -> Iterator[Process]:
    """A service that the context ends itself."""
    service = start(root, *options)
    try:
        yield service
    finally:
        service.kill()


@pytest.mark.parametrize("rounds", [8, pytest.param(100, marks=pytest.mark.long)])
def test_what_can_end_after_a_sigterm_ends_whole_and_the_rest_leaves_nothing(
    root: Path, rounds: int
) -> None:
    """Case 47. In a fifth of the rounds a second signal comes before the end of the grace.
    MEDIA_SIGTERM_SEED repeats a failure, but for its moments.
    """
    seed = int(os.environ.get("MEDIA_SIGTERM_SEED") or SystemRandom().randrange(1 << 32))
    print(f"MEDIA_SIGTERM_SEED={seed}")  # pytest shows it when the test fails
    random = Random(seed)
    large = content_of("large", seed, LARGE_BYTES, LARGE_BYTES)
    stored: dict[str, bytes] = {"kept/large.wav": large}
    counted: Counter[str] = Counter()
    for number in range(rounds):
        grace_s = random.choice(GRACES_S)
        hurries = random.random() < 0.2
        with serving(root, "--grace", f"{grace_s}s") as service:
            if number == 0:
                assert service.ask("PUT", "/media/kept/large.wav", large).status == 201
            now = Round(service, number, seed)
            time.sleep(random.uniform(FIRST_S, LAST_S))
            told = time.monotonic()
            service.signal(signal.SIGTERM)
            ends = told + grace_s
            if hurries:
                # Not for longer: when a service has ended before that is seen after it.
                time.sleep(random.uniform(0.1, min(grace_s, GRACES_S[1]) - 0.1))
                ends = min(ends, time.monotonic())
                if not _has_ended(service):
                    service.signal(random.choice((signal.SIGTERM, signal.SIGINT)))
            status = service.wait()
            ended = time.monotonic()
            now.join()
            when = f"round {number}, seed {seed}, grace {grace_s} s, hurried: {hurries}"

            assert status == -signal.SIGTERM, when
            assert "Traceback" not in service.log, when
            assert "incident" not in service.log, when
            assert service.log.rstrip().endswith("Server Shut Down."), when
        # In time, and when nobody is left, not later.
        assert [client.fault for client in now.clients if client.fault] == [], when
        cut = [client for client in now.clients if client.outcome is Outcome.CUT]
        last_s = max(client.lasts_s for client in now.clients)
        if cut:
            assert ends - 0.05 <= ended < ends + END_S, when
        else:
            assert now.since(ended) < max(last_s, now.since(told)) + END_S, when
        # Who could end has.
        for client in now.clients:
            assert client.outcome is not None, when
            if client.lasts_s < now.since(ends) - NEAR_S:
                assert client.outcome is Outcome.WHOLE, f"{when}: {client}"
            elif client.lasts_s > now.since(ends) + NEAR_S:
                assert client.outcome is Outcome.CUT, f"{when}: {client}"
            before = "before" if client.lasts_s < now.since(told) else "after"
            counted[f"{client.outcome.value} {before} the signal"] += 1
        # What is there is whole, and what was acknowledged is there.
        assert drafts_in(root) == [], when
        there = {f"round-{number}/{name}" for name in _files_in(root / f"round-{number}")}
        for client in now.clients:
            contents = {name: content_of(name, seed, most=1 << 20) for name in client.names}
            for name, content in contents.items():
                if client.outcome is Outcome.WHOLE:
                    assert name in there, f"{when}: {name} was acknowledged"
                    stored[name] = content
                if name in there:  # as well when its answer came too late
                    assert (root / name).read_bytes() == content, f"{when}: {name} is not whole"
                    there.remove(name)
        assert there == set(), when
    for name, content in stored.items():
        assert (root / name).read_bytes() == content, name
    print(dict(counted), f"{len(stored)} files")
    assert len(counted) >= 3, "the moments are badly chosen"


def _has_ended(service: Process) -> bool:
    return "Server Shut Down." in service.log


def _files_in(folder: Path) -> list[str]:
    return (
        [name for name in tree_of(folder) if (folder / name).is_file()] if folder.exists() else []
    )

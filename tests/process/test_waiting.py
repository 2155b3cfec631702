"""Many requests that wait for one resumable upload, on a disk that makes them wait."""

from __future__ import annotations

import resource
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.process import blocked
from tests.process.exchange import Connection, head, request
from tests.process.running import Process, eventually
from tests.process.test_uploading import CONTENT, SENT, created, offset_of, patched
from tests.process.uploading import PART, TUS

REQUESTS = 1000
UPLOADS, EACH = 1000, 10
PIECE = bytes(100_000)  # content that counts in the memory of bodies
STOPS_S = 10.0  # far less than the grace
SPARE = 100  # descriptors besides those of connections
RSS_BYTES = 16 << 20  # how much resident memory may change for other reasons

HEAD = head("HEAD", "{upload}", [TUS])
DELETE = head("DELETE", "{upload}", [TUS])
PATCH = (
    head("PATCH", "{upload}", [TUS, PART, ("Upload-Offset", "0"), ("Content-Length", "1000000")])
    + PIECE
)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a service on a disk whose writes can be made to hang. It has to stop at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 3 * UPLOADS + SPARE), hard))
    processes = []

    def start(*options: str) -> Process:
        root = tmp_path / "area" / "media"
        processes.append(blocked.start("writev", root, "--no-durable", *options))
        return processes[-1]

    try:
        yield start
        for process in processes:
            told = time.monotonic()
            assert process.stop() == -signal.SIGTERM
            assert time.monotonic() - told < STOPS_S
            assert "Traceback" not in process.log
            assert "incident" not in process.log
    finally:
        for process in processes:
            process.kill()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident(service: Process) -> int:
    return int(service.ask("GET", "/health").json["memory"]["resident"])


def connections(service: Process) -> int:
    """The connections of other clients."""
    return int(service.ask("GET", "/health").json["connections"]) - 1


def answered(asking: list[tuple[bytes, Connection]]) -> list[tuple[int, int]]:
    """The results of poll(2) for the connections that have a response."""
    ready = select.poll()
    for _, connection in asking:
        ready.register(connection.socket, select.POLLIN)
    return ready.poll(0)


@contextmanager
def a_part_hangs(service: Process, upload: str) -> Iterator[Connection]:
    """The write of a PATCH hangs until the context ends."""
    fields = [TUS, PART, ("Upload-Offset", "0"), ("Content-Length", str(len(CONTENT)))]
    blocked.hang(service)
    with service.connect() as part:
        part.send(head("PATCH", upload, fields) + CONTENT[:SENT])
        blocked.wait_for_calls(service, 1)
        yield part
        blocked.answer(service)
        assert part.answer().brief == (409, 409)


@pytest.mark.parametrize("kinds", [(HEAD,), (HEAD, PATCH, DELETE)], ids=["HEAD", "all"])
def test_a_thousand_requests_for_one_upload_all_get_responses(
    serve: Callable[..., Process], kinds: tuple[bytes, ...]
) -> None:
    """Case 84: all but the last one at once, though the disk hangs. Their content is dropped."""
    service = serve()
    upload = created(service, "a/b.wav", len(CONTENT))
    before = resident(service)
    with service.unchanged_descriptors(), ExitStack() as open_:
        with a_part_hangs(service, upload):
            asking = []
            for number in range(REQUESTS):
                kind = kinds[number % len(kinds)]
                connection = open_.enter_context(service.connect())
                connection.send(kind.replace(b"{upload}", upload.encode()))
                asking.append((kind, connection))
            # A busy service does not handle requests in their order of arrival on several
            # connections: the newest is known when all others have responses.
            eventually("others are told", lambda: len(answered(asking)) == REQUESTS - 1)
            last = open_.enter_context(service.connect())
            last.send(HEAD.replace(b"{upload}", upload.encode()))
            told = Counter(
                (kind, connection.answer(kind.split()[0].decode()).status)
                for kind, connection in asking
            )
            kinds_asked = Counter(kind for kind, _ in asking)
            assert told == {
                (kind, 423 if kind == HEAD else 409): count for kind, count in kinds_asked.items()
            }
            for _, connection in asking:
                connection.close()
            eventually("those have left", lambda: connections(service) == 2)
            eventually("memory is given back", lambda: abs(resident(service) - before) < RSS_BYTES)
        assert last.answer("HEAD").status == 200
    offset = offset_of(service, upload)
    assert 0 < offset <= SENT
    assert patched(service, upload, offset, CONTENT[offset:]) == 204
    assert service.ask("GET", "/media/a/b.wav").content == CONTENT


def test_a_waiting_client_that_disconnects_is_forgotten_at_once(
    serve: Callable[..., Process],
) -> None:
    """Case 84: unneeded content is dropped while its request waits."""
    service = serve()
    upload = created(service, "a/b.wav", len(CONTENT))
    before = resident(service)
    size = 30 << 20
    fields = [TUS, ("Content-Length", str(size + 1))]
    with a_part_hangs(service, upload):
        for method in ("DELETE", "HEAD"):  # the last one waits on, and is carried out
            override = ("X-HTTP-Method-Override", method)
            for sent in (head(method, upload, fields), head("POST", upload, [*fields, override])):
                with service.connect() as connection:
                    connection.send(sent + bytes(size))
                eventually("it is gone", lambda: connections(service) == 1)
        assert abs(resident(service) - before) < RSS_BYTES
    assert offset_of(service, upload) > 0


def test_a_thousand_uploads_with_ten_requests_each_all_get_responses(
    serve: Callable[..., Process],
) -> None:
    """Case 84: of ten the first is handled, and the last waits; the others are refused at once."""
    service = serve("--max-per-address", "4000", "--disk-threads", "2")
    uploads = [created(service, f"a/{number}.wav", 5) for number in range(UPLOADS)]
    heads = [HEAD.replace(b"{upload}", upload.encode()) for upload in uploads]
    with service.unchanged_descriptors(), ExitStack() as open_:

        def connect_all() -> list[Connection]:
            return [open_.enter_context(service.connect()) for _ in uploads]

        def ask_all(rank: list[Connection]) -> None:
            for connection, sent in zip(rank, heads, strict=True):
                connection.send(sent)

        def superseded(asked: list[Connection]) -> Connection:
            """The request for one upload that is refused at once. It is not always the second: a
            busy service does not handle requests on several connections in the order of arrival.
            """
            ready = select.poll()
            for each in asked:
                ready.register(each.socket, select.POLLIN)
            ((descriptor, _),) = ready.poll(20_000)
            (told,) = [each for each in asked if each.socket.fileno() == descriptor]
            assert told.answer("HEAD").status == 423
            return told

        def statuses(rank: list[Connection]) -> Counter[int]:
            return Counter(connection.answer("HEAD").status for connection in rank)

        blocked.hang(service)
        puts = [open_.enter_context(service.connect()) for _ in range(2)]
        for number, put in enumerate(puts):
            put.send(request("PUT", f"/media/b/{number}.wav", CONTENT))
        blocked.wait_for_calls(service, 2)  # both threads
        at_work, waiting, newer = connect_all(), connect_all(), connect_all()
        ask_all(at_work)
        ask_all(waiting)
        asked = [list(pair) for pair in zip(at_work, waiting, strict=True)]
        for _ in range(EACH - 2):
            ask_all(newer)
            for each, newest in zip(asked, newer, strict=True):
                each.append(newest)
            newer = [superseded(each) for each in asked]
            for each, told in zip(asked, newer, strict=True):
                each.remove(told)
        blocked.answer(service)
        assert statuses([each for pair in asked for each in pair]) == {200: 2 * UPLOADS}
        assert [put.answer().status for put in puts] == [201, 201]
    eventually("all have left", lambda: connections(service) == 0)
    with service.connect() as connection:
        fields = dict([TUS, PART, ("Upload-Offset", "0")])
        for upload in uploads:
            assert connection.ask("PATCH", upload, b"hello", fields).status == 204

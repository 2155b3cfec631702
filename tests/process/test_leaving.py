"""Clients that go away, at every point of a request: nothing of theirs stays."""

from __future__ import annotations

import hashlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from random import Random

import pytest

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
from tests.process.running import NOWHERE, Process, eventually, running

FORM = {"Content-Type": MULTIPART}
FIELDS = {"Content-Type": URLENCODED}
CHUNKED = {"Transfer-Encoding": "chunked"}

CONTENT = Random(13).randbytes(150)
A_FORM = form(
    part("leaving", "a.wav", CONTENT),
    part("note", None, b"a text"),
    part("leaving", "b.mp3", CONTENT),
)
SOME_FIELDS = urlencoded(("body", CONTENT[:50]), ("directory", "leaving"), ("filename", "a.wav"))
UPLOADS = {
    "put": request("PUT", "/media/leaving/a.wav", CONTENT),
    "chunked put": head("PUT", "/media/leaving/a.wav", CHUNKED.items())
    + chunked([CONTENT[:70], CONTENT[70:]]),
    "form": request("POST", "/media", A_FORM, FORM),
    "chunked form": head("POST", "/media", [*CHUNKED.items(), *FORM.items()])
    + chunked([A_FORM[:200], A_FORM[200:]]),
    "fields": request("POST", "/media", SOME_FIELDS, FIELDS),
}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service that takes two uploads at once: one that is not let go of shows."""
    root = tmp_path_factory.mktemp("narrow") / "area" / "media"
    with running(root, "--max-uploads", "2") as process:
        yield process


def close(connection: Connection) -> None:
    """As a client that was ended."""
    connection.close()


def reset(connection: Connection) -> None:
    """As a client that crashed, or whose network did."""
    connection.reset()


def half_close(connection: Connection) -> None:
    """As one that still listens, but has said all it will."""
    connection.socket.shutdown(socket.SHUT_WR)
    assert b" 201 " not in connection.read_to_the_end()
    connection.close()


@pytest.mark.parametrize("leave", [close, reset, half_close])
@pytest.mark.parametrize("upload", UPLOADS.values(), ids=UPLOADS)
def test_an_upload_that_is_cut_off_anywhere_leaves_nothing(
    narrow: Process, upload: bytes, leave: Callable[[Connection], None]
) -> None:
    """Case 1."""
    with narrow.unchanged():
        for cut in [*range(1, len(upload), 7), *range(len(upload) - 8, len(upload))]:
            connection = narrow.connect()
            connection.send(upload[:cut])
            leave(connection)
        assert_two_uploads_fit(narrow)


def assert_two_uploads_fit(service: Process) -> None:
    """So the uploads before them are let go of."""
    service.ask("GET", "/")
    waiting = [("Content-Length", "1"), ("Expect", "100-continue")]
    with service.connect() as first, service.connect() as second:
        for name, connection in (("first", first), ("second", second)):
            connection.send(head("PUT", f"/media/fits/{name}.wav", waiting))
            assert connection.answer_head()[0] == 100
        for connection in (first, second):
            connection.send(b"x")
            assert connection.answer().status == 201
        for name in ("first", "second"):
            assert first.ask("DELETE", f"/media/fits/{name}.wav").json["deleted"] is True


@pytest.mark.parametrize("leave", [close, reset])
@pytest.mark.parametrize("kind", ["put", "form", "fields"])
def test_large_uploads_that_are_cut_off_leave_nothing(
    service: Process, kind: str, leave: Callable[[Connection], None]
) -> None:
    """Case 1, with disk and network busy: many at once, cut where the peer is paused too."""
    content = Random(14).randbytes(6 << 20)
    length = len(content) * 3
    begin = {
        "put": head("PUT", "/media/leaving/a.wav", [("Content-Length", str(length))]),
        "form": head("POST", "/media", [("Content-Length", str(length)), *FORM.items()])
        + part("leaving", "a.wav", b"a")
        + part("leaving", "b.wav", b"").removesuffix(b"\r\n"),
        "fields": head("POST", "/media", [("Content-Length", str(length)), *FIELDS.items()])
        + b"directory=leaving&filename=a.wav&body=",
    }[kind]
    content = content.replace(b"%", b"$").replace(b"&", b"+")

    def send(size: int) -> None:
        connection = service.connect()
        connection.send(begin + content[:size])
        leave(connection)

    sizes = [0, 1, 100_000, 262_144, 262_145, 1 << 20, 3_000_000, 6 << 20] * 4
    with service.unchanged():
        threads = [threading.Thread(target=send, args=(size,)) for size in sizes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert service.ask("GET", "/").status == 404


def test_a_client_that_goes_when_all_is_sent_leaves_the_whole_or_nothing(
    service: Process, folder: str
) -> None:
    """Case 1: a publish that has begun goes on."""
    content = Random(15).randbytes(300_000)
    digest = hashlib.sha256(content).digest()
    with service.unchanged_descriptors():
        for n in range(60):
            connection = service.connect()
            if n % 2:
                connection.send(request("PUT", f"/media/{folder}/{n}.wav", content))
            else:
                parts = [part(folder, f"{n}-{which}.wav", content) for which in range(3)]
                connection.send(request("POST", "/media", form(*parts), FORM))
            connection.reset()
    for path in (service.root / folder).glob("*"):
        assert hashlib.sha256(path.read_bytes()).digest() == digest, path


def test_a_reader_that_goes_leaves_nothing_open(service: Process) -> None:
    service.ask("PUT", "/media/leaving-reader/a.wav", Random(16).randbytes(8 << 20))
    with service.unchanged():
        for n in range(50):
            connection = service.connect()
            connection.send(request("GET", "/media/leaving-reader/a.wav"))
            if n % 3:
                connection.read(n * 1000)
            (connection.reset if n % 2 else connection.close)()


def test_a_refused_client_that_does_not_go_is_made_to(service: Process) -> None:
    """After a while nobody waits for the rest of what is not wanted."""
    with service.unchanged():
        before = len(service.descriptors())
        connections = [service.connect() for _ in range(4)]
        for n, connection in enumerate(connections):
            length = [("Content-Length", "9000000")] if n % 2 else [("Content-Length", "1000")]
            connection.send(head("PUT", "/media/leaving/a.txt", length) + b"x" * n)
            assert connection.answer().brief == (415, 504)
        eventually("they are closed", lambda: len(service.descriptors()) <= before, 20.0)
        for connection in connections:
            connection.close()


def test_two_thousand_requests_of_which_a_third_is_cut_off_leave_nothing_open(
    serve: Callable[..., Process],
) -> None:
    """Case 25."""
    service = serve()
    assert service.ask("PUT", "/media/kept/a.wav", b"x" * 100_000).status == 201
    upload = request("PUT", "/media/leaving/a.wav", b"x" * 50_000)
    form_upload = request("POST", "/media", A_FORM, FORM)
    statuses: list[int] = []

    def client(seed: int) -> None:
        rng = Random(seed)
        connection = service.connect()
        for n in range(250):
            if n % 3 == 0:
                connection.close()
                connection = service.connect()
                whole = rng.choice((upload, form_upload))
                connection.send(whole[: rng.randrange(len(whole) - 1)])
                (connection.reset if rng.random() < 0.5 else connection.close)()
                connection = service.connect()
            elif n % 3 == 1:
                statuses.append(connection.ask("GET", "/media/kept/a.wav").status)
            else:
                name = f"/media/kept/{seed}-{n}.wav"
                statuses.append(connection.ask("PUT", name, b"x" * 1000).status)
        connection.close()

    with service.unchanged_descriptors():
        threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(set(statuses)) == [200, 201]
    assert len(statuses) == 8 * 166
    assert not (service.root / "leaving").exists()
    assert len(service.tree()) == 2 + 8 * 83


def test_hundreds_of_answers_in_one_turn_of_the_loop_all_arrive(service: Process) -> None:
    with ExitStack() as crowd:
        asking = [crowd.enter_context(service.connect()) for _ in range(300)]
        for each in asking:
            assert each.ask("GET", NOWHERE).status == 404  # it is accepted
        service.signal(signal.SIGSTOP)
        for each in asking:
            each.send(request("GET", NOWHERE))
        service.signal(signal.SIGCONT)
        assert [each.answer().status for each in asking] == [404] * len(asking)


def test_when_descriptors_run_out_those_who_are_in_are_told_to_come_back_and_others_not_let_in(
    serve: Callable[..., Process],
) -> None:
    """A form of many files needs as many descriptors. It is no fault, and it passes."""
    service = serve()
    assert service.ask("PUT", "/media/kept/a.wav", b"x").status == 201
    with service.unchanged(), service.connect() as inside:
        assert inside.ask("GET", "/health").status == 200
        service.limit_descriptors(len(service.descriptors()) + 20)
        content = form(*(part("leaving", f"{n}.wav", b"x") for n in range(100)))
        answer = inside.ask("POST", "/media", content, FORM)
        assert answer.brief == (207, 514)
        assert {entry["code"] for entry in answer.files} == {200, 514}
        for entry in answer.files:
            if entry["code"] == 200:
                inside.ask("DELETE", entry["url"])
        assert inside.ask("GET", "/media/kept/a.wav").content == b"x"
        with ExitStack() as crowd:
            crowded = [crowd.enter_context(service.connect()) for _ in range(20)]
            # Four come in, eight are told that they cannot, and the others are closed.
            refused = crowded[7].answer()
            assert refused.brief == (503, 514)
            assert refused.headers["Retry-After"]
            assert crowded[7].is_ended()
            assert crowded[-1].is_ended()
        eventually(
            "the crowd is gone", lambda: inside.ask("GET", "/health").json["connections"] == 1
        )
    assert service.ask("PUT", "/media/kept/b.wav", b"y").status == 201

"""Uploads of any size, and many at once, in constant memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

from tests.process import large
from tests.process.exchange import Answer, request
from tests.process.running import Process, eventually
from tests.process.test_readers import narrow

PEAK = 96 << 20


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_large_uploads_at_once_need_little_memory(serve: Callable[..., Process]) -> None:
    """Case 15, at a size that fits here; `tests/live` has the full one."""
    service = serve()
    answers: dict[str, Answer] = {}

    def put(name: str) -> None:
        with service.connect(60) as connection:
            answers[name] = large.put(connection, name, 20 << 20)

    def post() -> None:
        with service.connect(60) as connection:
            answers["form"] = large.post(connection, ["form/a.wav", "form/b.wav"], 128 << 20)

    def post_fields() -> None:
        with service.connect(60) as connection:
            answers["fields"] = large.post_fields(connection, "fields/a.wav", 16 << 20)

    threads = [threading.Thread(target=put, args=(f"put/{n}.wav",)) for n in range(10)]
    threads += [threading.Thread(target=post), threading.Thread(target=post_fields)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: answer.status for name, answer in answers.items()} == dict.fromkeys(answers, 201)
    assert len(answers) == 12
    assert service.peak_memory() < PEAK
    entries = [entry for answer in answers.values() for entry in answer.files]
    assert len(entries) == 13
    for entry in entries:
        stored = service.root / entry["directory"] / entry["filename"]
        assert stored.stat().st_size == entry["size"]
        assert sha256_of(stored) == entry["sha256"]
    digests = {entry["sha256"] for entry in entries if entry["directory"] != "fields"}
    assert digests == {large.sha256_of(20 << 20), large.sha256_of(128 << 20)}


def test_many_connections_that_do_nothing_need_little_memory(
    serve: Callable[..., Process],
) -> None:
    service = serve()
    before = service.peak_memory()
    connections = [service.connect() for _ in range(300)]
    for connection in connections:
        connection.send(b"PUT /media/a/b.wav HTTP/1.1\r\nHost: x\r\nContent-Le")
    assert service.ask("PUT", "/media/a/b.wav", b"x").status == 201
    assert service.peak_memory() - before < 24 << 20
    for connection in connections:
        connection.close()


def listed(service: Process) -> list[str]:
    """The names in `listed/`, of which a page of 10,000 is more than a MB."""
    names = [f"{n:04}{'x' * 240}.wav" for n in range(2000)]
    (service.root / "listed").mkdir()
    for name in names:
        (service.root / "listed" / name).touch()
    return names


def test_listings_that_nobody_takes_need_little_memory(serve: Callable[..., Process]) -> None:
    """Case 87. Other listings, downloads and uploads go on."""
    service = serve("--response-memory", "4MiB")
    names = listed(service)
    assert service.ask("GET", "/media/listed/?limit=10000").status == 200
    before = service.peak_memory()
    readers = [narrow(service.port) for _ in range(80)]
    for name, reader in zip(names, readers, strict=False):
        reader.send(request("GET", f"/media/listed/?limit=10000&after={name}"))
    with service.connect(from_address="127.0.0.2") as connection:
        for n in range(20):
            assert connection.ask("PUT", f"/media/a/{n}.wav", b"x").status == 201
            assert connection.ask("GET", f"/media/a/{n}.wav").status == 200
            assert len(connection.ask("GET", "/media/a/").json["entries"]) == n + 1
    statuses = [reader.answer_head()[0] for reader in readers]
    assert set(statuses) == {200, 503}
    assert service.peak_memory() - before < 24 << 20
    assert service.ask("GET", "/health").json["shares"]["responses"]["used"] <= 4 << 20
    for reader in readers:
        reader.reset()
    eventually(
        "nothing is held any more",
        lambda: service.ask("GET", "/health").json["shares"]["responses"]["used"] == 0,
    )


def test_listings_that_are_broken_off_need_little_memory(serve: Callable[..., Process]) -> None:
    """Case 87. What they held is there for the next one at once."""
    service = serve()
    listed(service)
    for _ in range(3):
        assert service.ask("GET", "/media/listed/?limit=10000").status == 200
    before = service.peak_memory()
    for _ in range(60):
        reader = narrow(service.port)
        reader.send(request("GET", "/media/listed/?limit=10000"))
        assert reader.answer_head()[0] == 200
        reader.reset()
    assert service.peak_memory() - before < 12 << 20

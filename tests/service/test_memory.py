"""Uploads of any size, and many at once, in constant memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

from tests.service import large
from tests.service.exchange import Answer
from tests.service.running import Process

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

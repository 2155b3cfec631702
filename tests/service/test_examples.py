"""The programs in examples/ do what they say."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.service.exchange import Connection, head
from tests.service.nasty import Nasty
from tests.service.running import Process, connects, eventually, free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
COST = re.compile(rb"Time Cost: (\d+\.\d+) s for (\d+) bytes\n")


def test_a_file_is_stored_fetched_and_deleted(service: Process, tmp_path: Path) -> None:
    (tmp_path / "tone.wav").write_bytes(bytes(300_000))
    done = subprocess.run(
        [sys.executable, EXAMPLES / "upload.py", "tone.wav", f"http://127.0.0.1:{service.port}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "stored  300000 bytes" in done.stdout
    assert "fetched 300000 bytes, identical" in done.stdout
    assert "deleted True" in done.stdout


@pytest.mark.parametrize(
    ("style", "at_once"), [("blocking", False), ("callbacks", True), ("coroutine", True)]
)
def test_of_the_three_styles_one_makes_others_wait(nasty: Nasty, style: str, at_once: bool) -> None:
    port = free_port()
    command = [sys.executable, str(EXAMPLES / "three_styles.py"), nasty.url("/slow?n="), str(port)]
    process = subprocess.Popen(command)
    try:
        eventually("it listens", lambda: connects(port))
        answers: list[bytes] = []

        def visit(number: int) -> None:
            with Connection(port) as visitor:
                visitor.send(f"GET /{style}/{number} HTTP/1.0\r\n\r\n".encode())
                answers.append(visitor.answer().content)

        begun = time.monotonic()
        visitors = [threading.Thread(target=visit, args=(number,)) for number in range(8)]
        for each in visitors:
            each.start()
        for each in visitors:
            each.join(20)
        spent = time.monotonic() - begun
    finally:
        process.terminate()
        process.wait(20)
    found = [COST.fullmatch(answer) for answer in answers]
    assert len(found) == 8
    assert all(match is not None and float(match[1]) >= 0.09 for match in found)
    assert (spent < 0.8) == at_once


def test_the_tree_is_one_of_an_application(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "embed.py"), str(tmp_path / "area" / "media"), "0"]
    (tmp_path / "area").mkdir()
    service = Process(command, tmp_path, tmp_path / "log", tmp_path / "area" / "media")
    try:
        assert service.ask("GET", "/hello").content == b"Recordings are under /voice/media/.\n"
        stored = service.ask("PUT", "/voice/media/a/b.ogg", b"OggS")
        assert stored.headers["Location"] == "/voice/media/a/b.ogg"
        assert service.ask("GET", "/voice/health").json["uploads"] == 0
        assert service.ask("GET", "/voice/openapi.json").json["servers"] == [{"url": "/voice"}]
        with service.connect() as uploading:
            uploading.send(head("PUT", "/voice/media/a/c.wav", [("Content-Length", "3")]) + b"ab")
            eventually(
                "it uploads", lambda: service.ask("GET", "/voice/health").json["uploads"] == 1
            )
            service.signal(signal.SIGTERM)
            uploading.send(b"c")
            assert uploading.answer().brief == (201, 200)
        service.wait()
        assert service.tree() == ["a", "a/b.ogg", "a/c.wav"]
    finally:
        service.kill()

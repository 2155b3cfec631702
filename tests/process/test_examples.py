"""The programs in examples/, and the one in docs/embedding.md, work as described."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.process.exchange import Connection, chunked, head, request
from tests.process.nasty import Nasty
from tests.process.running import START_S, TWISTD, Process, connects, eventually, free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
EMBEDDING = Path(__file__).parents[2] / "docs" / "embedding.md"
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
        eventually("it listens", lambda: connects(port), START_S)
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
    # They overlap if they have waited for more time than has passed. It is rounded a little.
    costs = sum(float(match[1]) for match in found if match is not None)
    assert (spent < costs - 0.01) == at_once


def test_an_application_embeds_the_tree(tmp_path: Path) -> None:
    with program([sys.executable, str(EXAMPLES / "embed.py"), "area/media", "0"], tmp_path) as it:
        assert it.ask("GET", "/hello").content == b"Recordings are under /voice/media/.\n"
        stored = it.ask("PUT", "/voice/media/a/b.ogg", b"OggS")
        assert stored.headers["Location"] == "/voice/media/a/b.ogg"
        assert it.ask("GET", "/voice/health").json["uploads"] == 0
        assert it.ask("GET", "/voice/openapi.json").json["servers"] == [{"url": "/voice"}]
        own = quote(f"http://127.0.0.1:{it.port}/hello", safe="")
        assert it.ask("GET", f"/voice/fetch?url={own}").brief == (403, 511)
        assert upload_while_stopping(it, "/voice/media/a/c.wav") == 0
        assert it.tree() == ["a", "a/b.ogg", "a/c.wav"]


def test_an_application_that_cannot_listen_reports_that_and_ends(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = embed_to_its_end(tmp_path / "media", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert re.fullmatch(r"cannot start: .*Address already in use\.\n", done.stderr)
    assert "Traceback" not in done.stdout
    assert (tmp_path / "media").is_dir()  # so the store was started, and let the program end


def test_an_application_that_cannot_use_its_root_reports_that_and_ends(tmp_path: Path) -> None:
    (tmp_path / "media").write_bytes(b"")
    done = embed_to_its_end(tmp_path / "media", "0")
    assert done.returncode == 1
    assert (
        done.stderr == f"cannot start: the root {tmp_path}/media cannot be used: Not a directory\n"
    )
    assert "Traceback" not in done.stdout


# Runs an example in which a step of stopping fails.
FAILING_TO_STOP = """
import runpy, sys
from twistedmedia import DirectoryStore, Fetcher, MediaSite

def close(self):
    raise RuntimeError("a part fails to stop")

async def stop(self, stop=DirectoryStore.stop):
    await stop(self)
    print("the store has stopped")

{failing}.close, DirectoryStore.stop = close, stop
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("failing", ["Fetcher", "MediaSite"])
def test_an_application_stops_its_store_whatever_else_fails(tmp_path: Path, failing: str) -> None:
    code = FAILING_TO_STOP.replace("{failing}", failing)
    example = str(EXAMPLES / "embed.py")
    with program([sys.executable, "-c", code, example, "area/media", "0"], tmp_path) as it:
        assert it.stop() == 1
        assert "the store has stopped" in it.log
        assert "a part fails to stop" in it.log


@pytest.fixture
def documented(tmp_path: Path) -> Iterator[Process]:
    """The program in docs/embedding.md, unchanged except for a free port."""
    code = "\n".join(indented(EMBEDDING.read_text(encoding="utf-8")))
    here = code.replace('Voice(reactor, "media", 8000)', 'Voice(reactor, "area/media", 0)')
    assert here != code
    (tmp_path / "media.tac").write_text(here, encoding="utf-8")
    with program([TWISTD, "-n", "--pidfile=", "-y", "media.tac"], tmp_path) as it:
        yield it


def test_the_documented_service_serves_logs_and_ends(documented: Process, tmp_path: Path) -> None:
    assert documented.ask("GET", "/hello").content == b"Media are under /voice/media/.\n"
    stored = documented.ask("PUT", "/voice/media/a/b.ogg", b"OggS")
    assert stored.headers["Location"] == stored.files[0]["url"] == "/voice/media/a/b.ogg"
    assert documented.ask("GET", "/voice/media/a/b.ogg").content == b"OggS"
    assert documented.ask("GET", "/voice/fetch?url=http://127.0.0.1/").brief == (403, 511)
    for host, status in [("localhost", 200), ("media.example", 403)]:
        headers = {"Host": host}
        assert documented.ask("GET", "/voice/media/", headers=headers).status == status
        assert documented.ask("GET", "/hello", headers=headers).status == 200
    log = tmp_path / "access.log"
    eventually("requests are logged", lambda: log.read_text().count("\n") >= 8)
    log.rename(tmp_path / "access.log.1")
    documented.signal(signal.SIGHUP)
    eventually("there is a new log", log.exists)
    ended = upload_while_stopping(documented, "/voice/media/a/c.wav")
    assert ended == -signal.SIGTERM  # as every twistd ends
    assert documented.tree() == ["a", "a/b.ogg", "a/c.wav"]
    assert "PUT /voice/media/a/c.wav" in log.read_text()
    assert "Traceback" not in documented.log


def test_the_documented_resource_streams(documented: Process) -> None:
    url = "/count/"
    waits = [("Transfer-Encoding", "chunked"), ("Expect", "100-continue")]
    with documented.connect() as connection:
        connection.send(request("PUT", url, bytes(300_000)))
        assert dechunked(connection) == (200, b"300000 bytes\n")
        connection.send(request("PUT", url, b""))
        assert dechunked(connection) == (200, b"0 bytes\n")
        connection.send(head("PUT", url, waits))
        assert connection.answer_head()[0] == 100  # so it reads before there is anything
        connection.send(chunked([b"ab", b"c"]))
        assert dechunked(connection) == (200, b"3 bytes\n")
        connection.send(head("PUT", url, waits[:1]) + b"no length\r\n")
        status, reason = dechunked(connection)
        assert status == 400
        assert b"the chunked content was rejected after 0 bytes" in reason


def test_the_documented_resource_is_cancelled_when_its_client_goes(documented: Process) -> None:
    with documented.unchanged_descriptors(), documented.connect() as leaving:
        leaving.send(head("PUT", "/count/", [("Content-Length", "9"), ("Expect", "100-continue")]))
        assert leaving.answer_head()[0] == 100
        leaving.send(b"a")
    assert documented.stop() == -signal.SIGTERM
    assert "Traceback" not in documented.log


def test_the_documented_guard_requires_the_token(documented: Process) -> None:
    url, token = "/guarded/media/a/b.wav", {"Authorization": "Bearer secret"}
    refused = documented.ask("PUT", url, bytes(300_000))
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert documented.ask("GET", url, headers={"Authorization": "Bearer else"}).status == 401
    stored = documented.ask("PUT", url, bytes(300_000), token)
    assert stored.headers["Location"] == url
    assert documented.ask("GET", url, headers=token).content == bytes(300_000)
    assert documented.ask("GET", "/guarded/media/", headers=token).json["entries"] == [
        {"name": "a/", "url": "/guarded/media/a/"}
    ]


def indented(page: str) -> list[str]:
    """The code blocks of a page, in their order."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=\n*    ))+", page, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


@contextlib.contextmanager
def program(command: list[str], folder: Path) -> Iterator[Process]:
    """Run `command` in `folder`, with the media in `area/media`."""
    (folder / "area").mkdir()
    process = Process(command, folder, folder / "program.log", folder / "area" / "media")
    try:
        yield process
    finally:
        process.kill()


def dechunked(connection: Connection) -> tuple[int, bytes]:
    """The status and the content of a response, for which Klein sends no length."""
    answer = HTTPResponse(connection.socket)
    answer.begin()
    return answer.status, answer.read()


def test_wrong_arguments_end_an_example_with_a_sentence(tmp_path: Path, nasty: Nasty) -> None:
    (tmp_path / "tone.wav").write_bytes(bytes(300))
    nobody = f"http://127.0.0.1:{free_port()}"
    wrong = {
        ("upload.py", "none.wav", nobody): "none.wav: No such file or directory",
        ("upload.py", "tone.wav", nobody): f"{nobody} cannot be reached: ",
        ("upload.py", "tone.wav", nasty.url("/")): "does not answer as a media service does",
        ("upload.py", "tone.wav", "nonsense"): "does not answer as a media service does",
        ("resumable.py", "tone.wav", "http://h:8000/media"): "is a resource of a service",
        ("embed.py", "area", "x"): "'x' is not a port",
        ("embed.py", "area", "99999"): "'99999' is not a port",
    }
    for (example, *arguments), said in wrong.items():
        done = subprocess.run(
            [sys.executable, EXAMPLES / example, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        assert said in done.stderr.splitlines()[0]
        assert "Traceback" not in done.stdout + done.stderr


def embed_to_its_end(root: Path, port: str) -> subprocess.CompletedProcess[str]:
    """Run `embed.py`, which is expected to end by itself."""
    command = [sys.executable, EXAMPLES / "embed.py", root, port]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def upload_while_stopping(process: Process, url: str) -> int:
    """Stop `process` while it receives a file, and check that the file is stored. Returns the exit
    status.
    """
    with process.connect() as uploading:
        uploading.send(head("PUT", url, [("Content-Length", "3")]) + b"ab")
        eventually("it uploads", lambda: process.ask("GET", "/voice/health").json["uploads"] == 1)
        process.signal(signal.SIGTERM)
        uploading.send(b"c")
        assert uploading.answer().brief == (201, 200)
    return process.wait()

"""Pipelined requests: they wait in the peer's kernel, and other clients do not wait (cases 24 and
46).
"""

from __future__ import annotations

import re
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.process import embedded
from tests.process.exchange import Connection, request
from tests.process.running import NOWHERE, TWISTD, Process, eventually

LARGE_BYTES = 20 << 20
FLOOD_BYTES = 64 << 20
# Bytes that may be in flight: buffered by both kernels and by the service.
TAKEN_BYTES = 16 << 20
MEMORY_BYTES = 24 << 20
ROUNDS = 5  # on a busy machine a single wait says little


def resident(service: Process) -> int:
    status = Path(f"/proc/{service.pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) << 10


def flood(client: socket.socket, data: bytes) -> int:
    """Send `data` repeatedly until the peer takes no more for a while. Returns the size sent."""
    client.settimeout(1.0)
    sent = 0
    try:
        while sent < FLOOD_BYTES:
            sent += client.send(data)
    except TimeoutError:
        pass
    return sent


@pytest.fixture
def on_a_path(tmp_path: Path) -> Iterator[tuple[Process, str]]:
    """A service that also listens on a UNIX socket, and the path of the socket."""
    path = str(tmp_path / "socket")
    root = tmp_path / "area" / "media"
    root.parent.mkdir()
    command = [sys.executable, embedded.__file__, "MediaSite", str(root), "api", "--unix", path]
    service = Process(command, tmp_path, tmp_path / "log", root)
    yield service, path
    service.kill()


def test_input_behind_an_unread_response_stays_with_the_peer(service: Process, folder: str) -> None:
    url = f"/media/{folder}/large.wav"
    assert service.ask("PUT", url, bytes(LARGE_BYTES)).status == 201
    with service.connect() as client:
        client.send(request("GET", url))
        before = resident(service)
        assert flood(client.socket, b"G" * 65536) < TAKEN_BYTES
        assert resident(service) - before < MEMORY_BYTES


def test_so_does_input_on_a_unix_socket(on_a_path: tuple[Process, str]) -> None:
    service, path = on_a_path
    assert service.ask("PUT", "/api/media/a/large.wav", bytes(LARGE_BYTES)).status == 201
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(request("GET", "/api/media/a/large.wav"))
        before = resident(service)
        assert flood(client, b"G" * 65536) < TAKEN_BYTES
        assert resident(service) - before < MEMORY_BYTES


def test_many_requests_whose_responses_are_not_read_cost_little(
    service: Process, folder: str
) -> None:
    url = f"/media/{folder}/small.wav"
    assert service.ask("PUT", url, bytes(60_000)).status == 201
    with service.connect() as client:
        before = resident(service)
        assert flood(client.socket, request("GET", url) * 100) < TAKEN_BYTES
        assert resident(service) - before < MEMORY_BYTES
        client.socket.settimeout(20)
        assert client.answer().status == 200  # they get responses once these are read


@pytest.mark.parametrize("target", [NOWHERE, "/openapi.json"])
def test_a_thousand_requests_in_one_piece_do_not_keep_others_waiting(
    service: Process, target: str
) -> None:
    one = request("HEAD", target)
    piped = 65_000 // len(one)
    took: list[float] = []
    with service.connect() as greedy, service.connect() as other:
        assert other.ask("GET", NOWHERE).status == 404
        for _ in range(ROUNDS):
            greedy.send(one * piped)
            begun = time.monotonic()
            assert other.ask("GET", NOWHERE).status == 404
            took.append(time.monotonic() - begun)
            statuses = {greedy.answer("HEAD").status for _ in range(piped)}
            assert len(statuses) == 1
        assert greedy.ask("GET", NOWHERE).status == 404
    assert sorted(took)[ROUNDS // 2] < 0.15, took  # all of them take twice that at least


def test_pipelined_requests_of_all_kinds_get_their_responses_in_order(
    service: Process, folder: str
) -> None:
    """Requests that wait for a thread, that do not, and that have content."""
    kinds: list[tuple[bytes, str, int]] = []
    for n in range(30):
        url = f"/media/{folder}/{n}.wav"
        kinds += [
            (request("PUT", url, b"x" * (n * 3000)), "PUT", 201),
            (request("GET", NOWHERE), "GET", 404),
            (request("GET", url), "GET", 200),
            (request("HEAD", "/health"), "HEAD", 200),
            (request("DELETE", url), "DELETE", 200),
        ]
    with service.connect() as connection:
        connection.send(b"".join(sent for sent, _, _ in kinds))
        for _, method, status in kinds:
            assert connection.answer(method).status == status


def test_the_cache_of_header_names_is_limited(serve: Callable[..., Process]) -> None:
    service = serve()
    with service.connect() as connection:
        connection.ask("GET", NOWHERE)
        before = resident(service)
        for n in range(2_000):
            sent = request("GET", NOWHERE, headers={f"X-{n}-".ljust(120, "y"): "z"})
            connection.send(sent)
            assert connection.answer().status == 404
        assert resident(service) - before < 8 << 20
    with service.connect() as connection:
        connection.send(request("GET", NOWHERE, headers={"y" * 129: "z"}))
        assert connection.answer().brief == (431, 431)


def test_a_step_of_stopping_that_fails_does_not_keep_the_others_from_being_taken(
    tmp_path: Path,
) -> None:
    """Case 47. The path of a UNIX socket was removed."""
    path, log = tmp_path / "socket", tmp_path / "access.log"
    root = tmp_path / "area" / "media"
    root.parent.mkdir()
    listen = ["--listen", f"unix:{path}", "--listen", "tcp:0:interface=127.0.0.1"]
    command = [TWISTD, "-n", "--pidfile=", "media", "--root", str(root), *listen]
    service = Process([*command, "--access-log", str(log)], tmp_path, tmp_path / "log", root)
    try:
        with service.connect() as uploading:
            sent = request("PUT", "/media/a/b.wav", b"abcde")
            uploading.send(sent[:-2])
            path.unlink()
            service.signal(signal.SIGTERM)
            eventually("it stops", lambda: "stopping: " in service.log)
            uploading.send(sent[-2:])
            assert uploading.answer().brief == (201, 200)
        service.wait()
        assert re.search(r'"PUT /media/a/b.wav HTTP/1.1" 201', log.read_text())
        assert "stopping: closing the ports failed" in service.log
    finally:
        service.kill()


def test_tls_that_does_not_agree_to_end_is_cut(tmp_path: Path) -> None:
    """RFC 8446, 6.1: neither side has to wait for the other's close_notify."""
    root = tmp_path / "area" / "media"
    root.parent.mkdir()
    command = [sys.executable, embedded.__file__, "MediaSite", str(root), "api", "--tls"]
    service = Process(command, tmp_path, tmp_path / "log", root)
    try:
        port = int(re.findall(r"starting on (\d+)", service.log)[1])
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", port), 20)
        # A client that never reads, so it does not see `Connection: close`.
        with context.wrap_socket(plain) as client:
            client.sendall(request("GET", "/api/health", headers={"Connection": "close"}))
            assert Connection(client).answer().status == 200
            end = time.monotonic() + 15
            while service.ask("GET", "/api/health").json["connections"] > 1:
                assert time.monotonic() < end, "it is waited for"
                time.sleep(0.1)
    finally:
        service.kill()

"""Case 51: clients that close their sending side, or the connection, after their last byte."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import re
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from ssl import SSLSocket, create_default_context

import pytest

from tests.fetch.test_certificates import Authority
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
from tests.process.nasty import Nasty
from tests.process.running import Process, eventually, running

CONTENT = Random(51).randbytes(300_000)
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


def metadata(name: str) -> str:
    return f"filename {base64.b64encode(name.encode()).decode()}"


def put(folder: str, name: str) -> bytes:
    return request("PUT", f"/media/{folder}/{name}", CONTENT)


def chunked_put(folder: str, name: str) -> bytes:
    pieces = [CONTENT[:100_000], CONTENT[100_000:]]
    return head("PUT", f"/media/{folder}/{name}", [("Transfer-Encoding", "chunked")]) + chunked(
        pieces
    )


def multipart(folder: str, name: str) -> bytes:
    content = form(part("note", None, b"a text"), part(folder, name, CONTENT))
    return request("POST", "/media", content, {"Content-Type": MULTIPART})


def fields(folder: str, name: str) -> bytes:
    content = urlencoded(("body", CONTENT), ("directory", folder), ("filename", name))
    return request("POST", "/media", content, {"Content-Type": URLENCODED})


def creation(folder: str, name: str) -> bytes:
    headers = {**TUS, "Upload-Length": str(len(CONTENT)), "Upload-Metadata": metadata(name)}
    return request("POST", f"/uploads/{folder}", CONTENT, headers)


UPLOADS = {each.__name__: each for each in (put, chunked_put, multipart, fields, creation)}
uploads = pytest.mark.parametrize("upload", UPLOADS.values(), ids=UPLOADS)


def unacknowledged(connection: socket.socket) -> int:
    """Bytes that the service's kernel has not taken yet (tcp(7), SIOCOUTQ)."""
    left = fcntl.ioctl(connection, termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", left)[0])


def close(connection: Connection) -> None:
    connection.close()


def half_close_then_close(connection: Connection) -> None:
    connection.socket.shutdown(socket.SHUT_WR)
    connection.close()


def reset(connection: Connection) -> None:
    """Reset the connection after the kernel has taken everything."""
    eventually("the kernel has everything", lambda: unacknowledged(connection.socket) == 0)
    connection.reset()


@uploads
def test_a_half_closed_client_has_its_upload_stored_and_answered(
    service: Process, folder: str, upload: Callable[[str, str], bytes]
) -> None:
    for n in range(5):
        with service.connect() as connection:
            connection.send(upload(folder, f"{n}.wav"))
            connection.socket.shutdown(socket.SHUT_WR)
            assert connection.answer().status == 201
            assert connection.is_ended()
        assert (service.root / folder / f"{n}.wav").read_bytes() == CONTENT


@pytest.mark.parametrize("leave", [close, half_close_then_close, reset])
@uploads
def test_a_completely_sent_upload_is_stored_although_its_client_disconnects(
    service: Process,
    folder: str,
    upload: Callable[[str, str], bytes],
    leave: Callable[[Connection], None],
) -> None:
    digest = hashlib.sha256(CONTENT).digest()
    descriptors = len(service.descriptors())
    for n in range(20):
        connection = service.connect()
        connection.send(upload(folder, f"{n}.wav"))
        leave(connection)
    for n in range(20):
        path = service.root / folder / f"{n}.wav"
        eventually(f"{path} is stored", path.exists)
        assert hashlib.sha256(path.read_bytes()).digest() == digest
    eventually("all is let go of", lambda: len(service.descriptors()) <= descriptors)
    eventually("no request is left", lambda: service.ask("GET", "/health").json["connections"] == 1)


def test_each_is_in_the_access_log_once_with_its_status(
    serve: Callable[..., Process], tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    service = serve("--access-log", str(log))
    for n in range(20):
        connection = service.connect()
        connection.send(put("logged", f"{n}.wav"))
        (close, half_close_then_close, reset)[n % 3](connection)

    def lines() -> list[str]:
        return [line for line in log.read_text().splitlines() if "PUT" in line]

    eventually("all are logged", lambda: len(lines()) >= 20)
    service.ask("GET", "/health")
    eventually("the next one is logged", lambda: "/health" in log.read_text())
    for n in range(20):
        (line,) = [line for line in lines() if f"/logged/{n}.wav " in line]
        assert '" 201 ' in line


def test_a_large_file_arrives_whole_at_a_half_closed_client(service: Process, folder: str) -> None:
    content = Random(52).randbytes(40 << 20)
    path = service.root / folder / "a.wav"
    path.parent.mkdir()
    path.write_bytes(content)
    with service.connect() as connection:
        connection.send(request("GET", f"/media/{folder}/a.wav"))
        connection.socket.shutdown(socket.SHUT_WR)
        answer = connection.answer()
        assert answer.content == content
        assert connection.is_ended()


def test_files_are_not_read_for_a_client_that_closes_both_sides(
    service: Process, folder: str
) -> None:
    """Only what the kernel took before the reset is read."""
    path = service.root / folder / "a.wav"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(4 << 30)
    for _ in range(5):
        before = service.processor_time()
        with service.unchanged_descriptors():
            connection = service.connect()
            connection.send(request("GET", f"/media/{folder}/a.wav"))
            connection.read(1000)
            connection.close()
        assert service.processor_time() - before < 0.5


ROUTES = {
    "file": (request("GET", "/media/{}/a.wav"), 200),
    "missing file": (request("GET", "/media/{}/b.wav"), 404),
    "listing": (request("GET", "/media/{}/"), 200),
    "health": (request("GET", "/health"), 200),
    "description": (request("GET", "/openapi.json"), 200),
    "fetch": (request("GET", "/fetch?url=http://127.0.0.1:9/"), 403),
    "deletion": (request("DELETE", "/media/{}/a.wav"), 200),
    "tus options": (request("OPTIONS", "/uploads/"), 204),
    "tus creation": (
        request(
            "POST",
            "/uploads/{}",
            b"",
            {**TUS, "Upload-Length": "10", "Upload-Metadata": metadata("c.wav")},
        ),
        201,
    ),
    "tus patch": (
        request("PATCH", "/uploads/" + "0" * 32, b"x", {**TUS, "Upload-Offset": "0"}),
        404,
    ),
    "malformed": (b"nonsense\r\n\r\n", 400),
}


@pytest.mark.parametrize(("sent", "status"), ROUTES.values(), ids=ROUTES)
def test_every_route_responds_to_a_half_closed_client(
    service: Process, folder: str, sent: bytes, status: int
) -> None:
    service.ask("PUT", f"/media/{folder}/a.wav", CONTENT)
    with service.connect() as connection:
        connection.send(sent.replace(b"{}", folder.encode()))
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.answer().status == status
        assert connection.is_ended()


def test_several_requests_before_the_close_are_all_answered(service: Process, folder: str) -> None:
    names = [f"{n}.wav" for n in range(40)]
    with service.connect() as connection:
        connection.send(b"".join(request("PUT", f"/media/{folder}/{name}", b"x") for name in names))
        connection.socket.shutdown(socket.SHUT_WR)
        assert [connection.answer().status for _ in names] == [201] * 40
        assert connection.is_ended()


def test_the_first_upload_whose_response_is_not_read_is_stored_and_the_last_is_not(
    service: Process, folder: str
) -> None:
    """The first response resets the connection. Then the other requests are dropped."""
    names = [f"{n}.wav" for n in range(40)]
    service.signal(signal.SIGSTOP)  # so that it sees the requests and the close together
    try:
        connection = service.connect()
        connection.send(b"".join(request("PUT", f"/media/{folder}/{name}", b"x") for name in names))
        connection.close()
    finally:
        service.signal(signal.SIGCONT)
    eventually("the first is stored", (service.root / folder / names[0]).exists)
    eventually("no request is left", lambda: service.ask("GET", "/health").json["connections"] == 1)
    stored = sorted(path.name for path in (service.root / folder).iterdir())
    assert stored == sorted(names[: len(stored)])
    assert len(stored) < len(names)


# TLS


@contextmanager
def encrypted(folder: Path, *options: str) -> Iterator[tuple[Process, Callable[[], SSLSocket]]]:
    """A service that listens on a TLS endpoint as well, and how to connect to it."""
    (folder / "key.pem").write_bytes(Authority("localhost").pem)
    client = create_default_context(cafile=str(folder / "key.pem"))
    endpoint = f"ssl:0:interface=127.0.0.1:privateKey={folder}/key.pem"
    listen = ("--listen=tcp:0:interface=127.0.0.1", f"--listen={endpoint}")
    with running(folder / "area" / "media", *listen, *options) as service:
        said = re.compile(r"listening on https://127\.0\.0\.1:(\d+)/")
        eventually("it says its port", lambda: said.search(service.log) is not None)
        (port,) = said.findall(service.log)

        def connect() -> SSLSocket:
            plain = socket.create_connection(("127.0.0.1", int(port)), 20)
            return client.wrap_socket(plain, server_hostname="localhost")

        yield service, connect


def test_an_upload_over_tls_is_stored_although_its_client_disconnects(tmp_path: Path) -> None:
    with encrypted(tmp_path) as (service, connect):
        for n in range(10):
            connection = connect()
            connection.sendall(put("tls", f"{n}.wav"))
            # It closes with session tickets unread, so its kernel drops data in flight.
            eventually("the kernel has everything", lambda tls=connection: unacknowledged(tls) == 0)
            connection.close()
        for n in range(10):
            path = service.root / "tls" / f"{n}.wav"
            eventually(f"{path} is stored", path.exists)
            assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("leaves", [False, True])
def test_the_grace_period_ends_requests_that_outlive_connections_over_tls(
    tmp_path: Path, nasty: Nasty, leaves: bool
) -> None:
    """TLS does not report that this side has aborted a connection."""
    with encrypted(tmp_path, "--grace=1s", "--fetch-allow=127.0.0.1") as (service, connect):
        with connect() as connection:
            fields = [("url", nasty.url("/hangs")), ("directory", "a"), ("filename", "a.wav")]
            content = urlencoded(*fields)
            connection.sendall(request("POST", "/media", content, {"Content-Type": URLENCODED}))
            eventually("it is under way", lambda: nasty.busy == 1)
            if leaves:
                connection.close()
            begun_s = time.monotonic()
            service.stop()
        assert time.monotonic() - begun_s < 5
        eventually("the upstream is let go of", lambda: nasty.busy == 0)

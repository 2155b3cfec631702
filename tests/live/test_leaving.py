"""Clients that leave: after their last byte, just before it, and in the middle of an answer.

A request that was sent whole is carried out, whether its client half-closes, closes or resets
(case 51). One that lacks its last byte is not. `tests/service/test_leaving.py` cuts requests
everywhere else.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

import pytest
from OpenSSL import SSL

from tests.live.support import clean_environment
from tests.live.test_tus import TUS, begin, on_its_way, part_head
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
from tests.process.running import Process, eventually, running

CLIENTS = 6
BLOCK = Random(51).randbytes(6 << 20)
SIZES = {1: 30, 1 << 10: 30, 70 << 10: 25, 700 << 10: 13, 5 << 20: 2}  # and how many of 100 have it
HANDED_OVER_BYTES = 1 << 10  # of a content that one segment brings
SETTLED_S = 120.0
AT_ONCE_S = 4.0  # a connection lingers for 5 s
LARGE = "/media/large/large.wav"
LARGE_BYTES = 200 << 20
# What the kernel may hold of an answer: the send buffer of one socket and the receive buffer of
# the other (tcp_wmem and tcp_rmem allow 4 MiB and 6 MiB), and what is being sent at that moment.
BUFFERED_BYTES = 32 << 20
NUMBERS = count()
COUNTS = [60, pytest.param(1000, marks=pytest.mark.long)]


@dataclass(frozen=True)
class Watched:
    """A service and its access log."""

    service: Process
    log: Path

    def logged(self, agent: str) -> int:
        """How many lines have a User-Agent that begins so."""
        return len(self.agents(agent))

    def agents(self, agent: str) -> list[str]:
        """The User-Agents that begin so, of all lines."""
        found = re.findall(r'"([^"]*)" [\d.]+$', self.log.read_text(encoding="ascii"), re.M)
        return [each for each in found if each.startswith(agent)]

    def sent(self, agent: str) -> int:
        """The bytes of content that the line of this User-Agent says were sent."""
        (line,) = [
            line
            for line in self.log.read_text(encoding="ascii").splitlines()
            if f'"{agent}"' in line
        ]
        found = re.search(r'" \d{3} (\d+|-) "', line)
        assert found is not None, line
        return 0 if found[1] == "-" else int(found[1])


@dataclass(frozen=True)
class Upload:
    """One file on its way to a service, and the request that brings its last byte."""

    to: Watched
    kind: str
    directory: str
    number: int

    @property
    def agent(self) -> str:
        return f"{self.directory}-{self.number}-"

    @property
    def filename(self) -> str:
        return f"{self.number}.wav"

    @property
    def content(self) -> bytes:
        (size,) = Random(f"{self.kind} {self.number}").choices([*SIZES], [*SIZES.values()])
        return BLOCK[self.number : self.number + size]

    @property
    def is_stored(self) -> bool:
        """Whether it is there. It has to be whole then."""
        try:
            stored = (self.to.service.root / self.directory / self.filename).read_bytes()
        except FileNotFoundError:
            return False
        assert stored == self.content, f"{self} is not whole: {len(stored)} bytes"
        return True

    def last_request(self, connection: Connection) -> bytes:
        """The request that is complete when the file is. What has to come before it is sent."""
        return signed(self._last_request(connection), self.agent)

    def _last_request(self, connection: Connection) -> bytes:
        content, name = self.content, f"{self.directory}/{self.filename}"
        halves = content[: len(content) // 2], content[len(content) // 2 :]
        match self.kind:
            case "put":
                return request("PUT", f"/media/{name}", content)
            case "chunked put":
                coding = [("Transfer-Encoding", "chunked")]
                return head("PUT", f"/media/{name}", coding) + chunked(filter(None, halves))
            case "form":
                parts = form(part(self.directory, self.filename, content))
                return request("POST", "/media", parts, {"Content-Type": MULTIPART})
            case "fields":
                where = (("directory", self.directory), ("filename", self.filename))
                fields = urlencoded(*where, ("body", content))
                return request("POST", "/media", fields, {"Content-Type": URLENCODED})
            case "tus creation":
                return begin(name, len(content), content)
            case "tus patch":
                connection.send(begin(name, len(content), halves[0]))
                created = connection.answer()
                assert created.status == 201, created
                target = str(created.headers["Location"])
                return part_head(target, len(halves[0]), len(halves[1])) + halves[1]
        raise AssertionError(self.kind)


KINDS = ("put", "chunked put", "form", "fields", "tus creation", "tus patch")


def signed(request: bytes, agent: str) -> bytes:
    """`request` with the name of its client."""
    line, _, rest = request.partition(b"\r\n")
    return b"%b\r\nUser-Agent: %b\r\n%b" % (line, agent.encode(), rest)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Watched]]:
    """One that syncs and one that does not. Clients that do not wait for an answer can have more
    uploads in progress than there are clients.
    """
    options = ("--max-uploads", "2000", "--max-unfinished", "100000")
    with ExitStack() as stack:
        watched = []
        for durability in ("--durable", "--no-durable"):
            area = tmp_path_factory.mktemp("leaving") / "area"
            log = area.with_name("access.log")
            given = (durability, "--access-log", str(log), *options)
            watched.append(Watched(stack.enter_context(running(area / "media", *given)), log))
        yield watched


@pytest.fixture
def uploads(services: list[Watched]) -> Iterator[Callable[[str, int], list[Upload]]]:
    """Call it with a kind and a count for that many uploads, half of them to each service. What is
    stored goes after the test.
    """
    directory = f"leaving{next(NUMBERS)}"
    yield lambda kind, count: [
        Upload(services[number % 2], kind, directory, number) for number in range(count)
    ]
    for each in services:
        shutil.rmtree(each.service.root / directory, ignore_errors=True)


def half_close(connection: Connection) -> None:
    """Leave as a client that listens on: it gets its answer, and then the end."""
    connection.socket.shutdown(socket.SHUT_WR)
    answer = connection.answer()
    assert answer.status in (201, 204), answer
    assert connection.is_ended()


def half_close_too_early(connection: Connection) -> None:
    """Leave before the last byte, and listen on: no answer says that it worked."""
    connection.socket.shutdown(socket.SHUT_WR)
    assert not connection.read_to_the_end().startswith(b"HTTP/1.1 2")


def reset_when_read(connection: Connection) -> None:
    """Leave with a reset when the service has read everything from its socket."""
    eventually("the service has read everything", lambda: not on_its_way(connection), 60)
    connection.reset()


def send_all(uploads: list[Upload], *ways: Callable[[Connection], None], cut: int = 0) -> None:
    """Send each upload but for its last `cut` bytes, and leave. The ways take turns; so do the two
    services. Returns when the services have done with everything.
    """

    def send(upload: Upload) -> None:
        with upload.to.service.connect() as connection:
            last = upload.last_request(connection)
            connection.send(last[: len(last) - cut])
            ways[upload.number // 2 % len(ways)](connection)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, uploads))
    for service in {id(each.to): each.to.service for each in uploads}.values():
        eventually("nothing is in progress", lambda service=service: is_idle(service), SETTLED_S)


def is_idle(service: Process) -> bool:
    """Whether it has no upload, and no connection but the one that asks."""
    told = service.ask("GET", "/health").json
    return (told["uploads"], told["connections"]) == (0, 1)


def assert_logged_once(uploads: list[Upload]) -> None:
    """Each has a line in the access log, and no more than one."""
    expected = Counter(each.agent for each in uploads)
    services = list({id(each.to): each.to for each in uploads}.values())
    prefix = f"{uploads[0].directory}-"
    eventually(
        "every line is written",
        lambda: sum(each.logged(prefix) for each in services) >= len(uploads),
    )
    assert Counter(agent for each in services for agent in each.agents(prefix)) == expected


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_sent_whole_is_stored_though_the_client_leaves_after_its_last_byte(
    uploads: Callable[[str, int], list[Upload]], kind: str, count: int
) -> None:
    """Case 51: half of the clients half-close, half of them close."""
    sent = uploads(kind, count)
    send_all(sent, half_close, Connection.close)
    assert [each.number for each in sent if not each.is_stored] == []
    assert_logged_once(sent)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_lacks_its_last_byte_is_not_stored(
    uploads: Callable[[str, int], list[Upload]], kind: str, count: int
) -> None:
    """Case 1, at the last byte."""
    sent = uploads(kind, count)
    send_all(sent, half_close_too_early, Connection.close, Connection.reset, cut=1)
    assert [each.number for each in sent if each.is_stored] == []
    assert_logged_once(sent)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_service_has_read_is_stored_though_its_client_resets(
    uploads: Callable[[str, int], list[Upload]], kind: str, count: int
) -> None:
    """Case 51."""
    sent = uploads(kind, count)
    send_all(sent, reset_when_read)
    assert [each.number for each in sent if not each.is_stored] == []
    assert_logged_once(sent)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_sent_before_a_reset_is_stored_whole_or_not_at_all(
    uploads: Callable[[str, int], list[Upload]], kind: str, count: int
) -> None:
    """Case 51: a reset drops what the sender's kernel has not sent yet, so large ones may be
    missing. What is small has been handed over, and is stored.
    """
    sent = uploads(kind, count)
    send_all(sent, Connection.reset)
    missing = [each for each in sent if not each.is_stored]
    assert [each.number for each in missing if len(each.content) <= HANDED_OVER_BYTES] == []
    print(f"{kind}: {count - len(missing)} of {count} are stored")


# Readers


@pytest.fixture(scope="module")
def large(services: list[Watched]) -> Iterator[str]:
    """The target of a large file of the first service."""
    store_large(services[0].service)
    yield LARGE
    shutil.rmtree(services[0].service.root / "large")


def store_large(service: Process) -> None:
    """Put the large file into the root of a service."""
    folder = service.root / "large"
    folder.mkdir()
    with (folder / "large.wav").open("wb") as file:
        file.writelines(large_content())


def large_content() -> Iterator[bytes]:
    """The content of that file in pieces."""
    for start in range(0, LARGE_BYTES, len(BLOCK)):
        yield BLOCK[: LARGE_BYTES - start]


def test_a_large_answer_to_a_half_closed_client_arrives_whole(
    services: list[Watched], large: str
) -> None:
    """Case 51."""
    with services[0].service.connect() as connection:
        connection.send(request("GET", large))
        connection.socket.shutdown(socket.SHUT_WR)
        assert_arrives(connection)


def assert_arrives(connection: Connection) -> None:
    """The large file comes, and then the end."""
    status, headers = connection.answer_head()
    assert (status, headers["Content-Length"]) == (200, str(LARGE_BYTES))
    for number, piece in enumerate(large_content()):
        assert connection.read(len(piece)) == piece, f"piece {number} differs"
    assert connection.is_ended()


@dataclass(frozen=True)
class Tls:
    """A service that listens with TLS, and the folder of its certificate."""

    service: Process
    folder: Path

    @property
    def port(self) -> int:
        ports = {int(port) for port in re.findall(r"starting on (\d+)", self.service.log)}
        (port,) = ports - {self.service.port}
        return port

    @contextmanager
    def connect(self) -> Iterator[SSL.Connection]:
        """A client's end of a connection. It waits for as long as it takes: pyOpenSSL knows no
        other way to wait.
        """
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.load_verify_locations(str(self.folder / "certificate.pem"))
        context.set_verify(SSL.VERIFY_PEER)
        with socket.create_connection(("127.0.0.1", self.port)) as plain:
            connection = SSL.Connection(context, plain)
            connection.set_connect_state()
            connection.do_handshake()
            yield connection


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    folder = tmp_path_factory.mktemp("tls")
    make_certificate(folder)
    pem = f"privateKey={folder}/key.pem:certKey={folder}/certificate.pem"
    listen = ("--listen", "tcp:0:interface=127.0.0.1", "--listen", f"ssl:0:{pem}", "--open")
    with running(folder / "area" / "media", *listen) as service:
        store_large(service)
        yield Tls(service, folder)
        shutil.rmtree(service.root / "large")


def make_certificate(folder: Path) -> None:
    """`key.pem` and `certificate.pem`, which is its own authority."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem")
    name = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(
        ["openssl", "req", "-x509", *key, *name, "-days", "2", "-out", "certificate.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )


def say_close_notify(connection: SSL.Connection) -> None:
    """End the client's direction as RFC 8446, 6.1 has it, and read on."""
    connection.shutdown()
    received_to_the_end(connection)


def close_after_close_notify(connection: SSL.Connection) -> None:
    """As most libraries close."""
    connection.shutdown()
    connection.close()


def close_without_notice(connection: SSL.Connection) -> None:
    """As a process does that ends."""
    connection.close()


def received_to_the_end(connection: SSL.Connection) -> bytes:
    """What comes until the connection ends, in good order or not."""
    received = bytearray()
    with suppress(SSL.ZeroReturnError, SSL.SysCallError):
        while True:
            received += connection.recv(1 << 20)
    return bytes(received)


@pytest.mark.parametrize(
    "leave", [say_close_notify, close_after_close_notify, close_without_notice]
)
def test_what_was_sent_whole_over_tls_is_stored_though_the_client_leaves(
    tls: Tls, leave: Callable[[SSL.Connection], None]
) -> None:
    """Case 51."""
    folder = f"tls{next(NUMBERS)}"
    contents = {f"{number}.wav": BLOCK[:size] for number, size in enumerate([*SIZES] * 4)}
    for name, content in contents.items():
        with tls.connect() as connection:
            # The session tickets come before this answer. Unread they would make close() a reset.
            connection.sendall(request("HEAD", LARGE))
            while b"\r\n\r\n" not in connection.recv(1 << 16):
                pass
            connection.sendall(request("PUT", f"/media/{folder}/{name}", content))
            leave(connection)
    eventually("nothing is in progress", lambda: is_idle(tls.service), SETTLED_S)
    stored = {path.name: path.read_bytes() for path in (tls.service.root / folder).glob("*")}
    assert sorted(stored) == sorted(contents)
    assert stored == contents


def test_an_answer_over_tls_to_a_client_that_has_said_close_notify_is_whole_or_cut_at_once(
    tls: Tls,
) -> None:
    """Twisted answers close_notify with its own and ends the connection, as TLS 1.2 demands (RFC
    5246, 7.2.1). The bytes before it are of no use, and do not look whole.
    """
    with tls.connect() as connection:
        connection.sendall(request("GET", LARGE))
        begun = time.monotonic()
        connection.shutdown()
        received = received_to_the_end(connection)
        took = time.monotonic() - begun
    _, _, content = received.partition(b"\r\n\r\n")
    if len(content) < LARGE_BYTES:
        assert took < AT_ONCE_S
    assert b"".join(large_content()).startswith(content)
    assert tls.service.ask("GET", "/health").status == 200


@pytest.mark.parametrize("takes", [0, 1, 1 << 20])
def test_a_reader_that_is_gone_costs_no_more_than_the_buffers_of_the_kernel(
    services: list[Watched], large: str, takes: int
) -> None:
    """Case 51: a client that closes sends the same as one that half-closes. The service goes on
    until the peer resets, which it does at the first byte that comes after.
    """
    service = services[0].service
    agent = f"gone{next(NUMBERS)}"
    with service.unchanged_descriptors():
        before = bytes_read(service)
        connection = service.connect()
        connection.send(signed(request("GET", large), agent))
        assert len(connection.read(takes)) == takes
        connection.close()
        eventually("it is in the access log", lambda: services[0].logged(agent) == 1)
    assert services[0].sent(agent) <= takes + BUFFERED_BYTES
    assert bytes_read(service) - before <= takes + BUFFERED_BYTES


def test_a_hundred_readers_that_are_gone_leave_nothing_open(
    services: list[Watched], large: str
) -> None:
    """Cases 25 and 51."""
    service = services[0].service
    with service.unchanged_descriptors():
        used = service.processor_time()
        for number in range(100):
            connection = service.connect()
            connection.send(request("GET", large))
            connection.read(number * 100)
            (connection.close if number % 2 else connection.reset)()
        eventually("nothing is in progress", lambda: is_idle(service), SETTLED_S)
    assert service.processor_time() - used < 10


def test_a_half_closed_reader_that_takes_nothing_is_cut_off(serve: Callable[..., Process]) -> None:
    """Case 51: it is waited for as any other reader is, and no longer."""
    service = serve("--stall", "2s")
    store_large(service)
    with service.unchanged_descriptors(), service.connect() as connection:
        connection.send(request("GET", LARGE))
        connection.socket.shutdown(socket.SHUT_WR)
        eventually("it is cut off", lambda: is_idle(service), 30)
        assert len(connection.read_to_the_end()) < LARGE_BYTES
    (service.root / LARGE.removeprefix("/media/")).unlink()


def bytes_read(service: Process) -> int:
    """How many bytes it has read so far, from files and sockets, also by sendfile (proc(5))."""
    counted = Path(f"/proc/{service.pid}/io").read_text(encoding="ascii")
    found = re.search(r"rchar: (\d+)", counted)
    assert found is not None, counted
    return int(found[1])


# Half-closed clients that say less than everything, or more


def test_pipelined_requests_of_a_half_closed_client_are_all_answered(
    services: list[Watched], large: str
) -> None:
    """Case 51."""
    service = services[0].service
    small = "/media/pipelined/a.wav"
    assert service.ask("PUT", small, b"a" * 1000).status == 201
    with service.connect() as connection:
        connection.send(request("GET", small) + request("GET", large) + request("GET", small))
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.answer().content == b"a" * 1000
        status, _ = connection.answer_head()
        assert status == 200
        for piece in large_content():
            assert connection.read(len(piece)) == piece
        assert connection.answer().content == b"a" * 1000
        assert connection.is_ended()


@pytest.mark.parametrize("size", [1, 10 << 10, 700 << 10])
def test_pipelined_uploads_of_a_half_closed_client_are_all_stored(
    services: list[Watched], size: int
) -> None:
    """Case 51."""
    service = services[0].service
    folder = f"pipeline{next(NUMBERS)}"
    with service.connect() as connection:
        connection.send(pipelined_uploads(folder, size))
        connection.socket.shutdown(socket.SHUT_WR)
        assert [connection.answer().status for _ in range(5)] == [201] * 5
        assert connection.is_ended()
    assert stored_in(service, folder) == [BLOCK[n : n + size] for n in range(5)]


@pytest.mark.parametrize("size", [1, 10 << 10])
def test_of_pipelined_uploads_whose_client_closes_the_first_ones_are_stored_whole(
    services: list[Watched], size: int
) -> None:
    """Case 51. The first response tells the service that the client is gone: it finishes the upload
    in progress, and drops those behind it.
    """
    service = services[0].service
    for _ in range(10):
        folder = f"pipeline{next(NUMBERS)}"
        with service.connect() as connection:
            connection.send(pipelined_uploads(folder, size))
        eventually("nothing is in progress", lambda: is_idle(service), SETTLED_S)
        stored = stored_in(service, folder)
        assert stored
        assert stored == [BLOCK[n : n + size] for n in range(len(stored))]


def pipelined_uploads(folder: str, size: int) -> bytes:
    """Five requests that each store another content of this size."""
    return b"".join(
        request("PUT", f"/media/{folder}/{n}.wav", BLOCK[n : n + size]) for n in range(5)
    )


def stored_in(service: Process, folder: str) -> list[bytes]:
    """The contents of the files of a folder, in the order of their names."""
    return [path.read_bytes() for path in sorted((service.root / folder).glob("*"))]


def test_a_pipeline_that_ends_within_a_request_has_the_whole_ones_answered(
    services: list[Watched],
) -> None:
    service = services[0].service
    for rest in (request("GET", "/health")[:-1], request("PUT", "/media/cut/a.wav", b"abc")[:-1]):
        with service.unchanged(), service.connect() as connection:
            connection.send(request("GET", "/health") + rest)
            connection.socket.shutdown(socket.SHUT_WR)
            assert connection.answer().status == 200
            assert not connection.read_to_the_end().startswith(b"HTTP/1.1 2")


CUT = {
    "before anything": b"",
    "within a request line": b"GET /hea",
    "within a head": request("GET", "/health")[:-1],
    "before the content": request("PUT", "/media/cut/a.wav", b"abc")[:-3],
    "one byte before the end": request("PUT", "/media/cut/a.wav", b"abc")[:-1],
    "before 100 Continue": head(
        "PUT", "/media/cut/a.wav", [("Content-Length", "3"), ("Expect", "100-continue")]
    ),
    "before the last chunk": head("PUT", "/media/cut/a.wav", [("Transfer-Encoding", "chunked")])
    + b"3\r\nabc\r\n",
}


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT)
def test_a_client_that_half_closes_within_a_request_is_done_with_at_once(
    services: list[Watched], cut: bytes
) -> None:
    service = services[0].service
    with service.unchanged(), service.connect() as connection:
        connection.send(cut)
        begun = time.monotonic()
        connection.socket.shutdown(socket.SHUT_WR)
        assert not connection.read_to_the_end().startswith(b"HTTP/1.1 2")
        assert time.monotonic() - begun < AT_ONCE_S


# nc


def netcat(port: int, sent: bytes) -> bytes:
    """What `nc -N` shows that sends this."""
    done = subprocess.run(
        ["nc", "-N", "127.0.0.1", str(port)],
        input=sent,
        capture_output=True,
        env=clean_environment(),
        timeout=20,
        check=True,
    )
    return done.stdout


ROUTES: dict[str, tuple[bytes, int]] = {
    "a file": (request("GET", "/media/nc/a.wav"), 200),
    "the head of a file": (request("HEAD", "/media/nc/a.wav"), 200),
    "a range": (request("GET", "/media/nc/a.wav", headers={"Range": "bytes=1-"}), 206),
    "no file": (request("GET", "/media/nc/none.wav"), 404),
    "a listing": (request("GET", "/media/nc/"), 200),
    "health": (request("GET", "/health"), 200),
    "the description": (request("GET", "/openapi.json"), 200),
    "a fetch": (request("GET", "/fetch?url=http://127.0.0.1:{port}/health"), 200),
    "an import": (
        request(
            "POST",
            "/media",
            b"directory=nc&filename=imported.wav&url=http://127.0.0.1:{port}/media/nc/a.wav",
            {"Content-Type": URLENCODED},
        ),
        201,
    ),
    "a put": (request("PUT", "/media/nc/put.wav", b"abc"), 201),
    "an empty put": (request("PUT", "/media/nc/empty.wav", b""), 201),
    "a chunked put": (
        head("PUT", "/media/nc/chunked.wav", [("Transfer-Encoding", "chunked")])
        + chunked([b"abc"]),
        201,
    ),
    "a form": (
        request("POST", "/media", form(part("nc", "f.wav", b"a")), {"Content-Type": MULTIPART}),
        201,
    ),
    "fields": (
        request(
            "POST",
            "/media",
            b"directory=nc&filename=fields.wav&body=a",
            {"Content-Type": URLENCODED},
        ),
        201,
    ),
    "a refusal": (request("PUT", "/media/nc/a.txt", b"abc"), 415),
    "a deletion": (request("DELETE", "/media/nc/gone.wav"), 200),
    "a deletion by fields": (
        request(
            "DELETE", "/media", b"directory=nc&filename=gone.wav", {"Content-Type": URLENCODED}
        ),
        200,
    ),
    "tus options": (request("OPTIONS", "/uploads/"), 204),
    "a tus creation": (begin("nc/tus.wav", 3), 201),
    "a tus creation with all content": (begin("nc/tus.wav", 3, b"abc"), 201),
    "a tus head": (request("HEAD", "{upload}", headers=TUS), 200),
    "a tus part": (part_head("{upload}", 0, 1) + b"a", 204),
    "the last tus part": (part_head("{upload}", 0, 3) + b"abc", 204),
    "a tus deletion": (request("DELETE", "{upload}", headers=TUS), 204),
}


@pytest.fixture(scope="module")
def fetching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service that may fetch from itself."""
    root = tmp_path_factory.mktemp("fetching") / "area" / "media"
    with running(root, "--fetch-allow", "127.0.0.1") as process:
        assert process.ask("PUT", "/media/nc/a.wav", b"abc").status == 201
        yield process


@pytest.mark.parametrize(("sent", "status"), ROUTES.values(), ids=ROUTES)
def test_nc_gets_an_answer_on_every_route(fetching: Process, sent: bytes, status: int) -> None:
    """Case 51: `nc -N` half-closes when it has sent what it was given."""
    with fetching.connect() as connection:
        connection.send(begin("nc/uploaded.wav", 3))
        upload = connection.answer().headers["Location"]
    sent = sent.replace(b"{upload}", str(upload).encode())
    shown, _, content = netcat(fetching.port, with_port(sent, fetching.port)).partition(b"\r\n\r\n")
    assert shown.startswith(b"HTTP/1.1 %d " % status), shown + content
    length = re.search(rb"(?im)^Content-Length: (\d+)", shown)
    if length is not None and not sent.startswith(b"HEAD"):
        assert len(content) == int(length[1])
    for name in ("uploaded", "tus"):
        (fetching.root / "nc" / f"{name}.wav").unlink(missing_ok=True)


def with_port(request: bytes, port: int) -> bytes:
    """`request` with this port in its URLs."""
    filled = request.replace(b"{port}", str(port).encode())
    changed = len(filled) - len(request)
    return re.sub(
        rb"(Content-Length: )(\d+)",
        lambda found: found[1] + b"%d" % (int(found[2]) + changed),
        filled,
    )

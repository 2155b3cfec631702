"""Whatever a request held is freed when it ends, however it ends, without the garbage collector.

Each exchange runs against a service whose collector is off. Afterwards the collector says what it
would have had to free: neither content, nor an object of ours.
"""

from __future__ import annotations

import re
import select
import sys
from base64 import b64encode
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.process import uncollected
from tests.process.exchange import (
    MULTIPART,
    URLENCODED,
    Connection,
    form,
    head,
    part,
    request,
)
from tests.process.running import Process, eventually
from tests.process.test_readers import by_tls, narrow

LISTED = 2000
NAME = "x" * 200
CONTENT = b"c" * 300_000
TUS = ("Tus-Resumable", "1.0.0")
UPSTREAM = "media/cycles/large.wav"
PART = ("Content-Type", "application/offset+octet-stream")
_NUMBERS = count(1)


class Exchanges:
    """What a client does to a service. The public methods that begin with a verb are the cases."""

    def __init__(self, service: Process, upstream: Process) -> None:
        self._service = service
        self._upstream = upstream

    def get_nothing(self) -> None:
        self._ask("GET", "/api/media/absent/x.wav", expect=404)

    def get_health(self) -> None:
        self._ask("GET", "/api/health")

    def connect_and_leave(self) -> None:
        self._connect().reset()

    def send_half_a_head(self) -> None:
        connection = self._connect()
        connection.send(b"GET /api/media/a/ HT")
        connection.reset()

    def send_a_malformed_head(self) -> None:
        with self._connect() as connection:
            connection.send(b"GET / nonsense\r\n\r\n")
            assert connection.answer().status == 400

    def list_and_leave_after_the_head(self) -> None:
        self._leave_after_head(self._narrow(), "/api/media/listed/?limit=10000")

    def list_and_leave_by_tls(self) -> None:
        self._leave_after_head(by_tls(self._service), "/api/media/listed/?limit=10000")

    def list_and_leave_at_once(self) -> None:
        connection = self._narrow()
        connection.send(request("GET", "/api/media/listed/?limit=10000"))
        connection.reset()

    def list_whole(self) -> None:
        self._ask("GET", "/api/media/listed/?limit=10000")

    def download_and_leave(self) -> None:
        self._leave_after_head(self._narrow(), "/api/media/there/large.wav")

    def download_and_leave_by_tls(self) -> None:
        self._leave_after_head(by_tls(self._service), "/api/media/there/large.wav")

    def download_whole(self) -> None:
        self._ask("GET", "/api/media/there/large.wav")

    def pipeline_and_leave(self) -> None:
        connection = self._narrow()
        connection.send(request("GET", "/api/openapi.json") * 16)
        connection.answer_head()
        connection.reset()

    def put_whole(self) -> None:
        self._ask("PUT", f"/api/media/{_name()}", CONTENT, expect=201)

    def put_and_leave(self) -> None:
        self._break_off(head("PUT", f"/api/media/{_name()}", [("Content-Length", "900000")]))

    def put_and_half_close(self) -> None:
        with self._connect() as connection:
            connection.send(head("PUT", f"/api/media/{_name()}", [("Content-Length", "900000")]))
            connection.send(CONTENT)
            connection.socket.shutdown(1)
            connection.read_to_the_end()

    def put_and_leave_after_the_last_byte(self) -> None:
        name = _name()
        connection = self._connect()
        connection.send(request("PUT", f"/api/media/{name}", CONTENT))
        connection.reset()
        stored = self._service.root / name
        eventually("it is stored, or broken off", lambda: stored.exists() or self._is_idle())

    def put_what_is_refused(self) -> None:
        self._ask("PUT", "/api/media/a/b.txt", CONTENT, expect=415)

    def put_what_is_there(self) -> None:
        self._ask("PUT", "/api/media/there/large.wav", CONTENT, expect=409)

    def put_and_leave_after_the_refusal(self) -> None:
        connection = self._connect()
        target = "/api/media/there/large.wav"
        connection.send(head("PUT", target, [("Content-Length", str(30 << 20))]) + CONTENT)
        assert connection.answer().status == 409
        connection.reset()

    def put_with_a_wrong_digest(self) -> None:
        digest = {"Content-Digest": f"sha-256=:{_encoded('x' * 32)}:"}
        self._ask("PUT", f"/api/media/{_name()}", CONTENT, digest, expect=400)

    def put_broken_chunks(self) -> None:
        with self._connect() as connection:
            fields = [("Transfer-Encoding", "chunked")]
            connection.send(head("PUT", f"/api/media/{_name()}", fields) + b"5\r\nhelloXXXXX")
            assert connection.answer().status == 400

    def post_a_form(self) -> None:
        self._ask("POST", "/api/media", _form(), {"Content-Type": MULTIPART}, expect=201)

    def post_a_form_of_which_a_part_fails(self) -> None:
        content = form(part("cycles", _filename(), CONTENT), part("there", "large.wav", CONTENT))
        self._ask("POST", "/api/media", content, {"Content-Type": MULTIPART}, expect=207)

    def post_half_a_form_and_leave(self) -> None:
        sent = request("POST", "/api/media", _form(), {"Content-Type": MULTIPART})
        self._break_off(sent[:-1000])

    def post_a_malformed_form(self) -> None:
        content = _form()[:-20]
        self._ask("POST", "/api/media", content, {"Content-Type": MULTIPART}, expect=400)

    def post_fields(self) -> None:
        self._ask("POST", "/api/media", _fields(), {"Content-Type": URLENCODED}, expect=201)

    def post_half_the_fields_and_leave(self) -> None:
        sent = request("POST", "/api/media", _fields(), {"Content-Type": URLENCODED})
        self._break_off(sent[:-1000])

    def upload_by_tus(self) -> None:
        upload = self._tus()
        self._ask("HEAD", upload, headers=dict([TUS]))
        self._ask("PATCH", upload, CONTENT, self._at(0), expect=204)

    def upload_by_tus_and_leave(self) -> None:
        self._break_off(request("PATCH", self._tus(), CONTENT, self._at(0))[:-1000])

    def upload_by_tus_twice_at_once(self) -> None:
        upload = self._tus()
        with self._connect() as connection:
            connection.send(request("PATCH", upload, CONTENT, self._at(0))[:-1000])
            self._until_begun()
            self._ask("HEAD", upload, headers=dict([TUS]))
            assert connection.answer().status == 409

    def upload_by_tus_at_a_wrong_offset_and_end_it(self) -> None:
        upload = self._tus()
        self._ask("PATCH", upload, CONTENT, self._at(5), expect=409)
        self._ask("DELETE", upload, headers=dict([TUS]), expect=204)
        self._ask("HEAD", upload, headers=dict([TUS]), expect=404)

    def delete(self) -> None:
        name = _name()
        self._ask("PUT", f"/api/media/{name}", CONTENT, expect=201)
        self._ask("DELETE", f"/api/media/{name}")
        self._ask("DELETE", f"/api/media/{name}")

    def import_whole(self) -> None:
        self._import(UPSTREAM, 201)

    def import_nothing(self) -> None:
        self._import("nothing", 502)

    def import_and_leave(self) -> None:
        content = self._importing(UPSTREAM)
        connection = self._connect()
        connection.send(request("POST", "/api/media", content, {"Content-Type": URLENCODED}))
        # It may have ended before anybody looked.
        eventually(
            "the import is in progress, or answered",
            lambda: not self._is_idle() or _is_answered(connection),
        )
        connection.reset()

    def fetch_whole(self) -> None:
        self._ask("GET", self._fetching(UPSTREAM))

    def fetch_and_leave(self) -> None:
        connection = self._connect()
        connection.send(request("GET", self._fetching(UPSTREAM)))
        connection.reset()

    def fetch_what_may_not_be_fetched(self) -> None:
        self._ask("GET", "/api/fetch?url=http://10.0.0.1/", expect=403)

    def fetch_from_nobody(self) -> None:
        self._ask("GET", "/api/fetch?url=http://127.0.0.1:1/", expect=502)

    def _connect(self) -> Connection:
        return self._service.connect()

    def _narrow(self) -> Connection:
        return narrow(self._service.port)

    def _ask(
        self,
        method: str,
        target: str,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        expect: int = 200,
    ) -> Any:
        answer = self._service.ask(method, target, content, headers)
        assert answer.status == expect, answer
        return answer

    def _leave_after_head(self, connection: Connection, target: str) -> None:
        connection.send(request("GET", target))
        assert connection.answer_head()[0] == 200
        connection.socket.recv(1)  # under TLS, the rest of the record would be in its buffer
        connection.reset()

    def _break_off(self, sent: bytes) -> None:
        connection = self._connect()
        connection.send(sent + (CONTENT if sent.endswith(b"\r\n\r\n") else b""))
        self._until_begun()
        connection.reset()

    def _until_begun(self) -> None:
        """Until a request with content that was sent has its handler."""
        eventually("the upload is in progress", lambda: not self._is_idle())

    def _is_idle(self) -> bool:
        return bool(self._ask("GET", "/api/health").json["uploads"] == 0)

    def _tus(self) -> str:
        directory, _, filename = _name().rpartition("/")
        created = self._ask(
            "POST",
            "/api/uploads/",
            b"",
            {
                **dict([TUS]),
                "Upload-Length": str(len(CONTENT)),
                "Upload-Metadata": f"filename {_encoded(filename)},directory {_encoded(directory)}",
            },
            expect=201,
        )
        return str(created.headers["Location"])

    def _at(self, offset: int) -> dict[str, str]:
        return {"Upload-Offset": str(offset), **dict([TUS, PART])}

    def _import(self, path: str, expect: int) -> None:
        content = self._importing(path)
        self._ask("POST", "/api/media", content, {"Content-Type": URLENCODED}, expect=expect)

    def _importing(self, path: str) -> bytes:
        url = f"http://127.0.0.1:{self._upstream.port}/{path}"
        return f"directory=cycles&filename={_filename()}&url={url}".encode()

    def _fetching(self, path: str) -> str:
        return f"/api/fetch?url=http://127.0.0.1:{self._upstream.port}/{path}"


def _is_answered(connection: Connection) -> bool:
    return bool(select.select([connection.socket], [], [], 0)[0])


def _filename() -> str:
    return f"{next(_NUMBERS)}.wav"


def _name() -> str:
    return f"cycles/{_filename()}"


def _form() -> bytes:
    return form(part("cycles", _filename(), CONTENT), part("cycles", _filename(), CONTENT))


def _fields() -> bytes:
    return f"directory=cycles&filename={_filename()}&body=".encode() + CONTENT


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


EXCHANGES = [name for name in vars(Exchanges) if not name.startswith("_")]
# Twisted's HTTP client has reference cycles of its own. They hold no content.
OF_THE_CLIENT = re.compile(
    r"twistedmedia\.(fetch|http\.(heads|body)|limits|errors|fairness\.pace)\..*"
)

# Since Python 3.12 the frames in those cycles keep the frames that called them: where a fetch fails
# in the turn in which it begins, these are all of its request's.
WITH_THE_REQUEST = ("fetch_and_leave", "fetch_what_may_not_be_fetched")


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service whose collector is off."""
    folder = tmp_path_factory.mktemp("cycles")
    root = folder / "area" / "media"
    (root / "listed").mkdir(parents=True)
    for n in range(LISTED):
        (root / "listed" / f"{n}{NAME}.wav").touch()
    (root / "there").mkdir()
    (root / "there" / "large.wav").write_bytes(bytes(20 << 20))
    command = [sys.executable, uncollected.__file__, str(root)]
    process = Process(command, folder, folder / "program.log", root)
    try:
        yield process
    finally:
        process.kill()


def garbage(service: Process) -> dict[str, Any]:
    """What the collector finds, once there is no request but those that ask."""

    def is_quiet() -> bool:
        health = service.ask("GET", "/api/health").json
        return (health["connections"], health["uploads"]) == (1, 0)

    eventually("connections and uploads are gone", is_quiet)
    found: dict[str, Any] = service.ask("GET", "/garbage").json
    return found


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_an_exchange_leaves_nothing_to_the_collector(
    collected: Process, service: Process, exchange: str
) -> None:
    """Case 87, and uploads, imports and fetches as well."""
    (service.root / "cycles").mkdir(exist_ok=True)
    (service.root / UPSTREAM.removeprefix("media/")).write_bytes(bytes(20 << 20))
    garbage(collected)
    getattr(Exchanges(collected, service), exchange)()
    found = garbage(collected)
    assert found["bytes"] == 0
    ours = {kind for kind in found["objects"] if kind.startswith("twistedmedia.")}
    if exchange.startswith(("fetch", "import")):
        ours = {kind for kind in ours if OF_THE_CLIENT.fullmatch(kind) is None}
    if sys.version_info < (3, 12) or exchange not in WITH_THE_REQUEST:
        assert not ours

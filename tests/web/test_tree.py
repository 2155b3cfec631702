"""Responses to unusual requests: always in the format of docs/http.md, never those of Klein."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from tests.http.connection import Answer, Connection, chunked, result
from tests.support import named
from twistedmedia.http.header_fields import repr_digest
from twistedmedia.http.site import MediaSite
from twistedmedia.library.library import Library
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.store.memory import MemoryStore
from twistedmedia.web.tree import media_resource

HELLO = named("prompts/en/hello.mp3")
URL = "/media/prompts/en/hello.mp3"
FORM = "Content-Type: application/x-www-form-urlencoded"
MULTIPART = "Content-Type: multipart/form-data; boundary=xyz"
DISPOSITION = b'Content-Disposition: form-data; name="prompts"; filename="a.mp3"\r\n'


def part(content: bytes, *headers: bytes) -> bytes:
    """A form with one file."""
    head = DISPOSITION + b"".join(header + b"\r\n" for header in headers)
    return b"--xyz\r\n%s\r\n%s\r\n--xyz--\r\n" % (head, content)


def holding(content: bytes) -> MemoryStore:
    """A store with `content` as HELLO."""
    store = MemoryStore()
    draft = store.begin()
    result(draft.append([content]))
    result(draft.publish(HELLO))
    return store


def asked(
    line: str,
    *headers: str,
    content: bytes = b"",
    store: Any = None,
    limits: UploadLimits | None = None,
) -> Answer:
    """The response to one request, by a tree in which HELLO is stored."""
    store = store or holding(b"hello")
    clock = Clock()
    tree = media_resource(Library(store, limits or UploadLimits(max_upload=1000, max_form=3000)))
    connection = Connection(MediaSite(tree, reactor=clock), clock)
    lines = [f"{line} HTTP/1.1", *headers]
    if not any(header.lower().startswith("host:") for header in headers):
        lines.append("Host: localhost")
    if content and not any("chunked" in header for header in headers):
        lines.append(f"Content-Length: {len(content)}")
    connection.send("\r\n".join([*lines, "", ""]).encode("latin-1") + content)
    (answer,) = connection.answers()
    connection.leave()
    return answer


@pytest.mark.parametrize(
    ("line", "headers", "content", "status", "code"),
    [
        ("GET /nothing", (), b"", 404, 404),
        ("PATCH /media", (), b"", 405, 405),
        ("PUT /media", ("Content-Length: 0",), b"", 400, 503),
        ("GET /media/%FF/x.mp3", (), b"", 400, 505),
        ("GET /media/", ("Host: \xff",), b"", 400, 400),
        ("GET /media/", ("Host: a b",), b"", 400, 400),
        ("GET //media/", (), b"", 404, 404),
        ("PUT //media/x.wav", (), b"x", 404, 404),
        ("GET //health", (), b"", 404, 404),
        ("get /media/", (), b"", 405, 405),
        ("GET /media/", ("Expect: the impossible",), b"", 417, 417),
        ("GET /media/", ("Transfer-Encoding: identity",), b"", 400, 400),
        ("GET /media/?limit=0", (), b"", 400, 400),
        ("GET /media/?limit=1&limit=2", (), b"", 400, 400),
        ("GET /media/prompts/en/hello.mp3/", (), b"", 404, 404),
        (f"GET {URL}", ("If-Match: *", "If-Unmodified-Since: x"), b"", 200, None),
        (f"PUT {URL}", (), b"", 400, 400),
        (f"PUT {URL}", ("Content-Encoding: gzip",), b"x", 415, 415),
        (f"PUT {URL}", ("Content-Range: bytes 0-0/2",), b"x", 400, 400),
        (f"PUT {URL}", ("Repr-Digest: sha-256=x",), b"x", 400, 510),
        ("PUT /media/prompts/new.mp3", (), b"x" * 1001, 413, 506),
        (
            "PUT /media/prompts/new.mp3",
            ("Transfer-Encoding: chunked",),
            chunked(b"x" * 1001, 300),
            413,
            506,
        ),
        ("PUT /media/prompts/new.txt", (), b"x", 415, 504),
        ("POST /media", ("Content-Type: text/plain",), b"x", 415, 415),
        ("POST /media", (MULTIPART,), b"x" * 3001, 413, 506),
        (
            "POST /media",
            (MULTIPART, "Transfer-Encoding: chunked"),
            chunked(part(b"x" * 3001), 500),
            413,
            506,
        ),
        ("POST /media", (MULTIPART,), b"--xyz--\r\n", 400, 502),
        ("POST /media", (MULTIPART,), b"--xyz\r\n", 400, 510),
        ("POST /media", (MULTIPART,), part(b"x" * 1001), 413, 506),
        ("POST /media", (MULTIPART,), part(b"x", b"Content-Digest: sha-256=x"), 400, 510),
        ("POST /media", (FORM,), b"directory=a&filename=b.mp3&body=", 400, 503),
        ("POST /media", (FORM,), b"directory=a&filename=b.mp3&body=x&sha256=y", 400, 510),
        ("POST /media", (FORM,), b"directory=a&body=x&filename", 400, 503),
        ("POST /media", (FORM,), b"body=x&directory=a&filename=b.mp3&other=y&last", 201, 200),
        ("POST /media", (FORM,), b"body=%4&directory=a&filename=b.mp3", 400, 510),
        ("POST /media?directory=a", (FORM,), b"directory=a&filename=b.mp3&body=x", 400, 510),
        ("DELETE /media/prompts", (), b"", 409, 409),
        ("DELETE /media/prompts/en/", (), b"", 409, 409),
        ("DELETE /media", ("Content-Type: text/plain",), b"x", 415, 415),
        ("DELETE /media", (FORM,), b"x" * 8193, 413, 506),
        (
            "DELETE /media",
            (FORM, "Transfer-Encoding: chunked"),
            chunked(b"directory=" + b"x" * 8190, 3000),
            413,
            506,
        ),
        ("DELETE /media", (FORM,), b"directory=a&filename", 400, 503),
        ("DELETE /media?directory=prompts/en&filename=hello.mp3", (), b"", 200, 200),
        ("DELETE /media/a/b.mp3", ("If-None-Match: *",), b"", 200, 200),
        ("DELETE /media/a/b.mp3", ("If-Match: *",), b"", 412, 412),
    ],
)
def test_every_response_has_the_documented_format(
    line: str, headers: tuple[str, ...], content: bytes, status: int, code: int | None
) -> None:
    """Cases 8, 9, 16, 17, 19, 32, 37 and 48: refused before any harm is done, with a reason."""
    answer = asked(line, *headers, content=content)
    assert answer.status == status
    if code is not None:
        said = json.loads(answer.content)
        assert (said["code"], bool(said["reason"])) == (code, True)
    if status >= 400:
        assert answer.headers["cache-control"] == "no-store"


def test_a_405_lists_the_allowed_methods() -> None:
    answer = asked("PATCH /media")
    assert set(answer.headers["allow"].split(", ")) >= {"POST", "DELETE", "GET"}


@pytest.mark.parametrize("path", ["/media", "/media/prompts", "/media/prompts/en"])
def test_a_directory_without_its_slash_is_redirected_to_it(path: str) -> None:
    answer = asked(f"GET {path}?limit=1")
    last = path.rpartition("/")[2]
    assert (answer.status, answer.headers["location"]) == (307, f"./{last}/?limit=1")


def test_a_known_digest_is_sent_without_a_request_for_it() -> None:
    store = holding(b"hello")
    digest = repr_digest(hashlib.sha256(b"hello").hexdigest())
    told = [
        asked(f"GET {URL}", *headers, store=store).headers.get("repr-digest")
        for headers in ((), ("Want-Repr-Digest: sha-256=1",), (), ("Want-Repr-Digest: md5=1",))
    ]
    assert told == [None, digest, digest, digest]


@pytest.mark.parametrize("framing", ["Content-Length: 2000000", "Transfer-Encoding: chunked"])
def test_a_client_that_expects_100_need_not_send_an_identical_file(framing: str) -> None:
    digest = repr_digest(hashlib.sha256(b"hello").hexdigest())
    answer = asked(
        f"PUT {URL}",
        framing,
        f"Repr-Digest: {digest}",
        "Expect: 100-continue",
        limits=UploadLimits(max_upload=3_000_000),
    )
    assert (answer.status, json.loads(answer.content)["files"][0]["identical"]) == (200, True)


class Broken(MemoryStore):
    """A store that fails unexpectedly."""

    def open(self, name: Any, *, caller: str = "") -> Deferred[Any]:
        return fail(RuntimeError("/srv/secret/path"))


def test_an_internal_error_has_an_incident_id_and_reveals_nothing(
    nothing_left_behind: list[LogEvent],
) -> None:
    answer = asked(f"GET {URL}", store=Broken())
    said = json.loads(answer.content)
    assert (answer.status, said["code"]) == (500, 500)
    assert b"secret" not in answer.content
    (event,) = nothing_left_behind
    assert event["incident"] == said["incident"]
    assert "/srv/secret/path" in event["why"]
    nothing_left_behind.clear()


@pytest.mark.parametrize(
    ("expectations", "waits"),
    [
        (("Expect:",), False),
        (("Expect: ,",), False),
        (("Expect: 100-continue", "Expect: 100-continue"), True),
        (("Expect: 100-continue, 100-continue",), True),
        (("Expect: , 100-Continue,",), True),
    ],
)
def test_expectations_that_are_empty_or_doubled_are_met(
    expectations: tuple[str, ...], waits: bool
) -> None:
    """Case 53."""
    clock = Clock()
    library = Library(MemoryStore(), UploadLimits())
    connection = Connection(MediaSite(media_resource(library), reactor=clock), clock)
    lines = [f"PUT {URL} HTTP/1.1", "Host: localhost", *expectations, "Content-Length: 3"]
    connection.send("\r\n".join([*lines, "", ""]).encode())
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert connection.received == (go_on if waits else b"")
    connection.send(b"new")
    connection.received = connection.received.removeprefix(go_on)
    assert connection.statuses() == [201]
    connection.leave()


def test_one_unknown_expectation_among_others_is_not_met() -> None:
    """Case 53."""
    for field in ("100-continue, magic", ", magic", "magic,"):
        assert asked(f"GET {URL}", f"Expect: {field}").status == 417


# Requests whose chunked content is empty


@pytest.mark.parametrize("content", [b"0\r\n\r\n", b"00;x=y\r\nX-A: b\r\n\r\n"])
@pytest.mark.parametrize(
    ("line", "status", "kept"),
    [
        ("DELETE /media?directory=prompts/en&filename=hello.mp3", 200, {"deleted": True}),
        (f"DELETE {URL}", 200, {"deleted": True}),
        ("DELETE /media", 400, {"code": 503}),
        (f"GET {URL}", 200, None),
        ("GET /media/prompts/en/", 200, {"directory": "prompts/en"}),
        ("GET /health", 200, {"code": 200}),
        ("OPTIONS /health", 405, {"code": 405}),
        ("POST /fetch?url=http://example.org/", 405, {"code": 405}),
        ("POST /media", 415, {"code": 415}),
        ("PUT /media/prompts/en/empty.mp3", 201, {"code": 200}),
    ],
)
def test_empty_chunked_content_is_no_content_on_every_route(
    line: str, status: int, kept: dict[str, Any] | None, content: bytes
) -> None:
    """Case 50: the response is that to a request without content, and the connection is kept."""
    answer = asked(line, "Transfer-Encoding: chunked", content=content)
    assert answer.status == status
    assert answer.headers.get("connection") != "close"
    assert kept is None or json.loads(answer.content).items() >= kept.items()


def test_a_put_with_empty_chunked_content_stores_an_empty_file() -> None:
    answer = asked("PUT /media/a/b.mp3", "Transfer-Encoding: chunked", content=b"0\r\n\r\n")
    (entry,) = json.loads(answer.content)["files"]
    assert (answer.status, entry["size"]) == (201, 0)


def test_only_one_large_response_is_kept_for_a_client_that_takes_nothing() -> None:
    """Cases 46 and 87: even if it has sent more requests."""
    clock = Clock()
    tree = media_resource(Library(holding(b"hello"), UploadLimits()))
    connection = Connection(MediaSite(tree, reactor=clock), clock, window=0)
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    connection.send(request * 1000)
    for _ in range(100):
        clock.advance(0)
    assert len(connection._outgoing) < 200 << 10
    assert connection.unread + len(connection.channel.input.buffer) > len(request) * 900
    assert len(connection.channel.input.buffer) < 128 << 10
    connection.leave()

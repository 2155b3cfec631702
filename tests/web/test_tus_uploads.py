"""Resumable uploads over HTTP: each route and header of tus 1.0.0."""

from __future__ import annotations

import hashlib
import json
import re
import time
from base64 import b64encode
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.resource import Resource

from tests.http.connection import Answer, Connection, chunked, outcome, result
from tests.support import named
from twistedmedia.http.site import MediaSite
from twistedmedia.library.library import Library
from twistedmedia.library.resumable import ResumableUploads
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.store.memory import MemoryMedia, MemoryStore
from twistedmedia.web.cross_site import CsrfPolicy
from twistedmedia.web.tree import media_resource

HELLO = named("prompts/en/hello.mp3")
WHOLE = b"hello world"
SHA256 = hashlib.sha256(WHOLE).hexdigest()
TUS = "Tus-Resumable: 1.0.0"
PART = "Content-Type: application/offset+octet-stream"


def metadata(**pairs: str | bytes | None) -> str:
    """The header. A key with None has no value."""

    def encoded(value: str | bytes | None) -> str:
        if value is None:
            return ""
        raw = value.encode() if isinstance(value, str) else value
        return " " + b64encode(raw).decode()

    return "Upload-Metadata: " + ",".join(f"{key}{encoded(value)}" for key, value in pairs.items())


NAMED = metadata(filename="hello.mp3", directory="prompts/en")


class Service:
    """A tree with resumable uploads over a store in memory, and a client of it."""

    def __init__(
        self,
        csrf: CsrfPolicy | None = None,
        mounted_at: str = "",
        max_unfinished: int = 1000,
        drafts: Callable[[Any], Any] = lambda kept: kept,
        **limits: Any,
    ) -> None:
        """`drafts` wraps the resumable uploads of the store."""
        self.clock = Clock()
        self.store = MemoryStore()
        self.mounted_at = mounted_at
        self.drafts = drafts(self.store.resumable)
        library = Library(self.store, UploadLimits(**limits))
        uploads = ResumableUploads(library, self.drafts, max_unfinished=max_unfinished)
        tree: Any = media_resource(library, csrf=csrf, uploads=uploads)
        for segment in reversed(mounted_at.split("/")[1:]):
            outer = Resource()
            outer.putChild(unquote(segment).encode(), tree)
            tree = outer
        self.site = MediaSite(tree, reactor=self.clock)

    def connect(self) -> Connection:
        return Connection(self.site, self.clock)

    def sent(
        self, method: str, target: str, *headers: str, content: bytes = b"", host: str = "localhost"
    ) -> bytes:
        lines = [f"{method} {self.mounted_at}{target} HTTP/1.1", f"Host: {host}", *headers]
        chunks = any(header.startswith("Transfer-Encoding") for header in headers)
        if not chunks and (content or method in ("POST", "PATCH")):
            lines.append(f"Content-Length: {len(content)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + content

    def ask(self, *args: Any, **options: Any) -> Answer:
        """The only response to a request, with the arguments of `sent`."""
        connection = self.connect()
        connection.send(self.sent(*args, **options))
        if args[0] == "HEAD":  # it has the length of the response to a GET
            connection.received = re.sub(rb"Content-Length: \d+", b"X: y", connection.received)
        (answer,) = connection.answers()
        connection.leave()
        return answer

    def created(self, *headers: str, target: str = "/uploads", content: bytes = b"") -> str:
        """Create an upload. Returns its path below the mount point."""
        named_by = [] if any(each.startswith("Upload-Metadata") for each in headers) else [NAMED]
        if not any(each.startswith("Upload-") and "Metadata" not in each for each in headers):
            named_by.append("Upload-Length: 11")
        answer = self.ask("POST", target, TUS, *named_by, *headers, content=content)
        assert answer.status == 201, answer
        return answer.headers["location"].removeprefix(self.mounted_at)

    def patch(self, upload: str, offset: int, content: bytes, *headers: str) -> Answer:
        offset_field = f"Upload-Offset: {offset}"
        return self.ask("PATCH", upload, TUS, PART, offset_field, *headers, content=content)

    def half_a_part(self, upload: str) -> bytes:
        """Send only `hello` of the content."""
        headers = (TUS, PART, "Upload-Offset: 0")
        return self.sent("PATCH", upload, *headers, content=WHOLE).removesuffix(b" world")

    def look(self, upload: str) -> Answer:
        return self.ask("HEAD", upload, TUS)

    def offset(self, upload: str) -> int:
        return int(self.look(upload).headers["upload-offset"])

    def content(self, name: Any = HELLO) -> bytes | None:
        media = outcome(self.store.open(name))[0]
        return result(media.read(0, 1 << 30)) if isinstance(media, MemoryMedia) else None

    def store_other(self, content: bytes) -> None:
        draft = self.store.begin()
        result(draft.append([content]))
        result(draft.publish(HELLO))


@pytest.fixture
def service() -> Service:
    return Service()


def refused(answer: Answer, status: int, code: int | None = None) -> str:
    """The reason in a refusal, which has the form that tus requires."""
    assert answer.status == status
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["cache-control"] == "no-store"
    said = json.loads(answer.content)
    assert said["code"] == (code or status)
    reason: str = said["reason"]
    return reason


# Complete uploads


def test_a_file_is_uploaded_part_by_part(service: Service) -> None:
    created = service.ask("POST", "/uploads", TUS, "Upload-Length: 11", NAMED)
    upload = created.headers["location"]
    assert re.fullmatch("/uploads/[0-9a-f]{32}", upload)
    assert (created.status, created.headers["tus-resumable"]) == (201, "1.0.0")
    assert (created.headers["upload-offset"], created.headers["cache-control"]) == ("0", "no-store")
    assert json.loads(created.content) == {
        "code": 200,
        "reason": "OK",
        "upload": upload,
        "offset": 0,
        "length": 11,
    }
    assert service.content() is None

    first = service.patch(upload, 0, b"hello")
    assert (first.status, first.headers["upload-offset"], first.content) == (204, "5", b"")
    assert first.headers["tus-resumable"] == "1.0.0"
    assert "content-location" not in first.headers

    last = service.patch(upload, 5, b" world")
    assert (last.status, last.headers["upload-offset"]) == (204, "11")
    assert last.headers["content-location"] == "/media/prompts/en/hello.mp3"
    assert "upload-expires" not in last.headers
    assert service.content() == WHOLE
    assert service.ask("GET", last.headers["content-location"]).content == WHOLE


def test_a_head_has_the_whole_state_and_is_not_cached(service: Service) -> None:
    upload = service.created("Upload-Length: 11")
    service.patch(upload, 0, b"hello")
    answer = service.look(upload)
    assert answer.status == 200
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert (answer.headers["upload-offset"], answer.headers["upload-length"]) == ("5", "11")
    assert answer.headers["upload-metadata"] == NAMED.partition(": ")[2]
    assert answer.headers["cache-control"] == "no-store"
    assert "upload-defer-length" not in answer.headers
    service.patch(upload, 5, b" world")
    answer = service.look(upload)
    assert (answer.headers["upload-offset"], answer.headers["upload-length"]) == ("11", "11")
    assert answer.headers["content-location"] == "/media/prompts/en/hello.mp3"


def test_an_upload_is_terminated(service: Service) -> None:
    upload = service.created()
    answer = service.ask("DELETE", upload, TUS)
    assert (answer.status, answer.headers["tus-resumable"], answer.content) == (204, "1.0.0", b"")
    refused(service.ask("DELETE", upload, TUS), 404)
    refused(service.patch(upload, 0, b"hello"), 404)
    assert service.look(upload).status == 404


def test_the_expiry_of_an_unfinished_upload_is_sent(service: Service) -> None:
    """Case 13."""
    created = service.ask("POST", "/uploads", TUS, "Upload-Length: 11", NAMED)
    upload = created.headers["location"]
    for answer in (created, service.patch(upload, 0, b"hello"), service.look(upload)):
        expires_s = parsedate_to_datetime(answer.headers["upload-expires"]).timestamp()
        assert expires_s == pytest.approx(time.time() + 24 * 3600, abs=60)


def test_a_part_can_be_chunked(service: Service) -> None:
    """Case 8."""
    upload = service.created()
    answer = service.patch(upload, 0, chunked(WHOLE, 3), "Transfer-Encoding: chunked")
    assert (answer.status, service.content()) == (204, WHOLE)


@pytest.mark.parametrize("chunks", [False, True])
def test_content_after_the_end_of_a_stored_upload_is_refused(
    service: Service, chunks: bool
) -> None:
    """Case 9. A client that has lost the last response sends an empty part."""
    upload = service.created()
    assert service.patch(upload, 0, WHOLE).status == 204
    coded = ["Transfer-Encoding: chunked"] if chunks else []
    answer = service.patch(upload, 11, chunked(b"!", 1) if chunks else b"!", *coded)
    assert "limit of 11 bytes" in refused(answer, 413, 506)
    asked = service.patch(upload, 11, chunked(b"", 1) if chunks else b"", *coded)
    assert (asked.status, asked.headers["upload-offset"]) == (204, "11")
    assert (service.look(upload).status, service.content()) == (200, WHOLE)


def test_a_finished_upload_is_gone_once_another_file_has_its_name(
    service: Service,
) -> None:
    upload = service.created()
    assert service.patch(upload, 0, WHOLE).status == 204
    result(service.store.delete(HELLO))
    service.store_other(b"hello there")
    answer = service.look(upload)
    assert (answer.status, answer.headers["tus-resumable"]) == (404, "1.0.0")
    assert "upload-offset" not in answer.headers
    assert "no longer there" in refused(service.patch(upload, 11, b""), 404)
    assert service.content() == b"hello there"


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_part_can_arrive_in_any_pieces(service: Service, size: int) -> None:
    upload = service.created()
    sent = service.sent("PATCH", upload, TUS, PART, "Upload-Offset: 0", content=WHOLE)
    connection = service.connect()
    for at in range(0, len(sent), size):
        connection.send(sent[at : at + size])
    assert connection.statuses() == [204]
    connection.leave()
    assert service.content() == WHOLE


def test_received_bytes_of_a_part_are_kept_when_the_connection_is_lost(service: Service) -> None:
    """Case 1."""
    upload = service.created()
    connection = service.connect()
    connection.send(
        service.sent("PATCH", upload, TUS, PART, "Upload-Offset: 0", content=WHOLE)[:-6]
    )
    connection.leave()
    assert service.offset(upload) == 5
    assert service.patch(upload, 5, b" world").status == 204
    assert service.content() == WHOLE


class SlowDrafts:
    """Resumable uploads that write only when `go_on` is called."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._gate: Deferred[None] = Deferred()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def resume(self, *args: Any, **options: Any) -> Any:
        draft = self._inner.resume(*args, **options)
        append = draft.append

        def later(chunks: Any) -> Deferred[None]:
            gate: Deferred[None] = Deferred()
            self._gate.chainDeferred(gate)
            return gate.addCallback(lambda _: append(chunks))

        draft.append = later
        return draft

    def go_on(self) -> None:
        self._gate.callback(None)


def test_received_bytes_are_written_after_the_connection_is_lost() -> None:
    """Case 1: up to the last received byte, even if the disk is slow."""
    service = Service(drafts=SlowDrafts)
    upload = service.created("Upload-Length: 1000000")
    headers = (TUS, PART, "Upload-Offset: 0")
    connection = service.connect()
    connection.send(service.sent("PATCH", upload, *headers, content=bytes(1_000_000))[:-400_000])
    connection.leave()
    service.drafts.go_on()
    assert service.offset(upload) == 600_000


def test_a_hanging_part_is_superseded_by_a_newer_one(service: Service) -> None:
    """Case 28."""
    upload = service.created()
    connection = service.connect()
    connection.send(
        service.sent("PATCH", upload, TUS, PART, "Upload-Offset: 0", content=WHOLE)[:-6]
    )
    assert service.offset(upload) == 5
    (told,) = connection.answers()
    assert "newer request" in refused(told, 409)
    connection.leave()
    assert service.patch(upload, 5, b" world").status == 204


@pytest.mark.parametrize(
    ("head", "status", "retry_after"),
    [
        (("HEAD",), 423, "1"),
        (("POST", "X-HTTP-Method-Override: HEAD"), 423, "1"),
        (("DELETE",), 409, None),
        (("PATCH", PART, "Upload-Offset: 0"), 409, None),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else None,
)
def test_a_superseded_head_gets_the_status_locked(
    head: tuple[str, ...], status: int, retry_after: str | None
) -> None:
    """Case 84: tus-js-client creates a new upload after any other failure of a HEAD."""
    service = Service(drafts=SlowDrafts)
    upload = service.created()
    at_work, waiting, newest = (service.connect() for _ in range(3))
    at_work.send(service.half_a_part(upload))
    method, *fields = head
    waiting.send(service.sent(method, upload, TUS, *fields))
    newest.send(service.sent("HEAD", upload, TUS))
    if method == "HEAD":  # it has the length of the response to a GET
        waiting.received = re.sub(rb"Content-Length: \d+", b"X: y", waiting.received)
    (told,) = waiting.answers()
    assert (told.status, told.headers.get("retry-after")) == (status, retry_after)
    assert told.headers["tus-resumable"] == "1.0.0"
    service.drafts.go_on()
    service.clock.advance(1)
    assert at_work.statuses() == [409]
    (answer,) = newest.answers()
    assert (answer.status, answer.headers["upload-offset"]) == (200, "5")
    for connection in (at_work, waiting, newest):
        connection.leave()


def test_the_content_of_a_refused_part_is_not_requested(service: Service) -> None:
    upload = service.created()
    connection = service.connect()
    head = service.sent(
        "PATCH", upload, TUS, PART, "Upload-Offset: 7", "Expect: 100-continue", content=b"hello"
    )[:-5]
    connection.send(head)
    assert connection.statuses() == [409]
    connection.leave()


def test_an_empty_upload_is_stored_at_once(service: Service) -> None:
    """Case 7."""
    answer = service.ask("POST", "/uploads", TUS, "Upload-Length: 0", NAMED)
    assert (answer.status, answer.headers["upload-offset"]) == (201, "0")
    assert answer.headers["content-location"] == "/media/prompts/en/hello.mp3"
    assert service.content() == b""


def test_the_creation_can_include_a_part(service: Service) -> None:
    for content, offset in ((b"hello", "5"), (WHOLE, "11")):
        answer = service.ask(
            "POST", "/uploads", TUS, PART, "Upload-Length: 11", NAMED, content=content
        )
        assert (answer.status, answer.headers["upload-offset"]) == (201, offset)
        assert json.loads(answer.content)["offset"] == int(offset)
        assert ("content-location" in answer.headers) == (content == WHOLE)
    assert service.content() == WHOLE


def test_the_length_can_be_deferred(service: Service) -> None:
    upload = service.created("Upload-Defer-Length: 1")
    answer = service.look(upload)
    assert answer.headers["upload-defer-length"] == "1"
    assert "upload-length" not in answer.headers
    assert service.patch(upload, 0, b"hello").status == 204
    assert service.patch(upload, 5, b" world", "Upload-Length: 11").status == 204
    assert service.content() == WHOLE


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_part_with_a_wrong_checksum_is_dropped_and_can_be_sent_again(
    service: Service, algorithm: str
) -> None:
    digest = b64encode(hashlib.new(algorithm, b"hello").digest()).decode()
    upload = service.created()
    answer = service.patch(upload, 0, b"jello", f"Upload-Checksum: {algorithm} {digest}")
    assert "nothing of this part was kept" in refused(answer, 460, 508)
    assert service.offset(upload) == 0
    answer = service.patch(upload, 0, b"hello", f"Upload-Checksum: {algorithm} {digest}")
    assert (answer.status, service.offset(upload)) == (204, 5)


# Version and extensions


@pytest.mark.parametrize(
    ("target", "headers"),
    [("/uploads", ()), ("/uploads/", (TUS,)), ("/uploads/a/b", ("Tus-Resumable: 0.2.2",))],
)
def test_options_list_version_and_extensions(target: str, headers: tuple[str, ...]) -> None:
    answer = Service(max_upload=1000).ask("OPTIONS", target, *headers)
    assert (answer.status, answer.content) == (204, b"")
    assert answer.headers["tus-version"] == answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["tus-max-size"] == "1000"
    assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256"
    assert set(answer.headers["tus-extension"].split(",")) == {
        "creation",
        "creation-with-upload",
        "creation-defer-length",
        "checksum",
        "expiration",
        "termination",
    }
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("method", ["POST", "PATCH", "HEAD", "DELETE"])
def test_another_version_is_refused_and_changes_nothing(service: Service, method: str) -> None:
    upload = service.created()
    target = "/uploads" if method == "POST" else upload
    for version in ([], ["Tus-Resumable: 0.2.2"], [TUS, TUS]):
        answer = service.ask(
            method, target, *version, PART, NAMED, "Upload-Length: 11", "Upload-Offset: 0"
        )
        assert (answer.status, answer.headers["tus-version"]) == (412, "1.0.0")
        assert answer.headers["tus-resumable"] == "1.0.0"
        if method != "HEAD":
            refused(answer, 412)
    assert service.offset(upload) == 0
    assert len(result(service.store.resumable.callers())) == 1


def test_without_resumable_uploads_the_routes_do_not_exist() -> None:
    clock = Clock()
    site = MediaSite(media_resource(Library(MemoryStore(), UploadLimits())), reactor=clock)
    for method in ("POST", "OPTIONS", "HEAD", "PATCH"):
        connection = Connection(site, clock)
        connection.send(f"{method} /uploads/x HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert connection.received.startswith(b"HTTP/1.1 404 ")
        connection.leave()


# X-HTTP-Method-Override


def test_a_post_can_override_its_method(service: Service) -> None:
    upload = service.created()
    patch = "X-HTTP-Method-Override: PATCH"
    answer = service.ask("POST", upload, TUS, PART, patch, "Upload-Offset: 0", content=b"hello")
    assert (answer.status, answer.headers["upload-offset"]) == (204, "5")
    answer = service.ask("POST", upload, TUS, "X-HTTP-Method-Override: HEAD")
    assert (answer.status, answer.headers["upload-offset"], answer.content) == (200, "5", b"")
    answer = service.ask("POST", upload, TUS, "X-HTTP-Method-Override: DELETE")
    assert answer.status == 204
    assert service.look(upload).status == 404
    answer = service.ask(
        "POST", "/uploads", TUS, NAMED, "Upload-Length: 11", "X-HTTP-Method-Override: POST"
    )
    assert answer.status == 201


def test_a_post_cannot_override_its_method_with_others(service: Service) -> None:
    upload = service.created()
    for method in ("GET", "PUT", "patch", "", "PATCH, DELETE", "OPTIONS", "\xff"):
        answer = service.ask("POST", upload, TUS, f"X-HTTP-Method-Override: {method}")
        refused(answer, 400)
    assert service.offset(upload) == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_safe_method_is_not_overridden(service: Service, method: str) -> None:
    """A page of another site can make a browser send it."""
    upload = service.created()
    for other in ("DELETE", "PATCH"):
        for headers in ((), ("Sec-Fetch-Site: cross-site",)):
            connection = service.connect()
            override = f"X-HTTP-Method-Override: {other}"
            request = (TUS, PART, override, "Upload-Offset: 0", *headers)
            connection.send(service.sent(method, upload, *request, content=b"hello"))
            connection.leave()
    assert service.offset(upload) == 0


# Names


@pytest.mark.parametrize(
    ("target", "pairs", "stored"),
    [
        ("/uploads", {"filename": "x.mp3", "directory": "a/b"}, "a/b/x.mp3"),
        ("/uploads/", {"filename": "x.mp3", "directory": "a/b"}, "a/b/x.mp3"),
        ("/uploads", {"name": "x.mp3", "directory": "a"}, "a/x.mp3"),
        ("/uploads", {"filename": "x.mp3", "name": "y.mp3", "directory": "a"}, "a/x.mp3"),
        ("/uploads", {"filename": "", "name": "y.mp3", "directory": "a"}, "a/y.mp3"),
        ("/uploads/a/b", {"filename": "x.mp3"}, "a/b/x.mp3"),
        ("/uploads/a/b/", {"filename": "x.mp3"}, "a/b/x.mp3"),
        ("/uploads/a", {"name": "x.mp3"}, "a/x.mp3"),
        ("/uploads/a/b", {"filename": "x.mp3", "directory": "a/b"}, "a/b/x.mp3"),
        ("/uploads/a/b", {"filename": "x.mp3", "directory": "a/b/"}, "a/b/x.mp3"),
        ("/uploads/a/b", {"filename": "x.mp3", "directory": ""}, "a/b/x.mp3"),
        ("/uploads/%C3%A4/b%20c", {"filename": "é 🎵.mp3"}, "ä/b c/é 🎵.mp3"),
        ("/uploads/uploads", {"filename": "x.mp3"}, "uploads/x.mp3"),
        ("/uploads", {"filename": "x.mp3", "directory": "a", "filetype": None}, "a/x.mp3"),
        ("/uploads?a=b", {"filename": "x.mp3", "directory": "a"}, "a/x.mp3"),
    ],
)
def test_a_file_has_the_name_that_the_path_and_the_metadata_give(
    service: Service, target: str, pairs: dict[str, str], stored: str
) -> None:
    """Case 35."""
    upload = service.created(metadata(**pairs), "Upload-Length: 11", target=target)
    assert re.fullmatch("/uploads/[0-9a-f]{32}", upload)
    answer = service.patch(upload, 0, WHOLE)
    assert answer.headers["content-location"] == f"/media/{named(stored).url_path}"
    assert service.content(named(stored)) == WHOLE


@pytest.mark.parametrize(
    ("target", "header", "status", "code"),
    [
        ("/uploads", metadata(filename="x.mp3"), 400, 503),
        ("/uploads", metadata(directory="a"), 400, 503),
        ("/uploads/a", metadata(directory="a"), 400, 503),
        ("/uploads", "X-No: metadata", 400, 503),
        ("/uploads", metadata(filename="../x.mp3", directory="a"), 400, 505),
        ("/uploads", metadata(filename="x/y.mp3", directory="a"), 400, 505),
        ("/uploads", metadata(filename="x.mp3", directory="../a"), 400, 505),
        ("/uploads", metadata(filename="x.mp3", directory="/etc"), 400, 505),
        ("/uploads", metadata(filename="x.mp3", directory=".twistedmedia/uploads"), 400, 505),
        ("/uploads", metadata(filename="x\0.mp3", directory="a"), 400, 505),
        ("/uploads", metadata(filename="x\r\nSet-Cookie: a=b.mp3", directory="a"), 400, 505),
        ("/uploads", metadata(filename=b"\xff.mp3", directory="a"), 400, 505),
        ("/uploads", metadata(filename="x.mp3", directory=b"\xff"), 400, 505),
        ("/uploads", metadata(filename="x" * 300 + ".mp3", directory="a"), 400, 505),
        ("/uploads/..%2Fa", metadata(filename="x.mp3"), 400, 505),
        ("/uploads/..", metadata(filename="x.mp3"), 400, 505),
        ("/uploads/.twistedmedia", metadata(filename="x.mp3"), 400, 505),
        ("/uploads/a//b", metadata(filename="x.mp3"), 400, 505),
        ("/uploads/a", metadata(filename="x.mp3", directory="b"), 400, 510),
        ("/uploads", metadata(filename="x.txt", directory="a"), 415, 504),
        ("/uploads", metadata(filename="x.mp3", directory="a", sha256="5a"), 400, 510),
        ("/uploads", metadata(filename="x.mp3", directory="a", sha256=b"\xff" * 64), 400, 505),
        ("/uploads", "Upload-Metadata: filename x.mp3", 400, 510),
    ],
)
def test_an_invalid_name_creates_no_upload(
    service: Service, target: str, header: str, status: int, code: int
) -> None:
    """Cases 32 and 35."""
    answer = service.ask("POST", target, TUS, header, "Upload-Length: 11")
    refused(answer, status, code)
    assert result(service.store.resumable.callers()) == {}


def test_a_taken_name_is_refused_and_one_taken_later_ends_the_upload(
    service: Service,
) -> None:
    """Case 4."""
    upload = service.created()
    service.store_other(b"first")
    refused(service.ask("POST", "/uploads", TUS, NAMED, "Upload-Length: 11"), 409, 501)
    refused(service.patch(upload, 0, WHOLE), 410, 501)
    assert service.look(upload).status == 410
    assert service.content() == b"first"


def test_the_digest_of_the_content_can_be_declared(service: Service) -> None:
    declared = metadata(filename="hello.mp3", directory="prompts/en", sha256=SHA256)
    upload = service.created(declared, "Upload-Length: 11")
    refused(service.patch(upload, 0, b"hello wOrld"), 400, 508)
    assert service.look(upload).status == 404
    service.store_other(WHOLE)
    answer = service.ask("POST", "/uploads", TUS, declared, "Upload-Length: 11")
    assert (answer.status, answer.headers["upload-offset"]) == (201, "11")
    assert answer.headers["content-location"] == "/media/prompts/en/hello.mp3"


@pytest.mark.parametrize(
    "field",
    [
        "filename eC5tcDM=,directory YQ==",
        "filename eC5tcDM=, directory YQ==",
        "directory YQ==,filename eC5tcDM=,filetype YXVkaW8vbXBlZw==,flag",
        "filename eC5tcDM=,directory YQ==,notes " + b64encode(b"x" * 8000).decode(),
        "filename eC5tcDM=,directory YQ==,\"';<script>=& eA==",
    ],
    ids=lambda field: field[:40],
)
def test_metadata_are_returned_unchanged(service: Service, field: str) -> None:
    upload = service.created(f"Upload-Metadata: {field}", "Upload-Length: 11")
    assert service.look(upload).headers["upload-metadata"] == field
    service.patch(upload, 0, WHOLE)
    assert service.look(upload).headers["upload-metadata"] == field


@pytest.mark.parametrize("prefix", ["/mounted", "/a/b%20c"])
def test_urls_have_the_prefix_of_the_tree(prefix: str) -> None:
    service = Service(mounted_at=prefix)
    headers = (TUS, PART, metadata(filename="a.mp3"), "Upload-Length: 11")
    answer = service.ask("POST", "/uploads/prompts/en", *headers, content=b"hello")
    assert re.fullmatch(f"{prefix}/uploads/[0-9a-f]{{32}}", answer.headers["location"])
    assert json.loads(answer.content)["upload"] == answer.headers["location"]
    upload = answer.headers["location"].removeprefix(prefix)
    answer = service.patch(upload, 5, b" world")
    assert answer.headers["content-location"] == f"{prefix}/media/prompts/en/a.mp3"
    assert service.ask("GET", "/media/prompts/en/a.mp3").content == WHOLE


# Refusals


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ((), 400, 503),
        (("Upload-Length: -1",), 400, 510),
        (("Upload-Length: 11", "Upload-Length: 12"), 400, 510),
        (("Upload-Length: 11", "Upload-Length: 11"), 400, 510),
        (("Upload-Length: 11", "Upload-Defer-Length: 1"), 400, 510),
        (("Upload-Defer-Length: 2",), 400, 510),
        (("Upload-Length: 1001",), 413, 506),
        (("Upload-Length: 99999999999999999999",), 400, 510),
        (("Upload-Length: " + "0" * 5000 + "11",), 201, 200),
        (("Upload-Length: 11", "Upload-Checksum: md5 AAAA"), 400, 400),
        (("Upload-Length: 11", "Upload-Checksum: sha1 AAAA"), 400, 510),
        (("Upload-Length: 11", "Upload-Concat: partial"), 400, 400),
    ],
    ids=lambda value: str(value)[:60],
)
def test_only_an_unambiguous_creation_is_accepted(
    headers: tuple[str, ...], status: int, code: int
) -> None:
    """Case 37."""
    service = Service(max_upload=1000)
    answer = service.ask("POST", "/uploads", TUS, NAMED, *headers)
    assert (answer.status, json.loads(answer.content)["code"]) == (status, code)
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert len(result(service.store.resumable.callers())) == (status == 201)


@pytest.mark.parametrize(
    "kind", [None, "application/octet-stream", "application/offset+octet-streams; a=b", "audio/wav"]
)
def test_content_of_another_type_is_refused(service: Service, kind: str | None) -> None:
    upload = service.created()
    headers = [] if kind is None else [f"Content-Type: {kind}"]
    offset = "Upload-Offset: 0"
    refused(service.ask("PATCH", upload, TUS, *headers, offset, content=b"hello"), 415)
    creating = ("POST", "/uploads", TUS, NAMED, "Upload-Length: 11", *headers)
    refused(service.ask(*creating, content=b"hello"), 415)
    refused(service.ask(*creating, "Transfer-Encoding: chunked", content=chunked(b"x", 1)), 415)
    assert service.ask(*creating).status == 201, "where there is no content it has no type"
    assert service.offset(upload) == 0


@pytest.mark.parametrize("parameter", ["; charset=utf-8", ";a=b", "\t;\tcharset=UTF-8", ";"])
def test_the_type_of_a_part_may_have_parameters(service: Service, parameter: str) -> None:
    """Case 57."""
    kind = PART + parameter
    creating = ("POST", "/uploads", TUS, NAMED, kind, "Upload-Length: 11")
    answer = service.ask(*creating, content=b"hello")
    assert (answer.status, answer.headers["upload-offset"]) == (201, "5")
    upload = answer.headers["location"]
    answer = service.ask("PATCH", upload, TUS, kind, "Upload-Offset: 5", content=b" world")
    assert (answer.status, answer.headers["upload-offset"]) == (204, "11")
    assert service.content(HELLO) == WHOLE


@pytest.mark.parametrize("chunks", [b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n"])
def test_empty_chunked_content_is_no_content(service: Service, chunks: bytes) -> None:
    """Case 50: POST, HEAD and DELETE as HTTP/2 proxies forward them."""
    coded = "Transfer-Encoding: chunked"
    creating = ("POST", "/uploads", TUS, NAMED, "Upload-Length: 11", coded)
    answer = service.ask(*creating, content=chunks)
    assert (answer.status, answer.headers["upload-offset"]) == (201, "0")
    upload = answer.headers["location"]
    assert service.ask("HEAD", upload, TUS, coded, content=chunks).status == 200
    assert service.ask("DELETE", upload, TUS, coded, content=chunks).status == 204
    assert service.ask("HEAD", upload, TUS, coded, content=chunks).status == 404
    assert service.ask("OPTIONS", "/uploads", coded, content=chunks).status == 204


def test_the_type_of_a_part_may_be_in_capitals(service: Service) -> None:
    upload = service.created()
    kind = "Content-Type: Application/Offset+Octet-Stream"
    answer = service.ask("PATCH", upload, TUS, kind, "Upload-Offset: 0", content=WHOLE)
    assert answer.status == 204


NOWHERE = [
    *("/uploads/" + "0" * 32, "/uploads/x", "/uploads/", "/uploads/a/b", "/uploads/..%2F..%2Fx"),
    *("/uploads/" + "0" * 32 + "/", "/uploads/%00", "/uploads/" + "a" * 10_000, "/uploads"),
]


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
def test_an_unknown_upload_is_not_found(service: Service, method: str) -> None:
    """Case 32."""
    for target in NOWHERE:
        answer = service.ask(method, target, TUS, PART, "Upload-Offset: 0")
        assert answer.status == 404, target
    assert service.ask(method, "/uploads/%FF", TUS).status == 400


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_other_methods_are_not_allowed(service: Service, method: str) -> None:
    upload = service.created()
    answer = service.ask(method, upload, TUS, content=b"hello")
    assert answer.status == 405
    assert set(answer.headers["allow"].split(", ")) >= {"HEAD", "PATCH", "DELETE", "POST"}
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert service.offset(upload) == 0


def test_refused_cross_site_requests_have_the_tus_version(service: Service) -> None:
    answer = service.ask("POST", "/uploads", TUS, NAMED, "Origin: https://elsewhere.example")
    assert (answer.status, answer.headers["tus-resumable"]) == (403, "1.0.0")
    assert "tus-resumable" not in service.ask("GET", "/media/").headers


@pytest.mark.parametrize(
    ("coded", "status"), [("Content-Encoding: gzip", 415), ("Content-Range: bytes 0-4/5", 400)]
)
def test_encoded_or_partial_content_is_refused(service: Service, coded: str, status: int) -> None:
    upload = service.created()
    refused(service.patch(upload, 0, b"hello", coded), status)
    creating = ("POST", "/uploads", TUS, NAMED, "Upload-Length: 11", PART, coded)
    refused(service.ask(*creating, content=b"hello"), status)
    assert service.offset(upload) == 0


def test_a_caller_with_too_many_unfinished_uploads_is_refused() -> None:
    service = Service(max_unfinished=1)
    service.created()
    answer = service.ask("POST", "/uploads", TUS, NAMED, "Upload-Length: 11")
    assert "1 unfinished uploads" in refused(answer, 429)


def test_one_upload_too_many_is_refused_with_retry_after() -> None:
    service = Service(max_uploads=1)
    first, second = service.created(), service.created()
    connection = service.connect()
    connection.send(service.half_a_part(first))
    answer = service.patch(second, 0, b"hello")
    refused(answer, 503, 514)
    assert int(answer.headers["retry-after"]) > 0
    connection.leave()


# Pages of other sites


STRANGERS = ("Sec-Fetch-Site: cross-site", "Origin: http://evil.example", "Origin: null")


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("POST", ()),
        ("PATCH", ()),
        ("DELETE", ()),
        ("POST", ("X-HTTP-Method-Override: PATCH",)),
        ("POST", ("X-HTTP-Method-Override: DELETE",)),
        ("POST", ("X-HTTP-Method-Override: HEAD",)),
    ],
)
def test_a_page_of_another_site_may_not_upload(
    service: Service, method: str, more: tuple[str, ...]
) -> None:
    upload = service.created()
    target = "/uploads" if method == "POST" and not more else upload
    headers = (TUS, PART, NAMED, "Upload-Length: 11", "Upload-Offset: 0", *more)
    for stranger in STRANGERS:
        answer = service.ask(method, target, *headers, stranger)
        assert (answer.status, json.loads(answer.content)["code"]) == (403, 403)
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert service.offset(upload) == 0
    assert len(result(service.store.resumable.callers())) == 1


def test_a_part_that_contradicts_a_finished_upload_is_refused(service: Service) -> None:
    upload = service.created(PART, "Upload-Length: 11", content=WHOLE)
    assert service.patch(upload, 11, b"").status == 204
    refused(service.patch(upload, 11, b"x"), 413, 506)
    refused(service.patch(upload, 11, b"", "Upload-Length: 12"), 400, 510)
    assert service.offset(upload) == 11


def test_a_length_other_than_that_of_the_file_with_the_digest_is_refused(service: Service) -> None:
    service.created(PART, "Upload-Length: 11", content=WHOLE)
    named = metadata(filename="hello.mp3", directory="prompts/en", sha256=SHA256)
    refused(service.ask("POST", "/uploads", TUS, named, "Upload-Length: 9"), 400, 508)
    answer = service.ask("POST", "/uploads", TUS, named, "Upload-Length: 11")
    assert (answer.status, answer.headers["upload-offset"]) == (201, "11")


@pytest.mark.parametrize("concat", ["partial", "final;/uploads/a /uploads/b"])
def test_a_part_for_concatenation_is_not_stored_as_a_whole_file(
    service: Service, concat: str
) -> None:
    creating = ("POST", "/uploads", TUS, NAMED, "Upload-Length: 11", PART)
    refused(service.ask(*creating, f"Upload-Concat: {concat}", content=WHOLE), 400)
    assert service.content() is None


def test_a_dropped_part_does_not_set_the_length(service: Service) -> None:
    upload = service.created("Upload-Defer-Length: 1")
    wrong = "Upload-Checksum: sha1 " + b64encode(bytes(20)).decode()
    refused(service.patch(upload, 0, b"hello", "Upload-Length: 5", wrong), 460, 508)
    assert service.look(upload).headers["upload-defer-length"] == "1"
    assert service.patch(upload, 0, WHOLE, "Upload-Length: 11").status == 204
    assert service.content() == WHOLE

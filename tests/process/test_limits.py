"""Sizes: N bytes pass a limit of N and N+1 do not, however they come, and they are counted while
they come.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.process.exchange import (
    MULTIPART,
    URLENCODED,
    Answer,
    Connection,
    chunked,
    form,
    head,
    part,
    urlencoded,
)
from tests.process.running import NOWHERE, Process, running
from twistedmedia.http.lingering import LINGER_BYTES

LIMIT = 700_001  # more than is read at once, and odd
FORM_LIMIT = 3_000_000
FORM = {"Content-Type": MULTIPART}
FIELDS = {"Content-Type": URLENCODED}
# What the service may take of a refused upload: what it had received, what it lingers for, and what
# lies in the sockets of both ends.
REFUSED_AFTER = 16 << 20


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service with small limits."""
    root = tmp_path_factory.mktemp("limited") / "area" / "media"
    with running(root, "--max-upload", str(LIMIT), "--max-form", str(FORM_LIMIT)) as process:
        yield process


def put(service: Process, folder: str, size: int) -> Answer:
    return service.ask("PUT", f"/media/{folder}/a.wav", b"x" * size)


def put_chunked(service: Process, folder: str, size: int) -> Answer:
    pieces = [b"x" * min(65536, size - at) for at in range(0, size, 65536)]
    with service.connect() as connection:
        fields = [("Transfer-Encoding", "chunked")]
        connection.send(head("PUT", f"/media/{folder}/a.wav", fields) + chunked(pieces))
        return connection.answer()


def multipart(service: Process, folder: str, size: int) -> Answer:
    return service.ask("POST", "/media", form(part(folder, "a.wav", b"x" * size)), FORM)


def fields_of(folder: str, size: int, body_first: bool) -> bytes:
    names = [("directory", folder), ("filename", "a.wav")]
    body = [("body", b"\x80" * size)]  # each byte is sent as three
    return urlencoded(*(body + names if body_first else names + body))


def names_first(service: Process, folder: str, size: int) -> Answer:
    return service.ask("POST", "/media", fields_of(folder, size, False), FIELDS)


def body_first(service: Process, folder: str, size: int) -> Answer:
    return service.ask("POST", "/media", fields_of(folder, size, True), FIELDS)


@pytest.mark.parametrize("way", [put, put_chunked, multipart, names_first, body_first])
def test_a_file_of_the_limit_passes_and_one_byte_more_does_not(
    limited: Process, folder: str, way: Callable[[Process, str, int], Answer]
) -> None:
    """Cases 8, 16, 37."""
    with limited.unchanged():
        answer = way(limited, folder, LIMIT + 1)
        assert answer.brief == (413, 506)
        assert f"limit of {LIMIT} bytes" in answer.json["reason"]
    answer = way(limited, folder, LIMIT)
    assert answer.brief == (201, 200)
    assert answer.files[0]["size"] == LIMIT
    assert (limited.root / folder / "a.wav").stat().st_size == LIMIT


def test_the_parts_of_a_form_are_judged_one_by_one(limited: Process, folder: str) -> None:
    """Together they are more than one may be; what is too large holds up nobody else."""
    parts = [
        part(folder, "a.wav", b"a" * LIMIT),
        part(folder, "b.wav", b"b" * (LIMIT + 1)),
        part(folder, "c.wav", b"c" * LIMIT),
    ]
    answer = limited.ask("POST", "/media", form(*parts), FORM)
    assert answer.brief == (207, 506)
    assert [entry["code"] for entry in answer.files] == [200, 506, 200]
    assert (limited.root / folder / "c.wav").read_bytes() == b"c" * LIMIT
    assert not (limited.root / folder / "b.wav").exists()


def test_text_parts_are_not_bound_by_the_limit_of_a_file(limited: Process, folder: str) -> None:
    parts = [part("note", None, b"x" * (LIMIT + 1)), part(folder, "a.wav", b"a")]
    assert limited.ask("POST", "/media", form(*parts), FORM).brief == (201, 200)


def padded(size: int, folder: str) -> tuple[bytes, dict[str, str]]:
    """A multipart form of exactly `size` bytes."""
    parts = [part(folder, f"{n}.wav", b"x" * 600_000) for n in range(4)]
    rest = size - len(form(*parts, part("note", None, b"")))
    return form(*parts, part("note", None, b"-" * rest)), FORM


def padded_fields(size: int, folder: str) -> tuple[bytes, dict[str, str]]:
    """An urlencoded form of exactly `size` bytes."""
    sent = urlencoded(("directory", folder), ("filename", "0.wav"), ("body", b"x"))
    return sent + b"&note=" + b"-" * (size - len(sent) - 6), FIELDS


@pytest.mark.parametrize("with_length", [True, False], ids=["with length", "chunked"])
@pytest.mark.parametrize("form_of", [padded, padded_fields])
def test_a_form_of_the_limit_passes_and_one_byte_more_does_not(
    limited: Process,
    folder: str,
    form_of: Callable[[int, str], tuple[bytes, dict[str, str]]],
    with_length: bool,
) -> None:
    def ask(size: int) -> Answer:
        content, headers = form_of(size, folder)
        assert len(content) == size
        if with_length:
            return limited.ask("POST", "/media", content, headers)
        with limited.connect() as connection:
            fields = [("Transfer-Encoding", "chunked"), *headers.items()]
            connection.send(head("POST", "/media", fields))
            connection.send(chunked(content[at : at + 65536] for at in range(0, size, 65536)))
            return connection.answer()

    with limited.unchanged():
        answer = ask(FORM_LIMIT + 1)
        assert answer.brief == (413, 506)
        assert f"the form is larger than the limit of {FORM_LIMIT}" in answer.json["reason"]
    answer = ask(FORM_LIMIT)
    assert answer.brief == (201, 200)


ENDLESS = {
    "a file": ("PUT", "/media/endless/a.wav", {}, b"", b"x" * 65536),
    "a part": ("POST", "/media", FORM, part("endless", "a.wav", b"")[:-2], b"x" * 65536),
    "a text part": ("POST", "/media", FORM, part("note", None, b"")[:-2], b"x" * 65536),
    "what precedes the first part": ("POST", "/media", FORM, b"", b"x" * 65536),
    "the frame of the parts": ("POST", "/media", FORM, b"", b"\r\n" * 32768),
    "the head of a part": ("POST", "/media", FORM, b"--" + MULTIPART[30:].encode(), b"x" * 65536),
    "what follows the last part": (
        "POST",
        "/media",
        FORM,
        form(part("endless", "a.wav", b"x")),
        b"x" * 65536,
    ),
    "parts": ("POST", "/media", FORM, b"", part("endless", "a.wav", b"x") * 700),
    "a body": ("POST", "/media", FIELDS, b"directory=a&filename=a.wav&body=", b"%41" * 20000),
    "another field": ("POST", "/media", FIELDS, b"other=", b"%41" * 20000),
    "a directory": ("POST", "/media", FIELDS, b"directory=", b"%41" * 20000),
    "the name of a field": ("POST", "/media", FIELDS, b"", b"x" * 65536),
    "fields": ("POST", "/media", FIELDS, b"", b"x=y&" * 16384),
    "nothing but ampersands": ("POST", "/media", FIELDS, b"", b"&" * 65536),
    "a delete": ("DELETE", "/media", FIELDS, b"", b"&" * 65536),
}


@pytest.mark.parametrize(
    ("method", "target", "headers", "begin", "piece"), ENDLESS.values(), ids=ENDLESS
)
def test_what_does_not_end_is_cut_off(
    limited: Process,
    method: str,
    target: str,
    headers: dict[str, str],
    begin: bytes,
    piece: bytes,
) -> None:
    """Cases 8, 16, 17 and 19: nobody waits for the end of what is too much already."""
    with limited.unchanged(), limited.connect() as connection:
        fields = [("Transfer-Encoding", "chunked"), *headers.items()]
        connection.send(head(method, target, fields))
        if begin:
            connection.send(b"%x\r\n%b\r\n" % (len(begin), begin))
        sent = send_until_refused(connection, b"%x\r\n%b\r\n" % (len(piece), piece))
        assert sent < REFUSED_AFTER
        answer = connection.answer()
        assert answer.status in (400, 413)
        assert answer.brief in ((413, 506), (400, 510))
        assert answer.headers["Connection"] == "close"


def test_no_form_costs_the_service_much_more_than_its_bytes(limited: Process) -> None:
    """What is worked through byte by byte in the event loop makes everybody else wait."""
    seconds = {}
    started = time.thread_time()
    sum(1 for _ in range(2_000_000))
    many_s = max(0.5, 4 * (time.thread_time() - started))  # on a machine that is slow, more
    for what, (method, target, headers, begin, piece) in ENDLESS.items():
        content = (begin + piece * 50)[: FORM_LIMIT - 1000]
        before = limited.processor_time()
        assert limited.ask(method, target, content, headers).status in (400, 413), what
        seconds[what] = limited.processor_time() - before
    assert {what: taken for what, taken in seconds.items() if taken > many_s} == {}


def send_until_refused(connection: Connection, piece: bytes) -> int:
    """Send `piece` again and again until an answer lies there; how many bytes that took."""
    sent = 0
    answered = threading.Event()

    def wait() -> None:
        connection.socket.recv(1, socket.MSG_PEEK)
        answered.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    try:
        while not answered.is_set() and sent < 2 * REFUSED_AFTER:
            connection.send(piece)
            sent += len(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has read enough; the answer is here before
    finally:
        waiting.join()
    return sent


@pytest.mark.parametrize("size", [1 << 20, 3 << 20])
def test_a_refused_upload_leaves_the_connection_usable_when_little_of_it_is_left(
    limited: Process, folder: str, size: int
) -> None:
    with limited.connect() as connection:
        for _ in range(3):
            answer = connection.ask("PUT", f"/media/{folder}/a.wav", b"x" * size)
            assert answer.brief == (413, 506)
            assert answer.headers["Connection"] is None
        assert connection.ask("PUT", f"/media/{folder}/a.wav", b"fits").status == 201


def test_what_follows_a_refused_upload_does_not_count_as_the_rest_of_it(
    limited: Process, folder: str
) -> None:
    """Case 97. As much of each upload is left as is dropped at most."""
    upload = head("PUT", f"/media/{folder}/a.wav", [("Content-Length", str(LINGER_BYTES))])
    with limited.connect() as connection:
        connection.send(upload)
        for _ in range(40):
            answer = connection.answer()
            assert answer.brief == (413, 506)
            assert answer.headers["Connection"] is None
            connection.send(bytes(LINGER_BYTES) + upload)
        assert connection.answer().brief == (413, 506)
        connection.send(bytes(LINGER_BYTES))
        assert connection.ask("GET", NOWHERE).status == 404


def test_the_answer_to_a_refused_upload_arrives_although_its_content_is_not_read(
    limited: Process, folder: str
) -> None:
    """A client that sends first and reads then must not find a reset connection instead."""
    for _ in range(5):
        with limited.connect() as connection:
            connection.send(
                head("PUT", f"/media/{folder}/a.wav", [("Content-Length", str(LIMIT * 100))])
            )
            connection.send(b"x" * (4 << 20))
            assert connection.answer().brief == (413, 506)


def test_limits_from_the_environment_hold_as_well(tmp_path: Path, folder: str) -> None:
    options = {"TWISTEDMEDIA_MAX_UPLOAD": "3", "TWISTEDMEDIA_FORMATS": "OPUS, .Flac"}
    with running(tmp_path / "area" / "media", more=options) as service:
        assert service.ask("PUT", "/media/a/b.opus", b"1234").brief == (413, 506)
        assert service.ask("PUT", "/media/a/b.opus", b"123").brief == (201, 200)
        assert service.ask("PUT", "/media/a/b.FLAC", b"").brief == (201, 200)
        assert service.ask("PUT", "/media/a/b.wav", b"").brief == (415, 504)
    with running(tmp_path / "area" / "media", "--max-upload", "4", more=options) as service:
        assert service.ask("PUT", "/media/a/c.opus", b"1234").brief == (201, 200)


def test_a_size_that_the_storage_does_not_take_is_too_large(
    serve: Callable[..., Process],
) -> None:
    """The storage's own limit, met in the middle of an upload (here that of the process)."""
    service = serve()
    service.limit_file_size(1 << 20)
    with service.unchanged():
        for way in (put, put_chunked, multipart, names_first, body_first):
            answer = way(service, "a", (1 << 20) + 1)
            assert answer.brief == (413, 506)
    assert put(service, "a", 1 << 20).status == 201
    content = (service.root / "a" / "a.wav").read_bytes()
    assert hashlib.sha256(content).hexdigest() == hashlib.sha256(b"x" * (1 << 20)).hexdigest()

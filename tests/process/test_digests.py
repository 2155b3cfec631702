"""Digests: declared in uploads, sent with downloads, and used to recognize retries."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

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
    request,
    urlencoded,
)
from tests.process.running import Process, eventually

ATTRIBUTE = "user.twistedmedia.sha256"
CONTENT = b"what is sent"
OTHER = b"something else"
# So large that the name is checked before it is received.
LARGE = Random(41).randbytes((2 << 20) + 1)
CONTENTS = pytest.mark.parametrize(
    "content", [b"", CONTENT, LARGE], ids=["empty", "small", "large"]
)
WRONG = hashlib.sha256(b"another").digest()


def digest_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def field(sha256: bytes, algorithm: str = "sha-256") -> str:
    """A digest field (RFC 9530, 2)."""
    return f"{algorithm}=:{b64encode(sha256).decode()}:"


# Each makes a request that stores `content` as `name`, and declares the SHA-256 if one is given.
Way = Callable[[str, bytes, bytes | None], bytes]


def _put(header: str) -> Way:
    def way(name: str, content: bytes, sha256: bytes | None) -> bytes:
        headers = {} if sha256 is None else {header: field(sha256)}
        return request("PUT", f"/media/{name}", content, headers)

    return way


def _chunked_put(name: str, content: bytes, sha256: bytes | None) -> bytes:
    pieces = [content[at : at + 100_000] for at in range(0, len(content), 100_000)]
    fields = [("Transfer-Encoding", "chunked")]
    if sha256 is not None:
        fields.append(("Content-Digest", field(sha256)))
    return head("PUT", f"/media/{name}", fields) + chunked(pieces)


def _part(header: str) -> Way:
    def way(name: str, content: bytes, sha256: bytes | None) -> bytes:
        more = "" if sha256 is None else f"{header}: {field(sha256)}"
        sent = form(part(*os.path.split(name), content, more))
        return request("POST", "/media", sent, {"Content-Type": MULTIPART})

    return way


def _fields(*order: str) -> Way:
    def way(name: str, content: bytes, sha256: bytes | None) -> bytes:
        directory, filename = os.path.split(name)
        values: dict[str, str | bytes] = {
            "directory": directory,
            "filename": filename,
            "body": content,
            "sha256": (sha256 or b"").hex(),
        }
        if sha256 is None:
            del values["sha256"]
        sent = urlencoded(*((each, values[each]) for each in order if each in values))
        return request("POST", "/media", sent, {"Content-Type": URLENCODED})

    return way


PUT = _put("Repr-Digest")
WAYS = {
    "Repr-Digest": PUT,
    "Content-Digest": _put("content-digest"),
    "chunked": _chunked_put,
    "Repr-Digest of a part": _part("Repr-Digest"),
    "Content-Digest of a part": _part("content-digest"),
    "field before the body": _fields("sha256", "directory", "filename", "body"),
    "field behind the body": _fields("body", "filename", "sha256", "directory"),
}
EVERY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def ask(service: Process, sent: bytes) -> Answer:
    with service.connect() as connection:
        connection.send(sent)
        return connection.answer()


def assert_identical(answer: Answer, name: str, content: bytes) -> None:
    """Assert that `name` had this content already."""
    assert answer.brief == (200, 200), answer
    (entry,) = answer.files
    assert entry["identical"] is True
    assert (entry["url"], entry["size"]) == (f"/media/{name}", len(content))
    assert entry["sha256"] == digest_of(content).hex()


def can_be_sent(way: Way, content: bytes) -> bool:
    """Whether `way` can send `content`. An urlencoded form cannot have an empty file."""
    return bool(content) or way not in (
        WAYS["field before the body"],
        WAYS["field behind the body"],
    )


@EVERY_WAY
@CONTENTS
def test_content_with_the_declared_digest_is_stored_once_and_then_recognized(
    service: Process, folder: str, way: Way, content: bytes
) -> None:
    name = f"{folder}/a.wav"
    if not can_be_sent(way, content):
        assert ask(service, way(name, content, digest_of(content))).brief == (400, 503)
        return
    sent = way(name, content, digest_of(content))
    first = ask(service, sent)
    assert first.brief == (201, 200)
    assert "identical" not in first.files[0]
    assert first.files[0]["sha256"] == digest_of(content).hex()
    before = (service.root / name).stat()
    with service.unchanged():
        for again in (sent, sent, PUT(name, content, digest_of(content))):
            answer = ask(service, again)
            assert_identical(answer, name, content)
            assert answer.files[0]["etag"] == first.files[0]["etag"]
        assert ask(service, way(name, content, None)).brief == (409, 501)
    after = (service.root / name).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@EVERY_WAY
@CONTENTS
def test_content_with_another_digest_is_not_stored(
    service: Process, folder: str, way: Way, content: bytes
) -> None:
    name = f"{folder}/a.wav"
    if not can_be_sent(way, content):
        return
    with service.unchanged():
        answer = ask(service, way(name, content, WRONG))
        assert answer.brief == (400, 508)
        assert "digest" in answer.json["reason"]
    assert ask(service, way(name, content, digest_of(content))).brief == (201, 200)


@EVERY_WAY
@pytest.mark.parametrize("stored", [OTHER, LARGE[:-1]], ids=["small", "large"])
def test_a_name_with_other_content_is_taken(
    service: Process, folder: str, way: Way, stored: bytes
) -> None:
    """The name is checked before the digest, even if that is wrong."""
    name = f"{folder}/a.wav"
    assert ask(service, PUT(name, stored, None)).brief == (201, 200)
    with service.unchanged():
        for content in (CONTENT, LARGE):
            for declared in (digest_of(content), WRONG):
                assert ask(service, way(name, content, declared)).brief == (409, 501)
    assert (service.root / name).read_bytes() == stored


@EVERY_WAY
def test_a_file_of_an_administrator_is_recognized_too(
    service: Process, folder: str, way: Way
) -> None:
    name = f"{folder}/a.wav"
    (service.root / folder).mkdir()
    for content in (CONTENT, LARGE):
        (service.root / name).write_bytes(content)
        assert_identical(ask(service, way(name, content, digest_of(content))), name, content)


@EVERY_WAY
def test_a_file_that_was_changed_is_not_recognized(service: Process, folder: str, way: Way) -> None:
    name = f"{folder}/a.wav"
    sent = way(name, LARGE, digest_of(LARGE))
    assert ask(service, sent).brief == (201, 200)
    with (service.root / name).open("r+b") as file:
        file.seek(1 << 20)
        file.write(bytes([LARGE[1 << 20] ^ 1]))
    assert ask(service, sent).brief == (409, 501)
    (service.root / name).write_bytes(LARGE)
    assert_identical(ask(service, sent), name, LARGE)


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ([("Repr-Digest", "md5=:AAAA:")], 201, 200),
        ([("Repr-Digest", "sha-512=:AAAA:, md5=:AAAA:")], 201, 200),
        ([("Repr-Digest", "unheard-of=1;a=b, another")], 201, 200),
        ([("Repr-Digest", "sha-512=:AAAA:, {right}")], 201, 200),
        ([("Repr-Digest", "{right}, sha-512=:AAAA:")], 201, 200),
        ([("Repr-Digest", "sha-512=:AAAA:, {wrong}")], 400, 508),
        ([("Repr-Digest", "{wrong}, {right}")], 201, 200),  # RFC 9651, 4.2.2: the last one counts
        ([("Repr-Digest", "{right}, {wrong}")], 400, 508),
        ([("Repr-Digest", "{right}"), ("Content-Digest", "{right}")], 201, 200),
        ([("Repr-Digest", "{right}"), ("Content-Digest", "sha-512=:AAAA:")], 201, 200),
        ([("Repr-Digest", "{right}"), ("Content-Digest", "{wrong}")], 400, 510),
        ([("Repr-Digest", "{wrong}"), ("Content-Digest", "{right}")], 400, 510),
        ([("Repr-Digest", "sha-512=:AAAA:"), ("Repr-Digest", "{right}")], 201, 200),
        ([("Repr-Digest", "sha-512=:AAAA:"), ("Repr-Digest", "{wrong}")], 400, 508),
        ([("Repr-Digest", "{right};a=1")], 201, 200),
        ([("Repr-Digest", "")], 201, 200),
        ([("Digest", "SHA-256=AAAA")], 201, 200),  # RFC 3230, obsolete
        ([("Want-Repr-Digest", "sha-256=1")], 201, 200),
        ([("Repr-Digest", "sha-256=:AAAA:")], 400, 510),
        ([("Repr-Digest", "sha-256")], 400, 510),
        ([("Repr-Digest", "sha-256=::")], 400, 510),
        ([("Repr-Digest", "sha-256={hex}")], 400, 510),
        ([("Repr-Digest", 'sha-256="{hex}"')], 400, 510),
        ([("Repr-Digest", "{right},")], 400, 510),
        ([("Repr-Digest", "SHA-256=:AAAA:")], 400, 510),
        ([("Repr-Digest", "{right} {right}")], 400, 510),
        ([("Repr-Digest", "=:AAAA:")], 400, 510),
        ([("Repr-Digest", "sha-512=:AA")], 400, 510),
        ([("Repr-Digest", "\xe4")], 400, 510),
        ([("Content-Digest", "{right}"), ("Repr-Digest", "?")], 400, 510),
    ],
)
@pytest.mark.parametrize("in_a_form", [False, True], ids=["put", "part"])
def test_digest_fields_of_all_kinds(
    service: Process,
    folder: str,
    fields: list[tuple[str, str]],
    status: int,
    code: int,
    in_a_form: bool,
) -> None:
    """Without a SHA-256 nothing is declared, so a retry finds the name taken."""
    values = {
        "right": field(digest_of(CONTENT)),
        "wrong": field(WRONG),
        "hex": digest_of(CONTENT).hex(),
    }
    headers = [(name, value.format(**values)) for name, value in fields]
    if in_a_form and len({name for name, _ in headers}) < len(headers):
        headers = [(headers[0][0], ", ".join(value for _, value in headers))]
    if in_a_form:
        lines = "\r\n".join(f"{name}: {value}" for name, value in headers)
        plain = form(part(folder, "a.wav", CONTENT, lines))
        sent = request("POST", "/media", plain, {"Content-Type": MULTIPART})
    else:
        length = ("Content-Length", str(len(CONTENT)))
        sent = head("PUT", f"/media/{folder}/a.wav", [length, *headers]) + CONTENT
    assert ask(service, sent).brief == (status, code)
    if status == 201:
        declares = any("{right}" in value for _, value in fields)
        retried = ask(service, sent)
        assert retried.brief == ((200, 200) if declares else (409, 501))
    else:
        assert not (service.root / folder).exists()


@pytest.mark.parametrize(
    ("value", "brief"),
    [
        ("{hex}", (201, 200)),
        ("{upper}", (201, 200)),
        ("{wrong}", (400, 508)),
        ("", (400, 503)),
        ("{hex}0", (400, 510)),
        ("{hex} ", (400, 510)),
        ("0x{hex}", (400, 510)),
        ("sha-256=:AAAA:", (400, 510)),
        ("z" * 64, (400, 510)),
        ("٣" * 64, (400, 510)),
    ],
)
def test_the_field_of_an_urlencoded_form_is_in_hex(
    service: Process, folder: str, value: str, brief: tuple[int, int]
) -> None:
    hexadecimal = digest_of(CONTENT).hex()
    sha256 = value.format(hex=hexadecimal, upper=hexadecimal.upper(), wrong=WRONG.hex())
    names = [("directory", folder), ("filename", "a.wav")]
    for fields in (
        [("sha256", sha256), ("body", CONTENT)],
        [("body", CONTENT), ("sha256", sha256)],
    ):
        sent = urlencoded(*names, *fields)
        answer = service.ask("POST", "/media", sent, {"Content-Type": URLENCODED})
        assert answer.brief == brief
        assert (service.root / folder).exists() == (brief == (201, 200))
        service.ask("DELETE", f"/media/{folder}/a.wav")


def test_a_field_that_is_given_twice_is_malformed(service: Process, folder: str) -> None:
    names = [("directory", folder), ("filename", "a.wav"), ("body", CONTENT)]
    twice = [("sha256", digest_of(CONTENT).hex())] * 2
    with service.unchanged():
        sent = urlencoded(*twice, *names)
        answer = service.ask("POST", "/media", sent, {"Content-Type": URLENCODED})
        assert answer.brief == (400, 510)


def test_each_file_of_a_form_has_its_own_digest(service: Process, folder: str) -> None:
    right, wrong = f"Repr-Digest: {field(digest_of(CONTENT))}", f"Repr-Digest: {field(WRONG)}"
    malformed = "Content-Digest: sha-256=x"
    parts = [
        part(folder, "right.wav", CONTENT, right),
        part(folder, "wrong.wav", CONTENT, wrong),
        part(folder, "malformed.wav", CONTENT, malformed),
        part(folder, "none.wav", CONTENT),
        part(folder, "right too.wav", CONTENT, f"X-A: b\r\n{right}"),
        part("note", None, b"a text", wrong),
    ]
    headers = {"Content-Type": MULTIPART}
    answer = service.ask("POST", "/media", form(*parts), headers)
    assert answer.brief == (207, 508)
    assert [entry["code"] for entry in answer.files] == [200, 508, 510, 200, 200]
    stored = ["none.wav", "right too.wav", "right.wav"]
    assert sorted(os.listdir(service.root / folder)) == stored

    again = service.ask("POST", "/media", form(*parts), headers)
    assert again.brief == (207, 508)
    assert [entry["code"] for entry in again.files] == [200, 508, 510, 501, 200]
    assert [entry.get("identical") for entry in again.files] == [True, None, None, None, True]

    identical = service.ask("POST", "/media", form(parts[0], parts[4]), headers)
    assert identical.brief == (200, 200)
    mixed = service.ask("POST", "/media", form(parts[0], part(folder, "new.wav", b"n")), headers)
    assert mixed.brief == (201, 200)


@pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["small", "large"])
def test_a_client_that_expects_100_continue_need_not_send_an_identical_file(
    service: Process, folder: str, content: bytes
) -> None:
    name = f"{folder}/a.wav"
    assert ask(service, PUT(name, content, None)).brief == (201, 200)
    fields = [
        ("Content-Length", str(len(content))),
        ("Expect", "100-continue"),
        ("Repr-Digest", field(digest_of(content))),
    ]
    with service.unchanged(), service.connect() as connection:
        connection.send(head("PUT", f"/media/{name}", fields))
        status, headers = connection.answer_head()
        assert status == 200  # not 100
        answer = Answer(status, headers, connection.read(int(headers["Content-Length"])))
        assert_identical(answer, name, content)
        # The client may send the content anyway.
        assert headers["Connection"] == "close"
        assert connection.is_ended()


def test_a_client_that_sends_an_identical_file_is_not_delayed(
    service: Process, folder: str
) -> None:
    """The content is read and dropped, and the connection is kept."""
    name = f"{folder}/a.wav"
    sent = PUT(name, LARGE, digest_of(LARGE))
    with service.connect() as connection:
        connection.send(sent + sent + request("GET", f"/media/{name}"))
        assert connection.answer().brief == (201, 200)
        assert_identical(connection.answer(), name, LARGE)
        assert connection.answer().content == LARGE


@contextmanager
def cutting(service: Process) -> Iterator[tuple[int, threading.Event]]:
    """The port of a proxy that forwards what clients send, and closes both connections when the
    service responds; and an event for that moment.
    """
    answered = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            client, _ = listening.accept()
            with client, socket.create_connection(("127.0.0.1", service.port), 20) as upstream:

                def hand_on() -> None:
                    while piece := client.recv(1 << 16):
                        upstream.sendall(piece)

                sending = threading.Thread(target=hand_on)
                sending.start()
                assert upstream.recv(1)
                answered.set()
                for end in (client, upstream):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.shutdown(socket.SHUT_RD)
                sending.join()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listening.getsockname()[1], answered
        finally:
            thread.join()


@EVERY_WAY
@pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["small", "large"])
def test_a_client_that_lost_the_response_can_retry(
    service: Process, folder: str, way: Way, content: bytes
) -> None:
    """The proxy closes the connection before the client gets the response."""
    name = f"{folder}/a.wav"
    sent = way(name, content, digest_of(content))
    with service.unchanged_descriptors():
        with cutting(service) as (port, answered), Connection(port) as connection:
            connection.send(sent)
            assert connection.read_to_the_end() == b""
            assert answered.is_set()
        assert ask(service, way(name, content, None)).brief == (409, 501)
        assert_identical(ask(service, sent), name, content)
    assert (service.root / name).read_bytes() == content


def test_a_client_that_crashed_after_sending_all_can_retry(service: Process, folder: str) -> None:
    """The file may or may not be stored before the retry. It is afterwards."""
    outcomes = set()
    for n in range(30):
        name = f"{folder}/{n}.wav"
        sent = PUT(name, CONTENT, digest_of(CONTENT))
        connection = service.connect()
        connection.send(sent)
        if n % 2:
            eventually("it is stored", (service.root / name).exists)
        connection.reset()
        answer = ask(service, sent)
        assert answer.brief in {(200, 200), (201, 200)}
        outcomes.add(answer.status)
        assert (service.root / name).read_bytes() == CONTENT
    assert 200 in outcomes


def test_a_replacement_whose_response_was_lost_is_recognized(service: Process, folder: str) -> None:
    """It is recognized by its digest. Without one, the retry fails, since the old tag is gone."""
    name = f"{folder}/a.wav"
    for content in (CONTENT, LARGE):
        etag = ask(service, PUT(name, OTHER, None)).files[0]["etag"]
        condition = {"If-Match": etag}
        declaring = {**condition, "Repr-Digest": field(digest_of(content))}
        sent = request("PUT", f"/media/{name}", content, declaring)
        with cutting(service) as (port, _), Connection(port) as connection:
            connection.send(sent)
            assert connection.read_to_the_end() == b""
        undeclared = request("PUT", f"/media/{name}", content, condition)
        assert ask(service, undeclared).brief == (412, 412)
        assert_identical(ask(service, sent), name, content)
        assert service.ask("DELETE", f"/media/{name}").json["deleted"] is True


def test_of_identical_uploads_at_once_one_stores_and_all_succeed(
    service: Process, folder: str
) -> None:
    for number, content in enumerate([CONTENT, LARGE] * 5):
        name = f"{folder}/{number}.wav"
        answers: list[Answer] = []
        ready = threading.Barrier(6)

        def upload(
            sent: bytes,
            answers: list[Answer] = answers,
            ready: threading.Barrier = ready,
        ) -> None:
            with service.connect() as connection:
                connection.send(sent[:-1])
                ready.wait()
                connection.send(sent[-1:])
                answers.append(connection.answer())

        ways = [WAYS["Repr-Digest"], WAYS["Content-Digest of a part"], WAYS["chunked"]] * 2
        threads = [
            threading.Thread(target=upload, args=(way(name, content, digest_of(content)),))
            for way in ways
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.brief for answer in answers) == [(200, 200)] * 5 + [(201, 200)]
        identical = [answer.files[0].get("identical") for answer in answers]
        assert identical.count(True) == 5


# Sent with downloads


@pytest.fixture
def by_hand(service: Process, folder: str) -> Path:
    """A file of an administrator, whose digest is unknown."""
    path = service.root / folder / "a.wav"
    path.parent.mkdir()
    path.write_bytes(LARGE)
    return path


def digest_said(
    service: Process, path: Path, want: str | None = None, method: str = "GET", **headers: str
) -> str | None:
    """The Repr-Digest in a response for the file at `path`."""
    if want is not None:
        headers["Want-Repr-Digest"] = want
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"/media/{path.relative_to(service.root)}"
    answer = service.ask(method, url, headers=fields)
    assert answer.status in (200, 206, 304)
    said = answer.headers["Repr-Digest"]
    assert said is None or isinstance(said, str)
    return said


@CONTENTS
def test_the_digest_of_a_stored_file_is_sent(service: Process, folder: str, content: bytes) -> None:
    name = f"{folder}/a.wav"
    ask(service, PUT(name, content, None))
    path = service.root / name
    expected = field(digest_of(content))
    for want in (None, "sha-256=1", "sha-256=0", "sha-512=3"):
        for method in ("GET", "HEAD"):
            assert digest_said(service, path, want, method) == expected
        if content:  # of the whole file, whatever range was requested (RFC 9530, 3)
            assert digest_said(service, path, want, Range="bytes=1-2") == expected
    etag = service.ask("HEAD", f"/media/{name}").headers["ETag"]
    # RFC 9110, 15.4.5: a 304 has only the headers for caches.
    assert digest_said(service, path, "sha-256=1", If_None_Match=etag) is None
    assert os.getxattr(path, ATTRIBUTE).startswith(digest_of(content))


def test_the_digest_of_other_files_is_computed_on_request_and_then_kept(
    service: Process, by_hand: Path
) -> None:
    expected = field(digest_of(LARGE))
    for want in (None, "sha-256=0", "sha-512=1", "sha-256=11", "sha-256=x", "", "sha-256=1, ,"):
        for method in ("GET", "HEAD"):
            assert digest_said(service, by_hand, want, method) is None, want
    assert ATTRIBUTE not in os.listxattr(by_hand)
    assert digest_said(service, by_hand, "sha-512=3, sha-256=1", "HEAD") == expected
    assert digest_said(service, by_hand) == expected
    assert os.getxattr(by_hand, ATTRIBUTE).startswith(digest_of(LARGE))


@pytest.mark.parametrize(
    ("method", "headers"), [("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=-5"})]
)
def test_a_requested_digest_is_in_the_first_response(
    service: Process, by_hand: Path, method: str, headers: dict[str, str]
) -> None:
    said = digest_said(service, by_hand, "sha-256=10", method, **headers)
    assert said == field(digest_of(LARGE))


@pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["small", "large"])
def test_a_changed_file_never_has_the_old_digest(
    service: Process, folder: str, content: bytes
) -> None:
    name = f"{folder}/a.wav"
    ask(service, PUT(name, content, None))
    path = service.root / name
    before = service.ask("GET", f"/media/{name}")
    with path.open("r+b") as file:
        file.write(b"W")
    after = service.ask("GET", f"/media/{name}")
    assert after.content == b"W" + content[1:]
    assert after.headers["ETag"] != before.headers["ETag"]
    assert after.headers["Repr-Digest"] is None
    assert digest_said(service, path, "sha-256=1") == field(digest_of(b"W" + content[1:]))
    path.write_bytes(b"again")
    assert digest_said(service, path) is None
    assert digest_said(service, path, "sha-256=1") == field(digest_of(b"again"))


def test_an_invalid_record_is_ignored(service: Process, folder: str) -> None:
    name = f"{folder}/a.wav"
    ask(service, PUT(name, CONTENT, None))
    path = service.root / name
    for record in (b"", b"x", b"x" * 48, b"x" * 4000):
        os.setxattr(path, ATTRIBUTE, record)
        assert digest_said(service, path) is None
        assert digest_said(service, path, "sha-256=1") == field(digest_of(CONTENT))
    os.removexattr(path, ATTRIBUTE)
    assert digest_said(service, path) is None


def test_a_client_that_leaves_during_the_digest_leaves_nothing(
    service: Process, by_hand: Path
) -> None:
    """Case 25."""
    with service.unchanged_descriptors():
        for n in range(20):
            os.utime(by_hand, ns=(n, n))  # no digest is known yet
            connection = service.connect()
            url = f"/media/{by_hand.relative_to(service.root)}"
            connection.send(request("GET", url, headers={"Want-Repr-Digest": "sha-256=1"}))
            (connection.reset if n % 2 else connection.close)()

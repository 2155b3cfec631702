"""Malformed requests: each is refused as documented, stores nothing, and the service goes on."""

from __future__ import annotations

import contextlib
from random import Random

import pytest

from tests.process.exchange import (
    BOUNDARY,
    CLOSING,
    MULTIPART,
    URLENCODED,
    Answer,
    Connection,
    chunked,
    form,
    head,
    part,
    request,
)
from tests.process.running import Process

FORM = {"Content-Type": MULTIPART}
FIELDS = {"Content-Type": URLENCODED}
LINE = BOUNDARY.encode()
A_FILE = part("malformed", "a.wav", b"x" * 100)
DISPOSITION = 'Content-Disposition: form-data; name="malformed"; filename="a.wav"'


def raw_part(lines: str, content: str = "x") -> bytes:
    """A part with these header lines."""
    return f"--{BOUNDARY}\r\n{lines}\r\n\r\n{content}\r\n".encode("latin-1")


MULTIPARTS = {
    "an empty body": b"",
    "no boundary in it": b"x" * 1000,
    "a different boundary": form(A_FILE).replace(LINE, b"another"),
    "a boundary without its dashes": form(A_FILE).replace(
        b"--" + BOUNDARY.encode(), BOUNDARY.encode()
    ),
    "no closing boundary": A_FILE,
    "half a closing boundary": A_FILE + CLOSING[:-6],
    "a closing boundary with one dash": A_FILE + CLOSING[:-3],
    "an end within the second file": A_FILE + A_FILE[:-20],
    "an end within a part's headers": A_FILE + A_FILE[:50],
    "an end within the first boundary": A_FILE[:5],
    "text after a boundary": form(A_FILE).replace(BOUNDARY.encode(), BOUNDARY.encode() + b"x"),
    "LF in place of CRLF": form(A_FILE).replace(b"\r\n", b"\n"),
    "CR in place of CRLF": form(A_FILE).replace(b"\r\n", b"\r"),
    "a header without a colon": form(raw_part(DISPOSITION + "\r\nno colon")),
    "a header without a name": form(raw_part(DISPOSITION + "\r\n: value")),
    "no Content-Disposition": form(raw_part("Content-Type: audio/wav")),
    "no headers": form(f"--{BOUNDARY}\r\n\r\nx\r\n".encode()),
    "a disposition other than form-data": form(raw_part(DISPOSITION.replace("form-data", "file"))),
    "two dispositions": form(raw_part(f"{DISPOSITION}\r\n{DISPOSITION}")),
    "a header that is not UTF-8": form(raw_part(DISPOSITION.replace("a.wav", "\xff.wav"))),
    "a header of a megabyte": form(raw_part(f"{DISPOSITION}\r\nX-Long: {'x' * (1 << 20)}")),
    "a name of a megabyte": form(raw_part(DISPOSITION.replace("a.wav", "x" * (1 << 20)))),
    "many headers": form(raw_part(DISPOSITION + "\r\nX-One: more" * 100_000)),
    "nine headers": form(raw_part(DISPOSITION + "\r\nX-One: more" * 8)),
    "100,000 parts": form(A_FILE * 100_000),
    "100,000 text parts": form(part("note", None, b"x") * 100_000),
    "100,000 empty parts": form(part("", "", b"") * 100_000),
    "a megabyte after it": form(A_FILE) + b"x" * 1_000_000,
    "a form within a form": form(raw_part("Content-Type: multipart/mixed; boundary=x", "--x--")),
    "a whole form, then noise": A_FILE + CLOSING + Random(7).randbytes(900_000),
    "noise": Random(8).randbytes(500_000),
}


@pytest.mark.parametrize("size", [1 << 20, 997], ids=["in one piece", "in pieces"])
@pytest.mark.parametrize("content", MULTIPARTS.values(), ids=MULTIPARTS)
def test_a_broken_multipart_form_is_malformed_and_stores_nothing(
    service: Process, content: bytes, size: int
) -> None:
    """Cases 1, 17, 18, 19."""
    if size == 997:
        content = content[: 1 << 20]
    with service.unchanged(), service.connect() as connection:
        if size == 997:
            pieces = [content[at : at + size] for at in range(0, len(content), size)]
            fields = [("Transfer-Encoding", "chunked"), *FORM.items()]
            refused = send(connection, head("POST", "/media", fields) + chunked(pieces))
        else:
            refused = send(connection, request("POST", "/media", content, FORM))
        assert refused.brief == (400, 510)
        assert "multipart form is malformed" in refused.json["reason"]
        assert len(refused.json["reason"]) < 300
    assert service.ask("GET", "/").status == 404


def send(connection: Connection, data: bytes) -> Answer:
    """Send as much of `data` as the service accepts, and return the response."""
    with contextlib.suppress(ConnectionError):
        connection.send(data)
    return connection.answer()


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; charset=utf-8",
        "multipart/form-data; boundary=" + "x" * 2000,
        "multipart/form-data; boundary=\xe4\xf6",
        'multipart/form-data; boundary="a\\"b',
    ],
)
def test_an_invalid_boundary_is_malformed(service: Process, content_type: str) -> None:
    with service.unchanged():
        headers = {"Content-Type": content_type}
        assert service.ask("POST", "/media", form(A_FILE), headers).brief == (400, 510)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("", 415),
        (";", 415),
        ("multipart", 415),
        ("multipart/", 415),
        ("multipart/form-data-x; boundary=" + BOUNDARY, 415),
        ("text/plain; boundary=" + BOUNDARY, 415),
        ("application/x-www-form-urlencoded2", 415),
        ("\xff\xfe", 415),
        ("multipart/form-data boundary=" + BOUNDARY, 415),
    ],
)
def test_a_content_type_other_than_a_forms_is_not_supported(
    service: Process, content_type: str, status: int
) -> None:
    with service.unchanged():
        headers = {"Content-Type": content_type}
        assert service.ask("POST", "/media", form(A_FILE), headers).brief == (status, 415)


CHUNKS = {
    "an invalid size": b"xyz\r\nabc\r\n0\r\n\r\n",
    "a negative size": b"-3\r\nabc\r\n0\r\n\r\n",
    "a signed size": b"+3\r\nabc\r\n0\r\n\r\n",
    "a size in C notation": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a size with a blank before it": b" 3\r\nabc\r\n0\r\n\r\n",
    "a size with an underscore": b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    "a size in non-ASCII digits": "٣\r\nabc\r\n0\r\n\r\n".encode(),
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "a size that is too large": b"f" * 2000 + b"\r\nabc\r\n0\r\n\r\n",
    "less than its size": b"5\r\nabc\r\n0\r\n\r\n",
    "more than its size": b"2\r\nabc\r\n0\r\n\r\n",
    "a size without an end": b"3" * 100_000,
    "an extension without an end": b"3;" + b"x" * 100_000,
    "a trailer without an end": b"3\r\nabc\r\n0\r\n" + b"x" * 300_000,
    "noise": Random(9).randbytes(5000),
    "noise after a good chunk": b"3\r\nabc\r\n" + Random(10).randbytes(5000),
    "noise after a large chunk": b"80000\r\n" + b"x" * 0x80000 + b"\r\nnoise\r\n",
}


@pytest.mark.parametrize("kind", ["put", "form"])
@pytest.mark.parametrize("content", CHUNKS.values(), ids=CHUNKS)
def test_invalid_chunked_content_is_malformed(service: Process, kind: str, content: bytes) -> None:
    with service.unchanged(), service.connect() as connection:
        fields = [("Transfer-Encoding", "chunked")]
        if kind == "put":
            sent = head("PUT", "/media/malformed/a.wav", fields) + content
        else:
            begin = b"%x\r\n%b\r\n" % (len(A_FILE), A_FILE)
            sent = head("POST", "/media", [*fields, *FORM.items()]) + begin + content
        refused = send(connection, sent)
        assert refused.brief == (400, 510)
        assert "chunked" in refused.json["reason"]
        assert refused.headers["Connection"] == "close"
        # The service does not parse what follows as another request.
        assert connection.is_ended()
    assert service.ask("GET", "/").status == 404


def test_noise_is_refused_and_closed(service: Process) -> None:
    with service.unchanged(), service.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.send(Random(11).randbytes(1000) + b"\r\n\r\n")
        assert connection.read_to_the_end().startswith(b"HTTP/1.1 400 ")
    assert service.ask("GET", "/").status == 404


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/media/a/b.wav", {"Host": "\xff\xfe"}),
        ("/media/a/b.wav", {"Host": ""}),
        ("/media/a/b.wav", {"Host": "x" * 5000}),
        ("/media/a/b.wav", {"Host": "x" * 64}),
        ("/media/a/b.wav", {"Host": "a..b"}),
        ("/media/a/b.wav", {"Host": "."}),
        ("/media/a/b.wav", {"Host": "[::1"}),
        ("/media/a/b.wav", {"Host": "a b/c?d#e@f:g:80"}),
        ("/media/a/b.wav", {"Cookie": "\xff=\xfe; ;;="}),
        ("/media/a/b.wav?\xff=%ff&&&=;%", {}),
        ("/media/a/b.wav?" + "a=b&" * 2000, {}),
        ("/media/\xff/b.wav", {}),
        ("*", {}),
        ("", {}),
        ("?", {}),
        ("//", {}),
        ("a/b", {}),
        ("http://[::1/media/a/b.wav", {}),
        ("/media/a/b.wav", {"X-Forwarded-For": "\xff"}),
        ("/media/a/b.wav", {"Range": "\xff", "If-Range": "\xff"}),
        ("/media/a/b.wav", {"Content-Type": "\xff; \xff=\xff"}),
        ("/media/a/b.wav", {"Authorization": "Basic \xff"}),
        ("/media/a/b.wav", {"Authorization": "Basic ="}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
def test_an_unusual_request_is_not_an_internal_error(
    service: Process, method: str, target: str, headers: dict[str, str]
) -> None:
    """The status may be any but 500. An incident in the log would fail the test as well."""
    content = b"x" if method in ("PUT", "POST") else None
    answer = service.ask(method, target, content, headers)
    assert answer.status < 500, answer
    if answer.status == 201:
        assert service.ask("DELETE", answer.headers["Location"]).json["deleted"] is True


def test_less_content_than_declared_is_not_stored(service: Process) -> None:
    """Case 9: the rest never arrives."""
    for content, headers, target in (
        (b"x" * 99, {}, "/media/malformed/a.wav"),
        (b"", {}, "/media/malformed/a.wav"),
        (form(A_FILE), FORM, "/media"),  # the form itself is complete
        (b"directory=malformed&filename=a.wav&body=x", FIELDS, "/media"),
    ):
        with service.unchanged(), service.connect() as connection:
            method = "PUT" if target.endswith("wav") else "POST"
            fields = [("Content-Length", str(len(content) + 1)), *headers.items()]
            connection.send(head(method, target, fields) + content)
            connection.socket.shutdown(1)
            assert connection.is_ended()  # without a response: the client has ended


def test_more_content_than_declared_is_not_stored(service: Process, folder: str) -> None:
    """Case 9: the declared length is stored; the rest is refused as a request."""
    with service.connect() as connection:
        connection.send(
            head("PUT", f"/media/{folder}/a.wav", [("Content-Length", "10")]) + b"x" * 30 + b"\r\n"
        )
        assert connection.answer().brief == (201, 200)
        assert connection.answer().status == 400
        assert connection.is_ended()
    assert (service.root / folder / "a.wav").read_bytes() == b"x" * 10


def test_unexpected_content_is_ignored(service: Process, folder: str) -> None:
    url = f"/media/{folder}/a.wav"
    service.ask("PUT", url, b"x")
    with service.connect() as connection:
        assert connection.ask("GET", url, b"y" * 1000).content == b"x"
        assert connection.ask("HEAD", url, b"y" * 1000).status == 200
        assert connection.ask("DELETE", url, b"y" * 1000).json["deleted"] is True
        assert connection.ask("GET", "/nowhere", b"y" * 1000).status == 404

"""Each kind of response: its status, code, reason, and the common headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from tests.process.exchange import (
    MULTIPART,
    URLENCODED,
    Answer,
    form,
    head,
    part,
    request,
    urlencoded,
)
from tests.process.running import Process

FORM = {"Content-Type": MULTIPART}
FIELDS = {"Content-Type": URLENCODED}


@dataclass(frozen=True)
class Row:
    """A request and its expected response. `reason` is a pattern."""

    method: str
    target: str
    status: int
    code: int
    reason: str
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    answer_headers: Mapping[str, str] = field(default_factory=dict)


ROWS = [
    Row("PUT", "/media/answers/new.wav", 201, 200, "OK", b"new"),
    Row("DELETE", "/media/answers/new.wav", 200, 200, "OK"),
    Row("DELETE", "/media/answers/new.wav", 200, 200, "OK"),
    Row(
        "POST",
        "/media",
        207,
        501,
        "exists already",
        form(part("answers", "there.wav", b"x"), part("answers", "second.wav", b"x")),
        FORM,
    ),
    Row("PUT", "/media/answers/new.wav", 400, 400, "Content-Length|chunked"),
    Row("PUT", "/media/answers/new.wav", 400, 400, "", b"x", {"Content-Range": "bytes 0-0/2"}),
    Row("GET", "/", 404, 404, ""),
    Row("GET", "/favicon.ico", 404, 404, ""),
    Row("GET", "/mediaanswers/there.wav", 404, 404, ""),
    Row("GET", "/media/absent", 404, 404, "directory"),
    Row("GET", "/media/absent/", 404, 404, "directory"),
    Row("GET", "/media/answers/there.wav/", 404, 404, "directory"),
    Row("GET", "/media/answers/?limit=0", 400, 400, "limit"),
    Row("GET", "/media/answers/?limit=ten", 400, 400, "limit"),
    Row("GET", "/media/answers/?limit=10001", 400, 400, "limit"),
    Row("GET", "/media/answers/?after=a&after=b", 400, 400, "twice"),
    Row("GET", "/media/answers/absent.wav", 404, 404, ""),
    Row("GET", "/media/absent/there.wav", 404, 404, ""),
    Row("GET", "/media/answers/there.wav/more.wav", 404, 404, ""),
    Row(
        "POST",
        "/media/answers/there.wav",
        405,
        405,
        "DELETE, GET, HEAD, PUT",
        b"x",
        answer_headers={"Allow": "DELETE, GET, HEAD, PUT"},
    ),
    Row(
        "PATCH",
        "/media/answers/there.wav",
        405,
        405,
        "DELETE, GET, HEAD, PUT",
        b"x",
        answer_headers={"Allow": "DELETE, GET, HEAD, PUT"},
    ),
    Row("BREW", "/media/answers/there.wav", 405, 405, "not allowed"),
    Row("DELETE", "/media/answers/", 409, 409, "directory"),
    Row("DELETE", "/media?directory=deep&filename=answers", 409, 409, "directory"),
    Row("PUT", "/media/answers/there.wav/more.wav", 409, 409, "directory", b"x"),
    Row("PUT", "/media/answers/folder.wav", 409, 409, "directory", b"x"),
    Row("PUT", "/media/answers/there.wav", 412, 412, "", b"x", {"If-Match": '"0"'}),
    Row("PUT", "/media/answers/new.wav", 412, 412, "", b"x", {"If-Match": "*"}),
    Row("DELETE", "/media/answers/there.wav", 412, 412, "", headers={"If-Match": '"0"'}),
    Row("POST", "/media", 415, 415, "multipart/form-data", b"x"),
    Row("POST", "/media", 415, 415, "application/json", b"{}", {"Content-Type": "application/xml"}),
    Row(
        "POST", "/media", 415, 415, "multipart/form-data", b"x", {"Content-Type": "multipart/mixed"}
    ),
    Row("DELETE", "/media", 415, 415, "urlencoded", b"{}", {"Content-Type": "application/json"}),
    Row("PUT", "/media/answers/new.wav", 415, 415, "", b"x", {"Content-Encoding": "gzip"}),
    Row(
        "GET",
        "/media/answers/there.wav",
        416,
        416,
        "5 bytes",
        headers={"Range": "bytes=5-"},
        answer_headers={"Content-Range": "bytes */5"},
    ),
    Row("PUT", "/media/answers/new.wav", 417, 417, "100-continue", b"x", {"Expect": "magic"}),
    Row("GET", "/media/answers/there.wav", 417, 417, "100-continue", headers={"Expect": "a bus"}),
    Row("PUT", "/media/answers/there.wav", 409, 501, "exists already", b"other"),
    Row("POST", "/media", 400, 502, "empty", form(), FORM),
    Row("POST", "/media", 400, 502, "empty", form(part("directory", None, b"x")), FORM),
    Row("POST", "/media", 400, 503, "'directory'", form(part("", "a.wav", b"x")), FORM),
    Row("POST", "/media", 400, 503, "'filename'", form(part("answers", "", b"x")), FORM),
    Row("POST", "/media", 400, 503, "'directory'", b"filename=a.wav&body=x", FIELDS),
    Row("POST", "/media", 400, 503, "'filename'", b"directory=answers&body=x", FIELDS),
    Row("POST", "/media", 400, 503, "'body'", b"directory=answers&filename=a.wav", FIELDS),
    Row("POST", "/media", 400, 503, "'body'", b"directory=answers&filename=a.wav&body=", FIELDS),
    Row("POST", "/media", 400, 503, "'directory'", b"", FIELDS),
    Row("PUT", "/media/a.wav", 400, 503, "'directory'", b"x"),
    Row("PUT", "/media", 400, 503, "'directory'", b"x"),
    Row("DELETE", "/media", 400, 503, "'directory'"),
    Row("DELETE", "/media?directory=answers", 400, 503, "'filename'"),
    Row("PUT", "/media/answers/", 400, 503, "'filename'", b"x"),
    Row("PUT", "/media/answers/page.html", 415, 504, "mp3, wav", b"x"),
    Row("PUT", "/media/answers/mp3", 415, 504, "mp3, wav", b"x"),
    Row("PUT", "/media/answers/song.ogg", 415, 504, "mp3, wav", b"x"),
    Row("POST", "/media", 415, 504, "mp3, wav", form(part("answers", "a.exe", b"x")), FORM),
    Row("POST", "/media", 415, 504, "mp3", b"directory=answers&filename=mp3.&body=x", FIELDS),
    Row("PUT", "/media/answers/.hidden.wav", 400, 505, "dot", b"x"),
    Row("GET", "/media/answers/.hidden.wav", 400, 505, "dot"),
    Row("DELETE", "/media/answers/.hidden.wav", 400, 505, "dot"),
    Row("GET", "/media/answers/%FF.wav", 400, 505, "UTF-8"),
    Row(
        "PUT",
        "/media/answers/big.wav",
        413,
        506,
        "limit of 2147483648 bytes",
        headers={"Content-Length": "2147483649", "Expect": "100-continue"},
    ),
    Row(
        "POST",
        "/media",
        413,
        506,
        "form .*limit of 8589934592 bytes",
        headers={**FORM, "Content-Length": "8589934593", "Expect": "100-continue"},
    ),
    Row("POST", "/media", 400, 510, "boundary", b"x", {"Content-Type": "multipart/form-data"}),
    Row("POST", "/media", 400, 510, "ends? before", part("answers", "a.wav", b"x"), FORM),
    Row("POST", "/media", 400, 510, "escape", b"directory=answers&filename=a.wav&body=%zz", FIELDS),
]


@pytest.fixture(scope="module")
def prepared(service: Process) -> Process:
    """The service, with `answers/there.wav` of 5 bytes, and a folder with the name of a file."""
    assert service.ask("PUT", "/media/answers/there.wav", b"there").status == 201
    assert service.ask("PUT", "/media/answers/folder.wav/in.wav", b"in").status == 201
    assert service.ask("PUT", "/media/deep/answers/in.wav", b"in").status == 201
    return service


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.code}-{row.method}-{row.target}")
def test_every_request_has_the_expected_response(prepared: Process, row: Row) -> None:
    answer = prepared.ask(row.method, row.target, row.content, row.headers)
    assert answer.brief == (row.status, row.code), answer.json["reason"]
    assert re.search(row.reason, answer.json["reason"]), answer
    for name, value in row.answer_headers.items():
        assert answer.headers[name] == value


def test_the_requests_above_leave_only_the_files_that_they_stored(prepared: Process) -> None:
    for row in ROWS:
        prepared.ask(row.method, row.target, row.content, row.headers)
    names = [name for name in prepared.tree() if name.startswith("answers/")]
    assert names == [
        "answers/folder.wav",
        "answers/folder.wav/in.wav",
        "answers/second.wav",
        "answers/there.wav",
    ]
    assert (prepared.root / "answers" / "there.wav").read_bytes() == b"there"


@pytest.mark.parametrize(
    "target",
    ["/media/answers/there.wav", "/media/answers/absent.wav", "/nowhere", "/media/a/.b", "/media"],
)
def test_the_response_to_head_is_that_to_get_without_content(
    prepared: Process, target: str
) -> None:
    with prepared.connect() as connection:
        shown = connection.ask("GET", target)
        headed = connection.ask("HEAD", target)
        again = connection.ask("GET", target)  # if HEAD had sent content, it would precede this
    assert headed.status == shown.status == again.status
    assert headed.content == b""
    for headers in (headed.headers, shown.headers):
        del headers["Date"]
    assert sorted(headed.headers.items()) == sorted(shown.headers.items())


def test_one_upload_too_many_is_refused_with_retry_after(serve: Callable[..., Process]) -> None:
    service = serve("--max-uploads", "2")
    uploads = {
        "PUT": request("PUT", "/media/a/third.wav", b"x"),
        "multipart": request("POST", "/media", form(part("a", "third.wav", b"x")), FORM),
        "urlencoded": request(
            "POST", "/media", urlencoded(("directory", "a"), ("filename", "b.wav")), FIELDS
        ),
    }
    waiting = [("Content-Length", "1"), ("Expect", "100-continue")]
    with service.connect() as first, service.connect() as second, service.connect() as third:
        for n, connection in enumerate((first, second)):
            connection.send(head("PUT", f"/media/a/{n}.wav", waiting))
            assert connection.answer_head()[0] == 100  # so the upload is in progress
        for kind, upload in uploads.items():
            third.send(upload)
            answer = third.answer()
            assert answer.brief == (503, 514), kind
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.headers["Retry-After"] in answer.json["reason"]
        third.send(head("PUT", "/media/a/third.wav", waiting))
        assert third.answer_head()[0] == 503  # without a 100 before it

        with service.connect() as reader:  # reading is not delayed
            assert reader.ask("GET", "/media/a/0.wav").status == 404
        first.send(b"1")
        assert first.answer().status == 201
        assert service.ask("PUT", "/media/a/third.wav", b"x").status == 201
        second.send(b"2")
        assert second.answer().status == 201
    assert service.tree() == ["a", "a/0.wav", "a/1.wav", "a/third.wav"]


def test_a_size_that_the_storage_has_no_space_for_is_refused_at_once(
    serve: Callable[..., Process],
) -> None:
    """Case 10, as far as a declared length goes."""
    service = serve("--max-upload", "1000000TiB")
    with service.unchanged(), service.connect() as connection:
        fields = [("Content-Length", str(10**18)), ("Expect", "100-continue")]
        connection.send(head("PUT", "/media/a/b.wav", fields))
        status, headers = connection.answer_head()
        assert status == 507
        answer = Answer(status, headers, connection.read(int(headers["Content-Length"])))
        assert answer.brief == (507, 507)
    assert service.ask("PUT", "/media/a/b.wav", b"fits").status == 201


def test_the_response_to_an_upload_names_every_file(service: Process, folder: str) -> None:
    content = form(
        part(folder, "a.wav", b"a"),
        part(folder, "b.txt", b"b"),
        part(folder, "c.wav", b"c"),
        part("..", "d.wav", b"d"),
    )
    answer = service.ask("POST", "/media", content, FORM)
    assert answer.brief == (207, 504)  # of the first failed file
    assert answer.headers["Location"] is None
    assert [(entry["code"], entry["directory"], entry["filename"]) for entry in answer.files] == [
        (200, folder, "a.wav"),
        (504, folder, "b.txt"),
        (200, folder, "c.wav"),
        (505, "..", "d.wav"),
    ]
    assert set(answer.files[0]) == {
        "code",
        "reason",
        "directory",
        "filename",
        "url",
        "size",
        "sha256",
        "etag",
        "audio",  # one letter is none
    }
    assert set(answer.files[1]) == {"code", "reason", "directory", "filename"}
    assert answer.json["reason"] == answer.files[1]["reason"]


def test_when_no_file_of_a_form_is_stored_the_status_is_that_of_the_first(
    service: Process, folder: str
) -> None:
    content = form(part(folder, "a.txt", b"a"), part("..", "d.wav", b"d"))
    with service.unchanged():
        answer = service.ask("POST", "/media", content, FORM)
        assert answer.brief == (415, 504)
        assert [entry["code"] for entry in answer.files] == [504, 505]

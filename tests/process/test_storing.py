"""Uploads of every kind store exactly the bytes that were sent."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import wave
from pathlib import Path
from random import Random

import pytest

from tests.process.exchange import (
    BOUNDARY,
    MULTIPART,
    URLENCODED,
    Answer,
    chunked,
    form,
    head,
    part,
    urlencoded,
)
from tests.process.running import Process
from twistedmedia.fairness.pace import MAX_BURST

FORM = {"Content-Type": MULTIPART}
FIELDS = {"Content-Type": URLENCODED}
_DATA = Path(__file__).resolve().parent.parent / "data"
EVERY_BYTE = bytes(range(256)) * 3
# Bytes that could be misread on the way: line breaks, boundaries, escapes.
AWKWARD = {
    "nothing": b"",
    "one byte": b"\0",
    "every byte": EVERY_BYTE,
    "line breaks": b"\r\n\n\r\r\n--\r\n",
    "what looks like a boundary": f"\r\n--{BOUNDARY[:-1]}\r\n-{BOUNDARY}\n--{BOUNDARY}--".encode(),
    "escapes": b"%41%zz%&=+;%2",
    "half a megabyte": Random(1).randbytes(524_287),
    "five megabytes": Random(2).randbytes((5 << 20) + 1),
}


def a_wave(seconds: float) -> bytes:
    """A tone in a real WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(n * n // 50 % 256 for n in range(int(16000 * seconds))))
    return file.getvalue()


def assert_stored(service: Process, answer: Answer, name: str, content: bytes) -> None:
    """Assert that only `name` was stored, and is served unchanged."""
    assert answer.brief == (201, 200), answer
    (entry,) = answer.files
    assert_is(service, entry, name, content)
    assert answer.headers["Location"] == entry["url"]


def assert_is(service: Process, entry: dict[str, object], name: str, content: bytes) -> None:
    """Assert the other fields of an entry. test_checking.py tests those about audio."""
    directory, _, filename = name.rpartition("/")
    shown = service.ask("GET", str(entry["url"]))
    assert shown.status == 200
    assert shown.content == content
    assert {key: value for key, value in entry.items() if key != "audio"} == {
        "code": 200,
        "reason": "OK",
        "directory": directory,
        "filename": filename,
        "url": f"/media/{name}",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "etag": shown.headers["ETag"],
    }
    assert (service.root / name).read_bytes() == content


@pytest.mark.parametrize("content", AWKWARD.values(), ids=AWKWARD)
def test_a_put_with_a_length_is_stored(service: Process, folder: str, content: bytes) -> None:
    answer = service.ask("PUT", f"/media/{folder}/a.wav", content)
    assert_stored(service, answer, f"{folder}/a.wav", content)


@pytest.mark.parametrize("size", [1, 4095, 1 << 20])
@pytest.mark.parametrize("content", AWKWARD.values(), ids=AWKWARD)
def test_a_chunked_put_is_stored(service: Process, folder: str, content: bytes, size: int) -> None:
    """Case 8. More chunks of a byte are too many (`twistedmedia.tiny_pieces`)."""
    content = content[: MAX_BURST if size == 1 else None]
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    with service.connect() as connection:
        fields = [("Transfer-Encoding", "chunked")]
        connection.send(head("PUT", f"/media/{folder}/{size}.wav", fields) + chunked(pieces))
        answer = connection.answer()
    assert_stored(service, answer, f"{folder}/{size}.wav", content)


def test_chunk_extensions_and_trailers_are_not_stored(service: Process, folder: str) -> None:
    with service.connect() as connection:
        connection.send(
            head("PUT", f"/media/{folder}/a.wav", [("Transfer-Encoding", "Chunked")])
            + b'3;name="value"\r\nabc\r\n0002\r\nde\r\n0\r\nX-Trailer: yes\r\n\r\n'
        )
        answer = connection.answer()
        assert_stored(service, answer, f"{folder}/a.wav", b"abcde")
        assert connection.ask("GET", f"/media/{folder}/a.wav").content == b"abcde"


def test_a_put_that_expects_100_continue_gets_it(service: Process, folder: str) -> None:
    with service.connect() as connection:
        fields = [("Content-Length", "4"), ("Expect", "100-continue")]
        connection.send(head("PUT", f"/media/{folder}/a.wav", fields))
        assert connection.answer_head()[0] == 100
        connection.send(b"RIFF")
        assert_stored(service, connection.answer(), f"{folder}/a.wav", b"RIFF")
        # and so does a client that does not wait for it
        connection.send(head("PUT", f"/media/{folder}/b.wav", fields) + b"more")
        assert_stored(service, connection.answer(), f"{folder}/b.wav", b"more")


LARGE = str(1 << 20)


@pytest.mark.parametrize(
    ("method", "target", "fields", "status", "code"),
    [
        ("PUT", "/media/{}/there.wav", {"Content-Length": LARGE}, 409, 501),
        ("PUT", "/media/{}/there.wav", {"Transfer-Encoding": "chunked"}, 409, 501),
        ("PUT", "/media/{}/there.wav/a.wav", {"Content-Length": LARGE}, 409, 409),
        ("PUT", "/media/{}", {"Content-Length": LARGE}, 400, 503),
        ("PUT", "/media/{}/a.txt", {"Content-Length": "1"}, 415, 504),
        ("PUT", "/media/{}/.wav", {"Content-Length": "1"}, 400, 505),
        ("PUT", "/media/{}/a.wav", {"Content-Length": str(1 << 40)}, 413, 506),
        ("PUT", "/media/{}/a.wav", {"Content-Length": "1", "Content-Encoding": "br"}, 415, 415),
        (
            "PUT",
            "/media/{}/a.wav",
            {"Content-Length": "1", "Content-Range": "bytes 1-1/2"},
            400,
            400,
        ),
        ("PUT", "/media/{}/a.wav", {"Content-Length": "1", "If-Match": "*"}, 412, 412),
        ("POST", "/media", {"Content-Length": "1", "Content-Type": "text/plain"}, 415, 415),
        ("POST", "/media", {"Content-Length": "1"}, 415, 415),
        ("POST", "/media", {"Content-Length": str(1 << 40), **FORM}, 413, 506),
        (
            "POST",
            "/media",
            {"Content-Length": "1", "Content-Type": "multipart/form-data"},
            400,
            510,
        ),
        ("POST", "/nowhere", {"Content-Length": "1"}, 404, 404),
        ("POST", "/media/{}/a.wav", {"Content-Length": "1"}, 405, 405),
    ],
)
def test_a_request_that_can_be_refused_early_gets_no_100_continue(
    service: Process,
    folder: str,
    method: str,
    target: str,
    fields: dict[str, str],
    status: int,
    code: int,
) -> None:
    service.ask("PUT", f"/media/{folder}/there.wav", b"there")
    with service.unchanged(), service.connect() as connection:
        expecting = [*fields.items(), ("Expect", "100-continue")]
        connection.send(head(method, target.format(folder), expecting))
        got, headers = connection.answer_head()
        assert got == status  # not 100
        content = connection.read(int(headers["Content-Length"]))
        assert Answer(got, headers, content).brief == (status, code)
        # The client may send the content anyway, so the connection must end.
        assert headers["Connection"] == "close"
        assert connection.is_ended()


def test_an_http_1_0_client_gets_no_100_continue(service: Process, folder: str) -> None:
    with service.connect() as connection:
        connection.send(
            f"PUT /media/{folder}/a.wav HTTP/1.0\r\n".encode()
            + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nold"
        )
        assert connection.answer_head()[0] == 201
    assert (service.root / folder / "a.wav").read_bytes() == b"old"


def test_content_encoding_identity_is_accepted(service: Process, folder: str) -> None:
    headers = {"Content-Encoding": "Identity"}
    answer = service.ask("PUT", f"/media/{folder}/a.wav", b"x", headers)
    assert_stored(service, answer, f"{folder}/a.wav", b"x")


@pytest.mark.parametrize("content", AWKWARD.values(), ids=AWKWARD)
def test_a_multipart_form_with_one_file_is_stored(
    service: Process, folder: str, content: bytes
) -> None:
    answer = service.ask("POST", "/media", form(part(folder, "a.wav", content)), FORM)
    assert_stored(service, answer, f"{folder}/a.wav", content)


SOUNDS = {
    "a.wav": a_wave(2),
    **{path.name: path.read_bytes() for path in sorted(_DATA.glob("*.mp3"))},
}


@pytest.mark.parametrize("filename", SOUNDS)
def test_real_sounds_are_unchanged_after_every_kind_of_upload(
    service: Process, folder: str, filename: str
) -> None:
    sound = SOUNDS[filename]
    for way, answer in {
        "put": service.ask("PUT", f"/media/{folder}/put/{filename}", sound),
        "form": service.ask("POST", "/media", form(part(f"{folder}/form", filename, sound)), FORM),
        "fields": service.ask(
            "POST",
            "/media",
            urlencoded(("directory", f"{folder}/fields"), ("filename", filename), ("body", sound)),
            FIELDS,
        ),
    }.items():
        assert_stored(service, answer, f"{folder}/{way}/{filename}", sound)


def test_the_sounds_exist() -> None:
    assert sorted(SOUNDS) == ["a.wav", "sweep.mp3", "tone.mp3"]
    with wave.open(io.BytesIO(SOUNDS["a.wav"])) as sound:
        assert sound.getnframes() == 16000


@pytest.mark.parametrize("count", [2, 256])
def test_a_multipart_form_with_many_files_is_stored(
    service: Process, folder: str, count: int
) -> None:
    files = {f"{folder}/{n % 7}/{n}.mp3": os.urandom(n * 10) for n in range(count)}
    parts = [part(os.path.dirname(name), os.path.basename(name), files[name]) for name in files]
    answer = service.ask("POST", "/media", form(*parts), FORM)
    assert answer.brief == (201, 200)
    for entry, (name, content) in zip(answer.files, files.items(), strict=True):
        assert_is(service, entry, name, content)


def test_a_multipart_form_arrives_in_pieces_of_any_size(service: Process, folder: str) -> None:
    """Chunks of the transfer coding do not match the parts: each has one byte."""
    content = form(part(folder, "a.wav", b"\r\n--a"), part(folder, "b.wav", b"b" * 100))
    with service.connect() as connection:
        fields = [("Transfer-Encoding", "chunked"), *FORM.items()]
        connection.send(head("POST", "/media", fields) + chunked(bytes([b]) for b in content))
        answer = connection.answer()
    assert answer.brief == (201, 200)
    assert (service.root / folder / "a.wav").read_bytes() == b"\r\n--a"
    assert (service.root / folder / "b.wav").read_bytes() == b"b" * 100


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("--{b}\r\n{d}\r\n\r\nx\r\n--{b}--", id="without a line break at its end"),
        pytest.param("\r\n--{b}\r\n{d}\r\n\r\nx\r\n--{b}--\r\n", id="after a line break"),
        pytest.param("intro\r\n--{b}\r\n{d}\r\n\r\nx\r\n--{b}--\r\noutro", id="with a frame"),
        pytest.param("--{b}\r\n{f}\r\n\r\nx\r\n--{b}--\r\n", id="with a folded head"),
        pytest.param("--{b}\r\ncontent-disposition:{v}\r\n\r\nx\r\n--{b}--", id="in small letters"),
        pytest.param(
            "--{b}\r\nContent-Type: text/html; charset=x\r\n{d}\r\nX-A: b\r\n\r\nx\r\n--{b}--\r\n",
            id="with more headers",
        ),
    ],
)
def test_multipart_forms_as_other_clients_write_them(
    service: Process, folder: str, content: str
) -> None:
    value = f'form-data; name="{folder}"; filename="a.wav"'
    line = f"Content-Disposition: {value}"
    folded = line.replace("; ", ";\r\n ")
    sent = content.format(b=BOUNDARY, d=line, f=folded, v=value).encode()
    answer = service.ask("POST", "/media", sent, FORM)
    assert_stored(service, answer, f"{folder}/a.wav", b"x")


@pytest.mark.parametrize(
    ("parameter", "line"),
    [
        ('boundary="a b:c/d"', "a b:c/d"),
        ("charset=utf-8; boundary=x", "x"),
        ("boundary=" + "x" * 70, "x" * 70),
        ("BOUNDARY=x", "x"),
    ],
)
def test_a_boundary_may_be_quoted_long_and_anywhere(
    service: Process, folder: str, parameter: str, line: str
) -> None:
    value = f'form-data; name="{folder}"; filename="a.wav"'
    sent = f"--{line}\r\nContent-Disposition: {value}\r\n\r\nx\r\n--{line}--\r\n".encode()
    headers = {"Content-Type": f"Multipart/Form-Data; {parameter}"}
    answer = service.ask("POST", "/media", sent, headers)
    assert_stored(service, answer, f"{folder}/a.wav", b"x")


def test_valid_files_of_a_form_are_stored_beside_failed_ones(service: Process, folder: str) -> None:
    assert service.ask("PUT", f"/media/{folder}/taken.wav", b"first").status == 201
    parts = [
        part(folder, "taken.wav", b"second"),
        part(folder, "good.wav", b"good"),
        part(folder, "bad.txt", b"x" * 100_000),
        part(f"{folder}/../..", "up.wav", b"x"),
        part(folder, "..", b"x"),
        part("", "nowhere.wav", b"x"),
        part(folder, "empty.wav", b""),
    ]
    answer = service.ask("POST", "/media", form(*parts), FORM)
    assert answer.brief == (207, 501)
    assert [entry["code"] for entry in answer.files] == [501, 200, 504, 505, 505, 503, 200]
    assert_is(service, answer.files[1], f"{folder}/good.wav", b"good")
    assert_is(service, answer.files[6], f"{folder}/empty.wav", b"")
    assert (service.root / folder / "taken.wav").read_bytes() == b"first"
    assert sorted(os.listdir(service.root / folder)) == ["empty.wav", "good.wav", "taken.wav"]


def test_a_name_that_occurs_twice_in_a_form_is_that_of_the_first(
    service: Process, folder: str
) -> None:
    parts = [part(folder, "a.wav", b"first"), part(folder, "a.wav", b"second")]
    answer = service.ask("POST", "/media", form(*parts), FORM)
    assert answer.brief == (207, 501)
    assert [entry["code"] for entry in answer.files] == [200, 501]
    assert (service.root / folder / "a.wav").read_bytes() == b"first"


def test_text_parts_and_empty_file_fields_are_ignored(service: Process, folder: str) -> None:
    """Case 7, second half: a part without filename *and* content is not a file."""
    parts = [
        part("comment", None, b"a text"),
        part(folder, "", b""),
        part(folder, "a.wav", b"a"),
        part("", "", b""),
        part("submit", None, b""),
    ]
    answer = service.ask("POST", "/media", form(*parts), FORM)
    assert_stored(service, answer, f"{folder}/a.wav", b"a")


@pytest.mark.parametrize(
    ("name", "filename", "missing"),
    [("", "a.wav", "directory"), ("prompts", "", "filename"), ("", "", "directory")],
)
def test_a_part_with_content_but_half_a_name_fails_with_what_is_missing(
    service: Process, name: str, filename: str, missing: str
) -> None:
    with service.unchanged():
        answer = service.ask("POST", "/media", form(part(name, filename, b"x")), FORM)
        assert answer.brief == (400, 503)
        assert f"'{missing}'" in answer.json["reason"]


@pytest.mark.parametrize(
    ("files", "others", "brief"),
    [(256, 0, (201, 200)), (257, 0, (400, 510)), (1, 64, (201, 200)), (1, 65, (400, 510))],
)
def test_a_form_has_at_most_256_files_and_64_other_parts(
    service: Process, folder: str, files: int, others: int, brief: tuple[int, int]
) -> None:
    """Case 18. With one more, no file is stored."""
    parts = [part("note", None, b"x") for _ in range(others)]
    parts += [part(folder, f"{n}.wav", b"x") for n in range(files)]
    answer = service.ask("POST", "/media", form(*parts), FORM)
    assert answer.brief == brief
    assert len(list((service.root / folder).glob("*"))) == (files if brief[0] == 201 else 0)


FIELDS_OF_A_FILE = ("directory", "filename", "body")


@pytest.mark.parametrize("order", list(itertools.permutations(FIELDS_OF_A_FILE)), ids=" ".join)
def test_the_fields_of_an_urlencoded_form_can_have_any_order(
    service: Process, folder: str, order: tuple[str, ...]
) -> None:
    values: dict[str, str | bytes] = {
        "directory": f"{folder}/%41 ä&=",
        "filename": "a+b ü.wav",
        "body": EVERY_BYTE,
    }
    sent = urlencoded(*((name, values[name]) for name in order))
    answer = service.ask("POST", "/media", sent, FIELDS)
    assert answer.brief == (201, 200)
    assert answer.files[0]["directory"] == values["directory"]
    assert answer.files[0]["filename"] == values["filename"]
    stored = service.root / str(values["directory"]) / str(values["filename"])
    assert stored.read_bytes() == EVERY_BYTE


@pytest.mark.parametrize("content", list(AWKWARD.values())[1:], ids=list(AWKWARD)[1:])
def test_the_body_field_is_the_file(service: Process, folder: str, content: bytes) -> None:
    sent = urlencoded(("body", content), ("directory", folder), ("filename", "a.wav"))
    answer = service.ask("POST", "/media", sent, FIELDS)
    assert_stored(service, answer, f"{folder}/a.wav", content)


def test_an_urlencoded_form_arrives_in_pieces_of_any_size(service: Process, folder: str) -> None:
    sent = urlencoded(("body", EVERY_BYTE), ("directory", folder), ("filename", "a.wav"))
    with service.connect() as connection:
        fields = [("Transfer-Encoding", "chunked"), *FIELDS.items()]
        connection.send(head("POST", "/media", fields) + chunked(bytes([b]) for b in sent))
        assert_stored(service, connection.answer(), f"{folder}/a.wav", EVERY_BYTE)


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (b"body=a+b", b"a b"),
        (b"body=a%2Bb%2bc", b"a+b+c"),
        (b"body=a=b=c", b"a=b=c"),
        (b"%62ody=x", b"x"),
        (b"&&body=x&&", b"x"),
        (b"other=1&body=x&third", b"x"),
        (b"body=\x00\xff raw\r\n", b"\x00\xff raw\r\n"),
    ],
)
def test_urlencoded_as_other_clients_write_it(
    service: Process, folder: str, sent: bytes, stored: bytes
) -> None:
    sent = sent + f"&directory={folder}&filename=a.wav".encode()
    answer = service.ask("POST", "/media", sent, FIELDS)
    assert_stored(service, answer, f"{folder}/a.wav", stored)


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("directory={}&filename=a.wav", "body=x"),
        ("filename=a.wav", "body=x&directory={}"),
        ("directory={}", "filename=a.wav&body=x"),
        ("directory={}&body=not-this&other=1", "filename=a.wav&body=x"),
    ],
)
def test_directory_and_filename_may_be_in_the_query(
    service: Process, folder: str, query: str, sent: str
) -> None:
    target = f"/media?{query.format(folder)}"
    answer = service.ask("POST", target, sent.format(folder).encode(), FIELDS)
    assert_stored(service, answer, f"{folder}/a.wav", b"x")


@pytest.mark.parametrize(
    ("query", "sent", "code", "reason"),
    [
        ("", "directory=a&directory=a&filename=a.wav&body=x", 510, "'directory'"),
        ("", "directory=a&filename=a.wav&filename=a.wav&body=x", 510, "'filename'"),
        ("", "body=x&directory=a&filename=a.wav&body=x", 510, "'body'"),
        ("", "body&directory=a&filename=a.wav&body=x", 510, "'body'"),
        ("", "directory=a&filename=a.wav&body=x&directory", 510, "'directory'"),
        ("", "other=1&directory=a&filename=a.wav&body=x&other=1", 510, "'other'"),
        ("?directory=a", "directory=a&filename=a.wav&body=x", 510, "'directory'"),
        ("?directory=a&directory=a", "filename=a.wav&body=x", 510, "'directory'"),
        ("", "directory=a&filename=a.wav&body=%", 510, "escape"),
        ("", "directory=a&filename=a.wav&body=%4", 510, "escape"),
        ("", "directory=a&filename=a.wav&body=%4&x=y", 510, "escape"),
        ("", "directory=a&filename=a.wav&body=%g1", 510, "escape"),
        ("", "directory=a&filename=a.wav&body=%1g", 510, "escape"),
        ("", "directory=a&filename=a.wav&body=%%41", 510, "escape"),
        ("", "directory=a&filename=a.wav&body=%+1", 510, "escape"),
        ("", "directory=a&filename=a.wav&body=% 1", 510, "escape"),
        ("", "directory=a&filename=a.wav&body=%\r\n", 510, "escape"),
        ("", "directory=%zz&filename=a.wav&body=x", 510, "escape"),
        ("", "%zz=a&directory=a&filename=a.wav&body=x", 510, "escape"),
        ("", "directory=a&filename=a.wav&bo%ffdy=x", 510, "UTF-8"),
        ("", "directory=a&filename=a.wav&body=", 503, "'body'"),
        ("", "directory=a&filename=a.wav&body", 503, "'body'"),
        ("", "directory=a&filename=a.wav", 503, "'body'"),
        ("?body=x", "directory=a&filename=a.wav", 503, "'body'"),
        ("", "directory=&filename=a.wav&body=x", 503, "'directory'"),
        ("", "directory=a&filename=&body=x", 503, "'filename'"),
        ("", "body=x", 503, "'directory'"),
        ("", "directory=%ff&filename=a.wav&body=x", 505, "UTF-8"),
        ("?directory=%ff", "filename=a.wav&body=x", 505, "UTF-8"),
        ("", "directory=" + "x" * 8193 + "&filename=a.wav&body=x", 510, "8192"),
        ("", "x" * 1025 + "=1&directory=a&filename=a.wav&body=x", 510, "name is too long"),
        ("", "&".join(f"f{n}=" for n in range(65)), 510, "64 fields"),
    ],
)
def test_an_invalid_urlencoded_form_is_refused_with_a_reason(
    service: Process, query: str, sent: str, code: int, reason: str
) -> None:
    with service.unchanged():
        answer = service.ask("POST", f"/media{query}", sent.encode("latin-1"), FIELDS)
        assert answer.brief == (400, code)
        assert reason in answer.json["reason"]


@pytest.mark.parametrize("size", [4, 1 << 20, 8 << 20])
def test_names_after_the_body_are_checked_as_well(service: Process, folder: str, size: int) -> None:
    body = b"body=" + b"x" * size
    taken = f"&directory={folder}&filename=taken.wav".encode()
    assert service.ask("POST", "/media", body + taken, FIELDS).status == 201
    with service.unchanged():
        for names, brief in {
            taken: (409, 501),
            b"&directory=..&filename=a.wav": (400, 505),
            b"&directory=a&filename=a.txt": (415, 504),
            b"&directory=a": (400, 503),
            b"&directory=a&filename=%zz": (400, 510),
        }.items():
            assert service.ask("POST", "/media", body + names, FIELDS).brief == brief


def test_of_several_failures_the_first_in_the_documented_order_is_reported(
    service: Process, folder: str
) -> None:
    """The order is: malformed, missing argument, name, format, size, space, exists."""
    service.ask("PUT", f"/media/{folder}/a.wav", b"there")
    huge = {"Content-Length": str(1 << 50), "Expect": "100-continue"}
    assert service.ask("PUT", f"/media/{folder}/.txt", None, huge).code == 505
    assert service.ask("PUT", f"/media/{folder}/a.txt", None, huge).code == 504
    assert service.ask("PUT", f"/media/{folder}/a.wav", None, huge).code == 506
    for sent, code in {
        b"directory=..&filename=.txt&body=%zz": 510,
        b"directory=..&filename=.txt": 503,
        b"directory=..&filename=x.txt&body=x": 505,
        b"directory=a&filename=x.txt&body=x": 504,
    }.items():
        assert service.ask("POST", "/media", sent, FIELDS).code == code


def test_a_form_may_be_posted_with_a_slash_and_a_put_ignores_the_query(
    service: Process, folder: str
) -> None:
    answer = service.ask("POST", "/media/", form(part(folder, "a.wav", b"a")), FORM)
    assert_stored(service, answer, f"{folder}/a.wav", b"a")
    answer = service.ask("PUT", f"/media/{folder}/b.wav?directory=x&filename=y", b"b")
    assert_stored(service, answer, f"{folder}/b.wav", b"b")


def test_files_and_folders_have_the_permissions_of_the_umask(service: Process, folder: str) -> None:
    umask = os.umask(0)
    os.umask(umask)
    service.ask("PUT", f"/media/{folder}/a.wav", b"a")
    assert (service.root / folder / "a.wav").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (service.root / folder).stat().st_mode & 0o777 == 0o777 & ~umask


def test_two_files_can_be_uploaded_on_one_connection(service: Process, folder: str) -> None:
    with service.connect() as connection:
        for n in range(20):
            answer = connection.ask("PUT", f"/media/{folder}/{n}.wav", b"x" * n)
            assert answer.brief == (201, 200)
            assert answer.headers["Connection"] is None
    assert len(os.listdir(service.root / folder)) == 20

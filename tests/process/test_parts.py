"""Multipart forms whose text parts give the names and digests of their files."""

from __future__ import annotations

import hashlib
from itertools import permutations

import pytest

from tests.process.exchange import BOUNDARY, MULTIPART, Answer, form, head, part
from tests.process.running import Process
from tests.process.test_storing import assert_is, assert_stored

FORM = {"Content-Type": MULTIPART}
CONTENT = b"\r\n--a\r\nsome audio"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"something else").hexdigest()


def text(name: str, value: str | bytes, headers: str = "") -> bytes:
    return part(name, None, value.encode() if isinstance(value, str) else value, headers)


def send(service: Process, *parts: bytes) -> Answer:
    return service.ask("POST", "/media", form(*parts), FORM)


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_directory_filename_and_sha256_can_be_anywhere_in_the_form(
    service: Process, folder: str, order: tuple[int, ...]
) -> None:
    """Case 71."""
    parts = [
        text("directory", f"{folder}/é"),
        text("filename", "named.wav"),
        text("sha256", SHA256.upper()),
        part("file", "blob", CONTENT),
    ]
    answer = send(service, *(parts[n] for n in order))
    assert_stored_as(service, answer, f"{folder}/é/named.wav")


def assert_stored_as(service: Process, answer: Answer, name: str) -> None:
    assert answer.brief == (201, 200), answer
    (entry,) = answer.files
    assert (entry["directory"], entry["filename"]) == tuple(name.rsplit("/", 1))
    assert entry["sha256"] == SHA256
    assert service.ask("GET", entry["url"]).content == CONTENT
    assert (service.root / name).read_bytes() == CONTENT


def test_several_files_in_one_part_are_refused_and_not_lost(service: Process, folder: str) -> None:
    """What `curl -F 'a=@x.wav,y.wav'` sends."""
    nested = form(part("a", "x.wav", CONTENT), part("a", "y.wav", CONTENT))
    headers = f"Content-Type: multipart/mixed; boundary={BOUNDARY}"
    answer = send(
        service, text("a", nested.replace(b"--", b"=="), headers), part(folder, "c.wav", b"")
    )
    assert answer.brief == (415, 415)
    assert "multipart/mixed" in answer.json["reason"]
    assert not (service.root / folder).exists()


@pytest.mark.parametrize("media_type", ["audio/wav", "Video/WebM", "application/octet-stream"])
def test_audio_without_a_filename_is_a_file(service: Process, folder: str, media_type: str) -> None:
    """It is not ignored like a text."""
    sent = text(folder, CONTENT, f"Content-Type: {media_type}")
    answer = send(service, sent, part(folder, "other.wav", CONTENT))
    assert answer.brief == (207, 503)
    assert [entry["code"] for entry in answer.files] == [503, 200]
    assert_stored_as(service, send(service, sent, text("filename", "a.wav")), f"{folder}/a.wav")


@pytest.mark.parametrize("field", ["sha256", "filename"])
def test_a_failure_has_the_directory_of_the_text_part(
    service: Process, folder: str, field: str
) -> None:
    parts = [text("directory", folder), text(field, ""), part("g", "d.wav", CONTENT)]
    for order in permutations(parts):
        (entry,) = send(service, *order).files
        assert entry["directory"] == folder


def test_a_part_with_a_content_encoding_is_refused(service: Process, folder: str) -> None:
    answer = send(service, part(folder, "a.wav", CONTENT, "Content-Encoding: gzip"))
    assert answer.brief == (415, 415)
    answer = send(service, part(folder, "a.wav", CONTENT, "Content-Encoding: identity"))
    assert_stored_as(service, answer, f"{folder}/a.wav")


@pytest.mark.parametrize("behind", [False, True], ids=["before the file", "behind the file"])
def test_a_directory_alone_replaces_the_name_of_the_field(
    service: Process, folder: str, behind: bool
) -> None:
    """Case 71: `curl -F file=@x.wav -F directory=prompts`, in any order."""
    parts = [part("file", "x.wav", CONTENT), text("directory", folder)]
    answer = send(service, *(parts if behind else reversed(parts)))
    assert_stored(service, answer, f"{folder}/x.wav", CONTENT)


def test_an_xhr_upload_of_uppy_is_stored_in_the_directory_of_its_metadata(
    service: Process, folder: str
) -> None:
    """Case 71: the metadata precede the file, whose field is `file` by default."""
    lines = [
        *(("relativePath", "null"), ("name", "tone.wav"), ("type", "audio/wav")),
        ("directory", folder),
    ]
    sent = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in lines
    )
    sent += (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="tone.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    content = sent.encode() + CONTENT + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {**FORM, "Origin": f"http://127.0.0.1:{service.port}", "X-Requested-With": "x"}
    headers["Host"] = f"127.0.0.1:{service.port}"
    answer = service.ask("POST", "/media", content, headers)
    assert_stored(service, answer, f"{folder}/tone.wav", CONTENT)


def test_a_directory_applies_to_all_files_of_a_form(service: Process, folder: str) -> None:
    """Case 71."""
    parts = [
        part("files[]", "a.wav", b"a"),
        text("directory", folder),
        part("other", "b.wav", b"b"),
        part("untouched", "", b""),
    ]
    answer = send(service, *parts)
    assert answer.brief == (201, 200)
    for entry, (name, content) in zip(answer.files, [("a", b"a"), ("b", b"b")], strict=True):
        assert_is(service, entry, f"{folder}/{name}.wav", content)


@pytest.mark.parametrize(("name", "value"), [("filename", "c.wav"), ("sha256", SHA256)])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_field_for_one_file_is_refused_in_a_form_with_several(
    service: Process, folder: str, name: str, value: str, at: int
) -> None:
    parts = [part(folder, "a.wav", CONTENT), part(folder, "b.wav", CONTENT)]
    parts.insert(at, text(name, value))
    with service.unchanged():
        answer = send(service, *parts)
        assert answer.brief == (400, 400)
    assert f"'{name}' applies to one file, but the form has 2" in answer.json["reason"]


def test_an_empty_file_field_does_not_count_as_a_file(service: Process, folder: str) -> None:
    parts = [part("x", "", b""), part("y", "a.wav", CONTENT), text("filename", "b.wav")]
    answer = send(service, *parts, text("directory", folder), part("z", "", b""))
    assert_stored(service, answer, f"{folder}/b.wav", CONTENT)


def test_without_text_parts_the_name_of_the_field_is_the_directory(
    service: Process, folder: str
) -> None:
    others = [text("Directory", "x"), text("directory[]", "x"), text("name", "x"), text("", "x")]
    answer = send(service, *others, part(folder, "a.wav", CONTENT))
    assert_stored(service, answer, f"{folder}/a.wav", CONTENT)


def test_the_query_does_not_name_files_of_a_multipart_form(service: Process, folder: str) -> None:
    parts = form(part(folder, "a.wav", CONTENT))
    answer = service.ask("POST", "/media?directory=x&filename=y.wav", parts, FORM)
    assert_stored(service, answer, f"{folder}/a.wav", CONTENT)


@pytest.mark.parametrize("name", ["directory", "filename", "sha256"])
@pytest.mark.parametrize("behind", [False, True], ids=["together", "around the file"])
def test_a_field_given_twice_is_malformed(
    service: Process, folder: str, name: str, behind: bool
) -> None:
    """Case 37, as in urlencoded forms."""
    value = {"directory": folder, "filename": "b.wav", "sha256": SHA256}[name]
    file, field = part(folder, "a.wav", CONTENT), text(name, value)
    with service.unchanged():
        answer = send(service, *([field, file, field] if behind else [field, field, file]))
        assert answer.brief == (400, 510)
    assert f"the field '{name}' is given twice" in answer.json["reason"]


@pytest.mark.parametrize(
    ("size", "brief"), [(8192, (400, 505)), (8193, (400, 510)), (3_000_000, (400, 510))]
)
def test_a_field_has_the_same_limit_as_in_urlencoded_forms(
    service: Process, folder: str, size: int, brief: tuple[int, int]
) -> None:
    with service.unchanged():
        answer = send(service, part(folder, "a.wav", CONTENT), text("directory", "d" * size))
        assert answer.brief == brief


@pytest.mark.parametrize(
    ("parts", "brief"),
    [
        ((text("directory", ""),), (400, 503)),
        ((text("filename", ""),), (400, 503)),
        ((text("sha256", ""),), (400, 503)),
        ((text("sha256", "0" * 63),), (400, 510)),
        ((text("sha256", OTHER),), (400, 508)),
        ((text("directory", "a/../b"),), (400, 505)),
        ((text("directory", b"\xff"),), (400, 505)),
        ((text("filename", "a/b.wav"),), (400, 505)),
        ((text("filename", "page.html"),), (415, 504)),
        ((text("filename", "page.html"), text("directory", "..")), (400, 505)),
    ],
)
@pytest.mark.parametrize("behind", [False, True], ids=["before the file", "behind the file"])
def test_values_of_text_parts_are_checked_like_others(
    service: Process, folder: str, parts: tuple[bytes, ...], brief: tuple[int, int], behind: bool
) -> None:
    """Cases 32 and 35: another source of names."""
    file = part(folder, "a.wav", CONTENT)
    with service.unchanged():
        answer = send(service, *([file, *parts] if behind else [*parts, file]))
        assert answer.brief == brief, answer


@pytest.mark.parametrize("behind", [False, True], ids=["before the file", "behind the file"])
def test_a_text_part_replaces_the_filename_of_the_file_part(
    service: Process, folder: str, behind: bool
) -> None:
    """A page that records sends a Blob, which browsers name `blob`, or not at all."""
    for number, of_part in enumerate(["blob", "", "take.webm", "../up.wav"]):
        parts = [part(folder, of_part, CONTENT), text("filename", f"{number}.wav")]
        answer = send(service, *(parts if behind else reversed(parts)))
        assert_stored(service, answer, f"{folder}/{number}.wav", CONTENT)


def test_a_taken_name_is_refused_and_identical_content_recognized(
    service: Process, folder: str
) -> None:
    """Case 2, and the retry of a client that lost the response."""
    parts = [part("file", "x.wav", CONTENT), text("directory", folder), text("sha256", SHA256)]
    assert send(service, *parts).brief == (201, 200)
    with service.unchanged():
        again = send(service, *parts)
        assert again.brief == (200, 200)
        assert again.files[0]["identical"] is True
        assert send(service, *parts[:2]).brief == (409, 501)


def test_two_digests_of_one_file_must_agree(service: Process, folder: str) -> None:
    line = "Content-Digest: sha-256=:" + "A" * 43 + "=:"
    file = part(folder, "a.wav", CONTENT, line)
    with service.unchanged():
        assert send(service, file, text("sha256", SHA256)).brief == (400, 510)
        assert send(service, text("sha256", SHA256), file).brief == (400, 510)


def test_a_form_with_fields_and_no_file_is_empty(service: Process) -> None:
    with service.unchanged():
        assert send(service, text("directory", "a"), text("filename", "b.wav")).brief == (400, 502)


@pytest.mark.parametrize("encoding", ["base64", "Quoted-Printable", "x-gzip64", "BASE64 "])
def test_a_part_that_is_encoded_is_refused_by_name_and_the_others_are_stored(
    service: Process, folder: str, encoding: str
) -> None:
    """Case 52: it used to be stored encoded."""
    line = f"Content-Transfer-Encoding: {encoding}"
    parts = [part(folder, "coded.wav", b"UklGRg==", line), part(folder, "a.wav", CONTENT)]
    answer = send(service, *parts)
    assert answer.brief == (207, 415)
    assert [entry["code"] for entry in answer.files] == [415, 200]
    assert f"Content-Transfer-Encoding '{encoding.strip()}'" in answer.files[0]["reason"]
    assert not (service.root / folder / "coded.wav").exists()


@pytest.mark.parametrize("encoding", ["binary", "8BIT", " 7bit \t", ""])
def test_a_part_with_the_identity_encoding_is_stored(
    service: Process, folder: str, encoding: str
) -> None:
    line = f"content-transfer-encoding: {encoding}"
    answer = send(service, part("f", "a.wav", CONTENT, line), text("directory", folder, line))
    assert_stored(service, answer, f"{folder}/a.wav", CONTENT)


def test_a_field_that_is_encoded_is_refused(service: Process, folder: str) -> None:
    """Case 52: otherwise the file would be stored in a wrong folder."""
    coded = text("directory", "cHJvbXB0cw==", "Content-Transfer-Encoding: base64")
    with service.unchanged():
        assert send(service, part(folder, "a.wav", CONTENT), coded).brief == (415, 415)
    note = text("note", "cHJvbXB0cw==", "Content-Transfer-Encoding: base64")
    assert_stored(
        service, send(service, note, part(folder, "b.wav", CONTENT)), f"{folder}/b.wav", CONTENT
    )


def test_a_client_that_leaves_before_the_last_field_stores_nothing(
    service: Process, folder: str
) -> None:
    """Case 1."""
    whole = form(part(folder, "a.wav", CONTENT), text("directory", folder))
    with service.unchanged(), service.connect() as connection:
        fields = [("Content-Length", str(len(whole))), *FORM.items()]
        connection.send(head("POST", "/media", fields) + whole[:-60])
        connection.reset()


DOT_NET = (
    "Content-Disposition: form-data; name=prompts; filename==?utf-8?B?w7wud2F2?=; "
    "filename*=utf-8''%C3%BC.wav"
)


@pytest.mark.parametrize(
    "line",
    [
        DOT_NET,
        DOT_NET.replace("=?utf-8?B?w7wud2F2?=", '"=?utf-8?B?w7wud2F2?="'),
        DOT_NET.partition("; filename*")[0],
        "Content-Disposition: form-data; name=\"file\"; filename*=utf-8''%C3%BC.wav",
        "Content-Disposition: form-data; filename*=iso-8859-1''%FC.wav; filename=x.wav; name=f",
    ],
)
def test_names_as_dot_net_and_older_urllib3_encode_them_are_decoded(
    service: Process, folder: str, line: str
) -> None:
    """Cases 61 and 83: bytes from the documented forms of these clients."""
    file = f"--{BOUNDARY}\r\n{line}\r\n\r\n".encode() + CONTENT + b"\r\n"
    answer = send(service, file, text("directory", folder))
    assert answer.brief == (201, 200), answer
    (entry,) = answer.files
    assert (entry["directory"], entry["filename"]) == (folder, "ü.wav")
    assert (service.root / folder / "ü.wav").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("media_type", "boundary"),
    [
        ("multipart/form-data;\tboundary={}", "tab"),
        ("multipart/form-data;\t boundary={}\t", "tab"),
        ("multipart/form-data; boundary={}; charset=utf-8", "----=_Part_1_2.3"),
        ("multipart/form-data; boundary={}", "a:b/c?d=e"),
    ],
)
def test_a_boundary_is_parsed_as_its_sender_means_it(
    service: Process, folder: str, media_type: str, boundary: str
) -> None:
    """Cases 54 and 62."""
    sent = form(part(folder, "a.wav", CONTENT)).replace(BOUNDARY.encode(), boundary.encode())
    headers = {"Content-Type": media_type.format(boundary)}
    answer = service.ask("POST", "/media", sent, headers)
    assert_stored(service, answer, f"{folder}/a.wav", CONTENT)


def test_blanks_after_boundaries_are_ignored(service: Process, folder: str) -> None:
    """Case 55."""
    line = f"--{BOUNDARY}\r\n".encode()
    sent = form(part(folder, "a.wav", CONTENT), part(folder, "b.wav", CONTENT))
    sent = sent.replace(line, line[:-2] + b" \t\r\n").replace(b"--\r\n", b"-- \t\r\n")
    answer = service.ask("POST", "/media", sent, FORM)
    assert answer.brief == (201, 200)
    assert {(service.root / folder / name).read_bytes() for name in ("a.wav", "b.wav")} == {CONTENT}


def test_two_boundaries_in_the_content_type_are_malformed(service: Process, folder: str) -> None:
    """Case 56."""
    with service.unchanged():
        headers = {"Content-Type": f"{MULTIPART}; boundary=other"}
        answer = service.ask("POST", "/media", form(part(folder, "a.wav", CONTENT)), headers)
        assert answer.brief == (400, 510)
    assert "two boundary parameters" in answer.json["reason"]

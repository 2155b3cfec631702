"""Downloads: whole files, ranges, and slow readers."""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from random import Random

import pytest

from tests.audio.samples import wav
from tests.process.exchange import MULTIPART, form, head, part, request
from tests.process.running import Process, eventually

POLICY = "sandbox allow-same-origin; default-src 'none'; media-src 'self'"
DIGITS = b"0123456789"
LARGE = Random(3).randbytes(24 << 20)


@pytest.fixture(scope="module")
def digits(service: Process) -> str:
    """The path of a file with ten digits."""
    assert service.ask("PUT", "/media/reading/digits.wav", DIGITS).status == 201
    return "/media/reading/digits.wav"


@pytest.fixture(scope="module")
def large(service: Process) -> Iterator[str]:
    """The path of a file larger than any socket buffer."""
    assert service.ask("PUT", "/media/reading/large.mp3", LARGE).status == 201
    yield "/media/reading/large.mp3"
    service.ask("DELETE", "/media/reading/large.mp3")


def test_a_file_has_all_headers_that_players_and_browsers_need(
    service: Process, digits: str
) -> None:
    answer = service.ask("GET", digits)
    status = (service.root / "reading" / "digits.wav").stat()
    headers = {name.lower(): value for name, value in answer.headers.items()}
    del headers["date"], headers["server"]
    assert parsedate_to_datetime(headers.pop("last-modified")).timestamp() == int(status.st_mtime)
    assert headers == {
        "content-type": "audio/wav",
        "content-length": "10",
        "accept-ranges": "bytes",
        "etag": f'"{status.st_size:x}-{status.st_mtime_ns:x}"',
        "cache-control": "no-cache",
        "x-content-type-options": "nosniff",
        "content-security-policy": POLICY,
        "content-disposition": 'inline; filename="digits.wav"',
        "repr-digest": f"sha-256=:{b64encode(hashlib.sha256(DIGITS).digest()).decode()}:",
    }


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "HTTP://localhost", "https://[::1]"])
def test_a_target_in_absolute_form_is_accepted(service: Process, folder: str, origin: str) -> None:
    """RFC 9112, 3.2.2: a server must accept the absolute form of a target. URLs in the response
    are still paths.
    """
    url = f"/media/{folder}/a%20b.wav"
    stored = service.ask("PUT", origin + url, DIGITS)
    assert stored.brief == (201, 200)
    assert stored.files[0]["url"] == stored.headers["Location"] == url
    assert service.ask("GET", f"{origin}{url}?download").content == DIGITS
    listing = service.ask("GET", f"{origin}/media/{folder}/?limit=1")
    assert listing.json["entries"][0]["url"] == url
    assert service.ask("GET", f"{origin}/media/{folder}").headers["Location"] == f"./{folder}/"
    for nothing in ("", "/", "?x=1", "/nothing"):
        assert service.ask("GET", origin + nothing).brief == (404, 404)


@pytest.mark.parametrize(
    ("asked", "status", "content", "content_range"),
    [
        ("bytes=0-1", 206, b"01", "bytes 0-1/10"),  # case 45
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=0-", 206, DIGITS, "bytes 0-9/10"),
        ("bytes=0-9", 206, DIGITS, "bytes 0-9/10"),
        ("bytes=0-10", 206, DIGITS, "bytes 0-9/10"),
        ("bytes=3-5", 206, b"345", "bytes 3-5/10"),
        ("bytes=9-", 206, b"9", "bytes 9-9/10"),
        ("bytes=9-9", 206, b"9", "bytes 9-9/10"),
        ("bytes=5-99999999999999999999999", 206, b"56789", "bytes 5-9/10"),
        ("bytes=-1", 206, b"9", "bytes 9-9/10"),
        ("bytes=-10", 206, DIGITS, "bytes 0-9/10"),
        ("bytes=-11", 206, DIGITS, "bytes 0-9/10"),
        ("bytes=-99999999999", 206, DIGITS, "bytes 0-9/10"),
        ("bytes=-" + "9" * 4000, 206, DIGITS, "bytes 0-9/10"),
        ("BYTES=0-1", 206, b"01", "bytes 0-1/10"),
        ("bytes=00-01", 206, b"01", "bytes 0-1/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=10-20", 416, None, "bytes */10"),
        ("bytes=99999999999999999999999-", 416, None, "bytes */10"),
        ("bytes=" + "9" * 4000 + "-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=-00", 416, None, "bytes */10"),
        ("bytes=5-2", 200, DIGITS, None),
        ("bytes=20-10", 200, DIGITS, None),
        ("0-", 200, DIGITS, None),
        ("bytes", 200, DIGITS, None),
        ("bytes=", 200, DIGITS, None),
        ("bytes=-", 200, DIGITS, None),
        ("bytes=a-b", 200, DIGITS, None),
        ("bytes=--1", 200, DIGITS, None),
        ("bytes=-1-", 200, DIGITS, None),
        ("bytes=+1-2", 200, DIGITS, None),
        ("bytes=1.5-2", 200, DIGITS, None),
        ("bytes=0x1-0x2", 200, DIGITS, None),
        ("bytes=\xb2-5", 200, DIGITS, None),
        ("items=0-1", 200, DIGITS, None),
        ("bytes=0-1,3-4", 200, DIGITS, None),
        ("bytes=" + ",".join(["0-1"] * 1000), 200, DIGITS, None),  # case 20
        ("", 200, DIGITS, None),
    ],
)
def test_one_range_gives_a_part_and_an_invalid_range_the_whole(
    service: Process,
    digits: str,
    asked: str,
    status: int,
    content: bytes | None,
    content_range: str | None,
) -> None:
    """Cases 20, 21 and 45."""
    with service.connect() as connection:
        answer = connection.ask("GET", digits, headers={"Range": asked})
        assert answer.status == status
        assert answer.headers["Content-Range"] == content_range
        if content is None:
            assert answer.brief == (416, 416)
        else:
            assert answer.content == content
            assert answer.headers["Content-Length"] == str(len(content))
            assert answer.headers["ETag"] == service.ask("HEAD", digits).headers["ETag"]
        headed = connection.ask("HEAD", digits, headers={"Range": asked})
        assert (headed.status, headed.headers["Content-Length"]) == (200, "10")


@pytest.mark.parametrize(
    ("if_range", "status"),
    [
        ("{etag}", 206),
        (" {etag} ", 206),
        ("W/{etag}", 200),
        ('"something else"', 200),
        ("*", 200),
        ("", 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
    ],
)
def test_a_range_of_another_file_gives_the_whole(
    service: Process, digits: str, if_range: str, status: int
) -> None:
    shown = service.ask("HEAD", digits).headers
    asked = if_range.format(etag=shown["ETag"])
    answer = service.ask("GET", digits, headers={"Range": "bytes=2-3", "If-Range": asked})
    assert (answer.status, answer.content) == (status, b"23" if status == 206 else DIGITS)


def test_ranges_of_a_large_file_can_be_joined(service: Process, large: str) -> None:
    digest = hashlib.sha256()
    step = (5 << 20) + 1
    with service.connect() as connection:
        for start in range(0, len(LARGE), step):
            stop = min(start + step, len(LARGE))
            answer = connection.ask("GET", large, headers={"Range": f"bytes={start}-{stop - 1}"})
            assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(LARGE)}"
            digest.update(answer.content)
    assert digest.digest() == hashlib.sha256(LARGE).digest()


def test_an_empty_file_is_served(service: Process, folder: str) -> None:
    """Case 7."""
    url = f"/media/{folder}/empty.wav"
    answer = service.ask("PUT", url, b"")
    assert answer.brief == (201, 200)
    assert answer.files[0]["size"] == 0
    with service.connect() as connection:
        shown = connection.ask("GET", url)
        assert (shown.status, shown.content) == (200, b"")
        assert shown.headers["Content-Length"] == "0"
        assert connection.ask("HEAD", url).status == 200
        for asked, status in {"bytes=0-": 416, "bytes=0-0": 416, "bytes=-0": 416}.items():
            ranged = connection.ask("GET", url, headers={"Range": asked})
            assert (ranged.status, ranged.headers["Content-Range"]) == (status, "bytes */0")
        suffix = connection.ask("GET", url, headers={"Range": "bytes=-5"})
        assert (suffix.status, suffix.content) == (200, b"")


@pytest.mark.parametrize(
    ("filename", "media_type", "kind"),
    [
        ("a.mp3", "audio/mpeg", "inline"),
        ("a.MP3", "audio/mpeg", "inline"),
        ("a.wav", "audio/wav", "inline"),
        ("a.ogg", "audio/ogg", "inline"),
        ("a.oga", "audio/ogg", "inline"),
        ("a.opus", "audio/ogg", "inline"),
        ("a.flac", "audio/flac", "inline"),
        ("a.m4a", "audio/mp4", "inline"),
        ("a.aac", "audio/aac", "inline"),
        ("a.webm", "audio/webm", "inline"),
        ("a.WMA", "audio/x-ms-wma", "inline"),
        ("a.ulaw", "application/octet-stream", "attachment"),
        ("a.sln16", "application/octet-stream", "attachment"),
        ("a.html", "application/octet-stream", "attachment"),
        ("a.svg", "application/octet-stream", "attachment"),
        ("a.mp3.js", "application/octet-stream", "attachment"),
        ("mp3", "application/octet-stream", "attachment"),
        ("a.", "application/octet-stream", "attachment"),
    ],
)
def test_a_file_that_an_administrator_puts_into_the_root_is_served(
    service: Process, folder: str, filename: str, media_type: str, kind: str
) -> None:
    """Case 36, too: the rules for formats apply to uploads only."""
    (service.root / folder).mkdir()
    (service.root / folder / filename).write_bytes(b"put there")
    answer = service.ask("GET", f"/media/{folder}/{filename}")
    assert (answer.status, answer.content) == (200, b"put there")
    assert answer.headers["Content-Type"] == media_type
    assert answer.headers["Content-Disposition"] == f'{kind}; filename="{filename}"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("sandbox allow-same-origin;")


def test_a_modification_time_in_the_future_is_sent_as_the_current_time(
    service: Process, folder: str
) -> None:
    """RFC 9110, 8.8.2.1: Last-Modified is never in the future."""
    (service.root / folder).mkdir()
    path = service.root / folder / "ahead.wav"
    path.write_bytes(b"put there")
    os.utime(path, (4e9, 4e9))
    headers = service.ask("HEAD", f"/media/{folder}/ahead.wav").headers
    told, now = (parsedate_to_datetime(headers[name]) for name in ("Last-Modified", "Date"))
    assert timedelta(0) <= now - told < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("", "inline"),
        ("?", "inline"),
        ("?download", "attachment"),
        ("?download=", "attachment"),
        ("?download=1", "attachment"),
        ("?x=y&download", "attachment"),
        ("?download&x=y", "attachment"),
        ("?x=download", "inline"),
        ("?downloads", "inline"),
    ],
)
def test_download_makes_an_attachment(service: Process, digits: str, query: str, kind: str) -> None:
    for method in ("GET", "HEAD"):
        answer = service.ask(method, digits + query)
        assert answer.headers["Content-Disposition"] == f'{kind}; filename="digits.wav"'


def test_a_404_is_not_cached(service: Process, folder: str) -> None:
    """Case 48: nor is it found later because it was missed before."""
    url = f"/media/{folder}/a.wav"
    missing = service.ask("GET", url)
    assert missing.brief == (404, 404)
    assert missing.headers["ETag"] is None
    assert missing.headers["Last-Modified"] is None
    service.ask("PUT", url, b"one")
    first = service.ask("GET", url)
    assert first.headers["Cache-Control"] == "no-cache"
    service.ask("DELETE", url)
    assert service.ask("GET", url).headers["Cache-Control"] == "no-store"
    service.ask("PUT", url, b"two")
    second = service.ask("GET", url)
    assert second.content == b"two"
    assert second.headers["ETag"] != first.headers["ETag"]


def test_gets_pipelined_behind_an_upload_are_answered_after_it(
    service: Process, digits: str, folder: str
) -> None:
    """Case 46: pipelined requests while the response to an upload is pending."""
    url = f"/media/{folder}/new.wav"
    content = Random(4).randbytes(300_000)
    upload = request("PUT", url, content)
    with service.connect() as connection:
        for cut in (len(upload) - 200_000, len(upload) - 1, len(upload)):
            connection.send(upload[:cut])
            connection.send(upload[cut:] + request("GET", url) + request("HEAD", url))
            connection.send(request("GET", digits) + request("DELETE", url) + request("GET", url))
            assert connection.answer().brief == (201, 200)
            assert connection.answer().content == content
            assert connection.answer("HEAD").headers["Content-Length"] == "300000"
            assert connection.answer().content == DIGITS
            assert connection.answer().json["deleted"] is True
            assert connection.answer().brief == (404, 404)


def test_pipelined_uploads_are_answered_in_order(service: Process, folder: str) -> None:
    """Case 46, including uploads that are refused before their content is received."""
    requests = []
    for n in range(40):
        filename = f"{n}.wav" if n % 4 else f"{n}.txt"
        content = form(part(folder, filename, bytes([n]) * 5000))
        requests.append(
            request("PUT", f"/media/{folder}/{filename}", bytes([n]) * 5000)
            if n % 2
            else request("POST", "/media", content, {"Content-Type": MULTIPART})
        )
    with service.connect() as connection:
        connection.send(b"".join(requests))
        statuses = [connection.answer().status for _ in requests]
        assert statuses == [201 if n % 4 else 415 for n in range(40)]
    for n in range(1, 40):
        if n % 4:
            assert (service.root / folder / f"{n}.wav").read_bytes() == bytes([n]) * 5000


def test_a_hundred_pipelined_gets_are_answered(service: Process, digits: str) -> None:
    with service.connect() as connection:
        connection.send(request("GET", digits) * 100)
        assert [connection.answer().content for _ in range(100)] == [DIGITS] * 100


def test_a_connection_is_kept_after_errors(service: Process, digits: str, folder: str) -> None:
    with service.connect() as connection:
        for method, target, content, headers, status in [
            ("GET", "/nowhere", None, {}, 404),
            ("GET", digits, None, {}, 200),
            ("POST", digits, b"x" * 100_000, {}, 405),
            ("PUT", f"/media/{folder}/a.txt", b"x" * 1_000_000, {}, 415),
            ("PUT", f"/media/{folder}/.wav", b"x", {}, 400),
            ("PUT", f"/media/{folder}/a.wav", None, {}, 400),
            ("PUT", f"/media/{folder}/a.wav", b"x", {"Expect": "x"}, 417),
            ("PUT", digits, b"x" * 2_000_000, {}, 409),
            ("POST", "/media", b"x" * 100_000, {"Content-Type": "text/plain"}, 415),
            ("POST", "/media", form(), {"Content-Type": MULTIPART}, 400),
            ("POST", "/media", b"--no\r\n" * 50_000, {"Content-Type": MULTIPART}, 400),
            ("GET", digits, None, {"Range": "bytes=10-"}, 416),
            ("DELETE", "/media/reading/", None, {}, 409),
            ("DELETE", "/media", b"x" * 100_000, {"Content-Type": "text/plain"}, 415),
            ("BREW", "/", b"tea", {}, 404),
            ("PUT", f"/media/{folder}/a.wav", b"x", {}, 201),
        ]:
            answer = connection.ask(method, target, content, headers)
            assert (answer.status, answer.headers["Connection"]) == (status, None), answer
        assert connection.ask("GET", digits).content == DIGITS


def test_connection_close_is_honoured(service: Process, digits: str) -> None:
    with service.connect() as connection:
        answer = connection.ask("GET", digits, headers={"Connection": "close"})
        assert answer.content == DIGITS
        assert answer.headers["Connection"] == "close"
        assert connection.is_ended()


def test_http_1_0_is_answered_and_closed(service: Process, digits: str, folder: str) -> None:
    for content, sent in {
        DIGITS: f"GET {digits} HTTP/1.0\r\n\r\n",
        b"234": f"GET {digits} HTTP/1.0\r\nRange: bytes=2-4\r\n\r\n",
    }.items():
        with service.connect() as connection:
            connection.send(sent.encode())
            assert connection.answer().content == content
            assert connection.is_ended()
    with service.connect() as connection:
        url = f"/media/{folder}/a.wav"
        connection.send(f"PUT {url} HTTP/1.0\r\nContent-Length: 3\r\n\r\nold".encode())
        assert connection.answer().brief == (201, 200)
        assert connection.is_ended()
    assert service.ask("GET", url).content == b"old"


def test_stalled_readers_cost_no_memory_and_delay_no_other(
    serve: Callable[..., Process],
) -> None:
    """Case 24, for memory, and case 26: a slow reader affects only itself."""
    service = serve()
    content = Random(5).randbytes(1 << 20)
    with service.connect() as connection:
        connection.send(head("PUT", "/media/a/large.wav", [("Content-Length", str(64 << 20))]))
        for _ in range(64):
            connection.send(content)
        assert connection.answer().status == 201
    assert service.ask("PUT", "/media/a/small.wav", DIGITS).status == 201
    peak = service.peak_memory()
    descriptors = len(service.descriptors())
    idle = [service.connect() for _ in range(30)]
    for connection in idle:
        connection.send(request("GET", "/media/a/large.wav"))
        assert connection.answer_head()[0] == 200
    for _ in range(20):
        assert service.ask("GET", "/media/a/small.wav").content == DIGITS
        assert service.ask("PUT", "/media/a/other.wav", DIGITS).status in (201, 409)
    assert service.peak_memory() - peak < 30 * (1 << 20)
    slow = idle.pop()
    for connection in idle:
        connection.reset()
    digest = hashlib.sha256()
    for _ in range(64):  # the reader that continues gets the whole file
        digest.update(slow.read(1 << 20))
    assert digest.digest() == hashlib.sha256(content * 64).digest()
    slow.close()
    eventually(
        "what the readers held is let go of", lambda: len(service.descriptors()) <= descriptors
    )


def test_a_file_that_shrinks_while_it_is_sent_never_looks_complete(
    serve: Callable[..., Process],
) -> None:
    service = serve()
    service.expects_faults = True  # it is logged
    assert service.ask("PUT", "/media/a/large.wav", LARGE).status == 201
    with service.connect() as connection:
        connection.send(request("GET", "/media/a/large.wav"))
        status, headers = connection.answer_head()
        assert (status, headers["Content-Length"]) == (200, str(len(LARGE)))
        os.truncate(service.root / "a" / "large.wav", 10 << 20)
        assert len(connection.read_to_the_end()) < len(LARGE)
    assert service.ask("GET", "/media/a/large.wav").content == LARGE[: 10 << 20]
    assert "cut off" in service.log


def test_a_format_that_the_operator_has_configured_is_stored_and_served(
    serve: Callable[..., Process],
) -> None:
    """Case 72: formats that browsers and telephone systems record, and any other."""
    formats = "webm,gsm,ulaw,clip=audio/x-clip,dat=application/octet-stream,wav=audio/vnd.wave"
    service = serve("--formats", formats, "--check", "reject")
    stored = {
        "a.webm": (b"\x1a\x45\xdf\xa3 and so on", "audio/webm", "inline"),
        "a.gsm": (b"\xd0" * 33, "application/octet-stream", "attachment"),
        "a.ULAW": (b"\xff" * 160, "application/octet-stream", "attachment"),
        "a.clip": (b"anything", "audio/x-clip", "inline"),
        "a.dat": (b"anything", "application/octet-stream", "attachment"),
        "a.wav": (wav(0.1), "audio/vnd.wave", "inline"),
    }
    for name, (content, media_type, kind) in stored.items():
        assert service.ask("PUT", f"/media/a/{name}", content).status == 201, name
        answer = service.ask("GET", f"/media/a/{name}")
        assert answer.content == content
        assert answer.headers["Content-Type"] == media_type
        assert answer.headers["Content-Disposition"] == f'{kind}; filename="{name}"'
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    refused = service.ask("PUT", "/media/a/a.mp3", b"ID3")
    assert refused.brief == (415, 504)
    assert refused.json["reason"].endswith("supported are: clip, dat, gsm, ulaw, wav, webm")
    assert service.ask("PUT", "/media/a/b.webm", b"RIFF").brief == (422, 509)

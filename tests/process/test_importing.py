"""`POST /media` with a URL: what is there is stored as if it had been sent."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import unquote

import pytest

from tests.process.exchange import (
    MULTIPART,
    URLENCODED,
    Answer,
    Connection,
    form,
    part,
    request,
    urlencoded,
)
from tests.process.nasty import PLAIN, Nasty, a_wave, content_of
from tests.process.running import Process, eventually, running

LIMIT = 3_000_001  # more than is held unread, and odd
IMPATIENT_S = 1
LOOPBACK = ("--fetch-allow", "127.0.0.0/8")
WAVE = a_wave()
JSON = "application/json"


pytestmark = pytest.mark.usefixtures("no_connection_is_left")


@pytest.fixture(scope="module")
def importing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service that may fetch from this machine, with a small limit."""
    root = tmp_path_factory.mktemp("importing") / "area" / "media"
    with running(root, *LOOPBACK, "--max-upload", str(LIMIT), "--fetch-max", "10") as process:
        yield process


def of_fields(arguments: dict[str, str]) -> tuple[bytes, str]:
    return urlencoded(*arguments.items()), URLENCODED


def of_parts(arguments: dict[str, str]) -> tuple[bytes, str]:
    parts = (part(name, None, value.encode()) for name, value in arguments.items())
    return form(*parts), MULTIPART


def of_json(arguments: dict[str, str]) -> tuple[bytes, str]:
    return json.dumps(arguments).encode(), JSON


Way = Callable[[dict[str, str]], tuple[bytes, str]]
WAYS = [of_fields, of_parts, of_json]


def an_import(arguments: dict[str, str], way: Way = of_fields) -> bytes:
    content, media_type = way(arguments)
    return request("POST", "/media", content, {"Content-Type": media_type})


def ask(service: Process, way: Way = of_fields, **arguments: str) -> Answer:
    with service.connect() as connection:
        connection.send(an_import(arguments, way))
        return connection.answer()


def assert_imported(service: Process, answer: Answer, name: str, content: bytes) -> None:
    """`answer` says, as of any other upload, that `name` was stored, and what the fetch cost."""
    assert answer.brief == (201, 200), answer
    assert re.fullmatch(
        r"([a-z]+;dur=[0-9.]+, )+total;dur=[0-9.]+", answer.headers["Server-Timing"]
    )
    (entry,) = answer.files
    directory, _, filename = name.rpartition("/")
    shown = service.ask("GET", entry["url"])
    assert shown.content == content
    assert unquote(entry["url"]) == f"/media/{name}"
    assert {key: value for key, value in entry.items() if key not in ("audio", "url")} == {
        "code": 200,
        "reason": "OK",
        "directory": directory,
        "filename": filename,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "etag": shown.headers["ETag"],
    }
    assert answer.headers["Location"] == entry["url"]
    assert answer.headers["ETag"] == entry["etag"]
    assert set(answer.json) == {"code", "reason", "files"}
    assert (service.root / name).read_bytes() == content


@contextmanager
def nothing_fetched(nasty: Nasty) -> Iterator[None]:
    """What happens in this context asks the upstream for nothing."""
    before = nasty.all_requests
    yield
    assert nasty.all_requests == before


# Every way in.


@pytest.mark.parametrize("way", WAYS)
def test_what_a_url_gives_is_stored(
    importing: Process, nasty: Nasty, folder: str, way: Way
) -> None:
    url = nasty.url("/audio/tone.wav")
    answer = ask(importing, way, url=url, directory=f"{folder}/en", filename="ä b.wav")
    assert_imported(importing, answer, f"{folder}/en/ä b.wav", WAVE)
    assert "audio" not in answer.files[0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("path", "filename"),
    [
        ("/audio/tone.wav", "tone.wav"),
        ("/audio/a/b/tone.mp3?c/d.wav#e/f.wav", "tone.mp3"),
        ("/audio/hello%20w%C3%B6rld.wav", "hello wörld.wav"),
        ("/audio/a+b.WAV", "a+b.WAV"),
    ],
)
def test_without_a_filename_the_url_gives_one(
    importing: Process, nasty: Nasty, folder: str, way: Way, path: str, filename: str
) -> None:
    answer = ask(importing, way, url=nasty.url(path), directory=folder)
    assert_imported(importing, answer, f"{folder}/{filename}", WAVE)


@pytest.mark.parametrize("way", WAYS)
def test_a_filename_that_a_browser_leaves_empty_is_none(
    importing: Process, nasty: Nasty, folder: str, way: Way
) -> None:
    answer = ask(importing, way, url=nasty.url("/audio/t.wav"), directory=folder, filename="")
    assert_imported(importing, answer, f"{folder}/t.wav", WAVE)


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("?directory={folder}&filename=a.wav", ()),
        ("?directory={folder}", ("filename",)),
        ("?filename=a.wav", ("directory",)),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_directory_and_filename_may_be_in_the_query(
    importing: Process,
    nasty: Nasty,
    folder: str,
    way: Way,
    query: str,
    arguments: tuple[str, ...],
) -> None:
    named = {"directory": folder, "filename": "a.wav"}
    content, media_type = way(
        {"url": nasty.url("/audio/x"), **{name: named[name] for name in arguments}}
    )
    target = "/media" + query.format(folder=folder)
    answer = importing.ask("POST", target, content, {"Content-Type": media_type})
    assert_imported(importing, answer, f"{folder}/a.wav", WAVE)


@pytest.mark.parametrize("media_type", ["Application/JSON", "application/json; charset=utf-8"])
def test_json_as_other_clients_write_it(
    importing: Process, nasty: Nasty, folder: str, media_type: str
) -> None:
    arguments = {"other": {"a": [1, None]}, "url": nasty.url("/audio/x"), "directory": folder}
    text = "\ufeff\r\n" + json.dumps({"filename": "ä.wav", **arguments}, indent=4)
    assert "\\u00e4" in text
    answer = importing.ask("POST", "/media", text.encode(), {"Content-Type": media_type})
    assert_imported(importing, answer, f"{folder}/ä.wav", WAVE)


@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("/plain", PLAIN),
        ("/chain/10", PLAIN),
        ("/folder/relative", PLAIN),
        ("/chunked", b"12345"),
        ("/without-length", b"12345"),
        ("/http-1-0", b"12345"),
        ("/says-103-first", b"12345"),
        ("/encoded?as=identity", PLAIN),
        ("/sized?size=0&declared=length", b""),
        ("/sized?size=0&declared=chunked", b""),
        ("/sized?size=3000001&declared=length", b"x" * LIMIT),
        ("/sized?size=3000001&declared=chunked", b"x" * LIMIT),
        ("/sized?size=3000001&declared=not", b"x" * LIMIT),
        ("/large?size=2500000", content_of(2_500_000)),
        ("/moved-parts?size=2500000", content_of(2_500_000)),
    ],
)
def test_whatever_an_upstream_sends_is_stored_as_it_is(
    importing: Process, nasty: Nasty, folder: str, target: str, content: bytes
) -> None:
    answer = ask(importing, url=nasty.url(target), directory=folder, filename="a.mp3")
    assert_imported(importing, answer, f"{folder}/a.mp3", content)


def test_nothing_of_the_client_goes_to_the_upstream(
    importing: Process, nasty: Nasty, folder: str
) -> None:
    """Case 42."""
    target = nasty.fresh("/echo")
    content, media_type = of_fields(
        {"url": nasty.url(target), "directory": folder, "filename": "a.wav"}
    )
    headers = {
        "Content-Type": media_type,
        "Authorization": "Bearer the-clients",
        "Cookie": "session=the-clients",
        "X-Api-Key": "the-clients",
    }
    assert importing.ask("POST", "/media", content, headers).status == 201
    heard = json.loads((importing.root / folder / "a.wav").read_bytes())
    assert heard == nasty.heard(target)
    assert sorted(heard) == ["accept", "accept-encoding", "host", "user-agent"]
    assert heard["accept-encoding"] == "identity"


# What is refused before anything is fetched.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("changed", "status", "code", "words"),
    [
        ({"url": None, "filename": "a.wav"}, 400, 0, ""),
        ({"url": ""}, 400, 503, "'url'"),
        ({"url": "no-url"}, 400, 400, "the url cannot be fetched"),
        ({"url": "file:///etc/passwd"}, 400, 400, "only http and https"),
        ({"url": "http://user:password@127.0.0.1/"}, 400, 400, "user name or password"),
        ({"directory": None}, 400, 503, "'directory'"),
        ({"directory": ""}, 400, 503, "'directory'"),
        ({"filename": "", "url": "http://127.0.0.1:1/folder/"}, 400, 503, "'filename'"),
        ({"filename": None, "url": "http://127.0.0.1:1/folder/"}, 400, 503, "'filename'"),
        ({"filename": None, "url": "http://127.0.0.1:1"}, 400, 503, "'filename'"),
        ({"filename": None, "url": "http://127.0.0.1:1/%2E%2E"}, 400, 503, "'filename'"),
        ({"filename": None, "url": "http://127.0.0.1:1/a%2Fb.wav"}, 400, 503, "'filename'"),
        ({"filename": None, "url": "http://127.0.0.1:1/%FF.wav"}, 400, 503, "'filename'"),
        ({"filename": None, "url": "http://127.0.0.1:1/a.txt"}, 415, 504, "mp3, wav"),
        ({"directory": "a/../../b"}, 400, 505, "not allowed"),
        ({"directory": "/a"}, 400, 505, "not allowed"),
        ({"filename": "../a.wav"}, 400, 505, "not allowed"),
        ({"filename": ".wav"}, 400, 505, "not allowed"),
        ({"filename": "a\n.wav"}, 400, 505, "not allowed"),
        ({"filename": "a.txt"}, 415, 504, "mp3, wav"),
        ({"filename": "a"}, 415, 504, "mp3, wav"),
        ({"filename": "there.wav"}, 409, 501, "exists"),
        ({"filename": "there.wav", "sha256": "0" * 64}, 409, 501, "exists"),
        ({"sha256": ""}, 400, 503, "'sha256'"),
        ({"sha256": "0" * 63}, 400, 510, "SHA-256"),
        ({"sha256": "g" * 64}, 400, 510, "SHA-256"),
    ],
)
def test_what_can_be_refused_at_once_is_refused_without_a_fetch(
    importing: Process,
    nasty: Nasty,
    folder: str,
    way: Way,
    changed: dict[str, str | None],
    status: int,
    code: int,
    words: str,
) -> None:
    assert importing.ask("PUT", f"/media/{folder}/there.wav", b"there").status == 201
    whole = {"url": nasty.url("/plain"), "directory": folder, "filename": "a.wav"}
    arguments = {name: value for name, value in {**whole, **changed}.items() if value is not None}
    if code == 0:  # without a url it is no import, but a form without a file
        code = 502 if way is of_parts else 503
    with nothing_fetched(nasty), importing.unchanged(nasty.sockets):
        answer = ask(importing, way, **arguments)
        assert answer.brief == (status, code), answer
        assert words in answer.json["reason"]
    assert importing.ask("DELETE", f"/media/{folder}/there.wav").json["deleted"] is True


def test_a_directory_in_the_way_is_a_conflict(
    importing: Process, nasty: Nasty, folder: str
) -> None:
    assert importing.ask("PUT", f"/media/{folder}/a.wav/b.wav", b"there").status == 201
    with nothing_fetched(nasty), importing.unchanged(nasty.sockets):
        answer = ask(importing, url=nasty.url("/plain"), directory=folder, filename="a.wav")
        assert answer.status == 409


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", 510),
        (b"{", 510),
        (b'{"url": "http://127.0.0.1/", "directory": "a"', 510),
        (b'{"url": "http://127.0.0.1/"} x', 510),
        (b'[["url", "http://127.0.0.1/"]]', 510),
        (b'["url", "directory"]', 510),
        (b'"url"', 510),
        (b"null", 510),
        (b"1", 510),
        (b"{'url': 1}", 510),
        (b"[]", 510),
        (b'{"url": "http://127.0.0.1/\xc3"}', 510),
        (b'{"url": 1}', 510),
        (b'{"url": null}', 510),
        (b'{"url": ["http://127.0.0.1/"]}', 510),
        (b'{"url": {"a": "b"}}', 510),
        (b'{"url": "http://127.0.0.1/", "url": "http://127.0.0.1/"}', 510),
        (b'{"url": "http://127.0.0.1/", "directory": true}', 510),
        (b'{"url": "\xff"}', 510),
        (b'{"url": "http://127.0.0.1/a\x00.wav"}', 510),
        ('{"url": "http://127.0.0.1/"}'.encode("utf-16"), 510),
        (b"[" * 30_000, 510),
        (b'{"a":' * 6_000, 510),
        (b"1" * 30_000, 510),
        (b'{"url": "http://127.0.0.1/' + b"x" * 8200 + b'"}', 510),
        (b"{}", 503),
        (b'{"URL": "http://127.0.0.1/"}', 503),
        (b'{"body": "x", "directory": "a", "filename": "a.wav"}', 503),
        (b'{"url": "http://127.0.0.1/a.wav", "directory": "\\ud800"}', 505),
        (b'{"url": "http://127.0.0.1/a.wav", "directory": "a\\u0000"}', 505),
        (b'{"url": "http://127.0.0.1\\u0000/a.wav", "directory": "a"}', 400),
    ],
)
def test_json_that_is_no_import_is_told_why(importing: Process, content: bytes, code: int) -> None:
    with importing.unchanged():
        answer = importing.ask("POST", "/media", content, {"Content-Type": JSON})
        assert answer.brief == (400, code), answer


def test_json_without_an_end_is_cut_off(importing: Process) -> None:
    with importing.unchanged(), importing.connect() as connection:
        connection.send(
            request("POST", "/media", None, {"Content-Type": JSON, "Content-Length": "1000000"})
        )
        connection.send(b" " * 600_000)
        assert connection.answer().brief == (413, 506)


@pytest.mark.parametrize("media_type", ["text/json", "application/problem+json", "text/plain"])
def test_what_is_no_form_and_no_json_is_not_read(importing: Process, media_type: str) -> None:
    with importing.unchanged():
        answer = importing.ask("POST", "/media", b"{}", {"Content-Type": media_type})
        assert answer.brief == (415, 415)
        assert "application/json" in answer.json["reason"]


@pytest.mark.parametrize("order", [("url", "body"), ("body", "url")])
def test_a_url_and_a_body_are_one_too_many(
    importing: Process, nasty: Nasty, folder: str, order: tuple[str, str]
) -> None:
    values = {"url": nasty.url("/plain"), "body": "x"}
    named = (("directory", folder), ("filename", "a.wav"))
    with nothing_fetched(nasty), importing.unchanged(nasty.sockets):
        for first, last in (named, ()), ((), named):
            sent = urlencoded(*first, *((name, values[name]) for name in order), *last)
            answer = importing.ask("POST", "/media", sent, {"Content-Type": URLENCODED})
            assert answer.brief == (400, 510)


@pytest.mark.parametrize("name", ["url", "directory", "filename", "sha256"])
@pytest.mark.parametrize("way", [of_fields, of_parts])
def test_an_argument_that_is_given_twice_is_malformed(
    importing: Process, nasty: Nasty, folder: str, way: Way, name: str
) -> None:
    whole = {"url": nasty.url("/plain"), "directory": folder, "filename": "a.wav"}
    pairs = [*whole.items(), *((name, "x") for _ in range(1 if name in whole else 2))]
    if way is of_fields:
        content, media_type = urlencoded(*pairs), URLENCODED
    else:
        parts = (part(key, None, value.encode()) for key, value in pairs)
        content, media_type = form(*parts), MULTIPART
    with nothing_fetched(nasty), importing.unchanged(nasty.sockets):
        answer = importing.ask("POST", "/media", content, {"Content-Type": media_type})
        assert answer.brief == (400, 510)
        assert f"'{name}'" in answer.json["reason"]


def test_a_form_with_a_file_is_an_upload_and_its_texts_are_passed_over(
    importing: Process, nasty: Nasty, folder: str
) -> None:
    parts = [part("url", None, nasty.url("/plain").encode()), part(folder, "a.wav", b"a file")]
    with nothing_fetched(nasty):
        answer = importing.ask("POST", "/media", form(*parts), {"Content-Type": MULTIPART})
    assert answer.brief == (201, 200)
    assert (importing.root / folder / "a.wav").read_bytes() == b"a file"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{port}/plain", "http://[::1]:{port}/plain", "http://nobody.invalid/plain"],
)
def test_a_private_address_and_a_name_that_does_not_resolve_have_the_same_answer(
    service: Process, nasty: Nasty, way: Way, url: str
) -> None:
    """Cases 38, 43."""
    with nothing_fetched(nasty), service.unchanged(nasty.sockets):
        asked = url.format(port=nasty.port)
        answer = ask(service, way, url=asked, directory="private", filename="a.wav")
        assert answer.brief == (403, 511)
        assert answer.json == {"code": 511, "reason": "that address may not be fetched"}


def test_a_redirect_leads_to_no_address_that_may_not_be_fetched(
    importing: Process, nasty: Nasty, folder: str
) -> None:
    """Case 39."""
    with importing.unchanged(nasty.sockets):
        for to in ("http://10.0.0.1/a.wav", "http://[::1]/a.wav", "http://nobody.invalid/a.wav"):
            url = nasty.url(nasty.fresh("/redirects", to=to))
            answer = ask(importing, url=url, directory=folder, filename="a.wav")
            assert answer.brief == (403, 511)


# What the upstream fails to give.

FAILURES = [
    ("/status/404", "status 404"),
    ("/status/500", "status 500"),
    ("/status/503", "status 503"),
    ("/status/201", "status 201"),
    ("/status/206", "status 206"),
    ("/no-content", "status 204"),
    ("/not-modified", "status 304"),
    ("/redirects-nowhere", "status 302"),
    ("/loop", "redirects more than 10 times"),
    ("/says-more", "broke off after 5 bytes"),
    ("/says-more-and-resets", "broke off after 5 bytes"),
    ("/says-ten-sends-none", "broke off after 0 bytes"),
    ("/chunked-cut-in-a-chunk", "broke off after 3 bytes"),
    ("/chunked-cut-between", "broke off after 5 bytes"),
    ("/chunked-cut-in-the-last", "broke off after 5 bytes"),
    ("/chunked-in-no-hex", ""),
    ("/without-length-reset", "broke off after 5 bytes"),
    ("/closes", "without a response"),
    ("/resets-in-headers", "in the middle of its headers"),
    ("/garbage", "does not respond in HTTP"),
    ("/two-lengths", "does not respond in HTTP"),
    ("/gzip", "with a Content-Encoding that was not requested"),
    ("/endless-headers", "more than 65536 bytes of headers"),
]


@pytest.mark.parametrize(("target", "words"), FAILURES)
def test_what_an_upstream_fails_to_give_is_not_stored(
    importing: Process, nasty: Nasty, folder: str, target: str, words: str
) -> None:
    """Case 44, and 48: no page about an error is ever stored as media."""
    with importing.unchanged(nasty.sockets):
        answer = ask(importing, url=nasty.url(target), directory=folder, filename="a.wav")
        assert answer.brief == (502, 512), answer
        assert words in answer.json["reason"]
        assert importing.ask("GET", f"/media/{folder}/a.wav").status == 404


def test_only_the_headers_have_to_come_in_time(serve: Callable[..., Process], nasty: Nasty) -> None:
    service = serve(*LOOPBACK, "--fetch-timeout", f"{IMPATIENT_S}s")
    with service.unchanged(nasty.sockets):
        answer = ask(service, url=nasty.url("/hangs"), directory="a", filename="a.wav")
        assert answer.brief == (504, 513)
    slow = nasty.url(nasty.fresh("/drips", size=8))  # 1.6 s
    answer = ask(service, url=slow, directory="a", filename="b.wav")
    assert_imported(service, answer, "a/b.wav", b"x" * 8)


# How large it may be.


@pytest.mark.parametrize("size", [LIMIT + 1, 1 << 40, 10**30])
def test_a_size_that_is_known_is_judged_before_the_content(
    importing: Process, nasty: Nasty, folder: str, size: int
) -> None:
    """Case 22. The upstream would send nothing."""
    with importing.unchanged(nasty.sockets):
        url = nasty.url(nasty.fresh("/promises", size=size))
        answer = ask(importing, url=url, directory=folder, filename="a.wav")
        assert answer.brief == (413, 506)
        assert f"limit of {LIMIT} bytes" in answer.json["reason"]
        eventually("the upstream is let go of", lambda: nasty.busy == 0)


@pytest.mark.parametrize("declared", ["chunked", "not"])
def test_a_size_that_is_not_known_is_counted(
    importing: Process, nasty: Nasty, folder: str, declared: str
) -> None:
    with importing.unchanged(nasty.sockets):
        url = nasty.url(nasty.fresh("/sized", size=LIMIT + 1, declared=declared))
        answer = ask(importing, url=url, directory=folder, filename="a.wav")
        assert answer.brief == (413, 506)


@pytest.mark.parametrize("target", ["/radio", "/radio-in-chunks"])
def test_a_stream_that_does_not_end_is_cut_off(
    importing: Process, nasty: Nasty, folder: str, target: str
) -> None:
    """Case 23."""
    with importing.unchanged(nasty.sockets):
        answer = ask(importing, url=nasty.url(target), directory=folder, filename="a.mp3")
        assert answer.brief == (413, 506)
        eventually("the upstream is let go of", lambda: nasty.busy == 0)


def test_imports_cost_little_memory(serve: Callable[..., Process], nasty: Nasty) -> None:
    """Cases 15, 22, 23."""
    service = serve(*LOOPBACK, "--max-upload", "24MiB")
    url = nasty.url("/plain")
    assert ask(service, url=url, directory="a", filename="a.wav").status == 201
    before = service.peak_memory()
    codes: list[int] = []

    def fill(n: int) -> None:
        url = nasty.url(("/radio", "/radio-in-chunks", "/gzip")[n % 3])
        codes.append(ask(service, url=url, directory="b", filename=f"{n}.wav").code)

    threads = [threading.Thread(target=fill, args=(n,)) for n in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [506] * 6 + [512] * 3
    assert service.peak_memory() - before < 40 << 20
    assert service.tree() == ["a", "a/a.wav"]


# Digests, names, and audio.


@pytest.mark.parametrize("way", WAYS)
def test_a_digest_is_verified_before_the_name_appears(
    importing: Process, nasty: Nasty, folder: str, way: Way
) -> None:
    url = nasty.url("/audio/a.wav")
    digest = hashlib.sha256(WAVE).hexdigest()
    with importing.unchanged(nasty.sockets):
        answer = ask(importing, way, url=url, directory=folder, sha256="0" * 64)
        assert answer.brief == (400, 508)
    answer = ask(importing, way, url=url, directory=folder, sha256=digest)
    assert_imported(importing, answer, f"{folder}/a.wav", WAVE)
    with nothing_fetched(nasty), importing.unchanged(nasty.sockets):
        again = ask(importing, way, url=url, directory=folder, sha256=digest.upper())
        assert again.brief == (200, 200)
        assert again.files == [{**answer.files[0], "identical": True}]
        assert ask(importing, way, url=url, directory=folder).brief == (409, 501)


def test_of_many_imports_to_one_name_one_is_stored(
    importing: Process, nasty: Nasty, folder: str
) -> None:
    """Case 2."""
    targets = [nasty.fresh("/half", size=100_000 + n) for n in range(8)]
    with ExitStack() as open_connections:
        connections = []
        for target in targets:
            connection = open_connections.enter_context(importing.connect())
            arguments = {"url": nasty.url(target), "directory": folder, "filename": "a.wav"}
            connection.send(an_import(arguments))
            connections.append(connection)
        eventually("all are under way", lambda: nasty.busy == 8)
        for target in targets:
            nasty.release(target)
        briefs = [connection.answer().brief for connection in connections]
    assert sorted(briefs) == [(201, 200)] + [(409, 501)] * 7
    stored = (importing.root / folder / "a.wav").read_bytes()
    assert stored == content_of(100_000 + briefs.index((201, 200)))


def test_what_is_no_audio_is_flagged_or_rejected(
    serve: Callable[..., Process], nasty: Nasty, importing: Process, folder: str
) -> None:
    """Case 48."""

    def import_to(process: Process, target: str) -> Answer:
        return ask(process, url=nasty.url(target), directory=folder, filename="a.wav")

    flagged = import_to(importing, "/plain")
    assert_imported(importing, flagged, f"{folder}/a.wav", PLAIN)
    assert flagged.files[0]["audio"]["ok"] is False
    service = serve(*LOOPBACK, "--check", "reject")
    with service.unchanged(nasty.sockets):
        assert import_to(service, "/plain").brief == (422, 509)
        empty = import_to(service, "/sized?size=0&declared=length")
        assert empty.brief == (422, 509)
    wave = import_to(service, "/audio/x")
    assert_imported(service, wave, f"{folder}/a.wav", WAVE)


# While it comes.


def open_drafts(service: Process) -> list[str]:
    """The files in the root that are open, and have no name yet."""
    opened = service.descriptors().values()
    return [each for each in opened if str(service.root) in each and "(deleted)" in each]


@contextmanager
def half_way(service: Process, nasty: Nasty, folder: str) -> Iterator[tuple[Connection, str]]:
    """An import of `a.wav` of which half has come, and the upstream's target."""
    target = nasty.fresh("/half", size=1_000_000)
    with service.connect() as connection:
        arguments = {"url": nasty.url(target), "directory": folder, "filename": "a.wav"}
        connection.send(an_import(arguments))
        eventually("some of it is written", lambda: open_drafts(service) != [])
        yield connection, target


def test_no_part_of_it_has_its_name_before_the_end(
    importing: Process, nasty: Nasty, folder: str
) -> None:
    before = importing.tree()
    with half_way(importing, nasty, folder) as (connection, target):
        for _ in range(5):
            assert importing.ask("GET", f"/media/{folder}/a.wav").status == 404
            assert importing.tree() == before
        nasty.release(target)
        answer = connection.answer()
    assert_imported(importing, answer, f"{folder}/a.wav", content_of(1_000_000))
    eventually("the draft is gone", lambda: open_drafts(importing) == [])


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_an_import_ends_without_its_client(
    importing: Process, nasty: Nasty, folder: str, leave: str
) -> None:
    """Case 51."""
    with half_way(importing, nasty, folder) as (connection, target):
        getattr(connection, leave)()
        nasty.release(target)
        path = importing.root / folder / "a.wav"
        eventually("it is stored", path.exists)
        assert path.read_bytes() == content_of(1_000_000)
        eventually("the upstream is let go of", lambda: nasty.busy == 0)
        eventually("the draft is gone", lambda: open_drafts(importing) == [])


@pytest.mark.parametrize("target", ["/hangs", "/drips-headers", "/hangs-in-content"])
def test_an_import_without_its_client_is_waited_for_no_longer_than_with_it(
    serve: Callable[..., Process], nasty: Nasty, target: str
) -> None:
    service = serve(*LOOPBACK, "--fetch-timeout", "1", "--grace", "1")
    target = nasty.fresh(target)
    with service.connect() as connection:
        arguments = {"url": nasty.url(target), "directory": "a", "filename": "a.wav"}
        connection.send(an_import(arguments))
        eventually("it is under way", lambda: nasty.requests(target) == 1)
    service.stop()
    eventually("the upstream is let go of", lambda: nasty.busy == 0)
    assert service.tree() == []


def test_an_import_counts_as_an_upload(serve: Callable[..., Process], nasty: Nasty) -> None:
    service = serve(*LOOPBACK, "--max-uploads", "1")
    with half_way(service, nasty, "a") as (connection, target):
        assert service.ask("PUT", "/media/a/b.wav", b"x").brief == (503, 514)
        other = nasty.url("/plain")
        assert ask(service, url=other, directory="a", filename="c.wav").brief == (503, 514)
        nasty.release(target)
        assert connection.answer().status == 201
    assert service.ask("PUT", "/media/a/b.wav", b"x").status == 201


# Transfers that break off.

SIZE = 900_007


@pytest.mark.parametrize(
    ("query", "requests"),
    [
        pytest.param({"cuts": "300000,700000"}, 3, id="twice"),
        pytest.param({"cuts": "300000", "by": "reset"}, 2, id="by a reset"),
        pytest.param({"cuts": "0"}, 2, id="before the first byte"),
        pytest.param({"cuts": str(SIZE - 1)}, 2, id="before the last byte"),
        pytest.param({"cuts": "300000", "resumes": "whole"}, 2, id="without ranges"),
        pytest.param({"cuts": "300000,200000", "resumes": "whole"}, 3, id="further back"),
        pytest.param({"cuts": "300000", "resumes": "resets-once"}, 3, id="with a reset"),
    ],
)
def test_a_transfer_that_breaks_off_is_resumed(
    importing: Process, nasty: Nasty, folder: str, query: dict[str, str], requests: int
) -> None:
    """Byte for byte what it would have been."""
    target = nasty.fresh("/large", size=SIZE, **query)
    answer = ask(importing, url=nasty.url(target), directory=folder, filename="a.wav")
    assert_imported(importing, answer, f"{folder}/a.wav", content_of(SIZE))
    assert nasty.requests(target) == requests
    heard = nasty.heard(target)
    assert heard["if-range"] == '"1"'
    assert re.fullmatch("bytes=[0-9]+-", heard["range"])
    assert heard["accept-encoding"] == "identity"


def test_a_transfer_that_was_redirected_is_resumed_by_the_same_way(
    importing: Process, nasty: Nasty, folder: str
) -> None:
    target = nasty.fresh("/moved-parts", size=SIZE, cuts="300000")
    answer = ask(importing, url=nasty.url(target), directory=folder, filename="a.wav")
    assert_imported(importing, answer, f"{folder}/a.wav", content_of(SIZE))
    assert nasty.requests(target) == 2


@pytest.mark.parametrize(
    ("query", "requests"),
    [
        pytest.param({"cuts": "100000,200000,300000,400000"}, 4, id="four times"),
        pytest.param({"cuts": "300000", "etag": "changes"}, 2, id="changed in between"),
        pytest.param({"cuts": "300000", "etag": "none"}, 1, id="without an ETag"),
        pytest.param({"cuts": "300000", "etag": "weak"}, 1, id="with a weak ETag"),
        pytest.param({"cuts": "300000", "resumes": "wrong-part"}, 2, id="by another part"),
        pytest.param({"cuts": "300000", "resumes": "wrong-total"}, 2, id="of another whole"),
        pytest.param({"cuts": "300000", "resumes": "refuses"}, 2, id="refused"),
    ],
)
def test_a_transfer_that_cannot_be_resumed_is_not_stored(
    importing: Process, nasty: Nasty, folder: str, query: dict[str, str], requests: int
) -> None:
    target = nasty.fresh("/large", size=SIZE, **query)
    with importing.unchanged(nasty.sockets):
        answer = ask(importing, url=nasty.url(target), directory=folder, filename="a.wav")
        assert answer.brief == (502, 512)
        assert answer.json["reason"].startswith("the upstream ")
    assert nasty.requests(target) == requests


def test_a_transfer_that_waits_to_be_resumed_goes_on_without_its_client(
    importing: Process, nasty: Nasty, folder: str
) -> None:
    """Case 51."""
    target = nasty.fresh("/large", size=SIZE, cuts="1,2")
    with importing.connect() as connection:
        arguments = {"url": nasty.url(target), "directory": folder, "filename": "a.wav"}
        connection.send(an_import(arguments))
        # the next attempt comes a second after this one
        eventually("it is resumed", lambda: nasty.requests(target) >= 2)
    path = importing.root / folder / "a.wav"
    eventually("it is stored", path.exists)
    assert path.read_bytes() == content_of(SIZE)
    assert nasty.requests(target) == 3

"""Names of every kind in every place that a name can come from: what is not allowed is refused and
leaves nothing, in the root and outside of it; what is allowed is the name, letter for letter.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlencode

import pytest

from tests.process.exchange import MULTIPART, URLENCODED, Answer, form, part, urlencoded
from tests.process.running import Process, tree_of

FORM = {"Content-Type": MULTIPART}
FIELDS = {"Content-Type": URLENCODED}

# Case 32, 34, 35. Bytes, because a client may send any.
HOSTILE_DIRECTORIES = [
    b"..",
    b"../..",
    b"../media-evil",
    b"media/../../media-evil",
    b"a/..",
    b"a/../b",
    b"a/../../../../tmp",
    b".",
    b"a/.",
    b"./a",
    b"a/./b",
    b"/",
    b"/etc",
    b"//etc",
    b"a//b",
    b"a//",
    b"..\\..",
    b"a\\..\\..\\b",
    b"\\etc",
    b"\\\\server\\share",
    b"a\\\\b",
    b"a/..\\..",
    b".hidden",
    b"a/.git",
    b"...",
    b".twistedmedia",
    b".twistedmedia/drafts",
    b"a\0",
    b"\0",
    b"a\0/../b",
    b"a\nb",
    b"a\rb",
    b"a\r\nSet-Cookie: stolen=1",
    b"a\tb",
    b"a\x1b[2Jb",
    b"a\x7f",
    "a\x85b".encode(),
    "\u202egnp.exe".encode(),
    "a\u200bb".encode(),
    "\ufeffa".encode(),
    "a\u2066b".encode(),
    "\u00ad".encode(),
    b"\xff",
    b"a/\xc3",
    b"\xc0\xae\xc0\xae",  # two dots, in the long form that UTF-8 forbids
    b"\xed\xa0\x80",  # half a surrogate pair
    b"\xf4\x90\x80\x80",  # beyond Unicode
    b"x" * 256,
    b"a/" + b"x" * 256,
    "é".encode() * 128,
    "\U0001d15e".encode() * 60,  # 240 bytes, and 480 in NFC
    b"/".join([b"x" * 255] * 4),  # 1,023 bytes, with any filename more than 1,024
]
HOSTILE_FILENAMES = [
    b"..",
    b".",
    b"../a.wav",
    b"a/b.wav",
    b"/a.wav",
    b"/etc/passwd.wav",
    b"a\\b.wav",
    b"..\\a.wav",
    b"C:\\music\\a.wav",
    b"\\\\server\\share\\a.wav",
    b"a.wav/",
    b"a.wav/..",
    b".wav",
    b".a.wav",
    b"..wav",
    b"a.wav\0",
    b"a\0.wav",
    b"a.html\0.wav",
    b"a\n.wav",
    b"a.wav\r\nX-Injected: yes",
    b"a\x08.wav",
    "a\u202evaw.exe.wav".encode(),
    "a\u200d.wav".encode(),
    b"\xff.wav",
    b"a\xc0\xaf.wav",
    b"\xed\xbf\xbf.wav",
    b"x" * 252 + b".wav",
    "é".encode() * 126 + b".wav",
]

# Odd, and allowed all the same. What is sent encoded is decoded once, never twice.
ODD_DIRECTORIES = [
    "%2e%2e",
    "%2F",
    "%252e%252e%252f",
    "a%00b",
    "a b",
    " a ",
    "a.",
    "a..b",
    "~root",
    "-rf",
    "$(reboot)",
    "`id`",
    "a*?[b]",
    "a|b>c<d",
    "a'b",
    'a"b',
    "a&b=c;d+e",
    "a#b?c",
    "a:b@c",
    "CON",
    "nul",
    "<script>alert(1)</script>",
    "😀",
    "日本語",
    "a\u2028b",
    "a\xa0b",
    "é" * 127,
    "x" * 255,
    "/".join(["x" * 254] * 3),
    "/".join("abcdefghijklmnopqrstuvwxyz"),
]
ODD_FILENAMES = [
    "%2e%2e%2fa.wav",
    "a%2Fb.wav",
    "a.html.wav",
    "a..wav",
    "a .wav",
    " a.wav",
    "a.WaV",
    "-a.wav",
    'a"b.wav',
    "a'b.wav",
    "a;b=c.wav",
    "a,b&c=d.wav",
    "a%27b%0d%0a.wav",  # %22 and %0A are a quote and a line break in a part's header
    "100%.wav",
    "COM1.wav",
    "aux.mp3.wav",
    "😀.wav",
    "Grüße, Jürgen.wav",
    "a\u2028b.wav",
    "{0}{name!r}%s.wav",
    "x" * 251 + ".wav",
]

Sender = Callable[[Process, bytes, bytes], Answer]


def by_path(service: Process, directory: bytes, filename: bytes) -> Answer:
    """Each segment percent-encoded, with the directory's slashes left."""
    target = f"/media/{quote(directory)}/{quote(filename, safe='')}"
    return service.ask("PUT", target, b"x")


def by_raw_path(service: Process, directory: bytes, filename: bytes) -> Answer:
    """As much as possible as it is: dots, backslashes and whatever is no space or line break."""
    allowed = bytes(b for b in range(33, 127) if b not in b"#?%").decode()
    target = f"/media/{quote(directory, allowed)}/{quote(filename, allowed.replace('/', ''))}"
    return service.ask("PUT", target, b"x")


def by_multipart(service: Process, directory: bytes, filename: bytes) -> Answer:
    return service.ask("POST", "/media", form(part(directory, filename, b"x")), FORM)


def by_urlencoded(service: Process, directory: bytes, filename: bytes) -> Answer:
    fields = urlencoded(("directory", directory), ("filename", filename), ("body", b"x"))
    return service.ask("POST", "/media", fields, FIELDS)


def by_query(service: Process, directory: bytes, filename: bytes) -> Answer:
    query = urlencode({"directory": directory, "filename": filename})
    return service.ask("POST", f"/media?{query}", b"body=x", FIELDS)


WAYS: list[Sender] = [by_path, by_raw_path, by_multipart, by_urlencoded, by_query]


def refusal_of(send: Sender, name: bytes) -> tuple[int, int]:
    """How `name` is refused: the header of a part is text, and what is none is no header."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return (400, 510) if send is by_multipart else (400, 505)
    return (400, 505)


@pytest.mark.parametrize("send", WAYS)
def test_a_hostile_directory_is_refused_wherever_it_comes_from(
    service: Process, send: Sender
) -> None:
    """Cases 32, 34, 35."""
    with service.unchanged():
        got = {raw: send(service, raw, b"name.wav").brief for raw in HOSTILE_DIRECTORIES}
        assert got == {raw: refusal_of(send, raw) for raw in HOSTILE_DIRECTORIES}


@pytest.mark.parametrize("send", WAYS)
def test_a_hostile_filename_is_refused_wherever_it_comes_from(
    service: Process, send: Sender
) -> None:
    """Cases 32, 35."""
    with service.unchanged():
        got = {raw: send(service, b"directory", raw).brief for raw in HOSTILE_FILENAMES}
        assert got == {raw: refusal_of(send, raw) for raw in HOSTILE_FILENAMES}


def test_a_hostile_name_reads_and_deletes_nothing(service: Process) -> None:
    """Cases 32, 34: there is something to be read outside of the root, and inside of it."""
    names = [
        *((directory, b"lock") for directory in HOSTILE_DIRECTORIES),
        *((directory, b"secret.mp3") for directory in HOSTILE_DIRECTORIES),
        *((b"directory", filename) for filename in HOSTILE_FILENAMES),
    ]
    got = {}
    with service.unchanged():
        for directory, filename in names:
            encoded = f"/media/{quote(directory)}/{quote(filename, safe='')}"
            fields = urlencoded(("directory", directory), ("filename", filename))
            query = urlencode({"directory": directory, "filename": filename})
            got[directory, filename] = {
                service.ask("GET", encoded).brief,
                service.ask("DELETE", encoded).brief,
                service.ask("DELETE", "/media", fields, FIELDS).brief,
                service.ask("DELETE", f"/media?{query}").brief,
            }
    assert got == {name: {(400, 505)} for name in names}


@pytest.mark.parametrize(
    "target",
    [
        "/media/../media-evil/secret.mp3",
        "/media/%2e%2e/media-evil/secret.mp3",
        "/media/%2e%2e%2fmedia-evil/secret.mp3",
        "/media/..%2fmedia-evil%2fsecret.mp3",
        "/media/..%5cmedia-evil/secret.mp3",
        "/media/a/..;/..;/media-evil/secret.mp3",
        "/media/%252e%252e/media-evil/secret.mp3",
        "/media/%c0%ae%c0%ae/media-evil/secret.mp3",
        "/media//etc/passwd",
        "/media/%2fetc/passwd",
        "/media/./media-evil/secret.mp3",
        "/media-evil/secret.mp3",
        "/media/.twistedmedia/lock",
        "/media/%2etwistedmedia/lock",
        "/media/.twistedmedia%2flock",
        "/../media-evil/secret.mp3",
        "//media-evil/secret.mp3",
        "/media/\\..\\media-evil\\secret.mp3",
        "/media/%00/secret.mp3",
        "/media/%/secret.mp3",
        "/media/%zz/secret.mp3",
        "/media/%u002e%u002e/secret.mp3",
        "http://127.0.0.1/media/../media-evil/secret.mp3",
        "file:///etc/passwd",
        "/media/http://127.0.0.1/secret.mp3",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_no_path_leads_out_of_the_root(service: Process, method: str, target: str) -> None:
    """Cases 32, 34."""
    with service.unchanged():
        content = b"x" if method == "PUT" else None
        answer = service.ask(method, target, content)
        assert b"beside the root" not in answer.content
        if (method, answer.status) == ("DELETE", 200):
            assert answer.json["deleted"] is False
        elif (method, answer.status) == ("PUT", 201):  # a name like any other: take it away again
            assert service.ask("DELETE", answer.headers["Location"]).json["deleted"] is True
        else:
            assert answer.status in (400, 404, 405, 409)
    assert (service.root.parent / "media-evil" / "secret.mp3").read_bytes() == b"beside the root"


@pytest.mark.parametrize("send", WAYS)
def test_an_odd_name_is_a_name(service: Process, send: Sender, folder: str) -> None:
    """Case 35."""
    names = [
        *((f"{folder}/{directory}", "name.wav") for directory in ODD_DIRECTORIES),
        *((folder, filename) for filename in ODD_FILENAMES),
    ]
    for directory, filename in names:
        answer = send(service, directory.encode(), filename.encode())
        assert answer.brief == (201, 200), (directory, filename, answer.json)
        (entry,) = answer.files
        assert (entry["directory"], entry["filename"]) == (directory, filename)
        assert entry["url"].isascii()
        assert answer.headers["Location"] == entry["url"]
        assert unquote_to_bytes(entry["url"]).decode() == f"/media/{directory}/{filename}"
        assert (service.root / directory / filename).read_bytes() == b"x"
        assert service.ask("GET", entry["url"]).content == b"x"
        assert service.ask("DELETE", entry["url"]).json["deleted"] is True
    assert not (service.root / folder).exists()


@pytest.mark.parametrize("send", WAYS)
def test_a_trailing_slash_and_backslashes_of_a_directory_make_no_difference(
    service: Process, send: Sender, folder: str
) -> None:
    names = [b"a\\b/c", b"a/b\\d"]
    if send not in (by_path, by_raw_path):  # in a path the slash would be an empty segment
        names += [b"a/b/e/"]
    if send in (by_urlencoded, by_query):  # in a part's header it would escape the quote
        names += [b"a\\b\\f\\"]
    for name in names:
        answer = send(service, folder.encode() + b"/" + name, b"name.wav")
        assert answer.brief == (201, 200)
        expected = f"{folder}/{name.decode()}".replace("\\", "/").removesuffix("/")
        assert answer.files[0]["directory"] == expected
        assert (service.root / expected / "name.wav").read_bytes() == b"x"


@pytest.mark.parametrize("send", WAYS)
def test_two_spellings_of_a_letter_are_one_name(
    service: Process, send: Sender, folder: str
) -> None:
    """Case 35: NFC and NFD, but not what only looks alike (NFKC)."""
    composed = tuple(unicodedata.normalize("NFC", name) for name in ("Grüße", "Größé.wav"))
    decomposed = tuple(unicodedata.normalize("NFD", name) for name in composed)
    answer = send(service, f"{folder}/{decomposed[0]}".encode(), decomposed[1].encode())
    assert answer.brief == (201, 200)
    assert answer.files[0]["filename"] == composed[1]
    assert (service.root / folder / composed[0] / composed[1]).exists()
    again = send(service, f"{folder}/{composed[0]}".encode(), composed[1].encode())
    assert again.brief == (409, 501)
    for directory, filename in (composed, decomposed):
        target = f"/media/{folder}/{quote(directory)}/{quote(filename)}"
        assert service.ask("GET", target).content == b"x"
    fullwidth = send(service, f"{folder}/{composed[0]}".encode(), "Ａ.wav".encode())
    assert fullwidth.files[0]["filename"] == "Ａ.wav"


@pytest.mark.parametrize(
    ("line", "brief"),
    [
        (
            "form-data; name=\"{}\"; filename*=UTF-8''..%2Fa.wav",
            {(400, 502), (400, 505), (400, 510)},
        ),
        ('form-data; name="{}"; filename="a.wav"; filename*=UTF-8\'\'..%2Fb.wav', None),
        ('form-data; name="{}"; filename="a.wav"; filename="../b.wav"', None),
        ('form-data; name="{}"; name=".."; filename="a.wav"', None),
        ('form-data; name="{}"; filename=..%2Fa.wav', None),
        ('form-data; name="{}"; filename=../a.wav', {(400, 510)}),
        ('form-data; name="{}"; filename="..\\\\a.wav"', {(400, 505)}),
        ('form-data; name="{}"; filename="C:\\\\fakepath\\\\a.wav"', {(400, 505)}),
        ('form-data; name="{}/\\".."; filename="a.wav"', None),
        ('form-data; name="{}"; filename="a.wav', None),
        ('attachment; name="{}"; filename="a.wav"', {(400, 510)}),
        ('form-data; filename="a.wav"; x="{}"', {(400, 503), (400, 510)}),
    ],
)
def test_however_a_part_gives_its_name_it_stays_in_its_directory(
    service: Process, folder: str, line: str, brief: set[tuple[int, int]] | None
) -> None:
    """Case 32. `brief` is None where different readings of the header are as good."""
    raw = part("@", "@", b"x")
    start, stop = raw.index(b"form-data"), raw.index(b"\r\n\r\n")
    content = form(raw[:start] + line.format(folder).encode() + raw[stop:])
    before = tree_of(service.root.parent)
    answer = service.ask("POST", "/media", content, FORM)
    if brief is not None:
        assert answer.brief in brief
    new = set(tree_of(service.root.parent)) - set(before)
    assert answer.status in (201, 400, 415)
    assert all(name.startswith(f"media/{folder}") for name in new)
    assert bool(new) == (answer.status == 201)


# Case 35: what a name may hold and a header or a log line may not.
INJECTING = [*(name for name in ODD_FILENAMES), 'a";b="c.wav', "a\u2029b.wav", "\u0131.wav"]

PLAIN = r'; filename="[ !#-\[\]-~]*"'
EXTENDED = r"(; filename\*=UTF-8''[!#$&+\-.^_`|~0-9A-Za-z%]+)?"  # RFC 8187, 3.2.1


def test_a_name_cannot_break_a_header(service: Process, folder: str) -> None:
    """Case 35. The name in Content-Disposition (RFC 6266) is the true one."""
    for filename in INJECTING:
        answer = by_urlencoded(service, folder.encode(), filename.encode())
        assert answer.brief == (201, 200)
        for query, kind in (("", "inline"), ("?download", "attachment")):
            shown = service.ask("GET", answer.headers["Location"] + query)
            disposition = shown.headers["Content-Disposition"]
            assert re.fullmatch(
                kind
                + r'; filename="[ -!#-\[\]-~]*"(; filename\*=UTF-8\'\'[!#$&+\-.^_`|~0-9A-Za-z%]+)?',
                disposition,
            ), disposition
            assert name_in(disposition) == filename
            assert len(shown.headers.get_all("Content-Disposition")) == 1
            assert shown.headers["X-Injected"] is None


def name_in(disposition: str) -> str:
    """The name as a client takes it (RFC 6266, 4.3): the extended one first."""
    extended = re.search(r"filename\*=UTF-8''(.*)$", disposition)
    if extended is not None:
        return unquote_to_bytes(extended[1]).decode()
    plain = re.search(r'filename="(.*)"', disposition)
    assert plain is not None
    return plain[1]


def test_a_name_cannot_break_a_line_of_the_log(service: Process, folder: str) -> None:
    """Case 35: each line begins as a line does, and those with the names are there."""
    before = len(service.log)
    names = [
        *((folder.encode(), filename.encode()) for filename in INJECTING),
        *((directory, b"log.wav") for directory in HOSTILE_DIRECTORIES),
        *((b"log", filename) for filename in HOSTILE_FILENAMES),
        (b"log", b"a\n2026-01-01T00:00:00+0000 [forged#info] stored.txt"),
    ]
    for send in WAYS:
        for directory, filename in names:
            send(service, directory, filename)
    for directory, _ in names:
        service.ask("GET", f"/media/{quote(directory)}?x=%0a%0dy")
        service.ask("DELETE", f"/media/{folder}/{quote(directory)}?x=%0a%0dy")
    for filename in INJECTING:
        service.ask("DELETE", f"/media/{folder}/{quote(filename)}")
    lines = service.log[before:].splitlines()
    assert lines
    stamp = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000 \[twistedmedia\.")
    assert [line for line in lines if not stamp.match(line)] == []
    assert [line for line in lines if "forged" in line and "not stored" not in line] == []
    for event in ("arriving: ", "stored: ", "not stored: ", "deleted: "):
        assert any(event in line for line in lines), event


def test_a_page_that_calls_itself_audio_is_never_shown(service: Process, folder: str) -> None:
    """Case 36."""
    page = b"<!doctype html><script>alert(document.domain)</script>"
    answer = service.ask(
        "POST",
        "/media",
        form(part(folder, "page.mp3", page, "Content-Type: text/html")),
        FORM,
    )
    shown = service.ask("GET", answer.headers["Location"])
    assert shown.content == page
    assert shown.headers["Content-Type"] == "audio/mpeg"
    assert shown.headers["X-Content-Type-Options"] == "nosniff"
    policy = "sandbox allow-same-origin; default-src 'none'; media-src 'self'"
    assert shown.headers["Content-Security-Policy"] == policy


@contextmanager
def links(service: Process, folder: str) -> Iterator[None]:
    """Links of all kinds in the root, put there by somebody who may. What they lead to is as it was
    afterwards.
    """
    outside = service.root.parent / f"outside-{folder}"
    outside.mkdir()
    (outside / "secret.wav").write_bytes(b"secret")
    inside = service.root / folder
    inside.mkdir()
    (inside / "real.wav").write_bytes(b"real")
    (inside / "out").symlink_to(outside)
    (inside / "relative").symlink_to("../../" + outside.name)
    (inside / "in").symlink_to(inside)
    (inside / "up").symlink_to("..")
    (inside / "file.wav").symlink_to(outside / "secret.wav")
    (inside / "near.wav").symlink_to("real.wav")
    (inside / "dangling.wav").symlink_to(outside / "absent.wav")
    (inside / "loop.wav").symlink_to("loop.wav")
    (inside / "nowhere").symlink_to(outside / "nowhere")
    yield
    assert sorted(os.listdir(outside)) == ["secret.wav"]
    assert (outside / "secret.wav").read_bytes() == b"secret"


LINKED = [
    "out/secret.wav",
    "relative/secret.wav",
    "in/real.wav",
    "file.wav",
    "near.wav",
    "dangling.wav",
    "loop.wav",
    "nowhere/a.wav",
    "out/absent.wav",
    "in/out/secret.wav",
    "up/.twistedmedia/lock",
]


def test_links_in_the_root_are_not_followed(service: Process, folder: str) -> None:
    """Case 33: on read, write and delete; final, parent, dangling."""
    with links(service, folder), service.unchanged():
        for name in LINKED[:-1]:
            target = f"/media/{folder}/{name}"
            assert service.ask("GET", target).brief == (404, 404), name
            assert service.ask("HEAD", target).status == 404, name
            assert service.ask("PUT", target, b"x").status == 409, name
            assert service.ask("PUT", target, b"x" * (1 << 20)).status == 409, name
            content = form(part(os.path.dirname(f"{folder}/{name}"), os.path.basename(name), b"x"))
            assert service.ask("POST", "/media", content, FORM).status == 409, name
            assert service.ask("DELETE", target).json["deleted"] is False, name
        assert service.ask("GET", f"/media/{folder}/{LINKED[-1]}").brief == (400, 505)
        # and as they stand in the way of no other
        assert service.ask("GET", f"/media/{folder}/real.wav").content == b"real"
    assert (service.root / folder / "file.wav").is_symlink()


def test_a_folder_that_is_swapped_for_a_link_is_not_followed(service: Process, folder: str) -> None:
    """Case 33: between check and use."""
    with links(service, folder):
        swapped = service.root / folder / "swapped"
        swapped.mkdir()
        (swapped / "secret.wav").write_bytes(b"ours")
        stop = threading.Event()

        def swap() -> None:
            while not stop.wait(0.0002):
                exchange(swapped, service.root / folder / "out")  # the link to the outside

        swapping = threading.Thread(target=swap)
        swapping.start()
        try:
            seen: dict[bytes | int, int] = {}
            stored: dict[int, int] = {}
            with service.connect() as connection:
                for n in range(150):
                    shown = connection.ask("GET", f"/media/{folder}/swapped/secret.wav")
                    what = shown.content if shown.status == 200 else shown.code
                    seen[what] = seen.get(what, 0) + 1
                    status = connection.ask("PUT", f"/media/{folder}/swapped/{n}.wav", b"x").status
                    stored[status] = stored.get(status, 0) + 1
                    connection.ask("DELETE", f"/media/{folder}/swapped/{n}.wav")
        finally:
            stop.set()
            swapping.join()
        assert set(seen) == {b"ours", 404}  # each of the two was met, and never what is outside
        assert set(stored) == {201, 409}


def exchange(one: Path, other: Path) -> None:
    """Swap two names in one step: renameat2(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    at, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if libc.renameat2(at, os.fsencode(one), at, os.fsencode(other), exchange) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def test_what_is_no_file_is_not_there(service: Process, folder: str) -> None:
    """A pipe, a socket or a folder in a file's place holds up nobody."""
    inside = service.root / folder
    inside.mkdir()
    os.mkfifo(inside / "pipe.wav")
    (inside / "folder.wav").mkdir()
    for name, deleting in (("pipe.wav", 200), ("folder.wav", 409)):
        target = f"/media/{folder}/{name}"
        assert service.ask("GET", target).brief == (404, 404)
        assert service.ask("PUT", target, b"x").status == 409
        assert service.ask("DELETE", target).status == deleting
        assert (inside / name).exists()


def test_the_root_may_itself_be_a_link(tmp_path: Path, serve: Callable[..., Process]) -> None:
    (tmp_path / "area" / "elsewhere").mkdir(parents=True)
    (tmp_path / "area" / "media").symlink_to("elsewhere")
    service = serve()
    assert service.ask("PUT", "/media/a/b.wav", b"x").status == 201
    assert (tmp_path / "area" / "elsewhere" / "a" / "b.wav").read_bytes() == b"x"

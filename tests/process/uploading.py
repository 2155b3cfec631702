"""A table of requests for resumable uploads that are hostile or broken, and how each is refused.

They are about an upload of `WHOLE` of which `HERE` is here; of what they bring nothing is kept.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass

from tests.process.exchange import chunked, head

WHOLE = b"hello world"
HERE, REST = WHOLE[:5], WHOLE[5:]
DIRECTORY = "hostile"
TUS = ("Tus-Resumable", "1.0.0")
PART = ("Content-Type", "application/offset+octet-stream")
OFFSET = ("Upload-Offset", "5")
LENGTH = ("Upload-Length", "11")
_ENOUGH = "9" * 5000
_ZEROS = "0" * 5000

Fields = tuple[tuple[str, str], ...]


def metadata(filename: str | bytes = "new.wav", directory: str | bytes = DIRECTORY) -> Fields:
    pairs = (("filename", filename), ("directory", directory))
    return (("Upload-Metadata", ",".join(f"{key} {encoded(value)}" for key, value in pairs)),)


def encoded(value: str | bytes) -> str:
    return b64encode(value.encode() if isinstance(value, str) else value).decode()


def sha1(content: bytes) -> str:
    return f"sha1 {encoded(hashlib.sha1(content).digest())}"


@dataclass(frozen=True)
class Row:
    """One request, and its answer. In `target` `{upload}` is the upload's own."""

    group: str
    name: str
    method: str
    target: str
    headers: Fields
    content: bytes
    status: int
    code: int

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"

    def sent(self, upload: str) -> bytes:
        fields = list(self.headers)
        if not any(name == "Transfer-Encoding" for name, _ in fields):
            fields.append(("Content-Length", str(len(self.content))))
        return head(self.method, self.target.format(upload=upload), fields) + self.content


def _rows() -> Iterator[Row]:
    yield from _versions()
    yield from _offsets()
    yield from _lengths()
    yield from _metadata()
    yield from _checksums()
    yield from _contents()
    yield from _targets()


def _patch(
    group: str,
    name: str,
    status: int,
    code: int,
    *headers: tuple[str, str],
    content: bytes = REST,
    target: str = "{upload}",
) -> Row:
    return Row(group, name, "PATCH", target, (TUS, *headers), content, status, code)


def _post(group: str, name: str, status: int, code: int, *headers: tuple[str, str]) -> Row:
    return Row(group, name, "POST", "/uploads", (TUS, *headers), b"", status, code)


def _versions() -> Iterator[Row]:
    versions: dict[str, Fields] = {
        "none": (),
        "empty": (("Tus-Resumable", ""),),
        "an older one": (("Tus-Resumable", "0.2.2"),),
        "one to come": (("Tus-Resumable", "2.0.0"),),
        "nearly": (("Tus-Resumable", "1.0.0.0"),),
        "twice": (TUS, TUS),
        "two": (TUS, ("Tus-Resumable", "0.2.2")),
        "noise": (("Tus-Resumable", "\xff\xfe"),),
    }
    for name, fields in versions.items():
        for method in ("PATCH", "POST", "DELETE"):
            target = "/uploads" if method == "POST" else "{upload}"
            headers = (*fields, PART, OFFSET, LENGTH, *metadata())
            content = REST if method == "PATCH" else b""
            yield Row("version", f"{name}, {method}", method, target, headers, content, 412, 412)


def _offsets() -> Iterator[Row]:
    def row(name: str, status: int, code: int, *values: str) -> Row:
        offsets = [("Upload-Offset", value) for value in values]
        return _patch("offset", name, status, code, PART, *offsets)

    yield row("none", 400, 503)
    yield row("empty", 400, 510, "")
    yield row("negative", 400, 510, "-5")
    yield row("negative zero", 400, 510, "-0")
    yield row("signed", 400, 510, "+5")
    yield row("in C", 400, 510, "0x5")
    yield row("with an exponent", 400, 510, "5e0")
    yield row("with a point", 400, 510, "5.0")
    yield row("with an underscore", 400, 510, "0_5")
    yield row("with a superscript", 400, 510, "\xb2")
    yield row("a word", 400, 510, "NaN")
    yield row("beyond all files", 400, 510, "9223372036854775808")
    yield row("beyond 64 bits", 400, 510, "18446744073709551621")
    yield row("of 5,000 digits", 400, 510, _ENOUGH)
    yield row("twice", 400, 510, "5", "5")
    yield row("two", 400, 510, "5", "6")
    yield row("a list", 400, 510, "5, 5")
    yield row("zero", 409, 409, "0")
    yield row("too small", 409, 409, "4")
    yield row("too large", 409, 409, "6")
    yield row("the end", 409, 409, "11")
    yield row("behind the end", 409, 409, "12")
    yield row("at 2^32", 409, 409, "4294967301")  # the same in 32 bits
    yield row("huge", 409, 409, "9223372036854775807")
    yield row("of 5,000 zeros", 409, 409, _ZEROS)


def _lengths() -> Iterator[Row]:
    def row(name: str, status: int, code: int, *values: str) -> Iterator[Row]:
        lengths = [("Upload-Length", value) for value in values]
        yield _post("length", name, status, code, *lengths, *metadata())
        if values:
            wanted = (400, 510)  # another than it has
            yield _patch("length of a part", name, *wanted, PART, OFFSET, *lengths)

    yield from row("none", 400, 503)
    yield from row("empty", 400, 510, "")
    yield from row("negative", 400, 510, "-1")
    yield from row("signed", 400, 510, "+12")
    yield from row("in C", 400, 510, "0x10")
    yield from row("a word", 400, 510, "Infinity")
    yield from row("beyond all files", 400, 510, "9223372036854775808")
    yield from row("of 5,000 digits", 400, 510, _ENOUGH)
    yield from row("twice", 400, 510, "11", "11")
    yield from row("two", 400, 510, "11", "12")
    yield from row("a list", 400, 510, "11, 11")
    yield from row("more than may be", 413, 506, "2147483649")
    yield from row("huge", 413, 506, "9223372036854775807")
    defer = ("Upload-Defer-Length", "1")
    yield _post("length", "now and later", 400, 510, LENGTH, defer, *metadata())
    for value in ("0", "", "2", "true", "1, 1"):
        late = ("Upload-Defer-Length", value)
        yield _post("length", f"later, {value!r}", 400, 510, late, *metadata())


def _metadata() -> Iterator[Row]:
    def row(name: str, code: int, *fields: tuple[str, str], status: int = 400) -> Row:
        return _post("metadata", name, status, code, LENGTH, *fields)

    def raw(value: str) -> tuple[str, str]:
        return ("Upload-Metadata", value)

    yield row("none", 503)
    yield row("no Base64", 510, raw("filename new.wav"))
    yield row("Base64 for URLs", 510, raw(f"filename {encoded('new.wav')},directory _-_-"))
    yield row("half of Base64", 510, raw("filename bmV3Lnd"))
    yield row("noise", 510, raw("filename \xff\xfe"))
    yield row("a key that is noise", 510, raw(f"\xff {encoded('new.wav')}"))
    yield row("a value in two pieces", 510, raw(f"filename {encoded('new.wav')} {encoded('x')},,"))
    yield row("a key twice", 510, raw(f"filename {encoded('a.wav')},filename {encoded('b.wav')}"))
    yield row("a key twice, in two lines", 510, *metadata(), *metadata())
    yield row("no directory", 503, *metadata(directory=""))
    yield row("no filename", 503, *metadata(filename=""))
    for name, filename in {
        "a parent": "..",
        "a path": "../../new.wav",
        "a path that is absolute": "/etc/new.wav",
        "a backslash": "..\\new.wav",
        "a hidden name": ".new.wav",
        "NUL": "new\0.wav",
        "a line break": "new\r\n.wav",
        "300 bytes": "x" * 300 + ".wav",
        "another direction": "new\u202e.wav",
    }.items():
        yield row(f"a filename that is {name}", 505, *metadata(filename=filename))
    yield row("a filename that is no UTF-8", 505, *metadata(filename=b"\xff.wav"))
    for directory in ("..", "/etc", "a/../../b", ".twistedmedia/uploads", "a//b", "a\0b"):
        yield row(f"the directory {directory!r}", 505, *metadata(directory=directory))
    yield row("a digest that is none", 510, raw(f"{metadata()[0][1]},sha256 {encoded('x' * 64)}"))
    yield row("a format that is not stored", 504, *metadata("new.exe"), status=415)


def _checksums() -> Iterator[Row]:
    def row(name: str, status: int, code: int, *values: str, content: bytes = REST) -> Row:
        checksums = [("Upload-Checksum", value) for value in values]
        return _patch("checksum", name, status, code, PART, OFFSET, *checksums, content=content)

    yield row("of other content", 460, 508, sha1(b" wOrld"))
    yield row("of the whole", 460, 508, sha1(WHOLE))
    yield row("of no content", 460, 508, sha1(b""))
    yield row("of more than came", 460, 508, sha1(REST), content=REST[:3])
    yield row("for no content", 460, 508, sha1(REST), content=b"")
    yield row("of another algorithm", 400, 400, f"md5 {encoded(b'x' * 16)}")
    yield row("in capitals", 400, 400, sha1(REST).replace("sha1", "SHA1"))
    yield row("empty", 400, 400, "")
    yield row("without a digest", 400, 510, "sha1")
    yield row("that is no Base64", 400, 510, f"sha1 {hashlib.sha1(REST).hexdigest()}")
    yield row("that is too short", 400, 510, f"sha256 {encoded(b'x' * 20)}")
    yield row("twice", 400, 510, sha1(REST), sha1(REST))
    yield row("noise", 400, 400, "\xff\xfe")


def _contents() -> Iterator[Row]:
    group = "content"
    yield _patch(group, "of no type", 415, 415, OFFSET)
    for kind in (
        "application/octet-stream",
        "audio/wav",
        "multipart/form-data; boundary=x",
        "\xff",
    ):
        yield _patch(group, f"of the type {kind!r}", 415, 415, OFFSET, ("Content-Type", kind))
    yield _patch(group, "that is too long", 413, 506, PART, OFFSET, content=REST + b"!")
    chunks = ("Transfer-Encoding", "chunked")
    too_long = chunked([REST, b"!"])
    yield _patch(
        group, "that is too long, chunked", 413, 506, PART, OFFSET, chunks, content=too_long
    )
    no_chunks = b"xyz\r\n world\r\n0\r\n\r\n"
    yield _patch(group, "that is no chunks", 400, 510, PART, OFFSET, chunks, content=no_chunks)


def _targets() -> Iterator[Row]:
    for name, target in {
        "that never was": "/uploads/" + "0" * 32,
        "in capitals": "/uploads/" + "A" * 32,
        "with a slash": "{upload}/",
        "with another one below": "{upload}/" + "0" * 32,
        "without an id": "/uploads/",
        "of NUL": "/uploads/%00",
        "that is a parent": "/uploads/..%2Fuploads",
        "that is a path": "/uploads/..%2F..%2Fhostile%2Fvictim",
        "that is 10,000 bytes": "/uploads/" + "a" * 10_000,
    }.items():
        group = "an upload"
        yield _patch(group, f"{name}, PATCH", 404, 404, PART, OFFSET, target=target)
        yield Row(group, f"{name}, DELETE", "DELETE", target, (TUS,), b"", 404, 404)
    for method in ("PUT", "X-HTTP-Method-Override: OPTIONS", "X-HTTP-Method-Override: patch"):
        plain = "POST" if ":" in method else method
        override = (("X-HTTP-Method-Override", method.partition(": ")[2]),) if ":" in method else ()
        status = 400 if override else 405
        headers = (TUS, PART, OFFSET, *override)
        yield Row("method", method, plain, "{upload}", headers, REST, status, status)


ROWS = list(_rows())

"""A fake service for tests: it stores media in memory, supports resumable uploads, and does planned
misdeeds in response to single requests.

It listens on a real socket. It keeps the bytes of a PATCH as they arrive, like the real service.
"""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.web.http import _ChunkedTransferDecoder

from twistedmedia.http.header_fields import declared_sha256, repr_digest

Headers = dict[str, str]


@dataclass(frozen=True)
class Misdeed:
    """A misdeed in response to one request.

    `cut_at`: abort the connection after this many bytes of content. `answer`: send this response
    and do nothing; with `early`, before the content has arrived. `is_lost`: do everything, then
    abort the connection instead of responding. `hangs`: do not respond. `short_at`: close the
    connection after this many bytes of the response's content; with `without_length`, after all of
    it. `stays_at`: stop sending after this many bytes. `more`: change these headers. `raw`: send
    these bytes instead of a response, then close. `is_deaf`: do not read content.
    """

    cut_at: int | None = None
    answer: Answer | None = None
    early: bool = False
    is_lost: bool = False
    hangs: bool = False
    short_at: int | None = None
    more: Headers = field(default_factory=dict)
    without_length: bool = False
    stays_at: int | None = None
    raw: bytes | None = None
    is_deaf: bool = False


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Headers = field(default_factory=dict)
    content: bytes = b""


def told(status: int, code: int, reason: str = "because", **headers: str) -> Answer:
    """A refusal in the format of the service."""
    content = json.dumps({"code": code, "reason": reason}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, content)


@dataclass
class Upload:
    name: str
    length: int
    sha256: str | None
    content: bytearray = field(default_factory=bytearray)
    is_published: bool = False


@dataclass
class Heard:
    method: str
    target: str
    headers: Headers
    content: bytearray = field(default_factory=bytearray)

    @property
    def is_whole(self) -> bool:
        """Whether as many bytes have arrived as `Content-Length` says."""
        return len(self.content) == int(self.headers.get("content-length", "0"))


class Fake(Factory):
    """`media` has the contents by name; `heard` has the received requests in order."""

    noisy = False

    def __init__(self) -> None:
        self.media: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.uploads: dict[str, Upload] = {}
        self.heard: list[Heard] = []
        self.connections: set[_Connection] = set()
        self.page_limit = 2
        self.has_uploads = True
        self.formats: set[str] | None = None  # the accepted formats; None accepts all
        self.storage = "ok"
        # The number of entries that are not media, by directory. Such a directory exists.
        self.left_out: dict[str, int] = {}
        self.knows_digests = True
        self.hold_at: int | None = None  # stop reading a PATCH after this many bytes
        self.held: Deferred[None] = Deferred()
        self._misdeeds: list[tuple[str, Misdeed]] = []
        self._count = 0
        self._port: Any = None

    def next(self, method: str, **misdeed: Any) -> None:
        """Plan a misdeed for the next request of that method without a plan."""
        self._misdeeds.append((method, Misdeed(**misdeed)))

    def misdeed(self, method: str) -> Misdeed:
        for each in self._misdeeds:
            if each[0] == method:
                self._misdeeds.remove(each)
                return each[1]
        return Misdeed()

    @property
    def did_all(self) -> bool:
        """Whether all planned misdeeds have happened."""
        return not self._misdeeds

    @property
    def port(self) -> int:
        port: int = self._port.getHost().port
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, method: str) -> list[Heard]:
        return [each for each in self.heard if each.method == method]

    def put(self, name: str, content: bytes) -> str:
        """Store a file. Returns its entity tag."""
        self._count += 1
        self.media[name] = content
        self.etags[name] = f'"v{self._count}"'
        return self.etags[name]

    @asynccontextmanager
    async def listening(self, interface: str = "127.0.0.1", tls: Any = None) -> Any:
        factory: Any = self
        if tls is None:
            self._port = reactor.listenTCP(0, factory, interface=interface)
        else:
            self._port = reactor.listenSSL(0, factory, tls, interface=interface)
        try:
            yield self
        finally:
            await self.silence()
            for connection in list(self.connections):
                connection.transport.abortConnection()
                await connection.lost

    async def silence(self) -> None:
        """Stop accepting connections."""
        if self._port.connected:
            await self._port.stopListening()

    def buildProtocol(self, addr: Any) -> Protocol:
        return _Connection(self)

    # Responses.

    def answer(self, request: Heard) -> Answer:
        path = urlsplit(request.target).path
        if path.startswith("/uploads/"):
            return self._of_uploads(request, path.removeprefix("/uploads/"))
        if path == "/media" and request.method == "POST":
            return self._import(request)
        if path == "/health":
            health = {"version": "1.2", "uptime": 200.5, "uploads": 3, "free": 2048}
            answer = {"code": 200, "reason": "OK", "storage": self.storage, **health}
            return Answer(200, {}, json.dumps(answer).encode())
        if path == "/fetch":
            return self._fetch(request)
        name = "/".join(unquote(part) for part in path.removeprefix("/media/").split("/"))
        if name.endswith("/") or not name:
            return self._list(request, name)
        answer: Any = getattr(self, f"_{request.method.lower()}")(request, name)
        assert isinstance(answer, Answer)
        return answer

    def _takes(self, name: str) -> bool:
        return self.formats is None or name.rpartition(".")[2].lower() in self.formats

    def _put(self, request: Heard, name: str) -> Answer:
        content = bytes(request.content)
        sha256 = hashlib.sha256(content).hexdigest()
        if not self._takes(name):
            return told(415, 504, "the format is not supported; supported are: some")
        declared = declared_sha256(request.headers.get("content-digest"))
        wanted = request.headers.get("if-match")
        if wanted is not None and wanted not in ("*", self.etags.get(name)):
            return told(412, 412)
        extra: dict[str, Any] = {}
        if name in self.media and wanted is None:
            if hashlib.sha256(self.media[name]).hexdigest() != declared:
                return told(409, 501, "the file exists already")
            extra["identical"] = True
        if declared not in (None, sha256):
            return told(400, 508)
        if wanted is not None:
            extra["replaced"] = True
        if "identical" not in extra:
            self.put(name, content)
        return self._stored(name, **extra)

    def _stored(self, name: str, **extra: Any) -> Answer:
        directory, _, filename = name.rpartition("/")
        entry = {
            "code": 200,
            "reason": "OK",
            "directory": directory,
            "filename": filename,
            "url": f"/media/{quote(name)}",
            "size": len(self.media[name]),
            "sha256": hashlib.sha256(self.media[name]).hexdigest(),
            "etag": self.etags[name],
            **extra,
        }
        answer = {"code": 200, "reason": "OK", "files": [entry]}
        return Answer(200 if extra else 201, {}, json.dumps(answer).encode())

    def _head(self, request: Heard, name: str) -> Answer:
        return self._get(request, name)

    def _get(self, request: Heard, name: str) -> Answer:
        if name not in self.media:
            if any(each.startswith(f"{name}/") for each in self.media):
                return Answer(307, {"Location": f"./{quote(name.rpartition('/')[2])}/"})
            return told(404, 404, "there is no such media")
        content, etag = self.media[name], self.etags[name]
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        headers["Last-Modified"] = "Tue, 24 Nov 2026 09:30:00 GMT"
        if self.knows_digests or "want-repr-digest" in request.headers:
            headers["Repr-Digest"] = repr_digest(hashlib.sha256(content).hexdigest())
        wanted = request.headers.get("range")
        if wanted is None or request.headers.get("if-range", etag) != etag:
            return Answer(200, headers, content)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            return Answer(416, {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return Answer(206, headers, content[start:])

    def _delete(self, request: Heard, name: str) -> Answer:
        wanted = request.headers.get("if-match")
        if wanted is not None and wanted != self.etags.get(name):
            return told(412, 412)
        deleted = self.media.pop(name, None) is not None
        self.etags.pop(name, None)
        answer = {"code": 200, "reason": "OK", "deleted": deleted}
        return Answer(200, {}, json.dumps(answer).encode())

    def _list(self, request: Heard, directory: str) -> Answer:
        after = parse_qs(urlsplit(request.target).query).get("after", [""])[0]
        below = sorted(
            name.removeprefix(directory) for name in self.media if name.startswith(directory)
        )
        bare = directory.removesuffix("/")
        left_out = self.left_out.get(bare, 0)
        if directory and not below and bare not in self.left_out:
            return told(404, 404, "there is no such directory")
        names = sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in below})
        rest = [name for name in names if name.rstrip("/") > after.rstrip("/")]
        entries: list[dict[str, Any]] = []
        for name in rest[: self.page_limit]:
            entry: dict[str, Any] = {"name": name, "url": ""}
            if not name.endswith("/"):
                entry["size"] = len(self.media[directory + name])
                entry["modified"] = "2026-11-24T09:30:00.125Z"
                entry["etag"] = self.etags[directory + name]
            entries.append(entry)
        following = rest[self.page_limit - 1] if len(rest) > self.page_limit else None
        answer = {"code": 200, "reason": "OK", "directory": directory, "entries": entries}
        answer |= {"next": following, "left_out": 0 if following else left_out}
        return Answer(200, {}, json.dumps(answer).encode())

    def _import(self, request: Heard) -> Answer:
        fields = {key: value[0] for key, value in parse_qs(request.content.decode()).items()}
        filename = fields.get("filename") or fields["url"].rpartition("/")[2]
        name = f"{fields['directory']}/{filename}"
        if name in self.media:
            return told(409, 501, "the file exists already")
        self.put(name, fields["url"].encode())
        return self._stored(name)

    def _fetch(self, request: Heard) -> Answer:
        url = parse_qs(urlsplit(request.target).query)["url"][0]
        timings = {"lookup": None, "first_byte": 0.5, "total": 1.25}
        answer = {"code": 200, "reason": "OK", "url": url, "status": 404, "size": 5120}
        answer |= {"time_cost": 1.25, "timings": timings, "cache": "miss"}
        return Answer(200, {}, json.dumps(answer).encode())

    def _of_uploads(self, request: Heard, number: str) -> Answer:
        assert request.headers["tus-resumable"] == "1.0.0"
        if not self.has_uploads:
            return told(404, 404, "nothing is here")
        if request.method == "POST":
            return self._create(request)
        upload = self.uploads.get(number)
        if upload is None:
            return told(404, 404)
        offset, length = len(upload.content), upload.length
        if request.method == "HEAD":
            headers = {"Upload-Offset": str(offset), "Upload-Length": str(length)}
            if upload.is_published:
                headers["Content-Location"] = f"/media/{quote(upload.name)}"
            return Answer(200, headers)
        assert request.method == "PATCH"
        assert request.headers["content-type"] == "application/offset+octet-stream"
        if int(request.headers["upload-offset"]) + len(request.content) != offset:
            return told(409, 409, "the offset is another one")
        headers = {"Upload-Offset": str(offset)}
        if offset == length:
            del self.uploads[number]
            content = bytes(upload.content)
            if upload.name in self.media:
                return told(410, 501, "the file exists already")
            if upload.sha256 not in (None, hashlib.sha256(content).hexdigest()):
                return told(400, 508)
            upload.is_published = True
            self.uploads[number] = upload
            self.put(upload.name, content)
            headers["Content-Location"] = f"/media/{quote(upload.name)}"
        return Answer(204, headers)

    def _create(self, request: Heard) -> Answer:
        metadata = {}
        for pair in request.headers["upload-metadata"].split(","):
            key, value = pair.split(" ")
            metadata[key] = base64.b64decode(value).decode()
        length = int(request.headers["upload-length"])
        name, sha256 = f"{metadata['directory']}/{metadata['filename']}", metadata.get("sha256")
        if not self._takes(name):
            return told(415, 504, "the format is not supported; supported are: some")
        self._count += 1
        number = f"u{self._count}"
        headers = {"Location": f"/uploads/{number}"}
        if name in self.media:
            if hashlib.sha256(self.media[name]).hexdigest() != sha256:
                return told(409, 501, "the file exists already")
            headers["Upload-Offset"] = str(length)
        self.uploads[number] = Upload(name, length, sha256)
        return Answer(201, headers)

    def keep(self, request: Heard, piece: bytes) -> None:
        """Keep some bytes of the content of `request`."""
        if request.method == "PATCH":
            upload = self.uploads.get(request.target.rpartition("/")[2])
            expected = int(request.headers["upload-offset"]) + len(request.content)
            if upload is not None and len(upload.content) == expected:
                upload.content += piece
        request.content += piece


class _Connection(Protocol):
    transport: Any

    def __init__(self, fake: Fake) -> None:
        self._fake = fake
        self._buffer = bytearray()
        self._request: Heard | None = None
        self._misdeed = Misdeed()
        self._left = 0
        self._chunks: Any = None
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self._fake.connections.add(self)

    def connectionLost(self, reason: Any = None) -> None:
        self._fake.connections.discard(self)
        self.lost.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        if self._request is None:
            head, separator, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not separator:
                return
            self._begin(head.decode("latin-1").split("\r\n"))
            self._buffer = bytearray(rest)
        self._go_on()

    def _begin(self, lines: list[str]) -> None:
        method, target, _ = lines[0].split(" ")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            assert name.lower() not in headers, f"two headers {name}"
            headers[name.lower()] = value.strip()
        self._request = Heard(method, target, headers)
        self._fake.heard.append(self._request)
        self._misdeed = self._fake.misdeed(method)
        self._left = int(headers.get("content-length", "0"))
        if headers.get("transfer-encoding") == "chunked":
            self._left = 1  # until the last chunk
            self._chunks = _ChunkedTransferDecoder(self._keep, self._last)
        if self._misdeed.is_deaf:
            self.transport.pauseProducing()
        if self._misdeed.early:
            assert self._misdeed.answer is not None
            self._send(self._misdeed.answer)

    def _go_on(self) -> None:
        request, misdeed = self._request, self._misdeed
        assert request is not None
        if self._chunks is not None and self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            self._chunks.dataReceived(data)
        piece, rest = bytes(self._buffer[: self._left]), bytes(self._buffer[self._left :])
        if misdeed.cut_at is not None:
            piece = piece[: misdeed.cut_at - len(request.content)]
        self._buffer.clear()
        if misdeed.answer is None:
            self._fake.keep(request, piece)
        self._left -= len(piece)
        if misdeed.cut_at is not None and len(request.content) >= misdeed.cut_at:
            self.transport.abortConnection()
            return
        hold_at = self._fake.hold_at
        if hold_at is not None and request.method == "PATCH" and len(request.content) >= hold_at:
            self._fake.hold_at = None
            self.transport.pauseProducing()
            self._fake.held.callback(None)
            return
        if self._left == 0 and misdeed.early:
            self._request = None
            if rest:  # the client may send its next request after an early response
                self.dataReceived(rest)
        elif self._left == 0 and not misdeed.hangs:
            answer = misdeed.answer or self._fake.answer(request)
            if misdeed.is_lost:
                self.transport.abortConnection()
            else:
                self._send(answer)
                self._request = None

    def _keep(self, piece: bytes) -> None:
        assert self._request is not None
        if self._misdeed.answer is None:
            self._fake.keep(self._request, piece)

    def _last(self, rest: bytes) -> None:
        self._chunks, self._left = None, 0

    def _send(self, answer: Answer) -> None:
        assert self._request is not None
        if self._misdeed.raw is not None:
            self.transport.write(self._misdeed.raw)
            self.transport.loseConnection()
            return
        headers = {"Content-Length": str(len(answer.content)), **answer.headers}
        headers.update(self._misdeed.more)
        if answer.status == 204 or self._misdeed.without_length:
            del headers["Content-Length"]
        head = f"HTTP/1.1 {answer.status} Said So\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items()
        )
        content = b"" if self._request.method == "HEAD" else answer.content
        short_at, stays_at = self._misdeed.short_at, self._misdeed.stays_at
        end = short_at if stays_at is None else stays_at
        self.transport.write(head.encode("latin-1") + b"\r\n" + content[:end])
        if short_at is not None or self._misdeed.without_length:
            self.transport.loseConnection()

"""HTTP over a blocking socket, with nothing between a test and the bytes."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote_from_bytes

BOUNDARY = "a-line-between-the-parts"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
URLENCODED = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Message
    content: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object that the content is."""
        value = json.loads(self.content)
        assert isinstance(value, dict), self.content
        return value

    @property
    def code(self) -> int:
        return int(self.json["code"])

    @property
    def brief(self) -> tuple[int, int]:
        """Status and code of an answer in JSON, whose form is as the contract says."""
        code, reason = self.json["code"], self.json["reason"]
        assert isinstance(code, int), self
        assert isinstance(reason, str), self
        assert (code == 200) == (reason == "OK"), self
        assert reason, self
        assert self.headers["Content-Type"] == "application/json", self
        assert self.headers["Content-Length"] == str(len(self.content)), self
        assert self.headers["X-Content-Type-Options"] == "nosniff", self
        expected = "no-store" if self.status >= 400 else None
        assert self.headers["Cache-Control"] == expected, self
        return self.status, code

    @property
    def files(self) -> list[dict[str, Any]]:
        """The entries of an upload's answer."""
        files = self.json["files"]
        assert isinstance(files, list), self
        return files


class Connection:
    """A client's end of one connection."""

    def __init__(self, to: int | socket.socket, timeout_s: float = 20.0) -> None:
        """`to` is a port, or a socket that is connected."""
        if isinstance(to, int):
            to = socket.create_connection(("127.0.0.1", to), timeout_s)
        self.socket = to
        self._incoming = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(
        self,
        method: str,
        target: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, and its answer."""
        self.send(request(method, target, content, headers))
        return self.answer(method)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer that is final. It has to be whole: without a length it ends with the
        connection, as in HTTP/1.0.
        """
        while True:
            status, headers = self.answer_head()
            if status >= 200:
                break
        if method == "HEAD" or status in (204, 304):  # RFC 9112, 6.3: no content, whatever they say
            return Answer(status, headers, b"")
        length = headers["Content-Length"]
        content = self._incoming.read(-1 if length is None else int(length))
        assert length is None or len(content) == int(length), "the answer was cut off"
        return Answer(status, headers, content)

    def answer_head(self) -> tuple[int, Message]:
        """The status and the headers of the next answer, final or not."""
        line = self._incoming.readline()
        if not line:
            raise ConnectionResetError("the connection was closed without an answer")
        version, status, _ = line.split(b" ", 2)
        assert version in (b"HTTP/1.1", b"HTTP/1.0"), line
        return int(status), http.client.parse_headers(self._incoming)

    def read(self, size: int) -> bytes:
        """That many bytes, or those until the end."""
        return self._incoming.read(size)

    def read_to_the_end(self) -> bytes:
        """What comes until the connection ends, in good order or not."""
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while piece := self._incoming.read1(1 << 20):
                received += piece
        return bytes(received)

    def is_ended(self) -> bool:
        """Whether nothing but the end of the connection comes from the service. Waits for one."""
        return self.read_to_the_end() == b""

    def reset(self) -> None:
        """Go away as a crashed client does, with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._incoming.close()
        self.socket.close()


def head(method: str, target: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """The head of a request; `target` and the headers go out as they are, in Latin-1."""
    fields = list(headers)
    if not any(name.lower() == "host" for name, _ in fields):
        fields.insert(0, ("Host", "127.0.0.1"))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def request(
    method: str,
    target: str,
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A request with its Content-Length, if it has `content`."""
    fields = dict(headers or {})
    if content is not None:
        fields.setdefault("Content-Length", str(len(content)))
    return head(method, target, fields.items()) + (content or b"")


def chunked(pieces: Iterable[bytes]) -> bytes:
    """`pieces` in the chunked coding (RFC 9112, 7.1), with the last chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def part(
    name: str | bytes, filename: str | bytes | None, content: bytes, headers: str = ""
) -> bytes:
    """A part of a multipart form as a browser sends it (WHATWG HTML: quotes and line breaks in
    names are escaped, nothing else is). `headers` are more lines.
    """
    line = b'Content-Disposition: form-data; name="%b"' % _escaped(name)
    if filename is not None:
        line += b'; filename="%b"' % _escaped(filename)
    more = headers.encode() + b"\r\n" if headers else b""
    return b"--%b\r\n%b\r\n%b\r\n%b\r\n" % (BOUNDARY.encode(), line, more, content)


CLOSING = f"--{BOUNDARY}--\r\n".encode()


def form(*parts: bytes) -> bytes:
    """A multipart form of these parts."""
    return b"".join(parts) + CLOSING


def urlencoded(*fields: tuple[str, str | bytes]) -> bytes:
    """An urlencoded form (WHATWG URL, 5.2), with every byte escaped that may be."""
    return "&".join(
        f"{name}={quote_from_bytes(_bytes(value), safe='')}" for name, value in fields
    ).encode()


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def _escaped(name: str | bytes) -> bytes:
    escapes = {b'"': b"%22", b"\r": b"%0D", b"\n": b"%0A"}
    raw = _bytes(name)
    for character, escape in escapes.items():
        raw = raw.replace(character, escape)
    return raw

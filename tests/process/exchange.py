"""HTTP over a blocking socket, without any library between the test and the bytes."""

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
    """A response."""

    status: int
    headers: Message
    content: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The content, which must be a JSON object."""
        value = json.loads(self.content)
        assert isinstance(value, dict), self.content
        return value

    @property
    def code(self) -> int:
        return int(self.json["code"])

    @property
    def brief(self) -> tuple[int, int]:
        """Status and code of a JSON response, whose form is checked."""
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
        """The entries of the response to an upload."""
        files = self.json["files"]
        assert isinstance(files, list), self
        return files


class Connection:
    """The client's side of a connection."""

    def __init__(self, to: int | socket.socket, timeout_s: float = 20.0) -> None:
        """`to` is a port, or a connected socket."""
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
        """Send a request, and receive its response."""
        self.send(request(method, target, content, headers))
        return self.answer(method)

    def answer(self, method: str = "GET") -> Answer:
        """Receive the next final response, which must be complete. Without a length it ends with
        the connection, as in HTTP/1.0.
        """
        while True:
            status, headers = self.answer_head()
            if status >= 200:
                break
        if method == "HEAD" or status in (204, 304):  # without content (RFC 9112, 6.3)
            return Answer(status, headers, b"")
        length = headers["Content-Length"]
        content = self._incoming.read(-1 if length is None else int(length))
        assert length is None or len(content) == int(length), "the answer was cut off"
        return Answer(status, headers, content)

    def answer_head(self) -> tuple[int, Message]:
        """Receive the status and the headers of the next response, final or not."""
        line = self._incoming.readline()
        if not line:
            raise ConnectionResetError("the connection was closed without an answer")
        version, status, _ = line.split(b" ", 2)
        assert version in (b"HTTP/1.1", b"HTTP/1.0"), line
        return int(status), http.client.parse_headers(self._incoming)

    def read(self, size: int) -> bytes:
        """Read that many bytes, or fewer if the connection ends."""
        return self._incoming.read(size)

    def read_to_the_end(self) -> bytes:
        """Read until the connection ends, by a close or a reset."""
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while piece := self._incoming.read1(1 << 20):
                received += piece
        return bytes(received)

    def is_ended(self) -> bool:
        """Wait for data or the end of the connection. Returns whether it is the end."""
        return self.read_to_the_end() == b""

    def reset(self) -> None:
        """Close with a reset, as a crashed client does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._incoming.close()
        self.socket.close()


def head(method: str, target: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """Make the head of a request. `target` and headers are sent unchanged, in Latin-1."""
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
    """Make a request, with Content-Length if it has `content`."""
    fields = dict(headers or {})
    if content is not None:
        fields.setdefault("Content-Length", str(len(content)))
    return head(method, target, fields.items()) + (content or b"")


def chunked(pieces: Iterable[bytes]) -> bytes:
    """Encode `pieces` in the chunked coding (RFC 9112, 7.1), with the last chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def part(
    name: str | bytes, filename: str | bytes | None, content: bytes, headers: str = ""
) -> bytes:
    """Make a part of a multipart form as browsers send it (WHATWG HTML: only quotes and line breaks
    in names are escaped). `headers` are more lines.
    """
    line = b'Content-Disposition: form-data; name="%b"' % _escaped(name)
    if filename is not None:
        line += b'; filename="%b"' % _escaped(filename)
    more = headers.encode() + b"\r\n" if headers else b""
    return b"--%b\r\n%b\r\n%b\r\n%b\r\n" % (BOUNDARY.encode(), line, more, content)


CLOSING = f"--{BOUNDARY}--\r\n".encode()


def form(*parts: bytes) -> bytes:
    """Make a multipart form of these parts."""
    return b"".join(parts) + CLOSING


def urlencoded(*fields: tuple[str, str | bytes]) -> bytes:
    """Make an urlencoded form (WHATWG URL, 5.2), with as many bytes escaped as possible."""
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

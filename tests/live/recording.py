"""What programs ask of a service, and what they are answered: written down between the two."""

from __future__ import annotations

import http.client
import io
import socket
import socketserver
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from email.message import Message
from typing import cast

from tests.live.between import Between

_PIECE_BYTES = 64 << 10


@dataclass
class Exchange:
    """A request and its answer, of whose content `passed` bytes went to the client."""

    method: str
    target: str
    asked: Message
    status: int
    told: Message
    passed: int = 0

    @property
    def start(self) -> int:
        """Where the part begins that is asked for."""
        unit, _, span = (self.asked["Range"] or "bytes=0-").partition("=")
        assert unit == "bytes"
        return int(span.partition("-")[0])

    @property
    def brief(self) -> tuple[str | None, int]:
        """The Range, and the status."""
        return self.asked["Range"], self.status


class Recorder(Between):
    """A server on `port` that passes requests without a content on to another. It cuts a connection
    off once as many bytes of a content as `cut_at` says have passed; that happens once.
    """

    cut_at: int | None = None

    def __init__(self, upstream: int, pages: Mapping[str, str | tuple[str, str]]) -> None:
        """`pages` are HTML, or a media type and a text, by their targets, and not passed on."""
        super().__init__(_Passing, upstream)
        self.pages = pages
        self.exchanges: list[Exchange] = []


class _Passing(socketserver.StreamRequestHandler):
    """One connection of a client."""

    rbufsize = -1

    def handle(self) -> None:
        server = cast(Recorder, self.server)
        # What passes is what the client takes, not what lies in a buffer on its way.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE_BYTES)
        with socket.create_connection(("127.0.0.1", server.upstream)) as upstream:
            server.keep(self.connection, upstream)
            try:
                with upstream.makefile("rb") as answers:
                    while self._pass_one(server, upstream, answers):
                        pass
            except ConnectionError:  # one of the two has gone, as players do when they seek
                pass
            except Exception as fault:  # noqa: BLE001  # the test is told at its end
                server.faults.append(fault)
            finally:
                server.forget(self.connection, upstream)

    def _pass_one(
        self, server: Recorder, upstream: socket.socket, answers: io.BufferedReader
    ) -> bool:
        """Whether another may follow."""
        request = _head(cast(io.BufferedReader, self.rfile))
        if not request:
            return False
        line, _, fields = request.partition(b"\r\n")
        method, target, _ = line.decode("latin-1").split(" ")
        asked = http.client.parse_headers(io.BytesIO(fields))
        if target in server.pages:
            page = server.pages[target]
            media_type, text = ("text/html", page) if isinstance(page, str) else page
            content = text.encode()
            kind = f"Content-Type: {media_type}; charset=utf-8".encode()
            head = b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: %d\r\n\r\n" % (kind, len(content))
            self.wfile.write(head + content)
            return True
        upstream.sendall(request)
        answer = _head(answers)
        line, _, fields = answer.partition(b"\r\n")
        told = http.client.parse_headers(io.BytesIO(fields))
        exchange = Exchange(method, target, asked, int(line.split()[1]), told)
        server.exchanges.append(exchange)
        self.wfile.write(answer)
        empty = method == "HEAD" or exchange.status == 304
        left = 0 if empty else int(told["Content-Length"])
        while left:
            piece = answers.read1(min(left, _PIECE_BYTES))
            if not piece:
                return False
            if server.cut_at is not None and exchange.passed + len(piece) > server.cut_at:
                self.wfile.write(piece[: server.cut_at - exchange.passed])
                exchange.passed, server.cut_at = server.cut_at, None
                return False
            self.wfile.write(piece)
            exchange.passed += len(piece)
            left -= len(piece)
        return "close" not in (told["Connection"] or "")


def _head(source: io.BufferedReader) -> bytes:
    """The head of a message, with its empty line; nothing when the connection has ended."""
    lines = []
    while (line := source.readline()) not in (b"\r\n", b""):
        lines.append(line)
    return b"".join([*lines, line]) if line else b""


def recording(
    upstream: int, pages: Mapping[str, str | tuple[str, str]] | None = None
) -> AbstractContextManager[Recorder]:
    """A recorder before the server on the port `upstream`, ended with the context."""
    return Recorder(upstream, pages or {}).serving()

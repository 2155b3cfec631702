"""A malicious server, which sends any bytes, as many as the client accepts.

It listens on a real socket.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import repeat
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from twistedmedia.client import ClientTimeouts, MediaClient, Retries

# Called with the method and target of a request, and the number of earlier requests.
Answering = Callable[[str, str, int], Iterable[bytes]]
ETAG = b'ETag: "x"\r\n'


class Hostile(Factory):
    """Sends the pieces that `answering` returns for a request, no faster than the client reads.
    After the last piece the connection stays open, unless `closes`.
    """

    noisy = False

    def __init__(self, answering: Answering, *, closes: bool = False) -> None:
        self.answering = answering
        self.closes = closes
        self.asked: list[str] = []
        self.sent_bytes = 0
        self.connections: set[_Connection] = set()

    def buildProtocol(self, addr: Any) -> Protocol:
        return _Connection(self)


@implementer(IPullProducer)
class _Connection(Protocol):
    transport: Any

    def __init__(self, server: Hostile) -> None:
        self._server = server
        self._received = b""
        self._pieces: Iterator[bytes] = iter(())
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self._server.connections.add(self)

    def connectionLost(self, reason: Any = None) -> None:
        self._server.connections.discard(self)
        self.lost.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if separator:
            self._received = rest
            method, target, _ = head.decode("latin-1").split("\r\n")[0].split(" ")
            server = self._server
            self._pieces = iter(server.answering(method, target, len(server.asked)))
            server.asked.append(target)
            self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        piece = next(self._pieces, None)
        if piece is not None:
            self._server.sent_bytes += len(piece)
            self.transport.write(piece)
            return
        self.transport.unregisterProducer()
        if self._server.closes:
            self.transport.loseConnection()

    def stopProducing(self) -> None:
        self._pieces = iter(())


@asynccontextmanager
async def facing(
    answering: Answering, *, closes: bool = False, **options: Any
) -> AsyncIterator[tuple[Hostile, MediaClient]]:
    """A hostile server, and a client of it, by default without retries."""
    server = Hostile(answering, closes=closes)
    port: Any = reactor.listenTCP(0, server, interface="127.0.0.1")
    options.setdefault("retries", Retries(times=0))
    options.setdefault("timeouts", ClientTimeouts(stall_s=5, response_s=5))
    client = MediaClient(reactor, f"http://127.0.0.1:{port.getHost().port}", **options)
    try:
        yield server, client
    finally:
        await client.close()
        await port.stopListening()
        for connection in list(server.connections):
            connection.transport.abortConnection()
            await connection.lost


def head(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def whole(content: bytes) -> list[bytes]:
    return [head(b"Content-Length: %d" % len(content)), content]


def page(names: Iterable[str], following: str | None) -> list[bytes]:
    """A page of a listing. A name that ends with a slash is a directory."""
    file = {"size": 1, "modified": "", "etag": '"x"'}
    entries = [{"name": name, **({} if name.endswith("/") else file)} for name in names]
    return whole(json.dumps({"entries": entries, "next": following}).encode())


def without_end(first: bytes, piece: bytes, most_bytes: int = 1 << 30) -> Iterator[bytes]:
    """`first`, then `piece` repeatedly. It ends at `most_bytes`, so that a client without limits
    does not fill the disk.
    """
    yield first
    yield from repeat(piece, most_bytes // len(piece))


def chunk(content: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(content), extension, content)

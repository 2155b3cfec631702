"""A TCP connection in memory between a Site that runs on a Clock and a client that a test plays,
and resources for the Site to serve.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ISystemHandle, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from twistedmedia.errors import MediaError
from twistedmedia.http.body import IStreamsBody

T = TypeVar("T")
RECEIVE_BYTES = 1 << 16  # what Twisted's own transports receive at once
PEER = IPv4Address("TCP", "192.0.2.1", 54321)
HERE = IPv4Address("TCP", "192.0.2.2", 80)
DESCRIPTOR = 5  # of a socket; nothing is read from it or written to it
NO_ADDRESS = UNIXAddress(None)  # the peer of a UNIX socket


def outcome(deferred: Deferred[T]) -> list[T | Failure]:
    """The result of `deferred`, as soon as there is one; a failure counts as handled."""
    outcomes: list[T | Failure] = []
    deferred.addBoth(outcomes.append)
    return outcomes


def result(deferred: Deferred[T]) -> T:
    """The result of `deferred`; its failure is raised."""
    outcomes = outcome(deferred)
    assert outcomes, "it is still waiting"
    if isinstance(outcomes[0], Failure):
        raise outcomes[0].value
    return outcomes[0]


@dataclass(frozen=True)
class Answer:
    """One response, the names of its headers in lower case."""

    status: int
    headers: dict[str, str]
    content: bytes


@implementer(ITCPTransport, IPushProducer, IConsumer)
class Connection:
    """The server's end behaves as Twisted's TCP transport does; the client's end are `send`,
    `take`, `leave` and what is `received`. Each turn of the loop moves one piece either way.
    """

    def __init__(
        self,
        site: Any,
        clock: Clock,
        window: int | None = None,
        peer: Any = PEER,
        here: Any = HERE,
    ) -> None:
        """`window` is how many bytes the client takes until `take` allows more; None is no
        limit. `peer` is the client's address, `here` the one that it has connected to.
        """
        self.bufferSize = RECEIVE_BYTES
        self.connected = True
        self.disconnecting = False
        self.reading = True
        self.half_closed = False  # the client has received the end of all data
        self.aborted = False
        self.received = b""
        self._clock = clock
        self._window = window
        self._peer = peer
        self._here = here
        self._incoming = b""
        self._has_sent_all = False
        self._outgoing = b""
        self._half_closing = False
        self._producer: Any = None
        self._streaming = False
        self._producer_paused = False
        self._due: set[Callable[[], None]] = set()
        self.channel = site.buildProtocol(peer)
        self.channel.makeConnection(self)

    # The client

    def send(self, data: bytes) -> None:
        """The client sends `data`, and what can happen because of it happens."""
        self._incoming += data
        self._soon(self._do_read)
        self._clock.advance(0)

    def take(self, size: int | None = None) -> None:
        """The client takes `size` bytes more, or all from now on."""
        self._window = None if size is None or self._window is None else self._window + size
        self._soon(self._do_write)
        self._clock.advance(0)

    def half_close(self) -> None:
        """The client closes its sending side, and still reads. Closing both looks the same here."""
        self._has_sent_all = True
        self._soon(self._do_read)
        self._clock.advance(0)

    def leave(self) -> None:
        """The client resets the connection."""
        self._lost(ConnectionLost())
        self._clock.advance(0)

    @property
    def unread(self) -> int:
        """The bytes that the client has sent and that wait outside the process."""
        return len(self._incoming)

    def answers(self) -> list[Answer]:
        """The received responses, each of them complete."""
        found, rest = [], self.received
        while rest:
            answer, rest = _parse(rest)
            found.append(answer)
        return found

    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers()]

    # The server

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if not self.connected or self.half_closed:
            return
        self._outgoing += data
        if self._producer is not None and len(self._outgoing) > self.bufferSize:
            self._producer_paused = True
            self._producer.pauseProducing()
        self._soon(self._do_write)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self.reading = False
            self._soon(self._do_write)

    def loseWriteConnection(self) -> None:
        assert self.connected, "Twisted would wait for a descriptor that is closed"
        self._half_closing = True
        self._soon(self._do_write)

    def abortConnection(self) -> None:
        if self.connected and not self.aborted:
            self.aborted = self.disconnecting = True
            self.reading = False
            self._outgoing = b""
            self._clock.callLater(0, self._lost, ConnectionAborted())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self._producer is None
        self._producer, self._streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer = None
        if self.connected:
            self._soon(self._do_write)

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self.reading = True
            self._soon(self._do_read)

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> Any:
        return self._peer

    def getHost(self) -> Any:
        assert self.connected, "Twisted's transports have no socket any more"
        return self._here

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no delay here."""

    def getTcpKeepAlive(self) -> bool:
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """There is nothing to keep alive here."""

    def _soon(self, step: Callable[[], None]) -> None:
        if step not in self._due:
            self._due.add(step)
            self._clock.callLater(0, self._take_step, step)

    def _take_step(self, step: Callable[[], None]) -> None:
        self._due.discard(step)
        step()

    def _do_read(self) -> None:
        if self.reading and self._incoming:
            piece, self._incoming = (
                self._incoming[: self.bufferSize],
                self._incoming[self.bufferSize :],
            )
            self.channel.dataReceived(piece)
            self._soon(self._do_read)
        elif self.reading and self._has_sent_all:
            self.reading = False
            self.channel.readConnectionLost()

    def _do_write(self) -> None:
        if not self.connected or self.aborted:
            return
        taken = len(self._outgoing) if self._window is None else self._window
        self.received += self._outgoing[:taken]
        if self._window is not None:
            self._window -= len(self._outgoing[:taken])
        self._outgoing = self._outgoing[taken:]
        if self._outgoing:
            return
        if self._producer is not None and (self._producer_paused or not self._streaming):
            self._producer_paused = False
            self._producer.resumeProducing()
        elif self.disconnecting:
            self._lost(ConnectionDone())
        elif self._half_closing:
            self.half_closed = True

    def _lost(self, reason: Exception) -> None:
        if self.connected:
            self.connected = self.reading = False
            producer, self._producer = self._producer, None
            if producer is not None:
                producer.stopProducing()
            self.channel.connectionLost(Failure(reason))


class Socket:
    """The options of a TCP socket, how many bytes its peer has acknowledged, and how many wait."""

    family = socket.AF_INET

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.options: dict[tuple[int, int], int] = {}
        self.acknowledged = 0
        self.unsent = 0

    def fileno(self) -> int:
        return self.descriptor

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options[level, option] = value

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return struct.pack("=120xQ16xI", self.acknowledged, self.unsent)[:size]


@implementer(ISystemHandle)
class SocketConnection(Connection):
    """A connection with a socket, to which the kernel can send by itself."""

    def __init__(
        self,
        site: Any,
        clock: Clock,
        window: int | None = None,
        peer: Any = PEER,
        descriptor: int = DESCRIPTOR,
    ) -> None:
        self.socket = Socket(descriptor)
        self._writing = False
        super().__init__(site, clock, window, peer)

    def getHandle(self) -> Socket:
        assert self.connected, "Twisted's transports have no socket any more"
        self.socket.unsent = int(self._window == 0)  # the last data waits for the client
        return self.socket

    def fileno(self) -> int:
        assert self.connected, "the descriptor may be another's by now"
        return self.socket.descriptor

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket now, as Twisted's transports do. Idempotent."""
        assert reason.value is not None
        self._lost(reason.value)

    def startWriting(self) -> None:
        """Call the producer when the socket takes more."""
        assert self.connected, "the loop would wait for a descriptor that is closed"
        self._writing = True
        self._soon(self._do_write)

    def sendfile(self, data: bytes) -> int:
        """The kernel sends `data`: how much of that the client takes."""
        assert self.connected
        assert not self._outgoing, "it would overtake what was written"
        taken = data if self._window is None else data[: self._window]
        if not taken:
            raise BlockingIOError(errno.EAGAIN, "the client takes no more")
        if self._window is not None:
            self._window -= len(taken)
        self.received += taken
        return len(taken)

    def _do_write(self) -> None:
        if self._outgoing or self.disconnecting or self._half_closing or self._streaming:
            super()._do_write()
        elif self._writing and self._window != 0:
            self._writing = False
            super()._do_write()


@implementer(IStreamsBody)
class Streaming(Resource):
    """Responds with the result of `handler(request)`, or to a `MediaError` with its status. The
    handler is cancelled when the client goes, as Klein does it.
    """

    isLeaf = True

    def __init__(self, handler: Callable[[Any], Awaitable[bytes]]) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self.cancelled = 0
        self._handler = handler

    def render(self, request: Any) -> Any:
        self.requests.append(request)
        handling: Deferred[bytes] = ensureDeferred(self._handler(request))
        request.notifyFinish().addErrback(lambda _: handling.cancel())
        handling.addErrback(self._refuse, request)
        handling.addCallback(self._answer, request)
        return NOT_DONE_YET

    def _answer(self, content: bytes | None, request: Any) -> None:
        if content is not None:
            if not request.startedWriting:
                request.setHeader(b"content-length", b"%d" % len(content))
            request.write(content)
            request.finish()

    def _refuse(self, failure: Failure, request: Any) -> bytes | None:
        if failure.check(CancelledError):
            self.cancelled += 1
            return None
        failure.trap(MediaError)
        request.setResponseCode(failure.value.status)
        return failure.value.reason.encode()


class Plain(Resource):
    """Responds with what stock Twisted has parsed."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        return repr((request.method, request.uri, request.args, request.content.read())).encode()


async def content_of(request: Any) -> bytes:
    """All of a request's content."""
    return b"".join([b"".join(chunks) async for chunks in request.body])


def chunked(content: bytes, size: int) -> bytes:
    """`content` in the chunked coding, in chunks of `size`."""
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def _parse(data: bytes) -> tuple[Answer, bytes]:
    head, separator, rest = data.partition(b"\r\n\r\n")
    assert separator, data
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version == "HTTP/1.1"
    pairs = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in pairs}
    assert len(headers) == len(pairs), "a header came twice"
    size = int(headers.get("content-length", 0))
    assert len(rest) >= size, "an answer is not whole"
    return Answer(int(status), headers, rest[:size]), rest[size:]

"""A network in memory: a reactor whose connections a test accepts and refuses, a resolver with a
table of names, and a Fetcher that uses both.
"""

from __future__ import annotations

import queue
import re
import socket
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import IConnector, IConsumer, IPushProducer, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.http.connection import outcome
from twistedmedia.fairness.loop_queue import LoopQueue
from twistedmedia.fetch.certificates import CertificateVerifier
from twistedmedia.fetch.fetcher import Fetcher, FetchLimits, Response, Upstream
from twistedmedia.fetch.policy import Address, Policy
from twistedmedia.fetch.resolver import Resolver
from twistedmedia.fetch.urls import parse_url
from twistedmedia.http.body import EACH_BYTES, BodyMemory

RECEIVE_BYTES = 1 << 16  # what Twisted's own transports receive at once
PUBLIC = "93.184.215.14"
LIMITS = FetchLimits(total_s=30, head_s=10, max_bytes=8 << 20)
LONG = FetchLimits(total_s=1000, head_s=10)


class Network(Clock):
    """The parts of a reactor that fetches need. A test advances its time."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = 1000.0  # a reactor's clock never says 0
        self.attempts: list[Attempt] = []
        self._from_threads: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Attempt:
        attempt = Attempt(self, host, port, factory, timeout)
        self.attempts.append(attempt)
        factory.doStart()
        factory.startedConnecting(attempt)
        return attempt

    def callFromThread(self, call: Callable[..., object], *args: Any) -> None:
        self._from_threads.put(lambda: call(*args))

    def from_threads(self, calls: int = 1) -> None:
        """Wait for calls from threads, and make them."""
        for _ in range(calls):
            self._from_threads.get(timeout=10)()  # so that a failing test ends

    def turn(self) -> None:
        """Make the calls that are due now."""
        self.advance(0)

    @property
    def connected_to(self) -> list[tuple[str, int]]:
        """All hosts and ports of attempts to connect."""
        return [(attempt.host, attempt.port) for attempt in self.attempts]

    @property
    def pending(self) -> list[Attempt]:
        """The attempts that were neither accepted, refused nor given up."""
        return [attempt for attempt in self.attempts if attempt.pending]

    @property
    def peers(self) -> list[Peer]:
        """The connections that are open."""
        peers = [attempt.peer for attempt in self.attempts if attempt.peer is not None]
        return [peer for peer in peers if peer.connected]


@implementer(IConnector)
class Attempt:
    """An attempt to connect."""

    def __init__(
        self, network: Network, host: str, port: int, factory: Any, timeout_s: float
    ) -> None:
        self.host = host
        self.port = port
        self.pending = True
        self.peer: Peer | None = None
        self._network = network
        self._factory = factory
        self._timeout = network.callLater(timeout_s, self.refuse, TimeoutError())

    def accept(self) -> Peer:
        """Accept it as the peer."""
        self._over()
        self.peer = Peer(self._network, self.host, self.port)
        protocol = self._factory.buildProtocol(self.peer.getPeer())
        self.peer.protocol = protocol
        protocol.makeConnection(self.peer)
        return self.peer

    def refuse(self, error: Exception | None = None) -> None:
        """Let it fail."""
        self._over()
        reason = Failure(error or ConnectionRefusedError())
        self._factory.clientConnectionFailed(self, reason)
        self._factory.doStop()

    def stopConnecting(self) -> None:
        self.refuse(UserError())

    def disconnect(self) -> None:
        self.stopConnecting()

    def connect(self) -> None:
        raise NotImplementedError

    def getDestination(self) -> IPv4Address | IPv6Address:
        kind = IPv6Address if ":" in self.host else IPv4Address
        return kind("TCP", self.host, self.port)

    def _over(self) -> None:
        assert self.pending, "it is accepted, refused or given up already"
        self.pending = False
        if self._timeout.active():
            self._timeout.cancel()


@implementer(ITCPTransport, IPushProducer, IConsumer)
class Peer:
    """A connection. Our end behaves like Twisted's TCP transport; the other end is `received`,
    `send`, `close` and `reset`.
    """

    disconnecting = False
    bufferSize = RECEIVE_BYTES

    def __init__(self, network: Network, host: str, port: int) -> None:
        self.protocol: Any = None
        self.received = b""
        self.connected = True
        self.aborted = False
        self.paused = False
        self._network = network
        self._address = (host, port)
        self._incoming = b""
        self._ending = False
        self._delivering = False

    # The other end.

    def send(self, data: bytes) -> None:
        """Send `data` to us. It waits while our end is paused."""
        assert self.connected, "the connection is gone"
        self._incoming += data
        self._deliver()

    def respond(self, content: bytes = b"", status: int = 200, /, **headers: str) -> None:
        """Send a whole response, with a length."""
        self.send(head(status, Content_Length=str(len(content)), **headers) + content)

    def close(self) -> None:
        """Close the connection cleanly, after all sent bytes."""
        self._ending = True
        self._deliver()

    def reset(self) -> None:
        """Break the connection."""
        self._lost(ConnectionLost())

    @property
    def unread(self) -> int:
        """The number of bytes that were sent and not received."""
        return len(self._incoming)

    @property
    def requests(self) -> list[str]:
        """The heads of the received requests."""
        return self.received.decode().split("\r\n\r\n")[:-1]

    def request(self, index: int = -1) -> dict[str, str]:
        """The fields of a request by their names in lower case; its first line by an empty name."""
        line, *fields = self.requests[index].split("\r\n")
        split = [field.split(": ", 1) for field in fields]
        return {"": line, **{name.lower(): value for name, value in split}}

    # Our end.

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if self.connected and not self.disconnecting:
            self.received += data

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._network.callLater(0, self._lost, ConnectionDone())

    def loseWriteConnection(self) -> None:
        raise NotImplementedError

    def abortConnection(self) -> None:
        if self.connected and not self.aborted:
            self.disconnecting = self.aborted = True
            self._incoming = b""
            self._network.callLater(0, self._lost, ConnectionAborted())

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        if self.connected and not self.disconnecting and not self._delivering:
            self._network.callLater(0, self._deliver)

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        raise NotImplementedError

    def unregisterProducer(self) -> None:
        raise NotImplementedError

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 40000)

    def getPeer(self) -> IPv4Address | IPv6Address:
        host, port = self._address
        kind = IPv6Address if ":" in host else IPv4Address
        return kind("TCP", host, port)

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getTcpKeepAlive(self) -> bool:
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def _deliver(self) -> None:
        if self._delivering:
            return
        self._delivering = True
        while self.connected and not self.paused and not self.aborted and self._incoming:
            data = self._incoming[: self.bufferSize]
            self._incoming = self._incoming[self.bufferSize :]
            self.protocol.dataReceived(data)
        self._delivering = False
        if self._ending and not self._incoming and not self.paused:
            self._lost(ConnectionDone())

    def _lost(self, reason: Exception) -> None:
        if self.connected:
            self.connected = False
            self._incoming = b""
            self.protocol.connectionLost(Failure(reason))


class Names:
    """A resolver that fires at once, from a table that a test may change."""

    def __init__(self, table: Mapping[str, list[str]]) -> None:
        self.table = dict(table)
        self.requested: list[str] = []
        self.hanging: dict[str, Deferred[list[Address]]] = {}

    def hang(self, host: str) -> None:
        """Do not respond for `host`."""
        self.hanging[host] = Deferred(lambda _: None)

    def addresses(self, host: str, caller: str = "") -> Deferred[list[Address]]:
        self.requested.append(host)
        if host in self.hanging:
            return self.hanging[host]
        try:
            return succeed([ip_address(host)])
        except ValueError:
            return succeed([ip_address(text) for text in self.table.get(host, [])])


def resolving(
    table: Mapping[str, list[str]],
) -> Callable[..., list[tuple[Any, Any, Any, Any, Any]]]:
    """A getaddrinfo with the names of `table`. It calls the real one, without the use of a server,
    for spellings of numbers.
    """

    def resolve(host: str, port: None, **hints: Any) -> list[tuple[Any, Any, Any, Any, Any]]:
        if host in table:
            return [(0, 0, 0, "", (address, 0)) for address in table[host]]
        return list(socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST, **hints))

    return resolve


def head(status: int = 200, /, **headers: str) -> bytes:
    """The head of a response. Underscores in names become hyphens."""
    lines = [f"HTTP/1.1 {status} Whatever"]
    lines += [f"{re.sub('_', '-', name)}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def failed(outcomes: list[Any]) -> BaseException:
    """The exception that is the only outcome."""
    assert outcomes, "it has not ended"
    [came] = outcomes
    assert isinstance(came, Failure), f"it succeeded with {came!r}"
    assert came.value is not None
    return came.value


class World:
    """A Fetcher on a network in memory."""

    def __init__(
        self,
        *,
        resolve: Callable[..., Any] | None = None,
        policy: Policy | None = None,
        upstream: Upstream | None = None,
        connections: int = 4,
        verifier: Any = None,
        queue: LoopQueue | None = None,
        network: Network | None = None,
    ) -> None:
        """At first example.org, other.org and third.org are public. With `resolve`, a getaddrinfo,
        the real resolver is used, with threads, instead of `names`.
        """
        self.network = network or Network()
        self.names = Names({f"{each}.org": [PUBLIC] for each in ("example", "other", "third")})
        resolver: Any = Resolver(self.network, resolve) if resolve else self.names  # type: ignore[arg-type]
        self.memory = BodyMemory(total=2 * EACH_BYTES)  # where each that holds some shows
        self.fetcher = Fetcher(
            self.network,
            resolver=resolver,
            verifier=verifier or CertificateVerifier(),
            policy=policy or Policy(),
            upstream=upstream,
            connections=connections,
            memory=self.memory,
            queue=queue,
        )

    def fetch(
        self,
        url: str | None,
        limits: FetchLimits = LIMITS,
        headers: Mapping[str, str] | None = None,
        *,
        read: bool = True,
        caller: str = "",
    ) -> RunningFetch:
        """Begin to fetch `url`. Without `read`, its content is unread until `RunningFetch.read`."""
        return RunningFetch(self, url, limits, headers, read, caller)

    def accept(self) -> Peer:
        """Accept the pending connection, which may begin in the next turn."""
        if not self.network.pending:
            self.network.turn()
        [attempt] = self.network.pending
        return attempt.accept()

    def advance(self, seconds: float, step: float = 1.0) -> None:
        """Advance the time in steps."""
        while seconds > 0:
            self.network.advance(min(step, seconds))
            seconds -= step

    def assert_idle(self) -> None:
        """Check that no fetch runs, and that nothing is left but idle connections."""
        self.network.turn()
        assert self.fetcher.fetches == 0
        assert self.network.pending == []
        self.memory.enter()
        assert self.memory.allowance == EACH_BYTES, "a body holds its share"
        self.memory.leave()
        outcomes = outcome(ensureDeferred(self.fetcher.close()))
        self.network.turn()
        assert outcomes == [None]
        assert self.network.peers == []
        assert self.network.getDelayedCalls() == []


class RunningFetch:
    """A fetch. `response` is set when its headers are complete; `content` is what was read."""

    def __init__(
        self,
        world: World,
        url: str | None,
        limits: FetchLimits,
        headers: Mapping[str, str] | None,
        read: bool,
        caller: str,
    ) -> None:
        self.response: Response | None = None
        self.content = b""
        self._world = world
        self._caller = caller
        self._may_read: Deferred[None] = Deferred()
        if read:
            self._may_read.callback(None)
        target = None if url is None else parse_url(url)
        self.work = ensureDeferred(self._run(target, limits, headers))
        self.outcome = outcome(self.work)

    async def _run(self, url: Any, limits: FetchLimits, headers: Mapping[str, str] | None) -> bytes:
        async with self._world.fetcher.open(
            url, limits, headers, caller=self._caller
        ) as self.response:
            await self._may_read
            async for chunks in self.response.body:
                self.content += b"".join(chunks)
        return self.content

    def read(self) -> None:
        """Read the content to its end."""
        self._may_read.callback(None)
        self._world.network.turn()

    def cancel(self) -> None:
        self.work.cancel()
        self._world.network.turn()

    @property
    def whole(self) -> bytes:
        """The whole content."""
        assert self.outcome, "it has not ended"
        [came] = self.outcome
        if isinstance(came, Failure):
            came.raiseException()
        assert isinstance(came, bytes)
        return came

    @property
    def error(self) -> BaseException:
        """The exception that it failed with."""
        return failed(self.outcome)

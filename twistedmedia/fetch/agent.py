"""An agent that connects where a policy lets it, and nowhere else.

The addresses of a name are looked up once, judged, and connected to; nothing looks again in
between. Connections are kept for the next request to the same origin, under the same policy. No
environment variable and no proxy has a say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from ipaddress import IPv4Address, ip_address
from typing import Any

from twisted.internet import address
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.web._newclient import HTTP11ClientProtocol, HTTPClientParser
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http import _ChunkedTransferDecoder
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from twistedmedia.errors import AddressRefused, UpstreamFailed
from twistedmedia.fairness.loop_queue import LoopQueue
from twistedmedia.fetch.hops import Connecting, Connection, Hop
from twistedmedia.fetch.policy import Address, Policy
from twistedmedia.fetch.resolver import Resolver
from twistedmedia.fetch.urls import Url
from twistedmedia.http.heads import MAX_RESPONSE_HEAD_BYTES

CONNECT_S = 10.0  # for each address; the next one is tried after 0.3 s (RFC 8305)
MOST_ADDRESSES = 16  # of a name that has more, the rest is judged and not tried
# What servers send as a Content-Encoding of content that has none: object stores keep the
# `aws-chunked` of an upload, and many programs mean the charset.
_NO_CODING = re.compile(
    rb"|identity|aws-chunked|binary|none"
    rb"|utf-?(?:8|16|32)(?:[bl]e)?|(?:us-)?ascii|iso-?8859-[0-9]{1,2}|windows-125[0-9]",
    re.IGNORECASE,
)
KEEP_S = 30  # an idle connection; most servers close theirs after 60 s or more


class PolicyAgent:
    """Makes requests under one policy. See `agent`."""

    def __init__(
        self,
        reactor: Any,
        policy: Policy,
        resolver: Resolver,
        trust: IPolicyForHTTPS,
        connections: int,
        queue: LoopQueue,
    ) -> None:
        """`trust` says whose certificates are believed; `connections` is how many idle ones are
        kept in all. Content that takes long to parse takes turns in `queue`.
        """
        self._reactor = reactor
        self._policy = policy
        self._resolver = resolver
        self._trust = trust
        self._pool = _Pool(reactor, connections)
        self._queue = queue

    def agent(self, url: Url, hop: Hop, headers: Headers) -> IAgent:
        """An agent for the one request that `hop` is about: for `url`, with these `headers` and no
        other.

        Its Deferred fails with `AddressRefused` when the host has no address, or one that is not
        allowed; then nothing was connected to.
        """
        return _Agent(self._reactor, self._pool, _Way(self, url, hop), url, headers)

    def close(self) -> Deferred[None]:
        """Close the connections that no request uses."""
        closing: Deferred[None] = self._pool.closeCachedConnections()
        return closing

    async def connect(self, url: Url, hop: Hop, factory: Any) -> IProtocol:
        """A connection to the host and port of `url`, with TLS where it asks for that."""
        addresses = await self._resolver.addresses(url.host, hop.looks_up_for)
        hop.lookup = hop.clock()
        if not self._policy.admits_all(url.host, addresses, url.port):
            raise AddressRefused(url.origin)
        addresses = addresses[:MOST_ADDRESSES]
        judged = _Judged(self._reactor, addresses)
        # Not by its name, about which the endpoint is stricter than those who give names. One that
        # tries several addresses makes a class for each connection, which only the collector frees.
        endpoint: type[HostnameEndpoint | TCP4ClientEndpoint | TCP6ClientEndpoint]
        endpoint = HostnameEndpoint
        if len(addresses) == 1:
            is_ipv4 = isinstance(addresses[0], IPv4Address)
            endpoint = TCP4ClientEndpoint if is_ipv4 else TCP6ClientEndpoint
        to: IStreamClientEndpoint = endpoint(judged, str(addresses[0]), url.port, timeout=CONNECT_S)
        if url.scheme == "https":
            creator = self._trust.creatorForNetloc(url.host.encode("ascii"), url.port)
            to = wrapClientTLS(creator, to)
        connection = await to.connect(Connecting(factory, hop, self._queue))
        assert isinstance(connection, Connection)
        return connection.wrappedProtocol


class _Agent(Agent):
    """An agent for one request, whose URL is known: whatever it is asked for is that.

    Twisted's own would take the URL apart again and put it together with a little missing (an empty
    query), so this goes by `_requestWithEndpoint`, as its agents for proxies do.

    It asks for content as it is, and takes no other. treq adds gzip to that whatever it is told,
    and would inflate a small answer to any size before it could be counted; hence below treq.
    """

    def __init__(
        self, reactor: Any, pool: HTTPConnectionPool, way: _Way, url: Url, headers: Headers
    ) -> None:
        self._init(reactor, None, pool)
        self._way = way
        self._url = url
        self._sent = headers

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None
    ) -> Deferred[IResponse]:
        scheme, authority, host, target = (
            text.encode("ascii")
            for text in (self._url.scheme, self._url.authority, self._url.host, self._url.target)
        )
        requested = URI(scheme, authority, host, self._url.port, target, b"", b"", b"")
        key = (scheme, host, self._url.port)
        return self._requestWithEndpoint(
            key, self._way, method, requested, self._sent, bodyProducer, target
        ).addCallback(_uncoded)


def _uncoded(response: IResponse) -> IResponse:
    fields = response.headers.getRawHeaders(b"Content-Encoding", [])
    codings = [coding.strip() for field in fields for coding in field.split(b",")]
    if not all(map(_NO_CODING.fullmatch, codings)):
        raise UpstreamFailed("sends its content in a coding that it was not asked for")
    response.headers.removeHeader(b"Content-Encoding")
    return response


@implementer(IStreamClientEndpoint)
class _Way:
    """The way of one hop to its connection, as Twisted's pool asks for it."""

    def __init__(self, guard: PolicyAgent, url: Url, hop: Hop) -> None:
        self.hop = hop
        self._guard = guard
        self._url = url

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return ensureDeferred(self._guard.connect(self._url, self.hop, protocolFactory))


class _Client(HTTP11ClientProtocol):
    """Twisted's client of one connection, with three changes. A connection on which more was
    received than the response is not kept: the next request would take that for its own. (Bytes
    that arrive later cannot be told from a response.) A line of headers may be as long as all of
    them. Two spellings of framing are understood that Twisted refuses: `_Chunked` and
    `_pass_over_identity`.
    """

    transport: Any

    def request(self, request: Any) -> Deferred[IResponse]:
        response = super().request(request)
        parser: Any = self._parser
        if parser is not None:
            parser.MAX_LENGTH = MAX_RESPONSE_HEAD_BYTES
            parser._transferDecoders = {b"chunked": _Chunked}
            parser.allHeadersReceived = partial(_pass_over_identity, parser)
        return response

    def _finishResponse_WAITING(self, rest: bytes) -> None:
        is_unfit = rest or self.transport.is_behind or self.transport.is_aborted
        if is_unfit and self._currentRequest is not None:
            self._currentRequest.persistent = False
        super()._finishResponse_WAITING(rest)

    _finishResponse_TRANSMITTING = _finishResponse_WAITING


class _Chunked(_ChunkedTransferDecoder):
    """The chunked coding, in which blanks may stand behind the size of a chunk: servers that leave
    room for a size of any length pad it.
    """

    def _dataReceived_CHUNK_LENGTH(self) -> bool:
        padded = _PADDED_SIZE.match(self._buffer)
        if padded is not None:
            del self._buffer[padded.end(1) : padded.end()]
            self._start = 0
        return bool(super()._dataReceived_CHUNK_LENGTH())


_PADDED_SIZE = re.compile(rb"([0-9A-Fa-f]+)[ \t]+(?=\r\n|;)")


def _pass_over_identity(parser: Any) -> None:
    """Read content in the transfer coding `identity`, which RFC 7230 abolished, as content without
    one: to its Content-Length, or to the end of the connection.
    """
    if not 100 <= parser.response.code < 200:
        del parser.allHeadersReceived  # it refers to the parser
    codings = parser.connHeaders.getRawHeaders(b"Transfer-Encoding", [])
    if [coding.lower() for coding in codings] == [b"identity"]:
        parser.connHeaders.removeHeader(b"Transfer-Encoding")
    HTTPClientParser.allHeadersReceived(parser)


class _ClientFactory(Factory[_Client]):
    noisy = False

    def __init__(self, quiescent: Callable[[_Client], None], metadata: str) -> None:
        self._quiescent = quiescent

    def buildProtocol(self, addr: IAddress | None) -> _Client:
        return _Client(self._quiescent)


class _Pool(HTTPConnectionPool):
    """Idle connections, a limited number in all. Tells a hop which connection it has got, and a
    connection which hop it carries.

    Twisted's bounds them for each origin only, and remembers origins for ever; hence the methods of
    its own that are overridden here.
    """

    _factory = _ClientFactory  # type: ignore[assignment]
    cachedConnectionTimeout = KEEP_S
    retryAutomatically = False  # the fetcher does that

    def __init__(self, reactor: Any, most: int) -> None:
        super().__init__(reactor)
        self.maxPersistentPerHost = self._most = most

    def getConnection(self, key: Hashable, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        assert isinstance(endpoint, _Way)
        if endpoint.hop.anew:
            getting = self._newConnection(key, endpoint)
        else:
            getting = super().getConnection(key, endpoint)
            self._forget_if_empty(key)
        return getting.addCallback(self._got, endpoint.hop)

    def _putConnection(self, key: Hashable, connection: Any) -> None:
        if len(self._timeouts) >= self._most:
            oldest: IDelayedCall = next(iter(self._timeouts.values()))
            self._removeConnection(*oldest.args)  # type: ignore[attr-defined]
        super()._putConnection(key, connection)
        connection.transport.rest(lambda: self._forget(key, connection))

    def _removeConnection(self, key: Hashable, connection: Any) -> None:
        self._forget(key, connection)
        connection.transport.loseConnection()

    def _forget(self, key: Hashable, connection: Any) -> None:
        timeout = self._timeouts.pop(connection, None)
        if timeout is not None:
            if timeout.active():
                timeout.cancel()
            self._connections[key].remove(connection)
            self._forget_if_empty(key)

    def _forget_if_empty(self, key: Hashable) -> None:
        if not self._connections.get(key, True):
            del self._connections[key]

    def _got(self, protocol: Any, hop: Hop) -> Any:
        connection: Connection = protocol.transport
        hop.reused = connection.hop is not hop
        hop.connection = connection
        connection.carry(hop)
        return protocol


@implementer(IReactorPluggableNameResolver, IHostnameResolver, IHostResolution)
class _Judged:
    """A reactor for one connection, in which its host has those addresses that were judged, and
    which connects to nothing else.
    """

    name = ""  # of the resolution, which nobody asks for

    def __init__(self, reactor: Any, addresses: Sequence[Address]) -> None:
        self._reactor = reactor
        self._addresses = addresses
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds

    @property
    def nameResolver(self) -> IHostnameResolver:
        return self

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise NotImplementedError("the addresses are known")

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolutionReceiver.resolutionBegan(self)
        for each in self._addresses:
            kind = address.IPv4Address if isinstance(each, IPv4Address) else address.IPv6Address
            resolutionReceiver.addressResolved(kind("TCP", str(each), portNumber))
        resolutionReceiver.resolutionComplete()
        return self

    def cancel(self) -> None:
        """It is over already."""

    def connectTCP(self, host: str, *args: Any, **kwargs: Any) -> Any:
        if ip_address(host) not in self._addresses:
            raise AddressRefused(host)
        return self._reactor.connectTCP(host, *args, **kwargs)

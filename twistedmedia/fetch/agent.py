"""An agent that connects only where a policy allows it.

A host name is looked up once. The policy checks its addresses, and the connection is made to these
addresses: nothing looks the name up again. Idle connections are kept for later requests to the same
origin under the same policy. Proxies and environment variables are ignored.
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
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from twistedmedia.errors import AddressRefused, UpstreamFailed
from twistedmedia.fairness.loop_queue import LoopQueue
from twistedmedia.fetch.client_privates import (
    ChunkedTransferDecoder,
    HTTP11ClientProtocol,
    HTTPClientParser,
)
from twistedmedia.fetch.hops import Connection, ConnectionFactory, Hop, Phase
from twistedmedia.fetch.policy import Address, Policy
from twistedmedia.fetch.resolver import Resolver
from twistedmedia.fetch.urls import Url
from twistedmedia.http.heads import MAX_RESPONSE_HEAD_BYTES

CONNECT_S = 10.0  # for each address; the next one is tried after 0.3 s (RFC 8305)
MAX_ADDRESSES = 16  # the policy checks all addresses of a name; these are tried
# Values of Content-Encoding that servers send for content without a coding: object stores keep the
# `aws-chunked` of an upload, and many programs mean the charset.
_NO_CODING = re.compile(
    rb"|identity|aws-chunked|binary|none"
    rb"|utf-?(?:8|16|32)(?:[bl]e)?|(?:us-)?ascii|iso-?8859-[0-9]{1,2}|windows-125[0-9]",
    re.IGNORECASE,
)
_PADDED_SIZE = re.compile(rb"([0-9A-Fa-f]+)[ \t]+(?=\r\n|;)")
KEEP_S = 30  # an idle connection; most servers close theirs after 60 s or more


class PolicyAgent:
    """Makes agents that connect under one policy and share idle connections."""

    def __init__(
        self,
        reactor: Any,
        policy: Policy,
        resolver: Resolver,
        verifier: IPolicyForHTTPS,
        connections: int,
        queue: LoopQueue,
    ) -> None:
        """`verifier` checks the certificates of hosts. At most `connections` idle connections are
        kept in all. Responses that are slow to parse take turns in `queue`.
        """
        self._reactor = reactor
        self._policy = policy
        self._resolver = resolver
        self._verifier = verifier
        self._pool = _Pool(reactor, connections)
        self._queue = queue

    def agent(self, url: Url, hop: Hop, headers: Headers) -> IAgent:
        """Returns an agent for the one request of `hop`: for `url`, with exactly these `headers`.

        Its Deferred fails with `AddressRefused`, before anything is connected to, if the host has
        no address, or one that the policy does not allow.
        """
        return _RequestAgent(self._reactor, self._pool, _HopEndpoint(self, url, hop), url, headers)

    def close(self) -> Deferred[None]:
        """Close the idle connections."""
        closing: Deferred[None] = self._pool.closeCachedConnections()
        return closing

    async def connect(self, url: Url, hop: Hop, factory: Any) -> IProtocol:
        """Connect to the host and port of `url`, with TLS if its scheme is https."""
        addresses = await self._resolver.addresses(url.host, hop.lookup_caller)
        hop.end_phase(Phase.LOOKUP)
        if not self._policy.allows_all(url.host, addresses, url.port):
            raise AddressRefused(url.origin)
        addresses = addresses[:MAX_ADDRESSES]
        pinned = _PinnedReactor(self._reactor, addresses)
        # The endpoint is given addresses, since it is stricter about host names than resolvers are.
        # HostnameEndpoint makes a class for each connection, which only the garbage collector
        # frees, so a single address has an endpoint of its own.
        endpoint: type[HostnameEndpoint | TCP4ClientEndpoint | TCP6ClientEndpoint]
        endpoint = HostnameEndpoint
        if len(addresses) == 1:
            is_ipv4 = isinstance(addresses[0], IPv4Address)
            endpoint = TCP4ClientEndpoint if is_ipv4 else TCP6ClientEndpoint
        to: IStreamClientEndpoint = endpoint(pinned, str(addresses[0]), url.port, timeout=CONNECT_S)
        if url.scheme == "https":
            creator = self._verifier.creatorForNetloc(url.host.encode("ascii"), url.port)
            to = wrapClientTLS(creator, to)
        connection = await to.connect(ConnectionFactory(factory, hop, self._queue))
        assert isinstance(connection, Connection)
        return connection.wrappedProtocol


class _RequestAgent(Agent):
    """An agent for one request; it ignores the URL and the headers that its caller passes.

    Twisted's agent parses the URL and formats it again, which drops an empty query. So this one
    calls `_requestWithEndpoint`, as Twisted's proxy agents do.

    It is below treq because treq always accepts gzip, and would inflate a small response to any
    size before its bytes are counted. This agent accepts content without a coding only.
    """

    def __init__(
        self,
        reactor: Any,
        pool: HTTPConnectionPool,
        endpoint: _HopEndpoint,
        url: Url,
        headers: Headers,
    ) -> None:
        self._init(reactor, None, pool)
        self._endpoint = endpoint
        self._url = url
        self._headers = headers

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
            key, self._endpoint, method, requested, self._headers, bodyProducer, target
        ).addCallback(_require_no_coding)


def _require_no_coding(response: IResponse) -> IResponse:
    fields = response.headers.getRawHeaders(b"Content-Encoding", [])
    codings = [coding.strip() for field in fields for coding in field.split(b",")]
    if not all(map(_NO_CODING.fullmatch, codings)):
        raise UpstreamFailed("sends its content with a Content-Encoding that was not requested")
    response.headers.removeHeader(b"Content-Encoding")
    return response


@implementer(IStreamClientEndpoint)
class _HopEndpoint:
    """The endpoint of one hop, as Twisted's pool expects it."""

    def __init__(self, agent: PolicyAgent, url: Url, hop: Hop) -> None:
        self.hop = hop
        self._agent = agent
        self._url = url

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return ensureDeferred(self._agent.connect(self._url, self.hop, protocolFactory))


class _ClientProtocol(HTTP11ClientProtocol):
    """Twisted's client of one connection, with three changes.

    A connection that received more than the response is not reused: the next request would take
    these bytes for its response. (Bytes that arrive later cannot be detected.) A header line may be
    as long as the whole head. Two forms of framing are accepted that Twisted refuses: see
    `_ChunkedDecoder` and `_accept_identity`.
    """

    transport: Any

    def request(self, request: Any) -> Deferred[IResponse]:
        response = super().request(request)
        parser: Any = self._parser
        if parser is not None:
            parser.MAX_LENGTH = MAX_RESPONSE_HEAD_BYTES
            parser._transferDecoders = {b"chunked": _ChunkedDecoder}
            parser.allHeadersReceived = partial(_accept_identity, parser)
        return response

    def _finishResponse_WAITING(self, rest: bytes) -> None:
        is_unfit = rest or self.transport.has_unread or self.transport.is_aborted
        if is_unfit and self._currentRequest is not None:
            self._currentRequest.persistent = False
        super()._finishResponse_WAITING(rest)

    _finishResponse_TRANSMITTING = _finishResponse_WAITING


class _ChunkedDecoder(ChunkedTransferDecoder):
    """Decodes chunked coding in which blanks follow the size of a chunk: servers that reserve room
    for the size pad it.
    """

    def _dataReceived_CHUNK_LENGTH(self) -> bool:
        padded = _PADDED_SIZE.match(self._buffer)
        if padded is not None:
            del self._buffer[padded.end(1) : padded.end()]
            self._start = 0
        return bool(super()._dataReceived_CHUNK_LENGTH())


def _accept_identity(parser: Any) -> None:
    """Ignore the transfer coding `identity`, which RFC 7230 abolished. The content then ends by its
    Content-Length, or with the connection.
    """
    if not 100 <= parser.response.code < 200:
        del parser.allHeadersReceived  # it refers to the parser
    codings = parser.connHeaders.getRawHeaders(b"Transfer-Encoding", [])
    if [coding.lower() for coding in codings] == [b"identity"]:
        parser.connHeaders.removeHeader(b"Transfer-Encoding")
    HTTPClientParser.allHeadersReceived(parser)


class _ClientFactory(Factory[_ClientProtocol]):
    noisy = False

    def __init__(self, on_quiescent: Callable[[_ClientProtocol], None], metadata: str) -> None:
        self._on_quiescent = on_quiescent

    def buildProtocol(self, addr: IAddress | None) -> _ClientProtocol:
        return _ClientProtocol(self._on_quiescent)


class _Pool(HTTPConnectionPool):
    """Idle connections, of which there are at most `max_idle` in all. It also sets the connection
    of a hop, and the hop of a connection.

    Twisted's pool limits the connections of each origin only, and never forgets an origin.
    """

    _factory = _ClientFactory  # type: ignore[assignment]
    cachedConnectionTimeout = KEEP_S
    retryAutomatically = False  # the fetcher retries

    def __init__(self, reactor: Any, max_idle: int) -> None:
        super().__init__(reactor)
        self.maxPersistentPerHost = self._max_idle = max_idle

    def getConnection(self, key: Hashable, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        assert isinstance(endpoint, _HopEndpoint)
        if endpoint.hop.new_connection:
            getting = self._newConnection(key, endpoint)
        else:
            getting = super().getConnection(key, endpoint)
            self._forget_if_empty(key)
        return getting.addCallback(self._assign, endpoint.hop)

    def _putConnection(self, key: Hashable, connection: Any) -> None:
        if len(self._timeouts) >= self._max_idle:
            oldest: IDelayedCall = next(iter(self._timeouts.values()))
            self._removeConnection(*oldest.args)  # type: ignore[attr-defined]
        super()._putConnection(key, connection)
        connection.transport.set_idle(lambda: self._forget(key, connection))

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

    def _assign(self, protocol: Any, hop: Hop) -> Any:
        connection: Connection = protocol.transport
        hop.is_reused = connection.hop is not hop
        hop.connection = connection
        connection.carry(hop)
        return protocol


@implementer(IReactorPluggableNameResolver, IHostnameResolver, IHostResolution)
class _PinnedReactor:
    """A reactor for one connection: every host name has the checked addresses, and connecting to
    any other address fails.
    """

    name = ""  # of the resolution; unused

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
        """The resolution has ended already."""

    def connectTCP(self, host: str, *args: Any, **kwargs: Any) -> Any:
        if ip_address(host) not in self._addresses:
            raise AddressRefused(host)
        return self._reactor.connectTCP(host, *args, **kwargs)

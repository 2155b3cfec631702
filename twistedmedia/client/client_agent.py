"""The HTTP agent of the client: connects to any host name, trusts the configured certificates, and
limits the heads of responses, which Twisted's own agent does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from twistedmedia.client.exceptions import InvalidResponse, LocalFailure, local_failure
from twistedmedia.client.local_files import check_path
from twistedmedia.client.private_apis import END_OF_REQUEST_LINE, AnyHostEndpoint
from twistedmedia.http.heads import MAX_INTERIM, MAX_RESPONSE_HEAD_BYTES, ResponseHeads

# The service closes idle connections after 75 s by default, other servers after as little as 15 s.
# The client closes them earlier, so that no request is sent on a connection that is being closed.
IDLE_CONNECTION_S = 10
MAX_IDLE_CONNECTIONS = 16

_PEM = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def new_pool(reactor: Any) -> HTTPConnectionPool:
    """A pool that keeps idle connections for other requests for a short time."""
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = MAX_IDLE_CONNECTIONS
    pool.cachedConnectionTimeout = IDLE_CONNECTION_S
    # Twisted's retries are invisible, but the client must know which requests may have been sent.
    pool.retryAutomatically = False
    return pool


def new_agent(
    reactor: Any, pool: HTTPConnectionPool, connect_s: float, cacert: str | Path | None
) -> IAgent:
    """An agent that gives up connecting to an address after `connect_s` seconds.

    `cacert` is a PEM file of the certificates to trust. The default is the system's certificates,
    or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`, as in OpenSSL.

    :raises LocalFailure: when `cacert` cannot be read or has no certificate.
    """
    endpoints = _Endpoints(reactor, connect_s, _options(cacert))
    agent: IAgent = Agent.usingEndpointFactory(reactor, endpoints, pool)
    return agent


def _options(cacert: str | Path | None) -> CertificateOptions:
    if cacert is None:
        return CertificateOptions(trustRoot=platformTrust())
    try:
        blocks = _PEM.findall(Path(check_path(cacert)).read_bytes())
        certificates = [Certificate.loadPEM(block) for block in blocks]
    except (OSError, ValueError) as error:
        raise local_failure(error, cacert) from None
    except crypto.Error:
        certificates = []
    if not certificates:
        raise LocalFailure(f"{cacert}: the file has no certificate in PEM format")
    return CertificateOptions(trustRoot=trustRootFromCertificates(certificates))


@implementer(IAgentEndpointFactory)
class _Endpoints:
    def __init__(self, reactor: Any, connect_s: float, options: CertificateOptions) -> None:
        self._reactor = reactor
        self._connect_s = connect_s
        self._options = options

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """The endpoint that connects to the host of `uri`."""
        endpoint: IStreamClientEndpoint = AnyHostEndpoint(
            self._reactor, uri.host, uri.port, timeout=self._connect_s
        )
        if uri.scheme == b"https":
            creator = _TLSConnectionCreator(self._options, uri.host.decode("ascii"))
            endpoint = wrapClientTLS(creator, endpoint)
        limited: IStreamClientEndpoint = _HeadLimitEndpoint(endpoint)
        return limited


@implementer(IStreamClientEndpoint)
class _HeadLimitEndpoint:
    """Connects with another endpoint, and limits the heads of responses on the connection."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect. Fires with the protocol that `protocolFactory` makes."""
        factory: Any = WrappingFactory(protocolFactory)
        factory.protocol = _HeadLimit
        factory.noisy = False
        connected: Deferred[Any] = self._endpoint.connect(factory)
        return connected.addCallback(lambda connection: connection.wrappedProtocol)


class _HeadLimit(ProtocolWrapper):
    """Closes a connection on which the head of a response is too large. It sits between the socket,
    or TLS, and Twisted's HTTP client.
    """

    def __init__(self, factory: Any, wrapped: Any) -> None:
        super().__init__(factory, wrapped)
        self._heads = ResponseHeads()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send the head of a request, after which a new response is expected, or a chunk."""
        pieces = list(iovec)
        if pieces[0].endswith(END_OF_REQUEST_LINE):
            self._heads = ResponseHeads()
        super().writeSequence(pieces)

    def dataReceived(self, data: bytes) -> None:
        """Pass the bytes on, unless the head of the response is too large."""
        if not self._heads.is_complete:
            self._heads.feed(data)
        if self._heads.are_too_large:
            self.abortConnection()
        else:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Replace the reason if a head was too large."""
        if self._heads.are_too_large:
            reason = Failure(
                InvalidResponse(
                    "the response is not from the service: it begins with more than"
                    f" {MAX_RESPONSE_HEAD_BYTES >> 10} KiB of headers, or more than {MAX_INTERIM}"
                    " interim responses"
                )
            )
        super().connectionLost(reason)


@implementer(IOpenSSLClientConnectionCreator)
class _TLSConnectionCreator:
    """Sets up TLS with `host`. Its certificate must name the host and be trusted."""

    def __init__(self, options: CertificateOptions, host: str) -> None:
        self._options = options
        self._server_name: bytes | None = None  # RFC 6066, 3: not for an address
        self._identity: DNS_ID | IPAddress_ID
        try:
            self._identity = IPAddress_ID(str(ip_address(host)))
        except ValueError:
            self._identity = DNS_ID(host)
            self._server_name = host.encode("ascii")

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """A connection for `tlsProtocol`."""

        def verify(_: Any, certificate: Any, error: int, depth: int, ok: int) -> bool:
            if depth == 0 and ok:  # the host's own certificate, with a valid signature
                try:
                    verify_service_identity(extract_patterns(certificate), [self._identity], [])
                except (VerificationError, CertificateError):
                    tlsProtocol.failVerification(Failure())
                    return False
            return bool(ok)

        connection: SSL.Connection = self._options.clientConnectionForTLS(tlsProtocol)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection

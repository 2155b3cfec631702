"""Connections to the service: by its host's name as it is written, and by the certificates that are
trusted.

Twisted's own agent refuses host names that it cannot decode, such as those with an underscore.
Docker and private networks have them. Nor does it bound the heads of responses.
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
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
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
from twistedmedia.client.local_files import path_of
from twistedmedia.http.heads import MAX_INTERIM, MAX_RESPONSE_HEAD_BYTES, ResponseHeads

# The service closes idle connections after 75 s unless told otherwise, and other servers after as
# little as 15 s. Before that we do, or a request would meet the closing on its way.
KEPT_FOR_S = 10
KEPT_CONNECTIONS = 16

_PEM = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def new_pool(reactor: Any) -> HTTPConnectionPool:
    """Connections that are kept for other requests, for a while."""
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = KEPT_CONNECTIONS
    pool.cachedConnectionTimeout = KEPT_FOR_S
    # Twisted would try again unseen; we have to know which requests may have been carried out.
    pool.retryAutomatically = False
    return pool


def new_agent(
    reactor: Any, pool: HTTPConnectionPool, connect_s: float, cacert: str | Path | None
) -> IAgent:
    """An agent that gives up an address after `connect_s` seconds.

    `cacert` is a PEM file of the certificates to trust. Without it those of the system are trusted,
    or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, as OpenSSL reads them.

    :raises LocalFailure: when `cacert` cannot be read or has no certificate.
    """
    endpoints = _Endpoints(reactor, connect_s, _options(cacert))
    agent: IAgent = Agent.usingEndpointFactory(reactor, endpoints, pool)
    return agent


def _options(cacert: str | Path | None) -> CertificateOptions:
    if cacert is None:
        return CertificateOptions(trustRoot=platformTrust())
    try:
        blocks = _PEM.findall(Path(path_of(cacert)).read_bytes())
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
        to: IStreamClientEndpoint = _Host(
            self._reactor, uri.host, uri.port, timeout=self._connect_s
        )
        if uri.scheme == b"https":
            to = wrapClientTLS(_Certified(self._options, uri.host.decode("ascii")), to)
        bounded: IStreamClientEndpoint = _Bounded(to)
        return bounded


@implementer(IStreamClientEndpoint)
class _Bounded:
    """Connects as `to` does, and bounds the heads of responses on the connection."""

    def __init__(self, to: IStreamClientEndpoint) -> None:
        self._to = to

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect. Fires with the protocol that `protocolFactory` has made."""
        factory: Any = WrappingFactory(protocolFactory)
        factory.protocol = _Connection
        factory.noisy = False
        connected: Deferred[Any] = self._to.connect(factory)
        return connected.addCallback(lambda connection: connection.wrappedProtocol)


class _Connection(ProtocolWrapper):
    """Lies between the socket, or TLS, and Twisted's HTTP client."""

    def __init__(self, factory: Any, wrapped: Any) -> None:
        super().__init__(factory, wrapped)
        self._heads = ResponseHeads()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send a head or a chunk. After the head of a request the response to that is expected."""
        pieces = list(iovec)
        if pieces[0].endswith(b" HTTP/1.1\r\n"):  # which the size of a chunk does not
            self._heads = ResponseHeads()
        super().writeSequence(pieces)

    def dataReceived(self, data: bytes) -> None:
        """Pass it on, unless the head of the response is too large."""
        if not self._heads.is_complete:
            self._heads.feed(data)
        if self._heads.are_too_large:
            self.abortConnection()
        else:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Say why, if it is because of a head that was too large."""
        if self._heads.are_too_large:
            reason = Failure(
                InvalidResponse(
                    "the answer is not the service's: it begins with more than"
                    f" {MAX_RESPONSE_HEAD_BYTES >> 10} KiB of headers, or more than {MAX_INTERIM}"
                    " interim responses"
                )
            )
        super().connectionLost(reason)


class _Host(HostnameEndpoint):
    """Has the system look up the host as it is named. `places` has checked the name."""

    @staticmethod
    def _hostAsBytesAndText(host: bytes | str) -> tuple[bool, bytes, str]:
        assert isinstance(host, bytes)
        return False, host, host.decode("ascii")


@implementer(IOpenSSLClientConnectionCreator)
class _Certified:
    """Sets up TLS with `host`, whose certificate must name it and be signed by a trusted one."""

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
            if depth == 0 and ok:  # the host's own certificate, and its signature is good
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

"""A fetch over TLS: verification, timings, redirects. The handshake is a real
one, in memory.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, CertificateOptions
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from tests.fetch.reactor import LONG, Peer, World, head
from tests.http.connection import outcome
from tests.support import asynchronous
from twistedmedia.errors import UpstreamBrokeOff, UpstreamFailed, UpstreamTooSlow
from twistedmedia.fetch.agent import KEEP_S
from twistedmedia.fetch.certificates import CertificateVerifier
from twistedmedia.fetch.timings import Timings

URL = "https://example.org/a.mp3"


class Authority:
    """A self-signed certificate for some hosts, and a verifier that trusts it."""

    def __init__(self, *hosts: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=36500))
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def verifier(self) -> CertificateVerifier:
        return CertificateVerifier(Certificate(crypto.X509.from_cryptography(self._certificate)))

    @property
    def pem(self) -> bytes:
        """The certificate and its key in PEM."""
        pem = serialization.Encoding.PEM
        key = self._key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._certificate.public_bytes(pem) + key

    def server(self) -> SSL.Connection:
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate(self._certificate)
        context.use_privatekey(self._key)
        connection = SSL.Connection(context, None)
        connection.set_accept_state()
        return connection


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Server:
    """The other end of a connection with TLS."""

    def __init__(self, peer: Peer, authority: Authority) -> None:
        self.received = b""
        self._peer = peer
        self._taken = 0
        self._tls = authority.server()

    async def turn(self) -> None:
        """Deliver all pending bytes. Twisted's TLS writes in turns of the real reactor."""
        for _ in range(6):
            await deferLater(reactor, 0)
            data, self._taken = self._peer.received[self._taken :], len(self._peer.received)
            if data:
                self._tls.bio_write(data)
            with suppress(
                SSL.Error
            ):  # it needs more bytes, or the client has refused the certificate
                self.received += self._tls.recv(1 << 16)
            self._flush()

    async def respond(self, data: bytes) -> None:
        self._tls.send(data)
        await self.turn()

    async def close(self) -> None:
        """Close cleanly, with close_notify."""
        self._tls.shutdown()
        self._flush()
        self._peer.close()
        await self.turn()

    def _flush(self) -> None:
        try:
            data = self._tls.bio_read(1 << 20)
        except SSL.WantReadError:
            return
        if self._peer.connected:
            self._peer.send(data)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("example.org", "other.org")


@pytest.fixture
def world(make: Callable[..., World], authority: Authority) -> World:
    return make(verifier=authority.verifier)


async def connected(world: World, authority: Authority) -> Server:
    server = Server(world.accept(), authority)
    await server.turn()
    return server


@asynchronous
async def test_content_is_received_over_tls(world: World, authority: Authority) -> None:
    fetch = world.fetch(URL)
    assert world.network.connected_to == [("93.184.215.14", 443)]
    server = await connected(world, authority)
    assert server.received.startswith(b"GET /a.mp3 HTTP/1.1\r\n")
    await server.respond(head(Content_Length="5") + b"hello")
    assert fetch.whole == b"hello"
    assert fetch.response is not None
    assert str(fetch.response.url) == URL
    await server.close()


@asynchronous
@pytest.mark.parametrize(
    ("host", "on_the_wire"),
    [
        ("my_host-.example", "my_host-.example"),
        ("-a.example", "-a.example"),
        ("\U0001f3b5.example", "xn--ml8h.example"),
    ],
)
async def test_hosts_of_any_spelling_have_certificates(
    make: Callable[..., World], host: str, on_the_wire: str
) -> None:
    """Cases 59 and 60."""
    authority = Authority(on_the_wire)
    world = make(verifier=authority.verifier)
    world.names.table[on_the_wire] = ["93.184.215.14"]
    fetch = world.fetch(f"https://{host}/")
    server = await connected(world, authority)
    assert f"\r\nHost: {on_the_wire}\r\n".encode() in server.received
    await server.respond(head(Content_Length="5") + b"hello")
    assert fetch.whole == b"hello"
    await server.close()


@asynchronous
async def test_the_handshake_is_timed(world: World, authority: Authority) -> None:
    fetch = world.fetch(URL)
    world.advance(1)
    peer = world.accept()
    world.advance(2)
    server = Server(peer, authority)
    await server.turn()
    world.advance(3)
    await server.respond(head(Content_Length="5") + b"hello")
    assert fetch.response is not None
    assert fetch.response.timings == Timings(None, 0.0, 1.0, 3.0, 6.0, 6.0)
    again = world.fetch(URL)
    await server.turn()
    world.advance(1)
    await server.respond(head(Content_Length="0"))
    assert again.response is not None
    assert again.response.timings == Timings(None, None, None, None, 1.0, 1.0)
    assert len(world.network.attempts) == 1
    await server.close()


@asynchronous
@pytest.mark.parametrize("hosts", [["example.org"], ["evil.org"]])
async def test_a_certificate_of_an_unknown_authority_is_rejected(
    world: World, hosts: list[str]
) -> None:
    fetch = world.fetch(URL)
    server = await connected(world, Authority(*hosts))
    world.network.turn()
    assert type(fetch.error) is UpstreamFailed
    assert "cannot be verified" in str(fetch.error)
    assert server.received == b""


@asynchronous
async def test_a_certificate_of_another_host_is_rejected(
    world: World, authority: Authority
) -> None:
    world.names.table["third.org"] = world.names.table["example.org"]
    fetch = world.fetch("https://third.org/")
    server = await connected(world, authority)
    world.network.turn()
    assert type(fetch.error) is UpstreamFailed
    assert "cannot be verified" in str(fetch.error)
    assert server.received == b""


@asynchronous
async def test_a_peer_without_tls_is_one_of_our_errors(world: World) -> None:
    fetch = world.fetch(URL)
    peer = world.accept()
    peer.send(head(400, Content_Length="0"))
    await deferLater(reactor, 0)
    world.network.turn()
    assert type(fetch.error) is UpstreamFailed
    assert "TLS failed" in str(fetch.error)


@asynchronous
async def test_a_handshake_that_does_not_end_ends_with_the_time_to_the_headers(
    world: World,
) -> None:
    fetch = world.fetch(URL)
    peer = world.accept()
    world.advance(9.5)
    assert fetch.outcome == []
    world.advance(0.5)
    await deferLater(reactor, 0)
    assert type(fetch.error) is UpstreamTooSlow
    world.network.turn()
    assert not peer.connected


@asynchronous
@pytest.mark.parametrize("cleanly", [False, True])
async def test_without_a_length_only_an_end_by_tls_is_an_end(
    world: World, authority: Authority, cleanly: bool
) -> None:
    """Anything on the network path can end the TCP connection."""
    fetch = world.fetch(URL)
    peer = world.accept()
    server = Server(peer, authority)
    await server.turn()
    await server.respond(head() + b"hello")
    if cleanly:
        await server.close()
        assert fetch.whole == b"hello"
    else:
        peer.close()
        assert type(fetch.error) is UpstreamBrokeOff


@asynchronous
async def test_a_redirect_from_https_to_http_is_not_followed(
    world: World, authority: Authority
) -> None:
    fetch = world.fetch(URL)
    server = await connected(world, authority)
    await server.respond(head(302, Location="http://other.org/", Content_Length="0"))
    assert type(fetch.error) is UpstreamFailed
    assert str(fetch.error) == "the upstream redirects from https to http"
    assert len(world.network.attempts) == 1
    world.network.turn()
    await server.turn()


@asynchronous
@pytest.mark.parametrize(
    "location", ["https://other.org/b", "//other.org/b", "https://example.org:80/b"]
)
async def test_a_redirect_from_https_to_https_is_followed(
    world: World, authority: Authority, location: str
) -> None:
    fetch = world.fetch(URL)
    server = await connected(world, authority)
    await server.respond(head(302, Location=location, Content_Length="0"))
    other = await connected(world, authority)
    assert other.received.startswith(b"GET /b HTTP/1.1\r\n")
    await other.respond(head(Content_Length="5") + b"there")
    assert fetch.whole == b"there"
    for each in (server, other):
        await each.close()


@asynchronous
async def test_a_redirect_from_http_to_https_is_followed_and_never_back(
    world: World, authority: Authority
) -> None:
    fetch = world.fetch("http://example.org/")
    world.accept().send(head(302, Location=URL, Content_Length="0"))
    server = await connected(world, authority)
    await server.respond(head(302, Location="http://example.org/", Content_Length="0"))
    assert str(fetch.error) == "the upstream redirects from https to http"
    world.network.turn()
    await server.turn()


@asynchronous
async def test_a_fetch_that_is_cancelled_in_the_handshake_leaves_nothing_behind(
    world: World,
) -> None:
    fetch = world.fetch(URL)
    peer = world.accept()
    fetch.cancel()
    await deferLater(reactor, 0)
    world.network.turn()
    came: list[Any] = fetch.outcome
    assert len(came) == 1
    assert not peer.connected


@asynchronous
@pytest.mark.parametrize("fields", [{}, {"Connection": "close"}])
async def test_a_peer_that_does_not_close_tls_does_not_keep_the_connection_open(
    world: World, authority: Authority, fields: dict[str, str]
) -> None:
    """Case 25: TLS would wait for the peer without limit, and the service could not stop."""
    fetch = world.fetch(URL)
    server = await connected(world, authority)
    await server.respond(head(200, Content_Length="5", **fields) + b"hello")
    assert fetch.whole == b"hello"
    world.network.turn()
    assert len(world.network.peers) == (0 if fields else 1)
    world.advance(KEEP_S)
    await deferLater(reactor, 0)
    world.network.turn()
    assert world.network.peers == []


@asynchronous
async def test_closing_does_not_wait_for_the_peer(world: World, authority: Authority) -> None:
    """Case 47."""
    fetch = world.fetch(URL)
    server = await connected(world, authority)
    await server.respond(head(Content_Length="5") + b"hello")
    assert fetch.whole == b"hello"
    closed = outcome(ensureDeferred(world.fetcher.close()))
    world.network.turn()
    assert closed == [None]
    assert world.network.peers == []


@asynchronous
@pytest.mark.parametrize("fields", [{}, {"Content_Length": str((1 << 20) + 40_000)}])
async def test_content_received_with_the_close_of_tls_while_paused_is_not_lost(
    fields: dict[str, str], authority: Authority
) -> None:
    world = World(verifier=authority.verifier)
    fetch = world.fetch("https://example.org/", LONG, read=False)
    server = await connected(world, authority)
    await server.respond(head(200, **fields))
    assert fetch.response is not None
    left = (1 << 20) + 40_000
    while left:
        left -= server._tls.send(bytes(min(left, 1 << 14)))
    server._tls.shutdown()
    server._flush()
    server._flush()
    server._peer.close()
    await server.turn()
    world.network.turn()
    fetch.read()
    await server.turn()
    world.network.turn()
    assert len(fetch.whole) == (1 << 20) + 40_000


@asynchronous
async def test_content_that_was_cut_short_before_it_was_read_is_an_error(
    authority: Authority,
) -> None:
    world = World(verifier=authority.verifier)
    fetch = world.fetch("https://example.org/", LONG, read=False)
    server = await connected(world, authority)
    await server.respond(head(Content_Length="100") + b"hello")
    server._peer.reset()
    await server.turn()
    fetch.read()
    assert type(fetch.error) is UpstreamBrokeOff


def test_all_connections_share_one_tls_context() -> None:
    """Reading the authorities for each would take milliseconds of the loop, and a MiB."""
    verifier = CertificateVerifier()
    protocol = TLSMemoryBIOProtocol(
        TLSMemoryBIOFactory(CertificateOptions(), True, Factory()), Protocol()
    )
    connections = [
        verifier.creatorForNetloc(host, 443).clientConnectionForTLS(protocol)
        for host in (b"example.org", b"other.org", b"192.0.2.1")
    ]
    assert len({id(connection.get_context()) for connection in connections}) == 1
    names = [connection.get_servername() for connection in connections]
    assert names == [b"example.org", b"other.org", None]  # RFC 6066, 3


def test_a_name_that_no_certificate_can_be_for_is_rejected(world: World) -> None:
    """The number is a spelling of a public address. Unusual names are valid."""
    world.names.table["134744072"] = world.names.table["example.org"]
    assert "no certificate can be issued" in str(world.fetch("https://134744072/").error)
    for host in (b"foo_bar.org", b"r3---sn-a.org", b"xn--a.org"):
        assert CertificateVerifier().creatorForNetloc(host, 443)


@asynchronous
async def test_an_address_is_verified_by_its_certificate(make: Callable[..., World]) -> None:
    authority = Authority("93.184.215.14")
    world = make(verifier=authority.verifier)
    fetch = world.fetch("https://93.184.215.14/")
    server = await connected(world, authority)
    await server.respond(head(Content_Length="5") + b"hello")
    assert fetch.whole == b"hello"
    other = world.fetch("https://93.184.215.15/")
    await connected(world, authority)
    world.network.turn()
    assert "cannot be verified" in str(other.error)
    await server.close()


@asynchronous
@pytest.mark.parametrize("connections", [1, 4])
async def test_an_idle_connection_that_the_server_closes_is_forgotten(
    make: Callable[..., World], authority: Authority, connections: int
) -> None:
    world = make(verifier=authority.verifier, connections=connections)
    for url in (URL, "https://other.org/", URL):
        fetch = world.fetch(url)
        server = await connected(world, authority)
        await server.respond(head(Content_Length="5") + b"hello")
        assert fetch.whole == b"hello"
        await server.close()
        world.network.turn()
        world.advance(KEEP_S + 1)

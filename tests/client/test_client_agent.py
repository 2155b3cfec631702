"""Connections to any host, and trusted certificates."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IHostnameResolver, IOpenSSLContextFactory
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from tests.support import asynchronous
from twistedmedia import __version__
from twistedmedia.client import LocalFailure, MediaClient, Retries, Unreachable


@implementer(IHostnameResolver)
class Names:
    """Resolves every name to this machine, except names that begin with `unknown` or `hangs`."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, *args: Any, **kwargs: Any
    ) -> Any:
        self.asked.append(hostName)
        receiver.resolutionBegan(self)
        if hostName.startswith("hangs"):
            return self
        if not hostName.startswith("unknown"):
            receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        receiver.resolutionComplete()
        return self


@pytest.fixture
def names() -> Iterator[Names]:
    names = Names()
    before = reactor.installNameResolver(names)
    yield names
    reactor.installNameResolver(before)


@pytest.mark.parametrize("host", ["my_media", "_x.my-media_", "xn--mller-kva", "media.example"])
@asynchronous
async def test_a_host_name_is_resolved_as_it_is_written(talk: Any, names: Names, host: str) -> None:
    """Case 74."""
    async with talk(url=f"http://{host}:{{port}}") as it:
        it.fake.put("a/b.wav", b"")
        assert [entry.path for entry in await it.client.list("a")] == ["a/b.wav"]
        assert it.fake.heard[0].headers["host"] == f"{host}:{it.fake.port}"
    assert names.asked == [host]


@asynchronous
async def test_a_name_in_another_script_is_resolved_as_in_browsers(talk: Any, names: Names) -> None:
    async with talk(url="http://Müller.example:{port}") as it:
        assert await it.client.list() == []
    assert names.asked == ["xn--mller-kva.example"]


@asynchronous
async def test_a_service_can_have_an_ipv6_address(talk: Any, tmp_path: Path) -> None:
    """Case 74."""
    (tmp_path / "a.wav").write_bytes(b"sound" * (1 << 20))  # resumable, by a URL of the service
    async with talk(interface="::1", url="http://[::1]:{port}") as it:
        stored = await it.client.upload(tmp_path / "a.wav", "a")
        assert stored.url == f"http://[::1]:{it.fake.port}/media/a/a.wav"
        assert it.fake.heard[0].headers["host"] == f"[::1]:{it.fake.port}"


@asynchronous
async def test_an_unknown_host_is_named_in_the_reason(talk: Any, names: Names) -> None:
    async with talk(url="http://unknown_host:{port}", retries=Retries(times=0)) as it:
        with pytest.raises(Unreachable) as caught:
            await it.client.list()
        url = f"http://unknown_host:{it.fake.port}"
    assert caught.value.reason == f"the host name of the service at {url} is not known"


@asynchronous
async def test_a_cancelled_resolution_is_not_retried(talk: Any, names: Names) -> None:
    async with talk(url="http://hangs:{port}") as it:
        question = it.client.list()
        reactor.callLater(0, question.cancel)
        with pytest.raises(CancelledError):
            await question
    assert (it.waits, names.asked) == ([], ["hangs"])


@asynchronous
async def test_every_request_has_a_user_agent(talk: Any, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound" * (1 << 20))
    async with talk() as it:
        await it.client.upload(tmp_path / "a.wav", "a")
        await it.client.download("a", "a.wav", tmp_path / "b.wav")
        await it.client.list("a")
        await it.client.delete("a", "a.wav")
        agents = {each.headers["user-agent"] for each in it.fake.heard}
    assert agents == {f"twistedmedia/{__version__}"}


# Certificates.


@implementer(IOpenSSLContextFactory)
class Certified:
    """A self-signed certificate for hosts, and its file."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=36500))
            .add_extension(
                x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = made.public_bytes(serialization.Encoding.PEM)
        self.file = folder / f"{hosts[0]}.pem"
        self.file.write_bytes(b"# the authority\n" + pem)
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.use_certificate(made)
        self._context.use_privatekey(key)

    def getContext(self) -> SSL.Context:
        """The context of a server, for Twisted."""
        return self._context


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@pytest.mark.parametrize("host", ["my_media", "media.example", "127.0.0.1"])
@asynchronous
async def test_a_self_signed_certificate_can_be_trusted(
    talk: Any, names: Names, tmp_path: Path, host: str
) -> None:
    certified = Certified(tmp_path, host)
    url = f"https://{host}:{{port}}"
    async with talk(tls=certified, url=url, cacert=certified.file) as it:
        assert await it.client.list() == []


@asynchronous
async def test_a_certificate_of_another_host_or_authority_is_not_trusted(
    talk: Any, names: Names, tmp_path: Path
) -> None:
    one, other = Certified(tmp_path, "one.example"), Certified(tmp_path, "other.example")
    for tls, cacert in [(one, other.file), (other, other.file), (one, None)]:
        url = "https://one.example:{port}"
        async with talk(tls=tls, url=url, cacert=cacert) as it:
            with pytest.raises(Unreachable) as caught:
                await it.client.list()
            named = f"https://one.example:{it.fake.port}"
        assert caught.value.reason == f"the certificate of the service at {named} is not trusted"
        assert it.waits == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "has no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "has no certificate"),
    ],
)
def test_a_file_without_certificates_is_refused(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LocalFailure, match=reason):
        MediaClient(reactor, "https://h", cacert=path)


def told(arguments: list[str], **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "twistedmedia.client", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    return done.returncode, done.stderr


@asynchronous
async def test_the_command_trusts_a_certificate_file(talk: Any, tmp_path: Path) -> None:
    """With `--cacert` or `SSL_CERT_FILE`."""
    certified = Certified(tmp_path, "127.0.0.1")
    file = str(certified.file)
    async with talk(tls=certified) as it:
        ls = ["ls", "--url", f"https://127.0.0.1:{it.fake.port}", "--retries", "0"]
        assert await deferToThread(told, [*ls, "--cacert", file]) == (0, "")
        assert await deferToThread(told, ls, SSL_CERT_FILE=file) == (0, "")
        code, said = await deferToThread(told, ls)
        assert code == 3
        assert "is not trusted" in said
        code, said = await deferToThread(told, [*ls, "--cacert", str(tmp_path / "none.pem")])
        assert (code, said.count("\n")) == (1, 1)
        assert "none.pem: No such file or directory" in said

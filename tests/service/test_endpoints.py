"""Endpoints made from descriptions, the URLs of their ports, and limits of accepting."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.fetch.test_certificates import Authority
from tests.support import TIMEOUT_S, asynchronous
from twistedmedia.service.endpoints import (
    BACKLOG,
    endpoint_from,
    filter_connections,
    listen_error,
    url_of,
)


@pytest.fixture(scope="module", autouse=True)
def listened_once() -> None:
    """Listen once, because Twisted reserves a descriptor with the first port of the process."""
    factory: Any = Factory()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    pytest_twisted.blockon(port.stopListening())


@asynccontextmanager
async def listening(description: str, factory: Any = None) -> AsyncIterator[Any]:
    """A port that listens on the endpoint that `description` names."""
    port = await endpoint_from(reactor, description).listen(factory or Factory())
    try:
        yield port
    finally:
        await maybeDeferred(port.stopListening)


@pytest.fixture(params=[0o000, 0o022, 0o077])
def any_umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("any_umask")
@pytest.mark.parametrize(
    ("description", "mode"),
    [
        ("unix:{}", 0o660),
        ("unix:address={}", 0o660),
        ("unix:{}:backlog=7", 0o660),
        ("unix:lockfile=0:address={}:backlog=7", 0o660),
        ("haproxy:unix:{}", 0o660),
        ("unix:{}:mode=666", 0o666),
        ("unix:{}:mode=600", 0o600),
        ("unix:mode=600:{}", 0o600),
        ("unix:backlog=7:mode=0606:address={}", 0o606),
        ("unix:{}:lockfile=0:mode=777", 0o777),
        ("unix:{}:600", 0o600),
        ("unix:{}:600:7:0", 0o600),
        ("haproxy:unix:{}:mode=606", 0o606),
    ],
)
@asynchronous
async def test_a_unix_socket_is_open_to_the_group_unless_a_mode_is_given(
    tmp_path: Path, description: str, mode: int
) -> None:
    """Case 82. This does not depend on the umask, or on the position of the mode."""
    path = tmp_path / "media.sock"
    async with listening(description.format(path)):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(mode)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


@asynchronous
async def test_a_path_with_escaped_characters_is_that_path(tmp_path: Path) -> None:
    """Case 82."""
    path = tmp_path / "mode=666:a\\b.sock"
    escaped = str(path).replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")
    async with listening(f"unix:{escaped}") as port:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert url_of(port) == f"unix:{path}"


@pytest.mark.parametrize("description", ["unix:{}:backlog=3", "unix:backlog=3:address={}"])
@asynchronous
async def test_a_given_backlog_is_used(tmp_path: Path, description: str) -> None:
    path = tmp_path / "media.sock"
    async with listening(description.format(path)):
        with ExitStack() as clients:
            connected = 0
            with suppress(BlockingIOError):  # the queue is full, because nothing accepts
                while connected < 10:
                    client = clients.enter_context(socket.socket(socket.AF_UNIX))
                    client.setblocking(False)
                    client.connect(str(path))
                    connected += 1
            assert connected == 3 + 1  # as listen(2) counts


@pytest.mark.parametrize(
    ("description", "backlog"),
    [
        ("tcp:0", BACKLOG),
        ("tcp6:0:interface=\\:\\:1", BACKLOG),
        ("haproxy:tcp:0", BACKLOG),
        ("tcp:0:backlog=7", 7),
        ("tcp:0:127.0.0.1:7", 7),
        ("unix:{}", BACKLOG),
        ("unix:{}:600", BACKLOG),
        ("unix:{}:600:7", 7),
    ],
)
@asynchronous
async def test_a_burst_of_connections_waits_at_every_endpoint(
    tmp_path: Path, description: str, backlog: int
) -> None:
    """They are not refused, and need not send their SYN again."""
    async with listening(description.format(tmp_path / "media.sock")) as port:
        assert port.backlog == backlog


@pytest.mark.parametrize(("lockfile", "is_there"), [("", True), (":lockfile=0", False)])
@asynchronous
async def test_a_socket_is_locked_unless_the_description_turns_that_off(
    tmp_path: Path, lockfile: str, is_there: bool
) -> None:
    path = tmp_path / "media.sock"
    async with listening(f"unix:{path}{lockfile}"):
        names = os.listdir(tmp_path)
    assert sorted(names) == ["media.sock", "media.sock.lock"][: 1 + is_there]


@asynchronous
async def test_the_url_of_a_port_has_the_real_number() -> None:
    async with listening("tcp:0:interface=127.0.0.1") as port:
        assert url_of(port) == f"http://127.0.0.1:{port.getHost().port}/"
        assert port.getHost().port > 0


@asynchronous
async def test_the_url_of_a_port_with_tls_is_https(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(Authority("localhost").pem)
    async with listening(f"ssl:0:interface=127.0.0.1:privateKey={tmp_path}/key.pem") as port:
        assert url_of(port) == f"https://127.0.0.1:{port.getHost().port}/"


class Ending(Protocol):
    def connectionMade(self) -> None:
        self.transport.abortConnection()


class Counting(Factory):
    """Closes each connection. Counts the protocols that it builds, and how often it stops."""

    protocol = Ending

    def __init__(self) -> None:
        self.built = 0
        self.stopped = 0

    def buildProtocol(self, addr: Any) -> Any:
        self.built += 1
        return super().buildProtocol(addr)

    def stopFactory(self) -> None:
        self.stopped += 1


# Twisted itself passes such certificates.
@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest.mark.parametrize(
    "description",
    [
        "tcp:0:interface=127.0.0.1",
        "ssl:0:interface=127.0.0.1:privateKey={}/key.pem",
        "haproxy:tcp:0:interface=127.0.0.1",
        "unix:{}/media.sock",
    ],
)
@asynchronous
async def test_a_rejected_connection_gets_no_protocol(tmp_path: Path, description: str) -> None:
    """Case 91. It is closed at once, and the port accepts other connections."""
    (tmp_path / "key.pem").write_bytes(Authority("localhost").pem)
    factory = Counting()
    full = True
    asked: list[Any] = []

    def is_rejected(addr: Any) -> bool:
        asked.append(addr)
        return full

    async with listening(description.format(tmp_path), factory) as port:
        url = url_of(port)
        filter_connections(port, is_rejected)
        assert url_of(port) == url
        address = port.getHost()
        for count in (1, 2):
            with connected_to(address) as client:
                await deferToThread(assert_ended, client)
            assert len(asked) == count
        assert factory.built == 0
        full = False
        with connected_to(address) as client:
            await deferToThread(assert_ended, client)
        assert factory.built == 1
    assert factory.stopped == 1


def connected_to(address: Any) -> socket.socket:
    if isinstance(address, UNIXAddress):
        client = socket.socket(socket.AF_UNIX)
        client.connect(address.name)
    else:
        client = socket.create_connection((address.host, address.port))
    client.settimeout(TIMEOUT_S)
    return client


def assert_ended(client: socket.socket) -> None:
    with suppress(ConnectionResetError):
        assert client.recv(1) == b""


class Taking(Factory):
    """Takes some milliseconds for each connection, and records the turn of the loop."""

    protocol = Protocol

    def __init__(self) -> None:
        self.turn = 0
        self.turns: list[int] = []

    def buildProtocol(self, addr: Any) -> Any:
        self.turns.append(self.turn)
        time.sleep(0.004)
        return super().buildProtocol(addr)


@asynchronous
async def test_a_turn_of_the_loop_accepts_few_slow_connections(tmp_path: Path) -> None:
    """Case 91. Twisted accepts a hundred and more in a turn."""
    factory = Taking()
    counting = LoopingCall(lambda: setattr(factory, "turn", factory.turn + 1))
    async with listening(f"unix:{tmp_path}/media.sock", factory) as port:
        filter_connections(port, lambda _: False)
        with ExitStack() as clients:
            for _ in range(40):
                clients.enter_context(connected_to(port.getHost()))
            counting.start(0)
            while len(factory.turns) < 40:
                await deferLater(reactor, 0)
            counting.stop()
    assert max(Counter(factory.turns).values()) <= 2


def test_a_port_without_a_factory_stays_unchanged() -> None:
    """Plugins may bring such ports."""
    port = object()
    filter_connections(port, lambda _: True)
    assert not hasattr(port, "factory")


class Port:
    """A port at `address`."""

    factory: Any = Factory()

    def __init__(self, address: Any) -> None:
        self._address = address

    def getHost(self) -> Any:
        return self._address


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (IPv4Address("TCP", "127.0.0.2", 80), "http://127.0.0.2:80/"),
        (IPv4Address("TCP", "0.0.0.0", 8000), "http://127.0.0.1:8000/"),
        (IPv4Address("TCP", "192.0.2.7", 8000), "http://192.0.2.7:8000/"),
        (IPv6Address("TCP", "::1", 8000), "http://[::1]:8000/"),
        (IPv6Address("TCP", "::", 8000), "http://[::1]:8000/"),
        (IPv6Address("TCP", "2001:db8::7", 8000), "http://[2001:db8::7]:8000/"),
        (UNIXAddress(b"/run/media.sock"), "unix:/run/media.sock"),
        (UNIXAddress(b"\0media"), "unix:@media"),
        (UNIXAddress(None), "unix:"),
        (HostnameAddress(b"media.onion", 80), "HostnameAddress(hostname=b'media.onion', port=80)"),
    ],
)
def test_the_url_of_a_port_can_be_opened(address: Any, url: str) -> None:
    assert url_of(Port(address)) == url


def test_every_url_of_an_encrypted_port_is_https() -> None:
    port = Port(IPv6Address("TCP", "::1", 8443))
    port.factory = object.__new__(TLSMemoryBIOFactory)
    assert url_of(port) == "https://[::1]:8443/"


IN_USE = OSError(98, "Address already in use")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            CannotListenError("127.0.0.1", 80, IN_USE),
            "cannot listen on 127.0.0.1, port 80: Address already in use",
        ),
        (
            CannotListenError("", 80, OSError(13, "Permission denied")),
            "cannot listen on every address, port 80: Permission denied",
        ),
        (
            CannotListenError(None, b"/run/media.sock", IN_USE),
            "cannot listen on /run/media.sock: Address already in use",
        ),
        (
            CannotListenError(None, b"/run/media.sock", "Cannot acquire lock"),
            "cannot listen on /run/media.sock: Cannot acquire lock",
        ),
        (
            FileNotFoundError(2, "No such file", "4711", None, b"/missing/media.sock.lock"),
            "/missing/media.sock.lock: No such file",
        ),
        (PermissionError(13, "Permission denied", "key.pem"), "key.pem: Permission denied"),
        (OSError("without a name"), "without a name"),
        (ValueError("it does not listen at once"), "it does not listen at once"),
    ],
)
def test_the_operator_learns_where_an_endpoint_cannot_listen_and_why(
    error: Exception, said: str
) -> None:
    """Case 80."""
    assert listen_error(error) == said

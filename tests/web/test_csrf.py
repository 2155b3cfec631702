"""Cross-site requests and requests for foreign host names are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock

from tests.http.connection import HERE, NO_ADDRESS, PEER, Answer, Connection
from twistedmedia.http.addresses import parse_proxies
from twistedmedia.http.site import MediaSite
from twistedmedia.library.library import Library
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.store.memory import MemoryStore
from twistedmedia.web.cross_site import CsrfPolicy
from twistedmedia.web.tree import media_resource

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 8000)
OPEN = CsrfPolicy(is_open=True)

SAFE = ["GET", "HEAD", "OPTIONS"]
UNSAFE = {"PUT": "/media/a/b.mp3", "POST": "/media", "DELETE": "/media/a/b.mp3"}


def asked(
    method: str,
    *headers: str,
    version: str = "HTTP/1.1",
    csrf: CsrfPolicy | None = None,
    peer: Any = PEER,
    here: Any = HERE,
) -> Answer:
    """The response to a request that changes nothing, even if it is allowed."""
    clock = Clock()
    tree = media_resource(Library(MemoryStore(), UploadLimits()), csrf=csrf)
    connection = Connection(MediaSite(tree, reactor=clock), clock, None, peer, here)
    path = UNSAFE.get(method, "/health")
    lines = [f"{method} {path} {version}", *headers, "", ""]
    connection.send("\r\n".join(lines).encode("latin-1"))
    if method == "HEAD":
        status = int(connection.received.split(b" ")[1])
        connection.leave()
        return Answer(status, {}, b"")
    if version == "HTTP/1.0":
        connection.received = connection.received.replace(b"HTTP/1.0", b"HTTP/1.1", 1)
    (answer,) = connection.answers()
    connection.leave()
    return answer


def is_refused(answer: Answer) -> bool:
    """Whether the request is forbidden. Other errors are those of allowed requests."""
    if answer.status == 403 and answer.content:
        said = json.loads(answer.content)
        assert (said["code"], bool(said["reason"])) == (403, True)
    return answer.status == 403


# Pages of other sites


SITES = [
    # Headers besides Host: localhost:8000, and whether the request is not cross-site.
    ((), True),
    (("Sec-Fetch-Site: same-origin",), True),
    (("Sec-Fetch-Site: none",), True),
    (("Sec-Fetch-Site: same-site",), False),
    (("Sec-Fetch-Site: cross-site",), False),
    (("Sec-Fetch-Site: Same-Origin",), False),
    (("Sec-Fetch-Site:",), False),
    (("Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"), False),
    (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-origin"), False),
    # Sec-Fetch-Site takes precedence: a page cannot set it.
    (("Sec-Fetch-Site: same-origin", "Origin: http://evil.example"), True),
    (("Sec-Fetch-Site: none", "Origin: null"), True),
    (("Sec-Fetch-Site: cross-site", "Origin: http://localhost:8000"), False),
    # Older browsers send the origin with POST and other unsafe methods.
    (("Origin: http://localhost:8000",), True),
    (("Origin: https://localhost:8000",), True),
    (("Origin: HTTP://LOCALHOST:8000",), True),
    (("Origin: http://localhost",), False),
    (("Origin: http://localhost:8001",), False),
    (("Origin: http://127.0.0.1:8000",), False),
    (("Origin: http://evil.example",), False),
    (("Origin: http://localhost:8000.evil.example",), False),
    (("Origin: http://evil.example/localhost:8000",), False),
    (("Origin: http://localhost:8000@evil.example",), False),
    (("Origin: null",), False),
    (("Origin:",), False),
    (("Origin: localhost:8000",), False),
    (("Origin: http://localhost:8000", "Origin: http://evil.example"), False),
    (("Origin: http://evil.example", "Origin: http://localhost:8000"), False),
]


@pytest.mark.parametrize("csrf", [None, OPEN], ids=["closed", "open"])
@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize(("headers", "is_own"), SITES)
def test_a_page_of_another_site_may_not_change_anything(
    headers: tuple[str, ...], is_own: bool, method: str, csrf: CsrfPolicy | None
) -> None:
    answer = asked(method, "Host: localhost:8000", *headers, csrf=csrf)
    assert is_refused(answer) is not is_own
    if not is_own:
        assert b"another site" in answer.content


@pytest.mark.parametrize("method", SAFE)
@pytest.mark.parametrize("headers", [headers for headers, _ in SITES])
def test_a_page_of_another_site_may_read(headers: tuple[str, ...], method: str) -> None:
    """It may play media. Its browser decides what it may read."""
    assert not is_refused(asked(method, "Host: localhost:8000", *headers))


@pytest.mark.parametrize(
    ("host", "origin", "is_own"),
    [
        ("Media.Example", "https://media.example", True),
        ("media.example:443", "https://media.example", False),
        ("[::1]:80", "http://[::1]:80", True),
        ("[::1]:80", "http://[::1]", False),
    ],
)
def test_a_page_with_the_host_of_the_service_is_not_cross_site(
    host: str, origin: str, is_own: bool
) -> None:
    answer = asked("DELETE", f"Host: {host}", f"Origin: {origin}", csrf=OPEN)
    assert is_refused(answer) is not is_own


def test_a_request_without_host_and_origin_is_not_cross_site() -> None:
    assert not is_refused(asked("DELETE", version="HTTP/1.0"))
    assert is_refused(asked("DELETE", "Origin: http://evil.example", version="HTTP/1.0"))


# Names that resolve to a loopback address


OURS = [
    *("localhost", "localhost:8000", "LOCALHOST", "Localhost.", "a.localhost", "A.b.LocalHost:1"),
    *("127.0.0.1", "127.0.0.1:8000", "127.9.9.9", "127.255.255.254:80"),
    *("[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]:80"),
]
THEIRS = [
    *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"),
    *("evil-localhost", "localhostevil", "localhost-", "xlocalhost", "127.0.0.1.nip.io"),
    *("128.0.0.1", "192.0.2.2", "10.0.0.1:8000", "0.0.0.0", "127.1", "2130706433", "0x7f000001"),
    *("[::2]", "[::]", "[2001:db8::1]:8000", "[::ffff:10.0.0.1]", "%6cocalhost", "localhost%00"),
]
hosts = pytest.mark.parametrize(
    ("host", "is_ours"), [*((host, True) for host in OURS), *((host, False) for host in THEIRS)]
)


@hosts
@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize(
    "here",
    [
        LOOPBACK,
        IPv4Address("TCP", "127.8.9.10", 80),
        IPv6Address("TCP", "::1", 80),
        IPv6Address("TCP", "::ffff:127.0.0.1", 80),
    ],
)
def test_on_a_loopback_address_only_loopback_names_are_accepted(
    here: Any, method: str, host: str, is_ours: bool
) -> None:
    """Case 40. An attacker can make any name of his own resolve to this address."""
    answer = asked(method, f"Host: {host}", here=here, peer=LOOPBACK)
    assert is_refused(answer) is not is_ours


@hosts
def test_the_host_in_an_absolute_target_is_checked(host: str, is_ours: bool) -> None:
    clock = Clock()
    tree = media_resource(Library(MemoryStore(), UploadLimits()))
    connection = Connection(MediaSite(tree, reactor=clock), clock, None, LOOPBACK, LOOPBACK)
    line = f"GET http://{host}/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection.send(line.encode())
    assert connection.statuses() == [200 if is_ours else 403]
    connection.leave()


def test_a_request_without_a_host_is_accepted() -> None:
    assert not is_refused(asked("GET", version="HTTP/1.0", here=LOOPBACK))
    assert is_refused(asked("GET", "Host: evil.example", version="HTTP/1.0", here=LOOPBACK))


@pytest.mark.parametrize("host", THEIRS)
def test_any_host_is_accepted_if_it_is_not_checked(host: str) -> None:
    """With `is_open`, from trusted proxies, and on other addresses."""
    trusting = CsrfPolicy(proxies=parse_proxies(["127.0.0.1"]))
    for answer in (
        asked("GET", f"Host: {host}", here=LOOPBACK, peer=LOOPBACK, csrf=OPEN),
        asked("GET", f"Host: {host}", here=LOOPBACK, peer=LOOPBACK, csrf=trusting),
        asked("GET", f"Host: {host}", here=HERE),
        asked("GET", f"Host: {host}", here=IPv6Address("TCP", "2001:db8::1", 80)),
        asked("GET", f"Host: {host}", here=NO_ADDRESS, peer=NO_ADDRESS),
    ):
        assert answer.status in (200, 400)  # 400: Klein does not accept some of them


def test_the_host_from_an_untrusted_proxy_is_checked() -> None:
    trusting = CsrfPolicy(proxies=parse_proxies(["127.0.0.2", "unix"]))
    answer = asked(
        "GET",
        "Host: evil.example",
        "X-Forwarded-For: 127.0.0.2",
        here=LOOPBACK,
        peer=LOOPBACK,
        csrf=trusting,
    )
    assert is_refused(answer)
    assert b"localhost" in answer.content


def test_a_cross_site_request_is_refused_before_its_content_is_sent() -> None:
    answer = asked(
        "PUT",
        "Host: localhost",
        "Origin: http://evil.example",
        "Content-Length: 100000000",
        "Expect: 100-continue",
    )
    assert (answer.status, answer.headers["connection"]) == (403, "close")

"""Where a fetch may connect to: checked by the address, on every hop, for every spelling."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from twisted.internet.protocol import ClientFactory

from tests.fetch.reactor import PUBLIC, Network, RunningFetch, World, head, resolving
from twistedmedia.errors import AddressRefused
from twistedmedia.fetch.agent import _PinnedReactor
from twistedmedia.fetch.fetcher import Upstream
from twistedmedia.fetch.policy import Policy, parse_allow_rule
from twistedmedia.fetch.urls import parse_url

SPELLINGS = [
    # Loopback, as inet_aton has it.
    "http://127.0.0.1/",
    "http://127.0.0.1:443/",
    "https://127.0.0.1/",
    "http://127.0.0.53/",
    "http://127.255.255.254/",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0X7F000001/",
    "http://0x7f.1/",
    "http://0x7f.0.0.0x1/",
    "http://0177.0.0.1/",
    "http://0177.1/",
    "http://017700000001/",
    "http://00000177.0.0.1/",
    "http://127.0.0.1./",
    "http://127.1./",
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://localhost.localdomain/",
    # Characters that are mapped to others.
    "http://１２７.０.０.１/",
    "http://127。0。0。1/",
    "http://127．0．0．1/",
    "http://127｡0｡0｡1/",
    "http://①②⑦.⓪.⓪.①/",
    "http://𝟏𝟐𝟕.𝟎.𝟎.𝟏/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "http://ｌｏｃａｌｈｏｓｔ/",
    "http://ſocalhost/",
    # Other addresses that are not on the Internet.
    "http://0/",
    "http://0.0.0.0/",
    "http://0.1.2.3/",
    "http://10.0.0.1/",
    "http://167772161/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.169.254./",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://169.16689662/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.0.0.8/",
    "http://192.0.2.1/",
    "http://192.88.99.1/",
    "http://192.168.0.1/",
    "http://198.18.0.1/",
    "http://198.51.100.1/",
    "http://203.0.113.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://4294967295/",
    # IPv6, and IPv4 inside of it.
    "http://[::]/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::FFFF:10.0.0.1]/",
    "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
    "http://[::127.0.0.1]/",
    "http://[::7f00:1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::10.0.0.1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:5ef5:79fb::80ff:fffe]/",
    "http://[2001:4860::5efe:127.0.0.1]/",
    "http://[2001:4860::200:5efe:10.0.0.1]/",
    "http://[fe80::1]/",
    "http://[febf::1]/",
    "http://[fec0::1]/",
    "http://[fc00::1]/",
    "http://[fd00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://[ff0e::1]/",
    "http://[100::1]/",
    "http://[2001:db8::1]/",
    "http://[2001:10::1]/",
    "http://[2001:20::1]/",
    "http://[3fff::1]/",
    "http://[5f00::1]/",
    "http://[4000::1]/",
    # Names.
    "http://loopback.example/",
    "http://metadata.google.internal/",
    "http://private.example/",
    "https://private.example/",
    "http://mapped.example/",
    "http://zone.example/",
    "http://one-good-one-bad.example/",
    "http://one-bad-one-good.example/",
    "http://nowhere.example/",
    "http://sub.nowhere.example/",
    # Ports that are not HTTP's.
    "http://public.example:22/",
    "http://public.example:25/",
    "http://public.example:8080/",
    "https://public.example:8443/",
    "http://public.example:79/",
    "http://public.example:444/",
    "http://public.example:65535/",
    f"http://{PUBLIC}:6379/",
    "http://[2606:2800:21f:cb07::1]:81/",
]

TABLE = {
    "public.example": [PUBLIC],
    "localhost": ["127.0.0.1", "::1"],
    "localhost.localdomain": ["127.0.0.1"],
    "socalhost": ["127.0.0.1"],
    "loopback.example": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "private.example": ["10.1.2.3"],
    "mapped.example": ["::ffff:10.1.2.3"],
    "zone.example": ["fe80::1%1"],
    "one-good-one-bad.example": [PUBLIC, "127.0.0.1"],
    "one-bad-one-good.example": ["fd00::1", "2606:2800:21f:cb07::1"],
}


OPEN = Policy(tuple(map(parse_allow_rule, ("0.0.0.0/0", "[::/0]"))))
NOWHERE = "nowhere.example"


def begin(world: World, url: str) -> RunningFetch:
    """Begin a fetch, and wait for its look-up in a thread, if it has one."""
    fetch = world.fetch(url)
    if not fetch.outcome and not world.network.attempts:
        world.network.from_threads()
    return fetch


@pytest.mark.parametrize("url", SPELLINGS)
def test_no_spelling_of_a_forbidden_place_is_connected_to(
    make: Callable[..., World], url: str
) -> None:
    """Case 38."""
    world = make(resolve=resolving(TABLE))
    fetch = begin(world, url)
    assert type(fetch.error) is AddressRefused
    assert world.network.connected_to == []


@pytest.mark.parametrize("url", [url for url in SPELLINGS if NOWHERE not in url])
def test_each_of_these_urls_is_fetched_if_the_policy_allows_it(
    make: Callable[..., World], url: str
) -> None:
    """Else the test before could not fail."""
    world = make(resolve=resolving(TABLE), policy=OPEN)
    fetch = begin(world, url)
    assert len(world.network.attempts) == 1
    fetch.cancel()


@pytest.mark.parametrize(
    ("url", "to"),
    [
        ("http://public.example/", (PUBLIC, 80)),
        ("https://public.example/", (PUBLIC, 443)),
        ("http://public.example:443/", (PUBLIC, 443)),
        ("https://public.example:80/", (PUBLIC, 80)),
        (f"http://{PUBLIC}/", (PUBLIC, 80)),
        ("http://0x5db8d70e/", (PUBLIC, 80)),
        ("http://ｐｕｂｌｉｃ.example/", (PUBLIC, 80)),
        ("http://[2606:2800:21f:cb07::1]/", ("2606:2800:21f:cb07::1", 80)),
        ("http://[64:ff9b::8.8.8.8]/", ("64:ff9b::808:808", 80)),
    ],
)
def test_public_places_are_connected_to(
    make: Callable[..., World], url: str, to: tuple[str, int]
) -> None:
    world = make(resolve=resolving(TABLE))
    fetch = begin(world, url)
    assert world.network.connected_to == [to]
    fetch.cancel()


def test_a_private_address_and_an_unknown_name_give_the_same_error(
    make: Callable[..., World],
) -> None:
    """Case 43."""
    urls = ("http://127.0.0.1/", "http://private.example/", f"http://{NOWHERE}/")
    worlds = [make(resolve=resolving(TABLE)) for _ in urls]
    errors = [begin(world, url).error for world, url in zip(worlds, urls, strict=True)]
    assert {str(error) for error in errors} == {"that address may not be fetched"}


# Redirects.

FORBIDDEN = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://localhost/",
    "http://[::1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00::1]/",
    "http://[64:ff9b::7f00:1]/",
    "//127.0.0.1/",
    "//①②⑦.⓪.⓪.①/",
    "http://private.example/",
    "http://one-good-one-bad.example/",
    "http://nowhere.example/",
    "http://public.example:22/",
    "//public.example:8080/",
]


def redirect(to: str) -> bytes:
    location = to.encode().decode("latin-1")
    return head(302, Location=location, Content_Length="0")


@pytest.mark.parametrize("location", FORBIDDEN)
@pytest.mark.parametrize("hop", [2, 3, 6])
def test_no_hop_leads_to_a_forbidden_place(
    make: Callable[..., World], location: str, hop: int
) -> None:
    """Case 39."""
    world = make()
    world.names.table |= TABLE | {"127.1": ["127.0.0.1"]}
    fetch = world.fetch("http://public.example/")
    for n in range(hop - 2):
        world.accept().send(redirect(f"http://public.example:{[443, 80][n % 2]}/"))
        for peer in world.network.peers:
            peer.close()
        world.network.turn()
    peer = world.accept()
    assert fetch.outcome == []
    peer.send(redirect(location))
    assert type(fetch.error) is AddressRefused
    assert len(world.network.connected_to) == hop - 1
    assert {host for host, _ in world.network.connected_to} == {PUBLIC}


def test_a_redirect_to_a_public_place_is_followed(make: Callable[..., World]) -> None:
    """Else the test before could not fail."""
    world = make()
    world.names.table |= TABLE
    fetch = world.fetch("http://example.org/")
    world.accept().send(redirect("http://public.example/"))
    world.accept().respond(b"there")
    assert fetch.whole == b"there"


# Names whose addresses change.


def test_only_the_checked_addresses_are_connected_to(world: World) -> None:
    """Case 40: nothing looks the name up again."""
    fetch = world.fetch("http://example.org/")
    world.names.table["example.org"] = ["127.0.0.1"]
    assert world.network.connected_to == [(PUBLIC, 80)]
    world.accept().respond(b"public")
    assert fetch.whole == b"public"
    assert world.names.requested == ["example.org"]
    assert world.network.connected_to == [(PUBLIC, 80)]


def test_a_name_that_has_become_private_is_refused(world: World) -> None:
    """Case 40."""
    first = world.fetch("http://example.org/")
    world.accept().respond(b"public", Connection="close")
    assert first.whole == b"public"
    world.names.table["example.org"] = ["127.0.0.1"]
    second = world.fetch("http://example.org/")
    assert type(second.error) is AddressRefused
    assert world.network.connected_to == [(PUBLIC, 80)]


def test_a_name_that_has_become_private_is_refused_on_the_next_hop(world: World) -> None:
    """Case 40."""
    fetch = world.fetch("http://example.org/")
    world.names.table["example.org"] = ["10.0.0.1"]
    world.accept().send(head(302, Location="/again", Connection="close", Content_Length="0"))
    assert type(fetch.error) is AddressRefused
    assert world.network.connected_to == [(PUBLIC, 80)]


def test_an_idle_connection_is_reused_when_the_name_has_other_addresses(world: World) -> None:
    """Case 40: to the address that was checked."""
    first = world.fetch("http://example.org/")
    peer = world.accept()
    peer.respond(b"public")
    world.names.table["example.org"] = ["127.0.0.1"]
    second = world.fetch("http://example.org/")
    peer.respond(b"public as well")
    assert (first.whole, second.whole) == (b"public", b"public as well")
    assert world.network.connected_to == [(PUBLIC, 80)]


def test_a_stale_connection_is_replaced_after_another_check(world: World) -> None:
    """Case 40."""
    first = world.fetch("http://example.org/")
    peer = world.accept()
    peer.respond(b"public")
    assert first.whole == b"public"
    world.names.table["example.org"] = ["127.0.0.1"]
    second = world.fetch("http://example.org/")
    peer.close()
    world.network.turn()
    assert type(second.error) is AddressRefused
    assert world.network.connected_to == [(PUBLIC, 80)]


def test_only_checked_addresses_are_tried_one_after_the_other(world: World) -> None:
    world.names.table["example.org"] = [PUBLIC, "2606:2800:21f:cb07::1"]
    fetch = world.fetch("http://example.org/")
    world.names.table["example.org"] = ["127.0.0.1"]
    for _ in range(2):
        [attempt] = world.network.pending
        attempt.refuse()
        world.advance(0.3)
    assert fetch.outcome
    assert world.network.connected_to == [(PUBLIC, 80), ("2606:2800:21f:cb07::1", 80)]


# The upstream.

INNER = ("10.0.0.5", 8080)
OWN = Upstream(parse_url("http://10.0.0.5:8080/page"))
NAMED = Upstream(parse_url("http://inner.example:8080/page"))


@pytest.mark.parametrize("upstream", [OWN, NAMED])
def test_the_upstream_is_open_wherever_it_is(
    make: Callable[..., World], upstream: Upstream
) -> None:
    world = make(upstream=upstream)
    world.names.table["inner.example"] = ["10.0.0.5"]
    fetch = world.fetch(None)
    world.accept().respond(b"page")
    assert fetch.whole == b"page"
    assert world.network.connected_to == [INNER]


@pytest.mark.parametrize("upstream", [OWN, NAMED])
@pytest.mark.parametrize("kept", [False, True])
def test_a_url_of_the_upstream_is_not_allowed_when_a_request_names_it(
    make: Callable[..., World], upstream: Upstream, kept: bool
) -> None:
    """Even if there is an idle connection to it."""
    world = make(upstream=upstream)
    world.names.table["inner.example"] = ["10.0.0.5"]
    fetch = world.fetch(None)
    peer = world.accept()
    peer.respond(b"page", **({} if kept else {"Connection": "close"}))
    assert fetch.whole == b"page"
    world.network.turn()
    assert peer.connected is kept
    named = world.fetch(str(upstream.url))
    assert type(named.error) is AddressRefused
    assert (world.network.connected_to, len(peer.requests)) == ([INNER], 1)


@pytest.mark.parametrize(
    "location",
    [
        "/other",
        "http://10.0.0.5:8080/page",
        "http://10.0.0.5/",
        "http://10.0.0.6:8080/",
        "http://inner.example:8080/",
        "http://127.0.0.1/",
    ],
)
@pytest.mark.parametrize("upstream", [OWN, NAMED])
def test_it_is_open_on_the_first_hop_only(
    make: Callable[..., World], upstream: Upstream, location: str
) -> None:
    world = make(upstream=upstream)
    world.names.table["inner.example"] = ["10.0.0.5"]
    fetch = world.fetch(None)
    peer = world.accept()
    peer.send(redirect(location))
    assert type(fetch.error) is AddressRefused
    assert (world.network.connected_to, len(peer.requests)) == ([INNER], 1)


def test_it_may_lead_to_a_public_place(make: Callable[..., World]) -> None:
    world = make(upstream=OWN)
    fetch = world.fetch(None)
    world.accept().send(redirect("http://example.org/"))
    world.accept().respond(b"page")
    assert fetch.whole == b"page"
    assert world.network.connected_to == [INNER, (PUBLIC, 80)]


def test_a_redirect_to_the_upstream_is_not_allowed(make: Callable[..., World]) -> None:
    world = make(upstream=OWN)
    fetch = world.fetch("http://example.org/")
    world.accept().send(redirect("http://10.0.0.5:8080/page"))
    assert type(fetch.error) is AddressRefused
    assert world.network.connected_to == [(PUBLIC, 80)]


def test_an_idle_connection_of_another_url_is_not_used_for_the_upstream(
    make: Callable[..., World],
) -> None:
    world = make(upstream=Upstream(parse_url("http://example.org/page"), "Basic c2VjcmV0"))
    named = world.fetch("http://example.org/page")
    peer = world.accept()
    peer.respond(b"page")
    assert named.whole == b"page"
    own = world.fetch(None)
    world.accept().respond(b"own")
    assert (own.whole, len(peer.requests)) == (b"own", 1)


# What an operator allows.


@pytest.mark.parametrize(
    ("rule", "url", "to"),
    [
        ("10.0.0.0/8", "http://10.1.2.3/", ("10.1.2.3", 80)),
        ("10.0.0.0/8", "http://10.1.2.3:8080/", ("10.1.2.3", 8080)),
        ("10.0.0.0/8:8080", "http://10.1.2.3:8080/", ("10.1.2.3", 8080)),
        ("10.0.0.0/8:8080", "http://10.1.2.3/", None),
        ("10.0.0.0/8:8080", "http://10.1.2.3:8081/", None),
        ("10.0.0.0/8", "http://11.1.2.3:8080/", None),
        ("10.1.2.3", "http://10.1.2.3/", ("10.1.2.3", 80)),
        ("10.1.2.3", "http://10.1.2.4/", None),
        ("10.0.0.0/8", "http://private.example/", ("10.1.2.3", 80)),
        ("10.0.0.0/8", "http://mapped.example/", (str(ip_address("::ffff:10.1.2.3")), 80)),
        ("10.0.0.0/8", "http://localhost/", None),
        ("[fd00::/8]:8080", "http://[fd00::1]:8080/", ("fd00::1", 8080)),
        ("[fd00::/8]:8080", "http://[fd00::1]/", None),
        ("private.example", "http://private.example/", ("10.1.2.3", 80)),
        ("private.example", "http://PRIVATE.example.:99/", ("10.1.2.3", 99)),
        ("private.example:443", "https://private.example/", ("10.1.2.3", 443)),
        ("private.example:443", "http://private.example/", None),
        ("private.example", "http://10.1.2.3/", None),
        ("private.example", "http://a.private.example/", None),
        ("private.example", "http://private.example.evil.example/", None),
        ("private.example", "http://evilprivate.example/", None),
        ("*.private.example", "http://a.private.example/", ("10.1.2.3", 80)),
        ("*.private.example", "http://b.a.private.example/", ("10.1.2.3", 80)),
        ("*.private.example", "http://private.example/", None),
        ("*.private.example", "http://evilprivate.example/", None),
        ("public.example:8080", "http://public.example:8080/", (PUBLIC, 8080)),
        ("public.example:8080", "http://public.example:8081/", None),
    ],
)
def test_an_allow_rule_allows_what_it_says(
    make: Callable[..., World], rule: str, url: str, to: tuple[str, int] | None
) -> None:
    """Case 41."""
    world = make(policy=Policy((parse_allow_rule(rule),)))
    world.names.table |= TABLE
    for host in (
        "a.private.example",
        "b.a.private.example",
        "private.example.evil.example",
        "evilprivate.example",
    ):
        world.names.table[host] = ["10.1.2.3"]
    fetch = world.fetch(url)
    if to is None:
        assert type(fetch.error) is AddressRefused
        assert world.network.connected_to == []
    else:
        assert world.network.connected_to == [to]
        fetch.cancel()


def test_a_name_is_refused_when_only_one_of_its_addresses_is_opened(
    make: Callable[..., World],
) -> None:
    world = make(policy=Policy((parse_allow_rule("10.0.0.0/8"),)))
    world.names.table["two.example"] = ["10.1.2.3", "192.168.0.1"]
    assert type(world.fetch("http://two.example/").error) is AddressRefused
    assert world.network.connected_to == []


# Nothing else has an influence.


def test_proxies_in_the_environment_are_ignored(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://10.9.9.9:3128")
        monkeypatch.setenv(name.upper(), "http://10.9.9.9:3128")
    world = make()
    fetch = world.fetch("http://example.org/a")
    assert world.network.connected_to == [(PUBLIC, 80)]
    peer = world.accept()
    assert peer.request()[""] == "GET /a HTTP/1.1"
    peer.respond(b"direct")
    assert fetch.whole == b"direct"
    refused = world.fetch("http://127.0.0.1/")
    assert type(refused.error) is AddressRefused
    assert world.network.connected_to == [(PUBLIC, 80)]


def test_the_reactor_of_a_connection_connects_to_checked_addresses_only() -> None:
    """The last check before the socket, behind all others."""
    network = Network()
    pinned = _PinnedReactor(network, [ip_address(PUBLIC)])
    with pytest.raises(AddressRefused):
        pinned.connectTCP("127.0.0.1", 80, ClientFactory())
    assert network.pending == []
    pinned.connectTCP(PUBLIC, 80, ClientFactory())
    assert len(network.pending) == 1


def test_a_parsed_response_leaves_no_reference_cycle(world: World) -> None:
    """Garbage collections would stop the event loop."""
    fetch = world.fetch("http://example.org/")
    peer = world.accept()
    parser = weakref.ref(peer.protocol._wrappedProtocol.wrappedProtocol._parser)
    assert parser() is not None
    gc.disable()
    try:
        peer.respond(b"hello")
        assert fetch.whole == b"hello"
        assert parser() is None
    finally:
        gc.enable()

"""The address of a request's client, as trusted proxies report it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address

from tests.http.connection import NO_ADDRESS, PEER
from tests.http.test_site import Serving, head
from twistedmedia.http.addresses import LOCAL, NO_PROXIES, Proxies, parse_proxies

PROXY = "192.0.2.1"
UNTRUSTED = "203.0.113.9"
PROXIES = parse_proxies([PROXY, "10.0.0.0/8", "fd00::/8", "unix"])


@pytest.mark.parametrize(
    ("peer", "is_trusted"),
    [
        (PROXY, True),
        ("192.0.2.2", False),
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:a01:203", True),
        ("::ffff:11.1.2.3", False),
        ("fd12::1", True),
        ("fd12::1%eth0", False),
        ("fc12::1", False),
        (LOCAL, True),
        ("", False),
        ("nonsense", False),
    ],
)
def test_a_proxy_is_trusted_by_its_address(peer: str, is_trusted: bool) -> None:
    assert PROXIES.trusts(peer) is is_trusted
    assert not NO_PROXIES.trusts(peer)


@pytest.mark.parametrize(
    ("texts", "proxies"),
    [
        ([], NO_PROXIES),
        (["", " "], NO_PROXIES),
        (["unix"], Proxies((), local=True)),
        ([" 127.0.0.1 "], parse_proxies(["127.0.0.1/32"])),
        (["::1", "unix", "unix"], Proxies(parse_proxies(["::1/128"]).networks, local=True)),
    ],
)
def test_proxies_are_networks_addresses_and_unix(texts: list[str], proxies: Proxies) -> None:
    assert parse_proxies(texts) == proxies


@pytest.mark.parametrize(
    "text",
    ["localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "UNIX", "/run/x", "10.0.0.1:80", "::1]"],
)
def test_the_error_names_an_invalid_proxy(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_proxies(["127.0.0.1", text])


CHAINS = [
    # The header lines that PROXY sends, and the client's address.
    ([], PROXY),
    (["198.51.100.7"], "198.51.100.7"),
    (["  198.51.100.7\t"], "198.51.100.7"),
    (["198.51.100.7, 10.0.0.5"], "198.51.100.7"),
    (["198.51.100.7,10.0.0.5,fd00::1"], "198.51.100.7"),
    # An untrusted client may have invented what precedes its address.
    (["127.0.0.1, 198.51.100.7"], "198.51.100.7"),
    (["10.0.0.1, 198.51.100.7, 10.0.0.5"], "198.51.100.7"),
    (["evil, 198.51.100.7"], "198.51.100.7"),
    # Several lines are one list.
    (["127.0.0.1", "198.51.100.7"], "198.51.100.7"),
    (["198.51.100.7", "10.0.0.5, 10.0.0.6"], "198.51.100.7"),
    # If all are proxies, the first one is the client.
    (["10.0.0.5"], "10.0.0.5"),
    (["10.0.0.5, 10.0.0.6"], "10.0.0.5"),
    # Some proxies append the port.
    (["198.51.100.7:4711"], "198.51.100.7"),
    (["[2001:db8::7]:4711"], "2001:db8::7"),
    (["[2001:db8::7]"], "2001:db8::7"),
    (["2001:DB8:0::7"], "2001:db8::7"),
    (["2001:db8::4711"], "2001:db8::4711"),
    (["::ffff:198.51.100.7"], "198.51.100.7"),
    (["[::ffff:198.51.100.7]:80, ::ffff:10.0.0.5"], "198.51.100.7"),
    # Garbage is ignored, and so is everything before it.
    (["unknown"], PROXY),
    ([""], PROXY),
    (["198.51.100.7, unknown"], PROXY),
    (["198.51.100.7, unknown, 10.0.0.5"], "10.0.0.5"),
    (["198.51.100.7,"], PROXY),
    (["198.51.100.7,, 10.0.0.5"], "10.0.0.5"),
    (["\xff\xfe"], PROXY),
    (["198.51.100.7 198.51.100.8"], PROXY),
    (["198.51.100.7:x"], PROXY),
    (["0127.0.0.1"], PROXY),
    (["local"], PROXY),
    (["unix"], PROXY),
]


@pytest.mark.parametrize(("forwarded", "client"), CHAINS)
def test_the_client_is_the_last_address_that_is_not_a_trusted_proxy(
    forwarded: list[str], client: str
) -> None:
    lines = [line.encode("latin-1") for line in forwarded]
    assert PROXIES.client_host(PROXY, lines) == client
    assert PROXIES.client_host(LOCAL, lines) == (LOCAL if client == PROXY else client)


@pytest.mark.parametrize("forwarded", [chain for chain, _ in CHAINS])
@pytest.mark.parametrize("peer", [UNTRUSTED, "2001:db8::1", "::ffff:203.0.113.9"])
def test_headers_of_an_untrusted_peer_are_ignored(peer: str, forwarded: list[str]) -> None:
    lines = [line.encode("latin-1") for line in forwarded]
    assert PROXIES.client_host(peer, lines) == peer
    assert NO_PROXIES.client_host(PROXY, lines) == PROXY
    assert NO_PROXIES.client_host(LOCAL, lines) == LOCAL


@settings(max_examples=300)
@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b"10.0.0.5", b"::1, x"]))))
def test_the_client_is_an_address_for_any_header(
    forwarded: list[bytes],
) -> None:
    client = PROXIES.client_host(PROXY, forwarded)
    assert client.isascii()
    assert client.isprintable()
    assert not set(client) & set(' ",[]')


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=30), max_size=3))
def test_text_before_an_untrusted_address_is_ignored(claimed: list[bytes]) -> None:
    """The client sends the text, and the proxy adds the client's address."""
    assert PROXIES.client_host(PROXY, [*claimed, UNTRUSTED.encode()]) == UNTRUSTED
    assert PROXIES.client_host(PROXY, [b",".join([*claimed, UNTRUSTED.encode()])]) == UNTRUSTED


# Through a Site


@pytest.mark.parametrize("peer", [PEER, NO_ADDRESS], ids=["TCP", "UNIX"])
@pytest.mark.parametrize(
    ("claimed", "address"),
    [
        ("198.51.100.7", IPv4Address("TCP", "198.51.100.7", 0)),
        ("x, [2001:db8::7]:80", IPv6Address("TCP", "2001:db8::7", 0)),
    ],
)
def test_a_request_has_the_address_that_its_proxy_reports(
    peer: object, claimed: str, address: object
) -> None:
    assert seen_by(peer, f"X-Forwarded-For: {claimed}", proxies=PROXIES) == address


@pytest.mark.parametrize("peer", [PEER, NO_ADDRESS], ids=["TCP", "UNIX"])
def test_a_request_without_a_trusted_report_has_the_address_of_its_peer(peer: object) -> None:
    assert seen_by(peer, proxies=PROXIES) is peer
    assert seen_by(peer, "X-Forwarded-For: 198.51.100.7") is peer


def seen_by(peer: object, *headers: str, **options: Any) -> object:
    """The client's address as a handler sees it."""
    seen: list[object] = []

    async def look(request: Any) -> bytes:
        seen.append(request.getClientAddress())
        return b""

    connection = Serving(look, **options).connect(peer=peer)
    connection.send(head(*headers, method="GET"))
    connection.leave()
    return seen[0]

"""Hosts that are addresses.

Pure. An IPv4 address that is written inside an IPv6 one, as sockets for both do, is the IPv4
address that it is: in logs, in limits, and to those who decide whom to trust.

The proxies in front of us that are believed when they say whom they ask for.

Pure. `X-Forwarded-For` is what anybody may send: only what a trusted proxy has added counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

# A provider gives each of its customers a /64 of IPv6: they are one address.
_CUSTOMER_BITS = 64

LOCAL = "local"  # what a peer is called who has no address: one on a UNIX socket


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """The address that `text` is, None when it is none. One with a zone is none that another host
    could mean, and a zone could be any text.
    """
    if "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(maxsize=4096)
def rate_limit_key(host: str) -> str:
    """Whose `host` is, so far as its address tells: what is counted by address is counted by it."""
    address = address_of(host)
    if isinstance(address, IPv6Address):
        return str(int(address) >> (128 - _CUSTOMER_BITS))
    return host if address is None else str(address)


@lru_cache(maxsize=4096)
def peer_host(host: str | None) -> str:
    """What a peer at `host` is called; `host` is as the kernel says it, None on a UNIX socket."""
    if host is None:
        return LOCAL
    return str(address_of(host.partition("%")[0]) or host)


@dataclass(frozen=True, slots=True)
class Proxies:
    """The networks of the proxies that are trusted, and whether those on a UNIX socket are."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    local: bool = False

    def trusts(self, peer: str) -> bool:
        """Whether the peer at this address is one of them."""
        if peer == LOCAL:
            return self.local
        if not self.networks:  # then there is no need to parse the address
            return False
        address = address_of(peer)
        return address is not None and any(address in network for network in self.networks)

    def client(self, peer: str, forwarded: Sequence[bytes]) -> str:
        """The address that a request comes from, which the peer at `peer` passed on with these
        `X-Forwarded-For` lines: the last one there that is not a trusted proxy itself. What stands
        before it is hearsay.
        """
        if not forwarded or not self.trusts(peer):
            return peer
        client = peer
        for claimed in reversed(b",".join(forwarded).split(b",")):
            address = address_of(_without_port(claimed.strip().decode("latin-1")))
            if address is None:
                break
            client = str(address)
            if not self.trusts(client):
                break
        return client


NO_PROXIES = Proxies()


def parse_proxies(texts: Iterable[str]) -> Proxies:
    """The proxies meant by `texts`: networks, addresses, and `unix` for the peers on UNIX sockets.

    :raises ValueError: saying which text is none of that.
    """
    networks, local = [], False
    for text in (text.strip() for text in texts):
        if text == "unix":
            local = True
        elif text:
            networks.append(ip_network(text))
    return Proxies(tuple(networks), local)


def _without_port(text: str) -> str:
    """Some proxies append one."""
    host, _, port = text.rpartition(":")
    if port.isdigit() and (host.count(".") == 3 or host.endswith("]")):
        text = host
    return text.removeprefix("[").removesuffix("]")

"""IP addresses of peers and clients, and the proxies that are trusted to report a client's address.

Pure. An IPv4-mapped IPv6 address, as dual-stack sockets report it, is treated as the IPv4 address:
in logs, in limits and in checks. Any client can send `X-Forwarded-For`; only what a trusted proxy
has added to it counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_SUBSCRIBER_PREFIX_BITS = 64  # providers give each customer an IPv6 /64

LOCAL = "local"  # stands for the address of a peer on a UNIX socket, which has none


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that `text` spells, or None. An address with a zone is rejected: it has no
    meaning on another host, and a zone may be any text.
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
    """Return the key under which limits count the clients at `host`: one per customer of a provider
    as far as the address shows it.
    """
    address = parse_address(host)
    if isinstance(address, IPv6Address):
        return str(int(address) >> (128 - _SUBSCRIBER_PREFIX_BITS))
    return host if address is None else str(address)


@lru_cache(maxsize=4096)
def peer_host(host: str | None) -> str:
    """Return the canonical text of a peer's address. `host` is as the kernel reports it, None on a
    UNIX socket.
    """
    if host is None:
        return LOCAL
    return str(parse_address(host.partition("%")[0]) or host)


@dataclass(frozen=True, slots=True)
class Proxies:
    """The trusted proxies: their networks, and whether peers on UNIX sockets (`local`) are."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    local: bool = False

    def trusts(self, peer: str) -> bool:
        """Whether the peer at this address is a trusted proxy."""
        if peer == LOCAL:
            return self.local
        if not self.networks:  # saves parsing the address
            return False
        address = parse_address(peer)
        return address is not None and any(address in network for network in self.networks)

    def client_host(self, peer: str, forwarded: Sequence[bytes]) -> str:
        """Return the address of the client whose request the peer at `peer` sent with these
        `X-Forwarded-For` lines. It is the last one in them that is not a trusted proxy itself;
        that client may have invented what precedes it.
        """
        if not forwarded or not self.trusts(peer):
            return peer
        client = peer
        for claimed in reversed(b",".join(forwarded).split(b",")):
            address = parse_address(_without_port(claimed.strip().decode("latin-1")))
            if address is None:
                break
            client = str(address)
            if not self.trusts(client):
                break
        return client


NO_PROXIES = Proxies()


def parse_proxies(texts: Iterable[str]) -> Proxies:
    """Parse the trusted proxies: networks, addresses, and `unix` for peers on UNIX sockets.

    :raises ValueError: with the text that is invalid.
    """
    networks, local = [], False
    for text in (text.strip() for text in texts):
        if text == "unix":
            local = True
        elif text:
            networks.append(ip_network(text))
    return Proxies(tuple(networks), local)


def _without_port(text: str) -> str:
    """Remove the port that some proxies append."""
    host, _, port = text.rpartition(":")
    if port.isdigit() and (host.count(".") == 3 or host.endswith("]")):
        text = host
    return text.removeprefix("[").removesuffix("]")

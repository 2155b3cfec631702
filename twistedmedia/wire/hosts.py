"""Hosts that are addresses.

Pure. An IPv4 address that is written inside an IPv6 one, as sockets for both do, is the IPv4
address that it is: in logs, in limits, and to those who decide whom to trust.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

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
def customer_of(host: str) -> str:
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

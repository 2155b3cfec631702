"""Decides by the address whether a connection is allowed, whatever the host name or spelling.

Pure. A public address can be reached from anywhere on the Internet. Addresses of the IANA
special-purpose registries (RFC 6890 and its updates) are not public. An IPv6 address that carries
an IPv4 address is public only if that one is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from twistedmedia.fetch.urls import normalize_host

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PUBLIC_PORTS = frozenset({80, 443})

# `is_global` is not used: it differs between releases of Python, and is true for addresses that
# carry private ones.
_SPECIAL_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network, and on Linux this host
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared, behind a provider's NAT
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local, and the metadata service of clouds
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
_GLOBAL_UNICAST_6 = IPv6Network("2000::/3")
_SPECIAL_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo among them
            "2001:db8::/32",
            "2002::/16",  # 6to4, which carries an IPv4 address and is obsolete (RFC 7526)
            "3fff::/20",
        ),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address, by a translator
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})  # RFC 5214: an IPv4 address follows


def is_public(address: Address) -> bool:
    """Whether `address` is public."""
    address = _unmapped(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return False
    return address in _GLOBAL_UNICAST_6 and not any(address in network for network in _SPECIAL_6)


@dataclass(frozen=True, slots=True)
class AllowRule:
    """Allows more than public addresses: a network, or, if that is None, a host by its name. The
    name `*.example.org` means all names below example.org. Without a port it allows all of them.
    """

    network: Network | None
    host: str = ""
    port: int | None = None

    def allows(self, host: str, address: Address, port: int) -> bool:
        """Whether the rule allows `port` of `address`, an address of `host`."""
        if self.port not in (None, port):
            return False
        if self.network is not None:
            return address in self.network
        if self.host.startswith("*."):
            return host.endswith(self.host[1:]) and host != self.host[1:]
        return host == self.host


_ENDS_IN_A_NUMBER = re.compile(r"(^|\.)([0-9]+|0x[0-9a-f]*)$")
_WITH_PORT = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::([0-9]{1,5}))?")


def parse_allow_rule(text: str) -> AllowRule:
    """Parse a rule, such as "10.0.0.0/8", "[fd00::/8]:8080" or "*.example.org:443".

    :raises ValueError: with a message that says what is wrong.
    """
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    match = _WITH_PORT.fullmatch(text)
    if match is None or not (match[1] or match[2]):
        raise ValueError(f"{text!r} is not a network, address or host name, with or without a port")
    port = int(match[3]) if match[3] else None
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"{port} is not a port; it is a number from 1 to 65535")
    place = match[1] or match[2]
    if match[1] or "/" in place:
        return AllowRule(_parse_network(place), port=port)
    star, name = ("*.", place[2:]) if place.startswith("*.") else ("", place)
    host = normalize_host(name)
    if _ENDS_IN_A_NUMBER.search(host):  # then it is an address (WHATWG URL, 3.5)
        return AllowRule(_parse_network(star + host), port=port)
    return AllowRule(None, star + host, port)


def _parse_network(text: str) -> Network:
    try:
        if "%" in text:
            raise ValueError("a zone is valid on one machine only")
        return _unmapped_network(ip_network(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network: {error}") from None


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be connected to: what `rules` allow and, if `public`, public addresses on the ports
    80 and 443.
    """

    rules: tuple[AllowRule, ...] = ()
    public: bool = True

    def allows(self, host: str, address: Address, port: int) -> bool:
        """Whether `port` of `address`, an address of `host`, may be connected to."""
        unmapped = _unmapped(address)
        if self.public and port in PUBLIC_PORTS and is_public(unmapped):
            return True
        return any(rule.allows(host, unmapped, port) for rule in self.rules)

    def allows_all(self, host: str, addresses: Iterable[Address], port: int) -> bool:
        """Whether there are addresses, and all of them may be connected to. A name with both kinds
        of addresses is treated as an attack.
        """
        allowed = [self.allows(host, address, port) for address in addresses]
        return bool(allowed) and all(allowed)


def origin_only(host: str, port: int) -> Policy:
    """A policy that allows one host and port, at any address, and nothing else."""
    try:
        rule = AllowRule(_unmapped_network(ip_network(ip_address(host))), port=port)
    except ValueError:
        rule = AllowRule(None, host, port)
    return Policy((rule,), public=False)


def _unmapped(address: Address) -> Address:
    """An IPv4-mapped IPv6 address as the IPv4 address that the kernel connects to."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _unmapped_network(network: Network) -> Network:
    first = network.network_address
    if isinstance(first, IPv6Address) and first.ipv4_mapped is not None and network.prefixlen >= 96:
        return IPv4Network((first.ipv4_mapped, network.prefixlen - 96))
    return network

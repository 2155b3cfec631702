"""Which addresses are public, and what is open besides them (docs/http.md, Fetching)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from twistedmedia.fetch.policy import (
    PUBLIC_PORTS,
    AllowRule,
    Policy,
    is_public,
    origin_only,
    parse_allow_rule,
)

quick = settings(max_examples=300)

PUBLIC = [
    # Neighbours of what is set aside, before and after it.
    "1.0.0.0",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.1.255",
    "192.0.3.0",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    # Registered as special, and reachable by anybody.
    "192.31.196.1",
    "192.52.193.1",
    "192.175.48.1",
    "2620:4f:8000::1",
    "1.1.1.1",
    "8.8.8.8",
    "2000::",
    "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:200::",
    "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db9::",
    "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "2003::",
    "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "3fff:1000::",
    "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    # Public inside.
    "::ffff:8.8.8.8",
    "::ffff:808:808",
    "::ffff:9.255.255.255",
    "::ffff:128.0.0.0",
    "64:ff9b::8.8.8.8",
    "64:ff9b::100:0",
    "64:ff9b::dfff:ffff",
    # Beside ISATAP, not of it.
    "2600::5efd:a00:1",
    "2600::5eff:a00:1",
    "2600::1:5efe:a00:1",
    "2600::201:5efe:a00:1",
    "2600::5efe:0:0:1",
]

NOT_PUBLIC = [
    # The first and the last of each block of IANA's registry for IPv4.
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "127.0.0.0",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.8",
    "192.0.0.170",
    "192.0.0.171",
    "192.0.0.255",
    "192.0.2.0",
    "192.0.2.255",
    "192.88.99.0",
    "192.88.99.255",
    "192.168.0.0",
    "192.168.255.255",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.0",
    "198.51.100.255",
    "203.0.113.0",
    "203.0.113.255",
    "224.0.0.0",
    "224.0.0.251",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.254",
    "255.255.255.255",
    # And for IPv6.
    "::",
    "::1",
    "::2",
    "64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff",
    "64:ff9b:1::",
    "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
    "100::",
    "100::ffff:ffff:ffff:ffff",
    "100:0:0:1::",
    "100:0:0:1:ffff:ffff:ffff:ffff",
    "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:1::1",
    "2001:2::",
    "2001:2:0:ffff:ffff:ffff:ffff:ffff",
    "2001:3::",
    "2001:4:112::",
    "2001:10::",
    "2001:20::",
    "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:30::",
    "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db8::",
    "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
    "3fff::",
    "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
    "4000::",
    "5f00::",
    "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fc00::",
    "fd00:ec2::254",
    "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fe00::",
    "fe80::",
    "fe80::1",
    "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fec0::",
    "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "ff00::",
    "ff02::1",
    "ff0e::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    # IPv4-mapped.
    "::ffff:0.0.0.0",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "0:0:0:0:0:ffff:a9fe:a9fe",
    "::ffff:192.168.0.1",
    "::ffff:224.0.0.1",
    "::ffff:255.255.255.255",
    # IPv4-compatible, and translated as SIIT does.
    "::127.0.0.1",
    "::10.0.0.1",
    "::8.8.8.8",
    "::ffff:0:127.0.0.1",
    "::ffff:0:8.8.8.8",
    "::fffe:8.8.8.8",
    "::1:ffff:808:808",
    # NAT64 with what is not public inside, and beside its prefix.
    "64:ff9b::",
    "64:ff9b::10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::192.168.255.255",
    "64:ff9b::224.0.0.1",
    "64:ff9b::ffff:ffff",
    "64:ff9b::1:808:808",
    "64:ff9b:1::8.8.8.8",
    "64:ff9b:1::10.0.0.1",
    # 6to4 and Teredo, whatever is inside.
    "2002::",
    "2002:7f00:1::1",
    "2002:a00:1::",
    "2002:808:808::1",
    "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:0:808:808::1",
    "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
    # ISATAP, whatever is inside.
    "2600::5efe:7f00:1",
    "2600::5efe:10.0.0.1",
    "2600::5efe:8.8.8.8",
    "2600::200:5efe:7f00:1",
    "2600:1:2:3:200:5efe:808:808",
    "fe80::5efe:a00:1",
    # Of one machine's interface.
    "fe80::1%eth0",
    "fe80::1%1",
    "::1%lo",
    "2606:4700:4700::1111%2",
    "64:ff9b::8.8.8.8%2",
    "::ffff:127.0.0.1%1",
]

# Where `ipaddress` and we differ, on purpose or from one release of Python to the next.
DISPUTED = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
    )
)

four = st.ip_addresses(v=4)
six = st.ip_addresses(v=6)
unicast_six = six.map(
    lambda address: IPv6Address(int(address) & ~(7 << 125) | 1 << 125)  # in 2000::/3
)


@pytest.mark.parametrize("text", PUBLIC)
def test_what_anybody_can_reach_is_public(text: str) -> None:
    assert is_public(ip_address(text)) is True


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_what_is_set_aside_is_not_public_however_it_is_written(text: str) -> None:
    """Case 38."""
    assert is_public(ip_address(text)) is False


def set_aside(address: IPv4Address | IPv6Address) -> bool:
    """What `ipaddress` says for certain."""
    return (
        address.is_private
        or address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
    )


@quick
@given(four | st.sampled_from([ip_address(text) for text in NOT_PUBLIC if ":" not in text]))
def test_no_ipv4_address_that_python_sets_aside_is_public(address: IPv4Address) -> None:
    """Case 38."""
    assume(set_aside(address))
    assert not is_public(address)


@quick
@given(six | unicast_six)
def test_no_ipv6_address_that_python_sets_aside_is_public(address: IPv6Address) -> None:
    """Case 38: but for the two ways to carry an IPv4 address, which decides."""
    assume(set_aside(address))
    assume(address.ipv4_mapped is None and address not in IPv6Network("64:ff9b::/96"))
    assert not is_public(address)


@quick
@given(four | unicast_six)
def test_what_is_public_is_what_python_calls_global_where_that_is_not_disputed(
    address: IPv4Address | IPv6Address,
) -> None:
    assume(not any(address in network for network in DISPUTED))
    assume(address.version == 4 or (int(address) >> 32) & 0xFDFF_FFFF != 0x5EFE)
    assert is_public(address) == (address.is_global and not set_aside(address))


@quick
@given(four | st.sampled_from([ip_address(text) for text in NOT_PUBLIC if ":" not in text]))
def test_an_ipv4_address_inside_ipv6_is_as_public_as_by_itself(address: IPv4Address) -> None:
    """Case 38."""
    for carried in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert is_public(IPv6Address(carried)) == is_public(address)
    for carried in (f"::{address}", f"64:ff9b:1::{address}", f"2600::5efe:{address}"):
        assert not is_public(IPv6Address(carried))


@quick
@given(six | unicast_six, st.sampled_from(["1", "eth0", "lo"]))
def test_an_address_with_a_zone_is_public_only_if_it_is_one_of_ipv4(
    address: IPv6Address, zone: str
) -> None:
    assume(address.ipv4_mapped is None)
    assert not is_public(IPv6Address(f"{address}%{zone}"))


# Openings

OPENINGS = {
    "\uff11\uff12\uff17.0.0.1": AllowRule(IPv4Network("127.0.0.1/32")),
    "10.0.0.0/8": AllowRule(IPv4Network("10.0.0.0/8")),
    "10.0.0.0/8:8080": AllowRule(IPv4Network("10.0.0.0/8"), port=8080),
    "127.0.0.1": AllowRule(IPv4Network("127.0.0.1/32")),
    "127.0.0.1:8000": AllowRule(IPv4Network("127.0.0.1/32"), port=8000),
    "192.168.0.0/255.255.0.0": AllowRule(IPv4Network("192.168.0.0/16")),
    "0.0.0.0/0": AllowRule(IPv4Network("0.0.0.0/0")),
    "[10.0.0.0/8]:80": AllowRule(IPv4Network("10.0.0.0/8"), port=80),
    "::1": AllowRule(IPv6Network("::1/128")),
    "[::1]": AllowRule(IPv6Network("::1/128")),
    "[::1]:1": AllowRule(IPv6Network("::1/128"), port=1),
    "[::1]:65535": AllowRule(IPv6Network("::1/128"), port=65535),
    "fd00::/8": AllowRule(IPv6Network("fd00::/8")),
    "[fd00::/8]": AllowRule(IPv6Network("fd00::/8")),
    "[fd00::/8]:8080": AllowRule(IPv6Network("fd00::/8"), port=8080),
    "::/0": AllowRule(IPv6Network("::/0")),
    "::ffff:10.0.0.0/104": AllowRule(IPv4Network("10.0.0.0/8")),
    "[::ffff:127.0.0.1]:80": AllowRule(IPv4Network("127.0.0.1/32"), port=80),
    "::ffff:0:0/96": AllowRule(IPv4Network("0.0.0.0/0")),
    "example.org": AllowRule(None, "example.org"),
    "example.org:443": AllowRule(None, "example.org", 443),
    "EXAMPLE.Org.": AllowRule(None, "example.org"),
    "localhost:8000": AllowRule(None, "localhost", 8000),
    "media_1.internal": AllowRule(None, "media_1.internal"),
    "*.example.org": AllowRule(None, "*.example.org"),
    "*.Example.org.:8443": AllowRule(None, "*.example.org", 8443),
    "b\u00fccher.example": AllowRule(None, "xn--bcher-kva.example"),
    "*.B\u00dcCHER.example:80": AllowRule(None, "*.xn--bcher-kva.example", 80),
    "xn--bcher-kva.example": AllowRule(None, "xn--bcher-kva.example"),
    "1und1.de": AllowRule(None, "1und1.de"),
}

NO_OPENINGS = [
    "",
    " ",
    "*",
    "*.",
    "*:80",
    ".",
    "..",
    ".example.org",
    "example..org",
    "example.org..",
    "*example.org",
    "*.*.example.org",
    "a.*.example.org",
    "example.*",
    "exam ple.org",
    "example.org/8",
    "example.org/",
    "http://example.org",
    "https://example.org:443/",
    "user@example.org",
    "example.org:",
    "example.org:0",
    "example.org:65536",
    "example.org:99999",
    "example.org:123456",
    "example.org:-1",
    "example.org:http",
    "example.org:\u0668\u0660",
    "example.org:80:80",
    ":80",
    "[]",
    "[]:80",
    "[::1",
    "::1]",
    "[::1]80",
    "[::1]:",
    "[::1]:0",
    "[::1]:65536",
    "[[::1]]",
    "[example.org]",
    "[example.org]:80",
    "fd00::/8:8080",
    "fd00::/129",
    "fd00::1/8",
    "10.0.0.1/8",
    "10.0.0.0/33",
    "10.0.0.0/-1",
    "10.0.0.0/",
    "10.0.0",
    "127.1",
    "2130706433",
    "0177.0.0.1",
    "0x7f000001",
    "10.0.0.0-10.0.0.9",
    "*.10.0.0.1",
    "fe80::1%eth0",
    "[fe80::1%eth0]:80",
    "256.0.0.1",
    "1:2:3",
    "g::1",
    "example.org\n",
    "example.org\r\nX: y",
    "exam\0ple.org",
    "\ud800.example",
    "a" * 64 + ".example",
    pytest.param("a." * 127 + "org", id="a name of 257 bytes"),
]


@pytest.mark.parametrize(("text", "opening"), OPENINGS.items())
def test_an_opening_is_read_as_it_is_meant(text: str, opening: AllowRule) -> None:
    assert parse_allow_rule(text) == opening


@pytest.mark.parametrize("text", NO_OPENINGS)
def test_what_is_no_opening_is_refused_on_one_line(text: str) -> None:
    """Case 41."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_allow_rule(text)
    assert len(str(caught.value).splitlines()) == 1


@quick
@given(st.text() | st.text(st.sampled_from("0123456789abf:.[]/*%-_\u00fc\uff11 ")))
def test_any_text_is_an_opening_or_a_value_error(text: str) -> None:
    try:
        opening = parse_allow_rule(text)
    except ValueError as error:
        lines = str(error).splitlines()
    else:
        assert (opening.network is None) == bool(opening.host)
        assert opening.port is None or 1 <= opening.port <= 65535
        assert opening.host.isascii()
        assert "*" not in opening.host.removeprefix("*.")
        return
    assert len(lines) == 1


# The opening, a host and an address that it led to, a port, and whether they are admitted.
ADMISSIONS = [
    # Cases 59 and 60: what can be fetched can be opened
    ("-a-.example-", "-a-.example-", "10.0.0.1", 80, True),
    ("*.\U0001f3b5.example", "a.xn--ml8h.example", "10.0.0.1", 80, True),
    ("example.org", "example.org", "10.0.0.1", 80, True),
    ("example.org", "example.org", "10.0.0.1", 12345, True),
    ("example.org", "example.org", "::1", 80, True),
    ("example.org", "example.org.evil.com", "10.0.0.1", 80, False),
    ("example.org", "evilexample.org", "10.0.0.1", 80, False),
    ("example.org", "a.example.org", "10.0.0.1", 80, False),
    ("example.org", "org", "10.0.0.1", 80, False),
    ("example.org", "example.orgs", "10.0.0.1", 80, False),
    ("example.org", "examplexorg", "10.0.0.1", 80, False),
    ("example.org", "", "10.0.0.1", 80, False),
    ("*.example.org", "a.example.org", "10.0.0.1", 80, True),
    ("*.example.org", "a.b.example.org", "10.0.0.1", 80, True),
    ("*.example.org", "example.org", "10.0.0.1", 80, False),
    ("*.example.org", ".example.org", "10.0.0.1", 80, False),
    ("*.example.org", "evilexample.org", "10.0.0.1", 80, False),
    ("*.example.org", "a.example.org.evil.com", "10.0.0.1", 80, False),
    ("*.example.org", "a.examplexorg", "10.0.0.1", 80, False),
    ("*.example.org", "a.example.org.", "10.0.0.1", 80, False),
    ("example.org:8080", "example.org", "10.0.0.1", 8080, True),
    ("example.org:8080", "example.org", "10.0.0.1", 80, False),
    ("example.org:8080", "example.org", "10.0.0.1", 808, False),
    ("*.example.org:443", "a.example.org", "10.0.0.1", 443, True),
    ("*.example.org:443", "a.example.org", "10.0.0.1", 80, False),
    ("10.0.0.0/8", "whatever.example", "10.0.0.0", 80, True),
    ("10.0.0.0/8", "whatever.example", "10.255.255.255", 9999, True),
    ("10.0.0.0/8", "whatever.example", "11.0.0.0", 9999, False),
    ("10.0.0.0/8", "10.0.0.1", "127.0.0.1", 80, False),
    ("10.0.0.0/8:8080", "a.example", "10.1.2.3", 8080, True),
    ("10.0.0.0/8:8080", "a.example", "10.1.2.3", 80, False),
    ("10.0.0.0/8", "a.example", "::ffff:10.1.2.3", 80, True),
    ("10.0.0.0/8", "a.example", "::ffff:11.1.2.3", 8080, False),
    ("::ffff:10.0.0.0/104", "a.example", "10.1.2.3", 80, True),
    ("::ffff:10.0.0.0/104", "a.example", "::ffff:10.1.2.3", 80, True),
    ("::ffff:10.0.0.0/104", "a.example", "::ffff:127.0.0.1", 80, False),
    ("10.0.0.0/8", "a.example", "64:ff9b::10.0.0.1", 80, False),
    ("10.0.0.0/8", "a.example", "::10.0.0.1", 80, False),
    ("10.0.0.0/8", "a.example", "2002:a00:1::", 80, False),
    ("64:ff9b::/96", "a.example", "64:ff9b::10.0.0.1", 80, True),
    ("0.0.0.0/0", "a.example", "127.0.0.1", 80, True),
    ("0.0.0.0/0", "a.example", "::1", 80, False),
    ("::/0", "a.example", "::1", 80, True),
    ("::/0", "a.example", "127.0.0.1", 80, False),
    ("::/0", "a.example", "::ffff:127.0.0.1", 80, False),
    ("fd00::/8", "a.example", "fd12::1", 80, True),
    ("fd00::/8", "a.example", "fc12::1", 80, False),
    ("[::1]:8000", "localhost", "::1", 8000, True),
    ("[::1]:8000", "localhost", "::1", 8001, False),
    ("[::1]:8000", "localhost", "127.0.0.1", 8000, False),
]


@pytest.mark.parametrize(("text", "host", "address", "port", "admitted"), ADMISSIONS)
def test_an_opening_admits_what_it_names_and_nothing_that_looks_like_it(
    text: str, host: str, address: str, port: int, admitted: bool
) -> None:
    """Case 41."""
    policy = Policy((parse_allow_rule(text),))
    assert policy.admits(host, ip_address(address), port) is admitted


@pytest.mark.parametrize(("text", "host", "address", "port", "admitted"), ADMISSIONS)
def test_what_one_opening_admits_is_admitted_beside_others(
    text: str, host: str, address: str, port: int, admitted: bool
) -> None:
    others = (parse_allow_rule("203.0.113.7"), parse_allow_rule("*.other.example:1"))
    for openings in ((parse_allow_rule(text), *others), (*others, parse_allow_rule(text))):
        assert Policy(openings, public=False).admits(host, ip_address(address), port) is admitted


labels = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,4}[a-z0-9])?", fullmatch=True)
hosts = st.lists(labels, min_size=1, max_size=4).map(".".join)


@quick
@given(hosts, hosts)
def test_a_name_opens_itself_and_a_star_what_is_below_it(name: str, host: str) -> None:
    """Case 41."""
    address = ip_address("10.0.0.1")
    assert AllowRule(None, name).admits(host, address, 80) == (host == name)
    assert AllowRule(None, f"*.{name}").admits(f"{host}.{name}", address, 80)
    for other in (name, f"{host}{name}", f"{host}-{name}", f"{name}.{host}.test"):
        if not other.endswith(f".{name}"):
            assert not AllowRule(None, f"*.{name}").admits(other, address, 80)


# Policies


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
@pytest.mark.parametrize("port", [80, 443])
def test_public_addresses_are_admitted_on_the_ports_of_http(address: str, port: int) -> None:
    assert Policy().admits("a.example", ip_address(address), port)


@pytest.mark.parametrize("port", [0, 1, 22, 25, 79, 81, 442, 444, 6379, 8080, 65535])
def test_public_addresses_are_admitted_on_no_other_port(port: int) -> None:
    assert not Policy().admits("a.example", ip_address("8.8.8.8"), port)
    assert port not in PUBLIC_PORTS


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_by_itself_nothing_else_is_admitted(text: str) -> None:
    """Case 38."""
    for port in PUBLIC_PORTS:
        assert not Policy().admits("a.example", ip_address(text), port)


@pytest.mark.parametrize("text", [*PUBLIC, *NOT_PUBLIC])
def test_a_policy_that_opens_nothing_admits_nothing(text: str) -> None:
    assert not Policy(public=False).admits("a.example", ip_address(text), 80)


def test_an_opening_of_a_public_address_opens_its_other_ports() -> None:
    policy = Policy((parse_allow_rule("8.8.8.8"), parse_allow_rule("a.example:8080")))
    assert policy.admits("b.example", ip_address("8.8.8.8"), 8443)
    assert policy.admits("a.example", ip_address("1.1.1.1"), 8080)
    assert not policy.admits("b.example", ip_address("1.1.1.1"), 8080)


@pytest.mark.parametrize(
    ("addresses", "admitted"),
    [
        ([], False),
        (["8.8.8.8"], True),
        (["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"], True),
        (["10.0.0.1"], False),
        (["8.8.8.8", "10.0.0.1"], False),
        (["10.0.0.1", "8.8.8.8"], False),
        (["8.8.8.8", "1.1.1.1", "::1", "2606:4700:4700::1111"], False),
        (["8.8.8.8", "::ffff:127.0.0.1"], False),
        (["192.168.1.1"], True),
        (["192.168.1.1", "8.8.8.8"], True),
        (["192.168.1.1", "192.168.2.1"], False),
    ],
)
def test_of_the_addresses_of_a_name_all_are_admitted_or_none(
    addresses: list[str], admitted: bool
) -> None:
    """Case 40."""
    policy = Policy((parse_allow_rule("192.168.1.0/24"),))
    assert policy.admits_all("a.example", map(ip_address, addresses), 80) is admitted


def test_even_an_open_name_that_leads_nowhere_is_not_admitted() -> None:
    assert not Policy((parse_allow_rule("a.example"),)).admits_all("a.example", [], 80)


@pytest.mark.parametrize(
    ("host", "address", "port", "admitted"),
    [
        ("127.0.0.1", "127.0.0.1", 8000, True),
        ("127.0.0.1", "::ffff:127.0.0.1", 8000, True),
        ("127.0.0.1", "127.0.0.1", 8001, False),
        ("127.0.0.1", "127.0.0.1", 80, False),
        ("127.0.0.1", "127.0.0.2", 8000, False),
        ("127.0.0.1", "::1", 8000, False),
        ("127.0.0.1", "8.8.8.8", 80, False),
        ("::1", "::1", 8000, True),
        ("::1", "127.0.0.1", 8000, False),
        ("::1", "::1", 80, False),
        ("::ffff:7f00:1", "127.0.0.1", 8000, True),
        ("::ffff:7f00:1", "::ffff:7f00:1", 8000, True),
        ("localhost", "127.0.0.1", 8000, True),
        ("localhost", "::1", 8000, True),
        ("localhost", "127.0.0.1", 80, False),
        ("upstream.example", "10.9.8.7", 8000, True),
        ("upstream.example", "8.8.8.8", 8000, True),
        ("upstream.example", "8.8.8.8", 443, False),
    ],
)
def test_an_origin_is_admitted_wherever_it_is_and_on_its_port_only(
    host: str, address: str, port: int, admitted: bool
) -> None:
    assert origin_only(host, 8000).admits(host, ip_address(address), port) is admitted


@pytest.mark.parametrize(
    "host", ["a.upstream.example", "upstream.example.evil.com", "evilupstream.example", "127.1"]
)
def test_another_host_is_not_the_origin(host: str) -> None:
    """Case 41."""
    policy = origin_only("upstream.example", 80)
    for address in ("127.0.0.1", "8.8.8.8"):
        assert not policy.admits(host, ip_address(address), 80)

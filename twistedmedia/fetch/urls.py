"""URLs to fetch: parsed once and strictly, and formatted as they are sent.

Pure. The policy, the connection and the Host header use the same parsed parts, so they cannot read
a URL differently. Path and query are sent as they were given. Only characters that a URI may not
contain (RFC 3986, 2) are escaped, as browsers do it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import unquote_to_bytes

import idna

MAX_URL_BYTES = 8 << 10
DEFAULT_PORTS = {"http": 80, "https": 443}

# RFC 3986, appendix B, for URLs with an authority.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_REST = re.compile(r"//([^/?#\\]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?")
_AUTHORITY = re.compile(r"(?:\[([^\[\]@]*)\]|([^\[\]:@]*))(?::([0-9]*))?")
_CREDENTIALS = re.compile(r"([A-Za-z]+://)([^/?#\\@]*)@(.*)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Underscores, and hyphens anywhere, are not in registered names, but in those of local resolvers.
_HOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
_MAX_LABEL_BYTES = 63
_JOINERS = "\u200c\u200d"
# Bytes that a path or a query may not contain (RFC 3986, 3.3 and 3.4).
_NOT_IN_PATH = re.compile(rb"[^A-Za-z0-9\-._~!$&'()*+,;=:@/%]")
_NOT_IN_QUERY = re.compile(rb"[^A-Za-z0-9\-._~!$&'()*+,;=:@/?%]")
_BARE_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute http or https URL. `host` is ASCII in lower case, without the brackets of an IPv6
    address. `target` is path and query, and begins with a slash.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        """Scheme, host and, unless it is the default, port (RFC 6454, 6.2)."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and, unless it is the default, port, as in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def filename(self) -> bytes:
        """The last segment of the path, decoded."""
        return unquote_to_bytes(self.target.partition("?")[0].rpartition("/")[2])

    def __str__(self) -> str:
        return self.origin + self.target


def parse_url(text: str) -> Url:
    """Parse a URL. Its fragment is dropped.

    :raises ValueError: with a clause that says what is wrong with it.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_URL_BYTES:
        raise ValueError(f"it is longer than {MAX_URL_BYTES} bytes")
    if _CONTROL.search(text):
        raise ValueError("it contains a control character")
    text = text.strip(" ")
    prefix = _SCHEME.match(text)
    if prefix is None:
        raise ValueError("it does not begin with http:// or https://")
    scheme = prefix[1].lower()
    if scheme not in DEFAULT_PORTS:
        raise ValueError("only http and https can be fetched")
    rest = _REST.fullmatch(text, prefix.end())
    if rest is None or not rest[1]:
        raise ValueError("it has no host")
    if "@" in rest[1]:
        raise ValueError("it contains a user name or password, which are not sent")
    host, port = _host_and_port(rest[1], scheme)
    target = _escaped(rest[2], _NOT_IN_PATH)
    if rest[3] is not None:
        target += "?" + _escaped(rest[3], _NOT_IN_QUERY)
    return Url(scheme, host, port, target if target.startswith("/") else "/" + target)


def split_credentials(text: str) -> tuple[str | None, str]:
    """Returns the user name and password in a URL as the value of Authorization (RFC 7617), or None
    if there are none, and the URL without them.
    """
    match = _CREDENTIALS.fullmatch(text)
    if match is None:
        return None, text
    user, _, password = match[2].partition(":")
    pair = b"%b:%b" % (unquote_to_bytes(user), unquote_to_bytes(password))
    return (f"Basic {b64encode(pair).decode()}" if match[2] else None), match[1] + match[3]


def resolve(location: str, base: Url) -> Url:
    """Resolve the Location of a response to `base` (RFC 9110, 10.2.2; RFC 3986, 5.2). Unlike
    `urljoin`, it keeps empty parts: dropping them would break signed URLs.

    :raises ValueError: as `parse_url` does.
    """
    text = location.strip(" ").partition("#")[0]
    if _SCHEME.match(text):
        return parse_url(text)
    if text.startswith("//"):
        return parse_url(f"{base.scheme}:{text}")
    path, question, query = text.partition("?")
    base_path, base_question, base_query = base.target.partition("?")
    if not path:
        path = base_path
        if not question:
            question, query = base_question, base_query
    elif not path.startswith("/"):
        path = base_path.rpartition("/")[0] + "/" + path
    return parse_url(base.origin + _without_dots(path) + question + query)


def _without_dots(path: str) -> str:
    """Remove dot segments (RFC 3986, 5.2.4) of a path that begins with a slash."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def normalize_host(text: str) -> str:
    """Returns a host name in ASCII and lower case, without the dot of the root.

    Other characters are processed as browsers do it (WHATWG URL, 3.3: UTS 46, not transitional,
    CheckHyphens and UseSTD3ASCIIRules off). So emoji are valid, which IDNA 2008 rules out.

    :raises ValueError: if it is not a host name.
    """
    host = text.lower()
    if not host.isascii():
        try:
            mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
            host = ".".join(map(_ascii_label, mapped.split(".")))
        except ValueError:
            raise ValueError("its host is neither a name nor an address") from None
    host = host.removesuffix(".")
    if len(host) > 253 or _HOST.fullmatch(host) is None:
        raise ValueError("its host is neither a name nor an address")
    return host


def _ascii_label(label: str) -> str:
    """Returns a label of a mapped name, in Punycode if it is not ASCII.

    :raises ValueError: if it violates UTS 46, 4.1.
    """
    if label.isascii():
        return label
    if len(label) > _MAX_LABEL_BYTES or label.startswith("xn--"):
        raise ValueError("the label is too long, or begins as Punycode does")
    idna.check_initial_combiner(label)
    idna.check_bidi(label)
    for index, character in enumerate(label):
        if character in _JOINERS and not idna.valid_contextj(label, index):
            raise ValueError("a joiner where it is not allowed")
    return "xn--" + label.encode("punycode").decode("ascii")


def _host_and_port(text: str, scheme: str) -> tuple[str, int]:
    authority = _AUTHORITY.fullmatch(text)
    if authority is None:
        raise ValueError("its host is neither a name nor an address")
    host = normalize_host(authority[2]) if authority[1] is None else _ipv6_host(authority[1])
    digits = (authority[3] or "").lstrip("0")
    if authority[3] and not (digits and len(digits) <= 5 and int(digits) <= 65535):
        raise ValueError("its port is not a number from 1 to 65535")
    port = int(digits) if digits else DEFAULT_PORTS[scheme]
    return host, port


def _ipv6_host(text: str) -> str:
    try:
        address = IPv6Address(text)
    except ValueError:
        raise ValueError("its host is neither a name nor an address") from None
    if address.scope_id is not None:
        raise ValueError("its host has a zone, which is valid on one machine only")
    return str(address)


def _escaped(text: str, forbidden: re.Pattern[bytes]) -> str:
    data = text.encode("utf-8", "surrogatepass")
    data = _BARE_PERCENT.sub(b"%25", data)
    return forbidden.sub(lambda match: b"%%%02X" % match[0][0], data).decode("ascii")

"""The heads of HTTP messages: a strict parser for those of requests, limits for those of responses.

Pure. RFC 9112, 2 to 6. A request head that two programs could read in two ways is refused, so that
nobody can disagree about where a request ends or which host it is for; a refusal ends the
connection. Twisted's HTTP client parses the heads of responses. It limits the length of a line, but
neither the number of lines nor that of interim responses.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from string import ascii_letters, digits
from typing import NamedTuple

from twistedmedia.errors import BadRequest, HeadTooLarge, TargetTooLong

# A media name takes up to 3 KiB of a request line, a URL to fetch up to 8 KiB, and more if it is
# percent-encoded. Proxies and servers commonly allow 8 KiB.
MAX_LINE_BYTES = 16 << 10
MAX_HEAD_BYTES = 32 << 10
MAX_FIELDS = 256
MAX_NAME_BYTES = 128  # of a field name; Twisted caches 10,000 of them
_MAX_HOST_BYTES = 255 + len(":65535")  # RFC 1035, 2.3.4
MAX_LENGTH_BYTES = (1 << 63) - 1  # the largest signed 64-bit number
_MAX_LENGTH_DIGITS = 19

_END = b"\r\n\r\n"
_TOKEN_BYTES = (ascii_letters + digits + "!#$%&'*+-.^_`|~").encode()  # RFC 9110, 5.6.2
_TOKEN = b"[%b]+" % re.escape(_TOKEN_BYTES)
_FIRST_BYTES = frozenset(_TOKEN_BYTES[n : n + 1] for n in range(len(_TOKEN_BYTES)))
_CONTROLS = bytes({*range(32), 127} - set(b"\t\r\n"))
_REQUEST_LINE = re.compile(rb"(%b) ([^\x00-\x20\x7f#]+) (HTTP/1\.[01])" % _TOKEN)
_NAME = re.compile(_TOKEN)
_FORWARDED = re.compile(rb"^x-forwarded-for:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_COMMON_NAMES = frozenset(  # known to be valid
    (
        b"Host User-Agent Accept Accept-Encoding Accept-Language Connection Content-Length "
        b"Content-Type Cookie Expect If-Match If-None-Match If-Modified-Since Origin Range Referer "
        b"Transfer-Encoding X-Forwarded-For"
    ).split()
)
# RFC 9112, 3.2.2: a host, then a path, which may be empty.
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?]*)(/?.*)", re.IGNORECASE | re.DOTALL)
# RFC 3986, 3.2.2 and 3.2.3: a name or an IPv4 address, or an IPv6 address, and a port.
_HOST = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?"
)


class Head(NamedTuple):
    """The head of a request.

    `target` begins with a slash. `fields` are the header lines in order, their names as sent. All
    `Expect` lines are joined into one, without duplicates, and left out if they are empty. `length`
    is that of the content in bytes, None if it is chunked. `persistent` is whether the client
    allows another request on the connection.
    """

    method: bytes
    target: bytes
    version: bytes
    fields: list[tuple[bytes, bytes]]
    length: int | None
    persistent: bool


def find_head(received: bytes, seen: int = 0) -> int | None:
    """Return the size of the head that `received` begins with, without the empty line that ends it;
    None if it is incomplete. The first `seen` bytes have been searched by an earlier call.

    :raises TargetTooLong: if the request line is too long, complete or not.
    :raises HeadTooLarge: if the head is.
    :raises BadRequest: if `received` cannot be the beginning of a valid head.
    """
    if received[:1] not in _FIRST_BYTES:
        raise BadRequest("this is not HTTP")
    end = received.find(_END, max(0, seen - 3))
    if 0 <= end <= MAX_LINE_BYTES:
        return end
    line_end = received.find(b"\r\n")
    if (line_end if line_end >= 0 else len(received.removesuffix(b"\r"))) > MAX_LINE_BYTES:
        raise TargetTooLong(MAX_LINE_BYTES)
    if (end if end >= 0 else len(received) - _partial_end_bytes(received)) > MAX_HEAD_BYTES:
        raise HeadTooLarge(f"{MAX_HEAD_BYTES} bytes")
    if end >= 0:
        return end
    # Refuse an invalid head now instead of waiting for its end.
    _check_bytes(received[max(0, seen - 1) :].removeprefix(b"\n").removesuffix(b"\r"))
    if line_end >= max(0, seen - 1):
        _parse_request_line(received[:line_end])
    return None


def parse_head(head: bytes) -> Head:
    """Parse a head, without the empty line that ends it.

    :raises BadRequest: if it is malformed or ambiguous.
    :raises HeadTooLarge: if it has too many header lines, or a name is too long.
    """
    _check_bytes(head)
    request_line, *lines = head.split(b"\r\n")
    method, target, version = _parse_request_line(request_line)
    if len(lines) > MAX_FIELDS:
        raise HeadTooLarge(f"{MAX_FIELDS} lines")
    fields = []
    host = length = coding = None
    expectations: list[bytes] = []
    persistent = version == b"HTTP/1.1"
    for line in lines:
        name, colon, value = line.partition(b":")
        # This refuses folded lines as well: they have no name.
        if not colon or (name not in _COMMON_NAMES and not _NAME.fullmatch(name)):
            raise BadRequest("a header line is not a name, a colon and a value")
        if len(name) > MAX_NAME_BYTES:
            raise HeadTooLarge(f"{MAX_NAME_BYTES} bytes in a name")
        value = value.strip(b" \t")
        fields.append((name, value))
        match name.lower():
            case b"host":
                host = _check_first(host, value, "Host header")
            case b"content-length":
                length = _check_first(length, value, "Content-Length")
            case b"transfer-encoding":
                coding = _check_first(coding, value, "Transfer-Encoding")
            case b"expect":
                fields.pop()
                expectations += value.lower().split(b",")
            case b"connection":
                if b"close" in (token.strip(b" \t") for token in value.lower().split(b",")):
                    persistent = False
    if host is None and version == b"HTTP/1.1":
        raise BadRequest("there must be one Host header")
    if host is not None:
        _check_host(host)
    if target[0] != 47:  # a slash
        target, host = _origin_form(target)
        fields = [pair for pair in fields if pair[0].lower() != b"host"]
        fields.append((b"Host", host))  # RFC 9112, 3.2.2: it replaces the header
    expected = {each.strip(b" \t"): None for each in expectations}  # in order, without duplicates
    expected.pop(b"", None)  # RFC 9110, 5.6.1.2: elements of a list may be empty
    if expected and version == b"HTTP/1.1":  # 10.1.1: HTTP/1.0 has no expectations
        fields.append((b"Expect", b", ".join(expected)))
    return Head(method, target, version, fields, _length_of(length, coding, version), persistent)


class HeadReader:
    """Finds the heads in the bytes that a connection receives, one after the other.

    `has_begun` is whether the beginning of a head was received, but not its end.
    """

    __slots__ = ("_seen", "_skipped_line", "has_begun")

    def __init__(self) -> None:
        self.has_begun = False
        self._skipped_line = False  # one may be empty before a request (RFC 9112, 2.2)
        self._seen = 0  # searched bytes of an incomplete head

    def take(self, received: bytes) -> tuple[Head | None, bytes]:
        """Return the head that `received` begins with, None if it is incomplete, and the remaining
        bytes. The caller passes these again, followed by the bytes that it receives next.

        :raises MediaError: as `find_head` and `parse_head`.
        """
        if received.startswith(b"\r") and not self._skipped_line:
            if received == b"\r":
                return None, received
            if received.startswith(b"\r\n"):
                self._skipped_line = True
                received = received[2:]
                if not received:
                    return None, received
        end = find_head(received, self._seen)
        if end is None:
            self._seen = len(received)
            self.has_begun = True
            return None, received
        head = parse_head(received[:end])
        self._seen = 0
        self.has_begun = self._skipped_line = False
        return head, received[end + 4 :]


def forwarded_for_lines(received: bytes) -> list[bytes]:
    """Return the values of `X-Forwarded-For` in the head that `received` begins with, which may be
    incomplete.
    """
    return _FORWARDED.findall(received.partition(b"\r\n\r\n")[0])


def is_header_line(line: bytes) -> bool:
    """Whether `line`, without its CRLF, is a name, a colon and a value."""
    name, colon, value = line.partition(b":")
    controls = len(value.translate(None, _CONTROLS + b"\r\n")) != len(value)
    return bool(colon and _NAME.fullmatch(name)) and not controls


def _partial_end_bytes(received: bytes) -> int:
    """How many bytes at the end of `received` may be the beginning of the end of a head."""
    return next((n for n in (3, 2, 1) if received.endswith(_END[:n])), 0)


def _check_bytes(head: bytes) -> None:
    if len(head.translate(None, _CONTROLS)) != len(head):
        raise BadRequest("there is a control character in the head")
    lines = head.count(b"\r\n")
    if head.count(b"\n") != lines or head.count(b"\r") != lines:
        raise BadRequest("a line must end with CRLF")


def _parse_request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadRequest("the request line is not a method, a target and HTTP/1.1 or HTTP/1.0")
    method, target, version = match.groups()
    return method, target, version


def _check_first(previous: bytes | None, value: bytes, what: str) -> bytes:
    if previous is not None:
        raise BadRequest(f"there is more than one {what}")
    return value


def _check_host(host: bytes) -> None:
    match = _HOST.fullmatch(host) if len(host) <= _MAX_HOST_BYTES else None
    if match is None or int(match[2] or 0) > 65535 or (match[1] and not _is_ipv6(match[1])):
        raise BadRequest("the Host header is not a host name or an address")


def _is_ipv6(text: bytes) -> bool:
    try:
        IPv6Address(text.decode("ascii"))
    except ValueError:
        return False
    return True


def _origin_form(target: bytes) -> tuple[bytes, bytes]:
    """Return the path and the host of a target in absolute form (RFC 9112, 3.2.2).

    :raises BadRequest: if it has another form: no resource here uses those.
    """
    match = _ABSOLUTE_FORM.fullmatch(target)
    if match is None:
        raise BadRequest("the target is neither a path nor a URL")
    _check_host(match[1])
    path = match[2]
    return (path if path.startswith(b"/") else b"/" + path), match[1]


def _length_of(length: bytes | None, coding: bytes | None, version: bytes) -> int | None:
    """Return the length of the content, None if it is chunked (RFC 9112, 6.3)."""
    if coding is not None:
        if length is not None:
            raise BadRequest("there are both a Content-Length and a Transfer-Encoding")
        if version != b"HTTP/1.1":
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise BadRequest("the only supported transfer coding is chunked")
        return None
    if length is None:
        return 0
    if not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS or int(length) > MAX_LENGTH_BYTES:
        raise BadRequest("the Content-Length is not a number of bytes")
    return int(length)


MAX_RESPONSE_HEAD_BYTES = 64 << 10  # those of interim responses included
MAX_INTERIM = 16  # interim responses (RFC 9110, 15.2); Twisted logs each of them


class ResponseHeads:
    """Measures the head of a response and those of the interim responses before it, ahead of
    Twisted's parser and by the same rules.
    """

    def __init__(self) -> None:
        self.interim = 0
        self.is_complete = False  # the final head
        self.is_chunked = False  # the content
        self._size = 0
        self._fields = 0
        self._line: list[bytes] = []  # the pieces of an incomplete line
        self._line_bytes = 0
        self._status_line = b""

    def feed(self, data: bytes) -> int:
        """Measure received bytes. Returns how many were used: up to the end of a head."""
        before = self._size + self._line_bytes
        self._line.append(data)
        self._line_bytes += len(data)
        if b"\n" not in data:
            return len(data)
        *lines, rest = b"".join(self._line).split(b"\n")
        self._line, self._line_bytes = [rest], len(rest)
        for line in lines:
            self._size += len(line) + 1
            line = line.removesuffix(b"\r")
            if not self._status_line:
                self._status_line = line or b"none"
            elif line:
                self._fields += 1
                if line[:18].lower() == b"transfer-encoding:":
                    self.is_chunked = True
            else:
                if 100 <= _status_code(self._status_line) < 200:
                    self.interim += 1
                    self._status_line = b""
                else:
                    self.is_complete = True
                self._line, self._line_bytes = [], 0
                return self._size - before
        return len(data)

    @property
    def are_too_large(self) -> bool:
        """Whether the heads exceed a limit."""
        return (
            self._size + self._line_bytes > MAX_RESPONSE_HEAD_BYTES
            or self._fields > MAX_FIELDS
            or self.interim > MAX_INTERIM
        )


def _status_code(status_line: bytes) -> int:
    try:
        return int(status_line.split(b" ", 2)[1])
    except (IndexError, ValueError):
        return 0

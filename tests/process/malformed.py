"""The table of malformed, ambiguous, and unusual but valid requests: the service's response, the
reason, and nginx's response if it differs. `python -m tests.process.malformed` writes it as
docs/malformed.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import wrap

from twistedmedia.http.framing import MAX_SIZE_LINE_BYTES as MAX_SIZE_LINE
from twistedmedia.http.framing import MAX_TRAILER_BYTES as MAX_TRAILERS
from twistedmedia.http.heads import MAX_FIELDS
from twistedmedia.http.heads import MAX_HEAD_BYTES as MAX_HEAD
from twistedmedia.http.heads import MAX_LINE_BYTES as MAX_LINE

DOCUMENT = Path(__file__).parents[2] / "docs" / "malformed.md"

DIRECTORY = "refused"
VICTIM = f"/media/{DIRECTORY}/victim.wav"  # exists, and must not change
VICTIM_CONTENT = b"the victim"
STORED = f"/media/{DIRECTORY}/stored.wav"  # what a PUT of the table would store
SMUGGLED = f"/media/{DIRECTORY}/smuggled.wav"

_PATH = VICTIM.encode()
GET = b"GET " + _PATH + b" HTTP/1.1"
PUT = b"PUT " + STORED.encode() + b" HTTP/1.1"
HOST = b"Host: 127.0.0.1"
END = b"\r\n\r\n"
CONTENT = b"5\r\nhello\r\n0\r\n\r\n"  # "hello" in chunked coding

# Responses of nginx that have no status.
NOTHING = "nothing"
BARE = "the bare file"

# Why nginx responds differently.
_EMPTY_LINES = "ignores any number of CR and LF"
_LF_ENDS = "accepts LF as a line end"
_TABS = "treats tabs as part of the value (against 5.1)"


@dataclass(frozen=True)
class Row:
    """One request and its response."""

    group: str
    name: str
    sent: bytes  # the whole request
    shown: str  # the part that `Group.frame` completes
    status: int
    note: str
    code: int  # in the JSON; 200 if the response may have no JSON
    stored: bytes | None = None  # the content of the file that it stores
    is_last: bool = False  # the connection ends after it
    nginx: str | None = None  # the response of nginx, None if it is the same
    why: str = ""  # the reason for it

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"

    @property
    def response(self) -> str:
        """The status as the page shows it, with the code if that differs."""
        if self.code in (200, self.status):
            return str(self.status)
        return f"{self.status} ({self.code})"


@dataclass(frozen=True)
class Group:
    """Requests of one kind. `frame` completes the part in which they differ."""

    title: str
    about: str
    frame: Callable[[bytes], bytes]
    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        name: str,
        part: bytes,
        status: int,
        note: str,
        *,
        code: int | None = None,
        stored: bytes | None = None,
        is_last: bool = False,
    ) -> None:
        """Add a request. `note` is the reason for its response, with the section of RFC 9112."""
        if code is None:
            code = status if status >= 400 else 200
        sent, shown = self.frame(part), _shown(part)
        self.rows.append(Row(self.title, name, sent, shown, status, note, code, stored, is_last))

    def nginx(self, response: str, why: str, *names: str) -> None:
        """Set the response of nginx to the rows with these names."""
        for name in names:
            at = [row.name for row in self.rows].index(name)
            self.rows[at] = replace(self.rows[at], nginx=response, why=why)


def _shown(part: bytes) -> str:
    """Format bytes for the page: unprintable ones escaped, repeated ones once."""
    escapes = {"\r": r"\r", "\n": r"\n", "\t": r"\t"}
    text = "".join(
        each if " " <= each <= "~" else escapes.get(each, f"\\x{ord(each):02x}")
        for each in part.decode("latin-1")
    )
    text = re.sub(
        r"(.{1,40}?)\1{29,}", lambda run: f"({run[1]} × {len(run[0]) // len(run[1]):,})", text
    )
    return re.sub(r"^ | $|(?<= ) ", r"\\x20", text)


# The frames


def _whole(request: bytes) -> bytes:
    return request


def _with_line(line: bytes) -> bytes:
    return line + b"\r\n" + HOST + END


def _with_target(target: bytes) -> bytes:
    return _with_line(b"GET " + target + b" HTTP/1.1")


def _with_host(lines: bytes) -> bytes:
    return GET + b"\r\n" + lines + END


def _with_headers(lines: bytes) -> bytes:
    return GET + b"\r\n" + HOST + b"\r\n" + lines + END


def _with_frame(lines: bytes) -> bytes:
    return PUT + b"\r\n" + HOST + b"\r\n" + lines + END + CONTENT


def _with_chunks(chunks: bytes) -> bytes:
    return PUT + b"\r\n" + HOST + b"\r\nTransfer-Encoding: chunked" + END + chunks


# Refused requests


def _refused() -> Iterator[Group]:
    yield _beginnings()
    yield _request_lines()
    yield _targets()
    yield _hosts()
    yield _http_1_0()
    yield _line_ends()
    yield _headers()
    yield _limits()
    yield _lengths()
    yield _codings()
    yield _chunks()


def _beginnings() -> Group:
    it = Group("What is not HTTP", "This is all that is sent.", _whole)
    it.add(
        "TLS",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        400,
        "3.1: no method begins like this",
    )
    it.add("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", 400, "3: no target, no version")
    it.add(
        "HTTP/2",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        400,
        "2.3: another version; HTTP/1.1 servers refuse this preface (9113 3.4)",
    )
    it.add("a NUL", b"\0", 400, "3.1: no method begins like this")
    it.add("a byte outside ASCII", b"\x80", 400, "3.1: no method begins like this")
    it.add("JSON", b"{", 400, "3.1: no method begins like this")
    it.add("a header without a request", HOST + b"\r\n", 400, "3: no request line")
    it.add("a response", b"HTTP/1.1 200 OK\r\n", 400, "3: no request line")
    it.add("two empty lines", b"\r\n\r\n" + _with_headers(b"X: y"), 400, "2.2: only one is ignored")
    it.add("an LF", b"\n" + _with_headers(b"X: y"), 400, "2.2: not an empty line")
    it.add("a CR", b"\r" + _with_headers(b"X: y"), 400, "2.2: not an empty line")
    it.add("a space", b" " + _with_headers(b"X: y"), 400, "3: a method comes first")
    it.add(
        "a byte order mark",
        b"\xef\xbb\xbf" + _with_headers(b"X: y"),
        400,
        "3: a method comes first",
    )
    it.nginx("200", _EMPTY_LINES, "two empty lines", "an LF", "a CR")
    return it


def _request_lines() -> Group:
    it = Group("Request lines", f"`{HOST.decode()}` and the end of the head follow.", _with_line)
    it.add("HTTP/0.9", b"GET " + _PATH, 400, "3: no version")
    it.add("a space for a version", b"GET " + _PATH + b" ", 400, "3: no version")
    it.add("a method only", b"GET", 400, "3: no target")
    it.add("no target", b"GET HTTP/1.1", 400, "3: no target, or no version")
    it.add("an empty target", b"GET  HTTP/1.1", 400, "3.2: no target")
    it.add("two spaces after the method", b"GET  " + _PATH + b" HTTP/1.1", 400, "3: one space")
    it.add("two spaces after the target", b"GET " + _PATH + b"  HTTP/1.1", 400, "3: one space")
    it.add("a space after the version", GET + b" ", 400, "3: not allowed there")
    it.add("a tab after the method", b"GET\t" + _PATH + b" HTTP/1.1", 400, "3: one space")
    it.add("a tab after the target", b"GET " + _PATH + b"\tHTTP/1.1", 400, "3: one space")
    it.add("a space in the target", b"GET /a b HTTP/1.1", 400, "3.2: must not contain spaces")
    it.add("a method that is not a token", b"GE(T " + _PATH + b" HTTP/1.1", 400, "3.1: a token")
    it.add("a method outside ASCII", b"G\xcbT " + _PATH + b" HTTP/1.1", 400, "3.1: a token")
    it.add("version 2.0", b"GET " + _PATH + b" HTTP/2.0", 400, "2.3: another version")
    it.add("version 1.2", b"GET " + _PATH + b" HTTP/1.2", 400, "2.3: does not exist")
    it.add("version 1.10", b"GET " + _PATH + b" HTTP/1.10", 400, "2.3: one digit")
    it.add("version 01.1", b"GET " + _PATH + b" HTTP/01.1", 400, "2.3: one digit")
    it.add("version 0.9", b"GET " + _PATH + b" HTTP/0.9", 400, "2.3: never sent")
    it.add("version 1", b"GET " + _PATH + b" HTTP/1", 400, "2.3: two digits and a dot")
    it.add("version 1,1", b"GET " + _PATH + b" HTTP/1,1", 400, "2.3: two digits and a dot")
    it.add("no number", b"GET " + _PATH + b" HTTP/", 400, "2.3: two digits and a dot")
    it.add("lower case", b"GET " + _PATH + b" http/1.1", 400, "2.3: in capitals")
    it.add("another protocol", b"OPTIONS " + _PATH + b" RTSP/1.0", 400, "2.3: not HTTP")
    it.add("OPTIONS *", b"OPTIONS * HTTP/1.1", 400, "3.2.4: not supported")
    it.add("CONNECT", b"CONNECT 127.0.0.1:80 HTTP/1.1", 400, "3.2.3: for proxies")
    it.add("CONNECT, in lower case", b"connect 127.0.0.1:80 HTTP/1.1", 400, "3.2.3: no such method")
    it.nginx(BARE, "still supports it", "HTTP/0.9", "a space for a version")
    it.nginx(
        "200",
        "accepts several spaces, as 3 allows",
        "two spaces after the method",
        "two spaces after the target",
        "a space after the version",
    )
    it.nginx("505", "reports the unsupported version, as 9110 15.6.6 allows", "version 2.0")
    it.nginx("200", "treats it as 1.1, as 9110 2.5 requires", "version 1.2")
    it.nginx("200", "accepts versions up to 1.99 (against 2.3)", "version 1.10")
    return it


def _targets() -> Group:
    it = Group(
        "Targets",
        f"Of a `GET` in HTTP/1.1; `{HOST.decode()}` and the end of the head follow.",
        _with_target,
    )
    it.add("no slash", _PATH[1:], 400, "3.2: not a form of a target")
    it.add("a dot", b"./media", 400, "3.2: not a form of a target")
    it.add("a backslash", b"\\media", 400, "3.2: not a form of a target")
    it.add("a query", b"?a=b", 400, "3.2: not a form of a target")
    it.add("an asterisk", b"*", 400, "3.2.4: for OPTIONS only")
    it.add("an authority", b"127.0.0.1:80", 400, "3.2.3: for CONNECT only")
    it.add("a fragment", _PATH + b"#a", 400, "3.2.1: never sent")
    it.add("another scheme", b"ftp://127.0.0.1" + _PATH, 400, "3.2.2: only http and https")
    it.add("a URL without a host", b"http://" + _PATH, 400, "9110 4.2.1: not valid")
    it.add("a URL with one slash", b"http:/media", 400, "9110 4.2.1: an authority is missing")
    it.add("a URL with a user", b"http://a@127.0.0.1" + _PATH, 400, "9110 4.2.4: an error")
    it.add("a port of letters", b"http://127.0.0.1:http" + _PATH, 400, "3986 3.2.3: digits")
    it.add("a port too large", b"http://127.0.0.1:65536" + _PATH, 400, "3986 3.2.3: at most 65535")
    it.add("a host with a broken escape", b"http://a%zz" + _PATH, 400, "3986 2.1: two hex digits")
    it.add(
        "a backslash after the host",
        b"http://127.0.0.1\\media",
        400,
        "3986 3.2.2: invalid in a host",
    )
    it.add("a NUL", b"/media\0", 400, "3986 3.3: invalid in a path")
    it.add("a control character", b"/media\x01", 400, "3986 3.3: invalid in a path")
    it.add("a form feed", b"/media\x0c", 400, "3986 3.3: invalid in a path")
    it.add("a DEL", b"/media\x7f", 400, "3986 3.3: invalid in a path")
    it.add("a NUL in a query", b"/media?a=\0", 400, "3986 3.4: invalid in a query")
    it.nginx("200", "removes it", "a fragment")
    it.nginx("200", "accepts any scheme", "another scheme")
    it.nginx("200", "ignores ports", "a port too large")
    return it


def _hosts() -> Group:
    it = Group("Hosts", f"Of a `GET` of `{VICTIM}`. These are all of its headers.", _with_host)
    it.add("no Host", b"X: y", 400, "3.2: required")
    it.add("two", HOST + b"\r\n" + HOST, 400, "3.2: only one")
    it.add("two that differ", HOST + b"\r\nhost: localhost", 400, "3.2: only one")
    it.add("an empty one", b"Host:", 400, "9110 4.2.1: not valid")
    it.add("a list", b"Host: 127.0.0.1, 127.0.0.1", 400, "9110 7.2: not a list")
    it.add("a user", b"Host: a@127.0.0.1", 400, "9110 7.2: without a user")
    it.add("a space", b"Host: 127.0. 0.1", 400, "3986 3.2.2: invalid in a host")
    it.add("a tab", b"Host: 127.0.0.1\t80", 400, "3986 3.2.2: invalid in a host")
    it.add("a slash", b"Host: 127.0.0.1/media", 400, "3986 3.2.2: invalid in a host")
    it.add("a URL", b"Host: http://127.0.0.1", 400, "9110 7.2: only the host and the port")
    it.add("a fragment", b"Host: 127.0.0.1#a", 400, "3986 3.2.2: invalid in a host")
    it.add("a query", b"Host: 127.0.0.1?a", 400, "3986 3.2.2: invalid in a host")
    it.add("a quote", b'Host: "127.0.0.1"', 400, "3986 3.2.2: invalid in a host")
    it.add("outside ASCII", b"Host: \xc3\xa4.localhost", 400, "3986 3.2.2: must be escaped")
    it.add("a broken escape", b"Host: a%2.localhost", 400, "3986 2.1: two hex digits")
    it.add("a NUL", b"Host: 127.0.0.1\0", 400, "9110 5.5: refused in all values")
    it.add("a port only", b"Host: :80", 400, "9110 4.2.1: not valid")
    it.add("a port of letters", b"Host: 127.0.0.1:http", 400, "3986 3.2.3: digits")
    it.add("a negative port", b"Host: 127.0.0.1:-80", 400, "3986 3.2.3: digits")
    it.add("a port too large", b"Host: 127.0.0.1:65536", 400, "3986 3.2.3: at most 65535")
    it.add("two ports", b"Host: 127.0.0.1:80:80", 400, "3986 3.2.3: one")
    it.add("an unclosed bracket", b"Host: [::1", 400, "3986 3.2.2: two brackets")
    it.add("no brackets", b"Host: ::1", 400, "3986 3.2.2: two brackets")
    it.add("brackets without an address", b"Host: []", 400, "3986 3.2.2: IPv6")
    it.add("a name in brackets", b"Host: [localhost]", 400, "3986 3.2.2: IPv6")
    it.add("half an address in brackets", b"Host: [1:2]", 400, "3986 3.2.2: IPv6")
    it.add("something after brackets", b"Host: [::1]a", 400, "3986 3.2.2: a port, or nothing")
    it.nginx(
        "200",
        "ignores ports (against 3.2)",
        "a port of letters",
        "a negative port",
        "a port too large",
        "two ports",
    )
    it.nginx(
        "200",
        "rejects only slashes, spaces and control characters (against 3.2)",
        "a user",
        "a fragment",
        "a query",
        "a quote",
        "outside ASCII",
        "a broken escape",
        "an unclosed bracket",
        "brackets without an address",
        "a name in brackets",
        "half an address in brackets",
        "something after brackets",
    )
    return it


def _http_1_0() -> Group:
    it = Group(
        "HTTP/1.0",
        f"Of a `PUT` of `{STORED}` in HTTP/1.0. These are all of its headers; its content is"
        f" `{_shown(CONTENT)}`.",
        lambda lines: PUT.replace(b"1.1", b"1.0") + b"\r\n" + lines + END + CONTENT,
    )
    length, coding = b"\r\nContent-Length: 5", b"Transfer-Encoding: chunked"
    it.add("two Hosts", HOST + b"\r\n" + HOST + length, 400, "3.2: only one")
    it.add("an invalid Host", b"Host: a b" + length, 400, "3.2: must be valid if sent")
    it.add("chunked", coding, 400, "6.1: not in HTTP/1.0")
    it.add("chunked, with a Host", HOST + b"\r\n" + coding, 400, "6.1: not in HTTP/1.0")
    it.add("chunked, with a length", coding + length, 400, "6.1: not in HTTP/1.0")
    return it


def _line_ends() -> Group:
    it = Group(
        "Line ends",
        "This is all that is sent. Only CRLF ends a line: 2.2 allows recipients to accept"
        " a bare LF, and forbids it for a bare CR.",
        _whole,
    )
    get = GET.replace(_PATH, b"/")
    it.add("LF only", get + b"\n" + HOST + b"\n\n", 400, "2.2: LF alone")
    it.add("LF after the request line", get + b"\n" + HOST + END, 400, "2.2: LF alone")
    it.add("LF after a header", get + b"\r\n" + HOST + b"\n\r\n", 400, "2.2: LF alone")
    it.add("LF for the empty line", get + b"\r\n" + HOST + b"\r\n\n", 400, "2.2: LF alone")
    it.add("LF in a value", get + b"\r\n" + HOST + b"\r\nX: a\nb: c" + END, 400, "2.2: LF alone")
    it.add("CR only", get + b"\r" + HOST + b"\r\r", 400, "2.2: CR alone")
    it.add("CR after the request line", get + b"\r" + HOST + END, 400, "2.2: CR alone")
    it.add("CR after a header", get + b"\r\n" + HOST + b"\rX: y" + END, 400, "2.2: CR alone")
    it.add("CR in a name", get + b"\r\n" + HOST + b"\r\nX\rY: z" + END, 400, "2.2: CR alone")
    it.add("CR in a value", get + b"\r\n" + HOST + b"\r\nX: a\rb" + END, 400, "2.2: CR alone")
    it.add("CR and CRLF", get + b"\r\n" + HOST + b"\r\nX: a\r\r\n\r\n", 400, "2.2: CR alone")
    it.add("CR in the target", b"GET /a\rb HTTP/1.1\r\n" + HOST + END, 400, "2.2: CR alone")
    it.add("LF and CR", get + b"\n\r" + HOST + b"\n\r\n\r", 400, "2.2: LF alone")
    it.nginx(
        "404",
        "accepts LF as a line end, as 2.2 allows; / does not exist",
        "LF only",
        "LF after the request line",
        "LF after a header",
        "LF for the empty line",
        "LF in a value",
    )
    it.nginx("404", "ignores that CR (against 2.2); / does not exist", "CR and CRLF")
    return it


def _headers() -> Group:
    it = Group(
        "Header lines",
        f"Of a `GET` of `{VICTIM}` that has a Host before them.",
        _with_headers,
    )
    it.add("no colon", b"X", 400, "5: a colon follows the name")
    it.add("a colon in the next line", b"X\r\n: y", 400, "5: a colon follows the name")
    it.add("no name", b": y", 400, "5.1: a token of one character or more")
    it.add("a space before the colon", b"X : y", 400, "5.1: not allowed there")
    it.add("a tab before the colon", b"X\t: y", 400, "5.1: not allowed there")
    it.add("a space in the name", b"X Y: z", 400, "5.1: a token")
    it.add("brackets in the name", b"X[]: y", 400, "5.1: a token")
    it.add("quotes in the name", b'"X": y', 400, "5.1: a token")
    it.add("a slash in the name", b"X/Y: z", 400, "5.1: a token")
    it.add("a name outside ASCII", b"X\xe4: y", 400, "5.1: a token")
    it.add("a NUL in the name", b"X\0: y", 400, "5.1: a token")
    it.add("a control character in the name", b"X\x01: y", 400, "5.1: a token")
    it.add("a NUL in the value", b"X: a\0b", 400, "9110 5.5: refused")
    it.add("an escape in the value", b"X: \x1b[31m", 400, "9110 5.5: no control characters")
    it.add("a vertical tab in the value", b"X: a\x0bb", 400, "9110 5.5: no control characters")
    it.add("a DEL in the value", b"X: \x7f", 400, "9110 5.5: no control characters")
    it.add("a folded line", b"X: a\r\n b", 400, "5.2: refused")
    it.add("a line folded by a tab", b"X: a\r\n\tb", 400, "5.2: refused")
    it.add("a line of spaces", b"X: a\r\n  ", 400, "5.2: refused")
    it.add("a request in a folded line", b"X: a\r\n " + GET, 400, "5.2: refused")
    it.nginx(
        "200",
        "ignores the line (`ignore_invalid_headers`)",
        "no colon",
        "brackets in the name",
        "quotes in the name",
        "a slash in the name",
        "a name outside ASCII",
    )
    it.nginx(
        "200",
        "rejects only NUL, as 9110 5.5 allows",
        "an escape in the value",
        "a vertical tab in the value",
        "a DEL in the value",
    )
    return it


def _limits() -> Group:
    it = Group(
        "Limits",
        "This is all that is sent. Too large a head is refused before its end arrives.",
        _whole,
    )
    line = b"GET /" + b"x" * (MAX_LINE + 1 - 5)
    it.add("a request line", line, 414, f"3: at most {MAX_LINE:,} bytes")
    it.add("a request line with its end", b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n", 414, "3")
    it.add("a method", b"G" * (MAX_LINE + 1), 414, "3")
    begin = GET + b"\r\n" + HOST + b"\r\n"
    rest = MAX_HEAD + 1 - len(begin)
    it.add("a name", begin + b"X" * rest, 431, f"5: the head at most {MAX_HEAD:,} bytes")
    it.add("a value", begin + b"X: ".ljust(rest, b"y"), 431, "5")
    it.add("many lines", begin + b"X: abcdefgh\r\n" * (rest // 13 + 1), 431, "5")
    it.add(
        "more lines",
        begin + b"X: y\r\n" * MAX_FIELDS + b"\r\n",
        431,
        f"5: at most {MAX_FIELDS} lines",
    )
    it.nginx(
        "400",
        "does not use 431 (its log says that they are too large)",
        "a name",
        "a value",
        "many lines",
    )
    it.nginx("200", "does not count lines", "more lines")
    return it


def _lengths() -> Group:
    it = Group(
        "Content-Length",
        f"Of a `PUT` of `{STORED}` with a Host before it. Its content is"
        f" `{_shown(CONTENT)}`, which is `hello` in chunked coding.",
        _with_frame,
    )
    length = b"Content-Length: "
    it.add("two", length + b"5\r\n" + length + b"5", 400, "6.3: may be refused")
    it.add("two that differ", length + b"5\r\n" + length + b"15", 400, "6.3: refused")
    it.add("two, one in lower case", length + b"15\r\ncontent-length: 5", 400, "6.3: refused")
    it.add("a list", length + b"5, 5", 400, "6.3: may be refused")
    it.add("a list that differs", length + b"5, 15", 400, "6.3: refused")
    it.add("a list of one", length + b"5,", 400, "6.2: digits")
    it.add("an empty one", length, 400, "6.2: digits")
    it.add("a plus sign", length + b"+5", 400, "6.2: digits")
    it.add("a minus sign", length + b"-5", 400, "6.2: digits")
    it.add("hexadecimal", length + b"0x5", 400, "6.2: digits")
    it.add("a fraction", length + b"5.0", 400, "6.2: digits")
    it.add("an exponent", length + b"5e0", 400, "6.2: digits")
    it.add("an underscore", length + b"1_5", 400, "6.2: digits")
    it.add("a space inside", length + b"1 5", 400, "6.2: digits")
    it.add("quotes", length + b'"5"', 400, "6.2: digits")
    it.add("a word", length + b"five", 400, "6.2: digits")
    it.add("non-ASCII digits", length + "٥".encode(), 400, "6.2: ASCII digits")
    it.add("a no-break space", length + b"5\xa0", 400, "6.2: digits")
    it.add("a vertical tab before it", length + b"\x0b5", 400, "9110 5.5: no control characters")
    it.add("beyond 63 bits", length + b"9223372036854775808", 400, "6.2: must not overflow")
    it.add("beyond 64 bits", length + b"18446744073709551621", 400, "6.2: must not overflow")
    it.add("a folded line", b"Content-Length:\r\n 5", 400, "5.2: refused")
    it.add("a folded length", length + b"1\r\n 5", 400, "5.2: refused")
    it.add("a space before the colon", b"Content-Length : 5", 400, "5.1: refused")
    it.add("a second after a bare CR", length + b"5\r" + length + b"15", 400, "2.2: CR alone")
    return it


def _codings() -> Group:
    it = Group(
        "Transfer-Encoding",
        "Of the same `PUT`. With an unknown coding the end of the request is unknown.",
        _with_frame,
    )
    coding = b"Transfer-Encoding: "
    it.add("with a length", b"Content-Length: 15\r\n" + coding + b"chunked", 400, "6.1: an error")
    it.add("before a length", coding + b"chunked\r\nContent-Length: 5", 400, "6.1: an error")
    it.add("twice", coding + b"chunked\r\n" + coding + b"chunked", 400, "6.1: chunked only once")
    it.add("twice in a line", coding + b"chunked, chunked", 400, "6.1: chunked only once")
    it.add("identity", coding + b"identity", 400, "7: was removed")
    it.add(
        "identity with a length",
        b"Content-Length: 5\r\n" + coding + b"identity",
        400,
        "6.1: an error",
    )
    it.add("identity after it", coding + b"chunked, identity", 400, "6.3: chunked comes last")
    it.add("identity in another line", coding + b"chunked\r\n" + coding + b"identity", 400, "6.3")
    it.add("gzip", coding + b"gzip", 400, "6.3: chunked comes last")
    it.add(
        "gzip before it",
        coding + b"gzip, chunked",
        400,
        "6.1: not supported (not 501, since the end of the request is unknown)",
    )
    it.add("an empty one", coding, 400, "6.1: names no coding")
    it.add("an empty element", coding + b", chunked", 400, "6.1: exactly chunked")
    it.add("an empty element after it", coding + b"chunked,", 400, "6.1: exactly chunked")
    it.add("quotes", coding + b'"chunked"', 400, "7: a token")
    it.add("a parameter", coding + b"chunked;q=1", 400, "7.1: chunked has no parameters")
    it.add("a letter before it", coding + b"xchunked", 400, "6.1: not supported")
    it.add("a letter after it", coding + b"chunkedx", 400, "6.1: not supported")
    it.add("two words", coding + b"chunked x", 400, "6.1: not supported")
    it.add(
        "a vertical tab before it", coding + b"\x0bchunked", 400, "9110 5.5: no control characters"
    )
    it.add("a NUL after it", coding + b"chunked\0", 400, "9110 5.5: refused")
    it.add("a no-break space before it", coding + b"\xa0chunked", 400, "6.1: not supported")
    it.add("a folded line", b"Transfer-Encoding:\r\n chunked", 400, "5.2: refused")
    it.add("a space before the colon", b"Transfer-Encoding : chunked", 400, "5.1: refused")
    it.add("after a folded line", b"X: a\r\n Transfer-Encoding: chunked", 400, "5.2: refused")
    it.add("after a bare LF", b"X: a\nTransfer-Encoding: chunked", 400, "2.2: LF alone")
    it.nginx(
        "501",
        "responds with 501 to every other coding, as 6.1 recommends",
        "twice in a line",
        "identity",
        "identity with a length",
        "identity after it",
        "gzip",
        "gzip before it",
        "an empty one",
        "an empty element",
        "an empty element after it",
        "quotes",
        "a parameter",
        "a letter before it",
        "a letter after it",
        "two words",
        "a vertical tab before it",
        "a no-break space before it",
    )
    it.nginx("201", _LF_ENDS, "after a bare LF")
    return it


def _chunks() -> Group:
    it = Group(
        "Chunked coding",
        "The content of the same `PUT`, with `Transfer-Encoding: chunked`. The route responds.",
        _with_chunks,
    )
    rest = b"\r\nhello\r\n0\r\n\r\n"

    def add(name: str, chunks: bytes, note: str) -> None:
        it.add(name, chunks, 400, note, code=510)

    add("a size in C notation", b"0x5" + rest, "7.1: hex digits")
    add("a plus sign", b"+5" + rest, "7.1: hex digits")
    add("a minus sign", b"-5" + rest, "7.1: hex digits")
    add("a space before the size", b" 5" + rest, "7.1: hex digits")
    add("a space after the size", b"5 " + rest, "7.1: hex digits")
    add("an underscore", b"0_5" + rest, "7.1: hex digits")
    add("non-ASCII digits", "٥".encode() + rest, "7.1: hex digits")
    add("a letter beyond F", b"g" + rest, "7.1: hex digits")
    add("no size", rest, "7.1: hex digits")
    add("no size but an extension", b";a=b" + rest, "7.1: hex digits")
    add("2^63", b"8000000000000000" + rest, "7.1: must not overflow")
    add("2^64 and 5", b"10000000000000005" + rest, "7.1: must not overflow")
    add("a size without an end", b"0" * (MAX_SIZE_LINE + 1), f"7.1.1: {MAX_SIZE_LINE:,} bytes")
    add(
        "an extension without an end",
        b"5;" + b"x" * MAX_SIZE_LINE,
        f"7.1.1: {MAX_SIZE_LINE:,} bytes",
    )
    add("a NUL in an extension", b"5;a\0" + rest, "7.1.1: a token")
    add("an LF in an extension", b"5;a\nb" + rest, "2.2: LF alone")
    add("a CR in an extension", b"5;a\rb" + rest, "2.2: CR alone")
    add("LF after the size", b"5\nhello\r\n0\r\n\r\n", "7.1: CRLF")
    add("CR after the size", b"5\rhello\r\n0\r\n\r\n", "7.1: CRLF")
    add("LF after the data", b"5\r\nhello\n0\r\n\r\n", "7.1: CRLF")
    add("CR after the data", b"5\r\nhello\r0\r\n\r\n", "7.1: CRLF")
    add("nothing after the data", b"5\r\nhello0\r\n\r\n", "7.1: CRLF")
    add("more than the size", b"4" + rest, "7.1: CRLF")
    add("less than the size", b"6" + rest, "7.1: CRLF")
    add("LF after the last size", b"5\r\nhello\r\n0\n\r\n", "7.1: CRLF")
    add("LF for the end", b"5\r\nhello\r\n0\r\n\n", "7.1: CRLF")
    add("CR for the end", b"5\r\nhello\r\n0\r\n\r\r", "7.1: CRLF")
    add("LF after a trailer", b"5\r\nhello\r\n0\r\nX: y\n\r\n", "7.1.2: CRLF")
    add("a NUL in a trailer", b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n", "9110 5.5: refused")
    add(
        "a request in place of a trailer",
        b"5\r\nhello\r\n0\r\n" + GET + END,
        "7.1.2: lines like headers",
    )
    add(
        "trailers without an end",
        b"5\r\nhello\r\n0\r\n" + b"X: abcdefgh\r\n" * (MAX_TRAILERS // 11 + 1),
        f"7.1.2: at most {MAX_TRAILERS:,} bytes",
    )
    it.nginx(
        "201",
        "ignores spaces after it",
        "a space after the size",
    )
    it.nginx("201", "ignores its content", "a NUL in an extension")
    it.nginx(
        "201",
        "ignores everything up to an empty line",
        "a NUL in a trailer",
        "a request in place of a trailer",
    )
    it.nginx(
        "201",
        _LF_ENDS + " (2.2 allows that in a head only)",
        "LF after the size",
        "LF after the data",
        "LF after the last size",
        "LF for the end",
        "LF after a trailer",
    )
    it.nginx("201", "treats what follows `hello\\r` as a line end", "less than the size")
    it.nginx(
        NOTHING,
        "waits for more",
        "a size without an end",
        "an extension without an end",
        "trailers without an end",
    )
    return it


# Accepted requests


def _accepted() -> Iterator[Group]:
    yield _unusual_heads()
    yield _unusual_content()


def _unusual_heads() -> Group:
    it = Group("Unusual but valid", "This is all that is sent.", _whole)
    get = _with_headers
    it.add("an empty line before it", b"\r\n" + get(b"X: y"), 200, "2.2: ignored")
    it.add(
        "HTTP/1.0 without a Host", b"GET " + _PATH + b" HTTP/1.0" + END, 200, "3.2", is_last=True
    )
    it.add(
        "HTTP/1.0 with a Host",
        b"GET " + _PATH + b" HTTP/1.0\r\n" + HOST + END,
        200,
        "3.2",
        is_last=True,
    )
    it.add("a URL", b"GET http://127.0.0.1" + _PATH + b" HTTP/1.1\r\n" + HOST + END, 200, "3.2.2")
    it.add(
        "a URL with another host",
        b"GET http://localhost" + _PATH + b" HTTP/1.1\r\n" + HOST + END,
        200,
        "3.2.2: replaces the Host header",
    )
    it.add(
        "a URL in capitals",
        b"GET HTTP://LOCALHOST" + _PATH + b" HTTP/1.1\r\n" + HOST + END,
        200,
        "9110 4.2.3: case-insensitive",
    )
    it.add(
        "a URL of https",
        b"GET https://127.0.0.1" + _PATH + b" HTTP/1.1\r\n" + HOST + END,
        200,
        "3.2.2: a proxy may have terminated TLS",
    )
    it.add(
        "a URL without a path",
        b"GET http://127.0.0.1 HTTP/1.1\r\n" + HOST + END,
        404,
        "3.2.1: the path is /",
    )
    it.add("two slashes", b"GET // HTTP/1.1\r\n" + HOST + END, 404, "3.2.1: a path")
    it.add(
        "an unknown method", b"BREW " + _PATH + b" HTTP/1.1\r\n" + HOST + END, 405, "9110 15.5.6"
    )
    it.add(
        "a method in lower case",
        b"get " + _PATH + b" HTTP/1.1\r\n" + HOST + END,
        405,
        "9110 9.1: not GET",
    )
    it.add(
        "a method of punctuation",
        b"!#$%&'*+-.^_~ " + _PATH + b" HTTP/1.1\r\n" + HOST + END,
        405,
        "9110 5.6.2: a token",
    )
    it.add(
        "a path in UTF-8",
        "GET /media/refused/ä.wav HTTP/1.1".encode() + b"\r\n" + HOST + END,
        404,
        "3986 2.5: should have been escaped",
    )
    it.add(
        "a query of punctuation",
        b"GET " + _PATH + b'?a="<>\\^{}[]\xff%zz& HTTP/1.1\r\n' + HOST + END,
        200,
        "3986 3.4: should have been escaped",
    )
    it.add(
        "a long request line",
        (b"GET " + _PATH + b"?").ljust(MAX_LINE - 9, b"x") + b" HTTP/1.1\r\n" + HOST + END,
        200,
        f"3: {MAX_LINE:,} bytes",
    )
    it.add(
        "a large head",
        (GET + b"\r\n" + HOST + b"\r\nX: ").ljust(MAX_HEAD - 4, b"y") + END,
        200,
        f"5: {MAX_HEAD:,} bytes",
    )
    it.add(
        "many headers",
        get(b"\r\n".join([b"X: y"] * (MAX_FIELDS - 1))),
        200,
        f"5: {MAX_FIELDS} lines",
    )
    it.add("no space after a colon", GET + b"\r\nHost:127.0.0.1" + END, 200, "5: optional")
    it.add(
        "spaces around values",
        GET + b"\r\nHost: \t 127.0.0.1 \t \r\nX: \t y\tz \t " + END,
        200,
        "5.1: not part of the values",
    )
    it.add(
        "names in lower case",
        GET + b"\r\nhost: 127.0.0.1\r\nx: y" + END,
        200,
        "9110 5.1: case-insensitive",
    )
    it.add("an empty value", get(b"X:\r\nY: "), 200, "5: may be empty")
    it.add("values outside ASCII", get(b"X: \xc3\xa4\xff"), 200, "9110 5.5: not interpreted")
    it.add("a name of punctuation", get(b"!#$%&'*+-.^_~: y"), 200, "9110 5.6.2: a token")
    it.add(
        "similar names",
        get(b"Content_Length: 99\r\nTransfer_Encoding: chunked"),
        200,
        "9110 5.1: other names",
    )
    it.add("a Host with a port", GET + b"\r\nHost: 127.0.0.1:65535" + END, 200, "9110 7.2")
    it.add(
        "a Host with an empty port",
        GET + b"\r\nHost: 127.0.0.1:" + END,
        200,
        "3986 3.2.3: may be empty",
    )
    it.add("a Host in IPv6", GET + b"\r\nHost: [::1]:8000" + END, 200, "3986 3.2.2")
    it.add(
        "a Host in capitals",
        GET + b"\r\nHost: LOCALHOST" + END,
        200,
        "3986 3.2.2: case-insensitive",
    )
    it.add(
        "a foreign Host",
        GET + b"\r\nHost: example.org" + END,
        403,
        "on loopback only loopback names are allowed",
    )
    it.add(
        "a URL with a foreign host",
        b"GET http://example.org" + _PATH + b" HTTP/1.1\r\n" + HOST + END,
        403,
        "on loopback only loopback names are allowed",
    )
    it.nginx(
        "400",
        "accepts only capitals, hyphens and underscores (against 9110 9.1)",
        "a method in lower case",
        "a method of punctuation",
    )
    it.nginx("414", "counts the line end as well", "a long request line")
    it.nginx("400", "has room for two lines of 16 KiB in this configuration", "a large head")
    it.nginx("400", _TABS, "spaces around values")
    it.nginx(
        "200",
        "serves every host name",
        "a foreign Host",
        "a URL with a foreign host",
    )
    return it


def _unusual_content() -> Group:
    it = Group(
        "Unusual but valid content",
        f"Of a `PUT` of `{STORED}` with a Host; this is the rest of it.",
        lambda rest: PUT + b"\r\n" + HOST + b"\r\n" + rest,
    )
    chunked = b"Transfer-Encoding: chunked" + END
    hello = b"hello"

    def add(name: str, rest: bytes, note: str) -> None:
        it.add(name, rest, 201, note, stored=hello)

    add("leading zeros", b"Content-Length: 0005" + END + hello, "6.2: digits")
    add("18 digits", b"Content-Length: 000000000000000005" + END + hello, "6.2: digits")
    add(
        "spaces around a length",
        b"Content-Length:  \t5 \t" + END + hello,
        "5.1: not part of the value",
    )
    add("CHUNKED", b"TRANSFER-ENCODING: CHUNKED" + END + CONTENT, "7: case-insensitive")
    add(
        "spaces around chunked",
        b"Transfer-Encoding:\tchunked \t" + END + CONTENT,
        "5.1: not part of the value",
    )
    add("an extension", chunked + b"5;a=b;c\r\nhello\r\n0;d\r\n\r\n", "7.1.1: ignored")
    add(
        "a space before an extension",
        chunked + b"5 ;a=b\r\nhello\r\n0\r\n\r\n",
        "7.1.1: only in old messages",
    )
    add("a quoted extension", chunked + b'5;a="b;c"\r\nhello\r\n0\r\n\r\n', "7.1.1: ignored")
    add("leading zeros of a size", chunked + b"0005\r\nhello\r\n000\r\n\r\n", "7.1: hex digits")
    add("single bytes", chunked + b"1\r\nh\r\n3\r\nell\r\n1\r\no\r\n0\r\n\r\n", "7.1")
    add(
        "trailers",
        chunked + b"5\r\nhello\r\n0\r\nX: y\r\nContent-Length: 99\r\n\r\n",
        "7.1.2: dropped",
    )
    add(
        "a trailer like a last chunk",
        chunked + b"5\r\nhello\r\n0\r\nX: 0\r\n\r\n",
        "7.1.2: dropped",
    )
    it.add(
        "a size in capitals",
        chunked + b"A\r\n0123456789\r\n0\r\n\r\n",
        201,
        "7.1: case-insensitive",
        stored=b"0123456789",
    )
    it.add(
        "CRLF in the data",
        chunked + b"4\r\n\r\n\r\n\r\n0\r\n\r\n",
        201,
        "7.1: data",
        stored=b"\r\n\r\n",
    )
    it.add(
        "an unknown expectation",
        b"Expect: 200-ok\r\nContent-Length: 5" + END + hello,
        417,
        "9110 10.1.1",
    )
    length = b"Content-Length: 5" + END + hello
    add("an empty expectation", b"Expect: \r\n" + length, "9110 5.6.1.2: nothing is expected")
    add("an empty element", b"Expect: ,\r\n" + length, "9110 5.6.1.2: nothing is expected")
    add(
        "one expectation in two lines",
        b"Expect: 100-continue\r\nExpect: ,100-Continue\r\n" + length,
        "9110 5.3: one list",
    )
    it.add("no chunks", chunked + b"0\r\n\r\n", 201, "7.1: no content", stored=b"")
    it.nginx("400", _TABS, "spaces around a length")
    it.nginx("501", _TABS, "spaces around chunked")
    it.nginx("201", "ignores it, as 9110 10.1.1 allows", "an unknown expectation")
    it.nginx("400", "accepts only one Expect line", "one expectation in two lines")
    return it


REFUSED_GROUPS = list(_refused())
ACCEPTED_GROUPS = list(_accepted())
REFUSED = [row for group in REFUSED_GROUPS for row in group.rows]
ACCEPTED = [row for group in ACCEPTED_GROUPS for row in group.rows]


def document() -> str:
    """Return the text of docs/malformed.md."""
    rows = REFUSED + ACCEPTED
    differing = sum(row.nginx is not None for row in rows)
    about = f"""\
# Malformed requests

```sh
curl -i -H 'Bad Name: x' http://127.0.0.1:8000/media/a/b.wav
```

The service refuses this request, because programs differ in what they make of a space in the name
of a header. Every request that two programs could read in two ways is refused. Otherwise a proxy
and the service could disagree about where a request ends, and the service could take a part of it
for another request that the proxy has never seen. The service refuses such requests even if an RFC
allows it to guess, and before their end if possible.

This page lists {len(rows)} requests: malformed, ambiguous, and unusual but valid ones. For each it
states the service's response, the reason, and nginx's response if it differs, as it
does {differing} times. Numbers with dots are sections of RFC 9112, or of the RFC whose number comes
before them. `{_shown(b"x" * 100)}` stands for 100 times x.

The response to a malformed request is JSON, with the status as its `code` (or with the code in
brackets), and has `Connection: close`. The service drops everything that follows the request.

nginx is version 1.22 of Debian 12 with its default settings, except for
`large_client_header_buffers 2 16k` (as large a head as the service accepts), `dav_methods PUT
DELETE` (so that it stores files), and no page at `/`. Two of its responses have no status.
`{NOTHING}`: the connection ends without a response after the client has sent everything.
`{BARE}`: the content of the file without a head.

`python -m tests.process.malformed` writes this page from the table that
`tests/process/test_refused.py` checks against the service, and `tests/live/test_nginx_malformed.py`
against nginx.
"""
    lines = about.splitlines()
    for group in REFUSED_GROUPS + ACCEPTED_GROUPS:
        lines += ["", f"## {group.title}", "", *wrap(group.about, 100, break_on_hyphens=False), ""]
        lines += ["| request | bytes | response | reason | nginx |", "|---|---|---|---|---|"]
        lines += [_line(row) for row in group.rows]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    nginx = "" if row.nginx is None else f"{row.nginx}: {row.why}"
    return f"| {row.name} | `{row.shown}` | {row.response} | {row.note} | {nginx} |"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")

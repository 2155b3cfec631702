"""The table of conditional requests and range requests: the service's response to each, and nginx's
response if it differs. `python -m tests.process.conditional` writes it as docs/conditions.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap

from tests.process.exchange import Answer, Connection, head

DOCUMENT = Path(__file__).parents[2] / "docs" / "conditions.md"

DIRECTORY = "conditional"
DIGITS = b"0123456789"
MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
_EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
_LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
_EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"
_AHEAD = "Fri, 01 Jan 2100 00:00:00 GMT"
_MODIFIED_S = 784111777
_AHEAD_S = 4102444800


@dataclass(frozen=True)
class File:
    """A requested file: its content, None if it does not exist, and its modification time in s."""

    content: bytes | None
    modified_s: int
    described: str


FILES = {
    "digits.wav": File(DIGITS, _MODIFIED_S, f"ten bytes, modified {MODIFIED}"),
    "empty.wav": File(b"", _MODIFIED_S, "no bytes, modified at the same time"),
    "ahead.wav": File(DIGITS, _AHEAD_S, f"ten bytes, modified {_AHEAD}, which is in the future"),
    "missing.wav": File(None, 0, "does not exist"),
}

Fields = tuple[tuple[str, str], ...]

# In header values `{etag}` stands for the server's own tag of the file, with its quotes, and
# `{opaque}` for the text between them. The page shows long values as abbreviated here.
SHOWN: dict[str, str] = {}
LONG = 2000  # the characters from which on a value is long

# Why nginx responds differently.
_LATER_IS_OTHER = "accepts only the file's own date (`if_modified_since exact`; 13.1.3 is a SHOULD)"
_LAX_DATE = "ignores what follows the seconds of a date"
_LAX_SINCE = _LAX_DATE + " (against 13.1.3)"
_TWO_LINES = "accepts this header only once (5.3 makes a list of two lines)"
_ONCE = "accepts this header only once (5.3 forbids sending it twice)"
_OVERFLOW = "refuses numbers beyond 63 bits (against 14.1.2)"
_EMPTY_ELEMENT = "rejects empty elements (against 5.6.1.2)"
_EMPTY_ELEMENTS = "rejects empty elements (5.6.1.2 requires to ignore a reasonable number)"
_REJECTS = "rejects what is malformed, as 14.2 allows"
_SPACES = "ignores spaces, as 2.4 allows"
_PARTS = "sends parts"
_FIRST_LINE = "uses the first line only"
_ANY_ELEMENT = "finds the tag among other text, as 2.4 allows"
_HEAD = "responds as to GET (against 14.2)"
_EMPTY_FILE = "sends the whole, empty file, as 14.2 allows"


@dataclass(frozen=True)
class Row:
    """One request and its response: the status, followed by the Content-Range or
    `multipart/byteranges` if the response has one.
    """

    headers: Fields
    response: str
    note: str
    name: str = "digits.wav"
    method: str = "GET"
    nginx: str | None = None  # the response of nginx, None if it is the same
    why: str = ""  # the reason for it

    def __str__(self) -> str:
        return f"{self.method} {self.name} {', '.join(self.shown)}"

    @property
    def shown(self) -> list[str]:
        """The headers as the page shows them."""
        return [f"{name}: {SHOWN.get(value, value)}".rstrip() for name, value in self.headers]

    @property
    def status(self) -> int:
        return int(self.response.split()[0])

    @property
    def is_long(self) -> bool:
        """Whether a header is long."""
        return any(len(value) >= LONG for _, value in self.headers)


@dataclass(frozen=True)
class Group:
    """Requests of one kind."""

    title: str
    about: str = ""
    rows: list[Row] = field(default_factory=list)

    def add(
        self, answer: str, note: str, /, *headers: str, nginx: str | None = None, why: str = ""
    ) -> None:
        """Add a GET of the ten bytes with `headers`, each `Name: value`."""
        self.rows.append(Row(_fields(headers), answer, note, nginx=nginx, why=why))

    def add_to(
        self,
        name: str,
        answer: str,
        note: str,
        /,
        *headers: str,
        method: str = "GET",
        nginx: str | None = None,
        why: str = "",
    ) -> None:
        """Add a request for another file, or with another method."""
        self.rows.append(Row(_fields(headers), answer, note, name, method, nginx, why))


def _fields(lines: tuple[str, ...]) -> Fields:
    pairs = (line.partition(": ") for line in lines)
    return tuple((name, value) for name, _, value in pairs)


def _long(header: str, before: str, each: str, count: int, after: str = "") -> str:
    """A header whose value has `count` times `each` in it."""
    value = before + each * count + after
    SHOWN[value] = f"{before}{each * 3}...{after} ({count:,} times '{each}')"
    return f"{header}: {value}"


def _groups() -> Iterator[Group]:
    yield _plain()
    yield _if_match()
    yield _if_unmodified_since()
    yield _if_none_match()
    yield _if_modified_since()
    yield _dates()
    yield _ranges()
    yield _invalid_ranges()
    yield _several_ranges()
    yield _if_range()
    yield _order()
    yield _head()
    yield _empty()
    yield _missing()
    yield _long_headers()


def _plain() -> Group:
    it = Group("Without conditions")
    it.add("200", "15.3.1: the whole")
    it.add_to("digits.wav", "200", "9.3.2: only the headers", method="HEAD")
    it.add_to("empty.wav", "200", "15.3.1: the whole is empty")
    it.add_to("missing.wav", "404", "15.5.5")
    return it


def _if_match() -> Group:
    it = Group(
        "If-Match",
        "Tags are compared strongly. RFC 9110 does not define what a malformed value means. Here"
        " it matches no file, because the client meant a particular one.",
    )
    it.add("200", "13.1.1: the tag is the file's", "If-Match: {etag}")
    it.add("200", "13.1.1: there is a file", "If-Match: *")
    it.add("412", "13.1.1: another tag", 'If-Match: "other"')
    it.add("412", "8.8.3.2: a weak tag is never strongly equal", "If-Match: W/{etag}")
    it.add("200", "13.1.1: one of a list", 'If-Match: "other", {etag}')
    it.add("200", "5.6.1.2: empty elements are ignored", "If-Match: , {etag},,")
    it.add("412", "13.1.1: none of a list", 'If-Match: "other", W/{etag}')
    it.add("200", "13.1.1: one of a list, which has it as weak, too", "If-Match: W/{etag}, {etag}")
    it.add("200", "8.8.3: a tag may contain a comma", 'If-Match: "x,y", {etag}')
    it.add("412", "8.8.3: a tag has quotes", "If-Match: {opaque}")
    it.add("412", "8.8.3: a tag has two quotes", 'If-Match: "{opaque}')
    it.add("412", "8.8.3: a tag ends with its quote", "If-Match: {etag}x")
    it.add(
        "412",
        "2.4: undefined; here the whole list is malformed",
        "If-Match: x, {etag}",
        nginx="200",
        why=_ANY_ELEMENT,
    )
    it.add(
        "412",
        "2.4: undefined; * is not an element of a list",
        "If-Match: *, {etag}",
        nginx="200",
        why=_ANY_ELEMENT,
    )
    it.add("412", "13.1.1: an empty list", "If-Match: ")
    it.add("412", "8.8.3: w is not W; a weak tag would not match either", "If-Match: w/{etag}")
    it.add(
        "200",
        "5.3: two lines are a list",
        'If-Match: "other"',
        "If-Match: {etag}",
        nginx="400",
        why=_TWO_LINES,
    )
    return it


def _if_unmodified_since() -> Group:
    it = Group("If-Unmodified-Since")
    header = "If-Unmodified-Since"
    it.add("200", "13.1.4: the same second", f"{header}: {MODIFIED}")
    it.add("412", "13.1.4: a second too early", f"{header}: {_EARLIER}")
    it.add("200", "13.1.4: later", f"{header}: {_LATER}")
    it.add("200", "13.1.4: in the future", f"{header}: {_AHEAD}")
    it.add("412", "13.1.4: the epoch", f"{header}: {_EPOCH}")
    it.add("412", "13.1.4: before the epoch", f"{header}: Sun, 06 Nov 1904 08:49:37 GMT")
    it.add(
        "200",
        "13.1.4: an invalid date is ignored",
        f"{header}: yesterday",
        nginx="412",
        why="treats it as a date before all others (against 13.1.4)",
    )
    it.add("200", "13.1.4: a list is not a date", f"{header}: {_LATER}, {_EPOCH}")
    it.add(
        "200",
        "13.1.4: a list, in two lines",
        *[f"{header}: {_EPOCH}"] * 2,
        nginx="400",
        why=_ONCE,
    )
    return it


def _if_none_match() -> Group:
    it = Group(
        "If-None-Match",
        "Tags are compared weakly. In a malformed list the valid tags count, which cannot do harm.",
    )
    it.add("304", "13.1.2: the tag is the file's", "If-None-Match: {etag}")
    it.add("304", "13.1.2: compared weakly", "If-None-Match: W/{etag}")
    it.add("304", "13.1.2: there is a file", "If-None-Match: *")
    it.add("200", "13.1.2: another tag", 'If-None-Match: "other"')
    it.add("304", "13.1.2: one of a list", 'If-None-Match: "other", {etag}')
    it.add("304", "13.1.2: one of a list, weak", 'If-None-Match: W/"other",W/{etag}')
    it.add("304", "5.6.1.2: empty elements are ignored", "If-None-Match: ,, {etag} ,")
    it.add("200", "13.1.2: none of a list", 'If-None-Match: "other", W/"another"')
    it.add("304", "8.8.3: a tag may contain a comma", 'If-None-Match: "x,y", {etag}')
    it.add("200", "8.8.3: a tag has quotes", "If-None-Match: {opaque}")
    it.add("200", "8.8.3: a tag has two quotes", 'If-None-Match: {opaque}"')
    it.add("200", "5.6.1: tags have a comma between them", "If-None-Match: {etag} {etag}")
    it.add("304", "2.4: undefined; here it is ignored", "If-None-Match: x, {etag}")
    it.add("304", "2.4: undefined; here * is ignored", "If-None-Match: *, {etag}")
    it.add("200", "13.1.2: an empty list", "If-None-Match: ")
    it.add(
        "304",
        "5.3: two lines are a list",
        'If-None-Match: "other"',
        "If-None-Match: {etag}",
        nginx="400",
        why=_TWO_LINES,
    )
    return it


def _if_modified_since() -> Group:
    it = Group("If-Modified-Since")
    header = "If-Modified-Since"
    it.add("304", "13.1.3: the same second", f"{header}: {MODIFIED}")
    it.add("200", "13.1.3: a second before", f"{header}: {_EARLIER}")
    it.add("304", "13.1.3: later", f"{header}: {_LATER}", nginx="200", why=_LATER_IS_OTHER)
    it.add(
        "304",
        "13.1.3: in the future; valid, unlike in RFC 2616",
        f"{header}: {_AHEAD}",
        nginx="200",
        why=_LATER_IS_OTHER,
    )
    it.add("200", "13.1.3: the epoch", f"{header}: {_EPOCH}")
    it.add("200", "13.1.3: an invalid date is ignored", f"{header}: 784111777")
    it.add("200", "13.1.3: a tag is not a date", f"{header}: {{etag}}")
    it.add(
        "200",
        "13.1.3: a list is not a date",
        f"{header}: {MODIFIED}, {MODIFIED}",
        nginx="304",
        why=_LAX_SINCE,
    )
    it.add(
        "200",
        "13.1.3: a list, in two lines",
        *[f"{header}: {MODIFIED}"] * 2,
        nginx="400",
        why=_ONCE,
    )
    it.add_to("ahead.wav", "304", "13.1.3: a file of the future", f"{header}: {_AHEAD}")
    it.add_to("ahead.wav", "200", "13.1.3", f"{header}: {MODIFIED}")
    return it


def _dates() -> Group:
    it = Group(
        "Dates",
        "A date that does not exactly match one of the three forms is ignored (5.6.7, 13.1.3).",
    )
    header = "If-Modified-Since"
    it.add("304", "5.6.7: the form of RFC 850", f"{header}: Sunday, 06-Nov-94 08:49:37 GMT")
    it.add("200", "5.6.7: and a second before", f"{header}: Sunday, 06-Nov-94 08:49:36 GMT")
    it.add("304", "5.6.7: asctime", f"{header}: Sun Nov  6 08:49:37 1994")
    it.add("200", "5.6.7: and a second before", f"{header}: Sun Nov  6 08:49:36 1994")
    it.add(
        "200",
        "5.6.7: two digits of a year are not more than fifty years ahead: 1993",
        f"{header}: Saturday, 06-Nov-93 08:49:37 GMT",
    )
    it.add(
        "304",
        "5.6.7: this is 2038",
        f"{header}: Saturday, 06-Nov-38 08:49:37 GMT",
        nginx="200",
        why=_LATER_IS_OTHER,
    )
    it.add(
        "304",
        "5.6.7: a second 60",
        f"{header}: Fri, 30 Jun 1995 23:59:60 GMT",
        nginx="200",
        why="rejects second 60, and " + _LATER_IS_OTHER,
    )
    it.add(
        "304",
        "5.6.7: the day of the week may be wrong",
        f"{header}: Mon, 06 Nov 1994 08:49:37 GMT",
    )
    it.add("200", "5.6.7: February 29 in 1995", f"{header}: Wed, 29 Feb 1995 08:49:37 GMT")
    it.add("200", "5.6.7: November 31", f"{header}: Thu, 31 Nov 1994 08:49:37 GMT")
    it.add("200", "5.6.7: an hour 24", f"{header}: Sun, 06 Nov 1994 24:49:37 GMT")
    for note, date in [
        ("another zone", "Sun, 06 Nov 1994 08:49:37 CET"),
        ("a numeric zone", "Sun, 06 Nov 1994 08:49:37 +0000"),
        ("no zone", "Sun, 06 Nov 1994 08:49:37"),
        ("text after it, as Netscape sent it", f"{MODIFIED}; length=10"),
    ]:
        it.add("200", f"5.6.7: {note}", f"{header}: {date}", nginx="304", why=_LAX_SINCE)
    it.add("200", "5.6.7: a day of one digit", f"{header}: Sun, 6 Nov 1994 08:49:37 GMT")
    it.add("200", "5.6.7: lower case", f"{header}: sun, 06 nov 1994 08:49:37 gmt")
    it.add("200", "5.6.7: ISO 8601", f"{header}: 1994-11-06T08:49:37Z")
    return it


def _ranges() -> Group:
    it = Group("One range")
    it.add("206 bytes 0-1/10", "14.1.2: the first request of Safari", "Range: bytes=0-1")
    it.add("206 bytes 0-0/10", "14.1.2: the first byte", "Range: bytes=0-0")
    it.add("206 bytes 9-9/10", "14.1.2: the last byte", "Range: bytes=9-9")
    it.add("206 bytes 2-5/10", "14.1.2: in the middle", "Range: bytes=2-5")
    it.add("206 bytes 0-9/10", "15.3.7: a range of all bytes", "Range: bytes=0-9")
    it.add("206 bytes 0-9/10", "14.1.2: open", "Range: bytes=0-")
    it.add("206 bytes 3-9/10", "14.1.2: open", "Range: bytes=3-")
    it.add("206 bytes 5-9/10", "14.1.2: beyond the end", "Range: bytes=5-10")
    it.add(
        "206 bytes 5-9/10",
        "14.1.2: no number is too large",
        "Range: bytes=5-99999999999999999999999",
        nginx="416 bytes */10",
        why=_OVERFLOW,
    )
    it.add("206 bytes 9-9/10", "14.1.2: the last byte", "Range: bytes=-1")
    it.add("206 bytes 0-9/10", "14.1.2: the last ten", "Range: bytes=-10")
    it.add("206 bytes 0-9/10", "14.1.2: more than there are", "Range: bytes=-11")
    it.add("206 bytes 0-9/10", "14.1.2: more than there are", "Range: bytes=-99999999999")
    it.add("206 bytes 0-1/10", "14.1: the unit is case-insensitive", "Range: BYTES=0-1")
    it.add("206 bytes 1-2/10", "14.1.1: leading zeros", "Range: bytes=0001-0002")
    for value in ["bytes=0-1,", "bytes=,0-1", "bytes=, ,0-1 , ,"]:
        it.add(
            "206 bytes 0-1/10",
            "5.6.1.2: empty elements are ignored",
            f"Range: {value}",
            nginx="416 bytes */10",
            why=_EMPTY_ELEMENT,
        )
    it.add("416 bytes */10", "14.1.2: after the end", "Range: bytes=10-")
    it.add("416 bytes */10", "14.1.2: after the end", "Range: bytes=10-20")
    it.add("416 bytes */10", "14.1.2: far after the end", "Range: bytes=99999999999999999999999-")
    it.add("416 bytes */10", "14.1.2: the last 0 bytes", "Range: bytes=-0")
    return it


def _invalid_ranges() -> Group:
    it = Group(
        "Invalid ranges",
        "An unknown unit must be ignored. A malformed range may be ignored or rejected (14.2); it"
        " is ignored here, so that a player gets the file.",
    )
    it.add("200", "14.2: no unit", "Range: 0-")
    it.add("200", "14.2: no unit", "Range: 0-1")
    it.add("200", "14.2: another unit", "Range: items=0-1")
    it.add("200", "14.1.1: no range set", "Range: bytes")
    it.add("200", "14.1.1: an empty set", "Range: bytes=")
    it.add("200", "14.1.1: a colon", "Range: bytes:0-1")
    it.add("200", "14.1.1: a Content-Range", "Range: bytes 0-1/10")
    it.add("200", "14.2: empty", "Range: ")
    for note, value in [
        ("14.1.1: backwards", "bytes=5-2"),
        ("14.1.1: backwards, after the end", "bytes=20-10"),
        ("5.6.1.2: only empty elements", "bytes=,,"),
        ("14.1.2: no number", "bytes=-"),
        ("14.1.2: no hyphen", "bytes=0"),
        ("14.1.2: negative", "bytes=--1"),
        ("14.1.2: negative", "bytes=-1-3"),
        ("14.1.2: a sign", "bytes=+1-2"),
        ("14.1.2: letters", "bytes=a-b"),
        ("14.1.2: hexadecimal", "bytes=0x0-0x1"),
        ("14.1.2: a fraction", "bytes=0.5-1"),
        ("14.1.1: a superscript two", "bytes=\xb2-5"),
        ("14.1.2: text after it", "bytes=0-1;"),
    ]:
        it.add("200", note, f"Range: {value}", nginx="416 bytes */10", why=_REJECTS)
    for value in ["bytes= 0-1", "bytes=0 - 1"]:
        it.add(
            "200",
            "14.1.1: no spaces allowed (an example in 14.1.2 has one)",
            f"Range: {value}",
            nginx="206 bytes 0-1/10",
            why=_SPACES,
        )
    return it


def _several_ranges() -> Group:
    it = Group(
        "Several ranges",
        "A server may ignore any Range (14.2). This one ignores sets of several ranges: players do"
        " not request them, attackers do.",
    )
    parts = "206 multipart/byteranges"
    it.add("200", "14.2", "Range: bytes=0-1,4-5", nginx=parts, why=_PARTS)
    it.add("200", "14.2: adjacent", "Range: bytes=0-1, 2-3", nginx=parts, why=_PARTS)
    it.add("200", "14.2: first and last byte", "Range: bytes=0-0,-1", nginx=parts, why=_PARTS)
    it.add("200", "14.2: descending", "Range: bytes=8-9,0-1", nginx=parts, why=_PARTS)
    it.add("200", "14.2: overlapping", "Range: bytes=0-5,3-8")
    it.add("200", "14.2: overlapping three times", "Range: bytes=0-,0-,0-")
    it.add(
        "200",
        "14.2: one after the end",
        "Range: bytes=0-1,20-30",
        nginx="206 bytes 0-1/10",
        why="sends the part that exists",
    )
    it.add(
        "200",
        "14.2: all after the end",
        "Range: bytes=10-,20-",
        nginx="416 bytes */10",
        why="none of them exists",
    )
    it.add(
        "200",
        "14.2: one malformed",
        "Range: bytes=0-1,x",
        nginx="416 bytes */10",
        why=_REJECTS,
    )
    it.add(
        "200",
        "14.2: one backwards",
        "Range: bytes=0-1,5-2",
        nginx="206 bytes 0-1/10",
        why="ignores that one, as 2.4 allows",
    )
    it.add(
        "200",
        "5.3: in two lines; joined they are malformed",
        "Range: bytes=0-1",
        "Range: bytes=2-3",
        nginx="206 bytes 0-1/10",
        why=_FIRST_LINE,
    )
    return it


def _if_range() -> Group:
    it = Group(
        "If-Range",
        "The range is sent if the client has a part of this very file, otherwise the whole.",
    )
    ranged = "Range: bytes=2-3"
    part = "206 bytes 2-3/10"
    it.add(part, "13.1.5: the tag is the file's", ranged, "If-Range: {etag}")
    it.add("200", "13.1.5: another tag", ranged, 'If-Range: "other"')
    it.add("200", "13.1.5: a weak tag", ranged, "If-Range: W/{etag}")
    it.add("200", "13.1.5: a list is not a validator", ranged, 'If-Range: {etag}, "other"')
    it.add("200", "13.1.5: * is not a validator", ranged, "If-Range: *")
    it.add("200", "8.8.3: a tag has quotes", ranged, "If-Range: {opaque}")
    it.add("200", "13.1.5: empty", ranged, "If-Range: ")
    it.add(
        "200",
        "5.3: in two lines",
        ranged,
        "If-Range: {etag}",
        "If-Range: {etag}",
        nginx="400",
        why=_ONCE,
    )
    it.add(part, "13.1.5: the date is the file's", ranged, f"If-Range: {MODIFIED}")
    it.add(part, "5.6.7: in any form", ranged, "If-Range: Sunday, 06-Nov-94 08:49:37 GMT")
    it.add(part, "5.6.7: in any form", ranged, "If-Range: Sun Nov  6 08:49:37 1994")
    it.add("200", "13.1.5: stale", ranged, f"If-Range: {_EARLIER}")
    it.add("200", "13.1.5: exactly, not later", ranged, f"If-Range: {_LATER}")
    it.add(
        "200",
        "13.1.5: not a date",
        ranged,
        "If-Range: Sun, 06 Nov 1994 08:49:37 CET",
        nginx=part,
        why=_LAX_DATE + " (13.1.5 asks for an exact match)",
    )
    it.add_to(
        "ahead.wav",
        "200",
        "8.8.2.2: a date in the future is weak",
        ranged,
        f"If-Range: {_AHEAD}",
        nginx=part,
        why="sends that date as Last-Modified (against 8.8.2.1), and accepts it",
    )
    it.add_to("ahead.wav", part, "13.1.5: its tag is strong", ranged, "If-Range: {etag}")
    it.add("416 bytes */10", "14.2: after the end", "Range: bytes=10-", "If-Range: {etag}")
    it.add("200", "13.1.5: another tag", "Range: bytes=10-", 'If-Range: "other"')
    it.add("200", "13.1.5: ignored without Range", "If-Range: {etag}")
    it.add("200", "13.1.5: ignored without Range", 'If-Range: "other"')
    it.add(
        "200",
        "14.2: the range is malformed",
        "Range: bytes=5-2",
        "If-Range: {etag}",
        nginx="416 bytes */10",
        why=_REJECTS,
    )
    it.add(
        "200",
        "14.2: several ranges",
        "Range: bytes=0-1,4-5",
        "If-Range: {etag}",
        nginx="206 multipart/byteranges",
        why=_PARTS,
    )
    return it


def _order() -> Group:
    it = Group(
        "Several conditions",
        "13.2.2 defines the order: 1 If-Match, 2 without it If-Unmodified-Since, 3 If-None-Match,"
        " 4 without it If-Modified-Since, 5 Range with If-Range.",
    )
    it.add(
        "200",
        "13.1.4: If-Match overrides If-Unmodified-Since",
        "If-Match: {etag}",
        f"If-Unmodified-Since: {_EARLIER}",
        nginx="412",
        why="evaluates both (against 13.1.4)",
    )
    it.add("412", "1", 'If-Match: "other"', f"If-Unmodified-Since: {_LATER}")
    it.add("412", "1 comes before 3", 'If-Match: "other"', "If-None-Match: {etag}")
    it.add("412", "1 comes before 4", 'If-Match: "other"', f"If-Modified-Since: {MODIFIED}")
    it.add("412", "1 comes before 5", 'If-Match: "other"', "Range: bytes=0-1")
    it.add("412", "1 comes before 5, satisfiable or not", 'If-Match: "other"', "Range: bytes=10-")
    it.add("412", "2 comes before 3", f"If-Unmodified-Since: {_EARLIER}", "If-None-Match: {etag}")
    it.add("412", "2 comes before 5", f"If-Unmodified-Since: {_EARLIER}", "Range: bytes=0-1")
    it.add("304", "3 follows 1", "If-Match: {etag}", "If-None-Match: {etag}")
    it.add("200", "3 follows 1", "If-Match: {etag}", 'If-None-Match: "other"')
    it.add("304", "3 follows 2", f"If-Unmodified-Since: {_LATER}", "If-None-Match: {etag}")
    it.add("304", "4 follows 1", "If-Match: {etag}", f"If-Modified-Since: {MODIFIED}")
    it.add(
        "304", "4 follows 2", f"If-Unmodified-Since: {MODIFIED}", f"If-Modified-Since: {MODIFIED}"
    )
    it.add(
        "304",
        "13.1.3: If-None-Match overrides If-Modified-Since",
        "If-None-Match: {etag}",
        f"If-Modified-Since: {_EARLIER}",
        nginx="200",
        why="responds with 304 only if both match (against 13.1.3)",
    )
    it.add(
        "200",
        "13.1.3: If-None-Match overrides it",
        'If-None-Match: "other"',
        f"If-Modified-Since: {MODIFIED}",
    )
    it.add(
        "200",
        "13.1.3: even an empty If-None-Match overrides it",
        "If-None-Match: ",
        f"If-Modified-Since: {MODIFIED}",
    )
    it.add("304", "3 comes before 5", "If-None-Match: {etag}", "Range: bytes=0-1")
    it.add(
        "304", "3 comes before 5, satisfiable or not", "If-None-Match: {etag}", "Range: bytes=10-"
    )
    it.add("206 bytes 0-1/10", "5 follows 3", 'If-None-Match: "other"', "Range: bytes=0-1")
    it.add("304", "4 comes before 5", f"If-Modified-Since: {MODIFIED}", "Range: bytes=0-1")
    it.add("206 bytes 0-1/10", "5 follows 4", f"If-Modified-Since: {_EARLIER}", "Range: bytes=0-1")
    it.add("206 bytes 0-1/10", "5 follows 1", "If-Match: {etag}", "Range: bytes=0-1")
    it.add("200", "5 follows 1", "If-Match: {etag}", "Range: bytes=0-1", 'If-Range: "other"')
    it.add(
        "206 bytes 0-1/10",
        "5 follows 2",
        f"If-Unmodified-Since: {MODIFIED}",
        "Range: bytes=0-1",
        f"If-Range: {MODIFIED}",
    )
    it.add(
        "206 bytes 0-1/10",
        "all of them, in order",
        "If-Match: {etag}",
        f"If-Unmodified-Since: {_EARLIER}",
        'If-None-Match: "other"',
        f"If-Modified-Since: {MODIFIED}",
        "If-Range: {etag}",
        "Range: bytes=0-1",
        nginx="412",
        why="evaluates If-Unmodified-Since as well (against 13.1.4)",
    )
    return it


def _head() -> Group:
    it = Group("HEAD")

    def add(answer: str, note: str, *headers: str, nginx: str | None = None) -> None:
        why = _HEAD if nginx else ""
        it.add_to("digits.wav", answer, note, *headers, method="HEAD", nginx=nginx, why=why)

    add("304", "13.1.2", "If-None-Match: {etag}")
    add("200", "13.1.2", 'If-None-Match: "other"')
    add("304", "13.1.3", f"If-Modified-Since: {MODIFIED}")
    add("200", "13.1.3", f"If-Modified-Since: {_EARLIER}")
    add("412", "13.1.1", 'If-Match: "other"')
    add("200", "13.1.1", "If-Match: {etag}")
    add("412", "13.1.4", f"If-Unmodified-Since: {_EARLIER}")
    add("200", "14.2: ranges are for GET only", "Range: bytes=0-1", nginx="206 bytes 0-1/10")
    add("200", "14.2: ranges are for GET only", "Range: bytes=10-", nginx="416 bytes */10")
    add(
        "200",
        "14.2: ranges are for GET only",
        "Range: bytes=0-1",
        "If-Range: {etag}",
        nginx="206 bytes 0-1/10",
    )
    add("304", "13.2.2", "Range: bytes=0-1", "If-None-Match: {etag}")
    return it


def _empty() -> Group:
    it = Group("An empty file")

    def add(answer: str, note: str, *headers: str, nginx: str | None = None, why: str = "") -> None:
        it.add_to("empty.wav", answer, note, *headers, nginx=nginx, why=why)

    for value in ["bytes=0-", "bytes=0-0", "bytes=0-1"]:
        add(
            "416 bytes */0",
            "14.1.2: there is no first byte",
            f"Range: {value}",
            nginx="200",
            why=_EMPTY_FILE,
        )
    add(
        "416 bytes */0", "14.1.2: the last 0 bytes", "Range: bytes=-0", nginx="200", why=_EMPTY_FILE
    )
    add("416 bytes */0", "14.1.2: after the end", "Range: bytes=1-")
    add("200", "14.1.2: satisfiable, and 14.4 has no Content-Range for it", "Range: bytes=-5")
    add("200", "14.1.1: backwards", "Range: bytes=5-2", nginx="416 bytes */0", why=_REJECTS)
    add("200", "14.2: several", "Range: bytes=0-1,4-5")
    add("304", "13.1.2", "If-None-Match: {etag}")
    add("200", "13.1.1", "If-Match: {etag}")
    add("412", "13.1.1", 'If-Match: "other"')
    add("304", "13.1.3", f"If-Modified-Since: {MODIFIED}")
    add(
        "416 bytes */0",
        "13.1.5",
        "Range: bytes=0-1",
        "If-Range: {etag}",
        nginx="200",
        why=_EMPTY_FILE,
    )
    add("200", "13.1.5", "Range: bytes=0-1", 'If-Range: "other"')
    return it


def _missing() -> Group:
    it = Group(
        "A file that does not exist",
        "Conditions are evaluated only if the response would be a success without them (13.2.1).",
    )

    def add(*headers: str, method: str = "GET") -> None:
        it.add_to("missing.wav", "404", "13.2.1", *headers, method=method)

    add("If-Match: *")
    add('If-Match: "other"')
    add("If-Match: *", method="HEAD")
    add("If-None-Match: *")
    add('If-None-Match: "other"')
    add(f"If-Modified-Since: {MODIFIED}")
    add(f"If-Unmodified-Since: {_EPOCH}")
    add("Range: bytes=0-1")
    add("Range: bytes=0-1", 'If-Range: "other"')
    return it


def _long_headers() -> Group:
    it = Group(
        "Long headers",
        "Such a request costs no more than any request with a header of this length;"
        " `test_conditions.py` measures it.",
    )
    every = "206 bytes 0-9/10"
    two = "206 bytes 0-1/10"
    none = "416 bytes */10"
    it.add("200", "14.2: several", _long("Range", "bytes=0-1", ",0-1", 2999))
    it.add("200", "14.2: the whole, repeatedly", _long("Range", "bytes=0-", ",0-", 2999))
    it.add("200", "14.2: the last byte", _long("Range", "bytes=-1", ",-1", 2999))
    for answer, note, ranges, nginx, why in [
        ("200", "14.2: after the end", ("99-", ",99-", 2999), none, "none of them exists"),
        ("200", "14.2: the last malformed", ("", "0-1,", 2999, "x"), none, _REJECTS),
        (two, "5.6.1.2: empty elements", ("", ",", 12000, "0-1"), none, _EMPTY_ELEMENTS),
        (two, "5.6.1.2: empty elements", ("0-1", " ,", 6000), none, _EMPTY_ELEMENTS),
        ("200", "14.1.2: x is not a range", ("0-1", " ,", 6000, "x"), none, _REJECTS),
        (two, "14.1.1: leading zeros", ("", "0", 12000, "-1"), None, ""),
        (every, "14.1.2: no number is too large", ("0-", "9", 12000), none, _OVERFLOW),
        (every, "14.1.2: no number is too large", ("-", "9", 12000), none, _OVERFLOW),
        (none, "14.1.2: far after the end", ("", "9", 12000, "-"), None, ""),
    ]:
        before, each, count, *after = ranges
        it.add(
            answer,
            note,
            _long("Range", f"bytes={before}", each, count, *after),
            nginx=nginx,
            why=why,
        )
    it.add("412", "13.1.1: none of many tags", _long("If-Match", "", '"x",', 3000))
    it.add("200", "13.1.1: the last of many tags", _long("If-Match", "", '"x",', 3000, "{etag}"))
    it.add("412", "13.1.1: an empty list", _long("If-Match", "", ",", 12000))
    it.add("412", "8.8.3: a tag has two quotes", _long("If-Match", '"', "x,", 6000))
    it.add("412", "8.8.3: text after a tag", _long("If-Match", "{etag}", " ", 12000, "x"))
    it.add("412", "8.8.3.2: weak tags", _long("If-Match", "", "W/{etag},", 300))
    it.add("200", "13.1.2: none of many tags", _long("If-None-Match", "", '"x",', 3000))
    it.add(
        "304",
        "13.1.2: the last of many tags",
        _long("If-None-Match", "", 'W/"x", ', 1700, "{etag}"),
    )
    it.add("304", "5.6.1.2: empty elements", _long("If-None-Match", "", ", ", 6000, "{etag}"))
    it.add("200", "8.8.3: empty tags without commas", _long("If-None-Match", "", '"', 12000))
    it.add("200", "8.8.3: not a tag", _long("If-None-Match", "", "W/", 6000))
    it.add("200", "5.6.1: tags without commas", _long("If-None-Match", "", "{etag} ", 300))
    it.add("200", "13.1.3: not a date", _long("If-Modified-Since", "", "9", 12000))
    it.add("200", "13.1.3: not a date", _long("If-Modified-Since", "", "Sun, ", 2400))
    it.add(
        "200",
        "13.1.4: a list is not a date",
        _long("If-Unmodified-Since", "", f"{_EPOCH}, ", 400),
        nginx="412",
        why=_LAX_DATE + " (against 13.1.4)",
    )
    part = "Range: bytes=0-1"
    it.add("200", "13.1.5: another tag", part, _long("If-Range", '"', "x", 12000, '"'))
    it.add("200", "13.1.5: a list is not a validator", part, _long("If-Range", "", "{etag},", 300))
    return it


GROUPS = list(_groups())
ROWS = [row for group in GROUPS for row in group.rows]


def put_files(root: Path) -> None:
    """Write the files of the table under `root`, with their modification times."""
    (root / DIRECTORY).mkdir()
    for name, file in FILES.items():
        if file.content is not None:
            (root / DIRECTORY / name).write_bytes(file.content)
            os.utime(root / DIRECTORY / name, (file.modified_s, file.modified_s))


def sent(connection: Connection, row: Row, prefix: str) -> bytes:
    """Return the request for a file below `prefix`, with the tag of the server on `connection`."""
    target = f"{prefix}/{DIRECTORY}/{row.name}"
    shown: Mapping[str, str] = connection.ask("HEAD", target).headers
    etag = shown.get("ETag") or '"none"'
    headers = [
        (name, value.replace("{etag}", etag).replace("{opaque}", etag.strip('"')))
        for name, value in row.headers
    ]
    return head(row.method, target, headers)


def ask(connection: Connection, row: Row, prefix: str) -> Answer:
    """Send the request of a row, and return the response."""
    connection.send(sent(connection, row, prefix))
    return connection.answer(row.method)


def observed(row: Row, answer: Answer) -> str:
    """Format a response as in the table.

    :raises AssertionError: if its parts contradict each other.
    """
    content = FILES[row.name].content or b""
    content_range = answer.headers["Content-Range"]
    multipart = answer.headers["Content-Type"] or ""
    if answer.status == 206 and multipart.startswith("multipart/byteranges"):
        assert content_range is None
        return "206 multipart/byteranges"
    if answer.status == 200:
        assert content_range is None
        assert answer.headers["Content-Length"] == str(len(content))
        assert answer.content == (content if row.method == "GET" else b"")
    elif answer.status == 206:
        span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", content_range)
        assert span is not None
        start, last, size = map(int, span.groups())
        assert size == len(content)
        assert answer.headers["Content-Length"] == str(last + 1 - start)
        assert answer.content == (content[start : last + 1] if row.method == "GET" else b"")
    return f"{answer.status} {content_range}" if content_range else str(answer.status)


def document() -> str:
    """Return the text of docs/conditions.md."""
    differing = sum(row.nginx is not None for row in ROWS)
    files = "\n".join(f"- `{name}`: {file.described}" for name, file in FILES.items())
    about = f"""\
# Conditional requests and ranges

```sh
curl -i -H 'Range: bytes=0-1' -H 'If-None-Match: "other"' http://127.0.0.1:8000/media/a/digits.wav
```

The response is a 206 with the first two bytes, if there is such a file. This page lists {len(ROWS)}
requests that are conditional (RFC 9110, 13) or for a range of a file (14). For each it states the
service's response, the reason, and nginx's response if it differs, as it does {differing} times.
Numbers with dots are sections of RFC 9110.

`{{etag}}` stands for the server's tag of the file, with its quotes, and `{{opaque}}` for the text
between them. A request is a GET of `digits.wav` unless the table says otherwise:

{files}

nginx is version 1.22 of Debian 12 with its default settings, except for
`large_client_header_buffers 4 32k`. Without that it would refuse the long headers for their length,
as the service does beyond 16 KiB.

`python -m tests.process.conditional` writes this page from the table that
`tests/process/test_conditions.py` checks against the service, and
`tests/live/test_nginx_conditions.py` against nginx.
"""
    lines = about.splitlines()
    for group in GROUPS:
        lines += ["", f"## {group.title}", ""]
        lines += [*wrap(group.about, 100, break_on_hyphens=False), ""] if group.about else []
        lines += ["| request | response | reason | nginx |", "|---|---|---|---|"]
        lines += [_line(row) for row in group.rows]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    asked = [] if row.method == "GET" else [row.method]
    asked += [] if row.name == "digits.wav" else [f"`{row.name}`"]
    asked += [f"`{line}`" for line in row.shown]
    nginx = "" if row.nginx is None else f"{row.nginx}: {row.why}"
    return f"| {', '.join(asked)} | {row.response} | {row.note} | {nginx} |"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")

"""A table of requests that are conditional or ask for a part, and what they are answered: by the
service, and by nginx where that differs. `python -m tests.service.conditional` writes it as
docs/conditions.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.service.exchange import Answer, Connection, head

DIRECTORY = "conditional"
DIGITS = b"0123456789"
MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
_MODIFIED_S = 784111777
_AHEAD_S = 4102444800  # the year 2100


@dataclass(frozen=True)
class File:
    """What is asked for: its content, None if there is none, and its modification time in s."""

    content: bytes | None
    modified_s: int
    described: str


FILES = {
    "digits.wav": File(DIGITS, _MODIFIED_S, f"ten bytes, modified {MODIFIED}"),
    "empty.wav": File(b"", _MODIFIED_S, "no bytes, of the same time"),
    "ahead.wav": File(DIGITS, _AHEAD_S, "ten bytes, modified Fri, 01 Jan 2100 00:00:00 GMT"),
    "missing.wav": File(None, 0, "is not there"),
}

Fields = tuple[tuple[str, str], ...]

# In the values of headers `{etag}` is the tag that the server itself gives to the file, with its
# quotes, and `{opaque}` what is between them. Other long values are shown by these words.
SHOWN: dict[str, str] = {}


@dataclass(frozen=True)
class Row:
    """One request and its answer: the status and, if there is one, the Content-Range, or the
    Content-Type that says `multipart/byteranges`.
    """

    headers: Fields
    answer: str
    note: str
    name: str = "digits.wav"
    method: str = "GET"
    nginx: str | None = None  # None: the same
    why: str = ""  # nginx does that

    def __str__(self) -> str:
        shown = ", ".join(f"{name}: {SHOWN.get(value, value)}" for name, value in self.headers)
        return f"{self.method} {self.name} {shown}"

    @property
    def status(self) -> int:
        return int(self.answer.split()[0])


@dataclass(frozen=True)
class Group:
    """Requests of one kind."""

    title: str
    rows: list[Row] = field(default_factory=list)

    def add(
        self, answer: str, note: str, /, *headers: str, nginx: str | None = None, why: str = ""
    ) -> None:
        """A GET of the ten bytes with `headers`, each `Name: value`."""
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
        """A request for another file, or with another method."""
        self.rows.append(Row(_fields(headers), answer, note, name, method, nginx, why))


def _fields(lines: tuple[str, ...]) -> Fields:
    pairs = (line.partition(": ") for line in lines)
    return tuple((name, value) for name, _, value in pairs)


def _many(count: int, each: str, words: str) -> str:
    """A Range header of that many ranges."""
    value = "bytes=" + ",".join([each] * count)
    SHOWN[value] = f"bytes={each},{each},... {words}"
    return f"Range: {value}"


def _long(prefix: str, filler: str, count: int, suffix: str, words: str) -> str:
    value = prefix + filler * count + suffix
    SHOWN[value] = words
    return f"Range: {value}"


def _groups() -> Iterator[Group]:
    yield _plain()
    yield _if_match()
    yield _if_unmodified_since()
    yield _if_none_match()
    yield _if_modified_since()
    yield _dates()
    yield _ranges()
    yield _no_ranges()
    yield _several_ranges()
    yield _if_range()
    yield _order()
    yield _head()
    yield _empty()
    yield _missing()


def _plain() -> Group:
    it = Group("Without conditions")
    it.add("200", "the whole")
    it.add_to("digits.wav", "200", "its headers", method="HEAD")
    it.add_to("empty.wav", "200", "the whole is empty")
    it.add_to("missing.wav", "404", "")
    return it


def _if_match() -> Group:
    it = Group("If-Match")
    it.add("200", "13.1.1: the tag is the file's", "If-Match: {etag}")
    it.add("200", "13.1.1: there is a file", "If-Match: *")
    it.add("412", "13.1.1: another tag", 'If-Match: "other"')
    it.add("412", "8.8.3.2: a weak tag is never strongly equal", "If-Match: W/{etag}")
    it.add("200", "13.1.1: one of a list", 'If-Match: "other", {etag}')
    it.add("200", "5.6.1.2: empty elements are passed over", "If-Match: , {etag},,")
    it.add("412", "13.1.1: none of a list", 'If-Match: "other", W/{etag}')
    it.add("200", "13.1.1: one of a list, beside itself as weak", "If-Match: W/{etag}, {etag}")
    it.add("200", "8.8.3: a comma in a tag is a part of it", 'If-Match: "x,y", {etag}')
    it.add("412", "malformed, so it matches nothing: no quotes", "If-Match: {opaque}")
    it.add("412", "malformed: a quote is missing", 'If-Match: "{opaque}')
    it.add("412", "malformed: what follows the tag", "If-Match: {etag}x")
    it.add("412", "malformed: the list is judged as one", "If-Match: x, {etag}")
    it.add("412", "malformed: * is no element", "If-Match: *, {etag}")
    it.add("412", "malformed: empty", "If-Match: ")
    it.add("412", "8.8.3: w is not W", "If-Match: w/{etag}")
    it.add("200", "5.3: two lines are a list", 'If-Match: "other"', "If-Match: {etag}")
    return it


def _if_unmodified_since() -> Group:
    it = Group("If-Unmodified-Since")
    header = "If-Unmodified-Since"
    it.add("200", "13.1.4: of that second", f"{header}: {MODIFIED}")
    it.add("412", "13.1.4: a second too early", f"{header}: Sun, 06 Nov 1994 08:49:36 GMT")
    it.add("200", "13.1.4: later", f"{header}: Sun, 06 Nov 1994 08:49:38 GMT")
    it.add("200", "13.1.4: in the future", f"{header}: Fri, 01 Jan 2100 00:00:00 GMT")
    it.add("412", "13.1.4: the beginning of time", f"{header}: Thu, 01 Jan 1970 00:00:00 GMT")
    it.add("412", "13.1.4: before it", f"{header}: Sun, 06 Nov 1904 08:49:37 GMT")
    it.add("200", "13.1.4: no date is ignored", f"{header}: yesterday")
    it.add("200", "13.1.4: nor is a list one", f"{header}: {MODIFIED}, {MODIFIED}")
    it.add("200", "13.1.4: two lines are a list", *[f"{header}: Thu, 01 Jan 1970 00:00:00 GMT"] * 2)
    return it


def _if_none_match() -> Group:
    it = Group("If-None-Match")
    it.add("304", "13.1.2: the tag is the file's", "If-None-Match: {etag}")
    it.add("304", "13.1.2: compared weakly", "If-None-Match: W/{etag}")
    it.add("304", "13.1.2: there is a file", "If-None-Match: *")
    it.add("200", "13.1.2: another tag", 'If-None-Match: "other"')
    it.add("304", "13.1.2: one of a list", 'If-None-Match: "other", {etag}')
    it.add("304", "13.1.2: one of a list, weak", 'If-None-Match: W/"other",W/{etag}')
    it.add("304", "5.6.1.2: empty elements are passed over", "If-None-Match: ,, {etag} ,")
    it.add("200", "13.1.2: none of a list", 'If-None-Match: "other", W/"another"')
    it.add("304", "8.8.3: a comma in a tag is a part of it", 'If-None-Match: "x,y", {etag}')
    it.add("200", "malformed: no quotes", "If-None-Match: {opaque}")
    it.add("200", "malformed: a quote is missing", "If-None-Match: {opaque}\"")
    it.add("200", "malformed: two tags without a comma", "If-None-Match: {etag} {etag}")
    it.add("304", "a malformed element does not hide another", "If-None-Match: x, {etag}")
    it.add("304", "nor does * as an element", "If-None-Match: *, {etag}")
    it.add("200", "empty", "If-None-Match: ")
    it.add("304", "5.3: two lines are a list", 'If-None-Match: "other"', "If-None-Match: {etag}")
    return it


def _if_modified_since() -> Group:
    it = Group("If-Modified-Since")
    header = "If-Modified-Since"
    it.add("304", "13.1.3: of that second", f"{header}: {MODIFIED}")
    it.add("200", "13.1.3: a second before", f"{header}: Sun, 06 Nov 1994 08:49:36 GMT")
    it.add("304", "13.1.3: later", f"{header}: Sun, 06 Nov 1994 08:49:38 GMT")
    it.add(
        "304",
        "13.1.3: in the future; RFC 2616 called that invalid, RFC 9110 does not",
        f"{header}: Fri, 01 Jan 2100 00:00:00 GMT",
    )
    it.add("200", "13.1.3: the beginning of time", f"{header}: Thu, 01 Jan 1970 00:00:00 GMT")
    it.add("200", "13.1.3: no date is ignored", f"{header}: 784111777")
    it.add("200", "13.1.3: nor is a tag one", f"{header}: {{etag}}")
    it.add("200", "13.1.3: a list is none", f"{header}: {MODIFIED}, {MODIFIED}")
    it.add("200", "13.1.3: two lines are a list", *[f"{header}: {MODIFIED}"] * 2)
    it.add_to(
        "ahead.wav",
        "304",
        "13.1.3: a file of the future, too",
        f"{header}: Fri, 01 Jan 2100 00:00:00 GMT",
    )
    it.add_to("ahead.wav", "200", "13.1.3", f"{header}: {MODIFIED}")
    return it


def _dates() -> Group:
    it = Group("Dates")
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
    it.add("304", "5.6.7: this is 2038", f"{header}: Saturday, 06-Nov-38 08:49:37 GMT")
    it.add("304", "5.6.7: a leap second", f"{header}: Fri, 30 Jun 1995 23:59:60 GMT")
    it.add("304", "the day of the week is not checked", f"{header}: Mon, 06 Nov 1994 08:49:37 GMT")
    it.add("200", "5.6.7: February 29 in 1995", f"{header}: Wed, 29 Feb 1995 08:49:37 GMT")
    it.add("200", "5.6.7: November 31", f"{header}: Thu, 31 Nov 1994 08:49:37 GMT")
    it.add("200", "5.6.7: an hour 24", f"{header}: Sun, 06 Nov 1994 24:49:37 GMT")
    it.add("200", "5.6.7: GMT only", f"{header}: Sun, 06 Nov 1994 08:49:37 CET")
    it.add("200", "5.6.7: GMT only", f"{header}: Sun, 06 Nov 1994 08:49:37 +0000")
    it.add("200", "5.6.7: no zone", f"{header}: Sun, 06 Nov 1994 08:49:37")
    it.add("200", "5.6.7: a day of one digit", f"{header}: Sun, 6 Nov 1994 08:49:37 GMT")
    it.add("200", "5.6.7: lower case", f"{header}: sun, 06 nov 1994 08:49:37 gmt")
    it.add("200", "5.6.7: ISO 8601", f"{header}: 1994-11-06T08:49:37Z")
    it.add("200", "5.6.7: what follows", f"{header}: {MODIFIED}; length=10")
    return it


def _ranges() -> Group:
    it = Group("One range")
    it.add("206 bytes 0-1/10", "14.1.2: what Safari asks first", "Range: bytes=0-1")
    it.add("206 bytes 0-0/10", "14.1.2: the first byte", "Range: bytes=0-0")
    it.add("206 bytes 9-9/10", "14.1.2: the last byte", "Range: bytes=9-9")
    it.add("206 bytes 2-5/10", "14.1.2", "Range: bytes=2-5")
    it.add("206 bytes 0-9/10", "14.1.2: all of it is a part", "Range: bytes=0-9")
    it.add("206 bytes 0-9/10", "14.1.2: open", "Range: bytes=0-")
    it.add("206 bytes 3-9/10", "14.1.2: open", "Range: bytes=3-")
    it.add("206 bytes 5-9/10", "14.1.2: beyond the end", "Range: bytes=5-10")
    it.add(
        "206 bytes 5-9/10",
        "14.1.1: no number is too large",
        "Range: bytes=5-99999999999999999999999",
    )
    it.add("206 bytes 9-9/10", "14.1.2: the last byte", "Range: bytes=-1")
    it.add("206 bytes 0-9/10", "14.1.2: the last ten", "Range: bytes=-10")
    it.add("206 bytes 0-9/10", "14.1.2: more than there are", "Range: bytes=-11")
    it.add("206 bytes 0-9/10", "14.1.2: more than there are", "Range: bytes=-99999999999")
    it.add(
        "206 bytes 0-9/10",
        "14.1.2: more than any machine counts",
        _long("bytes=-", "9", 4000, "", "bytes=-999... (4,000 digits)"),
    )
    it.add("206 bytes 0-1/10", "14.1: the unit in any case", "Range: BYTES=0-1")
    it.add("206 bytes 1-2/10", "14.1.1: leading zeros", "Range: bytes=0001-0002")
    it.add("206 bytes 0-1/10", "5.6.1.2: an empty element", "Range: bytes=0-1,")
    it.add("206 bytes 0-1/10", "5.6.1.2: an empty element", "Range: bytes=,0-1")
    it.add("206 bytes 0-1/10", "5.6.1.2: empty elements", "Range: bytes=, ,0-1 , ,")
    it.add("416 bytes */10", "14.1.2: behind the end", "Range: bytes=10-")
    it.add("416 bytes */10", "14.1.2: behind the end", "Range: bytes=10-20")
    it.add("416 bytes */10", "14.1.2: far behind", "Range: bytes=99999999999999999999999-")
    it.add(
        "416 bytes */10",
        "14.1.2: farther",
        _long("bytes=", "9", 4000, "-", "bytes=999...- (4,000 digits)"),
    )
    it.add("416 bytes */10", "14.1.2: the last none", "Range: bytes=-0")
    return it


def _no_ranges() -> Group:
    it = Group("What is no range")
    it.add("200", "14.1.1: backwards", "Range: bytes=5-2")
    it.add("200", "14.1.1: backwards, behind the end", "Range: bytes=20-10")
    it.add("200", "14.2: no unit", "Range: 0-")
    it.add("200", "14.2: no unit", "Range: 0-1")
    it.add("200", "14.2: another unit", "Range: items=0-1")
    it.add("200", "14.2: no set", "Range: bytes")
    it.add("200", "14.2: an empty set", "Range: bytes=")
    it.add("200", "14.2: a set of empty elements", "Range: bytes=,,")
    it.add("200", "14.1.1: no number", "Range: bytes=-")
    it.add("200", "14.1.1: no hyphen", "Range: bytes=0")
    it.add("200", "14.1.1: negative", "Range: bytes=--1")
    it.add("200", "14.1.1: negative", "Range: bytes=-1-3")
    it.add("200", "14.1.1: a sign", "Range: bytes=+1-2")
    it.add("200", "14.1.1: letters", "Range: bytes=a-b")
    it.add("200", "14.1.1: hexadecimal", "Range: bytes=0x0-0x1")
    it.add("200", "14.1.1: a fraction", "Range: bytes=0.5-1")
    it.add("200", "14.1.1: a superscript two", "Range: bytes=\xb2-5")
    it.add("200", "14.1.1: spaces", "Range: bytes= 0-1")
    it.add("200", "14.1.1: spaces", "Range: bytes=0 - 1")
    it.add("200", "14.1.1: a colon", "Range: bytes:0-1")
    it.add("200", "14.1.1: a space for the equals sign", "Range: bytes 0-1/10")
    it.add("200", "14.1.1: what follows", "Range: bytes=0-1;")
    it.add("200", "empty", "Range: ")
    return it


def _several_ranges() -> Group:
    it = Group("Several ranges")
    it.add("200", "14.2: the whole is allowed", "Range: bytes=0-1,4-5")
    it.add("200", "14.2: overlapping", "Range: bytes=0-5,3-8")
    it.add("200", "14.2: adjacent", "Range: bytes=0-1, 2-3")
    it.add("200", "14.2: first and last byte", "Range: bytes=0-0,-1")
    it.add("200", "14.2: descending", "Range: bytes=8-9,0-1")
    it.add("200", "14.2: one behind the end", "Range: bytes=0-1,20-30")
    it.add("200", "14.2: all behind the end", "Range: bytes=10-,20-")
    it.add("200", "14.2: one malformed", "Range: bytes=0-1,x")
    it.add("200", "14.2: one backwards", "Range: bytes=0-1,5-2")
    it.add("200", "14.2: overlapping a hundred times", _many(100, "0-", "(100 ranges)"))
    it.add("200", "14.2: 3,000 ranges", _many(3000, "0-1", "(3,000 ranges)"))
    it.add("200", "14.2: 3,000 times the last byte", _many(3000, "-1", "(3,000 ranges)"))
    it.add("200", "5.3: two lines are a list that is none", "Range: bytes=0-1", "Range: bytes=2-3")
    return it


def _if_range() -> Group:
    it = Group("If-Range")
    ranged = "Range: bytes=2-3"
    part = "206 bytes 2-3/10"
    it.add(part, "13.1.5: the tag is the file's", ranged, "If-Range: {etag}")
    it.add("200", "13.1.5: another tag", ranged, 'If-Range: "other"')
    it.add("200", "13.1.5: a weak tag", ranged, "If-Range: W/{etag}")
    it.add("200", "13.1.5: no list", ranged, 'If-Range: {etag}, "other"')
    it.add("200", "13.1.5: nor *", ranged, "If-Range: *")
    it.add("200", "malformed: no quotes", ranged, "If-Range: {opaque}")
    it.add("200", "malformed: empty", ranged, "If-Range: ")
    it.add(part, "13.1.5: the date is the file's", ranged, f"If-Range: {MODIFIED}")
    it.add(part, "5.6.7: RFC 850", ranged, "If-Range: Sunday, 06-Nov-94 08:49:37 GMT")
    it.add(part, "5.6.7: asctime", ranged, "If-Range: Sun Nov  6 08:49:37 1994")
    it.add("200", "13.1.5: stale", ranged, "If-Range: Sun, 06 Nov 1994 08:49:36 GMT")
    it.add("200", "13.1.5: exactly, not later", ranged, "If-Range: Sun, 06 Nov 1994 08:49:38 GMT")
    it.add("200", "13.1.5: no date", ranged, "If-Range: Sun, 06 Nov 1994 08:49:37 CET")
    it.add_to(
        "ahead.wav",
        "200",
        "8.8.2.2: a date that is not over yet is weak",
        ranged,
        "If-Range: Fri, 01 Jan 2100 00:00:00 GMT",
    )
    it.add_to("ahead.wav", part, "13.1.5: its tag is strong", ranged, "If-Range: {etag}")
    it.add("416 bytes */10", "13.1.5: behind the end", "Range: bytes=10-", "If-Range: {etag}")
    it.add("200", "13.1.5: of another", "Range: bytes=10-", 'If-Range: "other"')
    it.add("200", "13.1.5: nothing without Range", "If-Range: {etag}")
    it.add("200", "13.1.5: nothing without Range", 'If-Range: "other"')
    it.add("200", "14.2: nor with a malformed one", "Range: bytes=5-2", "If-Range: {etag}")
    it.add("200", "14.2: nor with several", "Range: bytes=0-1,4-5", "If-Range: {etag}")
    return it


def _order() -> Group:
    it = Group("Several conditions, in the order of 13.2.2")
    earlier, later = "Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 1994 08:49:38 GMT"
    it.add(
        "200",
        "1: If-Unmodified-Since is not looked at beside If-Match",
        "If-Match: {etag}",
        f"If-Unmodified-Since: {earlier}",
    )
    it.add("412", "1", 'If-Match: "other"', f"If-Unmodified-Since: {later}")
    it.add("412", "1 comes before 3", 'If-Match: "other"', "If-None-Match: {etag}")
    it.add("412", "1 comes before 4", 'If-Match: "other"', f"If-Modified-Since: {later}")
    it.add("412", "1 comes before 5", 'If-Match: "other"', "Range: bytes=0-1")
    it.add("412", "1 comes before what a range may be", 'If-Match: "other"', "Range: bytes=10-")
    it.add("412", "2 comes before 3", f"If-Unmodified-Since: {earlier}", "If-None-Match: {etag}")
    it.add("412", "2 comes before 5", f"If-Unmodified-Since: {earlier}", "Range: bytes=0-1")
    it.add("304", "3 follows 1", "If-Match: {etag}", "If-None-Match: {etag}")
    it.add("200", "3 follows 1", "If-Match: {etag}", 'If-None-Match: "other"')
    it.add("304", "3 follows 2", f"If-Unmodified-Since: {later}", "If-None-Match: {etag}")
    it.add("304", "4 follows 1", "If-Match: {etag}", f"If-Modified-Since: {MODIFIED}")
    it.add(
        "304", "4 follows 2", f"If-Unmodified-Since: {MODIFIED}", f"If-Modified-Since: {MODIFIED}"
    )
    it.add(
        "304",
        "3: If-Modified-Since is not looked at beside If-None-Match",
        "If-None-Match: {etag}",
        f"If-Modified-Since: {earlier}",
    )
    it.add("200", "3", 'If-None-Match: "other"', f"If-Modified-Since: {later}")
    it.add("200", "3: nor beside one without a tag", "If-None-Match: ", f"If-Modified-Since: {later}")
    it.add("304", "3 comes before 5", "If-None-Match: {etag}", "Range: bytes=0-1")
    it.add("304", "3 comes before what a range may be", "If-None-Match: {etag}", "Range: bytes=10-")
    it.add("206 bytes 0-1/10", "5 follows 3", 'If-None-Match: "other"', "Range: bytes=0-1")
    it.add("304", "4 comes before 5", f"If-Modified-Since: {MODIFIED}", "Range: bytes=0-1")
    it.add("206 bytes 0-1/10", "5 follows 4", f"If-Modified-Since: {earlier}", "Range: bytes=0-1")
    it.add("206 bytes 0-1/10", "5 follows 1", "If-Match: {etag}", "Range: bytes=0-1")
    it.add(
        "200", "5 follows 1", "If-Match: {etag}", "Range: bytes=0-1", 'If-Range: "other"'
    )
    it.add(
        "206 bytes 0-1/10",
        "5 follows 2",
        f"If-Unmodified-Since: {MODIFIED}",
        "Range: bytes=0-1",
        f"If-Range: {MODIFIED}",
    )
    it.add(
        "206 bytes 0-1/10",
        "all of them",
        "If-Match: {etag}",
        f"If-Unmodified-Since: {earlier}",
        'If-None-Match: "other"',
        f"If-Modified-Since: {later}",
        "If-Range: {etag}",
        "Range: bytes=0-1",
    )
    return it


def _head() -> Group:
    it = Group("HEAD")

    def add(answer: str, note: str, *headers: str) -> None:
        it.add_to("digits.wav", answer, note, *headers, method="HEAD")

    add("304", "13.1.2", "If-None-Match: {etag}")
    add("200", "13.1.2", 'If-None-Match: "other"')
    add("304", "13.1.3", f"If-Modified-Since: {MODIFIED}")
    add("200", "13.1.3", "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT")
    add("412", "13.1.1", 'If-Match: "other"')
    add("200", "13.1.1", "If-Match: {etag}")
    add("412", "13.1.4", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT")
    add("200", "14.2: ranges are GET's", "Range: bytes=0-1")
    add("200", "14.2: ranges are GET's", "Range: bytes=10-")
    add("200", "14.2: ranges are GET's", "Range: bytes=0-1", "If-Range: {etag}")
    add("304", "13.2.2", "Range: bytes=0-1", "If-None-Match: {etag}")
    return it


def _empty() -> Group:
    it = Group("A file without bytes")

    def add(answer: str, note: str, *headers: str) -> None:
        it.add_to("empty.wav", answer, note, *headers)

    add("416 bytes */0", "14.1.2: there is no first byte", "Range: bytes=0-")
    add("416 bytes */0", "14.1.2: there is no first byte", "Range: bytes=0-0")
    add("416 bytes */0", "14.1.2: the last none", "Range: bytes=-0")
    add("200", "14.1.2: the last five of none are none", "Range: bytes=-5")
    add("200", "14.1.1: backwards", "Range: bytes=5-2")
    add("200", "14.2: several", "Range: bytes=0-1,4-5")
    add("304", "13.1.2", "If-None-Match: {etag}")
    add("200", "13.1.1", "If-Match: {etag}")
    add("412", "13.1.1", 'If-Match: "other"')
    add("304", "13.1.3", f"If-Modified-Since: {MODIFIED}")
    add("416 bytes */0", "13.1.5", "Range: bytes=0-1", "If-Range: {etag}")
    add("200", "13.1.5", "Range: bytes=0-1", 'If-Range: "other"')
    return it


def _missing() -> Group:
    it = Group("A file that is not there")

    def add(*headers: str, method: str = "GET") -> None:
        it.add_to("missing.wav", "404", "13.2.1: conditions wait for success", *headers, method=method)

    add("If-Match: *")
    add('If-Match: "other"')
    add("If-Match: *", method="HEAD")
    add("If-None-Match: *")
    add('If-None-Match: "other"')
    add(f"If-Modified-Since: {MODIFIED}")
    add("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT")
    add("Range: bytes=0-1")
    add("Range: bytes=0-1", 'If-Range: "other"')
    return it


GROUPS = list(_groups())
ROWS = [row for group in GROUPS for row in group.rows]


def put_files(root: Path) -> None:
    """What the table asks for, under `root`, with those modification times."""
    (root / DIRECTORY).mkdir()
    for name, file in FILES.items():
        if file.content is not None:
            (root / DIRECTORY / name).write_bytes(file.content)
            os.utime(root / DIRECTORY / name, (file.modified_s, file.modified_s))


def ask(connection: Connection, row: Row, prefix: str) -> Answer:
    """What a server answers below `prefix`, with its own tag in the request."""
    target = f"{prefix}/{DIRECTORY}/{row.name}"
    shown: Mapping[str, str] = connection.ask("HEAD", target).headers
    etag = shown.get("ETag") or '"none"'
    headers = [
        (name, value.replace("{etag}", etag).replace("{opaque}", etag.strip('"')))
        for name, value in row.headers
    ]
    connection.send(head(row.method, target, headers))
    return connection.answer(row.method)


def observed(row: Row, answer: Answer) -> str:
    """The answer in the words of the table.

    :raises AssertionError: when its parts contradict each other.
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
    """docs/conditions.md."""
    return ""


if __name__ == "__main__":
    print(document(), end="")

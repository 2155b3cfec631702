"""What of a file to send, and whether a file may be changed, by the headers of the request.

Pure. RFC 9110: preconditions (13) in their order (13.2.2), and one range of bytes (14). Several
ranges in one request are answered with the whole (14.2 allows it; players never ask). Nothing here
takes longer than the headers are long: the patterns are possessive throughout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.utils import formatdate
from functools import lru_cache

from twistedmedia.errors import PreconditionFailed, RangeNotSatisfiable

_OWS = " \t"  # RFC 9110, 5.6.3

_OPAQUE = r'"[\x21\x23-\x7e\x80-\xff]*+"'
_TAG = re.compile(rf"(?:W/)?+{_OPAQUE}")  # 8.8.3
# 5.6.1.2: a recipient has to pass over empty elements.
_TAGS = re.compile(rf"[ \t,]*+{_TAG.pattern}(?:[ \t]*+,[ \t,]*+(?:{_TAG.pattern})?+)*+")
# Finds the opaque part of an element that is a tag, and nothing in one that is none.
_ELEMENT = re.compile(rf"[ \t,]*+(?:(?:W/)?+({_OPAQUE})[ \t]*+(?![^,])|[^,]*+)")

_RANGE = re.compile(
    r"bytes=(?:[ \t]*+,[ \t,]*+)?+(?:([0-9]++)-([0-9]*+)|-([0-9]++))(?:[ \t]*+,)*+",
    re.IGNORECASE | re.ASCII,
)
_MAX_DIGITS = 18  # a position with more lies beyond every file

_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_DAY_NAME = f"(?:{'|'.join(day[:3] for day in _DAYS)})"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_DAY = "(?P<day>[0-9]{2})"
_YEAR = "(?P<year>[0-9]{4})"
_TIME = "(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
_DATES = [  # 5.6.7
    re.compile(f"{_DAY_NAME}, {_DAY} {_MONTH} {_YEAR} {_TIME} GMT"),
    re.compile(f"(?:{'|'.join(_DAYS)}), {_DAY}-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(f"{_DAY_NAME} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} {_YEAR}"),
]
_LONGEST_DATE = len("Wednesday, 06-Nov-94 08:49:37 GMT")
# Dates outside of this are clamped. nginx, Apache and others understand no date before 1970, and an
# IMF-fixdate has four digits for the year (5.6.7).
_FIRST_DATE_S = 0
LAST_DATE_S = 253_402_300_799  # the end of 9999
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Conditions:
    """The headers that make a request conditional or ask for a part, as they were sent; None where
    absent. Of a header that was sent more than once, the values joined by ', '.
    """

    if_match: str | None = None
    if_unmodified_since: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_range: str | None = None
    range: str | None = None

    def allow_change(self, etag: str, modified_s: int, now_s: int) -> bool:
        """Whether a request that changes or deletes the file with these validators may.

        `modified_s` and `now_s` are seconds since the epoch, rounded down. A tag header that is
        malformed allows no change, neither If-Match nor If-None-Match. If-Modified-Since says
        nothing about changes (13.1.3).
        """
        if not self._is_the_one_meant(etag, modified_s, now_s):
            return False
        if self.if_none_match is None:
            return True
        return _is_tag_list(self.if_none_match) and not _has_weakly(self.if_none_match, etag)

    def _is_the_one_meant(self, etag: str, modified_s: int, now_s: int) -> bool:
        """13.2.2, steps 1 and 2."""
        if self.if_match is not None:
            return _has_strongly(self.if_match, etag)
        if self.if_unmodified_since is not None:
            since_s = _date_s(self.if_unmodified_since, now_s)
            return since_s is None or modified_s <= since_s
        return True

    def _is_known(self, etag: str, modified_s: int, now_s: int) -> bool:
        """13.2.2, steps 3 and 4, for GET and HEAD: whether the client has this file already."""
        if self.if_none_match is not None:
            return _has_weakly(self.if_none_match, etag)
        if self.if_modified_since is not None:
            # A date in the future is one like any other: 13.1.3 compares it with the file's only.
            # It was RFC 2616 that called it invalid.
            since_s = _date_s(self.if_modified_since, now_s)
            return since_s is not None and modified_s <= since_s
        return False

    def _keep_range(self, etag: str, modified_s: int, now_s: int) -> bool:
        """13.1.5: whether a range is one of the file that the client has a part of."""
        if self.if_range is None:
            return True
        validator = self.if_range.strip(_OWS)
        if validator == etag:
            return _is_strong(etag)
        # 8.8.2.2: a date tells contents apart once its second is over. A client may send it only
        # if it was over when the client got it, which nobody can see here.
        return modified_s < now_s and _date_s(validator, now_s) == modified_s


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """What to answer: `status` 200, 206 or 304, and the half-open span `start` to `stop` in bytes,
    which with 304 is empty.
    """

    status: int
    start: int
    stop: int
    content_range: str | None = None

    @property
    def length(self) -> int:
        """How many bytes are sent."""
        return self.stop - self.start


def plan(conditions: Conditions, size: int, etag: str, modified_s: int, now_s: int) -> ResponsePlan:
    """What to send of a file of `size` bytes to a GET; to a HEAD, whose `range` is None.

    `modified_s` is when the file was modified and `now_s` the clock, both in seconds since the
    epoch, rounded down, of any year. Last-Modified may have to say another date (`format_date`);
    such a date never keeps a range. What is malformed is passed over, but for If-Match, which then
    matches no file. A Range header with another unit or several ranges is passed over as well.

    :raises PreconditionFailed: when If-Match or, without it, If-Unmodified-Since means another.
    :raises RangeNotSatisfiable: when the range is well formed and no byte of it exists.
    """
    if not conditions._is_the_one_meant(etag, modified_s, now_s):
        raise PreconditionFailed
    if conditions._is_known(etag, modified_s, now_s):
        return ResponsePlan(304, 0, 0)
    if conditions.range is None or not conditions._keep_range(etag, modified_s, now_s):
        return ResponsePlan(200, 0, size)
    return _plan_range(conditions.range, size)


@lru_cache(4096)  # it takes as long as opening a file
def format_date(seconds: int) -> str:
    """The IMF-fixdate (5.6.7) that is nearest to `seconds` since the epoch and that clients
    understand: from 1970 to 9999.
    """
    return formatdate(min(max(seconds, _FIRST_DATE_S), LAST_DATE_S), usegmt=True)


def _plan_range(header: str, size: int) -> ResponsePlan:
    whole = ResponsePlan(200, 0, size)
    match = _RANGE.fullmatch(header.strip(_OWS))
    if match is None:
        return whole
    first, last, suffix = match.groups()
    if suffix is not None:
        wanted = _position(suffix)
        if wanted == 0:
            raise RangeNotSatisfiable(size)
        if size == 0:  # 14.1.2: a suffix of an empty file is satisfiable, and the file is empty
            return whole
        start, stop = max(0, size - wanted), size
    else:
        start = _position(first)
        stop = _position(last) + 1 if last else size
        if last and _is_less(last, first):
            return whole  # 14.1.1: a last position before the first makes it invalid
        if start >= size:
            raise RangeNotSatisfiable(size)
        stop = min(stop, size)
    return ResponsePlan(206, start, stop, f"bytes {start}-{stop - 1}/{size}")


def _position(digits: str) -> int:
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def _is_less(digits: str, others: str) -> bool:
    """Compares numbers of any length."""
    digits, others = digits.lstrip("0"), others.lstrip("0")
    return (len(digits), digits) < (len(others), others)


def _is_strong(etag: str) -> bool:
    return not etag.startswith("W/")


def _is_tag_list(header: str) -> bool:
    header = header.strip(_OWS)
    return header == "*" or _TAGS.fullmatch(header) is not None


def _has_strongly(header: str, etag: str) -> bool:
    """8.8.3.2: both tags have to be strong. A malformed header has none."""
    header = header.strip(_OWS)
    if header == "*":
        return True
    if etag not in header or not _is_strong(etag) or not _is_tag_list(header):
        return False
    return etag in _TAG.findall(header)


def _has_weakly(header: str, etag: str) -> bool:
    """8.8.3.2: weak and strong are the same. A malformed element is none."""
    opaque = etag.removeprefix("W/")
    if header.strip(_OWS) == "*":
        return True
    return opaque in header and opaque in _ELEMENT.findall(header)


def _date_s(text: str, now_s: int) -> int | None:
    """Seconds since the epoch, of a date in one of the three forms; None of anything else, and of
    days that no month has. Whether it was the day of the week that it says is not looked at.
    """
    text = text.strip(_OWS)
    if len(text) > _LONGEST_DATE:
        return None
    match = next(filter(None, (form.fullmatch(text) for form in _DATES)), None)
    if match is None:
        return None
    year, day, hour, minute, second = (
        int(match[name]) for name in ("year", "day", "hour", "minute", "second")
    )
    month = _MONTHS.index(match["month"]) + 1
    if len(match["year"]) == 2:
        # 5.6.7: what would be more than 50 years ahead lies in the past.
        now = datetime.fromtimestamp(now_s, UTC)
        year += now.year // 100 * 100 + 100
        while (year - 50, month, day, hour, minute, second) > now.timetuple()[:6]:
            year -= 100
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    return days * _DAY_S + hour * 3600 + minute * 60 + second

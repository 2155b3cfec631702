"""Conditional requests and ranges: which part of a file to send, and whether it may be changed.

Pure. RFC 9110: preconditions (13) in their order (13.2.2), and one range of bytes (14). A request
for several ranges gets the whole file, which 14.2 allows; players do not ask for several. Parsing
takes time in proportion to the length of the headers: the patterns are possessive throughout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.utils import formatdate
from functools import lru_cache

from twistedmedia.errors import PreconditionFailed, RangeNotSatisfiable
from twistedmedia.store.preconditions import ANY, Precondition

_OWS = " \t"  # RFC 9110, 5.6.3

_OPAQUE = r'"[\x21\x23-\x7e\x80-\xff]*+"'
_TAG = rf"(?:W/)?+{_OPAQUE}"  # 8.8.3
# 5.6.1.2: recipients ignore empty elements.
_TAGS = re.compile(rf"[ \t,]*+{_TAG}(?:[ \t]*+,[ \t,]*+(?:{_TAG})?+)*+")
# In a well-formed list: the tags without `W/`; and the tags, with nothing captured of weak ones.
_OPAQUE_TAG = re.compile(_OPAQUE)
_STRONG_TAG = re.compile(rf"W/{_OPAQUE}|({_OPAQUE})")
# Captures the opaque part of an element that is a tag, and nothing of a malformed one.
_ELEMENT = re.compile(rf"[ \t,]*+(?:(?:W/)?+({_OPAQUE})[ \t]*+(?![^,])|[^,]*+)")

_RANGE = re.compile(
    r"bytes=(?:[ \t]*+,[ \t,]*+)?+(?:([0-9]++)-([0-9]*+)|-([0-9]++))(?:[ \t]*+,)*+",
    re.IGNORECASE | re.ASCII,
)
_MAX_DIGITS = 18  # longer positions are beyond the end of every file

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
# Dates outside this span are clamped. nginx, Apache and others parse no date before 1970, and an
# IMF-fixdate has four digits for the year (5.6.7).
_FIRST_DATE_S = 0
LAST_DATE_S = 253_402_300_799  # the end of 9999
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Conditions:
    """The headers that make a request conditional or ask for a range, as they were sent. A missing
    header is None; the values of a repeated one are joined by ', '.
    """

    if_match: str | None = None
    if_unmodified_since: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_range: str | None = None
    range: str | None = None

    def precondition(self, now_s: int) -> Precondition | None:
        """The precondition of a change, None if no header states one.

        `now_s` is the current time in seconds since the epoch; two-digit years depend on it. A
        malformed If-Match or If-None-Match allows no change of a file. An invalid date is ignored,
        and so is If-Unmodified-Since beside If-Match (13.2.2). If-Modified-Since does not apply to
        changes (13.1.3).
        """
        if self.if_match is self.if_none_match is self.if_unmodified_since is None:
            return None
        if_match = if_none_match = since_s = None
        if self.if_match is not None:
            if_match = frozenset(_strong_tags(self.if_match))
        elif self.if_unmodified_since is not None:
            since_s = _parse_date_s(self.if_unmodified_since, now_s)
        if self.if_none_match is not None:
            if_none_match = frozenset(_opaque_tags(self.if_none_match))
        return Precondition(if_match, if_none_match, since_s)

    def _preconditions_hold(self, etag: str, modified_s: int, now_s: int) -> bool:
        """13.2.2, steps 1 and 2: If-Match and If-Unmodified-Since."""
        if self.if_match is not None:
            return _contains_strongly(self.if_match, etag)
        if self.if_unmodified_since is not None:
            since_s = _parse_date_s(self.if_unmodified_since, now_s)
            return since_s is None or modified_s <= since_s
        return True

    def _client_is_up_to_date(self, etag: str, modified_s: int, now_s: int) -> bool:
        """13.2.2, steps 3 and 4, for GET and HEAD: whether the client has this file already."""
        if self.if_none_match is not None:
            return _contains_weakly(self.if_none_match, etag)
        if self.if_modified_since is not None:
            # A date in the future is valid: 13.1.3 compares it with the file's date only. RFC 2616
            # called it invalid.
            since_s = _parse_date_s(self.if_modified_since, now_s)
            return since_s is not None and modified_s <= since_s
        return False

    def _range_applies(self, etag: str, modified_s: int, now_s: int) -> bool:
        """13.1.5: whether If-Range, if it was sent, matches the file."""
        if self.if_range is None:
            return True
        validator = self.if_range.strip(_OWS)
        if validator == etag:
            return _is_strong(etag)
        # 8.8.2.2: a date is a strong validator once its second is over. A client may send it only
        # if it was over when the client received it, which cannot be checked here.
        return modified_s < now_s and _parse_date_s(validator, now_s) == modified_s


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """The response to a GET or HEAD: `status` 200, 206 or 304, and the half-open span of bytes from
    `start` to `stop`, which is empty for 304.
    """

    status: int
    start: int
    stop: int
    content_range: str | None = None

    @property
    def length(self) -> int:
        """The bytes to send."""
        return self.stop - self.start


def plan_response(
    conditions: Conditions, size: int, etag: str, modified_s: int, now_s: int
) -> ResponsePlan:
    """Plan the response to a GET for a file of `size` bytes, or to a HEAD, whose `range` is None.

    `modified_s` is the file's modification time and `now_s` the current time, both in seconds since
    the epoch, rounded down, of any year. Last-Modified may state another date (`format_date`); such
    a date never matches If-Range. A malformed If-Match matches no file. Every other malformed
    header is ignored, and so is a Range header with another unit or several ranges.

    :raises PreconditionFailed: if If-Match or, without it, If-Unmodified-Since does not hold.
    :raises RangeNotSatisfiable: if the range is well formed, but none of its bytes exists.
    """
    if not conditions._preconditions_hold(etag, modified_s, now_s):
        raise PreconditionFailed
    if conditions._client_is_up_to_date(etag, modified_s, now_s):
        return ResponsePlan(304, 0, 0)
    if conditions.range is None or not conditions._range_applies(etag, modified_s, now_s):
        return ResponsePlan(200, 0, size)
    return _plan_range(conditions.range, size)


@lru_cache(4096)  # formatting takes as long as opening a file
def format_date(seconds: int) -> str:
    """Format `seconds` since the epoch as an IMF-fixdate (5.6.7), clamped to 1970 to 9999."""
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
        if size == 0:  # 14.1.2: a suffix of an empty file is satisfiable
            return whole
        start, stop = max(0, size - wanted), size
    else:
        start = _position(first)
        stop = _position(last) + 1 if last else size
        if last and _is_smaller(last, first):
            return whole  # 14.1.1: invalid
        if start >= size:
            raise RangeNotSatisfiable(size)
        stop = min(stop, size)
    return ResponsePlan(206, start, stop, f"bytes {start}-{stop - 1}/{size}")


def _position(digits: str) -> int:
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def _is_smaller(digits: str, others: str) -> bool:
    """Compare numbers of any length."""
    digits, others = digits.lstrip("0"), others.lstrip("0")
    return (len(digits), digits) < (len(others), others)


def _is_strong(etag: str) -> bool:
    return not etag.startswith("W/")


def _contains_strongly(header: str, etag: str) -> bool:
    """8.8.3.2, strong comparison. A malformed header has no tags."""
    header = header.strip(_OWS)
    # Most headers without the tag are recognised without parsing.
    return header == "*" or (etag in header and etag in _strong_tags(header))


def _strong_tags(header: str) -> list[str]:
    """The tags of If-Match without weak ones, `ANY` for `*`, none if the header is malformed."""
    header = header.strip(_OWS)
    if header == "*":
        return [ANY]
    return list(filter(None, _STRONG_TAG.findall(header))) if _TAGS.fullmatch(header) else []


def _opaque_tags(header: str) -> list[str]:
    """The tags of If-None-Match without `W/`, `ANY` for `*` and if the header is malformed."""
    header = header.strip(_OWS)
    return _OPAQUE_TAG.findall(header) if _TAGS.fullmatch(header) else [ANY]


def _contains_weakly(header: str, etag: str) -> bool:
    """8.8.3.2, weak comparison. Malformed elements are ignored."""
    opaque = etag.removeprefix("W/")
    if header.strip(_OWS) == "*":
        return True
    return opaque in header and opaque in _ELEMENT.findall(header)


def _parse_date_s(text: str, now_s: int) -> int | None:
    """Parse a date in one of the three forms into seconds since the epoch. Returns None for other
    text and for impossible days. The day of the week is not checked.
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
        # 5.6.7: a year that would be more than 50 years ahead is in the past.
        now = datetime.fromtimestamp(now_s, UTC)
        year += now.year // 100 * 100 + 100
        while (year - 50, month, day, hour, minute, second) > now.timetuple()[:6]:
            year -= 100
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    return days * _DAY_S + hour * 3600 + minute * 60 + second

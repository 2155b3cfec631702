"""What of a file to send: the one range that a request asks for, or the whole.

Pure. RFC 9110, section 14. Several ranges in one request are answered with the whole (14.2 allows
it; players never ask).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from twistedmedia.errors import RangeNotSatisfiable

_RANGE = re.compile(r"bytes=(?:([0-9]+)-([0-9]*)|-([0-9]+))", re.IGNORECASE | re.ASCII)
_MAX_DIGITS = 18  # a position with more lies beyond every file


@dataclass(frozen=True, slots=True)
class Plan:
    """What to answer: `status` 200 or 206, and the half-open span `start` to `stop` in bytes."""

    status: int
    start: int
    stop: int
    content_range: str | None = None

    @property
    def length(self) -> int:
        """How many bytes are sent."""
        return self.stop - self.start


def plan(size: int, etag: str, range_header: str | None, if_range: str | None) -> Plan:
    """What to send of a file of `size` bytes whose entity tag is `etag`.

    A Range header that is malformed, has another unit or several ranges is ignored, as is one whose
    `If-Range` is not exactly this file's tag (13.1.5; a date there never matches, which is safe).

    :raises RangeNotSatisfiable: when the range is well formed and no byte of it exists.
    """
    whole = Plan(200, 0, size)
    if range_header is None or (if_range is not None and if_range.strip() != etag):
        return whole
    match = _RANGE.fullmatch(range_header)
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
        if stop <= start and last:
            return whole  # 14.1.1: a last position before the first makes it invalid
        if start >= size:
            raise RangeNotSatisfiable(size)
        stop = min(stop, size)
    return Plan(206, start, stop, f"bytes {start}-{stop - 1}/{size}")


def _position(digits: str) -> int:
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS

"""Sizes and durations as people write them, and a limit on the number of bytes. Pure."""

from __future__ import annotations

import re

from twistedmedia.errors import TooLarge

_UNITS: dict[str, int] = {
    "": 1,
    "b": 1,
    **{p: 1000**n for n, p in enumerate(("kb", "mb", "gb", "tb"), start=1)},
    **{p: 1024**n for n, p in enumerate(("kib", "mib", "gib", "tib"), start=1)},
    **{p: 1024**n for n, p in enumerate("kmgt", start=1)},
}
_SIZE = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,3}))?\s*([a-z]*)", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Parse a size into bytes: "2GiB", "500 MB", "64k" (1,024 each), "1.5GiB", "1048576".

    :raises ValueError: if `text` is not a size; the message shows what one looks like.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[3].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not a size; write it like 2GiB, 500MB or 1048576")
    whole, fraction = int(match[1]), match[2] or ""
    return whole * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
_DURATION = re.compile(r"([0-9]{1,6})\s*([a-z]*)", re.IGNORECASE | re.ASCII)


def parse_duration(text: str) -> int:
    """Parse a duration into seconds: "30s", "5m", "1h", "90".

    :raises ValueError: if `text` is not a duration; the message shows what one looks like.
    """
    match = _DURATION.fullmatch(text.strip())
    unit = _SECONDS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not a time; write it like 30s, 5m or 1h")
    return int(match[1]) * unit


class ByteBudget:
    """Counts bytes and refuses the first one over the limit: N bytes pass a limit of N."""

    def __init__(self, limit: int, what: str = "the file") -> None:
        """`limit` is in bytes. `what` names the thing in the reason of the error."""
        self.limit = limit
        self.spent = 0
        self._what = what

    def spend(self, size: int) -> None:
        """Count `size` more bytes.

        :raises TooLarge: if the total exceeds the limit; the bytes are counted all the same.
        """
        self.spent += size
        if self.spent > self.limit:
            raise TooLarge(self.limit, self._what)

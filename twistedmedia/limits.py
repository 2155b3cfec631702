"""Sizes and times as people write them, an exact budget of bytes, and a least rate.

Pure. "Exact" means that N bytes pass a limit of N and N+1 do not.
"""

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
    """Bytes meant by `text`: "2GiB", "500 MB", "64k" (1,024 each), "1.5GiB", "1048576".

    :raises ValueError: with a sentence that says what a size looks like.
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
    """Seconds meant by `text`: "30s", "5m", "1h", "90".

    :raises ValueError: with a sentence that says what a time looks like.
    """
    match = _DURATION.fullmatch(text.strip())
    unit = _SECONDS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not a time; write it like 30s, 5m or 1h")
    return int(match[1]) * unit


class LeastRate:
    """Tells whether bytes come as fast as they have to, window by window."""

    def __init__(self, bytes_per_s: int, window_s: float) -> None:
        self.window_s = window_s
        self._least = bytes_per_s * window_s
        self._before = 0

    def kept(self, received: int, excused: bool) -> bool:
        """Whether a window that ends now was fast enough, when `received` bytes have come in all.
        One that is `excused` always was: it was not the sender who was slow.
        """
        came = received - self._before
        self._before = received
        return excused or came >= self._least


RECENT_S = 3.0  # long enough for a packet that is lost and sent again


class RecentRate:
    """How fast a peer sent lately. It is not known before `RECENT_S` seconds in which nothing but
    the peer was slow.
    """

    def __init__(self, now_s: float, received: int) -> None:
        """`received` is how many bytes came before."""
        self._bytes_per_s: float | None = None
        self._begin(now_s, received)

    def look(self, now_s: float, received: int, waited_s: float = 0.0) -> None:
        """To be called some times in `RECENT_S`. `received` bytes came in all. The peer had to wait
        for us for `waited_s` since the last look: this time does not count.
        """
        self._since_s += waited_s
        if now_s - self._since_s >= RECENT_S:
            self._bytes_per_s = (received - self._before) / (now_s - self._since_s)
            self._begin(now_s, received)

    def bytes_per_s(self, received: int) -> float | None:
        """The rate if `received` bytes came in all, None if it is not known."""
        if self._bytes_per_s is None:
            return None
        # A peer that became fast since the last look is fast.
        return max(self._bytes_per_s, (received - self._before) / RECENT_S)

    def _begin(self, now_s: float, received: int) -> None:
        self._since_s, self._before = now_s, received


class ByteBudget:
    """Counts bytes as they come and refuses the first one over the limit."""

    def __init__(self, limit: int, what: str = "the file") -> None:
        """`limit` in bytes; `what` names the thing in the error's reason."""
        self.limit = limit
        self.spent = 0
        self._what = what

    def spend(self, size: int) -> None:
        """Count `size` more bytes.

        :raises TooLarge: when there are now more than the limit (they are counted all the same).
        """
        self.spent += size
        if self.spent > self.limit:
            raise TooLarge(self.limit, self._what)

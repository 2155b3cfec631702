"""How long an upstream says that its answer stays true (RFC 9111), for a cache that many share.

Pure. Only what is said in so many words counts, by `s-maxage` or `max-age`; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBER = re.compile("[0-9]+")
_LONGEST_S = 1 << 31  # RFC 9111, 1.2.2: what is larger is taken for this
_FORBIDS = frozenset({"no-store", "no-cache", "private"})
_DIRECTIVE = re.compile(
    r"""\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:=("(?:[^"\\]|\\.)*"|[^\s,"]*))?\s*(?:,|$)"""
)


def lifetime_s(cache_control: str | None, age: str | None = None, vary: str | None = None) -> int:
    """How many seconds from now the response with these headers stays fresh; 0 when it must not be
    kept, or nothing sensible is said.
    """
    if cache_control is None or (vary is not None and "*" in vary):
        return 0
    said = _directives(cache_control)
    if said is None or not _FORBIDS.isdisjoint(said):
        return 0
    lifetime = _seconds(said.get("s-maxage", said.get("max-age", [])))
    spent = 0 if age is None else _seconds([age.strip()], invalid=_LONGEST_S)
    return max(0, lifetime - spent)


def asks_for_fresh(cache_control: str | None, pragma: str | None = None) -> bool:
    """Whether a request with these headers wants no answer that was kept (RFC 9111, 5.2.1, 5.4)."""
    if cache_control is None:
        return pragma is not None and "no-cache" in pragma.lower()
    said = _directives(cache_control)
    if said is None or "no-cache" in said or "no-store" in said:
        return True
    return "max-age" in said and _seconds(said["max-age"]) == 0


def forbids_keeping(cache_control: str | None) -> bool:
    """Whether what a request with this header brings must not be kept (RFC 9111, 5.2.1.5)."""
    if cache_control is None:
        return False
    said = _directives(cache_control)
    return said is None or "no-store" in said


def _directives(text: str) -> dict[str, list[str]] | None:
    """Directives in lower case, each with the values that it was given; None when it is no list."""
    said: dict[str, list[str]] = {}
    at = 0
    while at < len(text):
        if text[at] in ", \t":
            at += 1
            continue
        match = _DIRECTIVE.match(text, at)
        if match is None:
            return None
        said.setdefault(match[1].lower(), []).append((match[2] or "").strip('"'))
        at = match.end()
    return said


def _seconds(values: Iterable[str], invalid: int = 0) -> int:
    """The smallest of several; `invalid` for what is no number."""
    seconds = [
        min(int(value[:11]), _LONGEST_S) if _NUMBER.fullmatch(value) else invalid
        for value in values
    ]
    return min(seconds, default=0)

"""How long a response of an upstream stays fresh in a shared cache (RFC 9111).

Pure. Only `s-maxage` and `max-age` count. There are no heuristics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBER = re.compile("[0-9]+")
_MAX_LIFETIME_S = 1 << 31  # larger values mean this (RFC 9111, 1.2.2)
_FORBIDS = frozenset({"no-store", "no-cache", "private"})
_DIRECTIVE = re.compile(
    r"""\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:=("(?:[^"\\]|\\.)*"|[^\s,"]*))?\s*(?:,|$)"""
)


def lifetime_s(cache_control: str | None, age: str | None = None, vary: str | None = None) -> int:
    """Returns how many seconds from now a response with these headers stays fresh; 0 if it must not
    be stored, or has no valid lifetime.
    """
    if cache_control is None or (vary is not None and "*" in vary):
        return 0
    directives = _directives(cache_control)
    if directives is None or not _FORBIDS.isdisjoint(directives):
        return 0
    lifetime = _seconds(directives.get("s-maxage", directives.get("max-age", [])))
    spent = 0 if age is None else _seconds([age.strip()], invalid=_MAX_LIFETIME_S)
    return max(0, lifetime - spent)


def asks_for_fresh(cache_control: str | None, pragma: str | None = None) -> bool:
    """Whether a request with these headers rules out stored responses (RFC 9111, 5.2.1, 5.4)."""
    if cache_control is None:
        return pragma is not None and "no-cache" in pragma.lower()
    directives = _directives(cache_control)
    if directives is None or "no-cache" in directives or "no-store" in directives:
        return True
    return "max-age" in directives and _seconds(directives["max-age"]) == 0


def forbids_storing(cache_control: str | None) -> bool:
    """Whether the response to a request with this header must not be stored (RFC 9111, 5.2.1.5)."""
    if cache_control is None:
        return False
    directives = _directives(cache_control)
    return directives is None or "no-store" in directives


def _directives(text: str) -> dict[str, list[str]] | None:
    """The values of each directive, by its name in lower case; None if the syntax is invalid."""
    directives: dict[str, list[str]] = {}
    at = 0
    while at < len(text):
        if text[at] in ", \t":
            at += 1
            continue
        match = _DIRECTIVE.match(text, at)
        if match is None:
            return None
        directives.setdefault(match[1].lower(), []).append((match[2] or "").strip('"'))
        at = match.end()
    return directives


def _seconds(values: Iterable[str], invalid: int = 0) -> int:
    """The smallest of `values`, where `invalid` stands for each that is not a number."""
    seconds = [
        min(int(value[:11]), _MAX_LIFETIME_S) if _NUMBER.fullmatch(value) else invalid
        for value in values
    ]
    return min(seconds, default=0)

"""How long each phase of a fetch took.

Pure. As in curl, each time says when its phase ended, in seconds since the fetch began. None means
that there was no such phase: an idle connection that is reused needs no look-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """When each phase ended. `redirect` is when the last redirect was followed. The phases after it
    are those of the last hop.
    """

    redirect: float | None = None
    lookup: float | None = None
    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
    total: float = 0.0

    def since(self, later: float) -> Timings:
        """The timings for a caller that joined `later` seconds after the beginning. Phases that had
        ended by then are None.
        """

        def seen(end: float | None) -> float | None:
            return None if end is None or end <= later else end - later

        return Timings(
            seen(self.redirect),
            seen(self.lookup),
            seen(self.connect),
            seen(self.tls),
            seen(self.first_byte),
            max(0.0, self.total - later),
        )

    def durations(self) -> Iterator[tuple[str, float]]:
        """Yields each phase that took place and its duration, in order. The sum is `total`."""
        begun = 0.0
        for name, label in (
            ("redirect", "redirect"),
            ("lookup", "lookup"),
            ("connect", "connect"),
            ("tls", "tls"),
            ("first_byte", "wait"),
            ("total", "receive"),
        ):
            end = getattr(self, name)
            if end is not None:
                yield label, max(0.0, end - begun)
                begun = max(begun, end)

    @property
    def json(self) -> dict[str, float | None]:
        """The object that docs/http.md describes, rounded to a tenth of a millisecond."""
        redirect = {} if self.redirect is None else {"redirect": round(self.redirect, 4)}
        return {
            **redirect,
            "lookup": _rounded(self.lookup),
            "connect": _rounded(self.connect),
            "tls": _rounded(self.tls),
            "first_byte": _rounded(self.first_byte),
            "total": round(self.total, 4),
        }

    @property
    def header(self) -> str:
        """The value of Server-Timing (W3C Server Timing, 3): durations in milliseconds."""
        phases = [f"{name};dur={1000 * took:.1f}" for name, took in self.durations()]
        return ", ".join([*phases, f"total;dur={1000 * self.total:.1f}"])


def _rounded(end: float | None) -> float | None:
    return None if end is None else round(end, 4)

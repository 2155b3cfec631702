"""What a fetch cost in time, phase by phase.

Pure. All times are in seconds since the fetch began, as curl counts them: each says when its phase
was over, None where there was no such phase (a connection that was kept needs no look-up).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """When each phase was over. `redirect` is the last redirect that was followed; the phases after
    it are those of the last hop.
    """

    redirect: float | None = None
    lookup: float | None = None
    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
    total: float = 0.0

    def since(self, later: float) -> Timings:
        """As somebody saw it who joined `later` seconds after the beginning: what was over by then
        has cost them nothing.
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
        """Each phase that took place and how long it took, in their order; together, `total`."""
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
        """As docs/http.md describes it, rounded to a tenth of a millisecond."""
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
        """The value of Server-Timing (W3C Server Timing, 3): durations, in milliseconds."""
        phases = [f"{name};dur={1000 * took:.1f}" for name, took in self.durations()]
        return ", ".join([*phases, f"total;dur={1000 * self.total:.1f}"])


def _rounded(end: float | None) -> float | None:
    return None if end is None else round(end, 4)

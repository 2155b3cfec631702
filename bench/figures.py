"""Numbers and how they are shown: percentiles and markdown tables. Measures nothing itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def percentile(ordered: Sequence[float], percent: float) -> float:
    """
    The nearest-rank percentile: the least sample that *percent* of the samples do not exceed.

    :param ordered: samples in ascending order.
    :raises ValueError: when there are no samples.
    """
    if not ordered:
        raise ValueError("no samples")
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def size_text(size_bytes: int) -> str:
    """A size in the largest binary unit that divides it, else in bytes: ``128 MiB``."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes and size_bytes % unit == 0:
            return f"{size_bytes // unit} {name}"
    return f"{size_bytes:,} bytes"


def number_text(value: float) -> str:
    """A number with about three digits that matter: ``0.0123``, ``1.23``, ``1,234``."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    if value >= 0.1 or value == 0:
        return f"{value:.2f}"
    return f"{value:.3g}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table that reads well as plain text, too; its first column is left-aligned."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join([first, *others]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])

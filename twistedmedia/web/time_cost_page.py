"""The HTML page that shows the time that a fetch took. It has no scripts and loads nothing."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable
from html import escape

from twistedmedia.fetch.cache import FetchOutcome, Origin

_WIDTH, _HEIGHT = 640, 28  # of the bar, in the units of its SVG
# The label and the colour of each phase. Colours are distinct on light and dark backgrounds.
_PHASES = {
    "redirect": ("Redirects", "#8d6e63"),
    "lookup": ("Look-up", "#26a69a"),
    "connect": ("Connection", "#ef8a17"),
    "tls": ("TLS", "#ab47bc"),
    "wait": ("Waiting", "#43a047"),
    "receive": ("Content", "#3f8ae0"),
}
_ORIGINS = {
    Origin.MISS: "fetched for you",
    Origin.HIT: "from memory, still fresh",
    Origin.SHARED: "shared with others who asked at the same time",
}
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem; }
h1 { font-size: 1.1rem; font-weight: 600; margin: 0; }
.cost { font-size: clamp(3.5rem, 16vw, 7rem); line-height: 1.1; font-weight: 700; margin: 0;
  font-variant-numeric: tabular-nums; letter-spacing: -.03em; }
.cost small { font-size: .35em; font-weight: 400; letter-spacing: 0; opacity: .7; }
.what { overflow-wrap: anywhere; margin: .5rem 0 2rem; }
svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; margin-top: 1rem;
  font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .3rem 0; font-weight: 400;
  border-bottom: 1px solid rgba(128, 128, 128, .25); }
td:last-child { text-align: right; }
th svg { display: inline-block; width: .8em; margin-right: .6em; }
"""
PAGE_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src "
    f"'sha256-{b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)


def time_cost_page(outcome: FetchOutcome) -> bytes:
    """Render the page for `outcome`, in UTF-8."""
    phases = list(outcome.timings.durations())
    number, unit = _time(outcome.timings.total)
    what = f"{outcome.status} · {outcome.size:,} bytes · {_ORIGINS[outcome.origin]}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Time Cost: {number} {unit}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Time Cost</h1>
<p class="cost">{number} <small>{unit}</small></p>
<p class="what">{escape(outcome.url)}<br>{what}</p>
{_bar(phases, outcome.timings.total)}
<table>
{_rows(phases)}
</table>
</body>
</html>
""".encode()


def _bar(phases: Iterable[tuple[str, float]], total: float) -> str:
    x = 0.0
    drawn = []
    for phase, took in phases:
        width = _WIDTH * took / total if total > 0 else 0.0
        label, colour = _PHASES[phase]
        drawn.append(
            f'<rect x="{x:.2f}" width="{width:.2f}" height="{_HEIGHT}" fill="{colour}">'
            f"<title>{label}: {' '.join(_time(took))}</title></rect>"
        )
        x += width
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="The phases of the fetch">'
        f"{''.join(drawn)}</svg>"
    )


def _rows(phases: Iterable[tuple[str, float]]) -> str:
    return "\n".join(
        f'<tr><th scope="row"><svg viewBox="0 0 10 10" aria-hidden="true"><rect width="10" '
        f'height="10" rx="2" fill="{_PHASES[phase][1]}"/></svg>{_PHASES[phase][0]}</th>'
        f"<td>{' '.join(_time(took))}</td></tr>"
        for phase, took in phases
    )


def _time(seconds: float) -> tuple[str, str]:
    return (f"{seconds:.2f}", "s") if seconds >= 1 else (f"{1000 * seconds:.1f}", "ms")

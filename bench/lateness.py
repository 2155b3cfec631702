"""
A probe that measures how late an event loop runs what is due.

It asks the loop to be called every 5 ms and keeps how late each call came. The calls are due on a
fixed grid: when the loop stands still for a second, all 200 calls that were due in that second
count, each with its own wait. So a percentile is that of an event that arrives at any moment, and a
long stall is not counted as one sample.
"""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

from figures import percentile

INTERVAL_S = 0.005


class LatenessProbe:
    """
    Samples the lateness of one event loop.

    :param call_later: the loop's way to call a function after some seconds:
        ``reactor.callLater`` of Twisted or ``loop.call_later`` of asyncio.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._call_later = call_later
        self._due_s = 0.0
        self._dues_s = array("d")
        self._lates_s = array("d")

    def start(self) -> None:
        """Begin to sample; goes on for as long as the loop runs."""
        self._due_s = time.monotonic() + INTERVAL_S
        self._call_later(INTERVAL_S, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        while self._due_s <= now:
            self._dues_s.append(self._due_s)
            self._lates_s.append(now - self._due_s)
            self._due_s += INTERVAL_S
        self._call_later(self._due_s - now, self._tick)

    def dump(self, path: Path) -> None:
        """
        Write what was seen to *path* as JSON.

        A summary in milliseconds, the peak memory of this process in KiB, and the samples
        themselves (``due_s`` on the system's monotonic clock, ``late_ms``), for a reader who
        wants only those of the time under load.
        """
        lates_ms = [late * 1000 for late in self._lates_s]
        seen = summary(lates_ms) | {
            "peak_rss_kib": peak_rss_kib("self"),
            "due_s": list(self._dues_s),
            "late_ms": lates_ms,
        }
        path.write_text(json.dumps(seen))


def summary(lates_ms: list[float]) -> dict[str, object]:
    """Count, percentiles and the maximum of *lates_ms*; no samples give only the count."""
    ordered = sorted(lates_ms)
    if not ordered:
        return {"count": 0}
    return {
        "count": len(ordered),
        "p50_ms": percentile(ordered, 50),
        "p99_ms": percentile(ordered, 99),
        "p99.9_ms": percentile(ordered, 99.9),
        "max_ms": ordered[-1],
    }


def samples_within(path: Path, spans: Sequence[tuple[float, float]]) -> list[float]:
    """The lateness in ms of the calls in a dump that were due within the given monotonic times."""
    seen = json.loads(path.read_text())
    return [
        late
        for due, late in zip(seen["due_s"], seen["late_ms"], strict=True)
        if any(start <= due <= end for start, end in spans)
    ]


def peak_rss_kib(pid: int | str) -> int:
    """The most memory (VmHWM) that process *pid* has held at any time, in KiB."""
    return _status_kib(pid, "VmHWM")


def rss_kib(pid: int | str) -> int:
    """The memory (VmRSS) that process *pid* holds now, in KiB."""
    return _status_kib(pid, "VmRSS")


def _status_kib(pid: int | str, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise ValueError(f"process {pid} has no {field}")

"""Steps of the wall clock: how to find them, and how to move times that were noted before.

The times of files are wall time. A machine without a hardware clock gets it from the network some
time after booting, and an administrator may set it. The age of a file must not depend on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

# A smaller difference is not a step: the two clocks are not read at the same moment.
_STEP_NS = 10**9


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The times of two clocks at one moment, in nanoseconds. `boot` is the id of the boot of the
    machine, in which the monotonic clock counts.
    """

    boot: str
    monotonic_ns: int
    wall_ns: int

    def step_to(self, later: ClockReading) -> int:
        """By how many nanoseconds the wall clock was stepped until `later`.

        After a reboot the time in between is unknown and counts as 0. So nothing gets older because
        a clock was wrong, or while the machine was off.
        """
        passed = later.monotonic_ns - self.monotonic_ns if later.boot == self.boot else 0
        step = later.wall_ns - self.wall_ns - passed
        return step if abs(step) >= _STEP_NS else 0

    def __str__(self) -> str:
        return f"{self.boot} {self.monotonic_ns} {self.wall_ns}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The reading of which `str` made this text, None if it is not one."""
        try:
            boot, monotonic, wall = text.split(" ")
            return cls(boot, int(monotonic), int(wall))
        except ValueError:
            return None


def adjusted_time(time_ns: int, step_ns: int, now_ns: int) -> int:
    """The wall time of an event that was noted as `time_ns`, after a step of the clock by `step_ns`
    to `now_ns`. The event may be later than the step. The result is never in the future, and never
    makes the event older than it is.
    """
    if step_ns > 0 or time_ns > now_ns:
        time_ns += step_ns
    return max(0, min(time_ns, now_ns))

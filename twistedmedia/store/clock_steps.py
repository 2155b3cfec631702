"""Whether the wall clock was stepped, and what that means for times that were noted before.

The times of files are wall time. A machine without a clock of its own gets that from the network
some time after it has booted, and anybody may set it. The age of a file must not depend on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

# Less than this is not a step: the two clocks are not read at the same moment.
_STEP_NS = 10**9


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What two clocks said at one moment, in nanoseconds: the monotonic one, in the boot of the
    machine with the id `boot`, and the wall clock.
    """

    boot: str
    monotonic_ns: int
    wall_ns: int

    def step_to(self, later: ClockReading) -> int:
        """By how many nanoseconds the wall clock moved more than time passed until `later`.

        A reboot makes the time between unknown. It counts as none, so that nothing gets older
        because a clock was wrong, or while the machine was off.
        """
        passed = later.monotonic_ns - self.monotonic_ns if later.boot == self.boot else 0
        step = later.wall_ns - self.wall_ns - passed
        return step if abs(step) >= _STEP_NS else 0

    def __str__(self) -> str:
        return f"{self.boot} {self.monotonic_ns} {self.wall_ns}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The reading that `str` was made of, None if it is not one."""
        try:
            boot, monotonic, wall = text.split(" ")
            return cls(boot, int(monotonic), int(wall))
        except ValueError:
            return None


def adjusted_time(time_ns: int, step_ns: int, now_ns: int) -> int:
    """The wall time of an event that was noted as `time_ns`, after a step of the clock by `step_ns`
    to `now_ns`. The event may have come after the step. It is never in the future, and never
    earlier than it was.
    """
    if step_ns > 0 or time_ns > now_ns:
        time_ns += step_ns
    return max(0, min(time_ns, now_ns))

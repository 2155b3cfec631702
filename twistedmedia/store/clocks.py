"""Whether the wall clock was stepped, and what that means for times that were noted before.

The times of files are wall time. A machine without a clock of its own gets that from the network
some time after it has booted, and anybody may set it. The age of a file must not depend on that.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Self

from twistedmedia.store.calls import SystemCalls

# Less than this is not a step: the two clocks are not read at the same moment.
_STEP_NS = 10**9
_NAME = "clock"
_BYTES = 128


@dataclass(frozen=True, slots=True)
class Reading:
    """What two clocks said at one moment, in nanoseconds: the monotonic one, in the boot of the
    machine with the id `boot`, and the wall clock.
    """

    boot: str
    monotonic_ns: int
    wall_ns: int

    def step_to(self, later: Reading) -> int:
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


def moved(time_ns: int, step_ns: int, now_ns: int) -> int:
    """The wall time of an event that was noted as `time_ns`, after a step of the clock by `step_ns`
    to `now_ns`. The event may have come after the step. It is never in the future, and never
    earlier than it was.
    """
    if step_ns > 0 or time_ns > now_ns:
        time_ns += step_ns
    return max(0, min(time_ns, now_ns))


class Clocks:
    """The last reading. With a folder it is kept in a file there, for a later process."""

    def __init__(self, calls: SystemCalls | None = None, fd: int = -1) -> None:
        """`fd` is the folder."""
        self._calls = calls
        self._fd = fd
        self._last: Reading | None = None

    def begin(self) -> None:
        """Make the file, if there is none, so that a service takes nothing more of its disk while
        it runs.

        :raises OSError: if it cannot be made. The first reading makes it then.
        """
        try:
            self._read()
        except FileNotFoundError:
            self._write("-")

    def step_to(self, now: Reading) -> int | None:
        """By how many nanoseconds the wall clock was stepped since the last reading. None if there
        is no such reading.

        :raises OSError: if it could not be read.
        """
        if self._last is None:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # none of ours
                self._last = Reading.parse(self._read())
        return None if self._last is None else self._last.step_to(now)

    def note(self, now: Reading, *, for_later: bool = True) -> None:
        """Compare the next reading with this one. If `for_later`, a later process does so, too.

        :raises OSError: if it could not be written.
        """
        self._last = now
        if for_later:
            self._write(str(now))

    def _read(self) -> str:
        if self._calls is None:
            return ""
        fd = self._calls.open(_NAME, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._fd)
        try:
            return os.fsdecode(self._calls.pread(fd, _BYTES, 0)).strip()
        finally:
            self._calls.close(fd)

    def _write(self, text: str) -> None:
        if self._calls is None:
            return
        flags = os.O_CREAT | os.O_NOFOLLOW | os.O_WRONLY
        fd = self._calls.open(_NAME, flags, 0o600, dir_fd=self._fd)
        try:
            # In the place of the one before, which is as long: a kill does not come in between.
            self._calls.writev(fd, [os.fsencode(text).ljust(_BYTES)])
        finally:
            self._calls.close(fd)

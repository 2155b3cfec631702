"""`python stepping.py FILE ARGUMENTS` runs `twistd ARGUMENTS` with a wall clock that is off by the
seconds in FILE, which is read each time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def stepped(path: str, now: Callable[[], float]) -> Callable[[], float]:
    """The time of day, with the offset in the file at `path`."""

    def time_of_day() -> float:
        with open(path, encoding="ascii") as file:
            return now() + float(file.read())

    return time_of_day


if __name__ == "__main__":
    time.time = stepped(sys.argv.pop(1), time.time)
    from twisted.scripts.twistd import run

    run()

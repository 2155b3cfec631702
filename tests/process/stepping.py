"""`python stepping.py FILE ARGUMENTS` is `twistd ARGUMENTS` whose wall clock is off by the seconds
that FILE says at the moment.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def stepped(path: str, now: Callable[[], float]) -> Callable[[], float]:
    """The time of day, with the offset."""

    def time_of_day() -> float:
        with open(path, encoding="ascii") as file:
            return now() + float(file.read())

    return time_of_day


if __name__ == "__main__":
    time.time = stepped(sys.argv.pop(1), time.time)
    from twisted.scripts.twistd import run

    run()

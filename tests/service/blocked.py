"""A service on a disk that can be made to hang: `twistd`, but for some of its system calls.

`python blocked.py CALL TWISTD-OPTIONS media OPTIONS`: from SIGUSR1 to SIGUSR2 each CALL (`writev`,
`fsync`, ...) waits, as it does in the kernel when a disk does not answer; the log says so of each.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from twisted.scripts.twistd import run

from twistedmedia.store.calls import SystemCalls

HANGS = "the disk hangs"
WAITS = "a call waits for the disk"


def main() -> None:
    """Run `twistd`."""
    operation = sys.argv.pop(1)
    call = getattr(SystemCalls, operation)
    answers = threading.Event()
    answers.set()

    def patient(*args: Any, **kwargs: Any) -> Any:
        if not answers.is_set():
            _say(WAITS)
            answers.wait()
        return call(*args, **kwargs)

    def hang(number: int, frame: object) -> None:
        answers.clear()
        _say(HANGS)

    setattr(SystemCalls, operation, patient)
    signal.signal(signal.SIGUSR1, hang)
    signal.signal(signal.SIGUSR2, lambda number, frame: answers.set())
    run()


def _say(what: str) -> None:
    os.write(1, f"{what}\n".encode())  # whatever is being logged at this moment


if __name__ == "__main__":
    main()

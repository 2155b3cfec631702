"""A service on a disk that can be made to hang: `twistd` with a system call that waits.

`python blocked.py CALL TWISTD-OPTIONS media OPTIONS`: from SIGUSR1 to SIGUSR2 each CALL (`writev`,
`fsync`, ...) waits, as in the kernel when a disk does not respond. The log has a line for each.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from twisted.scripts.twistd import run

from tests.process.running import Process, eventually
from twistedmedia.store.local.syscalls import SystemCalls

HANGS = "the disk hangs"
WAITS = "a call waits for the disk"


def start(operation: str, root: Path, *options: str) -> Process:
    """Start a service with `options` on a disk that can be made to hang in `operation`."""
    root.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", __name__, operation, "-n", "--pidfile=", "media"]
    log = root.parent.with_name(root.parent.name + ".log")
    more = {"PYTHONPATH": str(Path(__file__).parents[2])}
    return Process(
        [*command, "--port", "0", "--root", str(root), *options], root.parent, log, root, more
    )


def hang(process: Process) -> None:
    """Make the disk of `process` hang from now on."""
    before = process.log.count(HANGS)
    process.signal(signal.SIGUSR1)
    eventually("the disk hangs", lambda: process.log.count(HANGS) > before)


def wait_for_calls(process: Process, count: int) -> None:
    """Wait until `count` calls wait for the disk."""
    eventually("calls wait", lambda: process.log.count(WAITS) >= count)


def answer(process: Process) -> None:
    """Make the disk respond again."""
    process.signal(signal.SIGUSR2)


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
    os.write(1, f"{what}\n".encode())  # not through the log, which may be in use


if __name__ == "__main__":
    main()

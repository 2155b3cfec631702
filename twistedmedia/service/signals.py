"""The signals that an operator sends: twistd acts on the first SIGTERM, and on SIGUSR1 if it has a
log file.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

_ENDING = (signal.SIGTERM, signal.SIGINT)


def ignore_deadly() -> None:
    """Ignore the signals that an operator sends for the logs, until `Signals` are installed:
    unhandled, they kill. With a file of `--logfile` twistd handles SIGUSR1 already.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


class Signals:
    """Has a second SIGTERM or SIGINT hurry, and SIGHUP do what is wanted of it. An ignored SIGUSR1
    is logged once.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorFromThreads, hurry: Callable[[], Any], hang_up: Callable[[], Any]
    ) -> None:
        """`hurry` and `hang_up` are called on the reactor."""
        self._reactor = reactor
        self._hurry = hurry
        self._hang_up = hang_up
        self._ending = False

    def install(self) -> None:
        """Once the reactor runs, and has installed its own."""
        for number in _ENDING:
            signal.signal(number, self._ended_by(signal.getsignal(number)))
        signal.signal(signal.SIGHUP, self._hung_up)
        if signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN:
            signal.signal(signal.SIGUSR1, self._told_to_rotate)

    def _ended_by(self, reactors: Any) -> Callable[[int, FrameType | None], None]:
        def end(number: int, frame: FrameType | None) -> None:
            if self._ending:
                self._reactor.callFromThread(self._hurry)
            elif callable(reactors):
                self._ending = True
                reactors(number, frame)

        return end

    def _hung_up(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._hang_up)

    def _told_to_rotate(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self._reactor.callFromThread(
            self._log.warn,
            "SIGUSR1 is ignored: it rotates the file of twistd's --logfile, and there is no such "
            "file. SIGHUP reopens the --access-log",
        )

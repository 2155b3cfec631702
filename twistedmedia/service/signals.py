"""Signals of an operator: a second SIGTERM or SIGINT, SIGHUP, and SIGUSR1.

twistd handles the first SIGTERM or SIGINT, and SIGUSR1 if it has a log file.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def ignore_log_signals() -> None:
    """Ignore SIGHUP and SIGUSR1 until `Signals` are installed: unhandled, they end the process.
    With a file for `--logfile`, twistd handles SIGUSR1 already.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


class Signals:
    """Calls a function for a second SIGTERM or SIGINT, and another one for SIGHUP. Logs the first
    SIGUSR1 that is ignored.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorFromThreads,
        on_second_stop: Callable[[], Any],
        on_hang_up: Callable[[], Any],
    ) -> None:
        """Both functions are called in the reactor's thread."""
        self._reactor = reactor
        self._on_second_stop = on_second_stop
        self._on_hang_up = on_hang_up
        self._is_stopping = False

    def install(self) -> None:
        """Install the handlers. Call this when the reactor runs and has installed its own."""
        for number in _STOP_SIGNALS:
            signal.signal(number, self._stop_handler(signal.getsignal(number)))
        signal.signal(signal.SIGHUP, self._handle_hang_up)
        if signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN:
            signal.signal(signal.SIGUSR1, self._handle_unused)

    def _stop_handler(self, reactor_handler: Any) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            if self._is_stopping:
                self._reactor.callFromThread(self._on_second_stop)
            elif callable(reactor_handler):
                self._is_stopping = True
                reactor_handler(number, frame)

        return handle

    def _handle_hang_up(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._on_hang_up)

    def _handle_unused(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self._reactor.callFromThread(
            self._log.warn,
            "SIGUSR1 is ignored: it rotates the file of twistd's --logfile, and there is no such "
            "file. SIGHUP reopens the --access-log",
        )

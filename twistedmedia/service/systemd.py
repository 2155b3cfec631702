"""What systemd is told of a service of `Type=notify` (sd_notify(3)). Nothing without systemd."""

from __future__ import annotations

import math
import os
import socket

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_BEATS = 2  # in the time after which systemd takes us for dead (sd_watchdog_enabled(3))


class SystemdNotifier:
    """Says to systemd that the service is ready, alive, and stopping.

    The watchdog is fed by the event loop: when that hangs, systemd starts the service anew.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # the abstract namespace
            self._address = "\0" + self._address[1:]
        self._speaking: socket.socket | None = None
        self._is_unheard = False  # and the operator knows
        self._beating = LoopingCall(self._say, "WATCHDOG=1")
        self._beating.clock = clock

    def ready(self) -> None:
        """Requests are answered from now on."""
        self._say("READY=1")
        watched_s = _watched_s()
        if watched_s and self._address:
            self._beating.start(watched_s / _BEATS)

    def stopping(self, within_s: float) -> None:
        """No more requests are taken. The watchdog is still fed. The process will have
        ended `within_s` seconds from now: systemd waits as long, also if TimeoutStopSec= is less.
        """
        microseconds = math.ceil(within_s * 1e6)
        self._say(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={microseconds}")

    def stopped(self) -> None:
        """All has ended."""
        if self._beating.running:
            self._beating.stop()
        if self._speaking is not None:
            self._speaking.close()
            self._speaking = None

    def _say(self, state: str) -> None:
        if not self._address:
            return
        try:
            if self._speaking is None:  # kept: it must not fail for want of a descriptor
                kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
                self._speaking = socket.socket(socket.AF_UNIX, kind)
            self._speaking.sendto(state.encode(), self._address)
        except OSError as error:
            if self._is_unheard:
                return
            self._is_unheard = True
            self._log.warn(
                "systemd cannot be told {state}: {why}", state=state, why=error.strerror or error
            )


def _watched_s() -> float:
    """After how many seconds of silence systemd takes this process for dead, 0 if never."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() else 0.0

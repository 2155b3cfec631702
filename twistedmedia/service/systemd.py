"""Notifies systemd of the state of a service of `Type=notify` (sd_notify(3))."""

from __future__ import annotations

import math
import os
import socket

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_PINGS = 2  # in one watchdog timeout (sd_watchdog_enabled(3))


class SystemdNotifier:
    """Tells systemd that the service is ready, alive, and stopping.

    The event loop feeds the watchdog: if the loop hangs, systemd restarts the service. Without
    systemd nothing is sent.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # the abstract namespace
            self._address = "\0" + self._address[1:]
        self._socket: socket.socket | None = None
        self._has_warned = False
        self._watchdog = LoopingCall(self._send, "WATCHDOG=1")
        self._watchdog.clock = clock

    def ready(self) -> None:
        """Notify that requests are served from now on, and begin to feed the watchdog."""
        self._send("READY=1")
        timeout_s = _watchdog_timeout_s()
        if timeout_s and self._address:
            self._watchdog.start(timeout_s / _PINGS)

    def stopping(self, within_s: float) -> None:
        """Notify that no more requests are accepted, and that the process ends within `within_s`.
        systemd waits that long, even if TimeoutStopSec= is less. The watchdog is still fed.
        """
        microseconds = math.ceil(within_s * 1e6)
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={microseconds}")

    def stopped(self) -> None:
        """Stop feeding the watchdog, and close the socket."""
        if self._watchdog.running:
            self._watchdog.stop()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            if self._socket is None:  # kept open, so that a lack of descriptors does not matter
                kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.sendto(state.encode(), self._address)
        except OSError as error:
            if self._has_warned:
                return
            self._has_warned = True
            self._log.warn(
                "cannot notify systemd of {state}: {reason}",
                state=state,
                reason=error.strerror or error,
            )


def _watchdog_timeout_s() -> float:
    """Seconds without a ping after which systemd restarts this process, or 0."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() else 0.0

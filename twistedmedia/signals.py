"""The signals that an operator sends: twistd acts on the first SIGTERM, and on nothing else."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads

_ENDING = (signal.SIGTERM, signal.SIGINT)


def ignore_hang_up() -> None:
    """Until there is something to do because of it, SIGHUP does nothing; unhandled, it kills."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


class Signals:
    """Has a second SIGTERM or SIGINT hurry, and SIGHUP do what is wanted of it."""

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

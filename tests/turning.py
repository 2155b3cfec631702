"""A clock for single turns of an event loop in which work takes time."""

from __future__ import annotations

from twisted.internet.task import Clock


class TurningClock(Clock):
    """Each `turn` makes the calls that were due when it began, as a reactor does. `advance(0)` does
    nothing.
    """

    def __init__(self, look_s: float = 0.0) -> None:
        """Each call of `seconds` takes `look_s`, so that work that reads the clock takes time."""
        super().__init__()
        self._look_s = look_s

    def seconds(self) -> float:
        self.rightNow += self._look_s
        return self.rightNow

    def spend(self, seconds: float) -> None:
        """Let the running work take `seconds`."""
        self.rightNow += seconds

    def advance(self, amount: float) -> None:
        assert amount == 0

    def turn(self) -> None:
        for call in [call for call in self.calls if call.getTime() <= self.rightNow]:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)

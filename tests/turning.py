"""A clock that takes one turn of the event loop at a time, in which work takes time."""

from __future__ import annotations

from twisted.internet.task import Clock


class TurningClock(Clock):
    """Each `turn` makes the calls that were due when it began, as a reactor does. `advance(0)`,
    with which tests let happen what can happen, does nothing.
    """

    def __init__(self, look_s: float = 0.0) -> None:
        """Each look at the time takes `look_s`: so work takes time that looks at it."""
        super().__init__()
        self._look_s = look_s

    def seconds(self) -> float:
        self.rightNow += self._look_s
        return self.rightNow

    def spend(self, seconds: float) -> None:
        """The work that is under way takes so long."""
        self.rightNow += seconds

    def advance(self, amount: float) -> None:
        assert amount == 0

    def turn(self) -> None:
        for call in [call for call in self.calls if call.getTime() <= self.rightNow]:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)

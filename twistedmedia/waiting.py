"""How long a peer had to wait for us.

Pure. A rate at which a peer sends is measured without that time. A peer may wait for several
reasons at once: that time counts once.
"""

from __future__ import annotations

from collections.abc import Callable


class Waiting:
    """The time in which one peer waits, measured from one `taken_s` to the next."""

    __slots__ = ("_now_s", "_reasons", "_since_s", "_waited_s")

    def __init__(self, now_s: Callable[[], float]) -> None:
        """`now_s` is any clock that never goes back."""
        self._now_s = now_s
        self._reasons = 0
        self._since_s = self._waited_s = 0.0

    def begin(self) -> None:
        """There is one more reason to wait."""
        if not self._reasons:
            self._since_s = self._now_s()
        self._reasons += 1

    def end(self) -> None:
        """There is one reason less to wait."""
        self._reasons -= 1
        if not self._reasons:
            self._waited_s += self._now_s() - self._since_s

    def taken_s(self) -> float:
        """How many seconds the peer waited since this was asked last."""
        waited_s, self._waited_s = self._waited_s, 0.0
        if self._reasons:
            now_s = self._now_s()
            waited_s += now_s - self._since_s
            self._since_s = now_s
        return waited_s

"""Reading on after an early answer, to drop what comes.

Closing a socket with unread data resets it, and the reset can overtake the answer (RFC 9112, 9.6).
So what a client still sends is read for a while: not for long, and not without end.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

LINGER_BYTES = 4 << 20
LINGER_S = 5.0
LAST_LINGER_S = 0.5  # when the site closes


class Lingering:
    """The time in which a connection lingers."""

    def __init__(
        self, call_later: Callable[..., IDelayedCall], give_up: Callable[[], None]
    ) -> None:
        """`give_up` is called when enough was waited for, or dropped."""
        self._call_later = call_later
        self._give_up = give_up
        self._end: IDelayedCall | None = None
        self._dropped = 0

    @property
    def is_on(self) -> bool:
        """Whether it does."""
        return self._end is not None

    def begin(self, lasts_s: float) -> None:
        """From now on."""
        self._dropped = 0
        self._end = self._call_later(lasts_s, self._give_up)

    def shorten(self, lasts_s: float) -> None:
        """If it is on, no longer than that."""
        if self._end is not None:
            self._end.reset(lasts_s)

    def end(self) -> None:
        """Not any more. Idempotent."""
        if self._end is not None:
            if self._end.active():
                self._end.cancel()
            self._end = None

    def drop(self, size: int) -> None:
        """If it is on, `size` bytes more have come and are of no use to anybody."""
        if self._end is not None:
            self._dropped += size
            if self._dropped > LINGER_BYTES:
                self._give_up()

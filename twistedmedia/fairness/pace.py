"""Content in pieces that are too small for their number.

Pure. A chunk costs the event loop the same however small it is. So content in tiny chunks is taken
as fast as live speech comes, which is one frame of a codec in each chunk, and no faster for long.

How long a peer had to wait for us.

Pure. A rate at which a peer sends is measured without that time. A peer may wait for several
reasons at once: that time counts once.
"""

from __future__ import annotations

from collections.abc import Callable

# The average of pieces that are not tiny. Frames of speech are smaller: 13 bytes of AMR, 33 of GSM.
TINY_BYTES = 64
# Live speech has 50 frames a second, 400 of the shortest ones of Opus. A client that was held up
# sends many at once: these are all frames of two minutes, and it is not waited for so long.
MOST_AT_ONCE = 6000
MOST_A_SECOND = 500


class TinyChunkLimit:
    """Counts the tiny pieces of one content. A leaky bucket: it holds `most_at_once` pieces, and
    `MOST_A_SECOND` leave it. Pieces of `tiny_bytes` and more on average do not count.
    """

    __slots__ = ("_count", "_most_at_once", "_since_s", "_tiny_bytes")

    def __init__(self, most_at_once: int = MOST_AT_ONCE, tiny_bytes: int = TINY_BYTES) -> None:
        self._most_at_once = most_at_once
        self._tiny_bytes = tiny_bytes
        self._count = 0.0
        self._since_s = 0.0

    def are_too_many(self, pieces: int, size: int, now_s: float) -> bool:
        """Count `pieces` that have `size` bytes together. `now_s` never goes back."""
        if size >= pieces * self._tiny_bytes:
            return False
        left = (now_s - self._since_s) * MOST_A_SECOND
        self._count = max(0.0, self._count - left) + pieces
        self._since_s = now_s
        return self._count > self._most_at_once


class PeerWait:
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

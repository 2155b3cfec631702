"""How fast a peer sends or takes bytes, without the time in which it had to wait for us. Pure."""

from __future__ import annotations

from collections.abc import Callable

RECENT_S = 3.0  # long enough for a lost packet to be sent again

# Chunks of fewer bytes on average are tiny. Frames of speech are: 13 bytes of AMR, 33 of GSM.
TINY_BYTES = 64
# Live speech has 50 frames a second, or 400 of the shortest frames of Opus. After an interruption a
# client sends many at once. The burst holds two minutes of speech, longer than any such timeout.
MAX_BURST = 6000
MAX_PER_S = 500


class LeastRate:
    """Checks window by window whether bytes arrive at the least rate that is allowed."""

    def __init__(self, bytes_per_s: int, window_s: float) -> None:
        self.window_s = window_s
        self._least_bytes = bytes_per_s * window_s
        self._before = 0

    def is_met(self, received: int, excused: bool) -> bool:
        """Whether the window that ends now was fast enough. `received` is the total in bytes. A
        window that is `excused` always was: the sender was not what made it slow.
        """
        in_window = received - self._before
        self._before = received
        return excused or in_window >= self._least_bytes


class RecentRate:
    """How fast a peer sent lately. The rate is unknown until the peer alone was slow for
    `RECENT_S` seconds.
    """

    def __init__(self, now_s: float, received: int) -> None:
        """`received` is the total in bytes so far; these bytes do not count."""
        self._bytes_per_s: float | None = None
        self._begin(now_s, received)

    def update(self, now_s: float, received: int, waited_s: float = 0.0) -> None:
        """Measure. Call this several times in `RECENT_S`. `received` is the total in bytes. The
        peer had to wait for us for `waited_s` since the last call: this time does not count.
        """
        self._since_s += waited_s
        if now_s - self._since_s >= RECENT_S:
            self._bytes_per_s = (received - self._before) / (now_s - self._since_s)
            self._begin(now_s, received)

    def bytes_per_s(self, received: int) -> float | None:
        """The rate when the total is `received` bytes; None if it is unknown."""
        if self._bytes_per_s is None:
            return None
        # A peer that became fast since the last update is fast.
        return max(self._bytes_per_s, (received - self._before) / RECENT_S)

    def _begin(self, now_s: float, received: int) -> None:
        self._since_s, self._before = now_s, received


class PeerWait:
    """Measures how long one peer has to wait for us. Time with several reasons counts once."""

    __slots__ = ("_now_s", "_reasons", "_since_s", "_waited_s")

    def __init__(self, now_s: Callable[[], float]) -> None:
        """`now_s` is any clock that never goes back."""
        self._now_s = now_s
        self._reasons = 0
        self._since_s = self._waited_s = 0.0

    def begin(self) -> None:
        """Add a reason to wait."""
        if not self._reasons:
            self._since_s = self._now_s()
        self._reasons += 1

    def end(self) -> None:
        """Remove a reason to wait."""
        self._reasons -= 1
        if not self._reasons:
            self._waited_s += self._now_s() - self._since_s

    def take_s(self) -> float:
        """Return the seconds that the peer waited since the last call."""
        waited_s, self._waited_s = self._waited_s, 0.0
        if self._reasons:
            now_s = self._now_s()
            waited_s += now_s - self._since_s
            self._since_s = now_s
        return waited_s


class TinyChunkLimit:
    """Limits the tiny chunks of one content: the event loop spends as much time on a tiny chunk as
    on a large one. A leaky bucket holds `max_burst` chunks, and `MAX_PER_S` leave it.
    """

    __slots__ = ("_count", "_max_burst", "_since_s", "_tiny_bytes")

    def __init__(self, max_burst: int = MAX_BURST, tiny_bytes: int = TINY_BYTES) -> None:
        """Chunks of `tiny_bytes` and more on average do not count."""
        self._max_burst = max_burst
        self._tiny_bytes = tiny_bytes
        self._count = 0.0
        self._since_s = 0.0

    def are_too_many(self, chunks: int, size: int, now_s: float) -> bool:
        """Count `chunks` that have `size` bytes together. `now_s` never goes back."""
        if size >= chunks * self._tiny_bytes:
            return False
        leaked = (now_s - self._since_s) * MAX_PER_S
        self._count = max(0.0, self._count - leaked) + chunks
        self._since_s = now_s
        return self._count > self._max_burst

"""How long a slow peer is waited for."""

from __future__ import annotations

from dataclasses import dataclass

# Content is judged by what came in a window of this length, or of `stall_s` if that is shorter:
# long enough for a phone that changes its network.
_WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class Patience:
    """What is asked of a peer.

    `header_s`: within that the whole head of a request has to come, counted from its first byte;
    that of the first has to begin within as much. `idle_s`: so long a kept connection may be
    without a request. `stall_s`: so long a reader may take nothing of its answer. `min_rate`: the
    bytes a second in which content has to come, while it is the peer that is slow.
    """

    header_s: float = 15.0
    idle_s: float = 75.0  # load balancers keep theirs for 60 s, and must be the first to close
    stall_s: float = 300.0
    min_rate: int = 64

    @property
    def window_s(self) -> float:
        """Over how long the rate is measured."""
        return min(_WINDOW_S, self.stall_s)

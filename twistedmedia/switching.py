"""How soon a thread may go on that waits for Python's lock (the GIL).

The store's threads wait for the lock after each system call, and a small upload makes some 14. So
it takes up to 14 intervals while the event loop never rests. A shorter interval costs many small
uploads at once a tenth of their rate. So it is set only beside floods: see `FairQueue`.
"""

from __future__ import annotations

import sys

# Python's own 5 ms is long beside an answer: of a service whose threads compute (a large urlencoded
# form is decoded in one), and of its writers, which wait for their next batch.
_USUAL_S = 0.001
_BACKLOG_S = 0.0001


def set_switch_interval(is_backlog: bool) -> None:
    """Set the interval of the process. Is there a backlog in the queue of the event loop?"""
    sys.setswitchinterval(_BACKLOG_S if is_backlog else _USUAL_S)

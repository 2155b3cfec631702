"""Lets the timers of a reactor use a clock without steps.

A reactor of Twisted measures time with `time.time` (twisted#2424). A step of the wall clock then
stops all timers, or fires them at once. The monotonic clock has no steps.
"""

from __future__ import annotations

import time
from typing import Any


def use_monotonic_time(reactor: Any) -> None:
    """Make `reactor` measure time with `time.monotonic`: `callLater`, the delayed calls, and the
    time that the reactor waits for events.

    Call it before other code uses the reactor. `reactor.seconds()` is no longer the time of day, so
    times that were read before cannot be compared with times that are read afterwards. Calls that
    are scheduled already keep the delay that is left. A second call changes nothing.
    """
    if reactor.seconds is time.monotonic:
        return
    delays = [(call, call.getTime() - reactor.seconds()) for call in reactor.getDelayedCalls()]
    reactor.seconds = time.monotonic
    for call, delay_s in delays:
        call.seconds = time.monotonic  # a call reads the clock itself
        call.reset(max(0.0, delay_s))

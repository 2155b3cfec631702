"""How often a failed request is retried, and how long the client waits before each retry.

Pure: there is no clock here, and the randomness is an argument. Waits grow exponentially with "full
jitter", so that the clients of a service that restarts do not all return at the same time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from twistedmedia.client.client_limits import check_function, check_number
from twistedmedia.client.exceptions import ClientError, Refused, Unreachable

TIMES = 5


@dataclass(frozen=True, slots=True)
class Retries:
    """After a temporary failure, retry up to `times` times in a row.

    The n-th wait is random, up to `first_s` * 2 ** (n - 1) seconds or `longest_s`. The seconds of
    `Retry-After` are added; if they exceed `max_retry_after_s`, there is no retry.
    `random` returns numbers from 0 to 1.

    :raises LocalFailure: when a number is not a number from 0 on, or `random` is not a function.
    """

    times: int = TIMES
    first_s: float = 0.5
    longest_s: float = 30.0
    max_retry_after_s: float = 300.0
    random: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        for name in ("times", "first_s", "longest_s", "max_retry_after_s"):
            check_number(getattr(self, name), name)
        check_function(self.random, "random")


class Backoff:
    """The waits of one operation."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._failures = 0

    def made_progress(self) -> None:
        """Make all retries available again, because the last attempt made progress."""
        self._failures = 0

    def wait_s(self, error: ClientError) -> float | None:
        """Seconds to wait after `error`, or None when there is no retry."""
        if not isinstance(error, Refused | Unreachable) or not error.is_temporary:
            return None
        retry_after_s = error.retry_after_s if isinstance(error, Refused) else None
        return self.next_s(retry_after_s or 0.0)

    def next_s(self, retry_after_s: float = 0.0) -> float | None:
        """Seconds to wait after another temporary failure, or None after too many of them."""
        policy = self._retries
        if self._failures >= policy.times or retry_after_s > policy.max_retry_after_s:
            return None
        # An exponent beyond the float's range would be an error, and 2 ** 60 is long enough.
        span_s = min(policy.longest_s, policy.first_s * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return retry_after_s + span_s * policy.random()

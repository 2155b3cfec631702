"""How often and after how long something is tried again.

Pure: no clock, and the randomness is an argument. Waits grow exponentially and are drawn anew from
the whole span ("full jitter"), so that many clients of a service that comes back do not come back
together.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from twistedmedia.client.bounds import check_function, check_number
from twistedmedia.client.exceptions import ClientError, Refused, Unreachable

TIMES = 5


@dataclass(frozen=True, slots=True)
class Retries:
    """After a failure that may pass, try again up to `times` more times in a row.

    The n-th wait is between 0 and `first_s` * 2 ** (n - 1) seconds, at most `longest_s`. A wait
    that the service asks for comes before that, unless it is over `most_asked_s`: then the failure
    stands. `random` gives numbers from 0 to 1.

    :raises LocalFailure: when a number is not one from 0 on, or `random` is not a function.
    """

    times: int = TIMES
    first_s: float = 0.5
    longest_s: float = 30.0
    most_asked_s: float = 300.0
    random: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        for name in ("times", "first_s", "longest_s", "most_asked_s"):
            check_number(getattr(self, name), name)
        check_function(self.random, "random")


class Backoff:
    """The waits of one piece of work."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._failures = 0

    def made_progress(self) -> None:
        """The last attempt has brought it further: all attempts are there again."""
        self._failures = 0

    def wait_s(self, error: ClientError) -> float | None:
        """Seconds to wait after `error`, None when it is to stand."""
        if not isinstance(error, Refused | Unreachable) or not error.is_passing:
            return None
        asked_s = error.retry_after_s if isinstance(error, Refused) else None
        return self.next_s(asked_s or 0.0)

    def next_s(self, asked_s: float = 0.0) -> float | None:
        """Seconds to wait after one more failure that may pass, None when there were too many."""
        policy = self._retries
        if self._failures >= policy.times or asked_s > policy.most_asked_s:
            return None
        # An exponent beyond the float's range would be an error, and 2 ** 60 is long enough.
        span_s = min(policy.longest_s, policy.first_s * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return asked_s + span_s * policy.random()

"""Jobs of callers, done in steps. The caller that used the least time has the next step, so neither
many jobs nor long ones of one caller hold up the others.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

# After so many seconds of work what all callers used is halved. So a caller that used much has its
# turns again after a while, and a caller that is gone is forgotten.
_HALVED_AFTER_S = 10.0
_FORGOTTEN_S = 0.001
# Callers whose times differ by less used as much as each other. Of those, one with a short job is
# next.
_ALIKE_S = 0.1


class Job(Protocol):
    """Something to be done in steps."""

    @property
    def is_short(self) -> bool:
        """Whether it has few steps."""

    def step(self, caller: str) -> None:
        """Begin the next step, in the turn of `caller`. The job has left the queue: add it again if
        there is another step. Call `FairScheduler.ended` with `caller` when the step has ended, or
        from here. Must not raise.
        """


class FairScheduler:
    """Runs at most `most` steps at a time, of each caller one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: set[str] = set()
        # Callers that wait. The one whose last turn is the longest ago comes first.
        self._waiting: dict[str, OrderedDict[Job, None]] = {}
        self._used_s: dict[str, float] = {}
        self._used_by_all_s = 0.0
        self._is_starting = False

    def add(self, caller: str, job: Job, *, is_begun: bool = False) -> None:
        """Begin the next step of `job` when the turn of `caller` comes, which may be now. A job
        that `is_begun` goes before the other jobs of the caller.
        """
        jobs = self._waiting.setdefault(caller, OrderedDict())
        jobs[job] = None
        if is_begun:
            jobs.move_to_end(job, last=False)
        self._start()

    def remove(self, caller: str, job: Job) -> None:
        """Begin no step of `job` for `caller`. Idempotent."""
        jobs = self._waiting.get(caller)
        if jobs is not None:
            jobs.pop(job, None)
            if not jobs:
                del self._waiting[caller]

    @property
    def is_empty(self) -> bool:
        """Whether no job waits for its turn."""
        return not self._waiting

    def ended(self, caller: str, used_s: float) -> None:
        """The step that was begun for `caller` has ended, and took `used_s`."""
        self._running.remove(caller)
        self._used_s[caller] = self._used_s.get(caller, 0.0) + used_s
        self._used_by_all_s += used_s
        if self._used_by_all_s > _HALVED_AFTER_S:
            halves = {each: used_s / 2 for each, used_s in self._used_s.items()}
            self._used_s = {each: half for each, half in halves.items() if half > _FORGOTTEN_S}
            self._used_by_all_s = 0.0
        self._start()
        if not (self._running or self._waiting):  # nobody had to wait for what was used
            self._used_s.clear()

    def _start(self) -> None:
        if self._is_starting:  # a step has ended at once: the loop below goes on
            return
        self._is_starting = True
        while len(self._running) < self._most:
            ready = (each for each in self._waiting if each not in self._running)
            caller = min(ready, key=self._rank, default=None)
            if caller is None:
                break
            jobs = self._waiting.pop(caller)
            job, _ = jobs.popitem(last=False)
            if jobs:
                self._waiting[caller] = jobs  # behind all others that used as much
            self._running.add(caller)
            job.step(caller)
        self._is_starting = False

    def _rank(self, caller: str) -> tuple[int, bool]:
        job = next(iter(self._waiting[caller]))
        return int(self._used_s.get(caller, 0.0) / _ALIKE_S), not job.is_short

"""Runs jobs in steps. The caller that has used the least time has the next step.

So neither many jobs nor long jobs of one caller delay the jobs of other callers.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

# After this much work, in seconds, the used time of every caller is halved. So a caller that used
# much gets steps again after a while, and a caller that is gone is forgotten.
_HALVE_AFTER_S = 10.0
_FORGET_BELOW_S = 0.001
# Callers whose used times differ by less are equal. Of equal callers, one with a short job is next.
_EQUAL_S = 0.1


class Job(Protocol):
    """Work that is done in steps."""

    @property
    def is_short(self) -> bool:
        """Whether the job has few steps."""

    def step(self, caller: str) -> None:
        """Begin the next step, on behalf of `caller`. Must not raise.

        The scheduler has removed the job from the caller's queue. Add it again if another step
        follows. When the step ends, call `FairScheduler.step_ended`, which `step` may do itself.
        """


class FairScheduler:
    """Runs at most `max_running` steps at a time, and at most one for each caller."""

    def __init__(self, max_running: int) -> None:
        self._max_running = max_running
        self._running: set[str] = set()
        # Callers with queued jobs, the one whose last step is longest ago first.
        self._queues: dict[str, OrderedDict[Job, None]] = {}
        self._used_s: dict[str, float] = {}
        self._used_by_all_s = 0.0
        self._is_starting = False

    def add(self, caller: str, job: Job, *, is_started: bool = False) -> None:
        """Queue the next step of `job` for `caller`; it may begin immediately. A job that
        `is_started` goes before the other jobs of the caller.
        """
        queue = self._queues.setdefault(caller, OrderedDict())
        queue[job] = None
        if is_started:
            queue.move_to_end(job, last=False)
        self._start()

    def remove(self, caller: str, job: Job) -> None:
        """Remove `job` from the queue of `caller`. Idempotent."""
        queue = self._queues.get(caller)
        if queue is not None:
            queue.pop(job, None)
            if not queue:
                del self._queues[caller]

    @property
    def is_empty(self) -> bool:
        """Whether no job is queued."""
        return not self._queues

    def step_ended(self, caller: str, used_s: float) -> None:
        """Note that the running step of `caller` has ended, after `used_s`."""
        self._running.remove(caller)
        self._used_s[caller] = self._used_s.get(caller, 0.0) + used_s
        self._used_by_all_s += used_s
        if self._used_by_all_s > _HALVE_AFTER_S:
            halves = {each: used_s / 2 for each, used_s in self._used_s.items()}
            self._used_s = {each: half for each, half in halves.items() if half > _FORGET_BELOW_S}
            self._used_by_all_s = 0.0
        self._start()
        if not (self._running or self._queues):  # no caller had to wait for the used time
            self._used_s.clear()

    def _start(self) -> None:
        if self._is_starting:  # a step has ended immediately; the loop below continues
            return
        self._is_starting = True
        while len(self._running) < self._max_running:
            ready = (each for each in self._queues if each not in self._running)
            caller = min(ready, key=self._rank, default=None)
            if caller is None:
                break
            queue = self._queues.pop(caller)
            job, _ = queue.popitem(last=False)
            if queue:
                self._queues[caller] = queue  # behind all equal callers
            self._running.add(caller)
            job.step(caller)
        self._is_starting = False

    def _rank(self, caller: str) -> tuple[int, bool]:
        job = next(iter(self._queues[caller]))
        return int(self._used_s.get(caller, 0.0) / _EQUAL_S), not job.is_short

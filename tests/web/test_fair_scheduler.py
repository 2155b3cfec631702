"""Jobs of several callers are run in fair turns."""

from __future__ import annotations

from twistedmedia.web.fair_scheduler import FairScheduler


class Work:
    """A job that records its steps. With `ends_in`, its steps end at once."""

    def __init__(
        self,
        name: str,
        started: list[str],
        ends_in: FairScheduler | None = None,
        *,
        is_short: bool = True,
    ) -> None:
        self.is_short = is_short
        self._name = name
        self._started = started
        self._ends_in = ends_in

    def step(self, caller: str) -> None:
        self._started.append(self._name)
        if self._ends_in is not None:
            self._ends_in.step_ended(caller, 0)


def test_a_caller_has_at_most_one_running_step() -> None:
    queue, started = FairScheduler(2), list[str]()
    for name in ("a1", "a2", "b1", "c1"):
        queue.add(name[0], Work(name, started))
    assert started == ["a1", "b1"]


def test_callers_take_turns_whatever_number_of_jobs_they_have() -> None:
    """Case 87."""
    queue, started = FairScheduler(1), list[str]()
    for n in range(100):
        queue.add("a", Work(f"a{n}", started))
    for name in ("b0", "b1", "c0"):
        queue.add(name[0], Work(name, started))
    for _ in range(6):
        queue.step_ended(started[-1][0], 0)
    assert started == ["a0", "a1", "b0", "c0", "a2", "b1", "a3"]


def test_a_job_that_was_removed_is_not_started() -> None:
    queue, started = FairScheduler(1), list[str]()
    first, second, third = (Work(f"a{n}", started) for n in range(3))
    for job in (first, second, third):
        queue.add("a", job)
    queue.remove("a", second)
    queue.remove("a", second)
    queue.remove("another", second)
    queue.step_ended("a", 0)
    assert started == ["a0", "a2"]
    queue.step_ended("a", 0)
    queue.add("a", second)
    assert started == ["a0", "a2", "a1"]


def test_any_number_of_jobs_that_end_at_once_is_started() -> None:
    queue, started = FairScheduler(1), list[str]()
    queue.add("a", Work("first", started))
    for n in range(5000):
        queue.add(str(n % 3), Work(str(n), started, ends_in=queue))
    assert started == ["first"]
    queue.step_ended("a", 0)
    assert len(started) == 5001


def test_the_caller_that_used_least_time_is_next() -> None:
    """Case 87. Time counts, not the number of jobs."""
    queue, started = FairScheduler(1), list[str]()
    for name in ("a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"):
        queue.add(name[0], Work(name, started))
    takes_s = {"a": 0.35, "b": 0.1}
    while len(started) < 8:
        queue.step_ended(started[-1][0], takes_s[started[-1][0]])
    assert started == ["a0", "b0", "b1", "b2", "a1", "b3", "a2", "a3"]


def test_a_started_job_goes_before_the_others_of_its_caller() -> None:
    queue, started = FairScheduler(1), list[str]()
    jobs = [Work(f"a{n}", started) for n in range(3)]
    for job in jobs:
        queue.add("a", job)
    queue.add("a", jobs[0], is_started=True)
    queue.step_ended("a", 0)
    queue.step_ended("a", 0)
    assert started == ["a0", "a0", "a1"]


def test_time_that_a_caller_used_long_ago_does_not_count() -> None:
    """A caller that is always busy does not wait until others have used as much."""
    queue, started = FairScheduler(1), list[str]()
    queue.add("a", Work("a", started))
    for n in range(40):
        queue.add("b", Work(f"b{n}", started))
    queue.step_ended("a", 100)
    queue.add("a", Work("last", started))
    for _ in range(40):
        queue.step_ended(started[-1][0] if started[-1] != "last" else "a", 2)
    assert "last" in started[:-5]


def test_of_equal_callers_one_with_a_short_job_is_next() -> None:
    queue, started = FairScheduler(1), list[str]()
    for name in ("a", "b", "c"):
        queue.add(name, Work(name, started, is_short=False))
    queue.add("d", Work("d", started))
    queue.step_ended("a", 0.1)
    queue.add("a", Work("a2", started))
    queue.add("d", Work("d2", started))
    queue.step_ended("d", 0.05)
    for name in ("d", "b", "c"):
        queue.step_ended(name, 0.1)
    assert started == ["a", "d", "d2", "b", "c", "a2"]


def test_time_used_while_no_caller_waited_does_not_count() -> None:
    queue, started = FairScheduler(1), list[str]()
    queue.add("a", Work("a1", started))
    queue.step_ended("a", 5)
    queue.add("b", Work("b1", started))
    queue.add("a", Work("a2", started))
    queue.add("c", Work("c1", started))
    queue.step_ended("b", 0)
    assert started == ["a1", "b1", "a2"]


def test_a_caller_that_is_gone_is_forgotten() -> None:
    """Even if another caller is always busy."""
    queue, started = FairScheduler(2), list[str]()
    queue.add("busy", Work("busy", started))
    for n in range(100):
        queue.add(f"gone {n}", Work("gone", started))
        queue.step_ended(f"gone {n}", 0.01)
    assert len(queue._used_s) == 100
    for _ in range(10):
        queue.add("busy", Work("busy", started))
        queue.step_ended("busy", 11)
    assert set(queue._used_s) == {"busy"}

"""Case 88: the wall clock of the whole process is stepped, by libfaketime, forward and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.clocked import (
    OPTIONS,
    assert_grace_holds,
    assert_unmoved,
    notified,
    replace,
    store_large,
)
from tests.process.nasty import Nasty
from tests.process.running import TWISTD, Process

DAY_S = 86_400
YEAR_S = 365 * DAY_S
STEPS_S = [1, 0, -1, 0, DAY_S, 0, -DAY_S, 0, YEAR_S, 0, -YEAR_S]  # forward and back, from each


@pytest.fixture(scope="module")
def nasty() -> Iterator[Nasty]:
    """An upstream, whose clock nobody steps."""
    upstream = Nasty()
    yield upstream
    upstream.stop()


def faketime() -> str:
    """The library that fakes the wall clock of a process."""
    (found,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return str(found)


def test_steps_of_a_second_a_day_and_a_year_move_no_timer(tmp_path: Path, nasty: Nasty) -> None:
    """Case 88. During uploads, resumable uploads, imports and downloads; nothing is cut that should
    not be, and what should be is cut in time; the watchdog and the access log go on; SIGTERM's
    grace holds.
    """
    offset = tmp_path / "offset"
    replace(offset, "+0")

    def step_to(seconds: int) -> float:
        replace(offset, f"{seconds:+d}")
        return float(seconds)

    area = tmp_path / "area"
    area.mkdir()
    faking = {
        "LD_PRELOAD": faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",  # look at the file each time
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # a step of the wall clock leaves it alone
        "NO_FAKE_STAT": "1",  # the times of files do not change with the clock
    }
    media = ["media", "--port", "0", "--root", str(area / "media"), *OPTIONS]
    with notified(tmp_path) as systemd:
        service = Process(
            [TWISTD, "-n", "--pidfile=", *media],
            area,
            tmp_path / "service.log",
            area / "media",
            {**systemd.environment, **faking},
        )
        try:
            store_large(service)
            for number, seconds in enumerate(STEPS_S):
                assert_unmoved(
                    service, nasty, systemd, lambda to=seconds: step_to(to), f"step-{number}"
                )
            assert_grace_holds(service, lambda: step_to(0))
            assert "Traceback" not in service.log
            assert "incident" not in service.log
        finally:
            service.kill()

"""Case 88: timers do not depend on the wall clock."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.process import stepping
from tests.process.clocked import (
    OPTIONS,
    assert_grace_holds,
    assert_unmoved,
    notified,
    replace,
    store_large,
)
from tests.process.nasty import Nasty
from tests.process.running import Process

DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("reactor", "step_s"),
    [
        ("epoll", DAY_S),
        ("epoll", -DAY_S),
        ("poll", -DAY_S),
        ("select", -DAY_S),
        ("asyncio", -DAY_S),
    ],
)
def test_a_step_of_a_day_moves_no_timer(
    tmp_path: Path, nasty: Nasty, reactor: str, step_s: float
) -> None:
    """Case 88. Slow clients are disconnected in time, and no others. The watchdog and the access
    log continue. The grace after SIGTERM holds.
    """
    offset = tmp_path / "offset"
    replace(offset, "0")

    def step() -> float:
        replace(offset, str(step_s))
        return step_s

    def step_back() -> float:
        replace(offset, "0")
        return 0.0

    area = tmp_path / "area"
    area.mkdir()
    command = [sys.executable, stepping.__file__, str(offset), "-n", "--pidfile="]
    media = ["media", "--port", "0", "--root", str(area / "media"), *OPTIONS]
    with notified(tmp_path) as systemd:
        service = Process(
            [*command, f"--reactor={reactor}", *media],
            area,
            tmp_path / "service.log",
            area / "media",
            systemd.environment,
        )
        try:
            store_large(service)
            assert_unmoved(service, nasty, systemd, step, "stepped")
            assert_grace_holds(service, step_back)
        finally:
            service.kill()

"""`twistd media`: the service that is made from the options, and what it sets in its process."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.service.test_options import parsed
from tests.support import asynchronous
from twistedmedia.fairness.loop_queue import BACKLOG_FURTHER, TURN_S
from twistedmedia.service.process import set_switch_interval
from twistedmedia.service.tap import makeService

pytestmark = pytest.mark.usefixtures("bare_surroundings")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--interface", "127.0.0.1"],
        ["--interface", "::1"],
        ["--listen", "tcp:0", "--listen", "unix:media.sock", "--access-log", "access.log"],
        ["--access-log", "-", "--trusted-proxy", "unix", "--grace", "0"],
    ],
)
def test_making_the_service_opens_starts_and_binds_nothing(
    bare_surroundings: Path, arguments: list[str]
) -> None:
    """twistd makes the service before it forks; threads and descriptors would not survive."""
    threads = set(threading.enumerate())
    service = makeService(parsed(*arguments))
    assert IService.providedBy(service)
    assert not service.running
    assert list(bare_surroundings.iterdir()) == []
    assert set(threading.enumerate()) <= threads


@pytest.mark.usefixtures("restored_switch_interval")
@asynchronous
async def test_threads_wait_less_for_the_event_loop_while_it_has_a_backlog() -> None:
    """Case 85. A small upload waits for the loop after each system call of its thread."""
    service: Any = makeService(parsed())
    queue = vars(service)["_site"].queue
    set_switch_interval(is_backlog=False)
    usual_s = sys.getswitchinterval()
    for _ in range(BACKLOG_FURTHER + 1):
        queue.add("192.0.2.1", lambda: time.sleep(TURN_S))
    await deferLater(reactor, 0, lambda: None)
    assert sys.getswitchinterval() < usual_s / 5
    for _ in range(2):
        await deferLater(reactor, 0, lambda: None)
    assert sys.getswitchinterval() == usual_s


@pytest.fixture
def restored_switch_interval() -> Iterator[None]:
    before_s = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before_s)


def test_the_garbage_collector_skips_objects_of_the_start(
    bare_surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the others it runs less often."""
    frozen: list[str] = []
    often: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda: frozen.append("collected"))
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append("frozen"))
    monkeypatch.setattr(gc, "set_threshold", lambda young, *_: often.append(young))
    makeService(parsed())  # the reactor runs already, so this takes effect at once
    assert frozen == ["collected", "frozen"]
    assert often[0] > 700

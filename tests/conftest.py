"""Fails a test that leaves something behind, which pytest-twisted does not detect."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import pytest_twisted
from constantly import NamedConstant
from hypothesis import settings
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

# Hypothesis gives each example 200 ms. A busy machine may pause for longer.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")


def pytest_collection_finish() -> None:
    """Exempt imported objects from the collection after every test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[list[LogEvent]]:
    """No delayed calls, open ports, descriptors or logged errors stay after a test.

    A test that causes a logged failure on purpose uses this fixture and empties the list.
    """
    _turn()  # so that the reactor has opened its own descriptors
    readers, calls = set(reactor.getReaders()), set(reactor.getDelayedCalls())
    descriptors = _descriptors()
    with _logged(LogLevel.critical, LogLevel.error) as failures:
        yield failures
        pool = reactor.getThreadPool()
        for _ in range(500):  # files of a thread's last job close a few turns later
            if not (pool.working or _descriptors() - descriptors):
                break
            _turn(0.02)
        gc.collect()  # a Deferred reports an unhandled failure when it is freed
        gc.freeze()  # exempt what is left from the collections after later tests
    left = [call for call in reactor.getDelayedCalls() if call not in calls]
    for call in left:
        call.cancel()
    assert not left, f"delayed calls are left: {left}"
    assert not set(reactor.getReaders()) - readers, "ports or connections are left open"
    left_open = _descriptors() - descriptors
    assert not left_open, f"descriptors are left open: {left_open}"
    assert not failures, f"errors were logged: {[formatEvent(event) for event in failures]}"


@pytest.fixture
def warnings() -> Iterator[list[LogEvent]]:
    """The warnings that a test logs."""
    with _logged(LogLevel.warn) as warnings:
        yield warnings


@pytest.fixture
def infos() -> Iterator[list[LogEvent]]:
    """The info events that a test logs."""
    with _logged(LogLevel.info) as infos:
        yield infos


@contextmanager
def _logged(*levels: NamedConstant) -> Iterator[list[LogEvent]]:
    """The events of these levels that are logged in this context."""
    logged: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") in levels:
            logged.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield logged
    finally:
        globalLogPublisher.removeObserver(observe)


def _turn(delay_s: float = 0.0) -> None:
    pytest_twisted.blockon(deferLater(reactor, delay_s))


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found

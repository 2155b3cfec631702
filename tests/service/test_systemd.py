"""Notifications to systemd, over a real socket, and pings of its watchdog."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from twistedmedia.service.systemd import SystemdNotifier

WATCHED_S = 20
STOPPING = "STOPPING=1\nEXTEND_TIMEOUT_USEC=40500000"


class Systemd:
    """Receives notifications."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(address)

    def received(self) -> list[str]:
        """The notifications since the last call."""
        received = []
        while True:
            try:
                received.append(self._socket.recv(1000).decode())
            except BlockingIOError:
                return received

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if systemd runs the tests."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Systemd]:
    if request.param == "path":
        address = str(tmp_path / "notify")
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    else:
        address = f"\0twistedmedia-test-{os.getpid()}"
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + address[1:])
    listening = Systemd(address)
    yield listening
    listening.close()


def test_systemd_is_notified_when_the_service_is_ready_and_when_it_stops(systemd: Systemd) -> None:
    clock = Clock()
    notifier = SystemdNotifier(clock)
    assert systemd.received() == []
    notifier.ready()
    assert systemd.received() == ["READY=1"]
    notifier.stopping(40.5)
    assert systemd.received() == [STOPPING]
    notifier.stopped()
    assert systemd.received() == []
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("pid", [None, str(os.getpid())])
def test_the_watchdog_is_fed_twice_in_its_timeout_until_the_service_has_stopped(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, pid: str | None
) -> None:
    """Also while requests in progress end."""
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHED_S * 1_000_000))
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    clock = Clock()
    notifier = SystemdNotifier(clock)
    clock.advance(WATCHED_S)
    notifier.ready()
    assert systemd.received() == ["READY=1", "WATCHDOG=1"]
    for _ in range(3):
        clock.advance(WATCHED_S / 2 - 0.1)
        assert systemd.received() == []
        clock.advance(0.1)
        assert systemd.received() == ["WATCHDOG=1"]
    notifier.stopping(40.5)
    clock.advance(WATCHED_S / 2)
    assert systemd.received() == [STOPPING, "WATCHDOG=1"]
    notifier.stopped()
    clock.advance(WATCHED_S)
    assert systemd.received() == []
    assert clock.getDelayedCalls() == []


def test_the_watchdog_is_fed_after_the_event_loop_was_late(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, not for each ping that was missed."""
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHED_S * 1_000_000))
    clock = Clock()
    notifier = SystemdNotifier(clock)
    notifier.ready()
    systemd.received()
    clock.advance(WATCHED_S * 3)
    assert systemd.received() == ["WATCHDOG=1"]
    notifier.stopped()


@pytest.mark.parametrize(
    ("usec", "pid"),
    [
        (None, None),
        ("20000000", "1"),
        ("20000000", ""),
        ("20000000", "me"),
        ("0", None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1e6", None),
    ],
)
def test_the_watchdog_of_another_process_is_not_fed(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None
) -> None:
    """The variables may be those of a parent."""
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is not None:
            monkeypatch.setenv(name, value)
    clock = Clock()
    notifier = SystemdNotifier(clock)
    notifier.ready()
    clock.advance(WATCHED_S)
    assert systemd.received() == ["READY=1"]
    assert clock.getDelayedCalls() == []
    notifier.stopped()


@pytest.mark.parametrize("address", [None, ""])
def test_without_systemd_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, warnings: list[LogEvent], address: str | None
) -> None:
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    clock = Clock()
    notifier = SystemdNotifier(clock)
    notifier.ready()
    assert clock.getDelayedCalls() == []
    notifier.stopping(40.5)
    notifier.stopped()
    assert warnings == []


@pytest.mark.parametrize("address", ["missing", "@twistedmedia-test-missing", "x" * 200])
def test_a_missing_systemd_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, warnings: list[LogEvent], address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier = SystemdNotifier(Clock())
    notifier.ready()
    assert [event["state"] for event in warnings] == ["READY=1"]
    assert warnings[0]["reason"]
    notifier.stopping(40.5)
    notifier.stopped()
    assert len(warnings) == 1, "more than one warning"


def test_a_systemd_that_does_not_read_does_not_block_the_service(
    systemd: Systemd, warnings: list[LogEvent]
) -> None:
    """Case 29. Its queue is full."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)  # so that a blocking socket fails this test
    try:
        notifier = SystemdNotifier(Clock())
        while not warnings:
            notifier.stopping(40.5)
        notifier.stopped()
    finally:
        socket.setdefaulttimeout(before)
    assert warnings[0]["reason"] == os.strerror(errno.EAGAIN)
    assert STOPPING in systemd.received()

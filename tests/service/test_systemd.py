"""What systemd is told, over a real socket, and by whom it is fed."""

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
    """Listens, and says what it was told since it was asked last."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(address)

    def told(self) -> list[str]:
        told = []
        while True:
            try:
                told.append(self._socket.recv(1000).decode())
            except BlockingIOError:
                return told

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs these tests."""
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


def test_systemd_is_told_when_requests_are_answered_and_when_no_more_are(systemd: Systemd) -> None:
    clock = Clock()
    notifier = SystemdNotifier(clock)
    assert systemd.told() == []
    notifier.ready()
    assert systemd.told() == ["READY=1"]
    notifier.stopping(40.5)
    assert systemd.told() == [STOPPING]
    notifier.stopped()
    assert systemd.told() == []
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("pid", [None, str(os.getpid())])
def test_the_watchdog_is_fed_in_half_its_time_until_all_has_ended(
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
    assert systemd.told() == ["READY=1", "WATCHDOG=1"]
    for _ in range(3):
        clock.advance(WATCHED_S / 2 - 0.1)
        assert systemd.told() == []
        clock.advance(0.1)
        assert systemd.told() == ["WATCHDOG=1"]
    notifier.stopping(40.5)
    clock.advance(WATCHED_S / 2)
    assert systemd.told() == [STOPPING, "WATCHDOG=1"]
    notifier.stopped()
    clock.advance(WATCHED_S)
    assert systemd.told() == []
    assert clock.getDelayedCalls() == []


def test_the_watchdog_is_fed_although_a_loop_was_late(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, not for each beat that it has missed."""
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHED_S * 1_000_000))
    clock = Clock()
    notifier = SystemdNotifier(clock)
    notifier.ready()
    systemd.told()
    clock.advance(WATCHED_S * 3)
    assert systemd.told() == ["WATCHDOG=1"]
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
def test_a_watchdog_that_is_not_for_us_is_not_fed(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None
) -> None:
    """A parent may have left its variables."""
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is not None:
            monkeypatch.setenv(name, value)
    clock = Clock()
    notifier = SystemdNotifier(clock)
    notifier.ready()
    clock.advance(WATCHED_S)
    assert systemd.told() == ["READY=1"]
    assert clock.getDelayedCalls() == []
    notifier.stopped()


@pytest.mark.parametrize("address", [None, ""])
def test_without_systemd_nothing_is_said(
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
def test_a_systemd_that_is_not_there_is_a_warning_and_no_more(
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
    assert len(warnings) == 1, "the operator knows"


def test_a_systemd_that_does_not_listen_makes_nobody_wait(
    systemd: Systemd, warnings: list[LogEvent]
) -> None:
    """Case 29. Its queue is full."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)  # of a socket that would wait, so that this test can fail
    try:
        notifier = SystemdNotifier(Clock())
        while not warnings:
            notifier.stopping(40.5)
        notifier.stopped()
    finally:
        socket.setdefaulttimeout(before)
    assert warnings[0]["reason"] == os.strerror(errno.EAGAIN)
    assert STOPPING in systemd.told()

"""Case 89: a declared length that is all of the disk keeps nobody else from storing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.live.conftest import Disk
from tests.process.exchange import head
from tests.process.running import Process, eventually, running

MIB = 1 << 20
ATTACKER = "127.0.0.66"


@contextmanager
def declaring(service: Process, connections: int) -> Iterator[list[socket.socket]]:
    """So many connections of an attacker, each of which declares all that is free but 4,096 bytes
    and sends 65 bytes a second.
    """
    ends = threading.Event()
    opened: list[socket.socket] = []

    def trickle() -> None:
        while not ends.wait(1):
            for each in opened:
                each.sendall(bytes(65))

    with ExitStack() as closing:
        thread = threading.Thread(target=trickle)
        for n in range(connections):
            free = service.ask("GET", "/health").json["free"]
            address = ("127.0.0.1", service.port)
            each = closing.enter_context(
                socket.create_connection(address, 20, source_address=(ATTACKER, 0))
            )
            length = str(max(1 << 20, free - 4096))
            each.sendall(head("PUT", f"/media/x/{n}.wav", [("Content-Length", length)]))
            each.sendall(bytes(65))
            opened.append(each)
            reserved = free - 4096 if n == 0 else 0
            eventually(
                "the upload has begun",
                lambda most=free - reserved: service.ask("GET", "/health").json["free"] <= most,
            )
        thread.start()
        try:
            yield opened
        finally:
            ends.set()
            thread.join()


@pytest.mark.parametrize("size", [300, 700])
@pytest.mark.parametrize("connections", [1, 10])
def test_who_declares_all_and_sends_little_keeps_nobody_out(
    small_disk: Callable[..., Disk], size: int, connections: int
) -> None:
    """Case 89. The attacker is not cut: its uploads go on as if they had declared nothing."""
    disk = small_disk(f"size={size}m")
    with running(disk.path) as service:
        with declaring(service, connections) as attackers:
            for n in range(10):
                answer = service.ask("PUT", f"/media/mine/{n}.wav", bytes(10 * MIB))
                assert answer.brief == (201, 200), answer
            eventually(
                "what the attacker cannot use is free again",
                lambda: service.ask("GET", "/health").json["free"] > (size - 101) * MIB,
            )
            assert service.ask("GET", "/health").json["uploads"] >= 1
            attackers[0].setblocking(False)
            with pytest.raises(BlockingIOError):
                attackers[0].recv(1)
            large = service.ask("PUT", "/media/mine/large.wav", bytes(size // 4 * MIB))
            assert large.brief == (201, 200), large
        eventually("they are gone", lambda: service.ask("GET", "/health").json["uploads"] == 0)

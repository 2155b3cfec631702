"""A caller that takes all that it can get, slowly: many requests from one address, which send a few
bytes a second and begin anew when they end.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count

from tests.process.exchange import Connection
from tests.process.running import Process

TICK_S = 0.25
# Of those that ended so many begin anew in a tick: what is tested is not how fast they are refused.
_ANEW = 8


def connect(service: Process, address: str, timeout_s: float = 20.0) -> Connection:
    """A connection of ours from a loopback address."""
    to = ("127.0.0.1", service.port)
    return Connection(socket.create_connection(to, timeout_s, source_address=(address, 0)))


class Crowd:
    """Requests that are under way, and what became of those that ended."""

    def __init__(
        self, service: Process, address: str, request: Callable[[int], bytes], rate: float
    ) -> None:
        """`request` gives what the Nth request begins with; `rate` is how many bytes a second each
        sends then.
        """
        self.statuses: Counter[int] = Counter()
        self.open = 0
        self._service = service
        self._address = address
        self._request = request
        self._piece = b"x" * round(rate * TICK_S)
        self._numbers = count()
        self._sockets: list[socket.socket] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self, size: int) -> None:
        """Begin `size` requests, and keep as many."""
        self._size = size
        for _ in range(size):
            self._begin_one()
        self._thread.start()

    def end(self) -> None:
        """Let go of all."""
        self._stopping.set()
        self._thread.join()
        for each in self._sockets:
            each.close()

    def _begin_one(self) -> None:
        to = ("127.0.0.1", self._service.port)
        begun = socket.create_connection(to, 20, source_address=(self._address, 0))
        begun.sendall(self._request(next(self._numbers)))
        self._sockets.append(begun)

    def _run(self) -> None:
        while not self._stopping.wait(TICK_S):
            poll = select.poll()
            by_descriptor = {each.fileno(): each for each in self._sockets}
            for descriptor in by_descriptor:
                poll.register(descriptor, select.POLLIN)
            ended = [by_descriptor[descriptor] for descriptor, _ in poll.poll(0)]
            for each in ended:
                self._end_one(each)
            for each in self._sockets:
                with contextlib.suppress(ConnectionError):  # its end is seen in the next tick
                    each.sendall(self._piece)
            self.open = len(self._sockets)
            for _ in range(min(_ANEW, self._size - len(self._sockets))):
                self._begin_one()

    def _end_one(self, each: socket.socket) -> None:
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = each.recv(4096)
        self.statuses[int(answer.split()[1]) if answer else 0] += 1
        self._sockets.remove(each)
        each.close()


@contextlib.contextmanager
def crowd(
    service: Process,
    size: int,
    request: Callable[[int], bytes],
    *,
    address: str = "127.0.0.2",
    rate: float = 65,
) -> Iterator[Crowd]:
    """A crowd of `size`, for as long as the context lasts."""
    crowded = Crowd(service, address, request, rate)
    try:
        crowded.begin(size)
        yield crowded
    finally:
        crowded.end()


class Trickle:
    """An upstream that answers every request at once, and then sends a few bytes a second, or
    closes the connection if the rate is None.
    """

    def __init__(self, head: bytes, rate: float | None) -> None:
        self._head = head
        self._closes = rate is None
        self._piece = b"x" * round((rate or 0) * TICK_S)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self._listening.getsockname()[1])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> str:
        """The URL of something there."""
        self._listening.settimeout(TICK_S / 10)
        self._thread.start()
        return f"http://127.0.0.1:{self.port}/a.wav"

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._listening.close()

    def _run(self) -> None:
        asked: list[socket.socket] = []
        ticked_s = time.monotonic()
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                new, _ = self._listening.accept()
                new.settimeout(5)
                new.recv(65536)  # the request
                new.sendall(self._head)
                if self._closes:
                    new.close()
                else:
                    asked.append(new)
            if time.monotonic() - ticked_s >= TICK_S:
                ticked_s = time.monotonic()
                for each in list(asked):
                    try:
                        each.sendall(self._piece)
                    except OSError:  # it is not asked for any more
                        asked.remove(each)
                        each.close()
        for each in asked:
            each.close()

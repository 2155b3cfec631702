"""
Many hostile connections in one cheap process, all from one address.

A :class:`Habit` says what a connection sends, and when. The attacks themselves are in attacks.py.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import re
import resource
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_RECEIVE_BYTES = 1 << 16
_RESET = struct.pack("ii", 1, 0)
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
# An answer that takes longer is not on its way: the service works on it for some milliseconds.
_ANSWERED_WITHIN_S = 2.0


@dataclass(frozen=True)
class Habit:
    """
    What one kind of connection does.

    :ivar opens: the first bytes of the connection with this number. Numbers are not used twice.
    :ivar goes_on: what is sent after that, again and again; nothing when it is empty.
    :ivar every_s: the time between two times; with 0, as fast as the service reads.
    :ivar asks_again_s: how long after an answer the connection opens again, without a new
        connect; None for never. Each request of such a connection is expected to be answered.
    :ivar reads: whether it reads what the service sends.
    :ivar window_bytes: its receive buffer, None for what the kernel gives.
    :ivar leaves_after_bytes: when it has received this much it resets the connection, and comes
        back at once.
    :ivar returns_s: how long after the service has ended a connection the next one is made.
    """

    opens: Callable[[int], bytes]
    goes_on: bytes = b""
    every_s: float = 0.0
    asks_again_s: float | None = None
    reads: bool = True
    window_bytes: int | None = None
    leaves_after_bytes: int | None = None
    returns_s: float = 1.0


class _Connection:
    def __init__(self, habit: Habit, end: socket.socket, *, is_asked: bool) -> None:
        self.habit = habit
        self.socket = end
        self.is_asked = is_asked  # an accepted one opens when the service has sent a request
        self.is_connected = is_asked
        self.has_opened = False
        self.outgoing = memoryview(b"")
        self.received_bytes = 0
        self.asked_at: float | None = None


class Attackers:
    """
    Connections to the service on *port* of 127.0.0.1, made from *address*.

    :param crowd: how many of each habit there are.
    """

    def __init__(self, port: int, address: str, crowd: Sequence[tuple[Habit, int]]) -> None:
        self._to = ("127.0.0.1", port)
        self._address = address
        self._crowd = crowd
        self._epoll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._listening: dict[int, tuple[socket.socket, Habit]] = {}
        self._numbers = itertools.count()
        self._ticks = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._told: Counter[str] = Counter()
        self._connecting = 0
        self._sent_bytes = 0
        _allow_descriptors()

    def listen(self, habit: Habit) -> int:
        """Be an upstream as well, whose connections have this habit; the port."""
        listening = socket.create_server((self._address, 0), backlog=4096)
        listening.setblocking(False)
        self._listening[listening.fileno()] = (listening, habit)
        self._epoll.register(listening, select.EPOLLIN)
        port: int = listening.getsockname()[1]
        return port

    def run(self, stop: int, ready: Callable[[], None]) -> None:
        """
        Attack until the descriptor *stop* can be read.

        All connections are made first, then all open at once; *ready* is called after that.
        """
        self._epoll.register(stop, select.EPOLLIN)
        for habit, count in self._crowd:
            for _ in range(count):
                self._connecting += 1
                self._connect(habit)
        is_ready = False
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            if not is_ready and not self._connecting:
                is_ready = True
                for connection in list(self._open.values()):
                    self._begin(connection)
                ready()
            wait_s = self._due[0][0] - now if self._due else 1.0
            for fd, events in self._epoll.poll(min(1.0, max(0.0, wait_s))):
                if fd == stop:
                    return
                if fd in self._listening:
                    self._accept(*self._listening[fd])
                elif fd in self._open:
                    self._serve(self._open[fd], events, is_ready)

    def seen(self) -> dict[str, object]:
        """What became of the attack so far."""
        late = time.monotonic() - _ANSWERED_WITHIN_S
        asked = [each.asked_at for each in self._open.values() if each.asked_at is not None]
        return {
            "open": len(self._open),
            "told": dict(self._told),
            "unanswered": sum(at < late for at in asked),
            "sent_mb": self._sent_bytes / 1e6,
        }

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._ticks), act))

    def _connect(self, habit: Habit) -> None:
        end = socket.socket()
        end.setblocking(False)
        if habit.window_bytes is not None:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, habit.window_bytes)
        end.bind((self._address, 0))
        if (failure := end.connect_ex(self._to)) not in (0, errno.EINPROGRESS):
            raise OSError(failure, "cannot connect to the service")
        connection = _Connection(habit, end, is_asked=False)
        self._open[end.fileno()] = connection
        self._epoll.register(end, select.EPOLLOUT)

    def _accept(self, listening: socket.socket, habit: Habit) -> None:
        with contextlib.suppress(BlockingIOError):
            end, _ = listening.accept()
            end.setblocking(False)
            self._open[end.fileno()] = _Connection(habit, end, is_asked=True)
            self._epoll.register(end, select.EPOLLIN)

    def _serve(self, connection: _Connection, events: int, is_ready: bool) -> None:
        try:
            if not connection.is_connected:
                if failure := connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(failure, "not connected")
                connection.is_connected = True
                self._connecting = max(0, self._connecting - 1)
                self._epoll.modify(connection.socket, 0)
                if is_ready:
                    self._begin(connection)
                return
            if events & (select.EPOLLERR | select.EPOLLHUP) and not connection.habit.reads:
                raise ConnectionResetError
            if events & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP):
                self._receive(connection)
            if events & select.EPOLLOUT and connection.socket.fileno() in self._open:
                self._send(connection)
        except OSError as failure:
            name = errno.errorcode.get(failure.errno or 0, "ended")
            self._told[name] += 1
            self._end(connection)

    def _begin(self, connection: _Connection) -> None:
        """Send what a connection opens with."""
        if connection.socket.fileno() < 0 or connection.has_opened:
            return
        habit = connection.habit
        connection.has_opened = True
        connection.outgoing = memoryview(habit.opens(next(self._numbers)))
        if habit.asks_again_s is not None:
            connection.asked_at = time.monotonic()
        if habit.goes_on and habit.every_s:
            self._later(habit.every_s, lambda: self._go_on(connection))
        try:
            self._send(connection)
        except OSError:
            self._end(connection)

    def _go_on(self, connection: _Connection) -> None:
        if connection.socket.fileno() < 0:
            return
        if not connection.outgoing:
            connection.outgoing = memoryview(connection.habit.goes_on)
            try:
                self._send(connection)
            except OSError:
                self._end(connection)
                return
        self._later(connection.habit.every_s, lambda: self._go_on(connection))

    def _send(self, connection: _Connection) -> None:
        habit = connection.habit
        if not connection.outgoing and habit.goes_on and not habit.every_s:
            connection.outgoing = memoryview(habit.goes_on)
        if connection.outgoing:
            with contextlib.suppress(BlockingIOError):
                sent = connection.socket.send(connection.outgoing)
                connection.outgoing = connection.outgoing[sent:]
                self._sent_bytes += sent
        has_more = bool(connection.outgoing) or bool(habit.goes_on and not habit.every_s)
        events = (select.EPOLLIN if habit.reads else 0) | (select.EPOLLOUT if has_more else 0)
        self._epoll.modify(connection.socket, events)

    def _receive(self, connection: _Connection) -> None:
        data = connection.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError
        if connection.is_asked:
            if b"\r\n\r\n" in data:
                self._begin(connection)
            return
        habit = connection.habit
        connection.received_bytes += len(data)
        if statuses := _STATUS.findall(data):
            self._told.update(status.decode() for status in statuses)
            connection.asked_at = None
            if habit.asks_again_s is not None:
                connection.has_opened = False
                self._later(habit.asks_again_s, lambda: self._begin(connection))
        leaves = habit.leaves_after_bytes
        if leaves is not None and connection.received_bytes >= leaves:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._told["left"] += 1
            self._close(connection)
            self._later(0.0, lambda: self._connect(habit))

    def _end(self, connection: _Connection) -> None:
        """The service has ended it."""
        if connection.socket.fileno() < 0:
            return
        if not connection.is_connected:
            self._connecting = max(0, self._connecting - 1)
        self._close(connection)
        if not connection.is_asked:
            self._later(connection.habit.returns_s, lambda: self._connect(connection.habit))

    def _close(self, connection: _Connection) -> None:
        self._epoll.unregister(connection.socket)
        del self._open[connection.socket.fileno()]
        connection.socket.close()


def _allow_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

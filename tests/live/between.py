"""A server between a client and a service, whose connections end with it."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self


class Between(socketserver.ThreadingTCPServer):
    """A server on `port` of the loopback address that passes things on to the port `upstream`.
    What its handlers meet is in `faults`.
    """

    allow_reuse_address = True

    def __init__(self, handler: type[socketserver.BaseRequestHandler], upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.port: int = self.server_address[1]
        self.upstream = upstream
        self.faults: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: the handler keeps what it meets in `faults`."""

    def keep(self, *connections: socket.socket) -> None:
        """To be ended with this server."""
        with self._lock:
            self._open |= set(connections)

    def forget(self, *connections: socket.socket) -> None:
        with self._lock:
            self._open -= set(connections)

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Serves until the context ends. Its handlers must not have met a fault."""
        with self:
            thread = threading.Thread(target=self.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield self
            finally:
                self.shutdown()
                self._end_all()
                thread.join()
        assert self.faults == []

    def _end_all(self) -> None:
        """So that nothing waits for more from who keeps a connection."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # it was ended by the other side
                    connection.shutdown(socket.SHUT_RDWR)

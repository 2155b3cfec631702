"""A bad line: passes bytes on to a service, and cuts off connections every few MiB."""

from __future__ import annotations

import select
import socket
import socketserver
import struct
from collections import Counter
from contextlib import AbstractContextManager
from enum import Enum
from random import Random
from typing import cast

from tests.live.between import Between

_PIECE_BYTES = 64 << 10
_RESET = struct.pack("ii", 1, 0)


class Cut(Enum):
    """How a connection ends; they take turns."""

    RESET = "reset, on both sides"
    END = "ended in good order"
    HANG = "reset for the client, while the service waits for more of it, as behind lost Wi-Fi"


class Line(Between):
    """A server on `port` that passes on what comes. Each `least` to `most` bytes that its clients
    have sent, it cuts off the connection that the last of them came on: the service has received
    those, and nothing after them. It loses the first answer that says of an upload where it is
    stored as well: the client cannot know.
    """

    request_queue_size = 64

    def __init__(self, upstream: int, least: int, most: int, seed: int) -> None:
        super().__init__(_Passing, upstream)
        self.cuts: Counter[Cut] = Counter()
        self.passed = 0  # bytes from clients
        self.lost = 0  # answers
        self._random = Random(seed)
        self._between = (least, most)
        self._until_cut = self._random.randint(least, most)

    def server_close(self) -> None:
        """Waits for the connections that pass something, and closes those that hang."""
        super().server_close()
        for connection in self._open:
            connection.close()

    def spend(self, size: int) -> tuple[int, Cut | None]:
        """How many of `size` bytes pass, and what happens after them."""
        with self._lock:
            if size < self._until_cut:
                self._until_cut -= size
                self.passed += size
                return size, None
            passes, self._until_cut = self._until_cut, self._random.randint(*self._between)
            self.passed += passes
            cut = list(Cut)[self.cuts.total() % len(Cut)]
            self.cuts[cut] += 1
            return passes, cut

    def loses(self, answer: bytes) -> bool:
        """Whether this is the answer that gets lost."""
        head = answer.partition(b"\r\n\r\n")[0].lower()
        with self._lock:
            if self.lost or not (head.startswith(b"http/1.1 204") and b"content-location" in head):
                return False
            self.lost += 1
            return True


class _Passing(socketserver.BaseRequestHandler):
    """One connection of a client."""

    def handle(self) -> None:
        server = cast(Line, self.server)
        client = cast(socket.socket, self.request)
        upstream = socket.create_connection(("127.0.0.1", server.upstream))
        server.keep(client, upstream)
        cut = None
        try:
            cut = self._pass(server, client, upstream)
            if cut is Cut.END:
                client.shutdown(socket.SHUT_WR)  # whatever else comes is answered with a reset
        except OSError:  # one of the two has gone
            pass
        except Exception as fault:  # noqa: BLE001  # the test is told at its end
            server.faults.append(fault)
        finally:
            server.forget(client)
            if cut is Cut.RESET or cut is Cut.HANG:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            if cut is not Cut.HANG:
                server.forget(upstream)
                if cut is Cut.RESET:
                    upstream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                upstream.close()

    def _pass(self, server: Line, client: socket.socket, upstream: socket.socket) -> Cut | None:
        """Until one of the two has nothing more to send, or the connection is to be cut."""
        while True:
            readable, _, _ = select.select([client, upstream], [], [])
            if upstream in readable:
                answer = upstream.recv(_PIECE_BYTES)
                if not answer:
                    return None
                if server.loses(answer):
                    return Cut.RESET
                client.sendall(answer)
            if client in readable:
                piece = client.recv(_PIECE_BYTES)
                if not piece:
                    return None
                passes, cut = server.spend(len(piece))
                upstream.sendall(piece[:passes])
                if cut is not None:
                    return cut


def bad_line(
    upstream: int, least: int = 2 << 20, most: int = 6 << 20
) -> AbstractContextManager[Line]:
    """One to the service on the port `upstream`, ended with the context."""
    return Line(upstream, least, most, seed=1).serving()

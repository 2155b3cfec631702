"""A server that passes all bytes on to a service, and keeps what the clients have sent."""

from __future__ import annotations

import http.client
import io
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from typing import cast

from tests.live.between import Between

_PIECE_BYTES = 64 << 10


class Overhearer(Between):
    """`sent` has the bytes of each connection, in the order in which they were made."""

    def __init__(self, upstream: int) -> None:
        super().__init__(_Passing, upstream)
        self.sent: list[bytearray] = []

    @property
    def asked(self) -> Message:
        """The header fields of the first request; there has to be one connection."""
        (sent,) = self.sent
        head, _, _ = sent.partition(b"\r\n\r\n")
        return http.client.parse_headers(io.BytesIO(head.partition(b"\r\n")[2] + b"\r\n\r\n"))


class _Passing(socketserver.BaseRequestHandler):
    """One connection of a client."""

    def handle(self) -> None:
        server = cast(Overhearer, self.server)
        client = cast(socket.socket, self.request)
        sent = bytearray()
        server.sent.append(sent)
        with socket.create_connection(("127.0.0.1", server.upstream)) as upstream:
            server.keep(client, upstream)
            try:
                self._pass(client, upstream, sent)
            except ConnectionError:  # one of the two has gone
                pass
            except Exception as fault:  # noqa: BLE001  # the test is told at its end
                server.faults.append(fault)
            finally:
                server.forget(client, upstream)

    def _pass(self, client: socket.socket, upstream: socket.socket, sent: bytearray) -> None:
        """Until one of the two ends the connection."""
        while True:
            readable, _, _ = select.select([client, upstream], [], [])
            for source, sink in ((client, upstream), (upstream, client)):
                if source in readable:
                    piece = source.recv(_PIECE_BYTES)
                    if not piece:
                        return
                    if source is client:
                        sent += piece
                    sink.sendall(piece)


@contextmanager
def overhearing(upstream: int) -> Iterator[Overhearer]:
    """One before the service on the port `upstream`, ended with the context."""
    with Overhearer(upstream) as overhearer:
        thread = threading.Thread(target=overhearer.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield overhearer
        finally:
            overhearer.end_all()
            overhearer.shutdown()
            thread.join()
    assert overhearer.faults == []

"""A server that passes all bytes on to a service, and keeps what the clients have sent."""

from __future__ import annotations

import http.client
import io
import select
import socket
import socketserver
from contextlib import AbstractContextManager
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


def overhearing(upstream: int) -> AbstractContextManager[Overhearer]:
    """One before the service on the port `upstream`, ended with the context."""
    return Overhearer(upstream).serving()

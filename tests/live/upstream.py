"""A server to import from: its targets name their content, by a seed and a size."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random


def content_of(seed: int, size: int) -> bytes:
    """The content at `/SEED/SIZE`."""
    return Random(seed).randbytes(size)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        content = content_of(*map(int, self.path.split("/")[1:3]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """The tests say what they did."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Services that are killed, or have no space left, break off."""


@contextmanager
def upstream() -> Iterator[int]:
    """The port of such a server, which runs as long as its context."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()

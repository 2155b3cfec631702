"""
The slow service that the servers under measurement fetch from: each answer takes 100 ms.

Usage: ``python bench/upstream.py --port N [--max-age S]``. What is below ``/hang/`` takes 10 s. It
says at ``/counts`` how many requests came, and how many were there at once at most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys

DELAY_S = 0.1
HANG_S = 10.0
CONTENT = b"x" * 1000


class Upstream(asyncio.Protocol):
    """A connection; requests without content, one after the other."""

    def __init__(self, counts: dict[str, int], head: bytes) -> None:
        self._counts = counts
        self._answer = head + CONTENT
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1]
            if target == b"/counts":
                content = json.dumps(self._counts).encode()
                length = b"Content-Length: %d\r\n\r\n" % len(content)
                self._transport.write(b"HTTP/1.1 200 OK\r\n" + length + content)
                continue
            counts = self._counts
            counts["requests"] += 1
            counts["now"] += 1
            counts["at once"] = max(counts["at once"], counts["now"])
            delay = HANG_S if target.startswith(b"/hang/") else DELAY_S
            asyncio.get_running_loop().call_later(delay, self._say)

    def _say(self) -> None:
        self._counts["now"] -= 1
        if not self._transport.is_closing():
            self._transport.write(self._answer)


async def _serve(port: int, max_age: int) -> None:
    fresh = b"Cache-Control: max-age=%d\r\n" % max_age if max_age else b""
    head = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (fresh, len(CONTENT))
    counts = {"requests": 0, "now": 0, "at once": 0}
    server = await asyncio.get_running_loop().create_server(
        lambda: Upstream(counts, head), "127.0.0.1", port, backlog=2048
    )
    await server.serve_forever()


def main() -> None:
    """Serve until the end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-age", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.port, arguments.max_age))


if __name__ == "__main__":
    main()

"""
A peer: a Tornado handler as a coroutine that fetches from a slow service, as tutorials have it.

Usage: ``python bench/peers/tornado_fetch.py --port N --upstream URL``.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time

from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler


class FetchHandler(RequestHandler):
    """Says what a fetch has cost in time."""

    def initialize(self, upstream: str) -> None:
        self.upstream = upstream

    async def get(self, path: str) -> None:
        begun = time.monotonic()
        response = await AsyncHTTPClient().fetch(self.upstream + path)
        self.write({"code": 200, "size": len(response.body), "time_cost": time.monotonic() - begun})


async def _serve(port: int, upstream: str) -> None:
    # As many at once as there are users; the default is 10.
    AsyncHTTPClient.configure(None, max_clients=2000)
    application = Application([(r"/fetch/(.*)", FetchHandler, {"upstream": upstream})])
    HTTPServer(application).listen(port, "127.0.0.1", backlog=2048)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until the end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.port, arguments.upstream))


if __name__ == "__main__":
    main()

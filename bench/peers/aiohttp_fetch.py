"""
A peer: an aiohttp handler that fetches from a slow service; its client keeps connections.

Usage: ``python bench/peers/aiohttp_fetch.py --port N --upstream URL``.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time

from aiohttp import ClientSession, TCPConnector, web


async def _serve(port: int, upstream: str) -> None:
    async with ClientSession(connector=TCPConnector(limit=0)) as session:

        async def fetch(request: web.Request) -> web.Response:
            begun = time.monotonic()
            async with session.get(upstream + request.match_info["path"]) as response:
                content = await response.read()
            cost = time.monotonic() - begun
            return web.json_response({"code": 200, "size": len(content), "time_cost": cost})

        application = web.Application()
        application.router.add_get("/fetch/{path:.*}", fetch)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
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

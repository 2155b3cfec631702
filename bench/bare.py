"""
One route that says hello, by each of the frameworks: what a request costs before anything is done.

Usage: ``python bench/bare.py media|klein|tornado|aiohttp --port N``. Of *media*, the Site of this
project, ``--heads=twisted`` reads heads as Twisted does, and ``--access-log FILE`` writes one.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from typing import Any

PATH = "/media/bench/hello"
HELLO = b"hello"


def serve_by_twisted(port: int, site: Any, started: Any = None) -> None:
    """Serve `site` until a signal comes."""
    from twisted.internet import reactor

    loop: Any = reactor
    loop.listenTCP(port, site, interface="127.0.0.1")
    if started is not None:
        loop.callWhenRunning(started)
    loop.run()


def klein_resource() -> Any:
    """The route, in Klein."""
    from klein import Klein

    app: Any = Klein()

    @app.route(PATH, methods=["GET"])
    def hello(request: Any) -> bytes:
        request.setHeader(b"content-length", b"%d" % len(HELLO))
        return HELLO

    return app.resource()


def media(port: int, heads: str, log: str | None) -> None:
    """Klein's route under the Site of this project."""
    from twisted.internet import reactor
    from twisted.web.http import HTTPChannel
    from zope.interface import alsoProvides

    from twistedmedia.http.body import IStreamsBody
    from twistedmedia.http.connection import MediaChannel
    from twistedmedia.http.request import StreamingRequest
    from twistedmedia.http.site import MediaSite
    from twistedmedia.logs.access_log import AccessLog

    class TwistedsHeads(MediaChannel):
        """Read line by line, by the base class."""

        dataReceived = HTTPChannel.dataReceived

        def checkPersistence(self, request: Any, version: bytes) -> bool:
            self.site.request_timeouts.settle(self)
            return bool(HTTPChannel.checkPersistence(self, request, version))

    resource = klein_resource()
    alsoProvides(resource, IStreamsBody)
    access_log = None if log is None else AccessLog(reactor, log)
    site = MediaSite(resource, access_log=access_log)
    if heads == "twisted":
        site.protocol = TwistedsHeads  # type: ignore[assignment]
        site.requestFactory = lambda channel, queued: StreamingRequest(channel)
    serve_by_twisted(port, site, access_log and access_log.open)


def klein(port: int) -> None:
    """Klein's route under a stock Site, without its access log."""
    from twisted.web.server import Site

    class Silent(Site):  # type: ignore[misc]
        def log(self, request: Any) -> None:
            """Nothing."""

    serve_by_twisted(port, Silent(klein_resource()))


def tornado(port: int) -> None:
    """A handler of Tornado's, without its access log."""
    from tornado.web import Application, RequestHandler

    class Hello(RequestHandler):  # type: ignore[misc]
        def get(self) -> None:
            self.write(HELLO)

    async def serve() -> None:
        Application([(PATH, Hello)], log_function=lambda handler: None).listen(port, "127.0.0.1")
        await _told_to_end()

    asyncio.run(serve())


def aiohttp(port: int) -> None:
    """A handler of aiohttp's, without its access log."""
    from aiohttp import web

    async def hello(request: web.Request) -> web.Response:
        return web.Response(body=HELLO)

    async def serve() -> None:
        app = web.Application()
        app.router.add_get(PATH, hello)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await _told_to_end()
        await runner.cleanup()

    asyncio.run(serve())


async def _told_to_end() -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()


def main() -> None:
    """Read the command line and serve until a signal comes."""
    parser = argparse.ArgumentParser(description="one route that says hello")
    parser.add_argument("framework", choices=("media", "klein", "tornado", "aiohttp"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--heads", choices=("ours", "twisted"), default="ours")
    parser.add_argument("--access-log")
    given = parser.parse_args()
    if given.framework == "media":
        media(given.port, given.heads, given.access_log)
    else:
        {"klein": klein, "tornado": tornado, "aiohttp": aiohttp}[given.framework](given.port)


if __name__ == "__main__":
    main()

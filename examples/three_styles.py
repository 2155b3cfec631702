"""The same page in three styles: it asks a slow service, and says what that has cost in time.

    python examples/three_styles.py UPSTREAM [PORT]

UPSTREAM is a URL that takes its time; what stands behind a style in the path is put behind it.

    /blocking/     waits for the answer in the event loop: everybody else waits, too
    /callbacks/    a Deferred: the loop goes on, the answer comes to a callback
    /coroutine/    the same, read from top to bottom

    siege -c100 -t10S http://127.0.0.1:8001/coroutine/

This compares styles. A service that fetches what strangers name needs more than that: see
`twistedmedia/fetch/`.
"""

from __future__ import annotations

import sys
import time
from urllib.request import urlopen

import treq
from klein import Klein
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IRequest
from twisted.web.server import Site


class ThreeStyles:
    """One handler, three times."""

    app = Klein()

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        pool = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = 1000  # Twisted keeps 2, and connects anew for all others
        self._client = treq.client.HTTPClient(Agent(reactor, pool=pool))

    @app.route("/blocking/", defaults={"path": ""}, methods=["GET"])
    @app.route("/blocking/<path:path>", methods=["GET"])
    def blocking(self, request: IRequest, path: str) -> str:
        """Nobody else is served while this waits."""
        begun = time.monotonic()
        with urlopen(self._upstream + path) as response:
            content = response.read()
        return page(begun, content)

    @app.route("/callbacks/", defaults={"path": ""}, methods=["GET"])
    @app.route("/callbacks/<path:path>", methods=["GET"])
    def callbacks(self, request: IRequest, path: str) -> Deferred[str]:
        """What is to be done with the answer is said before it is there."""
        begun = time.monotonic()
        asking = self._client.get(self._upstream + path)
        asking.addCallback(treq.content)
        asking.addCallback(lambda content: page(begun, content))
        return asking

    @app.route("/coroutine/", defaults={"path": ""}, methods=["GET"])
    @app.route("/coroutine/<path:path>", methods=["GET"])
    async def coroutine(self, request: IRequest, path: str) -> str:
        """What waits is this function, not the event loop."""
        begun = time.monotonic()
        response = await self._client.get(self._upstream + path)
        content = await treq.content(response)
        return page(begun, content)


def page(begun: float, content: bytes) -> str:
    """What a visitor sees."""
    return f"Time Cost: {time.monotonic() - begun:.4f} s for {len(content)} bytes\n"


def main() -> None:
    """Serve until the end."""
    if not 2 <= len(sys.argv) <= 3:
        raise SystemExit(__doc__)
    upstream, port = sys.argv[1], int((sys.argv[2:] or ["8001"])[0])
    site = Site(ThreeStyles(upstream).app.resource())
    reactor.listenTCP(port, site, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()

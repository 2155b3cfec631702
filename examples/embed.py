"""The media tree beside the resources of an application of one's own, in one Site.

    python examples/embed.py [ROOT [PORT]]

The application answers /hello; its media are under /voice, and every URL in an answer begins there.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.python.log import startLogging
from twisted.web.resource import Resource

from twistedmedia import DirectoryStore, Intake, Limits, media_resource, media_site

GRACE_S = 10.0


class Hello(Resource):
    """Something of the application's."""

    isLeaf = True

    def render_GET(self, request: object) -> bytes:
        return b"Recordings are under /voice/media/.\n"


def serve(reactor: Any, root: str, port: int) -> None:
    """Listen, and keep the store open until the reactor stops."""
    store = DirectoryStore(reactor, root)
    intake = Intake(store, Limits(formats=frozenset({"mp3", "wav", "ogg"})))
    tree = Resource()
    tree.putChild(b"hello", Hello())
    tree.putChild(b"voice", media_resource(intake))
    site = media_site(tree, reactor)
    store.start()  # makes and locks the root; starts the threads
    listening = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1").listen(site)

    async def stop() -> None:
        """Nobody new, the end of what is under way, then the store."""
        await (await listening).stopListening()
        await site.close().addTimeout(GRACE_S, reactor, lambda *_: site.disconnect())
        await intake.quiet()
        await store.stop()

    def stopped() -> Deferred[None]:
        return ensureDeferred(stop())

    reactor.addSystemEventTrigger("before", "shutdown", stopped)


def main() -> None:
    """Serve until a signal comes."""
    root = sys.argv[1] if len(sys.argv) > 1 else "./media"
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8000
    startLogging(sys.stdout)
    serve(reactor, root, port)
    reactor.run()  # type: ignore[attr-defined]  # which reactor it is, types cannot tell


if __name__ == "__main__":
    main()

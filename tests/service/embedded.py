"""A program that has resources of its own and mounts the media tree among them.

python embedded.py {MediaSite,Site} ROOT [PREFIX]
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.python.log import startLogging
from twisted.web.resource import Resource
from twisted.web.server import Site

from twistedmedia import DirectoryStore, Intake, MediaSite, media_resource
from twistedmedia.arrival import Limits


class Echo(Resource):
    """A resource as any other: it is rendered when all of the content is there."""

    isLeaf = True

    def render_POST(self, request):  # type: ignore[no-untyped-def]
        content = request.content.read()
        return repr((len(content), sorted(request.args))).encode()

    def render_GET(self, request):  # type: ignore[no-untyped-def]
        return b"of its own"


def main(kind: str, folder: str, prefix: str = "api") -> None:
    """Serve until the end."""
    store = DirectoryStore(reactor, folder)
    root = at = Resource()
    root.putChild(b"echo", Echo())
    *parents, last = prefix.encode().split(b"/")
    for parent in parents:
        child = Resource()
        at.putChild(parent, child)
        at = child
    at.putChild(last, media_resource(Intake(store, Limits())))
    startLogging(sys.stdout, setStdout=False)
    reactor.callWhenRunning(store.start)
    reactor.addSystemEventTrigger("after", "shutdown", print, "Server Shut Down.")
    site = {"MediaSite": MediaSite, "Site": Site}[kind](root)
    reactor.listenTCP(0, site, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A program that has resources of its own and mounts the media tree among them.

`python embedded.py --help` says how. Beside its port it can listen on others, for the same tree.
"""

from __future__ import annotations

import argparse
import sys

from twisted.internet import reactor
from twisted.internet.ssl import KeyPair
from twisted.python.log import startLogging
from twisted.web.resource import Resource
from twisted.web.server import Site

from twistedmedia import DirectoryStore, Library, MediaSite, media_resource
from twistedmedia.http.timeouts import Timeouts
from twistedmedia.library.upload_limits import UploadLimits


class Echo(Resource):
    """A resource as any other: it is rendered when all of the content is there."""

    isLeaf = True

    def render_POST(self, request):  # type: ignore[no-untyped-def]
        content = request.content.read()
        return repr((len(content), sorted(request.args))).encode()

    def render_GET(self, request):  # type: ignore[no-untyped-def]
        return b"of its own"


def main() -> None:
    """Serve until the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("site", choices=("MediaSite", "Site"))
    parser.add_argument("root")
    parser.add_argument("prefix", nargs="?", default="api")
    parser.add_argument("--stall", type=float, help="how long a reader may take nothing, in s")
    parser.add_argument("--tls", action="store_true", help="listen on a port with TLS, too")
    parser.add_argument("--unix", help="the path of a UNIX socket to listen on, too")
    options = parser.parse_args()

    store = DirectoryStore(reactor, options.root)
    root = at = Resource()
    root.putChild(b"echo", Echo())
    *parents, last = options.prefix.encode().split(b"/")
    for parent in parents:
        child = Resource()
        at.putChild(parent, child)
        at = child
    at.putChild(last, media_resource(Library(store, UploadLimits())))
    startLogging(sys.stdout, setStdout=False)
    reactor.callWhenRunning(store.start)
    reactor.addSystemEventTrigger("after", "shutdown", print, "Server Shut Down.")
    timeouts = {} if options.stall is None else {"timeouts": Timeouts(stall_s=options.stall)}
    site = {"MediaSite": MediaSite, "Site": Site}[options.site](root, **timeouts)
    reactor.listenTCP(0, site, interface="127.0.0.1")
    if options.tls:
        certificate = KeyPair.generate().selfSignedCert(1, CN="localhost")
        reactor.listenSSL(0, site, certificate.options(), interface="127.0.0.1")
    if options.unix:
        reactor.listenUNIX(options.unix, site)
    reactor.run()


if __name__ == "__main__":
    main()

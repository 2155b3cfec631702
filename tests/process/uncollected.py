"""A service whose garbage collector never runs by itself. It says what the collector would free.

`GET /garbage` runs the collector and answers with JSON: how many objects of which type it found,
and how many bytes of content they hold. What is counted there was part of a reference cycle, or
reachable from one.
"""

from __future__ import annotations

import gc
import json
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

from twisted.internet import reactor
from twisted.internet.ssl import KeyPair
from twisted.python.log import startLogging
from twisted.web.resource import Resource

from twistedmedia import DirectoryStore, Library, MediaSite, media_resource
from twistedmedia.fetch.certificates import CertificateVerifier
from twistedmedia.fetch.fetcher import Fetcher, FetchLimits
from twistedmedia.fetch.policy import Policy, parse_allow_rule
from twistedmedia.fetch.resolver import Resolver
from twistedmedia.http.body import BodyMemory
from twistedmedia.library.importing import Fetches
from twistedmedia.library.resumable import ResumableUploads
from twistedmedia.library.upload_limits import UploadLimits

_CONTENT_BYTES = 2048  # names, headers and the like are smaller


class Garbage(Resource):
    """What the collector finds."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        answer = _described(gc.garbage)
        gc.garbage.clear()
        gc.collect()
        return json.dumps(answer).encode()


def _described(found: Iterable[object]) -> dict[str, Any]:
    types = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in found)
    content = {
        id(held): len(held)
        for each in found
        for held in gc.get_referents(each)
        if isinstance(held, bytes | bytearray) and len(held) >= _CONTENT_BYTES
    }
    return {"objects": types, "bytes": sum(content.values())}


def main() -> None:
    """Serve the root that the command line names, by TCP and by TLS."""
    store = DirectoryStore(reactor, sys.argv[1])
    fetcher = Fetcher(
        reactor,
        resolver=Resolver(reactor),
        verifier=CertificateVerifier(),
        policy=Policy((parse_allow_rule("127.0.0.1"),)),
        connections=100,
        memory=BodyMemory(),
    )
    fetches = Fetches(
        fetcher, fetch_limits=FetchLimits(5, 5, 64 << 20), import_limits=FetchLimits(10, 5)
    )
    library = Library(store, UploadLimits(), fetches=fetches)
    uploads = ResumableUploads(library, store.resumable)
    root = Resource()
    root.putChild(b"garbage", Garbage())
    root.putChild(b"api", media_resource(library, uploads=uploads))
    startLogging(sys.stdout, setStdout=False)

    def start() -> None:
        store.start()
        uploads.start(reactor)
        gc.collect()
        gc.freeze()
        gc.disable()

    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("after", "shutdown", print, "Server Shut Down.")
    site = MediaSite(root)
    reactor.listenTCP(0, site, interface="127.0.0.1")
    certificate = KeyPair.generate().selfSignedCert(1, CN="localhost")
    reactor.listenSSL(0, site, certificate.options(), interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()

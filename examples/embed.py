"""The media tree beside the resources of an application of one's own, in one Site.

    python examples/embed.py [ROOT [PORT]]

The application answers /hello; its media are under /voice, and every URL in an answer begins there.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.task import react
from twisted.python.log import startLogging
from twisted.web.resource import Resource

from twistedmedia import (
    BodyMemory,
    CertificateVerifier,
    ConfigurationError,
    DirectoryStore,
    Fetcher,
    Fetches,
    FetchLimits,
    Library,
    MediaSite,
    Policy,
    Resolver,
    ResumableUploads,
    UploadLimits,
    media_resource,
    use_monotonic_time,
)

GRACE_S = 10.0


class Hello(Resource):
    """Something of the application's."""

    isLeaf = True

    def render_GET(self, request: object) -> bytes:
        return b"Recordings are under /voice/media/.\n"


async def serve(reactor: Any, root: str, port: int) -> None:
    """Make the parts, start them, and stop them in the opposite order when the reactor stops."""
    store = DirectoryStore(reactor, root)
    fetcher = Fetcher(
        reactor,
        resolver=Resolver(reactor),
        trust=CertificateVerifier(),
        policy=Policy(),  # public addresses only
        connections=100,
        memory=BodyMemory(),
    )
    fetches = Fetches(
        fetcher, asking=FetchLimits(30, 30, 64 << 20), importing=FetchLimits(3600, 30)
    )
    limits = UploadLimits(formats=frozenset({"mp3", "wav", "ogg"}))
    library = Library(store, limits, reactor, fetches=fetches)
    uploads = ResumableUploads(library, store.resumable)  # those that may go over many requests
    tree = Resource()
    tree.putChild(b"hello", Hello())
    tree.putChild(b"voice", media_resource(library, uploads=uploads))
    site = MediaSite(tree, reactor)
    endpoint = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")

    told_to_stop: Deferred[None] = Deferred()
    stopped: Deferred[None] = Deferred()

    def shutdown() -> Deferred[None]:
        told_to_stop.callback(None)
        return stopped

    async with AsyncExitStack() as stopping:  # all of it, whatever part of it fails
        stopping.callback(stopped.callback, None)
        store.start()  # makes and locks the root, starts the threads
        stopping.push_async_callback(store.stop)
        stopping.push_async_callback(library.drain)
        uploads.start(reactor)  # sweeps expired ones from now on
        stopping.callback(uploads.stop)
        stopping.push_async_callback(fetcher.close)
        listening = await endpoint.listen(site)
        stopping.push_async_callback(dismiss, reactor, site)
        stopping.push_async_callback(maybeDeferred, listening.stopListening)
        reactor.addSystemEventTrigger("before", "shutdown", shutdown)
        await told_to_stop


async def dismiss(reactor: Any, site: MediaSite) -> None:
    """Let the requests under way end, but not for ever."""
    await site.close().addTimeout(GRACE_S, reactor, lambda *_: site.disconnect())


async def main(reactor: Any, root: str = "./media", port: str = "8000") -> None:
    """Serve until a signal comes. What keeps it from that ends the program, with status 1."""
    use_monotonic_time(reactor)  # a step of the wall clock moves no timer
    startLogging(sys.stdout, setStdout=False)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise SystemExit(f"{port!r} is not a port: it must be a number from 0 to 65535")
    try:
        await serve(reactor, root, int(port))
    except (CannotListenError, ConfigurationError) as error:
        raise SystemExit(f"cannot start: {error}") from None


if __name__ == "__main__":
    react(main, sys.argv[1:])

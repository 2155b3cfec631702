"""The route that says how the service is."""

from __future__ import annotations

import os
import resource
import threading
import time

from klein import Klein
from twisted.web.server import Request

from twistedmedia import __version__
from twistedmedia.answers import OK, Answer
from twistedmedia.boundaries import FiniteStore
from twistedmedia.intake import Intake
from twistedmedia.web.answering import respond
from twistedmedia.web.routing import Reply, add_route
from twistedmedia.wire.site import MediaSite

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Health:
    """`GET` and `HEAD` of `/health`."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._begun_s = time.monotonic()

    def add_to(self, app: Klein) -> None:
        """Add the route."""
        add_route(app, "/health", ["GET"], self.tell)

    async def tell(self, request: Request) -> Reply:
        """What an operator asks first. Never from a cache."""
        store = self._intake.store
        free = await store.free() if isinstance(store, FiniteStore) else None
        site = request.site
        payload = {
            **OK,
            "version": __version__,
            "uptime": round(time.monotonic() - self._begun_s, 3),
            "uploads": self._intake.uploads,
            "free": free,
            "connections": len(site.channels) if isinstance(site, MediaSite) else None,
            **_used(),
        }
        return respond(Answer(200, payload, {"Cache-Control": "no-store"}))


def _used() -> dict[str, object]:
    """What the process uses."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open("/proc/self/statm", encoding="ascii") as statm:
        resident = int(statm.read().split()[1]) * _PAGE_BYTES
    return {
        "descriptors": {"open": _open_descriptors(), "limit": limit},
        "memory": {"resident": resident},
        "cpu": round(usage.ru_utime + usage.ru_stime, 3),
        "threads": threading.active_count(),
    }


def _open_descriptors() -> int:
    """Linux counts them since 6.2; before, a list has to be made."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1

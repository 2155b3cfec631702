"""The route that says how the service is."""

from __future__ import annotations

import os
import resource
import threading
import time
from contextlib import suppress

from klein import Klein
from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from twistedmedia import __version__
from twistedmedia.answers import OK, Answer
from twistedmedia.boundaries import FiniteStore
from twistedmedia.intake import Intake
from twistedmedia.web.answering import respond
from twistedmedia.web.routing import Reply, add_route
from twistedmedia.wire.site import MediaSite

_ANSWERS_S = 0.5
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Health:
    """`GET` and `HEAD` of `/health`."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._begun_s = time.monotonic()
        self._free: int | None = None  # when it was asked last

    def add_to(self, app: Klein) -> None:
        """Add the route."""
        add_route(app, "/health", ["GET"], self.tell)

    async def tell(self, request: Request) -> Reply:
        """What an operator asks first. Never from a cache."""
        store = self._intake.store
        if isinstance(store, FiniteStore):
            assert request.site is not None, "it is being rendered"
            await self._look_how_much_is_free(store, request.site.reactor)
        site = request.site
        payload = {
            **OK,
            "version": __version__,
            "uptime": round(time.monotonic() - self._begun_s, 3),
            "uploads": self._intake.uploads,
            "free": self._free,
            "connections": len(site.channels) if isinstance(site, MediaSite) else None,
            **_used(),
        }
        return respond(Answer(200, payload, {"Cache-Control": "no-store"}))

    async def _look_how_much_is_free(self, store: FiniteStore, reactor: IReactorTime) -> None:
        # On a disk that hangs, or is busy, what was known before has to do.
        with suppress(TimeoutError):
            self._free = await store.free().addTimeout(_ANSWERS_S, reactor)


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

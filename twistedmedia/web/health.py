"""Routes that report the health of the service, and whether it accepts requests."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable

from klein import Klein
from twisted.internet.defer import TimeoutError
from twisted.web.server import Request

from twistedmedia import __version__
from twistedmedia.errors import RETRY_AFTER_S, Stopping, StorageFailed
from twistedmedia.fairness.shares import Shares
from twistedmedia.http.site import MediaSite
from twistedmedia.json_response import OK, Response, json_response
from twistedmedia.library.library import Library
from twistedmedia.store.interface import StorageState
from twistedmedia.web.routing import add_route

# The usual timeout of a health check is a second.
_STORAGE_TIMEOUT_S = 0.5
_TIMED_OUT = f"it does not respond within {_STORAGE_TIMEOUT_S:g} s"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class HealthRoutes:
    """`GET` and `HEAD` of `/health`, for people, and of `/ready`, for load balancers."""

    def __init__(
        self,
        library: Library,
        responses: Shares,
        dropped_events: Callable[[], int],
    ) -> None:
        """`responses` are the shares of the memory of responses. `dropped_events` returns how
        many events could not be logged.
        """
        self._library = library
        self._responses = responses
        self._dropped_events = dropped_events
        self._started_s = time.monotonic()
        self._free: int | None = None  # bytes, when the storage responded last

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        add_route(app, "/health", ["GET"], self.health)
        add_route(app, "/ready", ["GET"], self.ready)

    async def health(self, request: Request) -> Response:
        """Report the state of the service. The response is not cached."""
        storage = await self._storage_state(request)
        failure = storage.cannot_read or storage.cannot_write
        site = request.site
        payload = {
            **OK,
            "version": __version__,
            "uptime": round(time.monotonic() - self._started_s, 3),
            "uploads": self._library.upload_slots.used,
            "storage": "ok" if failure is None else failure.reason,
            "free": storage.free,
            "connections": len(site.channels) if isinstance(site, MediaSite) else None,
            "shares": self._shares(site),
            "log": {"dropped": self._dropped_events()},
            **_process_usage(),
        }
        return json_response(200, payload, {"Cache-Control": "no-store"})

    async def ready(self, request: Request) -> Response:
        """Respond with 200 if the service accepts requests. The response is not cached.

        :raises Stopping: if the service is stopping.
        :raises StorageFailed: if the storage cannot be read.
        """
        if isinstance(request.site, MediaSite) and request.site.is_closing:
            raise Stopping(RETRY_AFTER_S)
        storage = await self._storage_state(request)
        if storage.cannot_read is not None:
            raise storage.cannot_read
        return json_response(200, OK, {"Cache-Control": "no-store"})

    def _shares(self, site: object) -> dict[str, dict[str, int]]:
        """How much of each limited resource is used, and by how many callers."""
        shares = {
            "uploads": self._library.upload_slots.figures,
            "imports": self._library.import_slots.figures,
            "descriptors": self._library.form_files.figures,
            "responses": self._responses.figures,
        }
        if self._library.fetches is not None:
            shares["fetches"] = self._library.fetches.fetcher.slots.figures
        if isinstance(site, MediaSite):
            shares["connections"] = site.admission.shares.figures
        reserved = self._library.reserved
        if reserved is not None:
            # Without a total, since `free` is the rest, if the storage knows it.
            shares["space"] = {
                "used": reserved.size,
                "callers": reserved.callers,
                "largest": reserved.largest,
            }
        return shares

    async def _storage_state(self, request: Request) -> StorageState:
        assert request.site is not None, "it is being rendered"
        try:
            pending = self._library.storage_state()
            state = await pending.addTimeout(_STORAGE_TIMEOUT_S, request.site.reactor)
        except TimeoutError:
            return StorageState(self._free, cannot_read=StorageFailed("read", _TIMED_OUT))
        self._free = state.free
        return state


def _process_usage() -> dict[str, object]:
    """The resources that the process uses."""
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
    """Count open descriptors: directly since Linux 6.2, before by a listing."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1

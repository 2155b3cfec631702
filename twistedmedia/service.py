"""The service: what starts and stops, in which order."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger

from twistedmedia.errors import ConfigurationError
from twistedmedia.fetching.fetcher import Fetcher
from twistedmedia.intake import Intake
from twistedmedia.store.directory import DirectoryStore
from twistedmedia.wire.site import MediaSite

# How long the loop waits for a thread that computes (a large urlencoded form is decoded in one);
# Python's own 5 ms is long beside an answer, and leaves the writers waiting for their next batch.
_SWITCH_INTERVAL_S = 0.001
_DESCRIPTORS = 65536  # 64 forms of 256 files, and 49,000 connections


class CannotStart(SystemExit, Exception):
    """Ends the start with status 1. It is both because twistd shows a traceback for whatever is no
    SystemExit, and lets a daemon's parent wait for ever on whatever is no Exception.
    """

    def __init__(self, why: str) -> None:
        """`why` is what a daemon's parent says; the log has it already."""
        super().__init__(why)
        self.code = 1


class MediaService(Service):
    """Listens, and keeps a directory store open while it does.

    Ports are bound before privileges are dropped and the process turns into a daemon's child;
    threads, locks and descriptors begin after.
    """

    _log = Logger()

    def __init__(
        self,
        endpoints: Sequence[IStreamServerEndpoint],
        site: MediaSite,
        intake: Intake,
        store: DirectoryStore,
        fetcher: Fetcher | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._site = site
        self._intake = intake
        self._store = store
        self._fetcher = fetcher
        self._ports: list[IListeningPort] = []

    def privilegedStartService(self) -> None:
        """Bind the ports.

        :raises CannotStart: when one cannot be bound.
        """
        super().privilegedStartService()
        for endpoint in self._endpoints:
            outcome: list[Any] = []
            endpoint.listen(self._site).addBoth(outcome.append)
            failure = outcome[0]
            if IListeningPort.providedBy(failure):
                self._ports.append(failure)
            elif failure.check(CannotListenError):
                self._refuse(f"--port: {failure.value}")
            else:
                failure.raiseException()

    def startService(self) -> None:
        """Open the store.

        :raises CannotStart: when it cannot be used.
        """
        super().startService()
        _raise_descriptor_limit()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        try:
            self._store.start()
        except ConfigurationError as error:
            self._refuse(f"--root: {error}")
        self._log.info("serving {root!r}", root=self._store.root)

    def stopService(self) -> Deferred[None]:
        """Close the ports, cut the connections, finish what is being published, close the store."""
        super().stopService()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        ports, self._ports = self._ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)
        await self._site.disconnect()
        if self._fetcher is not None:
            await self._fetcher.close()
        await self._intake.quiet()
        await self._store.stop()

    def _refuse(self, why: str) -> None:
        self._log.critical("cannot start: {why}", why=why)
        raise CannotStart(f"twistedmedia cannot start: {why}")


def _raise_descriptor_limit() -> None:
    """Every connection, and every file of a form in progress, is a descriptor; the usual soft limit
    of 1,024 is there for programs that use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

"""The service: what starts and stops, in which order."""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.endpoints import url_of, why_not
from twistedmedia.errors import ConfigurationError
from twistedmedia.fetching.fetcher import Fetcher
from twistedmedia.intake import Intake
from twistedmedia.notifying import Notifier
from twistedmedia.resuming import Uploads
from twistedmedia.signals import Signals, ignore_hang_up
from twistedmedia.store.directory import DirectoryStore
from twistedmedia.wire.access_log import AccessLog
from twistedmedia.wire.site import MediaSite

# How long the loop waits for a thread that computes (a large urlencoded form is decoded in one);
# Python's own 5 ms is long beside an answer, and leaves the writers waiting for their next batch.
_SWITCH_INTERVAL_S = 0.001
_DESCRIPTORS = 65536  # 64 forms of 256 files, and 49,000 connections


@dataclass(frozen=True, slots=True)
class Listening:
    """An endpoint, and the option that it comes from. Where it is not `is_open` only this machine
    may reach it.
    """

    endpoint: IStreamServerEndpoint
    option: str
    is_open: bool


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
        reactor: Any,
        endpoints: Sequence[Listening],
        site: MediaSite,
        intake: Intake,
        store: DirectoryStore,
        *,
        uploads: Uploads | None = None,
        fetcher: Fetcher | None = None,
        access_log: AccessLog | None = None,
        grace_s: float = 30.0,
        open_to: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Requests in progress have `grace_s` to end when the service stops. `open_to` says what
        anybody who can connect may do, if that is to be warned of. `variables` maps the options
        that come from the environment to the names of their variables, for messages.
        """
        self._reactor = reactor
        self._endpoints = endpoints
        self._site = site
        self._intake = intake
        self._store = store
        self._uploads = uploads
        self._fetcher = fetcher
        self._access_log = access_log
        self._grace_s = grace_s
        self._open_to = open_to
        self._variables = variables or {}
        self._ports: list[Any] = []
        self._notifier = Notifier(reactor)
        self._signals = Signals(reactor, self._hurry, self._reopen)

    def privilegedStartService(self) -> None:
        """Bind the ports.

        :raises CannotStart: when one cannot be bound.
        """
        super().privilegedStartService()
        self._listen()

    def _listen(self) -> None:
        ignore_hang_up()  # before anybody can think that the service runs
        for listening in self._endpoints:
            outcome: list[Any] = []
            listening.endpoint.listen(self._site).addBoth(outcome.append)
            port = outcome[0] if outcome else Failure(ValueError("this kind takes too long"))
            if isinstance(port, Failure):
                self._refuse(listening.option, why_not(port.value))
            if not IListeningPort.providedBy(port):
                self._refuse(listening.option, "nothing listens on such an endpoint")
            self._ports.append(port)
            if not _is_of_its_family(port):
                self._refuse(listening.option, "the socket handed over is of another domain")
            host = getattr(port.getHost(), "host", None)
            if host is not None and not (listening.is_open or ip_address(host).is_loopback):
                self._refuse(
                    listening.option,
                    f"{host} can be reached from elsewhere, and there is no authentication; "
                    "say --open to let everybody in",
                )

    def startService(self) -> None:
        """Open the store and the access log.

        :raises CannotStart: when one of them cannot be used.
        """
        super().startService()
        if not self._ports:  # `twist`, unlike `twistd`, calls no privilegedStartService
            self._listen()
        _raise_descriptor_limit()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        try:
            self._store.start()
        except ConfigurationError as error:
            self._refuse("--root", str(error))
        if self._access_log is not None:
            try:
                self._access_log.open()
            except ConfigurationError as error:
                self._refuse("--access-log", str(error))
        if self._uploads is not None:
            self._uploads.start(self._reactor)
        for port in self._ports:
            self._log.info("listening on {url}", url=url_of(port))
        self._log.info("serving {root!r}", root=self._store.root)
        if self._open_to:
            self._log.warn("--open: anybody who can connect may {may}", may=self._open_to)
        self._reactor.callWhenRunning(self._signals.install)
        self._reactor.callWhenRunning(self._notifier.ready)

    def stopService(self) -> Deferred[None]:
        """Close the ports, let requests in progress end, cut those that do not in time, finish what
        is being published, close the store.
        """
        super().stopService()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        self._notifier.stopping()
        ports, self._ports = self._ports, []
        steps: list[Callable[[], Any]] = [port.stopListening for port in ports]
        steps.append(lambda: ensureDeferred(self._dismiss()))
        if self._uploads is not None:
            steps.append(self._uploads.stop)
        if self._fetcher is not None:
            fetcher = self._fetcher
            steps.append(lambda: ensureDeferred(fetcher.close()))
        steps += [self._intake.quiet, lambda: ensureDeferred(self._store.stop())]
        if self._access_log is not None:
            steps.append(self._access_log.close)
        for step in steps:  # whatever becomes of one, the others are taken
            try:
                await maybeDeferred(step)
            except Exception:  # noqa: BLE001
                self._log.failure("a step of stopping has failed")
        self._notifier.stopped()

    async def _dismiss(self) -> None:
        """Wait for the last connection to be gone."""
        closed = self._site.close()
        patience = self._reactor.callLater(self._grace_s, self._hurry)
        self._log.info(
            "stopping: {count} connections have {grace_s:g} s",
            count=len(self._site.channels),
            grace_s=self._grace_s,
        )
        await closed
        if patience.active():
            patience.cancel()

    def _hurry(self) -> None:
        """Grace is over, or a second signal has come."""
        if self._site.channels:
            self._log.warn("cutting {count} connections", count=len(self._site.channels))
        self._site.disconnect()

    def _reopen(self) -> None:
        if self._access_log is not None:
            self._access_log.reopen()

    def _refuse(self, option: str, why: str) -> NoReturn:
        for port in self._ports:  # no reactor runs that would close them
            port.connectionLost(Failure(ConnectionDone()))
        variable = self._variables.get(option.removeprefix("--"))
        why = f"{option}: {why}" + (f" (set by {variable})" if variable else "")
        self._log.critical("cannot start: {why}", why=why)
        raise CannotStart(why)


def _is_of_its_family(port: Any) -> bool:
    """Whether a socket that was handed over is what the endpoint takes it for: else the addresses
    of its peers would be noise.
    """
    handed_over = getattr(port, "socket", None)
    if handed_over is None:
        return True
    domain = handed_over.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    return bool(domain == handed_over.family)


def _raise_descriptor_limit() -> None:
    """Every connection, and every file of a form in progress, is a descriptor; the usual soft limit
    of 1,024 is there for programs that use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

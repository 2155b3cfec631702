"""The service: what starts and stops, in which order."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.errors import ConfigurationError
from twistedmedia.fairness import descriptors
from twistedmedia.fetch.fetcher import Fetcher
from twistedmedia.http.site import MediaSite
from twistedmedia.http.transport import decrypt_in_turns
from twistedmedia.library.library import Library
from twistedmedia.library.resumable import ResumableUploads
from twistedmedia.logs.access_log import AccessLog
from twistedmedia.logs.event_log import EventLog
from twistedmedia.service.endpoints import put_turnstile, url_of, why_not
from twistedmedia.service.process import HeapTrimmer, find_heap, set_switch_interval
from twistedmedia.service.signals import Signals, ignore_deadly
from twistedmedia.service.stopping import Step, take_steps
from twistedmedia.service.systemd import SystemdNotifier
from twistedmedia.store.local.directory import DirectoryStore

# What the steps of stopping may take besides the grace: 10 s together. A healthy disk takes
# milliseconds.
_AT_ONCE_S = 0.5  # for what waits for no client and no disk
_CUT_S = 1.0  # thousands of connections are cut in one turn of the loop
_PUBLISH_S = 5.0  # for publishes, and for the bytes of resumable uploads
_DISK_S = 1.0  # for jobs whose result nobody needs
_ACCESS_LOG_S = 1.0  # it gives up by itself, after LAST_WAIT_S
# What the process may take after the steps: its last events are written, for LAST_WAIT_S at most,
# and a loop that is busy is late.
_END_S = 2.0
# Forms share a quarter of all descriptors: so each can have 16 files open.
_DESCRIPTORS_AN_UPLOAD = 64


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

    Ports are bound before privileges are dropped. Threads, locks and other descriptors begin after
    that, but for the thread of the event log, which begins first.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoints: Sequence[Listening],
        site: MediaSite,
        library: Library,
        store: DirectoryStore,
        *,
        uploads: ResumableUploads | None = None,
        fetcher: Fetcher | None = None,
        access_log: AccessLog | None = None,
        event_log: EventLog | None = None,
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
        self._library = library
        self._store = store
        self._uploads = uploads
        self._fetcher = fetcher
        self._access_log = access_log
        self._event_log = event_log
        self._grace_s = grace_s
        self._open_to = open_to
        self._variables = variables or {}
        self._ports: list[Any] = []
        self._notifier = SystemdNotifier(reactor)
        self._trimming = HeapTrimmer(reactor, find_heap())
        self._signals = Signals(reactor, self._hurry, self._reopen)

    def privilegedStartService(self) -> None:
        """Bind the ports.

        :raises CannotStart: when one cannot be bound.
        """
        super().privilegedStartService()
        if self._event_log is not None:
            # All that is logged from here on. `twistd` has installed its observers, and has forked.
            self._event_log.open()
        self._listen()

    def _listen(self) -> None:
        ignore_deadly()  # before anybody can think that the service runs
        for listening in self._endpoints:
            outcome: list[Any] = []
            listening.endpoint.listen(self._site).addBoth(outcome.append)
            port = outcome[0] if outcome else Failure(ValueError("this kind takes too long"))
            if isinstance(port, Failure):
                self._refuse(listening.option, why_not(port.value))
            if not IListeningPort.providedBy(port):
                self._refuse(listening.option, "nothing listens on such an endpoint")
            self._ports.append(port)
            decrypt_in_turns(port, self._site.queue)
            put_turnstile(port, self._site.turns_away)
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
            if self._event_log is not None:  # `twist` installs its observers later
                self._reactor.callWhenRunning(self._event_log.open)
        set_switch_interval(is_backlog=False)
        try:
            self._store.start(sweep_later=True)
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
        self._prepare_descriptors()
        if self._open_to:
            self._log.warn("--open: anybody who can connect may {may}", may=self._open_to)
        if self._event_log is not None:
            self._event_log.settle()  # who has started a daemon finds in its log how it began
            # `twistd` logs after the shutdown.
            self._reactor.addSystemEventTrigger("after", "shutdown", self._event_log.close)
        self._trimming.start()
        self._reactor.callWhenRunning(self._signals.install)
        self._reactor.callWhenRunning(self._notifier.ready)

    def _prepare_descriptors(self) -> None:
        """Raise the limit of descriptors, and divide them. Warn if they are few."""
        uploads = self._library.limits.max_uploads
        admission = self._site.admission
        wanted = max(uploads * _DESCRIPTORS_AN_UPLOAD, admission.wanted.descriptors)
        descriptors.raise_limit(wanted)
        self._library.on_descriptor_limit()
        admission.divide_descriptors()
        limit = descriptors.limit()
        if limit is not None and limit < wanted:
            self._log.warn(
                "the limit of {limit} open files is low for --max-uploads {uploads} and "
                "--max-connections {connections}, which want {wanted}: there are at most {total} "
                "connections, and {per_address} from one address; all forms together keep at most "
                "{files} files open; raise the limit (LimitNOFILE= in a unit of systemd, ulimit -n "
                "in a shell), or lower these options",
                limit=limit,
                uploads=uploads,
                connections=admission.wanted.connections,
                wanted=wanted,
                total=admission.bounds.connections,
                per_address=admission.bounds.per_address,
                files=self._library.form_files.total,
            )

    def stopService(self) -> Deferred[None]:
        """Close the ports, let requests in progress end, cut those that do not in time, finish what
        is being published, close the store. Each of these has a deadline: the Deferred fires at
        most 10 s after the grace.
        """
        super().stopService()
        self._trimming.stop()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        steps = self._steps()
        self._notifier.stopping(sum(step.limit_s for step in steps) + _END_S)
        await take_steps(self._reactor, steps)
        self._notifier.stopped()

    def _steps(self) -> list[Step]:
        site, library, store = self._site, self._library, self._store
        ports, self._ports = self._ports, []
        steps = [
            Step("closing the ports", lambda: _close(ports), _AT_ONCE_S),
            Step(
                "ending the connections",
                self._dismiss,
                self._grace_s + _CUT_S,
                lambda: [f"{len(site.channels)} connections"],
            ),
        ]
        if self._uploads is not None:
            steps.append(Step("ending the sweeps", self._uploads.stop, _AT_ONCE_S))
        if self._fetcher is not None:
            fetcher = self._fetcher
            steps.append(
                Step(
                    "ending the fetches",
                    fetcher.close,
                    _AT_ONCE_S,
                    lambda: [f"{fetcher.fetches} fetches", "idle connections to upstreams"],
                )
            )
        steps += [
            Step(
                "finishing uploads and publishes",
                self._finish,
                _PUBLISH_S,
                lambda: [*library.running, *store.jobs],
            ),
            Step("ending the disk threads", store.stop, _DISK_S, lambda: store.jobs),
        ]
        if self._access_log is not None:
            steps.append(Step("closing the access log", self._access_log.close, _ACCESS_LOG_S))
        return steps

    async def _dismiss(self) -> None:
        """Wait for the last connection to be gone."""
        closed = self._site.close()
        timeouts = self._reactor.callLater(self._grace_s, self._hurry)
        self._log.info(
            "stopping: {count} connections have {grace_s:g} s",
            count=len(self._site.channels),
            grace_s=self._grace_s,
        )
        await closed
        if timeouts.active():
            timeouts.cancel()

    def _finish(self) -> Deferred[None]:
        """No client is left: end what only clients wait for, and wait for the rest."""
        self._store.hurry()
        self._library.stop_publishing()
        return self._library.drain()

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
        if self._event_log is not None:
            self._event_log.settle()  # who has started a daemon finds the reason in its log
        raise CannotStart(why)


def _close(ports: Sequence[Any]) -> Deferred[Any]:
    return gatherResults([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)


def _is_of_its_family(port: Any) -> bool:
    """Whether a socket that was handed over is what the endpoint takes it for: else the addresses
    of its peers would be noise.
    """
    handed_over = getattr(port, "socket", None)
    if handed_over is None:
        return True
    domain = handed_over.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    return bool(domain == handed_over.family)

"""The service: the order in which its parts start and stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from twistedmedia.service.endpoints import (
    exposure_error,
    filter_connections,
    has_declared_domain,
    listen_error,
    url_of,
)
from twistedmedia.service.process import (
    HeapTrimmer,
    find_heap,
    raise_descriptor_limit,
    set_switch_interval,
)
from twistedmedia.service.signals import Signals, ignore_log_signals
from twistedmedia.service.stopping import Step, run_steps
from twistedmedia.service.systemd import SystemdNotifier
from twistedmedia.store.local.directory import DirectoryStore

# Limits of the steps of stopping: besides the grace 10 s in all. A healthy disk takes milliseconds.
_AT_ONCE_S = 0.5  # for steps that do not wait for a client or a disk
_CUT_S = 1.0  # thousands of connections are closed in one turn of the event loop
_PUBLISH_S = 5.0  # for publishes, and for received bytes of resumable uploads
_DISK_S = 1.0  # for jobs whose result is not needed
_ACCESS_LOG_S = 1.0  # it gives up by itself, after LAST_WAIT_S
# After the steps the last events are written, for LAST_WAIT_S at most, and a busy loop is late.
_END_S = 2.0
# Forms share a quarter of all descriptors, so each upload can have 16 files open.
_DESCRIPTORS_PER_UPLOAD = 64


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """An endpoint, and the option that it comes from. Unless `is_open`, only loopback addresses
    are allowed.
    """

    endpoint: IStreamServerEndpoint
    option: str
    is_open: bool


class CannotStart(SystemExit, Exception):
    """Ends the start with status 1.

    Derives from SystemExit so that twistd prints no traceback, and from Exception so that a
    daemon's parent does not wait forever.
    """

    def __init__(self, reason: str) -> None:
        """`reason` is what a daemon's parent prints. The log has it already."""
        super().__init__(reason)
        self.code = 1


class MediaService(Service):
    """Listens, and keeps a directory store open meanwhile.

    Binds its ports before twistd drops privileges. Threads, locks and other descriptors begin
    after that, except for the thread of the event log, which begins first.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoints: Sequence[ServiceEndpoint],
        site: MediaSite,
        library: Library,
        store: DirectoryStore,
        *,
        uploads: ResumableUploads | None = None,
        fetcher: Fetcher | None = None,
        access_log: AccessLog | None = None,
        event_log: EventLog | None = None,
        grace_s: float = 30.0,
        granted_to_all: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Requests in progress have `grace_s` to end when the service stops. `granted_to_all` is
        what everyone who can connect may do; if it is not empty, the start logs a warning.
        `variables` maps the options that come from the environment to the names of their variables,
        for messages.
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
        self._granted_to_all = granted_to_all
        self._variables = variables or {}
        self._ports: list[Any] = []
        self._notifier = SystemdNotifier(reactor)
        self._heap_trimmer = HeapTrimmer(reactor, find_heap())
        self._signals = Signals(reactor, self._cut_connections, self._reopen_access_log)

    def privilegedStartService(self) -> None:
        """Bind the ports.

        :raises CannotStart: when one cannot be bound.
        """
        super().privilegedStartService()
        if self._event_log is not None:
            # By now `twistd` has installed its observers, and has forked.
            self._event_log.open()
        self._listen()

    def _listen(self) -> None:
        ignore_log_signals()  # before anything shows that the service runs
        for configured in self._endpoints:
            outcome: list[Any] = []
            configured.endpoint.listen(self._site).addBoth(outcome.append)
            port = outcome[0] if outcome else Failure(ValueError("it does not listen at once"))
            if isinstance(port, Failure):
                self._fail(configured.option, listen_error(port.value))
            if not IListeningPort.providedBy(port):
                self._fail(configured.option, "this kind of endpoint does not listen on a port")
            self._ports.append(port)
            decrypt_in_turns(port, self._site.queue)
            filter_connections(port, self._site.would_drop)
            if not has_declared_domain(port):
                self._fail(configured.option, "the inherited socket is of another domain")
            host = getattr(port.getHost(), "host", None)
            exposure = None if host is None else exposure_error(host, is_open=configured.is_open)
            if exposure:
                self._fail(configured.option, exposure)

    def startService(self) -> None:
        """Open the store and the access log.

        :raises CannotStart: when one of them cannot be used.
        """
        super().startService()
        if not self._ports:  # `twist`, unlike `twistd`, does not call privilegedStartService
            self._listen()
            if self._event_log is not None:  # `twist` installs its observers later
                self._reactor.callWhenRunning(self._event_log.open)
        set_switch_interval(is_backlog=False)
        try:
            self._store.start(sweep_later=True)
        except ConfigurationError as error:
            self._fail("--root", str(error))
        if self._access_log is not None:
            try:
                self._access_log.open()
            except ConfigurationError as error:
                self._fail("--access-log", str(error))
        if self._uploads is not None:
            self._uploads.start(self._reactor)
        for port in self._ports:
            self._log.info("listening on {url}", url=url_of(port))
        self._log.info("serving {root!r}", root=self._store.root)
        self._divide_descriptors()
        if self._granted_to_all:
            self._log.warn("--open: everyone who can connect may {may}", may=self._granted_to_all)
        if self._event_log is not None:
            self._event_log.settle()  # a daemon's log shows its start when the parent ends
            # `twistd` logs after the shutdown.
            self._reactor.addSystemEventTrigger("after", "shutdown", self._event_log.close)
        self._heap_trimmer.start()
        self._reactor.callWhenRunning(self._signals.install)
        self._reactor.callWhenRunning(self._notifier.ready)

    def _divide_descriptors(self) -> None:
        """Raise the limit of descriptors and divide them. Warn if the options need more."""
        uploads = self._library.limits.max_uploads
        admission = self._site.admission
        wanted = max(uploads * _DESCRIPTORS_PER_UPLOAD, admission.configured.descriptors)
        raise_descriptor_limit(wanted)
        self._library.on_descriptor_limit()
        admission.divide_descriptors()
        limit = descriptors.limit()
        if limit is not None and limit < wanted:
            self._log.warn(
                "the limit of {limit} open files is low for --max-uploads {uploads} and "
                "--max-connections {connections}, which need {wanted}: there are at most {total} "
                "connections, and {per_address} from one address; all forms together keep at most "
                "{files} files open; raise the limit (LimitNOFILE= in a systemd unit, ulimit -n in "
                "a shell), or lower these options",
                limit=limit,
                uploads=uploads,
                connections=admission.configured.connections,
                wanted=wanted,
                total=admission.limits.connections,
                per_address=admission.limits.per_address,
                files=self._library.form_files.total,
            )

    def stopService(self) -> Deferred[None]:
        """Close the ports, let requests in progress end, disconnect the others, finish publishes,
        close the store. Each step has a time limit: the Deferred fires at most 10 s after the
        grace.
        """
        super().stopService()
        self._heap_trimmer.stop()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        steps = self._steps()
        self._notifier.stopping(sum(step.limit_s for step in steps) + _END_S)
        await run_steps(self._reactor, steps)
        self._notifier.stopped()

    def _steps(self) -> list[Step]:
        site, library, store = self._site, self._library, self._store
        ports, self._ports = self._ports, []
        steps = [
            Step("closing the ports", lambda: _close(ports), _AT_ONCE_S),
            Step(
                "ending the connections",
                self._close_connections,
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
                self._finish_uploads,
                _PUBLISH_S,
                lambda: [*library.running, *store.jobs],
            ),
            Step("ending the disk threads", store.stop, _DISK_S, lambda: store.jobs),
        ]
        if self._access_log is not None:
            steps.append(Step("closing the access log", self._access_log.close, _ACCESS_LOG_S))
        return steps

    async def _close_connections(self) -> None:
        """Wait until the last connection has ended. After the grace, disconnect those left."""
        closed = self._site.close()
        grace = self._reactor.callLater(self._grace_s, self._cut_connections)
        self._log.info(
            "stopping: {count} connections have {grace_s:g} s",
            count=len(self._site.channels),
            grace_s=self._grace_s,
        )
        await closed
        if grace.active():
            grace.cancel()

    def _finish_uploads(self) -> Deferred[None]:
        """All clients are gone: end what only clients wait for, and wait for the rest."""
        self._store.hurry()
        self._library.stop_publishing()
        return self._library.drain()

    def _cut_connections(self) -> None:
        if self._site.channels:
            self._log.warn("cutting {count} connections", count=len(self._site.channels))
        self._site.disconnect()

    def _reopen_access_log(self) -> None:
        if self._access_log is not None:
            self._access_log.reopen()

    def _fail(self, option: str, reason: str) -> NoReturn:
        """End the start. `option` is the one whose value cannot be used."""
        for port in self._ports:  # no reactor runs that would close them
            port.connectionLost(Failure(ConnectionDone()))
        variable = self._variables.get(option.removeprefix("--"))
        reason = f"{option}: {reason}" + (f" (set by {variable})" if variable else "")
        self._log.critical("cannot start: {reason}", reason=reason)
        if self._event_log is not None:
            self._event_log.settle()  # a daemon's log shows the reason when the parent ends
        raise CannotStart(reason)


def _close(ports: Sequence[Any]) -> Deferred[Any]:
    return gatherResults([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)

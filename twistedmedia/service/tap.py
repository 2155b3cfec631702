"""Builds the service of `twistd media` from its options. It alone uses the global reactor."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint

from twistedmedia.clock import use_monotonic_time
from twistedmedia.fairness.loop_queue import LoopQueue
from twistedmedia.fairness.shares import Shares
from twistedmedia.fetch.certificates import CertificateVerifier
from twistedmedia.fetch.fetcher import Fetcher, FetchLimits
from twistedmedia.fetch.policy import Policy
from twistedmedia.fetch.resolver import Resolver
from twistedmedia.formats import MEDIA_TYPES
from twistedmedia.http.admission import ConnectionLimits
from twistedmedia.http.body import BodyMemory
from twistedmedia.http.site import MediaSite
from twistedmedia.http.timeouts import Timeouts
from twistedmedia.library.importing import Fetches
from twistedmedia.library.library import Library
from twistedmedia.library.resumable import ResumableUploads
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.logs.access_log import AccessLog
from twistedmedia.logs.event_log import EventLog
from twistedmedia.service.endpoints import BACKLOG, endpoint_from
from twistedmedia.service.options import Options
from twistedmedia.service.process import set_switch_interval, tune_garbage_collector
from twistedmedia.service.service import MediaService, ServiceEndpoint
from twistedmedia.store.local.directory import DirectoryStore
from twistedmedia.web.cross_site import CsrfPolicy
from twistedmedia.web.tree import media_resource

__all__ = ["Options", "makeService"]

# The longest time for an import. Until then an import of an endless stream occupies a place.
IMPORT_S = 3600


def makeService(options: Options) -> IService:
    """Make the service that `options` describe. It opens, starts and binds nothing yet: see
    `MediaService`.
    """
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor  # its type depends on the platform
    use_monotonic_time(reactor)  # before anything is scheduled

    store = DirectoryStore(
        reactor,
        options["root"],
        threads=options["disk-threads"],
        durable=bool(options["durable"]),
    )
    limits = UploadLimits(
        formats=frozenset(options["formats"]),
        max_upload=options["max-upload"],
        max_form=options["max-form"],
        max_uploads=options["max-uploads"],
        checking=options["check"],
        media_types={**MEDIA_TYPES, **options["formats"]},
        max_imports=options["max-imports"],
        busy_rate=options["busy-rate"],
    )
    queue = LoopQueue(reactor, set_switch_interval)
    fetches = None if options["no-fetch"] else _fetches(options, reactor, queue)
    library = Library(store, limits, reactor, fetches=fetches)
    uploads = ResumableUploads(
        library,
        store.resumable,
        expiry_s=options["upload-expiry"],
        max_unfinished=options["max-unfinished"],
    )
    access_log = None
    if options["access-log"] is not None:
        access_log = AccessLog(reactor, options["access-log"])
    event_log = EventLog()
    proxies = options["trusted-proxy"]
    csrf = CsrfPolicy(bool(options["open"]), proxies, options["cors-origin"])
    site = MediaSite(
        media_resource(
            library,
            csrf=csrf,
            uploads=uploads,
            responses=Shares(options["response-memory"], options["busy-rate"]),
            dropped_events=lambda: event_log.dropped,
        ),
        reactor,
        timeouts=Timeouts(
            header_s=options["header-timeout"],
            idle_s=options["keep-alive"],
            stall_s=options["stall"],
            min_rate=options["min-rate"],
        ),
        connection_limits=ConnectionLimits(options["max-connections"], options["max-per-address"]),
        proxies=proxies,
        access_log=access_log,
        queue=queue,
    )
    reactor.callWhenRunning(tune_garbage_collector)
    return MediaService(
        reactor,
        _endpoints(options, reactor),
        site,
        library,
        store,
        uploads=uploads,
        fetcher=None if fetches is None else fetches.fetcher,
        access_log=access_log,
        event_log=event_log,
        grace_s=options["grace"],
        granted_to_all=_granted_to_all(options),
        variables=options.variables,
    )


def _endpoints(options: Options, reactor: Any) -> list[ServiceEndpoint]:
    is_open = bool(options["open"])
    if options["listen"]:
        return [
            ServiceEndpoint(endpoint_from(reactor, text), "--listen", is_open)
            for text in options["listen"]
        ]
    is_ipv6 = ":" in options["interface"]
    endpoint = (TCP6ServerEndpoint if is_ipv6 else TCP4ServerEndpoint)(
        reactor, options["port"], backlog=BACKLOG, interface=options["interface"]
    )
    return [ServiceEndpoint(endpoint, "--port", is_open)]


def _granted_to_all(options: Options) -> str:
    """What everyone who can connect may do, if the service is open."""
    if not options["open"]:
        return ""
    return "read, write and delete" if options["no-fetch"] else "read, write, delete and fetch"


def _fetches(options: Options, reactor: Any, queue: LoopQueue) -> Fetches:
    fetcher = Fetcher(
        reactor,
        resolver=Resolver(reactor),
        verifier=CertificateVerifier(),
        policy=Policy(options["fetch-allow"]),
        upstream=options["upstream"],
        connections=options["fetch-connections"],
        busy_rate=options["busy-rate"],
        memory=BodyMemory(),  # of its own, so that fetches do not hold up uploads
        queue=queue,
    )
    timeout_s = options["fetch-timeout"]
    return Fetches(
        fetcher,
        fetch_limits=FetchLimits(timeout_s, timeout_s, options["fetch-max"]),
        import_limits=FetchLimits(max(IMPORT_S, timeout_s), timeout_s),
    )

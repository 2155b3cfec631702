"""The Site: serves a resource tree whose requests stream. It speaks HTTP/1.1 only."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import IResource

from twistedmedia.errors import MediaError
from twistedmedia.fairness.loop_queue import DiscardQueue, LoopQueue
from twistedmedia.fairness.shares import Share
from twistedmedia.http.addresses import NO_PROXIES, Proxies, peer_host
from twistedmedia.http.admission import Admission, ConnectionLimits
from twistedmedia.http.body import BodyMemory
from twistedmedia.http.connection import MediaChannel
from twistedmedia.http.heads import forwarded_for_lines
from twistedmedia.http.lingering import LingeringConnections
from twistedmedia.http.request import StreamingRequest
from twistedmedia.http.timeouts import RequestTimeouts, StallDetector, Timeouts
from twistedmedia.http.transport import WriteCoalescer, below_tls, descriptor_of
from twistedmedia.http.twisted_privates import check_twisted
from twistedmedia.logs.access_log import AccessLog

check_twisted()

_NO_VALUE = (b"",)
# The status in the log if the client disconnected before the response (from nginx).
_CLIENT_CLOSED_REQUEST = 499
# How long an idle connection is kept when the site closes: a request may be in flight.
IDLE_GRACE_S = 0.25


class MediaSite(server.Site):
    """Serves any resource tree. Resources that provide `IStreamsBody` read streaming content."""

    noisy = False
    protocol = MediaChannel  # type: ignore[assignment]  # not the wrapper for HTTP/2

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime | None = None,
        *,
        memory: BodyMemory | None = None,
        timeouts: Timeouts | None = None,
        connection_limits: ConnectionLimits | None = None,
        proxies: Proxies | None = None,
        access_log: AccessLog | None = None,
        queue: LoopQueue | None = None,
    ) -> None:
        """`reactor` is the global one unless given. `proxies` are trusted to report the address of
        their client. The caller opens and closes `access_log`. `queue` shares the event loop among
        clients, also with a `Fetcher` that has the same queue.
        """
        timeouts = timeouts or Timeouts()
        # Without the base class's timeout: it resets a timer of the connection for every request.
        super().__init__(resource, StreamingRequest, reactor=reactor, timeout=None)
        self.stall_detector = StallDetector(self.reactor, timeouts.stall_s)
        self.request_timeouts = RequestTimeouts(self.reactor, timeouts)
        self.coalescer = WriteCoalescer(self.reactor)
        self.queue = queue or LoopQueue(self.reactor)
        self.discard_queue = DiscardQueue(self.reactor)
        self.lingering = LingeringConnections()
        self.body_memory = memory or BodyMemory()
        self.channels: set[MediaChannel] = set()
        self.is_closing = False
        self._proxies = NO_PROXIES if proxies in (None, NO_PROXIES) else proxies
        limits = connection_limits or ConnectionLimits()
        self.admission = Admission(limits, self._proxies, self.reactor.seconds)
        self._shares: dict[MediaChannel, Share] = {}  # of admitted connections
        self._refused = 0  # connections that were not admitted
        self._access_log = access_log
        self._idle_timer: IDelayedCall | None = None  # when the site closes
        self._waiting: list[Deferred[None]] = []  # for the last connection to end

    def acceptableProtocols(self) -> list[bytes]:
        """Called for TLS. Twisted's HTTP/2 ends a connection after an early response."""
        return [b"http/1.1"]

    def client_host(self, request: Any) -> str:
        """Return the client's address: the peer's, or the one that a trusted proxy reports."""
        peer: str = request.channel.peer_host
        if self._proxies is NO_PROXIES:
            return peer
        forwarded = request.requestHeaders.getRawHeaders(b"x-forwarded-for", ())
        return self._proxies.client_host(peer, forwarded)

    def client_host_of_head(self, peer: str, received: bytes) -> str:
        """Return the same for the request from `peer` whose head `received` begins with."""
        if self._proxies is NO_PROXIES:
            return peer
        return self._proxies.client_host(peer, forwarded_for_lines(received))

    # The access log

    def log(self, request: Any) -> None:
        """Log a request that has its response, or whose client has disconnected."""
        if self._access_log is not None:
            has_response = request.finished or request.startedWriting
            status = request.code if has_response else _CLIENT_CLOSED_REQUEST
            self._log_request(self._access_log, request, status, request.sentLength)

    def log_refused(
        self, channel: MediaChannel, request: Any | None, status: int, sent_bytes: int
    ) -> None:
        """Log a response without a handler: to input that is not a request, or to `request`."""
        if self._access_log is None:
            return
        if request is None:
            self._access_log.add(channel.peer_host, b"", status, sent_bytes)
        else:
            self._log_request(self._access_log, request, status, sent_bytes)

    def _log_request(self, log: AccessLog, request: Any, status: int, sent_bytes: int) -> None:
        get = request.requestHeaders.getRawHeaders
        log.add(
            self.client_host(request),
            b"%b %b %b" % (request.method, request.uri, request.clientproto),
            status,
            sent_bytes,
            get(b"Referer", _NO_VALUE)[0],
            get(b"User-Agent", _NO_VALUE)[0],
            self.reactor.seconds() - request.started_s,
        )

    # Connections

    def would_drop(self, addr: Any) -> bool:
        """Whether a connection from `addr` would be closed without a response: its address has too
        many, and enough connections are being refused with a response.
        """
        return self._refused >= self.admission.limits.refused and (
            self.admission.is_at_limit(peer_host(getattr(addr, "host", None)))
        )

    def add(self, channel: MediaChannel) -> None:
        """Admit a new connection, or refuse it."""
        self.channels.add(channel)
        descriptor = descriptor_of(channel.transport)
        try:
            self._shares[channel] = self.admission.enter(channel.peer_host, descriptor, channel)
        except MediaError as refusal:
            self._refused += 1
            if self._refused <= self.admission.limits.refused:
                channel.closing.refuse_connection(refusal)
            else:
                _close_now(channel.transport)

    def is_admitted(self, channel: MediaChannel) -> bool:
        """Whether the connection is there, and was not refused."""
        return channel in self._shares

    def remove(self, channel: MediaChannel) -> None:
        """Forget a lost connection. Idempotent."""
        if channel in self.channels:
            self.channels.discard(channel)
            share = self._shares.pop(channel, None)
            if share is None:
                self._refused -= 1
            else:
                share.release()
        self.stall_detector.forget(channel)
        self.request_timeouts.forget(channel)

    def close(self) -> Deferred[None]:
        """Close each connection after its request in progress, or the one in flight. Fires when the
        last connection has ended.
        """
        if self.is_closing:
            return self._when_empty()
        self.is_closing = True
        for channel in self.channels:
            channel.closing.close_after_request()
        self._idle_timer = self.reactor.callLater(IDLE_GRACE_S, self._on_idle_timeout)
        return self._when_empty()

    def disconnect(self) -> Deferred[None]:
        """Abort all connections, and requests that outlive theirs. Fires when the last one has
        ended.
        """
        for channel in list(self.channels):
            channel.closing.abort()
        return self._when_empty()

    def notify_if_empty(self) -> None:
        """Fire the Deferreds of `close` and `disconnect` if there is no connection."""
        if not self.channels:
            if self._idle_timer is not None and self._idle_timer.active():
                self._idle_timer.cancel()
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    def _on_idle_timeout(self) -> None:
        # In the next turn: if the event loop was busy, it first has to read what has arrived.
        self._idle_timer = self.reactor.callLater(0, self._close_idle)

    def _close_idle(self) -> None:
        for channel in list(self.channels):
            if channel.is_idle:
                channel.loseConnection()

    def _when_empty(self) -> Deferred[None]:
        is_empty: Deferred[None] = Deferred()
        self._waiting.append(is_empty)
        self.notify_if_empty()
        return is_empty


def _close_now(transport: Any) -> None:
    """Abort a connection in this turn of the event loop. Twisted would close it in the next turn,
    and accepts hundreds of connections in one turn, which could use up the file descriptors.
    """
    transport.abortConnection()
    bare: Any = below_tls(transport)
    if descriptor_of(bare) is not None:
        bare.connectionLost(Failure(ConnectionAborted()))


media_site = MediaSite  # the public name of the factory

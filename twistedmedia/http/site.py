"""The Site: a resource tree on connections whose requests stream. HTTP/1.1, no HTTP/2."""

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
from twistedmedia.http.timeouts import RequestTimeouts, StallDetector, Timeouts, descriptor_of
from twistedmedia.http.transport import WriteCoalescer, below_tls
from twistedmedia.logs.access_log import AccessLog

_NOTHING = (b"",)
_CLOSED_UNANSWERED = 499  # what nginx writes of a request whose client left before its answer
# How long a connection without a request is kept when the site closes: a request may be on its way.
LAST_CALL_S = 0.25


class MediaSite(server.Site):
    """A Site over any resource tree, in which those who provide `IStreamsBody` stream."""

    noisy = False
    protocol = MediaChannel  # type: ignore[assignment]  # without the detour for HTTP/2

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime | None = None,
        *,
        memory: BodyMemory | None = None,
        timeouts: Timeouts | None = None,
        bounds: ConnectionLimits | None = None,
        proxies: Proxies | None = None,
        access_log: AccessLog | None = None,
        queue: LoopQueue | None = None,
    ) -> None:
        """`reactor` is the global one unless given. `proxies` are trusted to say whom they ask for.
        `access_log` is opened and closed by whoever made it. `queue` has the turns of the clients;
        a `Fetcher` may share it.
        """
        timeouts = timeouts or Timeouts()
        # The base class's timeout is a timer for each connection, which every request moves.
        super().__init__(resource, StreamingRequest, reactor=reactor, timeout=None)
        self.slow_readers = StallDetector(self.reactor, timeouts.stall_s)
        self.senders = RequestTimeouts(self.reactor, timeouts)
        self.outbox = WriteCoalescer(self.reactor)
        self.queue = queue or LoopQueue(self.reactor)
        self.dropping = DiscardQueue(self.reactor)
        self.lingerers = LingeringConnections()
        self.body_memory = memory or BodyMemory()
        self.channels: set[MediaChannel] = set()
        self.is_closing = False
        self._proxies = NO_PROXIES if proxies in (None, NO_PROXIES) else proxies
        self.admission = Admission(
            bounds or ConnectionLimits(), self._proxies, self.reactor.seconds
        )
        self._places: dict[MediaChannel, Share] = {}  # of those that were not turned away
        self._turned_away = 0
        self._access_log = access_log
        self._dismissing: IDelayedCall | None = None
        self._emptied: list[Deferred[None]] = []

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS. Without HTTP/2: Twisted's ends a connection when an answer comes early."""
        return [b"http/1.1"]

    def client_host(self, request: Any) -> str:
        """The address that a request comes from: its peer's, or the one that a trusted proxy
        reports.
        """
        peer: str = request.channel.peer_host
        if self._proxies is NO_PROXIES:
            return peer
        forwarded = request.requestHeaders.getRawHeaders(b"x-forwarded-for", ())
        return self._proxies.client_host(peer, forwarded)

    def client_of_head(self, peer: str, received: bytes) -> str:
        """As `client_host`, of the request whose head `received` begins with."""
        if self._proxies is NO_PROXIES:
            return peer
        return self._proxies.client_host(peer, forwarded_for_lines(received))

    # The access log

    def log(self, request: Any) -> None:
        """A request has been answered, or its client has gone."""
        if self._access_log is not None:
            answered = request.finished or request.startedWriting
            status = request.code if answered else _CLOSED_UNANSWERED
            self._log_request(self._access_log, request, status, request.sentLength)

    def log_refused(
        self, channel: MediaChannel, request: Any | None, status: int, sent_bytes: int
    ) -> None:
        """What has come on `channel` was no request, or not the whole of `request`."""
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
            get(b"Referer", _NOTHING)[0],
            get(b"User-Agent", _NOTHING)[0],
            self.reactor.seconds() - request.started_s,
        )

    # Connections that come and go

    def turns_away(self, addr: Any) -> bool:
        """Whether a connection from `addr` would be closed without an answer: its address has as
        many as it may, and enough of those that are too many are being told.
        """
        return self._turned_away >= self.admission.bounds.refused and (
            self.admission.is_at_its_bound(peer_host(getattr(addr, "host", None)))
        )

    def welcome(self, channel: MediaChannel) -> None:
        """`channel` is connected: it stays, or is turned away."""
        self.channels.add(channel)
        descriptor = descriptor_of(channel.transport)
        try:
            self._places[channel] = self.admission.enter(channel.peer_host, descriptor, channel)
        except MediaError as refusal:
            self._turned_away += 1
            if self._turned_away <= self.admission.bounds.refused:
                channel.turn_away(refusal)
            else:
                _close_now(channel.transport)

    def has_place(self, channel: MediaChannel) -> bool:
        """Whether `channel` is connected, and was not turned away."""
        return channel in self._places

    def forget(self, channel: MediaChannel) -> None:
        """`channel` has lost its connection."""
        if channel in self.channels:
            self.channels.discard(channel)
            place = self._places.pop(channel, None)
            if place is None:
                self._turned_away -= 1
            else:
                place.release()
        self.slow_readers.forget(channel)
        self.senders.forget(channel)

    def close(self) -> Deferred[None]:
        """Answer the requests that have begun, each as the last of its connection, and those that
        are on their way. Fires when the last connection is gone.
        """
        if self.is_closing:
            return self._when_empty()
        self.is_closing = True
        for channel in self.channels:
            channel.last_call()
        self._dismissing = self.reactor.callLater(LAST_CALL_S, self._end_last_call)
        return self._when_empty()

    def disconnect(self) -> Deferred[None]:
        """Cut every connection, and end what is still carried out for lost ones. Fires when the
        last one is gone.
        """
        for channel in list(self.channels):
            channel.cut()
        return self._when_empty()

    def tell_emptied(self) -> None:
        """Tell those who wait for the last connection to be gone, if it is."""
        if not self.channels:
            if self._dismissing is not None and self._dismissing.active():
                self._dismissing.cancel()
            emptied, self._emptied = self._emptied, []
            for each in emptied:
                each.callback(None)

    def _end_last_call(self) -> None:
        # Not before the loop has read what has come, should it have been busy with something else.
        self._dismissing = self.reactor.callLater(0, self._dismiss_idle)

    def _dismiss_idle(self) -> None:
        for channel in list(self.channels):
            if channel.is_idle:
                channel.loseConnection()

    def _when_empty(self) -> Deferred[None]:
        emptied: Deferred[None] = Deferred()
        self._emptied.append(emptied)
        self.tell_emptied()
        return emptied


def _close_now(transport: Any) -> None:
    """Abort a connection in this turn of the event loop. Twisted waits for the next one, and in one
    turn it accepts hundreds of connections: they would use up the descriptors.
    """
    transport.abortConnection()
    bare: Any = below_tls(transport)
    if descriptor_of(bare) is not None:
        bare.connectionLost(Failure(ConnectionAborted()))


media_site = MediaSite  # as others call what makes one

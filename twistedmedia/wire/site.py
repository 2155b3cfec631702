"""The Site: a resource tree on connections whose requests stream. HTTP/1.1, no HTTP/2."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web import server
from twisted.web.resource import IResource

from twistedmedia.streaming import BodyMemory
from twistedmedia.wire.access_log import AccessLog
from twistedmedia.wire.admission import Admission, Bounds
from twistedmedia.wire.channel import MediaChannel
from twistedmedia.wire.outbox import Outbox
from twistedmedia.wire.patience import Patience
from twistedmedia.wire.proxies import NO_PROXIES, Proxies
from twistedmedia.wire.readers import SlowReaders, descriptor_of
from twistedmedia.wire.request import StreamingRequest
from twistedmedia.wire.senders import SlowSenders

_NOTHING = (b"",)
_CLOSED_UNANSWERED = 499  # what nginx writes of a request whose client left before its answer
# How long a connection without a request is kept when the site closes: a request may be on its way.
LAST_CALL_S = 0.25
# Of those who cannot stay so many are told so; more are turned away without a word.
_TURNED_AWAY = 128


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
        patience: Patience | None = None,
        bounds: Bounds | None = None,
        proxies: Proxies | None = None,
        access_log: AccessLog | None = None,
    ) -> None:
        """`reactor` is the global one unless given. `proxies` are trusted to say whom they ask for.
        `access_log` is opened and closed by whoever made it.
        """
        patience = patience or Patience()
        # The base class's timeout is a timer for each connection, which every request moves.
        super().__init__(resource, StreamingRequest, reactor=reactor, timeout=None)
        self.slow_readers = SlowReaders(self.reactor, patience.stall_s)
        self.senders = SlowSenders(self.reactor, patience)
        self.outbox = Outbox(self.reactor)
        self.body_memory = memory or BodyMemory()
        self.channels: set[MediaChannel] = set()
        self.is_closing = False
        self._proxies = proxies or NO_PROXIES
        self._admission = Admission(bounds or Bounds(), self._proxies)
        self._turned_away: set[MediaChannel] = set()
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
        return self._proxies.client(peer, forwarded)

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
            self.reactor.seconds() - request.begun_s,
        )

    # Connections that come and go

    def welcome(self, channel: MediaChannel) -> None:
        """`channel` is connected: it stays, or is turned away."""
        self.channels.add(channel)
        refusal = self._admission.enter(channel.peer_host, descriptor_of(channel.transport))
        if refusal is None:
            return
        self._admission.leave(channel.peer_host)  # while it is told so it takes nobody's place
        if len(self._turned_away) < _TURNED_AWAY:
            self._turned_away.add(channel)
            channel.refuse(refusal)
        else:
            self._turned_away.add(channel)
            channel.transport.abortConnection()

    def forget(self, channel: MediaChannel) -> None:
        """`channel` has lost its connection."""
        if channel in self.channels:
            self.channels.discard(channel)
            if channel not in self._turned_away:
                self._admission.leave(channel.peer_host)
        self._turned_away.discard(channel)
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


media_site = MediaSite  # as others call what makes one

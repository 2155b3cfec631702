"""The Site: a resource tree on connections whose requests stream. HTTP/1.1, no HTTP/2."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web import server
from twisted.web.resource import IResource

from twistedmedia.streaming import BodyMemory
from twistedmedia.wire.channel import MediaChannel, StreamingRequest
from twistedmedia.wire.patience import STALL_S, SlowReaders


class MediaSite(server.Site):
    """A Site over any resource tree, in which those who provide `IStreamsBody` stream."""

    noisy = False
    protocol = MediaChannel  # type: ignore[assignment]  # without the detour for HTTP/2

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime | None = None,
        memory: BodyMemory | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        """`reactor` is the global one unless given. A reader that takes nothing of an answer for
        `stall_s` is cut off.
        """
        super().__init__(resource, requestFactory=StreamingRequest, reactor=reactor)
        self.slow_readers = SlowReaders(self.reactor, stall_s)
        self.body_memory = memory or BodyMemory()
        self.channels: set[MediaChannel] = set()
        self._emptied: list[Deferred[None]] = []

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS. Without HTTP/2: Twisted's ends a connection when an answer comes early."""
        return [b"http/1.1"]

    def log(self, request: Any) -> None:
        """No access log: through Twisted's logger it costs more than the request."""

    def disconnect(self) -> Deferred[None]:
        """Cut every connection. Fires when the last one is gone."""
        for channel in list(self.channels):
            channel.transport.abortConnection()
        emptied: Deferred[None] = Deferred()
        self._emptied.append(emptied)
        self.tell_emptied()
        return emptied

    def forget(self, channel: MediaChannel) -> None:
        """`channel` has lost its connection."""
        self.channels.discard(channel)
        self.slow_readers.forget(channel)

    def tell_emptied(self) -> None:
        """Tell those who wait for the last connection to be gone, if it is."""
        if not self.channels:
            emptied, self._emptied = self._emptied, []
            for each in emptied:
                each.callback(None)

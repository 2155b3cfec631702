"""Lingering: after an early response, a connection reads on for a while, and drops the input.

To close a socket with unread data resets the connection, and the reset can overtake the response
(RFC 9112, 9.6). The time and the amount of dropped input are limited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twistedmedia.http.transport import progress_of

LINGER_BYTES = 4 << 20
LINGER_S = 5.0
LINGER_RATE = 100_000  # bytes that are dropped for each second more
LAST_LINGER_S = 0.5  # when the site closes
# Connections of one client that drop much input at the same time: this many that will be closed,
# and as many that are kept open.
MOST_LINGERING = 32
# Connections of one client that wait until others have ended. For each of these 128 to 160
# connections, the kernels of both hosts buffer what is in flight. A kernel limits the memory of all
# connections (tcp(7), tcp_mem), and every transfer slows down at that limit. With a lower number,
# programs that send many refused uploads at once would lose responses.
MOST_WAITING = 96


@dataclass(frozen=True)
class _Waiting:
    """What to call when a waiting connection may be read, or has to be closed."""

    resume: Callable[[], None]
    close: Callable[[], None]


@dataclass
class _Client:
    """The lingering connections of a client that drop much input."""

    kept: set[Lingering] = field(default_factory=set)
    read: set[Lingering] = field(default_factory=set)
    waiting: dict[Lingering, _Waiting] = field(default_factory=dict)


class LingeringConnections:
    """The lingering connections of a site that drop much input, by client.

    If a client has too many that will be closed, the newest ones wait until others have ended. If
    too many wait, the one that has waited longest is closed.
    """

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}

    def keep(self, client: str, lingering: Lingering) -> bool:
        """Add a connection that serves more requests later. Returns False, and does not add it, if
        the client has too many.
        """
        of_client = self._clients.setdefault(client, _Client())
        if len(of_client.kept) >= MOST_LINGERING:
            return False
        of_client.kept.add(lingering)
        return True

    def enter(self, client: str, lingering: Lingering, waiting: _Waiting) -> bool:
        """Add a connection that will be closed. Returns whether it may be read now; otherwise it
        waits.
        """
        of_client = self._clients.setdefault(client, _Client())
        may_read = lingering in of_client.read or len(of_client.read) < MOST_LINGERING
        if may_read:
            of_client.read.add(lingering)
        else:
            of_client.waiting[lingering] = waiting
            if len(of_client.waiting) > MOST_WAITING:
                of_client.waiting.pop(next(iter(of_client.waiting))).close()
        return may_read

    def leave(self, client: str, lingering: Lingering) -> None:
        """Remove a connection, and let the next one of the client be read. Idempotent."""
        of_client = self._clients.get(client)
        if of_client is None:
            return
        of_client.kept.discard(lingering)
        of_client.read.discard(lingering)
        of_client.waiting.pop(lingering, None)
        if of_client.waiting and len(of_client.read) < MOST_LINGERING:
            following = next(iter(of_client.waiting))
            waiting = of_client.waiting.pop(following)
            of_client.read.add(following)
            waiting.resume()
        if not (of_client.kept or of_client.read or of_client.waiting):
            del self._clients[client]


class Lingering:
    """The time during which one connection lingers. It stands still while the connection waits to
    be read, so a peer that sends everything before it reads the response is not reset.
    """

    def __init__(self, clock: IReactorTime, connections: LingeringConnections) -> None:
        self._clock = clock
        self._connections = connections
        self._client = ""
        self._timer: IDelayedCall | None = None
        self._began_s = 0.0
        self._discarded = 0  # bytes
        self._is_last = False
        self._waits_since_s: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether the connection lingers."""
        return self._timer is not None

    @property
    def is_waiting(self) -> bool:
        """Whether the connection waits to be read."""
        return self._waits_since_s is not None

    @property
    def elapsed_s(self) -> float:
        """For how long the connection has lingered, waits included; 0 if it does not linger."""
        return 0.0 if self._timer is None else self._clock.seconds() - self._began_s

    def begin(self, on_limit: Callable[[], None]) -> None:
        """Start to linger. `on_limit` is called when the time is over, or too much was dropped."""
        self._began_s = self._clock.seconds()
        self._discarded = 0
        self._timer = self._clock.callLater(LINGER_S, self._on_timeout)
        self._on_limit = on_limit  # deleted by `end`: it refers to the connection

    def keep(self, client: str) -> bool:
        """Count the connection as one of `client` that is kept open, until `end`. Returns False if
        there are too many.
        """
        self._client = client
        return self._connections.keep(client, self)

    def enter(self, client: str, resume: Callable[[], None], close: Callable[[], None]) -> None:
        """Count the connection as one of `client` that will be closed. If there are too many, it
        waits, and `resume` is called when it may be read. If too many wait, `close` is called,
        which has to close it once the response is sent. Idempotent.
        """
        self._client = client
        if not self._connections.enter(client, self, _Waiting(resume, close)):
            self.wait()

    def wait(self) -> None:
        """Stop the time until `resume`."""
        self._waits_since_s = self._clock.seconds()

    def resume(self) -> None:
        """Let the time go on: the connection is read again."""
        waited_s = self._stop_waiting()
        if self._timer is not None and not self._is_last:
            self._timer.delay(waited_s)

    def shorten(self, seconds: float) -> None:
        """Linger for at most `seconds` from now on, waits included."""
        self._is_last = True
        if self._timer is not None:
            self._timer.reset(seconds)

    def end(self) -> None:
        """Stop to linger. Idempotent."""
        if self._timer is not None:
            if self._timer.active():
                self._timer.cancel()
            self._timer = None
            self._waits_since_s = None
            del self._on_limit
        if self._client:
            client, self._client = self._client, ""
            self._connections.leave(client, self)

    def count(self, size: int) -> None:
        """Count `size` dropped bytes, if the connection lingers. Each `LINGER_RATE` of them add a
        second.
        """
        if self._timer is not None:
            before, self._discarded = self._discarded, self._discarded + size
            if self._discarded > LINGER_BYTES:
                self._on_limit()
            elif not self._is_last:
                self._timer.delay(self._discarded // LINGER_RATE - before // LINGER_RATE)

    def _on_timeout(self) -> None:
        if self._is_last or not self.is_waiting:
            self._on_limit()
        else:  # the time of the wait is left
            self._timer = self._clock.callLater(self._stop_waiting(), self._on_timeout)
            self.wait()

    def _stop_waiting(self) -> float:
        since_s, self._waits_since_s = self._waits_since_s, None
        return 0.0 if since_s is None else self._clock.seconds() - since_s


class CloseTimeout:
    """Aborts a connection that is being closed and whose peer does not agree. Under TLS both sides
    have to close, and many peers do not (RFC 8446, 6.1). The peer may take all data before.
    """

    def __init__(self, call_later: Callable[..., IDelayedCall]) -> None:
        self._call_later = call_later
        self._seconds = LINGER_S
        self._timer: IDelayedCall | None = None

    def begin(self, channel: Any) -> None:
        """Start the timeout for the connection `channel`. Idempotent."""
        if self._timer is None:
            self._timer = self._call_later(self._seconds, self._on_timeout, channel)

    def shorten(self, seconds: float) -> None:
        """Abort after `seconds` from now on, or from `begin`."""
        self._seconds = seconds
        if self._timer is not None and self._timer.active():
            self._timer.reset(seconds)

    def end(self) -> None:
        """The connection is closed. Idempotent."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _on_timeout(self, channel: Any) -> None:
        if progress_of(channel).lags:
            self._timer = self._call_later(self._seconds, self._on_timeout, channel)
        else:
            channel.transport.abortConnection()

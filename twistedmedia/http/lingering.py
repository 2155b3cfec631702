"""The last seconds of a connection: reading on after an early answer, to drop what comes.

Closing a socket with unread data resets it, and the reset can overtake the answer (RFC 9112, 9.6).
So what a client still sends is read for a while: not for long, and not without end.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twistedmedia.http.timeouts import descriptor_of, progress_of, socket_of

LINGER_BYTES = 4 << 20
LINGER_S = 5.0
LINGER_RATE = 100_000  # a second more for so many bytes that were dropped
LAST_LINGER_S = 0.5  # when the site closes
# What the system may keep of a connection that is read to drop it, of the megabytes that it would
# take; Linux doubles this, and takes no more than net.core.rmem_max for it. With less than what is
# on its way it drops packets, and the peer waits seconds to send them again.
LINGER_BUFFER_BYTES = 512 << 10
# Connections of one client of which much is dropped at the same time: so many that will be closed,
# and so many that are kept.
MOST_LINGERING = 32
# Connections of one client that wait until others have ended. For each of these 128 to 160 the
# systems at both ends keep what is still on its way, and a system has one bound for the memory of
# all connections (tcp(7), tcp_mem): at that bound every transfer slows down. With fewer, programs
# that send many uploads at once which are refused would lose responses.
MOST_WAITING = 96


@dataclass(frozen=True)
class _Waiting:
    """What to call when a connection that waits may be read, or is one too many."""

    go_on: Callable[[], None]
    hang_up: Callable[[], None]


@dataclass
class _Client:
    """Connections of a client that linger, and of which much is dropped."""

    kept: set[Lingering] = field(default_factory=set)
    read: set[Lingering] = field(default_factory=set)
    waiting: dict[Lingering, _Waiting] = field(default_factory=dict)


class LingeringConnections:
    """The connections that linger and of which much is dropped, by client. When too many of a
    client will be closed, the last ones are not read until others have ended. When too many wait,
    the one that has waited longest is closed.
    """

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}

    def keep(self, client: str, lingering: Lingering) -> bool:
        """Much is to be dropped of a connection of `client` that serves another request then.
        Returns False if too many such connections linger, or will: then it does not count.
        """
        of_client = self._clients.setdefault(client, _Client())
        if len(of_client.kept) >= MOST_LINGERING:
            return False
        of_client.kept.add(lingering)
        return True

    def enter(self, client: str, lingering: Lingering, waiting: _Waiting) -> bool:
        """Much is dropped of a connection of `client` that is closed then. Returns whether it may
        be read now. If not, it waits as `waiting` says.
        """
        of_client = self._clients.setdefault(client, _Client())
        may_read = lingering in of_client.read or len(of_client.read) < MOST_LINGERING
        if may_read:
            of_client.read.add(lingering)
        else:
            of_client.waiting[lingering] = waiting
            if len(of_client.waiting) > MOST_WAITING:
                of_client.waiting.pop(next(iter(of_client.waiting))).hang_up()
        return may_read

    def leave(self, client: str, lingering: Lingering) -> None:
        """It does not linger any more. Idempotent."""
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
            waiting.go_on()
        if not (of_client.kept or of_client.read or of_client.waiting):
            del self._clients[client]


class Lingering:
    """The time in which a connection lingers. It does not pass while the connection waits to be
    read: a peer that sends all it has before it reads the response finds no reset connection.
    """

    def __init__(self, clock: IReactorTime, lingerers: LingeringConnections) -> None:
        self._clock = clock
        self._lingerers = lingerers
        self._client = ""
        self._end: IDelayedCall | None = None
        self._began_s = 0.0
        self._dropped = 0
        self._is_last = False
        self._waits_since_s: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether the connection lingers."""
        return self._end is not None

    @property
    def waits(self) -> bool:
        """Whether the connection waits to be read."""
        return self._waits_since_s is not None

    @property
    def lasts_s(self) -> float:
        """For how long the connection has lingered, and has waited to be read; 0 if it does not."""
        return 0.0 if self._end is None else self._clock.seconds() - self._began_s

    def begin(self, give_up: Callable[[], None]) -> None:
        """From now on. `give_up` is called when enough was waited for, or dropped."""
        self._began_s = self._clock.seconds()
        self._dropped = 0
        # Not for longer than it is on: it is the connection's own, and would keep that in memory.
        self._end = self._clock.callLater(LINGER_S, self._time_is_over)
        self._give_up = give_up

    def keep(self, client: str) -> bool:
        """The connection counts as one of `client` that is kept, until `end`. Returns False if
        there are too many.
        """
        self._client = client
        return self._lingerers.keep(client, self)

    def enter(self, client: str, go_on: Callable[[], None], hang_up: Callable[[], None]) -> None:
        """The connection counts as one of `client` that will be closed. If that has too many, it
        waits, and `go_on` is called when it is its turn. `hang_up` has to close it, once its
        response is sent, if too many wait. Idempotent.
        """
        self._client = client
        if not self._lingerers.enter(client, self, _Waiting(go_on, hang_up)):
            self.wait()

    def wait(self) -> None:
        """The connection waits to be read: until `go_on` no time passes."""
        self._waits_since_s = self._clock.seconds()

    def go_on(self) -> None:
        """The connection is read again."""
        waited_s = self._stop_waiting()
        if self._end is not None and not self._is_last:
            self._end.delay(waited_s)

    def shorten(self, lasts_s: float) -> None:
        """If it is on, no longer than that from now on, whether it waits or not."""
        self._is_last = True
        if self._end is not None:
            self._end.reset(lasts_s)

    def end(self) -> None:
        """Not any more. Idempotent."""
        if self._end is not None:
            if self._end.active():
                self._end.cancel()
            self._end = None
            self._waits_since_s = None
            del self._give_up
        if self._client:
            client, self._client = self._client, ""
            self._lingerers.leave(client, self)

    def drop(self, size: int) -> None:
        """If it is on, `size` bytes more were received and are of no use to anybody."""
        if self._end is not None:
            before, self._dropped = self._dropped, self._dropped + size
            if self._dropped > LINGER_BYTES:
                self._give_up()
            elif not self._is_last:
                self._end.delay(self._dropped // LINGER_RATE - before // LINGER_RATE)

    def _time_is_over(self) -> None:
        if self._is_last or not self.waits:
            self._give_up()
        else:  # there is as much of it left as was waited for
            self._end = self._clock.callLater(self._stop_waiting(), self._time_is_over)
            self.wait()

    def _stop_waiting(self) -> float:
        since_s, self._waits_since_s = self._waits_since_s, None
        return 0.0 if since_s is None else self._clock.seconds() - since_s


def limit_buffer(transport: Any) -> None:
    """Have the system keep little of what is still received by `transport`, if it has a socket."""
    handle = socket_of(transport)
    if handle is not None:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LINGER_BUFFER_BYTES)


def unread_bytes(transport: Any) -> int:
    """How many bytes the socket of `transport` has received that nobody has read; 0 where that is
    not known.
    """
    descriptor = descriptor_of(transport)
    if descriptor is None:
        return 0
    try:
        size = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(size, sys.byteorder)


class Parting:
    """The end of a connection that is closed when its peer agrees, as under TLS. Many peers do not
    (RFC 8446, 6.1): the connection is aborted when it has taken everything.
    """

    def __init__(self, call_later: Callable[..., IDelayedCall]) -> None:
        self._call_later = call_later
        self._lasts_s = LINGER_S
        self._next: IDelayedCall | None = None

    def begin(self, channel: Any) -> None:
        """The connection of `channel` is being closed. Idempotent."""
        if self._next is None:
            self._next = self._call_later(self._lasts_s, self._part, channel)

    def shorten(self, lasts_s: float) -> None:
        """No longer than that, from now on."""
        self._lasts_s = lasts_s
        if self._next is not None and self._next.active():
            self._next.reset(lasts_s)

    def end(self) -> None:
        """The connection is gone. Idempotent."""
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _part(self, channel: Any) -> None:
        if progress_of(channel).lags:
            self._next = self._call_later(self._lasts_s, self._part, channel)
        else:
            channel.transport.abortConnection()

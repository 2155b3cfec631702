"""Timeouts for a service that does not respond, stalls, or sends too slowly."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from twistedmedia.client.client_limits import check_number
from twistedmedia.client.exceptions import Unreachable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """Times in seconds.

    `connect_s`: until the connection is established. `stall_s`: while content is transferred in
    either direction, without any progress. `response_s`: from the end of the request until the
    response begins; the service may have to sync a GiB to its disk. `import_s`: the same for an
    import, for which the service has an hour. `health_s`: the same for a health request, to which
    the service responds at once.

    :raises LocalFailure: when one is not a number from 0 on.
    """

    connect_s: float = 10.0
    stall_s: float = 60.0
    response_s: float = 300.0
    import_s: float = 3700.0
    health_s: float = 10.0

    def __post_init__(self) -> None:
        for each in fields(self):
            check_number(getattr(self, each.name), each.name)


class IdleTimer:
    """Cancels a wait in which nothing happens for too long. `expired` is whether the timer has
    cancelled a wait, `cancelled` whether the caller has.
    """

    def __init__(self, reactor: Any) -> None:
        self.expired = False
        self.cancelled = False
        self._reactor = reactor
        self._call: IDelayedCall | None = None
        self._waiting: Deferred[Any] | None = None

    async def watch(self, waiting: Deferred[T], limit_s: float) -> T:
        """Return the result of `waiting`, which is cancelled after `limit_s` idle seconds."""
        self._waiting = waiting
        self.start(limit_s)
        try:
            return await self._watched(waiting)
        finally:
            self._waiting = None
            self.stop()

    def reset(self, limit_s: float) -> None:
        """Note progress: if the timer runs, it expires in `limit_s` seconds from now."""
        if self._call is not None:
            self._call.reset(limit_s)

    def start(self, limit_s: float) -> None:
        """Expire in `limit_s` seconds from now, if a wait is being watched."""
        self.stop()
        if self._waiting is not None:
            self._call = self._reactor.callLater(limit_s, self._on_timeout, self._waiting)

    def stop(self) -> None:
        """Do not expire until the next `start`."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _watched(self, waiting: Deferred[T]) -> Deferred[T]:
        """A Deferred with the result of `waiting` that records a cancellation. Twisted's client
        turns a cancellation into errors of many kinds.
        """

        def cancel(_: Deferred[T]) -> None:
            self.cancelled = True
            waiting.cancel()

        watched: Deferred[T] = Deferred(cancel)

        def deliver(result: T | Failure) -> None:
            if not watched.called:
                watched.callback(result)

        waiting.addBoth(deliver)
        return watched

    def _on_timeout(self, waiting: Deferred[Any]) -> None:
        self._call = None
        self.expired = True
        waiting.cancel()


class MinRate:
    """Requires content to arrive at an average of `bytes_per_s` or more, over every `window_s`
    seconds of waiting for it. Time in which the reader does something else does not count.
    """

    def __init__(self, reactor: Any, bytes_per_s: int, window_s: float) -> None:
        self._reactor = reactor
        self._bytes_per_s = bytes_per_s
        self._window_s = window_s
        self._waited_s = 0.0
        self._received_bytes = 0

    async def watch(self, timer: IdleTimer, reading: Deferred[list[bytes]]) -> list[bytes]:
        """Return the result of `reading`. `timer` cancels it if nothing arrives for `window_s`.

        :raises Unreachable: when too few bytes have arrived.
        """
        since = self._reactor.seconds()
        pieces = await timer.watch(reading, self._window_s)
        self._waited_s += self._reactor.seconds() - since
        self._received_bytes += sum(map(len, pieces))
        if self._waited_s >= self._window_s:
            if pieces and self._received_bytes < self._bytes_per_s * self._window_s:
                raise Unreachable(
                    f"the service sends fewer than {self._bytes_per_s} bytes a second",
                    was_sent=True,
                )
            self._waited_s, self._received_bytes = 0.0, 0
        return pieces

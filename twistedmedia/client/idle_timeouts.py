"""How long the client waits for a service that says nothing.

Pure.

Ends a wait in which nothing moves for too long, or content that arrives too slowly.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from twistedmedia.client.bounds import check_number
from twistedmedia.client.exceptions import Unreachable


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """Times in seconds.

    `connect_s`: until a connection is there. `stall_s`: content that neither comes nor goes.
    `answer_s`: until the answer begins, once the request is sent; the service may have a GiB to
    bring to stable storage. `import_s`: the same for an import, which the service gives an hour.
    `health_s`: the same for a question about the health, which the service answers at once.

    :raises LocalFailure: when one is not a number from 0 on.
    """

    connect_s: float = 10.0
    stall_s: float = 60.0
    answer_s: float = 300.0
    import_s: float = 3700.0
    health_s: float = 10.0

    def __post_init__(self) -> None:
        for each in fields(self):
            check_number(getattr(self, each.name), each.name)


T = TypeVar("T")


class IdleTimer:
    """`expired` is whether it has ended a wait, `cancelled` whether the waiting caller has."""

    def __init__(self, reactor: Any) -> None:
        self.expired = False
        self.cancelled = False
        self._reactor = reactor
        self._call: IDelayedCall | None = None
        self._waiting: Deferred[Any] | None = None

    async def over(self, waiting: Deferred[T], limit_s: float) -> T:
        """What `waiting` fires with; it is cancelled when nothing moves for `limit_s` seconds."""
        self._waiting = waiting
        self.begin(limit_s)
        try:
            return await self._watched(waiting)
        finally:
            self._waiting = None
            self.rest()

    def moved(self, limit_s: float) -> None:
        """Something has moved; the next thing has to within `limit_s` seconds."""
        if self._call is not None:
            self._call.reset(limit_s)

    def begin(self, limit_s: float) -> None:
        """From now on something has to move within `limit_s` seconds."""
        self.rest()
        if self._waiting is not None:
            self._call = self._reactor.callLater(limit_s, self._expire, self._waiting)

    def rest(self) -> None:
        """For now nothing has to move."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _watched(self, waiting: Deferred[T]) -> Deferred[T]:
        """The same as `waiting`. Twisted's client answers a cancellation with errors of many kinds,
        so it is noted here that there was one.
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

    def _expire(self, waiting: Deferred[Any]) -> None:
        self._call = None
        self.expired = True
        waiting.cancel()


class LeastPace:
    """How fast content arrives: at least `least` bytes a second on average, over every `window_s`
    seconds of waiting for it. The time in which the reader does something else does not count.
    """

    def __init__(self, reactor: Any, least: int, window_s: float) -> None:
        self._reactor = reactor
        self._least = least
        self._window_s = window_s
        self._waited_s = 0.0
        self._received = 0

    async def over(self, watch: IdleTimer, reading: Deferred[list[bytes]]) -> list[bytes]:
        """What `reading` fires with. `watch` ends it if nothing arrives for `window_s` seconds.

        :raises Unreachable: when too few bytes have arrived.
        """
        since = self._reactor.seconds()
        pieces = await watch.over(reading, self._window_s)
        self._waited_s += self._reactor.seconds() - since
        self._received += sum(map(len, pieces))
        if self._waited_s >= self._window_s:
            if pieces and self._received < self._least * self._window_s:
                raise Unreachable(
                    f"the service sends fewer than {self._least} bytes a second", was_sent=True
                )
            self._waited_s, self._received = 0.0, 0
        return pieces

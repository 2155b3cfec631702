"""Ends a wait in which nothing moves for too long."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

T = TypeVar("T")


class Watch:
    """`expired` is whether it has ended a wait."""

    def __init__(self, reactor: Any) -> None:
        self.expired = False
        self._reactor = reactor
        self._call: IDelayedCall | None = None

    async def over(self, waiting: Deferred[T], limit_s: float) -> T:
        """What `waiting` fires with; it is cancelled when nothing moves for `limit_s` seconds."""
        self._call = self._reactor.callLater(limit_s, self._expire, waiting)
        try:
            return await waiting
        finally:
            call, self._call = self._call, None
            if call is not None:
                call.cancel()

    def moved(self, limit_s: float) -> None:
        """Something has moved; the next thing has to within `limit_s` seconds."""
        if self._call is not None:
            self._call.reset(limit_s)

    def _expire(self, waiting: Deferred[Any]) -> None:
        self._call = None
        self.expired = True
        waiting.cancel()

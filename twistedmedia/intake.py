"""The one way in: every front end hands the files it receives to this.

How many may upload at once, and that what is being published is published to its end, whoever
leaves, is decided here; what becomes of one file, in `arrival`.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.arrival import PLAIN, Arrival, Coding, Limits
from twistedmedia.boundaries import KeptDraft, Store
from twistedmedia.errors import RETRY_AFTER_S, Busy, MediaError
from twistedmedia.shielding import shielded

T = TypeVar("T")


class Intake:
    """Takes files into a store."""

    _log = Logger()

    def __init__(self, store: Store, limits: Limits) -> None:
        self.store = store
        self.limits = limits
        self._uploads = 0
        self._unbroken = 0
        self._waiting_for_quiet: list[Deferred[None]] = []

    @property
    def uploads(self) -> int:
        """How many requests are uploading."""
        return self._uploads

    @contextmanager
    def upload(self) -> Iterator[None]:
        """The time in which one request uploads.

        :raises Busy: when as many do as may.
        """
        if self._uploads >= self.limits.max_uploads:
            raise Busy(RETRY_AFTER_S)
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    def arrival(
        self,
        source: str,
        *,
        declared: int | None = None,
        coding: Coding = PLAIN,
        draft: KeptDraft | None = None,
    ) -> Arrival:
        """A file begins to arrive, or goes on; see `Arrival`."""
        return Arrival(self.store, self.limits, source, declared, coding, draft)

    async def publish(self, arrivals: list[Arrival]) -> None:
        """Publish the arrivals that have not failed, in their order. Once begun this goes on to the
        end, whoever stops waiting. Those that fail have a `failure` then, the others `stored`.
        """
        for arrival in arrivals:
            arrival.publishing = True
        await self.unbroken(self._publish(arrivals))

    def unbroken(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """What `work` comes to. It goes on to its end, whoever stops waiting."""
        self._unbroken += 1
        working = ensureDeferred(work)
        working.addBoth(self._ended)
        return shielded(working, unclaimed=self._unclaimed)

    def quiet(self) -> Deferred[None]:
        """Fires when nothing is under way that must not be broken off."""
        waiting: Deferred[None] = Deferred()
        self._waiting_for_quiet.append(waiting)
        self._tell_quiet()
        return waiting

    async def _publish(self, arrivals: list[Arrival]) -> None:
        try:
            for arrival in arrivals:
                await arrival.publish()
        finally:
            for arrival in arrivals:
                arrival.let_go()

    def _ended(self, outcome: T) -> T:
        self._unbroken -= 1
        self._tell_quiet()
        return outcome

    def _tell_quiet(self) -> None:
        if self._unbroken == 0:
            waiting, self._waiting_for_quiet = self._waiting_for_quiet, []
            for each in waiting:
                each.callback(None)

    def _unclaimed(self, outcome: object) -> None:
        if isinstance(outcome, Failure) and not outcome.check(MediaError, ConnectionLost):
            self._log.failure("what a client had begun failed after it had gone", outcome)

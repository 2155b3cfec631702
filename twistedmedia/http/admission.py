"""Which connections may stay: so many in all and from one address, as long as descriptors last.

The limit of descriptors lowers these bounds, so that connections leave some for files and fetches.

When they are used up, an idle one of the address that has most is closed for one of an address that
has fewer. Of its idle ones that is the one that connected first. If every address has one, an idle
one is closed for one of a new address.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from twisted.logger import Logger

from twistedmedia.errors import RETRY_AFTER_S, TooManyConnections
from twistedmedia.fairness import descriptors
from twistedmedia.fairness.pace import RECENT_S, RecentRate
from twistedmedia.fairness.shares import Holder, Share, Shares
from twistedmedia.http.addresses import LOCAL, Proxies, rate_limit_key
from twistedmedia.http.timeouts import progress_of

# So much of the descriptors is left to those who are in already: for the files that they store and
# read, and what they fetch.
_RESERVED_PART = 16
_LEAST_RESERVED = 16
# Of the descriptors, connections may take three quarters, refused ones included. Forms may take the
# other quarter. One address may take half.
_CONNECTIONS_PART = 3, 4
_ADDRESS_PART = 2
# Shares keep an eighth on top of a total.
_TOTAL_PART = 8, 9
# A connection gives way when it has sent fewer bytes a second lately, while content of it is to
# come; and when no request has come for some seconds.
_BUSY_RATE = 1024
_BETWEEN_LINES_S = 10.0  # of the log
# After so long a time it may be another response that a peer takes.
_ANOTHER_RESPONSE_S = 10 * RECENT_S


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Connections that there may be, in all and from one address, and refused ones that are told
    why: each of these keeps its descriptor for some seconds. More are closed without an answer.
    """

    connections: int = 10_000
    per_address: int = 2_000
    refused: int = 128

    def within(self, limit: int | None) -> ConnectionLimits:
        """These bounds, lowered for a process that may have `limit` descriptors."""
        if limit is None:
            return self
        refused = min(self.refused, _reserved(limit) // 2)
        room = limit * _CONNECTIONS_PART[0] // _CONNECTIONS_PART[1] - refused
        return ConnectionLimits(
            max(1, min(self.connections, room * _TOTAL_PART[0] // _TOTAL_PART[1])),
            max(1, min(self.per_address, limit // _ADDRESS_PART)),
            refused,
        )

    @property
    def descriptors(self) -> int:
        """A limit of descriptors that allows so many connections, in all and from one address."""
        room = -(-self.connections * _TOTAL_PART[1] // _TOTAL_PART[0]) + self.refused
        return max(
            -(-room * _CONNECTIONS_PART[1] // _CONNECTIONS_PART[0]),
            min(self.per_address, self.connections) * _ADDRESS_PART,
        )


class Admission:
    """The shares of connections, and who may have one. `shares` are the figures."""

    _log = Logger()

    def __init__(
        self, bounds: ConnectionLimits, proxies: Proxies, now_s: Callable[[], float]
    ) -> None:
        """Trusted `proxies`, and peers on UNIX sockets, may have as many connections as there are:
        each of those counts as a caller of its own, so none gives way.
        """
        self.shares = Shares(bounds.connections, _BUSY_RATE, now_s)
        self.wanted = bounds
        self.bounds = bounds
        self._limit: int | None = None
        self._proxies = proxies
        self.now_s = now_s
        self._told_s: float | None = None
        self._exempt = 0
        self.divide_descriptors()

    def divide_descriptors(self) -> None:
        """The limit of descriptors may have changed: set `bounds`, and the total of `shares`, to
        what it allows of the `wanted` ones.
        """
        limit = descriptors.limit()
        if limit != self._limit:
            self._limit = limit
            self.bounds = self.wanted.within(limit)
            self.shares.total = self.bounds.connections

    def enter(self, host: str, descriptor: int | None, connection: Holder) -> Share:
        """The share of one more connection, from `host`, to be released when it is gone.
        `descriptor` is its own: since the kernel gives the lowest that is free, at least as many
        are in use.

        :raises TooManyConnections: when its address has as many as it may.
        :raises Busy: when there are as many as there may be, and none of a larger share is idle.
        """
        self.divide_descriptors()
        is_exempt = self._is_exempt(host)
        if is_exempt:
            self._exempt += 1
            caller = f"{host} {self._exempt}"
        else:
            caller = rate_limit_key(host)
            if self.is_at_its_bound(host):
                raise TooManyConnections(RETRY_AFTER_S)
        guest = _Guest(self, host, connection, is_exempt)
        return self.shares.take(caller, guest, is_used_up=self._is_near_the_limit(descriptor))

    def _is_near_the_limit(self, descriptor: int | None) -> bool:
        if descriptor is None or self._limit is None:
            return False
        return descriptor >= self._limit - _reserved(self._limit)

    def is_at_its_bound(self, host: str) -> bool:
        """Whether the address `host` has as many connections as it may."""
        held = self.shares.held_by(rate_limit_key(host))
        return held >= self.bounds.per_address and not self._is_exempt(host)

    def _is_exempt(self, host: str) -> bool:
        return host == LOCAL or self._proxies.trusts(host)

    def tell(self, host: str) -> None:
        """Log that a connection of `host` gave way, unless such a line was written lately."""
        now_s = self.now_s()
        if self._told_s is None or now_s - self._told_s >= _BETWEEN_LINES_S:
            self._told_s = now_s
            self._log.warn(
                "gave way: idle connections of {host}, to addresses that have fewer", host=host
            )


class _Guest:
    """A connection that may have to give way: a `shares.Holder`."""

    __slots__ = ("_admission", "_asked_s", "_connection", "_host", "_is_exempt", "_taking")

    def __init__(
        self, admission: Admission, host: str, connection: Holder, is_exempt: bool
    ) -> None:
        """One that `is_exempt` never gives way."""
        self._admission = admission
        self._host = host
        self._connection = connection
        self._is_exempt = is_exempt
        self._taking: RecentRate | None = None  # while a response is taken
        self._asked_s = 0.0

    def pace(self) -> float | None:
        if self._is_exempt:
            return math.inf
        pace = self._connection.pace()
        return self._taking_pace() if pace == 0 else pace

    def _taking_pace(self) -> float | None:
        """How fast the peer takes the last response: the kernel may still be sending it. It is
        measured from one question to the next.
        """
        taken, lags = progress_of(self._connection)
        if not lags:
            self._taking = None
            return 0.0
        now_s = self._admission.now_s()
        if self._taking is None or now_s - self._asked_s > _ANOTHER_RESPONSE_S:
            self._taking = RecentRate(now_s, taken)
        self._asked_s = now_s
        self._taking.update(now_s, taken)
        return self._taking.bytes_per_s(taken)

    def give_way(self) -> None:
        self._admission.tell(self._host)
        self._connection.give_way()


def _reserved(limit: int) -> int:
    """How many of `limit` descriptors are left to those who are in."""
    return max(limit // _RESERVED_PART, _LEAST_RESERVED)

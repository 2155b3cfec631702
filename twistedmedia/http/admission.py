"""Admission of connections: limits in all and for each address, within the limit of descriptors.

The limit of descriptors lowers these limits, so that enough is left for files and fetches. When all
connections are used, an idle connection of the address with the most is closed for an address with
fewer: the one that connected first. If every address has one, an idle connection is closed for a
new address.
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
from twistedmedia.http.transport import progress_of

# The part of the descriptors that is kept for admitted connections: for the files that they store
# and read, and for fetches.
_RESERVED_PART = 16
_LEAST_RESERVED = 16
# Connections may take three quarters of the descriptors, refused ones included. Forms may take the
# rest. One address may take half.
_CONNECTIONS_PART = 3, 4
_ADDRESS_PART = 2
# `Shares` adds an eighth to a total.
_TOTAL_PART = 8, 9
# A connection may have to give way if its content arrives at fewer bytes a second, or if no request
# has arrived for some seconds.
_BUSY_RATE = 1024
_LOG_INTERVAL_S = 10.0
# After this time the peer may be reading another response.
_ANOTHER_RESPONSE_S = 10 * RECENT_S


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections are allowed, in all and from one address, and how many are refused with
    a response at a time. Such a connection keeps its descriptor for some seconds. More of them are
    closed without a response.
    """

    connections: int = 10_000
    per_address: int = 2_000
    refused: int = 128

    def within(self, limit: int | None) -> ConnectionLimits:
        """Return these limits, lowered for a process that may have `limit` descriptors."""
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
        """The limit of descriptors that these limits need."""
        room = -(-self.connections * _TOTAL_PART[1] // _TOTAL_PART[0]) + self.refused
        return max(
            -(-room * _CONNECTIONS_PART[1] // _CONNECTIONS_PART[0]),
            min(self.per_address, self.connections) * _ADDRESS_PART,
        )


class Admission:
    """Gives each admitted connection a share. `limits` are those that hold for now."""

    _log = Logger()

    def __init__(
        self, limits: ConnectionLimits, proxies: Proxies, now_s: Callable[[], float]
    ) -> None:
        """Trusted `proxies`, and peers on UNIX sockets, may have all connections: each connection
        counts as a caller of its own, so none gives way.
        """
        self.shares = Shares(limits.connections, _BUSY_RATE, now_s)
        self.limits = limits
        self.configured = limits
        self._descriptors: int | None = None  # their limit
        self._proxies = proxies
        self.now_s = now_s
        self._logged_s: float | None = None
        self._exempt = 0
        self.divide_descriptors()

    def divide_descriptors(self) -> None:
        """Set `limits`, and the total of `shares`, to what the limit of descriptors allows now."""
        limit = descriptors.limit()
        if limit != self._descriptors:
            self._descriptors = limit
            self.limits = self.configured.within(limit)
            self.shares.total = self.limits.connections

    def enter(self, host: str, descriptor: int | None, connection: Holder) -> Share:
        """Return the share of a new connection from `host`. Release it when the connection ends.
        `descriptor` is that of the connection: the kernel assigns the lowest free one, so at least
        as many are in use.

        :raises TooManyConnections: if its address is at its limit.
        :raises Busy: if all connections are used, and no larger share has an idle one.
        """
        self.divide_descriptors()
        is_exempt = self._is_exempt(host)
        if is_exempt:
            self._exempt += 1
            caller = f"{host} {self._exempt}"
        else:
            caller = rate_limit_key(host)
            if self.is_at_limit(host):
                raise TooManyConnections(RETRY_AFTER_S)
        holder = _AdmittedConnection(self, host, connection, is_exempt)
        return self.shares.take(caller, holder, is_used_up=self._is_near_limit(descriptor))

    def _is_near_limit(self, descriptor: int | None) -> bool:
        limit = self._descriptors
        if descriptor is None or limit is None:
            return False
        return descriptor >= limit - _reserved(limit)

    def is_at_limit(self, host: str) -> bool:
        """Whether the address `host` has all the connections that one address may have."""
        held = self.shares.held_by(rate_limit_key(host))
        return held >= self.limits.per_address and not self._is_exempt(host)

    def _is_exempt(self, host: str) -> bool:
        return host == LOCAL or self._proxies.trusts(host)

    def log_gave_way(self, host: str) -> None:
        """Log that a connection of `host` gave way, unless such a line was written lately."""
        now_s = self.now_s()
        if self._logged_s is None or now_s - self._logged_s >= _LOG_INTERVAL_S:
            self._logged_s = now_s
            self._log.warn(
                "gave way: idle connections of {host}, to addresses that have fewer", host=host
            )


class _AdmittedConnection:
    """An admitted connection, as a `shares.Holder`."""

    __slots__ = ("_admission", "_connection", "_host", "_is_exempt", "_measured_s", "_read_rate")

    def __init__(
        self, admission: Admission, host: str, connection: Holder, is_exempt: bool
    ) -> None:
        """A connection that `is_exempt` never gives way."""
        self._admission = admission
        self._host = host
        self._connection = connection
        self._is_exempt = is_exempt
        self._read_rate: RecentRate | None = None  # while the peer reads a response
        self._measured_s = 0.0

    def pace(self) -> float | None:
        if self._is_exempt:
            return math.inf
        pace = self._connection.pace()
        return self._read_pace() if pace == 0 else pace

    def _read_pace(self) -> float | None:
        """Return how fast the peer reads the last response, which the kernel may still be sending.
        It is measured from one call to the next.
        """
        taken, lags = progress_of(self._connection)
        if not lags:
            self._read_rate = None
            return 0.0
        now_s = self._admission.now_s()
        if self._read_rate is None or now_s - self._measured_s > _ANOTHER_RESPONSE_S:
            self._read_rate = RecentRate(now_s, taken)
        self._measured_s = now_s
        self._read_rate.update(now_s, taken)
        return self._read_rate.bytes_per_s(taken)

    def give_way(self) -> None:
        self._admission.log_gave_way(self._host)
        self._connection.give_way()


def _reserved(limit: int) -> int:
    """Return how many of `limit` descriptors are kept for admitted connections."""
    return max(limit // _RESERVED_PART, _LEAST_RESERVED)

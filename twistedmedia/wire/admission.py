"""How many may come in: connections in all, from one address, and as descriptors last."""

from __future__ import annotations

import resource
from collections import Counter
from dataclasses import dataclass

from twistedmedia.errors import RETRY_AFTER_S, Busy, MediaError, TooManyConnections
from twistedmedia.wire.hosts import LOCAL, customer_of
from twistedmedia.wire.proxies import Proxies

# So much of the descriptors is left to those who are in already: for the files that they store and
# read, and what they fetch.
_RESERVED_PART = 16
_LEAST_RESERVED = 16


@dataclass(frozen=True, slots=True)
class Bounds:
    """Connections that there may be, in all and from one address."""

    connections: int = 10_000
    per_address: int = 2_000


class Admission:
    """Counts who is in."""

    def __init__(self, bounds: Bounds, proxies: Proxies) -> None:
        """Trusted `proxies` may have as many connections as there are."""
        self._bounds = bounds
        self._proxies = proxies
        self._inside = 0
        self._by_address: Counter[str] = Counter()

    def enter(self, host: str, descriptor: int | None) -> MediaError | None:
        """One more connection, from `host`; why it cannot stay, or None. It counts until it leaves,
        whether it can stay or not. `descriptor` is its own: since the kernel gives the lowest that
        is free, at least as many are in use.
        """
        customer = customer_of(host)
        self._inside += 1
        self._by_address[customer] += 1
        if self._inside > self._bounds.connections or _is_near_the_limit(descriptor):
            return Busy(RETRY_AFTER_S)
        if self._by_address[customer] > self._bounds.per_address and not self._is_exempt(host):
            return TooManyConnections(RETRY_AFTER_S)
        return None

    def leave(self, host: str) -> None:
        """A connection that had entered is gone."""
        customer = customer_of(host)
        self._inside -= 1
        self._by_address[customer] -= 1
        if not self._by_address[customer]:
            del self._by_address[customer]

    def _is_exempt(self, host: str) -> bool:
        return host == LOCAL or self._proxies.trusts(host)


def _is_near_the_limit(descriptor: int | None) -> bool:
    if descriptor is None:
        return False
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return False
    return descriptor >= limit - max(limit // _RESERVED_PART, _LEAST_RESERVED)

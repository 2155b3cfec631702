"""Callers: who asks for an operation of the library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from twistedmedia.http.addresses import rate_limit_key


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `address` is the client's, for the log. What an operation takes of a scarce thing
    counts in the share of `key`.
    """

    address: str
    key: str

    @classmethod
    def at(cls, address: str) -> Self:
        """The caller at an address: callers of one network share a key if their addresses do (see
        `rate_limit_key`).
        """
        return cls(address, rate_limit_key(address))


# For work that several callers wait for, such as a page of a listing.
ANY_CALLER = Caller("", "")

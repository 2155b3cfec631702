"""The limit of the process for descriptors: each connection, file and fetch needs one.

The usual soft limit of 1,024 exists for programs that use select(2); the service raises it.
"""

from __future__ import annotations

import resource

_WANTED = 65_536  # connections cost little


def limit() -> int | None:
    """How many descriptors the process may have; None if there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_limit(wanted: int) -> None:
    """Raise the limit to `wanted`, but at least to 65,536, as far as the hard limit permits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(wanted, _WANTED)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

"""The limit of the process for descriptors: each connection, file and fetch needs one.

The service raises the usual soft limit of 1,024: see `service.process`.
"""

from __future__ import annotations

import resource


def limit() -> int | None:
    """How many descriptors the process may have; None if there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft

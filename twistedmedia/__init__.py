"""A home for an application's audio: streamed in over HTTP, kept durably, served back seekable.

What other programs may import comes from here and is loaded when it is first asked for, so that
importing a pure module (`twistedmedia.names`, say) imports no Twisted.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "DirectoryStore": "twistedmedia.store.directory",
    "MemoryStore": "twistedmedia.store.memory",
    "Intake": "twistedmedia.intake",
    "Fetcher": "twistedmedia.fetching.fetcher",
    "Limits": "twistedmedia.arrival",
    "media_resource": "twistedmedia.web.tree",
    "media_site": "twistedmedia.wire.site",
    "MediaSite": "twistedmedia.wire.site",
    "Patience": "twistedmedia.wire.patience",
    "Proxies": "twistedmedia.wire.proxies",
    "Strangers": "twistedmedia.web.strangers",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)

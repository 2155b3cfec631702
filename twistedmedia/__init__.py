"""A home for an application's audio: streamed in over HTTP, kept durably, served back seekable.

What other programs may import comes from here and is loaded when it is first asked for, so that
importing a pure module (`twistedmedia.names`, say) imports no Twisted.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "DirectoryStore": "twistedmedia.store.directory",
    "MemoryStore": "twistedmedia.store.memory",
    "Intake": "twistedmedia.intake",
    "media_resource": "twistedmedia.web.tree",
    "MediaSite": "twistedmedia.wire.site",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)

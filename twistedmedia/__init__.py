"""A home for an application's audio: streamed in over HTTP, kept durably, served back seekable.

What other programs may import comes from here (docs/embedding.md) and is loaded when it is first
asked for, so that importing a pure module (`twistedmedia.names`, say) imports no Twisted.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_EXPORTS = {
    "Limits": "twistedmedia.arrival",
    "Checking": "twistedmedia.arrival",
    "Store": "twistedmedia.boundaries",
    "use_monotonic_time": "twistedmedia.clock",
    "ConfigurationError": "twistedmedia.errors",
    "MediaError": "twistedmedia.errors",
    "Policy": "twistedmedia.fetching.addresses",
    "parse_opening": "twistedmedia.fetching.addresses",
    "Fetcher": "twistedmedia.fetching.fetcher",
    "Terms": "twistedmedia.fetching.fetcher",
    "Upstream": "twistedmedia.fetching.fetcher",
    "Lookups": "twistedmedia.fetching.lookups",
    "Trust": "twistedmedia.fetching.trust",
    "parse_url": "twistedmedia.fetching.urls",
    "Intake": "twistedmedia.intake",
    "Uploads": "twistedmedia.resuming",
    "DirectoryStore": "twistedmedia.store.directory",
    "MemoryStore": "twistedmedia.store.memory",
    "Body": "twistedmedia.streaming",
    "BodyMemory": "twistedmedia.streaming",
    "parse_origins": "twistedmedia.web.origins",
    "Strangers": "twistedmedia.web.strangers",
    "Fetches": "twistedmedia.web.tree",
    "media_resource": "twistedmedia.web.tree",
    "AccessLog": "twistedmedia.wire.access_log",
    "Bounds": "twistedmedia.wire.admission",
    "IStreamsBody": "twistedmedia.wire.body",
    "body_of": "twistedmedia.wire.body",
    "Patience": "twistedmedia.wire.patience",
    "Proxies": "twistedmedia.wire.proxies",
    "parse_proxies": "twistedmedia.wire.proxies",
    "MediaSite": "twistedmedia.wire.site",
    "media_site": "twistedmedia.wire.site",
}

__all__ = list(_EXPORTS)

if TYPE_CHECKING:  # the same, for those who check types
    from twistedmedia.arrival import Checking as Checking
    from twistedmedia.arrival import Limits as Limits
    from twistedmedia.boundaries import Store as Store
    from twistedmedia.clock import use_monotonic_time as use_monotonic_time
    from twistedmedia.errors import ConfigurationError as ConfigurationError
    from twistedmedia.errors import MediaError as MediaError
    from twistedmedia.fetching.addresses import Policy as Policy
    from twistedmedia.fetching.addresses import parse_opening as parse_opening
    from twistedmedia.fetching.fetcher import Fetcher as Fetcher
    from twistedmedia.fetching.fetcher import Terms as Terms
    from twistedmedia.fetching.fetcher import Upstream as Upstream
    from twistedmedia.fetching.lookups import Lookups as Lookups
    from twistedmedia.fetching.trust import Trust as Trust
    from twistedmedia.fetching.urls import parse_url as parse_url
    from twistedmedia.intake import Intake as Intake
    from twistedmedia.resuming import Uploads as Uploads
    from twistedmedia.store.directory import DirectoryStore as DirectoryStore
    from twistedmedia.store.memory import MemoryStore as MemoryStore
    from twistedmedia.streaming import Body as Body
    from twistedmedia.streaming import BodyMemory as BodyMemory
    from twistedmedia.web.origins import parse_origins as parse_origins
    from twistedmedia.web.strangers import Strangers as Strangers
    from twistedmedia.web.tree import Fetches as Fetches
    from twistedmedia.web.tree import media_resource as media_resource
    from twistedmedia.wire.access_log import AccessLog as AccessLog
    from twistedmedia.wire.admission import Bounds as Bounds
    from twistedmedia.wire.body import IStreamsBody as IStreamsBody
    from twistedmedia.wire.body import body_of as body_of
    from twistedmedia.wire.patience import Patience as Patience
    from twistedmedia.wire.proxies import Proxies as Proxies
    from twistedmedia.wire.proxies import parse_proxies as parse_proxies
    from twistedmedia.wire.site import MediaSite as MediaSite
    from twistedmedia.wire.site import media_site as media_site
else:  # a checker that saw this would take every name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})

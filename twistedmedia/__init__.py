"""A home for an application's audio: streamed in over HTTP, kept durably, served back seekable.

What other programs may import comes from here (docs/embedding.md) and is loaded when it is first
asked for, so that importing a pure module (`twistedmedia.names`, say) imports no Twisted.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_EXPORTS = {
    "Limits": "twistedmedia.library.upload",
    "Checking": "twistedmedia.library.upload",
    "Store": "twistedmedia.store.interface",
    "use_monotonic_time": "twistedmedia.clock",
    "ConfigurationError": "twistedmedia.errors",
    "MediaError": "twistedmedia.errors",
    "Policy": "twistedmedia.fetch.policy",
    "parse_opening": "twistedmedia.fetch.policy",
    "Fetcher": "twistedmedia.fetch.fetcher",
    "Terms": "twistedmedia.fetch.fetcher",
    "Upstream": "twistedmedia.fetch.fetcher",
    "Lookups": "twistedmedia.fetch.resolver",
    "Trust": "twistedmedia.fetch.certificates",
    "parse_url": "twistedmedia.fetch.urls",
    "Intake": "twistedmedia.library.library",
    "Uploads": "twistedmedia.library.resumable",
    "DirectoryStore": "twistedmedia.store.local.directory",
    "MemoryStore": "twistedmedia.store.memory",
    "Body": "twistedmedia.http.body",
    "BodyMemory": "twistedmedia.http.body",
    "parse_origins": "twistedmedia.web.cross_site",
    "Strangers": "twistedmedia.web.cross_site",
    "Fetches": "twistedmedia.web.tree",
    "media_resource": "twistedmedia.web.tree",
    "AccessLog": "twistedmedia.logs.access_log",
    "Bounds": "twistedmedia.http.admission",
    "IStreamsBody": "twistedmedia.http.body",
    "body_of": "twistedmedia.http.body",
    "Patience": "twistedmedia.http.timeouts",
    "Proxies": "twistedmedia.http.addresses",
    "parse_proxies": "twistedmedia.http.addresses",
    "MediaSite": "twistedmedia.http.site",
    "media_site": "twistedmedia.http.site",
}

__all__ = list(_EXPORTS)

if TYPE_CHECKING:  # the same, for those who check types
    from twistedmedia.clock import use_monotonic_time as use_monotonic_time
    from twistedmedia.errors import ConfigurationError as ConfigurationError
    from twistedmedia.errors import MediaError as MediaError
    from twistedmedia.fetch.certificates import Trust as Trust
    from twistedmedia.fetch.fetcher import Fetcher as Fetcher
    from twistedmedia.fetch.fetcher import Terms as Terms
    from twistedmedia.fetch.fetcher import Upstream as Upstream
    from twistedmedia.fetch.policy import Policy as Policy
    from twistedmedia.fetch.policy import parse_opening as parse_opening
    from twistedmedia.fetch.resolver import Lookups as Lookups
    from twistedmedia.fetch.urls import parse_url as parse_url
    from twistedmedia.http.addresses import Proxies as Proxies
    from twistedmedia.http.addresses import parse_proxies as parse_proxies
    from twistedmedia.http.admission import Bounds as Bounds
    from twistedmedia.http.body import Body as Body
    from twistedmedia.http.body import BodyMemory as BodyMemory
    from twistedmedia.http.body import IStreamsBody as IStreamsBody
    from twistedmedia.http.body import body_of as body_of
    from twistedmedia.http.site import MediaSite as MediaSite
    from twistedmedia.http.site import media_site as media_site
    from twistedmedia.http.timeouts import Patience as Patience
    from twistedmedia.library.library import Intake as Intake
    from twistedmedia.library.resumable import Uploads as Uploads
    from twistedmedia.library.upload import Checking as Checking
    from twistedmedia.library.upload import Limits as Limits
    from twistedmedia.logs.access_log import AccessLog as AccessLog
    from twistedmedia.store.interface import Store as Store
    from twistedmedia.store.local.directory import DirectoryStore as DirectoryStore
    from twistedmedia.store.memory import MemoryStore as MemoryStore
    from twistedmedia.web.cross_site import Strangers as Strangers
    from twistedmedia.web.cross_site import parse_origins as parse_origins
    from twistedmedia.web.tree import Fetches as Fetches
    from twistedmedia.web.tree import media_resource as media_resource
else:  # a checker that saw this would take every name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})

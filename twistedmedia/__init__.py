"""Stores an application's audio: received as a stream over HTTP, kept durably, served seekable.

Other programs import from here (docs/embedding.md). Each name is loaded when it is first used, so
that importing a pure module, such as `twistedmedia.names`, does not import Twisted.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_EXPORTS = {
    "UploadLimits": "twistedmedia.library.upload_limits",
    "AudioCheckMode": "twistedmedia.library.upload_limits",
    "Store": "twistedmedia.store.interface",
    "use_monotonic_time": "twistedmedia.clock",
    "ConfigurationError": "twistedmedia.errors",
    "MediaError": "twistedmedia.errors",
    "Policy": "twistedmedia.fetch.policy",
    "parse_allow_rule": "twistedmedia.fetch.policy",
    "Fetcher": "twistedmedia.fetch.fetcher",
    "FetchLimits": "twistedmedia.fetch.fetcher",
    "Upstream": "twistedmedia.fetch.fetcher",
    "Resolver": "twistedmedia.fetch.resolver",
    "CertificateVerifier": "twistedmedia.fetch.certificates",
    "parse_url": "twistedmedia.fetch.urls",
    "Library": "twistedmedia.library.library",
    "ResumableUploads": "twistedmedia.library.resumable",
    "DirectoryStore": "twistedmedia.store.local.directory",
    "MemoryStore": "twistedmedia.store.memory",
    "Body": "twistedmedia.http.body",
    "BodyMemory": "twistedmedia.http.body",
    "parse_origins": "twistedmedia.web.cross_site",
    "CsrfPolicy": "twistedmedia.web.cross_site",
    "Fetches": "twistedmedia.library.importing",
    "media_resource": "twistedmedia.web.tree",
    "AccessLog": "twistedmedia.logs.access_log",
    "ConnectionLimits": "twistedmedia.http.admission",
    "IStreamsBody": "twistedmedia.http.body",
    "body_of": "twistedmedia.http.body",
    "Timeouts": "twistedmedia.http.timeouts",
    "Proxies": "twistedmedia.http.addresses",
    "parse_proxies": "twistedmedia.http.addresses",
    "MediaSite": "twistedmedia.http.site",
    "media_site": "twistedmedia.http.site",
}

__all__ = list(_EXPORTS)

if TYPE_CHECKING:  # the same names for type checkers
    from twistedmedia.clock import use_monotonic_time as use_monotonic_time
    from twistedmedia.errors import ConfigurationError as ConfigurationError
    from twistedmedia.errors import MediaError as MediaError
    from twistedmedia.fetch.certificates import CertificateVerifier as CertificateVerifier
    from twistedmedia.fetch.fetcher import Fetcher as Fetcher
    from twistedmedia.fetch.fetcher import FetchLimits as FetchLimits
    from twistedmedia.fetch.fetcher import Upstream as Upstream
    from twistedmedia.fetch.policy import Policy as Policy
    from twistedmedia.fetch.policy import parse_allow_rule as parse_allow_rule
    from twistedmedia.fetch.resolver import Resolver as Resolver
    from twistedmedia.fetch.urls import parse_url as parse_url
    from twistedmedia.http.addresses import Proxies as Proxies
    from twistedmedia.http.addresses import parse_proxies as parse_proxies
    from twistedmedia.http.admission import ConnectionLimits as ConnectionLimits
    from twistedmedia.http.body import Body as Body
    from twistedmedia.http.body import BodyMemory as BodyMemory
    from twistedmedia.http.body import IStreamsBody as IStreamsBody
    from twistedmedia.http.body import body_of as body_of
    from twistedmedia.http.site import MediaSite as MediaSite
    from twistedmedia.http.site import media_site as media_site
    from twistedmedia.http.timeouts import Timeouts as Timeouts
    from twistedmedia.library.importing import Fetches as Fetches
    from twistedmedia.library.library import Library as Library
    from twistedmedia.library.resumable import ResumableUploads as ResumableUploads
    from twistedmedia.library.upload_limits import AudioCheckMode as AudioCheckMode
    from twistedmedia.library.upload_limits import UploadLimits as UploadLimits
    from twistedmedia.logs.access_log import AccessLog as AccessLog
    from twistedmedia.store.interface import Store as Store
    from twistedmedia.store.local.directory import DirectoryStore as DirectoryStore
    from twistedmedia.store.memory import MemoryStore as MemoryStore
    from twistedmedia.web.cross_site import CsrfPolicy as CsrfPolicy
    from twistedmedia.web.cross_site import parse_origins as parse_origins
    from twistedmedia.web.tree import media_resource as media_resource
else:  # type checkers would accept any name

    def __getattr__(name: str) -> object:
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})

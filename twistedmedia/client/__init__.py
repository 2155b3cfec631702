"""A client of the service: `MediaClient`, and the command `twistedmedia` (docs/client.md).

The public names are loaded on first access, so that the pure modules can be imported without
Twisted.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

_EXPORTS = {
    "ClientError": "twistedmedia.client.exceptions",
    "IntegrityError": "twistedmedia.client.exceptions",
    "InvalidResponse": "twistedmedia.client.exceptions",
    "LocalFailure": "twistedmedia.client.exceptions",
    "NotAService": "twistedmedia.client.exceptions",
    "Refused": "twistedmedia.client.exceptions",
    "Unreachable": "twistedmedia.client.exceptions",
    "MediaClient": "twistedmedia.client.media",
    "Downloaded": "twistedmedia.client.outcomes",
    "Entry": "twistedmedia.client.outcomes",
    "Fetched": "twistedmedia.client.outcomes",
    "Found": "twistedmedia.client.outcomes",
    "Health": "twistedmedia.client.outcomes",
    "Page": "twistedmedia.client.outcomes",
    "Stored": "twistedmedia.client.outcomes",
    "ClientTimeouts": "twistedmedia.client.idle_timeouts",
    "UploadRecords": "twistedmedia.client.upload_records",
    "Retries": "twistedmedia.client.retries",
    "ResumeStore": "twistedmedia.client.upload_records",
}

__all__ = list(_EXPORTS)

if TYPE_CHECKING:  # the same names, for type checkers
    from twistedmedia.client.exceptions import ClientError as ClientError
    from twistedmedia.client.exceptions import IntegrityError as IntegrityError
    from twistedmedia.client.exceptions import InvalidResponse as InvalidResponse
    from twistedmedia.client.exceptions import LocalFailure as LocalFailure
    from twistedmedia.client.exceptions import NotAService as NotAService
    from twistedmedia.client.exceptions import Refused as Refused
    from twistedmedia.client.exceptions import Unreachable as Unreachable
    from twistedmedia.client.idle_timeouts import ClientTimeouts as ClientTimeouts
    from twistedmedia.client.media import MediaClient as MediaClient
    from twistedmedia.client.outcomes import Downloaded as Downloaded
    from twistedmedia.client.outcomes import Entry as Entry
    from twistedmedia.client.outcomes import Fetched as Fetched
    from twistedmedia.client.outcomes import Found as Found
    from twistedmedia.client.outcomes import Health as Health
    from twistedmedia.client.outcomes import Page as Page
    from twistedmedia.client.outcomes import Stored as Stored
    from twistedmedia.client.retries import Retries as Retries
    from twistedmedia.client.upload_records import ResumeStore as ResumeStore
    from twistedmedia.client.upload_records import UploadRecords as UploadRecords
else:  # a type checker that sees this function accepts every name

    def __getattr__(name: str) -> object:
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})

"""The headers of tus 1.0.0, the protocol of resumable uploads (https://tus.io/protocols/resumable-upload).

Pure.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

from twistedmedia.client.answers import count
from twistedmedia.client.errors import Garbled
from twistedmedia.names import MediaName
from twistedmedia.wire.tus import CONTENT_TYPE, VERSION

_VERSION = {"Tus-Resumable": VERSION}


def creation(name: MediaName, size: int, sha256: str) -> dict[str, str]:
    """The headers that create an upload of `size` bytes, to be stored as `name`."""
    metadata = {"directory": name.directory, "filename": name.filename, "sha256": sha256}
    encoded = [f"{key} {b64encode(value.encode()).decode()}" for key, value in metadata.items()]
    return {**_VERSION, "Upload-Length": str(size), "Upload-Metadata": ",".join(encoded)}


def asking() -> dict[str, str]:
    """The headers that ask how far an upload is."""
    return dict(_VERSION)


def continuation(offset: int) -> dict[str, str]:
    """The headers of content that goes on from `offset`."""
    return {
        **_VERSION,
        "Upload-Offset": str(offset),
        "Content-Type": CONTENT_TYPE,
    }


def offset_in(headers: Mapping[str, str], size: int, missing: int | None = None) -> int:
    """How many bytes of `size` the service has; `missing` when the answer need not say it.

    :raises Garbled: when it does not say, or that makes no sense.
    """
    offset = count(headers, "Upload-Offset")
    length = count(headers, "Upload-Length")
    offset = missing if offset is None else offset
    if offset is None or offset > size or length not in (None, size):
        raise Garbled("what the service says about the upload is contradictory or incomplete")
    return offset

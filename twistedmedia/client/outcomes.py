"""What the client's methods give back: values, read out of the service's answers.

Pure. Sizes are in bytes, digests SHA-256 in lower-case hex, entity tags as they stand in headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twistedmedia.client.bounds import MOST_ON_A_PAGE
from twistedmedia.client.exceptions import InvalidResponse
from twistedmedia.names import MAX_SEGMENT_BYTES

T = TypeVar("T")

_SHA256 = re.compile("[0-9a-f]{64}")
_ENDLESS = "the service's listing does not end: a page does not lead to a later one"
_MOST = (1 << 63) - 1  # of bytes, and of anything else that is counted


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that is stored. `url` is absolute. `etag` is None when it could not be learned.

    `identical`: it was stored before, with this very content. `replaced`: it took the place of
    another. `problem` is what is wrong with it as audio.
    """

    directory: str
    filename: str
    url: str
    size: int
    sha256: str
    etag: str | None
    identical: bool = False
    replaced: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What the service says of a file without sending it. `sha256` is None where not known.
    `modified` is the time of its last change, to the second, as in a listing.
    """

    size: int
    etag: str | None
    sha256: str | None
    modified: str | None = None


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that was downloaded to `path`. `received` bytes of its `size` came now; the others
    were there from an attempt before. `verified`: its digest is what the service says it is.
    """

    path: str
    size: int
    received: int
    sha256: str
    etag: str | None
    verified: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a directory in a listing. `name` is without slashes; directories have no size."""

    directory: str
    name: str
    is_directory: bool
    size: int | None = None
    modified: str | None = None  # RFC 3339, UTC; None for a date that it cannot express
    etag: str | None = None

    @property
    def path(self) -> str:
        """From the service's root on: `prompts/en/hello.mp3`."""
        return f"{self.directory}/{self.name}" if self.directory else self.name


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a directory's listing. `next` asks for the part behind it; None after the last.
    `left_out` is how many entries the service has there and does not list (docs/http.md).
    """

    entries: list[Entry]
    next: str | None
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """How the service is. `uploads` are in progress, `free` is how many bytes its storage has left
    and `storage` is `ok` or what is wrong with it; None where the service does not say. `told` is
    its whole answer.
    """

    version: str
    uptime_s: float
    uploads: int
    free: int | None
    storage: str | None
    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the service's fetch of a URL has cost. Times in seconds; `url` is where it led."""

    url: str
    status: int
    size: int
    time_cost: float
    timings: Mapping[str, float | None] = field(default_factory=dict)
    cache: str = ""


def stored(payload: Mapping[str, Any], url: str, size: int | None = None) -> Stored:
    """The one file in the answer to an upload; `url` is where it must be, as `size` is how large.

    :raises Garbled: when there is not exactly one, or it is not the one.
    """
    files = payload.get("files")
    if not isinstance(files, list) or len(files) != 1 or not isinstance(files[0], dict):
        raise InvalidResponse("the service's answer does not say what it has stored")
    entry = files[0]
    audio = entry.get("audio")
    sha256 = _member(entry, "sha256", str)
    found = Stored(
        directory=_member(entry, "directory", str),
        filename=_member(entry, "filename", str),
        url=url,
        size=_count(entry, "size"),
        sha256=sha256,
        etag=_member(entry, "etag", str),
        identical=entry.get("identical") is True,
        replaced=entry.get("replaced") is True,
        problem=str(audio.get("problem")) if isinstance(audio, dict) else None,
    )
    if _SHA256.fullmatch(sha256) is None or size not in (None, found.size):
        raise InvalidResponse(
            "the service says that it has stored something other than what was sent"
        )
    return found


def page(payload: Mapping[str, Any], directory: str, after: str | None = None) -> Page:
    """The page of the listing of `directory` that begins behind the name `after`.

    :raises Garbled: when it is not a page, or if asking for the next one would not end.
    """
    listed = _member(payload, "entries", list)
    if len(listed) > MOST_ON_A_PAGE:
        raise InvalidResponse(
            f"the service's listing has a page of more than {MOST_ON_A_PAGE} entries"
        )
    entries = [_entry(entry, directory, after) for entry in listed]
    following = payload.get("next")
    if following is not None:
        if not isinstance(following, str) or not _is_unicode(following):
            raise InvalidResponse("the service's listing is not well formed")
        if not entries or (after is not None and following <= after):  # in the order of UTF-8
            raise InvalidResponse(_ENDLESS)
    left_out = _count(payload, "left_out") if "left_out" in payload else 0
    return Page(entries, following, left_out)


def deleted(payload: Mapping[str, Any]) -> bool:
    """Whether there was a file, in the answer to a DELETE.

    :raises Garbled: when it does not say.
    """
    return _member(payload, "deleted", bool)


def health(payload: Mapping[str, Any]) -> Health:
    """The answer to a question about the service's health.

    :raises Garbled: when it is not one.
    """
    free, storage = payload.get("free"), payload.get("storage")
    if not (storage is None or isinstance(storage, str)):
        raise InvalidResponse("the service's answer has a 'storage' that is not text")
    return Health(
        version=_member(payload, "version", str),
        uptime_s=_seconds(payload, "uptime"),
        uploads=_count(payload, "uploads"),
        free=None if free is None else _count(payload, "free"),
        storage=storage,
        told=payload,
    )


def fetched(payload: Mapping[str, Any]) -> Fetched:
    """The answer to a fetch.

    :raises Garbled: when it is none.
    """
    timings = _member(payload, "timings", dict)
    for phase, value in timings.items():
        if value is not None:
            _seconds(timings, phase)
    return Fetched(
        url=_member(payload, "url", str),
        status=_count(payload, "status"),
        size=_count(payload, "size"),
        time_cost=_seconds(payload, "time_cost"),
        timings=timings,
        cache=str(payload.get("cache", "")),
    )


def _entry(entry: object, directory: str, after: str | None) -> Entry:
    if not isinstance(entry, dict):
        raise InvalidResponse("the service's listing is not well formed")
    name = _member(entry, "name", str)
    if after is not None and name <= after:
        raise InvalidResponse(_ENDLESS)
    bare = name.removesuffix("/")
    size = len(bare.encode("utf-8", "surrogatepass"))
    if not bare or "/" in bare or size > MAX_SEGMENT_BYTES:
        raise InvalidResponse("the service's listing contains an invalid name")
    if name != bare:
        return Entry(directory, bare, True)
    return Entry(
        directory,
        name,
        False,
        _count(entry, "size"),
        None if entry.get("modified", "") is None else _member(entry, "modified", str),
        _member(entry, "etag", str),
    )


def _member(payload: Mapping[str, Any], key: str, kind: type[T]) -> T:
    value = payload.get(key)
    if not isinstance(value, kind):
        raise InvalidResponse(f"the service's answer has no '{key}'")
    return value


def _count(payload: Mapping[str, Any], key: str) -> int:
    value = _member(payload, key, int)
    if not 0 <= value <= _MOST or isinstance(value, bool):
        raise InvalidResponse(f"the service's answer has a '{key}' that is not a count")
    return value


def _seconds(payload: Mapping[str, Any], key: str) -> float:
    value = payload.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidResponse(f"the service's answer has no '{key}'")
    if not 0 <= value <= _MOST:  # nor is NaN
        raise InvalidResponse(f"the service's answer has a '{key}' that is not a time")
    return float(value)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)

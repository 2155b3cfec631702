"""The results of the client's methods, parsed from the service's JSON.

Pure. Sizes are in bytes, digests are SHA-256 in lower-case hex, entity tags are as in headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twistedmedia.client.client_limits import MAX_PAGE_ENTRIES
from twistedmedia.client.exceptions import InvalidResponse
from twistedmedia.names import MAX_SEGMENT_BYTES

T = TypeVar("T")

_SHA256 = re.compile("[0-9a-f]{64}")
_ENDLESS = "the service's listing does not end: a page does not lead to a later one"
_MAX_COUNT = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored file. `url` is absolute. `etag` is None when it could not be determined.

    `identical`: the service had the file already, with the same content. `replaced`: it replaced
    another file. `problem` says what is wrong with it as audio.
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
    """The properties of a file at the service. `sha256` is None if the service does not know it.
    `modified` is the time of the last change, in the format of a listing, without fractions of a
    second.
    """

    size: int
    etag: str | None
    sha256: str | None
    modified: str | None = None


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that was downloaded to `path`. `received` is the number of bytes received now; the
    rest of `size` is from an earlier attempt. `verified`: the digest matches the service's.
    """

    path: str
    size: int
    received: int
    sha256: str
    etag: str | None
    verified: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or directory in a listing. `name` has no slashes. A directory has no size."""

    directory: str
    name: str
    is_directory: bool
    size: int | None = None
    modified: str | None = None  # RFC 3339, UTC; None for a year that it cannot express
    etag: str | None = None

    @property
    def path(self) -> str:
        """The path from the service's root, such as `prompts/en/hello.mp3`."""
        return f"{self.directory}/{self.name}" if self.directory else self.name


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a directory's listing. `next` is the `after` of the next page, or None. `left_out`
    is the number of entries that the service does not list (docs/http.md).
    """

    entries: list[Entry]
    next: str | None
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the service. `uploads` is the number of uploads in progress, `free` the free
    space in bytes, `storage` is `ok` or a problem; the last two are None if the service does not
    report them. `payload` is its whole response.
    """

    version: str
    uptime_s: float
    uploads: int
    free: int | None
    storage: str | None
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A fetch of a URL by the service. Times are in seconds; `url` is the one after redirects."""

    url: str
    status: int
    size: int
    time_cost: float
    timings: Mapping[str, float | None] = field(default_factory=dict)
    cache: str = ""


def stored(payload: Mapping[str, Any], url: str, size: int | None = None) -> Stored:
    """Parse the response to an upload of a file of `size` bytes to `url`.

    :raises InvalidResponse: when it does not have exactly one file, or another one.
    """
    files = payload.get("files")
    if not isinstance(files, list) or len(files) != 1 or not isinstance(files[0], dict):
        raise InvalidResponse("the service's response does not say what it has stored")
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
        raise InvalidResponse("the service says that it has stored other content than was sent")
    return found


def page(payload: Mapping[str, Any], directory: str, after: str | None = None) -> Page:
    """Parse the page of the listing of `directory` that begins after the name `after`.

    :raises InvalidResponse: when it is not a page, or does not lead to a later one.
    """
    listed = _member(payload, "entries", list)
    if len(listed) > MAX_PAGE_ENTRIES:
        raise InvalidResponse(
            f"the service's listing has a page of more than {MAX_PAGE_ENTRIES} entries"
        )
    entries = [_entry(entry, directory, after) for entry in listed]
    following = payload.get("next")
    if following is not None:
        if not isinstance(following, str) or not _is_unicode(following):
            raise InvalidResponse("the service's listing is malformed")
        if not entries or (after is not None and following <= after):  # in the order of UTF-8
            raise InvalidResponse(_ENDLESS)
    left_out = _count(payload, "left_out") if "left_out" in payload else 0
    return Page(entries, following, left_out)


def deleted(payload: Mapping[str, Any]) -> bool:
    """Parse the response to a DELETE: whether there was a file.

    :raises InvalidResponse: when it does not say.
    """
    return _member(payload, "deleted", bool)


def health(payload: Mapping[str, Any]) -> Health:
    """Parse the response to a health request.

    :raises InvalidResponse: when it is invalid.
    """
    free, storage = payload.get("free"), payload.get("storage")
    if not (storage is None or isinstance(storage, str)):
        raise InvalidResponse("the service's response has a 'storage' that is not text")
    return Health(
        version=_member(payload, "version", str),
        uptime_s=_seconds(payload, "uptime"),
        uploads=_count(payload, "uploads"),
        free=None if free is None else _count(payload, "free"),
        storage=storage,
        payload=payload,
    )


def fetched(payload: Mapping[str, Any]) -> Fetched:
    """Parse the response to a fetch.

    :raises InvalidResponse: when it is invalid.
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
        raise InvalidResponse("the service's listing is malformed")
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
        raise InvalidResponse(f"the service's response has no '{key}'")
    return value


def _count(payload: Mapping[str, Any], key: str) -> int:
    value = _member(payload, key, int)
    if not 0 <= value <= _MAX_COUNT or isinstance(value, bool):
        raise InvalidResponse(f"the service's response has a '{key}' that is not a count")
    return value


def _seconds(payload: Mapping[str, Any], key: str) -> float:
    value = payload.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidResponse(f"the service's response has no '{key}'")
    if not 0 <= value <= _MAX_COUNT:  # false for NaN
        raise InvalidResponse(f"the service's response has a '{key}' that is not a time")
    return float(value)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)

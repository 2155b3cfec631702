"""Parses responses of the service, and turns refusals into errors.

Pure. A proxy in front of the service may respond with HTML, or without content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from twistedmedia import errors
from twistedmedia.client.client_limits import MAX_REASON_CHARACTERS
from twistedmedia.client.exceptions import InvalidResponse, Refused
from twistedmedia.http.header_fields import declared_sha256

_MULTI_STATUS = 207  # some of several files failed; the code is that of the first (docs/http.md)
_SECONDS = re.compile("[0-9]{1,9}")
_COUNT = re.compile("[0-9]{1,19}")
# RFC 9110, 14.4; the complete length may be unknown.
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ServiceResponse:
    """A response with its whole content. The names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    @property
    def payload(self) -> Mapping[str, Any]:
        """The content as a JSON object.

        :raises InvalidResponse: when it is something else.
        """
        found = _json_object(self.content)
        if found is None:
            raise InvalidResponse(
                f"the response (HTTP {self.status}) is not from the service: it is not JSON"
            )
        return found


def refusal(response: ServiceResponse, url: str, phrase: str, now_s: float) -> Refused:
    """The error for a response with an unexpected status to a request for `url`.

    The service redirects from a directory without a trailing slash to the same name with one; it
    sends no other redirects. `phrase` is the reason phrase. `now_s` is the time since 1970, for a
    Retry-After that is a date.
    """
    location = response.headers.get("location", "") if 300 <= response.status < 400 else ""
    last = unquote(urlsplit(url).path.rpartition("/")[2])
    if response.status == 307 and last and unquote(location) == f"./{last}/":
        return Refused(
            errors.NameConflict.status, errors.NameConflict.code, "a directory has this name"
        )
    payload = _json_object(response.content) or {}
    code, reason, incident = payload.get("code"), payload.get("reason"), payload.get("incident")
    is_from_service = False
    if _is_code(code, response.status) and isinstance(reason, str):
        is_from_service = True
    else:
        code, reason = None, f"HTTP {response.status} {phrase}".rstrip()
        if location:
            reason += f": redirects are not followed, and this one leads to {location}"
    return Refused(
        response.status,
        code,
        reason[:MAX_REASON_CHARACTERS],
        is_from_service=is_from_service,
        retry_after_s=retry_after_s(response.headers.get("retry-after"), now_s),
        incident=incident if isinstance(incident, str) else None,
    )


def retry_after_s(field: str | None, now_s: float) -> float | None:
    """The seconds in Retry-After (RFC 9110, 10.2.3), or None if it is missing or invalid."""
    if field is None:
        return None
    if _SECONDS.fullmatch(field.strip()):
        return float(field)
    try:
        return max(0.0, parsedate_to_datetime(field).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def count(headers: Mapping[str, str], name: str) -> int | None:
    """The number in a header, or None without that header.

    :raises InvalidResponse: when it is not a number.
    """
    field = headers.get(name.lower())
    if field is None:
        return None
    if _COUNT.fullmatch(field) is None:
        raise InvalidResponse(f"the response's {name} is not a number")
    return int(field)


def content_range(headers: Mapping[str, str]) -> tuple[int, int | None]:
    """The offset at which the content of a 206 begins, and the size of the file, if it is known.

    :raises InvalidResponse: when it is not a range of bytes, or does not reach the end of the file.
    """
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if match is None:
        raise InvalidResponse("the response does not say which part of the file it contains")
    first, last = int(match[1]), int(match[2])
    if match[3] == "*":
        return first, None
    whole = int(match[3])
    if not first <= last == whole - 1:
        raise InvalidResponse("the response does not contain the requested part of the file")
    return first, whole


def declared_digest(headers: Mapping[str, str]) -> str | None:
    """The SHA-256 of the file, in hex, from Repr-Digest. None if it is missing or invalid, since
    RFC 9530 tells recipients to ignore it then.
    """
    try:
        return declared_sha256(headers.get("repr-digest"))
    except errors.Malformed:
        return None


def check_is_file(headers: Mapping[str, str]) -> None:
    """Check that a response describes a file of the service, which always sends an entity tag. A
    server that responds to everything with 200, such as a captive portal, does not.

    :raises InvalidResponse: when there is no entity tag.
    """
    if "etag" not in headers:
        raise InvalidResponse("the response does not describe a file: it has no ETag")


def strong_etag(headers: Mapping[str, str]) -> str | None:
    """The entity tag if it is a strong one (RFC 9110, 8.8.3), otherwise None."""
    etag = headers.get("etag", "")
    return etag if len(etag) >= 2 and etag[0] == etag[-1] == '"' else None


def modified(headers: Mapping[str, str]) -> str | None:
    """The time of the last change in the format of listings (RFC 3339, UTC), or None."""
    try:
        return (
            f"{parsedate_to_datetime(headers['last-modified']).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        )
    except (KeyError, ValueError, OverflowError):
        return None


def _statuses() -> Mapping[int, frozenset[int]]:
    """The HTTP statuses that the service uses for each code of a failure (docs/http.md)."""
    found: dict[int, set[int]] = {}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.MediaError) and hasattr(kind, "code"):
            found.setdefault(kind.code, {_MULTI_STATUS}).add(kind.status)
    return {code: frozenset(statuses) for code, statuses in found.items()}


_STATUSES = _statuses()


def _is_code(code: object, status: int) -> bool:
    """Whether the service sends a failure with this `code` and HTTP status."""
    return isinstance(code, int) and status in _STATUSES.get(code, ())


def _json_object(content: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None

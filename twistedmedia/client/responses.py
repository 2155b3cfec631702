"""The service's answers, taken apart: what they say, or which error they are.

Pure. Between the service and us may be a proxy, which answers in HTML, or with nothing.
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
from twistedmedia.client.bounds import MOST_REASON_CHARACTERS
from twistedmedia.client.exceptions import InvalidResponse, Refused
from twistedmedia.http.header_fields import declared_sha256

_MULTI_STATUS = 207  # of several files some failed; the code is that of the first (docs/http.md)
_SECONDS = re.compile("[0-9]{1,9}")
_COUNT = re.compile("[0-9]{1,19}")
# RFC 9110, 14.4; the complete length may be unknown.
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ServiceResponse:
    """An answer with all of its content. `headers` by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    @property
    def payload(self) -> Mapping[str, Any]:
        """The JSON object that it is.

        :raises Garbled: when it is none.
        """
        found = _object(self.content)
        if found is None:
            raise InvalidResponse(
                f"the answer (HTTP {self.status}) is not the service's: it is not a JSON object"
            )
        return found


def refusal(answer: ServiceResponse, url: str, phrase: str, now_s: float) -> Refused:
    """The error that an answer with another status than was hoped for is.

    The service redirects from `url`, the name of a directory, to the same name with a slash at its
    end; other redirects are not the service's. `phrase` stands behind the status; `now_s` is the
    time of day since 1970, for a Retry-After that is a date.
    """
    location = answer.headers.get("location", "") if 300 <= answer.status < 400 else ""
    last = unquote(urlsplit(url).path.rpartition("/")[2])
    if answer.status == 307 and last and unquote(location) == f"./{last}/":
        return Refused(409, 409, "a directory has this name")
    payload = _object(answer.content) or {}
    code, reason, incident = payload.get("code"), payload.get("reason"), payload.get("incident")
    if _is_code(code, answer.status) and isinstance(reason, str):
        told = True
    else:
        told, code, reason = False, None, f"HTTP {answer.status} {phrase}".rstrip()
        if location:
            reason += f": redirects are not followed, and this one leads to {location}"
    return Refused(
        answer.status,
        code,
        reason[:MOST_REASON_CHARACTERS],
        told=told,
        retry_after_s=retry_after_s(answer.headers.get("retry-after"), now_s),
        incident=incident if isinstance(incident, str) else None,
    )


def retry_after_s(field: str | None, now_s: float) -> float | None:
    """Seconds that a Retry-After field asks for (RFC 9110, 10.2.3); None when it makes no sense."""
    if field is None:
        return None
    if _SECONDS.fullmatch(field.strip()):
        return float(field)
    try:
        return max(0.0, parsedate_to_datetime(field).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def count(headers: Mapping[str, str], name: str) -> int | None:
    """The number in a header, None where there is none.

    :raises Garbled: when it is no number.
    """
    field = headers.get(name.lower())
    if field is None:
        return None
    if _COUNT.fullmatch(field) is None:
        raise InvalidResponse(f"the answer's {name} is not a number")
    return int(field)


def content_range(headers: Mapping[str, str]) -> tuple[int, int | None]:
    """Where the content of a 206 begins, and how large the whole is, if that is said.

    :raises Garbled: when it does not go to the end, or is no range of bytes.
    """
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if match is None:
        raise InvalidResponse("the answer does not say which part of the file it is")
    first, last = int(match[1]), int(match[2])
    if match[3] == "*":
        return first, None
    whole = int(match[3])
    if not first <= last == whole - 1:
        raise InvalidResponse("the answer is not the part of the file that was asked for")
    return first, whole


def declared_digest(headers: Mapping[str, str]) -> str | None:
    """The SHA-256, in hex, of the file as a Repr-Digest has it; None where that is not known or
    cannot be read (RFC 9530 has a recipient ignore it then).
    """
    try:
        return declared_sha256(headers.get("repr-digest"))
    except errors.Malformed:
        return None


def check_is_file(headers: Mapping[str, str]) -> None:
    """Check that an answer is about a file of the service, which always sends an entity tag. A
    server that says 200 to everything, such as a captive portal, does not.

    :raises Garbled: when there is no entity tag.
    """
    if "etag" not in headers:
        raise InvalidResponse("the answer does not describe a file of the service: it has no ETag")


def strong_etag(headers: Mapping[str, str]) -> str | None:
    """The entity tag, when it stands for the very bytes (RFC 9110, 8.8.3)."""
    etag = headers.get("etag", "")
    return etag if len(etag) >= 2 and etag[0] == etag[-1] == '"' else None


def modified(headers: Mapping[str, str]) -> str | None:
    """When the file was changed last, as listings have it (RFC 3339, UTC); None where not known."""
    try:
        return (
            f"{parsedate_to_datetime(headers['last-modified']).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        )
    except (KeyError, ValueError, OverflowError):
        return None


def _statuses() -> Mapping[int, frozenset[int]]:
    """The HTTP statuses that the service sends each code of a failure with (docs/http.md)."""
    found: dict[int, set[int]] = {}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.MediaError) and hasattr(kind, "code"):
            found.setdefault(kind.code, {_MULTI_STATUS}).add(kind.status)
    return {code: frozenset(statuses) for code, statuses in found.items()}


_STATUSES = _statuses()


def _is_code(code: object, status: int) -> bool:
    """Whether `code` is the code of a failure that the service sends with this HTTP status."""
    return isinstance(code, int) and status in _STATUSES.get(code, ())


def _object(content: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None

"""Responses as values, and the JSON that docs/http.md specifies. Pure.

Every JSON response has `code` and `reason`, and a true HTTP status.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twistedmedia.errors import InternalError, MediaError

encode = json.JSONEncoder(ensure_ascii=False).encode

OK = {"code": 200, "reason": "OK"}


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response. `Content-Length` is that of the body, or of the body of a GET."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


def json_response(
    status: int, payload: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """Make a response with `payload` as JSON, on one line in UTF-8. Errors are not cached."""
    body = encode(payload).encode("utf-8", "backslashreplace") + b"\n"
    more = {"Cache-Control": "no-store"} if status >= 400 else {}
    return Response(
        status,
        {
            "Content-Type": "application/json",
            "X-Content-Type-Options": "nosniff",
            **(headers or {}),
            **more,
            "Content-Length": str(len(body)),
        },
        body,
    )


def error_response(error: MediaError) -> Response:
    """Make the response to a request that failed as a whole."""
    payload = {"code": error.code, "reason": error.reason}
    if isinstance(error, InternalError):
        payload["incident"] = error.incident
    return json_response(error.status, payload, error.headers)

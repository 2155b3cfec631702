"""Responses as values, and the JSON that docs/http.md promises. Pure.

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
    """A whole response. Its headers have the length of its body, or of the body that a GET would
    have got.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


def json_response(
    status: int, payload: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """A response with `payload` as its JSON, on one line of UTF-8. An error is never cached."""
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
    """The response to a request that failed as a whole."""
    payload = {"code": error.code, "reason": error.reason}
    if isinstance(error, InternalError):
        payload["incident"] = error.incident
    return json_response(error.status, payload, error.headers)

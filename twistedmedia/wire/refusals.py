"""The last response on a connection, sent by the connection itself, without a handler."""

from __future__ import annotations

from typing import NamedTuple

from twisted.web import http

from twistedmedia.answers import error_answer
from twistedmedia.errors import MediaError
from twistedmedia.wire.request import PHRASES, SERVER


class Refusal(NamedTuple):
    """A whole response as it is sent, its status, and the size of its content."""

    data: bytes
    status: int
    content_bytes: int


def last_response(error: MediaError) -> Refusal:
    """Say what is wrong, in JSON, and that the connection is closed."""
    answer = error_answer(error)
    content = answer.body
    lines = [
        f"HTTP/1.1 {answer.status} {PHRASES[answer.status].decode()}",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
        f"Date: {http.datetimeToString().decode()}",
        f"Content-Length: {len(content)}",
    ]
    if "Connection" not in answer.headers:
        lines.append("Connection: close")
    head = "\r\n".join(lines).encode() + b"\r\nServer: " + SERVER + b"\r\n\r\n"
    return Refusal(head + content, answer.status, len(content))

"""Answers and errors onto requests: the one error layer of the tree."""

from __future__ import annotations

import traceback
from secrets import token_hex

from klein import Klein, Response
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as NoSuchMethod

from twistedmedia.answers import Answer, error_answer
from twistedmedia.errors import BadRequest, InternalError, MediaError, MethodNotAllowed, NotFound
from twistedmedia.names import MediaName

_log = Logger()


def respond(answer: Answer) -> Response:
    """What a Klein route returns to give this answer."""
    return Response(answer.status, answer.headers, answer.body)


def media_url(request: Request, name: MediaName) -> str:
    """The path under which `name` is served, wherever the tree is mounted."""
    mounted = b"/".join(request.prepath).decode("ascii", "replace")
    return f"/{mounted}/{name.url_path}"


def add_error_layer(app: Klein) -> None:
    """Turn whatever a route raises into the contract's JSON."""

    @app.handle_errors(MediaError)
    def ours(request: Request, failure: Failure) -> Response:
        return respond(error_answer(failure.value))

    @app.handle_errors(HTTPException)
    def routing(request: Request, failure: Failure) -> Response:
        return respond(error_answer(_of_routing(failure.value)))

    @app.handle_errors(Exception)
    def unknown(request: Request, failure: Failure) -> Response:
        error = InternalError(token_hex(8))
        _log.error(
            "incident {incident}: {method} {uri!r}: {why}",
            incident=error.incident,
            method=request.method.decode("ascii", "replace"),
            uri=request.uri,
            why=_on_one_line(failure),
        )
        return respond(error_answer(error))


def _of_routing(error: HTTPException) -> MediaError:
    if isinstance(error, NoSuchMethod):
        return MethodNotAllowed(error.valid_methods or ())
    return NotFound("there is nothing here") if error.code == 404 else BadRequest(error.name)


def _on_one_line(failure: Failure) -> str:
    frames = traceback.extract_tb(failure.getTracebackObject())
    where = " > ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{failure.type.__name__}: {str(failure.value)!r} at {where}"

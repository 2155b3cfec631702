"""Answers and errors onto requests: the one error layer of the tree."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, cast

from klein import Klein, Response
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as NoSuchMethod

from twistedmedia.answers import Answer, error_answer
from twistedmedia.errors import BadRequest, MediaError, MethodNotAllowed, NotFound
from twistedmedia.faults import fault

_log = Logger()


def respond(answer: Answer) -> Response:
    """What a Klein route returns to give this answer."""
    body = answer.body
    headers = {**answer.headers, "Content-Length": str(len(body))}
    return Response(answer.status, klein_headers(headers), body)


def klein_headers(
    headers: Mapping[str, str],
) -> dict[str | bytes, str | bytes | Sequence[str | bytes]]:
    """`headers` as the type that a Klein `Response` has for them."""
    return {name: value for name, value in headers.items()}


def add_route(
    app: Klein,
    url: str,
    methods: Sequence[str],
    handler: Callable[[Request], Coroutine[Any, Any, Response | None]],
    *,
    branch: bool = False,
) -> None:
    """Have `handler` answer `methods` at `url`, and at all paths below it if it is a `branch`."""
    route: Any = app.route(url, methods=methods, branch=branch)  # its type forgets klein.Response
    route(handler)


def add_error_layer(app: Klein) -> None:
    """Turn whatever a route raises into the contract's JSON."""
    on_error: Any = app.handle_errors  # its types forget klein.Response as well
    on_error(MediaError)(_told)
    on_error(HTTPException)(_told_of_routing)
    on_error(Exception)(_told_of_a_fault)


def _told(request: Request, failure: Failure) -> Response:
    return respond(error_answer(cast(MediaError, failure.value)))


def _told_of_routing(request: Request, failure: Failure) -> Response:
    return respond(error_answer(_of_routing(cast(HTTPException, failure.value))))


def _told_of_a_fault(request: Request, failure: Failure) -> Response:
    doing = f"{request.method.decode('ascii', 'replace')} {request.uri!r}"
    return respond(error_answer(fault(_log, doing, failure)))


def _of_routing(error: HTTPException) -> MediaError:
    if isinstance(error, NoSuchMethod):
        return MethodNotAllowed(error.valid_methods or ())
    return NotFound("there is nothing here") if error.code == 404 else BadRequest(error.name)

"""What a handler has to say, as a reply: answers, and whatever it raises."""

from __future__ import annotations

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as NoSuchMethod

from twistedmedia.answers import Answer, error_answer
from twistedmedia.errors import BadRequest, MediaError, MethodNotAllowed, NotFound
from twistedmedia.faults import fault
from twistedmedia.web.routing import Reply

_log = Logger()


def respond(answer: Answer) -> Reply:
    """What a handler returns to give this answer."""
    body = answer.body
    return Reply(answer.status, {**answer.headers, "Content-Length": str(len(body))}, body)


def reply_to(request: Request, failure: Failure) -> Reply:
    """The one error layer: whatever a handler raises, or the way to it, in the contract's JSON."""
    error = failure.value
    if isinstance(error, HTTPException):
        error = _of_routing(error)
    if not isinstance(error, MediaError):
        doing = f"{request.method.decode('ascii', 'replace')} {request.uri!r}"
        error = fault(_log, doing, failure)
    return respond(error_answer(error))


def _of_routing(error: HTTPException) -> MediaError:
    if isinstance(error, NoSuchMethod):
        return MethodNotAllowed(error.valid_methods or ())
    return NotFound("there is nothing here") if error.code == 404 else BadRequest(error.name)

"""From a request to its route's handler, and from what that returns, or raises, to the answer.

Klein's routes, without Klein's dispatch: that binds its URL map anew and makes five Deferreds for
each request, which took a third of the time of a small GET; and it can do what nobody here asks of
it. It does not know, either, that an answer may have begun when its handler fails. A coroutine of
its own for each handler, which Klein makes, would leave a reference cycle when it is cancelled.

It leans on `_disconnected` of Twisted's requests, and on `segment_count` of Klein's endpoints.

What a handler has to say, as a response: answers, and whatever it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as NoSuchMethod

from twistedmedia.deferreds import drop_traceback
from twistedmedia.errors import BadRequest, Busy, MediaError, MethodNotAllowed, NotFound
from twistedmedia.http.request import SAFE_METHODS
from twistedmedia.json_response import Response, error_response
from twistedmedia.logs.incidents import report_incident
from twistedmedia.web.arguments import caller_of
from twistedmedia.web.large_responses import SMALL_BYTES, LargeResponses

# None when the handler has sent the answer itself.
Handler = Callable[[Request], Coroutine[Any, Any, Response | None]]


def add_route(
    app: Klein, url: str, methods: Sequence[str], handler: Handler, *, branch: bool = False
) -> None:
    """Have `handler` answer `methods` at `url`, and at all paths below it if it is a `branch`."""
    # Klein would name it by its function: of two with one name the second would get all.
    endpoint = f"{' '.join(methods)} {url}"
    route: Any = app.route(url, methods=methods, branch=branch, endpoint=endpoint)
    route(handler)  # by `Any`, because its type knows Klein's answers
    # What Klein calls in its place wraps each call in a Deferred.
    for name in (endpoint, f"{endpoint}_branch") if branch else (endpoint,):
        executor: Any = app.endpoints[name]
        executor.handler = handler


class RoutedResource(Resource):
    """A leaf of a resource tree that dispatches to the routes of a Klein app. When a client leaves,
    its handler is cancelled.
    """

    isLeaf = True
    _log = Logger()

    def __init__(
        self,
        app: Klein,
        response_to: Callable[[Request, Failure], Response],
        responses: LargeResponses,
    ) -> None:
        """`response_to` makes the response when a handler, or the way to it, fails. Large responses
        count in `responses`.
        """
        super().__init__()
        self._app = app
        self._endpoints = app.endpoints
        # Whatever the host is called: no route depends on it, and none is redirected to.
        self._routes = app.url_map.bind("localhost")
        self._reply_to = response_to
        self._responses = responses

    def check(self, request: Request) -> Response | None:
        """Answer a request that no handler is to see, or refuse it by raising."""
        return None

    def render(self, request: Any) -> Any:
        handling = ensureDeferred(self._handle(request))
        if not handling.called:
            request.notifyFinish().addErrback(_cancel, handling)
        return NOT_DONE_YET

    async def _handle(self, request: Any) -> None:
        try:
            response = self.check(request) or await self._find(request)
            if response is not None and request.method != b"HEAD" and _is_large(response):
                if not await self._send_large(request, response):
                    return
                response = None
        except Exception as error:  # noqa: BLE001  # each error has a response
            response = self._response_to(request, error)
            drop_traceback(error)  # a body keeps its error, and frames would keep the body
            if response is None:
                return
        if request._disconnected:
            return
        if response is not None:
            _begin(request, response)
            request.write(response.body)
        request.finish()

    async def _send_large(self, request: Any, response: Response) -> bool:
        """Send a response as fast as its reader takes it. Whether it was sent."""
        if request._disconnected:
            return False
        large = self._responses.of(response.body)
        try:
            await large.hold(request)
            with large.read_by(request):
                _begin(request, response)
                await large.send(request)
        except Busy:
            if request.method in SAFE_METHODS:
                raise
            # What was asked for was done, so 514 would be wrong. The client asks again.
            self._log.warn(
                "broken off: no memory for the answer of {size} bytes to {caller}",
                size=len(response.body),
                caller=caller_of(request).key,
            )
            request.transport.abortConnection()
            return False
        return True

    def _find(self, request: Any) -> Any:
        if len(request.postpath) > 1 and not request.postpath[0]:
            raise NotFound("there is nothing here")  # Werkzeug passes over slashes in front
        path = b"/".join(request.postpath).decode("utf-8")
        method = request.method.decode()
        if not method.isupper():  # Werkzeug does not tell `get` from `GET` (RFC 9110, 9.1)
            method = f"not {method}"
        rule, matched = self._routes.match("/" + path, method, return_rule=True)
        endpoint: Any = self._endpoints[rule.endpoint]
        segments = endpoint.segment_count
        request.prepath += request.postpath[:segments]
        del request.postpath[:segments]
        arguments = dict(matched)
        arguments.pop("__rest__", None)  # Klein calls the path below a branch so
        return endpoint.handler(request, **arguments)

    def _response_to(self, request: Any, error: Exception) -> Response | None:
        """The answer to what a handler has failed with, None if there cannot be one."""
        # Not in the handler's own frame: that is in the traceback, and would refer to itself.
        failure = Failure(error)
        if request._disconnected:  # the handler was cancelled, or could not go on
            if not isinstance(error, (CancelledError, MediaError, ConnectionLost)):
                report_incident(self._log, f"after the client of {request.uri!r} had left", failure)
            return None
        if request.startedWriting:
            self._break_off(request, failure)
            return None
        return self._reply_to(request, failure)

    def _break_off(self, request: Any, failure: Failure) -> None:
        """What was begun cannot be answered otherwise any more."""
        report_incident(self._log, f"an answer to {request.method!r} {request.uri!r}", failure)
        request.transport.abortConnection()


def _is_large(response: Response) -> bool:
    return len(response.body) > SMALL_BYTES


def _begin(request: Any, response: Response) -> None:
    request.setResponseCode(response.status)
    for name, value in response.headers.items():
        if name == "Vary":  # what was said of the origin holds as well
            request.responseHeaders.addRawHeader(name, value)
        else:
            request.setHeader(name, value)


def _cancel(_: Failure, handling: Deferred[None]) -> None:
    handling.cancel()


_log = Logger()


def response_to(request: Request, failure: Failure) -> Response:
    """The one error layer: whatever a handler raises, or the way to it, in the contract's JSON."""
    error = failure.value
    if isinstance(error, HTTPException):
        error = _of_routing(error)
    if not isinstance(error, MediaError):
        doing = f"{request.method.decode('ascii', 'replace')} {request.uri!r}"
        error = report_incident(_log, doing, failure)
    return error_response(error)


def _of_routing(error: HTTPException) -> MediaError:
    if isinstance(error, NoSuchMethod):
        return MethodNotAllowed(error.valid_methods or ())
    return NotFound("there is nothing here") if error.code == 404 else BadRequest(error.name)

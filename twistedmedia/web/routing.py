"""Dispatches a request to the handler of its route, and sends what that returns or raises.

The routes are Klein's, but the dispatch is not. Klein's dispatch binds the URL map and makes five
Deferreds for each request, which took a third of the time of a small GET. Its extra coroutine
leaves a reference cycle when a handler is cancelled. Nor does it know that a response may have
begun when its handler fails.

This relies on `_disconnected` of Twisted's requests, and on `segment_count` of Klein's endpoints.
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

_log = Logger()
_NO_ROUTE = "there is no such resource"

# Returns None if it has sent the response itself.
Handler = Callable[[Request], Coroutine[Any, Any, Response | None]]


def add_route(
    app: Klein, url: str, methods: Sequence[str], handler: Handler, *, branch: bool = False
) -> None:
    """Route `methods` of `url` to `handler`, and all paths below `url` if it is a `branch`."""
    # By default it is the name of the function, so a second `get` would replace the first.
    endpoint = f"{' '.join(methods)} {url}"
    route: Any = app.route(url, methods=methods, branch=branch, endpoint=endpoint)
    route(handler)  # typed as `Any`, because Klein's types lack `Response`
    # In its place Klein has a function that wraps each call in a Deferred.
    for name in (endpoint, f"{endpoint}_branch") if branch else (endpoint,):
        executor: Any = app.endpoints[name]
        executor.handler = handler


class RoutedResource(Resource):
    """A leaf of a resource tree that dispatches to the routes of a Klein app.

    When the client disconnects, the handler is cancelled.
    """

    isLeaf = True
    _log = Logger()

    def __init__(
        self,
        app: Klein,
        failure_response: Callable[[Request, Failure], Response],
        responses: LargeResponses,
    ) -> None:
        """`failure_response` makes the response if `check`, the dispatch or a handler fails. Large
        responses count in `responses`.
        """
        super().__init__()
        self._app = app
        self._endpoints = app.endpoints
        # Any host will do: no route depends on it, and there are no redirects.
        self._routes = app.url_map.bind("localhost")
        self._failure_response = failure_response
        self._responses = responses

    def check(self, request: Request) -> Response | None:
        """Return a response in place of the handler's, or None, or raise an error to refuse."""
        return None

    def render(self, request: Any) -> Any:
        handling = ensureDeferred(self._handle(request))
        if not handling.called:
            request.notifyFinish().addErrback(_cancel, handling)
        return NOT_DONE_YET

    async def _handle(self, request: Any) -> None:
        try:
            response = self.check(request) or await self._dispatch(request)
            if response is not None and request.method != b"HEAD" and _is_large(response):
                if not await self._send_large(request, response):
                    return
                response = None
        except Exception as error:  # noqa: BLE001  # each error has a response
            response = self._response_to(request, error)
            drop_traceback(error)  # a body refers to its error, whose frames refer to the body
            if response is None:
                return
        if request._disconnected:
            return
        if response is not None:
            _start_response(request, response)
            request.write(response.body)
        request.finish()

    async def _send_large(self, request: Any, response: Response) -> bool:
        """Send a response as fast as its reader takes it. Returns whether it was sent."""
        if request._disconnected:
            return False
        large = self._responses.create(response.body)
        try:
            await large.take_memory(request)
            with large.sending_to(request):
                _start_response(request, response)
                await large.send(request)
        except Busy:
            if request.method in SAFE_METHODS:
                raise
            # The request was carried out, so 514 would be wrong. The client will retry.
            self._log.warn(
                "disconnected: no memory for the response of {size} bytes to {caller}",
                size=len(response.body),
                caller=caller_of(request).key,
            )
            request.transport.abortConnection()
            return False
        return True

    def _dispatch(self, request: Any) -> Any:
        if len(request.postpath) > 1 and not request.postpath[0]:
            raise NotFound(_NO_ROUTE)  # Werkzeug ignores leading slashes
        path = b"/".join(request.postpath).decode("utf-8")
        method = request.method.decode()
        if not method.isupper():  # methods are case-sensitive (RFC 9110, 9.1), but not Werkzeug's
            method = f"not {method}"
        rule, matched = self._routes.match("/" + path, method, return_rule=True)
        endpoint: Any = self._endpoints[rule.endpoint]
        segments = endpoint.segment_count
        request.prepath += request.postpath[:segments]
        del request.postpath[:segments]
        arguments = dict(matched)
        arguments.pop("__rest__", None)  # Klein's name for the path below a branch
        return endpoint.handler(request, **arguments)

    def _response_to(self, request: Any, error: Exception) -> Response | None:
        """The response to a failure, None if none can be sent any more."""
        # Not in the frame of `_handle`: that is in the traceback, and would refer to itself.
        failure = Failure(error)
        if request._disconnected:  # so the handler was cancelled, or failed
            if not isinstance(error, (CancelledError, MediaError, ConnectionLost)):
                report_incident(
                    self._log, f"after the client of {request.uri!r} had disconnected", failure
                )
            return None
        if request.startedWriting:
            self._abort(request, failure)
            return None
        return self._failure_response(request, failure)

    def _abort(self, request: Any, failure: Failure) -> None:
        """Disconnect: a part of another response is sent already."""
        report_incident(self._log, f"the response to {request.method!r} {request.uri!r}", failure)
        request.transport.abortConnection()


def _is_large(response: Response) -> bool:
    return len(response.body) > SMALL_BYTES


def _start_response(request: Any, response: Response) -> None:
    request.setResponseCode(response.status)
    for name, value in response.headers.items():
        if name == "Vary":  # CORS may have set `Origin` already
            request.responseHeaders.addRawHeader(name, value)
        else:
            request.setHeader(name, value)


def _cancel(_: Failure, handling: Deferred[None]) -> None:
    handling.cancel()


def failure_response(request: Request, failure: Failure) -> Response:
    """Make the response to any exception: the JSON that docs/http.md specifies."""
    error = failure.value
    if isinstance(error, HTTPException):
        error = _translated(error)
    if not isinstance(error, MediaError):
        doing = f"{request.method.decode('ascii', 'replace')} {request.uri!r}"
        error = report_incident(_log, doing, failure)
    return error_response(error)


def _translated(error: HTTPException) -> MediaError:
    if isinstance(error, NoSuchMethod):
        return MethodNotAllowed(error.valid_methods or ())
    return NotFound(_NO_ROUTE) if error.code == 404 else BadRequest(error.name)

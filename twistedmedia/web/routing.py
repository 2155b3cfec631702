"""From a request to its route's handler, and from what that returns, or raises, to the answer.

Klein's routes, without Klein's dispatch: that binds its URL map anew and makes five Deferreds for
each request, which took a third of the time of a small GET; and it can do what nobody here asks of
it. It does not know, either, that an answer may have begun when its handler fails.

It leans on `_disconnected` of Twisted's requests, and on `segment_count` of Klein's endpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from twistedmedia.errors import MediaError, NotFound
from twistedmedia.faults import fault


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: its headers have the length of its body, or of what it stands for."""

    status: int
    headers: Mapping[str, str]
    body: bytes


# None when the handler has sent the answer itself.
Handler = Callable[[Request], Coroutine[Any, Any, Reply | None]]


def add_route(
    app: Klein, url: str, methods: Sequence[str], handler: Handler, *, branch: bool = False
) -> None:
    """Have `handler` answer `methods` at `url`, and at all paths below it if it is a `branch`."""
    # Klein would name it by its function: of two with one name the second would get all.
    endpoint = f"{' '.join(methods)} {url}"
    route: Any = app.route(url, methods=methods, branch=branch, endpoint=endpoint)
    route(handler)  # by `Any`, because its type knows Klein's answers


class RoutedResource(Resource):
    """A leaf of a resource tree that dispatches to the routes of a Klein app. When a client leaves,
    its handler is cancelled.
    """

    isLeaf = True
    _log = Logger()

    def __init__(self, app: Klein, reply_to: Callable[[Request, Failure], Reply]) -> None:
        """`reply_to` has the answer to what a handler, or the way to it, fails with."""
        super().__init__()
        self._app = app
        self._endpoints = app.endpoints
        # Whatever the host is called: no route depends on it, and none is redirected to.
        self._routes = app.url_map.bind("localhost")
        self._reply_to = reply_to

    def check(self, request: Request) -> Reply | None:
        """Answer a request that no handler is to see, or refuse it by raising."""
        return None

    def render(self, request: Any) -> Any:
        handling = ensureDeferred(self._handle(request))
        if not handling.called:
            request.notifyFinish().addErrback(_cancel, handling)
        return NOT_DONE_YET

    async def _handle(self, request: Any) -> None:
        try:
            reply = self.check(request) or await self._find(request)
        except Exception as error:  # noqa: BLE001  # there is an answer to all
            failure = Failure()
            if request._disconnected:  # it was cancelled, or could not go on
                if not isinstance(error, (CancelledError, MediaError, ConnectionLost)):
                    fault(self._log, f"after the client of {request.uri!r} had left", failure)
                return
            if request.startedWriting:
                self._break_off(request, failure)
                return
            reply = self._reply_to(request, failure)
            # A body keeps its error, which would keep all that it was raised through.
            error.__traceback__ = None
        if request._disconnected:
            return
        if reply is not None:
            request.setResponseCode(reply.status)
            for name, value in reply.headers.items():
                if name == "Vary":  # what was said of the origin holds as well
                    request.responseHeaders.addRawHeader(name, value)
                else:
                    request.setHeader(name, value)
            request.write(reply.body)
        request.finish()

    def _find(self, request: Any) -> Any:
        if len(request.postpath) > 1 and not request.postpath[0]:
            raise NotFound("there is nothing here")  # Werkzeug passes over slashes in front
        path = b"/".join(request.postpath).decode("utf-8")
        method = request.method.decode()
        if not method.isupper():  # Werkzeug does not tell `get` from `GET` (RFC 9110, 9.1)
            method = f"not {method}"
        rule, arguments = self._routes.match("/" + path, method, return_rule=True)
        endpoint: Any = self._endpoints[rule.endpoint]
        segments = endpoint.segment_count
        request.prepath += request.postpath[:segments]
        del request.postpath[:segments]
        return endpoint(None, request, **arguments)

    def _break_off(self, request: Any, failure: Failure) -> None:
        """What was begun cannot be answered otherwise any more."""
        fault(self._log, f"an answer to {request.method!r} {request.uri!r}", failure)
        request.transport.abortConnection()


def _cancel(_: Failure, handling: Deferred[None]) -> None:
    handling.cancel()

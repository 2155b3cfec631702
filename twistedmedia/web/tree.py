"""The resource tree: Klein routes over a library, to be mounted anywhere in a `MediaSite`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from klein import Klein
from twisted.web.server import Request
from werkzeug.routing import PathConverter
from zope.interface import implementer

from twistedmedia.errors import (
    ExpectationFailed,
    NameNotAllowed,
)
from twistedmedia.fairness.shares import Shares
from twistedmedia.http.body import IStreamsBody
from twistedmedia.http.tus import VERSION
from twistedmedia.json_response import Response
from twistedmedia.library.library import Library
from twistedmedia.library.resumable import ResumableUploads
from twistedmedia.web.arguments import header, segments_below
from twistedmedia.web.cross_site import CorsPolicy, CsrfPolicy
from twistedmedia.web.deletes import DeleteRoutes
from twistedmedia.web.downloads import DownloadRoutes
from twistedmedia.web.fetches import FetchRoutes
from twistedmedia.web.health import HealthRoutes
from twistedmedia.web.large_responses import LargeResponses
from twistedmedia.web.openapi import OpenApiRoutes
from twistedmedia.web.routing import RoutedResource, failure_response
from twistedmedia.web.tus_uploads import TusRoutes
from twistedmedia.web.uploads import UploadRoutes

# In bytes: five of the largest common pages, or one with 10,000 names of the maximum length.
RESPONSE_MEMORY = 64 << 20


class _AnyPath(PathConverter):
    """The rest of a path, with any characters, so that invalid names reach the handlers."""

    regex = r"[\s\S]*?"
    part_isolating = False


def media_resource(
    library: Library,
    *,
    csrf: CsrfPolicy | None = None,
    uploads: ResumableUploads | None = None,
    responses: Shares | None = None,
    dropped_events: Callable[[], int] = lambda: 0,
) -> MediaResource:
    """Make the resource tree for `library`.

    `csrf` refuses requests, by default all of pages of other sites, and those on a loopback address
    whose `Host` is not a loopback name. Without `uploads` there are no resumable uploads.
    `responses` are the shares of the memory of responses, by default of `RESPONSE_MEMORY` bytes.
    `dropped_events` returns the number of events that could not be logged, for `/health`.
    """
    if responses is None:
        responses = Shares(RESPONSE_MEMORY, library.limits.busy_rate)
    large = LargeResponses(responses)
    csrf = csrf or CsrfPolicy()
    app = Klein()
    # Klein's redirects would use the client's Host header, and each resource has one path only.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.converters = {**app.url_map.converters, "path": _AnyPath}
    for routes in (
        UploadRoutes(library),
        DownloadRoutes(library, large),
        DeleteRoutes(library),
        FetchRoutes(library, csrf),
        HealthRoutes(library, responses, dropped_events),
        OpenApiRoutes(),
    ):
        routes.add_to(app)
    if uploads is not None:
        TusRoutes(uploads).add_to(app)
    return MediaResource(app, csrf, large)


@implementer(IStreamsBody)
class MediaResource(RoutedResource):
    """Routes with streamed requests, which are checked before they are dispatched."""

    def __init__(self, app: Klein, csrf: CsrfPolicy, responses: LargeResponses) -> None:
        super().__init__(app, failure_response, responses)
        self._csrf = csrf
        self._cors = CorsPolicy(csrf.origins)

    def check(self, request: Any) -> Response | None:
        _set_tus_version(request)
        preflight = self._cors.apply(request)
        self._csrf.check(request)
        _check_head(request)
        return preflight


def _set_tus_version(request: Request) -> None:
    """Set the tus version of all responses about uploads, including errors."""
    if segments_below(request)[:1] == [b"uploads"]:
        request.setHeader("tus-resumable", VERSION)


def _check_head(request: Request) -> None:
    expectation = header(request, "expect")
    if expectation is not None and expectation.lower() != "100-continue":
        raise ExpectationFailed
    try:
        b"/".join(segments_below(request)).decode("utf-8")
    except UnicodeDecodeError:
        raise NameNotAllowed("it is not UTF-8") from None

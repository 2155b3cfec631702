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
from twistedmedia.web.routing import RoutedResource, response_to
from twistedmedia.web.tus_uploads import TusRoutes
from twistedmedia.web.uploads import UploadRoutes

# Five of the largest pages that are common, or one of 10,000 names that are all as long as they
# may be.
RESPONSE_MEMORY = 64 << 20


class _AnyPath(PathConverter):
    """A rest of a path in which anything may stand, so that every name gets its proper refusal."""

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
    """The tree for `library`. Without `uploads` it has no resumable ones. `csrf` refuses requests:
    unless given, those of pages of other sites, and those that know a loopback address by another
    name. `responses` are the shares of the memory of responses, `RESPONSE_MEMORY` bytes
    unless given. `dropped_events` counts the events that could not be logged, for `/health`.
    """
    if responses is None:
        responses = Shares(RESPONSE_MEMORY, library.limits.busy_rate)
    large = LargeResponses(responses)
    csrf = csrf or CsrfPolicy()
    app = Klein()
    # Klein's redirects name the host and port that a client claims; and no path here has a twin.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.converters = {**app.url_map.converters, "path": _AnyPath}
    for family in (
        UploadRoutes(library),
        DownloadRoutes(library, large),
        DeleteRoutes(library),
        FetchRoutes(library, csrf),
        HealthRoutes(library, responses, dropped_events),
        OpenApiRoutes(),
    ):
        family.add_to(app)
    if uploads is not None:
        TusRoutes(uploads).add_to(app)
    return MediaResource(app, csrf, large)


@implementer(IStreamsBody)
class MediaResource(RoutedResource):
    """Routes whose requests stream, and are checked before."""

    def __init__(self, app: Klein, csrf: CsrfPolicy, responses: LargeResponses) -> None:
        super().__init__(app, response_to, responses)
        self._csrf = csrf
        self._sharing = CorsPolicy(csrf.origins)

    def check(self, request: Any) -> Response | None:
        _say_tus_version(request)
        preflight = self._sharing.answer(request)
        self._csrf.refuse(request)
        _refuse(request)
        return preflight


def _say_tus_version(request: Request) -> None:
    """Have each response about uploads, errors as well, say which version of tus it is of."""
    if segments_below(request)[:1] == [b"uploads"]:
        request.setHeader("tus-resumable", VERSION)


def _refuse(request: Request) -> None:
    expectation = header(request, "expect")
    if expectation is not None and expectation.lower() != "100-continue":
        raise ExpectationFailed
    try:
        b"/".join(segments_below(request)).decode("utf-8")
    except UnicodeDecodeError:
        raise NameNotAllowed("it is not UTF-8") from None

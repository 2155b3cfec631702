"""The resource tree: Klein routes over an intake, to be mounted anywhere in a `MediaSite`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
from twistedmedia.fetch.cache import Sharing
from twistedmedia.fetch.fetcher import Fetcher, Terms
from twistedmedia.http.body import IStreamsBody
from twistedmedia.library.library import Intake
from twistedmedia.library.resumable import Uploads
from twistedmedia.web.arguments import header, segments_below
from twistedmedia.web.cross_site import OriginSharing, Strangers
from twistedmedia.web.deletes import Deleting
from twistedmedia.web.downloads import Reading
from twistedmedia.web.fetches import Fetching
from twistedmedia.web.health import Health
from twistedmedia.web.imports import Importing
from twistedmedia.web.large_responses import LargeResponses
from twistedmedia.web.openapi import Describing
from twistedmedia.web.routing import Reply, RoutedResource, reply_to
from twistedmedia.web.tus_uploads import Uploading, mark
from twistedmedia.web.uploads import Storing

# Five of the largest pages that are common, or one of 10,000 names that are all as long as they
# may be.
RESPONSE_MEMORY = 64 << 20


@dataclass(frozen=True, slots=True)
class Fetches:
    """What a tree fetches with, and on which terms: for those who ask what a fetch costs, and for
    imports.
    """

    fetcher: Fetcher
    asking: Terms
    importing: Terms


class _AnyPath(PathConverter):
    """A rest of a path in which anything may stand, so that every name gets its proper refusal."""

    regex = r"[\s\S]*?"
    part_isolating = False


def media_resource(
    intake: Intake,
    fetches: Fetches | None = None,
    strangers: Strangers | None = None,
    uploads: Uploads | None = None,
    responses: Shares | None = None,
    dropped_events: Callable[[], int] = lambda: 0,
) -> MediaResource:
    """The tree for `intake` and its store. Without `fetches` it fetches nothing, without `uploads`
    none goes over many requests. `strangers` says who may not ask: unless given, pages of other
    sites and whoever knows a loopback address by another name. `responses` are the shares of the
    memory of responses, `RESPONSE_MEMORY` bytes unless given. `dropped_events` tells how many
    events could not be logged, for `/health`.
    """
    if responses is None:
        responses = Shares(RESPONSE_MEMORY, intake.limits.busy_rate)
    large = LargeResponses(responses)
    strangers = strangers or Strangers()
    app = Klein()
    # Klein's redirects name the host and port that a client claims; and no path here has a twin.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.converters = {**app.url_map.converters, "path": _AnyPath}
    importing = sharing = fetch_places = None
    if fetches is not None:
        importing = Importing(intake, fetches.fetcher, fetches.importing)
        sharing = Sharing(fetches.fetcher, fetches.asking)
        fetch_places = fetches.fetcher.places
    for family in (
        Storing(intake, importing),
        Reading(intake.store, intake.limits.media_types, large),
        Deleting(intake.store),
        Fetching(sharing, strangers),
        Health(intake, responses, dropped_events, fetch_places),
        Describing(),
    ):
        family.add_to(app)
    if uploads is not None:
        Uploading(uploads).add_to(app)
    return MediaResource(app, strangers, large)


@implementer(IStreamsBody)
class MediaResource(RoutedResource):
    """Routes whose requests stream, and are checked before."""

    def __init__(self, app: Klein, strangers: Strangers, responses: LargeResponses) -> None:
        super().__init__(app, reply_to, responses)
        self._strangers = strangers
        self._sharing = OriginSharing(strangers.origins)

    def check(self, request: Any) -> Reply | None:
        mark(request)
        preflight = self._sharing.answer(request)
        self._strangers.refuse(request)
        _refuse(request)
        return preflight


def _refuse(request: Request) -> None:
    expectation = header(request, "expect")
    if expectation is not None and expectation.lower() != "100-continue":
        raise ExpectationFailed
    try:
        b"/".join(segments_below(request)).decode("utf-8")
    except UnicodeDecodeError:
        raise NameNotAllowed("it is not UTF-8") from None

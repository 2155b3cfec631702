"""Routes that fetch a URL and report the time that it took: `GET /fetch`, and `GET /`."""

from __future__ import annotations

from functools import lru_cache

from klein import Klein
from twisted.web.server import Request
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from twistedmedia.errors import (
    BadRequest,
    Malformed,
    MissingArgument,
)
from twistedmedia.fetch.cache import FetchOutcome
from twistedmedia.fetch.freshness import asks_for_fresh, forbids_storing
from twistedmedia.fetch.urls import Url, parse_url
from twistedmedia.json_response import OK, Response, json_response
from twistedmedia.library.importing import Fetches
from twistedmedia.library.library import Library
from twistedmedia.web.arguments import caller_of, has_query_key, header
from twistedmedia.web.cross_site import CsrfPolicy
from twistedmedia.web.routing import add_route
from twistedmedia.web.time_cost_page import PAGE_POLICY, time_cost_page

JSON, PAGE = "application/json", "text/html"


class FetchRoutes:
    """`GET /fetch`, and `GET /` if there is an upstream."""

    def __init__(self, library: Library, csrf: CsrfPolicy) -> None:
        """`csrf` refuses fetches that pages of other sites start."""
        self._library = library
        self._csrf = csrf

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        add_route(app, "/fetch", ["GET"], self.fetch)
        fetches = self._library.fetches
        if fetches is not None and fetches.fetcher.upstream is not None:
            add_route(app, "/", ["GET"], self.front)

    async def fetch(self, request: Request) -> Response:
        """Fetch the URL in the query, or that of the upstream. JSON is preferred."""
        fetches = self._library.require_fetches()
        url = _requested_url(request, fetches)
        preferred = _preferred(header(request, "accept"), JSON, PAGE)
        return await self._respond(request, url, preferred)

    async def front(self, request: Request) -> Response:
        """Fetch the URL of the upstream. HTML is preferred."""
        preferred = _preferred(header(request, "accept"), PAGE, JSON)
        return await self._respond(request, None, preferred)

    async def _respond(self, request: Request, url: Url | None, media_type: str) -> Response:
        self._csrf.check_embedded(request)
        cache_control = header(request, "cache-control")
        fresh = asks_for_fresh(cache_control, header(request, "pragma"))
        keep = not forbids_storing(cache_control)
        outcome = await self._library.fetch(caller_of(request), url, fresh=fresh, keep=keep)
        return _page(outcome) if media_type == PAGE else _json(outcome)


def url_to_fetch(data: bytes) -> Url:
    """Parse the URL in an argument.

    :raises BadRequest: if it is not a URL that can be fetched.
    """
    try:
        return parse_url(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadRequest("the url cannot be fetched: it is not UTF-8") from None
    except ValueError as error:
        raise BadRequest(f"the url cannot be fetched: {error}") from error


def _requested_url(request: Request, fetches: Fetches) -> Url | None:
    values = request.args.get(b"url", [])
    if len(values) > 1:
        raise Malformed("the argument 'url' is given twice")
    if values and values[0]:
        return url_to_fetch(values[0])
    if has_query_key(request, b"url") or fetches.fetcher.upstream is None:
        raise MissingArgument("url")
    return None


@lru_cache(maxsize=256)
def _preferred(accept: str | None, *offered: str) -> str:
    """The media type, of those `offered`, that the client prefers (RFC 9110, 12.5.1). The first one
    if several are equal, or none is acceptable.
    """
    accepted = parse_accept_header(accept, MIMEAccept)
    return accepted.best_match(offered, offered[0]) or offered[0]


def _json(outcome: FetchOutcome) -> Response:
    timings = outcome.timings.json
    payload = {
        **OK,
        "url": outcome.url,
        "status": outcome.status,
        "size": outcome.size,
        "time_cost": timings["total"],
        "timings": timings,
        "cache": outcome.origin.value,
    }
    return json_response(200, payload, {**_HEADERS, "Server-Timing": outcome.timings.header})


def _page(outcome: FetchOutcome) -> Response:
    body = time_cost_page(outcome)
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Length": str(len(body)),
        "Content-Security-Policy": PAGE_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Server-Timing": outcome.timings.header,
        **_HEADERS,
    }
    return Response(200, headers, body)


_HEADERS = {"Cache-Control": "no-store", "Vary": "Accept"}

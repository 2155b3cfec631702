"""The route that serves stored files, and shows what is in a directory."""

from __future__ import annotations

import time
from string import punctuation
from urllib.parse import quote

from klein import Klein
from twisted.web.server import Request

from twistedmedia.errors import IsDirectory, MissingArgument
from twistedmedia.formats import UNKNOWN_TYPE
from twistedmedia.http.conditions import ResponsePlan, format_date, plan_response
from twistedmedia.http.header_fields import repr_digest, wants_sha256
from twistedmedia.http.sending import send
from twistedmedia.json_response import Response
from twistedmedia.library.library import Library
from twistedmedia.names import MediaName, folders_from_path, media_name_from_path
from twistedmedia.store.interface import Media
from twistedmedia.web.arguments import (
    caller_of,
    conditions_of,
    has_query_key,
    header,
    segments_below,
)
from twistedmedia.web.large_responses import LargeResponses
from twistedmedia.web.listing import PageText, check_directory, list_directory
from twistedmedia.web.listing_pages import Listings
from twistedmedia.web.routing import add_route

_NS = 10**9
# A stored file is a stranger's, and can be a document. It runs nothing, and loads nothing but
# itself. It keeps its origin, because without one browsers refuse to load it as media.
_UNTRUSTED = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox allow-same-origin; default-src 'none'; media-src 'self'",
}


class DownloadRoutes:
    """`GET` and `HEAD` of `/media/<directory>/<filename>` and `/media/<directory>/`."""

    def __init__(self, library: Library, responses: LargeResponses) -> None:
        """Listings are among the large `responses`."""
        self._library = library
        self._listings = Listings(library, responses, PageText)

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        add_route(app, "/media", ["GET"], self.get_root)
        add_route(app, "/media/", ["GET"], self.get, branch=True)

    async def get_root(self, request: Request) -> Response:
        """The root without its slash."""
        return _with_slash(request)

    async def get(self, request: Request) -> Response | None:
        """What the path names."""
        segments = segments_below(request)
        if segments[-1:] in ([], [b""]):
            folders = folders_from_path(segments[:-1])
            return await list_directory(request, self._listings, folders)
        try:
            name = media_name_from_path(segments)
            media = await self._library.open(caller_of(request), name)
        except (IsDirectory, MissingArgument):  # one segment can name a directory only
            await check_directory(request, self._listings, folders_from_path(segments))
            return _with_slash(request)
        try:
            return await self._respond(request, name, media)
        finally:
            media.close()

    async def _respond(self, request: Request, name: MediaName, media: Media) -> Response | None:
        modified_s, now_s = media.modified_ns // _NS, int(time.time())
        what = plan_response(conditions_of(request), media.size, media.etag, modified_s, now_s)
        headers = _validators(media.etag, min(modified_s, now_s))
        if modified_s >= now_s:  # Date, from when the request came, is not to be earlier
            headers["Date"] = format_date(now_s)
        if what.status == 304:
            return Response(304, headers, b"")
        media_type = self._library.limits.media_types.get(name.extension, UNKNOWN_TYPE)
        saved = media_type.startswith(UNKNOWN_TYPE) or has_query_key(request, b"download")
        headers |= _about(name, what, media_type, attachment=saved)
        if wants_sha256(header(request, "want-repr-digest")):
            headers["Repr-Digest"] = repr_digest(await media.digest())
        elif media.sha256 is not None:
            headers["Repr-Digest"] = repr_digest(media.sha256)
        if request.method == b"HEAD":
            return Response(what.status, headers, b"")
        request.setResponseCode(what.status)
        for field, value in headers.items():
            request.setHeader(field, value)
        await send(request, media, what.start, what.length)
        return None


def _with_slash(request: Request) -> Response:
    """To the directory: relative, because the host that a client names is not to be trusted; for
    now, because a file can have the name tomorrow.
    """
    path, question_mark, query = request.uri.partition(b"?")
    sent = path.rpartition(b"/")[2] + b"/" + question_mark + query
    # With "./", or a colon in the name would make a scheme of it (RFC 3986, 4.2). What was encoded
    # stays so, and what should have been is.
    location = "./" + quote(sent, safe=punctuation)
    return Response(307, {"Location": location, "Content-Length": "0"}, b"")


def _validators(etag: str, modified_s: int) -> dict[str, str]:
    """What a cache needs to know, also with a 304 (RFC 9110, 15.4.5). `modified_s` is not to come
    (8.8.2.1).
    """
    return {
        "ETag": etag,
        "Last-Modified": format_date(modified_s),
        "Cache-Control": "no-cache",  # a name can be deleted and stored anew
    }


def _about(
    name: MediaName, what: ResponsePlan, media_type: str, *, attachment: bool
) -> dict[str, str]:
    headers = {
        **_UNTRUSTED,
        "Accept-Ranges": "bytes",
        "Content-Type": media_type,
        "Content-Length": str(what.length),
        "Content-Disposition": _disposition(name.filename, attachment),
    }
    if what.content_range is not None:
        headers["Content-Range"] = what.content_range
    return headers


def _disposition(filename: str, attachment: bool) -> str:
    """RFC 6266: a plain name for old clients, the true one where it differs."""
    kind = "attachment" if attachment else "inline"
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in filename)
    true = "" if plain == filename else f"; filename*=UTF-8''{quote(filename, safe='')}"
    return f'{kind}; filename="{plain}"{true}'

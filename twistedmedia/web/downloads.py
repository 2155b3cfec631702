"""Routes that serve stored files and list directories."""

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
from twistedmedia.web.listing import JsonPageRenderer, check_directory, list_directory
from twistedmedia.web.listing_pages import ListingPages
from twistedmedia.web.routing import add_route

_NS = 10**9
# A stored file is not trusted, and can be a document. It may not run scripts or load anything but
# itself. It keeps its origin, since browsers do not load media without one.
_UNTRUSTED = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox allow-same-origin; default-src 'none'; media-src 'self'",
}


class DownloadRoutes:
    """`GET` and `HEAD` of `/media/<directory>/<filename>` and `/media/<directory>/`."""

    def __init__(self, library: Library, responses: LargeResponses) -> None:
        """The memory of listings counts in `responses`."""
        self._library = library
        self._pages = ListingPages(library, responses, JsonPageRenderer)

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        add_route(app, "/media", ["GET"], self.get_root)
        add_route(app, "/media/", ["GET"], self.get, branch=True)

    async def get_root(self, request: Request) -> Response:
        """Redirect to the root with its slash."""
        return _with_slash(request)

    async def get(self, request: Request) -> Response | None:
        """Send the file or the listing that the path names."""
        segments = segments_below(request)
        if segments[-1:] in ([], [b""]):
            folders = folders_from_path(segments[:-1])
            return await list_directory(request, self._pages, folders)
        try:
            name = media_name_from_path(segments)
            media = await self._library.open(caller_of(request), name)
        except (IsDirectory, MissingArgument):  # a single segment names a directory
            await check_directory(request, self._pages, folders_from_path(segments))
            return _with_slash(request)
        try:
            return await self._respond(request, name, media)
        finally:
            media.close()

    async def _respond(self, request: Request, name: MediaName, media: Media) -> Response | None:
        modified_s, now_s = media.modified_ns // _NS, int(time.time())
        plan = plan_response(conditions_of(request), media.size, media.etag, modified_s, now_s)
        headers = _validators(media.etag, min(modified_s, now_s))
        if modified_s >= now_s:  # Date, set when the request began, must not be earlier
            headers["Date"] = format_date(now_s)
        if plan.status == 304:
            return Response(304, headers, b"")
        media_type = self._library.limits.media_types.get(name.extension, UNKNOWN_TYPE)
        is_attachment = media_type.startswith(UNKNOWN_TYPE) or has_query_key(request, b"download")
        headers |= _content_headers(name, plan, media_type, attachment=is_attachment)
        if wants_sha256(header(request, "want-repr-digest")):
            headers["Repr-Digest"] = repr_digest(await media.digest())
        elif media.sha256 is not None:
            headers["Repr-Digest"] = repr_digest(media.sha256)
        if request.method == b"HEAD":
            return Response(plan.status, headers, b"")
        request.setResponseCode(plan.status)
        for field, value in headers.items():
            request.setHeader(field, value)
        await send(request, media, plan.start, plan.length)
        return None


def _with_slash(request: Request) -> Response:
    """Redirect to the directory. The redirect is relative, since the `Host` is not trusted, and
    temporary, since a file can have this name later.
    """
    path, question_mark, query = request.uri.partition(b"?")
    target = path.rpartition(b"/")[2] + b"/" + question_mark + query
    # Without "./", a colon in the name would end a scheme (RFC 3986, 4.2). Escaped characters
    # stay escaped; others are escaped if necessary.
    location = "./" + quote(target, safe=punctuation)
    return Response(307, {"Location": location, "Content-Length": "0"}, b"")


def _validators(etag: str, modified_s: int) -> dict[str, str]:
    """The headers for caches, which a 304 has as well (RFC 9110, 15.4.5). `modified_s` must not
    be in the future (8.8.2.1).
    """
    return {
        "ETag": etag,
        "Last-Modified": format_date(modified_s),
        "Cache-Control": "no-cache",  # a name can be deleted and stored anew
    }


def _content_headers(
    name: MediaName, plan: ResponsePlan, media_type: str, *, attachment: bool
) -> dict[str, str]:
    headers = {
        **_UNTRUSTED,
        "Accept-Ranges": "bytes",
        "Content-Type": media_type,
        "Content-Length": str(plan.length),
        "Content-Disposition": _disposition(name.filename, attachment),
    }
    if plan.content_range is not None:
        headers["Content-Range"] = plan.content_range
    return headers


def _disposition(filename: str, attachment: bool) -> str:
    """The header of RFC 6266: an ASCII name for old clients, and the exact name if it differs."""
    kind = "attachment" if attachment else "inline"
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in filename)
    exact = "" if plain == filename else f"; filename*=UTF-8''{quote(filename, safe='')}"
    return f'{kind}; filename="{plain}"{exact}'

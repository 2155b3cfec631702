"""The route that serves stored files."""

from __future__ import annotations

from email.utils import formatdate
from urllib.parse import quote

from klein import Klein, Response
from twisted.web.server import Request

from twistedmedia.boundaries import Media, Store
from twistedmedia.errors import MissingArgument, NotFound
from twistedmedia.formats import MEDIA_TYPES
from twistedmedia.names import MediaName
from twistedmedia.web.answering import add_route, klein_headers
from twistedmedia.web.requests import has_query_key, header, name_in_path
from twistedmedia.wire.conditions import Plan, plan
from twistedmedia.wire.sending import PausedReads

_NS = 10**9
# A stored file is a stranger's: whatever its bytes are, a browser plays them or saves them.
_UNTRUSTED = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'; media-src 'self'",
    "Cache-Control": "no-cache",  # a name can be deleted and stored anew
    "Accept-Ranges": "bytes",
}


class Reading:
    """`GET` and `HEAD /media/<directory>/<filename>`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        add_route(app, "/media/", ["GET"], self.get, branch=True)

    async def get(self, request: Request) -> Response | None:
        """The file, or the one range of it that is asked for."""
        try:
            name = name_in_path(request)
        except MissingArgument:  # a path that cannot name a file, only a folder
            raise NotFound from None
        media = await self._store.open(name)
        try:
            # RFC 9110, 14.2: only GET has ranges.
            wanted = header(request, "range") if request.method == b"GET" else None
            what = plan(media.size, media.etag, wanted, header(request, "if-range"))
            headers = _headers(name, media, what, attachment=has_query_key(request, b"download"))
            if request.method == b"HEAD":
                return Response(what.status, klein_headers(headers), b"")
            request.setResponseCode(what.status)
            for field, value in headers.items():
                request.setHeader(field, value)
            await PausedReads(request, media, what.start, what.length).start()
            return None
        finally:
            media.close()


def _headers(name: MediaName, media: Media, what: Plan, *, attachment: bool) -> dict[str, str]:
    media_type = MEDIA_TYPES.get(name.extension)
    headers = {
        **_UNTRUSTED,
        "Content-Type": media_type or "application/octet-stream",
        "Content-Length": str(what.length),
        "Content-Disposition": _disposition(name.filename, attachment or media_type is None),
        "Last-Modified": formatdate(media.modified_ns // _NS, usegmt=True),
        "ETag": media.etag,
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

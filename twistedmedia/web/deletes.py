"""Routes that delete files."""

from __future__ import annotations

from klein import Klein
from twisted.web.server import Request

from twistedmedia.errors import NameConflict, UnsupportedContent
from twistedmedia.http.body import body_of
from twistedmedia.http.forms import URLENCODED
from twistedmedia.http.header_fields import parse_content_type
from twistedmedia.json_response import OK, Response, json_response
from twistedmedia.library.library import Library
from twistedmedia.names import MediaName, media_name
from twistedmedia.web.arguments import (
    Arguments,
    caller_of,
    header,
    name_in_path,
    precondition_of,
    read_urlencoded,
    segments_below,
)
from twistedmedia.web.routing import add_route

MAX_FORM_BYTES = 8 << 10


class DeleteRoutes:
    """`DELETE /media/<directory>/<filename>`, and `DELETE /media` with these two as fields."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def add_to(self, app: Klein) -> None:
        """Add the routes."""
        add_route(app, "/media/", ["DELETE"], self.delete_path, branch=True)
        add_route(app, "/media", ["DELETE"], self.delete_fields)

    async def delete_path(self, request: Request) -> Response:
        """Delete the file that the path names."""
        segments = segments_below(request)
        if len(segments) < 2 or segments[-1] == b"":  # whether it exists or not
            raise NameConflict("this is a directory; it is removed with its last file")
        return await self._delete(request, name_in_path(request))

    async def delete_fields(self, request: Request) -> Response:
        """Delete the file that fields of the query or of a form name."""
        arguments = Arguments(request.args, ("directory", "filename"))
        body = body_of(request)
        media_type, _ = parse_content_type(header(request, "content-type"))
        if body.length != 0 and media_type != URLENCODED:
            raise UnsupportedContent(f"send {URLENCODED}")
        await read_urlencoded(body, arguments, MAX_FORM_BYTES)
        name = media_name(arguments.require("directory"), arguments.require("filename"))
        return await self._delete(request, name)

    async def _delete(self, request: Request, name: MediaName) -> Response:
        precondition = precondition_of(request)
        deleted = await self._library.delete(caller_of(request), name, precondition)
        return json_response(200, {**OK, "deleted": deleted})

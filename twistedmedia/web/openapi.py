"""The route that serves the OpenAPI description, docs/openapi.yaml."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files

from klein import Klein
from twisted.web.server import Request

from twistedmedia.json_response import Response, json_response
from twistedmedia.web.arguments import route_path
from twistedmedia.web.routing import add_route


class OpenApiRoutes:
    """`GET /openapi.json`."""

    def __init__(self) -> None:
        text = files("twistedmedia.web").joinpath("openapi.json").read_text(encoding="utf-8")
        self._description = json.loads(text)
        self._response = lru_cache(8)(self._make)  # takes a millisecond; prefixes are few

    def add_to(self, app: Klein) -> None:
        """Add the route."""
        add_route(app, "/openapi.json", ["GET"], self.describe)

    async def describe(self, request: Request) -> Response:
        """Send the description, with the prefix of the tree as its server."""
        return self._response(route_path(request).rpartition("/")[0] or "/")

    def _make(self, prefix: str) -> Response:
        return json_response(200, {**self._description, "servers": [{"url": prefix}]})

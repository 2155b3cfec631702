"""The route that describes the interface: OpenAPI, as docs/openapi.yaml has it."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files

from klein import Klein
from twisted.web.server import Request

from twistedmedia.json_response import Response, json_response
from twistedmedia.web.arguments import mounted_at
from twistedmedia.web.routing import add_route


class OpenApiRoutes:
    """`GET /openapi.json`."""

    def __init__(self) -> None:
        text = files("twistedmedia.web").joinpath("openapi.json").read_text(encoding="utf-8")
        self._description = json.loads(text)
        self._under = lru_cache(8)(self._make)  # it takes a millisecond, and prefixes are few

    def add_to(self, app: Klein) -> None:
        """Add the route."""
        add_route(app, "/openapi.json", ["GET"], self.describe)

    async def describe(self, request: Request) -> Response:
        """The description, with the tree's own prefix for its server."""
        return self._under(mounted_at(request).rpartition("/")[0] or "/")

    def _make(self, prefix: str) -> Response:
        return json_response(200, {**self._description, "servers": [{"url": prefix}]})

"""The OpenAPI description: equal in YAML and JSON, and complete for the routes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from twisted.internet.task import Clock
from twisted.web.resource import Resource

from tests.http.connection import Connection
from twistedmedia import __version__, errors
from twistedmedia.fairness.slots import Slots
from twistedmedia.fetch.fetcher import FetchLimits
from twistedmedia.formats import MEDIA_TYPES
from twistedmedia.http.site import MediaSite
from twistedmedia.library.importing import Fetches
from twistedmedia.library.library import Library
from twistedmedia.library.resumable import ResumableUploads
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.store.memory import MemoryStore
from twistedmedia.web.tree import MediaResource, media_resource

HOUSE = Path(__file__).parents[2]
WRITTEN = HOUSE / "docs" / "openapi.yaml"
SERVED = HOUSE / "twistedmedia" / "web" / "openapi.json"
MADE_BY = (
    'python -c "import json, yaml; '
    "print(json.dumps(yaml.safe_load(open('docs/openapi.yaml')), indent=1))\" "
    "> twistedmedia/web/openapi.json"
)

DESCRIPTION = yaml.safe_load(WRITTEN.read_text(encoding="utf-8"))
METHODS = {"get", "head", "put", "post", "delete", "options", "patch", "trace"}
# One route handles all paths below these.
BRANCHES = ("/media/", "/uploads/")


def test_the_served_json_equals_the_yaml() -> None:
    made = json.dumps(DESCRIPTION, indent=1) + "\n"
    served = SERVED.read_text(encoding="utf-8")
    assert served == made, f"docs/openapi.yaml was changed; in the checkout: {MADE_BY}"


def whole_tree() -> MediaResource:
    """A tree with all routes."""
    clock = Clock()
    slots = Slots(1, 0.0, clock)
    fetcher: Any = SimpleNamespace(upstream="http://upstream/", reactor=clock, slots=slots)
    limits = FetchLimits(1, 1)
    fetches = Fetches(fetcher, limits, limits)
    library = Library(MemoryStore(), UploadLimits(), fetches=fetches)
    uploads: Any = None
    return media_resource(library, uploads=ResumableUploads(library, uploads))


def routes() -> dict[str, set[str]]:
    """The methods of each route."""
    found = defaultdict(set)
    for rule in whole_tree()._app.url_map.iter_rules():
        path, below, _ = rule.rule.partition("<")
        assert not below or path in BRANCHES, f"one more route with paths below it: {rule.rule}"
        found[path] |= rule.methods or set()
    return dict(found)


def described() -> dict[str, set[str]]:
    """The methods of each path of the description. Paths below a branch count as the branch."""
    found = defaultdict(set)
    for path, item in DESCRIPTION["paths"].items():
        route = next((branch for branch in BRANCHES if path.startswith(branch)), path)
        found[route] |= {method.upper() for method in item.keys() & METHODS}
    return dict(found)


def test_exactly_the_routes_are_described_with_their_methods() -> None:
    assert described() == routes()


def test_no_route_takes_the_handler_of_another() -> None:
    """Klein identifies handlers by function names, so a second one would replace the first."""
    handlers = [rule.endpoint for rule in whole_tree()._app.url_map.iter_rules()]
    assert len(set(handlers)) == len(handlers), sorted(handlers)


def failures() -> Iterator[type[errors.MediaError]]:
    """All errors that a response can have."""
    pending = [errors.MediaError]
    while pending:
        each = pending.pop()
        pending += each.__subclasses__()
        if hasattr(each, "code"):
            yield each


def test_exactly_the_codes_and_statuses_are_described() -> None:
    codes = set(DESCRIPTION["components"]["schemas"]["Code"]["enum"])
    assert codes == {200} | {each.code for each in failures()}
    statuses = {
        int(status)
        for item in DESCRIPTION["paths"].values()
        for method in item.keys() & METHODS
        for status in item[method]["responses"]
    }
    assert {status for status in statuses if status >= 400} == {each.status for each in failures()}


def test_the_types_of_files_are_among_those_described() -> None:
    described = DESCRIPTION["components"]["responses"]["File"]["content"].keys()
    assert set(MEDIA_TYPES.values()) & described == {"application/octet-stream"}
    whole = {f"{each.split('/')[0]}/*" for each in MEDIA_TYPES.values()} - {"application/*"}
    named = {"video/*"}  # which an operator may configure for another format
    assert described == whole | named | {"application/octet-stream"}


def references(value: Any) -> Iterator[str]:
    """All references in `value`."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_all_references_exist_and_all_components_are_referenced() -> None:
    there = {
        f"#/components/{kind}/{name}"
        for kind, named in DESCRIPTION["components"].items()
        for name in named
    }
    assert set(references(DESCRIPTION)) == there


def test_every_operation_has_a_unique_name_and_the_common_responses() -> None:
    operations = [
        item[method] for item in DESCRIPTION["paths"].values() for method in item.keys() & METHODS
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert DESCRIPTION["x-always"].keys() <= operation["responses"].keys()


def test_the_version_is_that_of_the_package() -> None:
    assert DESCRIPTION["info"]["version"] == __version__


def connected(prefix: Sequence[bytes] = ()) -> Connection:
    """A connection to a tree that is mounted under `prefix`."""
    tree: Resource = media_resource(Library(MemoryStore(), UploadLimits()))
    for segment in reversed(prefix):
        below, tree = tree, Resource()
        tree.putChild(segment, below)
    clock = Clock()
    return Connection(MediaSite(tree, reactor=clock), clock)


def request(method: str, path: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("prefix", "path", "server"),
    [
        ([], "/openapi.json", "/"),
        ([b"api", b"v 1"], "/api/v%201/openapi.json", "/api/v%201"),
        ([b"api"], "/api/openapi.json/?x=/y", "/api"),
    ],
)
def test_the_description_names_the_prefix_under_which_the_tree_is_mounted(
    prefix: list[bytes], path: str, server: str
) -> None:
    connection = connected(prefix)
    connection.send(request("GET", path))
    (answer,) = connection.answers()
    connection.leave()
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert json.loads(answer.content) == {**DESCRIPTION, "servers": [{"url": server}]}


def test_the_head_of_the_description_has_its_length() -> None:
    connection = connected()
    connection.send(request("GET", "/openapi.json"))
    (whole,) = connection.answers()
    before = len(connection.received)
    connection.send(request("HEAD", "/openapi.json"))
    head, _, content = connection.received[before:].partition(b"\r\n\r\n")
    assert f"Content-Length: {len(whole.content)}".encode() in head.splitlines()
    assert content == b""
    connection.leave()

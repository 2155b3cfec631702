"""The layout of the house, from its import statements (docs/architecture.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import twistedmedia

HOUSE = Path(twistedmedia.__file__).parent
PLUGIN = HOUSE.parent / "twisted" / "plugins" / "twistedmedia_plugin.py"

# Rooms from the ground up. A module may import what stands lower, and its own room; rooms on one
# floor are strangers to each other.
FLOORS = [
    {
        "errors",
        "answers",
        "names",
        "limits",
        "formats",
        "shares",
        "packed",
        "round_robin",
        "tracebacks",
        "clock",
        "tiny_pieces",
        "waiting",
    },
    {
        "boundaries",
        "descriptors",
        "dropping",
        "endpoints",
        "fair_queue",
        "faults",
        "notifying",
        "places",
        "shielding",
        "signals",
        "spool",
        "streaming",
        "switching",
        "trimming",
        "turns",
        "unfinished",
    },
    {"wire", "store", "audio", "fetching", "client", "event_log", "stopping"},
    {"arrival"},
    {"intake"},
    {"resuming"},
    {"web"},
    {"service", "options"},
    {"tap"},
]

# Pure modules stand on the ground floor, whichever room they are in.
PURE = [
    "twistedmedia",
    "twistedmedia.errors",
    "twistedmedia.answers",
    "twistedmedia.names",
    "twistedmedia.limits",
    "twistedmedia.formats",
    "twistedmedia.packed",
    "twistedmedia.round_robin",
    "twistedmedia.shares",
    "twistedmedia.tracebacks",
    "twistedmedia.clock",
    "twistedmedia.tiny_pieces",
    "twistedmedia.waiting",
    "twistedmedia.audio",
    "twistedmedia.audio.content",
    "twistedmedia.audio.durations",
    "twistedmedia.audio.frames",
    "twistedmedia.audio.mpeg",
    "twistedmedia.audio.stream",
    "twistedmedia.audio.tags",
    "twistedmedia.audio.verdict",
    "twistedmedia.audio.wav",
    *(
        f"twistedmedia.client.{name}"
        for name in (
            "answers",
            "arguments",
            "bounds",
            "errors",
            "outcomes",
            "patience",
            "places",
            "retries",
            "tus",
        )
    ),
    *(
        f"twistedmedia.client.command.{name}"
        for name in ("figures", "globs", "options", "printable", "results")
    ),
    "twistedmedia.fetching",
    "twistedmedia.fetching.addresses",
    "twistedmedia.fetching.freshness",
    "twistedmedia.fetching.timings",
    "twistedmedia.fetching.urls",
    "twistedmedia.wire.forms",
    "twistedmedia.wire.conditions",
    "twistedmedia.wire.digests",
    "twistedmedia.wire.framing",
    "twistedmedia.wire.heads",
    "twistedmedia.wire.hosts",
    "twistedmedia.wire.parameters",
    "twistedmedia.wire.proxies",
    "twistedmedia.wire.responses",
    "twistedmedia.wire.tus",
]

# What a pure module must not touch, in this process or through another module.
IMPURE = ("twisted", "zope", "klein", "werkzeug", "treq")

MODULES = {
    ".".join(path.relative_to(HOUSE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(HOUSE.rglob("*.py"))
}


def imports(module: str) -> Iterator[str]:
    """What `module` imports, anywhere in it; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; the rooms are told apart by name"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(module: str) -> set[str]:
    """Those modules of the house that `module` imports."""
    return {name for name in imports(module) if name in MODULES} - {"twistedmedia"}


def room(module: str) -> str:
    return module.split(".")[1]


def floor(module: str) -> int:
    if module in PURE:
        return 0
    return next(number for number, rooms in enumerate(FLOORS) if room(module) in rooms)


def may_import(module: str, other: str) -> bool:
    if module in PURE:
        return other in PURE
    if room(module) == "client":  # of another program: it knows of a service what can be sent
        return other in PURE or room(other) == "client"
    return floor(other) < floor(module) or (room(other) == room(module) and other not in PURE)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"twistedmedia"}))
def test_every_module_stands_in_a_room_and_imports_only_from_lower_floors(module: str) -> None:
    assert any(room(module) in rooms for rooms in FLOORS), "a room that is not in the plan"
    upwards = {other for other in ours(module) if not may_import(module, other)}
    assert not upwards


def test_the_plan_names_no_pure_module_that_is_not_there() -> None:
    assert set(PURE) <= MODULES.keys()


def test_the_import_statements_are_really_read() -> None:
    """Else nothing here could fail."""
    assert {"twistedmedia.intake", "twistedmedia.wire.forms", "twistedmedia.web.fields"} <= ours(
        "twistedmedia.web.storing"
    )
    assert not may_import("twistedmedia.names", "twistedmedia.boundaries")
    assert not may_import("twistedmedia.store.directory", "twistedmedia.wire.body")
    assert not may_import("twistedmedia.intake", "twistedmedia.web.fields")
    assert not may_import("twistedmedia.client.media", "twistedmedia.streaming")
    assert may_import("twistedmedia.wire.body", "twistedmedia.wire.forms")
    assert len(MODULES) > 20


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_has_no_business_with_twisted(module: str) -> None:
    assert not {name for name in imports(module) if name.split(".")[0] in IMPURE}


# Runs in a fresh interpreter in which everything impure is missing.
WITHOUT_TWISTED = """
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {impure!r}:
            raise ModuleNotFoundError(name + " is not for pure modules", name=name)

sys.meta_path.insert(0, Missing())
importlib.import_module({module!r})
"""


def imported_without_twisted(module: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT_TWISTED.format(impure=IMPURE, module=module)
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=HOUSE.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_is_imported_without_twisted(module: str) -> None:
    outcome = imported_without_twisted(module)
    assert outcome.returncode == 0, outcome.stderr


def test_a_module_that_is_not_pure_is_not() -> None:
    """Else the test above could not fail."""
    assert "is not for pure modules" in imported_without_twisted("twistedmedia.boundaries").stderr


def names_the_reactor(tree: ast.AST) -> bool:
    """Whether the global reactor is imported, or reached through its package or by a text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names = {ast.unparse(node)}
        elif isinstance(node, ast.Constant):
            names = {str(node.value)}
        else:
            continue
        if "twisted.internet.reactor" in names or "internet.reactor" in names:
            return True
    return False


@pytest.mark.parametrize(
    "code",
    [
        "from twisted.internet import defer, reactor as it",
        "def f():\n    from twisted.internet import reactor",
        "import twisted.internet.reactor",
        "import twisted.internet\ntwisted.internet.reactor.run()",
        "from twisted import internet\ninternet.reactor.run()",
        "import_module('twisted.internet.reactor')",
    ],
)
def test_no_way_to_name_the_global_reactor_is_overlooked(code: str) -> None:
    assert names_the_reactor(ast.parse(code))


def test_only_the_two_commands_name_the_global_reactor() -> None:
    naming = {
        module for module, path in MODULES.items() if names_the_reactor(ast.parse(path.read_text()))
    }
    assert naming == {"twistedmedia.tap", "twistedmedia.client.command.main"}
    assert not names_the_reactor(ast.parse(PLUGIN.read_text()))


def test_the_plugin_imports_nothing_of_ours() -> None:
    """Every twistd on the machine loads it."""
    tree = ast.parse(PLUGIN.read_text())
    imported = [ast.unparse(node) for node in ast.walk(tree) if "Import" in type(node).__name__]
    assert imported == ["from twisted.application.service import ServiceMaker"]


@pytest.mark.parametrize("noun", ["util", "utils", "helpers", "misc", "base", "common", "core"])
def test_no_module_is_named_after_nothing(noun: str) -> None:
    assert not [module for module in MODULES if noun in module.split(".")]


def test_what_the_package_exports_is_there_and_nothing_else_is() -> None:
    for name in twistedmedia.__all__:
        # `media_site` is a class that is called as a function is.
        assert _bare(getattr(twistedmedia, name).__name__) == _bare(name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        twistedmedia.nothing  # noqa: B018


def _bare(name: str) -> str:
    return name.lower().replace("_", "")

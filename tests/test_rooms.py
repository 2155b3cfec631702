"""The layout of the package, checked by its import statements (docs/architecture.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import twistedmedia

PACKAGE = Path(twistedmedia.__file__).parent
PLUGIN = PACKAGE.parent / "twisted" / "plugins" / "twistedmedia_plugin.py"

# Each room, and the rooms whose modules it may import besides its own and pure ones. The room of a
# module is the longest name here that fits.
ROOMS: dict[str, set[str]] = {
    "fairness": set(),
    "deferreds": set(),
    "logs": set(),
    "store.interface": set(),
    "store": {"store.interface"},
    "store.local": {"store", "store.interface", "fairness", "deferreds", "logs"},
    "http": {"store.interface", "fairness", "logs"},
    "fetch": {"http", "fairness"},
    "library": {"http", "fetch", "store.interface", "fairness", "deferreds", "logs"},
    "web": {
        "library",
        "http",
        "fetch",
        "store.interface",
        "store",
        "fairness",
        "deferreds",
        "logs",
    },
    "service": {"web", "library", "http", "fetch", "store.local", "fairness", "deferreds", "logs"},
    "audio": set(),
    "client": set(),  # a separate program, which shares only pure modules with the service
}

# Pure modules import only pure ones. They can be in any room.
PURE = [
    "twistedmedia",
    "twistedmedia.errors",
    "twistedmedia.json_response",
    "twistedmedia.names",
    "twistedmedia.limits",
    "twistedmedia.formats",
    "twistedmedia.packed",
    "twistedmedia.clock",
    "twistedmedia.fairness",
    "twistedmedia.store",
    "twistedmedia.store.clock_steps",
    "twistedmedia.store.preconditions",
    "twistedmedia.store.validators",
    *(f"twistedmedia.fairness.{name}" for name in ("pace", "shares")),
    "twistedmedia.audio",
    *(f"twistedmedia.audio.{name}" for name in ("mpeg", "stream", "verdict", "wav")),
    *(
        f"twistedmedia.client.{name}"
        for name in ("client_limits", "exceptions", "locations", "outcomes", "responses", "retries")
    ),
    *(f"twistedmedia.client.command.{name}" for name in ("command_line", "results", "text")),
    "twistedmedia.fetch",
    *(f"twistedmedia.fetch.{name}" for name in ("freshness", "policy", "timings", "urls")),
    "twistedmedia.http",
    *(
        f"twistedmedia.http.{name}"
        for name in (
            "addresses",
            "conditions",
            "forms",
            "framing",
            "header_fields",
            "heads",
            "tus",
        )
    ),
]

# Packages that a pure module must not import, not even through another module.
IMPURE = ("twisted", "zope", "klein", "werkzeug", "treq")

MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(module: str) -> Iterator[str]:
    """What `module` imports, anywhere in it; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{module} imports relatively; rooms are recognized by full names"
            )
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(module: str) -> set[str]:
    """The modules of the package that `module` imports."""
    return {name for name in imports(module) if name in MODULES} - {"twistedmedia"}


def room(module: str) -> str | None:
    """The room of `module`, None at the top, where only pure modules are."""
    path = module.removeprefix("twistedmedia.")
    return max((room for room in ROOMS if f"{path}.".startswith(f"{room}.")), key=len, default=None)


def may_import(module: str, other: str) -> bool:
    if module in PURE or other in PURE:
        return other in PURE
    own, others = room(module), room(other)
    return own is not None and others is not None and (own == others or others in ROOMS[own])


def test_imports_between_rooms_go_one_way() -> None:
    TopologicalSorter(ROOMS).prepare()  # raises an error if there is a circle


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"twistedmedia"}))
def test_every_module_is_in_a_room_and_imports_only_allowed_modules(module: str) -> None:
    assert module in PURE or room(module), "a module outside of the rooms"
    upwards = {other for other in ours(module) if not may_import(module, other)}
    assert not upwards


def test_modules_of_http_do_not_import_each_other_in_circles() -> None:
    modules = {module for module in MODULES if room(module) == "http"}
    TopologicalSorter({module: ours(module) & modules for module in modules}).prepare()


def test_every_module_in_the_list_of_pure_ones_exists() -> None:
    assert set(PURE) <= MODULES.keys()


def test_the_import_statements_are_found() -> None:
    """Otherwise nothing here could fail."""
    assert {
        "twistedmedia.library.library",
        "twistedmedia.http.forms",
        "twistedmedia.web.arguments",
    } <= ours("twistedmedia.web.uploads")
    assert not may_import("twistedmedia.names", "twistedmedia.store.interface")
    assert not may_import("twistedmedia.store.local.directory", "twistedmedia.http.body")
    assert not may_import("twistedmedia.library.library", "twistedmedia.web.arguments")
    assert not may_import("twistedmedia.client.media", "twistedmedia.http.body")
    assert may_import("twistedmedia.http.body", "twistedmedia.http.forms")
    assert not may_import("twistedmedia.http.site", "twistedmedia.fetch.hops")
    assert len(MODULES) > 20


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_does_not_import_twisted(module: str) -> None:
    assert not {name for name in imports(module) if name.split(".")[0] in IMPURE}


# Runs in a new interpreter in which the impure packages are missing.
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
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_is_imported_without_twisted(module: str) -> None:
    outcome = imported_without_twisted(module)
    assert outcome.returncode == 0, outcome.stderr


def test_another_module_cannot_be_imported_without_twisted() -> None:
    """Otherwise the test above could not fail."""
    assert (
        "is not for pure modules" in imported_without_twisted("twistedmedia.store.interface").stderr
    )


def names_the_reactor(tree: ast.AST) -> bool:
    """Whether the global reactor is imported, reached through its package, or named in a string."""
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
def test_every_way_to_name_the_global_reactor_is_detected(code: str) -> None:
    assert names_the_reactor(ast.parse(code))


def test_only_the_two_commands_name_the_global_reactor() -> None:
    naming = {
        module for module, path in MODULES.items() if names_the_reactor(ast.parse(path.read_text()))
    }
    assert naming == {"twistedmedia.service.tap", "twistedmedia.client.command.main"}
    assert not names_the_reactor(ast.parse(PLUGIN.read_text()))


def test_the_plugin_does_not_import_the_package() -> None:
    """Every twistd on the machine loads it."""
    tree = ast.parse(PLUGIN.read_text())
    imported = [ast.unparse(node) for node in ast.walk(tree) if "Import" in type(node).__name__]
    assert imported == ["from twisted.application.service import ServiceMaker"]


@pytest.mark.parametrize("noun", ["util", "utils", "helpers", "misc", "base", "common", "core"])
def test_no_module_has_a_meaningless_name(noun: str) -> None:
    assert not [module for module in MODULES if noun in module.split(".")]


def test_all_exports_exist_and_other_names_do_not() -> None:
    for name in twistedmedia.__all__:
        # `media_site` is a class with the name of a function.
        assert _bare(getattr(twistedmedia, name).__name__) == _bare(name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        twistedmedia.nothing  # noqa: B018


def _bare(name: str) -> str:
    return name.lower().replace("_", "")

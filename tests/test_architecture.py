"""The pages about the inside name what exists: modules, classes, methods, files."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from tests.test_rooms import MODULES, PURE, ROOMS

HOUSE = Path(__file__).parents[1]
PAGES = ["docs/architecture.md", "docs/fairness.md"]
_LINE = re.compile(r"^    ( *)(\w+)(/|\.py)(?: +(.*?))??( pure)?$", re.MULTILINE)
_TERM = re.compile(r"`([A-Za-z_][\w./]*)`")
# Names of classes without their module, by the modules that are searched for them.
_SEARCHED = [name for name in MODULES if not name.startswith("twistedmedia.client")]


def read(page: str) -> str:
    return (HOUSE / page).read_text(encoding="utf-8")


def tree() -> dict[str, bool]:
    """The modules in the tree of the page, and whether each is marked as pure."""
    listed: dict[str, bool] = {}
    folders: list[str] = []
    block = read(PAGES[0]).partition("    twistedmedia/\n")[2].partition("    twisted/plugins")[0]
    for indent, name, kind, _, pure in _LINE.findall(block):
        del folders[len(indent) // 2 - 1 :]
        if kind == "/":
            folders.append(name)
        else:
            path = ".".join(["twistedmedia", *folders, name])
            listed[path.removesuffix(".__init__")] = bool(pure)
    return listed


def test_the_tree_lists_all_modules() -> None:
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert set(tree()) == MODULES.keys() - packages | {"twistedmedia"}


def test_the_tree_marks_the_pure_modules() -> None:
    listed = tree()
    assert {name for name, is_pure in listed.items() if is_pure} == set(PURE) & listed.keys()


def test_the_table_says_which_room_may_import_which() -> None:
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", read(PAGES[0]).partition("## Glossary")[0], re.M)
    table = {
        room: set(re.findall(r"`([\w.]+)`", others))
        for rooms, others in rows
        for room in re.findall(r"`([\w.]+)`", rooms)
    }
    assert table == ROOMS


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page: str) -> None:
    text = read(page).rpartition("## Glossary")[2]  # what is before is checked above
    terms = {term for term in _TERM.findall(text) if "." in term or term[0].isupper()}
    assert len(terms) > 20
    assert not {term for term in terms if not _exists(term)} - _OF_OTHERS


# Names of Python, HTTP, the kernel and Twisted.
_OF_OTHERS = {"IStreamsBody", "PATCH", "RESOLVE_CACHED", "RWF_NOWAIT", "O_NOFOLLOW", "SO_RCVBUF"}


def _exists(term: str) -> bool:
    if "/" in term or term.endswith((".py", ".md")):
        package = HOUSE / "twistedmedia"
        places = (HOUSE, package, package / "service")  # a list of its modules names the room once
        return any((place / term).exists() for place in places)
    first, *rest = term.split(".")
    if first[0].isupper():
        return any(_has(vars(import_module(name)).get(first), rest) for name in _SEARCHED)
    parts = [first, *rest]
    for end in range(len(parts), 0, -1):
        name = ".".join(["twistedmedia", *parts[:end]])
        if name in MODULES:
            return _has(import_module(name), parts[end:])
    return False


def _has(thing: object, names: list[str]) -> bool:
    for name in names:
        if isinstance(thing, type) and f"self.{name} =" in inspect.getsource(thing):
            return True  # an attribute of instances
        thing = getattr(thing, name, None)
    return thing is not None

"""What `twistedmedia` exports is there, is what its module has, and has its type."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import twistedmedia

TREE = ast.parse(Path(twistedmedia.__file__).read_text(encoding="utf-8"))


def typed_block() -> ast.If:
    """What is seen by those who check types, and by nobody else."""
    found = [node for node in TREE.body if isinstance(node, ast.If)]
    assert [ast.unparse(node.test) for node in found] == ["TYPE_CHECKING"]
    return found[0]


def typed() -> Iterator[tuple[str, str]]:
    """The names that are exported to those who check types, and their modules."""
    for node in typed_block().body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "without `as` it is not exported (PEP 484)"
            yield alias.name, str(node.module)


@pytest.mark.parametrize("name", twistedmedia.__all__)
def test_every_export_is_the_object_of_the_module_that_its_type_is_from(name: str) -> None:
    exported = getattr(twistedmedia, name)
    assert exported is getattr(import_module(dict(typed())[name]), name)
    assert getattr(exported, "__doc__", None), "whoever embeds it reads it"


def test_the_names_that_have_types_are_those_that_are_exported() -> None:
    assert sorted(typed()) == sorted(twistedmedia._EXPORTS.items())
    assert sorted(twistedmedia._EXPORTS) == sorted(twistedmedia.__all__)
    assert len(twistedmedia.__all__) > 20


def test_each_is_taken_from_the_module_that_defines_it() -> None:
    """So that a module that no longer needs what it imports can drop it."""
    for name, module in typed():
        assert getattr(twistedmedia, name).__module__ == module


def test_those_who_check_types_see_no_name_that_is_not_there() -> None:
    """A module's `__getattr__` would have a type for each."""
    seen = [*TREE.body, *typed_block().body]
    functions = {node.name for node in seen if isinstance(node, ast.FunctionDef)}
    assert functions == {"__dir__"}


def test_dir_shows_what_is_exported_and_what_a_module_has() -> None:
    assert {*twistedmedia.__all__, "__version__", "__all__", "__doc__"} <= set(dir(twistedmedia))


@pytest.mark.parametrize("name", ["nothing", "mediasite", "arrival_", "__wrapped__", "reactor"])
def test_what_is_not_exported_is_not_there(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'twistedmedia' has no attribute '{name}'"):
        getattr(twistedmedia, name)


def test_a_name_is_loaded_when_it_is_asked_for_and_not_before() -> None:
    code = """
import sys
from twistedmedia import Policy, parse_url, parse_proxies, MediaError
dir(sys.modules["twistedmedia"])
assert not {"twisted", "zope", "klein", "treq"} & sys.modules.keys()
from twistedmedia import BodyMemory
assert "twisted" in sys.modules and "klein" not in sys.modules
from twistedmedia import *
assert MediaSite is media_site
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

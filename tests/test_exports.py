"""The exports of `twistedmedia` exist, are those of their modules, and have types."""

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
    """The block that only type checkers see."""
    found = [node for node in TREE.body if isinstance(node, ast.If)]
    assert [ast.unparse(node.test) for node in found] == ["TYPE_CHECKING"]
    return found[0]


def typed() -> Iterator[tuple[str, str]]:
    """The names that are exported to type checkers, and their modules."""
    for node in typed_block().body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "without `as` it is not exported (PEP 484)"
            yield alias.name, str(node.module)


@pytest.mark.parametrize("name", twistedmedia.__all__)
def test_every_export_is_the_object_of_the_module_that_its_type_is_from(name: str) -> None:
    exported = getattr(twistedmedia, name)
    assert exported is getattr(import_module(dict(typed())[name]), name)
    assert getattr(exported, "__doc__", None), "it is part of the documentation for embedding"


def test_exactly_the_exported_names_have_types() -> None:
    assert sorted(typed()) == sorted(twistedmedia._EXPORTS.items())
    assert sorted(twistedmedia._EXPORTS) == sorted(twistedmedia.__all__)
    assert len(twistedmedia.__all__) > 20


def test_each_export_is_taken_from_the_module_that_defines_it() -> None:
    """Another module may stop importing it."""
    for name, module in typed():
        assert getattr(twistedmedia, name).__module__ == module


def test_type_checkers_do_not_accept_other_names() -> None:
    """They would if they saw `__getattr__`."""
    seen = [*TREE.body, *typed_block().body]
    functions = {node.name for node in seen if isinstance(node, ast.FunctionDef)}
    assert functions == {"__dir__"}


def test_dir_lists_the_exports_and_the_attributes_of_the_module() -> None:
    assert {*twistedmedia.__all__, "__version__", "__all__", "__doc__"} <= set(dir(twistedmedia))


@pytest.mark.parametrize("name", ["nothing", "mediasite", "arrival_", "__wrapped__", "reactor"])
def test_other_names_do_not_exist(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'twistedmedia' has no attribute '{name}'"):
        getattr(twistedmedia, name)


def test_a_name_is_loaded_when_it_is_first_used() -> None:
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

"""The size of modules, their names, and the state of classes: what a reader must keep in mind."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import twistedmedia

PACKAGE = Path(twistedmedia.__file__).parent
MODULES = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
MOST_LINES = 400
MOST_FLAGS = 5
MOST_PARAMETERS = 6


def classes(text: str) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef))


def constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    functions = (item for item in node.body if isinstance(item, ast.FunctionDef))
    return next((function for function in functions if function.name == "__init__"), None)


def flags(node: ast.ClassDef) -> set[str]:
    """The attributes of a new instance that are booleans or may be None. Attributes that the
    constructor copies from its arguments do not count: they do not change.
    """
    begin = constructor(node)
    found = set()
    is_value = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    of_class = [] if is_value else node.body
    for statement in [*of_class, *(ast.walk(begin) if begin else ())]:
        if isinstance(statement, ast.AnnAssign):
            is_flag = _is_optional(ast.unparse(statement.annotation))
            targets = [statement.target]
        elif isinstance(statement, ast.Assign):
            is_flag = _is_flag(statement.value)
            targets = statement.targets
        else:
            continue
        found |= {ast.unparse(target) for target in targets if is_flag}
    inside = {ast.unparse(t) for s in of_class for t in getattr(s, "targets", [])}
    return {
        name.removeprefix("self.") for name in found if name.startswith("self.") or name in inside
    }


def _is_optional(annotation: str) -> bool:
    return annotation == "bool" or "None" in annotation.split(" | ")


def _is_flag(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and (
        value.value is None or isinstance(value.value, bool)
    )


def test_flags_are_found() -> None:
    """Otherwise the test below could not fail."""
    code = """
class A:
    z = False
    def __init__(self, a: int | None, b: bool) -> None:
        self.a = a
        self.b = self.c = False
        self._d: int | None = a
        self.e: list[int | None] = []
        self.f = 0
        g = None
    def later(self):
        self.h = None
"""
    assert flags(next(classes(code))) == {"z", "b", "c", "_d"}


def test_no_class_has_many_flags() -> None:
    many = {
        f"{module}: {node.name}"
        for module, text in MODULES.items()
        for node in classes(text)
        if len(flags(node)) > MOST_FLAGS
    }
    assert not many


def test_no_constructor_has_many_positional_parameters() -> None:
    many = {
        f"{module}: {node.name}"
        for module, text in MODULES.items()
        for node in classes(text)
        if (begin := constructor(node)) and len(begin.args.args) - 1 > MOST_PARAMETERS
    }
    assert not many


def test_no_module_is_long() -> None:
    assert not {name for name, text in MODULES.items() if text.count("\n") > MOST_LINES}


def test_each_name_of_a_module_is_used_once() -> None:
    names = Counter(Path(module).name for module in MODULES)
    assert {name for name, count in names.items() if count > 1} == {"__init__.py"}

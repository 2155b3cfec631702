"""Versions of dependencies: floors without known advisories, and constraints for the tests."""

from __future__ import annotations

import configparser
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "dependencies.md").read_text()

# The first versions without the advisories that docs/dependencies.md names.
FIXED = {
    "cryptography": "50.0",
    "idna": "3.15",
    "pygments": "2.20",
    "pyopenssl": "26.0",
    "twisted": "26.4",
    "werkzeug": "3.1.6",
    "pytest": "9.0.3",
}


def required(*extras: str) -> list[Requirement]:
    """The requirements in setup.cfg: of these extras, or without them at run time."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    texts = [setup["options.extras_require"][extra] for extra in extras]
    if not extras:
        texts = [setup["options"]["install_requires"]]
    return [Requirement(line) for text in texts for line in text.split("\n") if line.strip()]


def floor(requirement: Requirement) -> Version | None:
    floors = [each.version for each in requirement.specifier if each.operator == ">="]
    return Version(floors[0]) if floors else None


def constraints() -> dict[str, Version]:
    lines = (ROOT / "tests" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def installed() -> set[str]:
    """The distributions of the test environment: ours and all that it needs, directly or not. Tools
    for development count only if they are installed.
    """
    found: set[str] = set()
    waiting = [Requirement("twistedmedia[test,dev]")]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            needs = requires(requirement.name) or []
        except PackageNotFoundError:
            continue
        found.add(canonicalize_name(requirement.name))
        for need in map(Requirement, needs):
            extras = [{"extra": extra} for extra in ["", *requirement.extras]]
            if need.marker is None or any(need.marker.evaluate(extra) for extra in extras):
                waiting.append(need)
    return found


def test_the_constraints_cover_every_distribution_of_the_test_environment() -> None:
    found = installed()
    assert {"twistedmedia", "twisted", "cffi", "pytest", "pluggy", "hypothesis"} <= found
    assert not found - {"twistedmedia"} - constraints().keys()


@pytest.mark.parametrize("requirement", [*required(), *required("test", "dev")], ids=str)
def test_no_floor_is_above_the_constraints(requirement: Requirement) -> None:
    assert constraints()[canonicalize_name(requirement.name)] in requirement.specifier


def test_every_dependency_at_run_time_has_a_floor_and_a_line_on_the_page() -> None:
    for requirement in required():
        lowest = str(requirement.specifier).removeprefix(">=")
        assert floor(requirement) is not None
        line = f"| [{requirement.name}](https://pypi.org/project/{requirement.name}/) | {lowest} |"
        assert line in PAGE, f"docs/dependencies.md has no line {line}"


def test_no_floor_admits_a_version_with_a_known_advisory() -> None:
    floors = {
        canonicalize_name(each.name): floor(each) for each in [*required(), *required("test")]
    }
    for name, fixed in FIXED.items():
        lowest = floors[name]
        assert lowest is not None
        assert lowest >= Version(fixed), name


def test_the_metadata_of_the_package_has_the_floors() -> None:
    """If it fails, an editable install is older than setup.cfg: install the package again."""
    found = {str(Requirement(each)) for each in requires("twistedmedia") or []}
    assert {str(each) for each in required()} <= found


@pytest.mark.parametrize("file", ["README.md", ".ci/run", "tests/live/run"])
def test_test_environments_are_installed_with_the_constraints(file: str) -> None:
    lines = [line for line in (ROOT / file).read_text().splitlines() if "'.[test" in line]
    assert lines
    assert all("pip install -q" in line and "-c tests/constraints.txt" in line for line in lines)

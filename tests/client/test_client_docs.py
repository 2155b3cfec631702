"""The examples of the library in docs/client.md work unchanged, and its tables are complete.

tests/live/test_docs.py runs the commands of the page.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.running import Process, running
from twistedmedia.client import MediaClient, exceptions
from twistedmedia.client.command.command_line import parse

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Process]:
    with running(tmp_path / "service" / "media", "--check", "off") as process:
        yield process


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "hello.wav").write_bytes(b"hello.wav")
    return tmp_path


def block(heading: str, first: str) -> str:
    """The indented block below `heading` that begins with `first`."""
    section = PAGE.split(f"\n{heading}\n")[1]
    found = re.findall(r"^(?: {4}.*\n|\n(?= {4}))+", section, re.MULTILINE)
    return next(text for text in map(textwrap.dedent, found) if text.strip().startswith(first))


def test_the_example_of_the_library_works(service: Process, here: Path) -> None:
    code = block("## The library", "from pathlib") + (
        "\nimport sys\nfrom twisted.internet.defer import ensureDeferred\n"
        "from twisted.internet.task import react\n"
        "async def main(reactor):\n"
        "    print(await publish(reactor, 'hello.wav'))\n"
        "react(lambda reactor: ensureDeferred(main(reactor)))\n"
    )
    url = f"http://127.0.0.1:{service.port}/media/prompts/en/hello.wav"
    assert python(code, here, service).splitlines() == [url]
    (here / "hello.wav").write_text("something else")
    assert python(code, here, service).splitlines() == ["501 the file exists already", "None"]


def test_the_example_for_asyncio_works(service: Process, here: Path) -> None:
    code = block("### With asyncio", "import asyncio")
    url = f"http://127.0.0.1:{service.port}/media/prompts/en/hello.wav"
    assert python(code, here, service) == f"{url}\n"
    (here / "hello.wav").write_text("something else")
    assert python(code, here, service) == "501 the file exists already\n"


def python(code: str, folder: Path, service: Process) -> str:
    """Run `code` as a program, which must not write to stderr. Returns its output."""
    here = code.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{service.port}")
    assert here != code
    (folder / "example.py").write_text(here)
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "example.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_page_has_every_option_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("", "put", "get", "ls", "rm", "import", "fetch", "health"):
        with pytest.raises(SystemExit) as caught:
            parse([*([command] if command else []), "--help"], {})
        assert caught.value.code == 0
        options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
        missing = options - set(re.findall(r"--[a-z-]+", PAGE)) - UNSAID
        assert not missing, command


# The page has their short forms, or every program has them.
UNSAID = {"--help", "--version", "--output", "--long", "--recursive"}


def test_the_page_has_every_method_of_the_library() -> None:
    methods = {name for name in vars(MediaClient) if not name.startswith("_")}
    table = block_of_rows("## The library")
    assert {re.match(r"`(\w+)\(", row)[1] for row in table} == methods  # type: ignore[index]


def test_the_page_has_every_error() -> None:
    tree = ast.parse(Path(exceptions.__file__).read_text())
    kinds = {node.name for node in tree.body if isinstance(node, ast.ClassDef)} - {"ClientError"}
    assert {row.split("`")[1] for row in block_of_rows("### Errors")} == kinds


def block_of_rows(heading: str) -> list[str]:
    section = PAGE.split(f"\n{heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
    rows = [line.removeprefix("| ") for line in section.splitlines() if line.startswith("| `")]
    assert rows
    return rows

"""What docs/client.md says works when it is pasted, and comes out as it says."""

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

from tests.service.running import Process, running
from twistedmedia.client import MediaClient, errors
from twistedmedia.client.command.options import parse

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Process]:
    arguments = ("--check", "off", "--fetch-allow", "127.0.0.1")
    with running(tmp_path / "service" / "media", *arguments) as process:
        yield process


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("hello.wav", "goodbye.wav", "sounds/a.wav", "sounds/en/b.wav", "sounds/LICENSE"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def block(heading: str, first: str) -> str:
    """The indented block below `heading` that begins with `first`."""
    section = PAGE.split(f"\n{heading}\n")[1]
    found = re.findall(r"^(?: {4}.*\n|\n(?= {4}))+", section, re.MULTILINE)
    return next(text for text in map(textwrap.dedent, found) if text.strip().startswith(first))


def run(line: str, folder: Path, service: Process) -> subprocess.CompletedProcess[str]:
    """`line` in a shell, at the service that runs, which stands for all others."""
    ours = {key: value for key, value in os.environ.items() if "TWISTEDMEDIA" not in key}
    here = f"http://127.0.0.1:{service.port}"
    for written, meant in [
        ("https://example.org/a.wav", f"{here}/media/prompts/a.wav"),
        ("https://example.org/", f"{here}/media/prompts/a.wav"),
        ("http://127.0.0.1:8000", here),
        ("twistedmedia ", f"{sys.executable} -m twistedmedia.client "),
    ]:
        line = line.replace(written, meant)
    return subprocess.run(
        ["sh", "-c", line],
        cwd=folder,
        env={
            **ours,
            "TWISTEDMEDIA_URL": here,
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_commands_work_in_their_order(service: Process, here: Path) -> None:
    lines = block("## The command", "twistedmedia put").strip().splitlines()
    assert len(lines) == 18
    said, left_out = {}, ""
    for line in lines:
        done = run(line, here, service)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        said[line.partition("#")[0].strip()] = done.stdout
        left_out += done.stderr
    kept = {
        str(path.relative_to(service.root)): path.read_text()
        for path in service.root.rglob("*.wav")
    }
    assert kept == {
        "prompts/en/goodbye.wav": "goodbye.wav",
        "prompts/en/piped.wav": "hello.wav",
        "prompts/en/a.wav": "sounds/a.wav",
        "prompts/en/b.wav": "sounds/en/b.wav",
        "prompts/a.wav": "sounds/a.wav",
    }
    assert (here / "greeting.wav").read_text() == "hello.wav"
    assert (here / "backup/en/hello.wav").read_text() == "hello.wav"
    assert (here / "backup/hello.wav").read_text() == "hello.wav"
    assert said["twistedmedia get prompts/en/hello.wav -o - | wc -c"].strip() == "9"
    assert said["twistedmedia ls prompts/en/hello.wav -l"].split()[0] == "9"
    assert said["twistedmedia rm -r prompts/sounds"].count("deleted ") == 2
    assert "LICENSE: the format is not supported" in left_out  # case 78
    assert said["twistedmedia fetch https://example.org/"].startswith("Time Cost: ")
    assert said["twistedmedia health"].startswith("version ")


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
    """What `code` prints as a program; it says nothing else, and ends by itself."""
    here = code.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{service.port}")
    assert here != code
    (folder / "example.py").write_text(here)
    done = run(f"{sys.executable} -W always::ResourceWarning example.py", folder, service)
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


# Shown with their short forms, or by every program.
UNSAID = {"--help", "--version", "--output", "--long", "--recursive"}


def test_the_page_has_every_method_of_the_library() -> None:
    methods = {name for name in vars(MediaClient) if not name.startswith("_")}
    table = block_of_rows("## The library")
    assert {re.match(r"`(\w+)\(", row)[1] for row in table} == methods  # type: ignore[index]


def test_the_page_has_every_error() -> None:
    tree = ast.parse(Path(errors.__file__).read_text())
    kinds = {node.name for node in tree.body if isinstance(node, ast.ClassDef)} - {"ClientError"}
    assert {row.split("`")[1] for row in block_of_rows("### Errors")} == kinds


def block_of_rows(heading: str) -> list[str]:
    section = PAGE.split(f"\n{heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
    rows = [line.removeprefix("| ") for line in section.splitlines() if line.startswith("| `")]
    assert rows
    return rows

"""The commands of README.md and of docs/, pasted into a shell, do what their page says.

How a page states that: commands stand in a block that is fenced as `sh`. If a block that is fenced
as `text`, `json` or `http` follows, it is all that they print. Any white space in it matches any
other, so long lines may be broken; `...` matches anything. A block with `twistd -n` is a service:
it runs until the next block with `twistd`, or to the end of the page.

Each page is run from its top in a folder of its own. A page that does not begin with a service of
its own finds one with the defaults, and `hello.wav`. README.md and docs/client.md, whose first
command installs the package, find a checkout instead.
"""

from __future__ import annotations

import contextlib
import filecmp
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import threading
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process.exchange import Connection
from tests.process.running import NOWHERE, Process, connects, environment, eventually, free_port
from tests.process.test_examples import EMBEDDING, indented

HOUSE = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (HOUSE / "docs").glob("*.md"))]
COMMAND_S = 120  # docs/client.md uploads 1 GiB
START_S = 300  # the first commands of README.md and docs/client.md install the package

PROGRAMS = (
    r"apt-get bash curl export git install journalctl kill node npm npx pip pipx pytest python3?"
    r" rclone sh systemctl systemd-\S+ twist twistd twistedmedia wget"
).replace(" ", "|")

# Commands that no test can paste: the page, how the block begins, and why.
NOT_RUN = {
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install -q -c tests/"): (
        "it runs the whole suite"
    ),
    ("docs/deploying.md", "python3 -m venv /opt/twistedmedia"): (
        "it writes to /opt and /etc of a machine whose process 1 is systemd; test_deploying.py has"
        " systemd check the units"
    ),
    ("docs/deploying.md", "/opt/twistedmedia/bin/pip install --upgrade"): "as before",
}

# Blocks that are not commands, and which test runs them as they stand.
RUN_ELSEWHERE = {
    ("docs/deploying.md", "logrotate"): "tests/live/test_deploying.py",
    ("docs/running.md", "logrotate"): "tests/live/test_rotating.py",
    ("docs/deploying.md", "nginx"): "tests/live/test_deploying.py",
    ("docs/deploying.md", "caddy"): "tests/live/test_deploying.py",
}

# Pages after which more is looked at than what was printed.
BY_THEMSELVES = ["README.md", "docs/client.md", "docs/resumable.md"]

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_COMMANDS = re.compile(
    r"^```sh\n(.*?)^```\n(?:\n*```(?:text|json|http)\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
_UNFENCED = re.compile(rf"^    (?:\$ )?((?:\S*/)?(?:{PROGRAMS}) .*\n)", re.MULTILINE)


@dataclass(frozen=True)
class Pasted:
    """A block of commands, and what they are said to print, if that is said."""

    commands: str
    output: str | None

    @property
    def is_service(self) -> bool:
        return "twistd -n" in self.commands

    @property
    def is_refused(self) -> bool:
        """Whether the commands are said to fail."""
        return self.output is not None and "cannot start" in self.output


def read(page: str) -> str:
    return (HOUSE / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Pasted]:
    return [Pasted(found[1], found[2]) for found in _COMMANDS.finditer(read(page))]


def blocks_to_run(page: str) -> list[Pasted]:
    beginnings = tuple(begins for where, begins in NOT_RUN if where == page)
    return [each for each in blocks(page) if not each.commands.startswith(beginnings or ("\n",))]


# What is to be run


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_run_or_listed_with_a_reason(page: str) -> None:
    text = read(page)
    for language, _ in _FENCED.findall(text):
        is_known = language in ("sh", "text", "json", "http") or (page, language) in RUN_ELSEWHERE
        assert is_known, f"what is a block of {language!r}?"
    unfenced = _UNFENCED.findall(_FENCED.sub("", text))
    assert unfenced == [], "commands belong into a block that is fenced as sh"
    for where, begins in NOT_RUN:
        if where == page:
            assert sum(each.commands.startswith(begins) for each in blocks(page)) == 1, begins
    for where, language in RUN_ELSEWHERE:
        if where == page:
            assert f"```{language}\n" in text
            assert f'"{language}"' in read(RUN_ELSEWHERE[where, language])


def test_what_is_not_fenced_is_found() -> None:
    text = (
        "    curl http://a/\n\n    $ .venv/bin/twistedmedia ls\n\n    import re\n    curled = 1\n"
    )
    assert _UNFENCED.findall(text) == ["curl http://a/\n", ".venv/bin/twistedmedia ls\n"]


# Running it


class Terminals:
    """A shell that commands are pasted into, and another one in which a service may run."""

    def __init__(self, folder: Path, port: int) -> None:
        """Both in `folder`; the port 8000 is `port`."""
        self._folder = folder
        self._port = port
        home = folder.with_name(folder.name + ".home")
        home.mkdir()
        (home / ".curlrc").write_text("no-progress-meter\n", encoding="ascii")
        self._environment = {
            **environment(),
            "no_proxy": "127.0.0.1",  # pip may need a proxy
            "NO_PROXY": "127.0.0.1",
            "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "CURL_HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "TWISTEDMEDIA_PORT": str(port),
            "TWISTEDMEDIA_URL": f"http://127.0.0.1:{port}",
        }
        self._service: subprocess.Popen[bytes] | None = None
        self._log = folder.with_name(folder.name + ".log")
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def here(self, text: str) -> str:
        """`text` with the port that is meant."""
        for before in ("127.0.0.1:", "--port ", "starting on "):
            text = text.replace(f"{before}8000", f"{before}{self._port}")
        return text

    def paste(self, commands: str) -> tuple[str, bool]:
        """What `commands` print, and whether all of them succeed."""
        if "twistd" in commands:
            self.end_service()
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        ended = "this is the end of"  # no page says so
        script = (
            f"failed=0; trap 'failed=$?' ERR\n{{\n{self.here(commands)}}} </dev/null\n"
            f"trap - ERR; echo; echo '{ended}' $failed\n"
        )
        self._shell.stdin.write(script.encode())
        self._shell.stdin.flush()
        with self._limited():
            output = ""
            while f"\n{ended} " not in output:
                line = self._shell.stdout.readline().decode()
                assert line, f"the shell has ended, or took more than {COMMAND_S} s: {output}"
                output += line
        output, _, status = output.rpartition(f"\n{ended} ")
        return output, status == "0\n"

    def start(self, commands: str) -> None:
        """Run `commands`, of which the last is a service, until it answers."""
        self.end_service()
        # Another service would answer in place of this one, which cannot listen then.
        eventually("the port is free", lambda: not connects(self._port))
        with self._log.open("wb") as log:
            self._service = service = subprocess.Popen(
                ["bash", "-c", self.here(commands)],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def answers() -> bool:
            assert service.poll() is None, self.log
            if not connects(self._port):
                return False
            with Connection(self._port) as connection:
                return connection.ask("GET", NOWHERE).status == 404

        eventually("the service answers", answers, START_S)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def end_service(self) -> None:
        """As Ctrl-C does; but that would be ignored where the tests run in the background."""
        service, self._service = self._service, None
        if service is None:
            return
        os.killpg(service.pid, signal.SIGTERM)
        try:  # the shell before the service is gone at once
            ends = "Server Shut Down."
            eventually("it ends", lambda: self.log.rstrip().endswith(ends), COMMAND_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(service.pid, signal.SIGKILL)
            service.wait()
        assert "Traceback" not in self.log, self.log

    def end(self) -> None:
        """End the shell, and a daemon that is left."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.close()
        self._shell.stdout.close()
        self._shell.wait(COMMAND_S)
        pidfile = self._folder / "twistd.pid"
        if pidfile.exists():
            os.kill(int(pidfile.read_text(encoding="ascii")), signal.SIGKILL)

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        too_late = threading.Timer(COMMAND_S, self._shell.kill)
        too_late.start()
        try:
            yield
        finally:
            too_late.cancel()


def matches(said: str, printed: str) -> bool:
    """Whether `printed` is what is `said`: white space for white space, anything for `...`."""
    words = [re.escape(word).replace(r"\.\.\.", ".*") for word in said.split()]
    pattern = "".join("(?:.* )?" if word == ".*" else f"{word} " for word in words)
    return re.fullmatch(pattern, "".join(f"{word} " for word in printed.split())) is not None


def sound(seconds: int = 1) -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 8000 * seconds))
    return written.getvalue()


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Callable[[Path], Terminals]]:
    with contextlib.ExitStack() as opened:

        def open_in(folder: Path) -> Terminals:
            terminals = Terminals(folder, free_port())
            opened.callback(terminals.end)
            opened.callback(terminals.end_service)
            return terminals

        yield open_in


def run(page: str, terminals: Terminals) -> None:
    """All of the page that can be run, from its top."""
    to_run = blocks_to_run(page)
    if to_run and not to_run[0].is_service:
        terminals.start("twistd -n --pidfile= media")
    for block in to_run:
        print(block.commands)
        if block.is_service:
            terminals.start(block.commands)
            if block.output is not None:
                said = terminals.here(block.output)
                eventually(said, lambda said=said: matches(said, terminals.log))  # type: ignore[misc]
            continue
        printed, succeeded = terminals.paste(block.commands)
        assert succeeded is not block.is_refused, (block.commands, printed)
        if block.output is not None:
            assert matches(terminals.here(block.output), printed), (block.output, printed)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in BY_THEMSELVES and blocks(page)]
)
def test_the_commands_of_a_page_print_what_it_says(
    page: str, tmp_path: Path, terminals: Callable[[Path], Terminals]
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "hello.wav").write_bytes(sound())
    it = terminals(here)
    if HOUSE / page == EMBEDDING:
        (here / "media.tac").write_text(media_tac(it), encoding="utf-8")
    run(page, it)


def media_tac(terminals: Terminals) -> str:
    """The file that docs/embedding.md shows, on a free port."""
    code = "\n".join(indented(EMBEDDING.read_text(encoding="utf-8")))
    here = code.replace('"media", 8000)', f'"media", {terminals.here("--port 8000")[7:]})')
    assert here != code
    return here


def checkout(folder: Path) -> Path:
    """One in `folder`, with what an installation needs."""
    here = folder / "checkout"
    here.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(HOUSE / name, here)
    for name in ("twisted", "twistedmedia"):
        shutil.copytree(HOUSE / name, here / name)
    return here


def test_the_commands_of_the_readme_print_what_it_says(
    tmp_path: Path, terminals: Callable[[Path], Terminals]
) -> None:
    """In a checkout of its own, where the first of them installs the service."""
    here = checkout(tmp_path)
    it = terminals(here)
    assert sum("/twistedmedia " in each.commands for each in blocks("README.md")) >= 1
    assert sum("curl " in each.commands for each in blocks("README.md")) >= 6
    run("README.md", it)
    original = (here / "hello.wav").read_bytes()
    assert original[:4] == b"RIFF"
    stored = {
        str(path.relative_to(here / "media")): path.read_bytes()
        for path in (here / "media").rglob("*.wav")
    }
    assert stored == dict.fromkeys(
        [
            "prompts/de/hello.wav",
            "prompts/fr/salut.wav",
            "prompts/it/ciao.wav",
            "prompts/nl/hello.wav",
            "prompts/es/hola.wav",
        ],
        original,
    )
    assert (here / "copy.wav").read_bytes() == original
    assert (here / "copies" / "prompts" / "nl" / "hello.wav").read_bytes() == original


def test_the_commands_of_the_page_about_resumable_uploads_store_a_file(
    tmp_path: Path, terminals: Callable[[Path], Terminals]
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "hello.wav").write_bytes(sound())
    run("docs/resumable.md", terminals(tmp_path / "here"))
    stored = tmp_path / "here" / "media" / "prompts" / "en" / "hello.wav"
    assert stored.read_bytes() == sound()


def test_the_commands_of_the_page_about_the_client_move_files(
    tmp_path: Path, terminals: Callable[[Path], Terminals]
) -> None:
    """In a checkout of its own, as those of README.md. A file in a format that the service does not
    take is left out (case 78).
    """
    assert sum(each.commands.count("twistedmedia ") for each in blocks("docs/client.md")) >= 24
    here = checkout(tmp_path)
    run("docs/client.md", terminals(here))
    prompts = here / "media" / "prompts"
    stored = {
        str(path.relative_to(prompts)): path.read_bytes()
        for path in prompts.rglob("*.wav")
        if "en_US_f_Allison" not in path.parts
    }
    sent = {
        name: (here / name).read_bytes()
        for name in ("hello.wav", "goodbye.wav", "sounds/a.wav", "sounds/en/b.wav")
    }
    assert len(set(sent.values())) == len(sent)
    assert stored == {
        "en/goodbye.wav": sent["goodbye.wav"],
        "en/piped.wav": sent["hello.wav"],
        "en/a.wav": sent["sounds/a.wav"],
        "en/b.wav": sent["sounds/en/b.wav"],
        "a.wav": sent["sounds/a.wav"],
    }
    assert (here / "greeting.wav").read_bytes() == sent["hello.wav"]
    assert (here / "backup/en/hello.wav").read_bytes() == sent["hello.wav"]
    assert (here / "backup/hello.wav").read_bytes() == sent["hello.wav"]
    assert filecmp.cmp(
        here / "conference.wav", here / "media/recordings/conference.wav", shallow=False
    )


def test_the_answer_that_is_shown_is_the_one_that_comes(service: Process) -> None:
    shown = json.loads(blocks("README.md")[3].output or "")
    content = sound()
    assert shown["files"][0]["size"] == len(content)
    answer = service.ask("PUT", "/media/as-shown/hello.wav", content).json
    assert answer.keys() == shown.keys()
    assert [entry.keys() for entry in answer["files"]] == [entry.keys() for entry in shown["files"]]
    assert answer["files"][0]["size"] == shown["files"][0]["size"]


# The tools of this module


@pytest.mark.parametrize(
    ("said", "printed", "is_so"),
    [
        ("a b\n", "a  b", True),
        ("a\n  b\n", "a b\n", True),
        ("a...c", "a\nb\nc", True),
        ("a ... c", "a c", True),
        ("a ... c", "a b\nb c", True),
        ("a ... c", "a bc", False),
        ("a ...", "a", True),
        ("a {...}", "a {}", True),
        ("...", "", True),
        ("a", "a b", False),
        ("a", "b a", False),
        ("a.c", "abc", False),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_what_is_said_is_all_that_is_printed(said: str, printed: str, is_so: bool) -> None:
    assert matches(said, printed) is is_so


def test_a_shell_tells_what_its_commands_print_and_whether_all_succeed(
    tmp_path: Path, terminals: Callable[[Path], Terminals]
) -> None:
    (tmp_path / "here").mkdir()
    it = terminals(tmp_path / "here")
    assert it.paste("echo a\nprintf b >&2\n") == ("a\nb", True)
    assert it.paste("false\necho a\n") == ("a\n", False)
    assert it.paste("made=here\ncat\n") == ("", True)
    assert it.paste('echo "$made"\n') == ("here\n", True)

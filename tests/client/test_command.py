"""The command `twistedmedia` as a process: exit codes, signals, a terminal, kills and restarts."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.threads import deferToThread

from tests.support import asynchronous
from twistedmedia.client.command.command_line import parse
from twistedmedia.client.command.main import main
from twistedmedia.client.command.text import size_text
from twistedmedia.client.uploader import SMALL_BYTES

LARGE = bytes(range(256)) * (SMALL_BYTES // 64)  # 16 MiB
HELD_AT = 5 << 20


class Command:
    """Runs the command in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            **{key: value for key, value in os.environ.items() if "TWISTEDMEDIA" not in key},
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }

    def start(self, url: str, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
        settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        return subprocess.Popen(
            [sys.executable, "-m", "twistedmedia.client", *arguments],
            cwd=self._folder,
            env={**self._environment, "TWISTEDMEDIA_URL": url},
            text=True,
            **settings,
        )

    async def run(self, url: str, *arguments: str) -> tuple[int, str, str]:
        """Run the command against `url`. Returns its exit code, stdout and stderr."""
        return await ended(self.start(url, *arguments))


async def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = await deferToThread(process.communicate, timeout=15)
    finally:
        process.kill()
    assert "Traceback" not in (err or "")
    return process.returncode, out, err


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


@asynchronous
async def test_a_killed_put_continues_when_it_is_run_again(
    talk: Any, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.wav").write_bytes(b"small")
    (tmp_path / "tree" / "large.wav").write_bytes(LARGE)
    async with talk() as it:
        it.fake.hold_at = HELD_AT
        process = command.start(it.fake.url, "put", "tree", "to", "--jobs", "1")
        await it.fake.held
        process.kill()
        assert (await ended(process))[0] == -signal.SIGKILL
        for connection in list(it.fake.connections):
            connection.transport.resumeProducing()
            await connection.lost
        [upload] = it.fake.uploads.values()
        there = len(upload.content)
        assert HELD_AT <= there < len(LARGE)

        code, out, err = await command.run(it.fake.url, "put", "tree", "to", "--json")
        results = {entry["name"]: entry for entry in map(json.loads, out.splitlines())}
        assert code == 0
        assert results["to/tree/a.wav"]["outcome"] == "skipped"
        assert results["to/tree/large.wav"]["outcome"] == "stored"
        assert f"1 stored, 1 skipped; {size_text(len(LARGE) - there)} in" in err
        assert it.fake.media["to/tree/large.wav"] == LARGE
        assert len(it.fake.asked("POST")) == 1
        assert it.fake.asked("PATCH")[1].headers["upload-offset"] == str(there)
        assert list((tmp_path / "state/twistedmedia/uploads").iterdir()) == []


@asynchronous
async def test_an_interrupted_put_says_how_to_continue(
    talk: Any, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "large.wav").write_bytes(LARGE)
    async with talk() as it:
        it.fake.hold_at = HELD_AT
        process = command.start(it.fake.url, "put", "large.wav", "to")
        await it.fake.held
        process.send_signal(signal.SIGINT)
        code, out, err = await ended(process)
        for connection in list(it.fake.connections):
            connection.transport.resumeProducing()
            await connection.lost
    assert (code, out) == (130, "")
    assert err == "twistedmedia: interrupted; run the same command again to continue\n"


@asynchronous
async def test_a_killed_get_continues_when_it_is_run_again(
    talk: Any, command: Command, tmp_path: Path
) -> None:
    part = tmp_path / ".large.wav.part"
    async with talk() as it:
        it.fake.put("to/large.wav", LARGE)
        it.fake.next("GET", stays_at=HELD_AT)
        process = command.start(it.fake.url, "get", "to/large.wav")
        while not part.exists() or part.stat().st_size < HELD_AT:
            await deferToThread(os.stat, tmp_path)
        process.kill()
        await ended(process)
        assert not (tmp_path / "large.wav").exists()
        code, out, err = await command.run(it.fake.url, "get", "to/large.wav")
        assert it.fake.asked("GET")[1].headers["range"] == f"bytes={HELD_AT}-"
    assert (code, out) == (0, "downloaded to/large.wav (16.0 MiB)\n")
    assert "1 downloaded; 11.0 MiB" in err
    assert (tmp_path / "large.wav").read_bytes() == LARGE
    assert not part.exists()


@asynchronous
async def test_bars_are_shown_on_a_terminal(talk: Any, command: Command, tmp_path: Path) -> None:
    (tmp_path / "[bold]large.wav").write_bytes(LARGE)
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        async with talk() as it:
            it.fake.hold_at = HELD_AT
            process = command.start(
                it.fake.url, "put", "[bold]large.wav", "to", stdout=theirs, stderr=theirs
            )
            await it.fake.held
            shown = ""
            while "/16.8 MB" not in shown and "/16.0 MiB" not in shown:
                shown += (await deferToThread(os.read, ours, 65536)).decode(errors="replace")
            for connection in it.fake.connections:
                connection.transport.resumeProducing()
            # A read returns up to 4 KiB, and the bars are drawn during the whole upload.
            while "1 stored; 16.0 MiB" not in shown:
                shown += (await deferToThread(os.read, ours, 65536)).decode(errors="replace")
            await deferToThread(process.wait, 15)
        assert process.returncode == 0
    finally:
        os.close(ours)
        os.close(theirs)
    assert "to/[bold]large.wav" in shown
    assert "stored     to/[bold]large.wav (16.0 MiB)" in shown
    assert "1 stored; 16.0 MiB" in shown


@asynchronous
async def test_a_service_that_cannot_be_reached_is_exit_code_3(command: Command) -> None:
    code, out, err = await command.run("http://127.0.0.1:1", "ls", "--retries", "0")
    assert (code, out) == (3, "")
    assert err.startswith("failed     /: the service at http://127.0.0.1:1 cannot be reached: ")


@asynchronous
async def test_a_closed_pipe_ends_the_command_without_a_message(
    talk: Any, command: Command
) -> None:
    reading, writing = os.pipe()
    async with talk() as it:
        it.fake.put("a/b.wav", b"")
        process = command.start(it.fake.url, "ls", "-r", stdout=writing)
        os.close(reading)
        os.close(writing)
        code, _, err = await ended(process)
    assert (code, err) == (1, "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["put"],
        ["put", "a"],
        ["put", "a", "b", "--jobs", "0"],
        ["put", "a", "b", "--jobs", "33"],
        ["put", "a", "b", "--jobs", "x"],
        ["ls", "a", "b"],
        ["ls", "--url", "ftp://example.org"],
        ["ls", "--retries", "-1"],
        ["nothing"],
        ["import", "http://e/"],
        ["put", "-", "a.wav", "to"],
        ["put", "a.wav", "to", "--replace", "--if-match", "x"],
        ["get", "a/b.wav", "a/c.wav", "-o", "-"],
        ["ls", "--url", "http://127.0.0.1:8000/media"],
        ["health", "now"],
    ],
)
def test_wrong_usage_is_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "twistedmedia" in capsys.readouterr().err


def test_options_may_stand_before_or_after_the_subcommand() -> None:
    for arguments in (
        ["--url", "http://e", "--jobs", "2", "--json", "-q", "ls", "a"],
        ["ls", "a", "--url", "http://e", "--jobs", "2", "--json", "--quiet"],
        ["--url", "http://e", "ls", "-q", "--json", "--jobs", "2", "a"],
    ):
        options = parse(arguments, {"TWISTEDMEDIA_URL": "http://not.this"})
        assert (options.url, options.jobs, options.json, options.quiet) == (
            "http://e",
            2,
            True,
            True,
        )
        assert (options.command, options.directory, options.retries) == ("ls", "a", 5)


def test_the_url_is_from_the_environment_or_the_default() -> None:
    assert parse(["ls"], {"TWISTEDMEDIA_URL": "https://e/voice"}).url == "https://e/voice"
    assert parse(["ls"], {"TWISTEDMEDIA_URL": ""}).url == "http://127.0.0.1:8000"
    assert parse(["ls"], {}).jobs == 4


def test_the_url_of_a_page_of_a_service_is_refused_with_the_right_url(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for where in ("media", "media/", "uploads", "media/a/b.wav"):
        with pytest.raises(SystemExit) as caught:
            parse(["ls"], {"TWISTEDMEDIA_URL": f"http://my_media:8000/{where}"})
        assert caught.value.code == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.endswith("; the URL of the service itself is http://my_media:8000")


def test_the_quotes_of_an_entity_tag_may_be_left_out() -> None:
    for written, etag in [("5-ab", '"5-ab"'), ('"5-ab"', '"5-ab"'), ("*", "*")]:
        assert parse(["put", "a", "b", "--if-match", written], {}).etag == etag
    assert parse(["put", "a", "b", "--replace"], {}).replace
    assert parse(["put", "a", "b"], {}).etag is None


@asynchronous
async def test_standard_input_is_stored_and_standard_output_gets_only_the_file(
    talk: Any, command: Command, tmp_path: Path
) -> None:
    content = LARGE.hex()[: len(LARGE)]
    (tmp_path / "in.wav").write_text(content)
    async with talk() as it:
        with open(tmp_path / "in.wav") as source:  # noqa: ASYNC230
            process = command.start(it.fake.url, "put", "-", "/to/a.wav", stdin=source)
            code, out, _ = await ended(process)
        assert (code, out) == (0, "stored     to/a.wav (16.0 MiB)\n")
        code, out, err = await command.run(it.fake.url, "get", "to/a.wav", "-o", "-")
        assert (code, out == content) == (0, True)
        assert err.startswith("downloaded to/a.wav (16.0 MiB)\n1 downloaded; 16.0 MiB in")
        code, out, err = await command.run(it.fake.url, "get", "to/a.wav", "-o", "-", "--json")
        assert (code, out == content) == (0, True)
        assert json.loads(err.splitlines()[0])["outcome"] == "downloaded"
        code, out, err = await command.run(it.fake.url, "get", "to/b.wav", "-o", "-")
        assert (code, out) == (1, "")
        assert err.startswith("failed     to/b.wav: there is no such media (code 404)\n")


@asynchronous
async def test_an_interrupted_put_of_standard_input_ends_at_once(
    talk: Any, command: Command
) -> None:
    reading, writing = os.pipe()
    try:
        async with talk() as it:
            process = command.start(it.fake.url, "put", "-", "to/a.wav", stdin=reading)
            while not it.fake.asked("PUT"):
                await deferToThread(os.stat, "/")
            process.send_signal(signal.SIGINT)
            code, _, _ = await ended(process)
            assert (code, it.fake.media) == (130, {})
    finally:
        os.close(reading)
        os.close(writing)


def test_many_files_can_be_put() -> None:
    options = parse(["put", "-q", "a", "b", "c", "to"], {})
    assert (options.files, options.directory) == (["a", "b", "c"], "to")


@asynchronous
async def test_put_works_with_standard_error_closed(
    talk: Any, command: Command, tmp_path: Path
) -> None:
    """As a cron job may be started, with `2>&-`."""
    (tmp_path / "a.wav").write_bytes(b"sound")
    async with talk() as it:
        process = command.start(
            it.fake.url, "put", "a.wav", "to", stderr=None, preexec_fn=lambda: os.close(2)
        )
        code, out, _ = await ended(process)
        assert (code, out) == (0, "stored     to/a.wav (5 bytes)\n")
        assert it.fake.media == {"to/a.wav": b"sound"}


@asynchronous
async def test_output_that_cannot_be_written_is_a_failure(
    talk: Any, command: Command, tmp_path: Path
) -> None:
    async with talk() as it:
        it.fake.put("a/b.wav", b"sound")
        with open("/dev/full", "w") as full:  # noqa: ASYNC230  # a device
            code, _, said = await ended(command.start(it.fake.url, "ls", "a", stdout=full))
        assert code == 1
        assert "the output cannot be written" in said
        with open("/dev/full", "w") as full:  # noqa: ASYNC230  # a device
            process = command.start(it.fake.url, "get", "a/b.wav", "-o", "-", stdout=full)
            code, _, said = await ended(process)
        assert code == 1
        assert "standard output: No space left on device" in said


@asynchronous
async def test_a_stream_that_is_closed_from_the_start_is_a_failure(
    talk: Any, command: Command
) -> None:
    """`put - <&-` would store nothing, and `get -o - >&-` would lose the file."""
    async with talk() as it:
        it.fake.put("a/b.wav", b"sound")
        process = command.start(it.fake.url, "put", "-", "a/c.wav", preexec_fn=lambda: os.close(0))
        code, _, said = await ended(process)
        assert (code, said.splitlines()[0]) == (1, "failed: standard input is closed")
        process = command.start(
            it.fake.url, "get", "a/b.wav", "-o", "-", stdout=None, preexec_fn=lambda: os.close(1)
        )
        code, _, said = await ended(process)
        assert (code, said.splitlines()[0]) == (1, "failed: standard output is closed")
        assert it.fake.heard == []

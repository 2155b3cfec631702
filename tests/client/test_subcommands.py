"""What the subcommands do and write: `put`, `get`, `ls`, `rm`, `import`, `fetch`, `health`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock

from tests.client.conftest import Talk
from tests.client.fake import Answer, told
from tests.support import asynchronous
from twistedmedia.client import Retries, Unreachable
from twistedmedia.client.command.bars import Bars
from twistedmedia.client.command.display import Lines, Transfer
from twistedmedia.client.command.get import GetOptions, get, get_stream
from twistedmedia.client.command.put import PutOptions, put, put_stream
from twistedmedia.client.command.remote import fetch, health, import_, ls
from twistedmedia.client.command.results import Tally
from twistedmedia.client.command.rm import rm
from twistedmedia.client.command.run import Run
from twistedmedia.client.upload_records import NoResumeStore


class Running:
    """A run of a subcommand, and the sorted lines that it wrote to stdout and stderr."""

    def __init__(self, talk: Talk, *, as_json: bool = False, quiet: bool = False) -> None:
        self._out, self._err = StringIO(), StringIO()
        self.run = Run(
            reactor=reactor,
            client=talk.client,
            display=Lines(self._out, self._err, reactor.seconds, quiet=quiet),
            tally=Tally(),
            resume_store=NoResumeStore(),
            jobs=3,
            as_json=as_json,
            quiet=quiet,
        )

    @property
    def out(self) -> list[str]:
        return sorted(self._out.getvalue().splitlines())

    @property
    def err(self) -> list[str]:
        return sorted(self._err.getvalue().splitlines())

    @property
    def code(self) -> int:
        return self.run.tally.exit_code


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("top/a.wav", "top/en/b ü.wav", "top/en/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@asynchronous
async def test_put_keeps_a_tree_and_skips_what_is_stored(talk: Any, here: Path) -> None:
    async with talk() as it:
        first = Running(it)
        await put(first.run, ["top"], "to/")
        assert it.fake.media == {
            "to/top/a.wav": b"top/a.wav",
            "to/top/en/b ü.wav": "top/en/b ü.wav".encode(),
            "to/top/en/c.wav": b"top/en/c.wav",
        }
        assert first.out[0] == "stored     to/top/a.wav (9 bytes)"
        assert first.run.tally.summary(1).startswith("3 stored; 36 bytes in")
        again = Running(it)
        await put(again.run, ["top"], "to")
        assert again.out[0] == "skipped    to/top/a.wav (9 bytes): stored already"
        assert (again.run.tally.summary(1), again.code) == ("3 skipped", 0)
        assert len(it.fake.asked("PUT")) == 3


@asynchronous
async def test_put_continues_after_failures(talk: Any, here: Path) -> None:
    (here / "top/.hidden").touch()
    async with talk() as it:
        it.fake.put("to/top/a.wav", b"something else")
        it.fake.next("PUT", answer=told(415, 504, "the \x1b[2J format"))
        running = Running(it)
        await put(running.run, ["top", "none.wav"], "to")
    assert running.code == 1
    assert running.err[0].startswith("failed     none.wav: No such file")
    assert running.err[1].endswith("the file exists already, with other content (code 501)")
    assert running.err[2].startswith("left out   to/top/en/")
    assert running.err[2].endswith(": the \N{REPLACEMENT CHARACTER}[2J format")
    assert running.err[3] == "left out   top/.hidden: hidden"
    assert len(running.out) == 1


@asynchronous
async def test_put_to_an_invalid_directory_fails(talk: Any, here: Path) -> None:
    async with talk() as it:
        for directory in ("", "//a", "../a"):
            running = Running(it)
            await put(running.run, ["top/a.wav"], directory)
            assert running.code == 1
        assert it.fake.media == {}


@asynchronous
async def test_put_stops_when_the_service_cannot_be_reached(talk: Any, here: Path) -> None:
    async with talk(retries=Retries(times=0)) as it:
        await it.fake.silence()
        running = Running(it)
        with pytest.raises(Unreachable):
            await put(running.run, ["top"], "to")
    assert 1 <= len(running.err) <= 3


@asynchronous
async def test_results_as_json_are_one_object_per_line(talk: Any, here: Path) -> None:
    async with talk() as it:
        it.fake.put("to/a.wav", b"something else")
        running = Running(it, as_json=True)
        await put(running.run, ["top/a.wav", "top/en/b ü.wav"], "to")
        found = {entry["name"]: entry for entry in map(json.loads, running.out)}
        assert found["to/a.wav"]["outcome"] == "failed"
        assert found["to/a.wav"]["code"] == 501
        stored = found["to/b ü.wav"]
        assert (stored["outcome"], stored["path"]) == ("stored", "top/en/b ü.wav")
        assert (stored["size"], len(stored["sha256"])) == (15, 64)
        assert stored["url"].endswith("/media/to/b%20%C3%BC.wav")
    assert running.err == []


@asynchronous
async def test_quiet_runs_show_only_failures(talk: Any, here: Path) -> None:
    async with talk() as it:
        running = Running(it, quiet=True)
        await put(running.run, ["top", "none.wav"], "to")
    assert running.out == []
    assert len(running.err) == 1


@pytest.fixture
def stored() -> list[str]:
    return ["a/1.wav", "a/b/2 ü.wav", "a/b/c/3.wav"]


@asynchronous
async def test_get_of_a_directory_keeps_its_tree(talk: Any, here: Path, stored: list[str]) -> None:
    async with talk() as it:
        for name in stored:
            it.fake.put(name, name.encode())
        for asked, target, at in [
            ("a", None, "a/"),
            ("a/", "x", "x/a/"),
            ("a", "x", "x/a/"),
            ("/", "y", "y/a/"),
        ]:
            running = Running(it)
            await get(running.run, [asked], target)
            assert running.code == 0
            for name in stored:
                assert (here / (at + name[2:])).read_bytes() == name.encode()
        running = Running(it)
        await get(running.run, ["a/b"], "z")
        assert (here / "z/b/c/3.wav").read_bytes() == b"a/b/c/3.wav"
        again = Running(it)
        await get(again.run, ["a/b"], "z")
        assert again.run.tally.summary(1) == "2 skipped"
        (here / "z/b/c/3.wav").write_bytes(b"another one")
        await get(again.run, ["a/b"], "z")
        assert (here / "z/b/c/3.wav").read_bytes() == b"a/b/c/3.wav"


@asynchronous
async def test_get_reports_what_the_service_leaves_out(talk: Any, here: Path) -> None:
    async with talk() as it:
        it.fake.put("a/b/c.wav", b"sound")
        it.fake.left_out = {"": 1, "a/b": 2}
        running = Running(it)
        await get(running.run, ["/"], "out")
        assert running.out == ["downloaded a/b/c.wav (5 bytes)"]
        assert running.err == [
            "left out   /: the service does not serve 1 entry that is not media, such as a hidden"
            " file or a link",
            "left out   a/b/: the service does not serve 2 entries that are not media, such as a"
            " hidden file or a link",
        ]
        assert running.code == 0
        # A directory whose name is not a valid media name is never requested.
        content = b'{"entries": [{"name": "../"}, {"name": "b/"}], "next": null}'
        it.fake.next("GET", answer=Answer(200, {}, content))
        it.fake.left_out = {}
        running = Running(it)
        await get(running.run, ["a"], "out")
        assert len(running.err) == 1
        assert running.err[0].startswith("left out   a/: the service does not serve 1 entry")


@asynchronous
async def test_get_never_overwrites_one_file_with_another_of_the_same_run(
    talk: Any, here: Path
) -> None:
    async with talk() as it:
        it.fake.put("p/en/hello.wav", b"hello")
        it.fake.put("p/de/hello.wav", b"hallo")
        running = Running(it)
        await get(running.run, ["p/en/hello.wav", "p/de/hello.wav"], "out")
        assert running.code == 1
        assert "out/hello.wav: p/en/hello.wav has the same path" in running.err[0]
        assert (here / "out/hello.wav").read_bytes() == b"hello"
        twice = Running(it)
        await get(twice.run, ["p/en/hello.wav", "p/en/hello.wav"], "out")
        assert twice.code == 0


@asynchronous
async def test_put_of_a_folder_to_the_root_uses_the_folders_name(talk: Any, here: Path) -> None:
    async with talk() as it:
        for nowhere in ("", "/"):
            running = Running(it)
            await put(running.run, ["top"], nowhere)
            assert running.code == 0, running.err
        assert "top/en/c.wav" in it.fake.media


@asynchronous
async def test_get_writes_a_file_to_the_target(talk: Any, here: Path, stored: list[str]) -> None:
    async with talk() as it:
        for name in stored:
            it.fake.put(name, name.encode())
        for names, target, at in [
            (["a/1.wav"], None, "1.wav"),
            (["a/1.wav"], "new.wav", "new.wav"),
            (["a/1.wav"], "new/", "new/1.wav"),
            (["a/1.wav"], "top", "top/1.wav"),
            (["a/1.wav", "a/b/2 ü.wav"], "two", "two/1.wav"),
        ]:
            running = Running(it)
            await get(running.run, names, target)
            assert (here / at).read_bytes() == b"a/1.wav"
            assert running.code == 0
        running = Running(it)
        await get(running.run, ["a/none.wav", "none", "../x/y.wav", "a/1.wav"], "new")
        assert running.code == 1
        assert len(running.err) == 3
        assert len(running.out) == 1


@asynchronous
async def test_get_writes_no_unsafe_name(talk: Any, here: Path) -> None:
    entry = {"size": 1, "modified": "", "etag": '"a"'}
    names = ["..", ".bashrc", "a\\b.wav", "x\x1b.wav"]
    entries = [{"name": name, **entry} for name in names] + [{"name": "../"}, {"name": ".ssh/"}]
    content = json.dumps({"code": 200, "reason": "OK", "entries": entries, "next": None}).encode()
    async with talk() as it:
        it.fake.next("GET", answer=Answer(200, {}, content))
        running = Running(it)
        await get(running.run, ["a/"], "new")
    assert running.code == 1
    assert len(running.err) == 5
    assert running.err[4].startswith("left out   a/: the service does not serve 2 entries")
    assert all(line.isprintable() for line in running.err)
    assert not (here / "new").exists()


@asynchronous
async def test_ls_lists_directories(talk: Any, stored: list[str]) -> None:
    async with talk() as it:
        for name in [*stored, "a/\x1bx.wav"]:
            it.fake.put(name, name.encode())
        running = Running(it)
        await ls(running.run, "a/", long=False, recursive=False)
        assert running.out == ["1.wav", "b/", "\N{REPLACEMENT CHARACTER}x.wav"]
        running = Running(it)
        await ls(running.run, "", long=True, recursive=True)
        assert running.out[0].split() == ["7", "2026-11-24T09:30:00.125Z", "a/1.wav"]
        running = Running(it, as_json=True)
        await ls(running.run, "a", long=False, recursive=False)
        found = {entry["name"]: entry for entry in map(json.loads, running.out)}
        assert found["a/b"] == {"name": "a/b", "directory": True}
        assert found["a/1.wav"]["size"] == 7
        running = Running(it)
        await ls(running.run, "none", long=False, recursive=False)
        assert (running.code, running.out) == (1, [])


@asynchronous
async def test_rm_deletes_files(talk: Any, stored: list[str]) -> None:
    async with talk() as it:
        for name in stored:
            it.fake.put(name, b"")
        running = Running(it)
        await rm(running.run, ["a/1.wav", "a/b/2 ü.wav", "a/none.wav", "nothing"])
        assert list(it.fake.media) == ["a/b/c/3.wav"]
    assert running.out == ["deleted    a/1.wav", "deleted    a/b/2 ü.wav"]
    assert [line.split(":")[0] for line in running.err] == [
        "failed     a/none.wav",
        "failed     nothing",
    ]
    assert running.code == 1


@asynchronous
async def test_import_stores_the_content_of_a_url(talk: Any) -> None:
    async with talk() as it:
        running = Running(it)
        await import_(running.run, "http://e/x.wav", "a/b.wav")
        await import_(running.run, "http://e/x.wav", "a/")
        assert running.code == 0
        assert list(it.fake.media) == ["a/b.wav", "a/x.wav"]
        await import_(running.run, "http://e/x.wav", "a/b.wav")
        await import_(running.run, "http://e/x.wav", "a")
    assert len(running.err) == 2
    assert running.code == 1


@asynchronous
async def test_get_of_the_content_of_a_directory_omits_its_name(
    talk: Any, here: Path, stored: list[str]
) -> None:
    async with talk() as it:
        for name in stored:
            it.fake.put(name, name.encode())
        for number, written in enumerate(["a/.", "a/./", "/a/."]):
            running = Running(it)
            await get(running.run, [written], f"out{number}")
            assert running.code == 0, running.err
            for name in stored:
                assert (here / f"out{number}" / name[2:]).read_bytes() == name.encode()
        running = Running(it)
        await get(running.run, ["/."], "all")
        assert (here / "all/a/1.wav").read_bytes() == b"a/1.wav"
        for wrong in ("a/..", ".", "a/./b", "a/../."):
            running = Running(it)
            await get(running.run, [wrong], "wrong")
            assert running.code == 1
        assert not (here / "wrong").exists()


@asynchronous
async def test_get_of_an_empty_name_is_refused(talk: Any, here: Path) -> None:
    """As of `get "$NAME"` when the variable is not set."""
    async with talk() as it:
        it.fake.put("a/1.wav", b"sound")
        running = Running(it)
        await get(running.run, [""], "out")
        assert (running.code, it.fake.heard) == (1, [])
        assert "the name is empty" in running.err[0]
        put_nothing = Running(it)
        await put(put_nothing.run, [""], "to")
        assert put_nothing.code == 1
    assert not (here / "out").exists()


@asynchronous
async def test_get_skips_what_is_excluded(talk: Any, here: Path, stored: list[str]) -> None:
    async with talk() as it:
        for name in [*stored, "a/b/x.mp3"]:
            it.fake.put(name, name.encode())
        for number, (patterns, left) in enumerate(
            [
                (["*.mp3", "c"], ["1.wav", "b/2 ü.wav"]),
                (["b"], ["1.wav"]),
                (["b/*"], ["1.wav"]),
                (["/b/c", "*.mp3"], ["1.wav", "b/2 ü.wav"]),
            ]
        ):
            folder = here / f"out{number}"
            running = Running(it)
            await get(running.run, ["a"], folder.name, GetOptions(patterns))
            found = [path for path in folder.rglob("*") if path.is_file()]
            assert sorted(str(path.relative_to(folder / "a")) for path in found) == left
        running = Running(it)
        await get(running.run, ["a/1.wav"], "named.wav", GetOptions(["*"]))
        assert (here / "named.wav").exists()


@asynchronous
async def test_names_may_begin_with_a_slash(talk: Any, here: Path) -> None:
    async with talk() as it:
        await put(Running(it).run, ["top"], "/to")
        assert sorted(it.fake.media)[0] == "to/top/a.wav"
        await get(Running(it).run, ["/to/top/a.wav"], "copy.wav")
        assert (here / "copy.wav").read_bytes() == b"top/a.wav"
        await get(Running(it).run, ["/to/top"], "copies")
        assert (here / "copies/top/en/c.wav").exists()
        running = Running(it)
        await ls(running.run, "/to/top", long=False, recursive=False)
        assert running.out == ["a.wav", "en/"]
        await import_(Running(it).run, "http://e/x.wav", "/to/x.wav")
        await rm(Running(it).run, ["/to/top/a.wav"])
        assert sorted(it.fake.media)[-1] == "to/x.wav"
        assert "to/top/a.wav" not in it.fake.media


@asynchronous
async def test_ls_shows_a_file(talk: Any, stored: list[str]) -> None:
    async with talk() as it:
        etag = it.fake.put("a/b/2.wav", b"sound")
        for written in ("a/b/2.wav", "/a/b/2.wav"):
            running = Running(it)
            await ls(running.run, written, long=False, recursive=False)
            assert running.out == ["a/b/2.wav"]
        running = Running(it)
        await ls(running.run, "a/b/2.wav", long=True, recursive=True)
        assert running.out[0].split() == ["5", "2026-11-24T09:30:00Z", "a/b/2.wav"]
        running = Running(it, as_json=True)
        await ls(running.run, "a/b/2.wav", long=False, recursive=False)
        assert json.loads(running.out[0]) == {
            "name": "a/b/2.wav",
            "directory": False,
            "size": 5,
            "modified": "2026-11-24T09:30:00Z",
            "etag": etag,
        }
        for wrong in ("a/b/3.wav", "a/b/2.wav/", "x.wav"):
            running = Running(it)
            await ls(running.run, wrong, long=False, recursive=False)
            assert (running.code, running.out) == (1, [])


@asynchronous
async def test_a_directory_cannot_be_written_to_standard_output(talk: Any) -> None:
    async with talk() as it:
        it.fake.put("a/en/b.wav", b"sound")
        for written, reason in [
            ("a/en", "a directory has this name (code 409)"),
            ("a/en/", "'a/en/' is not the name of a file; write DIRECTORY/FILE, such as"),
            ("a", "'a' is not the name of a file; write DIRECTORY/FILE, such as"),
        ]:
            running = Running(it)
            await get_stream(running.run, written, 1)
            assert len(running.err) == 1
            assert running.err[0].startswith(f"failed     {written}: {reason}")


@asynchronous
async def test_get_to_a_descriptor_reports_failures(talk: Any) -> None:
    async with talk() as it:
        for wrong in ("a/none.wav", "a", "a/", ""):
            running = Running(it)
            await get_stream(running.run, wrong, 1)
            assert (running.code, running.out) == (1, [])


@asynchronous
async def test_health_is_shown_and_a_bad_storage_is_a_failure(talk: Any) -> None:
    async with talk() as it:
        running = Running(it)
        await health(running.run)
        assert running.out == [
            "version 1.2, up 3 min 20 s, 3 uploads in progress, 2.0 KiB free, storage ok"
        ]
        assert running.code == 0
        it.fake.storage = "read-only \x1b file system"
        running = Running(it)
        await health(running.run)
        assert running.err == [
            "failed: the storage has a problem: read-only \N{REPLACEMENT CHARACTER} file system"
        ]
        assert running.code == 1
        running = Running(it, as_json=True)
        await health(running.run)
        [said] = running.out
        assert (json.loads(said)["storage"], running.code) == (it.fake.storage, 1)
        it.fake.next("GET", answer=Answer(404, {}, b"<html>"))
        running = Running(it)
        await health(running.run)
        assert (running.code, running.err) == (1, ["failed: HTTP 404 Said So"])


@asynchronous
async def test_a_failure_has_a_status_and_a_code_only_from_the_service(
    talk: Any, here: Path
) -> None:
    async with talk() as it:
        for answer, found in [
            (Answer(502, {}, b"<html>"), {"status": 502, "reason": "HTTP 502 Said So"}),
            (Answer(501, {}, b"<html>"), {"status": 501, "reason": "HTTP 501 Said So"}),
            (
                told(409, 501, "the file exists already"),
                {"status": 409, "code": 501, "reason": "the file exists already"},
            ),
        ]:
            it.fake.next("DELETE", answer=answer)
            if answer.status == 502:  # of a proxy, so it is tried again
                for _ in range(3):
                    it.fake.next("DELETE", answer=answer)
            running = Running(it, as_json=True)
            await rm(running.run, ["a/b.wav"])
            assert json.loads(running.out[0]) == {
                "outcome": "failed",
                "name": "a/b.wav",
                **found,
            }


@asynchronous
async def test_fetch_shows_how_long_it_took(talk: Any) -> None:
    async with talk() as it:
        running = Running(it)
        await fetch(running.run, "http://e/")
        assert "Time Cost: 1.2500 s for 5.0 KiB of http://e/ (HTTP 404, miss)" in running.out
        assert running.out[:2] == ["  first byte   500.0 ms", "  total       1250.0 ms"]
        running = Running(it, as_json=True)
        await fetch(running.run, "http://e/")
        assert json.loads(running.out[0])["time_cost"] == 1.25
        it.fake.next("GET", answer=told(403, 511, "that address may not be fetched"))
        running = Running(it, as_json=True)
        await fetch(running.run, "http://10.0.0.1/")
        assert json.loads(running.out[0])["code"] == 511


def test_a_long_transfer_is_logged_every_ten_seconds() -> None:
    clock, notes = Clock(), StringIO()
    transfer = Lines(StringIO(), notes, clock.seconds, quiet=False).transfer("a/\x1b.wav")
    for second in range(26):
        transfer.update(1024 * (second + 1), 102_400)
        clock.advance(1)
    said = notes.getvalue().splitlines()
    assert len(said) == 2
    name, moved = said[0].split(": ")
    assert name == "a/\N{REPLACEMENT CHARACTER}.wav"
    assert moved == "11.0 KiB of 100.0 KiB (11%), 1.0 KiB/s, 1 min 29 s left"


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_show_bytes_and_safe_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    clock, out, notes = Clock(), StringIO(), Terminal()
    bars = Bars(clock, out, notes, is_same_terminal=False)
    bars.expect(3 << 20)
    one, two = bars.transfer("a/[bold]\x1b]0;x\x07.wav"), bars.transfer("b.wav")
    one.update(1 << 20, 2 << 20)
    two.update(0, None)
    clock.advance(0.1)
    shown = notes.getvalue()
    assert "1.0/2.0 MiB" in shown
    assert "1.0/3.0 MiB" in shown
    assert "a/[bold]\N{REPLACEMENT CHARACTER}]0;x" in shown
    assert "\x1b]0;" not in shown
    one.end(2 << 20)
    two.end(1 << 20)
    bars.line("stored")
    bars.note("[red]note")
    clock.advance(0.1)
    assert "3.0/3.0 MiB" in notes.getvalue()
    assert out.getvalue() == "stored\n"
    assert "[red]note" in notes.getvalue()
    bars.close()
    bars.close()
    assert clock.getDelayedCalls() == []


class RecordingDisplay(Lines):
    """A display that records the size with which each transfer `ended`."""

    def __init__(self) -> None:
        super().__init__(StringIO(), StringIO(), reactor.seconds, quiet=False)
        self.begun: list[str] = []
        self.ended: list[tuple[str, int]] = []

    def transfer(self, name: str) -> Transfer:
        self.begun.append(name)
        return RecordedTransfer(self, name)


class RecordedTransfer:
    def __init__(self, display: RecordingDisplay, name: str) -> None:
        self._display = display
        self._name = name

    def update(self, done: int, size: int | None) -> None:
        pass

    def end(self, size: int) -> None:
        self._display.ended.append((self._name, size))


@asynchronous
async def test_every_transfer_that_is_shown_ends(talk: Any, here: Path) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        async with talk(retries=Retries(times=0)) as it:
            display = RecordingDisplay()
            run = replace(Running(it).run, display=display)
            await put(run, ["top"], "to")
            await put_stream(run, null, "to/stream.wav", PutOptions())
            await put_stream(run, null, "to/stream.wav", PutOptions())
            await get(run, ["to/top/a.wav"], "out/")
            await get_stream(run, "to/top/a.wav", null)
            await get_stream(run, "to/none.wav", null)
            it.fake.next("GET", raw=b"")
            with pytest.raises(Unreachable):
                await get_stream(run, "to/top/a.wav", null)
            assert len(display.begun) == 9
            assert sorted(name for name, _ in display.ended) == sorted(display.begun)
            # A transfer counts as its expected size, which is 0 for a stream.
            assert sum(size for _, size in display.ended) == 9 + 15 + 12 + 9
    finally:
        os.close(null)


@asynchronous
async def test_a_failure_is_reported_once(talk: Any, here: Path) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    works: dict[str, Callable[[Run], Any]] = {
        "put": lambda run: put(run, ["top/a.wav"], "to"),
        "put -": lambda run: put_stream(run, null, "to/a.wav", PutOptions()),
        "get": lambda run: get(run, ["to/a.wav"], None),
        "get -o -": lambda run: get_stream(run, "to/a.wav", null),
        "ls": lambda run: ls(run, "to", long=False, recursive=False),
        "rm": lambda run: rm(run, ["to/a.wav"]),
        "rm -r": lambda run: rm(run, ["to/a.wav"], recursive=True),
        "import": lambda run: import_(run, "http://e/a.wav", "to/"),
        "fetch": lambda run: fetch(run, "http://e/"),
        "health": health,
    }
    try:
        async with talk(retries=Retries(times=0)) as it:
            await it.fake.silence()
            for name, work in works.items():
                running = Running(it)
                with pytest.raises(Unreachable):
                    await work(running.run)
                assert len(running.err) == 1, name
    finally:
        os.close(null)


@asynchronous
async def test_a_404_of_a_proxy_is_a_failure(talk: Any, here: Path) -> None:
    """If a proxy hides a directory, nothing in it is listed, downloaded or deleted."""
    hidden = Answer(404, {"Content-Type": "text/html"}, b"<html>404 Not Found</html>")
    commands: dict[str, Callable[[Run], Any]] = {
        "ls -r": lambda run: ls(run, "to", long=False, recursive=True),
        "get": lambda run: get(run, ["to"], "out"),
        "rm -r": lambda run: rm(run, ["to"], recursive=True),
        "rm -r of the directory itself": lambda run: rm(run, ["to/en"], recursive=True),
        "ls of the directory itself": lambda run: ls(run, "to/en", long=False, recursive=False),
    }
    for what, command in commands.items():
        async with talk() as it:
            it.fake.put("to/en/b.wav", b"sound")
            if "itself" not in what:
                it.fake.next("GET")
            it.fake.next("GET", answer=hidden)
            running = Running(it)
            await command(running.run)
            assert running.code == 1, what
            assert ["HTTP 404 Said So" in line for line in running.err] == [True], what
            assert it.fake.media == {"to/en/b.wav": b"sound"}
            assert it.fake.asked("HEAD") == it.fake.asked("DELETE") == []


PAGE = b"<html>somebody else</html>"
MISSING = Answer(404, {"Content-Type": "text/html"}, PAGE)
ANYTHING = Answer(200, {"Content-Type": "text/html", "ETag": '"e"'}, PAGE)


@asynchronous
@pytest.mark.parametrize(
    ("answer", "reason"),
    [(MISSING, "HTTP 404 Said So"), (ANYTHING, "the response (HTTP 200) is not from the service")],
    ids=["404", "200"],
)
async def test_responses_of_another_server_are_failures_without_a_code(
    talk: Any, here: Path, answer: Answer, reason: str
) -> None:
    """A response to HEAD has no JSON, so the client concludes nothing from it alone."""
    null = os.open(os.devnull, os.O_RDONLY)
    commands: dict[str, Callable[[Run], Any]] = {
        "put": lambda run: put(run, ["top/a.wav"], "to"),
        "put --if-match": lambda run: put(run, ["top/a.wav"], "to", PutOptions(etag='"f"')),
        "put -": lambda run: put_stream(run, null, "to/a.wav", PutOptions()),
        "put - --if-match": lambda run: put_stream(run, null, "to/a.wav", PutOptions(etag='"f"')),
        "get": lambda run: get(run, ["to/a.wav"], "out.wav"),
    }
    if answer is ANYTHING:
        del commands["get"]  # it looks like a file with an entity tag
    try:
        for what, command in commands.items():
            async with talk(retries=Retries(times=0)) as it:
                it.fake.answer = lambda request: answer  # to everything
                running = Running(it, as_json=True)
                await command(running.run)
                rows = [json.loads(line) for line in running.out]
                assert [row["outcome"] for row in rows] == ["failed"], what
                assert "code" not in rows[0], what
                assert rows[0]["reason"].startswith(reason), what
                assert rows[0].get("status") in (None, answer.status), what
    finally:
        os.close(null)


@asynchronous
async def test_put_lists_a_directory_once_to_confirm_the_service(talk: Any, here: Path) -> None:
    async with talk() as it:
        for name in ("a.wav", "b ü.wav", "c.wav"):
            it.fake.put(f"to/{name}", b"other")
        running = Running(it)
        running.run = replace(running.run, jobs=1)
        await put(running.run, ["top/a.wav", "top/en/b ü.wav", "top/en/c.wav"], "to")
        assert ["(code 501)" in line for line in running.err] == [True] * 3
        assert [each.target for each in it.fake.asked("GET")] == ["/media/to/"]
        assert it.fake.asked("PUT") == []


@asynchronous
async def test_local_failures_have_a_reason_and_no_code(talk: Any, here: Path) -> None:
    (here / "target.wav").touch()
    missing = "a name at the service consists of a directory and a filename, such as"
    commands: dict[str, Callable[[Run], Any]] = {
        "'q' is not the name of a file": lambda run: rm(run, ["q"]),
        "this is a directory: name a file, or use -r": lambda run: rm(run, ["w/"]),
        f"the directory is missing: {missing}": lambda run: put(run, ["top/a.wav"], "/"),
        "'g' is not the name of a file": lambda run: get_stream(run, "g", 1),
        "contains a backslash": lambda run: rm(run, ["a/b\\c.wav"]),
        "the filename is not UTF-8": lambda run: rm(run, ["a/caf\udce9.wav"]),
        "the name of a file or folder is empty": lambda run: put(run, [""], "to"),
        "No such file or directory": lambda run: put(run, ["nofile"], "to"),
    }
    async with talk() as it:
        for words, command in commands.items():
            running = Running(it, as_json=True)
            await command(running.run)
            [row] = map(json.loads, running.out)
            assert words in row["reason"], words
            assert (row["outcome"], "code" in row, "status" in row) == ("failed", False, False)
            running = Running(it)
            await command(running.run)
            assert f"{words}" in running.err[0], words
            assert ": :" not in running.err[0]
            assert "nofile: nofile" not in running.err[0]
        assert it.fake.heard == []


@asynchronous
async def test_a_name_that_does_not_exist_is_a_failure(talk: Any, here: Path) -> None:
    async with talk() as it:
        it.fake.put("to/a.wav", b"sound")
        for name in ("to/nope.wav", "nope"):
            running = Running(it)
            await ls(running.run, name, long=False, recursive=False)
            await get(running.run, ["nope"], "out")
            assert [
                "there is no such file or directory (code 404)" in line for line in running.err
            ] == [True, True]
            directory = Running(it)
            await ls(directory.run, f"{name}/", long=False, recursive=False)
            await get(directory.run, ["nope/"], "out")
            assert ["there is no such directory (code 404)" in line for line in directory.err] == [
                True,
                True,
            ]


@asynchronous
async def test_a_target_that_is_not_a_folder_is_a_failure(talk: Any, here: Path) -> None:
    async with talk() as it:
        it.fake.put("to/a.wav", b"sound")
        running = Running(it)
        await get(running.run, ["to/a.wav"], "top/a.wav/")
        assert running.err == ["failed     to/a.wav: top/a.wav: this is not a folder"]

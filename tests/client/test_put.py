"""`put` of trees and of standard input: files that are left out, excluded, refused or replaced."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.client.fake import told
from tests.client.test_subcommands import Running
from tests.support import asynchronous
from twistedmedia.client import Retries
from twistedmedia.client.command.put import PutOptions, put, put_stream
from twistedmedia.client.command.trees import LocalFile, is_excluded, local_items
from twistedmedia.client.uploader import SMALL_BYTES


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("top/LICENSE", "top/a.wav", "top/en/LICENSE", "top/en/b.wav", "top/en/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@asynchronous
async def test_put_of_a_tree_leaves_out_formats_that_the_service_does_not_take(
    talk: Any, here: Path
) -> None:
    (here / "top/large.ogg").write_bytes(bytes(SMALL_BYTES + 1))
    async with talk() as it:
        it.fake.formats = {"wav"}
        running = Running(it)
        await put(running.run, ["top"], "to")
        assert running.code == 0
        assert sorted(it.fake.media) == ["to/top/a.wav", "to/top/en/b.wav"]
        assert [line.split(":")[0] for line in running.err] == [
            "left out   to/top/LICENSE",
            "left out   to/top/en/LICENSE",
            "left out   to/top/en/c.txt",
            "left out   to/top/large.ogg",
        ]
        assert "the format is not supported" in running.err[0]
        # Nothing of the refused files was sent.
        sent = [each for each in it.fake.heard if each.content]
        assert sorted(each.target for each in sent) == [
            "/media/to/top/a.wav",
            "/media/to/top/en/b.wav",
        ]


@asynchronous
async def test_put_asks_only_once_about_a_format_that_is_refused(talk: Any, here: Path) -> None:
    for number in range(20):
        (here / f"top/{number}.txt").write_bytes(b"text")
    async with talk() as it:
        it.fake.formats = {"wav"}
        running = Running(it)
        await put(running.run, ["top"], "to")
        asked = [each for each in it.fake.heard if each.target.endswith(".txt")]
        assert len(asked) <= running.run.jobs
        assert len([line for line in running.err if ".txt: the format" in line]) == 21


@asynchronous
async def test_put_asks_only_once_about_a_format_that_is_accepted(talk: Any, here: Path) -> None:
    for number in range(9):
        (here / f"top/{number}.gsm").write_bytes(b"sound")
    async with talk() as it:
        running = Running(it)
        await put(running.run, ["top"], "to")
        assert running.code == 0
        assert len([name for name in it.fake.media if name.endswith(".gsm")]) == 9
        created = [each for each in it.fake.asked("POST") if "upload-metadata" in each.headers]
        formats = 3  # gsm, txt, and no extension
        assert len(created) <= formats * running.run.jobs


@asynchronous
async def test_a_format_that_is_refused_can_be_a_failure(talk: Any, here: Path) -> None:
    """With `--strict`, and for a file that is named itself."""
    async with talk() as it:
        it.fake.formats = {"wav"}
        running = Running(it, as_json=True)
        await put(running.run, ["top"], "to", PutOptions(strict=True))
        rows = {row["name"]: row for row in map(json.loads, running.out)}
        assert rows["to/top/en/c.txt"]["outcome"] == "failed"
        assert (rows["to/top/LICENSE"]["status"], rows["to/top/LICENSE"]["code"]) == (415, 504)
        assert rows["to/top/a.wav"]["outcome"] == "stored"
        assert running.code == 1
        running = Running(it)
        await put(running.run, ["top/LICENSE", "top/a.wav"], "named")
        assert running.err[0].startswith("failed     named/LICENSE: the format is not supported")
        assert (running.code, "named/a.wav" in it.fake.media) == (1, True)


@asynchronous
async def test_a_service_without_resumable_uploads_leaves_formats_out_too(
    talk: Any, here: Path
) -> None:
    async with talk() as it:
        it.fake.formats, it.fake.has_uploads = {"wav"}, False
        running = Running(it)
        await put(running.run, ["top"], "to")
        assert (running.code, len(it.fake.media), len(running.err)) == (0, 2, 3)


@pytest.mark.parametrize(
    ("pattern", "excluded"),
    [
        ("*.txt", ["top/en/c.txt"]),
        ("LICENSE", ["top/LICENSE", "top/en/LICENSE"]),
        ("en", ["top/en/LICENSE", "top/en/b.wav", "top/en/c.txt"]),
        ("en/", ["top/en/LICENSE", "top/en/b.wav", "top/en/c.txt"]),
        ("en/*.wav", ["top/en/b.wav"]),
        ("/LICENSE", ["top/LICENSE"]),
        ("*/LICENSE", ["top/en/LICENSE"]),
        ("*.WAV", []),
        ("top", []),  # the folder that is named
        ("[ab].wav", ["top/a.wav", "top/en/b.wav"]),
    ],
)
def test_patterns_exclude_files_and_folders(here: Path, pattern: str, excluded: list[str]) -> None:
    def paths(*exclude: str) -> list[str]:
        items = local_items(["top"], "to", exclude)
        return [item.path for item in items if isinstance(item, LocalFile)]

    assert sorted(set(paths()) - set(paths(pattern))) == excluded
    assert paths(pattern, "*") == []


def test_a_file_that_is_named_is_never_excluded(here: Path) -> None:
    [item] = local_items(["top/a.wav"], "to", ["*"])
    assert isinstance(item, LocalFile)


def test_an_excluded_folder_is_excluded_with_its_content() -> None:
    assert is_excluded("a/b/c.wav", ["b"])
    assert is_excluded("a/b/c.wav", ["a/b"])
    assert not is_excluded("a/b/c.wav", ["b/c.wav"])
    assert not is_excluded("a/b/c.wav", [])


# Replacing.


@asynchronous
async def test_put_with_replace_replaces_files(talk: Any, here: Path) -> None:
    async with talk() as it:
        it.fake.put("to/a.wav", b"other content")
        it.fake.put("to/b.wav", b"top/en/b.wav")
        running = Running(it)
        paths = ["top/a.wav", "top/en/b.wav", "top/en/c.txt"]
        await put(running.run, paths, "to", PutOptions(replace=True))
        assert running.code == 0
        assert it.fake.media["to/a.wav"] == b"top/a.wav"
        assert running.out == [
            "replaced   to/a.wav (9 bytes)",
            "skipped    to/b.wav (12 bytes): stored already",
            "stored     to/c.txt (12 bytes)",
        ]
        conditions = {each.target: each.headers.get("if-match") for each in it.fake.asked("PUT")}
        assert conditions == {"/media/to/a.wav": "*", "/media/to/c.txt": None}


@asynchronous
async def test_a_file_that_is_deleted_before_it_is_replaced_is_stored(
    talk: Any, here: Path
) -> None:
    async with talk() as it:
        it.fake.put("to/a.wav", b"top/a.wew")
        it.fake.next("HEAD")
        it.fake.next("HEAD", answer=told(404, 404))  # the file is gone when `replace` looks at it
        it.fake.next("PUT", answer=it.fake._stored("to/a.wav"))
        running = Running(it)
        await put(running.run, ["top/a.wav"], "to", PutOptions(replace=True))
        assert [each.headers.get("if-match") for each in it.fake.asked("PUT")] == [None]


@asynchronous
async def test_of_two_files_with_one_name_the_second_fails(talk: Any, tmp_path: Path) -> None:
    """With `--replace` too. The service normalises names to NFC, so these are compared."""
    for name in (
        "da/m.wav",
        "db/m.wav",
        "dc/\u00e9.wav",
        "dc/e\u0301.wav",
        "da/LICENSE",
        "db/LICENSE",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    at = str(tmp_path)
    cases = {
        "files": [f"{at}/da/m.wav", f"{at}/db/m.wav"],
        "folders": [f"{at}/da/.", f"{at}/db/."],
    }
    for options in (PutOptions(), PutOptions(replace=True)):
        for to, paths in cases.items():
            async with talk() as it:
                it.fake.formats = {"wav"}
                running = Running(it)
                await put(running.run, paths, to, options)
                failed = [line for line in running.err if line.startswith("failed")]
                first, second = [f"{each.removesuffix('/m.wav')}/m.wav" for each in paths]
                assert failed == [f"failed     {to}/m.wav: {second}: {first} has the same name"]
                assert (running.code, it.fake.media) == (1, {f"{to}/m.wav": b"da/m.wav"})
        async with talk() as it:
            running = Running(it)
            await put(running.run, [f"{at}/dc"], "to", options)
            assert (running.code, len(running.out), len(running.err)) == (1, 1, 1)
            assert [each.target for each in it.fake.asked("PUT")] == ["/media/to/dc/%C3%A9.wav"]


@asynchronous
async def test_a_file_that_is_named_twice_is_sent_once(talk: Any, here: Path) -> None:
    async with talk() as it:
        running = Running(it)
        await put(running.run, ["top/a.wav", "./top/a.wav"], "to", PutOptions(replace=True))
        assert (running.code, running.out) == (0, ["stored     to/a.wav (9 bytes)"])
        assert running.err == []


@asynchronous
async def test_a_name_that_is_taken_before_the_file_is_stored_is_replaced(
    talk: Any, here: Path
) -> None:
    async with talk() as it:
        it.fake.put("to/a.wav", b"another client's")
        it.fake.next("HEAD", answer=told(404, 404))  # it was not there when `put` looked
        running = Running(it)
        await put(running.run, ["top/a.wav"], "to", PutOptions(replace=True))
        assert (running.code, running.out) == (0, ["replaced   to/a.wav (9 bytes)"])
        assert it.fake.media == {"to/a.wav": b"top/a.wav"}
        assert [each.headers.get("if-match") for each in it.fake.asked("PUT")] == [None, "*"]


@asynchronous
async def test_put_gives_up_if_the_service_contradicts_itself(talk: Any, here: Path) -> None:
    async with talk() as it:
        it.fake.put("to/a.wav", b"other content")
        for answer in [told(412, 412), told(409, 501)] * 2 + [told(412, 412)]:
            it.fake.next("PUT", answer=answer)
        running = Running(it)
        await put(running.run, ["top/a.wav"], "to", PutOptions(replace=True))
        assert (running.code, len(it.fake.asked("PUT"))) == (1, 5)


@asynchronous
async def test_a_replacement_of_any_file_needs_a_file(talk: Any, here: Path) -> None:
    """With `--if-match '*'`, for a file and for standard input."""
    async with talk() as it:
        running = Running(it)
        await put(running.run, ["top/a.wav"], "to", PutOptions(etag="*"))
        reading, writing = os.pipe()
        os.close(writing)
        await put_stream(running.run, reading, "to/s.wav", PutOptions(etag="*"))
        os.close(reading)
        assert running.err == [
            f"failed     to/{name}.wav: there is no file of that name to replace (code 412)"
            for name in ("a", "s")
        ]
        assert (running.code, it.fake.media) == (1, {})


@asynchronous
async def test_put_with_an_etag_replaces_only_that_file(talk: Any, here: Path) -> None:
    async with talk() as it:
        etag = it.fake.put("to/a.wav", b"other content")
        for wrong in ('"other"', '"'):
            running = Running(it)
            await put(running.run, ["top/a.wav"], "to", PutOptions(etag=wrong))
            assert running.code == 1
        assert it.fake.media == {"to/a.wav": b"other content"}
        running = Running(it)
        await put(running.run, ["top/a.wav"], "to", PutOptions(etag=etag))
        assert (running.code, running.out) == (0, ["replaced   to/a.wav (9 bytes)"])
        again = Running(it)
        await put(again.run, ["top/a.wav"], "to", PutOptions(etag=etag))
        assert again.out == ["skipped    to/a.wav (9 bytes): stored already"]
        none = Running(it)
        await put(none.run, ["top/en/b.wav"], "to", PutOptions(etag=etag))
        assert none.err == [
            "failed     to/b.wav: there is no file of that name to replace (code 412)"
        ]
        for paths in (["top"], ["top/a.wav", "top/en/b.wav"]):
            many = Running(it)
            await put(many.run, paths, "to", PutOptions(etag=etag))
            assert (many.code, many.out) == (1, [])
            assert "--if-match replaces one file" in many.err[0]


@asynchronous
async def test_a_replacement_that_fails_does_not_change_the_file(talk: Any, here: Path) -> None:
    async with talk(retries=Retries(times=0)) as it:
        it.fake.put("to/a.wav", b"other content")
        it.fake.next("PUT", cut_at=3)
        running = Running(it)
        with pytest.raises(Exception, match="broke"):
            await put(running.run, ["top/a.wav"], "to", PutOptions(replace=True))
        assert it.fake.media == {"to/a.wav": b"other content"}


# Standard input.


@asynchronous
async def test_put_of_standard_input_needs_a_name(talk: Any) -> None:
    async with talk() as it:

        async def run(argument: str, options: PutOptions = PutOptions()) -> Running:  # noqa: B008
            reading, writing = os.pipe()
            os.write(writing, b"sound")
            os.close(writing)
            running = Running(it)
            try:
                await put_stream(running.run, reading, argument, options)
            finally:
                os.close(reading)
            return running

        assert (await run("/to/a.wav")).out == ["stored     to/a.wav (5 bytes)"]
        assert it.fake.media == {"to/a.wav": b"sound"}
        taken = await run("to/a.wav")
        assert taken.err == ["failed     to/a.wav: the file exists already (code 501)"]
        it.fake.put("to/a.wav", b"other")
        replaced = await run("to/a.wav", PutOptions(replace=True))
        assert replaced.out == ["replaced   to/a.wav (5 bytes)"]
        stored = await run("to/b.wav", PutOptions(replace=True))
        assert stored.out == ["stored     to/b.wav (5 bytes)"]
        for wrong in ("to/", "a.wav", "", "../a/b.wav"):
            assert (await run(wrong)).code == 1
        assert (await run("a.wav")).err == [
            "failed     a.wav: 'a.wav' is not the name of a file; write DIRECTORY/FILE, such as"
            " prompts/hello.mp3"
        ]
        assert sorted(it.fake.media) == ["to/a.wav", "to/b.wav"]

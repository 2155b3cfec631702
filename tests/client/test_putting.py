"""`put` of trees and of standard input: what is left out, passed over, refused, or replaced."""

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
from twistedmedia.client.command.putting import PutOptions, put, put_stream
from twistedmedia.client.command.trees import Sendable, is_excluded, local_items
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
    """Case 78."""
    (here / "top/large.ogg").write_bytes(bytes(SMALL_BYTES + 1))
    async with talk() as it:
        it.fake.formats = {"wav"}
        running = Running(it)
        await put(running.run, ["top"], "to")
        assert running.code == 0
        assert sorted(it.fake.media) == ["to/top/a.wav", "to/top/en/b.wav"]
        assert [line.split(":")[0] for line in running.noted] == [
            "left out   to/top/LICENSE",
            "left out   to/top/en/LICENSE",
            "left out   to/top/en/c.txt",
            "left out   to/top/large.ogg",
        ]
        assert "the format is not supported" in running.noted[0]
        # Not a byte of what is refused was sent.
        sent = [each for each in it.fake.heard if each.content]
        assert sorted(each.target for each in sent) == [
            "/media/to/top/a.wav",
            "/media/to/top/en/b.wav",
        ]


@asynchronous
async def test_a_format_that_was_refused_is_not_asked_about_again(talk: Any, here: Path) -> None:
    for number in range(20):
        (here / f"top/{number}.txt").write_bytes(b"text")
    async with talk() as it:
        it.fake.formats = {"wav"}
        running = Running(it)
        await put(running.run, ["top"], "to")
        asked = [each for each in it.fake.heard if each.target.endswith(".txt")]
        assert len(asked) <= running.run.jobs
        assert len([line for line in running.noted if ".txt: the format" in line]) == 21


@asynchronous
async def test_a_format_that_the_service_has_taken_is_put_at_once(talk: Any, here: Path) -> None:
    for number in range(9):
        (here / f"top/{number}.gsm").write_bytes(b"sound")
    async with talk() as it:
        running = Running(it)
        await put(running.run, ["top"], "to")
        assert running.code == 0
        assert len([name for name in it.fake.media if name.endswith(".gsm")]) == 9
        created = [each for each in it.fake.asked("POST") if "upload-metadata" in each.headers]
        formats = 3  # gsm, txt, and none
        assert len(created) <= formats * running.run.jobs


@asynchronous
async def test_a_format_can_be_a_failure(talk: Any, here: Path) -> None:
    """Case 78: with `--strict`, and for a file that was named."""
    async with talk() as it:
        it.fake.formats = {"wav"}
        running = Running(it, as_json=True)
        await put(running.run, ["top"], "to", PutOptions(strict=True))
        rows = {row["name"]: row for row in map(json.loads, running.said)}
        assert rows["to/top/en/c.txt"]["outcome"] == "failed"
        assert (rows["to/top/LICENSE"]["status"], rows["to/top/LICENSE"]["code"]) == (415, 504)
        assert rows["to/top/a.wav"]["outcome"] == "stored"
        assert running.code == 1
        running = Running(it)
        await put(running.run, ["top/LICENSE", "top/a.wav"], "named")
        assert running.noted[0].startswith("failed     named/LICENSE: the format is not supported")
        assert (running.code, "named/a.wav" in it.fake.media) == (1, True)


@asynchronous
async def test_a_service_without_resumable_uploads_leaves_formats_out_too(
    talk: Any, here: Path
) -> None:
    async with talk() as it:
        it.fake.formats, it.fake.has_uploads = {"wav"}, False
        running = Running(it)
        await put(running.run, ["top"], "to")
        assert (running.code, len(it.fake.media), len(running.noted)) == (0, 2, 3)


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
        ("top", []),  # that is what was named
        ("[ab].wav", ["top/a.wav", "top/en/b.wav"]),
    ],
)
def test_what_a_pattern_excludes(here: Path, pattern: str, excluded: list[str]) -> None:
    def paths(*exclude: str) -> list[str]:
        items = local_items(["top"], "to", exclude)
        return [item.path for item in items if isinstance(item, Sendable)]

    assert sorted(set(paths()) - set(paths(pattern))) == excluded
    assert paths(pattern, "*") == []


def test_what_is_named_is_never_excluded(here: Path) -> None:
    [item] = local_items(["top/a.wav"], "to", ["*"])
    assert isinstance(item, Sendable)


def test_a_folder_of_a_path_is_excluded_with_all_that_is_in_it() -> None:
    assert is_excluded("a/b/c.wav", ["b"])
    assert is_excluded("a/b/c.wav", ["a/b"])
    assert not is_excluded("a/b/c.wav", ["b/c.wav"])
    assert not is_excluded("a/b/c.wav", [])


# Replacing.


@asynchronous
async def test_put_replaces_when_it_is_told_to(talk: Any, here: Path) -> None:
    async with talk() as it:
        it.fake.put("to/a.wav", b"other content")
        it.fake.put("to/b.wav", b"top/en/b.wav")
        running = Running(it)
        paths = ["top/a.wav", "top/en/b.wav", "top/en/c.txt"]
        await put(running.run, paths, "to", PutOptions(replace=True))
        assert running.code == 0
        assert it.fake.media["to/a.wav"] == b"top/a.wav"
        assert running.said == [
            "replaced   to/a.wav (9 bytes)",
            "skipped    to/b.wav (12 bytes): stored already",
            "stored     to/c.txt (12 bytes)",
        ]
        conditions = {each.target: each.headers.get("if-match") for each in it.fake.asked("PUT")}
        assert conditions == {"/media/to/a.wav": "*", "/media/to/c.txt": None}


@asynchronous
async def test_a_file_that_goes_before_it_is_replaced_is_stored(talk: Any, here: Path) -> None:
    async with talk() as it:
        it.fake.put("to/a.wav", b"top/a.wew")
        it.fake.next("HEAD")
        it.fake.next("HEAD", answer=told(404, 404))  # of the name that is about to be replaced
        it.fake.next("PUT", answer=it.fake._stored("to/a.wav"))
        running = Running(it)
        await put(running.run, ["top/a.wav"], "to", PutOptions(replace=True))
        assert [each.headers.get("if-match") for each in it.fake.asked("PUT")] == [None]


@asynchronous
async def test_of_two_files_with_one_name_the_second_fails(talk: Any, tmp_path: Path) -> None:
    """Whatever is said of replacing. The service normalises names to NFC, so they are compared
    that way.
    """
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
                failed = [line for line in running.noted if line.startswith("failed")]
                first, second = [f"{each.removesuffix('/m.wav')}/m.wav" for each in paths]
                assert failed == [f"failed     {to}/m.wav: {second}: that is where {first} goes"]
                assert (running.code, it.fake.media) == (1, {f"{to}/m.wav": b"da/m.wav"})
        async with talk() as it:
            running = Running(it)
            await put(running.run, [f"{at}/dc"], "to", options)
            assert (running.code, len(running.said), len(running.noted)) == (1, 1, 1)
            assert [each.target for each in it.fake.asked("PUT")] == ["/media/to/dc/%C3%A9.wav"]


@asynchronous
async def test_a_file_that_is_named_twice_is_sent_once(talk: Any, here: Path) -> None:
    async with talk() as it:
        running = Running(it)
        await put(running.run, ["top/a.wav", "./top/a.wav"], "to", PutOptions(replace=True))
        assert (running.code, running.said) == (0, ["stored     to/a.wav (9 bytes)"])
        assert running.noted == []


@asynchronous
async def test_a_name_that_is_taken_before_the_file_is_stored_is_replaced(
    talk: Any, here: Path
) -> None:
    async with talk() as it:
        it.fake.put("to/a.wav", b"another client's")
        it.fake.next("HEAD", answer=told(404, 404))  # it was not there yet
        running = Running(it)
        await put(running.run, ["top/a.wav"], "to", PutOptions(replace=True))
        assert (running.code, running.said) == (0, ["replaced   to/a.wav (9 bytes)"])
        assert it.fake.media == {"to/a.wav": b"top/a.wav"}
        assert [each.headers.get("if-match") for each in it.fake.asked("PUT")] == [None, "*"]


@asynchronous
async def test_a_service_that_contradicts_itself_is_not_asked_for_ever(
    talk: Any, here: Path
) -> None:
    async with talk() as it:
        it.fake.put("to/a.wav", b"other content")
        for answer in [told(412, 412), told(409, 501)] * 2 + [told(412, 412)]:
            it.fake.next("PUT", answer=answer)
        running = Running(it)
        await put(running.run, ["top/a.wav"], "to", PutOptions(replace=True))
        assert (running.code, len(it.fake.asked("PUT"))) == (1, 5)


@asynchronous
async def test_any_file_that_is_to_be_replaced_has_to_exist(talk: Any, here: Path) -> None:
    """`--if-match '*'`, of a file and of standard input."""
    async with talk() as it:
        running = Running(it)
        await put(running.run, ["top/a.wav"], "to", PutOptions(etag="*"))
        reading, writing = os.pipe()
        os.close(writing)
        await put_stream(running.run, reading, "to/s.wav", PutOptions(etag="*"))
        os.close(reading)
        assert running.noted == [
            f"failed     to/{name}.wav: there is no file of that name to replace (code 412)"
            for name in ("a", "s")
        ]
        assert (running.code, it.fake.media) == (1, {})


@asynchronous
async def test_put_replaces_the_very_file_that_is_meant(talk: Any, here: Path) -> None:
    async with talk() as it:
        etag = it.fake.put("to/a.wav", b"other content")
        for wrong in ('"other"', '"'):
            running = Running(it)
            await put(running.run, ["top/a.wav"], "to", PutOptions(etag=wrong))
            assert running.code == 1
        assert it.fake.media == {"to/a.wav": b"other content"}
        running = Running(it)
        await put(running.run, ["top/a.wav"], "to", PutOptions(etag=etag))
        assert (running.code, running.said) == (0, ["replaced   to/a.wav (9 bytes)"])
        again = Running(it)
        await put(again.run, ["top/a.wav"], "to", PutOptions(etag=etag))
        assert again.said == ["skipped    to/a.wav (9 bytes): stored already"]
        none = Running(it)
        await put(none.run, ["top/en/b.wav"], "to", PutOptions(etag=etag))
        assert none.noted == [
            "failed     to/b.wav: there is no file of that name to replace (code 412)"
        ]
        for paths in (["top"], ["top/a.wav", "top/en/b.wav"]):
            many = Running(it)
            await put(many.run, paths, "to", PutOptions(etag=etag))
            assert (many.code, many.said) == (1, [])
            assert "--if-match is about one file" in many.noted[0]


@asynchronous
async def test_a_replacement_that_fails_leaves_the_file_as_it_was(talk: Any, here: Path) -> None:
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

        async def run(written: str, options: PutOptions = PutOptions()) -> Running:  # noqa: B008
            reading, writing = os.pipe()
            os.write(writing, b"sound")
            os.close(writing)
            running = Running(it)
            try:
                await put_stream(running.run, reading, written, options)
            finally:
                os.close(reading)
            return running

        assert (await run("/to/a.wav")).said == ["stored     to/a.wav (5 bytes)"]
        assert it.fake.media == {"to/a.wav": b"sound"}
        taken = await run("to/a.wav")
        assert taken.noted == ["failed     to/a.wav: the file exists already (code 501)"]
        it.fake.put("to/a.wav", b"other")
        replaced = await run("to/a.wav", PutOptions(replace=True))
        assert replaced.said == ["replaced   to/a.wav (5 bytes)"]
        stored = await run("to/b.wav", PutOptions(replace=True))
        assert stored.said == ["stored     to/b.wav (5 bytes)"]
        for wrong in ("to/", "a.wav", "", "../a/b.wav"):
            assert (await run(wrong)).code == 1
        assert (await run("a.wav")).noted == [
            "failed     a.wav: 'a.wav' is not the name of a file; write DIRECTORY/FILE, such as"
            " prompts/hello.mp3"
        ]
        assert sorted(it.fake.media) == ["to/a.wav", "to/b.wav"]

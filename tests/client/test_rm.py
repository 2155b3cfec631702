"""`rm` and `rm -r`, which deletes everything below a directory, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.client.fake import Answer, told
from tests.client.test_subcommands import Running
from tests.support import asynchronous
from twistedmedia.client import Retries, Unreachable
from twistedmedia.client.command.rm import rm

TREE = ["a/1.wav", "a/2.wav", "a/3 ü.wav", "a/b/4.wav", "a/b/c/5.wav", "a/b/c/6.wav"]
OTHERS = ["ab/1.wav", "b/1.wav"]


@asynchronous
async def test_a_directory_is_deleted_with_its_content(talk: Any) -> None:
    for written in ("a", "/a", "a/", "/a/"):
        async with talk() as it:
            for name in [*TREE, *OTHERS]:
                it.fake.put(name, b"")
            running = Running(it)
            await rm(running.run, [written], recursive=True)
            assert (running.code, sorted(it.fake.media)) == (0, OTHERS)
            assert running.out == [f"deleted    {name}" for name in TREE]
            assert running.run.tally.summary(1) == "6 deleted"
            pages = [each.target for each in it.fake.asked("GET")]
            assert "/media/a/?after=2.wav" in pages  # a page has two names


@asynchronous
async def test_files_and_directories_can_be_named_together(talk: Any) -> None:
    async with talk() as it:
        for name in [*TREE, *OTHERS]:
            it.fake.put(name, b"")
        running = Running(it)
        await rm(running.run, ["a/1.wav", "a/b", "none", "a/none.wav", "b/"], recursive=True)
        assert sorted(it.fake.media) == ["a/2.wav", "a/3 ü.wav", "ab/1.wav"]
        assert [line.split(":")[0] for line in running.err] == [
            "failed     a/none.wav",
            "failed     none",
        ]
        assert running.code == 1


@pytest.mark.parametrize("written", ["", "/", "//", ".", "..", "a/..", "a/../b", "a/.", "a\\..\\b"])
@asynchronous
async def test_unsafe_names_delete_nothing(talk: Any, written: str) -> None:
    async with talk() as it:
        for name in TREE:
            it.fake.put(name, b"")
        running = Running(it)
        await rm(running.run, [written], recursive=True)
        assert (running.code, len(running.err)) == (1, 1)
        assert len(it.fake.media) == len(TREE)
        assert it.fake.heard == []


@asynchronous
async def test_without_r_no_directory_is_deleted(talk: Any) -> None:
    async with talk() as it:
        it.fake.put("a/b/4.wav", b"")
        running = Running(it)
        await rm(running.run, ["a/b", "a/b/", "a"])
        assert (running.code, list(it.fake.media)) == (1, ["a/b/4.wav"])


@asynchronous
async def test_rm_continues_after_a_failure(talk: Any) -> None:
    async with talk() as it:
        for name in TREE:
            it.fake.put(name, b"")
        it.fake.next("DELETE", answer=told(500, 500, "internal error"))
        running = Running(it, as_json=True)
        await rm(running.run, ["a"], recursive=True)
        assert len(it.fake.media) == 1
        assert running.code == 1
        assert running.run.tally.summary(1) == "5 deleted, 1 failed"
        [failed] = [row for row in map(json.loads, running.out) if row["outcome"] == "failed"]
        assert (failed["status"], failed["code"]) == (500, 500)


@asynchronous
async def test_rm_continues_after_a_page_that_is_refused(talk: Any) -> None:
    async with talk() as it:
        for name in [*TREE, *OTHERS]:
            it.fake.put(name, b"")
        it.fake.next("GET")
        it.fake.next("GET", answer=told(500, 500, "internal error"))
        running = Running(it)
        await rm(running.run, ["a", "ab"], recursive=True)
        assert running.err == ["failed     a/: internal error (code 500)"]
        assert "ab/1.wav" not in it.fake.media
        assert running.code == 1


@asynchronous
async def test_a_directory_that_is_deleted_meanwhile_is_no_failure(talk: Any) -> None:
    async with talk() as it:
        for name in ("a/1.wav", "a/b/2.wav"):
            it.fake.put(name, b"")
        it.fake.next("GET")
        it.fake.next("GET", answer=told(404, 404, "there is no such directory"))
        running = Running(it)
        await rm(running.run, ["a"], recursive=True)
        assert (running.code, running.out) == (0, ["deleted    a/1.wav"])


@asynchronous
async def test_a_file_that_is_deleted_meanwhile_is_no_failure(talk: Any) -> None:
    async with talk() as it:
        it.fake.put("a/1.wav", b"")
        gone = Answer(200, {}, b'{"code": 200, "reason": "OK", "deleted": false}')
        it.fake.next("DELETE", answer=gone)
        running = Running(it)
        await rm(running.run, ["a"], recursive=True)
        assert (running.code, running.out) == (0, ["skipped    a/1.wav: deleted already"])


@asynchronous
async def test_a_listing_cannot_make_rm_leave_the_directory(talk: Any) -> None:
    """Names that are not valid media names are never requested, whatever the server lists."""
    file = {"size": 1, "modified": "", "etag": '"a"'}
    names = ["..", ".", ".hidden", "x\\..\\..\\b", "x\x1b.wav", "u\u0308.wav"]
    entries = [{"name": name, **file} for name in names]
    entries += [{"name": f"{name}/"} for name in names]
    content = json.dumps({"code": 200, "reason": "OK", "entries": entries, "next": None}).encode()
    async with talk() as it:
        for name in OTHERS:
            it.fake.put(name, b"")
        it.fake.next("GET", answer=Answer(200, {}, content))
        running = Running(it)
        await rm(running.run, ["a"], recursive=True)
        assert [each.target for each in it.fake.heard] == ["/media/a/"]
        assert len(running.err) == 2 * len(names)
        assert (running.code, sorted(it.fake.media)) == (1, OTHERS)


@asynchronous
async def test_unlisted_entries_stay_and_are_a_failure(talk: Any) -> None:
    async with talk() as it:
        for name in TREE:
            it.fake.put(name, b"")
        it.fake.left_out = {"a": 2, "a/b": 1}
        for said in (6, 0):
            running = Running(it)
            await rm(running.run, ["a"], recursive=True)
            assert (running.code, len(running.out), it.fake.media) == (1, said, {})
            assert running.err[0].startswith(
                "failed     a/: the directory stays: it contains 2 entries that are not media"
            )
            if said:
                assert running.err[1].startswith("failed     a/b/: the directory stays: it")


@asynchronous
async def test_a_directory_of_empty_directories_stays_and_is_a_failure(talk: Any) -> None:
    async with talk() as it:
        it.fake.left_out = {"a": 0}
        running = Running(it)
        await rm(running.run, ["a"], recursive=True)
        assert (running.code, len(running.err)) == (1, 1)
        assert running.err[0].startswith(
            "failed     a/: the directory stays: it contains only empty directories"
        )


@asynchronous
async def test_an_empty_directory_that_another_client_deletes_is_no_failure(talk: Any) -> None:
    async with talk() as it:
        it.fake.next("GET", answer=Answer(200, {}, b'{"entries": [], "next": null}'))
        running = Running(it)
        await rm(running.run, ["a"], recursive=True)
        assert (running.code, running.err, running.out) == (0, [], [])
        assert len(it.fake.asked("GET")) == 2


@asynchronous
async def test_rm_stops_when_the_service_cannot_be_reached(talk: Any) -> None:
    async with talk(retries=Retries(times=0)) as it:
        it.fake.put("a/1.wav", b"")
        it.fake.put("b/1.wav", b"")
        it.fake.next("DELETE", cut_at=0)
        running = Running(it)
        with pytest.raises(Unreachable):
            await rm(running.run, ["a", "b"], recursive=True)
        assert len(it.fake.asked("GET")) == 1

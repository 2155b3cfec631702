"""Case 96: links, pipes and files that another user has planted at names that the client uses are
neither written through nor replaced.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.test_subcommands import Running
from tests.support import asynchronous
from twistedmedia.client import LocalFailure, Retries, Unreachable, UploadRecords
from twistedmedia.client.command.get import get
from twistedmedia.client.local_folders import Folder

CONTENT = bytes(range(256)) * 8_000
CUT = 700_000
KEY = "0" * 64


def link(at: Path, victim: Path) -> None:
    at.symlink_to(victim)


def dangling(at: Path, victim: Path) -> None:
    at.symlink_to(victim.with_name("new"))


def hard_link(at: Path, victim: Path) -> None:
    os.link(victim, at)


def pipe(at: Path, victim: Path) -> None:
    os.mkfifo(at)


Plant = Callable[[Path, Path], None]
PLANTS: list[Plant] = [link, dangling, hard_link, pipe]


def what_lies_there(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """The names in a folder, each with inode, mode and content."""
    found = {}
    for path in folder.iterdir():
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[path.name] = (status.st_ino, status.st_mode, content)
    return found


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    path = folder / "precious"
    path.write_bytes(b"precious")
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder / "b.wav"


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", [".b.wav.part", ".b.wav.part.json"])
@asynchronous
async def test_a_planted_file_at_the_part_or_the_note_is_neither_written_nor_replaced(
    talk: Any, target: Path, victim: Path, name: str, plant: Plant
) -> None:
    """Case 96."""
    plant(target.with_name(name), victim)
    before = what_lies_there(victim.parent), what_lies_there(target.parent)[name]
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        with pytest.raises(LocalFailure, match=r"/\.b\.wav\.part.*; remove it or choose another"):
            await it.client.download("a", "b.wav", target)
        assert it.fake.heard == []
    assert (what_lies_there(victim.parent), what_lies_there(target.parent)[name]) == before
    assert list(what_lies_there(target.parent)) == [name]


@pytest.mark.parametrize("plant", PLANTS)
@asynchronous
async def test_a_planted_file_at_a_draft_of_the_note_is_not_written(
    talk: Any, target: Path, victim: Path, plant: Plant
) -> None:
    """Case 96: an earlier version used this name for a draft."""
    name = ".b.wav.part.json~"
    plant(target.with_name(name), victim)
    before = what_lies_there(victim.parent), what_lies_there(target.parent)
    async with talk(retries=Retries(times=0)) as it:
        it.fake.put("a/b.wav", CONTENT)
        it.fake.next("GET", short_at=CUT)
        with pytest.raises(Unreachable):
            await it.client.download("a", "b.wav", target)
        got = await it.client.download("a", "b.wav", target)
        assert got.received == len(CONTENT) - CUT
    after = what_lies_there(target.parent)
    assert after.pop("b.wav")[2] == CONTENT
    assert (what_lies_there(victim.parent), after) == before


@asynchronous
async def test_a_note_that_is_planted_during_the_download_is_not_written(
    talk: Any, target: Path, victim: Path
) -> None:
    """Case 96: between the check and the write."""
    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        download = it.client.download("a", "b.wav", target)
        note = target.with_name(".b.wav.part.json")
        note.symlink_to(victim)
        with pytest.raises(LocalFailure):
            await download
    assert what_lies_there(victim.parent)["precious"][2] == b"precious"
    assert os.readlink(note) == str(victim)


@asynchronous
async def test_a_part_that_is_replaced_during_the_download_is_not_published(
    talk: Any, target: Path
) -> None:
    """Case 96."""
    part = target.with_name(".b.wav.part")

    def replace(done: int, size: int | None) -> None:
        if done == size:
            part.unlink()
            part.write_bytes(b"of somebody else")

    async with talk() as it:
        it.fake.put("a/b.wav", CONTENT)
        with pytest.raises(LocalFailure, match="has removed or replaced"):
            await it.client.download("a", "b.wav", target, progress=replace)
    assert part.read_bytes() == b"of somebody else"
    assert target.name not in os.listdir(target.parent)


ME, FOLDERS, NOBODY, THEM = 1000, 1001, 65534, 1002


@pytest.fixture
def area(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Area]:
    """A folder of another user, with a part from an earlier attempt."""
    area = Area(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: ME)
    monkeypatch.setattr(os, "fstat", area.fstat)
    area.folder = Folder(str(tmp_path))
    yield area
    area.folder.close()


class Area:
    """A folder on a file system whose owners of files are set by the test."""

    folder: Folder

    def __init__(self, path: Path) -> None:
        (path / "part").write_bytes(b"before")
        self.owners = {path.stat().st_ino: FOLDERS}
        self.owner_of_new = ME
        self.part = (path / "part").stat().st_ino
        self._fstat = os.fstat

    def fstat(self, descriptor: int) -> os.stat_result:
        fields = list(self._fstat(descriptor))
        fields[stat.ST_UID] = self.owners.get(fields[stat.ST_INO], self.owner_of_new)
        return os.stat_result(fields)


def test_a_file_of_another_user_is_not_written_to(area: Area, tmp_path: Path) -> None:
    """Case 96: its owner could change verified content. The folder's owner can do that anyway."""
    area.owners[area.part] = FOLDERS
    os.close(area.folder.open("part"))
    area.owners[area.part] = THEM
    with pytest.raises(LocalFailure, match="a file of another user"):
        area.folder.open("part")
    os.close(area.folder.open("new"))  # created by this process, whatever its owner
    assert sorted(os.listdir(tmp_path)) == ["new", "part"]


@pytest.mark.parametrize("user", [0, ME])
def test_a_file_that_an_nfs_server_gives_to_nobody_is_accepted(
    area: Area, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    """`root_squash` does that to the files of root, `all_squash` to all files."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    area.owner_of_new = NOBODY
    area.owners[area.part] = NOBODY
    assert area.folder.read("part", 100) == b"before"
    area.folder.remove("part")
    assert os.listdir(tmp_path) == []


def test_a_file_of_nobody_is_refused_if_new_files_keep_their_owner(area: Area) -> None:
    """Case 96."""
    area.owners[area.part] = NOBODY
    with pytest.raises(LocalFailure, match="a file of another user"):
        area.folder.open("part")


@pytest.fixture
def stored(talk: Any) -> dict[str, bytes]:
    return {"a/1.wav": b"one", "a/en/2.wav": b"two", "a/en/de/3.wav": b"three"}


@pytest.mark.parametrize("plant", [link, dangling, pipe])
@asynchronous
async def test_a_tree_is_not_written_through_a_link_at_a_file(
    talk: Any,
    stored: dict[str, bytes],
    target: Path,
    victim: Path,
    plant: Plant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Case 96: the other files are downloaded."""
    monkeypatch.chdir(target.parent)
    os.makedirs("out/a/en")
    planted = Path("out/a/en/2.wav")
    plant(planted, victim)
    before = what_lies_there(victim.parent), what_lies_there(planted.parent)["2.wav"]
    async with talk() as it:
        it.fake.media.update(stored)
        it.fake.etags.update(dict.fromkeys(stored, '"x"'))
        running = Running(it)
        await get(running.run, ["a"], "out")
    assert (running.code, len(running.out), len(running.err)) == (1, 2, 1)
    assert running.err[0].startswith("failed     a/en/2.wav: out/a/en/2.wav: is ")
    assert (what_lies_there(victim.parent), what_lies_there(planted.parent)["2.wav"]) == before


@pytest.mark.parametrize("folder", ["out/a", "out/a/en", "out/a/en/de"])
@asynchronous
async def test_a_tree_is_not_written_through_a_link_at_a_folder(
    talk: Any,
    stored: dict[str, bytes],
    target: Path,
    victim: Path,
    folder: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Case 96."""
    monkeypatch.chdir(target.parent)
    os.makedirs(os.path.dirname(folder))
    os.symlink(victim.parent, folder)
    before = what_lies_there(victim.parent)
    async with talk() as it:
        it.fake.media.update(stored)
        it.fake.etags.update(dict.fromkeys(stored, '"x"'))
        running = Running(it)
        await get(running.run, ["a"], "out")
    assert running.code == 1
    assert running.err[0].partition(": ")[2].startswith(f"{folder}: is a symbolic link")
    assert what_lies_there(victim.parent) == before


@pytest.mark.parametrize(
    ("planted", "behind"), [("out/a/en/2.wav", 1), ("out/a/en", 2), ("out/a", 3)]
)
@asynchronous
async def test_content_behind_a_link_is_not_skipped(
    talk: Any,
    stored: dict[str, bytes],
    target: Path,
    victim: Path,
    planted: str,
    behind: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Case 96: the user who planted the link can change the content later."""
    monkeypatch.chdir(target.parent)
    async with talk() as it:
        it.fake.media.update(stored)
        it.fake.etags.update(dict.fromkeys(stored, '"x"'))
        await get(Running(it).run, ["a"], "out")
        os.rename(planted, victim.with_name("moved"))
        os.symlink(victim.with_name("moved"), planted)
        running = Running(it)
        await get(running.run, ["a"], "out")
    assert (running.code, len(running.err), len(running.out)) == (1, behind, 3 - behind)
    assert all(f": {planted}: is a symbolic link" in line for line in running.err)


@asynchronous
async def test_a_link_on_the_command_line_is_followed(
    talk: Any, target: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 96: a folder or file after `-o`, but not a file in the current folder."""
    monkeypatch.chdir(target.parent)
    async with talk() as it:
        it.fake.put("a/b.wav", b"sound")
        os.symlink(victim.parent, "out")
        await get(Running(it).run, ["a/b.wav"], "out")
        assert what_lies_there(victim.parent)["b.wav"][2] == b"sound"
        os.symlink(victim, "named.wav")
        await get(Running(it).run, ["a/b.wav"], "named.wav")
        assert what_lies_there(victim.parent)["precious"][2] == b"sound"
        os.symlink(victim.with_name("c"), "b.wav")
        running = Running(it)
        await get(running.run, ["a/b.wav"], None)
        assert "b.wav: is a symbolic link" in running.err[0]
        assert sorted(os.listdir(victim.parent)) == ["b.wav", "precious"]


@pytest.mark.parametrize("path", ["x/../../b.wav", "../b.wav", "/b.wav", "."])
@asynchronous
async def test_a_path_that_leads_out_of_its_folder_is_refused(
    talk: Any, target: Path, path: str
) -> None:
    """Case 96: for a program that trusts names from the service."""
    folder = target.parent
    async with talk() as it:
        with pytest.raises(LocalFailure, match="is not in the folder"):
            await it.client.download("a", "b.wav", folder / path, within=folder)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_file_at_a_record_is_neither_read_nor_written(
    tmp_path: Path, victim: Path, plant: Plant
) -> None:
    """Case 96."""
    folder = tmp_path / "records"
    folder.mkdir()
    victim.write_text('{"upload": "http://e/uploads/1"}')
    plant(folder / f"{KEY}.json", victim)
    before = what_lies_there(victim.parent), what_lies_there(folder)
    records = UploadRecords(folder)
    assert records.load(KEY) is None
    records.save(KEY, "http://e/uploads/2")
    records.remove(KEY)
    assert (what_lies_there(victim.parent), what_lies_there(folder)) == before

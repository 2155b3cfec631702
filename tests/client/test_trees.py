"""Which files of a tree `put` sends, and the records of unfinished uploads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor

from tests.support import asynchronous, named
from twistedmedia.client.command.results import Outcome, Result
from twistedmedia.client.command.trees import LocalFile, local_items
from twistedmedia.client.exceptions import LocalFailure
from twistedmedia.client.local_files import open_file
from twistedmedia.client.locations import service
from twistedmedia.client.upload_records import (
    MAX_AGE_S,
    NoResumeStore,
    UploadRecords,
    default_resume_store,
    upload_key,
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("top/a.wav", "top/en/b.wav", "top/en/c/d.wav", "top/.git/x", "top/.y", "z.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    (tmp_path / "top/link.wav").symlink_to("a.wav")
    (tmp_path / "top/linked").symlink_to("en")
    (tmp_path / "link.wav").symlink_to("z.wav")
    os.mkfifo(tmp_path / "top/pipe.wav")
    return tmp_path


def sent(*paths: str) -> list[str]:
    items = local_items(paths, "to")
    return [f"{each.directory}/{each.filename}" for each in items if isinstance(each, LocalFile)]


def test_a_folder_keeps_its_name_and_its_tree(tree: Path) -> None:
    below = ["a.wav", "en/b.wav", "en/c/d.wav"]
    assert sent("top") == sent("top/") == sent("top//") == [f"to/top/{name}" for name in below]
    assert sent("top/en/c") == ["to/c/d.wav"]
    assert sent("top/.") == sent("./top/./") == [f"to/{name}" for name in below]
    os.chdir(tree / "top")
    assert sent(".") == sent("../top/en/..") == [f"to/{name}" for name in below]


def test_files_keep_their_names(tree: Path) -> None:
    assert sent("z.wav", "top/en/b.wav") == ["to/z.wav", "to/b.wav"]
    assert sent("link.wav") == ["to/link.wav"]  # a link that is named
    [item] = local_items(["top/a.wav"], "to")
    assert item == LocalFile("top/a.wav", "to", "a.wav", 5)


def test_what_is_left_out_has_a_reason(tree: Path) -> None:
    left = {
        each.path: (each.outcome, each.reason)
        for each in local_items(["top"], "")
        if isinstance(each, Result)
    }
    assert left == {
        "top/.git": (Outcome.LEFT_OUT, "hidden"),
        "top/.y": (Outcome.LEFT_OUT, "hidden"),
        "top/link.wav": (Outcome.LEFT_OUT, "a symbolic link"),
        "top/linked": (Outcome.LEFT_OUT, "a symbolic link"),
        "top/pipe.wav": (Outcome.LEFT_OUT, "not a regular file"),
    }


def test_unreadable_files_do_not_stop_the_others(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def locked(path: str) -> Any:
        if path.endswith("/c"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    items = local_items(["none", "top", "z.wav", "a\0b"], "to")
    results = [each for each in items if isinstance(each, Result)]
    failed = [each for each in results if each.outcome is Outcome.FAILED]
    assert [(each.path, each.reason) for each in failed] == [
        ("none", "No such file or directory"),
        ("top/en/c", "Permission denied"),
        ("a\0b", "'a\\x00b' is not a valid path"),
    ]
    assert isinstance(items[-2], LocalFile)


# Records.


def test_a_record_is_kept_until_it_is_forgotten(tmp_path: Path) -> None:
    records = UploadRecords(tmp_path / "a" / "b")
    records.remove("key")
    assert records.load("key") is None
    records.save("key", "http://e/uploads/1")
    records.save("key", "http://e/uploads/2")
    assert records.load("key") == "http://e/uploads/2"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["key.json"]
    assert (tmp_path / "a" / "b" / "key.json").stat().st_mode & 0o077 == 0
    records.remove("key")
    assert records.load("key") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"upload": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.json").write_bytes(content)
    assert UploadRecords(tmp_path).load("key") is None


def test_records_that_cannot_be_written_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    records = UploadRecords(tmp_path / "file")
    records.save("key", "http://e/")
    assert records.load("key") is None
    records.remove("key")


def test_old_records_are_removed(tmp_path: Path) -> None:
    """Other files in the folder are kept."""
    old, new = "0" * 64, "f" * 64
    left_behind = f".{old}.{'a' * 32}"
    records = UploadRecords(tmp_path)
    records.save(old, "http://e/1")
    foreign = ["thesis.docx", "notes.json", ".profile"]
    for name in [*foreign, left_behind]:
        (tmp_path / name).write_text("mine")
    long_ago = os.stat(tmp_path / f"{old}.json").st_mtime - MAX_AGE_S - 1
    for name in os.listdir(tmp_path):
        os.utime(tmp_path / name, (long_ago, long_ago))
    records.save(new, "http://e/2")
    assert sorted(os.listdir(tmp_path)) == sorted([*foreign, f"{new}.json"])


def test_records_are_in_the_state_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(environment: dict[str, str]) -> Path:
        records = default_resume_store(environment)
        assert isinstance(records, UploadRecords)
        return records._folder

    assert folder({"XDG_STATE_HOME": "/s"}) == Path("/s/twistedmedia/uploads")
    monkeypatch.setenv("HOME", "/h")
    for environment in ({}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "relative"}):
        assert folder(environment) == Path("/h/.local/state/twistedmedia/uploads")


def test_without_a_home_there_are_no_records(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert isinstance(default_resume_store({}), NoResumeStore)


@asynchronous
async def test_each_upload_has_its_own_key(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"1")
    keys = set()
    for sha256 in ("0" * 64, "f" * 64):
        file = await open_file(reactor, tmp_path / "a.wav")
        for url in ("http://e", "http://f"):
            for name in ("a/b.wav", "a/c.wav", "c/b.wav"):
                keys.add(upload_key(service(url), file, named(name), sha256))
        await file.close()
    assert len(keys) == 12


def test_the_folder_of_records_is_a_str_or_a_path(tmp_path: Path) -> None:
    records = UploadRecords(str(tmp_path / "records"))
    records.save("key", "http://h/uploads/1")
    assert records.load("key") == "http://h/uploads/1"
    for wrong in (None, 3, b"records"):
        with pytest.raises(LocalFailure, match="path must be a str or a Path"):
            UploadRecords(wrong)  # type: ignore[arg-type]

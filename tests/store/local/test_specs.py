"""Specs on a disk: reading returns what was written, or fails."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.store.local.faults import RecordingCalls, ShortWrites
from tests.support import named
from twistedmedia.store.interface import UploadSpec
from twistedmedia.store.local.record_files import BrokenSpec, SpecFiles
from twistedmedia.store.local.syscalls import SystemCalls

SPEC = UploadSpec(named("prompts/en/hello.mp3"), 11, None, "192.0.2.1", "")


def record(**other: Any) -> bytes:
    """A record, with some fields changed."""
    fields: dict[str, Any] = {
        "directory": "prompts/en",
        "filename": "hello.mp3",
        "length": 11,
        "sha256": None,
        "caller": "192.0.2.1",
        "note": "",
    }
    return json.dumps({**fields, **other}).encode()


BROKEN = {
    "empty": b"",
    "zeros": bytes(200),
    "half": record()[:40],
    "no JSON": b"hello",
    "no UTF-8": b'{"\xff": 1}',
    "no object": b"[]",
    "null": b"null",
    "a number": b"7",
    "an empty object": b"{}",
    "no name": record(filename=""),
    "a name that is not allowed": record(filename="../x.mp3"),
    "a name that is no text": record(filename=7),
    "a directory that is a list": record(directory=["a"]),
    "a length that is text": record(length="11"),
    "a length that is negative": record(length=-1),
    "a length that is no whole number": record(length=1.5),
    "a digest that is a number": record(sha256=7),
    "nested deeply": b"[" * 100_000,
    "longer than any": record(note="x" * (256 << 10)),
}


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """The folder of the specs."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "spec",
    [SPEC, replace(SPEC, length=None, sha256="0" * 64, caller="", note="filename aGVsbG8=")],
)
def test_the_spec_written_last_is_read(fd: int, tmp_path: Path, spec: UploadSpec) -> None:
    specs = SpecFiles(SystemCalls(), fd, durable=True)
    specs.write("spec", replace(spec, length=1), "new")
    specs.write("spec", spec, "new")
    assert specs.read("spec") == spec
    assert specs.caller("spec") == spec.caller
    assert os.listdir(tmp_path) == ["spec"]


def test_a_record_of_an_earlier_service_is_read(fd: int, tmp_path: Path) -> None:
    (tmp_path / "spec").write_bytes(record())
    assert SpecFiles(SystemCalls(), fd, durable=True).read("spec") == SPEC


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_an_invalid_spec_is_reported(fd: int, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spec").write_bytes(content)
    specs = SpecFiles(SystemCalls(), fd, durable=True)
    with pytest.raises(BrokenSpec):
        specs.read("spec")
    assert specs.caller("spec") in ("", SPEC.caller)


def test_a_missing_file_has_no_spec_and_no_caller(fd: int) -> None:
    specs = SpecFiles(SystemCalls(), fd, durable=True)
    with pytest.raises(FileNotFoundError):
        specs.read("spec")
    assert specs.caller("spec") == ""


def test_a_spec_that_does_not_fit_on_the_disk_leaves_the_old_one(fd: int, tmp_path: Path) -> None:
    """Case 10."""
    SpecFiles(SystemCalls(), fd, durable=True).write("spec", SPEC, "new")
    specs = SpecFiles(ShortWrites(20), fd, durable=True)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        specs.write("spec", replace(SPEC, length=5), "new")
    assert specs.read("spec") == SPEC
    assert os.listdir(tmp_path) == ["spec"]


@pytest.mark.parametrize("durable", [True, False])
def test_a_spec_is_synced_before_and_after_it_gets_its_name(
    fd: int, tmp_path: Path, durable: bool
) -> None:
    calls = RecordingCalls(str(tmp_path))
    SpecFiles(calls, fd, durable=durable).write("spec", SPEC, "new")
    done = [event.split()[0] for event in calls.of("writev", "fsync", "rename")]
    assert done == (["writev", "fsync", "rename", "fsync"] if durable else ["writev", "rename"])

"""Plans on a disk: what is read is what was written, or a failure."""

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

PLAN = UploadSpec(named("prompts/en/hello.mp3"), 11, None, "192.0.2.1", "")


def record(**other: Any) -> bytes:
    """What a record is, but for some fields."""
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
    """The folder of the plans."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "plan",
    [PLAN, replace(PLAN, length=None, sha256="0" * 64, caller="", note="filename aGVsbG8=")],
)
def test_what_is_read_is_what_was_written_last(fd: int, tmp_path: Path, plan: UploadSpec) -> None:
    plans = SpecFiles(SystemCalls(), fd, durable=True)
    plans.write("plan", replace(plan, length=1), "new")
    plans.write("plan", plan, "new")
    assert plans.read("plan") == plan
    assert plans.caller("plan") == plan.caller
    assert os.listdir(tmp_path) == ["plan"]


def test_a_record_of_an_earlier_service_is_read(fd: int, tmp_path: Path) -> None:
    (tmp_path / "plan").write_bytes(record())
    assert SpecFiles(SystemCalls(), fd, durable=True).read("plan") == PLAN


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_not_a_plan_is_told(fd: int, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan").write_bytes(content)
    plans = SpecFiles(SystemCalls(), fd, durable=True)
    with pytest.raises(BrokenSpec):
        plans.read("plan")
    assert plans.caller("plan") in ("", PLAN.caller)


def test_what_is_not_there_has_no_plan_and_no_caller(fd: int) -> None:
    plans = SpecFiles(SystemCalls(), fd, durable=True)
    with pytest.raises(FileNotFoundError):
        plans.read("plan")
    assert plans.caller("plan") == ""


def test_a_plan_that_does_not_fit_leaves_the_one_before(fd: int, tmp_path: Path) -> None:
    """Case 10."""
    SpecFiles(SystemCalls(), fd, durable=True).write("plan", PLAN, "new")
    plans = SpecFiles(ShortWrites(20), fd, durable=True)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        plans.write("plan", replace(PLAN, length=5), "new")
    assert plans.read("plan") == PLAN
    assert os.listdir(tmp_path) == ["plan"]


@pytest.mark.parametrize("durable", [True, False])
def test_a_plan_is_synced_before_it_gets_its_name_and_after(
    fd: int, tmp_path: Path, durable: bool
) -> None:
    calls = RecordingCalls(str(tmp_path))
    SpecFiles(calls, fd, durable=durable).write("plan", PLAN, "new")
    done = [event.split()[0] for event in calls.of("writev", "fsync", "rename")]
    assert done == (["writev", "fsync", "rename", "fsync"] if durable else ["writev", "rename"])

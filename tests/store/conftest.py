"""The stores that the contract suite runs against."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.store.local.faults import LackingCalls, SmallDisk
from twistedmedia.store.local.directory import DirectoryStore
from twistedmedia.store.local.syscalls import SystemCalls
from twistedmedia.store.memory import MemoryStore

KINDS = (
    "memory",
    "directory",
    "directory with hidden drafts",
    "directory without symbolic links",
    "directory, not durable",
)
CAPACITY = 1000  # bytes of `small_store`


@pytest_twisted.async_yield_fixture(params=KINDS)
async def store(request: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """Each kind of store in turn, started, and stopped after the test."""
    made = make_store(request.param, tmp_path / "media")
    made.start()
    yield made
    await made.stop()


@pytest_twisted.async_yield_fixture(params=KINDS)
async def small_store(request: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """As `store`, with room for CAPACITY bytes."""
    if request.param == "memory":
        made: Any = MemoryStore(CAPACITY)
    else:
        root = tmp_path / "media"
        kind = SmallDiskWithoutLinks if "links" in request.param else SmallDisk
        made = make_store(request.param, root, kind(str(root), CAPACITY))
    made.start()
    yield made
    await made.stop()


class SmallDiskWithoutLinks(SmallDisk):
    """As `SmallDisk`, and without symbolic links."""

    def symlink(self, target: str, name: str, *, dir_fd: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def make_store(kind: str, root: Path, calls: SystemCalls | None = None) -> Any:
    """A store of one of KINDS."""
    if kind == "memory":
        return MemoryStore()
    if "links" in kind and calls is None:
        calls = LackingCalls("symlink")
    return DirectoryStore(
        reactor,
        str(root),
        threads=3,
        durable="not durable" not in kind,
        unnamed_drafts="hidden" not in kind,
        calls=calls,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "media"


@pytest_twisted.async_yield_fixture
async def start(root: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts stores on the root, which are stopped after the test."""
    started: list[Any] = []

    def make(
        calls: Any = None,
        kind: str = "directory",
        at: Path = root,
        *,
        sweep_later: bool = False,
        **options: Any,
    ) -> DirectoryStore:
        made = DirectoryStore(
            reactor,
            str(at),
            calls=calls,
            unnamed_drafts="hidden" not in kind,
            **{"threads": 3, **options},
        )
        started.append(made)
        made.start(sweep_later=sweep_later)
        return made

    yield make
    for each in started:
        await each.stop()

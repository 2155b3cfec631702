"""The services of the tests over sockets, a small disk to fill, and what --quick leaves out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree

import pytest

from tests.process.conftest import folder, serve, service

__all__ = ["folder", "serve", "service"]

_AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out the tests marked long")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes, or a browser; --quick leaves it out")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


class Disk:
    """A file system in memory, mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mounted = True

    def remount(self, how: str) -> None:
        """`ro` or `rw`."""
        _as_root("mount", "-o", f"remount,{how}", str(self.path))

    def detach(self) -> None:
        """Unmount it at once; who has it open keeps it."""
        _as_root("umount", "-l", str(self.path))
        self.mounted = False

    @property
    def free(self) -> tuple[int, int]:
        """Blocks and inodes that are free."""
        status = os.statvfs(self.path)
        return status.f_bfree, status.f_ffree


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Disk]]:
    """Call it with the options of a tmpfs for a disk that is gone after the test."""
    with ExitStack() as mounted:

        def unmount(disk: Disk) -> None:
            if disk.mounted:
                _as_root("umount", str(disk.path))

        def mount(options: str) -> Disk:
            path = tmp_path / "area" / "media"
            path.mkdir(parents=True, exist_ok=True)
            owner = f"uid={os.geteuid()},gid={os.getegid()},mode=755"
            _as_root("mount", "-t", "tmpfs", "-o", f"{options},{owner}", "tmpfs", str(path))
            disk = Disk(path)
            mounted.callback(unmount, disk)
            return disk

        yield mount


def _as_root(*command: str) -> None:
    done = subprocess.run(
        [*_AS_ROOT, *command], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Emptied, for it gets large."""
    area = tmp_path / "area"
    area.mkdir()
    yield area / "media"
    rmtree(area)

"""Case 93: a root on a file system without links."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.running import run_to_its_end

_AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


def _done(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout.strip()


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    """A folder with an exFAT file system, by FUSE: it has neither hard links nor symbolic ones."""
    image, path = tmp_path / "image", tmp_path / "exfat"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    _done("/usr/sbin/mkfs.exfat", str(image))
    device = _done(*_AS_ROOT, "/usr/sbin/losetup", "-f", "--show", str(image))
    try:
        owner = f"rw,uid={os.geteuid()},gid={os.getegid()}"
        _done(*_AS_ROOT, "/usr/sbin/mount.exfat-fuse", "-o", owner, device, str(path))
        try:
            yield path
        finally:
            _done(*_AS_ROOT, "umount", str(path))
    finally:
        _done(*_AS_ROOT, "/usr/sbin/losetup", "-d", device)


def test_a_root_without_hard_links_ends_the_start_with_a_line_that_says_so(
    exfat: Path, tmp_path: Path
) -> None:
    """Case 93."""
    root = exfat / "media"
    done = run_to_its_end(
        "-n", "--pidfile=", "media", "--port", "0", "--root", str(root), cwd=tmp_path
    )
    assert done.returncode == 1
    told = [line for line in done.stdout.splitlines() if "cannot start" in line]
    assert len(told) == 1, done.stdout
    assert told[0].endswith(
        f"cannot start: --root: the file system of {root} has no hard links (operation not "
        "permitted), which give each stored file its name in one step. Choose a folder on another "
        "file system"
    )
    assert "Traceback" not in done.stdout
    assert list(root.iterdir()) == []

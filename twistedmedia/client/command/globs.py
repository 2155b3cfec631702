"""Which files and folders of a tree `--exclude` leaves out.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether one of `patterns` excludes `path`, which is relative to the folder that was named.

    A pattern without a slash is compared with the name of each file and folder. One with a slash is
    compared with the path, part by part, so that `*` never stands for a slash. All that lies in
    an excluded folder is excluded as well.
    """
    parts = path.split("/")
    return any(
        _matches(parts[:depth], each) for each in patterns for depth in range(1, 1 + len(parts))
    )


def _matches(parts: list[str], pattern: str) -> bool:
    wanted = pattern.strip("/").split("/")
    if len(wanted) == 1 and not pattern.startswith("/"):
        parts = parts[-1:]
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))

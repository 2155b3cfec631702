"""Trees of local files: which files `put` sends, and what `--exclude` leaves out.

The functions may block on the file system: the command calls `local_items` in a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from twistedmedia.client.command.results import Outcome, Result, failure
from twistedmedia.client.exceptions import LocalFailure, local_failure


def is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether one of `patterns` matches `path`, which is relative to the folder that was named. A
    pattern without a slash is compared with the name of each file and folder. A pattern with a
    slash is compared with the path, part by part, so `*` never matches a slash. What is in an
    excluded folder is excluded as well.
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


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file of `size` bytes, and the directory and name that it gets at the service.
    `is_named` tells that the user named the file itself, not only a folder that contains it.
    """

    path: str
    directory: str
    filename: str
    size: int
    is_named: bool = True

    @property
    def name(self) -> str:
        return f"{self.directory}/{self.filename}".removeprefix("/")


def local_items(
    paths: Iterable[str], directory: str, exclude: Sequence[str] = ()
) -> list[LocalFile | Result]:
    """Find the files to send to `directory`, as `cp -r` would: a file keeps its name, a folder its
    name and its tree. `folder/.` means the content of the folder, without its name. A link in
    `paths` is followed. Links, hidden files and irregular files in a folder are left out. Entries
    of a folder that match `exclude` are skipped. A path that is left out or cannot be read gives a
    `Result`.
    """
    items: list[LocalFile | Result] = []
    for path in paths:
        if not path:
            items.append(failure(LocalFailure("the name of a file or folder is empty"), path=path))
            continue
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:  # a NUL in a name is a ValueError
            items.append(_unreadable(path, error))
            continue
        if not stat.S_ISDIR(status.st_mode):
            filename = os.path.basename(path)
            items.append(LocalFile(path, directory, filename, status.st_size))
            continue
        name = os.path.basename(path.rstrip("/"))
        target = directory if name in ("", ".", "..") else f"{directory}/{name}".removeprefix("/")
        items += _items_in(path, target, exclude)
    return items


def _items_in(folder: str, directory: str, exclude: Sequence[str]) -> Iterator[LocalFile | Result]:
    stack = [(folder, directory, "")]
    while stack:
        folder, directory, prefix = stack.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            yield _unreadable(folder, error)
            continue
        folders = []
        for entry in entries:
            if is_excluded(prefix + entry.name, exclude):
                continue
            try:
                reason = _why_left_out(entry)
                if reason is not None:
                    yield Result(Outcome.LEFT_OUT, path=entry.path, reason=reason)
                elif entry.is_dir(follow_symlinks=False):
                    below = f"{directory}/{entry.name}".removeprefix("/")
                    folders.append((entry.path, below, f"{prefix}{entry.name}/"))
                else:
                    size = entry.stat(follow_symlinks=False).st_size
                    yield LocalFile(entry.path, directory, entry.name, size, is_named=False)
            except OSError as error:
                yield _unreadable(entry.path, error)
        stack += reversed(folders)


def _why_left_out(entry: os.DirEntry[str]) -> str | None:
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_symlink():
        return "a symbolic link"
    if not entry.is_dir(follow_symlinks=False) and not entry.is_file(follow_symlinks=False):
        return "not a regular file"
    return None


def _unreadable(path: str, error: OSError | ValueError) -> Result:
    return failure(local_failure(error, path), path=path)

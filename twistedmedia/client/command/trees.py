"""Which files and folders of a tree `--exclude` leaves out.

Pure.

Which local files are meant by what a person names, and what they are called at the service.

The functions block: the command calls them in a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from twistedmedia.client.exceptions import LocalFailure, local_failure


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


@dataclass(frozen=True, slots=True)
class Sendable:
    """A regular file, the name it is to have, and its size in bytes. `is_named` is whether a person
    has named it, and not only the folder that it lies in.
    """

    path: str
    directory: str
    filename: str
    size: int
    is_named: bool = True


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What lies in a folder and is not sent."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What was named, or lies in a folder, and cannot be read."""

    path: str
    error: LocalFailure


Item = Sendable | LeftOut | Unreadable


def local_items(paths: Iterable[str], directory: str, exclude: Sequence[str] = ()) -> list[Item]:
    """What is to be sent to `directory`, as `cp -r` would: a file keeps its name, a folder its own
    name and its tree. Of `folder/.` the content is meant, without the folder's name.

    A link that is named is followed; links within a folder, hidden files in one, and what is not a
    regular file there are left out. What `exclude` matches in a folder is passed over.
    """
    items: list[Item] = []
    for path in paths:
        if not path:
            items.append(Unreadable(path, LocalFailure("the name of a file or folder is empty")))
            continue
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:  # a NUL in a name is a ValueError
            items.append(_unreadable(path, error))
            continue
        if not stat.S_ISDIR(status.st_mode):
            filename = os.path.basename(path)
            items.append(Sendable(path, directory, filename, status.st_size))
            continue
        name = os.path.basename(path.rstrip("/"))
        below = directory if name in ("", ".", "..") else f"{directory}/{name}".removeprefix("/")
        items += _below(path, below, exclude)
    return items


def _below(folder: str, directory: str, exclude: Sequence[str]) -> Iterator[Item]:
    waiting = [(folder, directory, "")]
    while waiting:
        here, directory, above = waiting.pop()
        try:
            with os.scandir(here) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            yield _unreadable(here, error)
            continue
        folders = []
        for entry in entries:
            if is_excluded(above + entry.name, exclude):
                continue
            try:
                reason = _why_not(entry)
                if reason is not None:
                    yield LeftOut(entry.path, reason)
                elif entry.is_dir(follow_symlinks=False):
                    below = f"{directory}/{entry.name}".removeprefix("/")
                    folders.append((entry.path, below, f"{above}{entry.name}/"))
                else:
                    size = entry.stat(follow_symlinks=False).st_size
                    yield Sendable(entry.path, directory, entry.name, size, is_named=False)
            except OSError as error:
                yield _unreadable(entry.path, error)
        waiting += reversed(folders)


def _why_not(entry: os.DirEntry[str]) -> str | None:
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_symlink():
        return "a symbolic link"
    if not entry.is_dir(follow_symlinks=False) and not entry.is_file(follow_symlinks=False):
        return "not a regular file"
    return None


def _unreadable(path: str, error: OSError | ValueError) -> Unreadable:
    return Unreadable(path, local_failure(error, path))

"""The folders that a service was making or emptying when it was killed.

Between making a folder and naming a file in it, and between removing the last file and the folder,
the folder is empty. To find such a folder after a crash without a walk of the whole tree, its path
is noted in a file before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import Counter
from collections.abc import Iterator

from twistedmedia.names import is_segment
from twistedmedia.store.local.syscalls import SystemCalls

_NAME = "folders"
_NEW = "folders.new"  # the file that takes its place
# The file is emptied when no work is under way. When it is longer, the notes of finished work go.
_MOST_BYTES = 16 << 10
_READ = os.O_RDONLY | os.O_NOFOLLOW
_WRITE = os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_WRONLY


class DirtyFolders:
    """The notes of one store, in a file. Thread-safe. Everything here blocks.

    The file is not kept open: a file that is open for writing keeps its file system from being
    remounted read-only.
    """

    def __init__(self, calls: SystemCalls, fd: int) -> None:
        """`fd` is the folder of the file."""
        self._calls = calls
        self._fd = fd
        self._lock = threading.Lock()
        self._under_way: Counter[tuple[str, ...]] = Counter()
        self._size = 0

    def left(self) -> list[tuple[str, ...]]:
        """The folders that an earlier process has noted, each once."""
        try:
            fd = self._calls.open(_NAME, _READ, dir_fd=self._fd)
        except FileNotFoundError:
            return []
        try:
            lines = self._calls.pread(fd, self._calls.fstat(fd).st_size, 0).split(b"\n")
        finally:
            self._calls.close(fd)
        found = dict.fromkeys(tuple(os.fsdecode(line).split("/")) for line in lines)
        return [folders for folders in found if all(map(is_segment, folders))]

    def begin(self, folders: tuple[str, ...]) -> None:
        """The last of these folders will be made, or may get empty, until `end`."""
        with self._lock:
            self._under_way[folders] += 1
            if self._size > _MOST_BYTES:
                with contextlib.suppress(OSError):  # then the file gets longer
                    return self._rewrite()
            if self._under_way[folders] == 1:
                note = _lines([folders])
                self._calls.append(_NAME, note, dir_fd=self._fd)
                self._size += len(note)

    def end(self, folders: tuple[str, ...]) -> None:
        """It is made and has something in it, or it is gone."""
        with self._lock:
            self._under_way[folders] -= 1
            if not self._under_way[folders]:
                del self._under_way[folders]
            if not self._under_way:
                self._empty()

    @contextlib.contextmanager
    def noted(self, folders: tuple[str, ...]) -> Iterator[None]:
        """The time from `begin` to `end`."""
        self.begin(folders)
        try:
            yield
        finally:
            self.end(folders)

    def clear(self) -> None:
        """Forget the notes of an earlier process."""
        with self._lock:
            if not self._under_way:
                self._empty()

    def _empty(self) -> None:
        self._calls.empty(_NAME, dir_fd=self._fd)
        self._size = 0

    def _rewrite(self) -> None:
        """Put a file with the notes of the work under way in the place of the other, in one step: a
        process that is killed here has lost none.
        """
        many = list(self._under_way)
        notes = _lines(many)
        fd = self._calls.open(_NEW, _WRITE, 0o600, dir_fd=self._fd)
        try:
            if self._calls.writev(fd, [notes]) < len(notes):  # the disk is full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            self._calls.close(fd)
        self._calls.rename(_NEW, _NAME, source_dir_fd=self._fd, dir_fd=self._fd)
        self._size = len(notes)


def _lines(many: list[tuple[str, ...]]) -> bytes:
    return b"".join(os.fsencode("/".join(folders)) + b"\n" for folders in many)

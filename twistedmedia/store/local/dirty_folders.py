"""Notes of folders that may be empty if the service is killed now.

A folder is empty after it is made until a file is linked into it, and after its last file is
removed until it is removed. Its path is first noted in a file, so that the next start finds such
folders without walking the whole tree.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterator

from twistedmedia.names import is_segment
from twistedmedia.store.local.syscalls import SystemCalls, opened, write_whole

_NAME = "folders"
_NEW = "folders.new"  # the file that replaces it
# The file is emptied when no work is under way. If it is longer than this, it is rewritten without
# the notes of finished work.
_MOST_BYTES = 16 << 10
_READ = os.O_RDONLY | os.O_NOFOLLOW
_WRITE = os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_WRONLY


class DirtyFolders:
    """The notes of one store, in a file. Thread-safe. Everything here blocks.

    The file is not kept open: a file that is open for writing keeps its file system from being
    remounted read-only.
    """

    def __init__(self, calls: SystemCalls, fd: int) -> None:
        """`fd` is the folder that holds the file."""
        self._calls = calls
        self._fd = fd
        self._lock = threading.Lock()
        self._under_way: Counter[tuple[str, ...]] = Counter()
        self._size = 0

    def left(self) -> list[tuple[str, ...]]:
        """The folders that an earlier process has noted, each once."""
        try:
            with opened(self._calls, _NAME, _READ, dir_fd=self._fd) as fd:
                lines = self._calls.pread(fd, self._calls.fstat(fd).st_size, 0).split(b"\n")
        except FileNotFoundError:
            return []
        found = dict.fromkeys(tuple(os.fsdecode(line).split("/")) for line in lines)
        return [folders for folders in found if all(map(is_segment, folders))]

    def begin(self, folders: tuple[str, ...]) -> None:
        """Note that the last of these folders may be empty until `end` is called."""
        with self._lock:
            self._under_way[folders] += 1
            if self._size > _MOST_BYTES:
                with contextlib.suppress(OSError):  # if this fails, the file grows
                    return self._rewrite()
            if self._under_way[folders] == 1:
                note = _lines([folders])
                self._calls.append(_NAME, note, dir_fd=self._fd)
                self._size += len(note)

    def end(self, folders: tuple[str, ...]) -> None:
        """The folder is not empty, or was removed."""
        with self._lock:
            self._under_way[folders] -= 1
            if not self._under_way[folders]:
                del self._under_way[folders]
            if not self._under_way:
                self._empty()

    @contextlib.contextmanager
    def noted(self, folders: tuple[str, ...]) -> Iterator[None]:
        """A context from `begin` to `end`."""
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
        """Replace the file by one with only the notes of the work under way, in one step."""
        notes = _lines(list(self._under_way))
        with opened(self._calls, _NEW, _WRITE, 0o600, dir_fd=self._fd) as fd:
            write_whole(self._calls, fd, notes)
        self._calls.rename(_NEW, _NAME, source_dir_fd=self._fd, dir_fd=self._fd)
        self._size = len(notes)


def _lines(many: list[tuple[str, ...]]) -> bytes:
    return b"".join(os.fsencode("/".join(folders)) + b"\n" for folders in many)

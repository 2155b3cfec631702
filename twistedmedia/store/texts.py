"""Short texts on a disk, each under a name, written in one step."""

from __future__ import annotations

import contextlib
import errno
import os

from twistedmedia.store.calls import SystemCalls

_NEW = ".new"  # behind the name of a text that is being written
_MAX_TEXT_BYTES = 4096  # a path, which the target of a link is, cannot be longer


class Texts:
    """The texts in one folder. Everything here blocks and runs in threads.

    A text is the target of a symbolic link. So it exists with what it says or does not exist, takes
    no space, and on a file system with a journal it is on stable storage before what was written
    after it. On a file system without symbolic links a text is the content of a small file, which
    is synced before it gets its name. Both kinds can be read on either.
    """

    def __init__(
        self, calls: SystemCalls, fd: int, *, links: bool = True, durable: bool = True
    ) -> None:
        """`fd` is the folder's. `links` is whether its file system has symbolic links. A store that
        is not `durable` syncs nothing.
        """
        self._calls = calls
        self._fd = fd
        self._links = links
        self._durable = durable

    def read(self, name: str) -> str:
        """The text of that name.

        :raises FileNotFoundError: if there is none.
        """
        try:
            return self._calls.readlink(name, dir_fd=self._fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # which says that it is not a link
                raise
        fd = self._calls.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._fd)
        try:
            return os.fsdecode(self._calls.pread(fd, _MAX_TEXT_BYTES, 0))
        finally:
            self._calls.close(fd)

    def create(self, name: str, text: str) -> None:
        """Write a text. Its name must be free."""
        if self._links:
            self._calls.symlink(text, name, dir_fd=self._fd)
        else:
            self.replace(name, text)

    def replace(self, name: str, text: str) -> None:
        """Write a text in the place of the one of that name, if there is one."""
        new = name + _NEW
        with contextlib.suppress(FileNotFoundError):  # what a crash has left
            self._calls.unlink(new, dir_fd=self._fd)
        with contextlib.ExitStack() as undoing:
            if self._links:
                self._calls.symlink(text, new, dir_fd=self._fd)
            else:
                self._write_file(new, text)
            undoing.callback(self._remove, new)
            self._calls.rename(new, name, source_dir_fd=self._fd, dir_fd=self._fd)
            undoing.pop_all()

    def _write_file(self, name: str, text: str) -> None:
        content = os.fsencode(text)
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY
        fd = self._calls.open(name, flags, 0o600, dir_fd=self._fd)
        try:
            if self._calls.writev(fd, [content]) < len(content):  # the disk is full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._durable:
                self._calls.fsync(fd)
        except BaseException:
            self._remove(name)
            raise
        finally:
            self._calls.close(fd)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):  # the failure that led here is the one to tell
            self._calls.unlink(name, dir_fd=self._fd)

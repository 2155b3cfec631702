"""The files of drafts: those that no media name leads to."""

from __future__ import annotations

import os
from secrets import token_hex
from typing import Protocol

from twistedmedia.store.calls import SystemCalls


class DraftFile(Protocol):
    """A file that no media name leads to."""

    def open(self) -> int:
        """A descriptor for writing."""

    def link(self, fd: int, name: str, dir_fd: int) -> None:
        """Give it a name; FileExistsError when that is taken."""

    def remove(self, published: bool) -> None:
        """It is published or discarded: nothing may stay that nobody will ask for."""


class UnnamedFile:
    """O_TMPFILE: the kernel drops it when it is closed without a name, after a crash too."""

    def __init__(self, calls: SystemCalls, root_fd: int) -> None:
        self._calls = calls
        self._root_fd = root_fd

    def open(self) -> int:
        return self._calls.open(".", os.O_TMPFILE | os.O_WRONLY, 0o666, dir_fd=self._root_fd)

    def link(self, fd: int, name: str, dir_fd: int) -> None:
        self._calls.link_descriptor(fd, name, dir_fd=dir_fd)

    def remove(self, published: bool) -> None:
        pass


class HiddenFile:
    """For file systems without O_TMPFILE: a random name in a hidden folder, flocked while in use,
    so that the sweep at the next start knows which ones a crash has left.
    """

    def __init__(self, calls: SystemCalls, drafts_fd: int) -> None:
        self._calls = calls
        self._drafts_fd = drafts_fd
        self._name = token_hex(16)
        self._exists = False

    def open(self) -> int:
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY
        fd = self._calls.open(self._name, flags, 0o666, dir_fd=self._drafts_fd)
        self._exists = True
        try:
            self._calls.lock(fd)
        except BaseException:
            self._calls.close(fd)
            raise
        return fd

    def link(self, fd: int, name: str, dir_fd: int) -> None:
        self._calls.link(self._name, name, source_dir_fd=self._drafts_fd, dir_fd=dir_fd)

    def remove(self, published: bool) -> None:
        if self._exists:
            self._calls.unlink(self._name, dir_fd=self._drafts_fd)
            self._exists = False

"""The embedded default store: media as plain files under one folder.

Beside the media the root holds one hidden folder, `.twistedmedia`, with a lock that keeps a second
service out and, on file systems without O_TMPFILE, the drafts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from secrets import token_hex

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.boundaries import Media
from twistedmedia.errors import ConfigurationError, NotFound
from twistedmedia.names import MediaName
from twistedmedia.store.calls import SystemCalls
from twistedmedia.store.drafts import (
    DirectoryDraft,
    DraftFile,
    HiddenFile,
    Space,
    UnnamedFile,
    etag_of,
)
from twistedmedia.store.folders import Folders
from twistedmedia.store.memory import MemoryMedia
from twistedmedia.store.threads import DiskThreads, Lane

_HIDDEN = ".twistedmedia"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
# A file of this size is read when it is opened: one way through the threads instead of three.
_SMALL_BYTES = 64 << 10
_CANNOT_WRITE_NOW = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# O_NONBLOCK: a FIFO that somebody has put there must not hold a thread.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG}


class DirectoryStore:
    """`boundaries.Store` on a local file system with hard links.

    Nothing is opened or started before `start`.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorFromThreads,
        root: str,
        *,
        threads: int = 5,
        durable: bool = True,
        calls: SystemCalls | None = None,
        unnamed_drafts: bool = True,
    ) -> None:
        """`threads` are for writing, and as many more for reading. `durable`: a publish or delete
        waits for fsync. `unnamed_drafts=False` does without O_TMPFILE where there is one.
        """
        self.root = os.path.abspath(root)
        self._durable = durable
        self._calls = calls or SystemCalls()
        self._unnamed_drafts = unnamed_drafts
        self._writers = DiskThreads(reactor, "media-writers", threads)
        self._readers = DiskThreads(reactor, "media-readers", threads)
        self._held: contextlib.ExitStack | None = None

    def start(self) -> None:
        """Make and lock the root, sweep what a crash has left, start the threads. Blocks.

        :raises ConfigurationError: when the root cannot be used.
        """
        with contextlib.ExitStack() as held:
            try:
                self._make_root()
                self._root_fd = self._held_open(held, self.root, None)
                hidden_fd = self._held_folder(held, _HIDDEN, self._root_fd)
                self._lock_root(held, hidden_fd)
                self._drafts_fd = self._held_folder(held, "drafts", hidden_fd)
                self._sweep()
                self._probe()
            except BlockingIOError:
                raise ConfigurationError(
                    f"another service uses the root {self.root}: one service a root"
                ) from None
            except OSError as error:
                raise ConfigurationError(
                    f"the root {self.root} cannot be used: {error.strerror}"
                ) from error
            self._folders = Folders(self._calls, self._root_fd, self._durable)
            self._space = Space(self._calls, self._root_fd)
            self._writers.start()
            self._readers.start()
            held.callback(self._readers.stop)
            held.callback(self._writers.stop)
            self._held = held.pop_all()

    async def stop(self) -> None:
        """Let the jobs under way end, then stop the threads and unlock the root."""
        if self._held is not None:
            await self._writers.idle()
            await self._readers.idle()
            held, self._held = self._held, None
            held.close()

    def begin(self, size: int | None = None) -> DirectoryDraft:
        file = (
            UnnamedFile(self._calls, self._root_fd)
            if self._unnamed_drafts
            else HiddenFile(self._calls, self._drafts_fd)
        )
        return DirectoryDraft(
            self._calls, self._writers, self._folders, self._space, file, size, self._durable
        )

    def open(self, name: MediaName) -> Deferred[Media]:
        def close(outcome: Media | Failure) -> None:
            if not isinstance(outcome, Failure):
                outcome.close()

        at_hand = self._open_at_hand(name)
        if at_hand is not None:
            return succeed(at_hand)
        return self._readers.run(self._open, name, unclaimed=close)

    def delete(self, name: MediaName) -> Deferred[bool]:
        return self._writers.run(self._folders.remove, name, syncing=self._durable)

    def _open_at_hand(self, name: MediaName) -> Media | None:
        """A small file that is in the kernel's memory, name and bytes: that is had sooner than a
        thread, and without waiting for anything. None is no verdict: then a thread looks.
        """
        with contextlib.suppress(OSError):
            fd = self._calls.open_at_hand(str(name), _READ, dir_fd=self._root_fd)
            try:
                status = self._calls.fstat(fd)
                if stat.S_ISREG(status.st_mode) and status.st_size <= _SMALL_BYTES:
                    content = self._calls.read_at_hand(fd, status.st_size)
                    if len(content) == status.st_size:
                        return MemoryMedia(content, status.st_mtime_ns)
            finally:
                self._calls.close(fd)
        return None

    def _open(self, name: MediaName) -> Media:
        try:
            with self._folders.walk(name) as folder:
                fd = self._calls.open(name.filename, _READ, dir_fd=folder)
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise NotFound from None
            raise
        keep = False
        try:
            status = self._calls.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise NotFound
            if status.st_size <= _SMALL_BYTES:
                return MemoryMedia(self._calls.pread(fd, status.st_size, 0), status.st_mtime_ns)
            keep = True
            return DirectoryMedia(self._calls, self._readers, fd, status)
        finally:
            if not keep:
                self._calls.close(fd)

    def _held_open(self, held: contextlib.ExitStack, path: str, dir_fd: int | None) -> int:
        fd = self._calls.open(path, _FOLDER, dir_fd=dir_fd)
        held.callback(self._calls.close, fd)
        return fd

    def _held_folder(self, held: contextlib.ExitStack, name: str, dir_fd: int) -> int:
        with contextlib.suppress(FileExistsError):
            self._calls.mkdir(name, 0o700, dir_fd=dir_fd)
        fd = self._calls.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=dir_fd)
        held.callback(self._calls.close, fd)
        return fd

    def _make_root(self) -> None:
        """With the folders above it that lack, each synced into the one above."""
        lacking, path = [], self.root
        while not os.path.isdir(path) and path != os.path.dirname(path):
            lacking.append(path)
            path = os.path.dirname(path)
        for path in reversed(lacking):
            parent, name = os.path.split(path)
            fd = self._calls.open(parent, _FOLDER)
            try:
                with contextlib.suppress(FileExistsError):
                    self._calls.mkdir(name, dir_fd=fd)
                if self._durable:
                    self._calls.fsync(fd)
            finally:
                self._calls.close(fd)

    def _lock_root(self, held: contextlib.ExitStack, hidden_fd: int) -> None:
        # Not open for writing, which would keep the file system from being remounted read-only; but
        # NFS locks only what is.
        for access in (os.O_RDONLY, os.O_RDWR):
            fd = self._calls.open("lock", access | os.O_CREAT, 0o600, dir_fd=hidden_fd)
            held.callback(self._calls.close, fd)
            try:
                return self._calls.lock(fd)
            except OSError as error:
                if error.errno != errno.EBADF or access == os.O_RDWR:
                    raise

    def _sweep(self) -> None:
        """Remove the drafts of a service that was killed. We hold the root's lock, so a draft that
        can be locked is nobody's.
        """
        for name in self._calls.listdir(self._drafts_fd):
            if not stat.S_ISREG(self._calls.lstat(name, dir_fd=self._drafts_fd).st_mode):
                continue  # not ours
            fd = self._calls.open(name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=self._drafts_fd)
            try:
                self._calls.lock(fd)
                self._calls.unlink(name, dir_fd=self._drafts_fd)
                self._log.info("swept a draft that a killed service has left: {draft}", draft=name)
            except BlockingIOError:
                continue
            finally:
                self._calls.close(fd)

    def _probe(self) -> None:
        """Find out which kind of draft this file system can publish.

        :raises OSError: when it can publish neither.
        """
        kinds: list[DraftFile] = [HiddenFile(self._calls, self._drafts_fd)]
        if self._unnamed_drafts:
            kinds.insert(0, UnnamedFile(self._calls, self._root_fd))
        for file in kinds:
            name = token_hex(16)
            try:
                self._try(file, name)
            except OSError as error:
                if error.errno in _CANNOT_WRITE_NOW:  # what is there can be read, and some deleted
                    self._log.warn("nothing can be stored now: {why}", why=error.strerror)
                    return
                if file is kinds[-1]:
                    raise
                self._log.info(
                    "no unnamed drafts in {root} ({why}): hidden ones",
                    root=self.root,
                    why=error.strerror,
                )
                self._unnamed_drafts = False
            else:
                return

    def _try(self, file: DraftFile, name: str) -> None:
        try:
            fd = file.open()
            try:
                file.link(fd, name, self._drafts_fd)
                self._calls.unlink(name, dir_fd=self._drafts_fd)
            finally:
                self._calls.close(fd)
        finally:
            file.remove()


class DirectoryMedia:
    """`boundaries.Media` over a descriptor."""

    _log = Logger()

    def __init__(
        self, calls: SystemCalls, readers: DiskThreads, fd: int, status: os.stat_result
    ) -> None:
        self._calls = calls
        self._fd = fd
        self._lane = Lane(readers)
        self.size = status.st_size
        self.modified_ns = status.st_mtime_ns
        self.etag = etag_of(status)

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        return self._lane.run(self._calls.pread, self._fd, size, offset)

    def close(self) -> None:
        self._lane.run(self._calls.close, self._fd).addErrback(self._could_not_close)

    def _could_not_close(self, failure: Failure) -> None:
        self._log.failure("a file that was read could not be closed", failure)

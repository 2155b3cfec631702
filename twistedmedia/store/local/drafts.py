"""The files of drafts: those that no media name leads to.

A draft of the directory store: a file on its way in, written and hashed in threads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable
from secrets import token_hex
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.errors import AlreadyExists, MediaError
from twistedmedia.logs.incidents import on_one_line
from twistedmedia.names import MediaName
from twistedmedia.store.interface import Condition, Sealed, StoredFile
from twistedmedia.store.local.disk_threads import DiskThreads, SerialQueue, in_steps
from twistedmedia.store.local.files import record_digest
from twistedmedia.store.local.folders import Folders
from twistedmedia.store.local.root import Root
from twistedmedia.store.local.space import Reservation, Space
from twistedmedia.store.local.syscalls import SystemCalls
from twistedmedia.store.validators import UniqueTimestamps, etag_of


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


T = TypeVar("T")

_BATCH_BYTES = 1 << 20  # written in one call: large enough that the call's cost does not show
_BATCH_CHUNKS = 512  # half of IOV_MAX
_WRITEBACK_BYTES = 16 << 20  # so that the last sync has little left to write


class DirectoryDraft:
    """`interface.Draft` over a `DraftFile`. Made by `DirectoryStore.begin`.

    The file is opened by the first job. All jobs run in one lane: the file is closed behind the
    job that is writing it, never beside it.
    """

    _log = Logger()

    def __init__(
        self,
        calls: SystemCalls,
        writers: DiskThreads,
        root: Root,
        folders: Folders,
        space: Space,
        timestamps: UniqueTimestamps,
        file: DraftFile,
        declared: int | None,
        durable: bool,
        caller: str,
    ) -> None:
        self._calls = calls
        self._root = root
        self._folders = folders
        self._space = space
        self._timestamps = timestamps
        self._file = file
        self._durable = durable
        self._lane = SerialQueue(writers, caller)
        self._fd: int | None = None
        self._begun = False  # a job was given to a thread
        self._sealed = False
        self._closed = False
        self._lost: Exception | None = None  # a sync failed with it: bytes of the file may be lost
        self._size = 0
        self._written_back = 0
        self._hash = hashlib.sha256()
        self._hashed = 0  # bytes; fewer than `_size` when some were written for an earlier request
        self._declared = declared or 0
        self._caller = caller
        self._reservation: Reservation | None = None  # before the first job

    def prepare(self, name: MediaName, replacing: Condition | None = None) -> Deferred[None]:
        return self._in_lane(self._prepare, name, replacing)

    def append(self, chunks: Iterable[bytes]) -> Deferred[None]:
        return self._in_lane(self._append, chunks)

    def seal(self) -> Deferred[Sealed]:
        return self._in_lane(self._seal, syncing=self._durable)

    def publish(self, name: MediaName, replacing: Condition | None = None) -> Deferred[StoredFile]:
        publishing = self._publish(name, replacing)
        return self._in_lane(in_steps, publishing, syncing=self._durable)

    def discard(self) -> None:
        if not self._begun:
            self._close()  # nothing is open
        elif not self._closed:
            self._in_lane(self._close).addErrback(self._could_not_close)

    def _in_lane(self, job: Callable[..., T], *args: object, syncing: bool = False) -> Deferred[T]:
        self._begun = True
        return self._lane.run(job, *args, syncing=syncing)

    def _prepare(self, name: MediaName, replacing: Condition | None) -> None:
        with self._root.writing():
            self._reserve()
            if replacing is not None:
                self._folders.check(name, replacing)
            elif self._folders.has_file(name):
                raise AlreadyExists

    def _append(self, chunks: Iterable[bytes]) -> None:
        fd = self._opened()
        batch: list[bytes] = []
        size = 0
        for chunk in chunks:
            batch.append(chunk)
            size += len(chunk)
            if size >= _BATCH_BYTES or len(batch) == _BATCH_CHUNKS:
                self._write(fd, batch, size)
                batch, size = [], 0
        if batch:
            self._write(fd, batch, size)

    def _write(self, fd: int, batch: list[bytes], size: int) -> None:
        with self._root.writing(self._size):
            written = self._calls.writev(fd, batch)
            if written < size:  # a full disk takes a part first, and says so at the next call
                rest = memoryview(b"".join(batch))[written:]
                while rest:
                    rest = rest[self._calls.writev(fd, [rest]) :]
        if self._hashed == self._size:
            for chunk in batch:
                self._hash.update(chunk)
            self._hashed += size
        self._size += size
        if self._reservation is not None:
            self._reservation.wrote(size)
        if self._durable and self._size - self._written_back >= _WRITEBACK_BYTES:
            self._start_writeback(fd)

    def _start_writeback(self, fd: int) -> None:
        self._calls.start_writeback(fd, self._written_back, self._size - self._written_back)
        self._written_back = self._size

    def _seal(self) -> Sealed:
        fd = self._opened()
        if self._hashed != self._size:
            raise RuntimeError("what earlier requests have written is to be reviewed first")
        sha256 = self._hash.hexdigest()
        if not self._sealed:
            with self._root.writing(self._size):
                self._calls.set_modified(fd, self._timestamps.now_ns())
                # Before the sync, so that it is on stable storage with the content.
                record_digest(self._calls, fd, self._calls.fstat(fd), sha256)
                self._sync_file(fd)
        self._sealed = True
        return Sealed(self._size, sha256)

    def _sync_file(self, fd: int) -> None:
        """Bring the content to stable storage, or find out that this failed. The kernel reports
        lost bytes once: a second sync would succeed, and change nothing. So the draft takes nothing
        more after a failure.
        """
        try:
            with self._root.writing(self._size):
                if self._durable:
                    self._calls.fsync(fd)
                else:  # a network file system reports what it could not write when it is closed
                    self._calls.close(self._calls.dup(fd))
        except Exception as failure:
            self._lost = failure
            raise
        if self._durable:
            self._root.note_success("written")

    def _publish(
        self, name: MediaName, replacing: Condition | None
    ) -> Generator[None, None, StoredFile]:
        sealed = self._seal()
        fd = self._opened()

        def link(filename: str, folder: int) -> None:
            self._file.link(fd, filename, folder)

        with self._root.writing():
            status = self._calls.fstat(fd)
            if replacing is not None:
                self._folders.replace(name, link, replacing)
        if replacing is None:
            placing = self._folders.place(name, link, (status.st_dev, status.st_ino))
            yield from self._root.writing_in(placing)
        self._root.note_success("written")
        etag = etag_of(status.st_size, status.st_mtime_ns)
        stored = StoredFile(name, sealed.size, sealed.sha256, etag)
        try:
            self._close(published=True)
        except (OSError, MediaError):  # the file is published all the same
            self._could_not_close(Failure())
        return stored

    def _opened(self) -> int:
        if self._closed:
            raise RuntimeError("this draft was discarded")
        if self._lost is not None:
            raise self._lost
        if self._fd is None:
            with self._root.writing():
                self._root.check_lately("written")
                self._reserve()
                self._fd = self._file.open()
        return self._fd

    def _close(self, *, published: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        if self._reservation is not None:
            self._reservation.release()
        try:
            self._file.remove(published)
        finally:
            if self._fd is not None:
                self._calls.close(self._fd)

    def _could_not_close(self, failure: Failure) -> None:
        self._log.error("a draft could not be let go of: {why}", why=on_one_line(failure))

    def _reserve(self) -> None:
        if self._reservation is None:
            self._reservation = self._space.reserve(self._declared, self._caller)

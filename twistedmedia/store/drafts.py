"""A draft of the directory store: a nameless file, written and hashed in the writers' threads."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from secrets import token_hex
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.boundaries import Condition, Sealed, Stored
from twistedmedia.errors import (
    RETRY_AFTER_S,
    AlreadyExists,
    Busy,
    NameConflict,
    NameNotAllowed,
    NoSpace,
    TooLarge,
)
from twistedmedia.names import MediaName
from twistedmedia.store.calls import SystemCalls
from twistedmedia.store.folders import Folders
from twistedmedia.store.threads import DiskThreads, Lane
from twistedmedia.store.validators import Instants, etag_of, record_digest

T = TypeVar("T")

_BATCH_BYTES = 1 << 20  # written in one call: large enough that the call's cost does not show
_BATCH_CHUNKS = 512  # half of IOV_MAX
_WRITEBACK_BYTES = 16 << 20  # so that the last sync has little left to write


@contextlib.contextmanager
def translated(size: int = 0) -> Iterator[None]:
    """The one table from a failed system call of an upload to one of our errors; what is not in it
    is a fault and stays what it is. `size` is how many bytes the storage took.
    """
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                raise NoSpace from error
            case errno.EMFILE | errno.ENFILE:
                raise Busy(RETRY_AFTER_S) from error
            case errno.EFBIG:
                raise TooLarge(size, "the file, for this storage,") from error
            case errno.EEXIST:
                raise AlreadyExists from error
            case errno.ENAMETOOLONG:
                raise NameNotAllowed("a part of it is too long for the storage") from error
            case errno.ENOTDIR | errno.ELOOP:
                raise NameConflict("a part of the directory is not a directory") from error
        raise


class Space:
    """A file system's free bytes, less what running uploads have declared and not yet written."""

    def __init__(self, calls: SystemCalls, fd: int) -> None:
        self._calls = calls
        self._fd = fd
        self._lock = threading.Lock()
        self._reserved = 0

    def reserve(self, size: int) -> None:
        """Set `size` bytes aside, 0 when it is not known how many will come.

        :raises NoSpace: when they do not fit beside what others have reserved; then nothing is.
        """
        available = self._available()
        with self._lock:
            if available is not None and self._reserved + size > available:
                raise NoSpace
            self._reserved += size

    def free(self) -> int | None:
        """Bytes that nobody has reserved, None where the file system does not know."""
        available = self._available()
        return None if available is None else max(0, available - self._reserved)

    def _available(self) -> int | None:
        status = self._calls.statvfs(self._fd)
        if status.f_blocks == 0:  # some network and FUSE file systems do not know
            return None
        return status.f_bavail * status.f_frsize

    def give_back(self, size: int) -> None:
        """`size` bytes of what was reserved are written, or will not come."""
        with self._lock:
            self._reserved -= size


class DraftFile(Protocol):
    """A file that no media name leads to."""

    def open(self) -> int:
        """A descriptor for writing."""

    def link(self, fd: int, name: str, dir_fd: int) -> None:
        """Give it a name; FileExistsError when that is taken."""

    def remove(self) -> None:
        """It is published or discarded: nothing of it may stay."""


class UnnamedFile:
    """O_TMPFILE: the kernel drops it when it is closed without a name, after a crash too."""

    def __init__(self, calls: SystemCalls, root_fd: int) -> None:
        self._calls = calls
        self._root_fd = root_fd

    def open(self) -> int:
        return self._calls.open(".", os.O_TMPFILE | os.O_WRONLY, 0o666, dir_fd=self._root_fd)

    def link(self, fd: int, name: str, dir_fd: int) -> None:
        self._calls.link_descriptor(fd, name, dir_fd=dir_fd)

    def remove(self) -> None:
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

    def remove(self) -> None:
        if self._exists:
            self._calls.unlink(self._name, dir_fd=self._drafts_fd)
            self._exists = False


class DirectoryDraft:
    """`boundaries.Draft` over a `DraftFile`. Made by `DirectoryStore.begin`.

    The file is opened by the first job. All jobs run in one lane: the file is closed behind the
    job that is writing it, never beside it.
    """

    _log = Logger()

    def __init__(
        self,
        calls: SystemCalls,
        writers: DiskThreads,
        folders: Folders,
        space: Space,
        instants: Instants,
        file: DraftFile,
        declared: int | None,
        durable: bool,
    ) -> None:
        self._calls = calls
        self._folders = folders
        self._space = space
        self._instants = instants
        self._file = file
        self._durable = durable
        self._lane = Lane(writers)
        self._fd: int | None = None
        self._begun = False  # a job was given to a thread
        self._sealed = False
        self._closed = False
        self._size = 0
        self._written_back = 0
        self._hash = hashlib.sha256()
        self._declared = declared or 0
        self._reserved: int | None = (
            None  # bytes that are not written yet; None before the first job
        )

    def prepare(self, name: MediaName, replacing: Condition | None = None) -> Deferred[None]:
        return self._in_lane(self._prepare, name, replacing)

    def append(self, chunks: Iterable[bytes]) -> Deferred[None]:
        return self._in_lane(self._append, chunks)

    def seal(self) -> Deferred[Sealed]:
        return self._in_lane(self._seal, syncing=self._durable)

    def publish(self, name: MediaName, replacing: Condition | None = None) -> Deferred[Stored]:
        return self._in_lane(self._publish, name, replacing, syncing=self._durable)

    def discard(self) -> None:
        if not self._begun:
            self._close()  # nothing is open
        elif not self._closed:
            self._in_lane(self._close).addErrback(self._could_not_close)

    def _in_lane(self, job: Callable[..., T], *args: object, syncing: bool = False) -> Deferred[T]:
        self._begun = True
        return self._lane.run(job, *args, syncing=syncing)

    def _prepare(self, name: MediaName, replacing: Condition | None) -> None:
        with translated():
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
        with translated(self._size):
            written = self._calls.writev(fd, batch)
            if written < size:  # a full disk takes a part first, and says so at the next call
                rest = memoryview(b"".join(batch))[written:]
                while rest:
                    rest = rest[self._calls.writev(fd, [rest]) :]
        for chunk in batch:
            self._hash.update(chunk)
        self._size += size
        self._give_back(size)
        if self._durable and self._size - self._written_back >= _WRITEBACK_BYTES:
            self._calls.start_writeback(fd, self._written_back, self._size - self._written_back)
            self._written_back = self._size

    def _seal(self) -> Sealed:
        fd = self._opened()
        sha256 = self._hash.hexdigest()
        if not self._sealed:
            with translated(self._size):
                self._calls.set_modified(fd, self._instants.now_ns())
                # Before the sync, so that it is on stable storage with the content.
                record_digest(self._calls, fd, self._calls.fstat(fd), sha256)
                if self._durable:
                    self._calls.fsync(fd)
                else:  # a network file system reports what it could not write when it is closed
                    self._calls.close(self._calls.dup(fd))
        self._sealed = True
        return Sealed(self._size, sha256)

    def _publish(self, name: MediaName, replacing: Condition | None) -> Stored:
        sealed = self._seal()
        fd = self._opened()
        status = self._calls.fstat(fd)

        def link(filename: str, folder: int) -> None:
            self._file.link(fd, filename, folder)

        with translated():
            if replacing is None:
                self._folders.place(name, link, (status.st_dev, status.st_ino))
            else:
                self._folders.replace(name, link, replacing)
        etag = etag_of(status.st_size, status.st_mtime_ns)
        stored = Stored(name, sealed.size, sealed.sha256, etag)
        try:
            self._close()
        except OSError:  # the file is published all the same
            self._could_not_close(Failure())
        return stored

    def _opened(self) -> int:
        if self._closed:
            raise RuntimeError("this draft was discarded")
        if self._fd is None:
            with translated():
                self._reserve()
                self._fd = self._file.open()
        return self._fd

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._give_back(self._reserved or 0)
        try:
            self._file.remove()
        finally:
            if self._fd is not None:
                self._calls.close(self._fd)

    def _could_not_close(self, failure: Failure) -> None:
        self._log.failure("a draft could not be let go of", failure)

    def _reserve(self) -> None:
        if self._reserved is None:
            self._space.reserve(self._declared)
            self._reserved = self._declared

    def _give_back(self, size: int) -> None:
        size = min(size, self._reserved or 0)
        if self._reserved is not None and size:
            self._reserved -= size
            self._space.give_back(size)

"""Drafts of the directory store: files without a media name, written and hashed in threads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from enum import Enum
from secrets import token_hex
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.errors import AlreadyExists, MediaError
from twistedmedia.logs.incidents import on_one_line
from twistedmedia.names import MediaName
from twistedmedia.store.interface import Sealed, StoredFile
from twistedmedia.store.local.disk_threads import DiskThreads, SerialQueue, in_steps
from twistedmedia.store.local.files import record_digest
from twistedmedia.store.local.published_files import PublishedFiles
from twistedmedia.store.local.root import Root
from twistedmedia.store.local.space import Reservation, Space
from twistedmedia.store.local.syscalls import SystemCalls
from twistedmedia.store.preconditions import Precondition
from twistedmedia.store.validators import UniqueTimestamps, etag_of

T = TypeVar("T")

_log = Logger()

_BATCH_BYTES = 1 << 20  # written in one call: large enough that the call's cost does not show
_BATCH_CHUNKS = 512  # half of IOV_MAX
_WRITEBACK_BYTES = 16 << 20  # so that the last sync has little left to write


@dataclass(frozen=True, slots=True)
class StoreContext:
    """What all drafts of a store share. In a `durable` store, successes wait for fsync."""

    calls: SystemCalls
    writers: DiskThreads
    root: Root
    published: PublishedFiles
    space: Space
    timestamps: UniqueTimestamps
    durable: bool


class DraftFile(Protocol):
    """The file of a draft. No media name leads to it."""

    def open(self) -> int:
        """A descriptor for writing."""

    def link(self, fd: int, name: str, dir_fd: int) -> None:
        """Give the file a name in an open folder.

        :raises FileExistsError: if the name is taken.
        """

    def remove(self, published: bool) -> None:
        """Remove what is no longer needed, after the draft was published or discarded."""

    def distrust(self) -> None:
        """A sync has failed: bytes that were not synced before may be lost."""


class UnnamedFile:
    """A file made with O_TMPFILE. If it never gets a name, the kernel drops it when it is closed,
    and after a crash.
    """

    def __init__(self, calls: SystemCalls, root_fd: int) -> None:
        self._calls = calls
        self._root_fd = root_fd

    def open(self) -> int:
        return self._calls.open(".", os.O_TMPFILE | os.O_WRONLY, 0o666, dir_fd=self._root_fd)

    def link(self, fd: int, name: str, dir_fd: int) -> None:
        self._calls.link_descriptor(fd, name, dir_fd=dir_fd)

    def remove(self, published: bool) -> None:
        pass

    def distrust(self) -> None:
        pass


class HiddenFile:
    """A file with a random name in a hidden folder, for file systems without O_TMPFILE. It is
    locked while in use, so that the sweep at the next start knows which files a crash has left.
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

    def distrust(self) -> None:
        pass


class _State(Enum):
    OPEN = "open"
    SEALED = "sealed"
    CLOSED = "closed"


class DraftContent:
    """The content of a draft: written to its file, hashed, published. Everything here blocks and
    runs in threads, one call at a time. The first call that needs the file opens it.
    """

    def __init__(
        self, store: StoreContext, file: DraftFile, declared: int | None, caller: str
    ) -> None:
        self.size = 0
        self.hash = hashlib.sha256()
        self.hashed_size = 0  # less than `size` if earlier requests wrote bytes that are not hashed
        self.fd: int | None = None
        self._store = store
        self._file = file
        self._declared = declared or 0
        self._caller = caller
        self._state = _State.OPEN
        self._sync_failure: Exception | None = None
        self._written_back = 0
        self._reservation: Reservation | None = None

    @property
    def is_closed(self) -> bool:
        return self._state is _State.CLOSED

    def prepare(self, name: MediaName, replacing: Precondition | None) -> None:
        """See `interface.Draft`, as for the next three."""
        with self._store.root.writing():
            self._reserve()
            if replacing is not None:
                self._store.published.check(name, replacing)
            elif self._store.published.has_file(name):
                raise AlreadyExists

    def append(self, chunks: Iterable[bytes]) -> None:
        fd = self.open()
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

    def seal(self) -> Sealed:
        fd = self.open()
        if self.hashed_size != self.size:
            raise RuntimeError("review what earlier requests have written before sealing")
        sha256 = self.hash.hexdigest()
        if self._state is _State.OPEN:
            calls = self._store.calls
            with self._store.root.writing(self.size):
                calls.set_modified(fd, self._store.timestamps.now_ns())
                # Before the sync, so that it is on stable storage with the content.
                record_digest(calls, fd, calls.fstat(fd), sha256)
                self.sync(fd)
            self._state = _State.SEALED
        return Sealed(self.size, sha256)

    def publish(
        self, name: MediaName, replacing: Precondition | None
    ) -> Generator[None, None, StoredFile]:
        sealed = self.seal()
        fd = self.open()
        root, published = self._store.root, self._store.published

        def link(filename: str, folder: int) -> None:
            self._file.link(fd, filename, folder)

        with root.writing():
            status = self._store.calls.fstat(fd)
            if replacing is not None:
                published.replace(name, link, replacing)
        if replacing is None:
            placing = published.place(name, link, (status.st_dev, status.st_ino))
            yield from root.writing_in(placing)
        root.note_success("written")
        etag = etag_of(status.st_size, status.st_mtime_ns)
        stored = StoredFile(name, sealed.size, sealed.sha256, etag)
        try:
            self.close(published=True)
        except (OSError, MediaError):  # the file is published all the same
            log_close_failure(Failure())
        return stored

    def sync(self, fd: int) -> None:
        """Bring the content to stable storage. The kernel reports lost bytes only once: a second
        sync would succeed without writing them. So after a failure the draft cannot be used any
        more.
        """
        try:
            with self._store.root.writing(self.size):
                if self._store.durable:
                    self._store.calls.fsync(fd)
                else:  # a network file system reports what it could not write at a close
                    self._store.calls.close(self._store.calls.dup(fd))
        except Exception as failure:
            self._sync_failure = failure
            self._file.distrust()
            raise
        if self._store.durable:
            self._store.root.note_success("written")

    def open(self) -> int:
        """The descriptor of the file, which is opened if it is not open yet."""
        if self.is_closed:
            raise RuntimeError("this draft was discarded")
        if self._sync_failure is not None:
            raise self._sync_failure
        if self.fd is None:
            with self._store.root.writing():
                self._store.root.check_lately("written")
                self._reserve()
                self.fd = self._file.open()
        return self.fd

    def continue_at(self, size: int) -> None:
        """The file has `size` bytes, which earlier requests have written."""
        self.size = self._written_back = size

    def start_writeback(self, fd: int) -> None:
        """Ask the kernel to begin writing out what was not written out yet."""
        start, self._written_back = self._written_back, self.size
        self._store.calls.start_writeback(fd, start, self.size - start)

    def close(self, *, published: bool = False) -> None:
        """Close the file. Idempotent."""
        if self.is_closed:
            return
        self._state = _State.CLOSED
        if self._reservation is not None:
            self._reservation.release()
        try:
            self._file.remove(published)
        finally:
            if self.fd is not None:
                self._store.calls.close(self.fd)

    def _write(self, fd: int, batch: list[bytes], size: int) -> None:
        writev = self._store.calls.writev
        with self._store.root.writing(self.size):
            written = writev(fd, batch)
            if written < size:  # a full disk accepts a part first, and fails at the next call
                rest = memoryview(b"".join(batch))[written:]
                while rest:
                    rest = rest[writev(fd, [rest]) :]
        if self.hashed_size == self.size:
            for chunk in batch:
                self.hash.update(chunk)
            self.hashed_size += size
        self.size += size
        if self._reservation is not None:
            self._reservation.wrote(size)
        if self._store.durable and self.size - self._written_back >= _WRITEBACK_BYTES:
            self.start_writeback(fd)

    def _reserve(self) -> None:
        if self._reservation is None:
            self._reservation = self._store.space.reserve(self._declared, self._caller)


class DirectoryDraft:
    """`interface.Draft` over a `DraftContent`. Its jobs run one after the other: the file is closed
    after the job that writes to it, never during it.
    """

    def __init__(
        self, store: StoreContext, file: DraftFile, declared: int | None, caller: str
    ) -> None:
        self.content = DraftContent(store, file, declared, caller)
        self._durable = store.durable
        self._queue = SerialQueue(store.writers, caller)
        self._has_begun = False  # a job was given to a thread

    def prepare(self, name: MediaName, replacing: Precondition | None = None) -> Deferred[None]:
        return self.run(self.content.prepare, name, replacing)

    def append(self, chunks: Iterable[bytes]) -> Deferred[None]:
        return self.run(self.content.append, chunks)

    def seal(self) -> Deferred[Sealed]:
        return self.run(self.content.seal, syncing=self._durable)

    def publish(
        self, name: MediaName, replacing: Precondition | None = None
    ) -> Deferred[StoredFile]:
        publishing = self.content.publish(name, replacing)
        return self.run(in_steps, publishing, syncing=self._durable)

    def discard(self) -> None:
        if not self._has_begun:
            self.content.close()  # nothing is open
        elif not self.content.is_closed:
            self.run(self.content.close).addErrback(log_close_failure)

    def run(self, job: Callable[..., T], *args: object, syncing: bool = False) -> Deferred[T]:
        """Do a job in a thread, after the jobs before it."""
        self._has_begun = True
        return self._queue.run(job, *args, syncing=syncing)


def log_close_failure(failure: Failure) -> None:
    """Log why a draft could not be closed."""
    _log.error("a draft could not be closed: {why}", why=on_one_line(failure))

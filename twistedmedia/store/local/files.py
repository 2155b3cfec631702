"""Files that are open for reading: found, read, hashed, and sent by the kernel."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import struct
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.errors import RETRY_AFTER_S, IsDirectory, NotFound, Stopping
from twistedmedia.logs.incidents import on_one_line
from twistedmedia.names import MediaName
from twistedmedia.store.interface import Media
from twistedmedia.store.local.disk_threads import DiskThreads, SerialQueue
from twistedmedia.store.local.folders import Folders
from twistedmedia.store.local.root import Root
from twistedmedia.store.local.syscalls import SystemCalls
from twistedmedia.store.memory import MemoryMedia
from twistedmedia.store.validators import etag_of

# Files up to this size are read when they are opened: one job in a thread instead of three.
_SMALL_BYTES = 64 << 10
# O_NONBLOCK: a FIFO in the root must not block a thread.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NOT_FOUND = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG}
# For so long, fetched bytes count as cached. After it they may be evicted, if the reader is slow.
_FETCHED_S = 1.0
_HASH_BYTES = 4 << 20  # at a time, so that other readers get their turn
_DIGEST_ATTRIBUTE = "user.twistedmedia.sha256"
# Digest, size in bytes, mtime in nanoseconds. In binary, and with this name, it fits into an inode
# of ext4 (256 bytes), where it needs no block of its own.
_DIGEST_RECORD = struct.Struct(">32sQq")


class MediaFiles:
    """Opens the files below a root."""

    def __init__(
        self, calls: SystemCalls, readers: DiskThreads, folders: Folders, root: Root
    ) -> None:
        self._calls = calls
        self._readers = readers
        self._folders = folders
        self._root = root

    def open(self, name: MediaName, caller: str) -> Deferred[Media]:
        """See `interface.Store.open`."""

        def close(outcome: Media | Failure) -> None:
            if not isinstance(outcome, Failure):
                outcome.close()

        at_hand = self._open_cached(name, caller)
        if at_hand is not None:
            return succeed(at_hand)
        return self._readers.run(self._open, name, caller, caller=caller, unclaimed=close)

    def open_file(self, name: MediaName, caller: str) -> DirectoryMedia:
        """Open a file of any size. Blocks.

        :raises NotFound: or `IsDirectory`, or `StorageFailed` if the storage cannot be read.
        """
        with self._root.reading():
            return self._open_file(name, caller)

    def _open_file(self, name: MediaName, caller: str) -> DirectoryMedia:
        try:
            with self._folders.walk(name.folders) as folder:
                fd = self._calls.open(name.filename, _READ, dir_fd=folder)
        except OSError as error:
            if error.errno in _NOT_FOUND:
                raise NotFound from None
            raise
        try:
            status = self._calls.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                raise IsDirectory
            if not stat.S_ISREG(status.st_mode):
                raise NotFound
            return DirectoryMedia(self._calls, self._readers, self._root, fd, status, caller)
        except BaseException:
            self._calls.close(fd)
            raise

    def _open(self, name: MediaName, caller: str) -> Media:
        media = self.open_file(name, caller)
        if media.size > _SMALL_BYTES:
            return media
        with self._root.reading(media.identity):
            try:
                content = self._calls.pread(media.fd, media.size, 0)
            finally:
                self._calls.close(media.fd)
        self._root.note_success("read")
        return MemoryMedia(content, media.modified_ns, media.sha256)

    def _open_cached(self, name: MediaName, caller: str) -> Media | None:
        """Open a file without blocking, if its path lookup is cached. A small file is also read, if
        it is in the page cache. Returns None if this is not possible: the caller then uses a
        thread.
        """
        with contextlib.suppress(OSError):
            fd = self._calls.open_cached(str(name), _READ, dir_fd=self._root.fd)
            keep = False
            try:
                status = self._calls.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    return None
                if status.st_size > _SMALL_BYTES:
                    keep = True
                    return DirectoryMedia(
                        self._calls, self._readers, self._root, fd, status, caller
                    )
                content = self._calls.read_cached(fd, status.st_size)
                if len(content) == status.st_size:
                    self._root.note_success("read")
                    sha256 = recorded_digest(self._calls, fd, status)
                    return MemoryMedia(content, status.st_mtime_ns, sha256)
            finally:
                if not keep:
                    self._calls.close(fd)
        return None


class DirectoryMedia:
    """`interface.KernelMedia` over a descriptor."""

    _log = Logger()

    def __init__(
        self,
        calls: SystemCalls,
        readers: DiskThreads,
        root: Root,
        fd: int,
        status: os.stat_result,
        caller: str,
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes over `fd`. Its jobs count as those of `caller`."""
        self.fd = fd
        self.identity = status.st_dev, status.st_ino
        self.size = status.st_size
        self.modified_ns = status.st_mtime_ns
        self.etag = etag_of(status.st_size, status.st_mtime_ns)
        self.sha256 = recorded_digest(calls, fd, status)
        self._calls = calls
        self._root = root
        self._readers = readers
        self._now_s = now_s
        self._queue = SerialQueue(readers, caller)
        self._fetched = range(0)
        self._fetched_until_s = 0.0

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        return self._queue.run(self._read, offset, size)

    def digest(self) -> Deferred[str]:
        return succeed(self.sha256) if self.sha256 else ensureDeferred(self._compute_digest())

    def send_at_hand(self, socket: int, offset: int, size: int) -> int | None:
        size = min(size, self.size - offset)
        # Bytes that were fetched a moment ago count as cached. Some file systems cannot tell. And
        # if memory is so short that they are evicted already, checking and fetching would never
        # end.
        if offset in self._fetched and self._now_s() < self._fetched_until_s:
            size = min(size, self._fetched.stop - offset)
        elif not self._calls.is_cached(self.fd, offset, size):
            return None
        sent = self._calls.sendfile(socket, self.fd, offset, size)
        self._root.note_success("read")
        return sent

    def fetch(self, offset: int, size: int) -> Deferred[None]:
        def fetched(_: None) -> None:
            self._fetched = range(offset, offset + size)
            self._fetched_until_s = self._now_s() + _FETCHED_S

        return self._queue.run(self._fetch, offset, size).addCallback(fetched)

    def close(self) -> None:
        self._queue.run(self._calls.close, self.fd).addErrback(self._could_not_close)

    def _read(self, offset: int, size: int) -> bytes:
        with self._root.reading(self.identity):
            data = self._calls.pread(self.fd, size, offset)
        self._root.note_success("read")
        return data

    def _fetch(self, offset: int, size: int) -> None:
        self._read(offset, size)
        with contextlib.suppress(OSError):  # a hint
            self._calls.read_ahead(self.fd, offset + size, size)

    async def _compute_digest(self) -> str:
        digest: Any = hashlib.sha256()
        offset = 0
        while size := await self._queue.run(self._hash, digest, offset):
            offset += size
            if self._readers.hurries:
                raise Stopping(RETRY_AFTER_S)
        await self._queue.run(self._record, digest.hexdigest())
        return str(digest.hexdigest())

    def _hash(self, digest: Any, offset: int) -> int:
        data = self._read(offset, _HASH_BYTES)
        digest.update(data)
        return len(data)

    def _record(self, sha256: str) -> None:
        with self._root.reading():
            status = self._calls.fstat(self.fd)
        if etag_of(status.st_size, status.st_mtime_ns) == self.etag:  # else the file was written to
            self.sha256 = sha256
            record_digest(self._calls, self.fd, status, sha256)

    def _could_not_close(self, failure: Failure) -> None:
        self._log.error("a file could not be closed after reading: {why}", why=on_one_line(failure))


def record_digest(calls: SystemCalls, fd: int, status: os.stat_result, sha256: str) -> None:
    """Record the SHA-256, in hex, of the content that the file has with this `status`.

    A failure is ignored: a digest that is not recorded is computed when it is needed.
    """
    # The file system has no extended attributes, or they are not writable; or a time after 2262.
    with contextlib.suppress(OSError, struct.error):
        record = _DIGEST_RECORD.pack(bytes.fromhex(sha256), status.st_size, status.st_mtime_ns)
        calls.set_attribute(fd, _DIGEST_ATTRIBUTE, record)


def recorded_digest(calls: SystemCalls, fd: int, status: os.stat_result) -> str | None:
    """The recorded SHA-256, in hex. None if there is none for the current content."""
    try:
        record = calls.get_attribute(fd, _DIGEST_ATTRIBUTE)
    except OSError:
        return None
    if len(record) != _DIGEST_RECORD.size:
        return None
    digest, size, modified_ns = _DIGEST_RECORD.unpack(record)
    if (size, modified_ns) != (status.st_size, status.st_mtime_ns):
        return None  # the file was written to
    return bytes(digest).hex()

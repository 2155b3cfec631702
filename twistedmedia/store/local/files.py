"""Files that were opened for reading: how they are found, read, hashed and handed to the kernel."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import struct
import time
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

# A file of this size is read when it is opened: one way through the threads instead of three.
_SMALL_BYTES = 64 << 10
# O_NONBLOCK: a FIFO that somebody has put there must not hold a thread.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG}
# A slow reader comes back for the rest when it may be long gone.
_FETCHED_S = 1.0
_HASH_BYTES = 4 << 20  # at a time, so that other readers get their turn
_ATTRIBUTE = "user.twistedmedia.sha256"
# Digest, size in bytes, mtime in nanoseconds. Binary: with this name it fits into the inode that
# ext4 makes (256 bytes), where it costs no block of its own.
_RECORD = struct.Struct(">32sQq")


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
        """The file itself, also where it is small. Blocks.

        :raises NotFound: and `IsDirectory`.
        :raises StorageFailed: if the storage cannot be read.
        """
        with self._root.reading():
            return self._open_file(name, caller)

    def _open_file(self, name: MediaName, caller: str) -> DirectoryMedia:
        try:
            with self._folders.walk(name.folders) as folder:
                fd = self._calls.open(name.filename, _READ, dir_fd=folder)
        except OSError as error:
            if error.errno in _NOT_THERE:
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
        """A file that the kernel knows the way to by heart, and, of a small one, the bytes: that is
        had sooner than a thread, and without waiting for anything. None is no verdict: then a
        thread looks.
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
    ) -> None:
        """`fd` is the media's from now on. It is read in turns of `caller`."""
        self.fd = fd
        self.identity = status.st_dev, status.st_ino
        self.size = status.st_size
        self.modified_ns = status.st_mtime_ns
        self.etag = etag_of(status.st_size, status.st_mtime_ns)
        self.sha256 = recorded_digest(calls, fd, status)
        self._calls = calls
        self._root = root
        self._readers = readers
        self._lane = SerialQueue(readers, caller)
        self._fetched = range(0)
        self._fetched_until_s = 0.0

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        return self._lane.run(self._read, offset, size)

    def digest(self) -> Deferred[str]:
        return succeed(self.sha256) if self.sha256 else ensureDeferred(self._computed())

    def send_at_hand(self, socket: int, offset: int, size: int) -> int | None:
        size = min(size, self.size - offset)
        # What was fetched a moment ago is not looked for again: some file systems cannot tell, and
        # where memory is short enough that it is gone by now, looking would go on for ever.
        if offset in self._fetched and time.monotonic() < self._fetched_until_s:
            size = min(size, self._fetched.stop - offset)
        elif not self._calls.is_cached(self.fd, offset, size):
            return None
        sent = self._calls.sendfile(socket, self.fd, offset, size)
        self._root.note_success("read")
        return sent

    def fetch(self, offset: int, size: int) -> Deferred[None]:
        def fetched(_: None) -> None:
            self._fetched = range(offset, offset + size)
            self._fetched_until_s = time.monotonic() + _FETCHED_S

        return self._lane.run(self._fetch, offset, size).addCallback(fetched)

    def close(self) -> None:
        self._lane.run(self._calls.close, self.fd).addErrback(self._could_not_close)

    def _read(self, offset: int, size: int) -> bytes:
        with self._root.reading(self.identity):
            data = self._calls.pread(self.fd, size, offset)
        self._root.note_success("read")
        return data

    def _fetch(self, offset: int, size: int) -> None:
        self._read(offset, size)
        with contextlib.suppress(OSError):  # a hint
            self._calls.read_ahead(self.fd, offset + size, size)

    async def _computed(self) -> str:
        digest: Any = hashlib.sha256()
        offset = 0
        while size := await self._lane.run(self._hash, digest, offset):
            offset += size
            if self._readers.hurries:
                raise Stopping(RETRY_AFTER_S)
        await self._lane.run(self._record, digest.hexdigest())
        return str(digest.hexdigest())

    def _hash(self, digest: Any, offset: int) -> int:
        piece = self._read(offset, _HASH_BYTES)
        digest.update(piece)
        return len(piece)

    def _record(self, sha256: str) -> None:
        with self._root.reading():
            status = self._calls.fstat(self.fd)
        if etag_of(status.st_size, status.st_mtime_ns) == self.etag:  # else it is of no content
            self.sha256 = sha256
            record_digest(self._calls, self.fd, status, sha256)

    def _could_not_close(self, failure: Failure) -> None:
        self._log.error("a file that was read could not be closed: {why}", why=on_one_line(failure))


def record_digest(calls: SystemCalls, fd: int, status: os.stat_result, sha256: str) -> None:
    """Note the file's SHA-256, in hex, for the content that it has with this `status`.

    Where that is not possible it is left: what is not recorded is computed when it is asked for.
    """
    # No such attributes here, or not ours to write; or a time after 2262.
    with contextlib.suppress(OSError, struct.error):
        record = _RECORD.pack(bytes.fromhex(sha256), status.st_size, status.st_mtime_ns)
        calls.set_attribute(fd, _ATTRIBUTE, record)


def recorded_digest(calls: SystemCalls, fd: int, status: os.stat_result) -> str | None:
    """The SHA-256, in hex, that was noted for the content that the file still has."""
    try:
        record = calls.get_attribute(fd, _ATTRIBUTE)
    except OSError:
        return None
    if len(record) != _RECORD.size:
        return None
    digest, size, modified_ns = _RECORD.unpack(record)
    if (size, modified_ns) != (status.st_size, status.st_mtime_ns):
        return None  # somebody has written to the file
    return bytes(digest).hex()

"""All system calls of the directory store, and the table that translates their failures.

Tests put a layer of their own over `SystemCalls`, to record calls, make them fail, or delay them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence

from twistedmedia.errors import (
    RETRY_AFTER_S,
    AlreadyExists,
    Busy,
    MediaError,
    NameConflict,
    NameNotAllowed,
    NoSpace,
    StorageFailed,
    TooLarge,
)

_SYNC_FILE_RANGE_WRITE = 2  # start write-out, do not wait: sync_file_range(2)

# System call numbers, the same on every architecture.
_OPENAT2 = 437
_CACHESTAT = 451
# RESOLVE_ BENEATH, NO_SYMLINKS, NO_MAGICLINKS and CACHED
_CACHED_ONLY = 0x08 | 0x04 | 0x02 | 0x20

_NOW = os.RWF_NOWAIT
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SCRATCH = bytearray(64 << 10)  # for bytes that are not used

_libc = ctypes.CDLL(None, use_errno=True)
# In calls of some microseconds, most of the time would be spent on releasing the interpreter's lock
# and waiting for it.
_libc_with_lock = ctypes.PyDLL(None, use_errno=True)


@contextlib.contextmanager
def opened(
    calls: SystemCalls, name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
) -> Iterator[int]:
    """A file that is open while the context lasts."""
    fd = calls.open(name, flags, mode, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        calls.close(fd)


def write_whole(calls: SystemCalls, fd: int, content: bytes) -> None:
    """Write a small file in one call.

    :raises OSError: ENOSPC if the disk takes only a part.
    """
    if calls.writev(fd, [content]) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _pages(offset: int, size: int, page: int) -> int:
    """How many pages a span touches."""
    return (offset + size - 1) // page - offset // page + 1


def _is_loaded(fd: int, offset: int) -> bool:
    """Whether the byte at `offset` was read into its page, which is in memory."""
    try:
        return os.preadv(fd, [bytearray(1)], offset, _NOW) == 1
    except BlockingIOError:
        return False
    except OSError:  # the file system cannot tell
        return True


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


class _CachestatRange(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("size", ctypes.c_uint64))


class _Cachestat(ctypes.Structure):
    _fields_ = tuple(
        (pages, ctypes.c_uint64)
        for pages in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


class SystemCalls:
    """System calls, mostly as in `os`. Each raises OSError. `dir_fd` is always given. So, except in
    `open_cached`, the kernel never resolves a path of more than one name.
    """

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=dir_fd)

    def open_cached(self, path: str, flags: int, *, dir_fd: int) -> int:
        """Open a file some folders below `dir_fd`, if the path lookup is cached. Never waits for a
        disk, leaves `dir_fd`, or follows a link (openat2(2), since Linux 5.12).
        """
        how = _OpenHow(flags | os.O_CLOEXEC, 0, _CACHED_ONLY)
        fd: int = _libc_with_lock.syscall(
            _OPENAT2, dir_fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
        )
        if fd < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), path)
        return fd

    def read_cached(self, fd: int, size: int) -> bytes:
        """The first `size` bytes, fewer if only some are in memory.

        :raises BlockingIOError: if none is in memory.
        """
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: os.preadv(fd, [buffer], 0, _NOW)])

    def is_cached(self, fd: int, offset: int, size: int) -> bool:
        """Whether a span of a file is in memory, as far as this can be found without waiting."""
        span, found = _CachestatRange(offset, size), _Cachestat()
        failed: int = _libc_with_lock.syscall(
            _CACHESTAT, fd, ctypes.byref(span), ctypes.byref(found), 0
        )
        if failed:  # before Linux 6.5, or the file is another user's: try to read it
            try:
                return (
                    os.preadv(fd, [_SCRATCH] * _pages(0, size, len(_SCRATCH)), offset, _NOW) >= size
                )
            except OSError:  # none is in memory, or the file system cannot tell
                return False
        if found.cached < _pages(offset, size, _PAGE_BYTES):
            return False
        # This includes pages that are still being read from the disk, nearly in order. So check the
        # last byte and the first one.
        return _is_loaded(fd, offset + size - 1) and _is_loaded(fd, offset)

    def sendfile(self, socket: int, fd: int, offset: int, size: int) -> int:
        return os.sendfile(socket, fd, offset, size)

    def read_ahead(self, fd: int, offset: int, size: int) -> None:
        """Ask the kernel to begin reading a span into memory."""
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_WILLNEED)

    def set_modified(self, fd: int, modified_ns: int) -> None:
        os.utime(fd, ns=(modified_ns, modified_ns))

    def touch(self, fd: int) -> None:
        """Set the modification time to now."""
        os.utime(fd)

    def get_attribute(self, fd: int, name: str) -> bytes:
        return os.getxattr(fd, name)

    def set_attribute(self, fd: int, name: str, value: bytes) -> None:
        os.setxattr(fd, name, value)

    def close(self, fd: int) -> None:
        os.close(fd)

    def dup(self, fd: int) -> int:
        return os.dup(fd)

    def writev(self, fd: int, chunks: Sequence[bytes | memoryview]) -> int:
        return os.writev(fd, chunks)

    def append(self, name: str, data: bytes, *, dir_fd: int) -> None:
        """Append to a file of optional notes. Failures are ignored."""
        self._note(name, os.O_APPEND, data, dir_fd)

    def empty(self, name: str, *, dir_fd: int) -> None:
        """Make a file of such notes, or empty it. Failures are ignored."""
        self._note(name, os.O_TRUNC, b"", dir_fd)

    def _note(self, name: str, how: int, data: bytes, dir_fd: int) -> None:
        flags = how | os.O_CREAT | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
            try:
                if data:
                    os.write(fd, data)
            finally:
                os.close(fd)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def start_writeback(self, fd: int, offset: int, size: int) -> None:
        """Ask the kernel to begin writing out a span of the file. Failures are ignored."""
        if hasattr(_libc, "sync_file_range"):
            _libc.sync_file_range(
                fd, ctypes.c_int64(offset), ctypes.c_int64(size), _SYNC_FILE_RANGE_WRITE
            )

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def lstat(self, name: str, *, dir_fd: int) -> os.stat_result:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)

    def stat_root(self, path: str) -> os.stat_result:
        """The status of an absolute path, with links followed. Only for the root itself."""
        return os.stat(path)

    def may(self, fd: int, mode: int) -> bool:
        """Whether this process has the permissions `mode` (R_OK, W_OK, X_OK) on a folder."""
        return os.access(".", mode, dir_fd=fd, effective_ids=True)

    def statvfs(self, fd: int) -> os.statvfs_result:
        return os.fstatvfs(fd)

    def mkdir(self, name: str, mode: int = 0o777, *, dir_fd: int) -> None:
        os.mkdir(name, mode, dir_fd=dir_fd)

    def rmdir(self, name: str, *, dir_fd: int) -> None:
        os.rmdir(name, dir_fd=dir_fd)

    def link_descriptor(self, fd: int, name: str, *, dir_fd: int) -> None:
        """Name the open file `fd`. Without privileges this needs /proc: open(2), O_TMPFILE."""
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=dir_fd, follow_symlinks=True)

    def link(self, source: str, name: str, *, source_dir_fd: int, dir_fd: int) -> None:
        os.link(source, name, src_dir_fd=source_dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)

    def rename(self, source: str, name: str, *, source_dir_fd: int, dir_fd: int) -> None:
        os.rename(source, name, src_dir_fd=source_dir_fd, dst_dir_fd=dir_fd)

    def symlink(self, target: str, name: str, *, dir_fd: int) -> None:
        os.symlink(target, name, dir_fd=dir_fd)

    def boot_id(self) -> str:
        """The id of this boot of the machine."""
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()

    def readlink(self, name: str, *, dir_fd: int) -> str:
        return os.readlink(name, dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)

    def listdir(self, fd: int) -> list[str]:
        return os.listdir(fd)

    def scandir(self, fd: int) -> os._ScandirIterator[str]:
        """The entries of an open folder, with their types. The caller closes it."""
        return os.scandir(fd)

    def lock(self, fd: int) -> None:
        """Lock a file exclusively, without waiting (flock(2)). The lock ends with the descriptor,
        so a crash leaves none.

        :raises BlockingIOError: if it is locked.
        """
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


# The file system itself does not work. It is read-only, its device is gone or broken, its content
# is damaged, or the server of a network or FUSE file system does not respond.
BROKEN = frozenset(
    {
        errno.EROFS,
        errno.EIO,
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOMEDIUM,
        errno.ESTALE,
        errno.EUCLEAN,
        errno.EBADMSG,
        errno.EREMOTEIO,
        errno.ENOLINK,
        errno.ENOTCONN,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ESHUTDOWN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
    }
)
# These can concern one file: a damaged block, or a file that another client has removed.
OF_ONE_FILE = frozenset({errno.EIO, errno.ESTALE, errno.EUCLEAN, errno.EBADMSG})
# One file or folder is not accessible. Others may be.
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})


def failure_of(error: OSError, doing: str, size: int = 0) -> MediaError | None:
    """The error of this package for `error`. None if it is a defect of this package.

    `doing` is "read" or "written". `size` is how many bytes of the file the storage has accepted.
    """
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return NoSpace()
        case errno.EMFILE | errno.ENFILE:
            return Busy(RETRY_AFTER_S)
        case errno.EFBIG:
            return TooLarge(size, "the file, for this storage,")
        case errno.EEXIST:
            return AlreadyExists()
        case errno.ENAMETOOLONG:
            return NameNotAllowed("a part of it is too long for the storage")
        case errno.ENOTDIR | errno.ELOOP:
            return NameConflict("a part of the directory is not a directory")
        case errno.EROFS:
            return StorageFailed("written", reason_of(errno.EROFS))
        case number if number in BROKEN or number in _FORBIDDEN:
            return StorageFailed(doing, reason_of(number))
    return None


def reason_of(number: int) -> str:
    """The operating system's text for an errno, for use inside a sentence."""
    words = os.strerror(number)
    return words[:1].lower() + words[1:]

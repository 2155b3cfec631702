"""The system calls that the directory store makes, in one place.

Tests put a layer of their own here: one that records the order of the calls, one that makes the
Nth fail, one that makes them slow.

The one table from a failed system call of the storage to one of our errors.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Sequence

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

# Their numbers on every architecture.
_OPENAT2 = 437
_CACHESTAT = 451
# RESOLVE_ BENEATH, NO_SYMLINKS, NO_MAGICLINKS and CACHED
_AT_HAND = 0x08 | 0x04 | 0x02 | 0x20

_NOW = os.RWF_NOWAIT
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SCRATCH = bytearray(64 << 10)  # for bytes that nobody wants

_libc = ctypes.CDLL(None, use_errno=True)
# For a call of microseconds, giving up the interpreter's lock and waiting for it costs most.
_libc_with_lock = ctypes.PyDLL(None, use_errno=True)


def _pages(offset: int, size: int, page: int) -> int:
    """How many pages a span touches."""
    return (offset + size - 1) // page - offset // page + 1


def _has_come(fd: int, offset: int) -> bool:
    """Whether the byte at `offset`, whose page is in memory, has been read into that."""
    try:
        return os.preadv(fd, [bytearray(1)], offset, _NOW) == 1
    except BlockingIOError:
        return False
    except OSError:  # a file system that cannot tell
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
    """The calls as `os` has them; each raises OSError. `dir_fd` is always given, so but for one
    call no path of more than one name is resolved by the kernel.
    """

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=dir_fd)

    def open_cached(self, path: str, flags: int, *, dir_fd: int) -> int:
        """Open a file some folders below `dir_fd`, if the kernel knows the way by heart: this never
        waits for a disk, leaves `dir_fd`, or follows a link (openat2(2), since Linux 5.12). The one
        call that takes a path of more than one name.
        """
        how = _OpenHow(flags | os.O_CLOEXEC, 0, _AT_HAND)
        fd: int = _libc_with_lock.syscall(
            _OPENAT2, dir_fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
        )
        if fd < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), path)
        return fd

    def read_cached(self, fd: int, size: int) -> bytes:
        """The first `size` bytes, if they are in memory; BlockingIOError when none is, fewer when
        some are.
        """
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: os.preadv(fd, [buffer], 0, _NOW)])

    def is_cached(self, fd: int, offset: int, size: int) -> bool:
        """Whether that span of a file is in memory, so far as this can be told without waiting."""
        span, found = _CachestatRange(offset, size), _Cachestat()
        failed: int = _libc_with_lock.syscall(
            _CACHESTAT, fd, ctypes.byref(span), ctypes.byref(found), 0
        )
        if failed:  # before Linux 6.5, or the file is another user's: see what a read brings
            try:
                return (
                    os.preadv(fd, [_SCRATCH] * _pages(0, size, len(_SCRATCH)), offset, _NOW) >= size
                )
            except OSError:  # none of it, or a file system that cannot tell
                return False
        if found.cached < _pages(offset, size, _PAGE_BYTES):
            return False
        # Pages that are on their way from the disk count as well; a read does not take them. They
        # come in order, or nearly so.
        return _has_come(fd, offset + size - 1) and _has_come(fd, offset)

    def sendfile(self, socket: int, fd: int, offset: int, size: int) -> int:
        return os.sendfile(socket, fd, offset, size)

    def read_ahead(self, fd: int, offset: int, size: int) -> None:
        """Ask the kernel to begin reading a span into memory."""
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_WILLNEED)

    def set_modified(self, fd: int, modified_ns: int) -> None:
        os.utime(fd, ns=(modified_ns, modified_ns))

    def touch(self, fd: int) -> None:
        """It was modified now."""
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
        """Add to a file of notes that are only useful. A hint: it may fail unseen."""
        self._note(name, os.O_APPEND, data, dir_fd)

    def empty(self, name: str, *, dir_fd: int) -> None:
        """Empty a file of such notes, or make it. A hint, too."""
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
        """Ask the kernel to begin writing out a span of the file. A hint: it may fail unseen."""
        if hasattr(_libc, "sync_file_range"):
            _libc.sync_file_range(
                fd, ctypes.c_int64(offset), ctypes.c_int64(size), _SYNC_FILE_RANGE_WRITE
            )

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def lstat(self, name: str, *, dir_fd: int) -> os.stat_result:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)

    def stat_root(self, path: str) -> os.stat_result:
        """What is at an absolute path, with links followed: only for the root itself."""
        return os.stat(path)

    def may(self, fd: int, mode: int) -> bool:
        """Whether this process has the permissions `mode` (R_OK, W_OK, X_OK) for a folder."""
        return os.access(".", mode, dir_fd=fd, effective_ids=True)

    def statvfs(self, fd: int) -> os.statvfs_result:
        return os.fstatvfs(fd)

    def mkdir(self, name: str, mode: int = 0o777, *, dir_fd: int) -> None:
        os.mkdir(name, mode, dir_fd=dir_fd)

    def rmdir(self, name: str, *, dir_fd: int) -> None:
        os.rmdir(name, dir_fd=dir_fd)

    def link_descriptor(self, fd: int, name: str, *, dir_fd: int) -> None:
        """Name the open file `fd`. Unprivileged this goes through /proc: open(2), O_TMPFILE."""
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=dir_fd, follow_symlinks=True)

    def link(self, source: str, name: str, *, source_dir_fd: int, dir_fd: int) -> None:
        os.link(source, name, src_dir_fd=source_dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)

    def rename(self, source: str, name: str, *, source_dir_fd: int, dir_fd: int) -> None:
        os.rename(source, name, src_dir_fd=source_dir_fd, dst_dir_fd=dir_fd)

    def symlink(self, target: str, name: str, *, dir_fd: int) -> None:
        os.symlink(target, name, dir_fd=dir_fd)

    def boot_id(self) -> str:
        """What tells this boot of the machine from all others."""
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()

    def readlink(self, name: str, *, dir_fd: int) -> str:
        return os.readlink(name, dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)

    def listdir(self, fd: int) -> list[str]:
        return os.listdir(fd)

    def scandir(self, fd: int) -> os._ScandirIterator[str]:
        """The entries of an open folder, with their types; to be closed by the caller."""
        return os.scandir(fd)

    def lock(self, fd: int) -> None:
        """An exclusive flock(2), now or BlockingIOError. It goes with the descriptor, so no crash
        leaves one behind.
        """
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


# The file system itself does not work: it is read-only, its device is gone or broken, its content
# is damaged, or the server of a network or FUSE file system does not answer.
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
# Of these, a damaged block or a file that another client removed can be the cause, which is of one
# file.
OF_ONE_FILE = frozenset({errno.EIO, errno.ESTALE, errno.EUCLEAN, errno.EBADMSG})
# One file or folder is not accessible. This says nothing about the others.
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})


def failure_of(error: OSError, doing: str, size: int = 0) -> MediaError | None:
    """The error to tell for `error`, None if it is a fault of ours.

    `doing` is "read" or "written". `size` is how many bytes of the file the storage accepted.
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
    """The operating system's words for an errno, to stand inside a sentence."""
    words = os.strerror(number)
    return words[:1].lower() + words[1:]

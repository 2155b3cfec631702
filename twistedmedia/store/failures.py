"""The one table from a failed system call of the storage to one of our errors."""

from __future__ import annotations

import errno
import os

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

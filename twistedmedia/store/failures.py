"""What the storage fails with -> one of our errors."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from twistedmedia.errors import (
    RETRY_AFTER_S,
    AlreadyExists,
    Busy,
    NameConflict,
    NameNotAllowed,
    NoSpace,
    TooLarge,
)


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

"""A local file that is sent: read and hashed in threads, piece by piece."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from twistedmedia.client.exceptions import LocalFailure, local_failure
from twistedmedia.client.local_folders import Folder, names_below
from twistedmedia.client.threads import Jobs, opened_in_thread

# A job that hashes ends within some 20 ms, so that closing does not wait long for it; smaller ones
# would cost more in changing threads than in hashing.
_HASHED_AT_A_TIME_BYTES = 4 << 20
_READ_AT_A_TIME_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one state of a file from another."""

    size: int
    modified_ns: int


async def open_file(reactor: Any, path: str | Path, within: str | Path | None = None) -> LocalFile:
    """The regular file at `path`, to be closed. With `within`, a folder that `path` is in, no link
    below that folder is followed.

    :raises LocalFailure: when it cannot be read or is no regular file.
    """
    folder = None if within is None else path_of(within)
    try:
        descriptor = await opened_in_thread(reactor, lambda: _open(path_of(path), folder), os.close)
        return LocalFile(reactor, path, descriptor)
    except (OSError, ValueError) as error:
        raise local_failure(error, path) from None


def path_of(path: str | Path) -> str:
    """`path` as text.

    :raises LocalFailure: when it is not a path.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise LocalFailure(f"the path has to be a str or a Path, not {type(path).__name__}")
    return os.fspath(path)


class LocalFile:
    """An open file. `version` is what it was when it was opened, `path` is absolute."""

    def __init__(self, reactor: Any, path: str | Path, descriptor: int) -> None:
        """The descriptor is this object's from now on."""
        self.path = os.path.abspath(path)
        self._descriptor = descriptor
        self._jobs = Jobs(reactor)
        self.version = self._look()

    @property
    def size(self) -> int:
        """In bytes, when it was opened."""
        return self.version.size

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Fires with up to `size` bytes from `offset` on; fails with LocalFailure."""
        return self._jobs.take(self._read, offset, size)

    async def sha256(self) -> str:
        """The digest of the content, in hex.

        :raises LocalFailure: when it cannot be read.
        """
        digest = hashlib.sha256()
        for offset in range(0, self.size, _HASHED_AT_A_TIME_BYTES):
            end = min(offset + _HASHED_AT_A_TIME_BYTES, self.size)
            await self._jobs.take(self._hash, digest, offset, end)
        return digest.hexdigest()

    async def has_changed(self) -> bool:
        """Whether it is no longer what it was when it was opened."""
        return await self._jobs.take(self._look) != self.version

    async def close(self) -> None:
        """Close it, once no thread reads it. Idempotent."""
        await self._jobs.take(self._close)

    def _look(self) -> Version:
        status = os.fstat(self._descriptor)
        return Version(status.st_size, status.st_mtime_ns)

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise local_failure(error, self.path) from None

    def _hash(self, digest: Any, offset: int, end: int) -> None:
        while offset < end:
            piece = self._read(offset, min(_READ_AT_A_TIME_BYTES, end - offset))
            if not piece:
                raise changed(self.path)
            digest.update(piece)
            offset += len(piece)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):  # it was only read
                os.close(descriptor)


def changed(path: str) -> LocalFailure:
    """What to tell of a file that is no longer what it was."""
    return LocalFailure(f"{path}: the file has changed while it was being sent")


def _open(path: str, within: str | None) -> int:
    if within is None:
        # Without O_NONBLOCK the opening of a pipe would wait for somebody who writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    else:
        *folders, name = names_below(path, within)
        with closing(Folder(within)) as folder:
            folder.enter(folders, make=False)
            descriptor = folder.open_to_read(name)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor

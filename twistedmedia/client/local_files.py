"""A local file to be uploaded: it is read and hashed in threads, in pieces."""

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
from twistedmedia.client.threads import SerialJobs, open_in_thread

# A job that hashes this much takes about 20 ms, so closing the file does not wait long for it. In
# smaller jobs the thread switches would cost more than the hashing.
_HASH_JOB_BYTES = 4 << 20
_READ_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Version:
    """Distinguishes one state of a file from another."""

    size: int
    modified_ns: int


async def open_file(reactor: Any, path: str | Path, within: str | Path | None = None) -> LocalFile:
    """Open the regular file at `path`; the caller closes it. With `within`, a folder that contains
    `path`, no link below that folder is followed.

    :raises LocalFailure: when it cannot be read or is not a regular file.
    """
    folder = None if within is None else check_path(within)
    try:
        descriptor = await open_in_thread(
            reactor, lambda: _open(check_path(path), folder), os.close
        )
        return LocalFile(reactor, path, descriptor)
    except (OSError, ValueError) as error:
        raise local_failure(error, path) from None


def check_path(path: str | Path) -> str:
    """Check that `path` is a path, and return it as text.

    :raises LocalFailure: when it is not.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise LocalFailure(f"the path must be a str or a Path, not {type(path).__name__}")
    return os.fspath(path)


class LocalFile:
    """An open file. `version` is its state when it was opened. `path` is absolute."""

    def __init__(self, reactor: Any, path: str | Path, descriptor: int) -> None:
        """Take over the descriptor, and close it in `close`."""
        self.path = os.path.abspath(path)
        self._descriptor = descriptor
        self._jobs = SerialJobs(reactor)
        self.version = self._stat()

    @property
    def size(self) -> int:
        """The size in bytes when the file was opened."""
        return self.version.size

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Fires with up to `size` bytes from `offset` on; fails with LocalFailure."""
        return self._jobs.run(self._read, offset, size)

    async def sha256(self) -> str:
        """The digest of the content, in hex.

        :raises LocalFailure: when the file cannot be read or has become shorter.
        """
        digest = hashlib.sha256()
        for offset in range(0, self.size, _HASH_JOB_BYTES):
            end = min(offset + _HASH_JOB_BYTES, self.size)
            await self._jobs.run(self._hash, digest, offset, end)
        return digest.hexdigest()

    async def has_changed(self) -> bool:
        """Whether the file has changed since it was opened."""
        return await self._jobs.run(self._stat) != self.version

    async def close(self) -> None:
        """Close the file after the running job. Idempotent."""
        await self._jobs.run(self._close)

    def _stat(self) -> Version:
        status = os.fstat(self._descriptor)
        return Version(status.st_size, status.st_mtime_ns)

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise local_failure(error, self.path) from None

    def _hash(self, digest: Any, offset: int, end: int) -> None:
        while offset < end:
            piece = self._read(offset, min(_READ_BYTES, end - offset))
            if not piece:
                raise file_changed(self.path)
            digest.update(piece)
            offset += len(piece)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):  # nothing was written
                os.close(descriptor)


def file_changed(path: str) -> LocalFailure:
    """The failure for a file that has changed since it was opened."""
    return LocalFailure(f"{path}: the file has changed while it was being sent")


def _open(path: str, within: str | None) -> int:
    if within is None:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
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

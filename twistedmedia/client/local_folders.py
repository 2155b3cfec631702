"""A local folder that is held open; its files are opened by name and never through a link.

Another user with write access to the folder can put a link, a pipe or a file at a name that the
client is about to use. So the client writes only to regular files that have a single name and
belong to its user. It refuses everything else, and neither writes through it nor replaces it. The
functions block.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from twistedmedia.client.exceptions import LocalFailure

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK, opening a pipe would wait for its other end.
_REGULAR = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def names_below(path: str, folder: str) -> tuple[str, ...]:
    """The path from `folder` to `path`: names of folders, then that of a file.

    :raises LocalFailure: when `path` is not in the folder.
    """
    at, above = Path(path), Path(folder)
    names = at.relative_to(above).parts if at.is_relative_to(above) else ()
    if not names or ".." in names:
        raise LocalFailure(f"{path}: is not in the folder {folder}")
    return names


class Folder:
    """The folder at `path`. Its descriptor stays open until `close`."""

    def __init__(self, path: str) -> None:
        """Open the folder. Links in `path` are followed.

        :raises OSError: when it cannot be opened.
        """
        self.path = path
        self._descriptor = os.open(path or ".", _FOLDER)
        self._owner = os.fstat(self._descriptor).st_uid

    def enter(self, names: Iterable[str], *, make: bool = True) -> None:
        """Move down through the folders `names`. With `make`, missing ones are created.

        :raises LocalFailure: when one is a link or not a folder.
        :raises OSError: when one cannot be created or opened.
        """
        for name in names:
            try:
                descriptor = self._open_folder(name, make=make)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                status = self._stat(name)
                if status is not None and stat.S_ISLNK(status.st_mode):
                    raise self._refusal(name, "a symbolic link") from None
                raise LocalFailure(f"{self._path_of(name)}: this is not a folder") from None
            os.close(self._descriptor)
            self._descriptor = descriptor
            self.path = os.path.join(self.path, name)
            self._owner = os.fstat(descriptor).st_uid

    def check_target(self, name: str) -> None:
        """Check that a file can be renamed to `name`: it is free, or the name of a regular file.

        :raises LocalFailure: when something else has the name.
        """
        status = self._stat(name or ".")
        if status is None or stat.S_ISREG(status.st_mode):
            return
        if stat.S_ISDIR(status.st_mode):
            raise LocalFailure(f"{self._path_of(name)}: is a directory")
        if stat.S_ISLNK(status.st_mode):
            raise self._refusal(name, "a symbolic link")
        raise LocalFailure(f"{self._path_of(name)}: is not a regular file")

    def open(self, name: str) -> int:
        """Open the file `name` for reading and writing, and create it if it is missing. Returns
        the descriptor.

        :raises LocalFailure: when it is not a regular file of this user with a single name.
        :raises OSError: when it cannot be opened.
        """
        with suppress(FileExistsError):
            return os.open(
                name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _REGULAR, 0o666, dir_fd=self._descriptor
            )
        return self._open_own(name, os.O_RDWR)

    def open_to_read(self, name: str) -> int:
        """Open `name`, which may be anything but a link and belong to any user, for reading.
        Returns the descriptor.

        :raises OSError: when it cannot be opened.
        """
        return os.open(name, os.O_RDONLY | _REGULAR, dir_fd=self._descriptor)

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Up to `max_bytes` bytes of the file `name`, or None if it does not exist.

        :raises LocalFailure: as `open`.
        :raises OSError: when it cannot be read.
        """
        try:
            descriptor = self._open_own(name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.read(descriptor, max_bytes)
        finally:
            os.close(descriptor)

    def create(self, name: str, content: bytes, mode: int = 0o666) -> None:
        """Create the file `name`, which must not exist, with `content`.

        :raises OSError: when it cannot be created or written.
        """
        descriptor = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _REGULAR, mode, dir_fd=self._descriptor
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)

    def remove(self, name: str) -> None:
        """Remove the file `name`, if it exists.

        :raises LocalFailure: as `open`.
        :raises OSError: when it cannot be removed.
        """
        with suppress(FileNotFoundError):
            os.close(self._open_own(name, os.O_RDONLY))
            os.unlink(name, dir_fd=self._descriptor)

    def rename(self, name: str, to: str) -> None:
        """Rename the file `name` to `to`, and replace a file of that name.

        :raises OSError: when that fails.
        """
        os.rename(name, to, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def is_open_as(self, name: str, descriptor: int) -> bool:
        """Whether `name` is the name of the file that is open as `descriptor`."""
        status = self._stat(name)
        return status is not None and os.path.samestat(status, os.fstat(descriptor))

    def free_bytes(self) -> int | None:
        """How many bytes this user can still store, or None if the file system does not say."""
        status = os.fstatvfs(self._descriptor)
        return status.f_bavail * status.f_frsize if status.f_blocks else None

    def sync(self) -> None:
        """Write the names in the folder to stable storage.

        :raises OSError: when that fails.
        """
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the folder. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _open_folder(self, name: str, *, make: bool) -> int:
        access = _FOLDER | os.O_NOFOLLOW
        try:
            return os.open(name, access, dir_fd=self._descriptor)
        except FileNotFoundError:
            if not make:
                raise
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=self._descriptor)
            return os.open(name, access, dir_fd=self._descriptor)

    def _open_own(self, name: str, access: int) -> int:
        """Open a regular file of this user that has a single name."""
        try:
            descriptor = os.open(name, access | _REGULAR, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._refusal(name, "a symbolic link") from None
            raise
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise self._refusal(name, "not a regular file")
            if status.st_nlink > 1:
                raise self._refusal(name, "a file that has another name as well (a hard link)")
            # The owner of the folder can replace its files anyway. On some file systems, such as
            # those of memory cards, all files belong to the user who mounted them.
            allowed = (os.geteuid(), self._owner)
            if status.st_uid not in allowed and status.st_uid != self._owner_of_new():
                raise self._refusal(name, "a file of another user")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _owner_of_new(self) -> int:
        """The owner of a file that this process creates here. An NFS server may give the files of
        root, or of all users, to another user, such as nobody.
        """
        name = f".{uuid4().hex}"
        access = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _REGULAR
        descriptor = os.open(name, access, 0o600, dir_fd=self._descriptor)
        try:
            return os.fstat(descriptor).st_uid
        finally:
            os.close(descriptor)
            os.unlink(name, dir_fd=self._descriptor)

    def _stat(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _path_of(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _refusal(self, name: str, what: str) -> LocalFailure:
        return LocalFailure(
            f"{self._path_of(name)}: is {what}, which is never written to or replaced; remove it or"
            " choose another folder"
        )

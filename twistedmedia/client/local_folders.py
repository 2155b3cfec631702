"""A local folder, held open, whose files are opened by name and never through a link.

Another user who can write to the folder can put a link, a pipe or a file at a name that the client
is about to use. The client writes to regular files only, each with a single name, and only to its
own. It refuses anything else, and neither writes through it nor replaces it. The functions block.
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
# Opening a pipe would wait for its other end without O_NONBLOCK.
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def names_below(path: str, folder: str) -> tuple[str, ...]:
    """The names that lead from `folder` to `path`: those of folders, and of a file.

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
        """Open it. Links on the way are followed.

        :raises OSError: when it cannot be opened.
        """
        self.path = path
        self._descriptor = os.open(path or ".", _FOLDER)
        self._owner = os.fstat(self._descriptor).st_uid

    def enter(self, names: Iterable[str], *, make: bool = True) -> None:
        """Go down into the folders `names`, each in the one before. Missing ones are made, if they
        are to be.

        :raises LocalFailure: when one is a link or not a folder.
        :raises OSError: when one cannot be made or opened.
        """
        for name in names:
            try:
                below = self._below(name, make=make)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                status = self._look(name)
                if status is not None and stat.S_ISLNK(status.st_mode):
                    raise self._refusal(name, "a symbolic link") from None
                raise LocalFailure(f"{self._at(name)}: this is not a folder") from None
            os.close(self._descriptor)
            self._descriptor = below
            self.path = os.path.join(self.path, name)
            self._owner = os.fstat(below).st_uid

    def check_target(self, name: str) -> None:
        """Check that a file may get the name `name`: it is free, or a regular file has it.

        :raises LocalFailure: when something else has the name.
        """
        status = self._look(name or ".")
        if status is None or stat.S_ISREG(status.st_mode):
            return
        if stat.S_ISDIR(status.st_mode):
            raise LocalFailure(f"{self._at(name)}: is a directory")
        if stat.S_ISLNK(status.st_mode):
            raise self._refusal(name, "a symbolic link")
        raise LocalFailure(f"{self._at(name)}: is not a regular file")

    def open(self, name: str) -> int:
        """A descriptor to read and write the file `name`, which is made if it is missing.

        :raises LocalFailure: when it is not a regular file of this user with a single name.
        :raises OSError: when it cannot be opened.
        """
        with suppress(FileExistsError):
            return os.open(
                name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _PLAIN, 0o666, dir_fd=self._descriptor
            )
        return self._plain(name, os.O_RDWR)

    def open_to_read(self, name: str) -> int:
        """A descriptor to read what has the name `name`. That may be anything but a link, and
        anybody's.

        :raises OSError: when it cannot be opened.
        """
        return os.open(name, os.O_RDONLY | _PLAIN, dir_fd=self._descriptor)

    def read(self, name: str, most: int) -> bytes | None:
        """Up to `most` bytes of the file `name`; None if it does not exist.

        :raises LocalFailure: as `open`.
        :raises OSError: when it cannot be read.
        """
        try:
            descriptor = self._plain(name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.read(descriptor, most)
        finally:
            os.close(descriptor)

    def create(self, name: str, content: bytes, mode: int = 0o666) -> None:
        """Make the file `name`, which must not exist, with `content`.

        :raises OSError: when it cannot be made or written.
        """
        descriptor = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, mode, dir_fd=self._descriptor
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)

    def remove(self, name: str) -> None:
        """Remove the file `name`, if it exists.

        :raises LocalFailure: as `open`.
        :raises OSError: when it cannot be removed.
        """
        with suppress(FileNotFoundError):
            os.close(self._plain(name, os.O_RDONLY))
            os.unlink(name, dir_fd=self._descriptor)

    def rename(self, name: str, to: str) -> None:
        """Give the file `name` the name `to`, in the place of a file that has it.

        :raises OSError: when that fails.
        """
        os.rename(name, to, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def is_open_as(self, name: str, descriptor: int) -> bool:
        """Whether `name` is the name of the file that is open as `descriptor`."""
        status = self._look(name)
        return status is not None and os.path.samestat(status, os.fstat(descriptor))

    def free_bytes(self) -> int | None:
        """How many bytes this user can still store on the file system; None if it does not say."""
        status = os.fstatvfs(self._descriptor)
        return status.f_bavail * status.f_frsize if status.f_blocks else None

    def sync(self) -> None:
        """Put its names on stable storage.

        :raises OSError: when that fails.
        """
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close it. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _below(self, name: str, *, make: bool) -> int:
        access = _FOLDER | os.O_NOFOLLOW
        try:
            return os.open(name, access, dir_fd=self._descriptor)
        except FileNotFoundError:
            if not make:
                raise
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=self._descriptor)
            return os.open(name, access, dir_fd=self._descriptor)

    def _plain(self, name: str, access: int) -> int:
        try:
            descriptor = os.open(name, access | _PLAIN, dir_fd=self._descriptor)
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
            # those of memory cards, all files are the mounting user's.
            ours = (os.geteuid(), self._owner)
            if status.st_uid not in ours and status.st_uid != self._owner_of_new():
                raise self._refusal(name, "a file of another user")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _owner_of_new(self) -> int:
        """Whose a file is that this process makes here. An NFS server may give root's files, or
        everybody's, to another user, such as nobody.
        """
        name = f".{uuid4().hex}"
        access = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN
        descriptor = os.open(name, access, 0o600, dir_fd=self._descriptor)
        try:
            return os.fstat(descriptor).st_uid
        finally:
            os.close(descriptor)
            os.unlink(name, dir_fd=self._descriptor)

    def _look(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _at(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _refusal(self, name: str, what: str) -> LocalFailure:
        return LocalFailure(
            f"{self._at(name)}: is {what}, and nothing is written through or over that; remove it"
            " or choose another folder"
        )

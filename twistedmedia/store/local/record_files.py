"""Short texts on a disk, each under a name, written in one step.

Plans on a disk, each in a file of its own: what an upload is to become, as JSON.

How many bytes of an unfinished upload count, where the size of its file does not tell.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from twistedmedia.errors import MediaError
from twistedmedia.names import media_name
from twistedmedia.store.clock_steps import ClockReading
from twistedmedia.store.interface import UploadSpec
from twistedmedia.store.local.syscalls import SystemCalls

_NEW = ".new"  # behind the name of a text that is being written
_MAX_TEXT_BYTES = 4096  # a path, which the target of a link is, cannot be longer
_CLOCK_FILE = "clock"
_READING_BYTES = 128


class SymlinkTexts:
    """The texts in one folder. Everything here blocks and runs in threads.

    A text is the target of a symbolic link. So it exists with what it says or does not exist, takes
    no space, and on a file system with a journal it is on stable storage before what was written
    after it. On a file system without symbolic links a text is the content of a small file, which
    is synced before it gets its name. Both kinds can be read on either.
    """

    def __init__(
        self, calls: SystemCalls, fd: int, *, links: bool = True, durable: bool = True
    ) -> None:
        """`fd` is the folder's. `links` is whether its file system has symbolic links. A store that
        is not `durable` syncs nothing.
        """
        self._calls = calls
        self._fd = fd
        self._links = links
        self._durable = durable

    def read(self, name: str) -> str:
        """The text of that name.

        :raises FileNotFoundError: if there is none.
        """
        try:
            return self._calls.readlink(name, dir_fd=self._fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # which says that it is not a link
                raise
        fd = self._calls.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._fd)
        try:
            return os.fsdecode(self._calls.pread(fd, _MAX_TEXT_BYTES, 0))
        finally:
            self._calls.close(fd)

    def create(self, name: str, text: str) -> None:
        """Write a text. Its name must be free."""
        if self._links:
            self._calls.symlink(text, name, dir_fd=self._fd)
        else:
            self.replace(name, text)

    def replace(self, name: str, text: str) -> None:
        """Write a text in the place of the one of that name, if there is one."""
        new = name + _NEW
        with contextlib.suppress(FileNotFoundError):  # what a crash has left
            self._calls.unlink(new, dir_fd=self._fd)
        with contextlib.ExitStack() as undoing:
            if self._links:
                self._calls.symlink(text, new, dir_fd=self._fd)
            else:
                self._write_file(new, text)
            undoing.callback(self._remove, new)
            self._calls.rename(new, name, source_dir_fd=self._fd, dir_fd=self._fd)
            undoing.pop_all()

    def _write_file(self, name: str, text: str) -> None:
        content = os.fsencode(text)
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY
        fd = self._calls.open(name, flags, 0o600, dir_fd=self._fd)
        try:
            if self._calls.writev(fd, [content]) < len(content):  # the disk is full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._durable:
                self._calls.fsync(fd)
        except BaseException:
            self._remove(name)
            raise
        finally:
            self._calls.close(fd)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):  # the failure that led here is the one to tell
            self._calls.unlink(name, dir_fd=self._fd)


_MAX_PLAN_BYTES = 256 << 10  # a plan comes in the headers of one request, which have 32 KiB
_READ = os.O_RDONLY | os.O_NOFOLLOW


class BrokenSpec(ValueError):
    """A file has no plan in it. Without syncs a power failure can leave one empty."""


class SpecFiles:
    """The plans in one folder. Everything here blocks and runs in threads."""

    def __init__(self, calls: SystemCalls, fd: int, *, durable: bool) -> None:
        """`fd` is the folder's. A store that is not `durable` syncs nothing."""
        self._calls = calls
        self._fd = fd
        self._durable = durable

    def read(self, name: str) -> UploadSpec:
        """The plan in the file of that name.

        :raises FileNotFoundError: if there is no such file.
        :raises BrokenPlan: if it has no plan in it.
        """
        content = self._content(name)
        try:
            return _parsed(json.loads(content))
        except (ValueError, KeyError, TypeError, RecursionError, MediaError) as error:
            raise BrokenSpec(str(error)) from error

    def caller(self, name: str) -> str:
        """The caller that the plan in a file names. A file that cannot be read is nobody's."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            return str(json.loads(self._content(name))["caller"])
        return ""

    def write(self, name: str, plan: UploadSpec, new: str) -> None:
        """Write a plan in one step, in the place of the one of that name, if there is one. `new` is
        the name of the file meanwhile; a crash can leave it.
        """
        content = json.dumps(_unparsed(plan)).encode()
        with contextlib.ExitStack() as undoing:
            flags = os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_WRONLY
            fd = self._calls.open(new, flags, 0o600, dir_fd=self._fd)
            undoing.callback(self._remove, new)
            try:
                if self._calls.writev(fd, [content]) < len(content):  # the disk is full
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self._durable:
                    self._calls.fsync(fd)
            finally:
                self._calls.close(fd)
            self._calls.rename(new, name, source_dir_fd=self._fd, dir_fd=self._fd)
            undoing.pop_all()
        if self._durable:
            self._calls.fsync(self._fd)

    def _content(self, name: str) -> bytes:
        fd = self._calls.open(name, _READ, dir_fd=self._fd)
        try:
            return self._calls.pread(fd, _MAX_PLAN_BYTES, 0)
        finally:
            self._calls.close(fd)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._calls.unlink(name, dir_fd=self._fd)


def _unparsed(plan: UploadSpec) -> dict[str, Any]:
    fields = asdict(plan)
    del fields["name"]
    return {"directory": plan.name.directory, "filename": plan.name.filename, **fields}


def _parsed(fields: dict[str, Any]) -> UploadSpec:
    directory, filename, length, sha256, caller, note = (
        fields[key] for key in ("directory", "filename", "length", "sha256", "caller", "note")
    )
    texts = [directory, filename, caller, note, *([] if sha256 is None else [sha256])]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("what has to be text is none")
    if length is not None and (type(length) is not int or length < 0):
        raise TypeError("the length is none")
    return UploadSpec(media_name(directory, filename), length, sha256, caller, note)


@dataclass(frozen=True, slots=True)
class Watermark:
    """What is known of a file in the boot of the machine with the id `boot`.

    `synced` bytes are on stable storage. After a power failure no more than these count: a file can
    come back with its length, and zeros in the place of bytes that had yet to be written.
    `counting` bytes count while what is behind them is provisional, None when it is not.
    """

    boot: str
    synced: int
    counting: int | None = None

    def counted(self, size: int, boot: str) -> int:
        """How many bytes count of a file of `size`, in the boot with the id `boot`."""
        if boot != self.boot:
            return min(self.synced, size)
        return size if self.counting is None else min(self.counting, size)

    def __str__(self) -> str:
        return f"{self.boot} {self.synced} {'-' if self.counting is None else self.counting}"


# Of one that nobody of ours has made.
_BROKEN = Watermark("", 0, 0)


class Watermarks:
    """The marks among the texts of a folder. Everything here blocks and runs in threads."""

    def __init__(self, texts: SymlinkTexts) -> None:
        self._texts = texts

    def read(self, name: str) -> Watermark | None:
        """The mark of that name, if there is one."""
        try:
            boot, synced, counting = self._texts.read(name).split(" ")
            mark = Watermark(boot, int(synced), None if counting == "-" else int(counting))
        except FileNotFoundError:
            return None
        except ValueError:
            return _BROKEN
        return _BROKEN if mark.synced < 0 or (mark.counting or 0) < 0 else mark

    def write(self, name: str, mark: Watermark) -> None:
        """Put `mark` in the place of the one of that name, in one step."""
        self._texts.replace(name, str(mark))


class ClockFile:
    """The last reading of the clocks, which a file in a folder keeps for a later process."""

    def __init__(self, calls: SystemCalls, fd: int) -> None:
        """`fd` is the folder."""
        self._calls = calls
        self._fd = fd
        self._last: ClockReading | None = None

    def begin(self) -> None:
        """Make the file, if there is none, so that a service takes nothing more of its disk while
        it runs.

        :raises OSError: if it cannot be made. The first reading makes it then.
        """
        try:
            self._read()
        except FileNotFoundError:
            self._write("-")

    def step_to(self, now: ClockReading) -> int | None:
        """By how many nanoseconds the wall clock was stepped since the last reading. None if there
        is no such reading.

        :raises OSError: if it could not be read.
        """
        if self._last is None:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # none of ours
                self._last = ClockReading.parse(self._read())
        return None if self._last is None else self._last.step_to(now)

    def note(self, now: ClockReading, *, for_later: bool = True) -> None:
        """Compare the next reading with this one. If `for_later`, a later process does so, too.

        :raises OSError: if it could not be written.
        """
        self._last = now
        if for_later:
            self._write(str(now))

    def _read(self) -> str:
        fd = self._calls.open(_CLOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._fd)
        try:
            return os.fsdecode(self._calls.pread(fd, _READING_BYTES, 0)).strip()
        finally:
            self._calls.close(fd)

    def _write(self, text: str) -> None:
        flags = os.O_CREAT | os.O_NOFOLLOW | os.O_WRONLY
        fd = self._calls.open(_CLOCK_FILE, flags, 0o600, dir_fd=self._fd)
        try:
            # In the place of the one before, which is as long: a kill does not come in between.
            self._calls.writev(fd, [os.fsencode(text).ljust(_READING_BYTES)])
        finally:
            self._calls.close(fd)

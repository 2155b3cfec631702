"""The small files beside resumable uploads: specs, watermarks, other short texts, and the clock.

Everything here blocks and runs in threads. A store that is not `durable` syncs nothing.
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
from twistedmedia.store.local.syscalls import SystemCalls, opened, write_whole

_NEW = ".new"  # added to the name of a text while it is written
_MAX_TEXT_BYTES = 4096  # a path, which the target of a link is, cannot be longer
_MAX_SPEC_BYTES = 256 << 10  # a spec comes in the headers of one request, which have 32 KiB
_CLOCK_FILE = "clock"
_READING_BYTES = 128
_READ = os.O_RDONLY | os.O_NOFOLLOW


class SymlinkTexts:
    """Short texts in one folder, each under a name and written in one step.

    A text is the target of a symbolic link. So it is never half written, and takes no space. On a
    file system with a journal it reaches stable storage before anything written after it. On a file
    system without symbolic links, a text is the content of a small file, which is synced before it
    gets its name. Both kinds can be read on either.
    """

    def __init__(
        self, calls: SystemCalls, fd: int, *, links: bool = True, durable: bool = True
    ) -> None:
        """`fd` is the folder. `links` is whether its file system has symbolic links."""
        self._calls = calls
        self._fd = fd
        self._links = links
        self._durable = durable

    def read(self, name: str) -> str:
        """The text of that name.

        :raises FileNotFoundError: if it does not exist.
        """
        try:
            return self._calls.readlink(name, dir_fd=self._fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: it is not a link
                raise
        with opened(self._calls, name, _READ | os.O_NONBLOCK, dir_fd=self._fd) as fd:
            return os.fsdecode(self._calls.pread(fd, _MAX_TEXT_BYTES, 0))

    def create(self, name: str, text: str) -> None:
        """Write a text. Its name must be free."""
        if self._links:
            self._calls.symlink(text, name, dir_fd=self._fd)
        else:
            self.replace(name, text)

    def replace(self, name: str, text: str) -> None:
        """Write a text. Replaces the one of that name, if there is one."""
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
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY
        with opened(self._calls, name, flags, 0o600, dir_fd=self._fd) as fd:
            try:
                write_whole(self._calls, fd, os.fsencode(text))
                if self._durable:
                    self._calls.fsync(fd)
            except BaseException:
                self._remove(name)
                raise

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):  # the failure that led here is raised
            self._calls.unlink(name, dir_fd=self._fd)


class BrokenSpec(ValueError):
    """A file does not contain a valid spec. Without syncs a power failure can leave it empty."""


class SpecFiles:
    """The specs of uploads, as JSON, each in a file in one folder."""

    def __init__(self, calls: SystemCalls, fd: int, *, durable: bool) -> None:
        """`fd` is the folder."""
        self._calls = calls
        self._fd = fd
        self._durable = durable

    def read(self, name: str) -> UploadSpec:
        """The spec in the file of that name.

        :raises FileNotFoundError: if the file does not exist.
        :raises BrokenSpec: if it does not contain a valid spec.
        """
        content = self._content(name)
        try:
            return _parsed(json.loads(content))
        except (ValueError, KeyError, TypeError, RecursionError, MediaError) as error:
            raise BrokenSpec(str(error)) from error

    def caller(self, name: str) -> str:
        """The caller that the spec in a file names, "" if the file cannot be read."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            return str(json.loads(self._content(name))["caller"])
        return ""

    def write(self, name: str, spec: UploadSpec, new: str) -> None:
        """Write a spec in one step. Replaces the one of that name, if there is one. `new` is the
        name of the file until then, which a crash can leave.
        """
        content = json.dumps(_unparsed(spec)).encode()
        with contextlib.ExitStack() as undoing:
            flags = os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_WRONLY
            fd = self._calls.open(new, flags, 0o600, dir_fd=self._fd)
            undoing.callback(self._remove, new)
            try:
                write_whole(self._calls, fd, content)
                if self._durable:
                    self._calls.fsync(fd)
            finally:
                self._calls.close(fd)
            self._calls.rename(new, name, source_dir_fd=self._fd, dir_fd=self._fd)
            undoing.pop_all()
        if self._durable:
            self._calls.fsync(self._fd)

    def _content(self, name: str) -> bytes:
        with opened(self._calls, name, _READ, dir_fd=self._fd) as fd:
            return self._calls.pread(fd, _MAX_SPEC_BYTES, 0)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._calls.unlink(name, dir_fd=self._fd)


def _unparsed(spec: UploadSpec) -> dict[str, Any]:
    fields = asdict(spec)
    del fields["name"]
    return {"directory": spec.name.directory, "filename": spec.name.filename, **fields}


def _parsed(fields: dict[str, Any]) -> UploadSpec:
    directory, filename, length, sha256, caller, note = (
        fields[key] for key in ("directory", "filename", "length", "sha256", "caller", "note")
    )
    texts = [directory, filename, caller, note, *([] if sha256 is None else [sha256])]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a field that must be text is not")
    if length is not None and (type(length) is not int or length < 0):
        raise TypeError("the length is not a size in bytes")
    return UploadSpec(media_name(directory, filename), length, sha256, caller, note)


@dataclass(frozen=True, slots=True)
class Watermark:
    """How many bytes of a file count. Written in the boot of the machine with the id `boot`.

    `synced` bytes are on stable storage. After a power failure only these count: a file can come
    back with its full length, and zeros instead of bytes that were not written out. If the bytes
    after the first `counting` ones are provisional, only `counting` bytes count; None if not.
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


# Stands for a mark that cannot be parsed.
_BROKEN = Watermark("", 0, 0)


class Watermarks:
    """The watermarks among the texts of a folder."""

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
        """Replace the mark of that name, in one step."""
        self._texts.replace(name, str(mark))


class ClockFile:
    """The last reading of the clocks, kept in a file for a later process."""

    def __init__(self, calls: SystemCalls, fd: int) -> None:
        """`fd` is the folder."""
        self._calls = calls
        self._fd = fd
        self._last: ClockReading | None = None

    def begin(self) -> None:
        """Make the file, if it does not exist, so that a running service needs no more disk space.

        :raises OSError: if it cannot be made. The first reading then makes it.
        """
        try:
            self._read()
        except FileNotFoundError:
            self._write("-")

    def step_to(self, now: ClockReading) -> int | None:
        """By how many nanoseconds the wall clock was stepped since the last reading, None if there
        is no such reading.

        :raises OSError: if the file could not be read.
        """
        if self._last is None:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                self._last = ClockReading.parse(self._read())
        return None if self._last is None else self._last.step_to(now)

    def note(self, now: ClockReading, *, for_later: bool = True) -> None:
        """Compare the next reading with this one; with `for_later`, in a later process, too.

        :raises OSError: if the file could not be written.
        """
        self._last = now
        if for_later:
            self._write(str(now))

    def _read(self) -> str:
        with opened(self._calls, _CLOCK_FILE, _READ, dir_fd=self._fd) as fd:
            return os.fsdecode(self._calls.pread(fd, _READING_BYTES, 0)).strip()

    def _write(self, text: str) -> None:
        flags = os.O_CREAT | os.O_NOFOLLOW | os.O_WRONLY
        with opened(self._calls, _CLOCK_FILE, flags, 0o600, dir_fd=self._fd) as fd:
            # Every reading has the same length, so this overwrites the one before in one step.
            self._calls.writev(fd, [os.fsencode(text).ljust(_READING_BYTES)])

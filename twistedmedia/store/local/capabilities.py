"""What the file system of a root can do, tested when a store starts. Everything here blocks."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from secrets import token_hex

from twisted.logger import Logger

from twistedmedia.errors import ConfigurationError
from twistedmedia.store.local.drafts import HiddenFile, UnnamedFile
from twistedmedia.store.local.syscalls import SystemCalls, reason_of

# How calls fail that a file system does not support. Some of these errors can mean something else,
# but not for a file that was just made in a folder of the store.
_LACKS = frozenset(
    {
        errno.EPERM,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
        errno.EINVAL,
        errno.ENOLCK,
        errno.EMLINK,
        errno.ENOTTY,
    }
)
# Nothing can be stored for now. Stored files can be read, and perhaps deleted.
_CANNOT_WRITE_NOW = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_ELSEWHERE = "Choose a folder on another file system"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`unnamed_drafts` is whether a file can be made without a name and be named later. `links` is
    whether there are symbolic links.
    """

    unnamed_drafts: bool
    links: bool


class Probe:
    """Tries what a store needs. If it leaves a file after a crash, the next start sweeps it."""

    _log = Logger()

    def __init__(self, calls: SystemCalls, root: str, *, durable: bool) -> None:
        """`root` is the path, for messages."""
        self._calls = calls
        self._root = root
        self._durable = durable
        self._has_warned = False

    def lock(self, fd: int) -> None:
        """Lock a file of the store.

        :raises BlockingIOError: if another process has locked it.
        """
        with self._needed(
            "has no file locks", f"which keep a second service out of the root. {_ELSEWHERE}"
        ):
            self._calls.lock(fd)

    def sync(self, fd: int) -> None:
        """Sync a folder, in a durable store."""
        why = f"so a power failure can take stored files. {_ELSEWHERE}, or say --no-durable"
        with self._needed("cannot sync folders", why):
            if self._durable:
                self._calls.fsync(fd)

    def capabilities(self, root_fd: int, drafts_fd: int, *, unnamed_drafts: bool) -> Capabilities:
        """Find out what the file system can do, and log what it cannot. `unnamed_drafts` is whether
        they are wanted. Each capability is tested independently of the others.

        :raises ConfigurationError: if a capability is missing that a store needs.
        :raises OSError: if a test fails for another reason.
        """
        has_unnamed = unnamed_drafts and self._can(
            lambda: self._has_unnamed_drafts(root_fd, drafts_fd)
        )
        if not has_unnamed:
            self._can(lambda: self._try_hidden_draft(drafts_fd))
        self.sync(drafts_fd)
        return Capabilities(has_unnamed, self._can(lambda: self._has_symlinks(drafts_fd)))

    def _can(self, probe: Callable[[], bool]) -> bool:
        """The result of a test. False if nothing can be written now: the store works without these
        capabilities on every file system.
        """
        try:
            return probe()
        except OSError as error:
            if error.errno not in _CANNOT_WRITE_NOW:
                raise
            if not self._has_warned:
                self._log.warn("nothing can be stored now: {why}", why=error.strerror)
            self._has_warned = True
            return False

    def _has_unnamed_drafts(self, root_fd: int, drafts_fd: int) -> bool:
        file, name = UnnamedFile(self._calls, root_fd), token_hex(16)
        try:
            fd = file.open()
            try:
                self._test_attributes(fd)
                file.link(fd, name, drafts_fd)
                self._calls.unlink(name, dir_fd=drafts_fd)
            finally:
                self._calls.close(fd)
        except OSError as error:
            if error.errno in _CANNOT_WRITE_NOW:
                raise
            self._lacks("unnamed files (O_TMPFILE)", error, "drafts have hidden names")
            return False
        return True

    def _try_hidden_draft(self, drafts_fd: int) -> bool:
        file, name = HiddenFile(self._calls, drafts_fd), token_hex(16)
        try:
            fd = file.open()
            try:
                self._test_attributes(fd)
                why = f"which give each stored file its name in one step. {_ELSEWHERE}"
                with self._needed("has no hard links", why):
                    file.link(fd, name, drafts_fd)
                self._calls.unlink(name, dir_fd=drafts_fd)
            finally:
                self._calls.close(fd)
        finally:
            file.remove(published=False)
        return True

    def _has_symlinks(self, drafts_fd: int) -> bool:
        name = token_hex(16)
        try:
            self._calls.symlink("a text", name, dir_fd=drafts_fd)
        except OSError as error:
            if error.errno not in _LACKS:
                raise
            self._lacks("symbolic links", error, "small files take their place")
            return False
        self._calls.unlink(name, dir_fd=drafts_fd)
        return True

    def _test_attributes(self, fd: int) -> None:
        try:
            self._calls.set_attribute(fd, "user.twistedmedia.probe", b"1")
        except OSError as error:
            if error.errno not in _CANNOT_WRITE_NOW:
                self._lacks("extended attributes", error, "digests are computed when asked for")

    @contextlib.contextmanager
    def _needed(self, lacks: str, why: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _LACKS:
                raise
            reason = reason_of(error.errno or 0)
            raise ConfigurationError(
                f"the file system of {self._root} {lacks} ({reason}), {why}"
            ) from error

    def _lacks(self, what: str, error: OSError, instead: str) -> None:
        self._log.info(
            "the file system of {root} has no {what} ({why}): {instead}",
            root=self._root,
            what=what,
            why=reason_of(error.errno or 0),
            instead=instead,
        )

"""The root of a directory store: whether the folder is still there, and whether its storage works.

Jobs that access the disk run inside `Root.reading` or `Root.writing`. These translate failed system
calls into errors of this package (`syscalls.failure_of`) and remember them. Three kinds of calls
are made outside. Calls that only use caches (`files`) never wait for the disk, and a thread repeats
them if they fail. Closing a file after reading loses nothing. The start has errors of its own.

Everything here blocks and runs in threads, except `note_success` and `with_recent_failures`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

from twisted.logger import Logger

from twistedmedia.errors import NotFound, PreconditionFailed, StorageFailed
from twistedmedia.store.interface import StorageState
from twistedmedia.store.local.folders import HIDDEN
from twistedmedia.store.local.syscalls import (
    BROKEN,
    OF_ONE_FILE,
    SystemCalls,
    failure_of,
    reason_of,
)

T = TypeVar("T")

# A failure counts for so long. The same failure is logged once in this time, so that a broken disk
# does not fill the log.
_REMEMBERED_S = 30.0
# The check at the beginning of an upload only serves to refuse it early. It costs as much as some
# writes of a small upload.
_LATELY_S = 1.0
# The sync of a large file on a slow disk takes some seconds. If a write takes this long, the disk
# hangs.
_HANGS_S = 60.0
# Errors which mean that there is no folder at the path of the root.
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


@dataclass(frozen=True, slots=True)
class _Seen:
    """A failure of a job at `at_s`. `of` identifies the file. `is_general` is whether the failure
    concerns the whole storage.
    """

    failure: StorageFailed
    at_s: float
    of: object
    is_general: bool


class Root:
    """The root of a store, open as the descriptor `fd`."""

    _log = Logger()

    def __init__(
        self,
        calls: SystemCalls,
        path: str,
        fd: int,
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`path` is absolute. `now_s` is a clock in seconds."""
        self.fd = fd
        self._path = path
        self._calls = calls
        self._now_s = now_s
        self._identity = _identity_of(calls.fstat(fd))
        self._checked_s = -_LATELY_S
        self._own: list[int] = []
        self._seen: dict[str, _Seen] = {}
        self._probed: StorageState | None = None
        # A job has succeeded although the last probe found a failure, or the other way round.
        self.is_contradicted = False
        self._lock = threading.Lock()
        self._logged: dict[str, float] = {}  # what was logged, and when
        self._writes: dict[object, float] = {}  # the writes under way, and when each began

    def watch(self, fd: int) -> None:
        """Check this open folder, too. It is in the hidden folder, and the store needs it."""
        self._own.append(fd)

    def reading(self, of: object = None) -> contextlib.AbstractContextManager[None]:
        """The context of a job that reads the storage. Translates errors. `of` identifies the file,
        if it is open.

        :raises StorageFailed: if the storage cannot be read, or a file was not found because the
            root is gone.
        """
        return _Job(self, "read", of=of)

    def writing(self, size: int = 0) -> contextlib.AbstractContextManager[None]:
        """The context of a job that changes the storage. Translates errors. `size` is how many
        bytes of a file the storage has accepted so far.

        :raises StorageFailed: as `reading`.
        """
        return _Job(self, "written", size)

    def writing_in(self, steps: Generator[None, None, T]) -> Generator[None, None, T]:
        """Run each of `steps` in a context of its own, as `writing`."""
        while True:
            with self.writing():
                try:
                    next(steps)
                except StopIteration as end:
                    result: T = end.value
                    return result
            yield

    def check(self, doing: str) -> None:
        """Check that the path of the root still leads to the folder that the store was started on.
        It may have been removed or unmounted, or hidden by another mount. Files stored in the open
        folder would then be lost, and a file missing there may exist.

        :raises StorageFailed: if it does not. `doing` is "read" or "written".
        """
        try:
            try:
                found = _identity_of(self._calls.stat_root(self._path))
            except OSError as error:
                raise _failure_of_root(error, doing) from error
            if found != self._identity:
                why = (
                    "another folder is in the place of its root; mount the right one, or start the "
                    "service again to use this one"
                )
                raise StorageFailed(doing, why)
        except StorageFailed as failure:
            self._log_once(failure)
            raise
        self._checked_s = self._now_s()

    def check_lately(self, doing: str) -> None:
        """As `check`, if the last check was over a second ago. For jobs that check at their end.

        :raises StorageFailed: as `check`.
        """
        if self._now_s() - self._checked_s > _LATELY_S:
            self.check(doing)

    def note_success(self, doing: str) -> None:
        """Forget the failures of reading or writing, since it has just succeeded."""
        if self._probed_failure(doing) is not None:
            self.is_contradicted = True
        seen = self._seen.pop(doing, None)
        if seen is not None and seen.is_general and self._may_log(_again(doing)):
            self._log.info("the storage can be {doing} again", doing=doing)

    def probe(self, free: int | None) -> StorageState:
        """The state of the storage, found without reading or writing a block."""
        self.is_contradicted = False  # before the probe: a job may fail meanwhile
        self._probed = self._probe(free)
        return self._probed

    def _probe(self, free: int | None) -> StorageState:
        try:
            self.check("read")
            self._check_permission("read", os.R_OK | os.X_OK)
        except StorageFailed as failure:
            return StorageState(free, cannot_read=failure, cannot_write=failure)
        try:
            self._check_own("written")
            with _translated("written"):
                if self._is_read_only():
                    raise StorageFailed("written", reason_of(errno.EROFS))
            self._check_permission("written", os.W_OK)
        except StorageFailed as failure:
            return StorageState(free, cannot_write=failure)
        return StorageState(free)

    def with_recent_failures(self, state: StorageState) -> StorageState:
        """`state` with the failures of jobs in the last 30 s, and with writes that hang."""
        return StorageState(
            state.free,
            cannot_read=state.cannot_read or self._seen_of("read"),
            cannot_write=state.cannot_write or self._seen_of("written") or self._hanging(),
        )

    def begin_write(self, write: object) -> None:
        """A write begins. `write` identifies it."""
        self._writes[write] = self._now_s()

    def end_write(self, write: object) -> None:
        """A write has ended."""
        del self._writes[write]

    def translate(self, error: BaseException, doing: str, size: int, of: object) -> None:
        """Raise the error of this package for `error`, with which a job has failed. Returns if
        there is none: then `error` itself is raised.
        """
        try:
            self._translate(error, doing, size, of)
        except StorageFailed:
            self._note_failure(doing)
            raise
        if isinstance(error, StorageFailed):
            self._note_failure(doing)

    def _note_failure(self, doing: str) -> None:
        if self._probed_failure(doing) is None:
            self.is_contradicted = True

    def _probed_failure(self, doing: str) -> StorageFailed | None:
        probed = self._probed
        if probed is None:
            return None
        return probed.cannot_read if doing == "read" else probed.cannot_write

    def _translate(self, error: BaseException, doing: str, size: int, of: object) -> None:
        if isinstance(error, (NotFound, PreconditionFailed)):
            self.check(doing)
        if not isinstance(error, OSError):
            return
        # Linking into a removed folder fails with EPERM or ENOENT, depending on the file system.
        if isinstance(error, (FileNotFoundError, PermissionError)):
            self.check(doing)
            self._check_own(doing)
        failure = failure_of(error, doing, size)
        if failure is None:
            return
        if isinstance(failure, StorageFailed):
            self._log_once(failure, error.filename)
            self._note(failure, error, of)
        raise failure from error

    def _check_own(self, doing: str) -> None:
        for fd in self._own:
            with _translated(doing):
                is_removed = self._calls.fstat(fd).st_nlink == 0
            if is_removed:
                why = f"a folder in {HIDDEN} was removed; start the service again"
                failure = StorageFailed(doing, why)
                self._log_once(failure)
                raise failure

    def _check_permission(self, doing: str, mode: int) -> None:
        with _translated(doing):
            allowed = self._calls.may(self.fd, mode)
        if not allowed:
            raise StorageFailed(doing, reason_of(errno.EACCES))

    def _is_read_only(self) -> bool:
        return bool(self._calls.statvfs(self.fd).f_flag & os.ST_RDONLY)

    def _note(self, failure: StorageFailed, error: OSError, of: object) -> None:
        """Remember a failure of the storage. A failure to read one file counts once reading another
        file fails, too.
        """
        if error.errno not in BROKEN:
            return
        with contextlib.suppress(OSError):
            if error.errno == errno.EROFS and self._is_read_only():
                return  # a probe finds out when this begins and ends
        if of is None and isinstance(error.filename, str):
            of = error.filename
        is_general = failure.doing != "read" or error.errno not in OF_ONE_FILE
        before = self._recent(failure.doing)
        if before is not None:
            is_general = is_general or before.is_general or before.of != of
        self._seen[failure.doing] = _Seen(failure, self._now_s(), of, is_general)

    def _recent(self, doing: str) -> _Seen | None:
        seen = self._seen.get(doing)
        return seen if seen is not None and self._now_s() - seen.at_s < _REMEMBERED_S else None

    def _seen_of(self, doing: str) -> StorageFailed | None:
        seen = self._recent(doing)
        return seen.failure if seen is not None and seen.is_general else None

    def _hanging(self) -> StorageFailed | None:
        now_s = self._now_s()
        longest_s = max((now_s - begun_s for begun_s in list(self._writes.values())), default=0.0)
        if longest_s <= _HANGS_S:
            return None
        return StorageFailed("written", f"it has not finished a write for {longest_s:.0f} s")

    def _log_once(self, failure: StorageFailed, filename: object = None) -> None:
        """Log a failure, unless the log has it already."""
        if self._may_log(failure.reason):
            self._logged.pop(_again(failure.doing), None)
            where = "" if filename is None else f", at {str(filename)!r}"
            self._log.warn("{reason}{where}", reason=failure.reason, where=where)

    def _may_log(self, key: str) -> bool:
        with self._lock:
            now_s = self._now_s()
            if now_s - self._logged.get(key, -_REMEMBERED_S) < _REMEMBERED_S:
                return False
            self._logged[key] = now_s
            return True


def _again(doing: str) -> str:
    """The key of a recovery in `_logged`. It is logged once after each logged failure."""
    return f"again {doing}"


class _Job:
    """The context of one job. A class, since every job has one and a generator takes three times as
    long.
    """

    __slots__ = ("_doing", "_of", "_root", "_size")

    def __init__(self, root: Root, doing: str, size: int = 0, of: object = None) -> None:
        self._root = root
        self._doing = doing
        self._size = size
        self._of = of

    def __enter__(self) -> None:
        if self._doing == "written":
            self._root.begin_write(self)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._doing == "written":
            self._root.end_write(self)
        if error is not None:
            self._root.translate(error, self._doing, self._size, self._of)


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    """The context of a system call on the root itself. Any OSError becomes StorageFailed."""
    try:
        yield
    except OSError as error:
        raise _failure_of_root(error, doing) from error


def _failure_of_root(error: OSError, doing: str) -> StorageFailed:
    why = "its root folder is gone" if error.errno in _GONE else reason_of(error.errno or 0)
    return StorageFailed(doing, why)


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino

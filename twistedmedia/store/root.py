"""The folder that a directory store was started on: whether it still is there and works.

Every job of the store runs inside `Root.reading` or `Root.writing`. These are the store's edge:
they turn failed system calls into our errors (`failures`) and remember what they saw. Everything
here blocks and runs in threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator

from twisted.logger import Logger

from twistedmedia.boundaries import StorageState
from twistedmedia.errors import NotFound, PreconditionFailed, StorageFailed
from twistedmedia.store.calls import SystemCalls
from twistedmedia.store.failures import BROKEN, failure_of, reason_of
from twistedmedia.store.folders import HIDDEN

# A failure that was not seen again for so long says nothing about now. The same failure is logged
# once in this time, so that a broken disk does not fill the log.
_REMEMBERED_S = 30.0


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
        self._own: list[int] = []
        self._seen: dict[str, tuple[StorageFailed, float]] = {}
        self._logged: dict[str, float] = {}

    def needs(self, fd: int) -> None:
        """The store cannot work without this open folder in the root, which is its own."""
        self._own.append(fd)

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """A job that reads the storage. Errors are translated.

        :raises StorageFailed: if the storage cannot be read, or something is not there because the
            root is not there.
        """
        return self._edge("read", 0)

    def writing(self, size: int = 0) -> contextlib.AbstractContextManager[None]:
        """A job that changes the storage. Errors are translated. `size` is how many bytes of a file
        the storage accepted so far.

        :raises StorageFailed: as `reading`.
        """
        return self._edge("written", size)

    def check(self, doing: str) -> None:
        """Look whether the root still is the folder that the store was started on: it may have been
        removed or unmounted, or something mounted over it. What is then stored in the open folder
        is lost, and what is missing there says nothing.

        :raises StorageFailed: if it is not. `doing` is "read" or "written".
        """
        try:
            found = _identity_of(self._calls.stat_root(self._path))
        except (FileNotFoundError, NotADirectoryError):
            raise self._told(StorageFailed(doing, "its root folder is gone")) from None
        except OSError as error:
            raise failure_of(error, doing) or StorageFailed(doing, "its root fails") from error
        if found != self._identity:
            why = "another folder has taken the place of its root; start the service again"
            raise self._told(StorageFailed(doing, why))

    def works(self, doing: str) -> None:
        """The storage was really read or written, so earlier failures are over."""
        if self._seen.pop(doing, None) is not None:
            self._logged.clear()
            self._log.info("the storage can be {doing} again", doing=doing)

    def probe(self, free: int | None) -> StorageState:
        """How the storage is, as far as this can be seen without reading or writing a block."""
        try:
            self.check("read")
            self._check_permission("read", os.R_OK | os.X_OK)
        except StorageFailed as failure:
            return StorageState(free, cannot_read=failure, cannot_write=failure)
        try:
            if self._is_read_only():
                raise StorageFailed("written", reason_of(errno.EROFS))
            self._check_permission("written", os.W_OK)
        except StorageFailed as failure:
            return StorageState(free, cannot_write=failure)
        return StorageState(free)

    def with_what_was_seen(self, state: StorageState) -> StorageState:
        """`state`, and what jobs of the store have failed with in the last half minute."""
        return StorageState(
            state.free,
            cannot_read=state.cannot_read or self._seen_of("read"),
            cannot_write=state.cannot_write or self._seen_of("written"),
        )

    @contextlib.contextmanager
    def _edge(self, doing: str, size: int) -> Iterator[None]:
        try:
            yield
        except (NotFound, PreconditionFailed):
            self.check(doing)
            raise
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                self.check(doing)
                self._check_own(doing)
            failure = failure_of(error, doing, size)
            if failure is None:
                raise
            if isinstance(failure, StorageFailed):
                self._note(failure, error)
            raise failure from error

    def _check_own(self, doing: str) -> None:
        for fd in self._own:
            if self._calls.fstat(fd).st_nlink == 0:
                why = f"a folder in {HIDDEN} was removed; start the service again"
                raise self._told(StorageFailed(doing, why))

    def _check_permission(self, doing: str, mode: int) -> None:
        if not self._calls.may(self.fd, mode):
            raise StorageFailed(doing, reason_of(errno.EACCES))

    def _is_read_only(self) -> bool:
        return bool(self._calls.statvfs(self.fd).f_flag & os.ST_RDONLY)

    def _note(self, failure: StorageFailed, error: OSError) -> None:
        self._told(failure, error.filename)
        if error.errno not in BROKEN:
            return
        with contextlib.suppress(OSError):
            if error.errno == errno.EROFS and self._is_read_only():
                return  # a probe sees when this begins, and when it is over
        self._seen[failure.doing] = failure, self._now_s()

    def _seen_of(self, doing: str) -> StorageFailed | None:
        failure, seen_s = self._seen.get(doing, (None, 0.0))
        return failure if self._now_s() - seen_s < _REMEMBERED_S else None

    def _told(self, failure: StorageFailed, filename: object = None) -> StorageFailed:
        """`failure`, after the log has it."""
        now_s = self._now_s()
        if now_s - self._logged.get(failure.reason, -_REMEMBERED_S) >= _REMEMBERED_S:
            self._logged[failure.reason] = now_s
            where = "" if filename is None else f", at {str(filename)!r}"
            self._log.warn("{reason}{where}", reason=failure.reason, where=where)
        return failure


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino

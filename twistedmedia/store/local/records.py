"""The resumable uploads in a folder: of each, a file with its bytes, and a record of its spec.

The offset of an upload is the size of its file, unless its watermark says less. A record is
replaced in one step, and its extension is the status of the upload. So a crash at any point leaves
a valid state.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from secrets import token_hex

from twisted.logger import Logger

from twistedmedia.errors import NotFound
from twistedmedia.names import is_upload
from twistedmedia.store.interface import UploadSpec, UploadState, UploadStatus
from twistedmedia.store.local.drafts import StoreContext
from twistedmedia.store.local.finished_uploads import FinishedUploads
from twistedmedia.store.local.record_files import (
    BrokenSpec,
    SpecFiles,
    SymlinkTexts,
    Watermark,
    Watermarks,
)
from twistedmedia.store.local.syscalls import opened
from twistedmedia.store.validators import etag_of

BYTES, MARK = ".bytes", ".mark"
ETAG = ".etag"  # the entity tag of the file that an upload has become
NEW = ".new"  # a record that is being written
STORED = ".stored"
RECORDS = {
    UploadStatus.UNFINISHED: ".json",
    UploadStatus.STORED: STORED,
    UploadStatus.TAKEN: ".taken",
}
READ = os.O_RDONLY | os.O_NOFOLLOW
# Each new upload drops up to this many finished ones if there are too many. So their number falls,
# although the new one will be finished, too.
_DROPPED_FOR_ONE = 2


class Records:
    """The uploads in one folder. Everything here blocks and runs in threads.

    A draft that writes to an upload holds a lock on its file. The lock ends with the descriptor,
    and so with the process.
    """

    _log = Logger()

    def __init__(
        self, store: StoreContext, fd: int, *, texts: SymlinkTexts, finished: FinishedUploads
    ) -> None:
        """`fd` is the folder, in the same file system as the media, and `texts` are in it."""
        self.fd = fd
        self.specs = SpecFiles(store.calls, fd, durable=store.durable)
        self.finished = finished
        self.unfinished: set[str] = set()
        self._store = store
        self._calls = store.calls
        self._root = store.root
        self._texts = texts
        self._marks = Watermarks(texts)
        # How many bytes are trusted of uploads whose sync failed, until the others are cut off.
        self._trusted: dict[str, int] = {}
        try:
            self.boot = store.calls.boot_id()
        except OSError:  # then each start counts as a boot
            self.boot = token_hex(16)

    def create(self, upload: str, spec: UploadSpec, etag: str | None) -> None:
        """See `interface.ResumableDrafts`, as for `find`, `declare`, `settle` and `forget`."""
        status = UploadStatus.UNFINISHED if etag is None else UploadStatus.STORED
        with self._root.writing(), contextlib.ExitStack() as undoing:
            self._root.check("written")
            self.drop_surplus(_DROPPED_FOR_ONE)
            undoing.callback(self.forget, upload)
            if etag is None:
                flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY
                fd = self._calls.open(file_of(upload, BYTES), flags, 0o666, dir_fd=self.fd)
                self._calls.close(fd)
            else:
                self._texts.create(file_of(upload, ETAG), etag)
            self._save(upload, spec, status)
            self._root.check("written")
            undoing.pop_all()
        if status is UploadStatus.UNFINISHED:
            self.unfinished.add(upload)
        else:
            self.finished.add(upload, spec.caller)

    def find(self, upload: str, synced: bool) -> UploadState:
        with self._root.reading():
            status, spec = self.load(upload)
            if status is UploadStatus.UNFINISHED:
                return self._find_unfinished(upload, spec, synced)
            found = self._calls.lstat(file_of(upload, RECORDS[status]), dir_fd=self.fd)
            etag = None
            with contextlib.suppress(FileNotFoundError):
                etag = self._texts.read(file_of(upload, ETAG))
            return UploadState(spec, status, spec.length or 0, found.st_mtime_ns, etag)

    def load(self, upload: str) -> tuple[UploadStatus, UploadSpec]:
        """What the record of an upload says.

        :raises NotFound: if there is no valid record.
        """
        if is_upload(upload):
            for status, extension in RECORDS.items():
                with contextlib.suppress(FileNotFoundError):
                    return status, self._read(upload, extension)
        raise NotFound(_NO_UPLOAD)

    def open(self, upload: str, *, provisional: bool) -> tuple[int, int]:
        """Open and lock the file of an unfinished upload for reading and appending. Bytes that do
        not count are cut off. Returns the descriptor, and how many bytes survive a crash of the
        machine. Appended bytes count at once, or, if `provisional`, once they are `confirm`ed.

        :raises NotFound: if the upload does not exist, or is being dropped.
        """
        with _or_not_found():
            flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW
            fd = self._calls.open(file_of(upload, BYTES), flags, dir_fd=self.fd)
        try:
            with _or_not_found():
                self._calls.lock(fd)
            status = self._calls.fstat(fd)
            if status.st_nlink != 1:  # dropped meanwhile, or published
                raise NotFound(_NO_UPLOAD)
            mark = self._marks.read(file_of(upload, MARK))
            size = self._counted(upload, mark, status.st_size)
            synced = size if mark is None else min(mark.synced, size)
            if size < status.st_size:
                self._calls.truncate(fd, size)
            self._trusted.pop(upload, None)
            self._mark(upload, mark, synced, size if provisional else None)
        except BaseException:
            self._calls.close(fd)
            raise
        return fd, synced

    def confirm(self, upload: str, synced: int) -> None:
        """Make all bytes of an upload count, and `synced` of them even after a crash of the
        machine.
        """
        before = self._marks.read(file_of(upload, MARK))
        self._mark(upload, before, synced, None)

    def distrust(self, upload: str, synced: int) -> None:
        """After a failed sync only the first `synced` bytes count, which were synced before. The
        next `open` cuts off the others, so that the client sends them again.
        """
        self._trusted[upload] = synced
        # The mark is for a later process. The storage that failed may refuse it, too. The caller
        # reports the failure of the sync.
        with contextlib.suppress(OSError):
            self._mark(upload, self._marks.read(file_of(upload, MARK)), synced, synced)

    def sync(self) -> None:
        """Bring what was confirmed or finished to stable storage."""
        if self._store.durable:
            self._calls.fsync(self.fd)

    def declare(self, upload: str, length: int) -> None:
        with self._root.reading():
            status, spec = self.load(upload)
        with self._root.writing():
            self._save(upload, replace(spec, length=length), status)
            self._root.check("written")

    def settle(self, upload: str, etag: str | None) -> None:
        """Takes no space. If it fails, the next start repeats it: the file is published already."""
        if not is_upload(upload):
            return
        with self._root.writing():
            self._settle(upload, etag)

    def _settle(self, upload: str, etag: str | None) -> None:
        status = UploadStatus.TAKEN if etag is None else UploadStatus.STORED
        record = file_of(upload, RECORDS[UploadStatus.UNFINISHED])
        settled = file_of(upload, RECORDS[status])
        try:
            # If this fails, the record expires earlier, or has no entity tag.
            with contextlib.suppress(OSError):
                with opened(self._calls, record, READ, dir_fd=self.fd) as fd:
                    self._calls.touch(fd)  # it expires from now on
                if etag is not None:
                    self.unlink(file_of(upload, ETAG))  # left by an attempt that failed
                    self._texts.create(file_of(upload, ETAG), etag)
            with contextlib.suppress(FileNotFoundError):  # it is settled already
                self._calls.rename(record, settled, source_dir_fd=self.fd, dir_fd=self.fd)
                self.unfinished.discard(upload)
                self.finished.add(upload, self.specs.caller(settled))
        finally:  # whatever fails: the complete bytes would be published once more
            self.unlink(file_of(upload, MARK))
            self.unlink(file_of(upload, BYTES))
            self._trusted.pop(upload, None)

    def published(self, upload: str) -> None:
        """Settle an upload whose file has its media name now."""
        with contextlib.suppress(FileNotFoundError):  # a concurrent `find` has settled it
            status = self._calls.lstat(file_of(upload, BYTES), dir_fd=self.fd)
            self.settle(upload, etag_of(status.st_size, status.st_mtime_ns))

    def forget(self, upload: str) -> bool:
        if not is_upload(upload):
            return False
        with self._root.writing():
            found = [self.unlink(file_of(upload, extension)) for extension in RECORDS.values()]
            for extension in (ETAG, MARK, BYTES):
                self.unlink(file_of(upload, extension))
            self._trusted.pop(upload, None)
            self.unfinished.discard(upload)
            self.finished.remove(upload)
            self._root.check("written")  # before the caller learns that there is no such upload
            return any(found)

    def drop_surplus(self, most: int) -> bool:
        """Drop at most `most` finished uploads if there are too many. Returns whether there still
        are.
        """
        for _ in range(most):
            upload = self.finished.surplus()
            if upload is None:
                return False
            self.forget(upload)
        return self.finished.surplus() is not None

    def link(self, upload: str, name: str, dir_fd: int) -> None:
        """Give the file of an upload another name."""
        self._calls.link(file_of(upload, BYTES), name, source_dir_fd=self.fd, dir_fd=dir_fd)

    def unlink(self, name: str) -> bool:
        """Remove a file in the folder. Returns whether it existed."""
        try:
            self._calls.unlink(name, dir_fd=self.fd)
        except (FileNotFoundError, IsADirectoryError):  # a directory is not ours
            return False
        return True

    def _find_unfinished(self, upload: str, spec: UploadSpec, synced: bool) -> UploadState:
        name = file_of(upload, BYTES)
        with _or_not_found():
            found = self._calls.lstat(name, dir_fd=self.fd)
        if not stat.S_ISREG(found.st_mode):
            raise NotFound(_NO_UPLOAD)
        if self._is_published(spec, found):
            etag = etag_of(found.st_size, found.st_mtime_ns)
            self.settle(upload, etag)
            return UploadState(spec, UploadStatus.STORED, found.st_size, found.st_mtime_ns, etag)
        mark = self._marks.read(file_of(upload, MARK))
        size = self._counted(upload, mark, found.st_size)
        if synced and self._store.durable and mark is not None and mark.synced < size:
            with self._root.writing(size):
                try:
                    self._sync_bytes(name)
                except OSError:
                    self.distrust(upload, mark.synced)
                    raise
                self._mark(upload, mark, size, mark.counting)
                self.sync()
        return UploadState(spec, UploadStatus.UNFINISHED, size, found.st_mtime_ns)

    def _sync_bytes(self, name: str) -> None:
        with _or_not_found():
            fd = self._calls.open(name, READ, dir_fd=self.fd)
        try:
            self._calls.fsync(fd)
        finally:
            self._calls.close(fd)

    def _counted(self, upload: str, mark: Watermark | None, size: int) -> int:
        """How many bytes count of the file of an upload, which has `size`."""
        if mark is not None:
            size = mark.counted(size, self.boot)
        return min(size, self._trusted.get(upload, size))

    def _mark(
        self, upload: str, before: Watermark | None, synced: int, counting: int | None
    ) -> None:
        """Write the mark of an upload, unless it is the same as `before`."""
        trusted = self._trusted.get(upload)
        if trusted is not None:
            counting = trusted if counting is None else min(counting, trusted)
        mark = Watermark(self.boot, synced, counting)
        if mark != before:
            self._marks.write(file_of(upload, MARK), mark)

    def _is_published(self, spec: UploadSpec, status: os.stat_result) -> bool:
        """Whether the file has its media name already, because a service was killed, or failed,
        before it could settle the upload. If so, brings the name to stable storage.
        """
        if status.st_nlink == 1:
            return False
        with self._root.writing():
            return self._store.published.confirm(spec.name, (status.st_dev, status.st_ino))

    def _read(self, upload: str, extension: str) -> UploadSpec:
        try:
            return self.specs.read(file_of(upload, extension))
        except BrokenSpec as error:
            self._log.warn("the record of {upload} is broken: {why}", upload=upload, why=str(error))
            raise NotFound(_NO_UPLOAD) from error

    def _save(self, upload: str, spec: UploadSpec, status: UploadStatus) -> None:
        self.specs.write(file_of(upload, RECORDS[status]), spec, new=file_of(upload, NEW))


def file_of(upload: str, extension: str) -> str:
    """The name of a file of an upload. No other text that a client sends gets into such a name.

    :raises NotFound: if `upload` is not a valid id.
    """
    if not is_upload(upload):
        raise NotFound(_NO_UPLOAD)
    return upload + extension


_NO_UPLOAD = "there is no such upload; it may have expired"


@contextlib.contextmanager
def _or_not_found() -> Iterator[None]:
    """Raise NotFound for a file that does not exist, or is locked because it is being dropped."""
    try:
        yield
    except (FileNotFoundError, BlockingIOError):
        raise NotFound(_NO_UPLOAD) from None

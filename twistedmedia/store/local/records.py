"""The folder of unfinished uploads: the bytes of each in one file, and what it is to become in
another, its record. Everything here blocks and runs in threads.

How many bytes there are is the size of the file, as far as its mark lets them count. A record is
replaced in one step; what has become of an upload is its extension. So it does not matter where a
crash comes.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from secrets import token_hex

from twisted.logger import Logger

from twistedmedia.errors import MediaError, NotFound, StorageFailed
from twistedmedia.names import UPLOAD_LENGTH, is_upload
from twistedmedia.store.clock_steps import ClockReading, adjusted_time
from twistedmedia.store.interface import UploadSpec, UploadState, UploadStatus
from twistedmedia.store.local.finished_uploads import FinishedUploads
from twistedmedia.store.local.folders import Folders
from twistedmedia.store.local.record_files import (
    BrokenSpec,
    ClockFile,
    SpecFiles,
    SymlinkTexts,
    Watermark,
    Watermarks,
)
from twistedmedia.store.local.root import Root
from twistedmedia.store.local.syscalls import SystemCalls
from twistedmedia.store.validators import etag_of

_BYTES, _MARK = ".bytes", ".mark"
_ETAG = ".etag"  # a link to the entity tag of what an upload has become
_NEW = ".new"  # a record that is being written
_STORED = ".stored"
_RECORDS = {
    UploadStatus.UNFINISHED: ".json",
    UploadStatus.STORED: _STORED,
    UploadStatus.TAKEN: ".taken",
}
_FINISHED = (UploadStatus.STORED, UploadStatus.TAKEN)
_OF_FINISHED = tuple(_RECORDS[fate] for fate in _FINISHED)
_OF_UNFINISHED = (_BYTES, _MARK, _RECORDS[UploadStatus.UNFINISHED])
# The files whose time is that of an upload: the first of them that there is.
_DATED = (_BYTES, *_OF_FINISHED)
_READ = os.O_RDONLY | os.O_NOFOLLOW
AT_ONCE = 100  # uploads that one job looks at, so that other jobs get their turn
_AHEAD_NS = 10**9  # so far in the future a time is wrong
# If there are too many finished uploads, each upload that begins drops so many of them. So their
# number gets smaller, though the one that begins is to be finished as well.
_DROPPED_FOR_ONE = 2


class Records:
    """Uploads in one folder. Whoever writes to an upload holds a lock on its file, which goes with
    the descriptor and so with the process.
    """

    _log = Logger()

    def __init__(
        self,
        calls: SystemCalls,
        fd: int,
        folders: Folders,
        root: Root,
        *,
        texts: SymlinkTexts,
        clocks: ClockFile,
        finished: FinishedUploads,
        durable: bool,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`fd` is the folder's, in the same file system as the media, and `texts` are in it.
        `now_ns` is the clock of which the file system takes the times of files.
        """
        self.fd = fd
        self._calls = calls
        self._folders = folders
        self._root = root
        self._durable = durable
        self._texts = texts
        self._marks = Watermarks(texts)
        self._plans = SpecFiles(calls, fd, durable=durable)
        self._clocks = clocks
        self._finished = finished
        self._now_ns = now_ns
        # By how much the times of these uploads are to be moved. The clock was stepped while they
        # were written to, or their times are in the future.
        self._to_move: dict[str, int] = {}
        self._is_noted = True
        self._unfinished: set[str] = set()
        # Uploads that were finished before the start: those whose records nobody has read yet,
        # and a heap of the others, the newest first, with when they were finished and by whom.
        self._unread: list[str] = []
        self._read_records: list[tuple[int, str, str]] = []
        # Of uploads whose sync failed, how many bytes are trusted, until the others are cut off.
        self._trusted: dict[str, int] = {}
        try:
            self.boot = calls.boot_id()
        except OSError:  # then every start counts as one
            self.boot = token_hex(16)

    def create(self, upload: str, plan: UploadSpec, etag: str | None) -> None:
        """See `interface.ResumableDrafts`."""
        fate = UploadStatus.UNFINISHED if etag is None else UploadStatus.STORED
        with self._root.writing(), contextlib.ExitStack() as undoing:
            self._root.check("written")
            self._drop_surplus(_DROPPED_FOR_ONE)
            undoing.callback(self.forget, upload)
            if etag is None:
                flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY
                fd = self._calls.open(_file(upload, _BYTES), flags, 0o666, dir_fd=self.fd)
                self._calls.close(fd)
            else:
                self._texts.create(_file(upload, _ETAG), etag)
            self._save(upload, plan, fate)
            self._root.check("written")
            undoing.pop_all()
        if fate is UploadStatus.UNFINISHED:
            self._unfinished.add(upload)
        else:
            self._finished.add(upload, plan.caller)

    def find(self, upload: str, *, synced: bool) -> UploadState:
        """See `interface.ResumableDrafts`."""
        with self._root.reading():
            fate, plan = self._load(upload)
            if fate is UploadStatus.UNFINISHED:
                return self._find_unfinished(upload, plan, synced)
            status = self._calls.lstat(_file(upload, _RECORDS[fate]), dir_fd=self.fd)
            etag = None
            with contextlib.suppress(FileNotFoundError):
                etag = self._texts.read(_file(upload, _ETAG))
            return UploadState(plan, fate, plan.length or 0, status.st_mtime_ns, etag)

    def open(self, upload: str, *, provisional: bool) -> tuple[int, int]:
        """A descriptor for reading and appending, locked, of what counts of an unfinished upload,
        and how much of that survives the machine. What is appended counts at once unless it is
        `provisional`: then when it is `confirm`ed.

        :raises NotFound: when there is no such upload, or it is being dropped.
        """
        with _or_not_found():
            flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW
            fd = self._calls.open(_file(upload, _BYTES), flags, dir_fd=self.fd)
        try:
            with _or_not_found():
                self._calls.lock(fd)
            status = self._calls.fstat(fd)
            if status.st_nlink != 1:  # dropped meanwhile, or published
                raise NotFound(_NO_UPLOAD)
            mark = self._marks.read(_file(upload, _MARK))
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
        """All bytes that an upload has count, and `synced` survive the machine."""
        before = self._marks.read(_file(upload, _MARK))
        self._mark(upload, before, synced, None)

    def distrust(self, upload: str, synced: int) -> None:
        """A sync of the bytes of an upload failed: no more than the first `synced` count, which
        were synced before. The next `open` cuts off the others, so that the client sends them
        again.
        """
        self._trusted[upload] = synced
        # The mark is for a later process. The storage that failed may not take it either; the
        # failure of the sync is the one to tell.
        with contextlib.suppress(OSError):
            self._mark(upload, self._marks.read(_file(upload, _MARK)), synced, synced)

    def sync(self) -> None:
        """What was confirmed, or ended, survives the machine too."""
        if self._durable:
            self._calls.fsync(self.fd)

    def declare(self, upload: str, length: int) -> None:
        """See `interface.ResumableDrafts`."""
        with self._root.reading():
            fate, plan = self._load(upload)
        with self._root.writing():
            self._save(upload, replace(plan, length=length), fate)
            self._root.check("written")

    def settle(self, upload: str, etag: str | None) -> None:
        """See `interface.ResumableDrafts`. Takes no space, and what fails here is done at the next
        start: the file is published all the same.
        """
        if not is_upload(upload):
            return
        with self._root.writing():
            self._settle(upload, etag)

    def _settle(self, upload: str, etag: str | None) -> None:
        fate = UploadStatus.TAKEN if etag is None else UploadStatus.STORED
        record = _file(upload, _RECORDS[UploadStatus.UNFINISHED])
        try:
            with contextlib.suppress(OSError):  # then it expires earlier, or is less well known
                self._touch(record)
                if etag is not None:
                    self._unlink(_file(upload, _ETAG))  # of what it did not become after all
                    self._texts.create(_file(upload, _ETAG), etag)
            with contextlib.suppress(FileNotFoundError):  # it is settled
                self._calls.rename(
                    record, _file(upload, _RECORDS[fate]), source_dir_fd=self.fd, dir_fd=self.fd
                )
                self._unfinished.discard(upload)
                self._finished.add(upload, self._plans.caller(_file(upload, _RECORDS[fate])))
        finally:  # whatever fails: else all of it would lie there to be published once more
            self._unlink(_file(upload, _MARK))
            self._unlink(_file(upload, _BYTES))
            self._trusted.pop(upload, None)

    def published(self, upload: str) -> None:
        """The file of an upload has its media name."""
        with contextlib.suppress(FileNotFoundError):  # somebody has looked, and settled it
            status = self._calls.lstat(_file(upload, _BYTES), dir_fd=self.fd)
            self.settle(upload, etag_of(status.st_size, status.st_mtime_ns))

    def _touch(self, name: str) -> None:
        """So that it expires from now on."""
        fd = self._calls.open(name, _READ, dir_fd=self.fd)
        try:
            self._calls.touch(fd)
        finally:
            self._calls.close(fd)

    def forget(self, upload: str) -> bool:
        """See `interface.ResumableDrafts`."""
        if not is_upload(upload):
            return False
        with self._root.writing():
            found = [self._unlink(_file(upload, extension)) for extension in _RECORDS.values()]
            for extension in (_ETAG, _MARK, _BYTES):
                self._unlink(_file(upload, extension))
            self._trusted.pop(upload, None)
            self._unfinished.discard(upload)
            self._finished.remove(upload)
            self._root.check("written")  # before we say that it is gone, or was not there
            return any(found)

    def link(self, upload: str, name: str, dir_fd: int) -> None:
        """Give the content of an upload one name more."""
        self._calls.link(_file(upload, _BYTES), name, source_dir_fd=self.fd, dir_fd=dir_fd)

    def expirable(self, spared: Collection[str]) -> Iterator[str]:
        """The uploads that `expire` looks at: all unfinished ones but those that are `spared`. Then
        the finished ones of each caller, the oldest first, until one of them stays. So take the
        next one after the one before was looked at.
        """
        yield from self._unfinished.difference(spared)
        for caller in self._finished.callers():
            last = None
            while (upload := self._finished.oldest(caller)) is not None and upload != last:
                yield upload
                last = upload

    def expire(self, uploads: Iterable[str], before_ns: int) -> list[str]:
        """Drop those of `uploads` that were last written to before that time, but those that are
        being written to. Returns the dropped ones.
        """
        expired = []

        def expire(upload: str) -> None:
            with self._root.reading():
                written_ns = self._written_ns(upload)
            if written_ns is None:  # gone: an administrator may remove files
                self.forget(upload)
                expired.append(upload)
            elif written_ns < before_ns:
                with self._root.writing():
                    if self._drop(upload, before_ns):
                        expired.append(upload)

        self._each(uploads, expire)
        return expired

    def unfinished(self) -> Iterator[str]:
        """The uploads that are unfinished now."""
        return iter(self._unfinished.copy())

    def callers(self, uploads: Iterable[str]) -> dict[str, str]:
        """Whose those of `uploads` are that are unfinished."""
        found = {}

        def find(upload: str) -> None:
            with self._root.reading():
                fate, plan = self._load(upload)
                if fate is UploadStatus.UNFINISHED:
                    found[upload] = plan.caller

        self._each(uploads, find)
        return found

    @property
    def is_swept(self) -> bool:
        """Whether no `sweep` is to come, or under way."""
        return self._folders.swept.is_set()

    def sweep_later(self) -> None:
        """`sweep` will be called in a thread. Until that has ended nothing else may be."""
        self._folders.swept.clear()

    def sweep(self) -> None:
        """Finish what a killed service has left half done, at the start. Finished uploads, which
        may be many, are only listed.
        """
        try:
            self._sweep_all()
        finally:
            self._folders.swept.set()

    def _sweep_all(self) -> None:
        # Without a look at each name: there may be 200,000.
        uploads: defaultdict[str, list[str]] = defaultdict(list)  # by the extension of a file
        with self._root.writing():  # a folder that is not listed in time is a storage that hangs
            names = self._calls.listdir(self.fd)
        for name in names:
            uploads[name[UPLOAD_LENGTH:]].append(name[:UPLOAD_LENGTH])
        half_done = set(uploads[_ETAG]).difference(uploads[_STORED])
        half_written: list[str] = []
        for extension, found in uploads.items():
            if extension in _OF_FINISHED:
                self._unread += filter(is_upload, found)
            elif extension.startswith(".") and extension.endswith(_NEW):  # marks, too
                half_written += [upload + extension for upload in found if is_upload(upload)]
            elif extension in _OF_UNFINISHED:
                half_done.update(found)
        self._unfinished.update(filter(is_upload, uploads[_RECORDS[UploadStatus.UNFINISHED]]))
        self._finished.expect(self._unread)
        self._each(half_written, self._unlink)
        self._each(filter(is_upload, half_done), self._sweep)

    def learn(self) -> bool:
        """Find out whose some of the uploads are that were finished before the start, and drop some
        if there are too many. Returns whether there is more to do.
        """
        with self._root.reading():
            uploads = self._unread[-AT_ONCE:]
            del self._unread[-AT_ONCE:]
            for upload in uploads:
                self._read_record(upload)
        if uploads:
            return True
        for _ in range(min(AT_ONCE, len(self._read_records))):
            _, upload, caller = heapq.heappop(self._read_records)
            self._finished.add_expected(upload, caller)
        return self._drop_surplus(AT_ONCE) or bool(self._read_records)

    def _read_record(self, upload: str) -> None:
        """Read when an upload was finished, and by whom."""
        for extension in _OF_FINISHED:
            try:
                status = self._calls.lstat(_file(upload, extension), dir_fd=self.fd)
            except FileNotFoundError:
                continue
            except OSError:  # its time is not known: it goes first if there are too many
                at_ns = 0
            else:
                at_ns = status.st_mtime_ns
            if at_ns > self._now_ns() + _AHEAD_NS:
                self._to_move.setdefault(upload, 0)
            caller = self._plans.caller(_file(upload, extension))
            return heapq.heappush(self._read_records, (-at_ns, upload, caller))
        self._finished.remove(upload)

    def _drop_surplus(self, most: int) -> bool:
        """Drop at most so many of the finished uploads that are too many; whether some are left."""
        for _ in range(most):
            upload = self._finished.surplus()
            if upload is None:
                return False
            self.forget(upload)
        return self._finished.surplus() is not None

    def stepped(self, now: ClockReading) -> tuple[int | None, Iterator[str]]:
        """By how much the wall clock was stepped since the last reading, None if there is no such
        reading; and the uploads that `move` is to look at.
        """
        with self._root.reading():
            step_ns = self._clocks.step_to(now)
        uploads = {*self._unfinished, *self._to_move}
        if step_ns:
            uploads.update(self._finished.all())
        return step_ns, iter(uploads)

    def move(self, uploads: Iterable[str], step_ns: int | None, now_ns: int) -> None:
        """Have uploads be as old as they were before the clock was stepped to `now_ns`."""

        def move(upload: str) -> None:
            # Without a step, times are wrong that are in the future.
            if step_ns != 0 or upload in self._to_move or self._is_ahead(upload, now_ns):
                with self._root.writing():
                    self._move(upload, step_ns or 0, now_ns)

        self._each(uploads, move)

    def note(self, now: ClockReading) -> None:
        """All times fit to this reading of the clocks, but those that are still to be moved. Until
        they are, a later process goes by the reading before.
        """
        try:
            with self._root.writing():
                self._clocks.note(now, for_later=not self._to_move)
            self._is_noted = True
        except (OSError, MediaError) as error:  # this process sees the next step all the same
            if self._is_noted:
                self._log.warn("the time could not be noted: {why}", why=str(error))
            self._is_noted = False

    def _move(self, upload: str, step_ns: int, now_ns: int) -> None:
        step_ns += self._to_move.pop(upload, 0)
        for extension in _DATED:
            try:
                fd = self._calls.open(_file(upload, extension), _READ, dir_fd=self.fd)
            except FileNotFoundError:
                continue
            try:
                self._calls.lock(fd)
                status = self._calls.fstat(fd)
                time_ns = adjusted_time(status.st_mtime_ns, step_ns, now_ns)
                # A file with one name more is published: its time belongs to its entity tag.
                if time_ns != status.st_mtime_ns and status.st_nlink == 1:
                    self._calls.set_modified(fd, time_ns)
            except BlockingIOError:  # somebody writes to it: the next time
                self._to_move[upload] = step_ns
            finally:
                self._calls.close(fd)

    def _sweep(self, upload: str) -> None:
        try:
            kept = self.find(upload, synced=False)  # which settles what was published
        except NotFound:
            self._log.info("swept an upload without a record: {upload}", upload=upload)
            self.forget(upload)
        else:
            if kept.status is not UploadStatus.UNFINISHED:
                self.settle(upload, kept.etag)

    def _each(self, uploads: Iterable[str], job: Callable[[str], object]) -> None:
        """Do a job for many uploads. If it fails for one, the others are done all the same. `Root`
        has logged the failures of the storage, each kind once.

        :raises StorageFailed: if the storage failed, and the job was done for none.
        """
        failure, done = None, False
        for upload in uploads:
            try:
                job(upload)
                done = True
            except NotFound:  # gone since
                pass
            except StorageFailed as error:
                failure = error
            except (OSError, MediaError) as error:
                self._warn(upload, error)
        if failure is not None and not done:
            raise failure

    def _warn(self, upload: str, error: Exception) -> None:
        self._log.warn(
            "upload {upload} cannot be looked after: {why}", upload=upload, why=str(error)
        )

    def _find_unfinished(self, upload: str, plan: UploadSpec, synced: bool) -> UploadState:
        bytes_ = _file(upload, _BYTES)
        with _or_not_found():
            status = self._calls.lstat(bytes_, dir_fd=self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotFound(_NO_UPLOAD)
        if self._is_published(plan, status):
            etag = etag_of(status.st_size, status.st_mtime_ns)
            self.settle(upload, etag)
            return UploadState(plan, UploadStatus.STORED, status.st_size, status.st_mtime_ns, etag)
        mark = self._marks.read(_file(upload, _MARK))
        size = self._counted(upload, mark, status.st_size)
        if synced and self._durable and mark is not None and mark.synced < size:
            with self._root.writing(size):
                try:
                    self._sync_bytes(bytes_)
                except OSError:
                    self.distrust(upload, mark.synced)
                    raise
                self._mark(upload, mark, size, mark.counting)
                self.sync()
        return UploadState(plan, UploadStatus.UNFINISHED, size, status.st_mtime_ns)

    def _sync_bytes(self, name: str) -> None:
        with _or_not_found():
            fd = self._calls.open(name, _READ, dir_fd=self.fd)
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
        """Have the mark of an upload, which was `before`, say this."""
        trusted = self._trusted.get(upload)
        if trusted is not None:
            counting = trusted if counting is None else min(counting, trusted)
        mark = Watermark(self.boot, synced, counting)
        if mark != before:
            self._marks.write(_file(upload, _MARK), mark)

    def _is_published(self, plan: UploadSpec, status: os.stat_result) -> bool:
        """Whether a service that was killed before it could say so, or could not, has published
        this. If so, that is on stable storage.
        """
        if status.st_nlink == 1:
            return False
        with self._root.writing():
            return self._folders.confirm(plan.name, (status.st_dev, status.st_ino))

    def _is_ahead(self, upload: str, now_ns: int) -> bool:
        """Whether an unfinished upload was written to in the future."""
        with self._root.reading(), contextlib.suppress(FileNotFoundError):
            status = self._calls.lstat(_file(upload, _BYTES), dir_fd=self.fd)
            return status.st_mtime_ns > now_ns + _AHEAD_NS
        return False

    def _written_ns(self, upload: str) -> int | None:
        """When an upload was written to last. None if it is gone."""
        for extension in _DATED:
            with contextlib.suppress(FileNotFoundError):
                return self._calls.lstat(_file(upload, extension), dir_fd=self.fd).st_mtime_ns
        return None

    def _drop(self, upload: str, before_ns: int) -> bool:
        """Drop an upload, unless somebody is writing to it, or has written since, or its time is
        from before a step of the clock.
        """
        if upload in self._to_move:
            return False
        try:
            fd = self._calls.open(_file(upload, _BYTES), _READ, dir_fd=self.fd)
        except FileNotFoundError:
            return self.forget(upload)
        try:
            self._calls.lock(fd)
            return self._calls.fstat(fd).st_mtime_ns < before_ns and self.forget(upload)
        except BlockingIOError:
            return False
        finally:
            self._calls.close(fd)

    def _load(self, upload: str) -> tuple[UploadStatus, UploadSpec]:
        if is_upload(upload):
            for fate, extension in _RECORDS.items():
                with contextlib.suppress(FileNotFoundError):
                    return fate, self._read(upload, extension)
        raise NotFound(_NO_UPLOAD)

    def _read(self, upload: str, extension: str) -> UploadSpec:
        try:
            return self._plans.read(_file(upload, extension))
        except BrokenSpec as error:
            self._log.warn("the record of {upload} is broken: {why}", upload=upload, why=str(error))
            raise NotFound(_NO_UPLOAD) from error

    def _save(self, upload: str, plan: UploadSpec, fate: UploadStatus) -> None:
        self._plans.write(_file(upload, _RECORDS[fate]), plan, new=_file(upload, _NEW))

    def _unlink(self, name: str) -> bool:
        try:
            self._calls.unlink(name, dir_fd=self.fd)
        except (FileNotFoundError, IsADirectoryError):  # or nothing of ours
            return False
        return True


def _file(upload: str, extension: str) -> str:
    """The name of a file of an upload. Nothing else that a client sends comes near such a name.

    :raises NotFound: when that is the id of no upload.
    """
    if not is_upload(upload):
        raise NotFound(_NO_UPLOAD)
    return upload + extension


_NO_UPLOAD = "there is no such upload; it may have expired"


@contextlib.contextmanager
def _or_not_found() -> Iterator[None]:
    """What is not there, and what is locked because it is being dropped."""
    try:
        yield
    except (FileNotFoundError, BlockingIOError):
        raise NotFound(_NO_UPLOAD) from None

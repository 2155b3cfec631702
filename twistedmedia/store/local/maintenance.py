"""Work on all resumable uploads of a store: the sweep at the start, expiry, and clock steps."""

from __future__ import annotations

import contextlib
import heapq
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator

from twisted.logger import Logger

from twistedmedia.errors import MediaError, NotFound, StorageFailed
from twistedmedia.names import UPLOAD_LENGTH, is_upload
from twistedmedia.store.clock_steps import ClockReading, adjusted_time
from twistedmedia.store.interface import UploadStatus
from twistedmedia.store.local.record_files import ClockFile
from twistedmedia.store.local.records import (
    BYTES,
    ETAG,
    MARK,
    NEW,
    READ,
    RECORDS,
    STORED,
    Records,
    file_of,
)
from twistedmedia.store.local.root import Root
from twistedmedia.store.local.syscalls import SystemCalls, opened

AT_ONCE = 100  # uploads that one job looks at, so that other jobs get their turn

_OF_FINISHED = (STORED, RECORDS[UploadStatus.TAKEN])
_OF_UNFINISHED = (BYTES, MARK, RECORDS[UploadStatus.UNFINISHED])
# The time of an upload is that of the first of these files that exists.
_DATED = (BYTES, *_OF_FINISHED)
_AHEAD_NS = 10**9  # a time that is further in the future than this is wrong


class UploadMaintenance:
    """Looks after the uploads of `Records`. Everything here blocks and runs in threads."""

    _log = Logger()

    def __init__(
        self,
        calls: SystemCalls,
        root: Root,
        records: Records,
        clocks: ClockFile,
        swept: threading.Event,
        *,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`swept` is cleared while a sweep is due or under way. `now_ns` is the clock of which the
        file system takes the times of files.
        """
        self._calls = calls
        self._root = root
        self._records = records
        self._clocks = clocks
        self._swept = swept
        self._now_ns = now_ns
        # By how much the times of these uploads are still to be moved. The clock was stepped while
        # they were written to, or their times are in the future.
        self._to_move: dict[str, int] = {}
        self._is_noted = True
        # Uploads that were finished before the start: those whose records are not read yet, and a
        # heap of the others, the newest first, with the times and the callers.
        self._unread: list[str] = []
        self._read_records: list[tuple[int, str, str]] = []

    @property
    def is_swept(self) -> bool:
        """Whether no `sweep` is due or under way."""
        return self._swept.is_set()

    def sweep_later(self) -> None:
        """Announce a `sweep` in a thread. Until it has ended, no other work on uploads is done."""
        self._swept.clear()

    def sweep(self) -> None:
        """Finish at the start what a killed service has left half done. Finished uploads, which may
        be many, are only listed.
        """
        try:
            self._sweep_all()
        finally:
            self._swept.set()

    def learn(self) -> bool:
        """Read some records of the uploads that were finished before the start, and drop some
        uploads if there are too many. Returns whether there is more to do.
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
            self._records.finished.add_expected(upload, caller)
        return self._records.drop_surplus(AT_ONCE) or bool(self._read_records)

    def unfinished(self) -> Iterator[str]:
        """The uploads that are unfinished now."""
        return iter(self._records.unfinished.copy())

    def callers(self, uploads: Iterable[str]) -> dict[str, str]:
        """The callers of those of `uploads` that are unfinished."""
        found = {}

        def find(upload: str) -> None:
            with self._root.reading():
                status, spec = self._records.load(upload)
                if status is UploadStatus.UNFINISHED:
                    found[upload] = spec.caller

        self._each(uploads, find)
        return found

    def expirable(self, spared: Collection[str]) -> Iterator[str]:
        """The uploads that `expire` has to look at: all unfinished ones that are not `spared`, then
        the finished ones of each caller, the oldest first, until one of them stays. So the next one
        may be taken only after `expire` has looked at the one before.
        """
        finished = self._records.finished
        yield from self._records.unfinished.difference(spared)
        for caller in finished.callers():
            last = None
            while (upload := finished.oldest(caller)) is not None and upload != last:
                yield upload
                last = upload

    def expire(self, uploads: Iterable[str], before_ns: int) -> list[str]:
        """Drop those of `uploads` that were last written to before that time and are not being
        written to. Returns the dropped ones.
        """
        expired = []

        def expire(upload: str) -> None:
            with self._root.reading():
                written_ns = self._written_ns(upload)
            if written_ns is None:  # gone: an administrator may remove files
                self._records.forget(upload)
                expired.append(upload)
            elif written_ns < before_ns:
                with self._root.writing():
                    if self._drop(upload, before_ns):
                        expired.append(upload)

        self._each(uploads, expire)
        return expired

    def stepped(self, now: ClockReading) -> tuple[int | None, Iterator[str]]:
        """By how many nanoseconds the wall clock was stepped since the last reading, None if there
        is no such reading; and the uploads that `move` has to look at.
        """
        with self._root.reading():
            step_ns = self._clocks.step_to(now)
        uploads = {*self._records.unfinished, *self._to_move}
        if step_ns:
            uploads.update(self._records.finished.all())
        return step_ns, iter(uploads)

    def move(self, uploads: Iterable[str], step_ns: int | None, now_ns: int) -> None:
        """Move the times of uploads by a step of the clock to `now_ns`, so that their ages stay."""

        def move(upload: str) -> None:
            # Without a step, times in the future are wrong.
            if step_ns != 0 or upload in self._to_move or self._is_ahead(upload, now_ns):
                with self._root.writing():
                    self._move(upload, step_ns or 0, now_ns)

        self._each(uploads, move)

    def note(self, now: ClockReading) -> None:
        """Record that the times of uploads fit this reading of the clocks. While some are still to
        be moved, only this process uses it. A later process then uses the reading before.
        """
        try:
            with self._root.writing():
                self._clocks.note(now, for_later=not self._to_move)
            self._is_noted = True
        except (OSError, MediaError) as error:  # this process sees the next step all the same
            if self._is_noted:
                self._log.warn("the time could not be noted: {why}", why=str(error))
            self._is_noted = False

    def _sweep_all(self) -> None:
        # Without a system call for each name: there may be 200,000.
        uploads: defaultdict[str, list[str]] = defaultdict(list)  # by the extension of a file
        with self._root.writing():  # a listing that takes too long means that the storage hangs
            names = self._calls.listdir(self._records.fd)
        for name in names:
            uploads[name[UPLOAD_LENGTH:]].append(name[:UPLOAD_LENGTH])
        half_done = set(uploads[ETAG]).difference(uploads[STORED])
        half_written: list[str] = []
        for extension, found in uploads.items():
            if extension in _OF_FINISHED:
                self._unread += filter(is_upload, found)
            elif extension.startswith(".") and extension.endswith(NEW):  # marks, too
                half_written += [upload + extension for upload in found if is_upload(upload)]
            elif extension in _OF_UNFINISHED:
                half_done.update(found)
        unfinished = filter(is_upload, uploads[RECORDS[UploadStatus.UNFINISHED]])
        self._records.unfinished.update(unfinished)
        self._records.finished.expect(self._unread)
        self._each(half_written, self._records.unlink)
        self._each(filter(is_upload, half_done), self._sweep)

    def _sweep(self, upload: str) -> None:
        try:
            state = self._records.find(upload, synced=False)  # this settles a published upload
        except NotFound:
            self._log.info("swept an upload without a record: {upload}", upload=upload)
            self._records.forget(upload)
        else:
            if state.status is not UploadStatus.UNFINISHED:
                self._records.settle(upload, state.etag)

    def _read_record(self, upload: str) -> None:
        """Read when an upload was finished, and by which caller."""
        for extension in _OF_FINISHED:
            name = file_of(upload, extension)
            try:
                at_ns = self._calls.lstat(name, dir_fd=self._records.fd).st_mtime_ns
            except FileNotFoundError:
                continue
            except OSError:  # its time is not known: it goes first if there are too many
                at_ns = 0
            if at_ns > self._now_ns() + _AHEAD_NS:
                self._to_move.setdefault(upload, 0)
            caller = self._records.specs.caller(name)
            return heapq.heappush(self._read_records, (-at_ns, upload, caller))
        self._records.finished.remove(upload)

    def _written_ns(self, upload: str) -> int | None:
        """When an upload was last written to. None if it is gone."""
        for extension in _DATED:
            with contextlib.suppress(FileNotFoundError):
                name = file_of(upload, extension)
                return self._calls.lstat(name, dir_fd=self._records.fd).st_mtime_ns
        return None

    def _drop(self, upload: str, before_ns: int) -> bool:
        """Drop an upload, unless it is being written to, or was written to since, or its time is
        from before a step of the clock.
        """
        if upload in self._to_move:
            return False
        try:
            fd = self._calls.open(file_of(upload, BYTES), READ, dir_fd=self._records.fd)
        except FileNotFoundError:
            return self._records.forget(upload)
        try:
            self._calls.lock(fd)
            is_old = self._calls.fstat(fd).st_mtime_ns < before_ns
            return is_old and self._records.forget(upload)
        except BlockingIOError:
            return False
        finally:
            self._calls.close(fd)

    def _is_ahead(self, upload: str, now_ns: int) -> bool:
        """Whether the time of an unfinished upload is in the future."""
        with self._root.reading(), contextlib.suppress(FileNotFoundError):
            status = self._calls.lstat(file_of(upload, BYTES), dir_fd=self._records.fd)
            return status.st_mtime_ns > now_ns + _AHEAD_NS
        return False

    def _move(self, upload: str, step_ns: int, now_ns: int) -> None:
        step_ns += self._to_move.pop(upload, 0)
        for extension in _DATED:
            name = file_of(upload, extension)
            with (
                contextlib.suppress(FileNotFoundError),
                opened(self._calls, name, READ, dir_fd=self._records.fd) as fd,
            ):
                try:
                    self._calls.lock(fd)
                except BlockingIOError:  # it is being written to: move it the next time
                    self._to_move[upload] = step_ns
                    continue
                status = self._calls.fstat(fd)
                time_ns = adjusted_time(status.st_mtime_ns, step_ns, now_ns)
                # A file with a second name is published: its time is part of its entity tag.
                if time_ns != status.st_mtime_ns and status.st_nlink == 1:
                    self._calls.set_modified(fd, time_ns)

    def _each(self, uploads: Iterable[str], job: Callable[[str], object]) -> None:
        """Do a job for many uploads. If it fails for one, the others are still done. `Root` logs
        each kind of failure of the storage once.

        :raises StorageFailed: if the storage failed and the job was done for none.
        """
        failure, done = None, False
        for upload in uploads:
            try:
                job(upload)
                done = True
            except NotFound:  # removed meanwhile
                pass
            except StorageFailed as error:
                failure = error
            except (OSError, MediaError) as error:
                self._log.warn(
                    "upload {upload} cannot be looked after: {why}", upload=upload, why=str(error)
                )
        if failure is not None and not done:
            raise failure

"""The folder of unfinished uploads: the bytes of each in one file, and what it is to become in
another, its record. Everything here blocks and runs in threads.

How many bytes there are is the size of the file, as far as its mark lets them count. A record is
replaced in one step; what has become of an upload is its extension. So it does not matter where a
crash comes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from secrets import token_hex
from typing import Any

from twisted.logger import Logger

from twistedmedia.boundaries import Fate, Kept, Plan
from twistedmedia.errors import MediaError, NotFound, StorageFailed
from twistedmedia.names import is_upload, media_name
from twistedmedia.store.calls import SystemCalls
from twistedmedia.store.folders import Folders
from twistedmedia.store.marks import Mark, Marks
from twistedmedia.store.root import Root
from twistedmedia.store.validators import etag_of

_BYTES, _MARK = ".bytes", ".mark"
_ETAG = ".etag"  # a link to the entity tag of what an upload has become
_NEW = ".new"  # a record that is being written
_RECORDS = {Fate.UNFINISHED: ".json", Fate.STORED: ".stored", Fate.TAKEN: ".taken"}
_MOST_RECORD_BYTES = 256 << 10  # a plan comes in the headers of one request, which have 32 KiB
_READ = os.O_RDONLY | os.O_NOFOLLOW


class Records:
    """Uploads in one folder. Whoever writes to an upload holds a lock on its file, which goes with
    the descriptor and so with the process.
    """

    _log = Logger()

    def __init__(
        self, calls: SystemCalls, fd: int, folders: Folders, root: Root, *, durable: bool
    ) -> None:
        """`fd` is the folder's, in the same file system as the media."""
        self.fd = fd
        self._calls = calls
        self._folders = folders
        self._root = root
        self._durable = durable
        self._marks = Marks(calls, fd)
        # Of uploads whose sync failed, how many bytes are trusted, until the others are cut off.
        self._trusted: dict[str, int] = {}
        try:
            self._boot = calls.boot_id()
        except OSError:  # then every start counts as one
            self._boot = token_hex(16)

    def create(self, upload: str, plan: Plan, etag: str | None) -> None:
        """See `boundaries.KeptDrafts`."""
        fate = Fate.UNFINISHED if etag is None else Fate.STORED
        with self._root.writing(), contextlib.ExitStack() as undoing:
            self._root.check("written")
            undoing.callback(self.forget, upload)
            if etag is None:
                flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY
                fd = self._calls.open(_file(upload, _BYTES), flags, 0o666, dir_fd=self.fd)
                self._calls.close(fd)
            else:
                self._calls.symlink(etag, _file(upload, _ETAG), dir_fd=self.fd)
            self._save(upload, plan, fate)
            self._root.check("written")
            undoing.pop_all()

    def find(self, upload: str, *, synced: bool) -> Kept:
        """See `boundaries.KeptDrafts`."""
        with self._root.reading():
            fate, plan = self._load(upload)
            if fate is Fate.UNFINISHED:
                return self._find_unfinished(upload, plan, synced)
            status = self._calls.lstat(_file(upload, _RECORDS[fate]), dir_fd=self.fd)
            etag = None
            with contextlib.suppress(FileNotFoundError):
                etag = self._calls.readlink(_file(upload, _ETAG), dir_fd=self.fd)
            return Kept(plan, fate, plan.length or 0, status.st_mtime_ns, etag)

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
        """See `boundaries.KeptDrafts`."""
        with self._root.reading():
            fate, plan = self._load(upload)
        with self._root.writing():
            self._save(upload, replace(plan, length=length), fate)
            self._root.check("written")

    def settle(self, upload: str, etag: str | None) -> None:
        """See `boundaries.KeptDrafts`. Takes no space, and what fails here is done at the next
        start: the file is published all the same.
        """
        if not is_upload(upload):
            return
        with self._root.writing():
            self._settle(upload, etag)

    def _settle(self, upload: str, etag: str | None) -> None:
        fate = Fate.TAKEN if etag is None else Fate.STORED
        record = _file(upload, _RECORDS[Fate.UNFINISHED])
        try:
            with contextlib.suppress(OSError):  # then it expires earlier, or is less well known
                self._touch(record)
                if etag is not None:
                    self._unlink(_file(upload, _ETAG))  # of what it did not become after all
                    self._calls.symlink(etag, _file(upload, _ETAG), dir_fd=self.fd)
            with contextlib.suppress(FileNotFoundError):  # it is settled
                self._calls.rename(
                    record, _file(upload, _RECORDS[fate]), source_dir_fd=self.fd, dir_fd=self.fd
                )
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
        """See `boundaries.KeptDrafts`."""
        if not is_upload(upload):
            return False
        with self._root.writing():
            found = [self._unlink(_file(upload, extension)) for extension in _RECORDS.values()]
            for extension in (_ETAG, _MARK, _BYTES):
                self._unlink(_file(upload, extension))
            self._trusted.pop(upload, None)
            self._root.check("written")  # before we say that it is gone, or was not there
            return any(found)

    def link(self, upload: str, name: str, dir_fd: int) -> None:
        """Give the content of an upload one name more."""
        self._calls.link(_file(upload, _BYTES), name, source_dir_fd=self.fd, dir_fd=dir_fd)

    def expire(self, before_ns: int) -> list[str]:
        """See `boundaries.KeptDrafts`."""
        expired = []

        def expire(upload: str, extension: str) -> None:
            with self._root.writing():
                if self._is_older(upload, extension, before_ns) and self._drop(upload, before_ns):
                    expired.append(upload)

        with self._root.reading():
            names = self._names(*_RECORDS.values())
        self._each(names, expire)
        return expired

    def callers(self) -> dict[str, str]:
        """See `boundaries.KeptDrafts`."""
        found = {}

        def find(upload: str, _: str) -> None:
            with self._root.reading():
                found[upload] = self._load(upload)[1].caller

        with self._root.reading():
            names = self._names(_RECORDS[Fate.UNFINISHED])
        self._each(names, find)
        return found

    def sweep(self) -> None:
        """Finish what a killed service has left half done: at the start, before anybody may ask."""
        for name in self._calls.listdir(self.fd):
            if is_upload(name.partition(".")[0]) and name.endswith(_NEW):  # marks, too
                self._unlink(name)
        whole = (_BYTES, _MARK, _ETAG, _RECORDS[Fate.UNFINISHED])
        self._each(dict(self._names(*whole)).items(), self._sweep)

    def _sweep(self, upload: str, _: str) -> None:
        try:
            kept = self.find(upload, synced=False)  # which settles what was published
        except NotFound:
            self._log.info("swept an upload without a record: {upload}", upload=upload)
            self.forget(upload)
        else:
            if kept.fate is not Fate.UNFINISHED:
                self.settle(upload, kept.etag)

    def _each(self, names: Iterable[tuple[str, str]], job: Callable[[str, str], None]) -> None:
        """Do a job for many uploads. If it fails for one, the others are done all the same. `Root`
        has logged the failures of the storage, each kind once.

        :raises StorageFailed: if the storage failed, and the job was done for none.
        """
        failure, done = None, False
        for upload, extension in names:
            try:
                job(upload, extension)
                done = True
            except NotFound:  # gone since
                pass
            except StorageFailed as error:
                failure = error
            except (OSError, MediaError) as error:
                self._log.warn(
                    "upload {upload} cannot be looked after: {why}", upload=upload, why=str(error)
                )
        if failure is not None and not done:
            raise failure

    def _find_unfinished(self, upload: str, plan: Plan, synced: bool) -> Kept:
        bytes_ = _file(upload, _BYTES)
        with _or_not_found():
            status = self._calls.lstat(bytes_, dir_fd=self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotFound(_NO_UPLOAD)
        if self._is_published(plan, status):
            etag = etag_of(status.st_size, status.st_mtime_ns)
            self.settle(upload, etag)
            return Kept(plan, Fate.STORED, status.st_size, status.st_mtime_ns, etag)
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
        return Kept(plan, Fate.UNFINISHED, size, status.st_mtime_ns)

    def _sync_bytes(self, name: str) -> None:
        with _or_not_found():
            fd = self._calls.open(name, _READ, dir_fd=self.fd)
        try:
            self._calls.fsync(fd)
        finally:
            self._calls.close(fd)

    def _counted(self, upload: str, mark: Mark | None, size: int) -> int:
        """How many bytes count of the file of an upload, which has `size`."""
        if mark is not None:
            size = mark.counted(size, self._boot)
        return min(size, self._trusted.get(upload, size))

    def _mark(self, upload: str, before: Mark | None, synced: int, counting: int | None) -> None:
        """Have the mark of an upload, which was `before`, say this."""
        trusted = self._trusted.get(upload)
        if trusted is not None:
            counting = trusted if counting is None else min(counting, trusted)
        mark = Mark(self._boot, synced, counting)
        if mark != before:
            self._marks.write(_file(upload, _MARK), mark)

    def _is_published(self, plan: Plan, status: os.stat_result) -> bool:
        """Whether a service that was killed before it could say so, or could not, has published
        this. If so, that is on stable storage.
        """
        if status.st_nlink == 1:
            return False
        with self._root.writing():
            return self._folders.confirm(plan.name, (status.st_dev, status.st_ino))

    def _is_older(self, upload: str, extension: str, before_ns: int) -> bool:
        if extension == _RECORDS[Fate.UNFINISHED]:
            extension = _BYTES
        name = _file(upload, extension)
        try:
            return self._calls.lstat(name, dir_fd=self.fd).st_mtime_ns < before_ns
        except FileNotFoundError:  # gone since
            return False

    def _drop(self, upload: str, before_ns: int) -> bool:
        """Drop an upload, unless somebody is writing to it, or has written since."""
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

    def _load(self, upload: str) -> tuple[Fate, Plan]:
        if is_upload(upload):
            for fate, extension in _RECORDS.items():
                with contextlib.suppress(FileNotFoundError):
                    return fate, self._read(upload, extension)
        raise NotFound(_NO_UPLOAD)

    def _read(self, upload: str, extension: str) -> Plan:
        fd = self._calls.open(_file(upload, extension), _READ, dir_fd=self.fd)
        try:
            content = self._calls.pread(fd, _MOST_RECORD_BYTES, 0)
        finally:
            self._calls.close(fd)
        try:
            return _parsed(json.loads(content))
        except (ValueError, KeyError, TypeError, RecursionError, MediaError) as error:
            # Without syncs a power failure can leave one empty. What it was of cannot be told.
            self._log.warn("the record of {upload} is broken: {why}", upload=upload, why=str(error))
            raise NotFound(_NO_UPLOAD) from error

    def _save(self, upload: str, plan: Plan, fate: Fate) -> None:
        content = json.dumps(_unparsed(plan)).encode()
        new = _file(upload, _NEW)
        with contextlib.ExitStack() as undoing:
            flags = os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_WRONLY
            fd = self._calls.open(new, flags, 0o600, dir_fd=self.fd)
            undoing.callback(self._unlink, new)
            try:
                if self._calls.writev(fd, [content]) < len(content):  # the disk is full
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self._durable:
                    self._calls.fsync(fd)
            finally:
                self._calls.close(fd)
            self._calls.rename(
                new, _file(upload, _RECORDS[fate]), source_dir_fd=self.fd, dir_fd=self.fd
            )
            undoing.pop_all()
        if self._durable:
            self._calls.fsync(self.fd)

    def _unlink(self, name: str) -> bool:
        try:
            self._calls.unlink(name, dir_fd=self.fd)
        except (FileNotFoundError, IsADirectoryError):  # or nothing of ours
            return False
        return True

    def _names(self, *extensions: str) -> list[tuple[str, str]]:
        """The uploads that have a file of one of these extensions, and which; of nothing else that
        may lie there.
        """
        parts = [name.partition(".") for name in self._calls.listdir(self.fd)]
        return [
            (upload, dot + extension)
            for upload, dot, extension in parts
            if is_upload(upload) and dot + extension in extensions
        ]


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


def _unparsed(plan: Plan) -> dict[str, Any]:
    fields = asdict(plan)
    del fields["name"]
    return {"directory": plan.name.directory, "filename": plan.name.filename, **fields}


def _parsed(fields: dict[str, Any]) -> Plan:
    directory, filename, length, sha256, caller, note = (
        fields[key] for key in ("directory", "filename", "length", "sha256", "caller", "note")
    )
    texts = [directory, filename, caller, note, *([] if sha256 is None else [sha256])]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("what has to be text is none")
    if length is not None and (type(length) is not int or length < 0):
        raise TypeError("the length is none")
    return Plan(media_name(directory, filename), length, sha256, caller, note)

"""The embedded default store: media as plain files under one folder.

Beside the media the root holds one hidden folder, `.twistedmedia`, with a lock that keeps a second
service out, the uploads that go over many requests and, on file systems without O_TMPFILE, the
drafts of all others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from secrets import token_hex
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, ensureDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from twistedmedia.boundaries import Condition, Media, Page, StorageState, Stored
from twistedmedia.errors import ConfigurationError, NotFound, StorageFailed
from twistedmedia.names import MediaName
from twistedmedia.shielding import shielded
from twistedmedia.store.calls import SystemCalls
from twistedmedia.store.drafts import DirectoryDraft
from twistedmedia.store.files import DraftFile, HiddenFile, UnnamedFile
from twistedmedia.store.folders import HIDDEN, Folders
from twistedmedia.store.kept import DirectoryKeptDraft, DirectoryKeptDrafts, KeptFile, Memories
from twistedmedia.store.listing import Listing
from twistedmedia.store.media import DirectoryMedia, MediaFiles
from twistedmedia.store.records import Records
from twistedmedia.store.root import Root
from twistedmedia.store.space import Space
from twistedmedia.store.threads import DiskThreads
from twistedmedia.store.validators import Instants
from twistedmedia.store.watch import Watch

T = TypeVar("T")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_CANNOT_WRITE_NOW = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class DirectoryStore:
    """`boundaries.Store` on a local file system with hard links.

    Nothing is opened or started before `start`.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorFromThreads,
        root: str,
        *,
        threads: int = 5,
        durable: bool = True,
        calls: SystemCalls | None = None,
        unnamed_drafts: bool = True,
    ) -> None:
        """`threads` are for writing, and as many more for reading. `durable`: a publish or delete
        waits for fsync. `unnamed_drafts=False` does without O_TMPFILE where there is one.
        """
        self.root = os.path.abspath(root)
        self._durable = durable
        self._calls = calls or SystemCalls()
        self._unnamed_drafts = unnamed_drafts
        self._writers = DiskThreads(reactor, "media-writers", threads)
        self._readers = DiskThreads(reactor, "media-readers", threads)
        # A thread of its own: busy writers and readers are not a storage that does not answer.
        self._watchers = DiskThreads(reactor, "media-watcher", 1)
        self._watch = Watch(self._watchers, self._probe_storage)
        # A large folder takes seconds to list: others who read are not to wait for that.
        self._may_list = DeferredSemaphore(max(1, threads // 2))
        self._held: contextlib.ExitStack | None = None
        self.kept = DirectoryKeptDrafts(self._writers, self._resumed, durable=durable)

    def start(self) -> None:
        """Make and lock the root, sweep what a crash has left, start the threads. Blocks.

        :raises ConfigurationError: when the root cannot be used.
        """
        with contextlib.ExitStack() as held:
            try:
                self._make_root()
                self._root_fd = self._held_open(held, self.root, None)
                self._at = Root(self._calls, self.root, self._root_fd)
                hidden_fd = self._held_folder(held, HIDDEN, self._root_fd)
                self._lock_root(held, hidden_fd)
                self._drafts_fd = self._held_folder(held, "drafts", hidden_fd)
                uploads_fd = self._held_folder(held, "uploads", hidden_fd)
                self._sweep()
                self._probe()
            except BlockingIOError:
                raise ConfigurationError(
                    f"another service uses the root {self.root}: one service a root"
                ) from None
            except OSError as error:
                raise ConfigurationError(
                    f"the root {self.root} cannot be used: {error.strerror}"
                ) from error
            self._folders = Folders(
                self._calls,
                self._root_fd,
                self._drafts_fd,
                self._durable,
                partial(self._at.check, "written"),
            )
            self._at.needs(self._drafts_fd)
            self._at.needs(uploads_fd)
            self._files = MediaFiles(self._calls, self._readers, self._folders, self._at)
            self._listing = Listing(self._calls, self._folders, self._at)
            self._space = Space(self._calls, self._root_fd)
            self._instants = Instants()
            self._open_uploads(uploads_fd)
            self._writers.start()
            self._readers.start()
            self._watchers.start()
            held.callback(self._watchers.stop)
            held.callback(self._readers.stop)
            held.callback(self._writers.stop)
            self._held = held.pop_all()

    async def stop(self) -> None:
        """Let the jobs under way end, then stop the threads and unlock the root."""
        if self._held is not None:
            while self._writers.busy or self._readers.busy:  # some work goes through both
                await self._writers.idle()
                await self._readers.idle()
            await self._watchers.idle()
            held, self._held = self._held, None
            held.close()

    def begin(self, size: int | None = None) -> DirectoryDraft:
        file = (
            UnnamedFile(self._calls, self._root_fd)
            if self._unnamed_drafts
            else HiddenFile(self._calls, self._drafts_fd)
        )
        return DirectoryDraft(
            self._calls,
            self._writers,
            self._at,
            self._folders,
            self._space,
            self._instants,
            file,
            size,
            self._durable,
        )

    def _resumed(
        self, file: KeptFile, declared: int | None, memories: Memories
    ) -> DirectoryKeptDraft:
        return DirectoryKeptDraft(
            self._calls,
            self._writers,
            self._at,
            self._folders,
            self._space,
            self._instants,
            file,
            declared,
            self._durable,
            memories,
        )

    def open(self, name: MediaName) -> Deferred[Media]:
        return self._files.open(name)

    def recognise(self, name: MediaName, sha256: str) -> Deferred[Stored | None]:
        # Not to be left half-way: the file would be closed beside the thread that syncs it.
        return shielded(ensureDeferred(self._recognise(name, sha256)))

    def delete(self, name: MediaName, condition: Condition | None = None) -> Deferred[bool]:
        return self._writers.run(self._delete, name, condition, syncing=self._durable)

    def _delete(self, name: MediaName, condition: Condition | None) -> bool:
        with self._at.writing():
            if self._folders.remove(name, condition):
                self._at.note_success("written")
                return True
            self._at.check("written")  # before we say that there is no such file
            return False

    def list(
        self, folders: tuple[str, ...], after: str, limit: int, render: Callable[[Page], T]
    ) -> Deferred[T]:
        def list_and_render() -> T:
            with self._at.reading():
                page = self._listing.page(folders, after, limit)
            self._at.note_success("read")
            return render(page)

        return ensureDeferred(self._list(list_and_render))

    async def _list(self, list_and_render: Callable[[], T]) -> T:
        await self._may_list.acquire()  # who leaves meanwhile has nothing listed

        def listed(_: object) -> None:
            self._may_list.release()

        listing = self._readers.run(list_and_render, unclaimed=listed)
        try:
            page = await listing
        except CancelledError:
            raise  # the thread goes on, and its place with it
        except BaseException:
            listed(None)
            raise
        listed(None)
        return page

    def look(self) -> Deferred[StorageState]:
        return self._watch.look().addCallback(self._at.with_what_was_seen)

    def _probe_storage(self) -> StorageState:
        try:
            free = self._space.free()
        except OSError:  # the probe says why
            free = None
        return self._at.probe(free)

    async def _recognise(self, name: MediaName, sha256: str) -> Stored | None:
        try:
            media = await self._readers.run(self._files.open_file, name)
        except NotFound:
            return None
        try:
            if await media.digest() != sha256:
                return None
            durable = self._writers.run(self._confirm, name, media, syncing=self._durable)
            return Stored(name, media.size, sha256, media.etag) if await durable else None
        finally:
            media.close()

    def _confirm(self, name: MediaName, media: DirectoryMedia) -> bool:
        with self._at.writing():
            if self._durable:
                self._calls.fsync(media.fd)
            return self._folders.confirm(name, media.identity)

    def _held_open(self, held: contextlib.ExitStack, path: str, dir_fd: int | None) -> int:
        fd = self._calls.open(path, _FOLDER, dir_fd=dir_fd)
        held.callback(self._calls.close, fd)
        return fd

    def _held_folder(self, held: contextlib.ExitStack, name: str, dir_fd: int) -> int:
        with contextlib.suppress(FileExistsError):
            self._calls.mkdir(name, 0o700, dir_fd=dir_fd)
        fd = self._calls.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=dir_fd)
        held.callback(self._calls.close, fd)
        return fd

    def _make_root(self) -> None:
        """With the folders above it that lack, each synced into the one above."""
        lacking, path = [], self.root
        while not os.path.isdir(path) and path != os.path.dirname(path):
            lacking.append(path)
            path = os.path.dirname(path)
        for path in reversed(lacking):
            parent, name = os.path.split(path)
            fd = self._calls.open(parent, _FOLDER)
            try:
                with contextlib.suppress(FileExistsError):
                    self._calls.mkdir(name, dir_fd=fd)
                if self._durable:
                    self._calls.fsync(fd)
            finally:
                self._calls.close(fd)

    def _lock_root(self, held: contextlib.ExitStack, hidden_fd: int) -> None:
        # Not open for writing, which would keep the file system from being remounted read-only; but
        # NFS locks only what is.
        for access in (os.O_RDONLY, os.O_RDWR):
            fd = self._calls.open("lock", access | os.O_CREAT, 0o600, dir_fd=hidden_fd)
            held.callback(self._calls.close, fd)
            try:
                return self._calls.lock(fd)
            except OSError as error:
                if error.errno != errno.EBADF or access == os.O_RDWR:
                    raise

    def _open_uploads(self, fd: int) -> None:
        records = Records(self._calls, fd, self._folders, self._at, durable=self._durable)
        try:
            records.sweep()
        except (OSError, StorageFailed) as error:  # what is stored can be read all the same
            why = error.reason if isinstance(error, StorageFailed) else error.strerror
            self._log.warn("unfinished uploads were not swept: {why}", why=why)
        self.kept.open(records)

    def _sweep(self) -> None:
        """Remove the drafts of a service that was killed. We hold the root's lock, so a draft that
        can be locked is nobody's.
        """
        for name in self._calls.listdir(self._drafts_fd):
            if not stat.S_ISREG(self._calls.lstat(name, dir_fd=self._drafts_fd).st_mode):
                continue  # not ours
            fd = self._open_draft(name)
            try:
                self._calls.lock(fd)
                self._calls.unlink(name, dir_fd=self._drafts_fd)
                self._log.info("swept a draft that a killed service has left: {draft}", draft=name)
            except BlockingIOError:
                continue
            finally:
                self._calls.close(fd)

    def _open_draft(self, name: str) -> int:
        try:
            return self._calls.open(name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=self._drafts_fd)
        except PermissionError:  # a file that was being replaced, and that nobody may write
            return self._calls.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._drafts_fd)

    def _probe(self) -> None:
        """Find out which kind of draft this file system can publish.

        :raises OSError: when it can publish neither.
        """
        kinds: list[DraftFile] = [HiddenFile(self._calls, self._drafts_fd)]
        if self._unnamed_drafts:
            kinds.insert(0, UnnamedFile(self._calls, self._root_fd))
        for file in kinds:
            name = token_hex(16)
            try:
                self._try(file, name)
            except OSError as error:
                if error.errno in _CANNOT_WRITE_NOW:  # what is there can be read, and some deleted
                    self._log.warn("nothing can be stored now: {why}", why=error.strerror)
                    return
                if file is kinds[-1]:
                    raise
                self._log.info(
                    "no unnamed drafts in {root} ({why}): hidden ones",
                    root=self.root,
                    why=error.strerror,
                )
                self._unnamed_drafts = False
            else:
                return

    def _try(self, file: DraftFile, name: str) -> None:
        try:
            fd = file.open()
            try:
                file.link(fd, name, self._drafts_fd)
                self._calls.unlink(name, dir_fd=self._drafts_fd)
            finally:
                self._calls.close(fd)
        finally:
            file.remove(published=False)

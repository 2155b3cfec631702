"""The default store: media as plain files under one folder, the root.

The root also holds a hidden folder, `.twistedmedia`. In it are a lock that keeps a second service
out, the resumable uploads and, on file systems without O_TMPFILE, all other drafts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from twistedmedia.deferreds import shield
from twistedmedia.errors import ConfigurationError, NotFound
from twistedmedia.names import MediaName, is_upload
from twistedmedia.store.batches import BatchedListing
from twistedmedia.store.interface import (
    Batch,
    Listed,
    Media,
    Reserved,
    StorageState,
    StoredFile,
)
from twistedmedia.store.local.capabilities import Probe
from twistedmedia.store.local.dirty_folders import DirtyFolders
from twistedmedia.store.local.disk_threads import OWN_WORK, DiskThreads, in_steps
from twistedmedia.store.local.drafts import DirectoryDraft, HiddenFile, StoreContext, UnnamedFile
from twistedmedia.store.local.files import DirectoryMedia, MediaFiles
from twistedmedia.store.local.finished_uploads import MOST_FINISHED, FinishedUploads
from twistedmedia.store.local.folders import HIDDEN, Folders
from twistedmedia.store.local.maintenance import UploadMaintenance
from twistedmedia.store.local.pages import Listing
from twistedmedia.store.local.published_files import PublishedFiles
from twistedmedia.store.local.record_files import ClockFile, SymlinkTexts
from twistedmedia.store.local.records import Records
from twistedmedia.store.local.resumable_drafts import DirectoryResumableDrafts
from twistedmedia.store.local.root import Root
from twistedmedia.store.local.space import CachedProbe, Space
from twistedmedia.store.local.syscalls import SystemCalls, opened
from twistedmedia.store.preconditions import Precondition
from twistedmedia.store.validators import UniqueTimestamps

T = TypeVar("T")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


class DirectoryStore:
    """`interface.Store` on a local file system with hard links. Opens nothing before `start`."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # IReactorFromThreads and IReactorTime, which types cannot say
        root: str,
        *,
        threads: int = 5,
        durable: bool = True,
        calls: SystemCalls | None = None,
        unnamed_drafts: bool = True,
        most_finished: int = MOST_FINISHED,
    ) -> None:
        """There are `threads` for writing, and as many for reading. In a `durable` store a publish
        or delete waits for fsync. `unnamed_drafts=False` avoids O_TMPFILE. The store remembers at
        most `most_finished` finished resumable uploads.
        """
        self.root = os.path.abspath(root)
        self._durable = durable
        self._calls = calls or SystemCalls()
        self._unnamed_drafts = unnamed_drafts
        self._most_finished = most_finished
        self._writers = DiskThreads(reactor, "media-writers", threads)
        self._readers = DiskThreads(reactor, "media-readers", threads)
        # A thread of its own: that writers and readers are busy does not mean that the disk hangs.
        self._watchers = DiskThreads(reactor, "media-watcher", 1)
        self._watch = CachedProbe(self._watchers, self._probe_storage)
        self._held: contextlib.ExitStack | None = None
        self.resumable = DirectoryResumableDrafts(reactor)

    def start(self, *, sweep_later: bool = False) -> None:
        """Make and lock the root, sweep what a crash has left, start the threads. Blocks.

        With `sweep_later` a thread sweeps the resumable uploads, since these may be many. Their
        operations wait until it has ended.

        :raises ConfigurationError: if the root cannot be used.
        """
        self._is_refused = False
        with contextlib.ExitStack() as held:
            try:
                probe = Probe(self._calls, self.root, durable=self._durable)
                self._make_root(probe)
                self._root_fd = self._held_open(held, self.root, None)
                self._root = Root(self._calls, self.root, self._root_fd)
                hidden_fd = self._held_folder(held, HIDDEN, self._root_fd)
                self._lock_root(held, hidden_fd, probe)
                self._drafts_fd = self._held_folder(held, "drafts", hidden_fd)
                self._uploads_fd = self._held_folder(held, "uploads", hidden_fd)
                self._hidden_fd = hidden_fd
                self._sweep()
                self._capabilities = probe.capabilities(
                    self._root_fd, self._drafts_fd, unnamed_drafts=self._unnamed_drafts
                )
            except ConfigurationError:  # no service can use this root
                self._is_refused = True
                raise
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
                DirtyFolders(self._calls, self._hidden_fd),
                durable=self._durable,
            )
            self._published = PublishedFiles(
                self._calls, self._folders, self._drafts_fd, partial(self._root.check, "written")
            )
            self._sweep_folders()
            self._root.watch(self._drafts_fd)
            self._root.watch(self._uploads_fd)
            self._files = MediaFiles(self._calls, self._readers, self._folders, self._root)
            self._listing = Listing(self._calls, self._folders, self._root)
            self._space = Space(self._calls, self._root_fd)
            self._context = StoreContext(
                self._calls,
                self._writers,
                self._root,
                self._published,
                self._space,
                UniqueTimestamps(),
                self._durable,
            )
            self._writers.start()
            self._readers.start()
            self._watchers.start()
            held.callback(self._watchers.stop)
            held.callback(self._readers.stop)
            held.callback(self._writers.stop)
            self._open_uploads(sweep_later)
            self._held = held.pop_all()

    def hurry(self) -> None:
        """End the digests that are being computed, since no client is left. Each can occupy a
        thread for a minute.
        """
        self._readers.hurries = True

    async def stop(self) -> None:
        """Wait for the jobs under way, then stop the threads and unlock the root."""
        if self._held is not None:
            self.resumable.close()
            while self._writers.busy or self._readers.busy:  # some work goes through both
                await self._writers.idle()
                await self._readers.idle()
            await self._watchers.idle()
            held, self._held = self._held, None
            held.close()

    @property
    def jobs(self) -> list[str]:
        """The jobs that are queued or running: how many there are of each kind."""
        return [*self._writers.jobs, *self._readers.jobs, *self._watchers.jobs]

    def begin(self, size: int | None = None, caller: str = OWN_WORK) -> DirectoryDraft:
        file = (
            UnnamedFile(self._calls, self._root_fd)
            if self._capabilities.unnamed_drafts
            else HiddenFile(self._calls, self._drafts_fd)
        )
        return DirectoryDraft(self._context, file, size, caller)

    def open(self, name: MediaName, *, caller: str = OWN_WORK) -> Deferred[Media]:
        return self._files.open(name, caller)

    def recognise(
        self, name: MediaName, sha256: str, *, caller: str = OWN_WORK
    ) -> Deferred[StoredFile | None]:
        # If this were cancelled half-way, the file would be closed while a thread syncs it.
        return shield(ensureDeferred(self._recognise(name, sha256, caller)))

    def delete(
        self, name: MediaName, precondition: Precondition | None = None, *, caller: str = OWN_WORK
    ) -> Deferred[bool]:
        return self._writers.run(
            in_steps, self._delete(name, precondition), syncing=self._durable, caller=caller
        )

    def _delete(
        self, name: MediaName, precondition: Precondition | None
    ) -> Generator[None, None, bool]:
        if (yield from self._root.writing_in(self._published.remove(name, precondition))):
            self._root.note_success("written")
            return True
        with self._root.writing():
            self._root.check("written")  # before the caller learns that there is no such file
            return False

    def list(
        self, folders: tuple[str, ...], after: str, limit: int, *, caller: str = OWN_WORK
    ) -> Listed:
        def read_batch(read: Callable[[], Batch], use: Callable[[Batch], T]) -> Deferred[T]:
            return self._readers.run(self._list, read, use, caller=caller)

        return BatchedListing(self._listing.batches(folders, after, limit), read_batch)

    def _list(self, read: Callable[[], Batch], use: Callable[[Batch], T]) -> T:
        with self._root.reading():
            batch = read()
        self._root.note_success("read")
        return use(batch)

    @property
    def reserved(self) -> Reserved:
        return self._space.reserved

    def look(self) -> Deferred[StorageState]:
        looking = self._watch.look(afresh=self._root.is_contradicted)
        return looking.addCallback(self._root.with_recent_failures)

    def _probe_storage(self) -> StorageState:
        try:
            free = self._space.free()
        except OSError:  # the probe says why
            free = None
        return self._root.probe(free)

    async def _recognise(self, name: MediaName, sha256: str, caller: str) -> StoredFile | None:
        try:
            media = await self._readers.run(self._files.open_file, name, caller, caller=caller)
        except NotFound:
            return None
        try:
            if await media.digest() != sha256:
                return None
            durable = self._writers.run(
                self._confirm, name, media, syncing=self._durable, caller=caller
            )
            return StoredFile(name, media.size, sha256, media.etag) if await durable else None
        finally:
            media.close()

    def _confirm(self, name: MediaName, media: DirectoryMedia) -> bool:
        with self._root.writing():
            if self._durable:
                self._calls.fsync(media.fd)
            return self._published.confirm(name, media.identity)

    def _held_open(self, held: contextlib.ExitStack, path: str, dir_fd: int | None) -> int:
        fd = self._calls.open(path, _FOLDER, dir_fd=dir_fd)
        held.callback(self._calls.close, fd)
        return fd

    def _held_folder(self, held: contextlib.ExitStack, name: str, dir_fd: int) -> int:
        with contextlib.suppress(FileExistsError):
            self._calls.mkdir(name, 0o700, dir_fd=dir_fd)
            held.callback(self._take_back, self._calls.rmdir, name, dir_fd)
        fd = self._calls.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=dir_fd)
        held.callback(self._calls.close, fd)
        return fd

    def _make_root(self, probe: Probe) -> None:
        """Make the root and the missing folders above it. Each is synced into the one above."""
        lacking, path = [], self.root
        while not os.path.isdir(path) and path != os.path.dirname(path):
            lacking.append(path)
            path = os.path.dirname(path)
        for path in reversed(lacking):
            parent, name = os.path.split(path)
            with opened(self._calls, parent, _FOLDER) as fd:
                with contextlib.suppress(FileExistsError):
                    self._calls.mkdir(name, dir_fd=fd)
                probe.sync(fd)

    def _take_back(self, remove: Callable[..., None], name: str, dir_fd: int) -> None:
        """Remove what this start has made, if it is refused."""
        if self._is_refused:
            with contextlib.suppress(OSError):  # the reason for the refusal is reported
                remove(name, dir_fd=dir_fd)

    def _lock_root(self, held: contextlib.ExitStack, hidden_fd: int, probe: Probe) -> None:
        # A file that is open for writing keeps its file system from being remounted read-only. But
        # NFS locks only files that are open for writing.
        is_new = "lock" not in self._calls.listdir(hidden_fd)
        for access in (os.O_RDONLY, os.O_RDWR):
            fd = self._calls.open("lock", access | os.O_CREAT, 0o600, dir_fd=hidden_fd)
            held.callback(self._calls.close, fd)
            if is_new:  # while it is locked, or a service that starts now would lose its lock
                held.callback(self._take_back, self._calls.unlink, "lock", hidden_fd)
            try:
                return probe.lock(fd)
            except OSError as error:
                if error.errno != errno.EBADF or access == os.O_RDWR:
                    raise

    def _open_uploads(self, sweep_later: bool) -> None:
        texts = SymlinkTexts(
            self._calls, self._uploads_fd, links=self._capabilities.links, durable=self._durable
        )
        clocks = ClockFile(self._calls, self._hidden_fd)
        finished = FinishedUploads(self._most_finished)
        records = Records(self._context, self._uploads_fd, texts=texts, finished=finished)
        maintenance = UploadMaintenance(
            self._calls, self._root, records, clocks, self._published.swept
        )
        with contextlib.suppress(OSError):  # the first `adjust` makes it, or reports why not
            clocks.begin()
        self.resumable.open(self._context, records, maintenance, sweep_later=sweep_later)

    def _sweep_folders(self) -> None:
        try:
            self._folders.sweep()
        except OSError as error:  # they do no harm
            self._log.warn("empty folders were not swept: {why}", why=error.strerror)

    def _sweep(self) -> None:
        """Remove the drafts of a service that was killed. This service holds the lock of the root,
        so a draft that can be locked has no owner.
        """
        for name in self._calls.listdir(self._drafts_fd):
            kind = stat.S_IFMT(self._calls.lstat(name, dir_fd=self._drafts_fd).st_mode)
            if kind == stat.S_IFLNK and is_upload(name):  # of a probe
                self._calls.unlink(name, dir_fd=self._drafts_fd)
            if kind != stat.S_IFREG:
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
        except PermissionError:  # a read-only file that was being replaced
            return self._calls.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._drafts_fd)

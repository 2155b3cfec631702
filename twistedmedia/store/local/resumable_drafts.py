"""Resumable uploads of the directory store: drafts that outlive their requests, and the process."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.errors import MediaError, StorageFailed
from twistedmedia.names import MediaName
from twistedmedia.store.clock_steps import ClockReading
from twistedmedia.store.interface import (
    Resumed,
    Sealed,
    StoredFile,
    UploadSpec,
    UploadState,
)
from twistedmedia.store.local.disk_threads import OWN_WORK
from twistedmedia.store.local.drafts import DirectoryDraft, StoreContext
from twistedmedia.store.local.maintenance import AT_ONCE, UploadMaintenance
from twistedmedia.store.local.records import Records
from twistedmedia.store.preconditions import Precondition

T = TypeVar("T")

# A hash and an inspection take some 40 KiB. Those of other uploads are forgotten, and made again
# from the stored bytes when the last byte is here.
_CACHED = 32
_PAUSE_S = 0.02  # between the jobs of long work, for which no request waits
_REVIEW_BYTES = 4 << 20  # at a time, so that other jobs get their turn


@dataclass(frozen=True, slots=True)
class _Hashed:
    """The hash and the inspection of a draft of `size` bytes."""

    size: int
    hash: Any
    inspection: object


class HashCache:
    """The hashes of the drafts that were kept last. Each is used at most once."""

    def __init__(self, most: int = _CACHED) -> None:
        self._most = most
        self._entries: OrderedDict[str, _Hashed] = OrderedDict()

    def put(self, upload: str, entry: _Hashed) -> None:
        """Remember an entry. The oldest one is dropped if there are too many."""
        self._entries[upload] = entry
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def pop(self, upload: str) -> _Hashed | None:
        """Remove and return the entry of an upload, if there is one."""
        return self._entries.pop(upload, None)


class UploadFile:
    """`drafts.DraftFile` of a resumable upload."""

    def __init__(self, records: Records, upload: str, provisional: bool) -> None:
        self._records = records
        self.upload = upload
        self._provisional = provisional
        self.synced = 0  # bytes, once it is open

    def open(self) -> int:
        fd, self.synced = self._records.open(self.upload, provisional=self._provisional)
        return fd

    def link(self, fd: int, name: str, dir_fd: int) -> None:
        self._records.link(self.upload, name, dir_fd)

    def remove(self, published: bool) -> None:
        if published:
            self._records.published(self.upload)

    def distrust(self) -> None:
        self._records.distrust(self.upload, self.synced)

    def confirm(self, synced: int) -> None:
        """Make all appended bytes count, and `synced` of them even after a crash of the machine."""
        if self._provisional or synced != self.synced:
            self._records.confirm(self.upload, synced)
            self.synced = synced

    def lower(self, synced: int) -> None:
        """No more than `synced` bytes survive a crash of the machine: the others will be undone."""
        if not self._provisional and synced != self.synced:
            self.confirm(synced)

    def sync(self) -> None:
        """Bring what was confirmed to stable storage."""
        self._records.sync()


class DirectoryResumableDraft:
    """`interface.ResumableDraft`: a `DirectoryDraft` that can be resumed."""

    def __init__(
        self,
        store: StoreContext,
        file: UploadFile,
        declared: int | None,
        caller: str,
        hashes: HashCache,
    ) -> None:
        self._draft = DirectoryDraft(store, file, declared, caller)
        self._content = self._draft.content
        self._store = store
        self._file = file
        self._hashes = hashes
        self._resumed_at: int | None = None  # bytes, once it is resumed

    def prepare(self, name: MediaName, replacing: Precondition | None = None) -> Deferred[None]:
        return self._draft.prepare(name, replacing)

    def append(self, chunks: Iterable[bytes]) -> Deferred[None]:
        return self._draft.append(chunks)

    def seal(self) -> Deferred[Sealed]:
        return self._draft.seal()

    def publish(
        self, name: MediaName, replacing: Precondition | None = None
    ) -> Deferred[StoredFile]:
        return self._draft.publish(name, replacing)

    def discard(self) -> None:
        self._draft.discard()

    def resume(self) -> Deferred[Resumed]:
        return self._draft.run(self._resume)

    def sync(self) -> Deferred[None]:
        return self._draft.run(self._sync, syncing=self._store.durable)

    def keep(self, inspection: object | None, *, synced: bool) -> Deferred[None]:
        synced = synced and self._store.durable
        return self._draft.run(self._keep, inspection, synced, syncing=synced)

    def release(self, *, undo: bool) -> Deferred[None]:
        return self._draft.run(self._release, undo)

    def review(self, take: Callable[[bytes], object]) -> Deferred[bool]:
        return self._draft.run(self._review, take)

    def _resume(self) -> Resumed:
        fd = self._content.open()
        with self._store.root.reading():
            size = self._store.calls.fstat(fd).st_size
        self._content.continue_at(size)
        self._resumed_at = size
        synced = self._file.synced if self._store.durable else size
        cached = self._hashes.pop(self._file.upload)
        if cached is None or cached.size != size:
            return Resumed(size, synced, None)
        self._content.hash, self._content.hashed_size = cached.hash, size
        return Resumed(size, synced, cached.inspection)

    def _sync(self) -> None:
        if self._store.durable:
            fd = self._content.open()
            with self._store.root.writing(self._content.size):
                self._content.sync(fd)
                self._file.confirm(self._content.size)
                self._store.root.check("written")

    def _keep(self, inspection: object | None, synced: bool) -> None:
        content = self._content
        fd = content.open()
        with self._store.root.writing(content.size):
            if synced:
                content.sync(fd)
                self._file.confirm(content.size)
                self._file.sync()
            else:
                if self._store.durable:  # so that the last sync has little left to write
                    content.start_writeback(fd)
                self._file.confirm(self._file.synced)
            self._store.root.check("written")
            content.close()
        if content.hashed_size == content.size and inspection is not None:
            self._hashes.put(self._file.upload, _Hashed(content.size, content.hash, inspection))

    def _release(self, undo: bool) -> None:
        content = self._content
        if content.is_closed:
            return
        with self._store.root.writing(), contextlib.ExitStack() as closing:
            closing.callback(content.close)
            if undo and content.fd is not None and self._resumed_at is not None:
                # First: a power failure may bring back what is cut off.
                self._file.lower(min(self._file.synced, self._resumed_at))
                self._store.calls.truncate(content.fd, self._resumed_at)

    def _review(self, take: Callable[[bytes], object]) -> bool:
        content = self._content
        fd = content.open()
        with self._store.root.reading():
            wanted = min(_REVIEW_BYTES, content.size - content.hashed_size)
            piece = self._store.calls.pread(fd, wanted, content.hashed_size)
        if not piece and content.hashed_size < content.size:
            raise StorageFailed("read", "the file of an upload has become shorter")
        content.hash.update(piece)
        content.hashed_size += len(piece)
        take(piece)
        return content.hashed_size == content.size


class DirectoryResumableDrafts:
    """`interface.ResumableDrafts` over `Records` and their `UploadMaintenance`."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._hashes = HashCache()
        self._pausing: Deferred[None] | None = None
        self._waiting_for_sweep: list[Deferred[None]] = []

    def open(
        self,
        store: StoreContext,
        records: Records,
        maintenance: UploadMaintenance,
        *,
        sweep_later: bool,
    ) -> None:
        """Begin to work, and sweep the uploads. With `sweep_later` a thread sweeps them. Until this
        has ended, other operations wait.
        """
        self._store = store
        self._records = records
        self._maintenance = maintenance
        self._closed = False
        if sweep_later:
            maintenance.sweep_later()
            self._store.writers.run(self._sweep, caller=OWN_WORK).addBoth(self._on_swept)
        else:
            self._sweep()

    def close(self) -> None:
        """End long work, since the store is about to stop."""
        self._closed = True
        if self._pausing is not None:
            self._pausing.cancel()

    def create(self, upload: str, spec: UploadSpec, etag: str | None = None) -> Deferred[None]:
        return self._run(
            self._records.create,
            upload,
            spec,
            etag,
            syncing=self._store.durable,
            caller=spec.caller,
        )

    def find(
        self, upload: str, *, synced: bool = False, caller: str = OWN_WORK
    ) -> Deferred[UploadState]:
        syncing = synced and self._store.durable
        return self._run(self._records.find, upload, synced, syncing=syncing, caller=caller)

    def resume(
        self, upload: str, declared: int | None, *, provisional: bool, caller: str = OWN_WORK
    ) -> DirectoryResumableDraft:
        file = UploadFile(self._records, upload, provisional)
        return DirectoryResumableDraft(self._store, file, declared, caller, self._hashes)

    def declare(self, upload: str, length: int, *, caller: str = OWN_WORK) -> Deferred[None]:
        return self._run(
            self._records.declare, upload, length, syncing=self._store.durable, caller=caller
        )

    def settle(self, upload: str, etag: str | None, *, caller: str = OWN_WORK) -> Deferred[None]:
        return self._run(self._records.settle, upload, etag, caller=caller)

    def forget(self, upload: str, *, caller: str = OWN_WORK) -> Deferred[bool]:
        return self._run(self._records.forget, upload, caller=caller)

    def learn(self) -> Deferred[None]:
        return ensureDeferred(self._learn())

    async def _learn(self) -> None:
        while await self._run(self._maintenance.learn):
            await self._pause()

    def adjust(self, wall_ns: int, monotonic_ns: int) -> Deferred[None]:
        return ensureDeferred(self._adjust(ClockReading(self._records.boot, monotonic_ns, wall_ns)))

    async def _adjust(self, now: ClockReading) -> None:
        step_ns, uploads = await self._run(self._maintenance.stepped, now)
        async for _ in self._in_batches(uploads, self._maintenance.move, step_ns, now.wall_ns):
            pass
        await self._run(self._maintenance.note, now)

    def expire(self, before_ns: int, spared: Collection[str] = ()) -> Deferred[list[str]]:
        return ensureDeferred(self._expire(before_ns, spared))

    async def _expire(self, before_ns: int, spared: Collection[str]) -> list[str]:
        await self._wait_for_sweep()
        uploads = self._maintenance.expirable(spared)
        expired: list[str] = []
        try:
            async for some in self._in_batches(uploads, self._maintenance.expire, before_ns):
                expired += some
        except StorageFailed:
            if not expired:
                raise
        return expired

    async def _pause(self) -> None:
        """Let requests go first.

        :raises CancelledError: if the store stops.
        """
        if self._closed:
            raise CancelledError
        self._pausing = deferLater(self._clock, _PAUSE_S)
        await self._pausing

    def callers(self) -> Deferred[dict[str, str]]:
        return ensureDeferred(self._callers())

    async def _callers(self) -> dict[str, str]:
        await self._wait_for_sweep()
        found: dict[str, str] = {}
        async for some in self._in_batches(
            self._maintenance.unfinished(), self._maintenance.callers
        ):
            found |= some
        return found

    async def _in_batches(
        self, uploads: Iterator[str], job: Callable[..., T], *args: object
    ) -> AsyncIterator[T]:
        """Do a job for AT_ONCE uploads at a time. Yields what it returns."""
        for number, first in enumerate(uploads):
            if number:
                await self._pause()
            yield await self._run(job, chain([first], islice(uploads, AT_ONCE - 1)), *args)

    def _run(
        self,
        job: Callable[..., T],
        *args: object,
        syncing: bool = False,
        caller: str = OWN_WORK,
    ) -> Deferred[T]:
        """Do a job in a thread, after the sweep."""
        if self._maintenance.is_swept:
            return self._store.writers.run(job, *args, syncing=syncing, caller=caller)
        return ensureDeferred(self._run_after_sweep(job, args, syncing, caller))

    async def _run_after_sweep(
        self, job: Callable[..., T], args: tuple[object, ...], syncing: bool, caller: str
    ) -> T:
        await self._wait_for_sweep()
        return await self._store.writers.run(job, *args, syncing=syncing, caller=caller)

    async def _wait_for_sweep(self) -> None:
        if not self._maintenance.is_swept:
            waiting: Deferred[None] = Deferred()
            self._waiting_for_sweep.append(waiting)
            await waiting

    def _sweep(self) -> None:
        try:
            self._maintenance.sweep()
        except (OSError, MediaError) as error:  # published files can be read all the same
            why = error.reason if isinstance(error, MediaError) else error.strerror
            self._log.warn("unfinished uploads were not swept: {why}", why=why)

    def _on_swept(self, failure: Failure | None) -> None:
        if failure is not None:
            self._log.failure("unfinished uploads could not be swept", failure)
        waiting, self._waiting_for_sweep = self._waiting_for_sweep, []
        for each in waiting:
            each.callback(None)

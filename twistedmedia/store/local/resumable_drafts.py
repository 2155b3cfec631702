"""Drafts of the directory store that outlive their requests, and the process."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.errors import MediaError, StorageFailed
from twistedmedia.store.clock_steps import ClockReading
from twistedmedia.store.interface import Resumed, UploadSpec, UploadState
from twistedmedia.store.local.disk_threads import OWN_WORK, DiskThreads
from twistedmedia.store.local.drafts import DirectoryDraft
from twistedmedia.store.local.folders import Folders
from twistedmedia.store.local.records import AT_ONCE, Records
from twistedmedia.store.local.root import Root
from twistedmedia.store.local.space import Space
from twistedmedia.store.local.syscalls import SystemCalls
from twistedmedia.store.validators import UniqueTimestamps

T = TypeVar("T")

# A hash and what the front end remembers, some 40 KiB: of all but those written to last it is
# forgotten, and made again from the bytes themselves when the last of them is here.
_REMEMBERED = 32
_PAUSE_S = 0.02  # between jobs of which nobody waits for the last
_REVIEW_BYTES = 4 << 20  # at a time, so that others get their turn


@dataclass(frozen=True, slots=True)
class _Memory:
    """The state of a draft of `size` bytes when it was kept."""

    size: int
    hash: Any
    of_front_end: object | None


class UploadFile:
    """`files.DraftFile` of an upload."""

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

    def confirm(self, synced: int) -> None:
        """What was appended counts, and `synced` bytes survive the machine."""
        if self._provisional or synced != self.synced:
            self._records.confirm(self.upload, synced)
            self.synced = synced

    def lower(self, synced: int) -> None:
        """No more than `synced` bytes survive the machine, since the others are taken back."""
        if not self._provisional and synced != self.synced:
            self.confirm(synced)

    def distrust(self) -> None:
        """Bytes after those that were synced before may be lost: they count no more."""
        self._records.distrust(self.upload, self.synced)

    def sync(self) -> None:
        """What was confirmed survives the machine."""
        self._records.sync()


class DirectoryResumableDraft(DirectoryDraft):
    """`interface.ResumableDraft` over a `UploadFile`."""

    def __init__(
        self,
        calls: SystemCalls,
        writers: DiskThreads,
        root: Root,
        folders: Folders,
        space: Space,
        timestamps: UniqueTimestamps,
        file: UploadFile,
        declared: int | None,
        durable: bool,
        caller: str,
        memories: HashCache,
    ) -> None:
        super().__init__(
            calls, writers, root, folders, space, timestamps, file, declared, durable, caller
        )
        self._kept_file = file
        self._memories = memories
        self._began_at: int | None = None  # before it is resumed

    def resume(self) -> Deferred[Resumed]:
        """See `interface.ResumableDraft`."""
        return self._in_lane(self._resume)

    def sync(self) -> Deferred[None]:
        """See `interface.ResumableDraft`."""
        return self._in_lane(self._sync, syncing=self._durable)

    def keep(self, memory: object | None, *, synced: bool) -> Deferred[None]:
        """See `interface.ResumableDraft`."""
        synced = synced and self._durable
        return self._in_lane(self._keep, memory, synced, syncing=synced)

    def release(self, *, undo: bool) -> Deferred[None]:
        """See `interface.ResumableDraft`."""
        return self._in_lane(self._put_down, undo)

    def review(self, take: Callable[[bytes], object]) -> Deferred[bool]:
        """See `interface.ResumableDraft`."""
        return self._in_lane(self._review, take)

    def _resume(self) -> Resumed:
        fd = self._opened()
        with self._root.reading():
            size = self._calls.fstat(fd).st_size
        self._size = self._began_at = self._written_back = size
        synced = self._kept_file.synced if self._durable else size
        memory = self._memories.recall(self._kept_file.upload)
        if memory is None or memory.size != size:
            return Resumed(size, synced, None)
        self._hash, self._hashed = memory.hash, size
        return Resumed(size, synced, memory.of_front_end)

    def _sync(self) -> None:
        if self._durable:
            fd = self._opened()
            with self._root.writing(self._size):
                self._sync_file(fd)
                self._kept_file.confirm(self._size)
                self._root.check("written")

    def _sync_file(self, fd: int) -> None:
        try:
            super()._sync_file(fd)
        except Exception:
            self._kept_file.distrust()
            raise

    def _keep(self, of_front_end: object | None, synced: bool) -> None:
        fd = self._opened()
        with self._root.writing(self._size):
            if synced:
                self._sync_file(fd)
                self._kept_file.confirm(self._size)
                self._kept_file.sync()
            else:
                if self._durable:  # so that the last sync has little left to write
                    self._start_writeback(fd)
                self._kept_file.confirm(self._kept_file.synced)
            self._root.check("written")
            self._close()
        if self._hashed == self._size and of_front_end is not None:
            memory = _Memory(self._size, self._hash, of_front_end)
            self._memories.remember(self._kept_file.upload, memory)

    def _put_down(self, undo: bool) -> None:
        if self._closed:
            return
        with self._root.writing(), contextlib.ExitStack() as closing:
            closing.callback(self._close)
            if undo and self._fd is not None and self._began_at is not None:
                # First: a power failure may bring back what is cut off.
                self._kept_file.lower(min(self._kept_file.synced, self._began_at))
                self._calls.truncate(self._fd, self._began_at)

    def _review(self, take: Callable[[bytes], object]) -> bool:
        fd = self._opened()
        with self._root.reading():
            wanted = min(_REVIEW_BYTES, self._size - self._hashed)
            piece = self._calls.pread(fd, wanted, self._hashed)
        if not piece and self._hashed < self._size:
            raise StorageFailed("read", "the file of an upload has become shorter")
        self._hash.update(piece)
        self._hashed += len(piece)
        take(piece)
        return self._hashed == self._size


class HashCache:
    """What is remembered of the drafts that were kept last. Each is recalled at most once."""

    def __init__(self, most: int = _REMEMBERED) -> None:
        self._most = most
        self._memories: OrderedDict[str, _Memory] = OrderedDict()

    def remember(self, upload: str, memory: _Memory) -> None:
        """Until it is recalled, or others have been kept since."""
        self._memories[upload] = memory
        while len(self._memories) > self._most:
            self._memories.popitem(last=False)

    def recall(self, upload: str) -> _Memory | None:
        """What is remembered, if anything is."""
        return self._memories.pop(upload, None)


class DirectoryResumableDrafts:
    """`interface.ResumableDrafts` over `Records`."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        writers: DiskThreads,
        draft: Callable[[UploadFile, int | None, str, HashCache], DirectoryResumableDraft],
        *,
        durable: bool,
    ) -> None:
        """`draft` makes one of its file, what was declared, and by which caller."""
        self._clock = clock
        self._writers = writers
        self._draft = draft
        self._durable = durable
        self._memories = HashCache()
        self._pausing: Deferred[None] | None = None
        self._waiting_for_sweep: list[Deferred[None]] = []

    def open(self, records: Records, *, sweep_later: bool) -> None:
        """The store was started; these are its uploads, which are swept now. With `sweep_later` a
        thread does it, and what is asked of uploads meanwhile waits until that has ended.
        """
        self._records = records
        self._closed = False
        if sweep_later:
            records.sweep_later()
            self._writers.run(self._sweep, caller=OWN_WORK).addBoth(self._swept)
        else:
            self._sweep()

    def close(self) -> None:
        """The store is about to stop."""
        self._closed = True
        if self._pausing is not None:
            self._pausing.cancel()

    def create(self, upload: str, plan: UploadSpec, etag: str | None = None) -> Deferred[None]:
        return self._run(
            self._records.create, upload, plan, etag, syncing=self._durable, caller=plan.caller
        )

    def find(
        self, upload: str, *, synced: bool = False, caller: str = OWN_WORK
    ) -> Deferred[UploadState]:
        def find() -> UploadState:
            return self._records.find(upload, synced=synced)

        return self._run(find, syncing=synced and self._durable, caller=caller)

    def resume(
        self, upload: str, declared: int | None, *, provisional: bool, caller: str = OWN_WORK
    ) -> DirectoryResumableDraft:
        file = UploadFile(self._records, upload, provisional)
        return self._draft(file, declared, caller, self._memories)

    def declare(self, upload: str, length: int, *, caller: str = OWN_WORK) -> Deferred[None]:
        return self._run(
            self._records.declare, upload, length, syncing=self._durable, caller=caller
        )

    def settle(self, upload: str, etag: str | None, *, caller: str = OWN_WORK) -> Deferred[None]:
        return self._run(self._records.settle, upload, etag, caller=caller)

    def forget(self, upload: str, *, caller: str = OWN_WORK) -> Deferred[bool]:
        return self._run(self._records.forget, upload, caller=caller)

    def learn(self) -> Deferred[None]:
        return ensureDeferred(self._learn())

    async def _learn(self) -> None:
        while await self._run(self._records.learn):
            await self._pause()

    def adjust(self, wall_ns: int, monotonic_ns: int) -> Deferred[None]:
        return ensureDeferred(self._adjust(ClockReading(self._records.boot, monotonic_ns, wall_ns)))

    async def _adjust(self, now: ClockReading) -> None:
        step_ns, uploads = await self._run(self._records.stepped, now)
        async for _ in self._in_batches(uploads, self._records.move, step_ns, now.wall_ns):
            pass
        await self._run(self._records.note, now)

    def expire(self, before_ns: int, spared: Collection[str] = ()) -> Deferred[list[str]]:
        return ensureDeferred(self._expire(before_ns, spared))

    async def _expire(self, before_ns: int, spared: Collection[str]) -> list[str]:
        await self._wait_for_sweep()
        uploads = self._records.expirable(spared)
        expired: list[str] = []
        try:
            async for some in self._in_batches(uploads, self._records.expire, before_ns):
                expired += some
        except StorageFailed:
            if not expired:
                raise
        return expired

    async def _pause(self) -> None:
        """So that requests do not wait for this, which may take long and has time.

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
        async for some in self._in_batches(self._records.unfinished(), self._records.callers):
            found |= some
        return found

    async def _in_batches(
        self, uploads: Iterator[str], job: Callable[..., T], *args: object
    ) -> AsyncIterator[T]:
        """What `job` returns for some of the uploads, and then for the next ones."""
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
        """Do a job in a thread, when the uploads are swept."""
        if self._records.is_swept:
            return self._writers.run(job, *args, syncing=syncing, caller=caller)
        return ensureDeferred(self._run_after_sweep(job, args, syncing, caller))

    async def _run_after_sweep(
        self, job: Callable[..., T], args: tuple[object, ...], syncing: bool, caller: str
    ) -> T:
        await self._wait_for_sweep()
        return await self._writers.run(job, *args, syncing=syncing, caller=caller)

    async def _wait_for_sweep(self) -> None:
        if not self._records.is_swept:
            waiting: Deferred[None] = Deferred()
            self._waiting_for_sweep.append(waiting)
            await waiting

    def _sweep(self) -> None:
        try:
            self._records.sweep()
        except (OSError, MediaError) as error:  # what is stored can be read all the same
            why = error.reason if isinstance(error, MediaError) else error.strerror
            self._log.warn("unfinished uploads were not swept: {why}", why=why)

    def _swept(self, failure: Failure | None) -> None:
        if failure is not None:
            self._log.failure("unfinished uploads could not be swept", failure)
        waiting, self._waiting_for_sweep = self._waiting_for_sweep, []
        for each in waiting:
            each.callback(None)

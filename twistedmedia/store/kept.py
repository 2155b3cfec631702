"""Drafts of the directory store that outlive their requests, and the process."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from twistedmedia.boundaries import Kept, Plan, Resumed
from twistedmedia.errors import StorageFailed
from twistedmedia.store.calls import SystemCalls
from twistedmedia.store.drafts import DirectoryDraft
from twistedmedia.store.folders import Folders
from twistedmedia.store.records import Records
from twistedmedia.store.root import Root
from twistedmedia.store.space import Space
from twistedmedia.store.threads import DiskThreads
from twistedmedia.store.validators import Instants

# A hash and what the front end remembers, some 40 KiB: of all but those written to last it is
# forgotten, and made again from the bytes themselves when the last of them is here.
_REMEMBERED = 32
_REVIEW_BYTES = 4 << 20  # at a time, so that others get their turn


@dataclass(frozen=True, slots=True)
class _Memory:
    """The state of a draft of `size` bytes when it was kept."""

    size: int
    hash: Any
    of_front_end: object | None


class KeptFile:
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


class DirectoryKeptDraft(DirectoryDraft):
    """`boundaries.KeptDraft` over a `KeptFile`."""

    def __init__(
        self,
        calls: SystemCalls,
        writers: DiskThreads,
        root: Root,
        folders: Folders,
        space: Space,
        instants: Instants,
        file: KeptFile,
        declared: int | None,
        durable: bool,
        memories: Memories,
    ) -> None:
        super().__init__(calls, writers, root, folders, space, instants, file, declared, durable)
        self._kept_file = file
        self._memories = memories
        self._began_at: int | None = None  # before it is resumed

    def resume(self) -> Deferred[Resumed]:
        """See `boundaries.KeptDraft`."""
        return self._in_lane(self._resume)

    def sync(self) -> Deferred[None]:
        """See `boundaries.KeptDraft`."""
        return self._in_lane(self._sync, syncing=self._durable)

    def keep(self, memory: object | None, *, synced: bool) -> Deferred[None]:
        """See `boundaries.KeptDraft`."""
        synced = synced and self._durable
        return self._in_lane(self._keep, memory, synced, syncing=synced)

    def put_down(self, *, undo: bool) -> Deferred[None]:
        """See `boundaries.KeptDraft`."""
        return self._in_lane(self._put_down, undo)

    def review(self, take: Callable[[bytes], object]) -> Deferred[bool]:
        """See `boundaries.KeptDraft`."""
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


class Memories:
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


class DirectoryKeptDrafts:
    """`boundaries.KeptDrafts` over `Records`."""

    def __init__(
        self,
        writers: DiskThreads,
        draft: Callable[[KeptFile, int | None, Memories], DirectoryKeptDraft],
        *,
        durable: bool,
    ) -> None:
        """`draft` makes one of its file and what was declared."""
        self._writers = writers
        self._draft = draft
        self._durable = durable
        self._memories = Memories()

    def open(self, records: Records) -> None:
        """The store was started; these are its uploads."""
        self._records = records

    def create(self, upload: str, plan: Plan, etag: str | None = None) -> Deferred[None]:
        return self._writers.run(self._records.create, upload, plan, etag, syncing=self._durable)

    def find(self, upload: str, *, synced: bool = False) -> Deferred[Kept]:
        def find() -> Kept:
            return self._records.find(upload, synced=synced)

        return self._writers.run(find, syncing=synced and self._durable)

    def resume(self, upload: str, declared: int | None, *, provisional: bool) -> DirectoryKeptDraft:
        file = KeptFile(self._records, upload, provisional)
        return self._draft(file, declared, self._memories)

    def declare(self, upload: str, length: int) -> Deferred[None]:
        return self._writers.run(self._records.declare, upload, length, syncing=self._durable)

    def settle(self, upload: str, etag: str | None) -> Deferred[None]:
        return self._writers.run(self._records.settle, upload, etag)

    def forget(self, upload: str) -> Deferred[bool]:
        return self._writers.run(self._records.forget, upload)

    def expire(self, before_ns: int) -> Deferred[list[str]]:
        return self._writers.run(self._records.expire, before_ns)

    def callers(self) -> Deferred[dict[str, str]]:
        return self._writers.run(self._records.callers)

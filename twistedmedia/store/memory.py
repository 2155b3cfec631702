"""A store in memory, for tests, and for embedding if nothing needs to outlive the process.

It keeps the other promises of the directory store. Its Deferreds have fired when it returns them,
so its callers need no turns.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from twisted.internet.defer import Deferred, execute, succeed

from twistedmedia.errors import (
    AlreadyExists,
    IsDirectory,
    NameConflict,
    NoSpace,
    NotFound,
    PreconditionFailed,
)
from twistedmedia.names import MediaName
from twistedmedia.store.batches import BATCH, BatchedListing
from twistedmedia.store.interface import (
    Batch,
    Draft,
    Listed,
    ListedFile,
    Media,
    PageEnd,
    Sealed,
    StoredFile,
)
from twistedmedia.store.memory_uploads import MemoryResumableDrafts
from twistedmedia.store.preconditions import Precondition
from twistedmedia.store.validators import UniqueTimestamps, etag_of

T = TypeVar("T")


class MemoryStore:
    """`interface.Store` in a dict. It holds at most `capacity` bytes."""

    def __init__(self, capacity: int = 1 << 30) -> None:
        self._capacity = capacity
        self._taken = 0  # bytes of published files and of drafts, and those that drafts declared
        self._files: dict[MediaName, MemoryMedia] = {}
        self._timestamps = UniqueTimestamps()
        self.resumable = MemoryResumableDrafts(self)

    def start(self) -> None:
        """Does nothing: there is nothing to start."""

    async def stop(self) -> None:
        """Does nothing: there is nothing to stop."""

    def begin(self, size: int | None = None, caller: str = "") -> Draft:
        return MemoryDraft(self, size or 0)

    def open(self, name: MediaName, *, caller: str = "") -> Deferred[Media]:
        return execute(self._open, name)

    def recognise(
        self, name: MediaName, sha256: str, *, caller: str = ""
    ) -> Deferred[StoredFile | None]:
        media = self._files.get(name)
        if media is None or media.hash() != sha256:
            return succeed(None)
        return succeed(StoredFile(name, media.size, sha256, media.etag))

    def delete(
        self, name: MediaName, precondition: Precondition | None = None, *, caller: str = ""
    ) -> Deferred[bool]:
        return execute(self._delete, name, precondition)

    def list(self, folders: tuple[str, ...], after: str, limit: int, *, caller: str = "") -> Listed:
        batches = self._batches(folders, after, limit)
        return BatchedListing(batches, lambda read, use: execute(lambda: use(read())))

    def _open(self, name: MediaName) -> Media:
        if self._is_folder((*name.folders, name.filename)):
            raise IsDirectory
        try:
            return self._files[name]
        except KeyError:
            raise NotFound from None

    def _delete(self, name: MediaName, precondition: Precondition | None) -> bool:
        if self._is_folder((*name.folders, name.filename)):
            raise NameConflict("this is a directory; it is removed with its last file")
        if precondition is not None and (name in self._files or not precondition.allows(None, 0)):
            self._check(name, precondition)
        media = self._files.pop(name, None)
        if media is not None:
            self.take(-media.size)
        return media is not None

    def _batches(self, folders: tuple[str, ...], after: str, limit: int) -> Iterator[Batch]:
        found: dict[str, ListedFile | str] = {}
        for name, media in self._files.items():
            if name.folders == folders:
                entry = ListedFile(name.filename, media.size, media.modified_ns, media.etag)
                found[name.filename] = entry
            elif name.folders[: len(folders)] == folders:
                directory = name.folders[len(folders)] + "/"
                found[directory] = directory
        if not found and folders:
            raise NotFound("there is no such directory")
        names = sorted((name for name in found if name.encode() > after.encode()), key=str.encode)
        end = PageEnd(more=len(names) > limit, left_out=0)
        entries = [found[name] for name in names[:limit]]
        while len(entries) > BATCH:
            batch, entries = tuple(entries[:BATCH]), entries[BATCH:]
            yield Batch(batch, len(entries))
        yield Batch(tuple(entries), 0, end)

    def take(self, size: int) -> None:
        """Take `size` bytes of the capacity. A negative size gives bytes back.

        :raises NoSpace: if they do not fit.
        """
        if size > 0 and self._taken + size > self._capacity:
            raise NoSpace
        self._taken += size

    def check(self, name: MediaName, replacing: Precondition | None) -> None:
        """Check that `name` is free for a new file, or that the file of that name may be replaced.

        :raises AlreadyExists, NameConflict, PreconditionFailed: if not.
        """
        if self._is_folder((*name.folders, name.filename)):
            raise NameConflict("a directory has this name")
        if replacing is not None:
            self._check(name, replacing)
            return
        if name in self._files:
            raise AlreadyExists
        for depth in range(1, len(name.folders)):
            if MediaName(name.folders[:depth], name.folders[depth]) in self._files:
                raise NameConflict("a part of the directory is not a directory")

    def publish(
        self, name: MediaName, content: bytes, replacing: Precondition | None
    ) -> MemoryMedia:
        """Give `content` its name. Its bytes are taken already."""
        self.check(name, replacing)
        replaced = self._files.get(name)
        if replaced is not None:
            self.take(-replaced.size)
        self._files[name] = MemoryMedia(content, self._timestamps.now_ns())
        return self._files[name]

    def _check(self, name: MediaName, precondition: Precondition) -> None:
        media = self._files.get(name)
        if media is None or not precondition.allows(media.etag, media.modified_ns):
            raise PreconditionFailed

    def _is_folder(self, path: tuple[str, ...]) -> bool:
        return any(name.folders[: len(path)] == path for name in self._files)


class MemoryDraft:
    """`interface.Draft` in a bytearray."""

    def __init__(self, store: MemoryStore, declared: int) -> None:
        self._store = store
        self._declared = declared
        self._reserved = 0
        self._content = bytearray()
        self._closed = False

    def prepare(self, name: MediaName, replacing: Precondition | None = None) -> Deferred[None]:
        def prepare() -> None:
            self._reserve(self._declared)
            self._store.check(name, replacing)

        return self._unless_closed(prepare)

    def append(self, chunks: Iterable[bytes]) -> Deferred[None]:
        def append() -> None:
            for chunk in chunks:
                self._reserve(len(self._content) + len(chunk))
                self._content += chunk

        return self._unless_closed(append)

    def seal(self) -> Deferred[Sealed]:
        return self._unless_closed(lambda: Sealed(len(self._content), self._sha256()))

    def publish(
        self, name: MediaName, replacing: Precondition | None = None
    ) -> Deferred[StoredFile]:
        def publish() -> StoredFile:
            self._reserve(len(self._content))
            media = self._store.publish(name, bytes(self._content), replacing)
            self._store.take(media.size - self._reserved)
            self._closed = True
            return StoredFile(name, media.size, self._sha256(), media.etag)

        return self._unless_closed(publish)

    def discard(self) -> None:
        if not self._closed:
            self._closed = True
            self._store.take(-self._reserved)

    def _reserve(self, size: int) -> None:
        if size > self._reserved:
            self._store.take(size - self._reserved)
            self._reserved = size

    def _sha256(self) -> str:
        return hashlib.sha256(self._content).hexdigest()

    def _unless_closed(self, function: Callable[[], T]) -> Deferred[T]:
        def run() -> T:
            if self._closed:
                raise RuntimeError("this draft was discarded")
            return function()

        return execute(run)


class MemoryMedia:
    """`interface.KernelMedia` over bytes."""

    def __init__(
        self, content: bytes | memoryview, modified_ns: int, sha256: str | None = None
    ) -> None:
        self._content = content
        self.size = len(content)
        self.modified_ns = modified_ns
        self.etag = etag_of(self.size, modified_ns)
        self.sha256 = sha256

    def digest(self) -> Deferred[str]:
        return succeed(self.hash())

    def hash(self) -> str:
        """The SHA-256 in hex."""
        if self.sha256 is None:
            self.sha256 = hashlib.sha256(self._content).hexdigest()
        return self.sha256

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        return execute(lambda: bytes(self._content[offset : offset + size]))

    def send_at_hand(self, socket: int, offset: int, size: int) -> int | None:
        return os.write(socket, memoryview(self._content)[offset : offset + size])

    def fetch(self, offset: int, size: int) -> Deferred[None]:
        return succeed(None)  # it is in memory

    def close(self) -> None:
        """Does nothing: no resource is held."""

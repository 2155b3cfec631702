"""A store in memory, with the promises of the directory store but for surviving its process.

For tests and for embedding where nothing needs to be kept. Its Deferreds have fired when they are
returned.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from twisted.internet.defer import Deferred, execute

from twistedmedia.boundaries import Draft, Media, Sealed, Stored
from twistedmedia.errors import AlreadyExists, NameConflict, NoSpace, NotFound
from twistedmedia.names import MediaName

T = TypeVar("T")


class MemoryStore:
    """`boundaries.Store` in a dict. `capacity` is how many bytes it takes in all."""

    def __init__(self, capacity: int = 1 << 30) -> None:
        self._capacity = capacity
        self._taken = 0  # by published files, drafts, and what drafts have declared
        self._files: dict[MediaName, MemoryMedia] = {}

    def start(self) -> None:
        """There is nothing to start."""

    async def stop(self) -> None:
        """There is nothing to stop."""

    def begin(self, size: int | None = None) -> Draft:
        return MemoryDraft(self, size or 0)

    def open(self, name: MediaName) -> Deferred[Media]:
        return execute(self._open, name)

    def delete(self, name: MediaName) -> Deferred[bool]:
        return execute(self._delete, name)

    def _open(self, name: MediaName) -> Media:
        try:
            return self._files[name]
        except KeyError:
            raise NotFound from None

    def _delete(self, name: MediaName) -> bool:
        if self._is_folder((*name.folders, name.filename)):
            raise NameConflict("this is a directory; it goes when its last file goes")
        media = self._files.pop(name, None)
        if media is not None:
            self.take(-media.size)
        return media is not None

    def take(self, size: int) -> None:
        """Count `size` bytes as taken; a negative size gives back.

        :raises NoSpace: when they do not fit.
        """
        if size > 0 and self._taken + size > self._capacity:
            raise NoSpace
        self._taken += size

    def check_free(self, name: MediaName) -> None:
        """:raises AlreadyExists, NameConflict: when `name` cannot become a file's."""
        if name in self._files:
            raise AlreadyExists
        if self._is_folder((*name.folders, name.filename)):
            raise NameConflict("a directory has this name")
        for depth in range(1, len(name.folders)):
            if MediaName(name.folders[:depth], name.folders[depth]) in self._files:
                raise NameConflict("a part of the directory is not a directory")

    def publish(self, name: MediaName, content: bytes) -> MemoryMedia:
        """Give `content`, whose bytes count as taken already, its name."""
        self.check_free(name)
        self._files[name] = MemoryMedia(content, time.time_ns())
        return self._files[name]

    def _is_folder(self, path: tuple[str, ...]) -> bool:
        return any(name.folders[: len(path)] == path for name in self._files)


class MemoryDraft:
    """`boundaries.Draft` in a bytearray."""

    def __init__(self, store: MemoryStore, declared: int) -> None:
        self._store = store
        self._declared = declared
        self._reserved = 0
        self._content = bytearray()
        self._closed = False

    def prepare(self, name: MediaName) -> Deferred[None]:
        def prepare() -> None:
            self._reserve(self._declared)
            self._store.check_free(name)

        return self._unless_closed(prepare)

    def append(self, chunks: Iterable[bytes]) -> Deferred[None]:
        def append() -> None:
            for chunk in chunks:
                self._reserve(len(self._content) + len(chunk))
                self._content += chunk

        return self._unless_closed(append)

    def seal(self) -> Deferred[Sealed]:
        return self._unless_closed(lambda: Sealed(len(self._content), self._sha256()))

    def publish(self, name: MediaName) -> Deferred[Stored]:
        def publish() -> Stored:
            self._reserve(len(self._content))
            media = self._store.publish(name, bytes(self._content))
            self._store.take(media.size - self._reserved)
            self._closed = True
            return Stored(name, media.size, self._sha256(), media.etag)

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
    """`boundaries.Media` over bytes. Its tag is what `drafts.etag_of` gives for such a file."""

    def __init__(self, content: bytes, modified_ns: int) -> None:
        self._content = content
        self.size = len(content)
        self.modified_ns = modified_ns
        self.etag = f'"{self.size:x}-{modified_ns:x}"'

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        return execute(lambda: self._content[offset : offset + size])

    def close(self) -> None:
        """Nothing is held."""

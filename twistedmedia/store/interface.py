"""The interface of a store: its Protocols, and the values that they use. No logic.

A store keeps media: whole files, each under a `MediaName`. A name appears in one step or not at
all. The interface speaks of drafts and media, never of paths or descriptors, so a store need not be
a folder. Every store has `Store`, `Draft`, `Media` and `Listed`. Some also have `KernelMedia`,
`WatchedStore` or `ResumableStore`, which extend what the service can do.

Every Deferred that a store returns may be cancelled. This ends the waiting, never the work. In a
durable store, what counts as done is on stable storage: it survives a crash of the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar, runtime_checkable

from twisted.internet.defer import Deferred

from twistedmedia.errors import StorageFailed
from twistedmedia.names import MediaName
from twistedmedia.store.preconditions import Precondition

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sealed:
    """The final content of a draft: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A published file. `etag` is a strong entity tag with quotes (RFC 9110, 8.8.3)."""

    name: MediaName
    size: int
    sha256: str
    etag: str


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file in a listing. `size` is in bytes, `modified_ns` in nanoseconds since the epoch."""

    filename: str
    size: int
    modified_ns: int
    etag: str


@dataclass(frozen=True, slots=True)
class PageEnd:
    """The end of a page. `more` is whether names follow on the next page. `left_out` counts what
    lies among the entries and is not media, such as links and files with invalid names.
    """

    more: bool
    left_out: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive entries of a page: files, and directories as their names with a slash.

    Entries are in the order of the bytes of their names in UTF-8. At most `left` entries of the
    page follow. Only the last batch has an `end`.
    """

    entries: tuple[ListedFile | str, ...]
    left: int
    end: PageEnd | None = None


@dataclass(frozen=True, slots=True)
class UploadSpec:
    """What a resumable upload will become: the file `name` of `length` bytes. `length` is None
    until it is known. `sha256` is the digest that the client declared, in hex, if it did. The
    upload counts as one of `caller`. `note` is text of the front end, which the store only keeps.
    """

    name: MediaName
    length: int | None
    sha256: str | None
    caller: str
    note: str


class UploadStatus(Enum):
    """Whether a resumable upload is finished, and how."""

    UNFINISHED = "unfinished"
    STORED = "stored"
    TAKEN = "taken"  # another file had its name


@dataclass(frozen=True, slots=True)
class UploadState:
    """A resumable upload between two requests. `size` is its offset: how many bytes of it count.
    `modified_ns` is when it was last written to, in nanoseconds since the epoch. `etag` is the
    entity tag of the file that it became, None if that is not known.
    """

    spec: UploadSpec
    status: UploadStatus
    size: int
    modified_ns: int
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a resumed draft continues: at `size` bytes, of which `synced` survive a crash of the
    machine. `inspection` is what the last call of `ResumableDraft.keep` passed, None if the store
    has forgotten it.
    """

    size: int
    synced: int
    inspection: object | None


class Draft(Protocol):
    """The bytes of an upload, which have no name until they are published.

    `prepare`, `append`, `seal` and `publish` are called one at a time, `discard` at any time. After
    a failure only `discard` is useful.
    """

    def prepare(self, name: MediaName, replacing: Precondition | None = None) -> Deferred[None]:
        """Check, before the first byte arrives, whether this draft can become `name`. Optional.
        Fails with the errors of `publish`.
        """

    def append(self, chunks: Iterable[bytes]) -> Deferred[None]:
        """Add bytes. The store iterates `chunks` where it writes: off the event loop, if it blocks.
        So `chunks` may be a generator that works on the bytes. Fails with what it raises, or with
        `NoSpace`.
        """

    def seal(self) -> Deferred[Sealed]:
        """Make the content final and, in a durable store, bring it to stable storage."""

    def publish(
        self, name: MediaName, replacing: Precondition | None = None
    ) -> Deferred[StoredFile]:
        """Give the draft its name, in one step. Seals the draft if that was not done before.

        Without `replacing` the name must be free: of any number of drafts exactly one gets it. With
        `replacing`, a file must have the name, and the precondition must allow the change. In a
        durable store, fires when the name is on stable storage, too. Fails with `AlreadyExists`,
        `NameConflict`, `NoSpace`, or, when replacing, with `PreconditionFailed`. The name is then
        as it was.
        """

    def discard(self) -> None:
        """Drop the draft, after any work that is still under way. A published name stays."""


class ResumableDraft(Draft, Protocol):
    """A draft that outlives its request, and the process. It has one writer at a time.

    `discard` only ends this use of the draft: appended bytes stay, unless they are provisional. If
    a sync fails, only the bytes synced before it count.
    """

    def resume(self) -> Deferred[Resumed]:
        """Continue where the last request ended. Called before any other method. Fails with
        `NotFound` if the upload no longer exists.
        """

    def sync(self) -> Deferred[None]:
        """Bring the appended bytes to stable storage, in a durable store. They then count even if
        the machine crashes. Not for a provisional draft.
        """

    def keep(self, inspection: object | None, *, synced: bool) -> Deferred[None]:
        """Make all written bytes count, even if the process is killed, and end this use of the
        draft. With `synced`, in a durable store, they count even if the machine crashes.

        The store remembers `inspection` in memory for the next `resume`, while it has room.
        """

    def release(self, *, undo: bool) -> Deferred[None]:
        """End this use of the draft. With `undo`, first remove the bytes written since `resume`.
        Fires when the draft may be resumed again.
        """

    def review(self, take: Callable[[bytes], object]) -> Deferred[bool]:
        """Read the next piece of what earlier requests wrote, from the beginning. Calls `take` with
        it, where the store reads. Fires with True when that was the last piece.

        If `resume` returned bytes but no `inspection`, call this until it fires with True, and only
        then `seal`.
        """


class Media(Protocol):
    """A stored file that is open. A delete or replacement does not disturb it."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def modified_ns(self) -> int:
        """In nanoseconds since the epoch."""

    @property
    def etag(self) -> str:
        """A strong entity tag with its quotes."""

    @property
    def sha256(self) -> str | None:
        """In hex. None if the store has not computed it yet."""

    def digest(self) -> Deferred[str]:
        """The SHA-256 in hex, computed if it is not known."""

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """At most `size` bytes from `offset`. Fewer only at the end of the file."""

    def close(self) -> None:
        """Close the file, after any read that is still under way."""


@runtime_checkable
class KernelMedia(Media, Protocol):
    """Media that the operating system can send to a socket by itself."""

    def send_at_hand(self, socket: int, offset: int, size: int) -> int | None:
        """Send at most `size` bytes from `offset` to the descriptor of a socket, without waiting
        for the disk. Returns how many bytes the socket took, 0 at the end of the file. Returns None
        if the bytes are not in memory; then `fetch` them first.

        :raises BlockingIOError: if the socket's buffer is full.
        :raises OSError: if the connection or the file is broken.
        """

    def fetch(self, offset: int, size: int) -> Deferred[None]:
        """Read the bytes into memory, for the next `send_at_hand`."""


@dataclass(frozen=True, slots=True)
class StorageState:
    """The state of a storage. `free` is the number of bytes that are free for media, None if
    unknown. `cannot_read` and `cannot_write` say what is wrong, None if nothing is.
    """

    free: int | None
    cannot_read: StorageFailed | None = None
    cannot_write: StorageFailed | None = None


@dataclass(frozen=True, slots=True)
class Reserved:
    """The bytes that running uploads have declared and not yet written: `size` in all, of so many
    `callers`, and `largest` of the caller that has most.
    """

    size: int
    callers: int
    largest: int


@runtime_checkable
class WatchedStore(Protocol):
    """A store that reports the state of its storage."""

    @property
    def reserved(self) -> Reserved:
        """The space that running uploads have reserved. Does not access the storage."""

    def look(self) -> Deferred[StorageState]:
        """The state of the storage. Cheap enough for every health check. While the storage hangs,
        fires late or never.
        """


class ResumableDrafts(Protocol):
    """The resumable uploads of a store. Each has an id of 32 hexadecimal digits.

    `caller` says for which caller a method works, as in `Store`.
    """

    def create(self, upload: str, spec: UploadSpec, etag: str | None = None) -> Deferred[None]:
        """Begin an upload with this id. With `etag`, it is finished: it has become the file with
        that entity tag. Fails with `NoSpace`.
        """

    def find(self, upload: str, *, synced: bool = False, caller: str) -> Deferred[UploadState]:
        """The state of an upload, finished or not. With `synced`, in a durable store, first brings
        it to stable storage. Fails with `NotFound`.
        """

    def resume(
        self, upload: str, declared: int | None, *, provisional: bool, caller: str
    ) -> ResumableDraft:
        """The draft of an upload, for writing. Reserves `declared` bytes, if known, in the share of
        `caller`. The bytes of a `provisional` draft count only once it is kept.
        """

    def declare(self, upload: str, length: int, *, caller: str) -> Deferred[None]:
        """Set the length of an upload, now known. Fails with `NoSpace` and `NotFound`."""

    def settle(self, upload: str, etag: str | None, *, caller: str) -> Deferred[None]:
        """Finish an unfinished upload: it has become the file with this entity tag, or, if that is
        None, its name is taken. Drops its bytes and keeps its spec.
        """

    def forget(self, upload: str, *, caller: str) -> Deferred[bool]:
        """Drop an upload. Fires with whether it existed. The file that it has become stays."""

    def learn(self) -> Deferred[None]:
        """Read the records of the uploads that an earlier process has finished. This may take long.
        Called before the first `adjust`. Until it fires, `expire` drops none of these uploads.
        """

    def expire(self, before_ns: int, spared: Collection[str] = ()) -> Deferred[list[str]]:
        """Drop all uploads last written to before that time, except `spared` ones and those that
        are being written to. Fires with their ids. A store that has very many finished uploads may
        drop some of them at any time.
        """

    def adjust(self, wall_ns: int, monotonic_ns: int) -> Deferred[None]:
        """Compare the current times of both clocks with those of the last call, which may have been
        in an earlier process. Called before `expire`.

        If the wall clock was stepped in between, moves the times of all uploads by that step. So a
        step makes no upload older or younger.
        """

    def callers(self) -> Deferred[dict[str, str]]:
        """Fires with the caller of each unfinished upload, by id."""


@runtime_checkable
class ResumableStore(Protocol):
    """A store with resumable uploads."""

    @property
    def resumable(self) -> ResumableDrafts:
        """The resumable uploads."""


class Listed(Protocol):
    """A page of a directory's listing, read batch by batch. It need not be closed: between two
    reads it holds only memory.
    """

    def read(self, use: Callable[[Batch], T]) -> Deferred[T]:
        """Read the next batch and call `use` with it, where the store works: off the event loop, if
        it blocks. Fires with what `use` returns. Only then, and not after the last batch, may the
        caller read again. The first read opens the directory.

        Fails with `NotFound` if the directory does not exist or is empty. The root, of no
        `folders`, always exists.
        """


class Store(Protocol):
    """A place where media is kept.

    `caller` says for which caller a method, or what it returns, works. A store that queues work
    takes callers in turns: none of them waits for all the work that another one has queued.
    """

    def begin(self, size: int | None, caller: str) -> Draft:
        """A new draft. `size` is what the client declared, in bytes, None if it did not.

        The draft's first operation reserves `size` bytes in the share of `caller`, if there is
        room. If space is short, the largest shares give way to smaller ones: their drafts then have
        less reserved, and go on.
        """

    def open(self, name: MediaName, *, caller: str) -> Deferred[Media]:
        """Open a file. Fails with `NotFound`, or `IsDirectory` if the name is a directory's."""

    def recognise(
        self, name: MediaName, sha256: str, *, caller: str
    ) -> Deferred[StoredFile | None]:
        """The file of that name if its content has that digest, otherwise None. In a durable store,
        brings the file and its name to stable storage before it fires with them.
        """

    def delete(
        self, name: MediaName, precondition: Precondition | None = None, *, caller: str
    ) -> Deferred[bool]:
        """Delete a file and the folders that this leaves empty. Fires with whether it existed.
        Fails with `NameConflict` if the name is a directory's, and with `PreconditionFailed` if the
        precondition does not allow it.
        """

    def list(self, folders: tuple[str, ...], after: str, limit: int, *, caller: str) -> Listed:
        """The page with the first `limit` names of a directory that come after `after`."""

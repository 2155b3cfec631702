"""The Protocols between the rooms, and the values that cross them. No logic.

A store keeps media: whole files under a `MediaName`, each appearing in one step or not at all. The
boundary speaks of drafts and media, never of paths or descriptors, so that a store need not be a
folder. Every Deferred that a store returns may be cancelled; that ends the waiting, never the work.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar, runtime_checkable

from twisted.internet.defer import Deferred

from twistedmedia.errors import StorageFailed
from twistedmedia.names import MediaName

T = TypeVar("T")

# Whether a file with this entity tag and this modification time, in nanoseconds since the epoch,
# may be replaced or deleted; None and 0 where there is none.
Condition = Callable[[str | None, int], bool]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A draft to which nothing will be added: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that was published. `etag` is a strong entity tag with quotes (RFC 9110, 8.8.3)."""

    name: MediaName
    size: int
    sha256: str
    etag: str


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file in a listing: its filename, size in bytes, modification time in nanoseconds since the
    epoch, and entity tag.
    """

    filename: str
    size: int
    modified_ns: int
    etag: str


@dataclass(frozen=True, slots=True)
class PageEnd:
    """What follows the entries of a page. `more` is whether names follow. `left_out` counts what
    lies among the entries and is not media: names that break the rules.
    """

    more: bool
    left_out: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Some entries of a page of a directory's listing, in the order of the bytes of the names in
    UTF-8: files, and directories as their names with a slash. At most `left` entries of the page
    follow. The last batch has the `end` of the page.
    """

    entries: tuple[ListedFile | str, ...]
    left: int
    end: PageEnd | None = None


@dataclass(frozen=True, slots=True)
class UploadSpec:
    """What an upload that goes over many requests is to become: a file `name` of `length` bytes,
    None while that is not known. `sha256` is the digest in hex that was declared, if one was,
    `caller` whose upload it is, and `note` whatever its front end wants to know again.
    """

    name: MediaName
    length: int | None
    sha256: str | None
    caller: str
    note: str


class UploadStatus(Enum):
    """What has become of an upload."""

    UNFINISHED = "unfinished"
    STORED = "stored"
    TAKEN = "taken"  # its name is another file's


@dataclass(frozen=True, slots=True)
class UploadState:
    """An upload that is kept between requests: `size` bytes of it are here and count. `modified_ns`
    is when it was last written to, in nanoseconds since the epoch. `etag` is the entity tag of the
    file that it has become, None where that is not known.
    """

    plan: UploadSpec
    fate: UploadStatus
    size: int
    modified_ns: int
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Resumed:
    """A draft that goes on at `size` bytes, of which `synced` survive the machine. `memory` is what
    was given to `KeptDraft.keep` when it was written to last, None when that is forgotten.
    """

    size: int
    synced: int
    memory: object | None


class Draft(Protocol):
    """A file on its way in, which has no name until it is published.

    `prepare`, `append`, `seal` and `publish` are called one at a time; `discard` at any time. After
    a failure there is nothing to do but to discard.
    """

    def prepare(self, name: MediaName, replacing: Condition | None = None) -> Deferred[None]:
        """Find out, before any byte has come, whether this draft can become `name`. Optional.

        Fails as `publish` would, or with `NoSpace`.
        """

    def append(self, chunks: Iterable[bytes]) -> Deferred[None]:
        """Add bytes. `chunks` is iterated where the writing is done, off the event loop if the
        store blocks, so a generator may do work of its own; what it raises is the failure here.

        Fails with `NoSpace`.
        """

    def seal(self) -> Deferred[Sealed]:
        """Make the content final and, in a durable store, bring it to stable storage."""

    def publish(self, name: MediaName, replacing: Condition | None = None) -> Deferred[StoredFile]:
        """Give the draft its name, if nothing has that name: of any number of drafts exactly one
        wins. With `replacing`, if a file has that name of which this is true: it is replaced in one
        step. Seals the draft first, where that was not done. Fires when the name is on stable
        storage too, in a durable store.

        Fails with `AlreadyExists`, `NameConflict`, `NoSpace`, or, when replacing,
        `PreconditionFailed`; then the name is as it was.
        """

    def discard(self) -> None:
        """Let go of everything, behind work that is still under way. A published name stays."""


class KeptDraft(Draft, Protocol):
    """A draft that outlives the request which writes to it, and its process; nobody else writes to
    it meanwhile. `discard` lets go of it, and waits for nothing: bytes that were `append`ed stay,
    unless they are provisional. If a sync fails, only the bytes that were synced before count.
    """

    def resume(self) -> Deferred[Resumed]:
        """Go on where the last request that wrote to it has ended. To be called first.

        Fails with `NotFound` when it is no longer there.
        """

    def sync(self) -> Deferred[None]:
        """What was appended is on stable storage, in a durable store, and counts whatever happens
        to the machine. Not for what is provisional.
        """

    def keep(self, memory: object | None, *, synced: bool) -> Deferred[None]:
        """What was written counts from now on, whatever happens to the process; if it is to be
        `synced`, in a durable store, whatever happens to the machine. Lets go of the draft.
        `memory` is remembered for the next one to resume it, while there is room.
        """

    def release(self, *, undo: bool) -> Deferred[None]:
        """Let go of the draft; `undo` what was written since it was resumed. Fires when it may be
        resumed again.
        """

    def review(self, take: Callable[[bytes], object]) -> Deferred[bool]:
        """Read some of what earlier requests have written, from its beginning on: `take` is given
        the bytes, where the reading is done. Fires with whether that was the last of it. To be
        called until it is, before a draft with bytes of which no memory is left is sealed.
        """


class Media(Protocol):
    """A stored file that was opened. A delete or replacement does not disturb it."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def modified_ns(self) -> int:
        """Nanoseconds since the epoch."""

    @property
    def etag(self) -> str:
        """A strong entity tag with its quotes."""

    @property
    def sha256(self) -> str | None:
        """In hex, where the store knows it."""

    def digest(self) -> Deferred[str]:
        """The SHA-256 in hex, computed where it is not known."""

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """At most `size` bytes from `offset`; fewer only where the file ends."""

    def close(self) -> None:
        """Let go of it, behind a read that is still under way."""


@runtime_checkable
class KernelMedia(Media, Protocol):
    """Media that the operating system can send to a socket by itself."""

    def send_at_hand(self, socket: int, offset: int, size: int) -> int | None:
        """Send at most `size` bytes from `offset` to the descriptor of a socket, without a wait for
        the disk: how many the socket took, 0 where the file ends, None when they are not in memory
        and have to be fetched first.

        :raises BlockingIOError: when the socket takes none now.
        :raises OSError: when the connection or the file is broken.
        """

    def fetch(self, offset: int, size: int) -> Deferred[None]:
        """Bring the bytes into memory, so that they are at hand for the next `send_at_hand`."""


@dataclass(frozen=True, slots=True)
class StorageState:
    """How a storage is. `free` is how many bytes are free for media, None if unknown.
    `cannot_read` and `cannot_write` say what is wrong, None if nothing is.
    """

    free: int | None
    cannot_read: StorageFailed | None = None
    cannot_write: StorageFailed | None = None


@dataclass(frozen=True, slots=True)
class Reserved:
    """The bytes that running uploads have declared and not yet written: how many, of how many
    callers, and how many of them are of the caller that has most.
    """

    size: int
    callers: int
    largest: int


@runtime_checkable
class WatchedStore(Protocol):
    """A store that knows how its storage is."""

    @property
    def reserved(self) -> Reserved:
        """How much of the free space running uploads have reserved. Does not ask the storage."""

    def look(self) -> Deferred[StorageState]:
        """How the storage is. Cheap enough for every health check. It fires late, or never, while
        the storage does not answer.
        """


class KeptDrafts(Protocol):
    """Drafts that outlive their requests. Each has an id, 32 hexadecimal digits.

    `caller` says whose work a method does, as in `Store`.
    """

    def create(self, upload: str, plan: UploadSpec, etag: str | None = None) -> Deferred[None]:
        """Begin an upload of that id; with `etag`, one that is stored already, as that file.

        Fails with `NoSpace`.
        """

    def find(self, upload: str, *, synced: bool = False, caller: str) -> Deferred[UploadState]:
        """What is known of an upload, whatever has become of it. If it is to be `synced`, that is
        on stable storage in a durable store.

        Fails with `NotFound`.
        """

    def resume(
        self, upload: str, declared: int | None, *, provisional: bool, caller: str
    ) -> KeptDraft:
        """The draft, to write to it. `declared` bytes, if known, count as taken meanwhile, in the
        share of `caller`. What is `provisional` counts only when it is kept, whatever happens to
        the process.
        """

    def declare(self, upload: str, length: int, *, caller: str) -> Deferred[None]:
        """The length of an upload is known now.

        Fails with `NoSpace` and `NotFound`.
        """

    def settle(self, upload: str, etag: str | None, *, caller: str) -> Deferred[None]:
        """An unfinished upload has become the file with this entity tag, or its name is taken: what
        was written goes, the plan stays.
        """

    def forget(self, upload: str, *, caller: str) -> Deferred[bool]:
        """Drop an upload; whether there was one. A file that it has become stays."""

    def learn(self) -> Deferred[None]:
        """Look at the uploads that an earlier process has finished. This may take long, and is to
        be done before the first `adjust`. Until then `expire` drops none of them.
        """

    def expire(self, before_ns: int, spared: Collection[str] = ()) -> Deferred[list[str]]:
        """Drop all uploads last written to before that time, but those that are being written to,
        and those that are to be `spared`.
        Fires with their ids. A store may drop finished uploads at any time, if there are very many.
        """

    def adjust(self, wall_ns: int, monotonic_ns: int) -> Deferred[None]:
        """What the wall clock and the monotonic clock say now. To be called before `expire`.

        If the wall clock was stepped since the last call, be that in an earlier process, the times
        at which uploads were written to move with it: a step makes no upload older or younger.
        """

    def callers(self) -> Deferred[dict[str, str]]:
        """Fires with whose each unfinished upload is."""


@runtime_checkable
class KeepingStore(Protocol):
    """A store whose drafts can outlive their requests."""

    @property
    def kept(self) -> KeptDrafts:
        """Those drafts."""


class Listed(Protocol):
    """A page of a directory's listing, read batch by batch. Between two reads it holds memory only,
    so it need not be closed.
    """

    def read(self, use: Callable[[Batch], T]) -> Deferred[T]:
        """Read the next batch. Fires with what `use` makes of it. `use` is called where the store
        works, off the event loop if the store blocks. The first read begins to read the directory.
        Read again only after this has fired, and not after the last batch.

        Fails with `NotFound` when there is no such directory, or nothing at all in it; the root, of
        no `folders`, is always there.
        """


class Store(Protocol):
    """Where media lives.

    `caller` says whose work a method does, and what it returns. A store that queues work does that
    of its callers in turns: nobody waits for all the work that another caller asked for.
    """

    def begin(self, size: int | None, caller: str) -> Draft:
        """A new draft. `size`, in bytes, is what was declared; from the draft's first work on it
        counts as taken, if there is so much, in the share of `caller` of the space. The largest
        shares give way to smaller ones: then less of it counts, and the draft goes on.
        """

    def open(self, name: MediaName, *, caller: str) -> Deferred[Media]:
        """Fails with `NotFound`; when the name is a directory's, with `IsDirectory`."""

    def recognise(
        self, name: MediaName, sha256: str, *, caller: str
    ) -> Deferred[StoredFile | None]:
        """The file of that name if its content has that digest, None if not, or if there is none.
        When this fires with a file, that is on stable storage, in a durable store.
        """

    def delete(
        self, name: MediaName, condition: Condition | None = None, *, caller: str
    ) -> Deferred[bool]:
        """Whether there was such a file. Folders left empty go with it.

        Fails with `NameConflict` when the name is a directory's, and with `PreconditionFailed` when
        there is a condition and it is not true.
        """

    def list(self, folders: tuple[str, ...], after: str, limit: int, *, caller: str) -> Listed:
        """The page with the first `limit` names of a directory that come after `after`."""

"""The Protocols between the rooms, and the values that cross them. No logic.

A store keeps media: whole files under a `MediaName`, each appearing in one step or not at all. The
boundary speaks of drafts and media, never of paths or descriptors, so that a store need not be a
folder. Every Deferred that a store returns may be cancelled; that ends the waiting, never the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from twisted.internet.defer import Deferred

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
class Stored:
    """A file that was published. `etag` is a strong entity tag with quotes (RFC 9110, 8.8.3)."""

    name: MediaName
    size: int
    sha256: str
    etag: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a listing: its filename, size in bytes, modification time in nanoseconds since the
    epoch, and entity tag.
    """

    filename: str
    size: int
    modified_ns: int
    etag: str


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a directory's listing, in the order of the bytes of the names in UTF-8: files, and
    directories as their names with a slash. `more` is whether names follow. `left_out` counts what
    lies among them and is no media: names that break the rules.
    """

    entries: tuple[Entry | str, ...]
    more: bool
    left_out: int


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

    def publish(self, name: MediaName, replacing: Condition | None = None) -> Deferred[Stored]:
        """Give the draft its name, if nothing has that name: of any number of drafts exactly one
        wins. With `replacing`, if a file has that name of which this is true: it is replaced in one
        step. Seals the draft first, where that was not done. Fires when the name is on stable
        storage too, in a durable store.

        Fails with `AlreadyExists`, `NameConflict`, `NoSpace`, or, when replacing,
        `PreconditionFailed`; then the name is as it was.
        """

    def discard(self) -> None:
        """Let go of everything, behind work that is still under way. A published name stays."""


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


@runtime_checkable
class FiniteStore(Protocol):
    """A store that knows how much fits in."""

    def free(self) -> Deferred[int | None]:
        """Fires with the bytes that are free for media, None where nobody knows."""


class Store(Protocol):
    """Where media lives."""

    def begin(self, size: int | None = None) -> Draft:
        """A new draft. `size`, in bytes, is what was declared; from the draft's first work on it
        counts as taken, if there is so much.
        """

    def open(self, name: MediaName) -> Deferred[Media]:
        """Fails with `NotFound`; when the name is a directory's, with `IsDirectory`."""

    def recognise(self, name: MediaName, sha256: str) -> Deferred[Stored | None]:
        """The file of that name if its content has that digest, None if not, or if there is none.
        When this fires with a file, that is on stable storage, in a durable store.
        """

    def delete(self, name: MediaName, condition: Condition | None = None) -> Deferred[bool]:
        """Whether there was such a file. Folders left empty go with it.

        Fails with `NameConflict` when the name is a directory's, and with `PreconditionFailed` when
        there is a condition and it is not true.
        """

    def list(
        self, folders: tuple[str, ...], after: str, limit: int, render: Callable[[Page], T]
    ) -> Deferred[T]:
        """What `render` makes of the first `limit` names of a directory that come after `after`.
        It is called where the store works, off the event loop if the store blocks.

        Fails with `NotFound` when there is no such directory, or nothing at all in it; the root, of
        no `folders`, is always there.
        """

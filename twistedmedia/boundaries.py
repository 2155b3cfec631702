"""The Protocols between the rooms, and the values that cross them. No logic.

A store keeps media: whole files under a `MediaName`, each appearing in one step or not at all. The
boundary speaks of drafts and media, never of paths or descriptors, so that a store need not be a
folder. Every Deferred that a store returns may be cancelled; that ends the waiting, never the work.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred

from twistedmedia.names import MediaName


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


class Draft(Protocol):
    """A file on its way in, which has no name until it is published.

    `prepare`, `append`, `seal` and `publish` are called one at a time; `discard` at any time. After
    a failure there is nothing to do but to discard.
    """

    def prepare(self, name: MediaName) -> Deferred[None]:
        """Find out, before any byte has come, whether this draft can become `name`. Optional.

        Fails with `NoSpace`, `AlreadyExists` or `NameConflict`.
        """

    def append(self, chunks: Iterable[bytes]) -> Deferred[None]:
        """Add bytes. `chunks` is iterated where the writing is done, off the event loop if the
        store blocks, so a generator may do work of its own; what it raises is the failure here.

        Fails with `NoSpace`.
        """

    def seal(self) -> Deferred[Sealed]:
        """Make the content final and, in a durable store, bring it to stable storage."""

    def publish(self, name: MediaName) -> Deferred[Stored]:
        """Give the draft its name, if nothing has that name: of any number of drafts exactly one
        wins. Seals it first, where that was not done. Fires when the name is on stable storage too,
        in a durable store.

        Fails with `AlreadyExists`, `NameConflict` or `NoSpace`; then the name is as it was.
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

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """At most `size` bytes from `offset`; fewer only where the file ends."""

    def close(self) -> None:
        """Let go of it, behind a read that is still under way."""


class Store(Protocol):
    """Where media lives."""

    def begin(self, size: int | None = None) -> Draft:
        """A new draft. `size`, in bytes, is what was declared; from the draft's first work on it
        counts as taken, if there is so much.
        """

    def open(self, name: MediaName) -> Deferred[Media]:
        """Fails with `NotFound`."""

    def delete(self, name: MediaName) -> Deferred[bool]:
        """Whether there was such a file. Folders left empty go with it.

        Fails with `NameConflict` when the name is a directory's.
        """

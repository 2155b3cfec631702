"""Uploads to a library whose store is watched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred

from tests.support import named
from twistedmedia.deferreds import shield
from twistedmedia.errors import NotFound
from twistedmedia.library.caller import Caller
from twistedmedia.library.events import Source
from twistedmedia.library.library import Library
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.names import MediaName
from twistedmedia.store.interface import Draft, Listed, Media, Sealed, StoredFile
from twistedmedia.store.memory import MemoryStore
from twistedmedia.store.preconditions import Precondition

HELLO = named("prompts/en/hello.mp3")
CALLER = Caller.at("192.0.2.1")
SOURCE = Source(CALLER)


class WatchedStore:
    """A `MemoryStore` that notes what is asked of its drafts, and does it when `held` calls are
    let go by `go_on`.
    """

    def __init__(self, capacity: int = 1 << 30, holding: tuple[str, ...] = ()) -> None:
        self._store = MemoryStore(capacity)
        self._holding = holding
        self.held: list[Callable[[], None]] = []
        self.asked: list[str] = []
        self.drafts = 0  # begun and neither published nor discarded

    def begin(self, size: int | None = None, caller: str = "") -> Draft:
        self.drafts += 1
        return WatchedDraft(self, self._store.begin(size, caller))

    def open(self, name: MediaName, *, caller: str) -> Deferred[Media]:
        return self._store.open(name, caller=caller)

    def recognise(
        self, name: MediaName, sha256: str, *, caller: str
    ) -> Deferred[StoredFile | None]:
        return self.ask("recognise", lambda: self._store.recognise(name, sha256, caller=caller))

    def delete(
        self, name: MediaName, precondition: Precondition | None = None, *, caller: str
    ) -> Deferred[bool]:
        return self._store.delete(name, precondition, caller=caller)

    def list(self, folders: tuple[str, ...], after: str, limit: int, *, caller: str) -> Listed:
        return self._store.list(folders, after, limit, caller=caller)

    def ask(self, what: str, work: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        self.asked.append(what)
        if what not in self._holding:
            return work()
        gate: Deferred[None] = Deferred()
        gate.addCallback(lambda _: work())
        self.held.append(lambda: gate.callback(None))
        return shield(gate)

    def go_on(self) -> None:
        """Do what is held, and hold nothing more."""
        self._holding = ()
        for go_on in self.held:
            go_on()

    def content(self, name: MediaName) -> bytes | None:
        """What is stored under `name`."""
        found: list[Any] = []
        self._store.open(name).addCallbacks(found.append, lambda failure: failure.trap(NotFound))
        if found:
            found[0].read(0, 1 << 30).addCallback(found.append)
        return found[-1] if found else None


class WatchedDraft:
    def __init__(self, store: WatchedStore, draft: Draft) -> None:
        self._store = store
        self._draft = draft
        self._gone = False

    def prepare(self, name: MediaName, replacing: Precondition | None = None) -> Deferred[None]:
        return self._store.ask("prepare", lambda: self._draft.prepare(name, replacing))

    def append(self, chunks: Iterable[bytes]) -> Deferred[None]:
        return self._store.ask("append", lambda: self._draft.append(chunks))

    def seal(self) -> Deferred[Sealed]:
        return self._store.ask("seal", self._draft.seal)

    def publish(
        self, name: MediaName, replacing: Precondition | None = None
    ) -> Deferred[StoredFile]:
        return self._store.ask("publish", lambda: self._draft.publish(name, replacing))

    def discard(self) -> None:
        if not self._gone:
            self._gone = True
            self._store.drafts -= 1
        self._draft.discard()


def a_library(store: Any = None, **limits: Any) -> Library:
    return Library(store or WatchedStore(), UploadLimits(**limits))


@contextmanager
def arriving(library: Library, name: MediaName = HELLO, **options: Any) -> Iterator[Any]:
    with library.begin(SOURCE, **options) as arrival:
        arrival.accepted(name)
        yield arrival


async def taken(
    library: Library, pieces: Iterable[bytes], name: MediaName = HELLO, **options: Any
) -> Any:
    """An arrival of `pieces`, each written by itself, to its end."""
    with arriving(library, name, **options) as arrival:
        await arrival.prepare()
        for piece in pieces:
            await arrival.write([piece])
        await arrival.end()
        await library.publish([arrival])
    return arrival

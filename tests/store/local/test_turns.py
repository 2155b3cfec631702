"""What every store promises to its callers: nobody waits for all the work of another caller."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred

from tests.listed import page_of
from tests.store.conftest import KINDS, make_store
from tests.store.local.faults import FailingCalls
from tests.store.local.test_resumable_drafts import PLAN, UPLOAD, begun
from tests.store.test_contract import stored
from tests.support import asynchronous, named
from twistedmedia.errors import NotFound
from twistedmedia.store.local.disk_threads import OWN_WORK, DiskThreads
from twistedmedia.store.memory import MemoryStore

CROWD, NEWCOMER = "192.0.2.66", "192.0.2.1"
MANY = 1200  # jobs of each of four kinds
# So many of these jobs have their turn before one of the newcomer's: one of the crowd, and one of
# no caller. More may be done before it: the thread that has it may not run for 100 ms.
BEFORE_THE_NEWCOMER = 2
NAME, LARGE = named("a/b/x.mp3"), named("a/b/large.mp3")
ABSENT = named("a/b/absent.mp3")
CONTENT = b"content"


@pytest_twisted.async_yield_fixture(params=KINDS)
async def store(request: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """Nothing is really synced."""
    made = make_store(request.param, tmp_path / "media", FailingCalls())
    made.start()
    await stored(made, NAME, CONTENT)
    await stored(made, LARGE, bytes(1 << 20))
    await begun(made, b"hello")
    yield made
    await made.stop()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each job of the newcomer, how many of others had a turn while it waited. Jobs that sync
    wait by themselves.
    """
    waits: list[int] = []
    given: Counter[tuple[DiskThreads, bool]] = Counter()
    asked: dict[Any, int] = {}  # of those that wait: how many were given by then
    wait, give = DiskThreads._enqueue, DiskThreads._give

    def note_asked(pool: DiskThreads, submitted: Any) -> None:
        if submitted.caller not in (CROWD, OWN_WORK):
            asked[submitted] = given[pool, submitted.syncing]
        wait(pool, submitted)

    def note_given(pool: DiskThreads, submitted: Any) -> None:
        if submitted in asked:
            waits.append(given[pool, submitted.syncing] - asked.pop(submitted))
        given[pool, submitted.syncing] += 1
        give(pool, submitted)

    monkeypatch.setattr(DiskThreads, "_enqueue", note_asked)
    monkeypatch.setattr(DiskThreads, "_give", note_given)
    return waits


class Crowd:
    """One caller that asked for a lot of all kinds of work, beside much work of no caller. So a job
    that is not done in the turns of its caller waits for long.
    """

    def __init__(self, store: Any) -> None:
        self.jobs: list[Deferred[Any]] = []
        absent = "e" * 32
        for number in range(MANY):
            caller = CROWD if number % 2 else ""
            self.jobs += (
                store.delete(ABSENT, caller=caller),
                store.open(ABSENT, caller=caller),
                store.resumable.find(absent, synced=True, caller=caller),
                store.resumable.forget(absent, caller=caller),
            )


async def read(store: Any) -> None:
    media = await store.open(LARGE, caller=NEWCOMER)
    await media.read(0, 100)
    media.close()


async def digested(store: Any) -> None:
    media = await store.open(LARGE, caller=NEWCOMER)
    media.sha256 = None
    await media.digest()
    media.close()


async def resumed(store: Any) -> None:
    draft = store.resumable.resume(UPLOAD, None, provisional=False, caller=NEWCOMER)
    await draft.resume()
    await draft.append([b"more"])
    await draft.keep(None, synced=True)


async def uploaded(store: Any) -> None:
    draft = store.begin(7, NEWCOMER)
    await draft.append([CONTENT])
    await draft.publish(named("a/b/new.mp3"))


# What a newcomer asks for.
ASKED: dict[str, Callable[[Any], Any]] = {
    "open": lambda store: store.open(ABSENT, caller=NEWCOMER),
    "read": read,
    "digest": digested,
    "delete": lambda store: store.delete(NAME, caller=NEWCOMER),
    "recognise": lambda store: store.recognise(
        NAME, hashlib.sha256(CONTENT).hexdigest(), caller=NEWCOMER
    ),
    "list": lambda store: page_of(store, caller=NEWCOMER),
    "upload": uploaded,
    "create": lambda store: store.resumable.create("d" * 32, PLAN),
    "find": lambda store: store.resumable.find(UPLOAD, caller=NEWCOMER),
    "find and sync": lambda store: store.resumable.find(UPLOAD, synced=True, caller=NEWCOMER),
    "resume": resumed,
    "declare": lambda store: store.resumable.declare(UPLOAD, 5, caller=NEWCOMER),
    "settle": lambda store: store.resumable.settle(UPLOAD, None, caller=NEWCOMER),
    "forget": lambda store: store.resumable.forget(UPLOAD, caller=NEWCOMER),
}


@asynchronous
@pytest.mark.parametrize("asked", ASKED)
async def test_a_newcomer_does_not_wait_for_all_that_another_caller_asked_for(
    store: Any, asked: str, waits: list[int]
) -> None:
    crowd = Crowd(store)
    asking: Any = ASKED[asked](store)
    if not isinstance(asking, Deferred):
        asking = ensureDeferred(asking)
    await DeferredList([asking, *crowd.jobs], consumeErrors=True)
    assert waits or isinstance(store, MemoryStore)
    assert max(waits, default=0) <= BEFORE_THE_NEWCOMER


@asynchronous
@pytest.mark.parametrize("asked", ASKED)
async def test_what_a_newcomer_asks_for_is_done_in_its_own_turns(
    store: Any, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = set()
    wait = DiskThreads._enqueue

    def note_asked(pool: DiskThreads, submitted: Any) -> None:
        callers.add(submitted.caller)
        wait(pool, submitted)

    monkeypatch.setattr(DiskThreads, "_enqueue", note_asked)
    asking: Any = ASKED[asked](store)
    with suppress(NotFound):
        await asking
    assert callers == (set() if isinstance(store, MemoryStore) else {NEWCOMER})

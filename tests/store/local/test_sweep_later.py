"""A sweep of uploads in a thread, after the service has started. Operations wait for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import LogEvent, formatEvent

from tests.store.local.faults import CallsLayer, FailingCalls, SlowCalls
from tests.store.local.test_records import FOLDER, uploads_in
from tests.store.local.test_resumable_drafts import SPEC, UPLOAD, begun
from tests.store.test_contract import content_of
from tests.support import asynchronous, named
from twistedmedia.errors import NotFound
from twistedmedia.store.interface import UploadStatus
from twistedmedia.store.preconditions import ANY, Precondition

HALF, NEW = "0" * 32, "f" * 32


def of_uploads(fd: int, *_: Any) -> bool:
    """Whether a call is about their folder."""
    return os.readlink(f"/proc/self/fd/{fd}").endswith(FOLDER)


@dataclass
class Held:
    """A store whose sweep has begun, and continues when a test says so."""

    store: Any
    calls: SlowCalls

    def go_on(self) -> None:
        self.calls.release()


async def sweeping(start: Any) -> Held:
    calls = SlowCalls()
    entered = calls.hold("listdir", where=of_uploads)
    held = Held(start(calls, sweep_later=True), calls)
    await entered
    return held


@pytest_twisted.async_yield_fixture
async def held(start: Any, root: Path) -> Any:
    """There is an upload that may go on, and one without a record."""
    store = start(FailingCalls())
    await begun(store, b"hello")
    await store.stop()
    (root / FOLDER / f"{HALF}.bytes").write_bytes(b"half")
    held = await sweeping(start)
    yield held
    held.go_on()


ASKED: dict[str, Callable[[Any], Deferred[Any]]] = {
    "find": lambda kept: kept.find(UPLOAD),
    "create": lambda kept: kept.create(NEW, SPEC),
    "declare": lambda kept: kept.declare(UPLOAD, 11),
    "settle": lambda kept: kept.settle(UPLOAD, None),
    "forget": lambda kept: kept.forget(UPLOAD),
    "callers": lambda kept: kept.callers(),
    "adjust": lambda kept: kept.adjust(0, 0),
    "expire": lambda kept: kept.expire(0),
}


@asynchronous
@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
async def test_operations_on_uploads_wait_for_the_sweep(
    held: Held, root: Path, ask: Callable[[Any], Deferred[Any]]
) -> None:
    asked = ask(held.store.resumable)
    await stored(held, "a/b.mp3")
    assert await content_of(held.store, named("a/b.mp3")) == b"media", "other work goes on"
    assert not asked.called
    assert f"{HALF}.bytes" in uploads_in(root)
    held.go_on()
    await asked
    assert f"{HALF}.bytes" not in uploads_in(root)


@asynchronous
async def test_operations_called_before_the_sweep_find_what_it_left(held: Held, root: Path) -> None:
    created = held.store.resumable.create(NEW, SPEC)
    found, half = held.store.resumable.find(UPLOAD), held.store.resumable.find(HALF)
    callers = held.store.resumable.callers()
    held.go_on()
    with pytest.raises(NotFound):
        await half
    kept = await found
    assert (kept.status, kept.size) == (UploadStatus.UNFINISHED, 5)
    await created
    assert {**await callers, NEW: SPEC.caller} == dict.fromkeys((UPLOAD, NEW), SPEC.caller)
    assert (await held.store.resumable.find(NEW)).status is UploadStatus.UNFINISHED


@asynchronous
async def test_an_operation_cancelled_before_the_sweep_ends_does_not_affect_others(
    held: Held,
) -> None:
    left, stays = held.store.resumable.create(NEW, SPEC), held.store.resumable.find(UPLOAD)
    left.cancel()
    with pytest.raises(CancelledError):
        await left
    held.go_on()
    assert (await stays).size == 5
    with pytest.raises(NotFound):
        await held.store.resumable.find(NEW)


@asynchronous
async def test_stopping_waits_for_the_sweep(held: Held, root: Path) -> None:
    stopped = ensureDeferred(held.store.stop())
    assert held.store.jobs == ["media-writers: 1 x sweep"]
    assert not stopped.called
    held.go_on()
    await stopped
    assert f"{HALF}.bytes" not in uploads_in(root)


@asynchronous
async def test_uploads_continue_if_the_sweep_failed(
    start: Any, root: Path, warnings: list[LogEvent]
) -> None:
    store = start(FailingCalls())
    await begun(store, b"hello")
    await store.stop()
    calls = FailingCalls()

    def lists(operation: str, args: tuple[Any, ...]) -> bool:
        return operation == "listdir" and of_uploads(*args)

    with calls.armed(1, errno.EIO, lists):
        store = start(calls, sweep_later=True)
        assert (await store.resumable.find(UPLOAD)).size == 5
    assert calls.failed == "listdir"
    assert [event["why"] for event in warnings if "why" in event] == [
        "the storage cannot be written: input/output error"
    ]


@asynchronous
async def test_uploads_are_found_if_a_leftover_cannot_be_removed(start: Any, root: Path) -> None:
    store = start(FailingCalls())
    await begun(store, b"hello")
    await store.stop()
    (root / FOLDER / f"{HALF}.new").write_bytes(b"half")
    calls = FailingCalls()
    with calls.armed(1, errno.EROFS, lambda operation, _: operation == "unlink"):
        store = start(calls, sweep_later=True)
        assert await store.resumable.callers() == {UPLOAD: SPEC.caller}
    assert calls.failed == "unlink"


async def stored(held: Held, name: str) -> None:
    draft = held.store.begin()
    await draft.append([b"media"])
    await draft.publish(named(name))


async def published_and_killed(start: Any, root: Path) -> Held:
    """A service was killed when an upload had its media name, and the next one has begun to sweep
    its uploads.
    """
    store = start(FailingCalls())
    await begun(store, b"hello world")
    await store.stop()
    path = root / str(SPEC.name)
    path.parent.mkdir(parents=True)
    path.hardlink_to(root / FOLDER / f"{UPLOAD}.bytes")
    return await sweeping(start)


@asynchronous
async def test_an_upload_published_before_a_kill_and_deleted_at_once_does_not_come_back(
    start: Any, root: Path
) -> None:
    """Without its name the upload would look as if it had not been published."""
    held = await published_and_killed(start, root)
    await stored(held, "a/b.mp3")
    assert await held.store.delete(named("a/b.mp3")), "what has one name does not wait"
    deleted = held.store.delete(SPEC.name)
    await stored(held, "a/c.mp3")  # by now it would be done
    held.go_on()
    assert await deleted
    assert (await held.store.resumable.find(UPLOAD)).status is UploadStatus.STORED
    assert not (root / str(SPEC.name)).exists()


@asynchronous
async def test_an_upload_published_before_a_kill_and_replaced_at_once_is_stored(
    start: Any, root: Path
) -> None:
    held = await published_and_killed(start, root)
    draft = held.store.begin()
    await draft.append([b"new"])
    replaced = draft.publish(SPEC.name, Precondition(if_match=frozenset({ANY})))
    await stored(held, "a/c.mp3")  # by now it would be done
    held.go_on()
    await replaced
    assert (await held.store.resumable.find(UPLOAD)).status is UploadStatus.STORED
    assert await content_of(held.store, SPEC.name) == b"new"


@asynchronous
async def test_a_sweep_that_hangs_is_reported_as_a_hanging_storage(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twistedmedia.store.local.root._HANGS_S", 0.0)
    assert "has not finished a write" in str((await held.store.look()).cannot_write)
    held.go_on()
    await held.store.resumable.find(UPLOAD)
    assert (await held.store.look()).cannot_write is None


class _Broken(CallsLayer):
    """A defect in the sweep."""

    def around(self, operation: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if operation == "listdir" and of_uploads(*args):
            raise RuntimeError("a fault")
        return call()


@asynchronous
async def test_a_defect_in_the_sweep_is_logged_and_operations_continue(
    start: Any, nothing_left_behind: list[LogEvent]
) -> None:
    store = start(FailingCalls())
    await begun(store, b"hello")
    await store.stop()
    store = start(_Broken(), sweep_later=True)
    assert (await store.resumable.find(UPLOAD)).size == 5
    assert [formatEvent(event) for event in nothing_left_behind] == [
        "unfinished uploads could not be swept"
    ]
    nothing_left_behind.clear()

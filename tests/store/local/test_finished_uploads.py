"""Uploads that are finished: how many are known, whose go first, and what they cost a start."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import DeferredList

from tests.store.local.faults import FailingCalls, RecordingCalls, SlowCalls
from tests.store.local.test_resumable_drafts import ETAG, PLAN, begun
from tests.support import asynchronous
from twistedmedia.errors import NotFound
from twistedmedia.store.interface import UploadSpec, UploadStatus
from twistedmedia.store.local.finished_uploads import FinishedUploads

FOLDER = ".twistedmedia/uploads"
ids = (f"{n:032x}" for n in itertools.count())


def ids_of(count: int) -> list[str]:
    return list(itertools.islice(ids, count))


# Which of them go


def test_the_oldest_of_the_caller_that_has_most_goes_first() -> None:
    finished = FinishedUploads(5)
    many, few = ids_of(4), ids_of(2)
    for upload in many[:2]:
        finished.add(upload, "many")
    finished.add(few[0], "few")
    for upload in many[2:]:
        finished.add(upload, "many")
    assert finished.surplus() is None
    finished.add(few[1], "few")
    assert finished.surplus() == many[0]
    finished.remove(many[0])
    assert finished.surplus() is None


def test_nobody_pushes_out_what_others_have_finished() -> None:
    """Case 95."""
    finished = FinishedUploads(100)
    mine = ids_of(10)
    for upload in mine:
        finished.add(upload, "me")
    for upload in ids_of(1000):
        finished.add(upload, "somebody else")
        surplus = finished.surplus()
        if surplus is not None:
            finished.remove(surplus)
    assert len(finished) == 100
    assert set(mine) <= set(finished.all())


def test_those_from_before_are_older_than_all_others() -> None:
    finished = FinishedUploads(1)
    new, old, older = ids_of(3)
    finished.add(new, "me")
    finished.expect([older, old])
    finished.add_expected(old, "me")
    finished.add_expected(older, "me")
    for upload in (older, old):
        assert finished.oldest("me") == finished.surplus() == upload
        finished.remove(upload)
    assert (finished.oldest("me"), finished.surplus()) == (new, None)
    assert finished.oldest("nobody") is None


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "earlier", "remove"]), st.integers(0, 20)), max_size=100
    )
)
def test_whatever_is_added_and_removed_the_largest_share_is_known(
    steps: list[tuple[str, int]],
) -> None:
    finished = FinishedUploads(0)
    model: dict[str, str] = {}
    for step, n in steps:
        upload, caller = f"{n:032x}", f"{n * 7 % 4}"
        if step == "remove":
            finished.remove(upload)
            model.pop(upload, None)
        else:
            if step == "earlier":
                finished.expect([upload])
                finished.add_expected(upload, caller)
            else:
                finished.add(upload, caller)
            model[upload] = caller
        shares = Counter(model.values())
        surplus = finished.surplus()
        assert len(finished) == len(model)
        assert set(finished.all()) == set(model)
        assert set(finished.callers()) == set(shares)
        if model:
            assert surplus is not None
            assert shares[model[surplus]] == max(shares.values())
        else:
            assert surplus is None


# In a store


async def finish(store: Any, caller: str, count: int = 1) -> list[str]:
    made = ids_of(count)
    for upload in made:
        plan = UploadSpec(PLAN.name, 0, None, caller, "")
        await begun(store, upload=upload, plan=plan)
        await store.resumable.settle(upload, ETAG)
    return made


async def known(store: Any, uploads: list[str]) -> list[str]:
    """Those of which the store knows that they are finished."""
    found = []
    for upload in uploads:
        try:
            kept = await store.resumable.find(upload)
        except NotFound:
            continue
        assert kept.status is UploadStatus.STORED
        found.append(upload)
    return found


@asynchronous
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_store_knows_no_more_than_it_may_and_drops_the_largest_share(
    start: Any, root: Path, restarted: bool
) -> None:
    """Case 95."""
    store = start(FailingCalls(), most_finished=20)
    mine = await finish(store, "me", 5)
    theirs = await finish(store, "somebody else", 10)
    for n, upload in enumerate([*mine, *theirs]):
        os.utime(root / FOLDER / f"{upload}.stored", (n, n))
    if restarted:
        await store.stop()
        store = start(FailingCalls(), most_finished=20)
        await store.resumable.learn()
    theirs += await finish(store, "somebody else", 30)
    await store.resumable.learn()
    assert await known(store, mine) == mine
    assert await known(store, theirs) == theirs[-15:]
    assert len(os.listdir(root / FOLDER)) == 2 * 20


@asynchronous
async def test_what_an_earlier_service_has_left_is_too_much(start: Any, root: Path) -> None:
    """Case 95: more than are looked at in one go. The oldest go, in whatever order they lie."""
    store = start(FailingCalls())
    left = await finish(store, "me", 350)
    for n, upload in enumerate(left):
        os.utime(root / FOLDER / f"{upload}.stored", (n + 1, n + 1))
    await store.stop()
    store = start(FailingCalls(), most_finished=120)
    assert await known(store, left) == left
    await store.resumable.learn()
    assert await known(store, left) == left[-120:]
    assert await store.resumable.expire(300 * 10**9) == left[-120:-51]
    assert await known(store, left) == left[-51:]
    await store.stop()
    assert await known(start(FailingCalls()), left) == left[-51:]


@asynchronous
async def test_a_start_reads_none_of_them(start: Any, root: Path) -> None:
    """Case 95: what it does does not grow with them."""
    counts = []
    for more in (0, 50):
        store = start(FailingCalls())
        await finish(store, "me", more)
        await begun(store, b"hello", upload=ids_of(1)[0])
        await store.stop()
        calls = RecordingCalls(str(root))
        store = start(calls)
        counts.append(len(calls.events))
        await store.resumable.forget(f"{int(next(ids), 16) - 1:032x}")
        await store.stop()
    assert counts[0] == counts[1]


@asynchronous
async def test_a_store_that_stops_does_not_wait_until_all_are_known(start: Any, root: Path) -> None:
    store = start(FailingCalls())
    left = await finish(store, "me", 350)
    await store.stop()
    calls = RecordingCalls(str(root))
    store = start(calls)
    learning = store.resumable.learn()
    stopping = store.stop()
    await stopping
    outcome: list[Any] = []
    learning.addBoth(outcome.append)
    assert len(outcome) == 1
    assert sum(".stored" in event for event in calls.of("open")) < 350
    assert await known(start(FailingCalls()), left) == left


@asynchronous
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"caller": 5}', b"\xff"])
async def test_one_whose_record_is_broken_is_nobodys_and_expires(
    start: Any, root: Path, content: bytes
) -> None:
    store = start(FailingCalls())
    await store.stop()
    (root / FOLDER / f"{'a' * 32}.stored").write_bytes(content)
    store = start(FailingCalls())
    await store.resumable.learn()
    assert await store.resumable.expire(0) == []
    assert await store.resumable.expire(1 << 62) == ["a" * 32]
    assert os.listdir(root / FOLDER) == []


@asynchronous
async def test_many_uploads_begin_at_once_after_many_were_finished(start: Any) -> None:
    """Case 95: in all threads."""
    store = start(FailingCalls(), threads=8)
    finished = ids_of(100)
    for upload in finished:
        await begun(store, upload=upload)
    for upload in finished:
        await store.resumable.settle(upload, ETAG)
    creating = [store.resumable.create(upload, PLAN) for upload in ids_of(100)]
    outcomes = await DeferredList(creating, consumeErrors=True)
    assert [failure for succeeded, failure in outcomes if not succeeded] == []


@asynchronous
async def test_one_that_goes_while_it_is_learned_holds_none_back(start: Any, root: Path) -> None:
    """Case 95: its record was open when it was deleted."""
    store = start(FailingCalls())
    left = await finish(store, "me", 3)
    for n, upload in enumerate(left):
        os.utime(root / FOLDER / f"{upload}.stored", (n + 1, n + 1))
    await store.stop()
    calls = SlowCalls()
    store = start(calls, durable=False)
    record = f"{left[0]}.stored"
    held = calls.hold(
        "pread", where=lambda fd, *_: os.readlink(f"/proc/self/fd/{fd}").endswith(record)
    )
    learning = store.resumable.learn()
    await held
    assert await store.resumable.forget(left[0])
    calls.release()
    await learning
    assert await store.resumable.expire(1 << 62) == left[1:]


@asynchronous
async def test_one_that_goes_right_after_it_was_finished_holds_no_other_back(start: Any) -> None:
    """Case 95."""
    store = start(FailingCalls())
    (gone,) = await finish(store, "")
    await store.resumable.forget(gone)
    left = await finish(store, "", 2)
    assert await store.resumable.expire(1 << 62) == left


@asynchronous
@pytest.mark.parametrize("when", ["before it is learned", "after that"])
async def test_one_that_an_administrator_removes_holds_no_other_back(
    start: Any, root: Path, when: str
) -> None:
    """Case 95."""
    store = start(FailingCalls())
    left = await finish(store, "me", 3)
    await store.stop()
    store = start(FailingCalls())
    if when == "after that":
        await store.resumable.learn()
    for path in (root / FOLDER).glob(f"{left[0]}.*"):
        path.unlink()
    await store.resumable.learn()
    assert set(await store.resumable.expire(1 << 62)) | {left[0]} == set(left)
    assert await store.resumable.expire(1 << 62) == []
    assert os.listdir(root / FOLDER) == []


@asynchronous
async def test_an_unfinished_one_whose_bytes_are_removed_goes_with_the_next_sweep(
    start: Any, root: Path
) -> None:
    store = start(FailingCalls())
    (upload,) = ids_of(1)
    await begun(store, b"hello", upload=upload)
    (root / FOLDER / f"{upload}.bytes").unlink()
    assert await store.resumable.expire(0) == [upload]
    assert os.listdir(root / FOLDER) == []

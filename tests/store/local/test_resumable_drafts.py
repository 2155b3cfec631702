"""What every store promises of its resumable uploads (`interface.ResumableDrafts`)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from tests.store import test_contract
from tests.store.conftest import CAPACITY, KINDS, make_store
from tests.store.local.faults import FailingCalls
from tests.store.test_contract import content_of, holds, stored
from tests.support import asynchronous, named
from twistedmedia.errors import AlreadyExists, NameConflict, NoSpace, NotFound, TooLarge
from twistedmedia.store.interface import (
    ResumableStore,
    Resumed,
    UploadSpec,
    UploadState,
    UploadStatus,
)
from twistedmedia.store.local.directory import DirectoryStore

HELLO = named("prompts/en/hello.mp3")
PLAN = UploadSpec(HELLO, 11, None, "192.0.2.1", "filename aGVsbG8=")
UPLOAD = "0123456789abcdef" * 2
OTHER = "f" * 32
ETAG = '"an entity tag"'
provisional_or_not = pytest.mark.parametrize("provisional", [False, True])
stored_or_taken = pytest.mark.parametrize(
    ("etag", "fate"),
    [(ETAG, UploadStatus.STORED), (None, UploadStatus.TAKEN)],
    ids=["stored", "taken"],
)


@pytest_twisted.async_yield_fixture(params=KINDS)
async def store(request: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """As for all contract tests, but nothing is really synced, which takes most of their time."""
    made = make_store(request.param, tmp_path / "media", FailingCalls())
    made.start()
    yield made
    await made.stop()


async def going_on(
    store: Any, upload: str = UPLOAD, declared: int | None = None, *, provisional: bool = False
) -> Any:
    """The draft of an upload, resumed."""
    draft = store.resumable.resume(upload, declared, provisional=provisional)
    await draft.resume()
    return draft


async def begun(
    store: Any, *parts: bytes, upload: str = UPLOAD, plan: UploadSpec = PLAN, memory: object = None
) -> None:
    """An upload with these parts, each of which was kept."""
    await store.resumable.create(upload, plan)
    for part in parts:
        draft = await going_on(store, upload)
        await reviewed(draft)
        await draft.append([part])
        await draft.keep(memory, synced=True)


async def reviewed(draft: Any) -> bytes:
    """What a review of a draft has given."""
    pieces: list[bytes] = []
    while not await draft.review(pieces.append):
        assert pieces[-1]
    return b"".join(pieces)


async def kept_bytes(store: Any, upload: str = UPLOAD) -> bytes:
    """All that counts of an upload."""
    await let_go(await going_on(store, upload))  # who forgets what is remembered
    draft = await going_on(store, upload)
    found = await reviewed(draft)
    await let_go(draft)
    return found


async def size_of(store: Any, upload: str = UPLOAD) -> int:
    return int((await store.resumable.find(upload)).size)


async def a_moment(store: Any, of: str = UPLOAD) -> int:
    """When an upload was last written to. What is written now is later: clocks of file systems tick
    a few hundred times a second.
    """
    moment = int((await store.resumable.find(of)).modified_ns)
    scratch, now = "5c" * 16, moment
    while now <= moment:
        await store.resumable.create(scratch, PLAN)
        now = (await store.resumable.find(scratch)).modified_ns
        await store.resumable.forget(scratch)
    return moment


def is_durable(store: Any) -> bool:
    """Whether it tells what survives the machine from what does not."""
    return isinstance(store, DirectoryStore) and store._durable


async def let_go(draft: Any) -> None:
    """Discard it, and wait until that is done."""
    draft.discard()
    await draft.release(undo=False)


@asynchronous
async def test_a_store_of_each_kind_can_keep_drafts(store: Any) -> None:
    assert isinstance(store, ResumableStore)


# Begun, and known again


@asynchronous
@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        UploadSpec(HELLO, None, None, "", ""),
        UploadSpec(named("é/ü \"x' 🎵.wav"), 0, "5a" * 32, "42", "x" * 20_000),
        UploadSpec(HELLO, 1 << 50, None, "local", 'a "b", \\ ü\udcff'),
    ],
    ids=["usual", "nothing known", "everything", "huge, and odd text"],
)
async def test_an_upload_is_found_as_it_was_planned(store: Any, plan: UploadSpec) -> None:
    await store.resumable.create(UPLOAD, plan)
    kept = await store.resumable.find(UPLOAD)
    assert kept == UploadState(plan, UploadStatus.UNFINISHED, 0, kept.modified_ns)
    assert await store.resumable.find(UPLOAD, synced=True) == kept
    assert not await holds(store, plan.name)


@asynchronous
@pytest.mark.parametrize(
    "upload",
    [OTHER, "", ".", "..", "0" * 31, "0" * 33, "F" * 32, "\u0660" * 32, UPLOAD + "\n", "lock"],
)
async def test_what_was_never_begun_is_not_found(store: Any, upload: str) -> None:
    await begun(store, b"hello")
    for ask in (
        lambda: store.resumable.find(upload),
        lambda: store.resumable.find(upload, synced=True),
        lambda: store.resumable.resume(upload, None, provisional=False).resume(),
        lambda: store.resumable.declare(upload, 5),
    ):
        with pytest.raises(NotFound):
            await ask()
    await store.resumable.settle(upload, ETAG)
    assert await store.resumable.forget(upload) is False
    assert await size_of(store) == 5


@asynchronous
async def test_uploads_do_not_mix(store: Any) -> None:
    uploads = {f"{n:032x}": b"%d" % n * n for n in range(20)}
    await gatherResults([store.resumable.create(upload, PLAN) for upload in uploads])
    drafts = [store.resumable.resume(upload, None, provisional=False) for upload in uploads]
    await gatherResults([draft.resume() for draft in drafts])
    await gatherResults([d.append([c]) for d, c in zip(drafts, uploads.values(), strict=True)])
    await gatherResults([draft.keep(None, synced=False) for draft in drafts])
    for upload, content in uploads.items():
        assert await kept_bytes(store, upload) == content


# What counts


@asynchronous
async def test_what_is_appended_counts_at_once(store: Any) -> None:
    await begun(store)
    draft = await going_on(store)
    await draft.append([b"hel", b"lo"])
    assert await size_of(store) == 5
    await draft.append([b" world"])
    assert await size_of(store) == 11
    await let_go(draft)
    assert await size_of(store) == 11


@asynchronous
async def test_what_is_provisional_counts_when_it_is_kept_and_not_before(store: Any) -> None:
    await begun(store, b"hello")
    draft = await going_on(store, provisional=True)
    await draft.append([b" world"])
    assert await size_of(store) == 5
    await draft.keep(None, synced=False)
    assert await size_of(store) == 11


@asynchronous
@pytest.mark.parametrize("undo", [None, False, True])
async def test_what_was_provisional_and_not_kept_never_was(store: Any, undo: bool | None) -> None:
    await begun(store, b"hello")
    for _ in range(2):
        draft = await going_on(store, provisional=True)
        await draft.append([b"noise"])
        draft.discard() if undo is None else await draft.release(undo=undo)
        await draft.release(undo=False)
        assert await size_of(store) == 5
    draft = await going_on(store)
    assert await reviewed(draft) == b"hello"
    await draft.append([b" world"])
    await draft.keep(None, synced=False)
    assert await size_of(store) == 11


@asynchronous
@provisional_or_not
async def test_what_is_undone_never_was(store: Any, provisional: bool) -> None:
    await begun(store, b"hello")
    draft = await going_on(store, provisional=provisional)
    await draft.append([b"noise"])
    await draft.append([b"noise"])
    await draft.release(undo=True)
    draft = store.resumable.resume(UPLOAD, None, provisional=False)
    assert await draft.resume() == Resumed(5, 5, None)
    assert await reviewed(draft) == b"hello"
    await let_go(draft)


@asynchronous
async def test_what_was_synced_survives_and_what_follows_counts_as_before(store: Any) -> None:
    await begun(store)
    draft = await going_on(store)
    for piece in (b"hel", b"lo"):
        await draft.append([piece])
        await draft.sync()
    await draft.sync()
    await draft.append([b" world"])
    assert await size_of(store) == 11
    await let_go(draft)
    draft = store.resumable.resume(UPLOAD, None, provisional=False)
    assert await draft.resume() == Resumed(11, 5 if is_durable(store) else 11, None)
    assert await reviewed(draft) == b"hello world"
    await let_go(draft)
    assert (await store.resumable.find(UPLOAD, synced=True)).size == 11
    draft = store.resumable.resume(UPLOAD, None, provisional=False)
    assert (await draft.resume()).synced == 11
    await let_go(draft)


@asynchronous
async def test_what_was_synced_can_be_undone(store: Any) -> None:
    await begun(store, b"hello")
    draft = await going_on(store)
    await draft.append([b"noise"])
    await draft.sync()
    await draft.release(undo=True)
    draft = store.resumable.resume(UPLOAD, None, provisional=False)
    assert await draft.resume() == Resumed(5, 5, None)
    assert await reviewed(draft) == b"hello"
    await let_go(draft)


@asynchronous
async def test_what_was_written_before_a_failure_counts(store: Any) -> None:
    """Case 1: of a part that breaks off what had come is kept."""

    def chunks() -> Any:
        yield b"hello"
        raise TooLarge(5)

    await begun(store)
    draft = await going_on(store)
    await draft.append([b"he"])
    with pytest.raises(TooLarge):
        await draft.append(chunks())
    await draft.release(undo=False)
    assert await size_of(store) >= 2
    assert b"hehello".startswith(await kept_bytes(store))


@asynchronous
async def test_a_draft_may_be_discarded_while_its_work_is_under_way(store: Any) -> None:
    await begun(store)
    draft = await going_on(store)
    writing = draft.append([bytes(1 << 20)] * 4)
    draft.discard()
    await writing
    await draft.release(undo=True)  # it is let go of: this changes nothing
    assert await size_of(store) == 4 << 20


@asynchronous
@pytest.mark.parametrize("end", ["keep", "release", "discard"])
async def test_a_draft_that_was_let_go_of_takes_nothing_more(store: Any, end: str) -> None:
    await begun(store)
    draft = await going_on(store)
    await draft.append([b"hello"])
    if end == "keep":
        await draft.keep(None, synced=False)
    elif end == "release":
        await draft.release(undo=False)
    draft.discard()
    draft.discard()
    await draft.release(undo=True)
    for call in (
        lambda: draft.append([b"x"]),
        lambda: draft.keep(None, synced=False),
        lambda: draft.publish(HELLO),
        *([draft.sync] if is_durable(store) else []),  # to others it is nothing
        lambda: draft.review(lambda _: None),
        draft.seal,
    ):
        with pytest.raises(RuntimeError):
            await call()
    assert await size_of(store) == 5


@asynchronous
async def test_a_draft_of_which_nothing_was_asked_can_be_let_go_of(store: Any) -> None:
    await begun(store, b"hello")
    draft = store.resumable.resume(UPLOAD, 100, provisional=True)
    draft.discard()
    await store.resumable.resume(UPLOAD, 100, provisional=True).release(undo=True)
    assert await size_of(store) == 5


@asynchronous
@provisional_or_not
async def test_an_upload_goes_on_after_any_number_of_requests(
    store: Any, provisional: bool
) -> None:
    await begun(store)
    for n in range(11):
        draft = store.resumable.resume(UPLOAD, 1, provisional=provisional)
        synced = n if n % 2 or not is_durable(store) else max(0, n - 1)
        assert await draft.resume() == Resumed(n, synced, n or None)
        await draft.append([b"hello world"[n : n + 1]])
        await draft.keep(n + 1, synced=n % 2 == 0)
    draft = await going_on(store)
    await reviewed(draft)
    published = await draft.publish(HELLO)
    assert published.sha256 == hashlib.sha256(b"hello world").hexdigest()
    assert await content_of(store, HELLO) == b"hello world"


# What is remembered


@asynchronous
async def test_what_is_to_be_remembered_is_told_to_the_next_one_and_to_nobody_after(
    store: Any,
) -> None:
    memory = object()
    await begun(store, b"hello", memory=memory)
    draft = store.resumable.resume(UPLOAD, None, provisional=False)
    resumed = await draft.resume()
    assert (resumed.size, resumed.inspection is memory) == (5, True)
    await draft.release(undo=False)
    draft = store.resumable.resume(UPLOAD, None, provisional=False)
    assert await draft.resume() == Resumed(5, 5, None)
    await draft.release(undo=False)


@asynchronous
async def test_the_memory_of_an_upload_is_no_others(store: Any) -> None:
    await begun(store, b"hello", memory="first")
    await begun(store, b"other", upload=OTHER, memory="second")
    for upload, memory in ((UPLOAD, "first"), (OTHER, "second")):
        draft = store.resumable.resume(upload, None, provisional=False)
        assert await draft.resume() == Resumed(5, 5, memory)
        await draft.release(undo=False)


@asynchronous
async def test_a_draft_that_is_remembered_can_be_sealed_without_a_review(store: Any) -> None:
    await begun(store, b"hello", memory="something")
    draft = await going_on(store)
    await draft.append([b" world"])
    sealed = await draft.seal()
    assert sealed.sha256 == hashlib.sha256(b"hello world").hexdigest()
    await let_go(draft)


@asynchronous
async def test_a_review_gives_all_bytes_of_earlier_requests_from_the_beginning_on(
    store: Any,
) -> None:
    content = bytes(range(251)) * 40_000  # 10 MB
    await begun(store, content)
    await let_go(await going_on(store))  # who forgets what is remembered
    draft = await going_on(store)
    assert await reviewed(draft) == content
    sealed = await draft.seal()
    assert (sealed.size, sealed.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    await let_go(draft)


@asynchronous
async def test_a_review_can_come_after_more_was_written(store: Any) -> None:
    """So it does in the last request: only then the whole is wanted."""
    await begun(store, b"hello")
    await let_go(await going_on(store))
    draft = await going_on(store)
    await draft.append([b" world"])
    assert await reviewed(draft) == b"hello world"
    published = await draft.publish(HELLO)
    assert published.sha256 == hashlib.sha256(b"hello world").hexdigest()


@asynchronous
async def test_one_who_remembers_nothing_can_review_everything(store: Any) -> None:
    """Also when the request before was kept, with nothing to be remembered."""
    await begun(store)
    draft = await going_on(store)
    await draft.append([b"hello"])
    await draft.keep(None, synced=False)
    draft = store.resumable.resume(UPLOAD, None, provisional=False)
    assert await draft.resume() == Resumed(5, 0 if is_durable(store) else 5, None)
    assert await reviewed(draft) == b"hello"
    await let_go(draft)


@asynchronous
async def test_what_a_reviewer_raises_is_the_failure_of_the_review(store: Any) -> None:
    def take(_: bytes) -> None:
        raise TooLarge(4)

    await begun(store, b"hello")
    await let_go(await going_on(store))
    draft = await going_on(store)
    with pytest.raises(TooLarge):
        await draft.review(take)
    await let_go(draft)
    assert await size_of(store) == 5


# What becomes of it


@asynchronous
@provisional_or_not
async def test_a_published_draft_is_media_and_its_upload_is_stored(
    store: Any, provisional: bool
) -> None:
    await begun(store, b"hello", memory="something")
    draft = await going_on(store, provisional=provisional)
    await draft.append([b" world"])
    published = await draft.publish(HELLO)
    await draft.release(undo=True)
    media = await store.open(HELLO)
    assert (media.size, media.etag) == (11, published.etag)
    assert await media.digest() == published.sha256
    media.close()
    assert await content_of(store, HELLO) == b"hello world"
    kept = await store.resumable.find(UPLOAD)
    assert kept == UploadState(PLAN, UploadStatus.STORED, 11, kept.modified_ns, published.etag)
    with pytest.raises(NotFound):
        await going_on(store)


@asynchronous
async def test_an_upload_of_no_bytes_is_published_as_a_file_of_none(store: Any) -> None:
    """Case 7."""
    await begun(store, plan=replace(PLAN, length=0))
    draft = await going_on(store)
    await draft.publish(HELLO)
    assert await content_of(store, HELLO) == b""
    assert (await store.resumable.find(UPLOAD)).status is UploadStatus.STORED


@asynchronous
@pytest.mark.parametrize(
    ("name", "error"),
    [(HELLO, AlreadyExists), (named("prompts/en"), NameConflict)],
)
async def test_an_upload_never_overwrites_and_stays_as_it_was(
    store: Any, name: Any, error: type[Exception]
) -> None:
    """Case 4."""
    await stored(store, HELLO, b"first")
    await begun(store, b"hello world")
    draft = await going_on(store)
    with pytest.raises(error):
        await draft.prepare(name)
    await reviewed(draft)
    with pytest.raises(error):
        await draft.publish(name)
    await draft.release(undo=False)
    assert await content_of(store, HELLO) == b"first"
    assert (await store.resumable.find(UPLOAD)).status is UploadStatus.UNFINISHED
    await store.delete(HELLO)
    draft = await going_on(store)
    assert await reviewed(draft) == b"hello world"
    await draft.publish(name)
    assert await content_of(store, name) == b"hello world"


@asynchronous
async def test_of_uploads_that_race_for_a_name_exactly_one_wins(store: Any) -> None:
    """Case 2."""
    uploads = [f"{n:032x}" for n in range(8)]
    for n, upload in enumerate(uploads):
        await begun(store, b"%d" % n, upload=upload)
    drafts = [await going_on(store, upload) for upload in uploads]
    for draft in drafts:
        await reviewed(draft)
    outcomes: list[Any] = []
    await gatherResults([draft.publish(HELLO).addBoth(outcomes.append) for draft in drafts])
    for draft in drafts:
        await let_go(draft)
    assert len([each for each in outcomes if hasattr(each, "etag")]) == 1
    statuses = [(await store.resumable.find(upload)).status for upload in uploads]
    assert statuses.count(UploadStatus.STORED) == 1
    assert await content_of(store, HELLO) == b"%d" % statuses.index(UploadStatus.STORED)


@asynchronous
@stored_or_taken
async def test_of_a_settled_upload_the_plan_stays_and_the_bytes_go(
    store: Any, etag: str | None, fate: UploadStatus
) -> None:
    await begun(store, b"hello")
    await store.resumable.settle(UPLOAD, etag)
    await store.resumable.settle(UPLOAD, None)  # it is settled
    kept = await store.resumable.find(UPLOAD)
    assert kept == UploadState(PLAN, fate, 11, kept.modified_ns, etag)
    assert await store.resumable.find(UPLOAD, synced=True) == kept
    with pytest.raises(NotFound):
        await going_on(store)
    assert not await holds(store, HELLO)


@asynchronous
async def test_an_upload_can_begin_at_its_end(store: Any) -> None:
    """When what it would become is there already."""
    await store.resumable.create(UPLOAD, PLAN, ETAG)
    kept = await store.resumable.find(UPLOAD)
    assert kept == UploadState(PLAN, UploadStatus.STORED, 11, kept.modified_ns, ETAG)
    assert await store.resumable.callers() == {}


@asynchronous
async def test_a_length_that_was_not_known_is_declared(store: Any) -> None:
    plan = replace(PLAN, length=None)
    await begun(store, b"hello", plan=plan)
    await store.resumable.declare(UPLOAD, 7)
    kept = await store.resumable.find(UPLOAD)
    assert kept == UploadState(
        replace(plan, length=7), UploadStatus.UNFINISHED, 5, kept.modified_ns
    )
    assert await kept_bytes(store) == b"hello"


@asynchronous
async def test_a_forgotten_upload_is_gone_and_what_it_became_stays(store: Any) -> None:
    await begun(store, b"hello", memory="something")
    assert await store.resumable.forget(UPLOAD) is True
    assert await store.resumable.forget(UPLOAD) is False
    with pytest.raises(NotFound):
        await store.resumable.find(UPLOAD)
    await begun(store, b"other", memory="other")
    draft = await going_on(store)
    await draft.publish(HELLO)
    assert await store.resumable.forget(UPLOAD) is True
    assert await content_of(store, HELLO) == b"other"
    with pytest.raises(NotFound):
        await store.resumable.find(UPLOAD)


@asynchronous
@provisional_or_not
async def test_what_is_forgotten_while_somebody_writes_to_it_does_not_come_back(
    store: Any, provisional: bool
) -> None:
    """Case 30."""
    await begun(store, b"hello")
    draft = await going_on(store, provisional=provisional)
    await draft.append([b" world"])
    assert await store.resumable.forget(UPLOAD) is True
    if provisional:  # its mark is in the record
        await draft.release(undo=False)
    else:
        await draft.keep(None, synced=False)
    with pytest.raises(NotFound):
        await store.resumable.find(UPLOAD)
    assert await store.resumable.callers() == {}


@asynchronous
async def test_unfinished_uploads_are_their_callers(store: Any) -> None:
    assert await store.resumable.callers() == {}
    for n, caller in enumerate(["a", "b", "a", "c", "d"]):
        await store.resumable.create(f"{n:032x}", replace(PLAN, caller=caller))
    await store.resumable.settle(f"{3:032x}", None)
    await store.resumable.forget(f"{4:032x}")
    assert await store.resumable.callers() == {f"{0:032x}": "a", f"{1:032x}": "b", f"{2:032x}": "a"}


# How long it is kept


@asynchronous
async def test_what_was_last_written_to_before_a_time_expires(store: Any) -> None:
    """Case 13."""
    await begun(store, b"hello")
    first = await a_moment(store)
    await begun(store, b"hello", upload=OTHER)
    second = (await store.resumable.find(OTHER)).modified_ns
    assert first < second
    assert await store.resumable.expire(first) == []
    assert await store.resumable.expire(second) == [UPLOAD]
    assert await store.resumable.expire(second) == []
    with pytest.raises(NotFound):
        await store.resumable.find(UPLOAD)
    assert await size_of(store, OTHER) == 5


@asynchronous
async def test_to_write_to_an_upload_makes_it_live_on(store: Any) -> None:
    """Case 13."""
    await begun(store)
    await begun(store, upload=OTHER)
    between = await a_moment(store, OTHER)
    draft = await going_on(store)
    await draft.append([b"hello"])
    await draft.keep(None, synced=False)
    assert await store.resumable.expire(between + 1) == [OTHER]
    assert await size_of(store) == 5


@asynchronous
async def test_what_somebody_writes_to_does_not_expire_until_it_is_let_go_of(store: Any) -> None:
    """Case 13."""
    await begun(store, b"hello")
    draft = await going_on(store)
    later = (await store.resumable.find(UPLOAD)).modified_ns + 10**12
    assert await store.resumable.expire(later) == []
    await draft.release(undo=False)
    assert await store.resumable.expire(later) == [UPLOAD]
    assert await store.resumable.callers() == {}


@asynchronous
@stored_or_taken
async def test_what_is_known_of_a_settled_upload_expires_too(
    store: Any, etag: str | None, fate: UploadStatus
) -> None:
    await begun(store, b"hello")
    await store.resumable.settle(UPLOAD, etag)
    kept = await store.resumable.find(UPLOAD)
    assert kept.status is fate
    modified_ns = kept.modified_ns
    assert await store.resumable.expire(modified_ns) == []
    assert await store.resumable.expire(modified_ns + 1) == [UPLOAD]
    with pytest.raises(NotFound):
        await store.resumable.find(UPLOAD)


@asynchronous
async def test_an_upload_that_was_finished_just_now_is_not_an_old_one(store: Any) -> None:
    """However long ago it was begun: who has lost the last answer asks what became of it."""
    await begun(store)
    await begun(store, upload=OTHER)
    between = await a_moment(store, OTHER)
    draft = await going_on(store)
    await draft.append([b"hello"])
    await draft.publish(HELLO)
    assert (await store.resumable.find(UPLOAD)).status is UploadStatus.STORED
    assert await store.resumable.expire(between + 1) == [OTHER]
    assert (await store.resumable.find(UPLOAD)).status is UploadStatus.STORED


# Space; what is written of a plan takes some too


@asynchronous
async def test_bytes_that_are_kept_take_space_until_they_go(small_store: Any) -> None:
    for go in ("forget", "expire", "settle"):
        await begun(small_store, bytes(600))
        other = small_store.begin(600)
        with pytest.raises(NoSpace):
            await other.prepare(named("a/b.mp3"))
        await test_contract.let_go(other)
        if go == "forget":
            await small_store.resumable.forget(UPLOAD)
        elif go == "expire":
            await small_store.resumable.expire(1 << 62)
        else:
            await small_store.resumable.settle(UPLOAD, None)
            await small_store.resumable.forget(UPLOAD)
        await stored(small_store, named("a/b.mp3"), bytes(CAPACITY))
        await small_store.delete(named("a/b.mp3"))


@asynchronous
@provisional_or_not
async def test_what_a_part_declares_counts_as_taken_while_it_goes_on(
    small_store: Any, provisional: bool
) -> None:
    """Case 11."""
    await begun(small_store)
    draft = await going_on(small_store, declared=600, provisional=provisional)
    for _ in range(2):
        other = small_store.begin(600)
        with pytest.raises(NoSpace):
            await other.prepare(named("a/b.mp3"))
        await test_contract.let_go(other)
        await draft.append([bytes(100)])
    await draft.release(undo=True)
    for size in (300, 600):
        fitting = small_store.begin(size)
        await fitting.prepare(named("a/b.mp3"))
        await test_contract.let_go(fitting)


@asynchronous
async def test_a_part_for_which_there_is_no_room_is_refused_before_it_comes(
    small_store: Any,
) -> None:
    await begun(small_store, bytes(100))
    draft = small_store.resumable.resume(UPLOAD, CAPACITY, provisional=False)
    with pytest.raises(NoSpace):
        await draft.resume()
    await draft.release(undo=False)
    assert await size_of(small_store) == 100
    await let_go(await going_on(small_store, declared=100))


@asynchronous
@provisional_or_not
async def test_a_full_storage_says_so_and_what_counts_still_does(
    small_store: Any, provisional: bool
) -> None:
    """Case 10."""
    await begun(small_store, bytes(100))
    draft = await going_on(small_store, provisional=provisional)
    await draft.append([b"x" * 50])
    with pytest.raises(NoSpace):
        await draft.append([b"x" * CAPACITY])
    await draft.release(undo=False)
    if provisional:
        assert await size_of(small_store) == 100
    else:
        assert await size_of(small_store) >= 150
    assert (await kept_bytes(small_store)).startswith(bytes(100))
    await small_store.resumable.forget(UPLOAD)
    await stored(small_store, HELLO, bytes(CAPACITY))


@asynchronous
@provisional_or_not
async def test_a_publish_takes_no_more_space_than_the_bytes_had(
    small_store: Any, provisional: bool
) -> None:
    await begun(small_store, bytes(300))
    draft = await going_on(small_store, declared=300, provisional=provisional)
    await reviewed(draft)
    await draft.append([bytes(200)])  # fewer than were declared
    await draft.publish(HELLO)
    await small_store.resumable.forget(UPLOAD)
    following = small_store.begin(CAPACITY - 500)
    await following.prepare(named("a/b.mp3"))
    await following.append([bytes(CAPACITY - 500)])
    await following.publish(named("a/b.mp3"))

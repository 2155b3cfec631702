"""What every store promises (`store.interface`)."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import DeferredList, gatherResults

from tests.store.conftest import CAPACITY
from tests.support import asynchronous, named
from twistedmedia.errors import AlreadyExists, NameConflict, NoSpace, NotFound, TooLarge
from twistedmedia.store.interface import StoredFile

HELLO = named("prompts/en/hello.mp3")
FOLDER = named("prompts/en")  # as if it were a file


async def stored(
    store: Any, name: Any, content: bytes | Iterable[bytes] = b"content"
) -> StoredFile:
    """`content` stored under `name`."""
    draft = store.begin()
    try:
        await draft.append([content] if isinstance(content, bytes) else content)
        await draft.seal()
        published: StoredFile = await draft.publish(name)
        return published
    finally:
        draft.discard()


async def content_of(store: Any, name: Any) -> bytes:
    """All of `name`, read in pieces."""
    media = await store.open(name)
    pieces: list[bytes] = []
    try:
        while piece := await media.read(sum(map(len, pieces)), 1 << 16):
            pieces.append(piece)
        assert media.size == sum(map(len, pieces))
    finally:
        await closed(media)
    return b"".join(pieces)


async def closed(media: Any) -> None:
    """Close `media` and wait until that is done. A later read comes after it."""
    media.close()
    with contextlib.suppress(Exception):  # nothing is promised of it
        await media.read(0, 1)


async def holds(store: Any, name: Any) -> bool:
    """Whether there is a file `name`."""
    try:
        media = await store.open(name)
    except NotFound:
        return False
    media.close()
    return True


async def let_go(draft: Any) -> None:
    """Discard `draft` and wait until that is done. Later operations come after it."""
    draft.discard()
    with pytest.raises(RuntimeError):
        await draft.seal()


@asynchronous
async def test_a_published_draft_is_read_back_byte_for_byte(store: Any) -> None:
    draft = store.begin()
    await draft.append([b"hel", b"lo"])
    await draft.append([b" world"])
    sealed = await draft.seal()
    published = await draft.publish(HELLO)
    draft.discard()
    digest = hashlib.sha256(b"hello world").hexdigest()
    assert (sealed.size, sealed.sha256) == (11, digest)
    assert (published.name, published.size, published.sha256) == (HELLO, 11, digest)
    media = await store.open(HELLO)
    assert (media.size, media.etag, await media.read(0, 100)) == (
        11,
        published.etag,
        b"hello world",
    )
    media.close()


@asynchronous
async def test_a_publish_seals_the_draft(store: Any) -> None:
    draft = store.begin()
    await draft.append([b"hello"])
    published = await draft.publish(HELLO)
    assert (published.size, published.sha256) == (5, hashlib.sha256(b"hello").hexdigest())
    assert await content_of(store, HELLO) == b"hello"


@asynchronous
async def test_an_unused_draft_can_be_published(store: Any) -> None:
    published = await store.begin().publish(HELLO)
    assert published.size == 0
    assert await content_of(store, HELLO) == b""


@asynchronous
async def test_a_file_of_many_megabytes_in_uneven_chunks_is_whole(store: Any) -> None:
    content = bytes(range(251)) * 14_000  # 3.5 MB
    sizes = [1, 0, 70_000, 1 << 20, 3, (1 << 20) + 1, 4096]
    draft = store.begin()
    left = content
    while left:
        chunks = [left[sum(sizes[:n]) : sum(sizes[: n + 1])] for n in range(len(sizes))]
        await draft.append(chunks)
        left = left[sum(sizes) :]
    sealed = await draft.seal()
    await draft.publish(HELLO)
    assert (sealed.size, sealed.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert await content_of(store, HELLO) == content


@asynchronous
async def test_thousands_of_tiny_chunks_in_one_call_are_one_file(store: Any) -> None:
    await stored(store, HELLO, (b"%04d" % n for n in range(5000)))
    assert await content_of(store, HELLO) == b"".join(b"%04d" % n for n in range(5000))


@asynchronous
@pytest.mark.parametrize("appended", [[], [[]], [[b""]], [[b"", b""], []]])
async def test_a_file_of_no_bytes_is_a_file(store: Any, appended: list[list[bytes]]) -> None:
    """Case 7."""
    draft = store.begin()
    for chunks in appended:
        await draft.append(chunks)
    sealed = await draft.seal()
    await draft.publish(HELLO)
    assert (sealed.size, sealed.sha256) == (0, hashlib.sha256().hexdigest())
    media = await store.open(HELLO)
    assert (media.size, await media.read(0, 10)) == (0, b"")
    media.close()


@asynchronous
async def test_folders_are_made_as_deep_as_a_name_goes(store: Any) -> None:
    deep = named("/".join(["d"] * 200) + "/x.mp3")
    await stored(store, deep, b"deep")
    assert await content_of(store, deep) == b"deep"
    assert await store.delete(deep)
    await stored(store, named("d/d.mp3"))


@asynchronous
async def test_a_name_of_255_bytes_a_segment_is_kept_as_it_is(store: Any) -> None:
    """Case 35."""
    name = named("é" * 127 + "/" + "x" * 251 + ".mp3")
    await stored(store, name, b"long")
    assert await content_of(store, name) == b"long"


@asynchronous
async def test_names_that_differ_only_in_case_or_in_one_folder_are_different(store: Any) -> None:
    names = [named(text) for text in ("a/x.mp3", "A/x.mp3", "a/X.mp3", "a/b/x.mp3", "b/x.mp3")]
    for name in names:
        await stored(store, name, str(name).encode())
    for name in names:
        assert await content_of(store, name) == str(name).encode()


@asynchronous
async def test_a_name_is_never_taken_twice(store: Any) -> None:
    first = await stored(store, HELLO, b"first")
    draft = store.begin()
    await draft.append([b"second"])
    await draft.seal()
    with pytest.raises(AlreadyExists):
        await draft.publish(HELLO)
    draft.discard()
    media = await store.open(HELLO)
    assert (media.etag, await media.read(0, 100)) == (first.etag, b"first")
    media.close()


@asynchronous
async def test_of_16_drafts_that_race_for_a_name_exactly_one_wins(store: Any) -> None:
    """Case 2."""
    for race in range(5):
        name = named(f"race/{race}/x.mp3")
        drafts = [store.begin() for _ in range(16)]
        await gatherResults([d.append([b"%d" % n]) for n, d in enumerate(drafts)])
        await gatherResults([draft.seal() for draft in drafts])
        outcomes = await DeferredList([draft.publish(name) for draft in drafts], consumeErrors=True)
        for draft in drafts:
            draft.discard()
        winners = [n for n, (won, _) in enumerate(outcomes) if won]
        assert len(winners) == 1
        assert all(outcome.check(AlreadyExists) for won, outcome in outcomes if not won)
        assert await content_of(store, name) == b"%d" % winners[0]


@asynchronous
async def test_a_draft_that_is_not_published_cannot_be_seen(store: Any) -> None:
    draft = store.begin()
    await draft.prepare(HELLO)
    await draft.append([b"hello"])
    assert not await holds(store, HELLO)
    await draft.seal()
    assert not await holds(store, HELLO)
    draft.discard()
    assert not await holds(store, HELLO)
    assert not await store.delete(HELLO)


@asynchronous
@pytest.mark.parametrize("steps", range(4))
async def test_a_discarded_draft_accepts_nothing_more(store: Any, steps: int) -> None:
    draft = store.begin()
    for step in [lambda: draft.prepare(HELLO), lambda: draft.append([b"x"]), draft.seal][:steps]:
        await step()
    draft.discard()
    draft.discard()
    for call in (
        lambda: draft.append([b"x"]),
        draft.seal,
        lambda: draft.publish(HELLO),
    ):
        with pytest.raises(RuntimeError):
            await call()
    assert not await holds(store, HELLO)


@asynchronous
async def test_a_draft_may_be_discarded_while_its_work_is_under_way(store: Any) -> None:
    draft = store.begin()
    writing = draft.append([bytes(1 << 20)] * 4)
    draft.discard()
    await writing
    await stored(store, HELLO, b"next")
    assert await content_of(store, HELLO) == b"next"


@asynchronous
async def test_discarding_a_published_draft_changes_nothing(store: Any) -> None:
    draft = store.begin()
    await draft.append([b"hello"])
    await draft.seal()
    publishing = draft.publish(HELLO)
    draft.discard()
    await publishing
    draft.discard()
    assert await content_of(store, HELLO) == b"hello"


@asynchronous
async def test_an_error_of_a_generator_of_chunks_is_the_failure_of_append(store: Any) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"some"
        raise TooLarge(4)

    draft = store.begin()
    with pytest.raises(TooLarge):
        await draft.append(chunks())
    draft.discard()
    assert not await holds(store, HELLO)
    await stored(store, HELLO, b"next")


@asynchronous
async def test_a_draft_that_lost_its_name_can_have_another(store: Any) -> None:
    await stored(store, HELLO)
    draft = store.begin()
    await draft.append([b"other"])
    await draft.seal()
    with pytest.raises(AlreadyExists):
        await draft.publish(HELLO)
    draft.discard()
    await stored(store, named("prompts/en/other.mp3"), b"other")
    assert await content_of(store, named("prompts/en/other.mp3")) == b"other"


@asynchronous
async def test_preparing_finds_out_what_publishing_would(store: Any) -> None:
    await stored(store, HELLO)
    for name, error in (
        (HELLO, AlreadyExists),
        (FOLDER, NameConflict),
        (named("prompts/en/hello.mp3/x.mp3"), NameConflict),
        (named("prompts/en/hello.mp3/deeper/x.mp3"), NameConflict),
        (named("prompts/de/hello.mp3"), None),
        (named("prompts/en/other.mp3"), None),
    ):
        draft = store.begin()
        if error is None:
            await draft.prepare(name)
        else:
            with pytest.raises(error):
                await draft.prepare(name)
        draft.discard()
    assert not await store.delete(named("prompts/de/hello.mp3"))


@asynchronous
@pytest.mark.parametrize(
    ("name", "error"),
    [
        (FOLDER, NameConflict),
        (named("prompts/en/hello.mp3/x.mp3"), NameConflict),
        (named("prompts/en/hello.mp3/deeper/still/x.mp3"), NameConflict),
    ],
    ids=["a directory", "below a file", "far below a file"],
)
async def test_a_file_cannot_be_where_a_directory_is_nor_the_reverse(
    store: Any, name: Any, error: type[Exception]
) -> None:
    await stored(store, HELLO, b"hello")
    with pytest.raises(error):
        await stored(store, name)
    assert await content_of(store, HELLO) == b"hello"
    assert not await holds(store, name)


@asynchronous
async def test_preparing_takes_no_name(store: Any) -> None:
    first, second = store.begin(), store.begin()
    for draft in (first, second):
        await draft.prepare(HELLO)
        await draft.append([b"x"])
        await draft.seal()
    await second.publish(HELLO)
    with pytest.raises(AlreadyExists):
        await first.publish(HELLO)
    first.discard()


@asynchronous
@pytest.mark.parametrize("name", ["prompts/en", "prompts/en/x.mp3", "x/y.mp3"])
async def test_only_files_are_found(store: Any, name: str) -> None:
    await stored(store, HELLO)
    with pytest.raises(NotFound):
        await store.open(named(name))
    with pytest.raises(NotFound):
        await store.open(named("prompts/en/hello.mp3/x.mp3"))


@asynchronous
async def test_spans_are_read_and_end_with_the_file(store: Any) -> None:
    """Case 21."""
    content = bytes(range(256)) * 10
    await stored(store, HELLO, content)
    media = await store.open(HELLO)
    for offset, size in [(0, 1), (0, 2560), (2559, 1), (100, 300), (2500, 100), (7, 0)]:
        assert await media.read(offset, size) == content[offset : offset + size]
    for offset in (2560, 2561, 1 << 40):
        assert await media.read(offset, 100) == b""
    media.close()


@asynchronous
async def test_many_reads_of_one_media_at_once_do_not_mix(store: Any) -> None:
    content = bytes(range(256)) * 100
    await stored(store, HELLO, content)
    media = await store.open(HELLO)
    spans = [(n * 97 % 20_000, 500) for n in range(50)]
    pieces = await gatherResults([media.read(*span) for span in spans])
    media.close()
    assert pieces == [content[offset : offset + size] for offset, size in spans]


@asynchronous
async def test_an_etag_tells_two_files_of_one_name_apart(store: Any) -> None:
    first = await stored(store, HELLO, b"first")
    await store.delete(HELLO)
    second = await stored(store, HELLO, b"other")
    assert first.etag != second.etag
    for etag in (first.etag, second.etag):
        assert etag.startswith('"')
        assert etag.endswith('"')
        assert '"' not in etag[1:-1]


@asynchronous
async def test_a_delete_says_whether_there_was_a_file(store: Any) -> None:
    await stored(store, HELLO)
    assert await store.delete(HELLO) is True
    assert await store.delete(HELLO) is False
    assert not await holds(store, HELLO)
    assert await store.delete(named("never/was.mp3")) is False


@asynchronous
async def test_a_directory_is_not_deleted(store: Any) -> None:
    await stored(store, HELLO, b"hello")
    await stored(store, named("x/y/z/file.mp3"))
    for directory in (FOLDER, named("x/y"), named("x/y/z")):
        with pytest.raises(NameConflict):
            await store.delete(directory)
    assert await content_of(store, HELLO) == b"hello"


@asynchronous
async def test_nothing_below_a_file_can_be_deleted(store: Any) -> None:
    await stored(store, HELLO, b"hello")
    assert await store.delete(named("prompts/en/hello.mp3/x.mp3")) is False
    assert await content_of(store, HELLO) == b"hello"


@asynchronous
async def test_folders_left_empty_go_with_their_last_file(store: Any) -> None:
    other = named("prompts/en/other.mp3")
    await stored(store, HELLO)
    await stored(store, other)
    await store.delete(HELLO)
    with pytest.raises(NameConflict):
        await stored(store, FOLDER)
    await store.delete(other)
    await stored(store, FOLDER, b"a file now")
    assert await content_of(store, FOLDER) == b"a file now"


@asynchronous
async def test_a_deleted_name_is_free(store: Any) -> None:
    await stored(store, HELLO, b"first")
    await store.delete(HELLO)
    await stored(store, HELLO, b"second")
    assert await content_of(store, HELLO) == b"second"


@asynchronous
async def test_a_delete_does_not_disturb_an_open_media(store: Any) -> None:
    """Case 30."""
    await stored(store, HELLO, b"first")
    media = await store.open(HELLO)
    await store.delete(HELLO)
    await stored(store, HELLO, b"second one")
    assert (media.size, await media.read(0, 100)) == (5, b"first")
    media.close()


@asynchronous
async def test_uploads_and_deletes_of_one_name_at_once_leave_it_whole_or_gone(store: Any) -> None:
    """Case 30."""
    for n in range(20):
        draft = store.begin()
        await draft.append([b"%d" % n])
        await draft.seal()
        publishing, deleting = draft.publish(HELLO), store.delete(HELLO)
        await publishing
        if await deleting:
            assert not await holds(store, HELLO)
        else:
            assert await content_of(store, HELLO) == b"%d" % n
            await store.delete(HELLO)


@asynchronous
async def test_a_full_storage_reports_it_and_continues_to_work(small_store: Any) -> None:
    """Case 10."""
    await stored(small_store, HELLO, bytes(CAPACITY - 100))
    draft = small_store.begin()
    with pytest.raises(NoSpace):
        await draft.append([bytes(60), bytes(60)])
    await let_go(draft)
    assert await content_of(small_store, HELLO) == bytes(CAPACITY - 100)
    await stored(small_store, named("prompts/en/small.mp3"), bytes(100))
    assert await small_store.delete(HELLO)
    await stored(small_store, HELLO, bytes(CAPACITY - 100))


@asynchronous
async def test_a_storage_can_be_filled_to_the_last_byte(small_store: Any) -> None:
    await stored(small_store, HELLO, bytes(CAPACITY))
    assert await content_of(small_store, HELLO) == bytes(CAPACITY)


@asynchronous
async def test_a_declared_size_is_checked_before_the_first_byte(small_store: Any) -> None:
    for size, fits in ((CAPACITY, True), (CAPACITY + 1, False), (1 << 62, False)):
        draft = small_store.begin(size)
        if fits:
            await draft.prepare(HELLO)
        else:
            with pytest.raises(NoSpace):
                await draft.prepare(HELLO)
        await let_go(draft)


@asynchronous
async def test_declared_bytes_are_reserved_from_the_first_operation(small_store: Any) -> None:
    """Case 11."""
    first, second = small_store.begin(CAPACITY - 100), small_store.begin(101)
    await first.prepare(named("a/first.mp3"))
    with pytest.raises(NoSpace):
        await second.prepare(HELLO)
    await let_go(first)
    await let_go(second)


@asynchronous
async def test_written_bytes_count_once(small_store: Any) -> None:
    first = small_store.begin(CAPACITY - 100)
    await first.prepare(HELLO)
    await first.append([bytes(CAPACITY - 200)])
    second = small_store.begin(100)
    await second.prepare(named("a/second.mp3"))
    await second.append([bytes(100)])
    await first.append([bytes(100)])
    for draft, name in ((first, HELLO), (second, named("a/second.mp3"))):
        await draft.seal()
        await draft.publish(name)


@asynchronous
@pytest.mark.parametrize("steps", range(4))
async def test_a_discard_gives_back_what_was_declared(small_store: Any, steps: int) -> None:
    draft = small_store.begin(CAPACITY)
    todo = [lambda: draft.prepare(HELLO), lambda: draft.append([bytes(500)]), draft.seal]
    for step in todo[:steps]:
        await step()
    draft.discard()
    await let_go(draft)
    await stored(small_store, HELLO, bytes(CAPACITY))


@asynchronous
async def test_a_publish_gives_back_what_was_declared_and_not_written(small_store: Any) -> None:
    draft = small_store.begin(CAPACITY)
    await draft.prepare(HELLO)
    await draft.append([bytes(10)])
    await draft.seal()
    await draft.publish(HELLO)
    following = small_store.begin(CAPACITY - 10)
    await following.prepare(named("a/second.mp3"))
    await following.append([bytes(CAPACITY - 10)])
    await let_go(following)


@asynchronous
async def test_a_declaration_that_does_not_fit_takes_nothing_from_the_others(
    small_store: Any,
) -> None:
    """Case 11."""
    first = small_store.begin(100)
    greedy = small_store.begin(CAPACITY + 1)
    await first.prepare(HELLO)
    await first.append([bytes(100)])
    with pytest.raises(NoSpace):
        await greedy.prepare(named("a/greedy.mp3"))
    await stored(small_store, named("a/undeclared.mp3"), bytes(10))
    await let_go(greedy)
    await let_go(first)

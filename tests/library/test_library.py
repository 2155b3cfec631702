"""The one way in: its limits, its order of judgement, and what it leaves of an arrival."""

from __future__ import annotations

import hashlib
import math
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, ensureDeferred, execute
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from tests.http.connection import outcome
from tests.library.uploads import (
    CALLER,
    HELLO,
    SOURCE,
    WatchedStore,
    a_library,
    arriving,
    taken,
)
from tests.support import asynchronous, named
from twistedmedia.errors import (
    AlreadyExists,
    Busy,
    FormatNotSupported,
    InternalError,
    Malformed,
    MediaError,
    MissingArgument,
    NameConflict,
    NameNotAllowed,
    NoSpace,
    Stopping,
    TooLarge,
)
from twistedmedia.library.caller import Caller
from twistedmedia.library.events import Source
from twistedmedia.library.library import Library
from twistedmedia.library.upload import MIN_PREPARED_BYTES, MIN_WRITE_BYTES, ContentCoding
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.names import MediaName
from twistedmedia.store.interface import Draft
from twistedmedia.store.memory import MemoryMedia, MemoryStore


class Content:
    """What an upload takes its content from."""

    def __init__(self, pace: float | None = None) -> None:
        self.told = 0
        self._pace = pace

    def pace(self) -> float | None:
        return self._pace

    def give_way(self) -> None:
        self.told += 1


UPLOAD = (CALLER, Content())


def caller(key: str) -> Caller:
    return Caller("192.0.2.1", key)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What was logged, as text."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_namespace"].startswith("twistedmedia."):
            lines.append(event["log_format"].format(**_Shown(event)))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


class _Shown(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return f"<{key}>"


@asynchronous
async def test_what_arrives_is_stored_under_its_name_with_size_and_digest() -> None:
    library = a_library()
    arrival = await taken(library, [b"hel", b"lo"])
    assert arrival.failure is None
    stored = arrival.stored
    digest = hashlib.sha256(b"hello").hexdigest()
    assert (stored.name, stored.size, stored.sha256) == (HELLO, 5, digest)
    assert library.store.content(HELLO) == b"hello"
    assert library.store.drafts == 0


@asynchronous
async def test_a_name_may_come_after_the_content() -> None:
    library = a_library()
    with library.begin(SOURCE) as arrival:
        await arrival.write([b"hello"])
        arrival.named("prompts/en", "hello.mp3")
        await arrival.end()
        await library.publish([arrival])
    assert library.store.content(HELLO) == b"hello"


@asynchronous
async def test_an_arrival_that_never_gets_a_name_is_not_stored() -> None:
    library = a_library()
    with library.begin(SOURCE) as arrival:
        await arrival.write([b"hello"])
        await arrival.end()
        await library.publish([arrival])
    assert (arrival.stored, library.store.drafts) == (None, 0)


# Limits


@asynchronous
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("sizes", [[1000], [999, 1], [1] * 1000, [0, 1000, 0], [500, 500]], ids=len)
async def test_a_file_of_exactly_the_limit_passes(sizes: list[int], declared: bool) -> None:
    """Case 37."""
    library = a_library(max_upload=1000)
    size = 1000 if declared else None
    arrival = await taken(library, [bytes(n) for n in sizes], declared=size)
    assert arrival.failure is None
    assert arrival.stored.size == 1000


@asynchronous
@pytest.mark.parametrize("sizes", [[1001], [1000, 1], [1] * 1001, [500, 501], [1, 5000]], ids=len)
async def test_a_file_of_one_byte_more_does_not(sizes: list[int]) -> None:
    """Cases 8 and 37: no length is declared; it counts while it arrives."""
    library = a_library(max_upload=1000)
    arrival = await taken(library, [bytes(n) for n in sizes])
    assert isinstance(arrival.failure, TooLarge)
    assert arrival.failure.limit == 1000
    assert (arrival.stored, library.store.content(HELLO)) == (None, None)
    assert library.store.drafts == 0


@asynchronous
@pytest.mark.parametrize("declared", [1001, 2**31, 2**32, 2**63, 10**30])
async def test_a_declared_size_over_the_limit_is_refused_before_anything_is_written(
    declared: int,
) -> None:
    """Cases 6 and 37."""
    library = a_library(max_upload=1000)
    with arriving(library, declared=declared) as arrival:
        await arrival.prepare()
        assert isinstance(arrival.failure, TooLarge)
    assert "append" not in library.store.asked
    assert library.store.drafts == 0


@asynchronous
async def test_more_than_was_declared_still_counts_against_the_limit() -> None:
    """Case 9."""
    arrival = await taken(a_library(max_upload=1000), [bytes(600), bytes(600)], declared=10)
    assert isinstance(arrival.failure, TooLarge)


@asynchronous
async def test_it_is_the_decoded_bytes_that_count() -> None:
    halving = ContentCoding(decode=lambda piece: piece[::2], measure=lambda piece: len(piece) // 2)
    library = a_library(max_upload=1000)
    arrival = await taken(library, [b"ab" * 400, b"cd" * 600], coding=halving)
    assert arrival.stored.size == 1000
    assert library.store.content(HELLO) == b"a" * 400 + b"c" * 600
    other = named("prompts/en/other.mp3")
    arrival = await taken(library, [b"ab" * 1001], other, coding=halving)
    assert isinstance(arrival.failure, TooLarge)


@asynchronous
async def test_what_cannot_be_decoded_is_the_failure_of_that_file() -> None:
    def decode(piece: bytes) -> bytes:
        if piece == b"broken":
            raise Malformed("broken")
        return piece

    library = a_library()
    coding = ContentCoding(decode=decode, measure=len)
    arrival = await taken(library, [b"whole", b"broken", b"whole"], coding=coding)
    assert isinstance(arrival.failure, Malformed)
    assert (library.store.content(HELLO), library.store.drafts) == (None, 0)


# The order of judgement


def invalid(arrival: Any) -> None:
    arrival.named("prompts/../en", "hello.mp3")


def unsupported(arrival: Any) -> None:
    arrival.named("prompts/en", "hello.exe")


def malformed(arrival: Any) -> None:
    arrival.fail(Malformed("broken"))


def missing(arrival: Any) -> None:
    arrival.fail(MissingArgument("filename"))


FAILURES: dict[type[MediaError], Callable[[Any], None]] = {
    Malformed: malformed,
    MissingArgument: missing,
    NameNotAllowed: invalid,
    FormatNotSupported: unsupported,
    TooLarge: lambda arrival: arrival.fail(TooLarge(1)),
    NoSpace: lambda arrival: arrival.fail(NoSpace()),
    AlreadyExists: lambda arrival: arrival.fail(AlreadyExists()),
}
ORDER = list(FAILURES)


@pytest.mark.parametrize("second", range(len(ORDER)), ids=[each.__name__ for each in ORDER])
@pytest.mark.parametrize("first", range(len(ORDER)), ids=[each.__name__ for each in ORDER])
def test_of_two_failures_the_one_that_is_judged_first_is_told(first: int, second: int) -> None:
    """The order of docs/http.md, Which reason is reported."""
    library = a_library()
    with library.begin(SOURCE) as arrival:
        for each in (ORDER[first], ORDER[second]):
            FAILURES[each](arrival)
        assert type(arrival.failure) is ORDER[min(first, second)]
    assert library.store.drafts == 0


def test_of_two_failures_of_one_kind_the_first_is_told() -> None:
    with a_library().begin(SOURCE) as arrival:
        arrival.fail(Malformed("first"))
        arrival.fail(Malformed("second"))
        assert arrival.failure is not None
        assert arrival.failure.reason == "first"


@asynchronous
async def test_a_format_that_is_not_supported_is_judged_before_a_declared_size() -> None:
    library = a_library(max_upload=1000)
    with arriving(library, named("a/x.exe"), declared=1001) as arrival:
        await arrival.prepare()
    assert isinstance(arrival.failure, FormatNotSupported)
    assert library.store.asked == []


@asynchronous
async def test_a_declared_size_is_judged_before_space_and_before_the_name_that_is_taken() -> None:
    library = a_library(WatchedStore(capacity=500), max_upload=1000)
    await taken(library, [b"first"])
    for declared, error in ((1001, TooLarge), (None, AlreadyExists)):
        with arriving(library, declared=declared) as arrival:
            await arrival.prepare()
        assert isinstance(arrival.failure, error)


@asynchronous
async def test_a_size_is_judged_before_a_name_that_is_taken_although_that_was_known_first() -> None:
    """A part of a form goes on arriving after it has failed, and may turn out too large."""
    library = a_library(max_upload=1000)
    await taken(library, [b"first"])
    arrival = await taken(library, [bytes(600), bytes(400)])
    assert isinstance(arrival.failure, AlreadyExists)
    arrival = await taken(library, [bytes(600), bytes(401)])
    assert isinstance(arrival.failure, TooLarge)


@asynchronous
@pytest.mark.parametrize(
    "pieces", [[[1100]], [[60, 1040]], [[60], [1040]], [[600, 500]], [[60, 600], [440]]], ids=str
)
async def test_a_size_is_judged_before_space_however_the_file_was_cut(
    pieces: list[list[int]],
) -> None:
    """1,100 bytes, where 1,000 are allowed and there is room for 50."""
    library = a_library(WatchedStore(capacity=50), max_upload=1000)
    with arriving(library) as arrival:
        for sizes in pieces:
            await arrival.write([bytes(size) for size in sizes])
        await arrival.end()
        await library.publish([arrival])
    assert isinstance(arrival.failure, TooLarge)


@asynchronous
async def test_a_failure_that_is_judged_before_the_size_is_not_replaced_by_it() -> None:
    library = a_library(max_upload=10)
    arrival = await taken(library, [bytes(600), bytes(600)], named("a/x.exe"))
    assert isinstance(arrival.failure, FormatNotSupported)
    assert "append" not in library.store.asked


@asynchronous
@pytest.mark.parametrize(
    ("name", "error"),
    [(HELLO, AlreadyExists), (named("prompts/en/hello.mp3/x.mp3"), NameConflict)],
    ids=str,
)
@pytest.mark.parametrize("declared", [None, 5])
async def test_a_name_that_cannot_be_is_a_failure_at_the_latest_when_it_is_published(
    name: MediaName, error: type[MediaError], declared: int | None
) -> None:
    library = a_library()
    await taken(library, [b"first"])
    arrival = await taken(library, [b"other"], name, declared=declared)
    assert isinstance(arrival.failure, error)
    assert library.store.content(HELLO) == b"first"
    assert library.store.drafts == 0


@asynchronous
@pytest.mark.parametrize(
    ("declared", "looks"),
    [(None, True), (0, False), (20_000, False), (MIN_PREPARED_BYTES, True)],
)
async def test_a_name_is_looked_at_first_where_that_can_save_something(
    declared: int | None, looks: bool
) -> None:
    library = a_library()
    with arriving(library, declared=declared) as arrival:
        await arrival.prepare()
    assert ("prepare" in library.store.asked) is looks


# Space, and other failures while it arrives


@asynchronous
async def test_no_space_in_the_middle_is_the_failure_and_the_rest_is_dropped() -> None:
    """Case 10."""
    library = a_library(WatchedStore(capacity=100))
    arrival = await taken(library, [bytes(60)] * 10)
    assert isinstance(arrival.failure, NoSpace)
    assert library.store.drafts == 0
    assert library.store.asked.count("append") <= 3
    arrival = await taken(library, [bytes(100)])
    assert arrival.failure is None


@asynchronous
async def test_a_fault_of_the_store_is_an_incident_of_that_file(
    nothing_left_behind: list[LogEvent],
) -> None:
    class Faulty(MemoryStore):
        def begin(self, size: int | None = None, caller: str = "") -> Draft:
            draft = super().begin(size, caller)
            draft.append = lambda chunks: execute(fault)  # type: ignore[method-assign]
            return draft

    def fault() -> None:
        raise OSError("a fault")

    library = a_library(Faulty())
    arrival = await taken(library, [b"hello"])
    assert isinstance(arrival.failure, InternalError)
    assert library.upload_slots.used == 0
    (event,) = nothing_left_behind
    assert event["incident"] == arrival.failure.incident
    assert "a fault" in event["why"]
    nothing_left_behind.clear()


@asynchronous
async def test_a_fault_in_publishing_one_file_leaves_the_others_alone(
    nothing_left_behind: list[LogEvent],
) -> None:
    class Faulty(MemoryStore):
        def publish(self, name: MediaName, content: bytes, replacing: Any) -> MemoryMedia:
            if name.filename == "two.wav":
                raise OSError("a fault")
            return super().publish(name, content, replacing)

    library = a_library(Faulty())
    with ExitStack() as arriving_all:
        arrivals = []
        for filename in ("one.wav", "two.wav", "three.wav"):
            arrival = arriving_all.enter_context(library.begin(Source(Caller("somewhere", ""))))
            arrival.named("a", filename)
            await arrival.write([b"x"])
            await arrival.end()
            arrivals.append(arrival)
        await library.publish(arrivals)
    assert [arrival.stored is not None for arrival in arrivals] == [True, False, True]
    assert isinstance(arrivals[1].failure, InternalError)
    assert len(nothing_left_behind) == 1
    nothing_left_behind.clear()


@asynchronous
async def test_the_next_bytes_are_received_while_the_last_are_written() -> None:
    library = a_library(WatchedStore(holding=("append",)))
    with arriving(library) as arrival:
        first, last = b"first" * MIN_WRITE_BYTES, b"second" * MIN_WRITE_BYTES
        await arrival.write([first])  # comes back although nothing is written yet
        second = ensureDeferred(arrival.write([last]))
        assert not second.called
        assert library.store.asked == ["append"]
        library.store.go_on()
        await second
        assert library.store.asked == ["append", "append"]
        await arrival.end()
        await library.publish([arrival])
    assert library.store.content(HELLO) == first + last


@asynchronous
@pytest.mark.parametrize("size", [1, 64, 5000, MIN_WRITE_BYTES - 1])
async def test_small_pieces_are_written_together(size: int) -> None:
    """Case 85. Each job of a disk's thread has its price."""
    library = a_library(WatchedStore())
    sizes = [size] * (4 * MIN_WRITE_BYTES // size) + [1]
    content = random.Random(size).randbytes(sum(sizes))
    begin = 0
    with arriving(library) as arrival:
        for each in sizes:
            await arrival.write([content[begin : begin + each]])
            begin += each
        await arrival.end()
        appends = library.store.asked.count("append")
        assert sum(sizes) / (2 * MIN_WRITE_BYTES) <= appends <= 1 + 4
        await library.publish([arrival])
    assert library.store.content(HELLO) == content


@asynchronous
async def test_a_file_whose_few_bytes_fail_at_its_end_is_not_stored() -> None:
    library = a_library(WatchedStore())
    with arriving(library) as arrival:
        await arrival.write([b"few"])
        assert library.store.asked == []
        arrival.fail(Malformed("it is another one"))
        await arrival.end()
        await library.publish([arrival])
    assert library.store.asked == []
    assert arrival.stored is None


# How many at once


@asynchronous
async def test_one_upload_more_than_there_may_be_is_told_when_to_come_again() -> None:
    library = a_library(max_uploads=3)
    with ExitStack() as uploads:
        for n in range(3):
            uploads.enter_context(await library.admit_upload(*UPLOAD))
            assert library.upload_slots.used == n + 1
        with pytest.raises(Busy) as refused, await library.admit_upload(*UPLOAD):
            pytest.fail("it was let in")
        assert int(refused.value.headers["Retry-After"]) > 0
        assert library.upload_slots.used == 3
    assert library.upload_slots.used == 0
    with await library.admit_upload(*UPLOAD):
        assert library.upload_slots.used == 1


@asynchronous
@pytest.mark.parametrize("error", [TooLarge(1), CancelledError(), OSError("a fault")], ids=repr)
async def test_an_upload_that_ends_in_an_exception_gives_its_place_back(error: Exception) -> None:
    library = a_library(max_uploads=1)
    for _ in range(3):
        with pytest.raises(type(error)), await library.admit_upload(*UPLOAD):
            raise error
    assert library.upload_slots.used == 0


# What is left of an arrival


@asynchronous
@pytest.mark.parametrize("error", [CancelledError(), Malformed("early end"), OSError("a fault")])
@pytest.mark.parametrize("steps", range(5))
async def test_an_arrival_that_is_left_by_an_exception_leaves_nothing(
    error: Exception, steps: int
) -> None:
    """Case 1."""
    library = a_library()

    async def upload() -> None:
        with arriving(library) as arrival:
            todo = [
                arrival.prepare,
                lambda: arrival.write([b"hello"]),
                arrival.end,
                arrival.seal,
            ]
            for step in todo[:steps]:
                await step()
            raise error

    with pytest.raises(type(error)):
        await upload()
    assert (library.store.drafts, library.store.content(HELLO)) == (0, None)


@asynchronous
async def test_a_write_that_fails_when_nobody_cares_any_more_is_not_left_unhandled() -> None:
    library = a_library(WatchedStore(capacity=3, holding=("append",)))
    with arriving(library) as arrival:
        await arrival.write([b"more than there is room for"])
    library.store.go_on()
    assert library.store.drafts == 0


@asynchronous
async def test_an_arrival_that_was_received_and_not_published_leaves_nothing() -> None:
    library = a_library()
    with arriving(library) as arrival:
        await arrival.write([b"hello"])
        await arrival.end()
    assert (library.store.drafts, library.store.content(HELLO)) == (0, None)


@asynchronous
async def test_one_that_failed_is_dropped_and_the_others_are_stored() -> None:
    names = [named(f"form/{n}.mp3") for n in range(4)]
    library = a_library(max_upload=10)
    await taken(library, [b"there"], names[1])
    arrivals = []
    with ExitStack() as form:
        for n, name in enumerate(names):
            arrival = form.enter_context(library.begin(SOURCE))
            arrivals.append(arrival)
            arrival.accepted(name)
            await arrival.write([bytes(11) if n == 2 else b"%d" % n])
            await arrival.end()
        await library.publish(arrivals)
    assert [type(arrival.failure) for arrival in arrivals] == [
        type(None),
        AlreadyExists,
        TooLarge,
        type(None),
    ]
    assert [library.store.content(name) for name in names] == [b"0", b"there", None, b"3"]
    assert library.store.drafts == 0


@asynchronous
async def test_two_files_of_one_name_in_one_form_are_one_file_and_one_failure() -> None:
    """Case 2."""
    library = a_library()
    with ExitStack() as form:
        arrivals = [form.enter_context(arriving(library)) for _ in range(2)]
        for arrival, content in zip(arrivals, (b"first", b"second"), strict=True):
            await arrival.write([content])
            await arrival.end()
        await library.publish(arrivals)
    assert arrivals[0].stored is not None
    assert isinstance(arrivals[1].failure, AlreadyExists)
    assert library.store.content(HELLO) == b"first"


# A publish, once begun


@asynchronous
async def test_a_publish_goes_on_to_its_last_file_when_its_waiter_is_cancelled() -> None:
    library = a_library(WatchedStore(holding=("publish",)))
    names = [named(f"form/{n}.mp3") for n in range(3)]

    async def upload() -> None:
        with await library.admit_upload(*UPLOAD), ExitStack() as form:
            arrivals = [form.enter_context(arriving(library, name)) for name in names]
            for arrival in arrivals:
                await arrival.write([b"hello"])
                await arrival.end()
            await library.publish(arrivals)

    uploading = ensureDeferred(upload())
    assert len(library.store.held) == 1
    uploading.cancel()
    with pytest.raises(CancelledError):
        await uploading
    assert library.upload_slots.used == 0
    quiet = library.drain()
    assert not quiet.called
    assert [library.store.content(name) for name in names] == [None] * 3
    library.store.go_on()
    assert quiet.called
    assert [library.store.content(name) for name in names] == [b"hello"] * 3
    assert library.store.drafts == 0


@asynchronous
async def test_a_stop_publishes_the_file_that_it_finds_under_way_and_no_further_one() -> None:
    library = a_library(WatchedStore(holding=("publish",)))
    with ExitStack() as form:
        arrivals = [form.enter_context(arriving(library, named(f"form/{n}.mp3"))) for n in range(3)]
        for arrival in arrivals:
            await arrival.write([b"hello"])
            await arrival.end()
        publishing = ensureDeferred(library.publish(arrivals))
        assert library.running == ["'form/0.mp3' and 2 more of a form"]
        library.stop_publishing()
        library.store.go_on()
        await publishing
    assert [arrival.stored is not None for arrival in arrivals] == [True, False, False]
    assert [type(arrival.failure) for arrival in arrivals[1:]] == [Stopping, Stopping]
    assert library.store.content(named("form/1.mp3")) is None
    assert library.drain().called


@asynchronous
async def test_a_publish_that_fails_after_its_waiter_left_is_let_go_of(logged: list[str]) -> None:
    library = a_library(WatchedStore(holding=("publish",)))
    publishing = ensureDeferred(taken(library, [b"second"]))
    first = await _stored_directly(library.store, HELLO)
    publishing.cancel()
    with pytest.raises(CancelledError):
        await publishing
    library.store.go_on()
    assert library.store.content(HELLO) == first
    assert library.store.drafts == 0
    assert library.drain().called


async def _stored_directly(store: WatchedStore, name: MediaName) -> bytes:
    draft = store._store.begin()
    await draft.append([b"first"])
    await draft.publish(name)
    return b"first"


@asynchronous
async def test_quiet_fires_at_once_when_nothing_is_published_and_waits_for_all_that_is() -> None:
    library = a_library(WatchedStore(holding=("publish",)))
    assert library.drain().called
    uploads = [ensureDeferred(taken(library, [b"x"], named(f"a/{n}.mp3"))) for n in range(3)]
    quiet = [library.drain(), library.drain()]
    for go_on in library.store.held:
        assert not any(each.called for each in quiet)
        go_on()
    assert all(each.called for each in quiet)
    for upload in uploads:
        await upload


@asynchronous
async def test_what_is_under_way_is_named() -> None:
    library = a_library(WatchedStore(holding=("publish",)))
    uploads = [ensureDeferred(taken(library, [b"x"], named(f"a/{n}.mp3"))) for n in range(2)]
    assert library.running == ["'a/0.mp3'", "'a/1.mp3'"]
    waiting = library.drain()
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    library.store.go_on()
    for upload in uploads:
        await upload
    assert library.running == []


# The log


@asynchronous
async def test_the_log_tells_when_a_file_begins_to_arrive_and_when_it_is_stored(
    logged: list[str],
) -> None:
    await taken(a_library(), [b"hello"])
    arriving_line, stored_line = logged
    assert arriving_line.startswith("arriving: ")
    assert stored_line.startswith("stored: ")
    for line in logged:
        assert str(HELLO) in line
        assert CALLER.address in line
    assert "5 bytes" in stored_line


@asynchronous
async def test_events_of_refused_uploads_are_marked_and_those_of_faults_are_not(
    warnings: list[LogEvent],
) -> None:
    """Case 91: the log drops the former first."""
    await taken(a_library(max_upload=3), [b"hello"])
    with pytest.raises(CancelledError), arriving(a_library()):
        raise CancelledError
    await taken(a_library(WatchedStore(capacity=3)), [b"hello"])  # the disk is full
    assert [event["is_refusal"] for event in warnings] == [True, True, False]


@asynchronous
async def test_the_log_tells_why_a_file_was_not_stored(logged: list[str]) -> None:
    await taken(a_library(max_upload=3), [b"hello"])
    assert logged[-1].startswith("not stored: ")
    assert "limit of 3 bytes" in logged[-1]
    with pytest.raises(CancelledError), arriving(a_library()):
        raise CancelledError
    assert logged[-1].startswith("not stored: ")
    assert "its connection was lost" in logged[-1]


@asynchronous
async def test_the_log_has_one_line_for_each_reason_for_which_files_of_a_form_are_not_stored(
    logged: list[str],
) -> None:
    """Case 85. A small form can have 256 files: so many lines would take long."""
    library = a_library()
    arrivals = [library.begin(SOURCE) for _ in range(256)]
    for n, arrival in enumerate(arrivals):
        arrival.named("a", f"{n}.exe" if n % 2 else f".{n}.mp3")
    turns: list[int] = []

    async def turn() -> None:
        turns.append(len(logged))

    await library.publish(arrivals, turn)
    hidden, unsupported = logged
    assert "'a/.0.mp3' and 127 more of a form" in hidden
    assert "'a/1.exe' and 127 more of a form" in unsupported
    assert CALLER.address in hidden
    assert turns == [0] * 255
    await library.publish([arrivals[0]])
    assert "more of a form" not in logged[-1]


@asynchronous
async def test_an_arrival_that_has_failed_has_no_draft() -> None:
    """Case 85."""
    store = WatchedStore()
    with a_library(store).begin(SOURCE) as arrival:
        assert store.drafts == 0
        arrival.named("a", "b.exe")
        await arrival.write([b"content"])
        await arrival.end()
        await arrival.seal()
        assert (store.drafts, store.asked, arrival.size) == (0, [], 0)


@asynchronous
async def test_a_name_of_a_client_cannot_break_a_line_of_the_log(logged: list[str]) -> None:
    """Case 35."""
    with a_library().begin(SOURCE) as arrival:
        arrival.named("a\nstored: forged", "x\r\n\x1b[31m.mp3")
    (line,) = logged
    assert line.isprintable()


@asynchronous
async def test_the_log_does_not_deny_what_is_stored_after_its_client_went(
    logged: list[str],
) -> None:
    library = a_library(WatchedStore(holding=("publish",)))
    uploading = ensureDeferred(taken(library, [b"hello"]))
    uploading.cancel()
    with pytest.raises(CancelledError):
        await uploading
    library.store.go_on()
    assert [line.split(":")[0] for line in logged] == ["arriving", "stored"]


@asynchronous
async def test_the_log_tells_of_a_publish_that_failed_after_its_client_went(
    logged: list[str],
) -> None:
    library = a_library(WatchedStore(holding=("publish",)))
    publishing = ensureDeferred(taken(library, [b"second"]))
    await _stored_directly(library.store, HELLO)
    publishing.cancel()
    with pytest.raises(CancelledError):
        await publishing
    logged.clear()
    library.store.go_on()
    (line,) = logged
    assert line.startswith("not stored: ")
    assert "exists already" in line


# Shares


@asynchronous
async def test_a_slow_upload_of_the_largest_share_gives_way(logged: list[str]) -> None:
    """Case 86."""
    library = a_library(max_uploads=3)
    slow, fast, unknown = Content(65.0), Content(1e6), Content(None)
    with ExitStack() as uploads:
        for content in (fast, slow, unknown):
            uploads.enter_context(await library.admit_upload(Caller("192.0.2.7", "a"), content))
        with await library.admit_upload(Caller("192.0.2.8", "b"), Content()):
            assert [each.told for each in (fast, slow, unknown)] == [0, 1, 0]
            assert library.upload_slots.used == 3
            with pytest.raises(Busy):
                uploads.enter_context(
                    await library.admit_upload(Caller("192.0.2.8", "b"), Content())
                )
    assert library.upload_slots.used == 0
    assert logged == [
        "gave way: the slowest upload of 192.0.2.7, to a caller that has fewer",
    ]


@asynchronous
async def test_the_place_of_an_import_is_as_fast_as_its_upstream() -> None:
    """Case 86: the request itself was received long ago."""
    library = a_library(max_uploads=2, max_imports=2)
    request, upstream = Content(None), Content(65.0)
    with (
        await library.admit_upload(caller("a"), request) as place,
        await library.admit_upload(caller("a"), Content(None)),
        await library.admit_import(caller("a"), upstream),
        place.lent_to(upstream),
        await library.admit_upload(caller("b"), Content()),
    ):
        assert (request.told, upstream.told) == (0, 1)


@asynchronous
async def test_an_import_waits_for_its_second_place_and_keeps_the_first() -> None:
    """Case 86: the place of an upload comes first, so imports never wait for each other."""
    clock = Clock()
    library = Library(WatchedStore(), UploadLimits(max_uploads=16, max_imports=2), clock)
    held = ExitStack()
    for _ in range(2):
        held.enter_context(await library.admit_upload(caller("a"), Content(math.inf)))
        held.enter_context(await library.admit_import(caller("a"), Content(1e6)))
    with await library.admit_upload(caller("b"), Content(math.inf)):
        importing = outcome(ensureDeferred(library.admit_import(caller("b"), Content())))
        assert (importing, library.import_slots.waiting) == ([], 1)
        clock.pump([0.25] * 7)
        (place,) = importing
        with place:
            assert (library.import_slots.used, library.upload_slots.used) == (2, 3)
    held.close()
    assert (library.import_slots.used, library.upload_slots.used, clock.getDelayedCalls()) == (
        0,
        0,
        [],
    )


@asynchronous
async def test_a_file_of_a_form_waits_for_its_descriptor_while_its_caller_is_below_its_share() -> (
    None
):
    """Case 90. Forms that are slow but steady keep no other caller's files out."""
    clock = Clock()
    library = Library(WatchedStore(), UploadLimits(), clock)
    library.form_files.total = 32
    large, mine = Content(17_000.0), Content()
    library.form_files.take("a", large, 32)
    form = library.form_files.take("b", mine, 4)
    holding = outcome(ensureDeferred(library.hold_form_file(form)))
    assert (holding, large.told) == ([], 0)
    clock.pump([0.25] * 2)
    assert (holding, large.told, form.amount) == ([None], 1, 5)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("uploads", "imports", "total"), [(64, None, 32), (1, None, 1), (64, 5, 5), (3, None, 1)]
)
def test_imports_may_take_half_of_the_places_unless_it_is_said(
    uploads: int, imports: int | None, total: int
) -> None:
    assert a_library(max_uploads=uploads, max_imports=imports).import_slots.total == total


def test_the_files_of_forms_share_a_quarter_of_the_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Case 90."""
    limits = [(1024, 1 << 20)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[0])
    library = a_library()
    assert library.form_files.total == 256
    for limit, total in ((4096, 1024), (1 << 20, 64 * 256), (resource.RLIM_INFINITY, 64 * 256)):
        limits[0] = (limit, 1 << 20)
        library.on_descriptor_limit()
        assert library.form_files.total == total

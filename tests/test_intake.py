"""The one way in: its limits, its order of judgement, and what it leaves of an arrival."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, ensureDeferred, execute
from twisted.logger import LogEvent, globalLogPublisher

from tests.arriving import HELLO, SOURCE, WatchedStore, an_intake, arriving, taken
from tests.support import asynchronous, named
from twistedmedia.arrival import WORTH_PREPARING_BYTES, Coding
from twistedmedia.boundaries import Draft
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
    TooLarge,
)
from twistedmedia.names import MediaName
from twistedmedia.store.memory import MemoryMedia, MemoryStore


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
    intake = an_intake()
    arrival = await taken(intake, [b"hel", b"lo"])
    assert arrival.failure is None
    stored = arrival.stored
    digest = hashlib.sha256(b"hello").hexdigest()
    assert (stored.name, stored.size, stored.sha256) == (HELLO, 5, digest)
    assert intake.store.content(HELLO) == b"hello"
    assert intake.store.drafts == 0


@asynchronous
async def test_a_name_may_come_after_the_content() -> None:
    intake = an_intake()
    with intake.arrival(SOURCE) as arrival:
        await arrival.write([b"hello"])
        arrival.named("prompts/en", "hello.mp3")
        await arrival.end()
        await intake.publish([arrival])
    assert intake.store.content(HELLO) == b"hello"


@asynchronous
async def test_an_arrival_that_never_gets_a_name_is_not_stored() -> None:
    intake = an_intake()
    with intake.arrival(SOURCE) as arrival:
        await arrival.write([b"hello"])
        await arrival.end()
        await intake.publish([arrival])
    assert (arrival.stored, intake.store.drafts) == (None, 0)


# Limits


@asynchronous
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("sizes", [[1000], [999, 1], [1] * 1000, [0, 1000, 0], [500, 500]], ids=len)
async def test_a_file_of_exactly_the_limit_passes(sizes: list[int], declared: bool) -> None:
    """Case 37."""
    intake = an_intake(max_upload=1000)
    size = 1000 if declared else None
    arrival = await taken(intake, [bytes(n) for n in sizes], declared=size)
    assert arrival.failure is None
    assert arrival.stored.size == 1000


@asynchronous
@pytest.mark.parametrize("sizes", [[1001], [1000, 1], [1] * 1001, [500, 501], [1, 5000]], ids=len)
async def test_a_file_of_one_byte_more_does_not(sizes: list[int]) -> None:
    """Cases 8 and 37: no length is declared; it counts while it arrives."""
    intake = an_intake(max_upload=1000)
    arrival = await taken(intake, [bytes(n) for n in sizes])
    assert isinstance(arrival.failure, TooLarge)
    assert arrival.failure.limit == 1000
    assert (arrival.stored, intake.store.content(HELLO)) == (None, None)
    assert intake.store.drafts == 0


@asynchronous
@pytest.mark.parametrize("declared", [1001, 2**31, 2**32, 2**63, 10**30])
async def test_a_declared_size_over_the_limit_is_refused_before_anything_is_written(
    declared: int,
) -> None:
    """Cases 6 and 37."""
    intake = an_intake(max_upload=1000)
    with arriving(intake, declared=declared) as arrival:
        await arrival.prepare()
        assert isinstance(arrival.failure, TooLarge)
    assert "append" not in intake.store.asked
    assert intake.store.drafts == 0


@asynchronous
async def test_more_than_was_declared_still_counts_against_the_limit() -> None:
    """Case 9."""
    arrival = await taken(an_intake(max_upload=1000), [bytes(600), bytes(600)], declared=10)
    assert isinstance(arrival.failure, TooLarge)


@asynchronous
async def test_it_is_the_decoded_bytes_that_count() -> None:
    halving = Coding(decode=lambda piece: piece[::2], measure=lambda piece: len(piece) // 2)
    intake = an_intake(max_upload=1000)
    arrival = await taken(intake, [b"ab" * 400, b"cd" * 600], coding=halving)
    assert arrival.stored.size == 1000
    assert intake.store.content(HELLO) == b"a" * 400 + b"c" * 600
    other = named("prompts/en/other.mp3")
    arrival = await taken(intake, [b"ab" * 1001], other, coding=halving)
    assert isinstance(arrival.failure, TooLarge)


@asynchronous
async def test_what_cannot_be_decoded_is_the_failure_of_that_file() -> None:
    def decode(piece: bytes) -> bytes:
        if piece == b"broken":
            raise Malformed("broken")
        return piece

    intake = an_intake()
    coding = Coding(decode=decode, measure=len)
    arrival = await taken(intake, [b"whole", b"broken", b"whole"], coding=coding)
    assert isinstance(arrival.failure, Malformed)
    assert (intake.store.content(HELLO), intake.store.drafts) == (None, 0)


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
    """The order of docs/http.md, Storing, rule 7."""
    intake = an_intake()
    with intake.arrival(SOURCE) as arrival:
        for each in (ORDER[first], ORDER[second]):
            FAILURES[each](arrival)
        assert type(arrival.failure) is ORDER[min(first, second)]
    assert intake.store.drafts == 0


def test_of_two_failures_of_one_kind_the_first_is_told() -> None:
    with an_intake().arrival(SOURCE) as arrival:
        arrival.fail(Malformed("first"))
        arrival.fail(Malformed("second"))
        assert arrival.failure is not None
        assert arrival.failure.reason == "first"


@asynchronous
async def test_a_format_that_is_not_supported_is_judged_before_a_declared_size() -> None:
    intake = an_intake(max_upload=1000)
    with arriving(intake, named("a/x.exe"), declared=1001) as arrival:
        await arrival.prepare()
    assert isinstance(arrival.failure, FormatNotSupported)
    assert intake.store.asked == []


@asynchronous
async def test_a_declared_size_is_judged_before_space_and_before_the_name_that_is_taken() -> None:
    intake = an_intake(WatchedStore(capacity=500), max_upload=1000)
    await taken(intake, [b"first"])
    for declared, error in ((1001, TooLarge), (None, AlreadyExists)):
        with arriving(intake, declared=declared) as arrival:
            await arrival.prepare()
        assert isinstance(arrival.failure, error)


@asynchronous
async def test_a_size_is_judged_before_a_name_that_is_taken_although_that_was_known_first() -> None:
    """A part of a form goes on arriving after it has failed, and may turn out too large."""
    intake = an_intake(max_upload=1000)
    await taken(intake, [b"first"])
    arrival = await taken(intake, [bytes(600), bytes(400)])
    assert isinstance(arrival.failure, AlreadyExists)
    arrival = await taken(intake, [bytes(600), bytes(401)])
    assert isinstance(arrival.failure, TooLarge)


@asynchronous
@pytest.mark.parametrize(
    "pieces", [[[1100]], [[60, 1040]], [[60], [1040]], [[600, 500]], [[60, 600], [440]]], ids=str
)
async def test_a_size_is_judged_before_space_however_the_file_was_cut(
    pieces: list[list[int]],
) -> None:
    """1,100 bytes, where 1,000 are allowed and there is room for 50."""
    intake = an_intake(WatchedStore(capacity=50), max_upload=1000)
    with arriving(intake) as arrival:
        for sizes in pieces:
            await arrival.write([bytes(size) for size in sizes])
        await arrival.end()
        await intake.publish([arrival])
    assert isinstance(arrival.failure, TooLarge)


@asynchronous
async def test_a_failure_that_is_judged_before_the_size_is_not_replaced_by_it() -> None:
    intake = an_intake(max_upload=10)
    arrival = await taken(intake, [bytes(600), bytes(600)], named("a/x.exe"))
    assert isinstance(arrival.failure, FormatNotSupported)
    assert "append" not in intake.store.asked


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
    intake = an_intake()
    await taken(intake, [b"first"])
    arrival = await taken(intake, [b"other"], name, declared=declared)
    assert isinstance(arrival.failure, error)
    assert intake.store.content(HELLO) == b"first"
    assert intake.store.drafts == 0


@asynchronous
@pytest.mark.parametrize(
    ("declared", "looks"),
    [(None, True), (0, False), (20_000, False), (WORTH_PREPARING_BYTES, True)],
)
async def test_a_name_is_looked_at_first_where_that_can_save_something(
    declared: int | None, looks: bool
) -> None:
    intake = an_intake()
    with arriving(intake, declared=declared) as arrival:
        await arrival.prepare()
    assert ("prepare" in intake.store.asked) is looks


# Space, and other failures while it arrives


@asynchronous
async def test_no_space_in_the_middle_is_the_failure_and_the_rest_is_dropped() -> None:
    """Case 10."""
    intake = an_intake(WatchedStore(capacity=100))
    arrival = await taken(intake, [bytes(60)] * 10)
    assert isinstance(arrival.failure, NoSpace)
    assert intake.store.drafts == 0
    assert intake.store.asked.count("append") <= 3
    arrival = await taken(intake, [bytes(100)])
    assert arrival.failure is None


@asynchronous
async def test_a_fault_of_the_store_is_an_incident_of_that_file(
    nothing_left_behind: list[LogEvent],
) -> None:
    class Faulty(MemoryStore):
        def begin(self, size: int | None = None) -> Draft:
            draft = super().begin(size)
            draft.append = lambda chunks: execute(fault)  # type: ignore[method-assign]
            return draft

    def fault() -> None:
        raise OSError("a fault")

    intake = an_intake(Faulty())
    arrival = await taken(intake, [b"hello"])
    assert isinstance(arrival.failure, InternalError)
    assert intake.uploads == 0
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

    intake = an_intake(Faulty())
    with ExitStack() as arriving_all:
        arrivals = []
        for filename in ("one.wav", "two.wav", "three.wav"):
            arrival = arriving_all.enter_context(intake.arrival("somewhere"))
            arrival.named("a", filename)
            await arrival.write([b"x"])
            await arrival.end()
            arrivals.append(arrival)
        await intake.publish(arrivals)
    assert [arrival.stored is not None for arrival in arrivals] == [True, False, True]
    assert isinstance(arrivals[1].failure, InternalError)
    assert len(nothing_left_behind) == 1
    nothing_left_behind.clear()


@asynchronous
async def test_the_next_bytes_are_received_while_the_last_are_written() -> None:
    intake = an_intake(WatchedStore(holding=("append",)))
    with arriving(intake) as arrival:
        await arrival.write([b"first"])  # comes back although nothing is written yet
        second = ensureDeferred(arrival.write([b"second"]))
        assert not second.called
        assert intake.store.asked == ["append"]
        intake.store.go_on()
        await second
        assert intake.store.asked == ["append", "append"]
        await arrival.end()
        await intake.publish([arrival])
    assert intake.store.content(HELLO) == b"firstsecond"


# How many at once


def test_one_upload_more_than_there_may_be_is_told_when_to_come_again() -> None:
    intake = an_intake(max_uploads=3)
    with ExitStack() as uploads:
        for n in range(3):
            uploads.enter_context(intake.upload())
            assert intake.uploads == n + 1
        with pytest.raises(Busy) as refused, intake.upload():
            pytest.fail("it was let in")
        assert int(refused.value.headers["Retry-After"]) > 0
        assert intake.uploads == 3
    assert intake.uploads == 0
    with intake.upload():
        assert intake.uploads == 1


@pytest.mark.parametrize("error", [TooLarge(1), CancelledError(), OSError("a fault")], ids=repr)
def test_an_upload_that_ends_in_an_exception_gives_its_place_back(error: Exception) -> None:
    intake = an_intake(max_uploads=1)
    for _ in range(3):
        with pytest.raises(type(error)), intake.upload():
            raise error
    assert intake.uploads == 0


# What is left of an arrival


@asynchronous
@pytest.mark.parametrize("error", [CancelledError(), Malformed("early end"), OSError("a fault")])
@pytest.mark.parametrize("steps", range(5))
async def test_an_arrival_that_is_left_by_an_exception_leaves_nothing(
    error: Exception, steps: int
) -> None:
    """Case 1."""
    intake = an_intake()

    async def upload() -> None:
        with arriving(intake) as arrival:
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
    assert (intake.store.drafts, intake.store.content(HELLO)) == (0, None)


@asynchronous
async def test_a_write_that_fails_when_nobody_cares_any_more_is_not_left_unhandled() -> None:
    intake = an_intake(WatchedStore(capacity=3, holding=("append",)))
    with arriving(intake) as arrival:
        await arrival.write([b"more than there is room for"])
    intake.store.go_on()
    assert intake.store.drafts == 0


@asynchronous
async def test_an_arrival_that_was_received_and_not_published_leaves_nothing() -> None:
    intake = an_intake()
    with arriving(intake) as arrival:
        await arrival.write([b"hello"])
        await arrival.end()
    assert (intake.store.drafts, intake.store.content(HELLO)) == (0, None)


@asynchronous
async def test_one_that_failed_is_dropped_and_the_others_are_stored() -> None:
    names = [named(f"form/{n}.mp3") for n in range(4)]
    intake = an_intake(max_upload=10)
    await taken(intake, [b"there"], names[1])
    arrivals = []
    with ExitStack() as form:
        for n, name in enumerate(names):
            arrival = form.enter_context(intake.arrival(SOURCE))
            arrivals.append(arrival)
            arrival.accepted(name)
            await arrival.write([bytes(11) if n == 2 else b"%d" % n])
            await arrival.end()
        await intake.publish(arrivals)
    assert [type(arrival.failure) for arrival in arrivals] == [
        type(None),
        AlreadyExists,
        TooLarge,
        type(None),
    ]
    assert [intake.store.content(name) for name in names] == [b"0", b"there", None, b"3"]
    assert intake.store.drafts == 0


@asynchronous
async def test_two_files_of_one_name_in_one_form_are_one_file_and_one_failure() -> None:
    """Case 2."""
    intake = an_intake()
    with ExitStack() as form:
        arrivals = [form.enter_context(arriving(intake)) for _ in range(2)]
        for arrival, content in zip(arrivals, (b"first", b"second"), strict=True):
            await arrival.write([content])
            await arrival.end()
        await intake.publish(arrivals)
    assert arrivals[0].stored is not None
    assert isinstance(arrivals[1].failure, AlreadyExists)
    assert intake.store.content(HELLO) == b"first"


# A publish, once begun


@asynchronous
async def test_a_publish_goes_on_to_its_last_file_when_its_waiter_is_cancelled() -> None:
    intake = an_intake(WatchedStore(holding=("publish",)))
    names = [named(f"form/{n}.mp3") for n in range(3)]

    async def upload() -> None:
        with intake.upload(), ExitStack() as form:
            arrivals = [form.enter_context(arriving(intake, name)) for name in names]
            for arrival in arrivals:
                await arrival.write([b"hello"])
                await arrival.end()
            await intake.publish(arrivals)

    uploading = ensureDeferred(upload())
    assert len(intake.store.held) == 1
    uploading.cancel()
    with pytest.raises(CancelledError):
        await uploading
    assert intake.uploads == 0
    quiet = intake.quiet()
    assert not quiet.called
    assert [intake.store.content(name) for name in names] == [None] * 3
    intake.store.go_on()
    assert quiet.called
    assert [intake.store.content(name) for name in names] == [b"hello"] * 3
    assert intake.store.drafts == 0


@asynchronous
async def test_a_publish_that_fails_after_its_waiter_left_is_let_go_of(logged: list[str]) -> None:
    intake = an_intake(WatchedStore(holding=("publish",)))
    publishing = ensureDeferred(taken(intake, [b"second"]))
    first = await _stored_directly(intake.store, HELLO)
    publishing.cancel()
    with pytest.raises(CancelledError):
        await publishing
    intake.store.go_on()
    assert intake.store.content(HELLO) == first
    assert intake.store.drafts == 0
    assert intake.quiet().called


async def _stored_directly(store: WatchedStore, name: MediaName) -> bytes:
    draft = store._store.begin()
    await draft.append([b"first"])
    await draft.publish(name)
    return b"first"


@asynchronous
async def test_quiet_fires_at_once_when_nothing_is_published_and_waits_for_all_that_is() -> None:
    intake = an_intake(WatchedStore(holding=("publish",)))
    assert intake.quiet().called
    uploads = [ensureDeferred(taken(intake, [b"x"], named(f"a/{n}.mp3"))) for n in range(3)]
    quiet = [intake.quiet(), intake.quiet()]
    for go_on in intake.store.held:
        assert not any(each.called for each in quiet)
        go_on()
    assert all(each.called for each in quiet)
    for upload in uploads:
        await upload


# The log


@asynchronous
async def test_the_log_tells_when_a_file_begins_to_arrive_and_when_it_is_stored(
    logged: list[str],
) -> None:
    await taken(an_intake(), [b"hello"])
    arriving_line, stored_line = logged
    assert arriving_line.startswith("arriving: ")
    assert stored_line.startswith("stored: ")
    for line in logged:
        assert str(HELLO) in line
        assert SOURCE in line
    assert "5 bytes" in stored_line


@asynchronous
async def test_the_log_tells_why_a_file_was_not_stored(logged: list[str]) -> None:
    await taken(an_intake(max_upload=3), [b"hello"])
    assert logged[-1].startswith("not stored: ")
    assert "limit of 3 bytes" in logged[-1]
    with pytest.raises(CancelledError), arriving(an_intake()):
        raise CancelledError
    assert logged[-1].startswith("not stored: ")
    assert "its connection was lost" in logged[-1]


@asynchronous
async def test_a_name_of_a_client_cannot_break_a_line_of_the_log(logged: list[str]) -> None:
    """Case 35."""
    with an_intake().arrival(SOURCE) as arrival:
        arrival.named("a\nstored: forged", "x\r\n\x1b[31m.mp3")
    (line,) = logged
    assert line.isprintable()


@asynchronous
async def test_the_log_does_not_deny_what_is_stored_after_its_client_went(
    logged: list[str],
) -> None:
    intake = an_intake(WatchedStore(holding=("publish",)))
    uploading = ensureDeferred(taken(intake, [b"hello"]))
    uploading.cancel()
    with pytest.raises(CancelledError):
        await uploading
    intake.store.go_on()
    assert [line.split(":")[0] for line in logged] == ["arriving", "stored"]


@asynchronous
async def test_the_log_tells_of_a_publish_that_failed_after_its_client_went(
    logged: list[str],
) -> None:
    intake = an_intake(WatchedStore(holding=("publish",)))
    publishing = ensureDeferred(taken(intake, [b"second"]))
    await _stored_directly(intake.store, HELLO)
    publishing.cancel()
    with pytest.raises(CancelledError):
        await publishing
    logged.clear()
    intake.store.go_on()
    (line,) = logged
    assert line.startswith("not stored: ")
    assert "exists already" in line

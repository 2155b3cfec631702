"""What a library tells its subscribers."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from tests.http.connection import outcome, result
from tests.library.test_resumable import ME, Service, body
from tests.library.uploads import CALLER, HELLO, SOURCE, a_library, taken
from tests.support import asynchronous
from twistedmedia.errors import AddressRefused, AlreadyExists, PreconditionFailed, WrongOffset
from twistedmedia.fairness.loop_queue import LoopQueue
from twistedmedia.fetch.fetcher import FetchLimits
from twistedmedia.library.events import (
    Event,
    FetchRefused,
    FileDeleted,
    FileStored,
    Storing,
    UploadBegun,
    UploadExpired,
    UploadInterrupted,
    UploadRefused,
    UploadResumed,
)
from twistedmedia.library.importing import Fetches
from twistedmedia.library.library import Library
from twistedmedia.library.resumption import UploadPart
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.store.interface import StoredFile
from twistedmedia.store.memory import MemoryStore
from twistedmedia.store.preconditions import Precondition

HELLO_SHA256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def heard_by(library: Library) -> list[Event]:
    """The events of `library` from now on."""
    events: list[Event] = []
    library.events.subscribe(events.append)
    return events


@asynchronous
async def test_a_stored_file_is_an_event_with_all_that_is_known_of_it() -> None:
    library = a_library(MemoryStore())
    events = heard_by(library)
    upload = await taken(library, [b"hello"])
    begun, stored = events
    assert begun == UploadBegun(HELLO, SOURCE)
    assert isinstance(stored, FileStored)
    assert (stored.how, stored.file) == (Storing.NEW, upload.stored)
    assert stored.file == StoredFile(HELLO, 5, HELLO_SHA256, upload.stored.etag)
    assert (stored.source, stored.problem) == (SOURCE, upload.problem)
    assert upload.problem is not None, "it is not an MP3"


@asynchronous
async def test_how_a_file_was_stored_is_in_its_event() -> None:
    library = a_library(MemoryStore())
    await taken(library, [b"hello"])
    events = heard_by(library)
    for sha256, precondition in ((HELLO_SHA256, None), (None, Precondition())):
        with library.begin(SOURCE, replacing=precondition) as upload:
            upload.accepted(HELLO)
            upload.sha256 = sha256
            await upload.prepare(awaited=True)
            await upload.write([b"hello"])
            await upload.end()
            await library.publish([upload])
    how = [event.how for event in events if isinstance(event, FileStored)]
    assert how == [Storing.IDENTICAL, Storing.REPLACED]


@asynchronous
async def test_a_refused_upload_is_an_event_with_its_error() -> None:
    library = a_library(MemoryStore())
    await taken(library, [b"hello"])
    events = heard_by(library)
    upload = await taken(library, [b"other"])
    assert isinstance(upload.failure, AlreadyExists)
    refused = UploadRefused("prompts/en", "hello.mp3", SOURCE, upload.failure)
    assert events == [UploadBegun(HELLO, SOURCE), refused]


@asynchronous
async def test_only_a_file_that_was_there_is_told_as_deleted() -> None:
    library = a_library(MemoryStore())
    await taken(library, [b"hello"])
    events = heard_by(library)
    with pytest.raises(PreconditionFailed):
        await library.delete(CALLER, HELLO, Precondition(if_match=frozenset()))
    assert await library.delete(CALLER, HELLO)
    assert not await library.delete(CALLER, HELLO)
    assert events == [FileDeleted(HELLO, CALLER)]


def test_a_resumable_upload_tells_when_it_goes_on_breaks_off_and_ends() -> None:
    service = Service()
    events = heard_by(service.library)
    upload_id = service.created(11, b"hello")
    with pytest.raises(WrongOffset):
        service.added(upload_id, 4, b"o")
    assert not [event for event in events if isinstance(event, UploadResumed)]
    service.added(upload_id, 5, b" world")
    resumed = [event for event in events if isinstance(event, UploadResumed)]
    assert resumed == [UploadResumed(upload_id, HELLO, 5, ME)]
    assert isinstance(events[-1], FileStored)


def test_an_interrupted_part_is_an_event_with_the_bytes_that_stay() -> None:
    service = Service()
    events = heard_by(service.library)
    upload_id = service.created(11)
    content = body(open_end=True, length=11)
    adding = outcome(service.uploads.append(ME, upload_id, UploadPart(0, content)))
    content.feed(b"hello")
    content.fail(ConnectionError("gone"))
    assert len(adding) == 1
    interrupted = [event for event in events if isinstance(event, UploadInterrupted)]
    assert interrupted == [UploadInterrupted(HELLO, 5, "gone", ME)]


@asynchronous
async def test_an_expired_upload_is_an_event() -> None:
    service = Service()
    upload_id = service.created(11)
    events = heard_by(service.library)
    service.now_s += 2 * 3600
    await service.uploads.sweep()
    assert events == [UploadExpired(upload_id)]


def test_a_fetch_of_an_address_that_is_not_allowed_is_an_event() -> None:
    class Refusing:
        upstream = None
        reactor = Clock()
        queue = LoopQueue(reactor)

        def open(self, *_: Any, **__: Any) -> Any:
            raise AddressRefused("10.0.0.1:80")

    fetcher: Any = Refusing()
    limits = FetchLimits(1, 1)
    library = Library(MemoryStore(), UploadLimits(), fetches=Fetches(fetcher, limits, limits))
    events = heard_by(library)
    fetching = ensureDeferred(library.fetch(CALLER, None, fresh=True, keep=False))
    fetcher.reactor.advance(1)
    with pytest.raises(AddressRefused):
        result(fetching)
    assert events == [FetchRefused("10.0.0.1:80", CALLER)]


@asynchronous
async def test_a_subscriber_that_fails_changes_nothing(
    nothing_left_behind: list[LogEvent],
) -> None:
    library = a_library(MemoryStore())

    def fails(_: Event) -> None:
        raise OSError("no room for the event")

    library.events.subscribe(fails)
    events = heard_by(library)
    upload = await taken(library, [b"hello"])
    assert upload.stored is not None
    assert len(events) == 2
    assert [str(event["log_failure"].value) for event in nothing_left_behind] == 2 * [
        "no room for the event"
    ]
    nothing_left_behind.clear()

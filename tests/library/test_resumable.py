"""Uploads that go over many requests: what counts, what becomes of them, and who may write."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogEvent

from tests.audio.samples import frames
from tests.http.connection import outcome, result
from tests.store.local.faults import FailingCalls, SlowCalls
from tests.store.local.test_records import copied
from tests.support import asynchronous, named
from twistedmedia.errors import (
    AlreadyExists,
    Busy,
    ChecksumMismatch,
    DigestMismatch,
    FormatNotSupported,
    InternalError,
    Malformed,
    MediaError,
    NameTaken,
    NoSpace,
    NotAudio,
    NotFound,
    StillEnding,
    StorageFailed,
    Superseded,
    TooLarge,
    TooManyUnfinished,
    WrongOffset,
)
from twistedmedia.http.body import Body, BodyMemory
from twistedmedia.http.tus import Checksum
from twistedmedia.library.caller import Caller
from twistedmedia.library.library import Library
from twistedmedia.library.resumable import SYNC_BYTES, ResumableUploads
from twistedmedia.library.resumption import UploadPart, UploadProgress
from twistedmedia.library.upload_limits import AudioCheckMode, UploadLimits
from twistedmedia.names import MediaName
from twistedmedia.store.interface import UploadSpec
from twistedmedia.store.local.directory import DirectoryStore
from twistedmedia.store.memory import MemoryMedia, MemoryStore
from twistedmedia.store.preconditions import Precondition

HELLO = named("prompts/en/hello.mp3")
WHOLE = b"hello world"
ME, OTHER = Caller("192.0.2.1", "me"), Caller("192.0.2.2", "other")


class Flow:
    """A connection of which nothing is asked that matters here."""

    def hold(self) -> None: ...

    def release(self) -> None: ...

    def send_continue(self) -> None: ...

    def pace(self) -> float | None: ...

    def give_way(self) -> None: ...


def body(*pieces: bytes, length: int | None = None, open_end: bool = False) -> Body:
    """Content that has come, to its end unless that is open. Of such a one the `length` is given;
    else it is what came.
    """
    made = Body(length if open_end else sum(map(len, pieces)), BodyMemory(), Flow())
    for piece in pieces:
        made.feed(piece)
    if not open_end:
        made.end()
    return made


def of_sha1(content: bytes) -> Checksum:
    return Checksum("sha1", hashlib.sha1(content).digest())


class Service:
    """Uploads over a store in memory, at a time that a test sets."""

    def __init__(self, store: Any = None, *, max_unfinished: int = 1000, **limits: Any) -> None:
        self.store: Any = store or MemoryStore()
        self.now_s = time.time()
        self.stepped_s = 0.0  # by so much the wall clock was set
        self.library = Library(self.store, UploadLimits(**limits))
        self.uploads = ResumableUploads(
            self.library,
            self.store.resumable,
            expiry_s=3600,
            max_unfinished=max_unfinished,
            now_s=lambda: self.now_s + self.stepped_s,
            monotonic_s=lambda: self.now_s,
        )

    def creating(
        self,
        length: int | None = len(WHOLE),
        *pieces: bytes,
        name: MediaName = HELLO,
        sha256: str | None = None,
        caller: Caller = ME,
        part: UploadPart | None = None,
    ) -> Deferred[UploadProgress]:
        spec = UploadSpec(name, length, sha256, caller.key, "a note")
        return self.uploads.create(caller, spec, part or UploadPart(0, body(*pieces)))

    def created(self, *args: Any, **options: Any) -> str:
        """The id of a new upload."""
        return result(self.creating(*args, **options)).upload_id

    def adding(
        self, upload: str, offset: int, *pieces: bytes, **options: Any
    ) -> Deferred[UploadProgress]:
        return self.uploads.append(ME, upload, UploadPart(offset, body(*pieces), **options))

    def added(self, upload: str, offset: int, *pieces: bytes, **options: Any) -> UploadProgress:
        return result(self.adding(upload, offset, *pieces, **options))

    def look(self, upload: str) -> UploadProgress:
        return result(self.uploads.status(ME, upload))

    def offset(self, upload: str) -> int:
        return self.look(upload).offset

    def store_other(self, content: bytes, name: MediaName = HELLO) -> None:
        """Somebody else's file takes the name."""
        draft = self.store.begin()
        result(draft.append([content]))
        result(draft.publish(name))

    def content(self, name: MediaName = HELLO) -> bytes | None:
        """What is stored."""
        media = outcome(self.store.open(name))[0]
        return result(media.read(0, 1 << 30)) if isinstance(media, MemoryMedia) else None

    def unfinished(self) -> int:
        """How many uploads of mine count. Creating one more tells it."""
        return self.uploads._quota._counts[ME.key]


@pytest.fixture
def service() -> Service:
    return Service()


# Part by part


@pytest.mark.parametrize("size", [1, 4, 10, 11])
def test_parts_add_up_to_the_file(service: Service, size: int) -> None:
    upload = service.created()
    for offset in range(0, len(WHOLE), size):
        assert service.content() is None
        progress = service.added(upload, offset, WHOLE[offset : offset + size])
        assert progress.offset == min(offset + size, len(WHOLE))
        assert (progress.length, progress.note, progress.upload_id) == (11, "a note", upload)
    assert (progress.stored, progress.expires_s) == (HELLO, None)
    assert service.content() == WHOLE


def test_a_new_upload_is_empty_and_says_until_when_it_is_kept(service: Service) -> None:
    progress = result(service.creating())
    expires_s = pytest.approx(service.now_s + 3600, abs=30)
    told = UploadProgress(progress.upload_id, 0, 11, "a note", expires_s=expires_s)
    assert progress == told
    service.now_s += 60
    assert service.look(progress.upload_id) == told, "to look is not to add"


def test_ids_cannot_be_guessed(service: Service) -> None:
    ids = {service.created(name=named(f"a/{n}.mp3")) for n in range(50)}
    assert len(ids) == 50
    assert all(len(upload) == 32 for upload in ids)


def test_a_part_can_come_with_the_creation(service: Service) -> None:
    progress = result(service.creating(11, b"hello"))
    assert (progress.offset, progress.stored) == (5, None)
    assert service.added(progress.upload_id, 5, b" world").stored == HELLO


def test_the_whole_can_come_with_the_creation(service: Service) -> None:
    progress = result(service.creating(11, WHOLE))
    assert (progress.offset, progress.stored) == (11, HELLO)
    assert service.content() == WHOLE
    assert service.look(progress.upload_id) == progress


def test_an_upload_of_no_bytes_is_stored_when_it_is_begun(service: Service) -> None:
    """Case 7."""
    progress = result(service.creating(0))
    assert (progress.offset, progress.length, progress.stored) == (0, 0, HELLO)
    assert service.content() == b""
    assert service.unfinished() == 0


def test_an_empty_part_changes_nothing(service: Service) -> None:
    upload = service.created(11, b"hello")
    assert service.added(upload, 5).offset == 5
    assert service.added(upload, 5, b" world").stored == HELLO


@pytest.mark.parametrize("offset", [0, 4, 6, 11, 1 << 62])
def test_a_part_at_another_offset_is_refused_and_says_where_to_go_on(
    service: Service, offset: int
) -> None:
    """Case 37."""
    upload = service.created(11, b"hello")
    with pytest.raises(WrongOffset, match="at byte 5;"):
        service.added(upload, offset, b" world")
    assert service.offset(upload) == 5


def test_what_is_stored_takes_nothing_more(service: Service) -> None:
    upload = service.created(11, WHOLE)
    with pytest.raises(WrongOffset):
        service.added(upload, 5, b" there")
    assert service.added(upload, 11).stored == HELLO, "whoever has lost the answer asks again"
    assert service.content() == WHOLE


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_what_comes_behind_the_end_of_what_is_stored_is_too_large(
    service: Service, declared: bool, size: int
) -> None:
    """Case 9."""
    upload = service.created(11, WHOLE)
    surplus = bytes(size)
    coming = body(surplus, open_end=True, length=size if declared else None)
    coming.end()
    with pytest.raises(TooLarge) as caught:
        result(service.uploads.append(ME, upload, UploadPart(11, coming)))
    assert (caught.value.status, caught.value.limit) == (413, 11)
    assert service.look(upload).stored == HELLO
    assert service.added(upload, 11).stored == HELLO
    assert service.content() == WHOLE


def test_what_comes_to_a_stored_upload_at_another_offset_is_refused_for_that(
    service: Service,
) -> None:
    upload = service.created(11, WHOLE)
    for offset in (0, 5, 10, 12):
        with pytest.raises(WrongOffset, match="at byte 11;"):
            service.added(upload, offset, b"x")


@pytest.mark.parametrize("upload", ["0" * 32, "", "..", "x"])
def test_what_is_not_there_is_not_found(service: Service, upload: str) -> None:
    for asking in (
        service.adding(upload, 0, b"x"),
        service.uploads.status(ME, upload),
        service.uploads.terminate(ME, upload),
    ):
        with pytest.raises(NotFound):
            result(asking)


# Parts that break off


def breaking_off(
    service: Service,
    upload: str,
    offset: int,
    *pieces: bytes,
    length: int | None,
    checksum: Checksum | None = None,
) -> Any:
    """What adding a part comes to whose connection is lost after the pieces."""
    coming = body(open_end=True, length=length)
    adding = outcome(
        service.uploads.append(ME, upload, UploadPart(offset, coming, checksum=checksum))
    )
    for piece in pieces:
        coming.feed(piece)
    assert not adding
    coming.fail(ConnectionLost())
    (came,) = adding
    return came


def test_what_came_of_a_part_that_breaks_off_is_kept(service: Service) -> None:
    """Case 1."""
    upload = service.created()
    for offset, piece in ((0, b"he"), (2, b""), (2, b"llo")):
        came = breaking_off(service, upload, offset, piece, length=11 - offset)
        assert came.check(ConnectionLost)
        assert service.offset(upload) == offset + len(piece)
    assert service.added(upload, 5, b" world").stored == HELLO
    assert service.content() == WHOLE


def test_of_a_part_with_a_checksum_that_breaks_off_nothing_is_kept(service: Service) -> None:
    upload = service.created(11, b"hello")
    came = breaking_off(service, upload, 5, b" wor", length=6, checksum=of_sha1(b" world"))
    assert came.check(ConnectionLost)
    assert service.offset(upload) == 5
    assert service.added(upload, 5, b" world", checksum=of_sha1(b" world")).stored == HELLO
    assert service.content() == WHOLE


def test_a_part_that_breaks_off_after_its_last_byte_is_the_last_one(service: Service) -> None:
    """It was sent in chunks, whose end has not come."""
    upload = service.created(11, b"hello")
    assert breaking_off(service, upload, 5, b" world", length=None).check(ConnectionLost)
    assert service.content() == WHOLE
    assert service.look(upload).stored == HELLO


def test_a_creation_that_breaks_off_leaves_nothing(service: Service) -> None:
    """Nobody knows its id."""
    coming = body(b"hello", open_end=True, length=11)
    creating = outcome(service.creating(part=UploadPart(0, coming)))
    coming.fail(ConnectionLost())
    assert creating[0].check(ConnectionLost)
    assert result(service.store.resumable.callers()) == {}
    assert service.unfinished() == 0


@pytest.mark.parametrize("declared", [True, False])
def test_more_than_was_declared_is_refused_and_nothing_of_it_kept(
    service: Service, declared: bool
) -> None:
    """Case 9."""
    upload = service.created(11, b"hello")
    coming = body(b" world", b"!", open_end=True, length=7 if declared else None)
    coming.end()
    with pytest.raises(TooLarge):
        result(service.uploads.append(ME, upload, UploadPart(5, coming)))
    assert service.offset(upload) == 5
    assert service.added(upload, 5, b" world").stored == HELLO
    assert service.content() == WHOLE


# Checksums


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_part_that_is_not_what_its_checksum_says_is_not_kept_and_comes_again(
    service: Service, algorithm: str
) -> None:
    def checksum(content: bytes) -> Checksum:
        return Checksum(algorithm, hashlib.new(algorithm, content).digest())

    upload = service.created(11)
    with pytest.raises(ChecksumMismatch) as caught:
        service.added(upload, 0, b"jello", checksum=checksum(b"hello"))
    assert caught.value.status == 460
    assert service.offset(upload) == 0
    assert service.added(upload, 0, b"hello", checksum=checksum(b"hello")).offset == 5
    with pytest.raises(ChecksumMismatch):
        service.added(upload, 5, b" wOrld", checksum=checksum(b" world"))
    assert (service.offset(upload), service.content()) == (5, None)
    assert service.added(upload, 5, b" wo", b"rld", checksum=checksum(b" world")).stored == HELLO
    assert service.content() == WHOLE


def test_the_checksum_is_of_the_part_also_with_a_creation(service: Service) -> None:
    with pytest.raises(ChecksumMismatch):
        service.created(part=UploadPart(0, body(b"jello"), checksum=of_sha1(b"hello")))
    assert service.unfinished() == 0
    upload = service.created(part=UploadPart(0, body(b"hello"), checksum=of_sha1(b"hello")))
    assert service.added(upload, 5, b" world").stored == HELLO


def test_an_empty_part_with_a_checksum_is_checked_too(service: Service) -> None:
    upload = service.created(11, b"hello")
    assert service.added(upload, 5, checksum=of_sha1(b"")).offset == 5
    with pytest.raises(ChecksumMismatch):
        service.added(upload, 5, checksum=of_sha1(b"x"))


# Lengths that are told later


def test_a_length_that_is_told_with_the_last_part_completes_the_upload(service: Service) -> None:
    upload = service.created(None, b"hello")
    progress = service.look(upload)
    assert (progress.offset, progress.length) == (5, None)
    assert service.added(upload, 5, b" ").length is None
    assert service.added(upload, 6, b"world", length=11).stored == HELLO
    assert service.content() == WHOLE
    assert service.look(upload).length == 11


def test_a_length_can_be_told_with_no_part(service: Service) -> None:
    upload = service.created(None, WHOLE)
    assert service.content() is None
    assert service.added(upload, 11, length=11).stored == HELLO
    assert service.content() == WHOLE


def test_a_length_is_told_once_or_the_same_again(service: Service) -> None:
    """Case 37."""
    upload = service.created(None, b"hello")
    assert service.added(upload, 5, length=11).length == 11
    assert service.added(upload, 5, length=11).length == 11
    for length in (5, 10, 12):
        with pytest.raises(Malformed, match="was said to be 11"):
            service.added(upload, 5, length=length)
    assert service.look(upload).length == 11


@pytest.mark.parametrize(
    ("length", "error"), [(4, Malformed), (0, Malformed), (101, TooLarge), (1 << 62, TooLarge)]
)
def test_a_length_that_cannot_be_is_not_taken(length: int, error: type[MediaError]) -> None:
    """Case 37."""
    service = Service(max_upload=100)
    upload = service.created(None, b"hello")
    with pytest.raises(error):
        service.added(upload, 5, b" world", length=length)
    progress = service.look(upload)
    assert (progress.offset, progress.length) == (5, None)
    assert service.added(upload, 5, b" world", length=11).stored == HELLO


def test_a_part_that_does_not_fit_into_the_length_it_tells_changes_nothing(
    service: Service,
) -> None:
    upload = service.created(None, b"hello")
    with pytest.raises(TooLarge):
        service.added(upload, 5, b" world", length=10)
    progress = service.look(upload)
    assert (progress.offset, progress.length) == (5, None)


def test_what_never_ends_is_cut_off_at_the_limit() -> None:
    """Case 8."""
    service = Service(max_upload=100)
    upload = service.created(None, b"hello")
    for _ in range(3):
        offset = service.offset(upload)
        with pytest.raises(TooLarge):
            service.added(upload, offset, *[b"x" * 30] * 4)
        assert 5 <= service.offset(upload) <= 100
    assert service.content() is None


@pytest.mark.parametrize("length", [101, 1 << 62])
def test_a_length_beyond_the_limit_is_refused_at_once(length: int) -> None:
    service = Service(max_upload=100)
    with pytest.raises(TooLarge):
        service.created(length)
    assert service.unfinished() == 0


# Names


def test_a_name_that_is_taken_begins_no_upload(service: Service) -> None:
    """Case 4."""
    service.store_other(b"first")
    with pytest.raises(AlreadyExists) as caught:
        service.created()
    assert caught.value.status == 409
    assert result(service.store.resumable.callers()) == {}
    assert service.content() == b"first"


def test_a_name_that_was_taken_meanwhile_is_never_overwritten(service: Service) -> None:
    """Case 4."""
    upload = service.created(11, b"hello")
    service.store_other(b"first")
    with pytest.raises(NameTaken) as caught:
        service.added(upload, 5, b" world")
    assert caught.value.status == 410
    with pytest.raises(NameTaken):
        service.look(upload)
    with pytest.raises(NameTaken):
        service.added(upload, 11)
    assert service.content() == b"first"
    assert service.unfinished() == 0
    result(service.uploads.terminate(ME, upload))
    with pytest.raises(NotFound):
        service.look(upload)


def test_a_folder_that_has_the_name_meanwhile_has_taken_it_too(service: Service) -> None:
    upload = service.created(11, b"hello", name=named("prompts/en.mp3"))
    service.store_other(b"first", named("prompts/en.mp3/x.mp3"))
    with pytest.raises(NameTaken):
        service.added(upload, 5, b" world")


def test_of_two_uploads_with_one_name_the_first_that_ends_has_it(service: Service) -> None:
    """Case 2."""
    first, second = service.created(), service.created()
    assert service.added(second, 0, b"second one!").stored == HELLO
    with pytest.raises(NameTaken):
        service.added(first, 0, WHOLE)
    assert service.content() == b"second one!"


def test_a_format_that_is_not_stored_begins_no_upload(service: Service) -> None:
    with pytest.raises(FormatNotSupported):
        service.created(name=named("a/b.txt"))
    assert service.unfinished() == 0


# Declared digests


SHA256 = hashlib.sha256(WHOLE).hexdigest()


def test_what_has_the_declared_digest_is_stored(service: Service) -> None:
    upload = service.created(11, b"hello", sha256=SHA256)
    assert service.added(upload, 5, b" world").stored == HELLO


def test_what_has_another_digest_is_dropped_at_its_end(service: Service) -> None:
    upload = service.created(11, b"hello", sha256=SHA256)
    with pytest.raises(DigestMismatch):
        service.added(upload, 5, b" wOrld")
    with pytest.raises(NotFound):
        service.look(upload)
    assert (service.content(), service.unfinished()) == (None, 0)


def test_what_is_there_already_counts_as_stored_at_the_start(service: Service) -> None:
    service.store_other(WHOLE)
    progress = result(service.creating(11, sha256=SHA256))
    assert (progress.offset, progress.stored) == (11, HELLO)
    assert service.look(progress.upload_id) == progress
    assert service.unfinished() == 1, "it costs a record until it expires"
    service.now_s += 10_000
    result(Deferred.fromCoroutine(service.uploads.sweep()))
    assert service.unfinished() == 0
    with pytest.raises(NotFound):
        service.look(progress.upload_id)
    assert service.content() == WHOLE


def test_who_begins_what_is_there_already_may_do_so_as_often_as_anything() -> None:
    service = Service(max_unfinished=2)
    service.store_other(WHOLE)
    first, _ = (service.created(11, sha256=SHA256) for _ in range(2))
    with pytest.raises(TooManyUnfinished):
        service.created(11, sha256=SHA256)
    result(service.uploads.terminate(ME, first))
    service.created(11, sha256=SHA256)
    assert service.unfinished() == 2


def test_what_is_there_already_has_its_length_though_none_was_told(service: Service) -> None:
    service.store_other(WHOLE)
    progress = result(service.creating(None, sha256=SHA256))
    assert progress.stored == HELLO
    looked = service.look(progress.upload_id)
    assert (looked.offset, looked.length, looked.stored) == (11, 11, HELLO)


def test_what_came_there_meanwhile_counts_as_stored_at_the_end(service: Service) -> None:
    upload = service.created(11, b"hello", sha256=SHA256)
    service.store_other(WHOLE)
    progress = service.added(upload, 5, b" world")
    assert (progress.offset, progress.stored) == (11, HELLO)
    assert service.look(upload) == progress
    assert result(service.store.resumable.callers()) == {}
    assert service.unfinished() == 0


def test_other_content_of_that_name_is_another_file(service: Service) -> None:
    service.store_other(b"first")
    with pytest.raises(AlreadyExists):
        service.created(11, sha256=SHA256)


# Audio


def test_what_is_no_audio_is_refused_at_its_end_and_dropped() -> None:
    service = Service(checking=AudioCheckMode.REJECT)
    upload = service.created(11, b"hello")
    with pytest.raises(NotAudio):
        service.added(upload, 5, b" world")
    with pytest.raises(NotFound):
        service.look(upload)
    assert (service.content(), service.unfinished()) == (None, 0)


def test_what_is_audio_is_stored_whatever_its_parts() -> None:
    service = Service(checking=AudioCheckMode.REJECT)
    content = frames(20)
    upload = service.created(len(content))
    for offset in range(0, len(content), 1000):
        service.added(upload, offset, content[offset : offset + 1000])
    assert service.content() == content


@pytest.mark.parametrize("good", [True, False])
def test_what_nobody_remembers_is_looked_at_once_more(good: bool) -> None:
    service = Service(checking=AudioCheckMode.REJECT)
    first, last = frames(10) if good else bytes(4000), frames(10)
    upload = service.created(len(first + last), first)
    forget(service, upload)
    if good:
        assert service.added(upload, len(first), last).stored == HELLO
        assert service.content() == first + last
        return
    with pytest.raises(NotAudio):
        service.added(upload, len(first), last)
    assert service.content() is None


def forget(service: Service, upload: str) -> None:
    """Drop what the store remembers of an upload's parts, as it does when there are many."""
    draft = service.store.resumable.resume(upload, None, provisional=False)
    result(draft.resume())
    result(draft.release(undo=False))


@asynchronous
@pytest.mark.parametrize("good", [True, False])
async def test_a_restart_forgets_no_byte_and_judges_all_of_them(tmp_path: Path, good: bool) -> None:
    """Case 3."""
    first, last = frames(10) if good else bytes(4000), frames(10)
    content = first + last
    plan = UploadSpec(HELLO, len(content), hashlib.sha256(content).hexdigest(), ME.key, "")
    upload = ""
    for piece in (first, last[:100], last[100:]):
        store = DirectoryStore(reactor, str(tmp_path / "media"), durable=False)
        store.start()
        library = Library(store, UploadLimits(checking=AudioCheckMode.REJECT))
        uploads = ResumableUploads(library, store.resumable)
        try:
            if not upload:
                progress = await uploads.create(ME, plan, UploadPart(0, body(piece)))
                upload = progress.upload_id
            else:
                offset = (await uploads.status(ME, upload)).offset
                assert offset == content.index(piece, offset)
                progress = await uploads.append(ME, upload, UploadPart(offset, body(piece)))
            assert progress.stored == (HELLO if progress.offset == len(content) else None)
        except NotAudio:
            assert (good, piece) == (False, last[100:])
            with pytest.raises(NotFound):
                await uploads.status(ME, upload)
        finally:
            await store.stop()
    media = tmp_path / "media/prompts/en/hello.mp3"
    assert media.exists() is good
    assert not good or media.read_bytes() == content


# Power cuts


class Boot(FailingCalls):
    """A machine that was booted with that id."""

    def __init__(self, boot: str) -> None:
        super().__init__()
        self._boot = boot

    def boot_id(self) -> str:
        return self._boot


@asynccontextmanager
async def machine(
    root: Path, boot: str = "first", *, sync_bytes: int = SYNC_BYTES, **options: Any
) -> AsyncIterator[ResumableUploads]:
    """Uploads of a service that runs in that boot of its machine."""
    store = DirectoryStore(reactor, str(root), calls=Boot(boot), **options)
    store.start()
    try:
        yield ResumableUploads(
            Library(store, UploadLimits()), store.resumable, sync_bytes=sync_bytes
        )
    finally:
        await store.stop()


def lose_power(root: Path, upload: str) -> int:
    """All that is not synced becomes zeros, and there are more of them. How much is synced."""
    folder = root / ".twistedmedia/uploads"
    synced = synced_in(root, upload)
    path = folder / f"{upload}.bytes"
    content = path.read_bytes()
    path.write_bytes(content[:synced] + bytes(len(content) - synced + 5000))
    return synced


MIB = 1 << 20
CONTENT = Random(7).randbytes(8 * MIB)


async def goes_on_after_power_came_back(root: Path, upload: str, *, at: int) -> None:
    async with machine(root, "second") as uploads:
        assert (await uploads.status(ME, upload)).offset == at
        with pytest.raises(WrongOffset, match=f"at byte {at};"):
            await uploads.append(ME, upload, UploadPart(at + 1, body(b"x")))
        rest = UploadPart(at, body(CONTENT[at:]), length=len(CONTENT))
        assert (await uploads.append(ME, upload, rest)).stored == HELLO
    assert (root / "prompts/en/hello.mp3").read_bytes() == CONTENT


def in_pieces(start: int, end: int, size: int = 100_000) -> Iterator[bytes]:
    for at in range(start, end, size):
        yield CONTENT[at : min(at + size, end)]


async def begun_on(uploads: ResumableUploads, length: int | None = len(CONTENT)) -> str:
    plan = UploadSpec(HELLO, length, None, ME.key, "")
    return (await uploads.create(ME, plan, UploadPart(0, body()))).upload_id


@asynchronous
@pytest.mark.parametrize("size", [MIB // 2, 3 * MIB + 5, 5 * MIB + 300_000, 8 * MIB - 1])
@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("parts", [1, 9])
async def test_a_power_cut_takes_no_more_of_acknowledged_parts_than_is_synced_at_a_time(
    tmp_path: Path, size: int, checked: bool, parts: int
) -> None:
    root = tmp_path / "media"
    async with machine(root, sync_bytes=MIB) as uploads:
        upload = await begun_on(uploads)
        step = -(-size // parts)
        for start in range(0, size, step):
            end = min(start + step, size)
            checksum = of_sha1(CONTENT[start:end]) if checked else None
            part = UploadPart(start, body(*in_pieces(start, end)), checksum=checksum)
            assert (await uploads.append(ME, upload, part)).offset == end
    synced = lose_power(root, upload)
    assert size - MIB < synced <= size
    await goes_on_after_power_came_back(root, upload, at=synced)


@asynchronous
@pytest.mark.parametrize("fails", [None, ConnectionLost(), Superseded()], ids=str)
async def test_a_power_cut_in_the_middle_of_a_part_takes_no_more_of_it(
    tmp_path: Path, fails: Exception | None
) -> None:
    """It is synced while it comes, not only at its end."""
    root, size = tmp_path / "media", 5 * MIB + 123_456
    async with machine(root, sync_bytes=MIB) as uploads:
        upload = await begun_on(uploads)
        coming = body(open_end=True, length=len(CONTENT))
        adding = outcome(uploads.append(ME, upload, UploadPart(0, coming)))
        path = root / f".twistedmedia/uploads/{upload}.bytes"
        for piece in in_pieces(0, size, MIB // 4):
            coming.feed(piece)
            await deferLater(reactor, 0)
        if fails is not None:
            coming.fail(fails)
        while path.stat().st_size < (size if adding or fails else 5 * MIB):
            await deferLater(reactor, 0.001)
        while fails is not None and not adding:
            await deferLater(reactor, 0.001)
        while fails is None and synced_in(root, upload) < 4 * MIB:
            await deferLater(reactor, 0.001)
        copy = tmp_path / "copy"
        copied(root, copy)
        coming.fail(ConnectionLost())
        while not adding:
            await deferLater(reactor, 0.001)
    synced = lose_power(copy, upload)
    assert size - MIB - 512 * 1024 <= synced <= size  # what has not been read has not come
    await goes_on_after_power_came_back(copy, upload, at=synced)


def synced_in(root: Path, upload: str) -> int:
    """How much is synced."""
    mark = root / f".twistedmedia/uploads/{upload}.mark"
    return int(os.readlink(mark).split(" ")[1])


@asynchronous
@pytest.mark.parametrize("how", ["looked at", "of unknown length"])
async def test_a_power_cut_takes_nothing_of_what_a_client_may_have_thrown_away(
    tmp_path: Path, how: str
) -> None:
    """Who records while he sends has nothing else; who has asked drops what is here."""
    root, size = tmp_path / "media", 1_234_567
    async with machine(root) as uploads:
        upload = await begun_on(uploads, None if how == "of unknown length" else len(CONTENT))
        for start in range(0, size, 300_000):
            end = min(start + 300_000, size)
            await uploads.append(ME, upload, UploadPart(start, body(CONTENT[start:end])))
            if how == "looked at":
                assert (await uploads.status(ME, upload)).offset == end
            assert synced_in(root, upload) == end
    assert lose_power(root, upload) == size
    await goes_on_after_power_came_back(root, upload, at=size)


@asynchronous
async def test_without_a_power_cut_nothing_is_lost_though_nothing_is_synced(tmp_path: Path) -> None:
    root, size = tmp_path / "media", 1_234_567
    async with machine(root) as uploads:
        upload = await begun_on(uploads)
        await uploads.append(ME, upload, UploadPart(0, body(CONTENT[:size])))
    assert synced_in(root, upload) == 0
    async with machine(root) as uploads:
        assert (await uploads.status(ME, upload)).offset == size
    assert lose_power(root, upload) == size


@asynchronous
async def test_in_a_store_that_is_not_durable_a_power_cut_takes_all(tmp_path: Path) -> None:
    root = tmp_path / "media"
    async with machine(root, durable=False, sync_bytes=MIB) as uploads:
        upload = await begun_on(uploads)
        await uploads.append(ME, upload, UploadPart(0, body(*in_pieces(0, 3 * MIB))))
        assert (await uploads.status(ME, upload)).offset == 3 * MIB
    assert lose_power(root, upload) == 0
    await goes_on_after_power_came_back(root, upload, at=0)


# What is odd


@asynchronous
@pytest.mark.parametrize("odd", [".json", ".bytes", ".mark"])
@pytest.mark.parametrize("link", [True, False], ids=["a link", "a directory"])
async def test_what_is_odd_about_one_upload_hinders_no_other_from_counting_and_expiring(
    tmp_path: Path, odd: str, link: bool
) -> None:
    root = tmp_path / "media"
    folder = root / ".twistedmedia/uploads"
    async with machine(root) as uploads:
        usual = [await begun_on(uploads) for _ in range(5)]
        for upload in usual:
            await uploads.append(ME, upload, UploadPart(0, body(WHOLE)))
    for n in range(5):
        path = folder / f"{n:032x}{odd}"
        path.symlink_to("nonsense") if link else path.mkdir()
    store = DirectoryStore(reactor, str(root), calls=Boot("first"))
    store.start()
    now_s = time.time()
    uploads = ResumableUploads(
        Library(store, UploadLimits()),
        store.resumable,
        max_unfinished=6,
        now_s=lambda: now_s,
        monotonic_s=lambda: now_s,
    )
    clock = Clock()
    try:
        uploads.start(clock)
        while not uploads._is_counted:
            await deferLater(reactor, 0.001)
        assert uploads._quota._counts == {ME.key: 5}
        await begun_on(uploads)
        with pytest.raises(TooManyUnfinished):
            await begun_on(uploads)
        for upload in usual:
            assert (await uploads.status(ME, upload)).offset == 11
        now_s += 2 * 24 * 3600
        await uploads.sweep()
        assert not uploads._quota._counts
        for upload in usual:
            with pytest.raises(NotFound):
                await uploads.status(ME, upload)
    finally:
        uploads.stop()
        await store.stop()


@asynchronous
@pytest.mark.parametrize("during", ["learning", "adjusting"])
async def test_what_is_begun_in_the_course_of_a_sweep_outlives_it(
    tmp_path: Path, during: str
) -> None:
    """Case 88: also if the clock is set back meanwhile."""
    root = tmp_path / "media"
    async with machine(root) as earlier:
        await earlier._drafts.settle(await begun_on(earlier), None)
    calls = SlowCalls()
    store = DirectoryStore(reactor, str(root), durable=False, calls=calls)
    store.start()
    ahead_s = 0
    uploads = ResumableUploads(
        Library(store, UploadLimits()),
        store.resumable,
        expiry_s=3600,
        now_s=lambda: time.time() + ahead_s,
    )
    try:
        if during == "adjusting":
            await uploads.sweep()
        ahead_s = 10_000
        held = calls.hold(*(["pread"] if during == "learning" else ["set_modified"]))
        sweeping = Deferred.fromCoroutine(uploads.sweep())
        await held
        ahead_s = 0
        begun = await begun_on(uploads)
        plan = UploadSpec(HELLO, len(WHOLE), None, OTHER.key, "")
        whole = (await uploads.create(OTHER, plan, UploadPart(0, body(WHOLE)))).upload_id
        calls.release()
        await sweeping
        assert (await uploads.status(ME, begun)).offset == 0
        assert (await uploads.status(ME, whole)).stored is not None
    finally:
        calls.release()
        await store.stop()


@asynchronous
async def test_a_part_that_comes_while_its_upload_is_about_to_expire_is_kept(
    tmp_path: Path,
) -> None:
    """Case 13. It comes after its age was looked at, and is done before the lock is asked for."""
    root = tmp_path / "media"
    calls = SlowCalls()
    store = DirectoryStore(reactor, str(root), durable=False, calls=calls)
    store.start()
    ahead_s = 0
    uploads = ResumableUploads(
        Library(store, UploadLimits()),
        store.resumable,
        expiry_s=10,
        now_s=lambda: time.time() + ahead_s,
    )
    try:
        upload = await begun_on(uploads)
        await uploads.append(ME, upload, UploadPart(0, body(b"hello")))
        os.utime(root / f".twistedmedia/uploads/{upload}.bytes", (0, 0))
        held = calls.hold("open", where=lambda name, *_: name == f"{upload}.bytes")
        sweeping = Deferred.fromCoroutine(uploads.sweep())
        await held
        await uploads.append(ME, upload, UploadPart(5, body(b" world")))
        calls.release()
        await sweeping
        assert (await uploads.status(ME, upload)).offset == 11
        assert uploads._quota._counts == {ME.key: 1}
    finally:
        await store.stop()


# Storage that fails


class FailingStore(MemoryStore):
    """Its next publish fails with `error`, if there is one; so does beginning an upload."""

    error: Exception | None = None

    def publish(
        self, name: MediaName, content: bytes, replacing: Precondition | None
    ) -> MemoryMedia:
        error, self.error = self.error, None
        if error is not None:
            raise error
        return super().publish(name, content, replacing)


@pytest.mark.parametrize(
    "error",
    [NoSpace(), Busy(5), OSError("broken"), StorageFailed("written", "read-only file system")],
    ids=str,
)
@pytest.mark.parametrize("remembered", [True, False])
def test_what_could_not_be_published_can_be_published_later(
    error: Exception, remembered: bool, nothing_left_behind: list[LogEvent]
) -> None:
    """Cases 10 and 14."""
    service = Service(FailingStore())
    upload = service.created(11, b"hello")
    service.store.error = error
    expected = type(error) if isinstance(error, MediaError) else InternalError
    with pytest.raises(expected):
        service.added(upload, 5, b" world")
    assert (service.content(), service.unfinished()) == (None, 1)
    service.store.error = error
    with pytest.raises(expected):
        service.look(upload)
    nothing_left_behind.clear()
    progress = service.look(upload) if remembered else service.added(upload, 11)
    assert (progress.offset, progress.stored) == (11, HELLO)
    assert (service.content(), service.unfinished()) == (WHOLE, 0)


@asynchronous
async def test_an_upload_whose_sync_failed_is_stored_after_its_bytes_were_sent_again(
    tmp_path: Path,
) -> None:
    """Cases 14 and 79: 515, then a look, as clients do. The look publishes nothing, because the
    kernel does not report lost bytes twice.
    """
    calls = FailingCalls()
    store = DirectoryStore(reactor, str(tmp_path / "media"), threads=3, calls=calls)
    store.start()
    try:
        service = Service(store)
        upload = (await service.creating(len(WHOLE), b"hello")).upload_id
        with (
            calls.armed(1, errno.EIO, lambda operation, _: operation == "fsync"),
            pytest.raises(StorageFailed),
        ):
            await service.adding(upload, 5, b" world")
        progress = await service.uploads.status(ME, upload)
        assert (progress.offset, progress.stored) == (0, None)  # nothing was synced before
        assert (await service.adding(upload, 0, WHOLE)).stored == HELLO
    finally:
        await store.stop()
    assert (tmp_path / "media" / str(HELLO)).read_bytes() == WHOLE


def test_where_no_space_is_left_what_fits_is_kept_and_goes_on_later() -> None:
    """Case 10."""
    service = Service(MemoryStore(capacity=100))
    upload = service.created(90)
    service.store_other(bytes(50), named("a/other.mp3"))
    coming = body(*[b"x" * 10] * 9, open_end=True, length=None)
    coming.end()
    with pytest.raises(NoSpace):
        result(service.uploads.append(ME, upload, UploadPart(0, coming)))
    offset = service.offset(upload)
    assert 0 <= offset <= 50
    with pytest.raises(NoSpace):  # it is declared: nothing of it has to come
        service.added(upload, offset, bytes(90 - offset))
    assert service.offset(upload) == offset
    result(service.store.delete(named("a/other.mp3")))
    assert service.added(upload, offset, b"x" * (90 - offset)).stored == HELLO
    assert service.content() == b"x" * 90


def test_where_there_is_no_space_for_it_no_upload_begins() -> None:
    service = Service(MemoryStore(capacity=100))
    with pytest.raises(NoSpace):
        service.created(101)
    assert service.unfinished() == 0


# The last one who comes


@pytest.mark.parametrize("checksum", [None, of_sha1(b" world")])
def test_a_part_that_hangs_is_superseded_by_a_look_and_its_bytes_are_kept(
    service: Service, checksum: Checksum | None
) -> None:
    """Case 28."""
    upload = service.created(11, b"hello")
    hanging = body(b" w", open_end=True, length=6)
    adding = outcome(service.uploads.append(ME, upload, UploadPart(5, hanging, checksum=checksum)))
    assert not adding
    offset = service.offset(upload)
    assert offset == (7 if checksum is None else 5)
    assert adding[0].check(Superseded)
    hanging.feed(b"LATE")  # from the old connection
    assert service.added(upload, offset, WHOLE[offset:]).stored == HELLO
    assert service.content() == WHOLE


def test_the_newest_of_many_parts_is_served(service: Service) -> None:
    """Case 28."""
    upload = service.created()
    adding = []
    for offset in range(5):
        coming = body(WHOLE[offset : offset + 1], open_end=True, length=11 - offset)
        adding.append(outcome(service.uploads.append(ME, upload, UploadPart(offset, coming))))
    assert [bool(each) for each in adding] == [True] * 4 + [False]
    assert all(each[0].check(Superseded) for each in adding[:-1])
    assert service.offset(upload) == 5
    assert service.added(upload, 5, b" world").stored == HELLO


def test_a_part_that_hangs_is_superseded_by_the_end(service: Service) -> None:
    """Case 30."""
    upload = service.created(11, b"hello")
    hanging = body(b" w", open_end=True, length=6)
    adding = outcome(service.uploads.append(ME, upload, UploadPart(5, hanging)))
    result(service.uploads.terminate(ME, upload))
    assert adding[0].check(Superseded)
    with pytest.raises(NotFound):
        service.look(upload)
    assert service.unfinished() == 0


def test_a_part_that_has_come_whole_is_not_broken_off(service: Service) -> None:
    upload = service.created(11)
    first = service.adding(upload, 0, b"hello")
    second = service.adding(upload, 5, b" world")
    assert (result(first).offset, result(second).stored) == (5, HELLO)


class PublishingStore(MemoryStore):
    """Holds each publish of a kept draft until `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Deferred[None]] = []
        inner = self.resumable

        class Drafts:
            def __getattr__(self, name: str) -> Any:
                return getattr(inner, name)

            def resume(_, *args: Any, **options: Any) -> Any:
                return self._holding(inner.resume(*args, **options))

        self.resumable = Drafts()

    def _holding(self, draft: Any) -> Any:
        publish = draft.publish

        def hold(*args: Any) -> Deferred[Any]:
            gate: Deferred[None] = Deferred()
            self.held.append(gate)
            return gate.addCallback(lambda _: publish(*args))

        draft.publish = hold
        return draft

    def go_on(self) -> None:
        held, self.held = self.held, []
        for gate in held:
            gate.callback(None)


def test_a_publish_is_not_broken_off_and_whoever_comes_waits_for_it() -> None:
    service = Service(PublishingStore())
    upload = service.created()
    adding = outcome(service.adding(upload, 0, WHOLE))
    looking = outcome(service.uploads.status(ME, upload))
    assert (adding, looking) == ([], [])
    service.store.go_on()
    assert adding == looking == [UploadProgress(upload, 11, 11, "a note", stored=HELLO)]


def test_a_part_does_not_wait_for_an_older_request_and_holds_nothing() -> None:
    """Case 84."""
    service = Service(PublishingStore())
    upload = service.created()
    adding = outcome(service.adding(upload, 0, WHOLE))
    looking = outcome(service.uploads.status(ME, upload))
    memory = BodyMemory()
    others = [Body(None, memory, Flow()) for _ in range(16)]
    for other in others:
        other.feed(bytes(17 << 10))
    allowance = memory.allowance
    for complete in (True, False):
        coming = Body(None, memory, Flow())
        coming.feed(bytes(50_000))
        assert memory.allowance < allowance
        if complete:
            coming.end()
        with pytest.raises(StillEnding):
            result(service.uploads.append(ME, upload, UploadPart(0, coming)))
        assert (memory.allowance, coming.outlives_connection) == (allowance, False)
    assert (adding, looking) == ([], []), "the one at work publishes, and the other waits for it"
    service.store.go_on()
    assert adding == looking == [UploadProgress(upload, 11, 11, "a note", stored=HELLO)]


def test_of_a_thousand_requests_that_come_during_a_publish_one_waits() -> None:
    """Case 84: a part without content may wait, as may the others."""
    service = Service(PublishingStore())
    upload = service.created(None)
    adding = outcome(service.adding(upload, 0, WHOLE, length=11))
    asked = []
    for number in range(1000):
        asking: Deferred[Any] = (
            service.uploads.status(ME, upload)
            if number % 2
            else service.adding(upload, 11, length=11)
        )
        asked.append(outcome(asking))
        assert len(service.library.running) == 3, "with the publish"
    assert all(each[0].check(Superseded) for each in asked[:-1])
    service.store.go_on()
    assert adding == asked[-1] == [UploadProgress(upload, 11, 11, "a note", stored=HELLO)]
    assert service.library.running == []


# Clients that leave


def test_a_part_whose_client_leaves_goes_on_to_its_end(service: Service) -> None:
    """Klein cancels its handler; the connection then fails the body."""
    upload = service.created()
    coming = body(b"hello", open_end=True, length=11)
    adding = service.uploads.append(ME, upload, UploadPart(0, coming))
    adding.cancel()
    with pytest.raises(CancelledError):
        result(adding)
    coming.fail(ConnectionLost())
    assert service.offset(upload) == 5


def test_the_last_part_is_published_though_nobody_waits_for_it() -> None:
    service = Service(PublishingStore())
    upload = service.created()
    adding = service.adding(upload, 0, WHOLE)
    adding.cancel()
    with pytest.raises(CancelledError):
        result(adding)
    quiet = outcome(service.library.drain())
    assert (quiet, service.content()) == ([], None)
    service.store.go_on()
    assert (quiet, service.content()) == ([None], WHOLE)


@pytest.mark.parametrize("ask", ["look", "end"])
def test_whoever_is_asked_something_does_it_though_nobody_waits(ask: str) -> None:
    service = Service(PublishingStore())
    upload = service.created()
    adding = outcome(service.adding(upload, 0, WHOLE))
    asked = (
        service.uploads.terminate(ME, upload)
        if ask == "end"
        else service.uploads.status(ME, upload)
    )
    asked.cancel()
    with pytest.raises(CancelledError):
        result(asked)
    service.store.go_on()
    assert adding[0].stored == HELLO
    if ask == "end":
        with pytest.raises(NotFound):
            service.look(upload)
    assert service.content() == WHOLE


def test_a_service_that_stops_waits_for_what_is_under_way(service: Service) -> None:
    """Case 47."""
    upload = service.created()
    coming = body(b"hello", open_end=True, length=11)
    adding = outcome(service.uploads.append(ME, upload, UploadPart(0, coming)))
    quiet = outcome(service.library.drain())
    assert quiet == []
    coming.fail(ConnectionLost())
    assert (quiet, len(adding)) == ([None], 1)
    assert service.offset(upload) == 5


def test_what_has_been_written_is_dropped_from_memory(service: Service) -> None:
    """Whatever becomes of a request, its body holds nothing after it."""
    memory = BodyMemory()
    whole = memory.allowance
    upload = service.created(1 << 20)
    for offset, fails in ((0, False), (7, False), (20_000, True)):
        coming = Body(None, memory, Flow())
        adding = outcome(service.uploads.append(ME, upload, UploadPart(offset, coming)))
        coming.feed(bytes(20_000))
        if fails:
            coming.fail(ConnectionLost())
        else:
            coming.end()
        assert adding
    others = [Body(None, memory, Flow()) for _ in range(16)]
    for other in others:
        other.feed(bytes(17 << 10))
    assert memory.allowance == min(whole, (16 << 20) // 32)


# How many


def test_as_many_as_may_upload_do_and_one_more_is_told_to_come_back() -> None:
    """Its upload stays."""
    service = Service(max_uploads=1)
    first, second = service.created(), service.created(name=named("a/second.mp3"))
    coming = body(b"hello", open_end=True, length=11)
    adding = outcome(service.uploads.append(ME, first, UploadPart(0, coming)))
    with pytest.raises(Busy):
        service.added(second, 0, b"hello")
    with pytest.raises(Busy):
        service.created(11, b"hello", name=named("a/third.mp3"))
    assert service.offset(second) == 0, "to look needs no place"
    assert service.unfinished() == 2
    coming.fail(ConnectionLost())
    assert adding
    assert service.added(second, 0, b"hello").offset == 5


def test_a_caller_may_leave_some_unfinished_and_no_more() -> None:
    service = Service(max_unfinished=2)
    uploads = [service.created(name=named(f"a/{n}.mp3")) for n in range(2)]
    with pytest.raises(TooManyUnfinished) as caught:
        service.created()
    assert caught.value.status == 429
    service.created(caller=OTHER)
    service.added(uploads[0], 0, WHOLE)
    service.created()
    with pytest.raises(TooManyUnfinished):
        service.created()
    result(service.uploads.terminate(ME, uploads[1]))
    service.created(name=named("a/more.mp3"))
    with pytest.raises(TooManyUnfinished):
        service.created()


def test_uploads_that_end_badly_do_not_count() -> None:
    service = Service(max_unfinished=1, checking=AudioCheckMode.REJECT)
    for _ in range(3):
        upload = service.created(11, b"hello")
        with pytest.raises(NotAudio):
            service.added(upload, 5, b" world")
        upload = service.created(11, b"hello", sha256=SHA256)
        with pytest.raises(DigestMismatch):
            service.added(upload, 5, b" wOrld")
        with pytest.raises(TooLarge):
            service.created(5, WHOLE)
    service.created()


def test_what_is_found_at_the_start_counts() -> None:
    service = Service(max_unfinished=2)
    upload = service.created()
    service.created(caller=OTHER)
    following = Service(service.store, max_unfinished=2)
    following.uploads.start(Clock())
    following.created(name=named("a/second.mp3"))
    with pytest.raises(TooManyUnfinished):
        following.created()
    assert following.added(upload, 0, WHOLE).stored == HELLO
    following.created(name=named("a/third.mp3"))
    following.uploads.stop()


# How long


def test_what_nobody_adds_to_is_dropped_when_it_has_expired() -> None:
    """Case 13."""
    service = Service(max_unfinished=1)
    clock = Clock()
    service.uploads.start(clock)
    progress = result(service.creating(11, b"hello"))
    assert progress.expires_s is not None
    service.now_s = progress.expires_s
    clock.advance(360)
    assert service.offset(progress.upload_id) == 5, "what was said is kept, by any clock"
    service.now_s = progress.expires_s + 100
    clock.advance(360)
    with pytest.raises(NotFound):
        service.look(progress.upload_id)
    service.created()
    service.uploads.stop()
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("step_s", [86400, -86400, 365 * 86400, -365 * 86400, 1, -1])
def test_a_wall_clock_that_is_set_makes_no_upload_expire_and_none_stay(step_s: int) -> None:
    """Case 88: before the first sweep, and between two. What is shown is wall time."""
    service = Service()
    clock = Clock()
    service.uploads.start(clock)
    early = service.created()
    for _ in range(2):
        service.stepped_s += step_s
        service.now_s += 360
        clock.advance(360)
        progress = result(service.uploads.status(ME, early))
        assert progress.expires_s is not None
        assert progress.expires_s <= service.now_s + service.stepped_s + 3600
    late = service.created()
    service.now_s += 2800
    clock.advance(360)
    service.look(early)
    service.now_s += 3600
    clock.advance(360)
    with pytest.raises(NotFound):
        service.look(early)
    service.now_s += 3600
    clock.advance(360)
    with pytest.raises(NotFound):
        service.look(late)
    service.uploads.stop()


@pytest.mark.parametrize("step_s", [86400, -86400, 365 * 86400, -365 * 86400, 600, -600])
@pytest.mark.parametrize("is_of_another_process", [False, True])
def test_when_an_upload_expires_is_told_by_the_wall_clock_of_now(
    step_s: int, is_of_another_process: bool
) -> None:
    """Case 88: also when that was set after the last sweep."""
    before = Service()
    upload = before.created(11, b"hello")
    service = Service(before.store) if is_of_another_process else before
    created_s = service.now_s
    clock = Clock()
    service.uploads.start(clock)
    for advance_s in (0, 100, 360):  # the last one is to the next sweep
        service.now_s += advance_s
        clock.advance(advance_s)
        expires_s = created_s + 3600 + service.stepped_s
        assert service.look(upload).expires_s == pytest.approx(expires_s, abs=5)
        service.stepped_s = step_s
    service.uploads.stop()


@pytest.mark.parametrize("part", [b"", b"hello"])
def test_what_was_written_in_the_life_of_the_process_expires_by_the_time_that_passed(
    part: bytes,
) -> None:
    """Case 88: whatever the times of files say, which may be of another clock."""
    service = Service()
    clock = Clock()
    service.uploads.start(clock)
    upload = service.created()
    service.now_s += 3000
    clock.advance(360)
    result(service.adding(upload, 0, part))
    for _ in range(9):
        service.store.resumable.uploads[upload].modified_ns = 0
        service.now_s += 360
        clock.advance(360)
        service.look(upload)
    service.store.resumable.uploads[upload].modified_ns = 0
    service.now_s += 600
    clock.advance(360)
    with pytest.raises(NotFound):
        service.look(upload)
    assert service.uploads._quota.written_since(0) == set()
    service.uploads.stop()


def test_what_is_being_written_to_does_not_expire() -> None:
    """Case 13."""
    service = Service()
    clock = Clock()
    service.uploads.start(clock)
    upload = service.created()
    coming = body(b"hello", open_end=True, length=11)
    adding = outcome(service.uploads.append(ME, upload, UploadPart(0, coming)))
    service.now_s += 10_000
    clock.advance(360)
    coming.feed(b" world")
    coming.end()
    assert adding[0].stored == HELLO
    service.uploads.stop()


def test_a_sweep_that_fails_is_tried_again(nothing_left_behind: list[LogEvent]) -> None:
    service = Service()
    clock = Clock()
    upload = service.created()
    expire = service.store.resumable.expire
    service.store.resumable.expire = lambda *_: 1 / 0
    service.uploads.start(clock)
    clock.advance(360)
    assert len(nothing_left_behind) == 2
    nothing_left_behind.clear()
    service.store.resumable.expire = expire
    service.now_s += 10_000
    clock.advance(360)
    with pytest.raises(NotFound):
        service.look(upload)
    service.uploads.stop()


def test_to_stop_before_the_start_is_no_fault(service: Service) -> None:
    service.uploads.stop()


# What became of it


def test_a_file_that_was_deleted_is_not_there_any_more(service: Service) -> None:
    upload = service.created(11, WHOLE)
    result(service.store.delete(HELLO))
    for _ in range(2):
        with pytest.raises(NotFound):
            service.look(upload)
    with pytest.raises(NotFound):
        service.added(upload, 11)
    assert service.content() is None


def test_another_file_of_another_size_is_not_what_was_uploaded(service: Service) -> None:
    upload = service.created(11, WHOLE)
    result(service.store.delete(HELLO))
    service.store_other(b"another")
    with pytest.raises(NotFound):
        service.look(upload)


def test_another_file_of_the_same_size_is_not_what_was_uploaded(service: Service) -> None:
    """Its etag tells, not its size."""
    upload = service.created(11, WHOLE)
    for other in (b"hello there", WHOLE):
        result(service.store.delete(HELLO))
        service.store_other(other)
        for _ in range(2):
            with pytest.raises(NotFound, match="no longer there"):
                service.look(upload)
        for piece in (b"", b"x"):
            with pytest.raises(NotFound, match="no longer there"):
                service.added(upload, 11, piece)
        assert service.content() == other


@pytest.mark.parametrize("begins", [True, False], ids=["at its start", "at its end"])
def test_what_was_recognised_is_that_file_and_no_other(service: Service, begins: bool) -> None:
    if begins:
        service.store_other(WHOLE)
    upload = service.created(11, sha256=SHA256)
    if not begins:
        service.store_other(WHOLE)
        assert service.added(upload, 0, WHOLE).stored == HELLO
    assert service.look(upload).stored == HELLO
    result(service.store.delete(HELLO))
    service.store_other(WHOLE)
    with pytest.raises(NotFound, match="no longer there"):
        service.look(upload)


@asynchronous
@pytest.mark.parametrize("killed", [False, True])
async def test_on_a_disk_another_file_of_the_same_size_is_not_what_was_uploaded(
    tmp_path: Path, killed: bool
) -> None:
    """Also when the service was killed between its publish and the note of that."""
    root = tmp_path / "media"
    async with machine(root) as uploads:
        progress = await uploads.create(
            ME, UploadSpec(HELLO, 12, None, ME.key, ""), UploadPart(0, body(WHOLE))
        )
        upload = progress.upload_id
        if not killed:
            assert (await uploads.append(ME, upload, UploadPart(11, body(b"!")))).stored == HELLO
    if killed:
        bytes_ = root / f".twistedmedia/uploads/{upload}.bytes"
        with bytes_.open("ab") as file:
            file.write(b"!")
        (root / "prompts/en").mkdir(parents=True)
        (root / "prompts/en/hello.mp3").hardlink_to(bytes_)
    async with machine(root) as uploads:
        for _ in range(2):
            assert (await uploads.status(ME, upload)).stored == HELLO
        assert (await uploads.append(ME, upload, UploadPart(12, body()))).stored == HELLO
        await uploads.library.store.delete(HELLO)
        with pytest.raises(NotFound):
            await uploads.status(ME, upload)
        draft = uploads.library.store.begin()
        await draft.append([b"hello there!"])
        await draft.publish(HELLO)
        for _ in range(2):
            with pytest.raises(NotFound, match="no longer there"):
                await uploads.status(ME, upload)
    assert (root / "prompts/en/hello.mp3").read_bytes() == b"hello there!"


def test_to_end_an_upload_leaves_the_file_that_it_has_become(service: Service) -> None:
    upload = service.created(11, WHOLE)
    result(service.uploads.terminate(ME, upload))
    assert service.content() == WHOLE
    with pytest.raises(NotFound):
        service.look(upload)


@pytest.fixture(autouse=True)
def no_turn_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """And no space that nobody has taken."""
    yield
    service = request.node.funcargs.get("service")
    if service is not None:
        assert service.uploads._takeover._lines == {}
        assert service.library.upload_slots.used == 0
        for upload in list(result(service.store.resumable.callers())):
            result(service.uploads.terminate(ME, upload))
        stored = sum(media.size for media in service.store._files.values())
        assert service.store._taken == stored

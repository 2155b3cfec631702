"""What is judged of one file when it is whole: its digest, the file that it replaces, its audio."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.audio.samples import chunk, fmt, frames, riff, wav
from tests.library.uploads import HELLO, WatchedStore, a_library, arriving, taken
from tests.support import asynchronous, named
from twistedmedia.errors import (
    AlreadyExists,
    DigestMismatch,
    FormatNotSupported,
    MediaError,
    NoSpace,
    NotAudio,
    PreconditionFailed,
    TooLarge,
)
from twistedmedia.library.library import Library
from twistedmedia.library.upload import MIN_PREPARED_BYTES
from twistedmedia.library.upload_limits import AudioCheckMode
from twistedmedia.names import MediaName
from twistedmedia.store.preconditions import Precondition

TONE = named("prompts/en/tone.wav")
MP3 = frames(3)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def sent(
    library: Library,
    content: bytes,
    name: MediaName = HELLO,
    *,
    digest: str | None = None,
    replacing: Precondition | None = None,
    declared: int | None = None,
) -> Any:
    """An arrival of `content` as a front end makes it, which may know the size before."""
    with arriving(library, name, declared=declared, replacing=replacing) as arrival:
        arrival.sha256 = digest
        await arrival.prepare()
        await arrival.write([content])
        await arrival.end()
        await library.publish([arrival])
    return arrival


# Digests


@asynchronous
async def test_what_has_the_declared_digest_is_stored() -> None:
    library = a_library()
    arrival = await sent(library, MP3, digest=sha256(MP3))
    assert (arrival.failure, arrival.identical) == (None, False)
    assert arrival.stored.sha256 == sha256(MP3)


@asynchronous
async def test_what_has_another_digest_never_gets_its_name() -> None:
    library = a_library()
    arrival = await sent(library, MP3, digest=sha256(b"something else"))
    assert isinstance(arrival.failure, DigestMismatch)
    assert "publish" not in library.store.asked
    assert (library.store.content(HELLO), library.store.drafts) == (None, 0)


@asynchronous
@pytest.mark.parametrize("declared", [None, MIN_PREPARED_BYTES], ids=["unknown", "large"])
async def test_what_is_there_already_is_recognised_before_a_byte_is_written(
    declared: int | None,
) -> None:
    """Where it is looked for before: `test_a_name_is_looked_at_first_where_...` says when."""
    library = a_library()
    first = await sent(library, MP3)
    again = await sent(library, MP3, digest=sha256(MP3), declared=declared)
    assert (again.failure, again.identical) == (None, True)
    assert again.stored == first.stored
    assert library.store.asked.count("append") == 1
    assert library.store.drafts == 0


@asynchronous
async def test_a_small_file_is_recognised_when_it_is_published() -> None:
    library = a_library()
    first = await sent(library, MP3)
    again = await sent(library, MP3, digest=sha256(MP3), declared=len(MP3))
    assert (again.failure, again.identical, again.stored) == (None, True, first.stored)


@asynchronous
async def test_another_content_is_not_recognised() -> None:
    library = a_library()
    await sent(library, MP3)
    other = frames(4)
    arrival = await sent(library, other, digest=sha256(other))
    assert isinstance(arrival.failure, AlreadyExists)
    assert not arrival.identical
    assert library.store.content(HELLO) == MP3


@asynchronous
async def test_that_a_name_is_taken_is_judged_before_the_digest() -> None:
    library = a_library()
    await sent(library, MP3)
    arrival = await sent(library, frames(4), digest=sha256(b""), declared=1)
    assert isinstance(arrival.failure, AlreadyExists)


# Replacing


def only(etag: str) -> Precondition:
    """The precondition that a file has this tag."""
    return Precondition(if_match=frozenset({etag}))


@asynchronous
async def test_a_file_takes_the_place_of_the_one_that_is_meant() -> None:
    library = a_library()
    first = await sent(library, MP3)
    arrival = await sent(library, frames(4), replacing=only(first.stored.etag))
    assert arrival.failure is None
    assert arrival.stored.etag != first.stored.etag
    assert library.store.content(HELLO) == frames(4)


@asynchronous
async def test_another_file_than_the_one_that_is_meant_stays() -> None:
    library = a_library()
    await sent(library, MP3)
    arrival = await sent(library, frames(4), replacing=only('"another"'))
    assert isinstance(arrival.failure, PreconditionFailed)
    assert library.store.asked.count("append") == 1  # of the first
    assert library.store.content(HELLO) == MP3


@asynchronous
async def test_a_replacement_of_which_the_answer_was_lost_is_recognised() -> None:
    """The file that was meant is gone: what has its name is what came then."""
    library = a_library()
    first = await sent(library, MP3)
    is_first = only(first.stored.etag)
    replaced = await sent(library, frames(4), replacing=is_first, digest=sha256(frames(4)))
    again = await sent(library, frames(4), replacing=is_first, digest=sha256(frames(4)))
    assert (again.failure, again.identical, again.stored) == (None, True, replaced.stored)


@asynchronous
async def test_a_replacement_with_another_digest_leaves_the_file() -> None:
    library = a_library()
    await sent(library, MP3)
    arrival = await sent(library, frames(4), replacing=Precondition(), digest=sha256(b""))
    assert isinstance(arrival.failure, DigestMismatch)
    assert library.store.content(HELLO) == MP3


# Audio

CUT_OFF = wav(3)[:-100]
PROBLEM = "header says 0:03, data ends at 0:02"


@asynchronous
@pytest.mark.parametrize("checking", AudioCheckMode)
@pytest.mark.parametrize(
    ("content", "name"), [(MP3, HELLO), (wav(1), TONE)], ids=["an MP3", "a WAV"]
)
async def test_audio_is_stored(checking: AudioCheckMode, content: bytes, name: MediaName) -> None:
    arrival = await sent(a_library(checking=checking), content, name)
    assert (arrival.failure, arrival.problem) == (None, None)
    assert arrival.stored is not None


@asynchronous
@pytest.mark.parametrize(
    ("checking", "problem"), [(AudioCheckMode.OFF, None), (AudioCheckMode.FLAG, PROBLEM)], ids=str
)
async def test_what_is_cut_off_is_stored_and_flagged_unless_nobody_looks(
    checking: AudioCheckMode, problem: str | None
) -> None:
    library = a_library(checking=checking)
    arrival = await sent(library, CUT_OFF, TONE)
    assert (arrival.failure, arrival.problem) == (None, problem)
    assert library.store.content(TONE) == CUT_OFF


@asynchronous
async def test_what_is_cut_off_never_gets_its_name_where_it_is_to_be_rejected() -> None:
    library = a_library(checking=AudioCheckMode.REJECT)
    arrival = await sent(library, CUT_OFF, TONE)
    assert isinstance(arrival.failure, NotAudio)
    assert PROBLEM in str(arrival.failure)
    assert (library.store.content(TONE), library.store.drafts) == (None, 0)
    assert "publish" not in library.store.asked


@asynchronous
async def test_a_replacement_that_is_no_audio_leaves_the_file() -> None:
    library = a_library(checking=AudioCheckMode.REJECT)
    await sent(library, wav(1), TONE)
    arrival = await sent(library, MP3, TONE, replacing=Precondition())
    assert isinstance(arrival.failure, NotAudio)
    assert library.store.content(TONE) == wav(1)


@asynchronous
async def test_an_empty_file_is_no_audio() -> None:
    assert (await sent(a_library(), b"", TONE)).problem == "it is empty"
    arrival = await sent(a_library(checking=AudioCheckMode.REJECT), b"", TONE)
    assert isinstance(arrival.failure, NotAudio)


@asynchronous
async def test_the_words_for_a_recording_that_ends_early() -> None:
    """As the issue has them: ten minutes were promised, and 4:12 came."""
    second = 2 * 8000
    content = riff(fmt(rate=8000), chunk(b"data", bytes(252 * second), 600 * second))
    arrival = await sent(a_library(), content, TONE)
    assert arrival.problem == "header says 10:00, data ends at 4:12"


@asynchronous
async def test_a_form_is_judged_in_parts() -> None:
    """One that is no audio holds nobody else up."""
    library = a_library(checking=AudioCheckMode.REJECT)
    contents = [(named("a/one.wav"), wav(1)), (named("a/two.wav"), CUT_OFF), (HELLO, MP3)]
    arrivals = [await sent(library, content, name) for name, content in contents]
    assert [arrival.stored is not None for arrival in arrivals] == [True, False, True]


# The order of judgement


JUDGEMENTS: list[type[MediaError]] = [
    FormatNotSupported,
    TooLarge,
    NoSpace,
    AlreadyExists,
    DigestMismatch,
    NotAudio,
]


@asynchronous
@pytest.mark.parametrize("first", range(len(JUDGEMENTS)))
@pytest.mark.parametrize("declared", [False, True])
async def test_of_all_that_is_wrong_the_first_is_told(first: int, declared: bool) -> None:
    """The contract's order: format, size, space, exists, digest, audio. All that comes behind
    the first is wrong as well. Whether there is space for an unknown size shows when it is
    written, which a file whose name is taken is not.
    """
    expected = JUDGEMENTS[first]
    if expected is NoSpace and not declared:
        expected = AlreadyExists
    wrong = set(JUDGEMENTS[first:])
    content = bytes(MIN_PREPARED_BYTES)
    capacity = 2 * len(content) if NoSpace not in wrong else len(content) // 2
    store = WatchedStore(capacity)
    name = TONE if FormatNotSupported not in wrong else named("a/x.exe")
    if AlreadyExists in wrong:
        await sent(a_library(store), b"first", TONE)
    limit = len(content) if TooLarge not in wrong else len(content) - 1
    arrival = await sent(
        a_library(store, checking=AudioCheckMode.REJECT, max_upload=limit),
        content,
        name,
        digest=sha256(content if DigestMismatch not in wrong else b"other"),
        declared=len(content) if declared else None,
    )
    assert type(arrival.failure) is expected


@asynchronous
async def test_what_failed_before_is_not_looked_at() -> None:
    """`problem` is about what is stored, or refused for it."""
    arrival = await taken(a_library(max_upload=10), [bytes(100)], TONE)
    assert isinstance(arrival.failure, TooLarge)
    assert arrival.problem is None

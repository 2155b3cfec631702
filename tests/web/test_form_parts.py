"""Files of forms: when names are checked, what failed files cost, and how a form ends."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, ensureDeferred

from tests.library.test_library import logged  # noqa: F401  # a fixture
from tests.library.uploads import SOURCE, WatchedStore, a_library
from tests.support import asynchronous
from twistedmedia.errors import Busy, Malformed
from twistedmedia.fairness.loop_queue import PIECE_BYTES
from twistedmedia.http.forms import FormEvent, PartBegins, PartEnds
from twistedmedia.library.upload import MIN_PREPARED_BYTES
from twistedmedia.web.form_parts import FormParts

DIRECTORY = [PartBegins("directory", None), b"a", PartEnds()]
FILENAME = [PartBegins("filename", None), b"c.wav", PartEnds()]
LARGE = b"x" * PIECE_BYTES


class Form:
    """The parts of one form, with counters of their calls."""

    def __init__(self, max_open: int = 1 << 30) -> None:
        """At most `max_open` files may be open."""
        self.store = WatchedStore()
        self.library = a_library(self.store)
        self.turns = self.dropping_turns = self.open_files = 0
        self._max_open = max_open
        self.parts = FormParts(
            lambda: self.library.begin(SOURCE),
            self._open_file,
            self._turn,
            self._dropping_turn,
        )

    async def take(self, *parts: list[FormEvent]) -> None:
        for part in parts:
            await self.parts.feed(part)

    async def publish(self) -> list[int | None]:
        """Publish all files, and return the codes of those that failed."""
        await self.parts.name_files()
        await self.library.publish(self.parts.files)
        return [file.failure.code if file.failure else None for file in self.parts.files]

    async def _open_file(self) -> None:
        if self.open_files == self._max_open:
            raise Busy(1)
        self.open_files += 1

    async def _turn(self) -> None:
        self.turns += 1

    async def _dropping_turn(self) -> None:
        self.dropping_turns += 1


def file(directory: str, filename: str, *content: bytes) -> list[FormEvent]:
    return [PartBegins(directory, filename), *content, PartEnds()]


def text(name: str, *content: bytes) -> list[FormEvent]:
    return [PartBegins(name, None), *content, PartEnds()]


# The parts before the last file, that file, and the code of its failure.
FAILS_AT_ONCE: dict[str, tuple[list[list[FormEvent]], list[FormEvent], int]] = {
    "its filename is not the only one": ([file("a", "b.wav")], file("a", "x", b"content"), 504),
    "nor is a bad one": ([file("a", "b.wav")], file("a", ".x.wav", b"content"), 505),
    "nor is a missing one": ([file("a", "b.wav")], file("a", "", b"content"), 503),
    "the filename is given": ([text("filename", b"x")], file("a", "b.wav", b"content"), 504),
    "the directory is given": ([text("directory", b"..")], file("a", "b.wav", b"content"), 505),
    "an empty directory is given": ([text("directory")], file("a", "b.wav", b"content"), 503),
    "both are given": ([DIRECTORY, text("filename", b"..")], file("a", "b.wav", b"content"), 505),
}


@asynchronous
@pytest.mark.parametrize(
    ("before", "last", "code"), FAILS_AT_ONCE.values(), ids=FAILS_AT_ONCE.keys()
)
async def test_a_name_that_cannot_become_valid_fails_before_the_content(
    before: list[list[FormEvent]], last: list[FormEvent], code: int
) -> None:
    """Case 85. No file is opened for the content."""
    form = Form()
    await form.take(*before, last)
    assert (form.store.asked, form.store.drafts, form.open_files) == ([], 0, 0)
    assert (await form.publish())[-1] == code
    assert "append" not in form.store.asked


CAN_BECOME_VALID: dict[str, tuple[list[list[FormEvent]], list[FormEvent]]] = {
    "a filename for the only file": ([file("a", "x", b"content")], FILENAME),
    "a missing filename for the only file": ([file("a", "", b"content")], FILENAME),
    "a filename, and the directory was given": ([DIRECTORY, file("..", "x", b"y")], FILENAME),
    "a directory for one file": ([file("..", "b.wav", b"content")], DIRECTORY),
    "a directory for all files": (
        [file("..", "b.wav", b"content"), file(".", "c.wav", b"content")],
        DIRECTORY,
    ),
    "a directory, and the filename was given": ([FILENAME, file("..", "x", b"y")], DIRECTORY),
    "a filename, and a field was untouched": ([file("a", ""), file("a", "x", b"y")], FILENAME),
}


@asynchronous
@pytest.mark.parametrize(("before", "last"), CAN_BECOME_VALID.values(), ids=CAN_BECOME_VALID.keys())
async def test_a_name_that_a_later_part_can_make_valid_does_not_fail(
    before: list[list[FormEvent]], last: list[FormEvent]
) -> None:
    form = Form()
    await form.take(*before, last)
    assert set(await form.publish()) == {None}


@asynchronous
async def test_files_without_content_open_nothing_before_they_are_published() -> None:
    """Case 85."""
    form = Form(max_open=1)
    await form.take(*(file("..", f"{n}.wav") for n in range(256)))
    assert (form.store.asked, form.store.drafts, form.open_files) == ([], 0, 0)
    assert await form.publish() == [505] * 256
    assert form.store.asked == []


@asynchronous
async def test_only_the_file_that_cannot_be_opened_fails() -> None:
    form = Form(max_open=1)
    await form.take(file("a", "b.wav", b"x"), file("a", "c.wav", b"x"), file("a", "d.wav"))
    assert await form.publish() == [None, 514, None]


@asynchronous
@pytest.mark.parametrize(
    ("size", "asked"),
    [(MIN_PREPARED_BYTES - 1, ["append"]), (MIN_PREPARED_BYTES, ["append", "seal"])],
)
async def test_a_large_file_is_sealed_before_the_rest_of_the_form_is_received(
    size: int, asked: list[str]
) -> None:
    """A small one is sealed when it is published, in the same job."""
    form = Form()
    await form.take(file("a", "b.wav", b"x" * size))
    assert form.store.asked == asked


@asynchronous
@pytest.mark.parametrize(
    "dropped",
    [text("other", *[LARGE] * 8), [*text("directory", b".."), *file("a", "b.wav", *[LARGE] * 8)]],
    ids=["a text", "a file that has failed"],
)
async def test_content_that_is_not_needed_is_dropped_in_turns(dropped: list[FormEvent]) -> None:
    """Case 85."""
    form = Form()
    await form.take(dropped)
    assert 7 <= form.dropping_turns <= 8
    assert form.open_files == 0


@asynchronous
async def test_content_of_stored_files_takes_no_dropping_turns() -> None:
    form = Form()
    await form.take(file("a", "b.wav", *[LARGE] * 8), text("directory", b"c"))
    assert form.dropping_turns == 0


@asynchronous
async def test_files_are_named_in_turns() -> None:
    """Case 85."""
    form = Form()
    await form.take(*(file("a", f"{n}.wav") for n in range(256)))
    form.turns = 0
    await form.parts.name_files()
    assert form.turns == 255


@asynchronous
async def test_a_form_that_ends_early_drops_its_files_in_turns_and_logs_one_line(
    logged: list[str],  # noqa: F811
) -> None:
    """Case 85."""
    form = Form()
    await form.take(*(file("a", f"{n}.wav", b"x") for n in range(256)))
    assert form.store.drafts == 256
    form.turns = 0
    await form.parts.abort(Malformed("it ends early"))
    assert (form.store.drafts, form.turns) == (0, 256)
    (line,) = logged
    assert "'a/0.wav' and 255 more of a form" in line
    assert "it ends early" in line


@asynchronous
async def test_a_form_that_is_cancelled_while_its_only_file_is_written_logs_the_name(
    logged: list[str],  # noqa: F811
) -> None:
    form = Form()
    form.store = WatchedStore(holding=("append",))
    form.library = a_library(form.store)

    async def receive() -> None:
        try:
            await form.take(file("a", "b.wav", b"x"))
        except CancelledError:
            await form.parts.abort(Malformed("the client left"))

    received = ensureDeferred(receive())
    assert not received.called
    received.cancel()
    await received
    (line,) = logged
    assert "a/b.wav" in line


@asynchronous
async def test_an_empty_file_field_is_not_logged_when_a_form_ends(logged: list[str]) -> None:  # noqa: F811
    form = Form()
    await form.take(file("none", ""))
    await form.take(file("a", "b.wav", b"x"))
    form.parts.files[0].begin_publishing()
    await form.parts.abort(Malformed("it ends early"))
    assert (form.store.drafts, logged) == (1, [])


@asynchronous
async def test_a_form_that_is_being_published_keeps_its_files(logged: list[str]) -> None:  # noqa: F811
    form = Form()
    await form.take(file("a", "b.wav", b"x"))
    form.parts.files[0].begin_publishing()
    await form.parts.abort(Malformed("it ends early"))
    assert (form.store.drafts, logged) == (1, [])

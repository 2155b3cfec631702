"""The check of contents, by a table and with any bytes."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audio.cases import CASES, Case
from tests.audio.samples import chunk, declaring, fmt, frames, id3, noise, riff, wav
from twistedmedia.audio.verdict import AudioCheck
from twistedmedia.formats import MEDIA_TYPES, RAW


def problem_of(content: bytes, extension: str, *cuts: int) -> str | None:
    """The verdict on a content that is fed in pieces, which are cut at `cuts`."""
    check = AudioCheck()
    begin = 0
    for end in (*sorted(cuts), len(content)):
        check.feed(content[begin:end])
        begin = end
    return check.problem(extension)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_verdict_is_the_one_in_the_table(case: Case) -> None:
    assert problem_of(case.content, case.extension) == case.problem


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_verdict_does_not_depend_on_the_cuts(case: Case) -> None:
    size = len(case.content)
    # A small content byte by byte, and so the beginning of a large one.
    assert problem_of(case.content, case.extension, *range(min(size, 40_000))) == case.problem
    for step in (3, 1000, 4096, 65_536, 262_144):
        if size // step < 50_000:
            cuts = range(step, size, step)
            assert problem_of(case.content, case.extension, *cuts) == case.problem
    random = Random(size)
    for _ in range(10):
        cuts_somewhere = [random.randrange(size + 1) for _ in range(random.randrange(1, 9))]
        assert problem_of(case.content, case.extension, *cuts_somewhere) == case.problem


@pytest.mark.parametrize(
    ("content", "extension"),
    [
        (declaring(3), "mp3"),
        (id3(5) + frames(3), "mp3"),
        (riff(fmt(), chunk(b"LIST", b"abc"), chunk(b"data", noise(64))), "wav"),
    ],
    ids=["mp3", "tagged", "wav"],
)
def test_a_small_file_that_is_cut_off_anywhere_is_detected(content: bytes, extension: str) -> None:
    assert problem_of(content, extension) is None
    whole_frames = {len(content) - 417 * count for count in range(4)}
    for end in range(len(content)):
        problem = problem_of(content[:end], extension)
        # After a complete frame, only a declared size tells that others are missing.
        if extension == "wav" or end not in whole_frames:
            assert problem is not None, end


@given(
    st.lists(
        st.sampled_from(
            [
                b"RIFF",
                b"RF64",
                b"WAVE",
                b"fmt ",
                b"data",
                b"ds64",
                b"ID3",
                b"TAG",
                b"APETAGEX",
                b"Xing",
                b"\xff\xfb\x90\x00",
                b"\xff\xf3\x40\xc0",
                b"\xff\xff\xff\xff",
                b"\0\0\0\0",
                b"\x10\0\0\0",
                fmt(),
                id3(3),
                frames(2),
                wav(0.01),
                bytes(3000),
                noise(500),
                b"LYRICSBEGIN",
                b"OggS\0\2",
                b"\x7f\x7f\x7f\x7f",
            ]
        )
        | st.binary(max_size=40),
        max_size=12,
    ).map(b"".join),
    st.sampled_from(sorted(MEDIA_TYPES)),
    st.lists(st.integers(0, 40_000), max_size=4),
)
@settings(max_examples=400)
def test_any_bytes_have_one_verdict_in_any_pieces(
    content: bytes, extension: str, cuts: list[int]
) -> None:
    whole = problem_of(content, extension)
    assert whole is None or (whole.isprintable() and len(whole) < 100)
    assert problem_of(content, extension, *[min(cut, len(content)) for cut in cuts]) == whole


@pytest.mark.parametrize("extension", ["mp3", "wav"])
def test_the_verdict_can_be_read_again(extension: str) -> None:
    check = AudioCheck()
    check.feed(frames(3)[:-1])
    assert check.problem(extension) == check.problem(extension) is not None


def test_there_is_a_verdict_for_every_known_format() -> None:
    for extension in MEDIA_TYPES:
        assert problem_of(b"", extension) == "it is empty"
        # Raw samples can be any bytes (case 72).
        assert (problem_of(noise(99, 1), extension) is None) == (extension in RAW)

"""Where a content ends, wherever it is cut on its way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.connection import chunked
from twistedmedia.fairness.pace import MAX_BURST, MAX_PER_S, TINY_BYTES
from twistedmedia.http.framing import BrokenFraming, Chunked, Counted
from twistedmedia.http.heads import MAX_LENGTH_BYTES


def fed(
    framing: Counted | Chunked, received: bytes, cuts: list[int]
) -> tuple[bytes, bytes | None, bool]:
    """The content, what follows it, and whether the framing broke."""
    content, start = b"", 0
    for end in [*sorted({cut for cut in cuts if 0 < cut < len(received)}), len(received)]:
        while start < end:
            try:
                taken = framing.feed(received[start:end])
            except BrokenFraming as error:
                return content + error.content, None, True
            assert taken.size > 0
            content += taken.content
            start += taken.size
            if taken.is_end:
                return content, received[start:], False
    return content, None, False


def byte_by_byte(received: bytes) -> list[int]:
    return list(range(len(received)))


cuts = st.lists(st.integers(0, 300), max_size=12)


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=100), st.binary(max_size=20), cuts)
def test_content_of_a_length_ends_after_it(content: bytes, rest: bytes, cuts: list[int]) -> None:
    assert fed(Counted(len(content)), content + rest, cuts) == (content, rest, False)
    assert fed(Counted(len(content) + 1), content, cuts) == (content, None, False)


def test_tiny_pieces_of_a_content_of_a_length_are_refused_as_tiny_chunks_are() -> None:
    """Case 85. TLS records of one byte are such pieces."""
    now_s = 0.0
    framing = Counted(100_000, lambda: now_s)
    for _ in range(MAX_BURST):
        framing.feed(b"a")
    now_s = 1.0
    for _ in range(MAX_PER_S):
        framing.feed(b"a")
    for _ in range(1000):
        framing.feed(bytes(TINY_BYTES))
    with pytest.raises(BrokenFraming, match="send larger ones"):
        framing.feed(b"a")


@settings(max_examples=200)
@given(st.binary(max_size=100), st.integers(1, 40), st.binary(max_size=20), cuts)
def test_content_in_chunks_ends_with_the_last(
    content: bytes, size: int, rest: bytes, cuts: list[int]
) -> None:
    received = chunked(content, size)
    assert fed(Chunked(), received + rest, cuts) == (content, rest, False)
    assert fed(Chunked(), received[:-1], cuts)[1:] == (None, False)


WHOLE = [
    (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
    (b"0003\r\nabc\r\n000\r\n\r\n", b"abc"),
    (b"A\r\n0123456789\r\na\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", b"0123456789" + b"\r\n" * 5),
    (b'3;a;b=c;d="e"\r\nabc\r\n0 \t;x\r\n\r\n', b"abc"),
    (b"3; \xff\r\nabc\r\n0\r\n\r\n", b"abc"),
    (b"0\r\nA: b\r\nContent-Length: 5\r\n\r\n", b""),
    (b"0;" + b"x" * 1022 + b"\r\n\r\n", b""),
]


@pytest.mark.parametrize(("received", "content"), WHOLE)
def test_chunks_may_have_extensions_and_trailers(received: bytes, content: bytes) -> None:
    for each in ([], byte_by_byte(received)):
        assert fed(Chunked(), received + b"GET", each) == (content, b"GET", False)


BROKEN = [
    b"\r\n",
    b"zz\r\n",
    b"-1\r\n",
    b"+3\r\nabc\r\n",
    b"0x3\r\nabc\r\n",
    b"3 \r\nabc\r\n",
    b" 3\r\nabc\r\n",
    b"3\nabc\n",
    b"3\r\rabc",
    b"3\r\nabcd\r\n",
    b"3\r\nabc\n0\r\n\r\n",
    b"3\r\nabc0\r\n\r\n",
    b"3\r\nab\r\n\r\n",
    b";a\r\n",
    b"3;a\0\r\nabc\r\n",
    b"3;a\nb\r\nabc\r\n",
    b"3,3\r\nabc\r\n",
    b"\xb2\r\n",
    b"0;" + b"x" * 1023 + b"\r\n\r\n",
    b"0" * 1025,
    b"F" * 16 + b"\r\n",
    b"0\r\nA b\r\n\r\n",
    b"0\r\n: b\r\n\r\n",
    b"0\r\n A: b\r\n\r\n",
    b"0\r\nA : b\r\n\r\n",
    b"0\r\nA: b\nC: d\r\n\r\n",
    b"0\r\nA: \0\r\n\r\n",
    b"0\r\n\n",
    b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    b"0\r\nA: " + b"b" * 20_000,
]


@pytest.mark.parametrize("received", BROKEN)
def test_what_could_end_in_two_places_ends_nowhere(received: bytes) -> None:
    """Case 46. As soon as it is seen, and what came before it is told."""
    before = b"5\r\nhello\r\n"
    for each in ([], [3], [11], byte_by_byte(before + received)[-400:]):
        content, rest, is_broken = fed(Chunked(), before + received, each)
        assert (rest, is_broken) == (None, True)
        assert content.startswith(b"hello")


@pytest.mark.parametrize(
    "received", [b"3\r\nabcd", b"3\r\nabc\n", b"0" * 1025, b"3\na", b"0\r\nA\n"]
)
def test_the_end_of_a_line_that_cannot_be_right_is_not_waited_for(received: bytes) -> None:
    for each in ([], byte_by_byte(received)):
        assert fed(Chunked(), received, each)[1:] == (None, True)


def test_a_chunk_may_be_as_large_as_a_content() -> None:
    """Case 6."""
    received = b"%x\r\na" % MAX_LENGTH_BYTES
    assert Chunked().feed(received) == (b"a", len(received), False)
    with pytest.raises(BrokenFraming):
        Chunked().feed(b"%x\r\na" % (MAX_LENGTH_BYTES + 1))


_pieces = st.sampled_from(
    [*(b"0", b"3", b"a", b"\r\n", b"\r", b"\n", b";", b" ", b":", b"A: b", b"\0"), b"3\r\nabc\r\n"]
)


@settings(max_examples=500)
@given(st.lists(_pieces, max_size=20).map(b"".join), cuts)
def test_any_bytes_come_to_the_same_wherever_they_are_cut(received: bytes, cuts: list[int]) -> None:
    assert fed(Chunked(), received, cuts) == fed(Chunked(), received, byte_by_byte(received))


@pytest.mark.parametrize("piece", [100, 1000, 4096, 65536])
def test_chunks_that_are_not_tiny_may_come_at_any_pace_however_they_are_cut(piece: int) -> None:
    content = bytes(20_000 * TINY_BYTES)
    received = chunked(content, TINY_BYTES)
    framing = Chunked(lambda: 0.0)
    assert fed(framing, received, list(range(0, len(received), piece))) == (content, b"", False)


@pytest.mark.parametrize(("size", "is_flood"), [(64, True), (400, True), (600, False)])
def test_many_small_chunks_at_once_are_a_flood(size: int, is_flood: bool) -> None:
    framing = Chunked(lambda: 0.0)
    received = chunked(bytes(1000 * size), size)[: -len(b"0\r\n\r\n")]
    fed(framing, received, [])
    assert not framing.is_flood
    fed(framing, received, [])
    assert framing.is_flood is is_flood


def test_small_chunks_at_the_pace_of_speech_are_no_flood() -> None:
    seconds = iter(range(10**9))
    framing = Chunked(lambda: float(next(seconds)))
    a_second = chunked(bytes(50 * 160), 160)[: -len(b"0\r\n\r\n")]
    for _ in range(3600):
        fed(framing, a_second, [])
        assert not framing.is_flood

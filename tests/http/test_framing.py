"""The end of a request's content, however the input is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.connection import chunked
from twistedmedia.fairness.pace import MAX_BURST, MAX_PER_S, TINY_BYTES
from twistedmedia.http.framing import ChunkedDecoder, FramingError, LengthDecoder
from twistedmedia.http.heads import MAX_LENGTH_BYTES


def decode(
    decoder: LengthDecoder | ChunkedDecoder, received: bytes, cuts: list[int]
) -> tuple[bytes, bytes | None, bool]:
    """Return the content, the bytes after it (None without an end), and whether it failed."""
    content, start = b"", 0
    for end in [*sorted({cut for cut in cuts if 0 < cut < len(received)}), len(received)]:
        while start < end:
            try:
                decoded = decoder.feed(received[start:end])
            except FramingError as error:
                return content + error.content, None, True
            assert decoded.size > 0
            content += decoded.content
            start += decoded.size
            if decoded.is_end:
                return content, received[start:], False
    return content, None, False


def byte_by_byte(received: bytes) -> list[int]:
    return list(range(len(received)))


cuts = st.lists(st.integers(0, 300), max_size=12)


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=100), st.binary(max_size=20), cuts)
def test_content_with_a_length_ends_after_it(content: bytes, rest: bytes, cuts: list[int]) -> None:
    assert decode(LengthDecoder(len(content)), content + rest, cuts) == (content, rest, False)
    assert decode(LengthDecoder(len(content) + 1), content, cuts) == (content, None, False)


def test_tiny_pieces_of_content_with_a_length_are_refused_like_tiny_chunks() -> None:
    """Case 85. TLS records of one byte are such pieces."""
    now_s = 0.0
    decoder = LengthDecoder(100_000, lambda: now_s)
    for _ in range(MAX_BURST):
        decoder.feed(b"a")
    now_s = 1.0
    for _ in range(MAX_PER_S):
        decoder.feed(b"a")
    for _ in range(1000):
        decoder.feed(bytes(TINY_BYTES))
    with pytest.raises(FramingError, match="send larger ones"):
        decoder.feed(b"a")


@settings(max_examples=200)
@given(st.binary(max_size=100), st.integers(1, 40), st.binary(max_size=20), cuts)
def test_content_in_chunks_ends_with_the_last(
    content: bytes, size: int, rest: bytes, cuts: list[int]
) -> None:
    received = chunked(content, size)
    assert decode(ChunkedDecoder(), received + rest, cuts) == (content, rest, False)
    assert decode(ChunkedDecoder(), received[:-1], cuts)[1:] == (None, False)


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
        assert decode(ChunkedDecoder(), received + b"GET", each) == (content, b"GET", False)


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
def test_invalid_chunked_coding_is_refused_after_the_content_before_it(received: bytes) -> None:
    """Case 46: as soon as it is seen; the error has the content before it."""
    before = b"5\r\nhello\r\n"
    for each in ([], [3], [11], byte_by_byte(before + received)[-400:]):
        content, rest, has_failed = decode(ChunkedDecoder(), before + received, each)
        assert (rest, has_failed) == (None, True)
        assert content.startswith(b"hello")


@pytest.mark.parametrize(
    "received", [b"3\r\nabcd", b"3\r\nabc\n", b"0" * 1025, b"3\na", b"0\r\nA\n"]
)
def test_an_invalid_line_is_refused_before_its_end(received: bytes) -> None:
    for each in ([], byte_by_byte(received)):
        assert decode(ChunkedDecoder(), received, each)[1:] == (None, True)


def test_a_chunk_may_be_as_large_as_any_content() -> None:
    """Case 6."""
    received = b"%x\r\na" % MAX_LENGTH_BYTES
    assert ChunkedDecoder().feed(received) == (b"a", len(received), False)
    with pytest.raises(FramingError):
        ChunkedDecoder().feed(b"%x\r\na" % (MAX_LENGTH_BYTES + 1))


_pieces = st.sampled_from(
    [*(b"0", b"3", b"a", b"\r\n", b"\r", b"\n", b";", b" ", b":", b"A: b", b"\0"), b"3\r\nabc\r\n"]
)


@settings(max_examples=500)
@given(st.lists(_pieces, max_size=20).map(b"".join), cuts)
def test_the_result_for_any_bytes_does_not_depend_on_the_cuts(
    received: bytes, cuts: list[int]
) -> None:
    assert decode(ChunkedDecoder(), received, cuts) == decode(
        ChunkedDecoder(), received, byte_by_byte(received)
    )


@pytest.mark.parametrize("piece", [100, 1000, 4096, 65536])
def test_chunks_that_are_not_tiny_may_arrive_at_any_rate_however_they_are_cut(piece: int) -> None:
    content = bytes(20_000 * TINY_BYTES)
    received = chunked(content, TINY_BYTES)
    decoder = ChunkedDecoder(lambda: 0.0)
    assert decode(decoder, received, list(range(0, len(received), piece))) == (content, b"", False)


@pytest.mark.parametrize(("size", "is_flood"), [(64, True), (400, True), (600, False)])
def test_many_small_chunks_at_once_are_a_flood(size: int, is_flood: bool) -> None:
    decoder = ChunkedDecoder(lambda: 0.0)
    received = chunked(bytes(1000 * size), size)[: -len(b"0\r\n\r\n")]
    decode(decoder, received, [])
    assert not decoder.is_flood
    decode(decoder, received, [])
    assert decoder.is_flood is is_flood


def test_small_chunks_at_the_rate_of_speech_are_not_a_flood() -> None:
    seconds = iter(range(10**9))
    decoder = ChunkedDecoder(lambda: float(next(seconds)))
    one_second = chunked(bytes(50 * 160), 160)[: -len(b"0\r\n\r\n")]
    for _ in range(3600):
        decode(decoder, one_second, [])
        assert not decoder.is_flood

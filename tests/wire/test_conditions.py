"""What of a file is sent for a Range header (RFC 9110, section 14)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.errors import RangeNotSatisfiable
from twistedmedia.wire.conditions import Plan, plan

quick = settings(max_examples=200, deadline=None)

ETAG = '"a-17f"'
GIB = 1 << 30

# Size of the file, the Range header, and the span that is sent.
SPANS = [
    (10, "bytes=0-1", 0, 2),
    (10, "bytes=0-0", 0, 1),
    (10, "bytes=9-9", 9, 10),
    (10, "bytes=2-5", 2, 6),
    (10, "bytes=0-9", 0, 10),
    (10, "bytes=0-10", 0, 10),
    (10, "bytes=5-99999999999999999999999", 5, 10),
    (10, "bytes=0-", 0, 10),
    (10, "bytes=3-", 3, 10),
    (10, "bytes=9-", 9, 10),
    (10, "bytes=-1", 9, 10),
    (10, "bytes=-10", 0, 10),
    (10, "bytes=-11", 0, 10),
    (10, "bytes=-99999999999", 0, 10),
    (10, "bytes=-" + "9" * 5000, 0, 10),
    (10, "bytes=1-" + "9" * 5000, 1, 10),
    (10, "bytes=001-0000002", 1, 3),
    (10, "bytes=" + "0" * 5000 + "-", 0, 10),
    (10, "bytes=" + "0" * 5000 + "1-2", 1, 3),
    (10, "bytes=-" + "0" * 5000 + "1", 9, 10),
    (10, "BYTES=0-1", 0, 2),
    (1, "bytes=0-0", 0, 1),
    (5 * GIB, "bytes=2147483647-2147483648", (2 * GIB) - 1, (2 * GIB) + 1),
    (5 * GIB, "bytes=4294967295-4294967296", (4 * GIB) - 1, (4 * GIB) + 1),
    (5 * GIB, "bytes=4294967296-", 4 * GIB, 5 * GIB),
    (5 * GIB, "bytes=-4294967297", GIB - 1, 5 * GIB),
]

UNSATISFIABLE = [
    (10, "bytes=10-"),
    (10, "bytes=10-10"),
    (10, "bytes=10-20"),
    (10, "bytes=99999999999999999999-"),
    (10, "bytes=" + "9" * 5000 + "-"),
    (10, "bytes=-0"),
    (10, "bytes=-000"),
    (10, "bytes=-" + "0" * 5000),
    (0, "bytes=0-"),
    (0, "bytes=0-0"),
    (0, "bytes=-0"),
]

IGNORED = [
    None,
    "",
    "bytes",
    "bytes=",
    "bytes=-",
    "bytes=--1",
    "bytes=a-b",
    "bytes=5-2",
    "bytes=1-0",
    "bytes=99999999999999999999-0",
    "0-",
    "0-5",
    "items=0-5",
    "bytes 0-5",
    "bytes:0-5",
    "bytes=0",
    "bytes=+1-3",
    "bytes=1-+3",
    "bytes=-1-3",
    "bytes=1--3",
    "bytes=0-1_0",
    "bytes=0x0-0x5",
    "bytes=0.0-5",
    "bytes=\uff11-\uff13",
    "bytes=\u0661-\u0663",
    "bytes=1-3\n",
    "bytes=1-3;",
    "bytes=0-1,4-5",
    "bytes=0-0,-1",
    "bytes=" + ",".join(["0-"] * 3000),
]


def short(value: object) -> str:
    """An id that fits a line."""
    return repr(value) if len(repr(value)) < 50 else f"{str(value)[:20]} and so on"


@pytest.mark.parametrize(("size", "header", "start", "stop"), SPANS, ids=short)
def test_one_range_is_a_206_with_those_of_its_bytes_that_exist(
    size: int, header: str, start: int, stop: int
) -> None:
    """Cases 6, 21 and 45."""
    what = plan(size, ETAG, header, None)
    assert what == Plan(206, start, stop, f"bytes {start}-{stop - 1}/{size}")
    assert what.length == stop - start


@pytest.mark.parametrize(("size", "header"), UNSATISFIABLE, ids=short)
def test_a_range_of_which_no_byte_exists_is_refused_with_the_size(size: int, header: str) -> None:
    """Case 21."""
    with pytest.raises(RangeNotSatisfiable) as caught:
        plan(size, ETAG, header, None)
    assert caught.value.headers == {"Content-Range": f"bytes */{size}"}


@pytest.mark.parametrize("header", IGNORED, ids=short)
def test_what_is_not_one_range_of_bytes_is_answered_with_the_whole(header: str | None) -> None:
    """Cases 20, 21 and 37."""
    assert plan(10, ETAG, header, None) == Plan(200, 0, 10)
    assert plan(0, ETAG, header, None) == Plan(200, 0, 0)


def test_the_last_bytes_of_an_empty_file_are_all_of_it() -> None:
    """RFC 9110, 14.1.2: a suffix that is longer than the file means the file."""
    assert plan(0, ETAG, "bytes=-5", None) == Plan(200, 0, 0)


@pytest.mark.parametrize("header", [ETAG, f" {ETAG} "])
def test_a_range_is_sent_if_the_file_is_still_the_one_meant(header: str) -> None:
    assert plan(10, ETAG, "bytes=2-5", header) == Plan(206, 2, 6, "bytes 2-5/10")


@pytest.mark.parametrize(
    "header",
    [
        '"b-17f"',
        "a-17f",
        f"W/{ETAG}",
        f'{ETAG}, "b"',
        "*",
        "",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        '"A-17F"',
    ],
)
@pytest.mark.parametrize("wanted", ["bytes=2-5", "bytes=10-", "bytes=-0"])
def test_if_it_may_be_another_file_the_whole_is_sent(wanted: str, header: str) -> None:
    """RFC 9110, 13.1.5: also where the range could not be satisfied."""
    assert plan(10, ETAG, wanted, header) == Plan(200, 0, 10)


def test_a_condition_without_a_range_says_nothing() -> None:
    assert plan(10, ETAG, None, ETAG) == Plan(200, 0, 10)


numbers = st.one_of(
    st.integers(0, 30).map(str),
    st.integers(0, 10**17).map(str),
    st.just("9" * 30),
    st.integers(0, 30).map(lambda number: f"{number:05}"),
    st.just(""),
)
ranges = st.builds(
    "{}{}-{}".format, st.sampled_from(["bytes="] * 8 + ["bytes", " "]), numbers, numbers
)


@quick
@given(
    st.integers(0, 30),
    ranges | st.text() | st.text(st.sampled_from("bytes=-,0123 ")),
    st.booleans(),
)
def test_no_header_reaches_outside_of_the_file(size: int, header: str, same: bool) -> None:
    """Case 21."""
    try:
        what = plan(size, ETAG, header, ETAG if same else None)
    except RangeNotSatisfiable:
        return
    assert 0 <= what.start <= what.stop <= size
    if what.status == 200:
        assert (what.start, what.stop, what.content_range) == (0, size, None)
    else:
        assert what.status == 206
        assert what.length > 0
        assert what.content_range == f"bytes {what.start}-{what.stop - 1}/{size}"


@quick
@given(st.integers(0, 30), ranges)
def test_the_bytes_that_are_sent_are_those_that_the_range_counts(size: int, header: str) -> None:
    """Against a reading of the header that looks at each byte by itself."""
    content = range(size)
    match = re.fullmatch("bytes=([0-9]*)-([0-9]*)", header)
    first, last = (match[1], match[2]) if match else ("", "")
    if first:
        valid = last == "" or int(first) <= int(last)
        wanted = [n for n in content if int(first) <= n and (last == "" or n <= int(last))]
    else:
        valid = last != ""
        wanted = [n for n in content if valid and size - n <= int(last)]
        if valid and size == 0 and int(last) > 0:
            valid = False  # the whole, which is nothing
    if not valid:
        assert plan(size, ETAG, header, None) == Plan(200, 0, size)
    elif not wanted:
        with pytest.raises(RangeNotSatisfiable):
            plan(size, ETAG, header, None)
    else:
        what = plan(size, ETAG, header, None)
        assert what.status == 206
        assert list(content[what.start : what.stop]) == wanted

"""Preconditions and ranges (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import formatdate, parsedate_to_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.errors import PreconditionFailed, RangeNotSatisfiable
from twistedmedia.http.conditions import Conditions, ResponsePlan, format_date, plan_response

quick = settings(max_examples=200)

ETAG = '"a-17f"'
GIB = 1 << 30

MODIFIED_S = 784111777  # 5.6.7 shows it in every form
NOW_S = MODIFIED_S + 86400
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
FUTURE = "Fri, 31 Dec 2038 23:59:59 GMT"
OTHER = '"b-17f"'

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
    (10, " bytes=0-1\t", 0, 2),
    (10, "bytes=0-1,", 0, 2),
    (10, "bytes=,0-1", 0, 2),
    (10, "bytes= ,\t, 0-1 ,,\t, ", 0, 2),
    (10, "bytes=,-1,", 9, 10),
    (10, "bytes=" + "," * 5000 + "3-" + "," * 5000, 3, 10),
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
    (10, "bytes=" + "9" * 5000 + "-" + "9" * 5000),
    (10, "bytes=,10-,"),
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
    " ",
    "bytes",
    "bytes=",
    "bytes=-",
    "bytes=--1",
    "bytes=a-b",
    "bytes=5-2",
    "bytes=1-0",
    "bytes=99999999999999999999-0",
    "bytes=99999999999999999999-99999999999999999998",
    "bytes=" + "9" * 5000 + "-" + "9" * 4999,
    "bytes=0005-0004",
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
    "bytes=0-1;",
    "bytes= 0-1",
    "bytes =0-1",
    "bytes=0 -1",
    "bytes=0- 1",
    "bytes=,",
    "bytes=,,",
    "bytes=0-1,4-5",
    "bytes=0-0,-1",
    "bytes=0-1,x",
    "bytes=x,0-1",
    "bytes=0-1,5-2",
    "bytes=10-,0-1",
    "bytes=-0,-0",
    "bytes=0-1, bytes=0-1",
    "bytes=" + ",".join(["0-"] * 3000),
]


def short(value: object) -> str:
    """A test id that fits a line."""
    return repr(value) if len(repr(value)) < 50 else f"{str(value)[:20]} and so on"


def ranged(size: int, header: str | None, if_range: str | None = None) -> ResponsePlan:
    """The response to a GET with these headers."""
    return plan_response(Conditions(range=header, if_range=if_range), size, ETAG, MODIFIED_S, NOW_S)


def outcome(conditions: Conditions, etag: str = ETAG) -> int:
    """The status of the response to a GET of ten bytes."""
    try:
        return plan_response(conditions, 10, etag, MODIFIED_S, NOW_S).status
    except (PreconditionFailed, RangeNotSatisfiable) as error:
        return error.status


def allows_change(conditions: Conditions, etag: str = ETAG, modified_s: int = MODIFIED_S) -> bool:
    """Whether a file modified at the end of that second may be changed."""
    precondition = conditions.precondition(NOW_S)
    return precondition is None or precondition.allows(etag, modified_s * 10**9 + 999_999_999)


@pytest.mark.parametrize(("size", "header", "start", "stop"), SPANS, ids=short)
def test_one_range_is_a_206_with_those_of_its_bytes_that_exist(
    size: int, header: str, start: int, stop: int
) -> None:
    """Cases 6, 21 and 45."""
    what = ranged(size, header)
    assert what == ResponsePlan(206, start, stop, f"bytes {start}-{stop - 1}/{size}")
    assert what.length == stop - start


@pytest.mark.parametrize(("size", "header"), UNSATISFIABLE, ids=short)
def test_a_range_of_which_no_byte_exists_is_refused_with_the_size(size: int, header: str) -> None:
    """Case 21."""
    with pytest.raises(RangeNotSatisfiable) as caught:
        ranged(size, header)
    assert caught.value.headers == {"Content-Range": f"bytes */{size}"}


@pytest.mark.parametrize("header", IGNORED, ids=short)
def test_the_whole_is_sent_for_anything_but_one_range_of_bytes(header: str | None) -> None:
    """Cases 20, 21 and 37."""
    assert ranged(10, header) == ResponsePlan(200, 0, 10)
    assert ranged(0, header) == ResponsePlan(200, 0, 0)


def test_a_suffix_of_an_empty_file_is_the_whole() -> None:
    """RFC 9110, 14.1.2: a suffix that is longer than the file means the file."""
    assert ranged(0, "bytes=-5") == ResponsePlan(200, 0, 0)


@pytest.mark.parametrize(
    "header",
    [
        ETAG,
        f" {ETAG} ",
        DATE,
        f"\t{DATE} ",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_a_range_is_sent_if_if_range_matches(header: str) -> None:
    assert ranged(10, "bytes=2-5", header) == ResponsePlan(206, 2, 6, "bytes 2-5/10")


@pytest.mark.parametrize(
    "header",
    [
        '"b-17f"',
        "a-17f",
        f"W/{ETAG}",
        f'{ETAG}, "b"',
        "*",
        "",
        '"A-17F"',
        '"a-17f',
        EARLIER,
        LATER,
        FUTURE,
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 06 Nov 1994 08:49:37",
        f"{DATE}, {DATE}",
        str(MODIFIED_S),
    ],
)
@pytest.mark.parametrize("wanted", ["bytes=2-5", "bytes=10-", "bytes=-0"])
def test_the_whole_is_sent_if_if_range_does_not_match(wanted: str, header: str) -> None:
    """RFC 9110, 13.1.5: even if the range is not satisfiable."""
    assert ranged(10, wanted, header) == ResponsePlan(200, 0, 10)


def test_if_range_without_a_range_is_ignored() -> None:
    assert ranged(10, None, ETAG) == ResponsePlan(200, 0, 10)


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
def test_no_range_exceeds_the_file(size: int, header: str, same: bool) -> None:
    """Case 21."""
    try:
        what = ranged(size, header, ETAG if same else None)
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
def test_a_range_selects_the_same_bytes_as_a_simple_parser(size: int, header: str) -> None:
    """Compared with a parser that decides for each byte."""
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
            valid = False  # the whole, empty file
    if not valid:
        assert ranged(size, header) == ResponsePlan(200, 0, size)
    elif not wanted:
        with pytest.raises(RangeNotSatisfiable):
            ranged(size, header)
    else:
        what = ranged(size, header)
        assert what.status == 206
        assert list(content[what.start : what.stop]) == wanted


def test_the_whole_is_sent_without_conditions() -> None:
    assert plan_response(Conditions(), 10, ETAG, MODIFIED_S, NOW_S) == ResponsePlan(200, 0, 10)
    assert allows_change(Conditions())


def test_a_file_that_the_client_has_is_not_sent() -> None:
    known = Conditions(if_none_match=ETAG, range="bytes=0-1")
    assert plan_response(known, 10, ETAG, MODIFIED_S, NOW_S) == ResponsePlan(304, 0, 0)


# A tag header, and whether the file's tag is in it by the strong and by the weak comparison
# (8.8.3.2).
TAGS = [
    (ETAG, True, True),
    (f" {ETAG}\t", True, True),
    ("*", True, True),
    (" * ", True, True),
    (f"W/{ETAG}", False, True),
    (OTHER, False, False),
    (f"W/{OTHER}", False, False),
    (f"{OTHER}, {ETAG}", True, True),
    (f"{ETAG},{OTHER}", True, True),
    (f"{OTHER}\t ,\t {ETAG} ,", True, True),
    (f",,{ETAG}", True, True),
    (f", ,\t{ETAG},,", True, True),
    (f"W/{ETAG}, {ETAG}", True, True),
    (f"W/{ETAG}, {OTHER}", False, True),
    (f'"", {ETAG}', True, True),
    ('""', False, False),
    ('"A-17F"', False, False),
    (f'"x\\", {ETAG}', True, True),  # a backslash is not an escape
    (f'"x,y", {ETAG}', True, True),  # a comma may be in a tag
    (f'"\xe4\xff", {ETAG}', True, True),
    (f'"x,{ETAG},y"', False, True),  # not a list; the weak comparison finds the element
    # Malformed:
    ("", False, False),
    (",", False, False),
    ("a-17f", False, False),
    ("'a-17f'", False, False),
    ('"a-17f', False, False),
    ('a-17f"', False, False),
    (f"w/{ETAG}", False, False),
    (f"W/ {ETAG}", False, False),
    (f"W{ETAG}", False, False),
    (f"{ETAG}x", False, False),
    (f"{ETAG}{ETAG}", False, False),
    (f"{ETAG} {ETAG}", False, False),
    (f"{ETAG};q=1", False, False),
    (f"x, {ETAG}", False, True),
    (f"{ETAG}, x", False, True),
    (f"{OTHER} {OTHER}, {ETAG}", False, True),
    (f"*, {ETAG}", False, True),
    ("*, *", False, False),
    ("**", False, False),
    (f'"a b", {ETAG}', False, True),
    (f'"\x7f", {ETAG}', False, True),
    (f'"\u0153", {ETAG}', False, True),
]


@pytest.mark.parametrize(("header", "strong", "weak"), TAGS, ids=short)
def test_tags_are_compared_strongly_or_weakly(header: str, strong: bool, weak: bool) -> None:
    """13.1.1 and 13.1.2."""
    assert outcome(Conditions(if_match=header)) == (200 if strong else 412)
    assert outcome(Conditions(if_none_match=header)) == (304 if weak else 200)
    assert allows_change(Conditions(if_match=header)) == strong


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (OTHER, True),
        (f'{OTHER}, W/"c"', True),
        (ETAG, False),
        (f"W/{ETAG}", False),
        (f"{OTHER}, {ETAG}", False),
        ("*", False),
        ("", False),
        ("b-17f", False),
        (f"{OTHER}, x", False),
    ],
)
def test_a_change_requires_a_valid_if_none_match_without_this_tag(
    header: str, allowed: bool
) -> None:
    assert allows_change(Conditions(if_none_match=header)) == allowed


def test_a_weak_tag_of_the_file_matches_weakly_only() -> None:
    weak = f"W/{ETAG}"
    for header in (ETAG, weak):
        assert outcome(Conditions(if_match=header), weak) == 412
        assert outcome(Conditions(if_none_match=header), weak) == 304
        assert outcome(Conditions(if_range=header, range="bytes=0-1"), weak) == 200
    assert outcome(Conditions(if_match="*"), weak) == 200


# Dates in the three forms and their meaning, when the time is NOW_S, in 1994.
DATES = [
    (DATE, MODIFIED_S),
    ("Sunday, 06-Nov-94 08:49:37 GMT", MODIFIED_S),
    ("Sun Nov  6 08:49:37 1994", MODIFIED_S),
    ("Sun Nov 06 08:49:37 1994", MODIFIED_S),
    (f" {DATE}\t", MODIFIED_S),
    ("Mon, 06 Nov 1994 08:49:37 GMT", MODIFIED_S),  # it was a Sunday
    ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
    ("Mon, 01 Jan 0001 00:00:00 GMT", -62135596800),
    ("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799),
    ("Thu, 29 Feb 1996 00:00:00 GMT", 825552000),
    ("Tue, 29 Feb 2000 00:00:00 GMT", 951782400),
    ("Thursday, 29-Feb-96 00:00:00 GMT", 825552000),
    ("Thu Feb 29 00:00:00 1996", 825552000),
    ("Thu, 30 Jun 1994 23:59:60 GMT", 773020800),  # a leap second
    ("Monday, 07-Nov-44 08:49:37 GMT", 2362121377),  # fifty years to the second
    ("Monday, 07-Nov-44 08:49:38 GMT", -793638622),  # and one more
    ("Wednesday, 01-Jan-69 00:00:00 GMT", -31536000),
    ("Saturday, 01-Jan-00 00:00:00 GMT", 946684800),
]

NO_DATES = [
    "",
    "0",
    str(MODIFIED_S),
    "yesterday",
    "Sun, 06 Nov 1994",
    "Sun, 06 Nov 1994 08:49 GMT",
    "Sun, 06 Nov 1994 08:49:37",
    "Sun, 06 Nov 1994 08:49:37 UTC",
    "Sun, 06 Nov 1994 08:49:37 +0000",
    "Sun, 06 Nov 1994 08:49:37 CET",
    "Sun, 06 Nov 1994 08:49:37 gmt",
    "Sun, 06 Nov 1994 08:49:37 GMTx",
    "Sun, 06 Nov 1994 08:49:37  GMT",
    "Sun, 06 Nov 1994  08:49:37 GMT",
    "Sun,06 Nov 1994 08:49:37 GMT",
    "sun, 06 nov 1994 08:49:37 GMT",
    "So, 06 Nov 1994 08:49:37 GMT",
    "06 Nov 1994 08:49:37 GMT",
    "Sun, 6 Nov 1994 08:49:37 GMT",
    "Sun,  6 Nov 1994 08:49:37 GMT",
    "Sun, 00 Nov 1994 08:49:37 GMT",
    "Sun, 31 Nov 1994 08:49:37 GMT",
    "Wed, 29 Feb 1995 08:49:37 GMT",
    "Thu, 29 Feb 1900 08:49:37 GMT",
    "Sun, 06 Nix 1994 08:49:37 GMT",
    "Sun, 06 Nov 0000 08:49:37 GMT",
    "Sun, 06 Nov 94 08:49:37 GMT",
    "Sun, 06 Nov 11994 08:49:37 GMT",
    "Sun, 06 Nov 1994 24:00:00 GMT",
    "Sun, 06 Nov 1994 08:60:00 GMT",
    "Sun, 06 Nov 1994 08:49:61 GMT",
    "Sun, 06 Nov 1994 8:49:37 GMT",
    "Sun, 06-Nov-94 08:49:37 GMT",
    "Sunday, 06-Nov-1994 08:49:37 GMT",
    "Sunday, 06 Nov 94 08:49:37 GMT",
    "Sunday, 06-Nov-94 08:49:37",
    "Wednesday, 29-Feb-95 08:49:37 GMT",
    "Sun Nov 6 08:49:37 1994",
    "Sun Nov  6 08:49:37 94",
    "Sun Nov  0 08:49:37 1994",
    "Sun Nov 31 08:49:37 1994",
    "Sun Nov  6 08:49:37 1994 GMT",
    "Sunday Nov  6 08:49:37 1994",
    "1994-11-06T08:49:37Z",
    f"{DATE}, {DATE}",
    f'"{DATE}"',
    "Sun, 0\uff16 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:37 GMT\n",
]


def known_since(header: str, modified_s: int, now_s: int = NOW_S) -> bool:
    """Whether If-Modified-Since with `header` prevents sending a file of that time."""
    return (
        plan_response(Conditions(if_modified_since=header), 10, ETAG, modified_s, now_s).status
        == 304
    )


@pytest.mark.parametrize(("header", "seconds"), DATES, ids=short)
def test_a_date_is_parsed_in_each_of_its_forms(header: str, seconds: int) -> None:
    """5.6.7, 13.1.3 and 13.1.4."""
    assert known_since(header, seconds)
    assert not known_since(header, seconds + 1)
    unmodified = Conditions(if_unmodified_since=header)
    assert allows_change(unmodified, ETAG, seconds)
    assert not allows_change(unmodified, ETAG, seconds + 1)
    assert plan_response(unmodified, 10, ETAG, seconds, NOW_S).status == 200
    with pytest.raises(PreconditionFailed):
        plan_response(unmodified, 10, ETAG, seconds + 1, NOW_S)
    if seconds < NOW_S:
        partly = Conditions(if_range=header, range="bytes=0-1")
        assert plan_response(partly, 10, ETAG, seconds, NOW_S).status == 206
        assert plan_response(partly, 10, ETAG, seconds + 1, NOW_S).status == 200
        assert plan_response(partly, 10, ETAG, seconds - 1, NOW_S).status == 200


@pytest.mark.parametrize("header", NO_DATES, ids=short)
def test_an_invalid_date_is_ignored(header: str) -> None:
    assert outcome(Conditions(if_modified_since=header)) == 200
    assert outcome(Conditions(if_unmodified_since=header)) == 200
    assert outcome(Conditions(if_range=header, range="bytes=0-1")) == 200
    assert allows_change(Conditions(if_unmodified_since=header))


def test_a_two_digit_year_is_at_most_fifty_years_ahead() -> None:
    """5.6.7."""
    header = "Sunday, 06-Nov-05 08:49:37 GMT"
    for year, meant in {
        1954: 1905,
        1955: 1905,
        1956: 2005,
        1999: 2005,
        2026: 2005,
        2056: 2105,
    }.items():
        meant_s = int(datetime(meant, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp())
        now_s = int(datetime(year, 6, 1, tzinfo=UTC).timestamp())
        assert known_since(header, meant_s, now_s)
        assert not known_since(header, meant_s + 1, now_s)


def test_a_date_matches_if_range_once_its_second_is_over() -> None:
    """8.8.2.2: in the same second the file can still change."""
    partly = Conditions(if_range=DATE, range="bytes=0-1")
    for now_s, status in {0: 206, 1: 206}.items():
        assert plan_response(partly, 10, ETAG, MODIFIED_S, MODIFIED_S + 1 + now_s).status == status
    for now_s in (MODIFIED_S, MODIFIED_S - 1):
        assert plan_response(partly, 10, ETAG, MODIFIED_S, now_s).status == 200


# Conditions of which several are set, in the order of 13.2.2.
ORDER = [
    # If-Match is evaluated first; it overrides If-Unmodified-Since.
    (Conditions(if_match=ETAG, if_unmodified_since=EARLIER), 200),
    (Conditions(if_match=OTHER, if_unmodified_since=LATER), 412),
    (Conditions(if_match="", if_unmodified_since=LATER), 412),
    (Conditions(if_match=OTHER, if_none_match=ETAG), 412),
    (Conditions(if_match=OTHER, if_modified_since=LATER), 412),
    (Conditions(if_match=OTHER, range="bytes=0-1"), 412),
    (Conditions(if_match=OTHER, range="bytes=10-"), 412),
    (Conditions(if_unmodified_since=EARLIER, if_none_match=ETAG), 412),
    (Conditions(if_unmodified_since=EARLIER, range="bytes=10-"), 412),
    # If-None-Match is next; it overrides If-Modified-Since.
    (Conditions(if_match=ETAG, if_none_match=ETAG), 304),
    (Conditions(if_match=ETAG, if_none_match=OTHER), 200),
    (Conditions(if_match=ETAG, if_modified_since=DATE), 304),
    (Conditions(if_unmodified_since=DATE, if_none_match=ETAG), 304),
    (Conditions(if_unmodified_since=DATE, if_modified_since=DATE), 304),
    (Conditions(if_unmodified_since="x", if_none_match=ETAG), 304),
    (Conditions(if_none_match=ETAG, if_modified_since=EARLIER), 304),
    (Conditions(if_none_match=OTHER, if_modified_since=LATER), 200),
    (Conditions(if_none_match="", if_modified_since=LATER), 200),
    (Conditions(if_modified_since=FUTURE), 304),
    # The range is last.
    (Conditions(if_none_match=ETAG, range="bytes=10-"), 304),
    (Conditions(if_none_match=OTHER, range="bytes=0-1"), 206),
    (Conditions(if_none_match=OTHER, range="bytes=10-"), 416),
    (Conditions(if_modified_since=DATE, range="bytes=0-1"), 304),
    (Conditions(if_modified_since=EARLIER, range="bytes=0-1"), 206),
    (Conditions(if_match=ETAG, range="bytes=0-1"), 206),
    (Conditions(if_match=ETAG, range="bytes=0-1", if_range=OTHER), 200),
    (Conditions(if_match=ETAG, range="bytes=10-", if_range=OTHER), 200),
    (Conditions(if_match=ETAG, range="bytes=10-", if_range=ETAG), 416),
    (Conditions(if_unmodified_since=DATE, range="bytes=0-1", if_range=DATE), 206),
    (
        Conditions(ETAG, EARLIER, OTHER, DATE, ETAG, "bytes=0-1"),
        206,
    ),
]


@pytest.mark.parametrize(("conditions", "status"), ORDER, ids=str)
def test_conditions_are_evaluated_in_order(conditions: Conditions, status: int) -> None:
    assert outcome(conditions) == status


@pytest.mark.parametrize(
    ("conditions", "allowed"),
    [
        (Conditions(if_match=ETAG, if_unmodified_since=EARLIER), True),
        (Conditions(if_match=OTHER, if_unmodified_since=LATER), False),
        (Conditions(if_unmodified_since=EARLIER), False),
        (Conditions(if_unmodified_since=DATE), True),
        (Conditions(if_unmodified_since=FUTURE), True),
        (Conditions(if_match=ETAG, if_none_match=OTHER), True),
        (Conditions(if_match=ETAG, if_none_match=ETAG), False),
        (Conditions(if_match="*", if_none_match="*"), False),
        (Conditions(if_modified_since=LATER), True),
        (Conditions(if_range=OTHER, range="bytes=0-1"), True),
    ],
    ids=str,
)
def test_a_change_must_satisfy_all_conditions(conditions: Conditions, allowed: bool) -> None:
    assert allows_change(conditions) == allowed


def test_a_failed_precondition_does_not_reveal_the_size() -> None:
    with pytest.raises(PreconditionFailed) as caught:
        plan_response(Conditions(if_match=OTHER), 10, ETAG, MODIFIED_S, NOW_S)
    assert caught.value.headers == {}


moments = st.integers(-62135596800, 253402300799)
tags = st.builds(
    "{}{}".format,
    st.sampled_from(["", "W/"]),
    st.text(st.sampled_from("ab,W/*\\ "), max_size=3).map(lambda text: f'"{text}"'),
)
headers = st.none() | st.text(st.sampled_from('"W/ab*, \t')) | st.text() | st.just(DATE)


@quick
@given(moments)
def test_every_date_that_can_be_formatted_is_parsed(seconds: int) -> None:
    moment = datetime(1970, 1, 1) + timedelta(seconds=seconds)
    for header in (
        f"{moment:%a, %d %b} {moment.year:04} {moment:%H:%M:%S} GMT",
        f"{moment:%a %b} {moment.day:2} {moment:%H:%M:%S} {moment.year:04}",
    ):
        assert known_since(header, seconds)
        assert not known_since(header, seconds + 1)


@quick
@given(st.integers(0, 4102444800), st.integers(0, 4102444800))
def test_a_file_is_unmodified_since_its_own_date(modified_s: int, since_s: int) -> None:
    assert known_since(formatdate(since_s, usegmt=True), modified_s) == (modified_s <= since_s)


@quick
@given(st.lists(tags, min_size=1, max_size=4), tags.filter(lambda tag: tag[0] == '"'))
def test_a_list_contains_its_tags(listed: list[str], etag: str) -> None:
    header = ", ".join(listed)
    well_formed = " " not in "".join(listed)
    strong = well_formed and etag in listed
    assert (outcome(Conditions(if_match=header), etag) == 200) == strong
    if well_formed:
        weak = etag in [tag.removeprefix("W/") for tag in listed]
        assert (outcome(Conditions(if_none_match=header), etag) == 304) == weak
        unless = Conditions(if_none_match=header)
        assert allows_change(unless, etag) == (not weak)


@quick
@given(st.builds(Conditions, *[headers] * 5, st.none() | ranges), st.integers(0, 30))
def test_any_headers_have_a_response(conditions: Conditions, size: int) -> None:
    allows_change(conditions)
    try:
        what = plan_response(conditions, size, ETAG, MODIFIED_S, NOW_S)
    except (PreconditionFailed, RangeNotSatisfiable):
        return
    assert what.status in (200, 206, 304)
    assert 0 <= what.start <= what.stop <= size


def cost_s(header: str) -> float:
    """The least processor time, in seconds, of a request that has `header` everywhere."""
    spent = []
    for _ in range(5):
        begun = time.thread_time()
        for conditions in (
            Conditions(if_match=header),
            Conditions(if_none_match=header),
            Conditions(if_modified_since=header),
            Conditions(if_unmodified_since=header),
            Conditions(if_range=header, range=header),
            Conditions(range=header),
        ):
            outcome(conditions)
            allows_change(conditions)
        spent.append(time.thread_time() - begun)
    return min(spent)


LONG: list[Callable[[int], str]] = [
    lambda size: "bytes=" + ",".join(["0-"] * (size // 3)),
    lambda size: "bytes=" + "," * size + "x",
    lambda size: "bytes=" + ", " * (size // 2) + "0-1" + " ," * (size // 2) + "x",
    lambda size: "bytes=" + " " * size + "0-1",
    lambda size: "bytes=0-1" + " " * size + "x",
    lambda size: "bytes=" + "9" * size + "-" + "9" * size,
    lambda size: "bytes=-" + "0" * size + "x",
    lambda size: "bytes=" + "-" * size,
    lambda size: ETAG + "," * size + "x",
    lambda size: ETAG + ', "' * (size // 3),
    lambda size: ETAG + ', W/"a' * (size // 6),
    lambda size: ETAG + " " * size + "x",
    lambda size: ETAG + " ,\t" * (size // 3) + "x",
    lambda size: '"' * size + ETAG,
    lambda size: "W/" * (size // 2) + ETAG,
    lambda size: '"",' * (size // 3) + ETAG,
    lambda size: ", ".join(f'"{n:06x}"' for n in range(size // 10)),
    lambda size: "*" * size,
    lambda size: DATE + " " * size + "x",
    lambda size: "Sun, " * (size // 5),
    lambda size: "1" * size,
]


@pytest.mark.parametrize("long", LONG, ids=lambda long: short(long(40)))
def test_parsing_a_long_header_takes_linear_time(long: Callable[[int], str]) -> None:
    """Case 20: a header 16 times as long takes about 16 times as long."""
    small, large = cost_s(long(16 << 10)), cost_s(long(256 << 10))
    assert small < 0.05
    assert large < small * 16 * 4 + 0.001


# Dates that are sent


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (MODIFIED_S, DATE),
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (-1, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (-62_167_219_200, "Thu, 01 Jan 1970 00:00:00 GMT"),  # the year 0
        (-(10**12), "Thu, 01 Jan 1970 00:00:00 GMT"),  # some 30,000 years earlier
        (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (253_402_300_800, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (
            910_670_515_199,
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ),  # in 30828, the last that Windows supports
        (2**63, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (-(2**80), "Thu, 01 Jan 1970 00:00:00 GMT"),
    ],
)
def test_a_date_that_clients_cannot_parse_is_clamped(seconds: int, text: str) -> None:
    """Case 49."""
    assert format_date(seconds) == text


@quick
@given(st.integers())
def test_every_time_has_a_date_that_can_be_parsed(seconds: int) -> None:
    """Case 49."""
    text = format_date(seconds)
    read = parsedate_to_datetime(text).timestamp()
    assert read == min(max(seconds, 0), 253_402_300_799)


@pytest.mark.parametrize("modified_s", [-(2**80), -(10**12), -1])
def test_a_clamped_date_does_not_match_if_range(modified_s: int) -> None:
    """Case 49: files with different times share it."""
    formatted = format_date(modified_s)
    conditions = Conditions(if_range=formatted, range="bytes=0-1")
    assert plan_response(conditions, 10, ETAG, modified_s, NOW_S) == ResponsePlan(200, 0, 10)
    assert (
        plan_response(Conditions(if_modified_since=formatted), 10, ETAG, modified_s, NOW_S).status
        == 304
    )
    assert (
        plan_response(Conditions(if_unmodified_since=formatted), 10, ETAG, modified_s, NOW_S).status
        == 200
    )


@quick
@given(
    modified_s=st.integers(),
    date=st.sampled_from([DATE, FUTURE, "Thu, 01 Jan 1970 00:00:00 GMT", "nonsense"]),
    field=st.sampled_from(["if_modified_since", "if_unmodified_since", "if_range"]),
)
def test_conditions_are_evaluated_for_files_of_any_year(
    modified_s: int, date: str, field: str
) -> None:
    """Case 49."""
    conditions = Conditions(**{field: date}, range="bytes=0-1")
    try:
        assert plan_response(conditions, 10, ETAG, modified_s, NOW_S).status in (200, 206, 304)
    except PreconditionFailed:
        assert field == "if_unmodified_since"

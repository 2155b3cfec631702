"""The precondition that is parsed from headers decides as the headers do, evaluated one by one."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twistedmedia.http.conditions import LAST_DATE_S, Conditions, _parse_date_s, format_date
from twistedmedia.store.preconditions import Precondition

ETAG, OTHER = '"a-17f"', '"b-17f"'
MODIFIED_S = 784111777
NOW_S = MODIFIED_S + 86400
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"

# The model: it looks for the tag of one file in the text of a header.

_OPAQUE = r'"[\x21\x23-\x7e\x80-\xff]*+"'
_TAG = re.compile(rf"(?:W/)?+{_OPAQUE}")
_TAGS = re.compile(rf"[ \t,]*+{_TAG.pattern}(?:[ \t]*+,[ \t,]*+(?:{_TAG.pattern})?+)*+")
_ELEMENT = re.compile(rf"[ \t,]*+(?:(?:W/)?+({_OPAQUE})[ \t]*+(?![^,])|[^,]*+)")


def may_change(conditions: Conditions, etag: str | None, modified_ns: int) -> bool:
    """Whether a change of the file is allowed. `etag` is None if there is no file."""
    if etag is None:
        return conditions.if_match is None
    if conditions.if_match is not None:
        if not _contains_strongly(conditions.if_match, etag):
            return False
    elif conditions.if_unmodified_since is not None:
        since_s = _parse_date_s(conditions.if_unmodified_since, NOW_S)
        if since_s is not None and modified_ns // 10**9 > since_s:
            return False
    if conditions.if_none_match is None:
        return True
    return _is_tag_list(conditions.if_none_match) and not _contains_weakly(
        conditions.if_none_match, etag
    )


def _is_tag_list(header: str) -> bool:
    header = header.strip(" \t")
    return header == "*" or _TAGS.fullmatch(header) is not None


def _contains_strongly(header: str, etag: str) -> bool:
    header = header.strip(" \t")
    if header == "*":
        return True
    return _is_tag_list(header) and etag in _TAG.findall(header)


def _contains_weakly(header: str, etag: str) -> bool:
    return header.strip(" \t") == "*" or etag in _ELEMENT.findall(header)


# Headers: from well formed to arbitrary.

etags = st.sampled_from([ETAG, OTHER, '""', '"*"', '"a,b"', '"W/"', '"\xff"', '","']) | st.text(
    st.sampled_from("ab,W/*\\\xe9"), max_size=3
).map(lambda text: f'"{text}"')
elements = etags | etags.map("W/{}".format) | st.sampled_from(["", "*", "x", '"', "W/", '"a b"'])
commas = st.sampled_from([",", ", ", " ,\t", ",,", " ", ""])
lists = st.lists(st.tuples(elements, commas), max_size=5).map(
    lambda pairs: "".join(element + comma for element, comma in pairs)
)
tag_headers = st.none() | st.just("*") | lists | st.text(st.sampled_from('"W/ab*, \t')) | st.text()
dates = (
    st.none()
    | st.integers(MODIFIED_S - 2, MODIFIED_S + 2).map(format_date)
    | st.sampled_from([DATE, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"])
    | st.text(max_size=30)
)
conditional = st.builds(
    Conditions, if_match=tag_headers, if_none_match=tag_headers, if_unmodified_since=dates
)
moments_ns = st.integers((MODIFIED_S - 3) * 10**9, (MODIFIED_S + 3) * 10**9) | st.integers()


@settings(max_examples=1500)
@given(conditional, st.none() | etags, moments_ns)
@example(Conditions(if_match="x", if_unmodified_since=DATE), ETAG, 0)
@example(Conditions(if_match=f"W/{ETAG}"), ETAG, 0)
@example(Conditions(if_match=f'W/"a", {ETAG}, "W/"'), ETAG, 0)
@example(Conditions(if_none_match=f'W/"a,b", W/{ETAG}'), ETAG, 0)
@example(Conditions(if_none_match=f"{OTHER}, x"), ETAG, 0)
def test_the_parsed_precondition_decides_as_the_headers_do(
    conditions: Conditions, etag: str | None, modified_ns: int
) -> None:
    precondition = conditions.precondition(NOW_S)
    if precondition is None:
        assert may_change(conditions, etag, modified_ns)
    else:
        assert precondition.allows(etag, modified_ns) == may_change(conditions, etag, modified_ns)


def headers_of(precondition: Precondition) -> Conditions:
    """The headers that state a parsed precondition, as a store sends them to another server."""

    def joined(tags: frozenset[str] | None) -> str | None:
        return None if tags is None else ", ".join(sorted(tags))

    since_s = precondition.unmodified_since_s
    return Conditions(
        if_match=joined(precondition.if_match),
        if_none_match=joined(precondition.if_none_match),
        if_unmodified_since=None if since_s is None else format_date(since_s),
    )


@settings(max_examples=300)
@given(conditional)
def test_a_precondition_can_be_written_as_headers(conditions: Conditions) -> None:
    precondition = conditions.precondition(NOW_S)
    if precondition in (None, Precondition()):
        return
    assert 0 <= (precondition.unmodified_since_s or 0) <= LAST_DATE_S
    assert headers_of(precondition).precondition(NOW_S) == precondition


ANY = frozenset({"*"})
BOTH = frozenset({ETAG, OTHER})


@pytest.mark.parametrize(
    ("conditions", "precondition"),
    [
        (Conditions(), None),
        (Conditions(if_modified_since=DATE, if_range=ETAG, range="bytes=0-1"), None),
        (Conditions(if_match=f" {ETAG}\t"), Precondition(frozenset({ETAG}))),
        (Conditions(if_match=f"{ETAG},, W/{OTHER}"), Precondition(frozenset({ETAG}))),
        (Conditions(if_match=" * "), Precondition(ANY)),
        (Conditions(if_match=""), Precondition(frozenset())),
        (Conditions(if_match=f"{ETAG}, x"), Precondition(frozenset())),
        (
            Conditions(if_none_match=f"{ETAG}, W/{OTHER}"),
            Precondition(None, BOTH),
        ),
        (Conditions(if_none_match="*"), Precondition(None, ANY)),
        (Conditions(if_none_match=""), Precondition(None, ANY)),
        (Conditions(if_none_match=f"{ETAG}, *"), Precondition(None, ANY)),
        (Conditions(if_unmodified_since=DATE), Precondition(None, None, MODIFIED_S)),
        (Conditions(if_unmodified_since="soon"), Precondition()),
        (Conditions(if_match=ETAG, if_unmodified_since=DATE), Precondition(frozenset({ETAG}))),
        (
            Conditions(if_none_match=ETAG, if_unmodified_since=DATE),
            Precondition(None, frozenset({ETAG}), MODIFIED_S),
        ),
    ],
    ids=str,
)
def test_headers_are_parsed(conditions: Conditions, precondition: Precondition | None) -> None:
    assert conditions.precondition(NOW_S) == precondition

"""Preconditions of changes, as values (RFC 9110, 13.1 and 13.2.2)."""

from __future__ import annotations

import pytest

from twistedmedia.store.preconditions import ANY, Precondition

ETAG, OTHER = '"a-17f"', '"b-17f"'
MODIFIED_S = 784111777
NONE: frozenset[str] = frozenset()


def tags(*each: str) -> frozenset[str]:
    return frozenset(each)


@pytest.mark.parametrize(
    ("precondition", "allows_file", "allows_none"),
    [
        (Precondition(), True, True),
        (Precondition(if_match=tags(ETAG)), True, False),
        (Precondition(if_match=tags(OTHER, ETAG)), True, False),
        (Precondition(if_match=tags(ANY)), True, False),
        (Precondition(if_match=tags(OTHER)), False, False),
        (Precondition(if_match=NONE), False, False),
        (Precondition(if_none_match=tags(OTHER)), True, True),
        (Precondition(if_none_match=NONE), True, True),
        (Precondition(if_none_match=tags(ETAG)), False, True),
        (Precondition(if_none_match=tags(OTHER, ETAG)), False, True),
        (Precondition(if_none_match=tags(ANY)), False, True),
        (Precondition(unmodified_since_s=MODIFIED_S), True, True),
        (Precondition(unmodified_since_s=MODIFIED_S - 1), False, True),
        (Precondition(tags(ETAG), tags(OTHER)), True, False),
        (Precondition(tags(ETAG), tags(ETAG)), False, False),
        (Precondition(tags(ANY), tags(ANY)), False, False),
        (Precondition(tags(ETAG), None, MODIFIED_S - 1), False, False),
        (Precondition(None, tags(OTHER), MODIFIED_S - 1), False, True),
    ],
    ids=str,
)
def test_a_change_must_satisfy_every_part(
    precondition: Precondition, allows_file: bool, allows_none: bool
) -> None:
    assert precondition.allows(ETAG, MODIFIED_S * 10**9) == allows_file
    assert precondition.allows(None, 0) == allows_none


@pytest.mark.parametrize("second", [-(10**12), -1, 0, MODIFIED_S, 10**12])
def test_a_file_is_unmodified_since_the_second_in_which_it_was_modified(second: int) -> None:
    precondition = Precondition(unmodified_since_s=second)
    for nanosecond in (-1, 0, 999_999_999):
        assert precondition.allows(ETAG, second * 10**9 + nanosecond)
    assert not precondition.allows(ETAG, (second + 1) * 10**9)


def test_equal_preconditions_are_one_value() -> None:
    assert Precondition(tags(ETAG, OTHER)) == Precondition(tags(OTHER, ETAG))
    assert len({Precondition(NONE), Precondition(NONE), Precondition()}) == 2

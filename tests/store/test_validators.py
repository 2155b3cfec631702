"""Entity tags, and the timestamps that they are made of."""

from __future__ import annotations

import re
from functools import partial

import pytest

from twistedmedia.store.validators import UniqueTimestamps, etag_of


@pytest.mark.parametrize(
    ("clock", "timestamps"),
    [
        ([5, 5, 5, 9], [5, 6, 7, 9]),
        ([5, 3, 1, 6], [5, 6, 7, 8]),  # set back
        ([5, 6, 6, 8], [5, 6, 7, 8]),
    ],
)
def test_timestamps_are_unique_whatever_the_clock_does(
    clock: list[int], timestamps: list[int]
) -> None:
    made = UniqueTimestamps(partial(next, iter(clock)))
    assert [made.now_ns() for _ in clock] == timestamps


def test_a_tag_is_of_a_size_and_a_time() -> None:
    tags = {etag_of(size, modified_ns) for size in (0, 1, 16) for modified_ns in (-1, 0, 1, 2**64)}
    assert len(tags) == 12
    assert all(tag[0] == tag[-1] == '"' and tag[1:-1].isascii() for tag in tags)
    assert etag_of(16, 255) == '"10-ff"'


@pytest.mark.parametrize("modified_ns", [-1, -(2**63), -(10**30), 2**63, 10**30])
def test_a_tag_of_any_time_is_one_that_http_allows(modified_ns: int) -> None:
    """Case 49. RFC 9110, 8.8.3."""
    tag = etag_of(5, modified_ns)
    assert re.fullmatch(r'"[\x21\x23-\x7e]+"', tag)
    assert tag != etag_of(5, -modified_ns)

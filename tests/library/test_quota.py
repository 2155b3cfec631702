"""Who has how many unfinished uploads."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedmedia.errors import TooManyUnfinished
from twistedmedia.library.quota import UploadQuota

ME, OTHER = "me", "somebody else"


def test_a_caller_may_have_some_and_no_more() -> None:
    unfinished = UploadQuota(2)
    unfinished.begin("a", ME)
    unfinished.begin("b", ME)
    with pytest.raises(TooManyUnfinished) as caught:
        unfinished.begin("c", ME)
    assert caught.value.status == 429
    assert "c" not in unfinished
    unfinished.begin("d", OTHER)
    unfinished.end("a")
    unfinished.begin("c", ME)
    assert [each in unfinished for each in "abcd"] == [False, True, True, True]


def test_one_who_may_have_none_has_none() -> None:
    unfinished = UploadQuota(0)
    with pytest.raises(TooManyUnfinished):
        unfinished.begin("a", ME)
    assert "a" not in unfinished


def test_what_is_there_counts_however_many_there_are() -> None:
    unfinished = UploadQuota(1)
    for upload in "abc":
        unfinished.add(upload, ME)
    for upload in "abc":
        with pytest.raises(TooManyUnfinished):
            unfinished.begin("d", ME)
        unfinished.end(upload)
    unfinished.begin("d", ME)


def test_what_ends_while_stock_is_taken_does_not_count() -> None:
    """Nothing would end it again."""
    unfinished = UploadQuota(2)
    unfinished.begin("begun since", ME)
    unfinished.begin("ended since", ME)
    unfinished.end("ended since")
    unfinished.end("deleted")
    unfinished.take_stock({"deleted": ME, "ended since": ME, "begun since": ME, "there": OTHER})
    assert "deleted" not in unfinished
    assert "ended since" not in unfinished
    unfinished.begin("a", ME)
    with pytest.raises(TooManyUnfinished):
        unfinished.begin("b", ME)
    unfinished.end("there")
    unfinished.take_stock({"there": OTHER})
    assert "there" in unfinished, "only the first time"


def test_what_is_added_twice_counts_once_and_is_whose_it_was_first() -> None:
    unfinished = UploadQuota(2)
    unfinished.begin("a", ME)
    unfinished.add("a", ME)
    unfinished.add("a", OTHER)
    unfinished.begin("b", ME)
    unfinished.end("a")
    unfinished.begin("c", ME)
    unfinished.begin("d", OTHER)
    unfinished.begin("e", OTHER)


def test_what_ends_twice_or_was_never_there_ends_nothing_else() -> None:
    unfinished = UploadQuota(1)
    unfinished.begin("a", ME)
    unfinished.end("b")
    unfinished.end("b")
    with pytest.raises(TooManyUnfinished):
        unfinished.begin("c", ME)
    unfinished.end("a")
    unfinished.end("a")
    unfinished.begin("c", ME)
    with pytest.raises(TooManyUnfinished):
        unfinished.begin("d", ME)


def test_nothing_is_kept_of_callers_who_have_none() -> None:
    unfinished = UploadQuota(1)
    with pytest.raises(TooManyUnfinished):
        UploadQuota(0).begin("a", ME)
    for n in range(100):
        unfinished.begin(str(n), f"caller {n}")
    for n in range(100):
        unfinished.end(str(n))
    assert (unfinished._callers, unfinished._counts) == ({}, Counter())
    assert len(unfinished._counts) == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "add", "end"]),
        st.sampled_from("abcdef"),
        st.sampled_from([ME, OTHER]),
    ),
    max_size=40,
)


@given(STEPS, st.integers(0, 3))
def test_it_is_what_a_dict_of_all_of_them_would_be(
    steps: list[tuple[str, str, str]], most: int
) -> None:
    unfinished, all_of_them = UploadQuota(most), dict[str, str]()
    for step, upload, caller in steps:
        has = list(all_of_them.values()).count(caller)
        if step == "end":
            unfinished.end(upload)
            all_of_them.pop(upload, None)
        elif step == "add":
            unfinished.add(upload, caller)
            all_of_them.setdefault(upload, caller)
        elif has < most:
            unfinished.begin(upload, caller)
            all_of_them.setdefault(upload, caller)
        else:
            with pytest.raises(TooManyUnfinished):
                unfinished.begin(upload, caller)
        assert {each for each in "abcdef" if each in unfinished} == all_of_them.keys()
        assert dict(unfinished._counts) == Counter(all_of_them.values())

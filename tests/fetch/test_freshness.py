"""How long an answer is fresh, and who does not want one that is (RFC 9111)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.fetch.freshness import asks_for_fresh, lifetime_s

quick = settings(max_examples=300)

LONGEST = 1 << 31

# Cache-Control, Age, Vary, and for how many seconds the answer is fresh.
LIFETIMES = [
    # 4.2.1: nothing said, nothing kept; s-maxage goes before max-age
    (None, None, None, 0),
    ("", None, None, 0),
    ("public", None, None, 0),
    ("must-revalidate, no-transform", None, None, 0),
    ("max-age=60", None, None, 60),
    ("max-age=0", None, None, 0),
    ("max-age=1", None, None, 1),
    ("public, max-age=60", None, None, 60),
    ("max-age=60, must-revalidate, immutable", None, None, 60),
    ("max-age=60, stale-while-revalidate=600, stale-if-error=600", None, None, 60),
    ("s-maxage=30", None, None, 30),
    ("max-age=60, s-maxage=30", None, None, 30),
    ("s-maxage=90, max-age=60", None, None, 90),
    ("max-age=60, s-maxage=0", None, None, 0),
    ("s-maxage=x, max-age=60", None, None, 0),
    # 5.2: names in any case, values as tokens or quoted, any white space and empty members
    ("MAX-AGE=60", None, None, 60),
    ("Max-Age=60, S-MaxAge=30", None, None, 30),
    ('max-age="60"', None, None, 60),
    ("  max-age=60  ", None, None, 60),
    ("\tmax-age=60\t,\tpublic", None, None, 60),
    (",,max-age=60,,", None, None, 60),
    ("public,max-age=60", None, None, 60),
    ("x, y=z, max-age=60", None, None, 60),
    ('community="UCI, no-store", max-age=60', None, None, 60),
    ('x="a\\"b, no-store", max-age=60', None, None, 60),
    ("x-no-store, max-age=60", None, None, 60),
    ("no-storex, max-age=60", None, None, 60),
    ("max-agex=60", None, None, 0),
    ("x=no-store, max-age=60", None, None, 60),
    # 4.2.1: of several the smallest; what is invalid is stale
    ("max-age=60, max-age=30", None, None, 30),
    ("max-age=30, max-age=60", None, None, 30),
    ("s-maxage=30, s-maxage=20, max-age=10", None, None, 20),
    ("max-age=60, max-age=x", None, None, 0),
    ("max-age", None, None, 0),
    ("max-age=", None, None, 0),
    ('max-age=""', None, None, 0),
    ("max-age=-60", None, None, 0),
    ("max-age=+60", None, None, 0),
    ("max-age=60s", None, None, 0),
    ("max-age=6e1", None, None, 0),
    ("max-age=60.0", None, None, 0),
    ("max-age=0x3c", None, None, 0),
    ("max-age=6_0", None, None, 0),
    ("max-age=\uff16\uff10", None, None, 0),
    ("max-age=\u0666\u0660", None, None, 0),
    ('max-age=" 60"', None, None, 0),
    ("max-age=60;public", None, None, 0),
    ("max-age=60 public", None, None, 0),
    ("max-age = 60", None, None, 0),
    ("max-age= 60", None, None, 0),
    ("max-age:60", None, None, 0),
    ('max-age="60', None, None, 0),
    ('max-age=60, x="', None, None, 0),
    ("=60, max-age=60", None, None, 0),
    ("max-age=60, (", None, None, 0),
    # 1.2.2: what is larger than 2^31 is taken for it
    ("max-age=2147483647", None, None, LONGEST - 1),
    ("max-age=2147483648", None, None, LONGEST),
    ("max-age=2147483649", None, None, LONGEST),
    ("max-age=4294967296", None, None, LONGEST),
    ("max-age=99999999999999999999", None, None, LONGEST),
    ("max-age=" + "9" * 5000, None, None, LONGEST),
    # 5.2.2: what a shared cache must not keep, wherever and however it is said
    ("no-store", None, None, 0),
    ("max-age=60, no-store", None, None, 0),
    ("no-store, max-age=60", None, None, 0),
    ("NO-STORE,max-age=60", None, None, 0),
    ("max-age=60, no-cache", None, None, 0),
    ('max-age=60, no-cache="Set-Cookie"', None, None, 0),
    ("max-age=60, private", None, None, 0),
    ('private="X-A, X-B", max-age=60', None, None, 0),
    ("no-store=1, max-age=60", None, None, 0),
    ("s-maxage=60, Private", None, None, 0),
    # 4.2.3: what it has spent elsewhere is gone
    ("max-age=60", "0", None, 60),
    ("max-age=60", "10", None, 50),
    ("max-age=60", " 10 ", None, 50),
    ("max-age=60", "59", None, 1),
    ("max-age=60", "60", None, 0),
    ("max-age=60", "61", None, 0),
    ("max-age=60", "9" * 5000, None, 0),
    ("max-age=9999999999", "2147483648", None, 0),
    ("max-age=9999999999", "1", None, LONGEST - 1),
    (None, "10", None, 0),
    # 5.1: an Age that is none says nothing good
    ("max-age=60", "", None, 0),
    ("max-age=60", "-10", None, 0),
    ("max-age=60", "+10", None, 0),
    ("max-age=60", "1.5", None, 0),
    ("max-age=60", "soon", None, 0),
    ("max-age=60", "10, 20", None, 0),
    ("max-age=60", "\uff11", None, 0),
    # 4.1: with Vary: * no request is like another
    ("max-age=60", None, "*", 0),
    ("max-age=60", None, "Accept, *", 0),
    ("max-age=60", None, " * ", 0),
    ("max-age=60", None, "Accept-Encoding", 60),
    ("max-age=60", "10", "", 50),
]

# Cache-Control, Pragma, and whether an answer from memory is unwanted.
REQUESTS = [
    (None, None, False),
    ("", None, False),
    ("max-age=60", None, False),
    ("max-stale", None, False),
    ("only-if-cached", None, False),
    ("no-transform", None, False),
    ("x-no-cache", None, False),
    ('x="no-cache"', None, False),
    ('x="a, no-cache"', None, False),
    ("max-age=10", None, False),
    ("no-cache", None, True),
    ("No-Cache", None, True),
    ("no-store", None, True),
    ("max-age=0", None, True),
    ('max-age="0"', None, True),
    ("MAX-AGE=0", None, True),
    ("max-age=0, no-cache", None, True),
    ("max-age=00", None, True),
    ("max-age=0, max-age=60", None, True),
    ("no-transform,no-cache", None, True),
    ("no-cache=x", None, True),
    # What cannot be read is taken for a wish.
    ("no cache", None, True),
    ("(", None, True),
    ('x="', None, True),
    # 5.4: Pragma counts where there is no Cache-Control
    (None, "no-cache", True),
    (None, "No-Cache", True),
    (None, "x, no-cache", True),
    (None, "", False),
    (None, "cache", False),
    ("max-age=60", "no-cache", False),
    ("no-cache", "x", True),
]


@pytest.mark.parametrize(
    ("cache_control", "age", "vary", "seconds"),
    LIFETIMES,
    ids=[ascii(row)[:60] for row in LIFETIMES],
)
def test_an_answer_is_fresh_as_long_as_it_says_in_so_many_words(
    cache_control: str | None, age: str | None, vary: str | None, seconds: int
) -> None:
    assert lifetime_s(cache_control, age, vary) == seconds


@pytest.mark.parametrize(("cache_control", "pragma", "fresh"), REQUESTS)
def test_who_asks_for_a_fresh_answer_is_understood(
    cache_control: str | None, pragma: str | None, fresh: bool
) -> None:
    assert asks_for_fresh(cache_control, pragma) is fresh


@quick
@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_what_is_left_is_the_lifetime_less_the_age(lifetime: int, age: int) -> None:
    left = max(0, min(lifetime, LONGEST) - min(age, LONGEST))
    assert lifetime_s(f"max-age={lifetime}", str(age)) == left
    assert lifetime_s(f"s-maxage={lifetime}, max-age=5", str(age)) == left


tokens = st.from_regex(r"[a-z][a-z0-9!#$%&'*+.^_`|~-]{0,6}", fullmatch=True)
quoted = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
extensions = st.one_of(
    tokens, st.builds("{}={}".format, tokens, tokens), st.builds("{}={}".format, tokens, quoted)
).map(lambda text: "x-" + text)  # so that none is a directive that counts
commas = st.sampled_from([",", ", ", " ,", "\t, \t", ",,", " , , "])


@quick
@given(st.lists(extensions, max_size=4), st.integers(0, 4), commas)
def test_directives_that_nobody_knows_change_nothing(
    around: list[str], at: int, comma: str
) -> None:
    """RFC 9111, 5.2.3."""
    for known, seconds in (("max-age=60", 60), ("no-store", 0)):
        assert lifetime_s(comma.join([*around[:at], known, *around[at:]])) == seconds
    assert lifetime_s(comma.join([*around, "max-age=60", "no-store"])) == 0
    assert asks_for_fresh(comma.join([*around[:at], "no-cache", *around[at:]]))
    assert not asks_for_fresh(comma.join(around))


lists = st.text() | st.text(st.sampled_from('max-age=s0169,";\\ \t*no-stre'), max_size=30)


@quick
@given(st.none() | lists, st.none() | st.text(), st.none() | st.text())
def test_any_headers_mean_a_time_that_a_cache_can_count(
    cache_control: str | None, age: str | None, vary: str | None
) -> None:
    assert 0 <= lifetime_s(cache_control, age, vary) <= LONGEST
    assert asks_for_fresh(cache_control, age) in (True, False)


@quick
@given(lists)
def test_what_forbids_keeping_does_so_whatever_else_is_said(around: str) -> None:
    for forbidding in ("no-store", "no-cache", "private"):
        assert lifetime_s(f"{forbidding}, max-age=60, {around}") == 0


@pytest.mark.parametrize(
    "field",
    [
        "a," * (32 << 10),
        "," * (64 << 10),
        "a" + " " * (64 << 10) + "!",
        "a" * (64 << 10) + "!",
        "a=" + "x" * (64 << 10) + "!",
        'a="' + "\\\\" * (32 << 10),
        'a="' + "\\" * (64 << 10),
        " " * (64 << 10),
        "\t!" * (32 << 10),
        "max-age=" + "9" * (64 << 10),
    ],
    ids=lambda field: ascii(field[:6]),
)
def test_a_long_field_is_read_at_once(field: str) -> None:
    begun = time.thread_time()
    lifetime_s(field, field, field)
    asks_for_fresh(field, field)
    assert time.thread_time() - begun < 0.5

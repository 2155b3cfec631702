"""The small fields of a request: each given once, bounded while it comes, decoded at the end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.errors import Malformed, MissingArgument, NameNotAllowed
from twistedmedia.web.arguments import MAX_FIELD_BYTES, Arguments

NAMES = ("directory", "filename")


def fields_of(query: dict[bytes, list[bytes]] | None = None) -> Arguments:
    return Arguments(query or {}, NAMES)


def test_a_field_of_the_query_has_its_value() -> None:
    fields = fields_of({b"directory": [b"caf\xc3\xa9/%41+"], b"filename": [b"a.mp3"]})
    assert fields.require("directory") == "café/%41+"  # it was decoded before
    assert fields.require("filename") == "a.mp3"


def test_a_field_of_the_form_is_put_together_and_decoded() -> None:
    fields = fields_of()
    fields.begin("directory")
    for piece in (b"caf%C3", b"%A9", b"/a+b%2B"):
        fields.add_encoded("directory", piece)
    assert fields.require("directory") == "café/a b+"


def test_fields_of_query_and_form_count_alike() -> None:
    fields = fields_of({b"directory": [b"a"]})
    fields.begin("filename")
    fields.add_encoded("filename", b"b.mp3")
    assert (fields.require("directory"), fields.require("filename")) == ("a", "b.mp3")


def test_a_field_twice_in_the_query_is_malformed() -> None:
    """Case 37: of two values neither is the true one."""
    with pytest.raises(Malformed, match="'directory' is given twice"):
        fields_of({b"directory": [b"a", b"a"]})


@pytest.mark.parametrize("first", [b"a", b""])
def test_a_field_in_the_query_and_in_the_form_is_malformed(first: bytes) -> None:
    """Case 37."""
    fields = fields_of({b"filename": [first]})
    with pytest.raises(Malformed, match="'filename' is given twice"):
        fields.begin("filename")


@pytest.mark.parametrize("name", ["directory", "body", "other", ""])
def test_a_field_twice_in_the_form_is_malformed(name: str) -> None:
    """Case 37."""
    fields = fields_of()
    fields.begin(name)
    with pytest.raises(Malformed, match="is given twice"):
        fields.begin(name)


def test_other_fields_of_the_query_do_not_count() -> None:
    fields = fields_of({b"body": [b"x"], b"Directory": [b"b"], b"directory[]": [b"c", b"d"]})
    fields.begin("body")
    for name in ("body", "directory"):
        with pytest.raises(MissingArgument):
            fields.require(name)


@pytest.mark.parametrize("given_as", ["nothing", "query", "form", "form, nothing follows"])
def test_a_field_that_is_absent_or_empty_is_missing(given_as: str) -> None:
    fields = fields_of({b"directory": [b""]} if given_as == "query" else None)
    if given_as.startswith("form"):
        fields.begin("directory")
    if given_as == "form":
        fields.add_encoded("directory", b"")
    with pytest.raises(MissingArgument) as caught:
        fields.require("directory")
    assert caught.value.argument == "directory"


def test_a_value_that_is_not_utf8_is_no_name() -> None:
    """Cases 32 and 35."""
    fields = fields_of({b"directory": [b"\xff"]})
    fields.begin("filename")
    fields.add_encoded("filename", b"%C0%AF.mp3")
    for name in NAMES:
        with pytest.raises(NameNotAllowed, match="UTF-8"):
            fields.require(name)


def test_half_a_character_is_not_judged_before_its_other_half() -> None:
    fields = fields_of()
    fields.begin("directory")
    fields.add_encoded("directory", b"%F0%9F")
    fields.add_encoded("directory", b"%8E%B5")
    assert fields.require("directory") == "🎵"


def test_what_is_decoded_once_is_not_decoded_again() -> None:
    """Case 32: double encoding."""
    fields = fields_of()
    fields.begin("directory")
    fields.add_encoded("directory", b"%252e%252e%252f")
    assert fields.require("directory") == "%2e%2e%2f"


def test_a_broken_escape_is_malformed() -> None:
    fields = fields_of()
    fields.begin("directory")
    with pytest.raises(Malformed, match="escape"):
        fields.add_encoded("directory", b"%zz")


@pytest.mark.parametrize("size", [1, 100, MAX_FIELD_BYTES])
def test_a_field_has_as_many_bytes_as_it_may_and_is_refused_while_it_comes(size: int) -> None:
    """Case 16: with the first byte over the cap, not at the end of the field."""
    fields = fields_of()
    fields.begin("directory")
    for start in range(0, MAX_FIELD_BYTES, size):
        fields.add_encoded("directory", b"d" * min(size, MAX_FIELD_BYTES - start))
    with pytest.raises(Malformed, match=f"'directory' is longer than {MAX_FIELD_BYTES} bytes"):
        fields.add_encoded("directory", b"d")


def test_the_longest_name_fits_with_every_byte_escaped() -> None:
    """Case 35."""
    fields = fields_of()
    fields.begin("directory")
    fields.add_encoded("directory", b"%64" * 1024)
    assert fields.require("directory") == "d" * 1024


def test_a_reason_shows_of_a_long_field_name_no_more_than_its_beginning() -> None:
    """Case 35."""
    fields = fields_of()
    fields.begin("n\n" * 500)
    with pytest.raises(Malformed) as caught:
        fields.begin("n\n" * 500)
    assert len(caught.value.reason) < 200
    assert len(caught.value.reason.splitlines()) == 1


# What comes as it is, not urlencoded


@pytest.mark.parametrize("value", ["a b+c", "%41%2f", "%zz", "a&b=c", "caf\u00e9", "\0\r\n", "%"])
def test_a_value_that_is_given_as_it_is_is_not_decoded(value: str) -> None:
    """Case 32: double encoding."""
    fields = fields_of()
    fields.begin("directory")
    fields.add("directory", value.encode())
    assert fields.require("directory") == value
    assert fields.has("directory")


def test_a_value_that_is_given_in_pieces_is_put_together() -> None:
    fields = fields_of()
    fields.begin("directory")
    for piece in (b"a%", b"", b"\xf0\x9f", b"\x8e\xb5"):
        fields.add("directory", piece)
    assert fields.require("directory") == "a%\U0001f3b5"


@pytest.mark.parametrize("size", [1, 100, MAX_FIELD_BYTES])
def test_a_value_that_is_given_is_bounded_while_it_comes(size: int) -> None:
    """Case 16."""
    fields = fields_of()
    fields.begin("directory")
    for start in range(0, MAX_FIELD_BYTES, size):
        fields.add("directory", b"%" * min(size, MAX_FIELD_BYTES - start))
    with pytest.raises(Malformed, match=f"'directory' is longer than {MAX_FIELD_BYTES} bytes"):
        fields.add("directory", b"%")
    assert len(fields.require("directory")) == MAX_FIELD_BYTES


def test_a_value_that_is_given_has_the_bound_of_one_that_is_decoded() -> None:
    fields = fields_of()
    fields.begin("directory")
    fields.add_encoded("directory", b"%64" * MAX_FIELD_BYTES)
    with pytest.raises(Malformed, match="is longer than"):
        fields.add("directory", b"d")


@pytest.mark.parametrize("value", [b"\xff", b"\xc0\xaf", "\ud800".encode("utf-8", "surrogatepass")])
def test_a_value_that_is_given_and_is_not_utf8_is_no_name(value: bytes) -> None:
    """Cases 32 and 35: of JSON a lone surrogate can come."""
    fields = fields_of()
    fields.begin("directory")
    fields.add("directory", value)
    with pytest.raises(NameNotAllowed, match="UTF-8"):
        fields.require("directory")


def test_nothing_that_is_given_is_missing_and_yet_was_given() -> None:
    fields = fields_of()
    assert not fields.has("directory")
    fields.begin("directory")
    fields.add("directory", b"")
    assert fields.has("directory")
    with pytest.raises(MissingArgument):
        fields.require("directory")


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=20), max_size=6))
def test_any_pieces_that_are_given_are_the_text_that_they_make(pieces: list[bytes]) -> None:
    fields = fields_of()
    fields.begin("directory")
    for piece in pieces:
        fields.add("directory", piece)
    data = b"".join(pieces)
    try:
        text = fields.require("directory")
    except MissingArgument:
        assert data == b""
    except NameNotAllowed:
        with pytest.raises(UnicodeDecodeError):
            data.decode()
    else:
        assert text.encode() == data


@settings(max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from([b"directory", b"filename", b"body"]), st.lists(st.binary(), max_size=2)
    ),
    st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=9)), max_size=4),
)
def test_any_fields_are_texts_or_one_of_our_errors(
    query: dict[bytes, list[bytes]], form: list[tuple[str, bytes]]
) -> None:
    try:
        fields = fields_of(query)
        for name, value in form:
            fields.begin(name)
            fields.add_encoded(name, value)
        assert all(fields.require(name) for name in NAMES)
    except (Malformed, MissingArgument, NameNotAllowed):
        return
    given_twice = [name for name, _ in form if query.get(name.encode())]
    assert not given_twice

"""Fields of a request: each given once, limited while it is received, decoded at the end."""

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


def test_a_field_of_the_form_is_joined_and_decoded() -> None:
    fields = fields_of()
    fields.begin("directory")
    for piece in (b"caf%C3", b"%A9", b"/a+b%2B"):
        fields.add_encoded("directory", piece)
    assert fields.require("directory") == "café/a b+"


def test_fields_of_query_and_form_are_equivalent() -> None:
    fields = fields_of({b"directory": [b"a"]})
    fields.begin("filename")
    fields.add_encoded("filename", b"b.mp3")
    assert (fields.require("directory"), fields.require("filename")) == ("a", "b.mp3")


def test_a_field_twice_in_the_query_is_malformed() -> None:
    """Case 37: neither value takes precedence."""
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


def test_other_fields_of_the_query_are_ignored() -> None:
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


def test_a_value_that_is_not_utf8_is_not_allowed_as_a_name() -> None:
    """Cases 32 and 35."""
    fields = fields_of({b"directory": [b"\xff"]})
    fields.begin("filename")
    fields.add_encoded("filename", b"%C0%AF.mp3")
    for name in NAMES:
        with pytest.raises(NameNotAllowed, match="UTF-8"):
            fields.require(name)


def test_half_a_character_is_accepted_until_the_value_is_complete() -> None:
    fields = fields_of()
    fields.begin("directory")
    fields.add_encoded("directory", b"%F0%9F")
    fields.add_encoded("directory", b"%8E%B5")
    assert fields.require("directory") == "🎵"


def test_a_value_is_not_decoded_twice() -> None:
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
def test_a_field_with_one_byte_more_than_the_limit_is_refused_while_it_is_received(
    size: int,
) -> None:
    """Case 16: at the first byte over the limit, not at the end of the field."""
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


def test_a_reason_shows_only_the_beginning_of_a_long_field_name() -> None:
    """Case 35."""
    fields = fields_of()
    fields.begin("n\n" * 500)
    with pytest.raises(Malformed) as caught:
        fields.begin("n\n" * 500)
    assert len(caught.value.reason) < 200
    assert len(caught.value.reason.splitlines()) == 1


# Values that are not urlencoded


@pytest.mark.parametrize("value", ["a b+c", "%41%2f", "%zz", "a&b=c", "caf\u00e9", "\0\r\n", "%"])
def test_a_value_that_is_not_encoded_is_not_decoded(value: str) -> None:
    """Case 32: double encoding."""
    fields = fields_of()
    fields.begin("directory")
    fields.add("directory", value.encode())
    assert fields.require("directory") == value
    assert fields.has("directory")


def test_pieces_of_a_value_that_is_not_encoded_are_joined() -> None:
    fields = fields_of()
    fields.begin("directory")
    for piece in (b"a%", b"", b"\xf0\x9f", b"\x8e\xb5"):
        fields.add("directory", piece)
    assert fields.require("directory") == "a%\U0001f3b5"


@pytest.mark.parametrize("size", [1, 100, MAX_FIELD_BYTES])
def test_a_value_that_is_not_encoded_is_limited_while_it_is_received(size: int) -> None:
    """Case 16."""
    fields = fields_of()
    fields.begin("directory")
    for start in range(0, MAX_FIELD_BYTES, size):
        fields.add("directory", b"%" * min(size, MAX_FIELD_BYTES - start))
    with pytest.raises(Malformed, match=f"'directory' is longer than {MAX_FIELD_BYTES} bytes"):
        fields.add("directory", b"%")
    assert len(fields.require("directory")) == MAX_FIELD_BYTES


def test_encoded_and_other_values_have_the_same_limit() -> None:
    fields = fields_of()
    fields.begin("directory")
    fields.add_encoded("directory", b"%64" * MAX_FIELD_BYTES)
    with pytest.raises(Malformed, match="is longer than"):
        fields.add("directory", b"d")


@pytest.mark.parametrize("value", [b"\xff", b"\xc0\xaf", "\ud800".encode("utf-8", "surrogatepass")])
def test_a_value_that_is_neither_encoded_nor_utf8_is_not_allowed_as_a_name(value: bytes) -> None:
    """Cases 32 and 35: JSON can contain a lone surrogate."""
    fields = fields_of()
    fields.begin("directory")
    fields.add("directory", value)
    with pytest.raises(NameNotAllowed, match="UTF-8"):
        fields.require("directory")


def test_an_empty_value_is_missing_although_the_field_is_given() -> None:
    fields = fields_of()
    assert not fields.has("directory")
    fields.begin("directory")
    fields.add("directory", b"")
    assert fields.has("directory")
    with pytest.raises(MissingArgument):
        fields.require("directory")


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=20), max_size=6))
def test_any_pieces_of_a_value_are_the_joined_text(pieces: list[bytes]) -> None:
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
def test_any_fields_give_texts_or_a_media_error(
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

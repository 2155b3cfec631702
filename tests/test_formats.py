"""The formats that are known, and how an operator chooses among them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.formats import MEDIA_TYPES, parse_formats


def test_each_known_extension_has_its_registered_media_type() -> None:
    assert MEDIA_TYPES == {
        "mp3": "audio/mpeg",
        "wav": "audio/wav",
        "ogg": "audio/ogg",
        "oga": "audio/ogg",
        "opus": "audio/ogg",
        "flac": "audio/flac",
        "m4a": "audio/mp4",
        "aac": "audio/aac",
    }


@pytest.mark.parametrize(
    ("text", "formats"),
    [
        ("mp3,wav", {"mp3", "wav"}),
        ("MP3", {"mp3"}),
        (" Ogg , opus ", {"ogg", "opus"}),
        (".mp3,.FLAC", {"mp3", "flac"}),
        ("mp3,mp3,,", {"mp3"}),
        ("mp3,wav,ogg,oga,opus,flac,m4a,aac", set(MEDIA_TYPES)),
    ],
)
def test_a_list_of_formats_is_read_in_any_case(text: str, formats: set[str]) -> None:
    assert parse_formats(text) == formats


@pytest.mark.parametrize("text", ["exe", "mp3,exe", "mp3 wav", "mp3;wav", "..mp3", "audio/mpeg"])
def test_an_unknown_format_is_named_beside_those_that_are_known(text: str) -> None:
    with pytest.raises(ValueError, match="is not a known format; known are mp3, wav, ") as caught:
        parse_formats(text)
    assert repr(text.split(",")[-1].removeprefix(".")) in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", ",", " , ,"])
def test_no_format_at_all_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no format is given; known are mp3, "):
        parse_formats(text)


listed = st.lists(st.sampled_from([*MEDIA_TYPES, "MP3", ".wav", " ogg", "exe", ""])).map(",".join)


@settings(max_examples=200, deadline=None)
@given(listed | st.text())
def test_any_text_is_known_formats_or_a_value_error_on_one_line(text: str) -> None:
    try:
        formats = parse_formats(text)
    except ValueError as error:
        lines = str(error).splitlines()
    else:
        assert formats
        assert formats <= MEDIA_TYPES.keys()
        return
    assert len(lines) == 1

"""The known formats, and the option that chooses among them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.formats import MEDIA_TYPES, parse_formats


def test_each_known_extension_has_its_registered_media_type() -> None:
    """Case 72. Raw samples do not have one."""
    assert MEDIA_TYPES == {
        "mp3": "audio/mpeg",
        "wav": "audio/wav",
        "ogg": "audio/ogg",
        "oga": "audio/ogg",
        "opus": "audio/ogg",
        "flac": "audio/flac",
        "m4a": "audio/mp4",
        "aac": "audio/aac",
        "webm": "audio/webm",
        "weba": "audio/webm",
        "mka": "audio/matroska",
        "aiff": "audio/aiff",
        "aif": "audio/aiff",
        "caf": "audio/x-caf",
        "amr": "audio/amr",
        "awb": "audio/amr-wb",
        "wma": "audio/x-ms-wma",
        "gsm": "application/octet-stream",
        "ulaw": "application/octet-stream",
        "ul": "application/octet-stream",
        "alaw": "application/octet-stream",
        "al": "application/octet-stream",
        "g722": "application/octet-stream",
        "g729": "application/octet-stream",
        "sln": "application/octet-stream",
        "sln16": "application/octet-stream",
        "sln48": "application/octet-stream",
    }


KNOWN = "mp3,wav,ogg,oga,opus,flac,m4a,aac,webm,weba,mka,aiff,aif,caf,amr,awb,gsm,ulaw,alaw,ul,al"


@pytest.mark.parametrize(
    ("text", "formats"),
    [
        ("mp3,wav", {"mp3", "wav"}),
        ("MP3", {"mp3"}),
        (" Ogg , opus ", {"ogg", "opus"}),
        (".mp3,.FLAC", {"mp3", "flac"}),
        ("mp3,mp3,,", {"mp3"}),
        (f"{KNOWN},sln,sln16,sln48,g722,g729,wma", set(MEDIA_TYPES)),
    ],
)
def test_a_list_of_formats_is_read_in_any_case(text: str, formats: set[str]) -> None:
    """Case 72."""
    assert parse_formats(text) == {each: MEDIA_TYPES[each] for each in formats}


@pytest.mark.parametrize(
    ("text", "formats"),
    [
        ("clip=audio/x-clip", {"clip": "audio/x-clip"}),
        ("wav, .CLIP = audio/X-Clip ", {"wav": "audio/wav", "clip": "audio/x-clip"}),
        ("wav=audio/vnd.wave", {"wav": "audio/vnd.wave"}),
        ("gsm=audio/gsm", {"gsm": "audio/gsm"}),
        ("mov=video/quicktime", {"mov": "video/quicktime"}),
        ("bin=application/octet-stream", {"bin": "application/octet-stream"}),
        ("l16=audio/L16;rate=8000; channels=1", {"l16": "audio/l16;rate=8000; channels=1"}),
        ("clip=audio/x-clip,clip=audio/x-clip", {"clip": "audio/x-clip"}),
        ("clip=audio/x-clip,clip=AUDIO/X-Clip", {"clip": "audio/x-clip"}),
        ("bin=APPLICATION/Octet-Stream", {"bin": "application/octet-stream"}),
        ("clip=audio/X; Codecs=MP4A.40; P=Q", {"clip": "audio/x; codecs=MP4A.40; p=Q"}),
        ("clip=audio/xml; a=b+xml", {"clip": "audio/xml; a=b+xml"}),
    ],
)
def test_any_other_format_can_be_named(text: str, formats: dict[str, str]) -> None:
    """Case 72."""
    assert parse_formats(text) == formats


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("page=text/html", "'text/html' is not a media type that a format may have"),
        ("pic=image/svg+xml", "'image/svg+xml' is not a media type"),
        ("x=audio/svg+xml", "'audio/svg+xml' is not a media type that a format may have"),
        ("x=Audio/X+XML", "'Audio/X+XML' is not"),
        ("x=video/+xml ; a=b", "'video/+xml ; a=b' is not"),
        ("x=audio/x+xml", "and does not end in +xml"),
        ("x=application/xhtml+xml", "it is audio/..., video/... or application/octet-stream"),
        ("x=application/xml", "'application/xml' is not"),
        ("x=multipart/mixed", "'multipart/mixed' is not"),
        ("x=application/octet-streams", "'application/octet-streams' is not"),
        ("x=audio", "'audio' is not"),
        ("x=audio/", "'audio/' is not"),
        ("x=", "'' is not a media type"),
        ("x=audio/a b", "'audio/a b' is not"),
        ("x=audio/a\r\nX: y", "is not a media type"),
        ("x=audio/ü", "'audio/ü' is not"),
        ("x=audio/a/b", "'audio/a/b' is not"),
        ("=audio/x", "'' is not an extension"),
        ("a.b=audio/x", "'a.b' is not an extension"),
        ("a/b=audio/x", "'a/b' is not an extension"),
        ("a b=audio/x", "'a b' is not an extension"),
        ("ä=audio/x", "'ä' is not an extension"),
        ("a" * 33 + "=audio/x", "is not an extension"),
        ("clip=audio/a,clip=audio/b", "'clip' is given two media types"),
        ("wav,wav=audio/x", "'wav' is given two media types"),
        ("clip", "to allow another, name its media type, like clip=audio/x-clip"),
    ],
)
def test_an_invalid_format_is_an_error_on_one_line(text: str, why: str) -> None:
    """Case 72: types that a browser runs as documents are not allowed."""
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        parse_formats(text)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["exe", "mp3,exe", "mp3 wav", "mp3;wav", "..mp3", "audio/mpeg"])
def test_the_error_names_the_unknown_format_and_the_known_ones(text: str) -> None:
    with pytest.raises(ValueError, match="is not a known format; known are mp3, wav, ") as caught:
        parse_formats(text)
    assert repr(text.split(",")[-1].removeprefix(".")) in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", ",", " , ,"])
def test_an_empty_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no format is given; known are mp3, "):
        parse_formats(text)


listed = st.lists(
    st.sampled_from(
        [*MEDIA_TYPES, "MP3", ".wav", " ogg", "exe", "", "clip=audio/x-clip", "a=text/html", "="]
    )
).map(",".join)


@settings(max_examples=200)
@given(listed | st.text())
def test_any_text_is_known_formats_or_a_value_error_on_one_line(text: str) -> None:
    try:
        formats = parse_formats(text)
    except ValueError as error:
        lines = str(error).splitlines()
    else:
        assert formats
        for extension, media_type in formats.items():
            assert extension in MEDIA_TYPES or "=" in text
            assert media_type.isprintable()
        return
    assert len(lines) == 1

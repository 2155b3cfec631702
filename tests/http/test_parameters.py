"""Content-Type and Content-Disposition as clients write them: what is read, and what is refused."""

from __future__ import annotations

import time
from base64 import b64encode
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.errors import Malformed
from twistedmedia.http.header_fields import content_type_of, disposition_parameters

FORM = "multipart/form-data"


@pytest.mark.parametrize(
    ("field", "parameters"),
    [
        ("multipart/form-data;\tboundary=B", {"boundary": "B"}),
        ("multipart/form-data\t;boundary=B", {"boundary": "B"}),
        ("multipart/form-data \t ;\t charset=utf-8 \t;\t boundary=B\t", {"boundary": "B"}),
        ("multipart/form-data;; boundary=B;", {"boundary": "B"}),
        ('multipart/form-data;\tboundary="B;C"\t;x=y', {"boundary": "B;C"}),
    ],
)
def test_blanks_and_tabs_stand_around_parameters(field: str, parameters: dict[str, str]) -> None:
    """Case 54: RFC 9110, 5.6.6."""
    media_type, found = content_type_of(field)
    assert media_type == FORM
    assert found.items() >= parameters.items()


@pytest.mark.parametrize(
    "boundary", ["--=_Part_1", "a=b", "=", "a:b/c?d", "a,b", "(a)", "a b", "----=_Part_0_1.2@x"]
)
def test_a_boundary_that_ought_to_be_quoted_ends_at_the_semicolon(boundary: str) -> None:
    """Case 62."""
    for behind in ("", ";", " ; charset=utf-8", ";charset=utf-8"):
        assert content_type_of(f"{FORM}; boundary={boundary}{behind}")[1]["boundary"] == boundary
    assert content_type_of(f'{FORM}; boundary="{boundary}"')[1] == {"boundary": boundary}


@pytest.mark.parametrize("second", ["boundary=C", "boundary=B", 'BOUNDARY="C"', "boundary="])
def test_two_boundaries_are_malformed(second: str) -> None:
    """Case 56: one program would take the first, the next one the last."""
    with pytest.raises(Malformed, match="two boundary parameters"):
        content_type_of(f"{FORM}; boundary=B; {second}")


def test_another_parameter_may_come_twice() -> None:
    field = "application/x-www-form-urlencoded; charset=UTF-8; charset=UTF-8"
    assert content_type_of(field)[0] == "application/x-www-form-urlencoded"


def test_a_content_type_costs_no_more_than_its_length() -> None:
    before = time.process_time()
    for filler in (" ", ";", "; ", '"', "\\", "a=", ";a=", ';a="', ';a="\\', "=?"):
        content_type_of(FORM + filler * 8000 + "x")
    assert time.process_time() - before < 1.0


# Names of parts


def word(text: str, charset: str = "utf-8") -> str:
    """`text` as .NET encodes it."""
    return f"=?{charset}?B?{b64encode(text.encode(charset)).decode()}?="


UMLAUT, EMOJI = "ü.wav", "🎵 take (1).wav"
FROM_DOT_NET = f"form-data; name=prompts; filename={word(UMLAUT)}; filename*=utf-8''%C3%BC.wav"


@pytest.mark.parametrize(
    ("field", "name", "filename"),
    [
        (FROM_DOT_NET, "prompts", UMLAUT),
        (FROM_DOT_NET.replace(word(UMLAUT), f'"{word(UMLAUT)}"'), "prompts", UMLAUT),
        (f"form-data; name=prompts; filename={word(EMOJI)}", "prompts", EMOJI),
        (f'form-data; name="{word("prüfung/ä")}"; filename=a.wav', "prüfung/ä", "a.wav"),
        ("form-data; name=d; filename*=UTF-8''%C3%BC.wav", "d", UMLAUT),
        ("form-data; name=d; filename*=utf-8'de'%C3%BC.wav; filename=u.wav", "d", UMLAUT),
        ("form-data; name=d; filename=u.wav; FILENAME*=utf-8''%c3%bc.wav", "d", UMLAUT),
        ("form-data; name=d; filename*=ISO-8859-1''%FC.wav; filename=u.wav", "d", UMLAUT),
        ("form-data; name=d; filename*=\"iso-8859-1''%FC.wav\"", "d", UMLAUT),  # Python's email
        ("form-data; name*=utf-8''pr%C3%BCfung; filename*=utf-8''%C3%BC.wav", "prüfung", UMLAUT),
        (f"form-data; name=d; filename*=utf-8''{quote(EMOJI, safe='')}", "d", EMOJI),
        ("form-data; name=d; filename*=utf-8''a%2Fb%00.wav", "d", "a/b\0.wav"),
        ("form-data; name=d; filename*=utf-8''", "d", ""),
        ('form-data; name=d; filename="=?iso-8859-1?Q?=FC=5Fa_b.wav?="', "d", "ü_a b.wav"),
        ('form-data; name=d; filename="=?utf-8?B?w7w=?= =?utf-8?B?LndhdiA=?="', "d", "ü.wav "),
        # What only looks like an encoded word, or stands within other text, is left alone.
        ('form-data; name=d; filename="a =?utf-8?B?w7w=?=.wav"', "d", "a =?utf-8?B?w7w=?=.wav"),
        ('form-data; name=d; filename="=?utf-8?B?!.wav?="', "d", "=?utf-8?B?!.wav?="),
        ('form-data; name=d; filename="=?what?=.wav"', "d", "=?what?=.wav"),
        ("form-data; name=d; other*=nonsense; filename=a.wav", "d", "a.wav"),
    ],
)
def test_a_part_has_the_name_that_its_sender_means(field: str, name: str, filename: str) -> None:
    """Cases 61 and 83: .NET, urllib3 1.x, Python's email package."""
    found = disposition_parameters(field)
    assert (found["name"], found["filename"]) == (name, filename)


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("filename*=w.wav", "'filename\\*' is not UTF-8"),
        ("filename*=utf-8'w.wav", "'filename\\*' is not UTF-8"),
        ("filename*=''w.wav", "'filename\\*' is not UTF-8"),
        ("filename*=utf-8''%zz.wav", "'filename\\*' is not UTF-8"),
        ("filename*=utf-8''%C3.wav", "'filename\\*' is not UTF-8"),
        ("filename*=utf-8''%C3%.wav", "'filename\\*' is not UTF-8"),
        ("filename*=utf-16''%00w", "'filename\\*' is not UTF-8"),
        ("filename*=koi8-r''%C1.wav; filename=a.wav", "'filename\\*' is not UTF-8"),
        ("filename*=\"utf-8''a b.wav\"", "'filename\\*' is not UTF-8"),
        ("filename*=utf-8''a.wav; filename*=utf-8''a.wav", "'filename\\*' is given twice"),
        ("filename*=utf-8''a/b.wav", "cannot be understood"),
        ("filename*0=a; filename*1=.wav", "several pieces"),
        ("filename*0*=utf-8''a.wav; filename=a.wav", "several pieces"),
        ('filename="=?utf-8?B?/w==?="', "encoded word"),
        ('filename="=?punycode?B?YS53YXY=?="', "encoded word"),
        ("filename==?utf-8?B?w7w=?=x", "cannot be understood"),
    ],
)
def test_a_name_that_is_encoded_wrongly_is_refused(rest: str, why: str) -> None:
    """Case 61."""
    with pytest.raises(ValueError, match=why) as caught:
        disposition_parameters(f"form-data; name=d; {rest}")
    assert not isinstance(caught.value, UnicodeError)


@settings(max_examples=200)
@given(st.text(min_size=1).filter(lambda text: text.isprintable()), st.booleans())
def test_any_name_arrives_in_every_encoding_as_it_was_sent(name: str, quoted: bool) -> None:
    for value in (f"=?utf-8?B?{b64encode(name.encode()).decode()}?=",):
        shown = f'"{value}"' if quoted else value
        assert disposition_parameters(f"form-data; filename={shown}")["filename"] == name
    extended = f"utf-8''{quote(name, safe='')}"
    assert disposition_parameters(f"form-data; filename*={extended}")["filename"] == name


@settings(max_examples=300)
@given(st.text() | st.text("=?utf-8BQ'%\"\\; *nameé"))
def test_any_disposition_has_parameters_or_is_refused(rest: str) -> None:
    """Case 19."""
    for between in (" filename", " filename*=utf-8''", ' filename="=?utf-8?B?', " "):
        try:
            found = disposition_parameters(f"form-data;{between}{rest}")
        except ValueError as error:
            assert str(error)  # noqa: PT017  # the other outcome is as good
        else:
            assert all(isinstance(value, str) for value in found.values())

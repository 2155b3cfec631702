"""`header_fields`: Content-Type and Content-Disposition as clients send them."""

from __future__ import annotations

import time
from base64 import b64encode
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.errors import Malformed
from twistedmedia.http.header_fields import disposition_parameters, parse_content_type

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
def test_blanks_and_tabs_around_parameters_are_ignored(
    field: str, parameters: dict[str, str]
) -> None:
    """Case 54: RFC 9110, 5.6.6."""
    media_type, found = parse_content_type(field)
    assert media_type == FORM
    assert found.items() >= parameters.items()


@pytest.mark.parametrize(
    "boundary", ["--=_Part_1", "a=b", "=", "a:b/c?d", "a,b", "(a)", "a b", "----=_Part_0_1.2@x"]
)
def test_a_boundary_without_its_quotes_ends_at_the_semicolon(boundary: str) -> None:
    """Case 62."""
    for rest in ("", ";", " ; charset=utf-8", ";charset=utf-8"):
        assert parse_content_type(f"{FORM}; boundary={boundary}{rest}")[1]["boundary"] == boundary
    assert parse_content_type(f'{FORM}; boundary="{boundary}"')[1] == {"boundary": boundary}


@pytest.mark.parametrize("second", ["boundary=C", "boundary=B", 'BOUNDARY="C"', "boundary="])
def test_two_boundaries_are_malformed(second: str) -> None:
    """Case 56: some programs use the first, others the last."""
    with pytest.raises(Malformed, match="two boundary parameters"):
        parse_content_type(f"{FORM}; boundary=B; {second}")


def test_other_parameters_may_be_repeated() -> None:
    field = "application/x-www-form-urlencoded; charset=UTF-8; charset=UTF-8"
    assert parse_content_type(field)[0] == "application/x-www-form-urlencoded"


def test_parsing_a_content_type_takes_linear_time() -> None:
    before = time.process_time()
    for filler in (" ", ";", "; ", '"', "\\", "a=", ";a=", ';a="', ';a="\\', "=?"):
        parse_content_type(FORM + filler * 8000 + "x")
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
        # Invalid encoded words, and those within other text, are not decoded.
        ('form-data; name=d; filename="a =?utf-8?B?w7w=?=.wav"', "d", "a =?utf-8?B?w7w=?=.wav"),
        ('form-data; name=d; filename="=?utf-8?B?!.wav?="', "d", "=?utf-8?B?!.wav?="),
        ('form-data; name=d; filename="=?what?=.wav"', "d", "=?what?=.wav"),
        ("form-data; name=d; other*=nonsense; filename=a.wav", "d", "a.wav"),
    ],
)
def test_names_are_decoded_as_known_clients_encode_them(
    field: str, name: str, filename: str
) -> None:
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
        ("filename*=utf-8''a/b.wav", "cannot be parsed"),
        ("filename*0=a; filename*1=.wav", "several pieces"),
        ("filename*0*=utf-8''a.wav; filename=a.wav", "several pieces"),
        ('filename="=?utf-8?B?/w==?="', "encoded word"),
        ('filename="=?punycode?B?YS53YXY=?="', "encoded word"),
        ("filename==?utf-8?B?w7w=?=x", "cannot be parsed"),
    ],
)
def test_an_incorrectly_encoded_name_is_refused(rest: str, why: str) -> None:
    """Case 61."""
    with pytest.raises(ValueError, match=why) as caught:
        disposition_parameters(f"form-data; name=d; {rest}")
    assert not isinstance(caught.value, UnicodeError)


@settings(max_examples=200)
@given(st.text(min_size=1).filter(lambda text: text.isprintable()), st.booleans())
def test_any_name_is_decoded_from_every_encoding(name: str, quoted: bool) -> None:
    for value in (f"=?utf-8?B?{b64encode(name.encode()).decode()}?=",):
        shown = f'"{value}"' if quoted else value
        assert disposition_parameters(f"form-data; filename={shown}")["filename"] == name
    extended = f"utf-8''{quote(name, safe='')}"
    assert disposition_parameters(f"form-data; filename*={extended}")["filename"] == name


@settings(max_examples=300)
@given(st.text() | st.text("=?utf-8BQ'%\"\\; *nameé"))
def test_any_disposition_is_parsed_or_refused(rest: str) -> None:
    """Case 19."""
    for between in (" filename", " filename*=utf-8''", ' filename="=?utf-8?B?', " "):
        try:
            found = disposition_parameters(f"form-data;{between}{rest}")
        except ValueError as error:
            assert str(error)  # noqa: PT017  # both outcomes are right
        else:
            assert all(isinstance(value, str) for value in found.values())

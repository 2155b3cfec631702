"""The Content-Disposition of a download, for any allowed name (RFC 6266)."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedmedia.names import media_name
from twistedmedia.web.downloads import _disposition

# RFC 6266, 4.1, restricted to the form that the service writes.
HEADER = re.compile(
    r"(inline|attachment); filename=\"([ !#-\[\]-~]*)\"(?:; filename\*=UTF-8''([A-Za-z0-9._~%-]*))?"
)


def filename_in(header: str) -> str:
    """The filename for a client that implements RFC 6266."""
    match = HEADER.fullmatch(header)
    assert match is not None
    return match[2] if match[3] is None else unquote(match[3], errors="strict")


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("hello.mp3", 'inline; filename="hello.mp3"'),
        ("a b;c.mp3", 'inline; filename="a b;c.mp3"'),
        ('a"b.mp3', "inline; filename=\"a_b.mp3\"; filename*=UTF-8''a%22b.mp3"),
        ("100%41.mp3", "inline; filename=\"100_41.mp3\"; filename*=UTF-8''100%2541.mp3"),
        ("é🎵.mp3", "inline; filename=\"__.mp3\"; filename*=UTF-8''%C3%A9%F0%9F%8E%B5.mp3"),
        ("a'b(c).mp3", 'inline; filename="a\'b(c).mp3"'),
        ("é'*.mp3", "inline; filename=\"_'*.mp3\"; filename*=UTF-8''%C3%A9%27%2A.mp3"),
        ("a\u2028b.mp3", "inline; filename=\"a_b.mp3\"; filename*=UTF-8''a%E2%80%A8b.mp3"),
    ],
)
def test_old_clients_get_an_ascii_name_and_others_the_exact_one(filename: str, header: str) -> None:
    """Case 35."""
    assert _disposition(media_name("d", filename).filename, attachment=False) == header


def test_an_attachment_has_the_type_attachment() -> None:
    assert _disposition("a.mp3", attachment=True) == 'attachment; filename="a.mp3"'


@settings(max_examples=200)
@given(
    st.text(
        st.sampled_from("\"\\;%='é🎵 ")
        | st.characters(exclude_categories=("Cs",), exclude_characters="/"),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
def test_no_filename_breaks_out_of_the_header_or_is_lost_in_it(
    filename: str, attachment: bool
) -> None:
    """Case 35: header injection, also by files that an administrator has put into the root."""
    header = _disposition(filename, attachment=attachment)
    assert filename_in(header) == filename
    assert header.startswith("attachment" if attachment else "inline")

"""Which names are allowed, and that all others are refused (docs/http.md, Names)."""

from __future__ import annotations

import posixpath
import re
import time
import unicodedata
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import named
from twistedmedia.errors import MediaError, MissingArgument, NameNotAllowed
from twistedmedia.names import MediaName, decode, media_name, media_name_from_path

quick = settings(max_examples=200)

FORBIDDEN = ("Cc", "Cf", "Cs")

ALLOWED = {
    "plain": ("prompts/en", "hello.mp3", "prompts/en/hello.mp3"),
    "backslashes in the directory": ("prompts\\en", "hello.mp3", "prompts/en/hello.mp3"),
    "a trailing slash": ("prompts/en/", "hello.mp3", "prompts/en/hello.mp3"),
    "a trailing backslash": ("prompts\\", "hello.mp3", "prompts/hello.mp3"),
    "no extension": ("a", "hello", "a/hello"),
    "dots inside": ("a..b", "c..d...mp3", "a..b/c..d...mp3"),
    "a dot at the end": ("a.", "b.", "a./b."),
    "spaces": (" a ", " b .mp3", " a / b .mp3"),
    "quotes and shell signs": ("'$(x)`", 'a"b;c*?.mp3', "'$(x)`/a\"b;c*?.mp3"),
    "what looks like an option": ("-rf", "--help.mp3", "-rf/--help.mp3"),
    "what looks like markup": ("<b>", "&amp;.mp3", "<b>/&amp;.mp3"),
    "device names": ("CON", "nul.mp3", "CON/nul.mp3"),
    "a drive": ("C:\\sounds", "a.mp3", "C:/sounds/a.mp3"),
    "escapes that are names": ("%2e%2e", "%2f.mp3", "%2e%2e/%2f.mp3"),
    "emoji": ("🎵", "🎶.mp3", "🎵/🎶.mp3"),
    "an ellipsis is no dot": ("…", "．．.mp3", "…/．．.mp3"),
    "NFD becomes NFC": ("cafe\u0301", "u\u0308.mp3", "caf\u00e9/\u00fc.mp3"),
    "NFKC is not applied": ("\ufb01", "x\u00b2.mp3", "\ufb01/x\u00b2.mp3"),
    "segments of 255 bytes": ("d" * 255, "f" * 251 + ".mp3", "d" * 255 + "/" + "f" * 251 + ".mp3"),
    "255 bytes once it is NFC": ("a", "e\u0301" * 127 + "x", "a/" + "\u00e9" * 127 + "x"),
    "what NFC shortens most": ("a", "\u1fbe\u0308\u0341" * 127, "a/" + "\u0390" * 127),
}

# Segments that are not allowed in any position, and words of the reason.
REFUSED_SEGMENTS = {
    "a dot": (".", "dot"),
    "two dots": ("..", "dot"),
    "three dots": ("...", "dot"),
    "a hidden file": (".hidden.mp3", "dot"),
    "NUL": ("a\0b", "U+0000"),
    "NUL at the end": ("a.mp3\0", "U+0000"),
    "line feed": ("a\nb", "U+000A"),
    "carriage return": ("a\rb", "U+000D"),
    "tab": ("a\tb", "U+0009"),
    "escape": ("a\x1b[2Jb", "U+001B"),
    "delete": ("a\x7fb", "U+007F"),
    "a C1 control": ("a\x85b", "U+0085"),
    "right to left override": ("a\u202e3pm.exe", "U+202E"),
    "an isolate": ("a\u2066b", "U+2066"),
    "zero width space": ("a\u200bb", "U+200B"),
    "byte order mark": ("\ufeffa", "U+FEFF"),
    "soft hyphen": ("a\u00adb", "U+00AD"),
    "an invisible tag": ("a\U000e0041b", "U+E0041"),
    "a surrogate": ("a\ud800b", "is not UTF-8"),
    "Latin-1, as Python reads it": ("caf\udce9.wav", "is not UTF-8"),
    "256 bytes": ("a" * 256, "255 bytes"),
    "256 bytes in 128 characters": ("\u00e9" * 128, "255 bytes"),
    "more than 255 bytes once it is NFC": ("\u0958" * 64, "255 bytes"),
}

REFUSED_DIRECTORIES = {
    "a slash": ("/", "begins with a slash"),
    "a backslash": ("\\", "begins with a slash"),
    "absolute": ("/etc", "begins with a slash"),
    "absolute with a backslash": ("\\etc", "begins with a slash"),
    "two slashes first": ("//host/share", "begins with a slash"),
    "an empty part": ("a//b", "empty"),
    "two trailing slashes": ("a//", "empty"),
    "an empty part of backslashes": ("a\\\\b", "empty"),
    "up": ("../a", "dot"),
    "up and down": ("a/../b", "dot"),
    "up with backslashes": ("a\\..\\b", "dot"),
    "up at the end": ("a/..", "dot"),
    "here": ("a/./b", "dot"),
    "a hidden folder": ("a/.git/hooks", "dot"),
}

REFUSED_FILENAMES = {
    "a path": ("a/b.mp3", "a slash"),
    "a Windows path": ("C:\\sounds\\b.mp3", "a backslash"),
    "up": ("../b.mp3", "slash"),
    "up with a backslash": ("..\\b.mp3", "slash"),
    "absolute": ("/etc/passwd", "slash"),
    "a slash at the end": ("b.mp3/", "slash"),
    "a slash": ("/", "slash"),
}


def rows(table: dict[str, tuple[str, ...]]) -> list[object]:
    return [pytest.param(*row, id=label) for label, row in table.items()]


@pytest.mark.parametrize(("directory", "filename", "written"), rows(ALLOWED))
def test_an_allowed_name_is_its_directory_a_slash_and_its_filename(
    directory: str, filename: str, written: str
) -> None:
    """Case 35."""
    assert str(media_name(directory, filename)) == written


@pytest.mark.parametrize(("segment", "why"), rows(REFUSED_SEGMENTS))
def test_a_bad_segment_is_refused_in_any_position(segment: str, why: str) -> None:
    """Cases 32 and 35."""
    places = [("a", segment), (segment, "b"), (f"{segment}/c", "b"), (f"a\\{segment}/", "b")]
    for directory, filename in places:
        with pytest.raises(NameNotAllowed, match=re.escape(why)):
            media_name(directory, filename)


@pytest.mark.parametrize(("directory", "why"), rows(REFUSED_DIRECTORIES))
def test_a_directory_that_leads_elsewhere_is_refused(directory: str, why: str) -> None:
    """Case 32."""
    with pytest.raises(NameNotAllowed, match=why):
        media_name(directory, "b.mp3")


@pytest.mark.parametrize(("filename", "why"), rows(REFUSED_FILENAMES))
def test_a_filename_with_a_slash_of_either_kind_is_refused(filename: str, why: str) -> None:
    """Case 32."""
    with pytest.raises(NameNotAllowed, match=why):
        media_name("a", filename)


@pytest.mark.parametrize(
    ("directory", "filename", "missing"),
    [("", "b.mp3", "directory"), ("a", "", "filename"), ("", "", "directory")],
)
def test_an_empty_argument_is_missing(directory: str, filename: str, missing: str) -> None:
    with pytest.raises(MissingArgument) as caught:
        media_name(directory, filename)
    assert caught.value.argument == missing


@pytest.mark.parametrize("letter", ["d", "\u00e9"])
def test_a_name_has_1024_bytes_at_most(letter: str) -> None:
    """Case 35."""
    size = len(letter.encode())
    directory = "/".join([letter * (250 // size)] * 4)  # 1,003 bytes, and 1,004 with its slash
    fitting = "f" * 20
    assert len(str(media_name(directory, fitting)).encode()) == 1024
    with pytest.raises(NameNotAllowed, match="1024 bytes"):
        media_name(directory, fitting + "f")


@pytest.mark.parametrize(
    ("directory", "filename"),
    [
        ("a", "a" + "\u0301\u0323" * 4000),
        ("a" + "\u0301\u0323" * 4000, "a"),
        ("/".join(["a" + "\u0301\u0323" * 60] * 64), "a"),
    ],
    ids=["the filename", "the directory", "many folders"],
)
def test_names_that_are_too_long_are_refused_as_fast_as_long_names_are_accepted(
    directory: str, filename: str
) -> None:
    """Case 85. The time of NFC grows with the square of a run of combining marks."""
    taken_s: list[float] = []
    for _ in range(5):
        began_s = time.thread_time()
        with pytest.raises(NameNotAllowed, match="longer than"):
            media_name(directory, filename)
        taken_s.append(time.thread_time() - began_s)
    assert min(taken_s) < 0.001


@pytest.mark.parametrize(
    ("filename", "extension"),
    [
        ("a.mp3", "mp3"),
        ("a.MP3", "mp3"),
        ("a.wav.Mp3", "mp3"),
        ("a.mp3.exe", "exe"),
        ("mp3", ""),
        ("a.", ""),
        ("a.mp3 ", "mp3 "),
        ("a.\uff4d\uff503", "\uff4d\uff503"),
    ],
)
def test_the_extension_is_what_follows_the_last_dot_in_lower_case(
    filename: str, extension: str
) -> None:
    assert media_name("a", filename).extension == extension


@pytest.mark.parametrize(
    ("written", "url_path"),
    [
        ("prompts/en/hello.mp3", "prompts/en/hello.mp3"),
        ("a/b c.mp3", "a/b%20c.mp3"),
        ("a/b?c#d.mp3", "a/b%3Fc%23d.mp3"),
        ("a/%2e%2e.mp3", "a/%252e%252e.mp3"),
        ('a/"<>`.mp3', "a/%22%3C%3E%60.mp3"),
        ("a/\u00fc.mp3", "a/%C3%BC.mp3"),
        ("a:b/c@d+e=f,g;h&i.mp3", "a:b/c@d+e=f,g;h&i.mp3"),
    ],
)
def test_a_url_contains_the_name_percent_encoded(written: str, url_path: str) -> None:
    assert named(written).url_path == url_path


PATHS = {
    "plain": ([b"prompts", b"en", b"hello.mp3"], "prompts/en/hello.mp3"),
    "one folder": ([b"a", b"b.mp3"], "a/b.mp3"),
    "UTF-8": (["cafe\u0301".encode(), "🎵.mp3".encode()], "caf\u00e9/🎵.mp3"),
    "encoded twice": ([b"%2e%2e", b"%2Fetc.mp3"], "%2e%2e/%2Fetc.mp3"),
    "a backslash in the directory": ([b"a\\b", b"c.mp3"], "a/b/c.mp3"),
}

BAD_PATHS = {
    "up": ([b"a", b"..", b"b.mp3"], NameNotAllowed),
    "up to begin with": ([b"..", b"b.mp3"], NameNotAllowed),
    "up as the filename": ([b"a", b".."], NameNotAllowed),
    "up with a backslash": ([b"a\\..", b"b.mp3"], NameNotAllowed),
    "an encoded slash": ([b"a", b"..//etc/passwd"], NameNotAllowed),
    "an encoded slash in the directory": ([b"a/b", b"c.mp3"], NameNotAllowed),
    "an encoded slash that trails": ([b"a/", b"c.mp3"], NameNotAllowed),
    "an encoded backslash": ([b"a", b"..\\b.mp3"], NameNotAllowed),
    "a slash too many first": ([b"", b"a", b"b.mp3"], NameNotAllowed),
    "a slash in place of the directory": ([b"", b"b.mp3"], NameNotAllowed),
    "two slashes too many": ([b"", b"", b"b.mp3"], NameNotAllowed),
    "a backslash first": ([b"\\a", b"b.mp3"], NameNotAllowed),
    "a slash too many inside": ([b"a", b"", b"b", b"c.mp3"], NameNotAllowed),
    "a slash too many before the filename": ([b"a", b"", b"c.mp3"], NameNotAllowed),
    "NUL": ([b"a", b"b.mp3\0.txt"], NameNotAllowed),
    "a line break": ([b"a", b"b\r\nX: y.mp3"], NameNotAllowed),
    "not UTF-8": ([b"a", b"\xff.mp3"], NameNotAllowed),
    "an overlong slash": ([b"a", b"..\xc0\xafb.mp3"], NameNotAllowed),
    "an encoded surrogate": ([b"a", b"\xed\xa0\x80.mp3"], NameNotAllowed),
    "a folder": ([b"a", b"b", b""], MissingArgument),
    "no directory": ([b"b.mp3"], MissingArgument),
    "nothing": ([b""], MissingArgument),
    "no segment at all": ([], MissingArgument),
}


@pytest.mark.parametrize(("segments", "written"), rows(PATHS))
def test_a_path_names_a_file_by_its_decoded_segments(segments: list[bytes], written: str) -> None:
    assert str(media_name_from_path(segments)) == written


@pytest.mark.parametrize(("segments", "error"), rows(BAD_PATHS))
def test_a_path_that_names_no_file_is_refused(
    segments: list[bytes], error: type[MediaError]
) -> None:
    """Case 32."""
    with pytest.raises(error):
        media_name_from_path(segments)


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(NameNotAllowed, match="UTF-8"):
        decode(b"caf\xe9")


# Special characters are as frequent as all others together.
hostile = st.text(
    st.one_of(
        st.sampled_from("./\\%\0\n\u202e\u0301\u0958\ud800~ a"),
        st.characters(codec=None),
    ),
    max_size=12,
)
lawful = st.text(
    st.characters(exclude_categories=FORBIDDEN, exclude_characters="/\\"), min_size=1, max_size=20
).filter(lambda text: not text.startswith("."))
long_or_short = st.one_of(hostile, hostile.map(lambda text: text * 40))


def assert_trustworthy(name: MediaName) -> None:
    """Checks without the code under test that a name cannot leave its root or confuse a reader."""
    written = str(name)
    assert len(written.encode()) <= 1024
    assert posixpath.normpath(f"/root/{written}") == f"/root/{written}"
    assert written.split("/") == [*name.folders, name.filename]
    assert name.folders
    for segment in written.split("/"):
        assert 1 <= len(segment.encode()) <= 255
        assert not segment.startswith(".")
        assert "\\" not in segment
        assert unicodedata.is_normalized("NFC", segment)
        assert not {unicodedata.category(letter) for letter in segment} & set(FORBIDDEN)


@quick
@given(long_or_short, long_or_short)
def test_any_two_texts_are_a_safe_name_or_one_of_our_errors(directory: str, filename: str) -> None:
    try:
        name = media_name(directory, filename)
    except (MissingArgument, NameNotAllowed):
        return
    assert_trustworthy(name)


@quick
@given(
    st.lists(
        st.one_of(st.binary(max_size=8), hostile.map(lambda text: text.encode(errors="replace"))),
        min_size=1,
        max_size=5,
    )
)
def test_any_path_is_a_safe_name_or_one_of_our_errors(segments: list[bytes]) -> None:
    try:
        name = media_name_from_path(segments)
    except (MissingArgument, NameNotAllowed):
        return
    assert_trustworthy(name)


@quick
@given(st.lists(lawful, min_size=1, max_size=5), lawful)
def test_every_valid_name_is_allowed_and_parses_from_its_own_spellings(
    folders: list[str], filename: str
) -> None:
    name = media_name("/".join(folders), filename)
    assert name.folders == tuple(unicodedata.normalize("NFC", folder) for folder in folders)
    assert name.filename == unicodedata.normalize("NFC", filename)
    assert media_name(name.directory, name.filename) == name
    segments = name.url_path.split("/")
    assert name.url_path.isascii()
    assert media_name_from_path([unquote_to_bytes(segment) for segment in segments]) == name

"""Both form decoders: events do not depend on the cuts, and memory and time are bounded."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twistedmedia.errors import Malformed
from twistedmedia.http.forms import (
    MAX_FIELD_NAME_BYTES,
    MAX_FILE_PARTS,
    MAX_OTHER_PARTS,
    MAX_OUTSIDE_BYTES,
    MAX_PADDING_BYTES,
    MAX_PART_HEADER_BYTES,
    MAX_PART_HEADERS,
    MAX_PIECE_BYTES,
    FormEvent,
    MultipartDecoder,
    PartBegins,
    PartEnds,
    UrlencodedDecoder,
    decode_urlencoded,
    decoded_size,
)
from twistedmedia.http.header_fields import parse_content_type

quick = settings(max_examples=200)

Part = tuple[str, str | None, bytes]  # name, filename, data
Decode = Callable[[Iterable[bytes]], list[Part]]

MIB = 1 << 20


def collect(events: Iterable[FormEvent], *, decode: Callable[[bytes], bytes]) -> list[Part]:
    """Return the parts that events describe. Fails if their order is wrong."""
    parts: list[Part] = []
    current: PartBegins | None = None
    data = b""
    for event in events:
        if isinstance(event, PartBegins):
            assert current is None
            current, data = event, b""
        elif isinstance(event, PartEnds):
            assert current is not None
            parts.append((current.name, current.filename, data))
            current = None
        else:
            assert current is not None
            assert event
            data += decode(event)
    assert current is None
    return parts


def multipart(pieces: Iterable[bytes], boundary: str = "B") -> list[Part]:
    """Return the parts of a multipart form that arrives in `pieces`."""

    def events() -> Iterator[FormEvent]:
        decoder = MultipartDecoder(boundary)
        for piece in pieces:
            yield from decoder.feed(piece)
        decoder.end()

    return collect(events(), decode=bytes)


def urlencoded(pieces: Iterable[bytes]) -> list[Part]:
    """Return the decoded parts of an urlencoded form that arrives in `pieces`."""

    def events() -> Iterator[FormEvent]:
        decoder = UrlencodedDecoder()
        for piece in pieces:
            yield from decoder.feed(piece)
        yield from decoder.end()

    return collect(events(), decode=decode_urlencoded)


def outcome(decode: Decode, pieces: Iterable[bytes]) -> list[Part] | type[Malformed]:
    """Return the parts, or Malformed if that is raised."""
    try:
        return decode(pieces)
    except Malformed:
        return Malformed


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """`data` cut at `places`, without empty pieces."""
    stops = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(stops)]


def bytes_until_malformed(
    decoder: MultipartDecoder | UrlencodedDecoder, pieces: Iterable[bytes]
) -> int:
    """Return how many bytes the decoder accepts, without an event, before it raises Malformed."""
    taken = 0
    for piece in pieces:
        taken += len(piece)
        try:
            events = list(decoder.feed(piece))
        except Malformed:
            return taken
        assert events == []
    pytest.fail(f"all {taken} bytes were taken")


def part(headers: bytes, data: bytes = b"data") -> bytes:
    return b"--B\r\n" + headers + b"\r\n\r\n" + data + b"\r\n"


def file_part(name: str = "d", filename: str = "f.mp3", data: bytes = b"data") -> bytes:
    header = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
    return part(header.encode(), data)


TEXT_PART = part(b'Content-Disposition: form-data; name="d"')
END = b"--B--\r\n"

# Multipart


def test_the_parts_of_a_browsers_form_are_in_order() -> None:
    form = (
        b"--B\r\n"
        b'Content-Disposition: form-data; name="note"\r\n'
        b"\r\n"
        b"two takes\r\n"
        b"--B\r\n"
        b'Content-Disposition: form-data; name="prompts/en"; filename="a.mp3"\r\n'
        b"Content-Type: audio/mpeg\r\n"
        b"\r\n"
        b"\xff\xfb\r\n--B \r\n--\r\n"
        b"\r\n--B\r\n"
        b'content-disposition: form-data; name="untouched"; filename=""\r\n'
        b"content-type: application/octet-stream\r\n"
        b"\r\n"
        b"\r\n"
        b"--B--\r\n"
    )
    for pieces in ([form.replace(b"--B ", b"--b ")], in_pieces(form.replace(b"--B ", b"--b "), 1)):
        assert multipart(pieces) == [
            ("note", None, b"two takes"),
            ("prompts/en", "a.mp3", b"\xff\xfb\r\n--b \r\n--\r\n"),
            ("untouched", "", b""),
        ]


def test_blanks_after_a_boundary_are_ignored() -> None:
    """Case 55: RFC 2046, 5.1.1, calls them transport padding."""
    form = (TEXT_PART + file_part() * 2).replace(b"--B", b"--B \t") + b"--B-- \t\r\n"
    assert multipart([form]) == [("d", None, b"data"), *[("d", "f.mp3", b"data")] * 2]


def test_text_like_a_padded_boundary_is_data() -> None:
    data = b"\r\n--b \r\n\n--B\t\r\n \r\n -- B \r\n"
    assert multipart([file_part(data=data) + END]) == [("d", "f.mp3", data)]


DISPOSITIONS = {
    "quoted": (b'form-data; name="d"; filename="f.mp3"', ("d", "f.mp3")),
    "tokens": (b"form-data; name=d; filename=f.mp3", ("d", "f.mp3")),
    "in the other order": (b'form-data; filename="f.mp3"; name="d"', ("d", "f.mp3")),
    "in capitals": (b'FORM-DATA; NAME="d"; FileName="f.mp3"', ("d", "f.mp3")),
    "without blanks": (b'form-data;name="d";filename="f.mp3"', ("d", "f.mp3")),
    "on two lines": (b'form-data; name="d";\r\n filename="f.mp3"', ("d", "f.mp3")),
    "no filename": (b'form-data; name="d"', ("d", None)),
    "an empty filename": (b'form-data; name="d"; filename=""', ("d", "")),
    "no name": (b'form-data; filename="f.mp3"', ("", "f.mp3")),
    "UTF-8": ('form-data; name="é"; filename="🎵.mp3"'.encode(), ("é", "🎵.mp3")),
    "a semicolon": (b'form-data; name="a;b"; filename="c; name=e"', ("a;b", "c; name=e")),
    "an escaped quote": (b'form-data; name="d"; filename="a%22b.mp3"', ("d", 'a"b.mp3')),
    "an escaped line break": (b'form-data; name="d"; filename="a%0D%0Ab"', ("d", "a\r\nb")),
    "other escapes stay": (b'form-data; name="%2e%2e"; filename="%2Fa%41"', ("%2e%2e", "%2Fa%41")),
    "up": (b'form-data; name="../.."; filename="../a.mp3"', ("../..", "../a.mp3")),
    "backslashes": (b'form-data; name="a\\b"; filename="C:\\d\\e.mp3"', ("a\\b", "C:\\d\\e.mp3")),
    "a share": (b'form-data; name="d"; filename="\\\\host\\e.mp3"', ("d", "\\\\host\\e.mp3")),
    "NUL": (b'form-data; name="d"; filename="a\0.mp3"', ("d", "a\0.mp3")),
}


@pytest.mark.parametrize(
    ("disposition", "named"),
    [pytest.param(*row, id=label) for label, row in DISPOSITIONS.items()],
)
def test_names_and_filenames_are_returned_as_sent(
    disposition: bytes, named: tuple[str, str | None]
) -> None:
    """Cases 32 and 35: no part of a name is removed before it is checked."""
    form = part(b"Content-Disposition: " + disposition) + END
    assert multipart([form]) == [(*named, b"data")]


NO_FORMS = {
    "nothing": (b"\r\n", "before its first part"),
    "other content": (b"RIFF\0\0\0\0WAVEfmt ", "before its first part"),
    "another boundary": (b"--C\r\n\r\n--C--\r\n", "before its first part"),
    "no closing boundary": (file_part(), "at part 1: it ends before its closing boundary"),
    "cut in the data": (file_part()[:-4], "at part 1: it ends before its closing boundary"),
    "cut in the headers": (file_part()[:30], "it ends before its closing boundary"),
    "cut in the closing boundary": (file_part() + END[:-3], "it ends before its closing boundary"),
    "cut before two hyphens": (file_part() + END[:-4], "it ends before its closing boundary"),
    "no disposition": (part(b"Content-Type: audio/mpeg") + END, "Content-Disposition"),
    "an attachment": (part(b"Content-Disposition: attachment; filename=f") + END, "Disposition"),
    "two dispositions": (
        part(b"Content-Disposition: form-data; name=d\r\nContent-Disposition: form-data; name=e")
        + END,
        "at part 1: two Content-Disposition headers",
    ),
    "a header without a colon": (part(b"Content-Disposition form-data") + END, "header"),
    "a header with an odd name": (part(b"A(b): c") + END, "header"),
    "a continuation of nothing": (part(b" a: b") + END, "continuation"),
    "bare line feeds": ((file_part() + END).replace(b"\r\n", b"\n"), "line break"),
    "a word after the boundary": (file_part().replace(b"--B", b"--Bx") + END, "boundary"),
    "blanks and a word after the boundary": (file_part().replace(b"--B", b"--B  x") + END, "bound"),
    "blanks within the closing boundary": (file_part() + b"--B --\r\n", "boundary"),
    "blanks and a line feed after the boundary": (
        file_part() + b"--B \n\r\n" + END,
        "boundary",
    ),
    "endless blanks after a boundary": (
        file_part() + b"--B" + b" " * (MAX_PADDING_BYTES + 1) + file_part()[3:] + END,
        "at part 1: ",
    ),
    "a length that is too small": (
        part(b"Content-Disposition: form-data; name=d\r\nContent-Length: 3") + END,
        "Content-Length",
    ),
    "a length that is too large": (
        part(b"Content-Disposition: form-data; name=d\r\nContent-Length: 5") + END,
        "Content-Length",
    ),
    "a negative length": (
        part(b"Content-Disposition: form-data; name=d\r\nContent-Length: -1") + END,
        "Content-Length",
    ),
    "a signed length": (
        part(b"Content-Disposition: form-data; name=d\r\nContent-Length: +4") + END,
        "Content-Length",
    ),
    "a doubled length": (
        part(b"Content-Disposition: form-data; name=d\r\nContent-Length: 4\r\nContent-Length: 4")
        + END,
        "Content-Length",
    ),
    "a huge length": (
        part(b"Content-Disposition: form-data; name=d\r\nContent-Length: " + b"9" * 4000) + END,
        "Content-Length",
    ),
}


@pytest.mark.parametrize(
    ("form", "why"), [pytest.param(*row, id=label) for label, row in NO_FORMS.items()]
)
def test_an_invalid_form_is_malformed_and_the_reason_says_where(form: bytes, why: str) -> None:
    """Cases 17, 19 and 37."""
    with pytest.raises(Malformed, match=r"^the multipart form is malformed ") as caught:
        multipart([form])
    assert why in caught.value.reason
    with pytest.raises(Malformed):
        multipart(in_pieces(form, 1))


def test_the_reason_is_a_sentence_when_a_part_header_is_not_utf8() -> None:
    with pytest.raises(Malformed, match="malformed before its first part") as caught:
        multipart([part(b'Content-Disposition: form-data; name="\xff"') + END])
    assert "Error(" not in caught.value.reason


def test_a_form_without_parts_is_valid() -> None:
    assert multipart([b"--B--"]) == []


def test_bytes_after_the_closing_boundary_are_ignored() -> None:
    assert multipart([file_part() + b"--B--", b"\r\nregards", file_part()]) == [
        ("d", "f.mp3", b"data")
    ]


@pytest.mark.parametrize(
    "boundary", ["B", "----WebKitFormBoundary7MA4YWxkTrZu0gW", "a'()+_,-./:=?"]
)
def test_every_boundary_of_rfc_2046_is_accepted(boundary: str) -> None:
    form = (file_part() + END).replace(b"--B", b"--" + boundary.encode())
    assert multipart([form], boundary) == [("d", "f.mp3", b"data")]


@pytest.mark.parametrize(
    "boundary",
    [None, "", "a\nb", "a\r\nb", "a\rb", "a\0b", pytest.param("b" * 1025, id="long"), "a\ud800"],
)
def test_an_invalid_boundary_is_malformed(boundary: str | None) -> None:
    """Case 35."""
    with pytest.raises(Malformed, match="boundary"):
        MultipartDecoder(boundary)


@pytest.mark.parametrize(
    ("one", "most", "what"),
    [(file_part(), MAX_FILE_PARTS, "file parts"), (TEXT_PART, MAX_OTHER_PARTS, "not files")],
    ids=["files", "others"],
)
def test_the_parts_of_each_kind_are_limited(one: bytes, most: int, what: str) -> None:
    """Case 18."""
    assert (MAX_FILE_PARTS, MAX_OTHER_PARTS) == (256, 64)
    assert len(multipart([one * most + END])) == most
    with pytest.raises(Malformed, match="a form may have") as caught:
        multipart([one * (most + 1) + END])
    assert f"may have {most} " in caught.value.reason
    assert what in caught.value.reason
    assert f"at part {most + 1}" in caught.value.reason


def test_the_two_kinds_of_parts_are_counted_separately() -> None:
    """Case 18."""
    form = file_part() * MAX_FILE_PARTS + TEXT_PART * MAX_OTHER_PARTS + END
    assert len(multipart([form])) == MAX_FILE_PARTS + MAX_OTHER_PARTS


def test_a_hundred_thousand_parts_are_refused_early() -> None:
    """Case 18."""
    events = MultipartDecoder("B").feed(file_part(data=b"") * 100_000 + END)
    current: list[FormEvent] = []
    with pytest.raises(Malformed):
        current.extend(event for event in events if isinstance(event, PartBegins))
    assert len(current) == MAX_FILE_PARTS


def test_the_headers_of_a_part_are_limited() -> None:
    """Case 18."""
    disposition = b"Content-Disposition: form-data; name=d"
    headers = [b"X-%d: y" % n for n in range(MAX_PART_HEADERS - 1)]
    assert len(multipart([part(b"\r\n".join([disposition, *headers])) + END])) == 1
    with pytest.raises(Malformed, match="header count"):
        multipart([part(b"\r\n".join([disposition, *headers, b"X-More: y"])) + END])


@pytest.mark.parametrize("size", [1, 100, 4096, 65536])
def test_the_bytes_of_a_part_header_are_limited(size: int) -> None:
    """Case 18, however the header is cut."""
    line = b"Content-Disposition: form-data; name=d; x="
    fitting = line + b"y" * (MAX_PART_HEADER_BYTES - len(line))
    assert multipart(in_pieces(part(fitting) + END, size)) == [("d", None, b"data")]
    with pytest.raises(Malformed, match="header length"):
        multipart(in_pieces(part(fitting + b"y") + END, size))


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"X-A: " + b"y" * MIB, id="one header"),
        pytest.param(b"X-A: y\r\n" * (MIB // 8), id="many headers"),
        pytest.param(b"X-A: y" + b"\r\n y" * (MIB // 4), id="a header on many lines"),
    ],
)
def test_endless_part_headers_are_refused(endless: bytes) -> None:
    """Case 18."""
    taken = bytes_until_malformed(MultipartDecoder("B"), in_pieces(b"--B\r\n" + endless, 1024))
    assert taken <= (MAX_PART_HEADERS + 1) * MAX_PART_HEADER_BYTES


@pytest.mark.parametrize(
    ("before", "junk"),
    [
        pytest.param(b"", b"\r\n", id="line breaks and no boundary"),
        pytest.param(b"", b"audio ", id="content and no boundary"),
        pytest.param(b"", b"\r\n--C\r\n", id="another boundary"),
        pytest.param(b"", b"\r\n--", id="nearly boundaries"),
        pytest.param(file_part() + END, b"\r\n", id="after the closing boundary"),
    ],
)
def test_bytes_outside_of_parts_are_limited(before: bytes, junk: bytes) -> None:
    """Case 17."""
    decoder = MultipartDecoder("B")
    if before:
        assert len(list(decoder.feed(before))) == 3
    taken = bytes_until_malformed(decoder, in_pieces(junk * (MIB // len(junk)), 4096))
    assert MAX_OUTSIDE_BYTES < taken <= MAX_OUTSIDE_BYTES + 4096


@pytest.mark.parametrize("size", [1, 7, 64, 1024, 65536])
def test_a_form_of_many_parts_with_long_names_is_accepted_in_pieces_of_any_size(size: int) -> None:
    """The limit for bytes outside of parts does not count the headers of parts."""
    parts = [("d" * 100, f"{number:04}" + "f" * 200, b"data") for number in range(MAX_FILE_PARTS)]
    form = b"".join(file_part(*each) for each in parts) + END
    assert multipart(in_pieces(form, size)) == parts


CUT_ANYWHERE = {
    "padded boundaries": (b"\r\n" + file_part() * 2).replace(b"--B", b"--B \t ") + b"--B-- \t\r\n",
    "a padded boundary, and no line break": file_part() + b"--B \t",
    "a padded boundary, and another": file_part() + b"--B \r\n--B \r\n" + END,
    "a padded boundary, and half a line break": file_part() + b"--B \rx" + END,
    "padding and a word": file_part() + b"--B \tx\r\n" + END,
    "padding and two hyphens": file_part() + b"--B \t--\r\n" + END,
    "padding behind the last boundary": file_part() + END + b"\r\n--B \t\r\n--B x",
    "much padding": file_part() + b"--B" + b" " * MAX_PADDING_BYTES + file_part()[3:] + END,
    "more padding than there may be": file_part()
    + b"--B"
    + b"\t" * (MAX_PADDING_BYTES + 1)
    + file_part()[3:]
    + END,
    "what looks like a padded boundary at the begin of the data": file_part(data=b"--B\t x") + END,
    "endless padding behind the last boundary": file_part() + END + b"\r\n--B" + b"\t" * 2000,
    "a boundary behind other content": b"x" * 40 + file_part() + END,
    "a boundary behind a line that is not its own": b"\r\n" + b"x" * 40 + file_part() + END,
    "a long preamble": b"x" * 40 + b"\r\n" + file_part() + END,
    "a preamble of carriage returns": b"\r" * 40 + b"\r\n" + file_part() + END,
    "a line feed within a header": part(b"X-A: a\nb\r\nContent-Disposition: form-data; name=d")
    + END,
    "a carriage return within a header": part(
        b"X-A: a\rb\r\nContent-Disposition: form-data; name=d"
    )
    + END,
    "data that is nearly a boundary": file_part(data=b"\r\n--\r\n\r\r\n--b\r\n-\r\n--") + END,
    "data that is nearly nothing": file_part(data=b"") + file_part(data=b"\r") + END,
    "more than may be before the first boundary": b"\r\n" * MAX_OUTSIDE_BYTES + file_part() + END,
    "as much as may be after the last boundary": file_part() + END + b"\r\n" * 30_000,
}


@pytest.mark.parametrize("form", CUT_ANYWHERE.values(), ids=CUT_ANYWHERE.keys())
def test_the_outcome_of_a_multipart_form_does_not_depend_on_the_cuts(form: bytes) -> None:
    whole = outcome(multipart, [form])
    sizes = (1, 2, 3, 5, 64, 1000) if len(form) < 1000 else (1000, 32768)
    assert [outcome(multipart, in_pieces(form, size)) for size in sizes] == [whole] * len(sizes)
    if len(form) < 1000:
        places = range(1, len(form))
        assert all(outcome(multipart, [form[:at], form[at:]]) == whole for at in places)


def test_the_data_of_a_part_is_returned_at_once() -> None:
    """Case 15, for the decoder."""
    decoder = MultipartDecoder("B")
    list(decoder.feed(file_part(data=b"")[:-2]))
    received = passed_on = 0
    for piece in [b"x" * 1000, b"\r\n" * 500, b"\r\n--" * 300, b"\r" * 1000, b"\r\n--B"] * 20:
        piece = piece.replace(b"\r\n--B", b"\r\n--C")
        received += len(piece)
        for event in decoder.feed(piece):
            assert isinstance(event, bytes)
            passed_on += len(event)
        assert received - passed_on <= len(b"\r\n--B\r\n")


texts = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters='"\\'), max_size=8
)
datas = st.one_of(
    st.binary(max_size=30),
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", b"--b", b"x"]), max_size=12).map(
        b"".join
    ),
)
cuts = st.lists(st.integers(0, 1000), max_size=12)


@quick
@given(st.lists(st.tuples(texts, texts | st.none(), datas), max_size=5), cuts)
def test_every_multipart_form_is_decoded_however_it_is_cut(
    parts: list[Part], places: list[int]
) -> None:
    form = b""
    for name, filename, data in parts:
        header = f'Content-Disposition: form-data; name="{quoted(name)}"'
        if filename is not None:
            header += f'; filename="{quoted(filename)}"'
        form += part(header.encode(), data)
    assert multipart(cut(form + END, places)) == parts


def quoted(text: str) -> str:
    """Quote `text` as browsers do; they do not escape a percent sign."""
    return text.replace('"', "%22")


soup = st.lists(
    st.sampled_from(
        [
            b"\r\n--B\r\n",
            b"\r\n--B \t\r\n",
            b"\t",
            b"\r\n--B--",
            b"--B",
            b"\r\n",
            b"\r",
            b"\n",
            b"--",
            b"Content-Disposition: form-data; name=d",
            b'Content-Disposition: form-data; name="d"; filename="f"',
            b"Content-Length: 2",
            b"X-A: y",
            b":",
            b" ",
            b"xx",
            b"\0\xff",
            b"x" * 50,
        ]
    ),
    max_size=14,
).map(b"".join)


@settings(max_examples=200)
@example(b"x" * 40 + file_part() + END, [20])
@example(b"--B\r\nX-A: a\nb\r\nContent-Disposition: form-data\r\n\r\n\r\n--B--", [11])
@given(soup, cuts)
def test_any_bytes_are_a_multipart_form_or_malformed_however_they_are_cut(
    form: bytes, places: list[int]
) -> None:
    """Case 19."""
    whole = outcome(multipart, [form] if form else [])
    assert outcome(multipart, cut(form, places)) == whole
    assert outcome(multipart, in_pieces(form, 1)) == whole


near_boundaries = st.lists(
    st.sampled_from(
        [
            *(b"\r\n--B", b"\r\n--B\r\n", b"\r\n--B \t\r\n", b"\r\n--B--", b"\r\n-", b"\r\n"),
            *(b"-", b"B", b"\r", b" ", b"\t", b"x", b"x" * 10),
            b"Content-Disposition: form-data; name=e\r\n\r\n",
        ]
    ),
    max_size=14,
).map(b"".join)


@quick
@given(near_boundaries, cuts, st.sampled_from([b"", b"Content-Length: 9\r\n"]))
def test_the_outcome_of_data_like_boundaries_does_not_depend_on_the_cuts(
    data: bytes, places: list[int], length: bytes
) -> None:
    """Cases 19 and 55: only data without possible delimiters bypasses the parser."""
    header = length + b"Content-Disposition: form-data; name=d; filename=f"
    form = part(header, data) + b"--B--"
    whole = outcome(multipart, [form])
    assert outcome(multipart, cut(form, places)) == whole
    assert outcome(multipart, in_pieces(form, 1)) == whole


# Urlencoded

FIELDS = {
    "three fields": (
        b"directory=a&filename=b.mp3&body=c",
        [("directory", b"a"), ("filename", b"b.mp3"), ("body", b"c")],
    ),
    "nothing": (b"", []),
    "ampersands": (b"&&&", []),
    "ampersands around": (b"&a=1&&b=2&", [("a", b"1"), ("b", b"2")]),
    "a name without a value": (b"a", [("a", b"")]),
    "names without values": (b"a&b&c=", [("a", b""), ("b", b""), ("c", b"")]),
    "a value without a name": (b"=v", [("", b"v")]),
    "equals signs in a value": (b"a=b=c==", [("a", b"b=c==")]),
    "pluses": (b"a+b=c+d%2B+", [("a b", b"c d+ ")]),
    "escapes": (b"%61%62=%00%ff%0d%0A%26%3D%25", [("ab", b"\0\xff\r\n&=%")]),
    "an escape that gives an escape": (b"a=%2541", [("a", b"%41")]),
    "an escaped name in UTF-8": ("%C3%A9=é".encode(), [("é", "é".encode())]),
    "raw line breaks and bytes": (b"a=\r\n\xff=\r\n", [("a", b"\r\n\xff=\r\n")]),
    "the same name twice": (b"a=1&a=2", [("a", b"1"), ("a", b"2")]),
    "semicolons": (b"a=1;b=2", [("a", b"1;b=2")]),
}

BAD_FIELDS = {
    "a percent sign at the end": b"a=%",
    "half an escape at the end": b"a=%4",
    "a percent sign before an ampersand": b"a=%&b=1",
    "half an escape before an ampersand": b"a=%4&b=1",
    "two percent signs": b"a=%%41",
    "no hex digits": b"a=%zz",
    "one hex digit": b"a=%4z1",
    "a sign for a digit": b"a=%+4",
    "a blank for a digit": b"a=% 4",
    "an equals sign for a digit": b"a=%=3D",
    "two equals signs for digits": b"a=%==",
    "a line feed for a digit": b"a=%\nb",
    "a line break for digits": b"a=%\r\nb",
    "a carriage return for a digit": b"a=%\rb",
    "broken beside whole ones": b"a=%41%42%4%43%44",
    "a broken name": b"%zz=1",
    "half an escape as a name": b"%4",
    "a name that is not UTF-8": b"%ff=1",
    "a raw name that is not UTF-8": b"\xff=1",
}


@pytest.mark.parametrize(
    ("form", "fields"), [pytest.param(*row, id=label) for label, row in FIELDS.items()]
)
def test_the_fields_of_an_urlencoded_form_are_in_order_however_it_is_cut(
    form: bytes, fields: list[tuple[str, bytes]]
) -> None:
    parts = [(name, None, value) for name, value in fields]
    assert urlencoded([form]) == parts
    for at in range(len(form)):
        assert urlencoded([form[:at], form[at:]]) == parts
    assert urlencoded(in_pieces(form, 1)) == parts


@pytest.mark.parametrize("form", BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_an_invalid_escape_is_malformed_however_the_form_is_cut(form: bytes) -> None:
    """Case 19."""
    assert outcome(urlencoded, [form]) is Malformed
    for at in range(len(form)):
        assert outcome(urlencoded, [form[:at], form[at:]]) is Malformed
    assert outcome(urlencoded, in_pieces(form, 1)) is Malformed


def test_the_reason_says_in_which_field_the_form_is_malformed() -> None:
    with pytest.raises(Malformed, match=r"at field 2: it ends inside a percent escape$"):
        urlencoded([b"a=1&b=%4&c=3"])


def test_the_fields_of_a_form_are_limited() -> None:
    """Case 18. Empty ones count, because they cost time as well."""
    fitting = b"&".join([b"a=1"] * MAX_OTHER_PARTS)
    assert len(urlencoded([fitting])) == MAX_OTHER_PARTS
    for one_more in (b"&b", b"&=", b"&b=", b"&b=2", b"&"):
        with pytest.raises(Malformed, match=f"may have {MAX_OTHER_PARTS} fields"):
            urlencoded([fitting + one_more])


def test_endless_ampersands_are_refused() -> None:
    """Case 17."""
    assert (
        bytes_until_malformed(UrlencodedDecoder(), in_pieces(b"&" * MIB, 10))
        <= MAX_OTHER_PARTS + 10
    )


@pytest.mark.parametrize("size", [1, 100, 65536])
def test_the_bytes_of_a_field_name_are_limited(size: int) -> None:
    """Cases 16 and 18."""
    name = b"n" * MAX_FIELD_NAME_BYTES
    assert urlencoded(in_pieces(name + b"=1", size)) == [(name.decode(), None, b"1")]
    with pytest.raises(Malformed, match="name is too long"):
        urlencoded(in_pieces(name + b"n=1", size))


def test_an_endless_name_is_refused() -> None:
    """Case 17."""
    taken = bytes_until_malformed(UrlencodedDecoder(), in_pieces(b"n" * MIB, 100))
    assert taken <= MAX_FIELD_NAME_BYTES + 100


def test_a_value_is_returned_at_once_except_for_an_incomplete_escape() -> None:
    """Cases 15 and 16: a field is never buffered."""
    decoder = UrlencodedDecoder()
    list(decoder.feed(b"body="))
    received = passed_on = 0
    for piece in in_pieces(b"xy%41%4" * 3000, 11):
        received += len(piece)
        for event in decoder.feed(piece):
            assert isinstance(event, bytes)
            passed_on += len(event)
        assert received - passed_on <= 2


@pytest.mark.parametrize("value", [b"x", b"%41", b"x%41", b"%", b"%%4"])
def test_the_size_of_returned_pieces_is_limited(
    value: bytes,
) -> None:
    decoder = UrlencodedDecoder()
    events = list(decoder.feed(b"body=" + value * 100_000 + b"xyz"))
    pieces = [event for event in events if isinstance(event, bytes)]
    assert b"".join(pieces) == value * 100_000 + b"xyz"
    assert max(map(len, pieces)) <= MAX_PIECE_BYTES
    assert len(pieces) < 50


@quick
@given(
    st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=20)), max_size=6),
    st.sampled_from(["", "/+=&%", "/ "]),
    cuts,
)
def test_every_urlencoded_form_is_decoded_however_it_is_cut(
    fields: list[tuple[str, bytes]], unescaped: str, places: list[int]
) -> None:
    safe = re.sub("[+=&%]", "", unescaped)
    form = b"&".join(
        quote_from_bytes(name.encode(), safe).encode()
        + b"="
        + quote_from_bytes(value, safe).encode()
        for name, value in fields
    )
    assert urlencoded(cut(form, places)) == [(name, None, value) for name, value in fields]


@quick
@given(
    st.lists(
        st.sampled_from([b"%", b"4", b"41", b"%41", b"+", b"=", b"&", b"\r", b"\n", b"\xff", b"x"])
    ).map(b"".join),
    cuts,
)
def test_any_bytes_are_an_urlencoded_form_or_malformed_however_they_are_cut(
    form: bytes, places: list[int]
) -> None:
    """Case 19."""
    whole = outcome(urlencoded, [form])
    assert outcome(urlencoded, cut(form, places)) == whole
    assert outcome(urlencoded, in_pieces(form, 1)) == whole


# The decoding of urlencoded data

BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def assert_decoded_as_the_standard_library_does(piece: bytes) -> None:
    if BROKEN_ESCAPE.search(piece):
        with pytest.raises(Malformed, match="escape"):
            decode_urlencoded(piece)
    else:
        decoded = decode_urlencoded(piece)
        assert decoded == unquote_to_bytes(piece.replace(b"+", b" "))
        assert len(decoded) == decoded_size(piece)


@quick
@given(
    st.one_of(
        st.binary(),
        st.lists(
            st.sampled_from([bytes([byte]) for byte in b"%%%%0aA9fFgG+=\r\n \t.x"]), max_size=60
        ).map(b"".join),
        st.lists(st.integers(0, 255).map(lambda byte: b"%%%02x" % byte), max_size=40).map(b"".join),
    )
)
def test_data_is_decoded_as_the_standard_library_does_or_malformed(piece: bytes) -> None:
    assert_decoded_as_the_standard_library_does(piece)


def test_each_byte_has_an_escape_in_either_case() -> None:
    lower = b"".join(b"%%%02x" % byte for byte in range(256))
    upper = b"".join(b"%%%02X" % byte for byte in range(256))
    assert decode_urlencoded(lower) == decode_urlencoded(upper) == bytes(range(256))


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from([b"%", b"%4", b"%41", b"=", b"+", b"\n", b"\r", b"x"]),
        min_size=1,
        max_size=5,
    ).map(b"".join),
    st.sampled_from([b"", b"%", b"%4", b"%41", b"x"]),
)
@example(b"%", b"")
@example(b"%=", b"")
@example(b"%41", b"")
@example(b"=", b"")
def test_the_largest_piece_of_any_pattern_is_decoded_correctly(pattern: bytes, rest: bytes) -> None:
    """Escapes are checked by a sum with a modulus, which must not wrap within a piece."""
    times = (MAX_PIECE_BYTES - len(rest)) // len(pattern)
    assert_decoded_as_the_standard_library_does(pattern * times + rest)


def test_invalid_escapes_are_found_even_if_their_sum_wraps() -> None:
    assert outcome(urlencoded, [b"body=" + b"%zz" * 65521]) is Malformed


# The type of the content


@pytest.mark.parametrize(
    ("header", "media_type", "parameters"),
    [
        ("multipart/form-data; boundary=B", "multipart/form-data", {"boundary": "B"}),
        ('Multipart/Form-Data ; Boundary="a b"', "multipart/form-data", {"boundary": "a b"}),
        (r'multipart/form-data; boundary="a\"b"', "multipart/form-data", {"boundary": 'a"b'}),
        ("multipart/form-data", "multipart/form-data", {}),
        ("multipart/form-data; boundary=", "multipart/form-data", {}),
        (
            "application/x-www-form-urlencoded; charset=UTF-8",
            "application/x-www-form-urlencoded",
            {"charset": "UTF-8"},
        ),
        ("application/json", "application/json", {}),
    ],
)
def test_a_content_type_is_a_media_type_in_lower_case_and_parameters(
    header: str, media_type: str, parameters: dict[str, str]
) -> None:
    assert parse_content_type(header) == (media_type, parameters)


@pytest.mark.parametrize("header", [None, ""])
def test_content_without_a_type_has_an_empty_one(header: str | None) -> None:
    assert parse_content_type(header) == ("", {})


@quick
@given(
    st.sampled_from(["", "multipart/form-data; boundary=", 'multipart/form-data; boundary="']),
    st.text(st.sampled_from('b;="\\ \té\0')) | st.text(st.characters(codec="utf-8")),
)
def test_any_content_type_has_a_decoder_or_one_of_our_errors(before: str, rest: str) -> None:
    """Case 35."""
    try:
        _, parameters = parse_content_type(before + rest)
        decoder = MultipartDecoder(parameters.get("boundary"))
    except Malformed:
        return
    assert list(decoder.feed(b"--")) == []


def test_parsing_a_disposition_takes_linear_time() -> None:
    """Case 19: runs of spaces make careless patterns backtrack."""
    header = b"form-data; name=x" + b" " * 4000 + b"x"
    form = b"--B\r\nContent-Disposition: " + header + b"\r\n\r\n\r\n--B--\r\n"
    before = time.process_time()
    for _ in range(50):
        with pytest.raises(Malformed):
            list(MultipartDecoder("B").feed(form))
    assert time.process_time() - before < 1.0  # it was 4.7 s


@pytest.mark.parametrize(
    "disposition",
    [
        "form-data; name=prompts/en; filename=w.wav",
        "form-data; name=u; filename=w.wav/x.exe",
        "form-data; name=u; filename=w(1).wav",
        "form-data; name=u; filename=é.wav",
        'form-data; name=u; filename="w.wav',
        "form-data; name=u; filename=w.wav x",
        "form-data; name=u; filename=a.wav; filename=b.wav",
        "form-data; name=u; filename*0=w; filename*1=.wav",
        "form-data; name=u; filename*0*=UTF-8''w.wav",
        "form-data; name=u; filename=w.wav; filename*=UTF-8''w.wav; filename*=UTF-8''v.wav",
    ],
)
def test_a_disposition_that_cannot_be_parsed_to_its_end_is_refused(disposition: str) -> None:
    form = f"--B\r\nContent-Disposition: {disposition}\r\n\r\nx\r\n--B--\r\n".encode()
    with pytest.raises(Malformed):
        list(MultipartDecoder("B").feed(form))


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ('form-data; name="prompts/en"; filename="w.wav"', "prompts/en", "w.wav"),
        ('form-data;\tname=u;\tfilename="w.wav";', "u", "w.wav"),
        ('FORM-DATA; Name="u"; FileName=w.wav', "u", "w.wav"),
        ('form-data; name=u; x.y="; filename=evil.wav"', "u", None),
        ("form-data; name=u; filename=w.wav; filename*=UTF-8''v.wav", "u", "v.wav"),
    ],
)
def test_a_disposition_is_parsed(disposition: str, name: str, filename: str | None) -> None:
    form = f"--B\r\nContent-Disposition: {disposition}\r\n\r\nx\r\n--B--\r\n".encode()
    part = next(iter(MultipartDecoder("B").feed(form)))
    assert part == PartBegins(name, filename, {"content-disposition": disposition})

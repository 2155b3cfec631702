"""Push decoders for HTML forms: bytes go in, parts come out, nothing is stored.

Pure. The `multipart` package parses `multipart/form-data` (RFC 7578); this module adds limits, and
gives both kinds of form one shape: for each part a `PartBegins`, its data as `bytes`, and a
`PartEnds`. Where the input is cut affects only where the data is cut.

The data of an urlencoded form is returned as it was sent, in pieces that can be decoded one by one.
Decoding a large file takes long, so a thread should do that (`decode_urlencoded`).
"""

from __future__ import annotations

import binascii
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from twistedmedia.errors import Malformed
from twistedmedia.http.header_fields import disposition_parameters

MAX_FILE_PARTS = 256
MAX_OTHER_PARTS = 64
MAX_PART_HEADERS = 8  # RFC 7578 defines three
MAX_PART_HEADER_BYTES = 4096 + 128
# Outside of the parts only a line break is expected; old mailers write a sentence there (RFC 2046,
# 5.1.1).
MAX_OUTSIDE_BYTES = 64 << 10
MAX_PADDING_BYTES = 1024  # blanks after a boundary; mail gateways add a few
MAX_FIELD_NAME_BYTES = 1024
# Of urlencoded data: fits the CPU cache, and `decode_urlencoded` can check it with one checksum.
MAX_PIECE_BYTES = 65520 // 2

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class PartBegins:
    """The headers of a part, their names in lower case. `filename` is None if it is not a file."""

    name: str
    filename: str | None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartEnds:
    """The current part is complete."""


_BLANKS = re.compile(rb"[ \t]*+")
_PERCENT_TO_EQUALS = bytes.maketrans(b"%", b"=")

FormEvent = PartBegins | bytes | PartEnds


class MultipartDecoder:
    """Decodes one multipart form."""

    def __init__(self, boundary: str | None) -> None:
        """`boundary` is the parameter of the Content-Type header.

        :raises Malformed: if it is missing or invalid.
        """
        if not boundary:
            raise Malformed("the Content-Type of the form has no boundary parameter")
        if len(boundary) > 1024:  # RFC 2046 allows 70
            raise Malformed("the multipart boundary is longer than 1024 characters")
        if any(not " " <= c <= "~" for c in boundary):
            raise Malformed("the multipart boundary contains invalid characters")
        try:
            self._parser = PushMultipartParser(
                boundary, max_header_size=MAX_PART_HEADER_BYTES, max_header_count=MAX_PART_HEADERS
            )
        except MultipartError as error:
            raise Malformed(f"the multipart boundary is invalid: {error}") from error
        self._delimiter = b"\r\n--" + boundary.encode()
        self._preamble_end: bytes | None = b"\r\n"  # may begin the first boundary; None after it
        self._held_cr = b""
        self._tail = b""  # the end of the parsed input, in which a delimiter may begin
        self._padding = b""  # blanks after the last delimiter, while more may follow
        self._is_drained = False  # the parser has returned all data
        self._is_unlimited = False  # in data whose length is not declared
        self._outside_bytes = 0  # bytes outside of parts
        self._in_part = False
        self._parts = 0
        self._files = 0
        self._others = 0

    def feed(self, data: bytes) -> Iterator[FormEvent]:
        """Yield the events in `data`, which must not be empty. The caller exhausts the iterator
        before the next call.

        :raises Malformed: with the number of the part.
        """
        if self._preamble_end is not None:
            data = self._drop_preamble(self._preamble_end + data)
        # A line break is never cut: the parser treats headers differently then.
        data, self._held_cr = self._held_cr + data, b""
        if data.endswith(b"\r"):
            data, self._held_cr = data[:-1], b"\r"
        is_plain = not self._padding and self._has_no_delimiter(data)
        if not is_plain:
            data = self._without_padding(data)
        if not data:
            return
        was_drained = self._is_drained
        self._is_drained = is_plain and not self._may_begin_delimiter()
        if was_drained and self._is_drained and self._is_unlimited:
            yield data  # as the parser would, after another search
            return
        outside_bytes = len(data)
        try:
            for event in self._parser.parse(data):
                outside_bytes = self._outside_bytes = 0
                if event is None:
                    self._in_part = self._is_unlimited = False
                    yield PartEnds()
                elif isinstance(event, MultipartSegment):
                    self._in_part = True
                    part = self._part_begins(event)
                    # The parser checks a declared length.
                    self._is_unlimited = "content-length" not in part.headers
                    yield part
                else:
                    yield bytes(event)
        except MultipartError as error:
            raise self._malformed(str(error.args[0])) from error
        if not self._in_part and outside_bytes:
            self._outside_bytes += outside_bytes
            if self._outside_bytes > MAX_OUTSIDE_BYTES:
                why = "too much data outside parts" if self._parts else "no boundary follows"
                raise self._malformed(why)

    def end(self) -> None:
        """Note the end of the content.

        :raises Malformed: if the form is incomplete.
        """
        try:
            self._parser.close()
        except MultipartError as error:
            raise self._malformed("it ends before its closing boundary") from error

    def _drop_preamble(self, data: bytes) -> bytes:
        """Remove the preamble from `data`. Whether the parser accepts one depends on the cuts."""
        at = data.find(self._delimiter)
        keep = len(data) - (len(self._delimiter) - 1)
        self._outside_bytes += at if at >= 0 else max(0, keep)
        if self._outside_bytes > MAX_OUTSIDE_BYTES:
            raise self._malformed("no boundary follows")
        if at < 0:
            self._preamble_end = data[max(0, keep) :]
            return b""
        self._preamble_end = None
        self._outside_bytes = 0
        return data[at:]

    def _has_no_delimiter(self, data: bytes) -> bool:
        """Whether no delimiter ends in `data`, which is nearly always true."""
        size = len(self._delimiter)
        seam = self._tail + data[:size]
        if self._delimiter in data or self._delimiter in seam:
            return False
        self._tail = (data if len(data) > size else seam)[-size:]
        return True

    def _may_begin_delimiter(self) -> bool:
        """Whether the parsed input ends with a possible beginning of a delimiter."""
        start = self._tail.rfind(b"\r")
        return start >= 0 and self._delimiter.startswith(self._tail[start:])

    def _without_padding(self, data: bytes) -> bytes:
        """Remove blanks between a delimiter and the end of its line from `data`. RFC 2046, 5.1.1
        allows them, but the parser does not.
        """
        if self._padding:
            end = _skip_blanks(data, 0)
            padding = self._padding + data[:end]
            if end == len(data) and len(padding) <= MAX_PADDING_BYTES:
                self._padding = padding
                return b""
            self._padding = b""
            fits = len(padding) <= MAX_PADDING_BYTES and data.startswith(b"\r", end)
            data = data[end:] if fits else padding + data[end:]
        size = len(self._delimiter)
        searched = self._tail + data
        kept: list[bytes] = []
        begin, after = len(self._tail), 0
        while (found := searched.find(self._delimiter, after)) >= 0:
            after = found + size
            end = _skip_blanks(searched, after)
            if not 0 < end - after <= MAX_PADDING_BYTES:
                continue
            if end == len(searched):
                self._padding = searched[after:]
            elif not searched.startswith(b"\r", end):
                continue
            kept.append(searched[begin:after])
            begin = end
        self._tail = b"" if self._padding else searched[-size:]
        return b"".join(kept) + searched[begin:] if kept else data

    def _part_begins(self, segment: MultipartSegment) -> PartBegins:
        self._parts += 1
        dispositions = [
            value for name, value in segment.headerlist if name == "Content-Disposition"
        ]
        if any("\n" in value for _, value in segment.headerlist):
            raise self._malformed("a line break in a header")
        if len(dispositions) > 1:
            raise self._malformed("two Content-Disposition headers")
        try:
            parameters = disposition_parameters(dispositions[0])
        except ValueError as error:
            raise self._malformed(str(error)) from error
        filename = parameters.get("filename")
        if filename is None:
            self._others += 1
        else:
            self._files += 1
        if self._files > MAX_FILE_PARTS:
            raise self._malformed(f"a form may have {MAX_FILE_PARTS} file parts")
        if self._others > MAX_OTHER_PARTS:
            raise self._malformed(f"a form may have {MAX_OTHER_PARTS} parts that are not files")
        headers: dict[str, str] = {}
        for name, value in segment.headerlist:
            known = headers.get(name.lower())
            headers[name.lower()] = value if known is None else f"{known}, {value}"
        return PartBegins(parameters.get("name", ""), filename, headers)

    def _malformed(self, why: str) -> Malformed:
        where = f"at part {self._parts}" if self._parts else "before its first part"
        return Malformed(f"the multipart form is malformed {where}: {why}")


def _skip_blanks(data: bytes, start: int) -> int:
    blanks = _BLANKS.match(data, start)
    assert blanks is not None
    return blanks.end()


class UrlencodedDecoder:
    """Splits one urlencoded form (WHATWG URL, 5.1) into parts without filenames. Their names are
    decoded, their data is not.
    """

    def __init__(self) -> None:
        self._fields = 0
        self._name = b""
        self._in_value = False
        self._partial_escape = b""

    def feed(self, data: bytes) -> Iterator[FormEvent]:
        """Yield the events in `data`. The caller exhausts the iterator before the next call.

        :raises Malformed: with the number of the field.
        """
        start = 0
        while start < len(data):
            end = data.find(b"&", start)
            stop = len(data) if end < 0 else end
            if not self._in_value:
                equals = data.find(b"=", start, stop)
                name_stop = stop if equals < 0 else equals
                self._name += data[start:name_stop]
                if len(self._name) > MAX_FIELD_NAME_BYTES:
                    raise self._malformed("its name is too long")
                start = name_stop
                if equals >= 0:
                    start += 1
                    yield self._begin()
            if self._in_value:
                yield from self._pieces(data, start, stop)
            if end < 0:
                return
            yield from self._end_field()
            start = end + 1

    def end(self) -> Iterator[FormEvent]:
        """Yield the last events, at the end of the content.

        :raises Malformed: if it ends inside a percent escape.
        """
        yield from self._end_field()

    def _begin(self) -> PartBegins:
        self._count_field()
        name, self._name, self._in_value = self._name, b"", True
        try:
            return PartBegins(decode_urlencoded(name).decode("utf-8"), None)
        except UnicodeDecodeError:
            raise self._malformed("its name is not UTF-8") from None

    def _count_field(self) -> None:
        self._fields += 1
        if self._fields > MAX_OTHER_PARTS:
            raise self._malformed(f"a form may have {MAX_OTHER_PARTS} fields, empty ones included")

    def _end_field(self) -> Iterator[FormEvent]:
        if not self._in_value:
            if not self._name:  # an empty field
                self._count_field()
                return
            yield self._begin()  # a name without a value
        if self._partial_escape:
            raise self._malformed("it ends inside a percent escape")
        self._in_value = False
        yield PartEnds()

    def _pieces(self, data: bytes, start: int, stop: int) -> Iterator[bytes]:
        """Yield `data[start:stop]` in pieces that can be decoded one by one. Holds an incomplete
        escape at the end.
        """
        if self._partial_escape:
            taken = min(stop, start + 3 - len(self._partial_escape))
            self._partial_escape += data[start:taken]
            start = taken
            if len(self._partial_escape) < 3:
                return
            yield self._partial_escape
            self._partial_escape = b""
        while start < stop:
            cut = min(stop, start + MAX_PIECE_BYTES)
            escape = data.find(b"%", max(start, cut - 2), cut)
            if escape >= 0:
                if cut == stop:
                    self._partial_escape = data[escape:stop]
                    stop = escape
                cut = escape
            if start < cut:
                yield data[start:cut]
            start = cut

    def _malformed(self, why: str) -> Malformed:
        return Malformed(f"the urlencoded form is malformed at field {self._fields}: {why}")


def decoded_size(piece: bytes) -> int:
    """The size of `decode_urlencoded(piece)` in bytes."""
    return len(piece) - 2 * piece.count(b"%")


def decode_urlencoded(piece: bytes) -> bytes:
    """Decode the percent escapes and plus signs of at most MAX_PIECE_BYTES.

    The text is converted to quoted-printable, whose decoder is written in C: ten times as fast as
    `urllib.parse.unquote_to_bytes`. That decoder accepts broken escapes and joins lines. A broken
    escape does not shorten the text by 2 bytes, so the length shows it; line breaks after a percent
    sign are found separately.

    :raises Malformed: if a percent sign is not followed by two hex digits.
    """
    assert len(piece) <= MAX_PIECE_BYTES
    plain = piece.replace(b"=", b"=3D") if b"=" in piece else piece
    quoted = plain.translate(_PERCENT_TO_EQUALS)
    decoded = binascii.a2b_qp(quoted.replace(b"+", b" "))
    joined = (b"\n" in piece and b"%\n" in piece) or (b"\r" in piece and b"%\r" in piece)
    # The lower half of Adler-32 is the sum of all bytes, plus 1, modulo 65,521 (RFC 1950, 8.2).
    # Each percent sign has become larger by 24, so the sums give their number. This is three times
    # as fast as counting them, and releases the GIL.
    risen = (zlib.adler32(quoted) & 0xFFFF) - (zlib.adler32(plain) & 0xFFFF)
    shortened = len(piece) - len(decoded)  # by 2 for each percent sign, if all are escapes
    if joined or (12 * shortened - risen) % 65521:
        raise Malformed("the urlencoded form has an invalid percent escape")
    return decoded

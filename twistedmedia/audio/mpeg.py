"""MPEG audio (MP3): whether frame follows frame to the end of the file.

Pure. Frames are looked at one by one at the beginning, so small files are looked at whole; of a
large one, later, some in each MiB and the last ones. To look at all would cost a twentieth of the
upload.
"""

from __future__ import annotations

from typing import Any

from twistedmedia.audio.durations import cut_off
from twistedmedia.audio.frames import LARGEST_BYTES, Declared, FrameHeader
from twistedmedia.audio.stream import Parser, Skip, Stream, Take
from twistedmedia.audio.tags import LYRICS, tag_size, without_last_tags

_PIECE_BYTES = 16 << 10
_WHOLE_BYTES = 128 << 10
_INTERVAL_BYTES = 1 << 20
# Some programs write a wrong size into a tag: so far behind it the first frame is looked for.
_JUNK_BYTES = 4096
# Between frames. A chain of millions of small ones would cost more than to store it.
_MOST_TAGS = 256
_PADDING_BYTES = 4096  # zeros that may follow a tag or the last frame
# So far from any byte of a stream the third frame is that begins behind it.
_THREE_BYTES = 4 * LARGEST_BYTES

_NOTHING = "there is no MPEG audio in it"
_LAST_FRAME = "the last frame is cut off"


def mpeg_problem(stream: Stream[Any], *, tagged: bool) -> Parser[str | None]:
    """What is wrong with a stream that begins with a frame or, when it is `tagged`, is what comes
    behind an ID3 tag; in words, None when nothing is.
    """
    stream.keeps_tail = True
    begin = yield Take(_PIECE_BYTES)
    start = _first_frame(begin) if tagged else 0
    header = FrameHeader.at(begin, start)
    if header is None:
        return _NOTHING
    size = header.size(begin, start)
    if size is None:
        return "its frames are of free format, which hardly anything plays"
    declared = Declared.by(header, begin[start : start + size])
    stream.unread(begin[start:])
    first = stream.position
    problem, end = yield from _to_the_end(stream, header)
    if declared is not None and end is not None:
        came = end - first
        if declared.size - came > LARGEST_BYTES:
            whole_s = declared.frames * header.samples / header.rate_hz
            return cut_off(whole_s, whole_s * came / declared.size)
    return problem


def _first_frame(begin: bytes) -> int:
    """Where, close behind a tag, the first frame is that others follow; else what comes after the
    padding.
    """
    at = begin.find(b"\xff", 0, _JUNK_BYTES)
    while at >= 0:
        header = FrameHeader.at(begin, at)
        if header is not None and header.three.match(begin, at):
            return at
        at = begin.find(b"\xff", at + 1, _JUNK_BYTES)
    return len(begin) - len(begin.lstrip(b"\0"))


def _to_the_end(stream: Stream[Any], header: FrameHeader) -> Parser[tuple[str | None, int | None]]:
    """The first problem of a stream at the beginning of a frame, and where its audio ends; None
    when that was not reached.
    """
    whole_until = stream.position + _WHOLE_BYTES
    tags = 0
    while True:
        piece = yield Take(_PIECE_BYTES)
        rest = piece[header.run_end(piece) :]
        if len(piece) < _PIECE_BYTES:
            return _last_problem(header, rest), stream.position - len(rest)
        stream.unread(rest)
        if len(rest) >= LARGEST_BYTES:  # so it is no frame of which the end has not come yet
            tag = tag_size(rest)
            if tag is None:
                return _break(header, rest, stream.position), None
            tags += 1
            if tags > _MOST_TAGS:
                return f"there are more than {_MOST_TAGS} tags in it", None
            yield Skip(tag)
            padding = yield Take(_PADDING_BYTES)
            stream.unread(padding.lstrip(b"\0"))
        elif stream.position >= whole_until:
            yield Skip(_INTERVAL_BYTES)
            piece = yield Take(_THREE_BYTES)
            if len(piece) < _THREE_BYTES:
                return _problem_of_tail(stream, header)
            start = _next_frame(header, piece)
            if start is None:
                return _break(header, piece, stream.position - len(piece)), None
            stream.unread(piece[start:])


def _problem_of_tail(stream: Stream[Any], header: FrameHeader) -> tuple[str | None, int | None]:
    """As `_to_the_end`, where the stream has ended in what was not looked at."""
    tail, tags = without_last_tags(stream.tail)
    if not tail:  # a tag with a picture
        return None, None
    start = _next_frame(header, tail)
    if start is None:
        return "its end is no MPEG audio", None
    rest = tail[header.run_end(tail, start) :]
    return _last_problem(header, rest), stream.size - tags - len(rest)


def _next_frame(header: FrameHeader, data: bytes) -> int | None:
    """Where in the midst of a stream the next frame begins."""
    found = header.three.search(data, 0, _THREE_BYTES)
    return found.start() if found is not None and found.start() < LARGEST_BYTES else None


def _break(header: FrameHeader, rest: bytes, position: int) -> str:
    """What to say of something at a place of a frame that is none."""
    other = FrameHeader.at(rest, 0)
    if other is not None and other.rate_hz != header.rate_hz:
        return (
            f"at byte {position} the sampling rate changes from {header.rate_hz} to "
            f"{other.rate_hz} Hz"
        )
    return f"at byte {position} there is something that is no MPEG audio"


def _last_problem(header: FrameHeader, rest: bytes) -> str | None:
    """What is wrong with the end of a file behind its last whole frame: tags and some zeros may
    follow.
    """
    while rest and not rest.startswith(LYRICS):
        size = tag_size(rest)
        zeros = len(rest) - len(rest.lstrip(b"\0"))
        if size is not None:
            rest = rest[size:]
            rest = rest[header.run_end(rest) :]
        elif 0 < zeros <= _PADDING_BYTES:
            rest = rest[zeros:]
        elif header.size(rest, 0) is not None or _is_begin_of_header(rest):
            return _LAST_FRAME
        else:
            return f"its last {len(rest)} bytes are no MPEG audio"
    return None


def _is_begin_of_header(rest: bytes) -> bool:
    return len(rest) < 4 and rest[0] == 0xFF and (len(rest) < 2 or rest[1] >= 0xE0)

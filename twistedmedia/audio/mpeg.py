"""MPEG audio (MP3): checks that frames follow each other to the end of the file, and reads tags.

Pure. All frames in the first 128 KiB are checked, so small files are checked completely. After that
some frames in each MiB are, and the last ones. To check all would take a twentieth of the upload's
time.

Sources: ISO 11172-3 and 13818-3 (2.4.2.3), and the unofficial MPEG 2.5; the descriptions of Xing's
and Fraunhofer's (VBRI) headers, which give the length of the file in its first frame; for tags
ID3v2.3 and 2.4 (id3.org), ID3v1, APEv2 (wiki.hydrogenaud.io), Lyrics3 (id3.org).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

from twistedmedia.audio.stream import Parser, Skip, Stream, Take, cut_off

ID3_BYTES = 10  # of the header of an ID3v2 tag
_APE_BYTES = 32  # of the header or the footer of an APE tag
_APE = b"APETAGEX"
_APE_HAS_HEADER = 1 << 31
_ID3V1_BYTES, _ENHANCED_BYTES = 128, 227
_ENHANCED = b"TAG+"
LYRICS = b"LYRICSBEGIN"  # begins a tag that has its size at its end


def id3_size(head: bytes) -> int | None:
    """The size in bytes of the ID3v2 tag that `head` begins, None if `head` does not begin one."""
    if len(head) < ID3_BYTES or not head.startswith(b"ID3") or max(head[3:5]) == 0xFF:
        return None
    sizes = head[6:10]
    if max(sizes) > 0x7F:
        return None
    size = sizes[0] << 21 | sizes[1] << 14 | sizes[2] << 7 | sizes[3]
    footer = ID3_BYTES if head[3] >= 4 and head[5] & 0x10 else 0
    return ID3_BYTES + size + footer


def tag_size(head: bytes) -> int | None:
    """As `id3_size`, for a tag of any kind."""
    if head.startswith(_APE) and len(head) >= _APE_BYTES:
        return _APE_BYTES + int.from_bytes(head[12:16], "little")  # without the header itself
    if head.startswith(b"TAG"):
        return _ENHANCED_BYTES if head.startswith(_ENHANCED) else _ID3V1_BYTES
    return id3_size(head)


def without_last_tags(tail: bytes) -> tuple[bytes, int]:
    """Remove the tags at the end of a file from `tail`, its last bytes. Returns the rest and the
    size of the tags, which may begin before `tail`.
    """
    left = len(tail)
    removed = 0
    while size := _last_tag_size(tail[:left]):
        removed += size
        left = max(0, left - size)
    return tail[:left], removed


def _last_tag_size(tail: bytes) -> int:
    if tail[-_ID3V1_BYTES:].startswith(b"TAG") and len(tail) >= _ID3V1_BYTES:
        enhanced = tail[-_ID3V1_BYTES - _ENHANCED_BYTES :].startswith(_ENHANCED)
        return _ID3V1_BYTES + (_ENHANCED_BYTES if enhanced else 0)
    footer = tail[-_APE_BYTES:]
    if footer.startswith(_APE) and len(footer) == _APE_BYTES:
        has_header = int.from_bytes(footer[20:24], "little") & _APE_HAS_HEADER
        return int.from_bytes(footer[12:16], "little") + (_APE_BYTES if has_header else 0)
    if tail.endswith((b"LYRICS200", b"LYRICSEND")) and LYRICS in tail:
        return len(tail) - tail.rindex(LYRICS)
    return 0


HEADER_BYTES = 4
# 160 kbit/s at 8 kHz, padded, is the largest that the tables below give.
LARGEST_BYTES = 144 * 160_000 // 8_000 + 1

_VERSIONS = {0b11: 1, 0b10: 2, 0b00: 25}
_LAYERS = {0b11: 1, 0b10: 2, 0b01: 3}
_RATES_HZ = {1: (44100, 48000, 32000), 2: (22050, 24000, 16000), 25: (11025, 12000, 8000)}
_KBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_FREE_FORMAT, _BAD_BITRATE = 0, 15


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What all frames of a stream have in common. `version` is 1, 2 or 25, `layer` 1 to 3."""

    version: int
    layer: int
    rate_hz: int

    @classmethod
    def at(cls, data: bytes, at: int) -> Self | None:
        """Parse the header at `at`. Returns None if it is invalid or incomplete."""
        if len(data) < at + HEADER_BYTES or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
            return None
        version = _VERSIONS.get(data[at + 1] >> 3 & 3)
        layer = _LAYERS.get(data[at + 1] >> 1 & 3)
        rate = data[at + 2] >> 2 & 3
        if version is None or layer is None or rate == 3 or data[at + 2] >> 4 == _BAD_BITRATE:
            return None
        return cls(version, layer, _RATES_HZ[version][rate])

    @property
    def samples(self) -> int:
        """The number of samples in a frame, per channel."""
        if self.layer == 1:
            return 384
        return 576 if self.layer == 3 and self.version != 1 else 1152

    def size(self, data: bytes, at: int) -> int | None:
        """The size in bytes of the frame at `at`, which may be cut off. None if there is no frame
        of this stream, or one of free format, whose header does not give a size.
        """
        if self.at(data, at) != self or data[at + 2] >> 4 == _FREE_FORMAT:
            return None
        return self._size(data[at + 2] >> 4, data[at + 2] >> 1 & 1)

    def run_end(self, data: bytes, at: int = 0) -> int:
        """Where the unbroken run of complete frames of this stream ends that begins at `at`."""
        run = _compiled(self)[0].match(data, at)
        assert run is not None, "it also matches an empty run"
        return run.end()

    @property
    def three(self) -> re.Pattern[bytes]:
        """A pattern for two complete frames of this stream and the header of a third."""
        return _compiled(self)[1]

    def _size(self, bitrate: int, padding: int) -> int:
        bits_s = _KBITS[min(self.version, 2), self.layer][bitrate - 1] * 1000
        if self.layer == 1:
            return (12 * bits_s // self.rate_hz + padding) * 4
        return self.samples // 8 * bits_s // self.rate_hz + padding

    def _patterns(self) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
        """The patterns for `run_end` and `three`. A pattern takes 50 ns for each frame, a loop four
        times as long.
        """
        version = next(bits for bits, version in _VERSIONS.items() if version == self.version)
        layer = next(bits for bits, layer in _LAYERS.items() if layer == self.layer)
        rate = _RATES_HZ[self.version].index(self.rate_hz)
        second = 0xE0 | version << 3 | layer << 1  # the last bit: no checksum
        sync = rb"\xff[\x%02x\x%02x]" % (second, second | 1)
        sizes = []
        thirds = b""
        for bitrate in range(1, _BAD_BITRATE):
            for padding in (0, 1):
                third = bitrate << 4 | rate << 2 | padding << 1  # the last bit is private
                choice = rb"\x%02x\x%02x" % (third, third | 1)
                sizes.append(rb"[%b].{%d}" % (choice, self._size(bitrate, padding) - 3))
                thirds += choice
        frame = rb"%b(?:%b)" % (sync, b"|".join(sizes))
        run = re.compile(rb"(?:%b)*+" % frame, re.DOTALL)
        three = re.compile(rb"(?:%b){2}%b[%b]" % (frame, sync, thirds), re.DOTALL)
        return run, three


@cache
def _compiled(header: FrameHeader) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    return header._patterns()


@dataclass(frozen=True, slots=True)
class Declared:
    """What the first frame of a file says: how many frames follow, and the size of all in bytes."""

    frames: int
    size: int

    @classmethod
    def parse(cls, header: FrameHeader, frame: bytes) -> Self | None:
        """What the complete `frame` with this `header` declares, None if it declares nothing."""
        mono = frame[3] >> 6 == 3
        side_bytes = (17 if mono else 32) if header.version == 1 else (9 if mono else 17)
        begin = HEADER_BYTES + side_bytes
        for at in (begin, begin + 2):  # the second one if there is a checksum
            if frame[at : at + 4] in (b"Xing", b"Info") and len(frame) >= at + 16:
                flags = int.from_bytes(frame[at + 4 : at + 8])
                if flags & 3 == 3:  # both fields are present
                    return cls._of(frame[at + 8 : at + 12], frame[at + 12 : at + 16])
        if frame[36:40] == b"VBRI" and len(frame) >= 54:
            return cls._of(frame[50:54], frame[46:50])
        return None

    @classmethod
    def _of(cls, frames: bytes, size: bytes) -> Self | None:
        declared = cls(int.from_bytes(frames), int.from_bytes(size))
        return declared if declared.frames and declared.size else None


_PIECE_BYTES = 16 << 10
_WHOLE_BYTES = 128 << 10
_INTERVAL_BYTES = 1 << 20
# Some programs write a wrong size into a tag: the first frame may begin so much later.
_JUNK_BYTES = 4096
# Between frames. To check millions of small tags would take longer than to store them.
_MAX_TAGS = 256
_PADDING_BYTES = 4096  # zeros that may follow a tag or the last frame
# From any byte of a stream, two complete frames and the header of a third begin within this many.
_THREE_BYTES = 4 * LARGEST_BYTES

_NOTHING = "it contains no MPEG audio"
_LAST_FRAME = "the last frame is cut off"


def mpeg_problem(stream: Stream[Any], *, tagged: bool) -> Parser[str | None]:
    """Check a stream that begins with a frame or, if it is `tagged`, that followed an ID3 tag.
    Returns what is wrong in words, None if nothing is.
    """
    stream.keeps_tail = True
    begin = yield Take(_PIECE_BYTES)
    start = _first_frame(begin) if tagged else 0
    header = FrameHeader.at(begin, start)
    if header is None:
        return _NOTHING
    size = header.size(begin, start)
    if size is None:
        return "its frames are of free format, which few players support"
    declared = Declared.parse(header, begin[start : start + size])
    stream.unread(begin[start:])
    first = stream.position
    problem, end = yield from _to_the_end(stream, header)
    if declared is not None and end is not None:
        actual = end - first
        if declared.size - actual > LARGEST_BYTES:
            declared_s = declared.frames * header.samples / header.rate_hz
            return cut_off(declared_s, declared_s * actual / declared.size)
    return problem


def _first_frame(begin: bytes) -> int:
    """Where the first frame that two others follow begins in the bytes after a tag. If there is
    none within `_JUNK_BYTES`, where the padding ends.
    """
    at = begin.find(b"\xff", 0, _JUNK_BYTES)
    while at >= 0:
        header = FrameHeader.at(begin, at)
        if header is not None and header.three.match(begin, at):
            return at
        at = begin.find(b"\xff", at + 1, _JUNK_BYTES)
    return len(begin) - len(begin.lstrip(b"\0"))


def _to_the_end(stream: Stream[Any], header: FrameHeader) -> Parser[tuple[str | None, int | None]]:
    """Check a stream from the beginning of a frame. Returns the first problem, and where the audio
    ends, None if the check did not get there.
    """
    whole_until = stream.position + _WHOLE_BYTES
    tags = 0
    while True:
        piece = yield Take(_PIECE_BYTES)
        rest = piece[header.run_end(piece) :]
        if len(piece) < _PIECE_BYTES:
            return _last_problem(header, rest), stream.position - len(rest)
        stream.unread(rest)
        if len(rest) >= LARGEST_BYTES:  # so it is not an incomplete frame
            tag = tag_size(rest)
            if tag is None:
                return _break(header, rest, stream.position), None
            tags += 1
            if tags > _MAX_TAGS:
                return f"there are more than {_MAX_TAGS} tags in it", None
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
    """As `_to_the_end`, for a stream that ended in a part that was skipped."""
    tail, tags = without_last_tags(stream.tail)
    if not tail:  # all of it is a tag, perhaps with a picture
        return None, None
    start = _next_frame(header, tail)
    if start is None:
        return "its end is not MPEG audio", None
    rest = tail[header.run_end(tail, start) :]
    return _last_problem(header, rest), stream.size - tags - len(rest)


def _next_frame(header: FrameHeader, data: bytes) -> int | None:
    """Where the next frame begins in bytes from the middle of a stream, None if it does not."""
    found = header.three.search(data, 0, _THREE_BYTES)
    return found.start() if found is not None and found.start() < LARGEST_BYTES else None


def _break(header: FrameHeader, rest: bytes, position: int) -> str:
    """Describe data found where a frame was expected."""
    other = FrameHeader.at(rest, 0)
    if other is not None and other.rate_hz != header.rate_hz:
        return (
            f"at byte {position} the sampling rate changes from {header.rate_hz} to "
            f"{other.rate_hz} Hz"
        )
    return f"at byte {position} there is something that is not MPEG audio"


def _last_problem(header: FrameHeader, rest: bytes) -> str | None:
    """What is wrong with the bytes after the last complete frame, None if they are tags and some
    zeros.
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
            return f"its last {len(rest)} bytes are not MPEG audio"
    return None


def _is_begin_of_header(rest: bytes) -> bool:
    return len(rest) < 4 and rest[0] == 0xFF and (len(rest) < 2 or rest[1] >= 0xE0)

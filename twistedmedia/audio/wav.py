"""WAV: checks the header, and that there is as much audio as the header says.

Pure. Sources: Microsoft's RIFF and WAVEFORMATEXTENSIBLE, RFC 2361 (the registry of codings), and
for files above 4 GiB EBU Tech 3306 (RF64) and ITU-R BS.2088 (BW64).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Self

from twistedmedia.audio.stream import Parser, Skip, Stream, Take, cut_off

_RIFF_BYTES, _CHUNK_BYTES = 12, 8
# A file has a handful. To check millions of empty chunks would take longer than to store them.
_MAX_CHUNKS = 256
_SIZES = struct.Struct("<QQ")  # in a ds64 chunk: of the file, of the data
_ALL_ONES = 0xFFFFFFFF

_FORMAT = struct.Struct("<HHIIHH")
_FORMAT_BYTES = 40  # with the extension
_EXTENSIBLE = 0xFFFE
_SUBFORMAT_AT = 24
_PCM, _FLOAT, _A_LAW, _MU_LAW = 1, 3, 6, 7
# The bits of a sample in codings whose blocks have one sample of each channel.
_PLAIN_BITS = {_PCM: range(1, 33), _FLOAT: (32, 64), _A_LAW: (8,), _MU_LAW: (8,)}
# Other codings that telephones and programs use.
_CODINGS = frozenset[int]().union(
    (0x02, 0x10, 0x11, 0x17, 0x20, 0x61, 0x62),  # ADPCM: Microsoft's, OKI's, IMA's, others'
    (0x14, 0x40, 0x41, 0x42, 0x45, 0x64, 0x65, 0x83, 0x85, 0x111, 0x28F),  # the ITU's G.72x
    (0x22, 0x31),  # TrueSpeech, GSM 6.10
    (0x50, 0x55, 0xFF, 0x1610, 0x2000, 0x2001),  # MPEG, MP3, AAC, AC-3, DTS
)
_RATES_HZ = range(1_000, 768_001)
_MAX_CHANNELS = 64

# The size is unknown to a program that writes into a pipe, and to a recorder that crashed: all ones
# (ffmpeg, mpg123), or about 2 GiB (sox, espeak, arecord).
_UNKNOWN_SIZES = (
    range(0x7FFFF000, 0x80000100),
    range(0xFFFFF000, 1 << 32),
    range(1 << 63, 1 << 64),
)
# A size of 0 is unknown as well, unless one of these chunks follows: then the data are empty.
_OTHER_CHUNKS = {b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"smpl", b"fact", b"JUNK"}

_ENDS = "it ends before the audio begins"
_EMPTY = "it contains no audio"


def wav_problem(stream: Stream[Any]) -> Parser[str | None]:
    """Check a stream that begins like WAV. Returns what is wrong in words, None if nothing is."""
    yield Take(_RIFF_BYTES)
    format_: _Format | None = None
    data_size: int | None = None  # in a ds64 chunk
    for _ in range(_MAX_CHUNKS):
        header = yield Take(_CHUNK_BYTES)
        if len(header) < _CHUNK_BYTES:
            return _ENDS
        kind, size = header[:4], int.from_bytes(header[4:], "little")
        if kind == b"data":
            if format_ is None:
                return "the data chunk comes before the format chunk"
            if size == _ALL_ONES and data_size is not None:
                size = data_size
            return (yield from _problem_of_data(stream, format_, size))
        if not all(0x20 <= byte < 0x7F for byte in kind):
            return f"at byte {stream.position - _CHUNK_BYTES} there is no chunk"
        content = b""
        if kind == b"fmt ":
            content = yield Take(min(size, _FORMAT_BYTES))
            format_ = _Format.parse(content)
            if format_ is None:
                return "its format is incomplete"
            if (problem := format_.problem()) is not None:
                return problem
        elif kind == b"ds64":
            content = yield Take(min(size, _SIZES.size))
            if len(content) == _SIZES.size:
                data_size = _SIZES.unpack(content)[1]
        yield Skip(size - len(content))
        if size % 2:
            padding = yield Take(1)
            if padding.isalpha():  # some programs leave it out: this begins the next chunk
                stream.unread(padding)
    return f"its first {_MAX_CHUNKS} chunks contain no data chunk"


def _problem_of_data(stream: Stream[Any], format_: _Format, size: int) -> Parser[str | None]:
    begin = stream.position
    head = yield Take(_CHUNK_BYTES)
    if not head or (size == 0 and head[:4] in _OTHER_CHUNKS):
        return _EMPTY
    if size == 0 or any(size in sizes for sizes in _UNKNOWN_SIZES):
        return None
    stream.unread(head)
    yield Skip(size)
    actual = stream.position - begin
    if actual >= size:
        return None
    if not format_.bytes_s:  # the bit rate is variable
        return f"header says {size} bytes, data ends after {actual}"
    return cut_off(size / format_.bytes_s, actual / format_.bytes_s)


@dataclass(frozen=True, slots=True)
class _Format:
    """The content of a fmt chunk. `coding` is the subformat if the format is extensible."""

    coding: int
    channels: int
    rate_hz: int
    declared_bytes_s: int
    block_bytes: int
    bits: int

    @classmethod
    def parse(cls, content: bytes) -> Self | None:
        """Parse a fmt chunk. Returns None if it is incomplete."""
        if len(content) < _FORMAT.size:
            return None
        coding, *numbers = _FORMAT.unpack_from(content)
        if coding == _EXTENSIBLE:
            if len(content) < _SUBFORMAT_AT + 2:
                return None
            coding = int.from_bytes(content[_SUBFORMAT_AT : _SUBFORMAT_AT + 2], "little")
        return cls(coding, *numbers)

    @property
    def bytes_s(self) -> int:
        """Bytes per second. For plain codings it is computed, as players do: some programs declare
        nonsense.
        """
        return self.rate_hz * self.block_bytes if self._is_plain else self.declared_bytes_s

    @property
    def _is_plain(self) -> bool:
        return self.coding in _PLAIN_BITS

    def problem(self) -> str | None:
        """What is wrong in words, None if nothing is."""
        if not self._is_plain and self.coding not in _CODINGS:
            return f"its coding, 0x{self.coding:04x}, is unknown to players"
        if not 1 <= self.channels <= _MAX_CHANNELS:
            return f"it says that it has {self.channels} channels"
        if self.rate_hz not in _RATES_HZ:
            return f"it says that it has {self.rate_hz} samples a second"
        if self._is_plain:
            whole_bytes = self.channels * -(-self.bits // 8)
            if self.bits not in _PLAIN_BITS[self.coding] or self.block_bytes != whole_bytes:
                return (
                    f"it says that {self.channels} samples of {self.bits} bits take "
                    f"{self.block_bytes} bytes"
                )
        return None

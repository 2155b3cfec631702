"""The frames of MPEG audio: what a header says, and how to go from frame to frame.

Pure. Sources: ISO 11172-3 and 13818-3 (2.4.2.3), and the unofficial MPEG 2.5; for the first frame
of a file, which says how long that is, the descriptions of Xing's and Fraunhofer's (VBRI) headers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Self

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
    """What the frames of one stream have in common. `version` is 1, 2 or 25, `layer` 1 to 3."""

    version: int
    layer: int
    rate_hz: int

    @classmethod
    def at(cls, data: bytes, at: int) -> Self | None:
        """The header at `at`; None when there is none, or too little of it."""
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
        """In a frame, of each channel."""
        if self.layer == 1:
            return 384
        return 576 if self.layer == 3 and self.version != 1 else 1152

    def size(self, data: bytes, at: int) -> int | None:
        """The size in bytes of the frame of this stream that begins at `at`, of which the end may
        lack; None when none does. A frame of free format has a size that no header tells.
        """
        if self.at(data, at) != self or data[at + 2] >> 4 == _FREE_FORMAT:
            return None
        return self._size(data[at + 2] >> 4, data[at + 2] >> 1 & 1)

    def run_end(self, data: bytes, at: int = 0) -> int:
        """Where the whole frames of this stream end that follow each other from `at`."""
        run = _compiled(self)[0].match(data, at)
        assert run is not None, "it matches no frame as well"
        return run.end()

    @property
    def three(self) -> re.Pattern[bytes]:
        """Matches where two whole frames of this stream and the header of a third begin."""
        return _compiled(self)[1]

    def _size(self, bitrate: int, padding: int) -> int:
        bits_s = _KBITS[min(self.version, 2), self.layer][bitrate - 1] * 1000
        if self.layer == 1:
            return (12 * bits_s // self.rate_hz + padding) * 4
        return self.samples // 8 * bits_s // self.rate_hz + padding

    def _patterns(self) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
        """For `run_end`, which takes 50 ns a frame this way and four times that in a loop, and for
        `three`.
        """
        version = next(bits for bits, version in _VERSIONS.items() if version == self.version)
        layer = next(bits for bits, layer in _LAYERS.items() if layer == self.layer)
        rate = _RATES_HZ[self.version].index(self.rate_hz)
        second = 0xE0 | version << 3 | layer << 1  # its last bit says whether there is a checksum
        sync = rb"\xff[\x%02x\x%02x]" % (second, second | 1)
        sizes = []
        thirds = b""
        for bitrate in range(1, _BAD_BITRATE):
            for padding in (0, 1):
                third = bitrate << 4 | rate << 2 | padding << 1  # its last bit is private
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
    """What a file's first frame says of all of them: how many there are, and their bytes."""

    frames: int
    size: int

    @classmethod
    def by(cls, header: FrameHeader, frame: bytes) -> Self | None:
        """What the whole `frame`, whose header that is, says; None when it says nothing."""
        mono = frame[3] >> 6 == 3
        side_bytes = (17 if mono else 32) if header.version == 1 else (9 if mono else 17)
        for at in (HEADER_BYTES + side_bytes, HEADER_BYTES + side_bytes + 2):  # after a checksum
            if frame[at : at + 4] in (b"Xing", b"Info") and len(frame) >= at + 16:
                flags = int.from_bytes(frame[at + 4 : at + 8])
                if flags & 3 == 3:  # both are there
                    return cls._of(frame[at + 8 : at + 12], frame[at + 12 : at + 16])
        if frame[36:40] == b"VBRI" and len(frame) >= 54:
            return cls._of(frame[50:54], frame[46:50])
        return None

    @classmethod
    def _of(cls, frames: bytes, size: bytes) -> Self | None:
        declared = cls(int.from_bytes(frames), int.from_bytes(size))
        return declared if declared.frames and declared.size else None

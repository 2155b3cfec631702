"""
The content of the files that are sent and served: one block again and again.

So a large file costs neither memory nor time to make, and any part of it can be checked. It knows
nothing of how a file travels.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BLOCK = random.Random(1).randbytes(1 << 20)
WAV_HEADER_BYTES = 44
_PCM, _CHANNELS, _FRAMES_PER_S, _FRAME_BYTES, _SAMPLE_BITS = 1, 2, 44_100, 4, 16
# MPEG 1, layer III, 128 kbit/s at 48 kHz, stereo: every frame has the same size.
_MP3_HEADER, _MP3_FRAME_BYTES = b"\xff\xfb\x94\x00", 384
_ID3_HEADER_BYTES = 10


@dataclass(frozen=True)
class Content:
    """
    A file's bytes: a header, then the block as often as it fits, its last time perhaps in part.

    :ivar size_bytes: of all, with the header.
    """

    size_bytes: int
    header: bytes = b""
    block: bytes = BLOCK

    @property
    def repeats(self) -> int:
        """How often the whole block follows the header."""
        return (self.size_bytes - len(self.header)) // len(self.block)

    @property
    def rest(self) -> bytes:
        """The last, incomplete block."""
        return self.block[: (self.size_bytes - len(self.header)) % len(self.block)]

    def pieces(self) -> Iterator[bytes]:
        """All the bytes, from the first to the last."""
        yield self.header
        for _ in range(self.repeats):
            yield self.block
        yield self.rest

    def bytes_at(self, offset: int, length: int) -> bytes:
        """The bytes from *offset* on, at most *length*, which is no more than a block has."""
        length = min(length, self.size_bytes - offset)
        if offset < len(self.header):
            return (self.header[offset:] + self.block)[:length]
        start = (offset - len(self.header)) % len(self.block)
        found = self.block[start : start + length]
        return found + self.block[: length - len(found)]

    def write_to(self, path: Path) -> None:
        """Make the file *path*, and its folder where that is missing."""
        path.parent.mkdir(exist_ok=True)
        with open(path, "wb") as file:
            file.writelines(self.pieces())

    def verify(self, path: Path) -> None:
        """
        Check that the file at *path* has this content.

        :raises ValueError: when its length, its beginning or its end, of a block each, has not.
        """
        found = path.stat().st_size
        if found != self.size_bytes:
            raise ValueError(f"the stored file has {found} bytes, {self.size_bytes} were sent")
        last = max(0, self.size_bytes - len(self.block))
        with open(path, "rb") as file:
            for offset in (0, last):
                file.seek(offset)
                if file.read(len(self.block)) != self.bytes_at(offset, len(self.block)):
                    raise ValueError("the stored file has not the bytes that were sent")


def wav(size_bytes: int) -> Content:
    """A WAV file of *size_bytes* in all: 16-bit stereo, whose noise is the block."""
    data_bytes = size_bytes - WAV_HEADER_BYTES
    audio_format = struct.pack(
        "<HHIIHH",
        _PCM,
        _CHANNELS,
        _FRAMES_PER_S,
        _FRAMES_PER_S * _FRAME_BYTES,
        _FRAME_BYTES,
        _SAMPLE_BITS,
    )
    header = b"".join(
        [
            struct.pack("<4sI4s", b"RIFF", size_bytes - 8, b"WAVE"),
            struct.pack("<4sI", b"fmt ", len(audio_format)),
            audio_format,
            struct.pack("<4sI", b"data", data_bytes),
        ]
    )
    return Content(size_bytes, header)


def mp3(size_bytes: int) -> Content:
    """An MP3 file of *size_bytes* in all: frames of noise behind a tag that fills what is left."""
    padding_bytes = (size_bytes - _ID3_HEADER_BYTES) % _MP3_FRAME_BYTES
    # The tag's size has seven bits in a byte.
    tag = b"ID3\x03\0\0\0\0" + bytes(divmod(padding_bytes, 128)) + bytes(padding_bytes)
    return Content(size_bytes, tag, _mp3_frames())


@cache
def _mp3_frames() -> bytes:
    noise_bytes = _MP3_FRAME_BYTES - len(_MP3_HEADER)
    starts = range(0, len(BLOCK) - noise_bytes + 1, noise_bytes)
    return b"".join(_MP3_HEADER + BLOCK[start : start + noise_bytes] for start in starts)


def listed_names(count: int) -> list[str]:
    """Names of files for a folder that is listed: most in ASCII, each tenth one not."""
    return [
        f"größe-録音-{number:06}.wav" if number % 10 == 0 else f"rec-{number:06}.wav"
        for number in range(1, count + 1)
    ]

"""Audio files, and files that are not audio, made of their parts."""

from __future__ import annotations

import io
import struct
import wave
from random import Random

from twistedmedia.audio.mpeg import FrameHeader

PCM, FLOAT, A_LAW, MU_LAW, GSM, IN_MPEG, EXTENSIBLE = 1, 3, 6, 7, 0x31, 0x55, 0xFFFE
_PCM_GUID = bytes.fromhex("0000000000001000800000aa00389b71")

MP3_128 = b"\xff\xfb\x90\x00"  # MPEG 1, layer III, 128 kbit/s, 44.1 kHz, stereo
MP3_320 = b"\xff\xfb\xe0\x00"
MP3_48K = b"\xff\xfb\x94\x00"
MP3_MONO = b"\xff\xfb\x90\xc0"
MP3_CHECKED = b"\xff\xfa\x90\x00"  # with a checksum
MP2 = b"\xff\xfd\x80\x00"
MP1 = b"\xff\xff\x80\x00"
MPEG2_MP3 = b"\xff\xf3\x40\xc0"  # 22.05 kHz, 32 kbit/s
MPEG25_MP3 = b"\xff\xe3\x18\xc0"  # 8 kHz, 8 kbit/s
FREE_FORMAT = b"\xff\xfb\x00\x00"


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes for the inside of frames: no frame begins in them, because none is 0xff."""
    return Random(seed).randbytes(size).replace(b"\xff", b"\xfe")


def frame(header: bytes = MP3_128, content: bytes = b"") -> bytes:
    """One frame, which begins with `content` after its header."""
    kind = FrameHeader.at(header, 0)
    assert kind is not None
    size = kind.size(header, 0)
    assert size is not None
    return header + content + noise(size - len(header) - len(content), len(content))


def frames(count: int, header: bytes = MP3_128) -> bytes:
    """`count` equal frames."""
    return frame(header) * count


def variable_frames(count: int) -> bytes:
    """Frames of many sizes."""
    headers = [
        bytes((0xFF, 0xFB, bits << 4 | padding << 1, 0))
        for bits in range(1, 15)
        for padding in (0, 1)
    ]
    random = Random(count)
    return b"".join(frame(random.choice(headers)) for _ in range(count))


def xing(count: int, size: int, header: bytes = MP3_128, word: bytes = b"Xing") -> bytes:
    """A first frame that declares the number of the others and the size of all."""
    mono = header[3] >> 6 == 3
    one = header[1] & 0x08  # MPEG 1
    side_bytes = (17 if mono else 32) if one else (9 if mono else 17)
    return frame(header, bytes(side_bytes) + word + struct.pack(">III", 3, count, size))


def vbri(count: int, size: int) -> bytes:
    """As `xing`, in Fraunhofer's form."""
    return frame(MP3_128, bytes(32) + b"VBRI" + struct.pack(">HHHII", 1, 0, 75, size, count))


def declaring(count: int) -> bytes:
    """A complete file of 128 kbit/s that declares its length."""
    content = frames(count)
    first = xing(count, len(content) + len(frame()))
    return first + content


def id3(size: int, version: int = 3, flags: int = 0, filler: bytes = b"\0") -> bytes:
    """An ID3v2 tag with `size` bytes after its header."""
    sizes = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    footer = b"3DI" + bytes((version, 0, flags)) + sizes if flags & 0x10 else b""
    return b"ID3" + bytes((version, 0, flags)) + sizes + filler * size + footer


def id3v1() -> bytes:
    """The tag of 128 bytes at the end of a file."""
    return b"TAG" + b"a title".ljust(125, b"\0")


def ape(size: int) -> bytes:
    """An APEv2 tag with header and footer, and `size` bytes of items."""

    def edge(flags: int) -> bytes:
        return b"APETAGEX" + struct.pack("<IIII8x", 2000, size + 32, 1, flags)

    return edge(0xA0000000) + b"\1" * size + edge(0x80000000)


def chunk(kind: bytes, content: bytes, size: int | None = None, padding: bytes = b"\0") -> bytes:
    """A RIFF chunk with its padding. It declares `size` instead of its real size, if given."""
    declared = len(content) if size is None else size
    return kind + struct.pack("<I", declared) + content + padding * (len(content) % 2)


def fmt(
    coding: int = PCM,
    channels: int = 1,
    rate: int = 8000,
    bits: int = 16,
    block: int | None = None,
    bytes_s: int | None = None,
    more: bytes = b"",
) -> bytes:
    """A fmt chunk."""
    block = channels * bits // 8 if block is None else block
    bytes_s = rate * block if bytes_s is None else bytes_s
    return chunk(
        b"fmt ", struct.pack("<HHIIHH", coding, channels, rate, bytes_s, block, bits) + more
    )


def extensible(bits: int = 24, channels: int = 2, coding: int = PCM) -> bytes:
    """A fmt chunk of WAVEFORMATEXTENSIBLE."""
    more = struct.pack("<HHI", 22, bits, 3) + struct.pack("<H", coding) + _PCM_GUID[2:]
    return fmt(EXTENSIBLE, channels, 48000, bits, more=more)


def riff(*chunks: bytes, form: bytes = b"RIFF", size: int | None = None) -> bytes:
    """A WAV file of these chunks."""
    content = b"WAVE" + b"".join(chunks)
    return form + struct.pack("<I", len(content) if size is None else size) + content


def wav(seconds: float, *, actual: float | None = None) -> bytes:
    """A plain file of 8 kHz and 16 bits, cut off after `actual` seconds."""
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(noise(int(seconds * 16000)))
    whole = sound.getvalue()
    return whole if actual is None else whole[: 44 + int(actual * 16000)]


def ds64(size: int) -> bytes:
    """A ds64 chunk that declares the size of the data."""
    return chunk(b"ds64", struct.pack("<QQQI", size + 80, size, size // 2, 0))


def ogg(packet: bytes) -> bytes:
    """The first page of an Ogg stream."""
    return b"OggS\0\2" + bytes(8) + b"abcd" + bytes(4) + b"sums" + bytes((1, len(packet))) + packet

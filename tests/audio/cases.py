"""Contents, and what is wrong with each as the audio that its name promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.audio.samples import (
    A_LAW,
    FLOAT,
    FREE_FORMAT,
    GSM,
    IN_MPEG,
    MP1,
    MP2,
    MP3_48K,
    MP3_320,
    MP3_CHECKED,
    MP3_MONO,
    MPEG2_MP3,
    MPEG25_MP3,
    MU_LAW,
    ape,
    chunk,
    declaring,
    ds64,
    extensible,
    fmt,
    frame,
    frames,
    id3,
    id3v1,
    noise,
    ogg,
    riff,
    variable_frames,
    vbri,
    wav,
    xing,
)

DATA = Path(__file__).parents[1] / "data"
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """`problem` is None if the content is what the extension promises."""

    what: str
    extension: str
    content: bytes
    problem: str | None

    def __str__(self) -> str:
        return f"{self.extension}: {self.what}"


def _wav() -> Iterator[tuple[str, bytes, str | None]]:
    data = chunk(b"data", noise(800))
    empty = "it contains no audio"
    ends = "it ends before the audio begins"
    yield "what the standard library writes", wav(1), None
    yield "an odd number of bytes", riff(fmt(bits=8), chunk(b"data", noise(801))), None
    yield (
        "the same without the padding",
        riff(fmt(bits=8), chunk(b"data", noise(801), padding=b"")),
        None,
    )
    yield (
        "chunks before and after",
        riff(
            chunk(b"JUNK", bytes(28)), fmt(), chunk(b"LIST", b"INFO"), data, chunk(b"id3 ", id3(9))
        ),
        None,
    )
    yield "an odd chunk before", riff(chunk(b"bext", noise(601)), fmt(), data), None
    yield (
        "an odd chunk that is not padded",
        riff(chunk(b"bext", noise(601), padding=b""), fmt(), data),
        None,
    )
    yield "A-law", riff(fmt(A_LAW, bits=8), data), None
    yield (
        "mu-law",
        riff(fmt(MU_LAW, bits=8, more=b"\0\0"), chunk(b"fact", b"\x20\3\0\0"), data),
        None,
    )
    yield "floats", riff(fmt(FLOAT, 2, 48000, 32), data), None
    yield (
        "GSM, as telephones do",
        riff(
            fmt(GSM, bits=0, block=65, bytes_s=1625, more=b"\2\0\x40\1"), chunk(b"data", noise(650))
        ),
        None,
    )
    yield "MPEG in WAV", riff(fmt(IN_MPEG, 2, 44100, 0, 1, 16000), data), None
    yield "extensible", riff(extensible(), data), None
    yield "20 bits in 24", riff(fmt(bits=20, block=3), data), None
    yield "a wrong number of bytes a second", riff(fmt(bytes_s=1), data), None
    yield "a wrong size of the whole", riff(fmt(), data, size=0), None
    yield "data after the end", riff(fmt(), data) + noise(100), None
    yield (
        "RF64",
        riff(
            ds64(800), fmt(), chunk(b"data", noise(800), 0xFFFFFFFF), form=b"RF64", size=0xFFFFFFFF
        ),
        None,
    )
    yield (
        "BW64",
        riff(
            ds64(800), fmt(), chunk(b"data", noise(800), 0xFFFFFFFF), form=b"BW64", size=0xFFFFFFFF
        ),
        None,
    )
    yield (
        "unfinished RF64",
        riff(ds64(0), fmt(), chunk(b"data", noise(800), 0xFFFFFFFF), form=b"RF64"),
        None,
    )
    yield (
        "written into a pipe by ffmpeg",
        riff(fmt(), chunk(b"data", noise(800), 0xFFFFFFFF), size=0xFFFFFFFF),
        None,
    )
    yield (
        "written into a pipe by sox",
        riff(fmt(), chunk(b"data", noise(800), 0x7FFFF000), size=0x7FFFF024),
        None,
    )
    yield (
        "written into a pipe by arecord",
        riff(fmt(), chunk(b"data", noise(800), 0x80000000)),
        None,
    )
    yield (
        "a recorder that crashed",
        riff(fmt(), chunk(b"data", noise(800), 0), size=0),
        None,
    )
    yield (
        "4:12 of 10:00",
        wav(600, actual=252.4),
        "header says 10:00, data ends at 4:12",
    )
    yield (
        "more than an hour",
        riff(fmt(rate=2000, bits=8), chunk(b"data", noise(900), 8_000_000)),
        "header says 1:06:40, data ends at 0:00",
    )
    yield "a few bytes less", wav(2)[:-400], "header says 0:02, data ends at 0:01"
    yield (
        "a few bytes less of a second and a half",
        wav(1.5)[:-400],
        "header says 0:01.500, data ends at 0:01.475",
    )
    yield (
        "a sample less",
        riff(fmt(rate=48_000, bits=8), chunk(b"data", noise(72_000), 72_001)),
        "header says 0:01.500020, data ends at 0:01.500000",
    )
    yield (
        "RF64 that is cut off",
        riff(ds64(1600), fmt(bits=8), chunk(b"data", noise(800), 0xFFFFFFFF), form=b"RF64"),
        "header says 0:00.200, data ends at 0:00.100",
    )
    yield "empty data", riff(fmt(), chunk(b"data", b"")), empty
    yield (
        "empty data and a chunk after them",
        riff(fmt(), chunk(b"data", b""), chunk(b"LIST", b"INFOISFT")),
        empty,
    )
    yield (
        "empty data of unknown size",
        riff(fmt(), chunk(b"data", b"", 0xFFFFFFFF)),
        empty,
    )
    yield "no data", riff(fmt()), ends
    yield "no data, but another chunk", riff(fmt(), chunk(b"LIST", b"INFO")), ends
    yield "the first twelve bytes", wav(1)[:12], ends
    yield "the first forty", wav(1)[:40], ends
    yield "half of the format", wav(1)[:30], "its format is incomplete"
    yield (
        "a format of eight bytes",
        riff(chunk(b"fmt ", noise(8)), data),
        "its format is incomplete",
    )
    yield "half an extension", riff(fmt(0xFFFE, more=b"\x16\0"), data), "its format is incomplete"
    yield "the data first", riff(data, fmt()), "the data chunk comes before the format chunk"
    yield "no channels", riff(fmt(channels=0, block=2), data), "it says that it has 0 channels"
    yield (
        "thousands of channels",
        riff(fmt(channels=40000, bits=8, block=40000), data),
        "it says that it has 40000 channels",
    )
    yield "no samples a second", riff(fmt(rate=0), data), "it says that it has 0 samples a second"
    yield (
        "too many samples a second",
        riff(fmt(rate=4_000_000_000, bytes_s=1), data),
        "it says that it has 4000000000 samples a second",
    )
    yield (
        "no bits",
        riff(fmt(bits=0, block=2), data),
        "it says that 1 samples of 0 bits take 2 bytes",
    )
    yield (
        "blocks of another size",
        riff(fmt(channels=2, block=2), data),
        "it says that 2 samples of 16 bits take 2 bytes",
    )
    yield (
        "floats of 16 bits",
        riff(fmt(FLOAT, bits=16), data),
        "it says that 1 samples of 16 bits take 2 bytes",
    )
    variable = fmt(IN_MPEG, bits=0, block=1152, bytes_s=0)
    yield "MPEG of a variable bit rate, in WAV", riff(variable, data), None
    yield (
        "the same, cut off",
        riff(variable, data)[:-300],
        "header says 800 bytes, data ends after 500",
    )
    yield (
        "an unknown coding",
        riff(fmt(0xABCD), data),
        "its coding, 0xabcd, is unknown to players",
    )
    yield (
        "an unknown coding, extensible",
        riff(extensible(coding=0x1234), data),
        "its coding, 0x1234, is unknown to players",
    )
    yield "noise instead of chunks", riff(noise(800, 5)), "at byte 12 there is no chunk"
    yield (
        "noise after the format",
        riff(fmt(), b"\1\2\3\4" + noise(800)),
        "at byte 36 there is no chunk",
    )
    yield "a chunk that never ends", riff(fmt(), chunk(b"LIST", noise(800), 0xFFFFFFFE)), ends
    yield (
        "thousands of chunks",
        riff(*[chunk(b"JUNK", b"")] * 5000),
        "its first 256 chunks contain no data chunk",
    )


def _mp3() -> Iterator[tuple[str, bytes, str | None]]:
    cut = "the last frame is cut off"
    nothing = "it contains no MPEG audio"
    yield "from an encoder, constant bit rate, ID3", (DATA / "tone.mp3").read_bytes(), None
    yield "from an encoder, variable bit rate", (DATA / "sweep.mp3").read_bytes(), None
    for header, kind in (
        (MP3_320, "320 kbit/s"),
        (MP3_MONO, "mono"),
        (MP3_CHECKED, "checksums"),
        (MP2, "layer II"),
        (MP1, "layer I"),
        (MPEG2_MP3, "MPEG 2"),
        (MPEG25_MP3, "MPEG 2.5"),
    ):
        yield kind, frames(5, header), None
    yield "frames of all sizes", variable_frames(300), None
    yield "some megabytes", variable_frames(3000) * 3, None
    yield "one frame", frame(), None
    yield "ID3v2.3", id3(2000) + frames(5), None
    yield "ID3v2.4 with a footer", id3(2000, 4, 0x10) + frames(5), None
    yield "a large ID3, with a picture", id3(300_000, filler=b"\xff") + frames(5), None
    yield "two ID3 tags", id3(10) + id3(20) + frames(5), None
    yield "padding after the tag", id3(10) + bytes(1000) + frames(5), None
    yield "a tag of a wrong size", id3(10) + noise(1000) + frames(5), None
    yield "ID3v1", frames(5) + id3v1(), None
    yield "ID3v1, enhanced", frames(5) + b"TAG+" + bytes(223) + id3v1(), None
    yield "APE and ID3v1", frames(5) + ape(500) + id3v1(), None
    yield "a large APE tag", frames(5) + ape(200_000), None
    yield "lyrics", frames(5) + b"LYRICSBEGIN" + noise(3000) + b"000010LYRICS200" + id3v1(), None
    yield "some zeros after it", frames(5) + bytes(512), None
    yield "two files, one after the other", frames(5) + id3v1() + id3(100) + frames(5), None
    yield "a hundred tags between frames", (frames(1) + id3(9)) * 100, None
    yield (
        "tags without end",
        frames(5) + id3(0) * 4000,
        "there are more than 256 tags in it",
    )
    yield "large, with tags after it", frames(4000) + ape(500) + id3v1(), None
    yield "large, with a picture after it", frames(4000) + ape(200_000), None
    yield (
        "large, with lyrics after it",
        frames(4000) + b"LYRICSBEGIN" + noise(300) + b"000010LYRICS200",
        None,
    )
    yield "says how long it is", declaring(100), None
    yield "says how long it is, large, with tags", id3(500) + declaring(4000) + id3v1(), None
    yield "VBRI", vbri(9, 10 * 417) + frames(9), None
    yield "declares a little more than it has", xing(9, 10 * 417 + 800) + frames(9), None
    yield "declares nothing", xing(0, 0) + frames(9), None
    yield "one byte of the last frame is missing", frames(5)[:-1], cut
    yield "the last frame has one byte", frames(5) + frame()[:1], cut
    yield "the last frame has only its header", frames(5) + frame()[:4], cut
    yield "one frame, cut off", frame()[:100], cut
    yield "large, and the last frame is cut off", frames(4000)[:-100], cut
    yield "large, cut off, with a tag after it", frames(4000)[:-100] + id3v1(), cut
    yield "half of it", declaring(2000)[: 1000 * 417], "header says 0:52, data ends at 0:26"
    yield (
        "half of it, after a large tag",
        id3(500_000) + declaring(2000)[: 1000 * 417],
        "header says 0:52, data ends at 0:26",
    )
    yield (
        "half of it, in mono",
        xing(2000, 2001 * 417, MP3_MONO) + frames(999, MP3_MONO),
        "header says 0:52, data ends at 0:26",
    )
    yield (
        "half of it, large",
        declaring(40_000)[: 20_000 * 417 + 7],
        "header says 17:24, data ends at 8:42",
    )
    yield (
        "half of it, MPEG 2",
        xing(200, 201 * 104, MPEG2_MP3) + frames(99, MPEG2_MP3),
        "header says 0:05, data ends at 0:02",
    )
    yield (
        "half of it, VBRI",
        vbri(2000, 2001 * 417) + frames(999),
        "header says 0:52, data ends at 0:26",
    )
    yield (
        "half of it, Info",
        xing(2000, 2001 * 417, word=b"Info") + frames(999),
        "header says 0:52, data ends at 0:26",
    )
    yield "ID3 alone", id3(2000), nothing
    yield "ID3 that is cut off", id3(2000)[:1000], nothing
    yield "ID3 and zeros", id3(2000) + bytes(20_000), nothing
    yield (
        "ID3 and an HTML page",
        id3(20) + b"<!DOCTYPE html><script>alert(1)</script>",
        "the content is HTML, not MP3",
    )
    yield "ID3 and noise", id3(20) + noise(9000), nothing
    yield "a hundred ID3 tags", id3(0) * 100 + frames(5), None
    yield "thousands of ID3 tags", id3(0) * 5000 + frames(5), nothing
    yield (
        "free format",
        FREE_FORMAT + noise(5000),
        "its frames are of free format, which few players support",
    )
    yield (
        "one frame and noise",
        frame() + noise(9000),
        "its last 9000 bytes are not MPEG audio",
    )
    yield "two frames and noise", frames(2) + noise(900), "its last 900 bytes are not MPEG audio"
    yield (
        "a header and noise",
        b"\xff\xfb\x90\x00" + noise(20_000),
        "at byte 417 there is something that is not MPEG audio",
    )
    yield (
        "another sampling rate in the middle",
        frames(5) + frames(99, MP3_48K),
        "at byte 2085 the sampling rate changes from 44100 to 48000 Hz",
    )
    yield (
        "a hole",
        frames(50) + bytes(5000) + frames(50),
        "at byte 20850 there is something that is not MPEG audio",
    )
    yield (
        "a large hole late",
        frames(4000) + bytes(2 * MIB) + frames(4000),
        "at byte 2259961 there is something that is not MPEG audio",
    )
    yield "many zeros after it", frames(5) + bytes(9000), "its last 9000 bytes are not MPEG audio"
    yield (
        "large, and noise after it",
        frames(4000) + noise(9000),
        "its last 9000 bytes are not MPEG audio",
    )
    yield (
        "large, and much noise after it",
        frames(4000) + noise(90_000),
        "its end is not MPEG audio",
    )
    yield "an HTML page before it", b"<html><body>" + frames(50), "the content is HTML, not MP3"
    yield "noise before it", noise(3000) + frames(50), "the content is something else, not MP3"
    yield "all ones", b"\xff" * 50_000, "the content is something else, not MP3"
    yield (
        "headers without frames",
        b"\xff\xfb\x90\x00" * 20_000,
        "at byte 417 there is something that is not MPEG audio",
    )


_FIRST_BYTES = {
    "webm": b"\x1a\x45\xdf\xa3",
    "weba": b"\x1a\x45\xdf\xa3",
    "mka": b"\x1a\x45\xdf\xa3",
    "aiff": b"FORM\0\0\0\x40AIFF",
    "aif": b"FORM\0\0\0\x40AIFC",
    "caf": b"caff\0\x01\0\0",
    "amr": b"#!AMR\n",
    "awb": b"#!AMR-WB\n",
    "wma": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c",
}


def _more_formats() -> Iterator[tuple[str, str, bytes, str | None]]:
    """Case 72: what browsers and telephone systems record."""
    for extension, first in _FIRST_BYTES.items():
        yield f"{extension} by its first bytes", extension, first + noise(99), None
        yield (
            f"noise as {extension}",
            extension,
            noise(99, 1),
            (f"the content is something else, not {_NAMES.get(extension, extension.upper())}"),
        )
    yield "wide-band AMR", "amr", b"#!AMR-WB\n" + noise(99), None
    yield "AMR of several channels", "amr", b"#!AMR_MC1.0\n" + noise(99), None
    yield "narrow-band AMR", "awb", b"#!AMR\n" + noise(99), "the content is AMR, not AMR-WB"
    yield "a WAV file as WebM", "webm", wav(1), "the content is WAV, not WebM or Matroska"
    for extension in ("gsm", "ulaw", "ul", "alaw", "al", "sln", "sln16", "sln48", "g722", "g729"):
        yield f"nothing as {extension}", extension, b"", "it is empty"
        for what, content in _RAW.items():
            yield f"{what} as {extension}", extension, content, None
    yield "a format that the operator added", "clip", noise(99), None


_NAMES = {
    **dict.fromkeys(("webm", "weba", "mka"), "WebM or Matroska"),
    **dict.fromkeys(("aiff", "aif"), "AIFF"),
    "awb": "AMR-WB",
    "wma": "Windows Media",
}
# Any bytes can be samples.
_RAW = {
    "noise": noise(99, 1),
    "silence": bytes(500),
    "silence of u-law": b"\xff" * 500,
    "a frame of MP3": frames(3),
    "one byte": b"x",
}


def _others() -> Iterator[tuple[str, str, bytes, str | None]]:
    yield "a WAV file", "mp3", wav(1), "the content is WAV, not MP3"
    yield "an MP3 file", "wav", frames(5), "the content is MP3, not WAV"
    yield "an MP3 file with a tag", "wav", id3(20) + frames(5), "the content is MP3, not WAV"
    for extension in ("mp3", "wav", "ogg", "opus", "flac", "m4a", "aac"):
        yield "nothing", extension, b"", "it is empty"
    yield "one byte", "wav", b"R", "the content is something else, not WAV"
    yield "four bytes", "wav", b"RIFF", "the content is something else, not WAV"
    yield "three bytes of a frame", "mp3", b"\xff\xfb\x90", "the content is something else, not MP3"
    yield "zeros", "mp3", bytes(50_000), "the content is something else, not MP3"
    yield "zeros", "wav", bytes(50_000), "the content is something else, not WAV"
    yield "noise", "wav", noise(50_000, 3), "the content is something else, not WAV"
    yield "text", "wav", b"hello, this is a prompt\n" * 9, "the content is something else, not WAV"
    yield (
        "a page",
        "mp3",
        b"\n<!doctype HTML><title>Not found</title>",
        "the content is HTML, not MP3",
    )
    yield (
        "an SVG picture",
        "mp3",
        b"<svg xmlns='http://www.w3.org/2000/svg'>",
        "the content is XML, not MP3",
    )
    yield "an error in JSON", "wav", b'{"error": "expired"}', "the content is JSON, not WAV"
    yield "a PNG picture", "mp3", b"\x89PNG\r\n\x1a\n" + noise(99), "the content is PNG, not MP3"
    yield "a JPEG picture", "mp3", b"\xff\xd8\xff\xe0" + noise(99), "the content is JPEG, not MP3"
    yield "a ZIP archive", "wav", b"PK\x03\x04" + noise(99), "the content is ZIP, not WAV"
    yield "a program", "wav", b"\x7fELF" + noise(99), "the content is a program, not WAV"
    yield (
        "a browser's recording",
        "mp3",
        b"\x1a\x45\xdf\xa3" + noise(99),
        "the content is WebM or Matroska, not MP3",
    )
    yield "AIFF", "wav", b"FORM\0\0\0\x40AIFF" + noise(64), "the content is AIFF, not WAV"
    yield (
        "RIFX",
        "wav",
        b"RIFX\0\0\0\x40WAVE" + noise(64),
        "the content is big-endian WAV (RIFX), not WAV",
    )
    yield "AVI", "wav", b"RIFF\x40\0\0\0AVI " + noise(64), "the content is AVI, not WAV"
    yield (
        "RIFF of an unknown form",
        "wav",
        b"RIFF\x40\0\0\0NONE" + noise(64),
        "the content is something else, not WAV",
    )
    vorbis, opus = ogg(b"\1vorbis" + noise(23)), ogg(b"OpusHead" + noise(11))
    flac = b"fLaC\0\0\0\x22" + noise(34)
    mp4 = b"\0\0\0\x20ftypM4A \0\0\0\0" + noise(64)
    adts = b"\xff\xf1\x50\x80" + noise(99)
    for extension, content in (
        ("ogg", vorbis),
        ("oga", vorbis),
        ("ogg", opus),
        ("oga", opus),
        ("opus", opus),
        ("flac", flac),
        ("m4a", mp4),
        ("aac", adts),
    ):
        yield "the promised format", extension, content, None
    yield "a tag before it", "flac", id3(50) + flac, None
    yield "a tag before it", "aac", id3(50) + adts, None
    yield "another version", "aac", b"\xff\xf9\x50\x80" + noise(99), None
    yield "another way", "aac", b"ADIF" + noise(99), None
    yield "Vorbis", "opus", vorbis, "the content is Ogg, not Ogg Opus"
    yield "Opus", "mp3", opus, "the content is Ogg Opus, not MP3"
    yield "an MP3 file", "ogg", frames(5), "the content is MP3, not Ogg"
    yield "an MP3 file", "aac", frames(5), "the content is MP3, not AAC"
    yield "AAC", "mp3", adts, "the content is AAC, not MP3"
    yield "AAC", "m4a", adts, "the content is AAC, not MP4"
    yield "MP4", "aac", mp4, "the content is MP4, not AAC"
    yield "FLAC", "wav", flac, "the content is FLAC, not WAV"
    yield (
        "FLAC whose first block is another",
        "flac",
        b"fLaC\4\0\0\x22" + noise(34),
        "the content is something else, not FLAC",
    )
    yield (
        "a continued page",
        "ogg",
        b"OggS\0\1" + noise(60),
        "the content is something else, not Ogg",
    )


CASES = [
    *[Case(what, "wav", content, problem) for what, content, problem in _wav()],
    *[Case(what, "mp3", content, problem) for what, content, problem in _mp3()],
    *[Case(*each) for each in _others()],
    *[Case(*each) for each in _more_formats()],
]

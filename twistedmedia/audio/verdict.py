"""Checks during the upload whether a file is the audio that its name promises.

Pure. WAV and MP3 are checked by their structure, other formats by their first bytes. About 20 KiB
of a file are held in memory, whatever its size.

Sources: the specifications of the formats (RFC 9639 for FLAC, RFC 3533 and 7845 for Ogg and Opus,
ISO 14496-12 for MP4, 14496-3 for AAC, RFC 8794 for Matroska, RFC 4867 for AMR), and the WHATWG MIME
Sniffing standard for files that people send by mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from twistedmedia.audio.mpeg import FrameHeader, id3_size, mpeg_problem
from twistedmedia.audio.stream import Parser, Skip, Stream, Take
from twistedmedia.audio.wav import wav_problem

HEAD_BYTES = 64  # enough to recognize each format

MP3, WAV, OGG, OPUS, FLAC, MP4, AAC = "MP3", "WAV", "Ogg", "Ogg Opus", "FLAC", "MP4", "AAC"
MATROSKA, AIFF, CAF, WMA = "WebM or Matroska", "AIFF", "CAF", "Windows Media"
AMR, AMR_WB = "AMR", "AMR-WB"

# The formats that an extension promises. Other extensions are not checked: raw samples can begin
# with any bytes.
PROMISED = {
    "mp3": (MP3,),
    "wav": (WAV,),
    "ogg": (OGG, OPUS),
    "oga": (OGG, OPUS),
    "opus": (OPUS,),
    "flac": (FLAC,),
    "m4a": (MP4,),
    "aac": (AAC,),
    "webm": (MATROSKA,),
    "weba": (MATROSKA,),
    "mka": (MATROSKA,),
    "aiff": (AIFF,),
    "aif": (AIFF,),
    "caf": (CAF,),
    "amr": (AMR, AMR_WB),
    "awb": (AMR_WB,),
    "wma": (WMA,),
}

_KNOWN = [
    (WAV, rb"(?:RIFF|RF64|BW64)....WAVE"),
    # The first page of a stream, with one packet, which begins with OpusHead.
    (OPUS, rb"OggS\0\x02.{20}.{2}OpusHead"),
    (OGG, rb"OggS\0\x02"),
    (FLAC, rb"fLaC[\0\x80]\0\0\x22"),  # the first block is STREAMINFO, of 34 bytes
    (MP4, rb"....ftyp"),
    # ADTS (its layer is 0, and its sampling frequency is not reserved), or ADIF.
    (AAC, rb"\xff[\xf0\xf1\xf8\xf9][\x00-\x33\x40-\x73\x80-\xb3\xc0-\xf3]|ADIF"),
    (AIFF, rb"FORM....AIF[FC]"),
    (MATROSKA, rb"\x1a\x45\xdf\xa3"),
    (AMR_WB, rb"#!AMR-WB"),
    (AMR, rb"#!AMR"),
    (CAF, rb"caff\0\x01"),
    (WMA, rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    # Formats that no extension promises.
    ("big-endian WAV (RIFX)", rb"RIFX....WAVE"),
    ("AVI", rb"RIFF....AVI "),
    ("WebP", rb"RIFF....WEBP"),
    ("MIDI", rb"MThd\0\0\0\x06"),
    ("Sun audio", rb"\.snd\0\0"),
    ("HTML", rb"(?i:\s*<(?:!doctype html|html|head|body|script|!--))"),
    ("XML", rb"(?i:\s*<(?:\?xml|svg))"),
    ("JSON", rb"\s*[\[{]\s*[\"\]}\[{]"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("JPEG", rb"\xff\xd8\xff"),
    ("GIF", rb"GIF8[79]a"),
    ("PDF", rb"%PDF-"),
    ("ZIP", rb"PK\x03\x04"),
    ("gzip", rb"\x1f\x8b\x08"),
    ("a program", rb"\x7fELF|MZ|#!"),
]
_PATTERNS = [(name, re.compile(pattern, re.DOTALL)) for name, pattern in _KNOWN]


def content_of(head: bytes) -> str | None:
    """The format of the content that begins with `head`, None if it is unknown. ID3 tags are not
    recognized: several formats can follow one.
    """
    if FrameHeader.at(head, 0) is not None:
        return MP3
    for name, pattern in _PATTERNS:
        if pattern.match(head):
            return name
    return None


# Some programs add a second tag. A long chain of empty ones is not followed to its end.
_MAX_TAGS = 16


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The format of a content, None if it is unknown, and what is wrong with the content."""

    content: str | None
    problem: str | None = None


class AudioCheck:
    """Checks one file, which is fed in pieces of any size."""

    def __init__(self) -> None:
        self._stream: Stream[_Verdict] = Stream(_verdict)

    def feed(self, data: bytes) -> None:
        """Add the next bytes."""
        self._stream.feed(data)

    def problem(self, extension: str) -> str | None:
        """End the file. Returns why it is not the audio that `extension`, in lower case, promises:
        None if nothing is wrong, or if files with this extension are not checked.
        """
        if not self._stream.size:
            return "it is empty"
        verdict = self._stream.end()
        promised = PROMISED.get(extension)
        if promised is None:
            return None
        if verdict.content in promised:
            return verdict.problem
        return f"the content is {verdict.content or 'something else'}, not {promised[0]}"


def _verdict(stream: Stream[_Verdict]) -> Parser[_Verdict]:
    tagged = False
    for _ in range(_MAX_TAGS):
        head = yield Take(HEAD_BYTES)
        stream.unread(head)
        size = id3_size(head)
        if size is None:
            break
        tagged = True
        yield Skip(size)
    content = content_of(head)
    if content == WAV and not tagged:
        return _Verdict(WAV, (yield from wav_problem(stream)))
    if content == MP3 or (content is None and tagged):  # there may be junk after the tag
        return _Verdict(MP3, (yield from mpeg_problem(stream, tagged=tagged)))
    return _Verdict(content)

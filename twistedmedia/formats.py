"""The audio formats that are known, by extension, with their media types.

Pure. Sources: IANA's registry; RFC 3003 (mp3), RFC 5334 and 7845 (ogg, opus), RFC 9639 (flac),
RFC 4337 (m4a). WAV has no registration; `audio/wav` is what the WHATWG MIME standard uses.
"""

from __future__ import annotations

MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "ogg": "audio/ogg",
    "oga": "audio/ogg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
}


def parse_formats(text: str) -> frozenset[str]:
    """The formats in a list like "mp3,wav", in any case.

    :raises ValueError: when one is not known or there is none.
    """
    formats = {part.strip().lower().removeprefix(".") for part in text.split(",")} - {""}
    unknown = sorted(formats - MEDIA_TYPES.keys())
    if unknown or not formats:
        what = f"{unknown[0]!r} is not a known format" if unknown else "no format is given"
        raise ValueError(f"{what}; known are {', '.join(MEDIA_TYPES)}")
    return frozenset(formats)

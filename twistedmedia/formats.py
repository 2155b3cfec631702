"""The known audio formats by extension, with their media types.

Pure. Sources: IANA's registry; RFC 3003 (mp3), RFC 5334 and 7845 (ogg, opus), RFC 9639 (flac),
RFC 4337 (m4a), RFC 9559 (mka), RFC 4867 (amr, awb). WAV, WebM, AIFF, CAF and WMA have no registered
media type: theirs are what browsers and the WHATWG MIME standard use.
"""

from __future__ import annotations

import re

# Browsers save content of this type. They neither play nor show it.
UNKNOWN_TYPE = "application/octet-stream"

# Extensions of raw samples, as telephone systems write them. Such files have no header and no media
# type of their own.
RAW = (
    *("gsm", "ulaw", "ul", "alaw", "al", "g722", "g729"),
    *("sln", "sln16", "sln48"),
)

MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "ogg": "audio/ogg",
    "oga": "audio/ogg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "webm": "audio/webm",
    "weba": "audio/webm",
    "mka": "audio/matroska",
    "aiff": "audio/aiff",
    "aif": "audio/aiff",
    "caf": "audio/x-caf",
    "amr": "audio/amr",
    "awb": "audio/amr-wb",
    "wma": "audio/x-ms-wma",
    **dict.fromkeys(RAW, UNKNOWN_TYPE),
}

_EXTENSION = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,100}"  # RFC 6838, 4.2
_MEDIA_TYPE = re.compile(
    rf"((?:audio|video)/{_TOKEN}|{UNKNOWN_TYPE})((?: *; *{_TOKEN}={_TOKEN})*)",
    re.ASCII | re.IGNORECASE,
)
_PARAMETER_NAME = re.compile(rf"{_TOKEN}(?==)", re.ASCII)


def parse_formats(text: str) -> dict[str, str]:
    """Parse a list like "mp3,wav,clip=audio/x-clip", in any case, into extensions with their media
    types in lower case. A format that is not known must name its type. Types that browsers treat as
    documents are not allowed: scripts in a stored file could run.

    :raises ValueError: if a format is unknown or malformed, or has two types, or the list is empty.
    """
    formats: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, named, media_type = part.partition("=")
        extension = name.strip().lower().removeprefix(".")
        media_type = _named_type(extension, media_type) if named else _known_type(extension)
        if formats.setdefault(extension, media_type) != media_type:
            raise ValueError(f"{extension!r} is given two media types")
    if not formats:
        raise ValueError(f"no format is given; known are {', '.join(MEDIA_TYPES)}")
    return formats


def _known_type(extension: str) -> str:
    if extension not in MEDIA_TYPES:
        raise ValueError(
            f"{extension!r} is not a known format; known are {', '.join(MEDIA_TYPES)}; "
            "to allow another, name its media type, like clip=audio/x-clip"
        )
    return MEDIA_TYPES[extension]


def _named_type(extension: str, media_type: str) -> str:
    if _EXTENSION.fullmatch(extension) is None:
        raise ValueError(
            f"{extension!r} is not an extension; it has 1 to 32 letters, digits, hyphens and "
            "underscores"
        )
    match = _MEDIA_TYPE.fullmatch(media_type.strip())
    # Browsers treat all types that end in +xml as documents (WHATWG MIME Sniffing, 4.6).
    if match is None or match[1].lower().endswith("+xml"):
        raise ValueError(
            f"{media_type.strip()!r} is not a media type that a format may have; it is audio/..., "
            f"video/... or {UNKNOWN_TYPE}, and does not end in +xml"
        )
    # All of this is case-insensitive, except values of parameters (RFC 9110, 8.3.1).
    return match[1].lower() + _PARAMETER_NAME.sub(lambda name: name[0].lower(), match[2])

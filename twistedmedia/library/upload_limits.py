"""What may be uploaded, and how much at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from twistedmedia.formats import MEDIA_TYPES


class AudioCheckMode(Enum):
    """What happens to a file that is not the audio that its name promises."""

    OFF = "off"
    FLAG = "flag"  # it is stored, and the response says what is wrong
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What may be stored, and how much at once. `formats` are extensions in lower case. A file has
    at most `max_upload` bytes, a form `max_form`. At most `max_uploads` requests upload at the same
    time, and `max_imports` of them import, half of them unless given. An upload that is faster than
    `busy_rate`, in bytes per second, keeps its slot while others wait. `media_types` has those of
    files by extension, also of files that are only served.
    """

    formats: frozenset[str] = frozenset({"mp3", "wav"})
    max_upload: int = 2 << 30
    max_form: int = 8 << 30
    max_uploads: int = 64
    checking: AudioCheckMode = AudioCheckMode.FLAG
    media_types: Mapping[str, str] = field(default_factory=lambda: MEDIA_TYPES)
    max_imports: int | None = None
    busy_rate: int = 16 << 10

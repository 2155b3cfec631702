"""Names of media: a directory and a filename, validated once and then trusted.

Pure. The rules are in docs/http.md, "Names". Code that takes a `MediaName` may rely on them: no
segment is empty, begins with a dot or contains a slash, and all are in NFC.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from twistedmedia.errors import MissingArgument, NameNotAllowed

MAX_SEGMENT_BYTES = 255  # the limit of Linux file systems
MAX_NAME_BYTES = 1024  # with slashes

# NFC shortens a text to a quarter of its bytes at most. Its time grows with the square of a run of
# combining marks, so a text that would be too long afterwards is not normalized.
_NFC_SHRINKS = 4

# Most names match this and need no other check.
_PLAIN = re.compile(r"[ !-\-0-\[\]-~][ -.0-\[\]-~]{0,254}", re.ASCII)

_FORBIDDEN_CATEGORIES = {
    "Cc": "a control character",
    "Cf": "a format (invisible or bidirectional) character",
}


UPLOAD_LENGTH = 32  # characters in the id of a resumable upload
_UPLOAD = re.compile(rf"[0-9a-f]{{{UPLOAD_LENGTH}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class MediaName:
    """A valid name. Use `media_name` or `media_name_from_path` to make one."""

    folders: tuple[str, ...]
    filename: str

    @property
    def directory(self) -> str:
        """The directory, such as `prompts/en`."""
        return "/".join(self.folders)

    @property
    def extension(self) -> str:
        """What follows the last dot in lower case, empty if nothing does."""
        stem, dot, extension = self.filename.rpartition(".")
        return extension.lower() if stem and dot else ""

    @property
    def url_path(self) -> str:
        """The name percent-encoded for a URL's path, such as `prompts/en/a%20b.mp3`."""
        return url_path((*self.folders, self.filename))

    def __str__(self) -> str:
        return f"{self.directory}/{self.filename}"


def url_path(segments: Iterable[str | bytes]) -> str:
    """`segments` percent-encoded for a URL's path (RFC 3986, 3.3)."""
    return "/".join(quote(segment, safe="!$&'()*+,;=:@") for segment in segments)


def decode(raw: bytes) -> str:
    """Decode `raw`.

    :raises NameNotAllowed: if it is not UTF-8.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NameNotAllowed("it is not UTF-8") from None


def media_name(directory: str, filename: str) -> MediaName:
    """Make a name from a directory and a filename.

    In the directory backslashes count as slashes, and one trailing slash is dropped.

    :raises MissingArgument: if either is empty.
    :raises NameNotAllowed: if a rule is broken; the reason says which.
    """
    if not directory:
        raise MissingArgument("directory")
    if not filename:
        raise MissingArgument("filename")
    folders = directory.replace("\\", "/").removesuffix("/").split("/")
    if folders[0] == "":
        raise NameNotAllowed("the directory begins with a slash")
    _check_slashes(filename, "filename")
    name = MediaName(_folders(folders), _segment(filename, "filename"))
    if len(str(name).encode()) > MAX_NAME_BYTES:
        raise NameNotAllowed(f"directory and filename are longer than {MAX_NAME_BYTES} bytes")
    return name


def media_name_from_path(segments: list[bytes]) -> MediaName:
    """Make a name from the segments of a URL's path, each of which is percent-decoded.

    The last segment is the filename, the others are the directory.

    :raises MissingArgument: if there is no directory, or the filename is empty.
    :raises NameNotAllowed: if a rule is broken. An encoded slash (`%2F`) breaks one.
    """
    if not segments:
        raise MissingArgument("directory")
    texts = _decoded(segments)
    if len(texts) > 1 and texts[0] == "":
        raise NameNotAllowed("the directory begins with a slash")
    if len(texts) > 2 and texts[-2] == "":  # `media_name` would drop this slash
        raise NameNotAllowed("a part of the directory is empty")
    return media_name("/".join(texts[:-1]), texts[-1])


def folders_from_path(segments: list[bytes]) -> tuple[str, ...]:
    """The folders of the directory in a URL's path. Without segments it is the root. Backslashes
    count as slashes.

    :raises NameNotAllowed: if a rule is broken.
    """
    texts = "/".join(_decoded(segments)).replace("\\", "/").split("/") if segments else []
    return _folders(texts)


def is_segment(text: str) -> bool:
    """Whether a folder or file with exactly this name can be part of a media name."""
    if _PLAIN.fullmatch(text):
        return True
    try:
        return _segment(text, "name") == text
    except NameNotAllowed:
        return False


def is_upload(text: str) -> bool:
    """Whether `text` can be the id of a resumable upload. Such a text is safe in a filename."""
    return _UPLOAD.fullmatch(text) is not None


def _decoded(segments: list[bytes]) -> list[str]:
    texts = [decode(segment) for segment in segments]
    if any("/" in text for text in texts):
        raise NameNotAllowed("it contains an encoded slash")
    return texts


def _check_slashes(text: str, what: str) -> None:
    for character, kind in (("/", "a slash"), ("\\", "a backslash")):
        if character in text:
            raise NameNotAllowed(f"the {what} contains {kind}")


def _folders(texts: Iterable[str]) -> tuple[str, ...]:
    """Validate the folders of a directory. Stops at the first one that makes it too long."""
    folders: list[str] = []
    size = -1  # in bytes, with the slashes between folders
    for text in texts:
        folder = _segment(text, "directory")
        size += 1 + len(folder.encode())
        if size > MAX_NAME_BYTES:
            raise NameNotAllowed(f"the directory is longer than {MAX_NAME_BYTES} bytes")
        folders.append(folder)
    return tuple(folders)


def _segment(text: str, what: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    try:
        size = len(text.encode("utf-8"))
        if size <= _NFC_SHRINKS * MAX_SEGMENT_BYTES:
            text = unicodedata.normalize("NFC", text)
            size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise NameNotAllowed(f"the {what} is not UTF-8") from None
    if not text:
        raise NameNotAllowed(f"a part of the {what} is empty")
    if text.startswith("."):
        raise NameNotAllowed(f"a part of the {what} begins with a dot")
    if size > MAX_SEGMENT_BYTES:
        raise NameNotAllowed(f"a part of the {what} is longer than {MAX_SEGMENT_BYTES} bytes")
    _check_slashes(text, what)
    # Printable texts contain no such character, and to check the whole text is fast.
    for character in "" if text.isprintable() else text:
        kind = _FORBIDDEN_CATEGORIES.get(unicodedata.category(character))
        if kind is not None:
            raise NameNotAllowed(f"the {what} contains {kind} (U+{ord(character):04X})")
    return text

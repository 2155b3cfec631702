"""Names of media: a directory and a filename, validated once and then trusted.

Pure. The rules are those of docs/http.md, "Names". Whatever takes a `MediaName` may rely on it: no
segment is empty, hidden, `.` or `..`, none holds a slash, and all are NFC.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from twistedmedia.errors import MissingArgument, NameNotAllowed

MAX_SEGMENT_BYTES = 255  # what Linux file systems take for one name
MAX_NAME_BYTES = 1024  # of the whole, slashes included

# NFC makes no text shorter than a quarter of its bytes. The time that it takes grows with the
# square of a run of combining marks: a text that is too long whatever it becomes is refused before.
_NFC_SHRINKS = 4

# What most names are made of, and nothing else needs to be looked at.
_PLAIN = re.compile(r"[ !-\-0-\[\]-~][ -.0-\[\]-~]{0,254}", re.ASCII)

_FORBIDDEN_CATEGORIES = {
    "Cc": "a control character",
    "Cf": "a format (invisible or bidirectional) character",
}


UPLOAD_LENGTH = 32  # characters of the id of a resumable upload
_UPLOAD = re.compile(rf"[0-9a-f]{{{UPLOAD_LENGTH}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class MediaName:
    """A valid name. Only `media_name` and `media_name_from_path` make them."""

    folders: tuple[str, ...]
    filename: str

    @property
    def directory(self) -> str:
        """The directory as it is written: `prompts/en`."""
        return "/".join(self.folders)

    @property
    def extension(self) -> str:
        """What follows the last dot, in lower case; empty when there is none."""
        stem, dot, extension = self.filename.rpartition(".")
        return extension.lower() if stem and dot else ""

    @property
    def url_path(self) -> str:
        """The name percent-encoded for a URL's path: `prompts/en/a%20b.mp3`."""
        return url_path((*self.folders, self.filename))

    def __str__(self) -> str:
        return f"{self.directory}/{self.filename}"


def url_path(segments: Iterable[str | bytes]) -> str:
    """`segments` percent-encoded for a URL's path (RFC 3986, 3.3)."""
    return "/".join(quote(segment, safe="!$&'()*+,;=:@") for segment in segments)


def decode(raw: bytes) -> str:
    """`raw` as text.

    :raises NameNotAllowed: when it is not UTF-8.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NameNotAllowed("it is not UTF-8") from None


def media_name(directory: str, filename: str) -> MediaName:
    """The name that a directory and a filename give.

    In the directory backslashes count as slashes and one trailing slash is dropped.

    :raises MissingArgument: when either is empty.
    :raises NameNotAllowed: when a rule is broken, saying which.
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
    """The name in a URL's path: its segments, each percent-decoded on its own.

    The last segment is the filename, those before it the directory.

    :raises MissingArgument: when there is no directory or the filename is empty.
    :raises NameNotAllowed: when a rule is broken; an encoded slash (`%2F`) breaks one.
    """
    if not segments:
        raise MissingArgument("directory")
    texts = _decoded(segments)
    if len(texts) > 1 and texts[0] == "":
        raise NameNotAllowed("the directory begins with a slash")
    if len(texts) > 2 and texts[-2] == "":  # so that no trailing slash is dropped from a path
        raise NameNotAllowed("a part of the directory is empty")
    return media_name("/".join(texts[:-1]), texts[-1])


def folders_from_path(segments: list[bytes]) -> tuple[str, ...]:
    """The directory in a URL's path, of no segments the root. Backslashes count as slashes.

    :raises NameNotAllowed: when a rule is broken.
    """
    texts = "/".join(_decoded(segments)).replace("\\", "/").split("/") if segments else []
    return _folders(texts)


def is_segment(text: str) -> bool:
    """Whether a folder or file of this very name can be part of a media name."""
    if _PLAIN.fullmatch(text):
        return True
    try:
        return _segment(text, "name") == text
    except NameNotAllowed:
        return False


def is_upload(text: str) -> bool:
    """Whether that can be the id of a resumable upload: such a text is safe as a part of a file's
    name.
    """
    return _UPLOAD.fullmatch(text) is not None


def _decoded(segments: list[bytes]) -> list[str]:
    texts = [decode(segment) for segment in segments]
    if any("/" in text for text in texts):
        raise NameNotAllowed("it holds an encoded slash")
    return texts


def _check_slashes(text: str, what: str) -> None:
    for character, kind in (("/", "a slash"), ("\\", "a backslash")):
        if character in text:
            raise NameNotAllowed(f"the {what} contains {kind}")


def _folders(texts: Iterable[str]) -> tuple[str, ...]:
    """Those folders of a directory. The first one that makes it too long is the last one that is
    looked at.
    """
    folders: list[str] = []
    size = -1  # bytes, with the slashes between folders
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
    # Printable characters are of none of these categories, and the look at the whole is fast.
    for character in "" if text.isprintable() else text:
        kind = _FORBIDDEN_CATEGORIES.get(unicodedata.category(character))
        if kind is not None:
            raise NameNotAllowed(f"the {what} holds {kind} (U+{ord(character):04X})")
    return text

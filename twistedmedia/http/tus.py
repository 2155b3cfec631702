"""The headers of tus 1.0.0, resumable uploads (https://tus.io/protocols/resumable-upload).

Pure.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

from twistedmedia.errors import (
    BadRequest,
    ChecksumMismatch,
    Malformed,
    MissingArgument,
    UnsupportedVersion,
)
from twistedmedia.http.conditions import format_date
from twistedmedia.http.heads import MAX_LENGTH_BYTES

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination"
CONTENT_TYPE = "application/offset+octet-stream"
ALGORITHMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}

_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_MOST_DIGITS = len(str(MAX_LENGTH_BYTES))


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a part has to be, by one of `ALGORITHMS`."""

    algorithm: str
    digest: bytes

    def begin(self) -> Any:
        """A hash to be fed with the part."""
        return ALGORITHMS[self.algorithm]()

    def problem(self, fed: Any) -> ChecksumMismatch | None:
        """The failure of a part that `fed` was fed with, if it is not what it has to be."""
        return None if fed.digest() == self.digest else ChecksumMismatch()


def check_version(field: str | None) -> None:
    """Look at `Tus-Resumable`.

    :raises UnsupportedVersion: when it is not ours, or is missing.
    """
    if field != VERSION:
        raise UnsupportedVersion(VERSION)


def parse_bytes(name: str, field: str | None) -> int:
    """The bytes that a header such as `Upload-Offset` says.

    :raises MissingArgument: when it is not there.
    :raises Malformed: when it is no such number.
    """
    if field is None:
        raise MissingArgument(name)
    digits = field.lstrip("0")  # int() refuses thousands of them
    if not _DIGITS.fullmatch(field) or len(digits) > _MOST_DIGITS:
        raise Malformed(f"{name} is not a number of bytes")
    size = int(digits or "0")
    if size > MAX_LENGTH_BYTES:
        raise Malformed(f"{name} is more than anything can hold")
    return size


def parse_length(length: str | None, deferred: str | None) -> int | None:
    """The length of a new upload, None when it will be told later (Creation, Upload-Defer-Length).

    :raises MissingArgument: when neither is there.
    :raises Malformed: when both are, or one is not as it has to be.
    """
    if deferred is None:
        return parse_bytes("Upload-Length", length)
    if length is not None:
        raise Malformed("Upload-Length and Upload-Defer-Length exclude each other")
    if deferred != "1":
        raise Malformed("Upload-Defer-Length has to be 1")
    return None


def parse_metadata(field: str | None) -> dict[str, bytes]:
    """The pairs of `Upload-Metadata`; a key without a value has an empty one. Elements of the list
    may be empty (RFC 9110, 5.6.1.2), and there may be more blanks than one.

    :raises Malformed: when it has other things in it, or one key twice.
    """
    pairs: dict[str, bytes] = {}
    for pair in (field or "").split(","):
        key, _, value = pair.strip(" \t").partition(" ")
        if not key:
            continue
        if not key.isascii() or key in pairs:
            raise Malformed("Upload-Metadata has a key twice, or one that is not ASCII")
        pairs[key] = _from_base64(value.strip(" \t"), f"Upload-Metadata: the value of {key[:64]!r}")
    return pairs


def parse_checksum(field: str | None) -> Checksum | None:
    """`Upload-Checksum`.

    :raises BadRequest: when its algorithm is not one of ours (tus asks for 400).
    :raises Malformed: when it is not an algorithm and a digest of its length in Base64.
    """
    if field is None:
        return None
    algorithm, _, encoded = field.partition(" ")
    if algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise BadRequest(f"the checksum's algorithm is not supported; supported are: {known}")
    digest = _from_base64(encoded, "the digest in Upload-Checksum")
    if len(digest) != ALGORITHMS[algorithm]().digest_size:
        raise Malformed(f"the digest in Upload-Checksum is not as long as one of {algorithm}")
    return Checksum(algorithm, digest)


def format_expires(seconds: float) -> str:
    """`Upload-Expires`, from seconds since the epoch (RFC 9110, 5.6.7)."""
    return format_date(int(seconds))


def _from_base64(text: str, what: str) -> bytes:
    try:
        return b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Malformed(f"{what} is not Base64") from None

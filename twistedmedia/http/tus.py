"""Parsers for the headers of tus 1.0.0, resumable uploads (https://tus.io/protocols/resumable-upload).

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
_MAX_DIGITS = len(str(MAX_LENGTH_BYTES))


@dataclass(frozen=True, slots=True)
class Checksum:
    """The expected digest of a part, by one of `ALGORITHMS`."""

    algorithm: str
    digest: bytes

    def new_hash(self) -> Any:
        """Return a hash object to update with the part."""
        return ALGORITHMS[self.algorithm]()

    def error(self, hashed: Any) -> ChecksumMismatch | None:
        """Return the failure if the digest of `hashed` is not the expected one."""
        return None if hashed.digest() == self.digest else ChecksumMismatch()


def check_version(field: str | None) -> None:
    """Check `Tus-Resumable`.

    :raises UnsupportedVersion: if it is missing, or not the supported version.
    """
    if field != VERSION:
        raise UnsupportedVersion(VERSION)


def parse_bytes(name: str, field: str | None) -> int:
    """Parse the number of bytes in a header such as `Upload-Offset`, whose name is `name`.

    :raises MissingArgument: if the header is missing.
    :raises Malformed: if it is not a number, or too large.
    """
    if field is None:
        raise MissingArgument(name)
    digits = field.lstrip("0")  # int() raises an error for thousands of digits
    if not _DIGITS.fullmatch(field) or len(digits) > _MAX_DIGITS:
        raise Malformed(f"{name} is not a number of bytes")
    size = int(digits or "0")
    if size > MAX_LENGTH_BYTES:
        raise Malformed(f"{name} is larger than {MAX_LENGTH_BYTES}")
    return size


def parse_length(length: str | None, deferred: str | None) -> int | None:
    """Parse the length of a new upload from `Upload-Length` and `Upload-Defer-Length`. None means
    that the client sends the length later.

    :raises MissingArgument: if both headers are missing.
    :raises Malformed: if both are there, or one is invalid.
    """
    if deferred is None:
        return parse_bytes("Upload-Length", length)
    if length is not None:
        raise Malformed("Upload-Length and Upload-Defer-Length exclude each other")
    if deferred != "1":
        raise Malformed("Upload-Defer-Length must be 1")
    return None


def parse_metadata(field: str | None) -> dict[str, bytes]:
    """Parse the pairs of `Upload-Metadata`. The value of a key without one is empty. The list may
    have empty elements (RFC 9110, 5.6.1.2), and several blanks between key and value.

    :raises Malformed: if a key is not ASCII or repeated, or a value is not Base64.
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
    """Parse `Upload-Checksum`.

    :raises BadRequest: if its algorithm is not in `ALGORITHMS` (tus requires status 400).
    :raises Malformed: if its digest is not Base64, or has the wrong length.
    """
    if field is None:
        return None
    algorithm, _, encoded = field.partition(" ")
    if algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise BadRequest(f"the checksum's algorithm is not supported; supported are: {known}")
    digest = _from_base64(encoded, "the digest in Upload-Checksum")
    if len(digest) != ALGORITHMS[algorithm]().digest_size:
        raise Malformed(f"the digest in Upload-Checksum does not have the length of {algorithm}")
    return Checksum(algorithm, digest)


def format_expires(seconds: float) -> str:
    """Format `Upload-Expires` (RFC 9110, 5.6.7) from seconds since the epoch."""
    return format_date(int(seconds))


def _from_base64(text: str, what: str) -> bytes:
    try:
        return b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Malformed(f"{what} is not Base64") from None

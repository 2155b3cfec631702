"""Digests of contents, as they stand in headers and form fields.

Pure. RFC 9530, whose fields are dictionaries in the sense of RFC 9651 (structured fields); of the
algorithms only sha-256 is understood. Nothing here takes longer than the fields are long: the
patterns are possessive throughout.
"""

from __future__ import annotations

import binascii
import re

from twistedmedia.errors import Malformed

_ALGORITHM = "sha-256"

# RFC 9651, 4.2. A display string may be any octets here; nobody looks at one.
_KEY = r"[a-z*][a-z0-9_.*-]*+"
_BARE_ITEM = "|".join(
    [
        r"-?+[0-9]{1,12}+\.[0-9]{1,3}+",
        r"-?+[0-9]{1,15}+",
        r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+"',
        r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*+",
        r":[A-Za-z0-9+/=]*+:",
        r"\?[01]",
        r"@-?+[0-9]{1,15}+",
        r'%"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*+"',
    ]
)
_PARAMETERS = rf"(?:;[ ]*+{_KEY}(?:=(?:{_BARE_ITEM}))?+)*+"
_ITEM = rf"(?:{_BARE_ITEM}){_PARAMETERS}"
_INNER_LIST = rf"\([ ]*+(?:{_ITEM}(?:[ ]++{_ITEM})*+[ ]*+)?+\)"
_MEMBER = re.compile(rf"({_KEY})(?:=({_BARE_ITEM}|{_INNER_LIST}))?{_PARAMETERS}")
_COMMA = re.compile(r"[ \t]*+,[ \t]*+")

# 4.2.7: parsers should not insist on padding.
_SHA256 = re.compile(r":([A-Za-z0-9+/]{43})=?+:")
_PREFERENCE = re.compile(r"-?+0++|0*+(?:[1-9]|10)")
_HEX = re.compile(r"[0-9A-Fa-f]{64}")


def declared_sha256(*fields: str | None) -> str | None:
    """The SHA-256, in lower-case hex, that Content-Digest and Repr-Digest fields declare.

    They are given in any order, None where absent. None when they declare none in sha-256; other
    algorithms are passed over.

    :raises Malformed: when a field is no dictionary, its sha-256 is not 32 bytes, or two of them
        contradict each other.
    """
    declared = {digest for field in fields if (digest := _sha256_in(field)) is not None}
    if len(declared) > 1:
        raise Malformed("the digests that the request declares contradict each other")
    return declared.pop() if declared else None


def sha256_from_hex(text: str) -> str:
    """The SHA-256, in lower-case hex, that a form's field declares in hex of any case.

    :raises Malformed: when it is not 64 hex digits.
    """
    if _HEX.fullmatch(text) is None:
        raise Malformed("the SHA-256 is not 64 hex digits")
    return text.lower()


def repr_digest(sha256: str) -> str:
    """A Repr-Digest field for a SHA-256 in hex."""
    encoded = binascii.b2a_base64(bytes.fromhex(sha256), newline=False).decode()
    return f"{_ALGORITHM}=:{encoded}:"


def wants_sha256(want_repr_digest: str | None) -> bool:
    """Whether a Want-Repr-Digest field asks for sha-256 at all (RFC 9530, 4).

    It is a dictionary of integers from 0 to 10, of which 0 is "not acceptable"; what is anything
    else is ignored as a whole.
    """
    if want_repr_digest is None:
        return False
    try:
        preferences = _dictionary(want_repr_digest)
    except Malformed:
        return False
    if not all(map(_PREFERENCE.fullmatch, preferences.values())):
        return False
    return int(preferences.get(_ALGORITHM, "0")) > 0


def _sha256_in(field: str | None) -> str | None:
    if field is None:
        return None
    value = _dictionary(field).get(_ALGORITHM)
    if value is None:
        return None
    match = _SHA256.fullmatch(value)
    if match is None:
        raise Malformed(f"the {_ALGORITHM} in the digest field is not 32 bytes, as :base64:")
    return binascii.a2b_base64(match[1] + "=").hex()


def _dictionary(field: str) -> dict[str, str]:
    """The members of a dictionary (RFC 9651, 4.2.2), their values as they were sent, without
    parameters. The last of several with one key counts.

    :raises Malformed: when it is none.
    """
    members: dict[str, str] = {}
    field = field.strip(" ")
    end = len(field)
    at = 0
    while at < end:
        member = _MEMBER.match(field, at)
        if member is None:
            raise _malformed(at)
        members[member[1]] = member[2] or "?1"
        at = member.end()
        if at < end:
            comma = _COMMA.match(field, at)
            if comma is None or comma.end() == end:
                raise _malformed(at)
            at = comma.end()
    return members


def _malformed(at: int) -> Malformed:
    return Malformed(f"a digest field is malformed at character {at + 1}")

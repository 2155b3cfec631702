"""Parsers for header fields with a structure: `Content-Type` and `Content-Disposition` (RFC 9110,
5.6.6), and digests (RFC 9530, in the dictionaries of RFC 9651).

Pure. Clients deviate from these grammars in known ways. A deviation with one possible meaning is
accepted; everything else is refused. Parsing takes time in proportion to the length of a field: the
patterns are possessive throughout. Of the digest algorithms only sha-256 is supported.
"""

from __future__ import annotations

import binascii
import re
from email.errors import HeaderParseError
from email.header import decode_header
from urllib.parse import unquote_to_bytes

from multipart import content_disposition_unquote

from twistedmedia.errors import Malformed

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # RFC 9110, 5.6.2
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
# RFC 2047, 2
_ENCODED_WORD = r"=\?[^?\s]++\?(?:[Bb]\?[A-Za-z0-9+/]*+={0,2}|[Qq]\?[^?\s]*+)\?="
_PARAMETER_START = rf"[ \t]*+;[ \t]*+({_TOKEN})[ \t]*+=[ \t]*+"
# An unquoted value ends at the semicolon: senders forget the quotes that `=`, `:` or `/` need.
_PARAMETER = re.compile(rf"{_PARAMETER_START}({_QUOTED}(?=[ \t]*+(?:;|\Z))|[^;]*+)")
# .NET writes encoded words, which are not tokens, without quotes.
_PARAMETER_OF_PART = re.compile(rf"{_PARAMETER_START}({_QUOTED}|{_ENCODED_WORD}|{_TOKEN})")
_ENCODED_WORDS = re.compile(rf"{_ENCODED_WORD}(?:[ \t]++{_ENCODED_WORD})*+")
_QUOTED_PAIR = re.compile(r"\\(.)")
# RFC 8187, 3.2.1, with the two charsets that RFC 5987 requires.
_EXTENDED = re.compile(
    r"(utf-8|iso-8859-1)'[A-Za-z0-9-]*+'((?:%[0-9A-Fa-f]{2}|[!#$&+.^_`|~0-9A-Za-z-])*+)",
    re.IGNORECASE,
)
_WORD_CHARSETS = frozenset({"utf-8", "iso-8859-1", "us-ascii"})


def parse_content_type(field: str | None) -> tuple[str, dict[str, str]]:
    """Return the media type, in lower case, and the parameters of a Content-Type field. The type is
    empty if there is no field.

    :raises Malformed: if `boundary` is given twice: programs differ in the one that they use.
    """
    media_type = (field or "").partition(";")[0]
    pairs = [
        (match[1].lower(), match[2].strip(" \t"))
        for match in _PARAMETER.finditer(field or "", len(media_type))
    ]
    if [name for name, _ in pairs].count("boundary") > 1:
        raise Malformed("the Content-Type has two boundary parameters")
    parameters = {name: _unquoted(value) for name, value in pairs if value}
    return media_type.strip(" \t").lower(), parameters


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value.startswith('"') and value.endswith('"')
    return _QUOTED_PAIR.sub(r"\1", value[1:-1]) if is_quoted else value


def disposition_parameters(field: str) -> dict[str, str]:
    """Return the decoded parameters of a part's Content-Disposition field, names in lower case. An
    extended parameter (`filename*`) replaces the plain one, wherever it stands.

    A field that cannot be parsed to its end is refused. Otherwise a file could be ignored or get
    the wrong name.

    :raises ValueError: with a phrase that says what is wrong.
    """
    values: dict[str, str] = {}
    end = field.find(";") if ";" in field else len(field)
    while match := _PARAMETER_OF_PART.match(field, end):
        name = match[1].lower()
        if name in values:
            raise ValueError(f"the parameter {name[:64]!r} is given twice")
        values[name] = match[2]
        end = match.end()
    if field[end:].strip(" \t;"):
        raise ValueError("the Content-Disposition header cannot be parsed")
    if any(name.startswith(("name*", "filename*")) for name in values.keys() - _EXTENDED_NAMES):
        raise ValueError("a name in several pieces (RFC 2231), which forms do not have")
    plain = {name: _decode_plain(value) for name, value in values.items() if not name.endswith("*")}
    extended = {
        name[:-1]: _decode_extended(name, values[name]) for name in _EXTENDED_NAMES & values.keys()
    }
    return plain | extended


_EXTENDED_NAMES = frozenset({"name*", "filename*"})


def _decode_plain(value: str) -> str:
    # Without the option of `multipart` for file names: it drops everything up to a backslash, but
    # a name with a backslash has to be refused.
    text: str = content_disposition_unquote(value)
    return _decode_words(text) if _ENCODED_WORDS.fullmatch(text) else text


def _decode_words(text: str) -> str:
    """Decode encoded words (RFC 2047), which .NET uses for text that is not ASCII."""
    decoded = ""
    try:
        for word, charset in decode_header(text):
            if not isinstance(word, bytes) or charset not in _WORD_CHARSETS:
                raise ValueError("the charset is not UTF-8, ISO-8859-1 or US-ASCII")
            decoded += word.decode(charset)
    except (HeaderParseError, ValueError) as error:
        raise ValueError(f"an encoded word that cannot be decoded: {error}") from error
    return decoded


def _decode_extended(name: str, value: str) -> str:
    """Decode an extended parameter (RFC 8187). Some clients put it between quotes."""
    match = _EXTENDED.fullmatch(value.removeprefix('"').removesuffix('"'))
    try:
        if match is None:
            raise ValueError("not a charset, a language and percent-encoded text")
        return unquote_to_bytes(match[2]).decode(match[1])
    except ValueError as error:
        raise ValueError(
            f"the parameter {name!r} is not UTF-8'' or ISO-8859-1'' and percent-encoded text"
        ) from error


_ALGORITHM = "sha-256"

# RFC 9651, 4.2. A display string is not used, so it may be any octets.
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
    """Return the SHA-256, in lower-case hex, that Content-Digest and Repr-Digest fields declare.

    The fields may be in any order; an absent one is None. Other algorithms are ignored. Returns
    None if no field declares a SHA-256.

    :raises Malformed: if a field is not a dictionary, its sha-256 is not 32 bytes, or two fields
        declare different ones.
    """
    declared = {digest for field in fields if (digest := _sha256_of(field)) is not None}
    if len(declared) > 1:
        raise Malformed("the digests that the request declares contradict each other")
    return declared.pop() if declared else None


def parse_sha256(text: str) -> str:
    """Parse the SHA-256 of a form field, in hex of any case. Returns lower-case hex.

    :raises Malformed: if it is not 64 hex digits.
    """
    if _HEX.fullmatch(text) is None:
        raise Malformed("the SHA-256 is not 64 hex digits")
    return text.lower()


def repr_digest(sha256: str) -> str:
    """Format a Repr-Digest field for a SHA-256 in hex."""
    encoded = binascii.b2a_base64(bytes.fromhex(sha256), newline=False).decode()
    return f"{_ALGORITHM}=:{encoded}:"


def wants_sha256(want_repr_digest: str | None) -> bool:
    """Whether a Want-Repr-Digest field asks for sha-256 (RFC 9530, 4).

    The field is a dictionary of integers from 0 to 10; 0 means "not acceptable". A field that is
    anything else is ignored completely.
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


def _sha256_of(field: str | None) -> str | None:
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
    """Parse a dictionary (RFC 9651, 4.2.2) into keys and raw values, without parameters. Of members
    with the same key, the last one counts.

    :raises Malformed: if the field is not a dictionary.
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

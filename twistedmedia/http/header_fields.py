"""Header fields with parameters: `Content-Type`, and `Content-Disposition` of a form's part.

Pure. RFC 9110, 5.6.6 has the grammar. Clients deviate from it in known ways; what they mean is read
where it has one meaning.

Digests of contents, as they stand in headers and form fields.

Pure. RFC 9530, whose fields are dictionaries in the sense of RFC 9651 (structured fields); of the
algorithms only sha-256 is understood. Nothing here takes longer than the fields are long: the
patterns are possessive throughout.
"""

from __future__ import annotations

import binascii
import re
from email.errors import HeaderParseError
from email.header import decode_header
from urllib.parse import unquote_to_bytes

from multipart import content_disposition_unquote

from twistedmedia.errors import Malformed

# Possessive throughout: a client's header must not cost more than its length.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # RFC 9110, 5.6.2
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
# RFC 2047, 2
_ENCODED_WORD = r"=\?[^?\s]++\?(?:[Bb]\?[A-Za-z0-9+/]*+={0,2}|[Qq]\?[^?\s]*+)\?="
_BEGINS = rf"[ \t]*+;[ \t]*+({_TOKEN})[ \t]*+=[ \t]*+"
# An unquoted value ends at the semicolon: senders forget the quotes that `=`, `:` or `/` need.
_PARAMETER = re.compile(rf"{_BEGINS}({_QUOTED}(?=[ \t]*+(?:;|\Z))|[^;]*+)")
# .NET writes encoded words, which are not tokens, without quotes.
_PARAMETER_OF_PART = re.compile(rf"{_BEGINS}({_QUOTED}|{_ENCODED_WORD}|{_TOKEN})")
_ENCODED_WORDS = re.compile(rf"{_ENCODED_WORD}(?:[ \t]++{_ENCODED_WORD})*+")
_QUOTED_PAIR = re.compile(r"\\(.)")
# RFC 8187, 3.2.1, with the two charsets that RFC 5987 requires.
_EXTENDED = re.compile(
    r"(utf-8|iso-8859-1)'[A-Za-z0-9-]*+'((?:%[0-9A-Fa-f]{2}|[!#$&+.^_`|~0-9A-Za-z-])*+)",
    re.IGNORECASE,
)
_WORD_CHARSETS = frozenset({"utf-8", "iso-8859-1", "us-ascii"})


def content_type_of(field: str | None) -> tuple[str, dict[str, str]]:
    """The media type in lower case, and the parameters, of a Content-Type field; an empty type
    when there is no field.

    :raises Malformed: when `boundary` is given twice, since two programs would choose differently.
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
    """The parameters of a part's Content-Disposition field, decoded, their names in lower case. An
    extended one (`filename*`) takes the place of the plain one, before or behind it.

    A field that cannot be understood completely is refused: a file must not be passed over, or get
    another name, because its header is odd.

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
        raise ValueError("a Content-Disposition header that cannot be understood")
    if any(name.startswith(("name*", "filename*")) for name in values.keys() - _EXTENDED_NAMES):
        raise ValueError("a name in several pieces, which only mail has (RFC 2231)")
    plain = {name: _plain(value) for name, value in values.items() if not name.endswith("*")}
    extended = {
        name[:-1]: _extended(name, values[name]) for name in _EXTENDED_NAMES & values.keys()
    }
    return plain | extended


_EXTENDED_NAMES = frozenset({"name*", "filename*"})


def _plain(value: str) -> str:
    # Without the package's reading of file names: it drops what precedes a backslash, and a name
    # that holds one has to be seen to be refused.
    text: str = content_disposition_unquote(value)
    return _words(text) if _ENCODED_WORDS.fullmatch(text) else text


def _words(text: str) -> str:
    """The text of encoded words (RFC 2047), as .NET writes text that is not ASCII."""
    decoded = ""
    try:
        for word, charset in decode_header(text):
            if not isinstance(word, bytes) or charset not in _WORD_CHARSETS:
                raise ValueError("its charset is not UTF-8, ISO-8859-1 or US-ASCII")
            decoded += word.decode(charset)
    except (HeaderParseError, ValueError) as error:
        raise ValueError(f"an encoded word that cannot be decoded: {error}") from error
    return decoded


def _extended(name: str, value: str) -> str:
    """The text of an extended parameter (RFC 8187). Some senders put it between quotes."""
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

"""Header fields with parameters: `Content-Type`, and `Content-Disposition` of a form's part.

Pure. RFC 9110, 5.6.6 has the grammar. Clients deviate from it in known ways; what they mean is read
where it has one meaning.
"""

from __future__ import annotations

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

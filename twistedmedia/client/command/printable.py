"""Text of strangers, made harmless for a terminal.

Pure. Names, reasons and URLs come from a server or a file system; none of them may move the
cursor, change colours, or turn the direction of what is written around them.
"""

from __future__ import annotations

import unicodedata

# Control, format (bidirectional), surrogate, line and paragraph separator.
_HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str) -> str:
    """`text` on one line, with U+FFFD for each character that is not to be seen as itself."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in _HARMFUL else character
        for character in text
    )

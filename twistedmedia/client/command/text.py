"""Text for people: sizes, times, rates, and untrusted text made safe for a terminal.

Pure.
"""

from __future__ import annotations

import unicodedata

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
# Control, format (bidirectional), surrogate, line separator and paragraph separator characters.
_UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def size_text(size_bytes: float) -> str:
    """ "512 bytes", "1.5 MiB"."""
    if size_bytes < 1024:
        return "1 byte" if size_bytes == 1 else f"{size_bytes:.0f} bytes"
    for unit in _UNITS:
        size_bytes /= 1024
        if size_bytes < 1023.95 or unit == _UNITS[-1]:  # 1023.95 would be rounded to 1024.0
            break
    return f"{size_bytes:.1f} {unit}"


def left_out_text(count: int) -> str:
    """ "1 entry that is not media, such as a hidden file or a link"."""
    entries = "1 entry that is" if count == 1 else f"{count} entries that are"
    return f"{entries} not media, such as a hidden file or a link"


def time_text(seconds: float) -> str:
    """ "0.25 s", "12 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def milliseconds_text(seconds: float) -> str:
    """ "0.4 ms", "1250.0 ms": one unit for times that stand in one column."""
    return f"{seconds * 1000:.1f} ms"


def rate_text(size_bytes: float, seconds: float) -> str:
    """ "12.5 MiB/s", or "-" if `seconds` is 0."""
    return f"{size_text(size_bytes / seconds)}/s" if seconds > 0 else "-"


def printable(text: str) -> str:
    """Return `text` as one line, with U+FFFD for each character that could control a terminal.
    Names, reasons and URLs come from a server or a file system. None of them may move the cursor,
    change colours, or reverse the direction of the text around them.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(each) in _UNSAFE_CATEGORIES else each
        for each in text
    )

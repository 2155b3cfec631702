"""The tags that stand before, behind and between the audio of a file.

Pure. Sources: ID3v2.3 and 2.4 (id3.org), ID3v1, APEv2 (wiki.hydrogenaud.io), Lyrics3 (id3.org).
"""

from __future__ import annotations

ID3_BYTES = 10  # of the header of an ID3v2 tag
_APE_BYTES = 32  # of the header or the footer of an APE tag
_APE = b"APETAGEX"
_APE_HAS_HEADER = 1 << 31
_ID3V1_BYTES, _ENHANCED_BYTES = 128, 227
_ENHANCED = b"TAG+"
LYRICS = b"LYRICSBEGIN"  # a tag whose size stands at its end


def id3_size(head: bytes) -> int | None:
    """The size in bytes of the ID3v2 tag that begins with `head`; None if it begins none."""
    if len(head) < ID3_BYTES or not head.startswith(b"ID3") or max(head[3:5]) == 0xFF:
        return None
    sizes = head[6:10]
    if max(sizes) > 0x7F:
        return None
    size = sizes[0] << 21 | sizes[1] << 14 | sizes[2] << 7 | sizes[3]
    footer = ID3_BYTES if head[3] >= 4 and head[5] & 0x10 else 0
    return ID3_BYTES + size + footer


def tag_size(head: bytes) -> int | None:
    """The size in bytes of the tag of any kind that begins with `head`; None if it begins none."""
    if head.startswith(_APE) and len(head) >= _APE_BYTES:
        return _APE_BYTES + int.from_bytes(head[12:16], "little")  # without the header itself
    if head.startswith(b"TAG"):
        return _ENHANCED_BYTES if head.startswith(_ENHANCED) else _ID3V1_BYTES
    return id3_size(head)


def without_last_tags(tail: bytes) -> tuple[bytes, int]:
    """The end of a file, and how many bytes of tags were behind it. Of a tag that begins before
    `tail` nothing is left.
    """
    left = len(tail)
    removed = 0
    while size := _last_tag_size(tail[:left]):
        removed += size
        left = max(0, left - size)
    return tail[:left], removed


def _last_tag_size(tail: bytes) -> int:
    if tail[-_ID3V1_BYTES:].startswith(b"TAG") and len(tail) >= _ID3V1_BYTES:
        enhanced = tail[-_ID3V1_BYTES - _ENHANCED_BYTES :].startswith(_ENHANCED)
        return _ID3V1_BYTES + (_ENHANCED_BYTES if enhanced else 0)
    footer = tail[-_APE_BYTES:]
    if footer.startswith(_APE) and len(footer) == _APE_BYTES:
        has_header = int.from_bytes(footer[20:24], "little") & _APE_HAS_HEADER
        return int.from_bytes(footer[12:16], "little") + (_APE_BYTES if has_header else 0)
    if tail.endswith((b"LYRICS200", b"LYRICSEND")) and LYRICS in tail:
        return len(tail) - tail.rindex(LYRICS)
    return 0

"""The chunked coding (RFC 9112, 7.1): Twisted's decoder, with an end to the size of a chunk.

It leans on the decoder's `_dataReceived_CHUNK_LENGTH` and `length`.
"""

from __future__ import annotations

from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError

_MAX_CHUNK_BYTES = (1 << 63) - 1  # as programs count that have 63 bits for it


class Chunks(_ChunkedTransferDecoder):
    """Decodes what it is given, and calls back with the content and with what follows its end."""

    length: int

    def _dataReceived_CHUNK_LENGTH(self) -> bool:
        is_there = super()._dataReceived_CHUNK_LENGTH()
        if is_there and self.length > _MAX_CHUNK_BYTES:
            raise _MalformedChunkedDataError("the chunk is larger than anything can be")
        return is_there

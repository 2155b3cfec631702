"""The heads of HTTP responses, as a client receives them: how large they may be.

Pure. Twisted's HTTP client bounds a line of a head, but neither their number nor the interim
responses before the final one.
"""

from __future__ import annotations

from twistedmedia.wire.heads import MAX_FIELDS

# Status line and headers, of all responses that precede the final one as well.
MAX_RESPONSE_HEAD_BYTES = 64 << 10
MAX_INTERIM = 16  # responses before the final one (RFC 9110, 15.2); Twisted logs each of them


class ResponseHeads:
    """Measures the head of a response, and those of interim ones before it, as Twisted will read
    them, before it does.
    """

    def __init__(self) -> None:
        self.interim = 0
        self.is_complete = False  # the final one
        self.is_chunked = False  # its content
        self._size = 0
        self._fields = 0
        self._line: list[bytes] = []  # in pieces, until its end has come
        self._line_bytes = 0
        self._status = b""

    def feed(self, data: bytes) -> int:
        """More bytes were received. Returns how many were taken: to the end of a head at most."""
        before = self._size + self._line_bytes
        self._line.append(data)
        self._line_bytes += len(data)
        if b"\n" not in data:
            return len(data)
        *lines, rest = b"".join(self._line).split(b"\n")
        self._line, self._line_bytes = [rest], len(rest)
        for line in lines:
            self._size += len(line) + 1
            line = line.removesuffix(b"\r")
            if not self._status:
                self._status = line or b"none"
            elif line:
                self._fields += 1
                if line[:18].lower() == b"transfer-encoding:":
                    self.is_chunked = True
            else:
                if 100 <= _code(self._status) < 200:
                    self.interim += 1
                    self._status = b""
                else:
                    self.is_complete = True
                self._line, self._line_bytes = [], 0
                return self._size - before
        return len(data)

    @property
    def are_too_large(self) -> bool:
        """Whether there is more of them than may be."""
        return (
            self._size + self._line_bytes > MAX_RESPONSE_HEAD_BYTES
            or self._fields > MAX_FIELDS
            or self.interim > MAX_INTERIM
        )


def _code(status: bytes) -> int:
    try:
        return int(status.split(b" ", 2)[1])
    except (IndexError, ValueError):
        return 0

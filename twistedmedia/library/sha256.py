"""SHA-256 whose state can be kept as bytes, so that another process can go on with it.

`hashlib` cannot say its state. So OpenSSL's own functions are called, which Python's `_hashlib` is
linked with. Their state is a plain structure that has been the same since OpenSSL 0.9.8. If Python
was built without them, or with OpenSSL inside, there is no state to keep.
"""

from __future__ import annotations

import _hashlib
import ctypes
import hashlib
import struct
import sys
from typing import Any

# SHA256_CTX of openssl/sha.h, each member an unsigned int: h[8], Nl and Nh (how many bits there
# were), data[16] (the bytes of a block that is not full), num (how many these are), md_len.
_STATE = struct.Struct("=8I 2I 64s 2I")
_BLOCK_BYTES, _DIGEST_BYTES = 64, 32
# What a kept state begins with: its own version, and the byte order of the machine.
_MAGIC = b"sha256 1 " + sys.byteorder.encode() + b" "


def _load() -> Any:
    """OpenSSL's functions, None if they cannot be called or do not give the right digest."""
    try:
        library = ctypes.CDLL(_hashlib.__file__)
        library.SHA256_Init.argtypes = [ctypes.c_char_p]
        library.SHA256_Update.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
        library.SHA256_Final.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    except (AttributeError, OSError):
        return None
    probe = Sha256(library=library)
    probe.update(b"a probe")
    probe = Sha256(state=probe.state(), library=library)
    probe.update(b" in two pieces")
    expected = hashlib.sha256(b"a probe in two pieces").hexdigest()
    return library if probe.hexdigest() == expected else None


class Sha256:
    """The SHA-256 of `size` bytes so far. `update` releases the interpreter's lock."""

    def __init__(self, *, state: bytes | None = None, library: Any = None) -> None:
        """With a `state`, what `Sha256.state` gave, it goes on from there. `library` has OpenSSL's
        functions.

        :raises ValueError: when `state` is not one of this kind of machine, or cannot be restored.
        """
        self._library = library or _OPENSSL
        self.size = 0
        if state is not None:
            if self._library is None or not state.startswith(_MAGIC):
                raise ValueError("not the state of a SHA-256 that can go on here")
            raw = state.removeprefix(_MAGIC)
            self.size = _checked_size(raw)
            self._context = ctypes.create_string_buffer(raw, _STATE.size)
        elif self._library is None:
            self._hash = hashlib.sha256()
        else:
            self._context = ctypes.create_string_buffer(_STATE.size)
            self._library.SHA256_Init(self._context)

    def update(self, data: bytes) -> None:
        """More bytes."""
        self.size += len(data)
        if self._library is None:
            self._hash.update(data)
        else:
            self._library.SHA256_Update(self._context, data, len(data))

    def hexdigest(self) -> str:
        """The digest of all bytes so far, in hex."""
        if self._library is None:
            return self._hash.hexdigest()
        context = ctypes.create_string_buffer(self._context.raw, _STATE.size)
        digest = ctypes.create_string_buffer(_DIGEST_BYTES)
        self._library.SHA256_Final(digest, context)
        return digest.raw.hex()

    def state(self) -> bytes | None:
        """All that is needed to go on, None if it cannot be said."""
        return None if self._library is None else _MAGIC + self._context.raw


def _checked_size(raw: bytes) -> int:
    """How many bytes made this state. It may come from a disk, and OpenSSL trusts it blindly.

    :raises ValueError: when it cannot be a state.
    """
    if len(raw) != _STATE.size:
        raise ValueError("the state of a SHA-256 is not whole")
    *_, low, high, _, in_block, digest_bytes = _STATE.unpack(raw)
    bits: int = high << 32 | low
    size = bits // 8
    if bits % 8 or in_block != size % _BLOCK_BYTES or digest_bytes != _DIGEST_BYTES:
        raise ValueError("the state of a SHA-256 contradicts itself")
    return size


_OPENSSL = None
_OPENSSL = _load()

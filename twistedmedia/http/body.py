"""`Body`: the content of a message, which arrives piece by piece, with backpressure.

A handler reads a `Body`. The connection feeds it: of a request `http.connection`, of an upstream's
response `fetch.content`. It knows nothing of framing: the connection reports bytes, the end of the
content, or a failure.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from enum import Enum
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest
from zope.interface import Interface

EACH_BYTES = 1 << 20  # unread bytes of one body
TOTAL_BYTES = 16 << 20  # bytes of all bodies, unread or being written
# A handler is woken for this much: to hand a thread one byte costs as much as a megabyte.
_WAKE_BYTES = 256 << 10
# A body that holds less gets no share of the memory. Otherwise thousands of connections that send
# next to nothing would leave an upload without memory.
_UNCOUNTED_BYTES = 16 << 10
_CHUNK_OVERHEAD_BYTES = 64  # of a bytes object in a list
LARGEST_PIECE_BYTES, SMALLEST_PIECE_BYTES = 256 << 10, 64 << 10
_SMALL_CHUNK_BYTES = 4096  # chunks that are smaller on average are joined into one


class BodyMemory:
    """The memory for unread content of one service, shared fairly among its bodies."""

    def __init__(self, each: int = EACH_BYTES, total: int = TOTAL_BYTES) -> None:
        """`each` and `total` in bytes."""
        self._each = each
        self._total = total
        self._bodies = 0

    @property
    def allowance(self) -> int:
        """The unread bytes that each body may hold. As many again may be on their way to disk."""
        return min(self._each, self._total // (2 * max(1, self._bodies)))

    @property
    def piece(self) -> int:
        """The bytes to receive at a time: many, because each piece costs the event loop the same,
        but fewer while many bodies arrive, to keep each turn of the loop short.
        """
        return max(SMALLEST_PIECE_BYTES, LARGEST_PIECE_BYTES // max(1, self._bodies))

    def enter(self) -> None:
        """Count one more body."""
        self._bodies += 1

    def leave(self) -> None:
        """Count one body less."""
        self._bodies -= 1


class Flow(Protocol):
    """The connection that a body arrives on, as the body uses it."""

    def hold(self) -> None:
        """Stop reading from the peer. Idempotent."""

    def release(self) -> None:
        """Resume reading from the peer."""

    def send_continue(self) -> None:
        """Send `100 Continue` if the peer waits for it (RFC 9110, 10.1.1)."""

    async def turn(self) -> None:
        """Wait until the reader may use the event loop for a while. Returns at once if it may."""

    def pace(self) -> float | None:
        """The bytes a second that the peer sent lately. None if that is unknown, if the peer had to
        wait for this side, or if no content is expected.
        """

    def give_way(self) -> None:
        """Fail the body, because another caller gets its place."""


_Source = Enum("_Source", "ARRIVING COMPLETE FAILED")  # the content, as the connection reports it
_Storage = Enum("_Storage", "UNCOUNTED COUNTED DISCARDED")  # unread chunks, and `BodyMemory`


class Body:
    """The content of one message: an async iterator of lists of chunks, for one reader.

    `length` is the declared size in bytes. It is None if the content is chunked, and 0 once chunked
    content has ended without a byte. `received` is the number of bytes that arrived. A reader that
    sets `outlives_connection` goes on when the connection is lost: it reads the bytes that arrived
    before, and discards the body itself.
    """

    def __init__(self, length: int | None, memory: BodyMemory, flow: Flow) -> None:
        self.length = length
        self.received = 0
        self.outlives_connection = False
        self._memory = memory
        self._flow = flow
        self._unread: list[bytes] = []
        self._unread_size = 0
        self._source = _Source.ARRIVING
        self._storage = _Storage.UNCOUNTED
        self._error: Exception | None = None  # of a failed source
        self._held = False  # the peer is paused
        self._waiting: Deferred[None] | None = None  # the reader

    @property
    def is_complete(self) -> bool:
        """Whether the last byte was received."""
        return self._source is _Source.COMPLETE

    async def read(self) -> list[bytes]:
        """Return the next chunks, none of them empty; an empty list at the end of the content.

        Waits for 256 KiB, or less when memory is short, or for the end of the content. The first
        read lets a client that expects `100 Continue` begin.

        :raises Exception: the failure that ended the content, after the last chunk before it.
        """
        self._flow.send_continue()
        while not self._is_worth_reading():
            self._waiting = Deferred(self._stop_waiting)
            self._resume_peer()
            await self._waiting
        chunks, size = self._unread, self._unread_size
        self._unread, self._unread_size = [], 0
        if not chunks and self._error is not None:
            raise self._error
        self._resume_peer()
        if len(chunks) > 1 and size < len(chunks) * (_SMALL_CHUNK_BYTES + _CHUNK_OVERHEAD_BYTES):
            return [b"".join(chunks)]
        return chunks

    async def turn(self) -> None:
        """As `Flow.turn`, for readers that process the content in the event loop."""
        await self._flow.turn()

    def __aiter__(self) -> AsyncIterator[list[bytes]]:
        return self

    async def __anext__(self) -> list[bytes]:
        chunks = await self.read()
        if not chunks:
            raise StopAsyncIteration
        return chunks

    def pace(self) -> float | None:
        """The bytes a second that the peer sent lately, as in `shares.Holder`."""
        return math.inf if self.is_complete else self._flow.pace()

    def give_way(self) -> None:
        """Fail, because another caller gets the place. Does nothing after the last byte."""
        if not self.is_complete:
            self._flow.give_way()

    def feed(self, data: bytes) -> None:
        """Add received bytes. Pauses the peer when the allowance for unread bytes is used up."""
        self.received += len(data)
        if self._storage is _Storage.DISCARDED or self._error is not None or not data:
            return
        self._unread.append(data)
        self._unread_size += len(data) + _CHUNK_OVERHEAD_BYTES
        if self._storage is _Storage.UNCOUNTED and self._unread_size > _UNCOUNTED_BYTES:
            self._storage = _Storage.COUNTED
            self._memory.enter()
        if self._unread_size >= self._memory.allowance:
            self._held = True
            self._flow.hold()
        self._wake()

    def end(self) -> None:
        """Note that the last byte was received."""
        self._source = _Source.COMPLETE
        if not self.received:
            self.length = 0
        self._wake()

    def fail(self, error: Exception) -> None:
        """Note that `error` ended the content. Does nothing if the content has ended already."""
        if self._source is _Source.ARRIVING:
            self._source, self._error = _Source.FAILED, error
            self._wake()

    def discard(self) -> None:
        """Drop the unread bytes and all that follow: the body will not be read. Idempotent."""
        before, self._storage = self._storage, _Storage.DISCARDED
        self._unread, self._unread_size = [], 0
        self._resume_peer()
        if before is _Storage.COUNTED:
            self._memory.leave()

    def _is_worth_reading(self) -> bool:
        has_ended = self._source is not _Source.ARRIVING
        return has_ended or self._unread_size >= min(_WAKE_BYTES, self._memory.allowance // 2)

    def _wake(self) -> None:
        if self._waiting is not None and self._is_worth_reading():
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def _stop_waiting(self, _: Deferred[None]) -> None:
        self._waiting = None

    def _resume_peer(self) -> None:
        if self._held:
            self._held = False
            self._flow.release()


class IStreamsBody(Interface):
    """Marks a resource that is rendered before the content of its request has arrived."""


def body_of(request: IRequest) -> Body:
    """Return the streaming content of a request.

    :raises RuntimeError: if the request was received by a Site other than `MediaSite`, which would
        buffer the whole content first. There is no slow fallback.
    """
    body = getattr(request, "body", None)
    if not isinstance(body, Body):
        raise RuntimeError("uploads need twistedmedia's Site: serve this tree with MediaSite")
    return body

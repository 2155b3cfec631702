"""A message's content that arrives piece by piece, with backpressure.

`Body` is what a handler reads; of a request `wire.channel` feeds it, of an upstream's response
`fetching`. It knows nothing of HTTP's framing: it is told when bytes come, when they end, and when
they never will.

Which resources stream, and the streaming content of their requests.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest
from zope.interface import Interface

# What one body may hold unread, and what all of them may hold, unread and being written.
EACH_BYTES = 1 << 20
TOTAL_BYTES = 16 << 20
# A handler is woken for at least this much, because handing bytes to a thread costs the same for
# one as for a megabyte.
_WORTH_WAKING_BYTES = 256 << 10
# A body takes its share when it holds more than this: thousands that say next to nothing must not
# leave an upload without memory.
_WORTH_COUNTING_BYTES = 16 << 10
_CHUNK_OVERHEAD_BYTES = 64  # what Python needs for a bytes object in a list, besides its bytes
LARGEST_PIECE_BYTES, SMALLEST_PIECE_BYTES = 256 << 10, 64 << 10
_SMALL_CHUNK_BYTES = 4096  # many chunks below this on the average are joined into one


class BodyMemory:
    """How much the bodies of one service may hold unread, shared fairly among them."""

    def __init__(self, each: int = EACH_BYTES, total: int = TOTAL_BYTES) -> None:
        """`each` and `total` in bytes."""
        self._each = each
        self._total = total
        self._bodies = 0

    @property
    def allowance(self) -> int:
        """Bytes that each body may hold unread: as much again may be on its way to the disk."""
        return min(self._each, self._total // (2 * max(1, self._bodies)))

    @property
    def piece(self) -> int:
        """Bytes to receive at a time: many, since each piece costs the loop the same, but fewer
        when many bodies arrive, so that one turn of the loop stays short for everybody else.
        """
        return max(SMALLEST_PIECE_BYTES, LARGEST_PIECE_BYTES // max(1, self._bodies))

    def enter(self) -> None:
        """One more body holds bytes that count."""
        self._bodies += 1

    def leave(self) -> None:
        """One body less."""
        self._bodies -= 1


class Flow(Protocol):
    """What a body asks of the connection that it arrives on."""

    def hold(self) -> None:
        """Read no more from the peer. May be called again while held."""

    def release(self) -> None:
        """Read on."""

    def send_continue(self) -> None:
        """Tell a peer that waits for it to send the content (RFC 9110, 10.1.1)."""

    async def turn(self) -> None:
        """Wait until work on what was read may take some time of the event loop. Returns at once
        while the work that is under way may go on.
        """

    def pace(self) -> float | None:
        """How many bytes a second the peer sent lately. None if that is not known, or if the peer
        had to wait for us, or if nothing is to come.
        """

    def give_way(self) -> None:
        """Fail the body, whose place another caller has."""


class Body:
    """The content of one message: an async iterator of lists of chunks, read by one reader.

    `length` is the declared size in bytes. It is None when the content is chunked, and 0 once
    chunked content has ended without a byte. `received` is how many bytes of it
    arrived. A reader that `outlives` the connection reads the bytes that arrived before it was
    lost, and drops the body itself.
    """

    def __init__(self, length: int | None, memory: BodyMemory, flow: Flow) -> None:
        self.length = length
        self.received = 0
        self.complete = False  # the last byte has come
        self.outlives = False
        self._memory = memory
        self._flow = flow
        self._unread: list[bytes] = []
        self._unread_size = 0
        self._held = False
        self._dropping = False
        self._counted = False
        self._error: Exception | None = None
        self._waiting: Deferred[None] | None = None

    async def read(self) -> list[bytes]:
        """The next chunks, none of them empty; an empty list at the end of the content.

        Waits until some 256 KiB are there, or the content has ended. The first read lets a client
        that expects `100 Continue` begin.

        :raises Exception: the failure that ended the content, after the last chunk before it.
        """
        self._flow.send_continue()
        while not self._worth_reading():
            self._waiting = Deferred(self._stop_waiting)
            self._let_flow()
            await self._waiting
        chunks, size = self._unread, self._unread_size
        self._unread, self._unread_size = [], 0
        if not chunks and self._error is not None:
            raise self._error
        self._let_flow()
        if len(chunks) > 1 and size < len(chunks) * (_SMALL_CHUNK_BYTES + _CHUNK_OVERHEAD_BYTES):
            return [b"".join(chunks)]
        return chunks

    async def turn(self) -> None:
        """As `Flow.turn`. For readers that do more with the content than to pass it on."""
        await self._flow.turn()

    def __aiter__(self) -> AsyncIterator[list[bytes]]:
        return self

    async def __anext__(self) -> list[bytes]:
        chunks = await self.read()
        if not chunks:
            raise StopAsyncIteration
        return chunks

    def pace(self) -> float | None:
        """How many bytes a second the peer sent lately, as `shares.Holder` says."""
        return math.inf if self.complete else self._flow.pace()

    def give_way(self) -> None:
        """Fail: another caller has the place. Not after the last byte has come."""
        if not self.complete:
            self._flow.give_way()

    def feed(self, data: bytes) -> None:
        """Bytes have come. Pauses the peer when more is unread than may be."""
        self.received += len(data)
        if self._dropping or self._error is not None or not data:
            return
        self._unread.append(data)
        self._unread_size += len(data) + _CHUNK_OVERHEAD_BYTES
        if not self._counted and self._unread_size > _WORTH_COUNTING_BYTES:
            self._counted = True
            self._memory.enter()
        if self._unread_size >= self._memory.allowance:
            self._held = True
            self._flow.hold()
        self._wake()

    def end(self) -> None:
        """The last byte has come."""
        self.complete = True
        if not self.received:
            self.length = 0
        self._wake()

    def fail(self, error: Exception) -> None:
        """No more will come, because of `error`."""
        if not self.complete and self._error is None:
            self._error = error
            self._wake()

    def drop(self) -> None:
        """Nobody will read any more: what has come and what comes is thrown away. Idempotent."""
        self._dropping = True
        self._unread, self._unread_size = [], 0
        self._let_flow()
        if self._counted:
            self._counted = False
            self._memory.leave()

    def _worth_reading(self) -> bool:
        worth = min(_WORTH_WAKING_BYTES, self._memory.allowance // 2)
        return self.complete or self._error is not None or self._unread_size >= worth

    def _wake(self) -> None:
        if self._waiting is not None and self._worth_reading():
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def _stop_waiting(self, _: Deferred[None]) -> None:
        self._waiting = None

    def _let_flow(self) -> None:
        if self._held:
            self._held = False
            self._flow.release()


class IStreamsBody(Interface):
    """Marks a resource that is to be rendered before the content has arrived."""


def body_of(request: IRequest) -> Body:
    """The streaming content of a request.

    :raises RuntimeError: when the request came by another Site than `MediaSite`, which reads all of
        the content before anybody sees the request. There is no slow fallback.
    """
    body = getattr(request, "body", None)
    if not isinstance(body, Body):
        raise RuntimeError("uploads need twistedmedia's Site: serve this tree with MediaSite")
    return body

"""Content that comes from an open descriptor, or goes to one: a pipe, a terminal, standard input.

A stream is read and written once: what went by cannot be had again. The descriptors are the
caller's, and are not closed here. They are waited for in threads, in short waits, because a thread
that waits for a pipe without end could not be ended.
"""

from __future__ import annotations

import hashlib
import os
import select
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from twistedmedia.client.exceptions import IntegrityError, LocalFailure, local_failure
from twistedmedia.client.idle_timeouts import IdleTimer
from twistedmedia.client.partial_downloads import PartialNote
from twistedmedia.client.threads import in_thread

_PIECE_BYTES = 256 << 10
_LOOK_MS = 200
# A pipe that can be written to has at least this much room (POSIX, PIPE_BUF).
_ROOM_BYTES = select.PIPE_BUF
_STANDARD = {0: "standard input", 1: "standard output", 2: "standard error"}


class SentStream:
    """The content of a request: all that can be read from `descriptor`. `moved` is called with how
    many bytes were sent. `sent` and `sha256` tell what was sent so far. `fault` is what `moved` has
    raised.
    """

    fault: Exception | None = None
    sent = 0

    def __init__(self, reactor: Any, descriptor: int, moved: Callable[[int], None]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._moved = moved
        self._digest = hashlib.sha256()
        self._is_stopped = False
        self._watch: IdleTimer
        self._stall_s = self._answer_s = 0.0

    @property
    def sha256(self) -> str:
        """The digest of what was sent, in hex."""
        return self._digest.hexdigest()

    def producer(self, watch: IdleTimer, stall_s: float, answer_s: float) -> IBodyProducer:
        """The same for Twisted's client. `watch` waits for the service, not for the descriptor."""
        self._watch, self._stall_s, self._answer_s = watch, stall_s, answer_s
        producer: IBodyProducer = _Content(self)
        return producer

    def read(self) -> Deferred[bytes]:
        """Fires with the next bytes, none at the end; fails with LocalFailure."""
        return in_thread(self._reactor, self._read)

    def await_service(self) -> None:
        """From now on the service has to take something: the time limit runs."""
        self._watch.begin(self._stall_s)

    def await_descriptor(self) -> None:
        """From now on only the descriptor is waited for: no time limit runs."""
        self._watch.rest()

    def take(self, piece: bytes) -> None:
        """Account for a piece that is about to be sent; none when all were."""
        self._watch.begin(self._stall_s if piece else self._answer_s)
        self._digest.update(piece)
        self.sent += len(piece)
        try:
            self._moved(self.sent)
        except Exception as error:
            self.fault = error
            raise

    def stop(self) -> None:
        """Read no more."""
        self._is_stopped = True

    def _read(self) -> bytes:
        try:
            while not self._is_stopped:
                if _is_ready(self._descriptor, select.POLLIN):
                    return os.read(self._descriptor, _PIECE_BYTES)
        except OSError as error:
            raise local_failure(error, descriptor_name(self._descriptor)) from None
        return b""


def _is_ready(descriptor: int, event: int) -> bool:
    """Whether the descriptor can be used by now; also when using it will fail."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(_LOOK_MS))


def descriptor_of(argument: object) -> int:
    """`argument`, if it can be a descriptor.

    :raises LocalFailure: when it cannot.
    """
    if not isinstance(argument, int) or isinstance(argument, bool) or not 0 <= argument < 1 << 31:
        raise LocalFailure(f"the descriptor has to be a number from 0 on, not {argument!r}")
    return argument


def descriptor_name(descriptor: int) -> str:
    """What a person calls `descriptor`: "standard output", or "descriptor 5"."""
    return _STANDARD.get(descriptor, f"descriptor {descriptor}")


@implementer(IBodyProducer)
class _Content:
    length = UNKNOWN_LENGTH

    def __init__(self, stream: SentStream) -> None:
        self._stream = stream
        self._piece: bytes | None = None
        self._is_paused = self._is_stopped = False
        self._consumer: IConsumer
        self._done: Deferred[None] = Deferred(lambda _: self.stopProducing())

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        self._consumer = consumer
        self._read()
        return self._done

    def pauseProducing(self) -> None:
        self._is_paused = True
        if not self._is_stopped:
            self._stream.await_service()

    def resumeProducing(self) -> None:
        self._is_paused = False
        if self._is_stopped:
            return
        if self._piece is None:
            self._stream.await_descriptor()
        else:
            self._send()

    def stopProducing(self) -> None:
        self._is_stopped = True
        self._stream.stop()

    def _read(self) -> None:
        """Read ahead, also while the service takes nothing: then the service is waited for."""
        if not self._is_paused:
            self._stream.await_descriptor()
        self._stream.read().addCallback(self._received).addErrback(self._failed)

    def _received(self, piece: bytes) -> None:
        if not self._is_stopped:
            self._piece = piece
            self._send()

    def _send(self) -> None:
        if self._is_paused or self._is_stopped or self._piece is None:
            return
        piece, self._piece = self._piece, None
        self._stream.take(piece)
        if not piece:
            self._is_stopped = True  # only the answer is waited for now
            self._done.callback(None)
            return
        self._consumer.write(piece)
        if not self._is_stopped:
            self._read()

    def _failed(self, failure: Failure) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self._done.errback(failure)


class Outlet:
    """Takes a download in place of `part.Part`, and gives it to `descriptor` as it comes. It can be
    continued after a break, but not begun anew. The methods block.
    """

    note: PartialNote | None = None
    size = 0

    def __init__(self, descriptor: int) -> None:
        self.target = descriptor_name(descriptor)
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self._is_stopped = False

    def begin(self, note: PartialNote | None) -> None:
        """Begin, with the file that `note` is of.

        :raises Damaged: when something was given away before.
        """
        if self.size:
            raise IntegrityError(
                f"the download broke off after {self.size} bytes and cannot be continued: the file"
                " at the service is not the same, or the service cannot send a part of it"
            )
        self.note = note

    def free_bytes(self) -> None:
        """How many bytes there is space for is not known."""

    def cut(self, size: int) -> None:
        """Nothing can be taken back.

        :raises Damaged: always.
        """
        raise IntegrityError(
            f"the connection broke after all {self.size} bytes were written, so it is not known"
            " whether they are right; download the file again"
        )

    def write(self, pieces: list[bytes], digest: Any) -> None:
        """Give `pieces` away, and hash them."""
        for piece in pieces:
            digest.update(piece)
            view = memoryview(piece)
            while view and not self._is_stopped:
                if _is_ready(self._descriptor, select.POLLOUT):
                    written = os.write(self._descriptor, view[:_ROOM_BYTES])
                    self.size += written
                    view = view[written:]

    def digest(self) -> Any:
        """The running digest of all that was given away."""
        return self._digest

    def publish(self) -> None:
        """It is whole: there is nothing to be done."""

    def stop(self) -> None:
        """Write no more."""
        self._is_stopped = True

    def close(self) -> None:
        """The descriptor is the caller's."""

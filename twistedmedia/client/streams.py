"""Uploads from and downloads to an open descriptor: a pipe, a terminal, standard input.

A stream can be read and written only once. The caller owns the descriptors and closes them.
Threads poll them with a short timeout, because a thread that blocks on a pipe cannot be stopped.
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
from twistedmedia.client.partial_downloads import PartialDownloadInfo
from twistedmedia.client.threads import in_thread

_PIECE_BYTES = 256 << 10
_POLL_MS = 200
# A pipe that is ready for writing accepts at least this much (POSIX, PIPE_BUF).
_WRITE_BYTES = select.PIPE_BUF
_STANDARD = {0: "standard input", 1: "standard output", 2: "standard error"}


class StreamSource:
    """The content of a request, read from `descriptor` up to its end.

    `on_sent` is called with the number of bytes sent so far. `sent` is that number, and `sha256`
    the digest of these bytes. `callback_error` is the exception that `on_sent` has raised.
    """

    callback_error: Exception | None = None
    sent = 0

    def __init__(self, reactor: Any, descriptor: int, on_sent: Callable[[int], None]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._on_sent = on_sent
        self._digest = hashlib.sha256()
        self._is_stopped = False
        self._timer: IdleTimer
        self._stall_s = self._response_s = 0.0

    @property
    def sha256(self) -> str:
        """The digest of the bytes sent so far, in hex."""
        return self._digest.hexdigest()

    def producer(self, timer: IdleTimer, stall_s: float, response_s: float) -> IBodyProducer:
        """The body producer for one request. `timer` runs only while the service, and not the
        descriptor, has to do something.
        """
        self._timer, self._stall_s, self._response_s = timer, stall_s, response_s
        producer: IBodyProducer = _StreamProducer(self)
        return producer

    def read(self) -> Deferred[bytes]:
        """Fires with the next bytes, empty at the end. Fails with LocalFailure."""
        return in_thread(self._reactor, self._read)

    def await_service(self) -> None:
        """Start the timer: the service has to accept bytes."""
        self._timer.start(self._stall_s)

    def await_descriptor(self) -> None:
        """Stop the timer: only the descriptor has to deliver bytes."""
        self._timer.stop()

    def count(self, piece: bytes) -> None:
        """Count a piece that is about to be sent. An empty piece is the end."""
        self._timer.start(self._stall_s if piece else self._response_s)
        self._digest.update(piece)
        self.sent += len(piece)
        try:
            self._on_sent(self.sent)
        except Exception as error:
            self.callback_error = error
            raise

    def stop(self) -> None:
        """Stop reading."""
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
    """Wait briefly for `event`. Returns whether the descriptor is ready, or has an error."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(_POLL_MS))


def check_descriptor(argument: object) -> int:
    """Check that `argument` can be a descriptor, and return it.

    :raises LocalFailure: when it cannot.
    """
    if not isinstance(argument, int) or isinstance(argument, bool) or not 0 <= argument < 1 << 31:
        raise LocalFailure(f"the descriptor must be a number from 0 on, not {argument!r}")
    return argument


def descriptor_name(descriptor: int) -> str:
    """The name of `descriptor` for people: "standard output", or "descriptor 5"."""
    return _STANDARD.get(descriptor, f"descriptor {descriptor}")


@implementer(IBodyProducer)
class _StreamProducer:
    length = UNKNOWN_LENGTH

    def __init__(self, stream: StreamSource) -> None:
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
        """Read ahead. While paused the timer runs on, since the service has to accept bytes."""
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
        self._stream.count(piece)
        if not piece:
            self._is_stopped = True  # only the response is missing now
            self._done.callback(None)
            return
        self._consumer.write(piece)
        if not self._is_stopped:
            self._read()

    def _failed(self, failure: Failure) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self._done.errback(failure)


class StreamSink:
    """Writes a download to `descriptor`; used in place of `PartialDownload`. It can be resumed when
    the connection breaks, but not restarted. The methods block.
    """

    info: PartialDownloadInfo | None = None
    size = 0

    def __init__(self, descriptor: int) -> None:
        self.target = descriptor_name(descriptor)
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self._is_stopped = False

    def restart(self, info: PartialDownloadInfo | None) -> None:
        """Start with the file that `info` describes.

        :raises IntegrityError: when bytes were written already.
        """
        if self.size:
            raise IntegrityError(
                f"the download broke off after {self.size} bytes and cannot be resumed: the file at"
                " the service has changed, or the service does not support ranges"
            )
        self.info = info

    def free_bytes(self) -> None:
        """The free space behind the descriptor is unknown: return None."""

    def truncate(self, size: int) -> None:
        """Fail, because bytes that were written cannot be removed.

        :raises IntegrityError: always.
        """
        raise IntegrityError(
            f"the connection broke after all {self.size} bytes were written, before they could be"
            " verified; download the file again"
        )

    def write(self, pieces: list[bytes], digest: Any) -> None:
        """Write `pieces`, and add them to `digest`."""
        for piece in pieces:
            digest.update(piece)
            view = memoryview(piece)
            while view and not self._is_stopped:
                if _is_ready(self._descriptor, select.POLLOUT):
                    written = os.write(self._descriptor, view[:_WRITE_BYTES])
                    self.size += written
                    view = view[written:]

    def digest(self) -> Any:
        """A SHA-256 hash object of the bytes so far."""
        return self._digest

    def publish(self) -> None:
        """Do nothing: all bytes are written."""

    def stop(self) -> None:
        """Stop writing."""
        self._is_stopped = True

    def close(self) -> None:
        """Do nothing: the caller closes the descriptor."""

"""Reading from the peer of a server connection, with pauses."""

from __future__ import annotations

from typing import Any
from weakref import ref

from twistedmedia.fairness.pace import PeerWait
from twistedmedia.http.interfaces import Connection
from twistedmedia.http.lingering import Lingering


class Reading:
    """Whether one connection is read. It is not while a body holds it, while its input waits for
    a turn, while it waits to linger, and while the peer does not take its responses.
    """

    def __init__(self, connection: Connection, producer: Any) -> None:
        """`producer` is the transport, if that can be paused."""
        self.peer_wait = PeerWait(connection.site.reactor.seconds)  # for this side
        self.lingering = Lingering(connection.site.reactor, connection.site.lingering)
        self.input_waits = False  # enough input waits for its turn
        self._connection = ref(connection)
        self._producer = producer
        self._is_held = False
        self._was_full = False
        self._expects_continue = False

    @property
    def is_paused(self) -> bool:
        """Whether there is a reason not to read, besides a peer that does not take responses."""
        return self._is_held or self.input_waits or self.lingering.is_waiting

    def pause(self) -> None:
        """Do not read until `resume`."""
        self._producer.pauseProducing()

    def resume(self) -> None:
        """Read, unless there is a reason not to."""
        connection = self._connection()
        if not (self.is_paused or connection is None or connection.is_full):
            self._producer.resumeProducing()

    def pause_again(self) -> None:
        """Pause if there is a reason to: Twisted's channel has resumed the transport regardless."""
        if self.is_paused:
            self._producer.pauseProducing()

    def hold(self) -> None:
        """Do not read until `release`, because enough content is unread. Idempotent."""
        if not self._is_held:
            self._is_held = True
            self.peer_wait.begin()
            self._producer.pauseProducing()

    def release(self) -> None:
        """End `hold`. Idempotent."""
        if self._is_held:
            self._is_held = False
            self.peer_wait.end()
            self.resume()

    def end(self) -> None:
        """Forget all reasons: the connection is lost."""
        self._is_held = self.input_waits = False

    def expect_continue(self) -> None:
        """The peer waits for `100 Continue`."""
        self._expects_continue = True
        self.peer_wait.begin()

    def end_expect(self) -> bool:
        """The peer waits for `100 Continue` no longer. Returns whether it did."""
        expected, self._expects_continue = self._expects_continue, False
        if expected:
            self.peer_wait.end()
        return expected

    def note_full(self) -> None:
        """The peer did not take its responses until now, so nothing was read."""
        self._was_full = True

    def was_full(self, is_full: bool) -> bool:
        """Whether the peer did not take its responses since the last call, or `is_full` now."""
        full = self._was_full or is_full
        self._was_full = False
        return full

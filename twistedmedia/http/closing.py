"""The end of a server connection: refused, half-closed, lingering, or lost."""

from __future__ import annotations

from typing import Any
from weakref import ref

from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from twistedmedia.errors import MediaError, TooSlow
from twistedmedia.fairness.loop_queue import PIECE_BYTES
from twistedmedia.http.body import Body
from twistedmedia.http.interfaces import Connection, Expected
from twistedmedia.http.lingering import LAST_LINGER_S, LINGER_BYTES, CloseTimeout
from twistedmedia.http.reading import Reading
from twistedmedia.http.request import last_response
from twistedmedia.http.transport import below_tls, limit_buffer, unread_bytes

# Turns of the loop without steps from the queue after a piece was dropped: clients that send
# content that is not needed get less done.
DROP_TURNS = 3


class Closing:
    """Whether and how one connection ends."""

    def __init__(self, connection: Connection, producer: Any, reading: Reading) -> None:
        """`producer` is the transport, if that can be paused."""
        self.lingering = reading.lingering
        self.timeout = CloseTimeout(connection.callLater)
        self.is_half_closed = False  # nothing more will be received
        self.is_over = False  # the connection is lost, and no request outlives it
        self.lost: Failure | None = None  # why the connection was lost
        self.refusal: MediaError | None = None  # the response to whatever arrives
        self._ref = ref(connection)
        self._site = connection.site
        self._producer = producer
        self._reading = reading

    @property
    def _connection(self) -> Connection:
        connection = self._ref()
        assert connection is not None
        return connection

    # By this side

    def refuse_connection(self, error: MediaError) -> None:
        """Refuse the connection: under TLS when input arrives, because Twisted does not read after
        a write before the handshake.
        """
        if self._connection.isSecure():
            self.refusal = error
        else:
            self.refuse(error)

    def refuse(self, error: MediaError) -> None:
        """Respond with `error` instead of a handler, and close."""
        connection = self._connection
        connection.input.close()
        connection.send_buffered()
        connection.persistent = False
        self._site.request_timeouts.settle(connection)
        response = last_response(error)
        connection.transport.write(response.data)
        request = connection.requests.pop() if connection.requests else None
        if request is not None:  # its resource has not seen it, and will not
            request.content.close()
        self._site.log_refused(connection, request, response.status, response.content_bytes)
        self.linger()

    def close_after_request(self) -> None:
        """Make the request in progress the last one, because the site closes."""
        self._connection.persistent = False
        self.lingering.shorten(LAST_LINGER_S)
        self.timeout.shorten(LAST_LINGER_S)

    def response_begins(self, body: Body) -> None:
        """Decide whether the connection is kept after a response that is about to be written.
        `body` is the content of its request.
        """
        connection = self._connection
        lacks_continue = self._reading.end_expect()  # to send it would be too late
        if body.is_complete:
            if self.is_half_closed and not connection.input.buffer:
                connection.persistent = False  # there will not be another request
            return
        rest = LINGER_BYTES + 1 if body.length is None else body.length - body.received
        if not connection.input.is_open or lacks_continue or rest > LINGER_BYTES:
            connection.persistent = False
        elif rest > PIECE_BYTES and connection.persistent:
            connection.persistent = self.lingering.keep(connection.client_key)

    def abort(self) -> None:
        """End the connection now, and also a request that outlives it."""
        if self.lost is None:
            self._connection.transport.abortConnection()
        else:
            self.vanish(self.lost)

    # By the peer

    def half_close(self) -> None:
        """The peer has closed its sending side, or the connection: only a write would tell."""
        self.is_half_closed = True
        if self.lingering.is_on:
            self._give_up()
        else:
            self.end_when_done()

    def lose(self, reason: Failure) -> None:
        """The connection is lost."""
        connection = self._connection
        self.lost = reason
        self.is_half_closed = True
        # TLS does not report `ConnectionAborted`.
        is_ended_here = getattr(connection.transport, "disconnecting", False)
        if is_ended_here or reason.check(ConnectionAborted):
            self.vanish(reason)
            return
        self.lingering.end()
        self._site.stall_detector.forget(connection)
        self._site.request_timeouts.forget(connection)
        connection.forget_peer(reason)
        try:
            if not connection.input.is_queued:
                connection.input.take()
            elif connection.requests and not connection.requests[0].may_outlive_connection:
                self.vanish(reason)  # the rest of its content is not needed
        except BaseException:
            self.vanish(reason)  # otherwise the connection would never end
            raise

    def end_when_done(self) -> None:
        """End a half-closed or lost connection, unless a request that was received completely is
        still to be handled.
        """
        if self._has_whole_request():
            return
        if self.lost is not None:
            self.vanish(self.lost)
        else:
            connection = self._connection
            connection.input.close()
            self._site.request_timeouts.settle(connection)
            connection.drop_requests(connectionDone)
            connection.loseConnection()

    def _has_whole_request(self) -> bool:
        connection = self._connection
        expected = connection.expected
        if expected is Expected.NEXT_REQUEST and connection.requests:
            return True
        # The buffer may hold one, which waits for its turn, or until earlier responses are sent.
        waits_for_peer = expected is Expected.HEAD and connection.is_full
        return bool(connection.input.buffer) and (connection.input.is_queued or waits_for_peer)

    def vanish(self, reason: Failure) -> None:
        """Remove everything of a lost connection."""
        connection = self._connection
        self.is_over = True
        self._site.remove(connection)
        self._producer.unregisterProducer()  # TLS would still refer to the connection
        self.lingering.end()
        self.timeout.end()
        connection.input.close()
        try:
            connection.drop_requests(reason)
        finally:
            self._site.notify_if_empty()

    # Lingering

    def linger(self) -> None:
        """Read and drop the rest of the content, after a response that did not wait for it."""
        connection = self._connection
        if self.is_half_closed:  # there is nothing to drop, and perhaps no socket any more
            (connection.loseConnection if self.lost is None else self.abort)()
            return
        self.lingering.begin(self._give_up)
        connection.send_buffered()
        if not connection.persistent:
            limit_buffer(connection.transport)
            if connection.is_plain_tcp:
                connection.transport.loseWriteConnection()  # the peer sees the end of the response
            if unread_bytes(connection.transport) >= PIECE_BYTES:
                self._drop_much()
                if self.lingering.is_waiting:
                    self._reading.pause()
        if self._site.is_closing:
            self.lingering.shorten(LAST_LINGER_S)

    def discard(self, size: int) -> None:
        """Count `size` dropped bytes. If the connection lingers, pause it until the client's next
        turn to have input dropped.
        """
        self.lingering.count(size)
        if not self.lingering.is_on or self.lingering.is_waiting:
            return
        connection = self._connection
        # TLS delivers at most 16 KiB at a time.
        if size >= PIECE_BYTES or size + unread_bytes(connection.transport) >= PIECE_BYTES:
            self._drop_much()
        if not self.lingering.is_waiting:
            self.lingering.wait()
            self._site.discard_queue.add(connection.client_key, self._on_turn)
        self._reading.pause()

    def _on_turn(self) -> bool:
        if self.is_over:
            return False
        self._site.queue.make_room(DROP_TURNS)
        self._resume()
        return True

    def _drop_much(self) -> None:
        """There is much to drop: wait if too many connections of the client drop much."""
        connection = self._connection
        # Connections that were not admitted have a limit of their own.
        if not connection.persistent and self._site.is_admitted(connection):
            self.lingering.enter(connection.client_key, self._resume, self._close_without_dropping)

    def _close_without_dropping(self) -> None:
        """Close as soon as the kernel has taken the response, though the peer may send more."""
        connection = self._connection
        connection.watch_for_stall()
        self._producer.unregisterProducer()
        below_tls(connection.transport).loseConnection()

    def _resume(self) -> None:
        self.lingering.resume()
        self._reading.resume()

    def _give_up(self) -> None:
        connection = self._connection
        self.lingering.end()
        connection.input.break_framing()
        if connection.persistent and not self.is_half_closed:
            # The response promised to keep the connection, so the client has to be told otherwise.
            connection.requests.clear()
            self.refuse(TooSlow("the content"))
            self.lingering.shorten(LAST_LINGER_S)  # it had its time
        else:
            connection.loseConnection()

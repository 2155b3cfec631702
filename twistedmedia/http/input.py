"""The input of a server connection: the received bytes, parsed in steps.

Twisted parses heads line by line and less strictly, keeps an unlimited amount of input while a
response waits for its reader, and takes all input at once. Here one step takes one head, and
content for about as long. The rest waits for the client's next turn in the queue of the site.
"""

from __future__ import annotations

from enum import Enum
from weakref import ref

from twistedmedia.errors import GaveWay, Malformed, MediaError
from twistedmedia.fairness.loop_queue import PIECE_BYTES
from twistedmedia.http.addresses import rate_limit_key
from twistedmedia.http.closing import Closing
from twistedmedia.http.framing import ChunkedDecoder, FramingError, LengthDecoder
from twistedmedia.http.heads import HeadReader
from twistedmedia.http.interfaces import Connection, Expected
from twistedmedia.http.reading import Reading

# How much of the next requests is buffered before the current response is sent. More stays in the
# kernel, and so with the peer.
PIPELINED_BYTES = 16 << 10
# Received at a time from a peer that sends tiny chunks, because it waits in memory for its turn.
DENSE_BYTES = 4 << 10
_SMALL_CHUNKS = "you send many small chunks; send larger chunks, or fewer requests at a time"

# BROKEN: the end of the content cannot be found. CLOSED: all input is dropped.
_State = Enum("_State", "OPEN BROKEN CLOSED")


class Input:
    """The received bytes of one connection."""

    def __init__(self, connection: Connection, reading: Reading, closing: Closing) -> None:
        self.buffer = b""
        self.content_received = 0  # bytes of all content, as it is coded
        self.is_queued = False  # the next step waits for the client's turn
        self.is_busy = False  # a step is running
        self._ref = ref(connection)
        self._site = connection.site
        self._transport = connection.transport
        self._request_piece = getattr(connection.transport, "bufferSize", 1 << 16)
        self._reading = reading
        self._closing = closing
        self._lingering = closing.lingering
        self._state = _State.OPEN
        self._heads = HeadReader()
        self._decoder: LengthDecoder | ChunkedDecoder

    @property
    def _connection(self) -> Connection:
        connection = self._ref()
        assert connection is not None
        return connection

    @property
    def is_open(self) -> bool:
        """Whether the input has a meaning."""
        return self._state is _State.OPEN

    @property
    def is_closed(self) -> bool:
        """Whether all input is dropped."""
        return self._state is _State.CLOSED

    @property
    def has_begun_head(self) -> bool:
        """Whether a part of a head was received."""
        return self._heads.has_begun

    def close(self) -> None:
        """Drop the buffer, and all input from now on."""
        self._state = _State.CLOSED
        self.buffer = b""

    def break_framing(self) -> None:
        """The end of the content in progress cannot be found any more."""
        if self._state is _State.OPEN:
            self._state = _State.BROKEN

    def begin_content(self, length: int | None) -> None:
        """Expect content of `length` bytes. None means the chunked coding."""
        now_s = self._site.reactor.seconds
        self._decoder = ChunkedDecoder(now_s) if length is None else LengthDecoder(length, now_s)

    def receive(self, data: bytes) -> None:
        """Take `data` now if there is time, otherwise when it is the client's turn."""
        if self.is_closed or (not self.is_open and self._lingering.is_on):
            self._closing.discard(len(data))
            return
        self.buffer += data
        if not (self.is_busy or self.is_queued):
            expected = self._connection.expected
            if expected is Expected.CONTENT and not self._decoder.is_dense:
                self.take()  # which takes next to no time
            elif self._site.queue.has_time:
                self._site.queue.do(self.take)
            else:
                self.queue(is_first=expected is Expected.HEAD)
        if self._has_enough():
            self._reading.input_waits = True
            self._reading.pause()

    def take(self) -> None:
        """Run one step: take one head, and content for about as long."""
        connection = self._connection
        self.is_busy = True
        has_head = False
        try:
            while self.buffer and not (self.is_closed or self.is_queued):
                expected = connection.expected
                if expected is Expected.NEXT_REQUEST:
                    break
                if expected is Expected.CONTENT:
                    if has_head and self._decoder.is_dense and len(self.buffer) > DENSE_BYTES:
                        self.queue()
                    else:
                        self._take_content()
                elif connection.is_full:
                    break
                elif has_head:
                    self.queue()
                elif self._take_head():
                    has_head = True
                else:
                    break
        finally:
            self.is_busy = False
        if self.is_closed:
            self.buffer = b""
        if self._reading.input_waits and not self._has_enough():
            self._reading.input_waits = False
            self._reading.resume()
        if self._closing.is_half_closed:
            self._closing.end_when_done()

    def queue(self, *, is_first: bool = False) -> None:
        """Run the next step when it is the client's turn."""
        if not self.is_queued:
            self.is_queued = True
            self._reading.peer_wait.begin()
            connection = self._connection
            if connection.expected is Expected.HEAD:  # by a proxy it may be another client's
                host = self._site.client_host_of_head(connection.peer_host, self.buffer)
                client = rate_limit_key(host)
            else:
                client = connection.client_key
            self._site.queue.add(client, self._on_turn, is_first=is_first)

    def _on_turn(self) -> None:
        self.is_queued = False
        self._reading.peer_wait.end()
        if not self._closing.is_over:
            try:
                self.take()
            except BaseException:
                self._closing.abort()  # otherwise the connection would never end
                raise

    def _has_enough(self) -> bool:
        """Whether the peer has to wait until more of the buffer is parsed."""
        is_long = len(self.buffer) > PIPELINED_BYTES
        if not (self.is_queued or is_long):
            return False
        connection = self._connection
        expected = connection.expected
        if self.is_queued:
            return is_long or expected is Expected.CONTENT
        return expected is Expected.NEXT_REQUEST or connection.is_full

    def _take_head(self) -> bool:
        """Take a head, or an empty line before it. Returns whether there was a complete head."""
        connection = self._connection
        had_begun = self._heads.has_begun
        try:
            head, self.buffer = self._heads.take(self.buffer)
        except MediaError as error:
            self._closing.refuse(error)
            return False
        if head is None:
            if self._heads.has_begun and not had_begun:
                self._site.request_timeouts.await_head(connection)
            return False
        connection.begin_request(head)
        return True

    def _take_content(self) -> None:
        data, self.buffer = self.buffer, b""
        if not self.is_open:
            return
        connection = self._connection
        request = connection.requests[-1]
        try:
            content, size, is_end = self._decoder.feed(data)
        except FramingError as error:
            self._lingering.count(len(data))
            if error.content:
                request.handleContentChunk(error.content)
            received = request.body.received if request.body else 0
            where = f"{self._decoder.description} was rejected after {received} bytes"
            connection.break_content(Malformed(f"{where}: {error}"))
            return
        self.content_received += size
        self.buffer = data[size:]
        if self._lingering.is_on and self._decoder.is_dense and not connection.persistent:
            self.break_framing()  # to find the end of the content is not worth its cost
        self.choose_piece()
        if content:
            request.handleContentChunk(content)
        if is_end:
            connection.allContentReceived()
            return
        is_flood = self._decoder.is_flood and self.is_open
        if is_flood and self._site.queue.is_crowded_by(connection.client_key):
            connection.break_content(GaveWay(_SMALL_CHUNKS))
        self._closing.discard(size)
        if self.buffer:
            self.queue()

    def choose_piece(self) -> None:
        """Set how many bytes of content the transport receives at a time."""
        length = self._connection.length
        if length is None and self._decoder.is_dense and self.is_open:
            piece = DENSE_BYTES  # a piece of chunked coding can be thousands of chunks
        elif self._lingering.is_on:
            piece = PIECE_BYTES
        elif length is None:
            piece = self._request_piece
        else:
            piece = self._site.body_memory.piece
        self._transport.bufferSize = piece

    def expect_request(self) -> None:
        """Have the transport receive as many bytes at a time as for requests without content."""
        self._transport.bufferSize = self._request_piece

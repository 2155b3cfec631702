"""Content with backpressure, in both directions, and the errors that end a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.error import DNSLookupError as NoSuchHost
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss

from twistedmedia.client.bodies import MAX_UNREAD_BYTES, PIECE_BYTES, FileContent, ResponseContent
from twistedmedia.client.exceptions import LocalFailure, Unreachable
from twistedmedia.client.failures import translate

quick = settings(max_examples=50)


class File:
    """A file whose reads complete when the test calls `answer`."""

    path = "a.wav"

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads: list[tuple[int, int, Deferred[bytes]]] = []

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        self.reads.append((offset, size, Deferred()))
        return self.reads[-1][2]

    def answer(self) -> None:
        offset, size, reading = self.reads.pop(0)
        reading.callback(self.content[offset : offset + size])


class Consumer:
    """Collects pieces. `when_taken` is called after each of them."""

    def __init__(self) -> None:
        self.taken = b""
        self.when_taken: Callable[[], None] = lambda: None

    def write(self, piece: bytes) -> None:
        self.taken += piece
        self.when_taken()


def sending(content: bytes, start: int = 0) -> tuple[File, Consumer, FileContent, list[Any]]:
    file: Any = File(content)
    consumer: Any = Consumer()
    body = FileContent(file, start, len(content) - start, lambda size: None)
    outcome: list[Any] = []
    body.startProducing(consumer).addBoth(outcome.append)
    return file, consumer, body, outcome


@pytest.mark.parametrize("start", [0, 1, PIECE_BYTES])
@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_a_file_is_sent_completely_in_pieces(size: int, start: int) -> None:
    content = bytes(range(251)) * ((size + start) // 251 + 1)
    file, consumer, body, outcome = sending(content[: size + start], start)
    assert body.length == size
    while file.reads:
        file.answer()
    assert consumer.taken == content[start : size + start]
    assert outcome == [None]


def test_one_piece_is_read_ahead_of_a_slow_consumer() -> None:
    file, consumer, body, outcome = sending(bytes(9 * PIECE_BYTES))
    consumer.when_taken = body.pauseProducing
    file.answer()
    assert len(consumer.taken) == PIECE_BYTES
    file.answer()  # the piece that is read ahead
    assert file.reads == []
    assert len(consumer.taken) == PIECE_BYTES
    body.resumeProducing()
    assert len(consumer.taken) == 2 * PIECE_BYTES
    assert len(file.reads) == 1
    assert outcome == []


def test_a_stopped_producer_sends_nothing_and_does_not_fire() -> None:
    file, consumer, body, outcome = sending(bytes(2 * PIECE_BYTES))
    body.stopProducing()
    file.answer()
    body.resumeProducing()
    assert (consumer.taken, file.reads, outcome) == (b"", [], [])


def test_a_consumer_can_stop_the_producer_during_a_write() -> None:
    file, consumer, body, outcome = sending(bytes(PIECE_BYTES))
    consumer.when_taken = body.stopProducing
    file.answer()
    assert outcome == []


def test_a_file_that_is_unreadable_or_became_shorter_is_a_failure() -> None:
    file, _, _, outcome = sending(b"1234")
    file.content = b""
    file.answer()
    assert outcome[0].check(LocalFailure)
    file, _, _, outcome = sending(b"1234")
    file.reads[0][2].errback(LocalFailure("a.wav: Input/output error"))
    assert outcome[0].getErrorMessage() == "a.wav: Input/output error"


class Transport:
    paused = stopped = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.stopped = True


def receiving() -> tuple[ResponseContent, Transport]:
    content, transport = ResponseContent(), Transport()
    it: Any = transport
    connect: Any = content.makeConnection
    connect(it)
    return content, transport


def result(reading: Deferred[list[bytes]]) -> Any:
    found: list[Any] = []
    reading.addBoth(found.append)
    return found[0] if found else None


def test_unread_content_pauses_the_connection() -> None:
    content, transport = receiving()
    content.dataReceived(bytes(MAX_UNREAD_BYTES - 1))
    assert not transport.paused
    content.dataReceived(b"x")
    assert transport.paused
    assert sum(map(len, result(content.read()))) == MAX_UNREAD_BYTES
    assert not transport.paused


@quick
@given(st.lists(st.one_of(st.binary(min_size=1), st.none())))
def test_content_is_read_completely_and_in_order(events: list[bytes | None]) -> None:
    """None in `events` is a read."""
    content, _ = receiving()
    taken: list[bytes] = []
    is_reading = has_ended = False

    def take(pieces: list[bytes]) -> None:
        nonlocal is_reading, has_ended
        is_reading, has_ended = False, not pieces
        taken.extend(pieces)

    def read() -> None:
        nonlocal is_reading
        if not is_reading:
            is_reading = True
            content.read().addCallback(take)

    for event in events:
        if event is None:
            read()
        else:
            content.dataReceived(event)
    content.connectionLost(Failure(ResponseDone()))
    while not has_ended:
        read()
        assert not is_reading
    assert taken == [event for event in events if event is not None]


def test_a_broken_connection_fails_the_reader() -> None:
    for comes_first in (True, False):
        content, _ = receiving()
        if comes_first:
            content.connectionLost(Failure(ConnectionLost()))
        reading = content.read()
        if not comes_first:
            content.connectionLost(Failure(ConnectionLost()))
        assert result(reading).check(ConnectionLost)


def test_a_cancelled_read_closes_the_connection() -> None:
    content, transport = receiving()
    reading = content.read()
    reading.cancel()
    assert result(reading).check(CancelledError)
    assert transport.stopped
    content.dataReceived(b"late")
    content.connectionLost(Failure(ConnectionDone()))


def wrapped(*errors: BaseException, kind: type[Exception] = ResponseFailed) -> Exception:
    made: Exception = kind([Failure(error) for error in errors])
    return made


UNTRUSTED = SSL.Error([("SSL routines", "", "certificate verify failed")])


@pytest.mark.parametrize(
    ("error", "reason", "was_sent", "is_temporary"),
    [
        (
            ConnectionRefusedError(),
            "the service at http://e cannot be reached: connection was",
            False,
            True,
        ),
        (NoSuchHost("x"), "the host name of the service at http://e is not known", False, True),
        (
            wrapped(ConnectionLost()),
            "the connection to the service at http://e broke: ",
            True,
            True,
        ),
        (
            wrapped(wrapped(ConnectionDone())),
            "the connection to the service at http://e broke: ",
            True,
            True,
        ),
        (ConnectionLost(), "the connection to the service at http://e broke: ", True, True),
        (SSL.Error([]), "the connection to the service at http://e broke: ", True, True),
        (
            PotentialDataLoss(),
            "the response of the service at http://e does not say where",
            True,
            False,
        ),
        (
            wrapped(UNTRUSTED, kind=ResponseNeverReceived),
            "the certificate of the service at http://e is not",
            False,
            False,
        ),
    ],
    ids=repr,
)
def test_errors_of_the_network_have_plain_reasons(
    error: BaseException, reason: str, was_sent: bool, is_temporary: bool
) -> None:
    told = translate(error, "http://e", expired=False)
    assert isinstance(told, Unreachable)
    assert told.reason.startswith(reason)
    assert (told.was_sent, told.is_temporary) == (was_sent, is_temporary)


def test_a_cancellation_differs_from_a_timeout() -> None:
    for error in (CancelledError(), wrapped(CancelledError()), wrapped(wrapped(CancelledError()))):
        assert isinstance(translate(error, "http://e", expired=False), CancelledError)
        assert isinstance(translate(error, "http://e", expired=True), Unreachable)


def test_a_failure_of_the_local_file_takes_precedence() -> None:
    error = LocalFailure("a.wav: Input/output error")
    assert translate(wrapped(error, ConnectionLost()), "http://e", expired=False) is error
    fault = ValueError("ours")
    assert translate(fault, "http://e", expired=False) is fault

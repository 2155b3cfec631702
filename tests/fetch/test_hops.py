"""The state of a hop: when its phases ended, and how its connection ended."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from twistedmedia.fairness.loop_queue import LoopQueue
from twistedmedia.fetch.hops import Connection, ConnectionEnd, ConnectionFactory, Hop, Phase
from twistedmedia.fetch.upstream_errors import translate


def connection_of(hop: Hop) -> Connection:
    clock = Clock()
    factory = ConnectionFactory(Factory.forProtocol(Protocol), hop, LoopQueue(clock))
    connection = factory.buildProtocol(None)
    connection.makeConnection(StringTransport())
    return connection


def test_a_phase_ends_once() -> None:
    clock = Clock()
    hop = Hop(clock.seconds)
    hop.end_phase(Phase.FIRST_BYTE)
    clock.advance(1)
    hop.end_phase(Phase.FIRST_BYTE)
    assert hop.phase_ends == {Phase.FIRST_BYTE: 0.0}


@pytest.mark.parametrize(
    ("reason", "end"),
    [
        (ConnectionDone(), ConnectionEnd.CLOSED_BY_PEER),
        (ConnectionLost(), ConnectionEnd.BROKEN),
    ],
)
def test_a_hop_knows_how_its_connection_ended(reason: Exception, end: ConnectionEnd) -> None:
    hop = Hop(Clock().seconds)
    connection = connection_of(hop)
    assert hop.connection_end is ConnectionEnd.OPEN
    connection.connectionLost(Failure(reason))
    assert hop.connection_end is end
    connection.loseConnection()
    assert hop.connection_end is end


def test_a_connection_that_we_closed_is_not_reported_as_closed_by_the_upstream() -> None:
    hop = Hop(Clock().seconds)
    connection = connection_of(hop)
    connection.loseConnection()
    connection.connectionLost(Failure(ConnectionDone()))
    assert hop.connection_end is ConnectionEnd.CLOSED_BY_US
    error = ResponseFailed([Failure(ConnectionDone())])
    assert str(translate(error, hop)) == "the upstream does not respond in HTTP"
    hop.connection_end = ConnectionEnd.CLOSED_BY_PEER
    assert "closed the connection" in str(translate(error, hop))

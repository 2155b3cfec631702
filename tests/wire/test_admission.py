"""How many may come in, and what those are told who may not."""

from __future__ import annotations

import resource

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.web.resource import Resource

from tests.wire.connection import NO_ADDRESS, Connection, SocketConnection
from tests.wire.test_site import GET, GOT, Serving, assert_refused
from twistedmedia.errors import Busy, MediaError, TooManyConnections
from twistedmedia.wire.admission import Admission, Bounds
from twistedmedia.wire.lingering import LINGER_S
from twistedmedia.wire.proxies import LOCAL, NO_PROXIES, parse_proxies
from twistedmedia.wire.site import MediaSite

HERE, THERE = "192.0.2.1", "192.0.2.2"
SILENTLY = 128  # so many are turned away with an answer at a time


def kinds(admission: Admission, *hosts: str) -> list[type[MediaError] | None]:
    """What those are told who come one after the other."""
    refusals = [admission.enter(host, None) for host in hosts]
    return [None if refusal is None else type(refusal) for refusal in refusals]


def test_the_bounds_are_wide_unless_given() -> None:
    assert Bounds() == Bounds(connections=10_000, per_address=2_000)


def test_as_many_come_in_as_may_and_no_more() -> None:
    admission = Admission(Bounds(connections=3), NO_PROXIES)
    assert kinds(admission, "a", "b", "c", "d", LOCAL) == [None] * 3 + [Busy] * 2


def test_as_many_come_in_from_one_address_as_may_and_others_do_not_suffer() -> None:
    admission = Admission(Bounds(per_address=2), NO_PROXIES)
    assert kinds(admission, HERE, HERE, HERE, THERE) == [None, None, TooManyConnections, None]


def test_whoever_leaves_makes_room() -> None:
    admission = Admission(Bounds(connections=3, per_address=2), NO_PROXIES)
    assert kinds(admission, HERE, HERE, THERE) == [None] * 3
    admission.leave(HERE)
    assert kinds(admission, HERE, HERE) == [None, Busy]
    admission.leave(HERE)
    admission.leave(HERE)
    assert kinds(admission, HERE, THERE, THERE) == [None, Busy, Busy]


def test_those_who_are_told_to_go_count_until_they_have() -> None:
    """Each of them is a descriptor."""
    admission = Admission(Bounds(connections=2), NO_PROXIES)
    assert kinds(admission, "a", "b", "c") == [None, None, Busy]
    admission.leave("a")
    assert kinds(admission, "a") == [Busy]
    admission.leave("c")
    admission.leave("a")
    assert kinds(admission, "a") == [None]


def test_nothing_is_kept_of_those_who_have_left() -> None:
    admission = Admission(Bounds(), NO_PROXIES)
    for host in (HERE, "2001:db8::1", LOCAL):
        admission.enter(host, None)
        admission.leave(host)
    assert not admission._by_address


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::", True),
        ("2001:db8:0:1::1", "2001:DB8:0:1:0:0:0:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("2001:db8:0:1:8000::", "2001:db8:0:1::", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:c000:201", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::1", "127.0.0.1", False),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_an_address_is_what_a_provider_gives_to_one_customer(
    one: str, other: str, are_one: bool
) -> None:
    second = TooManyConnections if are_one else None
    admission = Admission(Bounds(per_address=1), NO_PROXIES)
    assert kinds(admission, one, other) == [None, second]
    admission.leave(one)
    admission.leave(other)
    assert kinds(admission, other, one) == [None, second]


@pytest.mark.parametrize("host", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1", LOCAL])
def test_proxies_and_those_on_unix_sockets_are_many(host: str) -> None:
    """Although the latter are not trusted in what they say; but in all there are no more."""
    proxies = parse_proxies(["10.0.0.0/8", "fd00::/8"])
    admission = Admission(Bounds(connections=4, per_address=1), proxies)
    assert kinds(admission, *[host] * 5) == [None] * 4 + [Busy]


# Descriptors


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The soft limit of descriptors."""
    limits = [1024]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits[0], 1 << 20))
    return limits


@pytest.mark.parametrize(
    ("soft", "first_refused"),
    [(1024, 960), (256, 240), (64, 48), (65536, 61440), (20, 4), (resource.RLIM_INFINITY, None)],
)
def test_near_the_limit_of_descriptors_nobody_comes_in(
    limit: list[int], soft: int, first_refused: int | None
) -> None:
    """Case 25. The rest is for the files of those who are in."""
    limit[0] = soft
    admission = Admission(Bounds(), NO_PROXIES)
    if first_refused is None:
        assert admission.enter(HERE, 1 << 30) is None
    else:
        assert admission.enter(HERE, first_refused - 1) is None
        assert isinstance(admission.enter(HERE, first_refused), Busy)
        assert isinstance(admission.enter(LOCAL, first_refused), Busy)


def test_the_limit_is_the_one_of_now(limit: list[int]) -> None:
    """`prlimit` may have changed it."""
    admission = Admission(Bounds(), NO_PROXIES)
    assert isinstance(admission.enter(HERE, 1000), Busy)
    limit[0] = 2048
    assert admission.enter(HERE, 1000) is None


# Over a Site


def busy(serving: Serving, connection: Connection, status: int, code: int) -> None:
    (answer,) = connection.answers()
    assert_refused(answer, status, code)
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["cache-control"] == "no-store"
    assert connection.half_closed


@pytest.mark.parametrize(
    ("bounds", "status", "code"),
    [(Bounds(connections=2), 503, 514), (Bounds(per_address=2), 429, 429)],
    ids=["in all", "from one address"],
)
def test_who_cannot_stay_is_told_when_to_come_back_and_goes(
    bounds: Bounds, status: int, code: int
) -> None:
    serving = Serving(bounds=bounds)
    inside = [serving.connect(), serving.connect()]
    turned_away = serving.connect()
    turned_away.send(GET)
    busy(serving, turned_away, status, code)
    turned_away.send(GET * 1000)
    serving.clock.advance(LINGER_S)
    assert (turned_away.connected, turned_away.aborted) == (False, False)
    assert len(turned_away.answers()) == 1
    for connection in inside:
        connection.send(GET)
        assert connection.answers()[0].content == GOT
    inside.pop().leave()
    next_one = serving.connect()
    next_one.send(GET)
    assert next_one.statuses() == [200]
    for connection in (*inside, next_one):
        connection.leave()
    serving.assert_nothing_stays()


def test_of_many_who_cannot_stay_most_are_turned_away_without_a_word() -> None:
    """An answer costs more than it, and five seconds of a descriptor."""
    serving = Serving(bounds=Bounds(connections=1))
    inside = serving.connect()
    crowd = [serving.connect() for _ in range(SILENTLY + 10)]
    serving.clock.advance(0)
    told, others = crowd[:SILENTLY], crowd[SILENTLY:]
    assert all(each.statuses() == [503] for each in told)
    assert all(each.aborted and not each.connected and not each.received for each in others)
    told[0].leave()
    again = serving.connect()
    serving.clock.advance(0)
    assert again.statuses() == [503], "as soon as there is room, they are told again"
    serving.clock.advance(LINGER_S)
    assert [each.connected for each in (inside, again, *crowd)] == [True] + [False] * 139
    inside.leave()
    serving.assert_nothing_stays()


def test_addresses_are_counted_as_they_come_and_go() -> None:
    serving = Serving(bounds=Bounds(per_address=1))
    peers = [IPv4Address("TCP", host, 1) for host in (HERE, THERE)]
    connections = [serving.connect(peer=peer) for peer in (*peers, *peers)]
    serving.clock.advance(0)
    assert [each.statuses() for each in connections] == [[], [], [429], [429]]
    for connection in connections:
        connection.leave()
    connections = [serving.connect(peer=peer) for peer in peers]
    serving.clock.advance(0)
    assert [each.received for each in connections] == [b"", b""]
    for connection in connections:
        connection.leave()
    serving.assert_nothing_stays()


@pytest.mark.parametrize("peer", [NO_ADDRESS, IPv4Address("TCP", "10.0.0.1", 1)])
def test_proxies_are_many_on_a_site(peer: object) -> None:
    serving = Serving(bounds=Bounds(per_address=1), proxies=parse_proxies(["10.0.0.1"]))
    connections = [serving.connect(peer=peer) for _ in range(10)]
    for connection in connections:
        connection.send(GET)
        assert connection.statuses() == [200]
        connection.leave()
    serving.assert_nothing_stays()


def test_a_site_asks_for_the_descriptor_of_a_connection(limit: list[int]) -> None:
    clock = Clock()
    site = MediaSite(Resource(), reactor=clock)
    connections = [SocketConnection(site, clock, descriptor=number) for number in (959, 960)]
    clock.advance(0)
    assert [each.statuses() for each in connections] == [[], [503]]
    for connection in connections:
        connection.leave()
    assert clock.getDelayedCalls() == []

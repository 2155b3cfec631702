"""The limits of connections, and the responses to refused ones."""

from __future__ import annotations

import resource

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.web.resource import Resource

from tests.http.connection import NO_ADDRESS, Connection, SocketConnection
from tests.http.test_site import GET, GOT, Serving, assert_refused, put
from twistedmedia.errors import Busy, MediaError, TooManyConnections
from twistedmedia.fairness.pace import RECENT_S
from twistedmedia.fairness.shares import Share
from twistedmedia.http.addresses import LOCAL, NO_PROXIES, Proxies, parse_proxies
from twistedmedia.http.admission import Admission, ConnectionLimits
from twistedmedia.http.lingering import LINGER_S
from twistedmedia.http.site import MediaSite

HERE, THERE = "192.0.2.1", "192.0.2.2"
SILENTLY = 128  # connections that are refused with a response at a time
IDLE_FOR_S = RECENT_S + 0.1


class Peer:
    """A connection: idle, with something to send, or of a pace that is not known. It may take a
    response meanwhile.
    """

    transport = None

    def __init__(self, pace: float | None = None) -> None:
        self.told = 0
        self.is_full = False  # it has not taken all of the response
        self.sentLength = 0  # bytes that the peer has taken
        self.requests = [self]
        self._pace = pace

    def pace(self) -> float | None:
        return self._pace

    def give_way(self) -> None:
        self.told += 1


class Entrance:
    """An admission, and the shares of admitted connections."""

    def __init__(self, bounds: ConnectionLimits, proxies: Proxies = NO_PROXIES) -> None:
        self.clock = Clock()
        self.admission = Admission(bounds, proxies, self.clock.seconds)
        self._inside: dict[str, list[Share]] = {}

    def enter(
        self, host: str, descriptor: int | None = None, peer: Peer | None = None
    ) -> type[MediaError] | None:
        """Add a connection. Returns the kind of its refusal, or None."""
        try:
            share = self.admission.enter(host, descriptor, peer or Peer())
        except MediaError as refusal:
            return type(refusal)
        self._inside.setdefault(host, []).append(share)
        return None

    def kinds(self, *hosts: str) -> list[type[MediaError] | None]:
        """The responses to connections that are made one after the other."""
        return [self.enter(host) for host in hosts]

    def leave(self, host: str) -> None:
        """An admitted connection ends."""
        self._inside[host].pop().release()


def test_the_default_limits_are_high() -> None:
    assert ConnectionLimits() == ConnectionLimits(connections=10_000, per_address=2_000)


def test_connections_are_admitted_up_to_the_limit() -> None:
    door = Entrance(ConnectionLimits(connections=3))
    assert door.kinds("a", "b", "c", "d", LOCAL) == [None] * 3 + [Busy] * 2


def test_connections_of_one_address_are_admitted_up_to_its_limit() -> None:
    door = Entrance(ConnectionLimits(per_address=2))
    assert door.kinds(HERE, HERE, HERE, THERE) == [None, None, TooManyConnections, None]


def test_a_connection_that_ends_makes_room() -> None:
    door = Entrance(ConnectionLimits(connections=3, per_address=2))
    assert door.kinds(HERE, HERE, THERE) == [None] * 3
    door.leave(HERE)
    assert door.kinds(HERE, HERE, "a") == [None, TooManyConnections, Busy]
    door.leave(HERE)
    door.leave(HERE)
    assert door.kinds(HERE, THERE, "a") == [None, None, Busy]


def test_a_refused_connection_takes_no_place() -> None:
    door = Entrance(ConnectionLimits(connections=2))
    assert door.kinds("a", "b", "c") == [None, None, Busy]
    door.leave("a")
    assert door.kinds("a") == [None]


def test_nothing_is_kept_of_connections_that_ended() -> None:
    door = Entrance(ConnectionLimits())
    for host in (HERE, "2001:db8::1", LOCAL):
        assert door.enter(host) is None
        door.leave(host)
    figures = {"used": 0, "total": 10_000, "reserve": 1250, "callers": 0, "largest": 0}
    assert door.admission.shares.figures == figures


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
def test_an_address_is_the_range_that_a_provider_assigns_to_one_customer(
    one: str, other: str, are_one: bool
) -> None:
    second = TooManyConnections if are_one else None
    door = Entrance(ConnectionLimits(per_address=1))
    assert door.kinds(one, other) == [None, second]
    door.leave(one)
    if not are_one:
        door.leave(other)
    assert door.kinds(other, one) == [None, second]


@pytest.mark.parametrize("host", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1", LOCAL])
def test_proxies_and_peers_on_unix_sockets_have_no_limit_of_their_own(host: str) -> None:
    """Although the latter are not trusted in what they say; but in all there are no more."""
    proxies = parse_proxies(["10.0.0.0/8", "fd00::/8"])
    door = Entrance(ConnectionLimits(connections=4, per_address=1), proxies)
    assert door.kinds(*[host] * 5) == [None] * 4 + [Busy]


# Descriptors


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The soft limit of descriptors."""
    limits = [1024]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits[0], 1 << 20))
    return limits


@pytest.mark.parametrize("soft", [20, 64, 100, 256, 1024, 4096, 15_000, 20_000])
def test_connections_leave_descriptors_for_files(limit: list[int], soft: int) -> None:
    """Case 90: whatever the limit is, all connections together, those of newcomers and refused
    ones included, take at most three quarters, and refused ones half of what is reserved.
    """
    limit[0] = soft
    admission = Entrance(ConnectionLimits()).admission
    connections, refused = admission.shares.total, admission.limits.refused
    assert 1 <= connections <= 10_000
    assert connections + admission.shares.reserve + refused <= soft * 3 // 4
    assert refused <= max(soft // 32, 8)
    assert admission.limits.per_address <= soft // 2


@pytest.mark.parametrize(
    "bounds",
    [
        ConnectionLimits(),
        ConnectionLimits(10),
        ConnectionLimits(9, 1),
        ConnectionLimits(12_000, 12_000),
        ConnectionLimits(1_000_000),
    ],
)
def test_a_sufficient_limit_of_descriptors_lowers_nothing(bounds: ConnectionLimits) -> None:
    limit = bounds.descriptors
    lowered = bounds.within(limit)
    assert lowered.connections == bounds.connections
    assert min(lowered.per_address, bounds.connections) == min(
        bounds.per_address, bounds.connections
    )
    assert bounds.within(None) == bounds


def test_one_address_leaves_places_to_others_when_descriptors_are_few(limit: list[int]) -> None:
    """Case 90."""
    limit[0] = 256
    door = Entrance(ConnectionLimits())
    told = [door.enter(HERE) for _ in range(300)]
    assert told == [None] * 128 + [TooManyConnections] * 172
    assert door.kinds(*[THERE] * 35) == [None] * 35


@pytest.mark.parametrize(
    ("soft", "first_refused"),
    [(1024, 960), (256, 240), (64, 48), (65536, 61440), (20, 4), (resource.RLIM_INFINITY, None)],
)
def test_no_connection_is_admitted_near_the_limit_of_descriptors(
    limit: list[int], soft: int, first_refused: int | None
) -> None:
    """Case 25. The rest is for the files of admitted connections."""
    limit[0] = soft
    door = Entrance(ConnectionLimits())
    if first_refused is None:
        assert door.enter(HERE, 1 << 30) is None
    else:
        assert door.enter(HERE, first_refused - 1) is None
        assert door.enter(HERE, first_refused) is Busy
        assert door.enter(LOCAL, first_refused) is Busy


def test_the_limit_is_the_one_of_now(limit: list[int]) -> None:
    """`prlimit` may change it."""
    door = Entrance(ConnectionLimits())
    assert door.enter(HERE, 1000) is Busy
    limit[0] = 2048
    assert door.enter(HERE, 1000) is None
    assert door.admission.shares.total == 1308


def test_of_few_descriptors_few_are_taken_by_refused_connections(limit: list[int]) -> None:
    """Case 90: lingering connections must not use the reserved descriptors."""
    limit[0] = 256
    serving = Serving(connection_limits=ConnectionLimits(connections=1))
    inside = serving.connect()
    crowd = [serving.connect() for _ in range(300)]
    serving.clock.advance(0)
    assert [each.statuses() for each in crowd if each.connected] == [[503]] * 8
    for connection in (inside, *crowd):
        connection.leave()
    serving.assert_nothing_stays()


def test_the_socket_of_a_connection_that_is_refused_without_a_word_is_closed_at_once(
    limit: list[int],
) -> None:
    """Case 90: hundreds may arrive in one turn of the event loop."""
    limit[0] = 256
    clock = Clock()
    site = MediaSite(Resource(), reactor=clock, connection_limits=ConnectionLimits(connections=1))
    crowd = [SocketConnection(site, clock) for _ in range(300)]
    assert sum(each.connected for each in crowd) == 1 + 8
    clock.advance(0)
    for each in crowd:
        each.leave()
    assert not site.channels
    assert clock.getDelayedCalls() == []


# Idle connections of the largest share give way


def test_when_connections_are_used_up_an_idle_one_of_the_largest_share_is_closed() -> None:
    """Case 86."""
    door = Entrance(ConnectionLimits(connections=4))
    busy, idle, other = Peer(None), Peer(0.0), Peer(0.0)
    for host, peer in ((HERE, busy), (HERE, idle), (HERE, Peer()), (THERE, other)):
        assert door.enter(host, peer=peer) is None
    assert door.kinds(HERE, "192.0.2.3") == [Busy, None]
    assert (busy.told, idle.told, other.told) == (0, 1, 0)


def test_near_the_limit_of_descriptors_one_is_closed_for_the_next(limit: list[int]) -> None:
    """Case 90."""
    door = Entrance(ConnectionLimits())
    peers = [Peer(0.0) for _ in range(10)]
    for descriptor, peer in enumerate(peers, start=950):
        assert door.enter(HERE, descriptor, peer) is None
    assert door.enter(HERE, 960) is Busy
    assert door.enter(THERE, 960) is None
    assert [peer.told for peer in peers] == [1] + [0] * 9


@pytest.mark.parametrize("host", ["10.1.2.3", LOCAL])
def test_proxies_do_not_give_way(host: str) -> None:
    door = Entrance(ConnectionLimits(connections=3), parse_proxies(["10.0.0.0/8"]))
    peers = [Peer(0.0) for _ in range(3)]
    assert [door.enter(host, peer=peer) for peer in peers] == [None] * 3
    assert door.enter(HERE) is Busy
    assert sum(peer.told for peer in peers) == 0


def test_when_every_address_has_one_an_idle_one_is_closed_for_a_newcomer() -> None:
    """Case 86."""
    door = Entrance(ConnectionLimits(connections=4), parse_proxies(["10.0.0.0/8"]))
    proxy, busy, idle, other = Peer(0.0), Peer(None), Peer(0.0), Peer(0.0)
    for host, peer in (("10.1.2.3", proxy), (HERE, busy), (THERE, idle), ("192.0.2.3", other)):
        assert door.enter(host, peer=peer) is None
    assert door.enter("192.0.2.4") is None
    assert [peer.told for peer in (proxy, busy, idle, other)] == [0, 0, 1, 0]


@pytest.mark.parametrize(("bytes_per_s", "told"), [(8000, 0), (10, 1), (0, 1)])
def test_a_connection_that_takes_a_response_is_not_idle(bytes_per_s: int, told: int) -> None:
    """Case 86. The kernel continues to send after the last byte was written."""
    door, peer = Entrance(ConnectionLimits(connections=2)), Peer(0.0)
    peer.is_full = True
    assert door.enter(HERE, peer=peer) is None
    assert door.enter(HERE) is None
    for second in range(5):
        door.clock.advance(1)
        peer.sentLength += bytes_per_s
        door.enter(THERE)
        assert peer.told == 0 or second >= RECENT_S
    assert peer.told == told


def test_others_give_way_to_a_proxy() -> None:
    door = Entrance(ConnectionLimits(connections=3), parse_proxies(["10.0.0.0/8"]))
    peers = [Peer(0.0) for _ in range(3)]
    assert [door.enter(HERE, peer=peer) for peer in peers] == [None] * 3
    assert door.kinds("10.1.2.3", "10.1.2.3") == [None, None]
    assert [peer.told for peer in peers] == [1, 1, 0]


# Over a Site


def test_on_a_site_an_idle_connection_of_the_largest_share_is_closed_for_a_newcomer() -> None:
    """Case 86: also one that has sent half a head, but not a new one."""
    serving = Serving(connection_limits=ConnectionLimits(connections=4))
    here, there = (IPv4Address("TCP", host, 1) for host in (HERE, THERE))
    silent, half, idle = (serving.connect(peer=here) for _ in range(3))
    half.send(b"GET / HT")
    idle.send(GET)
    serving.clock.advance(IDLE_FOR_S)
    fresh = serving.connect(peer=here)
    newcomers = [serving.connect(peer=there) for _ in range(3)]
    serving.clock.advance(0)
    assert [each.connected for each in (silent, half, idle, fresh)] == [False, False, True, True]
    assert newcomers[2].statuses() == [503]
    for each in newcomers[:2]:
        each.send(GET)
        assert each.statuses() == [200]
    for each in (idle, fresh, *newcomers):
        each.leave()
    serving.clock.advance(LINGER_S)
    serving.assert_nothing_stays()


def test_on_a_site_a_slow_request_of_the_largest_share_ends_for_a_newcomer() -> None:
    """Case 86."""
    serving = Serving(connection_limits=ConnectionLimits(connections=2))
    here, there = (IPv4Address("TCP", host, 1) for host in (HERE, THERE))
    slow, fast = (serving.connect(peer=here) for _ in range(2))
    for each in (slow, fast):
        each.send(put(1 << 20))
    for _ in range(8):
        slow.send(b"x" * 32)
        fast.send(b"x" * 1024)
        serving.clock.advance(0.5)
    newcomer = serving.connect(peer=there)
    newcomer.send(GET)
    assert newcomer.statuses() == [200]
    assert slow.statuses() == [408]
    assert fast.connected
    assert not fast.received
    for each in (slow, fast, newcomer):
        each.leave()
    serving.clock.advance(LINGER_S)
    serving.assert_nothing_stays()


def busy(serving: Serving, connection: Connection, status: int, code: int) -> None:
    (answer,) = connection.answers()
    assert_refused(answer, status, code)
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["cache-control"] == "no-store"
    assert connection.half_closed


@pytest.mark.parametrize(
    ("bounds", "status", "code"),
    [(ConnectionLimits(connections=2), 503, 514), (ConnectionLimits(per_address=2), 429, 429)],
    ids=["in all", "from one address"],
)
def test_a_refused_connection_gets_a_response_with_retry_after_and_is_closed(
    bounds: ConnectionLimits, status: int, code: int
) -> None:
    serving = Serving(connection_limits=bounds)
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


def test_most_of_many_refused_connections_are_closed_without_a_word() -> None:
    """A response costs more, and keeps a descriptor for five seconds."""
    serving = Serving(connection_limits=ConnectionLimits(connections=1))
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


def test_more_connections_of_an_address_at_its_limit_are_turned_away_before_they_cost_much() -> (
    None
):
    """Case 91. A port can ask for it before it makes anything. Other addresses are let in."""
    serving = Serving(connection_limits=ConnectionLimits(per_address=1))
    here, there = (IPv4Address("TCP", host, 1) for host in (HERE, THERE))
    crowd = [serving.connect(peer=here) for _ in range(1 + SILENTLY)]
    assert serving.site.would_drop(here)
    assert not serving.site.would_drop(there)
    crowd.append(serving.connect(peer=there))
    serving.clock.advance(LINGER_S)
    assert not serving.site.would_drop(here)
    crowd.append(serving.connect(peer=here))
    serving.clock.advance(0)
    assert crowd[-1].statuses() == [429], "as soon as there is room, they are told again"
    for connection in crowd:
        connection.leave()
    serving.assert_nothing_stays()


def test_connections_of_addresses_are_counted() -> None:
    serving = Serving(connection_limits=ConnectionLimits(per_address=1))
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
def test_proxies_have_no_limit_of_their_own_on_a_site(peer: object) -> None:
    serving = Serving(
        connection_limits=ConnectionLimits(per_address=1), proxies=parse_proxies(["10.0.0.1"])
    )
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

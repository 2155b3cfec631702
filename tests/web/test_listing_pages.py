"""Pages of listings: rendered once for all waiting requests, up to date, and limited in total."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from tests.http.connection import Connection, outcome, result
from twistedmedia.fairness.shares import Shares
from twistedmedia.http.site import MediaSite
from twistedmedia.library.library import Library
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.names import media_name
from twistedmedia.store.interface import Batch, Listed
from twistedmedia.store.memory import MemoryStore
from twistedmedia.web.tree import media_resource

T = TypeVar("T")

NAMES = 1000
PAGE = b"/media/a/?limit=10000"
NEXT = b"/media/a/?limit=10000&after=0"  # without the first name, so another page
BUSY_RATE = 16 << 10
STEADY_RATE = 48 << 10  # bytes/s: 128 KiB, a block of an in-memory connection, in three seconds
LATER_S = 8.0  # the pace of a reader is known by then


class SlowListed:
    """A listing whose first read is done at once, but fires only when a test says so."""

    def __init__(self, listed: Listed, waiting: list[Callable[[], None]]) -> None:
        self._listed = listed
        self._waiting = waiting
        self._is_first = True

    def read(self, use: Callable[[Batch], T]) -> Deferred[T]:
        read = self._listed.read(use)
        if not self._is_first:
            return read
        self._is_first = False
        (came,) = outcome(read)
        waiting: Deferred[T] = Deferred()
        self._waiting.append(lambda: waiting.callback(came))  # or a Failure, for the errback
        return waiting


class SlowStore(MemoryStore):
    """A store whose listings fire only when a test calls `step`."""

    def __init__(self) -> None:
        super().__init__()
        self.held = False
        self.begun: list[str] = []
        self._waiting: list[Callable[[], None]] = []

    def list(self, folders: tuple[str, ...], after: str, limit: int, *, caller: str = "") -> Listed:
        self.begun.append(after)
        listed = super().list(folders, after, limit, caller=caller)
        return SlowListed(listed, self._waiting) if self.held else listed

    def step(self) -> None:
        """Fire the read that has waited longest."""
        self._waiting.pop(0)()

    def put(self, name: str) -> None:
        draft = self.begin()
        result(draft.append([b"x"]))
        result(draft.publish(media_name("a", name)))


class Service:
    """A site over a `SlowStore`, with memory for `pages` pages."""

    def __init__(self, pages: float = 1.5) -> None:
        self.clock = Clock()
        self.store = SlowStore()
        for n in range(NAMES):
            self.store.put(f"{n}{'x' * 200}.wav")
        self.responses = Shares(1 << 30, BUSY_RATE)
        library = Library(self.store, UploadLimits())
        self.tree = media_resource(library, responses=self.responses)
        self.site = MediaSite(self.tree, reactor=self.clock)
        self.size = len(self.whole(PAGE, "192.0.2.99"))
        self.responses.total = int(self.size * pages)
        self.store.begun.clear()

    def ask(self, target: bytes, host: str, window: int | None = None) -> Connection:
        """Send a request for `target` by a client at `host` that takes `window` bytes."""
        peer = IPv4Address("TCP", host, 50_000)
        connection = Connection(self.site, self.clock, window, peer)
        connection.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
        return connection

    def whole(self, target: bytes, host: str) -> bytes:
        """The whole content for a client that takes it all."""
        connection = self.ask(target, host)
        (answer,) = connection.answers()
        connection.leave()
        assert answer.status == 200
        return answer.content

    def later(self) -> None:
        """Let `LATER_S` pass."""
        for _ in range(int(LATER_S)):
            self.clock.advance(1)


def names_in(content: bytes) -> list[str]:
    return [entry["name"] for entry in json.loads(content)["entries"]]


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture(autouse=True)
def without_a_collector() -> Any:
    """Objects are freed by reference counts only."""
    gc.disable()
    yield
    gc.enable()


def test_requests_during_a_rendering_share_the_next_one(service: Service) -> None:
    """Case 87. Any number of requests costs two renderings."""
    service.store.held = True
    connections = [service.ask(PAGE, f"192.0.2.{n % 5}") for n in range(100)]
    assert service.store.begun == [""]
    service.store.step()
    assert service.store.begun == ["", ""]
    service.store.step()
    for _ in range(100):
        service.clock.advance(0)
    assert service.store.begun == ["", ""]
    contents = {connection.answers()[0].content for connection in connections}
    assert [len(content) for content in contents] == [service.size]


def test_a_page_shows_what_was_stored_before_it_was_asked_for(service: Service) -> None:
    """This holds also while an older version is rendered or sent."""
    service.responses.total *= 4
    slow = service.ask(PAGE, "192.0.2.1", window=0)
    service.store.put("after.wav")
    assert "after.wav" in names_in(service.whole(PAGE, "192.0.2.1"))
    service.store.held = True
    first = service.ask(PAGE, "192.0.2.1")  # its folder is read now
    service.store.put("later.wav")
    second = service.ask(PAGE, "192.0.2.1")
    for _ in range(2):
        service.store.step()
    service.later()
    assert "later.wav" not in names_in(first.answers()[0].content)
    assert "later.wav" in names_in(second.answers()[0].content)
    slow.take()
    assert "after.wav" not in names_in(slow.answers()[0].content)


def test_equal_pages_are_held_once(service: Service) -> None:
    """Case 87. Also for requests one after the other."""
    readers = [service.ask(PAGE, f"192.0.2.{n % 3}", window=0) for n in range(30)]
    assert service.responses.used == service.size
    for reader in readers:
        reader.take()
        assert len(reader.answers()[0].content) == service.size
    assert service.responses.used == 0


@pytest.mark.parametrize("leave", [Connection.leave, Connection.take])
def test_a_page_is_in_the_share_of_one_of_its_readers(
    service: Service, leave: Callable[[Connection], None]
) -> None:
    hosts = ["192.0.2.1", "192.0.2.2", "192.0.2.1"]
    readers = [service.ask(PAGE, host, window=0) for host in hosts]
    held: list[list[int]] = []
    for reader in readers:
        held.append([service.responses.held_by(host) for host in hosts[:2]])
        leave(reader)
    assert held == [[service.size, 0], [service.size, 0], [service.size, 0]]
    assert service.responses.used == 0
    readers = [service.ask(PAGE, host, window=0) for host in hosts[:2]]
    leave(readers[0])
    assert service.responses.held_by(hosts[1]) == service.size
    leave(readers[1])
    assert service.responses.used == 0
    assert service.clock.getDelayedCalls() == [] or leave is Connection.take


def test_a_page_for_which_there_is_no_memory_is_refused(service: Service) -> None:
    """Case 87."""
    slow = service.ask(PAGE, "192.0.2.1", window=0)
    (answer,) = service.ask(NEXT, "192.0.2.1").answers()
    assert (answer.status, json.loads(answer.content)["code"]) == (503, 514)
    assert answer.headers["retry-after"]
    slow.leave()
    assert len(service.whole(NEXT, "192.0.2.1")) > service.size // 2


def test_the_slowest_page_of_the_largest_share_gives_way(
    service: Service, warnings: list[LogEvent]
) -> None:
    """Case 87. A caller that holds less is not refused."""
    service.responses.total = int(service.size * 2.5)
    slow = [service.ask(target, "192.0.2.1", window=0) for target in (PAGE, NEXT)]
    service.later()
    slow[1].take(BUSY_RATE * 8)
    reader = service.ask(b"/media/a/?limit=10000&after=1", "192.0.2.2")
    assert reader.answers()[0].status == 200
    assert [each.aborted for each in slow] == [True, False]
    assert len(warnings) == 1
    assert "192.0.2.1" in str(warnings[0]["callers"])


def test_a_page_that_one_of_its_readers_takes_does_not_give_way(service: Service) -> None:
    slow = service.ask(PAGE, "192.0.2.1", window=0)
    fast = service.ask(PAGE, "192.0.2.3", window=0)
    for _ in range(int(LATER_S)):
        service.clock.advance(1)
        fast.take(4 * BUSY_RATE)
    (answer,) = service.ask(NEXT, "192.0.2.2").answers()
    assert answer.status == 503
    assert [slow.aborted, fast.aborted] == [False, False]


def test_a_page_larger_than_all_memory_is_refused_with_a_hint(service: Service) -> None:
    service.responses.total = service.size - 1
    (answer,) = service.ask(PAGE, "192.0.2.1").answers()
    assert answer.status == 400
    assert "'limit'" in json.loads(answer.content)["reason"]
    assert len(names_in(service.whole(b"/media/a/?limit=10", "192.0.2.1"))) == 10


def test_a_page_is_not_rendered_if_its_client_leaves_before_its_turn(service: Service) -> None:
    service.store.held = True
    waiting = [service.ask(PAGE + b"&after=%d" % n, "192.0.2.1") for n in range(5)]
    for each in waiting[1:]:
        each.leave()
    service.store.step()
    assert service.store.begun == ["0"]
    waiting[0].leave()
    service.store.held = False
    assert len(service.whole(PAGE, "192.0.2.1")) == service.size


def test_a_caller_with_many_pages_does_not_delay_the_others(service: Service) -> None:
    """Case 87."""
    service.store.held = True
    for n in range(20):
        service.ask(PAGE + b"&after=%d" % n, "192.0.2.1")
    service.ask(PAGE + b"&after=x", "192.0.2.2")
    service.ask(PAGE + b"&after=19", "192.0.2.2")  # the first caller waits for it as well
    assert service.store.begun == ["0", "x"]
    service.store.step()
    service.store.step()
    assert service.store.begun == ["0", "x", "1", "19"]


def test_a_failure_is_sent_to_all_waiting_requests(service: Service) -> None:
    service.store.held = True
    connections = [service.ask(b"/media/absent/", "192.0.2.1") for _ in range(40)]
    service.store.step()
    service.store.step()
    for _ in range(10):
        service.clock.advance(0)
    assert {connection.answers()[0].status for connection in connections} == {404}


class SteppedStore(SlowStore):
    """A store that does each read of a listing when a test calls `read`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.reads: list[tuple[str, Callable[[], None]]] = []

    def list(self, folders: tuple[str, ...], after: str, limit: int, *, caller: str = "") -> Listed:
        return SteppedListed(
            self, after, MemoryStore.list(self, folders, after, limit, caller=caller)
        )

    def read(self) -> str:
        """Do the read that has waited longest. Returns the `after` of its page."""
        after, do = self.reads.pop(0)
        do()
        self._clock.advance(0)
        return after


class SteppedListed:
    def __init__(self, store: SteppedStore, after: str, listed: Listed) -> None:
        self._store = store
        self._after = after
        self._listed = listed

    def read(self, use: Callable[[Batch], T]) -> Deferred[T]:
        waiting: Deferred[T] = Deferred()

        def do() -> None:
            self._store.begun.append(self._after)
            self._listed.read(use).chainDeferred(waiting)

        self._store.reads.append((self._after, do))
        return waiting


@pytest.fixture
def stepped(service: Service) -> Service:
    """A service over a `SteppedStore`, with memory for eight pages."""
    store = SteppedStore(service.clock)
    store._files = service.store._files
    service.store = store
    service.site = MediaSite(
        media_resource(Library(store, UploadLimits()), responses=service.responses),
        reactor=service.clock,
    )
    service.responses.total = service.size * 8
    return service


def test_a_small_page_does_not_wait_for_large_ones(stepped: Service) -> None:
    """Case 87. Beside 40 callers with 20 large pages each, a page of ten names is next."""
    store = stepped.store
    assert isinstance(store, SteppedStore)
    for n in range(800):
        stepped.ask(PAGE + b"&after=%d" % n, f"192.0.2.{n % 40}", window=0)
    for _ in range(5):
        store.read()
    small = stepped.ask(b"/media/a/?limit=10&after=small", "198.51.100.1")
    for _ in range(3):
        if not small.received:
            store.read()
    assert small.answers()[0].status == 200


def test_pages_of_several_callers_are_rendered_in_turns_of_batches(stepped: Service) -> None:
    """Case 87."""
    store = stepped.store
    assert isinstance(store, SteppedStore)
    for n in range(3):
        stepped.ask(PAGE + b"&after=%d" % n, f"192.0.2.{n}", window=0)
    order = [store.read() for _ in range(12)]
    assert order == ["0", "1", "2"] * 4


def test_a_page_without_memory_is_refused_before_it_is_rendered(service: Service) -> None:
    """Case 87. Its size is estimated from the last page of the directory, or from its beginning."""
    slow = service.ask(PAGE, "192.0.2.1", window=0)
    service.store.begun.clear()
    for limit in (9000, 9001):
        refused = service.ask(b"/media/a/?limit=%d" % limit, "192.0.2.1")
        assert refused.statuses() == [503]
    assert service.store.begun == []
    slow.leave()
    assert len(service.whole(b"/media/a/?limit=9000", "192.0.2.1")) == service.size


def test_a_page_that_is_being_rendered_is_in_the_share_of_its_caller(stepped: Service) -> None:
    """Case 87."""
    store = stepped.store
    assert isinstance(store, SteppedStore)
    stepped.responses.total = int(stepped.size * 1.5)
    first = stepped.ask(PAGE, "192.0.2.1")
    assert stepped.responses.used == 0
    store.read()
    assert stepped.responses.held_by("192.0.2.1") == pytest.approx(stepped.size, rel=0.05)
    first.leave()
    while store.reads:
        store.read()
    assert stepped.responses.used == 0
    assert len(store.begun) == 2  # no request waits for more of it


def test_a_page_waits_for_the_memory_of_one_that_is_being_rendered(stepped: Service) -> None:
    """Callers that read fast are not refused because of simultaneous requests."""
    store = stepped.store
    assert isinstance(store, SteppedStore)
    stepped.responses.total = int(stepped.size * 1.5)
    readers = [stepped.ask(PAGE + b"&after=%d" % n, f"192.0.2.{n}") for n in range(3)]
    for _ in range(10):
        while store.reads:
            store.read()
        stepped.clock.advance(0.1)
    assert [reader.statuses() for reader in readers] == [[200], [200], [200]]
    assert stepped.responses.used == 0


def test_one_page_of_a_caller_waits_for_memory_and_its_others_are_refused(
    stepped: Service,
) -> None:
    store = stepped.store
    assert isinstance(store, SteppedStore)
    stepped.responses.total = int(stepped.size * 1.5)
    first = stepped.ask(PAGE, "192.0.2.1")
    store.read()
    crowd = [stepped.ask(b"/media/a/?limit=%d" % (9000 + n), "192.0.2.66") for n in range(5)]
    other = stepped.ask(b"/media/a/?limit=8000", "192.0.2.2")
    stepped.clock.advance(0)
    assert [asked.statuses() for asked in crowd] == [[], [503], [503], [503], [503]]
    for _ in range(10):
        while store.reads:
            store.read()
        stepped.clock.advance(0.1)
    assert [asked.statuses() for asked in (first, crowd[0], other)] == [[200], [200], [200]]


def test_the_number_of_pages_that_a_caller_waits_for_is_limited(service: Service) -> None:
    service.store.held = True
    waiting = [service.ask(PAGE + b"&after=%d" % n, "192.0.2.1") for n in range(80)]
    refused = [each for each in waiting if each.received]
    assert {each.statuses()[0] for each in refused} == {503}
    assert len(refused) == 80 - 64
    same = service.ask(PAGE + b"&after=63", "192.0.2.1")  # the caller waits for it already
    other = service.ask(PAGE + b"&after=79", "192.0.2.2")
    assert same.received == other.received == b""


def test_large_pages_of_clients_that_are_gone_are_not_rendered_one_by_one(
    stepped: Service,
) -> None:
    """Case 87. A client that is gone looks like one that has closed its sending side."""
    store = stepped.store
    assert isinstance(store, SteppedStore)
    clients = [stepped.ask(PAGE + b"&after=%d" % n, f"192.0.2.{n % 4}") for n in range(40)]
    store.read()
    for client in clients:
        client.half_close()
    while store.reads:
        store.read()
        stepped.clock.advance(0.1)
    assert len(store.begun) < 60  # a page has eight batches
    statuses = [client.statuses()[0] for client in clients]
    assert {*statuses} <= {200, 503}
    assert statuses.count(200) > 0


def test_a_caller_whose_last_request_left_gets_no_turn(stepped: Service) -> None:
    store = stepped.store
    assert isinstance(store, SteppedStore)
    for n in range(2):
        stepped.ask(PAGE + b"&after=x%d" % n, f"198.51.100.{n}", window=0)
    both = [stepped.ask(PAGE, host) for host in ("192.0.2.1", "192.0.2.2")]
    both[0].leave()
    while store.reads:
        store.read()
    assert both[1].statuses() == [200]
    assert stepped.responses.held_by("192.0.2.1") == 0


def test_readers_that_come_and_go_do_not_protect_a_page(service: Service) -> None:
    """Case 87. New readers, with an unknown pace, do not hide that no reader takes the page."""
    service.responses.total = int(service.size * 2.5)
    held = [service.ask(target, "192.0.2.1", window=0) for target in (PAGE, NEXT)]
    for _ in range(10):
        service.clock.advance(1)
        fresh = [service.ask(target, "192.0.2.1", window=0) for target in (PAGE, NEXT)]
        for old in held:
            old.leave()
        held = fresh
    reader = service.ask(b"/media/a/?limit=10000&after=1", "192.0.2.2")
    assert reader.statuses() == [200]


def page_of(n: int) -> bytes:
    """The target of another page with all names, for each `n` above 0."""
    return PAGE + b"&after=" + b"0" * n


def read_steadily(service: Service, readers: list[Connection], seconds: int) -> None:
    """Take more than the busy rate for some seconds."""
    for _ in range(seconds):
        service.clock.advance(1)
        for reader in readers:
            if not reader.aborted:
                reader.take(STEADY_RATE)


def test_slow_but_steady_readers_do_not_lock_out_a_caller_below_its_share() -> None:
    """Case 87. The rate that a page needs rises while a caller that holds nothing waits."""
    service = Service(pages=5.8)
    readers = [service.ask(page_of(n), "192.0.2.1", window=0) for n in range(1, 6)]
    read_steadily(service, readers, 8)
    other = service.ask(PAGE, "192.0.2.2")
    assert other.received == b""
    more = service.ask(page_of(6), "192.0.2.1")
    assert more.statuses() == [503], "that is above its share"
    read_steadily(service, readers, 2)
    assert other.statuses() == [200]
    assert [reader.aborted for reader in readers].count(True) == 1


@pytest.mark.parametrize("host", ["192.0.2.2", "192.0.2.1"])
def test_a_page_above_the_share_of_its_caller_waits_for_no_memory(host: str) -> None:
    """Two callers with one page each do not disconnect each other."""
    service = Service(pages=1.5)
    reader = service.ask(PAGE, "192.0.2.1", window=0)
    read_steadily(service, [reader], 8)
    assert service.ask(NEXT, host).statuses() == [503]
    read_steadily(service, [reader], 2)
    assert not reader.aborted


def test_a_first_page_that_is_larger_than_a_share_waits_for_a_caller_with_several() -> None:
    """Case 87. It does not matter how many callers hold little."""
    service = Service(pages=20)
    small = []
    for n in range(1, 9):
        target = b"/media/a/?limit=300&after=" + b"0" * n
        small.append(service.ask(target, f"198.51.100.{n}", window=0))
    for n in range(1, 6):
        service.ask(page_of(n), "192.0.2.1", window=0)
    service.responses.total = service.responses.used + 1000  # sizes are estimated
    assert service.responses.share(["192.0.2.2"]) < service.size
    held = service.responses.held_by("192.0.2.1")
    other = service.ask(PAGE, "192.0.2.2", window=0)
    for _ in range(8):
        service.clock.advance(0.25)
    assert service.responses.held_by("192.0.2.2") == service.size
    assert service.responses.held_by("192.0.2.1") < held
    assert not any(each.aborted for each in [*small, other])


def test_several_pages_of_a_caller_within_its_share_wait_at_the_same_time() -> None:
    """Case 87."""
    service = Service(pages=6.1)
    readers = [service.ask(page_of(n), "192.0.2.1", window=0) for n in range(1, 7)]
    read_steadily(service, readers, 8)
    for n in (7, 8, 9):
        service.ask(page_of(n), "192.0.2.2", window=0)
    assert service.ask(page_of(10), "192.0.2.2").statuses() == [503]
    assert service.responses.held_by("192.0.2.2") == 0
    service.later()
    assert service.responses.held_by("192.0.2.2") == 3 * service.size
    assert [reader.aborted for reader in readers].count(True) == 3


def test_pages_that_are_being_rendered_do_not_give_way(stepped: Service) -> None:
    """Other pages wait for their memory."""
    store = stepped.store
    assert isinstance(store, SteppedStore)
    stepped.responses.total = int(stepped.size * 2.2)
    slow = [stepped.ask(page_of(n), "192.0.2.1", window=0) for n in (1, 2)]
    while len(store.begun) < 14:
        store.read()
    first = stepped.ask(PAGE, "192.0.2.2")
    for _ in range(19):
        stepped.clock.advance(0.1)
    assert first.received == b""
    assert not any(each.aborted for each in slow)


def test_a_page_that_waits_for_memory_is_not_kept_meanwhile(stepped: Service) -> None:
    """Its rendered beginning would be memory in no share."""
    store = stepped.store
    assert isinstance(store, SteppedStore)
    slow = stepped.ask(PAGE, "192.0.2.1", window=0)
    while store.reads:
        store.read()
    stepped.responses.total = stepped.responses.used
    store.begun.clear()
    other = stepped.ask(page_of(1), "192.0.2.2")
    store.read()
    assert store.reads == []
    slow.leave()
    stepped.clock.advance(0.1)
    while store.reads:
        store.read()
    assert other.statuses() == [200]
    assert len(store.begun) == 1 + 8, "it has eight batches"


def test_a_page_whose_beginning_is_freed_with_the_last_reader_is_rendered_again(
    stepped: Service,
) -> None:
    """A page that equals the one being sent has no content of its own."""
    store = stepped.store
    assert isinstance(store, SteppedStore)
    slow = stepped.ask(PAGE, "192.0.2.1", window=0)
    while store.reads:
        store.read()
    other = stepped.ask(PAGE, "192.0.2.2")
    for n in (1, 2):
        stepped.ask(page_of(n), f"198.51.100.{n}", window=0)
    store.begun.clear()
    while "" not in store.begun or "" in [after for after, _ in store.reads]:
        store.read()
    slow.leave()  # while the page waits for its next turn
    while store.reads:
        store.read()
    (answer,) = other.answers()
    assert len(names_in(answer.content)) == NAMES

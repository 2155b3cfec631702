"""What the service says of itself: to people at /health, to load balancers at /ready."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from tests.http.connection import Answer, Connection
from twistedmedia.errors import StorageFailed
from twistedmedia.http.site import MediaSite
from twistedmedia.library.library import Library
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.store.interface import Reserved, StorageState
from twistedmedia.store.memory import MemoryStore
from twistedmedia.web.tree import media_resource

NOT_READ = StorageFailed("read", "input/output error")
NOT_WRITTEN = StorageFailed("written", "read-only file system")


class WatchedMemoryStore(MemoryStore):
    """A memory store whose storage is in a state that the test sets, or does not answer."""

    def __init__(self, state: StorageState | None) -> None:
        super().__init__()
        self.state = state
        self.looks = 0

    @property
    def reserved(self) -> Reserved:
        return Reserved(30, 2, 20)

    def look(self) -> Deferred[StorageState]:
        self.looks += 1
        return Deferred() if self.state is None else succeed(self.state)


class Asking:
    """A connection to a service over a store."""

    def __init__(self, store: MemoryStore) -> None:
        self.clock = Clock()
        self.site = MediaSite(media_resource(Library(store, UploadLimits())), reactor=self.clock)
        self.connection = Connection(self.site, self.clock)

    def send(self, target: str) -> None:
        self.connection.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def ask(self, target: str) -> Answer:
        self.send(target)
        return self.connection.answers()[-1]


@pytest.fixture
def asking() -> Iterator[Callable[[StorageState | None], Asking]]:
    made: list[Asking] = []

    def make(state: StorageState | None) -> Asking:
        made.append(Asking(WatchedMemoryStore(state)))
        return made[-1]

    yield make
    for each in made:
        each.connection.leave()


def brief(answer: Answer) -> tuple[int, int]:
    return answer.status, json.loads(answer.content)["code"]


@pytest.mark.parametrize(
    ("state", "told", "ready"),
    [
        (StorageState(5), "ok", (200, 200)),
        (StorageState(None), "ok", (200, 200)),
        (StorageState(5, cannot_write=NOT_WRITTEN), NOT_WRITTEN.reason, (200, 200)),
        (StorageState(5, cannot_read=NOT_READ), NOT_READ.reason, (503, 515)),
        (StorageState(5, NOT_READ, NOT_WRITTEN), NOT_READ.reason, (503, 515)),
    ],
    ids=["well", "without end", "read-only", "unreadable", "broken"],
)
def test_health_tells_the_storage_and_ready_whether_it_can_be_read(
    asking: Any, state: StorageState, told: str, ready: tuple[int, int]
) -> None:
    """Case 79."""
    service = asking(state)
    health = service.ask("/health")
    assert brief(health) == (200, 200)  # for those who have watched that
    assert json.loads(health.content)["storage"] == told
    assert json.loads(health.content)["free"] == state.free
    answer = service.ask("/ready")
    assert brief(answer) == ready
    assert answer.headers["cache-control"] == "no-store"
    if ready == (200, 200):
        assert json.loads(answer.content) == {"code": 200, "reason": "OK"}
    else:
        assert json.loads(answer.content) == {"code": 515, "reason": told}
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(("target", "told"), [("/health", (200, 200)), ("/ready", (503, 515))])
def test_a_storage_that_does_not_answer_is_told_in_half_a_second(
    asking: Any, target: str, told: tuple[int, int]
) -> None:
    """Cases 29 and 79: a health check waits for a second, as a rule."""
    service = asking(None)
    service.send(target)
    service.clock.advance(0.45)
    assert service.connection.answers() == []
    service.clock.advance(0.1)
    (answer,) = service.connection.answers()
    assert brief(answer) == told
    payload = json.loads(answer.content)
    reason = "the storage cannot be read: it does not respond within 0.5 s"
    assert reason in (payload["reason"], payload.get("storage"))


def test_free_space_is_what_was_known_before_while_the_storage_does_not_answer(
    asking: Any,
) -> None:
    """Case 29."""
    store = WatchedMemoryStore(StorageState(5))
    service = Asking(store)
    assert json.loads(service.ask("/health").content)["free"] == 5
    store.state = None
    service.send("/health")
    service.clock.advance(1)
    assert json.loads(service.connection.answers()[-1].content)["free"] == 5
    service.connection.leave()


def test_a_store_that_knows_nothing_of_its_storage_is_well() -> None:
    service = Asking(MemoryStore())
    assert json.loads(service.ask("/health").content)["storage"] == "ok"
    assert brief(service.ask("/ready")) == (200, 200)
    service.connection.leave()


def test_a_service_that_stops_is_not_ready_and_says_that_it_is_well(asking: Any) -> None:
    """Requests on connections that are there are still answered for a moment."""
    service = asking(StorageState(5))
    others = Connection(service.site, service.clock)
    assert brief(service.ask("/ready")) == (200, 200)
    service.site.close()
    answer = service.ask("/ready")
    assert brief(answer) == (503, 514)
    assert json.loads(answer.content)["reason"] == "the service is stopping; try again in 5 s"
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["connection"] == "close"
    others.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert [brief(each) for each in others.answers()] == [(200, 200)]
    others.leave()


def test_health_says_how_things_are_shared_and_names_nobody() -> None:
    service = Asking(MemoryStore())
    shares = json.loads(service.ask("/health").content)["shares"]
    unused = {"used": 0, "callers": 0, "largest": 0}
    assert shares["uploads"] == {**unused, "total": 64, "reserve": 8}
    assert shares["imports"] == {**unused, "total": 32, "reserve": 4}
    assert shares["descriptors"].items() >= unused.items()
    connections = {"used": 1, "total": 10_000, "reserve": 1250, "callers": 1, "largest": 1}
    assert shares["connections"] == connections
    assert "space" not in shares  # memory reserves none
    service.connection.leave()


def test_health_says_how_much_space_uploads_have_reserved(asking: Any) -> None:
    """Case 89."""
    expected = {"used": 30, "callers": 2, "largest": 20}
    payload = json.loads(asking(StorageState(5)).ask("/health").content)
    assert payload["shares"]["space"] == expected


def test_reserved_space_is_told_while_the_storage_does_not_answer(asking: Any) -> None:
    service = asking(None)
    service.send("/health")
    service.clock.advance(1)
    payload = json.loads(service.connection.answers()[-1].content)
    assert payload["shares"]["space"]["used"] == 30

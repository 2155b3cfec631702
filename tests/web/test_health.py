"""`/health` for people, and `/ready` for load balancers."""

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
    """A memory store whose storage has a state that the test sets, or does not respond."""

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


class Client:
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
def client() -> Iterator[Callable[[StorageState | None], Client]]:
    made: list[Client] = []

    def make(state: StorageState | None) -> Client:
        made.append(Client(WatchedMemoryStore(state)))
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
def test_health_reports_the_storage_and_ready_fails_if_it_cannot_be_read(
    client: Any, state: StorageState, told: str, ready: tuple[int, int]
) -> None:
    """Case 79."""
    service = client(state)
    health = service.ask("/health")
    assert brief(health) == (200, 200)  # for programs that read it
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
def test_a_storage_that_does_not_respond_is_reported_within_half_a_second(
    client: Any, target: str, told: tuple[int, int]
) -> None:
    """Cases 29 and 79: the usual timeout of a health check is a second."""
    service = client(None)
    service.send(target)
    service.clock.advance(0.45)
    assert service.connection.answers() == []
    service.clock.advance(0.1)
    (answer,) = service.connection.answers()
    assert brief(answer) == told
    payload = json.loads(answer.content)
    reason = "the storage cannot be read: it does not respond within 0.5 s"
    assert reason in (payload["reason"], payload.get("storage"))


def test_free_space_is_the_last_known_value_while_the_storage_does_not_respond(
    client: Any,
) -> None:
    """Case 29."""
    store = WatchedMemoryStore(StorageState(5))
    service = Client(store)
    assert json.loads(service.ask("/health").content)["free"] == 5
    store.state = None
    service.send("/health")
    service.clock.advance(1)
    assert json.loads(service.connection.answers()[-1].content)["free"] == 5
    service.connection.leave()


def test_a_store_without_a_storage_state_is_healthy() -> None:
    service = Client(MemoryStore())
    assert json.loads(service.ask("/health").content)["storage"] == "ok"
    assert brief(service.ask("/ready")) == (200, 200)
    service.connection.leave()


def test_a_stopping_service_is_healthy_but_not_ready(client: Any) -> None:
    """It still responds for a moment on open connections."""
    service = client(StorageState(5))
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


def test_health_reports_shares_without_the_names_of_callers() -> None:
    service = Client(MemoryStore())
    shares = json.loads(service.ask("/health").content)["shares"]
    unused = {"used": 0, "callers": 0, "largest": 0}
    assert shares["uploads"] == {**unused, "total": 64, "reserve": 8}
    assert shares["imports"] == {**unused, "total": 32, "reserve": 4}
    assert shares["descriptors"].items() >= unused.items()
    connections = {"used": 1, "total": 10_000, "reserve": 1250, "callers": 1, "largest": 1}
    assert shares["connections"] == connections
    assert "space" not in shares  # a memory store reserves none
    service.connection.leave()


def test_health_reports_the_space_that_uploads_have_reserved(client: Any) -> None:
    """Case 89."""
    expected = {"used": 30, "callers": 2, "largest": 20}
    payload = json.loads(client(StorageState(5)).ask("/health").content)
    assert payload["shares"]["space"] == expected


def test_reserved_space_is_reported_while_the_storage_does_not_respond(client: Any) -> None:
    service = client(None)
    service.send("/health")
    service.clock.advance(1)
    payload = json.loads(service.connection.answers()[-1].content)
    assert payload["shares"]["space"]["used"] == 30

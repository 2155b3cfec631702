"""Large responses: their memory counts in the shares of callers while they are sent."""

from __future__ import annotations

import math
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from tests.http.connection import Connection, SocketConnection, outcome
from tests.support import named
from tests.web.test_listing_pages import BUSY_RATE, NEXT, PAGE, Service, page_of
from twistedmedia.fairness.shares import Shares
from twistedmedia.http.site import MediaSite
from twistedmedia.library.library import Library
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.store.memory import MemoryMedia, MemoryStore
from twistedmedia.web.tree import media_resource

DIRECTORY = "/".join(["d" * 200] * 3)


class Forms:
    """A service, and clients that send forms with 200 files."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.responses = Shares(1 << 20, BUSY_RATE)
        tree = media_resource(Library(self.store, UploadLimits()), responses=self.responses)
        self.site = MediaSite(tree, reactor=self.clock)

    def post(self, host: str, name: str, window: int | None = 0) -> Connection:
        """Post files whose names begin with `name`."""
        part = '--b\r\nContent-Disposition: form-data; name="%s"; filename="%s%d.wav"\r\n\r\nx\r\n'
        form = "".join(part % (DIRECTORY, name, n) for n in range(200)) + "--b--\r\n"
        connection = Connection(self.site, self.clock, window, IPv4Address("TCP", host, 50_000))
        connection.send(
            b"POST /media HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n%b"
            % (len(form), form.encode())
        )
        for _ in range(2000):
            self.clock.advance(0)
        return connection

    def holds(self, name: str) -> bool:
        """Whether the last file of such a form is stored."""
        opened = outcome(self.store.open(named(f"{DIRECTORY}/{name}199.wav")))
        return isinstance(opened[0], MemoryMedia)


@pytest.fixture
def forms() -> Forms:
    return Forms()


def test_a_large_response_that_is_being_sent_counts_in_the_share_of_its_caller(
    forms: Forms,
) -> None:
    """Case 87. This holds for every kind of request."""
    client = forms.post("192.0.2.1", "a")
    held = forms.responses.held_by("192.0.2.1")
    assert held > 200 * len(DIRECTORY)
    client.take()
    (answer,) = client.answers()
    assert (answer.status, len(answer.content)) == (201, held)
    assert forms.responses.used == 0


def test_without_memory_for_a_large_response_the_client_is_disconnected(
    forms: Forms, warnings: list[LogEvent]
) -> None:
    """Case 87. The files are stored, so 514 would be wrong."""
    forms.post("192.0.2.1", "a")
    forms.responses.total = forms.responses.used
    client = forms.post("192.0.2.1", "b")
    assert client.aborted
    assert client.received == b""
    assert forms.holds("b")
    assert [str(each["caller"]) for each in warnings] == ["192.0.2.1"]


def test_a_large_response_that_its_reader_does_not_take_gives_way(
    forms: Forms, warnings: list[LogEvent]
) -> None:
    """Case 87. It gives way to a response of a caller that holds less."""
    slow = [forms.post("192.0.2.1", name) for name in "ab"]
    forms.responses.total = forms.responses.used
    for _ in range(8):
        forms.clock.advance(1)
    other = forms.post("192.0.2.2", "c", window=None)
    assert len(other.answers()) == 1
    assert [each.aborted for each in slow] == [True, False]
    assert len(warnings) == 1


def test_memory_is_released_when_the_client_disconnects(forms: Forms) -> None:
    client = forms.post("192.0.2.1", "a")
    assert forms.responses.used > 0
    client.leave()
    assert forms.responses.used == 0


def test_the_pace_of_a_reader_is_that_of_its_acknowledgements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A steady reader is not disconnected because the kernel takes rare, large blocks."""
    service = Service(pages=2.5)
    peer = IPv4Address("TCP", "192.0.2.1", 50_000)
    readers = []
    for target in (PAGE, NEXT):
        connection = SocketConnection(service.site, service.clock, 128 << 10, peer)

        def send(media: Any, _: int, offset: int, size: int, to: Any = connection) -> int:
            return int(to.sendfile(bytes(media._content[offset : offset + size])))

        monkeypatch.setattr(MemoryMedia, "send_at_hand", send)
        connection.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
        readers.append(connection)
    for _ in range(8):
        service.clock.advance(1)
        for reader in readers:
            reader.socket.acknowledged += 2 * BUSY_RATE
    other = service.ask(b"/media/a/?limit=10000&after=1", "192.0.2.2")
    assert [reader.aborted for reader in readers] == [False, False]
    assert other.received == b""
    other.leave()
    service.later()
    assert [reader.aborted for reader in readers] == [False, False]


@pytest.mark.parametrize("order", [["192.0.2.1", "192.0.2.2"], ["192.0.2.2", "192.0.2.1"]])
def test_a_page_moves_to_the_share_of_any_reader_with_memory_for_it(order: list[str]) -> None:
    """A reader within its share is not disconnected because another one exceeds its share."""
    service = Service(pages=8.2)
    for n in range(8):
        service.ask(page_of(n + 1), "192.0.2.1", window=0)
    owner = service.ask(PAGE, "198.51.100.1", window=0)
    readers = [service.ask(PAGE, host, window=0) for host in order]
    owner.leave()
    assert [reader.aborted for reader in readers] == [False, False]
    assert service.responses.held_by("192.0.2.2") == service.size


def test_readers_are_disconnected_if_none_has_memory_for_the_page(warnings: list[LogEvent]) -> None:
    service = Service(pages=8.2)
    for n in range(8):
        service.ask(page_of(n + 1), "192.0.2.1", window=0)
    owner = service.ask(PAGE, "198.51.100.1", window=0)
    readers = [service.ask(PAGE, "192.0.2.1", window=0) for _ in range(2)]
    owner.leave()
    assert [reader.aborted for reader in readers] == [True, True]
    assert [each["callers"] for each in warnings] == ["192.0.2.1"]


def test_bytes_that_a_reader_took_count_after_it_has_left() -> None:
    """A page that one reader after the other takes completely is not slow."""
    service = Service(pages=1.5)
    slow = service.ask(PAGE, "192.0.2.1", window=0)
    pace = []
    for _ in range(8):
        service.clock.advance(1)
        reader = service.ask(PAGE, "192.0.2.1", window=0)
        reader.take()
        assert len(reader.answers()[0].content) == service.size
        (page,) = service.tree._responses._sending
        pace.append(page.pace())
    assert pace[-1] == pytest.approx(service.size, rel=0.4)
    assert not slow.aborted


def test_a_response_waits_for_memory_while_its_caller_is_below_its_share(forms: Forms) -> None:
    """Case 87. Slow but steady readers do not lock out other callers."""
    slow = [forms.post("192.0.2.1", name) for name in "ab"]
    forms.responses.total = forms.responses.used
    for share in forms.responses._callers["192.0.2.1"].shares:
        share.holder.pace = lambda: BUSY_RATE + 2000.0  # type: ignore[method-assign]
    other = forms.post("192.0.2.2", "c", window=None)
    assert (other.received, other.aborted) == (b"", False)
    assert forms.responses.callers == 2, "it counts while it waits"
    for _ in range(8):
        forms.clock.advance(0.25)
    assert [answer.status for answer in other.answers()] == [201]
    assert [each.aborted for each in slow].count(True) == 1


def test_after_waiting_in_vain_the_client_is_disconnected_and_holds_no_memory(
    forms: Forms, warnings: list[LogEvent]
) -> None:
    for name in "ab":
        forms.post("192.0.2.1", name)
    forms.responses.total = forms.responses.used
    for share in forms.responses._callers["192.0.2.1"].shares:
        share.holder.pace = lambda: math.inf  # type: ignore[method-assign]
    other = forms.post("192.0.2.2", "c", window=None)
    for _ in range(7):
        forms.clock.advance(0.25)
    assert not other.aborted
    forms.clock.advance(0.25)
    assert (other.aborted, forms.responses.callers) == (True, 1)
    assert [str(each["caller"]) for each in warnings] == ["192.0.2.2"]


def test_the_response_to_head_has_no_content(forms: Forms) -> None:
    connection = Connection(forms.site, forms.clock)
    connection.send(b"HEAD /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, content = connection.received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert content == b""

"""A client that disconnects at any moment of any request leaves nothing behind.

Each request is played in small steps: a piece from the client, or one outcome from the store. It is
repeated as often as it has steps, and cut off one step later each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from tests.http.connection import Connection, chunked, outcome, result
from tests.support import named
from twistedmedia.fairness.slots import Slots
from twistedmedia.http.body import BodyMemory
from twistedmedia.http.header_fields import repr_digest
from twistedmedia.http.site import MediaSite
from twistedmedia.library.library import Library
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.names import MediaName
from twistedmedia.store.interface import Batch, Draft, Listed, Media, Sealed, StoredFile
from twistedmedia.store.memory import MemoryStore
from twistedmedia.store.preconditions import Precondition
from twistedmedia.web.tree import media_resource

T = TypeVar("T")

HELLO = named("prompts/en/hello.mp3")
ALLOWANCE = 256  # unread bytes; a handler is resumed at half of this


class HeldStore:
    """A memory store that does its work, in order, when a test calls `step`. As `store.interface`
    requires, cancelling ends the waiting but not the work.
    """

    def __init__(self, capacity: int = 1 << 30) -> None:
        self.held = False
        self.waiting: list[tuple[str, Callable[[], None]]] = []
        self.done: list[str] = []
        self.drafts: list[HeldDraft] = []
        self.media_open = 0
        self._inner = MemoryStore(capacity)

    def begin(self, size: int | None = None, caller: str = "") -> Draft:
        self.drafts.append(HeldDraft(self, self._inner.begin(size)))
        return self.drafts[-1]

    def open(self, name: MediaName, *, caller: str) -> Deferred[Media]:
        def opened() -> Deferred[Media]:
            return self._inner.open(name, caller=caller).addCallback(
                lambda media: HeldMedia(self, media)
            )

        return self.do("open", opened, unclaimed=lambda media: media.close())

    def recognise(
        self, name: MediaName, sha256: str, *, caller: str
    ) -> Deferred[StoredFile | None]:
        return self.do("recognise", lambda: self._inner.recognise(name, sha256, caller=caller))

    def delete(
        self, name: MediaName, precondition: Precondition | None = None, *, caller: str
    ) -> Deferred[bool]:
        return self.do("delete", lambda: self._inner.delete(name, precondition, caller=caller))

    def list(self, folders: tuple[str, ...], after: str, limit: int, *, caller: str) -> Listed:
        return HeldListed(self, self._inner.list(folders, after, limit, caller=caller))

    def do(
        self,
        what: str,
        work: Callable[[], Deferred[T]],
        unclaimed: Callable[[T], object] = lambda _: None,
    ) -> Deferred[T]:
        """Postpone `work` until `step`. The outcome of cancelled work is dropped."""
        if not self.held:
            return work()
        gone: list[bool] = []
        waiting: Deferred[T] = Deferred(lambda _: gone.append(True))

        def tell(came: T | Failure) -> None:
            if not gone:
                waiting.callback(came)
            elif not isinstance(came, Failure):
                unclaimed(came)

        self.waiting.append((what, lambda: work().addBoth(tell) and None))
        return waiting

    def step(self) -> None:
        """Do the work that has waited longest."""
        what, work = self.waiting.pop(0)
        self.done.append(what)
        work()

    def begun(self, what: str) -> bool:
        """Whether `what` was ever requested."""
        return what in self.done or what in [waiting for waiting, _ in self.waiting]

    @property
    def drafts_open(self) -> int:
        return sum(not draft.over for draft in self.drafts)

    def holds(self, name: MediaName) -> bool:
        return not isinstance(outcome(self._inner.open(name))[0], Failure)

    def content(self, name: MediaName) -> bytes:
        return result(result(self._inner.open(name)).read(0, 1 << 30))


class HeldDraft:
    """A draft of a `HeldStore`. It is discarded after the work that is in progress."""

    def __init__(self, store: HeldStore, inner: Draft) -> None:
        self.over = False  # discarded
        self._store = store
        self._inner = inner
        self._under_way = 0

    def prepare(self, name: MediaName, replacing: Precondition | None = None) -> Deferred[None]:
        return self._do("prepare", lambda: self._inner.prepare(name, replacing))

    def append(self, chunks: Iterable[bytes]) -> Deferred[None]:
        return self._do("append", lambda: self._inner.append(chunks))

    def seal(self) -> Deferred[Sealed]:
        return self._do("seal", lambda: self._inner.seal())

    def publish(
        self, name: MediaName, replacing: Precondition | None = None
    ) -> Deferred[StoredFile]:
        return self._do("publish", lambda: self._inner.publish(name, replacing))

    def discard(self) -> None:
        self.over = True
        self._let_go()

    def _do(self, what: str, work: Callable[[], Deferred[T]]) -> Deferred[T]:
        assert not self.over, f"{what} after the discard"
        assert self._under_way == 0, f"{what} while other work is under way"
        self._under_way += 1

        def do() -> Deferred[T]:
            self._under_way -= 1
            doing = work()
            self._let_go()
            return doing

        return self._store.do(what, do)

    def _let_go(self) -> None:
        if self.over and self._under_way == 0:
            self._inner.discard()


class HeldListed:
    """A listing of a `HeldStore`."""

    def __init__(self, store: HeldStore, listed: Listed) -> None:
        self._store = store
        self._listed = listed

    def read(self, use: Callable[[Batch], T]) -> Deferred[T]:
        return self._store.do("list", lambda: self._listed.read(use))


class HeldMedia:
    """A stored file of a `HeldStore`, which counts its open files."""

    def __init__(self, store: HeldStore, inner: Media) -> None:
        self.size, self.modified_ns, self.etag = inner.size, inner.modified_ns, inner.etag
        self.sha256 = inner.sha256
        self._store = store
        self._inner = inner
        self._closed = False
        store.media_open += 1

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        assert not self._closed
        return self._store.do("read", lambda: self._inner.read(offset, size))

    def digest(self) -> Deferred[str]:
        return self._store.do("digest", self._inner.digest)

    def close(self) -> None:
        assert not self._closed, "a media is closed once"
        self._closed = True
        self._store.media_open -= 1


class Service:
    """The whole tree over a `HeldStore`, with one client."""

    def __init__(self, already: dict[MediaName, bytes], capacity: int = 1 << 30) -> None:
        self.store = HeldStore(capacity)
        for name, content in already.items():
            draft = self.store.begin()
            result(draft.append([content]))
            result(draft.publish(name))
            draft.discard()
        self.store.drafts.clear()
        self.store.held = True
        self.has_sent_all = False
        self.clock = Clock()
        self.memory = BodyMemory(each=ALLOWANCE)
        self.library = Library(self.store, UploadLimits())
        tree = media_resource(self.library)
        self.site = MediaSite(tree, reactor=self.clock, memory=self.memory)
        self.connection = Connection(self.site, self.clock)

    def play(self, pieces: Iterable[bytes], store_first: bool, steps: int | None = None) -> int:
        """Play `steps`, or all: a piece of the request, or work of the store. `store_first` says
        which precedes if there are both. Returns the number of steps played.
        """
        left, taken = list(pieces), 0
        while (left or self.store.waiting) and taken != steps:
            taken += 1
            if self.store.waiting and (store_first or not left):
                self.store.step()
                self.clock.advance(0)
            else:
                self.connection.send(left.pop(0))
        self.has_sent_all = not (left or self.connection.unread)
        return taken

    def cut(self) -> None:
        """The site closes its connections, and the store completes its work."""
        self.site.disconnect()
        self.clock.advance(0)
        self._finish()

    def lose_client(self) -> None:
        """The client disconnects, and the store completes its work."""
        self.connection.leave()
        self._finish()

    def _finish(self) -> None:
        self.clock.advance(0)
        while self.store.waiting:
            self.store.step()
            self.clock.advance(0)

    def assert_nothing_stays(self) -> None:
        assert self.store.drafts_open == 0
        assert self.store.media_open == 0
        assert self.library.upload_slots.used == 0
        assert outcome(self.library.drain()) == [None]
        assert self.memory.allowance == ALLOWANCE
        assert self.site.channels == set()
        assert self.clock.getDelayedCalls() == []


def request(line: str, content: bytes, *headers: str, size: int = 150) -> list[bytes]:
    """A request in pieces: its head, and its content in pieces of `size` bytes."""
    lines = [f"{line} HTTP/1.1", "Host: localhost", *headers, "", ""]
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return ["\r\n".join(lines).encode(), *pieces]


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    """A multipart form of `parts`: name, filename, content."""
    made = b""
    for name, filename, content in parts:
        disposition = f'form-data; name="{name}"'
        if filename is not None:
            disposition += f'; filename="{filename}"'
        made += b"--xyz\r\nContent-Disposition: %s\r\n\r\n" % disposition.encode()
        made += content + b"\r\n"
    return made + b"--xyz--\r\n"


FILE = bytes(range(1, 251)) * 3
TEXT = b"some words " * 60
MULTIPART = form(
    ("prompts/en", "hello.mp3", FILE),
    ("note", None, b"text"),
    ("prompts/en", "", b""),
    ("prompts/de", "hallo.wav", TEXT),
    ("prompts/de", "empty.mp3", b""),
)
FORMS = {
    HELLO: FILE,
    named("prompts/de/hallo.wav"): TEXT,
    named("prompts/de/empty.mp3"): b"",
}
URLENCODED = b"directory=prompts%2Fen&body=" + TEXT.replace(b" ", b"+") + b"&filename=hello.mp3"
URL = "/media/prompts/en/hello.mp3"
DIGEST = f"Repr-Digest: {repr_digest(hashlib.sha256(FILE).hexdigest())}"

# The pieces of the request, the files in the store before it, those after a success, and the status
# of a success.
Case = tuple[list[bytes], dict[MediaName, bytes], dict[MediaName, bytes], int]
STORING: dict[str, Case] = {
    "PUT": (
        request(f"PUT {URL}", FILE, f"Content-Length: {len(FILE)}"),
        {},
        {HELLO: FILE},
        201,
    ),
    "PUT in chunks": (
        request(f"PUT {URL}", chunked(FILE, 90), "Transfer-Encoding: chunked"),
        {},
        {HELLO: FILE},
        201,
    ),
    "PUT of nothing": (request(f"PUT {URL}", b"", "Content-Length: 0"), {}, {HELLO: b""}, 201),
    "PUT of what exists": (
        request(f"PUT {URL}", FILE, f"Content-Length: {len(FILE)}"),
        {HELLO: b"first"},
        {HELLO: b"first"},
        409,
    ),
    "PUT in the place of what exists": (
        request(f"PUT {URL}", FILE, f"Content-Length: {len(FILE)}", "If-Match: *"),
        {HELLO: b"first"},
        {HELLO: FILE},
        200,
    ),
    "PUT in the place of what does not exist": (
        request(f"PUT {URL}", FILE, f"Content-Length: {len(FILE)}", "If-Match: *"),
        {},
        {},
        412,
    ),
    "PUT with its digest": (
        request(f"PUT {URL}", FILE, f"Content-Length: {len(FILE)}", DIGEST),
        {},
        {HELLO: FILE},
        201,
    ),
    "PUT of what is stored already": (
        request(f"PUT {URL}", FILE, f"Content-Length: {len(FILE)}", DIGEST),
        {HELLO: FILE},
        {HELLO: FILE},
        200,
    ),
    "PUT with another digest": (
        request(f"PUT {URL}", TEXT, f"Content-Length: {len(TEXT)}", DIGEST),
        {},
        {},
        400,
    ),
    "multipart": (
        request(
            "POST /media",
            MULTIPART,
            "Content-Type: multipart/form-data; boundary=xyz",
            f"Content-Length: {len(MULTIPART)}",
        ),
        {},
        FORMS,
        201,
    ),
    "multipart, of which one exists": (
        request(
            "POST /media",
            MULTIPART,
            "Content-Type: multipart/form-data; boundary=xyz",
            f"Content-Length: {len(MULTIPART)}",
        ),
        {HELLO: b"first"},
        {**FORMS, HELLO: b"first"},
        207,
    ),
    "urlencoded": (
        request(
            "POST /media",
            URLENCODED,
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(URLENCODED)}",
        ),
        {},
        {HELLO: TEXT},
        201,
    ),
}
# Whether the publish has begun when the client disconnects, if that depends on more than the step.
OUTCOMES = {
    "PUT of nothing": {True},
    "PUT in the place of what does not exist": {False},
}
OTHERS: dict[str, tuple[list[bytes], int]] = {
    "GET": (request(f"GET {URL}", b""), 200),
    "GET of a range": (request(f"GET {URL}", b"", "Range: bytes=100-"), 206),
    "GET with content": (request(f"GET {URL}", b"x" * 400, "Content-Length: 400"), 200),
    "GET of nothing": (request("GET /media/prompts/en/other.mp3", b""), 404),
    "HEAD": (request(f"HEAD {URL}", b""), 200),
    "GET with its digest": (request(f"GET {URL}", b"", "Want-Repr-Digest: sha-256=1"), 200),
    "HEAD with its digest": (request(f"HEAD {URL}", b"", "Want-Repr-Digest: sha-256=1"), 200),
    "GET of what is known": (request(f"GET {URL}", b"", "If-None-Match: *"), 304),
    "GET of no part": (request(f"GET {URL}", b"", "Range: bytes=900000-"), 416),
    "GET of a directory": (request("GET /media/prompts/en/", b""), 200),
    "HEAD of a directory": (request("HEAD /media/prompts/", b""), 200),
    "GET of the root": (request("GET /media/", b""), 200),
    "GET of a directory without its slash": (request("GET /media/prompts/en", b""), 307),
    "GET of no directory": (request("GET /media/absent/", b""), 404),
    "DELETE": (request(f"DELETE {URL}", b""), 200),
    "DELETE on a condition": (request(f"DELETE {URL}", b"", "If-Match: *"), 200),
    "DELETE by a form": (
        request(
            "DELETE /media",
            b"directory=prompts/en&filename=hello.mp3",
            "Content-Type: application/x-www-form-urlencoded",
            "Content-Length: 39",
            size=10,
        ),
        200,
    ),
}
either_first = pytest.mark.parametrize(
    "store_first", [True, False], ids=["store first", "client first"]
)


@pytest.fixture(autouse=True)
def no_errors_logged() -> Iterator[None]:
    """Nothing is logged as an incident or as unhandled."""
    errors: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            errors.append(event)

    globalLogPublisher.addObserver(observe)
    yield
    globalLogPublisher.removeObserver(observe)
    assert errors == []


def status_of(connection: Connection) -> int:
    return int(connection.received.split(b" ", 2)[1])


@either_first
@pytest.mark.parametrize("case", STORING)
def test_an_upload_that_is_not_cut_off_stores(case: str, store_first: bool) -> None:
    pieces, already, stored, status = STORING[case]
    service = Service(already)
    assert service.play(pieces, store_first) > len(pieces)
    assert status_of(service.connection) == status
    for name, content in stored.items():
        assert service.store.content(name) == content
    service.connection.leave()
    service.assert_nothing_stays()


@either_first
@pytest.mark.parametrize("case", STORING)
def test_an_upload_is_stored_if_its_client_leaves_after_the_last_byte_but_not_before(
    case: str, store_first: bool
) -> None:
    """Cases 1 and 51."""
    pieces, already, stored, _ = STORING[case]
    for steps in range(1, Service(already).play(pieces, store_first) + 1):
        service = Service(already)
        service.play(pieces, store_first, steps)
        service.lose_client()
        service.assert_nothing_stays()
        expected = stored if service.has_sent_all else already
        for name in {HELLO, *stored}:
            if name in expected:
                assert service.store.content(name) == expected[name], f"after {steps} steps"
            else:
                assert not service.store.holds(name), f"after {steps} steps"


@either_first
@pytest.mark.parametrize("case", STORING)
def test_an_upload_that_is_cut_off_at_any_step_leaves_all_of_its_files_or_none(
    case: str, store_first: bool
) -> None:
    """Case 1. Once the first file's publish has begun, all of the form's files are published."""
    pieces, already, stored, _ = STORING[case]
    outcomes = set()
    for steps in range(1, Service(already).play(pieces, store_first) + 1):
        service = Service(already)
        service.play(pieces, store_first, steps)
        published = service.store.begun("publish") or not outcome(service.library.drain())
        outcomes.add(published)
        service.cut()
        service.assert_nothing_stays()
        expected = stored if published else already
        for name in {HELLO, *stored}:
            if name in expected:
                assert service.store.content(name) == expected[name], f"after {steps} steps"
            else:
                assert not service.store.holds(name), f"after {steps} steps"
    assert outcomes == OUTCOMES.get(case, {True, False}), "each was seen"


@either_first
@pytest.mark.parametrize("case", OTHERS)
def test_any_other_request_that_is_cut_off_at_any_step_leaves_nothing(
    case: str, store_first: bool
) -> None:
    """Case 25."""
    pieces, status = OTHERS[case]
    already = {HELLO: bytes(600_000)}
    whole = Service(already)
    steps_of_all = whole.play(pieces, store_first)
    assert status_of(whole.connection) == status
    for steps in range(1, steps_of_all + 1):
        service = Service(already)
        service.play(pieces, store_first, steps)
        asked = service.store.begun("delete")
        service.cut()
        service.assert_nothing_stays()
        assert service.store.holds(HELLO) is not asked


def test_an_upload_whose_name_is_taken_after_the_client_has_left_leaves_nothing() -> None:
    """Case 2."""
    pieces = STORING["PUT"][0]
    service = Service({})
    while not service.store.begun("publish"):
        service.play(pieces[:1], True, 1)
        pieces = pieces[1:]
        while service.store.waiting and not service.store.begun("publish"):
            service.store.step()
    service.store.held = False
    other = service.store.begin()
    result(other.publish(HELLO))
    other.discard()
    service.cut()
    service.assert_nothing_stays()
    assert service.store.content(HELLO) == b""


@pytest.mark.parametrize("case", ["PUT", "multipart", "urlencoded"])
def test_a_write_that_fails_after_the_client_has_left_is_not_logged(case: str) -> None:
    """Case 10."""
    service = Service({}, capacity=10)
    pieces = list(STORING[case][0])
    while not service.store.begun("append"):
        service.play([pieces.pop(0)], store_first=False, steps=1)
    service.cut()
    assert "append" in service.store.done
    service.assert_nothing_stays()
    assert not service.store.holds(HELLO)


def test_uploads_that_are_cut_off_make_room_for_others() -> None:
    pieces = STORING["PUT"][0]
    service = Service({})
    service.library.upload_slots = Slots(1, 0.0)
    service.play(pieces[:2], True)
    waiting = Connection(service.site, service.clock)
    waiting.send(pieces[0])
    assert status_of(waiting) == 503
    service.cut()
    service.connection = Connection(service.site, service.clock)
    service.play(pieces, True)
    assert status_of(service.connection) == 201

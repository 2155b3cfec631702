"""Forms that take long to decode are decoded in several turns of the event loop (case 85)."""

from __future__ import annotations

import pytest

from tests.http.connection import Connection
from tests.process.exchange import MULTIPART, form, part, request
from tests.turning import TurningClock
from twistedmedia.fairness.loop_queue import PIECE_BYTES, TURN_S
from twistedmedia.http.site import MediaSite
from twistedmedia.library.library import Library
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.store.memory import MemoryStore
from twistedmedia.web.tree import media_resource

LOOK_S = TURN_S / 10
# As many parts of each kind as a form may have. The files have neither a name nor content, so that
# forms do not wait for the store.
PARTS = [part("a", "", b"") for _ in range(256)] + [part("b", None, b"x") for _ in range(64)]


@pytest.mark.parametrize("count", [1, 16])
def test_a_form_of_many_parts_is_decoded_in_many_turns(count: int) -> None:
    """Case 85."""
    clock = TurningClock(LOOK_S)
    site = MediaSite(media_resource(Library(MemoryStore(), UploadLimits())), reactor=clock)
    forms = [Connection(site, clock) for _ in range(count)]
    for connection in forms:
        connection.send(request("POST", "/media", form(*PARTS), {"Content-Type": MULTIPART}))
    for _ in range(10):
        clock.turn()
    normal = Connection(site, clock)
    normal.send(request("GET", "/openapi.json"))
    for _ in range(4):
        clock.turn()
    assert normal.statuses() == [200]
    assert [connection.received for connection in forms] == [b""] * count
    for _ in range(120 * count):
        clock.turn()
    for connection in forms:
        (answer,) = connection.answers()
        assert (answer.status, b'"code": 502' in answer.content) == (400, True)


def test_dropped_content_of_a_form_takes_turns_of_the_site() -> None:
    """Case 85."""
    clock = TurningClock(LOOK_S)
    site = MediaSite(media_resource(Library(MemoryStore(), UploadLimits())), reactor=clock)
    connection = Connection(site, clock)
    content = form(part("other", None, b"x" * 4 * PIECE_BYTES))
    connection.send(request("POST", "/media", content, {"Content-Type": MULTIPART}))
    for _ in range(200):
        clock.turn()
    (answer,) = connection.answers()
    assert (answer.status, b'"code": 502' in answer.content) == (400, True)

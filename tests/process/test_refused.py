"""The table of malformed and unusual requests, over a socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.process.exchange import Connection, request
from tests.process.malformed import (
    ACCEPTED,
    BARE,
    DIRECTORY,
    DOCUMENT,
    NOTHING,
    REFUSED,
    SMUGGLED,
    STORED,
    VICTIM,
    VICTIM_CONTENT,
    Row,
    document,
)
from tests.process.running import NOWHERE, Process, drafts_in, eventually

# Requests that an attacker would try to smuggle past a proxy.
SMUGGLING = request("PUT", SMUGGLED, b"x") + request("DELETE", VICTIM)
SINGLE_BYTES = 400  # at the end of a request, sent one by one


@pytest.fixture(scope="module", autouse=True)
def no_descriptor_is_left(service: Process) -> Iterator[None]:
    """No descriptor is left after all tests."""
    with service.unchanged_descriptors():
        yield


@pytest.fixture(autouse=True)
def victim(service: Process) -> Iterator[None]:
    """A file that exists before each request."""
    folder = service.root / DIRECTORY
    folder.mkdir()
    (folder / "victim.wav").write_bytes(VICTIM_CONTENT)
    yield
    shutil.rmtree(folder)


def send_at_once(connection: Connection, data: bytes) -> None:
    """Send all of `data`, unless the service has closed the connection already."""
    with contextlib.suppress(ConnectionError):
        connection.send(data)


def send_byte_by_byte(connection: Connection, data: bytes) -> None:
    """Send each byte in its own segment; the beginning of a long request in one."""
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(ConnectionError):
        connection.send(data[:-SINGLE_BYTES])
        for byte in data[-SINGLE_BYTES:]:
            connection.send(bytes([byte]))


def refusal(connection: Connection, row: Row) -> None:
    """The next response is the row's, and the last one: the connection ends without a reset."""
    answer = connection.answer()
    assert answer.brief == (row.status, row.code)
    assert answer.headers["Connection"] == "close"
    assert answer.headers["Server"] == "twistedmedia"
    assert answer.headers["Date"]
    assert connection.read(-1) == b""


def nothing_has_happened(service: Process) -> None:
    """Check that a new connection works, and that no file has changed."""
    assert service.ask("GET", VICTIM).content == VICTIM_CONTENT
    assert os.listdir(service.root / DIRECTORY) == ["victim.wav"]
    eventually("no draft is left", lambda: drafts_in(service.root) == [])


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_malformed_requests_are_refused_and_nothing_behind_them_is_a_request(
    service: Process, row: Row
) -> None:
    with service.connect() as connection:
        send_at_once(connection, row.sent + SMUGGLING)
        refusal(connection, row)
    nothing_has_happened(service)


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_malformed_requests_are_refused_byte_by_byte_without_waiting_for_more(
    service: Process, row: Row
) -> None:
    with service.connect() as connection:
        send_byte_by_byte(connection, row.sent)
        refusal(connection, row)
        send_at_once(connection, SMUGGLING)
    nothing_has_happened(service)


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_malformed_requests_are_refused_behind_a_valid_request(service: Process, row: Row) -> None:
    with service.connect() as connection:
        send_at_once(connection, request("GET", NOWHERE) + row.sent + SMUGGLING)
        assert connection.answer().brief == (404, 404)
        refusal(connection, row)
    nothing_has_happened(service)


@pytest.mark.parametrize("send", [send_at_once, send_byte_by_byte])
@pytest.mark.parametrize("row", ACCEPTED, ids=str)
def test_unusual_requests_are_understood_and_followed_by_the_next_request(
    service: Process, row: Row, send: Callable[[Connection, bytes], None]
) -> None:
    with service.connect() as connection:
        send(connection, row.sent + request("GET", VICTIM))
        answer = connection.answer()
        assert answer.status == row.status
        if answer.status == 200:
            assert answer.content == VICTIM_CONTENT
        else:
            assert answer.brief == (row.status, row.code)
        assert (answer.headers["Allow"] is not None) == (answer.status == 405)
        if not row.is_last:
            assert connection.answer().content == VICTIM_CONTENT
            connection.socket.shutdown(socket.SHUT_WR)
        assert connection.read(-1) == b""
    stored = service.root / DIRECTORY / os.path.basename(STORED)
    assert (stored.read_bytes() if stored.exists() else None) == row.stored


def test_every_row_is_another_request_and_every_difference_has_its_reason() -> None:
    rows = REFUSED + ACCEPTED
    assert len({row.sent for row in rows}) == len({str(row) for row in rows}) == len(rows)
    assert len(REFUSED) > 200
    assert len(ACCEPTED) > 40
    for row in rows:
        assert row.nginx != str(row.status)
        assert row.nginx is None or row.nginx in (NOTHING, BARE) or int(row.nginx)
        assert (row.nginx is None) == (row.why == "")
        assert not set("|`") & set(row.shown), "the table would break"
    assert all(row.status >= 400 and row.stored is None for row in REFUSED)


def test_the_table_of_the_docs_is_this_one() -> None:
    """`python -m tests.process.malformed` writes it."""
    assert DOCUMENT.read_text(encoding="utf-8") == document()

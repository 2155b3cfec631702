"""Requests that are conditional or ask for a part: the table, over a socket."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.process.conditional import (
    DIRECTORY,
    DOCUMENT,
    FILES,
    MODIFIED,
    ROWS,
    Row,
    ask,
    document,
    observed,
    put_files,
    sent,
)
from tests.process.exchange import Connection, head
from tests.process.running import Process

# A header that is looked through once may cost its length once more: matching 3,000 tags takes half
# a millisecond, as much as all else of such a request. Steps in Python for each of them would take
# several, and a second look at everything from every place a thousand times as much.
DEAREST = 4.0  # times a header that nobody looks at
DEAREST_RANGES = 1.5  # as above, of several ranges, which are not even counted
ROUNDS, MOST_ROUNDS = 5, 25
REQUESTS = 20  # a round


@pytest.fixture(scope="module")
def connection(service: Process) -> Iterator[Connection]:
    """To a service with the files of the table."""
    put_files(service.root)
    with service.connect() as connection:
        yield connection


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_answer_is_the_one_in_the_table(connection: Connection, row: Row) -> None:
    """Cases 20, 21 and 45."""
    answer = ask(connection, row, "/media")
    assert observed(row, answer) == row.response
    headers = answer.headers
    if row.status >= 400:
        if row.method == "GET":
            assert answer.brief == (row.status, row.status)
        assert (headers["ETag"], headers["Last-Modified"]) == (None, None)
        return
    # RFC 9110, 15.4.5: a 304 has what a 200 says to caches, and nothing about a content.
    assert headers["ETag"] is not None
    assert headers["Cache-Control"] == "no-cache"
    if FILES[row.name] is FILES["digits.wav"]:
        assert headers["Last-Modified"] == MODIFIED
    if row.status == 304:
        assert answer.content == b""
        assert not {"Content-Type", "Content-Disposition"} & set(headers)
        assert headers["Content-Length"] is None
    else:
        assert headers["Accept-Ranges"] == "bytes"
        assert headers["Content-Type"] == "audio/wav"


@pytest.mark.parametrize("row", [row for row in ROWS if row.is_long], ids=str)
def test_a_long_header_costs_what_any_header_of_its_length_does(
    service: Process, connection: Connection, row: Row
) -> None:
    """Case 20: 3,000 ranges, and whatever else is long in the table. What is compared is processor
    time of the service, which other programs hardly change, and the least of several rounds; of
    more, when they leave a doubt: what costs too much costs it in every round.
    """
    hostile = sent(connection, row, "/media")
    target = f"/media/{DIRECTORY}/{row.name}"
    padding = "x" * (len(hostile) - len(head("GET", target)) - len("X-Filler: \r\n"))
    harmless = head("GET", target, [("X-Filler", padding)])
    assert len(hostile) == len(harmless) > 2000

    def cost(data: bytes) -> float:
        started = _processor_time(service)
        for _ in range(REQUESTS):
            connection.send(data)
            connection.answer()
        return _processor_time(service) - started

    ranges = sum(value.count("-") for name, value in row.headers if name == "Range")
    dearest = DEAREST_RANGES if ranges > 1 else DEAREST
    least = usual = float("inf")
    for done in range(1, MOST_ROUNDS + 1):
        least, usual = min(least, cost(hostile)), min(usual, cost(harmless))
        if done >= ROUNDS and least < dearest * usual:
            break
    assert least < dearest * usual


def _processor_time(service: Process) -> float:
    """Seconds, to the nanosecond; clock_getcpuclockid(3) makes the clock's number so."""
    return time.clock_gettime(~service.pid << 3 | 2)


def test_every_row_is_another_request_and_every_difference_has_its_reason() -> None:
    assert len({(row.method, row.name, row.headers) for row in ROWS}) == len(ROWS) > 200
    assert len({str(row) for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.nginx != row.response
        assert (row.nginx is None) == (row.why == "")


def test_the_table_of_the_docs_is_this_one() -> None:
    """`python -m tests.process.conditional` writes it."""
    assert DOCUMENT.read_text(encoding="utf-8") == document()

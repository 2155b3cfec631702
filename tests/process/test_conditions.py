"""The table of conditional requests and ranges, over a socket."""

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

# One pass over a header may double the cost of a request: matching 3,000 tags takes 0.5 ms, as much
# as everything else. A step in Python for each tag would take several ms, and backtracking a
# thousand times as much.
MAX_RATIO = 4.0  # to the cost of an ignored header of the same length
MAX_RANGES_RATIO = 1.5  # as above, for several ranges, which are not even counted
ROUNDS, MAX_ROUNDS = 5, 25
REQUESTS = 20  # in a round


@pytest.fixture(scope="module")
def connection(service: Process) -> Iterator[Connection]:
    """A connection to a service with the files of the table."""
    put_files(service.root)
    with service.connect() as connection:
        yield connection


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_response_is_the_one_in_the_table(connection: Connection, row: Row) -> None:
    """Cases 20, 21 and 45."""
    answer = ask(connection, row, "/media")
    assert observed(row, answer) == row.response
    headers = answer.headers
    if row.status >= 400:
        if row.method == "GET":
            assert answer.brief == (row.status, row.status)
        assert (headers["ETag"], headers["Last-Modified"]) == (None, None)
        return
    # RFC 9110, 15.4.5: a 304 has the fields of a 200 for caches, and none that describe content.
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
def test_a_long_header_costs_as_much_as_any_header_of_its_length(
    service: Process, connection: Connection, row: Row
) -> None:
    """Case 20: 3,000 ranges, and the other long headers of the table. Compares processor times of
    the service, which other programs hardly affect: the least of several rounds, and of more rounds
    if the ratio is too large. A real cost is there in every round.
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
    max_ratio = MAX_RANGES_RATIO if ranges > 1 else MAX_RATIO
    least = usual = float("inf")
    for done in range(1, MAX_ROUNDS + 1):
        least, usual = min(least, cost(hostile)), min(usual, cost(harmless))
        if done >= ROUNDS and least < max_ratio * usual:
            break
    assert least < max_ratio * usual


def _processor_time(service: Process) -> float:
    """In seconds. The clock's number is calculated as by clock_getcpuclockid(3)."""
    return time.clock_gettime(~service.pid << 3 | 2)


def test_rows_are_distinct_and_each_difference_has_a_reason() -> None:
    assert len({(row.method, row.name, row.headers) for row in ROWS}) == len(ROWS) > 200
    assert len({str(row) for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.nginx != row.response
        assert (row.nginx is None) == (row.why == "")


def test_the_page_in_docs_is_up_to_date() -> None:
    """`python -m tests.process.conditional` writes it."""
    assert DOCUMENT.read_text(encoding="utf-8") == document()

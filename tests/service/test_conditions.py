"""Requests that are conditional or ask for a part: the table, over a socket."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.service.conditional import (
    DIGITS,
    DIRECTORY,
    FILES,
    GROUPS,
    MODIFIED,
    ROWS,
    Row,
    ask,
    document,
    observed,
    put_files,
)
from tests.service.exchange import Connection
from tests.service.running import Process

DOCUMENT = Path(__file__).parents[2] / "docs" / "conditions.md"


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
    assert observed(row, answer) == row.answer
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

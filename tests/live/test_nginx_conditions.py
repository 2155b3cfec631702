"""nginx's answers to the table of conditional requests, which is where docs/conditions.md has them
from.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.servers import nginx_of_files
from tests.process.conditional import ROWS, Row, ask, observed, put_files
from tests.process.exchange import Connection

SETTINGS = "large_client_header_buffers 4 32k;"


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one with the files of the table."""
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "files").mkdir()
    put_files(folder / "files")
    with nginx_of_files(folder, SETTINGS) as port:
        yield port


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_nginx_answers_as_the_table_says(nginx: int, row: Row) -> None:
    with Connection(nginx) as connection:
        answer = ask(connection, row, "")
    assert observed(row, answer) == (row.nginx or row.response)

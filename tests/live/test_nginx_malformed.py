"""nginx's answers to the table of malformed requests, which is where docs/malformed.md has them
from.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.servers import nginx_of_files
from tests.process.exchange import Connection
from tests.process.malformed import (
    ACCEPTED,
    BARE,
    DIRECTORY,
    NOTHING,
    REFUSED,
    STORED,
    VICTIM_CONTENT,
    Row,
)

SETTINGS = """
    large_client_header_buffers 2 16k;
    dav_methods PUT DELETE;
    location = / { return 404; }
"""


@dataclass(frozen=True)
class Nginx:
    """One that runs, and the folder of its media."""

    port: int
    root: Path


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """It stores files as the service does."""
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "files" / "media").mkdir(parents=True)
    with nginx_of_files(folder, SETTINGS) as port:
        yield Nginx(port, folder / "files" / "media")


@pytest.fixture(autouse=True)
def folder(nginx: Nginx) -> Iterator[Path]:
    """What a request finds, and nothing of those before it."""
    folder = nginx.root / DIRECTORY
    folder.mkdir()
    (folder / "victim.wav").write_bytes(VICTIM_CONTENT)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("row", REFUSED + ACCEPTED, ids=str)
def test_nginx_answers_as_the_table_says(nginx: Nginx, folder: Path, row: Row) -> None:
    with Connection(nginx.port) as connection:
        connection.send(row.sent)
        connection.socket.shutdown(socket.SHUT_WR)
        answers = connection.read_to_the_end()
    expected = row.nginx or str(row.status)
    assert _observed(answers) == expected
    assert (folder / os.path.basename(STORED)).exists() == (expected == "201")


def _observed(answers: bytes) -> str:
    """In the words of the table. There are several statuses when what is one request to the service
    is several to nginx.
    """
    if answers == VICTIM_CONTENT:
        return BARE
    statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)
    return ", ".join(status.decode() for status in statuses) or NOTHING

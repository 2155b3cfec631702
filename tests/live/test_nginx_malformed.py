"""nginx's answers to the table of malformed requests, which is where docs/malformed.md has them
from.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.service.exchange import Connection
from tests.service.malformed import (
    BARE,
    DIRECTORY,
    NOTHING,
    REFUSED,
    STORED,
    UNDERSTOOD,
    VICTIM_CONTENT,
    Row,
)
from tests.service.running import eventually

# One process in the foreground, as who runs the tests. It writes nowhere but into its folder.
CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
events {}
http {
    types { audio/wav wav; }
    access_log off;
    client_body_temp_path temporary;
    proxy_temp_path temporary;
    fastcgi_temp_path temporary;
    uwsgi_temp_path temporary;
    scgi_temp_path temporary;
    large_client_header_buffers 2 16k;
    server {
        listen 127.0.0.1:%d reuseport;
        root files;
        dav_methods PUT DELETE;
        location = / { return 404; }
    }
}
"""
STOP_S = 10.0


@dataclass(frozen=True)
class Nginx:
    """One that runs, and the folder of its media."""

    port: int
    root: Path


def _program() -> str:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which("nginx", path=path)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """It stores files as the service does."""
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "files" / "media").mkdir(parents=True)
    log = folder / "error.log"
    with socket.socket() as reserved:
        # Bound and never listening: the port is free for nginx, and for nobody who does not share.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        (folder / "nginx.conf").write_text(CONFIGURATION % port, encoding="ascii")
        process = subprocess.Popen([_program(), "-p", folder, "-e", log, "-c", "nginx.conf"])
        try:
            eventually("nginx listens", lambda: _listens(process, port))
            yield Nginx(port, folder / "files" / "media")
            process.terminate()
            assert process.wait(STOP_S) == 0, log.read_text(encoding="utf-8")
        finally:
            process.kill()
            process.wait()


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "nginx has ended"
    try:
        Connection(port).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture(autouse=True)
def folder(nginx: Nginx) -> Iterator[Path]:
    """What a request finds, and nothing of those before it."""
    folder = nginx.root / DIRECTORY
    folder.mkdir()
    (folder / "victim.wav").write_bytes(VICTIM_CONTENT)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("row", REFUSED + UNDERSTOOD, ids=str)
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

"""nginx's answers to the table of conditional requests, which is where docs/conditions.md has them
from.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.service.conditional import ROWS, Row, ask, observed, put_files
from tests.service.exchange import Connection
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
    large_client_header_buffers 4 32k;
    server {
        listen 127.0.0.1:%d reuseport;
        root files;
    }
}
"""
STOP_S = 10.0


def _program() -> str:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which("nginx", path=path)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one with the files of the table."""
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "files").mkdir()
    put_files(folder / "files")
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
            yield port
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


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_nginx_answers_as_the_table_says(nginx: int, row: Row) -> None:
    with Connection(nginx) as connection:
        answer = ask(connection, row, "")
    assert observed(row, answer) == (row.nginx or row.answer)

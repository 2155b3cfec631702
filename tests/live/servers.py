"""Servers from Debian, to compare with or to go through: each one process in the foreground, as who
runs the tests. They write nowhere but into their folders.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.process.running import connects, eventually

Command = list[str | Path]

STOP_S = 10.0
_NGINX = """
daemon off;
master_process off;
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path temporary;
    proxy_temp_path temporary;
    fastcgi_temp_path temporary;
    uwsgi_temp_path temporary;
    scgi_temp_path temporary;
    %s
}
"""
_FILES = """
server {
    listen 127.0.0.1:%d reuseport;
    root files;
    types { audio/wav wav; }
    %s
}
"""


def program(name: str) -> str:
    """Where it is. Servers are where only root looks."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which(name, path=path)
    assert found is not None, name
    return found


@contextmanager
def listening(
    command: Command, port: int, folder: Path, more: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A server that runs in `folder` as long as its context, with `more` in its environment."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(more or {})}, stdout=output, stderr=output
        )

    def listens() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        return connects(port)

    try:
        eventually("the server listens", listens)
        yield
        process.terminate()
        assert process.wait(STOP_S) == 0, log.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()


def nginx(folder: Path, http: str) -> Command:
    """The command of one in `folder`, with this in the block `http` of its configuration."""
    (folder / "nginx.conf").write_text(_NGINX % http, encoding="ascii")
    return [program("nginx"), "-p", folder, "-e", "stderr", "-c", "nginx.conf"]


@contextmanager
def nginx_of_files(folder: Path, settings: str) -> Iterator[int]:
    """The port of one that answers with what is in the folder `files`, and has these settings."""
    with socket.socket() as reserved:
        # Bound and never listening: the port is free for nginx, and for nobody who does not share.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        with listening(nginx(folder, _FILES % (port, settings)), port, folder):
            yield port

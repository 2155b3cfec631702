"""
A peer: plain Klein routes under a stock Site.

Twisted spools the whole body and parses forms in memory before a route runs; the route has a thread
write the file. Files are served by Twisted's own ``static.File``.
Usage: ``python bench/peers/klein_plain.py --port N --dir DIR``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path
from typing import BinaryIO, cast

from klein import Klein
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.web.server import Request, Site
from twisted.web.static import File

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lateness import LatenessProbe

# Twisted's form parser drops filenames. The part's own header, near the start of the body, has it.
_FILENAME = re.compile(rb'filename="([^"]*)"')
_HEADER_BYTES = 4096


def _folder(root: Path, directory: str) -> Path:
    folder = root / directory
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(root: Path, directory: str, filename: str, body: bytes) -> None:
    (_folder(root, directory) / filename).write_bytes(body)


def _copy(root: Path, directory: str, filename: str, content: BinaryIO) -> None:
    with open(_folder(root, directory) / filename, "wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def media_routes(root: Path) -> Klein:
    """The routes: a form with one file, an urlencoded form, PUT, or GET."""
    app = Klein()
    files = File(str(root))

    @app.route("/media", methods=["POST"])
    async def post(request: Request) -> bytes:
        if b"body" in request.args:
            directory, filename, body = (
                request.args[name][0] for name in (b"directory", b"filename", b"body")
            )
        else:
            ((directory, (body,)),) = request.args.items()
            content = cast(BinaryIO, request.content)
            content.seek(0)
            found = _FILENAME.search(content.read(_HEADER_BYTES))
            if found is None:
                request.setResponseCode(400)
                return b"no filename\n"
            filename = found.group(1)
        await deferToThread(_write, root, directory.decode(), filename.decode(), body)
        return b"stored\n"

    @app.route("/media/<path:name>", methods=["PUT"])
    async def put(request: Request, name: str) -> bytes:
        directory, _, filename = name.rpartition("/")
        await deferToThread(_copy, root, directory, filename, cast(BinaryIO, request.content))
        return b"stored\n"

    @app.route("/media/", methods=["GET"], branch=True)
    def get(request: Request) -> File:
        return files

    return app


def main() -> None:
    """Read the command line and serve until a signal comes."""
    parser = argparse.ArgumentParser(description="plain Klein under a stock Site")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dir", type=Path, required=True, help="the folder that holds the files")
    parser.add_argument("--lateness", type=Path, help="measure the loop's lateness, write it here")
    arguments = parser.parse_args()
    if arguments.lateness is not None:
        probe = LatenessProbe(reactor.callLater)
        reactor.callWhenRunning(probe.start)
        reactor.addSystemEventTrigger("after", "shutdown", probe.dump, arguments.lateness)
    site = Site(media_routes(arguments.dir).resource())
    reactor.listenTCP(arguments.port, site, interface="127.0.0.1")  # type: ignore[arg-type]
    reactor.run()


if __name__ == "__main__":
    main()

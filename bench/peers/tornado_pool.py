"""
A peer: the upload service of many Tornado tutorials, with a raised body limit.

The whole request is held in memory and parsed there; a thread pool of five writes the files; a
download is read into memory in the event loop.
Usage: ``python bench/peers/tornado_pool.py --port N --dir DIR``.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tornado.concurrent import run_on_executor
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lateness import LatenessProbe

MAX_BODY_BYTES = 8 << 30


class MediaHandler(RequestHandler):
    """Stores and serves files under a root; the directory is made when it is missing."""

    executor = ThreadPoolExecutor(5)

    def initialize(self, root: Path) -> None:
        self.root = root

    @run_on_executor
    def _write(self, directory: str, filename: str, body: bytes) -> None:
        folder = self.root / directory
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / filename, "wb") as file:
            file.write(body)

    async def post(self, _name: str) -> None:
        if self.request.files:
            for directory, files in self.request.files.items():
                for file in files:
                    await self._write(directory, file["filename"], file["body"])
        else:
            # get_argument insists on UTF-8, which audio is not.
            body = self.request.body_arguments["body"][0]
            await self._write(self.get_argument("directory"), self.get_argument("filename"), body)
        self.write({"code": 200})

    async def put(self, name: str) -> None:
        directory, _, filename = name.rpartition("/")
        await self._write(directory, filename, self.request.body)
        self.write({"code": 200})

    def get(self, name: str) -> None:
        try:
            with open(self.root / name, "rb") as file:
                self.write(file.read())
        except FileNotFoundError:
            raise HTTPError(404) from None
        self.set_header("Content-Type", "application/octet-stream")


async def serve(port: int, root: Path, lateness: Path | None) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    probe = LatenessProbe(loop.call_later)
    if lateness is not None:
        probe.start()
    application = Application([(r"/media/?(.*)", MediaHandler, {"root": root})])
    server = HTTPServer(application, max_body_size=MAX_BODY_BYTES, max_buffer_size=MAX_BODY_BYTES)
    server.listen(port, "127.0.0.1")
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    if lateness is not None:
        probe.dump(lateness)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="Tornado, the body in memory, a pool that writes")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dir", type=Path, required=True, help="the folder that holds the files")
    parser.add_argument("--lateness", type=Path, help="measure the loop's lateness, write it here")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.dir, arguments.lateness))


if __name__ == "__main__":
    main()

"""
A peer: aiohttp, streaming, written with care.

Forms and PUT bodies are read piece by piece and written by threads to a hidden name, which is
renamed when the file is complete. With ``--fsync`` the file is synced before it is renamed. It
neither hashes, nor refuses a second upload to a name, nor syncs folders. An urlencoded form is read
whole, as aiohttp has no way to stream one.
Usage: ``python bench/peers/aiohttp_stream.py --port N --dir DIR [--fsync]``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import parse_qs

from aiohttp import BodyPartReader, web

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lateness import LatenessProbe

CHUNK_BYTES = 1 << 18
# So that the next chunks can arrive while a thread writes one.
READ_BUFFER_BYTES = 1 << 20
MAX_BODY_BYTES = 1 << 40

Result = TypeVar("Result")


async def _in_thread(work: Callable[..., Result], *arguments: object) -> Result:
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def _begin(path: Path) -> tuple[Path, BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{uuid.uuid4().hex}")
    return draft, open(draft, "wb")


def _finish(draft: Path, file: BinaryIO, path: Path, fsync: bool) -> None:
    file.flush()
    if fsync:
        os.fsync(file.fileno())
    file.close()
    os.rename(draft, path)


def _discard(draft: Path, file: BinaryIO) -> None:
    file.close()
    draft.unlink()


async def _one(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


async def _part_chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(CHUNK_BYTES):
        yield chunk


def _parse_urlencoded(body: bytes) -> dict[str, list[str]]:
    # Latin-1 maps every byte to one character, so that what is encoded again is what was sent.
    return parse_qs(body.decode("ascii"), encoding="latin-1", strict_parsing=True)


class Media:
    """The handlers, for one root."""

    def __init__(self, root: Path, fsync: bool) -> None:
        self._root = root
        self._fsync = fsync

    async def _store(self, directory: str, filename: str, chunks: AsyncIterator[bytes]) -> None:
        path = self._root / directory / filename
        draft, file = await _in_thread(_begin, path)
        try:
            async for chunk in chunks:
                await _in_thread(file.write, chunk)
            await _in_thread(_finish, draft, file, path, self._fsync)
        except BaseException:
            _discard(draft, file)
            raise

    async def post(self, request: web.Request) -> web.Response:
        """A form, multipart or urlencoded."""
        if request.content_type == "multipart/form-data":
            async for part in await request.multipart():
                if isinstance(part, BodyPartReader) and part.name and part.filename:
                    await self._store(part.name, part.filename, _part_chunks(part))
        else:
            fields = await _in_thread(_parse_urlencoded, await request.read())
            body = fields["body"][0].encode("latin-1")
            await self._store(fields["directory"][0], fields["filename"][0], _one(body))
        return web.json_response({"code": 200})

    async def put(self, request: web.Request) -> web.Response:
        """The content is the file."""
        directory, _, filename = request.match_info["name"].rpartition("/")
        await self._store(directory, filename, request.content.iter_chunked(CHUNK_BYTES))
        return web.json_response({"code": 200})

    async def get(self, request: web.Request) -> web.FileResponse:
        """The file, by sendfile."""
        return web.FileResponse(self._root / request.match_info["name"])


async def serve(port: int, root: Path, fsync: bool, lateness: Path | None) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    probe = LatenessProbe(loop.call_later)
    if lateness is not None:
        probe.start()
    media = Media(root, fsync)
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.add_routes(
        [
            web.post("/media", media.post),
            web.put("/media/{name:.+}", media.put),
            web.get("/media/{name:.+}", media.get),
        ]
    )
    runner = web.AppRunner(
        app, access_log=None, read_bufsize=READ_BUFFER_BYTES, shutdown_timeout=1.0
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    if lateness is not None:
        probe.dump(lateness)
    await runner.cleanup()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="aiohttp, streaming")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dir", type=Path, required=True, help="the folder that holds the files")
    parser.add_argument("--fsync", action="store_true", help="sync each file before the answer")
    parser.add_argument("--lateness", type=Path, help="measure the loop's lateness, write it here")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.dir, arguments.fsync, arguments.lateness))


if __name__ == "__main__":
    main()

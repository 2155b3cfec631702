"""Sends and fetches one file with aiohttp: `OPERATION URL FILE`, and for a form its directory.

For a form the file's part is named by the directory. Any response but a success is a failure.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """The content, of which aiohttp does not know the length."""
    for start in range(0, len(content), 50_000):
        yield content[start : start + 50_000]


def form_of(directory: str, filename: str, content: bytes) -> aiohttp.FormData:
    """By default aiohttp writes percent signs and hex digits for what is not ASCII in a name, which
    nothing tells apart from a name that has them.
    """
    form = aiohttp.FormData(quote_fields=False)
    form.add_field(directory, content, filename=filename)
    return form


async def main(operation: str, url: str, filename: str, directory: str, content: bytes) -> bytes:
    """What is fetched is returned."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
        match operation:
            case "put":
                response = await session.put(url, data=content)
            case "form":
                response = await session.post(url, data=form_of(directory, filename, content))
            case "chunked":
                response = await session.put(url, data=pieces(content))
            case "expect":
                response = await session.put(url, data=content, expect100=True)
            case "download":
                response = await session.get(url)
            case "resume":
                response = await session.get(url, headers={"Range": f"bytes={len(content)}-"})
                assert response.status == 206, response.status
        return await response.read()


operation, url, name, *directory = sys.argv[1:]
path = Path(name)
content = path.read_bytes() if path.exists() else b""
received = asyncio.run(main(operation, url, path.name, "".join(directory), content))
if operation in ("download", "resume"):
    path.write_bytes(content + received)

"""Store an audio file, fetch it back, delete it: treq against a running twistedmedia service.

    python examples/upload.py FILE [http://127.0.0.1:8000]

FILE is sent as it is read and received as it is written: neither is ever in memory as a whole.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urljoin

import treq
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.task import react
from twisted.web.client import ResponseFailed
from twisted.web.error import SchemeNotSupported


async def store(service: str, path: Path) -> dict[str, Any]:
    """PUT `path` as `examples/<its name>`. Returns the file's entry in the answer."""
    url = urljoin(service, f"/media/examples/{quote(path.name)}")
    try:
        file = path.open("rb")
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None
    with file:
        response = await treq.put(url, data=file)
        answer = await response.json()
    if answer["code"] != 200:
        raise SystemExit(f"not stored: {answer['code']} {answer['reason']}")
    entry: dict[str, Any] = answer["files"][0]
    return entry


async def fetch(url: str, write: Callable[[bytes], object]) -> None:
    """GET `url`, handing each piece to `write` as it comes."""
    response = await treq.get(url, unbuffered=True)
    if response.code != 200:
        raise SystemExit(f"not fetched: HTTP {response.code}")
    await treq.collect(response, write)


async def delete(url: str) -> bool:
    """DELETE `url`. Returns whether there was such a file."""
    response = await treq.delete(url)
    return bool((await response.json())["deleted"])


async def main(path: Path, service: str) -> None:
    """Do the three in turn; a failure ends the program with a sentence and status 1."""
    try:
        await store_fetch_delete(path, service)
    except (ConnectError, DNSLookupError, ResponseFailed) as error:
        raise SystemExit(f"{service} cannot be reached: {error}") from None
    except (SchemeNotSupported, ValueError, LookupError, TypeError):
        raise SystemExit(f"{service} does not answer as a media service does") from None


async def store_fetch_delete(path: Path, service: str) -> None:
    """Do the three in turn and say what came of it."""
    entry = await store(service, path)
    url = urljoin(service, entry["url"])
    print(f"stored  {entry['size']} bytes at {url}")

    received = hashlib.sha256()
    copy: IO[bytes]
    with tempfile.TemporaryFile() as copy:

        def write(piece: bytes) -> None:
            copy.write(piece)
            received.update(piece)

        await fetch(url, write)
        print(f"fetched {copy.tell()} bytes, {_verdict(received.hexdigest() == entry['sha256'])}")

    print(f"deleted {await delete(url)}")


def _verdict(identical: bool) -> str:
    return "identical" if identical else "NOT IDENTICAL"


def _start(reactor: Any, file: str, service: str = "http://127.0.0.1:8000") -> Deferred[None]:
    return ensureDeferred(main(Path(file), service))


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        raise SystemExit(__doc__)
    react(_start, sys.argv[1:])

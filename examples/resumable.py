"""Store a file with a resumable upload and bring it back, with `twistedmedia.client`.

    python examples/resumable.py FILE [http://127.0.0.1:8000]

End it half-way and run it again: the upload goes on where it was. So does the download.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from twistedmedia.client import ClientError, MediaClient, Refused, UploadRecords

RECORDS = Path("unfinished-uploads")  # what an upload that was ended is gone on with from


def show(done: int, size: int | None) -> None:
    """Progress, where it is to be seen."""
    if sys.stderr.isatty() and size:
        print(f"\r{done * 100 // size:3} %", end="", file=sys.stderr)


async def main(reactor: Any, path: Path, service: str) -> None:
    """Do both, and say what came of it."""
    try:
        client = MediaClient(reactor, service)
    except ClientError as error:
        raise SystemExit(error.reason) from None
    copy = path.with_name(f"copy-of-{path.name}")
    try:
        stored = await client.upload(
            path, "examples", progress=show, resume_store=UploadRecords(RECORDS)
        )
        before = " (it was there before)" if stored.identical else ""
        print(f"stored     {stored.size} bytes at {stored.url}{before}")
        got = await client.download("examples", stored.filename, copy, progress=show)
        verified = "verified" if got.verified and got.sha256 == stored.sha256 else "NOT VERIFIED"
        print(f"downloaded {got.size} bytes to {got.path}, {verified}")
    except Refused as error:
        number = f"HTTP {error.status}" if error.code is None else f"code {error.code}"
        raise SystemExit(f"the service refuses: {error.reason} ({number})") from None
    except ClientError as error:
        raise SystemExit(f"it did not work: {error.reason}") from None
    finally:
        await client.close()


def _start(reactor: Any, file: str, service: str = "http://127.0.0.1:8000") -> Deferred[None]:
    return ensureDeferred(main(reactor, Path(file), service))


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        raise SystemExit(__doc__)
    react(_start, sys.argv[1:])

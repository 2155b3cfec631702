"""A directory's listing, page by page."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from twisted.web.server import Request

from twistedmedia.answers import OK, encode
from twistedmedia.boundaries import Entry, Page, Store
from twistedmedia.errors import BadRequest
from twistedmedia.names import decode, url_path
from twistedmedia.store.memory import MemoryMedia
from twistedmedia.web.requests import mounted_at
from twistedmedia.web.routing import Reply
from twistedmedia.wire.conditions import LAST_DATE_S
from twistedmedia.wire.sending import send

DEFAULT_LIMIT = 1_000
MAX_LIMIT = 10_000
_YEAR_1_S = -62_135_596_800
_NUMBER = re.compile("[0-9]{1,9}")


async def list_directory(request: Request, store: Store, folders: tuple[str, ...]) -> Reply | None:
    """Answer with the page of `folders` that the query asks for.

    :raises BadRequest: when the query makes no sense.
    :raises NotFound: when there is no such directory.
    """
    limit, after = _limit(request), _argument(request, "after")
    mounted = mounted_at(request)

    def render(page: Page) -> bytes:  # in the store's thread: the larger part of the work
        return _json(folders, page, mounted)

    body = await store.list(folders, after, limit, render)
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if request.method == b"HEAD":
        return Reply(200, headers, b"")
    for field, value in headers.items():
        request.setHeader(field, value)
    # A page can be megabytes, and its reader slow.
    await send(request, MemoryMedia(body, 0), 0, len(body))
    return None


def _json(folders: Sequence[str], page: Page, mounted: str) -> bytes:
    """The JSON of a page of the listing of `folders`; `mounted` is the path under which media are
    served. Entry by entry, because one call for thousands would hold the interpreter's lock.
    """
    prefix = "".join(f"{url_path([folder])}/" for folder in folders)
    base = f"{mounted}/{prefix}"
    entries = ",\n".join([_listed(entry, base) for entry in page.entries])
    last = page.entries[-1] if page.more else None
    tail = {"next": last.filename if isinstance(last, Entry) else last, "left_out": page.left_out}
    head = {**OK, "directory": "/".join(folders)}
    text = f'{encode(head)[:-1]}, "entries": [\n{entries}\n], {encode(tail)[1:]}\n'
    return text.encode()


def _listed(entry: Entry | str, base: str) -> str:
    if isinstance(entry, str):
        return encode({"name": entry, "url": f"{base}{url_path([entry[:-1]])}/"})
    return encode(
        {
            "name": entry.filename,
            "url": base + url_path([entry.filename]),
            "size": entry.size,
            "modified": _rfc3339(entry.modified_ns),
            "etag": entry.etag,
        }
    )


def _rfc3339(modified_ns: int) -> str | None:
    """UTC, to the millisecond, rounded down (RFC 3339, 5.6). None for a year that its four digits
    cannot say, and for the year 0, which many programs do not know.
    """
    seconds, rest_ns = divmod(modified_ns, 10**9)
    if not _YEAR_1_S <= seconds <= LAST_DATE_S:
        return None
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    date = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    return f"{date}.{rest_ns // 10**6:03}Z"


def _limit(request: Request) -> int:
    text = _argument(request, "limit") or str(DEFAULT_LIMIT)
    if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= MAX_LIMIT:
        raise BadRequest(f"'limit' is not a number from 1 to {MAX_LIMIT}")
    return int(text)


def _argument(request: Request, name: str) -> str:
    values = request.args.get(name.encode(), [b""])
    if len(values) > 1:
        raise BadRequest(f"'{name}' is given twice")
    return decode(values[0])

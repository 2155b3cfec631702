"""A directory's listing, page by page: what is asked for, and the JSON of a page."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from twisted.web.server import Request

from twistedmedia.errors import BadRequest
from twistedmedia.http.conditions import LAST_DATE_S
from twistedmedia.json_response import OK, Response, encode
from twistedmedia.names import decode, url_path
from twistedmedia.store.interface import Batch, ListedFile
from twistedmedia.web.arguments import mounted_at
from twistedmedia.web.listing_pages import Listings, Which

DEFAULT_LIMIT = 1_000
MAX_LIMIT = 10_000
_YEAR_1_S = -62_135_596_800
_NUMBER = re.compile("[0-9]{1,9}")


async def list_directory(
    request: Request, listings: Listings, folders: tuple[str, ...]
) -> Response | None:
    """Answer with the page of `folders` that the query asks for.

    :raises BadRequest: when the query makes no sense.
    :raises NotFound: when there is no such directory.
    :raises Busy: when there is no memory for the page.
    """
    limit, after = _limit(request), _argument(request, "after")
    page = await listings.page(request, Which(folders, after, limit, mounted_at(request)))
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(page.content)),
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if request.method == b"HEAD":
        return Response(200, headers, b"")
    await page.hold(request)
    with page.read_by(request):
        for field, value in headers.items():
            request.setHeader(field, value)
        await page.send(request)
    return None


async def check_directory(request: Request, listings: Listings, folders: tuple[str, ...]) -> None:
    """Look whether there is such a directory.

    :raises NotFound: when there is none.
    """
    await listings.page(request, Which(folders, "", 1, mounted_at(request)))


class PageText:
    """The JSON of a page, made entry by entry: one call for thousands would hold the interpreter's
    lock, and all entries together can be many megabytes.
    """

    def __init__(self, which: Which) -> None:
        prefix = "".join(f"{url_path([folder])}/" for folder in which.folders)
        self._base = f"{which.mounted}/{prefix}"
        head = {**OK, "directory": "/".join(which.folders)}
        self._before = f'{encode(head)[:-1]}, "entries": [\n'
        self._last: ListedFile | str | None = None

    def of(self, batch: Batch) -> Iterator[bytes]:
        """The part that `batch` is, the next one of the page."""
        for entry in batch.entries:
            yield f"{self._before}{_listed(entry, self._base)}".encode()
            self._before = ",\n"
            self._last = entry
        if batch.end is not None:
            before = "" if self._last is not None else self._before
            last = self._last if batch.end.more else None
            tail = {
                "next": last.filename if isinstance(last, ListedFile) else last,
                "left_out": batch.end.left_out,
            }
            yield f"{before}\n], {encode(tail)[1:]}\n".encode()


def _listed(entry: ListedFile | str, base: str) -> str:
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

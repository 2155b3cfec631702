"""Directory listings: the parameters of a request for a page, and the JSON of the page."""

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
from twistedmedia.web.arguments import route_path
from twistedmedia.web.listing_pages import ListingPages
from twistedmedia.web.page_content import PageKey

DEFAULT_LIMIT = 1_000
MAX_LIMIT = 10_000
_YEAR_1_S = -62_135_596_800
_NUMBER = re.compile("[0-9]{1,9}")


async def list_directory(
    request: Request, pages: ListingPages, folders: tuple[str, ...]
) -> Response | None:
    """Send the page of `folders` that the query asks for. Returns only the response to a HEAD.

    :raises BadRequest: if the query is invalid.
    :raises NotFound: if the directory does not exist.
    :raises Busy: if there is no memory for the page.
    """
    limit, after = _limit(request), _argument(request, "after")
    page = await pages.get(request, PageKey(folders, after, limit, route_path(request)))
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(page.content)),
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if request.method == b"HEAD":
        return Response(200, headers, b"")
    await page.take_memory(request)
    with page.sending_to(request):
        for field, value in headers.items():
            request.setHeader(field, value)
        await page.send(request)
    return None


async def check_directory(request: Request, pages: ListingPages, folders: tuple[str, ...]) -> None:
    """Check that a directory exists.

    :raises NotFound: if it does not.
    """
    await pages.get(request, PageKey(folders, "", 1, route_path(request)))


class JsonPageRenderer:
    """Renders the JSON of a page, entry by entry.

    One call for thousands of entries would hold the interpreter's lock, and all entries together
    can have many megabytes.
    """

    def __init__(self, key: PageKey) -> None:
        prefix = "".join(f"{url_path([folder])}/" for folder in key.folders)
        self._base = f"{key.route_path}/{prefix}"
        head = {**OK, "directory": "/".join(key.folders)}
        self._before = f'{encode(head)[:-1]}, "entries": [\n'
        self._last: ListedFile | str | None = None

    def render(self, batch: Batch) -> Iterator[bytes]:
        """Render `batch`, the next one of the page."""
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
    """Format a time in UTC, rounded down to the millisecond (RFC 3339, 5.6). None outside of the
    years 1 to 9999: more digits are invalid, and many programs do not know the year 0.
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

"""Listings of the service's directories, page by page, and of directory trees."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from twistedmedia.client.client_limits import MAX_PAGE_BYTES
from twistedmedia.client.exceptions import NOT_FOUND, Refused, TooManyEntries
from twistedmedia.client.locations import Service, check_utf8, folders_at
from twistedmedia.client.outcomes import Entry, Page, page
from twistedmedia.client.requester import Requester
from twistedmedia.names import MAX_NAME_BYTES, is_segment

# Entries that are returned as one list; they take some hundred MiB of memory.
MAX_LIST_ENTRIES = 1_000_000
# Called with a directory and the number of its entries that the service does not list.
OnLeftOut = Callable[[str, int], None]
_ALLOW_MORE = "allow more of them (max_entries=...), or name the directories one by one"
USE_WALK = "take them one by one (MediaClient.walk), or name the directories one by one"


async def get_page(
    requester: Requester, service: Service, directory: str, after: str | None
) -> Page:
    """The page of the listing of `directory` that begins after the name `after`.

    :raises Refused: with status 404 when there is no such directory.
    """
    folders = folders_at(directory)
    if after is not None:
        check_utf8(after, "name")
    url = service.listing(folders, after)
    response = await requester.retry(
        lambda: requester.request("GET", url, max_bytes=MAX_PAGE_BYTES)
    )
    return page(response.payload, "/".join(folders), after)


@dataclass
class _Directory:
    """A directory that is being walked. `subfolders` are the directories on its current page that
    have not been walked yet, in reverse order.
    """

    path: str
    after: str | None = None
    is_read: bool = False
    left_out: int = 0
    subfolders: list[str] = field(default_factory=list)


async def walk(
    requester: Requester,
    service: Service,
    directory: str,
    *,
    recursive: bool,
    on_left_out: OnLeftOut,
    max_entries: float,
    advice: str = _ALLOW_MORE,
) -> AsyncIterator[Entry]:
    """The entries of `directory`, in the service's order. With `recursive`, the files in it and in
    all directories below. A subdirectory that disappears meanwhile counts as empty.

    Memory holds one page of each directory on the path to the current one. A directory whose name
    breaks a rule for names cannot be requested and is left out. Names have at most 1,024 bytes, so
    the depth is bounded. `on_left_out` is called for each directory in which entries are left out.

    :raises Refused: with status 404 when there is no such directory.
    :raises TooManyEntries: when there are more than `max_entries`, directories included; its reason
        ends with the `advice`.
    """
    top = "/".join(folders_at(directory))
    seen = 0
    stack = [_Directory(top)]
    while stack:
        current = stack[-1]
        if current.subfolders:
            stack.append(_Directory(_joined(current.path, current.subfolders.pop())))
            continue
        if current.is_read:
            stack.pop()
            if current.left_out:
                on_left_out(current.path, current.left_out)
            continue
        try:
            page = await get_page(requester, service, current.path, current.after)
        except Refused as error:
            if error.code == NOT_FOUND and current.path != top:
                current.is_read = True
                continue
            raise
        seen += len(page.entries)
        check_entry_count(seen, max_entries, advice)
        current.left_out += page.left_out
        current.after, current.is_read = page.next, page.next is None
        if recursive:
            names = [entry.name for entry in page.entries if entry.is_directory]
            allowed = [name for name in reversed(names) if _is_allowed(current.path, name)]
            current.subfolders = allowed
            current.left_out += len(names) - len(allowed)
        for entry in page.entries:
            if not (recursive and entry.is_directory):
                yield entry


def check_entry_count(seen: int, max_entries: float, advice: str = _ALLOW_MORE) -> None:
    """Check that at most `max_entries` entries were `seen`.

    :raises TooManyEntries: with the `advice`, when there were more.
    """
    if seen > max_entries:
        raise TooManyEntries(max_entries, advice)


def _is_allowed(directory: str, name: str) -> bool:
    return is_segment(name) and len(_joined(directory, name).encode()) <= MAX_NAME_BYTES


def _joined(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name

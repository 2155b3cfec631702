"""What is stored at the service: listings, page by page, and folder by folder."""

from __future__ import annotations

from collections.abc import Callable

from twistedmedia.client.asking import Asking
from twistedmedia.client.errors import NOT_FOUND, Refused
from twistedmedia.client.outcomes import Entry, Page, page
from twistedmedia.client.places import Service, folders_at, sendable
from twistedmedia.names import is_segment

# Called with a directory and the number of entries in it that are not listed.
LeftOut = Callable[[str, int], None]


async def page_of(asking: Asking, service: Service, directory: str, after: str | None) -> Page:
    """The page of the listing of `directory` that begins behind the name `after`.

    :raises Refused: with status 404 when there is no such directory.
    """
    folders = folders_at(directory)
    if after is not None:
        sendable(after, "name")
    url = service.listing(folders, after)
    answer = await asking.persist(lambda: asking.ask("GET", url))
    return page(answer.payload, "/".join(folders), after)


async def entries_in(
    asking: Asking, service: Service, directory: str, left_out: LeftOut
) -> list[Entry]:
    """All that is in `directory`, in the service's order. `left_out` is called at most once.

    :raises Refused: with status 404 when there is no such directory.
    """
    found: list[Entry] = []
    count = 0
    after: str | None = None
    while True:
        part = await page_of(asking, service, directory, after)
        found += part.entries
        count += part.left_out
        if part.next is None:
            if count:
                left_out("/".join(folders_at(directory)), count)
            return found
        after = part.next


async def entries_below(
    asking: Asking, service: Service, directory: str, left_out: LeftOut
) -> list[Entry]:
    """All files in `directory` and in the folders below it, folder by folder. What nobody could ask
    for, since its name breaks the rules, is left out, and a folder that goes meanwhile is empty.
    `left_out` is called for each folder in which something is left out.
    """
    found: list[Entry] = []
    waiting = [directory]
    while waiting:
        here = waiting.pop()
        try:
            entries = await entries_in(asking, service, here, left_out)
        except Refused as error:
            if error.code == NOT_FOUND and here != directory:
                continue
            raise
        found += [entry for entry in entries if not entry.is_directory]
        folders = [entry for entry in entries if entry.is_directory]
        below = [entry.path for entry in folders if is_segment(entry.name)]
        if len(below) < len(folders):
            left_out(here, len(folders) - len(below))
        waiting += reversed(below)
    return found

"""What is stored at the service: listings, page by page, and folder by folder."""

from __future__ import annotations

from twistedmedia.client.asking import Asking
from twistedmedia.client.errors import Garbled
from twistedmedia.client.outcomes import Entry, page
from twistedmedia.client.places import Service, folders_at
from twistedmedia.names import is_segment


async def entries_in(asking: Asking, service: Service, directory: str) -> list[Entry]:
    """All that is in `directory`, in the service's order.

    :raises Refused: with status 404 when there is no such directory.
    """
    folders = folders_at(directory)
    found: list[Entry] = []
    after: str | None = None
    while True:
        url = service.listing(folders, after)
        answer = await asking.persist(lambda url=url: asking.ask("GET", url))  # type: ignore[misc]
        entries, following = page(answer.payload, "/".join(folders))
        found += entries
        if following is None:
            return found
        if following == after or not entries:
            raise Garbled("the service's listing does not end")
        after = following


async def entries_below(asking: Asking, service: Service, directory: str) -> list[Entry]:
    """All files in `directory` and in the folders below it, folder by folder. What nobody could ask
    for, since its name breaks the rules, is left out, and a folder that goes meanwhile is empty.
    """
    found: list[Entry] = []
    waiting = [directory]
    while waiting:
        here = waiting.pop()
        entries = await entries_in(asking, service, here)
        found += [entry for entry in entries if not entry.is_directory]
        below = [entry.path for entry in entries if entry.is_directory and is_segment(entry.name)]
        waiting += reversed(below)
    return found

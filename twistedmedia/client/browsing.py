"""What is stored at the service: listings, page by page, and folder by folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from twistedmedia.client.bounds import MAX_PAGE_BYTES, MOST_LISTED
from twistedmedia.client.exceptions import NOT_FOUND, Refused, TooManyEntries
from twistedmedia.client.locations import Service, folders_at, sendable
from twistedmedia.client.outcomes import Entry, Page, page
from twistedmedia.client.requester import Requester
from twistedmedia.names import MAX_NAME_BYTES, is_segment

# Called with a directory and the number of entries in it that are not listed.
LeftOut = Callable[[str, int], None]
_ALLOW_MORE = "allow more of them (most=...), or name the directories one by one"
_WALK = "take them one by one (MediaClient.walk), or name the directories one by one"


async def page_of(asking: Requester, service: Service, directory: str, after: str | None) -> Page:
    """The page of the listing of `directory` that begins behind the name `after`.

    :raises Refused: with status 404 when there is no such directory.
    """
    folders = folders_at(directory)
    if after is not None:
        sendable(after, "name")
    url = service.listing(folders, after)
    answer = await asking.persist(lambda: asking.ask("GET", url, most_bytes=MAX_PAGE_BYTES))
    return page(answer.payload, "/".join(folders), after)


@dataclass
class _Place:
    """A directory that is being walked. `below` are names of directories on the page that was read
    last, those to go into first at the end.
    """

    directory: str
    after: str | None = None
    is_read: bool = False
    left_out: int = 0
    below: list[str] = field(default_factory=list)


async def walk(
    asking: Requester,
    service: Service,
    directory: str,
    *,
    recursive: bool,
    left_out: LeftOut,
    most: float,
    advice: str = _ALLOW_MORE,
) -> AsyncIterator[Entry]:
    """The entries of `directory`, in the service's order, or with `recursive` the files in it and
    in all directories below. A directory that goes meanwhile is empty.

    One page of each directory on the way down is in memory. A directory whose name nobody could ask
    for, since it breaks a rule for names, is left out: names have at most 1,024 bytes, so there is
    an end to the depth. `left_out` is called for each directory in which something is left out.

    :raises Refused: with status 404 when there is no such directory.
    :raises TooManyEntries: when there are more than `most` entries, directories included; it gives
        the `advice`.
    """
    top = "/".join(folders_at(directory))
    seen = 0
    waiting = [_Place(top)]
    while waiting:
        here = waiting[-1]
        if here.below:
            waiting.append(_Place(_joined(here.directory, here.below.pop())))
            continue
        if here.is_read:
            waiting.pop()
            if here.left_out:
                left_out(here.directory, here.left_out)
            continue
        try:
            page = await page_of(asking, service, here.directory, here.after)
        except Refused as error:
            if error.code == NOT_FOUND and here.directory != top:
                here.is_read = True
                continue
            raise
        seen += len(page.entries)
        check_count(seen, most, advice)
        here.left_out += page.left_out
        here.after, here.is_read = page.next, page.next is None
        if recursive:
            names = [entry.name for entry in page.entries if entry.is_directory]
            here.below = [name for name in reversed(names) if _can_be_asked(here.directory, name)]
            here.left_out += len(names) - len(here.below)
        for entry in page.entries:
            if not (recursive and entry.is_directory):
                yield entry


async def entries(
    asking: Requester, service: Service, directory: str, recursive: bool, left_out: LeftOut
) -> list[Entry]:
    """What `walk` gives, as one list.

    :raises ClientError: as `walk`.
    """
    walked = walk(
        asking,
        service,
        directory,
        recursive=recursive,
        left_out=left_out,
        most=MOST_LISTED,
        advice=_WALK,
    )
    return [entry async for entry in walked]


def check_count(seen: int, most: float, advice: str = _ALLOW_MORE) -> None:
    """Check that there are at most `most` entries.

    :raises TooManyEntries: when more were `seen`; it gives the `advice`.
    """
    if seen > most:
        raise TooManyEntries(most, advice)


def _can_be_asked(directory: str, name: str) -> bool:
    return is_segment(name) and len(_joined(directory, name).encode()) <= MAX_NAME_BYTES


def _joined(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name

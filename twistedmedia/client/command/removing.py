"""`twistedmedia rm`: files, and directories with all that is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from twistedmedia.client.client_limits import MAX_ENTRIES
from twistedmedia.client.command.results import Outcome, Result, failure
from twistedmedia.client.command.running import Run, at_once
from twistedmedia.client.command.text import left_out_text
from twistedmedia.client.exceptions import NOT_FOUND, LocalFailure, Refused
from twistedmedia.client.listings import check_entry_count
from twistedmedia.client.locations import folders_at, name_at
from twistedmedia.client.outcomes import Entry, Page
from twistedmedia.names import is_segment


async def rm(
    run: Run, names: Sequence[str], *, recursive: bool = False, most: int = MAX_ENTRIES
) -> None:
    """Delete files, and with `recursive` directories. What fails does not stop the others. Of a
    directory with more than `most` entries, all that is below it included, the rest stays.

    :raises Unreachable: when the service cannot be reached; the rest is not tried then.
    """
    if not recursive:
        await at_once(run.jobs, names, lambda written: _file(run, written))
        return
    for written in names:
        await _named(run, written, most)


async def _file(run: Run, written: str) -> None:
    with run.reporting(written):
        if written.strip("/") and written.endswith("/"):
            raise LocalFailure("this is a directory: name a file, or use -r")
        name = name_at(written)
        if not await run.client.delete(name.directory, name.filename):
            raise Refused(404, NOT_FOUND, "there is no such media")
        run.report(Result(Outcome.DELETED, str(name)))


async def _named(run: Run, written: str, most: int) -> None:
    """Delete the directory that is `written`, or, if there is none, the file."""
    first: Page | None = None
    is_file = False
    with run.reporting(written):
        directory = "/".join(folders_at(written))
        if not directory:
            raise LocalFailure("not everything is deleted at once; name the directories")
        try:
            first = await run.client.page(directory)
        except Refused as error:
            is_file = error.code == NOT_FOUND and "/" in directory and not written.endswith("/")
            if not is_file:
                raise
    if is_file:
        await _file(run, written)
    if first is not None:
        with run.reporting(written):
            await _tree(run, directory, first, most)


@dataclass
class _Folder:
    """A directory that is being deleted. `page` is its next page, if that was asked for already;
    `below` are the directories on the one before, those to go into first at the end.
    """

    directory: str
    page: Page | None = None
    after: str | None = None
    is_read: bool = False
    left_out: int = 0
    is_empty: bool = True
    below: list[str] = field(default_factory=list)


async def _tree(run: Run, directory: str, first: Page, most: int) -> None:
    """Delete a directory, of which `first` is the first page. One page of each directory on the way
    down is in memory.

    :raises LocalFailure: when there are more than `most` entries.
    """
    seen = 0
    waiting = [_Folder(directory, first)]
    while waiting:
        here = waiting[-1]
        if here.below:
            waiting.append(_Folder(here.below.pop()))
        elif here.is_read:
            waiting.pop()
        else:
            seen += await _next_page(run, here)
            check_entry_count(seen, most)


async def _next_page(run: Run, folder: _Folder) -> int:
    """Delete the files on the next page of a directory. Returns how many entries are on it.

    What the service does not list stays, and so does the directory: that is a failure. A page is
    asked for from behind the last name of the one before, so a file that cannot be deleted is not
    met again. Names that are not those of media are reported: a request for one could mean
    something elsewhere.
    """
    page, folder.page = folder.page, None
    if page is None:
        with run.reporting(f"{folder.directory}/"):
            page = await _page(run, folder.directory, folder.after)
        if page is None:  # the last of it has been deleted, by us or others; or it was reported
            folder.is_read = True
            return 0
    folder.left_out += page.left_out
    folder.is_empty = folder.is_empty and not page.entries
    files: list[Entry] = []
    for entry in page.entries:
        if not is_segment(entry.name):
            run.report(failure(LocalFailure("this is not a media name"), entry.path))
        elif entry.is_directory:
            folder.below.append(entry.path)
        else:
            files.append(entry)
    folder.below.reverse()
    await at_once(run.jobs, files, lambda entry: _listed(run, entry))
    folder.after, folder.is_read = page.next, page.next is None
    if folder.is_read:
        await _report_what_stays(run, folder)
    return len(page.entries)


async def _report_what_stays(run: Run, folder: _Folder) -> None:
    what = left_out_text(folder.left_out) if folder.left_out else ""
    if folder.is_empty and not what:  # another client may delete it just now: look again
        with run.reporting(f"{folder.directory}/"):
            again = await _page(run, folder.directory, None)
            what = "only empty directories" if again is not None and not again.entries else ""
    if what:
        stays = LocalFailure(
            f"the directory stays: it contains {what}; an administrator has to delete that at the"
            " service"
        )
        run.report(failure(stays, f"{folder.directory}/"))


async def _page(run: Run, directory: str, after: str | None) -> Page | None:
    """A page of the listing; None when there is no such directory."""
    try:
        return await run.client.page(directory, after)
    except Refused as error:
        if error.code == NOT_FOUND:
            return None
        raise


async def _listed(run: Run, entry: Entry) -> None:
    with run.reporting(entry.path):
        if await run.client.delete(entry.directory, entry.name):
            run.report(Result(Outcome.DELETED, entry.path))
        else:
            run.report(Result(Outcome.SKIPPED, entry.path, reason="gone already"))

"""`twistedmedia rm`: deletes files, and directories with everything in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from twistedmedia.client.client_limits import MAX_ENTRIES
from twistedmedia.client.command.results import Outcome, Result, failure
from twistedmedia.client.command.run import Run, for_each
from twistedmedia.client.command.text import left_out_text
from twistedmedia.client.exceptions import NOT_FOUND, LocalFailure, Refused
from twistedmedia.client.listings import check_entry_count
from twistedmedia.client.locations import folders_at, name_at
from twistedmedia.client.outcomes import Entry, Page
from twistedmedia.names import is_segment


async def rm(
    run: Run, names: Sequence[str], *, recursive: bool = False, max_entries: int = MAX_ENTRIES
) -> None:
    """Delete files, and with `recursive` directories. A failure does not stop the rest. A directory
    with more than `max_entries` entries, in it and below it, is deleted up to there.

    :raises Unreachable: when the service cannot be reached; the rest is not tried.
    """
    if not recursive:
        await for_each(names, lambda name: _delete_file(run, name), jobs=run.jobs)
        return
    for name in names:
        await _delete_directory_or_file(run, name, max_entries)


async def _delete_file(run: Run, argument: str) -> None:
    with run.reporting_failures(argument):
        if argument.strip("/") and argument.endswith("/"):
            raise LocalFailure("this is a directory: name a file, or use -r")
        name = name_at(argument)
        if not await run.client.delete(name.directory, name.filename):
            raise Refused(404, NOT_FOUND, "there is no such media")
        run.report(Result(Outcome.DELETED, str(name)))


async def _delete_directory_or_file(run: Run, argument: str, max_entries: int) -> None:
    """Delete the directory `argument`. If there is no such directory, delete the file."""
    first: Page | None = None
    is_file = False
    with run.reporting_failures(argument):
        directory = "/".join(folders_at(argument))
        if not directory:
            raise LocalFailure("rm does not delete everything at once; name the directories")
        try:
            first = await run.client.page(directory)
        except Refused as error:
            is_file = error.code == NOT_FOUND and "/" in directory and not argument.endswith("/")
            if not is_file:
                raise
    if is_file:
        await _delete_file(run, argument)
    if first is not None:
        with run.reporting_failures(argument):
            await _delete_tree(run, directory, first, max_entries)


@dataclass
class _Directory:
    """A directory that is being deleted. `page` is its next page, if it was requested already.
    `below` are the directories on the last page; the last of them is deleted first.
    """

    name: str
    page: Page | None = None
    after: str | None = None
    is_read: bool = False
    left_out: int = 0
    is_empty: bool = True
    below: list[str] = field(default_factory=list)


async def _delete_tree(run: Run, directory: str, first: Page, max_entries: int) -> None:
    """Delete a directory whose first page is `first`. One page for each level is in memory.

    :raises TooManyEntries: when there are more than `max_entries` entries.
    """
    seen = 0
    stack = [_Directory(directory, first)]
    while stack:
        current = stack[-1]
        if current.below:
            stack.append(_Directory(current.below.pop()))
        elif current.is_read:
            stack.pop()
        else:
            seen += await _delete_next_page(run, current)
            check_entry_count(seen, max_entries)


async def _delete_next_page(run: Run, directory: _Directory) -> int:
    """Delete the files on the next page of a directory. Returns how many entries the page has. A
    page begins after the last name of the page before it, so a file that cannot be deleted is not
    met again. A name that is not a valid media name is reported: a request for it could delete
    something else. Entries that the service does not list stay, and so does the directory.
    """
    page, directory.page = directory.page, None
    if page is None:
        with run.reporting_failures(f"{directory.name}/"):
            page = await _page(run, directory.name, directory.after)
        if page is None:  # the directory went with its last file, or the failure was reported
            directory.is_read = True
            return 0
    directory.left_out += page.left_out
    directory.is_empty = directory.is_empty and not page.entries
    files: list[Entry] = []
    for entry in page.entries:
        if not is_segment(entry.name):
            run.report(failure(LocalFailure("this is not a valid media name"), entry.path))
        elif entry.is_directory:
            directory.below.append(entry.path)
        else:
            files.append(entry)
    directory.below.reverse()
    await for_each(files, lambda entry: _delete_entry(run, entry), jobs=run.jobs)
    directory.after, directory.is_read = page.next, page.next is None
    if directory.is_read:
        await _report_remains(run, directory)
    return len(page.entries)


async def _report_remains(run: Run, directory: _Directory) -> None:
    remains = left_out_text(directory.left_out) if directory.left_out else ""
    if directory.is_empty and not remains:  # another client may be deleting it: look again
        with run.reporting_failures(f"{directory.name}/"):
            page = await _page(run, directory.name, None)
            remains = "only empty directories" if page is not None and not page.entries else ""
    if remains:
        error = LocalFailure(
            f"the directory stays: it contains {remains}; an administrator has to delete that at"
            " the service"
        )
        run.report(failure(error, f"{directory.name}/"))


async def _page(run: Run, directory: str, after: str | None) -> Page | None:
    """Get a page of the listing, or None when there is no such directory."""
    try:
        return await run.client.page(directory, after)
    except Refused as error:
        if error.code == NOT_FOUND:
            return None
        raise


async def _delete_entry(run: Run, entry: Entry) -> None:
    with run.reporting_failures(entry.path):
        if await run.client.delete(entry.directory, entry.name):
            run.report(Result(Outcome.DELETED, entry.path))
        else:
            run.report(Result(Outcome.SKIPPED, entry.path, reason="deleted already"))

"""`twistedmedia rm`: files, and directories with all that is in them."""

from __future__ import annotations

from collections.abc import Sequence

from twistedmedia.client.command.figures import left_out_text
from twistedmedia.client.command.results import Outcome, Result, failure
from twistedmedia.client.command.running import Run, at_once
from twistedmedia.client.errors import NOT_FOUND, LocalFailure, Refused
from twistedmedia.client.outcomes import Entry, Page
from twistedmedia.client.places import folders_at, name_at
from twistedmedia.names import is_segment


async def rm(run: Run, names: Sequence[str], *, recursive: bool = False) -> None:
    """Delete files, and with `recursive` directories. What fails does not stop the others.

    :raises Unreachable: when the service cannot be reached; the rest is not tried then.
    """
    if not recursive:
        await at_once(run.jobs, names, lambda written: _file(run, written))
        return
    for written in names:
        await _named(run, written)


async def _file(run: Run, written: str) -> None:
    with run.reporting(written):
        if written.strip("/") and written.endswith("/"):
            raise LocalFailure("this is a directory: name a file, or use -r")
        name = name_at(written)
        if not await run.client.delete(name.directory, name.filename):
            raise Refused(404, NOT_FOUND, "there is no such media")
        run.report(Result(Outcome.DELETED, str(name)))


async def _named(run: Run, written: str) -> None:
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
    waiting = [] if first is None else await _folder(run, directory, first)
    while waiting:
        here = waiting.pop()
        waiting += await _folder(run, here, None)


async def _folder(run: Run, directory: str, page: Page | None) -> list[str]:
    """Delete the files of a directory, page by page, from `page` on. Returns the directories in it.

    What the service does not list stays, and so does the directory: that is a failure. A page is
    asked for from behind the last name of the one before, so a file that cannot be deleted is not
    met again. Names that are not those of media are reported: a request for one could mean
    something elsewhere.
    """
    below: list[str] = []
    left_out = 0
    is_empty = True
    after: str | None = None
    while True:
        if page is None:
            with run.reporting(f"{directory}/"):
                page = await _page(run, directory, after)
            if page is None:  # the last of it has been deleted, by us or others; or it was reported
                return below
        left_out += page.left_out
        is_empty = is_empty and not page.entries
        files: list[Entry] = []
        for entry in page.entries:
            if not is_segment(entry.name):
                run.report(failure(LocalFailure("this is not a media name"), entry.path))
            elif entry.is_directory:
                below.append(entry.path)
            else:
                files.append(entry)
        await at_once(run.jobs, files, lambda entry: _listed(run, entry))
        after, page = page.next, None
        if after is None:
            break
    what = left_out_text(left_out) if left_out else ""
    if is_empty and not left_out:  # another client may delete it just now: look again
        with run.reporting(f"{directory}/"):
            again = await _page(run, directory, None)
            what = "only empty directories" if again is not None and not again.entries else ""
    if what:
        stays = LocalFailure(
            f"the directory stays: it contains {what}; an administrator has to delete that at the"
            " service"
        )
        run.report(failure(stays, f"{directory}/"))
    return below


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

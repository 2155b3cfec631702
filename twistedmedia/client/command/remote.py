"""`twistedmedia ls`, `import`, `fetch` and `health`, which transfer no file to or from here."""

from __future__ import annotations

from dataclasses import asdict

from twistedmedia.client.client_limits import MAX_ENTRIES
from twistedmedia.client.command.results import Outcome, json_line, stored_result
from twistedmedia.client.command.run import Run
from twistedmedia.client.command.text import milliseconds_text, size_text, time_text
from twistedmedia.client.exceptions import NOT_FOUND, LocalFailure, Refused
from twistedmedia.client.locations import folders_at, name_at
from twistedmedia.client.outcomes import Entry


async def ls(
    run: Run, argument: str, *, long: bool, recursive: bool, max_entries: int = MAX_ENTRIES
) -> None:
    """List a directory page by page, or a file. `long` adds sizes and times. `recursive` lists all
    files in the directory and below it. More than `max_entries` entries are a failure.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting_failures(argument or "/"):
        directory = "/".join(folders_at(argument))
        has_entries = False
        try:
            async for entry in run.client.walk(
                directory, recursive=recursive, max_entries=max_entries
            ):
                has_entries = True
                _show_entry(run, entry, long=long, full_path=recursive)
        except Refused as error:
            if error.code != NOT_FOUND or argument.endswith("/") or has_entries:
                raise
        else:
            return
        _show_entry(run, await _file(run, argument, directory), long=long, full_path=True)


async def import_(run: Run, url: str, argument: str) -> None:
    """Have the service store the content of `url`. If `argument` ends with a slash it names a
    directory, and the file gets its name from the URL.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting_failures(argument):
        directory, slash, filename = argument.removeprefix("/").rpartition("/")
        if not slash:
            raise LocalFailure(
                "name a directory and a file, or a directory with a slash at its end"
            )
        stored = await run.client.import_url(url, directory, filename)
        name = f"{stored.directory}/{stored.filename}"
        run.report(stored_result(stored, Outcome.IMPORTED, name))


async def fetch(run: Run, url: str) -> None:
    """Have the service fetch `url`, and show how long that took.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting_failures(url):
        fetched = await run.client.fetch(url)
        if run.as_json:
            run.display.line(json_line(asdict(fetched)))
            return
        run.display.line(
            f"Time Cost: {fetched.time_cost:.4f} s for {size_text(fetched.size)} of {fetched.url}"
            f" (HTTP {fetched.status}, {fetched.cache})"
        )
        for phase, seconds in fetched.timings.items():
            if seconds is not None and not run.quiet:
                name = phase.replace("_", " ")
                run.display.line(f"  {name:<10} {milliseconds_text(seconds):>10}")


async def health(run: Run) -> None:
    """Show the state of the service. A storage that is not ok is a failure.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting_failures():
        state = await run.client.health()
        is_ok = state.storage in (None, "ok")
        if run.as_json:
            run.display.line(json_line(dict(state.payload)))
        elif not run.quiet:
            text = f"version {state.version}, up {time_text(state.uptime_s)}"
            text += f", {state.uploads} uploads in progress"
            if state.free is not None:
                text += f", {size_text(state.free)} free"
            if state.storage is not None and is_ok:
                text += f", storage {state.storage}"
            run.display.line(text)
        if not is_ok:
            run.fail(f"the storage has a problem: {state.storage}")


async def _file(run: Run, argument: str, path: str) -> Entry:
    name = name_at(argument) if "/" in path else None
    found = None if name is None else await run.client.find(name.directory, name.filename)
    if name is None or found is None:
        raise Refused(404, NOT_FOUND, "there is no such file or directory")
    return Entry(name.directory, name.filename, False, found.size, found.modified, found.etag)


def _show_entry(run: Run, entry: Entry, *, long: bool, full_path: bool) -> None:
    if run.as_json:
        members = {"name": entry.path, "directory": entry.is_directory}
        details = {"size": entry.size, "modified": entry.modified, "etag": entry.etag}
        known = {key: value for key, value in details.items() if value is not None}
        run.display.line(json_line(members | known))
        return
    name = entry.path if full_path else entry.name
    if entry.is_directory:
        name += "/"
    if long:
        size = "-" if entry.size is None else str(entry.size)
        name = f"{size:>14}  {entry.modified or '-':<24}  {name}"
    run.display.line(name)

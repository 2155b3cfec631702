"""`twistedmedia ls`, `import`, `fetch` and `health`: they move no media through this machine."""

from __future__ import annotations

import json
from dataclasses import asdict

from twistedmedia.client.client_limits import MAX_ENTRIES
from twistedmedia.client.command.results import Outcome, Result
from twistedmedia.client.command.running import Run
from twistedmedia.client.command.text import milliseconds_text, printable, size_text, time_text
from twistedmedia.client.exceptions import NOT_FOUND, LocalFailure, Refused
from twistedmedia.client.locations import folders_at, name_at
from twistedmedia.client.outcomes import Entry, Fetched, Health


async def ls(
    run: Run, written: str, *, long: bool, recursive: bool, most: int = MAX_ENTRIES
) -> None:
    """List a directory, or a file; `long` with sizes and times, `recursive` all files below it. A
    directory is listed page by page; more than `most` entries are a failure.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting(written or "/"):
        listed = "/".join(folders_at(written))
        is_there = False
        try:
            async for entry in run.client.walk(listed, recursive=recursive, max_entries=most):
                is_there = True
                _show_entry(run, entry, long=long, whole=recursive)
        except Refused as error:
            if error.code != NOT_FOUND or written.endswith("/") or is_there:
                raise
        else:
            return
        _show_entry(run, await _file(run, written, listed), long=long, whole=True)


async def import_(run: Run, url: str, written: str) -> None:
    """Have the service store what is at `url`; a name that ends with a slash is a directory's.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting(written):
        directory, slash, filename = written.removeprefix("/").rpartition("/")
        if not slash:
            raise LocalFailure(
                "name a directory and a file, or a directory with a slash at its end"
            )
        stored = await run.client.import_url(url, directory, filename)
        run.report(
            Result(
                Outcome.SKIPPED if stored.identical else Outcome.IMPORTED,
                f"{stored.directory}/{stored.filename}",
                size=stored.size,
                sha256=stored.sha256,
                url=stored.url,
                reason="stored already" if stored.identical else None,
                problem=stored.problem,
            )
        )


async def fetch(run: Run, url: str) -> None:
    """Have the service fetch `url`, and say what that has cost.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting(url):
        _show_fetched(run, await run.client.fetch(url))


def _show_fetched(run: Run, fetched: Fetched) -> None:
    if run.as_json:
        run.display.line(json.dumps(asdict(fetched)))
        return
    run.display.line(
        printable(
            f"Time Cost: {fetched.time_cost:.4f} s for {size_text(fetched.size)} of {fetched.url}"
            f" (HTTP {fetched.status}, {fetched.cache})"
        )
    )
    if not run.quiet:
        for phase, seconds in fetched.timings.items():
            if seconds is not None:
                run.display.line(
                    printable(f"  {phase.replace('_', ' '):<10} {milliseconds_text(seconds):>10}")
                )


async def health(run: Run) -> None:
    """Ask how the service is. A storage that is not well is a failure.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting():
        _show_health(run, await run.client.health())


def _show_health(run: Run, found: Health) -> None:
    is_well = found.storage in (None, "ok")
    if run.as_json:
        run.display.line(json.dumps(dict(found.payload)))
    elif not run.quiet:
        parts = [
            f"version {found.version}",
            f"up {time_text(found.uptime_s)}",
            f"{found.uploads} uploads in progress",
        ]
        if found.free is not None:
            parts.append(f"{size_text(found.free)} free")
        if found.storage is not None and is_well:
            parts.append(f"storage {found.storage}")
        run.display.line(printable(", ".join(parts)))
    if not is_well:
        run.fail(f"the storage is not well: {found.storage}")


async def _file(run: Run, written: str, listed: str) -> Entry:
    name = name_at(written) if "/" in listed else None
    found = None if name is None else await run.client.find(name.directory, name.filename)
    if name is None or found is None:
        raise Refused(404, NOT_FOUND, "there is no such file or directory")
    return Entry(name.directory, name.filename, False, found.size, found.modified, found.etag)


def _show_entry(run: Run, entry: Entry, *, long: bool, whole: bool) -> None:
    if run.as_json:
        members = {"name": entry.path, "directory": entry.is_directory}
        details = {"size": entry.size, "modified": entry.modified, "etag": entry.etag}
        known = {key: value for key, value in details.items() if value is not None}
        run.display.line(json.dumps(members | known))
    else:
        run.display.line(printable(_listed(entry, long=long, whole=whole)))


def _listed(entry: Entry, *, long: bool, whole: bool) -> str:
    name = entry.path if whole else entry.name
    if entry.is_directory:
        name += "/"
    if not long:
        return name
    size = "-" if entry.size is None else str(entry.size)
    return f"{size:>14}  {entry.modified or '-':<24}  {name}"

"""`twistedmedia ls`, `rm`, `import` and `fetch`: what moves no bytes through this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from twistedmedia.client.command.figures import size_text, time_text
from twistedmedia.client.command.printable import printable
from twistedmedia.client.command.results import Outcome, Result, failure
from twistedmedia.client.command.running import Run, at_once
from twistedmedia.client.errors import ClientError, LocalFailure, Refused, Unreachable
from twistedmedia.client.outcomes import Entry
from twistedmedia.client.places import folders_at, name_at


async def ls(run: Run, directory: str, *, long: bool, recursive: bool) -> None:
    """List a directory; `long` with sizes and times, `recursive` all files below it.

    :raises Unreachable: when the service cannot be reached.
    """
    try:
        listed = "/".join(folders_at(directory))
        entries = await run.client.list(listed, recursive=recursive)
    except ClientError as error:
        run.report(failure(error, directory or "/"))
        if isinstance(error, Unreachable):
            raise
        return
    for entry in entries:
        if run.as_json:
            members = {"name": entry.path, "directory": entry.is_directory}
            details = {"size": entry.size, "modified": entry.modified, "etag": entry.etag}
            known = {key: value for key, value in details.items() if value is not None}
            run.display.line(json.dumps(members | known))
        else:
            run.display.line(printable(_listed(entry, long=long, whole=recursive)))


async def rm(run: Run, names: Sequence[str]) -> None:
    """Delete files.

    :raises Unreachable: when the service cannot be reached; the rest is not tried then.
    """

    async def delete(written: str) -> None:
        try:
            name = name_at(written)
            if not await run.client.delete(name.directory, name.filename):
                raise Refused(404, 404, "there is no such media")
            run.report(Result(Outcome.DELETED, str(name)))
        except ClientError as error:
            run.report(failure(error, written))
            if isinstance(error, Unreachable):
                raise

    await at_once(run.jobs, names, delete)


async def import_(run: Run, url: str, written: str) -> None:
    """Have the service store what is at `url`; a name that ends with a slash is a directory's.

    :raises Unreachable: when the service cannot be reached.
    """
    try:
        directory, slash, filename = written.rpartition("/")
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
    except ClientError as error:
        run.report(failure(error, written))
        if isinstance(error, Unreachable):
            raise


async def fetch(run: Run, url: str) -> None:
    """Have the service fetch `url`, and say what that has cost.

    :raises Unreachable: when the service cannot be reached.
    """
    try:
        fetched = await run.client.fetch(url)
    except ClientError as error:
        run.report(failure(error, url))
        if isinstance(error, Unreachable):
            raise
        return
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
                run.display.line(printable(f"  {phase.replace('_', ' '):<10} {time_text(seconds)}"))


def _listed(entry: Entry, *, long: bool, whole: bool) -> str:
    name = entry.path if whole else entry.name
    if entry.is_directory:
        name += "/"
    if not long:
        return name
    size = "-" if entry.size is None else str(entry.size)
    return f"{size:>14}  {entry.modified or '-':<24}  {name}"

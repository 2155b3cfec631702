"""`twistedmedia get`: files and directories from the service, several at a time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from posixpath import normpath

from twistedmedia.client.client_limits import MAX_ENTRIES
from twistedmedia.client.command.results import Outcome, Result, failure
from twistedmedia.client.command.running import Run, at_once
from twistedmedia.client.command.text import left_out_text
from twistedmedia.client.command.trees import is_excluded
from twistedmedia.client.exceptions import NOT_FOUND, LocalFailure, Refused, local_failure
from twistedmedia.client.local_files import open_file
from twistedmedia.client.locations import folders_at, name_at
from twistedmedia.client.outcomes import Found
from twistedmedia.client.threads import in_thread
from twistedmedia.names import is_segment

_IS_DIRECTORY = 409


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file at the service, and the local path that it is to have. `size` as it was listed. Below
    the folder `within` no link is followed; None if a person has named the very path.
    """

    directory: str
    filename: str
    path: str
    size: int | None = None
    within: str | None = None

    @property
    def name(self) -> str:
        """As it is written."""
        return f"{self.directory}/{self.filename}"


@dataclass(frozen=True, slots=True)
class GetOptions:
    """What `exclude` matches in a directory is passed over. `max_size` is the most bytes that a
    file may have; None as for `MediaClient.download`. `max_entries` is how many entries a directory
    may have with all that is below it.
    """

    exclude: Sequence[str] = ()
    max_size: int | None = None
    max_entries: int = MAX_ENTRIES


_PLAIN = GetOptions()


async def get(
    run: Run, names: Sequence[str], target: str | None, options: GetOptions = _PLAIN
) -> None:
    """Bring the files and directories that `names` are to `target`; what is there already with the
    same content is skipped.

    One file is brought to the very path `target`, unless that is a folder or ends with a slash.
    Everything else goes into the folder `target`: a directory with its own name and its tree, or,
    written as `directory/.`, what is in it without its name.

    :raises Unreachable: when the service cannot be reached; the rest is not tried then.
    """
    await at_once(
        run.jobs, _all(run, names, target, options), lambda each: _get(run, each, options.max_size)
    )


async def get_stream(run: Run, written: str, descriptor: int, options: GetOptions = _PLAIN) -> None:
    """Write the file `written` to `descriptor`.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting(written), run.transferring(written) as transfer:
        name = name_at(written)
        got = await run.client.download_stream(
            name.directory,
            name.filename,
            descriptor,
            progress=transfer.moved,
            max_size=options.max_size,
        )
        run.report(Result(Outcome.DOWNLOADED, str(name), None, got.size, got.sha256), got.received)


async def _all(
    run: Run, names: Sequence[str], target: str | None, options: GetOptions
) -> AsyncIterator[Wanted]:
    """The files that `names` stand for, but those that would take the place of one before them, as
    `cp` has it. Directories are listed page by page, when the files before were begun.
    """
    # In one directory no two files have one name, so of a single NAME nothing is remembered.
    by_path: dict[str, str] | None = {} if len(names) > 1 else None
    for name in names:
        with run.reporting(name):
            async for each in _wanted(run, name, target, options, is_only=len(names) == 1):
                path = normpath(each.path)
                first = None if by_path is None else by_path.get(path)
                if first is None:
                    if by_path is not None:
                        by_path[path] = each.name
                    run.display.expect(each.size or 0)
                    yield each
                elif first != each.name:
                    error = LocalFailure(f"{each.path}: that is where {first} goes")
                    run.report(failure(error, each.name, each.path))


async def _wanted(
    run: Run, name: str, target: str | None, options: GetOptions, *, is_only: bool
) -> AsyncIterator[Wanted]:
    if not name:
        raise LocalFailure("the name is empty; a slash means everything that the service has")
    if "/" in name.strip("/") and not name.endswith(("/", "/.")):
        media = name_at(name)
        try:
            found = await run.client.find(media.directory, media.filename)
        except Refused as error:
            if error.code != _IS_DIRECTORY:
                raise
        else:
            if found is None:
                raise Refused(404, NOT_FOUND, "there is no such media")
            whole = target is not None and is_only and not await _is_folder(run, target)
            path = target if whole else os.path.join(target or "", media.filename)
            within = None if whole else target or ""
            assert path is not None
            yield Wanted(media.directory, media.filename, path, found.size, within)
            return
    async for each in _tree(run, name, target, options):
        yield each


async def _tree(
    run: Run, name: str, target: str | None, options: GetOptions
) -> AsyncIterator[Wanted]:
    bare = name.removesuffix("/")
    is_content = bare.endswith("/.")
    folders = folders_at(bare.removesuffix(".") if is_content else name)
    directory = "/".join(folders)
    own = [] if is_content else folders[-1:]

    def left_out(folder: str, count: int) -> None:
        reason = f"the service does not serve {left_out_text(count)}"
        run.report(Result(Outcome.LEFT_OUT, f"{folder}/", reason=reason))

    entries = run.client.walk(
        directory, recursive=True, on_left_out=left_out, max_entries=options.max_entries
    )
    try:
        async for entry in entries:
            below = entry.path.removeprefix(directory).removeprefix("/")
            if not all(is_segment(part) for part in below.split("/")):
                unsafe = LocalFailure(
                    "this name could lead out of the folder, or is not a media name"
                )
                run.report(failure(unsafe, entry.path))
            elif not is_excluded(below, options.exclude):
                path = os.path.join(target or "", *own, *below.split("/"))
                yield Wanted(entry.directory, entry.name, path, entry.size, target or "")
    except Refused as error:
        if error.code != NOT_FOUND or name.endswith(("/", "/.")):
            raise
        raise Refused(404, NOT_FOUND, "there is no such file or directory") from None


async def _get(run: Run, wanted: Wanted, max_size: int | None) -> None:
    showing = run.transferring(wanted.name, wanted.size or 0)
    with run.reporting(wanted.name, wanted.path), showing as transfer:
        found = await run.client.find(wanted.directory, wanted.filename)
        if found is not None and await _has(run, wanted, found):
            reason = "there already"
            result = Result(Outcome.SKIPPED, wanted.name, wanted.path, found.size, reason=reason)
            run.report(result)
            return
        folder = os.path.dirname(wanted.path) if wanted.within is None else wanted.within
        await in_thread(run.reactor, _make_folder, folder or ".")
        downloaded = await run.client.download(
            wanted.directory,
            wanted.filename,
            wanted.path,
            progress=transfer.moved,
            max_size=max_size,
            within=wanted.within,
        )
        result = Result(
            Outcome.DOWNLOADED, wanted.name, wanted.path, downloaded.size, downloaded.sha256
        )
        run.report(result, downloaded.received)


async def _has(run: Run, wanted: Wanted, found: Found) -> bool:
    """Whether the content is at its path already, and not behind a link."""
    try:
        file = await open_file(run.reactor, wanted.path, wanted.within)
    except LocalFailure:
        return False
    try:
        if file.size != found.size:
            return False
        sha256 = found.sha256
        if sha256 is None:
            again = await run.client.find(wanted.directory, wanted.filename, digest=True)
            sha256 = None if again is None else again.sha256
        return sha256 is not None and await file.sha256() == sha256
    finally:
        await file.close()


async def _is_folder(run: Run, path: str) -> bool:
    return path.endswith("/") or await in_thread(run.reactor, os.path.isdir, path)


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError:
        raise LocalFailure(f"{folder.rstrip('/')}: this is not a folder") from None
    except OSError as error:
        raise local_failure(error, folder) from None

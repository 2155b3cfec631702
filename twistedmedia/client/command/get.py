"""`twistedmedia get`: downloads files and directories, or one file to standard output."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from posixpath import normpath

from twistedmedia.client.client_limits import MAX_ENTRIES
from twistedmedia.client.command.results import Outcome, Result, failure
from twistedmedia.client.command.run import Run, for_each
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
class RemoteFile:
    """A file at the service, and the local path to download it to. `size` is from a listing. No
    link below the folder `within` is followed. It is None if the user gave the whole path.
    """

    directory: str
    filename: str
    path: str
    size: int | None = None
    within: str | None = None

    @property
    def name(self) -> str:
        return f"{self.directory}/{self.filename}"


@dataclass(frozen=True, slots=True)
class GetOptions:
    """Options of `get`. Entries of a directory that match `exclude` are skipped. `max_size` is the
    largest file in bytes; None means the limits of `MediaClient.download`. `max_entries` is how
    many entries a directory may have in it and below it.
    """

    exclude: Sequence[str] = ()
    max_size: int | None = None
    max_entries: int = MAX_ENTRIES


_DEFAULTS = GetOptions()


async def get(
    run: Run, names: Sequence[str], target: str | None, options: GetOptions = _DEFAULTS
) -> None:
    """Download files and directories to `target`, and skip files that are there with the same
    content. A single file is written to the path `target`, unless that is a folder or ends with a
    slash. Everything else is written into the folder `target`: a directory with its own name and
    its tree, or, given as `directory/.`, its content without its name.

    :raises Unreachable: when the service cannot be reached; the rest is not tried.
    """
    await for_each(
        _files(run, names, target, options),
        lambda file: _download(run, file, options.max_size),
        jobs=run.jobs,
    )


async def get_stream(
    run: Run, argument: str, descriptor: int, options: GetOptions = _DEFAULTS
) -> None:
    """Write the file `argument` to `descriptor`.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting_failures(argument), run.transferring(argument) as transfer:
        name = name_at(argument)
        got = await run.client.download_stream(
            name.directory,
            name.filename,
            descriptor,
            progress=transfer.update,
            max_size=options.max_size,
        )
        run.report(Result(Outcome.DOWNLOADED, str(name), None, got.size, got.sha256), got.received)


async def _files(
    run: Run, names: Sequence[str], target: str | None, options: GetOptions
) -> AsyncIterator[RemoteFile]:
    """Find the files that `names` mean. As with `cp`, a file with the path of an earlier one fails.
    Directories are listed page by page, while the files before are in progress.
    """
    # One directory cannot contain two files with one name, so a single NAME needs no record.
    by_path: dict[str, str] | None = {} if len(names) > 1 else None
    for name in names:
        with run.reporting_failures(name):
            async for file in _files_at(run, name, target, options, is_only=len(names) == 1):
                path = normpath(file.path)
                first = None if by_path is None else by_path.get(path)
                if first is None:
                    if by_path is not None:
                        by_path[path] = file.name
                    run.display.expect(file.size or 0)
                    yield file
                elif first != file.name:
                    error = LocalFailure(f"{file.path}: {first} has the same path")
                    run.report(failure(error, file.name, file.path))


async def _files_at(
    run: Run, argument: str, target: str | None, options: GetOptions, *, is_only: bool
) -> AsyncIterator[RemoteFile]:
    if not argument:
        raise LocalFailure("the name is empty; use / for everything that the service has")
    if "/" in argument.strip("/") and not argument.endswith(("/", "/.")):
        name = name_at(argument)
        try:
            found = await run.client.find(name.directory, name.filename)
        except Refused as error:
            if error.code != _IS_DIRECTORY:
                raise
        else:
            if found is None:
                raise Refused(404, NOT_FOUND, "there is no such media")
            if target is not None and is_only and not await _is_folder(run, target):
                path, within = target, None
            else:
                path, within = os.path.join(target or "", name.filename), target or ""
            yield RemoteFile(name.directory, name.filename, path, found.size, within)
            return
    async for file in _files_below(run, argument, target, options):
        yield file


async def _files_below(
    run: Run, argument: str, target: str | None, options: GetOptions
) -> AsyncIterator[RemoteFile]:
    bare = argument.removesuffix("/")
    is_content = bare.endswith("/.")
    folders = folders_at(bare.removesuffix(".") if is_content else argument)
    directory = "/".join(folders)
    own_name = [] if is_content else folders[-1:]

    def on_left_out(folder: str, count: int) -> None:
        reason = f"the service does not serve {left_out_text(count)}"
        run.report(Result(Outcome.LEFT_OUT, f"{folder}/", reason=reason))

    entries = run.client.walk(
        directory, recursive=True, on_left_out=on_left_out, max_entries=options.max_entries
    )
    try:
        async for entry in entries:
            below = entry.path.removeprefix(directory).removeprefix("/")
            if not all(is_segment(part) for part in below.split("/")):
                unsafe = LocalFailure(
                    "this name could lead out of the folder, or is not a valid media name"
                )
                run.report(failure(unsafe, entry.path))
            elif not is_excluded(below, options.exclude):
                path = os.path.join(target or "", *own_name, *below.split("/"))
                yield RemoteFile(entry.directory, entry.name, path, entry.size, target or "")
    except Refused as error:
        if error.code != NOT_FOUND or argument.endswith(("/", "/.")):
            raise
        raise Refused(404, NOT_FOUND, "there is no such file or directory") from None


async def _download(run: Run, file: RemoteFile, max_size: int | None) -> None:
    transferring = run.transferring(file.name, file.size or 0)
    with run.reporting_failures(file.name, file.path), transferring as transfer:
        found = await run.client.find(file.directory, file.filename)
        if found is not None and await _is_here(run, file, found):
            reason = "already here"
            run.report(Result(Outcome.SKIPPED, file.name, file.path, found.size, reason=reason))
            return
        folder = os.path.dirname(file.path) if file.within is None else file.within
        await in_thread(run.reactor, _make_folder, folder or ".")
        got = await run.client.download(
            file.directory,
            file.filename,
            file.path,
            progress=transfer.update,
            max_size=max_size,
            within=file.within,
        )
        result = Result(Outcome.DOWNLOADED, file.name, file.path, got.size, got.sha256)
        run.report(result, got.received)


async def _is_here(run: Run, file: RemoteFile, found: Found) -> bool:
    """Whether the local path has the same content, and is not behind a link."""
    try:
        local = await open_file(run.reactor, file.path, file.within)
    except LocalFailure:
        return False
    try:
        if local.size != found.size:
            return False
        sha256 = found.sha256
        if sha256 is None:
            again = await run.client.find(file.directory, file.filename, digest=True)
            sha256 = None if again is None else again.sha256
        return sha256 is not None and await local.sha256() == sha256
    finally:
        await local.close()


async def _is_folder(run: Run, path: str) -> bool:
    return path.endswith("/") or await in_thread(run.reactor, os.path.isdir, path)


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError:
        raise LocalFailure(f"{folder.rstrip('/')}: this is not a folder") from None
    except OSError as error:
        raise local_failure(error, folder) from None

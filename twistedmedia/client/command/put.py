"""`twistedmedia put`: stores files and folders, or standard input."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twistedmedia.client.command.results import (
    STORED_ALREADY,
    Outcome,
    Result,
    failure,
    stored_result,
)
from twistedmedia.client.command.run import Run, for_each
from twistedmedia.client.command.trees import LocalFile, local_items
from twistedmedia.client.exceptions import ClientError, LocalFailure, Refused
from twistedmedia.client.locations import folders_at, name_at, name_of
from twistedmedia.client.outcomes import Stored
from twistedmedia.client.threads import in_thread
from twistedmedia.client.uploader import format_of

Progress = Callable[[int, int], None]

# Codes of the service.
_PRECONDITION_FAILED, _NAME_TAKEN, _UNSUPPORTED_FORMAT = 412, 501, 504
# Attempts to replace a file that other clients keep storing and deleting.
_MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class PutOptions:
    """Options of `put`. `etag` is the entity tag of the one file to replace, `*` for any file.
    `replace` replaces a file of the same name, if there is one. With `strict` a file of a folder
    fails, instead of being left out, if the service does not take its format. Entries of a folder
    that match `exclude` are skipped.
    """

    etag: str | None = None
    replace: bool = False
    strict: bool = False
    exclude: Sequence[str] = ()


async def put(
    run: Run, paths: Sequence[str], directory: str, options: PutOptions = PutOptions()
) -> None:
    """Store files and folders in `directory`, and skip files that are stored already. If two files
    would get the same name, the second fails.

    :raises Unreachable: when the service cannot be reached; the rest is not tried.
    """
    target: str | None = None
    with run.reporting_failures(directory):
        target = "/".join(folders_at(directory))
    if target is None:
        return
    items = await in_thread(run.reactor, local_items, paths, target, options.exclude)
    if options.etag is not None and not _is_one_file(items):
        error = LocalFailure("--if-match replaces one file: name one file, and no folder")
        run.report(failure(error))
        return
    found: list[LocalFile] = []
    for item in items:
        if isinstance(item, Result):
            run.report(item)
        else:
            found.append(item)
    uploader = _Uploader(run, options)
    files, duplicates = _without_duplicates(found)
    for file in files:
        run.display.expect(file.size)
    await for_each(files, uploader.put, jobs=run.jobs)
    for file, error in duplicates:  # last, when it is known which formats the service takes
        uploader.report_duplicate(file, error)


async def put_stream(run: Run, descriptor: int, argument: str, options: PutOptions) -> None:
    """Store as `argument` what can be read from `descriptor`.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting_failures(argument):
        name = name_at(argument)
        etag = options.etag
        if options.replace and await run.client.find(name.directory, name.filename) is not None:
            etag = "*"
        with run.transferring(str(name)) as transfer:
            stored = await run.client.upload_stream(
                descriptor, name.directory, name.filename, etag=etag, progress=transfer.update
            )
        run.report(stored_result(stored, Outcome.STORED, str(name)), stored.size)


class _Uploader:
    """Stores files, and remembers which formats the service does not take."""

    def __init__(self, run: Run, options: PutOptions) -> None:
        self._run = run
        self._options = options
        self._refused_formats: dict[str, Refused] = {}

    async def put(self, file: LocalFile) -> None:
        """Store a file, and report the result."""
        run = self._run
        first: int | None = None  # the bytes that the service had from an earlier run
        last = 0

        showing = run.transferring(file.name, file.size)
        with run.reporting_failures(file.name, file.path), showing as transfer:

            def progress(sent: int, size: int) -> None:
                nonlocal first, last
                first = sent if first is None else min(first, sent)
                last = sent
                transfer.update(sent, size)

            run.report(await self._store_or_leave_out(file, progress), last - (first or 0))

    def report_duplicate(self, file: LocalFile, error: LocalFailure) -> None:
        """Report that `file` failed with `error`, or that it is left out, if the service does not
        take its format anyway.
        """
        refused = None if file.is_named else self._refused_formats.get(format_of(file.filename))
        if refused is not None and not self._options.strict:
            self._run.report(Result(Outcome.LEFT_OUT, file.name, file.path, reason=refused.reason))
        else:
            self._run.report(failure(error, file.name, file.path))

    async def _store_or_leave_out(self, file: LocalFile, progress: Progress) -> Result:
        if file.is_named:
            return await self._store(file, progress)
        file_format = format_of(file.filename)
        try:
            if file_format in self._refused_formats:
                raise self._refused_formats[file_format]
            return await self._store(file, progress)
        except Refused as error:
            if error.code != _UNSUPPORTED_FORMAT:
                raise
            self._refused_formats[file_format] = error
            if self._options.strict:
                raise
            return Result(Outcome.LEFT_OUT, file.name, file.path, reason=error.reason)

    async def _store(self, file: LocalFile, progress: Progress) -> Result:
        # None: the service has no file of this name; False: it has one with other content.
        is_same = await self._run.client.matches(file.path, file.directory, file.filename)
        if is_same:
            return Result(Outcome.SKIPPED, file.name, file.path, file.size, reason=STORED_ALREADY)
        etag = self._options.etag
        if etag is None and self._options.replace:
            stored = await self._replace_or_upload(file, progress, is_taken=is_same is False)
        elif etag is None and is_same is False:
            raise Refused(409, _NAME_TAKEN, "the file exists already, with other content")
        else:
            stored = await self._send(file, etag, progress)
        return stored_result(stored, Outcome.STORED, file.name, file.path)

    async def _replace_or_upload(
        self, file: LocalFile, progress: Progress, *, is_taken: bool
    ) -> Stored:
        """Replace the file of this name, or store a new one if the name is not taken. If another
        client stores or deletes such a file meanwhile, try the other request.
        """
        attempts = 0
        while True:
            attempts += 1
            try:
                return await self._send(file, "*" if is_taken else None, progress)
            except Refused as error:
                changed = _PRECONDITION_FAILED if is_taken else _NAME_TAKEN
                if error.code != changed or attempts == _MAX_ATTEMPTS:
                    raise
                is_taken = not is_taken

    async def _send(self, file: LocalFile, etag: str | None, progress: Progress) -> Stored:
        """Store a new file, or replace the one with the entity tag `etag`."""
        client, place = self._run.client, (file.path, file.directory, file.filename)
        if etag is not None:
            return await client.replace(*place, etag, progress=progress)
        store, ask_first = self._run.resume_store, not file.is_named
        return await client.upload(
            *place, progress=progress, resume_store=store, ask_first=ask_first
        )


def _without_duplicates(
    files: Sequence[LocalFile],
) -> tuple[list[LocalFile], list[tuple[LocalFile, LocalFailure]]]:
    """Split off the files that would get the name of an earlier file, each with its error. The
    service normalises names, so normalised names are compared. A file that is named twice is sent
    once.
    """
    by_name: dict[str, LocalFile] = {}
    duplicates = []
    for file in files:
        try:
            name = str(name_of(file.directory, file.filename))
        except ClientError:
            name = file.name  # invalid, which is reported when the file is to be sent
        first = by_name.setdefault(name, file)
        if os.path.normpath(first.path) != os.path.normpath(file.path):
            error = LocalFailure(f"{file.path}: {first.path} has the same name")
            duplicates.append((file, error))
    return list(by_name.values()), duplicates


def _is_one_file(items: Sequence[LocalFile | Result]) -> bool:
    return len(items) == 1 and not (isinstance(items[0], LocalFile) and not items[0].is_named)

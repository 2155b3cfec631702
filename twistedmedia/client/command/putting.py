"""`twistedmedia put`: files and folders to the service, several at a time; or standard input."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twistedmedia.client.command.results import Outcome, Result, failure
from twistedmedia.client.command.running import Run, at_once
from twistedmedia.client.command.trees import Item, LeftOut, Sendable, Unreadable, local_items
from twistedmedia.client.exceptions import ClientError, LocalFailure, Refused
from twistedmedia.client.locations import folders_at, name_at, name_of
from twistedmedia.client.outcomes import Stored
from twistedmedia.client.threads import in_thread
from twistedmedia.client.uploader import format_of

_THERE = "stored already"
_NAME_TAKEN, _FORMAT = 501, 504
_PRECONDITION = 412
# How often a replacement is tried while other clients store and delete the same file.
_MOST_TURNS = 5


@dataclass(frozen=True, slots=True)
class PutOptions:
    """How files are put.

    `replace` replaces whichever file has the name, and stores one whose name is not taken. `etag`
    is the entity tag of the one file to be replaced, `*` for any. `strict` makes a failure of a
    file in a folder whose format the service does not take. `exclude` are patterns of what is
    passed over in folders.
    """

    etag: str | None = None
    replace: bool = False
    strict: bool = False
    exclude: Sequence[str] = ()


async def put(
    run: Run,
    paths: Sequence[str],
    directory: str,
    options: PutOptions = PutOptions(),
) -> None:
    """Store what `paths` name in `directory`; what is there already is skipped. Of two files that
    would get the same name the second fails.

    :raises Unreachable: when the service cannot be reached; the rest is not tried then.
    """
    below: str | None = None
    with run.reporting(directory):
        below = "/".join(folders_at(directory))
    if below is None:
        return
    items = await in_thread(run.reactor, local_items, paths, below, options.exclude)
    if options.etag is not None and not _is_one_file(items):
        run.report(failure(LocalFailure("--if-match is about one file: name one, and no folder")))
        return
    sendable: list[Sendable] = []
    for item in items:
        if isinstance(item, LeftOut):
            run.report(Result(Outcome.LEFT_OUT, path=item.path, reason=item.reason))
        elif isinstance(item, Unreadable):
            run.report(failure(item.error, path=item.path))
        else:
            sendable.append(item)
    putting = _Putting(run, options)
    first, twins = _without_twins(sendable)
    for item in first:
        run.display.expect(item.size)
    await at_once(run.jobs, first, putting.put)
    for item, error in twins:  # by now it is known which formats the service takes
        putting.refuse(item, error)


async def put_stream(run: Run, descriptor: int, written: str, options: PutOptions) -> None:
    """Store what can be read from `descriptor` as `written`.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting(written):
        name = name_at(written)
        etag = options.etag
        if options.replace and await run.client.find(name.directory, name.filename) is not None:
            etag = "*"
        with run.transferring(str(name)) as transfer:
            stored = await run.client.upload_stream(
                descriptor, name.directory, name.filename, etag=etag, progress=transfer.moved
            )
        run.report(_result(stored, str(name), None), stored.size)


class _Putting:
    def __init__(self, run: Run, options: PutOptions) -> None:
        self._run = run
        self._options = options
        self._refused: dict[str, Refused] = {}  # by the formats that the service does not take

    def refuse(self, item: Sendable, error: LocalFailure) -> None:
        """Report that `item` is not sent because of `error`. It is left out if it would have been
        without that error.
        """
        name = _name(item)
        refused = None if item.is_named else self._refused.get(format_of(item.filename))
        if refused is not None and not self._options.strict:
            self._run.report(Result(Outcome.LEFT_OUT, name, item.path, reason=refused.reason))
        else:
            self._run.report(failure(error, name, item.path))

    async def put(self, item: Sendable) -> None:
        run = self._run
        name = _name(item)
        first: int | None = None  # what was there already from a run before
        last = 0

        with run.reporting(name, item.path), run.transferring(name, item.size) as transfer:

            def moved(sent: int, size: int) -> None:
                nonlocal first, last
                first = sent if first is None else min(first, sent)
                last = sent
                transfer.moved(sent, size)

            run.report(await self._result(item, name, moved), last - (first or 0))

    async def _result(self, item: Sendable, name: str, moved: Callable[[int, int], None]) -> Result:
        if item.is_named:
            return await self._stored(item, name, moved)
        file_format = format_of(item.filename)
        try:
            if file_format in self._refused:
                raise self._refused[file_format]
            return await self._stored(item, name, moved)
        except Refused as error:
            if error.code != _FORMAT:
                raise
            self._refused[file_format] = error
            if self._options.strict:
                raise
            return Result(Outcome.LEFT_OUT, name, item.path, reason=error.reason)

    async def _stored(self, item: Sendable, name: str, moved: Callable[[int, int], None]) -> Result:
        client = self._run.client
        held = await client.matches(item.path, item.directory, item.filename)
        if held:
            return Result(Outcome.SKIPPED, name, item.path, item.size, reason=_THERE)
        etag = self._options.etag
        if etag is not None:
            stored = await self._replaced(item, etag, moved)
        elif self._options.replace:
            stored = await self._replaced_or_new(item, moved, is_taken=held is False)
        elif held is False:
            raise Refused(409, _NAME_TAKEN, "the file exists already, with other content")
        else:
            stored = await self._new(item, moved)
        return _result(stored, name, item.path)

    async def _replaced_or_new(
        self, item: Sendable, moved: Callable[[int, int], None], *, is_taken: bool
    ) -> Stored:
        """Replace what has the name, or store a new file. Other clients may store or delete a file
        of that name meanwhile: then the other request is made.
        """
        turns = 0
        while True:
            turns += 1
            try:
                return await (
                    self._replaced(item, "*", moved) if is_taken else self._new(item, moved)
                )
            except Refused as error:
                contradiction = _PRECONDITION if is_taken else _NAME_TAKEN
                if error.code != contradiction or turns == _MOST_TURNS:
                    raise
                is_taken = not is_taken

    async def _replaced(
        self, item: Sendable, etag: str, moved: Callable[[int, int], None]
    ) -> Stored:
        return await self._run.client.replace(
            item.path, item.directory, item.filename, etag, progress=moved
        )

    async def _new(self, item: Sendable, moved: Callable[[int, int], None]) -> Stored:
        return await self._run.client.upload(
            item.path,
            item.directory,
            item.filename,
            progress=moved,
            resume_store=self._run.record,
            ask_first=not item.is_named,
        )


def _without_twins(
    items: Sequence[Sendable],
) -> tuple[list[Sendable], list[tuple[Sendable, LocalFailure]]]:
    """Those with a name of their own, and those whose name another one before them has, each with
    the error to report. The service normalises names, so they are compared as it has them. A file
    that is named twice is sent once.
    """
    by_name: dict[str, Sendable] = {}
    twins = []
    for item in items:
        try:
            name = str(name_of(item.directory, item.filename))
        except ClientError:
            name = _name(item)  # not allowed, which is reported when it is to be sent
        first = by_name.setdefault(name, item)
        if os.path.normpath(first.path) != os.path.normpath(item.path):
            twins.append((item, LocalFailure(f"{item.path}: that is where {first.path} goes")))
    return list(by_name.values()), twins


def _name(item: Sendable) -> str:
    return f"{item.directory}/{item.filename}".removeprefix("/")


def _is_one_file(items: Sequence[Item]) -> bool:
    return len(items) == 1 and not (isinstance(items[0], Sendable) and not items[0].is_named)


def _result(stored: Stored, name: str, path: str | None) -> Result:
    outcome, reason = Outcome.STORED, None
    if stored.identical:
        outcome, reason = Outcome.SKIPPED, _THERE
    elif stored.replaced:
        outcome = Outcome.REPLACED
    return Result(
        outcome,
        name,
        path,
        stored.size,
        stored.sha256,
        stored.url,
        reason=reason,
        problem=stored.problem,
    )

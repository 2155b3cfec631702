"""`twistedmedia put`: files and folders to the service, several at a time; or standard input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twistedmedia.client.command.results import Outcome, Result, failure
from twistedmedia.client.command.running import Run, at_once
from twistedmedia.client.command.trees import Item, LeftOut, Sendable, Unreadable, local_items
from twistedmedia.client.errors import LocalFailure, Refused
from twistedmedia.client.outcomes import Stored
from twistedmedia.client.places import folders_at, name_at
from twistedmedia.client.threads import in_thread
from twistedmedia.client.uploading import format_of

_THERE = "stored already"
_NAME_TAKEN, _FORMAT = 501, 504
_PRECONDITION = 412


@dataclass(frozen=True, slots=True)
class PutOptions:
    """How files are put.

    `etag` is the entity tag of the file to be replaced, `*` for whichever has the name. `strict`
    makes a failure of a file in a folder whose format the service does not take. `exclude` are
    patterns of what is passed over in folders.
    """

    etag: str | None = None
    strict: bool = False
    exclude: Sequence[str] = ()


async def put(
    run: Run,
    paths: Sequence[str],
    directory: str,
    options: PutOptions = PutOptions(),
) -> None:
    """Store what `paths` name in `directory`; what is there already is skipped.

    :raises Unreachable: when the service cannot be reached; the rest is not tried then.
    """
    below: str | None = None
    with run.reporting(directory):
        below = "/".join(folders_at(directory))
    if below is None:
        return
    items = await in_thread(run.reactor, local_items, paths, below, options.exclude)
    if options.etag not in (None, "*") and not _is_one_file(items):
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
            run.display.expect(item.size)
    putting = _Putting(run, options)
    await at_once(run.jobs, sendable, putting.put)


async def put_stream(run: Run, descriptor: int, written: str, options: PutOptions) -> None:
    """Store what can be read from `descriptor` as `written`.

    :raises Unreachable: when the service cannot be reached.
    """
    with run.reporting(written):
        name = name_at(written)
        etag = options.etag
        if etag == "*" and await run.client.find(name.directory, name.filename) is None:
            etag = None
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

    async def put(self, item: Sendable) -> None:
        run = self._run
        name = f"{item.directory}/{item.filename}".removeprefix("/")
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
        held = await client.holds(item.path, item.directory, item.filename)
        if held:
            return Result(Outcome.SKIPPED, name, item.path, item.size, reason=_THERE)
        etag = self._options.etag
        if held is False and etag is None:
            raise Refused(409, _NAME_TAKEN, "the file exists already, with other content")
        if etag is not None and (held is False or etag != "*"):
            try:
                stored = await client.replace(
                    item.path, item.directory, item.filename, etag, progress=moved
                )
                return _result(stored, name, item.path)
            except Refused as error:
                if etag != "*" or error.status != _PRECONDITION:
                    raise  # else the other file has gone meanwhile
        stored = await client.upload(
            item.path,
            item.directory,
            item.filename,
            progress=moved,
            record=self._run.record,
            ask_first=not item.is_named,
        )
        return _result(stored, name, item.path)


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

"""`twistedmedia put`: files and folders to the service, several at a time."""

from __future__ import annotations

from collections.abc import Sequence

from twistedmedia.client.command.results import Outcome, Result, failure
from twistedmedia.client.command.running import Run, at_once
from twistedmedia.client.command.trees import LeftOut, Sendable, Unreadable, local_items
from twistedmedia.client.errors import ClientError, Refused, Unreachable
from twistedmedia.client.places import folders_at
from twistedmedia.client.threads import in_thread

_THERE = "stored already"


async def put(run: Run, paths: Sequence[str], directory: str) -> None:
    """Store what `paths` name in `directory`; what is there already is skipped.

    :raises Unreachable: when the service cannot be reached; the rest is not tried then.
    """
    try:
        below = "/".join(folders_at(directory))
    except ClientError as error:
        run.report(failure(error, directory))
        return
    items = await in_thread(run.reactor, local_items, paths, below)
    sendable: list[Sendable] = []
    for item in items:
        if isinstance(item, LeftOut):
            run.report(Result(Outcome.LEFT_OUT, path=item.path, reason=item.reason))
        elif isinstance(item, Unreadable):
            run.report(failure(item.error, path=item.path))
        else:
            sendable.append(item)
            run.display.expect(item.size)
    await at_once(run.jobs, sendable, lambda item: _put(run, item))


async def _put(run: Run, item: Sendable) -> None:
    name = f"{item.directory}/{item.filename}".removeprefix("/")
    transfer = run.display.transfer(name)
    first: int | None = None  # what was there already from a run before
    last = 0

    def moved(sent: int, size: int) -> None:
        nonlocal first, last
        first = sent if first is None else min(first, sent)
        last = sent
        transfer.moved(sent, size)

    try:
        held = await run.client.holds(item.path, item.directory, item.filename)
        if held is False:
            raise Refused(409, 501, "the file exists already, with other content")
        if held:
            result = Result(Outcome.SKIPPED, name, item.path, item.size, reason=_THERE)
        else:
            stored = await run.client.upload(
                item.path, item.directory, item.filename, progress=moved, record=run.record
            )
            outcome = Outcome.SKIPPED if stored.identical else Outcome.STORED
            reason = _THERE if stored.identical else None
            result = Result(
                outcome,
                name,
                item.path,
                stored.size,
                stored.sha256,
                stored.url,
                reason=reason,
                problem=stored.problem,
            )
        run.report(result, last - (first or 0))
    except ClientError as error:
        run.report(failure(error, name, item.path))
        if isinstance(error, Unreachable):
            raise
    finally:
        transfer.ended(item.size)

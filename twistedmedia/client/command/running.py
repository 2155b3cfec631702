"""What all subcommands of the command need: the client, and where to report to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    DeferredLock,
    ensureDeferred,
)

from twistedmedia.client.command.progress import Display, Transfer
from twistedmedia.client.command.results import Outcome, Result, Tally, failure
from twistedmedia.client.exceptions import ClientError, TooManyEntries, Unreachable
from twistedmedia.client.media import MediaClient
from twistedmedia.client.upload_records import ResumeStore

T = TypeVar("T")

_ALLOW_MORE = "allow more of them (--max-entries), or name the directories one by one"


@dataclass(frozen=True)
class Run:
    """One run of the command. `jobs` is how many files are under way at once."""

    reactor: Any
    client: MediaClient
    display: Display
    tally: Tally
    record: ResumeStore
    jobs: int
    as_json: bool
    quiet: bool

    def report(self, result: Result, moved: int = 0) -> None:
        """Write what became of a file, for which `moved` bytes were sent or received."""
        self.tally.count(result, moved)
        if self.as_json:
            self.display.line(result.json)
        elif result.outcome in (Outcome.FAILED, Outcome.LEFT_OUT):
            self.display.note(result.line)
        elif not self.quiet:
            self.display.line(result.line)

    @contextmanager
    def reporting(self, name: str | None = None, path: str | None = None) -> Iterator[None]:
        """Report a `ClientError` of the block as a failure of the file `name` or `path`, and go on
        behind the block.

        :raises Unreachable: after it is reported: the rest is not to be tried then.
        """
        try:
            yield
        except ClientError as error:
            told: ClientError = error
            if isinstance(error, TooManyEntries):  # as users of the command put it
                told = TooManyEntries(error.max_entries, _ALLOW_MORE)
            self.report(failure(told, name, path))
            if isinstance(error, Unreachable):
                raise

    @contextmanager
    def transferring(self, name: str, size: int = 0) -> Iterator[Transfer]:
        """Show the transfer of `name` for the duration of the block. `size` is what the display was
        told to expect of it, in bytes.
        """
        transfer = self.display.transfer(name)
        try:
            yield transfer
        finally:
            transfer.ended(size)

    def fail(self, reason: str) -> None:
        """Count a failure of no file, and say why, if the results are for a person."""
        result = Result(Outcome.FAILED, reason=reason)
        self.tally.count(result)
        if not self.as_json:
            self.display.note(result.line)


async def at_once(
    count: int, items: Iterable[T] | AsyncIterator[T], work: Callable[[T], Awaitable[None]]
) -> None:
    """Do `work` on each of `items`, on up to `count` of them at once. The next item is taken when
    there is a place for it. The first that raises ends all others, and is raised when they have
    ended; so does a cancellation.
    """
    queue = items if isinstance(items, AsyncIterator) else _each(items)
    taking = DeferredLock()
    causes: list[Exception] = []
    workers: list[Deferred[None]] = []

    async def worker() -> None:
        while not causes:
            try:
                async with taking:
                    item = await anext(queue)
                await work(item)
            except StopAsyncIteration:
                return
            except CancelledError:
                raise
            except Exception as error:
                if not causes:
                    causes.append(error)
                    for each in list(workers):
                        each.cancel()
                raise

    for _ in range(count):
        workers.append(ensureDeferred(worker()))
    results = await DeferredList(workers, consumeErrors=True)
    if causes:
        raise causes[0]
    if any(not success for success, _ in results):
        raise CancelledError


async def _each(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item

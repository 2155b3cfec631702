"""One run of the command: what all subcommands share, and work on several files at once."""

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

from twistedmedia.client.command.display import Display, Transfer
from twistedmedia.client.command.results import Outcome, Result, Tally, failure
from twistedmedia.client.exceptions import ClientError, TooManyEntries, Unreachable
from twistedmedia.client.media import MediaClient
from twistedmedia.client.upload_records import ResumeStore

T = TypeVar("T")

_ALLOW_MORE = "allow more of them (--max-entries), or name the directories one by one"


@dataclass(frozen=True)
class Run:
    """One run of the command. Up to `jobs` files are in progress at once."""

    reactor: Any
    client: MediaClient
    display: Display
    tally: Tally
    resume_store: ResumeStore
    jobs: int
    as_json: bool
    quiet: bool

    def report(self, result: Result, moved: int = 0) -> None:
        """Count and show `result`, for which `moved` bytes were sent or received."""
        self.tally.count(result, moved)
        if self.as_json:
            self.display.line(result.json)
        elif result.outcome in (Outcome.FAILED, Outcome.LEFT_OUT):
            self.display.note(result.line)
        elif not self.quiet:
            self.display.line(result.line)

    @contextmanager
    def reporting_failures(
        self, name: str | None = None, path: str | None = None
    ) -> Iterator[None]:
        """Report a `ClientError` of the block as a failure of the file `name` or `path`, and
        suppress it.

        :raises Unreachable: after reporting it, so that nothing else is tried.
        """
        try:
            yield
        except TooManyEntries as error:  # it names a parameter of the library
            self.report(failure(TooManyEntries(error.max_entries, _ALLOW_MORE), name, path))
        except ClientError as error:
            self.report(failure(error, name, path))
            if isinstance(error, Unreachable):
                raise

    @contextmanager
    def transferring(self, name: str, size: int = 0) -> Iterator[Transfer]:
        """Show the transfer of `name` during the block. `size` is how many bytes of it the display
        expects.
        """
        transfer = self.display.transfer(name)
        try:
            yield transfer
        finally:
            transfer.end(size)

    def fail(self, reason: str) -> None:
        """Count a failure that is not about a file. Show it, unless the output is JSON."""
        result = Result(Outcome.FAILED, reason=reason)
        self.tally.count(result)
        if not self.as_json:
            self.display.note(result.line)


async def for_each(
    items: Iterable[T] | AsyncIterator[T], work: Callable[[T], Awaitable[None]], *, jobs: int
) -> None:
    """Call `work` with each of `items`, up to `jobs` at once. An item is taken when a job is free.
    The first exception cancels all other jobs, and is raised when they have ended. A cancellation
    of the caller does the same.
    """
    queue = items if isinstance(items, AsyncIterator) else _async(items)
    taking = DeferredLock()
    errors: list[Exception] = []
    workers: list[Deferred[None]] = []

    async def worker() -> None:
        while not errors:
            try:
                async with taking:
                    item = await anext(queue)
                await work(item)
            except StopAsyncIteration:
                return
            except CancelledError:
                raise
            except Exception as error:
                if not errors:
                    errors.append(error)
                    for each in list(workers):
                        each.cancel()
                raise

    for _ in range(jobs):
        workers.append(ensureDeferred(worker()))
    results = await DeferredList(workers, consumeErrors=True)
    if errors:
        raise errors[0]
    if any(not success for success, _ in results):
        raise CancelledError


async def _async(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item

"""The one way in: every front end hands the files it receives to this.

It decides how many requests may upload or import at once, and counts them in the shares of their
callers. It publishes to the end what it has begun to publish, also if the client leaves. `arrival`
decides what becomes of one file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.deferreds import shield
from twistedmedia.errors import RETRY_AFTER_S, MediaError, Stopping
from twistedmedia.fairness import descriptors
from twistedmedia.fairness.places import Slots, grow
from twistedmedia.fairness.shares import Holder, Share, Shares
from twistedmedia.http.forms import MAX_FILE_PARTS
from twistedmedia.library.upload import PLAIN, ContentCoding, Upload, UploadLimits
from twistedmedia.store.interface import ResumableDraft, Store

T = TypeVar("T")


# Of the descriptors that the process may have, the files of forms may take this part.
_FORMS_PART = 4


class UploadSlot:
    """The place of one upload or import: a `shares.Holder`, as fast as what it takes content from.
    It logs when it gives way. A `with` statement releases it at its end.
    """

    _log = Logger()
    _share: Share

    def __init__(self, what: str, source: str, content: Holder) -> None:
        """`what` it is, and `source`, an address, are for the log."""
        self._what = what
        self._source = source
        self._content = content

    def pace(self) -> float | None:
        return self._content.pace()

    def give_way(self) -> None:
        self._log.warn(
            "gave way: the slowest {what} of {source}, to a caller that has fewer",
            what=self._what,
            source=self._source,
        )
        self._content.give_way()

    async def take(self, places: Slots, caller: str) -> Self:
        """Take one of `places`. The wait may be cancelled.

        :raises Busy: as `Slots.take`.
        """
        self._share = await places.take(caller, self)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._share.release()
        del self._share  # it refers to this place

    @contextmanager
    def lent_to(self, content: Holder) -> Iterator[None]:
        """The time in which it is `content` that the place is taken for."""
        before, self._content = self._content, content
        try:
            yield
        finally:
            self._content = before


class Library:
    """Takes files into a store. `places` of uploads, `imports`, and `form_files` that are held open
    are shared among the callers.

    An import has a place of each of the first two. It takes that of the upload first, so two
    imports never wait for each other.
    """

    _log = Logger()

    def __init__(
        self, store: Store, limits: UploadLimits, clock: IReactorTime | None = None
    ) -> None:
        """`clock` is the reactor. Without it no request waits for a place: see `places`."""
        self.store = store
        self.limits = limits
        self.places = Slots(limits.max_uploads, limits.busy_rate, clock)
        imports = limits.max_imports or max(1, limits.max_uploads // 2)
        self.imports = Slots(imports, limits.busy_rate, clock)
        self.form_files = Shares(self._most_form_files(), limits.busy_rate)
        self._clock = clock
        self._unbroken: dict[object, object] = {}  # what each is, by a key of its own
        self._waiting_for_quiet: list[Deferred[None]] = []
        self._is_hurried = False

    @property
    def uploads(self) -> int:
        """How many requests are uploading."""
        return self.places.used

    async def upload(self, caller: str, source: str, content: Holder) -> UploadSlot:
        """A place for a request of `caller` that uploads `content`, for a `with` statement.
        `source` is its address. The wait for the place may be cancelled.

        :raises Busy: as `Slots.take`.
        """
        return await UploadSlot("upload", source, content).take(self.places, caller)

    async def importing(self, caller: str, source: str, content: Holder) -> UploadSlot:
        """A place for a request of `caller` that imports `content`, as for `upload`.

        :raises Busy: as `Slots.take`.
        """
        return await UploadSlot("import", source, content).take(self.imports, caller)

    async def form_file(self, form: Share) -> None:
        """Have `form`, a share of `form_files`, hold one more file. The wait for it may be
        cancelled.

        :raises Busy: as `places.grow`.
        """
        await grow(form, 1, self._clock)

    def divide_descriptors(self) -> None:
        """The limit of descriptors was changed."""
        self.form_files.total = self._most_form_files()

    def _most_form_files(self) -> int:
        most = self.limits.max_uploads * MAX_FILE_PARTS
        limit = descriptors.limit()
        return most if limit is None else min(most, limit // _FORMS_PART)

    def arrival(
        self,
        source: str,
        *,
        caller: str,
        declared: int | None = None,
        coding: ContentCoding = PLAIN,
        draft: ResumableDraft | None = None,
    ) -> Upload:
        """A file begins to arrive, or goes on; see `Upload`."""
        return Upload(self.store, self.limits, source, caller, declared, coding, draft)

    async def publish(
        self, arrivals: list[Upload], turn: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Publish the arrivals that have not failed, in their order. Once begun this goes on to the
        end, also if nobody waits any more. Those that fail have a `failure` then, the others
        `stored`. `turn` is awaited between two of them.
        """
        for arrival in arrivals:
            arrival.publishing = True
        await self.unbroken(self._publish(arrivals, turn), _Publish(arrivals))

    def unbroken(self, work: Coroutine[Deferred[Any], Any, T], what: object) -> Deferred[T]:
        """What `work` comes to. It goes on to its end, also if nobody waits. The text of `what`
        names it in `under_way`.
        """
        key = object()
        self._unbroken[key] = what
        working = ensureDeferred(work)
        working.addBoth(self._ended, key)
        return shield(working, unclaimed=self._unclaimed)

    @property
    def under_way(self) -> list[str]:
        """What must not be broken off, each by its name."""
        return [str(what) for what in self._unbroken.values()]

    def quiet(self) -> Deferred[None]:
        """Fires when nothing is under way that must not be broken off. May be cancelled."""
        waiting: Deferred[None] = Deferred()
        self._waiting_for_quiet.append(waiting)
        self._tell_quiet()
        return waiting

    def hurry(self) -> None:
        """Begin to publish no further file: nobody waits for the outcome any more."""
        self._is_hurried = True

    async def _publish(
        self, arrivals: list[Upload], turn: Callable[[], Awaitable[None]] | None
    ) -> None:
        # Of a form with many files one line for each reason: a small request can have 256 of them.
        failed: dict[str, list[Upload]] = {}
        try:
            for arrival in arrivals:
                if turn is not None and arrival is not arrivals[0]:
                    await turn()
                if self._is_hurried:
                    arrival.fail(Stopping(RETRY_AFTER_S))
                await arrival.publish()
                if arrival.stored is None:
                    failed.setdefault(str(arrival.failure), []).append(arrival)
        finally:
            for arrival in arrivals:
                arrival.let_go()
            for first, *others in failed.values():
                first.log_failure(first.failure, len(others))

    def _ended(self, outcome: T, key: object) -> T:
        del self._unbroken[key]
        self._tell_quiet()
        return outcome

    def _tell_quiet(self) -> None:
        if not self._unbroken:
            waiting, self._waiting_for_quiet = self._waiting_for_quiet, []
            for each in waiting:
                each.callback(None)

    def _unclaimed(self, outcome: object) -> None:
        if isinstance(outcome, Failure) and not outcome.check(MediaError, ConnectionLost):
            self._log.failure("what a client had begun failed after it had gone", outcome)


@dataclass(frozen=True, slots=True)
class _Publish:
    """A publish, as the log names it."""

    arrivals: list[Upload]

    def __str__(self) -> str:
        more = len(self.arrivals) - 1
        return f"{str(self.arrivals[0].name)!r}" + (f" and {more} more of a form" if more else "")

"""The one way in: every front end hands the files it receives to this, and here the rules hold.

An `Arrival` is one file on its way: named when its name is known, written as its bytes come,
judged, published. It never knows how the bytes came. What docs/http.md says under "Storing" is
decided here and in the store, and nowhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.boundaries import Store, Stored
from twistedmedia.errors import Busy, FormatNotSupported, MediaError, TooLarge
from twistedmedia.faults import fault
from twistedmedia.limits import ByteBudget
from twistedmedia.names import MediaName, media_name
from twistedmedia.shielding import shielded

T = TypeVar("T")

# To look first whether a file can be stored costs as much as to write a small one.
WORTH_PREPARING_BYTES = 1 << 20
RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Coding:
    """How a front end's bytes become the file's: `decode` one piece, or `measure` what it gives.

    `decode` runs where the store writes, off the event loop.
    """

    decode: Callable[[bytes], bytes]
    measure: Callable[[bytes], int]


PLAIN = Coding(decode=lambda piece: piece, measure=len)


@dataclass(frozen=True, slots=True)
class Limits:
    """`formats` are extensions in lower case, `max_upload` is in bytes, `max_form` too, and
    `max_uploads` is how many requests may upload at once.
    """

    formats: frozenset[str] = frozenset({"mp3", "wav"})
    max_upload: int = 2 << 30
    max_form: int = 8 << 30
    max_uploads: int = 64


class Intake:
    """Takes files into a store."""

    log = Logger()

    def __init__(self, store: Store, limits: Limits) -> None:
        self.store = store
        self.limits = limits
        self._uploads = 0
        self._publishing = 0
        self._waiting_for_quiet: list[Deferred[None]] = []

    @property
    def uploads(self) -> int:
        """How many requests are uploading."""
        return self._uploads

    @contextmanager
    def upload(self) -> Iterator[None]:
        """The time in which one request uploads.

        :raises Busy: when as many do as may.
        """
        if self._uploads >= self.limits.max_uploads:
            raise Busy(RETRY_AFTER_S)
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    def accept(self, name: MediaName) -> MediaName:
        """`name`, when files of its format are stored.

        :raises FormatNotSupported: when not.
        """
        if name.extension not in self.limits.formats:
            raise FormatNotSupported(self.limits.formats)
        return name

    def arrival(
        self, source: str, *, declared: int | None = None, coding: Coding = PLAIN
    ) -> Arrival:
        """A file begins to arrive from `source`, an address for the log. `declared` is its size in
        bytes where that is known. Use it as a context manager: at the end of that nothing is left
        of it but what was published.
        """
        return Arrival(self, source, declared, coding)

    async def publish(self, arrivals: list[Arrival]) -> None:
        """Publish the arrivals that have not failed, in their order. Once begun this goes on to the
        end, whoever stops waiting. Those that fail have a `failure` then, the others `stored`.
        """
        self._publishing += 1
        for arrival in arrivals:
            arrival.publishing = True
        publishing = ensureDeferred(self._publish(arrivals))
        await shielded(publishing.addBoth(self._published), unclaimed=self._unclaimed)

    def quiet(self) -> Deferred[None]:
        """Fires when nothing is being published."""
        waiting: Deferred[None] = Deferred()
        self._waiting_for_quiet.append(waiting)
        self._tell_quiet()
        return waiting

    async def _publish(self, arrivals: list[Arrival]) -> None:
        try:
            for arrival in arrivals:
                await arrival.publish()
        finally:
            for arrival in arrivals:
                arrival.let_go()

    def _published(self, outcome: Failure | None) -> Failure | None:
        self._publishing -= 1
        self._tell_quiet()
        return outcome

    def _tell_quiet(self) -> None:
        if self._publishing == 0:
            waiting, self._waiting_for_quiet = self._waiting_for_quiet, []
            for each in waiting:
                each.callback(None)

    def _unclaimed(self, outcome: Failure | None) -> None:
        if isinstance(outcome, Failure):
            self.log.failure("a publish failed after its client had gone", outcome)


class Arrival:
    """One file on its way in. Made by `Intake.arrival`.

    `failure` is why it will not be stored: of several reasons the one that is judged first. An
    arrival that has failed still takes bytes, counts them and drops them. `stored` is set once it
    is published.
    """

    def __init__(self, intake: Intake, source: str, declared: int | None, coding: Coding) -> None:
        self.name: MediaName | None = None
        self.directory = ""
        self.filename = ""
        self.failure: MediaError | None = None
        self.stored: Stored | None = None
        self._intake = intake
        self._source = source
        self._declared = declared
        self._coding = coding
        self._budget = ByteBudget(intake.limits.max_upload)
        self._draft = intake.store.begin(declared)
        self._batch: deque[bytes] = deque()  # pieces that are not written yet
        self._writing: Deferred[None] | None = None
        self.publishing = False  # and no longer ours to let go of

    def named(self, directory: str, filename: str) -> None:
        """The name is known; it may turn out not to be allowed, which is a `failure`."""
        self.directory, self.filename = directory, filename
        try:
            self.accepted(media_name(directory, filename))
        except MediaError as error:
            self.fail(error)

    def accepted(self, name: MediaName) -> None:
        """The name is known and valid; its format may not be supported, which is a `failure`."""
        self.directory, self.filename = name.directory, name.filename
        try:
            self.name = self._intake.accept(name)
        except MediaError as error:
            self.fail(error)
        else:
            self._intake.log.info(
                "arriving: {name!r} from {source}", name=str(name), source=self._source
            )

    def fail(self, error: MediaError) -> None:
        """This file will not be stored."""
        if self.failure is None or error.rank < self.failure.rank:
            self.failure = error
        self._draft.discard()

    async def prepare(self) -> None:
        """Judge what can be judged before the first byte: the declared size always, space and the
        name where looking is worth its cost.
        """
        if self._declared is not None and self._declared > self._budget.limit:
            self.fail(TooLarge(self._budget.limit))
        worthwhile = self._declared is None or self._declared >= WORTH_PREPARING_BYTES
        if self.failure is None and self.name is not None and worthwhile:
            await self._outcome(self._draft.prepare(self.name))

    async def write(self, pieces: list[bytes]) -> None:
        """More of the file, coded as the arrival's coding says. Comes back when the bytes before
        these are written, so that these are written while the next ones are received.
        """
        await self._written()
        self._batch.extend(pieces)
        if self.failure is None:
            self._writing = self._draft.append(self._counted())
        else:
            self._drop_batch()

    async def end(self) -> None:
        """The last byte has come, and is written."""
        await self._written()

    async def seal(self) -> None:
        """Bring the content to stable storage now, where the publish will not follow at once."""
        if self.failure is None:
            await self._outcome(self._draft.seal())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writing is not None:
            # Nobody waits for it any more, and what it says no longer matters.
            self._writing.addErrback(lambda _: None)
        if not self.publishing:
            self.let_go()
            self._log_failure(self.failure if error is None else error)

    def _counted(self) -> Iterable[bytes]:
        while self._batch:
            decoded = self._coding.decode(self._batch.popleft())
            self._budget.spend(len(decoded))
            yield decoded

    def _drop_batch(self) -> None:
        """Count what will not be written, if that may still matter: too large is judged before
        space, and after what is wrong with the request or the name.
        """
        pieces = list(self._batch)
        self._batch.clear()
        if self.failure is not None and self.failure.rank > TooLarge.rank:
            try:
                self._budget.spend(sum(map(self._coding.measure, pieces)))
            except TooLarge as error:
                self.fail(error)

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await self._outcome(writing)
            if self.failure is not None:
                self._drop_batch()

    async def _outcome(self, work: Deferred[T]) -> T | None:
        """What `work` for this file fires with, or None when it fails: then that is the file's
        failure, and no other's.
        """
        try:
            return await work
        except CancelledError:
            raise
        except MediaError as error:
            self.fail(error)
        except Exception:  # noqa: BLE001  # logged and answered as a fault of ours
            doing = f"storing {self.directory}/{self.filename}"
            self.fail(fault(self._intake.log, repr(doing), Failure()))
        return None

    async def publish(self) -> None:
        """Called by `Intake.publish`, in its turn."""
        if self.failure is None and self.name is not None:
            self.stored = await self._outcome(self._draft.publish(self.name))
        if self.stored is not None:
            self._intake.log.info(
                "stored: {name!r}, {size} bytes, from {source}",
                name=str(self.name),
                size=self.stored.size,
                source=self._source,
            )
        else:
            self._log_failure(self.failure)

    def let_go(self) -> None:
        """Keep nothing but what is published. Idempotent."""
        self._draft.discard()

    def _log_failure(self, error: BaseException | None) -> None:
        if error is None:
            return
        why = "the client went away" if isinstance(error, CancelledError) else str(error)
        # The name may be anything that a client sent; repr escapes what could break the line.
        self._intake.log.warn(
            "not stored: {name!r} from {source}: {why}",
            name=f"{self.directory}/{self.filename}",
            source=self._source,
            why=why,
        )

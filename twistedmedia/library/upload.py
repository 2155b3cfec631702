"""One file on its way in, from the first byte to its name or its failure.

It does not know how the bytes arrive. The rules of docs/http.md for storing a file are decided here
and in the store, and nowhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.deferreds import drop_traceback
from twistedmedia.errors import (
    AlreadyExists,
    DigestMismatch,
    FormatNotSupported,
    MediaError,
    NotAudio,
    PreconditionFailed,
    TooLarge,
)
from twistedmedia.library.events import (
    Events,
    FileStored,
    Source,
    Storing,
    UploadBegun,
    UploadRefused,
)
from twistedmedia.library.inspection import Inspection
from twistedmedia.library.upload_limits import AudioCheckMode, UploadLimits
from twistedmedia.logs.incidents import report_incident
from twistedmedia.names import MediaName, media_name
from twistedmedia.store.interface import Draft, Store, StoredFile
from twistedmedia.store.preconditions import Precondition

T = TypeVar("T")

# Checking first whether a file can be stored costs as much as writing a small file.
MIN_PREPARED_BYTES = 1 << 20
# Jobs for small pieces would cost the disk's threads more than the bytes do. So pieces wait in
# memory until they have this size together. The objects of tiny pieces are larger than their bytes.
MIN_WRITE_BYTES = 16 << 10
_MAX_PIECES = 256


@dataclass(frozen=True, slots=True)
class ContentCoding:
    """How the received bytes become the file's. `decode` decodes one piece; it runs where the store
    writes, off the event loop. `measure` gives the size of a decoded piece.
    """

    decode: Callable[[bytes], bytes]
    measure: Callable[[bytes], int]


PLAIN = ContentCoding(decode=lambda piece: piece, measure=len)


FinishInspection = Callable[["Upload"], Awaitable[None]]


class _Phase(Enum):
    RECEIVING = "receiving"
    PUBLISHING = "publishing"  # `Library.publish` discards the draft


async def no_inspection(upload: Upload) -> None:
    """Do nothing: all bytes were inspected as they passed."""


class Upload:
    """One file on its way in. As a context manager it discards everything but a published file.

    `sha256` is the declared digest in hex, None if none was declared. Set it before the first byte
    is written if it is known then, before `publish` at the latest.

    `failure` is why the file is not stored: of several reasons the one with the lowest rank. After
    a failure there is no draft, and further bytes are counted and dropped. `stored` is the file
    once it is published. It is also set when the name has the declared content already, as after a
    lost response: then the upload is `identical`, and its bytes are not written.
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        limits: UploadLimits,
        events: Events,
        source: Source,
        *,
        declared: int | None = None,
        coding: ContentCoding = PLAIN,
        replacing: Precondition | None = None,
        draft: Draft | None = None,
        finish_inspection: FinishInspection = no_inspection,
    ) -> None:
        """`declared` is the size in bytes, if it is known. The file counts in the share that the
        caller of `source` has of the space, and is written in its turns of the store. With
        `replacing` it replaces the file that has its name, if the precondition holds.

        A given `draft` gets all bytes at once. `finish_inspection` is awaited before judging them.
        """
        self.name: MediaName | None = None
        self.directory = ""
        self.filename = ""
        self.sha256: str | None = None
        self.failure: MediaError | None = None
        self.stored: StoredFile | None = None
        self.replacing = replacing
        checks_audio = limits.checking is not AudioCheckMode.OFF
        self.inspection = Inspection(limits.max_upload, checks_audio=checks_audio)
        self._store = store
        self._limits = limits
        self._events = events
        self._source = source
        self._declared = declared
        self._coding = coding
        self._draft: Draft | None = draft  # else made when it is needed first
        self._min_write_bytes = 0 if draft else MIN_WRITE_BYTES
        self._finish_inspection = finish_inspection
        self._batch: deque[bytes] = deque()  # pieces that are not written yet
        self._batch_bytes = 0
        self._writing: Deferred[None] = succeed(None)
        self._how = Storing.REPLACED if replacing else Storing.NEW
        self._phase = _Phase.RECEIVING

    @property
    def size(self) -> int:
        """The bytes so far."""
        return self.inspection.size

    @property
    def identical(self) -> bool:
        """The name had the declared content already."""
        return self._how is Storing.IDENTICAL

    @property
    def is_publishing(self) -> bool:
        """Whether it was given to `Library.publish`."""
        return self._phase is _Phase.PUBLISHING

    @property
    def problem(self) -> str | None:
        """What is wrong with the stored file as audio, None if nothing is known to be."""
        if self.stored is None or self.size != self.stored.size:
            return None
        return self.inspection.problem(self.stored.name.extension)

    # The name

    def named(self, directory: str, filename: str) -> None:
        """Set the name. If it is not allowed, that is a `failure`."""
        self.directory, self.filename = directory, filename
        try:
            self.accepted(media_name(directory, filename))
        except MediaError as error:
            self.fail(error)

    def accepted(self, name: MediaName) -> None:
        """Set a valid name. If its format is not supported, that is a `failure`."""
        self.directory, self.filename = name.directory, name.filename
        try:
            self.check_format(name)
        except FormatNotSupported as error:
            self.fail(error)
            return
        self.name = name
        self._events.publish(UploadBegun(name, self._source))

    def resumed(self, name: MediaName) -> None:
        """Set the name of an upload that began in an earlier request."""
        self.name, self.directory, self.filename = name, name.directory, name.filename

    def check_format(self, name: MediaName) -> None:
        """Check that a file with that name may be stored.

        :raises FormatNotSupported: if not.
        """
        if name.extension not in self._limits.formats:
            raise FormatNotSupported(self._limits.formats)

    # Failing

    def fail(self, error: MediaError) -> None:
        """Do not store this file, because of `error`."""
        if self.failure is None or error.rank < self.failure.rank:
            self.failure = error
        drop_traceback(error)  # it is kept here, and its frames refer to this upload
        self.discard()

    def raise_failure(self) -> None:
        """Raise the failure, if there is one."""
        if self.failure is not None:
            raise self.failure

    def report_failure(self, error: BaseException | None, others: int = 0) -> None:
        """Publish why this file is not stored, if there is an `error`, and `others` of its form."""
        if error is not None:
            self._events.publish(
                UploadRefused(self.directory, self.filename, self._source, error, others)
            )

    # The content

    async def prepare(self, *, awaited: bool = False) -> None:
        """Check before the first byte: the declared size always, the name and the free space if
        that is worth its cost, or if the client has `awaited` it.
        """
        if self._declared is not None and self._declared > self.inspection.max_bytes:
            self.fail(TooLarge(self.inspection.max_bytes))
        is_worthwhile = (
            awaited
            or self.replacing is not None
            or self._declared is None
            or self._declared >= MIN_PREPARED_BYTES
        )
        if self.failure is None and self.name is not None and is_worthwhile:
            await self.attempt(self._ensure_draft().prepare(self.name, self.replacing))

    async def declare(self, size: int) -> None:
        """Set the declared size, before the first byte, and check it."""
        self._declared = size
        self.discard()
        self._draft = None
        await self.prepare(awaited=True)

    async def write(self, pieces: list[bytes]) -> None:
        """Take more received bytes. Returns when the bytes before these are written, so these are
        written while the next ones are received. Fewer than `MIN_WRITE_BYTES` wait in memory.
        """
        await self._wait_until_written()
        self._batch.extend(pieces)
        self._batch_bytes += sum(map(len, pieces))
        if self._batch_bytes >= self._min_write_bytes:
            self._write_batch()
        elif len(self._batch) > _MAX_PIECES:
            self._batch = deque([b"".join(self._batch)])

    async def end(self) -> None:
        """Write what is left after the last byte."""
        await self._wait_until_written()
        self._write_batch()
        await self._wait_until_written()

    async def seal(self) -> None:
        """Bring the content to stable storage now, if the publish does not follow at once."""
        if self._is_wanted:
            await self.attempt(self._ensure_draft().seal())

    @property
    def _is_wanted(self) -> bool:
        """Whether its bytes are still written."""
        return self.failure is None and not self.identical

    def _ensure_draft(self) -> Draft:
        if self._draft is None:
            self._draft = self._store.begin(self._declared, self._caller)
            self.inspection.start()
        return self._draft

    def _write_batch(self) -> None:
        self._batch_bytes = 0
        if not self._is_wanted:
            self._drop_batch()
        elif self._batch:
            self._writing = self._ensure_draft().append(self.inspection.feed(self._decoded()))

    def _decoded(self) -> Iterable[bytes]:
        while self._batch:
            yield self._coding.decode(self._batch.popleft())

    def _drop_batch(self) -> None:
        """Drop bytes that are not written. Those of a stored file are inspected. They are counted
        if TooLarge would have a lower rank than the failure.
        """
        pieces = list(self._batch)
        self._batch.clear()
        for piece in pieces if self.identical else ():
            self.inspection.look_at(self._coding.decode(piece))
        if self.failure is None or self.failure.rank > TooLarge.rank:
            try:
                self.inspection.count(sum(map(self._coding.measure, pieces)))
            except TooLarge as error:
                self.fail(error)

    async def _wait_until_written(self) -> None:
        writing, self._writing = self._writing, succeed(None)
        await self.attempt(writing)
        if self._batch and not self._is_wanted:
            self._drop_batch()

    async def attempt(self, work: Deferred[T]) -> T | None:
        """The result of `work` on this file, None if it fails. Then that is the `failure`, unless
        the file is stored already.
        """
        try:
            try:
                return await work
            except (AlreadyExists, PreconditionFailed):
                await self._recognise()
                if not self.identical:
                    raise
        except CancelledError:
            raise
        except MediaError as error:
            self.fail(error)
        except Exception:  # noqa: BLE001  # logged, and reported as an internal error
            doing = f"storing {self.directory}/{self.filename}"
            self.fail(report_incident(self._log, repr(doing), Failure()))
        return None

    async def _recognise(self) -> None:
        """Find out whether the name has the declared content already."""
        if self.name is not None and self.sha256 is not None:
            self.stored = await self._store.recognise(self.name, self.sha256, caller=self._caller)
            if self.stored is not None:
                self._how = Storing.IDENTICAL

    # Publishing

    def begin_publishing(self) -> None:
        """Leave the draft to `Library.publish`, even if nobody waits any more."""
        self._phase = _Phase.PUBLISHING

    async def publish(self) -> None:
        """Give the file its name. Called by `Library.publish`."""
        if self._is_wanted:
            await self._finish_inspection(self)
        if self._is_wanted and self.name is not None:
            self._ensure_draft()  # also for an empty file
            await self._judge_content(self.name)
        if self._is_wanted and self.name is not None:
            stored = await self.attempt(self._ensure_draft().publish(self.name, self.replacing))
            self.stored = self.stored or stored
        if self.stored is not None:
            self._report_stored(self.stored)

    async def _judge_content(self, name: MediaName) -> None:
        """Judge the whole content. A name that is taken is reported rather than bad content."""
        error = await self._digest_error() or self._audio_error(name)
        if error is not None and self._is_wanted:
            await self.attempt(self._ensure_draft().prepare(name, self.replacing))
            if self._is_wanted:
                self.fail(error)

    async def _digest_error(self) -> MediaError | None:
        if self.sha256 is not None:
            sealed = await self.attempt(self._ensure_draft().seal())
            if sealed is not None and sealed.sha256 != self.sha256:
                return DigestMismatch()
        return None

    def _audio_error(self, name: MediaName) -> MediaError | None:
        if self._limits.checking is not AudioCheckMode.REJECT:
            return None
        problem = self.inspection.problem(name.extension)
        return None if problem is None else NotAudio(problem)

    def _report_stored(self, stored: StoredFile) -> None:
        self._events.publish(FileStored(stored, self._how, self._source, self.problem))

    # Ending

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()
        if not self.is_publishing:
            self.report_failure(self.failure if error is None else error)

    def leave(self) -> None:
        """End the upload, unless it is being published: nobody waits for it any more."""
        self._writing.addErrback(lambda _: None)  # its failure no longer matters
        if not self.is_publishing:
            self.discard()

    def discard(self) -> None:
        """Drop everything but a published file. Idempotent."""
        if self._draft is not None:
            self._draft.discard()

    @property
    def _caller(self) -> str:
        return self._source.caller.key

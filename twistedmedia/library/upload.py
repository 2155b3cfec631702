"""One file on its way in, from the first byte to its name or its failure.

It never knows how the bytes came. What docs/http.md says under "Storing" of one file is decided
here and in the store, and nowhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Self, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.audio.verdict import AudioCheck
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
from twistedmedia.formats import MEDIA_TYPES
from twistedmedia.library.events import (
    Events,
    FileStored,
    Source,
    Storing,
    UploadBegun,
    UploadRefused,
)
from twistedmedia.limits import ByteBudget
from twistedmedia.logs.incidents import report_incident
from twistedmedia.names import MediaName, media_name
from twistedmedia.store.interface import Condition, Draft, ResumableDraft, Store, StoredFile

T = TypeVar("T")

# To look first whether a file can be stored costs as much as to write a small one.
WORTH_PREPARING_BYTES = 1 << 20
# A job for each small piece would cost the disk's threads more than the bytes do: pieces wait in
# memory until they are so many bytes together. Of tiny ones the objects are larger than the bytes.
WORTH_WRITING_BYTES = 16 << 10
_MANY_PIECES = 256


@dataclass(frozen=True, slots=True)
class ContentCoding:
    """How a front end's bytes become the file's: `decode` one piece, or `measure` what it gives.

    `decode` runs where the store writes, off the event loop.
    """

    decode: Callable[[bytes], bytes]
    measure: Callable[[bytes], int]


PLAIN = ContentCoding(decode=lambda piece: piece, measure=len)


class AudioCheckMode(Enum):
    """What is done about bytes that are not the audio that the name promises."""

    OFF = "off"
    FLAG = "flag"  # they are stored, and the answer says it
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """`formats` are extensions in lower case, `max_upload` is in bytes, `max_form` too, and
    `max_uploads` is how many requests may upload at once. `checking` is about audio. `media_types`
    are those of files, by extension, whether they may be stored or are only served. `max_imports`
    of the uploads may be imports, half of them unless given. `busy_rate` is how many bytes a second
    keep a place while there is none for others.
    """

    formats: frozenset[str] = frozenset({"mp3", "wav"})
    max_upload: int = 2 << 30
    max_form: int = 8 << 30
    max_uploads: int = 64
    checking: AudioCheckMode = AudioCheckMode.FLAG
    media_types: Mapping[str, str] = field(default_factory=lambda: MEDIA_TYPES)
    max_imports: int | None = None
    busy_rate: int = 16 << 10


@dataclass(frozen=True, slots=True)
class _Looked:
    """What one arrival has made of the bytes, for the next one to go on from."""

    check: AudioCheck | None


class Upload:
    """One file on its way in. Use it as a context manager: at the end of that nothing is left of it
    but what was published.

    `sha256` is the digest in hex that was declared, if one was, and `replacing` the condition under
    which it takes the place of the file that has its name; set both before the first byte is
    written, the digest before `publish` at the latest.

    `failure` is why it will not be stored: of several reasons the one that is judged first. An
    arrival that has failed has no draft. It still takes bytes, counts them and drops them. `stored`
    is set once it is published, or found `identical`: the name has the declared content already, so
    a client that lost its answer tries again. `problem` is what is wrong with it as audio.
    `checksum`, a hash of `hashlib`, if it is set, is kept up with what is written. `synced` bytes
    of one that goes on survive the machine already.
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
        draft: ResumableDraft | None = None,
    ) -> None:
        """`declared` is the size in bytes, if it is known. The file counts in the share that the
        caller of `source` has of the space, and is written in its turns of the store. With a
        `draft` the upload goes on with that, once it was `resume`d.
        """
        self.name: MediaName | None = None
        self.directory = ""
        self.filename = ""
        self.sha256: str | None = None
        self.replacing: Condition | None = None
        self.failure: MediaError | None = None
        self.stored: StoredFile | None = None
        self.identical = False
        self.problem: str | None = None
        self.checksum: Any = None
        self.synced = 0
        self._store = store
        self._limits = limits
        self._events = events
        self._source = source
        self._declared = declared
        self._coding = coding
        self._budget = ByteBudget(limits.max_upload)
        self._kept = draft
        self._draft: Draft | None = draft  # else made when it is needed first
        self._check = self._new_check() if draft else None  # else made with the draft
        self._reviewed = True  # all that was written has been looked at
        self._batch: deque[bytes] = deque()  # pieces that are not written yet
        self._batch_bytes = 0
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
            self.check_format(name)
        except FormatNotSupported as error:
            self.fail(error)
            return
        self.name = name
        self._events.publish(UploadBegun(name, self._source))

    def check_format(self, name: MediaName) -> None:
        """Look whether a file of that name may be stored.

        :raises FormatNotSupported: when it may not.
        """
        if name.extension not in self._limits.formats:
            raise FormatNotSupported(self._limits.formats)

    async def resume(self, name: MediaName) -> int:
        """Go on with the draft, which is to become `name`. Comes back with how many bytes are here.

        :raises MediaError: when that cannot be.
        """
        assert self._kept is not None
        self.name, self.directory, self.filename = name, name.directory, name.filename
        resumed = await self._kept.resume()
        self._budget.spend(resumed.size)
        self.synced = resumed.synced
        if isinstance(resumed.inspection, _Looked):
            self._check = resumed.inspection.check
        elif resumed.size:
            self._check, self._reviewed = None, False
        return resumed.size

    @property
    def size(self) -> int:
        """In bytes, so far."""
        return self._budget.spent

    async def sync(self) -> None:
        """Bring what was written to stable storage."""
        assert self._kept is not None
        await self._outcome(self._kept.sync())
        self.synced = self.size

    async def keep(self, *, synced: bool) -> None:
        """What was written counts, and is on stable storage if it is to be `synced`; another
        arrival will go on with it.

        :raises MediaError: when the storage fails.
        """
        assert self._kept is not None
        await self._kept.keep(_Looked(self._check) if self._reviewed else None, synced=synced)

    def fail(self, error: MediaError) -> None:
        """This file will not be stored."""
        if self.failure is None or error.rank < self.failure.rank:
            self.failure = error
        drop_traceback(error)  # it is kept here, and its frames refer to this arrival
        self.let_go()

    async def prepare(self, *, awaited: bool = False) -> None:
        """Judge what can be judged before the first byte: the declared size always, space and the
        name where looking is worth its cost, as it is when the client waits for it, `awaited`.
        """
        if self._declared is not None and self._declared > self._budget.limit:
            self.fail(TooLarge(self._budget.limit))
        worthwhile = (
            awaited
            or self.replacing is not None
            or self._declared is None
            or self._declared >= WORTH_PREPARING_BYTES
        )
        if self.failure is None and self.name is not None and worthwhile:
            await self._outcome(self._ensure_draft().prepare(self.name, self.replacing))

    async def declare(self, size: int) -> None:
        """It turns out that `size` bytes will come, of which none has: judge that as well."""
        self._declared = size
        self.let_go()
        self._draft = None
        await self.prepare(awaited=True)

    def raise_failure(self) -> None:
        """Raise the failure, if there is one."""
        if self.failure is not None:
            raise self.failure

    async def write(self, pieces: list[bytes]) -> None:
        """More of the file, coded as the arrival's coding says. Comes back when the bytes before
        these are written, so that these are written while the next ones are received. Fewer than
        `WORTH_WRITING_BYTES` are only kept in memory, until `end` or more of them; those of a
        resumable upload are always written.
        """
        await self._written()
        self._batch.extend(pieces)
        self._batch_bytes += sum(map(len, pieces))
        if self._kept is not None or self._batch_bytes >= WORTH_WRITING_BYTES:
            self._write_batch()
        elif len(self._batch) > _MANY_PIECES:
            self._batch = deque([b"".join(self._batch)])

    async def end(self) -> None:
        """The last byte has come, and is written."""
        await self._written()
        self._write_batch()
        await self._written()

    def _write_batch(self) -> None:
        self._batch_bytes = 0
        if not self._wanted:
            self._drop_batch()
        elif self._batch:
            self._writing = self._ensure_draft().append(self._counted())

    async def seal(self) -> None:
        """Bring the content to stable storage now, where the publish will not follow at once."""
        if self._wanted:
            await self._outcome(self._ensure_draft().seal())

    def leave(self) -> None:
        """Nobody waits for the file any more: nothing of it is left but what is published."""
        if self._writing is not None:
            self._writing.addErrback(lambda _: None)  # what it says no longer matters
        if not self.publishing:
            self.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()
        if not self.publishing:
            self.report_failure(self.failure if error is None else error)

    def _ensure_draft(self) -> Draft:
        if self._draft is None:
            self._draft = self._store.begin(self._declared, self._caller)
            self._check = self._new_check()
        return self._draft

    def _counted(self) -> Iterable[bytes]:
        while self._batch:
            decoded = self._coding.decode(self._batch.popleft())
            self._budget.spend(len(decoded))
            if self._check is not None:
                self._check.feed(decoded)
            if self.checksum is not None:
                self.checksum.update(decoded)
            yield decoded

    def _drop_batch(self) -> None:
        """Count what will not be written, if that may still matter: too large is judged before
        space, and after what is wrong with the request or the name. Look at what is stored already.
        """
        pieces = list(self._batch)
        self._batch.clear()
        if self.identical and self._check is not None:
            for piece in pieces:
                self._check.feed(self._coding.decode(piece))
        if self.failure is None or self.failure.rank > TooLarge.rank:
            try:
                self._budget.spend(sum(map(self._coding.measure, pieces)))
            except TooLarge as error:
                self.fail(error)

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await self._outcome(writing)
            if not self._wanted:
                self._drop_batch()

    @property
    def _wanted(self) -> bool:
        """Whether its bytes are still of use."""
        return self.failure is None and not self.identical

    async def _outcome(self, work: Deferred[T]) -> T | None:
        """What `work` for this file fires with, or None when it fails: then that is the file's
        failure, and no other's, unless the file turns out to be stored already.
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
        except Exception:  # noqa: BLE001  # logged and answered as a fault of ours
            doing = f"storing {self.directory}/{self.filename}"
            self.fail(report_incident(self._log, repr(doing), Failure()))
        return None

    async def _recognise(self) -> None:
        """Find out whether the name has the declared content already."""
        if self.name is not None and self.sha256 is not None:
            self.stored = await self._store.recognise(self.name, self.sha256, caller=self._caller)
            self.identical = self.stored is not None

    async def publish(self) -> None:
        """Called by `Library.publish`, in its turn."""
        if self._kept is not None and not self._reviewed:
            await self._review(self._kept)
        if self._wanted and self.name is not None:
            self._ensure_draft()  # also of a file without a byte
            await self._judge_content(self.name)
        elif self.stored is not None and self._budget.spent == self.stored.size:
            self._audio_error(self.stored.name)  # to be told; for a refusal it is too late
        if self._wanted and self.name is not None:
            stored = await self._outcome(self._ensure_draft().publish(self.name, self.replacing))
            self.stored = self.stored or stored
        if self.stored is not None:
            self._report_stored(self.stored)

    async def _review(self, draft: ResumableDraft) -> None:
        """Look at what earlier arrivals have written, which nobody remembers."""
        check = self._check = self._new_check()

        def take(piece: bytes) -> None:
            if check is not None:
                check.feed(piece)

        while self._wanted and not self._reviewed:
            self._reviewed = await self._outcome(draft.review(take)) is True

    def _new_check(self) -> AudioCheck | None:
        return None if self._limits.checking is AudioCheckMode.OFF else AudioCheck()

    async def _judge_content(self, name: MediaName) -> None:
        """What is judged when the content is whole, and after whether the name is free."""
        error = await self._digest_error() or self._audio_error(name)
        if error is not None and self._wanted:
            await self._outcome(self._ensure_draft().prepare(name, self.replacing))
            if self._wanted:
                self.fail(error)

    async def _digest_error(self) -> MediaError | None:
        if self.sha256 is not None:
            sealed = await self._outcome(self._ensure_draft().seal())
            if sealed is not None and sealed.sha256 != self.sha256:
                return DigestMismatch()
        return None

    def _audio_error(self, name: MediaName) -> MediaError | None:
        if self._check is not None:
            self.problem = self._check.problem(name.extension)
            if self.problem is not None and self._limits.checking is AudioCheckMode.REJECT:
                return NotAudio(self.problem)
        return None

    def let_go(self) -> None:
        """Keep nothing but what is published. Idempotent."""
        if self._draft is not None:
            self._draft.discard()

    def _report_stored(self, stored: StoredFile) -> None:
        if self.identical:
            how = Storing.IDENTICAL
        else:
            how = Storing.REPLACED if self.replacing else Storing.NEW
        self._events.publish(
            FileStored(
                how,
                stored.name,
                stored.size,
                stored.sha256,
                stored.etag,
                self._source,
                self.problem,
            )
        )

    def report_failure(self, error: BaseException | None, others: int = 0) -> None:
        """Tell that this file is not stored, because of `error` if there is one, and `others` of
        the same form.
        """
        if error is not None:
            self._events.publish(
                UploadRefused(self.directory, self.filename, self._source, error, others)
            )

    @property
    def _caller(self) -> str:
        return self._source.caller.key

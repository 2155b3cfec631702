"""The application core: what can be done with the media of a store.

Every interface calls `Library`, each operation with its `Caller`. So this is the place to ask what
a caller may do, and `Library.events` tells what was done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedmedia.deferreds import shield
from twistedmedia.errors import RETRY_AFTER_S, AddressRefused, Forbidden, MediaError, Stopping
from twistedmedia.fairness import descriptors
from twistedmedia.fairness.shares import Holder, Share, Shares
from twistedmedia.fairness.slots import Slots, grow
from twistedmedia.fetch.cache import FetchCache, FetchOutcome
from twistedmedia.fetch.download import Download
from twistedmedia.fetch.timings import Timings
from twistedmedia.fetch.urls import Url
from twistedmedia.http.forms import MAX_FILE_PARTS
from twistedmedia.library.caller import Caller
from twistedmedia.library.events import Events, FetchRefused, FileDeleted, Source
from twistedmedia.library.importing import Fetches, Transfer
from twistedmedia.library.log import log_event
from twistedmedia.library.upload import (
    PLAIN,
    ContentCoding,
    FinishInspection,
    Upload,
    no_inspection,
)
from twistedmedia.library.upload_limits import UploadLimits
from twistedmedia.library.upload_slots import UploadSlot
from twistedmedia.names import MediaName
from twistedmedia.store.interface import (
    Listed,
    Media,
    Reserved,
    ResumableDraft,
    StorageState,
    Store,
    WatchedStore,
)
from twistedmedia.store.preconditions import Precondition

T = TypeVar("T")

# Of the descriptors that the process may have, the files of forms may take this part.
_FORMS_PART = 4


class Library:
    """The operations on the media of `store`, within `limits`.

    Callers share the slots of uploads and imports, and the files that forms hold open. An import
    has a slot of each kind. It takes that of the upload first, so two imports never wait for each
    other.
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        limits: UploadLimits,
        clock: IReactorTime | None = None,
        *,
        fetches: Fetches | None = None,
    ) -> None:
        """`clock` is the reactor. Without it no request waits for a slot: see `Slots`. Without
        `fetches` no URL is fetched.
        """
        self.store = store
        self.limits = limits
        self.fetches = fetches
        self.events = Events(log_event)
        self.upload_slots = Slots(limits.max_uploads, limits.busy_rate, clock)
        imports = limits.max_imports or max(1, limits.max_uploads // 2)
        self.import_slots = Slots(imports, limits.busy_rate, clock)
        self.form_files = Shares(self._most_form_files(), limits.busy_rate)
        self._clock = clock
        self._fetch_cache = FetchCache(fetches.fetcher, fetches.fetch_limits) if fetches else None
        self._shielded: dict[object, object] = {}  # what each is, by a key of its own
        self._draining: list[Deferred[None]] = []
        self._publishes = True

    # Storing

    async def admit_upload(self, caller: Caller, content: Holder) -> UploadSlot:
        """A slot for a request that uploads `content`, for a `with` statement. The wait for it may
        be cancelled.

        :raises Busy: as `Slots.take`.
        """
        return await UploadSlot("upload", caller, content).take(self.upload_slots)

    async def admit_import(self, caller: Caller, content: Holder) -> UploadSlot:
        """A slot for a request that imports `content`, as `admit_upload`.

        :raises Busy: as `Slots.take`.
        """
        return await UploadSlot("import", caller, content).take(self.import_slots)

    async def hold_form_file(self, form: Share) -> None:
        """Have `form`, a share of `form_files`, hold one more file. The wait for it may be
        cancelled.

        :raises Busy: as `slots.grow`.
        """
        await grow(form, 1, self._clock)

    def begin(
        self,
        source: Source,
        *,
        declared: int | None = None,
        coding: ContentCoding = PLAIN,
        replacing: Precondition | None = None,
        draft: ResumableDraft | None = None,
        finish_inspection: FinishInspection = no_inspection,
    ) -> Upload:
        """A new upload, or one that goes on with a `draft`; the arguments are those of `Upload`."""
        return Upload(
            self.store,
            self.limits,
            self.events,
            source,
            declared=declared,
            coding=coding,
            replacing=replacing,
            draft=draft,
            finish_inspection=finish_inspection,
        )

    async def publish(
        self, uploads: list[Upload], turn: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Publish the uploads that have not failed, in their order. Once begun this goes on to its
        end, also if nobody waits any more. Afterwards those that fail have a `failure`, the others
        are `stored`. `turn` is awaited between two of them.
        """
        for upload in uploads:
            upload.begin_publishing()
        await self.run_shielded(self._publish(uploads, turn), _Publish(uploads))

    # Fetching

    def require_fetches(self) -> Fetches:
        """The means to fetch.

        :raises Forbidden: if there are none, because fetching is switched off.
        """
        if self.fetches is None:
            raise Forbidden("fetching is switched off on this service")
        return self.fetches

    async def fetch(
        self, caller: Caller, url: Url | None, *, fresh: bool, keep: bool
    ) -> FetchOutcome:
        """What a fetch of `url` comes to, None for the upstream's own. Callers who ask for a URL at
        the same time share a fetch. `fresh` and `keep` are as for `FetchCache.ask`.

        :raises Forbidden: as `require_fetches`.
        :raises MediaError: why the fetch failed.
        """
        self.require_fetches()
        assert self._fetch_cache is not None
        with self._report_refused(caller):
            return await self._fetch_cache.fetch(url, caller.key, fresh=fresh, store=keep)

    async def import_url(
        self,
        caller: Caller,
        url: Url,
        slot: UploadSlot,
        *,
        directory: str,
        filename: str,
        sha256: str | None,
    ) -> tuple[Upload, Timings | None]:
        """Store the content of `url`. Returns the upload, and the cost of the fetch; None if the
        file with the digest `sha256`, in hex, was there already. The request has an upload `slot`.
        It takes an import slot as well, because an import costs its caller next to nothing.

        :raises Forbidden: as `require_fetches`.
        :raises MediaError: why the content is not stored.
        """
        fetches = self.require_fetches()
        timings = None
        with self.begin(Source(caller, url.origin)) as upload:
            upload.sha256 = sha256
            upload.named(directory, filename)
            await upload.prepare(awaited=True)
            upload.raise_failure()
            if not upload.identical:
                download = Download(fetches.fetcher, url, fetches.import_limits, caller.key)
                transfer = Transfer(download)
                with (
                    await self.admit_import(caller, transfer),
                    slot.lent_to(transfer),
                    self._report_refused(caller),
                ):
                    timings = await transfer.run(upload)
            await self.publish([upload])
            upload.raise_failure()
        return upload, timings

    @contextmanager
    def _report_refused(self, caller: Caller) -> Iterator[None]:
        try:
            yield
        except AddressRefused as error:
            self.events.publish(FetchRefused(error.where, caller))
            raise

    # Reading and deleting

    def open(self, caller: Caller, name: MediaName) -> Deferred[Media]:
        """Open a file.

        Fails with `NotFound`; when the name is a directory's, with `IsDirectory`.
        """
        return self.store.open(name, caller=caller.key)

    def list_directory(
        self, caller: Caller, folders: tuple[str, ...], after: str, limit: int
    ) -> Listed:
        """The page with the first `limit` names of a directory that come after `after`."""
        return self.store.list(folders, after, limit, caller=caller.key)

    async def delete(
        self, caller: Caller, name: MediaName, precondition: Precondition | None = None
    ) -> bool:
        """Delete a file, if `precondition` holds. Whether there was such a file.

        :raises NameConflict: when the name is a directory's.
        :raises PreconditionFailed: when the precondition does not hold.
        """
        deleted = await self.store.delete(name, precondition, caller=caller.key)
        if deleted:
            self.events.publish(FileDeleted(name, caller))
        return deleted

    # Operating

    def storage_state(self) -> Deferred[StorageState]:
        """How the storage is, as far as the store knows."""
        if isinstance(self.store, WatchedStore):
            return self.store.look()
        return succeed(StorageState(None))

    @property
    def reserved(self) -> Reserved | None:
        """How much of the free space uploads have reserved, None if the store does not know."""
        return self.store.reserved if isinstance(self.store, WatchedStore) else None

    def on_descriptor_limit(self) -> None:
        """Divide the descriptors anew: their limit was changed."""
        self.form_files.total = self._most_form_files()

    # Stopping

    def run_shielded(self, work: Coroutine[Deferred[Any], Any, T], what: object) -> Deferred[T]:
        """Run `work` to its end, also if nobody waits for it. Fires with its result. The text of
        `what` names it in `running`.
        """
        key = object()
        self._shielded[key] = what
        working = ensureDeferred(work)
        working.addBoth(self._ended, key)
        return shield(working, unclaimed=self._log_unclaimed)

    @property
    def running(self) -> list[str]:
        """The shielded work that has not ended, each by its name."""
        return [str(what) for what in self._shielded.values()]

    def drain(self) -> Deferred[None]:
        """Fires when no shielded work is running. May be cancelled."""
        draining: Deferred[None] = Deferred()
        self._draining.append(draining)
        self._fire_if_drained()
        return draining

    def stop_publishing(self) -> None:
        """Begin to publish no further file: no client is left that waits for the outcome."""
        self._publishes = False

    def _most_form_files(self) -> int:
        most = self.limits.max_uploads * MAX_FILE_PARTS
        limit = descriptors.limit()
        return most if limit is None else min(most, limit // _FORMS_PART)

    async def _publish(
        self, uploads: list[Upload], turn: Callable[[], Awaitable[None]] | None
    ) -> None:
        # One event for each reason, not for each file: a small form can have 256 of them.
        failed: dict[str, list[Upload]] = {}
        try:
            for upload in uploads:
                if turn is not None and upload is not uploads[0]:
                    await turn()
                if not self._publishes:
                    upload.fail(Stopping(RETRY_AFTER_S))
                await upload.publish()
                if upload.stored is None:
                    failed.setdefault(str(upload.failure), []).append(upload)
        finally:
            for upload in uploads:
                upload.discard()
            for first, *others in failed.values():
                first.report_failure(first.failure, len(others))

    def _ended(self, outcome: T, key: object) -> T:
        del self._shielded[key]
        self._fire_if_drained()
        return outcome

    def _fire_if_drained(self) -> None:
        if not self._shielded:
            draining, self._draining = self._draining, []
            for each in draining:
                each.callback(None)

    def _log_unclaimed(self, outcome: object) -> None:
        if isinstance(outcome, Failure) and not outcome.check(MediaError, ConnectionLost):
            self._log.failure("what a client had begun failed after it had gone", outcome)


@dataclass(frozen=True, slots=True)
class _Publish:
    """A publish, as the log names it."""

    uploads: list[Upload]

    def __str__(self) -> str:
        more = len(self.uploads) - 1
        return f"{str(self.uploads[0].name)!r}" + (f" and {more} more of a form" if more else "")

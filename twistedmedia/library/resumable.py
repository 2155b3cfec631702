"""Uploads that go over many requests: begun, added to, looked at, ended.

An upload is a kept draft of the store; each request that adds to it is an arrival of the intake.
What of a request counts, when the whole is published, and who may write is decided here; how
requests look, in `web.uploading`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twistedmedia.errors import (
    AlreadyExists,
    Busy,
    DigestMismatch,
    InternalError,
    Malformed,
    MediaError,
    NameConflict,
    NameTaken,
    NoSpace,
    NotFound,
    StorageFailed,
    TooLarge,
    WrongOffset,
)
from twistedmedia.http.addresses import rate_limit_key
from twistedmedia.http.body import Body
from twistedmedia.http.tus import Checksum
from twistedmedia.library.library import Library
from twistedmedia.library.quota import UploadQuota
from twistedmedia.library.takeover import TakeoverLock
from twistedmedia.library.upload import Upload
from twistedmedia.limits import ByteBudget
from twistedmedia.names import MediaName
from twistedmedia.store.interface import (
    ResumableDraft,
    ResumableDrafts,
    UploadSpec,
    UploadState,
    UploadStatus,
)

# What a client is told is in whole seconds, and its clock may be a little off.
_EXPIRED_FOR_S = 60
# A power failure takes no more than this of what was acknowledged. To sync that often costs as much
# time as some MiB more.
_SYNC_BYTES = 64 << 20
_MOST_BETWEEN_SWEEPS_S = 600


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """How far an upload is: `offset` of `length` bytes, None while nobody knows how many. While it
    is unfinished it is dropped at `expires_s`, in seconds since the epoch; `stored` is its name
    once it is stored. `note` is its plan's.
    """

    upload: str
    offset: int
    length: int | None
    note: str
    expires_s: float | None = None
    stored: MediaName | None = None


@dataclass(frozen=True, slots=True)
class UploadPart:
    """What one request adds, from `offset` on. `length` is that of the whole upload, where the
    request tells it.
    """

    offset: int
    body: Body
    length: int | None = None
    checksum: Checksum | None = None


class ResumableUploads:
    """The uploads of one intake's store.

    Of the requests for one upload one is at work and at most one waits, without content: see
    `turns`. A newer request tells the one at work to end. A request at work goes on to its end
    when its client leaves: the bytes that had arrived are kept.
    """

    _log = Logger()

    def __init__(
        self,
        library: Library,
        drafts: ResumableDrafts,
        *,
        expiry_s: float = 24 * 3600,
        max_unfinished: int = 1000,
        now_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """An upload that nobody adds to for `expiry_s` seconds is dropped. One caller may have
        `max_unfinished` of them. `now_s` is seconds since the epoch, which may be set at any time;
        `monotonic_s` is a clock that is never set.
        """
        self.library = library
        self._expiry_s = expiry_s
        self._drafts = drafts
        self._unfinished = UploadQuota(max_unfinished)
        self._now_s = now_s
        self._monotonic_s = monotonic_s
        self._turns = TakeoverLock()
        self._counted = False
        self._adjusted_s: float | None = None  # wall time less monotonic time, at the last sweep
        self._sweeping = LoopingCall(self._sweep)

    def start(self, reactor: Any) -> None:
        """The store is open: find out what is there, and sweep from now on."""
        self._sweeping.clock = reactor
        interval_s = min(_MOST_BETWEEN_SWEEPS_S, max(1.0, self._expiry_s / 10))
        self._sweeping.start(interval_s, now=True)

    def stop(self) -> None:
        """Sweep no more."""
        if self._sweeping.running:
            self._sweeping.stop()

    def create(
        self, source: str, caller: str, plan: UploadSpec, part: UploadPart
    ) -> Deferred[UploadProgress]:
        """Begin an upload, with a first part, which may be empty. `source` is an address for the
        log, `caller` whose upload it counts as. Fires when that part is done with.

        Fails with the errors of an upload by PUT, and `TooManyUnfinished`; then there is none.
        """
        request = _Request(token_hex(16), caller, plan.name)
        return self.library.unbroken(self._create(source, plan, part, request), request)

    def add(self, source: str, upload: str, part: UploadPart) -> Deferred[UploadProgress]:
        """Add a part. When that was the last one, fires after the file is published.

        Fails with `NotFound`, `WrongOffset`, `Superseded` by a newer request, `StillEnding` while
        an older one ends, `ChecksumMismatch`, and what a publish fails with, but with `NameTaken`
        where the name is another file's. Of a part that breaks off what came is kept, unless it has
        a checksum.
        """
        request = _Request(upload, rate_limit_key(source))
        return self.library.unbroken(self._in_turn(source, part, request), request)

    def look(self, source: str, upload: str) -> Deferred[UploadProgress]:
        """How far an upload is. One that is complete is published first.

        Fails with `NotFound`, `NameTaken`, `Superseded`, and what a publish fails with.
        """
        request = _Request(upload, rate_limit_key(source))
        return self.library.unbroken(self._look(source, request), request)

    def end(self, source: str, upload: str) -> Deferred[None]:
        """Drop an upload. A file that it has become stays.

        Fails with `NotFound`.
        """
        request = _Request(upload, rate_limit_key(source))
        return self.library.unbroken(self._end(request), request)

    async def sweep(self) -> None:
        """Drop what nobody has added to for so long that it has expired. A wall clock that was set
        meanwhile makes no difference.
        """
        await self._drafts.learn()  # which may take long: the clocks are read after it
        now_s, monotonic_s = self._now_s(), self._monotonic_s()
        await self._drafts.adjust(int(now_s * 10**9), int(monotonic_s * 10**9))
        self._adjusted_s = now_s - monotonic_s
        idle_s = self._expiry_s + _EXPIRED_FOR_S
        spared = self._unfinished.written_since(monotonic_s - idle_s)
        # The clock may have been set back meanwhile. Files that were written since are not older.
        before_s = min(now_s, self._now_s()) - idle_s
        for upload in await self._drafts.expire(int(before_s * 10**9), spared):
            if upload in self._unfinished:
                self._log.info("expired: upload {upload}", upload=upload)
            self._unfinished.end(upload)

    async def _sweep(self) -> None:
        try:
            if not self._counted:  # before the first sweep, or what that drops would count
                await self._take_stock()
            await self.sweep()
        except CancelledError:  # the store stops
            pass
        except MediaError as error:  # the next time, perhaps
            self._log.warn("expired uploads were not swept: {why}", why=error.reason)
        except Exception:  # noqa: BLE001
            self._log.failure("expired uploads could not be swept")

    async def _take_stock(self) -> None:
        self._unfinished.take_stock(await self._drafts.callers())
        self._counted = True

    async def _create(
        self, source: str, plan: UploadSpec, part: UploadPart, request: _Request
    ) -> UploadProgress:
        upload, caller = request.upload, request.caller
        # Only to look.
        with self.library.arrival(source, declared=plan.length, caller=caller) as arrival:
            arrival.sha256 = plan.sha256
            arrival.accepted(plan.name)
            await arrival.prepare(awaited=True)
            arrival.raise_failure()
        self._unfinished.begin(upload, caller)
        try:
            if arrival.stored is not None:  # it is there already
                if plan.length not in (None, arrival.stored.size):
                    raise DigestMismatch("what has that digest has another length")
                plan = replace(plan, length=arrival.stored.size)
                await self._drafts.create(upload, plan, arrival.stored.etag)
                return _stored(upload, plan)  # it counts until it expires
            await self._drafts.create(upload, plan)
            self._unfinished.wrote(upload, self._monotonic_s())
            if part.body.length == 0 and plan.length != 0 and part.checksum is None:
                return self._unfinished_at(upload, plan, 0, self._now_s())
            return await self._in_turn(source, part, request)
        except BaseException:  # nobody knows its id
            await self._forget(request)
            raise

    async def _in_turn(self, source: str, part: UploadPart, request: _Request) -> UploadProgress:
        upload, body = request.upload, part.body
        try:
            # A waiting request holds no content, so one that has some does not wait. It would be
            # refused in any case: its offset was right before the older request added its bytes.
            async with self._turns.take(upload, body.fail, waits=body.length == 0):
                body.outlives = True  # the bytes that arrive are read, however soon the client goes
                kept = await self._drafts.find(upload, caller=request.caller)
                request.name = kept.spec.name
                if kept.status is not UploadStatus.UNFINISHED:
                    progress = await self._ended(request, kept)
                    self._judged(kept, part)
                    if await body.read():
                        raise TooLarge(kept.size, "the upload")
                    return progress
                plan = self._judged(kept, part)
                with await self.library.upload(request.caller, source, body):
                    return await self._receive(source, kept.spec, plan, part, request)
        finally:
            body.drop()

    async def _look(self, source: str, request: _Request) -> UploadProgress:
        upload = request.upload
        async with self._turns.take(upload, _goes_on):
            kept = await self._drafts.find(upload, synced=True, caller=request.caller)
            request.name = kept.spec.name
            if kept.status is not UploadStatus.UNFINISHED:
                return await self._ended(request, kept)
            if kept.size != kept.spec.length:
                return self._unfinished_at(
                    upload, kept.spec, kept.size, self._touched_s(upload, kept.modified_ns)
                )
            draft = self._drafts.resume(upload, None, provisional=False, caller=kept.spec.caller)
            arrival = self.library.arrival(source, caller=request.caller, draft=draft)
            try:
                await arrival.resume(kept.spec.name)
                return await self._publish(kept.spec, arrival, draft, request)
            finally:
                await draft.release(undo=False)

    async def _end(self, request: _Request) -> None:
        async with self._turns.take(request.upload, _goes_on):
            if not await self._forget(request):
                raise NotFound("there is no such upload")

    def _judged(self, kept: UploadState, part: UploadPart) -> UploadSpec:
        """The plan, with what the part says of it, if the part fits to it."""
        _judge_offset(kept, part)
        plan = kept.spec
        if part.length is not None and part.length != plan.length:
            if plan.length is not None:
                raise Malformed(f"the Upload-Length was said to be {plan.length}")
            if part.length < kept.size:
                raise Malformed(f"the Upload-Length is less than the {kept.size} bytes here")
            ByteBudget(self.library.limits.max_upload).spend(part.length)
            plan = replace(plan, length=part.length)
        coming = part.body.length or 0
        if plan.length is not None and kept.size + coming > plan.length:
            raise TooLarge(plan.length, "the upload")
        return plan

    async def _receive(
        self, source: str, before: UploadSpec, plan: UploadSpec, part: UploadPart, request: _Request
    ) -> UploadProgress:
        upload = request.upload
        provisional = part.checksum is not None
        draft = self._drafts.resume(
            upload, part.body.length, provisional=provisional, caller=plan.caller
        )
        arrival = self.library.arrival(source, caller=request.caller, draft=draft)
        if part.checksum is not None:
            arrival.checksum = part.checksum.begin()
        undo = False
        try:
            if await arrival.resume(plan.name) != part.offset:
                raise WrongOffset(part.offset)
            broke = await _read(arrival, part.body, plan.length, provisional=provisional)
            arrival.raise_failure()
            if part.checksum is not None and broke is None:
                broke = part.checksum.problem(arrival.checksum)
            undo = isinstance(broke, TooLarge) or (provisional and broke is not None)
            if broke is not None:
                self._log.info(
                    "broke off: {name!r} at {size} bytes from {source}: {why}",
                    name=str(plan.name),
                    size=part.offset if undo else arrival.size,
                    source=source,
                    why=str(broke),
                )
            if broke is not None and undo:
                raise broke
            if plan.length is not None and plan.length != before.length:
                await self._drafts.declare(upload, plan.length, caller=request.caller)
            if arrival.size == plan.length:
                progress = await self._publish(plan, arrival, draft, request)
            else:
                # Who records while he sends may not have any more what was acknowledged.
                synced = plan.length is None or arrival.size - arrival.synced >= _SYNC_BYTES
                await arrival.keep(synced=synced)
                progress = self._unfinished_at(upload, plan, arrival.size, self._now_s())
            if broke is not None:
                raise broke
            return progress
        finally:
            self._unfinished.wrote(upload, self._monotonic_s())
            await draft.release(undo=undo)

    async def _publish(
        self, plan: UploadSpec, arrival: Upload, draft: ResumableDraft, request: _Request
    ) -> UploadProgress:
        upload, caller = request.upload, request.caller
        arrival.sha256 = plan.sha256
        await self.library.publish([arrival])
        await draft.release(undo=False)
        if arrival.stored is not None:
            if arrival.identical:  # another's, of the same content
                await self._drafts.settle(upload, arrival.stored.etag, caller=caller)
            self._unfinished.end(upload)
            return _stored(upload, plan)
        failure = arrival.failure
        assert failure is not None
        if isinstance(failure, (AlreadyExists, NameConflict)):
            await self._drafts.settle(upload, None, caller=caller)
            self._unfinished.end(upload)
            raise NameTaken(failure.reason)
        if not isinstance(failure, _PASSING):
            await self._forget(request)
        raise failure

    async def _ended(self, request: _Request, kept: UploadState) -> UploadProgress:
        """What there is to say of an upload that is not unfinished."""
        if kept.status is UploadStatus.TAKEN:
            raise NameTaken
        media = await self.library.store.open(kept.spec.name, caller=request.caller)
        media.close()
        if media.size != kept.spec.length or kept.etag not in (None, media.etag):
            raise NotFound("what was uploaded is no longer there")
        return _stored(request.upload, kept.spec)

    async def _forget(self, request: _Request) -> bool:
        self._unfinished.end(request.upload)
        return await self._drafts.forget(request.upload, caller=request.caller)

    def _touched_s(self, upload: str, modified_ns: int) -> float:
        """When something was last added to an upload, by the wall clock of now. That may have been
        set since, also since the last sweep moved `modified_ns`, the time of the file.
        """
        now_s, monotonic_s = self._now_s(), self._monotonic_s()
        written_s = self._unfinished.written_s(upload)
        if written_s is not None:
            return now_s - (monotonic_s - written_s)
        touched_s = modified_ns / 10**9
        if self._adjusted_s is not None:
            touched_s += now_s - monotonic_s - self._adjusted_s
        return touched_s

    def _unfinished_at(
        self, upload: str, plan: UploadSpec, size: int, touched_s: float
    ) -> UploadProgress:
        return UploadProgress(
            upload, size, plan.length, plan.note, expires_s=touched_s + self._expiry_s
        )


@dataclass(slots=True)
class _Request:
    """A request of `caller` for an upload, as the log names it. `name` is set once it is known."""

    upload: str
    caller: str
    name: MediaName | None = None

    def __str__(self) -> str:
        return f"upload {self.upload}" + (f" of {str(self.name)!r}" if self.name else "")


# What an upload that is complete may fail with and be published at another time.
_PASSING = (NoSpace, StorageFailed, Busy, InternalError)


async def _read(
    arrival: Upload, body: Body, length: int | None, *, provisional: bool
) -> Exception | None:
    """Write what comes; why it broke off, if it did, or failed."""
    size = arrival.size
    try:
        async for chunks in body:
            size += sum(map(len, chunks))
            if length is not None and size > length:
                raise TooLarge(length, "the upload")
            await arrival.write(chunks)
            if size - arrival.synced >= _SYNC_BYTES and not provisional:
                await arrival.sync()
            arrival.raise_failure()
    except Exception as error:  # noqa: BLE001  # it is returned
        return error
    finally:
        await arrival.end()
    return None


def _stored(upload: str, plan: UploadSpec) -> UploadProgress:
    return UploadProgress(upload, plan.length or 0, plan.length, plan.note, stored=plan.name)


def _judge_offset(kept: UploadState, part: UploadPart) -> None:
    if part.offset != kept.size:
        raise WrongOffset(kept.size)


def _goes_on(_: Exception) -> None:
    """Soon over, or publishing, which is not broken off."""

"""Resumable uploads: files that arrive over many requests.

An upload is a kept draft of the store. Each request that adds to it goes on with that draft. What
of a request counts, when the whole is published, and who may write is decided here. How requests
look is the matter of `web.tus_uploads`.
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
from twistedmedia.library.caller import Caller
from twistedmedia.library.events import Source, UploadExpired, UploadInterrupted, UploadResumed
from twistedmedia.library.library import Library
from twistedmedia.library.quota import UploadQuota
from twistedmedia.library.resumption import Resumption, UploadPart, UploadProgress
from twistedmedia.library.takeover import TakeoverLock
from twistedmedia.limits import ByteBudget
from twistedmedia.names import MediaName
from twistedmedia.store.interface import (
    ResumableDrafts,
    UploadSpec,
    UploadState,
    UploadStatus,
)

# Clients are told whole seconds, and their clocks may be a little off.
_EXPIRED_FOR_S = 60
# A power failure takes at most so much of what was acknowledged. To sync more often costs as much
# time as some MiB more.
SYNC_BYTES = 64 << 20
_MOST_BETWEEN_SWEEPS_S = 600


class ResumableUploads:
    """The resumable uploads of one library.

    When several requests target one upload, only the newest is served: it asks the one at work to
    stop. At most one request waits, and only without content: see `TakeoverLock`. A request at
    work finishes even if its client disconnects, and the bytes received so far are kept.
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
        new_id: Callable[[], str] = lambda: token_hex(16),
        sync_bytes: int = SYNC_BYTES,
    ) -> None:
        """An upload that nobody adds to for `expiry_s` seconds is dropped. One caller may have
        `max_unfinished` of them. `now_s` is seconds since the epoch, which may be set at any time;
        `monotonic_s` is a clock that is never set. `new_id` makes 32 hexadecimal digits. At
        most about `sync_bytes` of acknowledged content are not on stable storage.
        """
        self.library = library
        self._expiry_s = expiry_s
        self._drafts = drafts
        self._quota = UploadQuota(max_unfinished)
        self._now_s = now_s
        self._monotonic_s = monotonic_s
        self._new_id = new_id
        self._sync_bytes = sync_bytes
        self._takeover = TakeoverLock()
        self._is_counted = False
        self._adjusted_s: float | None = None  # wall time less monotonic time, at the last sweep
        self._sweeping = LoopingCall(self._sweep)

    def start(self, reactor: Any) -> None:
        """Count the uploads in the store, which is open, and sweep from now on."""
        self._sweeping.clock = reactor
        interval_s = min(_MOST_BETWEEN_SWEEPS_S, max(1.0, self._expiry_s / 10))
        self._sweeping.start(interval_s, now=True)

    def stop(self) -> None:
        """Stop sweeping."""
        if self._sweeping.running:
            self._sweeping.stop()

    def create(
        self, caller: Caller, spec: UploadSpec, part: UploadPart
    ) -> Deferred[UploadProgress]:
        """Begin an upload, with a first part, which may be empty. Fires when that part is done
        with.

        Fails with the errors of an upload by PUT, and `TooManyUnfinished`; then there is no upload.
        """
        request = _Request(self._new_id(), caller, spec.name)
        return self.library.run_shielded(self._create(spec, part, request), request)

    def append(self, caller: Caller, upload_id: str, part: UploadPart) -> Deferred[UploadProgress]:
        """Add a part. When that was the last one, fires after the file is published.

        Fails with `NotFound`, `WrongOffset`, `Superseded` by a newer request, `StillEnding` while
        an older one ends, `ChecksumMismatch`, and what a publish fails with, but with `NameTaken`
        if the name is another file's. If a part breaks off, the received bytes are kept, unless it
        has a checksum.
        """
        request = _Request(upload_id, caller)
        return self.library.run_shielded(self._append(part, request), request)

    def status(self, caller: Caller, upload_id: str) -> Deferred[UploadProgress]:
        """How far an upload is. One that is complete is published first.

        Fails with `NotFound`, `NameTaken`, `Superseded`, and what a publish fails with.
        """
        request = _Request(upload_id, caller)
        return self.library.run_shielded(self._status(request), request)

    def terminate(self, caller: Caller, upload_id: str) -> Deferred[None]:
        """Drop an upload. A file that it has become stays.

        Fails with `NotFound`.
        """
        request = _Request(upload_id, caller)
        return self.library.run_shielded(self._terminate(request), request)

    async def sweep(self) -> None:
        """Drop uploads that have expired, also if the wall clock was set meanwhile."""
        await self._drafts.learn()  # which may take long: the clocks are read after it
        now_s, monotonic_s = self._now_s(), self._monotonic_s()
        await self._drafts.adjust(int(now_s * 10**9), int(monotonic_s * 10**9))
        self._adjusted_s = now_s - monotonic_s
        idle_s = self._expiry_s + _EXPIRED_FOR_S
        spared = self._quota.written_since(monotonic_s - idle_s)
        # The clock may have been set back meanwhile. Files that were written since are not older.
        before_s = min(now_s, self._now_s()) - idle_s
        for upload_id in await self._drafts.expire(int(before_s * 10**9), spared):
            if upload_id in self._quota:
                self.library.events.publish(UploadExpired(upload_id))
            self._quota.end(upload_id)

    async def _sweep(self) -> None:
        try:
            if not self._is_counted:  # before the first sweep, which drops some of them
                await self._count()
            await self.sweep()
        except CancelledError:  # the store stops
            pass
        except MediaError as error:  # the next sweep may succeed
            self._log.warn("expired uploads were not swept: {why}", why=error.reason)
        except Exception:  # noqa: BLE001
            self._log.failure("expired uploads could not be swept")

    async def _count(self) -> None:
        self._quota.take_stock(await self._drafts.callers())
        self._is_counted = True

    async def _create(
        self, spec: UploadSpec, part: UploadPart, request: _Request
    ) -> UploadProgress:
        upload_id, caller = request.upload_id, request.caller
        # This upload gets no bytes: it finds out whether such a file can be stored.
        with self.library.begin(Source(caller), declared=spec.length) as upload:
            upload.sha256 = spec.sha256
            upload.accepted(spec.name)
            await upload.prepare(awaited=True)
            upload.raise_failure()
        self._quota.begin(upload_id, caller.key)
        try:
            if upload.stored is not None:  # it is there already
                if spec.length not in (None, upload.stored.size):
                    raise DigestMismatch("what has that digest has another length")
                spec = replace(spec, length=upload.stored.size)
                await self._drafts.create(upload_id, spec, upload.stored.etag)
                return _stored(upload_id, spec)  # it counts until it expires
            await self._drafts.create(upload_id, spec)
            self._quota.wrote(upload_id, self._monotonic_s())
            if part.body.length == 0 and spec.length != 0 and part.checksum is None:
                return self._unfinished(upload_id, spec, 0, self._now_s())
            return await self._append(part, request)
        except BaseException:  # the client does not know its id
            await self._forget(request)
            raise

    async def _append(self, part: UploadPart, request: _Request) -> UploadProgress:
        upload_id, body = request.upload_id, part.body
        try:
            # A waiting request holds no content, so one that has some does not wait. It would be
            # refused in any case: its offset was right before the older request added its bytes.
            async with self._takeover.take(upload_id, body.fail, waits=body.length == 0):
                body.outlives_connection = True  # received bytes are read even if the client goes
                state = await self._drafts.find(upload_id, caller=request.caller.key)
                request.name = state.spec.name
                if state.status is not UploadStatus.UNFINISHED:
                    progress = await self._finished(request, state)
                    self._check(state, part)
                    if await body.read():
                        raise TooLarge(state.size, "the upload")
                    return progress
                spec = self._check(state, part)
                with await self.library.admit_upload(request.caller, body):
                    return await self._receive(state.spec, spec, part, request)
        finally:
            body.discard()

    async def _status(self, request: _Request) -> UploadProgress:
        upload_id = request.upload_id
        async with self._takeover.take(upload_id, _goes_on):
            state = await self._drafts.find(upload_id, synced=True, caller=request.caller.key)
            request.name = state.spec.name
            if state.status is not UploadStatus.UNFINISHED:
                return await self._finished(request, state)
            if state.size != state.spec.length:
                touched_s = self._touched_s(upload_id, state.modified_ns)
                return self._unfinished(upload_id, state.spec, state.size, touched_s)
            draft = self._drafts.resume(
                upload_id, None, provisional=False, caller=state.spec.caller
            )
            resumption = Resumption(self.library, request.caller, draft, self._sync_bytes)
            try:
                await resumption.start(state.spec.name)
                return await self._publish(state.spec, resumption, request)
            finally:
                await draft.release(undo=False)

    async def _terminate(self, request: _Request) -> None:
        async with self._takeover.take(request.upload_id, _goes_on):
            if not await self._forget(request):
                raise NotFound("there is no such upload")

    def _check(self, state: UploadState, part: UploadPart) -> UploadSpec:
        """The spec, with what the part says of it, if the part fits to it."""
        if part.offset != state.size:
            raise WrongOffset(state.size)
        spec = state.spec
        if part.length is not None and part.length != spec.length:
            if spec.length is not None:
                raise Malformed(f"the Upload-Length was said to be {spec.length}")
            if part.length < state.size:
                raise Malformed(f"the Upload-Length is less than the {state.size} bytes here")
            ByteBudget(self.library.limits.max_upload).spend(part.length)
            spec = replace(spec, length=part.length)
        declared = part.body.length or 0
        if spec.length is not None and state.size + declared > spec.length:
            raise TooLarge(spec.length, "the upload")
        return spec

    async def _receive(
        self, before: UploadSpec, spec: UploadSpec, part: UploadPart, request: _Request
    ) -> UploadProgress:
        upload_id, caller = request.upload_id, request.caller
        provisional = part.checksum is not None
        draft = self._drafts.resume(
            upload_id, part.body.length, provisional=provisional, caller=spec.caller
        )
        resumption = Resumption(self.library, caller, draft, self._sync_bytes)
        upload = resumption.upload
        if part.checksum is not None:
            upload.inspection.checksum = part.checksum.new_hash()
        undo = False
        try:
            if await resumption.start(spec.name) != part.offset:
                raise WrongOffset(part.offset)
            if part.offset:
                self.library.events.publish(
                    UploadResumed(upload_id, spec.name, part.offset, caller)
                )
            broke = await resumption.receive(part.body, spec.length, provisional=provisional)
            upload.raise_failure()
            if part.checksum is not None and broke is None:
                broke = part.checksum.error(upload.inspection.checksum)
            undo = isinstance(broke, TooLarge) or (provisional and broke is not None)
            if broke is not None:
                size = part.offset if undo else upload.size
                self.library.events.publish(UploadInterrupted(spec.name, size, str(broke), caller))
            if broke is not None and undo:
                raise broke
            if spec.length is not None and spec.length != before.length:
                await self._drafts.declare(upload_id, spec.length, caller=caller.key)
            if upload.size == spec.length:
                progress = await self._publish(spec, resumption, request)
            else:
                # A client that records while it sends may not have acknowledged bytes any more.
                synced = spec.length is None or upload.size - resumption.synced >= self._sync_bytes
                await resumption.keep(synced=synced)
                progress = self._unfinished(upload_id, spec, upload.size, self._now_s())
            if broke is not None:
                raise broke
            return progress
        finally:
            self._quota.wrote(upload_id, self._monotonic_s())
            await draft.release(undo=undo)

    async def _publish(
        self, spec: UploadSpec, resumption: Resumption, request: _Request
    ) -> UploadProgress:
        upload_id, caller = request.upload_id, request.caller.key
        upload = resumption.upload
        upload.sha256 = spec.sha256
        await self.library.publish([upload])
        await resumption.draft.release(undo=False)
        if upload.stored is not None:
            if upload.identical:  # another upload's file, with the same content
                await self._drafts.settle(upload_id, upload.stored.etag, caller=caller)
            self._quota.end(upload_id)
            return _stored(upload_id, spec)
        failure = upload.failure
        assert failure is not None
        if isinstance(failure, (AlreadyExists, NameConflict)):
            await self._drafts.settle(upload_id, None, caller=caller)
            self._quota.end(upload_id)
            raise NameTaken(failure.reason)
        if not isinstance(failure, _PASSING):
            await self._forget(request)
        raise failure

    async def _finished(self, request: _Request, state: UploadState) -> UploadProgress:
        """The progress of an upload that was stored, while its file is there."""
        if state.status is UploadStatus.TAKEN:
            raise NameTaken
        media = await self.library.open(request.caller, state.spec.name)
        media.close()
        if media.size != state.spec.length or state.etag not in (None, media.etag):
            raise NotFound("what was uploaded is no longer there")
        return _stored(request.upload_id, state.spec)

    async def _forget(self, request: _Request) -> bool:
        self._quota.end(request.upload_id)
        return await self._drafts.forget(request.upload_id, caller=request.caller.key)

    def _touched_s(self, upload_id: str, modified_ns: int) -> float:
        """When something was last added to an upload, by the wall clock of now. That may have been
        set since, also since the last sweep moved `modified_ns`, the time of the file.
        """
        now_s, monotonic_s = self._now_s(), self._monotonic_s()
        written_s = self._quota.written_s(upload_id)
        if written_s is not None:
            return now_s - (monotonic_s - written_s)
        touched_s = modified_ns / 10**9
        if self._adjusted_s is not None:
            touched_s += now_s - monotonic_s - self._adjusted_s
        return touched_s

    def _unfinished(
        self, upload_id: str, spec: UploadSpec, size: int, touched_s: float
    ) -> UploadProgress:
        return UploadProgress(
            upload_id, size, spec.length, spec.note, expires_s=touched_s + self._expiry_s
        )


@dataclass(slots=True)
class _Request:
    """A request for an upload, as the log names it. `name` is set once it is known."""

    upload_id: str
    caller: Caller
    name: MediaName | None = None

    def __str__(self) -> str:
        return f"upload {self.upload_id}" + (f" of {str(self.name)!r}" if self.name else "")


# After one of these failures an upload that is complete can be published at another time.
_PASSING = (NoSpace, StorageFailed, Busy, InternalError)


def _stored(upload_id: str, spec: UploadSpec) -> UploadProgress:
    return UploadProgress(upload_id, spec.length or 0, spec.length, spec.note, stored=spec.name)


def _goes_on(_: Exception) -> None:
    """Let the request at work go on: it ends soon, or it publishes, which is not broken off."""
